"""Listen table: which listener a SYN is for (RFC 9293 section 3.10.7.2, the LISTEN state)."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FlowResponse, Status, listen_write

LocalEndpoint = data.StructLayout({"laddr": 32, "lport": 16})


def listener(cfg: EngineConfig) -> data.StructLayout:
    """What a search finds; all but ``hit`` void without a hit."""
    return data.StructLayout({
        "hit": 1, "listener": cfg.listener_bits, "mss": 16, "rcv_scale": 4, "wnd": 16,
    })


class ListenTable(wiring.Component):
    """A small memory searched one entry a cycle, up to the highest listener in use.

    An entry whose laddr is the segment's wins over one whose laddr is 0 (any address). One search or write at a
    time. Timing: a search takes 6 cycles and one for each entry up to the highest one in use; a write takes 5.
    After reset all entries are cleared, one a cycle.

    Members
    -------
    write : In stream of ``listen_write``
    written : Out stream of FlowResponse, one a write
        EXISTS for an entry in use that is to be enabled, BAD_STATE for one not in use that is to be disabled.
    find : In stream of LocalEndpoint
    found : Out stream of ``listener``, one a search
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        super().__init__({
            "write": In(stream.Signature(listen_write(cfg))),
            "written": Out(stream.Signature(FlowResponse)),
            "find": In(stream.Signature(LocalEndpoint)),
            "found": Out(stream.Signature(listener(cfg))),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        # An entry is the message that wrote it; "enable" says that it is in use.
        layout = listen_write(cfg)
        m.submodules.storage = storage = memory.Memory(shape=layout, depth=max(2, cfg.listeners), init=[])
        write, read = storage.write_port(), storage.read_port()
        index = Signal(range(max(2, cfg.listeners)))
        limit = Signal(range(cfg.listeners + 1))  # no entry from here on is in use
        entry = Signal(layout)  # two cycles after index
        number = [Signal.like(index, name=f"number{stage}") for stage in range(4)]
        scanned = [Signal(name=f"scanned{stage}") for stage in range(4)]
        m.d.comb += [read.addr.eq(index), write.addr.eq(index), number[0].eq(index)]
        m.d.sync += entry.eq(read.data)
        for stage in range(1, 4):
            m.d.sync += [number[stage].eq(number[stage - 1]), scanned[stage].eq(scanned[stage - 1])]

        wanted = self.find.payload
        exact = Signal()  # an entry with the segment's address was found
        laddr_equal, laddr_any, lport_equal = Signal(), Signal(), Signal()
        held = Signal(layout)
        m.d.sync += [
            laddr_equal.eq(entry.laddr == wanted.laddr),
            laddr_any.eq(entry.laddr == 0),
            lport_equal.eq(entry.lport == wanted.lport),
            held.eq(entry),
        ]
        match_exact, match_any = Signal(), Signal()
        m.d.comb += [
            match_exact.eq(scanned[3] & held.enable & lport_equal & laddr_equal),
            match_any.eq(scanned[3] & held.enable & lport_equal & laddr_any),
        ]
        result = self.found.payload
        with m.If((match_exact & ~exact) | (match_any & ~result.hit)):
            m.d.sync += [
                result.hit.eq(1),
                result.listener.eq(number[3]),
                result.mss.eq(held.mss),
                result.rcv_scale.eq(held.rcv_scale),
                result.wnd.eq(held.wnd),
                exact.eq(match_exact),
            ]

        request = self.write.payload
        with m.FSM():
            with m.State("Clear"):
                m.d.comb += write.en.eq(1)  # with all fields 0
                m.d.sync += index.eq(index + 1)
                with m.If(index == max(2, cfg.listeners) - 1):
                    m.next = "Idle"
            with m.State("Idle"):
                m.d.sync += [index.eq(0), exact.eq(0)]
                with m.If(self.find.valid):
                    m.d.sync += result.hit.eq(0)
                    m.next = "Scan"
                with m.Elif(self.write.valid):
                    m.d.sync += index.eq(request.listener)
                    m.next = "Read"
            with m.State("Scan"):
                m.d.comb += scanned[0].eq(index != limit)
                m.d.sync += index.eq(index + 1)
                with m.If((index + 1 == limit) | (limit == 0)):
                    m.next = "Drain"
            with m.State("Drain"):
                with m.If(~scanned[1] & ~scanned[2] & ~scanned[3]):
                    m.d.comb += self.find.ready.eq(1)
                    m.d.sync += self.found.valid.eq(1)
                    m.next = "Found"
            with m.State("Found"):
                with m.If(self.found.ready):
                    m.d.sync += self.found.valid.eq(0)
                    m.next = "Idle"
            with m.State("Read"):
                m.next = "Entry"
            with m.State("Entry"):
                m.next = "Write"
            with m.State("Write"):
                m.d.comb += [write.data.eq(request), self.write.ready.eq(1)]
                m.d.sync += [self.written.valid.eq(1), self.written.payload.status.eq(Status.OK)]
                m.next = "Written"
                with m.If(entry.enable & request.enable):
                    m.d.sync += self.written.payload.status.eq(Status.EXISTS)
                with m.Elif(~entry.enable & ~request.enable):
                    m.d.sync += self.written.payload.status.eq(Status.BAD_STATE)
                with m.Else():
                    m.d.comb += write.en.eq(1)
                    with m.If(request.enable & (index >= limit)):
                        m.d.sync += limit.eq(index + 1)
                    with m.If(~request.enable & (index + 1 == limit)):
                        m.d.sync += limit.eq(index)
            with m.State("Written"):
                with m.If(self.written.ready):
                    m.d.sync += self.written.valid.eq(0)
                    m.next = "Idle"
        return m
