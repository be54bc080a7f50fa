"""One pass over a TCB for every event: RFC 9293 section 3.10 as a pipeline (architecture idea 5).

========  ====================================================================================================
stage     what happens in it
========  ====================================================================================================
0, 1, 2   the TCB is read (memory address, memory output, output register); sums of event fields only
3         the TCB as operand: from memory, or the one just computed for the same id
3 to 6    steps 1 to 4: the event changes the TCB (``rules``: measure, classify, decide, apply)
7 to 10   steps 5 to 8: what to send now (``rules.output``), the timers
11        the new TCB is written; the actions leave
========  ====================================================================================================

The pipeline never waits. Two events of one id may follow each other at a distance of exactly ``FORWARD`` stages (the
later one then takes the result of step 8 instead of the memory's word) or of at least ``SAFE`` (the memory has it);
``Issue`` sees to that. A report changes nothing: it waits for no other event and none for it.
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FIN, SYN, Status
from ..wire.valid_only import valid_only
from .event import Kind, flow_event
from .rules import congestion, host, output, reassembly, rtt, segment, state, timers
from .tcb import FIELDS, MAXSEG_BITS, TICK_BITS, WND_BITS, tcb

OPERAND, RESULT = 3, 11
FORWARD = RESULT - OPERAND
"""Distance in cycles at which an event of the same id may follow, its operand forwarded."""
SAFE = RESULT + 1
"""Distance in cycles from which on the memory holds the earlier event's result."""

DEFAULT_MSS = 536
"""MUST-15: send MSS when the peer sent no option (IPv4)."""
SMALLEST_MSS = 48
"""A smaller MSS option is raised to this: no peer can make every byte cost a segment."""

Parameters = data.StructLayout(
    {
        "rto_min": TICK_BITS,
        "rto_max": TICK_BITS,
        "rto_initial": TICK_BITS,
        "delack_ticks": TICK_BITS,
        "msl_ticks": TICK_BITS,
        "rexmt_max": 4,
    }
)
"""Timer settings from the registers, in ticks: smallest, largest, first retransmission time-out; delayed ACK; 2MSL;
and the number of retransmissions after which a connection is given up (R2)."""


def pass_result(cfg: EngineConfig) -> data.StructLayout:
    """What one pass found, besides the new TCB; names as in ``rules``."""
    return data.StructLayout(
        {
            "id": cfg.id_bits,
            "tcb": tcb(cfg),
            "is_segment": 1,
            "is_request": 1,
            "is_report": 1,
            "may_output": 1,
            "e_port": 1,
            "status": Status,
            "changed": 1,
            "push": 1,
            # the segment to send
            "emit": 1,
            "reset": 1,
            "tx_syn": 1,
            "tx_seq": 32,
            "tx_flags": 8,
            "tx_length": MAXSEG_BITS,
            "window": 31,
            # the received payload
            "place_seq": 32,
            "front": 12,
            "place_length": 12,
            # for the counters
            "retransmitted": 1,
            "timeout_then": 1,
            "fast_retransmit": 1,
            "is_duplicate": 1,
            "outside": 1,
            "challenge": 1,
            "got_out_of_order": 1,
            "discarded": 1,
            "bell_bad": 1,
        }
    )


def _name_all(m: Module, prefix: str, values: dict, registered: bool) -> SimpleNamespace:
    """Signals for a stage's values: registers, or plain names that later expressions of the same stage share."""
    out = {}
    for name, value in values.items():
        if name == "ooo":
            shape = FIELDS["ooo"]
        elif name in FIELDS:
            shape = Shape.cast(FIELDS[name]).width
        else:
            shape = len(Value.cast(value))
        signal = Signal(shape, name=f"{prefix}_{name}", reset_less=True)
        domain = m.d.sync if registered else m.d.comb
        domain += Value.cast(signal).eq(Value.cast(value))
        out[name] = signal
    return SimpleNamespace(**out)


class Pipeline(wiring.Component):
    """The TCB memory and the steps.

    Ports
    -----
    i : In(valid-only flow_event)
        An event; it stands in stage 0 in the next cycle.
    forward : In(1)
        Belongs to ``i``: the operand is the result of the event of the same id FORWARD cycles before.
    ids, busy : Out
        Connection id, and whether an event that may change the TCB stands there, of stages 0 to 10.
    result : Out(valid-only pass_result)
        What the pass in stage 11 found; ``Actions`` acts on it.
    now : In(TICK_BITS)
        Tick clock.
    parameters : In(Parameters)
        Timer settings.
    ready : Out(1)
        All TCBs have been cleared after reset; no event before that.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(valid_only(flow_event(cfg))),
                "forward": In(1),
                "now": In(TICK_BITS),
                "parameters": In(Parameters),
                "ready": Out(1),
                "ids": Out(data.ArrayLayout(cfg.id_bits, RESULT)),
                "busy": Out(RESULT),
                "result": Out(valid_only(pass_result(cfg))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        m.submodules.memory = memory = Memory(shape=tcb(cfg), depth=cfg.connections, init=[])
        read = memory.read_port()
        write = memory.write_port()

        # Stages 0 to 2: fetch
        valid = [Signal(name=f"valid_{k}") for k in range(RESULT + 1)]
        ids = [Signal(cfg.id_bits, name=f"id_{k}", reset_less=True) for k in range(RESULT + 1)]
        event_0 = Signal(flow_event(cfg), reset_less=True)
        event_1 = Signal(flow_event(cfg), reset_less=True)
        event_2 = Signal(flow_event(cfg), reset_less=True)
        forward = [Signal(name=f"forward_{k}") for k in range(3)]
        m.d.sync += [
            valid[0].eq(self.i.valid),
            event_0.eq(self.i.payload),
            ids[0].eq(self.i.payload.id),
            forward[0].eq(self.forward),
            event_1.eq(event_0),
            event_2.eq(event_1),
        ]
        m.d.sync += [b.eq(a) for a, b in zip(valid, valid[1:], strict=False)]
        m.d.sync += [b.eq(a) for a, b in zip(ids, ids[1:], strict=False)]
        m.d.sync += [b.eq(a) for a, b in zip(forward, forward[1:], strict=False)]
        changes = [Signal(name=f"changes_{k}") for k in range(RESULT)]
        m.d.sync += changes[0].eq(self.i.valid & (self.i.payload.kind != Kind.REPORT))
        m.d.sync += [b.eq(a) for a, b in zip(changes, changes[1:], strict=False)]
        m.d.comb += [read.addr.eq(ids[0]), self.busy.eq(Cat(changes))]
        m.d.comb += [self.ids[k].eq(ids[k]) for k in range(RESULT)]
        word_2 = Signal(tcb(cfg), reset_less=True)
        m.d.sync += word_2.eq(read.data)
        early = _name_all(m, "s2", self._event_sums(m, event_0, event_1), True)

        # Stage 3: operands
        fields = {f"e_{name}": Value.cast(event_2[name]) for name in flow_event(cfg).members if name != "id"}
        fields["e_mss"] = early.e_mss
        fields |= {name: value for name, value in vars(early).items() if name != "e_mss"}
        result_word = Signal(tcb(cfg))
        operand = {
            name: Value.cast(Mux(forward[2], Value.cast(result_word[name]), Value.cast(word_2[name])))
            for name in FIELDS
        }
        operand["now"] = self.now
        parameters = {name: self.parameters[name] for name in Parameters.members}

        s = _name_all(m, "s3", operand | fields, True)
        steps = (
            (
                segment.measure,
                reassembly.compare,
                congestion.measure,
                rtt.measure,
                host.measure,
                timers.measure,
            ),
            (
                segment.classify,
                reassembly.overlap,
                congestion.count,
                rtt.error,
                host.compare,
                timers.expire,
                state.measure,
            ),
            (segment.decide, reassembly.merge, congestion.candidates, rtt.smooth, host.judge),
            (reassembly.apply, congestion.apply, rtt.apply, state.apply),
            (state.take_fin, output.measure, rtt.total),
            (state.wait, output.limit, rtt.clamp),
            (output.size, self._new_rto),
            (output.send, timers.set_retransmission),
        )
        for number, rules in enumerate(steps, start=1):
            known = dict(vars(s)) | parameters
            found = {}
            if number == 1:
                found["wnd_scaled"] = (s.e_wnd << s.snd_scale)[:WND_BITS]
            for rule in rules:
                # Rules of one step don't see each other's findings, but for these two, which draw the conclusions.
                neighbours = {}
                if rule in (state.apply, timers.set_retransmission):
                    neighbours = {name: value for name, value in found.items() if name not in FIELDS}
                found |= rule(SimpleNamespace(**known | neighbours))
            if number == len(steps):
                final = _name_all(m, "final", dict(vars(s)) | found, False)
                m.d.comb += [
                    Value.cast(result_word[name]).eq(Value.cast(getattr(final, name))) for name in FIELDS
                ]
            s = _name_all(m, f"s{OPERAND + number}", dict(vars(s)) | found, True)
        m.d.comb += self.result.valid.eq(valid[RESULT])
        m.d.comb += [
            Value.cast(self.result.payload[name]).eq(Value.cast(getattr(s, name)))
            for name in pass_result(cfg).members
            if name not in ("id", "tcb")
        ]
        m.d.comb += [
            self.result.payload.id.eq(ids[RESULT]),
            Value.cast(self.result.payload.tcb).eq(Cat(Value.cast(getattr(s, name)) for name in FIELDS)),
        ]

        # Clearing after reset, then the write of stage 11
        scrub = Signal(range(cfg.connections + 1))
        m.d.comb += self.ready.eq(scrub[-1] if len(scrub) == cfg.id_bits + 1 else scrub == cfg.connections)
        with m.If(~self.ready):
            m.d.sync += scrub.eq(scrub + 1)
            m.d.comb += [write.en.eq(1), write.addr.eq(scrub[: cfg.id_bits])]
        with m.Else():
            m.d.comb += [
                write.en.eq(valid[RESULT] & ~s.is_report),
                write.addr.eq(ids[RESULT]),
                write.data.eq(self.result.payload.tcb),
            ]
        return m

    @staticmethod
    def _event_sums(m, event_0, event_1):
        """What needs no TCB: sums for stages 1 and 2, decoded kind and request."""
        flags = event_0.flags
        segment_length = Signal(13, reset_less=True)
        mss = Signal(16, reset_less=True)
        m.d.sync += [
            segment_length.eq(event_0.length + (flags[SYN] + flags[FIN])),
            mss.eq(Mux((event_0.kind == Kind.SEGMENT) & (event_0.mss == 0), DEFAULT_MSS, event_0.mss)),
        ]
        kind = event_1.kind
        mss_limited = Mux(mss < SMALLEST_MSS, SMALLEST_MSS, Mux(mss[12:].any(), 0xFFF, mss[:12]))
        return dict(
            e_payload_end=(event_1.seq + event_1.length)[:32],
            e_end=(event_1.seq + segment_length)[:32],
            e_zero_length=segment_length == 0,
            e_seq_plus_1=(event_1.seq + 1)[:32],
            e_ack_plus_1=(event_1.ack + 1)[:32],
            e_mss=mss_limited[:12],
            may_output=event_1.may_output,
            is_segment=kind == Kind.SEGMENT,
            is_doorbell=kind == Kind.DOORBELL,
            is_request=kind == Kind.REQUEST,
            is_timer=kind == Kind.TIMER,
            is_output=kind == Kind.OUTPUT,
            is_report=kind == Kind.REPORT,
            **host.decode(Value.cast(event_1.op)),
        )

    @staticmethod
    def _new_rto(s):
        """Step 7: a sample taken in step 4 has its new time-out here."""
        return dict(rto=Mux(s.rtt_taken, s.rto_next, s.rto))
