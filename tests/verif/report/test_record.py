"""What a run leaves for its report, against what the engine says of itself."""

from __future__ import annotations

import errno
import json

import pytest

from tiptoe_verif.native.recorder import CAPTURE, FRAME, FRAMES, TO_ENGINE, Recorder
from tiptoe_verif.native.simulation import Simulation
from tiptoe_verif.report.reader import NoRun, RunReader
from tiptoe_verif.wire.pcap import read_pcap
from tiptoe_verif.wire.segment import parse_tcp

from .conftest import BYTES


def test_each_frame_has_its_cycles(run):
    stamps = list(FRAME.iter_unpack((run.folder / FRAMES).read_bytes()))
    capture = list(read_pcap(run.folder / CAPTURE))
    assert len(stamps) == len(capture) == run.frames
    for (first, rest), (time_ns, frame) in zip(stamps, capture, strict=True):
        last = first + (rest & TO_ENGINE - 1)
        assert time_ns == last * 1000  # a cycle a microsecond
        assert last - first >= len(frame) // 8 - 1
        assert bool(rest & TO_ENGINE) == (frame[:6] == b"\x02\0\0\0\0\x01" or frame[:6] == b"\xff" * 6)


def test_states_in_order(run):
    states = [row["state"] for row in run.rows if row["k"] == "state"]
    assert states[:2] == ["SYN_RECEIVED", "ESTABLISHED"] and states[2] == "FIN_WAIT_1"
    assert {row["conn"] for row in run.rows if row["k"] == "state"} - {""} == {
        next(row["conns"][0]["conn"] for row in run.rows if row["k"] == "sample" and row["conns"])
    }


def test_samples_say_what_the_engine_has(run):
    samples = [row for row in run.rows if row["k"] == "sample"]
    assert len(samples) >= 8
    known = [entry for row in samples for entry in row["conns"] if "cwnd" in entry]
    assert max(entry["flight"] for entry in known) > 1460 and max(entry["rtt"] for entry in known) >= 1000
    assert all(entry["flight"] <= max(entry["cwnd"], entry["snd_wnd"]) for entry in known)
    totals: dict[str, int] = {}
    for row in run.rows:
        totals |= row.get("counters", {})
    assert totals == {name: count for name, count in run.counters.items() if count}
    assert totals["TX_RETRANSMITS"] > 0


def test_occupancy_is_within_its_bounds(run):
    samples = [row["engine"] for row in run.rows if row["k"] == "sample"]
    for before, after in zip(samples, samples[1:], strict=False):
        grown = {name: after[name] - before[name] for name in after}
        assert all(
            grown[name] <= grown["cycles"]
            for name in ("flow_busy", "rx_beats", "tx_beats", "read_beats", "write_beats")
        )
        assert grown["reads_open"] >= grown["read_beats"]  # an open burst has a beat a cycle at most
    last = samples[-1]
    assert 0 < last["flow_busy"] < last["cycles"] / 2  # it has rested
    assert last["rx_level"] > 0  # frames have waited in the buffer


def test_who_rests_is_left_alone(run):
    """Behind the last frame comes one sample, not one an interval."""
    capture = list(read_pcap(run.folder / CAPTURE))
    late = [row for row in run.rows if row["k"] == "sample" and row["t"] > capture[-1][0] / 1000]
    assert len(late) <= 1 and run.cycles - capture[-1][0] / 1000 > 50_000


def test_reader_places_every_segment(run):
    reader = RunReader(run.folder)
    reader.read()
    reader.close()
    assert len(reader.frames) == run.frames and len(reader.relative.connections) == 1
    data = reader.data()
    ends = data["connections"][0]
    assert ends[1] == "10.0.0.1:80"
    again = highest = 0
    for row, (_, frame) in zip(data["frames"], read_pcap(run.folder / CAPTURE), strict=True):
        segment = parse_tcp(frame)
        if segment is None or segment.src != 0x0A000001:
            continue
        assert row[5:7] == [0, False] and row[9] - row[8] == len(segment.payload) + bool(segment.flags & 2)
        again += row[10]
        highest = max(highest, row[9] if segment.payload else 0)
    assert highest == BYTES and again >= run.counters["TX_RETRANSMITS"] > 0


def test_reader_goes_on(run, tmp_path):
    """Files cut anywhere, each at another place: nothing twice, nothing left out, and no frame has another one's cycles."""
    whole = {name.name: name.read_bytes() for name in run.folder.iterdir() if name.suffix != ".html"}
    at_once = RunReader(run.folder)
    at_once.read()
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content if name == "run.json" else b"")
    everything = list(at_once.frames)
    reader = RunReader(tmp_path, kept=50)
    with pytest.raises(NoRun, match="is not a capture"):
        reader.read()
    rows, frames = [], []
    for part in range(1, 12):
        for name in (FRAMES, CAPTURE, "record.jsonl"):
            share = (part - 0.5 * (name == FRAMES and part < 11)) / 11  # cycles late, as a full disk has them
            (tmp_path / name).write_bytes(whole[name][: int(len(whole[name]) * share)])
        before = reader.frames_read, reader.rows_read
        reader.read()
        new = reader.data(*before)
        frames += new["frames"]
        rows += new["rows"]
    assert rows == list(at_once.rows)[-len(rows) :] and reader.rows_read == at_once.rows_read
    assert [row[0] for row in frames] == sorted({row[0] for row in frames})
    stamped = [row for row in frames if row[2] is not None]
    assert len(stamped) > 100 and all(row == everything[row[0]] for row in stamped)
    assert reader.frames_read == at_once.frames_read and len(reader.frames) == 50
    at_once.close()
    reader.close()


@pytest.mark.parametrize("spoil", ["missing", "no json", "another format"])
def test_not_a_run(tmp_path, spoil):
    if spoil == "no json":
        (tmp_path / "run.json").write_text("{")
    elif spoil == "another format":
        (tmp_path / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(NoRun):
        RunReader(tmp_path)


def test_who_reads_along_finds_the_cycles_of_every_frame(tmp_path):
    """The capture is written when its buffer is full, at any moment between two samples."""
    with Simulation("tiny", pcap=tmp_path / CAPTURE) as sim, Recorder(sim, tmp_path, "a test", interval_us=10**6):
        reader = RunReader(tmp_path)
        for _ in range(40):
            sim.inject(b"\xff" * 6 + b"\x02\0\0\0\0\x09" + b"\x88\xb5" + bytes(1000))
            sim.run_us(2000)
            reader.read()
        assert 0 < reader.frames_read < 40  # the rest is in the buffer
        assert all(row[2] is not None for row in reader.frames)
        reader.close()


def test_a_full_disk_ends_the_record_and_not_the_run(tmp_path):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            """As a file's."""

    with Simulation("tiny", pcap=tmp_path / CAPTURE) as sim:
        recorder = Recorder(sim, tmp_path, "a test")
        recorder._frames.close()
        recorder._frames = Full()
        sim.inject(b"\xff" * 6 + b"\x02\0\0\0\0\x09" + b"\x08\x06" + bytes(46))
        sim.run_us(2000)
        assert "No space left" in recorder.why_ended
        recorder.close()
        sim.check()
