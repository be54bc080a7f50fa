"""The end of a connection on the whole engine, against scripted peers: RFC 9293 section 3.6 (run by test_engine.py).

Sequence numbers of both sides are next to wrap-around, every AXI and AXI4-Stream channel is paused at random, and
memory answers late at random.
"""

import errno
import socket
import struct

from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.steps import active, close_by_peer, close_by_us, exchange, receive
from tiptoe_verif.testbench.testbench import ACTIVE, TICK_CYCLES, Bench, engine_test

NO_LINGER = struct.pack("ii", 1, 0)
LOCAL, REMOTE = ACTIVE


@engine_test()
def test_established_shutdown(b: Bench) -> None:
    """Half-close from our side: the peer goes on sending."""
    peer, sock = active(b, Host(b))
    sock.send(b"last words")
    sock.shutdown(socket.SHUT_WR)
    peer.wait_for(10)
    b.until(lambda: peer.ack == 12, "the FIN")
    peer.send("A")
    peer.inbox.clear()
    data = b.rng.randbytes(5000)
    for at in range(0, len(data), 1000):
        peer.send("A", data[at : at + 1000])
        assert receive(b, sock, len(data[at : at + 1000])) == data[at : at + 1000]
    peer.expect_ack(5001)
    peer.send("FA")
    peer.expect_ack(5002)
    b.until(sock.readable, "end of stream")
    assert sock.recv(1) == b""
    sock.close()


@engine_test()
def test_established_fin(b: Bench) -> None:
    """Half-close from the peer's side: we go on sending."""
    peer, sock = active(b, Host(b))
    peer.send("FPA", b"last words")
    peer.expect_ack(12)
    assert receive(b, sock, 10) == b"last words"
    assert sock.recv(1) == b""
    data = b.rng.randbytes(6000)
    sent = 0
    while sent < len(data):
        b.until(sock.writable, "room")
        sent += sock.send(data[sent : sent + 3000])
        peer.wait_for(sent)
    assert peer.received == data
    sock.close()
    peer.expect("FA", skip_acks=True)
    peer.send("A")


@engine_test()
def test_fin_wait_1_fin(b: Bench) -> None:
    """Simultaneous close: the FINs cross."""
    peer, sock = active(b, Host(b))
    sock.shutdown(socket.SHUT_WR)
    peer.expect("FA", seq=1, ack=1)
    peer.send("FA", ack=1)
    peer.expect("A", seq=2, ack=2)
    b.until(sock.readable, "end of stream")
    assert sock.recv(1) == b""
    peer.send("A")
    sock.close()


@engine_test()
def test_fin_wait_1_fin_lost(b: Bench) -> None:
    """Our FIN is lost, then the ACK of the peer's: both come again."""
    peer, sock = active(b, Host(b))
    sock.close()
    peer.expect("FA", seq=1, ack=1)
    peer.expect("FA", seq=1, ack=1)
    peer.send("FA")
    peer.expect_ack(2)
    peer.send("FA", seq=1)
    peer.expect("A", seq=2, ack=2)


@engine_test()
def test_last_ack_lost(b: Bench) -> None:
    """The peer closed first; its ACK of our FIN is lost: the FIN comes again."""
    peer, sock = active(b, Host(b))
    peer.send("FA")
    b.until(sock.readable, "end of stream")
    assert sock.recv(1) == b""
    sock.close()
    peer.expect("FA", seq=1, ack=2, skip_acks=True)
    peer.expect("FA", seq=1, ack=2)
    peer.send("A")


@engine_test()
def test_established_close_with_data_queued(b: Bench) -> None:
    """Close with more data than the window takes: all of it goes out before the FIN."""
    peer, sock = active(b, Host(b), wnd=1000)
    data = b.rng.randbytes(4096)
    assert sock.send(data) == len(data)
    sock.close()
    assert peer.wait_for(len(data)) == data
    b.until(lambda: peer.ack == 2 + len(data), "the FIN")
    peer.send("FA")
    peer.expect_ack(peer.seq)


@engine_test()
def test_time_wait_fin(b: Bench) -> None:
    """TIME_WAIT is the engine's: it answers the peer's FIN again, holds the id until its end, then gives it back."""
    host = Host(b)
    peer, sock = active(b, host)
    free = b.free_ids
    close_by_us(b, peer, sock)
    begun = b.cycle
    b.run(20 * TICK_CYCLES)
    again = b.socket()
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind(("", LOCAL))
    assert again.connect_ex((host.ip, REMOTE)) == errno.EADDRINUSE
    again.close()
    peer.send("FA", seq=peer.seq - 1)
    peer.expect("A", ack=peer.seq)
    restarted = b.cycle
    b.until(lambda: b.free_ids == free + 1, "the id to come back")
    assert b.cycle - restarted > 55 * TICK_CYCLES, "2MSL did not begin again with the peer's second FIN"
    assert b.cycle - begun < 120 * TICK_CYCLES
    peer.send("FA", seq=peer.seq - 1)
    peer.expect("R")
    # The same id again, with another generation, and the same four-tuple.
    peer, sock = active(b, host, iss=5)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_rst(b: Bench) -> None:
    """Reset by the peer; one at the wrong place only draws an ACK (RFC 5961 section 3)."""
    peer, sock = active(b, Host(b))
    peer.send("R", seq=100)
    peer.expect("A", seq=1, ack=1)
    peer.send("R", seq=-50000)
    exchange(b, peer, sock)
    peer.inbox.clear()
    peer.send("R")
    b.until(sock.readable, "the reset")
    try:
        sock.recv(1)
    except ConnectionResetError:
        pass
    else:
        raise AssertionError("no ECONNRESET")
    peer.quiet()
    sock.close()


@engine_test()
def test_established_abort(b: Bench) -> None:
    """Reset by us, with data under way: SO_LINGER of no time."""
    peer, sock = active(b, Host(b))
    sock.send(b"abc")
    peer.expect("A", seq=1, length=3)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    sock.close()
    peer.expect("RA", seq=4)
    peer.send("A")
    peer.expect("R", seq=4)


@engine_test()
def test_close_wait_rst(b: Bench) -> None:
    """The peer closes, then resets."""
    peer, sock = active(b, Host(b))
    peer.send("FA")
    peer.expect_ack(2)
    peer.send("R")
    b.until(lambda: b.free_ids == 16, "the id to come back")
    try:
        sock.send(b"x")
        b.run(500)
        sock.send(b"x")
    except OSError as error:
        assert error.errno in (errno.EPIPE, errno.ECONNRESET)
    else:
        raise AssertionError("sent into a connection that is gone")
    sock.close()


@engine_test()
def test_fin_wait_2_data_after_close(b: Bench) -> None:
    """Data for a socket that was closed: nobody will read it, so the connection is reset."""
    peer, sock = active(b, Host(b))
    sock.close()
    peer.expect("FA", seq=1)
    peer.send("A")
    b.run(1000)
    peer.send("PA", b"too late")
    peer.expect("RA", skip_acks=True)
    b.expected_trouble = ("received_after_close",)


@engine_test()
def test_fin_wait_2_timeout(b: Bench) -> None:
    """A closed socket whose peer never closes does not keep its id for ever."""
    peer, sock = active(b, Host(b))
    sock.close()
    peer.expect("FA", seq=1)
    peer.send("A")
    peer.expect("RA", seq=2, cycles=100 * TICK_CYCLES)
