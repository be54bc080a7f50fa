"""`tiptoe script`: files and folders, what is printed, the exit status, captures."""

import pytest
from typer.testing import CliRunner

from tiptoe_verif.cli import app
from tiptoe_verif.wire.pcap import read_pcap

GOOD = """0 < . 7:7(0) ack 5000 win 1000
+0 > R 5000:5000(0)
"""


@pytest.fixture
def folder(tmp_path, library):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "good.pkt").write_text(GOOD)
    (tmp_path / "bad.pkt").write_text(GOOD.replace("R 5000:5000", "R 5001:5001"))
    (tmp_path / "other.pkt").write_text("0 < udp (10)\n")
    (tmp_path / "torn.pkt").write_text("0 < S 0:0(\n")
    return tmp_path


def script(*arguments):
    return CliRunner().invoke(app, ["script", *map(str, arguments)])


def test_a_folder_of_each_kind(folder):
    result = script(folder, "--pcap", folder / "captures")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{folder}/a/good.pkt: ok")
    assert lines[1].startswith(f"{folder}/bad.pkt: FAILED line 2") and "sequence numbers differ" in lines[1]
    assert "expected" in result.stdout and "> R 5001:5001(0)" in result.stdout and "> R 5000:5000(0)" in result.stdout
    assert f"{folder}/other.pkt: skipped  line 1: UDP" in result.stdout
    assert f"{folder}/torn.pkt: unreadable  line 1" in result.stdout
    assert lines[-1].startswith("4 scripts: 1 ok, 1 FAILED, 1 skipped, 1 unreadable")
    for name in ("good", "bad"):
        times = [time_ns for time_ns, _ in read_pcap(folder / "captures" / f"{name}.pcap")]
        assert len(times) == 2 and 1000 <= times[1] - times[0] <= 100_000  # some microseconds for an answer


def test_nothing_wrong_is_status_0(folder):
    result = script(folder / "a", folder / "other.pkt")
    assert result.exit_code == 0, result.stdout


def test_what_is_ignored_is_told_if_wanted(folder):
    (folder / "a" / "good.pkt").write_text("--wire_client\n`./defaults.sh`\n" + GOOD)
    result = script(folder / "a", "-v")
    assert result.exit_code == 0
    assert "--wire_client is ignored" in result.stdout and "`./defaults.sh` is not run" in result.stdout


@pytest.mark.parametrize("name, words", [("nobody.pkt", "no such file"), ("empty", "no *.pkt below it")])
def test_what_is_not_there_is_one_line(folder, name, words):
    (folder / "empty").mkdir()
    result = script(folder / name)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("error: ") and words in result.stderr and result.stderr.count("\n") == 1
