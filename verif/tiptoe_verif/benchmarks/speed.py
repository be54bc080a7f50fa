"""Speed of the simulation: engine cycles per second of processor time.

The same traffic native and under cocotb; an idle engine; and a live session in which the Linux kernel downloads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiptoe_hdl.config import EngineConfig

from ..live.session import LiveSession
from ..live.setup import LiveSetup
from ..native.device import Conditions
from ..native.simulation import Peer, Simulation, Wire
from ..paths import BUILD
from ..sim import engine_verilog, run_cocotb
from ..sim.toolchain import Progress
from .echo import Client, Service

FOLDER = BUILD / "bench"
RESULT = "TIPTOE_SPEED_RESULT"
TOTAL = "TIPTOE_SPEED_BYTES"
"""Environment variables for the bench under cocotb."""

_PATIENCE_US = 10_000_000
_PATIENCE_S = 120.0
_PORT = 19
_DOWNLOAD = (
    "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); left = int(sys.argv[3])\n"
    "while left: left -= len(s.recv(min(left, 65536)))"
)


@dataclass(frozen=True)
class Speed:
    """What a run took: engine cycles, and seconds of processor time of everything in the process."""

    cycles: int
    cpu_s: float
    bytes: int

    @property
    def rate(self) -> float:
        """Cycles a second."""
        return self.cycles / max(self.cpu_s, 1e-9)

    def as_json(self) -> dict[str, Any]:
        """For build/bench.json."""
        return asdict(self) | {"cycles_per_s": round(self.rate)}


def native(config: EngineConfig, total: int, *, library: Path | None = None, progress: Progress | None = None) -> Speed:
    """``total`` bytes to the echo service and back, in the native simulation, captured and checked."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with Simulation(
        config, conditions=Conditions(memory_latency=20), library=library, pcap=FOLDER / "speed_native.pcap",
        progress=progress, driver={"stock": 4},
    ) as sim:  # fmt: skip
        client = Client(sim.mac, sim.ip, 0x020000000001, sim.ip & ~0xFF | 1, total)
        peer = Peer(lambda frame, _: client.input(frame))
        Wire(sim, peer)
        sim.tasks.append(Service(sim.socket()).work)
        sim.run_us(3000)
        first, begin = sim.harness.cycle, time.process_time()
        peer.send(client.begin())
        sim.run_until(lambda: client.done, _PATIENCE_US, "the echo")
        return Speed(sim.harness.cycle - first, time.process_time() - begin, total)


def idle(config: EngineConfig, cycles: int, *, library: Path | None = None) -> Speed:
    """So many cycles in which nothing is to be done, in the native simulation."""
    with Simulation(config, library=library, driver={"stock": 4}) as sim:
        sim.run_us(3000)
        begin = time.process_time()
        sim.harness.run(cycles)
        return Speed(cycles, time.process_time() - begin, 0)


def live(config: str, total: int) -> Speed:
    """The Linux kernel downloads ``total`` bytes from a live session, captured and checked as in the demo.

    The clock rests when nothing moves; neither the client's nor the kernel's time counts, but for the system calls.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    setup = LiveSetup(
        config=config, namespace=True, host_stack=False, pcap=FOLDER / "speed_live.pcap", listen=[(_PORT, "chargen")]
    )
    with LiveSession(setup) as session:
        assert session.namespace is not None
        command = [sys.executable, "-c", _DOWNLOAD, setup.ip, str(_PORT), str(total)]
        with subprocess.Popen(session.namespace.command(command)) as client:
            first, begin = session.engine.harness.cycle, time.process_time()
            session.engine.run_until(lambda: client.poll() is not None, _PATIENCE_S, "the download")
            speed = Speed(session.engine.harness.cycle - first, time.process_time() - begin, total)
        if client.returncode:
            raise RuntimeError(f"the download failed with status {client.returncode}")
        session.engine.check()
    return speed


def under_cocotb(config: EngineConfig, total: int, *, progress: Progress | None = None) -> Speed:
    """The same under cocotb, with cocotbext-axi on the memory and frame ports."""
    result = FOLDER / "speed_cocotb.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.unlink(missing_ok=True)
    top, verilog = engine_verilog(config)
    run_cocotb(
        top, verilog, "tiptoe_verif.benchmarks.speed_cocotb", results_dir=FOLDER, progress=progress,
        env={RESULT: str(result), TOTAL: str(total)},
    )  # fmt: skip
    return Speed(**json.loads(result.read_text()))
