"""Contract row ZC-1 on the engine: every payload byte is written once into the memory the user reads, by the device, and
once into the memory the device reads, by the user. The simulation counts what the device writes, the rings what the driver
copies, the programs here what they fill themselves."""

from __future__ import annotations

import errno
import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.memory import RingPair
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment, Simulation

BYTES = 50_000
BUFFER = 8192
DRIVER = {
    "snd_ring_bytes": 4096,
    "rcv_ring_bytes": 4096,
    "arp_retry_us": 20_000,
    "registers": {reg.REG_MSL_TICKS: 3, reg.REG_RTO_MIN: 20},
}


@pytest.fixture
def make(out_dir) -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def pair(**options) -> Pair:
        made.append(
            Pair("tiny", skip_idle=True, driver=DRIVER, memory_bytes=1 << 22, pcap=out_dir / "wire.pcap", **options)
        )
        return made[-1]

    yield pair
    for two in made:
        two.check()
        two.close()


class Program:
    """Sends ``data``, and receives until the end of the stream, the one way or the other.

    ``filled`` counts the bytes it has written itself.
    """

    def __init__(self, sim: Simulation, sock: Socket, data: bytes, path: str) -> None:
        self.sock, self.data, self.path = sock, memoryview(data), path
        self.rings: RingPair = sock.so.so_rings
        self.sent = self.filled = 0
        self.got = bytearray()
        self.ended = False
        self.device_wrote = {
            name: sim.harness.count_writes(block.address, block.address + block.size)
            for name, block in (("rcv", self.rings.rcv_block), ("snd", self.rings.snd_block))
        }

    def turn(self) -> None:
        """What goes now."""
        for step in (self._send, self._receive):
            try:
                step()
            except BlockingIOError:
                pass

    def _send(self) -> None:
        if self.sent == len(self.data):
            return
        if self.path == "in place":
            count = 0
            for view in self.sock.send_view():
                part = self.data[self.sent + count : self.sent + count + len(view)]
                view[: len(part)] = part
                self.filled += len(part)
                count += len(part)
            self.sock.commit(count)
        else:
            count = self.sock.send(self.data[self.sent :])
        self.sent += count
        if self.sent == len(self.data):
            self.sock.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        if self.ended:
            return
        if self.path == "in place":
            views = self.sock.recv_view()
            for view in views:
                self.got += view  # what the test compares; not a copy the driver makes
                self.sock.consume(len(view))
            self.ended = not views
        elif self.path == "recv":
            data = self.sock.recv(3000)
            self.got += data
            self.ended = not data
        else:
            buffer = bytearray(3000)
            count = self.sock.recv_into(buffer)
            self.got += buffer[:count]
            self.ended = not count


def connect(two: Pair, *, buffers: bool) -> tuple[Socket, Socket]:
    """A connection from a, with buffers of its own if wanted, to b, whose rings are of the stock."""
    listener = two.b.socket()
    listener.bind(("", 80))
    listener.listen()
    client = two.a.socket()
    if buffers:
        client.set_buffers(rcv=two.a.toe.allocate_buffer(BUFFER), snd=two.a.toe.allocate_buffer(BUFFER))
    assert client.connect_ex(("10.0.0.2", 80)) == errno.EINPROGRESS
    two.run_until(lambda: listener.readable() and client.writable(), 100_000, "established")
    server, _ = listener.accept()
    server.setblocking(False)
    listener.close()
    return client, server


def carry(two: Pair, *programs: Program) -> None:
    def done() -> bool:
        for program in programs:
            program.turn()
        return all(program.ended and program.sent == len(program.data) for program in programs)

    two.run_until(done, 30_000_000, "the transfer")


@pytest.mark.parametrize(
    "path, buffers, copies",
    [("in place", True, 0), ("in place", False, 0), ("recv", True, 1), ("recv", False, 1), ("recv_into", False, 1)],
)
def test_zc_1_each_byte_is_written_once(make, rng: random.Random, path: str, buffers: bool, copies: int) -> None:
    two = make()
    client, server = connect(two, buffers=buffers)
    there, back = rng.randbytes(BYTES), rng.randbytes(BYTES - 1)
    a, b = Program(two.a, client, there, path), Program(two.b, server, back, path)
    assert a.rings.lent is buffers and a.rings.rcv.size == (BUFFER if buffers else 4096)
    carry(two, a, b)
    assert a.got == back and b.got == there
    for program, received in ((a, len(back)), (b, len(there))):
        assert program.device_wrote["rcv"]() == received
        assert program.device_wrote["snd"]() == 0
        assert program.rings.rcv.copied_out == copies * received
        assert program.rings.rcv.copied_in == 0 == program.rings.snd.copied_out
        sent = len(program.data)
        assert program.rings.snd.copied_in == copies * sent
        assert program.filled + program.rings.snd.copied_in == sent


def test_zc_1_lossy_line(make, rng: random.Random) -> None:
    """With loss the device may write a byte again; the driver still copies none, and the data is right."""
    two = make(impairment=Impairment(loss=0.05, seed=5))
    client, server = connect(two, buffers=True)
    there, back = rng.randbytes(15_000), rng.randbytes(15_000)
    a, b = Program(two.a, client, there, "in place"), Program(two.b, server, back, "in place")
    carry(two, a, b)
    assert a.got == back and b.got == there
    for program in (a, b):
        assert program.device_wrote["rcv"]() >= len(program.data) and program.device_wrote["snd"]() == 0
        assert program.rings.rcv.copied_out == program.rings.snd.copied_in == 0


def test_zc_1_buffer_serves_one_connection_after_the_other(make, rng: random.Random) -> None:
    """A buffer is given on as soon as it is no longer in use; nothing of an earlier connection is written to it then."""
    two = make()
    buffer = two.a.toe.allocate_buffer(BUFFER)
    listener = two.b.socket()
    listener.bind(("", 80))
    listener.listen()
    wrote = two.a.harness.count_writes(buffer.address, buffer.address + buffer.size)
    total = 0
    for length in (3000, BUFFER, 1):
        client = two.a.socket()
        client.set_buffers(rcv=buffer)
        client.connect_ex(("10.0.0.2", 80))
        two.run_until(lambda client=client: listener.readable() and client.writable(), 1_000_000, "established")
        server, _ = listener.accept()
        server.setblocking(False)
        data = rng.randbytes(length)
        sent = 0

        def arrived(server=server, client=client, data=data) -> bool:
            nonlocal sent
            sent += server.send(data[sent:]) if sent < len(data) and server.writable() else 0
            return client.so.so_rcv.sb_cc == len(data)

        two.run_until(arrived, 1_000_000, "the data")
        total += length
        assert buffer.memory[:length] == data and wrote() == total
        client.close()
        server.close()
        assert buffer.in_use
        two.run_until(lambda: not buffer.in_use, 10_000_000, "the engine's letting go")
        buffer.memory[:] = bytes(BUFFER)
        two.run_us(50_000)
        assert wrote() == total
    buffer.free()


def test_zc_1_example_of_the_programmers_guide(make, rng: random.Random) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "driver.md").read_text()
    [example] = re.findall(r"^## Zero-copy$.*?^```python$(.*?)^```$", guide, re.S | re.M)
    two = make()
    page = rng.randbytes(100_000)
    listener = two.b.socket()
    listener.bind(("", 80))
    listener.listen()
    requests, served = [], []

    def serve() -> None:
        try:
            if not served:
                served.append([listener.accept()[0], 0])
                served[0][0].setblocking(False)
            if not requests:
                requests.append(served[0][0].recv(100))
            if served[0][1] < len(page):
                served[0][1] += served[0][0].send(page[served[0][1] :])
            elif served[0][0].so is not None:
                served[0][0].close()
        except BlockingIOError:
            pass

    two.b.tasks.append(serve)
    got = bytearray()
    names = {
        "stack": two.a.stack,
        "toe": two.a.toe,
        "Socket": Socket,
        "parse": lambda views: got.extend(b"".join(views)),
    }
    exec(compile(example, "docs/driver.md", "exec"), names)
    assert requests == [b"GET / HTTP/1.0\r\n\r\n"] and got == page
    for buffer in (names["rcv"], names["snd"]):
        buffer.free()
