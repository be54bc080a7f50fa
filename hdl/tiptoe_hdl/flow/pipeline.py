"""One pass over a TCB for every event: RFC 9293 section 3.10 as a pipeline (architecture idea 5).

========  ====================================================================================================
stage     what happens in it
========  ====================================================================================================
0, 1, 2   sums of event fields only; the banks of step 1 are read
3 to 6    steps 1 to 4: the event changes the TCB (``rules``: measure, classify, decide, apply)
4         what a report or a READ tells is known
7 to 10   steps 5 to 8: what to send now (``rules.output``); after step 8 the sequence numbers are final
8         the banks that step 5 has finished are written; what becomes of the payload is known
11        step 9: the segment put together, the timers
12        the last bank is written; the actions leave
========  ====================================================================================================

The pipeline never waits. A field is in it only between the steps that its bank (``banks.py``) names. Two events of one id may
follow each other at a distance of exactly ``FORWARD`` stages (the later one then takes the earlier one's result of the
forwarded banks instead of the memory's word; the others are in the memory) or of more than ``RESULT`` (all is); ``Issue`` sees to
that. A report changes nothing: it waits for no other event and none for it.
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import TimeStamp, sack_list
from ..wire.valid_only import valid_only
from .ack_limit import said_now
from .banks import BANKS, INQUIRED, LATER, Again, BankMemory
from .congestion.news import Steering, congestion_news, told_layout
from .event import Kind, flow_event, known_of
from .result import Parameters, arrival, inquiry, inquiry_later, pass_result
from .rules import (
    congestion,
    duplicates,
    ecn,
    host,
    output,
    pacing,
    reassembly,
    rtt,
    scoreboard,
    segment,
    spurious,
    state,
    timers,
    timestamps,
    urgent,
)
from .tcb import TICK_BITS, WND_BITS, fields

OPERAND, RESULT = 3, 12
"""Stage of step 1; stage behind the last step."""
APPLIED = 4
"""The step behind which it is clear what is said about a segment that is not taken."""
ARRIVED = 5
"""The step behind which it is clear what becomes of a segment's payload."""
FORWARD = 8
"""Distance in cycles at which an event of the same id may follow, its operand forwarded."""
STEERED = 2
"""The step that first looks at what the congestion control unit says."""
TOLD = 5
"""The step in which that is told what the steps before have made of the event."""
WRITTEN_EARLY = OPERAND + ARRIVED
"""Stage in which the banks that a report reads are written."""

STEPS = (
    (
        segment.measure,
        timestamps.measure,
        reassembly.compare,
        duplicates.compare,
        scoreboard.measure,
        congestion.measure,
        host.measure,
        urgent.measure,
        ecn.measure,
    ),
    (
        segment.classify,
        timestamps.classify,
        reassembly.overlap,
        scoreboard.judge,
        spurious.measure,
        congestion.count,
        rtt.measure,
        host.compare,
        timers.measure,
        pacing.measure,
        urgent.compare,
        ecn.judge,
        state.measure,
    ),
    (
        segment.decide,
        timestamps.judge,
        reassembly.merge,
        duplicates.judge,
        scoreboard.find,
        spurious.judge,
        congestion.candidates,
        rtt.double,
        host.judge,
        timers.expire,
        urgent.judge,
        ecn.decide,
    ),
    (
        reassembly.apply,
        duplicates.apply,
        scoreboard.apply,
        spurious.apply,
        congestion.apply,
        output.prepare,
        rtt.sample,
        host.apply,
        urgent.apply,
        ecn.apply,
        timestamps.apply,
        pacing.apply,
        state.apply,
    ),
    (state.take_fin, reassembly.insert, scoreboard.reckon, host.note, output.measure, rtt.error, timers.prolong),
    (state.wait, reassembly.forget, scoreboard.allow, pacing.allow, output.limit, rtt.smooth, ecn.prepare),
    (output.decide, rtt.apply, timers.guess),
    (output.advance, duplicates.place, spurious.count, rtt.total, timers.plan, ecn.mark, pacing.charge),
    (output.send, rtt.renew, timers.set_retransmission, pacing.space),
)
"""The rules of each step, from 1 on."""


def _name_all(m: Module, shapes: dict, prefix: str, values: dict, registered: bool) -> dict:
    """Signals for a stage's values: registers, or plain names that later expressions of the same stage share."""
    out = {}
    for name, value in values.items():
        if name == "ooo":
            shape = shapes["ooo"]
        elif name in shapes:
            shape = Shape.cast(shapes[name]).width
        else:
            shape = len(Value.cast(value))
        signal = Signal(shape, name=f"{prefix}_{name}", reset_less=True)
        domain = m.d.sync if registered else m.d.comb
        domain += Value.cast(signal).eq(Value.cast(value))
        out[name] = signal
    return out


def _equal(layout: data.StructLayout, word, values: dict) -> list:
    """Assignments of the values to the fields of a word that have their names."""
    return [Value.cast(word[name]).eq(Value.cast(values[name])) for name in layout.members]


class Pipeline(wiring.Component):
    """The TCB's banks and the steps.

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
    inquiry : Out(valid-only inquiry)
        The TCB as the event in stage 4 finds it, for reports and READ.
    inquiry_* : Out(valid-only inquiry_later)
        Fields that come in a later step, named by it, for READ.
    arrival : Out(valid-only arrival)
        What becomes of the payload of the segment in stage 8.
    result : Out(valid-only pass_result)
        What else the pass in stage 12 found. ``Actions`` acts on all three.
    sack_id : In, sack : Out(sack_list)
        What the connection has received out of order: two cycles after its id, from a flip-flop.
    stamp_id : In, stamp : Out(TimeStamp)
        The peer's timestamp that the connection echoes: two cycles after its id, from flip-flops behind a multiplexer.
    ts_now : In(32)
        The clock of timestamps.
    steering_id : Out(id_bits), steering : In(Steering)
        How the connection's window moves: two cycles after its id, from a flip-flop.
    news : Out(valid-only congestion_news)
        What congestion control is to hear of.
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
                "inquiry": Out(valid_only(inquiry(cfg))),
                **{f"inquiry_{step}": Out(valid_only(inquiry_later(cfg, step))) for step in LATER},
                "arrival": Out(valid_only(arrival(cfg))),
                "result": Out(valid_only(pass_result(cfg))),
                "sack_id": In(cfg.id_bits),
                "sack": Out(sack_list(cfg)),
                "stamp_id": In(cfg.id_bits),
                "stamp": Out(TimeStamp),
                "ts_now": In(32),
                "steering_id": Out(cfg.id_bits),
                "steering": In(Steering),
                "news": Out(valid_only(congestion_news(cfg))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        valid = self._delayed(m, "valid", self.i.valid, RESULT)
        ids = self._delayed(m, "id", self.id, RESULT)
        forward = self._delayed(m, "forward", self.forward, OPERAND)
        changes = self._delayed(m, "changes", self.i.valid & (self.i.payload.kind != Kind.REPORT), RESULT)
        kind = self.i.payload.kind
        on_board = self._delayed(m, "on_board", (kind == Kind.SACK) | (kind == Kind.OUTPUT), RESULT)
        m.d.comb += [self.busy.eq(Cat(changes[1:RESULT]))]
        # The hazard rule has ids of its own: those above stand at the memories, which lie far apart. (With a reset, so that the
        # tools don't find that they are the same.)
        for k in range(1, RESULT):
            compared = Signal(cfg.id_bits, name=f"compared_id_{k}")
            m.d.sync += compared.eq(self.ids[k - 2] if k > 1 else self.id)
            m.d.comb += self.ids[k - 1].eq(compared)

        shapes = fields(cfg)
        memories, results = {}, {}
        banks = {name: bank for name, bank in BANKS.items() if cfg.timestamps or not bank.stamped}
        missing = {name for bank in BANKS.values() if bank.stamped for name in bank.fields} | {"ts_ok", "asks_echo"}
        unbuilt = {} if cfg.timestamps else {name: Const(0, shapes[name]) for name in sorted(missing)}
        if not cfg.pacing:
            unbuilt |= {name: Const(0, 1) for name in ("has_rate", "spacing", "is_due")}
        for name, bank in banks.items():
            memories[name] = BankMemory(m, cfg, name, bank)
            # The word comes two cycles later: as the operand of the first step, or a cycle before it to be chosen from.
            stage = bank.first - bank.forwarded
            m.d.comb += memories[name].id.eq(Cat(ids[stage], on_board[stage]) if bank.rows > 1 else ids[stage])
            if bank.forwarded:
                results[name] = Signal(bank.layout(cfg), name=f"result_{name}")  # after its last step
                assert OPERAND + bank.last - FORWARD == bank.first + 2, f"{name}: no result for the next event"
            else:
                assert OPERAND + bank.last - FORWARD < bank.first, f"{name}: written too late for the next event"

        event_1 = Signal(flow_event(cfg), reset_less=True)
        event_2 = Signal(flow_event(cfg), reset_less=True)
        m.d.sync += [event_1.eq(self.i.payload), event_2.eq(event_1)]
        ts_now = Signal(32, reset_less=True)
        m.d.sync += ts_now.eq(self.ts_now)
        known = known_of(m, event_1, event_2, ts_now) | {"e_said": self.said, "now": self.now}
        s = _name_all(m, shapes, f"s{OPERAND}", known, True)
        parameters = {name: self.parameters[name] for name in Parameters.members}
        parameters |= {"spent": self.spent, "ts_now": ts_now}
        scrub, scrubbing = Signal(cfg.id_bits + 2), Signal(init=1)  # all rows
        m.d.comb += self.ready.eq(~scrubbing)
        with m.If(scrubbing):
            m.d.sync += [scrub.eq(scrub + 1), scrubbing.eq(~scrub[-1])]
        for number, rules in enumerate(STEPS, start=1):
            stage = OPERAND + number - 1
            for name, bank in banks.items():
                if bank.first != number:
                    continue
                word = {field: memories[name].word[field] for field in bank.fields} | {
                    field: value for field, value in unbuilt.items() if field in bank.fields
                }
                if bank.forwarded:
                    word = {
                        field: Mux(forward[stage - 1], Value.cast(results[name][field]), Value.cast(value))
                        for field, value in word.items()
                    }
                s |= _name_all(m, shapes, f"s{stage}", word, bank.forwarded)
            if number == BANKS["stamps"].first and not cfg.timestamps:
                s |= {name: unbuilt[name] for name in BANKS["stamps"].fields}
            if number == STEERED:
                m.d.comb += self.steering_id.eq(self.ids[stage - 3])
                s |= {name: self.steering[name] for name in Steering.members}
            if number == TOLD:
                self._tell_news(m, changes[stage], ids[stage], s)
            if number == INQUIRED:
                m.d.comb += [
                    self.inquiry.valid.eq(valid[stage]),
                    *_equal(inquiry(cfg), self.inquiry.payload, s | {"id": ids[stage]}),
                ]
            if number in LATER:
                later = getattr(self, f"inquiry_{number}")
                m.d.comb += [later.valid.eq(valid[stage]), *_equal(inquiry_later(cfg, number), later.payload, s)]
            found = self._found(number, rules, s | parameters)
            reached = s | found | unbuilt
            for name, bank in banks.items():
                if name in results and bank.last == number:
                    m.d.comb += _equal(bank.layout(cfg), results[name], reached)
            s = _name_all(m, shapes, f"s{stage + 1}", reached, True) | unbuilt
            self._write(
                m, number, changes[stage], Cat(ids[stage], on_board[stage]), memories, reached, s, scrub, scrubbing
            )
            if number == APPLIED:
                # Written at once: the next event of this id, FORWARD stages behind, reads it.
                m.d.comb += [
                    self.challenged.eq(valid[stage + 1] & s["says"]),
                    self.says.valid.eq(valid[stage + 1] & (s["says"] | s["begins"])),
                    self.says.payload.id.eq(ids[stage + 1]),
                    self.says.payload.said.eq(~s["begins"]),
                ]
            if number == ARRIVED:
                m.d.comb += [
                    self.arrival.valid.eq(valid[stage + 1] & s["is_segment"]),
                    *_equal(arrival(cfg), self.arrival.payload, s | {"id": ids[stage + 1]}),
                ]
        known = s | {"id": ids[RESULT]}
        for name, bank in banks.items():
            if bank.again is Again.SEGMENT:
                m.d.comb += memories[name].id_again.eq(ids[RESULT - 2])
                known |= {field: memories[name].again[field] for field in bank.fields}
        known |= unbuilt
        self._tell_ahead(m, memories["ahead"])
        if cfg.timestamps:
            self._tell_stamp(m, memories["stamps"])
        m.d.comb += [self.result.valid.eq(valid[RESULT]), *_equal(pass_result(cfg), self.result.payload, known)]
        return m

    def _found(self, number, rules, known):
        """What the rules of a step say."""
        found = {}
        if number == 1:
            found["wnd_scaled"] = (known["e_wnd"] << known["snd_scale"])[:WND_BITS]
            # An ACCEPT's time is that of its SYN,ACK, for the round trip; it sets no timer.
            found["now"] = (known["now"] - known["e_elapsed"])[:TICK_BITS]
        for rule in rules:
            # Rules of one step don't see each other's findings, but for this one, which draws the conclusions.
            neighbours = {}
            if rule is state.apply:
                neighbours = {name: value for name, value in found.items() if name not in fields(self._cfg)}
            found |= rule(SimpleNamespace(**known | neighbours))
        for name, bank in BANKS.items():
            late = set(found) & set(bank.fields) if number > bank.last else ()
            assert not late, f"{late} of {name} changed behind step {bank.last}"
        return found

    def _write(self, m, number, changes, ident, memories, reached, s, scrub, scrubbing):
        """Write the banks that the step has finished, in the cycle behind it; after reset zeros to every address. All of a write
        port comes from flip-flops. ``reached``: values in the step; ``s``: the same in the registers behind it.
        """
        banks = {name: bank for name, bank in BANKS.items() if bank.last == number and name in memories}
        write_id = Signal.like(ident, name=f"write_id_{number}", reset_less=True)
        if banks:
            m.d.sync += write_id.eq(Mux(scrubbing, scrub[:-1], ident))
        for name, bank in banks.items():
            write_en = Signal(name=f"write_en_{name}")
            m.d.sync += write_en.eq(Mux(scrubbing, ~scrub[-1], changes & (reached[bank.when] if bank.when else 1)))
            m.d.comb += [
                memories[name].write_en.eq(write_en),
                memories[name].write_id.eq(write_id),
                *_equal(bank.layout(self._cfg), memories[name].write, s),
            ]
            with m.If(scrubbing):
                m.d.sync += [Value.cast(s[field]).eq(0) for field in bank.fields if isinstance(s[field], Signal)]
            if bank.when:
                for field in bank.fields:
                    del s[field]

    def _tell_ahead(self, m, memory):
        """What has come out of order, to who asks."""
        written = Signal()
        m.d.sync += [written.eq(memory.write_en & (memory.write_id == self.sack_id)), self.sack.known.eq(~written)]
        m.d.comb += [
            memory.id_again.eq(self.sack_id),
            self.sack.valid.eq(memory.again.ooo_valid),
            self.sack.newest.eq(memory.again.ooo_newest),
            self.sack.intervals.eq(memory.again.ooo),
        ]

    def _tell_stamp(self, m, memory):
        """The peer's timestamp, to who asks; where it is just being written, what is written."""
        written, late = Signal(), Signal()
        now, then = Signal(TimeStamp, reset_less=True), Signal(TimeStamp, reset_less=True)
        m.d.sync += [
            written.eq(memory.write_en & (memory.write_id == self.stamp_id)), late.eq(written),
            now.known.eq(memory.write.ts_known), now.tsval.eq(memory.write.ts_recent), then.eq(now),
        ]  # fmt: skip
        m.d.comb += [
            memory.id_again.eq(self.stamp_id),
            self.stamp.known.eq(Mux(late, then.known, memory.again.ts_known)),
            self.stamp.tsval.eq(Mux(late, then.tsval, memory.again.ts_recent)),
        ]

    def _tell_news(self, m, changes, ident, s):
        """To the congestion control unit: all from flip-flops, but whether there is any."""
        events, told, before = congestion.tell(SimpleNamespace(**s))
        news = self.news.payload
        m.d.comb += [
            self.news.valid.eq(changes & Cat(*events.values()).any()),
            news.id.eq(ident),
            news.before.eq(before),
            *_equal(told_layout(self._cfg), news.told, told),
            *(news[name].eq(happened) for name, happened in events.items()),
        ]

    @staticmethod
    def _delayed(m, name, value, stages):
        """``value`` and, behind it, what it was one to ``stages`` cycles ago."""
        line = [value]
        for k in range(1, stages + 1):
            line.append(Signal(len(Value.cast(value)), name=f"{name}_{k}", reset_less=name == "id"))
            m.d.sync += line[k].eq(line[k - 1])
        return line
