"""Boards made of a dictionary, behind a UDP socket or a pseudo-terminal: what gateware does with packets and bytes, at once."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
import tty
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from tiptoe_board.address_map import status_address
from tiptoe_board.etherbone import NUMBERED, NUMBERS
from tiptoe_verif.wire.impairment import Channel, Impairment

BUILD = 0xB01D_1234
ADDRESS = "127.0.0.3"


class Words:
    """What is at the addresses, and every write in order."""

    def __init__(self) -> None:
        self.words: Counter[int] = Counter()
        self.words |= Counter({status_address(name): value for name, value in (
            ("build", BUILD), ("clock", 50_000_000), ("memory", 1 << 17)
        )})  # fmt: skip
        self.written: list[tuple[int, int]] = []
        self.spoilt = range(0)

    def write(self, address: int, word: int) -> None:
        self.words[address] = word ^ (address in self.spoilt)
        self.written.append((address, word))


class Fake(threading.Thread):
    """A thread that serves until it is closed."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.board = Words()
        self.stopping = False

    def close(self) -> None:
        self.stopping = True
        self.join()


class FakeEtherbone(Fake):
    """LiteEth's Etherbone behind the guard of numbers, behind a network."""

    def __init__(self, impairment: Impairment | None = None) -> None:
        super().__init__()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((ADDRESS, 0))
        self.port = self.socket.getsockname()[1]
        self.channels = tuple(Channel(impairment or Impairment(), way) for way in ("there", "back"))
        self.last, self.unplugged, self.longest, self.longest_back = 0, False, 1 << 16, 1 << 16
        self.late: list[tuple[float, int, bytes, bool]] = []
        self.order = count()
        self.client: tuple[str, int] = ("", 0)
        self.start()

    def run(self) -> None:
        while not self.stopping:
            if select.select([self.socket], [], [], 0.002)[0]:
                payload, self.client = self.socket.recvfrom(4096)
                if len(payload) <= self.longest:
                    self.queue(payload, True)
            while self.late and self.late[0][0] <= time.monotonic() * 1e6:
                _, _, payload, there = heappop(self.late)
                if not there:
                    self.socket.sendto(payload, self.client)
                elif (answer := self.carry_out(payload)) is not None and len(answer) <= self.longest_back:
                    self.queue(answer, False)
        self.socket.close()

    def queue(self, payload: bytes, there: bool) -> None:
        if not self.unplugged:
            for at, arrived in self.channels[0 if there else 1].send(payload, time.monotonic() * 1e6):
                heappush(self.late, (at, next(self.order), arrived, there))

    def carry_out(self, payload: bytes) -> bytes | None:
        number, _, writes, reads, first, *words = struct.unpack_from(f">4xIHBB{len(payload) // 4 - 3}I", payload)
        if number & NUMBERED:
            if number & NUMBERS != self.last + 1 & NUMBERS:
                return None
            self.last = number & NUMBERS
        for n in range(writes):
            self.board.write(first + 4 * n, words[n])
        if not reads:
            return None
        self.board.words[status_address("sequence")] = self.last
        answer = [self.board.words[address] for address in words]
        return payload[:4] + bytes(4) + struct.pack(f">HBB{reads + 1}I", 0x100F, reads, 0, first, *answer)


class FakeUart(Fake):
    """LiteX's UARTBone (Stream2Wishbone): it forgets half a command after 100 ms, and hears nothing while it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.terminal = os.ttyname(self.slave)
        self.spoil: Callable[[bytes, bool], bytes] = lambda data, to_board: data
        self.deaf = False
        self.start()

    def run(self) -> None:
        command = b""
        began = 0.0
        while not self.stopping:
            if not select.select([self.master], [], [], 0.002)[0]:
                continue
            now = time.monotonic()
            for byte in self.spoil(os.read(self.master, 4096), True):
                if command and now - began > 0.1:
                    command = b""
                if not command:
                    began = now
                command += bytes([byte])
                answer = self.carry_out(command)
                if answer is not None:
                    command = b""
                if answer and not self.deaf:
                    os.write(self.master, self.spoil(answer, False))
                    break  # what has come meanwhile is not heard
        os.close(self.master)
        os.close(self.slave)

    def carry_out(self, command: bytes) -> bytes | None:
        """The answer, empty if there is none; None while more bytes belong to it."""
        if len(command) < 6:
            return None
        kind, length, word = struct.unpack_from(">BBI", command)
        if kind == 1:
            if len(command) > 6 and len(command) % 4 == 2:
                self.board.write(4 * word + len(command) - 10 & 0xFFFF_FFFF, int.from_bytes(command[-4:], "big"))
            return b"" if len(command) == 6 + 4 * length else None
        if kind == 2:
            return b"".join(self.board.words[4 * (word + n)].to_bytes(4, "big") for n in range(length))
        return b""
