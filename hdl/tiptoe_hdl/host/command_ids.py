"""What the command processor knows of each id itself."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..wire.valid_only import valid_only

KnownId = data.StructLayout(
    {
        "generation": 8,
        "openable": 1,  # provisioned without ``stock`` and not opened yet
        "unbound": 1,  # the connection table does not hold its connection
    }
)


class KnownIds(wiring.Component):
    """A memory with a ``KnownId`` for each id.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    ready : Out(1)
        The memory is scrubbed: as many cycles after reset as there are ids.
    id : In
    known : Out(KnownId)
        What is known of ``id``, two cycles later.
    note : In(valid-only KnownId)
        The same for ``id`` from now on.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "ready": Out(1),
                "id": In(unsigned(cfg.id_bits)),
                "known": Out(KnownId),
                "note": In(valid_only(KnownId)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self._cfg.connections
        m.submodules.memory = ids = memory.Memory(shape=KnownId, depth=depth, init=[])
        read, write = ids.read_port(), ids.write_port()
        scrub = Signal(range(depth))
        m.d.comb += read.addr.eq(self.id)
        m.d.sync += [
            self.known.eq(read.data),
            write.addr.eq(Mux(self.ready, self.id, scrub)),
            write.data.eq(self.note.payload),
            write.en.eq(self.note.valid | ~self.ready),
        ]
        with m.If(~self.ready):
            m.d.sync += [scrub.eq(scrub + 1), self.ready.eq(scrub == depth - 1)]
        return m
