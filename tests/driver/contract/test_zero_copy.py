"""Contract row ZC-1 on the scripted device: buffers of the application as rings, reading and filling them in place,
and how often each byte is copied."""

from __future__ import annotations

import errno
import random
import socket

import pytest

from tests.driver.bench import OUR_MAC, PEER_IP, Bench, Connection
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import EngineOptions, Socket, Stack, Tiptoe, UserBuffer
from tiptoe_driver.hardware.abi_gen import Reason, State, Status
from tiptoe_driver.hardware.memory import ByteRing, OutOfMemory
from tiptoe_driver.hardware.toepcb import TP_READY
from tiptoe_hdl.host.abi import Opcode

SIZE = 8192


def lent(bench: Bench, *, rcv: UserBuffer | None = None, snd: UserBuffer | None = None) -> Connection:
    """A connection with these buffers whose OPEN is on the device."""
    bench.know_peer()
    sock = bench.socket()
    sock.set_buffers(rcv=rcv, snd=snd)
    sock.connect_ex((PEER_IP, 80))
    return Connection(bench, sock, bench.device.last(Opcode.OPEN)["tid"])


def established(bench: Bench, **buffers: UserBuffer) -> Connection:
    conn = lent(bench, **buffers)
    conn.report(established=1, state=State.ESTABLISHED)
    return conn


def end(conn: Connection) -> None:
    """The user closes, the engine ends the connection and lets go."""
    conn.sock.close()
    conn.end()
    conn.bench.stack.poll()


# ---------------------------------------------------------------------- buffers as rings


@pytest.mark.parametrize("which", [{"rcv"}, {"snd"}, {"rcv", "snd"}])
def test_zc_1_provision_names_the_buffers(bench: Bench, which: set[str]) -> None:
    buffers = {name: bench.dev.allocate_buffer(SIZE) for name in which}
    free = bench.dev.engine.memory.free_bytes
    conn = established(bench, **buffers)
    command = bench.device.last(Opcode.PROVISION)
    for name in ("rcv", "snd"):
        if name in which:
            assert (command[f"{name}_base"], command[f"{name}_log2"]) == (buffers[name].address, 13)
        else:
            assert command[f"{name}_log2"] == 12 and command[f"{name}_base"] not in [
                b.address for b in buffers.values()
            ]
    assert conn.so.so_rcv.sb_hiwat == (SIZE if "rcv" in which else 4096)
    assert conn.so.so_snd.sb_hiwat == (SIZE if "snd" in which else 4096)
    end(conn)
    assert bench.dev.engine.memory.free_bytes == free


def test_zc_1_window_scale_follows_the_buffer() -> None:
    bench = Bench(snd_ring_bytes=4096, rcv_ring_bytes=4096)
    lent(bench, rcv=bench.dev.allocate_buffer(1 << 18))
    assert bench.device.last(Opcode.OPEN)["rcv_scale"] == 3


@pytest.mark.parametrize("socket_first", [True, False])
def test_zc_1_buffer_is_idle_when_socket_and_engine_have_let_go(bench: Bench, socket_first: bool) -> None:
    bench.device.answer = lambda command: (
        None if command["op"] == Opcode.RELEASE else bench.device.default_answer(command)
    )
    buffer = bench.dev.allocate_buffer(SIZE)
    assert not buffer.in_use
    conn = established(bench, rcv=buffer)
    conn.deliver(b"kept")
    if socket_first:
        conn.sock.close()
        conn.end(Reason.PEER_RESET)
        assert buffer.in_use
        bench.device.done(bench.device.last(Opcode.RELEASE))
        assert buffer.in_use  # not seen yet
        bench.stack.poll()
    else:
        conn.end(Reason.PEER_RESET)
        bench.device.done(bench.device.last(Opcode.RELEASE))
        bench.stack.poll()
        assert buffer.in_use and bytes(conn.sock.recv_view()[0]) == b"kept"
        conn.sock.close()
    assert not buffer.in_use
    again = established(bench, rcv=buffer)
    assert bench.device.last(Opcode.PROVISION)["rcv_base"] == buffer.address and again.toep.rings.lent


def test_zc_1_socket_closed_before_connect(bench: Bench) -> None:
    buffer = bench.dev.allocate_buffer(SIZE)
    sock = bench.socket()
    sock.set_buffers(snd=buffer)
    assert buffer.in_use
    sock.set_buffers()
    assert not buffer.in_use
    sock.set_buffers(rcv=buffer)
    sock.close()
    assert not buffer.in_use
    buffer.free()


@pytest.mark.parametrize("why", ["closed", "refused", "unreachable"])
def test_zc_1_open_that_fails_gives_the_buffer_back(bench: Bench, why: str) -> None:
    """An id that was provisioned with the application's buffer is released, not kept for the next open."""
    buffer = bench.dev.allocate_buffer(SIZE)
    if why == "unreachable":
        sock = bench.socket()
        sock.set_buffers(rcv=buffer)
        sock.connect_ex((PEER_IP, 80))
        bench.stack.sleep(sock.writable, 10_000_000)
    else:
        conn = lent(bench, rcv=buffer)
        sock = conn.sock
        if why == "refused":
            bench.device.done(bench.device.last(Opcode.OPEN), Status.TABLE_FULL)
            bench.stack.poll()
    sock.close()
    if why == "closed":
        conn.end(Reason.LOCAL_ABORT)
    bench.stack.poll()
    assert not buffer.in_use
    assert len(bench.device.ops(Opcode.RELEASE)) == 1
    assert not any(toep.flags & TP_READY for toep in bench.dev.engine.ids.toepcbs if toep is not None)


def test_zc_1_id_that_is_ready_has_other_rings(bench: Bench) -> None:
    refused = bench.opening()
    bench.device.done(bench.device.last(Opcode.OPEN), Status.TABLE_FULL)
    bench.stack.poll()
    refused.sock.close()
    buffer = bench.dev.allocate_buffer(SIZE)
    conn = lent(bench, rcv=buffer)
    provision = bench.device.last(Opcode.PROVISION)
    assert (provision["tid"], provision["rcv_base"]) == (conn.tid, buffer.address)


def test_zc_1_ids_that_are_ready_make_room_for_a_buffer() -> None:
    """All ids are provisioned with the driver's rings: one of them is given back, and connect succeeds later."""
    bench = Bench(FakeDevice(connections=2), active_reserve=2)
    refused = [bench.opening(port) for port in (80, 81)]
    for command, conn in zip(bench.device.ops(Opcode.OPEN), refused, strict=True):
        bench.device.done(command, Status.TABLE_FULL)
        bench.stack.poll()
        conn.sock.close()
    other = bench.opening(81)
    sock = bench.socket()
    sock.set_buffers(rcv=bench.dev.allocate_buffer(SIZE))
    assert sock.connect_ex((PEER_IP, 82)) == errno.ENOBUFS
    bench.stack.poll()
    assert sock.connect_ex((PEER_IP, 82)) == errno.EINPROGRESS
    assert bench.device.last(Opcode.OPEN)["tid"] & 0xFFFF != other.tid & 0xFFFF


# ---------------------------------------------------------------------- data in place, and what is copied


def test_zc_1_receive_in_place_copies_nothing(bench: Bench) -> None:
    buffer = bench.dev.allocate_buffer(SIZE)
    conn = established(bench, rcv=buffer)
    data = random.Random(1).randbytes(3 * SIZE)
    got = bytearray()
    for at in range(0, len(data), 3000):
        conn.deliver(data[at : at + 3000])
        views = conn.sock.recv_view()
        place, count = at % SIZE, min(3000, len(data) - at)
        first = min(count, SIZE - place)
        assert [len(view) for view in views] == [n for n in (first, count - first) if n]
        with pytest.raises(TypeError):
            views[0][0] = 1
        buffer.memory[place] ^= 0xFF  # the views are the buffer itself
        assert views[0][0] == data[at] ^ 0xFF
        buffer.memory[place] ^= 0xFF
        for view in views:
            got += view
            conn.sock.consume(len(view))
        assert conn.doorbells("rcv")[-1] == at + sum(map(len, views))
    assert got == data
    assert conn.so.so_rcv.ring.copied_out == 0
    with pytest.raises(BlockingIOError):
        conn.sock.recv_view()
    conn.report(peer_closed=1, state=State.CLOSE_WAIT)
    assert conn.sock.recv_view() == ()


def test_zc_1_send_in_place_copies_nothing(bench: Bench) -> None:
    buffer = bench.dev.allocate_buffer(SIZE)
    conn = established(bench, snd=buffer).nodelay()
    data = random.Random(2).randbytes(3 * SIZE)
    sent = filled = 0
    while sent < len(data):
        views = conn.sock.send_view()
        first = min(SIZE - sent % SIZE, SIZE - conn.so.so_snd.sb_cc)
        assert [len(view) for view in views] == [n for n in (first, SIZE - conn.so.so_snd.sb_cc - first) if n]
        begin = sent
        for view in views:
            part = data[sent : sent + len(view)]
            view[: len(part)] = part
            filled += len(part)
            place = sent % SIZE
            assert buffer.memory[place : place + len(part)] == part
            sent += len(part)
        conn.sock.commit(sent - begin)
        assert conn.doorbells("snd")[-1] == sent
        conn.ack(sent - 1000)
        assert conn.so.so_snd.sb_cc == 1000
    assert filled == len(data) and conn.so.so_snd.ring.copied_in == 0


@pytest.mark.parametrize("wraps", [False, True])
def test_zc_1_copying_path_copies_once(bench: Bench, monkeypatch: pytest.MonkeyPatch, wraps: bool) -> None:
    """send, recv and recv_into move each byte between ring and user once: the ring's counters say how many bytes,
    and what it gives or gets is the user's own object."""
    conn = bench.connected()
    if wraps:
        conn.rebase(4096 - 100)
    ring = conn.so.so_rcv.ring
    given, taken, filled = [], [], []
    write, read, read_into = ByteRing.write, ByteRing.read, ByteRing.read_into

    def spy_read(self: ByteRing, position: int, length: int) -> bytes:
        given.append(read(self, position, length))
        return given[-1]

    monkeypatch.setattr(ByteRing, "write", lambda s, p, data: (taken.append(memoryview(data).obj), write(s, p, data)))
    monkeypatch.setattr(
        ByteRing, "read_into", lambda s, p, buffer: (filled.append(buffer.obj), read_into(s, p, buffer))
    )
    monkeypatch.setattr(ByteRing, "read", spy_read)
    message = bytes(range(200))
    conn.deliver(message)
    taken.clear()
    result = conn.sock.recv(150)
    assert result == message[:150] and result is given[0] and ring.copied_out == 150
    mine = bytearray(60)
    assert conn.sock.recv_into(mine) == 50
    assert mine[:50] == message[150:] and filled[0] is mine and ring.copied_out == 200
    assert conn.sock.send(message) == 200
    assert taken[0] is message and conn.so.so_snd.ring.copied_in == 200
    conn.deliver(b"peek")
    assert conn.sock.recv(4, socket.MSG_PEEK) == b"peek" == conn.sock.recv(100)


def test_zc_1_ordinary_rings_can_be_used_in_place_too(bench: Bench) -> None:
    """Accepted connections have rings of the stock; reading and filling in place is the same."""
    listener = bench.listening()
    bench.syn(ref=1)
    conn = bench.handshake_done(1)
    conn.sock_or_none, _ = listener.accept()
    conn.sock.setblocking(False)
    conn.deliver(b"question")
    [view] = conn.sock.recv_view()
    assert bytes(view) == b"question"
    conn.sock.consume(8)
    room = conn.sock.send_view()[0]
    room[:6] = b"answer"
    conn.sock.commit(6)
    assert conn.send_ring(0, 6) == b"answer" and conn.doorbells("snd") == [6]


def test_zc_1_in_place_and_copying_calls_mix(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"one two three")
    assert conn.sock.recv(4) == b"one "
    assert bytes(conn.sock.recv_view()[0]) == b"two three"
    conn.sock.consume(4)
    assert conn.sock.recv(100) == b"three"
    conn.sock.send_view()[0][:3] = b"abc"
    conn.sock.commit(3)
    conn.sock.send(b"def")
    assert conn.send_ring(0, 6) == b"abcdef"


def test_zc_1_blocking_calls_wait(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setblocking(True)
    bench.device.script = [lambda: conn.deliver(b"late", poll=False)]
    assert bytes(conn.sock.recv_view()[0]) == b"late"
    conn.sock.commit(4096)
    bench.device.script = [lambda: conn.ack(10, poll=False)]
    assert [len(view) for view in conn.sock.send_view()] == [10]


def test_zc_1_filled_before_the_handshake_is_done(bench: Bench) -> None:
    conn = lent(bench, snd=bench.dev.allocate_buffer(SIZE))
    conn.sock.send_view()[0][:5] = b"early"
    conn.sock.commit(5)
    assert conn.doorbells("snd") == []
    conn.report(established=1, state=State.ESTABLISHED)
    assert conn.doorbells("snd") == [5]


# ---------------------------------------------------------------------- misuse


def test_zc_1_more_than_there_is(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"four")
    for count in (5, -1):
        with pytest.raises(ValueError, match=f"cannot consume {count} bytes: 4 have arrived"):
            conn.sock.consume(count)
    conn.sock.commit(4000)
    for count in (97, -1):
        with pytest.raises(ValueError, match=f"cannot commit {count} bytes: there is room for 96"):
            conn.sock.commit(count)
    assert conn.so.so_rcv.sb_cc == 4 and conn.so.so_snd.sb_cc == 4000 and conn.doorbells("snd") == [4000]
    conn.sock.consume(0)
    conn.sock.commit(0)
    assert conn.doorbells("rcv") == [] and conn.doorbells("snd") == [4000]


@pytest.mark.parametrize(
    "call, argument", [("recv_view", ()), ("consume", (0,)), ("send_view", ()), ("commit", (0,)), ("set_buffers", ())]
)
def test_zc_1_use_after_close(bench: Bench, call: str, argument: tuple[int, ...]) -> None:
    conn = bench.connected()
    conn.sock.close()
    with pytest.raises(OSError) as caught:
        getattr(conn.sock, call)(*argument)
    assert caught.value.errno == errno.EBADF


def test_zc_1_not_connected(bench: Bench) -> None:
    for call in (Socket.recv_view, Socket.send_view, lambda sock: sock.commit(0)):
        with pytest.raises(OSError) as caught:
            call(bench.socket())
        assert caught.value.errno == errno.ENOTCONN


def test_zc_1_errors_of_the_connection(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"last")
    conn.end(Reason.PEER_RESET)
    assert bytes(conn.sock.recv_view()[0]) == b"last"
    conn.sock.consume(4)
    with pytest.raises(ConnectionResetError):
        conn.sock.recv_view()
    with pytest.raises(BrokenPipeError):
        conn.sock.commit(0)
    with pytest.raises(BrokenPipeError):
        conn.sock.send_view()


def test_zc_1_buffer_in_use(bench: Bench) -> None:
    buffer = bench.dev.allocate_buffer(SIZE)
    conn = established(bench, rcv=buffer)
    with pytest.raises(BufferError, match="in use"):
        bench.socket().set_buffers(snd=buffer)
    with pytest.raises(BufferError, match="in use"):
        buffer.free()
    with pytest.raises(OSError) as caught:
        conn.sock.set_buffers(rcv=bench.dev.allocate_buffer(SIZE))
    assert caught.value.errno == errno.EISCONN
    end(conn)
    buffer.free()
    buffer_again = bench.dev.allocate_buffer(SIZE)
    with pytest.raises(BufferError, match="both directions"):
        bench.socket().set_buffers(rcv=buffer_again, snd=buffer_again)
    with pytest.raises(BufferError, match="freed"):
        bench.socket().set_buffers(rcv=buffer)
    with pytest.raises(BufferError, match="freed"):
        buffer.free()


def test_zc_1_listener_takes_no_buffers(bench: Bench) -> None:
    buffer = bench.dev.allocate_buffer(SIZE)
    with pytest.raises(OSError) as caught:
        bench.listening(81).set_buffers(rcv=buffer)
    assert caught.value.errno == errno.EOPNOTSUPP and not buffer.in_use
    sock = bench.socket()
    sock.set_buffers(snd=buffer)
    with pytest.raises(OSError) as caught:
        sock.listen()
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("size", [0, 2048, 5000, 1 << 25])
def test_zc_1_wrong_size(bench: Bench, size: int) -> None:
    with pytest.raises(ValueError, match=f"buffer of {size} bytes: must be a power of two"):
        bench.dev.allocate_buffer(size)
    with pytest.raises(ValueError, match=f"buffer of {size} bytes: must be a power of two"):
        bench.dev.register_buffer(0, size)


def test_zc_1_no_memory(bench: Bench) -> None:
    with pytest.raises(OutOfMemory):
        bench.dev.allocate_buffer(1 << 22)
    before = bench.dev.engine.memory.free_bytes
    hog = []
    with pytest.raises(OutOfMemory):
        while True:
            hog.append(bench.dev.allocate_buffer(4096))
    with pytest.raises(OutOfMemory):
        bench.socket().set_buffers(rcv=hog[0])  # none for the other direction
    assert not hog[0].in_use
    for buffer in hog:
        buffer.free()
    assert bench.dev.engine.memory.free_bytes == before


def test_zc_1_registered_memory() -> None:
    """Memory of the application's own choice, beside the driver's."""
    limit = 1 << 21
    bench = Bench(memory_limit=limit)
    buffer = bench.dev.register_buffer(limit, SIZE)
    for address, size, error, match in (
        (limit + 4096, SIZE, ValueError, "aligned"),
        (1 << 22, SIZE, ValueError, "reaches"),
        (-SIZE, SIZE, ValueError, "reaches"),
        (limit - SIZE, SIZE, BufferError, "the driver"),
        (limit, 4096, BufferError, "another buffer"),
    ):
        with pytest.raises(error, match=match):
            bench.dev.register_buffer(address, size)
    conn = established(bench, rcv=buffer)
    conn.deliver(b"here")
    assert bench.device.memory[limit : limit + 4] == b"here" == buffer.memory[:4]
    end(conn)
    buffer.free()
    bench.dev.register_buffer(limit, 4096)


def test_zc_1_buffer_of_another_device() -> None:
    stack = Stack()
    bench = Bench(stack=stack)
    other = Tiptoe(
        stack,
        FakeDevice(),
        address="10.1.0.1/24",
        mac=OUR_MAC,
        name="tiptoe1",
        options=EngineOptions(snd_ring_bytes=4096, rcv_ring_bytes=4096, seed=1),
    )
    sock = bench.socket()
    with pytest.raises(BufferError, match="another device"):
        sock.set_buffers(rcv=bench.dev.allocate_buffer(SIZE), snd=other.allocate_buffer(SIZE))
    sock.set_buffers(rcv=other.allocate_buffer(SIZE))
    assert sock.connect_ex((PEER_IP, 80)) == errno.EXDEV
    assert sock.connect_ex(("10.1.0.9", 80)) == errno.EINPROGRESS
