"""A run's files as the page takes them: a row a frame, a row of the record, each numbered from the run's beginning.

:meth:`RunReader.read` goes on where it has stopped, so the same reader serves a run that still goes on. The newest frames
and rows are kept, ``kept`` of each; the page says how many went before them. Of samples that speak of many connections it keeps
the connections of every second, fourth … (``stride``), so that all of the run stays to be seen.
"""

from __future__ import annotations

import base64
import math
import time
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any

from ..native.recorder import FORMAT, FRAME, FRAMES, RECORD, RUN, TO_ENGINE, UNKNOWN
from ..sim.toolchain import ToolError
from ..wire.pcap import PcapReader
from ..wire.relative import Relative
from ..wire.segment import Malformed, Segment, checksum_left_to_hardware, ip_text, parse_tcp
from ..wire.vlan import tag_of, untagged
from .trusted import header_of, row_of

KEPT = 20_000
BYTES = 160
"""Of a frame, in the page: all headers, and the beginning of what they carry."""
_FLAGS = "FSRPAUEC"
_ENTRIES = 5
"""Connections in all samples, times ``kept``."""
_PART = 1 << 22
"""Bytes of the record at a time: that of thousands of connections is larger than memory should be."""
_LONGEST = 1 << 17
"""Bytes of a frame: what a capture says beyond that is wrong."""


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
    begin : float or None
        Time of the run's first frame, in microseconds.
    stride : int
        Of the samples, numbered by ``n``, those of its multiples have their connections.
    """

    def __init__(self, path: Path, *, kept: int = KEPT, frame_bytes: int = BYTES) -> None:
        self.path, self._frame_bytes = path, frame_bytes
        self.frames: deque[list[Any]] = deque(maxlen=kept)
        self.rows: deque[dict[str, Any]] = deque(maxlen=kept)
        self.frames_read = self.rows_read = 0
        self.begin: float | None = None
        self.stride, self._samples, self._entries = 1, 0, 0
        self.relative = Relative()
        capture = path
        self._stamps = self._record = None
        if path.is_dir():
            self.header = _header(path / RUN)
            capture = path / self.header["capture"]
            try:
                self._stamps, self._record = (path / FRAMES).open("rb"), (path / RECORD).open("rb")
            except OSError as error:
                raise NoRun(f"{error.filename}: {error.strerror}") from None
        else:
            self.header = {"format": FORMAT, "command": path.name, "capture": path.name}
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

    def read(self, seconds: float = math.inf) -> None:
        """Take in what has been written since, for so long at most. NoRun for a capture that is none."""
        until = time.monotonic() + seconds
        try:
            if self._capture is None:
                self._capture = PcapReader(self._capture_path)
            for time_ns, frame, length in self._capture.records():
                if self.begin is None:
                    self.begin = time_ns / 1000
                self.frames.append(self._frame(time_ns, frame, length, self._stamp(self.frames_read)))
                self.frames_read += 1
                if time.monotonic() > until:
                    break
        except OSError as error:
            raise NoRun(f"{error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise NoRun(str(error)) from None
        if self._record is None:
            return
        while part := self._record.read(_PART):
            *lines, self._left = (self._left + part).split(b"\n")
            for row in filter(None, map(row_of, lines)):
                self._keep(row)
            if time.monotonic() > until:
                break

    def _keep(self, row: dict[str, Any]) -> None:
        if len(self.rows) == self.rows.maxlen:
            self._entries -= len(self.rows[0].get("conns", ()))
        self.rows.append(row)
        self.rows_read += 1
        if row["k"] != "sample":
            return
        row["n"] = self._samples
        self._samples += 1
        if row["n"] % self.stride:
            row["conns"] = []
        self._entries += len(row["conns"])
        while self._entries > _ENTRIES * (self.rows.maxlen or 0) and self.stride <= row["n"]:
            self.stride *= 2
            for each in self.rows:
                if each["k"] == "sample" and each["n"] % self.stride:
                    self._entries -= len(each["conns"])
                    each["conns"] = []

    def _stamp(self, number: int) -> bytes:
        """A frame's cycles, by its place: where they are missing, those of the next ones are right all the same."""
        if self._stamps is None:
            return b""
        self._stamps.seek(number * FRAME.size)
        return self._stamps.read(FRAME.size)

    def _segment(self, frame: bytes, length: int) -> tuple[Segment | None, str]:
        """The segment of a frame of that length, of which ``frame`` was captured, and what there is to say of it."""
        cut = length > len(frame)
        # What was not captured is zeros here, which nobody is shown.
        whole = frame.ljust(min(length, _LONGEST), b"\0")
        if tag_of(whole):
            whole = untagged(whole)
        try:
            return parse_tcp(whole, strict=False, summed=not cut), ""
        except Malformed:
            if cut or not checksum_left_to_hardware(whole):
                raise
            return parse_tcp(whole, strict=False, summed=False), "checksum left to the sender's interface"

    def _frame(self, time_ns: int, frame: bytes, length: int, stamp: bytes) -> list[Any]:
        """Number, time in microseconds, first and last cycle, whether to the engine, connection, whether from who opened it,
        flags, begin, end, sent again, acknowledged, window's edge, a remark or what is wrong, length, first bytes."""
        first = last = None
        to_engine: bool | None = None
        if len(stamp) == FRAME.size and stamp != UNKNOWN:
            first, rest = FRAME.unpack(stamp)
            last, to_engine = first + (rest & TO_ENGINE - 1), bool(rest & TO_ENGINE)
        begin = [self.frames_read, time_ns / 1000, first, last, to_engine]
        end = [length, base64.b64encode(frame[: self._frame_bytes]).decode()]
        try:
            segment, remark = self._segment(frame, length)
        except Malformed as error:
            return [*begin, None, None, "", None, None, False, None, None, str(error), *end]
        if segment is None:
            return [*begin, None, None, "", None, None, False, None, None, "", *end]
        placed = self.relative.place(segment)
        flags = "".join(letter for bit, letter in enumerate(_FLAGS) if segment.flags >> bit & 1)
        edge = placed.edge if placed.ack is not None else None
        remark = remark or (f"{len(segment.sacks)} SACK blocks" if segment.sacks else "")
        return [*begin, placed.connection, placed.forward, flags, placed.start, placed.end, placed.again, placed.ack, edge,
                remark, *end]  # fmt: skip

    def data(self, frames_from: int = 0, rows_from: int = 0, connections_from: int = 0) -> dict[str, Any]:
        """What the page is given: everything from these numbers on that is kept."""
        skip_frames = max(0, frames_from - self.frames_before)
        skip_rows = max(0, rows_from - self.rows_before)
        return {
            "header": self.header, "begin": self.begin, "stride": self.stride,
            "connections": [
                [f"{ip_text(address)}:{port}" for address, port in (each.source, each.target)]
                for each in self.relative.connections[max(0, connections_from) :]
            ],
            "frames": list(islice(self.frames, skip_frames, None)), "frames_read": self.frames_read,
            "rows": list(islice(self.rows, skip_rows, None)), "rows_read": self.rows_read,
            "frames_before": self.frames_before, "rows_before": self.rows_before,
        }  # fmt: skip

    def close(self) -> None:
        """Close the files. Twice does no harm."""
        for file in (self._capture, self._stamps, self._record):
            if file is not None:
                file.close()


def files_of(run: Path) -> list[Path]:
    """The files that a reader of this run reads."""
    if not run.is_dir():
        return [run]
    return [run / RUN, run / FRAMES, run / RECORD, run / _header(run / RUN)["capture"]]


def _header(path: Path) -> dict[str, Any]:
    try:
        return header_of(path.read_text(encoding="utf-8"), path.parent)
    except OSError as error:
        raise NoRun(
            f"{path}: {error.strerror}: no run's folder (tiptoe live --record DIR makes one), nor a capture"
        ) from None
    except ValueError as error:
        raise NoRun(f"{path} is not a run's header ({error})") from None
