"""The processor of congestion control programs, beside the other reading of the instructions."""

import pytest

from tests.hdl.congestion.interpreter import Interpreter
from tests.hdl.flow.congestion_bench import ALL
from tiptoe_hdl.congestion.program import EVENTS, MOST_STEPS, NEWS, SETTINGS, STATE_WORDS, Algorithm, Program
from tiptoe_hdl.flow.congestion import processor
from tiptoe_verif.sim.block import BlockSim

EDGES = [0, 1, 2, 3, 255, 256, 2**16 - 1, 2**16, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
STATE = tuple(f"kept_{n}" for n in range(STATE_WORDS))


class Bench:
    """A processor that has one algorithm, of number 0, and its twin in Python."""

    def __init__(self, monkeypatch, name, programs):
        self.algorithm = Algorithm(name=name, text="", programs=programs)
        monkeypatch.setattr(processor, "built_in", lambda cfg: [(0, self.algorithm)])
        words = str([[vars(i) for i in p.instructions] for p in programs.values()])
        self.sim = BlockSim(f"processor_{name}", processor.Processor(ALL), key=words)
        self.meant = [Interpreter(self.algorithm) for _ in range(ALL.connections)]

    def run(self, event, id, news):
        """Settings, or None when the program was ended, and how many cycles it took."""
        sim = self.sim
        sim["news"], sim["id"], sim["entry"], sim["initial"] = news, id, EVENTS.index(event), self.algorithm.decrease
        sim["start"] = 1
        sim.step(1)
        sim["start"] = 0
        cycles = sim.step(processor.MOST_CYCLES, until=["done"])
        assert sim["done"]
        settings = sim["settings"]
        return {name: getattr(settings, name) for name in SETTINGS} if sim["ended"] else None, cycles


def random_program(rng):
    """Each instruction, each operand's place, in any order; both settings are written last."""
    p, known = Program(STATE), [*NEWS, *STATE]
    for number in range(30):
        target = rng.choice([*STATE, *(f"t{n}" for n in range(14))])
        op = rng.choice(["set", "add", "sub", "diff", "min", "max", "mul", "mul", "div", "div", "less"])
        a, b, c = (rng.choice(known) for _ in range(3))
        if op == "set":
            p.set(target, rng.choice([0, 1, 3, rng.getrandbits(23)]))
        elif op == "less":
            p.less(a, b, f"behind_{number}")
            p.add(a if a in STATE else STATE[0], b, c)
            p.label(f"behind_{number}")
            continue
        elif op == "mul":
            p.mul(target, a, b, rng.choice([0, 1, 8, 16, 31]))
        elif op == "div":
            p.div(target, a, b, c)
        else:
            getattr(p, op)(target, a, b)
        known.append(target)
    for name in SETTINGS:
        p.add(name, known[-1], rng.choice(known))
        p.max(name, rng.choice(known), rng.choice(known))
    return p


@pytest.mark.parametrize("number", range(3))
def test_every_instruction(monkeypatch, rng, number):
    programs = {event: random_program(rng) for event in EVENTS[:2]}
    b = Bench(monkeypatch, f"random_{number}", programs)
    ids = [0, 1, ALL.connections - 1]
    for id in ids:  # what is kept is written before it is read
        b.sim["id"] = id
    for _ in range(60):
        id, event = rng.choice(ids), rng.choice(EVENTS[:2])
        news = {name: rng.choice([*EDGES, rng.getrandbits(32), rng.getrandbits(12)]) for name in NEWS}
        assert b.run(event, id, news)[0] == b.meant[id].run(event, **news)


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_without_a_program_ends_at_once(monkeypatch, event):
    b = Bench(monkeypatch, "nothing", {})
    settings, cycles = b.run(event, 0, dict.fromkeys(NEWS, 1))
    assert settings == {"growth": 0, "decrease": b.algorithm.decrease, "slow": 0} and cycles < 20


def test_a_program_that_does_not_end_is_ended(monkeypatch):
    """Whatever is wrong with a program, the others have their turn."""
    endless, fine = Program(STATE), Program(STATE)
    endless.label("again")
    endless.div("growth", "mss", "cwnd", "una")
    endless.jump("again")
    fine.copy("growth", "mss")
    b = Bench(monkeypatch, "endless", {"begin": endless, "ack": fine})
    for _ in range(2):
        settings, cycles = b.run("begin", 3, dict.fromkeys(NEWS, 2**32 - 1))
        assert settings is None and MOST_STEPS < cycles < processor.MOST_CYCLES
        assert b.run("ack", 3, dict.fromkeys(NEWS, 77))[0]["growth"] == 77
