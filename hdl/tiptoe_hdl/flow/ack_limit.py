"""Which connections have lately acknowledged a segment that they did not take: one ACK of that kind in half a second is enough
(RFC 5961 section 7; FreeBSD's and Linux's tcp_invalid_ratelimit)."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..wire.valid_only import valid_only


def said_now(cfg: EngineConfig) -> data.StructLayout:
    """A connection answers a segment that it does not take; or (``said`` 0) its id begins anew."""
    return data.StructLayout({"id": cfg.id_bits, "said": 1})


class AckLimit(wiring.Component):
    """A bit a connection, and a walk that clears all of them every ``interval`` ticks.

    So a connection says at most one such ACK between two walks: two may follow each other closely, but in the long run
    there is one an interval.

    Timing: ``said`` follows ``id`` in two cycles and comes from a flip-flop; it knows what was written up to the cycle before
    ``id``. A walk takes a cycle for each connection, and one more for each write meanwhile; after reset there is one.

    Ports
    -----
    id : In(id_bits), said : Out(1)
    write : In(valid-only said_now)
    tick : In(1)
    interval : In(16)
        Ticks; 0: no limit.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "id": In(cfg.id_bits), "said": Out(1),
            "write": In(valid_only(said_now(cfg))),
            "tick": In(1), "interval": In(16),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = self.memory = memory = Memory(shape=1, depth=self._cfg.connections, init=[])
        read, write = memory.read_port(), memory.write_port()
        limited = Signal()
        self.over = over = Signal()  # these four are for the proof, as is the memory
        self.elapsed = elapsed = Signal(16)
        self.walking = walking = Signal(init=1)
        self.index = index = Signal(self._cfg.id_bits)
        m.d.comb += read.addr.eq(self.id)
        m.d.sync += [
            limited.eq(self.interval != 0),
            over.eq((elapsed >= self.interval) & ~over),
            self.said.eq(read.data & limited),
        ]
        now = self.write.payload
        with m.If(self.write.valid):
            m.d.comb += [write.en.eq(1), write.addr.eq(now.id), write.data.eq(now.said)]
        with m.Else():
            m.d.comb += [write.en.eq(walking), write.addr.eq(index)]
            m.d.sync += index.eq(index + walking)
            with m.If(index.all()):
                m.d.sync += walking.eq(0)
        with m.If(over):
            m.d.sync += [elapsed.eq(self.tick), walking.eq(1)]
        with m.Elif(self.tick):
            m.d.sync += elapsed.eq(elapsed + 1)
        return m
