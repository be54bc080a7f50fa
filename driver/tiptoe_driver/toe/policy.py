"""Offload policy: which connections a device takes, by an ordered list of rules.

The header offloads all connections of an interface whose sockets do not forbid it; later FreeBSD drivers added rules
for the administrator. The first rule that matches decides; without one the connection is offloaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ..hardware.alias import on_v6
from ..netinet.routes import parse_ipv4, prefix_mask


class Opening(Enum):
    """How a connection comes about."""

    CONNECT = 1
    LISTEN = 2


@dataclass(frozen=True, kw_only=True)
class PolicyRule:
    """One rule: whether to offload what matches every field that is given.

    Attributes
    ----------
    offload : bool
        The decision.
    opening : Opening or None
        Direction; None: both.
    local, foreign : str
        Address prefixes of IPv4, ``10.0.0.0/8``, or a single address; empty: any, of IPv6 too.
    lport, fport : int
        Ports; 0: any.
    """

    offload: bool
    opening: Opening | None = None
    local: str = ""
    foreign: str = ""
    lport: int = 0
    fport: int = 0

    def __post_init__(self) -> None:
        _prefix(self.local)
        _prefix(self.foreign)
        for port in (self.lport, self.fport):
            if not 0 <= port <= 65535:
                raise ValueError(f"port must be 0 to 65535, not {port}")
        if self.opening is Opening.LISTEN and (self.foreign or self.fport):
            raise ValueError("a listener has no foreign side: give local address and port only")


class OffloadPolicy:
    """Rules in their order.

    A rule about the foreign side concerns no listener: the engine answers SYNs by itself, whoever sends them.
    """

    def __init__(self, rules: Iterable[PolicyRule] = ()) -> None:
        self._rules = [(rule, _prefix(rule.local), _prefix(rule.foreign)) for rule in rules]

    def offloads(self, opening: Opening, four_tuple: tuple[int, int, int, int]) -> bool:
        """Whether to offload a connection, or a listener (whose foreign side is 0)."""
        laddr, lport, faddr, fport = four_tuple
        for rule, local, foreign in self._rules:
            if (
                rule.opening in (None, opening)
                and _within(laddr, local)
                and rule.lport in (0, lport)
                and _within(faddr, foreign)
                and rule.fport in (0, fport)
            ):
                return rule.offload
        return True


def _prefix(text: str) -> tuple[int, int] | None:
    """Prefix and mask of ``10.0.0.0/8``, which no address of IPv6 is within; None of "", which every address is within."""
    if not text:
        return None
    address, _, length = text.partition("/")
    prefix, mask = parse_ipv4(address), prefix_mask(int(length or 32))
    if prefix & ~mask:
        raise ValueError(f"{text} has bits beyond its prefix")
    return prefix, mask


def _within(address: int, prefix: tuple[int, int] | None) -> bool:
    if prefix is None:
        return True
    value, mask = prefix
    return not on_v6(address) and address & mask == value
