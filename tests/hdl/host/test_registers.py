"""Registers and doorbells through AXI4-Lite: every register, wrong accesses, interrupt, soft reset."""

import random

import pytest
from amaranth.lib.wiring import Component

from tiptoe_hdl.config import DATACENTRE, ECP5, TINY
from tiptoe_hdl.flow.result import Parameters
from tiptoe_hdl.flow.tcb import TICK_BITS
from tiptoe_hdl.host.abi import ErrorCode
from tiptoe_hdl.host.axi import Response
from tiptoe_hdl.host.command_fetch import LOG2_ENTRIES as COMMAND_LOG2
from tiptoe_hdl.host.consumer_check import CHECK_CYCLES
from tiptoe_hdl.host.event_ring import LOG2_ENTRIES as EVENT_LOG2
from tiptoe_hdl.host.register_map import register_map
from tiptoe_hdl.host.register_ports import CLEARED, CONFIGURATION, MEASURED, constants, field_width
from tiptoe_hdl.host.registers import RESET_CYCLES, Registers
from tiptoe_hdl.messages import Counter
from tiptoe_verif.streams import recv_n, run_bench, stream_get, watch_stream

MAP = register_map()
OKAY, SLVERR = Response.OKAY, Response.SLVERR
CONTROL = 1 << 7 | 2 << 8 | 1 << 11
"""What is set after power-up: SACK, and ECN for who offers it."""


class Host:
    """An AXI4-Lite master in Amaranth's simulator; address and data of a write need not come together."""

    def __init__(self, dut: Component, rng: random.Random | None = None, idle: float = 0.0):
        self.bus, self.rng, self.idle = dut.axil, rng or random.Random(0), idle

    async def _pause(self, ctx):
        while self.rng.random() < self.idle:
            await ctx.tick()

    async def write(self, ctx, address, value, strobes=0xF):
        await self._pause(ctx)
        bus, waiting = self.bus, {"aw", "w"}
        ctx.set(bus.awaddr, address)
        ctx.set(bus.wdata, value)
        ctx.set(bus.wstrb, strobes)
        while waiting:
            offered = {channel for channel in sorted(waiting) if self.rng.random() >= self.idle}
            # An offer stays until it is taken.
            ctx.set(bus.awvalid, "aw" in offered or ctx.get(bus.awvalid) and "aw" in waiting)
            ctx.set(bus.wvalid, "w" in offered or ctx.get(bus.wvalid) and "w" in waiting)
            _, _, awvalid, awready, wvalid, wready = await ctx.tick().sample(
                bus.awvalid, bus.awready, bus.wvalid, bus.wready
            )
            if awvalid and awready:
                waiting.discard("aw")
                ctx.set(bus.awvalid, 0)
            if wvalid and wready:
                waiting.discard("w")
                ctx.set(bus.wvalid, 0)
        await self._pause(ctx)
        ctx.set(bus.bready, 1)
        (response,) = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
        ctx.set(bus.bready, 0)
        return response

    async def read(self, ctx, address):
        await self._pause(ctx)
        bus = self.bus
        ctx.set(bus.araddr, address)
        ctx.set(bus.arvalid, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        await self._pause(ctx)
        ctx.set(bus.rready, 1)
        response, value = await ctx.tick().sample(bus.rresp, bus.rdata).until(bus.rvalid)
        ctx.set(bus.rready, 0)
        return response, value


def words(readable=None, writable=None):
    """(register, index, address) of every word."""
    for register in MAP.registers:
        if readable in (None, register.readable) and writable in (None, register.writable):
            for index in range(register.count):
                yield register, index, register.address + 4 * index


def reset_word(cfg, register):
    value = 0
    for field in register.fields:
        path = f"{register.name}.{field.name}"
        reset = getattr(cfg, field.reset_from) if field.reset_from else field.reset
        value |= constants(cfg).get(path, reset or 0) << field.low if field.readable else 0
    return value


def limits(cfg, register, field):
    """Smallest and largest value of a field in this configuration."""
    return field.least, min(field.most, (1 << field_width(cfg, register, field)) - 1)


@pytest.mark.parametrize("cfg", [TINY, ECP5, DATACENTRE], ids=lambda cfg: cfg.name)
def test_reset_values(cfg):
    dut = Registers(cfg)
    host = Host(dut)

    async def bench(ctx):
        ctx.set(dut.ready, 1)
        for register, index, address in words():
            response, value = await host.read(ctx, address)
            expected = 1 if register.name == "STATUS" else reset_word(cfg, register)
            assert (response, value) == (OKAY, expected), f"{register.name}[{index}]"
        assert (await host.read(ctx, 0))[1].to_bytes(4, "little") == b"TIPT"

    run_bench(dut, bench)


@pytest.mark.parametrize("cfg", [TINY, ECP5], ids=lambda cfg: cfg.name)
@pytest.mark.parametrize("idle", [0.0, 0.6])
def test_read_back(cfg, idle, rng):
    dut = Registers(cfg)
    host = Host(dut, rng, idle)
    written = {}

    async def bench(ctx):
        todo = [word for word in words(writable=True) if word[0].name not in ("CONTROL", "STATUS", "IRQ_STATUS")]
        rng.shuffle(todo)
        for register, _, address in todo:
            written[address] = sum(rng.randint(*limits(cfg, register, field)) << field.low for field in register.fields)
            assert await host.write(ctx, address, written[address]) == OKAY
        for register, index, address in todo:
            mask = sum(field.mask for field in register.fields if field.readable)
            if register.name.endswith("_RING_HI"):
                mask = (1 << cfg.addr_width - 32) - 1
            value = written[address] & mask
            assert await host.read(ctx, address) == (OKAY, value), f"{register.name}[{index}]"
        # The ports carry what was written, lowest field first.
        for port, paths in CONFIGURATION.items():
            value = shift = 0
            for path in paths:
                register = MAP[path.split(".")[0]]
                (field,) = (field for field in register.fields if field.name == path.split(".")[1])
                for index in range(register.count):
                    word = written.get(register.address + 4 * index, (field.reset or 0) << field.low)
                    value |= (word & field.mask) >> field.low << shift
                    shift += field.width
            assert ctx.get(getattr(dut, port)) == value & (1 << len(getattr(dut, port))) - 1, port

    run_bench(dut, bench)


def test_limits_are_those_of_what_the_engine_does():
    """What lies behind the registers, said once more: widths and loops of the blocks, and the RFCs."""
    fields = {
        f"{register.name}.{field.name}": field
        for register in MAP.registers
        for field in register.fields
        if field.writable
    }
    assert {name: (field.least, field.most) for name, field in fields.items() if field.limited} == {
        "CONTROL.ECN": (0, 2),
        "IP_HEADER.TTL": (1, 255),
        "VLAN.ID": (0, 4094),  # the last one is reserved (IEEE 802.1Q)
        "CONGESTION_CONTROL.TICK_US": (1, 0xFFFF),
        "RTO_MAX.VALUE": (1, 0xFFFF),
        "RTO_INITIAL.VALUE": (1, 0xFFFF),
        "RETRIES.REXMT_MAX": (1, 15),
        "COMMAND_RING_LOG2.VALUE": (COMMAND_LOG2[0], COMMAND_LOG2[-1]),
        "EVENT_RING_LOG2.VALUE": (EVENT_LOG2[0], EVENT_LOG2[-1]),
        "FRAME_RING_LOG2.VALUE": (1, 15),
    }
    assert 1 << fields["MSL_TICKS.VALUE"].width == 1 << TICK_BITS - 1
    assert fields["RETRIES.REXMT_MAX"].width == Parameters["rexmt_max"].width
    for path, field in fields.items():
        if field.reset is not None and path.split(".")[0] not in (
            "COMMAND_RING_LOG2",
            "EVENT_RING_LOG2",
            "FRAME_RING_LOG2",
        ):
            assert field.least <= field.reset <= field.most, path


def wrong_values(cfg, register):
    """Words that a register refuses: each field just outside of its limits, and each bit outside of the fields."""
    fit = sum(limits(cfg, register, field)[1] << field.low for field in register.fields)
    known = 0
    for field in register.fields:
        least, most = limits(cfg, register, field)
        room = ((1 << field_width(cfg, register, field)) - 1) << field.low
        known |= room
        for value in (least - 1, most + 1):
            if 0 <= value <= room >> field.low:
                yield fit & ~field.mask | value << field.low
    yield from (fit | 1 << bit for bit in range(32) if not known >> bit & 1)
    if known != 0xFFFFFFFF:
        yield 0xFFFFFFFF


@pytest.mark.parametrize("cfg", [TINY, ECP5], ids=lambda cfg: cfg.name)
def test_a_value_that_a_register_cannot_take_changes_nothing(cfg, rng):
    """At its limits each field is set; a value just beyond, or a bit that means nothing, is told of and changes nothing."""
    dut = Registers(cfg)
    host = Host(dut)
    errors = []
    checked = [word for word in words() if word[0].checked and word[0].name != "CONTROL"]
    assert len(checked) > 30

    async def watch(ctx):
        async for _, _, valid, error in ctx.tick().sample(dut.error.valid, dut.error.payload):
            if valid:
                errors.append((error.code, error.argument))

    async def bench(ctx):
        for register, index, address in checked:
            for end in (0, 1):
                value = sum(limits(cfg, register, field)[end] << field.low for field in register.fields)
                assert await host.write(ctx, address, value) == OKAY
                if register.readable:
                    assert await host.read(ctx, address) == (OKAY, value), f"{register.name}[{index}]"
            assert not errors, register.name
            refused = list(wrong_values(cfg, register))
            for wrong in refused if index == 0 else refused[:1]:
                assert await host.write(ctx, address, wrong) == OKAY
                await ctx.tick().repeat(5)
                assert errors == [(ErrorCode.BAD_REGISTER.value, address)], (register.name, hex(wrong))
                errors.clear()
            if register.readable:
                assert await host.read(ctx, address) == (OKAY, value), register.name

    run_bench(dut, bench, background=[watch], max_cycles=100_000)


def test_control_with_bits_of_a_later_version_does_nothing():
    """A driver that asks for more than this engine has is told so, and has not switched it on by half."""
    dut = Registers(TINY)
    host = Host(dut)

    async def bench(ctx):
        for more in (3 << 8, *(1 << bit for bit in range(10, 32) if not CONTROL >> bit & 1)):
            await host.write(ctx, MAP["CONTROL"].address, 1 | more)
            await ctx.tick().until(dut.error.valid)
            assert await host.read(ctx, MAP["CONTROL"].address) == (OKAY, CONTROL)
        await host.write(ctx, MAP["CONTROL"].address, 1)
        assert await host.read(ctx, MAP["CONTROL"].address) == (OKAY, 1)

    run_bench(dut, bench)


def test_wrong_values_between_wrong_doorbells_are_all_told_of(rng):
    """A write a cycle: no error hides another one."""
    dut = Registers(TINY)
    msl = MAP["MSL_TICKS"].address
    sent = [rng.choice([msl, 0x80000 + 8 * 16, 0x80000 + 8 * 17 + 4]) for _ in range(60)]
    told = []

    async def watch(ctx):
        async for _, _, valid, error in ctx.tick().sample(dut.error.valid, dut.error.payload):
            if valid:
                told.append((error.code, error.argument))

    async def bench(ctx):
        bus = dut.axil
        ctx.set(bus.bready, 1)
        ctx.set(bus.wdata, 1 << 19)
        ctx.set(bus.wstrb, 15)
        for address in sent:
            ctx.set(bus.awaddr, address)
            ctx.set(bus.awvalid, 1)
            ctx.set(bus.wvalid, 1)
            await ctx.tick().until(bus.awready & bus.wready)
        ctx.set(bus.awvalid, 0)
        ctx.set(bus.wvalid, 0)
        await ctx.tick().repeat(12)
        assert told == [
            (ErrorCode.BAD_REGISTER if address == msl else ErrorCode.BAD_DOORBELL, address) for address in sent
        ]

    run_bench(dut, bench, background=[watch])


def test_measured_fields(rng):
    dut = Registers(TINY)
    host = Host(dut)

    async def bench(ctx):
        for path, port in MEASURED.items():
            value = rng.getrandbits(len(getattr(dut, port))) | 1
            ctx.set(getattr(dut, port), value)
            assert await host.read(ctx, MAP[path.split(".")[0]].address) == (OKAY, value)

    run_bench(dut, bench)


def test_counter_read_gives_the_counter_its_time(rng):
    dut = Registers(TINY)
    host = Host(dut)
    values = [rng.getrandbits(32) for _ in Counter]

    async def bank(ctx):
        late = [0] * 36
        async for _, _, index in ctx.tick().sample(dut.counter_index):
            late = [*late[1:], index]
            ctx.set(dut.counter_value, values[late[0]])

    async def bench(ctx):
        for index in random.Random(1).sample(range(len(Counter)), len(Counter)):
            assert await host.read(ctx, MAP["COUNTER"].address + 4 * index) == (OKAY, values[index])

    run_bench(dut, bench, background=[bank])


def test_wrong_accesses_change_nothing(rng):
    dut = Registers(TINY)
    host = Host(dut, rng, 0.3)

    async def bench(ctx):
        ip = MAP["IP_ADDR"].address
        assert await host.write(ctx, ip, 0x0A000001) == OKAY
        for strobes in range(15):
            assert await host.write(ctx, ip, 0xFFFFFFFF, strobes) == SLVERR
        assert await host.read(ctx, ip) == (OKAY, 0x0A000001)
        for register, _, address in words(writable=False):
            assert await host.write(ctx, address, 0xFFFFFFFF) == SLVERR, register.name
        # Holes of the map, aliases of registers, addresses beyond it; doorbells can't be read.
        mapped = {address for _, _, address in words()}
        holes = [address for address in range(0, 0x400, 4) if address not in mapped]
        for address in [*holes, 0x1028, 0x4010, 0x40010, 0x7FFFC, 0x80000, 0x80028, 0xFFFFC]:
            assert await host.read(ctx, address) == (SLVERR, 0), hex(address)
            if address < 0x80000:
                assert await host.write(ctx, address, 0xFFFFFFFF) == SLVERR, hex(address)
        assert await host.read(ctx, ip) == (OKAY, 0x0A000001)
        assert await host.read(ctx, MAP["CONTROL"].address) == (OKAY, CONTROL)

    run_bench(dut, bench, max_cycles=60_000)


def test_interrupt():
    dut = Registers(TINY)
    host = Host(dut)
    status, mask = MAP["IRQ_STATUS"].address, MAP["IRQ_MASK"].address

    async def pulse(ctx, port):
        ctx.set(port, 1)
        await ctx.tick()
        ctx.set(port, 0)
        await ctx.tick().repeat(3)

    async def bench(ctx):
        await pulse(ctx, dut.event_irq)
        assert await host.read(ctx, status) == (OKAY, 1) and not ctx.get(dut.irq)
        await host.write(ctx, mask, 2)
        await ctx.tick().repeat(4)
        assert not ctx.get(dut.irq)
        await pulse(ctx, dut.error_irq)
        assert ctx.get(dut.irq) and await host.read(ctx, status) == (OKAY, 3)
        await host.write(ctx, status, 1)
        assert await host.read(ctx, status) == (OKAY, 2) and ctx.get(dut.irq)
        await host.write(ctx, status, 2)
        assert await host.read(ctx, status) == (OKAY, 0) and not ctx.get(dut.irq)

    run_bench(dut, bench)


def test_interrupt_while_its_bit_is_cleared_is_kept():
    dut = Registers(TINY)
    host = Host(dut)

    async def bench(ctx):
        ctx.set(dut.event_irq, 1)  # events all the time: in the cycle of the clearing as well
        await host.write(ctx, MAP["IRQ_STATUS"].address, 3)
        await ctx.tick().repeat(3)
        ctx.set(dut.event_irq, 0)
        assert await host.read(ctx, MAP["IRQ_STATUS"].address) == (OKAY, 1)

    run_bench(dut, bench)


def test_interrupt_cleared_too_early_comes_again():
    """The clearing was under way when an event came: EVENT_CONSUMER does not know it."""
    dut = Registers(TINY)
    host = Host(dut)
    status = MAP["IRQ_STATUS"].address

    async def bench(ctx):
        await host.write(ctx, MAP["IRQ_MASK"].address, 1)
        for pending in (1, 0):
            ctx.set(dut.event_pending, pending)
            await host.write(ctx, status, 3)
            await ctx.tick().repeat(CHECK_CYCLES + 6)
            assert await host.read(ctx, status) == (OKAY, pending) and ctx.get(dut.irq) == pending
        ctx.set(dut.event_pending, 1)  # only a clearing looks at it
        await host.write(ctx, MAP["IRQ_MASK"].address, 1)
        await ctx.tick().repeat(CHECK_CYCLES + 6)
        assert await host.read(ctx, status) == (OKAY, 0)

    run_bench(dut, bench)


def test_soft_reset_waits_for_the_bus_and_keeps_the_configuration():
    dut = Registers(TINY)
    host = Host(dut)
    control, ip = MAP["CONTROL"].address, MAP["IP_ADDR"].address

    async def bench(ctx):
        ctx.set(dut.ready, 1)
        ctx.set(dut.quiet, 0)
        await host.write(ctx, ip, 0x0A000001)
        for name in ("COMMAND_TAIL", "EVENT_CONSUMER", "FRAME_CONSUMER"):
            await host.write(ctx, MAP[name].address, 77)
        ctx.set(dut.stalled, 0b1111)
        await ctx.tick()
        ctx.set(dut.stalled, 0)
        await host.write(ctx, control, 0x1F)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.quiesce) and not ctx.get(dut.enable) and not ctx.get(dut.soft_reset)
        response, value = await host.read(ctx, control)
        assert response == OKAY and value & 2
        assert await host.read(ctx, MAP["STATUS"].address) == (OKAY, 0xF00)
        ctx.set(dut.quiet, 1)
        cycles = 0
        await ctx.tick().until(dut.soft_reset)
        while ctx.get(dut.soft_reset):
            assert not ctx.get(dut.axil.bvalid)
            await ctx.tick()
            cycles += 1
        assert RESET_CYCLES - 1 <= cycles <= RESET_CYCLES and not ctx.get(dut.quiesce)
        assert await host.read(ctx, MAP["STATUS"].address) == (OKAY, 1)
        assert await host.read(ctx, ip) == (OKAY, 0x0A000001)
        for name in CLEARED:
            value = {"STATUS": 1, "CONTROL": CONTROL}.get(name, 0)  # as after power-up, and ready
            assert await host.read(ctx, MAP[name].address) == (OKAY, value), name

    run_bench(dut, bench)


@pytest.mark.parametrize("name", ["msl_ticks", "rto_min", "rto_max", "rto_initial", "delack_ticks"])
def test_no_time_is_longer_than_deadlines_can_tell(name):
    """A deadline more than half the modulus ahead would count as past."""
    assert len(getattr(Registers(TINY), name)) < TICK_BITS


def test_what_the_watchdog_finds_stays_until_it_is_cleared():
    dut = Registers(TINY)
    host = Host(dut)
    status = MAP["STATUS"].address

    async def bench(ctx):
        ctx.set(dut.ready, 1)
        for stalled in (0b0001, 0b1100):
            ctx.set(dut.stalled, stalled)
            await ctx.tick()
            ctx.set(dut.stalled, 0)
        assert await host.read(ctx, status) == (OKAY, 0xD01)
        assert await host.write(ctx, status, 0x401) == OKAY
        assert await host.read(ctx, status) == (OKAY, 0x901)

    run_bench(dut, bench)


@pytest.mark.parametrize("idle, stall", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.9), (0.4, 0.4)])
def test_doorbells_arrive_in_order(idle, stall, rng):
    dut = Registers(TINY)
    host = Host(dut, rng, idle)
    rings = [(rng.randrange(16), rng.randrange(2), rng.getrandbits(32)) for _ in range(100)]

    async def bench(ctx):
        for id, which, position in rings:
            assert await host.write(ctx, 0x80000 + 8 * id + 4 * which, position) == OKAY

    async def pipeline(ctx):
        got = await recv_n(ctx, dut.doorbell, len(rings), stall=stall, rng=random.Random(5))
        assert [(item["id"], item["which"], item["position"]) for item in got] == rings

    run_bench(dut, bench, pipeline, background=[watch_stream(dut.doorbell, "doorbell")])


def test_doorbell_rate():
    """Posted writes of a master that sends address and data together: one a cycle, each answered."""
    dut = Registers(TINY)
    count = 64

    async def bench(ctx):
        bus = dut.axil
        ctx.set(dut.doorbell.ready, 1)
        ctx.set(bus.bready, 1)
        ctx.set(bus.wstrb, 15)
        ctx.set(bus.awvalid, 1)
        ctx.set(bus.wvalid, 1)
        sent = answered = arrived = cycles = 0
        while arrived < count or answered < count:
            ctx.set(bus.awaddr, 0x80000 + 8 * (sent % 16))
            ctx.set(bus.wdata, sent)
            ctx.set(bus.awvalid, sent < count)
            ctx.set(bus.wvalid, sent < count)
            _, _, awready, wready, bvalid, bresp, valid, position = await ctx.tick().sample(
                bus.awready, bus.wready, bus.bvalid, bus.bresp, dut.doorbell.valid, dut.doorbell.p.position
            )
            assert awready == wready
            sent += awready and sent < count
            answered += bvalid
            assert not bvalid or bresp == OKAY
            if valid:
                assert position == arrived
                arrived += 1
            cycles += 1
        assert cycles <= count + 8

    run_bench(dut, bench)


def test_full_doorbell_queue_stalls_writes_but_not_reads():
    dut = Registers(TINY)
    host = Host(dut)
    taken = []

    async def writer(ctx):
        for position in range(24):
            assert await host.write(ctx, 0x80000, position) == OKAY
            taken.append(position)

    async def bench(ctx):
        await ctx.tick().repeat(300)
        assert len(taken) < 24
        assert await host.read(ctx, 0) == (OKAY, MAP["ID"].fields[0].reset)
        for position in range(24):
            assert (await stream_get(ctx, dut.doorbell))["position"] == position

    run_bench(dut, writer, bench)


def test_garbage_doorbells_are_refused_counted_and_told(rng):
    dut = Registers(TINY)
    host = Host(dut, rng, 0.2)
    errors, counted = [], []

    async def watch(ctx):
        async for _, _, valid, error, count in ctx.tick().sample(
            dut.error.valid, dut.error.payload, dut.count_bad_doorbell
        ):
            if valid:
                errors.append((error.code, error.argument))
            counted.append(count)

    async def bench(ctx):
        ctx.set(dut.doorbell.ready, 1)
        bad = [0x80000 + 8 * id + 4 * (id & 1) for id in (16, 17, 31, 4096 + 3, 65535)]
        for address in bad:
            assert await host.write(ctx, address, 1) == SLVERR
        assert await host.write(ctx, 0x80008, 1, strobes=7) == SLVERR
        await ctx.tick().repeat(8)
        assert errors == [(ErrorCode.BAD_DOORBELL, address) for address in [*bad, 0x80008]]
        assert sum(counted) == len(errors)

    async def no_doorbell(ctx):
        async for _, _, valid in ctx.tick().sample(dut.doorbell.valid):
            assert not valid

    run_bench(dut, bench, background=[watch, no_doorbell])


def test_every_id_of_the_largest_engine_has_doorbells():
    dut = Registers(DATACENTRE)
    host = Host(dut)

    async def bench(ctx):
        for id in (0, 1, 255, 32768, 65535):
            for which in (0, 1):
                assert await host.write(ctx, 0x80000 + 8 * id + 4 * which, id) == OKAY
                assert await stream_get(ctx, dut.doorbell) == {"id": id, "which": which, "position": id}

    run_bench(dut, bench)


def test_doorbells_of_before_are_gone_after_a_soft_reset():
    dut = Registers(TINY)
    host = Host(dut)

    async def bench(ctx):
        for position in range(4):
            await host.write(ctx, 0x80000, position)
        await host.write(ctx, MAP["CONTROL"].address, 2)
        await ctx.tick().repeat(RESET_CYCLES + 10)
        assert not ctx.get(dut.doorbell.valid)
        await host.write(ctx, 0x80000, 9)
        assert (await stream_get(ctx, dut.doorbell))["position"] == 9

    run_bench(dut, bench)
