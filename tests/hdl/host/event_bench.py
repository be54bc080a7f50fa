"""An event writer between models of the pipeline and the DMA writer, and the host that reads the ring."""

import random

import pytest

from tests.widths import SLOW_TESTS_WIDTHS
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.abi import EVENTS
from tiptoe_hdl.host.events import EventWriter
from tiptoe_hdl.messages import Reason, State
from tiptoe_verif.streams import run_bench, stream_put, watch_stream

BASE = 0x8000
WIDE = pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)


class Bench:
    """An event writer whose events the host reads by phase bit, as a driver does.

    ``tcbs`` is the pipeline's state by id; ``report`` reads it. ``events`` are those the host read.
    """

    def __init__(self, cfg=TINY, seed=1, log2=4, report_delay=15, latency=20):
        self.cfg, self.log2, self.report_delay, self.latency = cfg, log2, report_delay, latency
        self.rng = random.Random(seed)
        self.dut = EventWriter(cfg)
        self.ring = bytearray((32 << log2) + BASE)
        self.tcbs = {id: self.tcb(id) for id in range(cfg.connections)}
        self.events = []
        self.consumed = 0
        self.interrupts = self.errors = self.written = self.full = 0
        self.reading = True
        self.fail = lambda: False
        self.in_flight = self.most_in_flight = 0
        self.reports = 0
        self.read_time = 0.5

    @staticmethod
    def tcb(id, **changes):
        return {
            "id": id,
            "generation": 0,
            "state": State.ESTABLISHED,
            "established": 1,
            "peer_closed": 0,
            "terminal": 0,
            "bad_doorbell": 0,
            "reason": Reason.NONE,
            "syncache_ref": 0,
            "mss": 1460,
            "snd_scale": 0,
            "rcv_scale": 0,
            "iss": 0,
            "irs": 0,
            "snd_una_position": 0,
            "rcv_nxt_position": 0,
            "urgent": 0,
            "rcv_up": 0,
            **changes,
        }

    async def start(self, ctx):
        dut = self.dut
        ctx.set(dut.base, BASE)
        ctx.set(dut.log2, self.log2)
        await ctx.tick().until(dut.ready)
        ctx.set(dut.enable, 1)

    async def notify(self, ctx, *ids):
        """Marks ids, one each cycle."""
        dut = self.dut
        for id in ids:
            ctx.set(dut.notify.valid, 1)
            ctx.set(dut.notify.payload, id)
            await ctx.tick()
        ctx.set(dut.notify.valid, 0)

    async def place(self, ctx, id, upto):
        await stream_put(ctx, self.dut.placed, {"id": id, "upto": upto})

    async def clear(self, ctx, id):
        ctx.set(self.dut.clear.payload, id)
        ctx.set(self.dut.clear.valid, 1)
        await ctx.tick()
        ctx.set(self.dut.clear.valid, 0)

    async def settle(self, ctx):
        """Until nothing came for some time."""
        last = -1
        while last != len(self.events):
            last = len(self.events)
            await ctx.tick().repeat(150 + 2 * self.latency + 4 * self.report_delay)

    def of(self, kind, **fields):
        return [
            event
            for event in self.events
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items())
        ]

    def connection(self, id):
        return [event for event in self.of(abi.ConnectionEvent) if event.tid & 0xFFFF == id]

    # ---- models

    async def pipeline(self, ctx):
        """Answers report requests in order, after a while, with the state at that time."""
        dut, queue, now = self.dut, [], 0
        while True:
            ctx.set(dut.report_request.ready, self.rng.random() < 0.7)
            offer = bool(queue) and queue[0][0] <= now
            if offer and queue[0][2] is None:
                queue[0][2] = dict(self.tcbs[queue[0][1]])
                ctx.set(dut.report.payload, queue[0][2])
            ctx.set(dut.report.valid, offer)
            _, _, valid, ready, id, taken = await ctx.tick().sample(
                dut.report_request.valid, dut.report_request.ready, dut.report_request.payload, dut.report.ready
            )
            now += 1
            if offer and taken:
                queue.pop(0)
            if valid and ready:
                self.reports += 1
                queue.append([now + self.report_delay, id, None])
                assert len(queue) <= 2

    async def writer(self, ctx):
        """DMA writer: memory changes when the write is acknowledged; failed writes change nothing."""
        dut, step, now = self.dut, self.cfg.bytes_per_beat, 0
        requests, acknowledged, words = [], [], []
        while True:
            ctx.set(dut.request.ready, self.rng.random() < 0.5)
            ctx.set(dut.data.ready, bool(requests) and self.rng.random() < 0.8)
            offer = bool(acknowledged) and acknowledged[0][0] <= now
            if offer and acknowledged[0][1] is None:
                failed = acknowledged[0][1] = self.fail()
                addr, payload = acknowledged[0][2:]
                if not failed:
                    self.ring[addr : addr + 32] = payload
                ctx.set(dut.dma_done.payload, {"error": failed})
            ctx.set(dut.dma_done.valid, offer)
            _, _, valid, ready, request, has_data, data_ready, word, taken = await ctx.tick().sample(
                dut.request.valid,
                dut.request.ready,
                dut.request.payload,
                dut.data.valid,
                dut.data.ready,
                dut.data.payload,
                dut.dma_done.ready,
            )
            now += 1
            if offer and taken:
                acknowledged.pop(0)
                self.in_flight -= 1
            if valid and ready:
                assert request.length == 32 and request.addr % 32 == 0 and request.wrap_log2 == 0
                assert BASE <= request.addr < len(self.ring), "outside the ring"
                requests.append(request.addr)
                self.in_flight += 1
                self.most_in_flight = max(self.in_flight, self.most_in_flight)
            if has_data and data_ready:
                words.append(word.to_bytes(step, "little"))
                if len(words) == 32 // step:
                    acknowledged.append([now + self.latency, None, requests.pop(0), b"".join(words)])
                    words.clear()

    async def host(self, ctx):
        """Reads entries while their phase is right, then says so."""
        while True:
            await ctx.tick()
            if not self.reading or self.rng.random() > self.read_time:
                continue
            at = BASE + 32 * (self.consumed % (1 << self.log2))
            if abi.event_phase(self.ring, at) == 1 - (self.consumed >> self.log2) % 2:
                self.events.append(abi.unpack_event(self.ring, at))
                self.consumed += 1
                ctx.set(self.dut.consumer, self.consumed % 2**32)

    async def watch(self, ctx):
        dut = self.dut
        async for _, _, event, error, written, full in ctx.tick().sample(
            dut.event_irq, dut.error_irq, dut.count_events_written, dut.count_event_ring_full
        ):
            self.interrupts += event
            self.errors += error
            self.written += written
            self.full += full

    def simulate(self, *benches, max_cycles=60_000):
        dut = self.dut
        run_bench(
            dut,
            *benches,
            max_cycles=max_cycles,
            key=repr(self.cfg),
            background=[
                self.pipeline,
                self.writer,
                self.host,
                self.watch,
                *(
                    watch_stream(port, name)
                    for port, name in (
                        (dut.report_request, "report_request"),
                        (dut.request, "request"),
                        (dut.data, "data"),
                    )
                ),
            ],
        )
        assert self.in_flight == 0 and self.written == self.interrupts == self.consumed


def one(*steps, bench=None):
    """Run the steps (async functions of bench and context) on a new writer."""
    bench = bench or Bench()

    async def main(ctx):
        await bench.start(ctx)
        for step in steps:
            await step(bench, ctx)
        await bench.settle(ctx)

    bench.simulate(main)
    return bench


def random_fields(event, rng):
    return {name: rng.getrandbits(width) for name, _, _, width in EVENTS[event]}
