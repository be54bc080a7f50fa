"""Lines that misbehave, as a matrix: what a cell of it is, and how one is carried through two engines on one line.

TCP's clock runs fast (a tick is 40 us): a minute of back-off, or a line cut for 30 seconds, are a second or two of simulated
time.
"""

from __future__ import annotations

import errno
import hashlib
import random
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tiptoe_driver.hardware.abi_gen import REG_MSL_TICKS, REG_RETRIES, RETRIES_REXMT_MAX_SHIFT
from tiptoe_driver.netinet.in_cksum import internet_checksum
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.wire.impairment import Channel, Impairment
from tiptoe_verif.wire.segment import HEADER

TICK_US = 40
SECOND = 1000 * TICK_US
"""A second of TCP's clock, in microseconds of simulated time."""

STEP = 1000
"""Microseconds between two looks at the sockets."""

LINES: dict[str, dict[str, Any]] = {
    "clean": {},
    "loss 0.1 %": {"loss": 0.001},
    "loss 1 %": {"loss": 0.01},
    "loss 5 %": {"loss": 0.05},
    "loss 20 %": {"loss": 0.2},
    "reorder": {"reorder": 0.1, "reorder_us": 3000},
    "duplicate": {"duplicate": 0.1},
    "bit flips": {"corrupt": 0.05},
    "jitter": {"delay_us": 2000, "jitter_us": 6000},
    "everything": {
        "loss": 0.02,
        "reorder": 0.03,
        "duplicate": 0.03,
        "corrupt": 0.02,
        "jitter_us": 1000,
        "delay_us": 300,
    },
    "cut for 30 s": {},
    "MTU falls": {},
}
MIDSTREAM = ("cut for 30 s", "MTU falls")
DIRECTIONS = ("both ways", "forward", "back")
"""Which frames fare so; data goes both ways always."""
CONNECTIONS = (1, 6)


@dataclass(frozen=True)
class Buffers:
    """Rings and how the ends use them: ``sndbuf`` what may be written and not acknowledged, ``reads`` how much is read at a
    time, ``every`` how often (microseconds)."""

    ring: int = 16_384
    sndbuf: int = 0
    reads: int = 65_536
    every: int = 0


BUFFERS = {
    "16 KiB": Buffers(),
    "4 KiB": Buffers(4096),
    "2 MSS written": Buffers(4096, sndbuf=2920),
    "less than an MSS written": Buffers(4096, sndbuf=1000),
    "slow reader": Buffers(4096, reads=700, every=2000),
}


class Router(Channel):
    """A direction of the line behind which a link has a smaller MTU from some time on: what is larger is dropped, and its sender
    told (RFC 1191)."""

    def __init__(self, channel: Channel, pair: Pair, sender: Any) -> None:
        self.__dict__.update(channel.__dict__)
        self._pair, self._sender = pair, sender
        self.mtu = 1500
        self.complaints = 0

    def send(self, frame: bytes, time_us: float) -> list[tuple[float, bytes]]:
        if len(frame) <= HEADER + self.mtu:
            return super().send(frame, time_us)
        self.complaints += 1
        quoted = frame[HEADER : HEADER + 28]
        icmp = bytearray(b"\x03\x04\0\0\0\0" + self.mtu.to_bytes(2) + quoted)
        icmp[2:4] = internet_checksum(icmp).to_bytes(2)
        header = bytearray(
            b"\x45\0" + (20 + len(icmp)).to_bytes(2) + b"\0\0\x40\0\x40\x01\0\0" + frame[30:34] + frame[26:30]
        )
        header[10:12] = internet_checksum(header).to_bytes(2)
        self._sender.inject((frame[6:12] + frame[:6] + frame[12:14] + header + icmp).ljust(60, b"\0"))
        return []


@dataclass
class End:
    """One end of a connection: what it still writes, what it has read."""

    sock: Any
    data: memoryview
    buffers: Buffers
    got: bytearray = field(default_factory=bytearray)
    sent: int = 0
    ended: bool = False
    next_read: float = 0.0

    def turn(self, now_us: float, rng: random.Random) -> None:
        try:
            while self.sent < len(self.data):
                size = rng.choice([1, 200, 1460, 5000])
                self.sent += self.sock.send(self.data[self.sent : self.sent + size])
                if self.sent == len(self.data):
                    self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        if now_us < self.next_read:
            return
        self.next_read = now_us + self.buffers.every
        try:
            while not self.ended:
                data = self.sock.recv(self.buffers.reads)
                self.got += data
                self.ended = not data
                if self.buffers.every:
                    return
        except BlockingIOError:
            pass


def dead_line(connections: int) -> None:
    """The line is cut for good while data goes both ways: both ends of every connection hear of it, and no id is lost."""
    rng = random.Random(connections)
    driver = {"snd_ring_bytes": 4096, "rcv_ring_bytes": 4096, "registers": {REG_RETRIES: 3 << RETRIES_REXMT_MAX_SHIFT}}
    with Pair("tiny", tick_us=TICK_US, memory_bytes=1 << 22, driver=driver) as pair:
        listener = pair.b.socket()
        listener.bind(("10.0.0.2", 80))
        listener.listen(16)
        ends = _connect(pair, listener, connections, Buffers(), 50_000, rng)

        def turn() -> bool:
            for end in ends:
                with suppress(OSError):
                    end.turn(pair.a.now_us(), rng)
            return False

        _let(pair, turn, 20_000)
        for channel in pair.wire.channels:
            channel.impairment = Impairment(loss=1.0)
        turn()  # one that had nothing under way when the line was cut would hear of nothing
        errors: dict[int, int] = {}

        def told() -> bool:
            for k, end in enumerate(ends):
                if error := end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    errors[k] = error
            return len(errors) == len(ends)

        pair.a.run_until(told, 60 * SECOND, "the errors", STEP)
        assert set(errors.values()) == {errno.ETIMEDOUT}
        _end(pair, listener, ends)


def trial(
    line: str, direction: str, connections: int, buffers: Buffers, size: int, seed: int, time_wait: int = 1000
) -> None:
    """Carry ``size`` bytes each way over each of the connections: every digest as it was, and nothing left behind.

    ``time_wait``: ticks. Shorter than the time in which a FIN may be lost again and again, TIME_WAIT ends before the peer's
    last FIN comes, whose answer is a reset, and whoever has data out that he does not know to have arrived hears of it.
    """
    rng = random.Random(f"{line} {direction} {connections} {seed}")
    if line in MIDSTREAM:
        size = max(size, 2 * buffers.ring + 4000)  # some is left when it happens
    bad = Impairment(**{"delay_us": 100, "seed": seed} | LINES[line])
    good = Impairment(delay_us=100, seed=seed)
    driver = {
        "snd_ring_bytes": buffers.ring,
        "rcv_ring_bytes": buffers.ring,
        "arp_retry_us": 20_000,
        "registers": {REG_MSL_TICKS: time_wait},
    }
    with Pair("tiny", tick_us=TICK_US, memory_bytes=1 << 22, seed=seed, driver=driver) as pair:
        listener = pair.b.socket()
        listener.bind(("10.0.0.2", 80))
        listener.listen(16)
        channels = pair.wire.channels
        impaired = {"both ways": (0, 1), "forward": (0,), "back": (1,)}[direction]
        for k, channel in enumerate(channels):
            channel.impairment = bad if k in impaired else good
        ends = _connect(pair, listener, connections, buffers, size, rng)
        if line == "MTU falls":
            routers = tuple(Router(channel, pair, end) for channel, end in zip(channels, (pair.a, pair.b), strict=True))
            pair.wire.channels = channels = routers

        def done() -> bool:
            now = pair.a.now_us()
            for end in ends:
                if not (end.ended and end.sent == len(end.data)):
                    end.turn(now, rng)
            return all(end.ended for end in ends)

        if line in MIDSTREAM:
            pair.a.run_until(
                lambda: done() or any(len(e.got) > size // 8 for e in ends), 4000 * SECOND, "some of it", 200
            )
        if line == "cut for 30 s":
            for k in impaired:
                channels[k].impairment = Impairment(loss=1.0)
            _let(pair, done, 30 * SECOND)
            for k in impaired:
                channels[k].impairment = good
        if line == "MTU falls":
            for k in impaired:
                channels[k].mtu = 700
        pair.a.run_until(done, 4000 * SECOND, f"{size} bytes each way on each of {connections} connections", STEP)
        for k in impaired:
            _happened(channels[k], line)
        digests = [hashlib.sha256(end.got).digest() for end in ends]
        expected = [hashlib.sha256(ends[k ^ 1].data).digest() for k in range(len(ends))]
        assert digests == expected
        _end(pair, listener, ends)


def _end(pair: Pair, listener: Any, ends: list[End]) -> None:
    """Close everything: nothing is left behind."""
    for end in ends:
        end.sock.close()
    listener.close()
    for sim in (pair.a, pair.b):
        pair.a.run_until(partial(_nothing_left, sim.toe), 200 * SECOND, "every id back", STEP)
    pair.check()


def _happened(channel: Channel, line: str) -> None:
    """The line was as bad as the cell says, as far as that is certain."""
    rules = LINES[line]
    for name, count in (("loss", channel.lost), ("reorder", channel.reordered), ("duplicate", channel.duplicated),
                        ("corrupt", channel.corrupted)):  # fmt: skip
        assert count or rules.get(name, 0) * channel.passed < 5, name
    if isinstance(channel, Router):
        assert channel.complaints


def _nothing_left(toe: Any) -> bool:
    return not toe.calls.four_tuples and not toe.engine.ids.releasing


def _let(pair: Pair, turn: Any, microseconds: float) -> None:
    end = pair.a.now_us() + microseconds
    while pair.a.now_us() < end:
        turn()
        pair.run_us(2000)


def _connect(pair: Pair, listener: Any, count: int, buffers: Buffers, size: int, rng: random.Random) -> list[End]:
    """Both ends of each connection, one behind the other."""
    clients = []
    for _ in range(count):
        client = pair.a.socket()
        if buffers.sndbuf:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers.sndbuf)
        client.connect_ex(("10.0.0.2", 80))
        clients.append(client)
    pair.a.run_until(lambda: all(c.writable() for c in clients), 500 * SECOND, "the connections")
    ends = []
    by_name = {client.getsockname(): client for client in clients}
    for _ in range(count):
        pair.a.run_until(listener.readable, 500 * SECOND, "a connection to accept")
        server, address = listener.accept()
        server.setblocking(False)
        if buffers.sndbuf:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers.sndbuf)
        ends.append(End(by_name.pop(address), memoryview(rng.randbytes(size)), buffers))
        ends.append(End(server, memoryview(rng.randbytes(size)), buffers))
    return ends
