"""Simulated time, wires and scripted peers, around the stand-in component; the engine itself is tested elsewhere."""

import pytest

from tests.verif.native.standin import StandIn
from tiptoe_verif.native.harness import RuleBroken, build
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Conditions, Impairment, Peer, Simulation, SimulationTimeout, Wire
from tiptoe_verif.wire.pcap import read_pcap

FRAME = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xb5" + bytes(range(46))
"""Of an experimental EtherType, which the monitor has no opinion on."""


@pytest.fixture(scope="module")
def library():
    return build(StandIn(64), "standin64")


@pytest.fixture
def simulation(library):
    simulations = []

    def make(**options):
        options = {"mac": "02:00:00:00:00:02", "attach": False, "library": library, "memory_bytes": 1 << 16} | options
        simulations.append(Simulation("tiny", **options))
        return simulations[-1]

    yield make
    for made in simulations:
        made.close()


def test_time(simulation):
    sim = simulation(cycles_per_us=4)
    sim.run_us(100)
    assert (sim.now_us(), sim.harness.cycle) == (100, 400)
    sim.run_cycles(40)
    assert sim.now_us() == 110
    sim.read32(0)
    sim.run_us(10)
    assert 120 <= sim.now_us() <= 123


def test_run_until(simulation, out_dir):
    sim = simulation(pcap=out_dir / "run.pcap")
    sim.run_until(lambda: sim.now_us() >= 1000, timeout_us=5000)
    assert 1000 <= sim.now_us() <= 1256
    with pytest.raises(SimulationTimeout, match=r"the impossible: not within 500 us \(capture: .*run.pcap\)"):
        sim.run_until(lambda: False, timeout_us=500, what="the impossible")


def test_wait_for_the_interrupt(simulation):
    sim = simulation()
    assert sim.wait(100) is False
    assert sim.now_us() == 100
    sim.write32(0x1C, 1)
    assert sim.wait(100) is True
    assert sim.now_us() < 120
    with_wire = simulation()
    Wire(with_wire, Peer())
    with_wire.write32(0x1C, 1)
    assert with_wire.wait(10_000) is True
    assert with_wire.now_us() < 1000


def test_inject_and_capture(simulation, out_dir):
    sim = simulation(pcap=out_dir / "run.pcap")
    sim.inject(FRAME, at_us=50)
    sim.run_us(49)
    assert sim.captured() == []
    sim.run_us(51)
    assert sim.captured() == [FRAME] and sim.captured() == []
    sim.close()
    (first, _), (second, _) = read_pcap(out_dir / "run.pcap")
    assert 50_000 <= first < second < 80_000


def test_peer_answers_after_its_delay(simulation):
    sim = simulation()
    times = []

    def answer(frame, time_us):
        times.append(time_us)
        return [(25.0, frame[:-1] + b"!")] if len(times) < 4 else None

    peer = Peer(answer)
    Wire(sim, peer, Impairment(delay_us=300))
    peer.send(FRAME, at_us=10)
    sim.run_us(5000)
    # A round: 300 us there, some cycles in the loop, 300 us back, 25 us in the peer.
    assert len(times) == 4 and 610 < times[0] < 630
    assert all(625 <= later - earlier < 645 for earlier, later in zip(times, times[1:], strict=False))
    assert peer.received[0][1] == FRAME


def test_two_engines_echo_for_ever(simulation):
    def trial(seed):
        a, b = simulation(seed=1), simulation(seed=2, mac="02:00:00:00:00:02")
        wire = Wire(a, b, Impairment(delay_us=300, loss=0.02, duplicate=0.02, jitter_us=50, seed=seed))
        for _ in range(20):
            a.inject(FRAME)
        a.run_us(20_000)
        return a.counters(), b.counters(), [channel.summary() for channel in wire.channels]

    first = trial(1)
    assert first == trial(1)
    assert first != trial(2)
    assert first[0]["tx_frames"] > 200
    assert first[0]["cycles"] == first[1]["cycles"]


def test_one_wire_a_node(simulation):
    a, b, c = simulation(), simulation(), Peer()
    Wire(a, b)
    with pytest.raises(ValueError, match="one wire only"):
        Wire(b, c)


def test_nodes_of_different_times_meet(simulation):
    a, b = simulation(), simulation()
    a.run_us(1000)
    Wire(a, b)
    assert b.now_us() == 1000


def test_tasks_run_and_must_not_block(simulation):
    sim = simulation()
    calls = []
    sim.tasks.append(lambda: calls.append(sim.now_us()))
    sim.run_us(10)
    assert calls == [10]
    sim.tasks.append(lambda: sim.wait(5))
    with pytest.raises(RuntimeError, match="must not block"):
        sim.run_us(10)


def test_conditions_reach_the_ports(simulation):
    def trial(**conditions):
        sim = simulation(conditions=Conditions(**conditions))
        sim.inject(FRAME * 20)
        sim.inject(FRAME * 20)
        sim.run_us(5000)
        counters = sim.counters()
        return counters["tx_stalls"], counters["tx_gaps"]

    assert trial() == (0, 0)
    assert trial(tx_stall=0.5)[0] > 20
    assert trial(rx_stall=0.5)[1] > 20
    sim = simulation(conditions=Conditions(line_rate=0.5))
    sim.inject(FRAME * 20)
    sim.inject(FRAME * 20)
    sim.run_us(2000)
    assert sim.counters()["tx_frames"] == 1
    sim = simulation(conditions=Conditions(memory_latency=500))
    sim.write32(0xC, 1)
    sim.run_us(900)
    assert sim.counters()["write_beats"] == 1 and sim.read32(0x10) == 0
    sim.run_us(200)
    assert sim.read32(0x10) == 1


def test_broken_rule_names_the_capture(simulation, out_dir):
    sim = simulation(pcap=out_dir / "broken.pcap", conditions=Conditions(tx_stall=0.9))
    sim.write32(0x24, 1)
    sim.run_us(50)
    sim.inject(FRAME * 4)
    with pytest.raises(RuleBroken, match=r"tx stream.*capture: .*broken.pcap"):
        sim.run_us(1000)


def test_strays_are_found(simulation):
    sim = simulation()
    sim.check()
    sim.write32(4, 1 << 20)
    sim.write32(0xC, 1)
    sim.run_us(100)
    with pytest.raises(RuleBroken, match="1 bursts outside host memory"):
        sim.check()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"config": "huge"}, "no configuration 'huge': there are tiny"),
        ({"ip": "10.0.0"}, "not an IPv4 address"),
        ({"mac": "1:2"}, "not a MAC address"),
        ({"cycles_per_us": 0}, "at least 1"),
        ({"tick_us": 8}, "too short to look at 16 connections"),
        ({"conditions": Conditions(memory_stall=1.0)}, "a probability is 0 to below 1"),
    ],
)
def test_wrong_options(library, options, message):
    with pytest.raises(ValueError, match=message):
        Simulation(**{"config": "tiny", "attach": False, "library": library} | options)


def test_no_sockets_without_a_driver(simulation):
    with pytest.raises(RuntimeError, match="no driver"):
        simulation().socket()


def test_pair(library):
    with Pair("tiny", attach=False, library=library, monitor=False) as pair:
        assert (pair.a.ip, pair.b.ip) == (0x0A000001, 0x0A000002)
        pair.a.inject(FRAME)
        pair.run_until(lambda: pair.b.counters()["rx_frames"] > 3, 20_000)
        pair.check()
