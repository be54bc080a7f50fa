"""What a client may ask of a served engine."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from .protocol import LONGEST, MOST_WAIT_US, VERSION, WELCOME, Event, Kind, Message, Refused

_WORD = struct.Struct("<I")
_REGISTERS_END = 1 << 20
_BARE = frozenset({Kind.HELLO, Kind.READ, Kind.WAIT, Kind.TAKE})
"""Requests that are a head alone."""


class Served(Protocol):
    """An engine and what is on its line."""

    ip: int
    mac: int
    peer_ip: int
    peer_mac: int
    memory: memoryview

    def read32(self, address: int) -> int:
        """Read a register, behind all writes; Refused where the engine has none."""

    def write32(self, address: int, value: int) -> None:
        """Post a register write."""

    def now_us(self) -> int:
        """The clock."""

    def wait(self, timeout_us: int) -> Event:
        """Let time pass until something happens, or so much; what has."""

    def send(self, frame: bytes) -> None:
        """A frame for the engine; Refused where the line is not the client's."""

    def take(self) -> tuple[float, bytes] | None:
        """The next frame of the engine, and its time; Refused where the line is not the client's."""


class Requests:
    """The requests of one client, from its HELLO on."""

    def __init__(self, engine: Served) -> None:
        self._engine = engine
        self.greeted = False
        """HELLO was the first, as it has to be."""
        self._calls: dict[int, Callable[[int, bytes], tuple[int, bytes]]] = {
            Kind.HELLO: self._hello, Kind.READ: self._read, Kind.WRITE: self._write, Kind.LOAD: self._load,
            Kind.STORE: self._store, Kind.WAIT: self._wait, Kind.SEND: self._send, Kind.TAKE: self._take,
        }  # fmt: skip

    def answer(self, request: Message) -> Message:
        """Do it; :exc:`Refused` when it cannot be done, and then nothing of it is."""
        call = self._calls.get(request.kind)
        if call is None:
            raise Refused(f"there is no message of kind {request.kind}")
        if not self.greeted and request.kind != Kind.HELLO:
            raise Refused("HELLO comes first")
        if request.kind in _BARE and request.payload:
            raise Refused(f"{Kind(request.kind).name} is a head alone, without the {len(request.payload)} bytes")
        argument, payload = call(request.argument, request.payload)
        return Message(request.kind, argument, payload)

    def _hello(self, version: int, payload: bytes) -> tuple[int, bytes]:
        if version != VERSION:
            raise Refused(f"version {VERSION} is spoken here, not {version}")
        self.greeted = True
        engine = self._engine
        told = WELCOME.pack(len(engine.memory), engine.ip, engine.peer_ip, engine.mac, engine.peer_mac)
        return VERSION, told

    def _read(self, address: int, payload: bytes) -> tuple[int, bytes]:
        return self._engine.read32(_register(address)), b""

    def _write(self, address: int, payload: bytes) -> tuple[int, bytes]:
        if len(payload) != _WORD.size:
            raise Refused(f"a register has {_WORD.size} bytes, not {len(payload)}")
        self._engine.write32(_register(address), *_WORD.unpack(payload))
        return 0, b""

    def _range(self, address: int, length: int) -> slice:
        if address + length > len(self._engine.memory):
            raise Refused(f"{length} bytes at {address:#x} are beyond host memory, {len(self._engine.memory):#x} bytes")
        return slice(address, address + length)

    def _load(self, address: int, payload: bytes) -> tuple[int, bytes]:
        if len(payload) != _WORD.size:
            raise Refused("LOAD says in 4 bytes how many are wanted")
        (length,) = _WORD.unpack(payload)
        if length > LONGEST:
            raise Refused(f"at most {LONGEST} bytes at once, not {length}")
        return 0, bytes(self._engine.memory[self._range(address, length)])

    def _store(self, address: int, payload: bytes) -> tuple[int, bytes]:
        self._engine.memory[self._range(address, len(payload))] = payload
        return 0, b""

    def _wait(self, timeout_us: int, payload: bytes) -> tuple[int, bytes]:
        what = self._engine.wait(min(timeout_us, MOST_WAIT_US))
        return self._engine.now_us(), _WORD.pack(what)

    def _send(self, argument: int, payload: bytes) -> tuple[int, bytes]:
        if not 14 <= len(payload) <= 65535:
            raise Refused(f"a frame has 14 to 65535 bytes, not {len(payload)}")
        self._engine.send(payload)
        return 0, b""

    def _take(self, argument: int, payload: bytes) -> tuple[int, bytes]:
        taken = self._engine.take()
        return (int(taken[0]), taken[1]) if taken is not None else (0, b"")


def _register(address: int) -> int:
    if address % 4 or address >= _REGISTERS_END:
        raise Refused(f"no register can be at {address:#x}")
    return address
