"""Windows that are closed, small or taken back, on the whole engine: between two of them, and against a strict peer."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, field

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.on_engine.bench import A_MAC, RINGS, SERVER, answer_arp, connect, pair
from tiptoe_driver import Socket
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment, Peer, Simulation, Wire

M32 = 0xFFFF_FFFF


def fill(sock: Socket) -> int:
    """Send until nothing more goes; returns the bytes taken."""
    taken = 0
    try:
        while True:
            taken += sock.send(bytes(1000))
    except BlockingIOError:
        return taken


def both_closed(two: Pair, client: Socket, server: Socket) -> tuple[int, int]:
    """Both ends write and neither reads, until both windows are closed; returns what each has written."""
    written = [0, 0]

    for _ in range(300):
        for k, sock in enumerate((client, server)):
            written[k] += fill(sock)
        two.run_us(1000)
    return written[0], written[1]


@pytest.mark.parametrize("impairment", [None, Impairment(delay_us=5_000, loss=0.1, seed=5)])
def test_both_windows_closed_no_storm_and_both_go_on(impairment: Impairment | None) -> None:
    with pair(impairment=impairment) as two:
        client, server, _ = connect(two)
        written = both_closed(two, client, server)
        two.run_us(500_000)
        before = [sim.counters()["tx_frames"] for sim in (two.a, two.b)]
        two.run_us(1_500_000)
        frames = [sim.counters()["tx_frames"] - count for sim, count in zip((two.a, two.b), before, strict=True)]
        # Probes after 0.2, 0.4, 0.8 seconds and so on, each with its answer.
        assert max(frames) <= 10, frames
        got = [0, 0]

        def read() -> bool:
            for k, sock in enumerate((server, client)):
                try:
                    got[k] += len(sock.recv(65536))
                except BlockingIOError:
                    pass
            return got == list(written)

        two.run_until(read, 30_000_000, f"what was written, {written}")
        two.check()


@dataclass
class Strict:
    """The peer's TCP, as strict as RFC 9293 allows: what is not acceptable is dropped and answered, all of it."""

    window: int = 8192
    rcv_nxt: int = 0
    snd_una: int = 5000
    snd_nxt: int = 5000
    their_port: int = 0
    dropped: list[int] = field(default_factory=list)
    taken: int = 0

    def segment(self, flags: str, payload: bytes = b"", seq: int | None = None) -> bytes:
        options = [("MSS", 1460)] if "S" in flags else []
        return bytes(
            Ether(src="02:00:00:00:00:02", dst=A_MAC)
            / IP(src=SERVER, dst="10.0.0.1")
            / TCP(
                sport=80,
                dport=self.their_port,
                flags=flags,
                seq=self.snd_nxt if seq is None else seq,
                ack=self.rcv_nxt,
                window=self.window,
                options=options,
            )
            / payload
        )

    def on_frame(self, frame: bytes, time_us: float) -> list[bytes]:
        if arp := answer_arp(frame, time_us):
            return arp
        packet = Ether(frame)
        if TCP not in packet:
            return []
        tcp = packet[TCP]
        size = packet[IP].len - 20 - tcp.dataofs * 4
        if tcp.flags.S:
            self.their_port, self.rcv_nxt = tcp.sport, (tcp.seq + 1) & M32
            answer = self.segment("SA")
            self.snd_una = self.snd_nxt = self.snd_nxt + 1
            return [answer]
        begins = (tcp.seq - self.rcv_nxt) & M32
        inside = begins < self.window if size else begins == 0 or begins < self.window
        if not inside:
            self.dropped.append(size)
            return [self.segment("A")]
        self.snd_una = max(self.snd_una, tcp.ack)
        if begins == 0 and size:
            taken = min(size, self.window)
            self.taken += taken
            self.rcv_nxt = (self.rcv_nxt + taken) & M32
            return [self.segment("A")]
        return []


@pytest.fixture
def strict():
    """An engine with a connection to a strict peer."""
    peer = Strict()
    with Simulation("tiny", memory_bytes=1 << 22, ip="10.0.0.1", mac=A_MAC, driver=RINGS) as sim:
        Wire(sim, wire := Peer(peer.on_frame))
        sim.run_us(1000)
        sock = sim.socket()
        assert sock.connect_ex((SERVER, 80)) == errno.EINPROGRESS
        sim.run_until(sock.writable, 1_000_000, "established")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        yield sim, peer, wire, sock
        sim.check()


def test_peer_that_sends_and_does_not_read_is_acknowledged(strict) -> None:
    """Its window is closed and ours has data and probes: what it sends is acknowledged where it has to listen."""
    sim, peer, wire, sock = strict
    peer.window = 0
    wire.send(peer.segment("A"))
    sim.run_us(1000)
    sock.send(bytes(3000))
    sim.run_us(1_500_000)
    assert peer.dropped and set(peer.dropped) == {1}, "probes"
    start, got = sim.now_us(), 0
    while got < 100_000:
        if peer.snd_una == peer.snd_nxt:
            for _ in range(2):
                wire.send(peer.segment("A", bytes(1000)))
                peer.snd_nxt += 1000
        assert sim.now_us() - start < 5_000_000, f"{got} bytes in five seconds"
        sim.run_us(500)
        try:
            got += len(sock.recv(65536))
        except BlockingIOError:
            pass
    assert set(peer.dropped) == {1}, "no acknowledgement was dropped"
    assert peer.taken == 0
    peer.window = 4000
    wire.send(peer.segment("A"))
    sim.run_until(lambda: peer.taken == 3000, 1_000_000, "what waited")


@pytest.mark.parametrize("before, after", [(8192, 1000), (600, 100)])
@pytest.mark.parametrize("chatty", [False, True])
def test_peer_s_window_smaller_for_good_is_used(strict, before: int, after: int, chatty: bool) -> None:
    sim, peer, wire, sock = strict
    peer.window = before
    wire.send(peer.segment("A"))
    sim.run_us(1000)
    sock.send(bytes(600))
    sim.run_until(lambda: peer.taken == 600, 1_000_000, "the first bytes")
    peer.window = after
    wire.send(peer.segment("A"))
    sim.run_us(1000)
    start = sim.now_us()
    while peer.taken < 600 + 20 * after:
        fill(sock)
        if chatty:
            wire.send(peer.segment("A", bytes(10)))
            peer.snd_nxt += 10
        assert sim.now_us() - start < 10_000_000, f"{peer.taken} bytes in ten seconds"
        sim.run_us(100_000)
    assert not peer.dropped
