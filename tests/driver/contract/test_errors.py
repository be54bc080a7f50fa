"""Contract table "Errors": every errno has a real cause, changes nothing, and the same call succeeds once it is gone."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pytest

from tests.driver.bench import PEER_IP, Bench, Connection, SoftwareStack, arp_reply
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import OffloadPolicy, PolicyRule, Socket
from tiptoe_driver.hardware.abi_gen import Reason
from tiptoe_driver.netinet.if_var import IFCAP_TOE
from tiptoe_driver.netinet.offload import tcp_gen_disconnect, tcp_gen_send, tcp_offload_connect
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_driver.netinet.sockbuf import sbappend, sbdrop
from tiptoe_driver.netinet.structures import sockaddr_in, sotoinpcb, sototcpcb, tcpcb
from tiptoe_hdl.host.abi import Opcode

FAR_IP = "192.0.2.7"
FULL = 16
"""Connection ids of the scripted device."""


def shallow(thing: Any) -> dict[str, Any]:
    """Every field of a structure; other structures by identity, containers by content."""
    names = [f.name for f in fields(thing)] if is_dataclass(thing) else type(thing).__slots__
    values = {name: getattr(thing, name) for name in names}
    return {
        name: value
        if isinstance(value, int | tuple | type(None))
        else tuple(value)
        if hasattr(value, "__iter__")
        else id(value)
        for name, value in values.items()
    }


def snapshot(bench: Bench, sock: Socket) -> dict[str, Any]:
    """All that a call could change: socket, inpcb, tcpcb, toepcb, what the device was told, what the driver holds."""
    assert sock.so is not None
    tp, ids = sototcpcb(sock.so), bench.dev.engine.ids
    return {
        "socket": shallow(sock.so), "so_snd": shallow(sock.so.so_snd), "so_rcv": shallow(sock.so.so_rcv),
        "inpcb": shallow(sotoinpcb(sock.so)), "tcpcb": shallow(tp), "toepcb": shallow(tp.t_toe) if tp.t_toe else None,
        "commands": len(bench.device.commands), "doorbells": list(bench.device.doorbells),
        "backlog": len(bench.dev.engine.commands.backlog), "ids": (ids.available, ids.stocked, ids.ring_pool.in_use),
        "four-tuples": set(bench.dev.calls.four_tuples), "ports": list(bench.stack.tcbinfo),
        "connected": dict(bench.stack.tcbinfo._by_tuple),
    }  # fmt: skip


@dataclass(frozen=True)
class Cause:
    """Why a call fails: ``bring`` makes it so and returns what takes the cause away again."""

    error: int
    bring: Callable[[Bench], Callable[[], object]]
    bench: Callable[[], Bench] = Bench
    ip: str = PEER_IP
    by_connect: int | None = None
    """errno of connect() where it differs: the stack sees the cause first."""


def link_down(bench: Bench) -> Callable[[], object]:
    bench.dev.if_link_state_change(False)
    return lambda: bench.dev.if_link_state_change(True)


def no_route(bench: Bench) -> Callable[[], object]:
    bench.stack.routes.remove_interface(bench.dev.tod_ifp)
    return lambda: bench.stack.routes.add_interface(bench.dev.tod_ifp, parse_ipv4("10.0.0.254"))


def offload_off(bench: Bench) -> Callable[[], object]:
    bench.dev.tod_ifp.if_capenable &= ~IFCAP_TOE

    def on() -> None:
        bench.dev.tod_ifp.if_capenable |= IFCAP_TOE

    return on


def policy_against(bench: Bench) -> Callable[[], object]:
    bench.dev.policy = OffloadPolicy([PolicyRule(offload=False, foreign="10.0.0.0/8")])

    def lift() -> None:
        bench.dev.policy = OffloadPolicy()

    return lift


def ids_used_up(bench: Bench) -> Callable[[], object]:
    conns = [bench.opening(1000 + n) for n in range(bench.dev.engine.free_ids)]
    return lambda: conns[3].end(Reason.REFUSED) or conns[3].sock.close()


def command_ring_full(bench: Bench) -> Callable[[], object]:
    bench.device.read_commands = False
    while bench.dev.engine.commands.room(1):
        bench.dev.hostif.arp.announce()

    def read_on() -> None:
        bench.device.read_commands = True
        bench.device.fetch()
        bench.stack.poll()

    return read_on


def neighbour_silent(ip: str) -> Callable[[Bench], Callable[[], object]]:
    def bring(bench: Bench) -> Callable[[], object]:
        bench.dev.hostif.arp.resolve(parse_ipv4(ip), lambda mac: None)
        assert bench.stack.sleep(lambda: bench.dev.hostif.arp.down(parse_ipv4(ip)), 4_000_000)

        def heard_of() -> None:
            bench.device.frame(arp_reply(ip))
            bench.stack.poll()

        return heard_of

    return bring


def small_memory() -> Bench:
    return Bench(FakeDevice(memory_bytes=1 << 20), snd_ring_bytes=1 << 17, rcv_ring_bytes=1 << 17)


def memory_used_up(bench: Bench) -> Callable[[], object]:
    conns = []
    while True:
        sock = bench.socket()
        if sock.connect_ex((PEER_IP, 1000 + len(conns))) != errno.EINPROGRESS:
            break
        conns.append(Connection(bench, sock, bench.device.last(Opcode.OPEN)["tid"]))
    assert 0 < len(conns) < FULL
    return lambda: conns[0].end(Reason.REFUSED) or conns[0].sock.close()


CONNECT = {
    "link down": Cause(errno.ENETDOWN, link_down),
    "no route": Cause(errno.EHOSTUNREACH, no_route, by_connect=errno.ENETUNREACH),
    "no offload": Cause(errno.EINVAL, offload_off),
    "policy": Cause(errno.EPERM, policy_against),
    "ids": Cause(errno.EPERM, ids_used_up),
    "ring memory": Cause(errno.EPERM, memory_used_up, small_memory),
    "command ring": Cause(errno.ENOBUFS, command_ring_full, lambda: Bench(command_entries=16, command_reserve=8)),
    "neighbour": Cause(errno.EHOSTDOWN, neighbour_silent("10.0.0.3"), ip="10.0.0.3"),
    "gateway": Cause(errno.EHOSTUNREACH, neighbour_silent("10.0.0.254"), ip=FAR_IP),
}
connect_causes = pytest.mark.parametrize("cause", CONNECT.values(), ids=CONNECT)


def knowing_peer(cause: Cause) -> Bench:
    bench = cause.bench()
    bench.know_peer()
    return bench


@connect_causes
def test_errors_of_tcp_offload_connect(cause: Cause) -> None:
    bench = knowing_peer(cause)
    remove = cause.bring(bench)
    sock = bench.socket()
    nam = sockaddr_in(parse_ipv4(cause.ip), 80)
    assert sock.so is not None
    inp = sotoinpcb(sock.so)

    def call() -> int:
        assert sock.so is not None
        with bench.stack.tcbinfo.lock, inp.lock:
            return tcp_offload_connect(sock.so, nam)

    # What in_pcb does before it.
    with bench.stack.tcbinfo.lock, inp.lock:
        inp.inp_laddr = bench.dev.tod_ifp.if_addr
        bench.stack.tcbinfo.add_port(inp, 40000)
        bench.stack.tcbinfo.set_foreign(inp, *nam)
    before = snapshot(bench, sock)
    for _ in range(3):
        assert call() == cause.error
        assert snapshot(bench, sock) == before
    remove()
    assert call() == 0
    assert sototcpcb(sock.so).t_toe is not None


@connect_causes
def test_errors_of_connect(cause: Cause) -> None:
    bench = knowing_peer(cause)
    remove = cause.bring(bench)
    sock = bench.socket()
    before = snapshot(bench, sock)
    assert sock.connect_ex((cause.ip, 80)) == (cause.by_connect or cause.error)
    assert snapshot(bench, sock) == before
    remove()
    assert sock.connect_ex((cause.ip, 80)) == errno.EINPROGRESS


@pytest.mark.parametrize("name", [name for name, cause in CONNECT.items() if cause.by_connect is None])
def test_gen_1_every_refusal_leaves_the_connection_to_the_software_stack(name: str) -> None:
    """But for a missing route: no stack can do without one."""
    bench = knowing_peer(CONNECT[name])
    CONNECT[name].bring(bench)
    software = SoftwareStack(bench.stack)
    sock = bench.socket()
    assert sock.so is not None
    assert sock.connect_ex((CONNECT[name].ip, 80)) == errno.EINPROGRESS
    assert software.outputs == [sototcpcb(sock.so)] and sototcpcb(sock.so).t_toe is None


# ---------------------------------------------------------------------- calls for a live connection


def new_data(conn: Connection) -> None:
    sbappend(conn.so.so_snd, memoryview(bytes(100)))


def smaller_mtu(bench: Bench) -> Callable[[], object]:
    bench.dev.tod_ifp.if_mtu = 1000

    def larger() -> None:
        bench.dev.tod_ifp.if_mtu = 1500

    return larger


def nothing(conn: Connection) -> None:
    pass


LIVE = {
    "send, link down": (tcp_gen_send, new_data, link_down, errno.ENETDOWN),
    "send, MTU": (tcp_gen_send, new_data, smaller_mtu, errno.EMSGSIZE),
    "disconnect, link down": (tcp_gen_disconnect, nothing, link_down, errno.ENETDOWN),
    "disconnect with data, link down": (tcp_gen_disconnect, new_data, link_down, errno.ENETDOWN),
    "disconnect, MTU": (tcp_gen_disconnect, nothing, smaller_mtu, errno.EMSGSIZE),
}  # fmt: skip


@pytest.mark.parametrize(("function", "prepare", "bring", "error"), LIVE.values(), ids=LIVE)
def test_errors_of_calls_for_a_connection(
    bench: Bench,
    function: Callable[[tcpcb], int],
    prepare: Callable[[Connection], None],
    bring: Callable[[Bench], Callable[[], object]],
    error: int,
) -> None:
    conn = bench.connected().nodelay()
    conn.sock.send(bytes(10))
    conn.deliver(b"not read yet")
    sbdrop(conn.so.so_rcv, 3)  # consumed, but not told: no call that fails may return the credits
    tp = conn.tp
    with tp.t_inpcb.lock:
        assert function(tp) == 0 if function is tcp_gen_send else True
    prepare(conn)
    remove = bring(bench)
    before = snapshot(bench, conn.sock)
    for _ in range(3):
        with tp.t_inpcb.lock:
            assert function(tp) == error
        assert snapshot(bench, conn.sock) == before
    remove()
    with tp.t_inpcb.lock:
        assert function(tp) == 0
    end = conn.so.so_snd.tail
    if function is tcp_gen_disconnect:
        assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [end]
    else:
        assert conn.doorbells("snd")[-1] == end


@pytest.mark.parametrize("bring", [link_down, smaller_mtu])
def test_send_1_an_unchanged_buffer_is_no_error_whatever_is_wrong(
    bench: Bench, bring: Callable[[Bench], Callable[[], object]]
) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(10))
    bring(bench)
    before = snapshot(bench, conn.sock)
    with conn.tp.t_inpcb.lock:
        assert tcp_gen_send(conn.tp) == 0
    assert snapshot(bench, conn.sock) == before


def test_eperm_for_data_behind_the_fin(bench: Bench) -> None:
    conn = bench.connected()
    with conn.tp.t_inpcb.lock:
        assert tcp_gen_disconnect(conn.tp) == 0
    new_data(conn)
    before = snapshot(bench, conn.sock)
    for function in (tcp_gen_send, tcp_gen_disconnect):
        with conn.tp.t_inpcb.lock:
            assert function(conn.tp) == errno.EPERM
        assert snapshot(bench, conn.sock) == before
    conn.so.so_snd.sb_cc -= 100
    with conn.tp.t_inpcb.lock:
        assert tcp_gen_send(conn.tp) == 0


@pytest.mark.parametrize("call", ["tu_send", "tu_rcvd", "tu_disconnect", "tu_reset"])
def test_eperm_for_a_stale_handle(bench: Bench, call: str) -> None:
    """A tcpcb whose toepcb serves another connection by now."""
    old, conn = bench.connected(80), bench.connected(81)
    old.tp.t_toe = conn.toep
    new_data(old)
    before = snapshot(bench, old.sock), snapshot(bench, conn.sock)
    with old.tp.t_inpcb.lock:
        assert getattr(bench.dev.tod_usrreqs, call)(old.tp) == errno.EPERM
    assert (snapshot(bench, old.sock), snapshot(bench, conn.sock)) == before
    old.tp.t_toe = old.toep
    with old.tp.t_inpcb.lock:
        assert getattr(bench.dev.tod_usrreqs, call)(old.tp) == 0


def test_a_full_command_ring_refuses_no_control_command() -> None:
    """Data, close and abort find room, in order; ENOBUFS is for new connections only."""
    bench = Bench(command_entries=16, command_reserve=8)
    closing, aborted, sending = (bench.connected(port) for port in (80, 81, 82))
    read_on = command_ring_full(bench)
    for _ in range(20):
        bench.dev.engine.commands.post_control(b"\0" * 64)
    assert bench.dev.engine.commands.backlog
    assert sending.sock.send(b"x") == 1
    closing.sock.close()
    with aborted.tp.t_inpcb.lock:
        assert bench.dev.tod_usrreqs.tu_reset(aborted.tp) == 0
    assert not bench.device.ops(Opcode.CLOSE, Opcode.ABORT)
    read_on()
    assert sending.doorbells("snd") == [1]
    bench.stack.wait(10)
    assert [(c["op"], c["tid"]) for c in bench.device.ops(Opcode.CLOSE, Opcode.ABORT)] == [
        (Opcode.CLOSE, closing.tid),
        (Opcode.ABORT, aborted.tid),
    ]


def test_a_next_hop_counts_as_down_for_a_while(bench: Bench) -> None:
    bring = neighbour_silent(PEER_IP)
    bring(bench)
    sock = bench.socket()
    assert sock.connect_ex((PEER_IP, 80)) == errno.EHOSTDOWN
    bench.device.time += 20_000_000
    bench.device.forget()
    assert sock.connect_ex((PEER_IP, 80)) == errno.EINPROGRESS  # asked again
    assert len(bench.device.sent_frames()) == 1
