"""tiptoe serve's socket: whatever a client does, the next one is served. On an engine that is none."""

import contextlib
import re
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiptoe_verif.cli import app
from tiptoe_verif.native.harness import RuleBroken
from tiptoe_verif.serve.protocol import HEAD, LONGEST, MOST_WAIT_US, VERSION, WELCOME, Event, Kind, Refused
from tiptoe_verif.serve.server import Server, listen_tcp, listen_unix

PAGE = Path(__file__).parents[3] / "docs" / "seam.md"
WORD = struct.Struct("<I")


class NoEngine:
    """What a client finds; WAIT takes no time, and tells how much was asked for."""

    ip, mac, peer_ip, peer_mac = 0x0A4D0002, 0x020000000002, 0x0A4D0001, 0x020000000001

    def __init__(self):
        self.memory = memoryview(bytearray(3 << 20))
        self.written, self.forgotten, self.now = [], 0, 0

    def read32(self, address):
        if address == 0x1000:
            raise Refused("no register")
        if address == 0x2000:
            raise RuleBroken("cycle 7: a rule")
        return address + 1

    def write32(self, address, value):
        self.written.append((address, value))

    def now_us(self):
        return self.now

    def wait(self, timeout_us):
        self.now += timeout_us
        return Event.IRQ

    def send(self, frame):
        raise Refused("not yours")

    def take(self):
        return 12.7, b"frame"

    def idle(self, ready, timeout_s):
        ready.select(timeout_s)

    def forget(self):
        self.forgotten += 1


class Client:
    made = []

    def __init__(self, address, *, greet=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.made.append(self.socket)
        self.socket.settimeout(20)
        self.socket.connect(str(address))
        if greet:
            assert self.ask(Kind.HELLO, VERSION)[0] == Kind.HELLO

    def put(self, kind, argument=0, payload=b""):
        self.socket.sendall(HEAD.pack(kind, len(payload), argument) + payload)

    def take(self):
        kind, length, argument = HEAD.unpack(self.exactly(HEAD.size))
        return kind, argument, self.exactly(length)

    def exactly(self, length):
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            assert more, "the connection has ended"
            data += more
        return data

    def ask(self, kind, argument=0, payload=b""):
        self.put(kind, argument, payload)
        return self.take()

    def ended(self):
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True


def close_clients():
    while Client.made:
        Client.made.pop().close()


@pytest.fixture
def served(tmp_path, request):
    """(engine, address): a server in a thread, patient unless the test says otherwise."""
    engine, address = NoEngine(), tmp_path / "engine"
    server = Server(engine, listen_unix(address), patience_s=getattr(request, "param", 60.0))
    failures = []

    def run():
        try:
            server.run(clients=1000)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    engine.failures, engine.thread = failures, thread
    yield engine, address
    while thread.is_alive():  # one more has come and gone, and it has had enough
        server.served = 999
        with contextlib.suppress(OSError):
            Client(address, greet=False)
        close_clients()
        thread.join(0.2)
    close_clients()
    server.close()


def assert_alive(address):
    """Another client is served."""
    client = Client(address)
    assert client.ask(Kind.READ, 8) == (Kind.READ, 9, b"")
    client.socket.close()


def test_each_message(served):
    engine, address = served
    client = Client(address, greet=False)
    kind, version, told = client.ask(Kind.HELLO, VERSION)
    assert (kind, version) == (Kind.HELLO, VERSION)
    assert WELCOME.unpack(told) == (3 << 20, engine.ip, engine.peer_ip, engine.mac, engine.peer_mac)
    assert client.ask(Kind.READ, 0x10) == (Kind.READ, 0x11, b"")
    assert client.ask(Kind.WRITE, 0x80000, WORD.pack(0xFFFF_FFFF)) == (Kind.WRITE, 0, b"")
    assert engine.written == [(0x80000, 0xFFFF_FFFF)]
    assert client.ask(Kind.STORE, (3 << 20) - 5, b"bytes") == (Kind.STORE, 0, b"")
    assert client.ask(Kind.LOAD, (3 << 20) - 5, WORD.pack(5)) == (Kind.LOAD, 0, b"bytes")
    assert client.ask(Kind.STORE, 0, bytes(range(256)) * (LONGEST // 256)) == (Kind.STORE, 0, b"")
    assert client.ask(Kind.LOAD, 1, WORD.pack(LONGEST))[2][:3] == b"\1\2\3"
    assert client.ask(Kind.WAIT, 7) == (Kind.WAIT, 7, WORD.pack(Event.IRQ))
    assert client.ask(Kind.WAIT, 1 << 63) == (Kind.WAIT, 7 + MOST_WAIT_US, WORD.pack(Event.IRQ))
    assert client.ask(Kind.TAKE) == (Kind.TAKE, 12, b"frame")


@pytest.mark.parametrize(
    "kind, argument, payload, said",
    [
        (Kind.READ, 0x1000, b"", "no register"),
        (Kind.READ, 0x12, b"", "at 0x12"),
        (Kind.READ, 1 << 20, b"", "at 0x100000"),
        (Kind.WRITE, 1 << 40, WORD.pack(1), "at 0x10000000000"),
        (Kind.WRITE, 0x10, b"abc", "4 bytes, not 3"),
        (Kind.LOAD, 0, b"", "4 bytes"),
        (Kind.LOAD, 0, WORD.pack(LONGEST + 1), "at most"),
        (Kind.LOAD, (3 << 20) - 3, WORD.pack(4), "beyond host memory"),
        (Kind.LOAD, (1 << 64) - 1, WORD.pack(4), "beyond host memory"),
        (Kind.STORE, (3 << 20) - 3, b"four", "beyond host memory"),
        (Kind.SEND, 0, b"x" * 64, "not yours"),
        (Kind.SEND, 0, b"x" * 13, "14 to 65535"),
        (Kind.ERROR, 0, b"", "kind 0"),
        (9, 0, b"what", "kind 9"),
        (0xFFFF_FFFF, 0, b"", "kind 4294967295"),
        (Kind.HELLO, 2, b"", "version 1"),
        (Kind.HELLO, 1, b"hello", "a head alone"),
        (Kind.READ, 0x10, b"four", "a head alone"),
        (Kind.WAIT, 10, b"x", "a head alone"),
        (Kind.TAKE, 0, b"x" * LONGEST, "a head alone"),
        (Kind.WRITE, 0x10, b"", "4 bytes, not 0"),
        (Kind.WRITE, 0x10, b"x" * 8, "4 bytes, not 8"),
        (Kind.LOAD, (3 << 20) + 1, WORD.pack(0), "beyond host memory"),
        (Kind.LOAD, 1 << 32, WORD.pack(1), "beyond host memory"),
        (Kind.LOAD, 0, WORD.pack(0xFFFF_FFFF), "at most"),
        (Kind.STORE, (1 << 64) - 2, b"four", "beyond host memory"),
        (Kind.SEND, 0, b"", "14 to 65535"),
        (Kind.SEND, 0, b"x" * 65536, "14 to 65535"),
    ],
)
def test_what_cannot_be_is_told_and_does_nothing(served, kind, argument, payload, said):
    engine, address = served
    client = Client(address)
    before = bytes(engine.memory)
    answered, _, text = client.ask(kind, argument, payload)
    assert answered == Kind.ERROR and said in text.decode()
    assert engine.written == [] and bytes(engine.memory) == before
    assert client.ask(Kind.READ, 8) == (Kind.READ, 9, b"")


def test_requests_before_their_answers_are_answered_in_order(served):
    engine, address = served
    client = Client(address)
    for n in range(50):
        client.put(Kind.WRITE, 4 * n, WORD.pack(n))
        client.put(Kind.READ, 4 * n)
    for n in range(50):
        assert client.take() == (Kind.WRITE, 0, b"")
        assert client.take() == (Kind.READ, 4 * n + 1, b"")
    assert engine.written == [(4 * n, n) for n in range(50)]


def test_a_byte_at_a_time(served):
    _, address = served
    client = Client(address)
    for byte in HEAD.pack(Kind.STORE, 3, 100) + b"abc":
        client.socket.sendall(bytes([byte]))
    assert client.take() == (Kind.STORE, 0, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff" * 64,
        bytes(16),
        HEAD.pack(Kind.HELLO, LONGEST + 1, VERSION),
        HEAD.pack(Kind.HELLO, 0xFFFF_FFFF, VERSION),
        HEAD.pack(Kind.HELLO, 0, VERSION + 1),
        HEAD.pack(Kind.WRITE, 4, 0x10) + b"abcd",
    ],
)
def test_who_does_not_begin_with_hello_is_told_and_ended(served, data):
    engine, address = served
    client = Client(address, greet=False)
    client.socket.sendall(data)
    assert client.take()[0] == Kind.ERROR
    assert client.ended()
    assert engine.written == []
    assert_alive(address)


def test_a_huge_length_in_mid_session(served):
    _, address = served
    client = Client(address)
    client.socket.sendall(HEAD.pack(Kind.STORE, LONGEST + 1, 0))
    assert client.take()[0] == Kind.ERROR
    assert client.ended()
    assert_alive(address)


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 19])
def test_who_goes_in_mid_message(served, cut):
    engine, address = served
    client = Client(address)
    client.socket.sendall((HEAD.pack(Kind.WRITE, 4, 0x10) + b"abcd")[:cut])
    client.socket.close()
    assert_alive(address)
    assert engine.written == [] and engine.forgotten >= 1


def test_who_goes_without_his_answers_has_been_served_and_is_not_in_the_way(served):
    engine, address = served
    for n in range(50):
        client = Client(address)
        client.put(Kind.WRITE, 4 * n, WORD.pack(n))
        client.socket.close()
    assert_alive(address)
    assert engine.written == [(4 * n, n) for n in range(50)]


@pytest.mark.parametrize("served", [0.5], indirect=True)
def test_half_a_message_is_not_waited_for_for_ever(served):
    _, address = served
    client = Client(address)
    begin = time.monotonic()
    client.socket.sendall(HEAD.pack(Kind.STORE, 100, 0) + b"half")
    assert "did not come" in client.take()[2].decode()
    assert client.ended() and 0.4 < time.monotonic() - begin < 10
    assert_alive(address)


@pytest.mark.parametrize("served", [0.5], indirect=True)
def test_who_thinks_between_messages_stays(served):
    _, address = served
    client = Client(address)
    time.sleep(1.2)  # more than its patience
    assert client.ask(Kind.READ, 8) == (Kind.READ, 9, b"")


@pytest.mark.parametrize("served", [0.5], indirect=True)
def test_who_does_not_read_is_ended(served):
    _, address = served
    client = Client(address)
    client.socket.settimeout(0.2)
    with contextlib.suppress(OSError):  # until nothing more goes in
        for _ in range(100):
            client.put(Kind.LOAD, 0, WORD.pack(LONGEST))
    assert_alive(address)


def test_a_second_client_is_told_and_the_first_notices_nothing(served):
    _, address = served
    first = Client(address)
    first.socket.sendall(HEAD.pack(Kind.STORE, 4, 0))
    second = Client(address, greet=False)
    assert second.take() == (Kind.ERROR, 0, b"another client is served")
    assert second.ended()
    first.socket.sendall(b"four")
    assert first.take() == (Kind.STORE, 0, b"")
    first.socket.close()
    assert_alive(address)


@pytest.mark.parametrize("pause", [0, 0.05])
def test_a_last_word_is_read_by_who_sends_first(served, pause):
    """Not a broken pipe instead: a second client, with its HELLO, and one in the middle of much too much."""
    _, address = served
    first = Client(address)
    for _ in range(20):  # more than are kept waiting
        second = Client(address, greet=False)
        time.sleep(pause)
        assert second.ask(Kind.HELLO, VERSION) == (Kind.ERROR, 0, b"another client is served")
        assert second.ended()
    first.socket.sendall(HEAD.pack(Kind.STORE, 2 * LONGEST, 0) + bytes(2 * LONGEST))
    assert "at most" in first.take()[2].decode()
    assert first.ended()
    assert_alive(address)


@pytest.mark.parametrize("served", [0.3], indirect=True)
def test_a_last_word_is_kept_for_a_while_only(served):
    _, address = served
    first, second = Client(address), Client(address, greet=False)
    second.take()
    with pytest.raises(OSError):  # it sends on and on
        for _ in range(1000):
            second.put(Kind.READ, 8)
            time.sleep(0.01)
    assert first.ask(Kind.READ, 8) == (Kind.READ, 9, b"")


@pytest.mark.parametrize("served", [0.5], indirect=True)
def test_who_reads_slowly_stays(served):
    """Its patience is for an answer that finds no room at all."""
    _, address = served
    client = Client(address)
    client.put(Kind.LOAD, 0, WORD.pack(LONGEST))
    left = HEAD.size + LONGEST
    while left:
        time.sleep(0.1)
        left -= len(client.exactly(min(left, 1 << 17)))
    assert client.ask(Kind.READ, 8) == (Kind.READ, 9, b"")


def test_a_rule_broken_between_messages_is_told(served):
    engine, address = served
    client = Client(address)

    def breaks(ready, timeout_s):
        raise RuleBroken("cycle 8: a rule")

    engine.idle = breaks
    client.put(Kind.READ, 8)  # perhaps it is read yet
    while (told := client.take())[0] == Kind.READ:
        pass
    assert told == (Kind.ERROR, 0, b"cycle 8: a rule")
    engine.thread.join(10)
    assert [type(failure) for failure in engine.failures] == [RuleBroken]


def test_a_second_client_does_not_wait_for_all_that_the_first_has_asked(served):
    engine, address = served
    engine.wait = lambda timeout_us: time.sleep(0.05) or Event(0)
    first = Client(address)
    first.socket.sendall(200 * HEAD.pack(Kind.WAIT, 0, 1))
    begin = time.monotonic()
    assert Client(address, greet=False).take() == (Kind.ERROR, 0, b"another client is served")
    assert time.monotonic() - begin < 5
    first.socket.close()
    assert_alive(address)


def test_a_broken_rule_is_told_and_ends_it(served):
    engine, address = served
    client = Client(address)
    assert client.ask(Kind.READ, 0x2000) == (Kind.ERROR, 0, b"cycle 7: a rule")
    engine.thread.join(10)
    assert [type(failure) for failure in engine.failures] == [RuleBroken]


def test_the_socket_is_the_user_s_and_never_taken_from_another(tmp_path):
    path = tmp_path / "engine"
    with listen_unix(path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(FileExistsError, match="another process"):
            listen_unix(path)
    listen_unix(path).close()  # nobody serves it any more
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another,
        pytest.raises(FileExistsError, match="another process"),
    ):
        path.unlink()
        another.bind(str(path))  # as a logger's
        listen_unix(path)
    assert path.exists()
    file = tmp_path / "file"
    file.write_text("dear")
    with pytest.raises(FileExistsError, match="no socket"):
        listen_unix(file)
    assert file.read_text() == "dear"


def test_tcp_is_the_loopback_s():
    with listen_tcp(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "give one of --socket PATH and --port N"),
        (("--socket", "engine", "--port", "0"), "give one of --socket PATH and --port N"),
        (("--port", "0", "--peer", "mirror"), "no peer 'mirror': there are echo, none, tap"),
        (("--port", "0", "--config", "huge"), "no configuration 'huge'"),
        (("--socket", __file__), "exists, and is no socket"),
        (("--socket", "no/such/folder/engine"), "cannot listen: "),
        (("--socket", "x" * 200), "cannot listen: "),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_the_page_has_every_message():
    rows = re.findall(r"^\| (\d) \| ([A-Z]+) \|", PAGE.read_text(), flags=re.M)
    assert {int(number): name for number, name in rows} == {kind.value: kind.name for kind in Kind}
    assert f"{LONGEST:,} at most" in PAGE.read_text() and f"{MOST_WAIT_US:,} count" in PAGE.read_text()
