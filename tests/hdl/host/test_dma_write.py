"""DMA writer on a memory with random latency, backpressure and errors; throughput in cycles."""

import random

import pytest

from tests.widths import SLOW_TESTS_WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.dma_write import DmaWriter
from tiptoe_verif.axi_memory import AxiMemory
from tiptoe_verif.streams import expect_empty, run_bench, send_all, stream_get, watch_stream

BASE = 0x4000_0000
REGION = 1 << 15
"""Every client has a region of memory of its own."""


def byte_addresses(request):
    """Bus addresses of a transfer's bytes, in order, for rings of at least a word."""
    addr, wrap = request["addr"], request["wrap_log2"]
    ring = 1 << wrap if wrap else 1 << 40
    base = addr & -ring
    return [base + (addr - base + n) % ring for n in range(request["length"])]


def random_requests(rng, client, count, lengths=None):
    """Transfers inside the client's region, many of them at page and ring ends."""
    requests = []
    for _ in range(count):
        wrap = rng.choice([0, 0, 12, 13])
        length = rng.choice(lengths or [1, 2, 7, 8, 9, 32, 63, 64, 65, 1460, rng.randint(1, 4095)])
        addr = BASE + client * REGION + (rng.randrange(1, 6) << 12)
        addr += rng.choice([0, rng.randrange(4096), -rng.randint(1, 40)])
        requests.append({"addr": addr, "length": length, "wrap_log2": wrap})
    return requests


def exercise(width, requests, rng, *, idle=0.0, stall=0.0, memory_stall=0.0, max_outstanding=16, **memory_options):
    """Let each client write random bytes; compare the memory after each ``done``; returns it, for figures."""
    cfg = TINY.with_(data_width=width, addr_width=40)
    dut = DmaWriter(cfg, clients=len(requests), max_outstanding=max_outstanding)
    step = width // 8
    memory = AxiMemory(
        width, base=BASE, size=len(requests) * REGION, rng=random.Random(rng.getrandbits(32)),
        stall=memory_stall, **memory_options,
    )  # fmt: skip
    image = bytearray(memory.memory)  # what memory must hold in the end
    errors = 0
    words, transfers = [], []
    for mine in requests:
        mine_words, mine_transfers = [], []
        for request in mine:
            data = rng.randbytes(request["length"])
            offset = request["addr"] % step
            whole = rng.randbytes(offset) + data
            whole += rng.randbytes(-len(whole) % step)
            mine_words += [int.from_bytes(whole[at : at + step], "little") for at in range(0, len(whole), step)]
            addresses = byte_addresses(request)
            error = False
            for addr, byte in zip(addresses, data, strict=True):
                word = addr - addr % step
                if any(memory.is_bad(word + lane) for lane in range(step)):
                    error = True
                else:
                    image[addr - BASE] = byte
            errors += error
            mine_transfers.append((addresses, dict(zip(addresses, data, strict=True)), error))
        words.append(mine_words)
        transfers.append(mine_transfers)

    def asker(k, seed):
        async def ask(ctx):
            await send_all(ctx, dut.request[k], requests[k], idle=idle, rng=random.Random(seed))

        return ask

    def feeder(k, seed):
        async def feed(ctx):
            await send_all(ctx, dut.data[k], words[k], idle=idle, rng=random.Random(seed))
            ctx.set(dut.data[k].valid, 1)
            async for _, _, ready in ctx.tick().sample(dut.data[k].ready):
                assert not ready, f"client {k}: took a word that belongs to no transfer"

        return feed

    def listener(k, seed):
        async def listen(ctx):
            wait = random.Random(seed)
            for index, (_, stored, error) in enumerate(transfers[k]):
                while wait.random() < stall:
                    await ctx.tick()
                done = await stream_get(ctx, dut.done[k])
                assert done == {"error": int(error)}, f"client {k}, transfer {index}: {done}"
                later = {addr for addresses, _, _ in transfers[k][index + 1 :] for addr in addresses}
                for addr, byte in stored.items():
                    word = addr - addr % step
                    if addr in later or any(memory.is_bad(word + lane) for lane in range(step)):
                        continue
                    assert memory.peek(addr, 1)[0] == byte, f"done before byte {addr:#x} was in memory"
            ctx.set(dut.done[k].ready, 1)
            await expect_empty(ctx, dut.done[k])

        return listen

    async def counter(ctx):
        nonlocal errors
        async for _, _, pulse in ctx.tick().sample(dut.count_dma_write_error):
            errors -= pulse

    clients = range(len(requests))
    beats = sum(map(len, words))
    slow = 1 - max(idle, stall, memory_stall)
    run_bench(
        dut,
        *(asker(k, rng.getrandbits(32)) for k in clients),
        *(listener(k, rng.getrandbits(32)) for k in clients),
        background=[
            counter,
            *(feeder(k, rng.getrandbits(32)) for k in clients),
            *memory.testbenches(write=dut.axi),
            *(watch_stream(dut.done[k], f"done {k}") for k in clients),
        ],
        max_cycles=2000 + int((20 * beats + 400 * sum(map(len, requests))) / slow),
    )
    assert memory.memory == image, "memory differs outside the transfers, or in a lost byte"
    assert errors == 0, f"{errors} errors not counted"
    assert len(memory.write_beats) == beats
    assert all(len(burst.data) == burst.beats for burst in memory.writes), "words missing at the end"
    return memory


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
@pytest.mark.parametrize("write_order", ["any", "address first", "data first"])
def test_random_transfers_of_three_clients(width, write_order, rng):
    requests = [random_requests(rng, k, 4) for k in range(3)]
    exercise(width, requests, rng, latency=(1, 60), memory_stall=0.2, write_order=write_order)


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_every_offset_and_short_length(width, rng):
    step = width // 8
    requests = [
        {"addr": BASE + 0x2000 - 2 * step + offset, "length": length, "wrap_log2": 0}
        for offset in range(step) for length in (1, 2, step - 1, step, step + 1, 2 * step, 3 * step + 1)
    ]  # fmt: skip
    exercise(width, [requests], rng)


@pytest.mark.parametrize("idle, stall, memory_stall, latency", [
    (0, 0, 0, (1, 1)), (0.6, 0, 0, (1, 1)), (0, 0.95, 0, (1, 1)), (0, 0, 0.6, (1, 1)), (0.3, 0.3, 0.3, (1, 200)),
    (0, 0.9, 0, (160, 160)), (0, 0, 0.9, (1, 20)),
])  # fmt: skip
@pytest.mark.parametrize("write_order", ["any", "data first"])
def test_idle_and_backpressure(idle, stall, memory_stall, latency, write_order, rng):
    requests = [random_requests(rng, k, 8, [1, 8, 30, 100, 300]) for k in range(2)]
    exercise(
        64, requests, rng,
        idle=idle, stall=stall, memory_stall=memory_stall, latency=latency, write_order=write_order,
    )  # fmt: skip


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_ring_wrap(width, rng):
    requests = [
        {"addr": BASE + (1 << log2 + 1) - before, "length": length, "wrap_log2": log2}
        for log2, before, length in [
            (12, 1, 2), (12, 7, 4095), (12, 4095, 4095), (13, 1460, 1461), (13, 731, 1460), (5, 3, 30), (6, 1, 64),
        ]
    ]  # fmt: skip
    exercise(width, [requests], rng)


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_errors_mark_their_transfer_only(width, rng):
    requests = [random_requests(rng, k, 7, [1, 8, 100, 1000, 3000]) for k in range(2)]
    bad = {rng.randrange(2 * REGION // 64) for _ in range(60)}
    memory = exercise(
        width, requests, rng, latency=(1, 30), memory_stall=0.1, is_bad=lambda addr: (addr - BASE) // 64 in bad
    )
    assert any(
        memory.is_bad(burst.addr + n) for burst in memory.writes for n in range(0, burst.beats * width // 8, 4)
    ), "the seed met no bad word"


def test_client_that_ignores_done_stops_only_itself(rng):
    """Responses have their place: 40 transfers of client 1 end while client 0 takes no ``done``."""
    dut = DmaWriter(TINY, clients=2)
    memory = AxiMemory(64, base=0, size=1 << 12)
    requests = [{"addr": 64 * n, "length": 8, "wrap_log2": 0} for n in range(40)]
    asked = 0

    async def ask_0(ctx):
        nonlocal asked
        for request in requests:
            await send_all(ctx, dut.request[0], [request])
            asked += 1

    async def ask_1(ctx):
        await send_all(ctx, dut.request[1], requests)

    async def listen_1(ctx):
        for _ in requests:
            await stream_get(ctx, dut.done[1])
        assert asked == 16, "credit differs from max_outstanding"
        for _ in requests:  # all of client 0's come once it listens
            await stream_get(ctx, dut.done[0])

    async def feed(ctx):
        for k in range(2):
            ctx.set(dut.data[k].valid, 1)

    run_bench(dut, ask_1, listen_1, background=[ask_0, feed, *memory.testbenches(write=dut.axi)])
    assert asked == 40


def utilisation(beats):
    return len(beats) / (beats[-1] - beats[0] + 1)


@pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
def test_full_size_segments_fill_the_bus(width, rng):
    ring = 13
    requests = [
        {"addr": BASE + 0x2000 + (1 + 1460 * n) % (1 << ring), "length": 1460, "wrap_log2": ring} for n in range(12)
    ]
    memory = exercise(width, [requests], rng, latency=(160, 160))
    share = utilisation(memory.write_beats)
    print(f"\nwrite, width {width}: 1460-byte transfers at odd addresses, latency 160: {share:.1%} of the bus")
    assert share >= 0.97


@pytest.mark.parametrize("latency, max_outstanding", [(10, 16), (160, 64)])
@pytest.mark.parametrize("length", [8, 32])
def test_small_transfers(latency, max_outstanding, length, rng):
    requests = [
        [{"addr": BASE + k * REGION + 32 * n, "length": length, "wrap_log2": 0} for n in range(60)] for k in range(2)
    ]
    memory = exercise(64, requests, rng, latency=(latency, latency), max_outstanding=max_outstanding)
    cycles = (memory.write_beats[-1] - memory.writes[0].taken) / (len(memory.writes) - 1)
    print(f"\nwrite: {length} bytes, latency {latency}, {max_outstanding} in flight: {cycles:.2f} cycles each")
    assert cycles <= max(3.2, length / 8 + 0.2)
    # Fair: two that always ask take turns.
    owners = [(burst.addr - BASE) // REGION for burst in memory.writes]
    assert all(one != other for one, other in zip(owners, owners[1:], strict=False))


def test_latency_of_one_word(rng):
    memory = exercise(64, [[{"addr": BASE, "length": 1, "wrap_log2": 0}]], rng, latency=(1, 1))
    aw, w = memory.writes[0].taken, memory.write_beats[0]
    print(f"\nwrite: request to address handshake {aw} cycles, to word {w} cycles")
    assert aw <= 6 and w <= 10


def test_quiesce_lets_the_bus_come_to_rest(rng):
    dut = DmaWriter(TINY)
    memory = AxiMemory(64, base=0, size=1 << 13, rng=rng, latency=(1, 100), stall=0.2)
    requests = [{"addr": 4096 - 8 * n, "length": 100, "wrap_log2": 0} for n in range(60)]

    async def ask(ctx):
        await send_all(ctx, dut.request[0], requests)

    async def feed(ctx):
        await send_all(ctx, dut.data[0], iter(lambda: 0, 1), idle=0.3)

    async def listen(ctx):
        for _ in requests:
            await stream_get(ctx, dut.done[0])

    async def control(ctx):
        for _ in range(4):
            await ctx.tick().repeat(rng.randint(30, 60))
            assert not ctx.get(dut.quiet)
            ctx.set(dut.quiesce, 1)
            await ctx.tick().until(dut.quiet)
            bursts, words = len(memory.writes), len(memory.write_beats)
            assert words and words == sum(burst.beats for burst in memory.writes)
            assert memory.answers == bursts
            await ctx.tick().repeat(200)
            assert (len(memory.writes), len(memory.write_beats)) == (bursts, words)
            ctx.set(dut.quiesce, 0)

    run_bench(dut, ask, listen, control, background=[feed, *memory.testbenches(write=dut.axi)])


@pytest.mark.parametrize("clients, max_outstanding, message", [
    (0, 16, "clients must be at least 1"), (1, 12, "depth must be a power of two"),
])  # fmt: skip
def test_parameters_checked(clients, max_outstanding, message):
    with pytest.raises(ValueError, match=message):
        DmaWriter(TINY, clients=clients, max_outstanding=max_outstanding).elaborate(None)
