"""What the listen unit can be doing, and the constants of its timer."""

from amaranth.hdl import unsigned
from amaranth.lib import enum

SYN_ACK_TICKS = 1000
"""Ticks until the SYN,ACK is first repeated; then the time doubles (RFC 6298 section 2.1 and 5.5)."""
BACKOFF_LIMIT = 6
"""Doublings at most."""
PRESSED_RETRIES = 1
"""SYN,ACKs after the first one while SYNs find no room: three seconds, in which one of each may get lost."""
CROWDED_TICKS = 256
"""So long a peer may take for its ACK before it has to make room for one that returned a SYN cookie."""
DEFAULT_MSS = 536
"""A peer's MSS if it gave none (RFC 9293 section 3.7.1)."""


class Job(enum.Enum, shape=unsigned(3)):
    """What the unit is doing, always for one entry."""

    SYN = 0
    SEGMENT = 1
    REPORT = 2  # an event goes to its output register
    LEFT = 3  # the host's side took it
    DROP = 4  # SYNCACHE_DROP
    KILL = 5  # UNLISTEN
    TIMER = 6
