"""What scripts need of a simulation, on the engine: a stop when a frame is sent, times of both directions, static neighbours,
idle time that is skipped and changes nothing."""

import pytest

from tiptoe_verif.native.simulation import Peer, Simulation, Wire
from tiptoe_verif.script.command import DEFAULT
from tiptoe_verif.wire.segment import ARP, SYN, parse_tcp

PEER = {"10.0.0.1": "02:00:00:00:00:01"}


def connecting(library, **options):
    """An engine with a socket that connects to nobody."""
    sim = Simulation(DEFAULT, library=library, **options)
    sock = sim.socket()
    assert sock.connect_ex(("10.0.0.1", 80)) != 0
    return sim


@pytest.fixture(scope="module")
def every_cycle(library):
    """SYNs and their times without anything skipped."""
    with connecting(library, neighbours=PEER) as sim:
        return syns(sim, 2)


def syns(sim, count):
    found = []
    while len(found) < count:
        time_us, frame = sim.next_frame(5_000_000)
        assert sim.now_us() - time_us < 2  # time stands there
        if parse_tcp(frame):
            found.append((time_us, frame))
    return found


def test_skipped_time_is_time(library, every_cycle):
    """The same frames, and a retransmission at the same tick."""
    with connecting(library, neighbours=PEER, skip_idle=True) as sim:
        skipped = syns(sim, 2)
        counters = sim.counters()
    assert all(parse_tcp(frame).flags == SYN for _, frame in skipped)
    assert counters["skipped"] > 0.8 * counters["cycles"]
    assert skipped[1][0] - skipped[0][0] == pytest.approx(1_000_000, abs=1100)
    assert every_cycle[1][0] - every_cycle[0][0] == pytest.approx(skipped[1][0] - skipped[0][0], abs=1100)


def test_static_neighbours_are_not_asked_for(library):
    with connecting(library, skip_idle=True) as sim:
        sim.run_us(5000)
        assert any(int.from_bytes(frame[12:14]) == ARP and frame[21] == 1 for frame in sim.captured())
    with connecting(library, skip_idle=True, neighbours=PEER) as sim:
        _, frame = sim.next_frame(5000)
        while int.from_bytes(frame[12:14]) == ARP:  # the announcement of its own address
            assert frame[28:32] == frame[38:42]
            _, frame = sim.next_frame(5000)
        assert frame[:6].hex(":") == PEER["10.0.0.1"] and parse_tcp(frame).flags == SYN


def test_watchers_see_both_directions_in_order(library):
    with Simulation(DEFAULT, library=library, cycles_per_us=10, skip_idle=True) as sim:
        passed = []
        sim.watchers.append(lambda time_us, frame, to_engine: passed.append((time_us, frame, to_engine)))
        sim.run_us(1000)
        passed.clear()
        asked = bytes.fromhex(
            "ffffffffffff 020000000001 0806 0001080006040001 020000000001 0a000001 000000000000 0a000002"
        )
        sim.inject(asked.ljust(60, b"\0"))
        answer = sim.next_frame(1000)
        assert [to_engine for *_, to_engine in passed] == [True, False]
        assert answer is not None and passed[1][:2] == answer
        assert 0 < passed[1][0] - passed[0][0] < 100


def test_settled_is_when_the_driver_and_the_engine_have_nothing_to_do(library):
    with Simulation(DEFAULT, library=library, cycles_per_us=10, skip_idle=True) as sim:
        listener = sim.socket()
        listener.bind(("", 80))
        listener.listen()
        assert sim.toe.passive.listeners
        before = sim.now_us()
        assert sim.settle()
        assert before < sim.now_us() < before + 1000


def test_next_frame_is_none_when_there_is_none(library):
    with Simulation(DEFAULT, library=library, skip_idle=True) as sim:
        sim.run_us(1000)
        sim.captured()
        before = sim.now_us()
        assert sim.next_frame(500) is None
        assert sim.now_us() == before + 500


def test_no_steps_on_a_wire_or_without_a_driver(library):
    with Simulation(DEFAULT, library=library) as sim:
        Wire(sim, Peer())
        with pytest.raises(RuntimeError, match="on no wire"):
            sim.next_frame(10)
    with Simulation(DEFAULT, library=library, attach=False) as sim, pytest.raises(RuntimeError, match="with a driver"):
        sim.step(10)
    with pytest.raises(ValueError, match="neighbours are the driver's"):
        Simulation(DEFAULT, library=library, attach=False, neighbours=PEER)
