"""Out-of-order data against a model: RFC 9293 section 3.10.7.4 (SHLD-31), RFC 2018 section 4."""

import random

import pytest

from tests.hdl.flow.bench import TINY, FlowBench, Segment

WINDOW = 1 << 14


class Model:
    """rcv_nxt and the intervals behind it, counted from the peer's ISN."""

    def __init__(self, most):
        self.nxt, self.ahead, self.most, self.newest = 1, [], most, None

    def take(self, start, end):
        """A segment with text [start, end), within the window; returns whether any of it is placed."""
        if end <= self.nxt:
            return False
        if start <= self.nxt:
            self.nxt = end
            while self.ahead and self.ahead[0][0] <= self.nxt:
                self.nxt = max(self.nxt, self.ahead.pop(0)[1])
            self.newest = None
            return True
        touched = [one for one in self.ahead if one[0] <= end and start <= one[1]]
        if not touched and len(self.ahead) == self.most:
            return False
        merged = (min([start, *(one[0] for one in touched)]), max([end, *(one[1] for one in touched)]))
        self.ahead = sorted([one for one in self.ahead if one not in touched] + [merged])
        self.newest = self.ahead.index(merged)
        return True


@pytest.mark.parametrize("most", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(3, 20))])
def test_established_segments_in_any_order_and_size(seed, most):
    """Small pieces and large ones that cover several intervals at once, in order and ahead."""
    rng = random.Random(f"{seed} {most}")
    print(f"seed {seed}")
    b = FlowBench(TINY.with_(ooo_intervals=most, name=f"tiny{most}"))
    b.established(sack_ok=False)
    model, read = Model(most), 0
    for _ in range(150):
        start = max(1, model.nxt + rng.choice((-300, -1, 0, 0, 1, 100, 400, 900, 2000)))
        end = start + rng.choice((1, 50, 100, 300, 1000, 1400))
        if model.ahead and rng.random() < 0.3:  # right at an edge
            start = rng.choice(rng.choice(model.ahead)) + rng.choice((-1, 0, 1))
            end = start + rng.choice((1, 10, 1400))
        start = max(1, start)
        end = min(max(end, start + 1), read + WINDOW)
        if end <= start:
            continue
        placed = model.take(start, end)
        _, verdict = b.receive(Segment("A", seq=start, length=end - start), settle=60)
        assert (verdict.length > 0) == placed
        assert verdict.upto == model.nxt - 1
        intervals, newest = b.ahead()
        assert intervals == model.ahead
        if model.newest is not None:
            assert newest == model.newest
        if model.nxt - read > 4000:
            read = model.nxt - 1
            b.bell(1, read, settle=60)
    assert model.nxt > 3000


@pytest.mark.parametrize("peer", [False, True], ids=["peer without", "peer with"])
@pytest.mark.parametrize("own", [0, 1], ids=["off", "on"])
def test_established_sack_is_used_if_both_permit_it(own, peer):
    b = FlowBench(sack=own)
    syn = b.syn_sent()
    assert syn.sack_ok == bool(own)
    b.receive(Segment("SA", seq=0, ack=1, wnd=8192, mss=1460, sack_ok=peer))
    assert b.tcb()["sack_ok"] == (own and peer)
    for k in range(1, 4):
        sent, _ = b.receive(Segment("A", seq=1 + 200 * k, length=100))
        assert [s.sacks for s in sent] == [k if own and peer else 0]
    # All filled but the last one; a part of the second comes twice.
    for k in range(2):
        sent, _ = b.receive(Segment("A", seq=1 + 200 * k, length=200))
    told = (2, (201, 301)) if own and peer else (0, None)
    assert [(s.ack, s.sacks, s.twice) for s in sent] == [(501, *told)]


def test_established_data_leaves_room_for_the_blocks():
    """RFC 6691: the options are taken off what a segment carries."""
    b = FlowBench(sack=1)
    b.established(mss=1000, wnd=60000, sack_ok=True)
    for k in (1, 2):
        b.receive(Segment("A", seq=1 + 200 * k, length=100, wnd=60000))
    sent = b.bell(0, 3000)
    assert [(s.seq, s.length, s.sacks) for s in sent] == [(1, 980, 2), (981, 980, 2), (1961, 980, 2), (2941, 60, 2)]


def test_established_no_blocks_behind_the_peer_s_fin():
    """A peer without manners: its FIN stands in front of what it has sent already, right at it or apart. What is behind the FIN
    is not acknowledged, and not told as if it ought to be (RFC 9293 section 3.10.7.4, eighth)."""
    for gap in (0, 1, 100):
        b = FlowBench(sack=1)
        b.established(sack_ok=True)
        sent, _ = b.receive(Segment("A", seq=12 + gap, length=100))
        assert [(s.ack, s.sacks) for s in sent] == [(1, 1)]
        sent, _ = b.receive(Segment("FA", seq=1, length=10))
        assert [(s.ack, s.sacks) for s in sent] == [(12, 0)]
        sent, _ = b.receive(Segment("A", seq=12 + gap, length=100))  # again: where we are
        assert [(s.ack, s.sacks) for s in sent] == [(12, 0)]
