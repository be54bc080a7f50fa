"""Receive parser with its buffer: every frame is reported, or counted and gone, exactly as the reference says."""

import random
from collections import Counter

import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tests.configs import JUMBO
from tests.hdl.rx import reference_v6
from tests.hdl.rx.reference import (
    ADDRESS,
    MAC,
    Case,
    bad_cases,
    good_cases,
    host_cases,
    ip_int,
    mac_int,
    option_cases,
    random_case,
    segment,
)
from tests.widths import WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.messages import rx_beat, rx_meta
from tiptoe_hdl.rx.alias import PeerAlias
from tiptoe_hdl.rx.buffer import RxBuffer, read_port
from tiptoe_hdl.rx.parser import RxParser
from tiptoe_verif.streams import frame_beats, run_bench, send_all, to_py, watch_stream

COUNTERS = [name.removeprefix("count_") for name in RxParser.COUNTERS]


class Front(wiring.Component):
    """Parser and buffer, as in the engine; with IPv6 ``PeerAlias`` behind them. ``counts``: a pulse for each of ``COUNTERS``."""

    def __init__(self, cfg):
        self.cfg = cfg
        self.parser = RxParser(cfg)
        self.buffer = RxBuffer(cfg)
        super().__init__({
            "i": In(stream.Signature(rx_beat(cfg))), "promiscuous": In(1),
            "meta": Out(stream.Signature(rx_meta(cfg))),
            "read": In(read_port(cfg)), "counts": Out(len(COUNTERS)), "level": Out(len(self.buffer.level)),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.parser, m.submodules.buffer = self.parser, self.buffer
        wiring.connect(m, wiring.flipped(self.i), self.parser.i)
        if self.cfg.ipv6:
            m.submodules.alias = alias = PeerAlias(self.cfg)
            m.d.comb += [self.parser.ip6.eq(reference_v6.number(reference_v6.ADDRESS)), alias.key.eq(reference_v6.KEY)]
            wiring.connect(m, self.parser.meta, alias.i)
            wiring.connect(m, alias.o, wiring.flipped(self.meta))
        else:
            wiring.connect(m, self.parser.meta, wiring.flipped(self.meta))
        wiring.connect(m, wiring.flipped(self.read), self.buffer.read)
        wiring.connect(m, self.parser.store, self.buffer.store)
        m.d.comb += [
            self.parser.room.eq(self.buffer.room),
            self.parser.mac.eq(mac_int(MAC)), self.parser.ip.eq(ip_int(ADDRESS)),
            self.parser.promiscuous.eq(self.promiscuous),
            self.counts.eq(Cat(getattr(self.parser, "count_" + name) for name in COUNTERS)),
            self.level.eq(self.buffer.level),
        ]  # fmt: skip
        return m


def beats(case: Case, width: int, rng: random.Random, null_end: bool = False) -> list[dict]:
    """The frame's beats with random bytes where ``keep`` is 0; ``error`` is random before the last beat."""
    out = frame_beats(case.frame, width)
    if null_end and out[-1]["keep"] == (1 << width // 8) - 1:
        out[-1]["last"] = 0
        out.append({"data": 0, "keep": 0, "last": 1})
    for beat in out:
        beat["data"] |= rng.getrandbits(width) & ~((1 << 8 * beat["keep"].bit_length()) - 1)
        beat["error"] = int(case.error) if beat["last"] else rng.getrandbits(1)
    return out


def said(case):
    """What the report says that counts."""
    meta = case.outcome.meta
    return {key: value for key, value in meta.items() if key not in ("tsval", "tsecr") or meta.get("ts_present")}


def run_cases(cases, *, width=64, idle=0.0, stall=0.0, free_delay=0, hold=0, seed=1, null_end=False, ipv6=False,
              cfg=TINY):  # fmt: skip
    """Send frames, compare every report, every stored frame and all counters; the buffer must be empty at the end."""
    dut = Front(cfg.with_(data_width=width, timestamps=True, ipv6=ipv6))
    rng = random.Random(f"{seed}:run")
    counted = Counter()
    wanted = [case for case in cases if case.outcome.meta]
    store_words = []
    done = []

    async def producer(ctx):
        ctx.set(dut.promiscuous, cases[0].promiscuous)
        items = [beat for case in cases for beat in beats(case, width, rng, null_end)]
        await send_all(ctx, dut.i, items, idle=idle, rng=random.Random(f"{seed}:source"))

    async def count(ctx):
        async for _, _, pulses in ctx.tick().sample(dut.counts):
            counted.update(name for number, name in enumerate(COUNTERS) if pulses >> number & 1)

    async def level(ctx):
        async for _, _, words in ctx.tick().sample(dut.level):
            store_words.append(words)

    async def read_frame(ctx, length):
        step = width // 8
        words = -(-length // step)
        data = bytearray()
        for word in range(words + 3):
            ctx.set(dut.read.valid, word < words)
            ctx.set(dut.read.word, word if word < words else 0)
            _, _, valid, got = await ctx.tick().sample(dut.read.data_valid, dut.read.data)
            assert valid == (word >= 3)
            data += got.to_bytes(step, "little") if valid else b""
        return bytes(data[:length])

    async def consumer(ctx):
        draw = random.Random(f"{seed}:sink")
        for number, case in enumerate(wanted):
            while True:
                ready = draw.random() >= stall
                ctx.set(dut.meta.ready, ready)
                _, _, valid, payload = await ctx.tick().sample(dut.meta.valid, dut.meta.payload)
                if ready and valid:
                    break
            ctx.set(dut.meta.ready, 0)
            got = to_py(payload)
            expected = said(case)
            assert {key: got[key] for key in expected} == expected, f"{case.name}: {case.frame.hex()}"
            assert await read_frame(ctx, len(case.frame)) == case.frame, case.name
            await ctx.tick().repeat(1 + draw.randrange(free_delay + 1) + (hold if number == 0 else 0))
            ctx.set(dut.read.free, 1)
            ctx.set(dut.read.free_words, -(-len(case.frame) // (width // 8)))
            await ctx.tick()
            ctx.set(dut.read.free, 0)
        done.append(True)

    async def ending(ctx):
        await ctx.tick().repeat(1)
        while counted["rx_frames"] < len(cases) or sum(counted.values()) < 2 * len(cases) or not done:
            await ctx.tick()
        await ctx.tick().repeat(40)
        assert not ctx.get(dut.meta.valid), "a report too many"
        assert ctx.get(dut.level) == 0, "words left in the buffer"
        assert ctx.get(dut.i.ready)

    total = sum(len(case.frame) for case in cases) // (width // 8) + 200 * len(cases)
    limit = 500 + hold + int(total * 8 / (1 - max(idle, stall)))
    run_bench(
        dut,
        producer,
        consumer,
        ending,
        background=[count, level, watch_stream(dut.meta, "meta")],
        max_cycles=limit,
        key=repr(dut.cfg),
    )
    expected = Counter(name for case in cases for name in case.outcome.counters)
    assert +counted == expected
    return max(store_words)


FLOWS = [(0.0, 0.0, 0), (0.5, 0.0, 0), (0.0, 0.7, 0), (0.3, 0.3, 40)]

# One width takes them all, the other widths a share: Amaranth's simulator makes some 2000 cycles/s here.
FLOWS_AND_WIDTHS = [(*flow, 64) for flow in FLOWS] + [(*FLOWS[3], 32)]
FLOWS_AND_WIDTHS += [(*flow, 256) for flow in FLOWS]
FLOWS_AND_WIDTHS += [pytest.param(*flow, 128, marks=pytest.mark.soak) for flow in FLOWS]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", [good_cases, bad_cases, host_cases, option_cases])
def test_frames_of_a_kind(kind, width, rng):
    cases = kind(rng)
    assert {case.outcome.meta is None for case in cases} == {kind is bad_cases} or kind is bad_cases
    rng.shuffle(cases)
    run_cases(cases, width=width)


@pytest.mark.parametrize("idle, stall, free_delay, width", FLOWS_AND_WIDTHS)
def test_all_frames_mixed(idle, stall, free_delay, width, rng):
    cases = rng.sample(good_cases(rng) + bad_cases(rng) + host_cases(rng) + option_cases(rng), 25)
    cases += [random_case(rng) for _ in range(25)]
    rng.shuffle(cases)
    run_cases(cases, width=width, idle=idle, stall=stall, free_delay=free_delay, seed=rng.random())


@pytest.mark.parametrize("idle, stall, free_delay, width", [(*FLOWS[0], 64), (*FLOWS[3], 64), (*FLOWS[3], 256)])
def test_long_frames(idle, stall, free_delay, width, rng):
    """Around the longest: those of a byte more are counted and gone. Sums of bytes that are all ones are the largest."""
    frames = [segment(rng, length) for length in (8961, 8960, 8959, 4096, 1461)]
    frames += [segment(rng, data=b"\xff" * 8960), segment(rng, 8960, ip={"len": 9001})]
    cases = [Case("long", frame, limit=JUMBO.max_frame_bytes) for frame in frames]
    cases += [Case("host", mac + rng.randbytes(6) + b"\x88\xb5" + rng.randbytes(length), limit=JUMBO.max_frame_bytes)
              for mac in [bytes.fromhex(MAC.replace(":", ""))] for length in (9001, 9000)]  # fmt: skip
    cases += [Case("short", segment(rng, 3), limit=JUMBO.max_frame_bytes) for _ in range(4)]
    rng.shuffle(cases)
    assert [case.outcome.counters[1] for case in cases].count("rx_bad_frame") == 2
    run_cases(cases, width=width, idle=idle, stall=stall, free_delay=free_delay, seed=rng.random(), cfg=JUMBO)


@pytest.mark.parametrize("width", WIDTHS)
def test_promiscuous(width, rng):
    frames = [
        segment(rng, 5, ether={"dst": "02:00:00:00:00:02"}),
        segment(rng, 5),
        segment(rng, 5, ether={"dst": "02:00:00:00:00:02"}, ip={"src": "127.0.0.1", "ihl": 3}),
        segment(rng, 5, ip={"len": 1000}),
    ]
    cases = [Case("promiscuous", frame, promiscuous=True) for frame in frames]
    cases.append(Case("error", frames[0], error=True, promiscuous=True))
    assert [case.outcome.counters[1] for case in cases] == [
        "rx_host_frames", "rx_tcp_segments", "rx_host_frames", "rx_bad_ip", "rx_bad_frame"
    ]  # fmt: skip
    run_cases(cases, width=width)


@pytest.mark.parametrize("width", WIDTHS)
def test_empty_last_beat_and_runts(width, rng):
    """A last beat without bytes is legal on AXI4-Stream; it must not cost a word of the buffer."""
    cases = [Case("aligned", segment(rng, n)) for n in (10, 26, 42, 58, 74, 106)]
    cases += [Case("runt", rng.randbytes(n)) for n in (1, 2, 4, 8, 16, 32)] * 4
    cases += [Case("good", segment(rng, n)) for n in (3, 10, 26)]
    run_cases(cases, width=width, null_end=True)


def test_keep_with_holes_is_a_bad_frame(rng):
    dut = Front(TINY)
    frame = segment(rng, 100)
    good = [beat | {"error": 0} for beat in frame_beats(frame)]
    streams = []
    for at, keep in ((3, 0x7F), (0, 0xFE), (len(good) - 1, 0x05), (5, 0)):
        streams.append([beat | ({"keep": keep} if number == at else {}) for number, beat in enumerate(good)])
    streams.append(good)
    counted = Counter()

    async def producer(ctx):
        await send_all(ctx, dut.i, [beat for frame in streams for beat in frame])
        await ctx.tick().repeat(30)
        assert ctx.get(dut.meta.valid) and ctx.get(dut.meta.payload.frame_length) == len(frame)
        assert counted == {"bad": 4, "tcp": 1}
        assert ctx.get(dut.level) == len(good)

    async def count(ctx):
        async for _, _, pulses in ctx.tick().sample(dut.counts):
            counted["bad"] += pulses >> COUNTERS.index("rx_bad_frame") & 1
            counted["tcp"] += pulses >> COUNTERS.index("rx_tcp_segments") & 1

    run_bench(dut, producer, background=[count], key=repr(dut.cfg))


@pytest.mark.parametrize("width", WIDTHS)
def test_full_buffer_holds_back_and_loses_nothing(width, rng):
    """Nobody takes reports for long: the parser stops the wire, stores nothing twice, and goes on where it was."""
    cases = [Case("large", segment(rng, rng.randrange(1000, 1461))) for _ in range(9)]
    fullest = run_cases(cases, width=width, hold=10_000 * 8 // width)
    words = TINY.rx_buffer_bytes * 8 // width
    assert 0.8 * words < fullest <= words - 1
    small = [Case("small", segment(rng, rng.randrange(7))) for _ in range(24)]
    run_cases(small, width=width, stall=0.95, free_delay=3)


def test_giant_longer_than_the_buffer(rng):
    """A frame without an end takes no more words than the longest good one, so it can't stop the receiver."""
    cases = [Case("good", segment(rng, 3)), Case("endless", rng.randbytes(TINY.rx_buffer_bytes + 800))]
    cases += [Case("good", segment(rng, 3))]
    fullest = run_cases(cases)
    assert fullest <= 2 * 8 + -(-TINY.max_frame_bytes // 8)


@pytest.mark.parametrize("changes, message", [
    ({"rx_buffer_bytes": 1024}, "rx_buffer_bytes must hold two frames of 1514 bytes and 32 words, not 1024 bytes"),
])  # fmt: skip
def test_configuration_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        RxBuffer(TINY.with_(**changes))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("length", [60, 64, 1514])
def test_line_rate_without_bubbles(width, length, rng):
    """Frames back to back: ``ready`` never falls; minimum frames are reported at the rate they come."""
    dut = Front(TINY.with_(data_width=width, rx_buffer_bytes=65536, timestamps=True))
    count = 3 if length > 100 else 12 * max(2, width // 64)
    cases = [Case("back to back", segment(rng, length - 54, pad=False)[:length].ljust(length)) for _ in range(count)]
    if length == 60:
        cases = [Case("back to back", segment(rng, rng.randrange(7))) for _ in range(count)]
    items = [beat | {"error": 0} for case in cases for beat in frame_beats(case.frame, width)]
    times = {}

    async def producer(ctx):
        for number, beat in enumerate(items):
            ctx.set(dut.i.payload, beat)
            ctx.set(dut.i.valid, 1)
            assert ctx.get(dut.i.ready) or number == 0, f"a bubble at beat {number}"
            await ctx.tick().until(dut.i.ready)
            times["last beat"] = times["now"]
            times.setdefault("first beat", times["now"])
            if beat["last"]:
                times.setdefault("first frame", times["now"])
        ctx.set(dut.i.valid, 0)

    async def consumer(ctx):
        ctx.set(dut.meta.ready, 1)
        for case in cases:
            (payload,) = await ctx.tick().sample(dut.meta.payload).until(dut.meta.valid)
            times.setdefault("first report", times["now"])
            got = to_py(payload)
            assert {key: got[key] for key in said(case)} == said(case)
        times["last report"] = times["now"]

    async def clock(ctx):
        times["now"] = 0
        async for _ in ctx.tick():
            times["now"] += 1

    run_bench(dut, producer, consumer, background=[clock])
    latency = times["first report"] - times["first frame"]
    cycles = times["last beat"] - times["first beat"] + 1
    print(
        f"\n{width} bits, {length} bytes: {cycles / count:.2f} cycles a frame, "
        f"report {latency} cycles after the last beat"
    )
    assert cycles == len(items)
    assert times["last report"] - times["last beat"] == latency <= {32: 8, 64: 9, 128: 10, 256: 11}[width]
