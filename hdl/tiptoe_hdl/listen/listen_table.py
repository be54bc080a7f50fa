"""Listen table: which listener a SYN is for (RFC 9293 section 3.10.7.2, the LISTEN state)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FlowResponse, Status, listen_write
from .states import States

LocalEndpoint = data.StructLayout({"laddr": 32, "lport": 16})


def listener(cfg: EngineConfig) -> data.StructLayout:
    """What a search finds; all but ``hit`` void without a hit."""
    return data.StructLayout(
        {
            "hit": 1,
            "listener": cfg.listener_bits,
            "mss": 16,
            "rcv_scale": 4,
            "wnd": 16,
        }
    )


class ListenTable(wiring.Component):
    """A small memory searched one entry a cycle, up to the highest listener in use.

    An entry whose laddr is the segment's wins over one whose laddr is 0 (any address). One search or write at a
    time. Timing: a search takes 5 cycles and one for each entry up to the highest one in use; a write takes 6.
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
        super().__init__(
            {
                "write": In(stream.Signature(listen_write(cfg))),
                "written": Out(stream.Signature(FlowResponse)),
                "find": In(stream.Signature(LocalEndpoint)),
                "found": Out(stream.Signature(listener(cfg))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        # An entry is the message that wrote it; "enable" says that it is in use.
        layout = listen_write(cfg)
        m.submodules.storage = storage = memory.Memory(shape=layout, depth=max(2, cfg.listeners), init=[])
        write, read = storage.write_port(), storage.read_port()
        index = Signal(range(max(2, cfg.listeners)))
        following = Signal(range(cfg.listeners + 1))  # index + 1
        limit = Signal.like(following)  # no entry from here on is in use
        highest = Signal.like(following)  # the one below the limit
        final = Signal()  # index is the highest one, or there is none
        entry = Signal(layout)  # two cycles after index
        number = [Signal.like(index, name=f"number{stage}") for stage in range(4)]
        scanned = [Signal(name=f"scanned{stage}") for stage in range(4)]
        m.d.comb += [read.addr.eq(index), write.addr.eq(index), number[0].eq(index)]
        m.d.sync += [entry.eq(read.data), highest.eq(limit - 1)]
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

        # A write: judged and done one after the other.
        request = self.write.payload
        above, taken, idle = Signal(), Signal(), Signal()
        m.d.sync += [
            above.eq(index >= limit),
            taken.eq(entry.enable & request.enable),
            idle.eq(~entry.enable & ~request.enable),
        ]
        s = States(m, "Clear")
        m.d.comb += write.data.eq(Mux(s.at("Clear"), 0, request))
        with s("Clear"):
            m.d.comb += write.en.eq(1)  # with all fields 0
            m.d.sync += index.eq(index + 1)
            with m.If(index == max(2, cfg.listeners) - 1):
                s.go("Idle")
        with s("Idle"):
            m.d.sync += [
                index.eq(Mux(self.find.valid, 0, request.listener)), following.eq(1), exact.eq(0),
                final.eq(limit <= 1),
            ]  # fmt: skip
            with m.If(self.find.valid):
                m.d.sync += result.hit.eq(0)
                s.go("Scan")
            with m.Elif(self.write.valid):
                s.go("Read")
        with s("Scan"):
            # Without any listener an entry is looked at that is not in use.
            m.d.comb += scanned[0].eq(1)
            m.d.sync += [index.eq(following), following.eq(following + 1), final.eq(following == highest)]
            with m.If(final):
                s.go("Drain")
        with s("Drain"):
            with m.If(~scanned[1] & ~scanned[2]):  # the last one's match is stored now
                m.d.comb += self.find.ready.eq(1)
                m.d.sync += self.found.valid.eq(1)
                s.go("Found")
        with s("Found"):
            with m.If(self.found.ready):
                m.d.sync += self.found.valid.eq(0)
                s.go("Idle")
        with s("Read"):
            m.d.sync += [following.eq(index + 1), final.eq(index == highest)]
            s.go("Entry")
        with s("Entry"):
            s.go("Judge")
        with s("Judge"):
            s.go("Write")
        with s("Write"):
            m.d.comb += [self.write.ready.eq(1), write.en.eq(~taken & ~idle)]
            m.d.sync += self.written.valid.eq(1)
            with m.If(taken):
                m.d.sync += self.written.payload.status.eq(Status.EXISTS)
            with m.Elif(idle):
                m.d.sync += self.written.payload.status.eq(Status.BAD_STATE)
            with m.Else():
                m.d.sync += self.written.payload.status.eq(Status.OK)
                with m.If(request.enable & above):
                    m.d.sync += limit.eq(following)
                with m.If(~request.enable & final):
                    m.d.sync += limit.eq(index)
            s.go("Written")
        with s("Written"):
            with m.If(self.written.ready):
                m.d.sync += self.written.valid.eq(0)
                s.go("Idle")
        s.done()
        return m
