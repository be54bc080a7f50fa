"""Burst splitter and request arbiter against a reference in Python."""

import random

import pytest

from tests.configs import JUMBO
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.burst import BurstSplitter
from tiptoe_hdl.host.request_arbiter import RequestArbiter
from tiptoe_verif.streams import STREAM_CASES, exercise_stream, recv_n, run_bench, send_all


def reference_bursts(addr, length, wrap_log2, step):
    """(address, words) of the bursts of one request: as few as the rules allow."""
    words = (addr % step + length + step - 1) // step
    at = addr - addr % step
    ring = 1 << wrap_log2 if wrap_log2 else 0
    if ring:
        ring = max(ring, step)
    bursts = []
    while words:
        room = (4096 - at % 4096) // step
        if ring:
            room = min(room, (ring - at % ring) // step)
        count = min(words, room, 256)
        bursts.append((at, count))
        words -= count
        at += count * step
        if ring and at % ring == 0:
            at -= ring
    return bursts


def requests_and_bursts(rng, width, addr_width, count, clients=3, most=4095):
    step = width // 8
    items, expected = [], []
    for _ in range(count):
        wrap = rng.choice([0, 0, 0, 5, 6, 8, 10, 11, 12, 13, 16, 24, 31])
        length = rng.choice([1, 2, step, step + 1, 64, rng.randint(1, most), most, 1460])
        near = rng.choice([0, 1 << 12, 1 << (wrap or 12), rng.getrandbits(addr_width)])
        addr = (rng.getrandbits(addr_width) & -(1 << max(12, wrap or 0))) + near - rng.randint(0, 300)
        addr %= 1 << addr_width
        if not wrap and addr + most >> addr_width:
            addr -= 2 * (most + 1)
        client = rng.randrange(clients)
        items.append({"request": {"addr": addr, "length": length, "wrap_log2": wrap}, "client": client})
        bursts = reference_bursts(addr, length, wrap, step)
        for index, (at, words) in enumerate(bursts):
            expected.append({
                "addr": at, "len": words - 1, "first": int(index == 0), "last": int(index == len(bursts) - 1),
                "first_lane": addr % step, "last_lane": (addr + length - 1) % step, "client": client,
            })  # fmt: skip
    return items, expected


@pytest.mark.parametrize("width, addr_width", [(32, 32), (64, 32), (64, 64), (128, 40)])
def test_bursts_of_random_requests(width, addr_width, rng):
    dut = BurstSplitter(TINY.with_(data_width=width, addr_width=addr_width), 3)
    exercise_stream(dut, *requests_and_bursts(rng, width, addr_width, 250))


@pytest.mark.parametrize("width", [32, 64, 128, 256])
def test_bursts_of_long_requests(width, rng):
    """Across several pages, with and without a ring's end."""
    dut = BurstSplitter(JUMBO.with_(data_width=width), 3)
    exercise_stream(dut, *requests_and_bursts(rng, width, 64, 60, most=(1 << JUMBO.length_bits) - 1))


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_bursts_under_idle_and_backpressure(idle, stall, rng):
    dut = BurstSplitter(TINY.with_(data_width=64, addr_width=48), 3)
    exercise_stream(dut, *requests_and_bursts(rng, 64, 48, 30), idle=idle, stall=stall)


@pytest.mark.parametrize("clients", [1, 2, 3, 5])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_arbiter_is_fair_and_keeps_order(clients, stall, rng):
    dut = RequestArbiter(TINY, clients)
    each = 40
    requests = [
        [{"addr": rng.getrandbits(32), "length": n + 1, "wrap_log2": k} for n in range(each)] for k in range(clients)
    ]
    got = []

    async def drain(ctx):
        ctx.set(dut.allow, -1)
        got.extend(await recv_n(ctx, dut.o, clients * each, stall=stall, rng=random.Random(7)))

    def sender(k):
        async def send(ctx):
            await send_all(ctx, dut.request[k], requests[k])

        return send

    run_bench(dut, drain, *(sender(k) for k in range(clients)))
    for k in range(clients):
        assert [one["request"] for one in got if one["client"] == k] == requests[k]
    # All ask all the time: everyone gets exactly every n-th place.
    order = [one["client"] for one in got]
    assert all(sorted(order[at : at + clients]) == list(range(clients)) for at in range(len(order) - clients))


def test_arbiter_passes_over_a_client_not_allowed():
    dut = RequestArbiter(TINY, 3)

    async def bench(ctx):
        ctx.set(dut.allow, 0b101)
        for k in range(3):
            ctx.set(dut.request[k].valid, 1)
        clients = {one["client"] for one in await recv_n(ctx, dut.o, 10)}
        assert clients == {0, 2}
        assert not ctx.get(dut.request[1].ready)

    run_bench(dut, bench)
