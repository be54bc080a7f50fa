"""A host's station on the simulated line, beside the bridge: frames out, the bridge's frames in, ARP."""

from __future__ import annotations

from collections.abc import Callable

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from ..address_map import BRIDGE_IP, BRIDGE_MAC
from ..etherbone import UDP_PORT
from .board import SimulatedBoard

HOST_MAC, HOST_IP = "02:00:00:00:00:99", "192.168.1.99"
_BRIDGE = BRIDGE_MAC.to_bytes(6, "big")
_UDP_PAYLOAD = 42
"""Where it begins in a frame."""


class Host:
    """A station that knows the bridge.

    Parameters
    ----------
    others : callable
        Takes (time in ns, frame) of what is not the bridge's.

    Attributes
    ----------
    frames : list of bytes
        The bridge's frames so far, but ARP requests, which are answered. Whoever uses one takes it out.
    """

    def __init__(self, board: SimulatedBoard, others: Callable[[int, bytes], None]) -> None:
        self.board, self._others = board, others
        self.bridge_mac = _BRIDGE.hex(":")
        self.frames: list[bytes] = []

    def collect(self) -> None:
        """Take what the board sent: the bridge's frames here, the others' there."""
        for time_ns, frame in self.board.take_sent():
            if frame[6:12] != _BRIDGE:
                self._others(time_ns, frame)
            elif frame[12:14] == b"\x08\x06" and Ether(frame)[ARP].op == 1:
                self.give(Ether(src=HOST_MAC, dst=self.bridge_mac) / ARP(
                    op=2, hwsrc=HOST_MAC, psrc=HOST_IP, hwdst=self.bridge_mac, pdst=BRIDGE_IP
                ))  # fmt: skip
            else:
                self.frames.append(frame)

    def give(self, packet: Ether) -> None:
        """Send a frame."""
        self.board.give(self.board.now_ns, bytes(packet))

    def give_udp(self, payload: bytes) -> None:
        """Send a datagram to the bridge's Etherbone."""
        self.give(
            Ether(src=HOST_MAC, dst=self.bridge_mac) / IP(src=HOST_IP, dst=BRIDGE_IP)
            / UDP(sport=UDP_PORT, dport=UDP_PORT, chksum=0) / Raw(payload)
        )  # fmt: skip


def udp_payload(frame: bytes) -> bytes | None:
    """What a datagram carries, padding of the frame included; None of another frame."""
    return frame[_UDP_PAYLOAD:] if frame[12:14] == b"\x08\x00" and frame[23] == 17 else None
