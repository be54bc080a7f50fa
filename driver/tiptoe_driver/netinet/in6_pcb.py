"""Sockets of AF_INET6 that speak both versions of IP (RFC 3493 sections 3.7 and 5.3; FreeBSD's in6_pcb.c and tcp6_usr_bind)."""

from __future__ import annotations

from .in6 import mapped, unmapped
from .structures import IN6P_IPV6_V6ONLY, INP_IPV4, INP_IPV6, inpcb


def in6_v6only(inp: inpcb, only: bool) -> None:
    """IPV6_V6ONLY of a socket without an address."""
    inp.inp_flags = inp.inp_flags | IN6P_IPV6_V6ONLY if only else inp.inp_flags & ~IN6P_IPV6_V6ONLY
    inp.inp_vflag = INP_IPV6 if only else INP_IPV4 | INP_IPV6


def in6_narrowed(inp: inpcb, address: int) -> tuple[int, int]:
    """The version that a socket of this ``inp`` has with the address, and the address as that version has it. :: leaves both to
    who has both; an IPv4 address in IPv6's form is one of IPv4 to who has that version."""
    if inp.inp_vflag == INP_IPV4 | INP_IPV6 and not address:
        return inp.inp_vflag, address
    if inp.inp_vflag & INP_IPV6 and not (inp.inp_vflag & INP_IPV4 and mapped(address)):
        return INP_IPV6, address
    return INP_IPV4, unmapped(address)
