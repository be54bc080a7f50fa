"""What was sent again without need: F-RTO (RFC 5682), D-SACK (RFC 2883, RFC 3708), and what a tail's probe repaired (RFC 8985
section 7.4); with the blocks of an acknowledgement late, and an acknowledgement's blocks in our own segments."""

import pytest

from tests.hdl.flow.bench import FlowBench, Segment
from tests.hdl.flow.test_recovery import WRAPS, expire, numbers, under_way
from tests.hdl.flow.test_sack import MSS, dup, quick

NEVER = 2**24 - 1
"""ssthresh before the first loss."""


def twice(b, first, last, *blocks, ack):
    """An acknowledgement that tells that these segments have come twice."""
    return dup(b, (first, last), *blocks, ack=1 + ack * MSS)


@WRAPS
def test_timeout_came_too_early_nothing_more_goes_again(wrap):
    b = under_way(wrap=wrap, more=8 * MSS)
    assert expire(b) == [0]
    assert dup(b, ack=1 + 2 * MSS) == [10, 11]  # new ones, and the question
    assert dup(b, ack=1 + 4 * MSS) == [12, 13]
    told = b.tcb()
    assert (told["cwnd"], told["ssthresh"], told["rexmits"]) == (10 * MSS, NEVER, 1)
    for ack, goes in ((6, [14, 15, 16]), (8, [17]), (18, [])):
        assert dup(b, ack=1 + ack * MSS) == goes
    assert b.tcb()["rexmits"] == 1


def test_timeout_was_right_the_second_acknowledgement_is_a_duplicate():
    b = under_way(more=8 * MSS)
    assert expire(b) == [0]
    assert dup(b, ack=1 + MSS) == [10, 11]
    assert dup(b, (10, 11), ack=1 + MSS) == [1]
    assert dup(b, (10, 12), ack=1 + MSS) == [2]
    assert dup(b, (10, 12), ack=1 + 2 * MSS) == [3, 4]
    assert b.tcb()["ssthresh"] == 5 * MSS


def test_timeout_acknowledgement_with_blocks_asks_nothing():
    b = under_way(more=8 * MSS)
    assert expire(b) == [0]
    assert dup(b, (4, 10), ack=1 + MSS) == [1, 2]


def test_timeout_no_room_in_the_peer_s_window_asks_nothing():
    b = under_way(more=8 * MSS, wnd=10 * MSS)
    assert expire(b) == [0]
    sent, _ = b.receive(Segment("A", ack=1 + MSS, wnd=9 * MSS))
    assert numbers(sent) == [1, 2]


def test_timeout_within_recovery_asks_nothing():
    """RFC 5682 section 2.1: not while an earlier loss is being repaired."""
    b = under_way(more=8 * MSS)
    for last in (2, 3, 4):
        dup(b, (1, last))
    told = b.tcb()
    assert expire(b) == [0]
    first = (told["snd_max"] - told["snd_una"]) // MSS
    assert all(n < first for n in dup(b, ack=1 + MSS))


@pytest.mark.parametrize("again", [1, 2])
def test_timeout_peer_had_all_and_says_that_it_came_twice(again):
    """The first acknowledgement covers everything: only D-SACK tells."""
    b = under_way(more=5 * MSS if again == 1 else 0)
    for _ in range(again):
        assert expire(b) == [0]
    dup(b, ack=1 + 10 * MSS)
    assert b.tcb()["cwnd"] <= 2 * MSS
    for _ in range(again):
        twice(b, 0, 1, ack=10)
    told = b.tcb()
    if again == 1:
        assert (told["cwnd"], told["ssthresh"]) == (10 * MSS, NEVER)
    else:
        assert told["cwnd"] <= 2 * MSS, "backed off: too many to tell"


@WRAPS
def test_overtaken_segment_was_taken_for_lost_and_came_twice(wrap):
    b = under_way(wrap=wrap)
    for last in (2, 3, 4):
        sent = dup(b, (1, last))
    assert sent == [0] and b.tcb()["ssthresh"] == 5 * MSS
    dup(b, ack=1 + 10 * MSS)
    assert b.tcb()["cwnd"] == 5 * MSS
    twice(b, 0, 1, ack=10)
    assert (b.tcb()["cwnd"], b.tcb()["ssthresh"]) == (10 * MSS, NEVER)


def test_overtaken_segment_within_recovery_it_ends():
    b = under_way()
    for last in (2, 3, 4):
        dup(b, (1, last))
    dup(b, (5, 6), ack=1 + 4 * MSS)
    assert b.tcb()["in_recovery"]
    again = b.tcb()["rexmits"]
    twice(b, 0, 1, (5, 6), ack=4)
    assert b.tcb()["in_recovery"] == (again > 1)


def test_one_of_two_came_twice_the_other_was_lost():
    b = under_way()
    for last in (2, 3):
        dup(b, (1, last))
    dup(b, (4, 5), (1, 3))
    assert dup(b, (4, 6), (1, 3)) == [3]
    dup(b, (4, 6), ack=1 + 3 * MSS)
    dup(b, ack=1 + 10 * MSS)
    twice(b, 0, 1, ack=10)
    assert b.tcb()["cwnd"] == 5 * MSS


def test_flood_of_what_came_twice_changes_nothing():
    b = under_way(more=5 * MSS)
    sent = [n for _ in range(40) for n in twice(b, -1, 0, ack=0)]
    told = b.tcb()
    assert sent == [10], "limited transmit's: that it comes twice is told behind the duplicate"
    assert (told["cwnd"], told["ssthresh"], told["in_recovery"], told["rexmits"]) == (10 * MSS, NEVER, 0, 0)


def test_flood_of_what_came_twice_behind_a_recovery_restores_once():
    b = under_way()
    for last in (2, 3, 4):
        dup(b, (1, last))
    dup(b, ack=1 + 10 * MSS)
    for _ in range(20):
        twice(b, 0, 1, ack=10)
    assert b.tcb()["cwnd"] == 10 * MSS


def probed():
    b = quick()
    assert b.ticks_until_sent(200)
    assert numbers(b.sent()) == [4]
    return b


def test_tail_probe_repaired_a_loss_cwnd_is_halved():
    b = probed()
    dup(b, ack=1 + 5 * MSS)
    cwnd = b.tcb()["cwnd"]
    assert cwnd == 10 * MSS, "half of it was in use"
    b.bell(0, 7 * MSS)
    dup(b, ack=1 + 7 * MSS)
    told = b.tcb()
    assert told["cwnd"] == told["ssthresh"] == cwnd // 2
    b.bell(0, 9 * MSS)
    dup(b, ack=1 + 9 * MSS)
    assert b.tcb()["ssthresh"] == cwnd // 2, "once"


@pytest.mark.parametrize("when", ["before", "with"])
def test_tail_probe_came_twice_cwnd_stays(when):
    b = probed()
    if when == "before":
        dup(b, ack=1 + 5 * MSS)
        twice(b, 4, 5, ack=5)
    else:
        twice(b, 4, 5, ack=5)
    b.bell(0, 7 * MSS)
    dup(b, ack=1 + 7 * MSS)
    assert b.tcb()["ssthresh"] == NEVER and b.tcb()["cwnd"] == 10 * MSS


@pytest.mark.parametrize("gaps", [0, 1, 4])
def test_tail_probe_beside_blocks_of_ours_sends_the_last_byte(gaps):
    """The segment has less room for data then, and so begins later."""
    b = quick()
    for k in range(gaps):
        b.receive(Segment("A", seq=1 + 1000 + 200 * k, ack=1, wnd=60000, length=100))
    b.seen.tx.clear()
    assert b.ticks_until_sent(200)
    (probe,) = [s for s in b.sent() if s.length]
    assert probe.sacks == gaps and probe.seq + probe.length == 1 + 5 * MSS
    assert probe.length == MSS - (4 + 8 * gaps if gaps else 0)


def test_turn_between_a_segment_and_its_blocks_sends_nothing():
    b = under_way()
    for last in (2, 3, 4):
        dup(b, (1, last))
    b.seen.tx.clear()
    b.offer(Segment("A", ack=1 + MSS, wnd=60000), has_sack=True)
    b.cycles(300)
    b.bell(1, 0)
    assert b.sent() == []
    for k, (first, last) in enumerate([(5, 6), (1, 4)]):
        start, end = ((b.iss + 1 + MSS * n) & 0xFFFFFFFF for n in (first, last))
        assert b.sent() == []
        b.put("sack_block", dict(id=1, start=start, end=end, first=k == 0, more=k == 0))
        b.cycles(300)
    assert numbers(b.sent()) == [4]


def test_list_of_ours_is_known_while_other_things_happen():
    """What does not change it does not make a header's reader begin anew."""
    b = FlowBench(sack=1)
    b.established(mss=MSS, wnd=60000, sack_ok=True)
    b.receive(Segment("A", seq=1001, length=100))
    b.sim["sack_id"] = 1
    b.sim.step(4)
    known = []

    def watch(cycles=60):
        for _ in range(cycles):
            b.sim.step(1)
            known.append(b.sim["sack"].known)

    b.put("doorbell", dict(id=1, which=0, position=3 * MSS))
    watch()
    b.offer(Segment("A", ack=1 + MSS, wnd=60000))
    watch()
    b.offer(Segment("A", seq=1001, length=100, ack=1 + MSS, wnd=60000))  # once more: merged into what is there
    watch()
    assert all(known[:120])
    b.offer(Segment("A", seq=1, length=100, ack=1 + MSS, wnd=60000))
    watch()
    assert not all(known[180:])
