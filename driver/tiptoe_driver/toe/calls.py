"""toe_usrreqs on the engine: what a call of the stack writes to rings, doorbells and commands (contract: SEND, RCVD,
DISC, RESET, DETACH).

Calls come with the inpcb lock I held. They write memory, doorbells and commands, and never wait.
"""

from __future__ import annotations

import errno

from ..hardware import abi_gen as abi
from ..hardware.engine import Engine
from ..hardware.positions import advance, distance, is_after
from ..hardware.toepcb import (
    TP_ABORT_SENT,
    TP_ATTACHED,
    TP_ESTABLISHED,
    TP_EVENTS_PENDING,
    TP_FIN_SENT,
    TP_FIN_WAIT_2,
    TP_PEER_CLOSED,
    TP_RELEASING,
    TP_RESOLVING,
    TP_SEND_FIN,
    TP_TERMINAL,
    toepcb,
)
from ..netinet.if_var import ifnet
from ..netinet.offload import tcp_gen_send
from ..netinet.sockbuf import SBS_CANTRCVMORE, sbattach, sbflush
from ..netinet.stack import Stack
from ..netinet.structures import SS_ISDISCONNECTING, TF_NEEDFIN, TF_SENTFIN, TF_TOE, tcpcb, toe_usrreqs, toedev
from ..netinet.tcp_errors import TCP_MINMSS, tcp_output_error
from ..netinet.tcp_fsm import TCPS_CLOSING, TCPS_FIN_WAIT_1, TCPS_FIN_WAIT_2, TCPS_LAST_ACK
from ..netinet.tcp_output import tcp_told
from ..netinet.tcp_pmtu import ip_tcp_headers
from ..netinet.tcp_subr import tcp_drop
from .black_holes import BlackHoles
from .held_data import HeldData
from .mtu_probe import MtuProbes
from .orphans import Orphans
from .sent import SentQueries
from .socket_options import ToeOptions


class ToeCalls:
    """The calls for attached connections, and the life of a toepcb between tcpcb and engine.

    Attributes
    ----------
    usrreqs : toe_usrreqs
        Given to every offloaded tcpcb.
    tod : toedev
        Likewise.
    options : ToeOptions
    held : HeldData
    sent : SentQueries
    black_holes : BlackHoles
    probes : MtuProbes
    orphans : Orphans
    four_tuples : set
        Connections that the engine has, or will have when OPEN is posted.
    """

    usrreqs: toe_usrreqs
    tod: toedev

    def __init__(self, stack: Stack, engine: Engine, ifp: ifnet) -> None:
        self._stack = stack
        self.engine = engine
        self.options = ToeOptions(engine, self.order)
        self.held = HeldData(stack)
        self.sent = SentQueries(self.options)
        self.black_holes = BlackHoles(stack, engine, self.options)
        self.probes = MtuProbes(stack, engine, self.options)
        self.orphans = Orphans(stack, engine, ifp, self.abort)
        self._ifp = ifp
        self.four_tuples: set[tuple[int, int, int, int]] = set()

    def max_mss(self, tp: tcpcb) -> int:
        """Largest segment that interface and engine carry now, in bytes of payload."""
        mtu = min(self._ifp.if_mtu, self.engine.capabilities.max_mtu)
        return max(mtu - ip_tcp_headers(tp.t_inpcb), TCP_MINMSS)

    def own_mss(self, tp: tcpcb, headers: int = 0) -> int:
        """Largest segment that ``tp``, a listener too, offers to take and sends: what its user wants, if that is less.
        ``headers``: so many bytes more than usual."""
        most = max(self.max_mss(tp) - headers, TCP_MINMSS)
        return min(tp.t_maxseg_user or most, most)

    # ------------------------------------------------------------------ toe_usrreqs

    def tu_send(self, tp: tcpcb) -> int:
        """New data may be in so_snd, some of it urgent (``so_snd.oobmark``); in a closing state its FIN follows it. ENETDOWN,
        EMSGSIZE: see push."""
        toep = self.usable(tp)
        if toep is None:
            return errno.EPERM
        return self.push(toep, tp, TP_SEND_FIN if self.closing(tp) else 0)

    def tu_rcvd(self, tp: tcpcb) -> int:
        """Data may have been consumed from so_rcv."""
        toep = self.usable(tp)
        if toep is None:
            return errno.EPERM
        self.return_credits(toep, tp)
        return 0

    def tu_disconnect(self, tp: tcpcb) -> int:
        """The data that waits, then FIN; a second call does nothing."""
        toep = self.usable(tp)
        if toep is None:
            return errno.EPERM
        error = self.push(toep, tp, TP_SEND_FIN)
        if not error:
            self.return_credits(toep, tp)  # close throws away what was not read
        so = tp.t_inpcb.inp_socket
        if tp.t_state == TCPS_FIN_WAIT_2 and so is not None and so.so_rcv.sb_state & SBS_CANTRCVMORE:
            self.limit_fin_wait_2(toep)
        if so is not None and so.so_state & SS_ISDISCONNECTING:
            self.orphans.begin(toep, tp)
        return error

    def tu_reset(self, tp: tcpcb) -> int:
        """RST to the peer; the toepcb is detached."""
        toep = self.usable(tp)
        if toep is None:
            return errno.EPERM
        so = tp.t_inpcb.inp_socket
        if so is not None:
            with so.lock:
                sbflush(so.so_snd)
        self.abort(toep)
        self.detach(toep)
        return 0

    def tu_detach(self, tp: tcpcb) -> None:
        """The socket goes away. A connection whose FIN is on its way completes without it; any other is reset."""
        tp.t_inpcb.lock.require()
        toep = tp.t_toe
        if toep is None:
            return
        if not toep.flags & TP_FIN_SENT:
            self.abort(toep)
        elif tp.t_state == TCPS_FIN_WAIT_2:
            self.limit_fin_wait_2(toep)
        else:
            self.orphans.begin(toep, tp)
        self.detach(toep)

    # ------------------------------------------------------------------ what they are made of

    def usable(self, tp: tcpcb) -> toepcb | None:
        """The toepcb of a connection that calls may still be made for. I is held."""
        tp.t_inpcb.lock.require()
        toep = tp.t_toe
        if toep is None or toep.tp is not tp or toep.flags & TP_ABORT_SENT:
            return None
        return toep

    @staticmethod
    def closing(tp: tcpcb) -> bool:
        """Whether the user has closed the send side: a FIN follows the data."""
        return bool(tp.t_state in (TCPS_FIN_WAIT_1, TCPS_CLOSING, TCPS_LAST_ACK) or tp.t_flags & TF_NEEDFIN)

    def push(self, toep: toepcb, tp: tcpcb, send_fin: int = 0) -> int:
        """Tell the device how far so_snd reaches, where urgent data ends, that the FIN follows (``send_fin``: TP_SEND_FIN), and
        another t_maxseg.

        EPERM: there is data behind the FIN. ENETDOWN: link down. EMSGSIZE: the interface's MTU has become less than
        the segments of the connection. On an error the device is told nothing; without news there is none.
        """
        so = tp.t_inpcb.inp_socket
        if so is None or toep.flags & (TP_ESTABLISHED | TP_TERMINAL) != TP_ESTABLISHED:
            toep.flags |= send_fin
            return 0  # what is in the ring goes out when the connection is established
        send_fin = 0 if toep.flags & TP_FIN_SENT else toep.flags & TP_SEND_FIN | send_fin
        end = so.so_snd.tail
        if not send_fin:
            end = self.probes.sendable(toep, tp, so.so_snd, self.held.sendable(toep, tp, so.so_snd))
        shrinks = tp.t_maxseg < toep.maxseg
        mark = so.so_snd.oobmark
        urgent = mark is not None and advance(mark, 1) != toep.urgent_told
        if urgent or send_fin or tp.t_maxseg != toep.maxseg or end != toep.snd_told:
            if toep.flags & TP_FIN_SENT and end != toep.snd_told:
                return errno.EPERM
            if not self._ifp.if_up:
                return errno.ENETDOWN
            if tp.t_maxseg > self.max_mss(tp):
                return errno.EMSGSIZE
        if tp.t_maxseg != toep.maxseg:
            toep.maxseg = tp.t_maxseg
            self.engine.commands.post_control(abi.pack_path_mtu(0, tid=toep.tid, mss=tp.t_maxseg))
            if shrinks or self.probes.under_way(toep):
                self.order(toep)  # what does not fit must not go first, nor a probe as smaller ones
        if urgent:
            self._urgent(toep, tp, advance(so.so_snd.oobmark or 0, 1))
        if send_fin:
            toep.flags |= TP_SEND_FIN | TP_FIN_SENT
            tp.t_flags |= TF_SENTFIN
            self.engine.commands.post_control(abi.pack_close(0, tid=toep.tid, snd_end=end))
        elif toep.unanswered:
            return 0  # told when the engine has answered
        elif end != toep.snd_told:
            self.engine.send_doorbell(toep, end)
        told, toep.snd_told = toep.snd_told, end
        tp.snd_nxt = tp.snd_max = advance(tp.iss + 1, end)
        tcp_told(tp, told, end)
        self.sent.ask(toep, tp)
        return 0

    def _urgent(self, toep: toepcb, tp: tcpcb, end: int) -> None:
        """Urgent data ends at ``end``. Nothing holds it back (as in Linux and FreeBSD), and no data behind it may go first: the
        peer would have passed the mark before it hears of it."""
        toep.urgent_told = end
        tp.snd_up = advance(tp.iss + 1, end)
        self.engine.commands.post_control(abi.pack_urgent(0, tid=toep.tid, snd_end=end))
        if is_after(end, toep.snd_told):
            told, toep.snd_told = toep.snd_told, end
            tp.snd_nxt = tp.snd_max = tp.snd_up
            tcp_told(tp, told, end)
        self.order(toep)

    def order(self, toep: toepcb) -> None:
        """What is sent from now on is sent by the commands posted so far: a doorbell is a register, and would overtake them in
        memory. Commands are carried out in order and READ_TCB is always answered, so the wait ends; CLOSE and what it sends
        keep the order by themselves. A reset of the engine ends the connection."""
        toep.unanswered += 1

        def done(event: abi.CommandDoneEvent) -> None:
            toep.unanswered -= 1
            tp = toep.tp
            if tp is not None and not toep.unanswered:
                with tp.t_inpcb.lock:
                    if toep.tp is tp:
                        tcp_output_error(tp, tcp_gen_send(tp))

        commands = self.engine.commands
        commands.post_control(abi.pack_read_tcb(commands.tag_event(done), tid=toep.tid, page=0))

    def return_credits(self, toep: toepcb, tp: tcpcb) -> None:
        """Give what was consumed from so_rcv since last time back to the device."""
        so = tp.t_inpcb.inp_socket
        if so is None or toep.flags & (TP_ESTABLISHED | TP_TERMINAL) != TP_ESTABLISHED:
            return
        consumed = so.so_rcv.head
        count = distance(consumed, toep.rcv_credited)
        if count:
            toep.rcv_credited = consumed
            toep.credits += count
            self.engine.receive_doorbell(toep, consumed)
        self.update_window(toep, tp)

    @staticmethod
    def update_window(toep: toepcb, tp: tcpcb) -> None:
        """The receive window as the device may advertise it."""
        tp.rcv_wnd = toep.rings.rcv.size - distance(toep.rcv_position, toep.rcv_credited)
        tp.rcv_adv = advance(tp.rcv_nxt, tp.rcv_wnd)

    def abort(self, toep: toepcb) -> None:
        """Have the device send a RST, once, if it knows the connection."""
        if toep.flags & (TP_EVENTS_PENDING | TP_ABORT_SENT | TP_TERMINAL) == TP_EVENTS_PENDING:
            self.engine.commands.post_control(abi.pack_abort(0, tid=toep.tid))
        toep.flags |= TP_ABORT_SENT

    def limit_fin_wait_2(self, toep: toepcb) -> None:
        """Nobody will read any more: the peer's FIN is waited for ``fin_wait_2_us``, then the connection is reset."""
        if not toep.flags & TP_FIN_WAIT_2:
            toep.flags |= TP_FIN_WAIT_2
            toep.fin_wait_2 = self._stack.callout(
                self.engine.options.fin_wait_2_us, lambda: self._fin_wait_2_over(toep)
            )

    def _fin_wait_2_over(self, toep: toepcb) -> None:
        if toep.flags & (TP_TERMINAL | TP_PEER_CLOSED):
            return
        tp = toep.tp
        if tp is not None:
            with self._stack.tcbinfo.lock, tp.t_inpcb.lock:
                if toep.tp is tp:
                    tcp_drop(tp, errno.ETIMEDOUT)
        self.abort(toep)  # of a connection detached; the other has been

    # ------------------------------------------------------------------ toepcb

    def attach(self, toep: toepcb, tp: tcpcb) -> None:
        """Make ``tp`` an offloaded connection: its socket buffers are the rings of ``toep`` from now on."""
        so = tp.t_inpcb.inp_socket
        if so is None:
            raise ValueError("tcpcb without a socket")
        so.so_rings = toep.rings.hold()
        sbattach(so.so_snd, toep.rings.snd)
        sbattach(so.so_rcv, toep.rings.rcv)
        so.so_rcv.sb_hiwat = toep.rings.rcv.size  # the device may fill all of it
        tp.t_maxseg = toep.maxseg = self.own_mss(tp)
        toep.tp = tp
        toep.flags |= TP_ATTACHED
        toep.refcount += 1
        tp.t_toe = toep
        tp.t_tu = self.usrreqs
        tp.tod = self.tod
        tp.t_flags |= TF_TOE
        self.black_holes.watch()

    def detach(self, toep: toepcb) -> None:
        """Part tcpcb and toepcb."""
        tp = toep.tp
        if tp is not None:
            tp.t_toe = None
            tp.t_tu = tp.tod = None
            tp.t_flags &= ~TF_TOE
        toep.tp = None
        self.probes.forget(toep)
        self.let_go(toep, TP_ATTACHED)

    def let_go(self, toep: toepcb, flag: int) -> None:
        """Clear ATTACHED or EVENTS_PENDING; with the last of them the id is released."""
        if not toep.flags & flag:
            return
        toep.flags &= ~flag
        toep.refcount -= 1
        if toep.refcount:
            return
        self.four_tuples.discard(toep.four_tuple)
        if toep.flags & TP_RESOLVING:  # the device knows nothing of the connection
            self.engine.ids.give_back(toep)
        elif not toep.flags & TP_RELEASING:
            self.engine.ids.release(toep)
