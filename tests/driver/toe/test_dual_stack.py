"""Sockets of AF_INET6 without IPV6_V6ONLY on the scripted device: what an address decides, and what the engine
is told."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from tests.driver.bench import OUR_IP, PEER_IP, Bench
from tests.driver.toe.test_ipv6 import OURS, PEER, ROUTER, both, connected, device, number, opening, socket_v6
from tiptoe_driver import Socket
from tiptoe_driver.hardware.alias import LADDR_V6
from tiptoe_driver.netinet.structures import INP_IPV4, INP_IPV6
from tiptoe_hdl.host.abi import EventType, Opcode

__all__ = ["both"]
V6ONLY = socket.IPPROTO_IPV6, socket.IPV6_V6ONLY


def dual(bench: Bench) -> Socket:
    sock = socket_v6(bench)
    sock.setsockopt(*V6ONLY, 0)
    return sock


def entries(bench: Bench) -> set[tuple[int, int]]:
    return {(told["laddr"], told["mss"]) for told in bench.device.ops(Opcode.LISTEN)}


def test_one_socket_is_two_entries(both: Bench) -> None:
    listener = dual(both)
    listener.bind(("::", 80))
    listener.listen()
    assert entries(both) == {(0, 1460), (LADDR_V6, 1440)}
    assert listener.getsockname() == ("::", 80, 0, 0)
    listener.close()
    assert {told["listener"] for told in both.device.ops(Opcode.UNLISTEN)} == {0, 1}


def test_listening_without_a_name(both: Bench) -> None:
    listener = dual(both)
    listener.listen()
    assert {laddr for laddr, _ in entries(both)} == {0, LADDR_V6}


@pytest.mark.parametrize(
    ("host", "laddr"),
    [("::ffff:0.0.0.0", 0), (OURS, LADDR_V6), (f"::ffff:{OUR_IP}", int.from_bytes(socket.inet_aton(OUR_IP)))],
)
def test_an_address_decides(both: Bench, host: str, laddr: int) -> None:
    listener = dual(both)
    listener.bind((host, 80))
    listener.listen()
    assert {told for told, _ in entries(both)} == {laddr}
    assert listener.getsockname()[0] == host


def test_another_mss_is_told_to_both(both: Bench) -> None:
    listener = dual(both)
    listener.bind(("::", 80))
    listener.listen()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1450)
    assert sorted(told["mss"] for told in both.device.ops(Opcode.LISTEN)) == [1440, 1450, 1460]


def test_without_an_address_of_ipv6_it_is_ipv4s() -> None:
    bench = Bench()
    listener = dual(bench)
    listener.bind(("::", 80))
    listener.listen()
    assert [told["laddr"] for told in bench.device.ops(Opcode.LISTEN)] == [0]


def test_the_option_is_for_who_has_no_address(both: Bench) -> None:
    sock = dual(both)
    assert sock.getsockopt(*V6ONLY) == 0
    sock.setsockopt(*V6ONLY, 1)
    assert sock.getsockopt(*V6ONLY) == 1
    sock.bind(("", 80))
    for value in (0, 1):
        with pytest.raises(OSError, match="Invalid"):
            sock.setsockopt(*V6ONLY, value)


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [("dual", "v4", errno.EADDRINUSE), ("dual", "v6", errno.EADDRINUSE), ("v4", "dual", errno.EADDRINUSE),
     ("v6", "dual", errno.EADDRINUSE), ("dual", "dual", errno.EADDRINUSE), ("v4", "v6", 0), ("v6", "v4", 0)],
)  # fmt: skip
def test_ports_are_taken_in_each_version(both: Bench, first: str, second: str, error: int) -> None:
    make = {"v4": Bench.socket, "v6": socket_v6, "dual": dual}
    make[first](both).bind(("", 80))
    if error:
        other = make[second](both)
        with pytest.raises(OSError, match="in use"):
            other.bind(("", 80))
        other.bind(("", 81))  # as if it had not been tried: both versions still
        other.listen()
        assert len(entries(both)) == (2 if second == "dual" else 1)
    else:
        make[second](both).bind(("", 80))


@pytest.mark.parametrize(("host", "version"), [(PEER, INP_IPV6), (f"::ffff:{PEER_IP}", INP_IPV4)])
def test_connect_decides(both: Bench, host: str, version: int) -> None:
    sock = dual(both)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x28)
    assert sock.connect_ex((host, 443)) == errno.EINPROGRESS
    both.stack.poll()
    assert sock.so is not None and sock.so.so_pcb is not None
    assert sock.so.so_pcb.inp_vflag == version
    assert sock.getsockname()[0] == (OURS if version == INP_IPV6 else f"::ffff:{OUR_IP}")
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 0x28


@pytest.mark.parametrize(
    ("bound", "host", "error"),
    [(OURS, f"::ffff:{PEER_IP}", errno.EADDRNOTAVAIL), ("::ffff:0.0.0.0", PEER, errno.EAFNOSUPPORT),
     ("::", "::ffff:224.0.0.1", errno.EADDRNOTAVAIL), ("::", "::ffff:255.255.255.255", errno.EADDRNOTAVAIL),
     ("::", "::ffff:0.0.0.0", errno.EADDRNOTAVAIL), ("::", "::", errno.EADDRNOTAVAIL), ("::", "fe80::1", errno.EADDRNOTAVAIL)],
)  # fmt: skip
def test_what_cannot_be_connected_to(both: Bench, bound: str, host: str, error: int) -> None:
    sock = dual(both)
    sock.bind((bound, 0))
    assert sock.so is not None and sock.so.so_pcb is not None
    before = sock.so.so_pcb.inp_vflag
    assert sock.connect_ex((host, 443)) == error
    assert sock.so.so_pcb.inp_vflag == before


def test_ipv6_alone_has_no_name_for_ipv4(both: Bench) -> None:
    sock = socket_v6(both)
    assert sock.connect_ex((f"::ffff:{PEER_IP}", 443)) == errno.EADDRNOTAVAIL
    with pytest.raises(OSError, match="assign"):
        sock.bind(("::ffff:0.0.0.0", 80))


def test_a_connection_of_ipv4_is_named_as_ipv6_does(both: Bench) -> None:
    listener = dual(both)
    listener.bind(("::", 80))
    listener.listen()
    told = next(told for told in both.device.ops(Opcode.LISTEN) if told["laddr"] == 0)
    both.syn(3, listener=told["listener"])
    both.handshake_done(3)
    server, name = listener.accept()
    assert name[0] == server.getpeername()[0] == f"::ffff:{PEER_IP}"
    assert server.family == socket.AF_INET6 and server.getsockopt(*V6ONLY) == 0
    assert server.so is not None and server.so.so_pcb is not None and server.so.so_pcb.inp_vflag == INP_IPV4


@pytest.mark.parametrize(("version", "most"), [(4, 1460), (6, 1440)])
def test_no_segment_is_longer_than_the_version_carries(both: Bench, version: int, most: int) -> None:
    """The engine does not know a connection's version when PATH_MTU comes: it is the driver that cuts (docs/theory.md)."""
    conn = both.connected() if version == 4 else connected(both)
    for wanted, told in ((most + 20, []), (most - 1, [most - 1]), (most + 20, [most - 1, most])):
        conn.tp.t_maxseg = wanted
        conn.sock.send(b"data")
        assert conn.tp.t_maxseg == min(wanted, most)
        assert [command["mss"] for command in conn.commands(Opcode.PATH_MTU)] == told


def test_the_users_segment_size_is_cut_to_what_ipv6_carries(both: Bench) -> None:
    opening(both).sock.close()
    sock = socket_v6(both)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
    both.device.forget()
    sock.connect_ex((PEER, 443))
    assert both.device.last(Opcode.OPEN)["mss"] == 1440


PLACES = {
    "0.0.0.0": ("v4", "0.0.0.0"),
    "a": ("v4", OUR_IP),
    "[::]": ("dual", "::"),
    "[::] alone": ("v6", "::"),
    "[a6]": ("v6", OURS),
    "[::ffff:0.0.0.0]": ("dual", "::ffff:0.0.0.0"),
    "[::ffff:a]": ("dual", f"::ffff:{OUR_IP}"),
}
"""Where a socket can be bound."""
APART = {
    frozenset((v4, v6))
    for v4 in ("0.0.0.0", "a", "[::ffff:0.0.0.0]", "[::ffff:a]")
    for v6 in ("[::] alone", "[a6]")
}  # fmt: skip
"""Pairs that do not meet, as Linux has it; all others do, in either order, and with themselves."""
MAKE = {"v4": Bench.socket, "v6": socket_v6, "dual": dual}


def syn_v6(bench: Bench, ref: int, listener: int, fport: int = 5000) -> None:
    """The device has answered a SYN from the peer over IPv6."""
    peer = number(PEER)
    bench.device.event(EventType.SYN_ADDRESS, syncache_ref=ref, faddr6_low=peer & (1 << 64) - 1, faddr6_high=peer >> 64)
    bench.device.event(
        EventType.SYN_RECEIVED, syncache_ref=ref, listener=listener, laddr=LADDR_V6, faddr=bench.dev.engine.alias(peer),
        lport=80, fport=fport, mss=1440,
    )  # fmt: skip
    bench.stack.poll()


def reason(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


@pytest.mark.parametrize("reuse", [0, 1])
@pytest.mark.parametrize("one", PLACES)
def test_who_may_be_bound_and_listen_beside_whom(one: str, reuse: int) -> None:
    """Asked of Linux: SO_REUSEADDR on both lets both be bound, and one listen, whichever comes first."""
    for other in PLACES:
        meets = errno.EADDRINUSE * (frozenset((one, other)) not in APART)
        for when in ("bound", "listens", "other first"):
            bench = Bench(device(), ipv6=OURS + "/64", ipv6_gateway=ROUTER)
            first, second = (MAKE[PLACES[place][0]](bench) for place in (one, other))
            for sock in (first, second):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
            first.bind((PLACES[one][1], 80))
            if when == "listens":
                first.listen()
            bound = reason(lambda second=second, other=other: second.bind((PLACES[other][1], 80)))
            assert bound == (meets if not reuse or when == "listens" else 0), (other, when)
            if bound:
                continue
            if when == "other first":
                first, second = second, first
            assert reason(first.listen) == 0
            told = len(bench.device.ops(Opcode.LISTEN))
            assert reason(second.listen) == meets, (other, when)
            if meets:
                assert len(bench.device.ops(Opcode.LISTEN)) == told
                first.close()
                bench.stack.poll()
                assert reason(second.listen) == 0, "the port is free again"


def test_listener_may_listen_again(both: Bench) -> None:
    """Another backlog."""
    listener = dual(both)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", 80))
    listener.listen()
    listener.listen(3)


def test_listener_closed_with_half_open_connections_of_both_versions(both: Bench) -> None:
    listener = dual(both)
    listener.bind(("::", 80))
    listener.listen()
    lids = {told["laddr"]: told["listener"] for told in both.device.ops(Opcode.LISTEN)}
    both.syn(1, listener=lids[0])
    syn_v6(both, 2, lids[LADDR_V6])
    assert both.stack.syncache.count == 2
    listener.close()
    assert {told["listener"] for told in both.device.ops(Opcode.UNLISTEN)} == set(lids.values())
    for ref in (1, 2):
        both.device.event(EventType.SYNCACHE_GONE, syncache_ref=ref)
    both.stack.poll()
    assert both.stack.syncache.count == 0 and not both.dev.passive.half_open
    assert both.dev.passive.listeners.count(None) == len(both.dev.passive.listeners)


def test_backlog_is_of_both_versions_together(both: Bench) -> None:
    listener = dual(both)
    listener.bind(("::", 80))
    listener.listen(1)
    lids = {told["laddr"]: told["listener"] for told in both.device.ops(Opcode.LISTEN)}
    for ref in range(1, 5):
        if ref % 2:
            both.syn(ref, fport=5000 + ref, listener=lids[0])
        else:
            syn_v6(both, ref, lids[LADDR_V6], fport=5000 + ref)
        both.handshake_done(ref)
    names = []
    with pytest.raises(BlockingIOError):
        while True:
            names.append(listener.accept()[1][0])
    assert names == [f"::ffff:{PEER_IP}", PEER], "3/2 of the backlog, and one: as for one version"
    assert len(both.device.ops(Opcode.ABORT)) == 2


@pytest.mark.parametrize("restarted", [False, True])
def test_room_for_one_version_only(restarted: bool) -> None:
    """The other one comes when somebody leaves, be it after a restart."""
    bench = Bench(device(listeners=4), ipv6=OURS + "/64", ipv6_gateway=ROUTER)
    others = [bench.listening(port) for port in (81, 82, 83)]
    listener = dual(bench)
    listener.bind(("::", 80))
    listener.listen()
    assert bench.device.last(Opcode.LISTEN)["laddr"] == 0 and bench.dev.counters["listen_table_full"] == 1
    if restarted:
        bench.dev.stop()
        bench.dev.restart()
    assert None not in bench.dev.passive.listeners
    bench.device.forget()
    others[0].close()
    bench.stack.poll()
    assert [(told["laddr"], told["lport"]) for told in bench.device.ops(Opcode.LISTEN)] == [(LADDR_V6, 80)]
