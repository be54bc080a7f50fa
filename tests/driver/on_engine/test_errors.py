"""The contract's errors on the simulated engine: each comes from the wire."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.on_engine.bench import A_MAC, RINGS, SERVER, Flow, answer_arp, connect, nothing_left, tp_of
from tiptoe_driver import OffloadPolicy, PolicyRule, Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Peer, Simulation, Wire

PEER_MAC = "02:00:00:00:00:02"
OUR_IP = "10.0.0.1"
FAST = {reg.REG_MSL_TICKS: 3, reg.REG_RTO_INITIAL: 20, reg.REG_RTO_MIN: 20}
IMPATIENT = FAST | {reg.REG_RETRIES: 2 << 8 | 2}
"""Two retransmissions."""


def unreachable(code: int, quoted: bytes, mtu: int = 0) -> bytes:
    """What a router answers to the frame ``quoted``."""
    extra = {"nexthopmtu": mtu} if code == 4 else {}
    return bytes(
        Ether(src=PEER_MAC, dst=A_MAC)
        / IP(src="10.0.0.254", dst=OUR_IP)
        / ICMP(type=3, code=code, **extra)
        / quoted[14:42]
    )


class Server:
    """A scripted peer: answers ARP and SYNs, keeps what came, acknowledges data when told to."""

    def __init__(self) -> None:
        self.answers_syn = True
        self.acknowledges = False
        self.segments: list[tuple[bytes, TCP]] = []
        self.peer = Peer(self.on_frame)

    def on_frame(self, frame: bytes, time_us: float) -> list[bytes]:
        packet = Ether(frame)
        if TCP not in packet:
            return answer_arp(frame, time_us)
        tcp = packet[TCP]
        self.segments.append((frame, tcp))
        if "S" in tcp.flags:
            return (
                [self.segment(tcp, flags="SA", seq=0, ack=tcp.seq + 1, options=[("MSS", 1460)])]
                if self.answers_syn
                else []
            )
        size = len(self.payload(frame))
        return [self.segment(tcp, ack=tcp.seq + size)] if size and self.acknowledges else []

    @staticmethod
    def segment(tcp: TCP, **fields: object) -> bytes:
        """A segment to the sender of ``tcp``."""
        fields = {"flags": "A", "seq": 1, "window": 8000, **fields}
        return bytes(
            Ether(src=PEER_MAC, dst=A_MAC)
            / IP(src=SERVER, dst=OUR_IP)
            / TCP(sport=tcp.dport, dport=tcp.sport, **fields)
        )

    @staticmethod
    def payload(frame: bytes) -> bytes:
        """The data of a segment."""
        packet = Ether(frame)
        return frame[14 + 20 + 4 * packet[TCP].dataofs : 14 + packet[IP].len]

    def data(self) -> list[tuple[int, int]]:
        """Sequence numbers and lengths of the data segments that came."""
        return [(tcp.seq, size) for frame, tcp in self.segments if (size := len(self.payload(frame)))]


@pytest.fixture
def world(out_dir) -> Iterator[Callable[..., tuple[Simulation, Server]]]:
    """One engine as 10.0.0.1, with a scripted server on its line."""
    made = []

    def make(registers: dict[int, int] = FAST) -> tuple[Simulation, Server]:
        sim = Simulation(
            "tiny",
            ip=OUR_IP,
            mac=A_MAC,
            memory_bytes=1 << 22,
            pcap=out_dir / "wire.pcap",
            driver=RINGS | {"registers": registers},
        )
        made.append(sim)
        server = Server()
        Wire(sim, server.peer)
        sim.run_us(1000)
        return sim, server

    yield make
    for sim in made:
        sim.check()
        sim.close()


def opening(sim: Simulation, server: Server) -> Socket:
    sock = sim.socket()
    assert sock.connect_ex((SERVER, 80)) == errno.EINPROGRESS
    sim.run_until(lambda: server.segments, 200_000, "the SYN")
    return sock


def established(sim: Simulation, server: Server) -> Socket:
    sock = opening(sim, server)
    sim.run_until(sock.writable, 200_000, "established")
    return sock


def error_of(sock: Socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


# ---------------------------------------------------------------------- so_error


@pytest.mark.parametrize("code", [2, 3, 13])
def test_econnrefused_by_icmp(world, code: int) -> None:
    sim, server = world()
    server.answers_syn = False
    sock = opening(sim, server)
    server.peer.send(unreachable(code, server.segments[0][0]))
    sim.run_until(sock.writable, 100_000, "the refusal")
    assert error_of(sock) == errno.ECONNREFUSED
    sim.run_until(lambda: sim.toe.engine.free_ids == 16, 100_000, "the id")  # before the user closes
    count = len(server.segments)
    sim.run_us(100_000)
    assert len(server.segments) == count  # no more SYNs
    sock.close()
    sim.run_until(lambda: nothing_left(sim.toe), 100_000, "all freed")


@pytest.mark.parametrize(
    ("code", "error", "connected"),
    [
        (None, errno.ETIMEDOUT, False),
        (None, errno.ETIMEDOUT, True),
        (0, errno.EHOSTUNREACH, False),
        (1, errno.EHOSTUNREACH, True),
        pytest.param(0, errno.EHOSTUNREACH, True, marks=pytest.mark.soak),
        pytest.param(1, errno.EHOSTUNREACH, False, marks=pytest.mark.soak),
    ],
)
def test_etimedout_or_what_icmp_told(world, code: int | None, error: int, connected: bool) -> None:
    """The retransmission limit, of the SYN and of data."""
    sim, server = world(IMPATIENT)
    server.answers_syn = connected
    sock = established(sim, server) if connected else opening(sim, server)
    if connected:
        sock.send(b"anybody?")
        sim.run_until(server.data, 100_000, "the data")
    if code is not None:
        server.peer.send(unreachable(code, server.segments[-1][0]))
    assert sock.so is not None
    sim.run_until(lambda: sock.so.so_error, 2_000_000, "the time-out")
    assert error_of(sock) == error
    sock.close()
    sim.run_until(lambda: nothing_left(sim.toe), 100_000, "all freed")


@pytest.mark.parametrize(("closed_first", "error"), [(False, errno.ECONNRESET), (True, errno.EPIPE)])
def test_econnreset_and_epipe(world, closed_first: bool, error: int) -> None:
    sim, server = world()
    sock = established(sim, server)
    syn = server.segments[0][1]
    if closed_first:
        server.peer.send(server.segment(syn, flags="FA", ack=syn.seq + 1))
        sim.run_until(lambda: tp_of(sock).t_state == State.CLOSE_WAIT, 100_000, "the FIN")
    server.peer.send(server.segment(syn, flags="R", seq=1 + closed_first))
    assert sock.so is not None
    sim.run_until(lambda: sock.so.so_error, 100_000, "the reset")
    assert error_of(sock) == error


# ---------------------------------------------------------------------- path MTU


def test_emsgsize_retransmission_leaves_in_smaller_segments(world) -> None:
    sim, server = world({reg.REG_RTO_INITIAL: 1000, reg.REG_RTO_MIN: 1000})  # no time-out meanwhile
    sock = established(sim, server)
    sock.send(bytes(2920))
    sim.run_until(lambda: len(server.data()) == 2, 200_000, "two segments")
    first = server.segments[0][1].seq + 1
    assert server.data() == [(first, 1460), (first + 1460, 1460)]
    server.peer.send(unreachable(4, next(f for f, _ in server.segments if server.payload(f)), 576))
    sim.run_until(lambda: len(server.data()) == 8, 200_000, "the same data once more")
    assert server.data()[2:] == [(first + 536 * n, 536) for n in range(5)] + [(first + 2680, 240)]
    assert tp_of(sock).t_maxseg == 536
    server.acknowledges = True
    server.peer.send(server.segment(server.segments[0][1], ack=first + 2920))
    sim.run_until(lambda: sock.so.so_snd.sb_cc == 0, 200_000, "acknowledged")
    sock.send(bytes(1000))
    sim.run_until(lambda: len(server.data()) == 10, 200_000, "new data")
    assert [size for _, size in server.data()[8:]] == [536, 464]


@pytest.mark.parametrize(("code", "mtu"), [(1, 0), (3, 0), (4, 576)])
def test_blind_icmp_does_nothing(world, code: int, mtu: int) -> None:
    """The four-tuple guessed, the sequence number not (RFC 5927)."""
    sim, server = world()
    sock = established(sim, server)
    sock.send(bytes(2000))
    sim.run_until(lambda: len(server.data()) == 2, 200_000, "the data")
    tp = tp_of(sock)
    for step in (-1, 2000, 1 << 31):
        seq = (tp.snd_una + step) & 0xFFFF_FFFF
        quoted = bytes(Ether() / IP(src=OUR_IP, dst=SERVER) / TCP(sport=tp.t_inpcb.inp_lport, dport=80, seq=seq))
        server.peer.send(unreachable(code, quoted, mtu))
    sim.run_until(lambda: sim.toe.counters["icmp_bad_sequence"] == 3, 100_000, "three forgeries")
    assert (tp.t_maxseg, tp.t_softerror, tp.t_state) == (1460, 0, State.ESTABLISHED)
    server.acknowledges = True
    sim.run_until(lambda: sock.so.so_snd.sb_cc == 0, 2_000_000, "the connection goes on")


class Router:
    """Between two engines: answers what is longer than ``mtu`` with "fragmentation needed" and drops it; while ``cut``,
    drops everything."""

    def __init__(self, a: Simulation, b: Simulation, mtu: int = 1500) -> None:
        self.mtu = mtu
        self.cut = False
        self.complaints = 0
        self.a, self.b = Peer(self.from_a), Peer(self.from_b)
        self.a.world.join(self.b.world)
        Wire(a, self.a)
        Wire(self.b, b)

    def from_a(self, frame: bytes, time_us: float) -> list[bytes]:
        if self.cut:
            return []
        if frame[12:14] == b"\x08\x00" and int.from_bytes(frame[16:18]) > self.mtu:
            self.complaints += 1
            return [unreachable(4, frame, self.mtu)]
        self.b.send(frame)
        return []

    def from_b(self, frame: bytes, time_us: float) -> list[bytes]:
        if not self.cut:
            self.a.send(frame)
        return []


class Routed(Pair):
    """Two engines, not on one line but with a router between them."""

    def __init__(self, pcap: Path) -> None:
        options = {"driver": RINGS | {"registers": FAST}, "memory_bytes": 1 << 22}
        self.a = Simulation("tiny", ip=OUR_IP, mac=A_MAC, seed=2, pcap=pcap, **options)
        self.b = Simulation("tiny", ip=SERVER, mac=PEER_MAC, seed=3, **options)
        self.router = Router(self.a, self.b)


@pytest.fixture
def routed(out_dir) -> Iterator[Routed]:
    with Routed(out_dir / "wire.pcap") as made:
        yield made
        made.check()


@pytest.mark.parametrize("mtu", [1400, 576, 300])
def test_emsgsize_path_mtu_discovery_through_a_router(routed, rng: random.Random, mtu: int) -> None:
    router = routed.router
    client, server, _ = connect(routed)
    router.mtu = mtu
    flow = Flow(client, server, rng.randbytes(30_000), rng)

    def done() -> bool:
        if not flow.ended:
            flow.turn()
        return flow.ended

    routed.run_until(done, 30_000_000, "the transfer")
    assert flow.got == flow.data and router.complaints
    assert tp_of(client).t_maxseg == mtu - 40


# ---------------------------------------------------------------------- link and policy


def test_enetdown_connection_survives_an_outage(routed, rng: random.Random) -> None:
    router = routed.router
    client, server, _ = connect(routed)
    client.send(b"before")
    routed.run_until(server.readable, 200_000, "data")
    assert server.recv(100) == b"before"
    router.cut = True
    client.send(b"lost at first, ")
    routed.run_us(30_000)
    routed.a.toe.if_link_state_change(False)
    assert routed.a.socket().connect_ex((SERVER, 80)) == errno.ENETDOWN
    data = b"then sent behind it"
    assert client.send(data) == len(data)
    client.shutdown(socket.SHUT_WR)
    routed.run_us(100_000)
    assert not server.readable() and not client.so.so_error
    router.cut = False
    routed.a.toe.if_link_state_change(True)
    routed.run_until(lambda: tp_of(server).t_state == State.CLOSE_WAIT, 3_000_000, "data and FIN")
    assert server.recv(100) == b"lost at first, then sent behind it"


def test_eperm_by_policy_until_it_is_lifted(world) -> None:
    sim, server = world()
    sim.toe.policy = OffloadPolicy([PolicyRule(offload=False, fport=80)])
    sock = sim.socket()
    assert sock.connect_ex((SERVER, 80)) == errno.EPERM
    sim.run_us(100_000)
    assert not server.peer.received
    sim.toe.policy = OffloadPolicy()
    assert sock.connect_ex((SERVER, 80)) == errno.EINPROGRESS
    sim.run_until(sock.writable, 200_000, "established")
    assert not error_of(sock)


def test_ehostdown_until_the_neighbour_is_heard_of(world) -> None:
    sim, server = world()
    answers, server.peer._on_frame = server.peer._on_frame, None
    sock = sim.socket()
    sock.connect_ex((SERVER, 80))
    sim.run_until(sock.writable, 200_000, "the error")
    assert error_of(sock) == errno.EHOSTDOWN
    sock.close()
    again = sim.socket()
    assert again.connect_ex((SERVER, 80)) == errno.EHOSTDOWN
    server.peer._on_frame = answers
    for frame in answer_arp(server.peer.received[0][1], 0):
        server.peer.send(frame)
    sim.run_us(2000)
    assert again.connect_ex((SERVER, 80)) == errno.EINPROGRESS
    sim.run_until(again.writable, 200_000, "established")
    assert not error_of(again)
