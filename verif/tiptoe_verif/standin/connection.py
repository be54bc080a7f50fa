"""One connection of the software stand-in (tcp.py): RFC 9293 section 3.10 in Python, over so_snd, so_rcv and t_state.

Plain on purpose. Out of order nothing is kept; every segment with data is acknowledged at once. What it sends, and when again:
sender.py.
"""

from __future__ import annotations

import errno
from typing import Protocol

from tiptoe_driver.hardware.alias import on_v6
from tiptoe_driver.hardware.positions import advance, distance, is_after
from tiptoe_driver.netinet.sockbuf import SBS_CANTRCVMORE, sbcommit, sbdrop
from tiptoe_driver.netinet.socketvar import sorwakeup, sowwakeup
from tiptoe_driver.netinet.software import tcp_ended, tcp_established, tcp_fin_acked, tcp_fin_received
from tiptoe_driver.netinet.structures import SS_NOFDREF, tcpcb
from tiptoe_driver.netinet.tcp_fsm import (
    TCPS_CLOSED,
    TCPS_ESTABLISHED,
    TCPS_FIN_WAIT_1,
    TCPS_FIN_WAIT_2,
    TCPS_SYN_RECEIVED,
    TCPS_SYN_SENT,
    TCPS_TIME_WAIT,
)
from tiptoe_driver.netinet.tcp_subr import tcp_drop
from tiptoe_driver.netinet.tcp_timer import tcp_progress

from ..wire.segment import ACK, FIN, RST, SYN, Segment
from .sender import Sender, SendingTcp

DEFAULT_MSS, DEFAULT_MSS_V6 = 536, 1220
"""What a peer takes that does not say (RFC 9293 MUST-15)."""
_RECEIVES = (TCPS_ESTABLISHED, TCPS_FIN_WAIT_1, TCPS_FIN_WAIT_2)


def ahead(a: int, b: int) -> int:
    """How far sequence number ``a`` is ahead of ``b``; negative when it is behind."""
    return distance(a, b) if is_after(a, b) else -distance(b, a)


class ConnectionTcp(SendingTcp, Protocol):
    """What a connection needs of the TCP it belongs to, beyond what its sender does."""

    msl_us: int
    fin_wait_2_us: int

    def reset(self, segment: Segment) -> None:
        """The RST that answers a segment (RFC 9293 section 3.10.7.1)."""

    def close(self, tp: tcpcb) -> None:
        """Forget a connection."""


class Connection(Sender):
    """A connection from its SYN (active), or from the last ACK of its handshake (passive), to its end.

    The sequence numbers are those of the tcpcb; unlike a device's, its ``snd_una`` and ``snd_max`` count our FIN.
    """

    _tcp: ConnectionTcp

    def __init__(self, tcp: ConnectionTcp, tp: tcpcb) -> None:
        super().__init__(tcp, tp)
        self._wl1 = self._wl2 = 0  # segment that told the window: its SEQ and ACK

    # ------------------------------------------------------------------ from the stack

    def open(self) -> None:
        """Active open: SYN. The tcpcb has its ``iss``. I is held."""
        tp = self.tp
        tp.snd_una = tp.snd_sml = tp.iss
        tp.snd_nxt = advance(tp.iss, 1)
        tp.snd_max = tp.snd_nxt
        self._synchronise()

    def accepted(self, irs: int, mss: int) -> None:
        """Passive open: the handshake is complete. The tcpcb has its ``iss`` and ``t_maxseg``. I is held."""
        tp = self.tp
        self._learn_peer(irs, mss)
        tp.snd_una = tp.snd_nxt = tp.snd_max = tp.snd_sml = advance(tp.iss, 1)
        tp.rcv_adv = advance(tp.rcv_nxt, tp.rcv_wnd)
        self._wl1, self._wl2 = irs, tp.iss
        tp.t_state = TCPS_ESTABLISHED

    def output(self) -> None:
        """tcp_output. I is held."""
        tp = self.tp
        if tp.t_state == TCPS_CLOSED:
            self._emit(RST | ACK, self._seq)
            self._tcp.close(tp)
        elif tp.t_state >= TCPS_ESTABLISHED:
            self._send(ack=tp.t_state in _RECEIVES and self._window_has_grown())
            self._closed_further()

    def end(self) -> None:
        """Nothing more is sent or taken."""
        self.over = True
        self._stop_timer()

    # ------------------------------------------------------------------ in

    def input(self, segment: Segment) -> None:
        """A segment for this connection came. P and I are held."""
        if self.tp.t_state == TCPS_SYN_SENT:
            self._syn_sent(segment)
        else:
            self._arrived(segment)

    def _syn_sent(self, segment: Segment) -> None:
        """RFC 9293 section 3.10.7.3."""
        tp, flags = self.tp, segment.flags
        if flags & ACK and segment.ack != tp.snd_max:
            self._tcp.reset(segment)
            return
        if flags & RST:
            if flags & ACK:
                tcp_drop(tp, errno.ECONNREFUSED)
            return
        if not flags & SYN:
            return
        self._learn_peer(segment.seq, segment.mss)
        tp.rcv_adv = advance(tp.rcv_nxt, tp.rcv_wnd)
        self._heard()
        if flags & ACK:
            self._established(segment)
            self._send(ack=True)
        else:
            tp.t_state = TCPS_SYN_RECEIVED
            self._synchronise()

    def _learn_peer(self, irs: int, mss: int) -> None:
        tp = self.tp
        tp.irs, tp.rcv_nxt = irs, advance(irs, 1)
        default = DEFAULT_MSS_V6 if on_v6(tp.t_inpcb.inp_faddr) else DEFAULT_MSS
        tp.t_maxseg = min(mss or default, tp.t_maxseg)

    def _established(self, segment: Segment) -> None:
        self._heard()
        self.tp.snd_una = segment.ack
        self.snd_wnd, self._wl1, self._wl2 = segment.wnd, segment.seq, segment.ack
        tcp_established(self.tp, self._socket())

    def _heard(self) -> None:
        """Something new of ours is acknowledged, or the handshake goes on."""
        self._backoff = self._silent = 0
        self._orphan_since = None
        self._stop_timer()

    def _arrived(self, segment: Segment) -> None:
        """RFC 9293 section 3.10.7.4, and RFC 5961 for RST and SYN."""
        tp, flags = self.tp, segment.flags
        start = ahead(segment.seq, tp.rcv_nxt)
        window = distance(tp.rcv_adv, tp.rcv_nxt)
        acceptable = 0 <= start < max(window, 1) or start < 0 < start + segment.length
        if flags & RST:
            if start == 0:
                refused = tp.t_state == TCPS_SYN_RECEIVED
                tcp_ended(tp, self._socket(), errno.ECONNREFUSED if refused else errno.ECONNRESET)
            elif acceptable:
                self._emit(ACK, self._seq)
            return
        if not acceptable or flags & SYN:
            if tp.t_state == TCPS_TIME_WAIT:
                self._time_wait()
            self._emit(ACK, self._seq)
            return
        if not flags & ACK:
            return
        self._silent = 0
        if self._acknowledged(segment) and not self.over:
            self._take(segment, start, window)

    def _acknowledged(self, segment: Segment) -> bool:
        """The ACK and the window of an acceptable segment; False when its text is not to be looked at."""
        tp, so = self.tp, self._socket()
        under_way = distance(tp.snd_max, tp.snd_una)
        news = ahead(segment.ack, tp.snd_una)
        if tp.t_state == TCPS_SYN_RECEIVED:
            if not 0 < news <= under_way:
                self._tcp.reset(segment)
                return False
            self._established(segment)
            return True
        if news > under_way:
            self._emit(ACK, self._seq)
            return False
        if news > 0:
            self._heard()
            fin = news > so.so_snd.sb_cc
            with so.lock:
                sbdrop(so.so_snd, news - fin)
            tp.snd_una = segment.ack
            tcp_progress(tp)
            if is_after(tp.snd_una, tp.snd_nxt):
                tp.snd_nxt = tp.snd_sml = tp.snd_una
            sowwakeup(so)
            if fin:
                tcp_fin_acked(tp, so)
                self._closed_further()
        if news >= 0 and (is_after(segment.seq, self._wl1)
                          or segment.seq == self._wl1 and not is_after(self._wl2, segment.ack)):  # fmt: skip
            if segment.wnd and not self.snd_wnd and tp.t_state < TCPS_FIN_WAIT_2:
                self._backoff = 0
                self._stop_timer()
                tp.snd_nxt = tp.snd_sml = tp.snd_una  # what a probe has told is not sure to have been kept
            self.snd_wnd, self._wl1, self._wl2 = segment.wnd, segment.seq, segment.ack
        elif news > 0:
            self.snd_wnd = max(0, self.snd_wnd - news)  # an old segment's: the window ends where it did
        return True

    def _take(self, segment: Segment, start: int, window: int) -> None:
        """The text and the FIN, as far as they continue what has come and fit the window; then what there is to say."""
        tp, so = self.tp, self._socket()
        size = len(segment.payload)
        if tp.t_state in _RECEIVES and start <= 0:
            data = segment.payload[-start : window - start]
            if data and so.so_state & SS_NOFDREF and tp.t_state != TCPS_ESTABLISHED:
                tcp_drop(tp, errno.ECONNABORTED)  # nobody will ever read it
                return
            if data and not so.so_rcv.sb_state & SBS_CANTRCVMORE and so.so_rcv.ring is not None:
                with so.lock:
                    so.so_rcv.ring.write(so.so_rcv.tail, data)
                    sbcommit(so.so_rcv, len(data))
                sorwakeup(so)
            tp.rcv_nxt = advance(tp.rcv_nxt, len(data))
            if segment.flags & FIN and start + size == len(data):  # it needs no room: a full window is no matter
                tp.rcv_nxt = advance(tp.rcv_nxt, 1)
                if is_after(tp.rcv_nxt, tp.rcv_adv):
                    tp.rcv_adv = tp.rcv_nxt
                tcp_fin_received(tp, so)
                self._closed_further()
        self._send(ack=segment.length > 0)

    def _closed_further(self) -> None:
        """Some states behind our FIN end by themselves: TIME_WAIT, and FIN_WAIT_2 when nobody reads."""
        if self.over:
            return
        if self.tp.t_state == TCPS_TIME_WAIT:
            self._time_wait()
        elif self.tp.t_state == TCPS_FIN_WAIT_2 and self._socket().so_rcv.sb_state & SBS_CANTRCVMORE:
            self._start_timer(self._tcp.fin_wait_2_us)

    def _time_wait(self) -> None:
        self._start_timer(2 * self._tcp.msl_us)
