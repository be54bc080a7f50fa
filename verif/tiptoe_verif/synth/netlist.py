"""Passes over the mapped netlist (yosys' JSON): output registers of block RAM, write enables of distributed memories, resets."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Module = dict[str, Any]

_OUTPUTS = 18  # data outputs of one DP16KD port


def merge_output_registers(module: Module, inside: str = "") -> int:
    """Move flip-flops that directly follow a DP16KD's data outputs into its output register; return how many.

    yosys never uses that register, and without it a block RAM takes 5.8 ns (speed grade 6) from clock to output.
    A port is converted when each of its used outputs has exactly one load, the data input of a flip-flop on the
    same clock edge, and all these flip-flops agree on enable and reset: no enable or a common one (it becomes OCE),
    no reset or a common synchronous one to 0 (it becomes RST), never both. Only cells whose name contains ``inside``
    are looked at.
    """
    cells = module["cells"]
    loads: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"].get(port) == "input":
                for bit in bits:
                    if isinstance(bit, int):
                        loads[bit].append((name, port))
    exported = {bit for port in module["ports"].values() if port["direction"] != "input" for bit in port["bits"]}
    merged = 0
    for name in [name for name, cell in cells.items() if cell["type"] == "DP16KD" and inside in name]:
        for side in "AB":
            merged += _merge_side(cells, cells[name], side, loads, exported, inside)
    return merged


def _merge_side(
    cells: dict[str, Any],
    ram: dict[str, Any],
    side: str,
    loads: dict[int, list[tuple[str, str]]],
    exported: set[Any],
    inside: str,
) -> int:
    pins, parameters = ram["connections"], ram["parameters"]
    if _text(parameters.get(f"REGMODE_{side}", "NOREG")) != "NOREG":
        return 0
    flops: list[tuple[str, str]] = []  # output pin of the memory, name of the flip-flop
    for pin in (f"DO{side}{index}" for index in range(_OUTPUTS)):
        bit = (pins.get(pin) or ["x"])[0]
        if not isinstance(bit, int) or (not loads[bit] and bit not in exported):
            continue
        if bit in exported or len(loads[bit]) != 1:
            return 0
        flop, port = loads[bit][0]
        if cells[flop]["type"] != "TRELLIS_FF" or port != "DI" or inside not in flop:
            return 0
        flops.append((pin, flop))
    controls = {_control(cells[flop]) for _, flop in flops}
    if len(controls) != 1:
        return 0
    clock, clock_mux, enable, reset = controls.pop()
    inverted = _text(parameters.get(f"CLK{side}MUX", f"CLK{side}")) == "INV"
    if clock != pins[f"CLK{side}"][0] or (clock_mux == "INV") != inverted:
        return 0
    if enable is _UNSUPPORTED or reset is _UNSUPPORTED or (enable is not None and reset is not None):
        return 0
    if reset is not None:
        other = (pins.get("RSTB" if side == "A" else "RSTA") or ["0"])[0]
        if other != "0" and _text(parameters.get("RESETMODE", "SYNC")) != "SYNC":
            return 0
        parameters["RESETMODE"] = "SYNC"
        pins[f"RST{side}"] = [reset]
    parameters[f"REGMODE_{side}"] = "OUTREG"
    pins[f"OCE{side}"] = ["1" if enable is None else enable]
    for pin, flop in flops:
        pins[pin] = cells.pop(flop)["connections"]["Q"]
    return len(flops)


def tie_write_enables(module: Module) -> int:
    """Let distributed memories that are written in every cycle have the one from their own multiplexer; return how many.

    yosys connects a constant. nextpnr makes a net of all of these, driven by a single lookup table, to two pins of each memory:
    thousands of arcs over the whole chip, which router1 lays and tears up again for most of its time.
    """
    tied = 0
    for cell in module["cells"].values():
        if cell["type"] == "TRELLIS_DPR16X4" and cell["connections"].get("WRE") == ["1"]:
            if _text(cell["parameters"].get("WREMUX", "WRE")) == "WRE":
                cell["parameters"]["WREMUX"] = "1 "  # with a space it is a text and not a number
                del cell["connections"]["WRE"], cell["port_directions"]["WRE"]
                tied += 1
    return tied


_GLOBALS = 8
"""Of the 16 global networks those that reach more than clock pins, as nextpnr uses them."""
_WIDE = 100
"""Flip-flops from which on a reset is worth a global network."""


def promote_resets(module: Module) -> list[tuple[str, int]]:
    """Put the widest resets on the global networks that the clocks leave free; return each one's net and flip-flops.

    nextpnr does so with clocks only, and the wires of resets, two a tile, are what router1 spends most of its time on. Blocks
    that were mapped one by one have a lookup table each for the same reset: these count as one. What else looks at a net than
    flip-flops' resets stays on it.
    """
    cells = module["cells"]
    tables = {cell["connections"]["Z"][0]: cell for cell in cells.values() if cell["type"] == "LUT4"}
    pins: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    sources: dict[Any, int] = {}
    clocks = set()
    for cell in cells.values():
        if cell["type"] != "TRELLIS_FF":
            continue
        clocks.add(cell["connections"]["CLK"][0])
        net = (cell["connections"].get("LSR") or ["0"])[0]
        if isinstance(net, int):
            reset = _function(tables[net]) if net in tables else net
            pins[reset].append(cell)
            sources.setdefault(reset, net)
    names = {bit: name for name, net in module["netnames"].items() for bit in net["bits"] if isinstance(bit, int)}
    free = 1 + max(names)
    wide = [reset for reset in pins if len(pins[reset]) >= _WIDE]
    wide.sort(key=lambda reset: (-len(pins[reset]), sources[reset]))
    promoted = []
    for number, reset in enumerate(wide[: max(_GLOBALS - len(clocks), 0)]):
        source = names.get(sources[reset], str(sources[reset]))
        name = f"{source}$global"
        cells[f"{name}$dcc"] = {
            "hide_name": 0,
            "type": "DCCA",
            "parameters": {},
            "attributes": {},
            "port_directions": {"CLKI": "input", "CLKO": "output"},
            "connections": {"CLKI": [sources[reset]], "CLKO": [free + number]},
        }
        module["netnames"][name] = {"hide_name": 0, "bits": [free + number], "attributes": {}}
        for cell in pins[reset]:
            cell["connections"]["LSR"] = [free + number]
        promoted.append((source, len(pins[reset])))
    return promoted


def _function(table: dict[str, Any]) -> tuple[Any, ...]:
    """What a lookup table computes, whatever pins its inputs are on: the nets, and the outcome for each of their values."""
    bits = [(table["connections"].get(pin) or ["0"])[0] for pin in "ABCD"]
    nets = sorted({bit for bit in bits if isinstance(bit, int)})
    init = int(str(table["parameters"]["INIT"]), 2)
    outcome = []
    for values in range(1 << len(nets)):
        level = {net: values >> index & 1 for index, net in enumerate(nets)} | {"1": 1}
        outcome.append(init >> sum(level.get(bit, 0) << index for index, bit in enumerate(bits)) & 1)
    return (*nets, *outcome)


_UNSUPPORTED = object()


def _control(flop: dict[str, Any]) -> tuple[Any, str, Any, Any]:
    """Clock net, clock polarity, enable net or None, reset net or None of a TRELLIS_FF."""
    parameters, pins = flop["parameters"], flop["connections"]
    enable: Any = None
    mux = _text(parameters.get("CEMUX", "1"))
    bit = (pins.get("CE") or ["1"])[0]
    if mux == "CE" and bit != "1":
        enable = bit if isinstance(bit, int) else _UNSUPPORTED
    elif mux not in ("1", "CE"):
        enable = _UNSUPPORTED
    reset: Any = None
    bit = (pins.get("LSR") or ["0"])[0]
    if bit != "0":
        plain = _text(parameters.get("LSRMUX", "LSR")) == "LSR"
        synchronous = _text(parameters.get("SRMODE", "LSR_OVER_CE")) == "LSR_OVER_CE"
        reset = bit if plain and synchronous and isinstance(bit, int) else _UNSUPPORTED
    if _text(parameters.get("REGSET", "RESET")) != "RESET":
        reset = _UNSUPPORTED
    return pins["CLK"][0], _text(parameters.get("CLKMUX", "CLK")), enable, reset


def _text(value: Any) -> str:
    return str(value).strip()
