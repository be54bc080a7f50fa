"""Floods at the rate of the line: what they leave an established connection, and what answers they draw (RFC 5961 section 7)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.listen.jobs import SYN_ACK_TICKS

from ..wire.segment import ACK, FIN, RST, SYN
from .connection import Connection, Spoiled
from .frames import ETHERNET_MIN, HEADERS, M32, Template, checksum
from .rig import CYCLES_PER_US, MSS, PORT, STEP, Rig, until

CLOSED = 7
"""A port where nobody listens."""
WIRE_OVERHEAD = 24
"""FCS, preamble and gap of a frame."""
SHARE = 0.9
"""Of the line that a flood has; the connection has the rest."""
LEAST = 0.9
"""Of what is left of the line the connection's data gets so much."""
SLACK = 8
"""The connection's own ACKs follow the time: so many more or less are no answers."""
LINUX_OPTIONS = bytes.fromhex("020405b4 0402080a 12345678 00000000 01030307")
"""MSS, SACK permitted, timestamps, window scale."""
PROMISED_TICKS = 3000
"""So long a half-open connection that leaves its SYN,ACKs unanswered keeps its id while other SYNs find no room, at the least:
SYN_ACK_TICKS, and twice as many behind the second SYN,ACK. It ends in silence."""
STRANGERS = range(20_000, 60_000)
"""Ports of random sources: no connection of the rig's and no client has one of them."""
_AHEAD = 300
"""Frames that wait at the engine's port."""

Source = Callable[[], bytes]
"""Makes the flood's next frame."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a flood did.

    Attributes
    ----------
    name : str
    frames : int
        Of the flood.
    share : float
        Part of the goodput that the line leaves the connection.
    replies, allowed : int
        Frames of the engine that would not have been there without the flood; allowed -1: as many as frames.
    """

    name: str
    frames: int
    share: float
    replies: int
    allowed: int

    @property
    def holds(self) -> bool:
        """Whether it is as it should be."""
        return self.share >= LEAST and self.replies <= (self.frames if self.allowed < 0 else self.allowed)

    def as_json(self) -> dict[str, Any]:
        """For the JSON."""
        return asdict(self) | {"holds": self.holds}


def strangers(rig: Rig, rng: random.Random, port: int, flags: int, options: bytes | None = None) -> Source:
    """Segments of random sources, each of another one; SYNs have an MSS option unless ``options`` says something else.

    None comes twice: a SYN that comes again to its half-open connection is an honest peer's, and draws its SYN,ACK again."""
    mac = rig.sim.mac.to_bytes(6, "big")
    if options is None:
        options = b"\x02\x04\x05\xb4" if flags == SYN else b""

    numbers = count(rng.getrandbits(30))

    def new() -> bytes:
        source = 0x1000_0000 + (next(numbers) * 0x9E3779B1 & (1 << 30) - 1)  # each once
        template = Template(mac, b"\x02\0\0\0\0\x01", rig.sim.ip, source, port, rng.choice(STRANGERS))
        return template.frame(
            rng.getrandbits(32), rng.getrandbits(32) if flags & ACK else 0, flags=flags, options=options
        )

    return new


def blind(connection: Connection, rng: random.Random, kind: str) -> Source:
    """Segments of the connection's peer from somebody who knows all but the exact numbers: where the window is, but an
    acknowledgement only of the future or of longer ago than the largest window."""
    flags = {"RST": RST, "SYN": SYN, "FIN": FIN | ACK}.get(kind, ACK)
    payload = bytes(6) if kind == "data" else b""

    def new() -> bytes:
        seq = connection.iss + 1 + connection.sent + rng.randrange(1, 60_000)
        ack = connection.irs + 1 + rng.choice((1 + rng.randrange(1 << 30), -(1 << 26) - rng.randrange(1 << 30)))
        if kind in ("data", "FIN", "old ACK"):
            seq = rng.choice((seq, connection.iss + rng.getrandbits(32)))
        return connection.template.frame(seq & M32, ack & M32 if flags & ACK else 0, payload, flags)

    return new


def icmp(rig: Rig, connection: Connection, rng: random.Random) -> Source:
    """Port unreachable and fragmentation needed with a segment of the connection that was never sent (RFC 5927)."""
    ethernet = rig.sim.mac.to_bytes(6, "big") + b"\x02\0\0\0\0\x01\x08\x00"
    ours, theirs = rig.sim.ip.to_bytes(4, "big"), (rig.sim.ip & ~0xFF | 1).to_bytes(4, "big")

    def packet(protocol: int, source: bytes, target: bytes, body: bytes) -> bytes:
        head = bytes([0x45, 0]) + (20 + len(body)).to_bytes(2, "big") + bytes([0, 0, 0x40, 0, 64, protocol])
        total = checksum(int.from_bytes(head + source + target, "big"))
        return head + total.to_bytes(2, "big") + source + target + body

    def new() -> bytes:
        quoted = PORT.to_bytes(2, "big") + connection.port.to_bytes(2, "big") + rng.randbytes(4)
        code, mtu = rng.choice(((3, 0), (4, 68)))
        body = bytes([3, code, 0, 0, 0, 0]) + mtu.to_bytes(2, "big") + packet(6, ours, theirs, quoted)
        body = body[:2] + checksum(int.from_bytes(body, "big")).to_bytes(2, "big") + body[4:]
        return (ethernet + packet(1, theirs, ours, body)).ljust(ETHERNET_MIN, b"\0")

    return new


def foreign(length: int) -> Source:
    """Frames of ``length`` bytes for another station: what an engine without flood sees of the same line. Longer ones leave room
    for more of the connection's data, and so for more of its ACKs."""
    frame = b"\x02\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x00".ljust(length, b"\0")
    return lambda: frame


def beside(rig: Rig, source: Source, frames: int) -> tuple[float, int]:
    """Send a flood of ``frames`` with SHARE of the line, the connection's data beside it. Returns the part of the goodput left
    that was reached, by when the engine had taken the last frame, and how many frames it sent."""
    connection = rig.connections[0]
    width = rig.harness.data_bytes
    rig.set_line(width)
    each = HEADERS + MSS + WIRE_OVERHEAD
    flood = len(source()) + WIRE_OVERHEAD
    # Every second segment is acknowledged at once.
    total = 2 * max(10, round(frames * flood * (1 - SHARE) / SHARE / each / 2))
    order = iter(_mixed(frames, total))
    before, sent, out, first, last = connection.sent, 0, 0, 0, 0

    def work() -> None:
        if connection.consumed != connection.sent:
            connection.consume()
        while rig.harness.rx_pending < _AHEAD:
            data = next(order, None)
            if data is None:
                return
            rig.harness.inject(connection.data(MSS) if data else source())

    def done(passed: list[Any]) -> bool:
        nonlocal sent, out, first, last
        for frame in passed:
            if frame.to_engine:
                sent += 1
                first, last = first or frame.first, frame.last
            else:
                out += 1
        return sent >= frames + total and connection.acked == connection.sent

    until(rig, done, work, lambda: sent + connection.acked)
    if connection.sent - before != total * MSS:
        raise Spoiled("not all data was sent")
    rig.step(2 * STEP)
    rig.drain()
    rig.set_line(0)
    return min(1.0, (total * each + frames * flood) / width / (last - first)), out


def _mixed(frames: int, total: int) -> Iterator[bool]:
    """Data evenly among the flood's frames: True."""
    sent = 0
    for number in range(frames):
        while sent < total * number / frames:
            sent += 1
            yield True
        yield False
    yield from (True for _ in range(total - sent))


BLIND = ("RST", "SYN", "future ACK", "old ACK", "data", "FIN")


def outcomes(rig: Rig, frames: int, report: Callable[[str], None], *, syns_only: bool = False) -> Iterator[Outcome]:
    """All floods against ``rig``, which has one connection."""
    rng = random.Random(1)
    connection = rig.connections[0]
    without: dict[int, int] = {}  # frames that the engine sends of itself, beside frames of so many bytes
    promises = min(rig.sim.toe.engine.ids.stocked, rig.config.syncache_entries)
    cookies = rig.sim.toe.engine.options.syn_cookies
    names: list[tuple[str, Source, str]] = [
        ("SYN, open port", strangers(rig, rng, PORT, SYN), "cookies" if cookies else "ids"),
        ("SYN, closed port", strangers(rig, rng, CLOSED, SYN), "resets"),
        ("SYN, closed port, options of Linux", strangers(rig, rng, CLOSED, SYN, LINUX_OPTIONS), "resets"),
    ]
    if not syns_only:
        names += [("ACK of nobody", strangers(rig, rng, PORT, ACK), "resets")]
        names += [(f"blind {kind}", blind(connection, rng, kind), "challenges") for kind in BLIND]
        names += [("blind ICMP", icmp(rig, connection, rng), "none")]
    for name, source, kind in names:
        report(f"flood: {name}")
        length = len(source())
        if length not in without:
            _, without[length] = beside(rig, foreign(length), frames)
        begin = rig.harness.cycle
        share, out = beside(rig, source, frames)
        ticks = (rig.harness.cycle - begin) // (rig.sim.tick_us * CYCLES_PER_US) + 1
        interval = rig.sim.read32(abi.REG_INVALID_LIMIT)
        bucket = rig.sim.read32(abi.REG_RST_LIMIT)
        allowed = {
            "cookies": -1, "none": 0, "resets": (bucket >> 16) + (bucket & 0xFFFF) * ticks,
            "challenges": ticks // interval + 2 if interval else -1,
            # An id is promised to one SYN at a time; each gets a SYN,ACK, and another one after a second.
            "ids": promises * (ticks // PROMISED_TICKS + 1) * (1 + (ticks >= SYN_ACK_TICKS)),
        }[kind]  # fmt: skip
        yield Outcome(
            name=name, frames=frames, share=share, replies=max(0, out - without[length] - SLACK), allowed=allowed
        )
