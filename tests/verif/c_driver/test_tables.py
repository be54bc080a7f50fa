"""The driver in C with everything full: ids, rings, tables; many connections at once and one after the other."""

from __future__ import annotations

import ctypes
import random
import socket

import numpy as np
import pytest

from tiptoe_verif.c_driver import CConnection, Error, What

LINE = 32


class Incoherent:
    """A cache that keeps every line for ever, writes back at a fence only, and forgets only what it is told to: the worst that a
    CPU may do. Lines are of 32 bytes, written back whole."""

    def __init__(self, memory: memoryview) -> None:
        self._below = np.frombuffer(memory, np.uint8).reshape(-1, LINE)
        self.memory = (ctypes.c_uint8 * len(memory))()
        self._lines = np.frombuffer(self.memory, np.uint8).reshape(-1, LINE)
        self._lines[:] = self._below
        self._clean = self._lines.copy()
        self.fences = self.invalidated = 0

    def fence(self) -> None:
        dirty = np.flatnonzero((self._lines != self._clean).any(axis=1))
        self._below[dirty] = self._clean[dirty] = self._lines[dirty]
        self.fences += 1

    def invalidate(self, offset: int, length: int) -> None:
        lines = slice(offset // LINE, -(-(offset + length) // LINE))
        assert (self._lines[lines] == self._clean[lines]).all(), "a dirty line is thrown away"
        self._lines[lines] = self._clean[lines] = self._below[lines]
        self.invalidated += 1


def echo(connection: CConnection, what: What) -> None:
    """Back with everything, and close when the peer has."""
    connection.outbox += connection.inbox
    connection.inbox.clear()
    connection.ends |= bool(connection.call("peer_closed"))
    connection.go_on()
    if what & What.ENDED or (connection.ends and not connection.outbox):
        connection.close()


def serve(bench, port: int = 80) -> None:
    def accepted(connection: CConnection) -> None:
        connection.then = echo

    assert bench.c.listen(port, accepted) is Error.OK
    bench.until(lambda: bench.c.listening(port) is Error.OK, "the listener")


def exchange(bench, data: bytes, peers: list, timeout_us: float = 10e6) -> None:
    """Each peer sends ``data`` and closes, and gets it back to the end."""
    got = [bytearray() for _ in peers]
    state = [[memoryview(data), False, False] for _ in peers]

    def step() -> bool:
        for peer, one, into in zip(peers, state, got, strict=True):
            try:
                if one[0]:
                    one[0] = one[0][peer.send(one[0]) :]
                if not one[0] and not one[1]:
                    one[1] = True
                    peer.shutdown(socket.SHUT_WR)
                while not one[2] and (came := peer.recv(65536)):
                    into.extend(came)
                one[2] = True
            except BlockingIOError:
                pass
        return all(done for _, _, done in state)

    bench.until(step, f"{len(peers)} echoes", timeout_us)
    assert got == [data] * len(peers)
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("settings", [{}, {"command_log2": 4, "event_log2": 4, "frame_log2": 1}])
def test_more_peers_than_ids(make, payload, settings: dict) -> None:
    """The stock is of 8 ids: the others' SYNs are dropped and come again. Rings of any size will do."""
    bench = make(**settings)
    serve(bench)
    exchange(bench, payload(6000), [bench.peer() for _ in range(12)], 30e6)
    assert bench.c.counters["accepted"] == 12


def test_connects_do_not_take_the_stock(bench, payload) -> None:
    """Half of the ids are for connecting: one more is refused at once; accepting goes on."""
    listener = bench.peer_listener()
    serve(bench)
    ours = [bench.c.connect(bench.b.ip, 99) for _ in range(8)]
    with pytest.raises(OSError) as raised:
        bench.c.connect(bench.b.ip, 99)
    assert raised.value.errno == Error.FULL
    bench.until(lambda: all(one.what & What.ESTABLISHED for one in ours), "all of them")
    exchange(bench, payload(3000), [bench.peer()])
    ours[0].close()
    while listener.readable():
        peer, _ = listener.accept()
        peer.close()
    bench.until(lambda: bench.c.in_use == 7, "an id is back")
    again = bench.c.connect(bench.b.ip, 99)
    bench.until(lambda: again.what & What.ESTABLISHED, "another one")


def test_churn(make, rng: random.Random) -> None:
    """Short connections, both ways, in which we close first: TIME_WAIT of a minute, and ids that do not wait for it."""
    bench = make(time_wait_ms=60_000, command_log2=5)
    bench.faults.add("time_wait_short")
    serve(bench)
    listener = bench.peer_listener()
    rounds = 50
    for _ in range(rounds):
        ours = [bench.c.connect(bench.b.ip, 99) for _ in range(2)]
        for one in ours:
            one.write(b"x" * rng.randrange(1, 3000))
            one.close()
        exchange(bench, rng.randbytes(rng.randrange(1, 2000)), [bench.peer() for _ in range(3)])
        while listener.readable():
            peer, _ = listener.accept()
            peer.close()
        bench.for_us(2000)
    assert bench.c.counters["accepted"] == 3 * rounds
    bench.c.unlisten(80)


def test_memory_that_is_not_coherent(make, payload) -> None:
    """Every fence and every invalidate is where it has to be."""
    caches: list[Incoherent] = []

    def cache(memory: memoryview) -> Incoherent:
        caches.append(Incoherent(memory))
        return caches[-1]

    bench = make(cache=cache, event_log2=4)
    serve(bench)
    exchange(bench, payload(20_000), [bench.peer() for _ in range(3)])
    ours, peer = bench.active()
    data = payload(30_000)
    ours.write(data, end=True)
    assert bench.receive_all(peer) == data
    assert caches[0].fences and caches[0].invalidated
    peer.close()


def test_forty_connections_at_once(make, payload) -> None:
    """Each with data both ways, on an engine with 256 ids, of which the driver has 64."""
    bench = make("sim", connections=64, pair={"memory_bytes": 1 << 26, "tick_us": 1000})
    serve(bench)
    exchange(bench, payload(1500), [bench.peer() for _ in range(40)], 20e6)
