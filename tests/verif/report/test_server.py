"""The page of a run that goes on: what it answers, and to whom."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from tiptoe_verif.report import server
from tiptoe_verif.report.server import AT_ONCE, WebPage


@pytest.fixture(scope="module")
def page(run):
    with WebPage(run.folder, 0) as page:
        yield page


def ask(page, path="/", method="GET", **headers):
    url = page if isinstance(page, str) else page.url
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=20)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_page_and_data(page, run):
    status, body, headers = ask(page)
    assert status == 200 and b"plotly.js" in body and len(body) < 100_000
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    data = json.loads(ask(page, "/data?frames=0&rows=0")[1])
    assert len(data["frames"]) == run.frames and len(data["rows"]) == len(run.rows)
    rest = json.loads(ask(page, f"/data?frames={run.frames - 3}&rows={len(run.rows)}")[1])
    assert rest["frames"] == data["frames"][-3:] and rest["rows"] == []


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/run.json", "//etc/passwd", "/%2e%2e/", "/data/x"])
def test_nothing_but_its_own(page, path):
    assert ask(page, path)[0] == 404


@pytest.mark.parametrize("query", ["frames=x", "frames=1e9", "rows=--1", "frames=" + "9" * 5000])
def test_bad_numbers(page, query):
    assert ask(page, f"/data?{query}")[0] in (200, 400)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:80", "LocalHost:1"])
def test_its_own_names_with_and_without_a_port(page, host):
    """--web-port 80 is not in what a browser sends."""
    status, _, headers = ask(page, Host=host)
    assert status == 200 and headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:80",
        "evil.example",
        "",
        "127.0.0.1.evil.example:1",
        "evil.example@127.0.0.1",
        "127.0.0.1:x",
        "[::1",
    ],
)
def test_another_name_gets_nothing(page, host):
    assert ask(page, Host=host)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_get_alone(page, method):
    assert ask(page, method=method)[0] == 501


def test_clients_that_say_nothing_or_nonsense(page):
    port = urlsplit(page.url).port
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(AT_ONCE - 1)]
    silent[0].sendall(b"\0\xff\r\n\r\n")
    silent[1].sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)
    assert ask(page)[0] == 200
    for each in silent:
        each.close()


def test_who_sends_a_byte_now_and_then_does_not_stay(run, monkeypatch):
    """All places taken, by clients that each read finds busy."""
    monkeypatch.setattr(server, "PATIENCE_S", 1.0)
    over = threading.Event()
    with server.ReportServer(run.folder, 0) as here:
        threading.Thread(target=here.serve_forever, daemon=True).start()
        slow = [socket.create_connection(here.server_address) for _ in range(AT_ONCE)]
        try:

            def trickle():
                while not over.wait(0.1):
                    for each in slow:
                        with contextlib.suppress(OSError):
                            each.sendall(b"G")

            threading.Thread(target=trickle, daemon=True).start()
            until = time.monotonic() + 120
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    assert ask(f"http://127.0.0.1:{here.server_address[1]}/")[0] == 200
                    break
                assert time.monotonic() < until
                time.sleep(0.1)
        finally:
            over.set()
            for each in slow:
                each.close()
            here.shutdown()


def test_a_long_run_comes_bit_by_bit(run, monkeypatch):
    """A request ends in time whatever has gathered before it."""
    monkeypatch.setattr(server, "READING_S", 0.0)
    with server.ReportServer(run.folder, 0) as here:
        assert [here.data()["frames_read"] for _ in range(3)] == [1, 2, 3]


def test_loopback_only(page):
    address = socket.gethostbyname(socket.gethostname())
    if address.startswith("127."):
        pytest.skip("this machine has no other address")
    with pytest.raises(OSError):
        socket.create_connection((address, urlsplit(page.url).port), timeout=5).close()


def test_a_port_that_is_taken(run):
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        WebPage(run.folder, other.getsockname()[1])


def test_it_ends_with_the_session(run):
    page = WebPage(run.folder, 0)
    page.close()
    with pytest.raises(OSError):
        ask(page)
    page.close()
