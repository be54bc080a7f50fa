"""The software TCP of the host: connections that are not offloaded are sockets of a Linux kernel (contract: GEN-1).

A connection's bytes move between its socket buffers and a kernel socket bound to the same address and port; ``t_state``
follows the kernel's state. Sockets report through one epoll, edge-triggered, and get their turn in ``poll``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import IntEnum
from functools import partial

from tiptoe_driver import Stack
from tiptoe_driver.netinet import structures
from tiptoe_driver.netinet.routes import format_ipv4, parse_ipv4
from tiptoe_driver.netinet.sockbuf import SBS_CANTRCVMORE, sbcommit, sbdrop, sbspace
from tiptoe_driver.netinet.socketvar import soisconnected, sorwakeup, sowwakeup
from tiptoe_driver.netinet.software import sballoc, tcp_ended, tcp_established, tcp_fin_acked, tcp_fin_received
from tiptoe_driver.netinet.structures import INP_TIMEWAIT, SS_NOFDREF, TF_RCVD_SCALE, inpcb, intotcpcb, sotoinpcb, tcpcb
from tiptoe_driver.netinet.syncache import inherit
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
from tiptoe_driver.netinet.uipc_socket import sonewconn

from .relay import RESET

TIME_WAIT_US = 60_000_000
"""How long Linux keeps a connection in TIME_WAIT (TCP_TIMEWAIT_LEN)."""
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
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


def _set_ip_header(kernel: socket.socket, tp: tcpcb) -> None:
    kernel.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tp.t_inpcb.inp_ip_tos)
    kernel.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, tp.t_inpcb.inp_ip_ttl)


def _info_of_linux(tp: tcpcb, raw: bytes) -> tcp_info:
    """From Linux's struct tcp_info, as far as :meth:`Connection.kernel_state` asks for it; what it does not tell is 0."""
    words = struct.unpack_from("=24I", raw, 8)
    mss = words[2]
    ssthresh = NO_SSTHRESH if words[17] >= 0x7FFF_FFFF else words[17] * mss
    return replace(
        tcp_fill_info(tp), tcpi_snd_mss=mss, tcpi_rto=words[0], tcpi_rtt=words[15], tcpi_rttvar=words[16],
        tcpi_snd_ssthresh=ssthresh, tcpi_snd_cwnd=words[18] * mss, tcpi_rcv_space=words[22],
        tcpi_unacked=words[4] * mss, tcpi_snd_rexmitpack=words[23], tcpi_rxtshift=raw[2], tcpi_persist=raw[3] > 0,
        tcpi_in_recovery=raw[1] == _CA_RECOVERY,
    )  # fmt: skip


class KernelTcp:
    """A SoftwareTcp over the sockets of a kernel.

    Parameters
    ----------
    make_socket : callable
        Makes a TCP socket in the network that has the stack's addresses.

    Attributes
    ----------
    epoll : select.epoll
        Readable when ``poll`` has work.
    opened, accepted : int
        Connections begun here, and taken from listening sockets.
    """

    def __init__(self, stack: Stack, make_socket: Callable[[], socket.socket]) -> None:
        self.stack = stack
        self._make_socket = make_socket
        self.epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.epoll.register(self._wake, select.EPOLLIN)
        self._links: dict[tcpcb, Connection | Listener] = {}
        self._by_descriptor: dict[int, Connection | Listener] = {}
        self._ready: dict[Connection | Listener, None] = {}
        self._full: set[Listener] = set()
        self.opened = self.accepted = 0

    @property
    def open(self) -> int:
        """Sockets of the kernel that somebody here still has."""
        return len(self._links)

    # --- SoftwareTcp ---

    def output(self, tp: tcpcb) -> int:
        """tcp_output: see :class:`tiptoe_driver.netinet.software.SoftwareTcp`."""
        link = self._links.get(tp)
        if link is None:
            return self._connect(tp) if tp.t_state == TCPS_SYN_SENT else errno.ENOTCONN
        if isinstance(link, Connection):
            link.output()
        return 0

    def listen(self, tp: tcpcb) -> int:
        """Listen in the kernel: it gets the SYNs of ports that no device listens on."""
        so = tp.t_inpcb.inp_socket
        assert so is not None
        link = self._links.get(tp)
        try:
            if link is None:
                kernel = self._bound(tp)
                link = self._add(Listener(self, tp, kernel))
            link.kernel.listen(so.so_qlimit)
        except OSError as error:
            self.close(tp)
            return error.errno or errno.ENOBUFS
        return 0

    def close(self, tp: tcpcb) -> None:
        """Part with the kernel's socket; what the kernel has still to do for the connection, it does alone."""
        link = self._links.pop(tp, None)
        if link is not None:
            link.over = True
            self._by_descriptor.pop(link.kernel.fileno(), None)
            self._ready.pop(link, None)
            self._full.discard(link)  # type: ignore[arg-type]
            link.kernel.close()

    def ctloutput(self, tp: tcpcb, level: int, name: int) -> None:
        """Type of service and time to live; congestion control is the kernel's own."""
        link = self._links.get(tp)
        if link is not None and level == socket.IPPROTO_IP:
            with contextlib.suppress(OSError):  # it may be over
                _set_ip_header(link.kernel, tp)

    def tcp_info(self, tp: tcpcb) -> tcp_info | None:
        """What the kernel knows of one of its connections."""
        link = self._links.get(tp)
        if not isinstance(link, Connection):
            return None
        try:
            return _info_of_linux(tp, link.kernel_state()[1])
        except OSError:
            return None

    # --- sockets ---

    def _bound(self, tp: tcpcb) -> socket.socket:
        """A kernel socket with the local address and port and the options of ``tp``."""
        inp, so = tp.t_inpcb, tp.t_inpcb.inp_socket
        assert so is not None
        kernel = self._make_socket()
        try:
            kernel.setblocking(False)
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if so.so_options & structures.SO_KEEPALIVE:
                kernel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if tp.t_maxseg_user:
                kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, tp.t_maxseg_user)
            _set_ip_header(kernel, tp)
            kernel.bind((format_ipv4(inp.inp_laddr), inp.inp_lport))
        except BaseException:
            kernel.close()
            raise
        return kernel

    def _connect(self, tp: tcpcb) -> int:
        inp, so = tp.t_inpcb, tp.t_inpcb.inp_socket
        assert so is not None
        try:
            kernel = self._bound(tp)
        except OSError as refusal:
            return refusal.errno or errno.ENOBUFS
        error = kernel.connect_ex((format_ipv4(inp.inp_faddr), inp.inp_fport))
        if error not in (0, errno.EINPROGRESS):
            kernel.close()
            return error
        sballoc(so, self.stack)
        self.opened += 1
        self.again(self._add(Connection(self, tp, kernel)))
        return 0

    def accept(self, head: inpcb, kernel: socket.socket, peer: tuple[str, int]) -> None:
        """A connection of a listening socket of the kernel joins the accept queue of ``head``. P is held."""
        listener = head.inp_socket
        tcbinfo = self.stack.tcbinfo
        local = kernel.getsockname()
        four_tuple = parse_ipv4(local[0]), local[1], parse_ipv4(peer[0]), peer[1]
        old = tcbinfo.connected(four_tuple)
        if old is not None and old.inp_flags & INP_TIMEWAIT:
            with old.lock:
                tcp_close(intotcpcb(old))  # the kernel has recycled it
            old = None
        so = sonewconn(listener, self.stack) if listener is not None and old is None else None
        if so is None:
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            kernel.close()
            return
        inp = sotoinpcb(so)
        tp = intotcpcb(inp)
        with inp.lock:
            inp.inp_laddr = four_tuple[0]
            tcbinfo.add_port(inp, four_tuple[1])
            tcbinfo.set_foreign(inp, *four_tuple[2:])
            sballoc(so, self.stack)
            kernel.setblocking(False)
            link = Connection(self, tp, kernel)
            link.learn(link.kernel_state()[1])
            tp.t_state = TCPS_ESTABLISHED
            tp.t_starttime = self.stack.now_us()
            inherit(intotcpcb(head), tp)
            self.accepted += 1
            self.again(self._add(link))
        soisconnected(so)

    def _add(self, link: Connection | Listener) -> Connection | Listener:
        self._links[link.tp] = link
        self._by_descriptor[link.kernel.fileno()] = link
        self.epoll.register(link.kernel, _EVENTS)
        return link

    # --- turns ---

    def again(self, link: Connection | Listener) -> None:
        """Give ``link`` a turn in the next ``poll``, and make that come soon."""
        if not self._ready:
            os.eventfd_write(self._wake, 1)
        self._ready[link] = None

    def full(self, listener: Listener) -> None:
        """The accept queue is full: look again with every ``poll``, for accept tells nobody."""
        self._full.add(listener)

    def poll(self) -> bool:
        """Give every socket that has news its turn; whether there was one."""
        for descriptor, _ in self.epoll.poll(0):
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            elif (link := self._by_descriptor.get(descriptor)) is not None:
                self._ready[link] = None
        ready, self._ready = self._ready, {}
        for listener in self._full:
            if listener.room:
                ready[listener] = None
        self._full.difference_update(ready)  # type: ignore[arg-type]
        for link in ready:
            if not link.over:
                link.turn()
        return bool(ready)

    def shut_down(self) -> None:
        """Part with every socket."""
        for tp in list(self._links):
            self.close(tp)
        self.epoll.close()
        os.close(self._wake)


class Listener:
    """A listening socket of the stack, and the kernel's behind it."""

    def __init__(self, tcp: KernelTcp, tp: tcpcb, kernel: socket.socket) -> None:
        self._tcp, self.tp, self.kernel = tcp, tp, kernel
        self.over = False

    @property
    def room(self) -> bool:
        """Whether the accept queue takes another connection (see sonewconn)."""
        so = self.tp.t_inpcb.inp_socket
        return so is not None and len(so.so_comp) <= 3 * so.so_qlimit // 2

    def turn(self) -> None:
        """Take what has been established; the rest waits in the kernel's queue."""
        with self._tcp.stack.tcbinfo.lock:
            while self.room:
                try:
                    kernel, peer = self.kernel.accept()
                except BlockingIOError:
                    return
                except OSError:
                    break  # no descriptor left, or the connection is gone: look again
                self._tcp.accept(self.tp.t_inpcb, kernel, peer)
            self._tcp.full(self)


class Connection:
    """A connection of the stack, and the kernel's behind it."""

    def __init__(self, tcp: KernelTcp, tp: tcpcb, kernel: socket.socket) -> None:
        self._tcp, self.tp, self.kernel = tcp, tp, kernel
        self.over = False
        self._error = 0
        self._fin_sent = self._fin_received = False
        self._starved = False  # so_rcv had no room: the kernel may have more
        self._drained = False  # what came before the user had closed is thrown away

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
                count = self.kernel.send(sb.ring.pieces(sb.head, sb.sb_cc)[0])
                taken += count
                with so.lock:
                    sbdrop(sb, count)
            if self.tp.t_state in _SENDS_FIN and not self._fin_sent:
                self._fin_sent = True
                self.kernel.shutdown(socket.SHUT_WR)
        if taken:
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
            self._tcp.close(tp)
            self._tcp.stack.callout(TIME_WAIT_US, partial(self._time_wait_over, tp))
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
                elif self._drained and so.so_state & SS_NOFDREF and tp.t_state > TCPS_CLOSE_WAIT:
                    tcp_drop(tp, errno.ECONNABORTED)  # data after close: nobody will ever read it
                    return
        self._drained = unwanted
        if arrived:
            sorwakeup(so)

    def _time_wait_over(self, tp: tcpcb) -> None:
        with self._tcp.stack.tcbinfo.lock, tp.t_inpcb.lock:
            if tp.t_state == TCPS_TIME_WAIT:
                tcp_close(tp)
