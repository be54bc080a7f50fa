"""A live session as a process of its own, in a network namespace of its own, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..live.namespace import NetNamespace
from ..live.stat_server import stat_folder
from ..native.device import driver_faults

ENGINE, KERNEL = "10.77.0.2", "10.77.0.1"
HERE = Path(__file__).parent
ECHO_SERVER, ECHO_CLIENT = HERE / "echo_server.py", HERE / "echo_client.py"
_TIPTOE = str(Path(sys.executable).with_name("tiptoe"))
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class SessionError(Exception):
    """The session does what it must not."""


class UnderTest:
    """``tiptoe live`` or ``tiptoe run`` in a namespace. ``arguments`` begin with which; up when constructed.

    Attributes
    ----------
    pcap : Path
        The capture.
    """

    def __init__(self, namespace: NetNamespace, folder: Path, arguments: Sequence[str], *, config: str = "sim") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.namespace, self.folder, self.pcap = namespace, folder, folder / "live.pcap"
        self.programs: list[subprocess.Popen[bytes]] = []
        command, *rest = arguments
        self._said = folder / "said.txt"
        with self._said.open("w") as said:
            self.process = namespace.popen(
                [_TIPTOE, command, "--config", config, "--pcap", str(self.pcap), *rest],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE if command == "run" else said, stderr=said,
                # A shell's background job ignores SIGINT, and so would the session and its program, whose end that is.
                env=environment(), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
        self._wait(lambda: self._socket.exists(), "the session", 120)

    @property
    def _socket(self) -> Path:
        return stat_folder() / f"{self.process.pid}.sock"

    # --- programs beside it ---

    def beside(self, *command: object) -> subprocess.Popen[bytes]:
        """A program on the kernel's side, to be ended with the session."""
        program = self.namespace.popen(
            [*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(),
        )  # fmt: skip
        self.programs.append(program)
        return program

    def until_served(self, host: str, port: int, timeout_s: float = 60) -> None:
        """Return when something accepts connections there."""

        def served() -> bool:
            with self.namespace.socket() as made, contextlib.suppress(OSError):
                made.settimeout(2)
                made.connect((host, port))
                return True
            return False

        self._wait(served, f"a server at {host}:{port}", timeout_s)

    def echo(self, host: str, port: int, count: int, at_once: int, size: int, seed: int, *more: str) -> list[str]:
        """Command of the echo client."""
        words = [sys.executable, "-I", ECHO_CLIENT, host, port, count, at_once, size, seed, *more]
        return [str(word) for word in words]

    # --- what can be seen of it ---

    def stat(self) -> dict[str, Any]:
        """What `tiptoe stat --json` shows."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(30)
            asked.connect(str(self._socket))
            return json.loads(b"".join(iter(lambda: asked.recv(1 << 16), b"")))

    def memory(self) -> int:
        """Bytes of the process's resident set."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) << 10

    def check(self) -> dict[str, Any]:
        """SessionError when it has ended, or counts what must not be; else a snapshot."""
        if self.process.poll() is not None:
            raise SessionError(f"the session has ended: {self.said()}")
        try:
            taken = self.stat()
        except OSError as error:
            raise SessionError(f"the session does not answer ({error}): {self.said()}") from None
        if bad := driver_faults(taken["devices"][0]["driver_counters"]):
            raise SessionError(f"the driver counts {bad}")
        return taken

    def until_quiet(self, timeout_s: float = 90, *, kept: int = 0) -> dict[str, Any]:
        """Wait until all ids but ``kept`` are back; SessionError when they don't come."""
        end = time.monotonic() + timeout_s
        while True:
            taken = self.check()
            ids = taken["devices"][0]["ids"]
            if ids["in_use"] <= kept and not taken["devices"][0]["half_open"]["in_use"]:
                return taken
            if time.monotonic() > end:
                raise SessionError(f"ids are not back: {ids}, {taken['connections'][:3]}")
            time.sleep(0.2)

    def said(self) -> str:
        """The last it has said."""
        return self._said.read_text()[-2000:]

    def close(self) -> None:
        """End the session and what is beside it; SessionError when it does not end in order."""
        for program in self.programs:
            program.send_signal(signal.SIGCONT)
            program.terminate()
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
            for pipe in (program.stdout, program.stderr):
                if pipe is not None:
                    pipe.close()  # children of it may have the other end
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        if self.process.stdin is not None and self.process.stdin.closed:
            self.process.stdin = None  # communicate would flush it
        try:
            self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise SessionError(f"the session does not end: {self.said()}") from None

    def __enter__(self) -> UnderTest:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        try:
            self.close()
        except SessionError as later:
            raise (SessionError(f"{error}; then: {later}") if error else later) from None

    def _wait(self, condition: Any, what: str, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise SessionError(f"the session has ended before {what}: {self.said()}")
            if time.monotonic() > end:
                raise SessionError(f"{what}: not within {timeout_s:g} s: {self.said()}")
            time.sleep(0.1)


def environment() -> dict[str, str]:
    """Ours, without proxies and colours."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
    return kept | {"COLUMNS": "120", "TERM": "dumb"}


def report_of(output: bytes) -> dict[str, Any]:
    """What an echo client has printed."""
    lines = [line for line in output.splitlines() if line.startswith(b'{"requests"')]
    if not lines:
        raise SessionError(f"a client has reported nothing: {output[-500:]!r}")
    return json.loads(lines[-1])


def judge(report: dict[str, Any], factor: float = 10, least_ms: float = 1000) -> None:
    """SessionError for a failed request, or one slower than ``factor`` times the median and ``least_ms``."""
    if report["failed"]:
        raise SessionError(f"requests failed: {report}")
    if report["max_ms"] > max(factor * report["median_ms"], least_ms):
        raise SessionError(f"slow request: {report}")
