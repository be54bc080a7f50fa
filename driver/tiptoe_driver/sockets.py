"""Sockets as an application programmer knows them from Python's standard library, over the offload devices.

A blocking call lets the device's time pass (``Stack.wait``) until it can return; in a simulation that runs the clock.
"""

from __future__ import annotations

import errno
import socket as stdlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .hardware.abi_gen import Congestion
from .hardware.user_buffers import UserBuffer
from .netinet.in6 import format_address, parse_ipv6
from .netinet.routes import format_ipv4, parse_ipv4
from .netinet.socketvar import PRUS_MORETOCOME, PRUS_OOB, soreadable, sowriteable
from .netinet.stack import Stack
from .netinet.structures import (
    INP_IPV4,
    SO_ACCEPTCONN,
    SO_NO_OFFLOAD,
    SS_ISCONNECTED,
    SS_ISCONNECTING,
    SS_NBIO,
    inpcb,
    sockaddr_in,
    socket,
    sotoinpcb,
    sototcpcb,
    tcp_congestion,
)
from .netinet.tcp_fill_info import tcp_ask_info, tcp_fill_info
from .netinet.tcp_info import linux_tcp_info, tcp_info
from .netinet.tcp_usrreq import tcp_usr_bind, tcp_usr_connect, tcp_usr_listen
from .netinet.uipc_oob import sockatmark, soexceptional, soreceive_oob, sourgent
from .netinet.uipc_socket import MSG_PEEK, soaccept, soclose, socreate, soreceive, soreceive_bytes, sosend, soshutdown
from .netinet.uipc_zerocopy import Views, solend, soreceive_done, soreceive_view, sosend_done, sosend_view
from .sockopt import TCP_NOPUSH, os_error, sogetopt, sosetopt, take_error

T = TypeVar("T")
Address = tuple[str, int]
"""Host and port. Of AF_INET6 there follow flow information and scope, which are 0; in an address given they may be missing."""
_MAPPED = "::ffff:"
"""Before an IPv4 address in a name of AF_INET6."""


def _parse(address: tuple[Any, ...], family: int) -> sockaddr_in:
    host, port, *rest = address
    if not 0 <= port <= 65535:
        raise OverflowError("port must be 0-65535.")
    try:
        if family == stdlib.AF_INET6:
            if any(rest):
                raise ValueError("no flows and no scopes")
            return sockaddr_in(parse_ipv6(host), port)
        if rest:
            raise TypeError("AF_INET address must be a pair (host, port)")
        return sockaddr_in(parse_ipv4(host), port)
    except ValueError as error:
        version = "IPv6" if family == stdlib.AF_INET6 else "IPv4"
        raise stdlib.gaierror(stdlib.EAI_NONAME, f"not an {version} address: {host!r}") from error


def _name(inp: inpcb, family: int, address: int, port: int) -> Any:
    """As the standard library tells it."""
    if family == stdlib.AF_INET:
        return format_ipv4(address), port
    if inp.inp_vflag == INP_IPV4:
        return _MAPPED + format_ipv4(address), port, 0, 0
    return format_address(address) if address else "::", port, 0, 0


class Socket:
    """A TCP socket on ``stack``. Arguments, results and errors are those of ``socket.socket`` where both have the call.

    A send before the connection is established is kept and goes out afterwards. A small segment waits while something is not
    acknowledged unless TCP_NODELAY is set. ``family``: AF_INET, or AF_INET6 for IPv6 alone, and without
    IPV6_V6ONLY for both versions, where ``::ffff:a.b.c.d`` names addresses of IPv4.
    Urgent data is what BSD's sockets make of it: its last byte, out of line unless
    SO_OOBINLINE is set.
    """

    def __init__(self, stack: Stack, _so: socket | None = None, *, family: int = stdlib.AF_INET) -> None:
        if family not in (stdlib.AF_INET, stdlib.AF_INET6):
            raise os_error(errno.EAFNOSUPPORT)
        self.stack = stack
        self.so: socket | None = socreate(stack, family) if _so is None else _so
        self.family = stdlib.AddressFamily(family if _so is None else _so.so_domain)
        self._timeout: float | None = None

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.so is None or self.so.so_pcb is None:
            return "<Socket closed>"
        inp = self.so.so_pcb
        return (
            f"<Socket {format_address(inp.inp_laddr)}:{inp.inp_lport} {format_address(inp.inp_faddr)}:{inp.inp_fport} "
            f"{sototcpcb(self.so).t_state.name}>"
        )

    # ------------------------------------------------------------------ names

    def bind(self, address: tuple[Any, ...]) -> None:
        """Choose local address ("" any) and port (0 any)."""
        self._check(tcp_usr_bind(self._open(), _parse(address, self.family)))

    def getsockname(self) -> Any:
        """Local address and port."""
        inp = sotoinpcb(self._open())
        return _name(inp, self.family, inp.inp_laddr, inp.inp_lport)

    def getpeername(self) -> Any:
        """Foreign address and port."""
        so = self._open()
        inp = sotoinpcb(so)
        if not inp.inp_fport or so.so_state & SS_ISCONNECTING:
            raise os_error(errno.ENOTCONN)
        return _name(inp, self.family, inp.inp_faddr, inp.inp_fport)

    # ------------------------------------------------------------------ connections

    def listen(self, backlog: int = 128) -> None:
        """Accept connections. They have rings of the stock, never the application's buffers."""
        if self._open().so_lent is not None:
            raise os_error(errno.EOPNOTSUPP)
        self._check(tcp_usr_listen(self._open(), backlog))

    def accept(self) -> tuple[Socket, Any]:
        """The next connection and its peer's address."""
        so = self._open()
        if not so.so_options & SO_ACCEPTCONN:
            raise os_error(errno.EINVAL)
        self._await(lambda: bool(so.so_comp))
        child = soaccept(so)
        inp = sotoinpcb(child)
        return Socket(self.stack, child), _name(inp, self.family, inp.inp_faddr, inp.inp_fport)

    def connect(self, address: tuple[Any, ...]) -> None:
        """Open a connection; non-blocking: BlockingIOError (EINPROGRESS), and writable when it is decided."""
        error = self.connect_ex(address)
        if error:
            raise os_error(error)

    def connect_ex(self, address: tuple[Any, ...]) -> int:
        """Like connect, but returns the errno."""
        so = self._open()
        if so.so_state & SS_ISCONNECTING:
            return errno.EALREADY
        if so.so_state & SS_ISCONNECTED:
            return errno.EISCONN
        if so.so_error:
            return take_error(so)
        error = tcp_usr_connect(so, _parse(address, self.family))
        if error:
            return error
        if self._timeout == 0 and so.so_state & SS_ISCONNECTING:
            return errno.EINPROGRESS
        try:
            self._await(lambda: not so.so_state & SS_ISCONNECTING)
        except TimeoutError:
            return errno.ETIMEDOUT
        return take_error(so)

    def shutdown(self, how: int) -> None:
        """SHUT_RD, SHUT_WR or SHUT_RDWR."""
        if how not in (stdlib.SHUT_RD, stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            raise os_error(errno.EINVAL)
        self._check(soshutdown(self._open(), how != stdlib.SHUT_WR, how != stdlib.SHUT_RD))

    def close(self) -> None:
        """Close; a second call does nothing. With SO_LINGER and a time, waits for the end of the connection."""
        so, self.so = self.so, None
        if so is not None:
            error = soclose(so, self.stack)
            if error == errno.EWOULDBLOCK:
                raise os_error(error)

    # ------------------------------------------------------------------ data

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Send some of ``data``; returns how many bytes were taken. MSG_MORE: what fills no segment may wait for the next
        call without it, 0.2 s at most. MSG_OOB: the last byte is urgent, if all were taken; EOPNOTSUPP on a connection that
        is not offloaded."""
        if flags & ~(stdlib.MSG_MORE | stdlib.MSG_OOB):
            raise os_error(errno.EOPNOTSUPP)
        so = self._open()
        view = memoryview(data).cast("B")
        more = PRUS_MORETOCOME if flags & stdlib.MSG_MORE else 0
        urgent = PRUS_OOB if flags & stdlib.MSG_OOB else 0
        return self._retry(lambda: sosend(so, view, more | urgent))

    def sendall(self, data: bytes | bytearray | memoryview, flags: int = 0) -> None:
        """Send all of ``data``."""
        view = memoryview(data).cast("B")
        while len(view):
            view = view[self.send(view, flags) :]

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive up to ``bufsize`` bytes, none from behind the mark of urgent data; empty at the end of the stream. MSG_OOB:
        the urgent byte, without waiting (EINVAL: there is none, it was read, or SO_OOBINLINE is set; EAGAIN: it has not come)."""
        so = self._open()
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        if flags & stdlib.MSG_OOB:
            return self._receive_oob(so, flags)[:bufsize]
        peek = self._receive_flags(flags)
        return self._retry(lambda: soreceive_bytes(so, bufsize, peek))

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into ``buffer`` (up to ``nbytes`` when not 0); returns how many bytes, 0 at the end of the stream."""
        so = self._open()
        view = memoryview(buffer).cast("B")
        if nbytes:
            view = view[:nbytes]
        if flags & stdlib.MSG_OOB:
            view[:1] = self._receive_oob(so, flags)[: len(view)]
            return min(len(view), 1)
        peek = self._receive_flags(flags)
        return self._retry(lambda: soreceive(so, view, peek))

    def _receive_oob(self, so: socket, flags: int) -> bytes:
        peek = self._receive_flags(flags & ~stdlib.MSG_OOB)
        error, data = soreceive_oob(so, bool(peek))
        self._check(error)
        return data

    @staticmethod
    def _receive_flags(flags: int) -> int:
        """The flags soreceive knows; the rest is refused."""
        if flags & ~stdlib.MSG_PEEK:
            raise os_error(errno.EOPNOTSUPP)
        return MSG_PEEK if flags else 0

    # ------------------------------------------------------------------ data without copies

    def set_buffers(self, *, rcv: UserBuffer | None = None, snd: UserBuffer | None = None) -> None:
        """Before connect: the connection's receive and send ring are these buffers of the application; None: the
        driver's memory. They are in use until the socket is closed and the engine has let go.

        BufferError when a buffer is in use, freed, or of another device than the other; OutOfMemory when there is none
        for the direction without a buffer; EISCONN, EOPNOTSUPP (a listener: accepted connections have rings of the
        stock). connect fails with EXDEV when its route leads through another device.
        """
        so = self._open()
        self._check(solend(so, None))
        owner = rcv if rcv is not None else snd
        if owner is not None:
            self._check(solend(so, owner.lend(rcv=rcv, snd=snd)))

    def recv_view(self) -> Views:
        """What has arrived, in place: one or two read-only views (two where the ring wraps), none at the end of the
        stream. Blocks like recv. They are good until ``consume`` gives their bytes back, or close."""
        so = self._open()
        return self._retry(lambda: soreceive_view(so))

    def consume(self, count: int) -> None:
        """Done with the first ``count`` bytes that have arrived: the peer may send as many more. ValueError when
        there are not as many."""
        soreceive_done(self._open(), count)

    def send_view(self) -> Views:
        """The room for bytes to be sent, in place: one or two writable views. Blocks like send until there is some.
        They are good until ``commit`` or ``send`` takes their room, or close."""
        so = self._open()
        return self._retry(lambda: sosend_view(so))

    def commit(self, count: int) -> None:
        """Send the first ``count`` bytes of the room, which the caller has filled. ValueError when there is less
        room; the errors of send."""
        self._check(sosend_done(self._open(), count))

    # ------------------------------------------------------------------ readiness

    def readable(self) -> bool:
        """Whether accept or recv would return at once."""
        return self.so is not None and soreadable(self.so)

    def writable(self) -> bool:
        """Whether send would return at once, or a connection attempt has ended."""
        return self.so is not None and sowriteable(self.so)

    def exceptional(self) -> bool:
        """Whether an urgent byte has arrived that is yet to be read (POLLPRI)."""
        return self.so is not None and soexceptional(self.so)

    def sockatmark(self) -> bool:
        """Whether reading has come to the mark: the urgent byte is next, or what follows it (SIOCATMARK)."""
        return sockatmark(self._open())

    def urgent(self) -> int:
        """How many bytes there are to the end of the urgent data, whether they have arrived or not; 0: none is pending."""
        return sourgent(self._open())

    def set_urgent_upcall(self, upcall: Callable[[Socket], None] | None) -> None:
        """Have ``upcall`` called whenever the peer says that urgent data comes, or more of it, as SIGURG does: the data may be
        yet to come. It must not call the socket."""
        self._open().so_urgcall = None if upcall is None else lambda so: upcall(self)

    def set_upcall(self, upcall: Callable[[Socket], None] | None) -> None:
        """Have ``upcall`` called after every change that may make the socket ready; it must not call the socket."""
        self._open().so_upcall = None if upcall is None else lambda so: upcall(self)

    # ------------------------------------------------------------------ options

    def setblocking(self, flag: bool) -> None:
        """Blocking without limit, or not at all."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """Whether calls may block."""
        return self._timeout != 0

    def settimeout(self, value: float | None) -> None:
        """Seconds on the device's clock that a call may block; None: no limit, 0: not at all."""
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        so = self._open()
        self._timeout = value
        so.so_state = so.so_state | SS_NBIO if value == 0 else so.so_state & ~SS_NBIO

    def gettimeout(self) -> float | None:
        """The timeout in seconds."""
        return self._timeout

    def setsockopt(self, level: int, optname: int, value: int | bytes) -> None:
        """Options with the standard library's levels and names, and SO_NO_OFFLOAD of this module."""
        sosetopt(self._open(), level, optname, value)

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """Options as in setsockopt; also SO_ERROR (which it clears), SO_SNDBUF, SO_RCVBUF, SO_TYPE, SO_ACCEPTCONN, and
        TCP_INFO, Linux's struct as bytes, of :meth:`info`."""
        if (level, optname) == (stdlib.IPPROTO_TCP, stdlib.TCP_INFO):
            return linux_tcp_info(self.info())[: buflen or None]
        return sogetopt(self._open(), level, optname, buflen)

    def info(self) -> tcp_info:
        """What is known of the connection (TCP_INFO). The device is asked for its TCB: time passes, some microseconds, on a
        non-blocking socket too."""
        tp = sototcpcb(self._open())
        answers: list[tcp_info] = []
        tcp_ask_info(tp, answers.append)
        self.stack.sleep(lambda: bool(answers) or tp.tod is None, None)
        return answers[0] if answers else tcp_fill_info(tp)

    def set_cwnd(self, cwnd: int, ssthresh: int) -> None:
        """Write congestion window and slow-start threshold, in bytes, for an algorithm of the caller's own: TCP_CONGESTION is
        "host". What it needs to know :meth:`info` has. No window is less than a segment or more than 2**24 - 1.

        Raises OSError: EINVAL for another algorithm or sizes out of range, EPERM when no device has the connection, EOPNOTSUPP
        when it cannot do that, ENOBUFS when it cannot be told now.
        """
        tp = sototcpcb(self._open())
        if tcp_congestion(tp) != Congestion.HOST or not (0 <= cwnd < 1 << 24 and 0 <= ssthresh < 1 << 24):
            raise os_error(errno.EINVAL)
        with tp.t_inpcb.lock:
            self._check(errno.EPERM if tp.tod is None else tp.tod.tod_cwnd(tp, cwnd, ssthresh))

    # ------------------------------------------------------------------ helpers

    def _open(self) -> socket:
        if self.so is None:
            raise os_error(errno.EBADF)
        return self.so

    @staticmethod
    def _check(error: int) -> None:
        if error:
            raise os_error(error)

    def _retry(self, call: Callable[[], tuple[int, T]]) -> T:
        """The result of ``call`` (which returns errno and result) once it is not EAGAIN any more."""
        error, result = call()

        def again() -> bool:
            nonlocal error, result
            error, result = call()
            return error != errno.EAGAIN

        if error == errno.EAGAIN:
            self._await(again)
        self._check(error)
        return result

    def _await(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition`` holds; BlockingIOError or TimeoutError when it does not in time."""
        if condition():
            return
        if self._timeout == 0:
            self.stack.poll()
            if condition():
                return
            raise os_error(errno.EAGAIN)
        limit = None if self._timeout is None else int(self._timeout * 1_000_000)
        if not self.stack.sleep(condition, limit):
            raise TimeoutError("timed out")


def create_connection(stack: Stack, address: tuple[Any, ...], timeout: float | None = None) -> Socket:
    """A socket connected to ``address``; over IPv6 if that is one of IPv6."""
    sock = Socket(stack, family=stdlib.AF_INET6 if ":" in address[0] else stdlib.AF_INET)
    sock.settimeout(timeout)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def select(
    stack: Stack,
    rlist: Iterable[Socket],
    wlist: Iterable[Socket],
    xlist: Iterable[Socket] = (),
    timeout: float | None = None,
) -> tuple[list[Socket], list[Socket], list[Socket]]:
    """Wait until a socket of ``rlist`` is readable, one of ``wlist`` writable, or urgent data has arrived at one of ``xlist``;
    like select.select."""
    readers, writers, others = list(rlist), list(wlist), list(xlist)
    ready: tuple[list[Socket], list[Socket], list[Socket]] = ([], [], [])

    def any_ready() -> bool:
        nonlocal ready
        ready = (
            [s for s in readers if s.readable()],
            [s for s in writers if s.writable()],
            [s for s in others if s.exceptional()],
        )
        return any(ready)

    stack.poll()
    stack.sleep(any_ready, None if timeout is None else int(timeout * 1_000_000))
    return ready


__all__ = ["SO_NO_OFFLOAD", "TCP_NOPUSH", "Address", "Socket", "create_connection", "os_error", "select"]
