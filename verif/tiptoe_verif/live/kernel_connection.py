"""One connection that is not offloaded, and the kernel's socket that carries it (contract: GEN-1).

Bytes move between the stack's socket buffers and the kernel's; ``t_state`` follows the kernel's state.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum
from typing import Protocol

from tiptoe_driver import Stack
from tiptoe_driver.netinet import structures
from tiptoe_driver.netinet.sockbuf import SBS_CANTRCVMORE, sbcommit, sbdrop, sbspace
from tiptoe_driver.netinet.socketvar import sorwakeup, sowwakeup
from tiptoe_driver.netinet.software import tcp_ended, tcp_established, tcp_fin_acked, tcp_fin_received
from tiptoe_driver.netinet.structures import SS_NOFDREF, TF_MORETOCOME, TF_RCVD_SCALE, tcpcb
from tiptoe_driver.netinet.tcp_fill_info import tcp_fill_info
from tiptoe_driver.netinet.tcp_fsm import (
    TCPS_CLOSE_WAIT,
    TCPS_CLOSED,
    TCPS_CLOSING,
    TCPS_ESTABLISHED,
    TCPS_FIN_WAIT_1,
    TCPS_FIN_WAIT_2,
    TCPS_LAST_ACK,
    TCPS_SYN_SENT,
    TCPS_TIME_WAIT,
)
from tiptoe_driver.netinet.tcp_info import NO_SSTHRESH, tcp_info
from tiptoe_driver.netinet.tcp_subr import tcp_close, tcp_drop
from tiptoe_driver.netinet.tcp_timer import tcp_progress

from .relay import RESET

_SENDS_FIN = (TCPS_FIN_WAIT_1, TCPS_CLOSING, TCPS_LAST_ACK)
_SCRATCH = bytearray(1 << 16)
_CA_RECOVERY = 3
"""tcpi_ca_state in fast recovery."""


class Linux(IntEnum):
    """States of the kernel's TCP (net/tcp_states.h)."""

    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT2 = 5
    CLOSE = 7


def info_of_linux(tp: tcpcb, raw: bytes) -> tcp_info:
    """From Linux's struct tcp_info, as far as :meth:`Connection.kernel_state` asks for it; what it does not tell is 0."""
    words = struct.unpack_from("=24I", raw, 8)
    mss = words[2]
    ssthresh = NO_SSTHRESH if words[17] >= 0x7FFF_FFFF else words[17] * mss
    return replace(
        tcp_fill_info(tp), tcpi_snd_mss=mss, tcpi_pmtu=words[13], tcpi_rto=words[0], tcpi_rtt=words[15], tcpi_rttvar=words[16],
        tcpi_snd_ssthresh=ssthresh, tcpi_snd_cwnd=words[18] * mss, tcpi_rcv_space=words[22],
        tcpi_unacked=words[4] * mss, tcpi_snd_rexmitpack=words[23], tcpi_rxtshift=raw[2], tcpi_persist=raw[3] > 0,
        tcpi_probes=raw[3], tcpi_sack=bool(raw[5] & 2), tcpi_ecn=bool(raw[5] & 8), tcpi_ecn_seen=bool(raw[5] & 16),  # TCPI_OPT_*
        tcpi_in_recovery=raw[1] == _CA_RECOVERY,
    )  # fmt: skip


class Kernel(Protocol):
    """What a connection needs of the software TCP it belongs to."""

    stack: Stack

    def again(self, link: Connection) -> None:
        """Give it a turn in the next ``poll``, and make that come soon."""

    def close(self, tp: tcpcb) -> None:
        """Part with the kernel's socket."""

    def time_wait(self, tp: tcpcb, *, forget: bool) -> None:
        """The kernel keeps TIME_WAIT alone. With ``forget`` nobody here has to know of it."""


class Connection:
    """A connection of the stack, and the kernel's behind it."""

    def __init__(self, tcp: Kernel, tp: tcpcb, kernel: socket.socket, *, accepted: bool = False) -> None:
        self._tcp, self.tp, self.kernel, self._accepted = tcp, tp, kernel, accepted
        self.over = False
        self._error = 0
        self._fin_sent = self._fin_received = False
        self._starved = False  # so_rcv had no room: the kernel may have more

    @contextlib.contextmanager
    def _kernel_call(self) -> Iterator[None]:
        """What the kernel says of the connection's end is for the next turn, which may have the lock P."""
        try:
            yield
        except BlockingIOError:
            pass
        except OSError as error:
            self._error = error.errno or errno.EIO
            self._tcp.again(self)

    def kernel_state(self) -> tuple[int, bytes]:
        """State of the kernel's connection, and struct tcp_info."""
        info = self.kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return info[0], info

    def learn(self, info: bytes) -> None:
        """What the handshake has agreed on."""
        tp = self.tp
        tp.t_maxseg = int.from_bytes(info[16:20], "little")
        if info[5] & 4:  # TCPI_OPT_WSCALE
            tp.t_flags |= TF_RCVD_SCALE
            tp.snd_scale, tp.rcv_scale = info[6] & 0xF, info[6] >> 4

    # --- from the stack ---

    def output(self) -> None:
        """tcp_output. I is held."""
        if self.tp.t_state == TCPS_CLOSED:
            with contextlib.suppress(OSError):
                self.kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._tcp.close(self.tp)
            return
        self._send()
        so = self.tp.t_inpcb.inp_socket
        if so is not None and (self._starved or so.so_rcv.sb_state & SBS_CANTRCVMORE):
            self._tcp.again(self)

    def _send(self) -> None:
        """Give the kernel what is in so_snd, and the FIN when the state says so."""
        so = self.tp.t_inpcb.inp_socket
        if so is None or self.tp.t_state < TCPS_ESTABLISHED or self._error:
            return
        sb, taken = so.so_snd, 0
        with self._kernel_call():
            while sb.sb_cc and sb.ring is not None:
                more = socket.MSG_MORE if self.tp.t_flags & TF_MORETOCOME else 0
                count = self.kernel.send(sb.ring.pieces(sb.head, sb.sb_cc)[0], more)
                taken += count
                with so.lock:
                    sbdrop(sb, count)
            if self.tp.t_state in _SENDS_FIN and not self._fin_sent:
                self._fin_sent = True
                self.kernel.shutdown(socket.SHUT_WR)
        if taken:
            tcp_progress(self.tp)  # the rest of the user timeout is the kernel's
            sowwakeup(so)

    # --- from the kernel ---

    def turn(self) -> None:
        """Move what can be moved, and follow the kernel's state."""
        inp = self.tp.t_inpcb
        with self._tcp.stack.tcbinfo.lock, inp.lock:
            so = inp.inp_socket
            if so is not None:
                self._follow(so)

    def _follow(self, so: structures.socket) -> None:
        tp = self.tp
        state, info = self.kernel_state()
        if state == Linux.CLOSE and not self._error:
            self._error = self.kernel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if tp.t_state == TCPS_SYN_SENT:
            if state in (Linux.SYN_SENT, Linux.SYN_RECV):
                return
            if self._error:
                tcp_drop(tp, self._error)
                return
            self.learn(info)
            tcp_established(tp, so)
        self._send()
        if self._fin_sent and state in (Linux.FIN_WAIT2, Linux.CLOSE) and not self._error:
            tcp_fin_acked(tp, so)
        if not self.over:
            self._receive(so)
        if self.over:
            return
        if self._error:
            tcp_ended(tp, so, self._error)
        elif tp.t_state == TCPS_TIME_WAIT:
            self._tcp.time_wait(tp, forget=self._accepted and bool(so.so_state & SS_NOFDREF))
        elif tp.t_state == TCPS_FIN_WAIT_2 and so.so_state & SS_NOFDREF:
            tcp_close(tp)  # the kernel waits for the peer's FIN, for as long as it finds right

    def _receive(self, so: structures.socket) -> None:
        """Take what the kernel has as far as so_rcv has room."""
        tp, sb, arrived = self.tp, so.so_rcv, False
        unwanted = bool(sb.sb_state & SBS_CANTRCVMORE)
        self._starved = False
        with self._kernel_call():
            while not self._fin_received:
                room = memoryview(_SCRATCH)
                if not unwanted:
                    self._starved = not sbspace(sb)
                    if self._starved or sb.ring is None:
                        break
                    room = sb.ring.pieces(sb.tail, sbspace(sb))[0]
                count = self.kernel.recv_into(room)
                if not count:
                    self._fin_received = True
                    tcp_fin_received(tp, so)
                elif not unwanted:
                    with so.lock:
                        sbcommit(sb, count)
                    arrived = True
                elif so.so_state & SS_NOFDREF and tp.t_state > TCPS_CLOSE_WAIT:
                    tcp_drop(tp, errno.ECONNABORTED)  # unread at the close, or come after it: nobody will ever read it
                    return
        if arrived:
            sorwakeup(so)
