"""The unit that reckons the gaps behind paced data: rates, gaps that are made longer or shorter, clock, queue."""

import heapq
from itertools import count, pairwise

import pytest

from tiptoe_hdl.config import TINY
from tiptoe_hdl.flow.pacing import INTERVAL_FRACTION, Pacing, clock_bits
from tiptoe_verif.sim.block import BlockSim

CFG = TINY.with_(pacing=True)
NOW_BITS = clock_bits(CFG)
ONE = 1 << INTERVAL_FRACTION
"""An interval of one cycle a byte: 125 MB/s at 125 MHz."""
PASS = 15
"""Cycles from a turn to what its pass means for pacing, at least."""


class PacingBench:
    """The unit and, in place of the pipeline, who sends whenever he has a due turn.

    ``sends`` : length of the next segment by id, or None: nothing to send. ``left``: cycle, id and length of what has left.
    """

    def __init__(self, cfg=CFG, now_bits=NOW_BITS, sends=lambda id: 1460):
        self.cfg, self.sends = cfg, sends
        name = f"pacing_{cfg.connections}_{now_bits}"
        self.sim = BlockSim(name, Pacing(cfg, now_bits), key=name)
        self.left, self.other_turns = [], []
        self.stands = set()  # ids whose gap is not over
        self.ready = True
        self.passes = []  # heap of (cycle, number, id, due)
        self.number = count()

    def close(self):
        self.sim.close()

    def departs(self, id, *, length=0, due=0, sets=0, begins=0):
        """A pass comes to its end."""
        spacing = id in self.stands and not due
        self.sim["i__payload"] = dict(
            id=id, length=length, charged=int(length > 0), spacing=int(spacing), due=due, sets=sets, begins=begins
        )
        self.sim["i__valid"] = 1
        self.step(1)
        self.sim["i__valid"] = 0
        if due and not length:
            self.stands.discard(id)
        if length:
            self.stands.add(id)
            self.left.append((self.sim.cycle, id, length))

    def set_rate(self, id, interval):
        self.sim["asked__valid"], self.sim["asked__payload"] = 1, interval
        self.step(1)
        self.sim["asked__valid"] = 0
        self.departs(id, sets=1)
        self.step(10)

    def step(self, cycles):
        """Cycles without a look at what becomes due."""
        self.sim["o__ready"] = 0
        self.sim.step(cycles)

    def run(self, cycles):
        """Let time pass; who is due sends."""
        sim, end = self.sim, self.sim.cycle + cycles
        while sim.cycle < end:
            until = min(end, self.passes[0][0] if self.passes else end)
            if until > sim.cycle:
                if not self.ready:
                    self.step(until - sim.cycle)
                else:
                    sim["o__ready"] = 0
                    sim.step(until - sim.cycle, until=["o__valid"])
                    if sim.cycle < until:
                        self._takes()
                        continue
            if self.passes and self.passes[0][0] <= sim.cycle:
                *_, id, due = heapq.heappop(self.passes)
                length = self.sends(id) if due else None
                self.departs(id, length=length or 0, due=due)
        self.sim["o__ready"] = 0

    def _takes(self):
        turn = self.sim["o__payload"]
        self.sim["o__ready"] = 1
        self.sim.step(1)
        self.sim["o__ready"] = 0
        if turn.due:
            assert turn.id in self.stands, f"{turn.id} is due, and has no gap"
            heapq.heappush(self.passes, (self.sim.cycle + PASS, next(self.number), turn.id, 1))
        else:
            self.other_turns.append((self.sim.cycle, turn.id))
            self.sim["turn__valid"] = 0

    def interval(self, id, since=0):
        """Cycles a byte, as measured: from the first segment's beginning to the last one's."""
        mine = [(cycle, length) for cycle, who, length in self.left if who == id and cycle >= since]
        return (mine[-1][0] - mine[0][0]) / sum(length for _, length in mine[:-1])

    def nothing_inside(self):
        """Every gap ends, and then no turn comes any more."""
        self.sends = lambda id: None
        for _ in range(80):
            if self.stands:
                self.run(1_000_000)
        self.run(1000)
        assert not self.stands and not self.passes and not self.sim["o__valid"]


@pytest.fixture
def b():
    bench = PacingBench()
    yield bench
    bench.close()


@pytest.mark.parametrize(
    "per_byte, length, cycles",
    [
        (0.125, 1460, 40_000),  # 1 GB/s at 125 MHz
        (0.125, 4000, 40_000),
        (0.2, 1460, 125_000),
        (1, 1460, 125_000),
        (1, 100, 125_000),
        (3.7, 536, 1_250_000),
        (12.5, 1460, 1_250_000),
        (125, 1460, 12_500_000),
        (1250, 1460, 25_000_000),
        (12_500, 1460, 125_000_000),  # 10 kB/s, for a second
        (262_143, 48, 125_000_000),
    ],
)
def test_a_rate_is_held(b, per_byte, length, cycles):
    b.sends = lambda id: length
    b.set_rate(3, int(per_byte * ONE))
    b.departs(3, length=length)
    b.run(cycles)
    assert len(b.left) > 3
    assert 0.999 < b.interval(3) / per_byte < 1.01, b.interval(3)
    b.nothing_inside()


def test_what_leaves_within_any_time_is_the_rate_and_a_segment_more(b, rng):
    b.sends = lambda id: rng.choice([1, 48, 536, 1460, 4000])
    b.set_rate(3, 2 * ONE)
    b.departs(3, length=1460)
    b.run(300_000)
    for k in range(len(b.left)):
        sent = 0
        for cycle, _, length in b.left[k : k + 30]:
            assert sent <= (cycle - b.left[k][0]) / 2 + 1.5 * 4000 + 50
            sent += length
    assert 1.99 < b.interval(3) < 2.05
    b.nothing_inside()


def test_no_more_than_half_a_gap_is_made_up_for(b):
    """The line stood still, for long: then the gaps are half as long once, and not until all is made up for."""
    b.sends = lambda id: 1000
    b.set_rate(3, 10 * ONE)
    b.departs(3, length=1000)
    b.run(50_000)
    b.ready = False
    b.run(100_000)
    b.ready = True
    begin = b.sim.cycle
    b.run(100_000)
    late = [cycle for cycle, *_ in b.left if cycle >= begin]
    assert late[0] < begin + 50 and 4990 < late[1] - late[0] < 5100, late[:3]
    assert 9990 < late[2] - late[1] < 10_050
    b.nothing_inside()


@pytest.mark.parametrize("connections", [16, 64])
def test_every_connection_is_paced(connections, rng):
    """Rates over two decades, all at once, more than half of the line together; each is held, none waits for another one."""
    bench = PacingBench(CFG.with_(connections=connections))
    rates = {id: int(ONE * rng.uniform(1, 2) * connections * rng.choice([1, 5, 25])) for id in range(connections)}
    for id, interval in rates.items():
        bench.set_rate(id, interval)
        bench.departs(id, length=1460)
    bench.run(200_000 * connections)
    for id, interval in rates.items():
        assert 0.999 < bench.interval(id) * ONE / interval < 1.02, (id, interval, bench.interval(id) * ONE)
    bench.nothing_inside()
    bench.close()


def test_a_fast_connection_beside_many_slow_ones(rng):
    bench = PacingBench(CFG.with_(connections=64))
    for id in range(1, 64):
        bench.set_rate(id, 1_000 * ONE)
        bench.departs(id, length=1460)
    bench.set_rate(0, ONE // 5)
    bench.departs(0, length=1460)
    bench.run(500_000)
    assert bench.interval(0) < 0.205
    bench.nothing_inside()
    bench.close()


@pytest.mark.parametrize("idle", [1_000, 2**19 - 15_000, 2**19 - 5_000, 2**19 + 5_000, 2**20 - 15_000, 2**20])
def test_a_segment_after_idleness_has_a_whole_gap_behind_it(idle):
    """However the clock stands to the last departure; here one of 20 bits."""
    b = PacingBench(now_bits=20)
    b.set_rate(3, 10 * ONE)
    b.departs(3, length=1000)
    b.sends = lambda id: None
    b.run(20_000)
    b.sim.step(idle)
    b.sends = lambda id: 1000
    b.left.clear()
    b.departs(3, length=1000)
    b.run(35_000)
    cycles = [cycle for cycle, *_ in b.left]
    gaps = [later - earlier for earlier, later in pairwise(cycles)]
    assert len(gaps) == 3 and all(9_980 < gap < 10_050 for gap in gaps), gaps
    b.close()


def test_gaps_across_the_clock_s_wrap_around():
    b = PacingBench(now_bits=20)
    b.set_rate(3, 10 * ONE)
    b.departs(3, length=1000)
    b.run(5_000_000)
    assert 9.99 < b.interval(3) < 10.02
    b.nothing_inside()
    b.close()


def test_data_within_a_gap_makes_it_longer(b):
    """What goes again by a time-out: on the average the rate is held."""
    b.sends = lambda id: None
    b.set_rate(3, 10 * ONE)
    b.departs(3, length=1000)
    begin = b.sim.cycle
    b.run(5_000)
    b.departs(3, length=500)
    b.run(9_900)
    assert 3 in b.stands
    b.run(200)
    assert 3 not in b.stands and b.sim.cycle - begin < 15_200


def test_data_within_a_gap_without_end_makes_it_no_longer_than_the_clock_tells(b):
    """A peer that has a segment go again with each of its own, at the lowest rate: the gap stays ahead of the clock."""
    b.sends = lambda id: None
    b.set_rate(3, (1 << 30) - 1)
    for _ in range(40):
        b.departs(3, length=4095)
        b.step(20)
    b.run(1_000_000)
    assert 3 in b.stands
    b.set_rate(3, ONE)
    b.run(5_000)
    assert 3 not in b.stands


@pytest.mark.parametrize("interval, within", [(0, 50), (1, 50), (ONE, 4_150), (10 * ONE, 41_010)])
def test_a_low_rate_that_is_raised_is_not_waited_for(b, interval, within):
    b.sends = lambda id: None
    b.set_rate(3, (1 << 30) - 1)
    b.departs(3, length=1460)
    b.run(100_000)
    assert 3 in b.stands
    b.set_rate(3, interval)
    b.run(within)
    assert 3 not in b.stands


def test_a_rate_that_is_set_again_and_again_is_held(b):
    b.set_rate(3, 10 * ONE)
    b.departs(3, length=1460)
    for _ in range(300):
        b.run(1_000)
        b.set_rate(3, 10 * ONE)
    assert 9.99 < b.interval(3) < 10.05
    b.set_rate(3, 10 * ONE)
    b.nothing_inside()


def test_an_id_that_begins_anew_has_no_gap(b):
    b.sends = lambda id: None
    b.set_rate(3, (1 << 30) - 1)
    b.departs(3, length=1460)
    b.run(1_000)
    b.departs(3, sets=1, begins=1)
    b.run(50)
    assert 3 not in b.stands


def test_other_turns_pass_at_once_and_due_ones_go_between(b):
    """A turn without a gap is there in its cycle; with one that is due, they go in turn."""
    b.sim["turn__valid"], b.sim["turn__payload"] = 1, 5
    b.sim.step(0)
    assert b.sim["o__valid"] and (b.sim["o__payload"].id, b.sim["o__payload"].due) == (5, 0)
    b.sim["turn__valid"] = 0
    b.sends = lambda id: None
    for id in range(16):
        b.set_rate(id, ONE)
        b.departs(id, length=1000)
    b.step(20_000)
    order = []
    b.sim["turn__valid"], b.sim["turn__payload"] = 1, 5
    for _ in range(40):
        b.sim["o__ready"] = 0
        b.sim.step(0)
        if b.sim["o__valid"]:
            turn = b.sim["o__payload"]
            b.step(3)
            assert b.sim["o__valid"] and (b.sim["o__payload"].id, b.sim["o__payload"].due) == (turn.id, turn.due)
            order.append((turn.id, turn.due))
            b.sim["o__ready"] = 1
        b.sim.step(1)
    due = [id for id, is_due in order if is_due]
    assert sorted(due) == list(range(16))
    assert [is_due for _, is_due in order[:32]] == [1, 0] * 16
