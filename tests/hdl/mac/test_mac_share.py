"""Two stations on one MAC: who hears what, and whole frames of both in turn."""

import random

import pytest

from tests.hdl.mac.test_frame_queue import beats, out
from tiptoe_hdl.config import TINY
from tiptoe_hdl.mac.mac_share import MacShare
from tiptoe_verif.streams import run_bench

ADDRESS = 0x10E2_D500_0001
OURS, EVERYBODY, ENGINES = ADDRESS.to_bytes(6, "big"), b"\xff" * 6, bytes.fromhex("020000000002")
NEARLY = (ADDRESS ^ 1).to_bytes(6, "big")


async def send(ctx, port, items, rng, idle=0.0):
    """Give beats to an AXI4-Stream."""
    for item in items:
        while rng.random() < idle:
            await ctx.tick()
        for name, value in item.items():
            if name != "error":
                ctx.set(getattr(port, f"t{name}"), value)
            elif hasattr(port, "tuser"):
                ctx.set(port.tuser, value)
        ctx.set(port.tvalid, 1)
        await ctx.tick().until(port.tready)
        ctx.set(port.tvalid, 0)


async def receive(ctx, port, count, rng, stall=0.0):
    """Take beats."""
    taken = []
    while len(taken) < count:
        ctx.set(port.tready, rng.random() >= stall)
        _, _, valid, ready, *values = await ctx.tick().sample(
            port.tvalid, port.tready, port.tdata, port.tkeep, port.tlast
        )
        if valid and ready:
            taken.append(dict(zip(("data", "keep", "last"), values, strict=True)))
    ctx.set(port.tready, 0)
    return taken


def test_who_hears_what(rng):
    """The engine hears all, damaged ones marked; the neighbour what is for it or for everybody, without the damaged."""
    dut = MacShare(TINY, 256)
    frames = [(rng.choice((OURS, EVERYBODY, ENGINES, NEARLY)), rng.random() < 0.2) for _ in range(40)]
    sent, host = [], []
    for target, damaged in frames:
        frame = target + rng.randbytes(rng.choice((54, 55, 61, 200)))
        sent += beats(frame, 64, error=int(damaged))
        if target in (OURS, EVERYBODY) and not damaged:
            host += out(frame, 64)
    heard = []

    async def source(ctx):
        ctx.set(dut.address, ADDRESS)
        await send(ctx, dut.mac_rx, sent, random.Random(1), idle=0.1)
        await ctx.tick().repeat(5)

    async def neighbour(ctx):
        assert await receive(ctx, dut.host_rx, len(host), random.Random(2), stall=0.2) == host

    async def engine(ctx):
        port = dut.engine_rx
        async for _, _, valid, data, keep, last, user in ctx.tick().sample(
            port.tvalid, port.tdata, port.tkeep, port.tlast, port.tuser
        ):
            if valid:
                heard.append({"data": data, "keep": keep, "last": last, "error": user & last})

    run_bench(dut, source, neighbour, background=[engine])
    assert heard == sent


def test_a_slow_neighbour_loses_whole_frames(rng):
    """It takes nothing for a while: what found no room is counted, the rest is whole and in order."""
    dut = MacShare(TINY, 256)
    frames = [OURS + rng.randbytes(994) for _ in range(5)]  # 125 beats each: two find room

    async def bench(ctx):
        ctx.set(dut.address, ADDRESS)
        await send(ctx, dut.mac_rx, [item for frame in frames for item in beats(frame, 64)], random.Random(1))
        await ctx.tick().repeat(3)
        assert ctx.get(dut.host_dropped) == 3
        expected = [item for frame in frames[:2] for item in out(frame, 64)]
        assert await receive(ctx, dut.host_rx, len(expected), random.Random(2)) == expected

    run_bench(dut, bench)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_frames_of_both_in_turn(stall, rng):
    """Whole frames, each station's in order; with both waiting they alternate."""
    dut = MacShare(TINY, 256)
    stations = {
        0: [rng.randbytes(rng.randrange(60, 300)) for _ in range(12)],
        1: [rng.randbytes(64) for _ in range(12)],
    }
    total = sum(len(beats(frame, 64)) for frames in stations.values() for frame in frames)
    order = []

    def source(number, port):
        async def give(ctx):
            for frame in stations[number]:
                await send(ctx, port, out(frame, 64), random.Random(number))

        return give

    async def mac(ctx):
        taken = await receive(ctx, dut.mac_tx, total, random.Random(9), stall=stall)
        left = {number: list(frames) for number, frames in stations.items()}
        while taken:
            length = next(n for n, item in enumerate(taken, 1) if item["last"])
            frame, taken = taken[:length], taken[length:]
            sender = next(number for number, frames in left.items() if frames and out(frames[0], 64) == frame)
            left[sender].pop(0)
            order.append(sender)
        assert not any(left.values())

    run_bench(dut, source(0, dut.engine_tx), source(1, dut.host_tx), mac)
    assert all(first != second for first, second in zip(order[1:17], order[2:18], strict=True))


def test_narrow_streams_are_refused():
    with pytest.raises(ValueError, match="64 bits"):
        MacShare(TINY.with_(data_width=32))
