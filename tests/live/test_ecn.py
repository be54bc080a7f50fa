"""Explicit congestion notification with the Linux kernel as the peer, on a line whose queue marks (RFC 3168).

Time is the wall's here, so the line is slow: what a machine under load holds up must not look like a queue.
"""

import socket
import subprocess
import sys

import pytest

from tests.live.conftest import ENGINE
from tiptoe_verif.wire.impairment import Impairment
from tiptoe_verif.wire.segment import ACK, CWR, ECE, SYN, ip_number

pytestmark = pytest.mark.tap
SIZE = 150_000
LINE = Impairment(rate_bytes_s=300_000, delay_us=2000, queue_frames=1000, mark_frames=8, seed=3)
"""Nothing is dropped; five segments fill the way."""


def kernel_with(bench, ecn: int) -> None:
    """tcp_ecn of the kernel in the engine's namespace."""
    write = f"open('/proc/sys/net/ipv4/tcp_ecn', 'w').write('{ecn}')"
    done = subprocess.run(
        bench.session.namespace.command([sys.executable, "-c", write]), capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"tcp_ecn cannot be set here: {done.stderr.strip().splitlines()[-1]}")


def flags(bench, *, ours: bool, syn: bool) -> list[int]:
    return [
        segment.flags & (ECE | CWR)
        for segment in bench.segments()
        if (segment.src == ip_number(ENGINE)) == ours and bool(segment.flags & SYN) == syn
    ]


def kernel_options(sock: socket.socket) -> int:
    """tcpi_options."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5]


@pytest.mark.parametrize("opened_by", ["the kernel", "the engine"])
@pytest.mark.parametrize("algorithm", ["cubic", "dctcp"])
def test_both_ways_over_a_line_that_marks(make_bench, payload, opened_by, algorithm):
    """Each end cuts its window for the other's marks, says so, and nothing goes again."""
    bench = make_bench(impairment=LINE, config="sim", driver={"ecn": "offer", "congestion": algorithm})
    bench.engine.monitor.accurate = algorithm == "dctcp"
    kernel_with(bench, 1)
    if opened_by == "the engine":
        listener = bench.listen(8000)
        ours, theirs = bench.offloaded_connect(8000), bench.accept(listener)
    else:
        listener = bench.offloaded_listener(80)
        theirs = bench.connect(80)
        ours = bench.offloaded_accept(listener)
    bench.carry(ours, theirs, payload(SIZE))
    bench.carry(theirs, ours, payload(SIZE))
    info = ours.info()
    assert info.tcpi_ecn and info.tcpi_ecn_seen and info.tcpi_losses
    assert kernel_options(theirs) & 24 == 24, "TCPI_OPT_ECN, TCPI_OPT_ECN_SEEN"
    there, back = bench.engine.channels
    assert there.marked and back.marked and not there.dropped and not back.dropped
    for side in (True, False):
        seen = flags(bench, ours=side, syn=False)
        assert any(each & ECE for each in seen) and any(each & CWR for each in seen)
    offers, agrees = (
        flags(bench, ours=opened_by == "the engine", syn=True),
        flags(bench, ours=opened_by != "the engine", syn=True),
    )
    assert offers[0] == ECE | CWR and set(agrees) == {ECE}
    assert info.tcpi_snd_rexmitpack <= 3, "a tail's probe, where the machine holds up the kernel"


@pytest.mark.parametrize(
    "ecn, driver, agreed", [(0, "offer", False), (2, "offer", True), (2, "accept", False), (1, "off", False)]
)
def test_who_offers_and_who_accepts(make_bench, payload, ecn, driver, agreed):
    """Opened by the engine, then by the kernel: tcp_ecn 0, 1 and 2 as EngineOptions.ecn off, offer and accept."""
    bench = make_bench(driver={"ecn": driver})
    kernel_with(bench, ecn)
    listener = bench.listen(8000)
    ours, theirs = bench.offloaded_connect(8000), bench.accept(listener)
    bench.carry(ours, theirs, payload(5000), back=payload(5000))
    assert ours.info().tcpi_ecn == agreed and bool(kernel_options(theirs) & 8) == agreed
    answering = bench.offloaded_listener(80)
    other = bench.connect(80)
    accepted = bench.offloaded_accept(answering)
    bench.carry(accepted, other, payload(5000), back=payload(5000))
    kernel_offers = ecn == 1 and driver != "off"
    assert accepted.info().tcpi_ecn == kernel_offers and bool(kernel_options(other) & 8) == kernel_offers
    assert all(segment.flags & ACK or segment.flags & SYN for segment in bench.segments())
