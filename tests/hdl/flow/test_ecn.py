"""Explicit congestion notification on the flow: RFC 3168 section 6.1; DCTCP's part of it: RFC 8257 section 3.2."""

import pytest

from tests.hdl.flow.bench import M32, FlowBench, FlowOp, Segment, Status
from tests.hdl.flow.congestion_bench import ALL
from tiptoe_hdl.messages import Congestion

MSS = 1000
OFF, OFFERS, ACCEPTS = 0, 1, 2
"""CONTROL.ECN, as tcp_ecn of Linux."""


def open_(b, wish=0):
    """OPEN; flags and codepoint of the SYN."""
    assert b.provision(snd_log2=18) == Status.OK
    b.seen.tx.clear()
    assert b.request(FlowOp.OPEN, a=b.iss, mss=MSS, ecn_ok=wish) == Status.OK
    (syn,) = b.sent()
    return syn.flags, syn.ecn


def agreed(answer="SAE", cfg=None, wnd=60000, wrap=3500, **settings):
    """A connection whose SYN offered ECN, and the peer's answer; sequence numbers of both sides pass 0 soon."""
    b = FlowBench(cfg or ALL, **{"ecn": OFFERS, "rto_initial": 40, "rto_min": 40, "delack": 20} | settings)
    b.iss, b.irs = -(1 + wrap) & M32, -(1 + wrap) & M32
    assert open_(b) == ("SEC", 0)
    b.receive(Segment(answer, seq=0, ack=1, wnd=wnd, mss=MSS, sack_ok=bool(settings.get("sack"))))
    return b


def write(b, segments):
    """So many segments more; what goes, as (segment number, flags, codepoint)."""
    b.written = getattr(b, "written", 0) + segments
    return gone(b.bell(0, b.written * MSS))


def gone(sent):
    return [((s.seq - 1) // MSS, s.flags.replace("P", ""), s.ecn) for s in sent if s.length]


def acked(b, segments, flags="A", **more):
    """An acknowledgement of so many segments; what goes upon it."""
    return gone(b.receive(Segment(flags, ack=1 + segments * MSS, wnd=60000), **more)[0])


# Negotiation: section 6.1.1


@pytest.mark.parametrize("ecn, wish, flags", [
    (OFF, 0, "S"), (OFF, 1, "S"), (ACCEPTS, 0, "S"), (ACCEPTS, 1, "SEC"), (OFFERS, 0, "SEC"), (OFFERS, 1, "SEC"),
])  # fmt: skip
def test_syn_offers(ecn, wish, flags):
    assert open_(FlowBench(ecn=ecn), wish) == (flags, 0), "no ECT on a SYN"


@pytest.mark.parametrize("ecn", [OFFERS, ACCEPTS])
@pytest.mark.parametrize("answer, agrees", [
    ("SAE", True), ("SA", False),
    ("SAEC", False),  # a middlebox or an old stack that gives the reserved bits back
    ("SAC", False),
])  # fmt: skip
def test_syn_ack_agrees(ecn, answer, agrees):
    b = FlowBench(ecn=ecn)
    open_(b)
    sent, _ = b.receive(Segment(answer, seq=0, ack=1, mss=MSS))
    assert [(s.flags, s.ecn) for s in sent] == [("A", 0)]
    assert b.tcb()["ecn_ok"] == (agrees and ecn == OFFERS)
    (data,) = write(b, 1)
    assert data == (0, "A", 2 if agrees and ecn == OFFERS else 0)


def test_syn_again_offers_nothing_but_its_answer_counts():
    """Section 6.1.1.1: a firewall may drop what it does not know. The first SYN may have come nevertheless."""
    b = FlowBench(ecn=OFFERS, rto_initial=30)
    assert open_(b) == ("SEC", 0)
    for _ in range(2):
        assert b.ticks_until_sent(100)
        assert [s.flags for s in b.sent()] == ["S"]
    b.receive(Segment("SAE", seq=0, ack=1, mss=MSS))
    assert b.tcb()["ecn_ok"]


@pytest.mark.parametrize("flags, answer", [("SEC", "SAE"), ("SE", "SA"), ("SC", "SA"), ("S", "SA")])
def test_simultaneous_open(flags, answer):
    """Both ends offer: a SYN,ACK agrees, also one that goes again."""
    b = FlowBench(ecn=OFFERS, rto_initial=30)
    open_(b)
    sent, _ = b.receive(Segment(flags, seq=0, mss=MSS))
    assert [s.flags for s in sent] == [answer]
    assert b.ticks_until_sent(100)
    assert [s.flags for s in b.sent()] == [answer]
    b.receive(Segment("A", ack=1))
    assert b.tcb()["established"] and b.tcb()["ecn_ok"] == (answer == "SAE")


@pytest.mark.parametrize("ecn_ok", [0, 1])
def test_accepted_as_the_syncache_says(ecn_ok):
    b = FlowBench(ecn=ACCEPTS)
    assert b.provision() == Status.OK
    b.request(FlowOp.ACCEPT, a=b.iss, b=b.irs, mss=MSS, wnd=8192, ecn_ok=ecn_ok)
    sent, _ = b.receive(Segment("A", length=100, ecn=3))
    assert b.tcb()["ecn_ok"] == ecn_ok
    b.ticks(50)
    assert [s.flags for s in sent + b.sent()] == ["AE" if ecn_ok else "A"], "CE on what comes with the handshake's ACK"


def test_next_life_begins_without():
    b = agreed()
    write(b, 2)
    acked(b, 1, "AE")
    b.receive(Segment("A", ack=1 + MSS, length=10, ecn=3))
    b.request(FlowOp.ABORT)
    b.request(FlowOp.RELEASE)
    b.provision()
    tcb = b.tcb()
    assert not tcb["ecn_ok"] and not tcb["ecn_seen"]
    b.request(FlowOp.OPEN, a=b.iss, mss=MSS)
    b.receive(Segment("SAE", seq=0, ack=1, mss=MSS, wnd=60000))
    assert gone(b.bell(0, MSS)) == [(0, "A", 2)], "neither ECE nor CWR"


# What carries ECT: sections 6.1.4 to 6.1.6


def test_new_data_carries_ect_and_nothing_else_does():
    b = agreed()
    assert write(b, 3) == [(k, "A", 2) for k in range(3)]
    sent, _ = b.receive(Segment("A", ack=1 + MSS, wnd=60000, length=1460))
    sent += b.receive(Segment("A", seq=1461, ack=1 + MSS, wnd=60000, length=1460))[0]
    assert [(s.flags, s.length, s.ecn) for s in sent] == [("A", 0, 0)], "an acknowledgement"
    b.ticks(80)
    assert {s.ecn for s in b.sent()} == {0}, "a retransmission"
    acked(b, 3)
    b.request(FlowOp.KEEPALIVE)
    assert [(s.length, s.ecn) for s in b.sent()] == [(0, 0)]
    assert [(s.flags, s.ecn) for s in b.close(3 * MSS)] == [("AF", 0)], "a FIN without data"


def test_probe_of_a_closed_window_carries_none():
    """Section 6.1.6; nor CWR: the probe may be all that goes for long, and is no new data that the window allows."""
    b = agreed()
    write(b, 2)
    assert acked(b, 1, "AE") == []
    b.receive(Segment("A", ack=1 + 2 * MSS, wnd=0))
    assert write(b, 1) == []
    assert b.ticks_until_sent(200)
    assert [(s.length, s.flags.replace("P", ""), s.ecn) for s in b.sent()] == [(1, "A", 0)]
    sent, _ = b.receive(Segment("A", ack=1 + 2 * MSS, wnd=60000))
    assert gone(sent) == [(2, "A", 0)], "the probe's octet goes again with it"
    acked(b, 3)
    assert write(b, 2) == [(3, "AC", 2), (4, "A", 2)]


def test_reset_carries_none():
    b = agreed()
    b.receive(Segment("A", length=100, ecn=3))
    b.seen.tx.clear()
    b.request(FlowOp.ABORT)
    assert [(s.flags, s.ecn) for s in b.sent()] == [("AR", 0)]


# Receiver: section 6.1.3


@pytest.mark.parametrize("wrap", [0, 50, 100, 3500])
def test_congestion_experienced_is_told_until_cwr(wrap):
    b = agreed(wrap=wrap)
    at = 1

    def text(flags="A", ecn=2):
        nonlocal at
        sent, verdict = b.receive(Segment(flags, seq=at, length=100, ecn=ecn))
        assert verdict.length == 100
        at += 100
        return [s.flags for s in sent]

    assert text() + text() == ["A"]
    assert text(ecn=3) == ["AE"], "at once"
    assert text() + text() == ["AE"]
    assert write(b, 1) == [(0, "AE", 2)], "data says it too"
    assert text("AC", ecn=3) == ["AE"], "CE on the segment with CWR is another one"
    assert text("AC") == ["A"], "at once: the peer may have no more than this segment"
    assert text() + text() == ["A"]
    assert b.tcb()["ecn_seen"]


@pytest.mark.parametrize("segment", [
    Segment("A", ecn=3),
    Segment("A", seq=101 - 100, length=100, ecn=3),  # comes again
    Segment("A", seq=101 + (1 << 15), length=100, ecn=3),  # beyond the window
    Segment("A", seq=101, ack=1 + 9 * MSS, length=100, ecn=3),  # acknowledges what has not been sent
    Segment("A", seq=101, length=100, ecn=1),
    Segment("A", seq=101, length=100, ecn=2),
    Segment("R", seq=102, length=100, ecn=3),
], ids=["empty", "again", "beyond", "bad_ack", "ect1", "ect0", "reset"])  # fmt: skip
def test_marks_that_do_not_count(segment):
    """Section 6.1.5: what is outside of the window may be an attack; an empty one has no ECT, so its CE is a mistake."""
    b = agreed()
    b.receive(Segment("A", length=100, ecn=2))
    b.receive(segment)
    sent, _ = b.receive(Segment("A", seq=101, length=100, ecn=2))
    b.ticks(50)
    assert {s.flags for s in sent + b.sent()} == {"A"}


def test_mark_on_text_out_of_order_counts():
    b = agreed()
    sent, _ = b.receive(Segment("A", seq=201, length=100, ecn=3))
    assert [s.flags for s in sent] == ["AE"]


@pytest.mark.parametrize("answer", ["SA", "SAEC"])
def test_without_ecn_neither_marks_nor_echoes_count(answer):
    b = agreed(answer)
    sent, _ = b.receive(Segment("AEC", length=100, wnd=60000, ecn=3))
    b.ticks(50)
    assert [s.flags for s in sent + b.sent()] == ["A"]
    write(b, 10)
    before = b.tcb()["cwnd"]
    assert len(acked(b, 2, "AE")) == 0
    assert b.tcb()["cwnd"] > before and not b.tcb()["ecn_seen"]
    assert write(b, 1) == [(10, "A", 0)]


# Sender: section 6.1.2


@pytest.mark.parametrize("wrap", [0, 2000, 9999, 10001, 40000])
@pytest.mark.parametrize("algorithm, share", [("NEWRENO", 128), ("RENO", 128), ("CUBIC", 179)])
def test_one_reduction_a_window(algorithm, share, wrap):
    b = agreed(algorithm=Congestion[algorithm], wrap=wrap)
    assert len(write(b, 30)) == 10
    assert acked(b, 1, "AE") == []
    cut = 10 * MSS * share >> 8
    tcb = b.tcb()
    assert tcb["cwnd"] == tcb["ssthresh"] == cut and tcb["losses"] == 1 and not tcb["in_recovery"]
    sent = [piece for k in range(2, 11) for piece in acked(b, k, "AE")]
    tcb = b.tcb()
    assert tcb["ssthresh"] == cut and tcb["cwnd"] <= cut + MSS, "the same window: nothing more"
    assert [flags for _, flags, _ in sent].count("AC") == 1 and sent[0] == (10, "AC", 2), "the first new data has CWR"
    assert tcb["rexmits"] == 0
    before = tcb["cwnd"]
    acked(b, 11, "AE")
    assert b.tcb()["ssthresh"] == before * share >> 8 and b.tcb()["losses"] == 2, "a window later"


@pytest.mark.parametrize("segments, left", [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2.5)])
def test_two_segments_remain(segments, left):
    b = agreed(algorithm=Congestion.HOST)
    b.request(FlowOp.CWND, a=segments * MSS, b=4 * MSS)
    write(b, 10)
    acked(b, 1, "AE")
    tcb = b.tcb()
    assert tcb["ssthresh"] == left * MSS and tcb["cwnd"] == min(segments, left) * MSS, "and one stays one"


def test_peer_that_always_says_ece():
    """It gets the least window, CWR once a window, and all of the data."""
    b = agreed(rto_min=1000)
    sent = write(b, 60)
    at = 0
    while at < 60:
        at += 1
        sent += acked(b, at, "AE")
        assert b.tcb()["cwnd"] >= 2 * MSS
    assert [number for number, _, _ in sent] == list(range(60))
    cwrs = [number for number, flags, _ in sent if "C" in flags]
    assert 5 < len(cwrs) <= 30 and all(b - a >= 2 for a, b in zip(cwrs, cwrs[1:], strict=False))


def test_duplicate_acknowledgement_with_ece_cuts_nothing():
    """It acknowledges nothing; the next one that does says it too."""
    b = agreed()
    write(b, 10)
    before = b.tcb()["cwnd"]
    for _ in range(2):
        acked(b, 0, "AE")
    assert b.tcb()["cwnd"] == before


@pytest.mark.parametrize("sack", [0, 1])
def test_loss_in_the_window_that_was_cut(sack):
    """It is repaired at once, without a second reduction."""
    b = agreed(sack=sack, rto_min=1000)
    write(b, 30)
    acked(b, 1, "AE")
    b.seen.tx.clear()
    blocks = {"sack": ((1 + 2 * MSS, 1 + 3 * MSS),)} if sack else {}
    again = [piece for _ in range(3) for piece in acked(b, 1, "AE", **blocks)]
    assert (1, "A", 0) in again
    tcb = b.tcb()
    assert tcb["in_recovery"] and tcb["ssthresh"] == 5 * MSS and tcb["losses"] == 1
    acked(b, 10)
    tcb = b.tcb()
    assert not tcb["in_recovery"] and tcb["ssthresh"] == 5 * MSS and tcb["cwnd"] <= 5 * MSS


def test_time_out_in_the_window_that_was_cut():
    b = agreed()
    write(b, 10)
    acked(b, 1, "AE")
    b.ticks(200)
    tcb = b.tcb()
    assert tcb["ssthresh"] == 5 * MSS and tcb["cwnd"] == MSS and tcb["losses"] == 1


def test_loss_of_the_segment_with_cwr_is_another_one():
    """Section 6.1.2: if that is lost, cwnd falls again; and its successor has CWR."""
    b = agreed(rto_min=1000)
    write(b, 60)
    assert acked(b, 1, "AE") == []
    assert acked(b, 10)[0] == (10, "AC", 2)
    before = b.tcb()
    for _ in range(3):
        acked(b, 10)
    assert b.tcb()["in_recovery"] and b.tcb()["losses"] == before["losses"] + 1
    assert b.tcb()["ssthresh"] < before["ssthresh"]
    # Two more went by limited transmit before it fell.
    assert acked(b, 18) == [(18, "AC", 2), (19, "A", 2), (20, "A", 2)]


@pytest.mark.parametrize("how", ["loss", "timeout"])
def test_reduction_for_a_loss_is_told_and_no_second_one_follows(how):
    b = agreed(rto_min=60 if how == "timeout" else 1000)
    write(b, 30)
    if how == "loss":
        for _ in range(3):
            acked(b, 0)
    else:
        assert b.ticks_until_sent(200)
    b.seen.tx.clear()
    before = b.tcb()
    end = 12 if how == "loss" else 10  # two by limited transmit
    sent = [piece for k in (3, end - 1, end) for piece in acked(b, k, "AE")]
    tcb = b.tcb()
    assert tcb["ssthresh"] == before["ssthresh"] == 5 * MSS and tcb["losses"] == 1
    new = [piece for piece in sent if piece[0] >= end]
    assert new[0][1] == "AC" and [flags for _, flags, _ in new].count("AC") == 1
    assert all(ecn == (2 if number >= end else 0) for number, _, ecn in sent)


def test_ece_counts_two_gibibytes_later():
    """``recover`` has no say any more, wherever it seems to lie."""
    b = FlowBench(ALL, ecn=OFFERS, algorithm=Congestion.HOST)

    def cut():
        b.bell(0, 8000)
        b.receive(Segment("AE", ack=1 + 4000, wnd=65535))
        assert b.tcb()["losses"] == 1
        b.receive(Segment("A", ack=1 + 8000, wnd=65535))
        b.request(FlowOp.CWND, a=9_000_000, b=9_000_000)

    at = b.two_gibibytes(ecn=True, begin=cut)
    b.bell(0, at + 8000 & M32)
    b.receive(Segment("AE", ack=1 + at + 4000, wnd=65535))
    assert b.tcb()["losses"] == 2


# DCTCP: RFC 8257 section 3.2


def test_accurate_echo():
    """ECE says whether the last text was marked; a change is told at once, CWR changes nothing."""
    b = agreed(cfg=ALL, algorithm=Congestion.DCTCP)
    at = 1
    for ecn, flags, said in (
        (2, "A", []), (2, "A", ["A"]), (3, "A", ["AE"]), (3, "A", []), (3, "A", ["AE"]), (2, "A", ["A"]), (3, "AC", ["AE"]),
        (3, "AC", ["AE"]), (2, "AC", ["A"]), (2, "A", []), (2, "A", ["A"]),
    ):  # fmt: skip
        sent, _ = b.receive(Segment(flags, seq=at, length=100, ecn=ecn))
        at += 100
        assert [s.flags for s in sent] == said
        assert {s.ecn for s in sent} <= {2}, "its acknowledgements are not dropped either"


def test_all_of_an_accurate_connection_carries_ect_but_syn_and_reset():
    b = agreed(cfg=ALL, algorithm=Congestion.DCTCP, rto_min=40)
    assert write(b, 2) == [(0, "A", 2), (1, "A", 2)]
    b.ticks(100)
    assert {s.ecn for s in b.sent()} == {2}
    b.request(FlowOp.ABORT)
    assert [(s.flags, s.ecn) for s in b.sent()] == [("AR", 0)]


def test_dctcp_without_ecn_is_newreno():
    b = agreed("SA", cfg=ALL, algorithm=Congestion.DCTCP, rto_min=1000)
    assert write(b, 30)[0] == (0, "A", 0)
    acked(b, 1, "AE")
    assert b.tcb()["losses"] == 0
    for _ in range(3):
        acked(b, 1, "AE")
    assert b.tcb()["ssthresh"] == 5 * MSS or b.tcb()["ssthresh"] == b.tcb()["cwnd"] - 3 * MSS


class Marked:
    """A DCTCP connection whose peer tells of a share of marks; segments of MSS, acknowledged one by one."""

    def __init__(self, **settings):
        self.b = agreed(cfg=ALL, algorithm=Congestion.DCTCP, **{"rto_min": 1000} | settings)
        self.una = 0
        self.sent = []
        self.b.written = 0

    def window(self, every=0):
        """All that is under way is acknowledged; every so many-th acknowledgement has ECE."""
        write(self.b, 60)
        end = (self.b.tcb()["snd_max"] - self.b.iss - 1 & M32) // MSS
        while self.una < end:
            self.una += 1
            acked(self.b, self.una, "AE" if every and self.una % every == 0 else "A", settle=4000)
            assert self.b.tcb()["rexmits"] == 0


def test_dctcp_cuts_by_the_marked_share():
    """RFC 8257 section 3.3: cwnd * (1 - alpha / 2), once a window; alpha falls by a sixteenth with each window without marks."""
    t = Marked()
    for _ in range(10):
        t.window()
    write(t.b, 60)
    before = t.b.tcb()
    t.una += 1
    acked(t.b, t.una, "AE", settle=4000)
    after = t.b.tcb()
    share = after["cwnd"] / before["cwnd"]
    assert after["ssthresh"] == after["cwnd"] and after["losses"] == before["losses"] + 1
    assert 0.6 < share < 0.85, "between half and all: alpha is about (15/16)^10"
    for _ in range(3):
        acked(t.b, t.una, "AE")
    assert t.b.tcb()["losses"] == after["losses"], "a loss in the window that was cut"


def test_dctcp_halves_at_a_loss():
    """RFC 8257 section 3.5, whatever alpha is; also when the duplicate acknowledgements carry ECE."""
    for flags in ("A", "AE"):
        t = Marked()
        for _ in range(6):
            t.window()
        write(t.b, 60)
        flight = t.b.tcb()["snd_max"] - t.b.tcb()["snd_una"] & M32
        for _ in range(3):
            acked(t.b, t.una, flags)
        tcb = t.b.tcb()
        assert tcb["in_recovery"] and abs(tcb["ssthresh"] - flight // 2) <= 2 * MSS


@pytest.mark.parametrize("flags", ["A", "AE"])
def test_what_is_taken_back_of_a_time_out_but_not_with_ece(flags):
    """F-RTO finds that the time-out was too early; with ECE the path has said itself that cwnd is too large."""
    b = agreed(sack=1, rto_initial=30, rto_min=20, rto_max=25)
    write(b, 18)
    while not b.tcb()["rexmt_shift"]:
        b.ticks(1)
    b.seen.tx.clear()
    b.receive(Segment("A", ack=1 + 2 * MSS, wnd=60000))
    b.receive(Segment(flags, ack=1 + 4 * MSS, wnd=60000))
    assert b.tcb()["ssthresh"] == (2**24 - 1 if flags == "A" else 5 * MSS)


@pytest.mark.parametrize("flags", ["A", "AE"])
def test_what_is_taken_back_of_a_recovery_but_not_with_ece(flags):
    """The peer tells that what went again came twice (D-SACK); the mark came while nothing more was cut for it."""
    b = agreed(sack=1, rto_min=1000)
    write(b, 10)
    for last in (2, 3, 4):
        b.receive(Segment("A", ack=1, wnd=60000), sack=[(1 + MSS, 1 + last * MSS)])
    assert b.tcb()["in_recovery"]
    b.receive(Segment(flags, ack=1 + 10 * MSS, wnd=60000))
    assert b.tcb()["ssthresh"] == 5 * MSS and b.tcb()["rexmits"] == 1
    b.receive(Segment("A", ack=1 + 10 * MSS, wnd=60000), sack=[(1, 1 + MSS)])
    assert b.tcb()["ssthresh"] == (2**24 - 1 if flags == "A" else 5 * MSS)
