"""The commands as a user runs them: `tiptoe live` between a stock server and a stock client, `tiptoe demo`."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.live.conftest import ENGINE, KERNEL
from tiptoe_verif.paths import BUILD
from tiptoe_verif.wire import tshark
from tiptoe_verif.wire.pcap import free_capture, read_pcap

TIPTOE = str(Path(sys.executable).with_name("tiptoe"))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def document(out_dir, rng):
    folder = out_dir / "www"
    folder.mkdir(exist_ok=True)
    (folder / "data.bin").write_bytes(rng.randbytes(300_000))
    return folder / "data.bin"


class InNamespace(ThreadingHTTPServer):
    """A stock HTTP server on a socket of the namespace."""

    def __init__(self, listener, handler):
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


def serve(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return thread


def namespace_listener(namespace, address, port):
    listener = namespace.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(16)
    return listener


def fetch(namespace, host, port):
    """GET data.bin with http.client over a socket of the namespace; its SHA-256."""
    connection = http.client.HTTPConnection(host, port, timeout=120)
    connection.sock = namespace.socket()
    connection.sock.settimeout(120)
    connection.sock.connect((host, port))
    connection.request("GET", "/data.bin")
    response = connection.getresponse()
    assert response.status == 200
    digest = hashlib.sha256(response.read()).hexdigest()
    connection.close()
    return digest


class LiveProcess:
    """`tiptoe live` in a namespace, up when constructed."""

    def __init__(self, namespace, *arguments):
        self.process = namespace.popen(
            [TIPTOE, "live", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"COLUMNS": "120", "TERM": "dumb"},
        )  # fmt: skip
        lines = []
        while not lines or ENGINE not in lines[-1]:
            lines.append(self.process.stdout.readline())
            if not lines[-1]:
                raise AssertionError("".join(lines) + self.process.communicate()[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def end(self):
        """Ctrl-C; its output."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        assert (self.process.returncode, err) == (0, "")
        return out


@contextlib.contextmanager
def echoing(namespace, port=7):
    """A connection to the engine's echo, whose answer has come."""
    with namespace.socket() as client:
        client.settimeout(60)
        client.connect((ENGINE, port))
        client.sendall(b"echo?")
        assert client.recv(100) == b"echo?"
        yield client


@pytest.mark.tap
def test_stock_server_and_client_on_either_side(namespace, document, out_dir):
    expected = hashlib.sha256(document.read_bytes()).hexdigest()
    handler = partial(Quiet, directory=str(document.parent))
    # The relays' targets live in the namespace too, since `tiptoe live` does: on its loopback interface.
    target = InNamespace(namespace_listener(namespace, "127.0.0.1", 0), handler)
    capture = out_dir / "live.pcap"
    live = LiveProcess(
        namespace, "--config", "tiny", "--pcap", str(capture), "--listen",
        f"8080=127.0.0.1:{target.server_address[1]}", "--listen", "7=echo", "--forward", f"9000={KERNEL}:8000",
    )  # fmt: skip
    remote = InNamespace(namespace_listener(namespace, KERNEL, 8000), handler)
    for server in (target, remote):
        serve(server)
    with live:
        try:
            assert fetch(namespace, ENGINE, 8080) == expected  # the offloaded side serves
            assert fetch(namespace, "127.0.0.1", 9000) == expected  # the offloaded side fetches
            with echoing(namespace):
                pass
            time.sleep(0.3)
            out = live.end()
        finally:
            for server in (target, remote):
                server.shutdown()
                server.server_close()
    assert "3 connections" in out
    assert re.search(r"retransmissions +\d", out) and re.search(r"engine cycles +[\d,]{6,}", out)
    assert "no rule broken" in out and "live.pcap" in out
    assert len(list(read_pcap(capture))) > 400
    if tshark.available():
        assert tshark.faults(capture) == []


@pytest.mark.tap
def test_page_and_record(namespace, out_dir):
    """The page of a session tells of its connection, wrong requests do it no harm, and `tiptoe report` makes a file of it."""
    folder = out_dir / "run"
    with LiveProcess(namespace, "--config", "tiny", "--listen", "7=echo", "--record", str(folder), "--web") as live:
        lines = []
        while not lines or "the page" not in lines[-1]:
            lines.append(live.process.stdout.readline())
            assert lines[-1]
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", lines[-1])[1])

        def ask(text):
            with namespace.socket() as client:
                client.settimeout(60)
                client.connect(("127.0.0.1", port))
                client.sendall(text)
                answer = b""
                while part := client.recv(65536):
                    answer += part
            return answer

        with echoing(namespace) as client:
            for nonsense in (b"\0\xff\r\n\r\n", b"GET /data?frames=x HTTP/1.0\r\nHost: localhost:1\r\n\r\n"):
                assert b" 400 " in ask(nonsense)
            end = time.monotonic() + 30
            while f"{ENGINE}:7" not in (answer := ask(b"GET /data HTTP/1.0\r\nHost: localhost:1\r\n\r\n").decode()):
                assert time.monotonic() < end, answer[:500]
                time.sleep(0.2)
            client.sendall(b"still here?")
            assert client.recv(100) == b"still here?"
        time.sleep(0.3)
        out = live.end()
    assert "no rule broken" in out and f"tiptoe report {folder}" in out
    made = subprocess.run([TIPTOE, "report", str(folder)], capture_output=True, text=True, timeout=120)
    assert made.returncode == 0 and "report.html" in made.stdout
    page = (folder / "report.html").read_text()
    assert f'"{ENGINE}:7"' in page and '"state":"ESTABLISHED"' in page


@pytest.mark.tap
def test_seconds_end_a_run(namespace, out_dir):
    live = LiveProcess(
        namespace, "--config", "tiny", "--listen", "7=echo", "--seconds", "0.5", "--pcap", str(out_dir / "live.pcap")
    )
    out, err = live.process.communicate(timeout=60)
    assert (live.process.returncode, err) == (0, "")
    assert "0 connections" in out


@pytest.mark.tap
def test_local_port_in_use_is_one_line(namespace, out_dir):
    with namespace_listener(namespace, "127.0.0.1", 9000):
        process = namespace.popen(
            [TIPTOE, "live", "--config", "tiny", "--forward", f"9000={KERNEL}:80", "--pcap", str(out_dir / "x.pcap")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err == "error: cannot listen on port 9000 of this machine (Address already in use)\n"


@pytest.fixture
def demo_folder():
    """The demo has one folder for its capture: one run at a time, whichever worker has it."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.tap
def test_demo_with_the_kernel(out_dir, demo_folder):
    result = subprocess.run(
        [TIPTOE, "demo", "--size", "1024"], capture_output=True, text=True, timeout=500,
        env=os.environ | {"COLUMNS": "120"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("equal") == 2 and "DIFFERS" not in result.stdout
    assert "2 connections" in result.stdout and "no rule broken" in result.stdout
    assert not tshark.available() or "no bad checksum, no malformed frame" in result.stdout


@pytest.mark.parametrize("config", [[], ["--config", "tiny"]], ids=["default", "tiny"])
def test_demo_with_two_engines(demo_folder, config):
    """As README says it: what there is where no TAP interface is to be had."""
    result = subprocess.run(
        [TIPTOE, "demo", "--size", "64", *config, "--without-tap"], capture_output=True, text=True,
        timeout=500, env=os.environ | {"COLUMNS": "120"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "two engines face each other on a lossy line" in result.stdout
    assert result.stdout.count("equal") == 2


@pytest.mark.tap
def test_host_stack_serves_when_the_listen_table_is_full(namespace, out_dir):
    """Six listeners on an engine for four."""
    ports = range(9000, 9006)
    listen = [word for port in ports for word in ("--listen", f"{port}=echo")]
    pcap = str(out_dir / "live.pcap")
    with LiveProcess(namespace, "--config", "tiny", "--host-stack", "--pcap", pcap, *listen) as live:
        for port in ports:
            with echoing(namespace, port):
                pass
        time.sleep(0.3)
        out = live.end()
    assert "6 connections" in out and re.search(r"not offloaded +2 ", out)


@pytest.mark.tap
def test_two_sessions_at_once_have_captures_of_their_own(namespace, tmp_path):
    """By default each has its own name; a name that is given twice is refused in one line."""
    one = tmp_path / "one.pcap"
    first = LiveProcess(namespace, "--config", "tiny", "--listen", "7=echo", "--netns", "--pcap", str(one))
    try:
        assert first.process.poll() is None
        assert free_capture(one) == tmp_path / "one-2.pcap"
        process = namespace.popen(
            [TIPTOE, "live", "--config", "tiny", "--listen", "7=echo", "--netns", "--pcap", str(one)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert err == f"error: capture {one} is being written by another session: name another\n"
    finally:
        first.end()
    assert free_capture(one) == one


@pytest.mark.tap
def test_subnet_of_another_session_is_refused(namespace, out_dir):
    first = LiveProcess(
        namespace, "--config", "tiny", "--listen", "7=echo", "--pcap", str(free_capture(out_dir / "1.pcap"))
    )
    try:
        process = namespace.popen(
            [TIPTOE, "live", "--config", "tiny", "--listen", "7=echo", "--tap", "tiptoe1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _, err = process.communicate(timeout=60)
    finally:
        first.end()
    assert process.returncode == 2
    assert err.startswith("error: 10.77.0.0/24 is in use here, by tiptoe0: choose another") and err.count("\n") == 1


@pytest.mark.tap
def test_nsenter_line_works_as_printed(namespace, out_dir):
    live = LiveProcess(
        namespace, "--config", "tiny", "--listen", "7=echo", "--netns", "--pcap", str(free_capture(out_dir / "n.pcap"))
    )
    try:
        line = live.process.stdout.readline()
        command = line.partition("in a namespace of its own: ")[2].strip().replace("COMMAND", "cat /proc/net/route")
        shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30)
        assert (shown.returncode, shown.stderr) == (0, "") and "tiptoe0" in shown.stdout
    finally:
        live.end()
