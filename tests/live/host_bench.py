"""A live session whose engine has a kernel on the host's side."""

import errno
import socket
import struct

from tests.live.conftest import KERNEL, Bench
from tiptoe_driver import SO_NO_OFFLOAD, Socket
from tiptoe_driver.netinet.offload import tp_offload
from tiptoe_driver.netinet.structures import sototcpcb

RESET = struct.pack("ii", 1, 0)


class HostBench(Bench):
    """A bench whose engine has a kernel on the host's side."""

    @property
    def host(self):
        return self.session.host

    @property
    def toe(self):
        return self.engine.toe

    def counters(self):
        return self.toe.engine.read_counters()

    def socket(self, *, software=False):
        """A non-blocking socket of the stack."""
        made = Socket(self.engine.stack)
        made.setblocking(False)
        if software:
            made.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
        return made

    def open(self, port, *, software=False, made=None):
        """An active open to the peer, established."""
        made = made or self.socket(software=software)
        error = made.connect_ex((KERNEL, port))
        assert error in (0, errno.EINPROGRESS)
        self.until(made.writable, "the connection")
        if error := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "connect")
        return made

    def pair(self, *, software=True, port=8000):
        """An active open of ours, and the peer's end of it."""
        listener = self.listen(port)
        ours = self.open(port, software=software)
        return ours, self.accept(listener)

    def passive(self, port, *, software=False):
        """A listening socket of the stack."""
        listener = self.socket(software=software)
        listener.bind(("", port))
        listener.listen()
        self.for_s(0.01)
        return listener

    def of_port(self, port):
        """Captured segments of the connections of a port."""
        return [segment for segment in self.segments() if port in (segment.sport, segment.dport)]


def state(made):
    return sototcpcb(made.so).t_state


def offloaded(made):
    return bool(tp_offload(sototcpcb(made.so)))
