"""Which flip-flops have a reset in what is synthesised: all but payloads of streams and data of write ports."""

import re

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tests.configs import TINY
from tiptoe_hdl.resets import without_payload_resets
from tiptoe_hdl.verilog import engine_rtlil, module_rtlil

FLOPS = re.compile(
    r"  process \$\d+\n(?P<body>(?:    [^\n]*\n)*)  end\n\n  cell \$dff \$\d+\n(?:    [^\n]*\n)*?    connect \\Q \\(?P<name>\S+)"
)


def resets(rtlil):
    """Name of a register to whether it has a reset; one that is written in parts has what its parts have."""
    found = {}
    for flop in FLOPS.finditer(rtlil):
        found.setdefault(flop["name"], set()).add("switch \\rst [0]" in flop["body"])
    return found


class Register(wiring.Component):
    """One entry, whose payload is a structure written in two parts, and a counter with a name that only resembles one."""

    i: In(stream.Signature(data.StructLayout({"low": 3, "high": 4})))
    o: Out(stream.Signature(data.StructLayout({"low": 3, "high": 4})))
    payloads: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=4, depth=4, init=[])
        write = memory.write_port()
        seen = Signal(2)
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.low.eq(self.i.payload.low)]
            with m.If(self.i.payload.low[0]):
                m.d.sync += self.o.payload.high.eq(self.i.payload.high)
        m.d.sync += [
            seen.eq(seen + 1), self.payloads.eq(self.payloads + self.i.valid), write.en.eq(self.i.valid), write.addr.eq(seen),
            write.data.eq(self.i.payload.high),
        ]  # fmt: skip
        return m


def test_payloads_go_without_everything_else_has_one():
    found = resets(module_rtlil(Register(), "top"))
    assert found == {
        "o__payload": {False}, "o__valid": {True}, "payloads": {True}, "seen": {True}, "write__en": {True}, "write__addr": {True},
        "write__data": {False},
    }  # fmt: skip


def test_initial_values_stay():
    inits = re.findall(
        r"attribute \\init [^\n]*\n(?:  attribute [^\n]*\n)*  wire [^\n]*\\o__payload\n",
        module_rtlil(Register(), "top"),
    )
    assert len(inits) == 1


def test_of_the_engine_thousands_of_bits_and_no_valid():
    """An Amaranth that writes RTLIL otherwise would go by unnoticed."""
    text = engine_rtlil(TINY)
    assert without_payload_resets(text) == text
    found = resets(text)
    bare = {name for name, kinds in found.items() if False in kinds}
    assert {"o__payload", "write__data"} <= {name.split("$")[0] for name in bare}
    assert not [name for name in found if re.fullmatch(r"(\w+__)?valid", name.split("$")[0]) and found[name] != {True}]
