"""The driver in C, with its HTTP server, sink and source, against Linux: curl and plain sockets."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
from pathlib import Path

import pytest

from tests.live.conftest import need
from tiptoe_verif.c_driver import pattern
from tiptoe_verif.c_live import OURS, CLive
from tiptoe_verif.wire import tshark
from tiptoe_verif.wire.pcap import free_capture

pytestmark = pytest.mark.tap


@pytest.fixture
def live(out_dir):
    path = free_capture(out_dir / "live.pcap")
    with CLive(namespace=True, sanitize="undefined", pcap=path) as made:
        yield made
        counters = made.driver.counters
        assert not any(
            counters[name] for name in ("bad_events", "bad_positions", "lost_ids", "refused_commands", "resets")
        )
        made.engine.check()
    if tshark.available():
        assert tshark.faults(path, opaque=True) == []


def curls(live: CLive, folder: Path, *calls: list[str]) -> list[bytes]:
    """What curl writes, called with each of these lists at once; all have to end well."""
    need("curl")
    with contextlib.ExitStack() as stack:
        programs = []
        for number, arguments in enumerate(calls):
            out = stack.enter_context((folder / f"{number}.out").open("wb"))
            command = ["curl", "-sS", "--max-time", "120", *arguments]
            programs.append(live.namespace.popen(command, stdout=out, stderr=subprocess.STDOUT))
        live.engine.run_until(lambda: all(program.poll() is not None for program in programs), 150, "curl")
    outputs = [(folder / f"{number}.out").read_bytes() for number in range(len(calls))]
    assert [program.returncode for program in programs] == [0] * len(calls), outputs
    return outputs


def test_curl_of_a_mebibyte(live, tmp_path) -> None:
    [got] = curls(live, tmp_path, [f"http://{OURS}/bytes/{1 << 20}"])
    assert hashlib.sha256(got).hexdigest() == hashlib.sha256(pattern(1 << 20)).hexdigest()
    [page] = curls(live, tmp_path, [f"http://{OURS}/"])
    counters = dict(line.split() for line in page.decode().splitlines())
    assert counters["requests"] == "2" and counters["accepted"] == "2"


def test_many_curls_at_once(live, tmp_path) -> None:
    """More clients than ids in stock, each with two pages on one connection."""
    sizes = [1000 * n + 7 for n in range(14)]
    pages = [[f"http://{OURS}/bytes/{size}", f"http://{OURS}/bytes/3"] for size in sizes]
    assert curls(live, tmp_path, *pages) == [pattern(size) + pattern(3) for size in sizes]


def test_errors_and_head(live, tmp_path) -> None:
    form = ["-o", "/dev/null", "-w", "%{http_code}"]
    calls = [[f"http://{OURS}/nothing"], ["-X", "PUT", "-d", "x", f"http://{OURS}/"], ["-I", f"http://{OURS}/bytes/9"]]
    assert curls(live, tmp_path, *(form + call for call in calls)) == [b"404", b"405", b"200"]


def test_sink_and_source(live) -> None:
    made = []
    for port in (5001, 5002):
        made.append(live.namespace.socket())
        made[-1].setblocking(False)
        made[-1].connect_ex((OURS, port))
    got, left = [bytearray(), bytearray()], [memoryview(bytes(200_000)), memoryview(b"bytes 300000\n")]
    over = [False, False]

    def step() -> bool:
        for n, sock in enumerate(made):
            try:
                if left[n]:
                    left[n] = left[n][sock.send(left[n]) :]
                    if not left[n] and n == 0:
                        sock.shutdown(socket.SHUT_WR)
                while not over[n] and (data := sock.recv(65536)):
                    got[n].extend(data)
                over[n] = True
            except (BlockingIOError, OSError):
                pass
        return all(over)

    live.engine.run_until(step, 120, "sink and source")
    for sock in made:
        sock.close()
    assert got[0].startswith(b"200000 bytes in ") and got[1] == pattern(300_000)
