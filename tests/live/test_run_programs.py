"""`tiptoe run`: unmodified programs on the engine, the Linux kernel as their peer.

`calls.py` makes some hundred socket calls once on the kernel's TCP and once on the engine: what it sees has to be the same.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.live.conftest import ENGINE, KERNEL, need
from tests.live.peer import Peer
from tests.live.test_live_command import InNamespace, Quiet, namespace_listener, serve
from tiptoe_verif.native.device import engine_config
from tiptoe_verif.native.harness import build_engine
from tiptoe_verif.wire import tshark
from tiptoe_verif.wire.pcap import read_pcap
from tiptoe_verif.wire.segment import parse_tcp

TIPTOE = str(Path(sys.executable).with_name("tiptoe"))
PROGRAMS = Path(__file__).with_name("programs")
pytestmark = pytest.mark.tap
_PLAIN = os.environ | {"COLUMNS": "120", "TERM": "dumb"}
for _name in ("http_proxy", "https_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
    _PLAIN.pop(_name, None)


@pytest.fixture
def document(out_dir, rng):
    folder = out_dir / "www"
    folder.mkdir(exist_ok=True)
    (folder / "data.bin").write_bytes(rng.randbytes(600_000))  # more than a socket's buffer holds
    return folder / "data.bin"


@pytest.fixture
def sha256(document):
    return hashlib.sha256(document.read_bytes()).hexdigest()


@pytest.fixture
def stock_server(namespace, document):
    """Port of an HTTP server on the kernel's side, whichever addresses that will have."""
    server = InNamespace(namespace_listener(namespace, "0.0.0.0", 0), partial(Quiet, directory=str(document.parent)))
    serve(server)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


class Runner:
    """Programs under `tiptoe run` in a namespace, and beside it."""

    def __init__(self, namespace, out_dir):
        self.namespace, self.pcap = namespace, out_dir / "run.pcap"
        self.processes = []

    def start(self, *program, options=(), **popen):
        """`tiptoe run -- PROGRAM`, started."""
        command = [
            TIPTOE,
            "run",
            "--config",
            "tiny",
            "--pcap",
            str(self.pcap),
            *options,
            "--",
            *map(str, program),
        ]
        popen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": _PLAIN} | popen
        self.processes.append(self.namespace.popen(command, **popen))
        return self.processes[-1]

    def run(self, *program, options=("--quiet",), timeout=100, **popen):
        """The same to the end: exit code, stdout, stderr."""
        process = self.start(*program, options=options, **popen)
        out, err = process.communicate(timeout=timeout)
        return process.returncode, out, err.decode()

    def beside(self, *command, timeout=100):
        """A stock program on the kernel's side, to the end."""
        return subprocess.run(
            self.namespace.command([*map(str, command)]), capture_output=True, timeout=timeout, env=_PLAIN
        )

    def until_served(self, port, process, timeout=60):
        """Return when something listens at the engine's port."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and process.poll() is None:
            with self.namespace.socket() as made, contextlib.suppress(OSError):
                made.settimeout(2)
                made.connect((ENGINE, port))
                return
            time.sleep(0.1)
        process.kill()
        raise AssertionError(f"nothing serves port {port}: {process.communicate()}")

    def end(self, process, number=signal.SIGTERM):
        """Pass a signal on to the program; exit code, stdout, stderr."""
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.decode(), err.decode()

    def iperf3(self, side, way, host, options=()):
        """The report of a test with the server or the client under the engine; ``host``: of the server."""
        client = ["iperf3", "-c", host, "-n", "1500K", "-J", *way]
        server = ["iperf3", "-s", "-1"]
        if side == "server":
            under = self.start(*server, options=["-q", *options])
        else:
            under = self.namespace.popen(server, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_PLAIN)
            self.processes.append(under)
        end = time.monotonic() + 60
        out = b'"error"'
        while (
            b'"error"' in out and time.monotonic() < end
        ):  # until it serves; with -1 the first connection is the test's
            time.sleep(0.3)
            out = self.beside(*client).stdout if side == "server" else self.run(*client, options=["-q", *options])[1]
        under.communicate(timeout=60)
        assert under.returncode == 0
        report = json.loads(out)
        assert "error" not in report, report
        return report

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=10)
            process.kill()  # what its program still writes goes nowhere
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def check_capture(self, carried=0, version=4):
        """At least so many bytes of payload went over the engine (the kernel could serve its own address by itself)."""
        segments = [
            segment
            for _, frame in read_pcap(self.pcap)
            if (segment := parse_tcp(frame)) is not None and (segment.src >> 32 != 0) == (version == 6)
        ]
        assert sum(len(segment.payload) for segment in segments) >= carried and segments
        if tshark.available():
            assert tshark.faults(self.pcap, opaque=True) == []


@pytest.fixture(scope="module")
def engine_is_built():
    """So that no command has to tell of a build."""
    build_engine(engine_config("tiny"))


@pytest.fixture
def runner(engine_is_built, namespace, out_dir):
    with Runner(namespace, out_dir) as made:
        yield made


# --- fetching ---


@pytest.mark.parametrize(
    "program", [("curl", "-sS", "--max-time", "60"), ("wget", "-q", "-T", "60", "-t", "1", "-O", "-")],
    ids=lambda words: words[0],
)  # fmt: skip
def test_stock_client_fetches(runner, stock_server, sha256, program):
    need(program[0])
    code, out, err = runner.run(*program, f"http://{KERNEL}:{stock_server}/data.bin")
    assert (code, err) == (0, "")
    assert hashlib.sha256(out).hexdigest() == sha256
    runner.check_capture(600_000)


def test_upload_is_complete_when_the_program_ends_first(runner, namespace, rng):
    """What the program wrote last is still with the broker when it exits."""
    data = rng.randbytes(300_000)
    with namespace_listener(namespace, "0.0.0.0", 0) as listener:
        code = f"import socket, sys; s = socket.create_connection(('{KERNEL}', {listener.getsockname()[1]})); "
        code += "s.sendall(sys.stdin.buffer.read())"
        process = runner.start(sys.executable, "-c", code, options=["-q"], stdin=subprocess.PIPE)
        process.stdin.write(data)
        process.stdin.close()
        process.stdin = None
        listener.settimeout(60)
        connection, _ = listener.accept()
        connection.settimeout(60)
        with connection:
            got = b"".join(iter(lambda: connection.recv(65536), b""))
        process.communicate(timeout=60)
    assert got == data
    assert process.returncode == 0
    runner.check_capture(300_000)


def test_lossy_line(runner, stock_server, sha256):
    need("curl")
    code, out, err = runner.run(
        "curl", "-sS", "--max-time", "90", f"http://{KERNEL}:{stock_server}/data.bin",
        options=["-q", "--loss", "0.01", "--reorder", "0.02", "--duplicate", "0.01", "--corrupt", "0.01"],
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert hashlib.sha256(out).hexdigest() == sha256


# --- serving ---


def test_http_server_of_python(runner, document, sha256):
    need("curl")
    server = runner.start(sys.executable, "-m", "http.server", "8000", "--directory", document.parent)
    runner.until_served(8000, server)
    fetched = runner.beside("curl", "-sS", "--max-time", "60", f"http://{ENGINE}:8000/data.bin")
    assert (fetched.returncode, fetched.stderr) == (0, b"")
    assert hashlib.sha256(fetched.stdout).hexdigest() == sha256
    code, _, err = runner.end(server, signal.SIGINT)
    assert code == 0
    assert '"GET /data.bin HTTP/1.1" 200' in err and "no rule broken" in err
    runner.check_capture()


def test_asyncio_echo_server(runner, namespace, rng):
    server = runner.start(sys.executable, PROGRAMS / "echo_server.py", 7007, 5, options=["-q"])
    runner.until_served(7007, server)  # the first connection

    def echo(data):
        with namespace.socket() as made:
            made.settimeout(60)
            made.connect((ENGINE, 7007))
            got = bytearray()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                sending = pool.submit(lambda: (made.sendall(data), made.shutdown(1)))
                while part := made.recv(65536):
                    got += part
                sending.result()
            return bytes(got)

    blocks = [rng.randbytes(30_000) for _ in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(echo, blocks)) == blocks
    _, err = server.communicate(timeout=60)
    assert (server.returncode, err) == (0, b"")
    runner.check_capture()


def test_nginx(runner, document, sha256, out_dir):
    need("nginx", "curl")
    document.parent.chmod(0o755)
    temporary = "".join(
        f"{kind}_temp_path {out_dir}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else the worker may not be allowed to read where we are
    (out_dir / "nginx.conf").write_text(
        f"daemon off; worker_processes 2; pid {out_dir}/pid; error_log {out_dir}/error.log; {user}"
        "events { worker_connections 32; }"
        f"http {{ access_log off; sendfile on; tcp_nopush on; {temporary}"
        f" server {{ listen 8080; root {document.parent}; }} server {{ listen 8081 reuseport; root {document.parent}; }} }}"
    )
    server = runner.start("nginx", "-c", out_dir / "nginx.conf", "-p", out_dir, options=["-q"])
    runner.until_served(8080, server)
    url = f"http://{ENGINE}:8080/data.bin"
    fetched = runner.beside("curl", "-sS", "--max-time", "60", url, url)  # the second on the same connection
    assert (fetched.returncode, fetched.stderr) == (0, b"")
    half = len(fetched.stdout) // 2
    assert [hashlib.sha256(part).hexdigest() for part in (fetched.stdout[:half], fetched.stdout[half:])] == [sha256] * 2
    for _ in range(3):  # a socket for each worker
        fetched = runner.beside("curl", "-sS", "--max-time", "60", f"http://{ENGINE}:8081/data.bin")
        assert hashlib.sha256(fetched.stdout).hexdigest() == sha256
    missing = runner.beside("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{ENGINE}:8080/none")
    assert missing.stdout == b"404"
    code, _, err = runner.end(server)
    assert (code, err) == (0, "")
    runner.check_capture()


def test_redis_server_answers_redis_benchmark(runner):
    need("redis-server", "redis-benchmark", "redis-cli")
    server = runner.start(
        "redis-server",
        "--port",
        "6379",
        "--bind",
        "0.0.0.0",
        "--protected-mode",
        "no",
        "--save",
        "",
        options=["-q"],
    )
    runner.until_served(6379, server)
    benchmark = runner.beside(
        "redis-benchmark", "-h", ENGINE, "-n", "100", "-c", "4", "-d", "1000", "-t", "ping,set,get", "--csv"
    )
    assert benchmark.returncode == 0, benchmark.stderr
    assert [line.split(b",")[0] for line in benchmark.stdout.splitlines()[1:]] == [
        b'"PING_INLINE"', b'"PING_MBULK"', b'"SET"', b'"GET"',
    ]  # fmt: skip
    assert runner.beside("redis-cli", "-h", ENGINE, "echo", "over the engine").stdout == b"over the engine\n"
    code, _, err = runner.end(server)
    assert (code, err) == (0, "")
    runner.check_capture()


@pytest.mark.parametrize("way", [[], ["-R"]], ids=["towards the engine", "from the engine"])
@pytest.mark.parametrize("side", ["server", "client"])
def test_iperf3(runner, side, way):
    need("iperf3")
    report = runner.iperf3(side, way, ENGINE if side == "server" else KERNEL)
    assert report["end"]["sum_sent"]["bytes"] >= 1500 * 1024
    assert report["end"]["sum_received"]["bytes"] > 0
    runner.check_capture()


# --- the calls one by one ---


def observations(out):
    return dict(map(json.loads, out.splitlines()))


def test_calls_are_as_on_the_kernel(runner, namespace):
    listener = namespace_listener(namespace, "0.0.0.0", 0)
    peer = Peer(listener, namespace.socket)
    try:
        program = [sys.executable, PROGRAMS / "calls.py"]
        kernel = runner.beside(*program, "127.0.0.1", peer.port, timeout=250)
        assert (kernel.returncode, kernel.stderr) == (0, b"")
        process = runner.start(  # the small engine has too few connections for all that is in TIME_WAIT here
            *program, KERNEL, peer.port, options=["-q", "--config", "sim"],
            env=_PLAIN | {"SILENT_HOST": KERNEL.rpartition(".")[0] + ".99"},
        )  # fmt: skip
        out, err = process.communicate(timeout=250)
        assert (process.returncode, err) == (0, b"")
    finally:
        peer.close()
    expected, seen = observations(kernel.stdout), observations(out)
    # Nobody answers ARP there: interrupted, still under way, then out of time. (The kernel has no such network.)
    assert seen["signals"][2:] == [-1, "EINTR", "EALREADY", "EINPROGRESS"]
    seen["signals"] = seen["signals"][:2]
    assert len(seen) > 20
    assert seen == expected
    runner.check_capture(1_000_000)


@pytest.mark.parametrize(
    ("scenario", "words", "tos", "ttl"),
    [("options_of_a_live_connection", b"on", 0x10, 5), ("options_of_accepted_connections", b"taken", 0x28, 77)],
)
def test_options_show_on_the_wire(runner, namespace, scenario, words, tos, ttl):
    peer = Peer(namespace_listener(namespace, "0.0.0.0", 0), namespace.socket)
    try:
        code, out, _ = runner.run(sys.executable, PROGRAMS / "calls.py", KERNEL, peer.port, scenario)
    finally:
        peer.close()
    assert code == 0 and words.decode() in out.decode()
    source = bytes(map(int, ENGINE.split(".")))
    sent = [frame for _, frame in read_pcap(runner.pcap) if frame[26:30] == source and parse_tcp(frame) is not None]
    assert {(frame[15], frame[22]) for frame in sent if parse_tcp(frame).payload == words} == {(tos, ttl)}
    # The handshake was before it.
    assert (sent[0][15], sent[0][22]) == (0, 64)


# --- the command itself ---


def test_exit_codes_and_output_are_the_programs(runner):
    assert runner.run("sh", "-c", "echo out; echo err >&2; exit 7") == (7, b"out\n", "err\n")
    assert runner.run("sh", "-c", "kill -9 $$")[0] == 137
    assert runner.run("cat", "-", stdin=subprocess.DEVNULL) == (0, b"", "")


def test_signals_are_passed_on(runner, namespace):
    # Not SIGHUP, which a shell cannot trap below `nohup`.
    script = "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.1; done"
    process = runner.start("sh", "-c", script, options=["-q"])
    assert process.stdout.readline() == b"ready\n"
    assert runner.end(process, signal.SIGUSR1) == (3, "caught\n", "")


@pytest.mark.parametrize(
    ("options", "answer"),
    [(["--no-host-stack"], b"16 4\n"), (["--host-stack"], b"24 24\n")],
    ids=["engine alone", "host stack"],
)
def test_more_than_the_engine_has_room_for(runner, namespace, options, answer):
    """An engine for 16 connections and 4 listeners; beyond, a kernel on the host's side has to help."""
    peer = Peer(namespace_listener(namespace, "0.0.0.0", 0), namespace.socket)
    program = [sys.executable, PROGRAMS / "many.py", KERNEL, peer.port, 24]
    code, out, err = runner.run(*program, options=["--quiet", *options])
    peer.close()
    assert (code, out, err) == (0, answer, "")
    runner.check_capture()


def test_programs_that_cannot_be_run_are_one_line(runner, out_dir):
    assert runner.run("no-such-program") == (127, b"", "error: no-such-program: not found\n")
    text = out_dir / "text"
    text.write_text("no program")
    text.chmod(0o644)
    assert runner.run(text) == (126, b"", f"error: {text}: cannot be executed\n")
    static = out_dir / "static"
    source = "int main(void) { return 0; }"
    if subprocess.run(["gcc", "-static", "-x", "c", "-", "-o", static], input=source.encode()).returncode == 0:
        code, out, err = runner.run(static)
        assert (code, out, err.count("\n")) == (126, b"", 1)
        assert "statically linked" in err
    process = runner.namespace.popen(
        [TIPTOE, "run", "--config", "tiny", "true"],
        stderr=subprocess.PIPE,
        env=_PLAIN | {"PATH": "/nonexistent"},
    )
    assert process.communicate(timeout=60)[1].count(b"\n") == 1
    assert process.returncode == 127


def test_no_compiler_is_one_line(runner, out_dir):
    folder = out_dir / "bin"
    folder.mkdir(exist_ok=True)
    process = runner.namespace.popen(
        [TIPTOE, "run", "--config", "tiny", sys.executable, "-c", ""], stderr=subprocess.PIPE,
        env=_PLAIN | {"PATH": str(folder)},
    )  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith(b"error: gcc not found") and err.count(b"\n") == 1
