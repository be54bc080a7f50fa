"""Socket buffers (FreeBSD's sockbuf): for an offloaded connection they are the engine's rings in host memory.

``head`` is the ring position of the first byte kept, ``sb_cc`` the number of bytes from there on. The user appends
to so_snd and the acknowledgements drop from it; the device appends to so_rcv and the reader drops from it.
"""

from __future__ import annotations

from ..hardware.memory import ByteRing
from ..hardware.positions import MASK, distance

SBS_CANTSENDMORE = 0x0010
SBS_CANTRCVMORE = 0x0020


class sockbuf:
    """A socket buffer.

    Attributes
    ----------
    sb_cc : int
        Bytes in the buffer.
    sb_hiwat : int
        Most bytes it may hold: the ring's size, or less (``sb_wanted``).
    sb_wanted : int
        What the user wants it to hold at most; 0: as much as there is.
    sb_lowat : int
        Bytes of data (receive) or room (send) that make the socket ready.
    sb_notsent_lowat : int
        With so many bytes that are not sent a send buffer is not writable (TCP_NOTSENT_LOWAT); 0: they do not matter.
    sent : int
        Position up to which a send buffer is known to be sent; may lie before ``head``.
    sb_state : int
        SBS_CANTSENDMORE, SBS_CANTRCVMORE.
    ring : ByteRing or None
        Where the bytes lie; None before the connection has its rings.
    head : int
        Position of the first byte kept.
    oobmark : int or None
        Position of the last urgent byte (so_oobmark), in the buffer or still to come; None: there is none from ``head`` on.
    """

    __slots__ = (
        "head", "oobmark", "ring", "sb_cc", "sb_hiwat", "sb_lowat", "sb_notsent_lowat", "sb_state", "sb_wanted", "sent",
    )  # fmt: skip

    def __init__(self, hiwat: int, lowat: int) -> None:
        self.sb_cc = 0
        self.sb_hiwat = hiwat
        self.sb_lowat = lowat
        self.sb_wanted = 0
        self.sb_notsent_lowat = 0
        self.sent = 0
        self.sb_state = 0
        self.ring: ByteRing | None = None
        self.head = 0
        self.oobmark: int | None = None

    @property
    def tail(self) -> int:
        """Position after the last byte kept."""
        return (self.head + self.sb_cc) & MASK


def sbattach(sb: sockbuf, ring: ByteRing) -> None:
    """Let an empty buffer live in ``ring`` from position 0 on."""
    if sb.sb_cc:
        raise ValueError(f"socket buffer holds {sb.sb_cc} bytes: it cannot change its ring")
    sb.ring = ring
    sb.sb_hiwat = min(sb.sb_wanted or ring.size, ring.size)
    sb.sb_lowat = min(sb.sb_lowat, sb.sb_hiwat)
    sb.head = 0


def sbreserve(sb: sockbuf, wanted: int) -> None:
    """The user wants the buffer to hold ``wanted`` bytes at most: so it does from now on, as far as there is memory. What it
    holds already it keeps."""
    sb.sb_wanted = wanted
    if sb.ring is not None:
        sb.sb_hiwat = min(wanted, sb.ring.size)
        sb.sb_lowat = min(sb.sb_lowat, sb.sb_hiwat)


def sbspace(sb: sockbuf) -> int:
    """Bytes that can be appended."""
    return 0 if sb.ring is None else max(0, sb.sb_hiwat - sb.sb_cc)


def sbnotsent(sb: sockbuf) -> int:
    """Bytes of a send buffer that are not sent, as far as is known."""
    return min(sb.sb_cc, (sb.tail - sb.sent) & MASK)


def sbwritable(sb: sockbuf) -> int:
    """Bytes that the user may append: none while too many are not sent."""
    lowat = sb.sb_notsent_lowat
    return 0 if lowat and sbnotsent(sb) >= lowat else sbspace(sb)


def sbappend(sb: sockbuf, data: memoryview) -> int:
    """Copy as much of ``data`` as there is room for to the end; returns how many bytes."""
    count = min(len(data), sbspace(sb))
    if count and sb.ring is not None:
        sb.ring.write(sb.tail, data[:count])
        sb.sb_cc += count
    return count


def sbcommit(sb: sockbuf, count: int) -> None:
    """``count`` more bytes have been written at the end: by the device, or in place by the user."""
    if not 0 <= count <= sbspace(sb):
        raise ValueError(f"{count} bytes beyond the end of a socket buffer with room for {sbspace(sb)}")
    sb.sb_cc += count


def sbdrop(sb: sockbuf, count: int) -> None:
    """Drop ``count`` bytes from the front."""
    if not 0 <= count <= sb.sb_cc:
        raise ValueError(f"drop of {count} bytes from a socket buffer of {sb.sb_cc}")
    if sb.oobmark is not None and distance(sb.oobmark, sb.head) < count:
        sb.oobmark = None
    sb.head = (sb.head + count) & MASK
    sb.sb_cc -= count


def sbflush(sb: sockbuf) -> None:
    """Drop everything."""
    sbdrop(sb, sb.sb_cc)


def sbdata(sb: sockbuf, limit: int) -> tuple[memoryview, ...]:
    """The first ``limit`` bytes that the buffer holds, where they lie: one view, two when it wraps, none of no bytes."""
    return () if sb.ring is None else _in_place(sb.ring, sb.head, limit)


def sbroom(sb: sockbuf) -> tuple[memoryview, ...]:
    """The room behind the end, where it lies."""
    return () if sb.ring is None else _in_place(sb.ring, sb.tail, sbspace(sb))


def _in_place(ring: ByteRing, position: int, length: int) -> tuple[memoryview, ...]:
    return tuple(piece for piece in ring.pieces(position, length) if len(piece))


def sbread(sb: sockbuf, limit: int, offset: int = 0) -> bytes:
    """A copy of up to ``limit`` bytes from ``offset`` behind the front on, without dropping."""
    return b"" if sb.ring is None else sb.ring.read(sb.head + offset, min(limit, sb.sb_cc - offset))


def sbcopy(sb: sockbuf, buffer: memoryview, offset: int = 0) -> int:
    """Fill ``buffer`` from ``offset`` behind the front on without dropping; returns how many bytes."""
    count = min(len(buffer), sb.sb_cc - offset)
    if count and sb.ring is not None:
        sb.ring.read_into(sb.head + offset, buffer[:count])
    return count
