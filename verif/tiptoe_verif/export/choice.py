"""What is exported."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tiptoe_hdl.config import EngineConfig

ENGINE, MAC_ENGINE = "tiptoe_engine", "tiptoe_mac_engine"
"""Verilog modules: the engine, and the engine between two queues of whole frames."""


@dataclass(frozen=True)
class Port:
    """A port of the Verilog module: ``direction`` is ``in`` or ``out``."""

    name: str
    direction: str
    width: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is exported.

    Attributes
    ----------
    config : EngineConfig
    queues : bool
        The engine between two queues of whole frames (``MacEngine``), for a MAC that waits for nobody.
    per_module : bool
        A file a module, instead of one for all.
    mhz : float
        Clock rate in the constraints.
    """

    config: EngineConfig
    queues: bool = False
    per_module: bool = False
    mhz: float = 125.0

    @property
    def top(self) -> str:
        """Name of the Verilog module."""
        return MAC_ENGINE if self.queues else ENGINE

    @property
    def period(self) -> float:
        """Of the clock, in ns."""
        return 1000 / self.mhz

    @property
    def component(self) -> Any:
        """The Amaranth component; equal choices have the same."""
        return _component(self.config, self.queues)

    @property
    def ports(self) -> list[Port]:
        """All ports of the Verilog module."""
        from tiptoe_hdl.verilog import flat_ports, port_name

        component = self.component
        directions = {
            port_name(path): member.flow.name.lower() for path, member, _ in component.signature.flatten(component)
        }
        clock = [Port("clk", "in", 1), Port("rst", "in", 1)]
        return clock + [Port(name, directions[name], len(value)) for name, (value, _) in flat_ports(component).items()]


@lru_cache(maxsize=2)
def _component(config: EngineConfig, queues: bool) -> Any:
    from tiptoe_hdl.engine import Engine
    from tiptoe_hdl.mac.mac_engine import MacEngine

    return MacEngine(config) if queues else Engine(config)
