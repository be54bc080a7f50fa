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
