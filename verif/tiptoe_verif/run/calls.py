"""The calls a program makes on one of its TCP sockets, with Linux's results."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from tiptoe_driver.netinet.structures import sototcpcb
from tiptoe_driver.netinet.tcp_fill_info import tcp_ask_info
from tiptoe_driver.netinet.tcp_fsm import TCPS_ESTABLISHED
from tiptoe_driver.netinet.tcp_info import tcp_info

from .endpoint import ERRNO, Answer, Endpoint, Keeper, State
from .flow import discard
from .listener import Listener
from .options import Options, info_of
from .protocol import Action, Address, Name, Reply, Request, host_name, pack_options


class Network(Keeper, Protocol):
    """What the calls need of the broker beyond that: the engine's addresses, and who listens on them."""

    def is_ours(self, address: Address, v6only: bool = False) -> bool:
        """Whether to listen on this address is the engine's business; any of a version that it has is."""

    def reaches(self, address: Address) -> bool:
        """Whether the engine can connect to this address."""

    def near_listener(self, address: Address, port: int) -> Listener | None:
        """Who listens in this run where a program wants to connect to."""

    def shared_listener(self, endpoint: ProgramSocket, local: Name) -> Listener | None:
        """With SO_REUSEPORT: what another socket with it has bound already, joined by this one."""

    def listeners_refused(self) -> int:
        """Counts listeners the engine had no room for."""

    def settle(self) -> None:
        """Let the engine carry out the commands on their way."""


class ProgramSocket(Endpoint):
    """A socket of the program, with its calls. OSError is as good as a reply with its errno."""

    broker: Network

    def __init__(self, broker: Network, options: Options) -> None:
        super().__init__(broker, options)

    def bind(self, request: Request) -> Reply:
        """bind()."""
        if self.state is not State.FRESH or self.listener is not None:
            return Reply(errno.EINVAL)
        if request.family != self.family:
            return Reply(errno.EINVAL if request.family == socket.AF_INET else errno.EAFNOSUPPORT)
        address = self._meant(request)
        if address is None or not self.broker.is_ours(address, self.options.v6only):
            return self._fall_back()
        local = (host_name(self.family, address), request.port)
        self.listener = self.broker.shared_listener(self, local)
        if self.listener is not None:
            self.offloaded = self.listener.offloaded
        else:
            offloaded = self._make_offloaded()
            try:
                offloaded.bind(local)
            except OSError:
                self._drop_offloaded()
                raise
            self.listener = Listener(offloaded, self)
        self.local = self.listener.local
        return Reply()

    def _meant(self, request: Request) -> Address | None:
        """The address that a name means: one of IPv4 in IPv6's form is one of IPv4, and with IPV6_V6ONLY there is none."""
        if isinstance(request.address, IPv6Address) and request.address.ipv4_mapped is not None:
            return None if self.options.v6only else request.address.ipv4_mapped
        return request.address

    def listen(self, backlog: int) -> Reply:
        """listen()."""
        if self.state not in (State.FRESH, State.LISTENING):
            return Reply(errno.EINVAL)
        if self.listener is None:
            if not self.broker.is_ours(ip_address(self.local[0]), self.options.v6only):
                return Reply(errno.EADDRNOTAVAIL)  # the engine has no address of this version
            offloaded = self._make_offloaded()
            offloaded.bind((self.local[0], 0))
            self.listener = Listener(offloaded, self)
            self.local = self.listener.local
        assert self.end is not None
        listener = self.listener
        listener.backlog = min(max(backlog, 1) if backlog >= 0 else 4096, 4096)
        refused = self.broker.listeners_refused()
        listener.offloaded.listen(listener.backlog)
        if self.state is State.FRESH:
            if self.broker.stack.software is None and self.broker.listeners_refused() != refused:
                listener.leave(self)
                self.listener = self.offloaded = None
                return Reply(errno.ENOBUFS)  # the engine's listen table is full
            self.state = State.LISTENING
            self.end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # room for few records
            self.broker.board.watch_offloaded(listener.offloaded, listener.turn)
            self.broker.settle()  # a SYN that overtook the command would be refused
            self.broker.board.call_soon(listener.turn)
        return Reply()

    def connect(self, request: Request, descriptor: int, answer: Answer) -> None:
        """connect(); ``descriptor`` is the program's end, ``request.a`` whether the program waits."""
        reply = self._connect(request, descriptor)
        if reply is None:
            if request.a:
                self._waiting.append(answer)
                return
            reply = Reply(errno.EINPROGRESS)
        answer(reply)

    def _connect(self, request: Request, descriptor: int) -> Reply | None:
        """The result; None: in progress."""
        if self.state is State.CONNECTING:
            return None if request.a else Reply(errno.EALREADY)
        if self.state is State.CONNECTED and not self._told:
            self._told = True
            return Reply()
        if self.state in (State.CONNECTED, State.LISTENING):
            return Reply(errno.EISCONN)
        if self.state is State.DEAD:
            if self.flow is not None or self.near:
                return Reply(errno.EISCONN)
            if self._told:
                return Reply(action=Action.REPLACE)
            self._told = True  # as Linux tells the end of an attempt that SO_ERROR was asked about before
            return Reply(self.take_error() or errno.ECONNABORTED)
        if request.family != self.family:
            return Reply(errno.EAFNOSUPPORT)
        address = self._meant(request)
        if address is None:
            return self._fall_back()
        if self.broker.near_listener(address, request.port) is not None:
            return Reply(action=Action.NEAR)
        if not self.broker.reaches(address):
            return self._fall_back()
        if self.broker.is_ours(address):
            return Reply(errno.ECONNREFUSED)
        offloaded = self.offloaded or self._make_offloaded()
        self.options.apply_ip(offloaded, address.version)
        peer = (host_name(self.family, address), request.port)
        error = offloaded.connect_ex(peer)
        if error not in (0, errno.EINPROGRESS):
            if self.listener is None:
                self._drop_offloaded()
            return Reply(ERRNO.get(error, error))
        self.peer, self.local = peer, offloaded.getsockname()[:2]
        self.listener = None
        self.record = self.broker.new_record(peer, self.local[1])
        self.state = State.CONNECTING
        assert self.end is not None
        discard(self.end)  # what was written too early must not be taken for what fill writes
        self._junk = fill(descriptor)
        self.broker.board.watch_offloaded(offloaded, self.turn)
        self.broker.board.call_soon(self.turn)
        return None

    def getsockname(self) -> Reply:
        """getsockname()."""
        return Reply(family=self.family, name=self.local)

    def getpeername(self) -> Reply:
        """getpeername()."""
        if self.state is not State.CONNECTED or self.peer is None:
            return Reply(errno.ENOTCONN)
        return Reply(family=self.family, name=self.peer)

    def tcp_info(self, answer: Answer) -> None:
        """getsockopt(TCP_INFO): answered when the device has told, while other sockets live on."""
        flow, offloaded = self.flow, self.offloaded

        def reply(info: tcp_info | None) -> None:
            moved = (flow.sent, flow.received) if flow is not None else (0, 0)
            answer(Reply(data=info_of(info, offloaded, *moved)))

        if self.near:
            reply(tcp_info(tcpi_state=TCPS_ESTABLISHED))
        elif offloaded is None or offloaded.so is None or offloaded.so.so_pcb is None:
            reply(None)
        else:
            tcp_ask_info(sototcpcb(offloaded.so), reply)

    def getsockopt(self, level: int, name: int) -> Reply:
        """getsockopt() but for TCP_INFO."""
        if (level, name) == (socket.SOL_SOCKET, socket.SO_ERROR):
            if self.near:
                return Reply(errno.ENOTCONN)  # what the kernel says is right
            return Reply(data=self.take_error().to_bytes(4, "little"))
        return Reply(data=self.options.get(self.offloaded, level, name, self.state is State.LISTENING))

    def setsockopt(self, level: int, name: int, value: bytes) -> Reply:
        """setsockopt()."""
        self.options.set(self.offloaded, level, name, value)
        return Reply()

    def take_error(self) -> int:
        """SO_ERROR."""
        error, self._error = self._error, 0
        return error

    def _fall_back(self) -> Reply:
        return Reply(
            action=Action.FALL_BACK, family=self.family, name=self.local, data=pack_options(self.options.as_set())
        )  # fmt: skip


def fill(descriptor: int) -> int:
    """Make the program's end unwritable, as a TCP socket is until it is connected; how many bytes that took."""
    count = 0
    with socket.socket(fileno=os.dup(descriptor)) as theirs, contextlib.suppress(BlockingIOError):
        while True:
            count += theirs.send(bytes(1 << 16), socket.MSG_DONTWAIT)
    return count
