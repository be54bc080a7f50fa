"""The driver in C (driver/c), with its applications (examples/c), on a device of this package.

It is compiled with the system's compiler into a library and gets the device as its platform: registers, memory, time. Its
calls are methods here; what its handlers are told goes to Python.
"""

from __future__ import annotations

import ctypes
import random
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any, Protocol

from .paths import ROOT
from .sim.toolchain import ToolError, cached_dir, digest, require

DRIVER = ROOT / "driver" / "c"
FIRMWARE = ROOT / "examples" / "c"
HEADERS = ROOT / "driver" / "include"
MEMORY = 1 << 20
"""Where the driver's memory begins, as the engine sees it, unless told otherwise."""


class Error(IntEnum):
    """``enum toe_error`` of toe.h."""

    OK = 0
    NO_ENGINE = 1
    NOT_READY = 2
    ARGUMENT = 3
    NO_MEMORY = 4
    FULL = 5
    IN_USE = 6
    REFUSED = 7
    RESET = 8
    TIMED_OUT = 9
    UNREACHABLE = 10
    ABORTED = 11
    DMA = 12
    COMMAND = 13
    DOWN = 14
    NOT_FOUND = 15
    PENDING = 16


class What(IntFlag):
    """``enum toe_what`` of toe.h."""

    ESTABLISHED = 1
    RECEIVED = 2
    ACKNOWLEDGED = 4
    PEER_CLOSED = 8
    TIMER = 16
    ENDED = 32


class Platform(Protocol):
    """What the driver runs on: the driver's seam, and addresses."""

    mac: int
    ip: int
    memory: memoryview

    def write32(self, address: int, value: int) -> None:
        """Write a register."""

    def read32(self, address: int) -> int:
        """Read a register."""

    def now_us(self) -> int:
        """The clock."""


class Cache(Protocol):
    """Memory as a CPU sees it that the engine's writes do not reach, nor its own the engine."""

    memory: Any
    """A ctypes array of the driver's memory, as the CPU sees it."""

    def fence(self) -> None:
        """What was written is written back."""

    def invalidate(self, offset: int, length: int) -> None:
        """Thrown away."""


_WRITE32 = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
_READ32 = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
_NOW_US = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
_FENCE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_INVALIDATE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint)


class _Device(ctypes.Structure):
    _fields_ = [
        ("context", ctypes.c_void_p), ("write32", _WRITE32), ("read32", _READ32), ("now_us", _NOW_US), ("fence", _FENCE),
        ("invalidate", _INVALIDATE), ("memory", ctypes.c_void_p), ("address", ctypes.c_uint64), ("bytes", ctypes.c_size_t),
    ]  # fmt: skip


SETTINGS = (
    "ip", "netmask", "gateway", "tick_cycles", "passive", "command_log2", "event_log2", "frame_log2", "snd_log2",
    "rcv_log2", "time_wait_ms", "orphan_ms", "watchdog_ms", "interrupts", "syn_cookies", "applications",
)  # fmt: skip
"""Of ``struct firmware_settings``, between ``mac`` and ``secret``."""


class _Settings(ctypes.Structure):
    _fields_ = [
        ("mac", ctypes.c_uint64), *((name, ctypes.c_uint32) for name in SETTINGS), ("secret", ctypes.c_uint32 * 12),
    ]  # fmt: skip


_P, _SIZE, _U32, _U16 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint16
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "firmware_start": (ctypes.c_int, [_P, _P, _P]),
    "toe_poll": (ctypes.c_bool, [_P]), "toe_reset": (ctypes.c_int, [_P]), "toe_state": (ctypes.c_int, [_P]),
    "toe_counters": (_P, [_P]), "toe_in_use": (ctypes.c_uint, [_P]), "toe_stock": (ctypes.c_uint, [_P]),
    "toe_listen": (ctypes.c_int, [_P, _U16, _P, _P]), "toe_listening": (ctypes.c_int, [_P, _U16]),
    "toe_unlisten": (ctypes.c_int, [_P, _U16]),
    "toe_connect": (ctypes.c_int, [_P, _U16, _U32, _U16, _P, _P, _P]),
    "toe_send": (_SIZE, [_P, ctypes.c_char_p, _SIZE]), "toe_send_room": (_SIZE, [_P]),
    "toe_unacknowledged": (_SIZE, [_P]), "toe_receive": (_SIZE, [_P, _P, _SIZE]), "toe_available": (_SIZE, [_P]),
    "toe_shutdown": (None, [_P]), "toe_abort": (None, [_P]), "toe_close": (None, [_P]),
    "toe_set_timer": (None, [_P, _U32]), "toe_status": (ctypes.c_int, [_P]), "toe_peer_closed": (ctypes.c_bool, [_P]),
    "toe_index": (_U16, [_P]), "toe_peer_ip": (_U32, [_P]), "toe_peer_port": (_U16, [_P]), "toe_port": (_U16, [_P]),
    "toe_send_frame": (ctypes.c_bool, [_P, ctypes.c_char_p, _SIZE]),
    "firmware_source": (ctypes.c_int, [_P, _U32, _U16, ctypes.c_uint64, _U32]),
}  # fmt: skip


def make_variable(name: str) -> list[str]:
    """The words of a variable of driver/c/sources.mk."""
    text = (DRIVER / "sources.mk").read_text()
    found = re.search(rf"^{name} = (.*)$", text, re.M)
    if found is None:
        raise ValueError(f"no {name} in sources.mk")
    return found[1].split()


def sources() -> list[Path]:
    """The driver, its applications and the firmware."""
    return [DRIVER / name for name in make_variable("TOE_SOURCES") + make_variable("TOE_APPS")] + [
        FIRMWARE / "firmware.c"
    ]


def compile_command(compiler: str, connections: int) -> list[str]:
    """How the firmware is compiled, but for the outputs: for any target."""
    return [
        *shlex.split(compiler), *make_variable("TOE_CFLAGS"), f"-DFIRMWARE_CONNECTIONS={connections}", f"-I{DRIVER}",
        f"-I{HEADERS}", f"-I{FIRMWARE}", *map(str, sources()),
    ]  # fmt: skip


def build(connections: int = 16, sanitize: str = "") -> Path:
    """The firmware as a library; at once if it is there already. :exc:`ToolError` without a C compiler.

    ``sanitize``: of -fsanitize, "undefined" or "address,undefined" (whose run time has to be loaded before Python).
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or require("gcc")
    if not DRIVER.exists():
        raise ToolError(f"{DRIVER} not found: the driver in C is run from a checkout")
    command = [*compile_command(compiler, connections), "-O2", "-g", "-fPIC", "-shared"]
    if sanitize:
        command += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all"]
    headers = [*DRIVER.glob("*.h"), *DRIVER.glob("apps/*.h"), FIRMWARE / "firmware.h", HEADERS / "tiptoe.h"]
    texts = [path.read_text() for path in (*sources(), *sorted(headers))]
    with cached_dir("examples", "firmware", digest(*command, *texts)) as (folder, complete):
        library = folder / "libfirmware.so"
        if not complete:
            result = subprocess.run([*command, "-o", str(library)], capture_output=True, text=True)
            if result.returncode:
                (folder / "compiler.log").write_text(result.stderr)
                raise ToolError(f"the C compiler failed ({folder / 'compiler.log'})")
    return library


class CConnection:
    """A connection of the driver in C: reads what comes into ``inbox``, writes ``outbox`` as there is room.

    Attributes
    ----------
    what : What
        All that its handler was told.
    reading : bool
        False: what comes stays in the ring.
    then : callable or None
        Called with the connection and each call's ``What``, after reading and writing.
    """

    def __init__(self, driver: CDriver, pointer: int) -> None:
        self._driver, self.pointer = driver, pointer
        self.what = What(0)
        self.inbox, self.outbox = bytearray(), bytearray()
        self.reading, self.ends, self.open = True, False, True
        self.then: Callable[[CConnection, What], None] | None = None
        self.result = Error.PENDING

    def call(self, name: str, *arguments: Any) -> Any:
        """toe_``name`` of this connection."""
        return self._driver.call(name, self.pointer, *arguments)

    @property
    def peer(self) -> tuple[int, int]:
        """The peer's address and port."""
        return self.call("peer_ip"), self.call("peer_port")

    @property
    def port(self) -> int:
        """Our port."""
        return int(self.call("port"))

    def write(self, data: bytes, *, end: bool = False) -> None:
        """Send it, now and later; with ``end``, then FIN."""
        self.outbox += data
        self.ends |= end
        self.go_on()

    def read(self) -> None:
        """Take what is there."""
        buffer = ctypes.create_string_buffer(65536)
        while count := self.call("receive", buffer, 65536):
            self.inbox += buffer.raw[:count]

    def go_on(self) -> None:
        """Write as there is room."""
        if self.outbox:
            count = self.call("send", bytes(self.outbox[:65536]), min(len(self.outbox), 65536))
            del self.outbox[:count]
        if self.ends and not self.outbox:
            self.call("shutdown")

    def close(self) -> None:
        """Let go of it."""
        self.open = False
        self._driver.connections.pop(self.pointer, None)
        self.call("close")

    def handle(self, what: What) -> None:
        """What the handler in C is told."""
        self.what |= what
        if self.reading:
            self.read()
        self.go_on()
        if what & What.ENDED:
            self.result = Error(self.call("status"))
        if self.then is not None:
            self.then(self, what)


class CDriver:
    """The firmware on one device.

    Parameters
    ----------
    device : Platform
        A Simulation or LiveEngine without a driver, or a stand-in.
    connections : int
        FIRMWARE_CONNECTIONS.
    sanitize : str
        See :func:`build`.
    cache : callable, optional
        Makes the cache between the driver and ``memory`` of the device, of so many bytes from an address on.
    address, memory_bytes : int
        The driver's memory.
    clock : int
        Its clock goes so many times as fast as the device's.
    settings
        Of :data:`SETTINGS`.

    Attributes
    ----------
    started : Error
        What firmware_start() said.
    connections : dict of CConnection
        By pointer, from their beginning to :meth:`CConnection.close`.
    """

    def __init__(
        self, device: Platform, *, connections: int = 16, sanitize: str = "", seed: int = 1, address: int = MEMORY,
        memory_bytes: int = 1 << 20, clock: int = 1, cache: Callable[[memoryview], Cache] | None = None, **settings: int,
    ) -> None:  # fmt: skip
        self._library = ctypes.CDLL(str(build(connections, sanitize)))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self.connections: dict[int, CConnection] = {}
        self._listening: dict[int, Callable[[CConnection], None]] = {}
        self._failures: list[BaseException] = []
        self._counters = re.findall(r"\w+(?=[,;])", _counter_text())
        window = device.memory[address : address + memory_bytes]
        cached = cache(window) if cache else None
        memory = cached.memory if cached else (ctypes.c_uint8 * memory_bytes).from_buffer(window)
        base = ctypes.addressof(memory)
        invalidate = (lambda at, count: cached.invalidate(at - base, count)) if cached else None
        hooks = (
            _WRITE32(self._guarded(lambda address, value: device.write32(address, value), 0)),
            _READ32(self._guarded(lambda address: device.read32(address), 0xFFFF_FFFF)),
            _NOW_US(self._guarded(lambda: device.now_us() * clock, 1 << 62)),
            _FENCE(self._guarded(cached.fence, 0) if cached else 0),
            _INVALIDATE(self._guarded(invalidate, 0) if invalidate else 0),
        )  # fmt: skip
        # Looked up at each call: a test may put something of its own in the device's place.
        self._handler = _HANDLER(self._handled)
        rng = random.Random(seed)
        values = {
            "ip": device.ip, "netmask": 0xFFFFFF00, "passive": connections // 2, "command_log2": 6, "event_log2": 6,
            "frame_log2": 3, "snd_log2": 12, "rcv_log2": 13, "interrupts": 1,
        } | settings  # fmt: skip
        told = _Settings(mac=device.mac, secret=tuple(rng.getrandbits(32) for _ in range(12)), **values)
        platform = _Device(None, *hooks, base, address, memory_bytes)
        size = ctypes.c_size_t.in_dll(self._library, "firmware_bytes").value
        self._state = (ctypes.c_uint64 * (size // 8 + 1))()
        self._toe = ctypes.addressof(self._state)
        self._kept = (hooks, memory, cached)
        self.started = Error(
            self._library.firmware_start(self._toe, ctypes.addressof(platform), ctypes.addressof(told))
        )
        self._raise()

    def _guarded(self, function: Callable[..., Any], failed: int) -> Callable[..., Any]:
        """No exception passes through C: it is kept, and everything fails from then on."""

        def call(context: int, *arguments: Any) -> Any:
            if not self._failures:
                try:
                    return function(*arguments)
                except BaseException as error:
                    self._failures.append(error)
            return failed

        return call

    def _raise(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _handled(self, pointer: int, what: int) -> None:
        if self._failures:
            return
        try:
            connection = self.connections.get(pointer)
            if connection is None:
                connection = self.connections[pointer] = CConnection(self, pointer)
                self._listening[connection.port](connection)
            connection.handle(What(what))
        except BaseException as error:
            self._failures.append(error)

    def call(self, name: str, *arguments: Any) -> Any:
        """toe_``name``."""
        return getattr(self._library, f"toe_{name}")(*arguments)

    def poll(self) -> bool:
        """toe_poll; what a handler or the device has raised is raised here."""
        again = bool(self.call("poll", self._toe))
        self._raise()
        return again

    def reset(self) -> Error:
        """toe_reset."""
        result = Error(self.call("reset", self._toe))
        self._raise()
        return result

    @property
    def state(self) -> Error:
        """toe_state."""
        return Error(self.call("state", self._toe))

    @property
    def in_use(self) -> int:
        """toe_in_use."""
        return int(self.call("in_use", self._toe))

    @property
    def stock(self) -> int:
        """toe_stock."""
        return int(self.call("stock", self._toe))

    @property
    def counters(self) -> Mapping[str, int]:
        """toe_counters."""
        array = (ctypes.c_uint32 * len(self._counters)).from_address(self.call("counters", self._toe))
        return dict(zip(self._counters, array, strict=True))

    def listen(self, port: int, accepted: Callable[[CConnection], None] = lambda connection: None) -> Error:
        """toe_listen; ``accepted`` is called with each connection, before its first news."""
        self._listening[port] = accepted
        return Error(self.call("listen", self._toe, port, self._handler, None))

    def listening(self, port: int) -> Error:
        """toe_listening."""
        return Error(self.call("listening", self._toe, port))

    def unlisten(self, port: int) -> Error:
        """toe_unlisten."""
        return Error(self.call("unlisten", self._toe, port))

    def connect(self, ip: int, port: int, local: int = 0) -> CConnection:
        """toe_connect; OSError with the Error when it says no."""
        pointer = ctypes.c_void_p()
        error = Error(self.call("connect", self._toe, local, ip, port, self._handler, None, ctypes.byref(pointer)))
        if error or pointer.value is None:
            raise OSError(error, error.name)
        connection = self.connections[pointer.value] = CConnection(self, pointer.value)
        return connection

    def source(self, ip: int, port: int, *, count: int = 0, seconds: int = 0) -> Error:
        """firmware_source: so many bytes, or for so long."""
        return Error(self._library.firmware_source(self._toe, ip, port, count, seconds))

    def send_frame(self, frame: bytes) -> bool:
        """toe_send_frame."""
        return bool(self.call("send_frame", self._toe, frame, len(frame)))


def _counter_text() -> str:
    text = re.sub(r"/\*.*?\*/", "", (DRIVER / "toe.h").read_text(), flags=re.S)
    found = re.search(r"struct toe_counters \{(.*?)\n\};", text, re.S)
    assert found is not None
    return found[1]


def pattern(length: int, start: int = 0) -> bytes:
    """What pattern_fill of driver/c/apps writes, and /bytes/N serves."""
    first = start // 4
    words = b"".join(
        (2654435761 * n & 0xFFFF_FFFF).to_bytes(4, "little") for n in range(first, (start + length) // 4 + 1)
    )
    return words[start % 4 :][:length]
