"""How far the engine has sent, for TCP_NOTSENT_LOWAT: CONNECTION events tell what is acknowledged, READ_TCB what is sent."""

from __future__ import annotations

from collections.abc import Mapping

from ..hardware.positions import distance
from ..hardware.toepcb import toepcb
from ..netinet.sockbuf import sbnotsent
from ..netinet.socketvar import sowwakeup
from ..netinet.structures import tcpcb
from .socket_options import ToeOptions, pages_of

_PAGES = pages_of("snd_max")


class SentQueries:
    """Asks only of connections whose user waits for it, one question at a time. Whatever is missed is asked again with the next
    acknowledgement, which comes as long as something is under way; nothing that is acknowledged counts as not sent."""

    def __init__(self, options: ToeOptions) -> None:
        self._options = options

    def ask(self, toep: toepcb, tp: tcpcb) -> None:
        """Something was told, or is acknowledged. I is held."""
        so = tp.t_inpcb.inp_socket
        if so is None or toep.asks_sent:
            return
        lowat = so.so_snd.sb_notsent_lowat
        if lowat and sbnotsent(so.so_snd) >= lowat and toep.snd_told != toep.snd_una:
            toep.asks_sent = not self._options.read_tcb(toep, _PAGES, lambda tcb: self._told(toep, tp, tcb))

    @staticmethod
    def _told(toep: toepcb, tp: tcpcb, tcb: Mapping[str, int] | None) -> None:
        toep.asks_sent = False
        so = tp.t_inpcb.inp_socket
        if tcb is None or toep.tp is not tp or so is None:
            return
        with tp.t_inpcb.lock, so.lock:
            position = tcb["snd_max"] - (tp.iss + 1)
            if distance(position, so.so_snd.head) <= distance(toep.snd_told, so.so_snd.head):
                so.so_snd.sent = position & 0xFFFF_FFFF
            elif distance(position - 1, so.so_snd.head) == distance(toep.snd_told, so.so_snd.head):
                so.so_snd.sent = toep.snd_told  # the FIN is sent, too
        sowwakeup(so)
