"""The peer's end of one four-tuple: what it knows of both directions, and the frames it makes of steps."""

from __future__ import annotations

import random
from dataclasses import replace

from ..wire.numbers import signed
from ..wire.segment import ACK, CWR, ECE, FIN, PSH, RST, SYN, Segment
from .steps import Frame

M = 0xFFFF_FFFF
SIZE = 1 << 16
IN = random.Random("to the engine").randbytes(SIZE) * 2
"""The byte at sequence number n is IN[n % SIZE], whoever sends it, and however often."""
OUT = random.Random("from the engine").randbytes(SIZE) * 2
"""The n-th byte that the host sends on a connection is OUT[n % SIZE]."""


class Broken(AssertionError):
    """What the engine must not do."""


class Peer:
    """Attributes

    ----------
    nxt, una, edge, iss : int
        Of own numbers: see ``steps.SEQ_BASES``.
    rcv_nxt, rcv_una, irs : int
        Of the engine's numbers: see ``steps.ACK_BASES``.
    syns : list of int
        Own initial sequence numbers so far: one of them is the one that the engine took.
    """

    def __init__(
        self, slot: int, rng: random.Random, our_port: int, engine_port: int, addresses: tuple[int, int]
    ) -> None:
        self.slot, self.our_port, self.engine_port = slot, our_port, engine_port
        self.ip, self.engine_ip = addresses
        self._most = 1440 if self.ip >> 32 else 1460
        self._rng = rng
        self.syns: list[int] = []
        self.begin()

    def begin(self) -> None:
        """Forget everything: another connection."""
        self.iss = self._rng.choice((self._rng.randrange(1 << 32), (1 << 32) - self._rng.randrange(1, 3000)))
        self.nxt = self.una = self.edge = self.iss
        self.irs: int | None = None
        self.rcv_nxt = self.rcv_una = 0
        self.open = self.over = self.fin_sent = self.peer_closed = False
        self.wnd, self.mss = self._rng.choice((8192, 8192, 1000, 65_535)), self._rng.choice((536, self._most))
        self.sack, self.ecn = self._rng.random() < 0.7, self._rng.random() < 0.7
        self.stamped = self._rng.random() < 0.6  # our SYN has timestamps
        self.agreed = False  # so has the engine's
        self.clock = self._rng.choice((0, M - 20, (1 << 31) - 20, self._rng.randrange(1 << 32)))
        self.echo = 0

    # --- from the engine ---

    def input(self, segment: Segment) -> None:
        """A segment of the engine's, which the wire monitor has judged already; its data is compared."""
        if segment.stamps is not None:
            self.echo = segment.stamps[0]
            self.agreed |= self.stamped and segment.flags & SYN > 0
        if segment.flags & RST:
            self.over |= self.open or segment.flags & ACK > 0
            return
        if segment.flags & SYN and (self.irs != segment.seq or not self.open):
            self.irs, self.rcv_nxt = segment.seq, segment.seq + 1 & M
        if segment.flags & ACK:
            if signed(segment.ack - self.una) > 0:
                self.una = segment.ack
                if signed(self.una - self.nxt) > 0:
                    self.nxt = self.una  # a frame without manners was taken
            self.edge = segment.ack + segment.wnd & M
        if self.irs is None or segment.flags & SYN:
            return
        at = (segment.seq - self.irs - 1) % SIZE
        if segment.payload != OUT[at : at + len(segment.payload)]:
            raise Broken(f"slot {self.slot}: other bytes than the host has written: {segment}")
        if signed(segment.seq - self.rcv_nxt) <= 0 < signed(segment.seq + segment.length - self.rcv_nxt):
            self.rcv_nxt = segment.seq + segment.length & M
            self.peer_closed |= segment.flags & FIN > 0

    # --- to the engine ---

    def frame(self, step: Frame) -> tuple[Segment, bytes]:
        """The segment of a step, and its TCP options."""
        own = {"nxt": self.nxt, "una": self.una, "edge": self.edge, "iss": self.iss}
        theirs = {"nxt": self.rcv_nxt, "una": self.rcv_una, "iss": self.irs or 0}
        seq = own[step.seq[0]] + step.seq[1] & M
        ack = theirs[step.ack[0]] + step.ack[1] & M if step.flags & ACK else 0
        segment = self._segment(step.flags, seq, ack, step.wnd, step.length)
        if step.stamp is not None and not step.options and len(step.sack) <= 3:
            later, echo = step.stamp
            segment = replace(segment, stamps=(self.clock + later & M, self.echo + echo & M))
        if (
            len(step.options) % 4 == 0
            and 12 * (segment.stamps is not None) + len(step.options) + 4 + 8 * len(step.sack) <= 40
        ):
            starts = [(theirs[base] + offset & M, length) for base, offset, length in step.sack]
            segment = replace(segment, sacks=tuple((start, start + length & M) for start, length in starts))
        return replace(segment, ecn=step.ecn), step.options

    def _segment(self, flags: int, seq: int, ack: int, wnd: int, length: int) -> Segment:
        if flags & SYN:
            self.syns.append(seq)
            del self.syns[:-64]
        at = (seq + bool(flags & SYN)) % SIZE
        payload = IN[at : at + length]
        return Segment(self.ip, self.engine_ip, self.our_port, self.engine_port, seq, ack, flags, wnd, 0, None, payload)

    def polite(self, amount: int) -> tuple[Segment, bytes] | None:
        """What comes next by the rules: handshake, data that fits the window, acknowledgement, FIN; None: nothing. With
        timestamps, if both SYNs had them, from a clock that advances now and then."""
        made = self._polite(amount)
        if made is None:
            return None
        segment, options = made
        self.clock = self.clock + amount % 3 & M
        if self.stamped if segment.flags & SYN else self.agreed:
            segment = replace(segment, stamps=(self.clock, self.echo if segment.flags & ACK else 0))
        return segment, options

    def _polite(self, amount: int) -> tuple[Segment, bytes] | None:
        options = b"\x02\x04" + self.mss.to_bytes(2, "big") + b"\x01\x01\x04\x02" * self.sack
        if self.over:
            self.begin()
        if self.irs is None:
            if self.slot % 2:
                return None  # the host opens
            if self.nxt == self.iss:
                self.nxt = self.iss + 1 & M
            return self._segment(SYN | (ECE | CWR) * self.ecn, self.iss, 0, self.wnd, 0), options
        self.rcv_una = self.rcv_nxt
        if not self.open:
            if self.slot % 2 and self.una == self.iss:  # the engine's SYN; what answers it is not acknowledged yet
                self.nxt = self.iss + 1 & M
                return self._segment(SYN | ACK | ECE * self.ecn, self.iss, self.rcv_nxt, self.wnd, 0), options
            self.open = True
            return self._segment(ACK, self.nxt, self.rcv_nxt, self.wnd, 0), b""
        choice, size = amount % 16, amount // 16
        room = signed(self.edge - self.nxt)
        if choice == 0 and not self.fin_sent:
            self.fin_sent = True
            fin = self._segment(ACK | FIN, self.nxt, self.rcv_nxt, self.wnd, 0)
            self.nxt = self.nxt + 1 & M
            return fin, b""
        if choice < 6 and not self.fin_sent and room > 0:
            data = self._segment(ACK | PSH, self.nxt, self.rcv_nxt, self.wnd, 1 + size % min(room, self._most - 12))
            self.nxt = self.nxt + len(data.payload) & M
            if self.ecn:
                data = replace(
                    data, flags=data.flags | CWR * (size % 7 == 0) | ECE * (size % 3 == 0), ecn=(2, 2, 3)[size % 3]
                )
            return data, b""
        if choice < 9 and signed(self.nxt - self.una) > 0:  # again, what is not acknowledged
            size = min(signed(self.nxt - self.una), self._most - 12)
            return self._segment(ACK, self.una, self.rcv_nxt, self.wnd, size - (self.fin_sent and size > 0)), b""
        if choice == 9 and self.peer_closed and self.fin_sent:
            self.over = True  # the next one is another connection
        return self._segment(ACK, self.nxt, self.rcv_nxt, self.wnd, 0), b""
