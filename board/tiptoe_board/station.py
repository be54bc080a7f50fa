"""The host's station on the shared MAC: ARP, ping and Etherbone over UDP, from LiteEth's parts, at 32 bits."""

from __future__ import annotations

from typing import Any

from liteeth.common import convert_ip, eth_phy_description
from liteeth.core import icmp
from liteeth.core.arp import LiteEthARP
from liteeth.core.ip import LiteEthIP
from liteeth.core.udp import LiteEthUDP
from liteeth.frontend import etherbone
from liteeth.mac.common import LiteEthLastHandler, LiteEthMACCrossbar, LiteEthMACDepacketizer, LiteEthMACPacketizer
from litex.gen import LiteXModule
from litex.soc.interconnect import stream
from litex.soc.interconnect.packet import PacketFIFO

from .guard import GuardedUdp, SequenceGuard

BITS = 32
"""Etherbone's own width: at 8 bits it would have to run at the line's clock, which it does not reach."""

UDP_PORT = 1234
PING_BYTES = 1024
"""Longest ping that is answered."""
RECORD_WORDS = 256
"""Words in the buffer of an Etherbone record: its longest has 255."""


class PacketFifo(LiteXModule):
    """LiteX's queue of whole packets, mended (2024.12): it noted a packet's end again and again while its last word found no
    room, and stood still after that. Here nothing reaches it while there is no room."""

    def __init__(self, layout: Any, *arguments: Any, **options: Any) -> None:
        self.queue = queue = PacketFIFO(layout, *arguments, **options)
        self.sink, self.source = stream.Endpoint(layout), queue.source
        self.comb += [
            self.sink.connect(queue.sink, omit={"valid", "ready"}),
            queue.sink.valid.eq(self.sink.valid & queue.payload_fifo.sink.ready),
            self.sink.ready.eq(queue.sink.ready),
        ]


etherbone.PacketFIFO = icmp.PacketFIFO = PacketFifo


class CrossbarMac(LiteXModule):
    """What LiteEth's protocols want of a MAC, on a stream of frames instead of a PHY: ``sink`` received, ``source`` to send."""

    def __init__(self) -> None:
        self.crossbar = crossbar = LiteEthMACCrossbar(BITS)
        self.packetizer = packetizer = LiteEthMACPacketizer(BITS)
        self.depacketizer = depacketizer = LiteEthMACDepacketizer(BITS)
        self.sink, self.source = depacketizer.sink, packetizer.source
        self.comb += [
            crossbar.master.source.connect(packetizer.sink),
            depacketizer.source.connect(crossbar.master.sink),
        ]


class EtherboneStation(LiteXModule):
    """Answers ARP and pings at its own addresses, and carries Etherbone's records out on ``bus``.

    Parameters
    ----------
    share : SharedMac

    Attributes
    ----------
    guard : SequenceGuard
        In front of Etherbone.
    """

    def __init__(self, share: Any, mac_address: int, ip_address: str, clock_hz: int) -> None:
        address = convert_ip(ip_address)
        self.mac = mac = CrossbarMac()
        self.arp = LiteEthARP(mac, mac_address, address, clock_hz, dw=BITS)
        self.ip = LiteEthIP(mac, mac_address, address, self.arp.table, with_broadcast=False, dw=BITS)
        self.icmp = icmp.LiteEthICMP(self.ip, address, dw=BITS, fifo_depth=PING_BYTES)
        self.udp = LiteEthUDP(self.ip, address, dw=BITS)
        self.guard = guard = SequenceGuard()
        guarded = GuardedUdp(self.udp, guard)
        self.etherbone = etherbone.LiteEthEtherbone(guarded, UDP_PORT, buffer_depth=RECORD_WORDS)
        self.bus = self.etherbone.wishbone.bus

        wide, narrow = eth_phy_description(64), eth_phy_description(BITS)
        self.narrower = stream.StrideConverter(wide, narrow)
        self.ending = LiteEthLastHandler(narrow)  # a frame may end in the first half of its last word
        self.wider = stream.StrideConverter(narrow, wide)
        self.comb += [
            share.source.connect(self.narrower.sink),
            self.narrower.source.connect(self.ending.sink),
            self.ending.source.connect(mac.sink),
            mac.source.connect(self.wider.sink),
            self.wider.source.connect(share.sink),
        ]
