"""The simulated top on a TAP interface: this machine's kernel, with curl and all that, at the other end of its line."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from tiptoe_verif.live.namespace import NetNamespace

from .board import SimulatedBoard

_STEP_NS = 10_000
_LONGEST = 1 << 14


class TapLine:
    """A network namespace whose only interface, ``board0``, is the line of ``board``.

    A simulated second takes a quarter of an hour or so: the kernel sees a slow host, which answers in tens of milliseconds.

    Parameters
    ----------
    board : SimulatedBoard
    address : str
        The kernel's, on the net of the board's.
    """

    def __init__(self, board: SimulatedBoard, address: str = "192.168.1.1") -> None:
        self._board = board
        self.namespace = NetNamespace()
        try:
            self._tap = self.namespace.open_tap("board0", address=address)
        except BaseException:
            self.namespace.close()
            raise
        self.sent: list[tuple[int, int]] = []
        """Time in ns and length of each frame that the board has sent."""

    def close(self) -> None:
        """Remove the interface and the namespace."""
        os.close(self._tap)
        self.namespace.close()

    def step(self) -> None:
        """Let ten microseconds pass on the board; what the kernel has sent begins to arrive now."""
        while True:
            try:
                frame = os.read(self._tap, _LONGEST)
            except BlockingIOError:
                break
            self._board.give(self._board.now_ns, frame)
        self._board.advance(self._board.now_ns + _STEP_NS)
        for time_ns, frame in self._board.take_sent():
            self.sent.append((time_ns, len(frame)))
            os.write(self._tap, frame)

    def run(self, command: Sequence[str], timeout_s: float) -> int:
        """Run a program in the namespace until it ends; returns its status. TimeoutError when it does not end."""
        process = self.namespace.popen(list(command))
        end = time.monotonic() + timeout_s
        try:
            while (status := process.poll()) is None:
                self.step()
                if time.monotonic() > end:
                    raise TimeoutError(f"{command[0]} is still at it after {timeout_s:g} s")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        return status

    def __enter__(self) -> TapLine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
