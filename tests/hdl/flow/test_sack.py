"""The peer's SACK blocks and what is sent again for them: RFC 2018 sections 5 and 8, RFC 6675, RFC 2883."""

import random

import pytest

from tests.hdl.flow.bench import FlowBench, Segment

MSS = 1000


def lossy(sent=10, **timers):
    """``sent`` segments under way to a peer that knows SACK."""
    b = FlowBench(sack=1, **timers)
    b.established(mss=MSS, wnd=60000, sack_ok=True)
    b.bell(0, sent * MSS)
    b.sent()
    return b


def dup(b, *blocks, ack=1):
    """A duplicate acknowledgement with blocks, in segments counted from 0; returns the numbers of those sent."""
    sent, _ = b.receive(
        Segment("A", ack=ack, wnd=60000), sack=[(1 + MSS * first, 1 + MSS * last) for first, last in blocks]
    )
    return [(s.seq - 1) / MSS if s.length == MSS else (s.seq, s.length) for s in sent if s.length]


def test_recovery_fills_one_gap_an_acknowledgement_each_once():
    b = lossy()  # 0, 3 and 6 are lost
    for blocks in ([(1, 2)], [(1, 3)]):
        assert dup(b, *blocks) == []
    assert dup(b, (4, 5), (1, 3)) == [0]  # the third duplicate: what stands at snd_una
    assert dup(b, (4, 6), (1, 3)) == [3]
    assert dup(b, (7, 8), (4, 6), (1, 3)) == [6]
    for last in (9, 10):
        assert dup(b, (7, last), (4, 6), (1, 3)) == []
    # 0 arrives: a partial acknowledgement up to 3, which has been sent again already.
    assert dup(b, (7, 10), (4, 6), ack=1 + 3 * MSS) == []
    assert dup(b, (7, 10), ack=1 + 6 * MSS) == []
    assert dup(b, ack=1 + 10 * MSS) == []
    assert b.tcb()["in_recovery"] == 0 and b.tcb()["rexmits"] == 3


def test_recovery_gap_of_several_segments_goes_a_segment_an_acknowledgement():
    b = lossy()  # 0 and 3 to 5 are lost
    for last in (2, 3):
        dup(b, (1, last))
    assert dup(b, (6, 7), (1, 3)) == [0]
    assert dup(b, (6, 8), (1, 3)) == [3]
    assert dup(b, (6, 9), (1, 3)) == [4]
    assert dup(b, (6, 10), (1, 3)) == [5]
    assert dup(b, (6, 10), (1, 3)) == []


def test_recovery_gap_smaller_than_a_segment_is_not_overrun():
    b = lossy()
    for last in (2, 3, 3):
        dup(b, (1, last))
    small = (1 + MSS, 1 + 3 * MSS + 600)
    b.receive(Segment("A", wnd=60000), sack=[(1 + 4 * MSS, 1 + 5 * MSS), small])
    # 0 has gone again, and 3600 to 4000; of 5, what the next interval leaves.
    sent, _ = b.receive(
        Segment("A", wnd=60000), sack=[(1 + 6 * MSS, 1 + 7 * MSS), (1 + 4 * MSS, 1 + 5 * MSS + 300), small]
    )
    assert [(s.seq, s.length) for s in sent if s.seq < 1 + 10 * MSS] == [(1 + 5 * MSS + 300, 700)]
    assert b.tcb()["rexmits"] == 3


def test_recovery_first_of_several_intervals_ends_the_gap():
    b = lossy()
    for last in (2, 3, 3):
        dup(b, (1, last))
    far = [(1 + 8 * MSS, 1 + 9 * MSS), (1 + 6 * MSS, 1 + 7 * MSS)]
    sent, _ = b.receive(Segment("A", wnd=60000), sack=[*far, (1 + 4 * MSS, 1 + 5 * MSS), (1 + MSS, 1 + 3 * MSS + 600)])
    assert (1 + 3 * MSS + 600, 400) in [(s.seq, s.length) for s in sent]


def test_partial_acknowledgement_of_what_was_not_sent_again_repeats_it():
    """NewReno within SACK: RFC 6582 section 3.2, step 5."""
    b = lossy()
    for last in (2, 3, 4):
        sent = dup(b, (1, last))
    assert sent == [0]
    # 4 is missing too, and no block tells of what lies beyond it.
    assert dup(b, ack=1 + 4 * MSS) == [4]


@pytest.mark.parametrize(
    "block",
    [
        (1 - 500, 1 + 500),  # reaches below snd_una
        (1, 1 + MSS),  # begins at snd_una: a duplicate (RFC 2883), or nonsense
        (1 + 9 * MSS, 1 + 11 * MSS),  # beyond snd_max
        (1 + 3 * MSS, 1 + 2 * MSS),  # backwards
        (1 + 3 * MSS, 1 + 3 * MSS),  # empty
        (1 + 2**31, 5 + 2**31),
    ],
)
def test_recovery_impossible_block_is_not_believed(block):
    b = lossy()
    for last in (2, 3, 4):
        dup(b, (1, last))
    before = b.tcb()
    sent, _ = b.receive(Segment("A", wnd=60000), sack=[block])
    assert [s for s in sent if s.length and s.seq < before["snd_max"]] == []
    assert b.tcb()["rexmits"] == before["rexmits"]
    # What is true is believed still.
    assert dup(b, (5, 6), (1, 4)) == [4]


def test_recovery_blocks_of_a_segment_that_is_not_acceptable_are_not_believed():
    b = lossy()
    for last in (2, 3, 4):
        dup(b, (1, last))
    # Neither its sequence number is in the window, nor its acknowledgement number in what was sent.
    for blind in (Segment("A", seq=1 << 20, wnd=60000), Segment("A", ack=1 + 50 * MSS, wnd=60000)):
        b.receive(blind, sack=[(1 + 6 * MSS, 1 + 7 * MSS)])
    assert b.tcb()["rexmits"] == 1
    assert dup(b, (5, 6), (1, 4)) == [4]


def test_blocks_without_permission_are_not_believed():
    b = FlowBench(sack=0)
    b.established(mss=MSS, wnd=60000, sack_ok=True)
    b.bell(0, 10 * MSS)
    for last in (2, 3, 4, 5):
        dup(b, (6, 7), (1, last))
    assert b.tcb()["rexmits"] == 1


def test_timeout_forgets_what_the_peer_had():
    """RFC 2018 section 8: the peer may have dropped it; all goes again, as acknowledgements let it."""
    b = lossy(rto_initial=50, rto_min=20)
    for last in (2, 3, 4):
        dup(b, (1, last))
    assert b.ticks_until_sent(400)
    assert [(s.seq, s.length) for s in b.sent()] == [(1, MSS)]
    sent, _ = b.receive(Segment("A", ack=1 + MSS, wnd=60000))
    assert [(s.seq - 1) / MSS for s in sent] == [1, 2]


def test_board_holds_no_more_than_its_places_and_loses_nothing():
    b = lossy(sent=10)
    for blocks in ([(1, 2)], [(1, 2), (3, 4)], [(5, 6), (3, 4), (1, 2)], [(7, 8), (5, 6), (3, 4), (1, 2)]):
        dup(b, *blocks)
    dup(b, (9, 10), (7, 8), (5, 6), (3, 4))  # a fifth
    told = b.tcb()
    assert told["rexmits"] >= 3
    for ack in (1, 3, 5, 7, 9):
        dup(b, (9, 10), ack=1 + (ack - 1) * MSS)
    dup(b, ack=1 + 10 * MSS)
    assert b.tcb()["snd_una"] == b.tcb()["snd_max"]


def test_gaps_after_two_gibibytes_without_loss_are_filled():
    """high_rxt and rxt_mark, of before, must not seem to lie ahead."""
    b = FlowBench(sack=1, rto_initial=1000)
    at = b.two_gibibytes(sack_ok=True)
    b.bell(0, at + 40_000 & 0xFFFFFFFF)
    una = 1 + at
    for last in (2, 3):
        b.receive(Segment("A", ack=una, wnd=65535), sack=[(una + 4000, una + 4000 * last)])
    blocks = [(una + 16000, una + 20000), (una + 4000, una + 12000)]
    sent = [s for _ in range(2) for s in b.receive(Segment("A", ack=una, wnd=65535), sack=blocks)[0]]
    again = [((s.seq - una) & 0xFFFFFFFF, s.length) for s in sent if s.length]
    assert again == [(0, 4000), (12000, 4000)]


class Receiver:
    """A peer with SACK (RFC 2018 section 4): what it has, and the blocks in the order in which they grew."""

    def __init__(self):
        self.have, self.nxt, self.recent = [], 1, []

    def take(self, start, end):
        """Data [start, end)."""
        merged = [one for one in self.have if one[0] <= end and start <= one[1]]
        block = (min([start, *(a for a, _ in merged)]), max([end, *(z for _, z in merged)]))
        self.have = sorted([one for one in self.have if one not in merged] + [block])
        if self.have[0][0] <= self.nxt:
            self.nxt = max(self.nxt, self.have[0][1])
        self.recent = [block] + [one for one in self.recent if one in self.have and one != block]

    def blocks(self):
        """At most four, the newest first."""
        return [one for one in self.recent if one[0] > self.nxt][:4]


@pytest.mark.parametrize("loss", [0.02, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_lossy_line_only_what_is_missing_goes_again(seed, loss):
    """All arrives, whatever is lost in either direction; but for time-outs nothing goes again that the peer has said it has."""
    rng = random.Random(f"{seed} {loss}")
    print(f"seed {seed}")
    b = FlowBench(sack=1, rto_initial=60, rto_min=30)
    b.established(mss=MSS, wnd=60000, sack_ok=True)
    peer, total, told, wasted, ticks, timeouts = Receiver(), 150 * MSS, [], 0, 0, 0
    flying = b.bell(0, 16000)
    rung = 16000
    while peer.nxt <= total and ticks < 20_000:
        if not flying:
            ticks += 1
            b.ticks(1)
            flying = b.sent()
            timeouts += bool(flying)
            told = [] if flying else told
            continue
        segment = flying.pop(0)
        if not segment.length:
            continue
        start, end = segment.seq, segment.seq + segment.length
        wasted += any(a <= start and end <= z for a, z in told)
        if rng.random() < loss:
            continue
        peer.take(start, end)
        if rng.random() < loss / 2:
            continue
        told = peer.blocks()
        more, _ = b.receive(Segment("A", ack=peer.nxt, wnd=60000), sack=told, settle=150)
        flying += more
        if peer.nxt - 1 + 16000 > rung and rung < total:
            rung = min(total, peer.nxt - 1 + 16000)
            flying += b.bell(0, rung, settle=100)
    print(f"{b.tcb()['rexmits']} segments again, {timeouts} time-outs, {wasted} of what the peer had")
    assert peer.nxt == total + 1
    assert wasted == 0


def quick(rtt=40, sent=5, **timers):
    """``sent`` segments under way, the round trip known; a time-out is far off."""
    b = FlowBench(sack=1, **{"rto_initial": 3000, "rto_min": 2000} | timers)
    b.established(mss=MSS, wnd=60000, sack_ok=True, rtt=rtt)
    b.bell(0, sent * MSS)
    b.sent()
    return b


def test_tail_that_nobody_hears_of_is_probed_after_two_round_trips():
    """RFC 8985 section 7: the last segment goes again; then the time-out, as long as ever."""
    b = quick()
    assert 80 <= b.ticks_until_sent(200) <= 84
    assert [(s.seq, s.length) for s in b.sent()] == [(1 + 4 * MSS, MSS)]
    told = b.tcb()
    assert told["cwnd"] == 10 * MSS and told["rexmt_shift"] == 0 and not told["in_recovery"]
    assert b.ticks_until_sent(1900) is None
    assert b.ticks_until_sent(200)
    assert [(s.seq, s.length) for s in b.sent()] == [(1, MSS)] and b.tcb()["rexmt_shift"] == 1


def test_tail_probe_s_answer_shows_what_was_lost():
    b = quick()
    b.ticks_until_sent(200)
    b.sent()
    assert dup(b, (4, 5)) == []  # one duplicate acknowledgement: perhaps the others come late
    assert 10 <= b.ticks_until_sent(30) <= 13, "a quarter of a round trip"
    assert [(s.seq, s.length) for s in b.sent()] == [(1, MSS)]
    assert b.tcb()["in_recovery"] and b.tcb()["ssthresh"] < 10 * MSS
    assert dup(b, (4, 5), ack=1 + MSS) == [1, 2]  # a partial acknowledgement, and the gap that its block shows
    b.ticks(3)
    assert dup(b, ack=1 + 5 * MSS) == []


@pytest.mark.parametrize("sent", [1, 3])
def test_tail_of_one_segment_may_wait_for_the_delayed_ack(sent):
    """The peer acknowledges every second segment at once, a last one alone after 200 ms at most: RFC 8985 section 7.2."""
    b = quick(sent=sent, rto_initial=3000, rto_min=200)
    if sent == 3:
        b.receive(Segment("A", ack=1 + 2 * MSS, wnd=60000))
    assert b.ticks_until_sent(190) is None


def test_tail_probe_s_time_is_not_put_off_by_what_is_sent_meanwhile():
    """A host that goes on writing: the probe comes two round trips after the first segments, not after the last one."""
    b = quick(sent=2)
    for more in range(3, 9):
        b.ticks(11)
        assert [s.seq for s in b.bell(0, more * MSS)] == [1 + (more - 1) * MSS]
    assert 10 <= b.ticks_until_sent(50) <= 20
    assert [(s.seq, s.length) for s in b.sent()] == [(1 + 7 * MSS, MSS)]


def test_timeout_s_losses_are_not_taken_for_new_ones():
    """A partial acknowledgement behind a time-out shows the next gap: slow start goes on, no second reduction (RFC 6582)."""
    b = lossy(rto_initial=50, rto_min=20)
    while not b.tcb()["rexmt_shift"]:  # the first to come is the tail's probe
        assert b.ticks_until_sent(400)
        b.sent()
    b.receive(Segment("A", ack=1 + 4 * MSS, wnd=60000), sack=[(1 + 5 * MSS, 1 + 10 * MSS)])
    before = b.tcb()
    b.ticks(8)
    after = b.tcb()
    assert not after["in_recovery"] and after["ssthresh"] == before["ssthresh"] and after["cwnd"] == before["cwnd"]


def test_tail_probe_needs_a_sample_since_the_last_one():
    """RFC 8985 section 7.3. The round trip has grown beyond what is known: each flight's probe would come too early, and, as it
    repeats data, its acknowledgement would give no sample (Karn), for ever."""
    b = quick(rtt=5, sent=2)
    assert 10 <= b.ticks_until_sent(100) <= 14  # two round trips of 5
    b.ticks(100)
    b.sent()
    for flight in range(1, 31):
        b.receive(Segment("A", ack=1 + 2 * flight * MSS, wnd=60000))
        b.bell(0, 2 * (flight + 1) * MSS)
        b.sent()
        b.ticks(110)
        if flight == 1:
            assert b.sent() == [], "no probe without a sample"
    assert b.tcb()["srtt"] >> 3 > 80, "it has learned that it is 110"


def test_tail_with_a_fin_is_probed_with_it():
    b = quick(sent=1)
    assert [s.flags for s in b.close(MSS)] == ["AF"]
    b.ticks_until_sent(300)
    (probe,) = b.sent()
    assert "F" in probe.flags and probe.seq + probe.length == 1 + MSS


@pytest.mark.parametrize("known", [False, True], ids=["no sample", "without SACK"])
def test_tail_is_not_probed(known):
    """RFC 8985 section 7.2: without SACK the answer would tell nothing."""
    b = FlowBench(sack=1, rto_initial=300, rto_min=290)
    b.established(mss=MSS, wnd=60000, sack_ok=not known, rtt=40 if known else 0)
    if known:
        b.bell(0, 2 * MSS)
        assert b.ticks_until_sent(250) is None


def test_closed_window_is_probed_by_the_persist_timer_alone():
    b = quick(sent=1)
    b.receive(Segment("A", ack=1 + MSS, wnd=0))
    b.bell(0, 2 * MSS)
    assert b.ticks_until_sent(1500) is None
    assert b.ticks_until_sent(1000)
    assert [(s.seq, s.length) for s in b.sent()] == [(1 + MSS, 1)]


@pytest.mark.parametrize("block", [[], [(2, 3)]], ids=["silence", "a block"])
def test_window_that_closes_while_data_is_under_way_is_probed_after_a_time_out(block):
    """RFC 9293 SHLD-29: neither a tail probe's time nor that of a gap counts for a window."""
    b = quick(sent=3)
    sent, _ = b.receive(
        Segment("A", ack=1 + MSS, wnd=0), sack=[(1 + MSS * first, 1 + MSS * last) for first, last in block]
    )
    assert sent == []
    assert b.ticks_until_sent(1900) is None
    assert b.ticks_until_sent(300)
    assert [(s.seq, s.length) for s in b.sent()] == [(1 + MSS, 1)]


def recovered(b, more=16):
    """The first loss of ten segments is repaired up to where recovery began, and those from 10 to ``more`` are under way."""
    for last in (2, 3, 4):
        dup(b, (1, last))
    b.bell(0, more * MSS)
    for last in range(5, 11):
        dup(b, (1, last))
    dup(b, ack=1 + 10 * MSS)
    b.sent()
    tcb = b.tcb()
    assert not tcb["in_recovery"]
    assert (tcb["snd_max"] - tcb["snd_una"]) % 2**32 == (more - 10) * MSS
    return b


def test_first_segment_behind_a_recovery_is_lost():
    """RFC 6675 section 5.1: HighACK at RecoveryPoint is enough, once the peer tells what it has beyond."""
    b = recovered(lossy())
    for last in (12, 13):
        assert 10 not in dup(b, (11, last), ack=1 + 10 * MSS)
    assert 10 in dup(b, (11, 14), ack=1 + 10 * MSS)
    assert b.tcb()["in_recovery"]


def test_first_segment_behind_a_recovery_is_lost_and_one_told():
    """RFC 8985 section 6.2: fewer than three duplicates, a quarter of a round trip later."""
    b = recovered(quick(sent=10))
    dup(b, (11, 12), ack=1 + 10 * MSS)
    assert b.ticks_until_sent(40) is not None
    assert 1 + 10 * MSS in [s.seq for s in b.sent()] and b.tcb()["rexmt_shift"] == 0


def test_duplicates_behind_a_recovery_that_tell_nothing_repeat_nothing():
    """RFC 6582 section 3.2: they may be what went again without need."""
    b = recovered(lossy())
    for _ in range(4):
        assert 10 not in dup(b, ack=1 + 10 * MSS)
    assert not b.tcb()["in_recovery"]


def test_gap_that_closes_in_time_was_reordering():
    b = quick()
    assert dup(b, (1, 2)) == []
    b.ticks(5)
    assert dup(b, ack=1 + 2 * MSS) == []
    b.ticks(30)
    assert b.sent() == [] and b.tcb()["rexmits"] == 0 and b.tcb()["cwnd"] >= 10 * MSS


def test_window_that_changes_with_every_acknowledgement_hides_no_duplicates():
    """RFC 6675 section 2: a segment with SACK blocks is a duplicate ACK whatever window it tells."""
    b = lossy()
    for last in (2, 3):
        b.receive(Segment("A", wnd=60000 - 100 * last), sack=[(1 + MSS, 1 + MSS * last)])
    sent, _ = b.receive(Segment("A", wnd=50000), sack=[(1 + MSS, 1 + MSS * 4)])
    assert [(s.seq, s.length) for s in sent][:1] == [(1, MSS)]


def test_recovery_what_is_lost_again_goes_again():
    """Its retransmission was lost too: the peer has data that was first sent after it."""
    b = lossy()
    for last in (2, 3):
        dup(b, (1, last))
    assert dup(b, (6, 7), (1, 3)) == [0]
    for last in (8, 9, 10):
        dup(b, (6, last), (1, 3))
    b.bell(0, 12 * MSS)
    new = []
    while not new:  # the window opens by each duplicate acknowledgement
        new = [s for s in dup(b, (6, 10), (1, 3)) if s >= 10]
    before = b.tcb()["rexmits"]
    sent = dup(b, (int(new[0]), int(new[0]) + 1), (6, 10), (1, 3))
    assert 0 in sent and b.tcb()["rexmits"] > before
    for ack in (3, 6, 10, 12):
        sent += dup(b, ack=1 + ack * MSS)
    assert b.tcb()["snd_una"] == b.tcb()["snd_max"]
