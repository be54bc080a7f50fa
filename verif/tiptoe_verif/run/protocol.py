"""Requests of the interposer and replies of the broker: as in interposer/interposer.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

VARIABLE = "TIPTOE_CONTROL"
"""Environment variable that configures the interposer: NAME:TOKEN, the abstract socket's name and 32 hex digits."""

TOKEN_BYTES = 16
MOST_BYTES = 4096
"""More than any request has."""
_REQUEST = struct.Struct(f"={TOKEN_BYTES}sIIQiiII")
_REPLY = struct.Struct("=iIIIII")
_ACCEPTED = struct.Struct("=QIIII")
_OPTION = struct.Struct("=iii")
REPLY_DATA = 2048


class Op(IntEnum):
    """What is asked for."""

    SOCKET = 1
    BIND = 2
    LISTEN = 3
    CONNECT = 4
    ACCEPTING = 5
    GETSOCKNAME = 6
    GETPEERNAME = 7
    GETSOCKOPT = 8
    SETSOCKOPT = 9


class Action(IntEnum):
    """What the interposer has to do."""

    DONE = 0
    FALL_BACK = 1
    """Put a socket of the kernel in the place of the descriptor and make the call on it."""
    REPLACE = 2
    """Put the socket that comes with the reply in its place and ask again."""
    NEAR = 3
    """Inside the broker only: the other side is a program of the same run."""


class Kind(IntEnum):
    """What an address of a request is."""

    NONE = 0
    V4 = 4
    V6_ANY = 60
    V6_MAPPED = 64
    V6_OTHER = 66


@dataclass(frozen=True, slots=True)
class Request:
    """A call of the program. ``a`` and ``b`` depend on the call; addresses are integers."""

    op: Op
    kind: Kind
    serial: int
    a: int
    b: int
    ip: int
    port: int
    data: bytes


@dataclass(slots=True)
class Reply:
    """Its result: an errno, or what was asked for."""

    error: int = 0
    action: Action = Action.DONE
    family: int = 0
    ip: int = 0
    port: int = 0
    data: bytes = b""

    def pack(self) -> bytes:
        """As the interposer reads it."""
        return _REPLY.pack(self.error, self.action, self.family, self.ip, self.port, len(self.data)) + self.data


def parse_request(message: bytes, token: bytes) -> Request | None:
    """The request in a message; None if it is none, or of somebody who does not know the token."""
    if len(message) < _REQUEST.size:
        return None
    sent, op, kind, serial, a, b, ip, port = _REQUEST.unpack_from(message)
    if sent != token:
        return None
    try:
        return Request(Op(op), Kind(kind), serial, a, b, ip, port, message[_REQUEST.size :])
    except ValueError:
        return None


def pack_accepted(serial: int, family: int, ip: int, port: int) -> bytes:
    """The record that goes with an accepted connection's descriptor."""
    return _ACCEPTED.pack(serial, family, ip, port, 0)


def pack_options(options: list[tuple[int, int, bytes]]) -> bytes:
    """Level, name and value of the options to be set on a socket of the kernel, as many as a reply carries."""
    packed = b""
    for level, name, value in options:
        entry = _OPTION.pack(level, name, len(value)) + value + bytes(-len(value) % 4)
        if len(packed) + len(entry) <= REPLY_DATA:
            packed += entry
    return packed
