"""The register map, elaborated from tiptoe.rdl (SystemRDL 2.0) into plain tables.

Everything that knows a register's address or fields starts here: the hardware (``registers.py``) and the generated
driver constants, C header and documentation (``generate.py``).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from systemrdl import RDLCompiler
from systemrdl.node import AddrmapNode, FieldNode, RegfileNode, RegNode
from systemrdl.rdltypes import AccessType, OnWriteType

from ..config import EngineConfig

SOURCE = Path(__file__).with_name("tiptoe.rdl")
_PARAM_RESET = re.compile(r'(param_reset = "(\w+)";[^}]*\} \w+\[\d+:\d+\] = )\d+')


@dataclass(frozen=True)
class Field:
    """A field of a register: ``width`` bits from bit ``low``."""

    name: str
    low: int
    width: int
    readable: bool
    writable: bool
    clear_on_one: bool  # writing 1 clears (interrupt status)
    pulse: bool  # clears itself
    hardware: bool  # the value read comes from the engine
    reset: int | None
    reset_from: str | None  # field of EngineConfig that gives the reset value
    least: int  # smallest and largest value that a write may give it
    most: int
    description: str

    @property
    def mask(self) -> int:
        """The field's bits in place."""
        return ((1 << self.width) - 1) << self.low

    @property
    def limited(self) -> bool:
        """Whether ``least`` and ``most`` say less than the width."""
        return (self.least, self.most) != (0, (1 << self.width) - 1)

    @property
    def access(self) -> str:
        """Access as the documentation shows it."""
        if self.clear_on_one:
            return "read, write 1 to clear"
        if self.pulse:
            return "read, write 1 to start"
        return {(True, True): "read, write", (True, False): "read", (False, True): "write"}[
            self.readable, self.writable
        ]


@dataclass(frozen=True)
class Register:
    """A register, or an array of ``count`` of them every ``stride`` bytes."""

    name: str
    address: int
    count: int
    stride: int
    fields: tuple[Field, ...]
    description: str

    @property
    def readable(self) -> bool:
        """Whether any field can be read."""
        return any(field.readable for field in self.fields)

    @property
    def writable(self) -> bool:
        """Whether any field can be written."""
        return any(field.writable for field in self.fields)

    @property
    def checked(self) -> bool:
        """Whether a write has limits to keep to: not where ones clear bits, since drivers write all ones there."""
        return self.writable and not any(field.clear_on_one for field in self.fields)


@dataclass(frozen=True)
class RegisterMap:
    """All registers by address. ``doorbells`` are those of one connection: repeated by id every ``stride`` bytes."""

    registers: tuple[Register, ...]
    doorbells: tuple[Register, ...]
    doorbell_base: int
    doorbell_stride: int
    doorbell_description: str

    def __getitem__(self, name: str) -> Register:
        for register in self.registers:
            if register.name == name:
                return register
        raise KeyError(name)


def _field(node: FieldNode) -> Field:
    sw, hw = node.get_property("sw"), node.get_property("hw")
    reset_from = node.get_property("param_reset", default=None)
    reset = node.get_property("reset")
    return Field(
        name=node.inst_name,
        low=node.low,
        width=node.width,
        readable=sw in (AccessType.r, AccessType.rw),
        writable=sw in (AccessType.w, AccessType.rw),
        clear_on_one=node.get_property("onwrite") is OnWriteType.woclr,
        pulse=bool(node.get_property("singlepulse")),
        hardware=hw in (AccessType.w, AccessType.rw),
        reset=reset,
        reset_from=reset_from,
        least=node.get_property("least", default=0),
        most=node.get_property("most", default=(1 << node.width) - 1),
        description=node.get_property("desc", default=""),
    )


def _register(node: RegNode) -> Register:
    count = node.array_dimensions[0] if node.is_array else 1
    return Register(
        name=node.inst_name,
        address=node.raw_address_offset,
        count=count,
        stride=node.array_stride if node.is_array else 4,
        fields=tuple(_field(field) for field in node.fields()),
        description=node.get_property("desc", default=""),
    )


def source(config: EngineConfig) -> str:
    """tiptoe.rdl for engines of one configuration: with the values after reset that it gives."""
    text = SOURCE.read_text(encoding="utf-8")
    return _PARAM_RESET.sub(lambda found: f"{found[1]}{getattr(config, found[2])}", text)


@lru_cache(maxsize=1)
def elaborated() -> AddrmapNode:
    """tiptoe.rdl for SystemRDL's tools; a mistake in it raises ``systemrdl.RDLCompileError``."""
    return elaborate(SOURCE)


def elaborate(file: Path) -> AddrmapNode:
    """Another text of it."""
    compiler = RDLCompiler()
    compiler.compile_file(str(file))
    return compiler.elaborate().top


@lru_cache(maxsize=1)
def register_map() -> RegisterMap:
    """tiptoe.rdl as tables."""
    top = elaborated()
    registers = []
    doorbells = None
    for child in top.children(unroll=False):
        if isinstance(child, RegNode):
            registers.append(_register(child))
        elif isinstance(child, RegfileNode):
            doorbells = child
    assert doorbells is not None
    return RegisterMap(
        registers=tuple(registers),
        doorbells=tuple(_register(child) for child in doorbells.children()),
        doorbell_base=doorbells.raw_address_offset,
        doorbell_stride=doorbells.array_stride,
        doorbell_description=doorbells.get_property("desc", default=""),
    )
