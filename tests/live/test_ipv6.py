"""TCP over IPv6 against the Linux kernel's: neighbour discovery both ways, both opens, data, the end; and its ping."""

import socket

import pytest

from tests.configs import EVERYTHING
from tests.live.conftest import readable, writable
from tiptoe_driver import Socket
from tiptoe_driver.sockets import SO_NO_OFFLOAD

pytestmark = pytest.mark.tap
OURS, KERNELS = "fd77::2", "fd77::1"


@pytest.fixture
def bench(make_bench):
    return make_bench(config=EVERYTHING, ip6=OURS, host_ip6=KERNELS)


def kernel_socket(bench):
    made = bench.session.namespace.socket(socket.AF_INET6)
    made.setblocking(False)
    bench._sockets.append(made)
    return made


def offloaded(bench):
    made = Socket(bench.engine.stack, family=socket.AF_INET6)
    made.setblocking(False)
    return made


def connected_by_the_kernel(bench, listener):
    """Port 80: (the kernel's socket, the one accepted)."""
    listener.bind(("", 80))
    listener.listen()
    bench.for_s(0.01)
    client = kernel_socket(bench)
    client.connect_ex((OURS, 80))
    bench.until(lambda: writable(client), "the kernel's connection")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    server = bench.offloaded_accept(listener)
    return client, server


def test_passive_open_data_both_ways_and_close_by_the_peer(bench, payload):
    listener = offloaded(bench)
    client, server = connected_by_the_kernel(bench, listener)
    assert server.getpeername()[0] == KERNELS == client.getsockname()[0]
    bench.carry(client, server, payload(50_000), back=payload(70_000))
    bench.carry(client, server, b"", end=True)
    bench.carry(server, client, payload(10_000), end=True)
    server.close()
    listener.close()
    assert any(len(segment.payload) == 1440 - 12 for segment in bench.segments()), "full segments, with timestamps"


def test_active_open_data_both_ways_and_close_by_us(bench, payload):
    listener = kernel_socket(bench)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((KERNELS, 8000))
    listener.listen(5)
    client = offloaded(bench)
    client.connect_ex((KERNELS, 8000))
    bench.until(client.writable, "the offloaded connection")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    bench.until(lambda: readable(listener), "a connection to accept")
    server, name = listener.accept()
    server.setblocking(False)
    bench._sockets.append(server)
    assert name[0] == OURS
    bench.carry(client, server, payload(70_000), back=payload(50_000))
    bench.carry(client, server, payload(3), end=True)
    bench.carry(server, client, payload(10_000), end=True)
    client.close()


def test_nobody_listens(bench):
    """The engine resets the kernel's SYN, and the kernel ours."""
    client = kernel_socket(bench)
    client.connect_ex((OURS, 81))
    bench.until(lambda: writable(client), "the refusal")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 111
    ours = offloaded(bench)
    ours.connect_ex((KERNELS, 81))
    bench.until(ours.writable, "the kernel's refusal")
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 111


def test_ping(bench):
    """An echo by a socket of the kernel's own, which checks what comes back."""
    ping = bench.session.namespace.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    ping.setblocking(False)
    with ping:
        ping.connect((OURS, 0))
        ping.send(bytes([128, 0, 0, 0, 0, 7, 0, 9]) + b"hello")
        answers = []

        def answered():
            while readable(ping):
                answers.append(ping.recv(2000))
            return any(answer[0] == 129 and answer[4:] == bytes([0, 7, 0, 9]) + b"hello" for answer in answers)

        bench.until(answered, "the echo")


@pytest.mark.parametrize("offloaded_too", [True, False])
def test_beside_a_kernel_on_the_hosts_side(make_bench, payload, offloaded_too):
    """It answers neighbour solicitations, ping and closed ports at our address, and carries what is not offloaded."""
    bench = make_bench(config=EVERYTHING, ip6=OURS, host_ip6=KERNELS, host_stack=True)
    listener = offloaded(bench)
    if not offloaded_too:
        listener.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
    client, server = connected_by_the_kernel(bench, listener)
    assert server.getpeername()[0] == KERNELS
    bench.carry(client, server, payload(20_000), back=payload(20_000))
    assert bench.session.host.tcp.accepted == (0 if offloaded_too else 1)
    server.close()
    listener.close()
    refused = kernel_socket(bench)
    refused.connect_ex((OURS, 81))
    bench.until(lambda: writable(refused), "the refusal")
    assert refused.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 111
