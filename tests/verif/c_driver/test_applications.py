"""The applications in C: HTTP, echo, sink and source."""

from __future__ import annotations

import random

import pytest

from tiptoe_verif.c_driver import DRIVER, CDriver, Error, pattern
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.wire.impairment import Impairment

from .conftest import library
from .test_tables import exchange

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def served(make):
    bench = make(applications=1)
    bench.until(lambda: bench.c.listening(5002) is Error.OK, "the listeners")
    return bench


def ask(bench, request: bytes, pieces: int = 0) -> bytes:
    """All that comes back until the server closes; sent in pieces of so many bytes."""
    peer = bench.peer()
    for at in range(0, len(request), pieces or len(request)):
        bench.send(peer, request[at : at + (pieces or len(request))])
        if pieces:
            bench.for_us(300)
    answer = bench.receive_all(peer)
    peer.close()
    return answer


def body(answer: bytes) -> tuple[int, bytes]:
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    return int(head[9:12]), rest


def test_pattern() -> None:
    assert pattern(10) == bytes([0, 0, 0, 0, 0xB1, 0x79, 0x37, 0x9E, 0x62, 0xF3])
    assert pattern(7, 3) == pattern(10)[3:]


def test_pages_on_one_connection(served) -> None:
    """Keep-alive, and requests that come all at once; the last one closes."""
    sizes = [0, 1, 4096, 9999]
    peer = served.peer()
    requests = b"".join(GET % f"/bytes/{size}".encode() for size in sizes)
    served.send(
        peer,
        requests + b"HEAD /bytes/500 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\nConnection: close\r\n\r\n",
    )
    answer = served.receive_all(peer)
    for size in [*sizes, None]:
        status, answer = body(answer)
        assert status == 200
        length = size or 0
        assert answer[:length] == pattern(length)
        answer = answer[length:]
    status, page = body(answer)
    counters = dict(line.split() for line in page.decode().splitlines())
    assert status == 200 and counters["requests"] == "6" and counters["accepted"] == "1"
    peer.close()


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400), (b"\0\0\0", 400), (b"hello\r\n", 400), (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET /" + b"x" * 200 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"GET /bytes/1x HTTP/1.0\r\n\r\n", 404), (b"GET /bytes/99999999999999999 HTTP/1.0\r\n\r\n", 404),
        (b"GET /other HTTP/1.0\r\n\r\n", 404), (b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"\r\nGET / HTTP/1.0\nX-Long: " + b"y" * 300 + b"\n\n", 200),
    ],
)  # fmt: skip
def test_answers(served, request_bytes: bytes, status: int) -> None:
    assert body(ask(served, request_bytes))[0] == status


def test_a_request_byte_by_byte_while_others_are_served(served) -> None:
    """Who is slow, or takes nothing, keeps nobody waiting."""
    slow, deaf = served.peer(), served.peer()
    served.send(deaf, GET % b"/bytes/100000")
    for byte in GET % b"/bytes/10":
        served.send(slow, bytes([byte]))
        served.for_us(200)
        if byte == b"/"[0]:
            assert body(ask(served, b"GET /bytes/3000 HTTP/1.0\r\n\r\n"))[1] == pattern(3000)
    answer = served.receive(slow, 80)
    assert answer.endswith(b"\r\n\r\n" + pattern(10))
    slow.close()
    deaf.close()


def test_requests_at_random(served, rng: random.Random) -> None:
    """Cut, spoilt, repeated: each connection ends with answers or a close, and the server goes on."""
    seeds = [GET % b"/bytes/5", GET % b"/", b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"]
    for _ in range(12):
        request = bytearray(b"".join(rng.choice(seeds) for _ in range(rng.randrange(1, 4))))
        for _ in range(rng.randrange(6)):
            request[rng.randrange(len(request))] = rng.choice(b"\r\n :/\0\xffA1")
        peer = served.peer()
        served.until(peer.writable)
        served.send(peer, bytes(request[: rng.randrange(1, len(request) + 1)]))
        served.for_us(5000)
        peer.shutdown(1)
        served.for_us(5000)
        peer.close()
    assert body(ask(served, b"GET /bytes/100 HTTP/1.0\r\n\r\n"))[1] == pattern(100)


def test_sink_source_and_echo(served, payload) -> None:
    peer = served.peer(5001)
    served.send(peer, payload(30_000))
    peer.shutdown(1)
    assert served.receive_all(peer).startswith(b"30000 bytes in ")
    peer.close()
    peer = served.peer(5002)
    served.send(peer, b"bytes 25001\n")
    assert served.receive_all(peer) == pattern(25_001)
    peer.close()
    peer = served.peer(5002)
    served.send(peer, b"what?\n")
    assert served.receive_all(peer) == b"bytes N or seconds N\n"
    peer.close()
    exchange(served, payload(9000), [served.peer(7)])


@pytest.mark.parametrize("port", [7, 80, 5001, 5002])
def test_a_peer_whose_cable_is_pulled(make, port: int) -> None:
    """In the midst of nothing: the application gives it up, and the id is back."""
    bench = make(applications=1, clock=1000)
    bench.until(lambda: bench.c.listening(5002) is Error.OK, "the listeners")
    peer = bench.peer(port)
    bench.until(peer.writable, "the connection")
    bench.for_us(1000)
    assert bench.c.in_use == 1
    for channel in bench.two.wire.channels:
        channel.impairment = Impairment(loss=1.0)
    bench.until(lambda: bench.c.in_use == 0, "it is given up", 90_000)


def test_a_source_on_one_board_and_a_sink_on_another() -> None:
    """The driver in C on both ends of the line, for a time and for so many bytes."""
    both = {"attach": False}
    with Pair("tiny", a=both, b=both, memory_bytes=1 << 24, tick_us=100, library=library("tiny")) as two:
        a, b = (CDriver(sim, tick_cycles=100, applications=1, time_wait_ms=20, clock=20) for sim in (two.a, two.b))
        for sim, driver in ((two.a, a), (two.b, b)):
            sim.tasks.append(driver.poll)
        two.run_until(lambda: b.listening(5001) is Error.OK, 1e6)
        assert a.source(two.b.ip, 5001, count=50_000) is Error.OK
        assert a.source(two.b.ip, 5001, seconds=1) is Error.OK
        two.run_until(lambda: b.in_use == 0 and b.counters["ended"] == 2 and a.in_use == 0, 10e6, "both")
        assert a.counters["connected"] == 2 and not b.counters["reset_by_peer"]
        two.check()


def test_listed_in_one_place() -> None:
    """sources.mk has every file of the folder."""
    from tiptoe_verif.c_driver import make_variable

    listed = make_variable("TOE_SOURCES") + make_variable("TOE_APPS")
    assert sorted(listed) == sorted(str(path.relative_to(DRIVER)) for path in DRIVER.rglob("*.c"))
