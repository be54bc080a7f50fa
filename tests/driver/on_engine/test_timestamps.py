"""Timestamps through the whole engine in native simulation (RFC 7323): negotiated, carried, measured; the wire monitors check
every segment of both engines."""

from __future__ import annotations

import random

import pytest

from tests.driver.on_engine.bench import RINGS, Flow, carry, connect
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_hdl.config import TINY
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment

STAMPED = TINY.with_(name="stamped", timestamps=True)
BOTH_WAYS = pytest.mark.parametrize("ours, theirs", [(True, True), (True, False), (False, True)])


def stamped_pair(ours: bool = True, theirs: bool = True, **options) -> Pair:
    sides = {
        name: {"driver": {**RINGS, "registers": {reg.REG_MSL_TICKS: 3}, "timestamps": on}}
        for name, on in (("a", ours), ("b", theirs))
    }
    return Pair(STAMPED, skip_idle=True, memory_bytes=1 << 22, **sides, **options)


def agreed(two: Pair, *socks) -> list[bool]:
    told = []
    for sock in socks:
        info = sock.info()
        assert info.tcpi_device
        told.append(info.tcpi_timestamps)
        two.run_us(100)
    return told


@BOTH_WAYS
def test_agreed_upon_if_both_want_them(ours: bool, theirs: bool) -> None:
    """Section 3.2; the largest segment is less by them (RFC 6691), as the monitors check."""
    with stamped_pair(ours, theirs) as two:
        client, server, _ = connect(two)
        assert agreed(two, client, server) == [ours and theirs] * 2
        data = random.Random(1).randbytes(20_000)
        up, down = Flow(client, server, data, random.Random(2)), Flow(server, client, data, random.Random(3))
        carry(two, up, down)
        assert bytes(up.got) == data and bytes(down.got) == data
        two.check()
        sent = [flow.timestamps.sent for sim in (two.a, two.b) for _, flow in sim.monitor.all_flows()]
        assert all(count > 10 for count in sent) == (ours and theirs)


@pytest.mark.parametrize(
    "line",
    [
        dict(loss=0.03, duplicate=0.03, reorder=0.05, reorder_us=4000),
        dict(loss=0.1, jitter_us=2000),
        dict(reorder=0.3, reorder_us=30_000),
    ],
    ids=["everything", "loss", "overtaken by a long way"],
)
def test_bad_line(line: dict) -> None:
    """Old segments are refused (section 5), and nothing is refused for good: all arrives, and time-outs end again."""
    with stamped_pair(impairment=Impairment(delay_us=700, seed=5, **line)) as two:
        client, server, _ = connect(two)
        data = random.Random(1).randbytes(60_000)
        up, down = Flow(client, server, data, random.Random(2)), Flow(server, client, data[::-1], random.Random(3))
        carry(two, up, down, timeout_us=120_000_000)
        assert bytes(up.got) == data and bytes(down.got) == data[::-1]
        two.check()
        counts = [side.toe.engine.read_counters() for side in (two.a, two.b)]
        assert all(count["OLD_TIMESTAMPS"] <= count["RX_OUT_OF_WINDOW"] for count in counts)
        assert not line.get("reorder_us", 0) > 10_000 or all(count["OLD_TIMESTAMPS"] for count in counts)


def test_engine_without_them_is_not_asked() -> None:
    """LIMITS says so: the driver leaves the registers alone, and connections go without."""
    with Pair("tiny", skip_idle=True, memory_bytes=1 << 22, driver=RINGS) as two:
        assert not two.a.toe.engine.capabilities.timestamps
        client, server, _ = connect(two)
        assert agreed(two, client, server) == [False, False]
