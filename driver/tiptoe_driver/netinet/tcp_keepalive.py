"""Keep-alive (RFC 9293 section 3.8.4, MUST-24 to MUST-29, SHLD-12; SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).

Off unless the user wants it. When to probe is decided here, as in FreeBSD's tcp_timer.c, by what the peer's data and
acknowledgements tell of; the device sends a probe when it is asked to, and knows whether anything has come since. So hardware
has no timer for it, and a connection that is busy costs nothing. After a probe it is asked a few times, each time twice as long
after it, whether the answer has come: so the idle time behind an answer begins at most one more round trip after it, and never
before it (MUST-26). What waits for an acknowledgement is repeated, or probed for,
by the device anyway: there keep-alive has no business.
"""

from __future__ import annotations

import errno

from .clock import Deadline
from .pcbinfo import INP_DROPPED
from .structures import INP_SOCKREF, SO_KEEPALIVE, tcpcb
from .tcp_fsm import TCPS_CLOSE_WAIT, TCPS_ESTABLISHED, TCPS_FIN_WAIT_2, TCPS_TIME_WAIT
from .tcp_subr import tcp_drop

RETRY_US = 1_000_000
"""When the device could not be asked: it has no room for commands now."""
LOOK_US = 10_000
"""From a probe to the first look whether it was answered; the next ones come at twice the time, and at the interval's end."""
_SECOND_US = 1_000_000
_QUIET = (TCPS_ESTABLISHED, TCPS_CLOSE_WAIT, TCPS_FIN_WAIT_2)
"""States in which we may have nothing that waits for an acknowledgement."""


def tcp_keepalive(tp: tcpcb) -> None:
    """The connection is established, or an option was set. I is held."""
    so = tp.t_inpcb.inp_socket
    wanted = so is not None and so.so_options & SO_KEEPALIVE and tp.tod is not None
    if not wanted or not TCPS_ESTABLISHED <= tp.t_state < TCPS_TIME_WAIT:
        tcp_keepalive_stop(tp)
        return
    stack = tp.t_inpcb.stack
    if tp.t_keep_timer is None:
        tp.t_keep_timer = Deadline(stack, lambda: _over(tp))
        tp.t_rcvtime = stack.now_us()  # nobody has looked before
        tp.t_keepprobes = 0
    if not tp.t_keepprobes:
        _wait_until(tp, tp.t_rcvtime + tp.t_keepidle * _SECOND_US)


def tcp_keepalive_stop(tp: tcpcb) -> None:
    """No more probes. I is held."""
    if tp.t_keep_timer is not None:
        tp.t_keep_timer.cancel()
        tp.t_keep_timer = None
        tp.t_keepprobes = 0


def tcp_heard(tp: tcpcb) -> None:
    """The peer has sent data, or acknowledged some. I is held."""
    if tp.t_keep_timer is not None:
        tp.t_keepprobes = 0
        tp.t_rcvtime = tp.t_inpcb.stack.now_us()
        tp.t_keep_timer.set(tp.t_keepidle * _SECOND_US)


def _wait_until(tp: tcpcb, time_us: int) -> None:
    assert tp.t_keep_timer is not None
    tp.t_keep_timer.set(max(0, time_us - tp.t_inpcb.stack.now_us()))


def _over(tp: tcpcb) -> None:
    """It is time to probe, or to look whether the last probe was answered."""
    inp = tp.t_inpcb
    with inp.stack.tcbinfo.lock, inp.lock:
        so = inp.inp_socket
        if inp.inp_flags & (INP_DROPPED | INP_SOCKREF) or so is None or tp.tod is None or tp.t_state >= TCPS_TIME_WAIT:
            tcp_keepalive_stop(tp)  # over, or closed by the user: that has limits of its own
        elif so.so_snd.sb_cc or tp.t_state not in _QUIET:
            tcp_heard(tp)  # "it is alive without keepalive", or the device finds out: idle time begins behind that
        elif not tp.t_keepprobes:
            _probe(tp)
        else:
            error = tp.tod.tod_unanswered(tp, lambda unanswered: _told(tp, unanswered))
            if error and tp.t_keep_timer is not None:
                tp.t_keep_timer.set(RETRY_US)


def _told(tp: tcpcb, unanswered: int | None) -> None:
    """What the device knows of the probes sent; None: it has the connection no more. No lock is held."""
    inp = tp.t_inpcb
    with inp.stack.tcbinfo.lock, inp.lock:
        if inp.inp_flags & INP_DROPPED or tp.t_keep_timer is None or not tp.t_keepprobes:
            return  # over, or heard of meanwhile
        now_us = inp.stack.now_us()
        silent_us, asked_us = now_us - tp.t_rcvtime, now_us - tp.t_keep_asked
        if unanswered is None:
            tp.t_keep_timer.set(RETRY_US)
        elif not unanswered:
            tcp_heard(tp)
        elif asked_us < tp.t_keepintvl * _SECOND_US:
            _look_after(tp, max(LOOK_US, 2 * asked_us))
        elif silent_us >= tp.t_user_timeout * 1000 if tp.t_user_timeout else tp.t_keepprobes >= tp.t_keepcnt:
            tcp_drop(tp, tp.t_softerror or errno.ETIMEDOUT)
        else:
            _probe(tp)


def _probe(tp: tcpcb) -> None:
    """Have a probe sent."""
    assert tp.tod is not None and tp.t_keep_timer is not None
    error = tp.tod.tod_keepalive(tp)
    if error == errno.EOPNOTSUPP:
        tcp_keepalive_stop(tp)
    elif error:
        tp.t_keep_timer.set(RETRY_US)
    else:
        tp.t_keepprobes += 1
        tp.t_keep_asked = tp.t_inpcb.stack.now_us()
        _look_after(tp, LOOK_US)


def _look_after(tp: tcpcb, asked_us: int) -> None:
    """So long after the last probe, at its interval's end at the latest."""
    _wait_until(tp, tp.t_keep_asked + min(asked_us, tp.t_keepintvl * _SECOND_US))
