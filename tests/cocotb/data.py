"""Data through the whole engine: both ways at once, lost, late, out of order, against closed windows (run by test_engine.py).

Rings are small, so that they wrap many times; sizes and positions are odd.
"""

import hashlib
import socket
from itertools import pairwise

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.reference import ReferenceTcp
from tiptoe_verif.testbench.steps import accepted, active, close_by_peer, connecting, exchange, listen, receive
from tiptoe_verif.testbench.testbench import ACTIVE, PASSIVE, TICK_CYCLES, Bench, engine_test
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


# --- retransmission, scripted


@engine_test()
def test_established_retransmission(b: Bench) -> None:
    """Data that is not acknowledged comes again, at doubled times, then the connection fails."""
    peer, sock = active(b, Host(b))
    sock.send(b"x" * 100)
    times = []
    for _ in range(4):
        peer.expect("A", seq=1, length=100)
        times.append(b.cycle)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] >= 15 * TICK_CYCLES and all(1.6 < later / earlier < 2.5 for earlier, later in pairwise(gaps)), gaps
    peer.send("A")
    b.run(500)
    assert b.toe.engine.ids.available < 16
    close_by_peer(b, peer, sock)


@engine_test(registers={abi.REG_RETRIES: 3 << 8 | 2}, stall=0.05)
def test_established_timeout(b: Bench) -> None:
    """The peer has gone: ETIMEDOUT after the last retransmission."""
    peer, sock = active(b, Host(b))
    sock.send(b"anybody?")
    b.until(sock.readable, "the time-out")
    try:
        sock.recv(1)
    except TimeoutError:
        pass
    else:
        raise AssertionError("no ETIMEDOUT")
    assert len(peer.inbox) == 3
    sock.close()


@engine_test(snd_ring_bytes=16384)
def test_established_three_duplicate_acks(b: Bench) -> None:
    """Fast retransmission of the one segment that was lost, long before the time-out."""
    peer, sock = active(b, Host(b), wnd=16384)
    data = b.rng.randbytes(5 * 1460)
    sock.send(data)
    first = [peer.expect("A", length=1460) for _ in range(3)]
    assert [peer.relative(s) for s in first] == [1, 1461, 2921]
    begun = b.cycle
    for _ in range(3):
        peer.send("A", ack=1)
    segment = peer.expect("A", length=1460)
    while peer.relative(segment) != 1:
        segment = peer.expect("A", length=1460)
    assert b.cycle - begun < 10 * TICK_CYCLES and b.counters()["FAST_RETRANSMITS"] == 1
    assert peer.wait_for(len(data)) == data
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_out_of_order(b: Bench) -> None:
    """Two gaps at once, filled in the wrong order; each segment out of order draws an immediate ACK."""
    peer, sock = active(b, Host(b))
    data = b.rng.randbytes(3000)
    pieces = ((500, 1001, 1), (1501, 2003, 1), (1001, 1501, 1), (2500, 3000, 1), (0, 500, 2004), (2003, 2500, 3001))
    for begin, end, ack in pieces:
        peer.send("A", data[begin:end], seq=1 + begin)
        peer.expect("A", ack=ack)
    assert receive(b, sock, 3000) == data
    assert b.counters()["RX_OUT_OF_ORDER"] == 4
    peer.seq = 3001
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_third_gap(b: Bench) -> None:
    """A third gap has no place: counted, and the data is sent again later."""
    peer, sock = active(b, Host(b))
    data = b.rng.randbytes(800)
    for begin in (100, 300, 500):
        peer.send("A", data[begin : begin + 100], seq=1 + begin)
        peer.expect("A", ack=1)
    assert b.counters()["RX_OOO_DISCARDED"] == 1
    for begin, ack in ((0, 201), (200, 401), (400, 501), (500, 601), (600, 701), (700, 801)):
        peer.send("A", data[begin : begin + 100], seq=1 + begin)
        peer.expect_ack(ack)
    assert receive(b, sock, 800) == data
    peer.seq = 801
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_overlaps(b: Bench) -> None:
    """Segments that overlap what is there, on the left, on the right and on both sides; a FIN before its data."""
    peer, sock = active(b, Host(b))
    data = b.rng.randbytes(1000)
    peer.send("FA", data[900:], seq=901)
    for begin, end in ((300, 500), (200, 350), (450, 600), (250, 650), (0, 210), (100, 400), (0, 700), (600, 1000)):
        peer.send("A", data[begin:end], seq=1 + begin)
    peer.expect_ack(1002)
    assert receive(b, sock, 1000) == data
    b.until(sock.readable, "end of stream")
    assert sock.recv(1) == b""
    peer.seq = 1002
    peer.inbox.clear()
    sock.close()
    peer.expect("FA", skip_acks=True)
    peer.send("A")


# --- windows


@engine_test()
def test_established_zero_window(b: Bench) -> None:
    """The peer's window closes: one byte probes it, at growing times, for longer than R2; then sending goes on."""
    peer, sock = active(b, Host(b), wnd=500)
    data = b.rng.randbytes(3001)
    sock.send(data)
    peer.expect("A", seq=1, length=500)
    peer.send("A", wnd=0)
    times = []
    for _ in range(5):
        probe = peer.expect("A", seq=501)
        assert len(probe.payload) == 1
        times.append(b.cycle)
        peer.send("A", ack=501, wnd=0)
    assert times[4] - times[3] > times[1] - times[0]
    peer.ack = 501
    del peer.received[500:]
    peer.wnd = 4000
    peer.send("A", ack=501)
    assert peer.wait_for(len(data)) == data
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_host_does_not_read(b: Bench) -> None:
    """The receive ring fills: the window closes, what lies beyond is not taken, a probe is answered; reading opens it."""
    peer, sock = active(b, Host(b))
    data = b.rng.randbytes(6001)
    for begin in range(0, 4096, 1024):
        peer.send("A", data[begin : begin + 1024])
    peer.expect_ack(4097)
    b.run(2000)
    peer.inbox.clear()
    for _ in range(3):
        peer.send("A", data[4096:4097], seq=4097)
        peer.expect("A", ack=4097, wnd=0)
    assert sock.recv(100) == data[:100]
    b.run(3000)
    assert all(s.wnd == 0 for s in peer.inbox), "a silly window"
    peer.inbox.clear()
    assert receive(b, sock, 3996) == data[100:4096]
    update = peer.expect("A", ack=4097)
    assert update.wnd >= 2048
    b.until(lambda: (peer.inbox[-1].wnd if peer.inbox else update.wnd) >= 2048, "room")
    peer.send("A", data[4096:5500])
    assert receive(b, sock, 1404) == data[4096:5500]
    peer.send("A", data[5500:])
    assert receive(b, sock, 501) == data[5500:]
    peer.inbox.clear()
    close_by_peer(b, peer, sock)


@engine_test(snd_ring_bytes=16384)
def test_established_shrinking_window(b: Bench) -> None:
    """The peer takes back window it has offered: nothing beyond is sent anew, what is under way may come again."""
    peer, sock = active(b, Host(b), wnd=6000)
    data = b.rng.randbytes(9001)
    sock.send(data)
    for at in (1, 1461, 2921, 4381):
        peer.expect("A", seq=at)
    peer.inbox.clear()
    peer.send("A", ack=1461, wnd=1000)  # the edge falls from 6001 to 2461
    b.run(60 * TICK_CYCLES)
    assert all(peer.relative(s) + len(s.payload) <= 6001 for s in peer.inbox), "new data beyond the window"
    assert b.counters()["TX_RETRANSMITS"], "nothing came again"
    peer.wnd = 8000
    peer.send("A")
    assert peer.wait_for(len(data)) == data
    close_by_peer(b, peer, sock)


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


@engine_test()
def test_established_neighbour_moves(b: Bench) -> None:
    """The peer's MAC address changes: its connections follow."""
    host = Host(b)
    peer, sock = active(b, host)
    exchange(b, peer, sock)
    host.mac = "02:00:00:00:00:aa"
    host.announce()
    b.run(2000)
    peer.inbox.clear()
    exchange(b, peer, sock, b"to the new address", b"from it")
    close_by_peer(b, peer, sock)


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
    """Nothing can be sent for long while frames of every kind arrive: they are dealt with, or wait; nothing is lost."""
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
    b.line.sink.pause = False
    assert receive(b, sock, 3900) == data
    assert peer.wait_for(5) == b"waits"
    b.until(lambda: len(nobody.inbox) == 39, "every reset")
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
def test_established_small_mss(b: Bench) -> None:
    """The peer's MSS option counts; without one, 536 bytes."""
    host = Host(b)
    for mss, expected in ((400, 400), (0, 536)):
        port = 7000 + mss
        peer, sock = connecting(b, host, port=port, local=50000 + mss, mss=mss)
        peer.expect("S")
        peer.send("SA")
        peer.expect("A", seq=1)
        b.until(sock.writable, "the connection")
        sock.send(bytes(1200))
        assert len(peer.expect("A", seq=1).payload) == expected
        peer.wait_for(1200)
        close_by_peer(b, peer, sock)


@engine_test()
def test_established_delayed_ack(b: Bench) -> None:
    """One segment is acknowledged after the delay, two at once."""
    peer, sock = active(b, Host(b))
    peer.send("A", bytes(100))
    sent = b.cycle
    peer.expect("A", ack=101)
    assert b.cycle - sent > TICK_CYCLES
    sent = b.cycle
    peer.send("A", bytes(100))
    peer.send("A", bytes(100))
    peer.expect("A", ack=301)
    assert b.cycle - sent < 2 * TICK_CYCLES
    receive(b, sock, 300)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)


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
