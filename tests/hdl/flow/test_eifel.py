"""What was sent again without need, as timestamps tell: Eifel (RFC 3522), with the response of RFC 4015."""

import pytest

from tests.hdl.flow.bench import M32, FlowBench, FlowOp, Segment, Status
from tests.hdl.flow.test_congestion import ALL
from tests.hdl.flow.test_recovery import WRAPS, expire, numbers
from tests.hdl.flow.test_sack import MSS
from tests.hdl.flow.test_timestamps import PEER, STAMPED
from tiptoe_hdl.messages import Congestion

NEVER = 2**24 - 1
"""ssthresh before the first loss."""
RTT = 14


class Line:
    """``sent`` segments under way, ``more`` bytes waiting; the peer agreed on SACK and timestamps. Times count from when the
    data was sent. The handshake's round trip is not known: no tail is probed before the time-out."""

    def __init__(self, sent=10, wrap=40000, more=8 * MSS, stamps=1, sack=1, cfg=STAMPED, **settings):
        self.b = b = FlowBench(
            cfg,
            sack=sack,
            timestamps=stamps,
            **{"rto_initial": 30, "rto_min": 20, "rto_max": 60 if stamps else 25} | settings,
        )
        b.iss = -(1 + wrap) & M32
        assert b.provision(snd_log2=18) == Status.OK
        assert b.request(FlowOp.OPEN, a=b.iss, mss=MSS + 12 * stamps) == Status.OK
        b.ticks(RTT)
        self.stamped = bool(stamps)
        stamp = (PEER, -1) if stamps else None
        flags = "SAE" if settings.get("ecn") else "SA"
        b.receive(Segment(flags, seq=0, ack=1, wnd=60000, mss=MSS + 12 * stamps, sack_ok=bool(sack), stamp=stamp))
        self.began = b.ts_now
        b.bell(0, sent * MSS + more)
        assert b.tcb()["snd_max"] == (1 + b.iss + sent * MSS) & M32

    def age(self, since):
        """Of what was sent ``since`` ticks after the data."""
        return (self.b.ts_now - self.began - since) & M32

    def ack(self, upto, *blocks, since=0, ece=False, length=0, stamp=True):
        """An acknowledgement of so many segments that echoes what was sent so late; numbers of what goes."""
        flags = "AE" if ece else "A"
        stamp = (PEER + 1, self.age(since)) if stamp and self.stamped else None
        sent, _ = self.b.receive(
            Segment(flags, ack=1 + upto * MSS, wnd=60000, stamp=stamp, length=length),
            sack=[(1 + MSS * first, 1 + MSS * last) for first, last in blocks],
        )
        return numbers(sent)

    def restored(self):
        told = self.b.tcb()
        return told["ssthresh"] == NEVER and not told["in_recovery"]

    def repaired(self):
        """The recovery that began now; its beginning in ticks after the data."""
        return self.b.ts_now - self.began & M32


@WRAPS
def test_timeout_came_too_early_the_first_acknowledgement_tells(wrap):
    """One is enough, and none of what F-RTO asks with goes."""
    line = Line(wrap=wrap)
    assert expire(line.b) == [0]
    assert line.ack(2) == [10, 11]
    assert line.restored() and line.b.tcb()["cwnd"] == 10 * MSS
    sent = [n for upto in (4, 6, 8, 14) for n in line.ack(upto)]
    assert sent == [12, 13, 14, 15, 16, 17]
    told = line.b.tcb()
    assert told["rexmits"] == 1 and told["ssthresh"] == NEVER and told["cwnd"] > 10 * MSS


def test_timeout_was_right_the_acknowledgement_echoes_the_repetition():
    line = Line()
    assert expire(line.b) == [0]
    since = line.repaired()
    assert line.ack(1, since=since) == [10, 11]  # F-RTO asks
    assert not line.restored()
    assert line.ack(1, (10, 11), since=since) == [1]
    assert line.b.tcb()["ssthresh"] == 5 * MSS


@pytest.mark.parametrize("behind", [-2, -1, 0, 1])
def test_timeout_what_was_sent_in_the_same_tick_is_not_before(behind):
    line = Line()
    assert expire(line.b) == [0]
    line.b.ticks(5)
    line.ack(2, since=line.repaired() - 5 + behind)
    assert line.restored() == (behind < 0)


@pytest.mark.parametrize("case", ["reordered", "lost"])
@WRAPS
def test_three_duplicates_tell_of_a_segment_that_was_only_overtaken(case, wrap):
    line = Line(wrap=wrap, more=0)
    line.b.ticks(3)
    for last in (2, 3):
        assert line.ack(0, (1, last), since=-1) == []
    assert line.ack(0, (1, 4), since=-1) == [0]
    told = line.b.tcb()
    assert told["in_recovery"] and told["ssthresh"] == 5 * MSS
    line.b.ticks(2)
    # Behind a repetition that was needed the next gap is a loss of its own (RFC 6582).
    assert line.ack(4, since=0 if case == "reordered" else 3) == ([] if case == "reordered" else [4])
    assert line.restored() == (case == "reordered")
    if case == "reordered":
        assert line.b.tcb()["cwnd"] == 10 * MSS and line.b.tcb()["rexmits"] == 1


def test_partial_acknowledgement_that_answers_sends_nothing_again():
    """Segment 5 has not come either, or not yet: nothing tells that it is lost."""
    line = Line(more=0)
    line.b.ticks(3)
    for last in (2, 3, 4):
        line.ack(0, (1, last), since=-1)
    line.b.ticks(1)
    assert line.ack(5) == [] and line.restored()
    for last in (7, 8):
        assert line.ack(5, (6, last)) == []
    assert line.ack(5, (6, 9)) == [5], "a loss behind it is a new one"
    assert line.b.tcb()["in_recovery"]


@pytest.mark.parametrize(
    "first",
    [
        dict(blocks=[(4, 10)]),
        dict(upto=10),
        dict(ece=True),
        dict(stamp=False),
        dict(since=10**6),
        dict(since=-61),
    ],
    ids=["with blocks", "of everything", "with ECE", "without timestamps", "echoes the future", "older than RTO_MAX"],
)
def test_acknowledgement_that_says_nothing_ends_the_question(first):
    """RFC 3522 section 3.2: it is the first one that counts; F-RTO's second may still tell."""
    line = Line(ecn=int("ece" in first), more=0)
    assert expire(line.b) == [0]
    blocks = first.get("blocks", [])
    rest = {name: value for name, value in first.items() if name not in ("upto", "blocks")}
    upto = first.get("upto", 2)
    line.ack(upto, *blocks, **rest)
    assert line.b.tcb()["ssthresh"] == 5 * MSS
    line.b.bell(0, 12 * MSS)
    if "since" not in first and upto < 10:
        line.ack(10, *([] if blocks else [(11, 12)]))
        assert line.b.tcb()["ssthresh"] == 5 * MSS


def test_duplicate_acknowledgements_are_not_asked():
    """They do not move snd_una; what moves it then counts."""
    line = Line()
    assert expire(line.b) == [0]
    line.ack(0, (2, 3))
    line.ack(0, (2, 4))
    assert not line.restored()
    line.ack(4)
    assert line.restored()


def test_time_outs_one_after_the_other_the_first_repetition_counts():
    """What echoes the first repetition is no echo of the original."""
    for since_first, answers in ((-1, True), (0, False), (1, False)):
        line = Line(rto_max=200)
        assert expire(line.b) == [0]
        first = line.repaired()
        assert expire(line.b) == [0]
        line.ack(2, since=first + since_first)
        assert line.restored() == answers, since_first


def test_host_has_written_the_window_since_it_stays():
    line = Line(algorithm=Congestion.HOST, cfg=ALL.with_(name="all_stamped", timestamps=True))
    assert expire(line.b) == [0]
    assert line.b.request(FlowOp.CWND, a=5 * MSS, b=7 * MSS) == Status.OK
    line.ack(2)
    assert line.b.tcb()["ssthresh"] == 7 * MSS


def test_closed_window_ends_the_question():
    """It may stay closed for as long as the clock takes to come round."""
    line = Line(rto_max=500)
    b = line.b
    assert expire(b) == [0]
    b.receive(Segment("A", ack=1, wnd=0, stamp=(PEER + 1, line.age(0))))
    assert b.ticks_until_sent(300) and [s.length for s in b.sent()] == [1]
    line.ack(2)
    assert not line.restored()


def test_without_timestamps_f_rto_asks_as_before():
    line = Line(stamps=0)
    assert expire(line.b) == [0]
    assert line.ack(2) == [10, 11] and not line.restored()
    line.ack(4)
    assert line.restored()


def test_without_selective_acknowledgements_nothing_is_taken_back():
    """All behind snd_una has been given up for lost by then, and cwnd with it."""
    line = Line(sack=0)
    assert expire(line.b) == [0]
    line.ack(2)
    assert line.b.tcb()["ssthresh"] == 5 * MSS


def test_a_recovery_of_an_earlier_life_asks_nothing():
    line = Line()
    assert expire(line.b) == [0]
    b = line.b
    b.receive(Segment("R", stamp=None))
    assert b.request(FlowOp.RELEASE) == Status.OK
    b.iss = (b.iss + 7777) & M32
    assert b.provision(snd_log2=18) == Status.OK
    assert b.request(FlowOp.OPEN, a=b.iss, mss=MSS + 12) == Status.OK
    b.receive(Segment("SA", seq=0, ack=1, wnd=60000, mss=MSS + 12, sack_ok=True, stamp=(PEER, 0)))
    b.bell(0, 6 * MSS)
    line.ack(2)
    assert b.tcb()["cwnd"] == 11 * MSS, "not what it was before"
