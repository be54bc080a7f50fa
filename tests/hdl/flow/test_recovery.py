"""What goes again, when, and how much is under way meanwhile: RFC 6675, RFC 9937 (PRR), RFC 2018 section 8, RFC 6298."""

import random

import pytest

from tests.hdl.flow.bench import M32, FlowBench, FlowOp, Segment, Status
from tests.hdl.flow.test_sack import MSS, Receiver, dup

WRAPS = pytest.mark.parametrize("wrap", [0, 1, 2500, 5 * MSS, 9999, 10001, 40000])
"""Bytes behind the first one where our sequence numbers pass 0."""


def opened(b):
    """A SYN with a ring for all that is written in these tests."""
    assert b.provision(snd_log2=18) == Status.OK
    assert b.request(FlowOp.OPEN, a=b.iss, mss=MSS) == Status.OK


def under_way(sent=10, wrap=40000, more=0, wnd=60000, **settings):
    """``sent`` segments under way to a peer that knows SACK, ``more`` bytes waiting; a tail would be probed later."""
    b = FlowBench(sack=1, **{"rto_initial": 30, "rto_min": 20, "rto_max": 25} | settings)
    b.iss = -(1 + wrap) & M32
    opened(b)
    b.ticks(14)
    b.receive(Segment("SA", seq=0, ack=1, wnd=wnd, mss=MSS, sack_ok=True))
    b.bell(0, sent * MSS + more)
    assert b.tcb()["snd_max"] == (1 + b.iss + sent * MSS) & M32
    return b


def expire(b, limit=400):
    """The time-out; numbers of the segments sent."""
    b.seen.tx.clear()
    before = b.tcb()["rexmt_shift"]
    while b.tcb()["rexmt_shift"] == before:
        b.ticks(1)
        limit -= 1
        assert limit
    return numbers(b.sent())


def numbers(sent):
    """Segments counted from 0, those with data; (first byte, length) if it is not a whole one."""
    return [(s.seq - 1) / MSS if s.length == MSS else (s.seq, s.length) for s in sent if s.length]


@WRAPS
def test_timeout_only_what_is_missing_goes_again(wrap):
    """0, 5 and 7 are lost, and all acknowledgements. The one of what the time-out sends tells the rest."""
    b = under_way(wrap=wrap)
    assert expire(b) == [0]
    assert dup(b, (8, 10), (6, 7), ack=1 + 5 * MSS) == [5, 7]
    assert dup(b, (8, 10), ack=1 + 7 * MSS) == []
    assert dup(b, ack=1 + 10 * MSS) == []
    told = b.tcb()
    assert told["rexmits"] == 3 and told["snd_una"] == told["snd_nxt"] == told["snd_max"]


def test_timeout_all_is_lost_slow_start():
    """RFC 5681 section 3.1: one segment, then one more for each that is acknowledged; F-RTO has nothing to ask with."""
    b = under_way()
    assert expire(b) == [0]
    assert dup(b, ack=1 + MSS) == [1, 2]
    assert dup(b, ack=1 + 2 * MSS) == [3, 4]
    assert dup(b, ack=1 + 4 * MSS) == [5, 6, 7]
    assert b.tcb()["cwnd"] == 4 * MSS
    for ack, goes in ((5, [8, 9]), (6, [])):
        assert dup(b, ack=1 + ack * MSS) == goes
    assert b.tcb()["rexmits"] == 10


def test_timeout_of_what_the_timeout_sent():
    b = under_way()
    assert expire(b) == [0]
    dup(b, (8, 10), ack=1 + MSS)  # 1 and 2 go
    assert expire(b) == [1]
    assert dup(b, (8, 10), ack=1 + 2 * MSS) == [2, 3]
    assert dup(b, (8, 10), ack=1 + 4 * MSS) == [4, 5, 6]
    assert dup(b, (8, 10), ack=1 + 7 * MSS) == [7]
    assert dup(b, ack=1 + 10 * MSS) == []


@WRAPS
def test_timeout_peer_has_taken_back_what_it_told(wrap):
    """RFC 2018 section 8: what it said before the time-out does not count any more."""
    b = under_way(wrap=wrap)
    for last in (2, 3, 5):
        dup(b, (1, last))
    assert expire(b) == [0]
    assert dup(b, ack=1 + MSS) == [1, 2]
    assert dup(b, ack=1 + 3 * MSS) == [3, 4, 5]


def test_timeout_late_acknowledgements_of_before_do_no_harm():
    b = under_way()
    assert expire(b) == [0]
    assert dup(b, (1, 3)) == dup(b, (1, 2)) == []
    assert dup(b, (5, 6), (1, 3), ack=1) == []
    assert dup(b, (5, 6), ack=1 + 3 * MSS) == [3, 4]
    assert dup(b, (1, 3), ack=1) == []  # an old one again
    assert dup(b, (5, 6), ack=1 + 4 * MSS) == [6, 7]
    assert dup(b, ack=1 + 10 * MSS) == [] and b.tcb()["rexmits"] == 5


def test_timeout_fin_goes_with_the_last_gap():
    b = under_way(sent=5)
    assert [s.flags for s in b.close(5 * MSS)] == ["AF"]
    assert expire(b) == [0]
    sent, _ = b.receive(Segment("A", ack=1 + 4 * MSS, wnd=60000))
    assert [(s.seq, s.length, "F" in s.flags) for s in sent] == [(1 + 4 * MSS, MSS, True)]
    b.receive(Segment("A", ack=2 + 5 * MSS, wnd=60000))
    assert b.tcb()["fin_acked"]


def test_timeout_fin_alone_is_lost():
    b = under_way(sent=5)
    b.close(5 * MSS)
    assert expire(b) == [0]
    sent, _ = b.receive(Segment("A", ack=1 + 5 * MSS, wnd=60000))
    assert [(s.seq, s.length, s.flags) for s in sent] == [(1 + 5 * MSS, 0, "AF")]


def test_timeout_gap_smaller_than_a_segment_is_not_overrun():
    b = under_way()
    assert expire(b) == [0]
    sent, _ = b.receive(Segment("A", ack=1 + MSS, wnd=60000), sack=[(1 + MSS + 300, 1 + 10 * MSS)])
    assert [(s.seq, s.length) for s in sent] == [(1 + MSS, 300)]


def test_timeout_peer_has_all_the_rest_new_data_goes():
    b = under_way(more=5 * MSS)
    assert expire(b) == [0]
    sent = dup(b, (2, 10), ack=1 + MSS)
    assert sent == [1, 10]


def test_timeout_without_sack_goes_back():
    b = FlowBench(rto_initial=30, rto_min=20)
    b.established(mss=MSS, wnd=60000)
    b.bell(0, 5 * MSS)
    assert expire(b) == [0]
    assert dup(b, ack=1 + MSS) == [1, 2]


def test_window_closes_in_recovery_and_opens_again():
    b = under_way(more=5 * MSS)
    for last in (2, 3, 4):
        dup(b, (1, last))
    sent, _ = b.receive(Segment("A", ack=1, wnd=0), sack=[(1 + MSS, 1 + 5 * MSS)])
    assert [s for s in sent if s.seq >= 1 + 10 * MSS] == [], "no new data into a closed window"
    expire(b)  # a probe
    b.receive(Segment("A", ack=1, wnd=0), sack=[(1 + MSS, 1 + 5 * MSS)])
    flying, _ = b.receive(Segment("A", ack=1, wnd=60000), sack=[(1 + MSS, 1 + 5 * MSS)])
    peer = Receiver()
    peer.take(1 + MSS, 1 + 5 * MSS)
    while flying:
        segment = flying.pop(0)
        peer.take(segment.seq, segment.seq + segment.length)
        flying += b.receive(Segment("A", ack=peer.nxt, wnd=60000), sack=peer.blocks())[0]
    assert peer.nxt == 1 + 15 * MSS and b.tcb()["snd_una"] == b.tcb()["snd_max"]


def test_timeout_after_two_gibibytes_without_loss_only_what_is_missing_goes_again():
    b = FlowBench(sack=1, rto_initial=30, rto_min=20, rto_max=25)
    at = b.two_gibibytes(sack_ok=True)
    b.bell(0, at + 40_000 & M32)
    una = 1 + at
    while not b.tcb()["rexmt_shift"]:
        b.seen.tx.clear()
        b.ticks(1)
    assert [((s.seq - una) & M32, s.length) for s in b.sent()] == [(0, 4000)]
    blocks = [(una + 32_000, una + 40_000), (una + 20_000, una + 24_000)]
    sent, _ = b.receive(Segment("A", ack=una + 16_000, wnd=65535), sack=blocks)
    assert [((s.seq - una) & M32, s.length) for s in sent] == [(16_000, 4000), (24_000, 4000)]


@pytest.mark.parametrize("lost", range(4))
def test_timeout_of_a_ring_of_four_segments(lost):
    """The smallest ring, full; one is lost, and what would tell of it."""
    b = FlowBench(sack=1, rto_initial=30, rto_min=20, rto_max=25)
    assert b.provision(snd_log2=12) == Status.OK
    b.request(FlowOp.OPEN, a=b.iss, mss=MSS)
    b.receive(Segment("SA", seq=0, ack=1, wnd=60000, mss=MSS, sack_ok=True))
    assert numbers(b.bell(0, 4 * MSS)) == [0, 1, 2, 3]
    assert expire(b)[-1:] == [0]
    blocks = [(lost + 1, 4)] if 0 < lost < 3 else []
    assert dup(b, *blocks, ack=1 + (lost or 4) * MSS) == ([lost] if lost else [])
    acked = lost or 4
    assert numbers(b.bell(0, (acked + 4) * MSS)) == ([4] if lost else [4, 5]), "cwnd is two segments"


def test_first_loss_behind_a_repeated_syn_is_repaired_by_duplicates():
    """That the SYN was lost is no loss before this one (RFC 6582 section 3.2)."""
    b = FlowBench(sack=1, rto_initial=30, rto_min=20)
    opened(b)
    b.ticks(31)
    b.receive(Segment("SA", seq=0, ack=1, wnd=60000, mss=MSS, sack_ok=True))
    b.bell(0, 8 * MSS)
    for last in (2, 3, 4):
        sent = dup(b, (1, last))
    assert sent == [0] and b.tcb()["in_recovery"]


def test_timeout_while_all_goes_again_behind_a_closed_window_nothing_goes_three_times():
    """Sending has gone back to snd_una, since the window was closed; now what is missing goes by the scoreboard alone."""
    b = under_way()
    b.receive(Segment("A", ack=1, wnd=0))
    expire(b)  # a probe
    b.receive(Segment("A", ack=1, wnd=0))
    b.receive(Segment("A", ack=1, wnd=4 * MSS))  # some go again
    assert b.tcb()["snd_nxt"] != b.tcb()["snd_max"]
    flying = [n for n in expire(b) if n == 0][-1:]
    b.receive(Segment("A", ack=1, wnd=60000))
    sent, at = list(flying), 0
    while flying:
        assert flying.pop(0) == at
        at += 1
        more = dup(b, ack=1 + at * MSS)
        sent += more
        flying += more
    assert sent == list(range(10))


def test_recovery_shrinks_what_is_under_way_in_proportion():
    """RFC 9937: one segment for two that have arrived, down to ssthresh; no half round trip of silence, no burst."""
    b = under_way(more=20 * MSS)
    out = []
    for last in range(2, 11):
        out.append(len(dup(b, (1, last))))
    assert out[:3] == [1, 1, 1]  # limited transmit, limited transmit, what is lost
    for last in (11, 12):  # what limited transmit let out
        out.append(len(dup(b, (1, last))))
    assert max(out) == 1 and sum(out[3:]) in (3, 4, 5)
    told = b.tcb()
    new = (told["snd_max"] - told["snd_una"] & M32) // MSS - 12
    assert told["ssthresh"] == 5 * MSS and told["cwnd"] == 10 * MSS - 8 * MSS // 2
    assert new + 1 == 6, "under way: those, and what has gone again"
    dup(b, ack=1 + 12 * MSS)
    assert b.tcb()["cwnd"] == 5 * MSS


@pytest.mark.parametrize("block", [(1, 2), (20, 30), (3, 2), None], ids=["true", "beyond", "backwards", "none"])
def test_spoofed_duplicates_let_out_no_more_than_cwnd(block):
    b = under_way(more=50 * MSS)
    dup(b, (1, 2))
    dup(b, (1, 2))
    dup(b, (1, 2))
    sent = []
    for _ in range(60):
        sent += dup(b, *([block] if block else []))
    told = b.tcb()
    assert told["cwnd"] == told["ssthresh"] == 5 * MSS
    assert sent == []


def test_peer_takes_back_within_recovery_what_it_told():
    """It acknowledges up to where an interval begins, and no further: the time-out finds out."""
    b = under_way()
    for last in (6, 7, 8):
        dup(b, (5, last))
    dup(b, (5, 8), ack=1 + 5 * MSS)
    assert expire(b) == [5]
    got, ack = [5], 6
    for _ in range(8):
        sent = dup(b, ack=1 + ack * MSS)
        got += sent
        ack = max(ack, *map(int, sent), 0) + 1 if sent else ack
    assert got == [5, 6, 7, 8, 9]


def line(seed, loss, b, total=120 * MSS, window=30_000):
    """Data goes to a peer in round trips of one tick, lost at random; (lost, sent again, time-outs)."""
    rng, peer, lost, timeouts, ticks = random.Random(f"{seed} {loss}"), Receiver(), 0, 0, 0
    rung = min(total, window)
    flying = b.bell(0, rung)
    while peer.nxt <= total and ticks < 20_000:
        if not flying:
            ticks += 1
            before = b.tcb()["rexmt_shift"]
            b.ticks(1)
            flying = b.sent()
            timeouts += b.tcb()["rexmt_shift"] > before
            continue
        segment = flying.pop(0)
        if not segment.length:
            continue
        if rng.random() < loss:
            lost += 1
            continue
        peer.take(segment.seq, segment.seq + segment.length)
        more, _ = b.receive(Segment("A", ack=peer.nxt, wnd=60000), sack=peer.blocks(), settle=150)
        flying += more
        if peer.nxt - 1 + window > rung and rung < total:
            rung = min(total, peer.nxt - 1 + window)
            flying += b.bell(0, rung, settle=100)
    assert peer.nxt == total + 1
    return lost, b.tcb()["rexmits"], timeouts


@pytest.mark.parametrize("loss", [0.03, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_lossy_line_as_many_go_again_as_are_lost(seed, loss):
    """But for what probes a tail, and for the segment of a time-out that came too early."""
    b = FlowBench(sack=1, rto_initial=60, rto_min=30)
    opened(b)
    b.receive(Segment("SA", seq=0, ack=1, wnd=60000, mss=MSS, sack_ok=True))
    lost, again, timeouts = line(seed, loss, b)
    print(f"seed {seed}: {lost} lost, {again} again, {timeouts} time-outs")
    assert again <= lost * 1.1 + 3 + 2 * timeouts
