"""Standstills of the device: who tells of them, and what is done."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable

import pytest

from tests.driver.bench import PEER_IP, Bench
from tests.driver.contract.devices import CASES, Two, error_of, new_connection_works, works
from tests.driver.fake_device import STALLED
from tests.driver.toe.standstill import FATAL, INTERVAL_US, counted, sleep, stall, swallow, watched
from tiptoe_driver import DeviceState, EngineOptions, Socket, Standstill
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import ErrorCode
from tiptoe_driver.toe.standstill import BITS, Action, Standstills
from tiptoe_hdl.host.abi import WATCHED, EventType, Opcode

# ---------------------------------------------------------------------- who tells


def test_bits_of_status_are_those_of_the_hardware() -> None:
    assert list(BITS) == list(WATCHED)
    assert [BITS[name] >> reg.STATUS_COMMANDS_STALLED_SHIFT for name in WATCHED] == [1, 2, 4, 8]


@pytest.mark.parametrize("event", [True, False], ids=["event", "event_lost"])
@pytest.mark.parametrize("name", WATCHED)
def test_each_is_counted_told_and_cleared_once(name: str, event: bool) -> None:
    bench = watched()
    told: list[Standstill] = []
    bench.dev.on_standstill = told.append
    conn = bench.connected()
    stall(bench, name, event=event)
    sleep(bench, 3 * INTERVAL_US)
    assert counted(bench) == {name: 1} | ({"resets": 1} if name in FATAL else {})
    assert bench.dev.standstills == told and bench.dev.counters["error_watchdog"] == event
    [standstill] = told
    assert (standstill.what, standstill.by) == ((name,), "engine")
    assert standstill.action is (Action.RESET if name in FATAL else Action.REPORTED)
    assert not bench.device.registers[reg.REG_STATUS] & STALLED
    assert bench.device.soft_resets == 1 + (name in FATAL)
    assert error_of(conn.sock) == errno.ECONNABORTED if name in FATAL else works(conn)
    assert bench.dev.state is DeviceState.RUNNING


def test_an_event_that_names_older_ones_too_counts_what_is_new() -> None:
    bench = watched(on_standstill="report")
    stall(bench, "commands")
    sleep(bench, 10)
    stall(bench, "events", argument=0b101)
    sleep(bench, 10)
    assert counted(bench) == {"commands": 1, "events": 1}
    assert [s.what for s in bench.dev.standstills] == [("commands",), ("events",)]


def test_two_at_once_are_one_standstill() -> None:
    bench = watched()
    stall(bench, "commands", "host")
    sleep(bench, 10)
    assert counted(bench) == {"commands": 1, "host": 1, "resets": 1}
    assert str(bench.dev.standstills[0]).startswith("its commands stand still and this host was too slow")


def test_an_event_without_a_bit_in_status_resets_nothing() -> None:
    """What a device writes is not trusted."""
    bench = watched()
    conn = bench.connected()
    for argument in (0, 0xF, 0xFFFF_FFFF):
        bench.device.event(EventType.ERROR, code=ErrorCode.WATCHDOG, argument=argument)
    bench.device.forget()
    bench.stack.poll()
    assert bench.device.reads == [reg.REG_STATUS]  # one look for all of them
    assert counted(bench) == {} and bench.dev.counters["error_watchdog"] == 3 and works(conn)


def test_without_an_interval_the_event_is_enough(bench: Bench) -> None:
    conn = bench.connected()
    stall(bench, "events")
    bench.stack.poll()
    bench.stack.poll()
    assert counted(bench) == {"events": 1, "resets": 1} and error_of(conn.sock) == errno.ECONNABORTED


def test_asking_whether_it_is_alive_finds_it_too(bench: Bench) -> None:
    stall(bench, "commands", event=False)
    assert bench.dev.alive()
    assert counted(bench) == {}  # not under somebody's call
    bench.stack.poll()
    assert counted(bench) == {"commands": 1, "resets": 1}


# ---------------------------------------------------------------------- the driver's own look


def test_commands_that_an_engine_neither_reads_nor_tells_of() -> None:
    bench = watched()
    bench.connected()
    swallow(bench)
    bench.socket().connect_ex((PEER_IP, 81))
    sleep(bench, (Standstills.LOOKS - 1) * INTERVAL_US)
    assert counted(bench) == {}
    sleep(bench, 3 * INTERVAL_US)
    assert counted(bench) == {"commands": 1, "resets": 1} and bench.dev.standstills[0].by == "driver"
    assert bench.dev.state is DeviceState.RUNNING and new_connection_works(bench)


def test_commands_read_whose_answer_never_comes() -> None:
    bench = watched()
    bench.device.answer = lambda command: None
    listener = bench.listening()
    sleep(bench, 20 * INTERVAL_US)
    assert counted(bench)["commands"] >= 1
    bench.device.answer = bench.device.default_answer
    bench.dev.restart()
    bench.syn(0)
    bench.handshake_done(0)
    assert listener.readable()


def test_one_command_in_an_interval_is_progress() -> None:
    bench = watched()
    bench.connected()
    bench.device.read_commands = False
    tail = bench.dev.engine.commands._tail
    for n in range(20):
        bench.device.script = []
        bench.dev.engine.commands.post_control(bytes([Opcode.UNLISTEN]) + bytes(63))
        bench.device._fetched = tail + n // 2  # the engine falls behind, but gets on
        sleep(bench, INTERVAL_US)
    assert counted(bench) == {}


def test_one_answer_in_an_interval_is_progress() -> None:
    """All commands are read; their answers come one by one."""
    bench = watched()
    bench.device.answer = lambda command: None
    for _ in range(8):
        bench.dev.hostif.transmit(bytes(60))
    for command in bench.device.ops(Opcode.SEND_FRAME):
        sleep(bench, (Standstills.LOOKS - 1) * INTERVAL_US)
        bench.device.done(command)
    sleep(bench, 20 * INTERVAL_US)
    assert counted(bench) == {}


def test_nothing_to_do_is_no_standstill_and_costs_one_read_a_look() -> None:
    bench = watched()
    conn = bench.connected()
    sleep(bench, INTERVAL_US)
    bench.device.forget()
    sleep(bench, 100 * INTERVAL_US)
    assert set(bench.device.reads) == {reg.REG_STATUS} and 99 <= len(bench.device.reads) <= 101
    assert counted(bench) == {} and works(conn)


def test_a_host_that_slept_for_long_accuses_nobody() -> None:
    bench = watched()
    bench.connected()
    swallow(bench)
    bench.socket().connect_ex((PEER_IP, 81))
    sleep(bench, INTERVAL_US)
    bench.device.time += 1000 * INTERVAL_US
    for _ in range(3):
        bench.stack.poll()
    assert counted(bench) == {}


def test_what_the_engine_has_told_the_driver_does_not_tell_again() -> None:
    bench = watched(on_standstill="report")
    bench.connected()
    swallow(bench)
    bench.socket().connect_ex((PEER_IP, 81))
    stall(bench, "commands")
    sleep(bench, 20 * INTERVAL_US)
    assert counted(bench) == {"commands": 1} and bench.device.soft_resets == 1
    bench.device._fetched = bench.dev.engine.commands._tail  # it gets on after all
    sleep(bench, 2 * INTERVAL_US)
    bench.socket().connect_ex((PEER_IP, 82))
    sleep(bench, 20 * INTERVAL_US)
    assert counted(bench) == {"commands": 2}


# ---------------------------------------------------------------------- reset


@pytest.mark.parametrize("state", CASES)
def test_sockets_in_every_state_end_and_new_ones_work(state: str) -> None:
    both = Two(watchdog_us=INTERVAL_US)
    make, error = CASES[state]
    bystander = both.two.connected()
    conn = make(both.one)
    stall(both.one, "commands")
    sleep(both.one, 5 * INTERVAL_US)
    assert error_of(conn.sock) == error
    ids = both.one.dev.engine.ids
    assert both.one.dev.state is DeviceState.RUNNING and ids.available == 16 and not ids.releasing
    assert new_connection_works(both.one) and works(bystander)
    assert counted(both.two) == {} and both.stack.locks.held == []


def test_listeners_come_back_and_half_open_connections_go() -> None:
    bench = watched()
    listener = bench.listening()
    bench.syn(0)
    bench.device.forget()
    stall(bench, "events", event=False)
    sleep(bench, 5 * INTERVAL_US)
    assert bench.device.last(Opcode.LISTEN)["lport"] == 80 and bench.stack.syncache.count == 0
    bench.syn(0)
    bench.handshake_done(0)
    assert listener.readable()


def test_lost_ids_are_back() -> None:
    bench = watched()
    bench.device.answer = lambda c: 8 if c["op"] == Opcode.PROVISION else bench.device.default_answer(c)
    bench.listening()
    while bench.stack.poll():
        pass
    assert bench.dev.counters["lost_ids"] == 15
    bench.device.answer = bench.device.default_answer
    stall(bench, "commands")
    sleep(bench, 5 * INTERVAL_US)
    ids = bench.dev.engine.ids
    assert ids.available + ids.stocked == 16


def test_blocking_calls_return() -> None:
    """connect, recv, and a close that lingers, each while the device is reset."""
    bench = watched()

    def connecting(sock: Socket) -> None:
        sock.connect((PEER_IP, 81))

    def reading(sock: Socket) -> None:
        sock.recv(1)

    def closing(sock: Socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 1000))
        sock.close()

    cases: list[tuple[Callable[[Socket], None], int]] = [
        (connecting, errno.ENETDOWN),
        (reading, errno.ECONNABORTED),
        (closing, 0),
    ]
    for call, error in cases:
        sock = Socket(bench.stack) if call is connecting else bench.connected().sock
        bench.know_peer()
        sock.setblocking(True)
        bench.device.script = [lambda: stall(bench, "commands")]
        before = bench.stack.now_us()
        with pytest.raises(OSError) if error else contextlib.nullcontext() as raised:
            call(sock)
        assert raised is None or raised.value.errno == error
        assert bench.stack.now_us() - before < 10 * INTERVAL_US
        sleep(bench, 3 * INTERVAL_US)
        bench.dev.lifecycle.standstills.forgive()
        assert bench.dev.state is DeviceState.RUNNING and bench.dev.engine.free_ids == 16


def test_report_leaves_the_device_alone() -> None:
    bench = watched(on_standstill="report")
    conn = bench.connected()
    stall(bench, *WATCHED)
    sleep(bench, 10 * INTERVAL_US)
    assert counted(bench) == dict.fromkeys(WATCHED, 1)
    assert bench.dev.standstills[0].action is Action.REPORTED and works(conn) and bench.device.soft_resets == 1


def test_only_two_answers_to_a_standstill() -> None:
    with pytest.raises(ValueError, match="'panic'"):
        EngineOptions(on_standstill="panic")


def test_events_behind_the_one_that_tells_of_it_are_still_handled() -> None:
    """The reset is not in the midst of a batch."""
    bench = watched()
    conn = bench.connected()
    stall(bench, "commands")
    conn.deliver(b"behind it")
    assert bench.dev.counters["stale_events"] == 0
    assert conn.sock.recv(100) == b"behind it"
    with pytest.raises(ConnectionAbortedError):
        conn.sock.recv(100)


# ---------------------------------------------------------------------- the link


def test_commands_wait_for_a_link_that_is_down() -> None:
    """The MAC takes no frames: a reset would end connections that may live on. When the link is back, it counts anew."""
    bench = watched()
    conn = bench.connected()
    bench.dev.if_link_state_change(False)
    swallow(bench)
    conn.sock.shutdown(socket.SHUT_WR)
    bench.dev.engine.commands.post_control(bytes([Opcode.UNLISTEN]) + bytes(63))
    stall(bench, "commands")
    sleep(bench, 20 * INTERVAL_US)
    assert counted(bench) == {"commands": 1} and bench.dev.standstills[0].action is Action.LINK_DOWN
    bench.dev.if_link_state_change(True)
    sleep(bench, 4 * INTERVAL_US)
    assert bench.device.soft_resets == 1
    sleep(bench, 4 * INTERVAL_US)
    assert counted(bench) == {"commands": 2, "resets": 1}


def test_events_do_not_wait_for_the_link() -> None:
    bench = watched()
    bench.dev.if_link_state_change(False)
    stall(bench, "events", event=False)
    sleep(bench, 5 * INTERVAL_US)
    assert counted(bench) == {"events": 1, "resets": 1}


# ---------------------------------------------------------------------- for people


@pytest.mark.parametrize(
    ("what", "by", "action", "line"),
    [
        (
            ("commands", "events"),
            "engine",
            Action.RESET,
            "its commands stand still and its events stand still (it says so itself): "
            "reset; its connections end, its listeners come back",
        ),
        (("commands",), "driver", Action.LINK_DOWN, "its commands stand still: the link is down, so no reset"),
        (
            ("events",),
            "engine",
            Action.STOPPED,
            "its events stand still (it says so itself): so often that it is stopped; its connections end",
        ),
        (("host",), "engine", Action.REPORTED, "this host was too slow to read its events (it says so itself)"),
        (("reset",), "driver", Action.WAITING, "it does not come out of the reset: stopped until it does"),
        (("back",), "driver", Action.REPORTED, "it has come out of the reset"),
    ],
)
def test_line_for_people(what: tuple[str, ...], by: str, action: Action, line: str) -> None:
    assert str(Standstill(0, what, by, action)) == line
