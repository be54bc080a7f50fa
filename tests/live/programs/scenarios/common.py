"""What all scenarios share: the peer, the table they enter themselves in, and ways to look at a socket."""

import errno
import hashlib
import select
import socket
import sys
import time

HOST, PORT = sys.argv[1], int(sys.argv[2])
FAMILY = socket.AF_INET6 if ":" in HOST else socket.AF_INET
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[FAMILY]
NOBODYS = {socket.AF_INET: "192.0.2.77", socket.AF_INET6: "2001:db8::77"}[FAMILY]
"""An address for documentation."""
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


def new():
    """A socket of the version of IP that is asked for."""
    return socket.socket(FAMILY)


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
    with new() as probe, dial("closedport") as made:
        del probe
        return int(read_all(made))


def listener(backlog=8):
    made = new()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("", 0))
    made.listen(backlog)
    return made


def call(port):
    """Have the peer connect to us."""
    return dial(f"call {port}")
