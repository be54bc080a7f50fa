"""Contract rows CONN-1, GEN-*, OPT-1, CAP-1 and the errors of an active open, on the scripted device."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.driver.bench import OUR_IP, OUR_MAC, PEER_IP, Bench, SoftwareStack, arp_reply
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import Socket, Stack
from tiptoe_driver.hardware.abi_gen import Reason, State, Status
from tiptoe_driver.netinet.if_var import IFCAP_TOE
from tiptoe_driver.netinet.offload import if_setcap, tcp_offload_connect
from tiptoe_driver.netinet.routes import parse_ipv4, parse_mac
from tiptoe_driver.netinet.structures import SS_ISCONNECTED, SS_ISCONNECTING, TF_TOE, sockaddr_in, sotoinpcb, sototcpcb
from tiptoe_driver.netinet.tcp_fsm import TCPS_CLOSED
from tiptoe_driver.sockets import SO_NO_OFFLOAD
from tiptoe_hdl.host.abi import Opcode

PEER = sockaddr_in(parse_ipv4(PEER_IP), 80)
AFAR = sockaddr_in(parse_ipv4("192.0.2.7"), 80)


def offload_connect(bench: Bench, nam: sockaddr_in = PEER) -> tuple[int, Socket]:
    """tcp_offload_connect on a fresh socket, as tcp_gen_connect would call it."""
    sock = bench.socket()
    assert sock.so is not None
    inp = sotoinpcb(sock.so)
    with bench.stack.tcbinfo.lock, inp.lock:
        inp.inp_laddr = bench.dev.tod_ifp.if_addr
        bench.stack.tcbinfo.add_port(inp, 40000)
        bench.stack.tcbinfo.set_foreign(inp, *nam)
        return tcp_offload_connect(sock.so, nam), sock


def assert_no_trace(bench: Bench, sock: Socket) -> None:
    """Neither device nor tcpcb know of the attempt."""
    assert sock.so is not None
    tp = sototcpcb(sock.so)
    assert not tp.t_flags & TF_TOE and tp.t_toe is None and tp.t_tu is None
    assert bench.device.ops(Opcode.OPEN) == []
    assert not bench.dev.tod_four_tuple_busy(sotoinpcb(sock.so).four_tuple)
    assert sock.so.so_rings is None


def test_conn_1_success_leaves_tf_toe(bench: Bench) -> None:
    bench.know_peer()
    error, sock = offload_connect(bench)
    assert error == 0
    assert sock.so is not None
    tp = sototcpcb(sock.so)
    assert tp.t_flags & TF_TOE and tp.t_toe is not None and tp.t_tu is bench.dev.tod_usrreqs
    command = bench.device.last(Opcode.OPEN)
    assert command["tid"] == tp.t_toe.tid
    assert (command["laddr"], command["lport"], command["faddr"], command["fport"]) == sotoinpcb(sock.so).four_tuple
    assert command["mss"] == 1460 and command["rcv_scale"] == 0
    hop = bench.device.last(Opcode.NEXT_HOP)
    assert command["use_next_hop"] and command["next_hop"] == hop["index"]
    assert hop["dmac"] == parse_mac("02:00:00:00:00:02")


def test_conn_1_no_toe_interface_is_einval(bench: Bench) -> None:
    bench.know_peer()
    bench.dev.tod_ifp.if_capenable &= ~IFCAP_TOE
    error, sock = offload_connect(bench)
    assert error == errno.EINVAL
    assert_no_trace(bench, sock)


def test_conn_1_no_route_is_ehostunreach() -> None:
    bench = Bench(gateway="")
    error, sock = offload_connect(bench, AFAR)
    assert error == errno.EHOSTUNREACH
    assert_no_trace(bench, sock)


def test_conn_1_link_down_is_enetdown(bench: Bench) -> None:
    bench.dev.tod_ifp.if_up = False
    error, sock = offload_connect(bench)
    assert error == errno.ENETDOWN
    assert_no_trace(bench, sock)


def test_conn_1_no_id_left_is_eperm(bench: Bench) -> None:
    bench.know_peer()
    conns = [bench.opening(port) for port in range(1, 17)]
    bench.device.forget()
    error, sock = offload_connect(bench)
    assert error == errno.EPERM
    assert_no_trace(bench, sock)
    assert bench.device.accesses == 0
    conns[3].end(Reason.REFUSED)  # ... and with one free again, it works
    sock.close()
    error, _ = offload_connect(bench)
    assert error == 0


def test_conn_1_no_memory_for_rings_is_eperm() -> None:
    bench = Bench(FakeDevice(memory_bytes=1 << 20), snd_ring_bytes=1 << 17, rcv_ring_bytes=1 << 17)
    conns = [bench.opening(port) for port in range(1, 4)]
    error, sock = offload_connect(bench)
    assert error == errno.EPERM
    assert len(bench.device.ops(Opcode.OPEN)) == len(conns)
    sock.close()


def test_conn_1_full_command_ring_is_enobufs_and_later_succeeds() -> None:
    bench = Bench(command_entries=16, command_reserve=8)
    bench.know_peer()
    bench.device.read_commands = False
    errors = [bench.socket().connect_ex((PEER_IP, port)) for port in range(1, 5)]
    assert errors == [errno.EINPROGRESS] * 3 + [errno.ENOBUFS]
    sock = bench.socket()
    assert sock.connect_ex((PEER_IP, 99)) == errno.ENOBUFS
    assert sock.so is not None
    assert sototcpcb(sock.so).t_state == TCPS_CLOSED and sotoinpcb(sock.so).inp_lport == 0
    assert not sock.so.so_state & SS_ISCONNECTING
    bench.device.read_commands = True
    bench.device.fetch()
    assert sock.connect_ex((PEER_IP, 99)) == errno.EINPROGRESS
    assert bench.device.last(Opcode.OPEN)["fport"] == 99


def test_connect_waits_for_arp(bench: Bench) -> None:
    sock = bench.socket()
    assert sock.connect_ex((PEER_IP, 80)) == errno.EINPROGRESS
    assert not bench.device.ops(Opcode.OPEN)
    request = bench.device.sent_frames()[0]
    assert request[:6] == b"\xff" * 6 and request[12:14] == b"\x08\x06" and request[20:22] == b"\0\1"
    assert request[38:42] == parse_ipv4(PEER_IP).to_bytes(4)
    bench.device.frame(arp_reply())
    bench.stack.poll()
    assert len(bench.device.ops(Opcode.OPEN)) == 1


def test_connect_goes_to_the_gateway(bench: Bench) -> None:
    sock = bench.socket()
    sock.connect_ex(("192.0.2.7", 80))
    assert bench.device.sent_frames()[0][38:42] == parse_ipv4("10.0.0.254").to_bytes(4)
    bench.device.frame(arp_reply("10.0.0.254"))
    bench.stack.poll()
    assert bench.device.last(Opcode.OPEN)["faddr"] == parse_ipv4("192.0.2.7")


@pytest.mark.parametrize(("destination", "error"), [(PEER_IP, errno.EHOSTDOWN), ("192.0.2.7", errno.EHOSTUNREACH)])
def test_next_hop_that_does_not_resolve(bench: Bench, destination: str, error: int) -> None:
    sock = bench.socket()
    sock.setblocking(True)
    with pytest.raises(OSError) as caught:
        sock.connect((destination, 80))
    assert caught.value.errno == error
    assert len(bench.device.ops(Opcode.SEND_FRAME)) == 3
    assert bench.device.time == 3_000_000
    assert not bench.device.ops(Opcode.OPEN)
    assert bench.dev.engine.free_ids == 16
    sock.close()
    assert list(bench.stack.tcbinfo) == []
    # The id that was set aside serves the next attempt, without being provisioned again.
    bench.opening()
    assert not bench.device.ops(Opcode.PROVISION)
    assert bench.dev.engine.free_ids == 15


def test_close_while_arp_is_pending_leaves_no_trace(bench: Bench) -> None:
    sock = bench.socket()
    sock.connect_ex((PEER_IP, 80))
    sock.close()
    bench.device.frame(arp_reply())
    bench.stack.poll()
    assert not bench.device.ops(Opcode.OPEN, Opcode.ABORT, Opcode.RELEASE)
    assert bench.dev.engine.free_ids == 16


@pytest.mark.parametrize(
    ("status", "error", "lost"),
    [
        (Status.EXISTS, errno.EADDRINUSE, 0),
        (Status.TABLE_FULL, errno.ENOBUFS, 0),
        (Status.BAD_STATE, errno.EIO, 1),
        (200, errno.EIO, 1),
    ],
)
@pytest.mark.parametrize("closed_first", [False, True])
def test_open_refused_by_the_device(bench: Bench, status: int, error: int, lost: int, closed_first: bool) -> None:
    conn = bench.opening()
    so = conn.so
    if closed_first:
        conn.sock.close()
    bench.device.done(bench.device.last(Opcode.OPEN), status)
    bench.stack.poll()
    if not closed_first:
        assert so.so_error == error
        with pytest.raises(OSError) as caught:
            conn.sock.send(b"x")
        assert caught.value.errno == error
        conn.sock.close()
    assert bench.dev.engine.free_ids == 16 - lost
    assert bench.dev.counters["lost_ids"] == lost
    assert not bench.device.ops(Opcode.RELEASE)
    again = bench.connected()
    again.deliver(b"works")
    assert again.sock.recv(10) == b"works"


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (Reason.REFUSED, ConnectionRefusedError),
        (Reason.PEER_RESET, ConnectionRefusedError),
        (Reason.TIMEOUT, TimeoutError),
    ],
)
def test_open_fails_on_the_wire(bench: Bench, reason: Reason, error: type[OSError]) -> None:
    conn = bench.opening()
    conn.sock.setblocking(True)
    so = conn.so
    conn.end(reason)
    assert conn.sock.writable()
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
    assert so.so_error == 0
    conn.sock.close()
    assert [c["op"] for c in conn.commands(Opcode.ABORT, Opcode.RELEASE)] == [Opcode.RELEASE]
    # and for a caller that waits
    sock = Socket(bench.stack)
    bench.device.script = [
        lambda: bench.device.event(1, tid=bench.device.last(Opcode.OPEN)["tid"], terminal=1, reason=reason)
    ]
    with pytest.raises(error):
        sock.connect((PEER_IP, 81))


def test_established_fields(bench: Bench) -> None:
    conn = bench.opening()
    conn.report(
        established=1, state=State.ESTABLISHED, iss=0xFFFF_FFFF, irs=0x7FFF_FFFF, mss=1200, snd_scale=7, rcv_scale=3
    )
    tp = conn.tp
    assert (tp.iss, tp.irs) == (0xFFFF_FFFF, 0x7FFF_FFFF)  # the SYNs' own numbers, not one later
    assert tp.snd_una == tp.snd_nxt == tp.snd_max == 0
    assert tp.rcv_nxt == 0x8000_0000
    assert (tp.t_maxseg, tp.snd_scale, tp.rcv_scale) == (1200, 7, 3)
    assert conn.so.so_state & SS_ISCONNECTED
    conn.deliver(bytes(5), peer_closed=1, state=State.CLOSE_WAIT)
    assert tp.rcv_nxt == 0x8000_0006  # the FIN counts once ...
    conn.report()
    conn.report(state=State.CLOSE_WAIT)
    assert tp.rcv_nxt == 0x8000_0006  # ... and no more


def test_window_scale_zero_is_not_absent() -> None:
    bench = Bench(snd_ring_bytes=1 << 18, rcv_ring_bytes=1 << 18)
    conn = bench.opening()
    assert bench.device.last(Opcode.OPEN)["rcv_scale"] == 3  # 262144 >> 3 <= 65535
    conn.report(established=1, state=State.ESTABLISHED, snd_scale=0, rcv_scale=3)
    assert conn.tp.snd_scale == 0 and conn.tp.rcv_scale == 3


# ---------------------------------------------------------------------- GEN, OPT, CAP


def test_gen_1_offloaded_calls_go_to_the_device(bench: Bench) -> None:
    software = SoftwareStack(bench.stack)
    conn = bench.connected()
    conn.sock.send(b"x")
    conn.deliver(b"y")
    conn.sock.recv(1)
    conn.sock.shutdown(socket.SHUT_WR)
    assert software.outputs == []
    assert conn.doorbells("snd") == [1] and conn.doorbells("rcv") == [1] and conn.commands(Opcode.CLOSE)


def test_gen_1_failed_offload_is_silent(bench: Bench) -> None:
    software = SoftwareStack(bench.stack)
    bench.dev.tod_ifp.if_capenable &= ~IFCAP_TOE
    sock = bench.socket()
    assert sock.connect_ex((PEER_IP, 80)) == errno.EINPROGRESS
    assert sock.so is not None
    assert software.outputs == [sototcpcb(sock.so)]
    sock.shutdown(socket.SHUT_WR)
    assert len(software.outputs) == 2
    assert not bench.device.ops(Opcode.OPEN)


def test_gen_1_without_software_stack_the_reason_is_told(bench: Bench) -> None:
    bench.dev.tod_ifp.if_up = False
    assert bench.socket().connect_ex((PEER_IP, 80)) == errno.ENETDOWN


def test_gen_2_offload_disabled_never_touches_the_device() -> None:
    bench = Bench(stack=Stack(offload_disabled=True))
    software = SoftwareStack(bench.stack)
    bench.device.forget()
    listener = bench.listening()
    sock = bench.socket()
    sock.connect_ex((PEER_IP, 80))
    sock.close()
    listener.close()
    assert len(software.outputs) == 1
    assert bench.device.accesses == 0


def test_opt_1_so_no_offload_is_read_at_connect(bench: Bench) -> None:
    software = SoftwareStack(bench.stack)
    bench.know_peer()
    sock = bench.socket()
    sock.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
    assert sock.so is not None and sock.so.so_options & SO_NO_OFFLOAD
    sock.connect_ex((PEER_IP, 80))
    assert len(software.outputs) == 1 and not bench.device.ops(Opcode.OPEN)
    conn = bench.connected(81)
    conn.sock.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)  # too late: nothing changes
    conn.sock.send(b"x")
    assert conn.doorbells("snd") == [1] and len(software.outputs) == 1


def test_cap_1_switched_off_old_connections_live_on(bench: Bench) -> None:
    conn = bench.connected()
    bench.dev.tod_ifp.if_capenable &= ~IFCAP_TOE
    conn.sock.send(b"x")
    assert conn.doorbells("snd") == [1]
    assert bench.socket().connect_ex((PEER_IP, 81)) == errno.EINVAL


def test_cap_1_switched_off_listeners_leave_the_device(bench: Bench) -> None:
    listener = bench.listening()
    if_setcap(bench.dev.tod_ifp, 0)
    assert bench.device.last(Opcode.UNLISTEN)["listener"] == 0
    bench.stack.poll()
    bench.device.forget()
    late = bench.listening(81)
    if_setcap(bench.dev.tod_ifp, 0)  # unchanged
    assert not bench.device.ops(Opcode.LISTEN, Opcode.UNLISTEN)
    if_setcap(bench.dev.tod_ifp, IFCAP_TOE)
    assert {command["lport"] for command in bench.device.ops(Opcode.LISTEN)} == {80, 81}
    listener.close()
    late.close()


def test_software_refuses_to_listen(bench: Bench) -> None:
    software = SoftwareStack(bench.stack)
    software.refusal = errno.EADDRINUSE
    sock = bench.socket()
    sock.bind(("", 80))
    with pytest.raises(OSError) as refused:
        sock.listen()
    assert refused.value.errno == errno.EADDRINUSE
    assert not bench.device.ops(Opcode.LISTEN) and sototcpcb(sock.so).t_state == State.CLOSED
    software.refusal = 0
    sock.listen()
    assert len(software.listening) == 1 and bench.device.ops(Opcode.LISTEN)
    sock.close()
    assert not software.listening


def test_own_address_is_not_offloaded(bench: Bench) -> None:
    assert bench.socket().connect_ex((OUR_IP, 80)) == errno.EINVAL
    assert not bench.device.ops(Opcode.PROVISION, Opcode.OPEN)


def test_next_hop_table_full_uses_the_mac_itself() -> None:
    bench = Bench(FakeDevice(next_hops=1))
    bench.opening()
    other = bench.socket()
    other.connect_ex(("10.0.0.3", 80))
    bench.device.frame(arp_reply("10.0.0.3", "02:00:00:00:00:03"))
    bench.stack.poll()
    command = bench.device.last(Opcode.OPEN)
    assert not command["use_next_hop"] and command["dmac"] == parse_mac("02:00:00:00:00:03")


def test_neighbour_with_a_new_mac_keeps_its_connections(bench: Bench) -> None:
    conn = bench.connected()
    bench.device.frame(arp_reply(mac="02:00:00:00:00:99"))
    bench.stack.poll()
    assert bench.device.last(Opcode.NEXT_HOP)["dmac"] == parse_mac("02:00:00:00:00:99")
    assert conn.so.so_state & SS_ISCONNECTED


def test_our_mac_is_what_was_configured(bench: Bench) -> None:
    assert bench.dev.tod_ifp.if_lladdr == parse_mac(OUR_MAC)
