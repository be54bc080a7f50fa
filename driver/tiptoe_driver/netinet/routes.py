"""IPv4 addresses and the routing table of both versions: which interface, and which next hop."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from ..hardware.alias import on_v6
from .if_var import ifnet


def parse_ipv4(text: str) -> int:
    """Address as an integer, first byte in the highest bits; "" is 0 (any). ValueError for anything else."""
    return int(IPv4Address(text)) if text else 0


def format_ipv4(address: int) -> str:
    """Dotted form."""
    return str(IPv4Address(address))


def parse_mac(text: str) -> int:
    """``02:00:00:00:00:01`` as an integer, first byte in the highest bits."""
    raw = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if len(raw) != 6:
        raise ValueError(f"not a MAC address: {text!r}")
    return int.from_bytes(raw)


def prefix_mask(length: int, bits: int = 32) -> int:
    """Netmask of a prefix of ``length`` bits."""
    if not 0 <= length <= bits:
        raise ValueError(f"prefix length must be 0 to {bits}, not {length}")
    return ((1 << length) - 1) << bits - length


@dataclass(frozen=True, slots=True)
class route:
    """A route: destinations whose first ``ro_length`` bits are those of ``ro_prefix`` leave by ``ro_ifp``, through
    ``ro_gateway`` (0: directly). ``ro_bits``: of an address, 32 or 128."""

    ro_prefix: int
    ro_length: int
    ro_ifp: ifnet
    ro_gateway: int = 0
    ro_bits: int = 32

    def next_hop(self, destination: int) -> int:
        """The neighbour to send to."""
        return self.ro_gateway or destination


class RouteTable:
    """Longest-prefix match over a handful of routes."""

    def __init__(self) -> None:
        self._routes: list[route] = []

    def add(self, ro: route) -> None:
        """Add a route; among equal prefixes the newest wins."""
        if ro.ro_prefix & ~prefix_mask(ro.ro_length, ro.ro_bits):
            raise ValueError(f"{ip_address(ro.ro_prefix)}/{ro.ro_length} has bits beyond its prefix")
        self._routes.insert(0, ro)
        self._routes.sort(key=lambda each: -each.ro_length)

    def add_interface(self, ifp: ifnet, gateway: int = 0, gateway6: int = 0) -> None:
        """The interface's own subnets, and with ``gateway`` or ``gateway6`` default routes through it."""
        if ifp.if_addr6:
            length = ifp.if_prefix6
            self.add(route(ifp.if_addr6 & prefix_mask(length, 128), length, ifp, ro_bits=128))
            self.add(route(0xFE80 << 112, 10, ifp, ro_bits=128))
            if gateway6:
                self.add(route(0, 0, ifp, gateway6, ro_bits=128))
        self.add(route(ifp.if_addr & prefix_mask(ifp.if_prefix), ifp.if_prefix, ifp))
        if gateway:
            self.add(route(0, 0, ifp, gateway))

    def remove_interface(self, ifp: ifnet) -> None:
        """Forget every route of an interface."""
        self._routes = [ro for ro in self._routes if ro.ro_ifp is not ifp]

    def lookup(self, destination: int) -> route | None:
        """The route to ``destination``, or None."""
        bits = 128 if on_v6(destination) else 32
        for ro in self._routes:
            if ro.ro_bits == bits and destination & prefix_mask(ro.ro_length, bits) == ro.ro_prefix:
                return ro
        return None
