"""A connection on the whole engine, segment by segment: retransmission, gaps, windows, sizes (run by test_engine.py).

Rings are small, so that they wrap many times; sizes and positions are odd.
"""

from itertools import pairwise

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY
from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.steps import active, close_by_peer, connecting, exchange, receive
from tiptoe_verif.testbench.testbench import TICK_CYCLES, Bench, engine_test


@engine_test()
def test_established_retransmission(b: Bench) -> None:
    """Data that is not acknowledged comes again, at doubled times, then the connection fails."""
    peer, sock = active(b, Host(b))
    sock.send(b"x" * 100)
    times = []
    for _ in range(4):
        peer.expect("A", seq=1, length=100)
        times.append(b.cycle)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] >= 15 * TICK_CYCLES and all(1.6 < later / earlier < 2.5 for earlier, later in pairwise(gaps)), gaps
    peer.send("A")
    b.run(500)
    assert b.toe.engine.ids.available < 16
    close_by_peer(b, peer, sock)


@engine_test(registers={abi.REG_RETRIES: 3 << 8 | 2}, stall=0.05)
def test_established_timeout(b: Bench) -> None:
    """The peer has gone: ETIMEDOUT after the last retransmission."""
    peer, sock = active(b, Host(b))
    sock.send(b"anybody?")
    b.until(sock.readable, "the time-out")
    try:
        sock.recv(1)
    except TimeoutError:
        pass
    else:
        raise AssertionError("no ETIMEDOUT")
    assert len(peer.inbox) == 3
    sock.close()


@engine_test(snd_ring_bytes=16384)
def test_established_three_duplicate_acks(b: Bench) -> None:
    """Fast retransmission of the one segment that was lost, long before the time-out."""
    peer, sock = active(b, Host(b), wnd=16384)
    data = b.rng.randbytes(5 * 1460)
    sock.send(data)
    first = [peer.expect("A", length=1460) for _ in range(3)]
    assert [peer.relative(s) for s in first] == [1, 1461, 2921]
    begun = b.cycle
    for _ in range(3):
        peer.send("A", ack=1)
    segment = peer.expect("A", length=1460)
    while peer.relative(segment) != 1:
        segment = peer.expect("A", length=1460)
    assert b.cycle - begun < 10 * TICK_CYCLES and b.counters()["FAST_RETRANSMITS"] == 1
    assert peer.wait_for(len(data)) == data
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_out_of_order(b: Bench) -> None:
    """Two gaps at once, filled in the wrong order; each segment out of order draws an immediate ACK."""
    peer, sock = active(b, Host(b))
    data = b.rng.randbytes(3000)
    pieces = ((500, 1001, 1), (1501, 2003, 1), (1001, 1501, 1), (2500, 3000, 1), (0, 500, 2004), (2003, 2500, 3001))
    for begin, end, ack in pieces:
        peer.send("A", data[begin:end], seq=1 + begin)
        peer.expect("A", ack=ack)
    assert receive(b, sock, 3000) == data
    assert b.counters()["RX_OUT_OF_ORDER"] == 4
    peer.seq = 3001
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_gap_beyond_what_it_remembers(b: Bench) -> None:
    """One gap more than there are places: counted, and the data is sent again later."""
    peer, sock = active(b, Host(b))
    gaps = [100 + 200 * number for number in range(TINY.ooo_intervals + 1)]
    size, beyond = gaps[-1] + 300, gaps[-1]
    data = b.rng.randbytes(size)
    for begin in gaps:
        peer.send("A", data[begin : begin + 100], seq=1 + begin)
        peer.expect("A", ack=1)
    assert b.counters()["RX_OOO_DISCARDED"] == 1
    filled = [(begin, begin + 201) for begin in range(0, beyond - 200, 200)]
    for begin, ack in (*filled, *((begin, begin + 101) for begin in range(beyond - 100, size, 100))):
        peer.send("A", data[begin : begin + 100], seq=1 + begin)
        peer.expect_ack(ack)
    assert receive(b, sock, size) == data
    peer.seq = size + 1
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_overlaps(b: Bench) -> None:
    """Segments that overlap what is there, on the left, on the right and on both sides; a FIN before its data."""
    peer, sock = active(b, Host(b))
    data = b.rng.randbytes(1000)
    peer.send("FA", data[900:], seq=901)
    for begin, end in ((300, 500), (200, 350), (450, 600), (250, 650), (0, 210), (100, 400), (0, 700), (600, 1000)):
        peer.send("A", data[begin:end], seq=1 + begin)
    peer.expect_ack(1002)
    assert receive(b, sock, 1000) == data
    b.until(sock.readable, "end of stream")
    assert sock.recv(1) == b""
    peer.seq = 1002
    peer.inbox.clear()
    sock.close()
    peer.expect("FA", skip_acks=True)
    peer.send("A")


# --- windows


@engine_test()
def test_established_zero_window(b: Bench) -> None:
    """The peer's window closes: one byte probes it, at growing times, for longer than R2; then sending goes on."""
    peer, sock = active(b, Host(b), wnd=500)
    data = b.rng.randbytes(3001)
    sock.send(data)
    peer.expect("A", seq=1, length=500)
    peer.send("A", wnd=0)
    times = []
    for _ in range(5):
        probe = peer.expect("A", seq=501)
        assert len(probe.payload) == 1
        times.append(b.cycle)
        peer.send("A", ack=501, wnd=0)
    assert times[4] - times[3] > times[1] - times[0]
    peer.ack = 501
    del peer.received[500:]
    peer.wnd = 4000
    peer.send("A", ack=501)
    assert peer.wait_for(len(data)) == data
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_host_does_not_read(b: Bench) -> None:
    """The receive ring fills: the window closes, what lies beyond is not taken, a probe is answered; reading opens it."""
    peer, sock = active(b, Host(b))
    data = b.rng.randbytes(6001)
    for begin in range(0, 4096, 1024):
        peer.send("A", data[begin : begin + 1024])
    peer.expect_ack(4097)
    b.run(2000)
    peer.inbox.clear()
    for _ in range(3):
        peer.send("A", data[4096:4097], seq=4097)
        peer.expect("A", ack=4097, wnd=0)
    assert sock.recv(100) == data[:100]
    b.run(3000)
    assert all(s.wnd == 0 for s in peer.inbox), "a silly window"
    peer.inbox.clear()
    assert receive(b, sock, 3996) == data[100:4096]
    update = peer.expect("A", ack=4097)
    assert update.wnd >= 2048
    b.until(lambda: (peer.inbox[-1].wnd if peer.inbox else update.wnd) >= 2048, "room")
    peer.send("A", data[4096:5500])
    assert receive(b, sock, 1404) == data[4096:5500]
    peer.send("A", data[5500:])
    assert receive(b, sock, 501) == data[5500:]
    peer.inbox.clear()
    close_by_peer(b, peer, sock)


@engine_test(snd_ring_bytes=16384)
def test_established_shrinking_window(b: Bench) -> None:
    """The peer takes back window it has offered: nothing beyond is sent anew, what is under way may come again."""
    peer, sock = active(b, Host(b), wnd=6000)
    data = b.rng.randbytes(9001)
    sock.send(data)
    for at in (1, 1461, 2921, 4381):
        peer.expect("A", seq=at)
    peer.inbox.clear()
    peer.send("A", ack=1461, wnd=1000)  # the edge falls from 6001 to 2461
    b.run(60 * TICK_CYCLES)
    assert all(peer.relative(s) + len(s.payload) <= 6001 for s in peer.inbox), "new data beyond the window"
    assert b.counters()["TX_RETRANSMITS"], "nothing came again"
    peer.wnd = 8000
    peer.send("A")
    assert peer.wait_for(len(data)) == data
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_neighbour_moves(b: Bench) -> None:
    """The peer's MAC address changes: its connections follow."""
    host = Host(b)
    peer, sock = active(b, host)
    exchange(b, peer, sock)
    host.mac = "02:00:00:00:00:aa"
    host.announce()
    b.run(2000)
    peer.inbox.clear()
    exchange(b, peer, sock, b"to the new address", b"from it")
    close_by_peer(b, peer, sock)


@engine_test()
def test_established_small_mss(b: Bench) -> None:
    """The peer's MSS option counts; without one, 536 bytes."""
    host = Host(b)
    for mss, expected in ((400, 400), (0, 536)):
        port = 7000 + mss
        peer, sock = connecting(b, host, port=port, local=50000 + mss, mss=mss)
        peer.expect("S")
        peer.send("SA")
        peer.expect("A", seq=1)
        b.until(sock.writable, "the connection")
        sock.send(bytes(1200))
        assert len(peer.expect("A", seq=1).payload) == expected
        peer.wait_for(1200)
        close_by_peer(b, peer, sock)


@engine_test()
def test_established_delayed_ack(b: Bench) -> None:
    """One segment with PSH is acknowledged after the delay, two at once; at a connection's beginning one without it too."""
    peer, sock = active(b, Host(b))
    peer.send("PA", bytes(100))
    sent = b.cycle
    peer.expect("A", ack=101)
    assert b.cycle - sent > TICK_CYCLES
    sent = b.cycle
    peer.send("PA", bytes(100))
    peer.send("PA", bytes(100))
    peer.expect("A", ack=301)
    peer.send("A", bytes(100))
    peer.expect("A", ack=401)
    assert b.cycle - sent < 2 * TICK_CYCLES
    receive(b, sock, 400)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
