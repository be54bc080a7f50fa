"""Loops of the broker, which everything of a run waits for: none goes round on an answer that stays the same."""

import errno
import socket
from collections import deque
from types import SimpleNamespace

import pytest

from tiptoe_verif.run.flow import consume
from tiptoe_verif.run.listener import Listener
from tiptoe_verif.run.options import Options


def test_consume_of_less_than_is_there():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        theirs.send(b"12345")
        consume(ours, 3)
        assert ours.recv(10) == b"45"


def test_consume_of_more_than_will_ever_come():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        theirs.send(b"12345")
        theirs.close()
        with pytest.raises(ConnectionResetError):
            consume(ours, 6)


def test_listening_socket_that_has_become_useless():
    """Its queue is not empty, and yet it gives nothing."""

    class Useless:
        so = SimpleNamespace(so_comp=deque([1]))

        def getsockname(self):
            return "0.0.0.0", 80

        def accept(self):
            raise OSError(errno.EBADF, "closed")

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        member = SimpleNamespace(listening=True, end=ours, options=Options(socket.AF_INET))
        Listener(Useless(), member).turn()
