"""Socket options of a program: what the driver knows, what has no effect on the wire, what is refused."""

from __future__ import annotations

import errno
import socket
import struct

from tiptoe_driver import Socket
from tiptoe_driver.structures import sototcpcb

from ..live.relay import RESET

SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP, IPPROTO_IPV6 = (
    socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6,
)  # fmt: skip
_NUMBER = struct.Struct("=i")
_BUFFER = 131072

DRIVER = {
    (SOL_SOCKET, socket.SO_REUSEADDR), (SOL_SOCKET, socket.SO_KEEPALIVE), (SOL_SOCKET, socket.SO_OOBINLINE),
    (IPPROTO_TCP, socket.TCP_NODELAY), (IPPROTO_TCP, socket.TCP_MAXSEG),
}  # fmt: skip
"""Passed on to the driver's socket, numbers all of them."""

_REMEMBERED: dict[tuple[int, int], int] = {
    # Linux accepts these; none changes what an engine with one queue, no keep-alive timer and no cork sends.
    (SOL_SOCKET, socket.SO_SNDBUF): _BUFFER, (SOL_SOCKET, socket.SO_RCVBUF): _BUFFER,
    (SOL_SOCKET, socket.SO_REUSEPORT): 0, (SOL_SOCKET, socket.SO_PRIORITY): 0, (SOL_SOCKET, socket.SO_DONTROUTE): 0,
    (SOL_SOCKET, socket.SO_DEBUG): 0, (SOL_SOCKET, socket.SO_INCOMING_CPU): -1, (SOL_SOCKET, 46): 0,  # SO_BUSY_POLL
    (SOL_SOCKET, 47): -1,  # SO_MAX_PACING_RATE: -1 is "no limit"
    (IPPROTO_TCP, socket.TCP_CORK): 0, (IPPROTO_TCP, socket.TCP_KEEPIDLE): 7200,
    (IPPROTO_TCP, socket.TCP_KEEPINTVL): 75, (IPPROTO_TCP, socket.TCP_KEEPCNT): 9,
    (IPPROTO_TCP, socket.TCP_SYNCNT): 6, (IPPROTO_TCP, socket.TCP_LINGER2): 60,
    (IPPROTO_TCP, socket.TCP_DEFER_ACCEPT): 0, (IPPROTO_TCP, socket.TCP_QUICKACK): 1,
    (IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 0, (IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT): -1,
    (IPPROTO_IP, socket.IP_TOS): 0, (IPPROTO_IP, socket.IP_TTL): 64, (IPPROTO_IP, 10): 1,  # IP_MTU_DISCOVER
    (IPPROTO_IP, 11): 0, (IPPROTO_IP, 24): 0,  # IP_RECVERR, IP_BIND_ADDRESS_NO_PORT
    (IPPROTO_IPV6, socket.IPV6_V6ONLY): 0, (IPPROTO_IPV6, socket.IPV6_TCLASS): 0,
    (IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS): 64,
}  # fmt: skip
"""Kept for getsockopt, with the value before the first setsockopt."""

_LINGER = (SOL_SOCKET, socket.SO_LINGER)
_CONGESTION = (IPPROTO_TCP, 13)
_DOUBLED = {(SOL_SOCKET, socket.SO_SNDBUF), (SOL_SOCKET, socket.SO_RCVBUF)}

# enum in Linux's tcp_states.h, by the driver's name of the state
_LINUX_STATES = {
    "ESTABLISHED": 1, "SYN_SENT": 2, "SYN_RECEIVED": 3, "FIN_WAIT_1": 4, "FIN_WAIT_2": 5, "TIME_WAIT": 6, "CLOSED": 7,
    "CLOSE_WAIT": 8, "LAST_ACK": 9, "LISTEN": 10, "CLOSING": 11,
}  # fmt: skip


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
        for key, value in self._values.items():
            self._tell_driver(offloaded, key, value)

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
            if value.rstrip(b"\0") not in (b"reno", b""):
                raise OSError(errno.ENOENT, "")
        elif key not in DRIVER and (key not in _REMEMBERED or self._foreign(level)):
            raise OSError(errno.ENOPROTOOPT, "")
        elif len(value) < 4:
            # A byte is enough for options of level IP.
            if level != IPPROTO_IP or not value:
                raise OSError(errno.EINVAL, "")
            value = _NUMBER.pack(value[0])
        if offloaded is not None:
            self._tell_driver(offloaded, key, value)
        elif key == (IPPROTO_TCP, socket.TCP_MAXSEG) and not 88 <= _NUMBER.unpack_from(value)[0] <= 32767:
            raise OSError(errno.EINVAL, "")
        self._values[key] = value

    def _foreign(self, level: int) -> bool:
        return level == IPPROTO_IPV6 and self.family != socket.AF_INET6

    def _number(self, key: tuple[int, int]) -> int:
        value = self._values.get(key)
        return _REMEMBERED.get(key, 0) if value is None else int(_NUMBER.unpack_from(value)[0])

    def _tell_driver(self, offloaded: Socket, key: tuple[int, int], value: bytes) -> None:
        if key in DRIVER:
            offloaded.setsockopt(*key, _NUMBER.unpack_from(value)[0])
        elif key == _LINGER and value[:8] != RESET:
            # A close that lingers would let the program wait; the kernel's close of our pair does not wait anyway.
            offloaded.setsockopt(*key, bytes(8))
        elif key == _LINGER:
            offloaded.setsockopt(*key, value[:8])

    def get(self, offloaded: Socket | None, level: int, name: int, listening: bool, moved: tuple[int, int]) -> bytes:
        """getsockopt; OSError for what is unknown. ``moved``: bytes sent and received."""
        key = (level, name)
        if key == _LINGER:
            return self._values.get(key, bytes(8))[:8]
        if key == _CONGESTION:
            return b"reno".ljust(16, b"\0")
        if key == (IPPROTO_TCP, socket.TCP_INFO):
            return tcp_info(offloaded, *moved)
        if level == SOL_SOCKET and name in (constants := self._constants(listening)):
            return _NUMBER.pack(constants[name])
        if key == (IPPROTO_TCP, socket.TCP_MAXSEG) and offloaded is not None:
            return _NUMBER.pack(offloaded.getsockopt(*key))
        if key in DRIVER:
            default = 536 if key == (IPPROTO_TCP, socket.TCP_MAXSEG) else 0
            number = _NUMBER.unpack_from(self._values.get(key, _NUMBER.pack(default)))[0]
            return _NUMBER.pack(number if name == socket.TCP_MAXSEG else int(bool(number)))
        if key in _REMEMBERED and not self._foreign(level):
            number = self._number(key)
            return _NUMBER.pack(max(4608, 2 * number) if key in _DOUBLED and key in self._values else number)
        raise OSError(errno.ENOPROTOOPT, "")

    def _constants(self, listening: bool) -> dict[int, int]:
        return {
            socket.SO_TYPE: socket.SOCK_STREAM, socket.SO_DOMAIN: self.family, socket.SO_PROTOCOL: IPPROTO_TCP,
            socket.SO_ACCEPTCONN: int(listening), socket.SO_BROADCAST: 0,
        }  # fmt: skip


_INFO = struct.Struct("=8B24I4Q6I4Q")
"""struct tcp_info of Linux up to tcpi_sndbuf_limited."""


def tcp_info(offloaded: Socket | None, sent: int, received: int) -> bytes:
    """struct tcp_info with what the driver knows; the rest (round-trip time, congestion window: the engine's) is 0."""
    so = None if offloaded is None else offloaded.so
    state, options, scales, words = _LINUX_STATES["CLOSED"], 0, 0, [0] * 24
    if so is not None and so.so_pcb is not None:
        tp = sototcpcb(so)
        state = _LINUX_STATES[tp.t_state.name]
        options = 4 if tp.snd_scale or tp.rcv_scale else 0  # TCPI_OPT_WSCALE
        scales = tp.snd_scale & 15 | (tp.rcv_scale & 15) << 4
        words[2] = words[3] = words[19] = tp.t_maxseg  # snd_mss, rcv_mss, advmss
        words[4] = -(-so.so_snd.sb_cc // max(tp.t_maxseg, 1))  # unacked
        words[13], words[22] = tp.t_maxseg + 40, so.so_rcv.sb_hiwat  # pmtu, rcv_space
    acked = sent if so is None else max(0, sent - so.so_snd.sb_cc)
    return _INFO.pack(
        state, 0, 0, 0, 0, options, scales, 0, *words, 0, 2**64 - 1, acked, received, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    )
