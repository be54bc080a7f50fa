"""Sites for block memories: near what they serve, one each, the same every time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiptoe_verif.sim.toolchain import ToolError
from tiptoe_verif.synth.memory_sites import Chip, chip, memory_sites, pads_of

SMALL = Chip(
    40, 30,
    {f"X{x}/Y{y}/EBR{n}": (x, y) for y in (8, 22) for n, x in enumerate((4, 6, 8, 10, 28, 30, 32, 34))},
    {"W1": (0, 15), "E1": (39, 15), "N1": (20, 0), "S1": (20, 29)},
)  # fmt: skip
"""A chip with two rows of memories, in groups at the west and the east."""
DEVICE = chip("LFE5UM5G-85F", "CABGA554")


def cell(kind, **pins):
    return {"type": kind, "connections": {pin: [bit] for pin, bit in pins.items()}}


def chains(*pads, length=40, memories=2):
    """For each pad a chain of look-up tables from it, with memories all along."""
    cells, ports, free = {}, {}, 2
    for pad in pads:
        bits = list(range(free, free + length + 1))
        free = bits[-1] + 1 + length
        ports[f"p_{pad}"] = {"direction": "input", "bits": [bits[0]]}
        for index in range(length):
            cells[f"{pad}.lut{index}"] = cell("LUT4", A=bits[index], Z=bits[index + 1])
        for index in range(memories):
            cells[f"{pad}.ram{index}"] = cell(
                "DP16KD", CLKA=1, ADA0=bits[1 + index], ADA1=bits[4 + index], DOB0=bits[9 + index]
            )
    return {"cells": cells, "ports": ports}


def place(module):
    pads = {port: port.removeprefix("p_") for port in module["ports"]}
    return memory_sites(module, SMALL, pads)


def test_memories_are_at_the_side_of_the_pads_they_serve():
    found = place(chains("W1", "E1"))
    assert len(found) == 4
    for name, site in found.items():
        assert (SMALL.sites[site][0] < 20) == name.startswith("W1"), found


def test_rows_count_as_columns_do():
    found = place(chains("N1", "S1"))
    for name, site in found.items():
        assert (SMALL.sites[site][1] < 15) == name.startswith("N1"), found


@pytest.mark.parametrize("memories", [1, 7, 8])
def test_no_site_is_given_twice(memories):
    found = place(chains("W1", "E1", memories=memories))
    assert len(set(found.values())) == len(found) == 2 * memories


def test_same_netlist_same_sites():
    assert place(chains("W1", "N1", "E1")) == place(chains("W1", "N1", "E1"))


def test_sites_do_not_depend_on_the_process():
    """Python's hashes of text differ from one to the next, and a build is kept by what went in."""
    code = "import test_memory_sites as t; print(sorted(t.place(t.chains('W1', 'N1', 'E1')).items()))"
    found = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parent, env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1] != ""


def test_no_pads_at_all():
    module = chains("W1", "E1")
    assert len(memory_sites(module, SMALL)) == 4


def test_no_memories():
    assert place(chains("W1", memories=0)) == {}


def test_more_than_the_chip_has():
    with pytest.raises(ToolError, match="18 block memories, and the chip 16"):
        place(chains("W1", "E1", memories=9))


def test_the_device():
    """LFE5UM5G-85F: 208 memories of 18 kbit (FPGA-DS-02012, table 2.1), at four rows; no two at one place."""
    assert len(DEVICE.sites) == len(set(DEVICE.sites.values())) == 208
    assert len({y for _, y in DEVICE.sites.values()}) == 4
    assert {f"X{x}/Y{y}/EBR{name[-1]}" for name, (x, y) in DEVICE.sites.items()} == set(DEVICE.sites)
    assert all(
        0 <= x < DEVICE.width and 0 <= y < DEVICE.height for x, y in [*DEVICE.sites.values(), *DEVICE.pads.values()]
    )


def test_pads_of_a_board():
    lines = 'LOCATE COMP "clk100" SITE "K23";\nFREQUENCY PORT "clk100" 100.0 MHZ;\nLOCATE COMP "led[2]" SITE "A5";\n'
    assert pads_of(lines) == {"clk100": "K23", "led[2]": "A5"}
