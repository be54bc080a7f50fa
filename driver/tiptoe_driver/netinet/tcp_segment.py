"""TCP segments that the host reads and writes itself, in IPv4 and IPv6 packets (RFC 791, RFC 8200, RFC 9293 section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from ..hardware.alias import on_v6
from .if_var import ifnet
from .in6 import IPV6_HEADER, ipv6_packet, payload_of, sound
from .in_cksum import IPPROTO_TCP, internet_checksum
from .pcbinfo import FourTuple
from .structures import IPDEFTTL

TH_FIN = 0x01
TH_SYN = 0x02
TH_RST = 0x04
TH_ACK = 0x10
_DONT_FRAGMENT = 0x4000
_TIMESTAMPS = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """A received segment. ``four_tuple`` as we see it: local address and port, foreign address and port. ``length``: of its
    payload, in bytes. ``smac``: who sent the frame. ``packet``: valid as long as the frame is, ``header`` bytes of IP's header
    first."""

    four_tuple: FourTuple
    seq: int
    ack: int
    flags: int
    length: int
    smac: int
    packet: memoryview
    header: int

    @property
    def occupies(self) -> int:
        """Its length in sequence space: SYN and FIN count."""
        return self.length + bool(self.flags & TH_SYN) + bool(self.flags & TH_FIN)

    @property
    def tsval(self) -> int | None:
        """Its timestamp (RFC 7323 section 3.2), if it has one."""
        header = self.header
        options = self.packet[header + 20 : header + (self.packet[header + 12] >> 4) * 4]
        while len(options) > 1 and options[0]:
            size = 1 if options[0] == 1 else options[1]
            if options[0] == _TIMESTAMPS and size == 10 <= len(options):
                return int.from_bytes(options[2:6])
            if size < 1 + (options[0] != 1):
                break
            options = options[size:]
        return None

    def sound(self) -> bool:
        """Whether both checksums are right."""
        header = self.header
        if self.packet[0] >> 4 == 6:
            return sound(self.packet, self.packet[header:])
        pseudo = _pseudo_header(self.packet[12:20], len(self.packet) - header)
        return not internet_checksum(self.packet[:header]) and not internet_checksum(pseudo + self.packet[header:])


def parse_segment(frame: memoryview, ifp: ifnet) -> Segment | None:
    """The TCP segment of an Ethernet frame with an IPv4 packet, checksums not looked at; None when it is none, not for
    ``ifp`` alone, a fragment, or from somebody who cannot be answered (RFC 1122 section 4.2.3.10)."""
    packet = frame[14:]
    if len(packet) and packet[0] >> 4 == 6:
        return _parse_v6(frame, packet, ifp)
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != IPPROTO_TCP:
        return None
    header = (packet[0] & 0xF) * 4
    total = int.from_bytes(packet[2:4])
    if header < 20 or not header + 20 <= total <= len(packet) or int.from_bytes(packet[6:8]) & 0x3FFF:
        return None
    tcp = packet[header:total]
    offset = (tcp[12] >> 4) * 4
    source = int.from_bytes(packet[12:16])
    if (
        not 20 <= offset <= len(tcp)
        or int.from_bytes(packet[16:20]) != ifp.if_addr
        or int.from_bytes(frame[0:6]) != ifp.if_lladdr
        or frame[6] & 1
        or not ifp.one_host(source)
        or source == ifp.if_addr
    ):
        return None
    return _segment(frame, packet[:total], header, (ifp.if_addr, source))


def _parse_v6(frame: memoryview, packet: memoryview, ifp: ifnet) -> Segment | None:
    """Likewise of an IPv6 packet without extension headers."""
    tcp = payload_of(packet, IPPROTO_TCP)
    if tcp is None or len(tcp) < 20 or not ifp.if_addr6:
        return None
    source = int.from_bytes(packet[8:24])
    if (
        not 20 <= (tcp[12] >> 4) * 4 <= len(tcp)
        or int.from_bytes(packet[24:40]) != ifp.if_addr6
        or int.from_bytes(frame[0:6]) != ifp.if_lladdr
        or frame[6] & 1
        or not (on_v6(source) and ifp.one_host(source))
        or source == ifp.if_addr6
    ):
        return None
    return _segment(frame, packet[: IPV6_HEADER + len(tcp)], IPV6_HEADER, (ifp.if_addr6, source))


def _segment(frame: memoryview, packet: memoryview, header: int, addresses: tuple[int, int]) -> Segment:
    tcp = packet[header:]
    laddr, faddr = addresses
    return Segment(
        (laddr, int.from_bytes(tcp[2:4]), faddr, int.from_bytes(tcp[0:2])),
        seq=int.from_bytes(tcp[4:8]),
        ack=int.from_bytes(tcp[8:12]),
        flags=tcp[13] & 0x3F,
        length=len(tcp) - (tcp[12] >> 4) * 4,
        smac=int.from_bytes(frame[6:12]),
        packet=packet,
        header=header,
    )


def tcp_packet(
    four_tuple: FourTuple,
    seq: int,
    ack: int,
    flags: int,
    window: int = 0,
    *,
    ttl: int = IPDEFTTL,
    tos: int = 0,
    stamps: tuple[int, int] | None = None,
) -> bytes:
    """An IP packet with a segment of ours that carries no data; ``window`` as it stands in the header. ``stamps``: TSval and
    TSecr."""
    laddr, lport, faddr, fport = four_tuple
    tcp = bytearray(
        lport.to_bytes(2)
        + fport.to_bytes(2)
        + seq.to_bytes(4)
        + ack.to_bytes(4)
        + bytes([8 << 4 if stamps else 5 << 4, flags])
        + window.to_bytes(2)
        + bytes(4)
        + (bytes([1, 1, _TIMESTAMPS, 10]) + stamps[0].to_bytes(4) + stamps[1].to_bytes(4) if stamps else b"")
    )
    if on_v6(laddr):
        return ipv6_packet(laddr, faddr, IPPROTO_TCP, bytes(tcp), 16, hop_limit=ttl, traffic_class=tos)
    addresses = laddr.to_bytes(4) + faddr.to_bytes(4)
    tcp[16:18] = internet_checksum(_pseudo_header(addresses, len(tcp)) + tcp).to_bytes(2)
    ip = bytearray(
        bytes([0x45, tos])
        + (20 + len(tcp)).to_bytes(2)
        + bytes(2)
        + _DONT_FRAGMENT.to_bytes(2)
        + bytes([ttl, IPPROTO_TCP])
        + bytes(2)
        + addresses
    )
    ip[10:12] = internet_checksum(ip).to_bytes(2)
    return bytes(ip + tcp)


def _pseudo_header(addresses: bytes | memoryview, length: int) -> bytes:
    """What the TCP checksum covers besides the segment."""
    return bytes(addresses) + IPPROTO_TCP.to_bytes(2) + length.to_bytes(2)
