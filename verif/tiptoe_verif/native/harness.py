"""The C++ harness around the Verilated engine, as a Python object: one method a C function, nothing more.

:class:`Harness` works in clock cycles; :class:`~tiptoe_verif.native.simulation.Simulation` puts time, driver and
wires on top of it. Calls release the interpreter lock; use a harness from one thread at a time (``stop`` excepted).
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Any

from tiptoe_hdl.config import EngineConfig

from ..sim.toolchain import Progress, compiler, require
from ..sim.verilate import build_library, engine_verilog, to_verilog
from .wrapper import WRAPPED, wrapped

SOURCES = [
    Path(__file__).with_name(name)
    for name in ("harness.cpp", "harness.h", "common.h", "memory_port.h", "register_port.h", "frame_ports.h")
]

COUNTERS = (
    "cycles", "rx_frames", "rx_bytes", "rx_beats", "rx_stalls", "tx_frames", "tx_bytes", "tx_beats", "tx_stalls",
    "tx_gaps", "read_bursts", "read_beats", "write_bursts", "write_beats", "register_writes", "register_reads",
    "register_errors", "ticks", "irq_rises", "memory_errors", "memory_strays", "skipped", "flow_busy", "reads_open",
    "writes_open", "rx_level",
)  # fmt: skip
"""Counters of a harness, explained at ``enum Count`` in native/common.h."""


class Stop(IntFlag):
    """Why a run returned; IRQ to RX_DONE, and IDLE, can be asked for."""

    IRQ = 1
    FRAME = 2
    SETTLED = 4
    RX_DONE = 8
    WAKE = 16
    TAP = 32
    IDLE = 64
    CYCLES = 256
    TIME = 512
    REQUESTED = 1024
    ERROR = 2048


class RuleBroken(AssertionError):
    """The engine broke a rule of a bus or of the wire; the message says which, and when."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that passed one of the engine's frame ports.

    ``first`` and ``last`` are the cycles in which its first and last word passed; ``time_ns`` the wall clock then
    (logged frames only).
    """

    data: bytes
    first: int
    last: int
    to_engine: bool = False
    time_ns: int = 0


class LiveOptions(ctypes.Structure):
    """What :meth:`Harness.run_live` does; explained at ``struct LiveOptions`` in native/harness.h."""

    _fields_ = [
        ("tap", ctypes.c_int32), ("wake", ctypes.c_int32), ("exchange", ctypes.c_uint32), ("chunk", ctypes.c_uint32),
        ("rest_after", ctypes.c_uint32), ("tick_spacing", ctypes.c_uint32), ("sweep", ctypes.c_uint32),
        ("tick_ns", ctypes.c_uint64),
        ("duration_ns", ctypes.c_uint64),
    ]  # fmt: skip


class _FrameInfo(ctypes.Structure):
    _fields_ = [
        ("first", ctypes.c_uint64), ("last", ctypes.c_uint64), ("time_ns", ctypes.c_uint64),
        ("length", ctypes.c_uint32), ("flags", ctypes.c_uint32),
    ]  # fmt: skip


_FRAME_TO_ENGINE, _FRAME_ERROR = 1, 2
_TAKE_BYTES, _TAKE_FRAMES = 1 << 20, 1024

_SIGNATURES: dict[str, tuple[Any, str]] = {
    # name: (result, arguments after the handle); p pointer, s string, u uint32, U uint64, I int64, d double
    "data_bytes": (ctypes.c_uint32, ""), "irq": (ctypes.c_uint32, ""), "error": (ctypes.c_char_p, ""),
    "counts": (None, "p"), "cycle": (ctypes.c_uint64, ""), "rested_ns": (ctypes.c_uint64, ""),
    "ticks_lost": (ctypes.c_uint64, ""),
    "tap_dropped": (ctypes.c_uint64, ""), "memory_options": (None, "uuuu"), "add_error": (None, "UUuuuI"),
    "clear_errors": (None, ""), "count_writes": (ctypes.c_uint32, "UU"), "written": (ctypes.c_uint64, "u"),
    "stalls": (None, "uuu"), "line": (None, "ddu"), "tick_every": (None, "U"), "idle": (None, "UUu"),
    "tick": (None, "U"), "log_frames": (None, "uu"), "write32": (None, "uu"), "read32": (ctypes.c_uint32, "uUp"),
    "registers_pending": (ctypes.c_uint32, ""), "inject": (None, "suuU"), "rx_pending": (ctypes.c_uint32, ""),
    "next_due": (ctypes.c_uint64, ""), "take": (ctypes.c_uint32, "upUpu"), "run": (ctypes.c_uint32, "Uu"),
    "run_live": (ctypes.c_uint32, "p"), "stop": (None, ""), "trace": (ctypes.c_uint32, "s"), "destroy": (None, ""),
}  # fmt: skip
_TYPES = {
    "p": ctypes.c_void_p, "s": ctypes.c_char_p, "u": ctypes.c_uint32, "U": ctypes.c_uint64, "I": ctypes.c_int64,
    "d": ctypes.c_double,
}  # fmt: skip


def build(component: Any, name: str, *, trace: bool = False, progress: Progress | None = None) -> Path:
    """Compile a component that has the engine's ports, with the harness; returns the library (kept by hash)."""
    return _build(name, to_verilog(component, name), trace, progress)


_BUILT: dict[tuple[str, bool], Path] = {}


def build_engine(config: EngineConfig, *, trace: bool = False, progress: Progress | None = None) -> Path:
    """Compile the engine of ``config`` with the harness; returns the library, at once if it is built already.

    A process keeps what it has built or found by the configuration: the sources that it has imported do not change, and to look
    whether a library is that of its sources takes longer than a short test.
    """
    key = repr(config), trace
    if key not in _BUILT or not _BUILT[key].exists():
        for tool in (compiler(), "make", "perl"):
            require(tool)  # before the work that would be in vain
        if progress:
            progress("generate", 0.0)
        top, verilog = engine_verilog(config)
        _BUILT[key] = _build(top, verilog, trace, progress)
    return _BUILT[key]


def _build(top: str, verilog: str, trace: bool, progress: Progress | None) -> Path:
    # Waveforms show every clock as it is.
    text = wrapped(top, verilog, rest=not trace)
    return build_library(f"{top}{WRAPPED}", text, SOURCES, trace=trace, progress=progress)


def probability(value: float) -> int:
    """A probability as the harness takes it: times 2**32, at most 0.99."""
    if not 0 <= value < 1:
        raise ValueError(f"a probability is 0 to below 1, not {value}")
    return int(min(value, 0.99) * 2**32)


class Harness:
    """One instance of a compiled engine with its host memory, register port and frame ports.

    Parameters
    ----------
    library : Path
        From :func:`build` or :func:`build_engine`.
    memory_bytes : int
        Size of host memory; device address 0 is its first byte. Pages are taken from the system as they are touched.
    seed : int
        Of all random stalls and latencies.
    """

    def __init__(self, library: Path, *, memory_bytes: int = 1 << 26, seed: int = 1) -> None:
        self._library = ctypes.CDLL(str(library))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._library, f"tiptoe_{name}")
            function.restype = result
            function.argtypes = [ctypes.c_void_p, *(_TYPES[letter] for letter in arguments)]
        self._library.tiptoe_trace_suffix.restype = ctypes.c_char_p
        self._library.tiptoe_create.restype = ctypes.c_void_p
        self._library.tiptoe_create.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
        self._map = mmap.mmap(-1, memory_bytes)
        self.memory = memoryview(self._map)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._handle = self._library.tiptoe_create(address, memory_bytes, seed)
        self._bytes = ctypes.create_string_buffer(_TAKE_BYTES)
        self._infos = (_FrameInfo * _TAKE_FRAMES)()
        self._run = self._library.tiptoe_run
        self.data_bytes: int = self._call("data_bytes")

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._handle is None:
            raise RuntimeError("the simulation is closed")
        return getattr(self._library, f"tiptoe_{name}")(self._handle, *arguments)

    def close(self) -> None:
        """Free the engine; the memory stays readable. Twice does no harm."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._library.tiptoe_destroy(handle)

    # --- time ---

    @property
    def cycle(self) -> int:
        """Clock cycles since reset, skipped ones too."""
        return int(self._call("cycle"))

    @property
    def irq(self) -> bool:
        """The interrupt line is high, and no register write is on the way that could lower it."""
        return bool(self._call("irq"))

    def run(self, cycles: int, stops: int = 0) -> Stop:
        """Run at most ``cycles`` clock cycles, until one of ``stops``; returns why it stopped."""
        if cycles <= 0:
            return Stop.CYCLES
        if self._handle is None:
            raise RuntimeError("the simulation is closed")
        return self._checked(self._run(self._handle, cycles, stops))

    def run_live(self, options: LiveOptions) -> Stop:
        """Run on wall time, exchanging frames with a TAP descriptor, until something needs the host."""
        return self._checked(self._call("run_live", ctypes.byref(options)))

    def stop(self) -> None:
        """Make a live run return soon; may be called from a signal handler or another thread."""
        self._call("stop")

    def _checked(self, stop: int) -> Stop:
        if stop & Stop.ERROR:
            raise RuleBroken(self._call("error").decode())
        return Stop(stop)

    def tick_every(self, cycles: int) -> None:
        """Pulse the tick input every ``cycles`` cycles from now on; 0: no more."""
        self._call("tick_every", cycles)

    def idle(self, after: int, sweep: int, *, skip: bool) -> None:
        """What counts as idle (``Stop.IDLE``): no bus has moved for ``after`` cycles, ``sweep`` have passed since a tick.

        ``skip``: idle time is skipped, the cycle counter goes on to the next tick of :meth:`tick_every`, the next frame or the
        end of the run. The engine's prescaler does not see that: its clock is to be the tick input.
        """
        self._call("idle", after, sweep, int(skip))

    def tick(self, count: int = 1) -> None:
        """Pulse the tick input as soon as the clock runs."""
        self._call("tick", count)

    # --- registers ---

    def write32(self, address: int, value: int) -> None:
        """Post a register write; it happens as the clock runs."""
        self._call("write32", address, value & 0xFFFFFFFF)

    def read32(self, address: int, max_cycles: int = 100_000) -> int:
        """Read a register, after all posted writes; runs the clock meanwhile."""
        value = ctypes.c_uint32()
        status = self._call("read32", address, max_cycles, ctypes.byref(value))
        self.check()
        if status == 1:
            raise RuleBroken(f"cycle {self.cycle}: error response to the register read at 0x{address:x}")
        if status:
            raise RuleBroken(f"cycle {self.cycle}: no answer to the register read at 0x{address:x}")
        return value.value

    @property
    def registers_pending(self) -> int:
        """Posted writes not yet answered."""
        return int(self._call("registers_pending"))

    def check(self) -> None:
        """Raise :exc:`RuleBroken` if the engine has broken a bus rule."""
        text = self._call("error")
        if text:
            raise RuleBroken(text.decode())

    # --- frames ---

    def inject(self, frame: bytes, *, not_before: int = 0, error: bool = False) -> None:
        """Queue a frame towards the engine; its first word enters in cycle ``not_before`` or later."""
        if not 1 <= len(frame) <= 65535:
            raise ValueError(f"a frame has 1 to 65535 bytes, not {len(frame)}")
        self._call("inject", bytes(frame), len(frame), _FRAME_ERROR if error else 0, not_before)

    @property
    def rx_pending(self) -> int:
        """Frames that have not entered the engine completely."""
        return int(self._call("rx_pending"))

    @property
    def next_due(self) -> int | None:
        """Cycle in which the next frame towards the engine may enter, if there is one."""
        due = int(self._call("next_due"))
        return None if due == 2**64 - 1 else due

    def take_frames(self, *, log: bool = False) -> list[Frame]:
        """All frames the engine has sent since last time; or, with ``log``, all that passed in either direction."""
        frames: list[Frame] = []
        while True:
            count = self._call("take", int(log), self._bytes, _TAKE_BYTES, self._infos, _TAKE_FRAMES)
            if count == 0:
                return frames
            offset = 0
            for info in self._infos[:count]:
                data = ctypes.string_at(ctypes.addressof(self._bytes) + offset, info.length)
                offset += info.length
                frames.append(Frame(data, info.first, info.last, bool(info.flags & _FRAME_TO_ENGINE), info.time_ns))

    def log_frames(self, on: bool = True, *, only: bool = False) -> None:
        """Keep frames of both directions, in order of their last word, for ``take_frames(log=True)``; with ``only``,
        ``take_frames()`` no longer sees the engine's frames."""
        self._call("log_frames", int(on), int(not only))

    # --- conditions ---

    def set_memory(self, *, latency: int = 1, jitter: int = 0, outstanding: int = 16, stall: float = 0.0) -> None:
        """Host memory: cycles from address to first answer, random cycles more, bursts in flight, chance of a stall."""
        if latency < 1 or outstanding < 1 or jitter < 0:
            raise ValueError("memory latency and outstanding bursts are at least 1")
        self._call("memory_options", latency, jitter, outstanding, probability(stall))

    def add_error(
        self, low: int, high: int, *, reads: bool = True, writes: bool = True, decerr: bool = False, count: int = -1
    ) -> None:
        """Answer bursts that touch [low, high) with an error; only the next ``count`` of them if not negative."""
        self._call("add_error", low, high, 3 if decerr else 2, int(reads), int(writes), count)

    def clear_errors(self) -> None:
        """Forget all :meth:`add_error`."""
        self._call("clear_errors")

    def count_writes(self, low: int, high: int) -> Callable[[], int]:
        """Begin to count the bytes that the engine writes to [low, high) of host memory; the function returned tells
        how many there have been. Bytes count when they reach memory, once for each time."""
        if not 0 <= low < high <= len(self.memory):
            raise ValueError(f"{low:#x} to {high:#x} is no range of {len(self.memory):#x} bytes of host memory")
        number = self._call("count_writes", low, high)
        return lambda: int(self._call("written", number))

    def set_stalls(self, *, rx: float = 0.0, tx: float = 0.0, registers: float = 0.0) -> None:
        """Chance per cycle of: tvalid low inside a frame to the engine; tready low; a pause on the register port."""
        self._call("stalls", probability(rx), probability(tx), probability(registers))

    def set_line(self, *, rx: float = 0.0, tx: float = 0.0, gap: int = 24) -> None:
        """Line rate in bytes per cycle (0: as fast as the bus); ``gap`` bytes follow each frame (of at least 60)."""
        self._call("line", rx, tx, gap)

    # --- findings ---

    def counters(self) -> dict[str, int]:
        """All COUNTERS."""
        counts = (ctypes.c_uint64 * len(COUNTERS))()
        self._call("counts", counts)
        return dict(zip(COUNTERS, counts, strict=True))

    @property
    def rested_s(self) -> float:
        """Wall time the clock rested in live runs because nothing was to be done."""
        return float(self._call("rested_ns")) / 1e9

    @property
    def ticks_lost(self) -> int:
        """Ticks of live runs that the engine was not given, because it had stood still for longer than a thousand."""
        return int(self._call("ticks_lost"))

    @property
    def tap_dropped(self) -> int:
        """Frames the TAP refused."""
        return int(self._call("tap_dropped"))

    def trace(self, path: Path | None) -> Path | None:
        """Begin a waveform file at ``path`` (its suffix is replaced), or end it (None); needs a build with trace."""
        if path is None:
            self._call("trace", None)
            return None
        suffix = self._library.tiptoe_trace_suffix().decode()
        if not suffix:
            raise RuntimeError("this library was built without waveforms: build it with trace=True")
        path = path.with_suffix(f".{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._call("trace", str(path).encode()):
            raise OSError(f"cannot write {path}")
        return path
