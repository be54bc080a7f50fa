"""TCP segments that the engine knows no connection for and leaves to the host (RFC 9293 section 3.10.7.1; TW-1).

Those of connections in TIME_WAIT are answered for the stack, the others with RST when no other stack wants them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..hardware.positions import advance
from .if_var import ifnet
from .pcbinfo import FourTuple
from .stack import Stack
from .tcp_segment import TH_ACK, TH_RST, Segment, parse_segment, tcp_packet
from .tcp_timewait import TwCheck


class TcpInput:
    """Segments for one interface.

    Parameters
    ----------
    transmit : callable
        Sends an IPv4 packet to a MAC address.
    on_device : callable
        Whether the device has a connection of this four-tuple by now: then a segment is older than that.
    resets : callable
        Whether RST is the host's business: the engine answers no unknown segments.

    Counters
    --------
    frames_bad_tcp
        Wrong checksums.
    time_wait_segments
        Of connections in TIME_WAIT, whether they were answered or not.
    unknown_segments
        Of no connection, whether they were answered or not.
    late_segments
        Older than the connection that the device has.
    """

    def __init__(
        self,
        stack: Stack,
        ifp: ifnet,
        counters: Counter[str],
        transmit: Callable[[int, bytes], object],
        on_device: Callable[[FourTuple], bool],
        *,
        resets: Callable[[], bool],
    ) -> None:
        self._stack = stack
        self._ifp = ifp
        self._counters = counters
        self._transmit = transmit
        self._on_device = on_device
        self._resets = resets

    def parse(self, frame: memoryview, *, owned: bool) -> Segment | None:
        """The segment of an IPv4 frame, if it can concern us; ``owned``: another stack deals with all but TIME_WAIT."""
        return parse_segment(frame, self._ifp) if self._resets() and not (owned and not self._stack.time_wait) else None

    def in_time_wait(self, segment: Segment) -> bool:
        """Deal with a segment of a connection in TIME_WAIT; False when there is none, or another one is to begin."""
        tw = self._stack.time_wait.find(segment.four_tuple)
        if tw is None:
            return False
        if not segment.sound():
            self._counters["frames_bad_tcp"] += 1
            return True
        what = self._stack.time_wait.check(tw, segment)
        if what is TwCheck.NEW:
            return False
        self._counters["time_wait_segments"] += 1
        if what is TwCheck.ACK:
            self._transmit(segment.smac, tw.ack())
        return True

    def taken(self, segment: Segment) -> None:
        """Another stack has taken the segment: the four-tuple is that one's from now on."""
        tw = self._stack.time_wait.find(segment.four_tuple)
        if tw is not None:
            self._stack.time_wait.close(tw)

    def unknown(self, segment: Segment) -> None:
        """Answer a segment that nobody wants, unless it is a RST itself."""
        if not segment.sound():
            self._counters["frames_bad_tcp"] += 1
        elif self._on_device(segment.four_tuple):
            self._counters["late_segments"] += 1
        else:
            self._counters["unknown_segments"] += 1
            if segment.flags & TH_RST:
                return
            if segment.flags & TH_ACK:
                reset = tcp_packet(segment.four_tuple, segment.ack, 0, TH_RST)
            else:
                reset = tcp_packet(segment.four_tuple, 0, advance(segment.seq, segment.occupies), TH_RST | TH_ACK)
            self._transmit(segment.smac, reset)
