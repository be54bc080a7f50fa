"""Explicit congestion notification between two engines on a line whose queue marks (RFC 3168, RFC 8257)."""

from __future__ import annotations

import socket

from tests.configs import EVERYTHING
from tests.driver.on_engine.test_options import CC, carry, connect, from_ip
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment
from tiptoe_verif.wire.segment import CWR, ECE, SYN

A, B = "10.0.0.1", "10.0.0.2"
BOTTLENECK = {"rate_bytes_s": 4e6, "delay_us": 1000.0, "queue_frames": 30, "seed": 7}
"""Eight kilobytes fill the way and back, so the queue is four times as long."""
MARK_AT = 6
LENGTH = 600_000


def line(out_dir, *, marks: bool = True, ours: dict | None = None, **both) -> Pair:
    """``ours``: options of the driver of the first engine, which offers ECN; ``both``: of both."""
    rules = Impairment(**BOTTLENECK, mark_frames=MARK_AT if marks else 0)
    driver = {"snd_ring_bytes": 1 << 16, "rcv_ring_bytes": 1 << 16, "registers": {reg.REG_MSL_TICKS: 3}} | both
    return Pair(
        EVERYTHING, pcap=out_dir / "wire.pcap", impairment=rules, memory_bytes=1 << 24,
        a={"driver": driver | {"ecn": "offer"} | (ours or {})}, b={"driver": driver},
    )  # fmt: skip


def flags_of(two: Pair, ip: str) -> list[int]:
    return [segment.flags for segment, _ in from_ip(two, ip)]


def test_on_a_line_that_marks_nothing_is_lost(out_dir, rng) -> None:
    """The queue has room for more than the marks let in; without ECN the same line loses."""
    with line(out_dir) as two:
        client, server = connect(two)
        carry(two, client, server, rng.randbytes(LENGTH))
        there, info = two.wire.channels[0], client.info()
        assert info.tcpi_ecn and server.info().tcpi_ecn and server.info().tcpi_ecn_seen and not info.tcpi_ecn_seen
        assert there.dropped == 0 and there.marked > 0 and info.tcpi_snd_rexmitpack == 0
        assert info.tcpi_losses >= 2
        ours, theirs = flags_of(two, A), flags_of(two, B)
        assert ours[0] & (SYN | ECE | CWR) == SYN | ECE | CWR and theirs[0] & (SYN | ECE | CWR) == SYN | ECE
        assert sum(bool(flags & CWR) for flags in ours[1:]) == info.tcpi_losses, "CWR for each reduction"
        assert any(flags & ECE for flags in theirs[1:])
        two.check()


def test_without_ecn_the_same_line_loses(out_dir, rng) -> None:
    with line(out_dir, ours={"ecn": "off"}) as two:
        client, server = connect(two)
        carry(two, client, server, rng.randbytes(LENGTH))
        assert two.wire.channels[0].dropped > 0 and not client.info().tcpi_ecn
        assert not any(flags & (ECE | CWR) for ip in (A, B) for flags in flags_of(two, ip))
        assert not any(frame[15] & 3 for ip in (A, B) for _, frame in from_ip(two, ip))
        two.check()


def steady_queue(two: Pair, rng) -> tuple[int, float]:
    """The longest queue behind the first third of a transfer, and how long the rest took, in microseconds."""
    client, server = connect(two)
    carry(two, client, server, rng.randbytes(LENGTH // 3))
    there = two.wire.channels[0]
    there.longest, begin = 0, two.a.time_ns
    carry(two, client, server, rng.randbytes(2 * LENGTH // 3))
    assert there.dropped == 0 and there.marked > 0 and client.info().tcpi_snd_rexmitpack == 0
    two.check()
    return there.longest, (two.a.time_ns - begin) / 1000


def test_dctcp_keeps_the_queue_short(out_dir, rng) -> None:
    """RFC 8257 section 1: the queue stays near the threshold, and the line busy."""
    with line(out_dir, congestion="dctcp") as two:
        two.a.monitor.accurate = two.b.monitor.accurate = True
        longest, took_us = steady_queue(two, rng)
        least_us = 1e6 * 2 * LENGTH / 3 / BOTTLENECK["rate_bytes_s"]
        assert longest <= MARK_AT + 6, "a few segments above: what was under way when the first mark came"
        assert took_us < 1.15 * least_us + 40_000, "the last acknowledgement may be delayed"
        marked = [frame[15] & 3 for segment, frame in from_ip(two, B) if not segment.flags & SYN]
        assert set(marked) == {2}, "acknowledgements too"


def test_dctcp_of_one_socket_offers_ecn_though_the_engine_only_accepts_it(out_dir, rng) -> None:
    def ask(client: Socket, listener: Socket) -> None:
        client.setsockopt(*CC, b"dctcp")

    with line(out_dir, ours={"ecn": "accept"}) as two:
        two.a.monitor.accurate = True
        client, server = connect(two, ask)
        carry(two, client, server, rng.randbytes(20_000))
        assert client.info().tcpi_ecn and client.info().tcpi_congestion == "dctcp"
        assert server.info().tcpi_ecn and server.info().tcpi_congestion == "cubic"
        plain, other = connect_again(two)
        carry(two, plain, other, rng.randbytes(2000))
        assert not plain.info().tcpi_ecn
        two.check()


def connect_again(two: Pair) -> tuple[Socket, Socket]:
    listener, client = two.b.socket(), two.a.socket()
    listener.bind(("", 81))
    listener.listen()
    client.connect_ex((B, 81))
    two.run_until(lambda: listener.readable() and client.writable(), 1_000_000, "established")
    return client, listener.accept()[0]


def test_type_of_service_of_the_host_leaves_ecn_alone(out_dir, rng) -> None:
    """IP_TOS, and whatever stands in the register: DSCP is the host's, the two bits below the engine's."""
    with line(out_dir) as two:
        two.a.write32(reg.REG_IP_HEADER, 64 | 0x2B << 8)
        client, server = connect(two)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB9)
        carry(two, client, server, rng.randbytes(20_000))
        seen = {(frame[15], bool(segment.payload)) for segment, frame in from_ip(two, A)}
        assert seen == {(0x28, False), (0xBA, True), (0xB8, False)} or seen == {(0x28, False), (0xBA, True)}
        two.check()
