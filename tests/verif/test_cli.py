"""The command line: every mistake is one line and a non-zero exit. Runs that carry traffic are in tests/live."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiptoe_verif.cli import app
from tiptoe_verif.live.session import UsageError, parse_forward, parse_host, parse_listen, parse_port

TIPTOE = [str(Path(sys.executable).with_name("tiptoe"))]


def run(*arguments, **options):
    return subprocess.run([*TIPTOE, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_info_lists_configurations():
    result = run("info")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("tiny", "sim", "ecp5", "datacentre", "65,536", "TAP"))


def test_help_names_every_command():
    result = run("--help")
    assert result.returncode == 0
    assert all(command in result.stdout for command in ("demo", "live", "info"))


def test_exit_status_of_the_program():
    result = run("live")
    assert result.returncode == 2
    assert result.stderr == "error: nothing to do: give --listen PORT=TARGET or --forward LOCALPORT=HOST:PORT\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "nothing to do: give --listen PORT=TARGET or --forward LOCALPORT=HOST:PORT"),
        (("--listen", "80"), "--listen 80: PORT=TARGET is wanted"),
        (("--listen", "0=echo"), "'0' is not a port: 1 to 65535"),
        (("--listen", "http=echo"), "'http' is not a port"),
        (("--listen", "65536=echo"), "'65536' is not a port"),
        (("--listen", "80=mirror"), "unknown target 'mirror': HOST:PORT, echo, discard, chargen"),
        (("--listen", "80=127.0.0.1:x"), "'x' is not a port"),
        (("--listen", "80=no.such.host.invalid:80"), "unknown host 'no.such.host.invalid'"),
        (("--forward", "8080"), "--forward 8080: LOCALPORT=HOST:PORT is wanted"),
        (("--forward", "8080=host"), "'host' is not HOST:PORT"),
        (("--listen", "80=echo", "--config", "huge"), "no configuration 'huge': there are tiny"),
        (("--listen", "80=echo", "--ip", "10.0.0"), "'10.0.0' is not an IPv4 address"),
        (("--listen", "80=echo", "--mac", "10.0.0"), "'10.0.0' is not a MAC address"),
    ],
)
def test_wrong_use_is_one_line(arguments, message):
    result = CliRunner().invoke(app, ["live", *arguments])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_missing_compiler_is_one_line(tmp_path):
    environment = {"PATH": str(tmp_path), "TIPTOE_BUILD": str(tmp_path / "build"), "HOME": str(tmp_path)}
    result = run("demo", "--without-tap", "--config", "tiny", env=environment)
    assert result.returncode == 1
    assert "not found: install it first" in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_capture_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    result = CliRunner().invoke(app, ["live", "--listen", "7=echo", "--netns", "--pcap", str(tmp_path / "file" / "x")])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_parsers():
    assert parse_port("65535") == 65535
    assert parse_host("127.0.0.1:80") == ("127.0.0.1", 80)
    assert parse_listen("80=echo") == (80, "echo")
    assert parse_listen("80=127.0.0.1:8080") == (80, ("127.0.0.1", 8080))
    assert parse_forward("5000=127.0.0.1:80") == (5000, ("127.0.0.1", 80))
    with pytest.raises(UsageError):
        parse_port("-1")
