"""Socket calls of many kinds against the peer of test_run_programs.py; prints what came of them as JSON.

The test runs it on the kernel's TCP and on the engine and compares. Usage: calls.py HOST PORT [SCENARIO...]
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

HOST, PORT = sys.argv[1], int(sys.argv[2])
DATA = bytes(range(256)) * 400
SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def error_of(function, *arguments):
    """Name of the errno a call ends with, or its result."""
    try:
        result = function(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok" if result is None else result if isinstance(result, int | str) else "ok"


def dial(command, timeout=30):
    made = socket.create_connection((HOST, PORT), timeout)
    made.sendall(command.encode() + b"\n")
    return made


def read_all(made):
    parts = []
    while part := made.recv(65536):
        parts.append(part)
    return b"".join(parts)


def digest(data):
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"


def last_ending():
    with dial("last") as made:
        return read_all(made).decode()


def poll_of(made, interest=select.POLLIN | select.POLLOUT | select.POLLRDHUP, wait=0):
    poll = select.poll()
    poll.register(made, interest)
    return sorted(
        name
        for _, mask in poll.poll(wait)
        for name in dir(select)
        if name in ("POLLIN", "POLLOUT", "POLLRDHUP", "POLLHUP", "POLLERR") and mask & getattr(select, name)
    )


def wait_for(made, event, seconds=20):
    """Until ``event`` itself is there: POLLHUP and POLLERR may come a moment before it."""
    poll = select.poll()
    poll.register(made, event)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(mask & event for _, mask in poll.poll(seconds * 1000)):
            return True
    return False


def closed_port():
    with socket.socket() as probe, dial("closedport") as made:
        del probe
        return int(read_all(made))


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
    with socket.socket() as made:
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
    with socket.socket() as made:
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
    with socket.socket() as made:
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


@scenario
def dup_and_fork():
    with dial("sink") as made:
        copy = made.dup()
        made.sendall(b"parent ")
        child = os.fork()
        if child == 0:
            made.close()
            time.sleep(0.2)
            copy.sendall(b"child")
            os._exit(0)
        os.waitpid(child, 0)
        made.sendall(b" parent again")
        names = [
            copy.getpeername() == made.getpeername(),
            os.fstat(copy.fileno()).st_ino == os.fstat(made.fileno()).st_ino,
        ]
        made.close()
        copy.shutdown(socket.SHUT_WR)
        with copy:
            return [*names, read_all(copy).decode()]


@scenario
def exec_keeps_the_socket():
    with dial("echo") as made:
        os.set_inheritable(made.fileno(), True)
        code = (
            "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); print(s.family.name, s.type.name, "
            "s.getpeername()[1], s.getsockopt(6, 1), s.send(b'exec'))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code, str(made.fileno())],
            close_fds=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return [result.stdout.replace(str(PORT), "PORT"), result.stderr, made.recv(10).decode()]


@scenario
def lowest_descriptor():
    with socket.socket() as first:
        number = first.fileno()
    with socket.socket() as second:
        inheritable = os.get_inheritable(second.fileno())
        return [number == second.fileno(), inheritable]


@scenario
def sendfile():
    with tempfile.TemporaryFile() as file, dial("sink") as made:
        file.write(DATA)
        file.flush()
        made.settimeout(None)
        offset = 0
        while offset < len(DATA):
            offset += os.sendfile(made.fileno(), file.fileno(), offset, len(DATA) - offset)
        made.shutdown(socket.SHUT_WR)
        return read_all(made).decode()


@scenario
def closes_the_peer_sees():
    seen = []
    made = dial("sink")
    made.sendall(b"in order")
    made.close()
    time.sleep(0.5)
    seen.append(last_ending())
    made = dial("sink")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.close()
    time.sleep(0.5)
    seen.append(last_ending())
    made = dial("greet")
    wait_for(made, select.POLLIN)
    made.close()  # with data unread
    time.sleep(0.5)
    seen.append(last_ending())
    child = os.fork()
    if child == 0:
        made = dial("sink")
        made.sendall(b"died")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    time.sleep(0.5)
    seen.append(last_ending())
    return seen


def listener(backlog=8):
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("", 0))
    made.listen(backlog)
    return made


def call(port):
    """Have the peer connect to us."""
    return dial(f"call {port}")


@scenario
def accepting():
    with listener() as made:
        port = made.getsockname()[1]
        seen = [made.getsockname()[0], made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
        made.setblocking(False)
        seen.append(error_of(made.accept))
        with call(port) as control:
            seen.append(wait_for(made, select.POLLIN))
            connection, address = made.accept()
            with connection:
                connection.settimeout(20)
                seen += [
                    address[0] == HOST,
                    address == connection.getpeername(),
                    connection.getsockname()[1] == port,
                ]
                seen += [connection.getblocking(), os.get_inheritable(connection.fileno())]
                seen.append(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
                seen.append(connection.recv(100).decode())
                connection.sendall(b"welcome")
            seen.append(read_all(control).decode())
        seen.append(error_of(made.accept))
    with call(port) as control:  # nobody listens any more
        seen.append(read_all(control).decode())
    return seen


@scenario
def accept_in_two_processes():
    with listener() as made:
        port = made.getsockname()[1]
        children = []
        for number in range(2):
            child = os.fork()
            if child == 0:
                connection, _ = made.accept()
                connection.recv(100)
                connection.sendall(b"from a child")
                connection.close()
                os._exit(0)
            children.append(child)
            del number
        calls = [call(port) for _ in range(2)]
        answers = [read_all(control).decode() for control in calls]
        statuses = [os.waitpid(child, 0)[1] for child in children]
        return [answers, statuses]


@scenario
def fork_after_accept():
    with listener() as made:
        with call(made.getsockname()[1]) as control:
            connection, _ = made.accept()
            child = os.fork()
            if child == 0:
                made.close()
                connection.recv(100)
                connection.sendall(b"the child serves")
                os._exit(0)
            connection.close()
            answer = read_all(control).decode()
        return [answer, os.waitpid(child, 0)[1]]


@scenario
def accept_blocks_until_shutdown():
    with listener() as made:
        result = []
        waiting = threading.Thread(target=lambda: result.append(error_of(made.accept)), daemon=True)
        waiting.start()
        time.sleep(0.2)
        made.shutdown(socket.SHUT_RDWR)
        waiting.join(10)
        return result


def info_of(made):
    """What must be so of a connection that has carried DATA and three bytes there and back, from struct tcp_info."""
    raw = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    words = struct.unpack_from("24I", raw, 8)
    acked, received = struct.unpack_from("2Q", raw, 120)
    return {
        "state": raw[0], "mss": words[2] > 500, "rto": 0 < words[0] < 60_000_000, "unacked": words[4],
        "rtt": 0 < words[15] < 10_000_000, "rttvar": words[16] < 10_000_000, "ssthresh": words[17] > 0,
        "cwnd": 1 < words[18] < 100_000, "rcv_space": words[22] > 0, "total_retrans": words[23] < 100,
        # Linux counts the SYN, and what dial has said.
        "bytes": [0 <= acked - len(DATA) < 20, received == len(DATA) + 3],
    }  # fmt: skip


def made_option(made, level, name, value):
    return [error_of(made.setsockopt, level, name, value), made.getsockopt(level, name)]


def congestion_of(made):
    level, name = socket.IPPROTO_TCP, socket.TCP_CONGESTION
    seen = [bool(made.getsockopt(level, name, 16).rstrip(b"\0"))]
    for value in (b"reno", b"nosuch", b"\0", b"reno\0\0junk", b"RENO"):
        seen += [error_of(made.setsockopt, level, name, value), made.getsockopt(level, name, 16).rstrip(b"\0").decode()]
    return seen


@scenario
def options_of_a_live_connection():
    with dial("echo") as made:
        seen = [made_option(made, socket.IPPROTO_IP, socket.IP_TOS, value) for value in (0xB8, 0, 0x13)]
        seen += [made_option(made, socket.IPPROTO_IP, socket.IP_TTL, value) for value in (64, 0, 5)]
        seen += congestion_of(made)
        seen += [
            error_of(made.setsockopt, socket.IPPROTO_TCP, socket.TCP_MAXSEG, value) for value in (600, 1400, 87, 40000)
        ]
        time.sleep(0.5)  # data does not wait for the commands before it (docs/driver.md)
        made.sendall(b"on")
        seen.append(made.recv(10).decode())
    return seen


@scenario
def options_of_accepted_connections():
    with listener() as made:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x28)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 77)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        with call(made.getsockname()[1]) as control:
            connection, _ = made.accept()
            with connection:
                connection.recv(100)
                time.sleep(0.5)  # as above
                connection.sendall(b"taken")
                seen = [
                    connection.getsockopt(socket.IPPROTO_IP, socket.IP_TOS),
                    connection.getsockopt(socket.IPPROTO_IP, socket.IP_TTL),
                    connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode(),
                    connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0],
                ]
            seen.append(read_all(control).decode())
    return seen


@scenario
def options():
    seen = {}
    with dial("echo") as made:
        for level, name, value in (
            (socket.SOL_SOCKET, "SO_REUSEADDR", 1), (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
            (socket.SOL_SOCKET, "SO_OOBINLINE", 1), (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
            (socket.IPPROTO_TCP, "TCP_CORK", 0), (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60),
            (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10), (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
            (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 5000), (socket.IPPROTO_IP, "IP_TOS", 16),
            (socket.SOL_SOCKET, "SO_SNDBUF", 20000), (socket.SOL_SOCKET, "SO_RCVBUF", 20000),
            (socket.SOL_SOCKET, "SO_TYPE", None), (socket.SOL_SOCKET, "SO_DOMAIN", None),
            (socket.SOL_SOCKET, "SO_PROTOCOL", None), (socket.SOL_SOCKET, "SO_ERROR", None),
            (socket.SOL_SOCKET, "SO_ACCEPTCONN", None), (socket.IPPROTO_IP, "IP_TTL", None),
        ):  # fmt: skip
            number = getattr(socket, name)
            result = [error_of(made.setsockopt, level, number, value)] if value is not None else []
            seen[name] = [*result, made.getsockopt(level, number)]
        seen["linger"] = struct.unpack("ii", made.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
        seen["linger set"] = struct.unpack("ii", made.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        made.sendall(DATA)
        for number in range(3):
            made.sendall(b"%d" % number)
            wait_for(made, select.POLLIN)
        left = len(DATA) + 3
        while left:
            left -= len(made.recv(left))
        time.sleep(0.3)
        seen["info"] = info_of(made)
        seen["cut"] = len(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 20))
        seen["mss"] = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > 500
        seen["unknown"] = error_of(made.setsockopt, socket.IPPROTO_TCP, 250, 1)
        seen["unknown get"] = error_of(made.getsockopt, socket.IPPROTO_TCP, 250)
        seen["short"] = error_of(made.setsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE, b"1")
    with socket.socket() as fresh:
        seen["fresh ttl"] = [
            made_option(fresh, socket.IPPROTO_IP, socket.IP_TTL, value) for value in (0, 256, 300, 33, -1, 200)
        ]
        seen["fresh tos"] = [
            made_option(fresh, socket.IPPROTO_IP, socket.IP_TOS, value) for value in (255, 256 + 16, 0)
        ]
        seen["fresh maxseg"] = [
            made_option(fresh, socket.IPPROTO_TCP, socket.TCP_MAXSEG, value) for value in (40, 40000, 0, 700)
        ]
        seen["fresh congestion"] = congestion_of(fresh)
        fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 0)
    with socket.socket() as fresh:
        seen["fresh info"] = fresh.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0]
        seen["fresh mss"] = fresh.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return seen


@scenario
def wrong_calls():
    seen = []
    with socket.socket() as made:
        seen.append(error_of(made.connect, ("127.0.0.1", closed_port())))
        seen.append(made.getsockname()[0])
        seen.append(error_of(made.getpeername))
        seen.append(error_of(made.accept))
        seen.append(error_of(made.bind, ("192.0.2.77", 0)))
        made.bind(("", 0))
        seen.append(error_of(made.bind, ("", 0)))
        with socket.socket() as other:
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
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as made:
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
        with socket.create_connection(("127.0.0.1", port), 20) as made:
            connection, address = server.accept()
            with connection:
                seen = [address == made.getsockname(), connection.getpeername() == address]
                seen += [
                    made.getpeername() == ("127.0.0.1", port),
                    connection.getsockname() == ("127.0.0.1", port),
                ]
                connection.sendall(b"near")
                seen += [made.recv(100).decode(), made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.send(b"unread")
                time.sleep(0.2)
            seen.append(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    with socket.socket() as made:
        seen.append(error_of(made.connect, ("127.0.0.1", port)))
    return seen


@scenario
def reuse_port():
    made = [socket.socket() for _ in range(2)]
    for one in made:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("", made[0].getsockname()[1]))
        one.listen()
    port = made[0].getsockname()[1]
    with socket.socket() as other:
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
    with socket.socket() as made:
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
def dual_stack():
    with socket.socket(socket.AF_INET6) as made:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.settimeout(20)
        made.connect((f"::ffff:{HOST}", PORT))
        made.sendall(b"echo\nsix")
        seen = [made.recv(10).decode(), made.getpeername()[0] == f"::ffff:{HOST}", made.family.name]
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        seen.append(server.getsockname()[0])
        with call(server.getsockname()[1]) as control:
            connection, address = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"six again")
            seen += [address[0] == f"::ffff:{HOST}", read_all(control).decode()]
    return seen


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
        with socket.socket() as other:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(9), socket.inet_aton(silent))
            result = libc.connect(other.fileno(), address, len(address))
            seen += [result, errno.errorcode.get(ctypes.get_errno())]
            other.setblocking(False)
            seen.append(errno.errorcode.get(other.connect_ex((silent, 9))))
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300_000))
            seen.append(errno.errorcode.get(other.connect_ex((silent, 9))))
    return seen


def main():
    signal.alarm(240)
    for name in sys.argv[3:] or SCENARIOS:
        try:
            result = SCENARIOS[name]()
        except Exception as error:  # the comparison shows it
            result = f"{type(error).__name__}: {error}"
        print(json.dumps([name, result]), flush=True)


main()
