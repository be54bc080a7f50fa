"""Lines that swallow long packets in silence, two whole engines on them: RFC 4821 sections 7.3 and 7.7, RFC 2923 section 2.1.

TCP's clock runs ten times as fast as usual, and so do the driver's times for probes; seconds are seconds of that clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.configs import EVERYTHING
from tests.driver.on_engine.bench import Flow, connect, tp_of
from tests.driver.on_engine.test_ipv6 import A, B, connect_v6
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.netinet import tcp_blackhole
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.wire.impairment import Impairment

TICK_US = 100
SECOND = 1000 * TICK_US
RTO, REXMT_MAX = 140, 7
"""The first time-out in ticks, and those that follow on a connection that has been measured: half as long."""
DELAY = 300
"""Of the line, each way, in microseconds."""
PLAIN: dict[str, Any] = {"sack": False, "timestamps": False}
SACK: dict[str, Any] = {"timestamps": False}


@pytest.fixture(autouse=True)
def fast_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AFTER_ALARM_US", "AFTER_PASSED_US", "AFTER_LOST_US", "AFTER_COMPLAINT_US"):
        monkeypatch.setattr(tcp_blackhole, name, getattr(tcp_blackhole, name) * TICK_US // 1000)


@pytest.fixture
def make() -> Iterator[Callable[..., Pair]]:
    pairs = []

    def made(longest_packet: int = 0, rexmt_max: int = REXMT_MAX, **options: Any) -> Pair:
        registers = {
            reg.REG_MSL_TICKS: 3,
            reg.REG_RTO_INITIAL: RTO,
            reg.REG_RTO_MIN: RTO // 2,
            reg.REG_RETRIES: 6 << reg.RETRIES_SYN_RETRIES_SHIFT | rexmt_max << reg.RETRIES_REXMT_MAX_SHIFT,
        }
        driver = {"snd_ring_bytes": 16384, "rcv_ring_bytes": 16384, "arp_retry_us": 20_000, "registers": registers}
        a, b = ({"driver": driver | {"ipv6": f"{address}/64"} | options} for address in (A, B))
        line = Impairment(delay_us=DELAY, longest_packet=longest_packet)
        pairs.append(Pair(EVERYTHING, skip_idle=True, memory_bytes=1 << 22, tick_us=TICK_US, a=a, b=b, impairment=line))
        return pairs[-1]

    yield made
    for pair in pairs:
        pair.check()
        pair.close()


def hole(two: Pair, longest_packet: int, **line: Any) -> None:
    """From now on the line is so."""
    for channel in two.wire.channels:
        channel.impairment = Impairment(delay_us=DELAY, longest_packet=longest_packet, **line)


class Stream:
    """Writes all it can and reads all there is, and compares; without end."""

    def __init__(self, source: Socket, sink: Socket) -> None:
        self.source, self.sink = source, sink
        self.data = random.Random(1).randbytes(1 << 16)
        self.sent = self.got = 0

    def turn(self) -> None:
        try:
            while True:
                at = self.sent % len(self.data)
                self.sent += self.source.send(self.data[at : at + 8192])
        except BlockingIOError:
            pass
        try:
            while got := self.sink.recv(8192):
                at = self.got % len(self.data)
                assert got == (self.data[at:] + self.data)[: len(got)]
                self.got += len(got)
        except BlockingIOError:
            pass

    def for_s(self, two: Pair, seconds: float) -> Stream:
        end = two.a.now_us() + seconds * SECOND
        while two.a.now_us() < end:
            self.turn()
            two.run_us(500)
        return self


@pytest.mark.parametrize(
    ("longest", "mss", "connects", "version", "options"),
    [
        (1400, 1200, True, 4, {}),
        (1280, 1200, False, 4, PLAIN),
        (600, 536, True, 4, SACK),
        (600, 536, False, 4, {}),
        (1400, 1220, False, 6, {}),
        (1280, 1220, True, 6, PLAIN),
    ],
)
def test_black_hole_from_the_beginning(
    make: Callable[..., Pair], longest: int, mss: int, connects: bool, version: int, options: dict[str, Any]
) -> None:
    """Small handshakes pass, then all is lost; who has connected sends, or who has accepted; and closes."""
    two = make(longest, **options)
    client, server, _ = (connect if version == 4 else connect_v6)(two)
    source, sink = (client, server) if connects else (server, client)
    rng = random.Random(longest)
    flow = Flow(source, sink, rng.randbytes(12_000), rng)
    began, tp = two.a.now_us(), tp_of(source)

    def done() -> bool:
        if not flow.ended:
            flow.turn()
        return flow.ended

    two.run_until(done, 10 * SECOND, "all of it")
    assert flow.got == flow.data and tp.t_maxseg == mss
    # Three time-outs and a look, and where 1200 is too much two more and a look.
    falls = (2 + 4 + 8 if mss != 536 else 2 + 4 + 8 + 16 + 32) * RTO // 2 + (2 if mss != 536 else 4) * 500
    assert two.a.now_us() - began < (falls + 1000) * TICK_US
    toe = (two.a if connects else two.b).toe
    falls_to = [n for n in (1200, 1220, 536) if n >= mss and (n == 1220) == (version == 6)]
    assert toe.counters["pmtud_blackhole_activated"] + toe.counters["pmtud_blackhole_activated_min_mss"] == len(
        falls_to
    )


@pytest.mark.parametrize("options", [{}, SACK, PLAIN], ids=["timestamps", "sack", "plain"])
def test_black_hole_in_mid_stream_that_heals(make: Callable[..., Pair], options: dict[str, Any]) -> None:
    """Full segments within two seconds of the first that gets on again, where the hole was there for that long only."""
    two = make(**options)
    client, server, _ = connect(two)
    stream = Stream(client, server).for_s(two, 0.2)
    tp, counters = tp_of(client), two.a.toe.counters
    assert stream.got and tp.t_maxseg == 1460
    hole(two, 1400)
    while tp.t_maxseg == 1460:
        stream.for_s(two, 0.01)
    before = stream.got
    stream.for_s(two, 0.2)
    assert tp.t_maxseg == 1200 and stream.got > before
    hole(two, 0)
    stream.for_s(two, 2)
    assert tp.t_maxseg == 1460 and tp.t_mtup is None and counters["pmtud_probes_passed"] == 1


def test_probe_that_is_lost_is_no_congestion(make: Callable[..., Pair]) -> None:
    """RFC 4821 section 7.6.2: windows, the count of losses and of time-outs stay as they are."""
    two = make(1400)
    client, server, _ = connect(two)
    stream, counters, before, lost = Stream(client, server), two.a.toe.counters, None, 0
    while lost < 3:
        stream.for_s(two, 0.02)
        info = client.info()
        if counters["pmtud_probes_lost"] > lost:
            lost += 1
            assert before is not None and info.tcpi_losses == before.tcpi_losses and info.tcpi_rxtshift == 0
            assert info.tcpi_snd_cwnd >= before.tcpi_snd_cwnd and info.tcpi_snd_ssthresh == before.tcpi_snd_ssthresh
        before = info
    stream.for_s(two, 1)
    assert stream.got > 100_000


def test_loss_alone_leaves_no_small_segments_for_good(
    make: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 20 % of all frames lost three time-outs in a row do happen; a probe's loss is believed when it is the third, and what
    is found then for as long as the search rests (here four seconds instead of ten minutes)."""
    monkeypatch.setattr(tcp_blackhole, "AFTER_COMPLAINT_US", 4 * SECOND)
    two = make()
    client, server, _ = connect(two)
    hole(two, 0, loss=0.2, seed=3)
    stream = Stream(client, server).for_s(two, 8)
    hole(two, 0)
    stream.for_s(two, 5)
    assert tp_of(client).t_maxseg == 1460 and stream.got > 20_000


def test_silent_peer_ends_when_it_did(make: Callable[..., Pair]) -> None:
    """R2 (RFC 9293 section 3.8.3) is counted in time-outs; smaller segments are none."""

    def silent_for(**options: Any) -> int:
        two = make(rexmt_max=5, **options)
        client, _, _ = connect(two)
        client.send(bytes(12_000))
        hole(two, 0, loss=1.0)
        began = two.a.now_us()
        two.run_until(lambda: client.so.so_error, 100 * SECOND, "R2")
        counters = two.a.toe.counters
        assert counters["pmtud_blackhole_activated"] == options.get("pmtud_blackhole", True)
        return two.a.now_us() - began

    assert abs(silent_for() - silent_for(pmtud_blackhole=False)) <= 3 * TICK_US
