"""SYN cookies (RFC 4987 section 3.6): SYNs that find no room are answered without remembering anything."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import listen_write, tx_control
from ..wire.stream_merge import StreamMerge
from .cookie_maker import CookieMaker, MssBits, Offers, Question
from .handshake import syn_request

MAKERS = 3
"""One takes 23 to 31 cycles for a SYN; the line brings one every 10."""
PERIOD_LOG2 = 16
"""Ticks that a cookie's clock stands still: a cookie is good for one to two of them."""


class SynCookies(wiring.Component):
    """Answers SYNs that the dispatcher lets in for a cookie only, and questions about cookies that are returned.

    Timing: a cookie's SYN is taken every 9 cycles. A question waits for a SYN of the first maker, which gets one only while the
    others have theirs, 31 cycles, then 22.

    Ports
    -----
    key : In(64); tick_time : In(32)
    offers : In(Offers)
        What SYN,ACKs agree to.
    i : In(stream of syn_request)
    index : Out(listener_bits); entry : In(listen_write)
        The listen table: what the listener says, two cycles later. From flip-flops.
    changing : In(1)
        The listen table is about to be written, which takes some cycles: no SYN is taken that would ask for it meanwhile.
    ask : In(stream of Question)
    recent : Out(1)
        A cookie that was sent may still be good.
    current : Out(2 of 5)
        The clock's low bits, and those of the period before: other cookies need not be asked about.
    answered, good : Out(1)
    control : Out(stream of TxControl); room : In(1)
    count_syn_cookies : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "key": In(64), "tick_time": In(32), "offers": In(Offers),
            "i": In(stream.Signature(syn_request(cfg))),
            "index": Out(cfg.listener_bits), "entry": In(listen_write(cfg)), "changing": In(1),
            "ask": In(stream.Signature(Question)), "answered": Out(1), "good": Out(1),
            "recent": Out(1), "current": Out(5), "before": Out(5),
            "control": Out(stream.Signature(tx_control(cfg))), "room": In(1), "count_syn_cookies": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        makers = [CookieMaker(self._cfg) for _ in range(MAKERS)]
        m.submodules.merge = merge = StreamMerge(tx_control(self._cfg), MAKERS)
        wiring.connect(m, merge.o, wiring.flipped(self.control))
        time = Signal(16)
        m.d.sync += [
            time.eq(self.tick_time[PERIOD_LOG2:]), self.current.eq(time[:5]), self.before.eq(time[:5] - 1),
        ]  # fmt: skip
        free = Signal()
        m.d.comb += [
            self.i.ready.eq(free & ~self.changing),
            self.answered.eq(makers[0].answered), self.good.eq(makers[0].good),
            makers[0].ask.valid.eq(self.ask.valid), makers[0].ask.payload.eq(self.ask.payload),
            self.ask.ready.eq(makers[0].ask.ready),
        ]  # fmt: skip
        wanted = self.i.valid & ~self.changing
        # What a maker has taken leaves its index here; the entry comes in time, three cycles later.
        with m.If(wanted & free):
            m.d.sync += self.index.eq(self.i.payload.listener)
        m.submodules.mss = mss = MssBits(self._cfg)
        m.d.comb += mss.mss.eq(self.i.payload.mss)
        m.d.comb += free.eq(Cat(maker.make.ready for maker in makers).any())
        for number, maker in enumerate(makers):
            # The first one comes last: it answers questions.
            before = Cat(other.make.ready for other in makers[number + 1 :])
            m.submodules[f"maker{number}"] = maker
            wiring.connect(m, maker.control, merge.i[number])
            m.d.comb += [
                maker.key.eq(self.key), maker.time.eq(time), maker.offers.eq(self.offers),
                maker.entry.eq(self.entry), maker.room.eq(self.room),
                maker.mss.eq(mss.o),
                maker.make.payload.eq(self.i.payload),
                maker.make.valid.eq(wanted & ~before.any()),
            ]  # fmt: skip

        sent, now, earlier = Signal(), Signal(), Signal()
        m.d.comb += sent.eq(Cat(maker.sent for maker in makers).any())
        with m.If(self.current != time[:5]):
            m.d.sync += [now.eq(sent), earlier.eq(now)]
        with m.Elif(sent):
            m.d.sync += now.eq(1)
        m.d.sync += [self.recent.eq(now | earlier), self.count_syn_cookies.eq(sent)]
        return m
