"""What is around a connection: wrong calls, other sockets, near peers, threads, signals."""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct
import threading
import time

from scenarios.common import (
    FAMILY,
    HOST,
    LOOPBACK,
    NOBODYS,
    PORT,
    call,
    closed_port,
    dial,
    error_of,
    last_ending,
    listener,
    new,
    read_all,
    scenario,
)


@scenario
def wrong_calls():
    seen = []
    with new() as made:
        seen.append(error_of(made.connect, (LOOPBACK, closed_port())))
        seen.append(made.getsockname()[0])
        seen.append(error_of(made.getpeername))
        seen.append(error_of(made.accept))
        seen.append(error_of(made.bind, (NOBODYS, 0)))
        made.bind(("", 0))
        seen.append(error_of(made.bind, ("", 0)))
        with new() as other:
            seen.append(error_of(other.bind, made.getsockname()))
        made.listen()
        seen.append(error_of(made.listen, 5))
        seen.append(error_of(made.connect, (HOST, PORT)))
    with dial("echo") as made:
        seen.append(error_of(made.listen))
        seen.append(error_of(made.connect, (HOST, PORT)))
        made.settimeout(None)
        seen.append(error_of(made.accept))
    return seen


@scenario
def others_are_untouched():
    seen = []
    with socket.create_server((LOOPBACK, 0), family=FAMILY) as server, new() as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.settimeout(5)
        made.connect(server.getsockname())
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"loopback")
            seen.append(made.recv(100).decode())
        seen += [
            made.getpeername() == server.getsockname(),
            made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        ]
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.sendto(b"datagram", one.getsockname())
        seen.append(one.recv(100).decode())
    one, two = socket.socketpair()
    with one, two:
        seen += [one.getpeername(), one.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)]
    return seen


@scenario
def near_connections():
    """To a listener of the same host."""
    with listener() as server:
        port = server.getsockname()[1]
        with socket.create_connection((LOOPBACK, port), 20) as made:
            connection, address = server.accept()
            with connection:
                seen = [address == made.getsockname(), connection.getpeername() == address]
                seen += [
                    made.getpeername()[:2] == (LOOPBACK, port),
                    connection.getsockname()[:2] == (LOOPBACK, port),
                ]
                connection.sendall(b"near")
                seen += [made.recv(100).decode(), made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.send(b"unread")
                time.sleep(0.2)
            seen.append(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    with new() as made:
        seen.append(error_of(made.connect, (LOOPBACK, port)))
    return seen


@scenario
def reuse_port():
    made = [new() for _ in range(2)]
    for one in made:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("", made[0].getsockname()[1]))
        one.listen()
    port = made[0].getsockname()[1]
    with new() as other:
        seen = [error_of(other.bind, ("", port))]
    made[0].close()
    with call(port) as control:
        connection, _ = made[1].accept()
        with connection:
            connection.sendall(b"from the second")
            connection.recv(100)
        seen.append(read_all(control).decode())
    made[1].close()
    with call(port) as control:
        seen.append(read_all(control).decode())
    return seen


@scenario
def written_too_early():
    """Before connect nothing can be sent, and nothing of it appears afterwards."""
    with new() as made:
        with contextlib.suppress(OSError):
            made.send(b"too early")
        made.connect((HOST, PORT))
        made.sendall(b"sink\nin time")
        made.shutdown(socket.SHUT_WR)
        return read_all(made).decode()


@scenario
def threads():
    answers = []

    def work(number):
        with dial("echo") as made:
            made.sendall(f"{number}".encode())
            answers.append(made.recv(100).decode())

    workers = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(answers)


@scenario
def many_in_a_row():
    answers = set()
    for number in range(30):
        with dial("echo") as made:
            made.sendall(b"%d" % (number % 3))
            answers.add(made.recv(10).decode())
    return sorted(answers)


@scenario
def signals():
    """A SIGCHLD handler that closes sockets, and an interrupted connect."""
    libc = ctypes.CDLL(None, use_errno=True)
    closed = []
    made = dial("sink")

    def handler(*_):
        made.close()
        closed.append(True)

    signal.signal(signal.SIGCHLD, handler)
    child = os.fork()
    if child == 0:
        os._exit(0)
    time.sleep(0.3)
    os.waitpid(child, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    time.sleep(0.3)
    seen = [closed, last_ending()]
    # SIGALRM without SA_RESTART while nobody answers: 192.0.2.x is nobody, but of the peer's network here.
    silent = os.environ.get("SILENT_HOST")
    if silent:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.siginterrupt(signal.SIGALRM, True)
        with new() as other:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            packed = socket.inet_pton(FAMILY, silent)
            if FAMILY == socket.AF_INET6:
                address = struct.pack("=HH4x16s4x", FAMILY, socket.htons(9), packed)
            else:
                address = struct.pack("=HH4s8x", FAMILY, socket.htons(9), packed)
            result = libc.connect(other.fileno(), address, len(address))
            seen += [result, errno.errorcode.get(ctypes.get_errno())]
            other.setblocking(False)
            seen.append(errno.errorcode.get(other.connect_ex((silent, 9))))
        with new() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300_000))
            seen.append(errno.errorcode.get(other.connect_ex((silent, 9))))
    return seen
