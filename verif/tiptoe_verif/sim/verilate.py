"""From an Amaranth component to compiled simulations: a shared library, or a program for cocotb benches.

Everything is kept under build/ by a hash of its inputs, so the second request for the same returns at once.
The Verilated class is always called ``Vtop`` (``#include "Vtop.h"``), whatever the top module's name.
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .registers import merge_registers
from .toolchain import WAIVERS, Progress, ToolError, cached_dir, compiler, digest, has_fst, run_make, run_verilator
from .zero_memories import zero_memories_left_out

COCOTB_MAIN = Path(__file__).with_name("cocotb_main.cpp")

# Undefined bits are 0 and memories start as written: the same in every run, and fast.
_FLAGS = ["--cc", "--prefix", "Vtop", "--timescale", "1ps/1ps", "-O3", "--noassert"]
_FLAGS += ["--x-assign", "fast", "--x-initial", "0"]
_FLAGS += ["--output-split", "20000", "--output-split-cfuncs", "2000"]

_ATTRIBUTES = ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")
_WRITERS = [Path(__file__), Path(__file__).with_name("registers.py")]
"""What makes the Verilog, besides the design."""
_STARTED = time.time()


def to_verilog(design: Any, name: str) -> str:
    """Verilog of an Amaranth component, or of RTLIL text, for simulation: equal designs give equal text.

    Initial contents of memories that are all zero are left out (the simulation starts them at zero): one line a row
    otherwise, which for the largest tables takes minutes.
    """
    from amaranth._toolchain.yosys import find_yosys
    from amaranth.back import rtlil

    text = design if isinstance(design, str) else str(rtlil.convert(design, name=name, emit_src=False))
    zeros = r"^  cell \$meminit_v2 [^\n]*\n(?:    (?!connect \\DATA)[^\n]*\n)*    connect \\DATA \d+'0+\n.*?^  end\n"
    text = re.sub(zeros, "", text, flags=re.S | re.M)
    # What `amaranth.back.verilog` does (its version is pinned), but without Yosys's optimisations: they take words apart
    # into bits, which Verilator evaluates one by one.
    script = [f"read_rtlil <<rtlil\n{text}\nrtlil", "proc -nomux -norom -noopt", "memory_collect"]
    for option in ("", "-modattr "):
        script.append(f"attrmap {option}" + " ".join(f"-remove {attribute}" for attribute in _ATTRIBUTES))
    script.append("write_verilog -norename")
    yosys = find_yosys(lambda version: version >= (0, 40))
    verilog = str(yosys.run(["-q", "-"], "\n".join(script), ignore_warnings=True))
    # Bits of a register without reset that are always the same: a process that waits for nothing never runs.
    verilog = re.sub(r"^  always @\*\n(    [^\n;]+ = \d+'[bdh][0-9a-f]+;\n)", r"  initial\n\1", verilog, flags=re.M)
    return merge_registers(verilog)


def cached_verilog(name: str, factory: Callable[[], Any], *, key: str = "") -> str:
    """Like :func:`to_verilog` of ``factory()``, kept by a hash of the sources, ``name`` and ``key``.

    ``key`` must tell apart what the result depends on besides the sources: ``repr`` of the configuration.
    """
    spec = importlib.util.find_spec("tiptoe_hdl")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(list(spec.submodule_search_locations)[0])
    files = [*sorted(folder.rglob("*.py")), *_WRITERS]
    if max(path.stat().st_mtime for path in files) > _STARTED:
        return to_verilog(factory(), name)  # edited since: what is imported here may be older than the files
    sources = [path.read_text() for path in files]
    with cached_dir("verilog", name, digest(name, key, *sources)) as (path, complete):
        file = path / f"{name}.v"
        if not complete:
            file.write_text(to_verilog(factory(), name))
        return file.read_text()


def engine_verilog(config: Any) -> tuple[str, str]:
    """Name of the top module and Verilog of the engine of ``config``, with AXI's flat port names; kept by a hash."""
    from tiptoe_hdl import verilog as hdl

    def rtlil() -> str:
        with zero_memories_left_out():
            return str(hdl.engine_rtlil(config))

    return hdl.TOP, cached_verilog(hdl.TOP, rtlil, key=repr(config))


def build_library(
    top_name: str,
    verilog_text: str,
    cpp_sources: Sequence[Path],
    *,
    optimise: str = "-O2 -march=native",
    trace: bool = False,
    libraries: Sequence[str] = (),
    progress: Progress | None = None,
) -> Path:
    """Compile the Verilated model with a C++ harness into a shared library, and return its path.

    Parameters
    ----------
    top_name
        Name of the top module in ``verilog_text``.
    verilog_text
        The whole design (:func:`to_verilog`, :func:`cached_verilog`).
    cpp_sources
        Files of the harness. They include ``Vtop.h`` and export their functions as ``extern "C"``. Headers
        beside them can be included too; name them here so that a change rebuilds the library.
    optimise
        Compiler flags for the model and the harness.
    trace
        Compile waveform support in: FST if lz4's headers are there (``VM_TRACE_FST`` is 1), else VCD.
    libraries
        Further linker arguments, for example ``-lpthread``.
    progress
        Called with the step and the fraction done.
    """
    harness = [Path(source).resolve() for source in cpp_sources]
    texts = [source.read_text() for source in harness]
    flags = [*_FLAGS, *(_trace_flags() if trace else [])]
    key = digest("library", top_name, verilog_text, optimise, *flags, *libraries, *texts)
    with cached_dir("sim", top_name, key) as (path, complete):
        library = path / f"lib{top_name}.so"
        if complete and library.exists():
            return library
        objects = [str(source) for source in harness if source.suffix in (".cpp", ".cc", ".c")]
        includes = " ".join(f"-I{folder}" for folder in dict.fromkeys(source.parent for source in harness))
        # One library's symbols must not be bound to another's: two configurations may be loaded side by side.
        shared = "-fPIC -fno-semantic-interposition"
        if "clang" not in compiler():  # it has no such symbols
            shared += " -fno-gnu-unique"
        _translate(
            path, top_name, verilog_text, progress,
            [*flags, "--exe", "-CFLAGS", f"{shared} {includes}", "-LDFLAGS",
             " ".join(["-shared -Wl,-Bsymbolic", *libraries]), "-o", library.name, *objects],
        )  # fmt: skip
        run_make(path / "Vtop.mk", _optimise(optimise), runtime=f"{shared} {flags}", progress=progress)
        return library


def build_cocotb(top_name: str, verilog_text: str, *, trace: bool = False, progress: Progress | None = None) -> Path:
    """Compile the program that runs cocotb benches of one top module, and return its path.

    Only the top's ports are visible to cocotb: several times faster than with all signals public. With
    ``trace`` it writes a waveform when started with ``--trace FILE``.
    """
    import cocotb_tools.config

    libs = cocotb_tools.config.libs_dir
    flags = [*_FLAGS, "--vpi", *(_trace_flags() if trace else [])]
    key = digest("cocotb", top_name, verilog_text, COCOTB_MAIN.read_text(), str(libs), *flags)
    with cached_dir("sim", top_name, key) as (path, complete):
        program = path / f"{top_name}.sim"
        if complete and program.exists():
            return program
        ports = path / "ports.vlt"
        ports.write_text(_public_ports(top_name, verilog_text))
        toggle = "top.clk = !top.clk;" if "clk" in port_names(top_name, verilog_text) else ""
        (path / "clock.h").write_text(f"static inline void toggle_clock(Vtop& top) {{ {toggle} }}\n")
        _translate(
            path, top_name, verilog_text, progress,
            [*flags, ports.name, "--exe", "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
             "-o", program.name, str(COCOTB_MAIN)],
        )  # fmt: skip
        run_make(path / "Vtop.mk", _optimise("-O2 -march=native"), runtime=f"cocotb {flags}", progress=progress)
        return program


def port_names(top_name: str, verilog_text: str) -> dict[str, str]:
    """Ports of the top module and their directions ("input" or "output"), in order of declaration."""
    module = re.search(rf"^module \\?{re.escape(top_name)} ?\(.*?^endmodule", verilog_text, re.S | re.M)
    if module is None:
        raise ToolError(f"the Verilog has no module {top_name}")
    found = re.findall(r"^\s*(input|output)\s+(?:\[[^\]]*\]\s*)?(\w+)\s*;", module[0], re.M)
    return {name: direction for direction, name in found}


def _public_ports(top_name: str, verilog_text: str) -> str:
    access = {"input": "public_flat_rw", "output": "public_flat_rd"}
    lines = [
        f'{access[direction]} -module "{top_name}" -var "{name}"'
        for name, direction in port_names(top_name, verilog_text).items()
    ]
    return "\n".join(["`verilator_config", *lines, ""])


def _translate(path: Path, top_name: str, verilog_text: str, progress: Progress | None, arguments: list[str]) -> None:
    if progress:
        progress("verilate", 0.0)
    (path / "top.v").write_text(verilog_text)
    run_verilator([*arguments, "--top-module", top_name, "--Mdir", ".", str(WAIVERS), "top.v"], path)


def _trace_flags() -> list[str]:
    return ["--trace-fst" if has_fst() else "--trace-vcd", "--trace-structs"]


def _optimise(flags: str) -> list[str]:
    return [f"OPT_FAST={flags}", "OPT_SLOW=-O1", f"OPT_GLOBAL={flags}"]
