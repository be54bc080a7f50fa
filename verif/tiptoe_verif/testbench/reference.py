"""A TCP of its own on the peer's side, after the manner of Linux: for transfers over bad lines.

Window scaling, out-of-order queue, immediate duplicate ACKs, delayed ACKs for every second segment, NewReno-like
fast retransmission, time-outs with backoff, zero-window probes. Time is clock cycles.
"""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import Timer
from scapy.layers.inet import TCP

from ..wire.numbers import signed
from ..wire.segment import ACK, FIN, RST, SYN, Segment
from .memory import CLOCK_NS, now
from .peer import M32, Host, flag_letters

RTO = 9000
DELACK = 1500
PULSE = 500
"""Cycles between looks at the clock."""


class ReferenceTcp:
    """One connection of the reference TCP. Positions are relative to the ISNs: the SYN is 0, data begins at 1.

    Parameters
    ----------
    active : bool
        Send a SYN; otherwise wait for the engine's.
    room : int
        Receive buffer in bytes.
    sack : bool
        Selective acknowledgements are permitted; what the engine tells by them is checked, not used.
    reads : bool
        Received data is consumed at once; else ``read`` does it.

    Attributes
    ----------
    received : bytearray
        Data in order.
    state : str
        "syn", "open", "closed" or "reset".
    sack_blocks : int
        Blocks that came.
    peer_closed, fin_acked : bool
        The engine's FIN came; ours is acknowledged.
    """

    def __init__(
        self, host: Host, port: int, engine_port: int, *, active: bool, iss: int = 0xFFFFFF00, mss: int = 1460,
        ws: int | None = 2, room: int = 32768, reads: bool = True, sack: bool = True,
    ) -> None:  # fmt: skip
        self.host, self.port, self.engine_port = host, port, engine_port
        self.iss, self.mss, self.ws, self.room, self.reads = iss, mss, ws, room, reads
        self.sack, self.sack_blocks = sack, 0
        self.irs = 0
        self.state = "syn"
        self.snd_una, self.snd_nxt, self.snd_max, self.snd_wnd = 0, 0, 1, 0
        self.snd_mss, self.snd_scale = 536, 0
        self.cwnd = 10 * mss
        self.outgoing = bytearray()
        self.closing = False
        self.rcv_nxt = 0
        self.received = bytearray()
        self.taken = 0
        self.edge = 0
        self.queue: dict[int, tuple[bytes, bool]] = {}
        self.peer_closed = False
        self.unacked = 0
        self.duplicates = self.recover = 0
        self.backoff = 0
        self.deadline = self.ack_deadline = 0
        self.retransmissions = 0
        self.active = active
        host.endpoints[port, engine_port] = self
        cocotb.start_soon(self._pulse())
        if active:
            self._syn()

    # --- the user

    def send(self, data: bytes) -> None:
        """Queue data."""
        self.outgoing += data
        self._output()

    def close(self) -> None:
        """FIN after the data."""
        self.closing = True
        self._output()

    def read(self) -> bytes:
        """Take what has arrived, when ``reads`` is off."""
        data = bytes(self.received[self.taken :])
        self.taken = len(self.received)
        self._emit("A", self.snd_nxt)
        return data

    @property
    def fin_acked(self) -> bool:
        """Our FIN is acknowledged."""
        return self.closing and self.snd_una == self._end + 1

    @property
    def over(self) -> bool:
        """Both directions are closed, or the connection was reset."""
        return self.state == "reset" or (self.peer_closed and self.fin_acked)

    # --- out

    @property
    def _end(self) -> int:
        """Position behind the last byte to send."""
        return 1 + len(self.outgoing)

    def _window(self) -> int:
        used = 0 if self.reads else len(self.received) - self.taken
        self.edge = max(self.edge, self.rcv_nxt + self.room - used)
        return self.edge - self.rcv_nxt

    def _emit(self, flags: str, seq: int, data: bytes = b"", **fields: Any) -> None:
        window = self._window()
        if "S" not in flags:
            window >>= self.ws or 0 if self.scaled else 0
        tcp = TCP(
            sport=self.port, dport=self.engine_port, flags=flags, seq=(self.iss + seq) & M32,
            ack=(self.irs + self.rcv_nxt) & M32 if "A" in flags else 0, window=min(window, 0xFFFF), **fields,
        )  # fmt: skip
        self.host.bench.line.give(self.host.packet(tcp, data))
        if "A" in flags:
            self.unacked = self.ack_deadline = 0

    scaled = engine_permits = False

    def _syn(self) -> None:
        options: list[Any] = [("MSS", self.mss)]
        if self.ws is not None and (self.active or self.scaled):
            options += [("NOP", None), ("WScale", self.ws)]
        if self.sack and (self.active or self.engine_permits):
            options += [("SAckOK", b"")]
        self._emit("S" if self.active else "SA", 0, options=options)
        self._start_timer()

    def _start_timer(self) -> None:
        self.deadline = now() + (RTO << self.backoff)

    def _output(self) -> None:
        """Send what windows and data allow, from snd_nxt on."""
        if self.state != "open":
            return
        limit = self.snd_una + min(self.cwnd, self.snd_wnd)
        while self.snd_nxt < self._end and self.snd_nxt < limit:
            size = min(self.snd_mss, self._end - self.snd_nxt, limit - self.snd_nxt)
            self._data(self.snd_nxt, size)
        if self.closing and self.snd_nxt == self._end:
            self._emit("FA", self.snd_nxt)
            self.snd_nxt += 1
        self.snd_max = max(self.snd_max, self.snd_nxt)
        if self.snd_una < self.snd_max or self.snd_nxt < self._end:
            if not self.deadline:
                self._start_timer()

    def _data(self, seq: int, size: int) -> None:
        data = bytes(self.outgoing[seq - 1 : seq - 1 + size])
        if seq < self.snd_max and self.snd_max > 1:
            self.retransmissions += 1
        self._emit("PA", seq, data)
        self.snd_nxt = max(self.snd_nxt, seq + len(data))
        self.snd_max = max(self.snd_max, self.snd_nxt)

    def _again(self) -> None:
        """Send the first unacknowledged segment again."""
        size = min(self.snd_mss, self._end - self.snd_una)
        if size > 0:
            self._data(self.snd_una, size)
        elif self.closing:
            self.retransmissions += 1
            self._emit("FA", self._end)

    async def _pulse(self) -> None:
        while True:
            await Timer(PULSE * CLOCK_NS, "ns")
            try:
                self._clock()
            except Exception as error:
                self.host.bench.fail(error)
                return

    def _clock(self) -> None:
        if self.ack_deadline and now() >= self.ack_deadline:
            self._emit("A", self.snd_nxt)
        if not self.deadline or now() < self.deadline:
            return
        self.backoff = min(self.backoff + 1, 4)
        self._start_timer()
        if self.state == "syn":
            if self.active or self.rcv_nxt:
                self._syn()
        elif self.state == "open" and (self.snd_una < self.snd_max or self.snd_nxt < self._end):
            if self.snd_wnd == 0 and self.snd_una < self._end:
                self._data(self.snd_una, 1)  # probe
                self.snd_nxt = max(self.snd_nxt, self.snd_una + 1)
                return
            self.cwnd, self.recover = self.snd_mss, self.snd_max
            self.snd_nxt = self.snd_una
            self._again()
            self.snd_nxt = max(self.snd_nxt, self.snd_una)

    # --- in

    def input(self, segment: Segment) -> None:
        """A segment came."""
        if segment.flags & RST:
            self.state, self.deadline = "reset", 0
            return
        if segment.flags & SYN:
            self._synchronise(segment)
            return
        if self.state == "syn":
            if self.active or not segment.flags & ACK or signed(segment.ack - self.iss) != 1:
                return
            self.state = "open"
            self.snd_una = self.snd_nxt = 1
            self.deadline = self.backoff = 0
        seq = self.rcv_nxt + signed(segment.seq - self.irs - self.rcv_nxt)
        if segment.flags & ACK:
            self._acknowledged(segment)
        if segment.length:
            self._arrived(seq, segment)
        self._output()

    def _synchronise(self, segment: Segment) -> None:
        if self.state != "syn":
            self._emit("A", self.snd_nxt)
            return
        self.irs, self.rcv_nxt = segment.seq, 1
        self.scaled = segment.ws is not None and self.ws is not None
        self.snd_scale = segment.ws or 0 if self.scaled else 0
        self.engine_permits = segment.sack_ok
        self.snd_mss = min(segment.mss or 536, self.mss)
        self.snd_wnd = segment.wnd
        if self.active and flag_letters(segment.flags) == "SA":
            self.state = "open"
            self.snd_una = self.snd_nxt = 1
            self.deadline = self.backoff = 0
            self._emit("A", 1)
            self._output()
        else:
            self._syn()

    def _acknowledged(self, segment: Segment) -> None:
        ack = self.snd_una + signed(segment.ack - self.iss - self.snd_una)
        window = segment.wnd << self.snd_scale
        for number, (left, right) in enumerate(segment.sacks):
            begin, end = (ack + signed(edge - self.iss - ack) for edge in (left, right))
            low = ack if number else 0  # the first one may tell of what came twice (RFC 2883)
            assert self.sack and self.engine_permits and low < begin < end <= self.snd_max, f"SACK block {begin}-{end}"
            self.sack_blocks += 1
        if self.snd_una < ack <= self.snd_max:
            self.snd_una = ack
            self.snd_nxt = max(self.snd_nxt, ack)
            self.duplicates = self.backoff = 0
            self.cwnd = min(self.cwnd + self.snd_mss, 64 * self.snd_mss)
            self.deadline = 0
            if ack < self.snd_max:
                self._start_timer()
                if ack < self.recover:
                    self._again()
        elif ack == self.snd_una and not segment.length and window == self.snd_wnd and self.snd_una < self.snd_max:
            self.duplicates += 1
            if self.duplicates == 3 and self.snd_una >= self.recover:
                self.recover = self.snd_max
                self.cwnd = max(self.cwnd // 2, 2 * self.snd_mss)
                self._again()
        if ack >= self.snd_una:
            self.snd_wnd = window

    def _arrived(self, seq: int, segment: Segment) -> None:
        fin = bool(segment.flags & FIN)
        data = segment.payload
        assert seq + len(data) + fin <= self.edge + 1, "the engine sent beyond the window"
        known = self.queue.get(seq)
        if known is None or len(known[0]) < len(data) or fin:
            self.queue[seq] = (data, fin)
        before = self.rcv_nxt
        for at in sorted(self.queue):
            data, fin = self.queue[at]
            if at > self.rcv_nxt:
                break
            del self.queue[at]
            if self.peer_closed:
                continue
            self.received += data[self.rcv_nxt - at :]
            self.rcv_nxt = max(self.rcv_nxt, at + len(data))
            if fin and self.rcv_nxt == at + len(data):
                self.rcv_nxt += 1
                self.peer_closed = True
        if self.reads:
            self.taken = len(self.received)
        self.unacked += 1
        if self.rcv_nxt == before or self.queue or self.peer_closed or self.unacked >= 2:
            self._emit("A", self.snd_nxt)
        elif not self.ack_deadline:
            self.ack_deadline = now() + DELACK
