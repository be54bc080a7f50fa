"""The event ring: every field of an entry, the phase, a host that does not read, failed writes."""

import pytest

from tests.hdl.host.event_bench import WIDE, Bench, one, random_fields
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.abi import ErrorCode, EventType
from tiptoe_hdl.host.event_ring import SLOTS
from tiptoe_hdl.host.events import event_entry
from tiptoe_hdl.messages import Reason, State, Status
from tiptoe_verif.streams import send_all, stream_put


@WIDE
def test_every_field_of_a_connection_event(width, rng):
    cfg = TINY.with_(data_width=width)
    tcb = {
        "id": 13,
        "generation": 0xA5,
        "state": State.CLOSE_WAIT,
        "established": 1,
        "peer_closed": 1,
        "terminal": 0,
        "bad_doorbell": 1,
        "reason": Reason.PEER_RESET,
        "syncache_ref": 0xBEEF,
        "mss": 1400,
        "snd_scale": 7,
        "rcv_scale": 14,
        "iss": 0xFFFFFFFE,
        "irs": 0x12345678,
        "snd_una_position": 0x87654321,
        "rcv_nxt_position": 0xFEDCBA98,
        "ts_ok": 1,
        "urgent": 1,
        "rcv_up": 0x8BADF00D,
    }
    bench = Bench(cfg)
    bench.tcbs[13] = tcb

    async def place(bench, ctx):
        await bench.place(ctx, 13, 0xFEDCBA98)

    (event,) = one(place, bench=bench).events
    expected = {
        **{name: getattr(value, "value", value) for name, value in tcb.items()},
        "tid": 13 | 0xA5 << 16,
        "rcv_position": 0xFEDCBA98,
    }
    assert event._asdict() == {name: expected[name] for name in event._fields}


@WIDE
def test_every_field_of_the_other_events(width, rng):
    bench = Bench(TINY.with_(data_width=width))
    syn = random_fields(EventType.SYN_RECEIVED, rng)
    done = {"argument": 0xFFEEDDCC, "opcode": 0xAB, "status": Status.EXISTS, "tag": 0x8001, "value": 0xFEDCBA9876543210}

    async def say(bench, ctx):
        dut = bench.dut
        tuple_ = {name: syn[name] for name in ("laddr", "faddr", "lport", "fport")}
        rest = {name: value for name, value in syn.items() if name not in tuple_}
        await stream_put(ctx, dut.syn, {"gone": 0, "tuple": tuple_, **rest})
        await stream_put(ctx, dut.syn, {"gone": 1, "tuple": tuple_, **rest})
        await stream_put(ctx, dut.done, done)
        await stream_put(ctx, dut.frame, {"slot": 0x1234, "length": 1514})
        ctx.set(dut.error.payload, {"code": ErrorCode.PAYLOAD_READ, "argument": 0x80000001})
        ctx.set(dut.error.valid, 1)
        await ctx.tick()
        ctx.set(dut.error.valid, 0)

    one(say, bench=bench)
    assert bench.events == [
        abi.SynReceivedEvent(**syn),
        abi.SyncacheGoneEvent(syn["syncache_ref"], syn["listener"]),
        abi.CommandDoneEvent(0xFFEEDDCC, 0xAB, Status.EXISTS.value, 0x8001, 0xFEDCBA9876543210),
        abi.FrameEvent(0x1234, 1514),
        abi.ErrorEvent(ErrorCode.PAYLOAD_READ, 0x80000001),
    ]
    assert bench.errors == 1


def test_entry_needs_exactly_the_fields_of_its_event():
    with pytest.raises(ValueError, match=r"FRAME has the fields \['length', 'slot'\], not \['slot'\]"):
        event_entry(EventType.FRAME, slot=1)
    with pytest.raises(ValueError, match="FRAME.length has 16 bits, not 17"):
        event_entry(EventType.FRAME, slot=1, length=0x1FFFF)


@WIDE
@pytest.mark.parametrize("latency", [1, 60])
def test_phase_alternates_from_pass_to_pass(width, latency):
    """The host finds every event by its phase bit alone, over several passes of the smallest ring."""
    bench = Bench(TINY.with_(data_width=width), latency=latency)

    async def frames(bench, ctx):
        await send_all(ctx, bench.dut.frame, [{"slot": n, "length": n} for n in range(70)])

    one(frames, bench=bench)
    assert bench.events == [abi.FrameEvent(n, n) for n in range(70)]
    assert bench.most_in_flight <= SLOTS and (latency == 1 or bench.most_in_flight == SLOTS)


@pytest.mark.parametrize("before", [0, 20])
@pytest.mark.parametrize("wrong", [1, 17, 1 << 20, 1 << 31, -1])
def test_a_consumer_that_no_host_can_have_reached_is_ignored(before, wrong):
    """Between the count before and the producer a count is taken over; one beyond either is told of, once, and frees nothing."""
    bench = Bench()
    frames = [{"slot": n, "length": 60} for n in range(before + 40)]

    async def feed(ctx):
        await send_all(ctx, bench.dut.frame, frames)

    async def main(ctx):
        await bench.start(ctx)
        while bench.consumed < before:
            await ctx.tick()
        bench.reading = False
        await ctx.tick().repeat(1500)
        assert bench.written == bench.consumed + 16  # the ring is full
        assert not bench.errors
        good = bench.consumed
        ctx.set(bench.dut.consumer, (good + wrong + (16 if wrong > 0 else 0)) % 2**32)
        await ctx.tick().repeat(300)
        assert bench.errors == 1 and bench.written == good + 16
        ctx.set(bench.dut.consumer, good)  # as before: nothing new, no fault
        await ctx.tick().repeat(300)
        assert bench.errors == 1 and bench.written == good + 16
        bench.reading = True
        await bench.settle(ctx)

    bench.simulate(main, feed)
    told = [event for event in bench.events if isinstance(event, abi.ErrorEvent)]
    assert [event.code for event in told] == [ErrorCode.BAD_EVENT_CONSUMER]
    assert [event for event in bench.events if isinstance(event, abi.FrameEvent)] == [
        abi.FrameEvent(n, 60) for n in range(before + 40)
    ]


def test_never_overtakes_the_host():
    bench = Bench()
    bench.reading = False

    async def frames(ctx):
        await send_all(ctx, bench.dut.frame, [{"slot": n, "length": 60} for n in range(40)])

    async def main(ctx):
        await bench.start(ctx)
        await ctx.tick().repeat(1000)
        assert bench.written == 16 and ctx.get(bench.dut.producer) == 16 and ctx.get(bench.dut.pending)
        assert bench.full == pytest.approx((1000 - 200) / 256, abs=1.5)
        bench.reading = True
        await bench.settle(ctx)
        await ctx.tick().repeat(3)
        assert not ctx.get(bench.dut.pending)

    bench.simulate(main, frames)
    assert bench.events == [abi.FrameEvent(n, 60) for n in range(40)]


@pytest.mark.parametrize("log2", [0, 3, 21, 31])
def test_a_ring_of_a_wrong_size_is_not_written(log2):
    bench = Bench()

    async def main(ctx):
        await bench.start(ctx)
        ctx.set(bench.dut.log2, log2)
        await ctx.tick().repeat(5)
        ctx.set(bench.dut.frame.valid, 1)
        await ctx.tick().repeat(400)
        assert ctx.get(bench.dut.producer) == 0 and bench.full > 0
        ctx.set(bench.dut.frame.valid, 0)

    bench.simulate(main)


def test_failed_writes_are_repeated_and_told():
    bench = Bench(seed=4, latency=10)
    bench.fail = lambda: bench.rng.random() < 0.3

    async def frames(bench, ctx):
        await send_all(ctx, bench.dut.frame, [{"slot": n, "length": 60} for n in range(40)])
        await ctx.tick().repeat(3000)
        bench.fail = lambda: False
        await ctx.tick().repeat(2000)

    one(frames, bench=bench)
    assert bench.of(abi.FrameEvent) == [abi.FrameEvent(n, 60) for n in range(40)]
    told = bench.of(abi.ErrorEvent)
    assert told and all(event.code == ErrorCode.EVENT_WRITE for event in told)
    assert bench.errors >= len(told)


def test_nothing_is_written_while_disabled():
    bench = Bench()

    async def main(ctx):
        await bench.start(ctx)
        ctx.set(bench.dut.enable, 0)
        await bench.notify(ctx, 3)
        await stream_put_later(ctx)
        assert bench.events == [] and bench.reports == 0
        ctx.set(bench.dut.enable, 1)
        await bench.settle(ctx)
        assert len(bench.events) == 2

    async def stream_put_later(ctx):
        ctx.set(bench.dut.frame.valid, 1)
        await ctx.tick().repeat(200)

    async def frame(ctx):
        await ctx.tick().until(bench.dut.frame.ready)
        ctx.set(bench.dut.frame.valid, 0)

    bench.simulate(main, frame)
