"""Passive opens of the software stand-in: half-open connections, the queue of a listener, TIME_WAIT."""

from __future__ import annotations

import socket

import pytest

from tests.driver.bench import PEER_IP
from tests.verif.standin.line import OURS, PORT, SECOND, Line
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_verif.standin.sender import RETRANSMISSIONS


def test_listener(line: Line) -> None:
    listener = line.listen()
    (syn_ack,) = line.send("S", 0, options=[("MSS", 900)])
    assert line.told([syn_ack]) == [("SA", 0, 1, b"")]
    assert syn_ack.options == [("MSS", 1460)] and not listener.readable()
    assert line.told(line.send("S", 0)) == [("SA", 0, 1, b"")]
    assert line.told(line.send("PA", 1, 1, b"early")) == [("A", 1, 6, b"")]
    line.sock, peer = listener.accept()
    assert peer == (PEER_IP, OURS) and line.sock.recv(10) == b"early" and line.tp.t_state is State.ESTABLISHED
    line.sock.send(bytes(2000))
    assert [len(each.data) for each in line.sent()] == [900, 900, 200] and line.tcp.counters["accepted"] == 1


@pytest.mark.parametrize(
    ("step", "replies", "alive"),
    [
        (("A", 1, 5), [("R", 5, 0, b"")], True),
        (("A", 70_000, 1), [("A", 1, 1, b"")], True),
        (("R", 1), [], False),
        (("R", 5), [], True),
        (("SA", 0, 1), [], True),
        (("S", 100), [("SA", 0, 101, b"")], True),
    ],
)
def test_syn_received(line: Line, step, replies, alive: bool) -> None:
    listener = line.listen()
    line.send("S", 0)
    assert line.told(line.send(*step)) == replies
    assert bool(line.tcp._passive.half_open) is alive and not listener.readable()


def test_syn_ack_is_sent_again_and_given_up(line: Line) -> None:
    line.listen()
    line.send("S", 0)
    assert line.told(line.pass_us(300 * SECOND)) == [("SA", 0, 1, b"")] * RETRANSMISSIONS
    assert not line.tcp._passive.half_open


def test_listener_closes_under_a_half_open_connection(line: Line) -> None:
    listener = line.listen()
    line.send("S", 0)
    listener.close()
    assert line.told(line.send("A", 1, 1)) == [("R", 1, 0, b"")]
    assert not line.tcp._passive.half_open


def test_accept_queue_is_full(line: Line) -> None:
    listener = line.listen(backlog=1)
    for flags, port, replies in (
        ("S", 6000, 1),
        ("S", 6001, 1),
        ("S", 6002, 1),
        ("A", 6000, 0),
        ("A", 6001, 0),
        ("A", 6002, 0),
        ("S", 6003, 0),
    ):
        line.ports = PORT, port
        assert len(line.send(flags, int(flags == "A"), 1)) == replies
    assert len(listener.so.so_comp) == 2 and line.tcp.counters["syns_dropped"] == 2
    listener.accept()
    line.ports = PORT, 6002
    assert line.told(line.pass_us(200_000)) == [("SA", 0, 1, b"")]
    line.send("A", 1, 1)  # this time there is room
    assert len(listener.so.so_comp) == 2


@pytest.mark.parametrize(
    ("seq", "listens", "reply"),
    [(100, True, ("SA", 0, 101, b"")), (-5, True, ("A", 2, 2, b"")), (100, False, ("A", 2, 2, b""))],
)
def test_syn_for_a_connection_in_time_wait(line: Line, seq: int, listens: bool, reply) -> None:
    listener = line.listen()
    line.send("S", 0)
    line.send("A", 1, 1)
    line.sock, _ = listener.accept()
    line.sock.shutdown(socket.SHUT_WR)
    line.send("FA", 1, 2)
    assert line.tp.t_state is State.TIME_WAIT
    if not listens:
        listener.close()
    line.sent()
    assert line.told(line.send("S", seq)) == [reply]
