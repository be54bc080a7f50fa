"""IPv6 addresses and headers (RFC 4291, RFC 8200 section 3; FreeBSD's in6.h)."""

from __future__ import annotations

from ipaddress import IPv6Address

from ..hardware.alias import on_v6
from .in_cksum import internet_checksum
from .routes import format_ipv4

ETHERTYPE_IPV6 = 0x86DD
IPV6_HEADER = 40
IPPROTO_ICMPV6 = 58
ALL_NODES = 0xFF02 << 112 | 1
_SOLICITED_NODE = 0xFF02 << 112 | 0x1_FF00_0000


def parse_ipv6(text: str) -> int:
    """Address as an integer, first byte in the highest bits; "" is 0 (any). ValueError for anything else, a scope among it."""
    try:
        address = IPv6Address(text or "::")
    except ValueError:
        raise ValueError(f"not an IPv6 address: {text!r}") from None
    if address.scope_id:
        raise ValueError(f"scopes are not supported: {text!r}")
    return int(address)


def format_address(address: int) -> str:
    """An address of either version as text."""
    return str(IPv6Address(address)) if on_v6(address) else format_ipv4(address)


def multicast(address: int) -> bool:
    """RFC 4291 section 2.7."""
    return address >> 120 == 0xFF


def link_local(address: int) -> bool:
    """RFC 4291 section 2.5.6."""
    return address >> 118 == 0xFE80 >> 6


def mapped(address: int) -> bool:
    """Whether it is an IPv4 address as a socket of IPv6 names it (RFC 4291 section 2.5.5.2)."""
    return address >> 32 == 0xFFFF


def unmapped(address: int) -> int:
    """The IPv4 address of such a name; any other address as it is."""
    return address & 0xFFFF_FFFF if mapped(address) else address


def usable(address: int) -> bool:
    """Whether it can be a host's on a network: not unspecified, loopback, one of IPv4 in IPv6's form, or multicast (RFC 4291
    sections 2.5.2, 2.5.3, 2.5.5, 2.7)."""
    return on_v6(address) and not mapped(address) and not multicast(address)


def solicited_node(address: int) -> int:
    """The multicast address that this address's host listens to (RFC 4291 section 2.7.1)."""
    return _SOLICITED_NODE | address & 0xFF_FFFF


def multicast_mac(address: int) -> int:
    """RFC 2464 section 7."""
    return 0x3333 << 32 | address & 0xFFFF_FFFF


def pseudo_header(source: int, destination: int, length: int, protocol: int) -> bytes:
    """What checksums of upper layers cover besides (RFC 8200 section 8.1)."""
    return source.to_bytes(16) + destination.to_bytes(16) + length.to_bytes(4) + protocol.to_bytes(4)


def ipv6_packet(
    source: int,
    destination: int,
    protocol: int,
    payload: bytes,
    checksum_at: int,
    *,
    hop_limit: int = 64,
    traffic_class: int = 0,
) -> bytes:
    """A packet without extension headers; the payload's checksum, zero before, is put in at ``checksum_at``."""
    body = bytearray(payload)
    total = internet_checksum(pseudo_header(source, destination, len(body), protocol) + body)
    body[checksum_at : checksum_at + 2] = total.to_bytes(2)
    header = (6 << 28 | traffic_class << 20).to_bytes(4) + len(body).to_bytes(2) + bytes([protocol, hop_limit])
    return header + source.to_bytes(16) + destination.to_bytes(16) + bytes(body)


def payload_of(packet: memoryview, protocol: int) -> memoryview | None:
    """What the packet carries, if it is of this protocol and without extension headers; None when it is none such, or cut off."""
    if len(packet) < IPV6_HEADER or packet[0] >> 4 != 6 or packet[6] != protocol:
        return None
    length = int.from_bytes(packet[4:6])
    return packet[IPV6_HEADER : IPV6_HEADER + length] if IPV6_HEADER + length <= len(packet) else None


def sound(packet: memoryview, payload: memoryview) -> bool:
    """Whether the payload's checksum is right."""
    source, destination = int.from_bytes(packet[8:24]), int.from_bytes(packet[24:40])
    return not internet_checksum(pseudo_header(source, destination, len(payload), packet[6]) + payload)
