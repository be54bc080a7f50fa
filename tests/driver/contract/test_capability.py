"""Contract row CAP-1: IFCAP_TOE switched while connections live, on scripted devices."""

from __future__ import annotations

import errno

import pytest

from tests.driver.bench import OUR_IP, Bench, Connection, SoftwareStack
from tests.driver.contract.devices import PEERS, Two, new_connection_works, works
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import EngineOptions, Socket, Stack, Tiptoe
from tiptoe_driver.netinet.if_var import IFCAP_TOE
from tiptoe_driver.netinet.offload import if_setcap
from tiptoe_driver.netinet.structures import SO_NO_OFFLOAD, TF_TOE
from tiptoe_hdl.host.abi import Opcode


def set_toe(bench: Bench, on: bool) -> int:
    return if_setcap(bench.dev.tod_ifp, IFCAP_TOE if on else 0)


def test_cap_1_switched_off_and_on(both: Two) -> None:
    one, two = both.benches
    listener = one.listening()
    old = one.connected()
    assert set_toe(one, False) == 0
    assert [c["op"] for c in one.device.commands] == [Opcode.UNLISTEN] and not two.device.ops(Opcode.UNLISTEN)
    assert one.socket().connect_ex((PEERS[0], 81)) == errno.EINVAL
    assert works(old) and new_connection_works(two)
    later = one.listening(81)
    assert not one.device.ops(Opcode.LISTEN)
    one.device.forget()
    assert set_toe(one, True) == 0 and set_toe(one, True) == 0
    assert [c["lport"] for c in one.device.ops(Opcode.LISTEN)] == [80, 81]
    for port, sock in ((80, listener), (81, later)):
        one.syn(0, port=port, fport=port)
        one.handshake_done(0)
        assert sock.readable()
    assert works(old) and new_connection_works(one)


def test_cap_1_switched_off_new_connections_are_the_software_stacks(both: Two) -> None:
    software = SoftwareStack(both.stack)
    both.one.know_peer()
    both.one.device.forget()
    set_toe(both.one, False)
    assert both.one.socket().connect_ex((PEERS[0], 80)) == errno.EINPROGRESS
    [taken] = software.outputs
    assert not taken.t_flags & TF_TOE and both.one.device.accesses == 0
    assert Connection(both.two, *open_on(both.two)).tp.t_flags & TF_TOE


def open_on(bench: Bench) -> tuple[Socket, int]:
    conn = bench.opening()
    return conn.sock, conn.tid


def test_cap_1_half_open_connection_that_completes_before_the_device_obeys(bench: Bench) -> None:
    listener = bench.listening()
    bench.device.answer = lambda c: None
    bench.syn(0)
    set_toe(bench, False)
    bench.handshake_done(0)
    assert listener.readable()


def test_cap_1_off_and_on_before_the_device_has_answered() -> None:
    bench = Bench(FakeDevice(listeners=1))
    bench.listening()
    bench.device.answer = lambda c: None
    set_toe(bench, False)
    set_toe(bench, True)
    assert len(bench.device.ops(Opcode.LISTEN)) == 1
    bench.device.done(bench.device.last(Opcode.UNLISTEN))
    bench.stack.poll()
    assert [c["listener"] for c in bench.device.ops(Opcode.LISTEN)] == [0, 0]


def test_cap_1_off_while_stopped(bench: Bench) -> None:
    listener = bench.listening()
    assert listener.so is not None
    listener.so.so_options |= SO_NO_OFFLOAD  # read at listen only
    bench.dev.stop(0)
    set_toe(bench, False)
    bench.device.forget()
    bench.dev.restart()
    assert not bench.device.ops(Opcode.LISTEN, Opcode.PROVISION)
    set_toe(bench, True)
    assert [c["lport"] for c in bench.device.ops(Opcode.LISTEN)] == [80]


def test_cap_1_capability_the_interface_does_not_have(bench: Bench) -> None:
    assert if_setcap(bench.dev.tod_ifp, IFCAP_TOE | 1) == errno.EINVAL
    assert bench.dev.tod_ifp.if_capenable == IFCAP_TOE


def test_attach_needs_nothing_of_a_device_that_went() -> None:
    """A stack whose only device went can take another, of any clock."""
    stack = Stack()
    first = Bench(stack=stack)
    first.device.time = 5_000
    first.dev.detach()
    with pytest.raises(RuntimeError, match="without a device has no time"):
        stack.wait(1)
    device = FakeDevice()
    device.time = 99
    Tiptoe(
        stack,
        device,
        address=OUR_IP + "/24",
        mac="02:00:00:00:00:01",
        options=EngineOptions(snd_ring_bytes=4096, rcv_ring_bytes=4096, frame_slots=8, frame_buffers=8),
    )
    assert stack.now_us() == 5_000
