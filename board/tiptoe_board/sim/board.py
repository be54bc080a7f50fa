"""The simulated top on a line: frames in, frames out, in simulated time.

The PHY is its own stream of bytes (``sim_pins.py``): preamble, FCS, gaps, both clocks and their crossings are as on a board;
what is not here are the RGMII pins with their delays.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import zlib
from pathlib import Path

from tiptoe_verif.native.world import World
from tiptoe_verif.sim.toolchain import Progress, ToolError, cached_dir, digest
from tiptoe_verif.sim.verilate import build_library

from ..address_map import SIM_CONSOLE_CYCLES, SIM_UART_CYCLES
from ..modules import TOP, sizes, verilog

CLOCK_MHZ = 50.0
BUILD_ID = 0x7171_70E0
"""What the simulated top says it is."""

_PREAMBLE = b"\x55" * 7 + b"\xd5"
_SOURCE = Path(__file__).with_name("line.cpp")
_LEAST_FRAME, _LEAST_GAP = 60, 12
_ROOM = 1 << 14

# Of LiteX's text alone. COMBDLY: its combinational processes assign with <=, and nothing else reads them in the same process.
# UNOPTFLAT: LiteEth's processes of several signals look like loops through each other; the netlist's check finds real ones.
_WAIVED = ("COMBDLY", "UNOPTFLAT")


class LineError(AssertionError):
    """The top broke a rule of Ethernet."""


def elaborated(memory: str, cpu: str = "") -> Path:
    """LiteX's half of the simulated top (``top.v``, ``map.json``), with that processor if there is one; kept by a hash."""
    folder = Path(__file__).parents[1]
    paths = (path for path in sorted(folder.rglob("*.py")) if path.parent.name not in ("cable", "sim"))  # the host's
    sources = "".join(path.read_text() for path in paths)
    with cached_dir("board", "sim", digest(sources, memory, cpu)) as (path, complete):
        if not complete:
            command = [sys.executable, "-m", "tiptoe_board.elaborate", "sim", str(path), f"{BUILD_ID:08x}", memory, cpu]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            (path / "elaborate.log").write_text(done.stdout)
            if done.returncode:
                tail = "\n".join(done.stdout.splitlines()[-8:])
                raise ToolError(f"LiteX failed ({path / 'elaborate.log'}):\n{tail}")
        return path


def build_board(memory: str = "ddr3", progress: Progress | None = None, *, cpu: str = "") -> Path:
    """Compile the simulated top with that kind of host memory, and processor; returns the library, at once if it is there."""
    off = "".join(f"/* verilator lint_off {rule} */\n" for rule in _WAIVED)
    text = verilog(sizes(CLOCK_MHZ, memory)) + off + (elaborated(memory, cpu) / "top.v").read_text()
    return build_library(TOP, text, [_SOURCE], optimise="-O1 -march=native", progress=progress)


class SimulatedBoard:
    """One top; a :class:`~tiptoe_verif.native.world.Node`.

    Parameters
    ----------
    library : Path
        What ``build_board`` returned.
    rom : Path, optional
        The image of the processor's program.

    Attributes
    ----------
    gaps : list of int
        Bytes of silence before each frame it sent.
    """

    quantum_ns = 2000

    def __init__(self, library: Path, rom: Path | None = None) -> None:
        self._library = library_ = ctypes.CDLL(str(library))
        pointer, wide, word = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32
        for name, result, arguments in (
            ("create", pointer, (wide, ctypes.c_char_p)), ("destroy", None, (pointer,)), ("now", wide, (pointer,)),
            ("run", None, (pointer, wide, word)), ("give", None, (pointer, wide, ctypes.c_char_p, word)),
            ("arriving", word, (pointer,)), ("pause", None, (pointer, word)),
            ("take", word, (pointer, ctypes.c_char_p, word, pointer, pointer)),
            ("serial", None, (pointer, wide)), ("serial_give", None, (pointer, ctypes.c_char_p, word)),
            ("serial_take", word, (pointer, ctypes.c_char_p, word)),
        ):  # fmt: skip
            function = getattr(library_, f"board_{name}")
            function.restype, function.argtypes = result, arguments
        self._sim = library_.board_create(round(500_000 / CLOCK_MHZ), str(rom or "").encode())
        cycles = SIM_CONSOLE_CYCLES if rom else SIM_UART_CYCLES
        library_.board_serial(self._sim, round(cycles * 1_000_000 / CLOCK_MHZ))
        self._room = ctypes.create_string_buffer(_ROOM)
        self._console = ""
        self.gaps: list[int] = []
        self.world = World()
        self.world.nodes.append(self)

    def close(self) -> None:
        """Free the model."""
        self._library.board_destroy(self._sim)

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return int(self._library.board_now(self._sim)) // 1000

    @property
    def arriving(self) -> int:
        """Frames given that have not arrived completely."""
        return int(self._library.board_arriving(self._sim))

    def pause_memory(self, paused: bool) -> None:
        """From now on host memory takes nothing that the engine writes, or does again."""
        self._library.board_pause(self._sim, int(paused))

    def serial_give(self, data: bytes) -> None:
        """Bytes go over the serial line, behind those that still wait."""
        self._library.board_serial_give(self._sim, data, len(data))

    def serial_take(self) -> bytes:
        """What came over the serial line since last time."""
        count = self._library.board_serial_take(self._sim, self._room, _ROOM)
        return self._room.raw[:count]

    def run_until_frame(self, until_ns: int) -> None:
        """Live until that time, or until a frame has been sent."""
        self._library.board_run(self._sim, until_ns * 1000, 1)

    @property
    def console(self) -> str:
        """All that the processor's console has said."""
        while said := self.serial_take():
            self._console += said.decode("latin-1")
        return self._console

    def boot(self, ready: str, timeout_us: int = 5000) -> None:
        """Live until the console has said ``ready``; TimeoutError with what it said instead."""
        end = self.now_ns + timeout_us * 1000
        while ready not in self.console:
            if self.now_ns > end:
                raise TimeoutError(f"not {ready!r} in {timeout_us} us, but {self.console!r}")
            self.advance(self.now_ns + 10_000)

    # --- Node ---

    def advance(self, until_ns: int) -> None:
        """Live until that time."""
        self._library.board_run(self._sim, until_ns * 1000, 0)

    def take_sent(self) -> list[tuple[int, bytes]]:
        """Frames sent since last time, with the times of their ends; each checked for preamble, length, FCS and gap."""
        frames = []
        end, gap = ctypes.c_uint64(), ctypes.c_uint32()
        while length := self._library.board_take(self._sim, self._room, _ROOM, ctypes.byref(end), ctypes.byref(gap)):
            raw = self._room.raw[:length]
            frame, fcs = raw[len(_PREAMBLE) : -4], raw[-4:]
            time_ns = end.value // 1000
            if raw[: len(_PREAMBLE)] != _PREAMBLE:
                raise LineError(f"{time_ns} ns: no preamble: {raw[:16].hex()}")
            if len(frame) < _LEAST_FRAME or zlib.crc32(frame).to_bytes(4, "little") != fcs:
                raise LineError(
                    f"{time_ns} ns: a frame of {len(frame)} bytes with a wrong FCS, or too short: {raw.hex()}"
                )
            if gap.value < _LEAST_GAP:
                raise LineError(f"{time_ns} ns: {gap.value} bytes between two frames")
            self.gaps.append(gap.value)
            frames.append((time_ns, frame))
        return frames

    def give(self, time_ns: int, frame: bytes, *, damaged: bool = False) -> None:
        """A frame begins to arrive at that time, or when those before it have; ``damaged``: with a wrong FCS."""
        frame = frame.ljust(_LEAST_FRAME, b"\0")
        fcs = zlib.crc32(frame) ^ (0xFF if damaged else 0)
        raw = _PREAMBLE + frame + fcs.to_bytes(4, "little")
        self._library.board_give(self._sim, time_ns * 1000, raw, len(raw))
