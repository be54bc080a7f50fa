"""Requests of the interposer and replies of the broker: as in interposer/interposer.h."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

VARIABLE = "TIPTOE_CONTROL"
"""Environment variable that configures the interposer: NAME:TOKEN, the abstract socket's name and 32 hex digits."""

TOKEN_BYTES = 16
MOST_BYTES = 4096
"""More than any request has."""
_REQUEST = struct.Struct(f"={TOKEN_BYTES}sIIQiiI16s")
_REPLY = struct.Struct("=iIIII16s")
_ACCEPTED = struct.Struct("=QII16s")
_OPTION = struct.Struct("=iii")
REPLY_DATA = 2048


Name = tuple[str, int]
"""Host and port, the host as the socket's family has it: AF_INET6 names 10.0.0.1 as ::ffff:10.0.0.1."""


Address = IPv4Address | IPv6Address


class Op(IntEnum):
    """What is asked for."""

    SOCKET = 1
    BIND = 2
    LISTEN = 3
    CONNECT = 4
    ACCEPTING = 5
    GETSOCKNAME = 6
    GETPEERNAME = 7
    GETSOCKOPT = 8
    SETSOCKOPT = 9


class Action(IntEnum):
    """What the interposer has to do."""

    DONE = 0
    FALL_BACK = 1
    """Put a socket of the kernel in the place of the descriptor and make the call on it."""
    REPLACE = 2
    """Put the socket that comes with the reply in its place and ask again."""
    NEAR = 3
    """Inside the broker only: the other side is a program of the same run."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call of the program. ``a`` and ``b`` depend on the call; ``family``: of the address, 0 where the call has none."""

    op: Op
    family: int
    serial: int
    a: int
    b: int
    port: int
    address: Address
    data: bytes


@dataclass(slots=True)
class Reply:
    """Its result: an errno, or what was asked for."""

    error: int = 0
    action: Action = Action.DONE
    family: int = 0
    name: Name = ("", 0)
    data: bytes = b""

    def pack(self) -> bytes:
        """As the interposer reads it."""
        address = _packed(self.family, self.name[0])
        return _REPLY.pack(self.error, self.action, self.family, self.name[1], len(self.data), address) + self.data


def host_name(family: int, address: Address) -> str:
    """An address as a socket of this family has it in its names."""
    return f"::ffff:{address}" if (family, address.version) == (socket.AF_INET6, 4) else str(address)


def destination(address: Address) -> Address:
    """Of whom a connection to this address is to: an IPv4 address in IPv6's form, and :: and 0.0.0.0, stand for others."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified:
        return IPv4Address("127.0.0.1") if address.version == 4 else IPv6Address("::1")
    return address


def _packed(family: int, host: str) -> bytes:
    return socket.inet_pton(family, host).ljust(16, b"\0") if family else bytes(16)


def parse_request(message: bytes, token: bytes) -> Request | None:
    """The request in a message; None if it is none, or of somebody who does not know the token."""
    if len(message) < _REQUEST.size:
        return None
    sent, op, family, serial, a, b, port, packed = _REQUEST.unpack_from(message)
    if sent != token or family not in (0, socket.AF_INET, socket.AF_INET6):
        return None
    address = IPv6Address(packed) if family == socket.AF_INET6 else IPv4Address(packed[:4])
    try:
        return Request(Op(op), family, serial, a, b, port, address, message[_REQUEST.size :])
    except ValueError:
        return None


def pack_accepted(serial: int, family: int, peer: Name) -> bytes:
    """The record that goes with an accepted connection's descriptor."""
    return _ACCEPTED.pack(serial, family, peer[1], _packed(family, peer[0]))


def pack_options(options: list[tuple[int, int, bytes]]) -> bytes:
    """Level, name and value of the options to be set on a socket of the kernel, as many as a reply carries."""
    packed = b""
    for level, name, value in options:
        entry = _OPTION.pack(level, name, len(value)) + value + bytes(-len(value) % 4)
        if len(packed) + len(entry) <= REPLY_DATA:
            packed += entry
    return packed
