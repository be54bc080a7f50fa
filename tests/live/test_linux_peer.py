"""The lifecycle of connections, each against the Linux kernel's TCP."""

import errno
import socket
import struct
import time

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.live.conftest import ENGINE, KERNEL, readable, receive_some, send_some, writable
from tiptoe_verif.live.relay import CHARGEN
from tiptoe_verif.wire.segment import ACK, FIN, RST, SYN, ip_number

pytestmark = pytest.mark.tap
RESET = struct.pack("ii", 1, 0)


def test_passive_open_data_both_ways_and_close_by_the_peer(bench, payload):
    listener = bench.offloaded_listener(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    bench.carry(client, server, payload(50_000), back=payload(70_000))
    bench.carry(client, server, b"", end=True)  # the kernel closes first
    bench.carry(server, client, payload(10_000), end=True)  # and still receives
    server.close()


def test_active_open_data_both_ways_and_close_by_us(bench, payload):
    listener = bench.listen(8000)
    client = bench.offloaded_connect(8000)
    server = bench.accept(listener)
    bench.carry(client, server, payload(70_000), back=payload(50_000))
    bench.carry(client, server, payload(3), end=True)  # we close first
    bench.carry(server, client, payload(10_000), end=True)
    client.close()
    counters = bench.engine.toe.engine.read_counters()
    # Where the machine holds up the kernel for two round trips, a tail is probed that was not lost (RFC 8985 section 7).
    assert counters["RTO_EXPIRED"] == counters["FAST_RETRANSMITS"] == 0 and counters["TX_RETRANSMITS"] <= 3


def fins(bench):
    """First FIN of each side, from the capture: (ours, the kernel's)."""
    sides = {}
    for segment in bench.segments():
        if segment.flags & FIN:
            sides.setdefault(segment.src, segment)
    return sides[ip_number(ENGINE)], sides[ip_number(KERNEL)]


def test_simultaneous_close(bench, payload):
    listener = bench.listen(8000)
    client = bench.offloaded_connect(8000)
    server = bench.accept(listener)
    client.shutdown(socket.SHUT_WR)
    bench.engine.harness.run(2000)  # our FIN is out before the kernel's comes in
    server.shutdown(socket.SHUT_WR)
    bench.expect_end(client)
    bench.expect_end(server)
    client.close()
    bench.settle()
    ours, theirs = fins(bench)
    assert ours.ack == theirs.seq and theirs.ack == ours.seq  # neither had seen the other's


def test_simultaneous_open(bench, payload):
    first = bench.connect(7)  # both sides know each other's MAC address afterwards
    bench.carry(first, first, b"hello")
    first.close()
    from tiptoe_driver import Socket

    ours = Socket(bench.engine.stack)
    ours.setblocking(False)
    ours.bind(("", 5002))
    ours.connect_ex((KERNEL, 5001))
    bench.engine.harness.run(2000)  # our SYN is out, and still on this side of the TAP
    kernel = bench.kernel_socket(5001)
    kernel.connect_ex((ENGINE, 5002))
    bench.until(lambda: ours.writable() and writable(kernel), "both ends")
    assert kernel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    bench.carry(kernel, ours, payload(5000), back=payload(5000), end=True)
    ours.close()
    bench.settle()
    syns = [segment for segment in bench.segments() if segment.flags & SYN and 5001 in (segment.sport, segment.dport)]
    assert {(segment.sport, segment.flags & ACK) for segment in syns} >= {(5001, 0), (5002, 0), (5002, ACK)}


def test_closed_port_is_refused(bench):
    with pytest.raises(ConnectionRefusedError):
        bench.connect(4444)


def test_refused_by_the_kernel(bench):
    with pytest.raises(ConnectionRefusedError):
        bench.offloaded_connect(4444)


def test_the_kernel_s_program_writes_and_does_not_read(bench, payload):
    """Its window is closed, ours has data waiting and probes: what it writes comes as fast as otherwise."""
    listener = bench.listen(8000)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = bench.offloaded_connect(8000)
    server = bench.accept(listener)
    waiting = memoryview(payload(300_000))
    end = time.monotonic() + 2  # until the window is closed and probed
    while time.monotonic() < end:
        waiting = waiting[send_some(client, waiting) :]
        bench.for_s(0.02)
    sent = 300_000 - len(waiting)
    assert waiting, "it does not read"
    data = payload(400_000)
    start = time.monotonic()
    bench.carry(server, client, data)
    assert time.monotonic() - start < 10
    got = bytearray()
    bench.until(lambda: got.extend(receive_some(server, sent)) or len(got) >= sent, "what waited")


def keepalive(sock, idle=1, intvl=1, cnt=3):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, idle), (socket.TCP_KEEPINTVL, intvl), (socket.TCP_KEEPCNT, cnt)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def probes_and_answers(bench, prober, port):
    """Empty segments of ``prober`` one before what the other side expects, and those that answer them."""
    segments = [s for s in bench.segments() if port in (s.sport, s.dport) and not s.flags & (SYN | FIN)]
    acked, probes, answers = None, 0, 0
    for segment in segments:
        if segment.src != ip_number(prober):
            answers += probes > answers
            acked = segment.ack
        elif acked is not None and not segment.payload and (segment.seq + 1) & 0xFFFF_FFFF == acked:
            probes += 1
    return probes, answers


@pytest.mark.parametrize("read", [True, False], ids=["window_open", "window_closed"])
def test_keepalive_of_ours_is_answered_by_the_kernel(bench, payload, read):
    listener = bench.listen(8000)
    if not read:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = bench.offloaded_connect(8000)
    server = bench.accept(listener)
    bench.carry(client, server, payload(1000), back=payload(1000))
    keepalive(client)
    bench.for_s(4.5)
    probes, answers = probes_and_answers(bench, ENGINE, 8000)
    assert 3 <= probes <= 5 and answers == probes
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    bench.carry(client, server, payload(1000), back=payload(1000))


def test_keepalive_of_the_kernel_is_answered_by_us(bench, payload):
    listener = bench.offloaded_listener(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    bench.carry(client, server, payload(1000), back=payload(1000))
    keepalive(client)
    bench.for_s(4.5)
    probes, answers = probes_and_answers(bench, KERNEL, 80)
    assert 3 <= probes <= 5 and answers == probes
    bench.carry(client, server, payload(1000), back=payload(1000), end=True)
    server.close()


def test_reset_by_the_peer(bench, payload):
    listener = bench.offloaded_listener(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    bench.carry(client, server, payload(1000))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    bench.until(server.readable, "the reset")
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    server.close()


def test_reset_by_us(bench, payload):
    listener = bench.offloaded_listener(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    bench.carry(client, server, payload(1000))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    server.close()
    bench.until(lambda: readable(client), "the reset")
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_listen_stop_resets_the_half_open(bench):
    """SYNs of hosts that never answer: their connections are half open until the listener goes."""
    first = bench.connect(7)
    listener = bench.offloaded_listener(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    kernel_mac = next(bench.frames(to_engine=True))[6:12]
    with bench.session.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((bench.session.setup.tap, 0))
        for host in (50, 51, 52):
            ethernet = Ether(dst=bench.session.setup.mac, src=kernel_mac)
            raw.send(
                bytes(ethernet / IP(src=f"10.77.0.{host}", dst=ENGINE) / TCP(sport=99, dport=80, seq=7, flags="S"))
            )
    bench.for_s(0.2)
    listener.close()
    bench.for_s(0.2)
    answers = {}
    for segment in bench.segments():
        if segment.dport == 99:
            answers.setdefault(segment.dst & 255, []).append(segment)
    assert set(answers) == {50, 51, 52}
    for syn_ack, *_, reset in answers.values():
        assert syn_ack.flags == SYN | ACK and syn_ack.ack == 8
        assert reset.flags & RST and reset.seq == (syn_ack.seq + 1) & 0xFFFFFFFF
    with pytest.raises(ConnectionRefusedError):
        bench.connect(80)
    bench.carry(client, server, b"still alive", back=b"so am I", end=True)
    server.close()
    first.close()


def test_window_closes_and_opens_towards_the_peer(bench, payload):
    """The offloaded side does not read: the kernel fills the window, waits, and goes on when we read."""
    listener = bench.offloaded_listener(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    data = payload(600_000)
    sent = 0
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def fill() -> bool:
        nonlocal sent
        sent += send_some(client, memoryview(data)[sent:])
        return sent == len(data)

    bench.until(fill, "the send buffer")
    bench.for_s(0.5)
    received = bytearray()

    def drain() -> bool:
        try:
            received.extend(server.recv(65536))
        except BlockingIOError:
            return False
        return len(received) == len(data)

    bench.until(drain, "the rest")
    assert bytes(received) == data
    server.close()


def test_window_of_the_peer_closes_and_opens(bench, payload):
    """The kernel's user does not read: the engine fills the window, probes, and goes on when it opens."""
    listener = bench.offloaded_listener(80)
    client = bench.connect(80, buffer=8192)
    server = bench.offloaded_accept(listener)
    data = payload(300_000)
    out = memoryview(data)

    def send() -> None:
        nonlocal out
        out = out[send_some(server, out) :]

    def window() -> int:
        return [segment.wnd for segment in bench.segments() if segment.src == ip_number(KERNEL)][-1]

    send()
    bench.until(lambda: window() == 0, "a closed window")
    closed = len(bench.segments())
    bench.for_s(2.0)
    probes = bench.segments()[closed:]
    assert any(segment.src == ip_number(ENGINE) for segment in probes)
    assert sum(len(segment.payload) for segment in probes) < 20
    received = bytearray()

    def step() -> bool:
        send()
        received.extend(receive_some(client, 65536))
        return len(received) == len(data)

    bench.until(step, "the rest", 120)
    assert bytes(received) == data
    server.close()


def test_many_connections_at_once(bench, payload):
    clients = [bench.connect(7) for _ in range(8)]
    data = [payload(5_000 + 100 * index) for index in range(8)]
    for client, chunk in zip(clients, data, strict=True):
        client.send(chunk)
    got = [bytearray() for _ in clients]

    def step() -> bool:
        for client, into in zip(clients, got, strict=True):
            if readable(client):
                into.extend(client.recv(65536))
        return all(len(into) == len(chunk) for into, chunk in zip(got, data, strict=True))

    bench.until(step, "all echoes")
    assert [bytes(into) for into in got] == data


def test_ids_are_used_again(bench, payload):
    """More connections one after the other than there are ids, closed by the peer so that no TIME_WAIT stays here."""
    for index in range(40):
        client = bench.connect(7)
        bench.carry(client, client, payload(100))
        client.shutdown(socket.SHUT_WR)
        bench.expect_end(client)
        client.close()
        assert index < 16 or bench.engine.toe.engine.counters.get("lost_ids", 0) == 0
    bench.until(lambda: bench.board.live == 0, "the end of the relays")
    assert len(bench.board.records) == 40


def test_time_wait_ends(make_bench, payload):
    """We close first: the id comes back after TIME_WAIT."""
    bench = make_bench(time_wait_s=0.3)
    free = bench.engine.toe.engine.free_ids
    listener = bench.listen(8000)
    client = bench.offloaded_connect(8000)
    server = bench.accept(listener)
    client.close()
    bench.expect_end(server)
    server.close()
    assert bench.engine.toe.engine.free_ids < free
    bench.until(lambda: bench.engine.toe.engine.free_ids == free, "the id to come back")


def test_built_in_services(bench, payload):
    echo = bench.connect(7)
    bench.carry(echo, echo, payload(30_000))
    discard = bench.connect(9)
    assert discard.send(payload(1000)) == 1000
    discard.shutdown(socket.SHUT_WR)
    bench.expect_end(discard)
    chargen = bench.connect(19)
    got = bytearray()

    def step() -> bool:
        if readable(chargen):
            got.extend(chargen.recv(65536))
        return len(got) > 100_000

    bench.until(step, "the pattern")
    assert (CHARGEN * 2)[: len(got)] == got
    chargen.close()
    discard.close()
    echo.close()
    bench.until(lambda: bench.board.live == 0, "the end")
    discarded = next(record for record in bench.board.records if record.target == "discard")
    assert (discarded.received, discarded.sent, discarded.ending) == (1000, 0, "closed")


def test_ping(bench):
    """The host's side answers ICMP echo, through the host frame rings."""
    from tiptoe_driver.netinet.in_cksum import internet_checksum

    raw = bench.session.namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with raw:
        raw.setblocking(False)
        for size in (0, 1, 56, 1400):
            request = bytearray(struct.pack("!BBHHH", 8, 0, 0, 77, size) + bytes(i % 251 for i in range(size)))
            request[2:4] = internet_checksum(request).to_bytes(2)
            raw.sendto(request, (ENGINE, 0))
            bench.until(lambda: readable(raw), "the echo reply")
            reply = raw.recv(2000)[20:]
            assert reply[0] == 0 and reply[4:] == request[4:]


@pytest.mark.parametrize("seed", [1, 2])
def test_impaired_line(make_bench, payload, seed):
    from tiptoe_verif.wire.impairment import Impairment

    line = Impairment(loss=0.01, reorder=0.02, duplicate=0.01, corrupt=0.01, delay_us=500, seed=seed)
    bench = make_bench(impairment=line, seed=seed)
    listener = bench.offloaded_listener(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    bench.carry(client, server, payload(300_000), back=payload(300_000), end=True)
    assert sum(channel.lost for channel in bench.engine.channels) > 0
    server.close()


def test_errors_have_their_errno(bench):
    from tiptoe_driver import Socket

    sock = Socket(bench.engine.stack)
    sock.setblocking(False)
    assert sock.connect_ex((KERNEL, 4444)) == errno.EINPROGRESS
    bench.until(sock.writable, "the refusal")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    sock.close()
