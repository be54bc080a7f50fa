"""Contract rows DETACH-*, and ids and rings given back, on the scripted device."""

from __future__ import annotations

import itertools
import socket

import pytest

from tests.driver.bench import Bench, Connection
from tests.driver.contract.endings import ON_CONNECTION, released
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.netinet.offload import tcp_gen_detach
from tiptoe_driver.netinet.pcbinfo import INP_DROPPED
from tiptoe_driver.netinet.structures import SS_ISCONNECTED
from tiptoe_hdl.host.abi import EventType, Opcode


def syn_sent(bench: Bench) -> Connection:
    return bench.opening()


def established(bench: Bench) -> Connection:
    return bench.connected()


def close_wait(bench: Bench) -> Connection:
    conn = bench.connected()
    conn.report(peer_closed=1, state=State.CLOSE_WAIT)
    return conn


def fin_wait_1(bench: Bench) -> Connection:
    conn = bench.connected()
    conn.sock.shutdown(socket.SHUT_WR)
    return conn


def fin_wait_2(bench: Bench) -> Connection:
    conn = fin_wait_1(bench)
    conn.report(state=State.FIN_WAIT_2)
    return conn


def closing(bench: Bench) -> Connection:
    conn = fin_wait_1(bench)
    conn.report(peer_closed=1, state=State.CLOSING)
    return conn


def last_ack(bench: Bench) -> Connection:
    conn = close_wait(bench)
    conn.sock.shutdown(socket.SHUT_WR)
    return conn


def time_wait(bench: Bench) -> Connection:
    conn = fin_wait_2(bench)
    conn.report(peer_closed=1, state=State.TIME_WAIT)
    return conn


REACH = [syn_sent, established, close_wait, fin_wait_1, fin_wait_2, closing, last_ack, time_wait]
FIN_GONE = {"fin_wait_1", "fin_wait_2", "closing", "last_ack", "time_wait"}


def detach(conn: Connection) -> None:
    with conn.tp.t_inpcb.lock:
        tcp_gen_detach(conn.tp)


@pytest.mark.parametrize("reach", REACH)
def test_detach_1_in_every_state_then_every_event(bench: Bench, reach) -> None:
    conn = reach(bench)
    tp, so, toep = conn.tp, conn.so, conn.toep
    state = State(tp.t_state)
    detach(conn)
    assert toep.tp is None and tp.t_toe is None
    # A FIN on its way is left to complete; any other connection is reset, once.
    assert len(conn.commands(Opcode.ABORT)) == (reach.__name__ not in FIN_GONE)
    before = (tp.t_state, tp.snd_una, tp.rcv_nxt, so.so_state, so.so_error, so.so_rcv.sb_cc, so.so_snd.sb_cc)
    conn.report(established=1, state=max(state, State.ESTABLISHED))
    if not conn.state.get("peer_closed"):
        conn.deliver(bytes(10))
        conn.report(peer_closed=1)
    conn.ack(0)
    conn.end(Reason.LOCAL_ABORT)
    conn.report()  # nothing comes after a terminal event; if it does, it is stale
    assert before == (tp.t_state, tp.snd_una, tp.rcv_nxt, so.so_state, so.so_error, so.so_rcv.sb_cc, so.so_snd.sb_cc)
    assert len(conn.commands(Opcode.RELEASE)) == 1
    assert bench.dev.engine.ids.toepcbs[conn.tid & 0xFFFF] is None
    assert bench.dev.counters["stale_events"] == 1


@pytest.mark.parametrize("reach", REACH)
def test_detach_1_wire_goes_quiet(bench: Bench, reach) -> None:
    """After detach no doorbell, and of commands at most ABORT and RELEASE."""
    conn = reach(bench)
    bench.device.forget()
    detach(conn)
    if not conn.state.get("peer_closed"):
        conn.report(established=1, state=max(State(conn.state["state"]), State.ESTABLISHED))
        conn.deliver(bytes(10))
        conn.deliver(bytes(10))
    conn.end(Reason.LOCAL_ABORT)
    assert bench.device.doorbells == []
    ops = [c["op"] for c in conn.commands(*ON_CONNECTION)]
    assert ops in ([Opcode.ABORT, Opcode.RELEASE], [Opcode.RELEASE])


def test_detach_1_close_in_syn_sent_is_told_by_detach_alone(bench: Bench) -> None:
    conn = bench.opening()
    conn.sock.close()
    assert [c["op"] for c in conn.commands(*ON_CONNECTION)] == [Opcode.ABORT]
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)


def test_detach_1_close_in_syn_sent_while_the_handshake_completes(bench: Bench) -> None:
    conn = bench.opening()
    conn.sock.close()
    conn.report(established=1, state=State.ESTABLISHED)
    conn.end(Reason.LOCAL_ABORT)
    assert len(conn.commands(Opcode.ABORT)) == 1
    assert released(bench, conn.tid)


def test_detach_2_fin_exchange_and_time_wait_complete_without_the_socket(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(100))
    conn.sock.shutdown(socket.SHUT_WR)
    toep = conn.toep
    detach(conn)
    conn.ack(100, state=State.FIN_WAIT_2)
    assert toep.snd_una == 100
    conn.report(peer_closed=1, state=State.TIME_WAIT)
    assert not conn.commands(Opcode.ABORT, Opcode.RELEASE)
    conn.end()
    assert released(bench, conn.tid)
    assert not conn.commands(Opcode.ABORT)


def test_detach_2_close_lives_on_until_the_end(bench: Bench) -> None:
    """The usual close: the user is gone, stack and device finish, then everything is freed."""
    conn = bench.connected()
    conn.sock.send(b"x")
    so, tp = conn.so, conn.tp
    conn.sock.close()
    assert so.so_pcb is not None
    conn.ack(1, state=State.FIN_WAIT_2)
    assert not so.so_state & SS_ISCONNECTED
    conn.report(peer_closed=1, state=State.TIME_WAIT)
    assert tp.t_state == State.TIME_WAIT
    conn.end()
    assert so.so_pcb is None and tp.t_inpcb.inp_flags & INP_DROPPED
    assert released(bench, conn.tid)
    assert list(bench.stack.tcbinfo) == []
    assert bench.dev.engine.ids.ring_pool.in_use == bench.dev.engine.ids.stocked


def test_detach_2_data_after_close_is_answered_with_a_reset(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.close()
    conn.report(state=State.FIN_WAIT_2)
    conn.deliver(b"nobody reads this")
    assert len(conn.commands(Opcode.ABORT)) == 1
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)


def test_detach_2_peer_that_never_closes_is_reset_in_the_end(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.close()
    conn.report(state=State.FIN_WAIT_2)
    bench.device.time += 59_999_999
    bench.stack.poll()
    assert conn.commands(Opcode.ABORT) == []
    bench.device.time += 2
    bench.stack.poll()
    assert len(conn.commands(Opcode.ABORT)) == 1
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)


def test_detach_2_half_close_is_not_limited(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.shutdown(socket.SHUT_WR)
    conn.report(state=State.FIN_WAIT_2)
    bench.device.time += 3_600_000_000
    bench.stack.poll()
    assert conn.commands(Opcode.ABORT) == []
    conn.deliver(b"an hour later")
    assert conn.sock.recv(100) == b"an hour later"


HAPPENINGS = {
    "data": lambda conn: None if conn.state.get("peer_closed") else conn.deliver(bytes(10)),
    "ack": lambda conn: conn.ack(5),
    "peer_close": lambda conn: conn.report(peer_closed=1),
    "abort": lambda conn: conn.end(Reason.PEER_RESET),
    "detach": detach,
}


@pytest.mark.parametrize("order", list(itertools.permutations(HAPPENINGS)), ids="-".join)
def test_detach_3_interleaved_in_every_order(order: tuple[str, ...]) -> None:
    bench = Bench()
    conn = bench.connected()
    conn.sock.send(bytes(5))
    over = False  # nothing comes from the device after the terminal event
    for step in order:
        if step == "detach" or not over:
            HAPPENINGS[step](conn)
        over |= step == "abort"
    assert len(conn.commands(Opcode.RELEASE)) == 1
    assert bench.dev.engine.ids.toepcbs[conn.tid & 0xFFFF] is None
    assert bench.dev.counters["stale_events"] == 0
    assert bench.stack.locks.held == []


def test_detach_3_rings_live_until_the_reader_is_done(bench: Bench) -> None:
    """The id is released at the terminal event, yet what has arrived can be read."""
    conn = bench.connected()
    conn.deliver(b"farewell", peer_closed=1, state=State.CLOSE_WAIT)
    pool = bench.dev.engine.ids.ring_pool
    conn.end()
    assert released(bench, conn.tid)
    assert pool.in_use == 1
    bench.device.forget()
    assert conn.sock.recv(100) == b"farewell"
    assert conn.sock.recv(100) == b""
    conn.sock.close()
    assert pool.in_use == 0
    assert bench.device.accesses == 0


def test_release_keeps_rings_until_the_device_answers(bench: Bench) -> None:
    bench.device.answer = lambda command: None
    conn = bench.connected()
    conn.end()
    conn.sock.close()
    assert bench.dev.engine.ids.ring_pool.in_use == 1
    bench.device.done(conn.commands(Opcode.RELEASE)[0])
    bench.stack.poll()
    assert bench.dev.engine.ids.ring_pool.in_use == 0


def test_generation_differs_on_reuse_and_old_events_are_stale(bench: Bench) -> None:
    tids = set()
    first = None
    for _ in range(40):  # more than there are ids
        conn = bench.connected()
        first = first or conn
        assert conn.tid not in tids
        tids.add(conn.tid)
        conn.sock.close()
        conn.end()
    assert first is not None
    stale = bench.dev.counters["stale_events"]
    bench.device.event(EventType.CONNECTION, tid=first.tid, established=1, rcv_position=10)
    bench.stack.poll()
    assert bench.dev.counters["stale_events"] == stale + 1
