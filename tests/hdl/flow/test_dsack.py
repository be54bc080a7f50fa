"""What has come twice is told in the first SACK block of the acknowledgement (D-SACK, RFC 2883): its examples, and what lies
around them. Sequence numbers pass 0."""

import pytest

from tests.hdl.flow.bench import FlowBench, Segment


def established(sack_ok=True, **settings):
    b = FlowBench(sack=1, **settings)
    b.established(sack_ok=sack_ok)
    return b


def data(begin, end, **changes):
    return Segment(seq=begin, length=end - begin, **changes)


# name: segments as (begin, end), and of the last one's acknowledgement: number, D-SACK, blocks
EXAMPLES = {
    # Section 4.1.1, 4.1.2: a lost acknowledgement; a lost segment besides
    "duplicate below": ([(1, 501), (501, 1001), (1, 501)], 1001, (1, 501), 1),
    "duplicate below, a gap besides": ([(1, 501), (1001, 1501), (1501, 2001), (1, 501)], 501, (1, 501), 2),
    # Section 4.1.3: what arrives ahead of a gap arrives again
    "duplicate ahead of a gap": ([(501, 1001), (1501, 2001), (501, 1001)], 1, (501, 1001), 3),
    # Section 4.2.1: parts
    "part below, the rest new": ([(1, 501), (1, 1001)], 1001, (1, 501), 1),
    "part below, a gap besides": ([(1, 501), (1501, 2001), (1, 1001)], 1001, (1, 501), 2),
    "part of what was one segment": ([(1, 1001), (501, 1001)], 1001, (501, 1001), 1),
    "middle of it": ([(1, 1001), (301, 601)], 1001, (301, 601), 1),
    "part of an interval: its left": ([(501, 1501), (501, 701)], 1, (501, 701), 2),
    "its right": ([(501, 1501), (1301, 1501)], 1, (1301, 1501), 2),
    "its middle": ([(501, 1501), (701, 801)], 1, (701, 801), 2),
    "a byte": ([(1, 501), (500, 501)], 501, (500, 501), 1),
    # Section 4.2.2: two parts that are old: the first
    "two parts, one below": ([(1, 501), (1001, 1501), (1, 2001)], 2001, (1, 501), 1),
    # What is not told
    "new": ([(1, 501), (501, 1001), (1001, 1501), (1501, 2001)], 2001, None, 0),
    "overlaps an interval and brings something": ([(501, 1001), (701, 1301)], 1, None, 1),
    "covers an interval": ([(501, 1001), (401, 1101)], 1, None, 1),
    "touches one": ([(501, 1001), (1001, 1501)], 1, None, 1),
    "fills a gap": ([(501, 1001), (1, 501)], 1001, None, 0),
}


@pytest.mark.parametrize("pieces, ack, twice, sacks", EXAMPLES.values(), ids=EXAMPLES)
def test_what_came_twice_is_told_at_once(pieces, ack, twice, sacks):
    b = established()
    for piece in pieces:
        sent, _ = b.receive(data(*piece))
    assert [(s.flags, s.length, s.ack, s.twice, s.sacks) for s in sent] == [("A", 0, ack, twice, sacks)]


def test_room_for_four_blocks_one_of_the_list_is_left_out():
    b = established()
    for k in range(4):
        b.receive(data(1001 + 1000 * k, 1501 + 1000 * k))
    sent, _ = b.receive(data(3001, 3501))
    assert [(s.ack, s.twice, s.sacks) for s in sent] == [(1, (3001, 3501), 4)]
    b.sim["sack_id"] = 1
    b.cycles(3)
    assert b.sim["sack"].newest == 2, "its block comes next (section 4)"


def test_a_duplicate_is_told_once():
    """Section 4: each sequence in at most one block, so two duplicates make two."""
    b = established()
    b.receive(data(1, 501))
    b.ticks(60)
    for _ in range(2):
        sent, _ = b.receive(data(1, 501))
        assert [s.twice for s in sent] == [(1, 501)]
    for piece in ((501, 1001), (1001, 1501)):
        sent, _ = b.receive(data(*piece))
    assert [(s.ack, s.twice, s.sacks) for s in sent] == [(1501, None, 0)]


def test_without_agreement_nothing_is_told():
    b = established(sack_ok=False)
    b.receive(data(1, 501))
    sent, _ = b.receive(data(1, 501))
    assert [(s.ack, s.twice, s.sacks) for s in sent] == [(501, None, 0)]
    sent, _ = b.receive(data(1, 1001))
    assert [(s.ack, s.twice) for s in sent] in ([], [(1001, None)])


NOT_DATA = {
    "an empty segment": Segment(seq=1),
    "its FIN, at which the peer closes": Segment("FA", seq=501),
    "a keep-alive": Segment(seq=500),
    "a reset": Segment("R", seq=1, length=500),
    "an acknowledgement from beyond": data(1, 501, ack=2**31),
}


@pytest.mark.parametrize("segment", NOT_DATA.values(), ids=NOT_DATA)
def test_what_brings_no_data_or_is_not_taken_tells_nothing(segment):
    b = established()
    b.receive(data(1, 501))
    sent, _ = b.receive(segment)
    assert [s.twice for s in sent if s.twice] == []


def test_behind_the_peers_fin():
    """No other blocks are told then; what comes again is."""
    b = established()
    b.receive(data(1, 501))
    b.receive(Segment("FA", seq=501))
    sent, _ = b.receive(data(1, 501))
    assert [(s.ack, s.twice, s.sacks) for s in sent] == [(502, (1, 501), 1)]


def test_fin_with_data_that_came_before():
    b = established()
    b.receive(data(1, 501))
    sent, _ = b.receive(data(1, 501, flags="FA"))
    assert [(s.ack, s.twice) for s in sent] == [(502, (1, 501))]


def test_acknowledgement_that_carries_data_tells_nothing():
    """The block goes without data only."""
    b = established()
    b.bell(0, 16_000)
    b.receive(data(1, 501))
    sent, _ = b.receive(data(1, 1001, ack=1461, wnd=60_000))
    assert sent and all(s.length for s in sent) and not any(s.twice for s in sent)


def test_line_is_busy_the_acknowledgement_comes_without():
    """A pass without a credit does not catch up; the next duplicate is told by its own bounds."""
    b = established()
    b.receive(data(1, 501))
    b.tx_ready = False
    for _ in range(30):
        b.receive(data(1, 501))
    b.tx_ready = True
    b.seen.tx.clear()
    b.cycles(2000)
    assert {s.twice for s in b.sent()} <= {None, (1, 501)}
    sent, _ = b.receive(data(101, 301))
    assert [s.twice for s in sent] == [(101, 301)]


def test_connections_side_by_side_tell_each_its_own():
    """Back to back, so that several bounds are under way."""
    b = FlowBench(sack=1)
    for id in range(1, 7):
        b.established(id=id, sack_ok=True)
        b.receive(data(1, 1001), id)
    b.seen.tx.clear()
    for _ in range(5):
        for id in range(1, 7):
            b.offer(data(100 * id, 100 * id + id), id)
    b.cycles(2000)
    told = [(tx.id, (tx.twice_start - b.irs) & 0xFFFFFFFF, tx.mss) for tx in b.seen.tx]
    assert sorted(told) == sorted((id, 100 * id, id) for id in range(1, 7) for _ in range(5))
