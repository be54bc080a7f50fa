"""The socket API as an application programmer meets it: errors, blocking, options, readiness."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from tests.driver.bench import OUR_IP, PEER_IP, Bench, arp_reply
from tiptoe_driver import Socket, create_connection, select
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.sockets import SO_NO_OFFLOAD
from tiptoe_hdl.host.abi import EventType, Opcode


def test_blocking_connect_waits_for_arp_and_handshake(bench: Bench) -> None:
    device = bench.device
    device.script = [
        lambda: device.frame(arp_reply()),
        lambda: device.event(
            EventType.CONNECTION,
            tid=device.last(Opcode.OPEN)["tid"],
            established=1,
            state=State.ESTABLISHED,
            iss=1,
            irs=2,
            mss=1460,
        ),
    ]
    sock = create_connection(bench.stack, (PEER_IP, 80))
    assert sock.getpeername() == (PEER_IP, 80)
    host, port = sock.getsockname()
    assert host == OUR_IP and 49152 <= port <= 65535


def test_connect_timeout(bench: Bench) -> None:
    bench.know_peer()
    before = bench.device.time
    with pytest.raises(TimeoutError):
        create_connection(bench.stack, (PEER_IP, 80), timeout=1.5)
    assert bench.device.time - before == 1_500_000
    assert [c["op"] for c in bench.device.ops(Opcode.OPEN, Opcode.ABORT)] == [Opcode.OPEN, Opcode.ABORT]


def test_recv_timeout_and_blocking_recv(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.settimeout(0.25)
    with pytest.raises(TimeoutError, match="timed out"):
        conn.sock.recv(10)
    assert bench.device.time == 250_000
    conn.sock.setblocking(True)
    bench.device.script = [lambda: None, lambda: conn.deliver(b"later")]
    assert conn.sock.recv(10) == b"later"


def test_sendall_waits_for_room(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setblocking(True)
    data = bytes(range(256)) * 40
    seen = bytearray()

    def acknowledge() -> None:
        end = conn.doorbells("snd")[-1]
        seen.extend(conn.send_ring(len(seen), end - len(seen)))
        conn.report(poll=False, snd_una_position=end)

    bench.device.script = [acknowledge] * 10
    conn.sock.sendall(data)
    acknowledge()
    assert seen == data


@pytest.mark.parametrize(
    ("before", "reason", "error"),
    [
        (State.ESTABLISHED, Reason.PEER_RESET, ConnectionResetError),
        (State.CLOSE_WAIT, Reason.PEER_RESET, BrokenPipeError),
        (State.ESTABLISHED, Reason.TIMEOUT, TimeoutError),
        (State.ESTABLISHED, Reason.DMA_ERROR, OSError),
        (State.ESTABLISHED, 15, OSError),
    ],
)
def test_so_error_of_a_lost_connection(bench: Bench, before: State, reason: Reason, error: type[OSError]) -> None:
    conn = bench.connected()
    if before is State.CLOSE_WAIT:
        conn.report(peer_closed=1, state=before)
    conn.deliver(b"last") if before is State.ESTABLISHED else None
    conn.end(reason)
    if before is State.ESTABLISHED:
        assert conn.sock.recv(10) == b"last"  # data before the error
    with pytest.raises(error):
        conn.sock.recv(10)
    assert conn.sock.recv(10) == b""  # once only
    with pytest.raises(BrokenPipeError):
        conn.sock.send(b"x")


def test_end_of_stream(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"bye", peer_closed=1, state=State.CLOSE_WAIT)
    assert conn.sock.readable()
    assert conn.sock.recv(100) == b"bye"
    assert conn.sock.recv(100) == b"" == conn.sock.recv(100)
    conn.sock.send(b"still open this way")
    assert conn.doorbells("snd") == [19]


def test_calls_in_the_wrong_state(bench: Bench) -> None:
    sock = bench.socket()
    with pytest.raises(OSError) as caught:
        sock.send(b"x")
    assert caught.value.errno == errno.ENOTCONN
    with pytest.raises(OSError) as caught:
        sock.recv(1)
    assert caught.value.errno == errno.ENOTCONN
    with pytest.raises(OSError) as caught:
        sock.accept()
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError) as caught:
        sock.shutdown(socket.SHUT_WR)
    assert caught.value.errno == errno.ENOTCONN
    with pytest.raises(OSError) as caught:
        sock.getpeername()
    assert caught.value.errno == errno.ENOTCONN
    conn = bench.opening()
    assert conn.sock.connect_ex((PEER_IP, 80)) == errno.EALREADY
    conn.report(established=1, state=State.ESTABLISHED)
    assert conn.sock.connect_ex((PEER_IP, 80)) == errno.EISCONN
    listener = bench.listening()
    assert listener.connect_ex((PEER_IP, 80)) == errno.EOPNOTSUPP
    sock.close()
    sock.close()
    with pytest.raises(OSError) as caught:
        sock.recv(1)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("address", [("300.1.1.1", 80), ("example", 80)])
def test_bad_address(bench: Bench, address: tuple[str, int]) -> None:
    with pytest.raises(socket.gaierror):
        bench.socket().connect(address)
    with pytest.raises(OverflowError):
        bench.socket().connect((PEER_IP, 65536))
    assert bench.socket().connect_ex((PEER_IP, 0)) == errno.EADDRNOTAVAIL
    for nobody in ("224.0.0.1", "10.0.0.255", "10.0.0.0", "255.255.255.255"):
        assert bench.socket().connect_ex((nobody, 80)) == errno.EADDRNOTAVAIL


def test_connect_without_a_route() -> None:
    bench = Bench(gateway="")
    sock = bench.socket()
    assert sock.connect_ex(("192.0.2.1", 80)) == errno.ENETUNREACH
    bench.know_peer()
    assert sock.connect_ex((PEER_IP, 80)) == errno.EINPROGRESS  # the socket is as new


def test_shut_rd_throws_data_away_and_gives_the_window_back(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"unread")
    conn.sock.shutdown(socket.SHUT_RD)
    assert conn.sock.recv(10) == b""
    conn.deliver(b"more")
    assert conn.doorbells("rcv") == [6, 10]
    assert conn.tp.rcv_wnd == 4096


def test_recv_into(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"abcdefgh")
    buffer = bytearray(b"........")
    assert conn.sock.recv_into(buffer, 3) == 3
    assert conn.sock.recv_into(memoryview(buffer)[3:]) == 5
    assert buffer == b"abcdefgh"
    assert conn.sock.recv(0) == b""
    with pytest.raises(ValueError):
        conn.sock.recv(-1)
    with pytest.raises(OSError):
        conn.sock.recv(1, socket.MSG_OOB)


def test_options(bench: Bench) -> None:
    sock = bench.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_KEEPALIVE, SO_NO_OFFLOAD):
        assert sock.getsockopt(socket.SOL_SOCKET, option) == 0
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, option) == 1
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7))
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 7)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    for level, option in ((socket.SOL_SOCKET, 999), (socket.IPPROTO_TCP, 999), (99, 1)):
        with pytest.raises(OSError) as caught:
            sock.setsockopt(level, option, 1)
        assert caught.value.errno == errno.ENOPROTOOPT
        with pytest.raises(OSError) as caught:
            sock.getsockopt(level, option)
        assert caught.value.errno == errno.ENOPROTOOPT
    conn = bench.connected()
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 4096
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 4096


def test_tcp_maxseg(bench: Bench) -> None:
    bench.know_peer()
    sock = bench.socket()
    with pytest.raises(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 40)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 500)
    sock.connect_ex((PEER_IP, 80))
    assert bench.device.last(Opcode.OPEN)["mss"] == 500
    with pytest.raises(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 600)


def test_readiness_and_upcall(bench: Bench) -> None:
    conn = bench.opening()
    calls: list[tuple[bool, bool]] = []
    conn.sock.set_upcall(lambda sock: calls.append((sock.readable(), sock.writable())))
    assert not conn.sock.writable() and not conn.sock.readable()
    conn.report(established=1, state=State.ESTABLISHED)
    assert calls[-1] == (False, True)
    conn.sock.send(bytes(4096))
    assert not conn.sock.writable()
    conn.ack(2047)
    assert not conn.sock.writable()  # less than the low-water mark
    conn.ack(2048)
    assert calls[-1] == (False, True)
    conn.deliver(b"x")
    assert calls[-1] == (True, True)


def test_select(bench: Bench) -> None:
    one, two = bench.connected(1), bench.connected(2)
    assert select(bench.stack, [one.sock, two.sock], [], timeout=0.001) == ([], [], [])
    assert bench.device.time == 1000
    bench.device.script = [lambda: two.deliver(b"x")]
    assert select(bench.stack, [one.sock, two.sock], [])[0] == [two.sock]
    assert select(bench.stack, [], [one.sock], timeout=0) == ([], [one.sock], [])


def test_reuseaddr(bench: Bench) -> None:
    sock = bench.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", 80))
    sock.listen()
    bench.syn(1)
    conn = bench.handshake_done(1)
    child, _ = sock.accept()
    sock.close()
    plain = bench.socket()
    with pytest.raises(OSError) as caught:
        plain.bind(("", 80))  # a child of the old listener is connected still
    assert caught.value.errno == errno.EADDRINUSE
    again = bench.socket()
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind(("", 80))
    again.listen()
    child.close()
    assert conn.commands(Opcode.CLOSE)


def test_ephemeral_ports_do_not_collide(bench: Bench) -> None:
    conns = [bench.opening(80) for _ in range(16)]
    assert len({conn.sock.getsockname()[1] for conn in conns}) == 16
    sock = bench.socket()
    sock.bind(("", 0))
    assert sock.getsockname()[0] == "0.0.0.0"
    assert sock.getsockname()[1] not in {conn.sock.getsockname()[1] for conn in conns}


def test_four_tuple_of_a_closing_connection_is_busy(bench: Bench) -> None:
    conn = bench.opening()
    port = conn.sock.getsockname()[1]
    conn.sock.close()  # the device still has it
    again = bench.socket()
    again.bind(("", port))
    assert again.connect_ex((PEER_IP, 80)) == errno.EADDRINUSE
    conn.end(Reason.LOCAL_ABORT)
    assert again.connect_ex((PEER_IP, 80)) == errno.EINPROGRESS


def test_context_manager_and_repr(bench: Bench) -> None:
    with bench.listening() as sock:
        assert repr(sock) == "<Socket 0.0.0.0:80 0.0.0.0:0 LISTEN>"
    assert repr(sock) == "<Socket closed>"


def test_nothing_is_left_after_many_connections(bench: Bench) -> None:
    listener = bench.listening()
    for n in range(50):
        conn = bench.connected(1000 + n)
        conn.sock.send(bytes(10))
        conn.sock.close()
        conn.end(Reason.NORMAL if n % 2 else Reason.PEER_RESET)
        bench.syn(n % 4, fport=5000 + n)
        passive = bench.handshake_done(n % 4)
        listener.accept()[0].close()
        passive.end()
    listener.close()
    bench.stack.poll()
    engine = bench.dev.engine
    assert engine.ids.ring_pool.in_use == engine.ids.stocked == 8
    assert engine.free_ids == 8 and engine.commands.waiting == 0
    assert list(bench.stack.tcbinfo) == [] and bench.stack.tcbinfo._by_tuple == {}
    assert bench.dev.calls.four_tuples == set() and bench.dev.passive.half_open == {}
    assert bench.dev.counters["lost_ids"] == bench.dev.counters["stale_events"] == 0


def test_standalone_socket_needs_a_device() -> None:
    from tiptoe_driver import Stack

    with pytest.raises(RuntimeError, match="without a device"):
        Stack().wait(None)
    assert Socket(Stack()).connect_ex((PEER_IP, 80)) == errno.ENETUNREACH
