"""Several streams into one, in turn."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class StreamMerge(wiring.Component):
    """Round robin between single transfers; an offered transfer stays offered until it is taken.

    The turn stays with the source that was served last until another one offers something: so the time that a transfer takes
    depends on the sources alone, not on when it comes.

    Timing: no latency for the source whose turn it is, one cycle for another one, and a cycle for each transfer before it.

    Ports
    -----
    i : In(stream of ``shape``), ``sources`` of them
    o : Out(stream of ``shape``)
    """

    def __init__(self, shape, sources: int):
        self._sources = sources
        super().__init__({
            "i": In(stream.Signature(shape)).array(sources),
            "o": Out(stream.Signature(shape)),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        self.turn = turn = Signal(range(self._sources))  # for proofs
        with m.Switch(turn):
            for k in range(self._sources):
                with m.Case(k):
                    port = self.i[k]
                    m.d.comb += [
                        self.o.valid.eq(port.valid),
                        self.o.payload.eq(port.payload),
                        port.ready.eq(self.o.ready),
                    ]
                    # Move on when this one has nothing, or has just been served: to the next one that has something.
                    with m.If(~port.valid | self.o.ready):
                        for ahead in reversed(range(1, self._sources)):
                            with m.If(self.i[(k + ahead) % self._sources].valid):
                                m.d.sync += turn.eq((k + ahead) % self._sources)
        return m
