"""What is exported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tiptoe_hdl.config import EngineConfig

ENGINE, MAC_ENGINE = "tiptoe_engine", "tiptoe_mac_engine"
"""Verilog modules: the engine, and the engine between two queues of whole frames."""


def is_module_name(text: str) -> bool:
    """Whether a Verilog module can have this name: also one that an IEEE 1800 tool reads, with its keywords."""
    from pygments.lexers.hdl import SystemVerilogLexer
    from pygments.token import Token

    return re.fullmatch(r"[A-Za-z]\w*", text, re.ASCII) is not None and [
        kind for kind, part in SystemVerilogLexer().get_tokens(text) if part.strip()
    ] == [Token.Name]


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
        Clock rate in the constraints; 0: that of which the configuration's ``tick_cycles`` are a millisecond.
    name : str
        Of the Verilog module, and the beginning of its blocks' names: engines of different choices in one design need different
        ones. Without: ``ENGINE`` or ``MAC_ENGINE``. ValueError for what is no name of a module.
    """

    config: EngineConfig
    queues: bool = False
    per_module: bool = False
    mhz: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        if self.name and not is_module_name(self.name):
            raise ValueError(f"{self.name!r} is no name of a Verilog module, or a word of the language")

    @property
    def top(self) -> str:
        """Name of the Verilog module."""
        return self.name or self.made_as

    @property
    def made_as(self) -> str:
        """Its name before ``name`` is given to it."""
        return MAC_ENGINE if self.queues else ENGINE

    @property
    def period(self) -> float:
        """Of the clock, in ns."""
        return 1000 / (self.mhz or self.config.tick_cycles / 1000)

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
