"""SYN cookies keep scale and selective acknowledgements through timestamps (RFC 7323), in the whole
engine, in native simulation."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.driver.on_engine.bench import RINGS, Flow, carry, connect
from tests.driver.on_engine.clients import SECOND, Client
from tests.driver.on_engine.test_cookies import CASES, Flooded
from tiptoe_hdl.config import TINY
from tiptoe_verif.native.pair import Pair

STAMPED = TINY.with_(name="stamped", timestamps=True)


class Stamped(Flooded):
    """Clients whose SYNs have timestamps."""

    stamps = True

    def __init__(self) -> None:
        super().__init__(STAMPED)
        self.server_closes = False
        self.turn()
        self.loses = lambda ours, segment, before: False


@pytest.fixture(scope="module")
def crowd() -> Iterator[Stamped]:
    """One engine for all these tests."""
    made = Stamped()
    yield made
    made.sim.close()


def through_a_cookie(crowd: Stamped, port: int) -> Client:
    """A connection whose SYN found no room, the question answered."""
    crowd.begin()
    before, had = crowd.counter("SYN_COOKIES"), len(crowd.open)
    client = crowd.client(port)
    crowd.until(lambda: client.answer == b"answer to question", 20 * SECOND, "the answer")
    assert crowd.counter("SYN_COOKIES") > before and len(crowd.open) == had + 1 and not client.reset
    crowd.flooding = False
    crowd.loses = lambda ours, segment, before: False
    return client


def ended(crowd: Stamped) -> None:
    """The server closes, and the client with it."""
    while crowd.open:
        crowd.open.pop()[0].close()
    crowd.until(lambda: not crowd.under_way, 20 * SECOND, "the end")


@pytest.mark.parametrize("lost", [case for case in CASES if "FIN" not in case])
def test_scale_blocks_and_timestamps_are_agreed_upon(crowd: Stamped, lost: str) -> None:
    """Whatever is lost: also when the first data is what returns the cookie. Nothing that follows is older than its
    SYN,ACK (section 5.3), and the windows are counted in the peer's units: 8192 times 128, here."""
    crowd.loses = CASES[lost][0]
    client = through_a_cookie(crowd, 6000 + list(CASES).index(lost))
    assert client.ws is not None and client.permitted and client.stamped and not client.old
    info = crowd.open[0][0].info()
    assert info.tcpi_device and info.tcpi_sack and info.tcpi_timestamps
    assert (info.tcpi_snd_wscale, info.tcpi_rcv_wscale) == (7, client.ws)
    assert info.tcpi_snd_wnd == 8192 << 7
    ended(crowd)


def test_peer_without_timestamps_gets_none_of_them(crowd: Stamped) -> None:
    crowd.stamps = False
    client = through_a_cookie(crowd, 6100)
    crowd.stamps = True
    assert client.ws is None and not client.permitted and not client.stamped
    info = crowd.open[0][0].info()
    assert info.tcpi_device and not info.tcpi_sack and not info.tcpi_timestamps
    assert (info.tcpi_snd_wscale, info.tcpi_rcv_wscale, info.tcpi_snd_wnd) == (0, 0, 8192)
    ended(crowd)


def test_first_round_trip_is_measured_from_the_cookie_s_tsval(crowd: Stamped) -> None:
    """Which is up to 63 ticks old; the time-out is not the three seconds of a SYN,ACK that was lost."""
    through_a_cookie(crowd, 6200)
    info = crowd.open[0][0].info()
    assert info.tcpi_device
    assert 0 < info.tcpi_rtt <= 100 * crowd.tick_us and info.tcpi_rto <= 300 * crowd.tick_us
    ended(crowd)


def test_between_two_engines_both_know_of_them() -> None:
    """With one id in stock every SYN gets a cookie. The end that opened is strict about what is old, and is answered by windows
    in the units that it reads."""
    with Pair(
        STAMPED, memory_bytes=1 << 22, a={"driver": RINGS}, b={"driver": {**RINGS, "syn_cookies": True, "stock": 1}},
    ) as two:  # fmt: skip
        client, server, _ = connect(two)
        assert two.b.toe.engine.read_counters()["SYN_COOKIES"]
        infos = []
        for sock in (client, server):
            infos.append(sock.info())
            two.run_us(100)
        assert all(info.tcpi_device and info.tcpi_sack and info.tcpi_timestamps for info in infos)
        ours, theirs = infos
        assert (ours.tcpi_snd_wscale, ours.tcpi_rcv_wscale) == (theirs.tcpi_rcv_wscale, theirs.tcpi_snd_wscale)
        data = random.Random(1).randbytes(30_000)
        up, down = Flow(client, server, data, random.Random(2)), Flow(server, client, data[::-1], random.Random(3))
        carry(two, up, down)
        assert bytes(up.got) == data and bytes(down.got) == data[::-1]
        assert not any(side.toe.engine.read_counters()["OLD_TIMESTAMPS"] for side in (two.a, two.b))
        two.check()
