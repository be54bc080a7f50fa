"""The Amaranth half of the top: which modules there are, of what sizes, and their RTLIL and Verilog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tiptoe_hdl.config import ECP5, LEAN, EngineConfig
from tiptoe_verif.export import MAC_ENGINE

ENGINE, SHARE, MEMORY = MAC_ENGINE, "tiptoe_mac_share", "tiptoe_host_memory"
"""Names of the Verilog modules."""
DATA_BITS = 64
"""Of the frame streams and the memory bus."""
TOP = "tiptoe_board"
"""The name of the one that has them all, which is LiteX's."""

MEMORIES = {"ddr3": (256, 1 << 25), "block": (16, 1 << 17), "small": (16, 1 << 16)}
"""Where host memory may be: how many connections the engine has then, and bytes. 128 KiB of block memory hold the rings of 12;
32 MiB of DDR3 have rings of 32 KiB each way for 256, and are no more than a driver over a bridge wants to have a copy of.
A processor's own memories leave room for 64 KiB of block memory: 5 pairs of rings."""
BESIDE_CPU = "small"
"""Where it is beside a processor unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a top is built of.

    Attributes
    ----------
    engine : EngineConfig
        64 bits of data, 32 of addresses.
    memory : str
        Where host memory is: one of ``MEMORIES``.
    memory_bytes : int
        Its size: a power of two. A connection's rings take 8 KiB of it at least.
    queue_words : int
        Words of 64 bits in each queue of frames.
    """

    engine: EngineConfig
    memory: str
    memory_bytes: int
    queue_words: int = 512


def sizes(clock_mhz: float, memory: str = "ddr3") -> Sizes:
    """The sizes of a board's top with a system clock of ``clock_mhz`` and host memory of that kind."""
    connections, memory_bytes = MEMORIES[memory]
    engine = ECP5.with_(
        name="board",
        connections=connections,
        **LEAN,  # with all of it the top takes 60,600 of 83,640 lookup tables, too many to be routed
        syncache_entries=min(32, connections),
        tick_cycles=round(clock_mhz * 1000),
    )
    return Sizes(engine=engine, memory=memory, memory_bytes=memory_bytes)


def makers(sizes: Sizes) -> dict[str, Callable[[], Any]]:
    """Module name to what makes the component."""
    from tiptoe_hdl.host.block_memory import BlockMemory
    from tiptoe_hdl.host.dram_memory import DramMemory
    from tiptoe_hdl.mac.mac_engine import MacEngine
    from tiptoe_hdl.mac.mac_share import MacShare

    memory = DramMemory if sizes.memory == "ddr3" else BlockMemory
    return {
        ENGINE: lambda: MacEngine(sizes.engine, sizes.queue_words, sizes.queue_words),
        SHARE: lambda: MacShare(sizes.engine, sizes.queue_words),
        MEMORY: lambda: memory(sizes.memory_bytes, sizes.engine.addr_width),
    }


def rtlil(sizes: Sizes) -> str:
    """RTLIL of all modules."""
    from tiptoe_hdl.verilog import module_rtlil

    return "".join(str(module_rtlil(make(), name)) for name, make in makers(sizes).items())


def verilog(sizes: Sizes) -> str:
    """Verilog of all modules as the simulations use it; kept by a hash."""
    from tiptoe_hdl.verilog import module_rtlil
    from tiptoe_verif.sim.verilate import cached_verilog
    from tiptoe_verif.sim.zero_memories import zero_memories_left_out

    def text(name: str, make: Callable[[], Any]) -> str:
        with zero_memories_left_out():
            return str(module_rtlil(make(), name))

    return "".join(
        cached_verilog(name, partial(text, name, make), key=repr(sizes)) for name, make in makers(sizes).items()
    )
