"""Frames as plain integers: reading Ethernet, IPv4, IPv6 and TCP headers (RFC 791, RFC 8200, RFC 9293), with checksums verified,
and writing TCP segments. An address of IPv6 is greater than any of IPv4.

A reader of its own, without scapy: the wire monitor looks at every frame of every run, so it has to be quick.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
ICMP, TCP, ICMPV6 = 1, 6, 58
IPV6_HEADER = 40
HEADER = 14
"""Bytes of an Ethernet header."""

_IP = struct.Struct("!BBHHHBBHII")
_TCP = struct.Struct("!HHIIBBHHH")


class Malformed(ValueError):
    """A frame that breaks its format; the message says where."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment. Addresses are integers, first byte highest; ``ws`` is None without the option, ``mss`` 0.
    ``sacks`` are SACK blocks as (left, right) edges, ``urgent`` is the urgent pointer, ``ecn`` the codepoint of the IP header,
    ``stamps`` TSval and TSecr."""

    src: int
    dst: int
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    wnd: int
    mss: int
    ws: int | None
    payload: bytes
    sack_ok: bool = False
    sacks: tuple[tuple[int, int], ...] = ()
    urgent: int = 0
    ecn: int = 0
    stamps: tuple[int, int] | None = None

    @property
    def length(self) -> int:
        """Sequence numbers it occupies."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)

    def __str__(self) -> str:
        names = "".join(letter for bit, letter in enumerate("FSRPAUEC") if self.flags >> bit & 1)
        return (
            f"{ip_text(self.src)}:{self.sport} > {ip_text(self.dst)}:{self.dport} [{names}] seq {self.seq} "
            f"ack {self.ack} win {self.wnd} len {len(self.payload)}"
        )


def ip_text(address: int) -> str:
    """Dotted form; of IPv6, its own."""
    if address >> 32:
        return f"[{IPv6Address(address)}]"
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))


def ip_number(address: str) -> int:
    """Integer of a dotted address; ValueError says what is wrong with it."""
    parts = address.split(".")
    if len(parts) != 4 or not all(part.isdigit() and int(part) < 256 for part in parts):
        raise ValueError(f"{address!r} is not an IPv4 address")
    return int.from_bytes(bytes(int(part) for part in parts), "big")


def mac_text(address: int) -> str:
    """Form with colons."""
    return ":".join(f"{byte:02x}" for byte in address.to_bytes(6, "big"))


def mac_number(address: str) -> int:
    """Integer of a MAC address with colons."""
    parts = address.split(":")
    if len(parts) != 6 or any(len(part) not in (1, 2) for part in parts):
        raise ValueError(f"{address!r} is not a MAC address")
    try:
        return int.from_bytes(bytes(int(part, 16) for part in parts), "big")
    except ValueError:
        raise ValueError(f"{address!r} is not a MAC address") from None


def checksum_holds(data: bytes) -> bool:
    """Whether the internet checksum (RFC 1071) over ``data``, checksum included, comes out right.

    2**16 is 1 modulo 65535, so the ones' complement sum of the words is the whole number modulo 65535.
    """
    if len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, "big") % 0xFFFF == 0


def parse_ip(frame: bytes, *, strict: bool = True, fragments: bool = False) -> tuple[int, int, int, int, int]:
    """Protocol, source, destination, and begin and end of the payload of an IPv4 frame.

    Raises :exc:`Malformed` for a wrong header, a wrong length and, unless ``fragments`` of others than TCP are all
    right, a fragment; if ``strict``, also for what a receiver has to put up with: bytes behind the packet, a time to live
    of 0.
    """
    if len(frame) < HEADER + 20:
        raise Malformed(f"IPv4 frame of {len(frame)} bytes")
    version, _, total, _, fragment, ttl, protocol, _, src, dst = _IP.unpack_from(frame, HEADER)
    header = (version & 15) * 4
    if version >> 4 != 4 or header < 20:
        raise Malformed(f"IP version and header length 0x{version:02x}")
    if not header <= total <= len(frame) - HEADER:
        raise Malformed(f"IP total length {total} in a frame of {len(frame)} bytes")
    if strict and len(frame) > 60 and total != len(frame) - HEADER:
        raise Malformed(f"IP total length {total}, but {len(frame) - HEADER} bytes follow the Ethernet header")
    if not checksum_holds(frame[HEADER : HEADER + header]):
        raise Malformed("IP header checksum is wrong")
    if fragment & 0x3FFF and (protocol == TCP or not fragments):
        raise Malformed("a fragment")
    if strict and ttl == 0:
        raise Malformed("time to live is 0")
    return protocol, src, dst, HEADER + header, HEADER + total


def parse_ipv6(frame: bytes, *, strict: bool = True) -> tuple[int, int, int, int, int]:
    """Next header, source, destination, and begin and end of the payload of an IPv6 frame; as :func:`parse_ip`."""
    if len(frame) < HEADER + IPV6_HEADER:
        raise Malformed(f"IPv6 frame of {len(frame)} bytes")
    if frame[HEADER] >> 4 != 6:
        raise Malformed(f"IP version {frame[HEADER] >> 4}")
    begin = HEADER + IPV6_HEADER
    end = begin + int.from_bytes(frame[HEADER + 4 : HEADER + 6], "big")
    if end > len(frame):
        raise Malformed(f"IPv6 payload of {end - begin} bytes in a frame of {len(frame)} bytes")
    if strict and len(frame) > 60 and end != len(frame):
        raise Malformed(f"IPv6 payload of {end - begin} bytes, but {len(frame) - begin} bytes follow the header")
    if strict and frame[HEADER + 7] == 0:
        raise Malformed("hop limit is 0")
    src, dst = (int.from_bytes(frame[HEADER + at : HEADER + at + 16], "big") for at in (8, 24))
    return frame[HEADER + 6], src, dst, begin, end


def pseudo_header(frame: bytes, begin: int, end: int, protocol: int) -> bytes:
    """What the payload's checksum covers besides it (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
    length = end - begin
    if frame[12:14] == b"\x86\xdd":
        return frame[HEADER + 8 : HEADER + 40] + length.to_bytes(4, "big") + protocol.to_bytes(4, "big")
    return frame[HEADER + 12 : HEADER + 20] + protocol.to_bytes(2, "big") + length.to_bytes(2, "big")


def checksum_left_to_hardware(frame: bytes) -> bool:
    """Whether the checksum of a frame's TCP segment is the sum of its pseudo header and no more: so a system hands it to an
    interface that adds the rest, and so captures of what was sent there have it."""
    v6 = frame[12:14] == b"\x86\xdd"
    _, _, _, begin, end = (parse_ipv6 if v6 else parse_ip)(frame, strict=False)
    sums = (frame[begin + 16 : begin + 18], pseudo_header(frame, begin, end, TCP))
    return len({int.from_bytes(data, "big") % 0xFFFF for data in sums}) == 1


def parse_tcp(frame: bytes, *, strict: bool = True, summed: bool = True) -> Segment | None:
    """The TCP segment in an Ethernet frame, None if it holds something else; :exc:`Malformed` if it breaks a rule.

    ``strict`` are the rules for a sender; without, it is read as a receiver has to read it: reserved bits and the urgent
    pointer do not matter, options end at an illegal length (RFC 9293 MUST-7). ``summed``: TCP's checksum has to be right.
    """
    v6 = frame[12:14] == b"\x86\xdd"
    if len(frame) < HEADER or not (v6 or frame[12:14] == b"\x08\x00"):
        return None
    protocol, src, dst, begin, end = (parse_ipv6 if v6 else parse_ip)(frame, strict=strict)
    if protocol != TCP:
        return None
    if end - begin < 20:
        raise Malformed(f"{end - begin} bytes of TCP")
    sport, dport, seq, ack, offset, flags, wnd, _, urgent = _TCP.unpack_from(frame, begin)
    header = (offset >> 4) * 4
    if not 20 <= header <= end - begin:
        raise Malformed(f"TCP data offset {offset >> 4} in a segment of {end - begin} bytes")
    if strict and offset & 15:
        raise Malformed("reserved bits of the TCP header are set")
    if summed and not checksum_holds(pseudo_header(frame, begin, end, TCP) + frame[begin:end]):
        raise Malformed("TCP checksum is wrong")
    if strict and urgent and not flags & URG:
        raise Malformed("urgent pointer without URG")
    mss, ws, sack_ok, sacks, stamps = _options(frame[begin + 20 : begin + header], strict)
    payload = frame[begin + header : end]
    ecn = frame[HEADER + 1] >> (4 if v6 else 0) & 3
    return Segment(src, dst, sport, dport, seq, ack, flags, wnd, mss, ws, payload, sack_ok, sacks, urgent, ecn, stamps)


def pack_tcp(segment: Segment, *, tos: int = 0, ttl: int = 64, options: bytes = b"") -> bytes:
    """The IP packet of ``segment``, not to be fragmented; one of IPv6 if its addresses are.

    Options are ``options``, as they are, then MSS, window scale, SACK-permitted, timestamps and SACK blocks, where it has them;
    at most 40 bytes, ended to a multiple of 4.
    """
    if segment.mss:
        options += b"\x02\x04" + segment.mss.to_bytes(2, "big")
    if segment.ws is not None:
        options += b"\x01\x03\x03" + segment.ws.to_bytes(1, "big")
    if segment.sack_ok:
        options += b"\x01\x01\x04\x02"
    if segment.stamps is not None:
        options += b"\x01\x01\x08\x0a" + b"".join(stamp.to_bytes(4, "big") for stamp in segment.stamps)
    if segment.sacks:
        edges = b"".join(left.to_bytes(4, "big") + right.to_bytes(4, "big") for left, right in segment.sacks)
        options += b"\x01\x01\x05" + (2 + len(edges)).to_bytes(1, "big") + edges
    options += b"\0" * (-len(options) % 4)
    size = 20 + len(options) + len(segment.payload)
    tcp = bytearray(
        _TCP.pack(segment.sport, segment.dport, segment.seq, segment.ack, (20 + len(options)) << 2, segment.flags,
                  segment.wnd, 0, segment.urgent)
        + options + segment.payload
    )  # fmt: skip
    if (segment.src | segment.dst) >> 32:
        addresses = segment.src.to_bytes(16, "big") + segment.dst.to_bytes(16, "big")
        tcp[16:18] = _checksum(addresses + size.to_bytes(4, "big") + TCP.to_bytes(4, "big") + tcp)
        first = 6 << 28 | (tos | segment.ecn) << 20
        return first.to_bytes(4, "big") + size.to_bytes(2, "big") + bytes([TCP, ttl]) + addresses + bytes(tcp)
    addresses = segment.src.to_bytes(4, "big") + segment.dst.to_bytes(4, "big")
    tcp[16:18] = _checksum(addresses + TCP.to_bytes(2, "big") + size.to_bytes(2, "big") + tcp)
    ip = bytearray(_IP.pack(0x45, tos | segment.ecn, 20 + size, 0, 0x4000, ttl, TCP, 0, segment.src, segment.dst))
    ip[10:12] = _checksum(ip)
    return bytes(ip + tcp)


def _checksum(data: bytes | bytearray) -> bytes:
    """The internet checksum over ``data``, in which its own place is 0."""
    if len(data) % 2:
        data = data + b"\0"
    return (-int.from_bytes(data, "big") % 0xFFFF).to_bytes(2, "big")


def _options(
    data: bytes, strict: bool
) -> tuple[int, int | None, bool, tuple[tuple[int, int], ...], tuple[int, int] | None]:
    mss, ws, sack_ok, at = 0, None, False, 0
    stamps: tuple[int, int] | None = None
    sacks: tuple[tuple[int, int], ...] = ()
    while at < len(data):
        kind = data[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        if at + 1 >= len(data) or data[at + 1] < 2 or at + data[at + 1] > len(data):
            if not strict:
                break
            raise Malformed(f"length of TCP option {kind}")
        body = data[at + 2 : at + data[at + 1]]
        if kind == 2 and len(body) == 2:
            mss = int.from_bytes(body, "big")
        elif kind == 3 and len(body) == 1:
            ws = min(body[0], 14)
        elif kind == 4 and not body:
            sack_ok = True
        elif kind == 5 and body and len(body) % 8 == 0:
            edges = struct.unpack(f"!{len(body) // 4}I", body)
            sacks = tuple(zip(edges[::2], edges[1::2], strict=True))
        elif kind == 8 and len(body) == 8:
            stamps = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:], "big")
        elif strict and kind in (4, 5, 8):
            raise Malformed(f"length of TCP option {kind}")
        at += data[at + 1]
    return mss, ws, sack_ok, sacks, stamps
