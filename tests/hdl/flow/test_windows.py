"""The peer's window: what it grants, from which segments it is taken, probes and silly windows (RFC 9293 section 3.8.6)."""

import pytest

from tests.hdl.flow.bench import M32, FlowBench, FlowOp, Segment, State, Status

AROUND_THE_WRAP = pytest.mark.parametrize("wrap", [-1, 0, 1, 40000])
"""Our sequence number 0 stands so far behind the byte that a test is about."""


def data(sent):
    """(seq, length) of the segments that carry payload."""
    return [(s.seq, s.length) for s in sent if s.length]


def established(wrap=40000, about=1, **fields):
    """An established connection, whose sequence numbers pass 0 ``wrap`` bytes behind the byte ``about``."""
    settings = {"rto_initial": 10, "rto_min": 10, "delack": 2} | {
        name: fields.pop(name) for name in list(fields) if name in ("rto_initial", "rto_min", "rto_max", "delack")
    }
    b = FlowBench(**settings)
    b.iss = -(about + wrap) & M32
    b.established(**fields)
    return b


def probed(wrap=40000, **fields):
    """1,500 bytes wait behind a window of 500 that has been filled and closed; one probe has gone."""
    b = established(wrap, about=501, mss=1000, wnd=500, **fields)
    assert data(b.bell(0, 1500)) == [(1, 500)]
    assert b.receive(Segment("A", ack=501, wnd=0))[0] == []
    assert b.ticks_until_sent(12) is not None
    assert data(b.sent()) == [(501, 1)]
    return b


# --- what is granted


@AROUND_THE_WRAP
def test_probe_not_accepted_delayed_ack_stands_at_snd_una(wrap):
    b = probed(wrap)
    assert b.receive(Segment("A", ack=501, wnd=0, seq=1, length=100))[0] == []
    assert b.ticks_until_sent(5) is not None
    assert [(s.flags, s.seq, s.ack, s.length) for s in b.sent()] == [("A", 501, 101, 0)]


@AROUND_THE_WRAP
def test_probe_not_accepted_acks_of_every_kind_stand_at_snd_una(wrap):
    b = probed(wrap)
    second = [b.receive(Segment("A", ack=501, wnd=0, seq=1 + 100 * k, length=100))[0] for k in range(2)][1]
    ahead, _ = b.receive(Segment("A", ack=501, wnd=0, seq=1001, length=100))
    old, _ = b.receive(Segment("A", ack=501, wnd=0, seq=101, length=100))
    beyond, _ = b.receive(Segment("A", ack=501, wnd=0, seq=40000, length=100))
    challenge, _ = b.receive(Segment("S", seq=300))
    future, _ = b.receive(Segment("A", ack=900, wnd=0, seq=201))
    for sent in (second, ahead, old, beyond, challenge, future):
        assert [(s.flags, s.seq, s.length) for s in sent] == [("A", 501, 0)]


@AROUND_THE_WRAP
def test_probe_not_accepted_window_update_stands_at_snd_una(wrap):
    b = probed(wrap)
    for k in range(16):
        b.receive(Segment("A", ack=501, wnd=0, seq=1 + 1000 * k, length=1000))
    assert [(s.seq, s.ack, s.wnd) for s in b.bell(1, 8000)] == [(501, 16001, 8384)]


@AROUND_THE_WRAP
def test_probe_not_accepted_reset_stands_at_snd_una(wrap):
    b = probed(wrap)
    assert b.request(FlowOp.ABORT) == Status.OK
    assert [(s.flags, s.seq) for s in b.sent()] == [("AR", 501)], "RFC 5961: only there it ends the peer's connection"


@AROUND_THE_WRAP
def test_probe_accepted_acks_stand_behind_it(wrap):
    b = probed(wrap)
    assert b.receive(Segment("A", ack=502, wnd=0))[0] == []
    sent, _ = b.receive(Segment("A", ack=502, wnd=0, seq=101, length=100))
    assert [(s.seq, s.ack, s.length) for s in sent] == [(502, 1, 0)]


def test_probe_accepted_and_its_ack_lost_is_found_out_by_the_next_ack():
    b = probed()
    sent, _ = b.receive(Segment("A", ack=502, wnd=0, seq=1, length=1))  # the peer's own probe, of an open window
    assert sent == [] and b.tcb()["snd_una"] == (b.iss + 502) & M32


@AROUND_THE_WRAP
def test_window_taken_back_acks_stand_at_its_new_edge(wrap):
    b = established(wrap, about=1401, mss=1000, wnd=4000)
    assert data(b.bell(0, 2000)) == [(1, 1000), (1001, 1000)]
    b.receive(Segment("A", ack=1001, wnd=400))
    sent, _ = b.receive(Segment("A", ack=1001, wnd=400, seq=101, length=100))
    assert [(s.seq, s.length) for s in sent] == [(1401, 0)]


def test_window_rounded_down_by_its_scale_is_not_taken_back():
    """RFC 7323 section 2.4: up to a unit of the scale may be granted and not told."""
    b = FlowBench()
    b.syn_sent(rcv_scale=1)
    b.receive(Segment("SA", seq=0, ack=1, wnd=4003, mss=1000, ws=3))
    assert data(b.bell(0, 4003))[-1] == (4001, 3)
    b.receive(Segment("A", ack=1001, wnd=3003 >> 3))
    sent, _ = b.receive(Segment("A", ack=1001, wnd=3003 >> 3, seq=101, length=100))
    assert [(s.seq, s.length) for s in sent] == [(4004, 0)]


@AROUND_THE_WRAP
def test_fin_behind_a_full_window_acks_stand_before_it(wrap):
    b = established(wrap, about=501, mss=1000, wnd=500)
    assert data(b.bell(0, 500)) == [(1, 500)]
    b.receive(Segment("A", ack=501, wnd=0))
    assert [(s.flags, s.seq) for s in b.close(500)] == [("AF", 501)]
    sent, _ = b.receive(Segment("A", ack=501, wnd=0, seq=101, length=100))
    assert [(s.seq, s.length) for s in sent] == [(501, 0)]


@AROUND_THE_WRAP
def test_window_reopens_the_probe_s_byte_goes_with_the_rest(wrap):
    b = probed(wrap)
    sent, _ = b.receive(Segment("A", ack=501, wnd=5000))
    assert data(sent) == [(501, 1000)]
    tcb = b.tcb()
    assert tcb["snd_nxt"] == tcb["snd_max"] == (b.iss + 1501) & M32 and tcb["persist"] == 0
    assert tcb["rexmits"] == 1
    b.ticks(5)
    b.receive(Segment("A", ack=1501, wnd=5000))
    assert not b.tcb()["rtt_valid"] or b.tcb()["srtt"] == 0, "Karn: part of it has gone twice"


@AROUND_THE_WRAP
def test_window_reopens_a_little_the_probe_s_byte_goes_with_what_fits(wrap):
    b = probed(wrap)
    sent, _ = b.receive(Segment("A", ack=501, wnd=30))
    assert data(sent) == [(501, 30)]
    sent, _ = b.receive(Segment("A", ack=502, wnd=29))
    assert data(sent) == []
    assert b.ticks_until_sent(30) is not None
    assert data(b.sent()) == [(502, 29)]


@AROUND_THE_WRAP
def test_window_reopens_the_probe_was_all_there_was(wrap):
    b = established(wrap, about=501, mss=1000, wnd=500)
    b.bell(0, 501)
    b.receive(Segment("A", ack=501, wnd=0))
    assert b.ticks_until_sent(12) is not None
    assert data(b.sent()) == [(501, 1)]
    assert [s.flags for s in b.close(501)] in ([], ["AF"])
    sent, _ = b.receive(Segment("A", ack=501, wnd=5000))
    assert data(sent) == [(501, 1)]


# --- control information of segments whose payload is refused


@AROUND_THE_WRAP
def test_own_window_closed_probe_s_acknowledgement_and_window_are_taken(wrap):
    b = FlowBench(rto_initial=10, rto_min=10)
    b.irs = -(16385 + wrap) & M32
    b.established(mss=1000, wnd=500)
    for k in range(16):
        b.receive(Segment("A", seq=1 + 1024 * k, length=1024, wnd=500))
    assert data(b.bell(0, 1500)) == [(1, 500)]
    sent, verdict = b.receive(Segment("A", seq=16385, length=1, ack=501, wnd=4000))
    assert verdict.length == 0
    assert [(s.seq, s.length, s.ack, s.wnd) for s in sent] == [(501, 1000, 16385, 0)]
    assert b.tcb()["rcv_nxt"] == (b.irs + 16385) & M32


@pytest.mark.parametrize(
    "segment",
    [
        Segment("A", seq=1, length=1000),  # repeated: the ACK of it was lost
        Segment("A", seq=1000, length=1),  # a keep-alive with an octet
        Segment("A", seq=1000),  # and without
        Segment("A", seq=16385, length=1),  # a probe at the edge, before it all is under way
        Segment("A", seq=16386),  # behind it: the peer counts its probe
    ],
)
def test_refused_payload_s_acknowledgement_counts(segment):
    b = established(mss=1000, wnd=8000)
    b.receive(Segment("A", seq=1, length=1000, wnd=8000))
    b.bell(0, 500)
    b.receive(segment.but(ack=501, wnd=7000))
    assert b.report().snd_una_position == 500 and b.tcb()["snd_wnd"] == 7000
    assert b.tcb()["rcv_nxt"] == (b.irs + 1001) & M32 and b.tcb()["ooo_valid"] == 0


@pytest.mark.parametrize("seq", [-70000, 16387, 40000, 1 << 31])
def test_segment_far_outside_acknowledges_nothing(seq):
    b = established(mss=1000, wnd=8000)
    b.bell(0, 500)
    b.receive(Segment("A", seq=seq, length=1, ack=501))
    b.receive(Segment("A", seq=seq, ack=501))
    assert b.report().snd_una_position == 0


def test_fin_acknowledged_by_a_refused_probe():
    b = established(mss=1000, wnd=8000)
    for k in range(16):
        b.receive(Segment("A", seq=1 + 1024 * k, length=1024, wnd=8000))
    b.close()
    b.receive(Segment("A", seq=16385, length=1, ack=2))
    assert b.state() == State.FIN_WAIT_2


@pytest.mark.parametrize("seq", [16386, 16387, 40000])
def test_empty_segment_right_of_the_window_draws_no_ack(seq):
    """No ACK for an ACK: two ends that count their refused probes would never stop."""
    b = established()
    assert b.receive(Segment("A", seq=seq))[0] == []
    assert [s.ack for s in b.receive(Segment("A", seq=seq, length=1))[0]] == [1]
    assert [s.ack for s in b.receive(Segment("A", seq=0))[0]] == [1], "a keep-alive wants its answer"


# --- from which segments the window is taken


@AROUND_THE_WRAP
def test_older_ack_of_a_later_sequence_number_gives_no_window(wrap):
    b = established(wrap, about=1609, mss=536, wnd=2000)
    b.bell(0, 8000)
    b.receive(Segment("A", seq=1, length=100, ack=1609, wnd=392))
    b.receive(Segment("A", seq=101, length=100, ack=1, wnd=2000))
    b.ticks(30)
    assert max(s.seq + s.length for s in b.sent()) <= 2001
    assert b.tcb()["snd_wnd"] == 392 and b.tcb()["rcv_nxt"] == (b.irs + 201) & M32


@AROUND_THE_WRAP
def test_newer_ack_of_an_earlier_sequence_number_gives_its_window(wrap):
    """A repeated segment: SND.UNA without the window that belongs to it would move the edge."""
    b = established(wrap, about=1609, mss=536, wnd=2000)
    b.bell(0, 8000)
    b.receive(Segment("A", seq=101, length=100, ack=1, wnd=2000))
    sent, _ = b.receive(Segment("A", seq=1, length=100, ack=1609, wnd=392))
    assert b.tcb()["snd_wnd"] == 392
    assert max((s.seq + s.length for s in sent), default=0) <= 2001


def test_same_ack_the_later_sequence_number_has_the_window():
    b = established(wnd=2000)
    b.receive(Segment("A", seq=101, length=100, wnd=3000))
    b.receive(Segment("A", seq=1, length=100, wnd=4000))
    assert b.tcb()["snd_wnd"] == 3000
    b.receive(Segment("A", seq=201, wnd=5000))
    assert b.tcb()["snd_wnd"] == 5000
    b.receive(Segment("A", seq=201, wnd=1000))
    assert b.tcb()["snd_wnd"] == 1000


# --- silly windows


def peer_takes_all(b, wnd, ticks, every=None, ack=1, length=0):
    """Acknowledges whatever comes, at once, always with window ``wnd``; returns the bytes taken in ``ticks``. Every so many
    ticks it sends a segment besides, of ``length``."""
    seq, first = 1, ack
    for tick in range(1, ticks + 1):
        b.ticks(1)
        if every and tick % every == 0:
            b.offer(Segment("A", seq=seq, ack=ack, wnd=wnd, length=length))
            seq += length
            b.cycles(200)
        while got := data(b.sent()):
            for at, size in got:
                assert at + size <= ack + wnd, "never beyond the window"
                ack = max(ack, at + size)
            b.offer(Segment("A", seq=seq, ack=ack, wnd=wnd))
            b.cycles(200)
    return ack - first


@pytest.mark.parametrize("before, after", [(8192, 1000), (600, 100), (8192, 1), (8192, 1459), (8192, 700)])
def test_peer_s_window_smaller_for_good_all_of_it_is_used(before, after):
    b = established(wnd=before, mss=1460)
    b.bell(0, before)
    b.receive(Segment("A", ack=1 + before, wnd=after))
    b.bell(0, before + 8000)
    taken = peer_takes_all(b, after, 100, ack=1 + before)
    assert taken >= min(8000, after * 40), "the override once, then a window for each ACK"


def test_override_sends_what_the_window_holds():
    b = established(wnd=8192, mss=1460)
    b.receive(Segment("A", wnd=1000))
    assert b.bell(0, 5000) == []
    waited = b.ticks_until_sent(20)
    assert 9 <= waited <= 12 and data(b.sent()) == [(1, 1000)]
    tcb = b.tcb()
    assert tcb["persist"] == 0 and tcb["rexmt_shift"] == 0, "what went is data like any other"


@pytest.mark.parametrize("after", [1000, 3])
def test_peer_that_sends_does_not_hold_up_the_override(after):
    b = established(wnd=8192, mss=1460)
    b.receive(Segment("A", wnd=after))
    b.bell(0, 8000)
    assert peer_takes_all(b, after, 100, every=1, length=10) >= min(8000, 40 * after)


def test_window_that_closes_and_opens_a_little_does_not_hold_up_the_timer():
    b = established(wnd=8192, mss=1460)
    b.receive(Segment("A", wnd=0))
    b.bell(0, 8000)
    out = []
    for k in range(60):
        b.receive(Segment("A", wnd=0 if k % 2 else 300))
        b.ticks(1)
        out += data(b.sent())
    assert out and max(at + size for at, size in out) <= 301


def test_window_reopened_a_little_after_long_probing_waits_for_one_timeout_only():
    b = established(wnd=8192, mss=1460, rto_max=1000)
    b.receive(Segment("A", wnd=0))
    b.bell(0, 8000)
    for _ in range(4):
        assert b.ticks_until_sent(200) is not None
        assert data(b.sent()) == [(1, 1)]
        b.receive(Segment("A", wnd=0))
    b.receive(Segment("A", ack=2, wnd=300))
    assert 9 <= b.ticks_until_sent(20) <= 12
    assert data(b.sent()) == [(2, 300)]


def test_override_lost_is_retransmitted_like_any_data():
    b = established(wnd=8192, mss=1460)
    b.receive(Segment("A", wnd=1000))
    b.bell(0, 5000)
    assert b.ticks_until_sent(20) is not None
    assert data(b.sent()) == [(1, 1000)]
    assert b.ticks_until_sent(30) is not None
    assert data(b.sent()) == [(1, 1000)]
    sent, _ = b.receive(Segment("A", ack=1001, wnd=1000))
    assert data(sent) == [(1001, 1000)]


@AROUND_THE_WRAP
@pytest.mark.parametrize("log2", [10, 11, 12])
def test_small_rings_both_windows_closed_and_both_go_on(log2, wrap):
    """Rings of less than one segment to less than three: what waits on both sides crosses when both hosts read."""
    ring = 1 << log2
    b = FlowBench(rto_initial=10, rto_min=10, delack=2)
    b.iss, b.irs = -(ring + 1 + wrap) & M32, -(ring + 1 + wrap) & M32
    assert b.provision(snd_log2=log2, rcv_log2=log2) == Status.OK
    b.request(FlowOp.OPEN, a=b.iss, mss=1460)
    b.receive(Segment("SA", seq=0, ack=1, wnd=ring, mss=1460))
    ours = theirs = 0  # bytes that the other side has
    b.bell(0, ring)
    while theirs < ring:  # the peer fills our ring and takes what fits its own, which nobody reads
        length = min(1460, ring - theirs)
        b.receive(Segment("A", seq=1 + theirs, length=length, ack=1 + ours, wnd=ring - ours))
        theirs += length
        ours = ring
    b.receive(Segment("A", seq=1 + theirs, ack=1 + ring, wnd=0))
    assert b.report().snd_una_position == ring
    b.ticks(3)
    b.sent()  # a delayed ACK, maybe
    assert data(b.bell(0, 2 * ring)) == []
    for wait in (10, 20, 40):  # probes of both sides, for a while
        assert wait - 1 <= b.ticks_until_sent(50) <= wait + 1
        assert data(b.sent()) == [(1 + ring, 1)]
        assert b.receive(Segment("A", seq=1 + ring, ack=1 + ring, wnd=0))[0] == [], "no ACK for an ACK"
        sent, verdict = b.receive(Segment("A", seq=1 + ring, length=1, ack=1 + ring, wnd=0))
        assert [(s.seq, s.ack, s.wnd, s.length) for s in sent] == [(1 + ring, 1 + ring, 0, 0)] and verdict.length == 0
    assert [(s.seq, s.wnd) for s in b.bell(1, ring)] == [(1 + ring, ring)]
    sent, _ = b.receive(Segment("A", seq=1 + ring, ack=1 + ring, wnd=ring))
    assert data(sent)[0] == (1 + ring, min(1460, ring)) and sum(s.length for s in sent) == ring
    _, verdict = b.receive(Segment("A", seq=1 + ring, length=min(1460, ring), ack=1 + 2 * ring, wnd=ring))
    assert verdict.length == min(1460, ring) and b.report().snd_una_position == 2 * ring


@pytest.mark.parametrize("wnd, length, blocks", [(1460, 1460, 0), (2919, 1460, 0), (2920, 1448, 1)])
def test_established_one_segment_s_window_is_used_whole_though_there_is_something_to_tell(wnd, length, blocks):
    """Blocks shorten a segment; the rest of such a window, some bytes, is all that Linux would offer from then on. They have been
    told when their data came."""
    b = FlowBench(sack=1)
    b.established(wnd=wnd, mss=1460, sack_ok=True)
    told, _ = b.receive(Segment(seq=1001, length=100, wnd=wnd))
    assert [(s.length, s.sacks) for s in told] == [(0, 1)]
    sent = b.bell(0, 5000)
    assert (sent[0].length, sent[0].sacks) == (length, blocks)
    told, _ = b.receive(Segment(seq=1201, length=100, ack=1, wnd=wnd))
    assert told[-1].sacks == 2, "without data they are told"
