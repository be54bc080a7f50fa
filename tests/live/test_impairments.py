"""The engine and the Linux kernel on lines that misbehave: a diagonal of the matrix of tests/verif/native/impairments.py
always, all of it as soak. Time is the wall's here, so a line that is cut is soak's."""

from __future__ import annotations

import hashlib
import socket
from itertools import product

import pytest

from tests.live.conftest import receive_some, send_some
from tests.verif.native.impairments import LINES, MIDSTREAM, Router
from tiptoe_verif.wire.impairment import Impairment

pytestmark = pytest.mark.tap
DIRECTIONS = {"both ways": (0, 1), "towards the engine": (0,), "from the engine": (1,)}
OPENED_BY = ("the kernel", "the engine")
WINDOWS = {"large": 0, "two segments": 2048, "less than a segment": 512}
"""The kernel's receive buffer, which it doubles and takes half of for itself."""


class Injects:
    """The engine as Router's sender."""

    def __init__(self, bench) -> None:
        self._bench = bench

    def inject(self, frame: bytes) -> None:
        self._bench.engine.harness.inject(frame)


def trial(
    make_bench, payload, line: str, direction: str, opened_by: str, connections: int, window: str, size: int
) -> None:
    """Both ways over each of the connections: every digest as it was."""
    bad = Impairment(**{"delay_us": 200, "seed": 7} | LINES[line])
    bench = make_bench(impairment=Impairment(delay_us=200, seed=7))
    channels = bench.engine.channels
    impaired = DIRECTIONS[direction]
    pairs = []
    if opened_by == "the engine":
        listener = bench.listen(8000)
        if WINDOWS[window]:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOWS[window])
        for _ in range(connections):
            pairs += [(bench.offloaded_connect(8000), bench.accept(listener))]
    else:
        listener = bench.offloaded_listener(80)
        for _ in range(connections):
            client = bench.connect(80, **({"buffer": WINDOWS[window]} if WINDOWS[window] else {}))
            pairs += [(bench.offloaded_accept(listener), client)]
    for k in impaired:
        channels[k].impairment = bad
    ends = [end for pair in pairs for end in pair]
    data = [payload(size) for _ in ends]
    left, got, ended = [memoryview(d) for d in data], [bytearray() for _ in ends], set()

    def step() -> bool:
        for k, end in enumerate(ends):
            left[k] = left[k][send_some(end, left[k]) :]
            if not left[k] and k not in ended:
                end.shutdown(socket.SHUT_WR)
                ended.add(k)
            got[k] += receive_some(end, size - len(got[k]))
        return all(len(g) == size for g in got)

    if line in MIDSTREAM:
        bench.until(lambda: step() or any(len(g) > size // 8 for g in got), "some of it")
        if line == "MTU falls":
            router = Router(channels[1], None, Injects(bench))
            router.mtu = 700
            bench.engine.channels = (channels[0], router)
        else:
            for k in impaired:
                channels[k].impairment = Impairment(loss=1.0)
            bench.for_s(30)
            for k in impaired:
                channels[k].impairment = Impairment(delay_us=200)
    bench.until(step, f"{size} bytes each way on each of {connections} connections", 600)
    for k in range(len(ends)):
        assert hashlib.sha256(got[k]).digest() == hashlib.sha256(data[k ^ 1]).digest()
    if line == "MTU falls":
        assert router.complaints
    for offloaded, _ in pairs:
        bench.expect_end(offloaded)
        offloaded.close()
    for k in impaired:  # the ends are not the subject
        bench.engine.channels[k].impairment = Impairment(delay_us=200)


DIAGONAL = [
    ("loss 5 %", "both ways", "the kernel", 1, "large"),
    ("loss 20 %", "towards the engine", "the engine", 1, "two segments"),
    ("everything", "from the engine", "the kernel", 6, "large"),
    ("reorder", "both ways", "the engine", 6, "less than a segment"),
    ("bit flips", "both ways", "the kernel", 1, "two segments"),
    ("MTU falls", "from the engine", "the engine", 1, "large"),
]


def _name(value: object) -> str:
    return str(value).replace(" ", "_")


@pytest.mark.parametrize(("line", "direction", "opened_by", "connections", "window"), DIAGONAL, ids=_name)
def test_line_that_misbehaves(make_bench, payload, line, direction, opened_by, connections, window) -> None:
    trial(make_bench, payload, line, direction, opened_by, connections, window, 20_000)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("line", "direction", "opened_by", "connections", "window"),
    [*product(LINES, DIRECTIONS, OPENED_BY, (1, 6), WINDOWS)],
    ids=_name,
)
def test_every_line_that_misbehaves(make_bench, payload, line, direction, opened_by, connections, window) -> None:
    if line == "MTU falls" and direction != "from the engine":
        pytest.skip("the router stands behind the engine")
    trial(make_bench, payload, line, direction, opened_by, connections, window, 60_000)
