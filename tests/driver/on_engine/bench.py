"""Two simulated engines on a line, each with its own stack: connections between them, and what is carried."""

from __future__ import annotations

import errno
import random
import socket

from scapy.layers.l2 import ARP, Ether

from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.netinet.structures import sototcpcb, tcpcb
from tiptoe_driver.toe.device import Tiptoe
from tiptoe_verif.native.pair import Pair

RINGS = {"snd_ring_bytes": 4096, "rcv_ring_bytes": 4096, "arp_retry_us": 20_000}
SERVER = "10.0.0.2"
A_MAC = "02:00:00:00:00:01"


def pair(**options) -> Pair:
    driver = {**RINGS, "registers": {reg.REG_MSL_TICKS: 3}}
    return Pair("tiny", **{"driver": driver, "memory_bytes": 1 << 22, "skip_idle": True, **options})


def tp_of(sock: Socket) -> tcpcb:
    assert sock.so is not None
    return sototcpcb(sock.so)


def connect(two: Pair, port: int = 80) -> tuple[Socket, Socket, Socket]:
    """A connection from a to b: both ends, and b's listener."""
    listener = two.b.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", port))
    listener.listen()
    client = two.a.socket()
    assert client.connect_ex((SERVER, port)) == errno.EINPROGRESS
    two.run_until(lambda: listener.readable() and client.writable(), 100_000, "established")
    server, _ = listener.accept()
    server.setblocking(False)
    return client, server, listener


def nothing_left(toe: Tiptoe) -> bool:
    """No connection, ring or half-open entry is held any more."""
    engine = toe.engine
    return (
        engine.ids.ring_pool.in_use == engine.ids.idle_rings
        and not toe.calls.four_tuples
        and not toe.passive.half_open
        and engine.commands.waiting == 0
        and list(toe.stack.tcbinfo) == []
    )


class Flow:
    """Carries ``data`` from one socket to another while time passes; ``reads`` bounds what is taken at a time."""

    def __init__(self, source: Socket, sink: Socket, data: bytes, rng: random.Random) -> None:
        self.source, self.sink, self.data, self.rng = source, sink, memoryview(data), rng
        self.sent = 0
        self.got = bytearray()
        self.ended = False

    def turn(self) -> None:
        """Send and receive what goes now."""
        try:
            if self.sent < len(self.data):
                size = self.rng.choice([1, 7, 536, 1460, 4096, 20_000])
                self.sent += self.source.send(self.data[self.sent : self.sent + size])
                if self.sent == len(self.data):
                    self.source.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        try:
            data = self.sink.recv(self.rng.choice([1, 100, 5000]))
            self.got += data
            self.ended |= not data
        except BlockingIOError:
            pass


def carry(two: Pair, *flows: Flow, timeout_us: float = 30_000_000) -> None:
    def done() -> bool:
        for flow in flows:
            if not flow.ended:
                flow.turn()
        return all(flow.ended for flow in flows)

    two.run_until(done, timeout_us, "the transfer")


def data_and_end(two: Pair, ends: tuple[Socket, Socket, Socket], rng: random.Random) -> None:
    """Data both ways over a connection (client, server, listener), and its end, of which nothing is left."""
    client, server, _ = ends
    there, back = (Flow(*way, rng.randbytes(30_000), rng) for way in ((client, server), (server, client)))
    carry(two, there, back)
    assert (bytes(there.got), bytes(back.got)) == (bytes(there.data), bytes(back.data))
    for sock in ends:
        sock.close()
    two.run_until(lambda: nothing_left(two.a.toe) and nothing_left(two.b.toe), 10_000_000, "every id back")
    two.check()


def answer_arp(frame: bytes, time_us: float) -> list[bytes]:
    packet = Ether(frame)
    if ARP in packet and packet[ARP].op == 1:
        return [
            bytes(
                Ether(src="02:00:00:00:00:02", dst=A_MAC)
                / ARP(op="is-at", hwsrc="02:00:00:00:00:02", psrc=packet[ARP].pdst, hwdst=A_MAC, pdst="10.0.0.1")
            )
        ]
    return []
