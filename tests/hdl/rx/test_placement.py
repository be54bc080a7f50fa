"""Placement with the receive buffer: every byte to its place, nothing else touched, reports in order and in time."""

import random
from dataclasses import dataclass

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests.configs import JUMBO
from tests.widths import WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.abi import HOST_FRAME_SLOT_BYTES, ErrorCode, host_frame_slot_bytes
from tiptoe_hdl.rx.buffer import RxBuffer, store_port
from tiptoe_hdl.rx.conclude import NO_ID
from tiptoe_hdl.rx.placement import Placement
from tiptoe_verif.streams import recv_n, run_bench, send_all, stream_get, to_py, watch_stream

HOST_BASE = 0x7_0000
HOST_LOG2 = 4


@dataclass
class Frame:
    """A stored frame and what is to become of it; ``verdict`` if the pipeline is asked."""

    data: bytes
    to_host: int = 0
    offset: int = 56
    verdict: dict | None = None

    @property
    def info(self):
        return {
            "ask": int(self.verdict is not None), "to_host": self.to_host, "payload_offset": self.offset,
            "frame_length": len(self.data),
        }  # fmt: skip

    @property
    def payload(self) -> bytes:
        """The bytes the verdict wants: the offset counts from two bytes before the frame."""
        start = self.offset - 2 + self.verdict["skip"]
        return self.data[start : start + self.verdict["length"]]


@dataclass
class Ring:
    base: int
    log2: int

    def address(self, position: int) -> int:
        return self.base + position % (1 << self.log2)


_PORTS = ("info", "verdict", "ring", "request", "data", "done", "placed", "abort", "error", "frame")
"""Of the placement, as they are."""


class Back(wiring.Component):
    """Buffer and placement, as in the engine."""

    def __init__(self, cfg, host_log2=HOST_LOG2):
        self.cfg, self._host_log2 = cfg, host_log2
        self.key = repr((cfg, host_log2))
        self.buffer = RxBuffer(cfg)
        self.placement = Placement(cfg)
        super().__init__({
            "store": In(store_port(cfg)), "room": Out(1),
            "level": self.buffer.signature.members["level"],
            "host_consumer": In(16), "host_enable": In(1), "arrivals_done": Out(8), "count_rx_host_dropped": Out(1),
            **{name: self.placement.signature.members[name] for name in _PORTS},
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer, m.submodules.placement = self.buffer, self.placement
        wiring.connect(m, wiring.flipped(self.store), self.buffer.store)
        wiring.connect(m, self.placement.read, self.buffer.read)
        for name in _PORTS:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(self.placement, name))
        m.d.comb += [
            self.room.eq(self.buffer.room), self.level.eq(self.buffer.level),
            self.arrivals_done.eq(self.placement.arrivals_done),
            self.count_rx_host_dropped.eq(self.placement.count_rx_host_dropped),
            self.placement.host_base.eq(HOST_BASE), self.placement.host_slots_log2.eq(self._host_log2),
            self.placement.host_consumer.eq(self.host_consumer), self.placement.host_enable.eq(self.host_enable),
        ]  # fmt: skip
        return m


class Bench:
    """Feeds frames, plays the DMA writer on a memory of single bytes, and collects all that comes out.

    ``latency``: cycles from a write's last word to its ``done``. ``fails``: says of a request's address whether its write
    fails. ``consume``: the host takes frames at once.
    """

    def __init__(self, frames, rings, *, width=64, idle=0.0, stall=0.0, latency=10, seed=1, fails=None,
                 consume=True, host_enable=True, host_log2=HOST_LOG2, cfg=TINY):  # fmt: skip
        self.frames, self.rings, self.width = frames, rings, width
        self.idle, self.stall, self.latency, self.seed = idle, stall, latency, seed
        self.fails, self.consume, self.host_enable = fails or (lambda address: False), consume, host_enable
        self.dut, self.host_log2 = Back(cfg.with_(data_width=width), host_log2), host_log2
        self.slot_bytes = host_frame_slot_bytes(cfg.max_frame_bytes)
        self.memory, self.requests, self.done = {}, [], []
        self.placed, self.aborted, self.events, self.errors = [], [], [], []
        self.dropped = self.now = self.first_word = self.last_word = self.words = 0
        self.consumer = 0  # host frames taken, as the host says before the first
        self.finished = {}  # arrivals_done to the cycle it came
        self.hold = False  # infos wait until all frames are stored

    def draw(self, name):
        return random.Random(f"{self.seed}:{name}")

    def run(self, max_cycles=30_000):
        p = self.dut
        run_bench(
            self.dut, self.source, self.infos, self.verdicts, self.ending,
            background=[self.asked, self.writes, self.answers, self.clock]
            + [self.collect(p.placed, self.placed), self.collect(p.abort, self.aborted)]
            + [self.collect(p.frame, self.events)]
            + [watch_stream(getattr(p, n), n) for n in ("request", "data", "placed", "abort", "frame")],
            max_cycles=max_cycles, key=self.dut.key,
        )  # fmt: skip
        return self

    async def clock(self, ctx):
        p = self.dut
        async for _, _, dropped, valid, payload, finished in ctx.tick().sample(
            p.count_rx_host_dropped, p.error.valid, p.error.payload, p.arrivals_done
        ):
            self.now += 1
            self.finished.setdefault(finished, self.now)
            self.dropped += dropped
            if valid:
                self.errors.append(to_py(payload))

    async def source(self, ctx):
        """Provisions the rings, then stores frames when there is room, each followed by its info."""
        ctx.set(self.dut.host_enable, self.host_enable)
        ctx.set(self.dut.host_consumer, self.consumer)
        for number, ring in self.rings.items():
            await self.provision(ctx, number, ring)
        step = self.width // 8
        store = self.dut.store
        self.stored = 0
        for frame in self.frames:
            data = frame.data
            words = [int.from_bytes(data[at : at + step], "little") for at in range(0, len(data), step)]
            for number, word in enumerate(words):
                while not ctx.get(self.dut.room):
                    await ctx.tick()
                last = number == len(words) - 1
                ctx.set(store.data, word)
                ctx.set(store.store, 1)
                ctx.set(store.end, last)
                ctx.set(store.commit, last)
                await ctx.tick()
                ctx.set(store.store, 0)
                ctx.set(store.end, 0)
            self.stored += 1

    async def provision(self, ctx, number, ring):
        ctx.set(self.dut.ring.valid, 1)
        ctx.set(self.dut.ring.payload, {"id": number, "base": ring.base, "log2": ring.log2})
        await ctx.tick()
        ctx.set(self.dut.ring.valid, 0)

    async def infos(self, ctx):
        await ctx.tick().repeat(len(self.rings) + 2)
        draw = self.draw("info")
        for number, frame in enumerate(self.frames):
            while self.stored <= (len(self.frames) - 1 if self.hold else number):
                await ctx.tick()
            await send_all(ctx, self.dut.info, [frame.info], idle=self.idle, rng=draw)

    async def verdicts(self, ctx):
        await ctx.tick().repeat(len(self.rings) + 2)
        items = [frame.verdict for frame in self.frames if frame.verdict]
        await send_all(ctx, self.dut.verdict, items, idle=self.idle, rng=self.draw("verdict"))

    async def asked(self, ctx):
        draw = self.draw("request")
        while True:
            self.requests += await recv_n(ctx, self.dut.request, 1, stall=self.stall, rng=draw)

    async def writes(self, ctx):
        """Takes words only for requests that have come, without a bubble between them."""
        stream, draw, step = self.dut.data, self.draw("data"), self.width // 8
        data, served = bytearray(), 0
        while True:
            ready = served < len(self.requests) and draw.random() >= self.stall
            ctx.set(stream.ready, ready)
            _, _, valid, word = await ctx.tick().sample(stream.valid, stream.payload)
            if not (ready and valid):
                continue
            data += word.to_bytes(step, "little")
            self.first_word = self.first_word or self.now
            self.last_word = self.now
            self.words += 1
            request = self.requests[served]
            if len(data) >= request["addr"] % step + request["length"]:
                self.write(request, data)
                data, served = bytearray(), served + 1

    def write(self, request, data):
        address, length, wrap = request["addr"], request["length"], request["wrap_log2"]
        lane = address % (self.width // 8)
        assert not any(data[:lane]) and not any(data[lane + length :])
        for number in range(length):
            at = address + number
            if wrap:
                at = (address >> wrap << wrap) + at % (1 << wrap)
            self.memory[at] = data[lane + number]
        self.done.append((self.now + self.latency, {"error": int(self.fails(address))}))

    async def answers(self, ctx):
        while True:
            if self.done and self.done[0][0] <= self.now:
                await send_all(ctx, self.dut.done, [self.done.pop(0)[1]])
            else:
                await ctx.tick()

    def collect(self, source, into):
        async def collector(ctx):
            draw = self.draw(source.payload)
            while True:
                into.extend(await recv_n(ctx, source, 1, stall=self.stall, rng=draw))
                if into is self.events and self.consume:
                    ctx.set(self.dut.host_consumer, len(into) & 0xFFFF)

        return collector

    async def ending(self, ctx):
        hosts = sum(frame.to_host for frame in self.frames)
        while True:
            await ctx.tick()
            if ctx.get(self.dut.arrivals_done) == len(self.frames) % 256 and not self.done:
                if len(self.events) + self.dropped == hosts and self.now > 20 and self.stored == len(self.frames):
                    break
        await ctx.tick().repeat(50)
        p = self.dut
        assert not any(ctx.get(s.valid) for s in (p.request, p.data, p.placed, p.abort, p.frame))
        assert ctx.get(self.dut.level) == 0
        assert ctx.get(p.arrivals_done) == len(self.frames) % 256

    def expected_memory(self):
        memory = {}
        for frame in self.frames:
            if frame.verdict and frame.verdict["length"]:
                ring = self.rings[frame.verdict["id"]]
                for number, byte in enumerate(frame.payload):
                    memory[ring.address(frame.verdict["position"] + number)] = byte
        slot = 0
        for frame in self.frames:
            if frame.to_host and slot < len(self.events):
                for number, byte in enumerate(frame.data):
                    memory[HOST_BASE + slot % (1 << self.host_log2) * self.slot_bytes + 2 + number] = byte
                slot += 1
        return memory

    def expected_placed(self):
        verdicts = [frame.verdict for frame in self.frames if frame.verdict]
        return [{"id": v["id"], "upto": v["upto"]} for v in verdicts if v["notify"]]


def make_rings(rng):
    return {number: Ring((8 + number) << 16, rng.choice([12, 13, 16])) for number in range(16)}


def make_frame(rng, rings, kind=None, length=None, position=None):
    kind = kind or rng.choices(["data", "silent", "nothing", "drop", "host"], [6, 2, 2, 1, 1])[0]
    if kind in ("drop", "host"):
        return Frame(rng.randbytes(length or rng.randrange(14, 300)), to_host=int(kind == "host"))
    offset = 16 + 4 * rng.randrange(10, 31)
    payload = length if length is not None else rng.choice([1, 2, 6, 7, 8, 9, rng.randrange(1, 400)])
    skip = rng.randrange(payload) if rng.random() < 0.4 and length is None else 0
    number = rng.randrange(16)
    wanted = 0 if kind == "nothing" else rng.randrange(1, payload - skip + 1) if length is None else payload
    at = rng.getrandbits(32) if position is None else position
    if rng.random() < 0.3 and position is None:  # over the ring's end, or the position's
        at = -rng.randrange(1, 60) % (1 << rng.choice([32, rings[number].log2]))
    notify = int(kind == "data" or (kind == "nothing" and rng.random() < 0.5))
    verdict = {
        "id": number, "position": at, "skip": skip, "length": wanted, "notify": notify, "upto": rng.getrandbits(32),
    }  # fmt: skip
    return Frame(rng.randbytes(max(60, offset - 2 + payload)), offset=offset, verdict=verdict)


@pytest.mark.parametrize("idle, stall, latency, width", [
    (0.0, 0.0, 10, 64), (0.4, 0.4, 30, 64), (0.0, 0.8, 200, 64), (0.8, 0.0, 0, 64),
    (0.0, 0.0, 10, 32), (0.3, 0.3, 60, 32), (0.0, 0.0, 10, 128), (0.3, 0.3, 60, 128),
    (0.0, 0.0, 10, 256), (0.4, 0.0, 30, 256), (0.3, 0.3, 60, 256), (0.0, 0.8, 200, 256),
])  # fmt: skip
def test_bytes_and_reports(idle, stall, latency, width, rng):
    rings = make_rings(rng)
    frames = [make_frame(rng, rings) for _ in range(50)]
    bench = Bench(frames, rings, width=width, idle=idle, stall=stall, latency=latency, seed=rng.random()).run()
    assert bench.memory == bench.expected_memory()
    assert bench.placed == bench.expected_placed()
    assert bench.aborted == [] and bench.errors == [] and bench.dropped == 0
    hosts = [frame for frame in frames if frame.to_host]
    assert bench.events == [
        {"slot": number % (1 << HOST_LOG2), "length": len(frame.data)} for number, frame in enumerate(hosts)
    ]
    for request in bench.requests:
        if request["addr"] < 1 << 19:
            assert request["wrap_log2"] == 0
        else:
            assert request["wrap_log2"] == rings[(request["addr"] >> 16) - 8].log2


@pytest.mark.parametrize("idle, stall, width", [(0.0, 0.0, 64), (0.3, 0.3, 64), (0.3, 0.3, 256)])
def test_long_frames(idle, stall, width, rng):
    """To the smallest rings there are then and across their ends; the host's into slots that hold them."""
    rings = {number: Ring((16 + number) << 20, rng.choice([14, 15, 18])) for number in range(16)}
    frames = [make_frame(rng, rings, "data", length=length) for length in (8960, 8959, 4096, 1)]
    frames += [make_frame(rng, rings, "data", length=8960, position=-n % (1 << 32)) for n in (1, 8959)]
    frames += [make_frame(rng, rings, "host", length=length) for length in (9014, 2047, 9014)]
    frames += [make_frame(rng, rings, "drop", length=9014)]
    rng.shuffle(frames)
    bench = Bench(frames, rings, width=width, idle=idle, stall=stall, cfg=JUMBO, host_log2=1).run(300_000)
    assert bench.memory == bench.expected_memory()
    assert bench.placed == bench.expected_placed()
    assert [event["length"] for event in bench.events] == [len(frame.data) for frame in frames if frame.to_host]
    assert bench.aborted == [] and bench.errors == [] and bench.dropped == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_every_alignment(width, rng):
    """Every lane of the frame to every lane of the ring, with lengths around a word."""
    word = width // 8
    rings = {number: Ring((8 + number) << 16, 12) for number in range(16)}
    frames = []
    for skip in range(width // 8 if width < 128 else 4):
        for lane in range(width // 8):
            length = rng.choice([1, word - 1, word, word + 1, 2 * word + 1])
            frame = make_frame(rng, rings, "data", length=length, position=4096 * 5 + lane)
            frame.verdict["skip"] = skip
            frame.data += rng.randbytes(skip)
            frame.verdict["id"] = lane % 16
            frames.append(frame)
    bench = Bench(frames, rings, width=width).run()
    assert bench.memory == bench.expected_memory()
    assert bench.placed == bench.expected_placed()


def test_write_errors_abort_once_and_silence_the_connection(rng):
    """After a failed write nothing of that connection is reported until it has a new ring; others go on."""
    rings = {number: Ring((8 + number) << 16, 16) for number in range(16)}
    frames = [make_frame(rng, rings, rng.choice(["data", "data", "nothing"])) for _ in range(40)]
    frames += [make_frame(rng, rings, "host") for _ in range(4)]
    rng.shuffle(frames)
    bad = {3, 7, 8}
    bench = Bench(frames, rings, fails=lambda address: (address >> 16) - 8 in bad, stall=0.2, seed=rng.random())
    bench.run()
    broken, expected, errors = [], [], 0
    for frame in frames:
        if v := frame.verdict:
            failed = v["length"] and v["id"] in bad
            errors += bool(failed)
            if failed and v["id"] not in broken:
                broken.append(v["id"])
            if v["notify"] and v["id"] not in broken:
                expected.append({"id": v["id"], "upto": v["upto"]})
    assert bench.placed == expected
    assert bench.aborted == [{"id": number} for number in broken] and broken
    assert len(bench.errors) == errors
    assert all(e["code"] == ErrorCode.PAYLOAD_WRITE and e["argument"] in bad for e in bench.errors)
    assert len(bench.events) == 4


def test_new_ring_mends_a_connection(rng):
    rings = {1: Ring(0x10_0000, 12), 2: Ring(0x20_0000, 12)}
    frames = [make_frame(rng, dict.fromkeys(range(16), rings[1]), "data", length=20) for _ in range(6)]
    for number, frame in enumerate(frames):
        frame.verdict["id"] = 1 if number < 4 else 2
    bench = Bench(frames[:4], rings, fails=lambda address: address < 0x20_0000)
    first = bench.ending

    async def ending(ctx):
        await first(ctx)
        assert bench.aborted == [{"id": 1}] and bench.placed == []
        bench.rings[1] = Ring(0x30_0000, 13)
        await bench.provision(ctx, 1, bench.rings[1])
        frame = frames[0]
        bench.frames = [frame]
        await bench.source(ctx)
        await bench.infos(ctx)

    async def again(ctx):
        while bench.frames != [frames[0]]:
            await ctx.tick()
        await send_all(ctx, bench.dut.verdict, [frames[0].verdict])
        while not bench.placed:
            await ctx.tick()

    bench.ending = ending
    p = bench.dut
    run_bench(
        bench.dut, bench.source, bench.infos, bench.verdicts, bench.ending, again,
        background=[bench.asked, bench.writes, bench.answers, bench.clock, bench.collect(p.placed, bench.placed),
                    bench.collect(p.abort, bench.aborted)],
        key=bench.dut.key,
    )  # fmt: skip
    assert bench.placed == [{"id": 1, "upto": frames[0].verdict["upto"]}]


def test_host_ring_full_drops_and_counts(rng):
    """The host takes nothing: a ring of sixteen slots takes as many frames; TCP payload goes on."""
    rings = make_rings(rng)
    frames = [make_frame(rng, rings, kind) for _ in range(20) for kind in ("host", "data")]
    bench = Bench(frames, rings, consume=False).run()
    assert bench.dropped == 4
    assert [event["slot"] for event in bench.events] == list(range(16))
    assert bench.memory == bench.expected_memory()
    assert bench.placed == bench.expected_placed()


def test_host_ring_full_with_frames_in_a_row(rng):
    """Four slots are left when twelve frames come at once: none gets a slot that is not the engine's."""
    rings = make_rings(rng)
    frames = [make_frame(rng, rings, "host", length=60) for _ in range(12)]
    bench = Bench(frames, rings, consume=False, host_log2=2)
    bench.hold = True
    bench.run()
    assert bench.dropped == 8
    assert [event["slot"] for event in bench.events] == list(range(4))
    assert bench.memory == bench.expected_memory()


@pytest.mark.parametrize("garbage", [17, 0x8000, 0xFFFF, 0x1234])
def test_a_host_that_has_taken_frames_that_never_came(rng, garbage):
    """FRAME_CONSUMER ahead of the frames, or behind itself: it is told of, once, and no slot is written before it is read."""
    rings = make_rings(rng)
    frames = [make_frame(rng, rings, "host", length=60) for _ in range(20)]
    bench = Bench(frames, rings, consume=False)
    bench.consumer = garbage
    bench.run()
    assert bench.errors == [{"code": ErrorCode.BAD_FRAME_CONSUMER.value, "argument": garbage}]
    assert bench.dropped == 4 and [event["slot"] for event in bench.events] == list(range(16))
    assert bench.memory == bench.expected_memory()


def test_host_frames_do_not_wait_for_their_events(rng):
    """Nobody takes frame events: eight frames are kept, the others dropped, and payload goes on."""
    rings = make_rings(rng)
    frames = [make_frame(rng, rings, kind) for _ in range(11) for kind in ("host", "data")]
    bench = Bench(frames, rings)

    async def blocked(ctx):
        while len(bench.placed) < 11 or bench.dropped < 3:
            await ctx.tick()
        await ctx.tick().repeat(100)
        assert (len(bench.placed), bench.dropped) == (11, 3)
        for slot in range(8):
            assert (await stream_get(ctx, bench.dut.frame))["slot"] == slot
        bench.events.extend(range(8))

    p = bench.dut
    run_bench(
        bench.dut, bench.source, bench.infos, bench.verdicts, blocked,
        background=[bench.asked, bench.writes, bench.answers, bench.clock, bench.collect(p.placed, bench.placed)],
        key=bench.dut.key,
    )  # fmt: skip


def test_host_disabled_and_host_write_error(rng):
    rings = make_rings(rng)
    frames = [make_frame(rng, rings, "host") for _ in range(5)]
    bench = Bench(frames, rings, host_enable=False).run()
    assert bench.dropped == 5 and bench.events == [] and bench.memory == {}
    slot = HOST_BASE + 2 * HOST_FRAME_SLOT_BYTES
    bench = Bench(frames, rings, fails=lambda address: address == slot + 2).run()
    assert [event["length"] for event in bench.events] == [
        0 if number == 2 else len(frame.data) for number, frame in enumerate(frames)
    ]
    assert bench.errors == [{"code": ErrorCode.PAYLOAD_WRITE, "argument": NO_ID}]


def preloaded(rng, rings, count, kind, length, lane=None):
    """Frames of one kind; ``lane`` chooses every position."""
    out = []
    for number in range(count):
        frame = make_frame(rng, rings, kind, length=length or None)
        frame.offset = 56
        if frame.verdict:
            frame.verdict["id"] = number % 16
            frame.data = rng.randbytes(max(60, 54 + (length or 0)))
            if length:
                frame.verdict |= {"length": length, "skip": 0}
                frame.verdict["position"] = 4096 * number + (rng.randrange(128) if lane is None else lane)
        out.append(frame)
    return out


@pytest.mark.parametrize("width, lane, latency", [
    (64, 0, 10), (64, 1, 125), (64, 7, 10), (32, 3, 10), (128, 9, 10), (128, 15, 125), (256, 0, 10), (256, 31, 125),
])  # fmt: skip
def test_full_size_frames_fill_the_bus(width, lane, latency, rng):
    """1460 bytes of payload a frame: at least 97 % of the cycles carry a word of the bus; at 256 bits 95 %, since a frame takes
    48 cycles as on the line, for 46 or 47 words."""
    rings = {number: Ring((8 + number) << 16, 16) for number in range(16)}
    frames = preloaded(rng, rings, max(6, 3 * width // 32), "data", 1460, lane)
    bench = Bench(frames, rings, width=width, latency=latency)
    bench.hold = True
    bench.dut = Back(TINY.with_(data_width=width, rx_buffer_bytes=max(32768, 256 * width)))
    bench.run()
    share = bench.words / (bench.last_word - bench.first_word + 1)
    assert bench.memory == bench.expected_memory()
    print(f"\n{width} bits, lane {lane}, latency {latency}: {share:.1%} of the bus")
    assert share >= (0.97 if width < 256 else 0.95)


@pytest.mark.parametrize("kind, length, limit, width, latency", [
    ("data", 1, 8, 64, 10), ("data", 6, 8, 64, 10), ("data", None, 8, 64, 100), ("nothing", 0, 4, 64, 100),
    ("data", None, 8, 32, 100), ("data", None, 8, 128, 10), ("nothing", 0, 4, 128, 10),
    ("data", None, 8, 256, 10), ("nothing", 0, 4, 256, 10),
])  # fmt: skip
def test_small_frames(kind, length, limit, width, latency, rng):
    """Cycles a frame when all frames and verdicts are there: small payloads, and none."""
    rings = {number: Ring((8 + number) << 16, 16) for number in range(16)}
    count = 40
    frames = [
        preloaded(rng, rings, 1, kind, rng.randrange(1, 7) if length is None else length)[0] for _ in range(count)
    ]
    bench = Bench(frames, rings, width=width, latency=latency)
    bench.dut = Back(TINY.with_(data_width=width, rx_buffer_bytes=16384))
    bench.hold = True
    bench.run()
    assert bench.memory == bench.expected_memory()
    assert bench.placed == bench.expected_placed()
    cycles = (bench.finished[count] - bench.finished[1]) / (count - 1)
    print(f"\n{width} bits, {kind} of {length}, latency {latency}: {cycles:.2f} cycles a frame")
    assert cycles <= limit
