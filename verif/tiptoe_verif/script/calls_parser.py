"""Tokens taken one by one, and the system calls among them: C's expressions as far as packet scripts use them."""

from __future__ import annotations

from typing import Any

from .lexer import Token, tokens
from .tree import ANY, Call, Either, Name, ScriptError, Struct, SystemCall


class CallParser:
    """The text, and the token that is next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.at = 0

    @property
    def token(self) -> Token:
        """The next one."""
        return self.tokens[self.at]

    def take(self) -> Token:
        """The next one, which is done with."""
        token = self.token
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, text: str) -> bool:
        """Whether the next one is this; then it is done with."""
        if self.token.text != text or self.token.kind == "string":
            return False
        self.at += 1
        return True

    def expect(self, text: str) -> None:
        """The next one has to be this."""
        if not self.accept(text):
            raise self.wrong(f"{text} is wanted")

    def number(self) -> int:
        """An integer, perhaps with a minus."""
        negative = self.accept("-")
        if self.token.kind not in ("number", "hex"):
            raise self.wrong("a number is wanted")
        value = int(self.take().text, 0 if self.tokens[self.at - 1].kind == "hex" else 10)
        return -value if negative else value

    def wrong(self, message: str) -> ScriptError:
        """The error at the next token."""
        where = f", not {self.token.text!r}" if self.token.text else " before the end"
        return ScriptError(self.token.line, message + where)

    # --- system calls ---

    def call(self, ends_us: int | None) -> SystemCall:
        """``name(arguments) = result ERRNO (words)``."""
        name = self.take().text
        self.expect("(")
        arguments = self._list(")")
        self.expect("=")
        result = self.expression()
        error = self.take().text if self.token.kind == "word" else ""
        if self.token.text == "(":  # the error in words: nobody's business
            while self.take().text != ")":
                if self.token.kind == "end":
                    raise self.wrong(") is wanted")
        return SystemCall(name, arguments, result, error, ends_us)

    def _list(self, end: str) -> tuple[Any, ...]:
        """Expressions between commas, and what ends them."""
        found: list[Any] = []
        if self.accept(end):
            return ()
        while True:
            found.append(self.expression())
            if self.accept(end):
                return tuple(found)
            self.expect(",")

    def expression(self) -> Any:
        """``a | b``, or one of these."""
        parts = [self._primary()]
        while self.accept("|"):
            parts.append(self._primary())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _primary(self) -> Any:
        kind, text = self.token.kind, self.token.text
        if kind == "dots":
            self.take()
            return ANY
        if kind in ("number", "hex") or text == "-":
            return self.number()
        if kind == "string":
            return self._string()
        if self.accept("["):
            return list(self._list("]"))
        if self.accept("{"):
            return self._struct()
        if kind == "word":
            return self._word()
        raise self.wrong("a value is wanted")

    def _string(self) -> str:
        parts = []
        while self.token.kind == "string":
            parts.append(self.take().text[1:-1].encode().decode("unicode_escape"))
        if self.token.kind == "dots":  # a string and whatever follows
            self.take()
        return "".join(parts)

    def _word(self) -> Any:
        name = self.take().text
        if self.accept("("):
            return Call(name, self._list(")"))
        return Name(name)

    def _struct(self) -> Struct:
        fields: dict[Any, Any] = {}
        if self.accept("}"):
            return Struct(fields)
        while True:
            key: Any = len(fields)
            value = self.expression()
            if self.accept("="):
                key = value.name if isinstance(value, (Name, Call)) else key
                value = self.expression()
            fields[key] = value
            if self.accept("}"):
                return Struct(fields)
            self.expect(",")
