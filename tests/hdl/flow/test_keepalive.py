"""KEEPALIVE: a probe of an idle connection, RFC 9293 section 3.8.4 (MUST-24 to MUST-29, SHLD-12). When is the host's business."""

import pytest

from tests.hdl.flow.bench import GENERATION, M32, FlowBench, FlowOp, Segment, State, Status
from tests.hdl.flow.test_timeouts import closed_window, probes_until_the_end

AROUND_THE_WRAP = pytest.mark.parametrize("wrap", [-2, -1, 0, 1, 40000])
"""SND.UNA passes 0 so many bytes later."""


def idle(wrap=40000, una=101, **fields):
    """An established connection; ``una - 1`` bytes went and were acknowledged."""
    b = FlowBench(rto_initial=10, rto_min=10)
    b.iss = -(una + wrap) & M32
    b.established(**fields)
    b.bell(0, una - 1)
    b.receive(Segment("A", ack=una, wnd=8192))
    b.ticks(40)
    b.sent()
    return b


def probe(b):
    """A KEEPALIVE request; the one segment that it sends."""
    b.seen.tx.clear()
    assert b.request(FlowOp.KEEPALIVE) == Status.OK
    (sent,) = b.sent()
    return sent


@AROUND_THE_WRAP
def test_keepalive_is_an_empty_segment_one_before_snd_una(wrap):
    b = idle(wrap)
    before = b.tcb()
    sent = probe(b)
    assert (sent.flags, sent.seq, sent.ack, sent.length) == ("A", 100, 1, 0)
    assert b.tcb() == before | {"unanswered": 1}, "nothing else changes"
    assert b.ticks_until_sent(200) is None, "no timer runs for it"


@AROUND_THE_WRAP
@pytest.mark.parametrize(
    "answer",
    [
        Segment("A", ack=101),  # as RFC 9293 wants it
        Segment("A", ack=101, wnd=0),
        Segment("A", ack=101, length=10),
        Segment("AF", ack=101),
        Segment("A", ack=101, seq=0),  # a keepalive of the peer's own
        Segment("A", ack=101, seq=0, length=1),  # with the octet that old ones send
        Segment("A", ack=101, seq=501, length=10),  # out of order
    ],
)
def test_keepalive_is_answered_by_whatever_the_peer_says(wrap, answer):
    b = idle(wrap)
    probe(b)
    b.receive(answer)
    assert b.tcb()["unanswered"] == 0
    assert b.ticks_until_sent(60) is None or [s.length for s in b.sent()] == [0]


@AROUND_THE_WRAP
@pytest.mark.parametrize(
    "stranger",
    [
        Segment("A", ack=102),  # acknowledges what was never sent
        Segment("A", ack=(101 - 70000) & M32),  # older than the largest window
        Segment("A", ack=101, seq=(1 - 70000) & M32),
        Segment("A", ack=101, seq=0x4000_0000),
        Segment("R", seq=5),
        Segment("S", seq=3),
    ],
)
def test_keepalive_is_not_answered_by_a_stranger(wrap, stranger):
    b = idle(wrap)
    probe(b)
    b.receive(stranger)
    assert b.tcb()["unanswered"] == 1


def test_keepalive_answered_by_a_reset_of_a_peer_that_knows_nothing_ends_the_connection():
    b = idle()
    probe(b)
    b.receive(Segment("R", seq=1))
    assert b.report().terminal


@AROUND_THE_WRAP
def test_keepalive_while_data_is_under_way_disturbs_nothing(wrap):
    b = idle(wrap)
    b.bell(0, 300)
    b.ticks(4)
    before = b.tcb()
    assert (probe(b).seq, b.tcb()) == (100, before | {"unanswered": 1})
    assert 4 <= b.ticks_until_sent(20) <= 7, "the time-out of the data"
    assert [(s.seq, s.length) for s in b.sent()] == [(101, 200)]
    b.receive(Segment("A", ack=301))
    assert [(s.seq, s.length) for s in b.bell(0, 400)] == [(301, 100)]


@AROUND_THE_WRAP
def test_keepalive_with_the_window_closed_stands_left_of_the_probes(wrap):
    b = closed_window(wrap)
    assert probe(b).seq == 500
    assert b.ticks_until_sent(12) is not None
    assert [(s.seq, s.length) for s in b.sent()] == [(501, 1)]
    assert probe(b).seq == 500


def test_keepalives_do_not_use_up_the_probes_of_a_closed_window():
    b = closed_window(rexmt_max=4)
    for _ in range(20):
        probe(b)
    assert b.tcb()["unanswered"] == 1
    assert probes_until_the_end(b) == 3, "one of four is the keepalive"


@pytest.mark.parametrize("state", [State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2])
def test_keepalive_in_a_half_closed_connection(state):
    b = idle()
    if state is State.CLOSE_WAIT:
        b.receive(Segment("AF", ack=101))
    else:
        b.close(100)
        if state is State.FIN_WAIT_2:
            b.receive(Segment("A", ack=102))
    assert b.state() == state
    sent = probe(b)
    assert (sent.flags, sent.length) == ("A", 0)
    assert sent.seq == (101 if state is State.FIN_WAIT_2 else 100)
    assert b.state() == state


def test_keepalive_before_and_behind_a_connection():
    b = FlowBench(rto_initial=10, rto_min=10)
    assert b.request(FlowOp.KEEPALIVE) == Status.BAD_ID
    assert b.provision() == Status.OK
    assert b.request(FlowOp.KEEPALIVE) == Status.BAD_STATE
    assert b.request(FlowOp.OPEN, a=b.iss, mss=1460, rcv_scale=0) == Status.OK
    b.sent()
    assert b.request(FlowOp.KEEPALIVE) == Status.BAD_STATE and b.sent() == []
    b.receive(Segment("SA", seq=0, ack=1))
    assert b.request(FlowOp.KEEPALIVE, generation=GENERATION + 1) == Status.BAD_GENERATION and b.sent() == []
    assert probe(b).seq == 0
    b.receive(Segment("R"))
    assert b.request(FlowOp.KEEPALIVE) == Status.BAD_STATE and b.sent() == []


def test_keepalive_of_an_accepted_connection_before_its_ack():
    b = FlowBench()
    b.provision()
    b.request(FlowOp.ACCEPT, port=1, a=b.iss, b=b.irs, mss=1000, wnd=8000)
    assert b.request(FlowOp.KEEPALIVE) == Status.BAD_STATE and b.sent() == []
