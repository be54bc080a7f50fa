"""The event writer against models of the pipeline, the DMA writer and the host that reads: connections, errors, turns."""

import pytest

from tests.hdl.host.event_bench import Bench, one
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.abi import ErrorCode
from tiptoe_hdl.host.events import EventWriter
from tiptoe_hdl.messages import LADDR_V6, Reason, State, Status
from tiptoe_verif.streams import recv_n, run_bench, send_all, stream_put

# ---- connections


def test_news_fold_while_the_ring_is_full():
    """However much happens, at most four snapshots of a connection come after the host reads again."""
    bench = Bench()
    bench.reading = False

    async def main(ctx):
        await bench.start(ctx)
        await send_all(ctx, bench.dut.frame, [{"slot": n, "length": 60} for n in range(16)])
        for position in range(1, 200):
            bench.tcbs[5]["snd_una_position"] = position
            await bench.notify(ctx, 5)
            await ctx.tick().repeat(bench.rng.randrange(1, 8))
        bench.reading = True
        await bench.settle(ctx)

    bench.simulate(main)
    positions = [event.snd_una_position for event in bench.connection(5)]
    assert positions == sorted(positions) and positions[-1] == 199 and len(positions) <= 4


@pytest.mark.parametrize("rate", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("report_delay", [1, 15])
def test_no_notification_is_lost(rate, report_delay, rng):
    """Random progress of all connections, marked right after it: the last event of each shows the last state."""
    bench = Bench(seed=rng.random(), report_delay=report_delay, log2=5)
    bench.read_time = 0.1
    touched = set()

    async def main(ctx):
        await bench.start(ctx)
        for _ in range(600):
            if rng.random() < rate:
                id = rng.choice([3, 3, 3, rng.randrange(16)])
                touched.add(id)
                bench.tcbs[id]["snd_una_position"] += 1
                await bench.notify(ctx, id)
            else:
                await ctx.tick()
        await bench.settle(ctx)

    bench.simulate(main)
    for id in range(16):
        positions = [event.snd_una_position for event in bench.connection(id)]
        assert bool(positions) == (id in touched)
        assert not positions or positions[-1] == bench.tcbs[id]["snd_una_position"], f"id {id}"
        assert positions == sorted(positions)


def test_one_id_marked_in_every_cycle_is_reported_again_and_again():
    bench = Bench(log2=8)

    async def main(ctx):
        await bench.start(ctx)
        for n in range(400):
            bench.tcbs[7]["snd_una_position"] = n
            await bench.notify(ctx, 7)
        await bench.settle(ctx)

    bench.simulate(main)
    positions = [event.snd_una_position for event in bench.connection(7)]
    assert len(positions) > 5 and positions[-1] == 399


def test_all_ids_at_once():
    bench = Bench(log2=5)

    async def main(ctx):
        await bench.start(ctx)
        await bench.notify(ctx, *range(16))
        await bench.notify(ctx, *range(16))
        await bench.settle(ctx)

    bench.simulate(main)
    assert {event.tid for event in bench.events} == set(range(16)) and len(bench.events) <= 20


def test_a_flood_of_urgent_pointers_is_few_events_and_the_last_says_all():
    bench = Bench(log2=5)

    async def main(ctx):
        await bench.start(ctx)
        bench.reading = False
        for up in range(1, 400):
            bench.tcbs[7].update(urgent=1, rcv_up=up)
            await bench.notify(ctx, 7)
            await bench.notify(ctx, 9)
        bench.reading = True
        await bench.settle(ctx)

    bench.simulate(main)
    ups = [event.rcv_up for event in bench.connection(7)]
    assert ups == sorted(ups) and ups[-1] == 399 and len(bench.events) <= 40
    assert not any(event.urgent for event in bench.connection(9))


def test_the_urgent_pointer_is_told_though_its_data_is_not_placed():
    bench = Bench()

    async def run(bench, ctx):
        bench.tcbs[2].update(rcv_nxt_position=100, urgent=1, rcv_up=101)
        await bench.notify(ctx, 2)
        await bench.settle(ctx)
        (event,) = bench.connection(2)
        assert (event.rcv_position, event.urgent, event.rcv_up) == (0, 1, 101)

    one(run, bench=bench)


def test_received_data_is_told_when_it_is_placed():
    bench = Bench()

    async def run(bench, ctx):
        bench.tcbs[2].update(rcv_nxt_position=5000, peer_closed=1, state=State.CLOSE_WAIT)
        await bench.notify(ctx, 2)
        await bench.settle(ctx)
        (event,) = bench.connection(2)
        assert (event.rcv_position, event.peer_closed) == (0, 0)
        await bench.place(ctx, 2, 3000)
        await bench.settle(ctx)
        assert [(event.rcv_position, event.peer_closed) for event in bench.connection(2)][1:] == [(3000, 0)]
        await bench.place(ctx, 2, 5000)
        await bench.settle(ctx)
        assert [(event.rcv_position, event.peer_closed) for event in bench.connection(2)][2:] == [(5000, 1)]

    one(run, bench=bench)


def test_a_fin_placed_behind_the_report_is_left_to_the_next():
    bench = Bench()

    async def run(bench, ctx):
        bench.tcbs[2].update(established=1, rcv_nxt_position=100, state=State.ESTABLISHED)
        await bench.place(ctx, 2, 101)  # the report will know of 100 bytes only
        await bench.settle(ctx)
        assert [(event.rcv_position, event.peer_closed) for event in bench.connection(2)] == [(100, 0)]
        bench.tcbs[2].update(rcv_nxt_position=101, peer_closed=1, state=State.CLOSE_WAIT)
        await bench.notify(ctx, 2)
        await bench.settle(ctx)
        assert [(event.rcv_position, event.peer_closed) for event in bench.connection(2)][1:] == [(101, 1)]

    one(run, bench=bench)


@pytest.mark.parametrize(
    "established, reason, waits",
    [
        (1, Reason.NORMAL, True),
        (1, Reason.PEER_RESET, True),
        (1, Reason.TIMEOUT, True),
        (0, Reason.REFUSED, False),
        (1, Reason.DMA_ERROR, True),
    ],
)
def test_terminal_waits_for_the_last_byte(established, reason, waits):
    bench = Bench()

    async def run(bench, ctx):
        bench.tcbs[2].update(
            rcv_nxt_position=100, established=established, terminal=1, state=State.CLOSED, reason=reason
        )
        await bench.notify(ctx, 2)
        await bench.settle(ctx)
        assert [event.terminal for event in bench.connection(2)] == [int(not waits)]
        await bench.place(ctx, 2, 100)
        await bench.settle(ctx)
        assert [event.terminal for event in bench.connection(2)] == ([0, 1] if waits else [1])

    one(run, bench=bench)


@pytest.mark.parametrize("reason", [Reason.DMA_ERROR, Reason.PEER_RESET])
def test_terminal_does_not_wait_for_what_could_not_be_written(reason):
    """Whether the connection ended because of the failed write, or had ended before it was known."""
    bench = Bench()

    async def run(bench, ctx):
        bench.tcbs[2].update(rcv_nxt_position=100, peer_closed=1, terminal=1, state=State.CLOSED, reason=reason)
        await bench.place(ctx, 2, 40)
        await bench.settle(ctx)
        assert [event.terminal for event in bench.connection(2)] == [0]
        await stream_put(ctx, bench.dut.broken, 2)
        await bench.settle(ctx)
        events = [(event.terminal, event.peer_closed, event.rcv_position) for event in bench.connection(2)]
        assert events == [(0, 0, 40), (1, 0, 40)]
        # The next life is sound again.
        await bench.clear(ctx, 2)
        bench.tcbs[2].update(generation=1, rcv_nxt_position=7)
        await bench.notify(ctx, 2)
        await bench.settle(ctx)
        assert [event.terminal for event in bench.connection(2)] == [0, 1, 0]

    one(run, bench=bench)


def test_nothing_comes_after_the_terminal_event_until_the_id_begins_anew():
    bench = Bench()

    async def run(bench, ctx):
        bench.tcbs[2].update(terminal=1, state=State.CLOSED, reason=Reason.NORMAL)
        for _ in range(30):
            await bench.notify(ctx, 2)
            await ctx.tick().repeat(5)
        await bench.settle(ctx)
        assert [event.terminal for event in bench.events] == [1]
        await bench.notify(ctx, 2, 3)
        await bench.settle(ctx)
        assert [event.tid for event in bench.events] == [2, 3]
        await bench.place(ctx, 2, 0xFFFF)  # of the old life
        await bench.clear(ctx, 2)
        bench.tcbs[2] = bench.tcb(2, generation=1)
        await bench.notify(ctx, 2)
        await bench.settle(ctx)
        assert [(event.tid, event.terminal, event.rcv_position) for event in bench.events[2:]] == [(2 | 1 << 16, 0, 0)]

    one(run, bench=bench)


def test_syn_received_comes_before_the_connection():
    """SYN events wait one behind the other with gaps between them, and the connection of the last has news."""
    bench = Bench()
    bench.reading = False
    full = []

    def syn(n):
        return {
            "gone": 0,
            "syncache_ref": n,
            "listener": 0,
            "iss": 0,
            "irs": 0,
            "mss": 0,
            "ws_present": 0,
            "ws": 0,
            "sack_ok": n & 1,
            "tuple": {"laddr": 0, "faddr": 0, "lport": 0, "fport": 0},
        }

    async def main(ctx):
        await bench.start(ctx)
        await send_all(ctx, bench.dut.frame, [{"slot": n, "length": 60} for n in range(16)])
        full.append(True)
        bench.tcbs[9].update(syncache_ref=11)
        await bench.notify(ctx, 9)
        await ctx.tick().repeat(100)
        bench.reading = True
        await ctx.tick().repeat(2000)

    async def listen_unit(ctx):
        while not full:
            await ctx.tick()
        for n in range(12):
            await stream_put(ctx, bench.dut.syn, syn(n))
            await ctx.tick().repeat(1 + n % 3)

    bench.simulate(main, listen_unit)
    order = [event.syncache_ref for event in bench.events if not isinstance(event, abi.FrameEvent)]
    permitted = [event.sack_ok for event in bench.events if isinstance(event, abi.SynReceivedEvent)]
    assert permitted == [n & 1 for n in range(12)]
    assert order == [*range(12), 11] and isinstance(bench.events[-1], abi.ConnectionEvent)


def test_address_of_ipv6_comes_before_its_syn_received():
    """Once for each, between others of IPv4 and ends; the connection that has news comes behind."""
    bench = Bench(TINY.with_(ipv6=True))
    address = 0x20010DB8_0123_4567_89AB_CDEF_FFFF_FF00
    kinds = [(1, 0), (0, 0), (1, 0), (1, 1), (0, 1), (1, 0)]  # IPv6, gone

    async def main(ctx):
        await bench.start(ctx)
        for ref, (v6, gone) in enumerate(kinds):
            await stream_put(ctx, bench.dut.syn, {
                "gone": gone, "syncache_ref": ref, "listener": 1, "mss": 1220, "faddr6": address + ref,
                "tuple": {"laddr": LADDR_V6 if v6 else 0x0A000001, "faddr": 7, "lport": 80, "fport": ref},
            })  # fmt: skip
        await bench.notify(ctx, 9)
        await ctx.tick().repeat(2000)

    bench.simulate(main)
    seen = [
        (event.syncache_ref, event.faddr6_high << 64 | event.faddr6_low)
        if isinstance(event, abi.SynAddressEvent)
        else (type(event), event.syncache_ref)
        for event in bench.events
    ]
    expected = []
    for ref, (v6, gone) in enumerate(kinds):
        expected += [(ref, address + ref)] if v6 and not gone else []
        expected.append((abi.SyncacheGoneEvent if gone else abi.SynReceivedEvent, ref))
    assert seen[:-1] == expected and isinstance(bench.events[-1], abi.ConnectionEvent)


def test_a_flood_of_syns_does_not_hold_up_connections():
    bench = Bench(log2=4)

    async def flood(ctx):
        await bench.start(ctx)
        ctx.set(bench.dut.syn.valid, 1)  # always at the door
        for id in range(4):
            await bench.notify(ctx, id)
        for _ in range(100):
            await ctx.tick().repeat(20)
            if len(bench.of(abi.ConnectionEvent)) == 4:
                break
        assert len(bench.of(abi.ConnectionEvent)) == 4
        ctx.set(bench.dut.syn.valid, 0)
        await bench.settle(ctx)

    bench.simulate(flood)


def test_sources_take_turns():
    bench = Bench()

    async def main(ctx):
        await bench.start(ctx)
        for stream in (bench.dut.syn, bench.dut.done, bench.dut.frame):
            ctx.set(stream.valid, 1)
        await ctx.tick().repeat(1500)
        for stream in (bench.dut.syn, bench.dut.done, bench.dut.frame):
            ctx.set(stream.valid, 0)
        await bench.settle(ctx)

    bench.simulate(main)
    counts = [len(bench.of(kind)) for kind in (abi.SynReceivedEvent, abi.CommandDoneEvent, abi.FrameEvent)]
    assert min(counts) > 10 and max(counts) - min(counts) <= 1


def test_of_several_errors_the_newest_is_kept():
    bench = Bench()
    bench.reading = False

    async def main(ctx):
        await bench.start(ctx)
        await send_all(ctx, bench.dut.frame, [{"slot": n, "length": 60} for n in range(16)])
        await ctx.tick().repeat(100)
        ctx.set(bench.dut.error.valid, 1)
        for n in range(50):
            ctx.set(bench.dut.error.payload, {"code": ErrorCode.BAD_DOORBELL, "argument": n})
            await ctx.tick()
        ctx.set(bench.dut.error.valid, 0)
        bench.reading = True
        await bench.settle(ctx)

    bench.simulate(main)
    told = [event.argument for event in bench.of(abi.ErrorEvent)]
    assert told == [0, 49] and bench.errors == 50


def test_random_lives(rng):
    """All inputs at once, slow host, failing writes: per life of an id monotone positions, one terminal event, last."""
    bench = Bench(seed=rng.random(), log2=4, report_delay=8)
    bench.read_time = 0.05
    bench.fail = lambda: bench.rng.random() < 0.03
    lives = dict.fromkeys(range(16), 0)
    final = {}

    async def tcp(ctx):
        await bench.start(ctx)
        for _ in range(500):
            id = rng.randrange(6)
            tcb = bench.tcbs[id]
            step = rng.random()
            if tcb["terminal"]:
                ended = [event for event in bench.connection(id) if event.terminal and event.tid >> 16 == lives[id]]
                if ended:
                    final[id, lives[id]] = dict(tcb)
                    lives[id] += 1
                    await bench.clear(ctx, id)
                    bench.tcbs[id] = bench.tcb(id, generation=lives[id])
            elif step < 0.45:
                tcb["rcv_nxt_position"] += rng.randrange(3000)
                await bench.place(ctx, id, tcb["rcv_nxt_position"])
            elif step < 0.9:
                tcb["snd_una_position"] += rng.randrange(3000)
                await bench.notify(ctx, id)
            else:
                tcb.update(terminal=1, state=State.CLOSED, reason=Reason.NORMAL)
                await bench.notify(ctx, id)
            await ctx.tick().repeat(rng.randrange(1, 12))
        bench.fail = lambda: False
        bench.read_time = 0.5
        await ctx.tick().repeat(2000)
        await bench.settle(ctx)

    async def others(ctx):
        await send_all(ctx, bench.dut.frame, [{"slot": n, "length": 60} for n in range(60)], idle=0.98, rng=rng)

    bench.simulate(tcp, others)
    assert sum(lives.values()) > 3
    for id in range(6):
        for life in range(lives[id] + 1):
            events = [event for event in bench.connection(id) if event.tid >> 16 == life]
            assert [event.terminal for event in events[:-1]] == [0] * len(events[:-1])
            for field in ("snd_una_position", "rcv_position"):
                values = [getattr(event, field) for event in events]
                assert values == sorted(values)
            last = final.get((id, life), bench.tcbs[id])
            assert events or not (last["snd_una_position"] or last["rcv_nxt_position"])
            if events:
                assert (events[-1].snd_una_position, events[-1].rcv_position, events[-1].terminal) == (
                    last["snd_una_position"],
                    last["rcv_nxt_position"],
                    last["terminal"],
                )


def test_event_rate():
    """Many connections with news: cycles per event with an idle bus."""
    bench = Bench(TINY.with_(connections=64), log2=8, latency=30)
    bench.read_time = 1.0

    async def main(ctx):
        await bench.start(ctx)
        for _ in range(4):
            await bench.notify(ctx, *range(64))
        before = bench.written
        await ctx.tick().repeat(600)
        assert 600 / (bench.written - before) <= 15
        await bench.settle(ctx)

    bench.simulate(main)


def test_frames_are_taken_at_the_ring_s_rate():
    bench = Bench(log2=8, latency=10)

    async def frames(ctx):
        await bench.start(ctx)
        await send_all(ctx, bench.dut.frame, [{"slot": n, "length": 60} for n in range(20)])
        await bench.settle(ctx)

    bench.simulate(frames)
    assert len(bench.events) == 20


def test_report_requests_stop_while_events_wait():
    bench = Bench()
    bench.reading = False

    async def main(ctx):
        await bench.start(ctx)
        await send_all(ctx, bench.dut.frame, [{"slot": n, "length": 60} for n in range(16)])
        await bench.notify(ctx, *range(16))
        await ctx.tick().repeat(500)
        assert bench.reports <= 2
        bench.reading = True
        await bench.settle(ctx)

    bench.simulate(main)
    assert len(bench.of(abi.ConnectionEvent)) == 16


def test_streams_of_commands_and_frames_survive_stalls(rng):
    bench = Bench(seed=rng.random())

    async def done(ctx):
        await send_all(
            ctx,
            bench.dut.done,
            [{"argument": n, "opcode": 1, "status": Status.OK, "tag": n} for n in range(30)],
            idle=0.7,
            rng=rng,
        )

    async def main(ctx):
        await bench.start(ctx)
        for _ in range(20):
            bench.reading = rng.random() < 0.5
            await ctx.tick().repeat(60)
        bench.reading = True
        await bench.settle(ctx)

    bench.simulate(main, done)
    assert [event.tag for event in bench.of(abi.CommandDoneEvent)] == list(range(30))


def test_largest_engine_builds():
    """65,536 ids: the memories elaborate at that size, the scrub comes to its end."""
    dut = EventWriter(TINY.with_(connections=65536, syncache_entries=4))
    got = []

    async def main(ctx):
        await ctx.tick().until(dut.ready)
        ctx.set(dut.enable, 1)
        for id in (65535, 0, 32768):
            ctx.set(dut.notify.valid, 1)
            ctx.set(dut.notify.payload, id)
            await ctx.tick()
        ctx.set(dut.notify.valid, 0)
        got.extend(await recv_n(ctx, dut.report_request, 2))

    run_bench(dut, main, max_cycles=70_000)
    assert got == [65535, 0]
