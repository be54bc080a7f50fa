"""The wheel: complete, and at work without the checkout; what it writes lands in the cache and in the working folder."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tiptoe_verif.paths import ROOT

PACKAGES = ("hdl/tiptoe_hdl", "driver/tiptoe_driver", "verif/tiptoe_verif", "board/tiptoe_board", "board/tiptoe_litex")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
pytestmark = pytest.mark.xdist_group("wheel")


def run(command, **options):
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{command}:\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([*PIP, "wheel", "--no-deps", "-w", str(folder), str(ROOT)], timeout=300)
    (path,) = folder.glob("tiptoe_engine-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel alone, unpacked; what it depends on is this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    run([*PIP, "install", "--no-deps", "--target", str(folder), str(wheel)], timeout=300)
    return folder


@pytest.fixture
def tiptoe(installed, tmp_path):
    """Runs the installed command in an empty folder, at home in another one."""
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TIPTOE_", "XDG_"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(installed), "COLUMNS": "200"}

    def call(*arguments):
        code = "import tiptoe_verif.cli as c; print(c.__file__); c.app()"
        out = run([sys.executable, "-c", code, *arguments], cwd=work, env=environment, timeout=600)
        assert out.startswith(str(installed))
        return out

    call.work, call.home = work, home
    return call


def test_wheel_has_every_file_of_the_packages_and_nothing_else(wheel):
    tracked = run(["git", "ls-files", *PACKAGES], cwd=ROOT).split()
    expected = {name.split("/", 1)[1] for name in tracked}
    expected |= {f"tiptoe_verif/{name}" for name in run(["git", "ls-files", "constraints"], cwd=ROOT).split()}
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == expected


def test_installed_tells_its_version(tiptoe):
    assert "tiptoe 0." in tiptoe("--version") and "register map and rings 0." in tiptoe("--version")


def test_installed_writes_into_cache_and_working_folder_only(tiptoe, installed):
    before = {path for path in installed.rglob("*") if "__pycache__" not in path.parts}
    said = tiptoe("doctor")
    assert str(tiptoe.home / ".cache" / "tiptoe") in said and str(tiptoe.work / "build") in said
    tiptoe("verilog", "--config", "tiny", "-o", "out")
    for name in ("rtl/tiptoe_engine.v", "tiptoe_engine.xml", "tiptoe_engine.core", "vivado/package_ip.tcl"):
        assert (tiptoe.work / "out" / name).exists()
    assert {path for path in installed.rglob("*") if "__pycache__" not in path.parts} == before


def test_litex_module_is_in_it(installed, tmp_path):
    code = "import tiptoe_litex as t; from tiptoe_hdl.config import ECP5; t.Tiptoe(ECP5); print(t.__file__)"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    assert run([sys.executable, "-c", code], cwd=tmp_path, env=environment).startswith(str(installed))


@pytest.mark.soak
@pytest.mark.parametrize("python", ["python3.11", "python3.12", "python3.13"])
def test_fresh_environment_carries_traffic(wheel, tmp_path, python):
    """Everything from the index, then a demo between two engines."""
    if (
        shutil.which(python) is None or subprocess.run([python, "--version"], capture_output=True).returncode
    ):  # a shim of pyenv
        pytest.skip(f"no {python} here")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TIPTOE_", "XDG_", "PYTHON"))}
    environment |= {"HOME": str(tmp_path)}
    if python == f"python3.{sys.version_info.minor}":
        venv.create(tmp_path / "venv", with_pip=True)
    else:
        run([python, "-m", "venv", str(tmp_path / "venv")])
    binaries = tmp_path / "venv" / "bin"
    run([str(binaries / "pip"), "install", "-q", str(wheel)], env=environment, timeout=900)
    said = run([str(binaries / "tiptoe"), "demo", "--without-tap", "--config", "tiny", "--size", "64"],
               cwd=tmp_path, env=environment, timeout=900)  # fmt: skip
    assert "64" in said and (tmp_path / ".cache" / "tiptoe" / "sim").is_dir()
