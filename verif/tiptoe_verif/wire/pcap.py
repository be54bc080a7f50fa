"""Captures in libpcap's format with nanosecond times, written as they happen, readable at any moment."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

_MAGIC_NS, _MAGIC_US = 0xA1B23C4D, 0xA1B2C3D4
_ETHERNET = 1
_RECORD = struct.Struct("<IIII")


def free_capture(path: Path) -> Path:
    """``path``, or the first of ``path``-2, ``path``-3 ... that nobody is writing."""
    for number in count(1):
        candidate = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        if not candidate.exists():
            return candidate
        with candidate.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return candidate
    raise AssertionError


def open_alone(path: Path, what: str) -> BinaryIO:
    """An empty file to write, its folder made if need be. OSError, and the file left as it is, when somebody is writing it;
    ``what`` it is, for people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OSError(f"{what} {path} is being written by another session: name another") from None
    file.truncate(0)
    return file


class PcapWriter:
    """Writes frames to a capture file. Usable as a context manager. OSError when somebody is writing it already."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        self._file = open_alone(path, "capture")
        self._file.write(struct.pack("<IHHiIII", _MAGIC_NS, 2, 4, 0, 0, 65535, _ETHERNET))

    def write(self, time_ns: int, frame: bytes) -> None:
        """Append a frame; ``time_ns`` counts from 1970, or from 0 in simulated time."""
        self._file.write(_RECORD.pack(time_ns // 10**9, time_ns % 10**9, len(frame), len(frame)))
        self._file.write(frame)
        self.frames += 1

    def flush(self) -> None:
        """Make the file complete up to here."""
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        """End the file. Twice does no harm."""
        self._file.close()

    def __enter__(self) -> PcapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PcapReader:
    """Reads a capture, also one that is still being written: :meth:`frames` and :meth:`records` go on where they have stopped.
    Little endian, of Ethernet, with times in nano- or microseconds; ValueError for another format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        self._at = 0
        self._unit = 0

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Times in nanoseconds and frames, as far as they were captured."""
        return ((time_ns, frame) for time_ns, frame, _ in self.records())

    def records(self) -> Iterator[tuple[int, bytes, int]]:
        """The same, and the length that each frame had: a capture may keep only its first bytes."""
        self._file.seek(self._at)
        if not self._unit:
            header = self._file.read(24)
            units = {struct.pack("<I", _MAGIC_NS): 1, struct.pack("<I", _MAGIC_US): 1000}
            if len(header) < 24 or header[:4] not in units or header[20] != _ETHERNET:
                raise ValueError(f"{self.path} is not a capture of Ethernet in libpcap's format")
            self._unit, self._at = units[header[:4]], 24
        while len(record := self._file.read(16)) == 16:
            seconds, fraction, length, whole = _RECORD.unpack(record)
            if len(frame := self._file.read(length)) < length:
                return
            self._at += 16 + length
            yield seconds * 10**9 + fraction * self._unit, frame, whole

    @property
    def left(self) -> int:
        """Bytes behind the last complete frame."""
        return self.path.stat().st_size - self._at

    def close(self) -> None:
        """Close the file. Twice does no harm."""
        self._file.close()


def read_pcap(path: Path) -> Iterator[tuple[int, bytes]]:
    """Times in nanoseconds and frames of a whole capture; ValueError for another format."""
    reader = PcapReader(path)
    try:
        yield from reader.frames()
        if reader.left >= _RECORD.size:
            raise ValueError(f"{path} ends inside a frame")
    finally:
        reader.close()
