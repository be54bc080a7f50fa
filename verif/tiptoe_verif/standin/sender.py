"""What a connection of the software stand-in sends: data, FIN, window and probes (RFC 9293 section 3.8), and when it sends again.

Plain on purpose. Sent again is everything from the oldest unacknowledged byte on, after a time that only doubles; at most
``WINDOW`` segments are under way.
"""

from __future__ import annotations

import errno
from collections import Counter
from typing import Protocol

from tiptoe_driver import Stack
from tiptoe_driver.hardware.positions import advance, distance, is_after
from tiptoe_driver.netinet.clock import Callout
from tiptoe_driver.netinet.sockbuf import sbspace
from tiptoe_driver.netinet.structures import SS_NOFDREF, socket, tcpcb
from tiptoe_driver.netinet.tcp_fsm import (
    TCPS_CLOSING,
    TCPS_FIN_WAIT_1,
    TCPS_FIN_WAIT_2,
    TCPS_LAST_ACK,
    TCPS_SYN_RECEIVED,
    TCPS_SYN_SENT,
    TCPS_TIME_WAIT,
)
from tiptoe_driver.netinet.tcp_output import CORK_US, tcp_corked, tcp_sendable, tcp_told
from tiptoe_driver.netinet.tcp_subr import tcp_close, tcp_drop

from ..wire.segment import ACK, FIN, PSH, RST, SYN, Segment

WINDOW = 4
"""Most segments under way: in place of congestion control."""
RETRANSMISSIONS = 9
"""Time-outs without a word from the peer after which the connection ends. From 200 ms, doubled each time, that is after
204 s (RFC 9293 MUST-23: at least 180 s for a SYN)."""
_SENDS_FIN = (TCPS_FIN_WAIT_1, TCPS_CLOSING, TCPS_LAST_ACK)


class SendingTcp(Protocol):
    """What a sender needs of the TCP it belongs to."""

    stack: Stack
    counters: Counter[str]
    rto_us: int
    orphan_us: int

    def own_mss(self, tp: tcpcb, peer: int) -> int:
        """Most bytes of payload that we take from ``peer`` and send there, by the interface and the user."""

    def transmit(self, segment: Segment, tp: tcpcb | None = None) -> None:
        """Send a segment of the connection ``tp`` by the interface that leads to its destination."""


class Sender:
    """The sending side of a connection. The sequence numbers are those of the tcpcb.

    Attributes
    ----------
    over : bool
        Nothing more is sent or taken.
    snd_wnd : int
        The peer's window, in bytes from ``snd_una`` on.
    """

    def __init__(self, tcp: SendingTcp, tp: tcpcb) -> None:
        self._tcp, self.tp = tcp, tp
        self.over = False
        self.snd_wnd = 0
        self._timer: Callout | None = None
        self._cork: Callout | None = None
        self._pushes = False  # the cork has lasted long enough
        self._backoff = 0  # time-outs since something was acknowledged
        self._silent = 0  # time-outs since the peer was heard of
        self._orphan_since: int | None = None  # first time-out behind close, or the last progress

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
        held = self._held()
        while tp.t_state != TCPS_TIME_WAIT:
            offset = distance(tp.snd_nxt, tp.snd_una)
            left = sb.sb_cc - offset - held  # -1 behind the FIN
            length = max(0, min(left, tp.t_maxseg, window - offset))
            if length < left and length < tp.t_maxseg and offset:
                break  # no small segment while something is under way (RFC 9293 MUST-38)
            fin = length == left and tp.t_state in _SENDS_FIN
            if not length and not fin:
                break
            before = tp.snd_max
            self._transmit_data(offset, length, fin)
            if tp.snd_max != before:
                tcp_told(tp, 0, length)
            ack = False
        if ack:
            self._emit(ACK, self._seq)
        if tp.snd_nxt != tp.snd_una or (sb.sb_cc and not self.snd_wnd):
            if self._timer is None:
                self._start_timer()

    def _held(self) -> int:
        """Bytes at the end of so_snd that wait for more, or for an acknowledgement (tcp_output.py)."""
        tp, sb = self.tp, self._socket().so_snd
        if tp.t_state in _SENDS_FIN or self._pushes:
            return 0
        # A probe's byte, and what is sent again, is no reason to wait.
        told = advance(sb.head, 0 if tp.snd_nxt == tp.snd_una else distance(tp.snd_max, tp.snd_una))
        held = distance(sb.tail, tcp_sendable(tp, sb, told, sb.head))
        if self._cork is not None and not (held and tcp_corked(tp)):
            self._cork.cancel()
            self._cork = None
        elif held and tcp_corked(tp) and self._cork is None:
            self._cork = self._tcp.stack.callout(CORK_US, self._cork_over)
        return held

    def _cork_over(self) -> None:
        tp = self.tp
        with self._tcp.stack.tcbinfo.lock, tp.t_inpcb.lock:
            self._cork = None
            if not self.over and tp.t_inpcb.inp_socket is not None:
                self._pushes = True
                self._send(ack=False)
                self._pushes = False

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
            if self._orphan_since is not None:
                delay_us = min(delay_us, self._tcp.orphan_us)
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
            if self._orphan_for_too_long():
                self._tcp.counters["orphans_reset"] += 1
                tcp_drop(tp, errno.ETIMEDOUT)
            elif self._silent > RETRANSMISSIONS:
                self._tcp.counters["timeouts"] += 1
                tcp_drop(tp, tp.t_softerror or errno.ETIMEDOUT)
            elif tp.t_state in (TCPS_SYN_SENT, TCPS_SYN_RECEIVED):
                self._tcp.counters["retransmissions"] += 1
                self._synchronise()
            else:
                tp.snd_nxt = tp.snd_sml = tp.snd_una  # what goes again is no reason to wait
                if not self.snd_wnd and self._socket().so_snd.sb_cc:
                    self._transmit_data(0, 1, False)  # a window probe: one byte that the peer has to answer
                    tp.snd_nxt = tp.snd_una
                self._send(ack=False)

    def _orphan_for_too_long(self) -> bool:
        """The user has closed, and the peer acknowledges nothing, though it may answer probes. Looked at when time is out."""
        limit_us = self._tcp.orphan_us
        if not limit_us or not self._socket().so_state & SS_NOFDREF or self.tp.t_state not in _SENDS_FIN:
            return False
        now = self._tcp.stack.now_us()
        if self._orphan_since is None:
            self._orphan_since = now
        return now - self._orphan_since >= limit_us

    def _socket(self) -> socket:
        so = self.tp.t_inpcb.inp_socket
        assert so is not None  # the protocol holds it until tcp_close
        return so
