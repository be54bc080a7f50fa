"""The host's network interface on the engine: ARP, ICMP echo, the hook for another stack. scapy judges the packets."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from tests.driver.bench import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, Bench
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.netinet.in_cksum import internet_checksum
from tiptoe_driver.netinet.routes import format_ipv4, parse_ipv4, parse_mac
from tiptoe_hdl.host.abi import Opcode


def send(bench: Bench, packet: Ether) -> list[Ether]:
    """Give the driver a frame; what it sends back."""
    bench.device.forget()
    bench.device.frame(bytes(packet).ljust(60, b"\0"))
    bench.stack.poll()
    return [Ether(raw) for raw in bench.device.sent_frames()]


def test_arp_request_is_answered(bench: Bench) -> None:
    [reply] = send(
        bench,
        Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(op="who-has", hwsrc=PEER_MAC, psrc=PEER_IP, pdst=OUR_IP),
    )
    assert (reply.dst, reply.src, reply.type) == (PEER_MAC, OUR_MAC, 0x806)
    arp = reply[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (2, OUR_MAC, OUR_IP, PEER_MAC, PEER_IP)
    assert len(reply) == 60
    assert bench.dev.hostif.arp.lookup(parse_ipv4(PEER_IP)) == parse_mac(PEER_MAC)


def test_arp_for_others_is_neither_answered_nor_learned(bench: Bench) -> None:
    assert send(bench, Ether() / ARP(op="who-has", hwsrc=PEER_MAC, psrc=PEER_IP, pdst="10.0.0.77")) == []
    assert bench.dev.hostif.arp.lookup(parse_ipv4(PEER_IP)) is None


@pytest.mark.parametrize(
    "frame",
    [
        Ether() / ARP(op="who-has", hwsrc=PEER_MAC, psrc=OUR_IP, pdst=OUR_IP),  # claims our address
        Ether() / ARP(op="who-has", hwsrc="ff:ff:ff:ff:ff:ff", psrc=PEER_IP, pdst=OUR_IP),
        Ether() / ARP(op=9, hwsrc=PEER_MAC, psrc=PEER_IP, pdst=OUR_IP),
        Ether() / ARP(hwlen=8, op="who-has", hwsrc=PEER_MAC, psrc=PEER_IP, pdst=OUR_IP),
        Ether(type=0x806) / b"\0\1",
    ],
    ids=["our-address", "broadcast-mac", "operation", "hardware-length", "short"],
)
def test_arp_garbage_is_not_learned(bench: Bench, frame: Ether) -> None:
    send(bench, frame)
    assert bench.dev.hostif.arp.lookup(parse_ipv4(PEER_IP)) is None
    assert bench.dev.hostif.arp.lookup(parse_ipv4(OUR_IP)) is None


def test_a_static_neighbour_stays_what_it_is(bench: Bench) -> None:
    """Nothing heard changes it, no doubt, no age, no lack of room."""
    arp, ip = bench.dev.hostif.arp, parse_ipv4(PEER_IP)
    arp.add_static(ip, 0x02_00_00_00_00_99)
    send(bench, Ether() / ARP(op="who-has", hwsrc=PEER_MAC, psrc=PEER_IP, pdst=OUR_IP))
    for n in range(arp.LIMIT + 1):
        send(bench, Ether() / ARP(op="who-has", hwsrc=PEER_MAC, psrc=format_ipv4((10 << 24) + 0x100 + n), pdst=OUR_IP))
    bench.device.forget()
    arp.doubt(ip)
    assert not bench.device.sent_frames()
    assert arp.lookup(ip) == 0x02_00_00_00_00_99


def test_arp_cache_is_bounded(bench: Bench) -> None:
    arp = bench.dev.hostif.arp
    for n in range(arp.LIMIT + 10):
        send(bench, Ether() / ARP(op="who-has", hwsrc=PEER_MAC, psrc=format_ipv4(0x0A00_1000 + n), pdst=OUR_IP))
    assert len(arp._entries) == arp.LIMIT


@pytest.mark.parametrize("length", [0, 1, 56, 1472])
def test_echo_is_answered(bench: Bench, length: int) -> None:
    data = random.Random(length).randbytes(length)
    [reply] = send(
        bench,
        Ether(src=PEER_MAC, dst=OUR_MAC)
        / IP(src=PEER_IP, dst=OUR_IP, ttl=3, id=77)
        / ICMP(type="echo-request", id=0x1234, seq=5)
        / data,
    )
    assert (reply.dst, reply.src) == (PEER_MAC, OUR_MAC)
    ip, icmp = reply[IP], reply[ICMP]
    assert (ip.src, ip.dst, ip.len, icmp.type, icmp.id, icmp.seq) == (OUR_IP, PEER_IP, 28 + length, 0, 0x1234, 5)
    assert bytes(icmp.payload)[:length] == data
    sums = ip.chksum, icmp.chksum
    del ip.chksum, icmp.chksum
    again = Ether(bytes(reply))
    assert (again[IP].chksum, again[ICMP].chksum) == sums


@pytest.mark.parametrize("damage", ["icmp", "ip"])
def test_echo_with_a_wrong_checksum_is_dropped(bench: Bench, damage: str) -> None:
    packet = Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER_IP, dst=OUR_IP) / ICMP() / b"data"
    packet[ICMP if damage == "icmp" else IP].chksum = 0x1111
    assert send(bench, packet) == []
    assert bench.dev.counters["frames_bad_icmp"] == 1


def test_echo_garbage_never_raises(bench: Bench, rng: random.Random) -> None:
    sound = bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER_IP, dst=OUR_IP) / ICMP() / b"0123456789")
    for _ in range(500):
        raw = bytearray(sound[: rng.randrange(14, len(sound) + 1)])
        for _ in range(rng.randrange(4)):
            raw[rng.randrange(12, len(raw))] = rng.randrange(256)
        bench.device.frame(bytes(raw))
        bench.stack.poll()
    assert bench.device.registers[reg.REG_FRAME_CONSUMER] == 500


def test_other_frames_go_to_the_hook(bench: Bench) -> None:
    packet = Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER_IP, dst=OUR_IP) / UDP(dport=53) / b"query"
    assert send(bench, packet) == []
    assert bench.dev.counters["frames_unclaimed"] == 1
    seen: list[bytes] = []
    bench.dev.hostif.input_hook = lambda frame: (seen.append(frame), True)[1]
    send(bench, packet)
    send(bench, Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER_IP, dst=OUR_IP) / TCP(dport=80))
    assert len(seen) == 2 and seen[0].startswith(bytes(packet))
    assert bench.dev.counters["frames_unclaimed"] == 1


def test_transmit_waits_for_buffers_in_order(bench: Bench) -> None:
    bench.device.answer = lambda command: None
    frames = [bytes([n]) * 100 for n in range(20)]
    assert all(bench.dev.hostif.transmit(frame) for frame in frames)
    assert bench.device.sent_frames() == frames[:8]  # as many as there are buffers
    first = bench.device.ops(Opcode.SEND_FRAME)[0]
    bench.device.done(first)
    bench.stack.poll()
    newest = bench.device.last(Opcode.SEND_FRAME)
    assert newest["addr"] == first["addr"]
    assert bench.device.sent_frames()[-1] == frames[8]


def test_transmit_refuses_what_is_no_frame(bench: Bench) -> None:
    assert not bench.dev.hostif.transmit(bytes(13))
    assert not bench.dev.hostif.transmit(bytes(1515))
    assert bench.dev.counters["frames_bad_length"] == 2
    assert bench.dev.hostif.transmit(bytes(1514))


def test_transmit_queue_is_bounded(bench: Bench) -> None:
    bench.device.answer = lambda command: None
    taken = sum(bench.dev.hostif.transmit(bytes(60)) for _ in range(1000))
    assert taken == bench.dev.hostif.QUEUE_LIMIT + 8
    assert bench.dev.counters["frames_dropped"] == 1000 - taken


@pytest.mark.parametrize("length", [0, 1, 2, 19, 20, 65])
def test_internet_checksum(length: int) -> None:
    data = random.Random(length).randbytes(length)
    from scapy.utils import checksum

    assert internet_checksum(data) == checksum(data)
    assert internet_checksum(bytes(length)) == 0xFFFF
    assert internet_checksum(b"\xff" * length) == checksum(b"\xff" * length)


def test_owner_gets_every_frame_and_answers_for_itself(bench: Bench) -> None:
    seen: list[bytes] = []
    bench.dev.hostif.owner = seen.append
    packets = [
        Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(op="who-has", hwsrc=PEER_MAC, psrc=PEER_IP, pdst=OUR_IP),
        Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER_IP, dst=OUR_IP) / ICMP(type="echo-request") / b"data",
        Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER_IP, dst=OUR_IP) / TCP(dport=80),
    ]
    assert [send(bench, packet) for packet in packets] == [[], [], []]
    assert [frame[: len(packet)] for frame, packet in zip(seen, packets, strict=True)] == [bytes(p) for p in packets]
    assert bench.dev.hostif.arp.lookup(parse_ipv4(PEER_IP)) == parse_mac(PEER_MAC)  # the driver has learned from it
    bench.dev.hostif.owner = None
    assert len(send(bench, packets[1])) == 1
