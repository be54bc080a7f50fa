"""What a fuzz run is made of: steps that are relative to the state in which they find a connection, so that a sequence with
some of them left out still means something.

Values lie where TCP's comparisons turn over (RFC 9293 section 3.10.7.4): around SND.UNA, SND.NXT, RCV.NXT, the window's edge,
half the number space away; lengths around 0, one segment and the ring; options that are strange, doubled, cut off.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..wire.segment import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG

SLOTS = 10
"""Four-tuples: the even ones are opened by the peer, the odd ones by the host."""
GENTLE = range(4, 8)
"""Slots whose peers send nothing that ends a connection at once, so that windows close and states follow one another."""
OVER_V6 = range(2, 6)
"""Slots whose connections are of IPv6, if the engine has it: of each way of opening, gentle and not."""

SEQ_BASES = ("nxt", "una", "edge", "iss")
"""Of the peer's own numbers: what it sends next, what the engine has acknowledged, where the engine's window ends, the SYN."""
ACK_BASES = ("nxt", "una", "iss")
"""Of the engine's numbers: behind all that came in order, what was acknowledged last, its SYN."""
_NEAR = (-1460, -2, -1, 0, 0, 0, 0, 1, 2, 100, 536, 1460)
_FAR = (
    -(1 << 31),
    1 - (1 << 31),
    -(1 << 30),
    -(1 << 17),
    -70_000,
    -4096,
    4096,
    65_535,
    65_536,
    1 << 24,
    1 << 30,
    (1 << 31) - 1,
)
_WINDOWS = (0, 0, 1, 2, 100, 535, 536, 1460, 4096, 8192, 65_535)
_LENGTHS = (0, 0, 0, 1, 1, 2, 100, 535, 536, 1000, 1460)
_FLAGS = (
    ACK,
    ACK,
    ACK,
    ACK | PSH,
    ACK | FIN,
    FIN,
    SYN,
    SYN | ACK,
    RST,
    RST | ACK,
    0,
    SYN | FIN,
    SYN | RST,
    ACK | URG,
    0x3F,
)
_MSS = (0, 1, 63, 64, 536, 1460, 9000, 65_535)
DAMAGE = (
    "tcp checksum",
    "ip checksum",
    "cut",
    "ttl 0",
    "fragment",
    "reserved",
    "data offset",
    "version",
    "type",
    "mac error",
)
SOURCES = ("own", "broadcast", "multicast", "loopback", "stranger")
HOST = (
    "open",
    "send",
    "send",
    "send",
    "receive",
    "receive",
    "receive",
    "shutdown",
    "close",
    "abort",
    "options",
    "keepalive",
)


@dataclass(frozen=True, slots=True)
class Frame:
    """A segment of the peer's. ``seq``, ``ack``: base and offset; ``damage``, ``source``: "" or one of DAMAGE, SOURCES; ``sack``:
    blocks, true or not, each a base and offset of ACK_BASES and a length; ``ecn``: codepoint of the IP header; ``stamp``: how
    far TSval is from the peer's clock, and TSecr from the engine's last.
    """

    slot: int
    flags: int
    seq: tuple[str, int]
    ack: tuple[str, int]
    wnd: int
    length: int
    options: bytes = b""
    urgent: int = 0
    damage: str = ""
    source: str = ""
    sack: tuple[tuple[str, int, int], ...] = ()
    ecn: int = 0
    stamp: tuple[int, int] | None = None

    def __str__(self) -> str:
        letters = "".join(letter for bit, letter in enumerate("FSRPAUEC") if self.flags >> bit & 1)
        more = f" options {self.options.hex()}" if self.options else ""
        more += "".join(f" sack {base}{offset:+} of {length}" for base, offset, length in self.sack)
        more += f" stamps {self.stamp[0]:+} {self.stamp[1]:+}" if self.stamp else ""
        more += f" urgent {self.urgent}" if self.urgent else ""
        more += ("", " ECT(1)", " ECT(0)", " CE")[self.ecn]
        more += f" {self.damage} wrong" if self.damage else ""
        more += f" from {self.source}" if self.source else ""
        return (
            f"{self.slot}: [{letters}] seq {self.seq[0]}{self.seq[1]:+} ack {self.ack[0]}{self.ack[1]:+} wnd {self.wnd} "
            f"length {self.length}{more}"
        )


@dataclass(frozen=True, slots=True)
class Polite:
    """What a peer of good manners would do next; ``amount`` chooses where there is a choice, and how much data."""

    slot: int
    amount: int

    def __str__(self) -> str:
        return f"{self.slot}: polite ({self.amount})"


@dataclass(frozen=True, slots=True)
class Act:
    """The host does something with the slot's connection."""

    slot: int
    what: str
    amount: int

    def __str__(self) -> str:
        return f"{self.slot}: host {self.what} ({self.amount})"


@dataclass(frozen=True, slots=True)
class Wait:
    """Time passes."""

    cycles: int

    def __str__(self) -> str:
        return f"wait {self.cycles} cycles"


@dataclass(frozen=True, slots=True)
class Weather:
    """Memory's latency in cycles, and the parts of the time in which memory and line stand still."""

    latency: int
    memory: float
    line: float

    def __str__(self) -> str:
        return f"memory latency {self.latency} stall {self.memory}, line stall {self.line}"


@dataclass(frozen=True, slots=True)
class Flood:
    """SYNs of ``count`` peers that nobody hears of again, to a listener."""

    count: int
    listener: int

    def __str__(self) -> str:
        return f"{self.count} SYNs from nowhere to listener {self.listener}"


Step = Frame | Polite | Act | Wait | Weather | Flood


def choose(rng: random.Random) -> Step:
    """The next step."""
    chance = rng.random()
    if chance < 0.003:
        return Weather(rng.choice((1, 20, 20, 300)), rng.choice((0.0, 0.0, 0.3)), rng.choice((0.0, 0.0, 0.5)))
    if chance < 0.006:
        return Flood(rng.choice((2, 8, 30)), rng.randrange(2))
    slot = rng.randrange(SLOTS)
    if chance < 0.07:
        return Wait(rng.choice((100, 1000, 5000)))
    if chance < 0.2:
        return Act(slot, rng.choice(HOST), rng.randrange(1 << 16))
    if chance < 0.55:
        return Polite(slot, rng.randrange(1 << 16))
    return _frame(rng, slot)


def _offset(rng: random.Random) -> int:
    chance = rng.random()
    if chance < 0.75:
        return rng.choice(_NEAR)
    return rng.choice(_FAR) if chance < 0.95 else rng.randrange(-(1 << 31), 1 << 31)


def _options(rng: random.Random, flags: int) -> bytes:
    parts = []
    if flags & SYN and rng.random() < 0.8:
        parts.append(b"\x02\x04" + rng.choice(_MSS).to_bytes(2, "big"))
    if flags & SYN and rng.random() < 0.5:
        parts.append(b"\x01\x03\x03" + bytes((rng.choice((0, 1, 2, 7, 14, 15, 255)),)))
    if flags & SYN and rng.random() < 0.5:
        parts.append(b"\x04\x02")
    while rng.random() < 0.1:
        parts.append(
            rng.choice((b"\0", b"\1", b"\x04\x02", b"\x08\x0a" + bytes(8), b"\x02\x03\x05", b"\x03\x01", b"\x02\x00", b"\xfe\xff",
                        b"\x05\x0a" + rng.randbytes(8), b"\x13\x12" + bytes(16)))
        )  # fmt: skip
    return b"".join(parts)[:40]


def _sack(rng: random.Random) -> tuple[tuple[str, int, int], ...]:
    """Of what the engine has under way or never sent; empty ones, backward ones, some that overlap."""
    if rng.random() < 0.7:
        return ()
    return tuple(
        (rng.choice(ACK_BASES), _offset(rng), rng.choice((*_LENGTHS, -1, 1 << 31))) for _ in range(rng.randint(1, 4))
    )


def _stamp(rng: random.Random) -> tuple[int, int] | None:
    """Right, old, far ahead, echoes of nothing; or none."""
    if rng.random() < 0.3:
        return None
    return rng.choice((0, 0, 0, 1, -1, -1000, 1 << 30, 1 << 31, _offset(rng))), rng.choice((0, 0, -1, 1, _offset(rng)))


def _frame(rng: random.Random, slot: int) -> Frame:
    if slot in GENTLE:
        flags = rng.choice((ACK, ACK, ACK, ACK, ACK | PSH, ACK | FIN, 0))
        seq = rng.choice(("nxt", "nxt", "una", "edge")), rng.choice(_NEAR)
        ack = rng.choice(("nxt", "nxt", "una", "nxt")), min(rng.choice(_NEAR), 0)  # nothing that was not sent
        return Frame(slot, flags, seq, ack, rng.choice(_WINDOWS), rng.choice(_LENGTHS))
    flags = rng.choice(_FLAGS) if rng.random() < 0.97 else rng.randrange(256)
    flags |= rng.choice((0, 0, 0, 0, ECE, CWR, ECE | CWR))
    return Frame(
        slot, flags,
        (rng.choice(SEQ_BASES) if rng.random() < 0.6 else "nxt", _offset(rng)),
        (rng.choice(ACK_BASES) if rng.random() < 0.5 else "nxt", _offset(rng)),
        rng.choice(_WINDOWS), rng.choice(_LENGTHS), _options(rng, flags),
        rng.choice((0, 1, 65_535)) if flags & URG else 0,
        rng.choice(DAMAGE) if rng.random() < 0.03 else "",
        rng.choice(SOURCES) if rng.random() < 0.01 else "",
        _sack(rng),
        rng.choice((0, 0, 1, 2, 2, 3)),
        _stamp(rng),
    )  # fmt: skip
