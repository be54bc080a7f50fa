"""The compiled bench shows testbenches what Amaranth's simulator shows them."""

import pytest
from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tiptoe_verif.sim.compiled import run_compiled
from tiptoe_verif.streams import run_bench, send_all, stream_get, to_py

PAIR = data.StructLayout({"low": 5, "high": signed(40)})


class Mixed(wiring.Component):
    """Ports of all kinds: a constant, a combinational way, registers, an input that is not 0 at first, another module inside with
    a port of the same name but of another width."""

    step: In(4, init=3)
    i: In(stream.Signature(PAIR))
    o: Out(stream.Signature(PAIR))
    sum: Out(signed(48))
    count: Out(100)
    sums: Out(data.ArrayLayout(7, 3))
    one: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Module()
        other = Signal(9, name="count")
        inner.d.sync += other.eq(other + 1)
        m.d.comb += [
            self.one.eq(1), self.o.valid.eq(self.i.valid & other[0]), self.i.ready.eq(self.o.ready & other[0]),
            self.o.payload.low.eq(self.i.payload.low + self.step), self.o.payload.high.eq(-self.i.payload.high),
        ]  # fmt: skip
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.sum.eq(self.sum + self.i.payload.high),
                self.sums[1].eq(self.sums[1] + self.i.payload.low),
            ]
        m.d.sync += self.count.eq(Cat(self.count[99:], self.count[:99]) ^ self.step)
        return m


def trace(key: str | None) -> list[object]:
    dut, seen = Mixed(), list[object]()
    items = [{"low": n, "high": (-1) ** n * (n << 30)} for n in range(12)]

    async def source(ctx):
        await send_all(ctx, dut.i, items, idle=0.3)
        ctx.set(Cat(dut.step, dut.i.payload.low), 0b01001_0101)
        ctx.set(dut.i.payload.high, -2)
        seen.append(("at once", to_py(ctx.get(dut.o.payload)), ctx.get(dut.step)))
        seen.append(await ctx.tick().sample(dut.count).repeat(3))
        seen.append(await ctx.tick().sample(dut.count, dut.sum).until((dut.count[3] ^ dut.step[0]) & ~dut.count[1]))

    async def sink(ctx):
        seen.append(("first", ctx.get(dut.step), ctx.get(dut.one)))
        for n in range(12):
            await ctx.tick().repeat(1 + n % 3)
            seen.append((await stream_get(ctx, dut.o), ctx.get(dut.sum), to_py(ctx.get(dut.sums))))

    async def watch(ctx):
        async for edge, reset, valid, payload, whole in ctx.tick().sample(
            dut.o.valid, dut.o.payload, Cat(dut.o.valid, dut.sum)
        ):
            seen.append((edge, reset, valid, to_py(payload), whole, ctx.get(dut.count)))

    run_bench(dut, source, sink, background=[watch], key=key)
    return seen


def test_testbenches_see_what_they_see_in_amaranths_simulator():
    assert trace("") == trace(None)


def test_a_failure_leaves_a_waveform_of_the_whole_block(tmp_path, monkeypatch):
    monkeypatch.setattr("tiptoe_verif.streams.BUILD", tmp_path)
    dut = Mixed()

    async def bench(ctx):
        await ctx.tick().repeat(5)
        assert ctx.get(dut.count) == 0

    with pytest.raises(AssertionError) as failure:
        run_bench(dut, bench, name="whole", key="")
    waveform = tmp_path / "waves" / "whole.vcd"
    assert failure.value.__notes__ == [f"waveform: {waveform}"]
    assert "inner" in waveform.read_text()


def test_a_bench_that_does_not_end_is_ended():
    async def bench(ctx):
        async for _ in ctx.tick():
            pass

    with pytest.raises(TimeoutError, match="within 50 cycles"):
        run_compiled(Mixed(), "", [bench], [], 50)


def test_what_is_not_a_port_is_named():
    async def bench(ctx):
        ctx.get(Signal(name="hidden"))

    with pytest.raises(KeyError, match="hidden is not a port"):
        run_compiled(Mixed(), "", [bench], [], 50)
