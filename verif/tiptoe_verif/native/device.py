"""What the simulated engine has in common on simulated and on wall time: build, capture, checks, the driver's seam."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiptoe_hdl.config import CONFIGS, EngineConfig

from ..sim.toolchain import Progress
from ..sim.wave_view import write_views
from ..wire.capture import Capture
from ..wire.monitor import WireMonitor
from ..wire.segment import ip_number, mac_number
from .harness import Harness, RuleBroken, build_engine

MEMORY_BYTES = 1 << 28
"""Default size of host memory; pages cost nothing until they are touched."""
_FAULTS = ("lost_ids", "bad_positions", "bad_frame_events", "reset_failed")


def driver_faults(counters: Mapping[str, int]) -> dict[str, int]:
    """Of the driver's counters those that stay 0 as long as nothing is wrong, and are not: of the engine's error events (the
    watchdog's among them), and of what the driver itself wonders about."""
    return {name: n for name, n in counters.items() if n and (name in _FAULTS or name.startswith("error_"))}


def engine_config(name: str | EngineConfig) -> EngineConfig:
    """A named configuration; ValueError lists the names."""
    if isinstance(name, EngineConfig):
        return name
    if name not in CONFIGS:
        raise ValueError(f"no configuration {name!r}: there are {', '.join(CONFIGS)}")
    return CONFIGS[name]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What surrounds the engine, in clock cycles and probabilities per cycle.

    Attributes
    ----------
    memory_latency, memory_jitter : int
        Cycles from a burst's address (a write's last word) to the first word of its answer, and random cycles more.
    memory_outstanding : int
        Bursts in flight in each direction.
    memory_stall, rx_stall, tx_stall, register_stall : float
        Chance that a channel pauses for a cycle.
    line_rate : float
        Bytes per cycle of the Ethernet line in each direction (0: as fast as the bus); preamble, FCS and gap count.
    """

    memory_latency: int = 20
    memory_jitter: int = 0
    memory_outstanding: int = 16
    memory_stall: float = 0.0
    rx_stall: float = 0.0
    tx_stall: float = 0.0
    register_stall: float = 0.0
    line_rate: float = 0.0


class EngineDevice(abc.ABC):
    """A compiled engine with host memory, captured and watched. Base of Simulation and of the live device.

    Parameters
    ----------
    config : str or EngineConfig
        Named configuration or one of your own.
    ip, mac : str
        The engine's addresses.
    conditions : Conditions
        Memory latency, stalls, line rate.
    memory_bytes : int
        Size of host memory.
    seed : int
        Of all chance.
    pcap : Path, optional
        Capture of everything that passes the frame ports.
    monitor : bool
        Check every frame the engine sends; a broken rule raises WireError.
    trace : Path, optional
        Waveform of the whole run (a separate, slower build).
    library : Path, optional
        A compiled library to use instead of building the engine.
    progress : callable, optional
        Told of the steps of a build.
    """

    def __init__(
        self,
        config: str | EngineConfig,
        *,
        ip: str,
        mac: str,
        conditions: Conditions,
        memory_bytes: int,
        seed: int,
        pcap: Path | None,
        monitor: bool,
        trace: Path | None,
        library: Path | None,
        progress: Progress | None,
    ) -> None:
        self.config = engine_config(config)
        self.ip, self.mac = ip_number(ip), mac_number(mac)
        self.seed = seed
        self.conditions = conditions
        if library is None:
            library = build_engine(self.config, trace=trace is not None, progress=progress)
        self.harness = Harness(library, memory_bytes=memory_bytes, seed=seed)
        self.harness.set_memory(
            latency=conditions.memory_latency, jitter=conditions.memory_jitter,
            outstanding=conditions.memory_outstanding, stall=conditions.memory_stall,
        )  # fmt: skip
        self.harness.set_stalls(rx=conditions.rx_stall, tx=conditions.tx_stall, registers=conditions.register_stall)
        self.harness.set_line(rx=conditions.line_rate, tx=conditions.line_rate)
        self.trace_path = self.harness.trace(trace) if trace else None
        self.monitor = WireMonitor(mac=self.mac, ip=self.ip, max_frame=self.config.max_frame_bytes) if monitor else None
        self.capture = Capture(pcap, self.monitor)
        self.memory = self.harness.memory
        self.stack: Any = None
        """The TCP stack of tiptoe_driver, once attached."""
        self.toe: Any = None
        """The stack's device, once attached."""
        self.software: Any = None
        """The stand-in for a software TCP, where there is one."""

    # --- the driver's seam (tiptoe_driver.hardware.device.Device) ---

    def write32(self, address: int, value: int) -> None:
        """Post a register write."""
        self.harness.write32(address, value)

    def read32(self, address: int) -> int:
        """Read a register; runs the clock meanwhile."""
        return self.harness.read32(address)

    @abc.abstractmethod
    def now_us(self) -> int:
        """The device's clock in microseconds."""

    @property
    @abc.abstractmethod
    def time_ns(self) -> int:
        """The clock that stamps frames."""

    @abc.abstractmethod
    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until the interrupt line is high or the time is over; returns the line's level."""

    # --- findings ---

    @property
    def pcap(self) -> Path | None:
        """The capture file."""
        return self.capture.path

    def counters(self) -> dict[str, int]:
        """The harness's counters (cycles, frames, bytes, beats, stalls; see native/common.h)."""
        return self.harness.counters()

    def check(self) -> None:
        """Raise if a rule was broken or the engine reached outside host memory."""
        self.harness.check()
        strays = self.harness.counters()["memory_strays"]
        if strays:
            raise RuleBroken(f"{strays} bursts outside host memory")

    def close(self) -> None:
        """Free the engine, end the capture, write the views of the waveform. Twice does no harm."""
        self.harness.close()
        self.capture.close()
        if self.trace_path is not None:
            write_views(self.trace_path)
            self.trace_path = None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
