"""SO_SNDBUF, SO_RCVBUF and TCP_NOTSENT_LOWAT: how much a socket takes, on the scripted device."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.driver.bench import PEER_IP, Bench, Connection
from tiptoe_driver.hardware.abi_gen import State, Status
from tiptoe_driver.hardware.memory import OutOfMemory, window_scale
from tiptoe_hdl.host.abi import Opcode

SNDBUF = socket.SOL_SOCKET, socket.SO_SNDBUF
RCVBUF = socket.SOL_SOCKET, socket.SO_RCVBUF
LOWAT = socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT


@pytest.mark.parametrize("when", ["before connect", "connected"])
def test_sndbuf_limits_what_is_written_and_not_acknowledged(bench: Bench, when: str) -> None:
    conn = bench.connected() if when == "connected" else None
    sock = conn.sock if conn else bench.socket()
    sock.setsockopt(*SNDBUF, 3000)
    assert sock.getsockopt(*SNDBUF) == 6000
    if conn is None:
        bench.know_peer()
        sock.connect_ex((PEER_IP, 80))
        conn = Connection(bench, sock, bench.device.last(Opcode.OPEN)["tid"])
        conn.report(established=1, state=State.ESTABLISHED)
    assert sock.getsockopt(*SNDBUF) == 6000
    assert sock.send(bytes(4000)) == 3000 and not sock.writable()
    with pytest.raises(BlockingIOError):
        sock.send(b"x")
    conn.ack(2500)
    assert sock.writable() and sock.send(bytes(4000)) == 2500


def test_sndbuf_is_cut_to_the_ring_and_to_linux_s_least(bench: Bench) -> None:
    conn = bench.connected()
    assert conn.sock.getsockopt(*SNDBUF) == 4096  # the ring
    conn.sock.setsockopt(*SNDBUF, 1 << 20)
    assert conn.sock.getsockopt(*SNDBUF) == 2 * 4096 and conn.sock.send(bytes(5000)) == 4096
    conn.sock.setsockopt(*SNDBUF, 1)
    assert conn.sock.getsockopt(*SNDBUF) == 4608 and not conn.sock.writable()
    conn.ack(4096 - 2303)
    assert conn.sock.send(b"xx") == 1


@pytest.mark.parametrize(("wanted", "size"), [(1, 4096), (4097, 8192), (8192, 8192), (100_000, 131_072)])
def test_rcvbuf_before_connect_is_the_ring_and_the_window(bench: Bench, wanted: int, size: int) -> None:
    before = bench.dev.engine.memory.free_bytes
    bench.know_peer()
    sock = bench.socket()
    sock.setsockopt(*RCVBUF, wanted)
    sock.connect_ex((PEER_IP, 80))
    provision, opened = bench.device.last(Opcode.PROVISION), bench.device.last(Opcode.OPEN)
    assert (1 << provision["rcv_log2"], 1 << provision["snd_log2"]) == (size, 4096)
    assert opened["rcv_scale"] == window_scale(size)
    conn = Connection(bench, sock, opened["tid"])
    conn.report(established=1, state=State.ESTABLISHED)
    assert sock.getsockopt(*RCVBUF) == 2 * max(wanted, 4096) and conn.tp.rcv_wnd == size
    conn.deliver(bytes(size))
    assert sock.recv(size) == bytes(size)
    sock.close()
    conn.end()
    assert not bench.dev.engine.buffers._own and bench.dev.engine.free_ids == 16
    assert bench.dev.engine.memory.free_bytes == before


def test_rcvbuf_without_an_id_for_it_is_what_there_is(bench: Bench) -> None:
    """getsockopt tells what became of it; accepted connections have the rings of the stock."""
    bench.know_peer()
    listener = bench.listening()
    listener.setsockopt(*RCVBUF, 50_000)
    bench.syn(1)
    bench.handshake_done(1)
    child, _ = listener.accept()
    assert child.getsockopt(*RCVBUF) == 4096
    sock = bench.socket()
    sock.setsockopt(*RCVBUF, 50_000)
    with pytest.raises(OutOfMemory):
        while True:
            bench.dev.engine.memory.allocate(1 << 16)
    assert sock.connect_ex((PEER_IP, 80)) == errno.EINPROGRESS
    assert sock.getsockopt(*RCVBUF) == 4096


def test_notsent_lowat_lets_write_what_is_about_to_be_sent(bench: Bench) -> None:
    """What the engine has sent does not count, acknowledged or not; it is asked only where the user waits."""
    conn = bench.connected().nodelay()
    conn.sock.send(bytes(1000))
    assert not conn.commands(Opcode.READ_TCB)
    bench.device.tcb = {"state": State.ESTABLISHED, "snd_max": 1001 + 600}
    conn.sock.setsockopt(*LOWAT, 300)
    assert conn.sock.getsockopt(*LOWAT) == 300
    assert not conn.sock.writable()
    with pytest.raises(BlockingIOError):
        conn.sock.send(b"x")
    conn.ack(500)  # 400 are not sent
    assert len(conn.commands(Opcode.READ_TCB)) == 1 and not conn.sock.writable()
    bench.device.tcb["snd_max"] = 1001 + 800
    woken: list[int] = []
    conn.sock.set_upcall(lambda sock: woken.append(sock.writable()))
    conn.ack(600)
    assert woken[-1] and conn.sock.send(bytes(2000)) == 2000
    assert conn.so.so_snd.sb_cc == 2400 and not conn.sock.writable()


def test_notsent_lowat_asks_one_question_at_a_time_and_a_full_ring_is_asked_later(bench: Bench) -> None:
    conn = bench.connected().nodelay()
    bench.device.answer = lambda command: None
    conn.sock.setsockopt(*LOWAT, 1)
    conn.sock.send(bytes(1000))
    conn.ack(10)
    conn.ack(20)
    [asked] = conn.commands(Opcode.READ_TCB)
    bench.device.done(asked, Status.BAD_GENERATION)
    bench.stack.poll()
    assert not conn.sock.writable()
    conn.ack(1000)
    assert conn.sock.writable()  # nothing is left that could be unsent


def test_notsent_lowat_of_a_listener_and_the_default(bench: Bench) -> None:
    listener = bench.listening()
    assert listener.getsockopt(*LOWAT) == -1
    listener.setsockopt(*LOWAT, 16384)
    bench.syn(1)
    bench.handshake_done(1)
    child, _ = listener.accept()
    assert child.getsockopt(*LOWAT) == 16384
    child.setsockopt(*LOWAT, -1)
    assert child.getsockopt(*LOWAT) == -1


def test_accepted_connections_have_their_listener_s_sndbuf(bench: Bench) -> None:
    listener = bench.listening()
    listener.setsockopt(*SNDBUF, 2500)
    bench.syn(1)
    bench.handshake_done(1)
    child, _ = listener.accept()
    assert child.getsockopt(*SNDBUF) == 5000 and child.send(bytes(4096)) == 2500
