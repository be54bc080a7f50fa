"""Socket options and TCP_INFO, on connections and before there is one."""

import select
import socket
import struct
import time

from scenarios.common import DATA, call, dial, error_of, listener, new, read_all, scenario, wait_for


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
    with new() as fresh:
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
    with new() as fresh:
        seen["fresh info"] = fresh.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0]
        seen["fresh mss"] = fresh.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return seen
