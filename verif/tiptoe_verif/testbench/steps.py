"""Steps that many tests of the whole engine share: opening, carrying data, closing."""

from __future__ import annotations

import errno
from typing import Any

from tiptoe_driver import Socket

from .peer import Host, Peer
from .testbench import ACTIVE, PASSIVE, Bench


def listen(b: Bench, port: int = PASSIVE[0], backlog: int = 8) -> Socket:
    """A listening socket; the engine has its listen table entry, and ids in stock."""
    listener = b.socket()
    listener.bind(("", port))
    listener.listen(backlog)
    b.until(lambda: not b.toe.engine.commands.waiting, "LISTEN done")
    return listener


def accepted(b: Bench, listener: Socket) -> Socket:
    """The next connection of a listener, as non-blocking socket."""
    b.until(listener.readable, "a connection to accept")
    sock, _ = listener.accept()
    sock.setblocking(False)
    return sock


def passive(b: Bench, host: Host, listener: Socket, port: int = PASSIVE[1], **options: Any) -> tuple[Peer, Socket]:
    """A connection that the peer opened."""
    peer = host.connection(port, listener.getsockname()[1], **options)
    peer.open()
    return peer, accepted(b, listener)


def connecting(
    b: Bench, host: Host, port: int = ACTIVE[1], local: int = ACTIVE[0], **options: Any
) -> tuple[Peer, Socket]:
    """A connection that the engine is opening: its SYN is on the way."""
    sock = b.socket()
    sock.bind(("", local))
    peer = host.connection(port, local, **options)
    assert sock.connect_ex((host.ip, port)) == errno.EINPROGRESS
    return peer, sock


def active(b: Bench, host: Host, port: int = ACTIVE[1], local: int = ACTIVE[0], **options: Any) -> tuple[Peer, Socket]:
    """A connection that the engine opened."""
    peer, sock = connecting(b, host, port, local, **options)
    peer.accept()
    b.until(sock.writable, "the connection")
    return peer, sock


def receive(b: Bench, sock: Socket, size: int) -> bytes:
    """Wait for ``size`` bytes at the socket."""
    got = bytearray()

    def read() -> bool:
        while len(got) < size and sock.readable():
            part = sock.recv(size - len(got))
            assert part, f"end of stream after {len(got)} of {size} bytes"
            got.extend(part)
        return len(got) == size

    b.until(read, f"{size} bytes at the socket")
    return bytes(got)


def exchange(b: Bench, peer: Peer, sock: Socket, there: bytes = b"ping", back: bytes = b"pong") -> None:
    """A few bytes both ways: the connection works."""
    before = len(peer.received)
    if there:
        assert sock.send(there) == len(there)
        peer.wait_for(before + len(there))
        assert peer.received[before:] == there
        peer.send("A")
    if back:
        peer.send("PA", back)
        assert receive(b, sock, len(back)) == back


def close_by_peer(b: Bench, peer: Peer, sock: Socket) -> None:
    """The peer closes first; no TIME_WAIT on the engine."""
    peer.inbox.clear()
    peer.send("FA")
    b.until(sock.readable, "end of stream")
    assert sock.recv(1) == b""
    sock.close()
    peer.expect("FA", ack=peer.seq, skip_acks=True)
    peer.send("A")


def close_by_us(b: Bench, peer: Peer, sock: Socket) -> None:
    """The host closes first; the engine is left in TIME_WAIT."""
    peer.inbox.clear()
    sock.close()
    peer.expect("FA", skip_acks=True)
    peer.send("FA")
    peer.expect_ack(peer.seq)


def use_everything(b: Bench) -> None:
    """Every place for a half-open connection and every id can be used: nothing has leaked before."""
    host = Host(b, "10.0.0.66", "02:00:00:00:00:66")
    capabilities = b.toe.engine.capabilities
    listener = listen(b, 6666, backlog=capabilities.connections)
    connections: list[tuple[Peer, Socket]] = []
    while b.toe.engine.ids.stocked:
        group = [
            host.connection(1000 + len(connections) + n, 6666)
            for n in range(min(capabilities.syncache_entries, b.toe.engine.ids.stocked))
        ]
        for peer in group:
            peer.send("S")
        for peer in group:
            peer.expect("SA", seq=0, ack=1)
        b.run(1000)
        for peer in group:
            peer.send("A")
        by_port = {peer.port: peer for peer in group}
        for _ in group:
            sock = accepted(b, listener)
            connections.append((by_port.pop(sock.getpeername()[1]), sock))
        b.settle()
    while b.free_ids:
        connections.append(active(b, host, port=2000 + len(connections), local=60000 + len(connections)))
    assert len(connections) == capabilities.connections
    for peer, sock in connections:
        close_by_peer(b, peer, sock)
    listener.close()
