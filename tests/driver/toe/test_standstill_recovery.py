"""Devices that stand still again and again, or in the midst of other changes: every reset has an end."""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.driver.bench import PEER_IP, Bench
from tests.driver.contract.devices import Two, callouts, error_of, new_connection_works, works
from tests.driver.toe.standstill import INTERVAL_US, counted, sleep, stall, watched
from tiptoe_driver import DeviceState
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.toe.lifecycle import Lifecycle
from tiptoe_driver.toe.standstill import Action, Standstills

# ---------------------------------------------------------------------- storms


def test_the_fourth_in_ten_minutes_stops_the_device() -> None:
    bench = watched()
    for n in range(4):
        conn = bench.connected(100 + n)
        stall(bench, "commands")
        sleep(bench, 5 * INTERVAL_US)
        assert error_of(conn.sock) == errno.ECONNABORTED
    assert counted(bench) == {"commands": 4, "resets": 3, "stops": 1}
    assert [s.action for s in bench.dev.standstills] == [Action.RESET] * 3 + [Action.STOPPED]
    assert bench.dev.state is DeviceState.STOPPED
    assert bench.socket().connect_ex((PEER_IP, 80)) == errno.ENETDOWN
    assert (
        not bench.device.registers[reg.REG_CONTROL] & reg.CONTROL_ENABLE
        and not bench.device.registers[reg.REG_IRQ_MASK]
    )
    assert callouts(bench.stack) == 0
    bench.dev.restart()  # somebody has seen to it: counting begins anew
    assert new_connection_works(bench)
    stall(bench, "commands")
    sleep(bench, 5 * INTERVAL_US)
    assert bench.dev.state is DeviceState.RUNNING


def test_an_engine_that_reads_no_command_for_good_is_stopped_in_the_end() -> None:
    bench = watched()
    bench.device.read_commands = False
    bench.listening()
    sleep(bench, 50 * INTERVAL_US)
    assert counted(bench) == {"commands": 4, "resets": 3, "stops": 1} and bench.dev.state is DeviceState.STOPPED


def test_resets_far_apart_are_no_storm() -> None:
    bench = watched(resets_most=1, resets_within_us=100 * INTERVAL_US)
    for _ in range(5):
        stall(bench, "events")
        sleep(bench, 101 * INTERVAL_US)
    assert counted(bench) == {"events": 5, "resets": 5} and bench.dev.state is DeviceState.RUNNING


def test_no_reset_at_all_allowed() -> None:
    bench = watched(resets_most=0)
    stall(bench, "commands")
    sleep(bench, 5 * INTERVAL_US)
    assert counted(bench) == {"commands": 1, "stops": 1} and bench.dev.state is DeviceState.STOPPED


def test_what_is_kept_of_a_thousand_is_bounded() -> None:
    bench = watched()
    for _ in range(1000):
        stall(bench, "host")
        sleep(bench, 10)
    assert counted(bench) == {"host": 1000} and len(bench.dev.standstills) == Standstills.KEPT


# ---------------------------------------------------------------------- in the midst of other changes


def hangs(bench: Bench) -> None:
    """The engine does not come out of its next resets."""
    bench.device.registers[reg.REG_STATUS] &= ~reg.STATUS_READY


def recovered(bench: Bench) -> None:
    bench.device.registers[reg.REG_STATUS] |= reg.STATUS_READY


LATE_US = Lifecycle.RECOVERY_US * (Lifecycle.RECOVERY_LOOKS + 10)


def test_a_reset_that_does_not_come_out_is_told_of_and_waited_for() -> None:
    both = Two(watchdog_us=INTERVAL_US)
    one = both.one
    conn, bystander = one.connected(), both.two.connected()
    stall(one, "commands")
    hangs(one)
    sleep(one, 10 * INTERVAL_US)
    assert error_of(conn.sock) == errno.ECONNABORTED and works(bystander)
    conn.sock.close()
    assert one.dev.engine.ids.ring_pool.in_use == 1  # the engine may still write there
    assert one.socket().connect_ex((one.peer_ip, 80)) == errno.ENETDOWN
    sleep(one, LATE_US)
    assert one.dev.counters["reset_failed"] == 1 and one.dev.standstills[-1].action is Action.WAITING
    one.device.forget()
    sleep(one, 10_000_000)
    assert len(one.device.reads) <= 25  # once a second
    recovered(one)
    sleep(one, 2_000_000)
    assert one.dev.state is DeviceState.RUNNING and one.dev.standstills[-1].what == ("back",)
    assert one.dev.engine.ids.ring_pool.in_use == 0 and new_connection_works(one) and works(bystander)


@pytest.mark.parametrize("what", ["stop", "restart", "reset", "detach"])
def test_calls_while_the_watchdog_resets(what: str) -> None:
    both = Two(watchdog_us=INTERVAL_US)
    one = both.one
    one.listening()
    stall(one, "commands")
    hangs(one)
    sleep(one, 3 * INTERVAL_US)
    assert one.dev.state is DeviceState.STOPPED
    recovered(one)
    getattr(one.dev, what)()
    expected = {"stop": DeviceState.STOPPED, "detach": DeviceState.REMOVED}.get(what, DeviceState.RUNNING)
    assert one.dev.state is expected
    assert callouts(both.stack) == 1 + (expected is DeviceState.RUNNING)
    one.device.forget()
    sleep(one, LATE_US)
    assert one.dev.state is expected and (expected is DeviceState.RUNNING or one.device.accesses == 0)
    assert one.dev.engine.ids.ring_pool.in_use == one.dev.engine.ids.idle_rings
    if what == "stop":
        one.dev.restart()
    if what != "detach":
        assert new_connection_works(one)


def test_pulled_while_the_watchdog_resets() -> None:
    both = Two(watchdog_us=INTERVAL_US)
    one = both.one
    conn, bystander = one.connected(), both.two.connected()
    stall(one, "commands")
    hangs(one)
    sleep(one, 3 * INTERVAL_US)
    one.device.pulled = True
    sleep(one, 3 * INTERVAL_US)
    assert one.dev.state is DeviceState.REMOVED and one.dev.counters["device_gone"] == 1
    conn.sock.close()
    assert one.dev.engine.ids.ring_pool.in_use == 0 and works(bystander)


@pytest.mark.parametrize("register", [reg.REG_CONTROL, reg.REG_STATUS, reg.REG_COMMAND_HEAD, reg.REG_ID])
def test_pulled_before_any_read(register: int) -> None:
    """Of the looks, and of the recovery."""
    for nth in range(1, 8):
        both = Two(watchdog_us=INTERVAL_US)
        one = both.one
        conn, bystander = one.connected(), both.two.connected()
        one.device.read_commands = False
        late = one.socket()
        late.connect_ex((one.peer_ip, 81))
        read = one.device.read32
        left = nth

        def pulled(address: int, one: Bench = one, read: Callable[[int], int] = read) -> int:
            nonlocal left
            left -= address == register
            one.device.pulled |= left == 0
            return read(address)

        one.device.read32 = one.dev.engine.device._device.read32 = pulled  # type: ignore[method-assign]
        sleep(one, 60 * INTERVAL_US)
        assert one.device.pulled == (one.dev.state is DeviceState.REMOVED), (nth, left)
        assert works(bystander) and both.stack.locks.held == []
        assert register == reg.REG_ID or not one.dev.counters["reset_failed"]
        assert counted(one) == {} or register != reg.REG_COMMAND_HEAD or nth > Standstills.LOOKS + 1
        conn.sock.close()
        late.close()
        left_over = 1 + 3  # the bystander's watchdog, what looks at its neighbours, and what at its time-outs
        assert not one.device.pulled or (one.dev.engine.ids.ring_pool.in_use == 0 and callouts(both.stack) == left_over)


def test_pulled_between_the_event_and_the_look(bench: Bench) -> None:
    stall(bench, "commands")
    bench.dev.poll()
    bench.device.pulled = True
    bench.stack.poll()
    bench.dev.poll()
    assert bench.dev.state is DeviceState.REMOVED and counted(bench) == {}


def test_standstill_during_stop_only_counts() -> None:
    bench = watched()
    conn = bench.connected()
    bench.device.script = [lambda: stall(bench, "commands")]
    bench.dev.stop(20_000)
    assert error_of(conn.sock) == errno.ECONNABORTED and counted(bench) == {"commands": 1}
    assert bench.dev.state is DeviceState.STOPPED and bench.device.soft_resets == 2
    sleep(bench, 100 * INTERVAL_US)
    assert bench.dev.state is DeviceState.STOPPED
    bench.dev.restart()
    assert new_connection_works(bench)


def test_stop_between_the_event_and_the_look() -> None:
    bench = watched()
    stall(bench, "commands")
    bench.dev.poll()
    bench.dev.lifecycle._halt()
    bench.device.forget()
    bench.stack.poll()
    assert bench.device.accesses == 0 and counted(bench) == {}


def test_bits_of_before_the_bring_up_are_gone() -> None:
    bench = watched()
    stall(bench, "commands", event=False)
    again = Bench(bench.device, watchdog_us=INTERVAL_US)
    sleep(again, 10 * INTERVAL_US)
    assert counted(again) == {}


def test_another_card_in_its_place_is_not_brought_up() -> None:
    bench = watched()
    stall(bench, "commands")
    hangs(bench)
    sleep(bench, 3 * INTERVAL_US)
    bench.device.registers[reg.REG_CAPABILITIES] += 1
    recovered(bench)
    sleep(bench, 20 * INTERVAL_US)
    assert bench.dev.state is DeviceState.STOPPED and bench.dev.counters["reset_failed"] == 1


def test_both_devices_at_once() -> None:
    both = Two(watchdog_us=INTERVAL_US)
    conns = [bench.connected() for bench in both.benches]
    for bench in both.benches:
        stall(bench, "events", event=False)
    sleep(both.one, 10 * INTERVAL_US)
    assert all(error_of(conn.sock) == errno.ECONNABORTED for conn in conns)
    assert all(new_connection_works(bench) for bench in both.benches)


def test_a_listener_may_look_at_everything_but_learns_of_it_after_the_deed() -> None:
    bench = watched()
    seen: list[tuple[DeviceState, int]] = []
    bench.dev.on_standstill = lambda s: seen.append((bench.dev.state, len(bench.dev.standstills)))
    for _ in range(2):
        stall(bench, "commands")
        sleep(bench, 5 * INTERVAL_US)
    assert [n for _, n in seen] == [1, 2]
    times = [s.time_us for s in bench.dev.standstills]
    assert all(a < b for a, b in pairwise(times))
