"""The driver on the simulated board, over the simulated bridge: registers and memory by Etherbone frames, on the line that
TCP has too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiptoe_driver import EngineOptions, Socket, Stack, Tiptoe
from tiptoe_driver.hardware.abi_gen import REG_TICK_CYCLES
from tiptoe_verif.native.attach import NonBlocking
from tiptoe_verif.native.simulation import SimulationTimeout

from ..address_map import status_address
from ..cable.words import Bus
from ..shadow import Shadow
from .board import CLOCK_MHZ, SimulatedBoard
from .bridge import Bridge, start_memory

_SETTLE_NS = 50_000
_LOOK_NS = 20_000
"""Time between two looks at the interrupt line, which go over the bridge."""


class BoardDevice:
    """The driver's seam (``tiptoe_driver.hardware.device.Device``) and a node for a wire: the board with its bridge's host.

    Parameters
    ----------
    tick_us : int
        Simulated time in a tick of TCP's clock: 1000 on a board, less makes its long times affordable.

    Attributes
    ----------
    shadow : Shadow
    stack, toe
        The driver's, attached.
    """

    quantum_ns = _LOOK_NS

    def __init__(self, board: SimulatedBoard, *, ip: str, mac: str, tick_us: int = 50, **options: Any) -> None:
        self.board = board
        self.world = board.world
        self.world.nodes[:] = [self]
        self._sent: list[tuple[int, bytes]] = []
        self._busy = False
        board.advance(board.now_ns + _SETTLE_NS)
        self.bridge = Bridge(board, lambda time_ns, frame: self._sent.append((time_ns, frame)))
        start_memory(self.bridge)
        self.shadow = Shadow(Bus(self.bridge), self.bridge.read(status_address("memory"))[0])
        self.memory = self.shadow.memory
        self.read32, self.write32 = self.shadow.read32, self.shadow.write32
        registers = {REG_TICK_CYCLES: round(tick_us * CLOCK_MHZ)}
        options = {
            "snd_ring_bytes": 4096, "rcv_ring_bytes": 4096, "frame_slots": 8, "frame_buffers": 4, "watchdog_us": 0,
            "tick_us": tick_us, "clock_hz": round(CLOCK_MHZ * 1e6), "external_tick": False, "seed": 1,
            "registers": registers, **options,
        }  # fmt: skip
        self.stack = Stack(seed=1)
        self.toe = Tiptoe(self.stack, self, address=ip, mac=mac, options=EngineOptions(**options))

    def socket(self) -> Socket:
        """A non-blocking offloaded socket."""
        return NonBlocking(self.stack)

    # --- Device ---

    def now_us(self) -> int:
        """Simulated time."""
        return self.board.now_ns // 1000

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until the interrupt line is high or the time is over; the news is in the shadow then."""
        end = self.board.now_ns + (timeout_us if timeout_us is not None else 1_000_000) * 1000
        while not (irq := self._look()) and self.board.now_ns < end:
            self.board.advance(min(end, self.board.now_ns + _LOOK_NS))
        return irq

    def _look(self) -> bool:
        """The interrupt line's level; if it is high, the shadow has the news."""
        irq = bool(self.bridge.read(status_address("irq"))[0])
        if irq:
            self.shadow.fetch()
        return irq

    # --- Node ---

    def advance(self, until_ns: int) -> None:
        """Live until that time; what goes over the bridge may take it a little further."""
        if until_ns > self.board.now_ns:
            self.board.advance(until_ns)
        if self._look():
            self.stack.poll()
            self.toe.engine.clear_interrupt()
        else:
            self.stack.poll()

    def take_sent(self) -> list[tuple[int, bytes]]:
        """Frames sent since last time, without the bridge's."""
        self.bridge.collect()
        sent, self._sent = self._sent, []
        return sent

    def give(self, time_ns: int, frame: bytes) -> None:
        """A frame arrives."""
        self.board.give(max(time_ns, self.board.now_ns), frame)

    # --- time for all ---

    def run_until(self, condition: Callable[[], Any], timeout_us: int, what: str) -> None:
        """Let time pass for everything on the wire until ``condition()`` holds."""
        end = self.world.now_ns + timeout_us * 1000
        while not condition():
            if self.world.now_ns >= end:
                raise SimulationTimeout(f"{what}: not within {timeout_us} us")
            self.world.run(max(self.world.now_ns, self.board.now_ns) + self.quantum_ns)
