"""System calls of a script on the driver's sockets. All of these are non-blocking underneath: a call that has to wait is tried
again whenever time has passed, so that the script goes on beside it."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol

from tiptoe_driver import TCP_NOPUSH
from tiptoe_driver.netinet.sockbuf import SBS_CANTRCVMORE, SBS_CANTSENDMORE

from .tree import ANY, Call, Either, Name, Struct, SystemCall

_EXTRA = {
    "SIOCINQ": termios.FIONREAD, "SIOCOUTQ": termios.TIOCOUTQ, "TCP_NOPUSH": TCP_NOPUSH, "SO_MAX_PACING_RATE": 47,
    "IP_MTU_DISCOVER": 10, "IP_PMTUDISC_DONT": 0, "IP_PMTUDISC_WANT": 1, "IP_PMTUDISC_DO": 2, "IP_PMTUDISC_PROBE": 3,
    "IP_MTU": 14, "TCP_NOTSENT_LOWAT": 25,
}  # fmt: skip
_MODULES = (socket, os, select, termios, fcntl, errno)
_SHUT = {0: socket.SHUT_RD, 1: socket.SHUT_WR, 2: socket.SHUT_RDWR}


class Mismatch(Exception):
    """A call has returned something else than the script says."""


class NotThere(Exception):
    """A call, option or constant that is not there: the script is skipped."""


class Host(Protocol):
    """What the calls need of the run."""

    defines: dict[str, str]
    default_port: int
    connect_to: tuple[str, int]
    local_ip: str

    def now_us(self) -> int:
        """Simulated time."""

    def new_socket(self) -> Any:
        """A non-blocking socket."""

    def connecting(self, remote: tuple[str, int]) -> None:
        """A socket connects there."""

    def listening(self) -> None:
        """A socket listens: the next SYN begins a connection."""


Attempt = Callable[[], int]
"""Does a call, or goes on with it; BlockingIOError while it waits."""


@dataclass
class File:
    """An open file of the script."""

    sock: Any
    blocking: bool = True
    listens: bool = False


class Calls:
    """The files of one script, by the numbers that it gives them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.files: dict[int, File] = {}
        self.last: int | None = None
        """The connection made last, or one that connects."""

    # --- values ---

    def value(self, expression: Any) -> Any:
        """An integer, a string, a list, a structure's fields, or ANY."""
        match expression:
            case int() | str():
                return expression
            case list():
                return [self.value(each) for each in expression]
            case Either(parts):
                whole = 0
                for part in parts:
                    whole |= self.value(part)
                return whole
            case Name(name):
                return self._constant(name)
            case Call("htons" | "htonl" | "inet_addr" | "inet6_addr", arguments):
                return self.value(arguments[0])
            case Struct(fields):
                return {key: self.value(each) for key, each in fields.items()}
            case Call(name, _):
                raise NotThere(f"{name}()")
        return ANY

    def _constant(self, name: str) -> int:
        if (defined := self.host.defines.get(name)) is not None:
            return int(defined, 0) if defined.lstrip("-").isdigit() else self._constant(defined)
        if name in _EXTRA:
            return _EXTRA[name]
        for module in _MODULES:
            found = getattr(module, name, None)
            if isinstance(found, int):
                return int(found)
        raise NotThere(f"the constant {name}")

    # --- calls ---

    def known(self, call: SystemCall) -> bool:
        """Whether there is such a call."""
        return hasattr(self, f"_call_{call.name}")

    def begin(self, call: SystemCall) -> tuple[Attempt, bool]:
        """What does the call, and whether it may wait."""
        arguments = [self.value(each) for each in call.arguments]
        if call.name == "poll":
            return self._poll(arguments), arguments[2] != 0
        method = getattr(self, f"_call_{call.name}")
        if call.name == "socket":
            return lambda: method(call, *arguments), False
        file = self.files.get(arguments[0])
        if file is None:
            return self._no_such_file, False
        if call.name in ("accept", "accept4"):
            return lambda: method(call, file, *arguments[1:]), file.blocking
        attempt = method(file, *arguments[1:])
        return attempt, file.blocking

    @staticmethod
    def _number(value: Any) -> None:
        if not isinstance(value, int):
            raise NotThere(f"{value} where a number is wanted")

    @staticmethod
    def _no_such_file() -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _call_socket(self, call: SystemCall, family: Any, kind: int, protocol: Any = 0) -> int:
        if kind & 0xF != socket.SOCK_STREAM or family not in (ANY, socket.AF_INET):
            raise NotThere("sockets other than TCP's over IPv4")
        number = call.result if isinstance(call.result, int) and call.result >= 0 else 3 + len(self.files)
        self.files[number] = File(self.host.new_socket(), blocking=not kind & socket.SOCK_NONBLOCK)
        return number

    def _call_bind(self, file: File, address: Any, *_: Any) -> Attempt:
        host, port = self._address(address, (self.host.local_ip, self.host.default_port))
        return lambda: file.sock.bind((host if host != "0.0.0.0" else "", port)) or 0

    @staticmethod
    def _address(address: Any, default: tuple[str, int]) -> tuple[str, int]:
        if address is ANY:
            return default
        if not isinstance(address, dict) or address.get("sa_family") != socket.AF_INET:
            raise NotThere("addresses other than IPv4's")
        return str(ip_address(address["sin_addr"])), address["sin_port"]

    def _call_listen(self, file: File, backlog: int) -> Attempt:
        self._number(backlog)

        def attempt() -> int:
            file.sock.listen(backlog)
            file.listens = True
            self.host.listening()
            return 0

        return attempt

    def _call_accept(self, call: SystemCall, file: File, *arguments: Any) -> int:
        sock, _ = file.sock.accept()
        sock.setblocking(False)
        number = call.result if isinstance(call.result, int) and call.result >= 0 else 3 + len(self.files)
        flags = arguments[2] if len(arguments) > 2 else 0
        self.files[number] = File(sock, blocking=not flags & socket.SOCK_NONBLOCK)
        self.last = number
        return number

    _call_accept4 = _call_accept

    def _call_connect(self, file: File, address: Any, *_: Any) -> Attempt:
        remote = self._address(address, self.host.connect_to)
        begun = False

        def attempt() -> int:
            nonlocal begun
            if begun:
                if not file.sock.writable():
                    raise BlockingIOError
                error = file.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            else:
                begun = True
                self.last = next(number for number, each in self.files.items() if each is file)
                self.host.connecting(remote)
                error = file.sock.connect_ex(remote)
            if error:  # of EINPROGRESS Python makes a BlockingIOError
                raise OSError(error, os.strerror(error))
            return 0

        return attempt

    def _call_read(self, file: File, _: Any, count: int) -> Attempt:
        self._number(count)
        return lambda: len(file.sock.recv(count))

    def _call_recv(self, file: File, _: Any, count: int, flags: int = 0, *more: Any) -> Attempt:
        self._number(count)
        return lambda: len(file.sock.recv(count, flags))

    _call_recvfrom = _call_recv

    def _call_readv(self, file: File, vector: Any, *_: Any) -> Attempt:
        return self._call_read(file, ANY, self._total(vector))

    def _call_recvmsg(self, file: File, message: Any, flags: int = 0) -> Attempt:
        return self._call_recv(file, ANY, self._total(message["msg_iov"]), flags)

    @staticmethod
    def _total(vector: list[dict[Any, Any]]) -> int:
        return sum(part[1] for part in vector)

    def _call_send(self, file: File, data: Any, count: int, flags: int = 0, *_: Any) -> Attempt:
        left = memoryview(data.encode()[:count] if isinstance(data, str) else bytes(n & 0xFF for n in range(count)))
        flags &= ~(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)

        def attempt() -> int:
            nonlocal left
            sent = file.sock.send(left, flags)
            left = left[sent:]
            if left and file.blocking:
                raise BlockingIOError
            return count - len(left)

        return attempt

    _call_write = _call_sendto = _call_send

    def _call_writev(self, file: File, vector: Any, *_: Any) -> Attempt:
        return self._call_send(file, ANY, self._total(vector))

    def _call_sendmsg(self, file: File, message: Any, flags: int = 0) -> Attempt:
        return self._call_send(file, ANY, self._total(message["msg_iov"]), flags)

    def _call_shutdown(self, file: File, how: int) -> Attempt:
        return lambda: file.sock.shutdown(_SHUT[how]) or 0

    def _call_close(self, file: File) -> Attempt:
        def attempt() -> int:
            number = next(number for number, each in self.files.items() if each is file)
            del self.files[number]
            file.sock.close()
            return 0

        return attempt

    def _call_fcntl(self, file: File, command: int, flags: int = 0) -> Attempt:
        def attempt() -> int:
            if command == fcntl.F_GETFL:
                return os.O_RDWR | (0 if file.blocking else os.O_NONBLOCK)
            if command != fcntl.F_SETFL:
                raise NotThere("fcntl besides F_GETFL and F_SETFL")
            file.blocking = not flags & os.O_NONBLOCK
            return 0

        return attempt

    def _call_ioctl(self, file: File, command: int, *wanted: Any) -> Attempt:
        def attempt() -> int:
            so = file.sock.so
            values = {termios.FIONREAD: lambda: so.so_rcv.sb_cc, termios.TIOCOUTQ: lambda: so.so_snd.sb_cc}
            if command not in values:
                raise NotThere("ioctl besides SIOCINQ and SIOCOUTQ")
            self._same(wanted[0], values[command]())
            return 0

        return attempt

    @staticmethod
    def _same(wanted: Any, value: Any) -> None:
        if isinstance(wanted, list):
            wanted = wanted[0]
        if wanted is not ANY and wanted != value:
            raise Mismatch(f"[{value}]")

    def _call_setsockopt(self, file: File, level: int, name: int, value: Any, *_: Any) -> Attempt:
        if isinstance(value, list):
            value = value[0]
        packed = value
        if isinstance(value, dict):
            packed = struct.pack("@ii", value["onoff"], value["linger"])
        elif isinstance(value, str):
            packed = value.encode()
        else:
            self._number(value)
        return lambda: file.sock.setsockopt(level, name, packed) or 0

    def _call_getsockopt(self, file: File, level: int, name: int, wanted: Any, *_: Any) -> Attempt:
        def attempt() -> int:
            if isinstance(wanted, dict):
                on, seconds = struct.unpack("@ii", file.sock.getsockopt(level, name, 8))
                if (on, seconds) != (wanted["onoff"], wanted["linger"]):
                    raise Mismatch(f"{{onoff={on}, linger={seconds}}}")
            elif isinstance(wanted, str):
                value = file.sock.getsockopt(level, name, 16).rstrip(b"\0").decode()
                self._same(wanted, value)
            else:
                self._same(wanted, file.sock.getsockopt(level, name))
            return 0

        return attempt

    def _poll(self, arguments: list[Any]) -> Attempt:
        entries, _, timeout_ms = arguments
        end = self.host.now_us() + timeout_ms * 1000

        def attempt() -> int:
            found = [
                self._events(entry["fd"]) & (entry["events"] | select.POLLERR | select.POLLHUP) for entry in entries
            ]
            if not any(found) and timeout_ms and (timeout_ms < 0 or self.host.now_us() < end):
                raise BlockingIOError
            for entry, events in zip(entries, found, strict=True):
                if "revents" in entry and entry["revents"] is not ANY and entry["revents"] != events:
                    raise Mismatch(f"revents={_poll_text(events)}")
            return sum(map(bool, found))

        return attempt

    _call_poll = _poll

    def _events(self, number: int) -> int:
        file = self.files.get(number)
        if file is None:
            return select.POLLNVAL
        so = file.sock.so
        events = select.POLLIN | select.POLLRDNORM if file.sock.readable() else 0
        if not file.listens:
            events |= select.POLLOUT | select.POLLWRNORM if file.sock.writable() else 0
            no_more = bool(so.so_rcv.sb_state & SBS_CANTRCVMORE)
            events |= select.POLLRDHUP if no_more else 0
            events |= select.POLLHUP if no_more and so.so_snd.sb_state & SBS_CANTSENDMORE else 0
        events |= select.POLLPRI if file.sock.exceptional() else 0
        return events | (select.POLLERR if so.so_error else 0)


def _poll_text(events: int) -> str:
    names = ("POLLIN", "POLLPRI", "POLLOUT", "POLLERR", "POLLHUP", "POLLNVAL", "POLLRDHUP", "POLLRDNORM", "POLLWRNORM")
    return "|".join(name for name in names if events & getattr(select, name)) or "0"
