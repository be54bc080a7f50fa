"""An MTU of 9000 on the line to the Linux kernel: segments of that size both ways, also over the host's ring, and its ping."""

import os
import socket

import pytest

from tests.configs import JUMBO
from tests.live.conftest import ENGINE, KERNEL, readable
from tests.live.host_bench import HostBench
from tiptoe_driver.netinet.in_cksum import internet_checksum

pytestmark = pytest.mark.tap
MTU = 9000
LONGEST = MTU - 40 - 12
"""Of a segment, beside timestamps."""


@pytest.fixture(params=[False, True], ids=["alone", "kernel beside"])
def bench(request, make_bench):
    return make_bench(config=JUMBO, mtu=MTU, host_stack=request.param, cls=HostBench)


@pytest.mark.parametrize("bench", [False], indirect=True)
def test_both_opens_and_data_both_ways(bench, payload):
    listener = bench.passive(80)
    theirs = bench.connect(80)
    ours = bench.offloaded_accept(listener)
    bench.carry(ours, theirs, payload(300_000), back=payload(300_000), end=True)
    ours, theirs = bench.pair(software=False)
    bench.carry(theirs, ours, payload(300_000), back=payload(300_000), end=True)
    assert ours.info().tcpi_snd_mss == LONGEST
    ends = {
        side: [len(s.payload) for s in bench.segments() if (s.sport in (80, 8000)) == side] for side in (False, True)
    }
    assert max(ends[False]) == max(ends[True]) == LONGEST


@pytest.mark.parametrize("bench", [True], indirect=True)
def test_what_is_not_offloaded_by_the_host_s_ring(bench, payload):
    before = bench.counters()
    ours, theirs = bench.pair(software=True)
    bench.carry(ours, theirs, payload(200_000), back=payload(200_000), end=True)
    assert bench.counters()["TX_SEGMENTS"] == before["TX_SEGMENTS"]
    assert max(len(segment.payload) for segment in bench.segments()) == LONGEST


@pytest.mark.parametrize("size", [8972, 8971, 1473])
def test_ping(bench, size):
    """RFC 1122 section 3.2.2.6, unfragmented: ping -M do -s 8972. Answered by the driver, or by the kernel beside."""
    data = os.urandom(size)
    request = bytes([8, 0, 0, 0, 0, 7, 0, 9]) + data
    request = request[:2] + internet_checksum(request).to_bytes(2) + request[4:]
    answers = []
    with bench.session.namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as ping:
        ping.setblocking(False)
        ping.bind((KERNEL, 0))
        ping.sendto(request, (ENGINE, 0))

        def answered():
            while readable(ping):
                answers.append(ping.recv(65536)[20:])
            return any(answer[0] == 0 for answer in answers)

        bench.until(answered, "an echo", 20)
    (answer,) = (answer for answer in answers if answer[0] == 0)
    assert answer[4:] == request[4:]
    assert max(map(len, bench.frames(to_engine=False))) == 14 + 28 + size
