"""Events of connections: what a snapshot of the engine means to socket and tcpcb (RFC 9293 section 3.10.7).

An event is compared with what is known; established, acknowledged, arrived, closed by the peer and terminal are taken
in this order, as many as the snapshot folds. P is taken before I where the connection may end.
"""

from __future__ import annotations

import errno

from ..hardware import abi_gen as abi
from ..hardware.positions import advance, distance
from ..hardware.toepcb import (
    TP_BAD_DOORBELL,
    TP_ESTABLISHED,
    TP_EVENTS_PENDING,
    TP_PEER_CLOSED,
    TP_SEND_FIN,
    TP_TERMINAL,
    toepcb,
)
from ..netinet.sockbuf import SBS_CANTRCVMORE, sbcommit, sbdrop, sbflush
from ..netinet.socketvar import socantrcvmore, soisconnected, soisdisconnected, sorwakeup, sowwakeup
from ..netinet.stack import Stack
from ..netinet.structures import INP_SOCKREF, TF_NEEDFIN, TF_RCVD_SCALE, TF_RCVD_TSTMP, socket, tcpcb
from ..netinet.tcp_fsm import (
    TCPS_CLOSE_WAIT,
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
from ..netinet.tcp_keepalive import tcp_heard, tcp_keepalive
from ..netinet.tcp_subr import tcp_close, tcp_drop, tcp_twstart
from ..netinet.tcp_timer import tcp_progress
from ..netinet.uipc_oob import tcp_pulloutofband, tcp_urgent
from .calls import ToeCalls
from .time_wait import TimeWaitHandover

ACKED_OUR_FIN = (TCPS_FIN_WAIT_2, TCPS_TIME_WAIT)
"""States of the device in which the peer has acknowledged our FIN."""
URGENT_MOST = 0x10000
"""How far beyond the receive window an urgent pointer can point, in bytes."""
_REASON_ERRNO: dict[int, int] = {
    abi.Reason.REFUSED: errno.ECONNREFUSED,
    abi.Reason.TIMEOUT: errno.ETIMEDOUT,
    abi.Reason.LOCAL_ABORT: errno.ECONNABORTED,
}


class ToeEvents:
    """The CONNECTION events of opened ids."""

    def __init__(self, stack: Stack, calls: ToeCalls) -> None:
        self._stack = stack
        self._calls = calls
        self._counters = calls.engine.counters
        self._time_wait = TimeWaitHandover(stack, calls)

    def reset(self) -> None:
        """The engine was reset: it speaks of none of its connections any more."""
        self._time_wait.reset()
        self._calls.black_holes.reset()

    def snapshot(self, toep: toepcb, event: abi.ConnectionEvent) -> None:
        """A connection's event: find out what is new since the last one."""
        if event.terminal:
            toep.flags |= TP_TERMINAL
        if event.bad_doorbell and not toep.flags & TP_BAD_DOORBELL:
            toep.flags |= TP_BAD_DOORBELL
            self._counters["bad_doorbells"] += 1
        tp = toep.tp
        may_end = event.terminal or event.peer_closed  # then P comes before I
        # Without a lock held, tp is a guess: whoever had I meanwhile may have detached it.
        if tp is not None and not may_end:
            with tp.t_inpcb.lock:
                if toep.tp is not tp:
                    tp = None
                elif tp.t_inpcb.inp_flags & INP_SOCKREF:
                    may_end = True  # the user has closed: data ends the connection
                else:
                    self._attached_event(toep, tp, event)
        if tp is not None and may_end:
            with self._stack.tcbinfo.lock, tp.t_inpcb.lock:
                if toep.tp is tp:
                    self._attached_event(toep, tp, event)
                else:
                    tp = None
        if tp is None:
            self._orphan_event(toep, event)
        if event.terminal or event.state in ACKED_OUR_FIN:
            self._calls.orphans.end(toep)
        if event.terminal:
            self._time_wait.end(toep)
            self._calls.let_go(toep, TP_EVENTS_PENDING)
        elif event.state == TCPS_TIME_WAIT and event.peer_closed:
            self._time_wait.begin(toep)
        self._time_wait.relieve()

    def _progress(self, toep: toepcb, event: abi.ConnectionEvent) -> tuple[int, int]:
        """Bytes newly acknowledged and newly arrived; (0, 0) and a counter when the positions cannot be."""
        acked = distance(event.snd_una_position, toep.snd_una)
        # The peer's FIN counts as one in rcv_position, but is no byte of the ring.
        arrived = distance(event.rcv_position - event.peer_closed, toep.rcv_position)
        if toep.flags & TP_PEER_CLOSED:
            arrived = 0
        room = toep.rings.rcv.size - distance(toep.rcv_position, toep.rcv_credited)
        if acked > distance(toep.snd_told, toep.snd_una) or arrived > room:
            self._counters["bad_positions"] += 1
            return 0, 0
        toep.snd_una = advance(toep.snd_una, acked)
        if acked:
            self._calls.orphans.progress(toep)
        toep.rcv_position = advance(toep.rcv_position, arrived)
        return acked, arrived

    def _orphan_event(self, toep: toepcb, event: abi.ConnectionEvent) -> None:
        """An event of a connection whose socket is gone: data that nobody will read is answered with a reset."""
        if not event.established:
            return  # positions mean nothing yet
        toep.flags |= TP_ESTABLISHED
        _, arrived = self._progress(toep, event)
        if event.peer_closed:
            toep.flags |= TP_PEER_CLOSED
        if arrived:
            self._calls.abort(toep)
        elif event.state == TCPS_FIN_WAIT_2:
            self._calls.limit_fin_wait_2(toep)

    def _attached_event(self, toep: toepcb, tp: tcpcb, event: abi.ConnectionEvent) -> None:
        """An event of a connection with its tcpcb. I is held, and P when the event may end the connection."""
        so = tp.t_inpcb.inp_socket
        if so is None:
            return
        if event.established and not toep.flags & TP_ESTABLISHED:
            self._established(toep, tp, so, event)
        elif event.state == TCPS_SYN_RECEIVED and tp.t_state == TCPS_SYN_SENT:
            tp.t_state = TCPS_SYN_RECEIVED  # both sides have opened at once
        if toep.flags & TP_ESTABLISHED:
            if event.urgent and event.rcv_up != toep.rcv_up:
                self._urgent(toep, tp, so, event.rcv_up)
            acked, arrived = self._progress(toep, event)
            if acked or arrived:
                tcp_heard(tp)
            if acked:
                with so.lock:
                    sbdrop(so.so_snd, min(acked, so.so_snd.sb_cc))
                tp.snd_una = advance(tp.iss + 1, toep.snd_una)
                tp.t_softerror = 0
                tcp_progress(tp)
                self._calls.probes.progress(toep, tp)
                self._calls.held.look_again(toep, tp)
                self._calls.sent.ask(toep, tp)
                sowwakeup(so)
            if arrived and not self._arrived(toep, tp, so, arrived):
                return
            self._calls.return_credits(toep, tp)
            if event.peer_closed and not toep.flags & TP_PEER_CLOSED:
                self._peer_closed(toep, tp, so)
            if event.state in ACKED_OUR_FIN or (event.terminal and event.reason == abi.Reason.NORMAL):
                self._fin_acked(toep, tp, so)
        if event.terminal:
            self._terminal(toep, tp, so, event)

    def _established(self, toep: toepcb, tp: tcpcb, so: socket, event: abi.ConnectionEvent) -> None:
        """The handshake is complete; what the user did meanwhile goes out."""
        toep.flags |= TP_ESTABLISHED
        tp.iss, tp.irs = event.iss, event.irs
        tp.snd_una = tp.snd_nxt = tp.snd_max = tp.snd_sml = tp.snd_up = advance(tp.iss, 1)
        tp.rcv_nxt = advance(tp.irs, 1)
        tp.snd_scale, tp.rcv_scale = event.snd_scale, event.rcv_scale
        if event.rcv_scale or event.snd_scale:
            tp.t_flags |= TF_RCVD_SCALE
        if event.ts_ok:
            tp.t_flags |= TF_RCVD_TSTMP
        toep.maxseg = event.mss or toep.maxseg
        tp.t_maxseg = min(tp.t_maxseg, toep.maxseg, self._calls.max_mss(tp))
        tp.t_maxseg_most = min(tp.t_maxseg_most, toep.maxseg)
        tp.t_softerror = 0
        self._calls.update_window(toep, tp)
        tp.t_state = TCPS_ESTABLISHED
        tp.t_starttime = self._stack.now_us()
        if tp.t_flags & TF_NEEDFIN:
            tp.t_state = TCPS_FIN_WAIT_1
            tp.t_flags &= ~TF_NEEDFIN
            toep.flags |= TP_SEND_FIN
        tcp_progress(tp)
        tcp_keepalive(tp)
        soisconnected(so)
        self._calls.push(toep, tp)

    def _urgent(self, toep: toepcb, tp: tcpcb, so: socket, rcv_up: int) -> None:
        """RCV.UP has advanced. What the snapshot tells of it is no older than its data, so it comes first."""
        end = distance(rcv_up, advance(tp.irs, 1))
        ahead = distance(end, toep.rcv_position)
        if not 1 <= ahead <= toep.rings.rcv.size + URGENT_MOST:
            self._counters["bad_positions"] += 1
            return
        toep.rcv_up = rcv_up
        tcp_urgent(tp, so, rcv_up, advance(end, -1))

    def _arrived(self, toep: toepcb, tp: tcpcb, so: socket, count: int) -> bool:
        """``count`` bytes have arrived in the receive ring; False when that ended the connection."""
        tp.rcv_nxt = advance(tp.rcv_nxt, count)
        if tp.t_inpcb.inp_flags & INP_SOCKREF and tp.t_state > TCPS_CLOSE_WAIT and not toep.flags & TP_TERMINAL:
            # Data after close: nobody will ever read it.
            self._counters["received_after_close"] += 1
            tcp_drop(tp, errno.ECONNABORTED)
            return False
        with so.lock:
            sbcommit(so.so_rcv, count)
            tcp_pulloutofband(tp, so)
            if so.so_rcv.sb_state & SBS_CANTRCVMORE:
                sbflush(so.so_rcv)  # the user does not want to read: room for the peer again
        sorwakeup(so)
        return True

    def _peer_closed(self, toep: toepcb, tp: tcpcb, so: socket) -> None:
        """The peer's FIN has arrived, all data before it is in so_rcv."""
        toep.flags |= TP_PEER_CLOSED
        tp.rcv_nxt = advance(tp.rcv_nxt, 1)
        socantrcvmore(so)
        if tp.t_state == TCPS_ESTABLISHED:
            tp.t_state = TCPS_CLOSE_WAIT
        elif tp.t_state == TCPS_FIN_WAIT_1:
            tp.t_state = TCPS_CLOSING
        elif tp.t_state == TCPS_FIN_WAIT_2:
            tcp_twstart(tp)

    def _fin_acked(self, toep: toepcb, tp: tcpcb, so: socket) -> None:
        """The peer has acknowledged our FIN."""
        if tp.t_state == TCPS_FIN_WAIT_1:
            tp.t_state = TCPS_FIN_WAIT_2
            if so.so_rcv.sb_state & SBS_CANTRCVMORE:
                soisdisconnected(so)
                self._calls.limit_fin_wait_2(toep)
        elif tp.t_state == TCPS_CLOSING:
            tcp_twstart(tp)

    def _terminal(self, toep: toepcb, tp: tcpcb, so: socket, event: abi.ConnectionEvent) -> None:
        """The device has no connection any more. P and I are held."""
        error = terminal_errno(event.reason, tp.t_state, lost=bool(so.so_snd.sb_cc))
        if error == errno.ETIMEDOUT and tp.t_softerror:
            error = tp.t_softerror  # why nothing was heard of the peer
        so.so_error = so.so_error or error
        tp.t_state = TCPS_CLOSED
        self._calls.detach(toep)
        tcp_close(tp)


def terminal_errno(reason: int, t_state: int, *, lost: bool) -> int:
    """What the user is told of the end of a connection in state ``t_state``; ``lost``: of what he wrote something was never
    acknowledged, so that a reset is no orderly end although both sides had closed."""
    if reason in (abi.Reason.NORMAL, abi.Reason.NONE):
        return 0
    if reason == abi.Reason.PEER_RESET:
        if t_state == TCPS_TIME_WAIT or (t_state in (TCPS_CLOSING, TCPS_LAST_ACK) and not lost):
            return 0
        if t_state in (TCPS_SYN_SENT, TCPS_SYN_RECEIVED):
            return errno.ECONNREFUSED
        return errno.EPIPE if t_state == TCPS_CLOSE_WAIT else errno.ECONNRESET
    return _REASON_ERRNO.get(reason, errno.EIO)
