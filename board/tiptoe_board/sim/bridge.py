"""A host on the simulated line that speaks Etherbone, frame by frame, and what it makes of the top: registers and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from ..address_map import BRIDGE_IP, status_address
from ..dram import Leveling, Tap, start_dram
from ..etherbone import LONGEST, parse_answer, read_packet, write_packet
from ..sim_ddr3 import GOOD
from .board import SimulatedBoard
from .host import HOST_IP, HOST_MAC, Host, udp_payload

_TIMEOUT_NS = 1_000_000
_OVERHEAD, _ALLOWED = 15, 500
"""Words of a write's headers, and of the writes that the bridge may have before it: its queue holds 1,023."""


class NoAnswer(TimeoutError):
    """The bridge did not answer in a simulated millisecond."""


class Bridge(Host):
    """Requests one after the other; what arrives meanwhile for others goes to ``others``.

    Parameters
    ----------
    others : callable
        Takes (time in ns, frame) of what is not the bridge's.
    """

    def __init__(self, board: SimulatedBoard, others: Callable[[int, bytes], None] | None = None) -> None:
        super().__init__(board, others or (lambda time_ns, frame: None))
        self._tag = 0
        self._unanswered = 0

    # --- frames ---

    def arp(self) -> str:
        """The bridge's MAC address, as it says."""
        self.give(
            Ether(src=HOST_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=HOST_MAC, psrc=HOST_IP, pdst=BRIDGE_IP)
        )
        return str(Ether(self._answer(lambda frame: frame[12:14] == b"\x08\x06"))[ARP].hwsrc)

    def ping(self, payload: bytes) -> bytes:
        """What comes back of a ping."""
        self.give(
            Ether(src=HOST_MAC, dst=self.bridge_mac) / IP(src=HOST_IP, dst=BRIDGE_IP) / ICMP(id=7, seq=1) / Raw(payload)
        )
        packet = Ether(self._answer(lambda frame: frame[12:14] == b"\x08\x00" and frame[23] == 1))
        return bytes(packet[ICMP].payload)[: len(payload)]

    # --- words ---

    def write(self, address: int, words: Sequence[int]) -> None:
        """Write words from ``address`` on. They are not answered: a read now and then keeps them from overrunning the bridge."""
        for at in range(0, len(words), LONGEST):
            self.give_udp(write_packet(address + 4 * at, words[at : at + LONGEST]))
            self._unanswered += _OVERHEAD + min(LONGEST, len(words) - at)
            if self._unanswered > _ALLOWED:
                self.read(status_address("build"))

    def read(self, address: int, count: int = 1) -> list[int]:
        """Read words from ``address`` on."""
        return self.read_at([address + 4 * n for n in range(count)])

    def read_at(self, addresses: list[int]) -> list[int]:
        """Read a word at each address, in this order."""
        words: list[int] = []
        while len(words) < len(addresses):
            words += self.answer(self.ask(addresses[len(words) : len(words) + LONGEST]))
        self._unanswered = 0
        return words

    def ask(self, addresses: list[int]) -> int:
        """Send a read of at most 255 words; returns what ``answer`` wants."""
        self._tag += 1
        self.give_udp(read_packet(addresses, self._tag))
        return self._tag

    def answer(self, tag: int) -> list[int]:
        """The words asked for; :exc:`NoAnswer` when they do not come."""

        def ours(frame: bytes) -> bool:
            payload = udp_payload(frame)
            return payload is not None and parse_answer(payload)[0] == tag

        return parse_answer(udp_payload(self._answer(ours)) or b"")[1]

    def _answer(self, wanted: Callable[[bytes], bool]) -> bytes:
        end = self.board.now_ns + _TIMEOUT_NS
        while self.board.now_ns < end:
            self.board.run_until_frame(end)
            self.collect()
            for frame in self.frames:
                if wanted(frame):
                    self.frames.remove(frame)
                    return frame
        raise NoAnswer(f"no answer of the bridge in {_TIMEOUT_NS // 1000} us")


def start_memory(bridge: Bridge, *, scan: bool = False) -> Leveling | None:
    """Make host memory ready: DDR3 is started, without the chip's times, which its model has not; at the delays that are right
    unless they are to be found out. None for block memory."""
    if not bridge.read(status_address("dram"))[0]:
        return None
    taps = [Tap(shift, delays[len(delays) // 2]) for shift, delays in GOOD]
    return start_dram(bridge, wait=lambda us: None, taps=None if scan else taps)
