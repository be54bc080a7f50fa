"""Between a script's packets and the wire's: sequence numbers, time stamps, addresses; and where the two differ.

A script counts the engine's sequence numbers from its SYN, which is 0; those of the remote end are on the wire as they stand in
the script. A time stamp of the engine is what the script called it when it was expected first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tiptoe_driver.netinet.in_cksum import internet_checksum

from ..wire.segment import ACK, CWR, ECE, FIN, ICMP, PSH, RST, SYN, URG, Segment, pack_tcp
from .tree import Icmp, Option, Packet

MASK = 0xFFFF_FFFF
_FLAGS = {"F": FIN, "S": SYN, "R": RST, "P": PSH, ".": ACK, "U": URG, "E": ECE, "W": CWR}
_ECN = {"noecn": 0, "ect1": 1, "ect0": 2, "ce": 3}
_ECN_NAMES = {code: name for name, code in _ECN.items()}
DEFAULT_MSS = 536
"""Of an end that has not said (RFC 9293 MUST-15)."""
_KINDS = {"unreachable": 3, "source_quench": 4, "time_exceeded": 11, "parameter_problem": 12}
_CODES = {
    "": 0, "net_unreachable": 0, "host_unreachable": 1, "protocol_unreachable": 2, "port_unreachable": 3, "frag_needed": 4,
    "source_route_failed": 5, "net_prohibited": 9, "host_prohibited": 10, "packet_filtered": 13, "admin_prohibited": 13,
}  # fmt: skip


@dataclass
class Flow:
    """A connection on the wire: its ends, and what the script's numbers are there.

    ``iss`` is the engine's first sequence number, once it has sent a SYN; ``stamps`` are time stamps of the engine by what the
    script calls them; ``mss`` is what the remote end's SYN has said; ``last`` is the segment that the engine sent last.
    """

    local: tuple[int, int]
    remote: tuple[int, int]
    iss: int | None = None
    mss: int = DEFAULT_MSS
    stamps: dict[int, int] = field(default_factory=dict)
    last: Segment | None = None

    def to_wire(self, packet: Packet, payload: bytes) -> bytes:
        """The IP packet of one that the remote end sends."""
        begin = self.iss or 0
        segment = Segment(
            self.remote[0], self.local[0], self.remote[1], self.local[1], packet.seq,
            0 if packet.ack is None else (packet.ack + begin) & MASK, sum(_FLAGS[flag] for flag in packet.flags),
            packet.win or 0, 0, None, payload, urgent=packet.urg or 0, ecn=_ECN.get(packet.ecn or "", 0),
        )  # fmt: skip
        if packet.tos is not None:
            segment = replace(segment, ecn=packet.tos & 3)
        for option in packet.options or ():
            if option.kind == "mss" and "S" in packet.flags:
                self.mss = option.values[0]
        options = b"".join(self._encoded(option) for option in packet.options or ())
        return pack_tcp(segment, tos=(packet.tos or 0) & 0xFC, ttl=packet.ttl or 64, options=options)

    def _encoded(self, option: Option) -> bytes:
        match option.kind:
            case "nop":
                return b"\x01"
            case "eol":
                return b"\x00"
            case "mss":
                return b"\x02\x04" + option.values[0].to_bytes(2)
            case "wscale":
                return b"\x03\x03" + option.values[0].to_bytes(1)
            case "sackOK":
                return b"\x04\x02"
            case "sack":
                edges = b"".join(((edge + (self.iss or 0)) & MASK).to_bytes(4) for edge in option.values)
                return b"\x05" + (2 + len(edges)).to_bytes(1) + edges
        value, echo = option.values
        return b"\x08\x0a" + value.to_bytes(4) + self._live_stamp(echo).to_bytes(4)

    def _live_stamp(self, echo: int) -> int:
        """The engine's time stamp that the script calls ``echo``; one without a name counts on from the first that has one."""
        if echo in self.stamps or not self.stamps:
            return self.stamps.get(echo, echo)
        named, live = next(iter(self.stamps.items()))
        return (live + echo - named) & MASK

    def from_wire(self, segment: Segment) -> Packet:
        """A segment of the engine in the script's numbers; its time stamp as it is."""
        if segment.flags & SYN:
            self.iss = segment.seq
        begin = self.iss
        if begin is None:  # a reset for nobody: its number is the acknowledgement that it answers
            begin = 0
        options = [Option("mss", (segment.mss,))] if segment.mss else []
        options += [Option("sackOK")] if segment.sack_ok else []
        options += [Option("TS", segment.stamps)] if segment.stamps is not None else []
        options += [Option("wscale", (segment.ws,))] if segment.ws is not None else []
        options += [Option("sack", tuple(edge for block in segment.sacks for edge in block))] if segment.sacks else []
        return Packet(
            True, "".join(letter for letter, bit in _FLAGS.items() if segment.flags & bit), (segment.seq - begin) & MASK,
            len(segment.payload), segment.ack if segment.flags & ACK else None, segment.wnd,
            segment.urgent if segment.flags & URG else None, tuple(options), _ECN_NAMES[segment.ecn],
        )  # fmt: skip

    def icmp(self, packet: Icmp) -> bytes:
        """The IP packet of an ICMP error about a segment of the engine (RFC 792, RFC 1191)."""
        sent = Packet(True, ".", packet.seq or 0, min(packet.length, 8), ack=0)
        begin = (sent.seq + (self.iss or 0)) & MASK
        segment = Segment(
            self.local[0], self.remote[0], self.local[1], self.remote[1], begin, 0, ACK, 0, 0, None, bytes(sent.length)
        )
        quoted = bytearray(pack_tcp(segment))
        total = 40 + packet.length
        quoted[2:4] = total.to_bytes(2)
        quoted[10:12] = bytes(2)
        quoted[10:12] = internet_checksum(bytes(quoted[:20])).to_bytes(2)
        kind = _KINDS[packet.kind]
        body = bytearray([kind, _CODES[packet.code], 0, 0, 0, 0]) + packet.mtu.to_bytes(2) + quoted[:28]
        body[2:4] = internet_checksum(bytes(body)).to_bytes(2)
        ip = bytearray.fromhex("4500") + (20 + len(body)).to_bytes(2) + bytearray.fromhex("000000004001") + bytes(2)
        ip[9] = ICMP
        ip += self.remote[0].to_bytes(4) + self.local[0].to_bytes(4)
        ip[10:12] = internet_checksum(bytes(ip)).to_bytes(2)
        return bytes(ip + body)


_SIZES = {"nop": 1, "eol": 1, "mss": 4, "wscale": 3, "sackOK": 2, "TS": 10, "sack": 2}
_EDGE = 4


def header_bytes(packet: Packet) -> int:
    """Of IPv4 and TCP, with options and what fills them up to a multiple of 4."""
    options = packet.options or ()
    size = sum(_SIZES[option.kind] + _EDGE * len(option.values) * (option.kind == "sack") for option in options)
    return 40 + size + -size % 4


def icmp_known(packet: Icmp) -> bool:
    """Whether ``Flow.icmp`` can make it."""
    return packet.kind in _KINDS and packet.code in _CODES and not packet.outbound


def _relevant(options: tuple[Option, ...]) -> list[Option]:
    """Without padding, in an order of their own: how a stack arranges them is its own business."""
    return sorted((option for option in options if option.kind not in ("nop", "eol")), key=lambda option: option.kind)


def named_stamp(flow: Flow, expected: Packet, seen: Packet) -> Packet:
    """``seen`` with the name of its time stamp that the script has for it, which the flow remembers."""
    wanted = {option.kind: option for option in expected.options or ()}.get("TS")
    live = {option.kind: option for option in seen.options or ()}.get("TS")
    if wanted is None or live is None:
        return seen
    flow.stamps[wanted.values[0]] = live.values[0]
    named = replace(live, values=(wanted.values[0], live.values[1]))
    return replace(seen, options=tuple(named if option == live else option for option in seen.options or ()))


def window_update(segment: Segment, before: Segment | None) -> bool:
    """Whether a segment says nothing but that the window is larger now; ``before`` is the one sent before it. Behind a SYN the
    scale alone makes it so (RFC 7323 section 2.2)."""
    if before is None or segment.flags != ACK or segment.payload or segment.ack != before.ack:
        return False
    larger = segment.wnd > before.wnd or bool(before.flags & SYN)
    return larger and segment.seq == (before.seq + before.length) & MASK


def differences(expected: Packet, seen: Packet, *, lenient: bool) -> list[str]:
    """The names of what differs, of what the script says; padding and order of options do not count. ``lenient``: nor does P."""
    found = []
    ignored = {"P"} if lenient else set()
    if set(expected.flags) - ignored != set(seen.flags) - ignored:
        found.append("flags")
    if (expected.seq, expected.length) != (seen.seq, seen.length):
        found.append("sequence numbers")
    if expected.ack != seen.ack:
        found.append("ack")
    for name in ("win", "urg"):
        if getattr(expected, name) is not None and getattr(expected, name) != getattr(seen, name):
            found.append(name)
    if expected.options is not None and _relevant(expected.options) != _relevant(seen.options or ()):
        found.append("options")
    wanted = expected.ecn if expected.tos is None else _ECN_NAMES[expected.tos & 3]
    if wanted is not None and (seen.ecn not in ("ect0", "ect1") if wanted == "ect01" else seen.ecn != wanted):
        found.append("ECN")
    return found


def shown(expected: Packet, seen: Packet) -> Packet:
    """``seen`` with no more than ``expected`` says."""
    return replace(
        seen, win=None if expected.win is None else seen.win, urg=None if expected.urg is None else seen.urg,
        ecn=None if expected.ecn is None else seen.ecn, options=None if expected.options is None else seen.options,
    )  # fmt: skip
