"""Etherbone's frames as LiteEth speaks them (CERN's EB protocol, its reduction in LiteEth: 32 bits, one record a packet, in UDP).

Words are big-endian on the wire. A packet's answer is known by the base return address of its read, which comes back. The second
word of the header, which the protocol leaves empty, may number the packets (guard.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

UDP_PORT = 1234
LONGEST = 255
"""Words a record carries."""

NUMBERED = 1 << 31
"""Of the header's second word: bits 30:0 are the packet's number."""
NUMBERS = NUMBERED - 1
"""Numbers are counted modulo one more than this."""

_MAGIC = struct.pack(">HBB", 0x4E6F, 0x10, 0x44)
_HEADER = len(_MAGIC) + 4
_RECORD = struct.Struct(">BBBB")
_CYCLE, _EVERY_BYTE = 0x10, 0x0F


class NotEtherbone(ValueError):
    """Not a packet that we understand."""


def write_packet(address: int, words: Sequence[int], number: int | None = None) -> bytes:
    """UDP payload that writes ``words`` to ``address`` on."""
    _check(len(words))
    return _header(number) + _RECORD.pack(_CYCLE, _EVERY_BYTE, len(words), 0) + _words([address, *words])


def read_packet(addresses: Sequence[int], tag: int = 0, number: int | None = None) -> bytes:
    """UDP payload that reads a word at each address; the answer carries ``tag``, 32 bits."""
    _check(len(addresses))
    return _header(number) + _RECORD.pack(_CYCLE, _EVERY_BYTE, 0, len(addresses)) + _words([tag, *addresses])


def parse_answer(payload: bytes) -> tuple[int, list[int]]:
    """Tag and words of the answer to a read."""
    if len(payload) < _HEADER + _RECORD.size + 4 or payload[:2] != _MAGIC[:2]:
        raise NotEtherbone(f"no Etherbone packet: {payload[:16].hex()}")
    _, _, count, _ = _RECORD.unpack_from(payload, _HEADER)
    body = payload[_HEADER + _RECORD.size :]
    if not count or len(body) < 4 * (count + 1):
        raise NotEtherbone(f"a record of {count} words in {len(body)} bytes")
    tag, *words = struct.unpack_from(f">{count + 1}I", body)
    return tag, words


def _header(number: int | None) -> bytes:
    return _MAGIC + _words([0 if number is None else NUMBERED | number])


def _check(count: int) -> None:
    if not 1 <= count <= LONGEST:
        raise ValueError(f"a record has 1 to {LONGEST} words, not {count}")


def _words(values: Sequence[int]) -> bytes:
    return struct.pack(f">{len(values)}I", *values)
