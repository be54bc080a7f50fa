"""The socket: one client at a time, whose mistakes end at worst its own connection.

Why every wait ends: half a message is waited for, and an answer that is not read kept, ``patience_s``; a WAIT is a second
at most; between messages a client may think as long as it likes. Who is told a last word has as long to read it: were the
socket closed at once, a client that is sending yet would find that it cannot, and not look (RFC 9112 section 9.6 has the same
of HTTP). A client that goes leaves the engine as it is: the next begins with a soft reset, as any driver does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import stat
import time
from pathlib import Path
from typing import Protocol

from ..native.harness import RuleBroken
from ..wire.monitor import WireError
from .protocol import Broken, Kind, Message, Parser, Refused
from .requests import Requests, Served

_PIECE = 65536
_MOST_PARTING = 16


class Engine(Served, Protocol):
    """A served engine, whose time may go on by itself."""

    def idle(self, ready: selectors.EpollSelector, timeout_s: float | None) -> None:
        """Return when the selector has something, or after that time."""

    def forget(self) -> None:
        """The client has gone: what waits for it may go too."""


def listen_unix(path: Path) -> socket.socket:
    """A socket at ``path``, for the user alone; one that nobody serves any more is replaced. FileExistsError for what is
    something else."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(f"{path} exists, and is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # one that is busy would have us wait
            if probe.connect_ex(str(path)) not in (
                errno.ECONNREFUSED,
                errno.ENOENT,
            ):  # of another kind, or not ours to use
                raise FileExistsError(f"{path} is served by another process")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen()
    return listener


def listen_tcp(port: int) -> socket.socket:
    """A socket at a port of this machine's loopback interface; 0: a free one."""
    return socket.create_server(("127.0.0.1", port))


class Server:
    """Serves ``engine`` at ``listener``, which it closes.

    Parameters
    ----------
    patience_s : float
        How long half a message may stay one, and an answer unread.
    """

    def __init__(self, engine: Engine, listener: socket.socket, *, patience_s: float = 10.0) -> None:
        self._engine, self._listener, self._patience_s = engine, listener, patience_s
        listener.setblocking(False)
        self._ready = selectors.EpollSelector()
        self._ready.register(listener, selectors.EVENT_READ)
        self._client: socket.socket | None = None
        self._due = 0.0
        self._more = False  # messages have been heard that are not answered yet: between them others are looked at
        self._parting: dict[socket.socket, float] = {}
        self.served = 0
        """Clients that have come and gone."""

    def close(self) -> None:
        """Close all sockets."""
        self._drop()
        while self._parting:
            self._see_off(next(iter(self._parting)))
        self._ready.close()
        self._listener.close()

    def run(self, *, clients: int = 0) -> None:
        """Serve; until so many clients have gone (0: for ever). RuleBroken and WireError when the engine, or what its driver has
        told it, has broken a rule: the client knows."""
        while not clients or self.served < clients:
            now = time.monotonic()
            amid = self._client is not None and self._parser.amid and not self._more
            if amid and now >= self._due:
                self._dismiss("the rest of a message did not come")
                continue
            for parting in [parting for parting, due in self._parting.items() if now >= due]:
                self._see_off(parting)
            dues = [*self._parting.values(), *([self._due] if amid else [])]
            if not self._more:
                try:
                    self._engine.idle(self._ready, min(dues) - now if dues else None)
                except (RuleBroken, WireError) as error:
                    if self._client is not None:
                        self._tell(str(error))
                    raise
            for key, _ in self._ready.select(0):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._client and not self._more:
                    self._hear()
                elif key.fileobj in self._parting:
                    self._skip(key.fileobj)
            if self._more:
                self._answer()

    def _accept(self) -> None:
        try:
            made, _ = self._listener.accept()
        except OSError:  # gone already
            return
        made.settimeout(self._patience_s)
        while self._client is not None and self._leaving():
            if self._more:
                self._answer()
            else:
                self._hear()
        if self._client is not None:
            with contextlib.suppress(OSError):
                made.sendall(Message(Kind.ERROR, payload=b"another client is served").pack())
            self._part(made)
            return
        if made.family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client, self._parser, self._requests = made, Parser(), Requests(self._engine)
        self._ready.register(made, selectors.EVENT_READ)

    def _leaving(self) -> bool:
        """The client has ended its side: what it has sent before may be yet to be read."""
        poll = select.poll()
        poll.register(self._client, select.POLLRDHUP)  # type: ignore[arg-type]
        return bool(poll.poll(0))

    def _drop(self) -> None:
        if self._client is not None:
            self._ready.unregister(self._client)
            self._client.close()
            self._gone()

    def _gone(self) -> None:
        self._client, self._more = None, False
        self._engine.forget()
        self.served += 1

    def _dismiss(self, text: str) -> None:
        """Tell the client why, and serve it no more."""
        assert self._client is not None
        if not self._tell(text):
            self._drop()
            return
        self._ready.unregister(self._client)
        self._part(self._client)
        self._gone()

    def _part(self, told: socket.socket) -> None:
        """What it sends is thrown away until it goes."""
        if len(self._parting) == _MOST_PARTING:
            self._see_off(next(iter(self._parting)))
        told.setblocking(False)
        with contextlib.suppress(OSError):  # gone already: that is to be read
            told.shutdown(socket.SHUT_WR)
        self._ready.register(told, selectors.EVENT_READ)
        self._parting[told] = time.monotonic() + self._patience_s

    def _skip(self, parting: socket.socket) -> None:
        try:
            gone = not parting.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._see_off(parting)

    def _see_off(self, parting: socket.socket) -> None:
        del self._parting[parting]
        self._ready.unregister(parting)
        parting.close()

    def _hear(self) -> None:
        """Bytes of the client, or its end."""
        assert self._client is not None
        try:
            data = self._client.recv(_PIECE)
        except OSError:
            data = b""
        if not data:
            self._drop()
            return
        self._parser.give(data)
        self._more = True

    def _answer(self) -> None:
        """The next message, if it is complete."""
        try:
            request = self._parser.take()
            if request is None:
                self._more = False
                self._due = time.monotonic() + self._patience_s
            elif not self._do(request):
                self._drop()
        except (Broken, Refused) as error:
            self._dismiss(str(error))

    def _do(self, request: Message) -> bool:
        """Answer; whether the client is still there. Refused when it has not begun with HELLO."""
        try:
            return self._send(self._requests.answer(request))
        except Refused as error:
            if not self._requests.greeted:
                raise
            return self._tell(str(error))
        except (RuleBroken, WireError) as error:
            self._tell(str(error))
            raise

    def _tell(self, text: str) -> bool:
        return self._send(Message(Kind.ERROR, payload=text.encode()))

    def _send(self, message: Message) -> bool:
        assert self._client is not None
        left = memoryview(message.pack())
        try:
            while left:  # not sendall, whose time-out is for all of it
                left = left[self._client.send(left) :]
        except OSError:  # gone, or it does not read
            return False
        return True
