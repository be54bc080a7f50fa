"""RELEASE waits for what was issued before it, for nothing else, and never for ever. The command processor alone."""

import pytest

from tests.hdl.host.command_bench import TUPLE, Bench, ports, provision, release, tid
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.host.abi import Opcode
from tiptoe_hdl.host.in_flight import COUNT_BITS, InFlight
from tiptoe_hdl.messages import FlowOp, Status, TableOp
from tiptoe_verif.streams import run_bench, stream_put

DONE = (2, Opcode.RELEASE, Status.OK, tid(5, 1))


class Counts:
    """The counts of received frames and segments that the other blocks keep."""

    def __init__(self, ctx, dut, start=0):
        self.ctx, self.dut = ctx, dut
        self.values = {f"{what}_{end}": start for what in ("arrivals", "segments") for end in ("issued", "done")}
        self.go()

    def go(self, **more):
        for name, count in more.items():
            self.values[name] += count
        for name, value in self.values.items():
            self.ctx.set(getattr(self.dut, name), value % 2**COUNT_BITS)

    async def each(self, name, count, wait=1):
        """One at a time, as the blocks do."""
        for _ in range(count):
            self.go(**{name: 1})
            await self.ctx.tick().repeat(wait)


async def begin(ctx, bench, start=0, **under_way):
    """Until RELEASE waits for what is under way."""
    counts = Counts(ctx, bench.dut, start)
    counts.go(**{f"{what}_issued": count for what, count in under_way.items()})
    await bench.run(ctx, provision(1, 5, stock=1), release(2, 5))
    return counts


def test_waits_for_both_whichever_is_last():
    bench = Bench()

    async def main(ctx):
        counts = await begin(ctx, bench, start=254, arrivals=5, segments=1)  # the counts wrap
        counts.go(arrivals_issued=6, segments_issued=8)  # what is issued later does not count
        await counts.each("arrivals_done", 5)
        await ctx.tick().repeat(20)
        assert bench.done == []
        await counts.each("segments_done", 1)
        await ctx.tick().repeat(20)
        assert bench.done == [DONE]

    bench.simulate(main)
    assert ports(bench)[5:] == ["table", "flow"]
    assert bench.log[5][1] == {"op": TableOp.DELETE, "tuple": TUPLE, "is_syncache": 0, "index": 5}
    assert bench.log[6][1]["op"] == FlowOp.RELEASE


@pytest.mark.parametrize("slow, quick", [("segments", "arrivals"), ("arrivals", "segments")])
@pytest.mark.parametrize("pass_by", [1, 127, 128, 129, 255, 256, 300, 700])
def test_any_number_may_pass_by_while_the_other_side_is_slow(slow, quick, pass_by):
    bench = Bench()

    async def main(ctx):
        counts = await begin(ctx, bench, **{slow: 1, quick: 1})
        for _ in range(pass_by):
            counts.go(**{f"{quick}_issued": 1})
            await counts.each(f"{quick}_done", 1)
        assert bench.done == []
        counts.go(**{f"{slow}_issued": 60})  # and it goes on being slow
        await counts.each(f"{slow}_done", 1)
        await ctx.tick().repeat(8)
        assert bench.done == [DONE]

    bench.simulate(main)


def test_the_second_release_waits_anew():
    bench = Bench()

    async def main(ctx):
        counts = await begin(ctx, bench)
        assert bench.done == [DONE]
        counts.go(arrivals_issued=1)
        await bench.run(ctx, provision(3, 5, 2, stock=1), release(4, 5, 2))
        assert bench.done == [DONE]
        await counts.each("arrivals_done", 1)
        await ctx.tick().repeat(8)
        assert bench.done[1:] == [(4, Opcode.RELEASE, Status.OK, tid(5, 2))]

    bench.simulate(main)


@pytest.mark.parametrize("status", [Status.OK, Status.BAD_STATE])
def test_a_received_frame_that_waits_for_its_abort(status):
    """Two writes have failed: placement tells of the second one when the first is taken, so RELEASE has to take it."""
    bench = Bench()
    bench.status = {"flow": [Status.OK, Status.OK, status, status]}

    async def main(ctx):
        counts = await begin(ctx, bench, arrivals=2)
        for id in (7, 8):
            await stream_put(ctx, bench.dut.abort, {"id": id})
            counts.go(arrivals_done=1)
        await bench.idle(ctx)
        assert bench.done == [DONE], "the status is that of RELEASE"

    bench.simulate(main)
    flow = [payload for port, payload in bench.said("flow")]
    assert [(payload["op"], payload["id"]) for payload in flow[2:]] == [(FlowOp.DMA_ABORT, 7), (FlowOp.DMA_ABORT, 8)]
    assert [id for _, id in bench.said("broken")] == [7, 8]


def test_aborts_are_served_while_send_frame_waits_for_a_host_that_does_not_read():
    bench = Bench()
    bench.done_stall = 1.0

    async def main(ctx):
        bench.post(*(abi.pack_send_frame(n, addr=0x1000, length=60) for n in range(12)))
        await bench.ring(ctx)
        await ctx.tick().repeat(400)
        for id in range(3):
            await stream_put(ctx, bench.dut.abort, {"id": id})
        await ctx.tick().repeat(100)
        assert [id for _, id in bench.said("broken")] == [0, 1, 2]
        bench.done_stall = 0.0
        await bench.idle(ctx)
        assert sorted(entry[0] for entry in bench.done) == list(range(12))

    bench.simulate(main)


def test_in_flight_against_a_model_for_any_pace(rng):
    dut = InFlight()

    async def main(ctx):
        issued = done = ended = 0
        target = None
        for cycle in range(20_000):
            if cycle % 500 == 0:
                pace = rng.random(), rng.random()
            if rng.random() < pace[0] and issued - done < 2**COUNT_BITS - 1:
                issued += 1
            if rng.random() < pace[1] and done < issued:
                done += 1
            note = target is None and rng.random() < 0.05
            ctx.set(dut.issued, issued % 2**COUNT_BITS)
            ctx.set(dut.done, done % 2**COUNT_BITS)
            ctx.set(dut.note, note)
            if note:
                target, reached = issued, None
            await ctx.tick()
            if target is not None and not note:
                if done >= target and reached is None:
                    reached = cycle
                if ctx.get(dut.none):
                    assert done >= target
                    target, ended = None, ended + 1
                else:
                    assert reached is None or cycle - reached < 2, "the wait goes on for no reason"
        assert ended > 200

    run_bench(dut, main, max_cycles=30_000)
