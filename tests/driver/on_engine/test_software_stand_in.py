"""Connections that are not offloaded, carried by the software stand-in over the engine's network interface, in simulated time.

The peer is a second engine. Which branch a connection takes is read from TX_SEGMENTS (the engine's own segments) and from the
commands; the wire monitor checks the stand-in's segments as it does the engine's.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.on_engine.bench import RINGS, SERVER, Flow, carry, pair
from tiptoe_driver import SO_NO_OFFLOAD, EngineOptions, OffloadPolicy, PolicyRule, Socket, Stack, Tiptoe
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.netinet.if_var import IFCAP_TOE
from tiptoe_driver.netinet.offload import if_setcap, tp_offload
from tiptoe_driver.netinet.structures import sototcpcb
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment, Simulation, SimulationTimeout, Wire
from tiptoe_verif.standin.tcp import StandInTcp

CLIENT = "10.0.0.1"
BAD_LINE = Impairment(loss=0.03, reorder=0.03, duplicate=0.03, corrupt=0.03, delay_us=300, seed=5)
MSL_US = 3000


def made(**options) -> Pair:
    """TCP's clock goes twenty times as fast as it should on all sides: the line is short, and simulated time dear."""
    two = pair(**{"skip_idle": False, "tick_us": 50, "a": {"software": "stand-in", **options.pop("a", {})}, **options})
    two.a.software.msl_us = MSL_US
    two.a.software.rto_us = 10_000
    return two


@pytest.fixture
def two(out_dir) -> Iterator[Pair]:
    """Two engines; the first one's host has a stand-in."""
    with made(pcap=out_dir / "wire.pcap") as engines:
        yield engines
        engines.check()


def offloaded(sock: Socket) -> bool:
    return bool(tp_offload(sototcpcb(sock.so)))


def segments(two: Pair) -> int:
    """Segments that the first engine has made."""
    return two.a.toe.engine.read_counters()["TX_SEGMENTS"]


def listening(sim: Simulation, port: int, *, software: bool = False) -> Socket:
    listener = sim.socket()
    if software:
        listener.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
    listener.bind(("", port))
    listener.listen()
    return listener


def accepted(listener: Socket) -> Socket:
    server, _ = listener.accept()
    server.setblocking(False)
    return server


def opened(two: Pair, listener: Socket, address: str, client: Socket) -> tuple[Socket, Socket]:
    """Both ends of a connection of ``client``."""
    assert client.connect_ex((address, listener.getsockname()[1])) == errno.EINPROGRESS
    two.run_until(lambda: listener.readable() and client.writable(), 8_000_000, "established")
    assert not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return client, accepted(listener)


def both_ways(two: Pair, ends: tuple[Socket, Socket], rng: random.Random, size: int = 10_000) -> None:
    """Data in both directions, then the end of both streams; compared."""
    flows = [Flow(*pair, rng.randbytes(size), rng) for pair in (ends, ends[::-1])]
    carry(two, *flows)
    assert all(flow.got == flow.data for flow in flows)


def over(two: Pair) -> Callable[[], bool]:
    return lambda: two.a.software.idle


# ---------------------------------------------------------------------- why it is not offloaded


def option(two: Pair) -> Socket:
    sock = two.a.socket()
    sock.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
    return sock


def capability_off(two: Pair) -> Socket:
    assert if_setcap(two.a.toe.tod_ifp, 0) == 0
    return two.a.socket()


def device_full(two: Pair) -> Socket:
    listener = listening(two.b, 8100)
    while offloaded(opened(two, listener, SERVER, two.a.socket())[0]):
        pass
    return two.a.socket()


def policy(two: Pair) -> Socket:
    two.a.toe.policy = OffloadPolicy([PolicyRule(offload=False)])
    return two.a.socket()


def small_packets(two: Pair) -> Socket:
    two.a.toe.if_set_mtu(600)
    return option(two)


@pytest.mark.parametrize("why", [option, capability_off, device_full, policy, small_packets])
def test_gen_1_what_cannot_be_offloaded_carries_data(out_dir, rng: random.Random, why) -> None:
    large = (
        {"snd_ring_bytes": 1 << 18, "rcv_ring_bytes": 1 << 18} if why is device_full else {}
    )  # a few fill the memory
    with made(pcap=out_dir / "wire.pcap", impairment=BAD_LINE, a={"driver": {**RINGS, **large}}) as two:
        client = why(two)
        listener = listening(two.b, 80)
        two.run_us(20_000)  # what the engine still had to say is said
        free, sent = two.a.toe.engine.free_ids, segments(two)
        ends = opened(two, listener, SERVER, client)
        both_ways(two, ends, rng)
        assert not offloaded(client) and two.a.toe.engine.free_ids == free
        assert segments(two) == sent and two.a.software.counters["segments_sent"] > 10
        tp = sototcpcb(client.so)
        client.close()
        two.run_until(lambda: tp not in two.a.software._connections, 1_000_000, "the connection's end")
        two.check()


@pytest.mark.parametrize("why", ["option", "capability", "policy", "table"])
def test_gen_1_listener_that_is_not_offloaded(two: Pair, rng: random.Random, why: str) -> None:
    if why == "capability":
        capability_off(two)
    if why == "policy":
        policy(two)
    if why == "table":
        for n in range(two.a.toe.engine.capabilities.listeners):
            listening(two.a, 9000 + n)
    listener = listening(two.a, 80, software=why == "option")
    two.run_us(10_000)
    before = two.a.toe.engine.read_counters()
    client, server = opened(two, listener, CLIENT, two.b.socket())
    assert not offloaded(server) and server.getpeername() == client.getsockname()
    assert server.getsockname() == (CLIENT, 80)
    both_ways(two, (client, server), rng)
    after = two.a.toe.engine.read_counters()
    assert (after["TX_SEGMENTS"], after["SYN_RECEIVED"]) == (before["TX_SEGMENTS"], before["SYN_RECEIVED"])
    listener.close()
    refused(two, 80)


def refused(two: Pair, port: int) -> None:
    """The second engine's connect to a port where nobody listens is refused by exactly one RST."""
    before = two.a.software.counters["segments_sent"]
    client = two.b.socket()
    client.connect_ex((CLIENT, port))
    two.run_until(client.writable, 1_000_000, "the refusal")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    two.run_us(20_000)
    assert two.a.software.counters["segments_sent"] == before + 1


def test_gen_1_closed_port_is_refused_once_and_ping_is_the_drivers(two: Pair) -> None:
    sent = segments(two)
    refused(two, 4711)
    assert segments(two) == sent
    two.b.toe.hostif.arp.resolve(two.a.ip, lambda mac: None)
    two.b.toe.hostif.transmit(
        bytes(
            Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / IP(src=SERVER, dst=CLIENT) / ICMP(id=7) / b"ping"
        )
    )
    seen: list[bytes] = []
    two.b.toe.hostif.input_hook = lambda frame: bool(seen.append(frame)) or True
    two.run_us(20_000)
    assert [Ether(frame)[ICMP].type for frame in seen] == [0]


def test_gen_1_offloaded_and_software_connections_at_once(out_dir, rng: random.Random) -> None:
    """Four of each kind, opened from both sides, on a bad line; the engine's own are unharmed."""
    with made(pcap=out_dir / "wire.pcap", impairment=BAD_LINE, seed=4) as two:
        pairs = []
        for n in range(4):
            software = bool(n % 2)
            server = listening(two.a, 80 + n, software=software)
            pairs.append(opened(two, server, CLIENT, two.b.socket())[::-1])
            client = option(two) if software else two.a.socket()
            pairs.append(opened(two, listening(two.b, 90 + n), SERVER, client))
        assert [offloaded(ours) for ours, _ in pairs] == [True, True, False, False] * 2
        flows = [Flow(*ends, rng.randbytes(5_000), rng) for pair in pairs for ends in (pair, pair[::-1])]
        carry(two, *flows)
        assert all(flow.got == flow.data for flow in flows)
        assert min(channel.lost + channel.corrupted for channel in two.wire.channels) > 0
        assert two.a.software.counters["segments_offloaded"] == 0
        two.check()


def test_gen_1_icmp_errors_about_offloaded_connections_reach_them(two: Pair) -> None:
    client = two.a.socket()
    client.connect_ex((SERVER, 81))
    two.run_until(lambda: two.a.toe.hostif.arp.lookup(two.b.ip), 100_000, "the neighbour")
    two.wire.channels[1].impairment = Impairment(loss=1.0)  # the peer's answers are lost, all but the router's
    two.run_us(20_000)
    laddr, lport = client.getsockname()
    quoted = IP(src=laddr, dst=SERVER) / TCP(sport=lport, dport=81, flags="S", seq=client.info().tcpi_snd_una)
    frame = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / IP(src=SERVER, dst=CLIENT) / ICMP(type=3, code=3)
    two.a.inject(bytes(frame / bytes(quoted)[:28]))
    two.run_until(client.writable, 100_000, "the error")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert two.a.toe.counters["icmp_errors"] == 1


# ---------------------------------------------------------------------- the end


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_gen_1_half_close_then_the_other_direction(two: Pair, rng: random.Random, first: str) -> None:
    ours, theirs = opened(two, listening(two.b, 80), SERVER, option(two))
    one, other = (ours, theirs) if first == "ours" else (theirs, ours)
    flow = Flow(one, other, rng.randbytes(3000), rng)
    carry(two, flow)
    late = Flow(other, one, rng.randbytes(9000), rng)
    carry(two, late)
    assert flow.got == flow.data and late.got == late.data
    ours.close()
    theirs.close()
    two.run_until(over(two), 1_000_000, "the end")


@pytest.mark.parametrize("by", ["ours", "theirs"])
def test_gen_1_reset_either_way(two: Pair, by: str) -> None:
    ours, theirs = opened(two, listening(two.b, 80), SERVER, option(two))
    one, other = (ours, theirs) if by == "ours" else (theirs, ours)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    two.run_until(lambda: other.so.so_error, 100_000, "the RST")
    with pytest.raises(ConnectionResetError):
        other.recv(1)
    assert over(two)()


def test_gen_1_refused_and_nobody_there(two: Pair) -> None:
    client = option(two)
    client.connect_ex((SERVER, 4711))
    two.run_until(client.writable, 100_000, "the refusal")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    client = option(two)
    client.connect_ex(("10.0.0.77", 80))
    two.run_until(client.writable, 200_000, "ARP gives up")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTDOWN


def test_gen_1_windows_close_and_open_both_ways(two: Pair, rng: random.Random) -> None:
    ours, theirs = opened(two, listening(two.b, 80), SERVER, option(two))
    up, down = rng.randbytes(12_000), rng.randbytes(100_000)
    sent = [0, 0]

    def push() -> None:
        for n, (sock, data) in enumerate(((ours, up), (theirs, down))):
            try:
                while sent[n] < len(data):
                    sent[n] += sock.send(data[sent[n] :])
            except BlockingIOError:
                pass

    two.b.tasks.append(push)
    two.run_us(400_000)  # nobody reads: both windows are closed, and both sides probe
    assert ours.so.so_rcv.sb_cc > 60_000 and theirs.so.so_rcv.sb_cc == 4096
    got = [bytearray(), bytearray()]

    def drained() -> bool:
        for sock, into in ((theirs, got[0]), (ours, got[1])):
            try:
                into += sock.recv(3000)
            except BlockingIOError:
                pass
        return [len(each) for each in got] == [len(up), len(down)]

    two.run_until(drained, 20_000_000, "all of it")
    assert bytes(got[0]) == up and bytes(got[1]) == down


def test_gen_1_blocking_calls(two: Pair) -> None:
    """Retransmission and TIME_WAIT go by the stack's callouts, in blocking calls too."""
    server = listening(two.b, 7)
    ends: list[Socket] = []

    def echo() -> None:
        if server.readable():
            ends.append(accepted(server))
        for end in ends:
            if end.readable():
                end.send(end.recv(4096))

    two.b.tasks.append(echo)
    client = option(two)
    client.settimeout(5)
    client.connect((SERVER, 7))
    two.wire.channels[0].impairment = Impairment(loss=1.0)
    client.sendall(b"both ways")
    with pytest.raises(TimeoutError):
        client.settimeout(0.1)
        client.recv(1)
    two.wire.channels[0].impairment = Impairment()
    client.settimeout(5)
    assert (
        client.recv(100) == b"both ways" and two.a.software.counters["retransmissions"] == 4
    )  # after 10, 30, 70, 150 ms


# ---------------------------------------------------------------------- options, capability, no offload at all


def test_opt_1_read_at_connect_and_listen_only(two: Pair, rng: random.Random) -> None:
    ours, theirs = opened(two, listening(two.b, 80), SERVER, two.a.socket())
    ours.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
    assert offloaded(ours)
    sent = segments(two)
    both_ways(two, (ours, theirs), rng, 3000)
    assert segments(two) > sent + 2 and two.a.software.counters["segments_sent"] == 0
    soft, peer = opened(two, listening(two.b, 81), SERVER, option(two))
    soft.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 0)
    two.run_us(20_000)
    sent = segments(two)
    both_ways(two, (soft, peer), rng, 3000)
    assert not offloaded(soft) and segments(two) == sent
    for software in (False, True):
        listener = listening(two.a, 85 + software, software=software)
        listener.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, not software)
        two.run_us(10_000)
        _, server = opened(two, listener, CLIENT, two.b.socket())
        assert offloaded(server) is not software


def test_cap_1_off_new_ones_to_software_old_ones_live_on(two: Pair, rng: random.Random) -> None:
    listener, server = listening(two.a, 80), listening(two.b, 80)
    two.run_us(10_000)
    old = opened(two, listener, CLIENT, two.b.socket())
    assert offloaded(old[1])
    assert if_setcap(two.a.toe.tod_ifp, 0) == 0
    two.run_us(10_000)
    new = opened(two, listener, CLIENT, two.b.socket())
    active = opened(two, server, SERVER, two.a.socket())
    assert not offloaded(new[1]) and not offloaded(active[0])
    assert if_setcap(two.a.toe.tod_ifp, IFCAP_TOE) == 0
    two.run_us(10_000)
    again = opened(two, listener, CLIENT, two.b.socket())
    assert offloaded(again[1])
    assert offloaded(old[1])  # these live on
    two.run_us(20_000)
    for ends, by_engine in ((new, False), (active, False), (old, True), (again, True)):
        before, of_stand_in = segments(two), two.a.software.counters["segments_sent"]
        both_ways(two, ends, rng, 5000)
        two.run_us(20_000)
        assert (segments(two) > before + 3, two.a.software.counters["segments_sent"] > of_stand_in + 3) == (
            by_engine,
            not by_engine,
        )


def test_gen_2_offload_disabled_the_engine_is_a_network_card(out_dir, rng: random.Random) -> None:
    with made(pcap=out_dir / "wire.pcap", impairment=BAD_LINE, seed=6, a={"offload_disabled": True}) as two:
        commands, doorbells = [], []
        ring, write32 = two.a.toe.engine.commands, two.a.write32

        def record(post):
            return lambda command: (commands.append(command[0]), post(command))[1]

        ring.post, ring.post_control = record(ring.post), record(ring.post_control)
        two.a.write32 = lambda address, value: (doorbells.append(address), write32(address, value))[1]
        both_ways(two, opened(two, listening(two.a, 80), CLIENT, two.b.socket()), rng)
        both_ways(two, opened(two, listening(two.b, 80), SERVER, two.a.socket()), rng)
        assert set(commands) == {reg.Opcode.SEND_FRAME}
        assert not [address for address in doorbells if address >= reg.DOORBELL_BASE]
        assert segments(two) == 0
        two.check()


# ---------------------------------------------------------------------- two devices, and what a run says


def test_gen_1_two_devices_on_one_stack(out_dir, rng: random.Random) -> None:
    """One stand-in serves both: segments leave by the interface that leads to the peer."""
    stack, sims, peers, toes = Stack(seed=1), [], [], []
    options = {"snd_ring_bytes": 4096, "rcv_ring_bytes": 4096, "arp_retry_us": 20_000}
    for n in range(2):
        sim = Simulation(
            "tiny",
            ip=f"10.0.{n}.1",
            mac=f"02:00:00:00:0{n}:01",
            seed=2 * n + 1,
            attach=False,
            memory_bytes=1 << 22,
            pcap=out_dir / f"line{n}.pcap",
        )
        peers.append(
            Simulation(
                "tiny",
                ip=f"10.0.{n}.2",
                mac=f"02:00:00:00:0{n}:02",
                seed=2 * n + 2,
                memory_bytes=1 << 22,
                driver=options,
            )
        )
        Wire(sim, peers[n], Impairment(loss=0.03, seed=n))
        if n:
            sims[0].world.join(sim.world)
        toes.append(
            Tiptoe(
                stack,
                sim,
                name=f"tiptoe{n}",
                address=f"10.0.{n}.1/24",
                mac=f"02:00:00:00:0{n}:01",
                options=EngineOptions(seed=n, rst_unknown=False, registers={reg.REG_TICK_CYCLES: 1000}, **options),
            )
        )
        sim.stack, sim.toe = stack, toes[n]
        sims.append(sim)
    tcp = StandInTcp(stack, *toes)
    try:
        common = Socket(stack)
        common.setblocking(False)
        common.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
        common.bind(("", 80))
        common.listen()
        pairs = []
        for n in range(2):
            client = Socket(stack)
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
            listener = listening(peers[n], 81)
            client.connect_ex((f"10.0.{n}.2", 81))
            other = peers[n].socket()
            other.connect_ex((f"10.0.{n}.1", 80))
            sims[0].run_until(
                lambda ends=(listener, common, other, client): (
                    ends[0].readable() and ends[1].readable() and ends[2].writable() and ends[3].writable()
                ),
                5_000_000,
                "four ends",
            )
            pairs += [(client, accepted(listener)), (accepted(common), other)]
        assert [ours.getsockname()[0] for ours, _ in pairs] == ["10.0.0.1"] * 2 + ["10.0.1.1"] * 2
        flows = [Flow(*ends, rng.randbytes(9000), rng) for pair in pairs for ends in (pair, pair[::-1])]

        def done() -> bool:
            for flow in flows:
                if not flow.ended:
                    flow.turn()
            return all(flow.ended for flow in flows)

        sims[0].run_until(done, 30_000_000, "both lines")
        assert all(flow.got == flow.data for flow in flows)
        assert [toe.engine.read_counters()["TX_SEGMENTS"] for toe in toes] == [0, 0] and tcp.counters["unroutable"] == 0
        for sim in (*sims, *peers):
            sim.check()
    finally:
        for sim in (*sims, *peers):
            sim.close()


def test_a_run_says_that_a_stand_in_is_at_work(two: Pair) -> None:
    assert "a software stand-in in Python (0 opened, 0 accepted" in repr(two.a)
    assert "connections that are not offloaded: none" in repr(two.b)
    with pytest.raises(SimulationTimeout, match="a software stand-in in Python"):
        two.a.run_until(lambda: False, 1000)


@pytest.mark.parametrize(
    "options",
    [
        {"software": "linux"},
        {"software": "stand-in", "attach": False},
        {"software": "stand-in", "driver": {"rst_unknown": True}},
    ],
)
def test_impossible_options(options) -> None:
    with pytest.raises(ValueError, match="software|rst_unknown"):
        Simulation("tiny", memory_bytes=1 << 22, **options)
