"""Steps that many tests of the whole engine share: opening, carrying data, closing."""

from __future__ import annotations

import errno
from typing import Any

from tiptoe_driver import Socket

from .bench import ACTIVE, PASSIVE, Bench
from .peer import Host, Peer


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


def active(
    b: Bench, host: Host, port: int = ACTIVE[1], local: int = ACTIVE[0], **options: Any
) -> tuple[Peer, Socket]:
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
    assert sock.send(there) == len(there)
    peer.wait_for(before + len(there))
    assert peer.received[before:] == there
    peer.send("A")
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
