"""Segments of up to 8960 bytes, and what else a length of more bits can be: RFC 9293 sections 3.7.1, 3.8.6, 3.10.7; RFC 6928."""

import pytest

from tests.configs import JUMBO
from tests.hdl.flow.bench import FlowBench, FlowOp, Segment, Status

LONGEST = (1 << JUMBO.length_bits) - 1


@pytest.fixture
def b():
    bench = FlowBench(JUMBO)
    yield bench
    bench.sim.close()


def established(b, mss, *, said=None, wnd=65535):
    """An active open with 256 KiB rings; the peer's SYN,ACK says ``said``."""
    assert b.provision(snd_log2=18, rcv_log2=18) == Status.OK
    assert b.request(FlowOp.OPEN, a=b.iss, mss=mss, rcv_scale=3) == Status.OK
    assert [s.mss for s in b.sent()] == [mss]
    b.receive(Segment("SA", seq=0, ack=1, wnd=wnd, mss=mss if said is None else said, ws=3))


def maxseg(b):
    tcb = b.tcb()
    return tcb["maxseg"] | tcb["maxseg_high"] << 12


@pytest.mark.parametrize("ours, said, agreed", [
    (8960, 8960, 8960), (8960, 1460, 1460), (1460, 8960, 1460), (8960, 65535, 8960), (8960, 0, 536), (8960, 4096, 4096),
    (8960, 4095, 4095),
])  # fmt: skip
def test_the_smaller_of_both(b, ours, said, agreed):
    """And READ_TCB tells it in two parts."""
    established(b, ours, said=said)
    assert maxseg(b) == b.report().mss == agreed
    assert b.bell(0, agreed)[0].length == agreed


@pytest.mark.parametrize(
    "mss, window", [(1460, 14_600), (1461, 14_600), (4096, 14_600), (7300, 14_600), (7301, 14_602), (8960, 17_920)]
)
def test_initial_window(b, mss, window):
    """RFC 6928 section 2: ten segments, at most 14,600 bytes, or two segments."""
    established(b, mss)
    assert b.tcb()["cwnd"] == window
    sent = b.bell(0, 10 * mss, settle=2000)
    assert [s.length for s in sent] == [mss] * (window // mss)


@pytest.mark.parametrize("length", [1, 4095, 4096, 8960, LONGEST])
@pytest.mark.parametrize("fin", ["", "F"])
@pytest.mark.parametrize("irs", [0, 0x7FFFFF00, 0xFFFFFFFF - 600, 0xFFFFFFFF], ids=hex)
def test_text_on_a_syn_ack(b, irs, fin, length):
    """The smallest ring holds it."""
    b.irs = irs
    assert b.provision(rcv_log2=JUMBO.ring_log2_min) == Status.OK
    assert b.request(FlowOp.OPEN, a=b.iss, mss=8960) == Status.OK
    sent, verdict = b.receive(Segment("SA" + fin, seq=0, ack=1, mss=8960, length=length))
    nxt = 1 + length + len(fin)
    assert (verdict.position, verdict.skip, verdict.length, verdict.upto) == (0, 0, length, nxt - 1)
    assert [(s.flags, s.seq, s.ack) for s in sent] == [("A", 1, nxt)]


def test_what_of_a_segment_is_old_or_beyond_the_window_is_left_out(b):
    """More than 4095 bytes at either side."""
    assert b.provision(rcv_log2=JUMBO.ring_log2_min) == Status.OK
    assert b.request(FlowOp.OPEN, a=b.iss, mss=8960) == Status.OK
    b.receive(Segment("SA", seq=0, ack=1, mss=8960))
    b.receive(Segment(seq=1, length=8960))
    _, verdict = b.receive(Segment(seq=1001, length=8960))
    assert (verdict.position, verdict.skip, verdict.length) == (8960, 7960, 1000)
    _, verdict = b.receive(Segment(seq=9961, length=8960))
    assert (verdict.position, verdict.skip, verdict.length) == (9960, 0, 16384 - 9960)
    _, verdict = b.receive(Segment(seq=9961, length=8960))
    assert verdict.length == 0


def test_out_of_order_and_the_gap_filled(b):
    established(b, 8960)
    for seq in (8961, 26881):
        _, verdict = b.receive(Segment(seq=seq, length=8960))
        assert (verdict.position, verdict.skip, verdict.length, verdict.upto) == (seq - 1, 0, 8960, 0)
    _, verdict = b.receive(Segment(seq=1, length=8960))
    assert (verdict.length, verdict.upto) == (8960, 17920)
    _, verdict = b.receive(Segment(seq=17921, length=8960))
    assert (verdict.length, verdict.upto) == (8960, 35840)


def test_a_path_that_carries_less(b):
    """What is under way goes again, in segments of the new size."""
    established(b, 8960)
    assert [s.length for s in b.bell(0, 17920)] == [8960] * 2
    assert b.request(FlowOp.PATH_MTU, mss=1460, settle=2000) == Status.OK
    sent = b.sent()
    assert (sent[0].seq, sent[0].length) == (1, 1460)
    assert maxseg(b) == 1460 and {s.length for s in sent} <= {1460, 17920 % 1460}
    assert b.request(FlowOp.PATH_MTU, mss=8960) == Status.OK
    assert maxseg(b) == 8960


def test_window_updates_come_with_two_segments_or_half_the_ring(b):
    """RFC 9293 section 3.8.6.2.2, in the smallest ring, which is less than two segments."""
    assert b.provision(rcv_log2=JUMBO.ring_log2_min) == Status.OK
    assert b.request(FlowOp.OPEN, a=b.iss, mss=8960) == Status.OK
    b.receive(Segment("SA", seq=0, ack=1, mss=8960))
    b.receive(Segment(seq=1, length=8960))
    b.receive(Segment("PA", seq=8961, length=16384 - 8960))
    b.ticks(50)
    b.sent()
    assert b.bell(1, 8191) == []
    assert [(s.ack, s.wnd) for s in b.bell(1, 8192)] == [(16385, 8192)]


@pytest.mark.parametrize("elapsed, known", [(0xFFE, True), (0xFFF, False)])
def test_an_accepted_connection_s_round_trip(b, elapsed, known):
    """All ones in its own width, not in that of a length, says that nobody knows."""
    assert b.provision() == Status.OK
    request = dict(port=1, a=b.iss, b=b.irs, mss=8960, wnd=8000, elapsed=elapsed)
    assert b.request(FlowOp.ACCEPT, **request) == Status.OK
    b.receive(Segment("A"))
    assert b.tcb()["rtt_valid"] == known
