"""Small segments that wait: the Nagle algorithm, TCP_CORK and MSG_MORE, and how every such wait ends (RFC 9293 section 3.7.4)."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.driver.bench import Bench, Connection
from tiptoe_driver import TCP_NOPUSH
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.sockbuf import sbreserve
from tiptoe_driver.netinet.tcp_output import CORK_US
from tiptoe_hdl.host.abi import Opcode

NODELAY = socket.IPPROTO_TCP, socket.TCP_NODELAY
CORK = socket.IPPROTO_TCP, socket.TCP_CORK
MSS = 1460


def told(conn: Connection) -> list[int]:
    return conn.doorbells("snd")


def later(bench: Bench, microseconds: int) -> None:
    bench.device.time += microseconds
    bench.stack.poll()


# ---------------------------------------------------------------------- Nagle


def test_nagle_second_small_write_waits_for_the_acknowledgement_of_the_first(bench: Bench) -> None:
    conn = bench.connected()
    for data in (b"first", b"second", b"third"):
        assert conn.sock.send(data) == len(data)
    assert told(conn) == [5] and conn.tp.snd_max == 1001 + 5
    conn.ack(3)
    assert told(conn) == [5]
    conn.ack(5)
    assert told(conn) == [5, 16] and conn.tp.snd_max == 1001 + 16


def test_nagle_full_segments_go_whatever_is_under_way(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(100))
    conn.sock.send(bytes(MSS - 1))
    assert told(conn) == [100]
    conn.sock.send(bytes(2))
    assert told(conn) == [100, 100 + MSS]
    conn.ack(100 + MSS)
    assert told(conn)[-1] == 100 + MSS + 1


def test_nagle_full_segments_under_way_hold_nothing(bench: Bench) -> None:
    """RFC 9293 appendix A.3: what stays of a long transfer waits only for the last small segment, so it fills one in the end."""
    conn = bench.connected()
    conn.sock.send(bytes(100))
    conn.sock.send(bytes(2 * MSS + 50))
    assert told(conn) == [100, 2 * MSS + 100]
    conn.ack(100)
    assert told(conn)[-1] == 2 * MSS + 150
    conn.sock.send(bytes(7))  # small again, behind another one
    conn.ack(2 * MSS + 100)
    assert told(conn)[-1] == 2 * MSS + 150
    conn.ack(2 * MSS + 150)
    assert told(conn)[-1] == 2 * MSS + 157


def test_nagle_whole_segments_make_none_small(bench: Bench) -> None:
    conn = bench.connected()
    for end in (MSS, 2 * MSS, 2 * MSS + 1):
        conn.sock.send(bytes(end - conn.so.so_snd.tail))
        assert told(conn)[-1] == end
    conn.sock.send(bytes(1))
    assert told(conn)[-1] == 2 * MSS + 1


def test_nagle_no_small_segment_yet_and_sequence_number_0_under_way(bench: Bench) -> None:
    conn = bench.opening()
    conn.state["iss"] = 2**32 - 200
    conn.report(established=1, state=State.ESTABLISHED)
    conn.sock.send(bytes(MSS))
    conn.sock.send(bytes(1))
    assert told(conn) == [MSS, MSS + 1]


def test_nagle_small_segment_of_2_to_the_31_bytes_ago_holds_nothing(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(10))
    conn.ack(10)
    for position in (0x7FFF_FF00, 0x8000_1000, 0xFFFF_FFF8):
        conn.rebase(position)
        conn.sock.send(bytes(MSS))
        assert told(conn)[-1] == (position + MSS) % (1 << 32)
        conn.sock.send(bytes(1))
        assert told(conn)[-1] == (position + MSS + 1) % (1 << 32)
        conn.ack((position + MSS + 1) % (1 << 32))


def test_nagle_a_write_on_an_idle_connection_goes_at_once(bench: Bench) -> None:
    conn = bench.connected()
    for end in (10, 20, 2000):
        conn.sock.send(bytes(end - conn.so.so_snd.tail))
        assert told(conn)[-1] == end
        conn.ack(end)


def test_nagle_positions_go_past_2_to_the_32(bench: Bench) -> None:
    conn = bench.connected()
    conn.rebase(0xFFFF_FFF0)
    conn.sock.send(bytes(10))
    conn.sock.send(bytes(MSS + 10))
    assert told(conn) == [0xFFFF_FFFA, 0xFFFF_FFFA + MSS - (1 << 32)]
    conn.ack(0xFFFF_FFFA + MSS)
    assert told(conn)[-1] == 0xFFFF_FFFA + MSS + 10 - (1 << 32)


def test_nodelay_every_write_goes_at_once(bench: Bench) -> None:
    """MUST-17: Nagle can be switched off for a connection."""
    conn = bench.connected().nodelay()
    for end in range(1, 5):
        conn.sock.send(b"x")
        assert told(conn)[-1] == end


def test_nodelay_set_later_releases_what_waits(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(b"a")
    conn.sock.send(b"b")
    conn.sock.setsockopt(*NODELAY, 0)
    assert told(conn) == [1]
    conn.nodelay()
    assert told(conn) == [1, 2]


@pytest.mark.parametrize("end", [lambda sock: sock.shutdown(socket.SHUT_WR), lambda sock: sock.close()])
@pytest.mark.parametrize("option", [None, CORK])
def test_fin_takes_what_waits_with_it(bench: Bench, end: Callable, option: tuple[int, int] | None) -> None:
    conn = bench.connected()
    if option:
        conn.sock.setsockopt(*option, 1)
    conn.sock.send(b"a")
    conn.sock.send(b"b")
    end(conn.sock)
    assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [2]
    later(bench, 2 * CORK_US)
    assert len(conn.commands(Opcode.CLOSE)) == 1 and 2 not in told(conn)


def test_what_waits_outlasts_an_outage_of_the_link(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(b"a")
    conn.sock.send(b"b")
    bench.dev.if_link_state_change(False)
    conn.ack(1)
    assert told(conn) == [1]
    bench.dev.if_link_state_change(True)
    assert told(conn) == [1, 2]


def test_data_written_before_establishment_goes_with_it(bench: Bench) -> None:
    conn = bench.opening()
    conn.sock.send(b"a")
    conn.sock.send(b"b")
    conn.report(established=1, state=State.ESTABLISHED)
    assert told(conn) == [2]


def test_smaller_segments_release_what_fills_one_now(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(b"a")
    conn.sock.send(bytes(1000))
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 600)
    bench.stack.poll()
    assert told(conn) == [1, 601]


# ---------------------------------------------------------------------- cork


@pytest.mark.parametrize("name", [socket.TCP_CORK, TCP_NOPUSH])
def test_cork_holds_what_fills_no_segment_until_it_is_pulled(bench: Bench, name: int) -> None:
    conn = bench.connected().nodelay()
    conn.sock.setsockopt(socket.IPPROTO_TCP, name, 1)
    assert conn.sock.getsockopt(socket.IPPROTO_TCP, name) == 1
    conn.sock.send(b"header")
    assert told(conn) == []
    conn.sock.send(bytes(MSS))
    assert told(conn) == [MSS]
    conn.ack(MSS)
    assert told(conn) == [MSS]
    conn.sock.setsockopt(socket.IPPROTO_TCP, name, 0)
    assert told(conn) == [MSS, MSS + 6]


def test_cork_lasts_200_ms_at_most(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(*CORK, 1)
    conn.sock.send(b"a")
    later(bench, CORK_US - 1)
    assert told(conn) == []
    later(bench, 1)
    assert told(conn) == [1]
    conn.sock.send(b"b")  # the cork is still in
    later(bench, CORK_US - 1)
    assert told(conn) == [1]
    later(bench, 1)
    assert told(conn) == [1, 2]


def test_cork_on_a_buffer_without_room_holds_nothing_that_could_not_grow(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(*CORK, 1)
    assert conn.sock.send(bytes(5000)) == 4096
    assert told(conn) == [2 * MSS]  # their acknowledgement makes room
    conn.ack(2 * MSS)
    conn.sock.send(bytes(MSS))
    assert told(conn) == [2 * MSS, 3 * MSS]


def test_nodelay_pushes_once_past_the_cork(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(*CORK, 1)
    conn.sock.send(b"a")
    conn.nodelay()
    assert told(conn) == [1]
    conn.sock.send(b"b")
    assert told(conn) == [1] and conn.sock.getsockopt(*CORK) == 1


def test_msg_more_holds_until_a_send_without_it(bench: Bench) -> None:
    conn = bench.connected().nodelay()
    assert conn.sock.send(b"head", socket.MSG_MORE) == 4
    assert told(conn) == []
    conn.sock.sendall(b"er", socket.MSG_MORE)
    assert told(conn) == []
    conn.sock.send(b"body")
    assert told(conn) == [10]


def test_msg_more_without_more_goes_after_200_ms(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(b"head", socket.MSG_MORE)
    later(bench, CORK_US)
    assert told(conn) == [4]


def test_sndbuf_below_a_segment_holds_nothing_for_ever(bench: Bench) -> None:
    """A corked buffer that is full, and has nothing under way, is sent."""
    conn = bench.connected()
    sbreserve(conn.so.so_snd, 1000)  # as of an interface with long frames
    conn.sock.setsockopt(*CORK, 1)
    assert conn.sock.send(bytes(4000)) == 1000
    assert told(conn) == [1000]


@pytest.mark.parametrize("option", [NODELAY, CORK])
def test_accepted_connections_hold_as_their_listener_says(bench: Bench, option: tuple[int, int]) -> None:
    listener = bench.listening()
    listener.setsockopt(*option, 1)
    bench.syn(1)
    bench.handshake_done(1)
    child, _ = listener.accept()
    assert child.getsockopt(*option) == 1


@pytest.mark.parametrize("how", ["end", "close"])
def test_cork_s_time_out_finds_a_connection_that_is_over(bench: Bench, how: str) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(*CORK, 1)
    conn.sock.send(b"a")
    if how == "close":
        conn.sock.close()
    conn.end()
    bench.device.forget()
    later(bench, CORK_US)
    assert bench.device.doorbells == []
