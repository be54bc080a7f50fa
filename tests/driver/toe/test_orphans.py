"""Closed connections whose peer never acknowledges all: how long they may go on (EngineOptions.orphan_us), scripted device."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from tests.driver.bench import Bench, Connection
from tests.driver.contract.endings import released
from tests.driver.contract.test_detach import detach
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_hdl.host.abi import Opcode

ORPHAN_US = 60_000_000
NEAR_WRAP = 0xFFFF_FFF0


def later(bench: Bench, microseconds: int) -> None:
    bench.device.time += microseconds
    bench.stack.poll()


def aborts(conn: Connection) -> int:
    return len(conn.commands(Opcode.ABORT))


def fin_wait_1(bench: Bench) -> Connection:
    conn = bench.connected()
    conn.rebase(NEAR_WRAP)
    conn.sock.send(bytes(100))
    conn.sock.close()
    conn.report(state=State.FIN_WAIT_1)
    return conn


def closing(bench: Bench) -> Connection:
    conn = fin_wait_1(bench)
    conn.report(peer_closed=1, state=State.CLOSING)
    return conn


def last_ack(bench: Bench) -> Connection:
    conn = bench.connected()
    conn.rebase(NEAR_WRAP)
    conn.sock.send(bytes(100))
    conn.report(peer_closed=1, state=State.CLOSE_WAIT)
    conn.sock.close()
    conn.report(state=State.LAST_ACK)
    return conn


ORPHANS = pytest.mark.parametrize("reach", [fin_wait_1, closing, last_ack])


@ORPHANS
def test_peer_that_never_acknowledges_is_reset_in_the_end(bench: Bench, reach) -> None:
    conn = reach(bench)
    tp = conn.toep.tp
    so = tp.t_inpcb.inp_socket
    later(bench, ORPHAN_US - 1)
    assert aborts(conn) == 0 and bench.dev.counters["orphans_reset"] == 0
    later(bench, 2)
    assert aborts(conn) == 1 and bench.dev.counters["orphans_reset"] == 1
    assert so.so_pcb is None and tp.t_state == State.CLOSED
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)
    ids = bench.dev.engine.ids
    assert ids.ring_pool.in_use == ids.stocked and list(bench.stack.tcbinfo) == []


@ORPHANS
def test_progress_is_time_anew(bench: Bench, reach) -> None:
    conn = reach(bench)
    for acked in (25, 44, 58, 69, 100):  # a quarter of what waits, of 100 bytes
        later(bench, ORPHAN_US - 1)
        conn.ack(NEAR_WRAP + acked)
    later(bench, ORPHAN_US - 1)
    assert aborts(conn) == 0
    later(bench, 2)
    assert aborts(conn) == 1


@ORPHANS
def test_less_than_a_quarter_is_no_time_anew_but_counts_on(bench: Bench, reach) -> None:
    conn = reach(bench)
    later(bench, ORPHAN_US // 2)
    conn.ack(NEAR_WRAP + 24)
    later(bench, ORPHAN_US // 4)
    conn.ack(NEAR_WRAP + 25)
    later(bench, ORPHAN_US - 1)
    assert aborts(conn) == 0
    conn.ack(NEAR_WRAP + 25 + 18)  # of 75
    later(bench, 2)
    assert aborts(conn) == 1


@pytest.mark.parametrize("share", [1, 17])
def test_peer_that_acknowledges_a_little_before_each_time_out_does_not_hold_it_for_ever(
    bench: Bench, share: int
) -> None:
    """Silence is not the only way to keep an id: 3,000 bytes in small bites would be two days, and 16 MiB thirty years."""
    conn = bench.connected()
    conn.rebase(NEAR_WRAP)
    conn.sock.send(bytes(3000))
    conn.sock.close()
    conn.report(state=State.FIN_WAIT_1)
    acked = rounds = 0
    while not aborts(conn):
        later(bench, ORPHAN_US // 2)
        acked, rounds = min(3000, acked + share), rounds + 1
        conn.ack(NEAR_WRAP + acked)
        assert rounds < 100
    assert acked < 3000 and bench.dev.counters["orphans_reset"] == 1


def test_peer_that_is_slow_and_honest_has_the_time_it_needs(bench: Bench) -> None:
    """A sixteenth of 4,000 bytes every ten seconds, to the end."""
    conn = bench.connected()
    conn.rebase(NEAR_WRAP)
    conn.sock.send(bytes(4000))
    conn.sock.close()
    conn.report(state=State.FIN_WAIT_1)
    for acked in range(0, 4000, 250):
        later(bench, ORPHAN_US // 6)
        conn.ack(NEAR_WRAP + acked)
    conn.ack(NEAR_WRAP + 4000, state=State.FIN_WAIT_2)
    assert aborts(conn) == 0 and conn.toep.orphan is None


@ORPHANS
def test_events_without_progress_are_none(bench: Bench, reach) -> None:
    conn = reach(bench)
    for _ in range(6):
        later(bench, ORPHAN_US // 6)
        conn.report()
    later(bench, 10)
    assert aborts(conn) == 1


@pytest.mark.parametrize("held", ["alone", "read_side_too", "peer_has_closed"])
def test_shut_down_and_still_held_is_no_orphan(bench: Bench, held: str) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(100))
    if held == "peer_has_closed":
        conn.report(peer_closed=1, state=State.CLOSE_WAIT)
    conn.sock.shutdown(socket.SHUT_RDWR if held == "read_side_too" else socket.SHUT_WR)
    later(bench, 3_600_000_000)
    assert aborts(conn) == 0
    conn.sock.close()
    later(bench, ORPHAN_US - 1)
    assert aborts(conn) == 0, "the time begins with the close"
    later(bench, 2)
    assert aborts(conn) == 1


def test_fin_acknowledged_in_time_fin_wait_2_has_its_own_limit(bench: Bench) -> None:
    conn = fin_wait_1(bench)
    later(bench, ORPHAN_US // 2)
    conn.ack(NEAR_WRAP + 100, state=State.FIN_WAIT_2)
    assert conn.toep.orphan is None
    later(bench, ORPHAN_US - 1)
    assert aborts(conn) == 0
    later(bench, 2)
    assert aborts(conn) == 1 and bench.dev.counters["orphans_reset"] == 0


def test_time_wait_is_left_alone(bench: Bench) -> None:
    conn = closing(bench)
    conn.ack(NEAR_WRAP + 100, state=State.TIME_WAIT)
    later(bench, 10 * ORPHAN_US)
    assert aborts(conn) == 0
    conn.end()
    assert released(bench, conn.tid)


@ORPHANS
def test_ended_otherwise_nothing_is_left_of_it(bench: Bench, reach) -> None:
    conn = reach(bench)
    toep = conn.toep
    conn.end(Reason.TIMEOUT)
    assert toep.orphan is None and released(bench, conn.tid)
    bench.device.forget()
    later(bench, 2 * ORPHAN_US)
    assert bench.device.commands == [] and bench.dev.counters["orphans_reset"] == 0


def test_socket_gone_already_the_engine_is_told_all_the_same(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(100))
    conn.sock.shutdown(socket.SHUT_WR)
    detach(conn)
    later(bench, ORPHAN_US - 1)
    conn.ack(50)
    later(bench, ORPHAN_US - 1)
    assert aborts(conn) == 0
    later(bench, 2)
    assert aborts(conn) == 1 and bench.dev.counters["orphans_reset"] == 1
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)


def test_socket_gone_and_fin_acknowledged_later_its_limit_is_fin_wait_2_s(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.shutdown(socket.SHUT_WR)
    detach(conn)
    later(bench, ORPHAN_US - 1)
    conn.report(state=State.FIN_WAIT_2)
    later(bench, ORPHAN_US - 1)
    assert aborts(conn) == 0
    conn.report(peer_closed=1, state=State.TIME_WAIT)
    later(bench, ORPHAN_US)
    assert aborts(conn) == 0


def test_user_lingers_for_longer_he_is_no_orphan_before_his_close_returns(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(100))
    conn.sock.setblocking(True)
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 100))
    start = bench.device.time
    with pytest.raises(OSError) as error:
        conn.sock.close()
    assert error.value.errno == errno.EWOULDBLOCK
    assert bench.device.time - start >= 100_000_000 and aborts(conn) == 0
    later(bench, ORPHAN_US - 1)
    assert aborts(conn) == 0
    later(bench, 2)
    assert aborts(conn) == 1


def test_link_down_is_not_the_peer_s_fault(bench: Bench) -> None:
    conn = fin_wait_1(bench)
    bench.dev.tod_ifp.if_up = False
    later(bench, ORPHAN_US + 1)
    assert aborts(conn) == 0
    bench.dev.tod_ifp.if_up = True
    later(bench, ORPHAN_US - 1)
    assert aborts(conn) == 0
    later(bench, 2)
    assert aborts(conn) == 1


def test_other_limit_and_none() -> None:
    bench = Bench(orphan_us=5_000)
    conn = fin_wait_1(bench)
    later(bench, 5_001)
    assert aborts(conn) == 1
    bench = Bench(orphan_us=0)
    conn = fin_wait_1(bench)
    later(bench, 100 * ORPHAN_US)
    assert aborts(conn) == 0 and conn.toep.orphan is None


def test_device_stopped_no_callout_is_left(bench: Bench) -> None:
    conn = fin_wait_1(bench)
    toep = conn.toep
    bench.dev.reset()
    assert toep.orphan is not None and not toep.orphan.running
    later(bench, 2 * ORPHAN_US)
    assert bench.dev.counters["orphans_reset"] == 0
