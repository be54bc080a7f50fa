"""Windows and sizes of segments of the software stand-in."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.driver.bench import PEER_IP
from tests.verif.standin.line import IRS, OURS, PORT, SECOND, Line, M
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_verif.standin.sender import RETRANSMISSIONS


@pytest.mark.parametrize(("mss", "size"), [(None, 536), (200, 200), (9000, 1460)])
def test_segments_are_no_larger_than_the_peer_and_we_take(line: Line, mss: int | None, size: int) -> None:
    line.established(mss=mss)
    line.sock.send(bytes(20_000))
    assert [len(each.data) for each in line.sent()] == [size] * 4


def test_maxseg_of_the_user(line: Line) -> None:
    line.sock = made = line.socket()
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 700)
    made.bind(("", OURS))
    made.connect_ex((PEER_IP, PORT))
    assert line.sent()[0].options == [("MSS", 700)]


@pytest.mark.parametrize("nodelay", [0, 1])
def test_nagle_holds_small_writes_unless_nodelay(line: Line, nodelay: int) -> None:
    line.established()
    line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
    for data in (b"one", b"two", b"three"):
        line.sock.send(data)
    first = [("PA", 1, 1, b"one")]
    assert line.told(line.sent()) == (first if not nodelay else [*first, ("PA", 4, 1, b"two"), ("PA", 7, 1, b"three")])
    assert line.told(line.send("A", 1, 4)) == ([] if nodelay else [("PA", 4, 1, b"twothree")])


def test_cork_holds_until_it_is_pulled_or_200_ms_are_over(line: Line) -> None:
    line.established()
    line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    line.sock.send(b"header")
    assert line.sent() == []
    line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    assert line.told(line.sent()) == [("PA", 1, 1, b"header")]
    line.send("A", 1, 7)
    line.sock.send(b"more", socket.MSG_MORE)
    assert line.pass_us(199_000) == []
    assert line.told(line.pass_us(1_000)) == [("PA", 7, 1, b"more")]


def test_closed_window_is_probed(line: Line) -> None:
    line.established(window=1500)
    line.sock.send(bytes(1500) + b"more than it takes")
    assert line.told(line.sent()) == [("A", 1, 1, bytes(1000))]  # no small segment while something is under way
    assert line.told(line.send("A", 1, 1001, window=0)) == []
    probe = ("A", 1001, 1, b"\0")
    assert line.told(line.pass_us(250_000)) == [probe]
    assert line.told(line.send("A", 1, 1001, window=0)) == []
    assert line.told(line.pass_us(450_000)) == [probe]
    assert line.told(line.send("A", 1, 1002, window=0)) == []  # the peer has kept it
    for _ in range(2 * RETRANSMISSIONS):  # a peer that answers keeps the connection
        assert line.told(line.pass_us(110 * SECOND))
        line.send("A", 1, 1002, window=0)
    assert line.told(line.send("A", 1, 1002, window=5000)) == [("PA", 1002, 1, bytes(499) + b"more than it takes")]
    line.sock.shutdown(socket.SHUT_WR)
    assert line.told(line.sent()) == [("FA", 1519, 1, b"")]


def test_an_old_segment_that_acknowledges_more_moves_no_window(line: Line) -> None:
    """It has overtaken what told the window last (RFC 9293 section 3.10.7.4): SND.WL1 is ahead of it."""
    line.established(window=3000)
    line.sock.send(bytes(6000))
    assert len(line.sent()) == 3
    line.send("A", 101, 1, b"later", window=3000)  # out of order, of which nothing is kept
    assert line.send("A", 1, 1001, window=4000) == []
    line.send("A", 101, 1001, b"later", window=2000)
    assert line.told(line.send("A", 101, 1001, b"later", window=3000))[0][:3] == ("A", 3001, 1)


def test_probe_without_an_answer_ends_the_connection(line: Line) -> None:
    line.established(window=0)
    line.sock.send(b"x")
    line.pass_us(300 * SECOND)
    assert line.error() == errno.ETIMEDOUT


def answered(line: Line, seconds: int, ack: int) -> None:
    """A peer that answers probes and takes nothing."""
    for _ in range(seconds):
        if line.told(line.pass_us(SECOND)):
            line.send("A", 1, ack, window=0)


def test_closed_and_probes_answered_for_ever_ends(line: Line) -> None:
    line.established(window=0)
    tp = line.tp
    line.sock.send(b"xy")
    line.sock.close()
    answered(line, 60, 1)
    assert tp.t_state is State.FIN_WAIT_1
    line.send("A", 1, 2, window=0)  # a byte: time anew
    answered(line, 59, 2)
    assert tp.t_state is State.FIN_WAIT_1
    answered(line, 70, 2)
    assert tp.t_state is State.CLOSED and line.tcp.counters["orphans_reset"] == 1


def test_shut_down_and_held_probes_answered_for_ever_stays(line: Line) -> None:
    line.established(window=0)
    line.sock.send(b"xy")
    line.sock.shutdown(socket.SHUT_WR)
    answered(line, 400, 1)
    assert line.tp.t_state is State.FIN_WAIT_1


def test_window_is_the_room_and_its_edge_never_moves_left(line: Line) -> None:
    line.established()
    room = line.sock.so.so_rcv.sb_hiwat
    at, edge = 1, 1 + 65535
    while True:
        replies = line.send("A", at, 1, bytes(1000))
        ack = (replies[-1].ack - IRS) & M
        assert ack + replies[-1].window >= edge
        edge, at = ack + replies[-1].window, ack
        if not replies[-1].window:
            break
    assert line.sock.so.so_rcv.sb_cc == at - 1 <= room
    assert line.told(line.send("A", at, 1, b"z")) == [("A", 1, at, b"")]  # a probe, not taken
    assert line.told(line.send("FA", at, 1)) == [("A", 1, at + 1, b"")]  # a FIN needs no room
    data = bytearray()
    while chunk := line.sock.recv(1500):
        data += chunk
    assert len(data) == at - 1 and line.tp.t_state is State.CLOSE_WAIT


def test_no_silly_window(line: Line) -> None:
    line.established()
    at = 1
    while (reply := line.send("A", at, 1, bytes(1000))[-1]).window:
        at = (reply.ack - IRS) & M
    at = (reply.ack - IRS) & M
    line.sock.recv(500)
    assert [each.window for each in line.send("A", at, 1, b"z")] == [0]
    line.sock.recv(1000)
    assert [each.window for each in line.send("A", at, 1, b"z")] == [1500]


def test_ack_tells_the_highest_number_though_the_window_has_shrunk(line: Line) -> None:
    line.established()
    line.sock.send(bytes(4000))
    line.send("A", 1, 1, window=1000)
    assert [len(each.data) for each in line.pass_us(200_000)][-1:] == [1000]
    assert line.told(line.send("PA", 1, 1, b"abc", window=1000)) == [("A", 4001, 4, b"")]


def test_reader_opens_the_window(line: Line) -> None:
    line.established()
    at = 1
    for _ in range(65):
        at = (line.send("A", at, 1, bytes(1000))[-1].ack - IRS) & M
    line.sock.recv(500)
    assert line.sent() == []  # not worth a segment
    line.sock.recv(4000)
    (update,) = line.sent()
    assert str(update.flags) == "A" and update.window >= 4500


def test_data_beyond_the_window_is_cut(line: Line) -> None:
    line.established()
    line.stack.recvspace = 0
    line.sock.so.so_rcv.sb_hiwat = 600
    line.tp.rcv_adv = (line.tp.rcv_nxt + 600) & M
    line.send("FPA", 1, 1, b"x" * 1000)
    assert line.sock.so.so_rcv.sb_cc == 600 and line.tp.t_state is State.ESTABLISHED  # and the FIN with it
