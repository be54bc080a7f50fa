"""The messages of docs/seam.md in Python: all that a driver needs of the simulated engine. Standard library only."""

import socket
import struct

HELLO, READ, WRITE, LOAD, STORE, WAIT, SEND, TAKE = range(1, 9)
IRQ, FRAME = 1, 2
HEAD = struct.Struct("<IIQ")
WELCOME = struct.Struct("<QIIQQ")


class Seam:
    """A connection to ``tiptoe serve``: ``address`` is the path of its socket, or ("127.0.0.1", port).

    Attributes
    ----------
    memory_bytes : int
        Size of host memory.
    ip, peer_ip, mac, peer_mac : int
        Addresses of the engine, which the driver writes to its registers, and of who is at the other end of its line.
    """

    def __init__(self, address):
        self._socket = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
        self._socket.connect(address)
        _, told = self._ask(HELLO, 1)
        self.memory_bytes, self.ip, self.peer_ip, self.mac, self.peer_mac = WELCOME.unpack(told)

    def close(self):
        """The engine stays as it is."""
        self._socket.close()

    def read(self, register):
        """A register's value. Time passes meanwhile."""
        return self._ask(READ, register)[0]

    def write(self, register, value):
        """Write a register or doorbell: it is carried out, behind those before it, as time passes."""
        self._ask(WRITE, register, struct.pack("<I", value))

    def load(self, address, length):
        """Bytes of host memory, as the engine has written them."""
        return self._ask(LOAD, address, struct.pack("<I", length))[1]

    def store(self, address, data):
        """Write host memory: the engine sees it from the next message on."""
        self._ask(STORE, address, data)

    def wait(self, timeout_us):
        """Let time pass until the interrupt is there, or until then; (the time in microseconds, IRQ and FRAME as bits)."""
        now, bits = self._ask(WAIT, timeout_us)
        return now, int.from_bytes(bits, "little")

    def send(self, frame):
        """With --peer none: a frame for the engine."""
        self._ask(SEND, 0, frame)

    def take(self):
        """With --peer none: the engine's next frame, empty when there is none."""
        return self._ask(TAKE, 0)[1]

    def _ask(self, kind, argument, payload=b""):
        self._socket.sendall(HEAD.pack(kind, len(payload), argument) + payload)
        answered, length, result = HEAD.unpack(self._receive(HEAD.size))
        told = self._receive(length)
        if answered != kind:
            raise OSError(told.decode())
        return result, told

    def _receive(self, length):
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise ConnectionError("the simulated engine has gone")
            data += more
        return data
