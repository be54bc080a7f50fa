"""RFC 9293 section 3.10.7.3, fourth: what a SYN,ACK brings besides counts, from its sequence number plus one on."""

import pytest

from tests.hdl.flow.bench import FlowBench, FlowOp, Segment, State, Status

SYN_ACK = Segment("SA", seq=0, ack=1, wnd=8192, mss=1460)


@pytest.fixture
def b():
    bench = FlowBench()
    yield bench
    bench.sim.close()


def taken(verdict):
    return verdict.position, verdict.skip, verdict.length, verdict.upto


@pytest.mark.parametrize("irs", [0, 1, 0x7FFFFF00, 0x80000000, 0xFFFFFFFF - 600, 0xFFFFFFFE, 0xFFFFFFFF], ids=hex)
@pytest.mark.parametrize("length", [1, 600, 4095])
@pytest.mark.parametrize("fin", ["", "F"])
def test_text_and_fin_on_a_syn_ack(b, irs, length, fin):
    """The smallest ring holds them, whatever the numbers; the ACK that establishes the connection acknowledges them."""
    b.irs = irs
    assert b.provision(rcv_log2=12) == Status.OK
    assert b.request(FlowOp.OPEN, a=b.iss, mss=1460) == Status.OK
    sent, verdict = b.receive(SYN_ACK.but(flags="SA" + fin, length=length))
    nxt = 1 + length + len(fin)
    assert taken(verdict) == (0, 0, length, nxt - 1)
    assert [(s.flags, s.seq, s.ack, s.wnd) for s in sent] == [("A", 1, nxt, 4097 - nxt)]
    assert b.state() == (State.CLOSE_WAIT if fin else State.ESTABLISHED)
    if not fin:
        _, verdict = b.receive(Segment(seq=nxt, length=1))
        assert taken(verdict) == (length, 0, 1, nxt)


def test_fin_on_a_syn_ack_when_the_user_has_closed(b):
    b.syn_sent()
    assert b.close() == []
    sent, verdict = b.receive(SYN_ACK.but(flags="SAF", length=10))
    assert taken(verdict) == (0, 0, 10, 11)
    assert [(s.flags, s.seq, s.ack) for s in sent] == [("AF", 1, 12)]
    assert b.state() == State.CLOSING


@pytest.mark.parametrize("more", [dict(length=600), dict(flags="SAF"), dict(flags="SAF", length=1)], ids=str)
def test_syn_ack_with_text_again_because_our_ack_was_lost_is_answered_without_limit(b, more):
    """As a SYN,ACK alone: the peer is honest, and stays in SYN-RECEIVED until it hears of us."""
    b.syn_sent()
    b.sim["invalid_ticks"] = 1000
    sent, _ = b.receive(SYN_ACK.but(**more))
    acknowledged = [(s.flags, s.ack) for s in sent]
    b.sim["may_challenge"] = 0
    for _ in range(3):
        sent, verdict = b.receive(SYN_ACK.but(**more))
        assert [(s.flags, s.ack) for s in sent] == acknowledged
        assert verdict.length == 0


def test_text_on_a_syn_without_ack_comes_again(b):
    """Simultaneous open: it is not taken, and not acknowledged; behind the SYN,ACK it is in order."""
    b.syn_sent()
    sent, verdict = b.receive(Segment("S", seq=0, length=10, mss=1460))
    assert verdict.length == 0 and [(s.flags, s.ack) for s in sent] == [("SA", 1)]
    _, verdict = b.receive(Segment("A", seq=1, length=10))
    assert taken(verdict) == (0, 0, 10, 10)


def test_text_on_a_syn_ack_while_the_line_stands_still_is_acknowledged_when_it_goes_on(b):
    b.established(2)
    b.syn_sent()
    b.tx_ready = False
    for _ in range(24):  # their answers take all places before the transmit path
        b.offer(Segment(seq=0, length=1), id=2)
        b.cycles(20)
    _, verdict = b.receive(SYN_ACK.but(length=600))
    assert taken(verdict) == (0, 0, 600, 600)
    b.seen.tx.clear()
    b.tx_ready = True
    b.cycles(600)
    assert [(tx.id, s.ack) for tx, s in zip(list(b.seen.tx), b.sent(), strict=True)][-1] == (1, 601)
    _, verdict = b.receive(Segment(seq=601, length=100))
    assert taken(verdict) == (600, 0, 100, 700)
