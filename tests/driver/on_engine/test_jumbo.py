"""Packets of up to 9000 bytes: bulk, what peers and paths take, a frame of a byte too many, a ring of less than two segments."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.configs import JUMBO
from tests.driver.on_engine.bench import A_MAC, Flow, carry, connect, data_and_end, pair
from tests.driver.on_engine.test_vlan import Tap
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Conditions, Impairment

MTU = 9000
LONGEST = MTU + 14


def engines(*, ring: int = 1 << 17, **options: Any) -> tuple[Pair, tuple[Tap, Tap]]:
    """Two engines, and who sees the frames of each."""
    driver = {
        "snd_ring_bytes": ring,
        "rcv_ring_bytes": ring,
        "arp_retry_us": 20_000,
        "registers": {reg.REG_MSL_TICKS: 3},
    }
    driver |= options.pop("driver", {})
    two = Pair(JUMBO, skip_idle=True, memory_bytes=1 << 25, driver=driver, **{"mtu": MTU, **options})
    taps = tuple(Tap(channel) for channel in two.wire.channels)
    two.wire.channels = taps
    return two, taps


def longest(tap: Tap) -> int:
    return max(map(len, tap.seen))


def both_ways(two: Pair, ends: tuple[Any, Any, Any], size: int, rng: random.Random) -> None:
    client, server, _ = ends
    flows = [Flow(*way, rng.randbytes(size), rng) for way in ((client, server), (server, client))]
    carry(two, *flows)
    for flow in flows:
        assert bytes(flow.got) == bytes(flow.data)
    two.check()


@pytest.mark.parametrize(("timestamps", "mss"), [(False, 8960), (True, 8948)])
def test_bulk_both_ways(timestamps: bool, mss: int, rng: random.Random) -> None:
    """RFC 6691: timestamps take their part of the segment. RFC 6928: two such segments are the initial window."""
    two, taps = engines(driver={"timestamps": timestamps})
    with two:
        ends = connect(two)
        for sock in ends[:2]:
            info = sock.info()
            assert (info.tcpi_snd_mss, info.tcpi_snd_cwnd) == (mss, 2 * mss)
        both_ways(two, ends, 400_000, rng)
        assert [longest(tap) for tap in taps] == [LONGEST] * 2


@pytest.mark.parametrize(
    "line",
    [
        Impairment(loss=0.03, reorder=0.03, duplicate=0.02, corrupt=0.02, delay_us=300, reorder_us=2000, seed=5),
        Impairment(delay_us=300, rate_bytes_s=5_000_000, queue_frames=6, seed=6),
    ],
    ids=["bad", "narrow"],
)
def test_bulk_over_a_line_that_loses(line: Impairment, rng: random.Random) -> None:
    hostile = Conditions(
        memory_latency=60, memory_jitter=60, memory_stall=0.2, rx_stall=0.1, tx_stall=0.1, register_stall=0.1
    )
    two, taps = engines(impairment=line, conditions=hostile)
    with two:
        data_and_end(two, connect(two), rng)
        both_ways(two, connect(two, 81), 300_000, rng)
        assert [longest(tap) for tap in taps] == [LONGEST] * 2


@pytest.mark.parametrize("small", ["a", "b"])
def test_a_peer_of_1500_bytes(small: str, rng: random.Random) -> None:
    """RFC 9293 section 3.7.1: who opens, or who is opened to, says what it takes."""
    two, taps = engines(**{small: {"mtu": 1500}})
    with two:
        ends = connect(two)
        assert [sock.info().tcpi_snd_mss for sock in ends[:2]] == [1460 - 12] * 2
        both_ways(two, ends, 60_000, rng)
        assert [longest(tap) for tap in taps] == [1514] * 2


def test_a_path_that_falls_to_1500_in_mid_stream(rng: random.Random) -> None:
    """RFC 1191: a router tells that it had to drop; all that was under way goes again in segments that pass."""
    two, taps = engines()
    router = {"narrow": False, "dropped": 0}

    class Router(Tap):
        def send(self, frame: bytes, time_us: float) -> list[tuple[float, bytes]]:
            if router["narrow"] and len(frame) > 1514:
                router["dropped"] += 1
                told = Ether(src="02:00:00:00:00:02", dst=A_MAC) / IP(src="10.0.0.254", dst="10.0.0.1")
                two.a.inject(bytes(told / ICMP(type=3, code=4, nexthopmtu=1500) / Raw(frame[14:42])), time_us + 50)
                return []
            return super().send(frame, time_us)

    with two:
        ends = connect(two)
        two.wire.channels = (Router(taps[0].channel), two.wire.channels[1])
        client, server, _ = ends
        flow = Flow(client, server, rng.randbytes(600_000), rng)
        two.run_until(lambda: flow.turn() or len(flow.got) > 200_000, 30_000_000, "a third")
        router["narrow"] = True
        carry(two, flow)
        assert bytes(flow.got) == bytes(flow.data) and router["dropped"]
        assert client.info().tcpi_snd_mss == 1460 - 12
        sent = two.wire.channels[0].seen
        assert max(map(len, sent)) == LONGEST and max(map(len, sent[-100:])) == 1514
        two.check()


def test_frames_of_the_host_and_a_byte_too_many() -> None:
    """The longest frame goes through, both ways; one of a byte more is counted, and nothing of it is seen or sent."""
    two, _ = engines()
    with two:
        got: list[bytes] = []
        two.b.toe.hostif.input_hook = lambda frame: got.append(frame) or True
        frames = [
            bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x88B5) / Raw(bytes([n]) * length))
            for n, length in enumerate((MTU, MTU - 1, 1501, 46, MTU, MTU, MTU))
        ]
        for frame in frames:
            assert two.a.toe.hostif.transmit(frame)
        two.run_until(lambda: len(got) == len(frames), 100_000, "frames of the host")
        assert got == frames
        assert not two.a.toe.hostif.transmit(frames[0] + b"x")
        two.b.inject(frames[0] + b"x")
        two.b.inject(frames[1])
        two.run_until(lambda: len(got) > len(frames), 100_000, "the frame behind")
        assert got[len(frames) :] == [frames[1]]
        assert two.b.toe.engine.read_counters()["RX_BAD_FRAME"] == 1
        two.check()


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_rings_of_less_than_two_segments(loss: float, rng: random.Random) -> None:
    """The smallest rings, 16 KiB: windows open by half the ring, and are less than two segments."""
    two, taps = engines(ring=1 << 14, impairment=Impairment(loss=loss, delay_us=200, seed=9))
    with two:
        both_ways(two, connect(two), 150_000, rng)
        assert [longest(tap) for tap in taps] == [LONGEST] * 2


def test_smaller_rings_are_refused() -> None:
    with pytest.raises(ValueError, match="send ring of 8192 bytes: must be a power of two from 16384"):
        engines(ring=1 << 13)


def test_an_engine_without_long_frames_refuses_the_mtu() -> None:
    with pytest.raises(ValueError, match="carries 1500 at most; EngineConfig.with_mtu is for more, up to 9000"):
        pair(mtu=MTU)
    with pair() as two:
        with pytest.raises(ValueError, match="MTU of 1501 bytes: this engine carries 1500 at most"):
            two.a.toe.if_set_mtu(1501)
        assert two.a.toe.tod_ifp.if_mtu == 1500
