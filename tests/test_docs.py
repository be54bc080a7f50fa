"""What README and docs/ say is so: links lead somewhere, figures are the recorded ones, examples run, nothing is left out."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PLACE = re.compile(r"`((?:hdl|driver|verif|tests|constraints|examples|docs)/[\w./-]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_or_folder(page: Path) -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page.read_text())]
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_place_named_exists(page: Path) -> None:
    assert not [place for place in PLACE.findall(page.read_text()) if not (ROOT / place).exists()]


def test_every_file_of_the_driver_has_its_line() -> None:
    folder = ROOT / "driver" / "tiptoe_driver"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.py") if path.name != "__init__.py"}
    table = (ROOT / "docs" / "driver.md").read_text().partition("## The files")[2].partition("## Bring-up")[0]
    named = set(re.findall(r"`([\w/]+\.py)`", table))
    assert named == files


def test_the_tour_goes_down_through_every_wing() -> None:
    tour = (ROOT / "docs" / "tour.md").read_text()
    for wing in ("rx", "flow", "flow/rules", "tx", "host", "listen", "wire"):
        assert f"hdl/tiptoe_hdl/{wing}/" in tour
    for wing in ("toe", "netinet", "hardware"):
        assert f"driver/tiptoe_driver/{wing}/" in tour


def toctree(page: Path) -> set[Path]:
    """The pages that a page's toctrees name."""
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.S)
    entries = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    return {path for entry in entries for path in page.parent.glob(f"{entry}.md")}


def test_every_page_is_in_the_site() -> None:
    found, new = set(), {DOCS / "index.md"}
    while new:
        found |= new
        new = set().union(*(toctree(page) for page in new)) - found
    assert found == set(DOCS.rglob("*.md"))


def test_the_engine_s_picture_has_its_blocks_and_streams() -> None:
    code = "import blocks, json; from tiptoe_hdl.config import ECP5; made = blocks.engine_blocks(ECP5)\n"
    code += "print(json.dumps([list(made[0]), list(made[1])]))"
    made = subprocess.run([sys.executable, "-c", code], cwd=DOCS, capture_output=True, text=True, check=True).stdout
    blocks, arrows = json.loads(made)
    titles = re.findall(r"<title>(.*?)</title>", (DOCS / "pictures" / "engine.svg").read_text())
    drawn = {tuple(title.replace("&#45;&gt;", "->").split("->")) for title in titles if title != "engine"}
    joined = {frozenset(arrow) for arrow in arrows}
    assert {frozenset(title) for title in drawn if len(title) == 2} == joined
    assert {title[0] for title in drawn if len(title) == 1} == set(blocks).union(*joined)
    assert {"dispatcher", "flow"} in joined and "link_meta" not in blocks


def test_pictures_name_files_and_are_drawn() -> None:
    for source in [*DOCS.glob("pictures/*.dot"), *DOCS.glob("timings/*.json")]:
        assert (DOCS / "pictures" / f"{source.stem}.svg").exists()
        named = re.findall(r"((?:hdl|board)/[\w/]+\.py)", source.read_text())
        assert not [file for file in named if not (ROOT / file).exists()]


BENCH = json.loads((ROOT / "constraints" / "bench_baseline.json").read_text())


@pytest.mark.parametrize("page", ["README.md", "docs/limits.md", "docs/peers.md"])
def test_figures_are_those_of_the_baseline(page: str) -> None:
    text = (ROOT / page).read_text()
    latency = "sim, 64 bits / latency / last word of {} / memory 20 / 1"
    ack, syn = (
        BENCH[latency.format(what)]
        for what in ("1460 bytes of data → first word of its ACK", "SYN → first word of SYN,ACK")
    )
    full = [figure for name, figure in BENCH.items() if "/ full segments (1460 bytes) /" in name and "line" not in name]
    assert full and {f"{figure:.2f}" for figure in full} == {"7.68"} and "7.68" in text
    assert re.search(rf"\b(ACK|data)[^|\n]*[ |]+{ack:.0f}\b", text) and re.search(rf"SYN,ACK[ |]+{syn}\b", text)
    doorbell = BENCH["sim, 64 bits / latency / doorbell → first word of a frame with 1 bytes / memory 20 / 1"]
    assert page != "README.md" or f"{doorbell - 20} cycles + memory" in text


def test_counters_in_the_checklist_exist() -> None:
    from tiptoe_driver.hardware.abi_gen import Counter

    named = set(re.findall(r"\b(?:RX|TX|RTO|FAST)_[A-Z_]+[A-Z]\b", (DOCS / "problems.md").read_text()))
    assert named and named <= set(Counter.__members__)


def test_linux_beside_us_is_what_was_measured() -> None:
    rows = re.findall(r"^\| ([\d.]+ %) \| (\d+ ms) \| ([\d.]+) \| ([\d.]+) \|$", (DOCS / "peers.md").read_text(), re.M)
    table = (DOCS / "benchmarks.md").read_text()
    measured = re.findall(
        r"^\| ([\d.]+ %) \| (\d+ ms) \| 1 \| \d+ \| \d+ \| ([\d.]+) \| \d+ \| ([\d.]+) \|", table, re.M
    )
    assert rows and set(rows) <= set(measured)


def test_the_first_example_runs() -> None:
    code = re.findall(r"```python\n(.*?)```", (DOCS / "getting-started.md").read_text(), re.S)[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=800, check=True)
    assert done.stdout == "b'Hello'\n"


def test_make_check_is_what_contributing_says() -> None:
    makefile, contributing = (ROOT / "Makefile").read_text(), (ROOT / "CONTRIBUTING.md").read_text()
    targets = re.findall(r"^check: ([\w ]+) ##", makefile, re.M)[0].split()
    assert re.findall(r"^\| `make (\w+)` \|", contributing, re.M) == targets
    ci = re.findall(r"^make (\w+)", (ROOT / ".ci" / "run").read_text(), re.M)
    said = contributing.partition("CI runs `.ci/run`")[2].partition(". ")[0]
    assert re.findall(r"`make (\w+)`", said) == ci


def test_the_site_s_packages_are_pinned_apart() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"]
    apart, setup = (
        dict(re.findall(r"^([\w.-]+)==(.+)$", (ROOT / name).read_text().lower(), re.M))
        for name in ("requirements-docs.lock", "requirements.lock")
    )
    assert dict(item.split("==") for item in wanted).items() <= apart.items()
    assert {name: setup.get(name, version) for name, version in apart.items()} == apart, "make lock"
