"""Urgent data: RFC 9293 sections 3.8.5, 3.10.2 (SEND) and 3.10.7.4 sixth; RFC 6093: the pointer names the octet behind it."""

import pytest

from tests.hdl.flow.bench import FlowBench, FlowOp, Segment, State, Status


@pytest.fixture
def b():
    bench = FlowBench()
    yield bench
    bench.sim.close()


U = Segment("AU", urgent=5)

# --- what the peer says


@pytest.mark.parametrize(
    ("segment", "up"),
    [
        (U.but(length=5), 6),
        (U, 6),  # the data is yet to come
        (U.but(length=5, urgent=65535), 65536),  # far beyond the window
        (U.but(seq=101, length=5, urgent=1), 102),  # out of order
        (U.but(seq=101, length=5, urgent=0), 101),  # ends where the segment begins: not there yet
        (U.but(seq=16385, urgent=7), 16392),  # empty, at the right edge of the window
        (U.but(length=5, urgent=0), None),  # nothing urgent
        (Segment("A", length=5, urgent=5), None),  # no URG
        (U.but(seq=0, length=1, urgent=1), None),  # old data, all of it read
        (U.but(flags="U", length=5), None),  # no ACK: dropped
        (U.but(ack=1000, length=5), None),  # not acceptable: acknowledges what was not sent
        (U.but(seq=20000, length=5), None),  # outside the window
        (U.but(seq=1 - 3000, length=5, urgent=4000), None),  # left of the window: old, and cannot say anything new
        (U.but(flags="ASU", length=5), None),
    ],
    ids=lambda value: (
        f"{value.flags}_{value.seq}_{value.length}_{value.urgent}" if isinstance(value, Segment) else None
    ),
)
def test_rcv_up_is_the_octet_behind_the_urgent_data(b, segment, up):
    b.established()
    b.receive(segment)
    assert b.rcv_up() == up


def test_rcv_up_only_advances_and_stays_when_data_has_passed_it(b):
    b.established()
    for segment, up in (
        (U.but(length=10, urgent=20), 21),
        (U.but(seq=11, length=10, urgent=5), 21),  # behind the greater one
        (U.but(seq=21, length=10, urgent=0), 21),
        (Segment("A", seq=31, length=100), 21),  # nothing urgent any more; a report that comes late still tells it
        (U.but(seq=131, length=1, urgent=1), 132),
    ):
        b.receive(segment)
        assert b.rcv_up() == up


def test_a_sequence_of_urgent_data_of_any_length(b):
    b.established()
    for k in range(40):
        b.receive(U.but(seq=1 + 1460 * k, length=1460, urgent=65535))
        assert b.rcv_up() == (1 + 1460 * k + 65535)
        b.bell(1, 1460 * (k + 1))


def test_the_host_is_told_of_every_advance_and_of_nothing_else(b):
    b.established()

    def told(segment):
        _, verdict = b.receive(segment)
        return verdict.notify

    assert told(U.but(urgent=5))
    assert not told(U.but(urgent=5))
    assert not told(U.but(urgent=4))
    assert told(U.but(urgent=6))
    assert not told(Segment("A"))


def test_a_flood_of_pointers_is_one_snapshot(b):
    b.established()
    for k in range(200):
        b.offer(U.but(urgent=1 + k))
    b.cycles(400)
    assert b.rcv_up() == 201


@pytest.mark.parametrize("length", [0, 1, 100])
def test_must_66_urg_counts_with_the_window_closed(b, length):
    b.established()
    for k in range(16):
        b.receive(Segment("A", seq=1 + 1024 * k, length=1024))
    sent, verdict = b.receive(U.but(seq=16385, length=length, urgent=1000))
    assert verdict.length == 0
    assert b.rcv_up() == 17385
    assert all(s.wnd == 0 for s in sent)


def test_a_segment_left_of_the_window_says_nothing_even_if_its_acknowledgement_counts(b):
    b.established()
    b.bell(0, 100)
    b.receive(Segment("A", length=1000))
    b.receive(U.but(seq=1, ack=101, length=10, urgent=2000))
    assert b.rcv_up() is None and b.report().snd_una_position == 100


@pytest.mark.parametrize(("urgent", "up"), [(0, None), (1, None), (2, 2), (5, 5)])
def test_urg_on_a_syn_ack_counts_from_the_syn(b, urgent, up):
    b.syn_sent()
    b.receive(Segment("SAU", seq=0, ack=1, mss=1460, urgent=urgent))
    assert b.state() == State.ESTABLISHED and b.rcv_up() == up


def test_urg_on_a_syn_is_ignored(b):
    b.syn_sent()
    b.receive(Segment("SU", seq=0, ack=0, mss=1460, urgent=100))
    assert b.state() == State.SYN_RECEIVED and b.rcv_up() is None


def test_urg_on_the_ack_that_establishes_an_accepted_connection(b):
    assert b.provision() == Status.OK
    assert b.request(FlowOp.ACCEPT, port=1, a=b.iss, b=b.irs, mss=1460, wnd=8192, syncache_ref=3) == Status.OK
    b.receive(U.but(length=5))
    assert b.state() == State.ESTABLISHED and b.rcv_up() == 6


def test_urgent_then_fin_and_nothing_behind_it(b):
    b.established()
    b.receive(U.but(flags="AFU", length=5))
    assert b.state() == State.CLOSE_WAIT and b.rcv_up() == 6
    b.receive(U.but(seq=7, urgent=100))
    assert b.rcv_up() == 6


def test_rcv_up_ends_with_the_connection(b):
    b.established()
    b.receive(U)
    b.request(FlowOp.ABORT)
    assert b.request(FlowOp.RELEASE) == Status.OK
    b.established()
    assert b.rcv_up() is None


def test_rcv_up_is_kept_for_a_ring_and_then_forgotten():
    """Of what a ring holds the host may not have heard; half of the modulus later a pointer would seem to lie ahead."""
    b = FlowBench()
    assert b.provision(rcv_log2=24) == Status.OK
    b.request(FlowOp.OPEN, a=b.iss, mss=1460, rcv_scale=14)
    b.receive(Segment("SA", seq=0, ack=1, mss=1460, ws=0))
    b.receive(U.but(length=4, urgent=4))
    at, told = 4, []
    for end in ((1 << 24) - 4000, (1 << 25) + 20_000):
        while at < end:
            b.offer(Segment("A", seq=1 + at, length=4000))
            b.sim.step(20)
            at += 4000
            if at > 1 << 20:
                b.put("doorbell", dict(id=1, which=1, position=at - (1 << 20)))
        b.cycles(100)
        assert b.report().rcv_nxt_position == at
        told.append(b.rcv_up())
    b.sim.close()
    assert told == [5, None]


# --- what we say


def test_urgent_data_goes_with_urg_and_the_octet_behind_it(b):
    b.established()
    (sent,) = b.urgent(10)
    assert (sent.flags, sent.seq, sent.length, sent.urgent) == ("APU", 1, 10, 10)


def test_every_segment_before_snd_up_says_so_and_none_behind_it(b):
    b.established(mss=1000)
    assert [(s.seq, s.length, s.urgent, "U" in s.flags) for s in b.urgent(2500)] == [
        (1, 1000, 2500, True), (1001, 1000, 1500, True), (2001, 500, 500, True),
    ]  # fmt: skip
    assert [(s.seq, s.urgent, "U" in s.flags) for s in b.bell(0, 2600)] == [(2501, 0, False)]


def test_data_before_and_behind_in_one_segment(b):
    b.established(wnd=0)
    assert b.bell(0, 100) == []
    b.urgent(200)
    b.bell(0, 300)
    sent, _ = b.receive(Segment("A", wnd=8192))
    assert [(s.seq, s.length, s.urgent) for s in sent] == [(1, 300, 200)]


def test_a_closed_window_lets_the_pointer_through_at_once(b):
    b.established(wnd=0)
    (sent,) = b.urgent(100)
    assert (sent.flags, sent.seq, sent.length, sent.urgent) == ("AU", 1, 0, 100)


def test_probes_of_a_closed_window_carry_it(b):
    b.established(wnd=0)
    b.urgent(100)
    b.ticks_until_sent(3000)
    assert [(s.seq, s.length, s.urgent) for s in b.sent()] == [(1, 1, 100)]


def test_an_acknowledgement_carries_it_while_urgent_data_waits(b):
    b.established(wnd=0)
    b.urgent(100)
    b.receive(Segment("A", wnd=0, length=1000))
    sent, _ = b.receive(Segment("A", seq=1001, wnd=0, length=1000))
    assert [(s.flags, s.seq, s.urgent) for s in sent] == [("AU", 1, 100)]


def test_a_retransmission_carries_it(b):
    b.established()
    b.urgent(10)
    b.ticks_until_sent(3000)
    assert [(s.flags, s.seq, s.length, s.urgent) for s in b.sent()] == [("APU", 1, 10, 10)]


def test_a_fast_retransmission_carries_it(b):
    b.established(mss=1000)
    b.urgent(4000)
    for _ in range(3):
        sent, _ = b.receive(Segment("A", ack=1))
    assert [(s.seq, s.length, s.urgent) for s in sent if s.seq == 1] == [(1, 1000, 4000)]


def test_what_was_sent_before_the_call_tells_of_it_when_it_goes_again(b):
    b.established()
    b.bell(0, 10)
    assert [(s.seq, s.length, s.urgent) for s in b.urgent(20)] == [(11, 10, 10)]
    b.ticks_until_sent(3000)
    again = b.sent()[0]
    assert (again.seq, again.urgent) == (1, 20)


def test_a_second_call_moves_it_on(b):
    b.established(wnd=0)
    b.urgent(10)
    assert [s.urgent for s in b.urgent(30)] == [30]


def test_urgent_then_fin(b):
    b.established()
    b.urgent(10)
    assert [(s.flags, s.seq, s.urgent) for s in b.close(10)] == [("AF", 11, 0)]


def test_urgent_then_fin_in_one_segment(b):
    b.established(wnd=0)
    b.urgent(10)
    b.close(10)
    sent, _ = b.receive(Segment("A", wnd=100))
    assert [(s.flags, s.seq, s.length, s.urgent) for s in sent] == [("AFPU", 1, 10, 10)]


def test_a_reset_carries_no_pointer(b):
    b.established(wnd=0)
    b.urgent(10)
    b.request(FlowOp.ABORT)
    assert [(s.flags, s.urgent) for s in b.sent()] == [("AR", 0)]


def test_it_ends_with_the_connection(b):
    b.established(wnd=0)
    b.urgent(10)
    b.request(FlowOp.ABORT)
    assert b.request(FlowOp.RELEASE) == Status.OK
    b.established()
    assert [(s.flags, s.urgent) for s in b.bell(0, 5)] == [("AP", 0)]


def established_large(b, wnd):
    """A send ring of 16 MiB; the peer's window ``wnd`` << 8."""
    assert b.provision(snd_log2=24) == Status.OK
    b.request(FlowOp.OPEN, a=b.iss, mss=4000)
    b.receive(Segment("SA", seq=0, ack=1, wnd=0, mss=4000, ws=8))
    b.receive(Segment("A", wnd=wnd))


@pytest.mark.parametrize("position", [65535, 65536, 65537, 100_000, 1 << 24])
def test_further_ahead_than_the_field_reaches_the_pointer_is_the_greatest_and_moves_on(b, position):
    """Urgent mode begins at once (section 3.8.5); 65,535 lies behind all that was sent, so it names no octet the peer has got."""
    established_large(b, 0)
    (sent,) = b.urgent(position)
    assert (sent.seq, sent.length, sent.flags, sent.urgent) == (1, 0, "AU", 65535)
    b.ticks_until_sent(3000)
    assert [(s.length, s.urgent) for s in b.sent()] == [(1, 65535)]
    b.ticks_until_sent(3000)
    assert [(s.seq, s.length, s.urgent) for s in b.sent()] == [(1, 1, 65535)], "the probe again"


def test_each_segment_moves_a_pointer_that_was_cut_on(b):
    established_large(b, 1000)
    at, sent = 0, b.urgent(80_000)
    while at < 80_000:
        for s in sent:
            at = max(at, s.seq - 1 + s.length)
            left = 80_001 - s.seq
            assert s.urgent == min(left, 65535) and "U" in s.flags
        if at < 80_000:
            sent, _ = b.receive(Segment("A", ack=1 + at, wnd=1000))
            assert sent


def test_what_goes_again_does_not_point_at_an_octet_that_is_not_urgent(b):
    """More than 64 KiB are under way without URG: a pointer cut off would name one of them."""
    established_large(b, 2000)
    end = at = 0
    while True:
        end += 200_000
        sent = b.bell(0, end, settle=3000)
        if sum(s.length for s in sent) > 66_000:
            break
        while at < end:  # opens the congestion window
            at = max(s.seq - 1 + s.length for s in sent)
            sent, _ = b.receive(Segment("A", ack=1 + at, wnd=2000), settle=3000)
    b.urgent(end + 10)
    b.ticks_until_sent(3000)
    again = b.sent()[0]
    assert again.seq == 1 + at and (again.flags, again.urgent) == ("A", 0)


@pytest.mark.parametrize("state", ["new", "SYN_SENT", "FIN_WAIT_1", "CLOSED"])
def test_urgent_of_a_connection_that_cannot_send_is_refused(b, state):
    if state == "new":
        b.provision()
    elif state == "SYN_SENT":
        b.syn_sent()
    else:
        b.established()
        if state == "FIN_WAIT_1":
            b.close()
        else:
            b.request(FlowOp.ABORT)
    assert b.request(FlowOp.URGENT, a=10) == Status.BAD_STATE


@pytest.mark.parametrize("position", [-1, (1 << 14) + 1, 1 << 31])
def test_urgent_outside_the_ring_is_refused_and_changes_nothing(b, position):
    b.established()
    assert b.request(FlowOp.URGENT, a=position & 0xFFFFFFFF) == Status.BAD_ARGUMENT
    assert not b.report().bad_doorbell and b.sent() == []
    assert [(s.flags, s.length) for s in b.bell(0, 5)] == [("AP", 5)]


def test_a_doorbell_that_the_command_has_overtaken_is_no_fault(b):
    b.established(wnd=0)
    b.urgent(100)
    assert b.bell(0, 50) == [] and not b.report().bad_doorbell
    sent, _ = b.receive(Segment("A", wnd=8192))
    assert [(s.length, s.urgent) for s in sent] == [(100, 100)]


def test_2_gib_later_there_is_no_pointer(b):
    at = b.two_gibibytes(begin=lambda: b.urgent(10))
    assert [(s.flags, s.urgent) for s in b.bell(0, at + 5 & 0xFFFFFFFF)] == [("AP", 0)]
