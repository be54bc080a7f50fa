"""What is told of a TCB without changing it: reports to the host, pages for READ_TCB."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..host.abi import TCB_PAGES
from ..messages import Reason, State, connection_report
from ..wire.queue import HalfQueue
from ..wire.valid_only import valid_only
from .banks import LATER
from .result import inquiry, inquiry_later
from .tcb import STAMP_BYTES

REPORT_DEPTH = 16

_WIDTHS = {name: width for page in TCB_PAGES for name, _, width in page}
_HIGH = "_high"
"""The rest of a field whose place in its page is too narrow."""


class Inquiries(wiring.Component):
    """A queue of reports, whose room ``Issue``'s credits guard: nothing is refused here; and the page that was read last.

    Ports
    -----
    i : In(valid-only inquiry), later_* : In(valid-only inquiry_later)
    report : Out(stream connection_report)
    report_returned : Out(1)
        A credit given back in this cycle.
    tcb_page : Out(64)
        What the command processor's request asked for, if it was FlowOp.READ: from before its response to the next request.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(valid_only(inquiry(cfg))),
                **{f"later_{step}": In(valid_only(inquiry_later(cfg, step))) for step in LATER},
                "report": Out(stream.Signature(connection_report(cfg))),
                "report_returned": Out(1),
                "tcb_page": Out(64),
            }
        )

    def elaborate(self, platform):
        m = Module()
        t = self.i.payload
        m.submodules.reports = reports = HalfQueue(connection_report(self._cfg), REPORT_DEPTH)
        wiring.connect(m, reports.o, wiring.flipped(self.report))
        report = reports.i.payload
        stamped = t.ts_ok & (t.state != State.SYN_SENT)  # agreed upon, no offer
        # Sequence numbers as positions: seq - (isn + 1) = seq + ~isn.
        m.d.sync += [
            reports.i.valid.eq(self.i.valid & t.is_report),
            self.report_returned.eq(reports.o.valid & reports.o.ready),
            report.terminal.eq(t.provisioned & (t.state == State.CLOSED) & (t.reason != Reason.NONE)),
            # Our FIN has no place in the send ring.
            report.snd_una_position.eq(Mux(t.fin_acked, t.snd_end, t.snd_una) + ~t.iss),
            report.rcv_nxt_position.eq(t.rcv_nxt + ~t.irs),
            # As the SYN counts it (RFC 6691): timestamps, once they are agreed upon, take their part of it.
            report.mss.eq(t.maxseg + Mux(stamped, STAMP_BYTES, 0)),
            report.ts_ok.eq(stamped),
            report.urgent.eq(t.rcv_urgent),
        ]
        m.d.sync += [
            Value.cast(report[name]).eq(Value.cast(t[name]))
            for name in (
                "id",
                "generation",
                "state",
                "established",
                "peer_closed",
                "bad_doorbell",
                "reason",
                "syncache_ref",
                "snd_scale",
                "rcv_scale",
                "iss",
                "irs",
                "rcv_up",
            )
        ]

        pages = Array(self._page(t, page) for page in TCB_PAGES)
        with m.If(self.i.valid & t.is_request & (t.e_port == 0)):
            m.d.sync += self.tcb_page.eq(pages[t.e_page])
        for step in LATER:
            later = getattr(self, f"later_{step}")
            found = later.payload
            for number, page in enumerate(TCB_PAGES):
                fields = [(name, low, width) for name, low, width in page if self._is_in(found, name)]
                with m.If(later.valid & found.is_request & (found.e_port == 0) & (found.e_page == number)):
                    m.d.sync += [
                        self.tcb_page[low : low + width].eq(self._field(found, name, width))
                        for name, low, width in fields
                    ]
        return m

    @staticmethod
    def _is_in(tcb, name):
        return name.removesuffix(_HIGH) in tcb.shape().members

    @staticmethod
    def _field(tcb, name, width):
        whole = name.removesuffix(_HIGH)
        value, places = Value.cast(tcb[whole]), _WIDTHS[whole] + _WIDTHS.get(whole + _HIGH, 0)
        if len(value) > places:
            raise ValueError(f"{whole} has {len(value)} bits in the TCB, {places} in its page")
        value = value[:width] if name == whole else value[_WIDTHS[whole] :]
        return Cat(value, Const(0, width - len(value)))

    @classmethod
    def _page(cls, tcb, page):
        """The 64 bits of a page of the TCB, zeros for what comes later."""
        parts, at = [], 0
        for name, low, width in page:
            value = cls._field(tcb, name, width) if cls._is_in(tcb, name) else Const(0, width)
            parts += [Const(0, low - at), value]
            at = low + width
        return Cat(*parts, Const(0, 64 - at))
