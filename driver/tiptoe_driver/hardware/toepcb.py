"""The driver's side of one connection id (the toepcb of Chelsio's and FreeBSD's drivers)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from .alias import LADDR_V6, on_v6
from .memory import RingPair

# flags
TP_ATTACHED = 0x01  # a tcpcb refers to it
TP_EVENTS_PENDING = 0x02  # the device may still send events: from OPEN or accept until the terminal event
TP_SEND_FIN = 0x04  # the user has closed the send side
TP_FIN_SENT = 0x08  # CLOSE was posted
TP_ABORT_SENT = 0x10  # ABORT was posted
TP_ESTABLISHED = 0x20  # the device said so
TP_PEER_CLOSED = 0x40  # the peer's FIN has arrived, and all data before it
TP_STOCK = 0x80  # in stock for passive opens
TP_FIN_WAIT_2 = 0x4000  # its time in FIN_WAIT_2 is limited
TP_RELEASING = 0x100  # RELEASE was posted
TP_RESOLVING = 0x200  # OPEN waits for the next hop's MAC address
TP_READY = 0x400  # provisioned for an active open
TP_TERMINAL = 0x800  # the terminal event has come, or OPEN failed: nothing is written for it any more
TP_BAD_DOORBELL = 0x1000  # the engine has complained of a doorbell
TP_PUSH = 0x2000  # data that a cork holds goes now
TP_TIME_WAIT = 0x8000  # its TIME_WAIT is for the stack to keep

IP_HEADER = (0, 64)
"""Type of service and time to live that an id begins with."""


class Cancellable(Protocol):
    """Something that will happen, and need not."""

    def cancel(self) -> None:
        """It is no longer wanted."""


class Movable(Cancellable, Protocol):
    """Something that will happen at a time that moves."""

    @property
    def running(self) -> bool:
        """It will happen."""

    def set(self, delay_us: int) -> None:
        """It will happen so far from now instead."""


@dataclass(slots=True, eq=False)
class toepcb:
    """The driver's side of one connection id, from PROVISION to the end of RELEASE.

    Attributes
    ----------
    tep_id, generation : int
        Connection id, and the generation that tells its uses apart.
    flags : int
        TP_*; the id is released when ATTACHED and EVENTS_PENDING are both clear.
    rings : RingPair
        The rings the engine was given.
    tp : tcpcb or None
        The stack's side of the connection, of which this wing knows no more than that.
    four_tuple : tuple
        Local address and port, foreign address and port; RELEASE names it.
    snd_told : int
        Send position last handed to the device, by doorbell or CLOSE.
    snd_una : int
        Send position acknowledged by the peer.
    rcv_position : int
        Receive position up to which data has arrived; the peer's FIN is not counted.
    rcv_credited : int
        Receive position last handed back to the device: consumed up to here.
    alias : int
        Over IPv6: what stands for the peer's address on the engine.
    maxseg : int
        Segment size in bytes of payload that the device was told, or told itself.
    credits : int
        Bytes of receive window returned to the device since the connection began (it does not wrap).
    refcount : int
        References held: by the tcpcb and by what is pending on the device.
    ip_header : tuple
        Type of service and time to live that the engine gives its segments.
    unanswered : int
        Commands that data waits for: the send doorbell is not rung before the engine has carried them out.
    next_hop : int
        IPv4 address of the neighbour that an active open sends to; 0: it is not known.
    urgent_told : int or None
        Send position behind the urgent data that the device was told of last.
    rcv_up : int or None
        The device's RCV.UP, a sequence number, as it told it last.
    asks_sent : bool
        The engine has been asked how far it has sent.
    cork : Cancellable or None
        Ends the wait of data that the user's cork holds.
    fin_wait_2 : Cancellable or None
        Ends a connection that nobody reads and whose peer does not close.
    orphan : Movable or None
        Ends a connection that the user has closed and whose peer does not acknowledge all that was written.
    orphan_bytes : int
        While ``orphan``: how much was not acknowledged when its time began.
    """

    tep_id: int
    generation: int
    rings: RingPair
    flags: int = 0
    refcount: int = 0
    tp: Any = None
    four_tuple: tuple[int, int, int, int] = (0, 0, 0, 0)
    alias: int = 0
    snd_told: int = 0
    snd_una: int = 0
    rcv_position: int = 0
    rcv_credited: int = 0
    maxseg: int = 0
    credits: int = 0
    ip_header: tuple[int, int] = IP_HEADER
    unanswered: int = 0
    next_hop: int = 0
    urgent_told: int | None = None
    rcv_up: int | None = None
    asks_sent: bool = False
    cork: Cancellable | None = None
    fin_wait_2: Cancellable | None = None
    orphan: Movable | None = None
    orphan_bytes: int = 0

    @property
    def waits(self) -> bool:
        """Whether the engine waits for an acknowledgement: of our SYN, or of data."""
        return not self.flags & TP_ESTABLISHED or self.snd_told != self.snd_una

    @property
    def tid(self) -> int:
        """Id and generation as commands and events carry them."""
        return self.tep_id | self.generation << 16

    @property
    def wire_addresses(self) -> tuple[int, int]:
        """laddr and faddr as the engine's tables have them."""
        laddr, _, faddr, _ = self.four_tuple
        return (LADDR_V6, self.alias) if on_v6(laddr) else (laddr, faddr)
