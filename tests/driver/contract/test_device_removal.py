"""Devices that are detached or pulled: contract rows LSN-1, LSN-2, CONN-1, on scripted devices."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.driver.bench import PEER_IP, Bench
from tests.driver.contract.devices import (
    CASES,
    PEERS,
    WAYS,
    Two,
    callouts,
    contents,
    error_of,
    every_event,
    new_connection_works,
    works,
)
from tiptoe_driver import DeviceError, DeviceState
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.offload import tcp_gen_disconnect, tcp_gen_rcvd, tcp_gen_send
from tiptoe_driver.netinet.structures import TF_TOE
from tiptoe_hdl.host.abi import Opcode


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", CASES)
def test_conn_1_removed_in_every_state_then_every_event(both: Two, state: str, way: str) -> None:
    make, error = CASES[state]
    one, two = both.benches
    listener = one.listening()
    bystander = two.connected(99)
    conn = make(one)
    tp, toep = conn.tp, conn.toep
    every_event(one.device, conn.tid)  # not seen before the end: they are nobody's
    WAYS[way](one)
    assert one.dev.state is DeviceState.REMOVED
    assert tp.t_state == State.CLOSED and tp.t_toe is None and not tp.t_flags & TF_TOE and toep.tp is None
    kept = contents(tp)
    one.device.forget()
    two.device.forget()
    if way == "detach":
        assert (
            not one.device.registers[reg.REG_CONTROL] & reg.CONTROL_ENABLE
            and not one.device.registers[reg.REG_IRQ_MASK]
        )
        every_event(one.device, conn.tid)
    for _ in range(3):
        one.stack.poll()
        one.stack.wait(1000)
        one.dev.poll()
        one.dev.wait(0)
        one.dev.engine.clear_interrupt()
        one.dev.hostif.transmit(bytes(60))
        one.dev.engine.send_doorbell(toep, 1)
        assert not one.dev.alive()
    assert contents(tp) == kept
    # calls on the socket: a clear error, first the reason
    assert error_of(conn.sock) == error
    for call in (
        lambda: conn.sock.send(b"x"),
        lambda: conn.sock.shutdown(socket.SHUT_WR),
        lambda: conn.sock.connect((PEER_IP, 80)),
        lambda: conn.sock.listen(),
    ):
        with pytest.raises(OSError):
            call()
    assert conn.sock.recv(10) == b""
    with tp.t_inpcb.lock:
        assert {tcp_gen_send(tp), tcp_gen_rcvd(tp), tcp_gen_disconnect(tp)} == {errno.EOPNOTSUPP}
    conn.sock.close()
    assert one.device.accesses == 0 and one.device.commands == []
    # everybody else goes on
    assert works(bystander)
    assert [inp.inp_socket for inp in both.stack.tcbinfo] == [listener.so, bystander.so]
    two.syn(0)
    two.handshake_done(0)
    assert listener.readable()
    assert both.stack.locks.held == []


@pytest.mark.parametrize("way", WAYS)
def test_lsn_2_half_open_connections_and_timers_vanish(way: str) -> None:
    both = Two(watchdog_us=1_000_000)
    one, two = both.benches
    both.one.listening()
    for ref in range(3):
        one.syn(ref, fport=5000 + ref)
    two.syn(0)
    orphan = one.connected()
    orphan.sock.close()
    orphan.report(state=State.FIN_WAIT_2)
    one.socket().connect_ex(("10.0.0.77", 80))
    # The last: the neighbour's age, and what looks at the table of them; what looks for black holes.
    assert callouts(both.stack) == 3 + 1 + 1 + 1 + 2 + 2 + 1
    WAYS[way](one)
    assert both.stack.syncache.count == 1 and one.dev.passive.half_open == {}
    assert callouts(both.stack) == 1 + 1  # the other device's half-open connection and watchdog
    assert not one.dev.calls.four_tuples


@pytest.mark.parametrize("way", WAYS)
def test_lsn_1_handlers_interface_and_routes_go_with_the_device(both: Two, way: str) -> None:
    one, two = both.benches
    WAYS[way](one)
    one.device.forget()
    one.dev.detach()
    assert both.stack.interfaces == [two.dev.tod_ifp] and both.stack.devices == [two.dev]
    for handlers in (both.stack.tcp_offload_listen_start, both.stack.tcp_offload_listen_stop):
        assert [arg for _, arg in handlers._entries] == [two.dev.passive]
    sock = two.listening()
    sock.close()
    assert one.device.accesses == 0 and one.device.commands == []
    two.know_peer()
    assert two.socket().connect_ex((PEERS[0], 80)) == errno.EINPROGRESS  # now by the default route
    two.dev.detach()
    assert two.socket().connect_ex((PEERS[0], 80)) == errno.ENETUNREACH
    for bench in both.benches:
        with pytest.raises(DeviceError, match="attach it anew"):
            bench.dev.restart()


@pytest.mark.parametrize("way", WAYS)
def test_what_has_arrived_is_read_after_the_removal(both: Two, way: str) -> None:
    """The reader keeps its data though the device's memory is another's now."""
    one = both.one
    listener = one.listening()
    conn = one.connected()
    conn.deliver(b"last words")
    one.syn(0)
    queued = one.handshake_done(0)
    queued.deliver(b"never accepted in time")
    WAYS[way](one)
    one.device.memory[:] = b"\xaa" * len(one.device.memory)
    for sock, data in ((conn.sock, b"last words"), (listener.accept()[0], b"never accepted in time")):
        assert sock.recv(100) == data
        with pytest.raises(ConnectionAbortedError):
            sock.recv(100)
        assert sock.recv(100) == b""
        sock.close()
    assert one.dev.engine.ids.ring_pool.in_use == 0
    assert one.device.memory[:].tobytes() == b"\xaa" * len(one.device.memory)


def test_removed_device_is_attached_anew(both: Two) -> None:
    one = both.one
    listener = one.listening()
    old = one.connected()
    old.deliver(b"unread")
    one.dev.detach()
    again = Bench(one.device, stack=both.stack, gateway="")
    assert again.device.last(Opcode.LISTEN)["lport"] == 80
    again.syn(0)
    again.handshake_done(0)
    assert listener.readable() and new_connection_works(again)
    assert old.sock.recv(10) == b"unread"


def test_removal_wakes_a_blocking_reader() -> None:
    both = Two(watchdog_us=50_000)
    conn = both.one.connected()
    conn.sock.setblocking(True)

    def card_is_pulled() -> None:
        both.one.device.pulled = True

    both.one.device.script = [card_is_pulled]
    with pytest.raises(ConnectionAbortedError):
        conn.sock.recv(10)
    assert both.one.dev.counters["device_gone"] == 1 and both.stack.now_us() < 60_000
    assert new_connection_works(both.two)
