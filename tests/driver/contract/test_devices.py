"""Two devices on one stack, and devices that hang, stop, restart: contract rows LSN-*, CONN-1, GEN-2, on scripted devices."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from tests.driver.bench import PEER_IP, Bench, arp_reply
from tests.driver.contract.devices import (
    CASES,
    IPS,
    PEERS,
    Two,
    answering,
    error_of,
    every_event,
    new_connection_works,
    pull,
    works,
)
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import DeviceError, DeviceState, Socket, Stack
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.hardware.gate import ALL_ONES, DeviceGate
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_driver.netinet.structures import SO_NO_OFFLOAD
from tiptoe_hdl.host.abi import EventType, Opcode

# ---------------------------------------------------------------------- two devices


def test_conn_1_egress_interface_decides(both: Two) -> None:
    for bench in both.benches:
        bench.know_peer()
    for bench in both.benches:
        assert bench.socket().connect_ex((bench.peer_ip, 80)) == errno.EINPROGRESS
        command = bench.device.last(Opcode.OPEN)
        assert (command["laddr"], command["faddr"]) == (parse_ipv4(bench.ip), parse_ipv4(bench.peer_ip))
    assert all(len(bench.device.ops(Opcode.OPEN)) == 1 for bench in both.benches)
    both.two.device.frame(
        arp_reply("10.0.1.254", our_ip=IPS[1])[:20] + b"\0\1" + arp_reply("10.0.1.254", our_ip=IPS[1])[22:]
    )
    both.stack.poll()
    assert both.one.socket().connect_ex(("192.0.2.1", 80)) == errno.EINPROGRESS  # by the default route
    assert both.two.device.last(Opcode.OPEN)["faddr"] == parse_ipv4("192.0.2.1")


def test_conn_1_address_of_the_other_interface_is_refused(both: Two) -> None:
    """The engine takes no segments for an address that is not its own."""
    sock = both.one.socket()
    sock.bind((IPS[0], 0))
    both.two.know_peer()
    both.one.device.forget()
    assert sock.connect_ex((PEERS[1], 80)) == errno.EADDRNOTAVAIL
    assert both.one.device.accesses == both.two.device.accesses == 0
    assert not both.two.dev.calls.four_tuples
    both.one.know_peer()
    assert sock.connect_ex((PEERS[0], 80)) == errno.EINPROGRESS


@pytest.mark.parametrize("n", [0, 1])
def test_conn_1_four_tuple_that_one_device_still_has(both: Two, n: int) -> None:
    """The socket is gone, the device still has the connection: nobody gets its four-tuple on that device."""
    bench = both.benches[n]
    conn = bench.connected()
    port = conn.sock.getsockname()[1]
    conn.sock.close()
    conn.report(state=State.TIME_WAIT, peer_closed=1)
    for other in both.benches:
        sock = other.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((other.ip, port))
        other.know_peer()
        busy = other is bench
        assert sock.connect_ex((other.peer_ip, 80)) == (errno.EADDRINUSE if busy else errno.EINPROGRESS)
        sock.close()


def test_lsn_1_both_devices_fill_one_accept_queue(both: Two) -> None:
    listener = both.one.listening()
    for bench in both.benches:
        bench.syn(0, fport=5000)
    conns = [bench.handshake_done(0) for bench in reversed(both.benches)]
    for conn, bench in zip(conns, reversed(both.benches), strict=True):
        conn.sock_or_none, address = listener.accept()
        assert address == (bench.peer_ip, 5000) and conn.sock.getsockname() == (bench.ip, 80)
        conn.sock.setblocking(False)
        assert works(conn)
    inps = [inp.four_tuple for inp in both.stack.tcbinfo if inp.inp_fport]
    assert len(set(inps)) == len(inps) == 2


def test_lsn_1_half_open_children_of_both_share_the_limits(both: Two) -> None:
    listener = both.one.listening()
    for bench in both.benches:
        for ref in range(3):
            bench.syn(ref, fport=5000 + ref)
    assert both.stack.syncache.count == 6
    listener.close()
    for bench in both.benches:
        assert len(bench.device.ops(Opcode.UNLISTEN)) == 1


def test_lsn_1_listener_takes_the_place_that_becomes_free() -> None:
    bench = Bench(FakeDevice(listeners=1))
    bench.device.answer = lambda c: None if c["op"] == Opcode.UNLISTEN else FakeDevice.default_answer(c)
    first, second = bench.listening(80), bench.listening(81)
    assert bench.dev.counters["listen_table_full"] == 1
    first.close()
    bench.stack.poll()
    assert [c["lport"] for c in bench.device.ops(Opcode.LISTEN)] == [80]
    bench.device.done(bench.device.last(Opcode.UNLISTEN))
    bench.stack.poll()
    assert [c["lport"] for c in bench.device.ops(Opcode.LISTEN)] == [80, 81]
    bench.syn(0, port=81)
    bench.handshake_done(0)
    assert second.readable()


def test_gen_2_device_registered_late_is_told_nothing_when_offload_is_disabled() -> None:
    stack = Stack(offload_disabled=True)
    sock = Socket(stack)
    sock.bind(("", 80))
    sock.listen()
    bench = Bench(stack=stack)
    assert bench.device.commands == []


def test_two_interfaces_cannot_have_one_address(both: Two) -> None:
    device = FakeDevice()
    with pytest.raises(ValueError, match=r"10\.0\.1\.1 is the address of tiptoe0"):
        Bench(device, stack=both.stack, ip=IPS[1])
    assert device.accesses == 0 and len(both.stack.interfaces) == 2


# ---------------------------------------------------------------------- time


@pytest.mark.parametrize("n", [0, 1])
def test_time_goes_on_when_a_device_goes(n: int) -> None:
    """The clocks have nothing to do with each other; the stack's time neither jumps nor stops."""
    both = Two()
    both.one.device.time, both.two.device.time = 7_000_000, 1_000
    both.stack.poll()
    before = both.stack.now_us()
    called: list[int] = []
    both.stack.callout(500, lambda: called.append(both.stack.now_us()))
    both.benches[n].dev.detach()
    assert both.stack.now_us() == before
    assert not both.stack.sleep(lambda: False, 400) and not called
    both.stack.sleep(lambda: bool(called), 400)
    assert 500 <= called[0] - before <= 600
    both.benches[1 - n].dev.detach()
    last = both.stack.now_us()
    assert last >= before + 500
    Bench(stack=both.stack).device.time += 10
    assert both.stack.now_us() == last + 10


def test_clocks_that_run_only_while_waited_for_stay_together(both: Two) -> None:
    """A device that is always busy returns from each wait at once; the other must not run ahead meanwhile."""

    def busy() -> None:
        both.one.device.time += 3
        both.one.device.event(EventType.ERROR, code=77)
        both.one.device.script.append(busy)

    both.one.device.script.append(busy)
    for _ in range(500):
        both.stack.wait(1000)
    one, two = both.one.device.time, both.two.device.time
    assert one >= 500 and abs(one - two) <= both.stack.SLICE_US


def test_wait_does_not_overrun_its_time(both: Two) -> None:
    for _ in range(20):
        before = both.one.device.time, both.two.device.time
        both.stack.wait(70)
        assert both.one.device.time - before[0] <= 70 and both.two.device.time - before[1] <= 70


# ---------------------------------------------------------------------- who notices


def full_ring(bench: Bench) -> None:
    """The command ring seems full, so COMMAND_HEAD is read: in the midst of a call with its locks held."""
    conns = [bench.connected(100 + n) for n in range(4)]
    bench.device.pulled = True
    bench.dev.engine.commands._head = (
        bench.dev.engine.commands._tail - bench.dev.engine.commands.entries
    ) & 0xFFFF_FFFF
    for conn in conns:
        conn.sock.close()
    bench.stack.poll()


def counters(bench: Bench) -> None:
    bench.device.pulled = True
    with pytest.raises(DeviceError, match="does not answer"):
        bench.dev.engine.read_counters()
    bench.stack.poll()


def watchdog(bench: Bench) -> None:
    bench.device.pulled = True
    bench.stack.sleep(lambda: False, 1000)


def stop_it(bench: Bench) -> None:
    bench.device.pulled = True
    bench.dev.stop()
    bench.stack.poll()


def reset_it(bench: Bench) -> None:
    bench.device.pulled = True
    with pytest.raises(DeviceError, match="0xffffffff"):
        bench.dev.reset()


@pytest.mark.parametrize(
    "notice", [pull, full_ring, counters, watchdog, stop_it, reset_it], ids=lambda notice: notice.__name__
)
def test_device_that_answers_no_more_is_removed(notice: Callable[[Bench], None]) -> None:
    both = Two(watchdog_us=500)
    conn, bystander = both.one.connected(), both.two.connected()
    notice(both.one)
    assert both.one.dev.state is DeviceState.REMOVED
    assert both.one.dev.counters["device_gone"] == 1
    assert error_of(conn.sock) == errno.ECONNABORTED
    both.one.device.forget()
    both.stack.sleep(lambda: False, 5000)
    assert both.one.device.accesses == 0
    assert works(bystander) and both.stack.locks.held == []
    assert both.two.dev.counters["device_gone"] == 0 and both.two.dev.state is DeviceState.RUNNING


def test_a_register_may_hold_all_ones() -> None:
    bench = Bench()
    bench.device.registers[reg.REG_COUNTER] = ALL_ONES
    gate = DeviceGate(bench.device, bench.dev.counters)
    assert gate.read32(reg.REG_COUNTER) == ALL_ONES and not gate.gone
    gate.write32(reg.REG_IRQ_MASK, 0)
    assert bench.device.registers[reg.REG_IRQ_MASK] == 0
    bench.device.pulled = True
    assert gate.read32(reg.REG_COUNTER) == ALL_ONES and gate.gone
    bench.device.forget()
    gate.write32(reg.REG_IRQ_MASK, 1)
    assert gate.read32(reg.REG_ID) == ALL_ONES and gate.wait(1000) is False
    assert bench.device.accesses == 0


# ---------------------------------------------------------------------- stop, restart, reset


@pytest.mark.parametrize("state", CASES)
def test_conn_1_stop_in_every_state_and_restart(both: Two, state: str) -> None:
    make, error = CASES[state]
    one = both.one
    answering(one)
    bystander = both.two.connected()
    conn = make(one)
    known = state != "resolving"  # to the device
    tid = conn.tid
    one.device.forget()
    one.dev.stop()
    assert one.dev.state is DeviceState.STOPPED
    assert len(conn.commands(Opcode.ABORT)) == known and len(conn.commands(Opcode.RELEASE)) == known
    assert one.device.time < 1000  # nobody waits for longer than it takes
    assert error_of(conn.sock) == error
    assert not one.device.registers[reg.REG_CONTROL] & reg.CONTROL_ENABLE and not one.device.registers[reg.REG_IRQ_MASK]
    assert one.socket().connect_ex((one.peer_ip, 80)) == errno.ENETDOWN
    every_event(one.device, tid)
    one.device.forget()
    one.stack.poll()
    assert one.device.accesses == 0
    before = both.stack.now_us()
    both.stack.sleep(lambda: False, 1000)
    assert both.stack.now_us() >= before + 1000  # time goes on with a stopped device
    one.dev.restart()
    assert one.dev.state is DeviceState.RUNNING
    assert one.dev.engine.free_ids == 16 and one.dev.engine.ids.stocked == 0
    one.stack.poll()
    assert one.dev.counters["stale_events"] == 0  # the ring begins anew
    assert new_connection_works(one) and works(bystander)


def test_stop_of_an_engine_that_says_nothing_takes_its_time_and_no_more(both: Two) -> None:
    conn = both.one.connected()
    both.one.dev.stop(20_000)
    assert 20_000 <= both.one.device.time < 21_000
    assert error_of(conn.sock) == errno.ECONNABORTED
    both.one.dev.restart()
    assert new_connection_works(both.one)


def test_lsn_2_stop_unlistens_and_resets_what_completes_meanwhile(both: Two) -> None:
    one = both.one
    listener = one.listening()
    one.syn(0)
    tid = one.device.ops(Opcode.PROVISION)[0]["tid"]
    one.device.script = [lambda: one.device.event(EventType.CONNECTION, tid=tid, syncache_ref=0, established=1)]
    answering(one)
    one.device.forget()
    one.dev.stop(10_000)
    assert [c["op"] for c in one.device.ops(Opcode.UNLISTEN, Opcode.ABORT)] == [Opcode.UNLISTEN, Opcode.ABORT]
    assert one.device.last(Opcode.ABORT)["tid"] == tid
    assert not listener.readable() and both.stack.syncache.count == 0


@pytest.mark.parametrize("how", ["restart", "reset"])
def test_lsn_1_listeners_are_published_again(both: Two, how: str) -> None:
    one, two = both.benches
    before = [one.listening(80), one.listening(81)]
    hidden = before[0]
    assert hidden.so is not None
    hidden.so.so_options |= SO_NO_OFFLOAD  # OPT-1: read at listen only
    two.device.forget()
    if how == "restart":
        one.dev.stop()
    one.listening(82) if how == "restart" else None
    before[1].close()
    one.device.forget()
    getattr(one.dev, how)()
    ports = [80, 82] if how == "restart" else [80]
    assert [c["lport"] for c in one.device.ops(Opcode.LISTEN)] == ports
    assert [c["op"] for c in one.device.commands][:8] == [Opcode.PROVISION] * 8
    assert not any(c["lport"] == 80 for c in two.device.ops(Opcode.LISTEN))
    one.syn(0)
    one.handshake_done(0)
    assert hidden.readable()


def test_reset_recovers_lost_ids_and_garbage(both: Two, rng) -> None:
    one = both.one
    one.device.answer = lambda c: 8 if c["op"] == Opcode.PROVISION else FakeDevice.default_answer(c)
    listener = one.listening()
    while one.stack.poll():
        pass
    one.device.answer = FakeDevice.default_answer
    assert one.dev.counters["lost_ids"] == 15 and one.dev.engine.free_ids == 1
    conn = one.connected()
    start = one.device.ring(reg.REG_EVENT_RING_LO)
    size = one.dev.engine.events.entries * 32
    one.device.memory[start : start + size] = rng.randbytes(size)
    one.device.forget()
    one.dev.reset()
    assert not one.device.ops(Opcode.ABORT, Opcode.UNLISTEN)  # nothing is expected of such an engine
    assert error_of(conn.sock) == errno.ECONNABORTED
    assert one.dev.engine.ids.stocked == 8 and one.dev.engine.free_ids == 8
    pool = one.dev.engine.ids.ring_pool
    conn.sock.close()
    assert pool.in_use == one.dev.engine.ids.idle_rings
    one.syn(0)
    one.handshake_done(0)
    assert listener.readable() and new_connection_works(one)


def test_generations_go_on_so_that_nothing_of_before_matches(bench: Bench) -> None:
    tids = set()
    for _ in range(5):
        conn = bench.connected()
        assert conn.tid not in tids
        tids.add(conn.tid)
        bench.dev.reset()
    fresh = bench.connected()
    for tid in tids:
        bench.device.event(EventType.CONNECTION, tid=tid, established=1, terminal=1, reason=Reason.PEER_RESET)
        bench.device.event(EventType.COMMAND_DONE, opcode=Opcode.RELEASE, argument=tid, tag=1)
    bench.stack.poll()
    assert bench.dev.counters["stale_events"] == len(tids)
    assert works(fresh)


def test_neighbours_are_known_after_a_reset(bench: Bench) -> None:
    bench.connected()
    waiting = bench.socket()
    waiting.connect_ex(("10.0.0.77", 80))
    bench.dev.reset()
    assert error_of(waiting) == errno.ENETDOWN
    bench.device.forget()
    bench.socket().connect_ex((PEER_IP, 80))
    assert [c["op"] for c in bench.device.commands] == [Opcode.PROVISION, Opcode.NEXT_HOP, Opcode.OPEN]
    late = bench.socket()
    late.connect_ex(("10.0.0.77", 80))  # is asked for anew, with all its tries
    assert len(bench.device.ops(Opcode.SEND_FRAME)) == 1


def test_engine_that_hangs_in_reset_stays_stopped_and_keeps_its_memory(both: Two) -> None:
    one = both.one
    conn = one.connected()
    one.device.registers[reg.REG_STATUS] = 0
    with pytest.raises(DeviceError, match="does not come out of reset"):
        one.dev.reset()
    assert one.dev.counters["reset_failed"] == 1 and one.dev.state is DeviceState.STOPPED
    conn.sock.close()
    assert one.dev.engine.ids.ring_pool.in_use == 1  # the engine may still write there
    assert one.socket().connect_ex((PEERS[0], 80)) == errno.ENETDOWN
    one.device.registers[reg.REG_STATUS] = reg.STATUS_READY
    one.dev.restart()
    assert one.dev.engine.ids.ring_pool.in_use == 0 and new_connection_works(one)


def test_another_engine_in_its_place_is_refused(bench: Bench) -> None:
    bench.dev.stop(0)
    bench.device.registers[reg.REG_CAPABILITIES] += 1
    with pytest.raises(DeviceError, match="attach it anew"):
        bench.dev.restart()
    assert bench.dev.state is DeviceState.STOPPED


def test_new_keys_after_a_reset(bench: Bench) -> None:
    keys = [bench.device.registers[reg.REG_ISN_KEY + 4 * n] for n in range(4)]
    bench.dev.reset()
    assert all(bench.device.registers[reg.REG_ISN_KEY + 4 * n] != key for n, key in enumerate(keys))


def test_frames_that_waited_are_dropped_and_the_interface_goes_on(bench: Bench) -> None:
    bench.device.read_commands = False
    for _ in range(100):
        bench.dev.hostif.transmit(bytes(60))
    bench.device.read_commands = True
    seen: list[bytes] = []
    bench.dev.hostif.input_hook = lambda frame: bool(seen.append(frame)) or True
    bench.device.frame(bytes(60))
    bench.stack.poll()
    bench.dev.stop(0)
    assert not bench.dev.hostif.transmit(bytes(60))
    bench.device.forget()
    bench.dev.engine.commands.post_control(bytes(64))
    assert not bench.dev.engine.commands.room(1) and bench.device.accesses == 0
    bench.dev.restart()
    bench.device.forget()
    for _ in range(8):  # as many as there are buffers
        assert bench.dev.hostif.transmit(bytes(60))
    assert len(bench.device.ops(Opcode.SEND_FRAME)) == 8
    bench.device.frame(bytes(60))
    bench.stack.poll()
    assert len(seen) == 2
