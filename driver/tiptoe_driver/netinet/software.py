"""The software TCP beside the devices: what the stack asks of it, and what its news mean to socket and tcpcb.

FreeBSD's tcp_output decides by ``t_state`` and the socket buffers what to do, and so does :meth:`SoftwareTcp.output`
(contract: GEN-1). The functions are the ends of tcp_input (RFC 9293 section 3.10.7) that move ``t_state``; P and I are held.
"""

from __future__ import annotations

from ..hardware.memory import ByteRing
from .sockbuf import SBS_CANTRCVMORE, sbattach
from .socketvar import socantrcvmore, soisconnected, soisdisconnected
from .structures import TF_NEEDFIN, socket, tcpcb, vnet
from .tcp_fsm import (
    TCPS_CLOSE_WAIT,
    TCPS_CLOSED,
    TCPS_CLOSING,
    TCPS_ESTABLISHED,
    TCPS_FIN_WAIT_1,
    TCPS_FIN_WAIT_2,
    TCPS_LAST_ACK,
    TCPS_TIME_WAIT,
)
from .tcp_subr import tcp_close, tcp_twstart
from .tcp_timer import tcp_progress


def sballoc(so: socket, stack: vnet) -> None:
    """Give socket buffers that are no device's rings memory of their own."""
    for sb, size in ((so.so_snd, stack.sendspace), (so.so_rcv, stack.recvspace)):
        if sb.ring is None:
            sbattach(sb, ByteRing(memoryview(bytearray(1 << (size - 1).bit_length()))))


def tcp_established(tp: tcpcb, so: socket) -> None:
    """The handshake is complete."""
    tp.t_state = TCPS_ESTABLISHED
    tp.t_starttime = tp.t_inpcb.stack.now_us()
    if tp.t_flags & TF_NEEDFIN:
        tp.t_flags &= ~TF_NEEDFIN
        tp.t_state = TCPS_FIN_WAIT_1
    tcp_progress(tp)
    soisconnected(so)


def tcp_fin_received(tp: tcpcb, so: socket) -> None:
    """The peer's FIN has come, and all data before it is in so_rcv."""
    socantrcvmore(so)
    if tp.t_state == TCPS_ESTABLISHED:
        tp.t_state = TCPS_CLOSE_WAIT
    elif tp.t_state == TCPS_FIN_WAIT_1:
        tp.t_state = TCPS_CLOSING
    elif tp.t_state == TCPS_FIN_WAIT_2:
        tcp_twstart(tp)


def tcp_fin_acked(tp: tcpcb, so: socket) -> None:
    """The peer has acknowledged our FIN."""
    if tp.t_state == TCPS_FIN_WAIT_1:
        tp.t_state = TCPS_FIN_WAIT_2
        if so.so_rcv.sb_state & SBS_CANTRCVMORE:
            soisdisconnected(so)
    elif tp.t_state == TCPS_CLOSING:
        tcp_twstart(tp)
    elif tp.t_state == TCPS_LAST_ACK:
        tcp_close(tp)


def tcp_ended(tp: tcpcb, so: socket, error: int) -> None:
    """The connection has failed: ``error`` to the user, unless both sides had closed already and all he wrote is
    acknowledged."""
    closed = tp.t_state in (TCPS_CLOSING, TCPS_LAST_ACK) and not so.so_snd.sb_cc
    if not closed and tp.t_state != TCPS_TIME_WAIT:
        so.so_error = so.so_error or error
    tp.t_state = TCPS_CLOSED
    tcp_close(tp)
