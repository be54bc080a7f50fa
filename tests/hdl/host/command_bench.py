"""A command processor between the host's command ring and models of the blocks it asks."""

import random

import pytest

from tests.widths import SLOW_TESTS_WIDTHS
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.command_fetch import SLOT_COMMANDS
from tiptoe_hdl.host.commands import CommandProcessor
from tiptoe_hdl.messages import Status
from tiptoe_verif.streams import run_bench, stream_put, to_py, watch_stream

BASE = 0x10000
LOG2 = 4
WIDE = pytest.mark.parametrize("width", SLOW_TESTS_WIDTHS)
TUPLE = {"laddr": 0x0A000001, "faddr": 0x0A000002, "lport": 80, "fport": 0xFFFF}
PROVISION = {"snd_base": 0x4000, "rcv_base": 0x20000, "snd_log2": 12, "rcv_log2": 16}
OPEN = {
    **TUPLE, "dmac": 0x0200_5E00_5301, "use_next_hop": 0, "next_hop": 0, "mss": 1460, "rcv_scale": 2, "ecn": 0,
    "faddr6_low": 0, "faddr6_high": 0,
}  # fmt: skip


class Bench:
    """A command processor, the host's command ring, and models of the other blocks.

    ``log`` holds (port, payload) of everything the processor said, in order; ``status`` gives, by port, the
    answers to come (OK when there is none).
    """

    def __init__(self, cfg=TINY, seed=1, delay=0, latency=5, log2=LOG2):
        self.cfg, self.log2, self.delay, self.latency = cfg, log2, delay, latency
        self.rng = random.Random(seed)
        self.dut = CommandProcessor(cfg)
        self.memory = bytearray(1 << 18)
        self.tail = 0
        self.log, self.done, self.errors, self.reads = [], [], [], []
        self.values, self.ip_headers = [], []
        self.status = {}
        self.bad_addresses = set()
        self.bad_count = 0
        self.done_stall = 0.0
        self.frame_delay = 40

    def post(self, *commands):
        """Write commands into the ring; returns the new tail."""
        for command in commands:
            at = BASE + (self.tail % (1 << self.log2)) * abi.COMMAND_BYTES
            self.memory[at : at + abi.COMMAND_BYTES] = command
            self.tail = (self.tail + 1) % 2**32
        return self.tail

    async def ring(self, ctx):
        ctx.set(self.dut.tail, self.tail)

    async def run(self, ctx, *commands):
        """Post commands, wait until they are done."""
        size = 1 << self.log2
        for command in commands:
            while (self.tail - ctx.get(self.dut.head)) % 2**32 >= size:
                await ctx.tick()
            self.post(command)
            await self.ring(ctx)
        await self.idle(ctx)

    async def idle(self, ctx, quiet=30):
        """Until the ring is read and nothing was said for some time."""
        last = None
        for _ in range(3000):
            now = (len(self.log), len(self.done), len(self.errors), ctx.get(self.dut.head))
            if now == last and now[3] == self.tail:
                return
            last = now
            await ctx.tick().repeat(quiet + 8 * self.delay + self.latency)
        raise AssertionError("never idle")

    def said(self, *ports):
        return [entry for entry in self.log if not ports or entry[0] in ports]

    def start(self, ctx):
        dut = self.dut
        ctx.set(dut.enable, 1)
        ctx.set(dut.base, BASE)
        ctx.set(dut.log2, self.log2)

    # ---- models

    async def pause(self, ctx):
        for _ in range(self.rng.randrange(self.delay + 1)):
            await ctx.tick()

    def asked(self, name, answer=None, value=None):
        """A block that takes payloads from port ``name`` and answers at ``answer``."""
        port = getattr(self.dut, name)

        async def block(ctx):
            while True:
                await self.pause(ctx)
                ctx.set(port.ready, 1)
                (payload,) = await ctx.tick().sample(port.payload).until(port.valid)
                ctx.set(port.ready, 0)
                self.log.append((name, to_py(payload)))
                if answer:
                    await self.pause(ctx)
                    todo = self.status.get(name)
                    result = value if value is not None else {"status": todo.pop(0) if todo else Status.OK}
                    await stream_put(ctx, getattr(self.dut, answer), result)

        return block

    def pulses(self, name):
        port = getattr(self.dut, name)

        async def block(ctx):
            async for _, _, valid, payload in ctx.tick().sample(port.valid, port.payload):
                if valid:
                    self.log.append((name, to_py(payload)))

        return block

    async def watch(self, ctx):
        dut = self.dut
        async for _, _, valid, error, bad in ctx.tick().sample(
            dut.error.valid, dut.error.payload, dut.count_bad_command
        ):
            if valid:
                self.errors.append((error.code, error.argument))
            self.bad_count += bad

    async def ip_header_writes(self, ctx):
        port = self.dut.ip_header
        async for _, _, valid, payload in ctx.tick().sample(port.valid, port.payload):
            if valid:
                ttl_tos = (payload.ttl, payload.tos) if payload.own else None
                self.ip_headers.append((payload.id, ttl_tos))

    async def host(self, ctx):
        port = self.dut.done
        while True:
            ready = self.rng.random() >= self.done_stall
            ctx.set(port.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(port.valid, port.payload)
            if ready and valid:
                self.done.append((payload.tag, payload.opcode, payload.status, payload.argument))
                self.values.append(payload.value)

    async def reader(self, ctx):
        """DMA reader: takes requests at once, data later; AXI errors at ``bad_addresses``."""
        dut, step = self.dut, self.cfg.bytes_per_beat
        queue = []

        async def take():
            ctx.set(dut.request.ready, self.rng.random() < 0.7)

        now = 0
        while True:
            await take()
            word = None
            if queue and queue[0][0] <= now:
                if self.rng.random() < 1 / (1 + self.delay / 4):
                    word = queue[0][1][0]
                    ctx.set(dut.data.payload, word)
            ctx.set(dut.data.valid, word is not None)
            _, _, valid, ready, request, data_ready = await ctx.tick().sample(
                dut.request.valid, dut.request.ready, dut.request.payload, dut.data.ready
            )
            assert data_ready, "the processor asked for more than it has room for"
            now += 1
            if word is not None:
                queue[0][1].pop(0)
                if not queue[0][1]:
                    queue.pop(0)
            if valid and ready:
                addr, length = request.addr, request.length
                assert addr % 64 == 0 and length % 64 == 0 and 0 < length <= 64 * SLOT_COMMANDS
                assert BASE <= addr and addr + length <= BASE + (64 << self.log2), "outside the ring"
                assert request.wrap_log2 == 0
                self.reads.append(length // 64)
                error = any(addr <= bad < addr + length for bad in self.bad_addresses)
                beats = [
                    {
                        "data": int.from_bytes(self.memory[at : at + step], "little"),
                        "last": at + step == addr + length,
                        "error": error and at + step == addr + length,
                    }
                    for at in range(addr, addr + length, step)
                ]
                queue.append((now + self.latency, beats))

    async def frames(self, ctx):
        """Transmit path: takes frames, tells of them later, in order."""
        dut, queue = self.dut, []
        now = 0
        while True:
            ctx.set(dut.frame.ready, self.rng.random() < 0.5)
            offer = bool(queue) and queue[0][0] <= now
            ctx.set(dut.frame_done.valid, offer)
            if offer:
                ctx.set(dut.frame_done.payload, {"status": queue[0][1]})
            _, _, valid, ready, payload, taken = await ctx.tick().sample(
                dut.frame.valid, dut.frame.ready, dut.frame.payload, dut.frame_done.ready
            )
            assert taken or not offer, "a finished frame must never wait"
            now += 1
            if offer:
                queue.pop(0)
            if valid and ready:
                self.log.append(("frame", to_py(payload)))
                todo = self.status.get("frame")
                queue.append((now + self.rng.randrange(self.frame_delay), todo.pop(0) if todo else Status.OK))
                assert len(queue) <= 8

    def simulate(self, *benches, max_cycles=60_000):
        dut = self.dut

        async def begin(ctx):
            self.start(ctx)

        models = [
            self.asked("flow", "flow_status"),
            self.asked("table", "table_status"),
            self.asked("isn_request", "isn", value=0xFFFFFFF0),
            self.asked("endpoint"),
            self.asked("stock"),
            self.asked("broken"),
            self.asked("listen", "listen_status"),
            self.asked("drop", "drop_status"),
            self.pulses("snd_ring"),
            self.pulses("rcv_ring"),
            self.pulses("clear"),
            self.pulses("next_hop"),
            self.watch,
            self.ip_header_writes,
            self.host,
            self.reader,
            self.frames,
        ]
        watched = (
            "flow",
            "table",
            "isn_request",
            "endpoint",
            "stock",
            "listen",
            "drop",
            "frame",
            "broken",
            "done",
            "request",
        )
        run_bench(
            dut,
            begin,
            *benches,
            max_cycles=max_cycles,
            key=repr(self.cfg),
            background=[*models, *(watch_stream(getattr(dut, name), name) for name in watched)],
        )


def tid(id, generation=0):
    return id | generation << 16


def provision(tag, id, generation=1, stock=0, **changes):
    return abi.pack_provision(tag, tid=tid(id, generation), stock=stock, **{**PROVISION, **changes})


def open_(tag, id, generation=1, **changes):
    return abi.pack_open(tag, tid=tid(id, generation), **{**OPEN, **changes})


def release(tag, id, generation=1, **changes):
    return abi.pack_release(tag, tid=tid(id, generation), **{**TUPLE, **changes})


def run(*commands, bench=None, **status):
    """Execute commands on a new processor, with the given answers of other blocks."""
    bench = bench or Bench()
    bench.status = {name: list(answers) for name, answers in status.items()}

    async def main(ctx):
        await bench.run(ctx, *commands)

    bench.simulate(main)
    assert bench.bad_count == sum(entry[2] != Status.OK for entry in bench.done)
    return bench


def ports(bench):
    return [name for name, _ in bench.log]
