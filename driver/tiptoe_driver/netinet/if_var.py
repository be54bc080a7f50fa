"""Network interfaces (FreeBSD's if_var.h)."""

from __future__ import annotations

from dataclasses import dataclass

from ..hardware.alias import on_v6

IFCAP_TOE = 0x4000


@dataclass(slots=True, eq=False)
class ifnet:
    """A network interface.

    Attributes
    ----------
    if_addr, if_prefix : int
        Own IPv4 address and the length of its subnet's prefix in bits.
    if_addr6, if_prefix6 : int
        Own IPv6 address, 0: none, and the length of its subnet's prefix.
    if_lladdr : int
        Own MAC address.
    if_mtu : int
        Longest IP packet in bytes.
    if_capabilities, if_capenable : int
        What it can do and what of it is switched on: IFCAP_TOE.
    if_up : bool
        Link state.
    if_running : bool
        IFF_DRV_RUNNING: the device works; False while it is stopped, or gone.
    if_toedev : toedev or None
        Its offload device; :func:`tiptoe_driver.netinet.offload.TOEDEV` has it with its type.
    """

    if_xname: str
    if_addr: int
    if_prefix: int
    if_lladdr: int
    if_mtu: int = 1500
    if_capabilities: int = 0
    if_capenable: int = 0
    if_up: bool = True
    if_toedev: object | None = None
    if_running: bool = True
    if_addr6: int = 0
    if_prefix6: int = 64

    @property
    def addresses(self) -> tuple[int, ...]:
        """Own addresses of both versions."""
        return (self.if_addr, self.if_addr6) if self.if_addr6 else (self.if_addr,)

    def broadcast(self, address: int) -> bool:
        """Whether the address is everybody's: the subnet's (in its old form of zeros too), or the limited one. IPv6 has
        none."""
        if on_v6(address):
            return False
        bits = 32 - self.if_prefix
        everybody = (1 << bits) - 1
        own_subnet = bits > 1 and not (address ^ self.if_addr) >> bits
        return address == 0xFFFF_FFFF or (own_subnet and address & everybody in (0, everybody))

    def one_host(self, address: int) -> bool:
        """Whether a packet from this address can be answered: it is one host's (RFC 1122 section 3.2.1.3, RFC 9293 MUST-63)."""
        if on_v6(address):
            return address >> 120 != 0xFF and address >> 32 != 0xFFFF
        return not self.broadcast(address) and address >> 24 not in (0, 127) and address >> 28 < 0xE
