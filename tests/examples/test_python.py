"""Every Python block of the pages is a part of a file that runs: those of examples/python here, those of tests/cocotb and
examples/litex (tests/board/test_litex.py) there."""

import re
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples" / "python").glob("*.py"))
SHOWN = re.compile(r"^# \[shown\]\n(.*?)^# \[/shown\]$", flags=re.M | re.S)
BLOCK = re.compile(r"^```(?:python|py)\n(.*?)^```$", flags=re.M | re.S)
BLOCKS = [(page.name, block) for page in PAGES for block in BLOCK.findall(page.read_text())]


def parts() -> dict[str, str]:
    """What the pages may show, by the file."""
    shown = {path.name: "\n".join(SHOWN.findall(path.read_text())) for path in EXAMPLES}
    return {name: textwrap.dedent(text) for name, text in shown.items()}


@pytest.mark.parametrize("page, block", BLOCKS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(BLOCKS)])
def test_each_block_is_what_a_file_that_runs_has(page: str, block: str) -> None:
    whole = [name for name, text in parts().items() if text.strip() == block.strip()]
    elsewhere = [*(ROOT / "tests" / "cocotb").glob("*.py"), *(ROOT / "examples" / "litex").glob("*.py")]
    others = [path.name for path in elsewhere if block in path.read_text()]
    assert whole or others, f"{page} shows what no file has that runs:\n{block}"


def test_each_example_is_shown_somewhere() -> None:
    blocks = {block.strip() for _, block in BLOCKS}
    assert not [name for name, text in parts().items() if text.strip() not in blocks]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """In this process, which keeps the engine that one of them has found built."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip(), "it says nothing"
