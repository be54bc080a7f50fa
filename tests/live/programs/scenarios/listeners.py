"""Listening sockets: accepting, in two processes, before a fork, until a shutdown."""

import os
import select
import socket
import threading
import time

from scenarios.common import HOST, call, error_of, listener, read_all, scenario, wait_for


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
