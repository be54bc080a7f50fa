"""The software TCP of the host: connections that are not offloaded are sockets of a Linux kernel (contract: GEN-1).

A connection's bytes move between its socket buffers and a kernel socket bound to the same address and port
(kernel_connection.py). Sockets report through one epoll, edge-triggered, and get their turn in ``poll``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable
from functools import partial

from tiptoe_driver import Stack
from tiptoe_driver.netinet import structures
from tiptoe_driver.netinet.clock import Callout
from tiptoe_driver.netinet.in6 import format_address, parse_ipv6, unmapped
from tiptoe_driver.netinet.in_pcb import in_pcbaccept
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_driver.netinet.socketvar import soisconnected
from tiptoe_driver.netinet.software import sballoc
from tiptoe_driver.netinet.structures import INP_TIMEWAIT, inpcb, intotcpcb, sotoinpcb, tcpcb
from tiptoe_driver.netinet.syncache import inherit
from tiptoe_driver.netinet.tcp_fsm import TCPS_ESTABLISHED, TCPS_SYN_SENT
from tiptoe_driver.netinet.tcp_info import tcp_info
from tiptoe_driver.netinet.tcp_subr import release_socket, tcp_close
from tiptoe_driver.netinet.uipc_socket import sonewconn

from .kernel_connection import Connection, info_of_linux
from .relay import RESET

TIME_WAIT_US = 60_000_000
"""How long Linux keeps a connection in TIME_WAIT (TCP_TIMEWAIT_LEN)."""
MOST_TIME_WAITS = 4096
"""Four-tuples that stay taken for it; the oldest makes room."""
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


def _on_v6(inp: inpcb) -> bool:
    """Also of one that listens for both versions."""
    return bool(inp.inp_vflag & structures.INP_IPV6)


def _name(inp: inpcb, address: int, port: int) -> tuple[str, int]:
    return format_address(address) if address or not _on_v6(inp) else "::", port


def _address(text: str) -> int:
    return unmapped(parse_ipv6(text)) if ":" in text else parse_ipv4(text)


def _set_ip_header(kernel: socket.socket, tp: tcpcb) -> None:
    inp = tp.t_inpcb
    if inp.inp_vflag & structures.INP_IPV6:
        kernel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, inp.inp_ip_tos)
        kernel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, inp.inp_ip_ttl)
    if inp.inp_vflag & structures.INP_IPV4:
        kernel.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, inp.inp_ip_tos)
        kernel.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, inp.inp_ip_ttl)


_KEEPALIVE = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


def _set_keepalive(kernel: socket.socket, tp: tcpcb) -> None:
    so = tp.t_inpcb.inp_socket
    assert so is not None
    for name, value in zip(_KEEPALIVE, (tp.t_keepidle, tp.t_keepintvl, tp.t_keepcnt), strict=True):
        kernel.setsockopt(socket.IPPROTO_TCP, name, value)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(bool(so.so_options & structures.SO_KEEPALIVE)))


_TCP_FLAGS = {socket.TCP_NODELAY: structures.TF_NODELAY, socket.TCP_CORK: structures.TF_NOPUSH}


class KernelTcp:
    """A SoftwareTcp over the sockets of a kernel.

    Parameters
    ----------
    make_socket : callable
        Makes a TCP socket of a family in the network that has the stack's addresses.

    Attributes
    ----------
    epoll : select.epoll
        Readable when ``poll`` has work.
    opened, accepted : int
        Connections begun here, and taken from listening sockets.
    """

    def __init__(self, stack: Stack, make_socket: Callable[[int], socket.socket]) -> None:
        self.stack = stack
        self._make_socket = make_socket
        self.epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.epoll.register(self._wake, select.EPOLLIN)
        self._links: dict[tcpcb, Connection | Listener] = {}
        self._by_descriptor: dict[int, Connection | Listener] = {}
        self._ready: dict[Connection | Listener, None] = {}
        self._full: set[Listener] = set()
        self._time_waits: dict[tcpcb, Callout] = {}
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
        limit = self._time_waits.pop(tp, None)
        if limit is not None:
            limit.cancel()
            tp.t_inpcb.inp_tw = None
        link = self._links.pop(tp, None)
        if link is not None:
            link.over = True
            self._by_descriptor.pop(link.kernel.fileno(), None)
            self._ready.pop(link, None)
            self._full.discard(link)  # type: ignore[arg-type]
            link.kernel.close()

    def time_wait(self, tp: tcpcb, *, forget: bool) -> None:
        """The kernel keeps TIME_WAIT by itself; here a four-tuple stays taken for as long, and nothing else is left.

        Not even that with ``forget``: who has accepted a connection and closed it chooses no port. P and I are held.
        """
        self.close(tp)
        inp = tp.t_inpcb
        if forget:
            tcp_close(tp)
            return
        inp.inp_tw = self  # the inpcb stays without its socket
        release_socket(inp)
        self._time_waits[tp] = self.stack.callout(TIME_WAIT_US, partial(self._time_wait_over, tp))

    def _time_wait_over(self, tp: tcpcb) -> None:
        with self.stack.tcbinfo.lock, tp.t_inpcb.lock:
            if tp in self._time_waits:
                tcp_close(tp)

    def ctloutput(self, tp: tcpcb, level: int, name: int) -> None:
        """Type of service, time to live, segment size, Nagle and cork, keep-alive; congestion control is the kernel's own."""
        link = self._links.get(tp)
        if link is None:
            return
        with contextlib.suppress(OSError):  # it may be over
            if level == socket.IPPROTO_IP:
                _set_ip_header(link.kernel, tp)
            elif name in _TCP_FLAGS:
                link.kernel.setsockopt(level, name, int(bool(tp.t_flags & _TCP_FLAGS[name])))
            elif level == socket.SOL_SOCKET or name in _KEEPALIVE:
                _set_keepalive(link.kernel, tp)
            elif name == socket.TCP_USER_TIMEOUT:
                link.kernel.setsockopt(level, name, tp.t_user_timeout)
            elif name == socket.TCP_MAXSEG:
                link.kernel.setsockopt(level, name, tp.t_maxseg_user)

    def tcp_info(self, tp: tcpcb) -> tcp_info | None:
        """What the kernel knows of one of its connections."""
        link = self._links.get(tp)
        if not isinstance(link, Connection):
            return None
        try:
            return info_of_linux(tp, link.kernel_state()[1])
        except OSError:
            return None

    # --- sockets ---

    def _bound(self, tp: tcpcb) -> socket.socket:
        """A kernel socket with the local address and port and the options of ``tp``."""
        inp, so = tp.t_inpcb, tp.t_inpcb.inp_socket
        assert so is not None
        kernel = self._make_socket(socket.AF_INET6 if _on_v6(inp) else socket.AF_INET)
        try:
            kernel.setblocking(False)
            if _on_v6(inp):
                kernel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not inp.inp_vflag & structures.INP_IPV4))
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # no byte is lost; accepted ones inherit it
            for name, flag in _TCP_FLAGS.items():
                kernel.setsockopt(socket.IPPROTO_TCP, name, int(bool(tp.t_flags & flag)))
            _set_keepalive(kernel, tp)
            kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, tp.t_user_timeout)
            if tp.t_maxseg_user:
                kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, tp.t_maxseg_user)
            _set_ip_header(kernel, tp)
            kernel.bind(_name(inp, inp.inp_laddr, inp.inp_lport))
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
        error = kernel.connect_ex(_name(inp, inp.inp_faddr, inp.inp_fport))
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
        four_tuple = _address(local[0]), local[1], _address(peer[0]), peer[1]
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
            in_pcbaccept(inp, four_tuple)
            sballoc(so, self.stack)
            kernel.setblocking(False)
            link = Connection(self, tp, kernel, accepted=True)
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
        while len(self._time_waits) > MOST_TIME_WAITS:
            self._time_wait_over(next(iter(self._time_waits)))
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
