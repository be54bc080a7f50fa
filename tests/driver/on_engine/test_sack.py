"""Selective acknowledgements are negotiated, through the whole engine in native simulation (RFC 2018 section 2)."""

from __future__ import annotations

import errno

import pytest

from tests.driver.on_engine.clients import OURS, SECOND, THEIRS, Crowd, M
from tests.driver.on_engine.test_cookies import Flooded
from tiptoe_driver import Socket
from tiptoe_verif.wire.segment import ACK, SYN, Segment, ip_number

PORT = 9
BOTH = pytest.mark.parametrize("peers", [False, True], ids=["peer without", "peer with"])
OWN = pytest.mark.parametrize("own", [False, True], ids=["off", "on"])


class Server:
    """Of the peer's: answers a SYN."""

    ended = None

    def __init__(self, crowd: Crowd, *, permits: bool) -> None:
        self.crowd, self.permits = crowd, permits
        crowd._by_port[PORT] = self  # type: ignore[assignment]

    def take(self, segment: Segment) -> None:
        if segment.flags & SYN:
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
    crowd.client(5000)
    crowd.until(lambda: crowd.open, SECOND, "the connection")
    assert tells(crowd, crowd.open[0][0]) == (own and peers)
    crowd.sim.close()


@OWN
@BOTH
def test_connection_opened_from_here_has_them_if_both_permit(own: bool, peers: bool) -> None:
    crowd = Crowd(sack=own)
    Server(crowd, permits=peers)
    sock = crowd.sim.socket()
    assert sock.connect_ex((THEIRS, PORT)) == errno.EINPROGRESS
    crowd.until(sock.writable, 3 * SECOND, "the connection")
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
    assert crowd.counter("SYN_COOKIES") > before and client.ws is None
    assert [tells(crowd, sock) for sock, _ in crowd.open] == [True, False]
    crowd.sim.close()
