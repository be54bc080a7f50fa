"""Socket options of a program: what the driver knows, what has no effect on the wire, what is refused."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import TypeGuard

from tiptoe_driver import Socket
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.structures import (
    INP_IPV4,
    IP_MTU,
    IP_MTU_DISCOVER,
    IPDEFTTL,
    IPV6_MTU,
    IPV6_MTU_DISCOVER,
    SO_MAX_PACING_RATE,
    sotoinpcb,
    sototcpcb,
)
from tiptoe_driver.netinet.tcp_errors import TCP_MINMSS
from tiptoe_driver.netinet.tcp_fsm import TCPS_SYN_SENT
from tiptoe_driver.netinet.tcp_info import linux_tcp_info, tcp_info
from tiptoe_driver.sockopt import ALGORITHMS

from ..live.relay import RESET

SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP, IPPROTO_IPV6 = (
    socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6,
)  # fmt: skip
_NUMBER = struct.Struct("=i")
_BUFFER = 131072

DRIVER = {
    (SOL_SOCKET, socket.SO_REUSEADDR), (SOL_SOCKET, socket.SO_KEEPALIVE),
    (IPPROTO_TCP, socket.TCP_NODELAY), (IPPROTO_TCP, socket.TCP_CORK), (IPPROTO_TCP, socket.TCP_MAXSEG),
}  # fmt: skip
"""Passed on to the driver's socket, numbers all of them."""

_REMEMBERED: dict[tuple[int, int], int] = {
    # Linux accepts these; none changes what an engine with one queue sends, but those that are told to the driver all the same.
    (SOL_SOCKET, socket.SO_SNDBUF): _BUFFER, (SOL_SOCKET, socket.SO_RCVBUF): _BUFFER,
    (SOL_SOCKET, socket.SO_OOBINLINE): 0,  # it is always in line (flow.py)
    (SOL_SOCKET, socket.SO_REUSEPORT): 0, (SOL_SOCKET, socket.SO_PRIORITY): 0, (SOL_SOCKET, socket.SO_DONTROUTE): 0,
    (SOL_SOCKET, socket.SO_DEBUG): 0, (SOL_SOCKET, socket.SO_INCOMING_CPU): -1, (SOL_SOCKET, 46): 0,  # SO_BUSY_POLL
    (SOL_SOCKET, SO_MAX_PACING_RATE): -1,  # no limit
    (IPPROTO_TCP, socket.TCP_KEEPIDLE): 7200,
    (IPPROTO_TCP, socket.TCP_KEEPINTVL): 75, (IPPROTO_TCP, socket.TCP_KEEPCNT): 9,
    (IPPROTO_TCP, socket.TCP_SYNCNT): 6, (IPPROTO_TCP, socket.TCP_LINGER2): 60,
    (IPPROTO_TCP, socket.TCP_DEFER_ACCEPT): 0, (IPPROTO_TCP, socket.TCP_QUICKACK): 1,
    (IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 0, (IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT): -1,
    (IPPROTO_IP, IP_MTU_DISCOVER): 1,
    (IPPROTO_IP, 11): 0, (IPPROTO_IP, 24): 0,  # IP_RECVERR, IP_BIND_ADDRESS_NO_PORT
    (IPPROTO_IPV6, socket.IPV6_V6ONLY): 0,
    (IPPROTO_IPV6, IPV6_MTU_DISCOVER): 1, (IPPROTO_IPV6, 25): 0,  # IPV6_RECVERR
}  # fmt: skip
"""Kept for getsockopt, with the value before the first setsockopt."""

_LINGER = (SOL_SOCKET, socket.SO_LINGER)
_SNDBUF, _RCVBUF = (SOL_SOCKET, socket.SO_SNDBUF), (SOL_SOCKET, socket.SO_RCVBUF)
_PACING = (SOL_SOCKET, SO_MAX_PACING_RATE)
_MTU_DISCOVER = (IPPROTO_IP, IP_MTU_DISCOVER), (IPPROTO_IPV6, IPV6_MTU_DISCOVER)
_MTU = (IPPROTO_IP, IP_MTU), (IPPROTO_IPV6, IPV6_MTU)
_NOTSENT = (IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
_USER_TIMEOUT = (IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
_KEEPALIVE = {
    (IPPROTO_TCP, socket.TCP_KEEPIDLE): 32767, (IPPROTO_TCP, socket.TCP_KEEPINTVL): 32767,
    (IPPROTO_TCP, socket.TCP_KEEPCNT): 127,
}  # fmt: skip
"""Largest values; the smallest is 1."""
_CONGESTION = (IPPROTO_TCP, socket.TCP_CONGESTION)
_MAXSEG, _V6ONLY = (IPPROTO_TCP, socket.TCP_MAXSEG), (IPPROTO_IPV6, socket.IPV6_V6ONLY)
_TOS, _TTL = (IPPROTO_IP, socket.IP_TOS), (IPPROTO_IP, socket.IP_TTL)
_TCLASS, _HOPS = (IPPROTO_IPV6, socket.IPV6_TCLASS), (IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
_IP_HEADER = {4: (_TOS, _TTL), 6: (_TCLASS, _HOPS)}
"""A socket of AF_INET6 has both, and what it sends over a version of IP has that version's."""
_DEFAULTS = {_MAXSEG: 536, _TTL: IPDEFTTL, _HOPS: IPDEFTTL}
_HEADER_OPTIONS = frozenset(_IP_HEADER[4] + _IP_HEADER[6])
_CA_NAME_MAX = 16
DEFAULT_ALGORITHM = b"cubic"
_DOUBLED = {(SOL_SOCKET, socket.SO_SNDBUF), (SOL_SOCKET, socket.SO_RCVBUF)}


class Options:
    """The options of one socket, which live on when the driver's socket is a new one."""

    def __init__(self, family: int) -> None:
        self.family = family
        self._values: dict[tuple[int, int], bytes] = {}

    def inherited(self) -> Options:
        """For a connection accepted on this socket."""
        child = Options(self.family)
        child._values = dict(self._values)
        return child

    def as_set(self) -> list[tuple[int, int, bytes]]:
        """Everything the program has set, to be set once more on a socket of the kernel."""
        return [(level, name, value) for (level, name), value in self._values.items()]

    def apply(self, offloaded: Socket) -> None:
        """Set on a new socket of the driver what was set so far."""
        if self.family == socket.AF_INET6:
            if offloaded.getsockopt(*_V6ONLY) != self.v6only:  # accepted sockets have it already
                offloaded.setsockopt(*_V6ONLY, int(self.v6only))
        self.apply_ip(offloaded, _version(offloaded))
        for key, value in self._values.items():
            self._tell_driver(offloaded, key, value)

    def apply_ip(self, offloaded: Socket, version: int) -> None:
        """Likewise what stands in the header of this version of IP."""
        for key, told in zip(_IP_HEADER[version], _IP_HEADER[6 if self.family == socket.AF_INET6 else 4], strict=True):
            number = self._asked(key)
            if offloaded.getsockopt(*told) != number:
                offloaded.setsockopt(*told, number)

    @property
    def resets_on_close(self) -> bool:
        """SO_LINGER with no time: close is a RST."""
        return self._values.get(_LINGER, b"")[:8] == RESET

    @property
    def v6only(self) -> bool:
        """IPV6_V6ONLY: the socket is none for IPv4."""
        return bool(self._number((IPPROTO_IPV6, socket.IPV6_V6ONLY)))

    @property
    def reuses_port(self) -> bool:
        """SO_REUSEPORT: several sockets listen on one port, and connections are spread over them."""
        return bool(self._number((SOL_SOCKET, socket.SO_REUSEPORT)))

    def set(self, offloaded: Socket | None, level: int, name: int, value: bytes) -> None:
        """setsockopt; OSError when Linux or the driver refuses."""
        key = (level, name)
        if key == _LINGER:
            if len(value) < 8:
                raise OSError(errno.EINVAL, "")
        elif key == _CONGESTION:
            value = value[: _CA_NAME_MAX - 1].split(b"\0")[0]
            if value not in ALGORITHMS:
                raise OSError(errno.ENOENT, "")
        elif key == _V6ONLY and _alive(offloaded):
            raise OSError(errno.EINVAL, "")  # it is bound
        elif not (key in DRIVER or key in _HEADER_OPTIONS or key in _REMEMBERED) or self._foreign(level):
            raise OSError(errno.ENOPROTOOPT, "")
        elif len(value) < 4:
            # A byte is enough for options of level IP.
            if level != IPPROTO_IP or not value:
                raise OSError(errno.EINVAL, "")
            value = _NUMBER.pack(value[0])
        _check_number(key, value)
        if key not in _HEADER_OPTIONS and _alive(offloaded):
            self._tell_driver(offloaded, key, value)
        self._values[key] = value
        if key in _HEADER_OPTIONS and _alive(offloaded):
            self.apply_ip(offloaded, _version(offloaded))

    def _foreign(self, level: int) -> bool:
        return level == IPPROTO_IPV6 and self.family != socket.AF_INET6

    def _number(self, key: tuple[int, int]) -> int:
        value = self._values.get(key)
        return _REMEMBERED.get(key, 0) if value is None else int(_NUMBER.unpack_from(value)[0])

    def _tell_driver(self, offloaded: Socket, key: tuple[int, int], value: bytes) -> None:
        if key == _LINGER:
            # A close that lingers would let the program wait; the kernel's close of our pair does not wait anyway.
            offloaded.setsockopt(*key, value[:8] if value[:8] == RESET else bytes(8))
        elif key == _CONGESTION:
            if offloaded.getsockopt(*key, _CA_NAME_MAX).rstrip(b"\0") != value:
                offloaded.setsockopt(*key, value)
        elif key == _PACING:
            rate = value[: 8 if len(value) >= 8 else 4]
            if offloaded.getsockopt(*key, len(rate)) != rate:  # accepted sockets have it already
                offloaded.setsockopt(*key, rate)
        elif key in _MTU_DISCOVER:
            with contextlib.suppress(
                OSError
            ):  # a segment is never cut on its way; and a socket has the name of its family
                offloaded.setsockopt(*key, _NUMBER.unpack_from(value)[0])
        elif key == _MAXSEG:
            _tell_maxseg(offloaded, _NUMBER.unpack_from(value)[0])
        elif key in DRIVER or key in (_USER_TIMEOUT, _SNDBUF, _RCVBUF, _NOTSENT) or key in _KEEPALIVE:
            offloaded.setsockopt(*key, _NUMBER.unpack_from(value)[0])

    def get(self, offloaded: Socket | None, level: int, name: int, listening: bool) -> bytes:
        """getsockopt but for TCP_INFO; OSError for what is unknown."""
        key = (level, name)
        if self._foreign(level):
            raise OSError(errno.EOPNOTSUPP, "")
        if key == _LINGER:
            return self._values.get(key, bytes(8))[:8]
        if key == _CONGESTION:
            if _alive(offloaded):
                return bytes(offloaded.getsockopt(*key, _CA_NAME_MAX))
            return self._values.get(key, DEFAULT_ALGORITHM).ljust(_CA_NAME_MAX, b"\0")
        if level == SOL_SOCKET and name in (constants := self._constants(listening)):
            return _NUMBER.pack(constants[name])
        if key == _MAXSEG and _alive(offloaded) and not _fresh(offloaded):
            return _NUMBER.pack(offloaded.getsockopt(*key))
        if key == _MAXSEG or key in _HEADER_OPTIONS:
            return _NUMBER.pack(self._asked(key))
        if key in _MTU:
            if not _alive(offloaded):
                raise OSError(errno.ENOTCONN, "")
            return _NUMBER.pack(offloaded.getsockopt(*key))
        if key == _PACING and key in self._values:
            return self._values[key][:8]
        if key in DRIVER:
            return _NUMBER.pack(int(key in self._values and _NUMBER.unpack_from(self._values[key])[0] != 0))
        if key in _REMEMBERED:
            number = self._number(key)
            return _NUMBER.pack(max(4608, 2 * number) if key in _DOUBLED and key in self._values else number)
        raise OSError(errno.ENOPROTOOPT, "")

    def _asked(self, key: tuple[int, int]) -> int:
        """What a number of the driver's will be once there is a socket of the driver."""
        number = int(_NUMBER.unpack_from(self._values[key])[0]) if key in self._values else -1
        if key in (_TOS, _TCLASS):
            return max(number, 0) & 0xFC
        return number if number > 0 else _DEFAULTS[key]

    def _constants(self, listening: bool) -> dict[int, int]:
        return {
            socket.SO_TYPE: socket.SOCK_STREAM, socket.SO_DOMAIN: self.family, socket.SO_PROTOCOL: IPPROTO_TCP,
            socket.SO_ACCEPTCONN: int(listening), socket.SO_BROADCAST: 0,
        }  # fmt: skip


def _check_number(key: tuple[int, int], value: bytes) -> None:
    """What Linux refuses, whether there is a socket of the driver or not."""
    checked = key in (_MAXSEG, _TTL, _TCLASS, _HOPS, _USER_TIMEOUT) or key in _KEEPALIVE
    number = _NUMBER.unpack_from(value)[0] if checked else 0
    if key in _KEEPALIVE and not 1 <= number <= _KEEPALIVE[key]:
        raise OSError(errno.EINVAL, "")
    if key == _USER_TIMEOUT and number < 0:
        raise OSError(errno.EINVAL, "")
    if key == _MAXSEG and number and not 88 <= number <= 32767:
        raise OSError(errno.EINVAL, "")
    if key in (_TTL, _HOPS) and number != -1 and not 1 <= number <= 255:
        raise OSError(errno.EINVAL, "")
    if key == _TCLASS and not -1 <= number <= 255:
        raise OSError(errno.EINVAL, "")


def _version(offloaded: Socket) -> int:
    """Of IP, of what a socket of the driver sends; 6 where it can be both."""
    so = offloaded.so
    return 4 if so is not None and sotoinpcb(so).inp_vflag == INP_IPV4 else 6


def _alive(offloaded: Socket | None) -> TypeGuard[Socket]:
    """Whether the driver has a socket that can be asked."""
    return offloaded is not None and offloaded.so is not None and offloaded.so.so_pcb is not None


def _fresh(offloaded: Socket) -> bool:
    """Neither connecting nor connected."""
    return offloaded.so is None or sototcpcb(offloaded.so).t_state < TCPS_SYN_SENT


def _tell_maxseg(offloaded: Socket, number: int) -> None:
    """TCP_MAXSEG: of a connection, segments only become smaller; what Linux would accept and not obey is accepted."""
    if _fresh(offloaded):
        if number:
            offloaded.setsockopt(*_MAXSEG, number)
    elif number and number < offloaded.getsockopt(*_MAXSEG):
        with contextlib.suppress(OSError):  # carried by a kernel: it has no smaller ones either
            offloaded.setsockopt(*_MAXSEG, max(number, TCP_MINMSS))


def info_of(info: tcp_info | None, offloaded: Socket | None, sent: int, received: int) -> bytes:
    """TCP_INFO as Linux's getsockopt gives it; ``info`` None: there is no connection. ``sent``, ``received``: bytes."""
    so = None if offloaded is None else offloaded.so
    acked = sent if so is None else max(0, sent - so.so_snd.sb_cc)
    return linux_tcp_info(info or tcp_info(tcpi_state=State.CLOSED), bytes_acked=acked, bytes_received=received)
