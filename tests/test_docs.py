"""What README and docs/ say of places is so: links lead somewhere, and every file of the driver has its line in driver.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
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
