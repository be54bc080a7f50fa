"""DCTCP's program against the formulas of RFC 8257 section 3.3 in floating point."""

import pytest

from tests.hdl.congestion.interpreter import Interpreter
from tests.hdl.flow.congestion_bench import CongestionBench
from tiptoe_hdl.congestion.dctcp import DCTCP

G = 1 / 16
MSS = 1460
M32 = 0xFFFFFFFF


class Estimate:
    """Alpha of section 3.3, a window being what cwnd was when it began."""

    def __init__(self, cwnd):
        self.alpha, self.acked, self.marked, self.window = 1.0, 0, 0, cwnd

    def ack(self, acked, marked, cwnd):
        self.acked += acked
        self.marked += marked
        if self.acked >= self.window:
            self.alpha = self.alpha * (1 - G) + G * self.marked / self.acked
            self.acked, self.marked, self.window = 0, 0, cwnd

    @property
    def decrease(self):
        """256ths that remain."""
        return 256 * (1 - self.alpha / 2)


def news(una, marked, cwnd):
    return dict(
        cwnd=cwnd, una=una & M32, marked=marked & M32, mss=MSS, srtt=0, now=0, before=0, limited=1, tick_us=1000
    )


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.97, 1])
@pytest.mark.parametrize("cwnd", [2 * MSS, 40 * MSS, 2**24 - 1])
def test_alpha_follows_the_marked_share(rng, share, cwnd):
    una, marked = 2**32 - 3 * cwnd, 2**32 - cwnd // 2
    unit, meant = Interpreter(DCTCP), Estimate(cwnd)
    unit.run("begin", **news(una, marked, cwnd))
    for _ in range(400):
        acked = rng.choice([1, MSS, 2 * MSS, cwnd])
        of_it = acked if rng.random() < share else 0
        una, marked = una + acked, marked + of_it
        meant.ack(acked, of_it, cwnd)
        found = unit.run("ack", **news(una, marked, cwnd))
        assert found["growth"] == 0, "NewReno's"
        assert abs(found["decrease"] - meant.decrease) < 1.01
    if share == 1:
        assert found["decrease"] == 128, "Reno, when all is marked"


def test_first_mark_halves():
    """Section 3.3: alpha begins with 1, the careful choice."""
    unit = Interpreter(DCTCP)
    unit.run("begin", **news(0, 0, 10 * MSS))
    assert unit.run("ack", **news(MSS, MSS, 10 * MSS))["decrease"] == 128


def test_marks_of_a_former_life_do_not_count():
    """The count of marked bytes goes on from one connection of an id to the next."""
    unit, meant = Interpreter(DCTCP), Estimate(2 * MSS)
    unit.run("begin", **news(5, 12345, 2 * MSS))
    for k in range(1, 100):
        meant.ack(2 * MSS, 0, 2 * MSS)
        found = unit.run("ack", **news(5 + 2 * k * MSS, 12345, 2 * MSS))
        assert abs(found["decrease"] - meant.decrease) < 1.01
    assert found["decrease"] > 255


def test_more_marked_than_acknowledged_counts_as_all():
    """News that are taken together are of one moment, so it cannot be; but alpha stays 1 at most."""
    unit = Interpreter(DCTCP)
    unit.run("begin", **news(0, 0, MSS))
    for k in range(1, 50):
        assert unit.run("ack", **news(k * MSS, k * 5 * MSS, MSS))["decrease"] == 128


def test_on_the_unit(rng):
    """The unit tells the same, at most 255 256ths."""
    b, meant = CongestionBench(), Interpreter(DCTCP)
    una, marked, cwnd = 2**32 - 7000, 2**32 - 900, 4 * MSS
    b.tell(event="begin", algorithm="dctcp", una=una, marked=marked, cwnd=cwnd)
    b.settle()
    meant.run("begin", **news(una, marked, cwnd))
    for _ in range(60):
        una = una + 2 * MSS & M32
        marked = marked + rng.choice([0, 0, 0, 2 * MSS]) & M32
        b.tell(event="ack", algorithm="dctcp", una=una, marked=marked, cwnd=cwnd)
        b.settle()
        expected = meant.run("ack", **news(una, marked, cwnd))
        assert (b.steering().growth, b.steering().decrease) == (0, min(255, expected["decrease"]))
