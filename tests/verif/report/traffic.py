"""Captures and runs made to measure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tiptoe_verif.native.recorder import CAPTURE, FRAMES, RECORD, RUN
from tiptoe_verif.wire.pcap import PcapWriter
from tiptoe_verif.wire.segment import ACK, FIN, SYN, Segment, pack_tcp

CLIENT, SERVER = 0x0A4D0001, 0x0A4D0002
ADDRESSES = b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01"
SAMPLE = {
    "k": "sample", "t": 5, "c": 5, "conns": [{"conn": "a b"}], "ids": 1, "half_open": 0, "commands": [1, 1, 0],
    "counters": {}, "engine": {"cycles": 5},
}  # fmt: skip


def ethernet(packet: bytes) -> bytes:
    return ADDRESSES + (b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def exchange(port: int, sizes: Iterable[int], *, first: int = 1, v6: bool = False) -> list[bytes]:
    """Frames of a connection to port 80 whose client sends so much and closes, each segment acknowledged."""
    client, server = (CLIENT | 0xFD << 120, SERVER | 0xFD << 120) if v6 else (CLIENT, SERVER)

    def segment(out: bool, seq: int, ack: int, flags: int, payload: bytes = b"") -> bytes:
        ends = (client, server, port, 80) if out else (server, client, 80, port)
        return ethernet(
            pack_tcp(Segment(*ends, seq % 2**32, ack % 2**32, flags, 500, 1460 * bool(flags & SYN), None, payload))
        )

    seq = first + 1
    frames = [segment(True, first, 0, SYN), segment(False, 9, seq, SYN | ACK), segment(True, seq, 10, ACK)]
    for size in sizes:
        frames.append(segment(True, seq, 10, ACK, bytes(size)))
        seq += size
        frames.append(segment(False, 10, seq, ACK))
    return [
        *frames,
        segment(True, seq, 10, FIN | ACK),
        segment(False, 10, seq + 1, FIN | ACK),
        segment(True, seq + 1, 11, ACK),
    ]


def write(path: Path, frames: Iterable[bytes], *, step_ns: int = 100_000) -> Path:
    """A capture of the frames, so far apart; its path."""
    with PcapWriter(path) as writer:
        for number, frame in enumerate(frames):
            writer.write(10**9 + number * step_ns, frame)
    return path


def folder(path: Path, frames: Iterable[bytes] = (), rows: Iterable[Any] = (), **header: Any) -> Path:
    """A run's folder of this making; its path."""
    write(path / CAPTURE, frames)
    (path / FRAMES).write_bytes(b"")
    (path / RECORD).write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    (path / RUN).write_text(json.dumps({"format": 1} | header))
    return path
