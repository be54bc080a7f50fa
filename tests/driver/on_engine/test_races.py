"""The races on the engine itself, in native simulation: a call at every so many microseconds around the peer's
segment, on one engine after another connection; at the end of each everything must have come back."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.races.world import LINGER_0
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.native.simulation import Simulation
from tiptoe_verif.wire.segment import Segment, parse_tcp

OURS, OUR_MAC, THEIRS, THEIR_MAC = "10.0.0.1", "02:00:00:00:00:01", "10.0.0.2", "02:00:00:00:00:02"
TICK_US = 32
"""TCP's clock runs fast: 2 MSL are two ticks, and no test waits for anything longer."""
OFFSETS = range(0, 360, 6)
"""Microseconds, which are cycles, from the segment at the engine's door to the call: from long before its event is written
to after the driver has handled it."""


FIN, RST = 1, 4


class Remote:
    """The peer of one passive open: sends segments, and answers FIN with ACK and its own FIN."""

    def __init__(self, sim: Simulation, port: int) -> None:
        self.sim, self.port = sim, port
        self.seq, self.ack = 1000, 0
        self.resets = 0
        self.closed = False

    def send(self, flags: str, payload: bytes = b"") -> None:
        self.sim.inject(
            bytes(
                Ether(src=THEIR_MAC, dst=OUR_MAC)
                / IP(src=THEIRS, dst=OURS)
                / TCP(sport=self.port, dport=80, flags=flags, seq=self.seq, ack=self.ack, window=8192)
                / payload
            )
        )
        self.seq = (self.seq + len(payload) + ("S" in flags) + ("F" in flags)) & 0xFFFF_FFFF
        self.closed |= "F" in flags

    def turn(self) -> None:
        """Take what the engine has sent."""
        for frame in self.sim.captured():
            segment = parse_tcp(frame)
            if segment is not None and segment.dport == self.port:
                self.take(segment)

    def take(self, segment: Segment) -> None:
        """A segment has come."""
        self.resets += bool(segment.flags & RST)
        if segment.length and not segment.flags & RST:
            self.ack = (segment.seq + segment.length) & 0xFFFF_FFFF
            if segment.flags & FIN:
                self.send("A" if self.closed else "FA")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Let time pass, and answer, until ``condition`` holds."""

        def met() -> bool:
            self.turn()
            return bool(condition())

        self.sim.run_until(met, 50_000, what, step_us=100)


class Races:
    """One engine with a listener, for one connection after another; ports go up. ``driver``: further options of it."""

    def __init__(self, **driver: Any) -> None:
        self.sim = Simulation(
            "tiny",
            ip=OURS,
            mac=OUR_MAC,
            memory_bytes=1 << 22,
            tick_us=TICK_US,
            driver={
                "snd_ring_bytes": 4096,
                "rcv_ring_bytes": 4096,
                "rst_unknown": False,
                "registers": {reg.REG_MSL_TICKS: 1},
                **driver,
            },
        )
        self.sim.run_us(1000)
        self.port = 5000
        self.listener: Socket | None = None

    def listen(self) -> Socket:
        """The listener, the engine knowing of it."""
        if self.listener is None:
            self.listener = self.sim.socket()
            self.listener.bind(("", 80))
            self.listener.listen()
            self.answered()
        return self.listener

    def answered(self) -> None:
        """The engine has answered every command."""
        self.sim.run_until(lambda: not self.sim.toe.engine.commands.waiting, 50_000, "the commands", step_us=100)

    def half_open(self) -> Remote:
        """A connection that lacks the handshake's last ACK."""
        self.listen()
        self.port += 1
        remote = Remote(self.sim, self.port)
        remote.send("S")
        remote.until(lambda: remote.ack and self.sim.stack.syncache.count, "SYN,ACK")
        return remote

    def connected(self) -> tuple[Remote, Socket]:
        """A connection and its socket."""
        remote = self.half_open()
        remote.send("A")
        remote.until(self.listen().readable, "the handshake")
        return remote, self.listen().accept()[0]

    def come_to_rest(self, remote: Remote) -> None:
        """Everything comes back, and nothing odd was seen."""
        toe = self.sim.toe
        ids = toe.engine.ids
        remote.until(
            lambda: not toe.calls.four_tuples and not toe.engine.commands.waiting and not toe.passive.half_open,
            f"the end of {remote.port}",
        )
        assert ids.available + ids.stocked == len(ids.toepcbs) and ids.ring_pool.in_use == ids.idle_rings
        assert len(list(self.sim.stack.tcbinfo)) == (self.listener is not None) and not self.sim.stack.syncache.count
        assert not self.sim.stack.locks.held
        for name in ("stale_events", "lost_ids", "bad_positions", "bad_doorbells"):
            assert not toe.counters[name], name


@pytest.fixture(scope="module")
def races() -> Iterator[Races]:
    """One engine for all these tests."""
    made = Races()
    yield made
    made.sim.check()
    made.sim.close()


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize(
    ("flags", "payload"),
    [("PA", b"data"), ("FA", b""), ("FPA", b"data"), ("R", b"")],
    ids=["data", "fin", "data_fin", "rst"],
)
def test_detach_3_call_around_a_segment(races: Races, flags: str, payload: bytes, how: str) -> None:
    seen = set()
    for offset in OFFSETS:
        remote, sock = races.connected()
        assert sock.so is not None
        remote.send(flags, payload)
        races.sim.run_us(offset)
        seen.add(sock.readable())
        if how == "abort":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        sock.close()
        races.come_to_rest(remote)
        assert remote.resets <= 1 + remote.closed, "one for ABORT, one in answer to a FIN that came after it"
    assert seen == {False, True}, "the offsets do not reach from before the event to after it"


@pytest.mark.parametrize("payload", [b"", b"data"], ids=["ack", "ack_data"])
@pytest.mark.parametrize("how", ["drop", "stop"])
def test_sc_4_drop_and_listen_stop_around_the_handshakes_ack(races: Races, how: str, payload: bytes) -> None:
    outcomes = set()
    for offset in OFFSETS:
        remote = races.half_open()
        remote.send("PA" if payload else "A", payload)
        races.sim.run_us(offset)
        toe, stack = races.sim.toe, races.sim.stack
        if how == "drop":
            for entry in list(toe.passive.half_open.values()):
                stack.syncache.expire(stack.syncache._bucket(entry.four_tuple).entries[entry.four_tuple])
        else:
            races.listen().close()
            races.listener = None
        races.answered()
        races.sim.run_us(1500)
        remote.turn()
        sockets = 0
        if races.listener is not None and races.listener.readable():
            sock = races.listener.accept()[0]
            sockets = 1
            assert remote.resets == 0
            sock.close()
        else:
            assert remote.resets == 1
        outcomes.add((sockets, toe.counters["failed_commands"]))
        races.come_to_rest(remote)
    assert {sockets for sockets, _ in outcomes} == ({0, 1} if how == "drop" else {0})
    assert len({failed for _, failed in outcomes}) > 1 or how == "stop", "no SYNCACHE_DROP has lost against the ACK"
