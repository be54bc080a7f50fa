"""The slice of a host's TCP stack around the offload devices, assembled: interfaces, routes, control blocks, listeners, time."""

from __future__ import annotations

from collections.abc import Iterator

from .if_var import ifnet
from .in6 import format_address
from .structures import SO_NO_OFFLOAD, intotcpcb, tcpcb, vnet
from .syncache import Syncache
from .tcp_fsm import TCPS_LISTEN
from .tcp_timewait import TimeWait


class Stack(vnet):
    """The host's side of TCP.

    Parameters
    ----------
    offload_disabled : bool
        TCP_OFFLOAD_DISABLE: no connection is offloaded, no device is told of listeners.
    sendspace, recvspace : int
        Socket buffer sizes in bytes before a connection has its rings.
    seed : int or None
        Makes the choice of ephemeral ports repeatable, for tests; None: it is random.

    Attributes
    ----------
    software : SoftwareTcp or None
        The software TCP, for connections that are not offloaded; None: there is none.
    """

    def __init__(
        self,
        *,
        offload_disabled: bool = False,
        sendspace: int = 65536,
        recvspace: int = 65536,
        seed: int | None = None,
    ) -> None:
        super().__init__(offload_disabled, sendspace, recvspace, seed)
        self.syncache = Syncache(self)
        self.time_wait: TimeWait = TimeWait(self)

    def attach_interface(self, ifp: ifnet, gateway: int = 0, gateway6: int = 0) -> None:
        """Add an interface with its subnets' routes, and default routes when it has a ``gateway`` or ``gateway6``."""
        for address in ifp.addresses:
            self.check_address(address)
        self.interfaces.append(ifp)
        self.routes.add_interface(ifp, gateway, gateway6)

    def check_address(self, address: int) -> None:
        """Raise ValueError when an interface has this address already: two devices would answer for one socket."""
        for other in self.interfaces:
            if address in other.addresses:
                raise ValueError(f"{format_address(address)} is the address of {other.if_xname}")

    def detach_interface(self, ifp: ifnet) -> None:
        """Remove an interface and its routes; TIME_WAITs of its address are over."""
        for address in ifp.addresses:
            self.time_wait.forget_address(address)
        self.interfaces.remove(ifp)
        self.routes.remove_interface(ifp)

    def listeners(self) -> Iterator[tcpcb]:
        """Every listening, offloadable connection: a device registered late learns of them here."""
        if self.offload_disabled:
            return
        for inp in self.tcbinfo:
            so = inp.inp_socket
            if so is not None and not so.so_options & SO_NO_OFFLOAD and intotcpcb(inp).t_state == TCPS_LISTEN:
                yield intotcpcb(inp)
