"""Snapshots of devices and connections: what is asked of the device, and what is told when it does not answer."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.driver.bench import OUR_IP, PEER_IP, Bench, SoftwareStack
from tests.driver.toe.test_options import TCB
from tiptoe_driver import snapshot
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.tcp_info import tcp_info
from tiptoe_driver.sockets import SO_NO_OFFLOAD
from tiptoe_driver.toe.snapshots import AT_ONCE, SnapshotTaker
from tiptoe_hdl.host.abi import Opcode

PAGES = len(reg.TCB_PAGES)


def begun(bench: Bench, limit_us: int = 10_000) -> list[dict[str, Any]]:
    """Where a snapshot will appear that the device has been asked for."""
    taken: list[dict[str, Any]] = []
    SnapshotTaker(bench.stack, taken.append, limit_us)
    return taken


def asked(bench: Bench) -> int:
    return len(bench.device.ops(Opcode.READ_TCB))


def test_snapshot_of_everything(bench: Bench) -> None:
    listener = bench.listening(80, backlog=5)
    bench.syn(1)
    conn = bench.connected()
    bench.device.tcb = TCB
    conn.sock.send(b"x" * 100)
    conn.deliver(b"twelve bytes")
    bench.device.script = [bench.device.fetch] * 20
    taken = snapshot(bench.stack)
    json.dumps(taken)
    [device] = taken["devices"]
    assert (device["address"], device["state"], device["half_open"]["in_use"]) == (f"{OUR_IP}/24", "RUNNING", 1)
    ids = device["ids"]
    assert ids["in_use"] == 1 and ids["in_use"] + ids["stock"] + ids["free"] == ids["total"]
    assert set(device["counters"]) == {counter.name for counter in reg.Counter}
    [entry] = taken["listeners"]
    assert entry == {"local": "*:80", "devices": [device["name"]], "half_open": 1, "queue": 0, "backlog": 5}
    [row] = taken["connections"]
    assert row["foreign"] == f"{PEER_IP}:80" and row["device"] == device["name"] and row["state"] == "ESTABLISHED"
    assert (row["sent"], row["acked"], row["waiting"], row["received"], row["unread"]) == (100, 0, 100, 12, 12)
    assert (
        row["info"]["tcpi_device"] and row["info"]["tcpi_rtt"] == 25_000 and row["info"]["tcpi_state"] == "ESTABLISHED"
    )
    listener.close()


def test_few_are_asked_at_a_time(bench: Bench) -> None:
    """And the next ones as those answer."""
    connections = [bench.connected(1000 + n) for n in range(AT_ONCE + 2)]
    bench.device.tcb = TCB
    bench.device.answer = lambda command: None
    taken = begun(bench)
    assert asked(bench) == AT_ONCE * PAGES and not taken
    for command in bench.device.ops(Opcode.READ_TCB)[:PAGES]:
        bench.device.done(command)
    bench.stack.poll()
    assert asked(bench) == (AT_ONCE + 1) * PAGES and not taken
    for command in bench.device.ops(Opcode.READ_TCB)[PAGES:]:
        bench.device.done(command)
    bench.stack.poll()
    for command in bench.device.ops(Opcode.READ_TCB)[(AT_ONCE + 1) * PAGES :]:
        bench.device.done(command)
    bench.stack.poll()
    assert len(taken) == 1 and len(taken[0]["connections"]) == len(connections)


def test_full_command_ring_is_waited_for(bench: Bench) -> None:
    bench.connected()
    bench.device.tcb = TCB
    bench.device.read_commands = False
    while bench.dev.engine.commands.room(1):
        bench.dev.engine.commands.post(reg.pack_nop(0))
    taken = begun(bench)
    assert asked(bench) == 0 and not taken
    bench.device.read_commands = True
    bench.device.fetch()
    bench.stack.sleep(lambda: asked(bench) > 0, 5_000)
    bench.device.fetch()
    bench.stack.sleep(lambda: bool(taken), 5_000)
    assert taken[0]["connections"][0]["info"]["tcpi_device"]


def test_silent_device_costs_its_tcbs_only(bench: Bench) -> None:
    bench.connected()
    bench.device.answer = lambda command: None
    taken = begun(bench, 3_000)
    bench.stack.sleep(lambda: bool(taken), 10_000)
    assert bench.stack.now_us() >= 3_000
    info = taken[0]["connections"][0]["info"]
    assert not info["tcpi_device"] and info["tcpi_snd_mss"] == 1460
    before = json.dumps(taken[0])
    bench.device.tcb = TCB
    for command in bench.device.ops(Opcode.READ_TCB):
        bench.device.done(command)
    bench.stack.poll()
    assert json.dumps(taken[0]) == before and len(taken) == 1  # what was given away does not change


def test_nobody_waits_for_a_snapshot_that_is_cancelled(bench: Bench) -> None:
    bench.connected()
    bench.device.answer = lambda command: None
    taken: list[dict[str, Any]] = []
    SnapshotTaker(bench.stack, taken.append, 1_000).cancel()
    bench.stack.sleep(lambda: False, 3_000)
    assert taken == []


def test_connection_without_a_socket(bench: Bench) -> None:
    """The user has gone, the device still ends it: nobody can be asked."""
    conn = bench.connected()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    conn.sock.close()
    [row] = snapshot(bench.stack)["connections"]
    assert (row["state"], row["info"], row["foreign"]) == ("DETACHED", None, f"{PEER_IP}:80")
    conn.end()
    assert snapshot(bench.stack)["connections"] == []


def test_software_connections_are_asked_of_the_software(bench: Bench) -> None:
    software = SoftwareStack(bench.stack)
    software.info = tcp_info(tcpi_state=State.SYN_SENT, tcpi_rtt=5)
    sock = bench.socket()
    sock.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
    sock.connect_ex((PEER_IP, 80))
    [row] = snapshot(bench.stack)["connections"]
    assert row["device"] is None and row["info"]["tcpi_rtt"] == 5 and asked(bench) == 0


@pytest.mark.parametrize("how", ["stopped", "pulled"])
def test_device_that_is_off_or_goes(bench: Bench, how: str) -> None:
    bench.connected()
    if how == "stopped":
        bench.dev.stop(1_000)
        [device] = snapshot(bench.stack)["devices"]
        assert device["state"] == "STOPPED" and device["counters"] is None
        return
    bench.device.answer = lambda command: None
    bench.device.script = [bench.dev.detach]
    taken = snapshot(bench.stack)
    assert not taken["connections"][0]["info"]["tcpi_device"]
    assert snapshot(bench.stack) | {"time_us": 0} == {
        "time_us": 0,
        "devices": [],
        "listeners": [],
        "half_open": 0,
        "connections": [],
    }
