"""One engine and peers of IPv6 that a test plays: floods, strangers, small MSS, paths that carry less, two peers of one fold."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.configs import EVERYTHING
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.alias import LADDR_V6, alias
from tiptoe_driver.netinet.structures import sototcpcb
from tiptoe_verif.native.simulation import Simulation
from tiptoe_verif.wire.segment import ACK, FIN, PSH, RST, SYN, Segment, pack_tcp, parse_tcp

OURS, PEER, STRANGER = "2001:db8::2", "2001:db8::1", "2001:db8:0:1::1"
MACS = "02:00:00:00:00:02", "02:00:00:00:00:09"
ETHERNET = bytes.fromhex("020000000002 020000000009 86dd")
M, IRS = 0xFFFF_FFFF, 0xFFFF_FFF0


def number(address: str) -> int:
    return int(IPv6Address(address))


def engine(**options: Any) -> Simulation:
    rings = {"snd_ring_bytes": 4096, "rcv_ring_bytes": 4096, "registers": {reg.REG_MSL_TICKS: 3}}
    return Simulation(EVERYTHING, memory_bytes=1 << 22, driver=rings | {"ipv6": f"{OURS}/64"} | options)


class Peer:
    """Sends segments from an address, and finds what came for it."""

    def __init__(self, sim: Simulation, address: int | str = PEER, port: int = 5000, *, to: int = 80) -> None:
        self.sim, self.port, self.to = sim, port, to
        self.address = address if isinstance(address, int) else number(address)
        self.nxt, self.ack = IRS, 0

    def send(
        self, flags: int, data: bytes = b"", *, seq: int | None = None, ack: int | None = None, mss: int = 0
    ) -> None:
        segment = Segment(
            self.address, number(OURS), self.port, self.to, self.nxt if seq is None else seq & M,
            (self.ack if ack is None else ack & M) if flags & ACK else 0, flags, 60000, mss, None, data,
        )  # fmt: skip
        self.sim.inject(ETHERNET + pack_tcp(segment))

    def received(self, microseconds: int = 3000) -> list[Segment]:
        """What the engine sends to this address within so long."""
        self.sim.run_us(microseconds)
        segments = [parse_tcp(frame) for frame in self.sim.captured()]
        return [segment for segment in segments if segment is not None and segment.dst == self.address]

    def opens(self, mss: int = 0) -> Segment:
        """The handshake; the engine's SYN,ACK."""
        self.send(SYN, mss=mss)
        [answer] = self.received()
        assert answer.flags == SYN | ACK and answer.ack == self.nxt + 1 & M
        self.nxt, self.ack = self.nxt + 1 & M, answer.seq + 1 & M
        self.send(ACK)
        self.received()
        return answer


@pytest.fixture
def sim() -> Iterator[Simulation]:
    with engine() as made:
        yield made
        made.check()


def listening(sim: Simulation, port: int = 80) -> Socket:
    made = Socket(sim.stack, family=socket.AF_INET6)
    made.setblocking(False)
    made.bind(("", port))
    made.listen()
    sim.run_us(3000)
    return made


def accepted(listener: Socket) -> Socket:
    made, _ = listener.accept()
    made.setblocking(False)
    return made


@pytest.mark.parametrize(("mss", "most"), [(0, 1220), (1440, 1440), (1460, 1440), (536, 536)])
def test_segments_are_as_long_as_the_peer_takes(sim: Simulation, mss: int, most: int) -> None:
    """RFC 9293 section 3.7.1: 1220 without the option."""
    listener, peer = listening(sim), Peer(sim)
    answer = peer.opens(mss)
    assert answer.mss == 1440
    server = accepted(listener)
    server.send(bytes(4000))
    got = peer.received()
    assert max(len(segment.payload) for segment in got) == most
    assert sum(len(segment.payload) for segment in got) <= 4000


def test_a_path_that_carries_less(sim: Simulation) -> None:
    """Packet too big, as a router quotes it: what was not acknowledged goes again in smaller segments."""
    listener, peer = listening(sim), Peer(sim)
    peer.opens(1440)
    server = accepted(listener)
    server.send(bytes(3000))
    [first, *_] = peer.received()
    assert len(first.payload) == 1440
    quoted = pack_tcp(first)[:100]
    message = (
        Ether(src=MACS[1], dst=MACS[0]) / IPv6(src=STRANGER, dst=OURS) / ICMPv6PacketTooBig(mtu=1300) / Raw(quoted)
    )
    sim.inject(bytes(message))
    got = peer.received(10_000)
    assert got[0].seq == first.seq and max(len(segment.payload) for segment in got) == 1240


def test_segments_of_nobody_are_reset(sim: Simulation) -> None:
    """RFC 9293 section 3.10.7.1, to the address they came from."""
    peer = Peer(sim, STRANGER, to=81)
    peer.send(ACK | PSH, b"x", seq=5, ack=M)
    [reset] = peer.received()
    assert (reset.flags, reset.seq, reset.src) == (RST, M, number(OURS))
    peer.send(SYN)
    [reset] = peer.received()
    assert (reset.flags, reset.seq, reset.ack) == (RST | ACK, 0, IRS + 1 & M)


def test_half_open_connections_answer_to_whom_they_belong(sim: Simulation) -> None:
    """A challenge ACK, a SYN,ACK that goes again, and the reset with the listener's end: each to its peer, among others."""
    listener = listening(sim)
    peers = [Peer(sim, number(PEER) + (n << 64) + n, 5000 + n % 2) for n in range(3)]
    for peer in peers:
        peer.send(SYN)
    sim.run_us(3000)
    numbers = {}
    for segment in (parse_tcp(frame) for frame in sim.captured()):
        if segment is not None and segment.flags & SYN:
            numbers[segment.dst] = segment.seq
    assert set(numbers) == {peer.address for peer in peers}
    peers[1].send(ACK, seq=IRS + 70_000, ack=numbers[peers[1].address] + 1)
    [challenge] = peers[1].received()
    assert (challenge.flags, challenge.seq) == (ACK, numbers[peers[1].address] + 1 & M)
    peers[2].send(SYN)
    [again] = peers[2].received()
    assert (again.flags, again.seq) == (SYN | ACK, numbers[peers[2].address])
    listener.close()
    sim.run_us(5000)
    resets = [segment for frame in sim.captured() if (segment := parse_tcp(frame)) is not None and segment.flags & RST]
    assert {segment.dst for segment in resets} == {peer.address for peer in peers}


def test_syn_cookies(rng: Any) -> None:
    """SYNs from anywhere hold every entry; who returns a cookie gets in."""
    with engine(syn_cookies=True) as sim:
        listener = listening(sim)
        for n in range(40):
            Peer(sim, rng.getrandbits(120) | 0x24 << 120, 1000 + n).send(SYN)
        sim.run_us(3000)
        sim.captured()
        client = Peer(sim, STRANGER)
        client.send(SYN, mss=1300)
        [cookie] = client.received()
        assert cookie.flags == SYN | ACK and sim.toe.engine.read_counters()["SYN_COOKIES"] > 0
        sim.captured()
        client.nxt, client.ack = client.nxt + 1 & M, cookie.seq + 1 & M
        client.send(ACK)
        [again] = client.received()
        assert (again.flags, again.seq) == (SYN | ACK, cookie.seq)
        client.send(ACK)
        client.received()
        server, name = listener.accept()
        assert name[:2] == (str(IPv6Address(STRANGER)), 5000)
        server.setblocking(False)
        server.send(bytes(2000))
        assert max(len(segment.payload) for segment in client.received()) == 1300
        sim.check()


def test_two_peers_of_one_fold(sim: Simulation) -> None:
    """It takes the key to find them. With equal ports the second one does not get in, and the first one's connection goes on."""
    key = sim.toe.engine._alias_key
    first = number(PEER)
    # A difference in the first word is made up for in the last one.
    difference = alias(1 << 96, key)
    second = first ^ 1 << 96 ^ difference
    assert second != first and alias(second, key) == alias(first, key)
    listener = listening(sim)
    peer, other = Peer(sim, first), Peer(sim, second)
    peer.opens(1440)
    server = accepted(listener)
    sim.captured()
    other.send(SYN, seq=77)
    sim.run_us(3000)
    answers = [segment for frame in sim.captured() if (segment := parse_tcp(frame)) is not None]
    assert [(segment.flags, segment.dst) for segment in answers] == [(ACK, first)], "a challenge, RFC 5961 section 4"
    peer.send(ACK | PSH, b"still here")
    peer.received()
    assert server.recv(100) == b"still here"
    elsewhere = Peer(sim, second, 5001)
    elsewhere.opens(1440)
    assert accepted(listener).getpeername()[0] == str(IPv6Address(second))


def test_what_is_not_the_engines_reaches_the_host(sim: Simulation) -> None:
    """Through the frame ring and back: an echo; TCP behind an extension header goes to other stacks."""
    ether = Ether(src=MACS[1], dst=MACS[0])
    sim.inject(bytes(ether / IPv6(src=PEER, dst=OURS) / ICMPv6EchoRequest(id=7, seq=9, data=bytes(1000))))
    sim.run_us(5000)
    [reply] = [Ether(frame) for frame in sim.captured()]
    assert (reply[IPv6].dst, reply[ICMPv6EchoReply].id, len(reply[ICMPv6EchoReply].data)) == (PEER, 7, 1000)
    taken: list[bytes] = []
    sim.toe.hostif.input_hook = lambda frame: taken.append(frame) or True
    frame = bytes(ether / IPv6(src=PEER, dst=OURS) / IPv6ExtHdrDestOpt() / TCP(dport=80, flags="S"))
    sim.inject(frame)
    sim.run_us(5000)
    assert taken == [frame] and sim.captured() == []


@pytest.mark.parametrize("keeper", ["host", "engine"])
def test_time_wait(keeper: str) -> None:
    """The peer's FIN comes again, because our last ACK was lost: it is answered, whoever keeps the connection's end."""
    times = {"registers": {reg.REG_MSL_TICKS: 3000}} if keeper == "engine" else {"rst_unknown": False}
    with engine(time_wait=keeper, time_wait_us=500_000, **times) as sim:
        listener, peer = listening(sim), Peer(sim)
        peer.opens(1440)
        server = accepted(listener)
        server.close()
        [fin] = peer.received()
        assert fin.flags & FIN
        peer.ack = fin.seq + 1 & M
        peer.send(FIN | ACK)
        answers = peer.received(20_000)
        assert answers[-1].ack == peer.nxt + 1 & M
        peer.send(FIN | ACK)
        [again] = peer.received(20_000)
        assert (again.flags, again.seq, again.ack, again.src) == (ACK, peer.ack, peer.nxt + 1 & M, number(OURS))
        sim.check()


def test_after_a_reset_of_the_engine(sim: Simulation) -> None:
    """A new key; the listener is back."""
    listener, before = listening(sim), sim.toe.engine._alias_key
    sim.toe.restart()
    sim.run_us(3000)
    sim.captured()
    assert sim.toe.engine._alias_key != before
    peer = Peer(sim)
    peer.opens(1440)
    server = accepted(listener)
    toep = sototcpcb(server.so).t_toe  # type: ignore[arg-type]
    assert toep is not None and toep.wire_addresses == (LADDR_V6, alias(peer.address, sim.toe.engine._alias_key))
