"""One end of a connection in a test."""

from __future__ import annotations


class Transfer:
    """One end of a connection: sends all it has and its FIN, and takes all that comes."""

    def __init__(self, socket, data: bytes) -> None:
        self.socket, self.data = socket, data
        self.received = bytearray()
        self.sent, self.over, self.shut = 0, False, False

    def step(self) -> bool:
        """Move what can be moved; returns whether all is done."""
        try:
            if self.sent < len(self.data):
                self.sent += self.socket.send(self.data[self.sent : self.sent + 4096])
            elif not self.shut:
                self.socket.shutdown(1)
                self.shut = True
        except BlockingIOError:
            pass
        try:
            piece = self.socket.recv(4096)
            self.received += piece
            self.over |= not piece
        except BlockingIOError:
            pass
        return self.done

    @property
    def done(self) -> bool:
        """All sent, and the peer's end has come."""
        return self.over and self.shut
