"""Engines that do stand still, for reasons outside of them: noticed, reset, and the next connection works."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.driver.on_engine.bench import RINGS, Flow, carry, connect, pair
from tiptoe_driver import DeviceState
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.toe.standstill import Action
from tiptoe_verif.native.pair import Pair

TICKS = 5
TICK_US = 1000
LOOK_US = 4_000
DRIVER = {
    **RINGS,
    "registers": {reg.REG_MSL_TICKS: 3, reg.REG_WATCHDOG_TICKS: TICKS},
    "watchdog_us": LOOK_US,
    "on_standstill": "reset",
}


@pytest.fixture
def two(out_dir) -> Iterator[Pair]:
    """Two engines; the first one's driver may reset it."""
    with pair(pcap=out_dir / "wire.pcap", a={"driver": DRIVER}) as made:
        yield made
        made.check()


def commands_are_lost(two: Pair) -> Callable[[], None]:
    """COMMAND_TAIL reaches the engine no more until its next reset: it knows of no command, and its watchdog of nothing."""
    gate = two.a.toe.engine.device
    write = gate.write32

    def broken(address: int, value: int) -> None:
        if address == reg.REG_CONTROL and value & reg.CONTROL_SOFT_RESET:
            gate.write32 = write
        if address != reg.REG_COMMAND_TAIL:
            write(address, value)

    gate.write32 = broken
    return lambda: None


def line_takes_nothing(two: Pair) -> Callable[[], None]:
    """The MAC is held up, by pause frames perhaps, after the next frame. Frames of the host wait."""
    two.a.harness.set_line(tx=1e-6)
    for _ in range(40):
        assert two.a.toe.hostif.transmit(bytes.fromhex("ffffffffffff 020000000001 88b5") + bytes(46))
    return lambda: two.a.harness.set_line()


def memory_answers_late(two: Pair) -> Callable[[], None]:
    """What is asked of memory now is answered after 60 ms: no command is read, no event written."""
    two.a.harness.set_memory(latency=60_000)
    return lambda: two.a.harness.set_memory(latency=20)


CAUSES = {
    "commands_are_lost": (commands_are_lost, "driver", {"commands"}),
    "line_takes_nothing": (line_takes_nothing, "engine", {"commands"}),
    "memory_answers_late": (memory_answers_late, "engine", {"commands", "events"}),
}


def use(two: Pair, port: int, rng: random.Random) -> None:
    """A connection, data both ways."""
    client, server, listener = connect(two, port)
    data = rng.randbytes(5000)
    there = Flow(client, server, data, rng)
    carry(two, there, Flow(server, client, b"back", rng))
    assert there.got == data
    for sock in (client, server, listener):
        sock.close()


@pytest.mark.parametrize("cause", CAUSES)
def test_reset_and_the_next_connection_works(two: Pair, rng: random.Random, cause: str) -> None:
    break_it, by, what = CAUSES[cause]
    toe = two.a.toe
    told = []
    toe.on_standstill = told.append
    listener = two.a.socket()
    listener.bind(("", 80))
    listener.listen()
    client, server, _ = connect(two, 81)
    two.run_us(2 * TICKS * TICK_US)
    repair = break_it(two)
    others = [two.a.socket() for _ in range(3)]
    for sock in others:
        sock.connect_ex(("10.0.0.2", 81))
    two.run_until(lambda: told, 100_000, "the standstill")
    assert told[0].action is Action.RESET and told[0].by == by and what & set(told[0].what), told
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED
    assert all(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.ENETDOWN, errno.ECONNABORTED) for sock in others
    )
    repair()
    two.run_until(lambda: toe.state is DeviceState.RUNNING, 500_000, "the device again")
    for sock in (client, *others):
        sock.close()
    two.run_us(5_000)
    assert toe.counters["watchdog_resets"] == 1 and not toe.counters["reset_failed"]
    ids = toe.engine.ids
    assert ids.available + ids.stocked == len(ids.toepcbs) and not ids.releasing
    # The peer learns of it when it next sends.
    server.send(b"are you there?")
    two.run_until(server.readable, 1_000_000, "the reset")
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    use(two, 82, rng)
    dialling = two.b.socket()
    dialling.connect_ex(("10.0.0.1", 80))
    two.run_until(
        lambda: listener.readable() and dialling.writable(), 1_000_000, "a connection to the listener of before"
    )
    two.run_us(20 * LOOK_US)
    assert len(told) == 1, told  # nothing more stands still


def test_an_engine_at_work_is_never_accused(two: Pair, rng: random.Random) -> None:
    """Short connections and bulk, for hundreds of looks."""
    for n in range(6):
        use(two, 90 + n, rng)
    two.run_us(200 * LOOK_US)
    assert two.a.toe.standstills == [] and two.a.toe.counters["error_watchdog"] == 0


def test_bus_that_never_answers_again(two: Pair) -> None:
    """The engine does not come out of its reset while the bus owes it answers; when it gives them, all is well again."""
    toe = two.a.toe
    toe.lifecycle.RECOVERY_LOOKS, toe.lifecycle.RECOVERY_LATE_US = 20, 5_000
    connect(two, 81)
    two.a.harness.set_memory(latency=150_000)
    sock = two.a.socket()
    sock.connect_ex(("10.0.0.2", 81))
    two.run_until(lambda: toe.counters["reset_failed"], 200_000, "the reset that fails")
    assert toe.state is DeviceState.STOPPED and toe.standstills[-1].action is Action.WAITING
    assert two.a.socket().connect_ex(("10.0.0.2", 81)) == errno.ENETDOWN
    two.a.harness.set_memory(latency=20)
    two.run_until(lambda: toe.state is DeviceState.RUNNING, 500_000, "the device again")
    assert toe.standstills[-1].what == ("back",)
    connect(two, 83)


def test_report_leaves_a_line_that_was_only_slow_its_connections(out_dir, rng: random.Random) -> None:
    with pair(pcap=out_dir / "wire.pcap", a={"driver": DRIVER | {"on_standstill": "report"}}) as two:
        client, server, _ = connect(two, 81)
        repair = line_takes_nothing(two)
        late = two.a.socket()
        late.connect_ex(("10.0.0.2", 81))
        for _ in range(3):
            client.send(bytes(1000))
        two.run_until(lambda: two.a.toe.standstills or two.a.now_us() > 80_000, 100_000)
        two.run_us(20 * LOOK_US)
        repair()
        assert two.a.toe.counters["watchdog_resets"] == 0
        got = bytearray()

        def arrived() -> bool:
            try:
                got.extend(server.recv(5000))
            except BlockingIOError:
                pass
            return len(got) == 3000 and late.writable()

        two.run_until(arrived, 5_000_000, "what waited for the line")
        two.check()
