"""Sockets of both versions of IP (AF_INET6 without IPV6_V6ONLY) on the engine: one accept queue behind two entries of its listen
table; and the same connections where the software carries them."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator

import pytest

from tests.configs import EVERYTHING
from tests.driver.on_engine.bench import RINGS, SERVER, Flow, carry, nothing_left, tp_of
from tiptoe_driver import SO_NO_OFFLOAD, Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.netinet.offload import tp_offload
from tiptoe_driver.sockets import Address
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment, Simulation

A, B, CLIENT = "2001:db8::a:1", "2001:db8::b:2", "10.0.0.1"
WAYS = {4: (socket.AF_INET, SERVER, CLIENT, f"::ffff:{CLIENT}", f"::ffff:{SERVER}"), 6: (socket.AF_INET6, B, A, A, B)}
"""Of a version: the client's family, the server's address, the client's, and both as the accepted socket names them."""


def made(**options) -> Pair:
    driver = {**RINGS, "registers": {reg.REG_MSL_TICKS: 3}}
    a, b = ({"driver": driver | {"ipv6": f"{address}/64"}} for address in (A, B))
    return Pair(EVERYTHING, skip_idle=True, memory_bytes=1 << 22, a=a, b=b | options.pop("b", {}), **options)


@pytest.fixture
def two() -> Iterator[Pair]:
    with made() as engines:
        yield engines
        engines.check()


def both_versions(simulation: Simulation, port: int = 80, backlog: int = 8, **options: int) -> Socket:
    """A listener of both."""
    listener = simulation.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    for name, value in options.items():
        listener.setsockopt(
            *{"no_offload": (socket.SOL_SOCKET, SO_NO_OFFLOAD), "mss": (socket.IPPROTO_TCP, socket.TCP_MAXSEG)}[name],
            value,
        )
    listener.bind(("::", port))
    listener.listen(backlog)
    return listener


def dial(two: Pair, version: int, port: int = 80) -> Socket:
    family, server, *_ = WAYS[version]
    client = two.a.socket(family)
    assert client.connect_ex((server, port)) == errno.EINPROGRESS
    return client


def taken(two: Pair, listener: Socket, client: Socket) -> tuple[Socket, Address]:
    two.run_until(lambda: listener.readable() and client.writable(), 8_000_000, "established")
    assert not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return listener.accept()


def refused(two: Pair, client: Socket) -> bool:
    two.run_until(client.writable, 8_000_000, "the refusal")
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


@pytest.mark.parametrize("software", [False, True])
def test_a_listener_of_both(rng: random.Random, software: bool) -> None:
    """Connections of both versions at once, on a bad line, in the engine and beside it."""
    line = Impairment(loss=0.02, reorder=0.02, duplicate=0.02, corrupt=0.02, reorder_us=2000, seed=5)
    with made(impairment=line, **({"tick_us": 50, "b": {"software": "stand-in"}} if software else {})) as two:
        listener = both_versions(two.b, no_offload=int(software))
        assert listener.getsockname() == ("::", 80, 0, 0) and listener.family == socket.AF_INET6
        flows, ends = [], [listener]
        for version in (4, 6, 4):
            *_, theirs, ours = WAYS[version]
            client = dial(two, version)
            server, name = taken(two, listener, client)
            assert server.family == socket.AF_INET6 and server.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
            assert name == server.getpeername() == (theirs, client.getsockname()[1], 0, 0)
            assert server.getsockname() == (ours, 80, 0, 0)
            assert bool(tp_offload(tp_of(server))) != software
            flows += [Flow(*way, rng.randbytes(20_000), rng) for way in ((client, server), (server, client))]
            ends += [client, server]
        carry(two, *flows)
        assert all(flow.got == flow.data for flow in flows)
        for sock in ends:
            sock.close()
        if not software:
            two.run_until(lambda: nothing_left(two.a.toe) and nothing_left(two.b.toe), 10_000_000, "every id back")
        two.check()


def test_its_end_frees_both_entries(two: Pair) -> None:
    listener = both_versions(two.b)
    two.run_us(2000)
    listener.close()
    two.run_us(2000)
    assert all(refused(two, dial(two, version)) for version in WAYS)
    assert not any(two.b.toe.passive.listeners)
    listener = both_versions(two.b)
    for version in (6, 4):
        taken(two, listener, dial(two, version))[0].close()


def test_one_backlog(two: Pair) -> None:
    """What the versions have in the accept queue counts together."""
    listener = both_versions(two.b, backlog=2)
    for version in (4, 4, 6, 6):
        client = dial(two, version)
        two.run_until(client.writable, 8_000_000, "established")
    client = dial(two, 6)
    two.run_until(lambda: reset(client), 8_000_000, "the end of who is too many")
    assert [listener.accept()[1][0] for _ in range(4)] == [f"::ffff:{CLIENT}"] * 2 + [A] * 2
    assert not listener.readable()


def reset(client: Socket) -> bool:
    try:
        client.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("mss", [0, 500, 1450])
def test_what_is_offered_fits_the_version(two: Pair, mss: int) -> None:
    """RFC 9293 section 3.7.1: 20 bytes less over IPv6."""
    listener = both_versions(two.b, mss=mss)
    for version, most in ((4, 1460), (6, 1440)):
        client = dial(two, version)
        server, _ = taken(two, listener, client)
        assert tp_of(client).t_maxseg == min(mss or most, most) == tp_of(server).t_maxseg


def test_both_come_back_after_a_reset(two: Pair) -> None:
    listener = both_versions(two.b)
    two.run_us(2000)
    two.b.toe.reset()
    two.run_us(5000)
    for version in WAYS:
        taken(two, listener, dial(two, version))


def test_a_table_with_one_place_left(two: Pair) -> None:
    """One version is served; the other is when there is room."""
    others = []
    while two.b.toe.passive.listeners.count(None) > 1:
        others.append(two.b.socket())
        others[-1].bind(("", 1000 + len(others)))
        others[-1].listen()
    listener = both_versions(two.b)
    assert two.b.toe.counters["listen_table_full"] == 1
    two.run_us(5000)
    assert refused(two, dial(two, 6))
    taken(two, listener, dial(two, 4))
    others[0].close()
    two.run_us(5000)
    taken(two, listener, dial(two, 6))


def test_the_softwares_own_connections(rng: random.Random) -> None:
    """What is not offloaded: opened from there over IPv6, refused by a closed port, out of reach, and to itself."""
    with made(tick_us=50, b={"software": "stand-in"}) as two:
        two.b.software.rto_us = 10_000
        listener = two.a.socket(socket.AF_INET6)
        listener.bind(("", 90))
        listener.listen()
        client = two.b.socket(socket.AF_INET6)
        client.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
        assert client.connect_ex((A, 90)) == errno.EINPROGRESS
        server, name = taken(two, listener, client)
        server.setblocking(False)
        assert name == client.getsockname() == (B, name[1], 0, 0)
        assert tp_of(client).t_maxseg == 1440
        flows = [Flow(*way, rng.randbytes(20_000), rng) for way in ((client, server), (server, client))]
        carry(two, *flows)
        assert all(flow.got == flow.data for flow in flows)
        for host, error in ((A, errno.ECONNREFUSED), ("2001:db8::77", errno.EHOSTDOWN), (B, errno.ECONNREFUSED)):
            other = two.b.socket(socket.AF_INET6)
            other.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
            assert other.connect_ex((host, 91)) == errno.EINPROGRESS
            two.run_until(other.writable, 8_000_000, f"the end of {host}")
            assert other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == error, host
        assert refused(two, dial(two, 6, 92)), "the stand-in resets what nobody listens for"
        assert two.b.software.counters["segments_unknown"] >= 1
