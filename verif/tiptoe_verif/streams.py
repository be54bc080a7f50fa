"""Benches of single blocks in Amaranth's simulator: drive and drain streams under idle and backpressure.

A test is data: items in, items expected out. ``exercise_stream`` runs one block with one ``i`` and one ``o``;
``run_bench`` runs any set of async testbenches, made of ``send_all`` and ``recv_n``, with a cycle limit and a
waveform on failure. ``idle`` and ``stall`` are probabilities per clock cycle, 0 to below 1.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from amaranth.hdl import Module, ShapeCastable, Signal, Value, ValueCastable
from amaranth.lib import data
from amaranth.sim import Simulator

from .paths import BUILD
from .sim.compiled import run_compiled
from .sim.layouts import bits_of, unpacker

Testbench = Callable[[Any], Awaitable[None]]

STREAM_CASES = [(0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.4, 0.4), (0.0, 0.95), (0.95, 0.0)]
"""(idle, stall) pairs for ``@pytest.mark.parametrize("idle, stall", STREAM_CASES)``: all stream blocks."""

FRAME_LENGTHS = [14, 15, 16, 17, 54, 60, 61, 62, 63, 64, 65, 127, 128, 129, 1513, 1514]
"""Frame lengths in bytes every frame block is tested with (without FCS)."""


def to_py(value: Any) -> Any:
    """What ``ctx.get`` returns, as plain Python: structures become dicts, arrays lists; the rest stays."""
    return unpacker(value.shape())(value.as_bits()) if isinstance(value, data.Const) else value


def _raw(payload: Any) -> tuple[Value, Callable[[int], Any]]:
    """The payload's bits, to be sampled in every cycle, and what makes plain Python of them where they are wanted."""
    shape = payload.shape() if isinstance(payload, ValueCastable) else None
    return Value.cast(payload), unpacker(shape) if isinstance(shape, ShapeCastable) else lambda bits: bits


async def stream_put(ctx: Any, stream: Any, payload: Any) -> None:
    """Offer ``payload`` (int, enum or dict) to the design, and return after the cycle that takes it."""
    ctx.set(Value.cast(stream.payload), bits_of(stream.payload, payload))
    ctx.set(stream.valid, 1)
    await ctx.tick().until(stream.ready)
    ctx.set(stream.valid, 0)


async def stream_get(ctx: Any, stream: Any) -> Any:
    """Take one payload from the design, as plain Python; ``ready`` is high only meanwhile."""
    raw, plain = _raw(stream.payload)
    ctx.set(stream.ready, 1)
    (payload,) = await ctx.tick().sample(raw).until(stream.valid)
    ctx.set(stream.ready, 0)
    return plain(payload)


async def send_all(
    ctx: Any, stream: Any, items: Iterable[Any], *, idle: float = 0.0, rng: random.Random | None = None
) -> None:
    """Offer ``items`` in order, with idle cycles before each of probability ``idle`` per cycle.

    While ``valid`` is low the payload is random: a block that looks at it then fails.
    """
    rng = rng or random.Random(0)
    raw = Value.cast(stream.payload)
    for item in items:
        while rng.random() < idle:
            ctx.set(raw, rng.getrandbits(len(raw)) if len(raw) else 0)
            await ctx.tick()
        await stream_put(ctx, stream, item)


async def recv_n(
    ctx: Any, stream: Any, count: int, *, stall: float = 0.0, rng: random.Random | None = None
) -> list[Any]:
    """Take ``count`` payloads, with ``ready`` low with probability ``stall`` in every cycle, valid or not."""
    rng = rng or random.Random(0)
    raw, plain = _raw(stream.payload)
    got: list[Any] = []
    while len(got) < count:
        ready = rng.random() >= stall
        ctx.set(stream.ready, int(ready))
        _, _, valid, payload = await ctx.tick().sample(stream.valid, raw)
        if ready and valid:
            got.append(plain(payload))
    ctx.set(stream.ready, 0)
    return got


async def expect_empty(ctx: Any, stream: Any, *, cycles: int = 16) -> None:
    """Fail if the stream offers anything within ``cycles`` clock cycles."""
    for _ in range(cycles):
        _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
        assert not valid, f"nothing more was expected, but the stream offers {to_py(payload)}"


def watch_stream(stream: Any, name: str = "stream") -> Testbench:
    """A background testbench that fails when ``valid`` falls or the payload changes before the transfer."""

    async def watcher(ctx: Any) -> None:
        held: int | None = None
        raw = Value.cast(stream.payload)
        async for _, reset, valid, ready, payload in ctx.tick().sample(stream.valid, stream.ready, raw):
            if reset:
                held = None
                continue
            if held is not None:
                assert valid, f"{name}: valid fell before the transfer"
                assert payload == held, f"{name}: payload changed before the transfer: {held:#x} to {payload:#x}"
            held = payload if valid and not ready else None

    return watcher


def run_bench(
    dut: Any,
    *testbenches: Testbench,
    background: Sequence[Testbench] = (),
    name: str | None = None,
    max_cycles: int = 20_000,
    period: float = 8e-9,
    key: str | None = None,
) -> None:
    """Simulate ``dut`` until all ``testbenches`` return; a failure leaves build/waves/NAME.vcd and says so.

    Parameters
    ----------
    testbenches
        Async functions of the simulator's context (``async def bench(ctx)``).
    background
        The same, but they do not keep the simulation running.
    name
        Name of the waveform; the running pytest test's name if not given.
    max_cycles
        Clock cycles of domain ``sync`` after which the bench fails with :exc:`TimeoutError`.
    period
        Clock period in seconds.
    key
        Run on the Verilated block (``sim/compiled.py``): worth its compilation where simulation takes long. The benches know only
        ports. ``key`` tells the block's configurations apart: ``repr`` of the configuration.
    """

    async def watchdog(ctx: Any) -> None:
        await ctx.delay(max_cycles * period)
        raise TimeoutError(f"bench did not end within {max_cycles} cycles")

    def simulator() -> Simulator:
        top = Module()
        top.submodules.dut = dut
        cycle = Signal(32)  # also makes sure that a combinational design has a clock
        top.d.sync += cycle.eq(cycle + 1)
        made = Simulator(top)
        made.add_clock(period)
        for bench in testbenches:
            made.add_testbench(bench)
        for bench in (*background, watchdog):
            made.add_testbench(bench, background=True)
        return made

    if key is None:
        made = simulator()
        with _waveform_on_failure(lambda: made, name or _test_name()):
            made.run()
    else:
        with _waveform_on_failure(simulator, name or _test_name()):
            run_compiled(dut, key, testbenches, background, max_cycles)


def exercise_stream(
    dut: Any,
    items: Sequence[Any],
    expected: Sequence[Any],
    *,
    idle: float = 0.0,
    stall: float = 0.0,
    seed: int = 1,
    source: Any = None,
    sink: Any = None,
    name: str | None = None,
    max_cycles: int | None = None,
) -> None:
    """Send ``items`` into ``dut.i`` and demand exactly ``expected`` from ``dut.o``, by the rules.

    ``source`` and ``sink`` name other streams of the dut; ``seed`` makes idle and stall reproducible.
    """
    source = dut.i if source is None else source
    sink = dut.o if sink is None else sink

    async def producer(ctx: Any) -> None:
        await send_all(ctx, source, items, idle=idle, rng=random.Random(f"{seed}:source"))

    async def consumer(ctx: Any) -> None:
        got = await recv_n(ctx, sink, len(expected), stall=stall, rng=random.Random(f"{seed}:sink"))
        for index, (one, other) in enumerate(zip(got, expected, strict=True)):
            assert one == other, f"item {index}: got {one}, expected {other}"
        ctx.set(sink.ready, 1)
        await expect_empty(ctx, sink)

    if max_cycles is None:
        max_cycles = 200 + int(20 * (len(items) + len(expected)) / (1 - max(idle, stall)))
    run_bench(dut, producer, consumer, background=[watch_stream(sink, "o")], name=name, max_cycles=max_cycles)


def frame_beats(frame: bytes, data_width: int = 64) -> list[dict[str, int]]:
    """A frame as the beats of ``messages.beat``: dicts of data (first byte lowest), keep and last."""
    step = data_width // 8
    return [
        {
            "data": int.from_bytes(frame[at : at + step], "little"),
            "keep": (1 << len(frame[at : at + step])) - 1,
            "last": int(at + step >= len(frame)),
        }
        for at in range(0, len(frame), step)
    ]


def beats_frames(beats: Iterable[dict[str, int]]) -> list[bytes]:
    """Whole frames back from beats; fails on a keep with holes or a partial beat before the last."""
    frames: list[bytes] = []
    frame = bytearray()
    full = 0
    for beat in beats:
        keep, count = beat["keep"], beat["keep"].bit_length()
        assert keep and keep == (1 << count) - 1, f"keep {keep:#b} is not contiguous from bit 0"
        assert not full or count == full or beat["last"], "partial beat before the last one"
        full = 0 if beat["last"] else count
        frame += (beat["data"] & ((1 << 8 * count) - 1)).to_bytes(count, "little")
        if beat["last"]:
            frames.append(bytes(frame))
            frame.clear()
    assert not frame, "the last frame has no end"
    return frames


def _test_name() -> str:
    return os.environ.get("PYTEST_CURRENT_TEST", "bench").removesuffix(" (call)")


@contextlib.contextmanager
def _waveform_on_failure(make_simulator: Callable[[], Simulator], name: str) -> Iterator[None]:
    """On an exception, let a snapshot of this process repeat the run with a waveform.

    Writing waveforms slows a simulation several times, and a testbench cannot simply be run twice, since it
    has changed its own variables. A forked child that waits before the first cycle can.
    """
    path = BUILD / "waves" / (re.sub(r"[^\w.=-]+", "_", name).strip("_") + ".vcd")
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            os.close(go)
            if os.read(wait, 1):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 1)
                os.dup2(null, 2)
                path.parent.mkdir(parents=True, exist_ok=True)
                simulator = make_simulator()
                with simulator.write_vcd(str(path)):
                    simulator.run()
        except BaseException:
            pass
        finally:
            os._exit(0)
    os.close(wait)
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception):
            os.write(go, b"g")
            error.add_note(f"waveform: {path}")
        raise
    finally:
        os.close(go)
        os.waitpid(child, 0)
