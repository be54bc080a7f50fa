"""TIME_WAIT kept by the stack (FreeBSD's tcp_timewait.c; RFC 9293 sections 3.6.1 and 3.10.7.4; contract row TW-1).

A device that hands a connection over in TIME_WAIT is done with it. What is left is a ``tcptw``: the four-tuple stays taken for
2 MSL, and late segments of the peer are answered from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from ..hardware.positions import advance, distance, is_after
from .clock import Deadline
from .pcbinfo import FourTuple
from .structures import IPDEFTTL, inpcb, intotcpcb, vnet
from .tcp_segment import TH_ACK, TH_FIN, TH_RST, TH_SYN, Segment, tcp_packet
from .tcp_subr import release_socket, tcp_close


@dataclass(slots=True, eq=False)
class tcptw:
    """What is left of a connection in TIME_WAIT.

    Attributes
    ----------
    tw_inpcb : inpcb or None
        None: the socket was gone before TIME_WAIT began.
    four_tuple : tuple
        Local address and port, foreign address and port.
    snd_nxt, rcv_nxt, iss, irs : int
        Sequence numbers; both FINs are counted.
    last_win : int
        Window last advertised, as it stands in segments.
    t_recent : int
        Timestamp last received (RFC 7323); 0: none since TIME_WAIT is kept here.
    ts_clock : callable or None
        What our timestamp is at the moment; None: the connection has none.
    tw_ttl, tw_tos : int
        Of the IP header.
    tw_2msl_us : int
        2 MSL in microseconds.
    tw_timer : Deadline
        When they are over, by the stack's time.
    """

    tw_inpcb: inpcb | None
    four_tuple: FourTuple
    snd_nxt: int
    rcv_nxt: int
    iss: int
    irs: int
    last_win: int
    t_recent: int
    ts_clock: Callable[[], int] | None
    tw_ttl: int
    tw_tos: int
    tw_2msl_us: int
    tw_timer: Deadline

    def reopened_by(self, seq: int) -> bool:
        """Whether a SYN with this number may begin the connection anew (RFC 9293 section 3.6.1, MAY-2)."""
        return is_after(seq, self.rcv_nxt)

    def ack(self) -> bytes:
        """The ACK that the peer is waiting for (tcp_twrespond), as an IPv4 packet."""
        return tcp_packet(
            self.four_tuple, self.snd_nxt, self.rcv_nxt, TH_ACK, self.last_win, ttl=self.tw_ttl, tos=self.tw_tos,
            stamps=None if self.ts_clock is None else (self.ts_clock(), self.t_recent),
        )  # fmt: skip


class TwCheck(Enum):
    """What a segment means to a connection in TIME_WAIT."""

    IGNORE = 1
    ACK = 2
    NEW = 3  # a SYN that is not of this connection: whoever listens may have it


class TimeWait:
    """The connections in TIME_WAIT that no device has any more."""

    LIMIT = 16384
    """Entries; the oldest one makes room (FreeBSD's net.inet.tcp.maxtcptw)."""

    def __init__(self, stack: vnet) -> None:
        self._stack = stack
        self._entries: dict[FourTuple, tcptw] = {}  # the one that ends first comes first, if 2 MSL is the same for all

    def __len__(self) -> int:
        """Entries."""
        return len(self._entries)

    def find(self, four_tuple: FourTuple) -> tcptw | None:
        """The entry of a four-tuple."""
        return self._entries.get(four_tuple)

    def make_room(self) -> None:
        """End the oldest entry when there are too many. No lock is held."""
        if len(self._entries) >= self.LIMIT:
            self.close(next(iter(self._entries.values())))

    def start(
        self,
        inp: inpcb | None,
        four_tuple: FourTuple,
        tcb: Mapping[str, int],
        time_wait_us: int,
        ts_clock: Callable[[], int] | None = None,
    ) -> tcptw:
        """Keep TIME_WAIT of a connection for ``time_wait_us``, 2 MSL (the second half of tcp_twstart).

        ``tcb`` is the device's: snd_nxt, rcv_nxt, iss, irs, rcv_adv, rcv_scale, and ts_recent where it has one. A socket that
        the user has closed is freed here. P is held, and I of ``inp``, if there is one.
        """
        ahead = distance(tcb["rcv_adv"], tcb["rcv_nxt"]) if is_after(tcb["rcv_adv"], tcb["rcv_nxt"]) else 0
        tw = tcptw(
            inp,
            four_tuple,
            snd_nxt=tcb["snd_nxt"],
            rcv_nxt=tcb["rcv_nxt"],
            iss=tcb["iss"],
            irs=tcb["irs"],
            last_win=min(ahead >> tcb["rcv_scale"], 0xFFFF),
            t_recent=tcb.get("ts_recent", 0),
            ts_clock=ts_clock,
            tw_2msl_us=time_wait_us,
            tw_timer=Deadline(self._stack, lambda: self.close(tw)),
            tw_ttl=IPDEFTTL if inp is None else inp.inp_ip_ttl,
            tw_tos=0 if inp is None else inp.inp_ip_tos,
        )
        self._entries[four_tuple] = tw
        self._restart(tw)
        if inp is not None:
            inp.inp_tw = tw
            release_socket(inp)
        return tw

    def check(self, tw: tcptw, segment: Segment) -> TwCheck:
        """A segment has come (tcp_twcheck). The peer's FIN again begins 2 MSL anew; RST does not end them (RFC 1337)."""
        flags = segment.flags
        if flags & TH_RST:
            return TwCheck.IGNORE
        if tw.ts_clock is not None and segment.tsval is not None:
            tw.t_recent = segment.tsval  # what answers it echoes it
        if flags & TH_SYN and not flags & TH_ACK and tw.reopened_by(segment.seq):
            return TwCheck.NEW
        if flags & TH_FIN and advance(segment.seq, segment.occupies) == tw.rcv_nxt:
            self._restart(tw)
        nothing_new = not segment.occupies and segment.seq == tw.rcv_nxt and segment.ack == tw.snd_nxt
        return TwCheck.IGNORE if nothing_new else TwCheck.ACK

    def close(self, tw: tcptw) -> None:
        """TIME_WAIT is over (tcp_twclose). Takes P and I."""
        if self._entries.get(tw.four_tuple) is not tw:
            return
        del self._entries[tw.four_tuple]
        tw.tw_timer.cancel()
        inp = tw.tw_inpcb
        if inp is None:
            return
        with self._stack.tcbinfo.lock, inp.lock:
            inp.inp_tw = None
            tcp_close(intotcpcb(inp))

    def forget_address(self, laddr: int) -> None:
        """An interface goes away with its address: nobody can be answered from there."""
        for tw in [tw for tw in self._entries.values() if tw.four_tuple[0] == laddr]:
            self.close(tw)

    def _restart(self, tw: tcptw) -> None:
        tw.tw_timer.set(tw.tw_2msl_us)
        self._entries[tw.four_tuple] = self._entries.pop(tw.four_tuple)  # behind those that end earlier
