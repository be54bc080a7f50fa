"""A connection of good manners beside the fuzzed ones: the engine echoes its bytes, and every byte is compared."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..wire.numbers import signed
from ..wire.segment import ACK, PSH, RST, SYN, Segment
from .peer import Broken, M

CHUNK = 700
RTO = 4000
"""Cycles after which it sends again."""


class Bystander:
    """The client's side, stop and wait: a chunk, its echo, the next chunk.

    Attributes
    ----------
    echoed : int
        Bytes that came back.
    """

    def __init__(
        self, send: Callable[[Segment], None], rng: random.Random, ports: tuple[int, int], addresses: tuple[int, int]
    ) -> None:
        self._send, self._rng = send, rng
        self.port, self.engine_port = ports
        self._ip, self._engine_ip = addresses
        self.iss = rng.randrange(1 << 32)
        self._una = self.iss
        self._rcv_nxt: int | None = None
        self._chunk, self._back = b"", b""
        self._edge = self.iss
        self.echoed = 0
        self._again = 0
        self.pause = False

    def _emit(self, flags: int, seq: int, payload: bytes = b"") -> None:
        ack = self._rcv_nxt or 0
        self._send(
            Segment(self._ip, self._engine_ip, self.port, self.engine_port, seq & M, ack, flags, 8192,
                    1460 if flags & SYN else 0, None, payload)
        )  # fmt: skip

    @property
    def idle(self) -> bool:
        """Everything sent has come back."""
        return not self._chunk

    def turn(self, cycle: int) -> None:
        """Send what is due."""
        if cycle < self._again:
            return
        if self._rcv_nxt is None:
            self._emit(SYN, self.iss)
        elif self._chunk:
            left = self._chunk[signed(self._una - self._begin) :]
            if left:
                self._emit(ACK | PSH, self._una, left)
            else:
                self._emit(ACK, self._una)
        elif not self.pause:
            self._chunk, self._back, self._begin = self._rng.randbytes(CHUNK), b"", self._una
            self._emit(ACK | PSH, self._una, self._chunk)
        else:
            return
        self._again = cycle + RTO

    def input(self, segment: Segment) -> None:
        """A segment of the engine's."""
        if segment.flags & RST:
            raise Broken(f"the bystander's connection was reset: {segment}")
        if segment.flags & SYN:
            if self._rcv_nxt is None:
                self._rcv_nxt, self._una = segment.seq + 1 & M, segment.ack
                self._again = 0
            self._emit(ACK, self._una)
            return
        if self._rcv_nxt is None:
            return
        if segment.flags & ACK and signed(segment.ack - self._una) > 0:
            self._una = segment.ack
        if not segment.length:
            return
        if segment.seq == self._rcv_nxt:
            self._rcv_nxt = self._rcv_nxt + segment.length & M
            self._back += segment.payload
            if segment.length != len(segment.payload) or self._back != self._chunk[: len(self._back)]:
                raise Broken(f"the bystander got other bytes than it has sent: {segment}")
            self.echoed += len(segment.payload)
        self._emit(ACK, self._una)
        if self._chunk and len(self._back) == len(self._chunk):
            self._chunk, self._again = b"", 0

    _begin = 0
