"""The text of modules: names that tools of Verilog do not take for something else."""

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tiptoe_hdl.verilog import module_rtlil, module_verilog


class Named(Component):
    """A memory or a register of that name."""

    def __init__(self, name: str, memory: bool):
        self._name, self._memory = name, memory
        super().__init__({"i": In(4), "o": Out(4)})

    def elaborate(self, platform):
        m = Module()
        if self._memory:
            m.submodules[self._name] = memory = Memory(shape=4, depth=16, init=[])
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [read.addr.eq(self.i), self.o.eq(read.data), write.data.eq(self.i), write.en.eq(1)]
        else:
            register = Signal(4, name=self._name)
            m.d.sync += register.eq(self.i)
            m.d.comb += self.o.eq(register)
        return m


@pytest.mark.parametrize("convert", [module_rtlil, module_verilog])
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize(
    "name, good", [("mailbox", False), ("process", False), ("mailbox_0", True), ("a_process", True)]
)
def test_names_of_the_package_std_are_refused(convert, memory, name, good):
    """Verilator's -Wall tells of a signal that hides one (VARHIDDEN), and --target=lint fails."""
    if good:
        assert name in convert(Named(name, memory), "top")
    else:
        with pytest.raises(ValueError, match=f"{name} is a name of SystemVerilog"):
            convert(Named(name, memory), "top")
