"""The driver in C on an engine that fails: resets, standstills, memory that is not there, a device that writes what it likes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.c_driver import MEMORY, CDriver, Error, What

from .conftest import SANITIZE
from .test_tables import exchange, serve

# Where the parts lie with the sizes of the benches: the largest first.
FRAME_RING = 0
RECEIVE_RINGS = 0x4000
COMMAND_RING = RECEIVE_RINGS + 16 * 0x3000


def test_reset(make, payload) -> None:
    """Every connection ends with TOE_DOWN, listeners come back, and so do ids that applications give back later."""
    bench = make()
    bench.faults.add("resets")
    serve(bench)
    ours, _ = bench.active()
    waiting = bench.c.connect(0x0A0000FE, 80)  # for an answer that never comes
    assert bench.c.reset() is Error.OK
    for one in (ours, waiting):
        assert one.what & What.ENDED and one.result is Error.DOWN
        one.write(b"nobody hears it")
    assert bench.c.in_use == 2
    bench.until(lambda: bench.c.listening(80) is Error.OK, "the listener is back")
    exchange(bench, payload(5000), [bench.peer()])
    ours.close()
    waiting.close()
    again = bench.c.connect(bench.b.ip, 99)
    bench.until(lambda: again.what & What.ESTABLISHED, "a connection")


@pytest.mark.parametrize("what", ["COMMANDS_STALLED", "EVENTS_STALLED", "gone"])
def test_standstill(make, payload, what: str) -> None:
    """The engine's watchdog, or a device that reads as all ones for a while: a reset, and connections again."""
    bench = make(watchdog_ms=20)
    bench.faults |= {"standstills", "resets"}
    serve(bench)
    ours, _ = bench.active()
    read32, answers = bench.a.read32, [True]

    def broken(address: int) -> int:
        value = read32(address)
        if answers and what == "gone":
            return 0xFFFF_FFFF
        if answers and address == abi.REG_STATUS:
            answers.clear()
            return value | getattr(abi, f"STATUS_{what}")
        return value

    bench.a.read32 = broken
    bench.until(lambda: ours.what & What.ENDED, "the end")
    assert ours.result is Error.DOWN
    if what == "gone":
        assert bench.c.state is Error.NO_ENGINE
        with pytest.raises(OSError) as raised:
            bench.c.connect(bench.b.ip, 99)
        assert raised.value.errno == Error.DOWN
        answers.clear()
    bench.until(lambda: bench.c.state is Error.OK and bench.c.listening(80) is Error.OK, "it runs again", 5e6)
    exchange(bench, payload(3000), [bench.peer()])


def test_memory_that_cannot_be_written(bench, payload) -> None:
    ours, peer = bench.passive()
    bench.faults.add("error_events")
    bench.a.harness.add_error(MEMORY + RECEIVE_RINGS, MEMORY + COMMAND_RING, reads=False)
    peer.send(b"into nothing")
    bench.until(lambda: ours.what & What.ENDED, "the end")
    assert ours.result is Error.DMA
    bench.a.harness.clear_errors()
    ours.close()
    bench.c.unlisten(80)
    again, peer = bench.active()
    again.write(b"hello", end=True)
    assert bench.receive_all(peer) == b"hello"
    peer.close()


def failing_command(bench) -> Callable[[], None]:
    """The next fetch from the command ring fails; the function returned ends that."""
    bench.a.harness.add_error(MEMORY + COMMAND_RING, MEMORY + COMMAND_RING + 64 * 64, writes=False, count=1)
    bench.faults |= {"error_events", "refused_commands", "lost_ids"}
    return bench.a.harness.clear_errors


def test_connect_whose_commands_cannot_be_read(bench) -> None:
    """It is an error of that connection; the others live on, and its id is not used again."""
    ours, peer = bench.active()
    failing_command(bench)
    broken = bench.c.connect(bench.b.ip, 99)
    bench.until(lambda: broken.what & What.ENDED, "the error")
    assert broken.result is Error.COMMAND
    ours.write(b"lives on")
    assert bench.receive(peer, 8) == b"lives on"


def test_close_that_cannot_be_read(bench) -> None:
    """Nothing hangs: the connection is reset instead."""
    ours, peer = bench.active()
    failing_command(bench)
    ours.write(b"", end=True)
    bench.until(lambda: ours.what & What.ENDED, "the end")
    assert ours.result is Error.COMMAND
    with pytest.raises(ConnectionResetError):
        bench.receive_all(peer)


def test_release_that_cannot_be_read(bench) -> None:
    """The id is lost until a reset gives it back."""
    ours, peer = bench.active()
    ours.call("abort")
    bench.until(lambda: ours.what & What.ENDED, "the end")
    failing_command(bench)
    ours.close()
    bench.until(lambda: bench.c.counters["lost_ids"] == 1, "it is lost")
    assert bench.c.in_use == 1
    bench.faults.add("resets")
    assert bench.c.reset() is Error.OK and bench.c.in_use == 0
    bench.lost = 0


class Device:
    """Registers and memory without an engine: what the test puts there is what the driver sees."""

    mac, ip = 0x020000000002, 0x0A000002

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(1 << 22))
        self.registers = {
            abi.REG_ID: 0x54504954, abi.REG_VERSION: 0x0500, abi.REG_CAPABILITIES: 2 << 24 | 2 << 16 | 2 << 8 | 4,
            abi.REG_LIMITS: 1514 << 16 | 64 << 8 | 8, abi.REG_STATUS: abi.STATUS_READY, abi.REG_COMMAND_HEAD: 0,
        }  # fmt: skip
        self.time = 0

    def write32(self, address: int, value: int) -> None:
        if address == abi.REG_COMMAND_TAIL:
            self.registers[abi.REG_COMMAND_HEAD] = value
        elif address != abi.REG_STATUS:
            self.registers[address] = value & ~abi.CONTROL_SOFT_RESET if address == abi.REG_CONTROL else value

    def read32(self, address: int) -> int:
        return self.registers.get(address, 0)

    def now_us(self) -> int:
        self.time += 50
        return self.time


def test_a_device_that_writes_what_it_likes(rng: random.Random) -> None:
    """Events of all kinds with fields that fit and fields that do not: no access outside the memory (the sanitizers watch),
    and the driver still does what it is told."""
    device = Device()
    c = CDriver(device, tick_cycles=1000, applications=1, sanitize=SANITIZE)
    assert c.started is Error.OK
    ring = device.registers[abi.REG_EVENT_RING_LO]
    frames = device.registers[abi.REG_FRAME_RING_LO]
    entries, count = 1 << 6, 0
    small = [0, 1, 2, 3, 7, 15, 16, 255, 0xFFFF]
    for _ in range(1500):
        for _ in range(rng.randrange(1, 8)):
            words = [
                rng.choice([rng.choice(small), rng.getrandbits(32), rng.choice(small) | 1 << 16]) for _ in range(7)
            ]
            kind = rng.choice([*range(9), 1, 1, 1, 4, 4, 5])
            trailer = kind | rng.choice([0, rng.getrandbits(23) << 8, 0x10 << 16, 0x30 << 16])
            words.append(trailer & 0x7FFF_FFFF | (1 ^ count // entries & 1) << 31)
            if kind == abi.EventType.FRAME:
                words[0] = c.counters["frames_in"] % 8
                slot = frames + words[0] * 2048 + 2
                device.memory[slot : slot + 256] = rng.randbytes(256)
                words[1] = rng.choice([0, 14, 42, 60, 200, 1514, 5000])
            at = ring + count % entries * 32
            device.memory[at : at + 32] = b"".join(word.to_bytes(4, "little") for word in words)
            count += 1
        resets = c.counters["resets"]
        c.poll()
        if c.counters["resets"] != resets:
            count = 0
        if rng.random() < 0.1:
            with contextlib.suppress(OSError):
                c.connect(0x0A000009, 80).write(b"x" * 100, end=rng.random() < 0.5)
        for one in list(c.connections.values()):
            if rng.random() < 0.1:
                one.close()
        device.time += rng.choice((0, 1000, 2_000_000))
    assert c.counters["bad_events"] > 100
    assert c.reset() is Error.OK and c.state is Error.OK


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"snd_log2": 11}, Error.ARGUMENT), ({"rcv_log2": 25}, Error.ARGUMENT), ({"command_log2": 3}, Error.ARGUMENT),
        ({"passive": 17}, Error.ARGUMENT), ({"ip": 0}, Error.ARGUMENT), ({"memory_bytes": 1 << 17}, Error.NO_MEMORY),
        ({"address": MEMORY + 0x1000}, Error.NO_MEMORY), ({"connections": 64}, Error.ARGUMENT),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_the_start(settings: dict, error: Error) -> None:
    assert CDriver(Device(), tick_cycles=1000, sanitize=SANITIZE, **settings).started is error


@pytest.mark.parametrize(
    "register, value, error",
    [
        (abi.REG_ID, 0xFFFF_FFFF, Error.NO_ENGINE), (abi.REG_VERSION, 0x10000, Error.NO_ENGINE),
        (abi.REG_STATUS, 0, Error.NOT_READY), (abi.REG_CAPABILITIES, 5 << 16 | 4, Error.OK),
    ],
)  # fmt: skip
def test_what_is_no_engine(register: int, value: int, error: Error) -> None:
    device = Device()
    device.registers[register] = value
    assert CDriver(device, tick_cycles=1000, sanitize=SANITIZE).started is error


def test_what_goes_wrong_in_the_device_is_raised() -> None:
    device = Device()

    def broken(address: int) -> int:
        raise OSError("pulled")

    device.read32 = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="pulled"):
        CDriver(device, tick_cycles=1000, sanitize=SANITIZE)
