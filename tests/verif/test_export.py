"""``tiptoe verilog``: what it writes is complete, one thing with the sources, and good for the tools that it is written for."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.verif.exported import CONFIG, CORE, fusesoc
from tiptoe_hdl.config import TINY
from tiptoe_verif.cli import app
from tiptoe_verif.export import Choice, export
from tiptoe_verif.export.choice import is_module_name
from tiptoe_verif.export.folder import plain_names
from tiptoe_verif.export.fusesoc import bench
from tiptoe_verif.paths import ROOT
from tiptoe_verif.sim.toolchain import ToolError, run_verilator

TOP = "tiptoe_mac_engine"
pytestmark = pytest.mark.xdist_group("export")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verilog")
    export(Choice(config=CONFIG, queues=True, per_module=True, mhz=200), folder)
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


def test_fusesoc_lint_is_clean_but_for_what_is_waived_with_a_reason(exported, tmp_path):
    """Verilator's -Wall, every warning an error."""
    said = fusesoc(exported, tmp_path, "lint", CORE)
    assert "%Warning" not in said
    text = (exported / "verilator.vlt").read_text()
    waived = re.findall(r"^lint_off -rule (\w+)", text, flags=re.M)
    assert "UNOPTFLAT" not in waived and not [rule for rule in waived if rule.startswith("LATCH")]


@pytest.mark.parametrize(
    "name, body, said",
    [
        ("rtl/tiptoe_mac_engine_x", "reg [1:0] c;\n  always @* if (a[0]) c = a[1:0];\n  assign b = c;", "LATCH"),
        ("around", "assign b = a;", "WIDTHTRUNC"),
    ],
)
def test_lint_would_see_a_latch_in_the_engine_and_anything_around_it(exported, tmp_path, name, body, said):
    file = tmp_path / f"{name}.v"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"module {file.stem} (input [3:0] a, output [1:0] b);\n  {body}\nendmodule\n")
    with pytest.raises(ToolError, match=said):
        run_verilator(
            ["--lint-only", "-Wall", "-Wno-UNUSEDSIGNAL", str(exported / "verilator.vlt"), str(file)], tmp_path
        )


def test_lint_finds_a_source_that_lacks(exported, tmp_path):
    names = [name for name in (exported / "files.f").read_text().split() if "rx_queue" not in name]
    with pytest.raises(ToolError, match="rx_queue"):
        run_verilator(
            ["--lint-only", "--top-module", TOP, *(str(exported / name) for name in ["verilator.vlt", *names])],
            tmp_path,
        )


def test_one_file_has_the_same_modules(exported, tmp_path):
    export(Choice(config=CONFIG, queues=True), tmp_path)
    (text,) = sources(tmp_path).values()
    assert sorted(modules(text)) == sorted(Path(name).stem for name in sources(exported))


def test_every_instance_is_of_a_module_that_is_there(exported):
    """No black box and no vendor's primitive; and what has an edge has it of the one clock."""
    texts = sources(exported)
    ours = {Path(name).stem for name in texts}
    word = re.compile(r"^  (\w+) +\S+ +\($", flags=re.M)
    instances = {name for text in texts.values() for name in word.findall(text)}
    assert instances <= ours and ours - instances == {TOP}
    kept = {edge for text in texts.values() for edge in re.findall(r"^  always @\(([^)]*)\)", text, flags=re.M)}
    assert kept == {"posedge clk"}


def test_registers_are_those_of_the_project(exported):
    for name, original in (
        ("tiptoe.h", "driver/include/tiptoe.h"),
        ("registers.md", "docs/registers.md"),
        ("rings.md", "docs/rings.md"),
    ):
        assert (exported / name).read_text() == (ROOT / original).read_text()
    registers = (ROOT / "hdl/tiptoe_hdl/host/tiptoe.rdl").read_text()
    assert (exported / "tiptoe.rdl").read_text() == registers.replace(" = 125000;", " = 50000;") != registers


def test_notes_list_every_port_of_the_top(exported):
    top = sources(exported)[f"rtl/{TOP}.v"]
    declared = {
        (name, direction.removesuffix("put"), int(high or 0) + 1)
        for direction, high, name in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+) ?;", top, flags=re.M)
    }
    notes = (exported / "README.md").read_text()
    listed = {(n, d, int(w)) for n, d, w in re.findall(r"^\| `(\w+)` \| (in|out) \| (\d+) \|", notes, flags=re.M)}
    assert listed == declared and ("rx_dropped", "out", 32) in listed


def test_notes_name_every_file(exported):
    notes = (exported / "README.md").read_text().partition("## Ports")[0]
    files = {path.relative_to(exported).parts[0] for path in exported.rglob("*") if path.is_file()}
    assert [name for name in files - {"README.md"} if name not in notes] == []


@pytest.mark.parametrize("name", ["tiptoe.sdc", "tiptoe_ooc.xdc"])
def test_clock_of_the_constraints(exported, name):
    assert "create_clock -name clk -period 5.000 [get_ports clk]" in (exported / name).read_text()


def test_names_of_modules_lose_their_dots_everywhere():
    text = (
        "module \\top.rx.parser (a);\n  \\top.rx.parser.it  x (\nendmodule\nmodule \\top.rx.parser.it (b);\nendmodule\n"
    )
    plain = text.replace("\\top.rx.parser.it ", "top_rx_parser_it ").replace("\\top.rx.parser ", "top_rx_parser ")
    assert plain_names(text, "top", "top") == plain
    assert plain_names(text + "module top(c);\n", "top", "own") == plain.replace("top_", "own_") + "module own(c);\n"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--width", "48"], "data_width"),
        (["--config", "huge"], "no configuration 'huge'"),
        (["--connections", "100"], "connections"),
        (["--mhz", "nan"], "--mhz"),
        (["--name", "always"], "no name"),
        (["--name", "a b"], "no name"),
        (["--name", "../x"], "no name"),
    ],
)
def test_wrong_choice_is_one_line(arguments, said, tmp_path):
    result = CliRunner().invoke(app, ["verilog", "-o", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2 and said in result.output and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, good",
    [("eng0", True), ("always_comb", False), ("wire", False), ("int", False), ("x.y", False), ("1x", False), ("é", False),
     ("a-b", False), ("a\n", False), ("_", False)],
)  # fmt: skip
def test_names_of_modules(name, good):
    assert is_module_name(name) == good


def test_two_engines_in_one_design(exported, tmp_path):
    """Of two names no module is the other's; without, Verilator would take one for both."""
    export(Choice(config=CONFIG, queues=True, name="eng1"), tmp_path)
    one, other = (set(modules("".join(sources(folder).values()))) for folder in (exported, tmp_path))
    assert not one & other and "eng1" in other and len(one) == len(other)
    assert "name: tiptoe:ip:eng1:" in (tmp_path / "eng1.core").read_text() and (tmp_path / "eng1.xml").exists()
    assert "{ set top eng1 }" in (tmp_path / "vivado" / "package_ip.tcl").read_text()
    assert '"*rtl/eng1*.v"' in (tmp_path / "verilator.vlt").read_text()


def test_a_folder_has_one_export(tmp_path):
    """What an earlier one left goes; what is somebody else's stays, whatever the list says."""
    export(Choice(config=CONFIG, queues=True, per_module=True, name="eng1"), tmp_path)
    (tmp_path / "rtl" / "mine.v").write_text("")
    (tmp_path / "mine.core").write_text("CAPI=2:\nname: mine:ip:mine:1.0\n")
    (tmp_path.parent / "kept").write_text("")
    with (tmp_path / "files.f").open("a") as file:
        file.write("../kept\n")
    written = export(Choice(config=CONFIG, queues=True), tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {path.relative_to(tmp_path).as_posix() for path in written} | {"rtl/mine.v", "mine.core"}
    assert (tmp_path.parent / "kept").exists()


def test_the_tick_is_a_millisecond_of_the_clock(tmp_path, monkeypatch):
    """No driver can know the clock: TICK_CYCLES is right after reset, or every timer is wrong."""
    given = []
    monkeypatch.setattr("tiptoe_verif.export.export", lambda choice, out: given.append(choice) or [])
    for mhz in ("50", "62.5"):
        assert CliRunner().invoke(app, ["verilog", "-o", str(tmp_path), "--mhz", mhz]).exit_code == 0
    assert [(each.config.tick_cycles, each.period) for each in given] == [(50_000, 20.0), (62_500, 16.0)]
    assert Choice(config=CONFIG).period == 20.0


def test_the_bench_waits_for_the_scrubbing_of_large_tables():
    text = bench(Choice(config=TINY.with_(connections=65536)))
    (latest,) = re.findall(r"LATEST = (\d+);", text)
    assert int(latest) > 10 * 65536
