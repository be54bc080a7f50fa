"""Command ring, event ring, host memory and positions, next to their edges."""

from __future__ import annotations

import random

import pytest

from tests.driver.bench import Bench
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import DeviceError
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import CommandDoneEvent, Reason, State
from tiptoe_driver.hardware.memory import ByteRing, HostMemory, OutOfMemory, RingPool, window_scale
from tiptoe_driver.hardware.positions import advance, distance, is_after
from tiptoe_hdl.host.abi import Opcode
from tiptoe_hdl.messages import Reason as HdlReason
from tiptoe_hdl.messages import State as HdlState

ACCEPTS_ECN = 2 << reg.CONTROL_ECN_SHIFT


def test_positions_wrap() -> None:
    assert advance(0xFFFF_FFFF, 1) == 0 and advance(0, -1) == 0xFFFF_FFFF
    assert distance(3, 0xFFFF_FFFE) == 5
    assert is_after(0, 0xFFFF_FFFF) and not is_after(0xFFFF_FFFF, 0)
    assert is_after(0x7FFF_FFFF, 0) and not is_after(0x8000_0000, 0) and not is_after(5, 5)


@pytest.mark.parametrize(
    ("ring", "scale"), [(4096, 0), (32768, 0), (65536, 1), (1 << 17, 2), (1 << 18, 3), (1 << 20, 5), (1 << 24, 9)]
)
def test_window_scale_is_the_smallest_that_covers_the_ring(ring: int, scale: int) -> None:
    assert window_scale(ring) == scale
    assert ring >> scale <= 65535 and (scale == 0 or ring >> (scale - 1) > 65535)


def test_memory_blocks_are_aligned_and_apart(rng: random.Random) -> None:
    memory = HostMemory(memoryview(bytearray(1 << 20)), base=100, limit=(1 << 20) - 7)
    start = memory.free_bytes
    held = []
    for _ in range(2000):
        if held and rng.random() < 0.5:
            memory.free(held.pop(rng.randrange(len(held))))
        else:
            try:
                held.append(memory.allocate(rng.choice([1, 64, 65, 4096, 70_000])))
            except OutOfMemory:
                continue
        spans = sorted((block.address, block.address + block.size) for block in held)
        assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))
        assert all(block.address % block.size == 0 for block in held)
        assert not spans or (spans[0][0] >= 100 and spans[-1][1] <= (1 << 20) - 7)
    for block in held:
        memory.free(block)
    assert memory.free_bytes == start  # and in one piece again
    assert memory.allocate(1 << 18).size == 1 << 18
    block = memory.allocate(64)
    memory.free(block)
    with pytest.raises(ValueError, match="free already"):
        memory.free(block)


def test_memory_refuses_what_is_no_host_memory() -> None:
    with pytest.raises(ValueError, match="writable"):
        HostMemory(memoryview(bytes(64)))
    with pytest.raises(ValueError, match="not within"):
        HostMemory(memoryview(bytearray(64)), base=0, limit=65)


@pytest.mark.parametrize("position", [0, 63, 64, 0xFFFF_FFC1, 0xFFFF_FFFF])
def test_byte_ring_wraps(position: int) -> None:
    ring = ByteRing(memoryview(bytearray(64)))
    for length in (0, 1, 2, 63, 64):
        data = bytes(range(length))
        ring.write(position, data)
        back = bytearray(length)
        ring.read_into(position, memoryview(back))
        assert back == data
        assert b"".join(bytes(piece) for piece in ring.pieces(position, length)) == data
    with pytest.raises(ValueError, match="power of two"):
        ByteRing(memoryview(bytearray(65)))


def test_ring_pool_counts_users() -> None:
    pool = RingPool(HostMemory(memoryview(bytearray(1 << 15))), 4096, 8192, 4096)
    pairs = []
    while (pair := pool.get()) is not None:
        pairs.append(pair)
    assert len(pairs) == 2 and pool.in_use == 2  # a third would need 8192 in one piece
    pairs[0].hold()
    pairs[0].drop()
    assert pool.get() is None
    pairs[0].drop()
    assert pool.get() is pairs[0]
    with pytest.raises(ValueError, match="power of two"):
        RingPool(pool.memory, 5000, 4096, 4096)


# ---------------------------------------------------------------------- command ring


def test_command_ring_wraps_many_times() -> None:
    bench = Bench(command_entries=16, command_reserve=4)
    for n in range(100):
        conn = bench.connected(1 + n)
        conn.sock.close()
        conn.end()
    assert bench.device.registers[reg.REG_COMMAND_TAIL] > 300
    assert not bench.dev.engine.commands.backlog


def test_control_commands_always_have_room() -> None:
    """With a ring that the device does not read, opens are refused, but no close, abort or release is lost."""
    bench = Bench(command_entries=16, command_reserve=4)
    conns = [bench.connected(1 + n) for n in range(16)]
    bench.device.read_commands = False
    for n, conn in enumerate(conns):
        conn.sock.close()
        if n % 2:
            conn.end(Reason.PEER_RESET)
    commands = bench.dev.engine.commands
    assert commands.free == 0 and commands.backlog
    bench.device.read_commands = True
    bench.device.fetch()
    bench.stack.wait(1000)
    assert not commands.backlog
    for n, conn in enumerate(conns):
        assert [c["op"] for c in conn.commands(Opcode.CLOSE, Opcode.ABORT, Opcode.RELEASE)] == (
            [Opcode.CLOSE, Opcode.RELEASE] if n % 2 else [Opcode.CLOSE]
        )


def test_tags_do_not_run_out_of_an_engine_that_answers_nothing(bench: Bench) -> None:
    """The oldest is forgotten rather than a free one looked for without end."""
    commands, told = bench.dev.engine.commands, []
    last = commands.tag(lambda status, argument: told.append("last of the first"))
    for _ in range(0xFFFF):
        newest = commands.tag(lambda status, argument: told.append("other"))
    assert commands.waiting == 0xFFFF and newest == last
    assert commands.done(CommandDoneEvent(argument=0, opcode=0, status=0, tag=newest, value=0)) and told == ["other"]


def test_backlog_keeps_the_order_of_listen_and_unlisten() -> None:
    bench = Bench(command_entries=16, command_reserve=4, stock=0)
    bench.device.read_commands = False
    for n in range(20):
        bench.listening(100 + n % 4).close()
    bench.device.read_commands = True
    for _ in range(20):
        bench.device.fetch()
        bench.stack.wait(1000)
    ops = [c["op"] for c in bench.device.ops(Opcode.LISTEN, Opcode.UNLISTEN)]
    assert ops == [Opcode.LISTEN, Opcode.UNLISTEN] * (len(ops) // 2) and len(ops) >= 8


def test_command_head_is_read_only_when_the_ring_seems_full(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.send(b"x")
    conn.deliver(b"y", snd_una_position=1)
    conn.sock.recv(1)
    conn.sock.close()
    conn.end()
    assert bench.device.reads == []


# ---------------------------------------------------------------------- event ring


def test_event_ring_has_room_for_everything_under_way() -> None:
    for device in (FakeDevice(), FakeDevice(connections=64, syncache=32, memory_bytes=1 << 24)):
        bench = Bench(device)
        caps, options = bench.dev.engine.capabilities, bench.dev.engine.options
        assert bench.dev.engine.events.entries >= (
            caps.connections + 2 * caps.syncache_entries + bench.dev.engine.commands.entries + options.frame_slots
        )
        assert 1 << device.registers[reg.REG_EVENT_RING_LOG2] == bench.dev.engine.events.entries


def test_event_ring_wraps_and_phase_alternates(bench: Bench) -> None:
    conn = bench.connected()
    entries = bench.dev.engine.events.entries
    for n in range(3 * entries):
        conn.deliver(n.to_bytes(4))
        assert conn.sock.recv(10) == n.to_bytes(4)
    assert bench.device.registers[reg.REG_EVENT_CONSUMER] >= 3 * entries


def test_a_full_event_ring_is_read_at_once(bench: Bench) -> None:
    conn = bench.connected()
    for _ in range(bench.dev.engine.events.entries):
        conn.report(poll=False)
    assert bench.stack.poll()
    assert not bench.stack.poll()
    assert bench.dev.counters["stale_events"] == 0


def test_bring_up_writes_rings_keys_and_addresses_before_enable() -> None:
    order: list[int] = []
    device = FakeDevice()
    write = device.write32
    device.write32 = lambda address, value: (order.append(address), write(address, value))[1]  # type: ignore[method-assign]
    bench = Bench(device, registers={reg.REG_MSL_TICKS: 5}, external_tick=True)
    control = len(order) - 1 - order[::-1].index(reg.REG_CONTROL)
    needed = {
        reg.REG_MAC_LO,
        reg.REG_MAC_HI,
        reg.REG_IP_ADDR,
        reg.REG_COMMAND_RING_LO,
        reg.REG_EVENT_RING_LO,
        reg.REG_FRAME_RING_LO,
        reg.REG_ISN_KEY + 12,
        reg.REG_HASH_KEY + 4,
        reg.REG_MSL_TICKS,
    }
    assert needed <= set(order[:control])
    assert device.registers[reg.REG_CONTROL] == (
        reg.CONTROL_ENABLE
        | reg.CONTROL_EXTERNAL_TICK
        | reg.CONTROL_RST_UNKNOWN
        | reg.CONTROL_SACK
        | reg.CONTROL_TIMESTAMPS
        | reg.CONTROL_QUICK_ACK
        | ACCEPTS_ECN
    )
    assert device.ring(reg.REG_EVENT_RING_LO) % (bench.dev.engine.events.entries * 32) == 0
    bench.dev.engine.stop()
    assert not device.registers[reg.REG_CONTROL] & reg.CONTROL_ENABLE


def test_bring_up_for_a_software_tcp_that_takes_what_the_engine_cannot() -> None:
    bench = Bench(syn_to_host=True, rst_unknown=False)
    assert bench.device.registers[reg.REG_CONTROL] == (
        reg.CONTROL_ENABLE
        | reg.CONTROL_SYN_TO_HOST
        | reg.CONTROL_SACK
        | reg.CONTROL_TIMESTAMPS
        | reg.CONTROL_QUICK_ACK
        | ACCEPTS_ECN
    )
    with pytest.raises(ValueError, match="syn_to_host needs rst_unknown=False"):
        Bench(syn_to_host=True)


@pytest.mark.parametrize(
    ("register", "value", "message"),
    [
        (reg.REG_ID, 0, "no Tiptoe engine"),
        (reg.REG_VERSION, 0x7F_0000, "register map is version 127"),
        (reg.REG_STATUS, 0, "does not come out of reset"),
    ],
)
def test_bring_up_of_a_wrong_device(register: int, value: int, message: str) -> None:
    device = FakeDevice()
    device.registers[register] = value
    with pytest.raises(DeviceError, match=message):
        Bench(device)


def test_counters_by_name(bench: Bench) -> None:
    bench.device.registers[reg.REG_COUNTER + 4 * reg.Counter.TX_RST] = 7
    counters = bench.dev.engine.read_counters()
    assert counters["TX_RST"] == 7 and len(counters) == len(reg.Counter)


def test_state_numbers_agree_with_the_engine() -> None:
    assert {s.name: s.value for s in State} == {s.name: s.value for s in HdlState}
    assert {r.name: r.value for r in Reason} == {r.name: r.value for r in HdlReason}


@pytest.mark.parametrize(("ecn", "value"), [("off", 0), ("offer", 1), ("accept", 2)])
def test_bring_up_says_what_becomes_of_ecn(ecn: str, value: int) -> None:
    """Values as tcp_ecn of Linux and net.inet.tcp.ecn.enable of FreeBSD have them."""
    bench = Bench(ecn=ecn)
    for again in (False, True):
        if again:
            bench.dev.reset()
        assert (bench.device.registers[reg.REG_CONTROL] & reg.CONTROL_ECN) >> reg.CONTROL_ECN_SHIFT == value


def test_engine_without_ecn() -> None:
    """Older than the driver: a bit that it does not know would be an error."""
    device = FakeDevice()
    device.registers[reg.REG_LIMITS] &= ~reg.LIMITS_ECN
    assert not Bench(device).device.registers[reg.REG_CONTROL] & reg.CONTROL_ECN
    with pytest.raises(ValueError, match="ecn"):
        Bench(device, ecn="offer")
    with pytest.raises(ValueError, match="ecn is"):
        Bench(ecn="yes")


@pytest.mark.parametrize("sack", [True, False])
def test_bring_up_says_whether_syns_offer_selective_acknowledgements(sack: bool) -> None:
    """Whoever had the engine before, and after every reset."""
    bench = Bench(sack=sack)
    for again in (False, True):
        if again:
            bench.dev.reset()
        assert bool(bench.device.registers[reg.REG_CONTROL] & reg.CONTROL_SACK) == sack


@pytest.mark.parametrize("timestamps", [True, False])
def test_bring_up_says_whether_syns_offer_timestamps(timestamps: bool) -> None:
    """RFC 7323 section 3.2; and the clock begins with a number that nobody knows (section 7.1), each time another one."""
    bench = Bench(timestamps=timestamps)
    offsets = set()
    for again in (False, True):
        if again:
            bench.dev.reset()
        assert bool(bench.device.registers[reg.REG_CONTROL] & reg.CONTROL_TIMESTAMPS) == timestamps
        offsets.add(bench.device.registers[reg.REG_TIMESTAMP_OFFSET])
    assert len(offsets) == 2 and 0 not in offsets
