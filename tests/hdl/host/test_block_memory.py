"""Host memory in block memory: both sides at once against a model, bursts outside, no word read while it is written."""

import random

import pytest

from tests.hdl.host.memory_bench import Master, host_access, write_and_read_behind
from tiptoe_hdl.host.axi import Response
from tiptoe_hdl.host.block_memory import BlockMemory
from tiptoe_verif.streams import run_bench

SIZE = 4096


def never_meets(dut, seen):
    """Fails when a word is read for the engine in the cycle in which it is written; counts how often it had to wait."""

    async def check(ctx):
        async for _, _, goes, meets in ctx.tick().sample(dut.goes, dut.meets):
            assert not (goes and meets)
            seen[0] += meets

    return check


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_both_sides_at_once(stall, rng):
    """The engine writes, and reads a burst behind, in the lower half; the host does in the upper one, and reads at random below:
    the two meet again and again, and every word is what was written last."""
    dut = BlockMemory(SIZE)
    master = Master(dut, random.Random(rng.getrandbits(32)), 0, SIZE // 2, SIZE)
    host_rng, host_model = random.Random(rng.getrandbits(32)), bytearray(SIZE)
    traffic = write_and_read_behind(master, 150, stall)

    async def host(ctx):
        for _ in range(600):
            address = host_rng.randrange(SIZE // 8, SIZE // 4) * 4
            kind = host_rng.random()
            if kind < 0.4:
                data, select = host_rng.getrandbits(32), host_rng.choice((0xF, 0x3, 0x8))
                await host_access(ctx, dut.wishbone, address, data=data, select=select)
                for lane in range(4):
                    if select >> lane & 1:
                        host_model[address + lane] = data >> 8 * lane & 0xFF
            elif kind < 0.8:
                word = await host_access(ctx, dut.wishbone, address)
                assert word == int.from_bytes(host_model[address : address + 4], "little")
            else:
                await host_access(ctx, dut.wishbone, ctx.get(dut.s_axi_write.awaddr) & SIZE // 2 - 4)

    meetings = [0]
    run_bench(dut, *traffic, host, background=[never_meets(dut, meetings)], max_cycles=40_000)
    assert meetings[0]


def test_a_burst_outside_changes_nothing():
    """DECERR for each of its words, and the words at the same place inside stay."""
    dut = BlockMemory(SIZE)
    master = Master(dut, random.Random(1), 0, SIZE, SIZE)

    async def bench(ctx):
        assert await master.write(ctx, 64, 4) == Response.OKAY
        assert await master.write(ctx, SIZE + 64, 4) == Response.DECERR
        data, responses = await master.read(ctx, 64, 4)
        assert (data, responses) == (bytes(master.model[64:96]), {Response.OKAY})
        _, responses = await master.read(ctx, SIZE + 64, 3)
        assert responses == {Response.DECERR}
        _, responses = await master.read(ctx, 1 << 31, 1)
        assert responses == {Response.DECERR}

    run_bench(dut, bench, max_cycles=500)


def test_a_long_burst_has_a_word_a_cycle():
    dut = BlockMemory(SIZE)

    async def bench(ctx):
        bus = dut.s_axi_read
        ctx.set(bus.arlen, 99)
        ctx.set(bus.arvalid, 1)
        ctx.set(bus.rready, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        cycles = 0
        while True:
            _, _, valid, last = await ctx.tick().sample(bus.rvalid, bus.rlast)
            cycles += 1
            if valid and last:
                break
        assert cycles == 100 + 4

    run_bench(dut, bench, max_cycles=500)


@pytest.mark.parametrize("size", [0, 2048, 5000])
def test_sizes_that_cannot_be(size):
    with pytest.raises(ValueError, match="power of two"):
        BlockMemory(size)
