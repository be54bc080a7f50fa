"""The measuring code on short runs of a small engine: figures are right, within their bounds, and spoiled ones are refused."""

from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tiptoe_hdl.config import TINY
from tiptoe_verif.benchmarks import latency, report, segments, speed, throughput
from tiptoe_verif.benchmarks.connection import Spoiled, stretch
from tiptoe_verif.benchmarks.frames import Template, read
from tiptoe_verif.benchmarks.report import COUNT, CYCLES, RATE, Figure
from tiptoe_verif.benchmarks.rig import MSS, Rig, Watch
from tiptoe_verif.benchmarks.run import Plan, figures
from tiptoe_verif.cli import app
from tiptoe_verif.live.namespace import why_no_tap
from tiptoe_verif.native.harness import build_engine
from tiptoe_verif.wire.segment import ACK, SYN, parse_tcp

pytestmark = pytest.mark.xdist_group("bench")


@pytest.fixture(scope="module")
def library():
    return build_engine(TINY)


@pytest.fixture(scope="module")
def rig(library):
    with Rig(TINY, 4, spare=2, library=library) as rig:
        yield rig


@pytest.fixture(autouse=True)
def default_conditions(request):
    if "rig" in request.fixturenames:
        rig = request.getfixturevalue("rig")
        rig.set_memory(20)
        rig.set_line(0)


# --- frames


@pytest.mark.parametrize("length", [0, 1, 6, 7, 1459, 1460])
def test_frames_are_what_an_independent_reader_sees(rng, length):
    template = Template(bytes(6), bytes(range(6)), 0x0A000002, 0x0A000001, 80, 4242)
    for _ in range(20):
        seq, ack, payload = rng.getrandbits(33), rng.getrandbits(32), rng.randbytes(length)
        frame = template.frame(seq, ack, payload, wnd=77)
        segment = parse_tcp(frame)  # raises for a wrong checksum
        assert (segment.src, segment.dst, segment.sport, segment.dport) == (0x0A000001, 0x0A000002, 4242, 80)
        assert (segment.seq, segment.ack, segment.wnd, segment.payload) == (seq & 0xFFFFFFFF, ack, 77, payload)
        seen = read(frame)
        assert (seen.sport, seen.dport, seen.seq, seen.ack) == (4242, 80, segment.seq, ack)
        assert (seen.flags, seen.wnd, seen.payload) == (segment.flags, 77, payload)
        assert len(frame) == max(60, 54 + length)


def test_syn_carries_its_options():
    template = Template(bytes(6), bytes(6), 1, 2, 3, 4)
    segment = parse_tcp(template.frame(5, 0, flags=SYN, options=b"\x02\x04\x05\xb4\x01\x03\x03\x07"))
    assert (segment.flags, segment.mss, segment.ws) == (SYN, 1460, 7)
    assert read(b"\0" * 60) is None


# --- bounds


@pytest.mark.parametrize("data_bytes, full, small", [
    (4, 1460 / 379, 15), (8, 1460 / 190, 8), (16, 1460 / 95, 4), (32, 1460 / 48, 2),
])  # fmt: skip
def test_bounds(data_bytes, full, small):
    assert throughput.bound(data_bytes) == pytest.approx(full)
    assert segments.bound(data_bytes) == small
    assert throughput.line_bound(data_bytes, 1.0) == pytest.approx(1460 / 1538)
    assert throughput.line_bound(data_bytes, 1000.0) == pytest.approx(full)
    assert segments.line_bound(data_bytes, 1.0) == 84


# --- measuring


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("count", [1, 4])
def test_full_segments(rig, count, place):
    chosen = rig.connections[:count]
    rig.align(chosen, 64, place)
    assert {c.sent % 64 for c in chosen} == {c.written % 64 for c in chosen} == {place}
    before = [(c.sent, c.written) for c in chosen]
    rates = throughput.bulk(rig, chosen, transmit=True, receive=True, frames=30, warm_up=40)
    limit = throughput.bound(rig.harness.data_bytes)
    assert 0.95 * limit <= rates.transmit <= limit
    assert 0.95 * limit <= rates.receive <= limit
    for connection, (sent, written) in zip(chosen, before, strict=True):
        assert connection.sent > sent and connection.written > written
        assert connection.consumed == connection.sent and connection.received == connection.written
        assert (connection.sent - sent) % MSS == 0


def test_full_segments_of_the_widest_engine():
    cfg = TINY.with_(name="tiny_256", data_width=256)
    with Rig(cfg, 4, spare=2, library=build_engine(cfg)) as rig:
        rig.set_memory(20)
        rates = throughput.bulk(rig, rig.connections, transmit=True, receive=True, frames=200, warm_up=200)
        assert rig.harness.data_bytes == 32
    assert 0.95 * 1460 / 48 <= rates.transmit <= 1460 / 48
    assert 0.95 * 1460 / 48 <= rates.receive <= 1460 / 48


def test_one_direction_leaves_the_other_alone(rig):
    chosen = rig.connections[:2]
    sent = [c.sent for c in chosen]
    rates = throughput.bulk(rig, chosen, transmit=True, receive=False, frames=20, warm_up=30)
    assert rates.receive == 0 and [c.sent for c in chosen] == sent
    written = [c.written for c in chosen]
    rates = throughput.bulk(rig, chosen, transmit=False, receive=True, frames=20, warm_up=30)
    assert rates.transmit == 0 and [c.written for c in chosen] == written


def test_the_line_sets_the_pace(rig):
    rig.set_line(2.0)
    rates = throughput.bulk(rig, rig.connections, transmit=True, receive=True, frames=20, warm_up=30)
    limit = throughput.line_bound(rig.harness.data_bytes, 2.0)
    assert rates.transmit == pytest.approx(limit, rel=0.02)
    assert rates.receive == pytest.approx(limit, rel=0.02)


def test_minimum_segments(rig):
    limit = segments.bound(rig.harness.data_bytes)
    for measure, ways, factor in (
        (segments.receive_data, "r", 1), (segments.receive_acks, "r", 1),
        (partial(segments.transmit_data, pace=limit), "t", 1),
        (segments.transmit_acks, "rt", 1), (partial(segments.both, pace=limit), "rt", 2.2),
    ):  # fmt: skip
        costs = measure(rig, rig.connections, 120)
        found = {"r": costs.receive, "t": costs.transmit}
        counted = {"r": costs.received, "t": costs.transmitted}
        for way in ways:
            assert found[way] >= limit, measure
            assert found[way] <= factor * limit, measure
            assert counted[way] >= 40
    assert all(c.consumed == c.sent and c.received == c.written for c in rig.connections)


def test_latency_of_memory_shows_where_memory_is_read(rig):
    connection = rig.connections[0]
    found = {}
    for memory in (20, 120):
        rig.set_memory(memory)
        rig.align([connection], 64, 0)
        bell = latency.doorbell(rig, connection, 1, samples=2)
        rig.align([connection], 64, 0)
        found[memory] = (bell, latency.data(rig, connection, 1, samples=2), latency.syn(rig, samples=2))
        assert bell >= latency.read_bound(memory, rig.harness.data_bytes, 1)
    assert found[120][0] - found[20][0] == 100
    assert found[120][1:] == found[20][1:]
    assert min(found[20]) > 1


def test_more_payload_takes_longer_to_fetch(rig):
    connection = rig.connections[0]
    rig.align([connection], 64, 0)
    small = latency.doorbell(rig, connection, 1, samples=1)
    rig.align([connection], 64, 0)
    large = latency.doorbell(rig, connection, MSS, samples=1)
    # The payload stands behind 54 bytes of headers: words of the frame, not of memory.
    width = rig.harness.data_bytes
    assert large - small == -(-(54 % width + MSS) // width) - 1


# --- what spoils a figure


def test_wrong_bytes_are_refused(library):
    with Rig(TINY, 1, library=library) as rig:
        (connection,) = rig.connections
        bad = connection.template.frame(connection.iss + 1, connection.irs + 1, b"\xaa" + stretch(1, 99))
        assert stretch(0, 1) != b"\xaa"
        rig.harness.inject(bad)
        connection.sent += 100
        with pytest.raises(Spoiled, match="wrong bytes in host memory at position 0"):
            rig.drain()
    with Rig(TINY, 1, library=library) as rig:
        (connection,) = rig.connections
        connection.sock.send(b"\xaa" * 10)
        with pytest.raises(Spoiled, match="wrong bytes from the engine at position 0"):
            rig.step()


def test_trouble_in_the_engine_is_refused(rig):
    connection = rig.connections[0]
    frame = bytearray(connection.at(connection.sent, 10))
    frame[-1] ^= 1
    with pytest.raises(Spoiled, match="the test: .*RX_BAD_TCP"), Watch(rig, "the test"):
        rig.harness.inject(bytes(frame))
        rig.step()
    with Watch(rig, "the test", allowed=["RX_BAD_TCP"]):
        rig.harness.inject(bytes(frame))
        rig.step()


def test_a_reset_is_refused(library):
    with Rig(TINY, 1, library=library) as rig:
        (connection,) = rig.connections
        rig.harness.inject(connection.template.frame(connection.iss, 0, flags=ACK))
        stranger = rig.peer(connection.port, 1)
        stranger.template = Template(
            rig.sim.mac.to_bytes(6, "big"), bytes(6), rig.sim.ip, 0x0A000001, 81, connection.port
        )
        rig.harness.inject(stranger.data(1))
        with pytest.raises(Spoiled, match="reset"):
            rig.step()


# --- the plan, and what becomes of figures


def test_plan(library):
    said = []
    plan = Plan(config=TINY, frames=12, small=60, samples=1, counts=(1, 3), groups=("segments", "latency"))
    found = figures(plan, said.append, library=library)
    assert len({f.key for f in found}) == len(found)
    assert {f.group for f in found} == {"minimum-size segments (60 bytes)", "latency"}
    assert {f.connections for f in found} == {1, 3}
    for figure in found:
        assert figure.engine == "tiny, 64 bits"
        assert 0 < figure.of_bound <= 1.001, figure
    assert len(said) > 10
    assert Plan(config=TINY).counts == (1, 16)
    with pytest.raises(ValueError, match="no group"):
        Plan(config=TINY, groups=("nonsense",))


def _figure(**changes):
    known = Figure(
        engine="tiny, 64 bits",
        group="g",
        name="n",
        connections=1,
        unit=RATE,
        value=7.6,
        bound=7.68,
        conditions="memory 20",
    )
    return replace(known, **changes)


def test_regressions():
    rate, cost, wait = _figure(), _figure(unit=COUNT, name="c", value=8), _figure(unit=CYCLES, name="l", value=50)
    baseline = {figure.key: figure.value for figure in (rate, cost, wait)}
    assert report.regressions([rate, cost, wait], baseline) == []
    better = [replace(rate, value=7.68), replace(cost, value=7), replace(wait, value=40)]
    assert report.regressions(better, baseline) == []
    worse = [replace(rate, value=7.5), replace(cost, value=8.1), replace(wait, value=51)]
    assert len(report.regressions(worse, baseline)) == 3
    assert report.regressions([replace(cost, value=9.5, tolerance=0.2)], baseline) == []
    assert len(report.regressions([replace(cost, value=9.7, tolerance=0.2)], baseline)) == 1
    assert report.regressions([_figure(name="new", value=0.1)], baseline) == []
    assert rate.of_bound == pytest.approx(7.6 / 7.68)
    assert replace(cost, bound=4).of_bound == 0.5


def test_baseline_and_results(tmp_path):
    path = tmp_path / "folder" / "baseline.json"
    assert report.load_baseline(path) == {}
    report.save_baseline([_figure()], path)
    report.save_baseline([_figure(name="m", value=1.5)], path)
    assert report.load_baseline(path) == {_figure().key: 7.6, _figure(name="m").key: 1.5}
    report.save([_figure(note="hm")], {"quick": True}, tmp_path / "bench.json")
    text = (tmp_path / "bench.json").read_text()
    assert '"bound": 7.68' in text and '"quick": true' in text and '"note": "hm"' in text


def test_table_shows_bound_and_change():
    console = Console(record=True, width=200)
    rows = [_figure(), _figure(connections=16, value=7.0)]
    for table in report.tables(rows, {rows[1].key: 7.5}):
        console.print(table)
    text = console.export_text()
    assert "7.68" in text and "7.00 (7.50)" in text and "91.1 %" in text and "16" in text


# --- speed of the simulation


def test_speed(library):
    native = speed.native(TINY, 16384, library=library)
    assert native.bytes == 16384 and native.cycles > 16384 / 8 and native.rate > 1000
    cocotb = speed.under_cocotb(TINY, 16384)
    assert cocotb.bytes == 16384 and 0.5 < cocotb.cycles / native.cycles < 2
    assert native.rate > cocotb.rate
    assert speed.idle(TINY, 5000, library=library).cycles == 5000


@pytest.mark.skipif(why_no_tap() is not None, reason="no TAP interface")
def test_speed_of_a_live_session():
    live = speed.live("tiny", 100_000)
    assert live.bytes == 100_000 and live.cycles > 100_000 / 8 and live.rate > 1000


# --- command line


def test_bad_options_are_one_line():
    for arguments in (["--only", "nonsense"], ["--width", "48"], ["--config", "nonsense"]):
        result = CliRunner().invoke(app, ["bench", *arguments])
        assert result.exit_code == 2
        assert result.stderr.startswith("error:") and result.stderr.count("\n") == 1
