"""Listen table against a model: every search in the same time, whatever is written meanwhile."""

import random

import pytest

from tiptoe_hdl.config import TINY
from tiptoe_hdl.listen.listen_table import ListenTable, LocalEndpoint
from tiptoe_hdl.messages import LADDR_V6, Status
from tiptoe_verif.streams import run_bench, stream_get, stream_put

ADDRESSES = [0, 0xC0A80002, 0xC0A80102, 0xC0A80003, 1]
PORTS = [80, 81, 0x5000, 0x5050, 0]


def winner(listeners, laddr, lport):
    """The lowest listener for the address, else the lowest for any address."""
    exact = [n for n, at in listeners.items() if at == (laddr, lport) and laddr]
    anywhere = [n for n, at in listeners.items() if at == (0, lport)]
    return min(exact, default=min(anywhere, default=None))


async def find(ctx, dut, laddr, lport):
    """The listener found, and after how many cycles."""
    ctx.set(dut.find.payload, {"laddr": laddr, "lport": lport})
    ctx.set(dut.find.valid, 1)
    await ctx.tick()
    ctx.set(dut.find.valid, 0)
    ctx.set(dut.found.ready, 1)
    cycles = 1
    while True:
        _, _, valid, payload = await ctx.tick().sample(dut.found.valid, dut.found.payload)
        if valid:
            ctx.set(dut.found.ready, 0)
            return (payload.listener if payload.hit else None), cycles
        cycles += 1


async def write(ctx, dut, listener, at, enable, wnd=2):
    await stream_put(ctx, dut.write, {
        "enable": enable, "listener": listener, "laddr": at[0], "lport": at[1], "mss": listener, "rcv_scale": 1, "wnd": wnd,
    })  # fmt: skip
    return (await stream_get(ctx, dut.written))["status"]


@pytest.mark.parametrize("listeners", [1, 4, 64])
def test_any_number_of_listeners_is_found_in_seven_cycles(listeners, rng):
    """Listeners come and go, with and without an address, also twice the same."""
    dut = ListenTable(TINY.with_(listeners=listeners))

    async def bench(ctx):
        await ctx.tick().until(dut.ready)
        used = {}
        for _ in range(14):
            number = rng.randrange(listeners)
            if number in used:
                laddr, lport = used[number]
                for bit in range(48):  # elsewhere
                    there = laddr ^ 1 << bit & 0xFFFF_FFFF, lport ^ 1 << bit >> 32
                    assert await write(ctx, dut, number, there, 1) == Status.EXISTS
                ctx.set(dut.index, number)
                for wnd in (3, 2):
                    assert await write(ctx, dut, number, used[number], 1, wnd) == Status.OK
                    await ctx.tick().repeat(3)
                    assert ctx.get(dut.entry).wnd == wnd
                assert (await find(ctx, dut, *used[number]))[0] == winner(used, *used[number])
                del used[number]
                assert await write(ctx, dut, number, (7, 7), 0) == Status.OK, "UNLISTEN need not say where"
                assert await write(ctx, dut, number, (7, 7), 0) == Status.BAD_STATE
            else:
                used[number] = rng.choice(ADDRESSES), rng.choice(PORTS)
                assert await write(ctx, dut, number, used[number], 1) == Status.OK
                ctx.set(dut.index, number)
                await ctx.tick().repeat(3)
                assert (ctx.get(dut.entry).mss, ctx.get(dut.entry).enable) == (number, 1)
            for laddr in ADDRESSES:
                for lport in PORTS:
                    assert await find(ctx, dut, laddr, lport) == (winner(used, laddr, lport), 7)

    run_bench(dut, bench, max_cycles=200_000)


def test_searches_every_cycle_while_listeners_are_written(rng):
    """What is there before and after a write is found during it; results keep their order; a write ends none the less."""
    dut = ListenTable(TINY)
    stays = {0: (0, 80), 3: (0xC0A80002, 81)}
    asked, done = [], []

    async def writer(ctx):
        await ctx.tick().until(dut.ready)
        for number, at in stays.items():
            assert await write(ctx, dut, number, at, 1) == Status.OK
        done.append("stays")
        for _ in range(200):
            for enable in (1, 0):
                assert await write(ctx, dut, 1, (0, 0x5050), enable) == Status.OK
                assert await write(ctx, dut, 2, (0xC0A80002, 80), enable) == Status.OK
                assert await write(ctx, dut, 3, stays[3], 1) == Status.OK, "found all the while"
        done.append("all")

    async def searcher(ctx):
        random_ = random.Random(1)
        while "stays" not in done:
            await ctx.tick()
        ctx.set(dut.found.ready, 1)
        while "all" not in done:
            wanted = random_.choice([0, 0xC0A80002]), random_.choice(PORTS)
            valid = random_.random() < 0.4
            ctx.set(dut.find.payload, {"laddr": wanted[0], "lport": wanted[1]})
            ctx.set(dut.find.valid, int(valid))
            _, _, found, payload = await ctx.tick().sample(dut.found.valid, dut.found.payload)
            if found:
                before = asked.pop(0)
                possible = {winner(stays, *before), winner(stays | {1: (0, 0x5050), 2: (0xC0A80002, 80)}, *before)}
                assert (payload.listener if payload.hit else None) in possible, before
            if valid:
                asked.append(wanted)

    run_bench(dut, writer, searcher, max_cycles=60_000)
    assert LocalEndpoint.size == 48


def test_a_listener_is_changing_around_the_cycle_in_which_it_is_read_and_written_at_once():
    """Block RAM gives nothing sensible then: it is in ``entry`` in the cycle before the new one. Whoever asks waits: a SYN of
    the listen unit from there until it has the new one, one that wants a cookie two cycles before already."""
    dut = ListenTable(TINY)
    history = []

    async def watch(ctx):
        async for _, _, changing, entry in ctx.tick().sample(dut.changing, dut.entry):
            history.append((changing, entry.wnd))

    async def bench(ctx):
        await ctx.tick().until(dut.ready)
        ctx.set(dut.index, 2)
        await write(ctx, dut, 2, (0, 80), 1, 5)
        await ctx.tick().repeat(10)
        del history[:]
        for wnd in (6, 7):
            assert await write(ctx, dut, 2, (0, 80), 1, wnd) == Status.OK
            await ctx.tick().repeat(10)
        for wnd in (6, 7):
            new = [said for _, said in history].index(wnd)
            assert [changing for changing, _ in history[new - 6 : new + 2]] == [0, 1, 1, 1, 1, 1, 1, 0]
        assert sum(changing for changing, _ in history) == 12

    run_bench(dut, bench, background=[watch], max_cycles=2000)


def test_any_address_is_none_of_ipv6(rng):
    """Searches of both versions back to back: a listener at any address takes those of IPv4, one with the stand-in for our IPv6
    address those of IPv6, and one with an address of IPv4 goes first."""
    dut = ListenTable(TINY.with_(ipv6=True))
    local = 0xC0A80002
    wanted = {(local, 80): 2, (LADDR_V6, 80): 1, (local, 81): 0, (LADDR_V6, 81): None, (local + 1, 80): 0}
    asked = [rng.choice(list(wanted)) for _ in range(60)]

    async def bench(ctx):
        await ctx.tick().until(dut.ready)
        places = [(0, 80), (LADDR_V6, 80), (local, 80), (0, 81)]
        for number, at in enumerate(places):
            assert await write(ctx, dut, number, at, 1) == Status.OK
        for laddr, lport in asked:
            ctx.set(dut.find.payload, {"laddr": laddr, "lport": lport})
            ctx.set(dut.find.valid, 1)
            await ctx.tick()
        ctx.set(dut.find.valid, 0)

    async def answers(ctx):
        ctx.set(dut.found.ready, 1)
        got = []
        while len(got) < len(asked):
            _, _, valid, payload = await ctx.tick().sample(dut.found.valid, dut.found.payload)
            if valid:
                got.append(payload.listener if payload.hit else None)
        expected = [3 if at == (local, 81) else wanted[at] for at in asked]
        assert got == expected

    run_bench(dut, bench, answers, max_cycles=5000)
