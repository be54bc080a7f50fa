"""Neighbour discovery (RFC 4861): what ARP is for IPv4, with the same retries, ages and waiting users (arp.py).

Only neighbour solicitations and advertisements: addresses and routes are configured, so no router is solicited and no
advertisement of one taken.
"""

from __future__ import annotations

from .arp import ArpTable
from .in6 import (
    ALL_NODES,
    IPPROTO_ICMPV6,
    ipv6_packet,
    multicast,
    multicast_mac,
    payload_of,
    solicited_node,
    sound,
    usable,
)

ND_NEIGHBOR_SOLICIT = 135
ND_NEIGHBOR_ADVERT = 136
ND_OPT_SOURCE_LINKADDR = 1
ND_OPT_TARGET_LINKADDR = 2
ND_NA_FLAG_SOLICITED = 0x40
ND_NA_FLAG_OVERRIDE = 0x20
HOP_LIMIT = 255
"""Of every message: no router has touched it."""
_HEADER = 24
"""ICMPv6 header and target."""


class NdTable(ArpTable):
    """Neighbour discovery of one interface; ``transmit`` sends an IPv6 packet to a MAC address."""

    def input(self, packet: memoryview, *, answer: bool = True) -> bool:
        """A neighbour solicitation or advertisement came; whether it was a sound one (RFC 4861 sections 7.1.1 and 7.1.2)."""
        message = payload_of(packet, IPPROTO_ICMPV6)
        if (
            message is None
            or len(message) < _HEADER
            or packet[7] != HOP_LIMIT
            or message[1]
            or not sound(packet, message)
        ):
            return False
        source, destination = int.from_bytes(packet[8:24]), int.from_bytes(packet[24:40])
        target, options = int.from_bytes(message[8:24]), _options(message[_HEADER:])
        if options is None or not usable(target) or not (usable(source) or source == 0):
            return False  # an IPv4 address in IPv6's form would be taken for a neighbour of IPv4
        if message[0] == ND_NEIGHBOR_SOLICIT:
            return self._solicited(source, destination, target, options.get(ND_OPT_SOURCE_LINKADDR), answer)
        return self._advertised(destination, target, message[4], options.get(ND_OPT_TARGET_LINKADDR))

    def _solicited(self, source: int, destination: int, target: int, mac: int | None, answer: bool) -> bool:
        if source == 0 and (mac is not None or destination != solicited_node(target)):
            return False
        if source == self._address or target != self._address:
            return True
        if source and mac is not None:
            self._news(source, mac, asked=True)
        if not answer:
            return True
        if source == 0:  # somebody wants our address: everybody shall know that it is ours
            self._advertise(multicast_mac(ALL_NODES), ALL_NODES, ND_NA_FLAG_OVERRIDE)
        elif (known := mac if mac is not None else self.lookup(source)) is not None:
            self._advertise(known, source, ND_NA_FLAG_SOLICITED | ND_NA_FLAG_OVERRIDE)
        return True

    def _advertised(self, destination: int, target: int, flags: int, mac: int | None) -> bool:
        if multicast(destination) and flags & ND_NA_FLAG_SOLICITED:
            return False
        known = self.lookup(target)
        if target == self._address:
            return True  # somebody claims our address: not to be learned
        if mac is None:
            if known is not None and flags & ND_NA_FLAG_SOLICITED:
                self._news(target, known, asked=False)
        elif known is None or known == mac or flags & ND_NA_FLAG_OVERRIDE:
            self._news(target, mac, asked=False)
        return True

    def announce(self) -> None:
        """An unsolicited advertisement (RFC 4861 section 7.2.6): tell everybody our address."""
        self._advertise(multicast_mac(ALL_NODES), ALL_NODES, ND_NA_FLAG_OVERRIDE)

    def _ask(self, ip: int, mac: int | None) -> None:
        destination = ip if mac is not None else solicited_node(ip)
        message = bytes([ND_NEIGHBOR_SOLICIT, 0, 0, 0]) + bytes(4) + ip.to_bytes(16)
        message += bytes([ND_OPT_SOURCE_LINKADDR, 1]) + self._mac.to_bytes(6)
        self._send(multicast_mac(destination) if mac is None else mac, destination, message)

    def _advertise(self, mac: int, destination: int, flags: int) -> None:
        message = bytes([ND_NEIGHBOR_ADVERT, 0, 0, 0, flags]) + bytes(3) + self._address.to_bytes(16)
        self._send(mac, destination, message + bytes([ND_OPT_TARGET_LINKADDR, 1]) + self._mac.to_bytes(6))

    def _send(self, mac: int, destination: int, message: bytes) -> None:
        self._transmit(mac, ipv6_packet(self._address, destination, IPPROTO_ICMPV6, message, 2, hop_limit=HOP_LIMIT))


def _options(data: memoryview) -> dict[int, int | None] | None:
    """Link-layer addresses by kind of option; None when an option has no length, or one beyond the end. An address that is a
    group's, or nobody's, is none."""
    found: dict[int, int | None] = {}
    while len(data):
        if len(data) < 8 or not data[1] or len(data) < 8 * data[1]:
            return None
        if data[1] == 1 and data[0] in (ND_OPT_SOURCE_LINKADDR, ND_OPT_TARGET_LINKADDR):
            mac = int.from_bytes(data[2:8])
            found[data[0]] = None if mac >> 40 & 1 or not mac else mac
        data = data[8 * data[1] :]
    return found
