"""Two engines with their drivers against each other, in simulated time; and one against a scripted peer."""

import hashlib
import socket

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Conditions, Impairment, Peer, Simulation, Wire
from tiptoe_verif.wire import tshark
from tiptoe_verif.wire.segment import ACK, Segment, pack_tcp


def connect(pair, port=80):
    """An established connection: the client's socket on ``a``, the server's on ``b``."""
    listener = pair.b.socket()
    listener.bind(("10.0.0.2", port))
    listener.listen()
    client = pair.a.socket()
    client.connect_ex(("10.0.0.2", port))
    pair.run_until(client.writable, 60e6, "the connection")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    pair.run_until(listener.readable, 60e6, "the connection to accept")
    server, address = listener.accept()
    server.setblocking(False)
    assert address == client.getsockname()
    return client, server


def carry(pair, source, target, data, back=b"", timeout_us=600e6):
    """Both ways at once, then the end from both sides."""
    queues = {source: memoryview(data), target: memoryview(back)}
    got = {source: bytearray(), target: bytearray()}
    ended = set()

    def step():
        for made, queue in queues.items():
            if queue:
                try:
                    queues[made] = queue[made.send(queue) :]
                except BlockingIOError:
                    pass
            if not queues[made] and made not in ended:
                made.shutdown(socket.SHUT_WR)
                ended.add(made)
        for made, into in got.items():
            while made.readable():
                chunk = made.recv(1 << 16)
                if not chunk:
                    break
                into.extend(chunk)
        return len(got[target]) >= len(data) and len(got[source]) >= len(back)

    pair.run_until(step, timeout_us, f"{len(data)} bytes there, {len(back)} back")
    assert hashlib.sha256(got[target]).digest() == hashlib.sha256(data).digest()
    assert hashlib.sha256(got[source]).digest() == hashlib.sha256(back).digest()
    for made in (source, target):
        pair.run_until(made.readable, timeout_us, "the end of the stream")
        assert made.recv(1) == b""
        made.close()
    pair.check()


@pytest.mark.parametrize(
    "there, back, probes",
    [
        (60_000, 0, 0),
        (0, 50_000, 0),
        # Both at once, acknowledgements wait behind data for longer than the tail's probe does (RFC 8985 section 7.2), which has
        # measured the line while it was empty: one from each side, for nothing, as D-SACK tells it.
        (60_000, 50_000, 1),
    ],
)
def test_clean_line(out_dir, rng, there, back, probes):
    with Pair("tiny", pcap=out_dir / "clean.pcap") as pair:
        client, server = connect(pair)
        carry(pair, client, server, rng.randbytes(there), rng.randbytes(back))
        for sim in (pair.a, pair.b):
            counters = sim.toe.engine.read_counters()
            assert counters["TX_RETRANSMITS"] <= probes
            assert counters["RTO_EXPIRED"] == counters["RX_BAD_TCP"] == 0
    if tshark.available():
        assert tshark.faults(out_dir / "clean.pcap", opaque=True) == []


@pytest.mark.parametrize("length", [1, 100])
def test_engines_that_take_each_other_for_wrong_fall_silent(length):
    """Somebody has put data into the stream: each side's numbers are wrong for the other one from then on, and each answers the
    other's ACK with one of its own, but not for ever (RFC 5961 section 7)."""
    with Pair("tiny") as pair:
        client, server = connect(pair)
        pair.run_us(100_000)
        ((key, flow),) = pair.a.capture.monitor.flows.items()
        segment = Segment(*(key[at] for at in (0, 2, 1, 3)), flow.snd_max & 0xFFFFFFFF, flow.acked & 0xFFFFFFFF, ACK, 4096, 0,
                          None, bytes(length))  # fmt: skip
        ethernet = bytes.fromhex("0200000000020200000000010800")
        pair.b.inject((ethernet + pack_tcp(segment)).ljust(60, b"\0"))

        def sent(us):
            before = [sim.toe.engine.read_counters() for sim in (pair.a, pair.b)]
            pair.run_us(us)
            after = [sim.toe.engine.read_counters() for sim in (pair.a, pair.b)]
            return [now["TX_SEGMENTS"] - then["TX_SEGMENTS"] for now, then in zip(after, before, strict=True)]

        assert 1 <= sum(sent(200_000)) <= 8
        assert sent(600_000) == [0, 0]
        assert len(server.recv(1000)) == length


@pytest.mark.parametrize(
    "name, line",
    [
        ("loss", {"loss": 0.03}),
        ("reorder", {"reorder": 0.1, "reorder_us": 3000}),
        ("duplicate", {"duplicate": 0.1}),
        ("corrupt", {"corrupt": 0.03}),
        ("all", {"loss": 0.02, "reorder": 0.03, "duplicate": 0.03, "corrupt": 0.02, "jitter_us": 300}),
    ],
)
def test_impaired_line(out_dir, rng, name, line):
    impairment = Impairment(delay_us=500, seed=rng.getrandbits(16), **line)
    with Pair("tiny", impairment=impairment, pcap=out_dir / f"{name}.pcap") as pair:
        client, server = connect(pair)
        carry(pair, client, server, rng.randbytes(80_000), rng.randbytes(80_000))
        a, b = pair.wire.channels
        assert not line.get("loss") or a.lost + b.lost
        assert not line.get("corrupt") or a.corrupted + b.corrupted
        if "corrupt" in line:
            counters = [sim.toe.engine.read_counters() for sim in (pair.a, pair.b)]
            assert sum(c["RX_BAD_TCP"] + c["RX_BAD_IP"] + c["RX_BAD_FRAME"] for c in counters) > 0


def test_hostile_conditions(rng):
    """Random stalls on every channel of both engines, long and varying memory latency."""
    conditions = Conditions(
        memory_latency=60, memory_jitter=100, memory_stall=0.3, rx_stall=0.2, tx_stall=0.2, register_stall=0.5
    )
    with Pair("tiny", conditions=conditions, seed=rng.getrandbits(16)) as pair:
        client, server = connect(pair)
        carry(pair, client, server, rng.randbytes(40_000), rng.randbytes(40_000))


def test_same_seed_same_cycles():
    def trial():
        line = Impairment(loss=0.02, delay_us=500, seed=11)
        with Pair("tiny", impairment=line, seed=5) as pair:
            client, server = connect(pair)
            carry(pair, client, server, bytes(range(256)) * 100)
            return pair.a.counters(), pair.b.counters(), pair.a.toe.engine.read_counters()

    assert trial() == trial()


def test_scripted_peer_sees_arp_and_ping():
    """The documented object in its simplest use: frames in, frames out."""
    with Simulation("tiny", ip="10.0.0.2", mac="02:00:00:00:00:02") as sim:
        peer = Peer()
        Wire(sim, peer)
        ethernet = Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff")
        peer.send(bytes(ethernet / ARP(op=1, hwsrc="02:00:00:00:00:01", psrc="10.0.0.1", pdst="10.0.0.2")))
        sim.run_until(lambda: peer.received, 100_000, "the ARP reply")
        reply = Ether(peer.received.pop()[1])
        assert reply[ARP].op == 2 and reply[ARP].hwsrc == "02:00:00:00:00:02" and reply[ARP].psrc == "10.0.0.2"
        ethernet.dst = "02:00:00:00:00:02"
        peer.send(bytes(ethernet / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(id=5, seq=9) / b"are you there?"))
        sim.run_until(lambda: peer.received, 100_000, "the echo reply")
        reply = Ether(peer.received.pop()[1])
        assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (0, 5, 9)
        assert bytes(reply[ICMP].payload)[:14] == b"are you there?"


def test_refused_and_unreachable():
    with Pair("tiny", driver={"arp_retry_us": 20_000}) as pair:
        client = pair.a.socket()
        client.connect_ex(("10.0.0.2", 4444))
        pair.run_until(client.writable, 60e6, "the refusal")
        with pytest.raises(ConnectionRefusedError):
            raise OSError(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "")
        nobody = pair.a.socket()
        nobody.connect_ex(("10.0.0.77", 80))
        pair.run_until(nobody.writable, 60e6, "the failure")
        assert nobody.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def test_blocking_calls_run_the_clock():
    with Pair("tiny") as pair:
        listener = pair.b.socket()
        listener.bind(("", 80))
        listener.listen()
        listener.settimeout(30)
        client = pair.a.socket()
        client.settimeout(30)
        client.connect(("10.0.0.2", 80))
        client.sendall(b"hello")
        server, _ = listener.accept()
        server.settimeout(30)
        assert server.recv(5) == b"hello"
        server.sendall(b"welcome")
        assert client.recv(7) == b"welcome"
        before = pair.a.now_us()
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert 50_000 <= pair.a.now_us() - before < 60_000
