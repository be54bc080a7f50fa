"""Urgent data at the socket and on the device: RFC 9293 sections 3.8.5, 3.10.2 and 3.10.3, RFC 6093; contract row SEND-1."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from tests.driver.bench import PEER_IP, Bench, Connection, SoftwareStack
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.offload import tcp_gen_send
from tiptoe_driver.netinet.software import sballoc
from tiptoe_driver.netinet.structures import SO_OOBINLINE, sototcpcb
from tiptoe_driver.sockets import SO_NO_OFFLOAD, select
from tiptoe_hdl.host.abi import Opcode

OOB, PEEK = socket.MSG_OOB, socket.MSG_PEEK
IRS = 2000


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def conn(bench: Bench) -> Connection:
    return bench.connected()


def urgent(conn: Connection, end: int, data: bytes = b"") -> None:
    """The device tells that urgent data ends at position ``end``, and brings ``data``."""
    conn.deliver(data, urgent=1, rcv_up=(IRS + 1 + end) & 0xFFFF_FFFF)


def refused(call: Any, *args: Any) -> int:
    with pytest.raises(OSError) as caught:
        call(*args)
    assert caught.value.errno is not None
    return caught.value.errno


# --- receiving


def test_the_urgent_byte_is_out_of_line(conn: Connection) -> None:
    urgent(conn, 4, b"abcXdef")
    assert conn.sock.exceptional() and not conn.sock.sockatmark() and conn.sock.urgent() == 4
    assert conn.sock.recv(100) == b"abc"
    assert conn.sock.sockatmark() and conn.sock.urgent() == 1
    assert conn.sock.recv(100, OOB) == b"X"
    assert not conn.sock.exceptional()
    assert conn.sock.recv(100) == b"def"
    assert not conn.sock.sockatmark() and conn.sock.urgent() == 0
    assert conn.tp.rcv_up == IRS + 5


def test_in_line_a_read_stops_at_the_mark_and_takes_the_byte(conn: Connection) -> None:
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    assert conn.so.so_options & SO_OOBINLINE
    urgent(conn, 4, b"abcXdef")
    assert refused(conn.sock.recv, 1, OOB) == errno.EINVAL
    assert conn.sock.exceptional()
    assert conn.sock.recv(100) == b"abc"
    assert conn.sock.sockatmark()
    assert conn.sock.recv(100) == b"Xdef"
    assert not conn.sock.sockatmark() and not conn.sock.exceptional()


def test_must_32_the_user_hears_of_it_before_its_data_has_come(conn: Connection) -> None:
    heard: list[int] = []
    conn.sock.set_urgent_upcall(lambda sock: heard.append(sock.urgent()))
    urgent(conn, 4, b"ab")
    assert heard == [4]
    assert not conn.sock.exceptional() and refused(conn.sock.recv, 1, OOB) == errno.EAGAIN
    urgent(conn, 4, b"c")  # the next snapshot tells the same
    assert heard == [4]
    assert conn.sock.recv(100) == b"abc" and conn.sock.sockatmark()
    assert refused(conn.sock.recv, 100) == errno.EAGAIN
    conn.deliver(b"X")
    assert conn.sock.exceptional() and not conn.sock.readable()
    assert conn.sock.recv(1, OOB) == b"X"


def test_must_32_the_user_hears_of_every_advance(conn: Connection) -> None:
    heard: list[int] = []
    conn.sock.set_urgent_upcall(lambda sock: heard.append(sock.urgent()))
    for end in (10, 10, 20, 4000, 4000 + 65535):
        urgent(conn, end)
    assert heard == [10, 20, 4000, 4000 + 65535]
    conn.sock.set_urgent_upcall(None)
    urgent(conn, 4096 + 65535)
    assert len(heard) == 4


def test_must_31_urgent_data_of_any_length(conn: Connection) -> None:
    """The mark lies far ahead, and moves on while data comes: everything is read as it comes, and the end is known."""
    got = b""
    for k in range(100):
        urgent(conn, min(1000 * k + 65535, 100_000), bytes([k]) * 1000)
        left = conn.sock.urgent()
        assert left == min(1000 * k + 65535, 100_000) - 1000 * k
        got += conn.sock.recv(2000)
    assert got == b"".join(bytes([k]) * 1000 for k in range(100))[:-1]
    assert conn.sock.sockatmark() and conn.sock.recv(1, OOB) == bytes([99])


def test_an_advance_leaves_the_byte_before_in_line(conn: Connection) -> None:
    urgent(conn, 2, b"aXb")
    urgent(conn, 5, b"cYd")
    assert conn.sock.recv(100) == b"aXbc"
    assert conn.sock.recv(1, OOB) == b"Y"
    assert conn.sock.recv(100) == b"d"


def test_msg_oob_reads_it_once(conn: Connection) -> None:
    assert refused(conn.sock.recv, 1, OOB) == errno.EINVAL
    urgent(conn, 1, b"X")
    assert conn.sock.recv(1, OOB | PEEK) == b"X"
    buffer = bytearray(3)
    assert conn.sock.recv_into(buffer, 0, OOB) == 1 and buffer == b"X\0\0"
    assert refused(conn.sock.recv, 1, OOB) == errno.EINVAL


def test_msg_oob_never_waits(bench: Bench, conn: Connection) -> None:
    conn.sock.setblocking(True)
    urgent(conn, 5)
    assert refused(conn.sock.recv, 1, OOB) == errno.EAGAIN


def test_read_past_the_mark_the_byte_is_gone(conn: Connection) -> None:
    urgent(conn, 1, b"Xa")
    assert conn.sock.recv(10) == b"a"
    assert refused(conn.sock.recv, 1, OOB) == errno.EINVAL and not conn.sock.exceptional()


def test_peeking_moves_no_mark(conn: Connection) -> None:
    urgent(conn, 3, b"abXcd")
    assert conn.sock.recv(10, PEEK) == b"ab"
    assert conn.sock.recv(2) == b"ab"
    assert conn.sock.recv(10, PEEK) == b"cd" and conn.sock.sockatmark()
    assert conn.sock.recv(1, OOB) == b"X"
    assert conn.sock.recv(10) == b"cd"


def test_recv_into_and_views_stop_at_the_mark_too(conn: Connection) -> None:
    urgent(conn, 3, b"abXcdef")
    buffer = bytearray(10)
    assert conn.sock.recv_into(buffer) == 2
    assert conn.sock.recv_into(buffer, 2) == 2 and buffer[:2] == b"cd"
    urgent(conn, 9, b"gYh")
    assert b"".join(conn.sock.recv_view()) == b"efg"
    conn.sock.consume(3)
    assert conn.sock.recv(1, OOB) == b"Y"
    assert b"".join(conn.sock.recv_view()) == b"h"


def test_credits_come_back_for_the_byte_too(conn: Connection) -> None:
    urgent(conn, 2, b"aXb")
    conn.sock.recv(1)
    conn.sock.recv(1)
    assert conn.toep.rcv_credited == 3


def test_select_tells_of_it_as_exceptional(bench: Bench, conn: Connection) -> None:
    assert select(bench.stack, [], [], [conn.sock], 0) == ([], [], [])
    urgent(conn, 1, b"X")
    assert select(bench.stack, [conn.sock], [], [conn.sock], 0) == ([], [], [conn.sock])
    conn.sock.recv(1, OOB)
    assert select(bench.stack, [conn.sock], [], [conn.sock], 0) == ([], [], [])


def test_the_end_of_the_stream_behind_the_urgent_byte(conn: Connection) -> None:
    urgent(conn, 2, b"aX")
    conn.report(peer_closed=1, state=State.CLOSE_WAIT)
    assert conn.sock.recv(10) == b"a" and conn.sock.recv(10) == b""
    assert conn.sock.recv(1, OOB) == b"X"


def test_an_urgent_byte_that_nobody_read_is_no_reason_for_a_reset(conn: Connection) -> None:
    urgent(conn, 1, b"X")
    conn.sock.close()
    assert conn.commands(Opcode.CLOSE) and not conn.commands(Opcode.ABORT)


def test_a_wild_pointer_changes_nothing(bench: Bench, conn: Connection) -> None:
    conn.deliver(b"abc")
    for end in (3, 0, -5, 3 + 4096 + 65536 + 1, 1 << 31):
        urgent(conn, end)
        assert conn.sock.urgent() == 0
    assert bench.dev.counters["bad_positions"] == 5
    assert conn.sock.recv(10) == b"abc"


def test_positions_wrap(conn: Connection) -> None:
    """4 GiB later: the mark is where it was."""
    start = 0xFFFF_FFFE
    conn.data_end = start
    conn.toep.rcv_position = conn.toep.rcv_credited = start
    conn.so.so_rcv.head = start
    urgent(conn, start + 4, b"abcXd")
    assert conn.sock.recv(10) == b"abc" and conn.sock.sockatmark()
    assert conn.sock.recv(1, OOB) == b"X" and conn.sock.recv(10) == b"d"


def test_urgent_data_of_a_closed_socket(bench: Bench, conn: Connection) -> None:
    conn.sock.shutdown(socket.SHUT_RD)
    urgent(conn, 3, b"abX")
    assert conn.toep.rcv_credited == 3 and conn.sock.urgent() == 0


# --- sending


def sends(conn: Connection) -> list[int]:
    return [command["snd_end"] for command in conn.commands(Opcode.URGENT)]


def test_send_urgent_is_a_command_behind_what_was_told(conn: Connection) -> None:
    conn.sock.send(b"abc")
    assert conn.sock.send(b"X", OOB) == 1
    assert sends(conn) == [4] and conn.tp.snd_up == 1000 + 5


def test_send_1_urgent_data_is_not_held_by_nagle_nor_a_cork(conn: Connection) -> None:
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    conn.sock.send(b"abc")
    conn.sock.send(b"X", OOB | socket.MSG_MORE)
    assert sends(conn) == [4]


def test_send_1_data_behind_it_waits_until_the_device_has_the_pointer(bench: Bench, conn: Connection) -> None:
    """A doorbell is a register and would overtake the command: the peer would have passed the mark when it hears of it."""
    conn.nodelay()
    bench.device.answer = lambda command: None
    conn.sock.send(b"X", OOB)
    conn.sock.send(b"abc")
    assert conn.doorbells("snd") == [] and sends(conn) == [1]
    ops = [command["op"] for command in bench.device.commands]
    assert ops.index(Opcode.URGENT) < ops.index(Opcode.READ_TCB)
    bench.device.done(bench.device.last(Opcode.READ_TCB))
    bench.stack.poll()
    assert conn.doorbells("snd") == [4]


def test_send_1_an_unchanged_buffer_is_not_urgent_again(bench: Bench, conn: Connection) -> None:
    conn.sock.send(b"X", OOB)
    bench.stack.poll()
    bench.device.forget()
    accesses = bench.device.accesses
    with conn.tp.t_inpcb.lock:
        assert tcp_gen_send(conn.tp) == 0
    assert bench.device.accesses == accesses and not bench.device.commands


def test_before_the_connection_is_established_it_is_kept(bench: Bench) -> None:
    conn = bench.opening()
    conn.sock.send(b"abcX", OOB)
    conn.sock.send(b"de")
    assert sends(conn) == []
    conn.report(established=1, state=State.ESTABLISHED)
    assert sends(conn) == [4]


def test_urgent_then_shutdown(bench: Bench, conn: Connection) -> None:
    conn.sock.send(b"X", OOB)
    conn.sock.shutdown(socket.SHUT_WR)
    assert sends(conn) == [1]
    assert [command["snd_end"] for command in conn.commands(Opcode.CLOSE)] == [1]
    assert refused(conn.sock.send, b"X", OOB) == errno.EPIPE


def test_what_found_no_room_is_not_urgent_yet(bench: Bench, conn: Connection) -> None:
    conn.sock.send(bytes(4000))
    assert conn.sock.send(bytes(200), OOB) == 96
    assert sends(conn) == []
    conn.ack(4000)
    assert conn.sock.send(bytes(104), OOB) == 104
    assert sends(conn) == [4200]


def test_link_down_urgent_data_waits_for_its_return(bench: Bench, conn: Connection) -> None:
    bench.dev.tod_ifp.if_up = False
    assert conn.sock.send(b"X", OOB) == 1 and conn.tp.t_softerror == errno.ENETDOWN
    assert sends(conn) == []
    bench.dev.tod_ifp.if_up = True
    conn.sock.send(b"Y")
    assert sends(conn) == [1]


def test_not_offloaded_there_is_none(bench: Bench) -> None:
    assert refused(bench.socket().send, b"X", OOB) == errno.ENOTCONN
    SoftwareStack(bench.stack)
    sock = bench.socket()
    sock.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
    sock.connect_ex((PEER_IP, 80))
    sballoc(sototcpcb(sock.so).t_inpcb.inp_socket, bench.stack)
    assert refused(sock.send, b"X", OOB) == errno.EOPNOTSUPP
