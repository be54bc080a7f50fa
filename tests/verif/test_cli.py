"""The command line: every mistake is one line and a non-zero exit. Runs that carry traffic are in tests/live."""

import importlib.metadata
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import typer.main
from rich.console import Console
from typer.testing import CliRunner

from tiptoe_verif import doctor
from tiptoe_verif.cli import app
from tiptoe_verif.console import status_line
from tiptoe_verif.live import setup
from tiptoe_verif.live.setup import UsageError, parse_forward, parse_host, parse_listen, parse_port

DEVICE = ("--listen", "80=echo", "--device", "etherbone://192.0.2.1")
TIPTOE = [str(Path(sys.executable).with_name("tiptoe"))]


def run(*arguments, **options):
    return subprocess.run([*TIPTOE, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_info_lists_configurations():
    result = run("info")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("tiny", "sim", "ecp5", "datacentre", "65,536"))


def test_version_is_the_package_s():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"tiptoe {importlib.metadata.version('tiptoe-engine')}, register map and rings 0.5\n"


COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_an_example_that_parses(name):
    (example,) = re.findall(r"^ *Example: tiptoe (.*)$", COMMANDS[name].help, flags=re.M)
    first, *arguments = shlex.split(example)
    assert first == name
    COMMANDS[name].make_context(name, arguments)  # UsageError if an option is not one


def test_completion_is_offered():
    result = CliRunner().invoke(app, ["--help"])
    assert "--install-completion" in result.output


def finding(name, found, weight):
    return doctor.Finding(name, found, "a use", f"get {name}", weight)


@pytest.mark.parametrize(
    "findings, status, said",
    [
        ([("make", "/bin/make", "needed"), ("curl", "/bin/curl", "optional")], 0, "ready"),
        ([("make", "/bin/make", "needed"), ("curl", "", "optional")], 0, "ready; without curl"),
        ([("make", "", "needed"), ("curl", "", "optional")], 1, "missing, and needed: make"),
    ],
)
def test_doctor_s_verdict(findings, status, said):
    found = [finding(*one) for one in findings]
    assert doctor.verdict(found)[0] == status and doctor.verdict(found)[1].startswith(said)
    screen = Console(file=io.StringIO(), width=160)
    screen.print(doctor.make_table(found))
    text = screen.file.getvalue()
    assert all((f"get {name}" in text) == (not where) for name, where, _ in findings)


def test_doctor_without_tools_names_them_and_how_to_get_them(tmp_path):
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "COLUMNS": "200"}
    result = run("doctor", env=environment)
    assert result.returncode == 1
    assert "missing, and needed: C++ compiler (g++), make, perl" in result.stdout
    assert all(f"apt-get install {name}" in result.stdout for name in ("g++", "make", "perl", "tshark"))


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
        (("--listen", "80=echo", "--listen", "80=discard"), "--listen 80: this port is given 2 times"),
        (
            ("--forward", "8080=10.77.0.1:1", "--forward", "8080=10.77.0.1:2"),
            "--forward 8080: this port is given 2 times",
        ),
        (
            ("--forward", "8080=192.0.2.1:80"),
            "--forward 8080: 192.0.2.1 is not in 10.77.0.0/24, and there is no --gateway to it",
        ),
        (("--forward", "8080=10.77.0.2:80"), "--forward 8080: 10.77.0.2 is the engine's own address"),
        (("--listen", "80=echo", "--ip", "10.77.0.1"), "--ip and --host-ip are both 10.77.0.1"),
        (
            ("--listen", "80=echo", "--ip", "10.78.0.2"),
            "--ip 10.78.0.2 is not in the subnet 10.77.0.0/24 of --host-ip and --prefix",
        ),
        (("--listen", "80=echo", "--ip", "10.77.0.255"), "--ip 10.77.0.255 is no host's address in 10.77.0.0/24"),
        (("--listen", "80=echo", "--gateway", "10.1.0.1"), "--gateway 10.1.0.1 is not in the subnet 10.77.0.0/24"),
        (("--listen", "80=echo", "--gateway", "10.77.0.2"), "--gateway 10.77.0.2 is the engine's own address"),
        ((*DEVICE, "--tap", "tiptoe1"), "--tap is the simulation's: it has no meaning with --device"),
        ((*DEVICE, "--host-stack"), "--host-stack is the simulation's"),
        ((*DEVICE, "--gateway", "10.1.0.1"), "--gateway 10.1.0.1 is not in 192.168.1.0/24"),
        ((*DEVICE, "--gateway", "192.168.1.51"), "--gateway 192.168.1.51 is the engine's own address"),
        ((*DEVICE, "--forward", "1=10.1.0.1:80"), "10.1.0.1 is not in 192.168.1.0/24, and there is no --gateway to it"),
        ((*DEVICE, "--ip", "10.1"), "'10.1' is not an IPv4 address"),
        (("--listen", "80=echo", "--device", "http://a"), "--device http://a: etherbone://..., uart://... is wanted"),
        (("--listen", "80=echo", "--device", "uart://a"), "--device uart://a: etherbone://HOST[:PORT][?build=HEX] or"),
    ],
)
def test_wrong_use_is_one_line(arguments, message):
    result = CliRunner().invoke(app, ["live", *arguments])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--ip", "10.77.0.1"), "--ip and --host-ip are both 10.77.0.1"),
        (("--ip", "10.78.0.2"), "--ip 10.78.0.2 is not in the subnet"),
    ],
)
def test_wrong_addresses_of_run_are_one_line(arguments, message):
    result = CliRunner().invoke(app, ["run", *arguments, "--", "true"])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_subnet_in_use_is_one_line(monkeypatch):
    """By another session, or by a network of this machine: here the loopback's, which every machine has."""
    lines = ["Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT"]
    for interface, destination, mask in (("eth0", "00000000", "00000000"), ("tiptoe0", "00004D0A", "0000FFFF")):
        lines.append(f"{interface} {destination} 00000000 0001 0 0 0 {mask} 0 0 0")
    monkeypatch.setattr(setup, "ROUTES", Mock(read_text=lambda: "\n".join(lines)))
    result = CliRunner().invoke(app, ["live", "--listen", "80=echo"])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr == (
        "error: 10.77.0.0/24 is in use here, by tiptoe0: choose another with --ip and --host-ip, or use --netns\n"
    )


def test_status_reaches_a_file_as_lines(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tiptoe_verif.console.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with status_line("waiting", Console(file=out)) as say:
        for second in range(100):
            now[0] = float(second)
            say(f"{second} connections")
        say("99 connections")
    assert out.getvalue().split("\n")[:-1] == ["waiting", *(f"{n} connections" for n in (1, 3, 7, 15, 31, 63))]


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
