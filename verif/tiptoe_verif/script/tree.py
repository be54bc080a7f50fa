"""What a packet script says, line by line: the parser makes it, the runner does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class ScriptError(ValueError):
    """A script that cannot be read; ``line`` is where."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class Unsupported(ScriptError):
    """A script that wants what is not there: it is skipped, and the message says why."""


# --- expressions: int and str are themselves, a list is one of Python's ---


class _Ellipsis:
    def __repr__(self) -> str:
        return "..."


ANY = _Ellipsis()
"""``...``: any value will do."""


@dataclass(frozen=True)
class Name:
    """A constant by its name: ``SOL_SOCKET``."""

    name: str


@dataclass(frozen=True)
class Either:
    """``a | b | c``."""

    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Call:
    """``htons(8080)``, ``inet_addr("192.0.2.1")``."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Struct:
    """``{fd=4, events=POLLIN}`` by its names, or ``{..., 1000}`` with the numbers of places for names."""

    fields: dict[Any, Any] = field(hash=False)


# --- actions ---


@dataclass(frozen=True)
class Option:
    """A TCP option: ``kind`` is one of nop, eol, mss, wscale, sackOK, sack, TS; ``values`` are its numbers."""

    kind: str
    values: tuple[int, ...] = ()

    def __str__(self) -> str:
        match self.kind:
            case "TS":
                return f"TS val {self.values[0]} ecr {self.values[1]}"
            case "sack":
                pairs = zip(self.values[::2], self.values[1::2], strict=True)
                return "sack " + " ".join(f"{left}:{right}" for left, right in pairs)
        return " ".join([self.kind, *map(str, self.values)])


@dataclass(frozen=True)
class Packet:
    """A TCP segment in the script's numbers.

    ``flags`` are letters of FSRPEWU and ``.``; ``ack``, ``win`` and ``urg`` are None where the script does not say;
    ``options`` None: any (``<...>``); ``ecn``: noecn, ect0, ect1, ce, ect01 or None for any; ``tos`` and ``ttl`` likewise;
    ``ports`` are source and destination, if they are given.
    """

    outbound: bool
    flags: str
    seq: int
    length: int
    ack: int | None = None
    win: int | None = None
    urg: int | None = None
    options: tuple[Option, ...] | None = ()
    ecn: str | None = None
    tos: int | None = None
    ttl: int | None = None
    ports: tuple[int, int] | None = None

    def __str__(self) -> str:
        parts = [">" if self.outbound else "<"]
        if self.ecn is not None:
            parts.append(f"[{self.ecn}]")
        if self.tos is not None:
            parts.append(f"[tos {self.tos:#x}]")
        if self.ports:
            parts.append(f"{self.ports[0]} > {self.ports[1]}")
        parts += [self.flags or "-", f"{self.seq}:{(self.seq + self.length) % 2**32}({self.length})"]
        fields = (("ack", self.ack), ("win", self.win), ("urg", self.urg))
        parts += [f"{name} {value}" for name, value in fields if value is not None]
        if self.options is None:
            parts.append("<...>")
        elif self.options:
            parts.append(f"<{','.join(map(str, self.options))}>")
        return " ".join(parts)


@dataclass(frozen=True)
class Icmp:
    """An ICMP error: ``kind`` unreachable, time_exceeded ..., ``code`` by its name, the ``mtu`` of frag_needed, and the segment
    that it is about as ``seq`` and ``length``."""

    outbound: bool
    kind: str
    code: str = ""
    mtu: int = 0
    seq: int | None = None
    length: int = 0

    def __str__(self) -> str:
        words = ["> icmp" if self.outbound else "< icmp", self.kind, self.code, f"mtu {self.mtu}" if self.mtu else ""]
        words.append(f"[{self.seq}:{self.seq + self.length}({self.length})]" if self.seq is not None else "")
        return " ".join(word for word in words if word)


@dataclass(frozen=True)
class SystemCall:
    """``name(arguments) = result errno``; ``ends_us`` is when a blocking call returns, relative to what its line's time is."""

    name: str
    arguments: tuple[Any, ...]
    result: Any
    error: str = ""
    ends_us: int | None = None


@dataclass(frozen=True)
class Shell:
    """A command of the shell, which is not run."""

    command: str


@dataclass(frozen=True)
class Code:
    """Python about the connection's ``tcp_info``."""

    text: str


@dataclass(frozen=True)
class When:
    """A line's time in microseconds: from the beginning, or ``relative`` to the event before; ``until_us`` ends a range; None and
    None: whenever."""

    us: int | None
    until_us: int | None = None
    relative: bool = False


@dataclass(frozen=True)
class Event:
    """A line of a script, and what it looks like there."""

    line: int
    when: When
    action: Packet | Icmp | SystemCall | Shell | Code
    text: str


@dataclass
class Script:
    """A file's options (``--name=value``), commands before the first event, and events."""

    options: dict[str, str] = field(default_factory=dict)
    commands: list[Shell] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
