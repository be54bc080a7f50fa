"""The wire monitor and IPv6: segments read and written as scapy does, and rules that frames of IPv6 break."""

import random

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6ND_NS, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether

from tiptoe_driver.netinet.in6 import parse_ipv6
from tiptoe_verif.wire.monitor import WireError, WireMonitor
from tiptoe_verif.wire.segment import Malformed, Segment, ip_text, mac_number, pack_tcp, parse_tcp

US, THEM = "2001:db8::2", "2001:db8::1"
OUR_MAC, THEIR_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
ISS, IRS = 0xFFFFFF00, 0xFFFFFFF0


def ours(flags="A", seq=1, ack=1, data=b"", options=(), ip=None, **tcp):
    fields = {
        "sport": 80, "dport": 5000, "flags": flags, "seq": (ISS + seq) % 2**32, "window": 1000, "options": list(options),
        "ack": (IRS + ack) % 2**32 if "A" in flags else 0,
    } | tcp  # fmt: skip
    return bytes(
        Ether(src=OUR_MAC, dst=THEIR_MAC) / IPv6(**{"src": US, "dst": THEM} | (ip or {})) / TCP(**fields) / data
    )


def theirs(flags="A", seq=1, ack=1, data=b"", options=(), window=60000):
    fields = {"sport": 5000, "dport": 80, "flags": flags, "seq": (IRS + seq) % 2**32, "window": window}
    fields |= {"options": list(options), "ack": (ISS + ack) % 2**32 if "A" in flags else 0}
    return bytes(Ether(src=THEIR_MAC, dst=OUR_MAC) / IPv6(src=THEM, dst=US) / TCP(**fields) / data)


@pytest.fixture
def monitor():
    """After a passive handshake in which the peer names no MSS."""
    made = WireMonitor(mac=mac_number(OUR_MAC), ip=0x0A000002)
    made.ip6 = parse_ipv6(US)
    made.to_engine(theirs("S", seq=0))
    made.from_engine(ours("SA", seq=0, options=[("MSS", 1440)]))
    made.to_engine(theirs("A"))
    return made


@pytest.mark.parametrize("length", [0, 1, 2, 1440])
def test_written_and_read_as_scapy_does(length, rng):
    segment = Segment(
        parse_ipv6(US), parse_ipv6(THEM), 80, 0xFFFF, 0xFFFF_FFFF, 7, 0x18, 65535, 0, None, rng.randbytes(length), ecn=2
    )
    packet = pack_tcp(segment, tos=0x28, ttl=9)
    read = IPv6(packet)
    assert (read.src, read.dst, read.tc, read.hlim, read.plen, read.nh) == (US, THEM, 0x2A, 9, 20 + length, 6)
    told = read[TCP].chksum
    del read[TCP].chksum
    assert bytes(read) == packet and IPv6(bytes(read))[TCP].chksum == told
    frame = bytes(Ether(src=THEIR_MAC, dst=OUR_MAC, type=0x86DD)) + packet
    assert parse_tcp(frame) == segment
    assert str(segment).startswith("[2001:db8::2]:80 > [2001:db8::1]:65535")


def test_addresses():
    assert ip_text(parse_ipv6("2001:db8::")) == "[2001:db8::]"


def test_default_mss_is_that_of_ipv6(monitor):
    monitor.from_engine(ours(data=bytes(1220)))
    with pytest.raises(WireError, match="takes segments of 1220"):
        monitor.from_engine(ours(seq=1221, data=bytes(1221)))
    assert len(monitor.flows) == 1


def test_neighbour_discovery_echo_and_the_hosts_datagrams_pass(monitor):
    ether = Ether(src=OUR_MAC, dst=THEIR_MAC)
    for packet in (
        IPv6(src=US, dst=THEM, hlim=255) / ICMPv6ND_NS(tgt=THEM), IPv6(src=US, dst=THEM) / ICMPv6EchoReply(data=b"abc"),
        IPv6(src=US, dst=THEM) / UDP(), IPv6(src=US, dst=THEM) / IPv6ExtHdrDestOpt() / TCP(),
    ):  # fmt: skip
        monitor.from_engine(bytes(ether / packet))


def _damaged(frame: bytes, at: int, change: int = 1) -> bytes:
    return frame[:at] + bytes([frame[at] ^ change]) + frame[at + 1 :]


@pytest.mark.parametrize(("frame", "message"), [
    (_damaged(ours(), 14 + 40 + 16), "TCP checksum"), (_damaged(ours(), 30), "is not the engine's|checksum"),
    (_damaged(ours(data=b"ab"), 19), "payload of"), (ours(ip={"hlim": 0}), "hop limit"),
    (_damaged(ours(), 14, 0x10), "IP version 7"),
    (ours(ip={"src": "2001:db8::7"}), "not the engine's"), (ours(seq=5000, data=b"x"), "from the highest"),
    (ours(dport=5001), "never began"), (ours(ack=9), "never given"), (ours()[:53], "IPv6 frame"),
    (bytes(Ether(src=OUR_MAC, dst=THEIR_MAC) / IPv6(src=US, dst=THEM) / ICMPv6EchoReply(cksum=1)), "ICMPv6 checksum"),
])  # fmt: skip
def test_wrong_frame(monitor, frame, message):
    with pytest.raises(WireError, match=message):
        monitor.from_engine(frame)


def test_what_breaks_its_format_is_not_read(rng: random.Random):
    for cut in range(14, 74):
        try:
            assert parse_tcp(theirs(data=b"abcd")[:cut]) is None
        except Malformed:
            continue
        raise AssertionError("a frame cut off was read")


def test_frames_for_another_address_teach_nothing(monitor):
    frame = bytes(
        Ether(src=THEIR_MAC, dst=OUR_MAC) / IPv6(src=THEM, dst="2001:db8::7") / TCP(sport=7, dport=80, flags="S")
    )
    monitor.to_engine(frame)
    with pytest.raises(WireError):
        monitor.from_engine(ours("SA", seq=0, dport=7, options=[("MSS", 1440)]))
