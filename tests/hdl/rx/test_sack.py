"""SACK blocks of received segments, in cycles (RFC 2018 section 3)."""

import pytest

from tests.hdl.rx.reference import find_stamps
from tests.hdl.rx.test_options import walk
from tests.widths import WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.rx.sack_walker import SackWalker
from tiptoe_verif.streams import run_bench, to_py

STAMPS = b"\x01\x01\x08\x0a" + bytes(range(8))
BLOCKS = [(0x0000_0005, 0x0102_0304), (0xFFFF_FF00, 0x0000_0010), (0x7FFF_FFFF, 0x8000_0000), (1, 2)]


def sack(*blocks, length=None):
    """The option with its two no operations."""
    octets = b"".join(edge.to_bytes(4, "big") for block in blocks for edge in block)
    return b"\x01\x01\x05" + bytes([len(octets) + 2 if length is None else length]) + octets


# (options, blocks found)
LAYOUTS = [
    *((sack(*BLOCKS[:count]), BLOCKS[:count]) for count in range(1, 5)),
    *((STAMPS + sack(*BLOCKS[:count]), BLOCKS[:count]) for count in range(1, 4)),
    (b"\x01" * 4 + sack(*BLOCKS[:3]), BLOCKS[:3]),
    (sack(*BLOCKS[:2]) + STAMPS, BLOCKS[:2]),
    (STAMPS, []),
    (b"\x01" * 40, []),
    (b"\xfe\x04\0\0" + STAMPS, []),  # where options begin is not known any more
    (sack(*BLOCKS[:3]) + STAMPS, BLOCKS[:3]),
    (STAMPS[:8], []),
    (STAMPS + STAMPS[:4] + bytes(8), []),
    (sack(length=2), []),
    (sack(*BLOCKS[:2], length=17), []),  # no number of blocks
    (sack(*BLOCKS[:2], length=34), BLOCKS[:2]),  # goes beyond the header
    (sack(BLOCKS[0], length=18) + BLOCKS[1][0].to_bytes(4, "big"), BLOCKS[:1]),
    (b"\x05\x0a" + bytes(8) + b"\x01\x01", []),  # another layout
    (b"\x00" * 4 + sack(BLOCKS[0]), []),  # behind the end of options
    (sack(BLOCKS[0]) + sack(BLOCKS[1]), BLOCKS[:1]),  # a second one
    (STAMPS[:4] + b"\x01\x01\x05\x0a" + bytes(4), []),  # what looks like one within the timestamps
]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("late", [0, 1, 20], ids=lambda late: f"taken after {late}")
def test_blocks_are_found_in_the_layouts_that_stacks_use(width, late):
    dut = SackWalker(TINY.with_(data_width=width))
    found, expected = [], []

    async def take(ctx):
        while True:
            for _ in range(late):
                await ctx.tick()
            ctx.set(dut.block.ready, 1)
            await ctx.tick().until(dut.block.valid & dut.block.ready)
            ctx.set(dut.block.ready, 0)

    async def watch(ctx):
        async for _, _, valid, ready, start, end in ctx.tick().sample(
            dut.block.valid, dut.block.ready, dut.block.payload.start, dut.block.payload.end
        ):
            if valid and ready:
                found.append((start, end))

    async def bench(ctx):
        for options, blocks in LAYOUTS:
            for lane in range(width // 32):
                count, cycles, between = await walk(ctx, dut, width, options, lane)
                assert count == len(blocks), options.hex()
                stamps = to_py(ctx.get(dut.stamps))
                wanted = find_stamps([options[at : at + 4] for at in range(0, len(options), 4)])
                assert stamps["ts_present"] == wanted["ts_present"], options.hex()
                assert not stamps["ts_present"] or stamps == wanted
                assert cycles <= len(options) // 4 + 7 + 80 * bool(late), (options.hex(), cycles)
                assert between <= (3 if not late else 100)
                expected.extend(blocks)
        for _ in range(40 * (late + 2)):
            await ctx.tick()
        assert found == expected

    run_bench(dut, bench, background=[take, watch], max_cycles=60_000)
