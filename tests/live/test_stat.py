"""`tiptoe stat`: what a running session says of itself, and clients of its socket that misbehave."""

import contextlib
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.live.conftest import ENGINE, KERNEL, send_some
from tests.live.test_live_command import LiveProcess
from tiptoe_driver.toe.snapshots import info_dict
from tiptoe_verif import stat as stat_command
from tiptoe_verif.live import stat_server
from tiptoe_verif.live.setup import UsageError
from tiptoe_verif.live.stat_server import snapshot
from tiptoe_verif.wire.impairment import Impairment

TIPTOE = str(Path(sys.executable).with_name("tiptoe"))
DELAY_MS = 15


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    """A folder for sockets of this test's own; the path of a socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="tiptoe-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def tiptoe_stat(*arguments):
    return subprocess.run(
        [TIPTOE, "stat", *arguments], capture_output=True, text=True, timeout=60,
        env=os.environ | {"COLUMNS": "120", "TERM": "dumb"},
    )  # fmt: skip


def ask(bench, function):
    """The result of a function that blocks, beside a session that lives on."""
    results, failures = [], []

    def work():
        try:
            results.append(function())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    bench.until(lambda: not thread.is_alive(), "the answer")
    if failures:
        raise failures[0]
    return results[0]


def fetch(bench):
    return ask(bench, lambda: stat_command.fetch(bench.session.stat.path))


@pytest.fixture
def transfer(make_bench):
    """A transfer from engine to kernel over a slow line that loses frames, some hundred kilobytes on."""
    bench = make_bench(
        listen=[(19, "chargen")], stat="test", impairment=Impairment(loss=0.03, delay_us=DELAY_MS * 1000, seed=5)
    )
    client = bench.connect(19)

    def read():
        with contextlib.suppress(BlockingIOError):
            read.count += len(client.recv(1 << 16))

    read.count = 0
    bench.engine.tasks.append(read)
    retransmits = lambda: bench.engine.toe.engine.read_counters()["TX_RETRANSMITS"]  # noqa: E731
    bench.until(lambda: read.count > 300_000 and retransmits() > 2, "some of the stream")
    yield bench, read
    bench.engine.tasks.remove(read)


@pytest.mark.tap
def test_snapshot_of_a_transfer_under_loss(transfer):
    bench, read = transfer
    taken = fetch(bench)
    assert taken["process"] == {"pid": os.getpid(), "command": "test"}
    [device] = taken["devices"]
    assert (device["address"], device["state"], device["link_up"], device["offload"]) == (
        f"{ENGINE}/24",
        "RUNNING",
        True,
        True,
    )
    assert device["ids"]["in_use"] == 1 and sum(device["ids"][key] for key in ("in_use", "stock", "free")) == 16
    assert device["counters"]["TX_RETRANSMITS"] > 2
    [listener] = taken["listeners"]
    assert (listener["local"], listener["devices"]) == ("*:19", ["tiptoe0"])
    assert taken["engine"]["cycles"] > 10_000 and taken["engine"]["line"][1]["lost"] > 0
    [connection] = taken["connections"]
    assert connection["local"] == f"{ENGINE}:19" and connection["foreign"].startswith(f"{KERNEL}:")
    assert (connection["state"], connection["device"]) == ("ESTABLISHED", "tiptoe0")
    assert connection["sent"] - connection["acked"] == connection["waiting"]
    # Acknowledgements are on the line for a while.
    assert 200_000 <= connection["acked"] <= read.count + 100_000 and connection["received"] == 0
    info = connection["info"]
    assert info["tcpi_device"] and info["tcpi_state"] == "ESTABLISHED"
    # Both ways of the line, and what host and simulation add.
    assert 2 * DELAY_MS * 1000 <= info["tcpi_rtt"] < 2 * DELAY_MS * 1000 + 150_000
    assert info["tcpi_rto"] >= info["tcpi_rtt"]
    assert 0 < info["tcpi_snd_rexmitpack"] <= taken["devices"][0]["counters"]["TX_RETRANSMITS"] + 50
    assert info["tcpi_snd_mss"] == 1460 and info["tcpi_snd_cwnd"] >= 1460 and info["tcpi_snd_ssthresh"] < 0xFFFFFF
    assert info["tcpi_snd_wnd"] > 0
    assert 0 < connection["age_us"] <= taken["time_us"]


@pytest.mark.tap
def test_snapshot_is_what_the_driver_knows(make_bench):
    """Of a connection at rest, in all numbers."""
    bench = make_bench(stat="test")
    listener = bench.offloaded_listener(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    bench.carry(server, client, bytes(50_000), back=bytes(3_000))
    bench.for_s(0.3)
    [connection] = fetch(bench)["connections"]
    assert connection["info"] == info_dict(server.info())
    assert (connection["sent"], connection["acked"], connection["received"], connection["unread"]) == (
        50_000,
        50_000,
        3_000,
        0,
    )
    assert snapshot(bench.session)["connections"][0]["info"] == connection["info"]
    client.send(b"unread")
    bench.until(server.readable, "data")
    assert fetch(bench)["connections"][0]["unread"] == 6
    server.close()
    listener.close()


@pytest.mark.tap
def test_folder_and_socket_are_the_user_s_alone(make_bench, runtime):
    bench = make_bench(stat="test")
    path = bench.session.stat.path
    assert path == runtime / "tiptoe" / f"{os.getpid()}.sock"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700 and stat.S_IMODE(path.stat().st_mode) == 0o600
    bench.session.stat.close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.tap
def test_folder_open_to_others_is_not_used(make_bench, runtime):
    (runtime / "tiptoe").mkdir()
    (runtime / "tiptoe").chmod(0o777)
    bench = make_bench(stat="test")
    assert bench.session.stat is None and "remove it" in bench.session.why_no_stat


@pytest.mark.tap
def test_sockets_of_the_dead_are_removed(make_bench, runtime):
    (runtime / "tiptoe").mkdir(mode=0o700)
    dead = runtime / "tiptoe" / "4194304.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(dead))
        made.listen()
        assert stat_server.session_sockets(dead.parent) == [dead]
    assert dead.exists() and stat_server.session_sockets(dead.parent) == []
    assert not dead.exists()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(dead))
    bench = make_bench(stat="test")
    assert sorted(dead.parent.iterdir()) == [bench.session.stat.path]


@pytest.mark.tap
def test_two_sessions_have_to_be_told_apart(make_bench, runtime, monkeypatch):
    bench = make_bench(stat="one")
    only = stat_command.find_session(None)
    assert only == bench.session.stat.path == stat_command.find_session(os.getpid())
    other = make_bench(stat="two", tap="tiptoe1")
    assert other.session.stat.path != only
    with pytest.raises(UsageError, match=f"several sessions.*{os.getpid()}"):
        stat_command.find_session(None)
    with pytest.raises(stat_command.NoSession, match=f"no session has the pid 1: there are {os.getpid()} "):
        stat_command.find_session(1)
    assert bench.session.stat.given_up == 0  # looking for sessions is no question
    other.session.stat.close()
    assert stat_command.find_session(None) == only


def test_no_session_is_one_line():
    result = tiptoe_stat()
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: no session is running: begin one with tiptoe live or tiptoe run\n"


# --- clients ---


def call_on(bench):
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    made.connect(str(bench.session.stat.path))
    return made


def echoes(bench, client):
    """The session still carries data."""
    left = memoryview(bytes(20_000))
    got = 0

    def step():
        nonlocal left, got
        left = left[send_some(client, left) :]
        with contextlib.suppress(BlockingIOError):
            got += len(client.recv(1 << 16))
        return got == 20_000

    bench.until(step, "an echo", 20)


@pytest.mark.tap
def test_client_that_never_reads_stops_nobody(make_bench, monkeypatch, runtime):
    monkeypatch.setattr(stat_server, "PATIENCE_US", 1_500_000)
    bench = make_bench(listen=[(7, "echo")], stat="test")
    server = bench.session.stat
    client = bench.connect(7)
    # An answer far longer than a socket's buffer.
    monkeypatch.setattr(stat_server, "engine_part", lambda *_: {"padding": "x" * 4_000_000})
    idle = [call_on(bench) for _ in range(stat_server.MOST_CLIENTS)]
    bench.until(lambda: all(select.select([made], [], [], 0)[0] for made in idle), "the beginning of the answers")
    echoes(bench, client)
    extra = call_on(bench)
    bench.until(lambda: server.turned_away == 1, "no more than so many")
    assert server.served == server.given_up == 0
    bench.until(lambda: server.given_up == len(idle), "the end of patience", 20)
    monkeypatch.undo()
    assert len(fetch(bench)["connections"]) == 1
    bench.until(lambda: server.served == 1, "a client that reads")
    echoes(bench, client)
    for made in (*idle, extra):
        made.close()


@pytest.mark.tap
@pytest.mark.parametrize("when", ["before the answer", "in the middle of it"])
def test_client_that_goes_away(make_bench, monkeypatch, when):
    monkeypatch.setattr(stat_server, "PATIENCE_US", 600_000_000)  # it is not by patience that the session notices
    bench = make_bench(listen=[(7, "echo")], stat="test")
    server = bench.session.stat
    client = bench.connect(7)
    if when == "before the answer":
        monkeypatch.setattr(stat_server, "SnapshotTaker", lambda *_: None)  # it takes for ever
        made = call_on(bench)
        bench.until(lambda: server._clients, "the client")
    else:
        monkeypatch.setattr(stat_server, "engine_part", lambda *_: {"padding": "x" * 4_000_000})
        made = call_on(bench)
        bench.until(lambda: select.select([made], [], [], 0)[0], "the beginning")
        made.recv(1000)
    made.close()
    bench.until(lambda: server.given_up == 1, "its end", 20)
    assert server.served == 0 and not server._clients
    echoes(bench, client)


# --- the command ---


@pytest.mark.tap
def test_command_on_a_live_session(namespace, out_dir):
    with LiveProcess(
        namespace, "--config", "tiny", "--listen", "19=chargen", "--pcap", str(out_dir / "live.pcap"), "--delay", "10"
    ) as live:
        client = namespace.socket()
        client.settimeout(60)
        client.connect((ENGINE, 19))
        got = 0
        while got < 100_000:
            got += len(client.recv(65536))
        result = tiptoe_stat()
        assert (result.returncode, result.stderr) == (0, "")
        assert f"live, pid {live.process.pid}" in result.stdout and "ESTABLISHED" in result.stdout
        assert f"{KERNEL}:{client.getsockname()[1]}" in result.stdout and "1 connection " in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 120
        taken = json.loads(tiptoe_stat("--json", "--pid", str(live.process.pid)).stdout)
        assert taken["connections"][0]["info"]["tcpi_rtt"] >= 20_000
        wrong = tiptoe_stat("--pid", "1")
        assert wrong.returncode == 1 and wrong.stderr.startswith("error: no session has the pid 1: there are ")
        watch = subprocess.Popen(
            [TIPTOE, "stat", "--watch", "0.2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"COLUMNS": "120", "TERM": "dumb"},
        )  # fmt: skip
        out = ""
        while out.count("1 connection ") < 3:
            out += watch.stdout.readline()
        client.close()
        live.end()
        rest, err = watch.communicate(timeout=30)
        out += rest
    assert (watch.returncode, err) == (0, "")
    assert "a second" in out and "has ended" in out


@pytest.mark.tap
def test_command_beside_a_program(namespace, out_dir):
    """`tiptoe run`, and Ctrl-C to a watching `tiptoe stat`."""
    program = namespace.popen(
        [TIPTOE, "run", "--config", "tiny", "-q", "--pcap", str(out_dir / "run.pcap"), "--", "sleep", "60"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and tiptoe_stat("--json").returncode:
            time.sleep(0.2)
        watch = subprocess.Popen([TIPTOE, "stat", "--watch", "0.1", "--json"], stdout=subprocess.PIPE, text=True)
        lines = [json.loads(watch.stdout.readline()) for _ in range(3)]
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=30)
        assert watch.returncode == 0
    finally:
        program.terminate()
        program.communicate(timeout=60)
    assert lines[0]["process"] == {"pid": program.pid, "command": "run sleep"}
    assert lines[2]["time_us"] > lines[0]["time_us"]
    assert tiptoe_stat().returncode == 1
