"""Contract rows SEND-*, RCVD-* and LOCK-1 of toe_usrreqs, on the scripted device."""

from __future__ import annotations

import errno
import random
import socket

import pytest

from tests.driver.bench import Bench, Connection
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.netinet.locks import LockError, ToeCall
from tiptoe_driver.netinet.offload import tcp_gen_rcvd, tcp_gen_send
from tiptoe_driver.netinet.socketvar import PRUS_EOF
from tiptoe_driver.netinet.tcp_fsm import TCPS_FIN_WAIT_1, TCPS_LAST_ACK
from tiptoe_driver.netinet.uipc_socket import sosend
from tiptoe_hdl.host.abi import Opcode

STARTS = [0, 0xFFFF_F800, 0xFFFF_FFFF, 0x7FFF_FFF0]


def call(function, conn: Connection) -> int:
    with conn.tp.t_inpcb.lock:
        return function(conn.tp)


def test_send_1_unchanged_buffer_touches_nothing(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(b"hello")
    bench.device.forget()
    for _ in range(10):
        assert call(tcp_gen_send, conn) == 0
    assert bench.device.accesses == 0


def test_send_1_unchanged_after_partial_ack_and_empty(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(100))
    conn.ack(40)
    bench.device.forget()
    assert call(tcp_gen_send, conn) == 0
    conn.ack(100)
    bench.device.forget()
    assert call(tcp_gen_send, conn) == 0
    assert bench.device.accesses == 0


def test_send_1_rewound_snd_nxt_changes_nothing(bench: Bench) -> None:
    """Path-MTU discovery rewinds snd_nxt to snd_una and calls tu_send: the device does the resending."""
    conn = bench.connected()
    conn.sock.send(bytes(100))
    conn.tp.snd_nxt = conn.tp.snd_una
    bench.device.forget()
    assert call(tcp_gen_send, conn) == 0
    assert bench.device.accesses == 0


@pytest.mark.parametrize("start", STARTS)
def test_send_2_sb_cc_falls_by_exactly_what_is_acknowledged(bench: Bench, start: int) -> None:
    conn = bench.connected()
    conn.rebase(start)
    data = random.Random(start).randbytes(4096)
    assert conn.sock.send(data + b"no room") == 4096
    assert conn.doorbells("snd") == [(start + 4096) & 0xFFFF_FFFF]
    assert conn.so.so_snd.sb_cc == 4096  # sent is not acknowledged
    with pytest.raises(BlockingIOError):
        conn.sock.send(b"x")
    acked = 0
    for step in (1, 1459, 0, 1460, 1176):
        acked += step
        conn.ack(start + acked)
        assert conn.so.so_snd.sb_cc == 4096 - acked
        assert conn.tp.snd_una == (conn.tp.iss + 1 + start + acked) & 0xFFFF_FFFF
        # What is not acknowledged lies in the ring still: it can be sent again.
        assert conn.send_ring(start + acked, 4096 - acked) == data[acked:]
    assert conn.sock.writable()


def test_send_2_never_falls_by_the_fin(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(10))
    conn.sock.shutdown(socket.SHUT_WR)
    conn.report(state=State.FIN_WAIT_1)
    assert conn.so.so_snd.sb_cc == 10
    conn.ack(10, state=State.FIN_WAIT_2)
    assert conn.so.so_snd.sb_cc == 0
    assert conn.tp.snd_una == conn.tp.iss + 1 + 10


def test_send_2_refuses_an_acknowledgement_beyond_what_was_sent(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(10))
    conn.ack(11)
    assert conn.so.so_snd.sb_cc == 10
    assert bench.dev.counters["bad_positions"] == 1


def test_send_2_data_round_trips_the_ring_many_times(bench: Bench, rng: random.Random) -> None:
    """The bytes at the positions told are the bytes sent, wrap after wrap, also past 2**32."""
    conn = bench.connected().nodelay()
    position = una = 0xFFFF_E000
    conn.rebase(position)
    sent, taken = bytearray(), bytearray()
    while len(sent) < 40_000:
        chunk = rng.randbytes(rng.randrange(1, 3000))
        try:
            count = conn.sock.send(chunk)
        except BlockingIOError:
            count = 0
        sent += chunk[:count]
        position = (position + count) & 0xFFFF_FFFF
        if count:
            assert conn.doorbells("snd")[-1] == position
        step = rng.randrange(conn.so.so_snd.sb_cc + 1)
        taken += conn.send_ring(una, step)
        una = (una + step) & 0xFFFF_FFFF
        conn.ack(una)
    taken += conn.send_ring(una, conn.so.so_snd.sb_cc)
    assert taken == sent


def test_send_3_prus_eof_sends_data_then_one_fin(bench: Bench) -> None:
    conn = bench.connected()
    assert sosend(conn.so, memoryview(b"last words"), PRUS_EOF) == (0, 10)
    assert conn.tp.t_state == TCPS_FIN_WAIT_1
    assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [10]
    assert conn.send_ring(0, 10) == b"last words"
    assert call(tcp_gen_send, conn) == 0
    conn.sock.shutdown(socket.SHUT_WR)
    assert len(conn.commands(Opcode.CLOSE)) == 1


def test_send_3_prus_eof_in_close_wait(bench: Bench) -> None:
    conn = bench.connected()
    conn.report(peer_closed=1, state=State.CLOSE_WAIT)
    assert sosend(conn.so, memoryview(b"bye"), PRUS_EOF) == (0, 3)
    assert conn.tp.t_state == TCPS_LAST_ACK
    assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [3]


def test_send_3_prus_eof_waits_until_all_data_is_in_the_buffer(bench: Bench) -> None:
    conn = bench.connected()
    assert sosend(conn.so, memoryview(bytes(5000)), PRUS_EOF) == (0, 4096)
    assert not conn.commands(Opcode.CLOSE)


def test_send_in_syn_sent_goes_out_when_established(bench: Bench) -> None:
    conn = bench.opening()
    bench.device.forget()
    assert conn.sock.send(b"early") == 5
    assert bench.device.accesses == 0
    conn.report(established=1, state=State.ESTABLISHED)
    assert conn.doorbells("snd") == [5]
    assert conn.send_ring(0, 5) == b"early"


def test_send_with_a_stale_handle_is_eperm(bench: Bench) -> None:
    conn = bench.connected()
    tp, tu = conn.tp, conn.tp.t_tu
    assert tu is not None
    conn.end(Reason.PEER_RESET)
    bench.device.forget()
    with tp.t_inpcb.lock:
        assert [tu.tu_send(tp), tu.tu_rcvd(tp), tu.tu_disconnect(tp), tu.tu_reset(tp)] == [errno.EPERM] * 4
        tu.tu_detach(tp)
    assert bench.device.accesses == 0


# ---------------------------------------------------------------------- receive


@pytest.mark.parametrize("start", STARTS)
def test_rcvd_1_sum_of_credits_is_what_was_consumed(bench: Bench, start: int) -> None:
    conn = bench.connected()
    conn.rebase(start)
    data = random.Random(start).randbytes(4096)
    conn.deliver(data)
    assert conn.tp.rcv_wnd == 0 and conn.so.so_rcv.sb_cc == 4096
    consumed = 0
    for step in (1, 1000, 3, 3092):
        before = conn.so.so_rcv.sb_cc
        assert conn.sock.recv(step) == data[consumed : consumed + step]
        consumed += step
        assert before - conn.so.so_rcv.sb_cc == step
        assert conn.doorbells("rcv")[-1] == (start + consumed) & 0xFFFF_FFFF
        assert conn.toep.credits == consumed
    assert len(conn.doorbells("rcv")) == 4


def test_rcvd_1_window_plus_buffer_plus_credits_is_constant(bench: Bench, rng: random.Random) -> None:
    conn = bench.connected()
    conn.rebase(0xFFFF_FF00)
    received = b""
    expected = b""
    for _ in range(200):
        room = conn.tp.rcv_wnd
        data = rng.randbytes(rng.randrange(room + 1))
        expected += data
        conn.deliver(data)
        assert conn.tp.rcv_wnd + conn.so.so_rcv.sb_cc == 4096
        wanted = rng.randrange(conn.so.so_rcv.sb_cc + 1)
        if wanted:
            received += conn.sock.recv(wanted)
        assert conn.tp.rcv_wnd + conn.so.so_rcv.sb_cc == 4096
        assert conn.toep.credits == len(received)
    if conn.so.so_rcv.sb_cc:
        received += conn.sock.recv(4096)
    assert received == expected


def test_rcvd_1_credits_return_when_the_reader_bypasses_tu_rcvd(bench: Bench) -> None:
    """A reader that takes bytes without the call: they are credited with the next arrival."""
    from tiptoe_driver.netinet.sockbuf import sbdrop

    conn = bench.connected()
    conn.deliver(bytes(100))
    sbdrop(conn.so.so_rcv, 100)
    assert conn.doorbells("rcv") == []
    conn.deliver(bytes(7))
    assert conn.doorbells("rcv") == [100]
    assert conn.toep.credits == 100


def test_rcvd_2_repeated_calls_move_nothing(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(bytes(100))
    conn.sock.recv(60)
    bench.device.forget()
    for _ in range(10):
        assert call(tcp_gen_rcvd, conn) == 0
    assert bench.device.accesses == 0
    assert conn.toep.credits == 60


def test_rcvd_2_peek_is_no_consumption(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"abc")
    bench.device.forget()
    assert conn.sock.recv(10, socket.MSG_PEEK) == b"abc"
    assert bench.device.doorbells == []
    assert conn.sock.recv(10) == b"abc"


def test_rcvd_3_closed_window_reopens_and_its_edge_never_moves_left(bench: Bench, rng: random.Random) -> None:
    conn = bench.connected()
    conn.deliver(bytes(4096))
    assert conn.tp.rcv_wnd == 0
    edges = [conn.tp.rcv_adv]
    while conn.so.so_rcv.sb_cc:
        conn.sock.recv(rng.randrange(1, 500))
        edges.append(conn.tp.rcv_adv)
    assert conn.tp.rcv_wnd == 4096
    conn.deliver(bytes(10))
    edges.append(conn.tp.rcv_adv)
    assert edges == sorted(edges)


def test_rcvd_3_data_beyond_the_window_is_not_believed(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(bytes(4000))
    conn.data_end += 97
    conn.report()
    assert conn.so.so_rcv.sb_cc == 4000
    assert bench.dev.counters["bad_positions"] == 1


# ---------------------------------------------------------------------- locks


def test_lock_1_calls_need_the_inpcb_lock(bench: Bench) -> None:
    conn = bench.connected()
    with pytest.raises(LockError, match="must be held"):
        tcp_gen_send(conn.tp)


def test_lock_1_pcbinfo_lock_is_not_taken_during_a_call(bench: Bench) -> None:
    conn = bench.connected()
    inp = conn.tp.t_inpcb
    with inp.lock:
        with ToeCall(inp.lock), pytest.raises(LockError, match="pcbinfo"):
            bench.stack.tcbinfo.lock.acquire()
    # ... nor the inpcb lock dropped, and the order is P before I.
    inp.lock.acquire()
    with ToeCall(inp.lock), pytest.raises(LockError, match="dropped"):
        inp.lock.release()
    with pytest.raises(LockError, match="P taken while I"):
        bench.stack.tcbinfo.lock.acquire()
    inp.lock.release()


def test_lock_1_no_lock_is_left_held(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(b"x")
    conn.deliver(b"y", snd_una_position=1)
    conn.sock.recv(1)
    conn.sock.close()
    conn.end()
    assert bench.stack.locks.held == [] and bench.stack.locks.pinned == []
