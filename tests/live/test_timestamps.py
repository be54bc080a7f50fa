"""Timestamps with the Linux kernel, each way of opening (RFC 7323); the wire monitor checks every segment of ours."""

import pytest

from tests.live.conftest import KERNEL
from tiptoe_hdl.config import TINY
from tiptoe_verif.wire.impairment import Impairment
from tiptoe_verif.wire.segment import RST, ip_number

pytestmark = pytest.mark.tap
STAMPED = TINY.with_(name="stamped", timestamps=True)


def settled(make_bench, kernel, **options):
    """A bench whose kernel has net.ipv4.tcp_timestamps = ``kernel`` (1: with a random offset each connection)."""
    bench = make_bench(config=STAMPED, **options)
    command = ["sh", "-c", f"echo {kernel} > /proc/sys/net/ipv4/tcp_timestamps"]
    assert bench.session.namespace.popen(command).wait(20) == 0
    return bench


def agreed(bench) -> set[bool]:
    """Of all segments of the kernel's but resets: whether they carry timestamps."""
    return {s.stamps is not None for s in bench.segments() if s.src == ip_number(KERNEL) and not s.flags & RST}


@pytest.mark.parametrize("kernel", [1, 0, 2])
@pytest.mark.parametrize("opens", ["kernel", "engine"])
def test_timestamps_are_agreed_upon_and_data_carried(make_bench, payload, kernel, opens):
    bench = settled(make_bench, kernel)
    if opens == "kernel":
        listener = bench.offloaded_listener(80)
        client, server = bench.connect(80), bench.offloaded_accept(listener)
    else:
        listener = bench.listen(8000)
        client, server = bench.offloaded_connect(8000), bench.accept(listener)
    bench.carry(client, server, payload(60_000), back=payload(60_000))
    bench.carry(client, server, payload(3), end=True)
    bench.carry(server, client, payload(3), end=True)
    assert bool(kernel) in agreed(bench)
    (flow,) = [flow for _, flow in bench.engine.monitor.all_flows()]
    assert (flow.timestamps.sent > 20) == bool(kernel)
    assert bool(flow.timestamps.agreed) == bool(kernel)


def test_timestamps_on_an_impaired_line(make_bench, payload):
    """Nothing that is not old is refused: it arrives whole, both ways."""
    line = Impairment(loss=0.02, duplicate=0.02, reorder=0.05, reorder_us=5000, delay_us=1000, seed=3)
    bench = settled(make_bench, 1, impairment=line)
    listener = bench.offloaded_listener(80)
    client, server = bench.connect(80), bench.offloaded_accept(listener)
    bench.carry(client, server, payload(150_000), back=payload(150_000))
