"""Answers the interposer's requests, and keeps the programs' sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import socket
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from tiptoe_driver import Socket
from tiptoe_driver.netinet.in6 import link_local, usable

from ..live.records import Record
from ..live.switchboard import Switchboard
from .calls import ProgramSocket
from .endpoint import Endpoint
from .listener import Listener
from .options import Options
from .protocol import (
    MOST_BYTES,
    TOKEN_BYTES,
    Action,
    Address,
    Name,
    Op,
    Reply,
    Request,
    destination,
    host_name,
    parse_request,
)

_REMEMBERED = 4096
"""Sockets that are over and may still be asked about."""
Watcher = Callable[[int], None]


class Broker:
    """Between programs and driver; lives on a switchboard.

    Parameters
    ----------
    engine : LiveEngine or DeviceEngine
        Where the sockets are.
    program : str
        Name for the summary.

    Attributes
    ----------
    control : str
        Value of the environment variable that the interposer reads.
    """

    def __init__(self, engine: Any, board: Switchboard, program: str) -> None:
        self.engine, self.board, self.program = engine, board, program
        self.stack = engine.stack
        ip6 = engine.toe.tod_ifp.if_addr6
        self._addresses = (IPv4Address(engine.ip), *([IPv6Address(ip6)] if ip6 else []))
        self._requests, self._ends = select.epoll(), select.epoll()
        self._watchers: dict[int, Watcher] = {}
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._name = f"tiptoe-{secrets.token_hex(8)}"
        self.control = f"{self._name}:{self._token.hex()}"
        self._serial = self._near_port = 0
        self.endpoints: dict[int, ProgramSocket] = {}
        self._over: OrderedDict[int, ProgramSocket] = OrderedDict()
        # An abstract name needs no file that a program could have no right to, or see no more after chroot.
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.bind("\0" + self._name)
        self._server.listen(128)
        self._server.setblocking(False)
        self._requests.register(self._server, select.EPOLLIN)
        self._watchers[self._server.fileno()] = self._arrivals
        # One bound method each, for the switchboard's bookkeeping.
        board.watch_host(self._ends, partial(self._service, self._ends), select.EPOLLIN)
        board.watch_host(self._requests, partial(self._service, self._requests), select.EPOLLIN)

    # --- readiness ---

    def watch(self, end: socket.socket, function: Watcher, events: int) -> None:
        """Call ``function`` with the events that happen to an end of a pair."""
        self._watchers[end.fileno()] = function
        self._ends.register(end, events)

    def forget(self, end: socket.socket) -> None:
        """It is about to be closed."""
        if self._watchers.pop(end.fileno(), None) is not None:
            self._ends.unregister(end)

    def _service(self, epoll: select.epoll) -> None:
        for descriptor, events in epoll.poll(0):
            function = self._watchers.get(descriptor)
            if function is not None:
                function(events)

    # --- requests ---

    def _arrivals(self, _: int) -> None:
        while True:
            try:
                channel, _ = self._server.accept()
            except OSError:
                return
            channel.setblocking(False)
            if not self._take(channel):
                self._watchers[channel.fileno()] = partial(self._again, channel)
                self._requests.register(channel, select.EPOLLIN)

    def _again(self, channel: socket.socket, _: int) -> None:
        self._take(channel)

    def _take(self, channel: socket.socket) -> bool:
        """Take the request of a connection, if it is there."""
        try:
            message, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES, 4)
        except BlockingIOError:
            return False
        except OSError:
            message, descriptors = b"", []
        if self._watchers.pop(channel.fileno(), None) is not None:
            self._requests.unregister(channel)
        request = parse_request(message, self._token)
        try:
            if request is None:
                channel.close()
            else:
                self._service(self._ends)  # what was closed before this call is closed for it
                self._serve(channel, request, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _serve(self, channel: socket.socket, request: Request, descriptors: list[int]) -> None:
        def answer(reply: Reply, theirs: socket.socket | None = None) -> bool:
            with channel, contextlib.suppress(OSError):  # the program may have gone meanwhile
                socket.send_fds(channel, [reply.pack()], [theirs.fileno()] if theirs is not None else [])
                return True
            return False

        if request.op is Op.SOCKET:
            made = self._add(ProgramSocket(self, Options(request.b)))
            try:
                with made.open(nonblocking=bool(request.a)) as theirs:
                    answer(Reply(), theirs)
            except OSError as error:  # our own descriptors are used up
                self.endpoints.pop(made.serial, None)
                answer(Reply(error.errno or errno.ENFILE))
            return
        endpoint = self.endpoints.get(request.serial) or self._over.get(request.serial)
        if endpoint is None:
            answer(Reply(errno.ENOTCONN))
        elif request.op is Op.CONNECT and descriptors:

            def connected(reply: Reply) -> bool:
                if reply.action is Action.NEAR:
                    return self._connect_near(endpoint, request, answer)
                if reply.action is not Action.REPLACE:
                    return answer(reply)
                with self._add(ProgramSocket(self, endpoint.options)).open() as theirs:
                    return answer(reply, theirs)

            try:
                endpoint.connect(request, descriptors[0], connected)
            except OSError as error:
                answer(Reply(error.errno or errno.EIO))
        elif (request.op, request.a, request.b) == (Op.GETSOCKOPT, socket.IPPROTO_TCP, socket.TCP_INFO):
            endpoint.tcp_info(answer)
        else:
            try:
                answer(self._call(endpoint, request))
            except OSError as error:
                answer(Reply(error.errno or errno.EIO))

    def _call(self, endpoint: ProgramSocket, request: Request) -> Reply:
        """Calls that are answered at once."""
        if request.op is Op.BIND:
            return endpoint.bind(request)
        if request.op is Op.LISTEN:
            return endpoint.listen(request.a)
        if request.op is Op.ACCEPTING:
            return Reply(0 if endpoint.listening else errno.EINVAL)
        if request.op is Op.GETSOCKNAME:
            return endpoint.getsockname()
        if request.op is Op.GETPEERNAME:
            return endpoint.getpeername()
        if request.op is Op.GETSOCKOPT:
            return endpoint.getsockopt(request.a, request.b)
        if request.op is Op.SETSOCKOPT:
            return endpoint.setsockopt(request.a, request.b, request.data)
        return Reply(errno.EINVAL)

    # --- what endpoints need ---

    def next_serial(self) -> int:
        """A number no socket had."""
        self._serial += 1
        return self._serial

    def name_of(self, serial: int) -> str:
        """Name of the broker's end of a pair, by which the interposer knows the program's."""
        return f"\0{self._name}/{serial:x}"

    def _add(self, endpoint: ProgramSocket) -> ProgramSocket:
        self.endpoints[endpoint.serial] = endpoint
        return endpoint

    def accepted(self, listener: Endpoint, offloaded: Socket, peer: Name) -> None:
        """A listening socket has a connection for the program."""
        made = self._add(ProgramSocket(self, listener.options.inherited()))
        try:
            made.become(offloaded, peer, listener)
        except OSError as error:  # our own descriptors are used up
            made.abort(os.strerror(error.errno or errno.ENFILE))
            self.endpoints.pop(made.serial, None)
            with contextlib.suppress(OSError):
                offloaded.close()

    def _connect_near(self, endpoint: ProgramSocket, request: Request, answer: Callable[..., bool]) -> bool:
        """Join two programs of this run by a pair of their own. The program that connects gets a new socket for its old
        one and asks again; then it is told that it is connected."""
        address = destination(request.address)
        listener = self.near_listener(address, request.port)
        assert listener is not None
        self._near_port = 32768 + (self._near_port + 1) % 16384
        ports = endpoint.local[1] or self._near_port, request.port
        caller, called = (
            ProgramSocket(self, endpoint.options),
            ProgramSocket(self, listener.members[0].options.inherited()),
        )
        for made, told in ((caller, False), (called, True)):
            host = host_name(made.family, address)
            made.become_near(*[(host, port) for port in (reversed(ports) if told else ports)], told=told)
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        other.bind(self.name_of(caller.serial))  # each is known by the name of the socket it is connected to
        one.bind(self.name_of(called.serial))
        with one:
            if not listener.connect_near(other, called):
                other.close()
                return answer(Reply(errno.ECONNREFUSED))
            for made in (caller, called):
                self._remember(made)
            return answer(Reply(action=Action.REPLACE), one)

    def near_listener(self, address: Address, port: int) -> Listener | None:
        """Who listens in this run where a program wants to connect to: at the engine's address, or, for all
        addresses, at a loopback one."""
        address = destination(address)
        if address not in self._addresses and not address.is_loopback:
            return None
        return next(
            (made for made in self._listeners() if made.local[1] == port and made.listening and made.takes(address)),
            None,
        )

    def shared_listener(self, endpoint: ProgramSocket, local: Name) -> Listener | None:
        """With SO_REUSEPORT: what another socket with it has bound already, joined by this one."""
        for made in self._listeners():
            if (made.local, made.v6only) == (local, endpoint.options.v6only) and all(
                member.options.reuses_port for member in (endpoint, *made.members)
            ):
                made.members.append(endpoint)
                return made
        return None

    def _listeners(self) -> list[Listener]:
        return [endpoint.listener for endpoint in self.endpoints.values() if endpoint.listener is not None]

    def ended(self, serial: int) -> None:
        """A socket is over; it is remembered for the last questions."""
        endpoint = self.endpoints.pop(serial, None)
        if endpoint is not None:
            self._remember(endpoint)

    def _remember(self, endpoint: ProgramSocket) -> None:
        self._over[endpoint.serial] = endpoint
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)

    def new_record(self, peer: Name, local_port: int) -> Record:
        """A line for the summary."""
        record = Record(peer, local_port, self.program, self.stack.now_us())
        self.board.records.append(record)
        return record

    def is_ours(self, address: Address, v6only: bool = False) -> bool:
        """Whether to listen on this address is the engine's business; any of a version that it has is."""
        if address.is_unspecified:
            return not v6only or any(ours.version == 6 for ours in self._addresses)
        return address in self._addresses

    def reaches(self, address: Address) -> bool:
        """Whether the engine can connect to this address."""
        number = int(address)
        fit = number >> 24 not in (0, 127) if address.version == 4 else usable(number) and not link_local(number)
        return fit and self.stack.routes.lookup(number) is not None

    def listeners_refused(self) -> int:
        """Counts listeners the engine had no room for."""
        return int(self.engine.toe.engine.counters["listen_table_full"])

    def settle(self) -> None:
        """Let the engine carry out the commands on their way."""
        self.engine.settle()

    def close(self) -> None:
        """Reset what is still open."""
        for endpoint in list(self.endpoints.values()):
            endpoint.abort("ended with the run")
        for epoll in (self._requests, self._ends):
            self.board.forget_host(epoll)
            epoll.close()
        self._server.close()
