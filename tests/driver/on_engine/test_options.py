"""Options and TCP_INFO of live connections on the engine itself, seen on the wire (contract rows OPT-1, CAP-2)."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.configs import EVERYTHING
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.netinet.tcp_info import NO_SSTHRESH
from tiptoe_driver.toe.snapshots import info_dict
from tiptoe_hdl.config import TINY
from tiptoe_verif.live.stat_server import snapshot
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment
from tiptoe_verif.wire.pcap import read_pcap
from tiptoe_verif.wire.segment import SYN, Segment, parse_tcp

DELAY_US = 20_000
CC = socket.IPPROTO_TCP, socket.TCP_CONGESTION
A, B = "10.0.0.1", "10.0.0.2"


def pair(out_dir, *, config=TINY, sack: bool = True, **options) -> Pair:
    driver = {"snd_ring_bytes": 1 << 16, "rcv_ring_bytes": 1 << 16, "registers": {reg.REG_MSL_TICKS: 3}, "sack": sack}
    return Pair(config, skip_idle=True, pcap=out_dir / "wire.pcap", driver=driver, memory_bytes=1 << 24, **options)


@pytest.fixture
def two(out_dir) -> Iterator[Pair]:
    """Two engines 20 ms apart."""
    with pair(out_dir, impairment=Impairment(delay_us=DELAY_US)) as made:
        yield made
        made.check()


def connect(
    two: Pair, prepare: Callable[[Socket, Socket], None] = lambda client, listener: None
) -> tuple[Socket, Socket]:
    """A connection from a to b; ``prepare`` has client and listener before they connect and listen."""
    listener, client = two.b.socket(), two.a.socket()
    prepare(client, listener)
    listener.bind(("", 80))
    listener.listen()
    assert client.connect_ex((B, 80)) == errno.EINPROGRESS
    two.run_until(lambda: listener.readable() and client.writable(), 1_000_000, "established")
    server, _ = listener.accept()
    return client, server


def from_ip(two: Pair, ip: str) -> list[tuple[Segment, bytes]]:
    """TCP segments of one side so far, with their frames."""
    two.a.capture.pcap.flush()
    frames = [frame for _, frame in read_pcap(two.a.pcap)]
    source = bytes(map(int, ip.split(".")))
    return [
        (segment, frame) for frame in frames if frame[26:30] == source and (segment := parse_tcp(frame)) is not None
    ]


def carry(two: Pair, source: Socket, sink: Socket, data: bytes) -> None:
    """All of ``data``, and its acknowledgements back."""
    sent, got = 0, bytearray()

    def step() -> bool:
        nonlocal sent
        if sent < len(data):
            try:
                sent += source.send(data[sent:])
            except BlockingIOError:
                pass
        try:
            got.extend(sink.recv(65536))
        except BlockingIOError:
            pass
        assert source.so is not None
        return len(got) == len(data) and source.so.so_snd.sb_cc == 0

    two.run_until(step, 20_000_000, "the data")
    assert got == data


def test_info_round_trip_time_is_the_line_s_and_the_window_opens(two: Pair) -> None:
    """Slow start: SMSS more for each acknowledgement of new data (RFC 5681 section 3.1) that needed cwnd (RFC 7661)."""
    client, server = connect(two)
    before = server.info()
    assert (before.tcpi_snd_cwnd, before.tcpi_snd_ssthresh) == (10 * 1460, NO_SSTHRESH)
    assert 2 * DELAY_US - 1000 <= before.tcpi_rtt <= 2 * DELAY_US + 2000, "the handshake's, of an accepted connection"
    assert before.tcpi_device and before.tcpi_wscale and client.info().tcpi_wscale
    # Two segments are acknowledged at once. What the second two of six do in a window of eleven is not in need of it.
    for segments, grown in ((2, 0), (6, 1)):
        carry(two, server, client, bytes(segments * 1460))
        info = server.info()
        assert 2 * DELAY_US - 1000 <= info.tcpi_rtt <= 2 * DELAY_US + 2000
        assert (info.tcpi_snd_cwnd, info.tcpi_snd_ssthresh) == ((10 + grown) * 1460, NO_SSTHRESH)
    assert info.tcpi_rto >= 2 * DELAY_US and info.tcpi_unacked == info.tcpi_notsent == info.tcpi_snd_rexmitpack == 0


def test_info_tells_times_by_the_simulation_s_tick(out_dir) -> None:
    with pair(out_dir, tick_us=200, impairment=Impairment(delay_us=DELAY_US)) as two:
        client, server = connect(two)
        for _ in range(2):
            carry(two, server, client, bytes(2 * 1460))
        assert 2 * DELAY_US <= server.info().tcpi_rtt <= 2 * DELAY_US + 1000
        assert not server.getblocking()  # as the listener that accepted it
        two.check()


def test_info_counts_the_retransmissions_on_the_wire(out_dir, rng: random.Random) -> None:
    with pair(out_dir, impairment=Impairment(delay_us=2000)) as two:
        client, server = connect(two)
        drop_once(two, 5, 20, 21, 27, 60)
        carry(two, client, server, rng.randbytes(150_000))
        info = client.info()
        highest, again = 0, 0
        begin = info.tcpi_snd_una - 150_000
        for segment, _ in from_ip(two, A):
            if segment.payload:
                again += (segment.seq - begin) % (1 << 32) < highest
                highest = max(highest, (segment.seq - begin) % (1 << 32) + len(segment.payload))
        assert again >= 5 and info.tcpi_snd_rexmitpack == again
        assert info.tcpi_snd_ssthresh < NO_SSTHRESH
        taken = snapshot(two.a)
        assert taken["connections"][0]["info"] == info_dict(info) and taken["engine"]["cycles"] > 1000
        assert taken["devices"][0]["counters"]["TX_RETRANSMITS"] >= again
        two.check()


def headers(two: Pair, ip: str) -> list[tuple[int, int]]:
    """Type of service and time to live of one side's segments."""
    return [(frame[15], frame[22]) for _, frame in from_ip(two, ip)]


@pytest.mark.parametrize("side", ["active", "accepted"])
def test_opt_1_tos_and_ttl_of_a_live_connection(out_dir, side: str) -> None:
    with pair(out_dir) as two:
        client, server = connect(two)
        source, sink, ip = (client, server, A) if side == "active" else (server, client, B)
        carry(two, source, sink, b"before")
        assert set(headers(two, ip)) == {(0, 64)}
        source.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8)
        source.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 7)
        two.run_us(1000)  # a doorbell overtakes a command
        count = len(headers(two, ip))
        carry(two, source, sink, b"behind it")
        carry(two, sink, source, b"and acknowledged")
        two.run_us(60_000)  # what is delayed
        assert set(headers(two, ip)[count:]) == {(0xB8, 7)} and len(headers(two, ip)) > count + 1
        other = B if ip == A else A
        assert set(headers(two, other)) == {(0, 64)}
        two.check()


def test_opt_1_options_of_before_connect_and_listen_are_the_connection_s(out_dir) -> None:
    def prepare(client: Socket, listener: Socket) -> None:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x20)
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 9)

    with pair(out_dir) as two:
        client, server = connect(two, prepare)
        carry(two, client, server, b"there")
        carry(two, server, client, b"back")
        assert [
            header for (segment, _), header in zip(from_ip(two, A), headers(two, A), strict=True) if segment.payload
        ] == [(0x20, 64)]
        assert [
            header for (segment, _), header in zip(from_ip(two, B), headers(two, B), strict=True) if segment.payload
        ] == [(0, 9)]
        two.check()


@pytest.mark.parametrize("side", ["active", "accepted"])
def test_data_sent_right_after_an_option_has_the_new_header_and_size(out_dir, side: str) -> None:
    with pair(out_dir) as two:
        client, server = connect(two)
        source, sink, ip = (client, server, A) if side == "active" else (server, client, B)
        for tos, size in ((0x20, 1000), (0x40, 900), (0x60, 800)):
            before = len(from_ip(two, ip))
            source.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, size)
            carry(two, source, sink, bytes(4000))
            sent = [(segment, frame) for segment, frame in from_ip(two, ip)[before:] if segment.payload]
            assert {frame[15] for _, frame in sent} == {tos}
            assert max(len(segment.payload) for segment, _ in sent) == size
        two.check()


def test_syn_has_the_header_of_before_connect_and_syn_ack_the_segment_size_of_the_listener(out_dir) -> None:
    def prepare(client: Socket, listener: Socket) -> None:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x20)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 600)

    with pair(out_dir) as two:
        client, server = connect(two, prepare)
        carry(two, client, server, bytes(3000))
        carry(two, server, client, bytes(3000))
        assert set(headers(two, A)) == {(0x20, 64)}
        assert from_ip(two, B)[0][0].mss == 600
        for ip in (A, B):
            assert max(len(segment.payload) for segment, _ in from_ip(two, ip)) == 600
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 600
        two.check()


def test_segment_size_set_after_listen_is_in_the_next_syn_ack_on_the_wire(out_dir) -> None:
    with pair(out_dir) as two:
        listener = two.b.socket()
        listener.bind(("", 80))
        listener.listen()
        for size, offered in ((None, 1460), (600, 600), (0, 1460)):
            if size is not None:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, size)
            before = len(from_ip(two, B))
            client = two.a.socket()
            assert client.connect_ex((B, 80)) == errno.EINPROGRESS
            two.run_until(lambda: listener.readable() and client.writable(), 1_000_000, "established")  # noqa: B023
            server, _ = listener.accept()
            carry(two, client, server, bytes(3000))
            syn_acks = [segment for segment, _ in from_ip(two, B)[before:] if segment.flags & SYN]
            assert [segment.mss for segment in syn_acks] == [offered]
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == offered
        two.check()


@pytest.mark.parametrize("nodelay", [False, True])
def test_nagle_holds_small_writes_on_the_wire_unless_nodelay(out_dir, nodelay: bool) -> None:
    """SHLD-7, MUST-17."""
    with pair(out_dir, impairment=Impairment(delay_us=2000)) as two:
        client, server = connect(two)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(nodelay))
        for _ in range(5):
            client.send(b"ten bytes.")
        two.run_us(3000)
        got = bytearray()

        def step() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.extend(server.recv(100))
            return len(got) == 50

        two.run_until(step, 1_000_000, "the data")
        sizes = [len(segment.payload) for segment, _ in from_ip(two, A) if segment.payload]
        assert sizes == ([10] * 5 if nodelay else [10, 40])
        two.check()


def drop_once(two: Pair, *numbers: int) -> None:
    """Lose the first sending of these segments with data of a, counted from 0."""
    channel = two.wire.channels[0]
    send, first = channel.send, {}

    def lossy(frame: bytes, time_us: float) -> list[tuple[float, bytes]]:
        segment = parse_tcp(frame)
        if segment is not None and segment.payload and segment.seq not in first:
            first[segment.seq] = len(first)
            if first[segment.seq] in numbers:
                return []
        return send(frame, time_us)

    channel.send = lossy  # type: ignore[method-assign]


@pytest.mark.parametrize("algorithm, at_once", [(b"newreno", True), (b"reno", False)])
def test_cap_2_two_losses_in_a_window(out_dir, rng: random.Random, algorithm: bytes, at_once: bool) -> None:
    """NewReno answers the partial acknowledgement with the second lost segment (RFC 6582 section 3.2 step 3); Reno's
    recovery ends with it, and the second loss has to be found anew. With SACK both are known at once."""
    with pair(out_dir, sack=False, impairment=Impairment(delay_us=4000)) as two:
        client, server = connect(two)
        client.setsockopt(*CC, algorithm)
        drop_once(two, 2, 6)
        carry(two, client, server, rng.randbytes(10 * 1460))
        counters = two.a.toe.engine.read_counters()
        assert counters["FAST_RETRANSMITS"] >= 1
        assert (counters["FAST_RETRANSMITS"] == 1 and counters["RTO_EXPIRED"] == 0) == at_once
        two.check()


@pytest.mark.parametrize("algorithm", ["newreno", "reno", "cubic", "host"])
def test_every_algorithm_carries_data_over_losses(out_dir, rng: random.Random, algorithm: str) -> None:
    """Both ends are ours; it is the device's default, so the accepted connection has it too."""
    impairment = Impairment(delay_us=4000, loss=0.02)
    with pair(out_dir, config=EVERYTHING, impairment=impairment) as two:
        client, server = connect(two, lambda client, listener: client.setsockopt(*CC, algorithm.encode()))
        carry(two, client, server, rng.randbytes(150_000))
        info = client.info()
        assert info.tcpi_congestion == algorithm and server.info().tcpi_congestion == "cubic"
        assert info.tcpi_losses > 0 and info.tcpi_snd_ssthresh < NO_SSTHRESH
        two.check()


def test_a_host_s_algorithm_on_the_engine(out_dir, rng: random.Random) -> None:
    """Two segments more whenever a window is acknowledged, two thirds after a loss: in Python, from TCP_INFO alone."""
    with pair(out_dir, config=EVERYTHING, impairment=Impairment(delay_us=4000)) as two:
        client, server = connect(two, lambda client, listener: client.setsockopt(*CC, b"host"))
        cwnd, losses, sizes = 4 * 1460, 0, []
        drop_once(two, 40)
        for _ in range(12):
            client.set_cwnd(cwnd, cwnd)
            carry(two, client, server, rng.randbytes(cwnd))
            info = client.info()
            if info.tcpi_losses != losses:
                cwnd, losses = cwnd * 2 // 3, info.tcpi_losses
            else:
                assert info.tcpi_snd_cwnd == cwnd
                cwnd += 2 * 1460
            sizes.append(cwnd)
        assert losses == 1 and sizes[0] == 6 * 1460 and min(b - a for a, b in zip(sizes, sizes[1:], strict=False)) < 0
        two.check()
