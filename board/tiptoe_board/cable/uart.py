"""UARTBone over a serial line: LiteX's commands of bytes, which have neither answers to writes nor checksums.

UARTBone hears nothing while it answers, so a command is sent when the answer before is there. What has been done is followed by a
read of the word ``build``, whose value is known: it comes where it is expected only if no byte was lost or added on the way, so
it stands for the writes and answers before it. Without it the line is left alone for longer than UARTBone waits for the rest of
a command (100 ms), and all is done again. That harms nothing, because nothing else was sent meanwhile: a position written twice
is the same position, a reset twice is a reset, and an interrupt cleared twice stays up while there are events
(docs/registers.md). Memory is compared with what was written besides.

What this cannot do: a byte that is wrong in a register's value or in an answer goes unnoticed, and a write whose address has lost
a byte is noticed after it has written somewhere. Etherbone's frames have a checksum, and it is faster.

Why every wait ends: bytes that do not come end it after ``gap_s`` and the time that those under way take, and a board that
does not answer as it should for ``patience_s`` ends the attempts.
"""

from __future__ import annotations

import contextlib
import os
import struct
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass

import serial

from ..address_map import ENGINE_BASE, MEMORY_BASE, UART_BAUD, status_address
from .fault import CableError
from .words import GREETING, check_greeting

_WRITE, _READ = 1, 2
_LONGEST = 64
"""Words of a command: all of it has to come within UARTBone's 100 ms, whatever the host does meanwhile."""
_BITS = 10
"""Of a byte on the line."""
_COMMAND_S = 0.04
"""The longest that a command may take."""
_LEAST_TRIES = 3


@dataclass(frozen=True)
class _Step:
    command: bytes
    words: int
    """Of its answer."""


def _read(address: int, count: int) -> _Step:
    return _Step(struct.pack(">BBI", _READ, count, address // 4), count)


class UartCable:
    """The board's words behind a serial line.

    Parameters
    ----------
    port : str
        The line's device, as /dev/ttyUSB1.
    baud : int
        Bits a second; the board's are fixed when it is built.
    patience_s : float
        How long no answer may come.
    build : int, optional
        The build that it has to have.
    gap_s : float
        Silence after which an answer is taken for lost.

    Attributes
    ----------
    name : str
        The URL.
    greeting : dict
        The status words ``build``, ``clock``, ``memory`` as they were found.
    sent, repeated, differed : int
        Groups of commands; those done again; those whose words were other ones when they were read back.
    """

    once = False

    def __init__(
        self, port: str, baud: int = UART_BAUD, *, patience_s: float = 3.0, build: int | None = None, gap_s: float = 0.2,
        quiet_s: float = 0.12,
    ) -> None:  # fmt: skip
        self.name = f"uart://{port}" + (f"?baud={baud}" if baud != UART_BAUD else "")
        self._patience_s, self._gap_s, self._quiet_s = patience_s, gap_s, quiet_s
        self._byte_s = _BITS / baud
        self._longest = max(1, min(_LONGEST, int(_COMMAND_S / self._byte_s / 4)))
        self.sent = self.repeated = self.differed = 0
        try:
            self._port = serial.Serial(port, baud, exclusive=True, write_timeout=patience_s)
        except (OSError, ValueError) as error:
            raise CableError(
                f"{self.name}: cannot be opened ({_reason(error)}): is the cable in, is it this port, does another program have "
                "it, do you belong to its group (Debian: dialout)?"
            ) from None
        try:
            with contextlib.suppress(OSError, NotImplementedError, ValueError):
                self._port.set_low_latency_mode(True)  # else an FTDI chip keeps an answer back for 16 ms
            self._greet(build)
        except BaseException:
            self._port.close()
            raise

    def close(self) -> None:
        """Close the port. Twice does no harm."""
        self._port.close()

    def counters(self) -> dict[str, int]:
        """What had to be done for it."""
        return {name: getattr(self, name) for name in ("sent", "repeated", "differed")}

    # --- words ---

    def read_at(self, addresses: list[int]) -> list[int]:
        """See :class:`~tiptoe_board.cable.words.Words`."""
        return self._exchange(list(self._reads(addresses)))

    def write(self, address: int, words: list[int]) -> None:
        """See :class:`~tiptoe_board.cable.words.Words`. What was written has arrived when this returns."""
        memory = MEMORY_BASE <= address < ENGINE_BASE
        step = self._longest if memory else 1
        for at in range(0, len(words), step):
            piece, place = words[at : at + step], address + 4 * at
            command = struct.pack(f">BBI{len(piece)}I", _WRITE, len(piece), place // 4, *piece)
            if not memory:
                self._exchange([_Step(command, 0)])
                continue
            reading = _read(place, len(piece))
            for _ in range(_LEAST_TRIES):
                if self._exchange([_Step(command + reading.command, len(piece))]) == piece:
                    break
                self.differed += 1
            else:
                raise CableError(
                    f"{self.name}: memory does not keep what is written: the line makes errors, try fewer bauds"
                )

    def _reads(self, addresses: list[int]) -> Iterator[_Step]:
        """Commands that read these words: neighbours in one."""
        first = 0
        for n in range(1, len(addresses) + 1):
            if n == len(addresses) or addresses[n] != addresses[n - 1] + 4 or n - first == self._longest:
                yield _read(addresses[first], n - first)
                first = n

    # --- exchanges ---

    def _greet(self, build: int | None) -> None:
        """What the board is, told twice alike."""
        self._build: int | None = None
        self._quiet()
        first, again = (self.read_at(GREETING) for _ in range(2))
        if first != again:
            raise CableError(f"{self.name} answers differently when asked twice: is it {self._port.baudrate} baud?")
        self.greeting = check_greeting(self.name, first, build)
        self._build = first[0]

    def _exchange(self, steps: list[_Step]) -> list[int]:
        """Take these steps, and once more from the first until the board has taken all; returns the words of the answers."""
        self.sent += 1
        begin, tries = time.monotonic(), 0
        while True:
            try:
                if (words := self._attempt(steps)) is not None:
                    return words
                tries += 1
                if tries >= _LEAST_TRIES and time.monotonic() - begin > self._patience_s:
                    raise CableError(
                        f"{self.name}: no answer for {self._patience_s:g} s: look at the cable, the port, the bauds, the board's "
                        "power, and that its bitstream is loaded (make load BOARD=...)"
                    )
                self.repeated += 1
                self._quiet()
            except (OSError, termios.error) as error:
                raise CableError(
                    f"{self.name}: the port is gone ({_reason(error)}): look at the cable and the board's power"
                ) from None

    def _attempt(self, steps: list[_Step]) -> list[int] | None:
        """None when an answer is not as long as it should be, or the last word not the build."""
        self._port.reset_input_buffer()
        words: list[int] = []
        check = _read(status_address("build"), 1)
        if not steps[-1].words:  # a write, during which UARTBone hears
            steps = [*steps[:-1], _Step(steps[-1].command + check.command, 1)]
        else:
            steps = [*steps, check]
        for step in steps:
            sent = time.monotonic()
            self._port.write(step.command)
            answer = self._take(4 * step.words, len(step.command))
            if len(answer) != 4 * step.words:
                return None
            trip_s = time.monotonic() - sent
            self._byte_s = max(self._byte_s, min(trip_s / (len(answer) + len(step.command)), self._gap_s))
            words += struct.unpack(f">{step.words}I", answer)
        found = words.pop()
        return words if not self._port.in_waiting and self._build in (None, found) else None

    def _take(self, length: int, sent: int) -> bytes:
        """Up to ``length`` bytes, fewer when there is silence for too long."""
        answer = b""
        self._port.timeout = self._gap_s + 2 * (sent + 4) * self._byte_s
        while len(answer) < length and (some := self._port.read(1)):
            answer += some + self._port.read(min(self._port.in_waiting, length - len(answer) - 1))
            self._port.timeout = self._gap_s + 16 * self._byte_s
        return answer

    def _quiet(self) -> None:
        """Let UARTBone forget half a command."""
        time.sleep(self._quiet_s)


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None) or (error.args[0] if isinstance(error, termios.error) else None)
    return os.strerror(number) if number else str(error).splitlines()[0]
