"""`tiptoe live --web`: the page of a run that goes on, served to this machine's browsers.

The server is a process of its own that reads the run's files: nothing that a browser asks reaches the session, and the session's
end ends it, since its standard input then ends. It answers GET of three addresses, to requests that name it as 127.0.0.1 or
localhost (a page from elsewhere that has its name resolved to 127.0.0.1 gets nothing); a request has ten seconds in all, and
eight are served at a time.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .page import library, page
from .reader import NoRun, RunReader

ADDRESS = "127.0.0.1"
PATIENCE_S = 10.0
AT_ONCE = 8
READING_S = 2.0
"""Of a request: who comes late to a long run is given it bit by bit."""
_NAMES = re.compile(rf"({re.escape(ADDRESS)}|localhost)(:\d+)?", re.IGNORECASE)
"""In a Host header; a browser leaves the port out where it is 80."""
_NUMBERS = ("frames", "rows", "connections")
_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'"


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE_S
    protocol_version = "HTTP/1.0"
    server: ReportServer

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if not _NAMES.fullmatch(self.headers.get("Host", "")):
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this server is this machine's\n")
        elif address.path == "/":
            self._answer(HTTPStatus.OK, "text/html", self.server.page)
        elif address.path == "/plotly.js":
            self._answer(HTTPStatus.OK, "text/javascript", self.server.library)
        elif address.path == "/data":
            self._data(parse_qs(address.query))
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is /, /plotly.js and /data\n")

    def _data(self, query: dict[str, list[str]]) -> None:
        try:
            numbers = [int(query.get(name, ["0"])[0]) for name in _NUMBERS]
        except ValueError:
            self._answer(HTTPStatus.BAD_REQUEST, "text/plain", b"/data?frames=NUMBER&rows=NUMBER&connections=NUMBER\n")
            return
        try:
            data = self.server.data(*numbers)
        except NoRun as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n".encode())
            return
        self._answer(HTTPStatus.OK, "application/json", json.dumps(data, separators=(",", ":")).encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """The terminal is the session's."""


def _end(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        request.shutdown(socket.SHUT_RDWR)


class ReportServer(ThreadingMixIn, HTTPServer):
    """Serves a run's page; OSError when the port is taken."""

    daemon_threads = True

    def __init__(self, run: Path, port: int) -> None:
        self._reader = RunReader(run)
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self.page = page(None, "Tiptoe, live", script="plotly.js").encode()
        self.library = library().encode()
        super().__init__((ADDRESS, port), _Handler)

    def data(self, *begin: int) -> dict[str, Any]:
        """What has come since these numbers of frames, rows and connections."""
        with self._lock:
            self._reader.read(READING_S)
            return self._reader.data(*begin)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for it, when there is one."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request. The handler's own patience is with each read: who sends a byte now and then would stay."""
        deadline = threading.Timer(PATIENCE_S, _end, [request])
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or says nothing: no matter."""

    def server_close(self) -> None:
        """Close."""
        super().server_close()
        self._reader.close()


class WebPage:
    """The server's process, beside a session.

    Attributes
    ----------
    url : str
        Where it is.
    """

    def __init__(self, run: Path, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(run), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if not said.startswith("http"):
            self.close()
            raise OSError(said or "the page's server did not start")
        self.url = said

    def close(self) -> None:
        """End it. Twice does no harm."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> WebPage:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def main() -> int:
    """FOLDER PORT: serve until standard input ends; the address, or why there is none, is a line."""
    run, port = Path(sys.argv[1]), int(sys.argv[2])
    try:
        server = ReportServer(run, port)
    except OSError as error:
        print(f"--web-port {port}: {error.strerror}", flush=True)
        return 1
    except NoRun as error:
        print(error, flush=True)
        return 1
    print(f"http://{ADDRESS}:{server.server_address[1]}/", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
