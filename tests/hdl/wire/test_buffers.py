"""Skid buffer and queue: order, capacity, full rate, under idle and backpressure."""

import pytest
from amaranth.lib import data

from tiptoe_hdl.wire.half_buffer import HalfBuffer
from tiptoe_hdl.wire.queue import HalfQueue, Queue
from tiptoe_hdl.wire.skid import SkidBuffer
from tiptoe_verif.streams import STREAM_CASES, exercise_stream, run_bench

BUFFERS = [
    pytest.param(lambda shape: SkidBuffer(shape), id="skid"),
    pytest.param(lambda shape: HalfBuffer(shape), id="half"),
    pytest.param(lambda shape: Queue(shape, 4), id="queue4"),
    pytest.param(lambda shape: Queue(shape, 16), id="queue16"),
    pytest.param(lambda shape: HalfQueue(shape, 4), id="half_queue4"),
    pytest.param(lambda shape: HalfQueue(shape, 16), id="half_queue16"),
]


@pytest.mark.parametrize("make", BUFFERS)
@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_passes_everything_in_order(make, idle, stall, rng):
    shape = data.StructLayout({"a": 16, "b": 1})
    items = [{"a": rng.getrandbits(16), "b": rng.getrandbits(1)} for _ in range(300)]
    exercise_stream(make(shape), items, items, idle=idle, stall=stall)


@pytest.mark.parametrize("make, capacity, period", [
    (lambda: SkidBuffer(8), 2, 1), (lambda: Queue(8, 4), 4, 1), (lambda: Queue(8, 8), 8, 1),
    (lambda: HalfBuffer(8), 1, 2), (lambda: HalfQueue(8, 8), 8, 2),
])  # fmt: skip
def test_capacity_and_rate(make, capacity, period):
    """Full, it gives a transfer every ``period`` cycles, no more and no less."""
    dut = make()

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        taken = 0
        for _ in range(30):
            ctx.set(dut.i.payload, taken)
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            taken += ready
        assert taken == capacity
        ctx.set(dut.o.ready, 1)
        for cycle in range(100):
            ctx.set(dut.i.payload, taken % 256)
            _, _, ready, valid, payload = await ctx.tick().sample(dut.i.ready, dut.o.valid, dut.o.payload)
            taken += ready
            assert valid == (cycle % period == 0)
            assert not valid or payload == cycle // period

    run_bench(dut, bench)


@pytest.mark.parametrize("depth", [0, 1, 2, 12, 128])
def test_queue_depth_checked(depth):
    with pytest.raises(ValueError, match="depth must be a power of two from 4 to 64"):
        Queue(8, depth)
