"""``tiptoe verilog``: what it writes is complete, one thing with the sources, and clean for Verilator's lint."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiptoe_hdl.config import TINY
from tiptoe_verif.cli import app
from tiptoe_verif.export import Choice, export, plain_names
from tiptoe_verif.paths import ROOT
from tiptoe_verif.sim.toolchain import ToolError, run_verilator

LINT = ["--lint-only", "-Wall", "--top-module"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verilog")
    export(Choice(config=TINY, queues=True, per_module=True, mhz=200), folder)
    return folder


def sources(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in (folder / "files.f").read_text().split()}


def modules(text: str) -> list[str]:
    return re.findall(r"^module (\S+?) ?\(", text, flags=re.M)


def test_list_names_all_sources_and_each_has_the_module_it_is_named_for(exported):
    texts = sources(exported)
    assert sorted(texts) == sorted(f"rtl/{path.name}" for path in (exported / "rtl").iterdir())
    assert all(modules(text) == [Path(name).stem] for name, text in texts.items())
    assert len(texts) > 100 and "rtl/tiptoe_mac_engine_engine_flow.v" in texts


def test_lint_is_clean_but_for_what_is_waived_with_a_reason(exported):
    run_verilator([*LINT, "tiptoe_mac_engine", "verilator.vlt", "-f", "files.f"], exported)
    text = (exported / "verilator.vlt").read_text()
    assert "UNOPTFLAT" not in re.findall(r"^lint_off -rule (\w+)", text, flags=re.M)
    assert not re.findall(r"^lint_off -rule LATCH", text, flags=re.M)


def test_lint_finds_a_source_that_lacks(exported, tmp_path):
    names = [name for name in (exported / "files.f").read_text().split() if "rx_queue" not in name]
    with pytest.raises(ToolError, match="rx_queue"):
        run_verilator(
            [*LINT, "tiptoe_mac_engine", *(str(exported / name) for name in ["verilator.vlt", *names])], tmp_path
        )


def test_one_file_has_the_same_modules(exported, tmp_path):
    export(Choice(config=TINY, queues=True), tmp_path)
    (text,) = sources(tmp_path).values()
    assert sorted(modules(text)) == sorted(Path(name).stem for name in sources(exported))


def test_registers_are_those_of_the_project(exported):
    for name, original in (
        ("tiptoe.h", "driver/include/tiptoe.h"),
        ("registers.md", "docs/registers.md"),
        ("rings.md", "docs/rings.md"),
        ("tiptoe.rdl", "hdl/tiptoe_hdl/host/tiptoe.rdl"),
    ):
        assert (exported / name).read_text() == (ROOT / original).read_text()


def test_notes_list_every_port_of_the_top(exported):
    top = sources(exported)["rtl/tiptoe_mac_engine.v"]
    declared = {
        (name, direction.removesuffix("put"), int(high or 0) + 1)
        for direction, high, name in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+) ?;", top, flags=re.M)
    }
    notes = (exported / "README.md").read_text()
    listed = {(n, d, int(w)) for n, d, w in re.findall(r"^\| `(\w+)` \| (in|out) \| (\d+) \|", notes, flags=re.M)}
    assert listed == declared and ("rx_dropped", "out", 32) in listed


@pytest.mark.parametrize("name", ["tiptoe.sdc", "tiptoe_ooc.xdc"])
def test_clock_of_the_constraints(exported, name):
    assert "create_clock -name clk -period 5.000 [get_ports clk]" in (exported / name).read_text()


def test_names_of_modules_lose_their_dots_everywhere():
    text = (
        "module \\top.rx.parser (a);\n  \\top.rx.parser.it  x (\nendmodule\nmodule \\top.rx.parser.it (b);\nendmodule\n"
    )
    assert plain_names(text, "top") == text.replace("\\top.rx.parser.it ", "top_rx_parser_it ").replace(
        "\\top.rx.parser ", "top_rx_parser "
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--width", "48"], "data_width"),
        (["--config", "huge"], "no configuration 'huge'"),
        (["--connections", "100"], "connections"),
    ],
)
def test_wrong_choice_is_one_line(arguments, said, tmp_path):
    result = CliRunner().invoke(app, ["verilog", "-o", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2 and said in result.output and not (tmp_path / "out").exists()
