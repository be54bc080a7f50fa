"""A line to the Linux kernel that swallows what is longer than it carries (RFC 2923 section 2.1): the engine finds out, the
kernel takes what comes smaller; and full segments again when the line has healed."""

from __future__ import annotations

import pytest

from tests.live.conftest import receive_some, send_some
from tiptoe_driver.netinet.structures import sototcpcb
from tiptoe_verif.wire.impairment import Impairment

pytestmark = pytest.mark.tap
LINE = Impairment(delay_us=200)


@pytest.mark.parametrize(("longest", "mss"), [(1400, 1200), (600, 536)])
@pytest.mark.parametrize("opened_by", ["the kernel", "the engine"])
def test_black_hole_towards_the_kernel(make_bench, payload, longest: int, mss: int, opened_by: str) -> None:
    bench = make_bench(impairment=LINE)
    if opened_by == "the engine":
        listener = bench.listen(8000)
        ours, theirs = bench.offloaded_connect(8000), bench.accept(listener)
    else:
        offloaded = bench.offloaded_listener(80)
        theirs = bench.connect(80)
        ours = bench.offloaded_accept(offloaded)
    _, outwards = bench.engine.channels
    outwards.impairment = Impairment(delay_us=200, longest_packet=longest)
    tp, data = sototcpcb(ours.so), payload(60_000)
    bench.carry(ours, theirs, data)
    assert tp.t_maxseg == mss and outwards.swallowed
    outwards.impairment = LINE
    sent = got = 0

    def step() -> bool:
        nonlocal sent, got
        if tp.t_maxseg != 1460:
            sent += send_some(ours, memoryview(data)[sent % len(data) :])
        part = receive_some(theirs, 1 << 16)
        assert part == (data + data)[got % len(data) :][: len(part)]
        got += len(part)
        return tp.t_maxseg == 1460

    bench.until(step, "full segments", 20)
    bench.until(lambda: step() and got == sent, "all of it", 60)
    assert bench.engine.toe.counters["pmtud_probes_passed"] == 1
    ours.close()
