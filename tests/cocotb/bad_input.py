"""Bad input of every kind to the whole engine: counted or told, nothing hangs, nothing leaks, a bystander connection keeps
carrying bytes intact through all of it (run by test_engine.py)."""

import errno
import socket
import struct

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from scapy.utils import checksum

from tiptoe_driver import abi_gen as abi
from tiptoe_verif.bench.bench import ENGINE_IP, ENGINE_MAC, PASSIVE, Bench, engine_test
from tiptoe_verif.bench.bystander import Bystander
from tiptoe_verif.bench.peer import Host
from tiptoe_verif.bench.steps import (
    accepted,
    active,
    close_by_peer,
    exchange,
    listen,
    passive,
    receive,
    use_everything,
)

NO_LINGER = struct.pack("ii", 1, 0)


def counted(b: Bench, before: dict[str, int]) -> dict[str, int]:
    """Counters that have moved, the bystander's and those of good frames left out."""
    ordinary = (
        "RX_FRAMES", "RX_TCP_SEGMENTS", "TX_FRAMES", "TX_SEGMENTS", "EVENTS_WRITTEN", "RX_DUPLICATE_ACK",
        "TX_RETRANSMITS", "RTO_EXPIRED", "RX_OUT_OF_WINDOW", "FAST_RETRANSMITS", "RX_OUT_OF_ORDER",
    )  # fmt: skip
    now = b.counters()
    return {name: now[name] - before[name] for name in now if name not in ordinary and now[name] != before[name]}


# --- the wire


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


# --- the host


@engine_test()
def test_doorbells(b: Bench) -> None:
    """Doorbells for ids that are not there or not open, and positions outside the rings."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    bell = abi.DOORBELL_BASE
    ours = next(toep for toep in b.toe.engine.ids.toepcbs if toep and toep.tp and toep.four_tuple[1] == 50000)
    free = b.toe.engine.ids._free[-1]
    write = b.device.write32
    # Beyond the last id: refused by the bus.
    for address in (bell + 16 * 8, bell + 16 * 8 + 4, bell + 65535 * 8):
        write(address, 1)
    b.settle()
    assert b.device.refused == [bell + 128, bell + 132, bell + 65535 * 8]
    assert b.counters()["BAD_DOORBELL"] == 3 and b.errors_told(abi.ErrorCode.BAD_DOORBELL) >= 1
    # An id that is not provisioned.
    write(bell + free * 8, 5)
    write(bell + free * 8 + 4, 5)
    b.settle()
    assert b.counters()["BAD_DOORBELL"] == 5
    # Outside the rings: more than was there to send, backwards, more consumed than came.
    for offset, position in ((0, 4097), (0, 1 << 31), (0, -1), (4, 1), (4, 5000), (4, 1 << 31)):
        write(bell + ours.tep_id * 8 + offset, position)
    b.settle()
    assert b.counters()["BAD_DOORBELL"] >= 9
    peer.quiet(2000)
    assert b.toe.counters["bad_doorbells"] == 1
    # The connection goes on.
    exchange(b, peer, sock)
    write(bell + ours.tep_id * 8, 4)  # the same again
    write(bell + ours.tep_id * 8 + 4, 4)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.settle()
    write(bell + ours.tep_id * 8, 5)  # over
    b.settle()
    b.expected_trouble = ("error_bad_doorbell", "bad_doorbells")


def outcome(b: Bench, command: bytes) -> int:
    """Status of a command, as COMMAND_DONE tells it; ``command`` is packed with tag 0."""
    answers = []
    tag = b.toe.engine.commands.tag(lambda status, argument: answers.append(status))
    b.toe.engine.commands.post_control(command[:2] + tag.to_bytes(2, "little") + command[4:])
    b.until(lambda: answers, f"answer to {command[:8].hex()}")
    return answers[0]


@engine_test()
def test_commands(b: Bench) -> None:
    """Commands of every kind that make no sense: each is answered with its reason, and nothing changes."""
    bystander = Bystander(b)
    host = Host(b)
    peer, sock = active(b, host)
    toep = next(toep for toep in b.toe.engine.ids.toepcbs if toep and toep.tp and toep.four_tuple[1] == 50000)
    live, stale = toep.tid, (toep.tid + 0x10000) & 0xFFFFFF
    free = b.toe.engine.ids._free[-1] | 7 << 16
    provision = dict(snd_base=0x1C0000, rcv_base=0x1C1000, snd_log2=12, rcv_log2=12, stock=0)
    opened = dict(
        laddr=0x0A000002, faddr=0x0A000001, lport=1, fport=2, dmac=0x020000000001, use_next_hop=0, next_hop=0, mss=1460,
        rcv_scale=0,
    )  # fmt: skip
    same = dict(opened, lport=50000, fport=7000)
    tuple_ = dict(laddr=0x0A000002, faddr=0x0A000001, lport=50000, fport=7000)
    before = b.counters()
    cases = [
        (bytes([99]) + bytes(63), "UNKNOWN_OPCODE"),
        (bytes([255]) + b"\xff" * 63, "UNKNOWN_OPCODE"),
        (abi.pack_close(0, tid=16, snd_end=0), "BAD_ID"),
        (abi.pack_abort(0, tid=0xFFFF), "BAD_ID"),
        (abi.pack_close(0, tid=free, snd_end=0), "BAD_ID"),
        (abi.pack_abort(0, tid=free), "BAD_ID"),
        (abi.pack_close(0, tid=stale, snd_end=0), "BAD_GENERATION"),
        (abi.pack_abort(0, tid=stale), "BAD_GENERATION"),
        (abi.pack_release(0, tid=stale, **tuple_), "BAD_GENERATION"),
        (abi.pack_path_mtu(0, tid=stale, mss=500), "BAD_GENERATION"),
        (abi.pack_release(0, tid=live, **tuple_), "BAD_STATE"),
        (abi.pack_provision(0, tid=live, **provision), "BAD_STATE"),
        (abi.pack_open(0, tid=live, **opened), "BAD_STATE"),
        (abi.pack_open(0, tid=free, **opened), "BAD_STATE"),
        (abi.pack_close(0, tid=live, snd_end=5000), "BAD_ARGUMENT"),
        (abi.pack_close(0, tid=live, snd_end=0x80000000), "BAD_ARGUMENT"),
        (abi.pack_path_mtu(0, tid=live, mss=5), "BAD_ARGUMENT"),
        (abi.pack_provision(0, tid=free, **dict(provision, snd_log2=11)), "BAD_ARGUMENT"),
        (abi.pack_provision(0, tid=free, **dict(provision, rcv_log2=25)), "BAD_ARGUMENT"),
        (abi.pack_provision(0, tid=free, **dict(provision, snd_base=0x1C0800)), "BAD_ARGUMENT"),
        (abi.pack_listen(0, listener=4, laddr=0, lport=80, mss=1460, rcv_scale=0, wnd=4096), "BAD_ARGUMENT"),
        (abi.pack_listen(0, listener=0, laddr=0, lport=80, mss=1460, rcv_scale=15, wnd=4096), "BAD_ARGUMENT"),
        (abi.pack_unlisten(0, listener=77), "BAD_ARGUMENT"),
        (abi.pack_syncache_drop(0, syncache_ref=0x10000), "BAD_ARGUMENT"),
        (abi.pack_next_hop(0, index=4, dmac=1), "BAD_ARGUMENT"),
        (abi.pack_send_frame(0, addr=0x1C0000, length=13), "BAD_ARGUMENT"),
        (abi.pack_send_frame(0, addr=0x1C0000, length=1515), "BAD_ARGUMENT"),
    ]
    for command, status in cases:
        found = outcome(b, command)
        assert found == abi.Status[status], f"{command[:40].hex()}: {abi.Status(found).name}, not {status}"
    assert counted(b, before) == {"BAD_COMMAND": len(cases)}
    # Nothing to drop, nobody listens: no harm.
    assert outcome(b, abi.pack_syncache_drop(0, syncache_ref=3)) != abi.Status.OK
    outcome(b, abi.pack_unlisten(0, listener=3))
    # A four-tuple that exists: the id stays usable, and is given back.
    fresh = b.toe.engine.ids.acquire()[0]
    assert outcome(b, abi.pack_open(0, tid=fresh.tid, **same)) == abi.Status.EXISTS
    b.toe.engine.ids.give_back(fresh)
    # A tail beyond the ring is ignored.
    tail = b.toe.engine.commands._tail
    b.device.write32(abi.REG_COMMAND_TAIL, tail + 65)
    b.device.write32(abi.REG_COMMAND_TAIL, tail - 1)
    b.settle()
    assert b.errors_told(abi.ErrorCode.BAD_COMMAND_TAIL) >= 1
    b.device.write32(abi.REG_COMMAND_TAIL, tail)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("failed_commands", "error_bad_command_tail")


@engine_test()
def test_registers(b: Bench) -> None:
    """Reads and writes where no register is: an error response, and life goes on."""
    bystander = Bystander(b)
    for address in (0x3FC, 0x7000, 0x7FFFC):
        b.device.write32(address, 0xDEADBEEF)
    b.settle()
    assert b.device.refused == [0x3FC, 0x7000, 0x7FFFC]
    assert b.register(abi.REG_ID) == abi.ID_VALUE
    b.device.write32(abi.REG_ID, 0)
    assert b.register(abi.REG_ID) == abi.ID_VALUE
    bystander.close()


@engine_test(frame_slots=4, near_wrap=PASSIVE)
def test_host_asleep(b: Bench) -> None:
    """The host stops looking at its events for long, while everything happens at once; then nothing is missing."""
    host = Host(b)
    listener = listen(b)
    peer, sock = active(b, host)
    sock.send(b"before")
    peer.wait_for(6)
    closing, closed_sock = active(b, host, port=7001, local=50001)
    dying, dead_sock = active(b, host, port=7002, local=50002)
    b.asleep = True
    data = b.rng.randbytes(4096)
    for begin in range(0, 4096, 256):
        peer.send("A", data[begin : begin + 256])
        b.run(700)
    closing.send("FPA", b"bye")
    dying.send("R")
    opening = [host.connection(40000 + n, PASSIVE[0]) for n in range(3)]
    for other in opening:
        other.send("S")
        other.expect("SA")
        b.run(1500)
        other.send("PA", b"hello")
    for _ in range(10):  # more frames for the host than it has slots
        arp = ARP(op=2, hwsrc=host.mac, psrc=host.ip, pdst=ENGINE_IP)
        b.line.give(bytes(Ether(src=host.mac, dst=ENGINE_MAC) / arp).ljust(60, b"\0"))
    peer.expect_ack(4097)
    b.run(30_000)
    b.asleep = False
    assert receive(b, sock, 4096) == data
    children = [accepted(b, listener) for _ in opening]
    assert [receive(b, child, 5) for child in children] == [b"hello"] * 3
    assert receive(b, closed_sock, 3) == b"bye"
    b.until(closed_sock.readable, "end of stream")
    assert closed_sock.recv(1) == b""
    b.until(dead_sock.readable, "the reset")
    try:
        dead_sock.recv(1)
    except ConnectionResetError:
        pass
    else:
        raise AssertionError("no ECONNRESET")
    assert b.counters()["RX_HOST_DROPPED"] == 6
    peer.seq = 4097
    close_by_peer(b, peer, sock)
    closed_sock.close()
    dead_sock.close()
    closing.inbox.clear()
    closing.expect("FA", skip_acks=True)
    closing.send("A")
    for other, child in zip(opening, children, strict=True):
        close_by_peer(b, other, child)
    listener.close()


@engine_test(near_wrap=PASSIVE)
def test_event_ring_full(b: Bench) -> None:
    """An event ring of sixteen entries and a host that sleeps: events wait, commands too, connections go on; nothing is lost."""
    host = Host(b)
    engine = b.toe.engine
    listener = listen(b)
    peer, sock = active(b, host)
    # The ring as small as it can be: its count begins anew with the next pass over sixteen entries.
    b.settle()
    while engine.events._head % 16:
        outcome(b, abi.pack_unlisten(0, listener=3))
    shrink(b)
    b.asleep = True
    answers = []
    for _ in range(24):
        tag = engine.commands.tag(lambda status, argument: answers.append(status))
        engine.commands.post_control(abi.pack_unlisten(tag, listener=3))
    data = b.rng.randbytes(4000)
    for begin in range(0, 4000, 500):
        peer.send("A", data[begin : begin + 500])
        b.run(500)
    peer.expect_ack(4001)
    b.run(5000)
    assert b.counters()["EVENT_RING_FULL"] > 0
    assert b.register(abi.REG_EVENT_PRODUCER) - engine.events._head == 16
    b.asleep = False
    assert receive(b, sock, 4000) == data
    b.until(lambda: len(answers) == 24, "all answers")
    other, child = passive(b, host, listener)
    exchange(b, other, child)
    close_by_peer(b, other, child)
    close_by_peer(b, peer, sock)
    listener.close()
    b.expected_trouble = ("failed_commands",)  # nobody listened there


def shrink(b: Bench) -> None:
    """Make the event ring sixteen entries long, in the engine and in the driver, while nothing happens."""
    engine = b.toe.engine
    b.settle()
    head = engine.events._head
    memory = engine.events._memory
    # The phase of an entry is that of its pass: what stands in the first sixteen entries belongs to the pass before.
    phase = 1 ^ (head // 16 & 1)
    for index in range(16):
        memory[index * 32 + 31] = (1 ^ phase) << 7
    engine.events.entries = 16
    b.device.write32(abi.REG_EVENT_RING_LOG2, 4)
    b.settle()


# --- the memory bus


def ring_of(b: Bench, local: int):
    """The rings of a connection."""
    return next(toep for toep in b.toe.engine.ids.toepcbs if toep and toep.tp and toep.four_tuple[1] == local).rings


@engine_test()
def test_payload_read_error(b: Bench) -> None:
    """Payload that cannot be read is not sent: counted and told; it comes with the retransmission."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    rings = ring_of(b, 50000)
    fault = b.memory.read_faults.add(rings.snd_block.address, 4096, count=2)
    data = b.rng.randbytes(1000)
    sock.send(data)
    assert peer.wait_for(1000) == data
    assert fault.hits == 2
    counters = b.counters()
    assert counters["TX_DROPPED"] and counters["DMA_READ_ERROR"] and b.errors_told(abi.ErrorCode.PAYLOAD_READ)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("error_payload_read",)


@engine_test()
def test_payload_read_error_for_good(b: Bench) -> None:
    """Payload that can never be read: the connection times out, the id comes back."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    b.memory.read_faults.add(ring_of(b, 50000).snd_block.address, 4096)
    sock.send(b"x" * 100)
    b.until(sock.readable, "the time-out", 2_000_000)
    try:
        sock.recv(1)
    except OSError as error:
        assert error.errno == errno.ETIMEDOUT
    assert not peer.inbox
    b.memory.read_faults.clear()
    sock.close()
    bystander.close()
    b.expected_trouble = ("error_payload_read",)


@engine_test()
def test_payload_write_error(b: Bench) -> None:
    """Received payload that cannot be written: the connection is reset rather than left with a hole, and the host told."""
    bystander = Bystander(b)
    host = Host(b)
    for n, segments in enumerate((1, 5)):
        peer, sock = active(b, host, port=7000 + n, local=50000 + n)
        peer.send("PA", b"good")
        assert receive(b, sock, 4) == b"good"
        fault = b.memory.write_faults.add(ring_of(b, 50000 + n).rcv_block.address, 4096, count=1)
        for _ in range(segments):
            peer.send("PA", b.rng.randbytes(300))
        b.until(lambda peer=peer: any(s.flags & 4 for s in peer.inbox), "the reset")
        assert fault.hits == 1
        b.until(sock.readable, "the error")
        try:
            while sock.recv(5000):
                pass
        except OSError as error:
            assert error.errno == errno.EIO
        else:
            raise AssertionError("no EIO")
        sock.close()
        b.until(lambda: b.free_ids == 15, "the id")
    assert b.counters()["DMA_WRITE_ERROR"] == 2 and b.errors_told(abi.ErrorCode.PAYLOAD_WRITE)
    b.memory.write_faults.clear()
    peer, sock = active(b, host)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("error_payload_write",)


@engine_test()
def test_command_fetch_error(b: Bench) -> None:
    """Commands that cannot be read are skipped, each answered with DMA_ERROR; the next ones are carried out."""
    bystander = Bystander(b)
    engine = b.toe.engine
    fault = b.memory.read_faults.add(b.register(abi.REG_COMMAND_RING_LO), engine.commands.entries * 64, count=1)
    before = b.counters()
    for _ in range(3):
        engine.commands.post_control(abi.pack_nop(0))
    b.until(lambda: b.errors_told(abi.ErrorCode.COMMAND_FETCH), "the error event")
    assert fault.hits == 1
    b.settle()
    assert counted(b, before)["DMA_READ_ERROR"] == 1
    assert engine.counters["failed_commands"] == b.counters()["BAD_COMMAND"] >= 1
    peer, sock = active(b, Host(b))
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("failed_commands", "error_command_fetch")


@engine_test()
def test_event_write_error(b: Bench) -> None:
    """Events that cannot be written are written again: nothing is lost."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    address = b.register(abi.REG_EVENT_RING_LO)
    fault = b.memory.write_faults.add(address, b.toe.engine.events.entries * 32, count=5)
    for _ in range(4):
        exchange(b, peer, sock)
    assert fault.hits == 5
    assert b.counters()["DMA_WRITE_ERROR"] == 5 and b.errors_told(abi.ErrorCode.EVENT_WRITE)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("error_event_write",)


@engine_test()
def test_host_frame_errors(b: Bench) -> None:
    """Frames of the host that cannot be read are answered with DMA_ERROR; received ones that cannot be written are told."""
    bystander = Bystander(b)
    host = Host(b)
    b.memory.read_faults.add(0x1C0000, 4096)
    assert outcome(b, abi.pack_send_frame(0, addr=0x1C0010, length=100)) == abi.Status.DMA_ERROR
    b.memory.read_faults.clear()
    slots = b.register(abi.REG_FRAME_RING_LO)
    fault = b.memory.write_faults.add(slots, 16 * 2048, count=2)
    request = bytes(
        Ether(src=host.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=host.mac, psrc=host.ip, pdst=ENGINE_IP)
    )
    seen = []
    b.line.hosts.append(lambda frame: seen.append(frame) if frame[12:14] == b"\x08\x06" else None)
    for _ in range(20):
        b.line.give(request.ljust(60, b"\0"))
        b.run(1500)
    assert fault.hits == 2
    b.until(lambda: len(seen) == 18, f"eighteen ARP replies, not {len(seen)}")
    assert b.errors_told(abi.ErrorCode.PAYLOAD_WRITE)
    bystander.close()
    b.expected_trouble = ("failed_commands", "error_payload_write", "error_payload_read", "frames_not_written")


@engine_test()
def test_errors_everywhere(b: Bench) -> None:
    """Reads, writes and events fail in the midst of transfers: a connection may die of it, the next one lives."""
    b.line.monitor.may_skip = True
    host = Host(b)
    events = b.register(abi.REG_EVENT_RING_LO)
    for n in range(6):
        peer, sock = active(b, host, port=7000 + n, local=50000 + n)
        rings = ring_of(b, 50000 + n)
        b.memory.read_faults.add(rings.snd_block.address + b.rng.randrange(1000), 64, count=2)
        b.memory.write_faults.add(rings.rcv_block.address + b.rng.randrange(3000), 64, count=1)
        b.memory.write_faults.add(events, b.toe.engine.events.entries * 32, count=2)
        sock.send(b.rng.randbytes(1000))
        for _ in range(3):
            peer.send("A", b.rng.randbytes(500))
            b.run(1000)
        b.run(20_000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        sock.close()
        b.memory.read_faults.clear()
        b.memory.write_faults.clear()
        b.until(lambda: b.free_ids == 16, "the id")
    Bystander(b).close()
    use_everything(b)
    b.expected_trouble = ("error_payload_read", "error_payload_write", "error_event_write")


QUICK = {abi.REG_RTO_INITIAL: 8, abi.REG_RTO_MIN: 6}
TIMES = 40
"""More than there are credits, slots and queue entries anywhere in the engine."""


@engine_test(registers=QUICK, stall=0.1)
def test_many_payload_read_errors(b: Bench) -> None:
    """Forty reads fail, each of a segment under way: no credit is lost with them."""
    peer, sock = active(b, Host(b))
    ring = ring_of(b, 50000).snd_block
    for n in range(TIMES):
        b.memory.read_faults.clear()
        fault = b.memory.read_faults.add(ring.address, ring.size, count=1)
        exchange(b, peer, sock, b.rng.randbytes(100 + n), b"")
        assert fault.hits == 1
    assert b.counters()["TX_DROPPED"] == b.counters()["DMA_READ_ERROR"] == TIMES
    close_by_peer(b, peer, sock)
    use_everything(b)
    b.expected_trouble = ("error_payload_read",)


@engine_test(stall=0.1)
def test_many_payload_write_errors(b: Bench) -> None:
    """Forty connections die of a failed write, with more data behind it."""
    host = Host(b)
    for n in range(TIMES):
        peer, sock = active(b, host, port=7000 + n, local=50000 + n)
        ring = ring_of(b, 50000 + n).rcv_block
        b.memory.write_faults.add(ring.address, ring.size, count=1)
        for _ in range(3):
            peer.send("PA", bytes(200))
        b.until(sock.readable, "the error")
        sock.close()
        b.memory.write_faults.clear()
        b.until(lambda: b.free_ids == 16, "the id")
    assert b.counters()["DMA_WRITE_ERROR"] == TIMES
    use_everything(b)
    b.expected_trouble = ("error_payload_write",)


@engine_test(stall=0.1)
def test_many_event_and_frame_errors(b: Bench) -> None:
    """Forty failed writes of events, forty of host frames, forty failed reads of frames to be sent."""
    host = Host(b)
    peer, sock = active(b, host)
    events = b.memory.write_faults.add(b.register(abi.REG_EVENT_RING_LO), b.toe.engine.events.entries * 32, count=TIMES)
    b.until(lambda: exchange(b, peer, sock) or events.hits == TIMES, "failed event writes")
    b.memory.write_faults.clear()
    frames = b.memory.write_faults.add(b.register(abi.REG_FRAME_RING_LO), 16 * 2048, count=TIMES)
    arp = Ether(src=host.mac, dst=ENGINE_MAC) / ARP(op=2, hwsrc=host.mac, psrc=host.ip, pdst=ENGINE_IP)
    while frames.hits < TIMES:
        b.line.give(bytes(arp).ljust(60, b"\0"))
        b.run(600)
    b.memory.write_faults.clear()
    b.memory.read_faults.add(0x1C0000, 4096)
    for _ in range(TIMES):
        assert outcome(b, abi.pack_send_frame(0, addr=0x1C0010, length=100)) == abi.Status.DMA_ERROR
    b.memory.read_faults.clear()
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    use_everything(b)
    b.expected_trouble = (
        "failed_commands", "error_payload_write", "error_payload_read", "error_event_write", "frames_not_written",
    )  # fmt: skip
