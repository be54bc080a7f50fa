"""Sockets of AF_INET6 that speak both versions of IP, and the options they have for it."""

import contextlib
import os
import socket

from scenarios.common import FAMILY, HOST, PORT, error_of, read_all, scenario

HOST4 = os.environ.get("HOST4", "127.0.0.1") if FAMILY == socket.AF_INET6 else HOST
HOST6 = os.environ.get("HOST6", "::1")
HOSTS = (HOST4, HOST6) if FAMILY == socket.AF_INET6 else (HOST4,)
"""The peer's addresses; of IPv6 where that is asked for."""
IPV6 = socket.IPPROTO_IPV6
V6ONLY, TCLASS, HOPS = socket.IPV6_V6ONLY, socket.IPV6_TCLASS, socket.IPV6_UNICAST_HOPS
MTU_DISCOVER, RECVERR = 23, 25


def serve(host="::", port=0, v6only=None, family=socket.AF_INET6):
    made = socket.socket(family)
    made.settimeout(20)
    if v6only is not None:
        made.setsockopt(IPV6, V6ONLY, v6only)
    made.bind((host, port))
    made.listen(8)
    return made


def call(host, port):
    """Have the peer connect to us over this version."""
    made = socket.create_connection((host, PORT), 30)
    made.sendall(f"call {port}\n".encode())
    return made


def take(server, host):
    """What the peer calls, and who each end says it is."""
    with call(host, server.getsockname()[1]) as control:
        connection, address = server.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"taken")
            seen = [connection.getpeername() == address, address[0] == named(host), address[2:]]
            seen += [connection.family.name, connection.getsockname()[1] == server.getsockname()[1]]
            seen += [connection.getsockopt(IPV6, V6ONLY), ":ffff:" in connection.getsockname()[0]]
        seen.append(read_all(control).decode())
    return seen


def named(host):
    return host if ":" in host else f"::ffff:{host}"


@scenario
def dual_stack():
    seen = []
    for host in HOSTS:
        with socket.socket(socket.AF_INET6) as made:
            made.settimeout(20)
            made.connect((named(host), PORT))
            made.sendall(b"echo\nsix")
            seen += [made.recv(10).decode(), made.getpeername()[0] == named(host), made.family.name]
    with serve() as server:
        seen.append(server.getsockname()[0])
        seen += [take(server, host) for host in (*HOSTS, HOST4)]
    return seen


@scenario
def one_version_only():
    """A port of IPv6 alone is none of IPv4, and the other way round."""
    if len(HOSTS) < 2:
        return []
    with serve(v6only=1) as six:
        port = six.getsockname()[1]
        seen = [take(six, HOST6)]
        with call(HOST4, port) as control:
            seen.append(read_all(control).decode())
        with serve("0.0.0.0", port, family=socket.AF_INET):
            seen.append(take(six, HOST6))
        with socket.socket(socket.AF_INET6) as made:
            made.setsockopt(IPV6, V6ONLY, 1)
            seen += [error_of(made.connect, (named(HOST4), PORT)), error_of(made.bind, (named("0.0.0.0"), 0))]
    with serve(named("0.0.0.0")) as four:
        port = four.getsockname()[1]
        seen += [four.getsockname()[0], take(four, HOST4)]
        with call(HOST6, port) as control:
            seen.append(read_all(control).decode())
    with serve() as both, socket.socket() as other, socket.socket(socket.AF_INET6) as another:
        port = both.getsockname()[1]
        seen += [error_of(other.bind, ("", port)), error_of(another.bind, ("::", port))]
        another.setsockopt(IPV6, V6ONLY, 1)
        seen.append(error_of(another.bind, ("::", port)))
    return seen


@scenario
def near_both_versions():
    """Programs of one host, each over the version it likes."""
    seen = []
    with serve() as server:
        port = server.getsockname()[1]
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::"),
                             (socket.AF_INET6, "::ffff:127.0.0.1")):  # fmt: skip
            with socket.socket(family) as made:
                made.connect((host, port))
                connection, address = server.accept()
                with connection:
                    seen += [
                        made.getpeername()[0],
                        address[0],
                        connection.getsockname()[0],
                        address[1] == made.getsockname()[1],
                    ]
                    connection.sendall(b"near")
                    seen.append(made.recv(10).decode())
    with serve(v6only=1) as server, socket.socket() as made, contextlib.suppress(OSError):
        port = server.getsockname()[1]
        seen.append(error_of(made.connect, ("127.0.0.1", port)))
    return seen


@scenario
def options_of_both_versions():
    wanted = (V6ONLY, TCLASS, HOPS, MTU_DISCOVER, RECVERR)

    def all_of(made):
        return [made.getsockopt(IPV6, name) for name in wanted] + [
            made.getsockopt(socket.IPPROTO_IP, name) for name in (socket.IP_TOS, socket.IP_TTL)
        ]

    with socket.socket(socket.AF_INET6) as made:
        seen = [all_of(made)]
        for name, value in ((TCLASS, 0x2C), (TCLASS, 256), (TCLASS, -2), (HOPS, 9), (HOPS, 256), (HOPS, -2), (MTU_DISCOVER, 2),
                            (RECVERR, 1), (V6ONLY, 1), (V6ONLY, 0)):  # fmt: skip
            seen.append(error_of(made.setsockopt, IPV6, name, value))
        seen.append(error_of(made.setsockopt, socket.IPPROTO_IP, socket.IP_TOS, 0x10))
        seen.append(error_of(made.setsockopt, IPV6, TCLASS, b"\1"))
        seen.append(all_of(made))
        made.bind(("::", 0))
        made.settimeout(20)
        made.listen(2)
        seen += [error_of(made.setsockopt, IPV6, V6ONLY, 1), error_of(made.setsockopt, IPV6, V6ONLY, 0)]
        for host in HOSTS:
            with call(host, made.getsockname()[1]) as control:
                connection, _ = made.accept()
                with connection:
                    seen += [all_of(connection), connection.recv(100).decode()]
                    connection.sendall(b"marked")
                    connection.shutdown(socket.SHUT_WR)
                    seen.append(read_all(control).decode())  # it has arrived
                    seen.append(error_of(connection.setsockopt, IPV6, HOPS, -1))
                    seen.append(error_of(connection.setsockopt, IPV6, TCLASS, -1))
                    seen.append(all_of(connection))
    with socket.socket() as made:
        seen += [error_of(made.getsockopt, IPV6, V6ONLY), error_of(made.setsockopt, IPV6, TCLASS, 4)]
    return seen
