"""A packet script as tokens. The language is packetdrill's; ``#`` begins a comment too, where a line begins with it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .tree import ScriptError

_TOKEN = re.compile(
    r"""
    (?P<skip>   [ \t\r\n]+ | //[^\n]* | /\*.*?\*/ | (?m:^[ \t]*\#[^\n]*) )
  | (?P<code>   %\{.*?\}% )
  | (?P<shell>  `(?:\\.|[^`])*` )
  | (?P<string> "(?:\\.|[^"\\])*" )
  | (?P<dots>   \.\.\. )
  | (?P<option> --[A-Za-z0-9_]+(?:=(?:"[^"\n]*"|[^\s"]+)+)? )
  | (?P<hex>    0x[0-9a-fA-F]+ )
  | (?P<float>  [0-9]*\.[0-9]+ )
  | (?P<word>   [A-Za-z_][A-Za-z0-9_]* | [0-9]+[A-Za-z_][A-Za-z0-9_]* )
  | (?P<number> [0-9]+ )
  | (?P<sign>   [^\s] )
    """,
    re.X | re.S,
)


_OPENING = ("`", '"', "/*", "%{")


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: code, shell, string, dots, option, hex, float, word, number, sign, end. ``at`` and ``end``: where in the text."""

    kind: str
    text: str
    line: int
    at: int
    end: int


def tokens(text: str) -> list[Token]:
    """All tokens, without blanks and comments; the last one's kind is "end"."""
    found = []
    line, at = 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup == "sign" and text.startswith(_OPENING, at):
            raise ScriptError(line, f"{text[at : at + 20]!r} has no end")
        kind = match.lastgroup or ""
        if kind != "skip":
            found.append(Token(kind, match[0], line, at, match.end()))
        line += match[0].count("\n")
        at = match.end()
    return [*found, Token("end", "", found[-1].line if found else line, at, at)]
