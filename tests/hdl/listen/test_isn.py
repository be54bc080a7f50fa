"""Initial sequence numbers against SipHash-2-4 in Python, and that against the published test vectors."""

import random

import pytest

from tests.hdl.listen.siphash_model import initial_sequence, siphash24
from tests.hdl.table_model import four_tuple, random_tuple
from tiptoe_hdl.config import TINY
from tiptoe_hdl.listen.isn import IsnGenerator
from tiptoe_verif.streams import (
    STREAM_CASES,
    expect_empty,
    recv_n,
    run_bench,
    send_all,
    stream_get,
    stream_put,
    watch_stream,
)

# Message 00 01 02 ..., key 00 01 ... 0f: from the reference implementation (lengths 0 to 15) and the paper (15).
VECTORS = """
310e0edd47db6f72 fd67dc93c539f874 5a4fa9d909806c0d 2d7efbd796666785 b7877127e09427cf 8da699cd64557618
cee3fe586e46c9cb 37d1018bf50002ab 6224939a79f5f593 b0e4a90bdf82009e f3b9dd94c5bb5d7a a7ad6b22462fb3f4
fbe50e86bc8f1e75 903d84c02756ea14 eef27a8e90ca23f7 e545be4961ca29a1
""".split()


@pytest.mark.parametrize("length", range(16))
def test_model_gives_published_vectors(length):
    assert siphash24(bytes(range(16)), bytes(range(length))).to_bytes(8, "little").hex() == VECTORS[length]


def run_isn(dut, *benches, key, clock=0, max_cycles=20_000):
    async def setup(ctx):
        ctx.set(dut.isn_key, key)
        ctx.set(dut.isn_clock, clock)

    run_bench(dut, setup, *benches, background=[watch_stream(iss, "iss") for iss in dut.iss], max_cycles=max_cycles)


@pytest.mark.parametrize("clock", [0, 1, 0xFFFFFFFF])
def test_published_vector_plus_clock(clock):
    """The tuple whose bytes are 00 to 0b."""
    dut = IsnGenerator(TINY)
    tuple_ = four_tuple(0x03020100, 0x07060504, 0x0908, 0x0B0A)
    got = []

    async def bench(ctx):
        await stream_put(ctx, dut.request[1], tuple_)
        got.append(await stream_get(ctx, dut.iss[1]))

    run_isn(dut, bench, key=int.from_bytes(bytes(range(16)), "little"), clock=clock)
    assert got == [0x860EE5FB + clock & 0xFFFFFFFF]


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_two_clients(idle, stall, rng):
    """Each client gets the answers to its own requests, in order."""
    dut = IsnGenerator(TINY)
    key, clock = rng.getrandbits(128), rng.getrandbits(32)
    tuples = [[random_tuple(rng) for _ in range(8)] for _ in range(2)]

    def send(number):
        async def bench(ctx):
            await send_all(ctx, dut.request[number], tuples[number], idle=idle, rng=random.Random(number))

        return bench

    def take(number):
        async def bench(ctx):
            got = await recv_n(ctx, dut.iss[number], 8, stall=stall, rng=random.Random(number + 2))
            assert got == [initial_sequence(key, clock, tuple_) for tuple_ in tuples[number]]
            await expect_empty(ctx, dut.iss[number], cycles=60)

        return bench

    run_isn(dut, send(0), send(1), take(0), take(1), key=key, clock=clock)


@pytest.mark.parametrize("patient", [0, 1])
def test_latency_and_fair_turns(patient, rng):
    """At most 42 cycles for a number, and turn by turn while the other client asks without pause."""
    dut = IsnGenerator(TINY)
    taken = []

    async def greedy(ctx):
        ctx.set(dut.request[1 - patient].payload, random_tuple(rng))
        ctx.set(dut.request[1 - patient].valid, 1)
        ctx.set(dut.iss[1 - patient].ready, 1)

    async def bench(ctx):
        await ctx.tick().repeat(100)
        ctx.set(dut.request[patient].payload, random_tuple(rng))
        ctx.set(dut.request[patient].valid, 1)
        ctx.set(dut.iss[patient].ready, 1)
        for cycle in range(400):
            _, _, valid = await ctx.tick().sample(dut.iss[patient].valid)
            if valid:
                taken.append(cycle)

    run_isn(dut, greedy, bench, key=1)
    gaps = [after - before for before, after in zip(taken, taken[1:], strict=False)]
    assert len(gaps) >= 3 and max(gaps) <= 2 * 42, gaps
