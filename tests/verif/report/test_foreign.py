"""Runs and captures that the recorder has not written as it does: cut, spoilt, of other makers and of other lines."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.verif.report.traffic import SAMPLE, ethernet, exchange, folder, write
from tiptoe_verif.choices import record_beside
from tiptoe_verif.cli import app
from tiptoe_verif.native.recorder import CAPTURE, FRAMES, RECORD, RUN, Recorder
from tiptoe_verif.native.simulation import Simulation
from tiptoe_verif.report import page as page_module
from tiptoe_verif.report.page import write_report
from tiptoe_verif.report.reader import RunReader
from tiptoe_verif.wire.segment import checksum_left_to_hardware
from tiptoe_verif.wire.vlan import tagged


def read(path, **options) -> dict:
    reader = RunReader(path, **options)
    try:
        reader.read()
        return reader.data()
    finally:
        reader.close()


def tiptoe(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("header", [{}, {"command": 5, "capture": 7, "waveform": ["x"], "rx_words": "many"}])
def test_header_with_less_or_with_something_else_in_it(tmp_path, header):
    code, said = tiptoe("report", folder(tmp_path, **header))
    assert code == 0 and "0 frames" in said
    assert read(tmp_path)["header"] == {"format": 1, "command": "a run", "capture": CAPTURE}


def test_waveform_is_opened_from_where_the_report_was_asked_for_whatever_its_name(tmp_path, monkeypatch):
    (tmp_path / "my runs").mkdir()
    monkeypatch.chdir(tmp_path)
    run = folder(Path("my runs/a"), waveform="$(touch x).fst")
    assert read(run)["header"]["waves"] == "tiptoe waves 'my runs/a/$(touch x).fst'"
    assert read(folder(Path("-r"), waveform="-w.fst"))["header"]["waves"] == "tiptoe waves ./-r/-w.fst"
    assert read(folder(Path("b"), waveform="../waves.fst"))["header"]["waves"] == "tiptoe waves waves.fst"


@pytest.mark.parametrize(
    "row",
    [
        "[]", "[" * 100_000, '{"k": "event", "t": 1, "name": "x", "z": NaN}', {"k": "event", "t": 1}, {"k": "sample", "t": 1},
        {"k": ["sample"], "t": 1}, {"k": "state", "t": 1, "id": 3, "conn": None, "state": "LISTEN"}, SAMPLE | {"conns": [None]},
        SAMPLE | {"engine": {"cycles": "many"}}, SAMPLE | {"counters": 3}, SAMPLE | {"t": -1}, SAMPLE | {"t": True},
    ],
)  # fmt: skip
def test_lines_that_the_page_would_stumble_over_are_left_out(tmp_path, row):
    data = read(folder(tmp_path, rows=[SAMPLE, row, SAMPLE | {"t": 9}]))
    assert [each["t"] for each in data["rows"]] == [5, 9]
    json.loads(json.dumps(data, allow_nan=False))


def test_samples_of_many_connections_are_thinned_and_span_the_run(tmp_path):
    """As many as fit whatever number of connections each speaks of; states and events stay."""
    conns = [{"conn": f"a {number}"} for number in range(30)]
    rows = []
    for t in range(150):
        rows += [SAMPLE | {"t": t, "conns": conns}, {"k": "state", "t": t, "id": 1, "conn": "", "state": "LISTEN"}]
    data = read(folder(tmp_path, rows=rows), kept=400)
    assert len(data["rows"]) == 300
    kept = [row["t"] for row in data["rows"] if row.get("conns")]
    assert kept == list(range(0, 150, data["stride"])) and 400 < 30 * len(kept) <= 5 * 400
    late = read(tmp_path, kept=100)
    assert late["rows_before"] == 200 and 30 * sum(bool(row.get("conns")) for row in late["rows"]) <= 500


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("vlan", [None, 7])
def test_a_capture_that_keeps_the_first_bytes(tmp_path, v6, vlan):
    """tcpdump -s: segments are where they are in the whole capture, and the page says how long they were."""
    frames = [tagged(frame, vlan) if vlan else frame for frame in exchange(5000, [1000, 700], v6=v6)]
    whole = read(write(tmp_path / "whole.pcap", frames))
    (tmp_path / "cut.pcap").write_bytes(cut_capture((tmp_path / "whole.pcap").read_bytes(), 96))
    cut = read(tmp_path / "cut.pcap")
    assert len(cut["connections"]) == 1 and [row[5:15] for row in cut["frames"]] == [
        row[5:15] for row in whole["frames"]
    ]
    assert max(row[9] for row in cut["frames"] if "F" in row[7]) == 1700
    assert [row[14] for row in cut["frames"]] == [len(frame) for frame in frames]


def cut_capture(content: bytes, snaplen: int) -> bytes:
    parts, at = [content[:24]], 24
    while at < len(content):
        seconds, fraction, length, whole = struct.unpack_from("<IIII", content, at)
        kept = min(length, snaplen)
        parts.append(struct.pack("<IIII", seconds, fraction, kept, whole) + content[at + 16 : at + 16 + kept])
        at += 16 + length
    return b"".join(parts)


def test_a_capture_that_claims_impossible_lengths(tmp_path):
    path = write(tmp_path / "a.pcap", exchange(5000, [10]))
    content = bytearray(path.read_bytes())
    content[24 + 12 : 24 + 16] = b"\xff" * 4  # the first frame's
    path.write_bytes(content)
    assert read(path)["frames"][0][14] == 2**32 - 1


@pytest.mark.parametrize("v6", [False, True])
def test_a_checksum_that_the_sender_has_left_to_its_interface(tmp_path, v6):
    """As captures of another system's own segments have it; a wrong one is still told."""
    frames = exchange(5000, [100], v6=v6)
    offset = 14 + (40 if v6 else 20) + 16
    from tiptoe_verif.wire.segment import TCP, pseudo_header

    begin = offset - 16
    partial = int.from_bytes(pseudo_header(frames[3], begin, len(frames[3]), TCP), "big") % 0xFFFF
    left, wrong = (
        frames[3][:offset] + value.to_bytes(2, "big") + frames[3][offset + 2 :] for value in (partial, partial ^ 1)
    )
    assert checksum_left_to_hardware(left) and not any(map(checksum_left_to_hardware, (*frames, wrong)))
    rows = read(write(tmp_path / "a.pcap", [*frames[:3], left, wrong]))["frames"]
    assert rows[3][5:10] == [0, True, "A", 0, 100] and "left to" in rows[3][13]
    assert rows[4][5] is None and rows[4][13] == "TCP checksum is wrong"


@pytest.mark.parametrize("size", [0, 1, 13, 14, 33])
def test_stubs_of_frames(tmp_path, size):
    frame = ethernet(b"\x45" + bytes(60))[:size]
    (row,) = read(write(tmp_path / "a.pcap", [frame]))["frames"]
    assert row[5] is None and row[14] == size


def test_names_that_are_no_utf_8(tmp_path):
    name = b"\xff<script>.pcap".decode("utf-8", "surrogateescape")
    write(tmp_path / name, [])
    out = tmp_path / "out.html"
    write_report(tmp_path / name, out, kept=10, frame_bytes=60)
    text = out.read_text(encoding="utf-8")
    assert "<title>?&lt;script>.pcap" in text and '"command":"\\udcff\\u003cscript>.pcap"' in text


@pytest.mark.parametrize("name", [CAPTURE, RUN, FRAMES, RECORD])
def test_the_page_overwrites_nothing_of_the_run(tmp_path, name):
    run = folder(tmp_path)
    before = (tmp_path / name).read_bytes()
    code, said = tiptoe("report", run, "-o", tmp_path / name)
    assert code == 1 and "of the run itself" in said and (tmp_path / name).read_bytes() == before
    code, _ = tiptoe("report", tmp_path / CAPTURE, "-o", tmp_path / CAPTURE)
    assert code == 1 and (tmp_path / CAPTURE).stat().st_size == 24


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("the old one")

    def full(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_module.Path, "write_bytes", full)
    capture = write(tmp_path / "a.pcap", [])
    code, said = tiptoe("report", capture, "-o", out)
    assert code == 1 and "No space left" in said and out.read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pcap", "report.html"]
    code, said = tiptoe("report", capture, "-o", tmp_path)
    assert code == 1 and tmp_path.is_dir()


@pytest.mark.parametrize("name, record", [("a/run.pcap", "a/run"), ("a/run", "a/run.run"), ("a/.run", "a/.run.run")])
def test_a_record_has_another_place_than_its_capture(name, record):
    assert record_beside(Path(name)) == Path(record)


def test_a_record_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("tiptoe_verif.report.reader._PART", 7)
    rows = [{"k": "event", "t": t, "name": "é" * t} for t in range(30)]
    assert read(folder(tmp_path, rows=rows))["rows"] == rows


@pytest.mark.parametrize("content", [b"", b"hello\n", b"$date today\n"])
def test_no_waveform(tmp_path, content):
    (tmp_path / "x.fst").write_bytes(content)
    code, said = tiptoe("waves", tmp_path / "x.fst")
    assert code == 1 and said.startswith("error:") and len(said.splitlines()) <= 3


def test_frames_before_the_record_have_no_cycles_and_the_others_their_own(tmp_path):
    def frame(size):
        return b"\xff" * 6 + b"\x02\0\0\0\0\x09" + b"\x88\xb5" + bytes(size)

    with Simulation("tiny", pcap=tmp_path / CAPTURE) as sim:
        sim.inject(frame(100))
        sim.run_us(100)
        with Recorder(sim, tmp_path, "a test"):
            sim.inject(frame(1000))
            sim.run_us(2000)
    early, late = read(tmp_path)["frames"]
    assert early[2:5] == [None, None, None] and late[4] is True and late[3] * 1000 == late[1] * 1000


def test_two_sessions_do_not_write_into_one_record(tmp_path):
    with Simulation("tiny", pcap=tmp_path / "one.pcap") as one, Recorder(one, tmp_path / "run", "one"):
        header = (tmp_path / "run" / RUN).read_text()
        with Simulation("tiny", pcap=tmp_path / "two.pcap") as two:
            with pytest.raises(OSError, match="written by another session"):
                Recorder(two, tmp_path / "run", "two")
        assert (tmp_path / "run" / RUN).read_text() == header
