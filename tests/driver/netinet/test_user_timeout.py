"""TCP_USER_TIMEOUT: what is not acknowledged for so long ends the connection (RFC 9293 section 3.10.8, MUST-21)."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.driver.bench import PEER_IP, Bench, Connection
from tests.driver.contract.endings import released
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_hdl.host.abi import Opcode

USER_TIMEOUT = socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
LIMIT_MS = 5000


def pass_ms(bench: Bench, milliseconds: int) -> None:
    bench.device.time += 1000 * milliseconds
    bench.stack.poll()


def error_of(conn: Connection) -> int:
    return int(conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def limited(bench: Bench, limit: int = LIMIT_MS) -> Connection:
    conn = bench.connected()
    conn.sock.setsockopt(*USER_TIMEOUT, limit)
    return conn


def test_data_that_nobody_acknowledges_resets_the_connection(bench: Bench) -> None:
    conn = limited(bench)
    assert conn.sock.getsockopt(*USER_TIMEOUT) == LIMIT_MS
    conn.sock.send(b"anybody?")
    pass_ms(bench, LIMIT_MS - 1)
    assert not conn.commands(Opcode.ABORT)
    pass_ms(bench, 1)
    assert len(conn.commands(Opcode.ABORT)) == 1
    with pytest.raises(TimeoutError):
        conn.sock.recv(10)
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)


def test_progress_begins_the_time_anew(bench: Bench) -> None:
    conn = limited(bench)
    conn.sock.send(bytes(100))
    for acked in range(10, 100, 10):
        pass_ms(bench, LIMIT_MS - 1)
        conn.ack(acked)
    pass_ms(bench, LIMIT_MS - 1)
    assert not conn.commands(Opcode.ABORT)
    pass_ms(bench, 1)
    assert error_of(conn) == errno.ETIMEDOUT


def test_an_idle_connection_has_no_limit_and_the_next_write_a_whole_one(bench: Bench) -> None:
    conn = limited(bench)
    conn.sock.send(b"x")
    pass_ms(bench, 10)
    conn.ack(1)
    pass_ms(bench, 100 * LIMIT_MS)
    conn.sock.send(b"y")
    pass_ms(bench, LIMIT_MS - 1)
    assert not conn.commands(Opcode.ABORT)
    pass_ms(bench, 1)
    assert conn.commands(Opcode.ABORT)


def test_a_fin_that_nobody_acknowledges_counts(bench: Bench) -> None:
    conn = limited(bench)
    conn.sock.close()
    pass_ms(bench, LIMIT_MS)
    assert [c["op"] for c in conn.commands(Opcode.CLOSE, Opcode.ABORT)] == [Opcode.CLOSE, Opcode.ABORT]


@pytest.mark.parametrize("state", [State.FIN_WAIT_2, State.TIME_WAIT])
def test_a_fin_that_is_acknowledged_waits_for_the_peer_without_limit(bench: Bench, state: State) -> None:
    conn = limited(bench)
    conn.sock.shutdown(socket.SHUT_WR)
    conn.report(state=State.FIN_WAIT_2)
    if state is State.TIME_WAIT:
        conn.report(state=state, peer_closed=1)
    pass_ms(bench, LIMIT_MS)
    assert not conn.commands(Opcode.ABORT)


def test_an_attempt_to_connect_ends(bench: Bench) -> None:
    bench.know_peer()
    sock = bench.socket()
    sock.setsockopt(*USER_TIMEOUT, LIMIT_MS)
    sock.connect_ex((PEER_IP, 80))
    conn = Connection(bench, sock, bench.device.last(Opcode.OPEN)["tid"])
    pass_ms(bench, LIMIT_MS)
    assert error_of(conn) == errno.ETIMEDOUT and len(conn.commands(Opcode.ABORT)) == 1
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)


def test_what_icmp_told_is_the_reason(bench: Bench) -> None:
    conn = limited(bench)
    conn.sock.send(b"x")
    conn.tp.t_softerror = errno.EHOSTUNREACH
    pass_ms(bench, LIMIT_MS)
    assert error_of(conn) == errno.EHOSTUNREACH


@pytest.mark.parametrize("limit", [0, 1000])
def test_set_while_data_waits(bench: Bench, limit: int) -> None:
    conn = limited(bench)
    conn.sock.send(b"x")
    pass_ms(bench, 4000)
    conn.sock.setsockopt(*USER_TIMEOUT, limit)
    pass_ms(bench, 999)
    assert not conn.commands(Opcode.ABORT)
    pass_ms(bench, 100_000)
    assert bool(conn.commands(Opcode.ABORT)) == bool(limit)


def test_accepted_connections_have_their_listener_s(bench: Bench) -> None:
    listener = bench.listening()
    listener.setsockopt(*USER_TIMEOUT, 77)
    bench.syn(1)
    bench.handshake_done(1)
    assert listener.accept()[0].getsockopt(*USER_TIMEOUT) == 77


def test_negative_is_refused(bench: Bench) -> None:
    with pytest.raises(OSError) as caught:
        bench.socket().setsockopt(*USER_TIMEOUT, -1)
    assert caught.value.errno == errno.EINVAL


def test_the_time_finds_a_connection_that_is_over(bench: Bench) -> None:
    conn = limited(bench)
    conn.sock.send(b"x")
    conn.end(Reason.PEER_RESET)
    assert error_of(conn) == errno.ECONNRESET
    bench.device.forget()
    pass_ms(bench, LIMIT_MS)
    assert bench.device.commands == [] and error_of(conn) == 0
