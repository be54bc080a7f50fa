"""Connections over IPv6 between two engines, beside those over IPv4: neighbour discovery, handshake, data, the end."""

from __future__ import annotations

import errno
import random
import socket
from typing import Any

from tests.configs import EVERYTHING
from tests.driver.on_engine.bench import RINGS, Flow, carry, connect, data_and_end, nothing_left
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment

A, B = "2001:db8::a:1", "2001:db8::b:2"


def engines(**options: Any) -> Pair:
    """Two engines with an address of each version."""
    driver = {**RINGS, "registers": {reg.REG_MSL_TICKS: 3}}
    a, b = ({"driver": driver | {"ipv6": f"{address}/64"}} for address in (A, B))
    return Pair(EVERYTHING, skip_idle=True, memory_bytes=1 << 22, a=a, b=b, **options)


def socket_v6(simulation: Any) -> Socket:
    """A non-blocking one."""
    sock = Socket(simulation.stack, family=socket.AF_INET6)
    sock.setblocking(False)
    return sock


def connect_v6(two: Pair, port: int = 80, bound: str = "") -> tuple[Socket, Socket, Socket]:
    """A connection from a to b: both ends, and b's listener."""
    listener = socket_v6(two.b)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((bound, port))
    listener.listen()
    client = socket_v6(two.a)
    assert client.connect_ex((B, port)) == errno.EINPROGRESS
    two.run_until(lambda: listener.readable() and client.writable(), 200_000, "established")
    server, name = listener.accept()
    server.setblocking(False)
    assert name == server.getpeername() == client.getsockname() and name[0] == A
    assert client.getpeername() == server.getsockname() == (B, port, 0, 0)
    return client, server, listener


def test_a_connection_from_beginning_to_end(rng: random.Random) -> None:
    with engines() as two:
        data_and_end(two, connect_v6(two), rng)


def test_both_versions_at_once_on_a_bad_line(rng: random.Random) -> None:
    """The same ports over IPv4 and IPv6: nobody gets what is the other's."""
    line = Impairment(loss=0.02, reorder=0.02, duplicate=0.02, reorder_us=2000, seed=5)
    with engines(impairment=line) as two:
        ends = [connect(two, 80), connect_v6(two, 80), connect_v6(two, 81, bound=B)]
        flows = []
        for client, server, _ in ends:
            flows += [
                Flow(client, server, rng.randbytes(20_000), rng),
                Flow(server, client, rng.randbytes(20_000), rng),
            ]
        carry(two, *flows)
        assert all(bytes(flow.got) == bytes(flow.data) for flow in flows)
        for sock in (sock for three in ends for sock in three):
            sock.close()
        two.run_until(lambda: nothing_left(two.a.toe) and nothing_left(two.b.toe), 30_000_000, "every id back")
        two.check()
