"""Frames of the measuring peer, made and read quickly: Ethernet, IPv4 without options, TCP (RFC 9293 section 3.1).

Figures must show the engine and not Python, so nothing here goes through scapy.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..wire.segment import ACK, PSH

ETHERNET_MIN = 60
HEADERS = 54
"""Bytes of Ethernet, IPv4 and TCP headers without options."""

M32 = 0xFFFFFFFF

_TCP = struct.Struct("!HHIIHHHH")
_READ = struct.Struct("!HHIIHH")


def checksum(total: int) -> int:
    """Internet checksum (RFC 1071) of what ``total`` is the sum of, modulo 65535."""
    return ~(total % 0xFFFF) & 0xFFFF


class Template:
    """Makes the frames of one connection's peer.

    Parameters
    ----------
    mac, peer_mac : bytes
        The engine's and the peer's.
    ip, peer_ip : int
    port, peer_port : int
    """

    def __init__(self, mac: bytes, peer_mac: bytes, ip: int, peer_ip: int, port: int, peer_port: int) -> None:
        self._ports = (peer_port, port)
        self._ethernet = mac + peer_mac + b"\x08\x00"
        self._addresses = struct.pack("!II", peer_ip, ip)
        self._pseudo = int.from_bytes(self._addresses, "big") % 0xFFFF + 6
        self._ip_headers: dict[int, bytes] = {}

    def _front(self, tcp_bytes: int) -> bytes:
        """Ethernet and IP header before that many bytes of TCP."""
        known = self._ip_headers.get(tcp_bytes)
        if known is None:
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + tcp_bytes, 0, 0x4000, 64, 6, 0) + self._addresses
            total = checksum(int.from_bytes(head, "big"))
            known = self._ethernet + head[:10] + total.to_bytes(2, "big") + head[12:]
            self._ip_headers[tcp_bytes] = known
        return known

    def frame(
        self, seq: int, ack: int, payload: bytes = b"", flags: int = ACK | PSH, wnd: int = 0xFFFF, options: bytes = b""
    ) -> bytes:
        """One segment as a frame, padded to the shortest Ethernet frame."""
        length = 20 + len(options) + len(payload)
        offset = (5 + len(options) // 4) << 12
        head = _TCP.pack(*self._ports, seq & M32, ack & M32, offset | flags, wnd, 0, 0) + options
        body = payload if len(payload) % 2 == 0 else payload + b"\0"
        total = self._pseudo + length + int.from_bytes(head, "big") + int.from_bytes(body, "big")
        tcp = head[:16] + checksum(total).to_bytes(2, "big") + head[18:]
        return (self._front(length) + tcp + payload).ljust(ETHERNET_MIN, b"\0")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the peer looks at in a segment of the engine."""

    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    wnd: int
    payload: bytes


def read(frame: bytes) -> Seen | None:
    """A TCP segment of the engine, which sends no IP options; None for anything else."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return None
    sport, dport, seq, ack, offset_flags, wnd = _READ.unpack_from(frame, 34)
    begin = 34 + (offset_flags >> 12) * 4
    end = 14 + int.from_bytes(frame[16:18], "big")
    return Seen(sport, dport, seq, ack, offset_flags & 0xFF, wnd, frame[begin:end])
