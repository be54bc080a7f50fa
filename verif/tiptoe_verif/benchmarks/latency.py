"""Latencies in cycles of an engine at rest: SYN to SYN,ACK; data to its ACK; doorbell to the frame."""

from __future__ import annotations

from statistics import median

from ..wire.segment import RST
from .connection import Connection, Spoiled
from .frames import read
from .rig import Rig

_QUIET = 3000
"""Cycles in which everything comes to rest."""


def _stamps(rig: Rig, port: int) -> tuple[int, int]:
    """Last cycle of the last frame in, first cycle of the first frame out to ``port`` (0: none), of the next quiet time."""
    last = first = 0
    for frame in rig.step(_QUIET):
        if frame.to_engine:
            last = frame.last
        elif not first and (segment := read(frame.data)) and segment.dport == port:
            first = frame.first
    return last, first


def _typical(found: list[int], samples: int) -> float:
    if len(found) < samples:
        raise Spoiled("the engine did not answer")
    return median(found)


def syn(rig: Rig, samples: int = 9) -> float:
    """Last word of a SYN to the first word of its SYN,ACK."""
    found = []
    for number in range(samples):
        peer = rig.peer(50_000 + number, 0x1234_5678 + number)
        rig.harness.inject(rig.syn(peer))
        last, first = _stamps(rig, peer.port)
        if not first:
            break
        found.append(first - last)
        rig.harness.inject(peer.template.frame(peer.iss + 1, 0, flags=RST))
        rig.step(_QUIET)
        rig.host()
    return _typical(found, samples)


def data(rig: Rig, connection: Connection, length: int, samples: int = 9) -> float:
    """Last word of a segment that is acknowledged at once, as every second one is, to the first word of the ACK."""
    found = []
    for _ in range(2 * samples + 2):
        rig.harness.inject(connection.data(length))
        last, first = _stamps(rig, connection.port)
        if first:
            found.append(first - last)
        rig.host()
        connection.consume()
        rig.step(_QUIET)
    rig.drain()
    return _typical(found, samples)


def doorbell(rig: Rig, connection: Connection, length: int, samples: int = 9) -> float:
    """Cycle in which the doorbell's write is on the register port to the first word of the frame."""
    found = []
    for _ in range(samples):
        connection.write(length)
        begin = rig.harness.cycle + 1  # the harness drives the write at the end of the next cycle it runs
        _, first = _stamps(rig, connection.port)
        if not first:
            break
        found.append(first - begin)
        rig.harness.inject(connection.ack())
        rig.step(_QUIET)
        rig.host()
    rig.drain()
    return _typical(found, samples)


def read_bound(memory_latency: int, data_bytes: int, length: int) -> int:
    """Cycles from a doorbell to its frame that nobody can undercut: one to ask memory, its latency, all words of the
    payload (the checksum of all of them stands in front of them), one to send."""
    words = -(-length // data_bytes)
    return 1 + memory_latency + words
