"""Small segments that wait in so_snd (netinet/tcp_output.py), on the engine: it segments what the send doorbell tells, so data is
held by not telling of it. Acknowledgements and the cork's time-out look again.

The driver sees every write and every acknowledgement; the length of a segment is all that both have to agree on. What the
engine cannot send yet for the peer's window counts as under way: that may hold a byte longer than the algorithm asks, never
shorter.
"""

from __future__ import annotations

from ..hardware.toepcb import TP_FIN_SENT, TP_PUSH, TP_TERMINAL, toepcb
from ..netinet.offload import tcp_gen_send
from ..netinet.sockbuf import sockbuf
from ..netinet.stack import Stack
from ..netinet.structures import tcpcb
from ..netinet.tcp_errors import tcp_output_error
from ..netinet.tcp_output import CORK_US, tcp_corked, tcp_sendable


class HeldData:
    """Which part of so_snd the engine may be told of."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def sendable(self, toep: toepcb, tp: tcpcb, sb: sockbuf) -> int:
        """Position up to which the engine may be told to send. I is held."""
        if toep.flags & (TP_FIN_SENT | TP_PUSH):
            end = sb.tail
        else:
            end = tcp_sendable(tp, sb, toep.snd_told, toep.snd_una)
        holds = end != sb.tail and tcp_corked(tp)
        if toep.cork is not None and (not holds or end != toep.snd_told):
            toep.cork.cancel()
            toep.cork = None
        if holds and toep.cork is None:
            toep.cork = self._stack.callout(CORK_US, lambda: self._cork_over(toep))
        return end

    def look_again(self, toep: toepcb, tp: tcpcb) -> None:
        """Something is acknowledged, or an option has changed: what was held may go. I is held."""
        so = tp.t_inpcb.inp_socket
        if so is not None and so.so_snd.tail != toep.snd_told:
            tcp_output_error(tp, tcp_gen_send(tp))

    def _cork_over(self, toep: toepcb) -> None:
        """The cork has lasted long enough for what it holds."""
        toep.cork = None
        tp = toep.tp
        if tp is None or toep.flags & TP_TERMINAL:
            return
        with tp.t_inpcb.lock:
            if toep.tp is tp:
                toep.flags |= TP_PUSH
                self.look_again(toep, tp)
                toep.flags &= ~TP_PUSH
