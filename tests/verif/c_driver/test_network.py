"""What the line does to the driver in C: ARP, ping, loss, and frames that nobody should send."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from tiptoe_verif.c_driver import CDriver, Error, What
from tiptoe_verif.native.simulation import Impairment, Peer, Simulation, Wire

from .conftest import HASTE, SANITIZE, library

OURS, NEIGHBOUR = "02:00:00:00:00:02", "02:00:00:00:00:77"


class Alone:
    """The C driver at 10.0.0.2, and a line on which the test speaks itself."""

    def __init__(self, **settings) -> None:
        self.sim = Simulation(
            "tiny", attach=False, memory_bytes=1 << 24, tick_us=1000 // HASTE, library=library("tiny")
        )
        self.sent: list[bytes] = []
        self.peer = Peer(lambda frame, time_us: self.sent.append(frame))
        Wire(self.sim, self.peer)
        self.c = CDriver(self.sim, tick_cycles=100, sanitize=SANITIZE, clock=HASTE, **settings)
        assert self.c.started is Error.OK
        self.sim.tasks.append(self.c.poll)
        self.sim.run_us(1000)

    def say(self, frame, wait_us: float = 2000) -> list:
        """Send a frame; what comes meanwhile, as scapy sees it."""
        self.sent.clear()
        self.peer.send(bytes(frame).ljust(60, b"\0"))
        self.sim.run_us(wait_us)
        return [Ether(data) for data in self.sent]


@pytest.fixture
def alone():
    made = Alone(gateway=0x0A0000FE)
    yield made
    made.sim.check()
    made.sim.close()


def arp(op: int, **fields) -> Ether:
    return Ether(src=fields.get("hwsrc", NEIGHBOUR), dst="ff:ff:ff:ff:ff:ff") / ARP(op=op, **fields)


def test_announces_its_address(alone) -> None:
    announced = Ether(alone.sent[0])[ARP]
    assert (announced.op, announced.psrc, announced.pdst, announced.hwsrc) == (1, "10.0.0.2", "10.0.0.2", OURS)


def test_answers_arp(alone) -> None:
    request = dict(op=1, hwsrc=NEIGHBOUR, psrc="10.0.0.9")
    [answer] = alone.say(arp(**request, pdst="10.0.0.2"))
    assert answer.dst == NEIGHBOUR
    assert (answer[ARP].op, answer[ARP].hwsrc, answer[ARP].psrc, answer[ARP].pdst) == (2, OURS, "10.0.0.2", "10.0.0.9")
    assert alone.say(arp(**request, pdst="10.0.0.3")) == []
    assert alone.say(arp(op=1, hwsrc="ff:ff:ff:ff:ff:ff", psrc="10.0.0.9", pdst="10.0.0.2")) == []
    assert alone.say(arp(op=1, hwsrc=NEIGHBOUR, psrc="10.0.0.2", pdst="10.0.0.2")) == []
    assert alone.c.counters["arp_conflicts"] == 1


def test_asks_three_times_then_gives_up(alone) -> None:
    """And three times for who tries again at once, from its handler."""
    again = []

    def retry(connection, what: What) -> None:
        connection.close()
        again.append(alone.c.connect(0x0A000009, 80))

    alone.sent.clear()
    ours = alone.c.connect(0x0A000009, 80)
    ours.then = retry
    for times in (3, 6):
        alone.sim.run_us(3_050_000 // HASTE)
        assert [Ether(data)[ARP].pdst for data in alone.sent[:times]] == ["10.0.0.9"] * times
    alone.sim.run_us(500_000 // HASTE)
    assert len(alone.sent) == 6
    for one in (ours, again[0]):
        assert one.what == What.ENDED and one.result is Error.UNREACHABLE
    again[0].close()
    alone.sim.run_us(1000)
    assert alone.c.in_use == 0


def test_gateway_and_a_neighbour_that_moves(alone) -> None:
    """SYNs to another network go to the gateway; a connection follows it to another MAC address."""
    ours = alone.c.connect(0x08080808, 53)
    for mac in (NEIGHBOUR, "02:00:00:00:00:78"):
        alone.say(arp(op=2, hwsrc=mac, psrc="10.0.0.254", hwdst=OURS, pdst="10.0.0.2"))
        alone.sent.clear()
        alone.sim.run_us(2_500_000 // HASTE)  # the SYN, or its repetition
        syns = [frame for frame in map(Ether, alone.sent) if IP in frame]
        assert syns and {(frame.dst, frame[IP].dst) for frame in syns} == {(mac, "8.8.8.8")}
    ours.close()
    alone.sim.run_us(1000)
    assert alone.c.in_use == 0


def ping(length: int = 56, **fields) -> Ether:
    ip = IP(
        src="10.0.0.9",
        dst=fields.pop("to", "10.0.0.2"),
        **{k: fields.pop(k) for k in list(fields) if k in ("flags", "frag", "chksum", "ihl")},
    )
    return (
        Ether(src=NEIGHBOUR, dst=OURS)
        / ip
        / ICMP(type=fields.pop("type", 8), id=7, seq=1)
        / bytes(range(256)).ljust(length, b"x")[:length]
    )


@pytest.mark.parametrize("length", [0, 1, 56, 1472])
def test_answers_ping(alone, length: int) -> None:
    request = ping(length)
    [answer] = alone.say(request)
    assert (answer.dst, answer[IP].src, answer[IP].dst, answer[ICMP].type) == (NEIGHBOUR, "10.0.0.2", "10.0.0.9", 0)
    assert bytes(answer[ICMP])[4 : 8 + length] == bytes(Ether(bytes(request))[ICMP])[4 : 8 + length]
    right = Ether(bytes(answer))
    del right[IP].chksum, right[ICMP].chksum
    right = Ether(bytes(right))
    assert (answer[IP].chksum, answer[ICMP].chksum) == (right[IP].chksum, right[ICMP].chksum)


@pytest.mark.parametrize("fields", [{"to": "10.0.0.255"}, {"flags": "MF"}, {"frag": 3}, {"chksum": 1}, {"type": 13}])
def test_leaves_alone_what_is_no_ping(alone, fields: dict) -> None:
    assert alone.say(ping(**fields)) == []


def test_garbage(alone, rng: random.Random) -> None:
    """Frames of every kind, cut and spoilt; afterwards the driver is what it was, and no slot is lost."""
    seeds = [bytes(ping(n)) for n in (0, 40)] + [
        bytes(arp(op=n, hwsrc=NEIGHBOUR, psrc="10.0.0.9", pdst="10.0.0.2")) for n in (1, 2)
    ]
    for _ in range(400):
        frame = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(4)):
            frame[rng.randrange(6, len(frame))] = rng.choice((0, 255, rng.randrange(256)))
        if rng.random() < 0.2:
            frame = bytearray(bytes.fromhex("020000000002") + rng.randbytes(rng.randrange(8, 120)))
        alone.peer.send(bytes(frame[: rng.randrange(20, 200)]).ljust(rng.choice((20, 60)), b"\0"))
        alone.sim.run_us(100)
    alone.sim.run_us(20_000)
    counters = alone.c.counters
    assert counters["bad_events"] == counters["lost_ids"] == counters["refused_commands"] == 0
    assert len(alone.say(ping())) == 1 and counters["echoes"]


def test_more_pings_than_buffers(alone) -> None:
    """As many as come at once: what there is no buffer for is dropped, and none is lost for ever."""
    for _ in range(3):
        alone.sent.clear()
        for _ in range(30):
            alone.peer.send(bytes(ping(1000)))
        alone.sim.run_us(20_000)
        assert 0 < len(alone.sent) <= 30
    assert len(alone.say(ping())) == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_line_that_misbehaves(make, payload, seed: int) -> None:
    """Loss, repetition, reordering and bit errors, both ways; also of ARP."""
    bench = make(pair={"impairment": Impairment(loss=0.03, duplicate=0.03, reorder=0.05, corrupt=0.02, seed=seed)})
    accepted, listener = bench.listen(), bench.peer_listener()
    there, back = payload(20_000), payload(20_000)
    ours, peer = bench.c.connect(bench.b.ip, 99), bench.peer()
    ours.write(there, end=True)
    bench.until(lambda: listener.readable() and accepted and peer.writable(), "both connections", 20e6)
    other, _ = listener.accept()
    accepted[0].write(back, end=True)
    assert bench.receive_all(other, 30e6) == there
    assert bench.receive_all(peer, 30e6) == back
    other.close()
    peer.close()
    bench.until(lambda: ours.what & What.PEER_CLOSED and accepted[0].what & What.PEER_CLOSED, "the ends", 20e6)
