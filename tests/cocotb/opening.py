"""Connections open, or fail to, on the whole engine, against scripted peers: RFC 9293 section 3.5 (run by test_engine.py).

Sequence numbers of both sides are next to wrap-around, every AXI and AXI4-Stream channel is paused at random, and
memory answers late at random.
"""

import errno
import socket

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.steps import (
    accepted,
    close_by_peer,
    close_by_us,
    connecting,
    exchange,
    listen,
    passive,
    receive,
)
from tiptoe_verif.testbench.testbench import ACTIVE, PASSIVE, TICK_CYCLES, Bench, engine_test

LOCAL, REMOTE = ACTIVE


def error_of(sock):
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@engine_test()
def test_syn_sent_syn_ack(b: Bench) -> None:
    """Active open, a few bytes both ways, closed by the peer."""
    host = Host(b)
    peer, sock = connecting(b, host)
    syn = peer.expect("S", seq=0)
    assert (syn.mss, syn.ws) == (1460, 0) and syn.wnd == 4096
    assert -syn.seq & 0xFFFFFFFF < 1300, "the engine's ISN is not next to wrap-around"
    peer.send("SA")
    peer.expect("A", seq=1, ack=1, length=0)
    b.until(sock.writable, "the connection")
    assert error_of(sock) == 0 and sock.getpeername() == (host.ip, REMOTE)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)


@engine_test(near_wrap=PASSIVE)
def test_listen_syn(b: Bench) -> None:
    """Passive open through listen table and syncache, closed by us."""
    host = Host(b)
    listener = listen(b)
    peer = host.connection(PASSIVE[1], PASSIVE[0], ws=3)
    peer.send("S")
    answer = peer.expect("SA", seq=0, ack=1)
    assert (answer.mss, answer.ws, answer.wnd) == (1460, 0, 4096)
    assert -answer.seq & 0xFFFFFFFF < 1300, "the engine's ISN is not next to wrap-around"
    b.run(1000)
    assert not listener.readable()
    peer.send("A")
    sock = accepted(b, listener)
    assert sock.getpeername() == (host.ip, PASSIVE[1])
    exchange(b, peer, sock)
    close_by_us(b, peer, sock)
    listener.close()


@engine_test(near_wrap=PASSIVE)
def test_syn_received_ack_with_data(b: Bench) -> None:
    """Data rides on the last ACK of the handshake."""
    host = Host(b)
    listener = listen(b)
    peer = host.connection(*reversed(PASSIVE))
    peer.send("S")
    peer.expect("SA")
    b.run(1000)
    data = b.rng.randbytes(777)
    peer.send("PA", data)
    sock = accepted(b, listener)
    assert receive(b, sock, len(data)) == data
    peer.expect_ack(1 + len(data))
    close_by_peer(b, peer, sock)
    listener.close()


@engine_test(near_wrap=PASSIVE)
def test_syn_received_ack_with_data_and_fin(b: Bench) -> None:
    """The whole request in the last ACK of the handshake: data and FIN."""
    host = Host(b)
    listener = listen(b)
    peer = host.connection(*reversed(PASSIVE))
    peer.send("S")
    peer.expect("SA")
    b.run(1000)
    peer.send("FPA", b"request")
    sock = accepted(b, listener)
    assert receive(b, sock, 7) == b"request"
    b.until(sock.readable, "end of stream")
    assert sock.recv(1) == b""
    peer.expect_ack(9)
    sock.send(b"answer")
    sock.close()
    peer.wait_for(6)
    b.until(lambda: peer.ack == 8, "the engine's FIN")
    peer.send("A")
    listener.close()


@engine_test(near_wrap=PASSIVE)
def test_syn_received_early_ack(b: Bench) -> None:
    """An ACK at once, perhaps before the host can know of the SYN: the SYN,ACK comes again, then it is taken."""
    host = Host(b)
    listener = listen(b)
    peer = host.connection(*reversed(PASSIVE))
    peer.send("S")
    peer.expect("SA")
    peer.send("A")
    b.run(40 * TICK_CYCLES)
    if not listener.readable():
        peer.expect("SA", seq=0, ack=1)
        peer.send("A")
    sock = accepted(b, listener)
    peer.inbox.clear()
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    listener.close()


@engine_test()
def test_syn_sent_syn(b: Bench) -> None:
    """Simultaneous open: both SYNs cross, each side answers with SYN,ACK."""
    host = Host(b)
    peer, sock = connecting(b, host)
    peer.expect("S", seq=0)
    peer.send("S")
    peer.expect("SA", seq=0, ack=1)
    peer.send("SA", seq=0, ack=1)
    b.until(sock.writable, "the connection")
    b.run(2000)
    peer.inbox.clear()
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)


@engine_test()
def test_syn_sent_rst(b: Bench) -> None:
    """Active open refused."""
    host = Host(b)
    peer, sock = connecting(b, host)
    peer.expect("S", seq=0)
    peer.send("RA", seq=0, ack=1)
    b.until(sock.writable, "the refusal")
    assert error_of(sock) == errno.ECONNREFUSED
    sock.close()


@engine_test(registers={abi.REG_RTO_INITIAL: 10, abi.REG_RETRIES: 2 << 8 | 2})
def test_syn_sent_timeout(b: Bench) -> None:
    """SYN again and again, at twice the time each; then the open fails."""
    host = Host(b)
    peer, sock = connecting(b, host)
    times = []
    for _ in range(3):
        peer.expect("S", seq=0)
        times.append(b.cycle)
    b.until(sock.writable, "the time-out")
    assert error_of(sock) == errno.ETIMEDOUT
    first, second = times[1] - times[0], times[2] - times[1]
    assert 8 * TICK_CYCLES < first < 14 * TICK_CYCLES and 1.6 * first < second < 2.5 * first, (first, second)
    peer.quiet(5000)
    sock.close()


@engine_test()
def test_syn_sent_close(b: Bench) -> None:
    """Closed by the user before the peer has answered: nothing more goes out but a RST to a late answer."""
    host = Host(b)
    peer, sock = connecting(b, host)
    peer.expect("S", seq=0)
    sock.close()
    b.run(2000)
    peer.send("SA")
    peer.expect("R", seq=1)


@engine_test(registers={abi.REG_RETRIES: 2 << 8 | 6}, tick_cycles=48, near_wrap=PASSIVE, stall=0)
def test_syn_received_timeout(b: Bench) -> None:
    """SYN,ACK again and again; then the half-open connection goes, and its place is free."""
    host = Host(b)
    listener = listen(b)
    peer = host.connection(*reversed(PASSIVE))
    peer.send("S")
    for _ in range(3):
        peer.expect("SA", seq=0, ack=1, cycles=400_000)
    b.until(lambda: not b.half_open, "SYNCACHE_GONE", 4_000_000)
    assert b.counters()["SYNCACHE_EXPIRED"] == 1 and not listener.readable()
    listener.close()


@engine_test(near_wrap=PASSIVE)
def test_syn_received_rst(b: Bench) -> None:
    """The peer gives up its half-open connection; the four-tuple can be used at once."""
    host = Host(b)
    listener = listen(b)
    peer = host.connection(*reversed(PASSIVE))
    peer.send("S")
    peer.expect("SA")
    b.until(lambda: b.half_open, "SYN_RECEIVED")
    peer.send("R")
    b.until(lambda: not b.half_open, "SYNCACHE_GONE")
    again = host.connection(*reversed(PASSIVE), iss=77)
    again.open()
    sock = accepted(b, listener)
    exchange(b, again, sock)
    close_by_peer(b, again, sock)
    listener.close()


@engine_test()
def test_closed_any_segment(b: Bench) -> None:
    """A closed port refuses: SYN, data and FIN are reset with the right numbers; a RST never."""
    peer = Host(b).connection(4444, 81)
    b.run(500)
    peer.irs = 0
    for flags, data, wanted in (
        ("S", b"", dict(flags="RA", seq=0, ack=1)),
        ("A", b"", dict(flags="R", seq=1234)),
        ("PA", b"data", dict(flags="R", seq=1234)),
        ("F", b"xy", dict(flags="RA", seq=0, ack=3)),
        ("SA", b"", dict(flags="R", seq=1234)),
    ):
        peer.send(flags, data, seq=0, ack=1234)
        peer.expect(**wanted)
    peer.send("R", seq=0)
    peer.send("RA", seq=0, ack=5)
    peer.quiet()
    assert b.counters()["RX_UNKNOWN_SEGMENT"] == 7


@engine_test(near_wrap=PASSIVE)
def test_listen_close(b: Bench) -> None:
    """Listening stops: half-open children are reset, established ones live on, the port refuses."""
    host = Host(b)
    listener = listen(b)
    alive, sock = passive(b, host, listener)
    half_open = [host.connection(41000 + n, PASSIVE[0]) for n in range(3)]
    for peer in half_open:
        peer.send("S")
        peer.expect("SA")
    listener.close()
    for peer in half_open:
        peer.expect("RA", seq=1)
        peer.send("A")
        peer.expect("R", seq=1)
    late = host.connection(42000, PASSIVE[0])
    late.send("S")
    late.expect("RA", ack=1)
    exchange(b, alive, sock)
    close_by_peer(b, alive, sock)


@engine_test(near_wrap=PASSIVE)
def test_listen_odd_flags(b: Bench) -> None:
    """Segments that open nothing: each combination of flags to a listening port; then a real SYN, and one with a FIN."""
    host = Host(b)
    listener = listen(b)
    peer = host.connection(*reversed(PASSIVE))
    peer.irs = 0
    for bits in range(64):
        flags = "".join(letter for bit, letter in enumerate("FSRPAU") if bits >> bit & 1)
        if "S" in flags and not set(flags) & set("RA"):
            continue
        peer.send(flags, b.rng.randbytes(bits % 3), seq=100, ack=7)
        b.run(250)
    assert all(segment.flags & 4 for segment in peer.inbox), "something but a reset came"
    assert not listener.readable() and not b.half_open
    counters = b.counters()
    assert not counters["ACCEPTED"] and counters["TX_RST"] == len(peer.inbox)
    peer.inbox.clear()
    peer.irs, peer.seq = None, 0
    peer.open()
    sock = accepted(b, listener)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    # RFC 9293 section 3.10.7.2: a SYN opens, whatever comes with it. The FIN is not taken, and has to come again.
    hasty = host.connection(PASSIVE[1] + 1, PASSIVE[0])
    hasty.send("SF", b"data")
    hasty.expect("SA", seq=0, ack=1)
    hasty.seq = 1
    b.run(1000)
    hasty.send("A")
    sock = accepted(b, listener)
    exchange(b, hasty, sock)
    close_by_peer(b, hasty, sock)
    listener.close()


@engine_test(near_wrap=PASSIVE)
def test_listen_backlog_full(b: Bench) -> None:
    """More connections than the listener's queue holds: the others are reset, those in the queue live."""
    host = Host(b)
    listener = listen(b, backlog=1)
    peers = [host.connection(40000 + n, PASSIVE[0]) for n in range(4)]
    for peer in peers:
        peer.open()
        b.settle()
    queued = [peer for peer in peers if not peer.inbox]
    assert len(queued) == 2
    for peer in peers:
        if peer not in queued:
            peer.expect("RA", seq=1)
    for _ in queued:
        sock = accepted(b, listener)
        peer = next(peer for peer in queued if peer.port == sock.getpeername()[1])
        exchange(b, peer, sock)
        close_by_peer(b, peer, sock)
    listener.close()


@engine_test(near_wrap=PASSIVE)
def test_listen_close_with_accept_queue(b: Bench) -> None:
    """A listener closes before its connections were accepted: they are reset."""
    host = Host(b)
    listener = listen(b)
    peers = [host.connection(40000 + n, PASSIVE[0]) for n in range(2)]
    for peer in peers:
        peer.open()
    b.until(listener.readable, "a connection")
    b.settle()
    listener.close()
    for peer in peers:
        peer.expect("RA", seq=1)
