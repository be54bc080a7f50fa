"""SO_MAX_PACING_RATE on two engines: what of it can be measured on the wire. Their clock has 1 MHz, so the line takes 8 MB/s."""

from __future__ import annotations

import errno
import random
import socket

import pytest

from tests.configs import EVERYTHING
from tests.driver.on_engine.bench import Flow, carry
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.netinet.structures import SO_MAX_PACING_RATE
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment
from tiptoe_verif.wire.pcap import read_pcap
from tiptoe_verif.wire.segment import parse_tcp

RATE = socket.SOL_SOCKET, SO_MAX_PACING_RATE
B = "10.0.0.2"
OURS, THEIRS = 0x0A00_0001, 0x0A00_0002


def pair(out_dir, **options) -> Pair:
    driver = {"snd_ring_bytes": 1 << 16, "rcv_ring_bytes": 1 << 16, "registers": {reg.REG_MSL_TICKS: 3}}
    return Pair(EVERYTHING, pcap=out_dir / "wire.pcap", driver=driver, memory_bytes=1 << 24, **options)


def connect(two: Pair, port: int, rate: int | None = None, listener_rate: int | None = None) -> tuple[Socket, Socket]:
    """Client at a, server at b."""
    listener, client = two.b.socket(), two.a.socket()
    if rate is not None:
        client.setsockopt(*RATE, rate)
    if listener_rate is not None:
        listener.setsockopt(*RATE, listener_rate)
    listener.bind(("", port))
    listener.listen()
    assert client.connect_ex((B, port)) == errno.EINPROGRESS
    two.run_until(lambda: listener.readable() and client.writable(), 1_000_000, "established")
    return client, listener.accept()[0]


def on_wire(two: Pair, sender: int, port: int) -> list[tuple[float, int, int]]:
    """Time in microseconds, SEG.SEQ and bytes of payload of the segments of one side, so far."""
    two.a.capture.pcap.flush()
    seen = []
    for time, frame in read_pcap(two.a.pcap):
        segment = parse_tcp(frame)
        if segment is not None and segment.src == sender and port in (segment.sport, segment.dport):
            seen.append((time / 1000, segment.seq, len(segment.payload)))
    return seen


def measured(segments: list[tuple[float, int, int]]) -> float:
    """Bytes per second, from the first data segment's beginning to the last one's."""
    data = [(time, length) for time, _, length in segments if length]
    return sum(length for _, length in data[:-1]) / (data[-1][0] - data[0][0]) * 1e6


@pytest.mark.parametrize("rate, size", [(5_000, 8_000), (50_000, 30_000), (500_000, 60_000), (2_000_000, 150_000)])
def test_a_rate_is_held_in_both_directions(out_dir, rng: random.Random, rate: int, size: int) -> None:
    """The client's own rate, and the one that the accepted connection has from its listener."""
    with pair(out_dir) as two:
        client, server = connect(two, 80, rate, rate // 2)
        carry(two, Flow(client, server, rng.randbytes(size), rng), Flow(server, client, rng.randbytes(size // 2), rng))
        for sender, limit in ((OURS, rate), (THEIRS, rate // 2)):
            assert 0.95 * limit < measured(on_wire(two, sender, 80)) < 1.01 * limit
        info = client.info()
        assert info.tcpi_max_pacing_rate == rate and 0.99 * rate < info.tcpi_pacing_rate <= rate
        two.check()


def test_acks_of_a_paced_connection_are_not_delayed(out_dir, rng: random.Random) -> None:
    """b's 60 kB do not wait for the 145 ms between a's segments."""
    with pair(out_dir) as two:
        client, server = connect(two, 80, 10_000)
        slow, fast = Flow(client, server, rng.randbytes(6_000), rng), Flow(server, client, rng.randbytes(60_000), rng)
        carry(two, fast, slow)
        times = [time for time, _, length in on_wire(two, THEIRS, 80) if length]
        assert times[-1] - times[0] < 100_000
        assert 0.95 * 10_000 < measured(on_wire(two, OURS, 80)) < 1.01 * 10_000
        two.check()


def test_another_connection_at_full_speed_beside_paced_ones(out_dir, rng: random.Random) -> None:
    with pair(out_dir) as two:
        slow = [connect(two, 81 + n, 10_000) for n in range(4)]
        client, server = connect(two, 80)
        flows = [Flow(*ends, rng.randbytes(6_000), rng) for ends in slow]
        carry(two, Flow(client, server, rng.randbytes(200_000), rng), *flows)
        assert measured(on_wire(two, OURS, 80)) > 2_000_000
        for n in range(4):
            assert 0.95 * 10_000 < measured(on_wire(two, OURS, 81 + n)) < 1.01 * 10_000
        two.check()


def test_a_rate_changes_while_data_waits(out_dir, rng: random.Random) -> None:
    """From next to nothing, minutes a segment, to 500 kB/s; then as fast as may be."""
    with pair(out_dir) as two:
        client, server = connect(two, 80, 1)
        data = rng.randbytes(60_000)
        client.send(data[:30_000])
        two.run_us(20_000)
        assert len([1 for *_, length in on_wire(two, OURS, 80) if length]) == 1
        client.setsockopt(*RATE, 500_000)
        got = bytearray()

        def arrived(size: int) -> bool:
            try:
                got.extend(server.recv(100_000))
            except BlockingIOError:
                pass
            return len(got) >= size

        two.run_until(lambda: arrived(30_000), 100_000, "30 kB at 500 kB/s")
        client.setsockopt(*RATE, -1)
        client.send(data[30_000:])
        two.run_until(lambda: arrived(60_000), 30_000, "30 kB at full speed")
        assert got == data
        two.check()


def test_a_rate_is_held_over_losses(out_dir, rng: random.Random) -> None:
    """Retransmissions are data: no stretch of the line carries more than the rate and three segments."""
    rate = 100_000
    with pair(out_dir, impairment=Impairment(delay_us=1000, loss=0.08)) as two:
        client, server = connect(two, 80, rate)
        carry(two, Flow(client, server, rng.randbytes(100_000), rng))
        data = [(time, seq, length) for time, seq, length in on_wire(two, OURS, 80) if length]
        assert two.a.toe.engine.read_counters()["TX_RETRANSMITS"] > 2
        for k in range(len(data)):
            sent = 0
            for time, _, length in data[k : k + 20]:
                assert sent <= (time - data[k][0]) * rate / 1e6 + 4 * 1460
                sent += length
        two.check()
