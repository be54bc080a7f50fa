"""What the receive parser should make of a frame, in plain Python on scapy's checksum; and frames of every kind."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import checksum

MAC = "02:00:00:00:00:01"
PEER_MAC = "02:aa:bb:cc:dd:ee"
ADDRESS = "10.1.2.3"
PEER = "10.1.2.99"
SYN, ACK = 0x02, 0x10


def mac_int(text: str) -> int:
    return int(text.replace(":", ""), 16)


def ip_int(text: str) -> int:
    return int.from_bytes(bytes(int(part) for part in text.split(".")), "big")


@dataclass
class Outcome:
    """``counters`` that count, and the report, None if the frame is discarded."""

    counters: list[str]
    meta: dict | None = None


@dataclass
class Case:
    """A frame on the wire and what it is."""

    name: str
    frame: bytes
    error: bool = False
    promiscuous: bool = False
    limit: int = 1514
    outcome: Outcome = field(init=False)

    def __post_init__(self):
        self.outcome = expect(self.frame, self.error, self.promiscuous, self.limit)


NO_STAMPS = {"ts_present": 0, "tsval": 0, "tsecr": 0}


def walk_options(data: bytes) -> dict:
    """RFC 9293 section 3.2: maximum segment size, window scale, SACK-permitted and timestamps of option bytes; stops at an
    illegal length."""
    found = {"mss": 0, "ws_present": 0, "ws": 0, "sack_ok": 0, **NO_STAMPS}
    while data and data[0] != 0:
        if data[0] == 1:
            data = data[1:]
            continue
        if len(data) < 2 or data[1] < 2 or data[1] > len(data):
            break
        kind, value, data = data[0], data[2 : data[1]], data[data[1] :]
        if kind == 2 and len(value) == 2:
            found["mss"] = int.from_bytes(value, "big")
        if kind == 3 and len(value) == 1:
            found |= {"ws_present": 1, "ws": min(value[0], 14)}
        if kind == 4 and not value:
            found["sack_ok"] = 1
        if kind == 8 and len(value) == 8:
            found |= stamps_of(value)
    return found


def stamps_of(value: bytes) -> dict:
    """A timestamps option (RFC 7323 section 3.2) as reported."""
    return {"ts_present": 1, "tsval": int.from_bytes(value[:4], "big"), "tsecr": int.from_bytes(value[4:], "big")}


def find_stamps(options: bytes) -> dict:
    """All that counts of the options of other segments than a SYN, but for SACK blocks: the last timestamps that are whole."""
    found = walk_options(options)
    return {name: found[name] for name in NO_STAMPS}


def expect(frame: bytes, error: bool = False, promiscuous: bool = False, limit: int = 1514) -> Outcome:
    """The rules of ``tiptoe_hdl.rx.judge``, written a second time."""

    def drop(counter):
        return Outcome(["rx_frames", counter])

    host = Outcome(["rx_frames", "rx_host_frames"], {"to_host": 1, "frame_length": len(frame)})
    if error or len(frame) < 14 or len(frame) > limit:
        return drop("rx_bad_frame")
    ipv4 = frame[12:14] == b"\x08\x00"
    if ipv4 and len(frame) < 34:
        return drop("rx_bad_frame")
    ours = int.from_bytes(frame[:6], "big") == mac_int(MAC)
    if not ours and not frame[0] & 1:
        return host if promiscuous else drop("rx_not_for_us")
    if not ipv4:
        return host
    ip = frame[14:]
    header, total = 4 * (ip[0] & 15), int.from_bytes(ip[2:4], "big")
    if ip[0] >> 4 != 4 or header < 20 or total > len(ip) or total < header or checksum(ip[:header]):
        return drop("rx_bad_ip")
    fragment = int.from_bytes(ip[6:8], "big") & 0x3FFF
    if ip[9] != 6 or fragment or not ours or int.from_bytes(ip[16:20], "big") != ip_int(ADDRESS):
        return host
    source = ip[12:16]
    if source[0] in (0, 127) or 224 <= source[0] < 240 or source in (b"\xff" * 4, ip[16:20]):
        return drop("rx_bad_ip")
    tcp = ip[header:total]
    if len(tcp) < 20:
        return drop("rx_bad_tcp")
    offset = 4 * (tcp[12] >> 4)
    pseudo = ip[12:20] + bytes([0, 6]) + len(tcp).to_bytes(2, "big")
    if offset < 20 or offset > len(tcp) or checksum(pseudo + tcp):
        return drop("rx_bad_tcp")
    options = walk_options(tcp[20:offset] if tcp[13] & SYN else b"")
    if not tcp[13] & SYN:
        options |= find_stamps(tcp[20:offset])
    return Outcome(["rx_frames", "rx_tcp_segments"], {
        "to_host": 0,
        "frame_length": len(frame),
        "payload_offset": 2 + 14 + header + offset,
        "payload_length": len(tcp) - offset,
        "tuple": {
            "laddr": int.from_bytes(ip[16:20], "big"), "faddr": int.from_bytes(source, "big"),
            "lport": int.from_bytes(tcp[2:4], "big"), "fport": int.from_bytes(tcp[:2], "big"),
        },
        "smac": int.from_bytes(frame[6:12], "big"),
        "seq": int.from_bytes(tcp[4:8], "big"), "ack": int.from_bytes(tcp[8:12], "big"),
        "flags": tcp[13], "wnd": int.from_bytes(tcp[14:16], "big"), "urgent": int.from_bytes(tcp[18:20], "big"),
        "ecn": ip[1] & 3,
        **options,
    })  # fmt: skip


def segment(
    rng: random.Random, length: int = 0, *, flags: int = ACK, ether: dict | None = None, ip: dict | None = None,
    tcp: dict | None = None, pad: bool = True, raw_tcp_options: bytes = b"", data: bytes = b"",
) -> bytes:  # fmt: skip
    """A TCP segment to us with random fields, padded to 60 bytes with random bytes as a real wire may bring them."""
    fields = {
        "sport": rng.randrange(65536), "dport": rng.randrange(65536), "seq": rng.getrandbits(32),
        "ack": rng.getrandbits(32), "flags": flags, "window": rng.randrange(65536), "urgptr": rng.randrange(65536),
    } | (tcp or {})  # fmt: skip
    if raw_tcp_options:
        assert len(raw_tcp_options) % 4 == 0
        fields["dataofs"] = 5 + len(raw_tcp_options) // 4
    packet = (
        Ether(**{"src": PEER_MAC, "dst": MAC, "type": 0x0800} | (ether or {}))
        / IP(
            **{"src": PEER, "dst": ADDRESS, "id": rng.randrange(65536), "tos": rng.randrange(256), "proto": 6}
            | (ip or {})
        )
        / TCP(**fields)
    )
    if raw_tcp_options or length or data:
        packet /= Raw(raw_tcp_options + data + rng.randbytes(length))
    frame = bytes(packet)
    if pad and len(frame) < 60:
        frame += rng.randbytes(60 - len(frame))
    return frame


def changed(frame: bytes, at: int, change: int = 0x01) -> bytes:
    return frame[:at] + bytes([frame[at] ^ change]) + frame[at + 1 :]


def good_cases(rng: random.Random) -> list[Case]:
    """Segments the engine takes."""
    cases = [
        Case(f"payload of {n}", segment(rng, n))
        for n in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 31, 63, 64, 65, 1459, 1460)
    ]
    cases += [Case(f"no padding, payload of {n}", segment(rng, n, pad=False)) for n in (0, 1, 2, 3, 4, 5)]
    for words in (1, 2, 5, 9, 10):
        options = bytes(rng.choice([1, 7, 0x44, 0x94, 0x83, 0]) for _ in range(4 * words))
        ip = {"ihl": 5 + words, "options": []}
        frame = segment(rng, rng.randrange(40), ip=ip)
        cases.append(Case(f"{words} words of IP options", _with_ip_options(frame, options)))
        both = segment(rng, rng.randrange(30), raw_tcp_options=rng.randbytes(4 * rng.randrange(1, 11)), pad=False)
        cases.append(Case(f"{words} words of IP options and some of TCP", _with_ip_options(both, options)))
    cases += [
        Case("longest headers", _with_ip_options(segment(rng, 7, raw_tcp_options=rng.randbytes(40)), bytes([1] * 40))),
        Case("don't fragment", segment(rng, 5, ip={"flags": "DF"})),
        Case("FIN, RST, PSH, URG", segment(rng, 5, flags=0xFF & ~SYN)),
        Case("checksum of zeros", _with_sum_zero(rng)),
    ]
    return cases


def _with_ip_options(frame: bytes, options: bytes) -> bytes:
    """Put options into a frame whose IP header has none."""
    ip = IP(frame[14:])
    tcp = bytes(frame[34 : 14 + ip.len])
    header = bytearray(frame[14:34])
    header[0] = 0x40 | (5 + len(options) // 4)
    header[2:4] = (20 + len(options) + len(tcp)).to_bytes(2, "big")
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header) + options).to_bytes(2, "big")
    return frame[:14] + bytes(header) + options + tcp


def _with_sum_zero(rng: random.Random) -> bytes:
    """A segment whose checksum field is 0x0000 (sum 0xFFFF without it)."""
    frame = bytearray(segment(rng, 20))
    frame[34 + 20 : 34 + 22] = b"\0\0"
    frame[50:52] = b"\0\0"
    pseudo = bytes(frame[26:34]) + bytes([0, 6]) + (40).to_bytes(2, "big")
    frame[54:56] = checksum(pseudo + bytes(frame[34:])).to_bytes(2, "big")
    return bytes(frame)


def bad_cases(rng: random.Random) -> list[Case]:
    """Frames to be discarded, one fault each."""
    plain = segment(rng, 11, tcp={"seq": 0x01020304})
    cases = [
        Case("stream error", plain, error=True),
        Case("stream error for another MAC", segment(rng, ether={"dst": PEER_MAC}), error=True),
        Case("another MAC", segment(rng, ether={"dst": PEER_MAC})),
        Case("another MAC, low half", segment(rng, ether={"dst": "02:00:00:00:00:02"})),
        Case("another MAC, high half", segment(rng, ether={"dst": "06:00:00:00:00:01"})),
        Case("IP version", _fixed_ip(changed(plain, 14, 0x20))),
        Case("IP header length 4", _fixed_ip(changed(plain, 14, 0x01))),
        Case("IP header checksum", changed(plain, 24)),
        Case("IP header bit", changed(plain, 18, 0x80)),
        Case("total length behind the end", _fixed_ip(changed(plain, 16, 0x10))),
        Case("total length one behind the end", _fixed_ip(segment(rng, 30, ip={"len": 71}))),
        Case("total length inside the header", _fixed_ip(segment(rng, 30, ip={"len": 19}))),
        Case("no room for a TCP header", _fixed_ip(segment(rng, 30, ip={"len": 39}))),
        Case("nothing behind the IP header", _fixed_ip(segment(rng, 30, ip={"len": 20}))),
        Case("data offset 4", segment(rng, 11, tcp={"dataofs": 4})),
        Case("data offset 0", segment(rng, 11, tcp={"dataofs": 0})),
        Case("data offset behind the end", segment(rng, 11, tcp={"dataofs": 8})),
        Case("TCP checksum", changed(plain, 50)),
        Case("TCP payload bit", changed(plain, len(plain) - 1, 0x80)),
        Case("TCP first byte", changed(plain, 34)),
        Case("address swapped for another with another sum", _fixed_ip(changed(plain, 29, 0x04))),
        Case("one byte too long", segment(rng, 1461)),
        Case("much too long", segment(rng, 1600)),
        Case("giant", rng.randbytes(4700)),
        Case("giant for the host", bytes([0xFF] * 6) + rng.randbytes(1600)),
    ]
    cases += [
        Case(f"source {source}", segment(rng, 4, ip={"src": source}))
        for source in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "239.255.255.255", "255.255.255.255", ADDRESS)
    ]
    cuts = (1, 5, 6, 7, 8, 12, 13, 14, 15, 16, 17, 31, 32, 33, 34, 47, 53, 64)
    cases += [Case(f"cut to {n}", plain[:n]) for n in cuts]
    broadcast = bytes([0xFF] * 6) + plain[6:]
    cases += [Case(f"broadcast cut to {n}", broadcast[:n]) for n in (13, 14, 33, 34, 40)]
    return cases


def _fixed_ip(frame: bytes) -> bytes:
    """The frame with the right checksum in a header of 20 bytes (or of what IHL says, when that is less)."""
    header = bytearray(frame[14:34])
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header[: min(20, 4 * (header[0] & 15))])).to_bytes(2, "big")
    return frame[:14] + bytes(header) + frame[34:]


def host_cases(rng: random.Random) -> list[Case]:
    """Frames for the host, and what becomes of them in promiscuous mode."""
    ether = {"src": PEER_MAC, "dst": MAC}
    fragments = {"more fragments": {"flags": "MF"}, "last fragment": {"frag": 7}, "both": {"flags": "MF", "frag": 99}}
    cases = [
        Case("ARP request", bytes(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=PEER, pdst=ADDRESS))),
        Case("ARP reply", bytes(Ether(**ether) / ARP(op=2, psrc=PEER, pdst=ADDRESS))),
        Case("ICMP", bytes(Ether(**ether) / IP(src=PEER, dst=ADDRESS) / ICMP() / rng.randbytes(56))),
        Case("UDP", bytes(Ether(**ether) / IP(src=PEER, dst=ADDRESS) / UDP() / rng.randbytes(100))),
        Case("DHCP's source address", bytes(
            Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255") / UDP() / b"x"
        )),
        Case("IPv6", bytes(Ether(type=0x86DD, **ether) / rng.randbytes(64))),
        Case("VLAN", bytes(Ether(**ether) / Dot1Q(vlan=7) / IP(src=PEER, dst=ADDRESS) / TCP())),
        Case("multicast", bytes(Ether(src=PEER_MAC, dst="01:00:5e:00:00:fb") / IP(dst="224.0.0.251") / UDP())),
        Case("TCP by broadcast", segment(rng, 9, ether={"dst": "ff:ff:ff:ff:ff:ff"})),
        Case("TCP to another address", segment(rng, 9, ip={"dst": "10.1.2.4"})),
        Case("TCP to another address, bad checksum", changed(segment(rng, 9, ip={"dst": "10.1.2.4"}), 50)),
        Case("another protocol", segment(rng, 9, ip={"proto": 7})),
        Case("802.3 length", bytes.fromhex(MAC.replace(":", "")) + rng.randbytes(6) + b"\x00\x2a" + rng.randbytes(46)),
        Case("shortest", bytes.fromhex(MAC.replace(":", "")) + rng.randbytes(6) + b"\x88\xb5"),
        Case("longest", bytes.fromhex(MAC.replace(":", "")) + rng.randbytes(6) + b"\x88\xb5" + rng.randbytes(1500)),
    ]  # fmt: skip
    cases += [Case(name, segment(rng, 9, ip=fields)) for name, fields in fragments.items()]
    return cases


def option_cases(rng: random.Random) -> list[Case]:
    """SYN segments with options of every sort, legal or not."""
    mss, scale, nop, sack = b"\x02\x04\x05\xb4", b"\x03\x03\x07", b"\x01", b"\x04\x02"
    stamps = b"\x08\x0a" + rng.randbytes(4) + bytes(4)  # nothing to echo yet
    layouts = {
        "Linux": mss + sack + stamps + nop + scale,
        "BSD": mss + nop + scale + sack + stamps + b"\0",
        "MSS only": mss,
        "scale only": nop + scale,
        "end first": b"\0" + mss + scale,
        "end in the middle": mss + b"\0" + scale,
        "scale behind 14": mss + nop + b"\x03\x03\x0f",
        "scale 255": b"\x03\x03\xff" + nop,
        "scale 14": b"\x03\x03\x0e" + nop,
        "length 0": mss + b"\x05\x00" + scale,
        "length 1": b"\x1e\x01" + mss + scale,
        "length behind the end": mss + b"\x09\x05" + b"ab",
        "length 255": nop + b"\x63\xff" + scale + nop,
        "MSS of length 3": b"\x02\x03\x05" + nop + scale,
        "MSS of length 6": b"\x02\x06\x05\xb4\x05\xb4" + scale,
        "MSS cut off": nop * 4 + nop + b"\x02\x04\x05",
        "MSS's length cut off": nop * 3 + b"\x02",
        "scale of length 2": b"\x03\x02" + mss,
        "scale cut off": nop + nop + b"\x03\x03",
        "scale at the very end": nop + scale,
        "unknown of length 2": b"\xfe\x02" + mss + scale,
        "forty times nothing": nop * 40,
        "MSS behind 36": nop * 36 + mss,
        "twice": mss + scale + nop + b"\x02\x04\x02\x18" + nop + b"\x03\x03\x02",
        "Windows": mss + nop + b"\x03\x03\x08" + nop + nop + sack,
        "macOS": mss + nop + b"\x03\x03\x06" + nop + nop + stamps + sack + b"\0\0",
        "stamps first": sack + stamps + mss + nop + scale,
        "stamps behind the end": mss + nop + scale + sack + b"\x08\x0a" + rng.randbytes(4),
        "stamps' end cut off": nop + scale + nop + nop + b"\x08\x0a",
        "odd behind usual words": mss + nop + nop + sack + sack + nop + scale + nop + nop + mss,
        "usual words with scale 15": mss + nop + b"\x03\x03\x0f" + nop * 4 + sack + nop * 2 + b"\0abc" + mss,
        "full": mss + scale + stamps + sack + b"\xfd\x14" + rng.randbytes(18),
    }
    cases = []
    for name, options in layouts.items():
        options += b"\0" * (-len(options) % 4) if name not in ("length behind the end",) else b""
        for flags in (SYN, SYN | ACK):
            frame = segment(rng, rng.choice([0, 0, 3]), flags=flags, raw_tcp_options=options)
            cases.append(Case(f"{name}, flags {flags:#x}", frame))
    for number in range(24):
        garbage = bytes(rng.choice([0, 1, 2, 3, 4, 8, rng.randrange(256)]) for _ in range(4 * rng.randrange(1, 11)))
        if number % 3 == 0:
            garbage = garbage.replace(b"\0", b"\x01")
        frame = segment(rng, rng.randrange(20), flags=SYN, raw_tcp_options=garbage)
        if number % 2:
            frame = _with_ip_options(frame, bytes([1] * 4 * rng.randrange(1, 11)))
        cases.append(Case(f"garbage {garbage.hex()}", frame))
    cases.append(Case("options without SYN", segment(rng, 8, raw_tcp_options=mss + nop + scale)))
    stamped = nop * 2 + b"\x08\x0a" + rng.randbytes(8)
    for name, options in {
        "stamps": stamped,
        "stamps and SACK": stamped + nop * 2 + b"\x05\x1a" + rng.randbytes(24),
        "SACK and stamps": nop * 2 + b"\x05\x12" + rng.randbytes(16) + stamped,
        "stamps of another layout": b"\x08\x0a" + rng.randbytes(8) + nop * 2,
        "stamps behind an unknown option": b"\xfe\x04ab" + stamped,
        "stamps cut off": stamped[:8],
        "stamps twice": stamped + nop * 2 + b"\x08\x0a" + rng.randbytes(8),
    }.items():
        cases.append(Case(f"{name}, without SYN", segment(rng, rng.choice([0, 5]), raw_tcp_options=options)))
    cases.append(Case("SYN without options", segment(rng, flags=SYN)))
    return cases


def random_frame(rng: random.Random, segment: Callable[..., bytes]) -> tuple[bytes, bool]:
    """A good segment that was damaged, or not, at random; and whether the MAC says so."""
    frame = segment(rng, rng.choice([0, 1, 6, 10, rng.randrange(200)]), flags=rng.choice([ACK, ACK, SYN, 0xFF]),
                    raw_tcp_options=rng.randbytes(4 * rng.choice([0, 0, 3, 5])))  # fmt: skip
    damage = rng.randrange(6)
    if damage == 0:
        frame = changed(frame, rng.randrange(len(frame)), 1 << rng.randrange(8))
    elif damage == 1:
        frame = frame[: rng.randrange(1, len(frame))]
    elif damage == 2:
        frame = frame[:12] + rng.randbytes(len(frame) - 12)
    return frame, rng.random() < 0.03


def random_case(rng: random.Random) -> Case:
    return Case("random", *random_frame(rng, segment))
