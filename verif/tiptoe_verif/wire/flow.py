"""What the wire shows of one connection of the engine: sequence numbers, windows, bytes (RFC 9293 section 3.3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from .ecn import Ecn
from .intervals import Intervals
from .numbers import signed
from .sack import Sack
from .segment import ACK, ECE, RST, SYN, Segment
from .timestamps import Timestamps

DEFAULT_MSS, DEFAULT_MSS_V6 = 536, 1220
"""RFC 9293 MUST-15: what a peer without the MSS option can take, over IPv4 and IPv6."""
MAX_SCALE = 14
"""RFC 7323 section 2.2."""


@dataclass(slots=True)
class Flow:
    """What the wire shows of one connection of the engine. Sequence numbers are unwrapped: they only grow."""

    iss: int
    snd_max: int
    our_mss: int
    our_ws: int | None
    our_syn_wnd: int
    started_ns: int
    irs: int | None = None
    peer_mss: int = DEFAULT_MSS
    peer_ws: int | None = None
    una: int = 0
    window_edge: int = 0
    acked: int | None = None
    overtaken: list[tuple[int, int]] = field(default_factory=list)
    """Acknowledgements of what was not on the wire yet, but may have been under way to it: (SEG.ACK, the window's edge)."""
    our_edge: int | None = None
    fin: int | None = None
    peer_fin: int | None = None
    reset: bool = False
    reset_by_peer: bool = False
    received: Intervals | None = None
    sack: Sack = field(default_factory=Sack)
    ecn: Ecn = field(default_factory=Ecn)
    timestamps: Timestamps = field(default_factory=Timestamps)
    sent_base: int = 0
    sent: bytearray = field(default_factory=bytearray)
    early: list[tuple[int, int, bool]] = field(default_factory=list)
    beyond: list[tuple[int, int, bool]] = field(default_factory=list)
    snd_up: int | None = None
    """Behind the last urgent byte, as far as our segments have told."""
    segments_sent: int = 0
    segments_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    retransmissions: int = 0
    ended_ns: int = 0
    resent: bool = False
    """Text or FIN was sent again, or a probe: a time-out may have ended it, and says nothing (RFC 9293 section 3.8.3)."""
    mixed: bool = False
    """The peer has returned our ISS with a TSecr that none of its SYN,ACKs said, but perhaps one of another SYN's: what was
    agreed is then what a SYN cookie's TSval says, whatever the SYN of this number had."""
    behind: list[Segment] = field(default_factory=list)
    """What the peer has sent lately, from the first segment on that :meth:`may_begin_anew`."""
    before: tuple[int, int] | None = None
    """Sequence and acknowledgement number of a TIME_WAIT of this four-tuple that may still be there: see :meth:`begun_anew`."""

    @property
    def both_fins(self) -> bool:
        """Whether it ended by both FINs, acknowledged."""
        return self.fin is not None and self.una > self.fin and self.peer_fin is not None

    @property
    def over(self) -> bool:
        """Whether it ended: by a reset, or by both FINs, acknowledged."""
        return self.reset or self.reset_by_peer or self.both_fins

    @property
    def unopened(self) -> bool:
        """Whether it may never have been open: all that we have sent is a SYN."""
        return self.snd_max == self.iss + 1

    @property
    def opened(self) -> bool:
        """Whether it was open: we have sent or acknowledged more than SYNs."""
        return not self.unopened or (self.irs is not None and self.acked is not None and self.acked > self.irs + 1)

    def may_begin_anew(self, segment: Segment) -> bool:
        """Whether the peer's ``segment`` begins it once more with both numbers of before, should it have ended, or end before
        the engine comes to it: the peer's SYN again, which gets the same SYN cookie within a period, or the ACK that returns the
        cookie (RFC 4987 section 3.6), with text or without. The first of them belong to the connection itself, whose SYN,ACK has
        come again when a cookie made it."""
        if self.irs is None or segment.flags & RST or not (self.over or self.retransmissions):
            return False
        if segment.flags & SYN:
            return not segment.flags & ACK and segment.seq == self.irs & 0xFFFFFFFF
        numbers = (self.irs + 1) & 0xFFFFFFFF, (self.iss + 1) & 0xFFFFFFFF
        return segment.flags & ACK > 0 and (segment.seq, segment.ack) == numbers

    def begun_anew(self, new: Flow) -> None:
        """``new`` follows this one. A SYN does not end TIME_WAIT before its connection is open: it may be an old duplicate."""
        if self.both_fins and not self.reset and self.acked is not None:
            new.before = self.snd_max & 0xFFFFFFFF, self.acked & 0xFFFFFFFF
        elif self.unopened:
            new.before = self.before

    def mix(self, segment: Segment) -> None:
        """The SYN,ACK once more, with the options that the peer has returned: it may be larger by any scale."""
        self.mixed = True
        self.our_ws = segment.ws
        self.peer_ws = MAX_SCALE if segment.ws is not None else None
        self.sack.peers |= segment.sack_ok
        self.ecn.peers |= bool(segment.flags & ECE)
        self.timestamps.begin_anew()

    def forget_bytes(self) -> None:
        """It is over: nothing that was sent can be needed again."""
        self.sent_base += len(self.sent)
        self.sent = bytearray()

    @property
    def scales(self) -> tuple[int, int]:
        """Shifts of the peer's window and of ours; both 0 unless both sides offered the option."""
        if self.peer_ws is None or self.our_ws is None:
            return 0, 0
        return self.peer_ws, self.our_ws


def syns_meant(flow: Flow, segment: Segment, syns: list[Segment]) -> list[Segment]:
    """Those of the peer's SYNs, in the order given, that ``segment``, the first to acknowledge one, may mean: likeliest first.

    A SYN with ACK is taken in SYN-SENT alone, and only if it acknowledges our SYN (RFC 9293 section 3.10.7.3); then the first
    of them is. One without is answered by a SYN,ACK as a rule (section 3.10.7.2; figure 8): an ACK means it if nothing else.
    SYNs of the four-tuple's former connections may lie nearer to what is acknowledged than the one taken with its text.
    """

    def text(syn: Segment) -> int:
        return (segment.ack - syn.seq - 1) & 0xFFFFFFFF

    def explains(syn: Segment) -> bool:
        """With it, all that is acknowledged was given, and the window's edge does not move to the left."""
        given = Intervals(0)
        for begin, end, fin in flow.early:
            at = signed(begin - syn.seq - 1)
            given.add(at, at + end - begin + fin)
        shift = flow.our_ws if flow.our_ws is not None and syn.ws is not None else 0
        return text(syn) <= given.complete and text(syn) + (segment.wnd << shift) >= flow.our_syn_wnd

    near = [syn for syn in syns if text(syn) < 1 << 24]
    answers = [syn for syn in near if syn.flags & ACK and syn.ack == (flow.iss + 1) & 0xFFFFFFFF]
    alone = sorted((syn for syn in near if not syn.flags & ACK), key=text)
    if segment.flags & SYN:
        return alone
    # Which of them the engine has seen is open: one is not meant if another makes a right segment of this.
    return sorted(answers + alone, key=lambda syn: not explains(syn))
