"""`tiptoe fuzz`: the engine holds, each kind of fault is found, and a finding is made short."""

import os

import pytest
from rich.console import Console

from tests.configs import EVERYTHING
from tiptoe_verif.console import console
from tiptoe_verif.fuzz import command
from tiptoe_verif.fuzz.bystander import Bystander
from tiptoe_verif.fuzz.command import fuzz, play, run_fuzz, same_kind
from tiptoe_verif.fuzz.minimise import minimise
from tiptoe_verif.fuzz.steps import OVER_V6, Act, Frame, Polite, Wait, choose
from tiptoe_verif.fuzz.world import World
from tiptoe_verif.wire.segment import ACK, SYN, Segment, ip_number, pack_tcp

PASSIVE = 0
GREETING = [Polite(PASSIVE, 0), Wait(1000), Polite(PASSIVE, 0), Wait(1000)]
"""SYN, and the ACK of the engine's SYN,ACK."""


STRAY = Segment(ip_number("10.0.0.1"), ip_number("10.0.0.2"), 1, 2, 3, 4, ACK, 5, 0, None, b"")
"""Of no connection: it draws a reset."""


def seed(rng):
    return int(os.environ.get("TIPTOE_SEED") or rng.randrange(1 << 16))


@pytest.mark.parametrize("part", range(2))
def test_the_engine_holds(part, rng):
    chosen = seed(rng) + part
    found = fuzz("tiny", chosen, 5000, console)
    assert found is None, f"tiptoe fuzz --seed {chosen} --frames 5000: {found}"


def test_the_engine_with_everything_holds(rng):
    chosen = seed(rng)
    found = fuzz(EVERYTHING, chosen, 3000, console)
    assert found is None, f"seed {chosen}: {found}"


@pytest.mark.soak
def test_the_engine_holds_for_a_million_frames(rng):
    chosen, frames = seed(rng), int(os.environ.get("TIPTOE_FUZZ_FRAMES", "1000000"))
    found = fuzz("tiny", chosen, frames, console)
    assert found is None, f"tiptoe fuzz --seed {chosen} --frames {frames}: {found}"


@pytest.mark.parametrize(("config", "slots"), [("tiny", (0, 1)), (EVERYTHING, (0, 2, 3, 4, 5, 6))], ids=["tiny", "all"])
def test_both_ways_of_opening_reach_data_in_both_directions(config, slots):
    """The steps do what they say, with both versions of IP and at each listener: else the fuzzer would knock at closed doors."""
    for slot in slots:
        world = World(config, 1)
        assert (world.peers[slot].ip >> 32 != 0) == (config == EVERYTHING and slot in OVER_V6)
        for step in [
            *([Act(slot, "open", 0), Wait(4000)] if slot % 2 else []),
            *[Polite(slot, 0), Wait(1000)] * 2,
            Polite(slot, 1 + 16 * 499),
            Wait(1000),
            Act(slot, "send", 700),
            Wait(1000),
            Act(slot, "receive", 4999),
        ]:
            world.do(step)
        peer, made = world.peers[slot], world.connections[slot]
        assert made.received == 500 and made.sent == 701
        assert peer.rcv_nxt - peer.irs - 1 & 0xFFFFFFFF == 701
        world.calm()
        world.close()


def test_the_same_seed_gives_the_same_run(rng):
    steps = [choose(rng) for _ in range(200)]
    frames = []
    for _ in range(2):
        world = World("tiny", 3)
        for step in steps:
            world.do(step)
        frames.append((world.sim.harness.cycle, world.sent_frames))
        world.close()
    assert frames[0] == frames[1]


FAULTS = {
    "a byte is delivered wrong": "other bytes were delivered",
    "an id is lost": "every id back",
    "the bystander starves": "bytes more of the bystander",
    "it does not fall silent": "goes on sending",
    "the driver wonders": "the driver counts",
    "the wire monitor's word": "WireError",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, monkeypatch):
    data = [Polite(PASSIVE, 1 + 16 * 499), Wait(1000), Act(PASSIVE, "receive", 4999)]
    begin, calm = World.__init__, World.calm

    def world(self, *words):
        begin(self, *words)
        if fault == "an id is lost":
            self.sim.toe.engine.ids.release = lambda *_, **__: None
        elif fault == "the driver wonders":
            self.sim.toe.counters["bad_positions"] += 1
        elif fault == "the wire monitor's word":
            self.sim.monitor.mac ^= 1

    def disturbed(self):
        self.run(1000)
        if fault == "a byte is delivered wrong":
            self.connections[PASSIVE].got(b"x" * 20)
        elif fault == "the bystander starves":
            monkeypatch.setattr(Bystander, "turn", lambda *_: None)
        elif fault == "it does not fall silent":
            monkeypatch.setattr("tiptoe_verif.fuzz.world.QUIET_FOR", 50_000)
            self.sim.tasks.append(lambda: self.inject(pack_tcp(STRAY)))
        calm(self)

    monkeypatch.setattr(World, "__init__", world)
    monkeypatch.setattr(World, "calm", disturbed)
    monkeypatch.setattr("tiptoe_verif.fuzz.world.PATIENCE", 50_000)
    assert FAULTS[fault] in play("tiny", 1, GREETING + data)


def test_a_finding_is_made_short_and_told(monkeypatch, tmp_path):
    """A seeded fault: the engine's SYN,ACK to slot 4 breaks a rule."""
    monkeypatch.setattr(command, "BUILD", tmp_path)
    original = World._from_engine

    def broken(self, frame):
        original(self, frame)
        if self.peers[4].irs is not None:
            raise AssertionError("slot 4 has a SYN of the engine")

    monkeypatch.setattr(World, "_from_engine", broken)
    told = Console(record=True, width=200)
    assert run_fuzz("tiny", 1, 2000, 40, told) == 1
    said = told.export_text()
    assert "slot 4 has a SYN of the engine" in said and "seed 1, world 100000: " in said
    steps = [line for line in said.splitlines() if line.startswith("  4: ")]
    assert steps and len([line for line in said.splitlines() if line.startswith("  ")]) < 12
    assert list((tmp_path / "fuzz").glob("*.pcap"))


def test_minimise():
    wanted = {3, 17, 40}
    calls = []

    def fails(steps):
        calls.append(len(steps))
        return wanted <= set(steps)

    assert minimise(list(range(64)), fails, 1000) == [3, 17, 40]
    assert minimise(list(range(64)), lambda steps: True, 1000) == [63]
    calls.clear()
    assert wanted <= set(minimise(list(range(64)), fails, 5))
    assert len(calls) == 5


def test_findings_of_one_kind_differ_in_numbers_only():
    assert same_kind("WireError: frame 12: 3 bytes beyond", "WireError: frame 9: 44 bytes beyond")
    assert not same_kind("WireError: frame 12: beyond", "Broken: 12")
    assert not same_kind("", "Broken: 12")


def test_steps_are_told_in_words():
    step = Frame(3, SYN | ACK, ("nxt", -1), ("una", 2), 0, 5, b"\2\4\0\1", 0, "cut", "own")
    assert str(step) == "3: [SA] seq nxt-1 ack una+2 wnd 0 length 5 options 02040001 cut wrong from own"
