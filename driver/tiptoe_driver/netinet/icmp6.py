"""ICMPv6 (RFC 4443): echo is answered, errors about our connections are told to TCP (RFC 8201 for packets too big)."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable

from .if_var import ifnet
from .in6 import IPPROTO_ICMPV6, IPV6_HEADER, ipv6_packet, payload_of, sound, usable
from .in_cksum import IPPROTO_TCP
from .nd6 import ND_NEIGHBOR_ADVERT, ND_NEIGHBOR_SOLICIT, NdTable
from .structures import vnet
from .tcp_errors import tcp_icmp_error

ICMP6_DST_UNREACH = 1
ICMP6_PACKET_TOO_BIG = 2
ICMP6_TIME_EXCEEDED = 3
ICMP6_PARAM_PROB = 4
ICMP6_ECHO_REQUEST = 128
ICMP6_ECHO_REPLY = 129
IPV6_MMTU = 1280
"""Every path carries packets of so many bytes (RFC 8200 section 5)."""

_ERRNO = {
    # FreeBSD's icmp6_input and inet6ctlerrmap; no route, beyond the scope, no such address, and policies are as soft as there.
    ICMP6_DST_UNREACH: {
        **dict.fromkeys((0, 2, 3, 5, 6), errno.EHOSTUNREACH),
        **dict.fromkeys((1, 4), errno.ECONNREFUSED),  # prohibited by an administrator, port
    },
    ICMP6_PACKET_TOO_BIG: {0: errno.EMSGSIZE},
    ICMP6_TIME_EXCEEDED: dict.fromkeys((0, 1), errno.EHOSTUNREACH),
    ICMP6_PARAM_PROB: dict.fromkeys((0, 1, 2), errno.ENOPROTOOPT),
}


class Icmp6Input:
    """ICMPv6 messages for one interface; ``transmit`` sends an IPv6 packet to a MAC address.

    Counters
    --------
    frames_bad_icmp, frames_bad_nd
        Wrong checksums, impossible senders; unsound messages of neighbour discovery.
    icmp_errors, icmp_bad_sequence
        As of IcmpInput.
    """

    def __init__(
        self,
        stack: vnet,
        ifp: ifnet,
        neighbours: NdTable,
        counters: Counter[str],
        transmit: Callable[[int, bytes], object],
    ) -> None:
        self._stack = stack
        self._ifp = ifp
        self._neighbours = neighbours
        self._counters = counters
        self._transmit = transmit

    def input(self, frame: memoryview, *, answer: bool = True) -> bool:
        """An IPv6 frame came; whether it was an ICMPv6 message that concerns us (sound or not). Without ``answer`` neither echo
        nor neighbour discovery does, but the latter is learned from."""
        packet = frame[14:]
        message = payload_of(packet, IPPROTO_ICMPV6)
        if message is None or len(message) < 8:
            return False
        kind = message[0]
        if kind in (ND_NEIGHBOR_SOLICIT, ND_NEIGHBOR_ADVERT):
            if not self._neighbours.input(packet, answer=answer):
                self._counters["frames_bad_nd"] += 1
            return answer
        source, destination = int.from_bytes(packet[8:24]), int.from_bytes(packet[24:40])
        if destination != self._ifp.if_addr6 or not (kind in _ERRNO or answer and kind == ICMP6_ECHO_REQUEST):
            return False
        if not sound(packet, message) or not usable(source) or frame[6] & 1:
            self._counters["frames_bad_icmp"] += 1
            return True
        if kind == ICMP6_ECHO_REQUEST:
            reply = bytes([ICMP6_ECHO_REPLY, 0, 0, 0]) + bytes(message[4:])
            self._transmit(int.from_bytes(frame[6:12]), ipv6_packet(destination, source, IPPROTO_ICMPV6, reply, 2))
            return True
        return self._error(message)

    def _error(self, message: memoryview) -> bool:
        """An error about the packet whose beginning it quotes; False when that is of no connection of ours."""
        error = _ERRNO[message[0]].get(message[1])
        quoted = message[8:]
        if error is None or len(quoted) < IPV6_HEADER + 8 or quoted[0] >> 4 != 6 or quoted[6] != IPPROTO_TCP:
            return False
        tcp = quoted[IPV6_HEADER : IPV6_HEADER + 8]
        mtu = int.from_bytes(message[4:8])
        if error == errno.EMSGSIZE and mtu < IPV6_MMTU:  # RFC 8201 section 4
            self._counters["frames_bad_icmp"] += 1
            return True
        addresses = int.from_bytes(quoted[8:24]), int.from_bytes(quoted[24:40])
        return tcp_icmp_error(self._stack, self._counters, addresses, tcp, error, mtu)
