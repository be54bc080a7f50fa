"""The driver in C, with its HTTP server, sink and source, against Linux: curl and plain sockets."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess

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


def curl(live: CLive, *arguments: str) -> subprocess.Popen[bytes]:
    return live.namespace.popen(
        ["curl", "-sS", "--max-time", "120", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finished(live: CLive, *programs: subprocess.Popen[bytes]) -> list[bytes]:
    """What they have written, once all have ended well."""
    found = [bytearray() for _ in programs]
    for program in programs:
        assert program.stdout is not None
        os.set_blocking(program.stdout.fileno(), False)

    def ended() -> bool:
        for program, into in zip(programs, found, strict=True):
            assert program.stdout is not None
            into.extend(program.stdout.read() or b"")
        return all(program.poll() is not None for program in programs)

    live.engine.run_until(ended, 120, "curl")
    for program, into in zip(programs, found, strict=True):
        assert program.stdout is not None and program.stderr is not None
        into.extend(program.stdout.read() or b"")
        assert program.returncode == 0, program.stderr.read()
    return [bytes(into) for into in found]


def test_curl_of_a_mebibyte(live) -> None:
    need("curl")
    url = f"http://{OURS}/bytes/{1 << 20}"
    [got] = finished(live, curl(live, url))
    assert hashlib.sha256(got).hexdigest() == hashlib.sha256(pattern(1 << 20)).hexdigest()
    [page] = finished(live, curl(live, f"http://{OURS}/"))
    counters = dict(line.split() for line in page.decode().splitlines())
    assert counters["requests"] == "2" and counters["accepted"] == "2"


def test_many_curls_at_once(live) -> None:
    """More clients than ids in stock, each with two pages on one connection."""
    need("curl")
    sizes = [1000 * n + 7 for n in range(14)]
    programs = [curl(live, f"http://{OURS}/bytes/{size}", f"http://{OURS}/bytes/3") for size in sizes]
    assert finished(live, *programs) == [pattern(size) + pattern(3) for size in sizes]


def test_errors_and_head(live) -> None:
    need("curl")
    form = ("-o", "/dev/null", "-w", "%{http_code}")
    requests = [
        (f"http://{OURS}/nothing",),
        ("-X", "PUT", "-d", "x", f"http://{OURS}/"),
        ("-I", f"http://{OURS}/bytes/9"),
    ]
    assert finished(live, *(curl(live, *form, *request) for request in requests)) == [b"404", b"405", b"200"]


def test_sink_source_and_ping(live) -> None:
    need("ping")
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
    command = ["ping", "-c", "2", "-i", "0.2", "-W", "20", OURS]
    ping = live.namespace.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    [text] = finished(live, ping)
    assert b"2 received" in text
