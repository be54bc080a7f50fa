"""Connections of ours: connecting, refused, reset, half closed; readiness; ways to receive."""

import array
import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time

from scenarios.common import (
    DATA,
    HOST,
    PORT,
    closed_port,
    dial,
    digest,
    error_of,
    last_ending,
    new,
    poll_of,
    read_all,
    scenario,
    wait_for,
)


@scenario
def echo_and_names():
    with dial("echo") as made:
        got = bytearray()
        sender = threading.Thread(target=lambda: (made.sendall(DATA), made.shutdown(socket.SHUT_WR)))
        sender.start()
        got = read_all(made)
        sender.join()
        return [
            digest(got),
            made.getpeername() == (HOST, PORT),
            made.getsockname()[1] > 1024,
            made.family.name,
        ]


@scenario
def connect_nonblocking():
    with new() as made:
        made.setblocking(False)
        seen = [errno.errorcode[made.connect_ex((HOST, PORT))]]
        seen.append(wait_for(made, select.POLLOUT))
        seen.append(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        seen.append(made.connect_ex((HOST, PORT)))
        seen.append(errno.errorcode[made.connect_ex((HOST, PORT))])
        seen.append(poll_of(made))
        made.send(b"echo\nabc")
        seen.append(wait_for(made, select.POLLIN))
        seen.append(made.recv(10).decode())
        seen.append(error_of(made.recv, 10))
        return seen


@scenario
def connect_refused_nonblocking():
    port = closed_port()
    with new() as made:
        made.setblocking(False)
        seen = [errno.errorcode[made.connect_ex((HOST, port))]]
        seen.append(wait_for(made, select.POLLOUT))
        seen.append(poll_of(made, select.POLLOUT))
        seen.append(errno.errorcode[made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
        seen.append(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        seen.append(error_of(made.getpeername))
        seen.append(errno.errorcode[made.connect_ex((HOST, PORT))])
        made.settimeout(20)  # and once more with the same socket
        made.connect((HOST, PORT))
        made.sendall(b"echo\nagain")
        seen.append(made.recv(10).decode())
        return seen


@scenario
def connect_refused_blocking():
    port = closed_port()
    with new() as made:
        seen = [
            errno.errorcode[made.connect_ex((HOST, port))],
            errno.errorcode[made.connect_ex((HOST, port))],
        ]
        seen.append(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        made.connect((HOST, PORT))
        made.sendall(b"echo\nagain")
        seen.append(made.recv(10).decode())
        return seen


@scenario
def reset_by_peer():
    seen = []
    with dial("reset 5000") as made:
        time.sleep(1.0)
        seen.append(poll_of(made))
        seen.append(errno.errorcode[made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
        seen.append(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    with dial("reset 0") as made:
        seen.append(error_of(made.recv, 100))
        seen.append(error_of(made.recv, 100))
        seen.append(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    with dial("reset 0") as made:
        made.settimeout(None)
        seen.append(wait_for(made, select.POLLIN))
        seen.append(error_of(made.getpeername))
    return seen


@scenario
def fin_and_half_close():
    seen = []
    with dial("source 70000") as made:
        seen.append(digest(read_all(made)))
        seen.append(poll_of(made))
        seen.append(error_of(made.send, b"x"))  # into a connection the peer has half closed
    with dial("sink") as made:
        made.sendall(DATA)
        made.shutdown(socket.SHUT_WR)
        seen.append(read_all(made).decode())
        with contextlib.suppress(OSError):
            seen.append(poll_of(made))
        seen.append(error_of(made.send, b"x"))
    with dial("echo") as made:
        made.shutdown(socket.SHUT_RD)
        seen.append(made.recv(10).decode())
        seen.append(error_of(made.send, b"x"))
    return seen


@scenario
def both_ways_shut():
    """No close yet: what was sent arrives, and its end, not a reset."""
    seen = []
    with dial("greet") as made:
        wait_for(made, select.POLLIN)  # unread
        made.sendall(b"in order")
        made.shutdown(socket.SHUT_RDWR)
        time.sleep(0.5)
        seen.append(last_ending())
    with dial("sink") as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.sendall(b"in order")
        made.shutdown(socket.SHUT_RDWR)
        time.sleep(0.5)
        seen.append(last_ending())
    return seen


@scenario
def reset_behind_the_fin():
    """Told without a write; the end of the stream stays one."""
    with dial("end_and_reset") as made:
        poll = select.poll()
        poll.register(made, 0)
        hung = any(mask & select.POLLHUP for _, mask in poll.poll(20_000))
        return [hung, read_all(made).decode(), error_of(made.send, b"x")]


@scenario
def epoll_edges():
    with dial("echo") as made, select.epoll() as epoll:
        made.setblocking(False)
        epoll.register(made, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
        first = [mask for _, mask in epoll.poll(5)]
        second = epoll.poll(0)
        made.send(b"abcdef")
        arrived, end = 0, time.monotonic() + 20
        while not arrived & select.EPOLLIN and time.monotonic() < end:
            for _, mask in epoll.poll(1):
                arrived |= mask
        quiet = epoll.poll(0.05)  # no new edge, though there is data
        got = made.recv(3)
        level = select.select([made], [], [], 0)[0] == [made]
        got += made.recv(100)
        empty = select.select([made], [], [], 0)[0]
        made.shutdown(socket.SHUT_WR)
        ended = 0
        while not ended & select.EPOLLRDHUP and time.monotonic() < end:
            for _, mask in epoll.poll(1):
                ended |= mask
        return [
            first,
            second,
            bool(arrived & select.EPOLLIN),
            quiet,
            got.decode(),
            level,
            empty,
            bool(ended & select.EPOLLIN),
            bool(ended & select.EPOLLRDHUP),
            made.recv(1).decode(),
        ]


@scenario
def full_buffer_is_not_writable():
    with dial("wait") as made:
        made.setblocking(False)
        sent = 0
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 1.0:
            try:
                sent += made.send(bytes(65536))
                quiet_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.02)
        full = select.select([], [made], [], 0)[1]
        with dial("go") as other:
            read_all(other)
        writable = wait_for(made, select.POLLOUT)
        made.shutdown(socket.SHUT_WR)
        made.settimeout(30)
        return [sent > 100_000, full, writable, int(read_all(made)) == sent]


@scenario
def ways_to_receive():
    with dial("echo") as made:
        made.sendall(b"0123456789")
        seen = [made.recv(4, socket.MSG_PEEK).decode()]
        while len(made.recv(100, socket.MSG_PEEK)) < 10:
            time.sleep(0.01)
        room = array.array("i", [0])
        fcntl.ioctl(made, termios.FIONREAD, room)
        seen.append(room[0])
        buffers = [bytearray(3), bytearray(4)]
        seen.append(made.recvmsg_into(buffers)[0])
        seen.append(bytes(buffers[0] + buffers[1]).decode())
        made.settimeout(None)  # with a time limit Python has made the descriptor non-blocking
        made.sendmsg([b"ab", b"cd"])
        seen.append(made.recv(7, socket.MSG_WAITALL).decode())
        seen.append(error_of(made.recv, 1, socket.MSG_DONTWAIT))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200_000))
        seen.append(error_of(made.recv, 1))
        os.write(made.fileno(), b"file")
        seen.append(os.read(made.fileno(), 2).decode())
        seen.append(made.recvfrom(9)[0].decode())
        return seen
