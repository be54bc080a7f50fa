"""SO_MAX_PACING_RATE on its way to the device (contract row OPT-1)."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest

from tests.driver.bench import PEER_IP, Bench
from tests.driver.fake_device import FakeDevice
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.structures import SO_MAX_PACING_RATE
from tiptoe_driver.netinet.tcp_info import NO_PACING_RATE, linux_tcp_info, tcp_info
from tiptoe_hdl.host.abi import Opcode

RATE = socket.SOL_SOCKET, SO_MAX_PACING_RATE
CLOCK = 125_000_000


def told(bench: Bench) -> list[tuple[Any, Any]]:
    """Id and interval of each SET_PACING."""
    return [(command["tid"], command["interval"]) for command in bench.device.ops(Opcode.SET_PACING)]


@pytest.mark.parametrize(
    "rate, interval",
    [
        (125_000_000, 4096),
        (1_000_000_000, 512),
        (10_000, 51_200_000),
        (1_000_000, 512_000),
        (999_999_999, 513),  # never more than asked for
        (1, (1 << 30) - 1),
        (0, 0),
        (-1, 0),
        (struct.pack("=I", 0xFFFF_FFFF), 0),
        (struct.pack("=I", 3_000_000_000), 171),
        (struct.pack("=Q", 5_000_000_000), 103),
        (struct.pack("=Q", CLOCK << 12), 0),
        (struct.pack("=Q", (1 << 64) - 1), 0),
    ],
)
def test_a_rate_of_a_live_connection_reaches_the_device(bench: Bench, rate: int | bytes, interval: int) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(*RATE, 77_777)
    conn.sock.setsockopt(*RATE, rate)
    assert told(bench)[1:] == [(conn.tid, interval)]


@pytest.mark.parametrize("clock_hz", [125_000_000, 400_000_000])
def test_the_interval_is_in_the_engine_s_clock(clock_hz: int) -> None:
    bench = Bench(clock_hz=clock_hz)
    conn = bench.connected()
    conn.sock.setsockopt(*RATE, 1_000_000)
    assert told(bench) == [(conn.tid, clock_hz * 4096 // 1_000_000)]


def test_what_getsockopt_tells(bench: Bench) -> None:
    sock = bench.socket()
    assert sock.getsockopt(*RATE) == -1 and sock.getsockopt(*RATE, 4) == b"\xff" * 4
    assert sock.getsockopt(*RATE, 8) == b"\xff" * 8
    sock.setsockopt(*RATE, 1_000_000)
    assert sock.getsockopt(*RATE) == 1_000_000 and sock.getsockopt(*RATE, 8) == struct.pack("=Q", 1_000_000)
    sock.setsockopt(*RATE, struct.pack("=Q", 1 << 40))
    assert sock.getsockopt(*RATE, 4) == b"\xff" * 4 and sock.getsockopt(*RATE, 8) == struct.pack("=Q", 1 << 40)
    sock.setsockopt(*RATE, struct.pack("=I", 0xFFFF_FFFE))
    assert sock.getsockopt(*RATE, 8) == struct.pack("=Q", 0xFFFF_FFFE)


@pytest.mark.parametrize("value", [b"", b"\1\0\0", 1 << 64])
def test_wrong_values_are_refused(bench: Bench, value: int | bytes) -> None:
    sock = bench.socket()
    with pytest.raises(OSError) as caught:
        sock.setsockopt(*RATE, value)
    assert caught.value.errno == errno.EINVAL and sock.getsockopt(*RATE) == -1


def test_a_rate_before_connect_is_told_before_any_data(bench: Bench) -> None:
    sock = bench.socket()
    sock.setsockopt(*RATE, 1_000_000)
    assert told(bench) == []
    bench.know_peer()
    sock.connect_ex((PEER_IP, 80))
    tid = bench.device.last(Opcode.OPEN)["tid"]
    assert [c["op"] for c in bench.device.ops(Opcode.OPEN, Opcode.SET_PACING)] == [Opcode.OPEN, Opcode.SET_PACING]
    assert told(bench) == [(tid, 512_000)]


def test_an_accepted_connection_has_its_listener_s_rate(bench: Bench) -> None:
    listener = bench.listening()
    listener.setsockopt(*RATE, 2_000_000)
    bench.syn(0)
    conn = bench.handshake_done(0)
    server, _ = listener.accept()
    assert server.getsockopt(*RATE) == 2_000_000
    assert told(bench) == [(conn.tid, 256_000)]
    server.setsockopt(*RATE, -1)
    assert told(bench)[1:] == [(conn.tid, 0)] and listener.getsockopt(*RATE) == 2_000_000


def test_an_engine_without_pacing_is_told_nothing() -> None:
    device = FakeDevice()
    device.registers[reg.REG_LIMITS] &= ~reg.LIMITS_PACING
    bench = Bench(device)
    sock = bench.socket()
    sock.setsockopt(*RATE, 1_000_000)
    bench.know_peer()
    sock.connect_ex((PEER_IP, 80))
    sock.setsockopt(*RATE, 2_000_000)
    assert bench.device.ops(Opcode.OPEN) and told(bench) == [] and sock.getsockopt(*RATE) == 2_000_000


def test_options_beside_it_do_not_tell_it_again(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(*RATE, 1_000_000)
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert len(told(bench)) == 1


def test_after_the_end_no_device_is_told(bench: Bench) -> None:
    conn = bench.connected()
    conn.end()
    conn.sock.setsockopt(*RATE, 1_000_000)
    assert told(bench) == [] and conn.tp.t_max_pacing_rate == 1_000_000


def test_linux_s_tcp_info_has_both_rates() -> None:
    """tcpi_pacing_rate at byte 104, tcpi_max_pacing_rate behind it."""
    packed = linux_tcp_info(
        tcp_info(tcpi_state=State.ESTABLISHED, tcpi_pacing_rate=999_000, tcpi_max_pacing_rate=1_000_000)
    )
    assert struct.unpack_from("=2Q", packed, 104) == (999_000, 1_000_000)
    assert struct.unpack_from("=2Q", linux_tcp_info(tcp_info(tcpi_state=State.ESTABLISHED)), 104) == (
        NO_PACING_RATE,
        NO_PACING_RATE,
    )
