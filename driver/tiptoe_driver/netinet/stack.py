"""The slice of a host's TCP stack around the offload devices, assembled: interfaces, routes, control blocks, listeners, time."""

from __future__ import annotations

from collections.abc import Iterator

from .if_var import ifnet
from .routes import format_ipv4
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

    def attach_interface(self, ifp: ifnet, gateway: int = 0) -> None:
        """Add an interface with its subnet's route, and a default route when it has a ``gateway``."""
        self.check_address(ifp.if_addr)
        self.interfaces.append(ifp)
        self.routes.add_interface(ifp, gateway)

    def check_address(self, address: int) -> None:
        """Raise ValueError when an interface has this address already: two devices would answer for one socket."""
        for other in self.interfaces:
            if other.if_addr == address:
                raise ValueError(f"{format_ipv4(address)} is the address of {other.if_xname}")

    def detach_interface(self, ifp: ifnet) -> None:
        """Remove an interface and its routes; TIME_WAITs of its address are over."""
        self.time_wait.forget_address(ifp.if_addr)
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
