"""An interface in a network of IEEE 802.1Q tags: the whole of a connection in tagged frames, and nothing of other networks."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.configs import EVERYTHING
from tests.driver.on_engine.bench import Flow, carry, connect, data_and_end, pair
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment, Simulation
from tiptoe_verif.wire.vlan import tag_of, tagged, untagged


class Tap:
    """Sees, and may change, every frame of a direction of the line."""

    def __init__(self, channel: Any, change: Any = None) -> None:
        self.channel, self.change = channel, change
        self.seen: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.channel, name)

    def send(self, frame: bytes, time_us: float) -> list[tuple[float, bytes]]:
        self.seen.append(frame)
        return self.channel.send(self.change(frame) if self.change else frame, time_us)


def engines(a: dict[str, Any], b: dict[str, Any], **options: Any) -> tuple[Pair, tuple[Tap, Tap]]:
    """Two engines whose drivers have these options besides."""
    driver = {
        "snd_ring_bytes": 4096,
        "rcv_ring_bytes": 4096,
        "arp_retry_us": 20_000,
        "registers": {reg.REG_MSL_TICKS: 3},
    }
    two = Pair(
        EVERYTHING, skip_idle=True, memory_bytes=1 << 22, a={"driver": driver | a}, b={"driver": driver | b}, **options
    )
    taps = tuple(Tap(channel) for channel in two.wire.channels)
    two.wire.channels = taps
    return two, taps


@pytest.mark.parametrize(("vlan", "priority"), [(4094, 7), (0, 3)])
def test_connection_in_a_network(vlan: int, priority: int, rng: random.Random) -> None:
    """ARP, handshake, data both ways on a bad line, the end: every frame has the tag, and the pcap shows it."""
    options = {"vlan": vlan, "vlan_priority": priority}
    two, taps = engines(options, options, impairment=Impairment(loss=0.02, reorder=0.02, reorder_us=2000, seed=3))
    with two:
        data_and_end(two, connect(two), rng)
        for tap in taps:
            assert len(tap.seen) > 20 and {tag_of(frame) for frame in tap.seen} == {(vlan, priority)}
            assert min(map(len, tap.seen)) == 64 and max(map(len, tap.seen)) == 1518


def test_priority_tags_are_taken_without_any_setting(rng: random.Random) -> None:
    """As IEEE 802.1Q says of what knows no networks: VID 0 is no network."""
    two, _ = engines({}, {})
    with two:
        two.wire.channels = tuple(Tap(tap.channel, lambda frame: tagged(frame, 0, 5)) for tap in two.wire.channels)
        client, server, _ = connect(two)
        flow = Flow(client, server, rng.randbytes(20_000), rng)
        carry(two, flow)
        assert bytes(flow.got) == bytes(flow.data)
        two.check()


def test_other_networks_and_untagged_frames_are_not_heard(rng: random.Random) -> None:
    """Of each frame the engine gets copies without tag, with a priority tag and of another network, damaged as far as TCP can
    be: nothing of them is seen, but that they count."""
    two, _ = engines({"vlan": 5}, {"vlan": 5})
    with two:
        client, server, _ = connect(two)

        class Strangers(Tap):
            def send(self, frame: bytes, time_us: float) -> list[tuple[float, bytes]]:
                plain = bytearray(untagged(frame))
                if plain[23] == 6:
                    plain[47] |= 4  # RST: with a wrong checksum, but nobody comes to see that
                for stranger in (bytes(plain), tagged(bytes(plain), 0), tagged(bytes(plain), 6)):
                    two.b.inject(stranger)
                return super().send(frame, time_us)

        before = two.b.toe.engine.read_counters()
        first = Strangers(two.wire.channels[0].channel)
        two.wire.channels = (first, two.wire.channels[1])
        flow = Flow(client, server, rng.randbytes(20_000), rng)
        carry(two, flow)
        assert bytes(flow.got) == bytes(flow.data)
        two.run_us(20_000)
        counters = two.b.toe.engine.read_counters()
        assert counters["RX_NOT_FOR_US"] - before["RX_NOT_FOR_US"] == 3 * len(first.seen)
        assert counters["RX_BAD_TCP"] == before["RX_BAD_TCP"] and counters["RX_HOST_FRAMES"] == before["RX_HOST_FRAMES"]
        two.check()


def test_frames_of_a_network_are_the_host_s_without_one() -> None:
    with Simulation(EVERYTHING, memory_bytes=1 << 22) as sim:
        frame = bytes.fromhex("020000000002 020000000009 0800") + bytes(46)
        got: list[bytes] = []
        sim.toe.engine.client.frame_received = lambda view: got.append(bytes(view))
        sim.inject(tagged(frame, 7))
        sim.run_us(2000)
        assert got == [tagged(frame, 7)]


@pytest.mark.parametrize(
    "options", [{"vlan": 4095}, {"vlan": -1}, {"vlan": 5, "vlan_priority": 8}, {"vlan_priority": 1}]
)
def test_numbers_that_no_network_has(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="vlan"):
        Simulation(EVERYTHING, memory_bytes=1 << 22, driver=options)


def test_engine_without_tags_says_so() -> None:
    with pytest.raises(ValueError, match="built without 802.1Q tags"):
        Simulation("tiny", memory_bytes=1 << 22, driver={"vlan": 5})
    with pair() as two:
        engine = two.a.toe.engine
        errors = engine.counters["error_bad_register"]
        two.a.write32(reg.REG_VLAN, reg.VLAN_TAG | 5)
        two.run_us(2000)
        assert engine.counters["error_bad_register"] == errors + 1 and two.a.read32(reg.REG_VLAN) == 0
        engine.counters["error_bad_register"] = 0
