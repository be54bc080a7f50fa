"""`tiptoe bench --only goodput` in small: all bytes arrive over the line that both pairs share, and what does not is told."""

import socket
from dataclasses import replace
from itertools import product

import pytest

from tiptoe_hdl.config import SIM, TINY
from tiptoe_verif.benchmarks import goodput, goodput_table
from tiptoe_verif.benchmarks.goodput import CONNECTIONS, LOSSES, MSS, RATE, ROUND_TRIPS_MS, Point, Run
from tiptoe_verif.benchmarks.goodput_paths import Buffers, Pair, Path
from tiptoe_verif.benchmarks.goodput_table import Row
from tiptoe_verif.console import console
from tiptoe_verif.live.namespace import why_no_tap

pytestmark = pytest.mark.xdist_group("bench")

SHORT = Point(loss=0.0, rtt_ms=1, seconds=0.2)


def shown(found, before=None) -> str:
    with console.capture() as capture:
        console.print(goodput_table.table(found, before or {}))
    return capture.get()


@pytest.mark.tap
@pytest.mark.skipif(why_no_tap() is not None, reason="no TAP interface")
def test_both_pairs_on_the_same_line():
    wanted = [
        SHORT,
        replace(SHORT, loss=0.05, connections=8),
        replace(SHORT, rtt_ms=20, connections=2, buffers=Buffers(receive=4 * MSS, send=4 * MSS)),
    ]
    found = goodput_table.rows(TINY, wanted, (1, 2), lambda text: None)
    assert [(row.way, row.point) for row in found] == [
        (way, point) for way in ("engine receives", "engine sends") for point in wanted
    ]
    assert goodput_table.faults(found) == []
    for row in found:
        for run in (row.ours, row.linux):
            # The line, not the pair, is as fast as it is: headers and all it carries RATE.
            assert not run.fault and 0 < run.goodput * 1514 / MSS <= RATE
            assert run.total == row.point.total * (2 if row.point.loss else 1)  # every seed; one, where nothing is lost
            assert bool(run.lost) == bool(row.point.loss)  # of the data, whichever way it goes
            assert run.retransmits >= run.lost
        assert row.linux.cycles == 0 and row.ours.cycles > row.ours.total / 8  # a word a cycle at the most
        assert row.linux.timeouts == -1 and (row.ours.timeouts >= 0) == (row.way == "engine sends")
        if row.point.buffers.receive:  # four segments a round trip and connection, and no more: Linux rounds them down
            assert run.goodput < 2 * 4 * MSS / 0.02 * 1.1
    text = shown(found)
    assert all(text.count(point.name) == 2 for point in wanted)


class Pipe(Path):
    """A path of socket pairs; ``spoil`` makes of what arrives what the test wants."""

    def __init__(self, spoil) -> None:
        super().__init__()
        self._spoil, self._relayed = spoil, []

    def _join(self) -> None:
        pass

    def round(self) -> None:
        for source, target in self._relayed:
            try:
                data = self._spoil(source.recv(1000))
            except BlockingIOError:
                continue
            if data is None:
                target.close()
                self._relayed.clear()
            else:
                target.send(data)

    def open(self, connections, buffers, line):
        pairs = []
        for _ in range(connections):
            (source, near), (far, target) = socket.socketpair(), socket.socketpair()
            for end in (source, near, far, target):
                self._stack.callback(end.close)
                end.setblocking(False)
            self._relayed.append((near, far))
            pairs.append(Pair(source, target))
        return pairs

    def close_pairs(self, pairs) -> None:
        self._relayed.clear()

    def retransmits(self, pairs) -> int:
        return 0


def test_what_arrives_is_compared():
    with Pipe(lambda data: data) as path:
        run = goodput.measure(path, SHORT, (1, 2))
        assert not run.fault and run.total == SHORT.total and run.goodput > 0
    spoiled = iter([True])
    with (
        Pipe(lambda data: bytes([data[0] ^ 1]) + data[1:] if next(spoiled, False) else data) as path,
        pytest.raises(AssertionError, match="not what was sent"),
    ):
        goodput.measure(path, SHORT, (1,))


def test_what_does_not_arrive_is_told(monkeypatch):
    monkeypatch.setattr(goodput, "PATIENCE_S", 0.2)
    with Pipe(lambda data: b"") as path:
        silent = goodput.measure(path, SHORT, (5,))
    assert "seed 5" in silent.fault and f"{SHORT.total} missing" in silent.fault and silent.goodput == 0
    with Pipe(lambda data: None) as path:
        ended = goodput.measure(path, SHORT, (5,))
    assert "ended" in ended.fault
    good = Run(total=1000, seconds=1.0)
    found = [Row("engine sends", SHORT, silent, good), Row("engine receives", SHORT, good, good)]
    assert [row.ratio for row in found] == [0, 1]
    (line,) = goodput_table.faults(found)
    assert line.startswith("goodput, engine sends / loss 0.0%, 1 ms, 1: seed 5")
    assert "none" in shown(found)


def test_same_seed_loses_the_same_data():
    """Whatever the path did before."""

    def fate(path: Path, seed: int) -> list[int]:
        path.set_line(Point(loss=0.05, rtt_ms=1).line(seed), 0.05)
        return [n for n in range(500) if not path.data.send(bytes(100), n * 1e4)]

    with Pipe(None) as one, Pipe(None) as other:
        first = fate(one, 1)
        assert 10 < len(first) < 50
        assert fate(one, 2) != first and fate(one, 1) == first == fate(other, 1)
        assert all(one.acks.send(bytes(100), n * 1e4) for n in range(500))


def test_rows_cover_what_is_asked_for():
    found = goodput.points()
    assert len({point.name for point in found}) == len(found)
    assert {(p.loss, p.rtt_ms, p.connections) for p in found if p.buffers == Buffers()} == set(
        product((0, 0.001, 0.01, 0.05), (1, 20, 100), (1, 8))
    ) == set(product(LOSSES, ROUND_TRIPS_MS, CONNECTIONS))  # fmt: skip
    assert {p.buffers for p in found} == {Buffers(), Buffers(receive=5840), Buffers(send=5840)}
    assert {p.name for p in goodput.points(quick=True)} <= {p.name for p in found}
    for point in found:
        assert point.total % (MSS * point.connections) == 0 and point.total > 10 * MSS * point.connections
    assert goodput_table.small(SIM) == TINY.with_(congestion=SIM.congestion, timestamps=True, pacing=True)


def test_baseline_and_table(tmp_path):
    path = tmp_path / "b.json"
    assert goodput_table.load_baseline(path) == {}
    ours, linux = (
        Run(total=1000, seconds=4.0, retransmits=17, timeouts=3, cycles=1_000_000),
        Run(total=1000, seconds=2.0),
    )
    row = Row("engine sends", SHORT, ours, linux)
    assert row.ratio == 0.5
    goodput_table.save_baseline([row, replace(row, way="engine receives", ours=Run(fault="none"))], path)
    assert goodput_table.load_baseline(path) == {row.key: {"ours": 250, "linux": 500, "ratio": 0.5}}
    was = {row.key: {"ours": 240, "linux": 500, "ratio": 0.48}}
    for before, cells in ((was, "0 0 0.50 0.48 17 0 3 250,000"), ({}, "0 0 0.50 17 0 3 250,000")):
        assert " ".join(shown([row], before).split()).endswith(f"{SHORT.name} {cells}")
    goodput_table.save_baseline([replace(row, way="engine receives")], path)
    assert len(goodput_table.load_baseline(path)) == 2
    (json,) = goodput_table.as_json([row])
    assert (json["ratio"], json["ours"]["timeouts"], json["linux"]["goodput"]) == (0.5, 3, 500)


def test_without_tap_a_line_says_why(monkeypatch):
    monkeypatch.setattr(goodput_table, "why_no_tap", lambda: "cannot open /dev/net/tun")
    with console.capture() as capture:
        assert goodput_table.measure(TINY) == []
    assert "no goodput: cannot open /dev/net/tun" in capture.get()
