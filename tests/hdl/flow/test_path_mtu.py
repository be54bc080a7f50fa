"""PATH_MTU and time-outs: what was too long for the path is no sign of congestion, and is repaired at once (RFC 1191 section 6.5,
RFC 4821 sections 7.6.2 and 7.7)."""

import pytest

from tests.hdl.flow.bench import FlowBench, FlowOp, Segment, Status
from tests.hdl.flow.test_recovery import expire, under_way
from tests.hdl.flow.test_sack import MSS, dup, quick

SMALL = 400


def lower(b, mss=SMALL):
    """PATH_MTU; what goes for it, as (first byte, length)."""
    b.seen.tx.clear()
    assert b.request(FlowOp.PATH_MTU, mss=mss) == Status.OK
    b.cycles(400)
    return lengths(b)


def lengths(b):
    return [(s.seq, s.length) for s in b.sent()]


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_path_mtu_behind_time_outs_of_everything_goes_at_once(shift):
    """Nothing has come that could draw a turn of recovery by the scoreboard; and the count of time-outs goes on."""
    b = under_way(rexmt_max=15)
    for _ in range(shift):
        assert expire(b) == [0]
    before = b.tcb()
    assert lower(b) == [(1, SMALL)]
    assert b.tcb() == before | {"maxseg": SMALL, "snd_nxt": before["snd_una"], "rexmits": before["rexmits"] + 1}
    assert dup(b, ack=1 + SMALL)[:2] == [(1 + SMALL, SMALL), (1 + 2 * SMALL, SMALL)]
    acked = 1 + SMALL
    while acked < 1 + 10 * MSS:
        acked = min(acked + 2 * SMALL, 1 + 10 * MSS)
        assert all(length <= SMALL for _, length in dup(b, ack=acked))
    told = b.tcb()
    assert told["snd_una"] == told["snd_max"] == told["snd_nxt"] and told["rexmt_shift"] == 0


def test_path_mtu_does_not_put_off_the_end_of_a_silent_connection():
    """R2 is the same with it and without."""

    def ends_after(falls):
        b, ticks = under_way(rexmt_max=4), 0
        while not b.report().terminal:
            b.ticks(1)
            ticks += 1
            if b.tcb()["rexmt_shift"] == 3 and falls:
                falls = False
                lower(b)
            assert ticks < 1000
        return ticks

    assert ends_after(True) == ends_after(False)


@pytest.mark.parametrize("sack_ok", [False, True])
def test_path_mtu_before_a_time_out_gives_the_smaller_ones_a_whole_one(sack_ok):
    """A round trip may be longer than what is left: without it the time-out would be spurious."""
    b = FlowBench(sack=1, rto_initial=300, rto_min=300)
    b.established(mss=MSS, wnd=60000, sack_ok=sack_ok, rtt=10)
    b.bell(0, MSS)
    b.ticks(290)
    assert lower(b) == [(1, SMALL), (1 + SMALL, SMALL), (1 + 2 * SMALL, 200)]
    assert b.ticks_until_sent(280) is None
    assert b.ticks_until_sent(40)
    assert lengths(b) == [(1, SMALL)] and b.tcb()["rexmt_shift"] == 1
    assert lower(b, 300) != []
    assert b.ticks_until_sent(620) in range(560, 621), "one that has been doubled runs on"


def test_path_mtu_behind_a_tail_s_probe_is_no_loss():
    """RFC 8985 section 7.4 would halve the window: the probe was as long as what it repeated."""
    b = quick(sent=2)
    assert b.ticks_until_sent(100)
    b.sent()
    before = b.tcb()
    assert lower(b) == [(1 + k * SMALL, min(SMALL, 2 * MSS - k * SMALL)) for k in range(5)]
    for acked in (2, 4, 5):
        b.receive(Segment("A", ack=1 + acked * SMALL, wnd=60000))
    b.bell(0, 3 * MSS)
    b.receive(Segment("A", ack=1 + 3 * MSS, wnd=60000))
    told = b.tcb()
    assert told["ssthresh"] == before["ssthresh"] and told["cwnd"] >= before["cwnd"]
