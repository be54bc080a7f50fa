"""RFC 9293 sections 3.10.1 to 3.10.6 and 3.10.8 on the flow: every state x every call of the user's, and every timer.

The table is tests/states/rules.toml.
"""

from __future__ import annotations

import pytest

from tests.hdl.flow.bench import FlowBench, FlowOp, Reason, Segment, State, Status
from tests.states.oracle import RULES
from tests.states.situations import BASES

ACK, FIN_ACK = Segment("A"), Segment("FA")
STATES = ("new", *(name for name in RULES["call"]["OPEN"] if name not in ("new", "rfc")))
SYNCHRONISED = STATES[STATES.index("ESTABLISHED") :]
BEHIND_FIN = ("CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT")
FILLS = (1460, 1460, 1176)
RTO, DELACK, MSL, R2 = 10, 4, 60, 3


@pytest.fixture(scope="module")
def b():
    bench = FlowBench(rto_initial=RTO, rto_min=RTO, delack=DELACK, msl=MSL, rexmt_max=R2)
    yield bench
    bench.sim.close()


@pytest.fixture(autouse=True)
def end(b):
    """Nothing of a connection is left to the next one."""
    yield
    b.tx_ready = True
    b.request(FlowOp.ABORT)
    assert b.request(FlowOp.RELEASE) == Status.OK
    for log in (b.seen.tx, b.seen.verdicts, b.seen.notices, b.seen.responses):
        log.clear()


def reach(b: FlowBench, state: str, *, fill: bool = False, wnd: int = 8192, send: int = 0, base=BASES[0]) -> None:
    """A connection in ``state``; ``fill``: its receive ring is full, or so full that a FIN just finds room; ``send`` bytes are
    in the send ring, behind which the FIN follows, and the peer's window is ``wnd`` by then."""
    b.iss, b.irs = base
    assert b.provision(rcv_log2=12) == Status.OK
    if state == "new":
        return
    assert b.request(FlowOp.OPEN, a=b.iss, mss=1460) == Status.OK
    got = 1
    if state == "SYN_RECEIVED":
        b.receive(Segment("S", seq=0))
    elif state != "SYN_SENT":
        b.receive(Segment("SA", seq=0, mss=1460))
        if fill:
            for length in FILLS[: 2 if state in BEHIND_FIN else 3]:
                b.receive(ACK.but(seq=got, length=length))
                got += length
        if wnd != 8192:
            b.receive(ACK.but(seq=got, wnd=wnd))
        ours = 1 + send
        passive = state in ("CLOSE_WAIT", "LAST_ACK")
        if passive:
            b.receive(FIN_ACK.but(seq=got, wnd=wnd))
        if send:
            b.bell(0, send)
        if state in ("FIN_WAIT_1", "FIN_WAIT_2", "CLOSING", "TIME_WAIT", "LAST_ACK"):
            b.close(send)
        if state in ("FIN_WAIT_2", "TIME_WAIT"):
            b.receive(ACK.but(seq=got, ack=ours + 1))
        if state in ("CLOSING", "TIME_WAIT"):
            b.receive(FIN_ACK.but(seq=got, ack=ours + 1 if state == "TIME_WAIT" else 1, wnd=wnd))
        if state == "CLOSED":
            b.receive(Segment("R", seq=got))
    assert b.state().name == ("CLOSED" if state == "new" else state)
    b.sent()


def letters(segment: Segment) -> str:
    return "data" if segment.length else "".join(sorted(segment.flags))


@pytest.mark.parametrize("base", BASES, ids=lambda base: f"{base[0]:x}-{base[1]:x}")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", RULES["call"])
def test_call(b, call: str, state: str, base) -> None:
    then, goes, answer = RULES["call"][call][state]
    reach(b, state, fill=call == "RECEIVE", base=base)
    if call in ("SEND", "RECEIVE"):
        taken = sum(FILLS[: 2 if state in BEHIND_FIN else 3]) if state in SYNCHRONISED or state == "CLOSED" else 0
        sent = b.bell(call == "RECEIVE", 100 if call == "SEND" else taken)
        assert not b.report().bad_doorbell
    else:
        op = {"STATUS": FlowOp.READ}.get(call) or FlowOp[call]
        status = b.request(op, a={"OPEN": b.iss, "URGENT": 100}.get(call, 0), mss=1460)
        assert status.name == answer
        sent = b.sent()
        assert [s.urgent for s in sent if s.length] == ([100] if goes == "data" else [])
    assert [letters(s) for s in sent] == ([goes] if goes else [])
    report = b.report()
    assert State(report.state).name == then
    if call == "ABORT" and answer == "OK":
        assert Reason(report.reason) == Reason.LOCAL_ABORT
        ours = {"SYN_RECEIVED": 1, "ESTABLISHED": 1, "CLOSE_WAIT": 1}.get(state, 2)
        theirs = 2 if state in BEHIND_FIN else 1
        assert [(s.seq, s.ack) for s in sent] == ([(ours, theirs)] if goes else [])


@pytest.mark.parametrize("state", ["SYN_SENT", "SYN_RECEIVED"])
@pytest.mark.parametrize("calls", [("SEND",), ("CLOSE",), ("SEND", "CLOSE")])
def test_calls_before_the_handshake_s_end_count_behind_it(b, state: str, calls) -> None:
    reach(b, state)
    for call in calls:
        assert (b.bell(0, 100) if call == "SEND" else b.close(100 * ("SEND" in calls))) == []
    sent, _ = b.receive(Segment("SA", seq=0, ack=1, mss=1460) if state == "SYN_SENT" else ACK)
    assert sum(s.length for s in sent) == 100 * ("SEND" in calls)
    assert any("F" in s.flags for s in sent) == ("CLOSE" in calls)
    assert b.state() == (State.FIN_WAIT_1 if "CLOSE" in calls else State.ESTABLISHED)


def watch(b: FlowBench, ticks: int) -> list[tuple[int, Segment]]:
    """What goes out in so many ticks, with its time."""
    out = []
    for tick in range(1, ticks + 1):
        b.ticks(1)
        out += [(tick, s) for s in b.sent()]
    return out


@pytest.mark.parametrize("base", BASES[:3], ids=lambda base: f"{base[0]:x}-{base[1]:x}")
@pytest.mark.parametrize("state", STATES[2:])
def test_retransmission_timer(b, state: str, base) -> None:
    """It runs while something is under way, doubles (RFC 6298 5.5), and gives up after R2."""
    rule = RULES["timer"]["retransmission"].get(state)
    reach(b, state, send=500 if state in ("ESTABLISHED", "CLOSE_WAIT") else 0, base=base)
    una = 0 if state in ("SYN_SENT", "SYN_RECEIVED") else 1
    sent = watch(b, 50)
    if rule is None:
        assert sent == [] and b.state().name == state
        return
    assert [s.seq for _, s in sent] == [una, una]
    first, second = (tick for tick, _ in sent)
    assert RTO - 1 <= first <= RTO + 1 and 2 * RTO - 1 <= second - first <= 2 * RTO + 1
    for _, segment in sent:
        if rule[0] == "again":
            assert segment.length == 500 if state in ("ESTABLISHED", "CLOSE_WAIT") else "F" in segment.flags
        else:
            assert "".join(sorted(segment.flags)) == rule[0]
    watch(b, 3 * 8 * RTO)
    report = b.report()
    assert (State(report.state).name, Reason(report.reason)) == (rule[1], Reason.TIMEOUT)


@pytest.mark.parametrize("base", BASES[:3], ids=lambda base: f"{base[0]:x}-{base[1]:x}")
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("state", [name for name in RULES["timer"]["persist"] if name != "rfc"])
def test_persist_timer(b, state: str, answered: bool, base) -> None:
    reach(b, state, wnd=0, send=500, base=base)
    got = 2 if state in BEHIND_FIN else 1
    probes = []
    for _ in range(30 * RTO):
        probes += (sent := watch(b, 1))
        if sent and answered:
            b.receive(ACK.but(seq=got, wnd=0))
    assert {(s.seq, s.length) for _, s in probes} == {(1, 1)}
    report = b.report()
    if answered:
        assert len(probes) > R2 and State(report.state).name == state
        sent, _ = b.receive(ACK.but(seq=got, wnd=8192))
        assert sum(s.length for s in sent) == 500
        assert any("F" in s.flags for s in sent) == (state in ("FIN_WAIT_1", "CLOSING", "LAST_ACK"))
    else:
        assert len(probes) == R2 and (State(report.state), Reason(report.reason)) == (State.CLOSED, Reason.TIMEOUT)


@pytest.mark.parametrize("state", STATES[2:])
def test_delayed_ack_timer(b, state: str) -> None:
    rule = RULES["timer"]["delayed ACK"].get(state)
    reach(b, state)
    ack = 2 if state == "FIN_WAIT_2" else 1
    if rule is None:
        assert not [s for _, s in watch(b, RTO - 2) if s.flags == "A"]
        return
    assert b.receive(ACK.but(ack=ack, length=10))[0] == []
    ((tick, segment),) = watch(b, RTO - 2)
    assert DELACK - 1 <= tick <= DELACK + 1 and (segment.flags, segment.seq, segment.ack) == (
        "A",
        1 + (state != "ESTABLISHED"),
        11,
    )
    assert b.state().name == rule[1]


@pytest.mark.parametrize("state", SYNCHRONISED)
def test_2msl_timer(b, state: str) -> None:
    """It ends TIME_WAIT; no other state has it."""
    reach(b, state)
    watch(b, MSL - 3)
    assert b.state().name == state
    watch(b, 5)
    report = b.report()
    if state == "TIME_WAIT":
        assert (State(report.state), Reason(report.reason)) == (State.CLOSED, Reason.NORMAL)
    else:
        assert State(report.state).name == state
