"""Acknowledgements of a connection's beginning: each segment's at once, where CONTROL.QUICK_ACK says so (RFC 9293 section 3.8.6.3
asks for one of every second segment at least; RFC 9406 section 4.2 is why more help a sender in slow start)."""

import pytest

from tests.hdl.flow.bench import FlowBench, FlowOp, Segment, Status
from tiptoe_hdl.flow.rules.reassembly import QUICK_LOG2

DELACK = 40
LENGTH = 1460


def established(rcv_log2=20, **settings):
    """With a receive ring that has room for all of a test."""
    b = FlowBench(delack=DELACK, **{"quick_ack": 1} | settings)
    assert b.provision(rcv_log2=rcv_log2) == Status.OK
    b.request(FlowOp.OPEN, a=b.iss, mss=LENGTH, rcv_scale=5)
    b.receive(Segment("SA", seq=0, ack=1, wnd=8192, mss=LENGTH, ws=0))
    return b


def data(b, seq, length=LENGTH, flags="A"):
    """What is sent on this segment."""
    sent, verdict = b.receive(Segment(flags, seq=seq, ack=1, wnd=8192, length=length))
    assert verdict.length == length
    assert all(not s.length and s.ack == seq + length for s in sent)
    return len(sent)


def test_established_first_segments_are_acknowledged_one_by_one():
    b = established()
    assert [data(b, 1 + LENGTH * n) for n in range(6)] == [1] * 6


def test_established_every_second_segment_is_where_the_host_wants_that():
    b = established(quick_ack=0)
    assert [data(b, 1 + LENGTH * n) for n in range(6)] == [0, 1] * 3


def test_established_acknowledgement_of_a_push_may_travel_with_an_answer():
    """Nothing may follow it, and the answer will: one segment instead of two."""
    b = established()
    assert data(b, 1, 100, "AP") == 0
    assert [s.length for s in b.bell(0, 10)] == [10]
    assert data(b, 101, 100, "AP") == 0
    assert b.ticks_until_sent(DELACK + 2) in (DELACK, DELACK + 1), "or goes alone when its time has come"
    assert data(b, 201, 100, "AP") == 0
    assert data(b, 301, 100, "AP") == 1, "every second one at the latest"


@pytest.mark.parametrize("length, acknowledged", [(LENGTH - 1, 0), (LENGTH, 1)])
def test_established_push_of_a_full_segment_says_nothing_of_an_end(length, acknowledged):
    """It stands where a buffer of the sender's ends, in the middle of a window as well."""
    b = established()
    assert data(b, 1, length, "AP") == acknowledged


def test_established_quick_acknowledgements_end_with_the_beginning():
    """The last one that finds less than 2**QUICK_LOG2 bytes there, SYN included, is acknowledged at once."""
    b = established()
    seq, last = 1, (1 << QUICK_LOG2) - 1
    while seq < last:
        length = min(LENGTH, last - seq)
        assert data(b, seq, length) == 1
        seq += length
    assert data(b, last, 1) == 1
    assert [data(b, last + 1 + LENGTH * n) for n in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize("quick_ack", [0, 1])
def test_established_out_of_order_is_acknowledged_at_once_anyway(quick_ack):
    b = established(quick_ack=quick_ack)
    sent, _ = b.receive(Segment("AP", seq=1 + LENGTH, ack=1, wnd=8192, length=LENGTH))
    assert [s.ack for s in sent] == [1]
    sent, _ = b.receive(Segment("AP", seq=1, ack=1, wnd=8192, length=LENGTH))
    assert [s.ack for s in sent] == [1 + 2 * LENGTH]
