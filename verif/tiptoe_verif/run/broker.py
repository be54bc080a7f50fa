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
from typing import Any

from tiptoe_driver import Socket

from ..live.relay import Record, Switchboard
from ..native.harness import Stop
from .endpoint import Endpoint
from .options import Options
from .protocol import MOST_BYTES, TOKEN_BYTES, Action, Op, Reply, Request, parse_request

_REMEMBERED = 4096
"""Sockets that are over and may still be asked about."""
_SETTLE_CYCLES = 4000
Watcher = Callable[[int], None]


class Broker:
    """Between programs and driver; lives on a switchboard.

    Parameters
    ----------
    engine : LiveEngine
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
        self._epoll = select.epoll()
        self._watchers: dict[int, Watcher] = {}
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._name = f"tiptoe-{secrets.token_hex(8)}"
        self.control = f"{self._name}:{self._token.hex()}"
        self._serial = 0
        self.endpoints: dict[int, Endpoint] = {}
        self._over: OrderedDict[int, Endpoint] = OrderedDict()
        # An abstract name needs no file that a program could have no right to, or see no more after chroot.
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.bind("\0" + self._name)
        self._server.listen(128)
        self._server.setblocking(False)
        self.watch(self._server, self._arrivals, select.EPOLLIN)
        board.watch_host(self._epoll, self._service, select.EPOLLIN)

    # --- readiness ---

    def watch(self, made: socket.socket, function: Watcher, events: int) -> None:
        """Call ``function`` with the events that happen."""
        self._watchers[made.fileno()] = function
        self._epoll.register(made, events)

    def forget(self, made: socket.socket) -> None:
        """The socket is about to be closed."""
        if self._watchers.pop(made.fileno(), None) is not None:
            self._epoll.unregister(made)

    def _service(self) -> None:
        for descriptor, events in self._epoll.poll(0):
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
                self.watch(channel, partial(self._again, channel), select.EPOLLIN)

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
        self.forget(channel)
        request = parse_request(message, self._token)
        try:
            if request is None:
                channel.close()
            else:
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
            with self._add(Endpoint(self, Options(request.b))).open(nonblocking=bool(request.a)) as theirs:
                answer(Reply(), theirs)
            return
        endpoint = self.endpoints.get(request.serial) or self._over.get(request.serial)
        if endpoint is None:
            answer(Reply(errno.ENOTCONN))
        elif request.op is Op.CONNECT and descriptors:

            def connected(reply: Reply) -> bool:
                if reply.action is not Action.REPLACE:
                    return answer(reply)
                with self._add(Endpoint(self, endpoint.options)).open() as theirs:
                    return answer(reply, theirs)

            try:
                endpoint.connect(request, descriptors[0], connected)
            except OSError as error:
                answer(Reply(error.errno or errno.EIO))
        else:
            try:
                answer(self._call(endpoint, request))
            except OSError as error:
                answer(Reply(error.errno or errno.EIO))

    def _call(self, endpoint: Endpoint, request: Request) -> Reply:
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

    def _add(self, endpoint: Endpoint) -> Endpoint:
        self.endpoints[endpoint.serial] = endpoint
        return endpoint

    def accepted(self, listener: Endpoint, offloaded: Socket, peer: tuple[str, int]) -> None:
        """A listening socket has a connection for the program."""
        self._add(Endpoint(self, listener.options.inherited())).become(offloaded, peer, listener)

    def ended(self, endpoint: Endpoint) -> None:
        """A socket is over; it is remembered for the last questions."""
        if self.endpoints.pop(endpoint.serial, None) is not None:
            self._over[endpoint.serial] = endpoint
            if len(self._over) > _REMEMBERED:
                self._over.popitem(last=False)

    def new_record(self, peer: tuple[str, int], local_port: int) -> Record:
        """A line for the summary."""
        record = Record(peer, local_port, self.program, self.stack.now_us())
        self.board.records.append(record)
        return record

    def is_ours(self, address: int) -> bool:
        """Whether to listen on this address is the engine's business; 0 (any) is."""
        return address in (0, self.engine.ip)

    def reaches(self, address: int) -> bool:
        """Whether the engine can connect to this address."""
        return address >> 24 not in (0, 127) and self.stack.routes.lookup(address) is not None

    def listeners_refused(self) -> int:
        """Counts listeners the engine had no room for."""
        return int(self.engine.toe.engine.counters["listen_table_full"])

    def settle(self) -> None:
        """Let the engine carry out the commands on their way."""
        self.engine.harness.run(_SETTLE_CYCLES, Stop.SETTLED)

    def close(self) -> None:
        """Reset what is still open."""
        for endpoint in list(self.endpoints.values()):
            endpoint.abort("ended with the run")
        self.board.forget_host(self._epoll)
        self._server.close()
        self._epoll.close()
