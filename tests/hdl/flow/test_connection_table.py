"""Connection table against its model: the hash, filling and emptying, random updates, lookups meanwhile."""

import random

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from tests.hdl.table_model import TableModel, folded, four_tuple, hash_bits, key_of, random_tuple
from tiptoe_hdl.config import ECP5, SIM, TINY
from tiptoe_hdl.flow import keyed_hash
from tiptoe_hdl.flow.connection_table import ConnectionTable
from tiptoe_hdl.messages import FourTuple, Status, TableOp
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

KEY = 0x0123456789ABCDEF


def table_update(op, tuple_, index=0, is_syncache=0):
    return {"op": op, "tuple": tuple_, "is_syncache": is_syncache, "index": index}


async def update(ctx, dut, op, tuple_, index=0, is_syncache=0, client=0):
    """Make one update and return its status."""
    await stream_put(ctx, dut.update[client], table_update(op, tuple_, index, is_syncache))
    return (await stream_get(ctx, dut.status[client]))["status"]


async def lookup(ctx, dut, tuple_):
    await stream_put(ctx, dut.lookup, tuple_)
    result = await stream_get(ctx, dut.result)
    result = result if result["hit"] else result | {"is_syncache": 0, "index": 0}
    return {name: value for name, value in result.items() if name != "full"}


async def is_full(ctx, dut, tuple_):
    """Whether the table says that there is no place for a four-tuple."""
    await stream_put(ctx, dut.lookup, tuple_)
    return (await stream_get(ctx, dut.result))["full"]


def run_table(dut, *benches, key=KEY, max_cycles=100_000):
    async def setup(ctx):
        ctx.set(dut.hash_key, key)

    watchers = [watch_stream(dut.result, "result")] + [watch_stream(status, "status") for status in dut.status]
    run_bench(dut, setup, *benches, background=watchers, max_cycles=max_cycles)


def colliding(cfg, count, key=KEY):
    """Tuples that all hash to the same two rows."""
    rng, model, groups = random.Random(3), TableModel(cfg, key), {}
    while True:
        tuple_ = random_tuple(rng)
        group = groups.setdefault(tuple(map(id, model.rows_of(tuple_))), [])
        group.append(tuple_)
        if len(group) == count:
            return group


@pytest.mark.parametrize("bits", [2, 10, 30])
def test_hash_matches_model(bits, rng):
    m = Module()
    tuple_, key, result = Signal(FourTuple), Signal(64), Signal(bits)
    x, partial = Signal(keyed_hash.X_BITS), Signal(bits * keyed_hash.X_BITS // keyed_hash.GROUP)
    sequence = keyed_hash.key_sequence(m, key, keyed_hash.X_BITS + bits - 1)
    m.d.comb += [
        x.eq(keyed_hash.folded(tuple_)),
        partial.eq(keyed_hash.partial_sums(x, sequence, bits)),
        result.eq(keyed_hash.final_sums(partial)),
    ]
    simulator = Simulator(m)

    async def bench(ctx):
        for _ in range(50):
            case, secret = random_tuple(rng), rng.getrandbits(64)
            ctx.set(tuple_, case)
            ctx.set(key, secret)
            await ctx.delay(1e-9)
            assert ctx.get(result) == hash_bits(case, secret, bits)

    simulator.add_testbench(bench)
    simulator.run()


def test_hash_bits_are_independent_for_any_difference(rng):
    """For a fixed pair of tuples hash bit j of their difference is a linear form of the key; 30 such forms must have
    full rank: then the pair collides for exactly 2**-30 of all keys."""
    differences = [1 << bit for bit in range(64)] + [0b11011, 1 << 63 | 1] + [rng.getrandbits(64) | 1 for _ in range(9)]
    zero = hash_bits(four_tuple(0, 0, 0, 0), 0x9E3779B97F4A7C15, 30)
    assert zero == 0
    for x in differences:
        tuple_ = four_tuple(0, x & 0xFFFFFFFF, x >> 48, x >> 32 & 0xFFFF)
        assert folded(tuple_) == x
        forms = [0] * 30
        for bit in range(64):
            column = hash_bits(tuple_, 0x9E3779B97F4A7C15 ^ 1 << bit, 30)
            for j in range(30):
                forms[j] |= (column >> j & 1) << bit
        basis = []
        for form in forms:
            for vector in basis:
                form = min(form, form ^ vector)
            assert form, f"difference {x:#x}"
            basis.append(form)


def test_key_zero_spreads():
    rows = {hash_bits(four_tuple(0x0A000001, 0x0A000002, 80, port), 0, 10) for port in range(40000, 40128)}
    assert len(rows) > 60


@pytest.mark.parametrize("cfg", [TINY, ECP5], ids=lambda cfg: cfg.name)
def test_fill_delete_fill(cfg, rng):
    """All connections and half-open ones fit, whatever the tuples; deleted, no entry is left behind."""
    dut = ConnectionTable(cfg)
    count = cfg.connections + cfg.syncache_entries
    targets = [(0, n) for n in range(cfg.connections)] + [(1, n) for n in range(cfg.syncache_entries)]

    async def bench(ctx):
        for _ in range(2):
            tuples = [random_tuple(rng) for _ in range(count)]
            for tuple_, (is_syncache, index) in zip(tuples, targets, strict=True):
                assert await update(ctx, dut, TableOp.INSERT, tuple_, index, is_syncache) == Status.OK
            for tuple_, (is_syncache, index) in zip(tuples, targets, strict=True):
                expected = {"hit": 1, "is_syncache": is_syncache, "index": index}
                assert await lookup(ctx, dut, tuple_) == expected
            order = list(zip(tuples, targets, strict=True))
            rng.shuffle(order)
            for tuple_, (is_syncache, index) in order:
                assert await update(ctx, dut, TableOp.DELETE, tuple_, index, is_syncache) == Status.OK
            for tuple_ in tuples:
                assert not (await lookup(ctx, dut, tuple_))["hit"]

    run_table(dut, bench)


def test_ordinary_addresses_fill(rng):
    """Neighbouring ports and addresses, as real clients have, spread too."""
    dut = ConnectionTable(ECP5)
    tuples = [
        four_tuple(0xC0A80001, 0xC0A80002 + n // 48, 80, 40000 + n % 48)
        for n in range(ECP5.connections + ECP5.syncache_entries)
    ]

    async def bench(ctx):
        for index, tuple_ in enumerate(tuples):
            assert await update(ctx, dut, TableOp.INSERT, tuple_, index % 64) == Status.OK

    run_table(dut, bench, key=0)


def test_statuses():
    cfg = TINY
    dut = ConnectionTable(cfg)
    group = colliding(cfg, 9)
    cases = [
        (TableOp.DELETE, group[0], 0, 0, Status.BAD_STATE),
        (TableOp.REPLACE, group[0], 0, 0, Status.BAD_STATE),
        *((TableOp.INSERT, tuple_, n, 0, Status.OK) for n, tuple_ in enumerate(group[:8])),
        (TableOp.INSERT, group[8], 8, 0, Status.TABLE_FULL),
        (TableOp.INSERT, group[3], 9, 1, Status.EXISTS),
        (TableOp.DELETE, group[3], 4, 0, Status.BAD_STATE),  # another index
        (TableOp.DELETE, group[3], 3, 1, Status.BAD_STATE),  # another kind
        (TableOp.REPLACE, group[3], 3, 1, Status.OK),
        (TableOp.DELETE, group[3], 3, 0, Status.BAD_STATE),
        (TableOp.DELETE, group[3], 3, 1, Status.OK),
        (TableOp.INSERT, group[8], 8, 0, Status.OK),
        (TableOp.INSERT, group[3], 3, 0, Status.TABLE_FULL),
        (3, group[0], 0, 0, Status.BAD_ARGUMENT),  # no such operation
    ]
    expected = {key_of(tuple_): n for n, tuple_ in enumerate(group)}
    del expected[key_of(group[3])]

    async def bench(ctx):
        for op, tuple_, index, is_syncache, status in cases:
            if op == 3:
                ctx.set(dut.update[0].payload.as_value(), _raw_update(dut, op, tuple_, index, is_syncache))
                ctx.set(dut.update[0].valid, 1)
                await ctx.tick().until(dut.update[0].ready)
                ctx.set(dut.update[0].valid, 0)
                got = (await stream_get(ctx, dut.status[0]))["status"]
            else:
                full = await is_full(ctx, dut, tuple_)
                got = await update(ctx, dut, op, tuple_, index, is_syncache)
                if op == TableOp.INSERT:  # EXISTS goes before TABLE_FULL
                    assert full or status != Status.TABLE_FULL
                    assert not full or status != Status.OK
            assert got == status, (op, index)
        for tuple_ in group:
            index = expected.get(key_of(tuple_))
            result = {"hit": int(index is not None), "is_syncache": 0, "index": index or 0}
            assert await lookup(ctx, dut, tuple_) == result

    run_table(dut, bench)


def _raw_update(dut, op, tuple_, index, is_syncache):
    payload = dut.update[0].payload.shape()
    raw = payload.const({"op": 0, "tuple": tuple_, "is_syncache": is_syncache, "index": index})
    return raw.as_value().value | op << payload["op"].offset


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_lookups_keep_order(idle, stall, rng):
    dut = ConnectionTable(TINY)
    model = TableModel(TINY, KEY)
    known = [random_tuple(rng) for _ in range(16)]
    asked = [rng.choice(known) if rng.random() < 0.7 else random_tuple(rng) for _ in range(150)]

    async def fill(ctx):
        for index, tuple_ in enumerate(known):
            model.update(table_update(TableOp.INSERT, tuple_, index))
            assert await update(ctx, dut, TableOp.INSERT, tuple_, index) == Status.OK
        await send_all(ctx, dut.lookup, asked, idle=idle, rng=random.Random(1))

    async def take(ctx):
        results = await recv_n(ctx, dut.result, len(asked), stall=stall, rng=random.Random(2))
        for tuple_, result in zip(asked, results, strict=True):
            assert (result if result["hit"] else model.lookup(tuple_)) == model.lookup(tuple_)
            assert result["hit"] == model.lookup(tuple_)["hit"]
        await expect_empty(ctx, dut.result)

    run_table(dut, fill, take)


def test_lookup_rate_and_latency(rng):
    """A result 7 cycles after its lookup, and at least a lookup every 4 cycles when results are taken."""
    dut = ConnectionTable(ECP5)
    times = []

    async def bench(ctx):
        await ctx.tick().until(dut.ready)
        ctx.set(dut.lookup.payload, random_tuple(rng))
        ctx.set(dut.lookup.valid, 1)
        ctx.set(dut.result.ready, 1)
        cycle = taken = 0
        while taken < 40:
            _, _, ready, valid = await ctx.tick().sample(dut.lookup.ready, dut.result.valid)
            cycle += 1
            if ready and not times:
                times.append(cycle)
            if valid:
                taken += 1
                times.append(cycle)

    run_table(dut, bench)
    assert times[1] - times[0] == 7
    assert times[-1] - times[1] <= 39 * 4


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 12))])
def test_random_updates_of_two_clients_with_lookups(seed):
    """Each lookup answers what the table held between asking and answering: before or after an update, no mix."""
    cfg = TINY.with_(buckets_per_hash=2)  # 16 entries in 4 rows: full often
    rng = random.Random(f"updates:{seed}")
    dut = ConnectionTable(cfg)
    model = TableModel(cfg, KEY)
    tuples = [random_tuple(rng) for _ in range(24)]
    pending = {}  # key -> answers possible while an update of it is under way
    done = [False, False]

    def expected(key):
        target = model.entries.get(key)
        return (1, *target) if target else (0, 0, 0)

    def client(number):
        async def bench(ctx):
            await ctx.tick().until(dut.ready)
            mine = tuples[number::2]
            local = random.Random(f"{seed}:{number}")
            for _ in range(150):
                while local.random() < 0.3:
                    await ctx.tick()
                tuple_ = local.choice(mine)
                known = model.entries.get(key_of(tuple_))
                op = local.choice([TableOp.INSERT, TableOp.REPLACE, TableOp.DELETE])
                is_syncache, index = local.getrandbits(1), local.getrandbits(4)
                if op == TableOp.DELETE and known and local.random() < 0.8:
                    is_syncache, index = known
                request = table_update(op, tuple_, index, is_syncache)
                after = {TableOp.DELETE: (0, 0, 0)}.get(op, (1, is_syncache, index))
                pending[key_of(tuple_)] = {expected(key_of(tuple_)), after}
                status = await update(ctx, dut, op, tuple_, index, is_syncache, client=number)
                if op == TableOp.INSERT and status == Status.TABLE_FULL:
                    # The other client's update may have come first or second; both rows were full at some time.
                    assert sum(map(len, model.rows_of(tuple_))) >= 7
                    assert key_of(tuple_) not in model.entries
                else:
                    assert status == model.update(request)
                del pending[key_of(tuple_)]
            done[number] = True

        return bench

    asked = []

    async def ask(ctx):
        await ctx.tick().until(dut.ready)
        while not all(done):
            tuple_ = rng.choice(tuples)
            key = key_of(tuple_)
            possible = set(pending.get(key, ())) | {expected(key)}
            asked.append((key, possible))
            ctx.set(dut.lookup.payload, tuple_)
            ctx.set(dut.lookup.valid, 1)
            ready = 0
            while not ready:
                for key, possible in asked:
                    possible |= set(pending.get(key, ())) | {expected(key)}
                _, _, ready = await ctx.tick().sample(dut.lookup.ready)
            ctx.set(dut.lookup.valid, 0)

    async def take(ctx):
        hits = 0
        while not all(done) or asked:
            ctx.set(dut.result.ready, 1)
            _, _, valid, result = await ctx.tick().sample(dut.result.valid, dut.result.payload)
            for key, possible in asked:
                possible |= set(pending.get(key, ())) | {expected(key)}
            if valid:
                key, possible = asked.pop(0)
                answer = (1, result.is_syncache, result.index) if result.hit else (0, 0, 0)
                assert answer in possible
                hits += result.hit
        assert hits > 50

    run_table(dut, client(0), client(1), ask, take)


@pytest.mark.parametrize("cfg", [TINY, SIM], ids=lambda cfg: cfg.name)
def test_not_ready_before_cleared(cfg, rng):
    dut = ConnectionTable(cfg)

    async def bench(ctx):
        ctx.set(dut.lookup.valid, 1)
        ctx.set(dut.update[1].valid, 1)
        for _ in range(cfg.buckets_per_hash):
            _, _, busy = await ctx.tick().sample(dut.lookup.ready | dut.update[1].ready | dut.ready)
            assert not busy
        ctx.set(dut.update[1].valid, 0)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.ready)
        assert ctx.get(dut.lookup.ready)

    run_table(dut, bench)


def test_too_few_rows():
    with pytest.raises(ValueError, match="at least 2 rows"):
        ConnectionTable(TINY.with_(buckets_per_hash=1))
