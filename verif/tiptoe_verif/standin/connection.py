"""One connection of the software stand-in (software_tcp.py): RFC 9293 section 3.10 in Python, over so_snd, so_rcv and t_state.

Plain on purpose. Sent again is everything from the oldest unacknowledged byte on, after a time that only doubles; out of order
nothing is kept; every segment with data is acknowledged at once; at most ``WINDOW`` segments are under way.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from tiptoe_driver.hardware.positions import advance, distance, is_after
from tiptoe_driver.netinet.clock import Callout
from tiptoe_driver.netinet.sockbuf import SBS_CANTRCVMORE, sbcommit, sbdrop, sbspace
from tiptoe_driver.netinet.socketvar import sorwakeup, sowwakeup
from tiptoe_driver.netinet.software import tcp_ended, tcp_established, tcp_fin_acked, tcp_fin_received
from tiptoe_driver.netinet.structures import SS_NOFDREF, socket, tcpcb
from tiptoe_driver.netinet.tcp_fsm import (
    TCPS_CLOSED,
    TCPS_CLOSING,
    TCPS_ESTABLISHED,
    TCPS_FIN_WAIT_1,
    TCPS_FIN_WAIT_2,
    TCPS_LAST_ACK,
    TCPS_SYN_RECEIVED,
    TCPS_SYN_SENT,
    TCPS_TIME_WAIT,
)
from tiptoe_driver.netinet.tcp_subr import tcp_close, tcp_drop

from ..wire.segment import ACK, FIN, PSH, RST, SYN, Segment

if TYPE_CHECKING:
    from .tcp import StandInTcp

WINDOW = 4
"""Most segments under way: in place of congestion control."""
RETRANSMISSIONS = 9
"""Time-outs without a word from the peer after which the connection ends. From 200 ms, doubled each time, that is after
204 s (RFC 9293 MUST-23: at least 180 s for a SYN)."""
DEFAULT_MSS = 536
"""What a peer takes that does not say (RFC 9293 MUST-15)."""
_SENDS_FIN = (TCPS_FIN_WAIT_1, TCPS_CLOSING, TCPS_LAST_ACK)
_RECEIVES = (TCPS_ESTABLISHED, TCPS_FIN_WAIT_1, TCPS_FIN_WAIT_2)


def ahead(a: int, b: int) -> int:
    """How far sequence number ``a`` is ahead of ``b``; negative when it is behind."""
    return distance(a, b) if is_after(a, b) else -distance(b, a)


class Connection:
    """A connection from its SYN (active), or from the last ACK of its handshake (passive), to its end.

    The sequence numbers are those of the tcpcb; unlike a device's, its ``snd_una`` and ``snd_max`` count our FIN.

    Attributes
    ----------
    over : bool
        Nothing more is sent or taken.
    snd_wnd : int
        The peer's window, in bytes from ``snd_una`` on.
    """

    def __init__(self, tcp: StandInTcp, tp: tcpcb) -> None:
        self._tcp, self.tp = tcp, tp
        self.over = False
        self.snd_wnd = 0
        self._wl1 = self._wl2 = 0  # segment that told the window: its SEQ and ACK
        self._timer: Callout | None = None
        self._backoff = 0  # time-outs since something was acknowledged
        self._silent = 0  # time-outs since the peer was heard of

    # ------------------------------------------------------------------ from the stack

    def open(self) -> None:
        """Active open: SYN. The tcpcb has its ``iss``. I is held."""
        tp = self.tp
        tp.snd_una, tp.snd_nxt = tp.iss, advance(tp.iss, 1)
        tp.snd_max = tp.snd_nxt
        self._synchronise()

    def accepted(self, irs: int, mss: int) -> None:
        """Passive open: the handshake is complete. The tcpcb has its ``iss`` and ``t_maxseg``. I is held."""
        tp = self.tp
        self._learn_peer(irs, mss)
        tp.snd_una = tp.snd_nxt = tp.snd_max = advance(tp.iss, 1)
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

    # ------------------------------------------------------------------ out

    def _emit(self, flags: int, seq: int, payload: bytes = b"", mss: int = 0) -> None:
        tp = self.tp
        if flags & ACK and not flags & RST:
            tp.rcv_wnd = self._window()
            tp.rcv_adv = advance(tp.rcv_nxt, tp.rcv_wnd)
        inp = tp.t_inpcb
        self._tcp.transmit(
            Segment(inp.inp_laddr, inp.inp_faddr, inp.inp_lport, inp.inp_fport, seq, tp.rcv_nxt if flags & ACK else 0,
                    flags, tp.rcv_wnd, mss, None, payload),
            tp,
        )  # fmt: skip

    @property
    def _seq(self) -> int:
        """Of a segment without text: while the window is closed, a probe may be beyond what the peer takes."""
        return self.tp.snd_max if self.snd_wnd else self.tp.snd_nxt

    def _synchronise(self) -> None:
        """SYN, or SYN,ACK when both sides open at once."""
        tp = self.tp
        self._emit(
            SYN | ACK if tp.t_state == TCPS_SYN_RECEIVED else SYN,
            tp.iss,
            mss=self._tcp.own_mss(tp, tp.t_inpcb.inp_faddr),
        )
        self._start_timer()

    def _window(self) -> int:
        """The window to offer: what there is room for, but nothing silly (RFC 9293 section 3.8.6.2.2), and never less than
        was promised."""
        tp = self.tp
        sb = self._socket().so_rcv
        space = min(sbspace(sb), 0xFFFF)
        if space < min(sb.sb_hiwat // 4, tp.t_maxseg):
            space = 0
        return max(space, distance(tp.rcv_adv, tp.rcv_nxt))

    def _window_has_grown(self) -> bool:
        tp = self.tp
        grown = self._window() - distance(tp.rcv_adv, tp.rcv_nxt)
        return grown >= 2 * tp.t_maxseg or 2 * grown >= self._socket().so_rcv.sb_hiwat

    def _send(self, *, ack: bool) -> None:
        """Send what is in so_snd as far as the window goes, then the FIN when the state says so; without either, an ACK if
        ``ack``."""
        tp, sb = self.tp, self._socket().so_snd
        window = min(self.snd_wnd, WINDOW * tp.t_maxseg)
        while tp.t_state != TCPS_TIME_WAIT:
            offset = distance(tp.snd_nxt, tp.snd_una)
            left = sb.sb_cc - offset  # -1 behind the FIN
            length = max(0, min(left, tp.t_maxseg, window - offset))
            if length < left and length < tp.t_maxseg and offset:
                break  # no small segment while something is under way (RFC 9293 MUST-38)
            fin = length == left and tp.t_state in _SENDS_FIN
            if not length and not fin:
                break
            self._transmit_data(offset, length, fin)
            ack = False
        if ack:
            self._emit(ACK, self._seq)
        if tp.snd_nxt != tp.snd_una or (sb.sb_cc and not self.snd_wnd):
            if self._timer is None:
                self._start_timer()

    def _transmit_data(self, offset: int, length: int, fin: bool) -> None:
        tp, sb = self.tp, self._socket().so_snd
        payload = b""
        if length and sb.ring is not None:
            payload = sb.ring.read(advance(sb.head, offset), length)
        flags = ACK | (FIN if fin else 0) | (PSH if length and offset + length == sb.sb_cc else 0)
        if tp.snd_nxt != tp.snd_max:
            self._tcp.counters["retransmissions"] += 1
        self._emit(flags, tp.snd_nxt, payload)
        tp.snd_nxt = advance(tp.snd_nxt, length + fin)
        if is_after(tp.snd_nxt, tp.snd_max):
            tp.snd_max = tp.snd_nxt

    # ------------------------------------------------------------------ time

    def _start_timer(self, delay_us: int | None = None) -> None:
        self._stop_timer()
        if delay_us is None:
            delay_us = self._tcp.rto_us << min(self._backoff, RETRANSMISSIONS)
        self._timer = self._tcp.stack.callout(delay_us, self._timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timeout(self) -> None:
        tp = self.tp
        with self._tcp.stack.tcbinfo.lock, tp.t_inpcb.lock:
            self._timer = None
            if tp.t_state >= TCPS_FIN_WAIT_2:
                tcp_close(tp)
                return
            self._silent += 1
            self._backoff += 1
            if self._silent > RETRANSMISSIONS:
                self._tcp.counters["timeouts"] += 1
                tcp_drop(tp, tp.t_softerror or errno.ETIMEDOUT)
            elif tp.t_state in (TCPS_SYN_SENT, TCPS_SYN_RECEIVED):
                self._tcp.counters["retransmissions"] += 1
                self._synchronise()
            else:
                tp.snd_nxt = tp.snd_una
                if not self.snd_wnd and self._socket().so_snd.sb_cc:
                    self._transmit_data(0, 1, False)  # a window probe: one byte that the peer has to answer
                    tp.snd_nxt = tp.snd_una
                self._send(ack=False)

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
        tp.t_maxseg = min(mss or DEFAULT_MSS, tp.t_maxseg)

    def _established(self, segment: Segment) -> None:
        self._heard()
        self.tp.snd_una = segment.ack
        self.snd_wnd, self._wl1, self._wl2 = segment.wnd, segment.seq, segment.ack
        tcp_established(self.tp, self._socket())

    def _heard(self) -> None:
        """Something new of ours is acknowledged, or the handshake goes on."""
        self._backoff = self._silent = 0
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
            if is_after(tp.snd_una, tp.snd_nxt):
                tp.snd_nxt = tp.snd_una
            sowwakeup(so)
            if fin:
                tcp_fin_acked(tp, so)
                self._closed_further()
        if news >= 0 and (is_after(segment.seq, self._wl1)
                          or segment.seq == self._wl1 and not is_after(self._wl2, segment.ack)):  # fmt: skip
            if segment.wnd and not self.snd_wnd and tp.t_state < TCPS_FIN_WAIT_2:
                self._backoff = 0
                self._stop_timer()
                tp.snd_nxt = tp.snd_una  # what a probe has told is not sure to have been kept
            self.snd_wnd, self._wl1, self._wl2 = segment.wnd, segment.seq, segment.ack
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

    def _socket(self) -> socket:
        so = self.tp.t_inpcb.inp_socket
        assert so is not None  # the protocol holds it until tcp_close
        return so
