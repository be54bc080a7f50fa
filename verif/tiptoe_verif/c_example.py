"""The C example (examples/c) against the simulated engine: ``python -m tiptoe_verif.c_example``.

The C code is compiled with the system's compiler into a library and gets the simulation as its device: registers, memory, time.
The other end of the wire is a second engine, on which the Python driver serves HTTP.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from .native.pair import Pair
from .native.simulation import Simulation
from .paths import ROOT
from .sim.toolchain import ToolError, cached_dir, digest, require

SOURCES = ROOT / "examples" / "c"
HEADERS = ROOT / "driver" / "include"
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fPIC", "-shared"]
MEMORY_BYTES = 0x8000
_TIMEOUT_US = 2_000_000


class Result(IntEnum):
    """``enum connect_result`` of connect.h."""

    OK = 0
    NO_ENGINE = 1
    NOT_READY = 2
    REFUSED = 3
    RESET = 4
    TIMEOUT = 5
    TOO_LONG = 6
    COMMAND = 7
    MEMORY = 8
    DEVICE = 9


_WRITE32 = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
_READ32 = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
_WAIT = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint32)
_NOW_US = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
_NOTE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)


class _Device(ctypes.Structure):
    _fields_ = [
        ("context", ctypes.c_void_p), ("write32", _WRITE32), ("read32", _READ32), ("wait", _WAIT), ("now_us", _NOW_US),
        ("note", _NOTE), ("memory", ctypes.c_void_p), ("address", ctypes.c_uint64),
    ]  # fmt: skip


class _Settings(ctypes.Structure):
    _fields_ = [
        ("mac", ctypes.c_uint64), ("next_hop_mac", ctypes.c_uint64), ("ip", ctypes.c_uint32),
        ("server_ip", ctypes.c_uint32), ("port", ctypes.c_uint16), ("server_port", ctypes.c_uint16),
        ("tick_cycles", ctypes.c_uint32), ("secret", ctypes.c_uint32 * 6), ("timeout_us", ctypes.c_uint32),
    ]  # fmt: skip


@dataclass
class Fetch:
    """What came of :func:`fetch`; ``notes`` are what the C code said of its steps, with times in microseconds."""

    result: Result
    answer: bytes
    notes: list[tuple[int, str, int]] = field(default_factory=list)


def build() -> Path:
    """The example as a library; at once if it is there already. :exc:`ToolError` without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or require("gcc")
    if not (SOURCES / "connect.c").exists():
        raise ToolError(f"{SOURCES / 'connect.c'} not found: the C example is run from a checkout")
    texts = [path.read_text() for path in (SOURCES / "connect.c", SOURCES / "connect.h", HEADERS / "tiptoe.h")]
    with cached_dir("examples", "connect", digest(compiler, *FLAGS, *texts)) as (folder, complete):
        library = folder / "libconnect.so"
        if not complete:
            command = [compiler, *FLAGS, f"-I{SOURCES}", f"-I{HEADERS}", "-o", str(library), str(SOURCES / "connect.c")]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                (folder / "compiler.log").write_text(result.stderr)
                raise ToolError(f"the C compiler failed ({folder / 'compiler.log'})")
    return library


def fetch(
    sim: Simulation, *, server_ip: int, server_mac: int, server_port: int, request: bytes, room: int = 1 << 20,
    timeout_us: int = _TIMEOUT_US, seed: int = 1, note: Callable[[int, str, int], None] | None = None,
) -> Fetch:  # fmt: skip
    """Have the C code fetch ``request`` from a server, on a simulation without a driver (``attach=False``).

    What goes wrong in the simulation during the call is raised here.
    """
    library = ctypes.CDLL(str(build()))
    fetched = Fetch(Result.OK, b"")
    failures: list[BaseException] = []

    def guarded(function: Callable[..., Any], failed: int) -> Callable[..., Any]:
        """No exception passes through C: it is kept, and everything fails from then on."""

        def call(context: int, *arguments: Any) -> Any:
            if not failures:
                try:
                    return function(*arguments)
                except BaseException as error:
                    failures.append(error)
            return failed

        return call

    def tell(what: bytes, number: int) -> None:
        fetched.notes.append((sim.now_us(), what.decode(), number))
        if note:
            note(*fetched.notes[-1])

    memory = (ctypes.c_uint8 * MEMORY_BYTES).from_buffer(sim.memory)
    device = _Device(
        None, _WRITE32(guarded(sim.write32, 0)), _READ32(guarded(sim.read32, 0)), _WAIT(guarded(sim.wait, -1)),
        _NOW_US(guarded(sim.now_us, 0)), _NOTE(guarded(tell, 0)), ctypes.addressof(memory), 0,
    )  # fmt: skip
    rng = random.Random(seed)
    settings = _Settings(
        sim.mac, server_mac, sim.ip, server_ip, rng.randrange(49152, 65536), server_port,
        sim.tick_us * sim.cycles_per_us, tuple(rng.getrandbits(32) for _ in range(6)), timeout_us,
    )  # fmt: skip
    answer = ctypes.create_string_buffer(max(room, 1))
    length = ctypes.c_size_t()
    result = library.connect_fetch(
        ctypes.byref(device), ctypes.byref(settings), request, ctypes.c_size_t(len(request)), answer,
        ctypes.c_size_t(room), ctypes.byref(length),
    )  # fmt: skip
    if failures:
        raise failures[0]
    fetched.result = Result(result)
    fetched.answer = answer.raw[: length.value]
    return fetched


class Server:
    """An HTTP server of one page on a simulation's driver: answers a request with the page, and closes.

    ``requests`` are those it has read.
    """

    def __init__(self, sim: Simulation, page: bytes, port: int = 80) -> None:
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(page)}\r\n\r\n"
        self.answer = head.encode() + page
        self.requests: list[bytes] = []
        self._listener = sim.socket()
        self._listener.bind(("", port))
        self._listener.listen()
        self._serving: list[tuple[Any, bytearray, list[int]]] = []
        sim.tasks.append(self._turn)

    def _turn(self) -> None:
        if self._listener.readable():
            child, _ = self._listener.accept()
            child.setblocking(False)
            self._serving.append((child, bytearray(), [0]))
        for entry in list(self._serving):
            if self._serve(*entry):
                self._serving.remove(entry)

    def _serve(self, sock: Any, request: bytearray, sent: list[int]) -> bool:
        """One turn; whether the connection is done with."""
        try:
            while not request.endswith(b"\r\n\r\n"):
                data = sock.recv(65536)
                if not data:
                    sock.close()
                    return True
                request += data
            while sent[0] < len(self.answer):
                sent[0] += sock.send(self.answer[sent[0] :])
        except BlockingIOError:
            return False
        except OSError:
            sock.close()
            return True
        self.requests.append(bytes(request))
        sock.close()
        return True


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status, which is the C code's result."""
    parser = argparse.ArgumentParser(prog="python -m tiptoe_verif.c_example", description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="tiny", help="configuration of the engines")
    parser.add_argument("--port", type=int, default=80, help="to connect to; the server has 80")
    parser.add_argument("--size", type=int, default=50_000, help="of the page, bytes")
    options = parser.parse_args(arguments)
    try:
        build()
        with Pair(options.config, a={"attach": False}, memory_bytes=1 << 24) as pair:
            page = random.Random(1).randbytes(options.size)
            server = Server(pair.b, page)
            fetched = fetch(
                pair.a, server_ip=pair.b.ip, server_mac=pair.b.mac, server_port=options.port,
                request=b"GET / HTTP/1.0\r\n\r\n",
                note=lambda time_us, what, number: print(f"{time_us:>9} us  {what} {number}"),
            )  # fmt: skip
            pair.check()
    except (ToolError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    right = "as sent" if fetched.answer == server.answer else "not what was sent" if fetched.answer else "none"
    print(f"{fetched.result.name}: {len(fetched.answer)} bytes of the answer, {right}")
    return int(fetched.result)


if __name__ == "__main__":
    sys.exit(main())
