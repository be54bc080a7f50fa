"""Urgent data through two engines: RFC 9293 section 3.8.5, RFC 6093; every frame of it is judged by the wire monitor."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.driver.on_engine.bench import connect, pair
from tiptoe_driver import Socket
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.wire.impairment import Impairment
from tiptoe_verif.wire.pcap import read_pcap
from tiptoe_verif.wire.segment import FIN, SYN, URG, Segment, ip_number, parse_tcp

OOB = socket.MSG_OOB
CLIENT = ip_number("10.0.0.1")
PATIENCE_US = 5_000_000


@pytest.fixture
def two(out_dir) -> Iterator[Pair]:
    with pair(pcap=out_dir / "wire.pcap") as made:
        yield made
        made.check()


def segments(two: Pair) -> list[Segment]:
    """Those of the client behind its SYN."""
    two.a.capture.pcap.flush()
    found = [parse_tcp(frame) for _, frame in read_pcap(two.a.pcap)]
    return [segment for segment in found if segment is not None and segment.src == CLIENT and not segment.flags & SYN]


def receive(two: Pair, sock: Socket, count: int) -> bytes:
    """``count`` bytes of the stream, in as many reads as they take."""
    got = bytearray()

    def done() -> bool:
        with contextlib.suppress(BlockingIOError):
            got.extend(sock.recv(count - len(got)))
        return len(got) == count

    two.run_until(done, PATIENCE_US, f"{count} bytes")
    return bytes(got)


def heard(sock: Socket) -> list[int]:
    """How much urgent data is left whenever the socket hears of it, from now on."""
    told: list[int] = []
    sock.set_urgent_upcall(lambda sock: told.append(sock.urgent()))
    return told


@pytest.mark.parametrize("backwards", [False, True])
def test_the_urgent_byte_crosses_out_of_line(two: Pair, backwards: bool) -> None:
    client, server, _ = connect(two)
    source, sink = (server, client) if backwards else (client, server)
    told = heard(sink)
    source.send(b"abc")
    source.send(b"X", OOB)
    source.send(b"def")
    two.run_until(sink.exceptional, PATIENCE_US, "the urgent byte")
    assert sink.recv(10, OOB) == b"X" and told
    assert receive(two, sink, 3) == b"abc" and sink.sockatmark()
    assert receive(two, sink, 3) == b"def" and not sink.sockatmark()


def test_in_line_it_is_one_of_the_bytes(two: Pair) -> None:
    client, server, listener = connect(two)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    client.send(b"abcX", OOB)
    client.send(b"def")
    assert receive(two, server, 3) == b"abc" and server.sockatmark()
    assert receive(two, server, 4) == b"Xdef"


def test_must_62_on_the_wire_the_pointer_names_the_octet_behind(two: Pair) -> None:
    client, server, _ = connect(two)
    client.send(b"abcX", OOB)
    two.run_until(server.exceptional, PATIENCE_US, "the urgent byte")
    (segment,) = [s for s in segments(two) if s.flags & URG]
    assert segment.payload == b"abcX" and segment.urgent == 4
    client.send(b"more")
    assert receive(two, server, 3) == b"abc" and receive(two, server, 4) == b"more"
    assert [s.flags & URG for s in segments(two) if s.payload == b"more"] == [0]


def test_must_32_it_is_heard_of_through_a_closed_window(two: Pair) -> None:
    client, server, _ = connect(two)
    told = heard(server)
    sent = 0
    while sent < 6000:
        with contextlib.suppress(BlockingIOError):
            sent += client.send(bytes(6000 - sent))
        two.run_us(1000)
    two.run_us(50_000)
    assert not told and server.so.so_rcv.sb_cc == 4096
    client.send(b"X", OOB)
    two.run_until(lambda: told, 20_000, "the notice")
    assert told == [6001] and not server.exceptional()
    assert receive(two, server, 6000) == bytes(6000)
    two.run_until(server.exceptional, PATIENCE_US, "the urgent byte")
    assert server.sockatmark() and server.recv(1, OOB) == b"X"


def test_urgent_then_end_of_the_stream(two: Pair) -> None:
    client, server, _ = connect(two)
    client.send(b"abX", OOB)
    client.shutdown(socket.SHUT_WR)
    assert receive(two, server, 2) == b"ab"
    two.run_until(server.readable, PATIENCE_US, "the end")
    assert server.recv(10) == b"" and server.recv(1, OOB) == b"X"
    assert any(s.flags & FIN for s in segments(two))


def test_urgent_before_the_connection_is_accepted_or_even_open(two: Pair) -> None:
    listener = two.b.socket()
    listener.bind(("", 81))
    listener.listen()
    client = two.a.socket()
    client.connect_ex(("10.0.0.2", 81))
    client.send(b"abX", OOB)
    two.run_us(50_000)
    server, _ = listener.accept()
    server.setblocking(False)
    assert server.exceptional() and server.recv(1, OOB) == b"X"
    assert receive(two, server, 2) == b"ab"


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_must_31_urgent_data_again_and_again(out_dir, loss: float, rng) -> None:
    """In line every byte comes, whatever is lost; what was heard of last is where the last urgent byte was."""
    with pair(pcap=out_dir / "wire.pcap", impairment=Impairment(loss=loss, seed=3)) as two:
        client, server, _ = connect(two)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        ends: list[int] = []
        server.set_urgent_upcall(lambda sock: ends.append(sock.so.so_rcv.oobmark + 1))
        data, got = rng.randbytes(10_000), bytearray()
        sent = last = 0

        def done() -> bool:
            nonlocal sent, last
            with contextlib.suppress(BlockingIOError):
                if sent < len(data):
                    piece = data[sent : sent + rng.choice([1, 10, 700, 3000])]
                    urgent = rng.random() < 0.5
                    count = client.send(piece, OOB if urgent else 0)
                    sent += count
                    if urgent and count == len(piece):
                        last = sent
                got.extend(server.recv(rng.choice([1, 100, 5000])))
            return len(got) == len(data)

        two.run_until(done, 60_000_000, "all of it")
        assert got == data and ends == sorted(set(ends)) and ends[-1] == last
        two.check()
