"""Descriptors: duplicated, inherited, kept over exec, sent from a file, closed."""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

from scenarios.common import DATA, PORT, dial, last_ending, new, read_all, scenario, wait_for


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
    with new() as first:
        number = first.fileno()
    with new() as second:
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
