"""The host's ordinary network interface on the engine: frames of no offloaded connection, both ways.

ARP, neighbour discovery and the ICMP messages that concern us are dealt with here; every other frame goes to ``input_hook``. A
whole stack of another kind may own the interface instead: every frame goes to ``owner``, which answers for the addresses; the
driver then only listens to ARP, to neighbour discovery and to ICMP errors about offloaded connections, and answers for
connections in TIME_WAIT.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..hardware import abi_gen as abi
from ..hardware.alias import on_v6
from ..hardware.engine import Engine
from ..hardware.options import ETHERNET_BYTES
from ..netinet.arp import ETHERTYPE_ARP, ArpTable
from ..netinet.icmp import IcmpInput
from ..netinet.icmp6 import Icmp6Input
from ..netinet.if_var import ifnet
from ..netinet.in6 import ETHERTYPE_IPV6
from ..netinet.nd6 import NdTable
from ..netinet.pcbinfo import FourTuple
from ..netinet.stack import Stack
from ..netinet.tcp_input import TcpInput

ETHERTYPE_IPV4 = 0x0800


class HostInterface:
    """Frames in and out of the host.

    Parameters
    ----------
    neighbour_changed : callable
        Told when a known neighbour has another MAC address: IP, MAC.
    on_device : callable
        Whether the device has a connection of a four-tuple.

    Attributes
    ----------
    input_hook : callable or None
        Gets every received frame that is neither ARP nor an ICMP message for us (icmp.py) nor of a connection in TIME_WAIT;
        returns whether it took it.
    owner : callable or None
        A stack with our addresses that answers ARP and ICMP echo: it gets every received frame but ICMP errors about
        offloaded connections and segments of those in TIME_WAIT, and has the last word on it.
    capture : callable or None
        Sees every frame: True for received, and the frame.
    """

    QUEUE_LIMIT = 256
    """Frames that may wait for a buffer or for room in the command ring."""

    def __init__(
        self,
        stack: Stack,
        engine: Engine,
        ifp: ifnet,
        neighbour_changed: Callable[[int, int], None],
        on_device: Callable[[FourTuple], bool],
    ) -> None:
        self._engine = engine
        self._ifp = ifp
        self._counters = engine.counters
        self.input_hook: Callable[[bytes], bool] | None = None
        self.owner: Callable[[bytes], None] | None = None
        self.capture: Callable[[bool, bytes], None] | None = None
        self._queue: deque[bytes] = deque()
        buffers, size = engine.options.frame_buffers, engine.capabilities.frame_slot_bytes
        block = engine.memory.allocate(buffers * size)
        self._all_buffers = [block.address + n * size for n in range(buffers)]
        self._buffers = list(self._all_buffers)
        self.arp = ArpTable(
            stack,
            ifp.if_lladdr,
            ifp.if_addr,
            self._transmit_arp,
            neighbour_changed,
            engine.options.arp_retry_us,
            engine.options.arp_tries,
            engine.options.arp_down_us,
            engine.options.arp_age_us,
        )
        self.nd = NdTable(
            stack,
            ifp.if_lladdr,
            ifp.if_addr6,
            self._transmit_ip,
            neighbour_changed,
            engine.options.arp_retry_us,
            engine.options.arp_tries,
            engine.options.arp_down_us,
            engine.options.arp_age_us,
        )
        self._icmp = IcmpInput(stack, ifp, engine.counters, self._transmit_ip)
        self._icmp6 = Icmp6Input(stack, ifp, self.nd, engine.counters, self._transmit_ip)
        self._tcp = TcpInput(
            stack, ifp, engine.counters, self._transmit_ip, on_device, resets=lambda: engine.host_answers
        )

    # ------------------------------------------------------------------ out

    def transmit(self, frame: bytes) -> bool:
        """Send a whole Ethernet frame without FCS (it is padded to 60 bytes); whether it was taken."""
        if not ETHERNET_BYTES <= len(frame) <= self._engine.capabilities.max_frame_bytes:
            self._counters["frames_bad_length"] += 1
            return False
        if len(self._queue) >= self.QUEUE_LIMIT or not self._engine.running:
            self._counters["frames_dropped"] += 1
            return False
        self._queue.append(frame.ljust(60, b"\0"))
        self.flush()
        return True

    @property
    def room(self) -> int:
        """Frames that ``transmit`` takes now."""
        return self.QUEUE_LIMIT - len(self._queue)

    def flush(self) -> None:
        """Hand waiting frames to the engine as far as there are buffers and commands."""
        while self._queue and self._buffers and self._engine.commands.room(1):
            frame = self._queue.popleft()
            address = self._buffers.pop()
            self._engine.device.memory[address : address + len(frame)] = frame
            if self.capture is not None:
                self.capture(False, frame)

            def done(status: int, argument: int, address: int = address) -> None:
                self._buffers.append(address)

            self._engine.commands.post(
                abi.pack_send_frame(self._engine.commands.tag(done), addr=address, length=len(frame))
            )

    def stop(self) -> None:
        """The engine is off: frames that wait are dropped, all buffers are ours again. Neighbours stay known."""
        self.arp.stop()
        self.nd.stop()
        self._counters["frames_dropped"] += len(self._queue)
        self._queue.clear()
        self._buffers = list(self._all_buffers)

    def _transmit_arp(self, dmac: int, packet: bytes) -> bool:
        return self.transmit(self._ethernet(dmac, ETHERTYPE_ARP) + packet)

    def _transmit_ip(self, dmac: int, packet: bytes) -> bool:
        ethertype = ETHERTYPE_IPV6 if packet[0] >> 4 == 6 else ETHERTYPE_IPV4
        return self.transmit(self._ethernet(dmac, ethertype) + packet)

    def neighbours(self, address: int) -> ArpTable:
        """Who knows the neighbours of this version of IP."""
        return self.nd if on_v6(address) else self.arp

    def announce(self) -> None:
        """Tell everybody our addresses."""
        self.arp.announce()
        if self._ifp.if_addr6:
            self.nd.announce()

    def _ethernet(self, dmac: int, ethertype: int) -> bytes:
        return dmac.to_bytes(6) + self._ifp.if_lladdr.to_bytes(6) + ethertype.to_bytes(2)

    # ------------------------------------------------------------------ in

    def input(self, frame: memoryview) -> None:
        """A frame came; ``frame`` is valid until the return."""
        if self.capture is not None:
            self.capture(True, bytes(frame))
        ethertype = int.from_bytes(frame[12:14])
        if ethertype == ETHERTYPE_ARP:
            if not self.arp.input(frame[14:], answer=self.owner is None):
                self._counters["frames_bad_arp"] += 1
            if self.owner is None:
                return
        if ethertype == ETHERTYPE_IPV4 and self._icmp.input(frame, answer=self.owner is None):
            return
        ipv6 = ethertype == ETHERTYPE_IPV6 and self._ifp.if_addr6
        if ipv6 and self._icmp6.input(frame, answer=self.owner is None):
            return
        segment = None
        if ipv6 or ethertype == ETHERTYPE_IPV4:
            segment = self._tcp.parse(frame, owned=self.owner is not None)
        if segment is not None and self._tcp.in_time_wait(segment):
            return
        if self._taken(bytes(frame)):
            if segment is not None:
                self._tcp.taken(segment)
        elif segment is not None:
            self._tcp.unknown(segment)
        else:
            self._counters["frames_unclaimed"] += 1

    def _taken(self, frame: bytes) -> bool:
        """Whether another stack has taken the frame."""
        if self.owner is not None:
            self.owner(frame)
            return True
        return self.input_hook is not None and self.input_hook(frame)
