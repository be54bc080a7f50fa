"""The contracts of imports in pyproject.toml: each finds what it is there for, and no two modules import each other."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from tiptoe_verif.paths import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
PACKAGES = CONTRACTS["root_packages"]
APART = "Gateware and driver know nothing of each other, nor of the verification"
CIRCLES = "No circles: between folders, or between files of one folder"
GATEWARE, DRIVER, VERIFICATION = (f"Layers of the {part}" for part in ("gateware", "driver", "verification"))
TYPES_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The three packages, empty: every layer is a folder of files that import nothing."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for package in PACKAGES:
        layers = next(c["layers"] for c in CONTRACTS["contracts"] if c.get("containers") == [package])
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        for name in " | ".join(layers).split(" | "):
            (tmp_path / package / name).mkdir()
            for file in ("__init__", "one", "two"):
                (tmp_path / package / name / f"{file}.py").touch()
    return tmp_path


def broken(house: Path) -> set[str]:
    """Names of the contracts that the linter finds broken in a house."""
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=house, env=os.environ | {"PYTHONPATH": str(house), "COLUMNS": "200"}, capture_output=True, text=True,
    )  # fmt: skip
    found = {line.removesuffix(" BROKEN") for line in result.stdout.splitlines() if line.endswith(" BROKEN")}
    assert result.returncode == bool(found), result.stdout + result.stderr
    return found


def test_an_empty_house_is_in_order(house: Path) -> None:
    assert broken(house) == set()


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("prefix", ["", TYPES_ONLY], ids=["import", "TYPE_CHECKING"])
def test_a_circle_of_two_files_is_found(house: Path, package: str, prefix: str) -> None:
    folder = next(path for path in sorted((house / package).iterdir()) if path.is_dir())
    (folder / "one.py").write_text("from .two import x\n")
    (folder / "two.py").write_text(f"{prefix}from .one import y\n")
    assert broken(house) == {CIRCLES}


@pytest.mark.parametrize(
    "importer, imported, contract",
    [
        ("tiptoe_driver.hardware", "tiptoe_hdl.config", APART),
        ("tiptoe_driver.toe", "tiptoe_verif.native", APART),
        ("tiptoe_hdl.host", "tiptoe_driver.hardware", APART),
        ("tiptoe_hdl.engine", "tiptoe_verif.sim", APART),
        ("tiptoe_hdl.wire", "tiptoe_hdl.rx", GATEWARE),
        ("tiptoe_hdl.rx", "tiptoe_hdl.tx", GATEWARE),
        ("tiptoe_driver.hardware", "tiptoe_driver.toe", DRIVER),
        ("tiptoe_driver.netinet", "tiptoe_driver.toe", DRIVER),
        ("tiptoe_verif.wire", "tiptoe_verif.native", VERIFICATION),
        ("tiptoe_verif.native", "tiptoe_verif.live", VERIFICATION),
    ],
)
def test_an_import_of_an_upper_layer_is_found(house: Path, importer: str, imported: str, contract: str) -> None:
    file = house / importer.replace(".", "/") / "one.py"
    file.write_text(f"{TYPES_ONLY}from {imported}.two import x\n")
    assert broken(house) == {contract}


@pytest.mark.parametrize(
    "package, contract", [("tiptoe_hdl", GATEWARE), ("tiptoe_driver", DRIVER), ("tiptoe_verif", VERIFICATION)]
)
def test_a_file_without_a_layer_is_found(house: Path, package: str, contract: str) -> None:
    (house / package / "attic.py").touch()
    assert broken(house) == {contract}


def circles(package: str) -> list[tuple[str, ...]]:
    """Modules that import themselves by way of others. A package's __init__ and its own modules count too, which
    the contract, a comparison of siblings, does not see."""
    graph = grimp.build_graph(package, cache_dir=None)
    found = []
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            chain = graph.find_shortest_chain(importer=imported, imported=importer)
            if chain is not None:
                found.append((importer, *chain))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_between_any_modules(package: str) -> None:
    assert circles(package) == []


def test_a_circle_through_a_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "attic").mkdir()
    (tmp_path / "attic" / "__init__.py").write_text("from .chest import x\n")
    (tmp_path / "attic" / "chest.py").write_text(f"{TYPES_ONLY}from . import y\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert circles("attic") == [("attic", "attic.chest", "attic"), ("attic.chest", "attic", "attic.chest")]
