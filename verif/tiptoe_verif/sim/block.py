"""A Verilated component driven from plain Python, port by port: benches of large blocks, hundreds of times faster than pysim.

The ports of the Amaranth component are found by walking its signature; a payload with a layout is read and written as a
dictionary (reading gives a namespace). There is one clock; ``step`` advances it.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Value

from .toolchain import cached_dir, digest
from .verilate import build_library, cached_verilog

_HARNESS = """
#include "Vtop.h"
#include "verilated.h"
#include <cstdint>
#include <cstring>
struct Port {{ void *data; int bytes; }};
struct Sim {{ VerilatedContext context; Vtop *top; Port ports[{count}]; }};
extern "C" {{
Sim *create() {{
    Sim *s = new Sim; s->top = new Vtop(&s->context);
    {table}
    s->top->rst = 0; s->top->clk = 0; s->top->eval();
    return s;
}}
void destroy(Sim *s) {{ s->top->final(); delete s->top; delete s; }}
void settle(Sim *s) {{ s->top->eval(); }}
void *address(Sim *s, int port) {{ return s->ports[port].data; }}
int bytes(Sim *s, int port) {{ return s->ports[port].bytes; }}
void get(Sim *s, int port, uint32_t *out) {{ memcpy(out, s->ports[port].data, s->ports[port].bytes); }}
void put(Sim *s, int port, const uint32_t *in) {{ memcpy(s->ports[port].data, in, s->ports[port].bytes); }}
/* Up to `cycles` clock edges; stops before an edge at which one of the watched 1-bit ports is high. Returns edges made. */
uint64_t run(Sim *s, uint64_t cycles, const int *watch, int watches) {{
    for (uint64_t n = 0; n < cycles; n++) {{
        s->top->eval();
        for (int k = 0; k < watches; k++) if (*(uint8_t *)s->ports[watch[k]].data) return n;
        s->top->clk = 1; s->top->eval(); s->top->clk = 0;
    }}
    s->top->eval();
    return cycles;
}}
}}
"""


class BlockSim:
    """One Verilated block.

    Parameters
    ----------
    name : str
        Verilog module name; letters, digits, underscores.
    component : amaranth.lib.wiring.Component
        Never elaborated by the caller.
    key : str
        Tells configurations of one block apart: ``repr`` of the configuration.
    """

    def __init__(self, name: str, component: Any, key: str = ""):
        text = cached_verilog(name, lambda: component, key=key)
        module = re.search(rf"^module \\?{re.escape(name)} ?\(.*?^endmodule", text, re.S | re.M)
        assert module is not None
        self._ports: dict[str, tuple[int, int, Any]] = {}
        self.signals: dict[int, str] = {}
        """Ports by the ``id`` of their signals."""
        self.inputs: list[Any] = []
        """Signals of inputs."""
        for path, member, signal in component.signature.flatten(component):
            port = "__".join(str(part) for part in path)
            found = re.search(rf"^\s*(input|output)\s+(?:\[(\d+):0\]\s*)?\\?{re.escape(port)} ?;", module[0], re.M)
            if found is None:
                continue
            width = int(found[2] or 0) + 1
            self._ports[port] = (len(self._ports), width, member.shape if hasattr(member, "shape") else None)
            self.signals[id(Value.cast(signal))] = port
            if found[1] == "input":
                self.inputs.append(Value.cast(signal))
        # Verilator spells a double underscore by its code.
        members = [(index, port.replace("__", "___05F")) for port, (index, _, _) in self._ports.items()]
        table = "\n    ".join(
            f"s->ports[{index}] = {{&s->top->{name}, sizeof s->top->{name}}};" for index, name in members
        )
        source = _HARNESS.format(count=len(self._ports), table=table)
        with cached_dir("block", name, digest(source)) as (folder, complete):
            cpp = folder / "block.cpp"
            if not complete:
                cpp.write_text(source)
        self._lib = ctypes.CDLL(str(build_library(name, text, [cpp])))
        self._lib.create.restype = ctypes.c_void_p
        self._lib.run.restype = ctypes.c_uint64
        self._lib.address.restype = ctypes.c_void_p
        self._sim = ctypes.c_void_p(self._lib.create())
        self.cycle = 0
        """Clock edges so far."""

    def close(self) -> None:
        """Free the model."""
        self._lib.destroy(self._sim)

    def memory(self, port: str) -> Any:
        """The port's bytes in the model, the lowest first, to be read and written in place; see :meth:`settle`."""
        index = self._ports[port][0]
        count = self._lib.bytes(self._sim, index)
        return (ctypes.c_char * count).from_address(self._lib.address(self._sim, index))

    def settle(self) -> None:
        """Outputs follow what was written to the inputs' ``memory``."""
        self._lib.settle(self._sim)

    def __getitem__(self, port: str) -> Any:
        """Value of a port after the inputs have settled: an int, or a namespace when it has a layout."""
        index, width, shape = self._ports[port]
        words = (ctypes.c_uint32 * _words(width))()
        self._lib.settle(self._sim)
        self._lib.get(self._sim, index, words)
        value = int.from_bytes(bytes(words), "little") & ((1 << width) - 1)
        return unpack(shape, value)

    def __setitem__(self, port: str, value: Any) -> None:
        """Drive an input: an int, or a dictionary for a port with a layout."""
        index, width, shape = self._ports[port]
        number = pack(shape, value)
        if number >> width:
            raise ValueError(f"{value!r} does not fit the {width} bits of {port}")
        words = (ctypes.c_uint32 * _words(width)).from_buffer_copy(number.to_bytes(4 * _words(width), "little"))
        self._lib.put(self._sim, index, words)

    def step(self, cycles: int = 1, until: Iterable[str] = ()) -> int:
        """Advance up to ``cycles`` clock edges, stopping before the edge at which a port of ``until`` is high; returns
        the edges made."""
        watch = [self._ports[port][0] for port in until]
        array = (ctypes.c_int * max(1, len(watch)))(*watch)
        made = int(self._lib.run(self._sim, ctypes.c_uint64(cycles), array, len(watch)))
        self.cycle += made
        return made


def _words(width: int) -> int:
    """32-bit words that hold a Verilator port of ``width`` bits (8, 16, 32, 64 bits or words)."""
    return max(2, (width + 31) // 32)


def pack(shape: Any, value: Any) -> int:
    """The bits of a value given as int, enum, dictionary or namespace."""
    if isinstance(value, SimpleNamespace):
        value = vars(value)
    if not isinstance(value, dict):
        return int(getattr(value, "value", value))
    total = 0
    for name, field in shape:
        if name in value:
            bits = pack(field.shape, value[name])
            if bits >> field.width:
                raise ValueError(f"{name}={value[name]!r} does not fit {field.width} bits")
            total |= bits << field.offset
    if unknown := set(value) - set(shape.members):
        raise KeyError(f"no field {unknown.pop()!r}")
    return total


def unpack(shape: Any, value: int) -> Any:
    """The reverse of :func:`pack`; layouts become namespaces of ints."""
    if not hasattr(shape, "members"):
        return value
    return SimpleNamespace(
        **{name: unpack(field.shape, value >> field.offset & ((1 << field.width) - 1)) for name, field in shape}
    )
