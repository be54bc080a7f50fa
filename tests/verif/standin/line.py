"""A stand-in on a scripted device, and what its peer sends and sees, in segments of scapy."""

from __future__ import annotations

import errno
import socket

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.bench import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, Bench
from tiptoe_driver import SO_NO_OFFLOAD, Socket
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.structures import sototcpcb, tcpcb
from tiptoe_verif.standin.tcp import StandInTcp

M = 0xFFFF_FFFF
ISS, IRS = M - 2, M - 1
"""Our SYN's number and the peer's: the first bytes of data are on both sides of 0."""
PORT, OURS = 80, 5000
SECOND = 1_000_000


class Line:
    """A stand-in on a scripted device; segments come and go with numbers relative to the SYNs'."""

    def __init__(self, known: bool = True) -> None:
        self.bench = Bench(arp_age_us=0, rst_unknown=False, arp_retry_us=1000)
        if known:
            self.bench.know_peer()
        self.stack, self.device = self.bench.stack, self.bench.device
        self.tcp = StandInTcp(self.stack, self.bench.dev)
        self.tcp.isn = lambda four_tuple: ISS
        self._sent: list[bytes] = []
        self.bench.dev.hostif.capture = lambda received, frame: received or self._sent.append(frame)
        self.sock: Socket | None = None
        self.ports = OURS, PORT  # ours, the peer's

    @property
    def tp(self) -> tcpcb:
        return sototcpcb(self.sock.so)

    def socket(self) -> Socket:
        made = self.bench.socket()
        made.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
        return made

    def frame(self, flags: str, seq: int, ack: int = 0, data: bytes = b"", **fields) -> bytes:
        tcp = {"window": 8000, "sport": self.ports[1], "dport": self.ports[0], **fields}
        return bytes(
            Ether(src=PEER_MAC, dst=OUR_MAC)
            / IP(src=PEER_IP, dst=OUR_IP)
            / TCP(flags=flags, seq=(IRS + seq) & M, ack=(ISS + ack) & M if "A" in flags else 0, **tcp)
            / data
        )

    def send(self, flags: str, seq: int, ack: int = 0, data: bytes = b"", **fields) -> list[TCP]:
        """A segment comes; what goes out at once."""
        self.device.frame(self.frame(flags, seq, ack, data, **fields))
        self.stack.poll()
        return self.sent()

    def sent(self) -> list[TCP]:
        """Segments since the last call, read by scapy, their checksums by scapy too."""
        frames, self._sent = self._sent, []
        segments = []
        for frame in frames:
            if frame[12:14] != b"\x08\x00":
                continue
            packet = Ether(frame)
            again = packet.copy()
            del again[IP].chksum, again[TCP].chksum
            assert bytes(again) == frame and (packet.src, packet.dst) == (OUR_MAC, PEER_MAC)
            assert (packet[TCP].sport, packet[TCP].dport) == self.ports
            segment = packet[TCP]
            segment.data = bytes(packet[IP])[40 : packet[IP].len] if segment.dataofs == 5 else b""
            segments.append(segment)
        return segments

    def told(self, segments: list[TCP]) -> list[tuple[str, int, int, bytes]]:
        """Flags, relative SEQ and ACK, data."""
        return [(str(s.flags), (s.seq - ISS) & M, (s.ack - IRS) & M if "A" in s.flags else 0, s.data) for s in segments]

    def pass_us(self, time: int) -> list[TCP]:
        """Let time pass; what goes out meanwhile."""
        end = self.device.time + time
        while self.device.time < end:
            self.stack.wait(end - self.device.time)
        self.stack.poll()
        return self.sent()

    def connect(self) -> list[TCP]:
        self.sock = self.socket()
        self.sock.bind(("", OURS))
        assert self.sock.connect_ex((PEER_IP, PORT)) == errno.EINPROGRESS
        return self.sent()

    def established(self, mss: int | None = 1000, window: int = 8000) -> Line:
        self.connect()
        self.send("SA", 0, 1, options=[("MSS", mss)] if mss else [], window=window)
        assert self.tp.t_state is State.ESTABLISHED
        return self

    def listen(self, backlog: int = 5) -> Socket:
        listener = self.socket()
        listener.bind(("", PORT))
        listener.listen(backlog)
        self.ports = PORT, OURS
        return listener

    def error(self) -> int:
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
