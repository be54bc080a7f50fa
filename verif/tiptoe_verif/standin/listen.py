"""Passive opens of the software stand-in (tcp.py): from the SYN for a listening socket to the accept queue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tiptoe_driver.hardware.positions import advance
from tiptoe_driver.netinet.clock import Callout
from tiptoe_driver.netinet.in_pcb import in_pcbaccept
from tiptoe_driver.netinet.socketvar import soisconnected
from tiptoe_driver.netinet.software import sballoc
from tiptoe_driver.netinet.structures import inpcb, intotcpcb, sotoinpcb, tcpcb
from tiptoe_driver.netinet.syncache import inherit
from tiptoe_driver.netinet.uipc_socket import sonewconn

from ..wire.segment import ACK, RST, SYN, Segment
from .connection import Connection, ConnectionTcp, ahead
from .sender import RETRANSMISSIONS

FourTuple = tuple[int, int, int, int]
"""Local address and port, foreign address and port."""
HALF_OPEN_LIMIT = 256
"""Handshakes of peers that may be under way; SYNs beyond are dropped."""


@dataclass(slots=True, eq=False)
class HalfOpen:
    """A SYN for a listening socket that is answered: a connection in SYN_RECEIVED, without a socket yet."""

    syn: Segment
    iss: int
    wnd: int
    tries: int = 0
    timer: Callout | None = None


class ListeningTcp(ConnectionTcp, Protocol):
    """What passive opens need of the TCP they belong to, beyond what its connections do."""

    def listener(self, segment: Segment) -> inpcb | None:
        """The socket that listens at the segment's destination."""

    def isn(self, four_tuple: FourTuple) -> int:
        """The initial sequence number of a connection (RFC 6528)."""

    def begin(self, tp: tcpcb) -> Connection:
        """Carry a connection from now on."""


class PassiveOpens:
    """Connections that peers begin."""

    def __init__(self, tcp: ListeningTcp) -> None:
        self._tcp = tcp
        self.half_open: dict[FourTuple, HalfOpen] = {}

    def input(self, four_tuple: FourTuple, segment: Segment) -> None:
        """A segment of no connection: LISTEN, SYN_RECEIVED or CLOSED. P is held."""
        half, listener = self.half_open.get(four_tuple), self._tcp.listener(segment)
        if half is not None and (listener is None or segment.flags & RST):
            if listener is None or segment.seq == advance(half.syn.seq, 1):
                self._forget(four_tuple)
            half = None
        flags = segment.flags & (SYN | RST | ACK)
        if flags & RST:
            return
        if listener is None or flags & ACK and half is None:
            self._tcp.counters["segments_unknown"] += 1
            self._tcp.reset(segment)
        elif flags == SYN:
            self._syn(four_tuple, segment, half, listener)
        elif half is not None and flags == ACK:
            self._last_ack(four_tuple, segment, half, listener)

    def _syn(self, four_tuple: FourTuple, segment: Segment, half: HalfOpen | None, listener: inpcb) -> None:
        if half is not None and half.syn.seq != segment.seq:
            self._forget(four_tuple)  # the peer begins anew
            half = None
        if half is None:
            if not _has_room(listener) or len(self.half_open) >= HALF_OPEN_LIMIT:
                self._tcp.counters["syns_dropped"] += 1
                return
            wnd = min(self._tcp.stack.recvspace, 0xFFFF)
            half = self.half_open[four_tuple] = HalfOpen(segment, self._tcp.isn(four_tuple), wnd)
            self._synchronise(four_tuple, half)
        else:
            self._tcp.transmit(self._syn_ack(half))

    def _syn_ack(self, half: HalfOpen) -> Segment:
        listener = self._tcp.listener(half.syn)
        mss = self._tcp.own_mss(intotcpcb(listener), half.syn.src) if listener is not None else 0
        return answer(half.syn, half.iss, advance(half.syn.seq, 1), SYN | ACK, half.wnd, mss)

    def _synchronise(self, four_tuple: FourTuple, half: HalfOpen) -> None:
        """SYN,ACK, until it is answered."""
        if half.tries > RETRANSMISSIONS or self._tcp.listener(half.syn) is None:
            self._forget(four_tuple)
            return
        self._tcp.transmit(self._syn_ack(half))
        half.timer = self._tcp.stack.callout(
            self._tcp.rto_us << half.tries, partial(self._synchronise, four_tuple, half)
        )
        half.tries += 1

    def _forget(self, four_tuple: FourTuple) -> None:
        half = self.half_open.pop(four_tuple)
        if half.timer is not None:
            half.timer.cancel()

    def _last_ack(self, four_tuple: FourTuple, segment: Segment, half: HalfOpen, head: inpcb) -> None:
        """An ACK in SYN_RECEIVED: of our SYN, or wrong."""
        if segment.ack != advance(half.iss, 1):
            self._tcp.reset(segment)
            return
        if not 0 <= ahead(segment.seq, advance(half.syn.seq, 1)) <= half.wnd:
            self._tcp.transmit(answer(segment, segment.ack, advance(half.syn.seq, 1), ACK, half.wnd))
            return
        assert head.inp_socket is not None
        so = sonewconn(head.inp_socket, self._tcp.stack)
        if so is None:
            self._tcp.counters["syns_dropped"] += 1  # the SYN,ACK is sent again, and the peer will answer again
            return
        self._forget(four_tuple)
        inp = sotoinpcb(so)
        tp = intotcpcb(inp)
        with inp.lock:
            in_pcbaccept(inp, four_tuple)
            inherit(intotcpcb(head), tp)
            sballoc(so, self._tcp.stack)
            tp.iss, tp.rcv_wnd = half.iss, half.wnd
            tp.t_maxseg = self._tcp.own_mss(intotcpcb(head), segment.src)
            self._tcp.counters["accepted"] += 1
            connection = self._tcp.begin(tp)
            connection.accepted(half.syn.seq, half.syn.mss)
        soisconnected(so)
        with inp.lock:
            connection.input(segment)


def _has_room(listener: inpcb) -> bool:
    """Whether the accept queue takes another connection (see sonewconn)."""
    so = listener.inp_socket
    return so is not None and len(so.so_comp) <= 3 * so.so_qlimit // 2


def answer(segment: Segment, seq: int, ack: int, flags: int, wnd: int = 0, mss: int = 0) -> Segment:
    """A segment without text, back to where ``segment`` came from."""
    return Segment(segment.dst, segment.src, segment.dport, segment.sport, seq, ack, flags, wnd, mss, None, b"")
