"""DMA reader on a memory with random latency, backpressure and errors; throughput in cycles."""

import random

import pytest

from tests.widths import SLOW_TESTS_WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.dma_read import DmaReader
from tiptoe_verif.axi_memory import AxiMemory
from tiptoe_verif.streams import expect_empty, recv_n, run_bench, send_all, watch_stream

BASE = 0x4000_0000
SIZE = 1 << 16


def word_addresses(request, step):
    """Bus addresses of the words of one transfer."""
    addr, wrap = request["addr"], request["wrap_log2"]
    count = (addr % step + request["length"] + step - 1) // step
    ring = 1 << wrap if wrap else 0
    base = addr & -ring if ring else 0
    first = addr - addr % step
    return [base + (first + n * step - base) % ring if ring else first + n * step for n in range(count)]


def random_requests(rng, count, lengths=None):
    """Transfers inside the memory, many of them at page and ring ends."""
    requests = []
    for _ in range(count):
        wrap = rng.choice([0, 0, 7, 11, 12, 13])
        length = rng.choice(lengths or [1, 2, 7, 8, 9, 63, 64, 65, 1460, rng.randint(1, 4095)])
        addr = BASE + (rng.randrange(1, 13) << 12) + rng.choice([0, rng.randrange(4096), -rng.randint(1, 40)])
        requests.append({"addr": addr, "length": length, "wrap_log2": wrap})
    return requests


def exercise(width, requests, rng, *, idle=0.0, stall=0.0, memory_stall=0.0, max_outstanding=16, **memory_options):
    """Let each client make its requests and compare all it gets; returns the memory, for figures."""
    cfg = TINY.with_(data_width=width, addr_width=40)
    dut = DmaReader(cfg, clients=len(requests), max_outstanding=max_outstanding)
    step = width // 8
    seed = rng.getrandbits(32)
    memory = AxiMemory(width, base=BASE, size=SIZE, rng=random.Random(seed), stall=memory_stall, **memory_options)
    errors = 0
    expected = []
    for mine in requests:
        words = []
        for request in mine:
            addresses = word_addresses(request, step)
            error = any(memory.is_bad(addr + lane) for addr in addresses for lane in range(step))
            errors += error
            for addr in addresses:
                last = addr is addresses[-1]
                word = {"data": int.from_bytes(memory.peek(addr, step), "little"), "last": int(last)}
                words.append({**word, "error": int(error)} if last else word)
        expected.append(words)

    def sender(k, seed):
        async def send(ctx):
            await send_all(ctx, dut.request[k], requests[k], idle=idle, rng=random.Random(seed))

        return send

    def receiver(k, seed):
        async def receive(ctx):
            got = await recv_n(ctx, dut.data[k], len(expected[k]), stall=stall, rng=random.Random(seed))
            for index, (one, other) in enumerate(zip(got, expected[k], strict=True)):
                if "error" not in other:
                    del one["error"]
                assert one == other, f"client {k}, word {index}: got {one}, expected {other}"
            ctx.set(dut.data[k].ready, 1)
            await expect_empty(ctx, dut.data[k])

        return receive

    async def counter(ctx):
        nonlocal errors
        async for _, _, pulse in ctx.tick().sample(dut.count_dma_read_error):
            errors -= pulse

    clients = range(len(requests))
    words = sum(map(len, expected))
    run_bench(
        dut,
        *(sender(k, rng.getrandbits(32)) for k in clients),
        *(receiver(k, rng.getrandbits(32)) for k in clients),
        background=[
            counter,
            *memory.testbenches(read=dut.axi),
            *(watch_stream(dut.data[k], f"data {k}") for k in clients),
        ],
        max_cycles=2000 + int((20 * words + 400 * sum(map(len, requests))) / (1 - max(idle, stall, memory.stall))),
    )
    assert errors == 0, f"{errors} errors not counted"
    assert len(memory.read_beats) == words, "words read that nobody asked for"
    return memory


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_random_transfers_of_three_clients(width, rng):
    exercise(width, [random_requests(rng, 8) for _ in range(3)], rng, latency=(1, 60), memory_stall=0.2)


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_every_offset_and_short_length(width, rng):
    step = width // 8
    requests = [
        {"addr": BASE + 0x2000 - 2 * step + offset, "length": length, "wrap_log2": 0}
        for offset in range(step) for length in (1, 2, step - 1, step, step + 1, 2 * step, 3 * step + 1)
    ]  # fmt: skip
    exercise(width, [requests], rng)


@pytest.mark.parametrize("idle, stall, memory_stall, latency", [
    (0, 0, 0, (1, 1)), (0.6, 0, 0, (1, 1)), (0, 0.6, 0, (1, 1)), (0, 0, 0.6, (1, 1)), (0.3, 0.3, 0.3, (1, 200)),
    (0, 0.9, 0, (160, 160)), (0, 0, 0.9, (1, 20)),
])  # fmt: skip
def test_idle_and_backpressure(idle, stall, memory_stall, latency, rng):
    requests = [random_requests(rng, 8, [1, 8, 30, 100, 300]) for _ in range(2)]
    exercise(64, requests, rng, idle=idle, stall=stall, latency=latency, memory_stall=memory_stall)


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_ring_wrap(width, rng):
    requests = [
        {"addr": BASE + (1 << log2 + 1) - before, "length": length, "wrap_log2": log2}
        for log2, before, length in [
            (12, 1, 2), (12, 7, 4095), (12, 4095, 4095), (13, 1460, 1461), (13, 731, 1460), (5, 3, 100), (6, 1, 4095),
        ]
    ]  # fmt: skip
    exercise(width, [requests], rng)


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_errors_mark_their_transfer_only(width, rng):
    requests = [random_requests(rng, 15, [1, 8, 100, 1000, 3000]) for _ in range(2)]
    bad = {rng.randrange(0x1000, 0xE000) // 64 for _ in range(40)}
    memory = exercise(
        width, requests, rng, latency=(1, 30), memory_stall=0.1, is_bad=lambda addr: (addr - BASE) // 64 in bad
    )
    assert any(
        memory.is_bad(burst.addr + n) for burst in memory.reads for n in range(0, burst.beats * width // 8, 4)
    ), "the seed met no bad word"


def utilisation(beats):
    return len(beats) / (beats[-1] - beats[0] + 1)


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_full_size_segments_fill_the_bus(width, rng):
    ring = 13
    requests = [
        {"addr": BASE + 0x2000 + (1 + 1460 * n) % (1 << ring), "length": 1460, "wrap_log2": ring} for n in range(12)
    ]
    memory = exercise(width, [requests], rng, latency=(160, 160))
    share = utilisation(memory.read_beats)
    print(f"\nread, width {width}: 1460-byte transfers at odd addresses, latency 160: {share:.1%} of the bus")
    assert share >= 0.97


@pytest.mark.parametrize("latency, max_outstanding, limit", [(10, 16, 3.2), (160, 64, 3.2), (160, 16, 10)])
def test_small_transfers(latency, max_outstanding, limit, rng):
    requests = [
        [{"addr": BASE + rng.randrange(0xE000), "length": 8, "wrap_log2": 0} for _ in range(60)] for _ in range(2)
    ]
    memory = exercise(64, requests, rng, latency=(latency, latency), max_outstanding=max_outstanding)
    cycles = (memory.read_beats[-1] - memory.read_beats[0]) / (len(memory.reads) - 1)
    print(f"\nread: transfers of 8 bytes, latency {latency}, {max_outstanding} in flight: {cycles:.2f} cycles each")
    assert cycles <= limit


def test_latency_of_one_word(rng):
    memory = exercise(64, [[{"addr": BASE, "length": 1, "wrap_log2": 0}]], rng, latency=(1, 1))
    print(f"\nread: {memory.reads[0].taken} cycles from request to address handshake")
    assert memory.reads[0].taken <= 5


def test_addresses_are_issued_ahead_but_not_too_far(rng):
    requests = [[{"addr": BASE + 64 * n, "length": 64, "wrap_log2": 0} for n in range(40)]]
    memory = exercise(64, requests, rng, latency=(1000, 1000))
    first_data = memory.read_beats[0]
    ahead = sum(burst.taken < first_data for burst in memory.reads)
    assert 16 <= ahead <= 17


def test_quiesce_lets_the_bus_come_to_rest(rng):
    dut = DmaReader(TINY)
    memory = AxiMemory(64, base=0, size=1 << 13, rng=rng, latency=(1, 100), stall=0.2)
    requests = [{"addr": 4096 - 8 * n, "length": 100, "wrap_log2": 0} for n in range(60)]

    async def ask(ctx):
        await send_all(ctx, dut.request[0], requests)

    async def listen(ctx):
        await recv_n(ctx, dut.data[0], sum(len(word_addresses(request, 8)) for request in requests))

    async def control(ctx):
        for _ in range(4):
            await ctx.tick().repeat(rng.randint(30, 60))
            assert not ctx.get(dut.quiet)
            ctx.set(dut.quiesce, 1)
            await ctx.tick().until(dut.quiet)
            bursts, words = len(memory.reads), len(memory.read_beats)
            assert words and words == sum(burst.beats for burst in memory.reads)
            await ctx.tick().repeat(200)
            assert (len(memory.reads), len(memory.read_beats)) == (bursts, words)
            ctx.set(dut.quiesce, 0)

    run_bench(dut, ask, listen, control, background=memory.testbenches(read=dut.axi))


@pytest.mark.parametrize("clients, max_outstanding, message", [
    (0, 16, "clients must be at least 1"), (1, 12, "depth must be a power of two"),
])  # fmt: skip
def test_parameters_checked(clients, max_outstanding, message):
    with pytest.raises(ValueError, match=message):
        DmaReader(TINY, clients=clients, max_outstanding=max_outstanding).elaborate(None)
