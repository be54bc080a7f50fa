"""The driver in C on the simulated engine; the other end of the line is a second engine under the Python driver."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import CONFIGS
from tiptoe_verif.c_driver import CConnection, CDriver, Error, What
from tiptoe_verif.native.harness import build_engine
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Simulation

SANITIZE = os.environ.get("TIPTOE_C_SANITIZE", "undefined")
"""What the C code is watched by; test_sanitizers.py has these tests run once more with the address sanitizer."""
HASTE = 10
"""TCP's ticks and the driver's clock go so many times as fast as simulated time: time-outs are waited for."""


@functools.cache
def library(config: str) -> Path:
    """The compiled engine: looked for once."""
    return build_engine(CONFIGS[config])


class Bench:
    """Two engines on a line, the C driver ``c`` on the first one, sockets of ``peer`` on the second.

    ``faults``: counters of the C driver that may be other than 0 at the end, when every id has to be back but for those lost
    (``lost``: as many, where some have come back).
    """

    def __init__(self, two: Pair, **settings: int) -> None:
        self.two, self.a, self.b = two, two.a, two.b
        options = {"tick_cycles": two.a.tick_us, "time_wait_ms": 20, "sanitize": SANITIZE, "clock": HASTE}
        self.c = self.driver(two.a, **(options | settings))
        self.faults: set[str] = set()
        self.lost: int | None = None
        self.ids = settings.get("connections", 16)

    @staticmethod
    def driver(sim: Simulation, **settings) -> CDriver:
        driver = CDriver(sim, **settings)
        assert driver.started is Error.OK
        sim.tasks.append(driver.poll)
        return driver

    def impatient(self, retries: int = 3) -> None:
        """The engine gives up after so many time-outs."""
        self.a.write32(abi.REG_RETRIES, retries | retries << 8)
        self.a.write32(abi.REG_RTO_INITIAL, 200)

    def until(self, condition: Callable[[], object], what: str = "", timeout_us: float = 3e6) -> None:
        self.two.run_until(condition, timeout_us, what)

    def for_us(self, microseconds: float) -> None:
        self.two.run_us(microseconds)

    # --- connections ---

    def listen(self, port: int = 80) -> list[CConnection]:
        """The C driver listens; the connections that come."""
        accepted: list[CConnection] = []
        assert self.c.listen(port, accepted.append) is Error.OK
        self.until(lambda: self.c.listening(port) is Error.OK, "the listener")
        return accepted

    def peer(self, port: int = 80):
        """A socket of the other end that connects to the C driver."""
        made = self.b.socket()
        made.connect_ex((_text(self.a.ip), port))
        return made

    def peer_listener(self, port: int = 99):
        made = self.b.socket()
        made.bind(("", port))
        made.listen(64)
        return made

    def passive(self):
        """An established connection that the C driver has accepted, and the peer's end of it."""
        accepted = self.listen()
        peer = self.peer()
        self.until(lambda: accepted and peer.writable(), "the connection")
        return accepted[0], peer

    def active(self):
        """One that the C driver has opened."""
        listener = self.peer_listener()
        ours = self.c.connect(self.b.ip, 99)
        self.until(listener.readable, "the connection")
        peer, _ = listener.accept()
        self.until(lambda: ours.what & What.ESTABLISHED, "the connection")
        return ours, peer

    def receive(self, peer, length: int, timeout_us: float = 5e6) -> bytes:
        """So many bytes from the peer's end."""
        got = bytearray()

        def step() -> bool:
            try:
                got.extend(peer.recv(65536))
            except BlockingIOError:
                pass
            return len(got) >= length

        self.until(step, f"{length} bytes", timeout_us)
        return bytes(got)

    def receive_all(self, peer, timeout_us: float = 5e6) -> bytes:
        """All that comes to the end of the stream."""
        got = bytearray()

        def step() -> bool:
            try:
                while data := peer.recv(65536):
                    got.extend(data)
            except BlockingIOError:
                return False
            return True

        self.until(step, "the end", timeout_us)
        return bytes(got)

    def send(self, peer, data: bytes, timeout_us: float = 5e6) -> None:
        left = memoryview(data)

        def step() -> bool:
            nonlocal left
            try:
                left = left[peer.send(left[:65536]) :]
            except BlockingIOError:
                pass
            return not left

        self.until(step, "the data is written", timeout_us)

    # --- the end ---

    def finish(self) -> None:
        """Everything the C driver still has is reset; every id comes back, and nothing was remarkable."""
        for connection in list(self.c.connections.values()):
            connection.call("abort")
            connection.close()
        listening = self.c.stock > 0 or "time_wait_short" in self.faults
        lost = self.c.counters["lost_ids"] if self.lost is None else self.lost
        self.until(lambda: self.c.in_use == lost, "all ids are back", 10e6)
        if listening and not lost:
            self.until(lambda: self.c.stock == self.ids // 2, "the stock is full")
        watched = (
            "bad_events", "bad_positions", "bad_doorbells", "error_events", "refused_commands", "lost_ids",
            "stale_half_open", "standstills", "resets", "orphans_reset", "frames_dropped",
        )  # fmt: skip
        found = {name: self.c.counters[name] for name in watched if self.c.counters[name]}
        assert set(found) <= self.faults, found


def _text(ip: int) -> str:
    return ".".join(str(byte) for byte in ip.to_bytes(4))


@pytest.fixture
def make(out_dir) -> Iterator[Callable[..., Bench]]:
    """Makes benches; ``pair``: options of the Pair, the others the C driver's."""
    made: list[Bench] = []

    def bench(config="tiny", pair: dict | None = None, **settings) -> Bench:
        given = {
            "a": {"attach": False},
            "memory_bytes": 1 << 24,
            "pcap": out_dir / "wire.pcap",
            "tick_us": 1000 // HASTE,
        }
        given["b"] = {"driver": {"registers": {abi.REG_MSL_TICKS: 20}}}
        options = given | {"library": library(config)} | (pair or {})
        made.append(Bench(Pair(config, **options), **settings))
        return made[-1]

    yield bench
    for one in made:
        try:
            one.finish()
            one.two.check()
        finally:
            one.two.close()


@pytest.fixture
def bench(make) -> Bench:
    return make()


@pytest.fixture
def payload(rng: random.Random) -> Callable[[int], bytes]:
    return rng.randbytes
