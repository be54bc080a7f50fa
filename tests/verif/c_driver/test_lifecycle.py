"""Connections of the driver in C from their beginning to their end: every way in, every way out, and each id comes back."""

from __future__ import annotations

import errno
import socket

import pytest

from tiptoe_verif.c_driver import Error, What
from tiptoe_verif.wire.impairment import Impairment

from .conftest import HASTE


@pytest.fixture(params=["passive", "active"])
def ends(request, bench):
    """Our end and the peer's, opened by the one or the other."""
    return getattr(bench, request.param)()


def test_the_peer_closes_first(bench, ends, payload) -> None:
    """Through rings that go round several times, both ways at once."""
    ours, peer = ends
    there, back = payload(30_000), payload(25_000)
    ours.write(back)
    bench.send(peer, there)
    assert bench.receive(peer, len(back)) == back
    peer.shutdown(socket.SHUT_WR)
    bench.until(lambda: ours.what & What.PEER_CLOSED, "the peer's end")
    assert ours.inbox == there
    last = payload(9_000)
    ours.write(last, end=True)  # half closed: we still send
    assert bench.receive_all(peer) == last
    bench.until(lambda: ours.what & What.ENDED, "the end")
    assert ours.result is Error.OK


def test_we_close_first(bench, ends, payload) -> None:
    ours, peer = ends
    there = payload(10_000)
    ours.write(there, end=True)
    assert bench.receive_all(peer) == there
    back = payload(20_000)
    bench.send(peer, back)  # half closed: we still receive
    peer.close()
    bench.until(lambda: ours.what & What.PEER_CLOSED, "the peer's end")
    assert ours.inbox == back
    bench.until(lambda: ours.what & What.ENDED, "TIME_WAIT is over")
    assert ours.result is Error.OK


def test_both_close_at_once(bench, ends) -> None:
    ours, peer = ends
    ours.write(b"x" * 3000, end=True)
    peer.send(b"y" * 3000)
    peer.shutdown(socket.SHUT_WR)
    assert bench.receive_all(peer) == b"x" * 3000
    bench.until(lambda: ours.what & What.ENDED, "the end")
    assert ours.inbox == b"y" * 3000 and ours.result is Error.OK


def test_close_sends_what_was_written(bench, ends, payload) -> None:
    """toe_close() right behind toe_send(): the driver alone brings the connection to its end."""
    ours, peer = ends
    data = payload(4096)
    ours.write(data)
    ours.close()
    assert bench.receive_all(peer) == data
    peer.close()


def test_we_abort(bench, ends) -> None:
    ours, peer = ends
    ours.call("abort")
    bench.until(lambda: ours.what & What.ENDED, "the end")
    assert ours.result is Error.ABORTED
    assert bench.c.in_use == 1  # the application has it still
    with pytest.raises(ConnectionResetError):
        bench.receive_all(peer)


def test_the_peer_aborts(bench, ends) -> None:
    """What came before can be read after the end."""
    ours, peer = ends
    ours.reading = False
    peer.send(b"last words")
    bench.until(lambda: ours.what & What.RECEIVED, "the data")
    bench.b.toe.calls.abort(peer.so.so_pcb.inp_ppcb.t_toe)
    bench.until(lambda: ours.what & What.ENDED, "the end")
    assert ours.result is Error.RESET
    ours.read()
    assert ours.inbox == b"last words"
    assert ours.call("send", b"too late", 8) == 0


def test_close_with_unread_data_resets(bench, ends) -> None:
    ours, peer = ends
    ours.reading = False
    peer.send(b"unread")
    bench.until(lambda: ours.what & What.RECEIVED, "the data")
    ours.close()
    with pytest.raises(ConnectionResetError):
        bench.receive_all(peer)


def test_data_after_close_resets(bench, ends) -> None:
    ours, peer = ends
    ours.close()
    assert bench.receive_all(peer) == b""
    peer.send(b"is anybody there?")
    bench.for_us(20_000)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        peer.send(b"no")


def test_zero_window_opens_again(bench, ends, payload) -> None:
    """We do not read: the peer's data stays with it, until we do."""
    ours, peer = ends
    ours.reading = False
    data = payload(40_000)
    left = memoryview(data)

    def push() -> None:
        nonlocal left
        try:
            left = left[peer.send(left[:65536]) :] if left else left
        except BlockingIOError:
            pass

    bench.b.tasks.append(push)
    bench.until(lambda: ours.call("available") == 8192, "the ring is full")
    bench.for_us(50_000)
    ours.reading = True
    ours.read()
    bench.until(lambda: len(ours.inbox) == len(data), "everything", 5e6)
    assert ours.inbox == data


def test_a_peer_that_does_not_read(make, payload) -> None:
    bench = make(pair={"b": {"driver": {"rcv_ring_bytes": 4096}}})
    ours, peer = bench.passive()
    data = payload(20_000)
    ours.write(data)
    bench.for_us(300_000)
    assert ours.call("unacknowledged") == 4096 and ours.outbox
    assert bench.receive(peer, len(data)) == data


def test_the_peer_falls_silent(bench, ends) -> None:
    ours, peer = ends
    bench.impatient()
    for channel in bench.two.wire.channels:
        channel.impairment = Impairment(loss=1.0)
    ours.write(b"anybody?")
    bench.until(lambda: ours.what & What.ENDED, "the end")
    assert ours.result is Error.TIMED_OUT


@pytest.mark.parametrize("half", [False, True])
def test_closed_and_the_peer_falls_silent(make, half: bool) -> None:
    """Nobody waits for ever for a peer that does not acknowledge, or does not close."""
    bench = make(orphan_ms=100)
    ours, peer = bench.passive()
    if not half:
        for channel in bench.two.wire.channels:
            channel.impairment = Impairment(loss=1.0)
    ours.write(b"farewell")
    ours.close()
    bench.until(lambda: bench.c.in_use == 0, "the id is back", 1e6)
    assert bench.c.counters["orphans_reset"] == 1
    bench.faults.add("orphans_reset")


def test_refused(bench) -> None:
    ours = bench.c.connect(bench.b.ip, 12345)
    bench.until(lambda: ours.what & What.ENDED, "the answer")
    assert ours.result is Error.REFUSED and not ours.what & What.ESTABLISHED


def test_syn_without_an_answer(bench) -> None:
    bench.impatient(retries=2)
    bench.active()  # the neighbour is known
    for channel in bench.two.wire.channels:
        channel.impairment = Impairment(loss=1.0)
    ours = bench.c.connect(bench.b.ip, 98)
    bench.until(lambda: ours.what & What.ENDED, "the end")
    assert ours.result is Error.TIMED_OUT


@pytest.mark.parametrize("how", ["abort", "close"])
@pytest.mark.parametrize("known", [True, False])
def test_given_up_before_it_was_established(bench, how: str, known: bool) -> None:
    """With the SYN under way, and while ARP has not answered."""
    if known:
        bench.active()
    for channel in bench.two.wire.channels:
        channel.impairment = Impairment(loss=1.0)
    ours = bench.c.connect(bench.b.ip, 98)
    bench.for_us(1000)
    before = bench.c.in_use
    if how == "abort":
        ours.call("abort")
        assert not ours.what  # handlers are called by the poll alone
        bench.until(lambda: ours.what & What.ENDED, "the end")
        assert ours.result is Error.ABORTED
        ours.close()
    else:
        ours.close()
    bench.until(lambda: bench.c.in_use == before - 1, "the id is back")


def test_data_and_fin_before_the_connection(bench, payload) -> None:
    """Written, and closed, while the handshake goes on."""
    listener = bench.peer_listener()
    data = payload(4000)
    ours = bench.c.connect(bench.b.ip, 99)
    ours.write(data, end=True)
    bench.until(listener.readable, "the connection")
    peer, _ = listener.accept()
    assert bench.receive_all(peer) == data
    peer.close()


def test_timer(bench, ends) -> None:
    ours, _ = ends
    ours.call("set_timer", 30_000)
    begin = bench.a.now_us()
    bench.until(lambda: ours.what & What.TIMER, "the timer")
    assert 30_000 <= (bench.a.now_us() - begin) * HASTE < 60_000
    ours.what = What(0)
    ours.call("set_timer", 30_000)
    ours.call("set_timer", 0)
    bench.for_us(80_000)
    assert not ours.what


def test_ports(bench) -> None:
    """Chosen ports differ; a four-tuple is not used twice; bad addresses are told at once."""
    bench.peer_listener()
    first, second = bench.c.connect(bench.b.ip, 99), bench.c.connect(bench.b.ip, 99)
    assert first.port != second.port and first.peer == (bench.b.ip, 99)
    for ip, port, local, error in [
        (bench.b.ip, 99, first.port, Error.IN_USE), (bench.a.ip, 99, 0, Error.ARGUMENT), (0xFFFFFFFF, 99, 0, Error.ARGUMENT),
        (bench.b.ip | 0xFF, 99, 0, Error.ARGUMENT), (0xE0000001, 99, 0, Error.ARGUMENT), (bench.b.ip, 0, 0, Error.ARGUMENT),
        (0x08080808, 53, 0, Error.UNREACHABLE),
    ]:  # fmt: skip
        with pytest.raises(OSError) as raised:
            bench.c.connect(ip, port, local)
        assert raised.value.errno == error


def test_unlisten_and_listen_again(bench) -> None:
    ours, peer = bench.passive()
    assert bench.c.listen(80) is Error.IN_USE
    assert bench.c.unlisten(80) is Error.OK
    assert bench.c.unlisten(80) is Error.NOT_FOUND
    late = bench.peer()
    bench.until(lambda: late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED, "refused")
    peer.send(b"still here")
    bench.until(lambda: ours.inbox == b"still here", "the connection lives on")
    accepted = bench.listen()
    bench.peer()
    bench.until(lambda: accepted, "a connection")
