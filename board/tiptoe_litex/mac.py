"""LiteEth's MAC as the engine wants it."""

from __future__ import annotations

from typing import Any

from liteeth.mac.core import LiteEthMACCore
from litex.gen import LiteXModule


def add_mac(parent: LiteXModule, phy: Any, data_width: int) -> Any:
    """A MAC core of ``data_width`` bits on a PHY of 8 bits, as ``parent.mac``: preamble, FCS, padding, clock crossing."""
    # LiteEth's checker (2024.12) takes a frame's FCS for right unless this tells it where the frame ends; a PHY of 8 bits
    # leaves it alone.
    parent.comb += phy.source.last_be.eq(phy.source.last)
    parent.mac = LiteEthMACCore(phy, data_width, tx_cdc_buffered=True, rx_cdc_buffered=True)
    return parent.mac
