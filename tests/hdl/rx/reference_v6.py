"""What the receive parser should make of an IPv6 frame, in plain Python; and frames of every kind (RFC 8200, RFC 4291)."""

import ipaddress
import random
from dataclasses import dataclass

from scapy.layers.inet import TCP
from scapy.layers.inet6 import (
    UDP,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum

from tests.hdl.rx.reference import (
    ACK,
    MAC,
    PEER_MAC,
    SYN,
    Case,
    Outcome,
    changed,
    expect,
    find_stamps,
    mac_int,
    random_frame,
    walk_options,
)
from tiptoe_hdl.messages import LADDR_V6
from tiptoe_hdl.rx.alias import alias

ADDRESS = "2001:db8:1:2::3"
PEER = "2001:db8:ffff:ffff:8000::99"
KEY = 0xFEDC_BA98_7654_3210_0F1E_2D3C
"""Of the fold."""


def number(address: str) -> int:
    return int(ipaddress.IPv6Address(address))


@dataclass
class CaseV6(Case):
    """A frame for a parser that knows IPv6."""

    def __post_init__(self):
        self.outcome = expect_v6(self.frame, self.error, self.promiscuous)


def never_sends(source: bytes) -> bool:
    """No host sends from this address (RFC 4291 sections 2.5.2, 2.5.3, 2.5.5 and 2.7), or we ourselves do."""
    address = ipaddress.IPv6Address(source)
    return address.is_multicast or int(address) >> 32 in (0, 0xFFFF) or int(address) == number(ADDRESS)


def expect_v6(frame: bytes, error: bool = False, promiscuous: bool = False, limit: int = 1514) -> Outcome:
    """The rules of ``tiptoe_hdl.rx.judge`` for IPv6, written a second time."""

    def drop(counter):
        return Outcome(["rx_frames", counter])

    if frame[12:14] != b"\x86\xdd":
        return expect(frame, error, promiscuous, limit)
    host = Outcome(["rx_frames", "rx_host_frames"], {"to_host": 1, "frame_length": len(frame)})
    if error or len(frame) < 54 or len(frame) > limit:
        return drop("rx_bad_frame")
    ours = int.from_bytes(frame[:6], "big") == mac_int(MAC)
    if not ours and not frame[0] & 1:
        return host if promiscuous else drop("rx_not_for_us")
    ip, length = frame[14:], int.from_bytes(frame[18:20], "big")
    if ip[0] >> 4 != 6 or 40 + length > len(ip):
        return drop("rx_bad_ip")
    source, destination = ip[8:24], ip[24:40]
    if ip[6] != 6 or not ours or int.from_bytes(destination, "big") != number(ADDRESS):
        return host
    if never_sends(source):
        return drop("rx_bad_ip")
    tcp = ip[40 : 40 + length]
    if len(tcp) < 20:
        return drop("rx_bad_tcp")
    offset = 4 * (tcp[12] >> 4)
    pseudo = source + destination + length.to_bytes(4, "big") + bytes([0, 0, 0, 6])
    if offset < 20 or offset > len(tcp) or checksum(pseudo + tcp):
        return drop("rx_bad_tcp")
    options = walk_options(tcp[20:offset] if tcp[13] & SYN else b"")
    if tcp[13] & SYN:
        options["mss"] = options["mss"] or 1220  # RFC 9293 section 3.7.1
    else:
        options |= find_stamps(tcp[20:offset])
    return Outcome(["rx_frames", "rx_tcp_segments"], {
        "to_host": 0,
        "frame_length": len(frame),
        "payload_offset": 2 + 14 + 40 + offset,
        "payload_length": len(tcp) - offset,
        "tuple": {
            "laddr": LADDR_V6, "faddr": alias(int.from_bytes(source, "big"), KEY),
            "lport": int.from_bytes(tcp[2:4], "big"), "fport": int.from_bytes(tcp[:2], "big"),
        },
        "faddr6": int.from_bytes(source, "big"),
        "smac": int.from_bytes(frame[6:12], "big"),
        "seq": int.from_bytes(tcp[4:8], "big"), "ack": int.from_bytes(tcp[8:12], "big"),
        "flags": tcp[13], "wnd": int.from_bytes(tcp[14:16], "big"), "urgent": int.from_bytes(tcp[18:20], "big"),
        "ecn": ip[1] >> 4 & 3,
        **options,
    })  # fmt: skip


def segment(
    rng: random.Random, length: int = 0, *, flags: int = ACK, ether: dict | None = None, ip: dict | None = None,
    tcp: dict | None = None, extensions=None, raw_tcp_options: bytes = b"", trailer: int = 0,
) -> bytes:  # fmt: skip
    """A TCP segment to us with random fields, a ``trailer`` of so many bytes behind the datagram."""
    fields = {
        "sport": rng.randrange(65536), "dport": rng.randrange(65536), "seq": rng.getrandbits(32),
        "ack": rng.getrandbits(32), "flags": flags, "window": rng.randrange(65536), "urgptr": rng.randrange(65536),
    } | (tcp or {})  # fmt: skip
    if raw_tcp_options:
        assert len(raw_tcp_options) % 4 == 0
        fields["dataofs"] = 5 + len(raw_tcp_options) // 4
    header = {
        "src": PEER,
        "dst": ADDRESS,
        "tc": rng.randrange(256),
        "fl": rng.getrandbits(20),
        "hlim": rng.randrange(256),
    }
    packet = Ether(**{"src": PEER_MAC, "dst": MAC, "type": 0x86DD} | (ether or {})) / IPv6(**header | (ip or {}))
    if extensions is not None:
        packet /= extensions
    packet /= TCP(**fields)
    if raw_tcp_options or length:
        packet /= Raw(raw_tcp_options + rng.randbytes(length))
    return bytes(packet) + rng.randbytes(trailer)


def good_cases(rng: random.Random) -> list[CaseV6]:
    """Segments the engine takes."""
    cases = [
        CaseV6(f"payload of {n}", segment(rng, n))
        for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 1439, 1440)
    ]
    cases += [CaseV6(f"a trailer of {n}", segment(rng, rng.randrange(5), trailer=n)) for n in (1, 2, 3, 8, 33)]
    cases += [
        CaseV6(f"from {source}", segment(rng, 3, ip={"src": source}))
        for source in ("fe80::1", "::1:0:2", "::1:0:0:1", "::ffff:0:0:1", "0:0:1:ffff::1", "feff::1", "2001:db8:1:2::2")
    ]
    cases += [
        CaseV6(f"traffic class {value:#x}", segment(rng, 9, ip={"tc": value})) for value in (0, 1, 2, 3, 0xFC, 0xFF)
    ]
    cases += [
        CaseV6("FIN, RST, PSH, URG", segment(rng, 5, flags=0xFF & ~SYN)),
        CaseV6("hop limit 0", segment(rng, 5, ip={"hlim": 0})),
        CaseV6("longest headers", segment(rng, 7, raw_tcp_options=rng.randbytes(40))),
    ]
    nop, mss = b"\x01", b"\x02\x04\x05\xa0"
    stamps = b"\x08\x0a" + rng.randbytes(8)
    for name, options in {
        "no options": b"", "MSS": mss, "Linux": mss + b"\x04\x02" + stamps + nop + b"\x03\x03\x07",
        "all but MSS": nop + b"\x03\x03\x02" + nop * 2 + b"\x04\x02", "unusual": nop + mss + b"\x03\x03\x0e",
    }.items():  # fmt: skip
        for flags in (SYN, SYN | ACK):
            cases.append(CaseV6(f"SYN, {name}", segment(rng, 0, flags=flags, raw_tcp_options=options)))
    cases.append(CaseV6("timestamps", segment(rng, 6, raw_tcp_options=nop * 2 + stamps)))
    cases.append(CaseV6("SACK", segment(rng, 0, raw_tcp_options=nop * 2 + b"\x05\x12" + rng.randbytes(16))))
    return cases


def bad_cases(rng: random.Random) -> list[CaseV6]:
    """Frames to be discarded, one fault each."""
    plain = segment(rng, 11, tcp={"seq": 0xFFFFFFF0})
    cases = [
        CaseV6("stream error", plain, error=True),
        CaseV6("another MAC", segment(rng, ether={"dst": PEER_MAC})),
        CaseV6("IP version 4", changed(plain, 14, 0x20)),
        CaseV6("IP version 7", changed(plain, 14, 0x10)),
        CaseV6("IPv4 by its ethertype", plain[:12] + b"\x08\x00" + plain[14:]),
        CaseV6("one byte behind the end", segment(rng, 30, ip={"plen": 51})),
        CaseV6("far behind the end", segment(rng, 30, ip={"plen": 0xFFFF})),
        CaseV6("behind the end, less than nothing in 16 bits", segment(rng, 30, ip={"plen": 0xFFFF - 39})),
        CaseV6("no room for a TCP header", segment(rng, 30, ip={"plen": 19})),
        CaseV6("nothing behind the IP header", segment(rng, 30, ip={"plen": 0})),
        CaseV6("data offset 4", segment(rng, 11, tcp={"dataofs": 4})),
        CaseV6("data offset behind the end", segment(rng, 11, tcp={"dataofs": 8})),
        CaseV6("TCP checksum", changed(plain, 70)),
        CaseV6("TCP payload bit", changed(plain, len(plain) - 1, 0x80)),
        CaseV6("TCP first byte", changed(plain, 54)),
        CaseV6("one byte too long", segment(rng, 1441)),
    ]
    cases += [CaseV6(f"byte {at} of the source", changed(plain, at)) for at in (22, 29, 30, 37)]
    cases += [
        CaseV6(f"from {source}", segment(rng, 4, ip={"src": source}))
        for source in ("::", "::1", "ff02::1", "ff0e::99", "::ffff:10.0.0.1", "::10.0.0.1", "::2", ADDRESS)
    ]
    cases += [CaseV6(f"cut to {n}", plain[:n]) for n in (13, 14, 15, 33, 34, 53, 54, 64, 73, 74, 84)]
    return cases


def host_cases(rng: random.Random) -> list[CaseV6]:
    """Frames for the host: neighbour discovery and all else."""
    ether = {"src": PEER_MAC, "dst": MAC}
    solicited = Ether(src=PEER_MAC, dst="33:33:ff:00:00:03") / IPv6(src=PEER, dst="ff02::1:ff00:3")
    option = IPv6ExtHdrDestOpt()
    cases = [
        CaseV6("neighbour solicitation", bytes(
            solicited / ICMPv6ND_NS(tgt=ADDRESS) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
        )),
        CaseV6("UDP", bytes(Ether(**ether) / IPv6(src=PEER, dst=ADDRESS) / UDP() / rng.randbytes(100))),
        CaseV6("nothing in it", bytes(Ether(**ether) / IPv6(src=PEER, dst=ADDRESS, nh=59))),
        CaseV6("destination options", segment(rng, 9, ip={"nh": 60}, extensions=option)),
        CaseV6("hop-by-hop options", segment(rng, 9, ip={"nh": 0}, extensions=IPv6ExtHdrHopByHop())),
        CaseV6("a fragment", segment(rng, 9, ip={"nh": 44}, extensions=IPv6ExtHdrFragment(m=1, id=7))),
        CaseV6("TCP by multicast", segment(rng, 9, ether={"dst": "33:33:00:00:00:01"})),
        CaseV6("TCP to our link-local address", segment(rng, 9, ip={"dst": "fe80::3"})),
        CaseV6("TCP of a bad checksum to another", changed(segment(rng, 9, ip={"dst": "2001:db8:1:2::4"}), 70)),
    ]  # fmt: skip
    cases += [
        CaseV6(f"byte {at} of the destination", changed(segment(rng, 9), at)) for at in (38, 41, 42, 45, 46, 50, 53)
    ]
    return cases


def random_case(rng: random.Random) -> CaseV6:
    return CaseV6("random", *random_frame(rng, segment))
