"""How active and passive opens share the connection ids (ids.py): who gets what comes free, and that nobody waits for ever."""

from __future__ import annotations

import errno
import random

import pytest

from tests.driver.bench import PEER_IP, Bench, Connection
from tests.driver.fake_device import FakeDevice
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_hdl.host.abi import Opcode


class Shares(Bench):
    """A bench whose connections end at a word, the id back at once."""

    def __init__(self, connections: int = 64, **options: int) -> None:
        super().__init__(FakeDevice(connections=connections, syncache=32, memory_bytes=1 << 23), **options)
        self.know_peer()
        self.port = 1024
        self.live: list[Connection] = []

    @property
    def ids(self):
        return self.dev.engine.ids

    def passive_open(self) -> bool:
        """A SYN and all that follows; False: the engine has no id in stock."""
        if not self.ids.stocked:
            return False
        self.port += 1
        self.syn(self.port % 32, fport=self.port)
        self.live.append(self.handshake_done(self.port % 32))
        return True

    def active_open(self) -> bool:
        """An active open; False: there is no id."""
        self.port += 1
        sock = self.socket()
        error = sock.connect_ex((PEER_IP, self.port))
        if error == errno.EPERM:
            sock.close()
            return False
        assert error == errno.EINPROGRESS
        conn = Connection(self, sock, self.device.last(Opcode.OPEN)["tid"])
        conn.report(established=1, state=State.ESTABLISHED)
        self.live.append(conn)
        return True

    def end(self, conn: Connection) -> None:
        """The connection ends, and its id is free."""
        self.live.remove(conn)
        conn.end(Reason.PEER_RESET)
        if conn.sock_or_none is not None:
            conn.sock.close()
        self.stack.poll()


@pytest.mark.parametrize(("connections", "kept"), [(16, 1), (64, 4), (256, 16)])
def test_a_server_has_all_ids_but_a_few(connections: int, kept: int) -> None:
    bench = Shares(connections)
    bench.listening(backlog=1000)
    while bench.passive_open():
        pass
    assert len(bench.live) == connections - kept and bench.ids.available == kept
    for _ in range(kept):
        assert bench.active_open()
    assert not bench.active_open()


def test_a_client_has_all_ids_and_the_next_that_comes_free() -> None:
    bench = Shares()
    while bench.active_open():
        pass
    assert len(bench.live) == 64
    bench.listening(backlog=1000)
    assert not bench.passive_open() and not bench.active_open()
    bench.end(bench.live[0])
    assert bench.active_open() or bench.passive_open()


def test_the_stock_follows_demand() -> None:
    bench = Shares(256)
    bench.listening(backlog=1000)
    assert bench.ids.stocked == 128
    while bench.active_open():
        pass
    assert len(bench.live) == 128
    # What is in stock stays there; but while active opens find none, it is not filled up.
    for _ in range(112):
        assert not bench.active_open()
        assert bench.passive_open()
    assert bench.ids.stocked == 16
    for conn in bench.live[:100]:
        bench.end(conn)
    # Of ids that nobody uses half are in stock.
    assert bench.ids.available + bench.ids.stocked == 116 and abs(bench.ids.available - bench.ids.stocked) <= 1
    # With every connection accepted it grows again.
    for _ in range(80):
        assert bench.passive_open()
    assert (bench.ids.available, bench.ids.stocked) == (16, 20)


def test_a_refused_open_does_not_starve_the_next_burst() -> None:
    """Software carries what finds no id, so a busy client is refused all the time; the stock is there again with the ids."""
    bench = Shares(256)
    bench.listening(backlog=1000)
    while bench.active_open() or bench.passive_open():
        pass
    for _ in range(20):
        assert not bench.active_open()
    for conn in list(bench.live):
        bench.end(conn)
    assert bench.ids.stocked >= 100 and bench.ids.available >= 100


@pytest.mark.parametrize("hungry", ["both", "active", "passive"])
def test_nobody_waits_for_ever(hungry: str, rng: random.Random) -> None:
    """Every id is wanted by two at once, again and again: each side has one within ``reserve`` and two that come free."""
    bench = Shares(32)
    bench.listening(backlog=1000)
    reserve = 2
    sides = {"active": bench.active_open, "passive": bench.passive_open}
    wanting = list(sides) if hungry == "both" else [hungry]
    for side in sides.values():
        while side():
            pass
    waited = dict.fromkeys(sides, 0)
    for _ in range(300):
        bench.end(rng.choice(bench.live))
        rng.shuffle(wanting)
        for name in wanting:
            waited[name] += 1
            while sides[name]():
                waited[name] = 0
        assert max(waited.values()) <= reserve + 2
        if len(bench.live) < 8:
            break
    assert bench.ids.available + bench.ids.stocked + len(bench.live) == 32


def test_reset_begins_anew() -> None:
    bench = Shares()
    bench.listening(backlog=1000)
    while bench.active_open():
        pass
    bench.live.clear()
    bench.dev.reset()
    assert bench.ids.stocked == 32 and bench.ids.available == 32
