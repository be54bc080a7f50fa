"""ICMP (RFC 792): echo is answered, errors about our connections are told to TCP (RFC 1122 section 4.2.3.9, RFC 1191)."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable

from .if_var import ifnet
from .in_cksum import IPPROTO_TCP, internet_checksum
from .structures import vnet
from .tcp_errors import tcp_icmp_error
from .tcp_pmtu import PLATEAUS

IPPROTO_ICMP = 1
ICMP_ECHO_REPLY = 0
ICMP_UNREACH = 3
ICMP_ECHO = 8
ICMP_TIMXCEED = 11
ICMP_PARAMPROB = 12

# FreeBSD's icmp_input and inetctlerrmap; time exceeded is as soft as a host unreachable (RFC 1122).
_UNREACH_ERRNO = {
    **dict.fromkeys((0, 1, 5, 6, 7, 8, 11, 12, 14, 15), errno.EHOSTUNREACH),
    **dict.fromkeys((2, 3, 9, 10, 13), errno.ECONNREFUSED),  # protocol, port, prohibited by an administrator
    4: errno.EMSGSIZE,
}
_ERRNO = {
    ICMP_UNREACH: _UNREACH_ERRNO,
    ICMP_TIMXCEED: dict.fromkeys((0, 1), errno.EHOSTUNREACH),
    ICMP_PARAMPROB: dict.fromkeys((0, 1), errno.ENOPROTOOPT),
}


def next_plateau(length: int) -> int:
    """The largest likely MTU that a packet of ``length`` bytes did not fit; for routers that do not tell theirs."""
    return next((mtu for mtu in PLATEAUS if mtu < length), PLATEAUS[-1])


class IcmpInput:
    """ICMP messages for one interface.

    Parameters
    ----------
    transmit : callable
        Sends an IPv4 packet to a MAC address.

    Counters
    --------
    frames_bad_icmp
        Wrong checksums, impossible senders.
    icmp_errors, icmp_bad_sequence
        Errors about connections: told to TCP; not told, since they are about nothing that is under way.
    """

    def __init__(
        self, stack: vnet, ifp: ifnet, counters: Counter[str], transmit: Callable[[int, bytes], object]
    ) -> None:
        self._stack = stack
        self._ifp = ifp
        self._counters = counters
        self._transmit = transmit

    def input(self, frame: memoryview, *, answer: bool = True) -> bool:
        """An IPv4 frame came; whether it was an ICMP message that concerns us (sound or not). Without ``answer`` echo does
        not."""
        packet = frame[14:]
        if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != IPPROTO_ICMP:
            return False
        header = (packet[0] & 0xF) * 4
        total = int.from_bytes(packet[2:4])
        fragment = int.from_bytes(packet[6:8]) & 0x3FFF
        if header < 20 or total < header + 8 or total > len(packet) or fragment:
            return False
        message = packet[header:total]
        kind = message[0]
        if int.from_bytes(packet[16:20]) != self._ifp.if_addr or not (kind in _ERRNO or answer and kind == ICMP_ECHO):
            return False
        source = int.from_bytes(packet[12:16])
        if (
            internet_checksum(packet[:header])
            or internet_checksum(message)
            or not self._ifp.one_host(source)
            or frame[6] & 1
        ):
            self._counters["frames_bad_icmp"] += 1
            return True
        if kind == ICMP_ECHO:
            self._answer(int.from_bytes(frame[6:12]), packet, message)
            return True
        return self._error(message)

    def _answer(self, mac: int, packet: memoryview, message: memoryview) -> None:
        """Answer an echo request."""
        reply = bytearray(message)
        reply[0] = ICMP_ECHO_REPLY
        reply[2:4] = b"\0\0"
        reply[2:4] = internet_checksum(reply).to_bytes(2)
        ip = bytearray(packet[:20])  # the request's options are not sent back
        ip[0] = 0x45
        ip[2:4] = (20 + len(reply)).to_bytes(2)
        ip[6:8] = b"\0\0"
        ip[8] = 64
        ip[10:12] = b"\0\0"
        ip[12:16], ip[16:20] = packet[16:20], packet[12:16]
        ip[10:12] = internet_checksum(ip).to_bytes(2)
        self._transmit(mac, bytes(ip + reply))

    def _error(self, message: memoryview) -> bool:
        """An error about the packet whose beginning it quotes; False when that is of no connection of ours."""
        error = _ERRNO[message[0]].get(message[1])
        quoted = message[8:]
        if error is None or len(quoted) < 20 or quoted[0] >> 4 != 4 or quoted[9] != IPPROTO_TCP:
            return False
        header = (quoted[0] & 0xF) * 4
        fragment = int.from_bytes(quoted[6:8]) & 0x1FFF
        if header < 20 or len(quoted) < header + 8 or fragment:
            return False
        tcp = quoted[header : header + 8]
        mtu = int.from_bytes(message[6:8]) or next_plateau(int.from_bytes(quoted[2:4]))
        addresses = int.from_bytes(quoted[12:16]), int.from_bytes(quoted[16:20])
        return tcp_icmp_error(self._stack, self._counters, addresses, tcp, error, mtu)
