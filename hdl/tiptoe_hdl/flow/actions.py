"""What a pass over a TCB sets off: segment, verdict, response, notice (architecture idea 5)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import (
    ACK,
    RST,
    SYN,
    URG,
    Counter,
    FlowResponse,
    rx_verdict,
    tx_segment,
)
from ..wire.queue import HalfQueue
from ..wire.sequence import distance
from ..wire.valid_only import valid_only
from .result import arrival, pass_result
from .tcb import TimerRecord, timer_write

TX_DEPTH = 16
VERDICT_DEPTH = 16

COUNTED = {
    Counter.TX_RETRANSMITS: "retransmitted",
    Counter.RTO_EXPIRED: "timeout_then",
    Counter.FAST_RETRANSMITS: "fast_retransmit",
    Counter.RX_DUPLICATE_ACK: "is_duplicate",
    Counter.RX_OUT_OF_WINDOW: "outside",
    Counter.OLD_TIMESTAMPS: "old_stamp",
    Counter.CHALLENGE_ACKS: "challenged",
    Counter.CHALLENGE_SUPPRESSED: "suppressed",
    Counter.RX_OUT_OF_ORDER: "got_out_of_order",
    Counter.RX_OOO_DISCARDED: "discarded",
    Counter.BAD_DOORBELL: "bell_bad",
}


class Actions(wiring.Component):
    """Turns pass results into messages. Queues hold them; ``Issue``'s credits guard their room: nothing is refused here.

    Ports
    -----
    i : In(valid-only pass_result)
    arrival : In(valid-only arrival)
        Four cycles before the pass result of the same event.
    segment : Out(stream tx_segment)
        Two cycles after the pass result.
    verdict : Out(stream rx_verdict)
    response : Out(stream FlowResponse), two of them
        For the command processor (0) and the listen unit (1).
    notify : Out(valid-only id)
        The host should hear of this connection (not for segments: their notice travels with the verdict).
    push : Out(valid-only id)
        The connection wants another turn to send.
    timer : Out(valid-only {id, record})
        The connection's deadlines.
    tx_returned, verdict_returned : Out(2), Out(1)
        Credits given back in this cycle.
    segments_issued : Out(8)
        Count, wrapping.
    count_* : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(valid_only(pass_result(cfg))),
                "arrival": In(valid_only(arrival(cfg))),
                "segment": Out(stream.Signature(tx_segment(cfg))),
                "verdict": Out(stream.Signature(rx_verdict(cfg))),
                "response": Out(stream.Signature(FlowResponse)).array(2),
                "notify": Out(valid_only(cfg.id_bits)),
                "push": Out(valid_only(cfg.id_bits)),
                "timer": Out(valid_only(timer_write(cfg))),
                "tx_returned": Out(2),
                "verdict_returned": Out(1),
                "segments_issued": Out(8),
                **{f"count_{counter.name.lower()}": Out(1) for counter in COUNTED},
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        r = self.i.payload

        m.submodules.segments = segments = HalfQueue(tx_segment(cfg), TX_DEPTH)
        m.submodules.verdicts = verdicts = HalfQueue(rx_verdict(cfg), VERDICT_DEPTH)
        wiring.connect(m, segments.o, wiring.flipped(self.segment))
        wiring.connect(m, verdicts.o, wiring.flipped(self.verdict))

        # What has come twice waits for the segment that tells it: at most those between both stages.
        m.submodules.told_twice = told_twice = Memory(
            shape=data.StructLayout({"start": 32, "length": cfg.length_bits}),
            depth=4,
            init=[],
            attrs={"ram_style": "distributed"},
        )
        keep, told = told_twice.write_port(), told_twice.read_port(domain="comb")
        m.d.comb += [
            keep.en.eq(self.arrival.valid & self.arrival.payload.twice),
            keep.data.start.eq(self.arrival.payload.e_seq),
            keep.data.length.eq(self.arrival.payload.twice_length),
        ]
        m.d.sync += [keep.addr.eq(keep.addr + keep.en), told.addr.eq(told.addr + (self.i.valid & r.twice))]

        # One register stage for the sums that turn sequence numbers into positions (seq - (isn + 1) = seq + ~isn).
        out = segments.i.payload
        emits = self.i.valid & (r.emit | r.reset)
        # SND.UP lies no further ahead than the largest send ring (a keepalive one byte more).
        up = distance(r.snd_up, r.tx_seq)
        far = up[16:25].any()
        urgent = r.snd_urgent & ~r.reset & ~up[31] & Mux(far, r.tx_up_cut, up[:16].any())
        m.d.sync += [
            segments.i.valid.eq(emits),
            out.id.eq(r.id),
            out.seq.eq(r.tx_seq),
            out.flags.eq(r.tx_flags | urgent << URG),
            out.urgent.eq((up[:16] | far.replicate(16)) & urgent.replicate(16)),
            out.length.eq(r.tx_length),
            out.ack.eq(Mux(r.tx_flags[ACK], r.rcv_nxt, 0)),
            out.position.eq(r.tx_seq + ~r.iss),
            out.wnd.eq(r.tx_wnd),
            out.mss.eq(Mux(r.tx_twice, told.data.length, r.maxseg)),
            out.twice.eq(r.tx_twice),
            out.twice_start.eq(told.data.start),
            out.ws_present.eq(r.ws_ok & r.tx_flags[SYN]),
            out.sack_ok.eq(r.sack_ok & r.tx_flags[SYN]),
            out.sacks.eq(r.tx_sacks),
            out.ws.eq(r.rcv_scale),
            out.ect.eq(r.ect),
            # A reset that answers something (without ACK) belongs to no connection that has negotiated anything.
            out.ts_ok.eq(r.ts_ok & (~r.tx_flags[RST] | r.tx_flags[ACK])),
        ]
        verdict, arrival = verdicts.i.payload, self.arrival.payload
        m.d.sync += [
            verdicts.i.valid.eq(self.arrival.valid),
            verdict.id.eq(arrival.id),
            verdict.position.eq(arrival.place_seq + ~arrival.irs),
            verdict.skip.eq(arrival.front),
            verdict.length.eq(arrival.place_length),
            verdict.notify.eq(arrival.changed),
            verdict.upto.eq(arrival.rcv_nxt + ~arrival.irs),
        ]

        for port, response in enumerate(self.response):
            with m.If(self.i.valid & r.is_request & (r.e_port == port)):
                m.d.sync += [response.valid.eq(1), response.payload.status.eq(r.status)]
            with m.Elif(response.ready):
                m.d.sync += response.valid.eq(0)

        m.d.sync += [
            self.notify.valid.eq(self.i.valid & r.changed & ~r.is_segment & ~r.is_report),
            self.notify.payload.eq(r.id),
            self.push.valid.eq(self.i.valid & r.push & ~r.is_report),
            self.push.payload.eq(r.id),
            self.timer.valid.eq(self.i.valid & ~r.is_report),
            self.timer.payload.id.eq(r.id),
        ]
        record = self.timer.payload.record
        m.d.sync += [record[name].eq(r["delack" if name == "delack_on" else name]) for name in TimerRecord.members]

        spared = Signal()
        m.d.sync += spared.eq(self.i.valid & r.may_output & ~r.emit & ~r.reset)
        taken = Signal()
        m.d.sync += taken.eq(segments.o.valid & segments.o.ready)
        m.d.sync += [
            self.tx_returned.eq(spared + taken),
            self.verdict_returned.eq(verdicts.o.valid & verdicts.o.ready),
        ]
        with m.If(segments.i.valid):
            m.d.sync += self.segments_issued.eq(self.segments_issued + 1)
        for counter, name in COUNTED.items():
            m.d.sync += getattr(self, f"count_{counter.name.lower()}").eq(self.i.valid & ~r.is_report & r[name])
        return m
