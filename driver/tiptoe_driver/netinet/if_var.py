"""Network interfaces (FreeBSD's if_var.h)."""

from __future__ import annotations

from dataclasses import dataclass

IFCAP_TOE = 0x4000


@dataclass(slots=True, eq=False)
class ifnet:
    """A network interface.

    Attributes
    ----------
    if_addr, if_prefix : int
        Own IPv4 address and the length of its subnet's prefix in bits.
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

    def broadcast(self, address: int) -> bool:
        """Whether the address is everybody's: the subnet's (in its old form of zeros too), or the limited one."""
        bits = 32 - self.if_prefix
        everybody = (1 << bits) - 1
        own_subnet = bits > 1 and not (address ^ self.if_addr) >> bits
        return address == 0xFFFF_FFFF or (own_subnet and address & everybody in (0, everybody))

    def one_host(self, address: int) -> bool:
        """Whether a packet from this address can be answered: it is one host's (RFC 1122 section 3.2.1.3, RFC 9293 MUST-63)."""
        return not self.broadcast(address) and address >> 24 not in (0, 127) and address >> 28 < 0xE
