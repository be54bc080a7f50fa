"""Timestamps in the pipeline: negotiation, PAWS, TS.Recent, round-trip times (RFC 7323 sections 3 to 5)."""

import pytest

from tests.hdl.flow.bench import FlowBench, FlowOp, Segment, State, Status
from tiptoe_hdl.config import TINY

STAMPED = TINY.with_(name="stamped", timestamps=True)
HALF = 1 << 31
M32 = 0xFFFFFFFF
PEER = 0xFFFFFFF0
"""The peer's clock, next to wrap-around."""
MSS = 1012
PAYLOAD = MSS - 12
"""RFC 6691: of the MSS the options are taken off."""


def bench(**settings):
    return FlowBench(STAMPED, **{"timestamps": 1, "sack": 1} | settings)


def established(tsval=PEER, rtt=0, mss=MSS, sack_ok=False, **settings):
    """An active open that agreed on timestamps."""
    b = bench(**settings)
    assert b.syn_sent().stamped
    b.ticks(rtt)
    sent, _ = b.receive(Segment("SA", seq=0, wnd=30000, mss=mss, sack_ok=sack_ok, stamp=(tsval, rtt)))
    assert [(s.flags, s.stamped) for s in sent] == [("A", True)]
    return b


# Negotiation, section 3.2.


@pytest.mark.parametrize("ours", [0, 1])
@pytest.mark.parametrize("peers", [0, 1])
def test_active_open_has_timestamps_if_both_syns_have(ours, peers):
    b = bench(timestamps=ours)
    assert b.syn_sent().stamped == bool(ours)
    stamp = (PEER, 0) if peers else None
    sent, _ = b.receive(Segment("SA", seq=0, wnd=8192, mss=MSS, stamp=stamp))
    agreed = bool(ours and peers)
    assert [s.stamped for s in sent] == [agreed] and b.tcb()["ts_ok"] == agreed
    assert b.bell(0, 3000)[0].length == (PAYLOAD if agreed else MSS)
    assert b.report().mss == MSS, "as the SYNs count it"
    assert b.stamp() == (PEER if agreed else None)


@pytest.mark.parametrize("agreed", [0, 1])
def test_passive_open_has_what_the_listen_unit_agreed_upon(agreed):
    b = bench()
    assert b.provision() == Status.OK
    assert (
        b.request(FlowOp.ACCEPT, port=1, a=b.iss, b=b.irs, mss=MSS, wnd=8192, ts_present=agreed, elapsed=7,
                  tsval=PEER - 1) == Status.OK
    )  # fmt: skip
    assert b.stamp() == (PEER - 1 if agreed else None), "the SYN's"
    b.receive(Segment("A", wnd=8192, stamp=(PEER, 7) if agreed else None))
    assert b.state() == State.ESTABLISHED and b.tcb()["ts_ok"] == agreed
    assert b.tcb()["srtt"] == 7 * 8
    assert b.stamp() == (PEER if agreed else None)
    sent = b.bell(0, 3000)
    assert sent[0].length == (PAYLOAD if agreed else MSS) and sent[0].stamped == bool(agreed)
    assert b.report().mss == MSS


def test_passive_open_by_data_behind_a_gap_echoes_the_syn():
    """Section 4.3 (1): TS.Recent is the SYN's until something comes in order: ACK and first segment are lost."""
    b = bench()
    assert b.provision() == Status.OK
    assert b.request(FlowOp.ACCEPT, port=1, a=b.iss, b=b.irs, mss=MSS, wnd=8192, ts_present=1, tsval=PEER) == Status.OK
    sent, _ = b.receive(Segment("A", seq=1 + PAYLOAD, length=PAYLOAD, wnd=8192, stamp=(PEER + 20, 0)))
    assert [(s.flags, s.ack, s.stamped) for s in sent] == [("A", 1, True)] and b.stamp() == PEER
    b.receive(Segment("A", length=PAYLOAD, wnd=8192, stamp=(PEER - 1, 0)))
    assert b.tcb()["rcv_nxt"] == (b.irs + 1) & M32, "PAWS: before the SYN"
    b.receive(Segment("A", length=PAYLOAD, wnd=8192, stamp=(PEER + 10, 0)))
    assert b.tcb()["rcv_nxt"] == (b.irs + 1 + 2 * PAYLOAD) & M32 and b.stamp() == (PEER + 10) & M32


def test_simultaneous_open_agrees_on_timestamps():
    b = bench()
    b.syn_sent()
    sent, _ = b.receive(Segment("S", seq=0, ack=0, mss=MSS, stamp=(PEER, 0)))
    assert [(s.flags, s.stamped) for s in sent] == [("SA", True)]
    b.receive(Segment("SA", seq=0, wnd=8192, mss=MSS, stamp=(PEER + 3, 0)))
    assert b.state() == State.ESTABLISHED
    assert b.bell(0, 3000)[0].length == PAYLOAD


def test_refused_syn_ack_agrees_on_nothing():
    """One that acknowledges something else says nothing of the MSS either."""
    b = bench()
    b.syn_sent(mss=1460)
    sent, _ = b.receive(Segment("SA", seq=0, ack=77, mss=600, stamp=(PEER, 0)))
    assert [(s.flags, s.stamped) for s in sent] == [("R", False)]
    b.receive(Segment("SA", seq=0, wnd=8192, mss=1460))
    assert not b.tcb()["ts_ok"] and b.tcb()["maxseg"] == 1460


def test_each_life_of_an_id_begins_without_a_timestamp():
    b = established()
    assert b.stamp() == PEER
    b.receive(Segment("R", stamp=None))
    assert b.request(FlowOp.RELEASE) == Status.OK
    b.syn_sent()
    assert b.stamp() is None


@pytest.mark.parametrize("mss, asked, sent", [(1012, 800, 788), (1460, 1460, 1448), (1460, 900, 888)])
def test_path_mtu_counts_as_the_mss_does(mss, asked, sent):
    b = established(mss=mss)
    assert b.request(FlowOp.PATH_MTU, mss=asked) == Status.OK
    assert b.bell(0, 5000)[0].length == sent and b.report().mss == asked


def test_path_mtu_before_the_syn_is_answered_counts_once():
    b = bench(rto_initial=10)
    b.syn_sent(mss=1460)
    assert b.request(FlowOp.PATH_MTU, mss=800) == Status.OK
    b.ticks_until_sent(20)
    (again,) = b.sent()
    assert (again.flags, again.mss) == ("S", 800)
    b.receive(Segment("SA", seq=0, wnd=8192, mss=1460, stamp=(PEER, 0)))
    assert b.bell(0, 5000)[0].length == 788 and b.report().mss == 800


def test_every_kind_of_segment_carries_them():
    b = established(rto_min=10, rto_initial=10, delack=5)
    (data, *_) = b.bell(0, 100)
    assert data.stamped
    b.ticks_until_sent(100)
    (again,) = b.sent()
    assert again.stamped and again.length == 100
    b.receive(Segment("A", ack=101, wnd=0, stamp=(PEER, 0)))
    b.bell(0, 200)
    b.ticks_until_sent(200)
    (probe,) = b.sent()
    assert probe.stamped and probe.length == 1
    b.request(FlowOp.KEEPALIVE)
    assert [(s.length, s.stamped) for s in b.sent()] == [(0, True)]
    sent, _ = b.receive(Segment("S", seq=1, ack=0, stamp=(PEER, 0)))  # RFC 5961: a challenge
    assert [(s.flags, s.stamped) for s in sent] == [("A", True)]
    b.receive(Segment("A", ack=101, wnd=8192, stamp=(PEER, 0)))
    b.sent()
    (*_, fin) = b.close(200)
    assert "F" in fin.flags and fin.stamped
    sent, _ = b.receive(Segment("FA", ack=202, wnd=8192, stamp=(PEER, 0)))
    assert [(s.flags, s.stamped) for s in sent] == [("A", True)] and b.state() == State.TIME_WAIT
    sent, _ = b.receive(Segment("FA", ack=202, wnd=8192, stamp=(PEER, 0)))
    assert [(s.flags, s.stamped) for s in sent] == [("A", True)]


def test_abort_carries_them_and_an_answer_to_nobody_does_not():
    b = established()
    b.request(FlowOp.ABORT)
    assert [(s.flags, s.stamped) for s in b.sent()] == [("AR", True)]
    sent, _ = b.receive(Segment("A", stamp=(PEER, 0)))
    assert [(s.flags, s.stamped) for s in sent] == [("R", False)]


def test_beside_timestamps_three_blocks_have_room():
    """40 bytes of options: 12, and 4 + 3 * 8 (RFC 2018 section 3)."""
    b = established(sack_ok=True)
    for number in range(4):
        sent, _ = b.receive(Segment("PA", seq=1001 + 2000 * number, length=500, stamp=(PEER, 0)))
    assert [s.sacks for s in sent] == [3]
    # Now in turns, which do not see the intervals.
    (first, *rest) = b.bell(0, 5 * (PAYLOAD - 28))
    assert {s.sacks for s in (first, *rest)} == {3} and {s.length for s in (first, *rest)} == {PAYLOAD - 28}


# TS.Recent, section 4.3.


def test_segment_that_moves_the_acknowledgement_is_echoed():
    b = established()
    b.receive(Segment("PA", length=100, stamp=(PEER + 20, 0)))
    assert b.stamp() == (PEER + 20) & M32


def test_delayed_acknowledgement_echoes_the_first_segment():
    """Section 4.3, A: Last.ACK.sent lies before the second one."""
    b = established(delack=1000)
    b.receive(Segment("A", length=100, stamp=(PEER + 20, 0)))
    b.sent()
    sent, _ = b.receive(Segment("A", seq=101, length=1, stamp=(PEER + 30, 0)))
    assert b.stamp() == (PEER + 20) & M32
    if not sent:
        b.receive(Segment("A", seq=102, length=100, stamp=(PEER + 30, 0)))
    assert b.stamp() == (PEER + 20) & M32


def test_gap_is_echoed_by_what_came_before_it():
    """Section 4.3, B: segments behind a gap don't move it, the one that fills it does."""
    b = established()
    b.receive(Segment("PA", seq=101, length=100, stamp=(PEER + 20, 0)))
    assert b.stamp() == PEER
    b.receive(Segment("PA", seq=1, length=100, stamp=(PEER + 40, 0)))
    assert b.stamp() == (PEER + 40) & M32


def test_pure_acknowledgements_move_it_too():
    b = established()
    b.bell(0, 100)
    b.receive(Segment("A", ack=101, wnd=8192, stamp=(PEER + 5, 0)))
    assert b.stamp() == (PEER + 5) & M32


@pytest.mark.parametrize(
    "segment",
    [
        Segment("PA", seq=1, ack=5000, length=10),  # acknowledges what was never sent
        Segment("PA", seq=60000, length=10),  # outside of the window
        Segment("A", seq=0),  # a keepalive
        Segment("R", seq=5),
        Segment("S", seq=1, ack=0),
    ],
    ids=["future acknowledgement", "outside", "keepalive", "reset", "SYN"],
)
def test_what_is_not_taken_does_not_move_it(segment):
    b = established()
    b.receive(segment.but(stamp=(PEER + 1000, 0)))
    assert b.stamp() == PEER


# PAWS, section 5.


@pytest.mark.parametrize("behind, taken", [(0, True), (1, False), (HALF - 1, False), (HALF + 1, True), (-1, True)])
@pytest.mark.parametrize("recent", [PEER, 5, HALF])
def test_older_segment_is_not_taken_and_answered(behind, taken, recent):
    b = established(tsval=recent)
    sent, verdict = b.receive(Segment("PA", length=100, stamp=(recent - behind, 0)))
    assert verdict.length == (100 if taken else 0)
    b.ticks(60)
    sent += b.sent()
    assert [s.flags for s in sent] == ["A"] and sent[0].ack == (101 if taken else 1)


@pytest.mark.parametrize("flags, length", [("A", 0), ("A", 10), ("FA", 0), ("S", 0)])
def test_all_that_is_old_is_dropped_but_a_reset(flags, length):
    b = established()
    b.bell(0, 100)
    before = b.tcb()
    b.receive(Segment(flags, ack=101, wnd=1, length=length, stamp=(PEER - 1, 0)))
    after = b.tcb()
    assert all(after[name] == before[name] for name in ("snd_una", "snd_wnd", "rcv_nxt", "state")) and b.stamp() == PEER


def test_reset_is_exempt():
    """Section 5.2: whatever its timestamp."""
    b = established()
    b.receive(Segment("R", stamp=(PEER - 1000, 0)))
    assert b.state() == State.CLOSED


def test_answers_to_old_segments_are_limited():
    """Section 5.3: acknowledged "as specified in RFC 793", within RFC 5961's limits: blind segments draw no flood, and two who
    take each other for old fall silent."""
    b = established(invalid=100)
    sent = [b.receive(Segment("PA", length=100, stamp=(PEER - 1, 0)))[0] for _ in range(5)]
    assert [len(s) for s in sent] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("flags, behind, counts", [("PA", 1, 1), ("S", 1, 1), ("PA", 0, 0), ("R", 1, 0)])
def test_old_segments_are_counted(flags, behind, counts):
    """As FreeBSD's tcps_pawsdrop."""
    b = established()
    b.offer(Segment(flags, length=10 if flags == "PA" else 0, stamp=(PEER - behind, 0)))
    b.sim.step(100, until=["count_old_timestamps"])
    assert b.sim["count_old_timestamps"] == counts


def test_segment_without_the_option_is_taken():
    """Section 3.2 says SHOULD drop, and MUST NOT abort: what lost its options on the way would freeze the connection."""
    b = established()
    _, verdict = b.receive(Segment("PA", length=100))
    assert verdict.length == 100 and b.stamp() == PEER


def test_timestamps_are_ignored_where_there_are_none():
    b = bench(timestamps=0)
    b.established()
    for tsval in (1000, 5):
        _, verdict = b.receive(Segment("PA", seq=b.tcb()["rcv_nxt"] - b.irs & M32, length=10, stamp=(tsval, 0)))
        assert verdict.length == 10
    assert b.stamp() is None


@pytest.mark.parametrize("idle, taken", [(HALF - (1 << 24) - 10, False), (HALF, True), (2 * HALF - (1 << 24), True)])
def test_after_24_days_any_timestamp_begins_anew(idle, taken):
    """Section 5.5: 2^31 ticks, known to 2^24 of them; a comparison that has wrapped holds up nothing for good."""
    b = established()
    b.ts_now = b.sim["ts_now"] = (b.ts_now + idle) & M32
    _, verdict = b.receive(Segment("PA", length=100, stamp=(PEER - 5, 0)))
    assert (verdict.length == 100) == taken
    assert b.stamp() == ((PEER - 5) & M32 if taken else PEER)


# Round-trip times, section 4.


def test_handshake_and_data_are_measured_by_the_echo():
    b = established(rtt=30)
    assert (b.tcb()["srtt"], b.tcb()["rttvar"]) == (30 * 8, 15 * 4)
    b.bell(0, 100)
    b.ticks(46)
    b.receive(Segment("A", ack=101, wnd=8192, stamp=(PEER, 38)))  # delayed by 8 ticks
    assert b.tcb()["srtt"] == 30 * 8 + 8


def test_repeated_syn_is_measured():
    """Section 4: which of the SYNs was acknowledged the echo says."""
    b = bench(rto_initial=100)
    b.syn_sent()
    assert b.ticks_until_sent(150)
    b.sent()
    b.ticks(20)
    b.receive(Segment("SA", seq=0, wnd=8192, mss=MSS, stamp=(PEER, 20)))
    assert b.tcb()["srtt"] == 20 * 8


def test_repeated_syn_that_loses_the_option_is_not_measured():
    b = bench(rto_initial=100)
    b.syn_sent()
    assert b.ticks_until_sent(150)
    b.ticks(20)
    b.receive(Segment("SA", seq=0, wnd=8192, mss=MSS))
    assert not b.tcb()["rtt_valid"]


def test_repeated_syn_ack_is_measured():
    b = bench()
    b.provision()
    b.request(
        FlowOp.ACCEPT, port=1, a=b.iss, b=b.irs, mss=MSS, wnd=8192, ts_present=1, tsval=PEER, elapsed=0xFFF, repeats=2
    )
    b.receive(Segment("A", wnd=8192, stamp=(PEER, 33)))
    assert b.tcb()["srtt"] == 33 * 8


def time_out_three_times(b):
    """What is under way goes again and again, each time after twice as long."""
    for _ in range(3):
        assert b.ticks_until_sent(1000)
        b.sent()


def test_backed_off_time_out_ends_with_a_sample_of_what_went_again():
    """RFC 6298 section 5.7 and RFC 7323 section 4.1: no ambiguity, so no Karn."""
    b = established(rtt=20, rto_min=50, sack=0)
    b.bell(0, 100)
    time_out_three_times(b)
    assert b.tcb()["rto"] == 8 * (20 + 4 * 10)
    b.ticks(22)
    b.receive(Segment("A", ack=101, wnd=8192, stamp=(PEER, 22)))
    assert b.tcb()["rto"] < 100 and b.tcb()["rtt_valid"]


def test_partial_acknowledgement_behind_a_time_out_is_a_sample():
    b = established(rtt=20, rto_min=50)
    b.bell(0, 3 * PAYLOAD)
    time_out_three_times(b)
    b.receive(Segment("A", ack=1 + PAYLOAD, wnd=8192, stamp=(PEER, 25)))
    assert b.tcb()["rto"] < 100


def test_what_goes_again_upon_a_sample_behind_a_time_out_waits_no_longer_than_that_says():
    """RFC 6298 section 5.3: "for the current value of RTO"."""
    b = established(rtt=20, rto_min=50, sack_ok=True, rexmt_max=15)
    b.bell(0, 3 * PAYLOAD)
    b.ticks_until_sent(1000)
    while b.tcb()["rto"] < 1000:
        b.sent()
        assert b.ticks_until_sent(1000)
    b.sent()
    sent, _ = b.receive(Segment("A", ack=1 + PAYLOAD, wnd=8192, stamp=(PEER, 25)))
    assert sum(s.length for s in sent) == 2 * PAYLOAD and b.tcb()["rto"] < 100
    assert b.ticks_until_sent(100) is not None, "they were lost, too"


def test_without_the_option_a_backed_off_time_out_ends_as_on_a_connection_without():
    """RFC 6298 section 5.7, and Karn's algorithm: of what went again such an acknowledgement tells nothing."""
    b = established(rtt=20, rto_min=50, sack=0)
    b.bell(0, 100)
    time_out_three_times(b)
    backed_off = b.tcb()["rto"]
    b.ticks(20)
    b.receive(Segment("A", ack=101, wnd=8192))
    assert b.tcb()["rto"] == backed_off
    b.bell(0, 200)
    b.ticks(20)
    b.receive(Segment("A", ack=201, wnd=8192))
    assert b.tcb()["rto"] < 100 and b.tcb()["srtt"] == 20 * 8


@pytest.mark.parametrize("age", [-1, -1000, 60001, HALF, HALF - 1, 1 << 20, (1 << 20) + 30])
def test_echo_of_what_was_never_sent_or_not_for_long_is_no_sample(age):
    """A peer that lies neither lowers nor raises the time-out; the next honest echo counts."""
    b = established(rtt=30)
    b.bell(0, 100)
    before = {name: b.tcb()[name] for name in ("srtt", "rttvar", "rto")}
    b.receive(Segment("A", ack=101, wnd=8192, stamp=(PEER, age)))
    assert {name: b.tcb()[name] for name in before} == before
    b.bell(0, 200)
    b.ticks(38)
    b.receive(Segment("A", ack=201, wnd=8192, stamp=(PEER, 38)))
    assert b.tcb()["srtt"] == 30 * 8 + 8


def test_one_sample_a_round_trip():
    """RFC 7323 appendix G: RFC 6298's gains are for one; of the others of the window none counts."""
    b = established(rtt=32)
    b.bell(0, 4 * PAYLOAD)
    for number in range(1, 5):
        b.receive(Segment("A", ack=1 + number * PAYLOAD, wnd=30000, stamp=(PEER, 40)))
    assert b.tcb()["srtt"] == 32 * 8 + 8


def test_closed_window_and_keepalive_do_not_measure():
    b = established(rtt=30)
    b.request(FlowOp.KEEPALIVE)
    b.receive(Segment("A", wnd=8192, stamp=(PEER, 5)))
    assert b.tcb()["srtt"] == 30 * 8


def test_what_came_twice_and_the_list_leave_room_for_timestamps():
    """RFC 2883 beside RFC 7323: three blocks fit."""
    b = established(sack_ok=True)
    for k in range(4):
        b.receive(Segment(seq=1001 + 1000 * k, length=500, stamp=(PEER, 0)))
    sent, _ = b.receive(Segment(seq=3001, length=500, stamp=(PEER, 0)))
    assert [(s.ack, s.twice, s.sacks, s.stamped) for s in sent] == [(1, (3001, 3501), 3, True)]
