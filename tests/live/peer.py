"""The peer of programs under test: a server of the kernel's TCP that does what the first line asks for."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable

_RESET = struct.pack("ii", 1, 0)


class Peer:
    """Serves on ``listener`` in threads; ``make_socket`` makes a socket of the same network."""

    def __init__(self, listener: socket.socket, make_socket: Callable[[], socket.socket]) -> None:
        self._listener, self._make_socket = listener, make_socket
        self.port = listener.getsockname()[1]
        self._last = "nothing yet"
        self._go = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(connection, address), daemon=True).start()

    def _connection(self, connection: socket.socket, address: tuple[str, int]) -> None:
        connection.settimeout(120)
        with connection, contextlib.suppress(OSError):
            line = b""
            while not line.endswith(b"\n"):
                if not (byte := connection.recv(1)):
                    return
                line += byte
            command, *words = line.decode().split()
            getattr(self, f"_do_{command}")(connection, address, *words)

    def _do_echo(self, connection, address) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)

    def _do_sink(self, connection, address) -> None:
        """Take everything, answer with its digest (and the text, if short), remember how it ended."""
        got = bytearray()
        try:
            while data := connection.recv(65536):
                got += data
            self._last = f"end after {len(got)}"
        except ConnectionResetError:
            self._last = f"reset after {len(got)}"
            return
        text = got.decode() if len(got) < 100 else hashlib.sha256(got).hexdigest()
        with contextlib.suppress(OSError):
            connection.sendall(f"{len(got)} {text}".encode())

    def _do_greet(self, connection, address) -> None:
        connection.sendall(b"hello")
        self._do_sink(connection, address)

    def _do_last(self, connection, address) -> None:
        connection.sendall(self._last.encode())

    def _do_source(self, connection, address, count: str) -> None:
        connection.sendall((bytes(range(256)) * (int(count) // 256 + 1))[: int(count)])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    def _do_reset(self, connection, address, count: str) -> None:
        connection.sendall(bytes(int(count)))
        time.sleep(0.3)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _do_end_and_reset(self, connection, address) -> None:
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.3)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _do_wait(self, connection, address) -> None:
        """Take nothing until somebody says go."""
        self._go.clear()
        self._go.wait(60)
        count = 0
        while data := connection.recv(65536):
            count += len(data)
        connection.sendall(str(count).encode())

    def _do_go(self, connection, address) -> None:
        self._go.set()

    def _do_closedport(self, connection, address) -> None:
        with self._make_socket() as made:
            made.bind(("", 0))
            port = made.getsockname()[1]
        connection.sendall(str(port).encode())

    def _do_call(self, connection, address, port: str) -> None:
        """Connect to the caller, say hello, and tell what it said."""
        with self._make_socket() as made:
            made.settimeout(60)
            try:
                made.connect((address[0], int(port)))
                made.sendall(b"hello")
                answer = b""
                while data := made.recv(1000):
                    answer += data
            except OSError as error:
                answer = errno.errorcode.get(error.errno or 0, str(error)).encode()
        connection.sendall(answer)
