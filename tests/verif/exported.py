"""What the tests export, one engine for all (a conversion to Verilog takes its time), and FuseSoC on it."""

import os
import subprocess
import sys
from pathlib import Path

from tiptoe_hdl.config import TINY
from tiptoe_verif.sim.toolchain import verilator_root

CORE = "tiptoe:ip:tiptoe_mac_engine"
CONFIG = TINY.with_(data_width=32, addr_width=32, tick_cycles=50_000)
"""That of examples/litex/soc.py."""


def fusesoc(cores: Path, work: Path, target: str, core: str, *options: str) -> str:
    """``fusesoc run --target``; what it has said. Fails if it does."""
    root = verilator_root()
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}  # of a make that runs us
    environment |= {"VERILATOR_ROOT": str(root), "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "HOME": str(work)}
    command = [str(Path(sys.executable).with_name("fusesoc")), "--cores-root", str(cores), "run", *options]
    done = subprocess.run(
        [*command, "--build-root", str(work / "build"), f"--target={target}", core],
        cwd=work, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout
