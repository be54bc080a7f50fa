"""An echo server for many clients at once: ADDRESS PORT. A program of its own, of the standard library only."""

import contextlib
import selectors
import socket
import sys


def serve(address: str, port: int) -> None:
    """Echo what comes until the client's end, then close."""
    ready = selectors.DefaultSelector()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(4096)
    listener.setblocking(False)
    ready.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in ready.select():
            if key.data is None:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    made, _ = listener.accept()
                    made.setblocking(False)
                    ready.register(made, selectors.EVENT_READ, bytearray())
            else:
                _turn(ready, key)


def _turn(ready: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    made, waiting = key.fileobj, key.data
    assert isinstance(made, socket.socket)
    try:
        if not waiting:
            data = made.recv(65536)
            if not data:
                ready.unregister(made)
                made.close()
                return
            waiting += data
        del waiting[: made.send(waiting)]
    except BlockingIOError:
        pass
    except OSError:
        ready.unregister(made)
        made.close()
        return
    ready.modify(made, selectors.EVENT_WRITE if waiting else selectors.EVENT_READ, waiting)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
