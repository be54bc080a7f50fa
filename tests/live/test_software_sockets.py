"""A connection of the software branch is a socket like any other: states, endings, windows, the accept queue, blocking calls."""

import errno
import hashlib
import socket
import struct
import threading

import pytest

from tests.live.conftest import ENGINE, KERNEL, readable, receive_some, send_some
from tests.live.host_bench import RESET, HostBench, offloaded, state
from tiptoe_driver.netinet.structures import intotcpcb, sotoinpcb, sototcpcb
from tiptoe_driver.netinet.tcp_fsm import (
    TCPS_CLOSE_WAIT,
    TCPS_CLOSED,
    TCPS_ESTABLISHED,
    TCPS_FIN_WAIT_1,
    TCPS_FIN_WAIT_2,
    TCPS_LAST_ACK,
    TCPS_TIME_WAIT,
)

pytestmark = pytest.mark.tap


@pytest.fixture
def bench(make_bench):
    made = make_bench(host_stack=True, cls=HostBench)
    yield made
    made.settle()
    assert made.host.refused == 0


def test_t_state_when_we_close_first(bench, payload):
    ours, theirs = bench.pair()
    tp = sototcpcb(ours.so)
    assert tp.t_state == TCPS_ESTABLISHED and tp.t_maxseg == 1448  # the kernel's timestamps take twelve bytes
    ours.shutdown(socket.SHUT_WR)
    assert tp.t_state == TCPS_FIN_WAIT_1
    bench.until(lambda: tp.t_state == TCPS_FIN_WAIT_2, "FIN_WAIT_2")
    bench.carry(theirs, ours, payload(200_000))  # half closed, we still receive
    assert tp.t_state == TCPS_FIN_WAIT_2
    theirs.close()
    bench.expect_end(ours)
    bench.until(lambda: tp.t_state == TCPS_TIME_WAIT, "TIME_WAIT")
    ours.close()


def test_t_state_when_the_peer_closes_first(bench, payload):
    ours, theirs = bench.pair()
    tp = sototcpcb(ours.so)
    bench.carry(theirs, ours, payload(1000), end=True)
    assert tp.t_state == TCPS_CLOSE_WAIT
    bench.carry(ours, theirs, payload(200_000), end=True)
    assert tp.t_state in (TCPS_LAST_ACK, TCPS_CLOSED)
    bench.until(lambda: tp.t_state == TCPS_CLOSED, "CLOSED")
    ours.close()
    assert bench.host.tcp.open == 0


@pytest.mark.parametrize("where", ["so_rcv", "the kernel"])
def test_close_with_unread_data_is_a_reset(bench, where):
    """RFC 9293 section 3.6.1: also when the kernel alone has it yet."""
    ours, theirs = bench.pair()
    theirs.send(b"unread")
    if where == "so_rcv":
        bench.until(lambda: ours.so.so_rcv.sb_cc, "the data")
    ours.close()
    reset = errno.ECONNRESET, errno.EPIPE  # the FIN may have been first
    bench.until(lambda: theirs.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in reset, "the reset")


def test_close_sends_everything_first(bench, payload):
    """Data for a peer that does not read yet, then close: every byte comes, then the end."""
    ours, theirs = bench.pair()
    data = payload(1_500_000)
    out = memoryview(data)
    taken = bytearray()
    stalls = 0

    def step():
        nonlocal out, stalls
        sent = send_some(ours, out)
        out = out[sent:]
        stalls = 0 if sent else stalls + 1
        if stalls > 50:
            taken.extend(receive_some(theirs, 65536))  # all buffers are full
        return not len(out)

    bench.until(step, "the send")
    assert taken
    ours.close()

    def drain():
        if readable(theirs):
            taken.extend(theirs.recv(1 << 20))
        return len(taken) >= len(data)

    bench.until(drain, "the data", 120)
    assert bytes(taken) == data
    bench.expect_end(theirs)
    bench.until(lambda: bench.host.tcp.open == 0, "the end of the socket")


def test_linger_0_resets(bench, payload):
    ours, theirs = bench.pair()
    bench.carry(ours, theirs, payload(100))
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    ours.close()
    bench.until(lambda: readable(theirs), "the reset")
    with pytest.raises(ConnectionResetError):
        theirs.recv(1)
    assert bench.host.tcp.open == 0


@pytest.mark.parametrize("half_closed", [False, True])
def test_peers_reset(bench, half_closed):
    ours, theirs = bench.pair()
    if half_closed:
        theirs.shutdown(socket.SHUT_WR)
        bench.expect_end(ours)
    ours.send(b"unread")
    bench.until(lambda: readable(theirs), "the data")
    theirs.close()  # with data unread: a reset
    bench.until(lambda: state(ours) == TCPS_CLOSED, "the reset")
    error = ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert error == (errno.EPIPE if half_closed else errno.ECONNRESET)
    with pytest.raises(BrokenPipeError):
        ours.send(b"more")
    ours.close()


def test_refused(bench):
    ours = bench.socket(software=True)
    assert ours.connect_ex((KERNEL, 4444)) == errno.EINPROGRESS
    assert not ours.writable()
    bench.until(ours.writable, "the refusal")
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    ours.close()
    assert bench.host.tcp.open == 0


def test_immediate_error_leaves_the_socket_as_it_was(bench):
    bench.engine.stack.routes.remove_interface(bench.toe.tod_ifp)
    ours = bench.socket(software=True)
    ours.bind((ENGINE, 0))
    name = ours.getsockname()
    assert ours.connect_ex(("192.0.2.1", 80)) == errno.ENETUNREACH  # says the kernel, which has no such route
    assert bench.host.tcp.open == 0 and state(ours) == TCPS_CLOSED and ours.getsockname() == name
    listener = bench.listen(8000)
    bench.open(8000, made=ours)
    assert bench.accept(listener).getpeername() == name


def test_close_while_connecting(bench):
    ours = bench.socket(software=True)
    ours.connect_ex(("10.77.0.99", 80))  # nobody there
    ours.send(b"kept")
    bench.for_s(0.05)
    ours.close()
    assert bench.host.tcp.open == 0


def test_data_before_the_connection_is_established(bench):
    listener = bench.listen(8000)
    ours = bench.socket(software=True)
    ours.connect_ex((KERNEL, 8000))
    assert ours.send(b"early") == 5
    ours.shutdown(socket.SHUT_WR)  # TF_NEEDFIN
    theirs = bench.accept(listener)
    bench.carry(ours, theirs, b"")
    bench.until(lambda: readable(theirs), "the data")
    assert theirs.recv(10) == b"early"
    bench.expect_end(theirs)
    ours.close()


def test_reader_who_does_not_read_closes_the_window(bench, payload):
    ours, theirs = bench.pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    data = memoryview(payload(2_000_000))
    out = data
    stalls = 0

    def fill():
        nonlocal out, stalls
        sent = send_some(theirs, out)
        out = out[sent:]
        stalls = 0 if sent else stalls + 1
        return stalls > 200

    bench.until(fill, "a peer that is held back")
    assert len(out) > 0 and ours.so.so_rcv.sb_cc == ours.so.so_rcv.sb_hiwat
    got = hashlib.sha256()
    count = 0

    def drain():
        nonlocal out, count
        out = out[send_some(theirs, out) :]
        while ours.readable():
            chunk = ours.recv(65536)
            got.update(chunk)
            count += len(chunk)
        return count == len(data)

    bench.until(drain, "the rest", 120)
    assert got.digest() == hashlib.sha256(data).digest()


def test_accept_queue_holds_back_and_loses_nobody(bench):
    listener = bench.socket(software=True)
    listener.bind(("", 80))
    listener.listen(2)
    clients = [bench.connect(80) for _ in range(6)]
    bench.for_s(0.1)
    assert len(listener.so.so_comp) == 4  # 3 * backlog / 2, and one; the others wait in the kernel
    servers = [bench.offloaded_accept(listener) for _ in clients]
    assert {server.getpeername() for server in servers} == {client.getsockname() for client in clients}


def test_listener_closes_with_connections_waiting(bench):
    listener = bench.passive(80, software=True)
    client = bench.connect(80)
    bench.until(listener.readable, "the connection")
    listener.close()
    bench.until(lambda: readable(client), "the reset")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert bench.host.tcp.open == 0


def test_own_address_stays_in_the_host(bench, payload):
    listener = bench.passive(80)
    ours = bench.socket()
    ours.connect_ex((ENGINE, 80))
    server = bench.offloaded_accept(listener)
    frames = bench.host.sent
    bench.carry(ours, server, payload(100_000), back=payload(50_000), end=True)
    assert bench.host.sent - frames <= 2


@pytest.mark.parametrize("software", [False, True], ids=["offloaded", "software"])
def test_blocking_calls(bench, software):
    """Time passes in the calls; the peer is a program of its own."""
    listener = bench.listen(8000)
    listener.setblocking(True)

    def serve():
        with listener.accept()[0] as peer:
            peer.settimeout(30)
            while data := peer.recv(4096):
                peer.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    with bench.socket(software=software) as ours:
        ours.settimeout(30)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
        ours.connect((KERNEL, 8000))
        assert offloaded(ours) is not software
        ours.sendall(bytes(5000))
        got = b""
        while len(got) < 5000:
            got += ours.recv(65536)
        inp = sotoinpcb(ours.so)
    assert intotcpcb(inp).t_state in (TCPS_FIN_WAIT_2, TCPS_TIME_WAIT, TCPS_CLOSED)  # the close has lingered
    thread.join(30)
