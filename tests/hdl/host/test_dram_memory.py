"""Host memory behind a DRAM controller: both sides at once against a model, the order in which each sees the other's writes,
bursts outside, and the pace."""

import random

import pytest

from tests.hdl.host.memory_bench import Master, host_access, write_and_read_behind
from tests.hdl.host.native_memory import NativeMemory
from tiptoe_hdl.host.axi import Response
from tiptoe_hdl.host.dram_memory import DramMemory
from tiptoe_hdl.host.dram_write import DramWriter
from tiptoe_verif.streams import run_bench

SIZE = 4096
READS, WRITES, HOST = 0, 1, 2


def controller(dut, rng, **options):
    return NativeMemory([dut.reads, dut.writes, dut.host], SIZE, random.Random(rng.getrandbits(32)), **options)


@pytest.mark.parametrize(("stall", "pace"), [(0.0, 1.0), (0.4, 1.0), (0.0, 0.3)])
def test_both_sides_at_once(stall, pace, rng):
    """The engine writes, and reads several bursts behind, in the lower half; the host does in the upper one: every byte is what
    was written last, at both sides and in the memory."""
    dut = DramMemory(SIZE)
    memory = controller(dut, rng, pace=pace)
    master = Master(dut, random.Random(rng.getrandbits(32)), 0, SIZE // 2, SIZE)
    host_rng, host_model = random.Random(rng.getrandbits(32)), bytearray(SIZE)
    traffic = write_and_read_behind(master, 60, stall)

    async def host(ctx):
        for _ in range(100):
            address = host_rng.randrange(SIZE // 8, SIZE // 4) * 4
            if host_rng.random() < 0.5:
                data, select = host_rng.getrandbits(32), host_rng.choice((0xF, 0x3, 0x8))
                await host_access(ctx, dut.wishbone, address, data=data, select=select)
                for lane in range(4):
                    if select >> lane & 1:
                        host_model[address + lane] = data >> 8 * lane & 0xFF
            else:
                word = await host_access(ctx, dut.wishbone, address)
                assert word == int.from_bytes(host_model[address : address + 4], "little")

    run_bench(dut, *traffic, host, background=[memory.run], max_cycles=60_000)
    assert memory.bytes[: SIZE // 2] == master.model[: SIZE // 2]
    assert memory.bytes[SIZE // 2 :] == host_model[SIZE // 2 :]


def answers_and_looks(dut, memory, rng):
    """The engine writes a burst; as soon as it is answered the host reads its last word, and the other way round."""
    master = Master(dut, random.Random(rng.getrandbits(32)), 0, SIZE, SIZE)

    async def bench(ctx):
        for number in range(25):
            address, words = master.burst()
            await master.write(ctx, address, words)
            last = address + 8 * words - 4
            expected = int.from_bytes(master.model[last : last + 4], "little")
            assert await host_access(ctx, dut.wishbone, last) == expected, "answered, and not there yet"
            await host_access(ctx, dut.wishbone, last, data=number)
            master.model[last : last + 4] = number.to_bytes(4, "little")
            data, _ = await master.read(ctx, last & -8, 1)
            assert data == master.model[last & -8 : (last & -8) + 8]

    run_bench(dut, bench, background=[memory.run], max_cycles=40_000)


@pytest.mark.parametrize("port", [WRITES, HOST, READS])
def test_what_was_answered_is_seen_by_the_other_side(port, rng):
    """However long the controller lets one of the ports wait."""
    dut = DramMemory(SIZE)
    answers_and_looks(dut, controller(dut, rng, ready={port: 0.03}), rng)


def test_an_answer_before_its_time_would_be_noticed(rng, monkeypatch):
    """A writer that answers a burst when it has its beats, as one in front of a buffer may: the test above finds it."""
    monkeypatch.setattr(DramWriter, "_answers", lambda self: self.pushed_last)
    dut = DramMemory(SIZE)
    with pytest.raises(AssertionError, match="not there yet"):
        answers_and_looks(dut, controller(dut, rng, ready={WRITES: 0.03}), rng)


def test_a_burst_outside_changes_nothing(rng):
    """DECERR in its turn, behind answers that take long, and the words at the same place inside stay."""
    dut = DramMemory(SIZE)
    memory = controller(dut, rng, ready={WRITES: 0.1})
    master = Master(dut, random.Random(1), 0, SIZE, SIZE)

    async def bench(ctx):
        assert await master.write(ctx, 64, 4) == Response.OKAY
        assert await master.write(ctx, SIZE + 64, 4) == Response.DECERR
        assert await master.write(ctx, 72, 1) == Response.OKAY
        data, responses = await master.read(ctx, 64, 4)
        assert (data, responses) == (bytes(master.model[64:96]), {Response.OKAY})
        for address, words in ((SIZE + 64, 3), (1 << 31, 1), (SIZE + 72, 2)):
            _, responses = await master.read(ctx, address, words)
            assert responses == {Response.DECERR}
        assert (await master.read(ctx, 72, 2))[0] == bytes(master.model[72:88])

    run_bench(dut, bench, background=[memory.run], max_cycles=2000)


async def beats(ctx, valid, ready, last, bursts):
    """Cycles that ``bursts`` bursts take on a data channel."""
    cycles, left = 0, bursts
    while left:
        _, _, taken, is_last = await ctx.tick().sample(valid & ready, last)
        cycles += 1
        left -= bool(taken and is_last)
    return cycles


def test_bursts_back_to_back_have_a_beat_a_cycle(rng):
    """Eight bursts of 32 beats each way, one way after the other: the latency once, and a cycle or two between bursts."""
    dut = DramMemory(SIZE)
    memory = controller(dut, rng)
    bus_w, bus_r = dut.s_axi_write, dut.s_axi_read

    async def addresses(ctx, bus, letters):
        for number in range(8):
            ctx.set(getattr(bus, f"{letters}addr"), number * 256)
            ctx.set(getattr(bus, f"{letters}len"), 31)
            ctx.set(getattr(bus, f"{letters}valid"), 1)
            await ctx.tick().until(getattr(bus, f"{letters}ready"))
        ctx.set(getattr(bus, f"{letters}valid"), 0)

    async def write_addresses(ctx):
        await addresses(ctx, bus_w, "aw")

    async def write_data(ctx):
        ctx.set(bus_w.bready, 1)
        ctx.set(bus_w.wstrb, 0xFF)
        ctx.set(bus_w.wvalid, 1)
        for number in range(256):
            ctx.set(bus_w.wdata, number * 0x0101)
            ctx.set(bus_w.wlast, number % 32 == 31)
            await ctx.tick().until(bus_w.wready)
        ctx.set(bus_w.wvalid, 0)
        await addresses(ctx, bus_r, "ar")

    async def count_writes(ctx):
        cycles = await beats(ctx, bus_w.wvalid, bus_w.wready, bus_w.wlast, 8)
        assert cycles < 256 + 8 * 12, cycles  # a port changes banks only when the last bank has done

    async def count_reads(ctx):
        ctx.set(bus_r.rready, 1)
        await ctx.tick().until(bus_r.rvalid)
        cycles = await beats(ctx, bus_r.rvalid, bus_r.rready, bus_r.rlast, 8)
        assert cycles < 256 + 8 * 12, cycles

    run_bench(dut, write_addresses, write_data, count_writes, count_reads, background=[memory.run], max_cycles=2000)
    assert memory.bytes[: 256 * 8] == b"".join((n * 0x0101).to_bytes(8, "little") for n in range(256))


def test_a_host_that_gives_up_hears_nothing_later(rng):
    """A bus that lost patience drops its request: the next one gets its own answer."""
    dut = DramMemory(SIZE)
    memory = controller(dut, rng, ready={HOST: 0.2})
    port = dut.wishbone

    async def bench(ctx):
        for number in range(20):
            await host_access(ctx, port, 16 * number, data=0x1000 + number)
        for number in range(20):
            ctx.set(port.adr, 400)
            ctx.set(port.cyc, 1)
            ctx.set(port.stb, 1)
            for _ in range(number):
                await ctx.tick()
                if ctx.get(port.ack):
                    break
            ctx.set(port.cyc, 0)
            await ctx.tick()
            assert await host_access(ctx, port, 16 * number) == 0x1000 + number

    run_bench(dut, bench, background=[memory.run], max_cycles=20_000)


@pytest.mark.parametrize("size", [0, 2048, 5000])
def test_sizes_that_cannot_be(size):
    with pytest.raises(ValueError, match="power of two"):
        DramMemory(size)
