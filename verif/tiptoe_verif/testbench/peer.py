"""Hosts on the line: ARP, and scripted TCP connections whose segments are templates with overrides (scapy)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from ..wire.segment import ACK, FIN, RST, SYN, Malformed, Segment, ip_number, ip_text, parse_tcp
from .testbench import ENGINE_IP, ENGINE_MAC

if TYPE_CHECKING:
    from .testbench import Bench

M32 = 0xFFFFFFFF
_LETTERS = {"F": FIN, "S": SYN, "R": RST, "P": 8, "A": ACK, "U": 32}


def flag_bits(letters: str) -> int:
    """Flags byte of letters such as ``"SA"``."""
    return sum(_LETTERS[letter] for letter in letters)


def flag_letters(flags: int) -> str:
    """Letters of a flags byte, without PSH, which has no meaning to tests."""
    return "".join(letter for letter in "SFRAU" if flags & _LETTERS[letter])


class Endpoint(Protocol):
    """What a host hands a connection's segments to."""

    def input(self, segment: Segment) -> None:
        """A segment of this connection came from the engine."""


class Host:
    """A host on the line.

    Attributes
    ----------
    endpoints : dict
        Connections by (own port, engine's port).
    listeners : dict
        Functions by own port that make a connection of a SYN.
    strays : list of Segment
        Segments from the engine for no endpoint.
    frames : list of bytes
        Frames that were neither TCP for us nor ARP.
    answer_arp : bool
        Whether ARP requests are answered.
    """

    def __init__(self, bench: Bench, ip: str = "10.0.0.1", mac: str = "02:00:00:00:00:01") -> None:
        self.bench, self.ip, self.mac = bench, ip, mac
        self.endpoints: dict[tuple[int, int], Endpoint] = {}
        self.listeners: dict[int, Any] = {}
        self.strays: list[Segment] = []
        self.frames: list[bytes] = []
        self.answer_arp = True
        bench.line.hosts.append(self._frame)

    def _frame(self, frame: bytes) -> None:
        kind = frame[12:14]
        if kind == b"\x08\x06":
            self._arp(frame)
            return
        if frame[:6] != bytes.fromhex(self.mac.replace(":", "")):
            return
        try:
            segment = parse_tcp(frame)
        except Malformed:
            return  # the line did that: what leaves the engine has been under the monitor's eyes
        if segment is None:
            self.frames.append(frame)
            return
        if ip_text(segment.dst) != self.ip:
            return
        endpoint = self.endpoints.get((segment.dport, segment.sport))
        if endpoint is not None:
            endpoint.input(segment)
        elif segment.dport in self.listeners and segment.flags & (SYN | ACK | RST) == SYN:
            self.listeners[segment.dport](segment)
        else:
            self.strays.append(segment)

    def _arp(self, frame: bytes) -> None:
        request = Ether(frame)[ARP]
        if request.op == 1 and request.pdst == self.ip and self.answer_arp:
            reply = ARP(op=2, hwsrc=self.mac, psrc=self.ip, hwdst=request.hwsrc, pdst=request.psrc)
            self.bench.line.give(bytes(Ether(src=self.mac, dst=request.hwsrc) / reply).ljust(60, b"\0"))

    def announce(self) -> None:
        """Tell everybody our MAC address (gratuitous ARP)."""
        arp = ARP(op=2, hwsrc=self.mac, psrc=self.ip, hwdst=ENGINE_MAC, pdst=self.ip)
        self.bench.line.give(bytes(Ether(src=self.mac, dst="ff:ff:ff:ff:ff:ff") / arp).ljust(60, b"\0"))

    def packet(self, tcp: TCP, payload: bytes = b"", **ip: Any) -> bytes:
        """A frame to the engine around a TCP header; ``ip`` overrides fields of the IP header."""
        fields = {"src": self.ip, "dst": ENGINE_IP} | ip
        packet = Ether(src=self.mac, dst=ENGINE_MAC) / IP(**fields) / tcp
        if payload:
            packet = packet / Raw(payload)
        return bytes(packet).ljust(60, b"\0")

    def connection(self, port: int, engine_port: int, **options: Any) -> Peer:
        """A scripted connection."""
        return Peer(self, port, engine_port, **options)


class Peer:
    """A scripted connection. Sequence numbers are relative: own ones to ``iss``, the engine's to its ISN; the SYN is 0.

    Parameters
    ----------
    iss : int
        Own initial sequence number; next to wrap-around unless chosen.
    wnd, mss, ws, sack
        Window field, MSS option (0: none), window scale option (None: none) and SACK-permitted of what is sent.

    Attributes
    ----------
    seq, ack : int
        What the next segment carries unless overridden: after what was sent, and after what came in order.
    inbox : deque of Segment
        Segments that came and were not yet expected.
    received : bytearray
        Data that came in order.
    """

    def __init__(
        self, host: Host, port: int, engine_port: int, *, iss: int = 0xFFFFFFF8, wnd: int = 8192, mss: int = 1460,
        ws: int | None = None, sack: bool = False,
    ) -> None:  # fmt: skip
        self.host, self.bench = host, host.bench
        self.port, self.engine_port = port, engine_port
        self.iss, self.wnd, self.mss, self.ws = iss, wnd, mss, ws
        self.sack, self._highest = sack, 0
        self.irs: int | None = None
        self.seq = self.ack = 0
        self.inbox: deque[Segment] = deque()
        self.received = bytearray()
        host.endpoints[port, engine_port] = self

    # --- out

    def frame(
        self, flags: str = "A", data: bytes = b"", *, seq: int | None = None, ack: int | None = None,
        wnd: int | None = None, options: list[Any] | None = None, ip: dict[str, Any] | None = None, **tcp: Any,
    ) -> bytes:  # fmt: skip
        """A segment as frame; ``tcp`` and ``ip`` override header fields."""
        if options is None:
            options = []
            if "S" in flags:
                options += [("MSS", self.mss)] if self.mss else []
                options += [("NOP", None), ("WScale", self.ws)] if self.ws is not None else []
                options += [("SAckOK", b"")] if self.sack else []
        fields = {
            "sport": self.port, "dport": self.engine_port, "flags": flags, "options": options,
            "seq": (self.iss + (self.seq if seq is None else seq)) & M32,
            "ack": ((self.irs or 0) + (self.ack if ack is None else ack)) & M32 if "A" in flags else 0,
            "window": self.wnd if wnd is None else wnd,
        } | tcp  # fmt: skip
        return self.host.packet(TCP(**fields), data, **(ip or {}))

    def send(self, flags: str = "A", data: bytes = b"", *, seq: int | None = None, **fields: Any) -> None:
        """Send a segment; see ``frame``. With the default ``seq`` the next one follows it."""
        self.bench.line.give(self.frame(flags, data, seq=seq, **fields))
        self._highest = max(self._highest, (self.seq if seq is None else seq) + len(data) + ("F" in flags))
        if seq is None:
            self.seq += len(data) + ("S" in flags) + ("F" in flags)

    # --- in

    def input(self, segment: Segment) -> None:
        """A segment came."""
        if segment.flags & SYN and self.irs is None:
            self.irs = segment.seq
        self.inbox.append(segment)
        acked = (segment.ack - self.iss) & M32
        for left, right in self.blocks(segment):
            assert self.sack and acked < left < right <= self._highest, f"{self.describe(segment)}: {left}-{right}"
        at = self.relative(segment)
        if not segment.flags & RST and at <= self.ack < at + segment.length:
            new = segment.payload[self.ack - at :] if not segment.flags & SYN else b""
            self.received += new
            self.ack = at + segment.length

    def relative(self, segment: Segment) -> int:
        """Sequence number of a segment of the engine, from its ISN on."""
        return (segment.seq - (self.irs or 0)) & M32

    def blocks(self, segment: Segment) -> list[tuple[int, int]]:
        """SACK blocks of a segment of the engine, relative as own sequence numbers are."""
        return [((left - self.iss) & M32, (right - self.iss) & M32) for left, right in segment.sacks]

    def describe(self, segment: Segment) -> str:
        """With relative numbers, for messages."""
        ack = f" ack {(segment.ack - self.iss) & M32}" if segment.flags & ACK else ""
        return (
            f"[{flag_letters(segment.flags)}] seq {self.relative(segment)}{ack} wnd {segment.wnd} "
            f"length {len(segment.payload)}"
        )

    def expect(
        self, flags: str, *, seq: int | None = None, ack: int | None = None, length: int | None = None,
        wnd: int | None = None, data: bytes | None = None, cycles: int = 100_000, skip_acks: bool = False,
    ) -> Segment:  # fmt: skip
        """Wait for the next segment and compare what is given; ``skip_acks`` passes over pure ACKs."""
        wanted = f"[{flags}] seq {seq} ack {ack} length {length} wnd {wnd}"
        end = self.bench.cycle + cycles
        while True:
            self.bench.until(lambda: self.inbox, f"segment {wanted}", max(1, end - self.bench.cycle))
            segment = self.inbox.popleft()
            if not (skip_acks and flag_letters(segment.flags) == "A" and not segment.length):
                break
        if data is not None:
            length = len(data)
        found = f"wanted {wanted}, came {self.describe(segment)}"
        assert flag_letters(segment.flags) == "".join(c for c in "SFRAU" if c in flags), found
        assert seq is None or self.relative(segment) == seq & M32, found
        assert ack is None or (segment.ack - self.iss) & M32 == ack & M32, found
        assert length is None or len(segment.payload) == length, found
        assert wnd is None or segment.wnd == wnd, found
        assert data is None or segment.payload == data, found
        return segment

    def expect_ack(self, ack: int, cycles: int = 100_000) -> Segment:
        """Wait for a segment that acknowledges ``ack``; pure ACKs of less are passed over."""
        end = self.bench.cycle + cycles
        while True:
            self.bench.until(lambda: self.inbox, f"acknowledgement of {ack}", max(1, end - self.bench.cycle))
            segment = self.inbox.popleft()
            if segment.flags & ACK and (segment.ack - self.iss) & M32 == ack & M32:
                return segment
            assert flag_letters(segment.flags) == "A", f"wanted ack {ack}, came {self.describe(segment)}"

    def quiet(self, cycles: int = 1000) -> None:
        """Nothing comes for a while."""
        self.bench.run(cycles)
        assert not self.inbox, f"wanted nothing, came {[self.describe(segment) for segment in self.inbox]}"

    def wait_for(self, size: int, cycles: int = 400_000) -> bytes:
        """Wait until ``size`` bytes came in order, acknowledging as they come; returns them."""
        told = self.ack

        def arrived() -> bool:
            nonlocal told
            if self.ack != told:
                told = self.ack
                self.send("A")
            return len(self.received) >= size

        self.bench.until(arrived, f"{size} bytes at the peer", cycles)
        self.inbox.clear()
        return bytes(self.received)

    # --- handshakes

    def open(self, **syn: Any) -> None:
        """Connect to a listener of the engine: SYN, SYN,ACK, ACK."""
        self.send("S", **syn)
        self.expect("SA", seq=0, ack=1)
        self.bench.run(1000)  # an ACK before the host can know of the SYN is not taken
        self.send("A")

    def accept(self, **syn: Any) -> None:
        """Answer the engine's SYN."""
        self.expect("S", seq=0)
        self.send("SA", **syn)
        self.expect("A", seq=1, ack=1)


__all__ = ["Host", "Peer", "flag_bits", "flag_letters", "ip_number"]
