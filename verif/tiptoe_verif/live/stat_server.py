"""What `tiptoe stat` asks: snapshots of a running session, and the Unix socket that serves them.

A client that connects gets one snapshot as a line of JSON, and the end. Nothing is expected of it: one that reads slowly,
or not at all, or goes away costs the session a few buffers for some seconds. The sockets' folder is the user's own, each
socket is named after its process.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
from pathlib import Path
from typing import Any, Protocol

from tiptoe_driver import Stack
from tiptoe_driver.netinet.clock import Callout
from tiptoe_driver.toe.snapshots import Snapshot, SnapshotTaker
from tiptoe_driver.toe.snapshots import snapshot as driver_snapshot

from ..native.device import EngineDevice
from ..wire.segment import ip_text
from .device_engine import DeviceEngine
from .host_stack import HostStack
from .switchboard import Switchboard

SUFFIX = ".sock"
MOST_CLIENTS = 8
"""Clients served at a time; others are turned away."""
LIMIT_US = 500_000
"""When a snapshot is given out, complete or not: a person who asks is answered within a second."""
PATIENCE_US = 5_000_000
"""How long a client may take, from connecting to its last byte."""


def stat_folder() -> Path:
    """Where the sockets of this user's sessions are: in $XDG_RUNTIME_DIR, or /tmp/tiptoe-UID."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) / "tiptoe" if runtime and os.path.isdir(runtime) else Path(f"/tmp/tiptoe-{os.geteuid()}")


def session_sockets(folder: Path) -> list[Path]:
    """Sockets of sessions that live, by name. What dead ones have left behind is removed."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            error = probe.connect_ex(str(path))
        if error in (0, errno.EAGAIN, errno.EINPROGRESS):  # EAGAIN: its queue is full
            found.append(path)
        elif error == errno.ECONNREFUSED:
            path.unlink(missing_ok=True)
    return found


def _own_folder() -> Path:
    """The folder, made if need be; OSError when it is another's, or open to others."""
    folder = stat_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise OSError(errno.EPERM, f"{folder} is not a folder of this user alone: remove it")
    return folder


def engine_part(engine: EngineDevice, host: HostStack | None = None) -> dict[str, Any]:
    """What the simulation knows of an engine: cycles and frames, and the host's kernel beside it."""
    counters = engine.counters()
    part: dict[str, Any] = {"address": ip_text(engine.ip), "host": None, "line": None}
    part |= {name: counters[name] for name in ("cycles", "rx_frames", "rx_bytes", "tx_frames", "tx_bytes")}
    if host is not None:
        part["host"] = {
            "received": host.received, "sent": host.sent, "refused": host.refused, "open": host.tcp.open,
            "opened": host.tcp.opened, "accepted": host.tcp.accepted,
        }  # fmt: skip
    channels = getattr(engine, "channels", None)
    if channels:
        part["line"] = [
            {name: getattr(channel, name) for name in ("passed", "lost", "duplicated", "reordered", "corrupted")}
            for channel in channels
        ]
    return part


class Session(Protocol):
    """What is asked for of a live session: its engine, and the kernel on the host's side."""

    @property
    def engine(self) -> EngineDevice:
        """The engine."""

    @property
    def host(self) -> HostStack | None:
        """The kernel, if there is one."""


def snapshot(target: Session | EngineDevice | Stack) -> Snapshot:
    """A snapshot of a live session, a simulated engine (a Simulation, say) or a stack: the driver's, with entry ``engine``
    where there is one. Lets time pass, some microseconds; not for upcalls or tasks."""
    if isinstance(target, Stack):
        return driver_snapshot(target)
    if isinstance(target, EngineDevice):
        return driver_snapshot(target.stack) | {"engine": engine_part(target)}
    return driver_snapshot(target.engine.stack) | {"engine": engine_part(target.engine, target.host)}


class StatServer:
    """Serves snapshots of an engine on wall time.

    Parameters
    ----------
    command : str
        What the session is, for people.

    Attributes
    ----------
    path : Path
        The socket.
    served, turned_away, given_up : int
        Clients that got everything; that came when there were too many; that went away or took too long.
    """

    def __init__(
        self, engine: EngineDevice | DeviceEngine, board: Switchboard, command: str, host: HostStack | None = None
    ) -> None:  # fmt: skip
        self._engine, self._board, self._host = engine, board, host
        self._process = {"pid": os.getpid(), "command": command}
        self._clients: set[_Client] = set()
        self._taker: SnapshotTaker | None = None
        self._taking = False
        self.served = self.turned_away = self.given_up = 0
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path = self._listen(_own_folder())
        except BaseException:
            self._server.close()
            raise
        self._board.watch_host(self._server, self._arrivals, select.EPOLLIN)

    def _listen(self, folder: Path) -> Path:
        session_sockets(folder)  # removes what is left of dead ones
        number = 1
        while (path := folder / f"{os.getpid()}{f'-{number}' if number > 1 else ''}{SUFFIX}").exists():
            number += 1
        # It gets its name when it listens: before, it would be taken for one left behind.
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        self._server.bind(str(new))
        new.chmod(0o600)
        self._server.listen(MOST_CLIENTS)
        self._server.setblocking(False)
        new.rename(path)
        return path

    def _arrivals(self) -> None:
        while True:
            try:
                channel, _ = self._server.accept()
            except OSError:
                return
            if len(self._clients) >= MOST_CLIENTS:
                self.turned_away += 1
                channel.close()
            elif _has_gone(channel):
                channel.close()  # somebody who looked whether the session lives
            else:
                self._clients.add(_Client(self, channel, self._board, self._engine.stack))
                if not self._taking:
                    self._taking = True
                    self._taker = SnapshotTaker(self._engine.stack, self._taken, LIMIT_US)

    def _taken(self, taken: Snapshot) -> None:
        self._taking = False
        full = {"process": self._process} | taken
        if isinstance(self._engine, EngineDevice):
            full |= {"engine": engine_part(self._engine, self._host)}
        else:
            full |= {"cable": {"name": self._engine.device.name, **self._engine.device.counters()}}
        message = json.dumps(full, separators=(",", ":")).encode() + b"\n"
        for client in list(self._clients):
            if not client.answered:
                client.answer(message)

    def ended(self, client: _Client, complete: bool) -> None:
        """A client has everything, or is given up."""
        self._clients.discard(client)
        self.served += complete
        self.given_up += not complete

    def close(self) -> None:
        """Stop serving and remove the socket. Twice does no harm."""
        if self._server.fileno() < 0:
            return
        self.path.unlink(missing_ok=True)
        self._board.forget_host(self._server)
        self._server.close()
        if self._taker is not None:
            self._taker.cancel()
        for client in list(self._clients):
            client.end(complete=False)


def _has_gone(channel: socket.socket) -> bool:
    try:
        return not channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


class _Client:
    """Somebody who has connected."""

    def __init__(self, server: StatServer, channel: socket.socket, board: Switchboard, stack: Stack) -> None:
        self._server, self._channel, self._board = server, channel, board
        channel.setblocking(False)
        self._left = memoryview(b"")
        self.answered = False
        self._limit: Callout = stack.callout(PATIENCE_US, self._too_slow)
        board.watch_host(channel, self._turn, select.EPOLLRDHUP)

    def answer(self, message: bytes) -> None:
        """Send it, now or as the client reads."""
        self.answered = True
        self._left = memoryview(message)
        self._board.watch_host(self._channel, self._turn, select.EPOLLOUT)
        self._turn()

    def _turn(self) -> None:
        if self._channel.fileno() < 0:
            return  # ended in this very round
        if not self.answered:
            self.end(complete=False)  # it has gone before it was answered
            return
        try:
            while self._left:
                self._left = self._left[self._channel.send(self._left) :]
        except BlockingIOError:
            return
        except OSError:
            self.end(complete=False)
            return
        self.end(complete=True)

    def _too_slow(self) -> None:
        self.end(complete=False)

    def end(self, *, complete: bool) -> None:
        """Close."""
        self._limit.cancel()
        self._board.forget_host(self._channel)
        with contextlib.suppress(OSError):
            self._channel.close()
        self._server.ended(self, complete)
