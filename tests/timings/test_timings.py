"""The timing diagrams of docs/interfaces.md are what the engine does."""

from pathlib import Path

from tests.timings.page import FOLDER, record
from tests.timings.wavejson import Row, diagram


def test_diagrams_are_what_the_engine_does(out_dir: Path) -> None:
    drawn = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.json"))}
    assert drawn == record(out_dir), "if the engine is right: make pictures"


def test_a_row_and_a_gap() -> None:
    cycles = [{"v": 0, "d": 7}, {"v": 1, "d": 7}, {"v": 1, "d": 7}, *[{"v": 1, "d": 8}] * 9, {"v": 0, "d": 8}]
    drawn = diagram("", {"g": [Row("v"), Row("d", "v", 2)]}, cycles)
    clk, numbers, (_, v, d) = drawn["signal"]
    assert clk["wave"] == "p...|.."
    assert numbers["data"] == ["0", "1", "2", "3", "+7", "11", "12"]
    assert v["wave"] == "01..|.0"
    assert d == {"name": "d", "wave": "x=.=|.x", "data": ["07", "08"]}


def test_part_of_a_bus() -> None:
    row = Row("d", "v", 2, 8)
    assert row.name == "d[15:8]"
    assert row.state({"v": 1, "d": 0x123456}) == "34" and row.state({"v": 0, "d": 0}) == "x"
