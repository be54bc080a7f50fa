"""Captures in libpcap's format with nanosecond times, written as they happen, readable at any moment."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_MAGIC_NS = 0xA1B23C4D
_ETHERNET = 1
_RECORD = struct.Struct("<IIII")


class PcapWriter:
    """Writes frames to a capture file. Usable as a context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.frames = 0
        self._file = path.open("wb")
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


def read_pcap(path: Path) -> Iterator[tuple[int, bytes]]:
    """Times in nanoseconds and frames of a capture that :class:`PcapWriter` wrote; ValueError for another format."""
    with path.open("rb") as file:
        header = file.read(24)
        if len(header) < 24 or header[:4] != struct.pack("<I", _MAGIC_NS):
            raise ValueError(f"{path} is not a nanosecond capture")
        while len(record := file.read(16)) == 16:
            seconds, nanoseconds, length, _ = _RECORD.unpack(record)
            frame = file.read(length)
            if len(frame) < length:
                raise ValueError(f"{path} ends inside a frame")
            yield seconds * 10**9 + nanoseconds, frame
