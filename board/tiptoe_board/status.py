"""The top's own registers: what it is, and what got lost on the way."""

from __future__ import annotations

from typing import Any

from litex.gen import LiteXModule
from litex.soc.interconnect.csr import CSRStatus

from tiptoe_litex import Tiptoe

from .address_map import STATUS_NAMES
from .neighbours import SharedMac


class Status(LiteXModule):
    """Read-only registers of 32 bits.

    ``build``: the first 32 bits of the build's hash; ``clock``: the system clock in Hz; ``memory``: bytes of host memory;
    ``irq``: bit 0 is the engine's interrupt line; ``rx_dropped``, ``rx_damaged``, ``tx_dropped``: the engine's frames lost in
    its queues; ``host_dropped``: the bridge's, lost in its own; ``dram``: 1 when host memory is DRAM, which has to be started
    (``dram.py``); ``sequence``: number of the last numbered Etherbone packet.
    """

    def __init__(
        self, engine: Tiptoe, share: SharedMac, sequence: Any, *, build: int, clock_hz: int, memory_bytes: int, dram: bool
    ) -> None:  # fmt: skip
        values: dict[str, Any] = {
            "build": build, "clock": clock_hz, "memory": memory_bytes, "irq": engine.irq,
            "rx_dropped": engine.rx_dropped, "rx_damaged": engine.rx_damaged, "tx_dropped": engine.tx_dropped,
            "host_dropped": share.dropped, "dram": int(dram), "sequence": sequence,
        }  # fmt: skip
        for name in STATUS_NAMES:
            register = CSRStatus(32, name=name)
            setattr(self, name, register)
            self.comb += register.status.eq(values[name])
