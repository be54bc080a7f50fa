"""Realigner: every pair of offsets, every length class, against bytes moved by hand."""

import random

import pytest

from tests.configs import JUMBO
from tests.widths import WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.wire.realign import Realigner
from tiptoe_verif.streams import STREAM_CASES, expect_empty, recv_n, run_bench, send_all, watch_stream


def words_of(data: bytes, offset: int, step: int, rng: random.Random) -> list[int]:
    """The bytes as words, the first at lane ``offset``, rubbish around them."""
    whole = rng.randbytes(offset) + data
    whole += rng.randbytes(-len(whole) % step)
    return [int.from_bytes(whole[at : at + step], "little") for at in range(0, len(whole), step)]


def expected_words(data: bytes, offset: int, step: int) -> list[dict[str, int]]:
    """What the realigner must give: zero in every lane that keep leaves out."""
    whole = bytes(offset) + data
    keep = [0] * offset + [1] * len(data)
    tail = -len(whole) % step
    whole, keep = whole + bytes(tail), keep + [0] * tail
    return [
        {
            "data": int.from_bytes(whole[at : at + step], "little"),
            "keep": sum(bit << lane for lane, bit in enumerate(keep[at : at + step])),
            "last": int(at + step >= len(whole)),
        }
        for at in range(0, len(whole), step)
    ]


def exercise(width, transfers, rng, *, idle=0.0, stall=0.0, cfg=TINY):
    """Run (src_offset, dst_offset, length) transfers; return the cycles from the first output to the last."""
    dut = Realigner(cfg.with_(data_width=width))
    step = width // 8
    commands, inputs, outputs = [], [], []
    for src, dst, length in transfers:
        data = rng.randbytes(length)
        commands.append({"src_offset": src, "dst_offset": dst, "length": length})
        inputs += words_of(data, src, step, rng)
        outputs += expected_words(data, dst, step)
    span = []
    seeds = [rng.getrandbits(32) for _ in range(3)]

    async def command(ctx):
        await send_all(ctx, dut.cmd, commands, idle=idle, rng=random.Random(seeds[0]))

    async def feed(ctx):
        await send_all(ctx, dut.i, inputs, idle=idle, rng=random.Random(seeds[1]))
        # A word too many stays at the door.
        ctx.set(dut.i.valid, 1)
        async for _, _, ready in ctx.tick().sample(dut.i.ready):
            assert not ready, "took a word that belongs to no transfer"

    async def drain(ctx):
        got = await recv_n(ctx, dut.o, len(outputs), stall=stall, rng=random.Random(seeds[2]))
        for index, (one, other) in enumerate(zip(got, outputs, strict=True)):
            assert one == other, f"word {index}: got {one}, expected {other}"
        ctx.set(dut.o.ready, 1)
        await expect_empty(ctx, dut.o)

    async def clock(ctx):
        cycle = 0
        async for _, _, valid, ready in ctx.tick().sample(dut.o.valid, dut.o.ready):
            cycle += 1
            if valid and ready:
                span.append(cycle)

    limit = 200 + int(20 * (len(inputs) + len(outputs) + len(commands)) / (1 - max(idle, stall)))
    run_bench(
        dut,
        command,
        drain,
        background=[feed, clock, watch_stream(dut.o, "o")],
        max_cycles=limit,
        key=repr((cfg, width)),
    )
    return span[-1] - span[0] + 1


@pytest.mark.parametrize("width", WIDTHS)
def test_all_offsets_and_short_lengths(width, rng):
    step = width // 8
    lengths = range(1, 2 * step + 2)
    transfers = [(s, d, n) for s in range(step) for d in range(step) for n in lengths]
    rng.shuffle(transfers)
    exercise(width, transfers[:1100], rng)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_idle_and_backpressure(width, idle, stall, rng):
    step = width // 8
    transfers = [(rng.randrange(step), rng.randrange(step), rng.randint(1, 5 * step)) for _ in range(60)]
    exercise(width, transfers, rng, idle=idle, stall=stall)


@pytest.mark.parametrize("width", WIDTHS)
def test_long_transfers(width, rng):
    step = width // 8
    lengths = [1459, 1460, 1461, 4094, 4095, 1]
    exercise(width, [(rng.randrange(step), rng.randrange(step), n) for n in lengths], rng)
    exercise(width, [(step - 1, 0, 4095), (0, step - 1, 4095), (step - 1, step - 1, 4095)], rng)
    lengths = [4096, 8960, 9014, 16383, 1]
    exercise(width, [(rng.randrange(step), rng.randrange(step), n) for n in lengths], rng, cfg=JUMBO)
    exercise(width, [(step - 1, 0, 16383), (0, step - 1, 16383)], rng, cfg=JUMBO)


@pytest.mark.parametrize("width", WIDTHS)
def test_throughput(width, rng):
    step = width // 8
    for src, dst in [(0, 0), (1, 1), (1, 3), (3, 1), (step - 1, 0)]:
        words = -(-(dst + 1460) // step)
        cycles = exercise(width, [(src, dst, 1460)] * 8, rng)
        print(f"width {width}: 8 x 1460 bytes, lane {src} to {dst}: {cycles} cycles, {8 * words} words")
        assert cycles <= 8 * words + (7 if dst < src else 0)
    cycles = exercise(width, [(rng.randrange(2), rng.randrange(2), 1) for _ in range(100)], rng)
    print(f"width {width}: 100 transfers of one word in {cycles} cycles")
    assert cycles <= 200
