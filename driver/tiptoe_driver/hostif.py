"""The host's ordinary network interface on the engine: frames of no offloaded connection, both ways.

Answers ARP and ICMP echo (RFC 792) itself; every other frame goes to ``input_hook``. A whole stack of another kind may own
the interface instead: every frame goes to ``owner``, which answers for the address; the driver only listens to ARP then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from . import abi_gen as abi
from .arp import ETHERTYPE_ARP, ArpTable
from .engine import Engine
from .stack import Stack
from .structures import ifnet

ETHERTYPE_IPV4 = 0x0800
IPPROTO_ICMP = 1
ICMP_ECHO_REPLY = 0
ICMP_ECHO = 8


def internet_checksum(data: bytes | bytearray | memoryview) -> int:
    """RFC 1071 checksum; 0 over data that includes a right one."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    # 2**16 is 1 modulo 2**16 - 1, so the whole number's remainder is the ones' complement sum.
    total = int.from_bytes(data) % 0xFFFF
    if total == 0 and any(data):
        total = 0xFFFF
    return total ^ 0xFFFF


class HostInterface:
    """Frames in and out of the host.

    Parameters
    ----------
    neighbour_changed : callable
        Told when a known neighbour has another MAC address: IP, MAC.

    Attributes
    ----------
    input_hook : callable or None
        Gets every received frame that is neither ARP nor ICMP echo for us; returns whether it took the frame.
    owner : callable or None
        Gets every received frame, and has the last word on it: a stack with our addresses that answers ARP and ICMP echo.
    capture : callable or None
        Sees every frame: True for received, and the frame.
    """

    QUEUE_LIMIT = 256
    """Frames that may wait for a buffer or for room in the command ring."""

    def __init__(self, stack: Stack, engine: Engine, ifp: ifnet,
                 neighbour_changed: Callable[[int, int], None]) -> None:
        self._engine = engine
        self._ifp = ifp
        self._counters = engine.counters
        self.input_hook: Callable[[bytes], bool] | None = None
        self.owner: Callable[[bytes], None] | None = None
        self.capture: Callable[[bool, bytes], None] | None = None
        self._queue: deque[bytes] = deque()
        block = engine.memory.allocate(engine.options.frame_buffers * abi.HOST_FRAME_SLOT_BYTES)
        self._buffers = [block.address + n * abi.HOST_FRAME_SLOT_BYTES for n in range(engine.options.frame_buffers)]
        self.arp = ArpTable(stack, ifp.if_lladdr, ifp.if_addr, self._transmit_arp, neighbour_changed,
                            engine.options.arp_retry_us, engine.options.arp_tries)

    # ------------------------------------------------------------------ out

    def transmit(self, frame: bytes) -> bool:
        """Send a whole Ethernet frame without FCS (it is padded to 60 bytes); whether it was taken."""
        if not 14 <= len(frame) <= min(self._engine.capabilities.max_frame_bytes, abi.HOST_FRAME_SLOT_BYTES):
            self._counters["frames_bad_length"] += 1
            return False
        if len(self._queue) >= self.QUEUE_LIMIT:
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
            self._engine.device.memory[address:address + len(frame)] = frame
            if self.capture is not None:
                self.capture(False, frame)

            def done(status: int, argument: int, address: int = address) -> None:
                self._buffers.append(address)

            self._engine.commands.post(abi.pack_send_frame(
                self._engine.commands.tag(done), addr=address, length=len(frame)))

    def _transmit_arp(self, dmac: int, packet: bytes) -> bool:
        return self.transmit(self._ethernet(dmac, ETHERTYPE_ARP) + packet)

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
        if self.owner is not None:
            self.owner(bytes(frame))
            return
        if ethertype == ETHERTYPE_IPV4 and self._echo(frame):
            return
        if self.input_hook is None or not self.input_hook(bytes(frame)):
            self._counters["frames_unclaimed"] += 1

    def _echo(self, frame: memoryview) -> bool:
        """Answer an ICMP echo request for us; whether the frame was one (sound or not)."""
        packet = frame[14:]
        if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != IPPROTO_ICMP:
            return False
        header = (packet[0] & 0xF) * 4
        total = int.from_bytes(packet[2:4])
        fragment = int.from_bytes(packet[6:8]) & 0x3FFF
        if header < 20 or total < header + 8 or total > len(packet) or fragment:
            return False
        icmp = packet[header:total]
        if int.from_bytes(packet[16:20]) != self._ifp.if_addr or icmp[0] != ICMP_ECHO:
            return False
        source = int.from_bytes(packet[12:16])
        if (internet_checksum(packet[:header]) or internet_checksum(icmp) or source >> 28 >= 0xE or not source
                or frame[6] & 1):
            self._counters["frames_bad_icmp"] += 1
            return True
        reply = bytearray(icmp)
        reply[0] = ICMP_ECHO_REPLY
        reply[2:4] = b"\0\0"
        reply[2:4] = internet_checksum(reply).to_bytes(2)
        ip = bytearray(packet[:20])  # the request's options are not sent back
        ip[0] = 0x45
        ip[2:4] = (20 + len(reply)).to_bytes(2)
        ip[6:8] = b"\0\0"
        ip[8] = 64
        ip[10:12] = b"\0\0"
        ip[12:16], ip[16:20] = packet[16:20], packet[12:16]
        ip[10:12] = internet_checksum(ip).to_bytes(2)
        self.transmit(self._ethernet(int.from_bytes(frame[6:12]), ETHERTYPE_IPV4) + ip + reply)
        return True
