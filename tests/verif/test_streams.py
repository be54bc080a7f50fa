"""The stream helpers: they pass a good block, and fail a bad one with a waveform."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tests.widths import WIDTHS
from tiptoe_verif.example import RegisterSlice
from tiptoe_verif.streams import (
    FRAME_LENGTHS,
    STREAM_CASES,
    beats_frames,
    exercise_stream,
    frame_beats,
    run_bench,
    stream_get,
    stream_put,
)

BEAT = data.StructLayout({"data": 64, "keep": 8, "last": 1})


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_register_slice_passes_frames(idle, stall, rng):
    beats = [beat for n in FRAME_LENGTHS for beat in frame_beats(rng.randbytes(n))]
    exercise_stream(RegisterSlice(BEAT), beats, beats, idle=idle, stall=stall)


@pytest.mark.parametrize("width", WIDTHS)
def test_frames_and_beats_are_inverse(width, rng):
    frames = [rng.randbytes(n) for n in FRAME_LENGTHS]
    assert beats_frames(beat for frame in frames for beat in frame_beats(frame, width)) == frames


def test_put_and_get():
    dut = RegisterSlice(8)
    got = []

    async def put(ctx):
        for value in range(4):
            await stream_put(ctx, dut.i, value)

    async def get(ctx):
        for _ in range(4):
            await ctx.tick().repeat(3)
            got.append(await stream_get(ctx, dut.o))

    run_bench(dut, put, get)
    assert got == [0, 1, 2, 3]


class Impatient(wiring.Component):
    """Breaks the stream rules: the payload follows the input while the output is not taken."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.o.valid.eq(1), self.i.ready.eq(1)]
        m.d.sync += self.o.payload.eq(self.o.payload + 1)
        return m


def test_rule_breaker_fails_with_waveform(out_dir, monkeypatch):
    monkeypatch.setattr("tiptoe_verif.streams.BUILD", out_dir)
    with pytest.raises(AssertionError, match="payload changed before the transfer") as caught:
        exercise_stream(Impatient(), [], [1, 2, 3], stall=0.5, name="impatient")
    assert "impatient.vcd" in caught.value.__notes__[0]
    assert (out_dir / "waves" / "impatient.vcd").stat().st_size > 100


def test_cycle_limit():
    dut = RegisterSlice(8)

    async def get(ctx):
        await stream_get(ctx, dut.o)

    with pytest.raises(TimeoutError, match="within 50 cycles"):
        run_bench(dut, get, max_cycles=50)
