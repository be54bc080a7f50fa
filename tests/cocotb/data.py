"""Data through the whole engine: both ways at once, on bad lines, bus and line at a standstill (run by test_engine.py).

Rings are small, so that they wrap many times; sizes and positions are odd.
"""

import hashlib
import socket

from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.reference import ReferenceTcp
from tiptoe_verif.testbench.steps import accepted, active, close_by_peer, exchange, listen, receive
from tiptoe_verif.testbench.testbench import ACTIVE, PASSIVE, Bench, engine_test
from tiptoe_verif.wire.impairment import Impairment

SIZES = (1, 7, 333, 1459, 1461, 4000)


def carry(b: Bench, sock, peer: ReferenceTcp, there: bytes, back: bytes, *, close: bool = True) -> None:
    """``there`` from the host to the peer and ``back`` the other way, at once, in odd pieces; then both sides close."""
    sent, got = 0, bytearray()
    ended = not close
    before = len(peer.received)
    peer.send(back)
    if close:
        peer.close()

    def step() -> bool:
        nonlocal sent, ended
        while sent < len(there) and sock.writable():
            sent += sock.send(there[sent : sent + b.rng.choice(SIZES)])
            if sent == len(there) and close:
                sock.shutdown(socket.SHUT_WR)
        while sock.readable() and not (len(got) == len(back) and ended):
            part = sock.recv(b.rng.choice(SIZES))
            ended |= not part
            got.extend(part)
        return (
            len(got) >= len(back) and len(peer.received) - before >= len(there) and ended and (peer.over or not close)
        )

    b.until(step, f"{len(there)} bytes there and {len(back)} back", 4_000_000)
    assert hashlib.sha256(got).digest() == hashlib.sha256(back).digest(), "other bytes came than were sent"
    assert peer.received[before:] == there, "other bytes arrived at the peer than were sent"


def reference_active(b: Bench, host: Host, **options) -> tuple[ReferenceTcp, object]:
    """The engine connects to the reference TCP."""
    peer = ReferenceTcp(host, ACTIVE[1], ACTIVE[0], active=False, **options)
    sock = b.socket()
    sock.bind(("", ACTIVE[0]))
    sock.connect_ex((host.ip, ACTIVE[1]))
    b.until(sock.writable, "the connection", 1_000_000)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    return peer, sock


def reference_passive(b: Bench, host: Host, listener, port=PASSIVE[1], **options) -> tuple[ReferenceTcp, object]:
    """The reference TCP connects to the engine."""
    peer = ReferenceTcp(host, port, PASSIVE[0], active=True, **options)
    return peer, accepted(b, listener)


@engine_test()
def test_both_ways(b: Bench) -> None:
    """Tens of kilobytes both ways at once through 4 KiB rings."""
    peer, sock = reference_active(b, Host(b))
    carry(b, sock, peer, b.rng.randbytes(50_001), b.rng.randbytes(40_003))
    sock.close()
    counters = b.counters()
    assert not counters["TX_RETRANSMITS"] and not counters["RX_OUT_OF_ORDER"] and not peer.retransmissions


@engine_test(near_wrap=PASSIVE, stall=0.6, latency=range(300), snd_ring_bytes=16384, rcv_ring_bytes=131072)
def test_both_ways_slow_memory_scaled_window(b: Bench) -> None:
    """Slow memory, busy buses, rings of 16 KiB and 128 KiB: the window needs its scale."""
    listener = listen(b)
    peer, sock = reference_passive(b, Host(b), listener, ws=7, room=1 << 20)
    assert peer.scaled and peer.snd_scale == 2
    carry(b, sock, peer, b.rng.randbytes(40_001), b.rng.randbytes(60_007))
    sock.close()
    listener.close()


@engine_test(stall=0, latency=range(1))
def test_both_ways_fast_memory(b: Bench) -> None:
    """No pauses and no latency at all: the other end of what a bus can do."""
    peer, sock = reference_active(b, Host(b), mss=536, ws=None)
    carry(b, sock, peer, b.rng.randbytes(30_001), b.rng.randbytes(30_003))
    sock.close()


@engine_test(near_wrap=PASSIVE)
def test_several_connections(b: Bench) -> None:
    """Six connections carry data at the same time."""
    host = Host(b)
    listener = listen(b)
    peers = {40000 + n: ReferenceTcp(host, 40000 + n, PASSIVE[0], active=True, mss=1460 - 101 * n) for n in range(4)}
    socks = []

    def collect() -> bool:
        while listener.readable():
            sock, (_, port) = listener.accept()
            sock.setblocking(False)
            socks.append((port, sock))
        return len(socks) == 4

    b.until(collect, "four connections")
    for n in range(2):
        peers[7000 + n] = ReferenceTcp(host, 7000 + n, 50000 + n, active=False)
        sock = b.socket()
        sock.bind(("", 50000 + n))
        sock.connect_ex((host.ip, 7000 + n))
        socks.append((7000 + n, sock))
    data = {port: (b.rng.randbytes(9001 + port % 100), b.rng.randbytes(8003 + port % 77)) for port in peers}
    sent, got = dict.fromkeys(peers, 0), {port: bytearray() for port in peers}
    for port, peer in peers.items():
        peer.send(data[port][1])
        peer.close()

    def step() -> bool:
        for port, sock in socks:
            there, back = data[port]
            if sent[port] < len(there) and sock.writable():
                sent[port] += sock.send(there[sent[port] : sent[port] + b.rng.choice(SIZES)])
                if sent[port] == len(there):
                    sock.shutdown(socket.SHUT_WR)
            while len(got[port]) < len(back) and sock.readable():
                got[port].extend(sock.recv(b.rng.choice(SIZES)))
        return all(peer.over for peer in peers.values()) and all(len(got[p]) == len(data[p][1]) for p in peers)

    b.until(step, "all data", 4_000_000)
    for port, peer in peers.items():
        assert got[port] == data[port][1] and peer.received == data[port][0], f"wrong bytes at port {port}"
    for _, sock in socks:
        sock.close()
    listener.close()


# --- bad lines


def lossy(b: Bench) -> None:
    peer, sock = reference_active(b, Host(b), room=16384)
    carry(b, sock, peer, b.rng.randbytes(30_001), b.rng.randbytes(25_003))
    sock.close()
    line = b.line
    print(f"{b.name}: to the engine {line.to_engine.summary()}; from it {line.from_engine.summary()}")
    counters = b.counters()
    if b.line.from_engine.impairment.loss:
        assert counters["TX_RETRANSMITS"], "nothing was lost"


@engine_test(impairment=Impairment(loss=0.06, seed=11), stall=0.1)
def test_loss_both_ways(b: Bench) -> None:
    """Six of a hundred frames are lost in each direction."""
    lossy(b)


@engine_test(impairment=Impairment(reorder=0.15, reorder_us=3000, duplicate=0.05, seed=12), stall=0.1)
def test_reorder_and_duplication(b: Bench) -> None:
    """Frames overtake each other and come twice."""
    lossy(b)
    assert b.counters()["RX_OUT_OF_ORDER"]


@engine_test(
    impairment=Impairment(loss=0.03, reorder=0.05, reorder_us=2500, duplicate=0.03, corrupt=0.05, seed=13), stall=0.1
)
def test_every_impairment(b: Bench) -> None:
    """Loss, reordering, duplication and bit errors: the data arrives whole all the same."""
    lossy(b)
    counters = b.counters()
    assert counters["RX_BAD_TCP"] + counters["RX_BAD_IP"] + counters["RX_BAD_FRAME"] > 0


@engine_test(stall=0.4)
def test_byte_by_byte(b: Bench) -> None:
    """A doorbell a byte, in both directions: storms of the smallest segments and of window credits."""
    peer, sock = reference_active(b, Host(b))
    data = b.rng.randbytes(700)
    peer.send(data)
    got = bytearray()
    for n in range(700):
        assert sock.send(data[n : n + 1]) == 1
        if sock.readable():
            got += sock.recv(1)
        if n % 20 == 0:
            b.run(100)
    got += receive(b, sock, 700 - len(got))
    b.until(lambda: len(peer.received) == 700, "all bytes at the peer")
    assert peer.received == data and got == data
    peer.close()
    b.until(sock.readable, "end of stream")
    sock.close()
    b.until(lambda: peer.over, "the end")


# --- the bus and the line at a standstill


@engine_test(stall=0)
def test_memory_stands_still(b: Bench) -> None:
    """Memory stops answering for long, in the midst of transfers, one channel after another: nothing is lost."""
    peer, sock = reference_active(b, Host(b))
    names = ("ar", "r", "aw", "w", "b")

    def stand_still() -> None:
        turn = b.cycle // 4000
        for n, channel in enumerate(b.memory.channels):
            channel.pause = turn % 2 == 1 and turn // 2 % len(names) == n

    b.tasks.append(stand_still)
    carry(b, sock, peer, b.rng.randbytes(40_001), b.rng.randbytes(40_003))
    b.tasks.remove(stand_still)
    for channel in b.memory.channels:
        channel.pause = False
    sock.close()


@engine_test(stall=0)
def test_line_stands_still(b: Bench) -> None:
    """Nothing can be sent for long while frames of every kind arrive: they are dealt with, or wait; nothing is lost but
    resets that find no room, and those are counted."""
    host = Host(b)
    listener = listen(b)
    peer, sock = active(b, host)
    nobody = host.connection(4444, 81)
    data = b.rng.randbytes(3900)
    b.line.sink.pause = True
    for n in range(0, 3900, 100):
        peer.send("A", data[n : n + 100])
        nobody.send("S", seq=n)
        if n % 500 == 0:
            b.line.give(host.connection(40000 + n, PASSIVE[0]).frame("S"))
    sock.send(b"waits")
    b.run(20_000)
    counters = b.counters()
    assert counters["RX_UNKNOWN_SEGMENT"] == 39
    resets = 39 - counters["RST_SUPPRESSED"]
    assert 0 < resets < 39, "the queue before the line holds some of them, not all"
    b.line.sink.pause = False
    assert receive(b, sock, 3900) == data
    assert peer.wait_for(5) == b"waits"
    b.until(lambda: len(nobody.inbox) == resets, "every reset that was not left out")
    nobody.send("S", seq=3900)
    b.until(lambda: len(nobody.inbox) == resets + 1, "a reset, now that there is room")
    counters = b.counters()
    assert counters["TX_RST"] == resets + 1 and counters["RST_SUPPRESSED"] == 39 - resets
    peer.send("A")
    peer.inbox.clear()
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    for n in range(0, 3900, 500):
        half_open = host.endpoints[40000 + n, PASSIVE[0]]
        if half_open.inbox:
            half_open.seq = 1
            half_open.send("R")
    b.until(lambda: not b.half_open, "the half-open ones to go")
    listener.close()


@engine_test()
def test_ping(b: Bench) -> None:
    """ICMP echo and ARP, through the host's frame rings."""
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.l2 import ARP, Ether

    host = Host(b)
    replies = []
    b.line.hosts.append(lambda frame: replies.append(Ether(frame)))
    b.line.give(
        bytes(Ether(src=host.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=host.mac, psrc=host.ip, pdst="10.0.0.2"))
    )
    b.until(lambda: any(ARP in p and p[ARP].op == 2 for p in replies), "ARP reply")
    for size in (0, 1, 56, 1472):
        request = Ether(src=host.mac, dst="02:00:00:00:00:02") / IP(src=host.ip, dst="10.0.0.2") / ICMP(id=7, seq=size)
        payload = b.rng.randbytes(size)
        host.frames.clear()
        b.line.give(bytes(request / payload).ljust(60, b"\0"))
        b.until(lambda: host.frames, "echo reply")
        reply = Ether(host.frames[-1])
        assert reply[ICMP].type == 0 and reply[ICMP].seq == size and bytes(reply[ICMP].payload)[:size] == payload
