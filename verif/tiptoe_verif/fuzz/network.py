"""Who is on the fuzzed line, in both versions of IP: addresses, packets made wrong, and neighbours that answer (RFC 826,
RFC 4861)."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address

from tiptoe_driver.netinet.in6 import ipv6_packet

from ..wire.segment import ARP, HEADER, ICMPV6, IPV4, IPV6, IPV6_HEADER, mac_number

OUR_MAC = "02:00:00:00:00:02"
THEIR_MAC = mac_number("02:00:00:00:00:01").to_bytes(6, "big")
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOLICITED, _OVERRIDE = 0x40, 0x20
_TARGET_MAC = b"\x02\x01"
_FRAGMENT_HEADER = 44


@dataclass(frozen=True)
class Network:
    """A version's addresses as text. ``wrong``: sources that no segment of a peer has (``steps.SOURCES``)."""

    family: int
    ours: str
    peers: str
    stranger: str
    wrong: dict[str, str]

    def number(self, name: str) -> int:
        """One of them by its name, or the name of one that is wrong."""
        text = {"ours": self.ours, "peers": self.peers, "stranger": self.stranger, **self.wrong}[name]
        return int(ip_address(text))


V4 = Network(
    socket.AF_INET, "10.0.0.2", "10.0.0.1", "10.0.0.9",
    {"own": "10.0.0.2", "broadcast": "10.0.0.255", "multicast": "224.0.0.1", "loopback": "127.0.0.1"},
)  # fmt: skip
V6 = Network(
    socket.AF_INET6, "2001:db8::2", "2001:db8::1", "2001:db8::9",
    {"own": "2001:db8::2", "broadcast": "::ffff:10.0.0.1", "multicast": "ff02::1", "loopback": "::1"},
)  # fmt: skip
"""IPv6 has no broadcast: an IPv4 address in its form stands for it."""


def spoil(packet: bytearray, damage: str) -> int:
    """Make a packet wrong in one of ``steps.DAMAGE``'s ways; the ethertype it goes with."""
    v6 = packet[0] >> 4 == 6
    tcp = IPV6_HEADER if v6 else 20
    match damage:
        case "tcp checksum":
            packet[tcp + 16] ^= 1
        case "ip checksum":
            packet[5 if v6 else 10] ^= 1  # IPv6 has none: its length instead
        case "cut":
            del packet[len(packet) * 2 // 3 :]
        case "ttl 0":
            packet[7 if v6 else 8] = 0  # the checksum of IPv4's header is wrong then, too
        case "fragment" if v6:
            packet[6] = _FRAGMENT_HEADER
        case "fragment":
            packet[6] |= 0x20
        case "reserved":
            packet[tcp + 12] |= 0x0F
        case "data offset":
            packet[tcp + 12] = 0x40
        case "version":
            packet[0] = 0x45 if v6 else 0x65
    return (IPV4 if v6 else IPV6) if damage == "type" else IPV6 if v6 else IPV4


def neighbour(frame: bytes) -> bytes | None:
    """The answer to a frame that asks for a neighbour's MAC address; None: it is no such frame."""
    kind, ip = int.from_bytes(frame[12:14], "big"), frame[HEADER:]
    if kind == ARP and frame[21] == 1:
        asked, asker = frame[38:42], frame[22:32]
        return frame[6:12] + THEIR_MAC + frame[12:14] + frame[14:20] + b"\0\2" + THEIR_MAC + asked + asker
    if kind == IPV6 and ip[6] == ICMPV6 and ip[IPV6_HEADER] == _SOLICITATION:
        asked, asker = ip[IPV6_HEADER + 8 : IPV6_HEADER + 24], ip[8:24]
        message = bytes([_ADVERTISEMENT, 0, 0, 0, _SOLICITED | _OVERRIDE, 0, 0, 0]) + asked + _TARGET_MAC + THEIR_MAC
        packet = ipv6_packet(
            int.from_bytes(asked, "big"), int.from_bytes(asker, "big"), ICMPV6, message, 2, hop_limit=255
        )
        return frame[6:12] + THEIR_MAC + frame[12:14] + packet
    return None
