"""Options of a SYN, walked through by themselves, in cycles (RFC 9293 section 3.2, MUST-4 to MUST-7; RFC 2018 section 2)."""

import itertools

import pytest

from tests.hdl.rx.reference import walk_options
from tests.widths import SLOW_TESTS_WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.rx.options import OptionWalker
from tiptoe_verif.streams import run_bench, to_py

MSS, SCALE = b"\x02\x04\x05\xb4", b"\x03\x03\x07"
BETWEEN = 3
"""Cycles at most from a result that is taken to the next command."""

# What takes longest: (name, 40 bytes)
WORST = [
    ("all nothing", b"\x01" * 40),
    ("nothing but the end", b"\x01" * 36 + MSS),
    ("unknown ones of two bytes", b"\xfe\x02" * 20),
    ("unknown ones of three bytes, each at another place in its word", b"\xfe\x03\xaa" * 12 + MSS),
    ("unknown ones of five bytes", b"\xfe\x05\x02\x04\x01" * 8),
    ("one of all", b"\xfe\x28" + MSS * 9 + b"\x03\x03"),
    ("one beyond all", b"\xfe\x29" + MSS * 9 + b"\x03\x03"),
    ("odd MSS again and again", b"\x01" + MSS * 9 + b"\x03\x03\x02"),
    ("two scales in a word", b"\x01" * 4 + SCALE + b"\x03\x03\x09" + b"\x01" * 30),
    ("usual but for the last word", MSS + b"\x01\x01\x04\x02" * 8 + b"\xfe\x04\x00\x00"),
    ("selective acknowledgements, of four blocks and a bit", b"\x01\x05\x22" + bytes(32) + b"\x01" + MSS),
]


async def walk(ctx, dut, width, options, lane, *, wait=0):
    """What is found, cycles from command to result, and from there to the next command."""
    step = width // 8
    memory = bytes(4 * lane) + options + MSS * 20  # what is behind the header are no options
    rows = [int.from_bytes(memory[at : at + step], "little") for at in range(0, 4 * lane + 40 + step, step)]
    read = 0

    async def tick():
        nonlocal read
        row = ctx.get(dut.row)
        await ctx.tick()
        ctx.set(dut.data, read)  # out of the flip-flops behind the memory
        read = rows[row] if row < len(rows) else 0

    ctx.set(dut.command.payload, {"lane": lane, "words": len(options) // 4})
    ctx.set(dut.command.valid, 1)
    while not ctx.get(dut.command.ready):
        await tick()
    await tick()
    ctx.set(dut.command.valid, 0)
    cycles = 1
    while not ctx.get(dut.o.valid):
        await tick()
        cycles += 1
        assert cycles < 100
    for _ in range(wait):
        await tick()
    found = to_py(ctx.get(dut.o.payload))
    ctx.set(dut.o.ready, 1)
    await tick()
    ctx.set(dut.o.ready, 0)
    between = 1
    while not ctx.get(dut.command.ready):
        await tick()
        between += 1
    return found, cycles, between


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_no_options_take_longer_than_a_cycle_a_word_and_ten(width):
    dut = OptionWalker(TINY.with_(data_width=width))
    taken = {}

    async def bench(ctx):
        for name, options in WORST:
            for lane in range(width // 32):
                found, cycles, between = await walk(ctx, dut, width, options, lane)
                assert found == walk_options(options), name
                assert cycles <= 10 + 10 and between <= BETWEEN, (name, cycles, between)
                taken[name] = cycles
        for name, cycles in taken.items():
            print(f"{cycles} cycles: {name}")
        for words in range(1, 11):  # the layouts of everyday
            found, cycles, between = await walk(ctx, dut, width, (MSS + b"\x01\x01\x04\x02" * 9)[: 4 * words], 0)
            assert found["mss"] == 1460 and cycles <= words + 5 and between <= BETWEEN

    run_bench(dut, bench, max_cycles=20_000)


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_any_bytes_are_walked_through_as_the_rfc_says_and_leave_nothing_behind(width, rng):
    """Options of known and unknown kinds and of all lengths, legal or not, one SYN right behind the other."""
    dut = OptionWalker(TINY.with_(data_width=width))
    parts = [
        MSS,
        SCALE,
        b"\x01",
        b"\x04\x02",
        b"\x08\x0a" + rng.randbytes(8),
        b"\x01\x01\x08\x0a" + rng.randbytes(8),
        b"\x08\x0b" + rng.randbytes(9),
        b"\x02\x04\x02\x18",
        b"\x03\x03\xff",
        b"\x02\x03\x04",
    ]

    def some():
        options = b""
        while len(options) < 40:
            unknown = bytes([rng.choice([2, 3, 5, 254]), rng.randrange(2, 12)]) + rng.randbytes(10)
            options += rng.choice([*parts, *parts, b"\x01" * rng.randrange(5), unknown[: max(2, unknown[1])]])
        if rng.random() < 0.3:
            at = rng.randrange(40)
            options = options[:at] + bytes([rng.choice([0, 1, 2, 3, 4, 41, 63, 64, 67, 255])]) + options[at + 1 :]
        return options[: 4 * rng.randrange(1, 11)]

    async def bench(ctx):
        for _ in range(400):
            options = some()
            lane = rng.randrange(width // 32)
            found, cycles, between = await walk(ctx, dut, width, options, lane, wait=rng.choice([0, 0, 1, 7]))
            assert found == walk_options(options), options.hex()
            assert cycles + between <= len(options) // 4 + 10 + BETWEEN

    run_bench(dut, bench, max_cycles=40_000)


def sack_layouts():
    """SACK-permitted (RFC 2018 section 2) among the options that a SYN may have: every order, with every option alone or padded
    as in RFC 7323 appendix A; and what only looks like it."""
    stamps = b"\x08\x0a\xff\xff\xff\xfe\x80\0\0\x05"
    options = {"MSS": b"\x02\x04\x05\xb4", "scale": b"\x03\x03\x07", "stamps": stamps, "SACK": b"\x04\x02"}
    paddings = {
        "close": lambda one: one,
        "padded in front": lambda one: b"\x01" * (-len(one) % 4) + one,
        "padded behind": lambda one: one + b"\x01" * (-len(one) % 4),
        "nothing in front": lambda one: b"\x01" + one,
    }
    layouts = {
        f"{', '.join(order)}, {padding}": b"".join(pad(options[name]) for name in order)
        for order in itertools.permutations(options)
        for padding, pad in paddings.items()
    }
    sack, nop = options["SACK"], b"\x01"
    return layouts | {
        **{f"SACK-permitted behind {at}": nop * at + sack for at in range(39)},
        "SACK-permitted cut off": nop * 7 + b"\x04",
        "SACK-permitted of length 3": b"\x04\x03\x02" + nop,
        "SACK-permitted of length 10": b"\x04\x0a" + sack * 4,
        "SACK-permitted of length 0": nop * 2 + b"\x04\0" + sack * 2,
        "SACK-permitted in another option": b"\xfe\x06" + sack * 2 + nop * 2,
        "SACK-permitted in the time stamps": nop * 2 + b"\x08\x0a" + nop * 2 + sack + sack + nop * 2,
        "SACK-permitted behind the end": nop * 3 + b"\0" + nop * 2 + sack,
        "SACK blocks": nop * 2 + b"\x05\x0a" + sack * 4,
        "SACK-permitted twice": sack * 2 + options["MSS"],
        **{f"stamps behind {at}": nop * at + stamps for at in range(31)},
        **{f"stamps behind {at}, and cut off": nop * at + stamps[: 40 - at] for at in range(31, 40)},
        "stamps of length 8": b"\x08\x08" + bytes(range(6)),
        "stamps twice": stamps + stamps[:2] + bytes(range(8)) + stamps,
        "stamps in another option": b"\xfe\x0e" + nop * 2 + stamps,
    }


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_sack_permitted_is_found_in_every_order_and_padding(width):
    dut = OptionWalker(TINY.with_(data_width=width))

    async def bench(ctx):
        seen = set()
        for name, options in sack_layouts().items():
            options += b"\0" * (-len(options) % 4)
            for lane in range(width // 32):
                found, _, _ = await walk(ctx, dut, width, options, lane)
                assert found == walk_options(options), name
                seen.add(found["sack_ok"])
        assert seen == {0, 1}

    run_bench(dut, bench, max_cycles=40_000)
