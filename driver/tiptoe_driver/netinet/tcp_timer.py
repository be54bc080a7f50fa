"""The user timeout (RFC 9293 sections 3.9.1.1 and 3.10.8, MUST-21; TCP_USER_TIMEOUT): how long a connection goes on without an
acknowledgement of what waits for one.

It ends a connection sooner than the device's own limits would, never later. A deadline runs while something waits; progress
moves it.
"""

from __future__ import annotations

import errno

from .clock import Deadline
from .offload import tcp_gen_detach
from .pcbinfo import INP_DROPPED
from .structures import tcpcb
from .tcp_fsm import (
    TCPS_CLOSING,
    TCPS_ESTABLISHED,
    TCPS_FIN_WAIT_1,
    TCPS_LAST_ACK,
    TCPS_SYN_SENT,
    TCPS_TIME_WAIT,
)
from .tcp_subr import tcp_drop


def _waits(tp: tcpcb) -> bool:
    """Whether the peer has something to acknowledge: our SYN, data, written or sent, or our FIN."""
    so = tp.t_inpcb.inp_socket
    if so is None or not TCPS_SYN_SENT <= tp.t_state < TCPS_TIME_WAIT:
        return False
    handshake = tp.t_state < TCPS_ESTABLISHED
    return handshake or so.so_snd.sb_cc > 0 or tp.t_state in (TCPS_FIN_WAIT_1, TCPS_CLOSING, TCPS_LAST_ACK)


def tcp_user_timer(tp: tcpcb) -> None:
    """Something may wait for an acknowledgement now that has not, or the limit has changed. I is held."""
    if tp.t_user_timeout and tp.t_user_timer is None and _waits(tp):
        tp.t_user_timer = Deadline(tp.t_inpcb.stack, lambda: _over(tp))
        tp.t_user_timer.set(tp.t_user_timeout * 1000)


def tcp_progress(tp: tcpcb) -> None:
    """The peer has acknowledged something. I is held."""
    if tp.t_user_timer is None:
        return
    if _waits(tp):
        tp.t_user_timer.set(tp.t_user_timeout * 1000)
    else:
        tcp_user_timer_stop(tp)


def tcp_user_timer_stop(tp: tcpcb) -> None:
    """Nothing is waited for. I is held."""
    if tp.t_user_timer is not None:
        tp.t_user_timer.cancel()
        tp.t_user_timer = None


def _over(tp: tcpcb) -> None:
    """The deadline has come."""
    inp = tp.t_inpcb
    with inp.stack.tcbinfo.lock, inp.lock:
        tp.t_user_timer = None
        if inp.inp_flags & INP_DROPPED or not tp.t_user_timeout or not _waits(tp):
            return
        tcp_drop(tp, tp.t_softerror or errno.ETIMEDOUT)
        tcp_gen_detach(tp)  # of an attempt to connect: the device would go on sending SYNs
