"""RFC 9293 section 3.10.7 on the flow: every situation x every combination of flags, as tests/states has them.

A test is a row, the situation with its flags; every cell of it that differs is told by name.
"""

from __future__ import annotations

import pytest

from tests.hdl.flow import bench as flow
from tests.hdl.flow.bench import FlowBench, FlowOp, Reason, State, Status
from tests.states.oracle import UP, Connection, Outcome, Segment, receive
from tests.states.situations import BASES, FLAGS, SITUATIONS, WINDOW, Situation, segments

LETTERS = {bit: letter for letter, bit in flow.FLAG.items()}
SETTLE = 60
"""Cycles until a pass and the turns to send behind it are over."""


@pytest.fixture(scope="module")
def b():
    bench = FlowBench()
    yield bench
    bench.sim.close()


class Row:
    """One connection of the bench at a time, and what the oracle knows of it."""

    def __init__(self, b: FlowBench, bases: tuple[int, int], where: str = "flow") -> None:
        self.b, self.where = b, where
        b.iss, b.irs = bases
        self.sent = 0

    def begin(self, situation: Situation) -> Connection:
        """The situation from nothing, each step as the oracle says."""
        b = self.b
        assert b.provision(rcv_log2=12) == Status.OK
        self.sent, c = 0, Connection("CLOSED")
        for step in situation.steps:
            b.seen.tx.clear()
            if isinstance(step, Segment):
                outcome, wrong = self.try_(c, step)
                assert not wrong, f"{situation.name}: {step}: {wrong}"
                c = outcome.connection
            else:
                c = self._user(c, step)
        assert c.state == situation.state
        return c

    def _user(self, c: Connection, step: str) -> Connection:
        b = self.b
        if step == "open":
            assert b.request(FlowOp.OPEN, a=b.iss, mss=1460) == Status.OK
            assert [s.flags for s in b.sent()] == ["S"]
            return Connection("SYN_SENT", snd_nxt=1, edge=WINDOW)
        if step == "send":
            self.sent += 1000
            assert [(s.seq, s.length) for s in b.bell(0, self.sent, settle=SETTLE)] == [(c.snd_nxt, 1000)]
            return Connection(**vars(c) | {"snd_nxt": c.snd_nxt + 1000, "delayed": False})
        assert [(s.flags, s.seq) for s in b.close(self.sent)] == [("AF", c.snd_nxt)]
        state = {"ESTABLISHED": "FIN_WAIT_1", "CLOSE_WAIT": "LAST_ACK"}[c.state]
        return Connection(**vars(c) | {"state": state, "snd_nxt": c.snd_nxt + 1, "fin_sent": True, "delayed": False})

    def try_(self, c: Connection, segment: Segment) -> tuple[Outcome, str]:
        """A segment arrives; what the oracle says, and what differs from it."""
        b, expected = self.b, receive(c, segment, self.where)
        flags = segment.flags
        b.seen.tx.clear()
        b.seen.verdicts.clear()
        offered = flow.Segment(
            flags, segment.seq, segment.ack, segment.wnd, segment.length, 1460 if "S" in flags else 0,
            urgent=UP,
        )  # fmt: skip
        b.offer(offered)
        b.cycles(SETTLE)
        (verdict,) = b.seen.verdicts
        sent = [("".join(sorted(s.flags)), s.seq, s.ack, s.length) for s in b.sent()]
        reply = expected.reply
        after = expected.connection
        start, count = expected.taken or (0, 0)
        report = b.report()
        want = {
            "answer": [("".join(sorted(reply.flags)), reply.seq, reply.ack, 0)] if reply else [],
            "state": after.state,
            "taken": (start - 1 if count else None, count),
            "hears": expected.hears or "NONE",
            "peer closed": after.state in ("CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT"),
        }
        got = {
            "answer": [(f, _signed(seq), ack, n) for f, seq, ack, n in sent],
            "state": State(report.state).name,
            "taken": (verdict.position if verdict.length else None, verdict.length),
            "hears": Reason(report.reason).name,
            "peer closed": bool(report.peer_closed),
        }
        if want["state"] == "CLOSED":
            del want["peer closed"], got["peer closed"]
        elif after.state != "SYN_SENT":
            want |= {
                "RCV.NXT": after.rcv_nxt,
                "SND.UNA": after.snd_una,
                "SND.WND": after.snd_wnd,
                "RCV.UP": after.rcv_up,
            }
            got |= {
                "RCV.UP": report.rcv_up - b.irs & flow.M32 if report.urgent else None,
                "RCV.NXT": report.rcv_nxt_position + 1 & flow.M32,
                "SND.UNA": self._page(0)["snd_una"] - b.iss & flow.M32,
                "SND.WND": self._page(3)["snd_wnd"],
            }
        wrong = "; ".join(f"{k}: {got[k]}, not {v}" for k, v in want.items() if got[k] != v)
        return expected, f"{wrong} ({expected.rfc})" if wrong else ""

    def _page(self, number: int) -> dict[str, int]:
        assert self.b.request(FlowOp.READ, a=number, settle=25) == Status.OK
        word = self.b.sim["tcb_page"]
        return {name: word >> low & (1 << width) - 1 for name, low, width in flow.TCB_PAGES[number]}

    def end(self) -> None:
        """Nothing of the connection is left."""
        if self.b.state() != State.CLOSED or self.b.report().reason == Reason.NONE.value:
            self.b.request(FlowOp.ABORT, settle=25)
        assert self.b.request(FlowOp.RELEASE, settle=25) == Status.OK
        for log in (self.b.seen.tx, self.b.seen.verdicts, self.b.seen.notices, self.b.seen.responses):
            log.clear()


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def differences(b: FlowBench, situation: Situation, flags: str, base: tuple[int, int], *, whole: bool) -> list[str]:
    """Every cell of the row that differs. A connection serves until a segment has changed it, by the oracle or in truth."""
    found = []
    row = Row(b, base)
    fresh = c = row.begin(situation)
    for name, segment in segments(c, flags, whole=whole):
        if c is None:
            c = row.begin(situation)
        outcome, wrong = row.try_(c, segment)
        if wrong:
            found.append(f"{name}, ISN {base[0]:x} {base[1]:x}: {wrong}")
        if wrong or outcome.connection != fresh or outcome.restarts:
            row.end()
            c = None
    if c is not None:
        row.end()
    return found


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: flags or "none")
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name.replace(" ", "_"))
def test_segment_arrives(b, situation: Situation, flags: str) -> None:
    turn = SITUATIONS.index(situation) + FLAGS.index(flags)
    found = differences(b, situation, flags, BASES[turn % len(BASES)], whole=False)
    assert not found, "\n".join(found)


@pytest.mark.soak
@pytest.mark.parametrize("base", BASES, ids=lambda base: f"{base[0]:x}-{base[1]:x}")
@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: flags or "none")
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name.replace(" ", "_"))
def test_segment_arrives_every_number_with_every_other(b, situation: Situation, flags: str, base) -> None:
    found = differences(b, situation, flags, base, whole=True)
    assert not found, "\n".join(found)
