"""`tiptoe run` over IPv6: unmodified programs with sockets of AF_INET6 on the engine, the Linux kernel as their peer."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
from functools import partial

import pytest

from tests.live.conftest import ENGINE, KERNEL, need
from tests.live.peer import Peer
from tests.live.test_live_command import InNamespace, Quiet, namespace_listener, serve
from tests.live.test_run_programs import _PLAIN, PROGRAMS, Runner, document, observations, sha256
from tiptoe_verif.native.device import engine_config
from tiptoe_verif.native.harness import build_engine
from tiptoe_verif.wire.pcap import read_pcap

__all__ = ["document", "sha256"]
pytestmark = pytest.mark.tap
ENGINE6, KERNEL6, NOBODY6 = "fd77::2", "fd77::1", "fd77::99"
V6 = ["-q", "--config", "sim", "--ip6", ENGINE6, "--host-ip6", KERNEL6]


@pytest.fixture(scope="module")
def engine_is_built():
    """So that no command has to tell of a build."""
    build_engine(engine_config("sim"))


@pytest.fixture
def runner(engine_is_built, namespace, out_dir):
    with Runner(namespace, out_dir) as made:
        yield made


@pytest.fixture
def stock_server(namespace, document):
    """Port of an HTTP server on the kernel's side, of both versions."""
    server = InNamespace(namespace_listener(namespace, "::", 0), partial(Quiet, directory=str(document.parent)))
    serve(server)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def fetched(runner, port, host=f"[{ENGINE6}]"):
    """The digest of what a server under the engine gives a stock client."""
    got = runner.beside("curl", "-sS", "-g", "--max-time", "60", f"http://{host}:{port}/data.bin")
    assert (got.returncode, got.stderr) == (0, b"")
    return hashlib.sha256(got.stdout).hexdigest()


@pytest.mark.parametrize(
    "program", [("curl", "-sSg6", "--max-time", "60"), ("wget", "-q", "-6", "-T", "60", "-t", "1", "-O", "-")],
    ids=lambda words: words[0],
)  # fmt: skip
def test_stock_client_fetches(runner, stock_server, sha256, program):
    need(program[0])
    code, out, err = runner.run(*program, f"http://[{KERNEL6}]:{stock_server}/data.bin", options=V6)
    assert (code, err) == (0, "")
    assert hashlib.sha256(out).hexdigest() == sha256
    runner.check_capture(600_000, version=6)


def test_lossy_line(runner, stock_server, sha256):
    need("curl")
    line = ["--loss", "0.01", "--reorder", "0.02", "--duplicate", "0.01", "--corrupt", "0.01"]
    code, out, err = runner.run(
        "curl", "-sSg", "--max-time", "90", f"http://[{KERNEL6}]:{stock_server}/data.bin", options=V6 + line
    )
    assert (code, err) == (0, "")
    assert hashlib.sha256(out).hexdigest() == sha256


@pytest.mark.parametrize("host_stack", ["--host-stack", "--no-host-stack"])
def test_http_server_of_python_for_both_versions(runner, document, sha256, host_stack):
    """One listening socket, ::, two entries of the engine's listen table."""
    need("curl")
    server = runner.start(
        sys.executable, "-m", "http.server", "8000", "--bind", "::", "--directory", document.parent,
        options=[*V6[1:], host_stack],
    )  # fmt: skip
    runner.until_served(8000, server)
    assert [fetched(runner, 8000), fetched(runner, 8000, ENGINE)] == [sha256] * 2
    code, _, err = runner.end(server, signal.SIGINT)
    assert code == 0 and "no rule broken" in err
    assert f"{KERNEL6} - - " in err and f"::ffff:{KERNEL} - - " in err
    runner.check_capture(600_000, version=6)
    runner.check_capture(600_000, version=4)


def test_nginx(runner, document, sha256, out_dir):
    """A socket for each version on one port, as it is usually configured, one for both, and one for each worker."""
    need("nginx", "curl")
    document.parent.chmod(0o755)
    temporary = "".join(
        f"{kind}_temp_path {out_dir}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else the worker may not be allowed to read where we are
    listens = "listen 8080; listen [::]:8080;", "listen [::]:8081 ipv6only=off;", "listen [::]:8082 reuseport;"
    servers = "".join(f"server {{ {listen} root {document.parent}; }}" for listen in listens)
    (out_dir / "nginx.conf").write_text(
        f"daemon off; worker_processes 2; pid {out_dir}/pid; error_log {out_dir}/error.log; {user}"
        "events { worker_connections 32; }"
        f"http {{ access_log off; sendfile on; tcp_nopush on; {temporary} {servers} }}"
    )
    server = runner.start("nginx", "-c", out_dir / "nginx.conf", "-p", out_dir, options=V6)
    runner.until_served(8080, server)
    for port, hosts in ((8080, 2), (8081, 2), (8082, 1)):
        for host in (f"[{ENGINE6}]", ENGINE)[:hosts]:
            assert fetched(runner, port, host) == sha256, f"port {port} of {host}"
    code, _, err = runner.end(server)
    assert (code, err) == (0, "")
    runner.check_capture(3 * 600_000, version=6)


def test_redis(runner):
    need("redis-server", "redis-benchmark", "redis-cli")
    server = runner.start(
        "redis-server", "--port", "6379", "--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "", options=V6
    )
    runner.until_served(6379, server)
    benchmark = runner.beside(
        "redis-benchmark", "-h", ENGINE6, "-n", "100", "-c", "4", "-d", "1000", "-t", "set,get", "--csv"
    )
    assert benchmark.returncode == 0, benchmark.stderr
    assert [line.split(b",")[0] for line in benchmark.stdout.splitlines()[1:]] == [b'"SET"', b'"GET"']
    for host in (ENGINE, ENGINE6):
        assert runner.beside("redis-cli", "-h", host, "echo", "over the engine").stdout == b"over the engine\n"
    code, _, err = runner.end(server)
    assert (code, err) == (0, "")
    runner.check_capture(1000, version=6)


def test_redis_cli(runner):
    """The client's side: its server is a program of the kernel's."""
    need("redis-server", "redis-cli")
    server = runner.namespace.popen(
        ["redis-server", "--port", "6379", "--bind", "::", "--protected-mode", "no", "--save", ""],
        stdout=subprocess.PIPE, env=_PLAIN,
    )  # fmt: skip
    runner.processes.append(server)
    code, out, _ = runner.run("redis-cli", "-h", KERNEL6, "echo", "over the engine", options=V6)
    assert (code, out) == (0, b"over the engine\n")
    runner.check_capture(10, version=6)


@pytest.mark.parametrize("way", [[], ["-R"]], ids=["towards the engine", "from the engine"])
@pytest.mark.parametrize("side", ["server", "client"])
def test_iperf3(runner, side, way):
    """Its server listens at :: for both versions whichever it is asked for."""
    report = runner.iperf3(side, ["-6", *way], ENGINE6 if side == "server" else KERNEL6, V6)
    assert report["end"]["sum_sent"]["bytes"] >= 1500 * 1024
    assert report["end"]["sum_received"]["bytes"] > 0
    runner.check_capture(500_000, version=6)  # what waits in the sender when it has written all goes with it


def test_options_show_on_the_wire(runner, namespace):
    """Of a socket of both versions, each connection has what was set for its version."""
    peer = Peer(namespace_listener(namespace, "::", 0), partial(namespace.socket, socket.AF_INET6))
    try:
        program = [sys.executable, PROGRAMS / "calls.py", KERNEL6, peer.port, "options_of_both_versions"]
        code, _, err = runner.run(*program, options=V6, env=_PLAIN | {"HOST4": KERNEL, "HOST6": KERNEL6})
    finally:
        peer.close()
    assert (code, err) == (0, "")
    ours = bytes.fromhex("020000000002")
    sent = [frame for _, frame in read_pcap(runner.pcap) if frame[6:12] == ours]
    marked = [frame for frame in sent if frame.rstrip(b"\0").endswith(b"marked")]
    headers = {
        (frame[14] >> 4, int.from_bytes(frame[14:16]) >> 4 & 0xFF, frame[21]) for frame in marked if frame[14] >> 4 == 6
    }
    headers |= {(4, frame[15], frame[22]) for frame in marked if frame[14] >> 4 == 4}
    assert headers == {(4, 0x10, 64), (6, 0x2C, 9)}


def test_calls_are_as_on_the_kernel(runner, namespace):
    peer = Peer(namespace_listener(namespace, "::", 0), partial(namespace.socket, socket.AF_INET6))
    try:
        program = [sys.executable, PROGRAMS / "calls.py"]
        kernel = runner.beside(*program, "::1", peer.port, timeout=250)
        assert (kernel.returncode, kernel.stderr) == (0, b"")
        process = runner.start(
            *program, KERNEL6, peer.port, options=V6,
            env=_PLAIN | {"SILENT_HOST": NOBODY6, "HOST4": KERNEL, "HOST6": KERNEL6},
        )  # fmt: skip
        out, err = process.communicate(timeout=250)
        assert (process.returncode, err) == (0, b"")
    finally:
        peer.close()
    expected, seen = observations(kernel.stdout), observations(out)
    # Nobody answers there: interrupted, still under way, then out of time. (The kernel has no such network.)
    assert seen["signals"][2:] == [-1, "EINTR", "EALREADY", "EINPROGRESS"]
    seen["signals"] = seen["signals"][:2]
    assert len(seen) > 20
    assert {name: (seen[name], expected[name]) for name in seen if seen[name] != expected[name]} == {}
    runner.check_capture(1_000_000, version=6)
