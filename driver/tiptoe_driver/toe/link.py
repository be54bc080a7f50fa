"""The interface's link and MTU: what their changes mean to the connections of a device.

While the link is down calls answer ENETDOWN and data waits in so_snd; what the device was told before it sends again
and again until its retransmission limit. So a short outage is survived.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ..hardware.toepcb import TP_ESTABLISHED, TP_FIN_SENT, TP_TERMINAL, toepcb
from ..netinet.clock import Callout
from ..netinet.if_var import ifnet
from ..netinet.offload import tcp_gen_listen_open, tcp_gen_send
from ..netinet.stack import Stack
from ..netinet.structures import tcpcb
from ..netinet.tcp_errors import tcp_mtudisc, tcp_output_error
from ..netinet.tcp_subr import tcp_drop
from .calls import ToeCalls
from .hostif import HostInterface


class LinkChanges:
    """Changes of one interface.

    Parameters
    ----------
    limit_us : int
        Outage after which connections with data that the device was not told of end with ENETDOWN: nothing else would
        ever end them.
    """

    def __init__(self, stack: Stack, calls: ToeCalls, hostif: HostInterface, ifp: ifnet, limit_us: int) -> None:
        self._stack = stack
        self._calls = calls
        self._hostif = hostif
        self._ifp = ifp
        self._limit_us = limit_us
        self._timer: Callout | None = None

    def if_link_state_change(self, up: bool) -> None:
        """The link has come up or gone down."""
        if up == self._ifp.if_up:
            return
        self._ifp.if_up = up
        self.stop()
        if not up:
            self._timer = self._stack.callout(self._limit_us, self._give_up)
            return
        self._hostif.announce()  # we may be behind another port of the switch now
        for _, tp in self._connections():
            with self._stack.tcbinfo.lock, tp.t_inpcb.lock:
                tcp_output_error(tp, tcp_gen_send(tp))

    def stop(self) -> None:
        """The device has no connections any more that an outage could end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def if_set_mtu(self, mtu: int) -> None:
        """Packets may have ``mtu`` bytes from now on. Connections follow a smaller one at once, sending again what is not
        acknowledged; a larger one is for new connections. Listeners offer what it carries."""
        self._calls.engine.capabilities.check_mtu(mtu)
        self._ifp.if_mtu = mtu
        for _, tp in self._connections():
            with self._stack.tcbinfo.lock, tp.t_inpcb.lock:
                tcp_output_error(tp, tcp_mtudisc(tp, mtu))
        with self._stack.tcbinfo.lock:
            for tp in self._stack.listeners():
                with tp.t_inpcb.lock:
                    tcp_gen_listen_open(tp)

    def _connections(self) -> Iterator[tuple[toepcb, tcpcb]]:
        """Established connections that have their tcpcb."""
        for toep in list(self._calls.engine.ids.toepcbs):
            if (
                toep is not None
                and toep.tp is not None
                and toep.flags & (TP_ESTABLISHED | TP_TERMINAL) == TP_ESTABLISHED
            ):
                yield toep, toep.tp

    def _give_up(self) -> None:
        """The outage has lasted too long."""
        self._timer = self._stack.callout(self._limit_us, self._give_up)
        for toep, tp in self._connections():
            so = tp.t_inpcb.inp_socket
            waits = so is not None and so.so_snd.tail != toep.snd_told
            closing = self._calls.closing(tp) and not toep.flags & TP_FIN_SENT
            if waits or closing:
                with self._stack.tcbinfo.lock, tp.t_inpcb.lock:
                    tcp_drop(tp, errno.ENETDOWN)
