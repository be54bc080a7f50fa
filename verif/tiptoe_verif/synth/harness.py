"""Out-of-context harness: registers every port of a block and folds them to five pins, so that it can be placed alone.

Inputs come from one long shift register, outputs are captured in flip-flops and folded by exclusive or through a
pipelined tree that never limits the clock. The reset comes straight from a pin: its path is not timed, as it would
not be in a chip that holds reset for many cycles.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

_FOLD = 4  # inputs of one lookup table


class Harness(wiring.Component):
    """Wraps ``dut``, which becomes the submodule ``dut``.

    Ports are ``clk_i``, ``rst_i``, ``shift`` (bits into the block's inputs) and ``folded`` (out of its outputs).
    """

    def __init__(self, dut: Any) -> None:
        super().__init__({"clk_i": In(1), "rst_i": In(1), "shift": In(1), "folded": Out(1)})
        self.dut = dut

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.d.comb += [ClockSignal().eq(self.clk_i), ResetSignal().eq(self.rst_i)]
        m.submodules.dut = self.dut

        inputs: list[Value] = []
        outputs: list[Value] = []
        for _, member, port in self.dut.signature.flatten(self.dut):
            (inputs if member.flow is In else outputs).append(Value.cast(port))

        stimulus = Cat(*inputs)
        chain = Signal(len(stimulus) + 1, reset_less=True)
        m.d.sync += chain.eq(Cat(self.shift, chain))
        m.d.comb += stimulus.eq(chain[1:])

        level = Signal(max(1, sum(len(port) for port in outputs)), name="captured", reset_less=True)
        m.d.sync += level.eq(Cat(*outputs))
        depth = 0
        while len(level) > 1:
            depth += 1
            groups = [level[at : at + _FOLD] for at in range(0, len(level), _FOLD)]
            level = Signal(len(groups), name=f"fold{depth}", reset_less=True)
            m.d.sync += level.eq(Cat(group.xor() for group in groups))
        m.d.comb += self.folded.eq(level)
        return m
