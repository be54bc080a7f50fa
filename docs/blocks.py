"""The engine's block picture as Graphviz source, from the design itself: its blocks, and the streams that join them.

``make pictures`` draws it. A block is a submodule of ``Engine``; an arrow is every stream or bundle of which the one
block drives the payload and the other takes it. Registers between blocks are left out, as are single wires (settings,
counts, levels) and the blocks that only those reach.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from amaranth.hdl import Value
from amaranth.lib import wiring

from tiptoe_hdl.config import EngineConfig
from tiptoe_hdl.engine import Engine

EDGE = "engine"
"""Stands for the engine's own ports."""

LEFT_OUT = {"errors", "watchdog", "counters", "resets"}
"""What nearly every block is joined with."""

PORTS = {
    "s_axis_rx": "frames in\\nAXI4-Stream", "m_axis_tx": "frames out\\nAXI4-Stream",
    "m_axi_read": "host memory, read\\nAXI4", "m_axi_write": "host memory, write\\nAXI4",
    "s_axil": "registers, doorbells\\nAXI4-Lite",
}  # fmt: skip

COLOURS = {
    "rx": "#d5e8f7", "tx": "#fbe3cf", "flow": "#dcefd6", "listen": "#f6d9e3", "host": "#fff4c2", "wire": "#eeeeee",
}  # fmt: skip
"""Of a block, by the folder its file is in."""

Port = tuple[str, str]
"""A block's name, and its port's."""


def _unwrapped(block: Any) -> Any:
    """The component in a ResetInserter."""
    while hasattr(block, "_elaboratable_"):
        block = block._elaboratable_
    return block


def _joined(blocks: dict[str, Any], statements: Any) -> dict[Port, set[Port]]:
    """For each port that gives, the ports that take."""
    owner: dict[int, Port] = {}
    for name, block in blocks.items():
        if isinstance(block, wiring.Component):
            for path, _, value in block.signature.flatten(block):
                if len(path) > 1:
                    for signal in Value.cast(value)._rhs_signals():
                        owner[id(signal)] = (name, str(path[0]))
    joined: dict[Port, set[Port]] = defaultdict(set)
    for statement in statements:
        for taken in statement._lhs_signals():
            for given in statement._rhs_signals():
                giver, taker = owner.get(id(given)), owner.get(id(taken))
                if giver and taker and giver != taker and not taken.name.endswith("ready"):
                    joined[giver].add(taker)
    return joined


def engine_blocks(cfg: EngineConfig) -> tuple[dict[str, str], dict[tuple[str, str], set[str]]]:
    """The engine's blocks with the modules they are in, and for each giver and taker the ports at the taker's."""
    engine = Engine(cfg)
    module = engine.elaborate(None)
    # Amaranth has no public way to ask a module for what it consists of.
    blocks = {name: _unwrapped(entry[0]) for name, entry in module._named_submodules.items()}
    joined = _joined({EDGE: engine} | blocks, module._statements["comb"])
    arrows: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (giver, port), takers in joined.items():
        for taker in takers:
            # A register on the way has one port in and one out.
            name, at = next(iter(joined[taker[0], "o"])) if taker[0].startswith("link_") else taker
            if giver.startswith("link_") or {giver, name} & LEFT_OUT:
                continue
            giver_, taker_ = (port if giver == EDGE else giver), (at if name == EDGE else name)
            arrows[giver_, taker_].add(at)
    ends = {end for arrow in arrows for end in arrow}
    return {name: type(block).__module__ for name, block in blocks.items() if name in ends}, dict(arrows)


def engine_dot(cfg: EngineConfig) -> str:
    """The picture."""
    blocks, arrows = engine_blocks(cfg)
    lines = [
        "digraph engine {",
        '  rankdir=TB; nodesep=0.12; ranksep=0.45; bgcolor="white";',
        '  node [shape=box, style="filled,rounded", fontname="Helvetica", fontsize=14, margin="0.3,0.06", color="#555555"];',
        '  edge [fontname="Helvetica", fontsize=9, color="#555555", arrowsize=0.7];',
    ]
    for name, module in sorted(blocks.items()):
        folder, file = module.removeprefix("tiptoe_hdl.").split(".")
        lines.append(f'  {name} [label="{name}\\n{folder}/{file}.py", fillcolor="{COLOURS[folder]}"];')
    for port in sorted({end for arrow in arrows for end in arrow} - set(blocks)):
        lines.append(f'  {port} [label="{PORTS[port]}", shape=plain, style="", margin="0.05"];')
    for giver, taker in sorted(arrows):
        if (taker, giver) in arrows and giver > taker:
            continue
        both = ", dir=both" if (taker, giver) in arrows else ""
        lines.append(f'  {giver} -> {taker} [tooltip="{", ".join(sorted(arrows[giver, taker]))}"{both}];')
    return "\n".join([*lines, "}"]) + "\n"
