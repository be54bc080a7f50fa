"""The end of a TCP connection in the stack (FreeBSD's tcp_subr.c): drop, close, detach, TIME_WAIT."""

from __future__ import annotations

from .offload import tcp_gen_detach, tcp_gen_listen_close, tcp_gen_reset
from .pcbinfo import INP_DROPPED
from .socketvar import may_free, soisdisconnected
from .structures import INP_SOCKREF, INP_TIMEWAIT, SS_PROTOREF, inpcb, socket, tcpcb
from .tcp_fsm import TCPS_CLOSED, TCPS_LISTEN, TCPS_SYN_RECEIVED, TCPS_TIME_WAIT


def tcp_drop(tp: tcpcb, error: int) -> None:
    """End the connection at once: RST to a peer that knows of it, ``error`` to the user. P and I are held."""
    if tp.t_state >= TCPS_SYN_RECEIVED:
        tp.t_state = TCPS_CLOSED
        tcp_gen_reset(tp)
    so = tp.t_inpcb.inp_socket
    if so is not None:
        so.so_error = error
    tcp_close(tp)


def tcp_close(tp: tcpcb) -> None:
    """The connection is over: the user is told, the inpcb is dropped. P and I are held."""
    inp = tp.t_inpcb
    stack = inp.stack
    stack.tcbinfo.lock.require()
    inp.lock.require()
    if tp.t_state == TCPS_LISTEN:
        tcp_gen_listen_close(tp)
    tp.t_state = TCPS_CLOSED
    _stop_timers(tp)
    if stack.software is not None:
        stack.software.close(tp)
    stack.tcbinfo.drop(inp)
    so = inp.inp_socket
    if so is None:
        return
    soisdisconnected(so)
    release_socket(inp)


def _stop_timers(tp: tcpcb) -> None:
    """Nothing is waited for any more; hours are long to be remembered until then."""
    for timer in (tp.t_user_timer, tp.t_keep_timer, tp.t_pmtu_timer):
        if timer is not None:
            timer.cancel()
    tp.t_user_timer = tp.t_keep_timer = tp.t_pmtu_timer = None


def release_socket(inp: inpcb) -> None:
    """The protocol needs a socket no longer that the user has closed: it is freed. P and I are held."""
    so = inp.inp_socket
    if so is not None and inp.inp_flags & INP_SOCKREF:
        inp.inp_flags &= ~INP_SOCKREF
        so.so_state &= ~SS_PROTOREF
        if may_free(so):
            tcp_detach(so, inp)


def tcp_twstart(tp: tcpcb) -> None:
    """Both FINs are exchanged; the device keeps TIME_WAIT, or hands it to the stack later. P and I are held."""
    tp.t_state = TCPS_TIME_WAIT
    _stop_timers(tp)
    tp.t_inpcb.inp_flags |= INP_TIMEWAIT
    if tp.t_inpcb.inp_socket is not None:
        soisdisconnected(tp.t_inpcb.inp_socket)


def tcp_detach(so: socket, inp: inpcb) -> None:
    """Socket and inpcb part: whatever the device still does for the connection, it does without them. In
    TIME_WAIT kept by the stack the inpcb stays. P and I held."""
    if inp.inp_ppcb is not None:
        tcp_gen_detach(inp.inp_ppcb)
        if inp.stack.software is not None:
            inp.stack.software.close(inp.inp_ppcb)
    if not inp.inp_flags & INP_DROPPED and inp.inp_tw is None:
        inp.stack.tcbinfo.drop(inp)
    inp.inp_socket = None
    so.so_pcb = None
    if so.so_rings is not None:
        so.so_rings.drop()
        so.so_rings = None
        so.so_snd.ring = so.so_rcv.ring = None
    if so.so_lent is not None:
        so.so_lent.drop()
        so.so_lent = None
