"""SYN cookies with the Linux kernel as the peer: what its SYN offers is kept through timestamps (RFC 7323). Without
them nothing is."""

import socket

import pytest

from tests.live.conftest import ENGINE
from tests.live.test_ecn import kernel_with
from tests.live.test_timestamps import STAMPED, settled
from tiptoe_verif.wire.segment import ACK, ECE, SYN, ip_number

pytestmark = pytest.mark.tap
TIMESTAMPS, SACK, WSCALE, ECN = 1, 2, 4, 8
"""TCPI_OPT_ of Linux."""


def kernel_says(sock: socket.socket) -> tuple[int, int, int]:
    """tcpi_options without what is not of the handshake, the peer's scale, its own."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    return info[5] & (TIMESTAMPS | SACK | WSCALE | ECN), info[6] & 15, info[6] >> 4


@pytest.mark.parametrize("kernel", [1, 0])
@pytest.mark.parametrize("ecn", [1, 0])
def test_a_kernel_gets_in_through_a_cookie_with_what_its_syn_offered(make_bench, payload, kernel, ecn):
    """With one id in stock, which is kept for those who return a cookie, every SYN gets one. Data flows both ways, so
    windows are read in the same units at both ends."""
    bench = settled(make_bench, kernel, driver={"syn_cookies": True, "stock": 1})
    assert bench.engine.toe.engine.options.timestamps and STAMPED.timestamps
    kernel_with(bench, ecn)
    listener = bench.offloaded_listener(80)
    for _ in range(2):
        cookies = bench.engine.toe.engine.read_counters()["SYN_COOKIES"]
        client, server = bench.connect(80), bench.offloaded_accept(listener)
        assert bench.engine.toe.engine.read_counters()["SYN_COOKIES"] > cookies
        bench.carry(client, server, payload(60_000), back=payload(60_000))
        options, theirs, own = kernel_says(client)
        info = server.info()
        if kernel:
            assert options == TIMESTAMPS | SACK | WSCALE | ECN * ecn
            assert info.tcpi_sack and info.tcpi_timestamps and info.tcpi_ecn == bool(ecn)
        else:
            assert options == 0
            assert not (info.tcpi_sack or info.tcpi_timestamps or info.tcpi_ecn)
        assert (info.tcpi_snd_wscale, info.tcpi_rcv_wscale) == (own, theirs)
        assert bool(own) == bool(kernel)
        bench.carry(client, server, payload(3), end=True)
        bench.carry(server, client, payload(3), end=True)
    answers = [s for s in bench.segments() if s.src == ip_number(ENGINE) and s.flags & (SYN | ACK) == SYN | ACK]
    assert {(s.stamps is not None, s.sack_ok, s.ws is not None, bool(s.flags & ECE)) for s in answers} == {
        (bool(kernel),) * 3 + (bool(kernel and ecn),)
    }
