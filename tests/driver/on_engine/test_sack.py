"""Selective acknowledgements through the whole engine in native simulation: negotiated (RFC 2018 section 2), and told (4)."""

from __future__ import annotations

import errno

import pytest

from tests.driver.on_engine.clients import OURS, SECOND, THEIRS, Client, Crowd, M
from tests.driver.on_engine.test_cookies import Flooded
from tests.driver.on_engine.test_options import carry, connect, pair
from tiptoe_driver import Socket
from tiptoe_verif.native.simulation import Impairment
from tiptoe_verif.wire.segment import ACK, SYN, Segment, ip_number

PORT = 9
BOTH = pytest.mark.parametrize("peers", [False, True], ids=["peer without", "peer with"])
OWN = pytest.mark.parametrize("own", [False, True], ids=["off", "on"])


class Server:
    """Of the peer's: answers a SYN."""

    ended = None

    def __init__(self, crowd: Crowd, *, permits: bool) -> None:
        self.crowd, self.permits, self.offered = crowd, permits, False
        crowd._by_port[PORT] = self  # type: ignore[assignment]

    def take(self, segment: Segment) -> None:
        if segment.flags & SYN:
            self.offered = segment.sack_ok
            self.crowd.inject(
                Segment(ip_number(THEIRS), ip_number(OURS), PORT, segment.sport, M, segment.seq + 1 & M, SYN | ACK, 8192, 1460,
                        None, b"", self.permits)
            )  # fmt: skip


def tells(crowd: Crowd, sock: Socket) -> bool:
    """What TCP_INFO says, asked of the engine."""
    info = sock.info()
    assert info.tcpi_device
    crowd.turn()
    return info.tcpi_sack


@OWN
@BOTH
def test_accepted_connection_has_them_if_both_permit(own: bool, peers: bool) -> None:
    crowd = Crowd(sack=own)
    crowd.permits, crowd.server_closes = peers, False
    client = crowd.client(5000)
    crowd.until(lambda: crowd.open, SECOND, "the connection")
    assert client.permitted == (own and peers)
    assert tells(crowd, crowd.open[0][0]) == (own and peers)
    crowd.sim.close()


@OWN
@BOTH
def test_connection_opened_from_here_has_them_if_both_permit(own: bool, peers: bool) -> None:
    crowd = Crowd(sack=own)
    server = Server(crowd, permits=peers)
    sock = crowd.sim.socket()
    assert sock.connect_ex((THEIRS, PORT)) == errno.EINPROGRESS
    crowd.until(sock.writable, 3 * SECOND, "the connection")
    assert server.offered == own
    assert tells(crowd, sock) == (own and peers)
    crowd.sim.close()


def test_connection_of_a_syn_cookie_has_none() -> None:
    """Its SYN permitted them, and nothing remembers that: before and after the flood it is otherwise."""
    crowd = Flooded()
    crowd.server_closes = False
    crowd.client(5000)
    crowd.until(lambda: len(crowd.open) == 1, SECOND, "the first")
    crowd.begin()
    before = crowd.counter("SYN_COOKIES")
    client = crowd.client(5001)
    crowd.until(lambda: len(crowd.open) == 2, 20 * SECOND, "the one of the cookie")
    assert crowd.counter("SYN_COOKIES") > before and client.ws is None and not client.permitted
    assert [tells(crowd, sock) for sock, _ in crowd.open] == [True, False]
    crowd.sim.close()


class Jumbled(Client):
    """Sends as the test says; keeps what acknowledges it."""

    def __init__(self, crowd: Crowd, port: int) -> None:
        self.acks: list[Segment] = []
        super().__init__(crowd, port, b"question", closes=False)

    def take(self, segment: Segment) -> None:
        if self.established is not None:
            self.acks.append(segment)
        super().take(segment)

    def piece(self, begin: int, end: int) -> tuple[int, list[tuple[int, int]]]:
        """Send text [begin, end), counted from behind the question; returns the acknowledgement that follows and its blocks."""
        self.acks.clear()
        self._emit(ACK, self.nxt + begin, bytes(end - begin))
        self.crowd.until(lambda: self.acks, SECOND, f"the acknowledgement of {begin} to {end}")
        ack = self.acks[-1]
        assert not ack.payload
        return ack.ack - self.nxt & M, [(left - self.nxt & M, right - self.nxt & M) for left, right in ack.sacks]


def jumbled(crowd: Crowd, port: int) -> Jumbled:
    """A connection whose question is answered."""
    crowd.server_closes = False
    client = crowd._by_port[port] = Jumbled(crowd, port)
    crowd.until(lambda: client.answer == b"answer to question", SECOND, "the answer")
    crowd.sim.run_us(50 * crowd.tick_us)
    crowd.turn()
    return client


def test_blocks_tell_of_what_came_ahead_the_newest_first() -> None:
    crowd = Crowd()
    client = jumbled(crowd, 5000 - 2)  # not far from wrap-around
    a, b, c, d = (100, 200), (300, 400), (500, 600), (700, 800)
    assert client.piece(*b) == (0, [b])
    assert client.piece(*a) == (0, [a, b])
    assert client.piece(*d) == (0, [d, a, b])
    assert client.piece(*c) == (0, [c, a, b, d])
    assert client.piece(900, 1000)[0] == 0, "no place for a fifth"
    assert client.piece(*b) == (0, [b, b, a, c]), "it came again (RFC 2883 section 4.1.3)"
    assert client.piece(350, 500) == (0, [(300, 600), a, d]), "two joined"
    at, rest = client.piece(0, 100)
    assert at == 200 and sorted(rest) == [(300, 600), d]
    assert client.piece(200, 700) == (800, [])
    crowd.sim.close()


def test_no_blocks_for_who_has_not_permitted_them() -> None:
    crowd = Crowd()
    crowd.permits = False
    client = jumbled(crowd, 5000)
    for piece in ((300, 400), (100, 200)):
        assert client.piece(*piece) == (0, [])
    assert client.piece(0, 100) == (200, [])
    crowd.sim.close()


def test_two_engines_on_a_bad_line_tell_each_other(out_dir) -> None:  # type: ignore[no-untyped-def]
    """Both wire monitors look at every block."""
    with pair(out_dir, impairment=Impairment(loss=0.05, reorder=0.05, duplicate=0.02, delay_us=500, seed=7)) as two:
        client, server = connect(two)
        assert client.info().tcpi_sack and server.info().tcpi_sack
        for source, sink in ((client, server), (server, client)):
            carry(two, source, sink, bytes(range(256)) * 400)
        two.check()
        for side in (two.a, two.b):
            assert side.capture.monitor is not None
            assert sum(flow.sack.blocks for _, flow in side.capture.monitor.all_flows()) > 10
