"""A run's files as the page takes them: a row a frame, a row of the record, each numbered from the run's beginning.

:meth:`RunReader.read` goes on where it has stopped, so the same reader serves a run that still goes on. The newest frames
and rows are kept, ``kept`` of each; the page says how many went before them.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from pathlib import Path
from typing import Any

from ..native.recorder import CAPTURE, FORMAT, FRAME, FRAMES, RECORD, RUN, TO_ENGINE
from ..sim.toolchain import ToolError
from ..wire.pcap import PcapReader
from ..wire.relative import Relative
from ..wire.segment import Malformed, ip_text, parse_tcp

KEPT = 20_000
BYTES = 160
"""Of a frame, in the page: all headers, and the beginning of what they carry."""
_FLAGS = "FSRPAUEC"


class NoRun(ToolError):
    """There is nothing to report on; the message is fit to be shown to the user."""


class RunReader:
    """Reads a run's folder, or a capture alone.

    Parameters
    ----------
    kept : int
        Frames, and rows of the record.
    frame_bytes : int
        Bytes of each frame that are kept.

    Attributes
    ----------
    header : dict
        run.json, or what stands for it.
    frames, rows : deque
        What is kept; the first of them has number ``frames_before``, ``rows_before``.
    """

    def __init__(self, path: Path, *, kept: int = KEPT, frame_bytes: int = BYTES) -> None:
        self.path, self._frame_bytes = path, frame_bytes
        self.frames: deque[list[Any]] = deque(maxlen=kept)
        self.rows: deque[dict[str, Any]] = deque(maxlen=kept)
        self.frames_read = self.rows_read = 0
        self.relative = Relative()
        capture = path
        self._stamps = self._record = None
        if path.is_dir():
            self.header = _header(path / RUN)
            capture = path / str(self.header.get("capture", CAPTURE))
            try:
                self._stamps, self._record = (path / FRAMES).open("rb"), (path / RECORD).open("rb")
            except OSError as error:
                raise NoRun(f"{error.filename}: {error.strerror}") from None
        else:
            self.header = {"format": FORMAT, "command": path.name, "capture": path.name, "clock": ""}
        self._capture_path = capture
        self._capture: PcapReader | None = None
        self._left = b""

    @property
    def frames_before(self) -> int:
        """Frames that are not kept any more."""
        return self.frames_read - len(self.frames)

    @property
    def rows_before(self) -> int:
        """Rows of the record that are not kept any more."""
        return self.rows_read - len(self.rows)

    def read(self) -> None:
        """Take in what has been written since. NoRun for a capture that is none."""
        try:
            if self._capture is None:
                self._capture = PcapReader(self._capture_path)
            for time_ns, frame in self._capture.frames():
                self.frames.append(self._frame(time_ns, frame, self._stamp(self.frames_read)))
                self.frames_read += 1
        except OSError as error:
            raise NoRun(f"{error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise NoRun(str(error)) from None
        if self._record is None:
            return
        *lines, self._left = (self._left + self._record.read()).split(b"\n")
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict) and isinstance(row.get("t"), int):
                self.rows.append(row)
                self.rows_read += 1

    def _stamp(self, number: int) -> bytes:
        """A frame's cycles, by its place: where they are missing, those of the next ones are right all the same."""
        if self._stamps is None:
            return b""
        self._stamps.seek(number * FRAME.size)
        return self._stamps.read(FRAME.size)

    def _frame(self, time_ns: int, frame: bytes, stamp: bytes) -> list[Any]:
        """Number, time in microseconds, first and last cycle, whether to the engine, connection, whether from who opened it,
        flags, begin, end, sent again, acknowledged, window's edge, SACK blocks' length or what is wrong, length, first bytes."""
        first = last = None
        to_engine: bool | None = None
        if len(stamp) == FRAME.size:
            first, rest = FRAME.unpack(stamp)
            last, to_engine = first + (rest & TO_ENGINE - 1), bool(rest & TO_ENGINE)
        begin = [self.frames_read, time_ns / 1000, first, last, to_engine]
        end = [len(frame), base64.b64encode(frame[: self._frame_bytes]).decode()]
        try:
            segment = parse_tcp(frame, strict=False)
        except Malformed as error:
            return [*begin, None, None, "", None, None, False, None, None, str(error), *end]
        if segment is None:
            return [*begin, None, None, "", None, None, False, None, None, "", *end]
        placed = self.relative.place(segment)
        flags = "".join(letter for bit, letter in enumerate(_FLAGS) if segment.flags >> bit & 1)
        edge = placed.edge if placed.ack is not None else None
        return [*begin, placed.connection, placed.forward, flags, placed.start, placed.end, placed.again, placed.ack, edge,
                f"{len(segment.sacks)} SACK blocks" if segment.sacks else "", *end]  # fmt: skip

    def data(self, frames_from: int = 0, rows_from: int = 0, connections_from: int = 0) -> dict[str, Any]:
        """What the page is given: everything from these numbers on that is kept."""
        skip_frames = max(0, frames_from - self.frames_before)
        skip_rows = max(0, rows_from - self.rows_before)
        return {
            "header": self.header,
            "connections": [
                [f"{ip_text(address)}:{port}" for address, port in (each.source, each.target)]
                for each in self.relative.connections[max(0, connections_from) :]
            ],
            "frames": list(self.frames)[skip_frames:], "frames_read": self.frames_read, "frames_before": self.frames_before,
            "rows": list(self.rows)[skip_rows:], "rows_read": self.rows_read, "rows_before": self.rows_before,
        }  # fmt: skip

    def close(self) -> None:
        """Close the files. Twice does no harm."""
        for file in (self._capture, self._stamps, self._record):
            if file is not None:
                file.close()


def _header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(path.read_text())
    except OSError as error:
        raise NoRun(
            f"{path}: {error.strerror}: no run's folder (tiptoe live --record DIR makes one), nor a capture"
        ) from None
    except ValueError:
        raise NoRun(f"{path} is not a run's header") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise NoRun(f"{path}: written in another format than {FORMAT}")
    return header
