"""Synthesis for other chips: the columns count what the cells take, and a latch or a loop is an error."""

import json

import pytest

from tiptoe_verif.example import AxiStreamSlice
from tiptoe_verif.synth import __main__ as command
from tiptoe_verif.synth.targets import TARGETS, _read, map_block


@pytest.mark.parametrize("target", TARGETS)
def test_slice_has_as_many_flip_flops_in_every_family(target):
    mapped = map_block(AxiStreamSlice, "axis_slice", target)
    assert mapped.area["FF"] == map_block(AxiStreamSlice, "axis_slice", "ecp5").area["FF"] > 64
    assert mapped.area["LUT"] > 0 and mapped.area["block RAM, kbit"] == 0
    assert mapped.latches == 0 and mapped.problems == []


@pytest.mark.parametrize(
    "target, cells, area",
    [
        ("xc7", {"LUT6": 3, "INV": 1, "RAM32M": 2, "RAMB18E1": 1, "RAMB36E1": 2, "CARRY4": 9}, (4, 8, 0, 90, 0)),
        ("xcup", {"RAM64M8": 1, "FDRE": 5, "FDSE": 1, "DSP48E2": 2, "RAMB36E2": 1}, (0, 8, 6, 36, 2)),
        ("ecp5", {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 1, "DP16KD": 1}, (5, 6, 0, 18, 0)),
        ("gowin", {"LUT1": 1, "ALU": 2, "DFFRE": 3, "SDPX9B": 1, "MULT36X36": 1}, (3, 0, 3, 18, 4)),
    ],
)
def test_columns_count_what_cells_take(target, cells, area, tmp_path):
    mapped = read(tmp_path, target, cells)
    assert tuple(mapped.area.values()) == area
    assert mapped.other == ({"CARRY4": 9} if target == "xc7" else {})


@pytest.mark.parametrize("target, latch", [("xcup", "LDCE"), ("ecp5", "$dlatch"), ("gowin", "DL")])
def test_latches_are_counted(target, latch, tmp_path):
    assert read(tmp_path, target, {latch: 2}).latches == 2


def test_warnings_are_put_together_by_kind_and_problems_are_kept(tmp_path):
    log = "Warning: found 3 of \\a.b\nWarning: found 12 of \\c\nABC: Warning: The network is combinational\n"
    mapped = read(tmp_path, "xc7", {}, log=log, check="Warning: found logic loop in module tiptoe:\n  cell\n")
    assert mapped.warnings == {"Warning: found N of X": 2}
    assert mapped.problems == ["Warning: found logic loop in module tiptoe:"]


def read(folder, target, cells, log="", check=""):
    (folder / "stat.json").write_text(json.dumps({"design": {"num_cells_by_type": cells}}))
    (folder / "yosys.log").write_text(log)
    (folder / "check.txt").write_text(check)
    return _read(folder, TARGETS[target], 1.0)


def test_unknown_target_is_one_line():
    with pytest.raises(SystemExit, match="no target 'ice40'"):
        command.map_for("ice40", [])
