"""One pass over a TCB for every event: RFC 9293 section 3.10 as a pipeline (architecture idea 5).

========  ====================================================================================================
stage     what happens in it
========  ====================================================================================================
0, 1, 2   the TCB is read (memory address, memory output, output register); sums of event fields only
3         the TCB as operand: from memory, or the one just computed for the same id
3 to 6    steps 1 to 4: the event changes the TCB (``rules``: measure, classify, decide, apply)
7 to 10   steps 5 to 8: what to send now (``rules.output``); after step 8 the sequence numbers are final
11        step 9: the segment put together, the timers
12        the new TCB is written; the actions leave
========  ====================================================================================================

The pipeline never waits. Two events of one id may follow each other at a distance of exactly ``FORWARD`` stages (the
later one then takes the earlier one's result instead of the memory's word) or of more than ``RESULT`` (the memory has
it); ``Issue`` sees to that. A report changes nothing: it waits for no other event and none for it.

The loop from a TCB to the next event's TCB has eight steps although a pass has nine: the fields in ``LATE`` are looked
at from step 2 on only, so that step 9 may still change them; they are forwarded one stage behind the others.
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FIN, SYN
from ..wire.valid_only import valid_only
from .ack_limit import said_now
from .event import Kind, flow_event
from .result import Parameters, pass_result
from .rules import congestion, host, output, reassembly, rtt, segment, state, timers
from .tcb import FIELDS, TICK_BITS, WND_BITS, tcb

OPERAND, RESULT = 3, 12
APPLIED = 4
"""The step behind which it is clear what is said about a segment that is not taken."""
FORWARD = 8
"""Distance in cycles at which an event of the same id may follow, its operand forwarded."""

LATE = (
    "fin_sent",
    "fin_seen",
    "fin_seq",
    "rexmt_one",
    "force",
    "ack_now",
    "delack",
    "delack_deadline",
    "rtt_active",
    "rtt_valid",
    "rtt_seq",
    "rtt_start",
    "srtt",
    "rttvar",
    "rto",
    "rexmt_on",
    "rexmt_shift",
    "unanswered",
    "rexmits",
    "rexmt_deadline",
    "persist",
    "msl_on",
    "msl_deadline",
    "tx_queued",
)
"""Fields that step 1 does not look at."""

DEFAULT_MSS = 536
"""MUST-15: send MSS when the peer sent no option (IPv4)."""
SMALLEST_MSS = 48
"""A smaller MSS option is raised to this: no peer can make every byte cost a segment."""


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
        The event in stage 0.
    id : In
        Its id, also while ``i`` is not valid.
    forward : In(1)
        Belongs to ``i``: the operand is the result of the event of the same id FORWARD cycles before.
    ids, busy : Out
        Connection id, and whether an event that may change the TCB stands there, of stages 1 to 11.
    result : Out(valid-only pass_result)
        What the pass in stage 12 found; ``Actions`` acts on it.
    now : In(TICK_BITS)
        Tick clock.
    parameters : In(Parameters)
        Timer settings.
    said : In(1), says : Out(valid-only {id, said})
        Of the connection whose ``id`` stood there two cycles ago: it has lately answered a segment that it did not take; it does
        so now, or (0) begins anew. For AckLimit.
    spent : In(1), challenged : Out(1)
        No token is left for an ACK of a segment that is not taken; pulse: one goes. Segments are at least six cycles apart,
        and a pulse is seen by the next one.
    ready : Out(1)
        All TCBs have been cleared after reset; no event before that.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(valid_only(flow_event(cfg))),
                "id": In(cfg.id_bits),
                "forward": In(1),
                "now": In(TICK_BITS),
                "parameters": In(Parameters),
                "said": In(1),
                "says": Out(valid_only(said_now(cfg))),
                "spent": In(1),
                "challenged": Out(1),
                "ready": Out(1),
                "ids": Out(data.ArrayLayout(cfg.id_bits, RESULT - 1)),
                "busy": Out(RESULT - 1),
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
        event_0 = self.i.payload
        event_1 = Signal(flow_event(cfg), reset_less=True)
        event_2 = Signal(flow_event(cfg), reset_less=True)
        m.d.sync += [event_1.eq(event_0), event_2.eq(event_1)]
        valid = self._delayed(m, "valid", self.i.valid, RESULT)
        ids = self._delayed(m, "id", self.id, RESULT)
        forward = self._delayed(m, "forward", self.forward, OPERAND)
        changes = self._delayed(m, "changes", self.i.valid & (event_0.kind != Kind.REPORT), RESULT)
        m.d.comb += [read.addr.eq(self.id), self.busy.eq(Cat(changes[1:RESULT]))]
        m.d.comb += [self.ids[k - 1].eq(ids[k]) for k in range(1, RESULT)]
        word_2 = Signal(tcb(cfg), reset_less=True)
        m.d.sync += word_2.eq(read.data)

        # Stage 3: operands
        fields = {f"e_{name}": Value.cast(event_2[name]) for name in flow_event(cfg).members if name != "id"}
        fields |= self._event_sums(m, event_1, event_2)
        fields["e_said"] = self.said
        result_word = Signal(tcb(cfg))
        result_late = Signal(tcb(cfg))

        def operand(name, word, result, forwarded):
            return Value.cast(Mux(forwarded, Value.cast(result[name]), Value.cast(word[name])))

        first = {name: operand(name, word_2, result_word, forward[2]) for name in FIELDS if name not in LATE}
        first["now"] = self.now
        late_word = _name_all(m, "s3_word", {name: word_2[name] for name in LATE}, True)
        late = {name: operand(name, vars(late_word), result_late, forward[3]) for name in LATE}
        parameters = {name: self.parameters[name] for name in Parameters.members}
        parameters["spent"] = self.spent

        s = _name_all(m, "s3", first | fields, True)
        steps = (
            (segment.measure, reassembly.compare, congestion.measure, host.measure),
            (
                segment.classify,
                reassembly.overlap,
                congestion.count,
                rtt.measure,
                host.compare,
                timers.measure,
                state.measure,
            ),
            (segment.decide, reassembly.merge, congestion.candidates, rtt.error, host.judge, timers.expire),
            (reassembly.apply, congestion.apply, rtt.smooth, host.apply, state.apply),
            (state.take_fin, host.note, output.measure, rtt.apply),
            (state.wait, reassembly.forget, output.limit, rtt.total),
            (output.decide, rtt.clamp),
            (output.advance, timers.plan),
            (output.send, rtt.renew, timers.set_retransmission),
        )
        for number, rules in enumerate(steps, start=1):
            known = dict(vars(s)) | parameters
            found = {}
            if number == 1:
                found["wnd_scaled"] = (s.e_wnd << s.snd_scale)[:WND_BITS]
                # An ACCEPT's time is that of its SYN,ACK, for the round trip; it sets no timer.
                found["now"] = (s.now - s.e_elapsed)[:TICK_BITS]
            for rule in rules:
                # Rules of one step don't see each other's findings, but for this one, which draws the conclusions.
                neighbours = {}
                if rule is state.apply:
                    neighbours = {name: value for name, value in found.items() if name not in FIELDS}
                found |= rule(SimpleNamespace(**known | neighbours))
            if number == FORWARD:
                final = _name_all(m, "final", dict(vars(s)) | found, False)
                m.d.comb += [
                    Value.cast(result_word[name]).eq(Value.cast(getattr(final, name)))
                    for name in FIELDS
                    if name not in LATE
                ]
            elif number > FORWARD:
                assert not set(found) & set(FIELDS) - set(LATE), "changed too late to be forwarded"
                final = _name_all(m, "final_late", dict(vars(s)) | found, False)
                m.d.comb += [Value.cast(result_late[name]).eq(Value.cast(getattr(final, name))) for name in LATE]
            s = _name_all(m, f"s{OPERAND + number}", dict(vars(s)) | (late if number == 1 else {}) | found, True)
            if number == APPLIED:
                # Written at once: the next event of this id, FORWARD stages behind, reads it.
                m.d.comb += [
                    self.challenged.eq(valid[OPERAND + number] & s.says),
                    self.says.valid.eq(valid[OPERAND + number] & (s.says | s.begins)),
                    self.says.payload.id.eq(ids[OPERAND + number]),
                    self.says.payload.said.eq(~s.begins),
                ]
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

        # The write of stage 12; after reset zeros to every address instead. All of the port comes from flip-flops.
        scrub = Signal(cfg.id_bits + 1)
        scrubbing = Signal(init=1)
        m.d.comb += [self.ready.eq(~scrubbing), write.data.eq(self.result.payload.tcb)]
        with m.If(scrubbing):
            m.d.sync += [
                scrub.eq(scrub + 1),
                scrubbing.eq(~scrub[-1]),
                write.addr.eq(scrub[:-1]),
                write.en.eq(~scrub[-1]),
                *(getattr(s, name).eq(0) for name in FIELDS),
            ]
        with m.Else():
            m.d.sync += [
                write.addr.eq(ids[RESULT - 1]),
                write.en.eq(valid[RESULT - 1] & changes[RESULT - 1]),
            ]
        return m

    @staticmethod
    def _delayed(m, name, value, stages):
        """``value`` and, behind it, what it was one to ``stages`` cycles ago."""
        line = [value]
        for k in range(1, stages + 1):
            line.append(Signal(len(Value.cast(value)), name=f"{name}_{k}", reset_less=name == "id"))
            m.d.sync += line[k].eq(line[k - 1])
        return line

    @staticmethod
    def _event_sums(m, event_1, event_2):
        """What needs no TCB: sums for stages 2 and 3, decoded kind and request."""
        flags = event_1.flags
        segment_length = Signal(13, reset_less=True)
        text_length = Signal(13, reset_less=True)  # with the SYN, behind which text stands
        mss = Signal(16, reset_less=True)
        m.d.sync += [
            segment_length.eq(event_1.length + (flags[SYN] + flags[FIN])),
            text_length.eq(event_1.length + flags[SYN]),
            mss.eq(Mux((event_1.kind == Kind.SEGMENT) & (event_1.mss == 0), DEFAULT_MSS, event_1.mss)),
        ]
        kind = event_2.kind
        mss_limited = Mux(mss < SMALLEST_MSS, SMALLEST_MSS, Mux(mss[12:].any(), 0xFFF, mss[:12]))
        return dict(
            e_payload_end=(event_2.seq + text_length)[:32],
            e_end=(event_2.seq + segment_length)[:32],
            e_zero_length=segment_length == 0,
            e_any_payload=event_2.length != 0,
            e_seq_plus_1=(event_2.seq + 1)[:32],
            e_seq_minus_1=(event_2.seq - 1)[:32],
            e_ack_plus_1=(event_2.ack + 1)[:32],
            e_mss=mss_limited[:12],
            e_page=event_2.seq[:3],
            e_untimed=event_2.length.all(),
            e_elapsed=Mux(kind == Kind.REQUEST, event_2.length, 0),
            may_output=event_2.may_output,
            is_segment=kind == Kind.SEGMENT,
            is_doorbell=kind == Kind.DOORBELL,
            is_request=kind == Kind.REQUEST,
            is_timer=kind == Kind.TIMER,
            is_output=kind == Kind.OUTPUT,
            is_report=kind == Kind.REPORT,
            **host.decode(Value.cast(event_2.op)),
        )
