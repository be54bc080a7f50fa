"""What has come twice, told to the Linux kernel (D-SACK, RFC 2883): its own counters say what it made of it."""

from __future__ import annotations

import hashlib

import pytest

from tests.live.conftest import receive_some, send_some
from tiptoe_verif.wire.impairment import Impairment

pytestmark = pytest.mark.tap
SIZE = 400_000


def counters(bench) -> dict[str, int]:
    """TcpExt of /proc/net/netstat in the kernel's namespace."""
    process = bench.session.namespace.popen(["cat", "/proc/net/netstat"], stdout=-1, text=True)
    names, values = [line.split()[1:] for line in process.communicate()[0].splitlines() if line.startswith("TcpExt:")]
    return dict(zip(names, map(int, values), strict=True))


@pytest.mark.parametrize(
    "line", [{"duplicate": 0.2}, {"duplicate": 0.2, "loss": 0.05}], ids=["twice", "twice, or lost"]
)
def test_linux_hears_of_what_the_line_doubles(make_bench, payload, line) -> None:
    """It counts what it recognises as D-SACK, below the acknowledgement or ahead of a gap. (That it has not sent the
    segment again it notices, too, and draws no conclusions.)"""
    bench = make_bench(impairment=Impairment(delay_us=200, seed=7))
    listener = bench.offloaded_listener(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    before, channel = counters(bench), bench.engine.channels[0]
    doubled = channel.duplicated
    channel.impairment = Impairment(delay_us=200, seed=7, **line)
    data = payload(SIZE)
    left, got = memoryview(data), bytearray()

    def step() -> bool:
        nonlocal left, got
        left = left[send_some(client, left) :]
        got += receive_some(server, SIZE - len(got))
        return len(got) == SIZE

    bench.until(step, f"{SIZE} bytes", 300)
    bench.for_s(0.2)
    channel.impairment = Impairment(delay_us=200)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    after = counters(bench)
    told = {name: after[name] - before[name] for name in ("TCPDSACKRecv", "TCPDSACKOfoRecv")}
    doubled = channel.duplicated - doubled
    assert doubled >= 20
    heard = sum(told.values())
    assert 0.8 * doubled <= heard, (doubled, told)
