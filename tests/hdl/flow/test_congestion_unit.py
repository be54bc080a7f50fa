"""The congestion control unit: what it says follows from the last life, the last algorithm, and every loss, whatever comes
when."""

import pytest

from tests.hdl.congestion.interpreter import Interpreter
from tests.hdl.flow.congestion_bench import ALL, CongestionBench
from tiptoe_hdl.config import TINY
from tiptoe_hdl.congestion import ALGORITHMS
from tiptoe_hdl.congestion.cubic import BETA, CUBIC
from tiptoe_hdl.congestion.program import NEVER, Algorithm, Program, Slow
from tiptoe_hdl.flow.congestion import processor, unit


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_a_connection_begins_with_what_its_algorithm_says(algorithm):
    b = CongestionBench()
    b.tell(event="begin", algorithm=algorithm.name)
    for _ in range(2):  # at once, and behind its program
        now = b.steering()
        assert (now.growth, now.decrease, now.first_ack, now.hosts) == (
            algorithm.growth, algorithm.decrease, algorithm.first_ack, algorithm.hosts,
        )  # fmt: skip
        b.settle()


def test_an_algorithm_that_is_not_built_in_is_newreno():
    b = CongestionBench(TINY)
    b.tell(event="begin", algorithm="cubic")
    assert (b.steering().growth, b.steering().decrease) == (0, 128)


def events(rng, count):
    """Random events of one connection, with news that fit each other near every wrap-around."""
    una, now, cwnd = 2**32 - 5000, 2**20 - 300, 40_000
    for _ in range(count):
        event = rng.choice(["ack"] * 12 + ["loss", "timeout"])
        acked, limited = rng.choice([1, 1000, 2920, 60_000]), rng.random() < 0.8
        una, now = (una + acked) & 0xFFFFFFFF, now + rng.choice([0, 1, 7, 100, 3000])
        before = cwnd
        if event != "ack":
            cwnd = max(2 * 1460, cwnd * BETA >> 8)
        else:
            cwnd = min(2**24 - 1, cwnd + rng.choice([0, 1460, 1460, 300_000]))
        yield event, now, before, dict(cwnd=cwnd, una=una, mss=1460, srtt=rng.choice([0, 8, 800]), limited=int(limited))


@pytest.mark.parametrize("tick_us", [1, 1000, 65535])
def test_the_unit_runs_programs_as_they_are_meant(rng, tick_us):
    b, meant = CongestionBench(tick_us=tick_us), Interpreter(CUBIC)
    idle = dict(srtt=0, limited=0, mss=1460, cwnd=10, una=0, now=0, before=0, tick_us=tick_us)
    b.tell(event="begin")
    b.settle()
    meant.run("begin", **idle)
    for event, b.now, before, told in events(rng, 60):
        b.tell(event=event, before=before, **told)
        b.settle()
        expected = meant.run(
            event, **told, now=(b.now << 12) & 0xFFFFFFFF, before=before if event != "ack" else 0, tick_us=tick_us
        )
        now = b.steering()
        assert (now.growth, now.decrease) == (min(expected["growth"], NEVER), expected["decrease"]), (event, told)


@pytest.mark.parametrize("connections", [16, 64, 1024])
def test_connections_do_not_touch_each_other(connections):
    """All of them at once, in any order: each ends as it would alone."""
    cfg = ALL.with_(name=f"all_{connections}", connections=connections)
    b, meant = CongestionBench(cfg), {id: Interpreter(CUBIC) for id in range(connections)}
    for id in meant:
        b.tell(id, "begin")
    b.settle(2500 * connections)
    expected = {}
    for id, interpreter in meant.items():
        interpreter.run("begin", srtt=0, limited=0, mss=1, cwnd=10, una=0, now=0, before=0, tick_us=1000)
        cwnd = 20_000 + 500 * id
        b.tell(id, "loss", before=2 * cwnd, cwnd=cwnd)
        b.tell(id, "ack", cwnd=cwnd, una=id, srtt=8 * id)  # before the loss can be looked at
        told = dict(cwnd=cwnd, una=id, mss=1000, srtt=8 * id, limited=1, now=0, before=2 * cwnd, tick_us=1000)
        interpreter.run("loss", **told)
        expected[id] = min(interpreter.run("ack", **told)["growth"], NEVER)
    b.settle(16_000 * connections)
    assert {id: b.steering(id).growth for id in meant} == expected
    assert len(set(expected.values())) > connections // 2


@pytest.mark.parametrize("delay", [*range(1, 60), *range(60, 1500, 37)])
def test_a_new_life_never_sees_what_was_reckoned_for_the_former_one(delay):
    b = CongestionBench()
    b.tell(event="begin")
    b.tell(event="loss", cwnd=30_000, before=60_000)
    b.settle()
    b.tell(event="ack", cwnd=30_000, una=1000)
    b.sim.step(delay)
    b.tell(event="begin", algorithm="reno")
    for _ in range(40):
        now = b.steering()
        assert (now.growth, now.decrease, now.first_ack) == (0, 128, True)
        b.sim.step(350)
    b.tell(event="begin", algorithm="cubic")
    b.settle()
    # A round trip of 1 s: W_cubic(1) is 30,000 + 400 bytes; with the former life's w_max it would be 47,000, with its time
    # more.
    b.tell(event="ack", cwnd=30_000, una=2000, srtt=8000)
    b.settle()
    assert 70_000 <= b.steering().growth <= 80_000


def test_losses_are_not_lost_among_acknowledgements():
    """More news than programs can follow: one an eight cycles, of all connections."""
    b = CongestionBench()
    for id in range(ALL.connections):
        b.tell(id, "begin")
    b.settle(40_000)
    for id in range(ALL.connections):
        b.tell(id, "loss", before=100_000, cwnd=70_000)
    for round in range(400):
        b.tell(round % ALL.connections, "ack", cwnd=70_000, una=1000 * round)
        b.sim.step(7)
    b.settle(300_000)
    b.now += 1000
    for id in range(ALL.connections):
        b.tell(id, "ack", cwnd=70_000, una=400_000, srtt=8000)
    b.settle(300_000)
    for id in range(ALL.connections):
        # One second behind the loss, one ahead: K is 4.2 s, W_cubic(2) 95,700. Without the loss W_est would be 73,000.
        assert 2600 <= b.steering(id).growth <= 2850


class SlowStart:
    """HyStart++ in a unit: samples of round trips, in ticks, each a round behind the one before."""

    def __init__(self, algorithm, *samples):
        self.b, self.algorithm, self.una = CongestionBench(), algorithm, 0
        self.b.tell(event="begin", algorithm=algorithm)
        self.b.settle()
        for sample in samples:
            self.sample(sample)
            self.b.settle()

    def sample(self, sample, acked=20_000):
        self.una += acked
        self.b.tell(event="rtt", algorithm=self.algorithm, before=sample, una=self.una)

    def timeout(self):
        self.b.tell(event="timeout", algorithm=self.algorithm, before=10_000, cwnd=1000, una=self.una)


@pytest.mark.parametrize("algorithm", ["cubic", "newreno"])
@pytest.mark.parametrize("gap", [1, 30, 300])
def test_a_sample_that_waits_behind_a_time_out_tells_nothing_of_the_slow_start_behind_it(algorithm, gap):
    """RFC 9406 section 4.3: the first one only. Nothing is told of that one, so what is said of it once stays."""
    s = SlowStart(algorithm, 20, 20, 40, 40)
    assert s.b.steering().slow == Slow.GENTLY
    s.sample(40, acked=1000)
    s.b.sim.step(gap)
    s.timeout()
    s.b.settle()
    assert s.b.steering().slow == Slow.STARTS


@pytest.mark.parametrize("algorithm", ["cubic", "newreno"])
@pytest.mark.parametrize("samples", [(20, 20, 40, 40, 40, 40, 40), (20, 30, 46)], ids=["by rounds", "by half"])
@pytest.mark.parametrize("gap", [60, 200, 400])
def test_the_end_of_slow_start_stays_said_until_it_is_seen(algorithm, samples, gap):
    """Acknowledgements may come in pairs: the second one's sample, while the first one's is looked at."""
    s = SlowStart(algorithm, *samples)
    s.sample(samples[-1])
    s.b.sim.step(gap)
    s.sample(samples[-1], acked=1000)
    s.b.settle()
    assert s.b.steering().slow == Slow.ENDS


@pytest.mark.parametrize(
    "written, is_", [(0, 128), (1, 128), (127, 128), (128, 128), (200, 200), (255, 255), (256, 255), (2**22, 255)]
)
def test_what_a_program_writes_leaves_half_at_least(monkeypatch, written, is_):
    """So cwnd stays at two segments or more, whatever a program says."""
    program = Program()
    program.set("decrease", written)
    algorithms = [(2, Algorithm(name="x", text="", programs={"ack": program}))]
    for module in (unit, processor):
        monkeypatch.setattr(module, "built_in", lambda cfg: algorithms)
    b = CongestionBench(ALL.with_(name=f"decrease_{written}"))
    b.tell(event="begin")
    b.tell(event="ack")
    b.settle()
    assert b.steering().decrease == is_
