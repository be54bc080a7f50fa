"""The exported FuseSoC core's target ``sim``: its bench passes on the engine, and fails on one with a fault."""

import re

import pytest

from tests.verif.exported import CONFIG, CORE, fusesoc
from tiptoe_hdl.config import CONFIGS, TINY
from tiptoe_verif.export import Choice, export

pytestmark = pytest.mark.xdist_group("export")
TOP = "tiptoe_mac_engine"
MINE = f"""CAPI=2:
name: mine:ip:top:1.0
filesets:
  rtl:
    depend: ["{CORE}"]
targets:
  default:
    filesets: [rtl]
    toplevel: {TOP}
    flow: lint
    flow_options: {{tool: verilator}}
"""
CHOICE = Choice(config=CONFIG, queues=True)


def test_bench_passes(tmp_path):
    export(CHOICE, tmp_path / "core")
    assert "PASS" in fusesoc(tmp_path / "core", tmp_path, "sim", CORE)


def test_a_core_that_depends_on_it_gets_verilog_and_waivers(tmp_path):
    export(CHOICE, tmp_path / "cores" / "tiptoe")
    (tmp_path / "cores" / "mine.core").write_text(MINE)
    fusesoc(tmp_path / "cores", tmp_path, "default", "mine:ip:top", "--setup")
    (arguments,) = (tmp_path / "build").rglob("*.vc")
    given = [line.rpartition("/")[2] for line in arguments.read_text().splitlines() if line.startswith("src/")]
    assert given == ["verilator.vlt", f"{TOP}.v"]


@pytest.mark.soak
@pytest.mark.parametrize("name", ["ecp5", "sim"])
def test_lint_is_clean_with_everything_built_in(tmp_path, name):
    """docs/integration.md's own example, and IPv6."""
    export(Choice(config=CONFIGS[name].with_(connections=256), queues=True), tmp_path / "core")
    assert "%Warning" not in fusesoc(tmp_path / "core", tmp_path, "lint", CORE)


@pytest.mark.soak
@pytest.mark.parametrize("width", [64, 256])
def test_bench_passes_at_other_widths_and_without_queues(tmp_path, width):
    export(Choice(config=TINY.with_(data_width=width)), tmp_path / "core")
    assert "PASS" in fusesoc(tmp_path / "core", tmp_path, "sim", "tiptoe:ip:tiptoe_engine")


@pytest.mark.soak
@pytest.mark.parametrize(
    "port, value, said",
    [
        ("s_axil_rdata", "s_axil__rdata ^ 32'd1", "register 00000 reads"),
        ("s_axil_bresp", "2'd0", "is answered 00, not 10"),
        ("m_axis_tx_tdata", "32'd0", "the answer's MAC addresses"),
        ("m_axis_tx_tvalid", "1'd0", "nothing has ended the bench"),
    ],
)
def test_bench_fails_on_a_fault(tmp_path, port, value, said):
    export(CHOICE, tmp_path / "core")
    file = tmp_path / "core" / "rtl" / f"{TOP}.v"
    text, found = re.subn(rf"^  assign {port} = [^;]*;", f"  assign {port} = {value};", file.read_text(), flags=re.M)
    assert found == 1
    file.write_text(text)
    with pytest.raises(AssertionError, match=said):
        fusesoc(tmp_path / "core", tmp_path, "sim", CORE)
