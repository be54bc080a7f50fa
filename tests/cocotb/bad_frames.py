"""Bad frames of every kind to the whole engine: counted, nothing hangs, nothing leaks, a bystander connection
keeps carrying bytes intact through all of it (run by test_engine.py)."""

import errno
import socket

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum

from tests.cocotb.steps import NO_LINGER, counted
from tiptoe_verif.testbench.bystander import Bystander
from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.steps import (
    accepted,
    active,
    close_by_peer,
    exchange,
    listen,
    passive,
    receive,
    use_everything,
)
from tiptoe_verif.testbench.testbench import ENGINE_IP, ENGINE_MAC, PASSIVE, Bench, engine_test


def with_checksums(frame: bytearray) -> bytes:
    """The frame with IP and TCP checksums made right, as far as its lengths allow."""
    header = 4 * (frame[14] & 15)
    total = int.from_bytes(frame[16:18], "big")
    if header >= 20 and 14 + header <= len(frame):
        frame[24:26] = b"\0\0"
        frame[24:26] = checksum(bytes(frame[14 : 14 + header])).to_bytes(2, "big")
    tcp = frame[14 + header : 14 + total]
    if header >= 20 and len(tcp) >= 20:
        tcp[16:18] = b"\0\0"
        pseudo = bytes(frame[26:34]) + b"\0\x06" + len(tcp).to_bytes(2, "big")
        tcp[16:18] = checksum(pseudo + bytes(tcp)).to_bytes(2, "big")
        frame[14 + header : 14 + total] = tcp
    return bytes(frame)


def put(frame: bytes, at: int, what: bytes, fix: bool = False) -> bytes:
    """The frame with other bytes in one place; ``fix``: checksums made right again."""
    changed = bytearray(frame)
    changed[at : at + len(what)] = what
    return with_checksums(changed) if fix else bytes(changed)


def bad_frames(good: bytes, long: bytes) -> list[tuple[str, bytes, str]]:
    """Name, frame, and the counter that tells of it; ``good`` is a segment with data, ``long`` of full size."""
    return [
        ("one byte", b"\x02", "RX_BAD_FRAME"),
        ("less than an Ethernet header", good[:13], "RX_BAD_FRAME"),
        ("cut in the IP header", good[:33], "RX_BAD_FRAME"),
        ("cut in the TCP header", good[:50], "RX_BAD_IP"),
        ("cut in the data", good[:-1], "RX_BAD_IP"),
        ("too long", long + b"\0", "RX_BAD_FRAME"),
        ("much too long", long + bytes(3000), "RX_BAD_FRAME"),
        ("another MAC", put(good, 0, bytes.fromhex("020000000003")), "RX_NOT_FOR_US"),
        ("IP version 5", put(good, 14, b"\x55", True), "RX_BAD_IP"),
        ("IP header length 4", put(good, 14, b"\x44", True), "RX_BAD_IP"),
        ("IP header beyond the frame", put(good[:54], 14, b"\x4f"), "RX_BAD_IP"),
        ("IP checksum", put(good, 24, bytes([good[24] ^ 1])), "RX_BAD_IP"),
        ("IP total length 19", put(good, 16, b"\x00\x13", True), "RX_BAD_IP"),
        ("IP total length beyond the frame", put(good, 16, b"\x02\x00", True), "RX_BAD_IP"),
        ("source 0.0.0.0", put(good, 26, bytes(4), True), "RX_BAD_IP"),
        ("source multicast", put(good, 26, b"\xe0\x00\x00\x01", True), "RX_BAD_IP"),
        ("source broadcast", put(good, 26, b"\xff\xff\xff\xff", True), "RX_BAD_IP"),
        ("source loopback", put(good, 26, b"\x7f\x00\x00\x01", True), "RX_BAD_IP"),
        ("source our own", put(good, 26, good[30:34], True), "RX_BAD_IP"),
        ("TCP checksum", put(good, 50, bytes([good[50] ^ 0x80])), "RX_BAD_TCP"),
        ("payload damaged", put(good, 60, bytes([good[60] ^ 1])), "RX_BAD_TCP"),
        ("TCP shorter than its header", put(good, 16, (39).to_bytes(2, "big"), True), "RX_BAD_TCP"),
        ("data offset 4", put(good, 46, b"\x40", True), "RX_BAD_TCP"),
        (
            "data offset beyond the segment",
            put(put(good, 16, (44).to_bytes(2, "big")), 46, b"\xf0", True),
            "RX_BAD_TCP",
        ),
        ("a fragment", put(good, 20, b"\x20\x00", True), "RX_HOST_FRAMES"),
        ("the rest of a fragment", put(good, 20, b"\x00\x05", True), "RX_HOST_FRAMES"),
        ("another IP", put(good, 30, b"\x0a\x00\x00\x63", True), "RX_HOST_FRAMES"),
        ("broadcast", put(good, 0, b"\xff" * 6), "RX_HOST_FRAMES"),
        ("another protocol", put(good, 23, b"\x11", True), "RX_HOST_FRAMES"),
        ("IPv6", put(good, 12, b"\x86\xdd"), "RX_HOST_FRAMES"),
    ]


@engine_test()
def test_malformed_frames(b: Bench) -> None:
    """Every way a frame can be wrong: one counter each, or the host's; no answer, nothing delivered."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    good = peer.frame("PA", b.rng.randbytes(101))
    long = peer.frame("PA", b.rng.randbytes(1460))
    for name, frame, counter in bad_frames(good, long):
        before = b.counters()
        b.line.inject(frame)
        b.settle(1500)
        moved = counted(b, before)
        assert moved == {counter: 1}, f"{name}: counted {moved}, not {counter}"
        assert not peer.inbox and not sock.readable(), f"{name}: the engine took it"
    before = b.counters()
    b.line.inject(good, error=True)
    b.settle(1500)
    assert counted(b, before) == {"RX_BAD_FRAME": 1}
    b.line.give(good)
    peer.seq += 101
    receive(b, sock, 101)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("frames_unclaimed",)


@engine_test()
def test_truncated_frames(b: Bench) -> None:
    """A segment cut at every length: each piece is counted, none is taken."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    frame = peer.frame("PA", bytes(range(40)))
    before = b.counters()
    for length in range(1, len(frame)):
        b.line.inject(frame[:length])
    b.settle(4000)
    moved = counted(b, before)
    assert moved == {"RX_BAD_FRAME": 33, "RX_BAD_IP": len(frame) - 34}, moved
    assert not sock.readable()
    close_by_peer(b, peer, sock)
    bystander.close()


@engine_test()
def test_options(b: Bench) -> None:
    """Options in SYN and in other segments: unknown, padded, absurd, cut off: none stops the segment or the engine."""
    bystander = Bystander(b)
    host = Host(b)
    listener = listen(b)
    tables = (
        (b"", 536), (b"\x02\x04\x02\x00", 512), (b"\x01\x01\x01\x00", 536), (b"\x00\x02\x04\x05", 536),
        (b"\x02\x00\x00\x00", 536), (b"\x02\x01\x05\xb4", 536), (b"\x03\x03\x0e\x01\x02\x04\x03\x00", 768),
        (b"\xfd\x02\x02\x04\x03\xe8\x01\x01", 1000), (b"\x02\x05\x05\xb4\x00\x02\x04\x02", 536),
        (b"\xfe\xff\x02\x04", 536), (b"\x01" * 36 + b"\x02\x04\x01\x90", 400), (b"\x05\x28" + bytes(38), 536),
    )  # fmt: skip
    for n, (options, mss) in enumerate(tables):
        peer = host.connection(40100 + n, PASSIVE[0])
        peer.bench.line.give(raw_options(peer, "S", options))
        peer.seq = 1
        peer.expect("SA", seq=0, ack=1)
        b.run(1000)
        peer.bench.line.give(raw_options(peer, "A", b.rng.randbytes(len(options)), peer.seq))
        sock = accepted(b, listener)
        sock.send(bytes(1100))
        assert len(peer.expect("A", seq=1).payload) == mss, options
        peer.wait_for(1100)
        close_by_peer(b, peer, sock)
    bystander.close()
    listener.close()


def raw_options(peer, flags: str, options: bytes, seq: int = 0) -> bytes:
    """A segment with these option bytes."""
    packet = IP(src=peer.host.ip, dst=ENGINE_IP) / TCP(
        sport=peer.port, dport=peer.engine_port, flags=flags, seq=(peer.iss + seq) & 0xFFFFFFFF,
        ack=((peer.irs or 0) + peer.ack) & 0xFFFFFFFF if "A" in flags else 0, window=8192, dataofs=5 + len(options) // 4,
    ) / Raw(options)  # fmt: skip
    return bytes(Ether(src=peer.host.mac, dst=ENGINE_MAC) / packet).ljust(60, b"\0")


def fuzz(b: Bench, rounds: int, fix: bool) -> None:
    bystander = Bystander(b)
    host = Host(b)
    listener = listen(b)
    victims = [active(b, host, port=7000 + n, local=50000 + n) for n in range(2)]
    victims += [passive(b, host, listener, port=40000 + n) for n in range(2)]
    half_open = host.connection(40900, PASSIVE[0])
    half_open.send("S")
    half_open.expect("SA")
    for _ in range(rounds):
        peer = b.rng.choice([half_open, *(peer for peer, _ in victims)])
        flags = "".join(letter for letter in "SFRPAU" if b.rng.random() < (0.8 if letter == "A" else 0.15))
        near = b.rng.choice((0, 0, 0, 1, -1, 500, 4096, -4096, 70000, 1 << 31))
        frame = bytearray(
            peer.frame(
                flags, b.rng.randbytes(b.rng.choice((0, 0, 1, 5, 100, 1200))), seq=peer.seq + near,
                ack=peer.ack + b.rng.choice((0, 0, 0, 1, -1, 1000, 1 << 31)), wnd=b.rng.getrandbits(16),
            )
        )  # fmt: skip
        if b.rng.random() < 0.5:
            for _ in range(b.rng.choice((1, 1, 2, 8))):
                frame[b.rng.randrange(14, min(len(frame), 80))] = b.rng.getrandbits(8)
        if b.rng.random() < 0.1:
            del frame[b.rng.randrange(1, len(frame)) :]
        b.line.inject(with_checksums(frame.ljust(60, b"\0")) if fix else bytes(frame))
        if b.rng.random() < 0.1:
            b.run(300)
    b.settle(2000)
    bystander.close()
    for _, sock in victims:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        sock.close()
    while listener.readable():
        listener.accept()[0].close()
    listener.close()
    b.until(lambda: b.free_ids == 16 and not b.half_open, "all ids")
    use_everything(b)


EXPECTED_OF_FUZZ = ("frames_unclaimed", "frames_bad_arp", "frames_bad_icmp")


@engine_test(frame_slots=64)
def test_fuzz_damaged(b: Bench) -> None:
    """Random damage, checksums left wrong."""
    fuzz(b, 250, False)
    b.expected_trouble = EXPECTED_OF_FUZZ


@engine_test(frame_slots=64)
def test_fuzz_well_formed(b: Bench) -> None:
    """Random segments for live and half-open connections, checksums right."""
    fuzz(b, 350, True)
    b.expected_trouble = EXPECTED_OF_FUZZ


@engine_test()
def test_segments_for_nobody(b: Bench) -> None:
    """A hundred segments of unknown four-tuples between the bystander's: a RST each, and nothing else."""
    bystander = Bystander(b)
    host = Host(b)
    before = b.counters()
    for _ in range(100):
        tcp = TCP(
            sport=b.rng.randrange(1, 65536), dport=b.rng.randrange(10000, 65536),
            flags=b.rng.choice(("A", "PA", "FA", "SA", "S")),
            seq=b.rng.getrandbits(32), ack=b.rng.getrandbits(32), window=b.rng.getrandbits(16),
        )  # fmt: skip
        b.line.give(host.packet(tcp, b.rng.randbytes(b.rng.randrange(0, 100))))
        if b.rng.random() < 0.2:
            b.run(300)
    b.until(lambda: len(host.strays) == 100, "a hundred resets")
    assert all(segment.flags & 4 for segment in host.strays)
    assert counted(b, before) == {"RX_UNKNOWN_SEGMENT": 100, "TX_RST": 100}
    bystander.close()


@engine_test(near_wrap=PASSIVE)
def test_syncache_full(b: Bench) -> None:
    """More SYNs than half-open connections can be: the others are dropped and counted; the first complete."""
    bystander = Bystander(b)
    host = Host(b)
    listener = listen(b)
    peers = [host.connection(40000 + n, PASSIVE[0]) for n in range(10)]
    for peer in peers:
        peer.send("S")
    b.settle(3000)
    answered = [peer for peer in peers if peer.inbox]
    assert len(answered) == 4
    assert b.counters()["SYN_DROPPED_FULL"] == 6
    socks = []
    for peer in answered:
        peer.send("A")
        socks.append(accepted(b, listener))
        peer.inbox.clear()
    late = next(peer for peer in peers if peer not in answered)
    late.seq = 0
    late.open()
    answered.append(late)
    socks.append(accepted(b, listener))
    for peer, sock in zip(answered, socks, strict=True):
        exchange(b, peer, sock)
        close_by_peer(b, peer, sock)
    bystander.close()
    listener.close()


@engine_test(near_wrap=PASSIVE, active_reserve=3)
def test_connection_table_full(b: Bench) -> None:
    """All sixteen ids in use: opens fail, SYNs are dropped; when one has come back, it goes on."""
    bystander = Bystander(b)
    host = Host(b)
    listener = listen(b, backlog=20)
    passives = [passive(b, host, listener, port=40000 + n) for n in range(12)]
    actives = [active(b, host, port=7000 + n, local=50000 + n) for n in range(3)]
    assert b.free_ids == 0
    sock = b.socket()
    assert sock.connect_ex((host.ip, 7777)) == errno.EPERM
    refused = host.connection(41000, PASSIVE[0])
    refused.send("S")
    b.settle(2000)
    assert not refused.inbox and b.counters()["SYN_DROPPED_FULL"] == 1
    for peer, child in (*passives, *actives):
        exchange(b, peer, child, b"x", b"y")
    close_by_peer(b, *passives.pop())
    b.until(lambda: b.free_ids, "an id")
    refused.seq = 0
    b.settle()
    refused.open()
    passives.append((refused, accepted(b, listener)))
    close_by_peer(b, *actives.pop())
    b.until(lambda: b.free_ids, "an id")
    sock.close()
    actives.append(active(b, host, port=7777, local=51000))
    for peer, child in (*passives, *actives):
        close_by_peer(b, peer, child)
    bystander.close()
    listener.close()
