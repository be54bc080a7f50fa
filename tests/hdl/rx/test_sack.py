"""SACK blocks and timestamps of received segments, in cycles (RFC 2018 section 3, RFC 7323 section 3)."""

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
    (b"\xfe\x04\0\0" + STAMPS, []),
    (sack(BLOCKS[0]) + b"\xfe\x04\0\0" + STAMPS, BLOCKS[:1]),
    (sack(BLOCKS[0]) + STAMPS[2:] + b"\x01\x01", BLOCKS[:1]),
    (sack(*BLOCKS[:3]) + STAMPS, BLOCKS[:3]),
    (STAMPS[:8], []),
    (STAMPS + STAMPS[:4] + bytes(8), []),
    (sack(length=2), []),
    (sack(*BLOCKS[:2], length=17), []),  # no number of blocks
    (sack(*BLOCKS[:2], length=34), BLOCKS[:2]),  # goes beyond the header
    (sack(BLOCKS[0], length=18) + BLOCKS[1][0].to_bytes(4, "big"), BLOCKS[:1]),
    (b"\x00" * 4 + sack(BLOCKS[0]), []),  # behind the end of options
    (sack(BLOCKS[0]) + sack(BLOCKS[1]), BLOCKS[:1]),  # a second one
    (STAMPS[:4] + b"\x01\x01\x05\x0a" + bytes(4), []),  # what looks like one within the timestamps
]


def bare(*blocks):
    """The option without no operations."""
    return sack(*blocks)[2:]


ODD = [
    *((b"\x01" * before + bare(*BLOCKS[:count]), BLOCKS[:count]) for count in range(1, 5) for before in range(4)),
    *((b"\x08\x0a" + bytes(range(8)) + b"\x01" * before + bare(*BLOCKS[:2]), BLOCKS[:2]) for before in range(4)),
    (bare(*BLOCKS[:2]) + b"\x01" * 2 + STAMPS, BLOCKS[:2]),
    (b"\x1e\x05abc" + bare(BLOCKS[0]), BLOCKS[:1]),  # behind an option that is not known
    (b"\x13\x12" + b"\x05\x0a" * 8 + bare(BLOCKS[1]), BLOCKS[1:2]),  # behind one that looks like it
    (b"\x01" + bare(BLOCKS[0]) + bare(BLOCKS[1]) + b"\x01" * 3, BLOCKS[:1]),  # a second one
    (b"\x05\x0b" + bytes(9) + b"\x01", []),  # no number of blocks
    (b"\x05\x02\x05\x0a" + bytes(range(8)), [(0x00010203, 0x04050607)]),
    (b"\x01\x05\x12" + bare(*BLOCKS[:2])[2:11] + bytes(0), BLOCKS[:1]),  # goes beyond the header
    (b"\x01\x01\x01\x05", []),  # its length, too
    (b"\x01\x00" + bare(BLOCKS[0]), []),  # behind the end of options
    (b"\x1e\x01" + bare(BLOCKS[0]), []),  # behind a length that cannot be
]
"""Any order and alignment is permitted (RFC 2018 section 3)."""
LAYOUTS += [(options + b"\0" * (-len(options) % 4), blocks) for options, blocks in ODD if len(options) <= 40]


def reference(options):
    """Blocks of the first SACK option, read byte by byte."""
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        if at + 1 == len(options) or not 2 <= options[at + 1] < 64:
            break
        size = options[at + 1]
        if options[at] == 5 and size in (10, 18, 26, 34):
            octets = options[at + 2 : at + size]
            edges = [int.from_bytes(octets[k : k + 4], "big") for k in range(0, len(octets) & ~7, 4)]
            return list(zip(edges[::2], edges[1::2], strict=True))
        at += size
    return []


def random_options(rng):
    """Full of what could be options."""
    length = 4 * rng.randrange(1, 11)
    octets = b""
    while len(octets) < length:
        octets += rng.choice([
            b"\x01", b"\x01\x01", STAMPS, STAMPS[2:], bare(*rng.sample(BLOCKS, rng.randrange(1, 4))), b"\x05\x0a",
            sack(*rng.sample(BLOCKS, rng.randrange(1, 3))), b"\x1e\x03\x05", b"\x05\x02", rng.randbytes(1),
        ])  # fmt: skip
    return octets[:length]


def test_layouts_are_right():
    assert all(reference(options) == blocks for options, blocks in LAYOUTS)


def test_blocks_are_found_wherever_they_stand_in_random_options(rng):
    options = [random_options(rng) for _ in range(600)]
    assert sum(bool(reference(one)) for one in options) > 200
    exercise(64, 0, [(one, reference(one)) for one in options], [rng.randrange(2)])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("late", [0, 1, 20], ids=lambda late: f"taken after {late}")
def test_blocks_are_found_wherever_they_stand(width, late):
    exercise(width, late, LAYOUTS, range(width // 32))


def exercise(width, late, layouts, lanes):
    """Walk through all, in each of the lanes: the blocks come, in time."""
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
        for options, blocks in layouts:
            for lane in lanes:
                count, cycles, between = await walk(ctx, dut, width, options, lane)
                assert count == len(blocks), options.hex()
                stamps = to_py(ctx.get(dut.stamps))
                wanted = find_stamps(options)
                assert stamps["ts_present"] == wanted["ts_present"], options.hex()
                assert not stamps["ts_present"] or stamps == wanted
                assert cycles <= len(options) // 4 + 13 + 80 * bool(late), (options.hex(), cycles)
                assert between <= (3 if not late else 100)
                expected.extend(blocks)
        for _ in range(40 * (late + 2)):
            await ctx.tick()
        assert found == expected

    run_bench(dut, bench, background=[take, watch], max_cycles=60_000)
