"""A listening socket of the driver, and the programs' sockets that accept from it: several with SO_REUSEPORT.

Connections are handed over in turns. Few go ahead to a program: its end's buffer has room for some records, and the others wait
in the driver's queue, which knows the backlog. Connections from programs of the same run come here too; they are pairs of
sockets between the two programs, as a host's own stack keeps its local connections from the wire.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from tiptoe_driver import Socket

from .options import Options
from .protocol import Address, Name


class Member(Protocol):
    """What a listener needs of a program's socket: of one that accepts, and of one that is accepted."""

    serial: int
    family: int
    options: Options
    end: socket.socket | None
    peer: Name | None

    @property
    def listening(self) -> bool:
        """Whether accept makes sense."""

    def accepted(self, offloaded: Socket, peer: Name) -> None:
        """It has a connection for the program."""

    def hand_over(self, made: socket.socket, child: Member) -> bool:
        """Give a connection's socket to the program that accepts on this one; whether that went well."""


class Listener:
    """One port of the engine.

    Attributes
    ----------
    offloaded : Socket
        Bound; listening once a program listens.
    members : list of Member
        The programs' sockets bound to it.
    """

    def __init__(self, offloaded: Socket, first: Member) -> None:
        self.offloaded = offloaded
        self.members = [first]
        self.local: Name = offloaded.getsockname()[:2]
        self.v6only = first.options.v6only
        self.backlog = 0
        self.turn: Callable[[], None] = self._turn
        self._next = 0
        self._near: deque[tuple[socket.socket, Member]] = deque()

    def leave(self, member: Member) -> None:
        """A program has closed its socket; the last one ends the listening."""
        if member in self.members:
            self.members.remove(member)
        if not self.members:
            with contextlib.suppress(OSError):
                self.offloaded.close()
            for made, _ in self._near:
                made.close()
            self._near.clear()

    def takes(self, address: Address) -> bool:
        """Whether a connection to this address comes here."""
        local = ip_address(self.local[0])
        both = local == IPv6Address("::") and not self.v6only
        if isinstance(local, IPv6Address) and local.ipv4_mapped is not None:
            local = local.ipv4_mapped
        return both or local == address or (local.is_unspecified and local.version == address.version)

    @property
    def listening(self) -> bool:
        """Whether a program listens."""
        return any(member.listening for member in self.members)

    def connect_near(self, made: socket.socket, child: Member) -> bool:
        """Queue a connection of a program of this run; False if the queue is full."""
        if len(self._near) > self.backlog:
            return False
        self._near.append((made, child))
        self._turn()
        return True

    def _turn(self) -> None:
        so = self.offloaded.so
        while self._near or (so is not None and so.so_comp):
            member = self._ready_member()
            if member is None:
                return  # an edge of its end will tell
            if self._near:
                made, child = self._near.popleft()
                with made:
                    member.hand_over(made, child)
                continue
            try:
                offloaded, peer = self.offloaded.accept()
            except OSError:
                return  # the listening socket's own error: asked again, it says the same
            member.accepted(offloaded, peer[:2])

    def _ready_member(self) -> Member | None:
        """The next one in turn that listens and has room for a record: what was accepted cannot be put back."""
        for _ in self.members:
            self._next = (self._next + 1) % len(self.members)
            member = self.members[self._next]
            if not member.listening or member.end is None:
                continue
            poll = select.poll()
            poll.register(member.end, select.POLLOUT)
            if any(events & select.POLLOUT for _, events in poll.poll(0)):
                return member
        return None
