"""Two engines on one line, in simulated time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tiptoe_hdl.config import EngineConfig

from ..wire.impairment import Impairment
from .simulation import Simulation
from .world import Wire


class Pair:
    """Two engines on one seeded line, in lock-step: the whole product against itself.

    Parameters
    ----------
    config : str or EngineConfig
        Of both.
    impairment : Impairment
        Of the line, in both directions. A delay below a quantum (256 cycles) counts as one.
    seed : int
        Of both engines (the second one's is different); the line has its own in ``impairment``.
    pcap : Path, optional
        Capture at the first engine's port.
    a, b : dict, optional
        Further options of the one or the other Simulation.
    options
        Options of both Simulations.

    Attributes
    ----------
    a, b : Simulation
        10.0.0.1 and 10.0.0.2.
    wire : Wire
        Its ``channels`` count what happened to the frames.
    """

    def __init__(
        self,
        config: str | EngineConfig = "tiny",
        *,
        impairment: Impairment | None = None,
        seed: int = 1,
        pcap: Path | None = None,
        a: dict[str, Any] | None = None,
        b: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        first: dict[str, Any] = {"ip": "10.0.0.1", "mac": "02:00:00:00:00:01", "seed": 2 * seed, "pcap": pcap}
        second: dict[str, Any] = {"ip": "10.0.0.2", "mac": "02:00:00:00:00:02", "seed": 2 * seed + 1}
        first |= options | (a or {})
        second |= options | (b or {})
        self.a = Simulation(config, **first)
        self.b = Simulation(config, **second)
        self.wire = Wire(self.a, self.b, impairment)

    def run_us(self, microseconds: float) -> None:
        """Let time pass for both."""
        self.a.run_us(microseconds)

    def run_until(self, condition: Callable[[], Any], timeout_us: float, what: str = "") -> None:
        """See :meth:`Simulation.run_until`."""
        self.a.run_until(condition, timeout_us, what)

    def check(self) -> None:
        """See :meth:`EngineDevice.check`."""
        self.a.check()
        self.b.check()

    def close(self) -> None:
        """Free both."""
        self.a.close()
        self.b.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
