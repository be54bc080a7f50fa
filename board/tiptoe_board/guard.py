"""Etherbone's packets in their order, each once: what a network has repeated or overtaken is dropped before it is carried out."""

from __future__ import annotations

from typing import Any

from liteeth.common import eth_udp_user_description
from litex.gen import LiteXModule, reverse_bytes
from litex.soc.interconnect import stream
from migen import FSM, If, NextState, NextValue, Signal

BITS = 32


class SequenceGuard(LiteXModule):
    """Lets numbered packets through in their order, and all without a number.

    The number is the second word of Etherbone's header, which CERN's standard and LiteEth leave empty: bit 31 says that there is
    one, bits 30:0 are it. A packet passes whose number is ``last`` + 1 (modulo 2**31); others are dropped whole, so that each
    is carried out once at most, and none before those that were sent before it. Whoever numbers packets reads ``last`` where he
    begins, and again when an answer does not come.

    Two cycles a packet more than without it. A packet that has nothing behind its header is dropped: LiteEth would take the next
    one's header for the rest of it.

    Attributes
    ----------
    sink, source : stream.Endpoint
        Payload of UDP, 32 bits, the first byte in bits 7:0.
    last : Signal(31)
        The number of the last one let through; 0 after power-up.
    """

    def __init__(self) -> None:
        layout = eth_udp_user_description(BITS)
        self.sink, self.source = sink, source = stream.Endpoint(layout), stream.Endpoint(layout)
        self.last = last = Signal(31)
        first, word, following = Signal(BITS), Signal(BITS), Signal(31)
        self.comb += [word.eq(reverse_bytes(sink.data)), following.eq(last + 1)]
        self.fsm = fsm = FSM(reset_state="FIRST")
        fsm.act("FIRST",
            sink.ready.eq(1),
            NextValue(first, sink.data),
            If(sink.valid & ~sink.last, NextState("DECIDE")),
        )  # fmt: skip
        fsm.act("DECIDE",
            If(sink.valid,
                If(sink.last,
                    sink.ready.eq(1),
                    NextState("FIRST"),
                ).Elif(~word[31],
                    NextState("SEND"),
                ).Elif(word[:31] == following,
                    NextValue(last, following),
                    NextState("SEND"),
                ).Else(
                    NextState("DROP"),
                )
            ),
        )  # fmt: skip
        fsm.act("SEND",
            sink.connect(source, omit={"ready", "data", "last", "last_be"}),
            source.data.eq(first),
            If(source.valid & source.ready, NextState("PASS")),
        )  # fmt: skip
        fsm.act("PASS",
            sink.connect(source),
            If(sink.valid & sink.ready & sink.last, NextState("FIRST")),
        )  # fmt: skip
        fsm.act("DROP",
            sink.ready.eq(1),
            If(sink.valid & sink.last, NextState("FIRST")),
        )  # fmt: skip


class GuardedUdp:
    """LiteEth's UDP as LiteEth's Etherbone sees it, with ``guard`` in front of the port that it asks for."""

    def __init__(self, udp: Any, guard: SequenceGuard) -> None:
        self.crossbar, self._udp, self._guard = self, udp, guard
        self.dw = udp.crossbar.dw

    def get_port(self, udp_port: int, dw: int, cd: str) -> Any:
        """The port, as of LiteEth's crossbar; once."""
        port = self._udp.crossbar.get_port(udp_port, dw=dw, cd=cd)
        self._guard.comb += port.source.connect(self._guard.sink)
        port.source = self._guard.source  # LiteEth takes it from here
        return port
