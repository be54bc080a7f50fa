"""The exported folder: Verilog, registers, constraints, descriptions for tools, a bench, notes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from tiptoe_hdl.config import EngineConfig

from ..sim.toolchain import WAIVERS
from .choice import Choice
from .constraints import constraints
from .fusesoc import BENCH, bench, core
from .ipxact import ipxact

_REGISTERS = {"driver/include/tiptoe.h": "tiptoe.h", "docs/registers.md": "registers.md", "docs/rings.md": "rings.md"}
_LIST, _RTL = "files.f", "rtl"
_MORE_WAIVERS = """// Amaranth gives every port and field a wire, used or not.
lint_off -rule UNUSEDSIGNAL
// Registers have an initial value beside their reset.
lint_off -rule PROCASSINIT
"""
_MODULE = re.compile(r"^(?:\(\*[^\n]*\*\)\n)*module (\\?\S+?)\s*\(.*?^endmodule\n", re.MULTILINE | re.DOTALL)


def export(choice: Choice, folder: Path) -> list[Path]:
    """Write everything into ``folder``, which may exist; returns the files. Sources and descriptions of another choice that was
    exported there before are taken away: most tools take what lies in a folder."""
    texts = dict(_files(choice))
    for path in _exported_before(folder) - {folder / name for name in texts}:
        path.unlink(missing_ok=True)
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _exported_before(folder: Path) -> set[Path]:
    listed = folder / _LIST
    found = {folder / name for name in listed.read_text(encoding="utf-8").split()} if listed.is_file() else set()
    for file in folder.glob("*.core"):
        if f"\nname: tiptoe:ip:{file.stem}:" in file.read_text(encoding="utf-8"):
            found |= {file, file.with_suffix(".xml")}
    return {path for path in found if path.parent in (folder, folder / _RTL)}


def _files(choice: Choice) -> Iterator[tuple[str, str]]:
    from tiptoe_hdl.host import generate, register_map

    text = plain_names(_verilog(choice.config, choice.queues), choice.made_as, choice.top)
    modules = {match[1]: match[0] for match in _MODULE.finditer(text)} if choice.per_module else {choice.top: text}
    sources = [f"{_RTL}/{name}.v" for name in modules]
    yield from zip(sources, modules.values(), strict=True)
    yield _LIST, "".join(f"{source}\n" for source in sources)
    yield from constraints(choice)
    outputs = generate.outputs()
    yield from ((name, outputs[path]) for path, name in _REGISTERS.items())
    yield "tiptoe.rdl", register_map.source(choice.config)
    yield f"{choice.top}.xml", ipxact(choice, sources)
    yield f"{choice.top}.core", core(choice, sources)
    yield BENCH, bench(choice)
    yield "verilator.vlt", _waivers(choice.top)
    yield "README.md", _notes(choice)


@lru_cache(maxsize=2)
def _verilog(config: EngineConfig, queues: bool) -> str:
    """All modules, by Amaranth's names: half a minute and more for a large engine."""
    from tiptoe_hdl.verilog import module_verilog

    choice = Choice(config=config, queues=queues)
    return module_verilog(choice.component, choice.made_as)


def _waivers(top: str) -> str:
    """For our sources only: a design around them keeps its own warnings."""
    text = WAIVERS.read_text(encoding="utf-8") + _MORE_WAIVERS
    return re.sub(r"^lint_off .*$", rf'\g<0> -file "*rtl/{top}*.v"', text, flags=re.MULTILINE)


def plain_names(text: str, top: str, name: str) -> str:
    """Verilog whose modules have names without dots, which would need escaping, and begin with ``name`` instead of ``top``:
    ``top.rx.parser`` is ``name_rx_parser``."""
    names = set(re.findall(rf"^module \\({re.escape(top)}\.\S+)", text, flags=re.MULTILINE))
    plain = {each: name + re.sub(r"\W", "_", each.removeprefix(top)) for each in names}
    # Amaranth's names are identifiers: they differ in more than dots.
    if len({*plain.values(), name}) != len(names) + 1:
        raise AssertionError("two modules of one name")
    text = re.sub(rf"^module {re.escape(top)}\b", f"module {name}", text, flags=re.MULTILINE)
    return re.sub(rf"\\({re.escape(top)}\.\S+) ", lambda found: f"{plain.get(found[1], found[0])} ", text)


def _notes(choice: Choice) -> str:
    rows = "".join(f"| `{port.name}` | {port.direction} | {port.width} |\n" for port in choice.ports)
    settings = "".join(f"| {name} | {value} |\n" for name, value in asdict(choice.config).items())
    queues = (
        "Frames go through a queue each way (`rx_dropped`, `rx_damaged`, `tx_dropped` count what it lost): s_axis_rx_tready is\n"
        "always high, and a frame to send comes without a pause once it has begun.\n"
        if choice.queues else
        "s_axis_rx_tready may be low and a frame to send may pause: beside a MAC that waits for nobody use `--queues`.\n"
    )  # fmt: skip
    return _NOTES.format(top=choice.top, ports=rows, settings=settings, queues=queues, period=choice.period)


_NOTES = """# {top}

Verilog-2001 of the Tiptoe TCP offload engine, made by `tiptoe verilog`. No vendor primitive, no latch, no black box.

| file | |
|---|---|
| rtl/, files.f | Verilog, and the list of it |
| {top}.core, sim/ | a FuseSoC core with targets `lint` and `sim`, and the bench of the latter |
| {top}.xml | an IP-XACT component: ports, bus interfaces, registers, files |
| tiptoe.rdl, registers.md, tiptoe.h | the registers as SystemRDL, as a page, as a C header |
| rings.md | commands, events and rings in host memory |
| tiptoe.sdc, tiptoe_ooc.xdc | the clock, {period:.3f} ns |
| vivado/ | scripts for synthesis out of context and for an IP, constraints of a design; never run by the project |
| verilator.vlt | what `verilator -Wall` may say of machine-made Verilog, each with its reason; nothing else |

**Clock and reset.** Everything is on the rising edge of `clk`. `rst` is synchronous and active high. Registers have initial
values, which FPGA tools take over.

**AXI.** `s_axil`: AXI4-Lite, registers and doorbells. `m_axi`: AXI4, host memory: one id, INCR bursts of whole words that cross
no 4 KiB boundary; a write response has to mean that the host sees the data. `s_axis_rx`, `m_axis_tx`: frames without FCS, first
byte in bits 7:0. docs/integration.md of the project says what to connect, tie and expect.

{queues}
**Memories.** Of those whose reads and writes never meet at one address, the source says so (`no_rw_check` for yosys,
`rw_addr_collision = "no"` for Vivado). Some want asynchronous reads: distributed memory (LUTRAM).

## Ports

| port | direction | bits |
|---|---|---|
{ports}
## Configuration

| | |
|---|---|
{settings}"""
