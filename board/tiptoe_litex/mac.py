"""LiteEth's MAC as the engine wants it."""

from __future__ import annotations

from typing import Any

from liteeth.common import eth_phy_description
from liteeth.mac.core import LiteEthMACCore
from liteeth.mac.padding import LiteEthMACPaddingInserter
from litex.gen import LiteXModule
from litex.soc.interconnect import stream
from migen import ClockDomainsRenamer


def add_mac(parent: LiteXModule, phy: Any, data_width: int) -> Any:
    """A MAC core of ``data_width`` bits on a PHY of 8 bits, as ``parent.mac``: preamble, FCS, padding, clock crossing."""
    # LiteEth's checker (2024.12) takes a frame's FCS for right unless this tells it where the frame ends; a PHY of 8 bits
    # leaves it alone.
    parent.comb += phy.source.last_be.eq(phy.source.last)
    parent.mac = mac = LiteEthMACCore(phy, data_width, tx_cdc_buffered=True, rx_cdc_buffered=True)
    _cut_ready(mac, phy)
    return mac


def _cut_ready(mac: Any, phy: Any) -> None:
    """A register in the transmit side's ``ready``.

    Else it goes from the gap's counter through preamble, FCS, padding and width into the clock crossing's memory: 8.3 ns on ECP5,
    where the line's clock has 8.
    """
    cut = ClockDomainsRenamer("eth_tx")(stream.Buffer(eth_phy_description(phy.dw), pipe_valid=False, pipe_ready=True))
    mac.tx_datapath.submodules += cut
    pipeline = mac.tx_datapath.pipeline
    padding = next(place for place, stage in enumerate(pipeline) if isinstance(stage, LiteEthMACPaddingInserter))
    pipeline.insert(padding, cut)
