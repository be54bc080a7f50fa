"""A client of the board's server, on a second simulated engine."""

from __future__ import annotations

from tiptoe_board.sim.board import SimulatedBoard
from tiptoe_verif.native.simulation import Simulation

TIMEOUT_US = 60_000
PAUSE_NS = 600_000
_STEP_NS = 20_000


def pattern(length: int) -> bytes:
    """The first bytes of what /bytes/N gives (driver/c/apps/apps.h)."""
    words = (2654435761 * n & 0xFFFFFFFF for n in range(length // 4 + 1))
    return b"".join(word.to_bytes(4, "little") for word in words)[:length]


class Client:
    """Fetches pages, one after the other; simulated time passes for both ends."""

    def __init__(self, board: SimulatedBoard, peer: Simulation, ip: str) -> None:
        self._board, self._peer, self._ip = board, peer, ip

    def get(self, path: str) -> bytes:
        """The body of the answer; the server closes behind it."""
        world, socket = self._board.world, self._peer.socket()
        end = world.now_ns + TIMEOUT_US * 1000
        request, received, over = f"GET {path} HTTP/1.0\r\n\r\n".encode(), bytearray(), False
        socket.connect_ex((self._ip, 80))
        while not over:
            assert world.now_ns < end, f"{path}: only {len(received)} bytes in {TIMEOUT_US} us"
            world.run(world.now_ns + _STEP_NS)
            try:
                if request:
                    request = request[socket.send(request) :]
                piece = socket.recv(4096)
                received += piece
                over = not piece
            except BlockingIOError:
                continue
        socket.close()
        # The board is in TIME_WAIT now. Its ids are few: the oldest comes back, which takes three commands. A SYN before that
        # would find none, and come again a simulated second later.
        world.run(world.now_ns + PAUSE_NS)
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return body
