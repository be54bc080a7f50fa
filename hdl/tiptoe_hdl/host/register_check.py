"""Values that a register cannot take are refused, and told of: which they are, tiptoe.rdl says."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import ErrorEvent
from ..wire.valid_only import valid_only
from .abi import ErrorCode
from .register_map import register_map
from .register_ports import field_width

ADDRESS_BITS = 6
"""Of a word's address below the counters."""

RegisterWrite = data.StructLayout({"address": ADDRESS_BITS, "value": 32})


class RegisterCheck(wiring.Component):
    """Lets a write pass whose value the register can take; others are told of, as doorbells are.

    What can be wrong is found out in the first cycle for all registers, which one it is in the second.

    Timing: ``o`` and ``error`` two cycles behind ``i`` and ``doorbell_error``; one write a cycle.

    Members
    -------
    i : In valid-only RegisterWrite; o : Out valid-only RegisterWrite
        To a register that can be written.
    doorbell_error : In valid-only ErrorEvent; error : Out valid-only ErrorEvent
        BAD_REGISTER with the register's address, and what the doorbells tell of.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "i": In(valid_only(RegisterWrite)), "o": Out(valid_only(RegisterWrite)),
            "doorbell_error": In(valid_only(ErrorEvent)), "error": Out(valid_only(ErrorEvent)),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        value = self.i.payload.value
        passed = [Signal(name=f"passed_{n}") for n in range(2)]
        where = [Signal(ADDRESS_BITS, name=f"where_{n}") for n in range(2)]
        what = [Signal(32, name=f"what_{n}") for n in range(2)]
        faults = {}  # by what makes them: common to many registers

        def fault(name, condition):
            if name not in faults:
                faults[name] = Signal(name=name)
                m.d.sync += faults[name].eq(condition)
            return faults[name]

        wrong = Signal()
        for register in register_map().registers:
            if not register.checked:
                continue
            widths = {field: field_width(self._cfg, register, field) for field in register.fields}
            mask = sum(((1 << width) - 1) << field.low for field, width in widths.items())
            bad = fault(f"outside_{mask:x}", Cat(value[bit] for bit in range(32) if not mask >> bit & 1).any())
            for field in register.fields:
                if field.limited:
                    part = value[field.low : field.low + field.width]
                    name = f"beyond_{field.low}_{field.width}_{field.least}_{field.most}"
                    bad |= fault(name, (part < field.least) | (part > field.most))
            first = register.address // 4
            with m.Switch(where[0]):
                with m.Case(*range(first, first + register.count)):
                    m.d.comb += wrong.eq(bad)
        # One write a cycle: a doorbell's error and a register's never come at once, if they take equally long.
        refused = Signal()
        late = [Signal(ErrorEvent, name=f"late_{n}") for n in range(2)]
        late_valid = [Signal(name=f"late_valid_{n}") for n in range(2)]
        m.d.sync += [
            passed[0].eq(self.i.valid), where[0].eq(self.i.payload.address), what[0].eq(value),
            passed[1].eq(passed[0] & ~wrong), where[1].eq(where[0]), what[1].eq(what[0]),
            refused.eq(passed[0] & wrong),
            late_valid[0].eq(self.doorbell_error.valid), late_valid[1].eq(late_valid[0]),
            late[0].eq(self.doorbell_error.payload), late[1].eq(late[0]),
        ]  # fmt: skip
        m.d.comb += [self.error.valid.eq(late_valid[1] | refused), self.error.payload.eq(late[1])]
        with m.If(refused):
            m.d.comb += [
                self.error.payload.code.eq(ErrorCode.BAD_REGISTER),
                self.error.payload.argument.eq(Cat(Const(0, 2), where[1])),
            ]
        m.d.comb += [
            self.o.valid.eq(passed[1]), self.o.payload.address.eq(where[1]), self.o.payload.value.eq(what[1]),
        ]  # fmt: skip
        return m
