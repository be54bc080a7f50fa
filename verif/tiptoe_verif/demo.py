"""The demo: two HTTP downloads of random data, one served by and one fetched over the offloaded side, hashes compared.

With a TAP interface the peer is the Linux kernel's TCP in a network namespace, with a stock client and a stock server:

    client in the namespace → kernel TCP → TAP → engine → relay → server here       (offloaded side serves)
    client here → relay → engine → TAP → kernel TCP → server in the namespace       (offloaded side fetches)

Without one, two engines face each other on a seeded lossy line, and programs on offloaded sockets play both parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from .console import bar, build_progress, console
from .paths import BUILD

FOLDER = BUILD / "demo"
_HTTP_PORT = 80
_TIMEOUT = 300.0
_SERVER = "Python's http.server"
_FETCH = (
    "import sys, urllib.request as u; "
    "r = u.build_opener(u.ProxyHandler({})).open(sys.argv[1]); o = open(sys.argv[2], 'wb')\n"
    "while d := r.read(65536): o.write(d)"
)


@dataclass
class Transfer:
    """One download, as the summary shows it."""

    name: str
    way: str
    bytes: int = 0
    seconds: float = 0.0
    cycles: int = 0
    sha256: str = ""
    right: bool = False


def run_demo(*, size: int, config: str, seed: int, without_tap: bool) -> int:
    """Run it; 0 if both downloads arrived whole."""
    from .live.namespace import why_no_tap

    FOLDER.mkdir(parents=True, exist_ok=True)
    reason = "as asked for" if without_tap else why_no_tap()
    if reason is None:
        transfers = _with_kernel(size, config, seed)
    else:
        console.print(f"no TAP interface ({reason}): two engines face each other on a lossy line instead")
        transfers = _with_two_engines(size, config, seed)
    wrong = [transfer.name for transfer in transfers if not transfer.right]
    if wrong:
        console.print(f"[bold red]error:[/] not the same bytes: {', '.join(wrong)}")
    return 1 if wrong else 0


def _data(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


# --- with the kernel as peer ---


def _with_kernel(size: int, config: str, seed: int) -> list[Transfer]:
    from .live.session import LiveSession
    from .live.setup import LiveSetup
    from .live.summary import connections_table, show, totals_table

    served, fetched = FOLDER / "served", FOLDER / "fetched"
    contents = {served: _data(size, seed), fetched: _data(size, seed + 1)}
    for folder, content in contents.items():
        folder.mkdir(exist_ok=True)
        (folder / "data.bin").write_bytes(content)
    with contextlib.ExitStack() as stack:
        inner_port = 8000
        port = stack.enter_context(_server(served, "127.0.0.1", 0, lambda command: command))
        setup = LiveSetup(
            config=config, namespace=True, seed=seed, pcap=FOLDER / "demo.pcap", record=FOLDER,
            listen=[(_HTTP_PORT, ("127.0.0.1", port))], forward=[(0, ("10.77.0.1", inner_port))],
        )  # fmt: skip
        begin = time.monotonic()
        with build_progress() as progress:
            session = stack.enter_context(LiveSession(setup, progress))
        assert session.namespace is not None
        stack.enter_context(_server(fetched, setup.host_ip, inner_port, session.namespace.command))
        console.print(
            f"engine [bold]{setup.ip}[/] ({config}), peer Linux {os.uname().release.split('-')[0]} at "
            f"[bold]{setup.host_ip}[/] in a network namespace"
        )
        client = "curl" if shutil.which("curl") else "Python's urllib"
        transfers = [
            _download(
                session, Transfer("offloaded side serves", f"{client} → kernel TCP → engine → {_SERVER}"),
                f"http://{setup.ip}/data.bin", session.namespace.command, contents[served],
            ),
            _download(
                session, Transfer("offloaded side fetches", f"{client} → engine → kernel TCP → {_SERVER}"),
                f"http://127.0.0.1:{session.forwarded[0]}/data.bin", lambda command: command, contents[fetched],
            ),
        ]  # fmt: skip
        session.engine.run_until(lambda: session.board.live == 0, 30, "the end of the connections")
        session.engine.check()
        engine = session.engine
        totals = totals_table([engine], seconds=engine.engine_seconds)
        records = connections_table(session.board.records)
        engine.capture.close()
        picture = _picture(FOLDER / "demo.pcap", transfers)
        show(console, "downloads", _transfer_table(transfers))
        show(console, "summary", records, "", totals)
        _closing(picture, time.monotonic() - begin)
    return transfers


@contextlib.contextmanager
def _server(folder: Path, address: str, port: int, inside: Callable[[list[str]], list[str]]) -> Iterator[int]:
    """Python's stock HTTP server; its port."""
    command = [sys.executable, "-u", "-m", "http.server", str(port), "--bind", address, "--directory", str(folder)]
    process = subprocess.Popen(
        inside(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r" port (\d+) ", line)
        if found is None:
            raise RuntimeError(f"the HTTP server did not start on {address}:{port}")
        yield int(found[1])
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _download(
    session: Any, transfer: Transfer, url: str, inside: Callable[[list[str]], list[str]], expected: bytes
) -> Transfer:
    """Run a stock client on ``url`` while the engine lives, and compare what it got."""
    engine, board = session.engine, session.board
    result = FOLDER / f"{transfer.name.split()[-1]}.out"
    result.unlink(missing_ok=True)
    if shutil.which("curl"):
        command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--output", str(result), url]
    else:
        command = [sys.executable, "-c", _FETCH, url, str(result)]
    console.print(f"[dim]{transfer.way}[/]")
    records, first_cycle, begin = board.records, engine.harness.cycle, time.monotonic()
    before = records.sent + records.received
    process = subprocess.Popen(inside(command), stderr=subprocess.PIPE, text=True)
    with process, bar() as display:
        task = display.add_task(transfer.name, total=len(expected))
        while process.poll() is None:
            engine.round(20_000)
            done = records.sent + records.received - before
            display.update(task, completed=min(done, len(expected)))
            if time.monotonic() - begin > _TIMEOUT:
                process.kill()
        assert process.stderr is not None
        complaint = process.stderr.read().strip()
    if process.returncode:
        console.print(f"{command[0]} failed with status {process.returncode}: {complaint}")
    transfer.seconds = time.monotonic() - begin
    transfer.cycles = engine.harness.cycle - first_cycle
    _judge(transfer, result.read_bytes() if result.exists() else b"", expected)
    return transfer


# --- without: two engines ---


class _HttpServer:
    """Serves one document to everybody, on an offloaded socket."""

    def __init__(self, simulation: Any, document: bytes) -> None:
        self._listener = simulation.socket()
        self._listener.bind(("", _HTTP_PORT))
        self._listener.listen()
        self._answer = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(document) + document
        self._clients: list[list[Any]] = []  # socket, request so far, bytes of the answer sent (-1: none yet)
        simulation.tasks.append(self.work)

    def work(self) -> None:
        """Do what can be done without waiting."""
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._clients.append([connection, b"", -1])
        for client in list(self._clients):
            with contextlib.suppress(BlockingIOError):
                self._serve(client)

    def _serve(self, client: list[Any]) -> None:
        connection = client[0]
        while client[2] < 0:
            client[1] += connection.recv(4096)
            if client[1].endswith(b"\r\n\r\n"):
                client[2] = 0
        while client[2] < len(self._answer):
            client[2] += connection.send(memoryview(self._answer)[client[2] :])
        connection.close()
        self._clients.remove(client)


class _HttpClient:
    """Fetches one document over an offloaded socket."""

    def __init__(self, simulation: Any, server: str) -> None:
        self._socket = simulation.socket()
        self._socket.connect_ex((server, _HTTP_PORT))
        self._request = b"GET /data.bin HTTP/1.0\r\n\r\n"
        self.received = bytearray()
        self.done = False
        simulation.tasks.append(self.work)

    def work(self) -> None:
        """Do what can be done without waiting."""
        with contextlib.suppress(BlockingIOError):
            while self._request:
                if not self._socket.writable():
                    return
                self._request = self._request[self._socket.send(self._request) :]
            while not self.done:
                data = self._socket.recv(1 << 16)
                self.received += data
                self.done = not data
                if self.done:
                    self._socket.close()

    @property
    def document(self) -> bytes:
        """The body."""
        return bytes(self.received.partition(b"\r\n\r\n")[2])


def _with_two_engines(size: int, config: str, seed: int) -> list[Transfer]:
    from .live.summary import show, totals_table
    from .native.pair import Pair
    from .native.recorder import Recorder
    from .native.simulation import Impairment

    line = Impairment(loss=0.005, reorder=0.005, duplicate=0.005, delay_us=1000, seed=seed)
    begin = time.monotonic()
    with build_progress() as progress:
        pair = Pair(config, impairment=line, seed=seed, pcap=FOLDER / "demo.pcap", progress=progress)
    transfers: list[Transfer] = []
    with pair, Recorder(pair.a, FOLDER, "tiptoe demo"):
        for server, client, address, name in (
            (pair.a, pair.b, "10.0.0.1", "10.0.0.1 serves"), (pair.b, pair.a, "10.0.0.2", "10.0.0.1 fetches")
        ):  # fmt: skip
            content = _data(size, seed + len(transfers))
            _HttpServer(server, content)
            passive = server.toe.passive
            while passive.starting:  # a SYN that overtook LISTEN would be refused
                pair.run_us(10)
            transfer = Transfer(name, "offloaded socket → engine → lossy line → engine → offloaded socket")
            console.print(f"[dim]{transfer.way}[/]")
            first_cycle, start = pair.a.harness.cycle, time.monotonic()
            fetch = _HttpClient(client, address)
            with bar() as display:
                task = display.add_task(name, total=size)

                def finished(fetch: _HttpClient = fetch, display: Any = display, task: Any = task) -> bool:
                    display.update(task, completed=min(len(fetch.received), size))
                    return fetch.done

                pair.run_until(finished, 600e6, name)
            transfer.seconds = time.monotonic() - start
            transfer.cycles = pair.a.harness.cycle - first_cycle
            _judge(transfer, fetch.document, content)
            transfers.append(transfer)
        pair.run_us(50_000)
        pair.check()
        seconds = time.monotonic() - begin
        totals = totals_table([pair.a, pair.b], seconds=seconds, channels=pair.wire.channels)
        pair.a.capture.close()
        picture = _picture(FOLDER / "demo.pcap", transfers)
        show(console, "downloads", _transfer_table(transfers))
        show(console, "summary", totals)
        _closing(picture, time.monotonic() - begin)
    return transfers


# --- findings ---


def _judge(transfer: Transfer, got: bytes, expected: bytes) -> None:
    transfer.bytes = len(got)
    transfer.sha256 = hashlib.sha256(got).hexdigest()
    transfer.right = transfer.sha256 == hashlib.sha256(expected).hexdigest()


def _transfer_table(transfers: list[Transfer]) -> Table:
    from .live.summary import amount

    table = Table(box=None, pad_edge=False)
    for heading in ("download", "bytes", "seconds", "cycles", "bytes/cycle", "sha256"):
        table.add_column(heading, justify="left" if heading in ("download", "sha256") else "right")
    for transfer in transfers:
        mark = "[green]equal[/]" if transfer.right else "[bold red]DIFFERS[/]"
        table.add_row(
            transfer.name, amount(transfer.bytes), f"{transfer.seconds:.1f}", f"{transfer.cycles:,}",
            f"{transfer.bytes / max(1, transfer.cycles):.2f}",
            f"{mark} [dim]{transfer.sha256[:12]}[/]",
        )  # fmt: skip
    return table


def _picture(capture: Path, transfers: list[Transfer]) -> Path | None:
    """The time-sequence graph of both downloads."""
    from .wire.graph import draw, traces

    longest = traces(capture)[: len(transfers)]
    if len(longest) < len(transfers):
        return None
    longest.sort(key=lambda trace: trace.segments[0][0])
    panels = [(transfer.name.capitalize(), trace) for transfer, trace in zip(transfers, longest, strict=True)]
    return draw(FOLDER / "time-sequence.png", panels)


def _closing(picture: Path | None, seconds: float) -> None:
    from .live.summary import show_file
    from .wire import tshark

    show_file(console, "capture", FOLDER / "demo.pcap")
    console.print(f"[dim]{'page':<22}[/] tiptoe report {FOLDER}", soft_wrap=True)
    if picture is not None:
        show_file(console, "graph", picture)
    if tshark.available():
        found = tshark.faults(FOLDER / "demo.pcap")
        verdict = "no bad checksum, no malformed frame" if not found else f"{len(found)} faulty frames: {found[0]}"
        console.print(f"[dim]{'tshark':<22}[/] {verdict}", soft_wrap=True)
    console.print(f"[dim]{'done in':<22}[/] {seconds:.1f} s")
