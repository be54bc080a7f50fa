"""The messages of docs/seam.md: a head of 16 bytes, then ``length`` bytes; each request has one answer, in order."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

VERSION = 1
HEAD = struct.Struct("<IIQ")
"""Kind, bytes that follow, argument."""
LONGEST = 1 << 20
"""Bytes that may follow a head."""
MOST_WAIT_US = 1_000_000
"""One WAIT lets no more time pass."""
WELCOME = struct.Struct("<QIIQQ")
"""What answers HELLO: bytes of host memory, the engine's and the peer's address, their MAC addresses."""


class Kind(IntEnum):
    """Of a request, and of its answer."""

    ERROR = 0
    HELLO = 1
    READ = 2
    WRITE = 3
    LOAD = 4
    STORE = 5
    WAIT = 6
    SEND = 7
    TAKE = 8


class Event(IntFlag):
    """Bits of WAIT's answer."""

    IRQ = 1
    FRAME = 2


class Refused(Exception):
    """A request that cannot be met; the client is told, and may go on."""


class Broken(Exception):
    """What comes is no message: where the next one begins cannot be known. The client is told, and is gone."""


@dataclass(frozen=True)
class Message:
    """A request or an answer."""

    kind: int
    argument: int = 0
    payload: bytes = b""

    def pack(self) -> bytes:
        """Its bytes."""
        return HEAD.pack(self.kind, len(self.payload), self.argument) + self.payload


class Parser:
    """Finds messages in a stream of bytes. It holds one message and what one read has brought, no more."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def give(self, data: bytes) -> None:
        """Bytes have come."""
        self._bytes += data

    @property
    def amid(self) -> bool:
        """A message has begun and is not complete."""
        return bool(self._bytes)

    def take(self) -> Message | None:
        """The next message that is complete; :exc:`Broken` when there cannot be one."""
        if len(self._bytes) < HEAD.size:
            return None
        kind, length, argument = HEAD.unpack_from(self._bytes)
        if length > LONGEST:
            raise Broken(f"a message of {length} bytes: at most {LONGEST} may follow the head")
        end = HEAD.size + length
        if len(self._bytes) < end:
            return None
        payload = bytes(self._bytes[HEAD.size : end])
        del self._bytes[:end]
        return Message(kind, argument, payload)
