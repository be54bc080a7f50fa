"""An independent checker of everything the engine puts on the wire, built from RFC 9293 alone.

It sees frames in the order they pass the engine's ports and keeps its own view of every connection. What is wrong
raises :exc:`WireError` at once. It never assumes more than a port shows: a frame given to the engine may have been
seen by it or not, so limits are those of the most generous reading.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from . import ecn
from .flow import DEFAULT_MSS, DEFAULT_MSS_V6, Flow, syns_meant
from .host_frames import HostFrames
from .intervals import Intervals
from .numbers import unwrap
from .sack import misplaced, room_taken
from .segment import (
    ACK,
    ARP,
    FIN,
    HEADER,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    RST,
    SYN,
    TCP,
    Malformed,
    Segment,
    checksum_holds,
    ip_text,
    mac_text,
    parse_ip,
    parse_ipv6,
    parse_tcp,
    pseudo_header,
)
from .urgent import misplaced_urgent, next_up

_REMEMBERED_SYNS = 16
_REMEMBERED_SEGMENTS = 64
_REMEMBERED_NUMBERS = 16
"""Segments remembered of a connection that is over."""
_REMEMBERED_BEYOND = 64
"""Ranges remembered of a connection that came beyond the window it had shown."""
MOST_UNDER_WAY = 0xFFFF
"""Bytes that the engine may have sent and that are not on the wire yet."""
SEND_MSS_FLOOR = 48
"""Bytes of payload that a segment may have though the peer's MSS option says less: such an option only makes others send headers
(Linux's tcp_min_snd_mss)."""
_KEPT_BYTES = 1 << 24
_FORGET_EVERY = 4096
"""Frames between two looks for connections that are long over."""


class WireError(AssertionError):
    """The engine sent something it must not; the message names the frame and the rule."""


Key = tuple[int, int, int, int]
"""Own address, own port, peer's address, peer's port."""


@dataclass(slots=True)
class Given:
    """What the engine was given lately of one four-tuple: SYNs; sequence and acknowledgement numbers (-1: none), flags."""

    syns: list[Segment] = field(default_factory=list)
    numbers: list[tuple[int, int, int]] = field(default_factory=list)
    echoes: list[tuple[int, int]] = field(default_factory=list)
    """Acknowledgement number and TSecr of segments behind a SYN."""
    last_ns: int = 0


class WireMonitor:
    """Checks every frame of an engine, but those that the host sends through it (:attr:`host`).

    Parameters
    ----------
    mac, ip : int
        The engine's addresses; frames from it must carry them. ``ip`` 0 accepts any. Its address of IPv6 is :attr:`ip6`.
    max_frame : int
        Longest frame without FCS.
    forget_after_ns : int
        A connection that is over, and four-tuples that never were one, are forgotten after so long; 0: never. Longer than any
        TIME_WAIT.
    remembered : int
        Four-tuples kept where they may be forgotten, those of open connections aside: the oldest make room. More than the engine
        has connections, which may all be in TIME_WAIT.

    Attributes
    ----------
    flows : dict
        Connections by (own address, own port, peer's address, peer's port), the newest of each.
    finished : deque
        Connections whose four-tuple was used again since.
    frames : int
        Frames checked.
    host : HostFrames
        Frames of the host's, whose kernel carries connections of its own: not the engine's to answer for.
    ip6 : int
        The engine's IPv6 address; 0 accepts any.
    may_skip : bool
        Payload could not always be read from host memory: segments the engine counts as sent may be missing here.
    accurate : bool
        Connections may be under DCTCP, whose segments all carry ECT, and whose ECE says what came last (RFC 8257).
    """

    ip6 = 0
    may_skip = False
    accurate = False

    def __init__(
        self, *, mac: int = 0, ip: int = 0, max_frame: int = 1514, forget_after_ns: int = 0, remembered: int = 4096
    ) -> None:
        self.mac, self.ip, self.max_frame = mac, ip, max_frame
        self.forget_after_ns, self.remembered = forget_after_ns, remembered
        self.host = HostFrames()
        self.flows: dict[Key, Flow] = {}
        self.finished: deque[tuple[Key, Flow]] = deque()
        self.frames = 0
        self._given: dict[Key, Given] = {}

    # --- towards the engine ---

    def to_engine(self, frame: bytes, time_ns: int = 0) -> None:
        """Note a frame given to the engine. Frames with errors teach nothing: the engine has to drop them."""
        self.frames += 1
        try:
            segment = parse_tcp(frame, strict=False)
        except Malformed:
            return
        if segment is None or segment.dst != (self._own(segment.dst) or segment.dst):
            return
        key = (segment.dst, segment.dport, segment.src, segment.sport)
        given = self._given.pop(key, None) or Given()
        self._given[key] = given  # the one heard of last comes last
        given.last_ns = time_ns
        if segment.flags & SYN and not segment.flags & RST:
            syns = given.syns
            if segment not in syns:
                syns.append(segment)
                del syns[:-_REMEMBERED_SYNS]
        given.numbers.append((segment.seq, segment.ack if segment.flags & ACK else -1, segment.flags))
        del given.numbers[:-_REMEMBERED_SEGMENTS]
        if segment.stamps and segment.flags & ACK and not segment.flags & (SYN | RST):
            given.echoes.append((segment.ack, segment.stamps[1]))
            del given.echoes[:-_REMEMBERED_SEGMENTS]
        flow = self.flows.get(key)
        if flow is not None:
            was_over = flow.over
            self._received(flow, segment, time_ns)
            if flow.over and not was_over:
                flow.behind.clear()
                self._has_ended(flow, given)

    def _own(self, address: int) -> int:
        """The engine's address of the version that this one is of."""
        return self.ip6 if address >> 32 else self.ip

    def _received(self, flow: Flow, segment: Segment, time_ns: int) -> None:
        flow.segments_received += 1
        flow.timestamps.arrived(segment)
        if flow.behind or flow.may_begin_anew(segment):
            flow.behind.append(segment)
            del flow.behind[1:-_REMEMBERED_SEGMENTS]
        if segment.flags & RST:
            flow.reset_by_peer = True
            flow.ended_ns = time_ns
            return
        if segment.flags & SYN and flow.irs is None and segment.ws is not None:
            flow.peer_ws = max(flow.peer_ws or 0, segment.ws)  # which of its SYNs is taken is not known yet
        if segment.flags & ACK:
            ack = unwrap(segment.ack, flow.snd_max)
            edge = ack + (segment.wnd << (0 if segment.flags & SYN else flow.scales[0]))
            if flow.iss < ack <= flow.snd_max:
                flow.una = max(flow.una, ack)
                self._forget_acked(flow)
                flow.window_edge = max(flow.window_edge, edge)
            elif flow.snd_max < ack <= flow.snd_max + MOST_UNDER_WAY:
                # A guess, but the engine may have sent it already.
                flow.overtaken.append((ack, edge))
                del flow.overtaken[:-_REMEMBERED_SEGMENTS]
        elif segment.flags & SYN:
            flow.window_edge = max(flow.window_edge, flow.iss + 1 + segment.wnd)
        if segment.length:
            start = segment.seq + bool(segment.flags & SYN)
            if flow.received is not None:
                begin = unwrap(start, flow.received.complete)
                flow.sack.arrived(begin, begin + len(segment.payload), flow)
                if flow.our_edge is not None:
                    flow.ecn.given(segment, begin, flow.received.complete, flow.our_edge)
            elif segment.payload:
                flow.ecn.ce += segment.ecn == ecn.CE
            self._received_range(flow, start, start + len(segment.payload), bool(segment.flags & FIN))

    def _received_range(self, flow: Flow, begin: int, end: int, fin: bool) -> None:
        if flow.received is None:
            flow.early.append((begin, end, fin))
            return
        size = end - begin
        begin = unwrap(begin, flow.received.complete)
        end = begin + size
        # What the engine may keep at most is what it has offered a window for.
        limit = flow.our_edge if flow.our_edge is not None else end
        if end + fin > begin and begin <= limit:
            before = flow.received.complete
            flow.received.add(begin, min(end, limit))
            flow.bytes_received += max(0, flow.received.complete - before)
            if fin and end <= limit:
                flow.received.add(end, end + 1)
                flow.peer_fin = end
        if end + fin > limit:
            # A larger window may be on its way to us: what it takes is known with it.
            flow.beyond.append((max(begin, limit), end, fin))
            del flow.beyond[:-_REMEMBERED_BEYOND]

    def _window_opened(self, flow: Flow, edge: int) -> None:
        """What came beyond the window may have been taken by one that was under way, up to ``edge``."""
        if flow.our_edge is None or edge <= flow.our_edge or not flow.beyond:
            return
        shown, flow.our_edge = flow.our_edge, edge
        beyond, flow.beyond = flow.beyond, []
        for begin, end, fin in beyond:
            self._received_range(flow, begin, end, fin)
        flow.our_edge = shown

    # --- from the engine ---

    def from_engine(self, frame: bytes, time_ns: int = 0) -> None:
        """Check a frame the engine sent."""
        self.frames += 1
        if self.forget_after_ns and self.frames % _FORGET_EVERY == 0:
            self._forget(time_ns - self.forget_after_ns)
        if self.host.take(frame):
            return
        try:
            segment = self._headers(frame)
        except Malformed as error:
            raise WireError(f"frame {self.frames}: {error} ({frame[:54].hex()})") from None
        if segment is None:
            return
        try:
            self._sent(segment, time_ns)
        except WireError as error:
            raise WireError(f"frame {self.frames}: {segment}: {error}") from None

    def _headers(self, frame: bytes) -> Segment | None:
        if not HEADER <= len(frame) <= self.max_frame:
            raise Malformed(f"frame of {len(frame)} bytes")
        source = int.from_bytes(frame[6:12], "big")
        if self.mac and source != self.mac:
            raise Malformed(f"source MAC {mac_text(source)} is not the engine's")
        if source >> 40 & 1:
            raise Malformed("source MAC is a group address")
        kind = int.from_bytes(frame[12:14], "big")
        if kind == ARP:
            if len(frame) < 42 or frame[14:20] != b"\0\x01\x08\0\x06\x04":
                raise Malformed("ARP packet")
        elif kind == IPV4:
            protocol, src, _, begin, end = parse_ip(frame, fragments=True)
            if self.ip and src != self.ip:
                raise Malformed(f"source address {ip_text(src)} is not the engine's")
            whole = not int.from_bytes(frame[20:22], "big") & 0x3FFF
            if protocol == ICMP and whole and not checksum_holds(frame[begin:end]):
                raise Malformed("ICMP checksum is wrong")
            return parse_tcp(frame) if protocol == TCP else None
        elif kind == IPV6:
            protocol, src, _, begin, end = parse_ipv6(frame)
            if self.ip6 and src != self.ip6:
                raise Malformed(f"source address {ip_text(src)} is not the engine's")
            if protocol == ICMPV6 and not checksum_holds(pseudo_header(frame, begin, end, ICMPV6) + frame[begin:end]):
                raise Malformed("ICMPv6 checksum is wrong")
            return parse_tcp(frame) if protocol == TCP else None
        return None

    def _sent(self, segment: Segment, time_ns: int) -> None:
        flags = segment.flags
        if flags & SYN and flags & (FIN | RST):
            raise WireError("SYN together with FIN or RST")
        if not flags & (SYN | RST | ACK):
            raise WireError("neither SYN, RST nor ACK")
        if wrong := misplaced(segment) or misplaced_urgent(segment) or ecn.misplaced(segment):
            raise WireError(wrong)
        key = (segment.src, segment.sport, segment.dst, segment.dport)
        flow = self.flows.get(key)
        if flags & RST:
            self._sent_reset(key, flow, segment, time_ns)
            return
        if flags & SYN:
            flow = self._sent_syn(key, flow, segment, time_ns)
            if flags & ACK and self._mixed(key, flow):
                flow.mix(segment)
        elif flow is None:
            raise WireError("segment of a connection that never began")
        if flags == ACK and not segment.payload and flow.unopened and flow.before == (segment.seq, segment.ack):
            return  # of the TIME_WAIT before: this connection has not come to be, or not yet
        if flow.reset:
            raise WireError("segment after the connection's RST")
        was_over, was_opened = flow.over, flow.opened
        flow.segments_sent += 1
        flow.ended_ns = time_ns
        if flags & ACK:
            self._sent_ack(key, flow, segment)
        self._check_ecn(key, flow, segment)
        self._check_timestamps(key, flow, segment)
        if not flags & SYN:
            self._sent_data(flow, segment)
        if flow.opened and not was_opened:
            flow.behind.clear()  # that was how it began
        if flow.over and not was_over and key in self._given:
            self._has_ended(flow, self._given[key])

    def _sent_reset(self, key: Key, flow: Flow | None, segment: Segment, time_ns: int) -> None:
        if segment.payload:
            raise WireError("RST with data")
        # A reset that answers a segment takes its numbers from it and, while that one's connection is not open yet, ends
        # nothing (RFC 9293 section 3.10.7.4).
        numbers = self._given[key].numbers if key in self._given else []
        answers = any(ack == segment.seq for _, ack, _ in numbers)
        if answers and not segment.flags & ACK:
            return
        beyond = 0x10000 if self.may_skip else 1
        if flow is not None and flow.iss <= unwrap(segment.seq, flow.snd_max) <= flow.snd_max + beyond:
            self._check_timestamps(key, flow, segment)
            flow.reset = True
            flow.segments_sent += 1
            flow.ended_ns = time_ns
            if key in self._given:
                self._has_ended(flow, self._given[key])
            return
        if segment.flags & ACK and (segment.seq == 0 or answers):
            return
        raise WireError("RST whose sequence number answers nothing the engine was given")

    def _sent_syn(self, key: Key, flow: Flow | None, segment: Segment, time_ns: int) -> Flow:
        if segment.payload:
            raise WireError("SYN with data")
        if not segment.mss:
            raise WireError("SYN without the MSS option (RFC 9293 SHLD-5)")
        if flow is not None and flow.iss & 0xFFFFFFFF == segment.seq and not self._anew(key, flow, segment):
            flow.retransmissions += 1
            flow.sack.ours |= segment.sack_ok
            return flow
        if flow is not None:
            flow.forget_bytes()
            self.finished.append((key, flow))
        new = Flow(segment.seq, segment.seq + 1, segment.mss, segment.ws, segment.wnd, time_ns)
        new.una, new.sent_base = new.iss, new.iss + 1
        new.sack.ours = segment.sack_ok
        if flow is not None:
            flow.begun_anew(new)
            if flow.iss & 0xFFFFFFFF == segment.seq:
                for given in flow.behind:  # with the same numbers as before, it may be for this connection
                    self._received(new, given, time_ns)
            flow.behind.clear()
        self.flows[key] = flow = new
        return flow

    def _mixed(self, key: Key, flow: Flow) -> bool:
        """Whether the peer may have returned a SYN cookie with the TSval of another one."""
        given = self._given.get(key)
        return given is not None and any(
            ack == (flow.iss + 1) & 0xFFFFFFFF and tsecr not in flow.timestamps.offered for ack, tsecr in given.echoes
        )

    def _anew(self, key: Key, flow: Flow, segment: Segment) -> bool:
        """Whether a SYN of a number seen before answers another SYN than it did: a connection that was reset at once, perhaps
        before its SYN,ACK had left, and begun anew within 4 us has the same number (RFC 6528). Or the same SYN once more: its
        connection has ended, perhaps by a time-out, and the peer says the SYN again, or returns the SYN cookie again, within
        the cookie's periods. One that has neither been open nor reset just has its SYN,ACK repeated."""
        if flow.irs is None or not segment.flags & ACK:
            return False
        if segment.ack == (flow.irs + 1) & 0xFFFFFFFF:
            return bool(flow.behind) and (flow.reset or (flow.opened and (flow.over or flow.resent)))
        return flow.over or any(flags & RST for _, _, flags in self._given[key].numbers)

    def _learn_peer(self, key: Key, flow: Flow, segment: Segment) -> None:
        """The engine acknowledges for the first time: find the peer's SYN it means."""
        meant = syns_meant(flow, segment, self._given[key].syns if key in self._given else [])
        if not meant:
            raise WireError("acknowledges a SYN the engine was never given")
        syn = meant[0]
        # The same SYN may have come with other options: which of them was taken is open, but for whether it had a scale.
        alike = [each for each in meant if each.seq == syn.seq]
        flow.irs = syn.seq
        flow.peer_mss = max(each.mss or (DEFAULT_MSS_V6 if each.src >> 32 else DEFAULT_MSS) for each in alike)
        scales = [each.ws for each in alike if each.ws is not None]
        if not flow.mixed:
            flow.peer_ws = max(scales) if scales and (flow.our_ws is not None or len(scales) == len(alike)) else None
        flow.acked = syn.seq + 1
        flow.received = Intervals(syn.seq + 1)
        flow.our_edge = syn.seq + 1 + flow.our_syn_wnd
        for each in alike:
            if not each.flags & ACK:
                flow.window_edge = max(flow.window_edge, flow.iss + 1 + each.wnd)
        for begin, end, fin in flow.early:
            start = unwrap(begin, flow.received.complete)
            flow.sack.arrived(start, start + end - begin, flow)
            self._received_range(flow, begin, end, fin)
        flow.early = []

    def _sent_ack(self, key: Key, flow: Flow, segment: Segment) -> None:
        if flow.irs is None:
            self._learn_peer(key, flow, segment)
        assert flow.acked is not None and flow.received is not None and flow.our_edge is not None
        ack = unwrap(segment.ack, flow.acked)
        if ack < flow.acked:
            raise WireError(f"acknowledges {flow.acked - ack} bytes less than before")
        edge = ack + (segment.wnd << (0 if segment.flags & SYN else flow.scales[1]))
        if segment.wnd:
            self._window_opened(flow, edge)  # this segment may be the one that opens it, and tell what came at once
        if ack > flow.received.complete:
            raise WireError(f"acknowledges {ack - flow.received.complete} bytes the engine was never given")
        flow.acked = ack
        self._check_sack(key, flow, segment, ack)
        if edge < flow.our_edge and not segment.flags & SYN:
            raise WireError(f"moves the window's right edge {flow.our_edge - edge} bytes to the left")
        flow.our_edge = max(edge, flow.our_edge)

    def _check_timestamps(self, key: Key, flow: Flow, segment: Segment) -> None:
        syns = self._given[key].syns if key in self._given and flow.irs is not None else []
        if wrong := flow.timestamps.complaint(
            segment, [syn for syn in syns if syn.seq == (flow.irs or 0) & 0xFFFFFFFF], flow.mixed
        ):
            raise WireError(wrong)

    def _check_sack(self, key: Key, flow: Flow, segment: Segment, ack: int) -> None:
        """Also: a SYN,ACK permits selective acknowledgements only if the peer's SYN, or one like it, did."""
        if not flow.sack.peers and key in self._given:
            flow.sack.peers = any(
                syn.sack_ok for syn in self._given[key].syns if (syn.seq - (flow.irs or 0)) & 0xFFFFFFFF == 0
            )
        if segment.sack_ok and not flow.sack.peers:
            raise WireError("permits selective acknowledgements to a peer whose SYN does not (RFC 2018 section 2)")
        if wrong := flow.sack.complaint(segment, ack, flow):
            raise WireError(wrong)

    def _check_ecn(self, key: Key, flow: Flow, segment: Segment) -> None:
        syns = self._given[key].syns if key in self._given else []
        if segment.flags & SYN:
            wrong = flow.ecn.sent_syn(segment, syns, flow.mixed)
        else:
            flow.ecn.learn(syns)
            seq, ack = unwrap(segment.seq, flow.snd_max), flow.acked or 0
            una = max([flow.una, *(ack for ack, _ in flow.overtaken)])
            wrong = flow.ecn.sent(segment, seq, flow.snd_max, una, ack, self.accurate)
        if wrong:
            raise WireError(wrong)

    def _sent_data(self, flow: Flow, segment: Segment) -> None:
        seq = unwrap(segment.seq, flow.snd_max)
        size, fin = len(segment.payload), bool(segment.flags & FIN)
        end = seq + size
        if self.may_skip and flow.snd_max < seq < flow.snd_max + 0x10000:
            flow.snd_max = flow.sent_base = seq
            flow.sent.clear()
        if not flow.iss <= seq <= flow.snd_max:
            raise WireError(f"sequence number is {seq - flow.snd_max} from the highest sent so far")
        flow.snd_up, wrong = next_up(flow.snd_up, segment, seq, flow.snd_max)
        if wrong:
            raise WireError(wrong)
        if size == 0 and not fin:
            return
        if flow.irs is None:
            raise WireError("data before the peer's SYN")
        if size + (options := room_taken(segment)) > max(flow.peer_mss, SEND_MSS_FLOOR):
            more = f" and {options} of options" if options else ""
            raise WireError(f"{size} bytes{more}, but the peer takes segments of {flow.peer_mss}")
        if seq <= flow.iss:
            raise WireError("data at or before the initial sequence number")
        for ack, edge in flow.overtaken:
            if ack <= flow.snd_max:
                flow.window_edge = max(flow.window_edge, edge)
        flow.overtaken = [each for each in flow.overtaken if each[0] > flow.snd_max]
        flow.resent |= seq < flow.snd_max or end > flow.window_edge
        # One byte (or the FIN) may stand at the edge itself: a window probe.
        if end > flow.window_edge and not (size <= 1 and end <= flow.window_edge + 1):
            raise WireError(f"{end - flow.window_edge} bytes beyond the peer's window")
        if flow.fin is not None and (end > flow.fin or (fin and end != flow.fin)):
            raise WireError("data beyond the FIN, or a second FIN elsewhere")
        if fin:
            if end < flow.snd_max and flow.fin is None:
                raise WireError("FIN inside data already sent")
            flow.fin = end
        if seq < flow.snd_max:
            flow.retransmissions += 1
        self._same_bytes(flow, seq, segment.payload)
        flow.bytes_sent += max(0, end - max(flow.snd_max, seq))
        flow.snd_max = max(flow.snd_max, end + fin)

    def _same_bytes(self, flow: Flow, seq: int, payload: bytes) -> None:
        """What is sent again has to be what was sent before, as long as the peer may still need it.

        A retransmission on its way when the acknowledgement came may find the ring's place used again.
        """
        known = flow.sent_base + len(flow.sent)
        begin = max(seq, flow.sent_base, flow.una)
        old = payload[begin - seq : max(0, known - seq)]
        at = begin - flow.sent_base
        if old and flow.sent[at : at + len(old)] != old:
            raise WireError("retransmission with other bytes than the first time")
        if known >= seq:
            flow.sent += payload[max(0, known - seq) :]

    def _forget_acked(self, flow: Flow) -> None:
        surplus = min(flow.una - flow.sent_base, len(flow.sent))
        if surplus > 65536 or len(flow.sent) > _KEPT_BYTES:
            del flow.sent[:surplus]
            flow.sent_base += surplus

    def _forget(self, before_ns: int) -> None:
        """Forget what has been over since before ``before_ns``."""
        gone: list[Key] = []
        surplus = len(self._given) - self.remembered
        for key, given in self._given.items():
            if given.last_ns >= before_ns and surplus <= len(gone):
                break
            flow = self.flows.get(key)
            if flow is None or (flow.over and (flow.ended_ns < before_ns or surplus > len(gone))):
                gone.append(key)
        for key in gone:
            del self._given[key]
            self.flows.pop(key, None)
        while self.finished and self.finished[0][1].ended_ns < before_ns or len(self.finished) > self.remembered:
            self.finished.popleft()

    @staticmethod
    def _has_ended(flow: Flow, given: Given) -> None:
        """Keep what tells late segments of it from others', and no more: there may be thousands. SYNs are kept: the engine may
        have the next connection's before it."""
        if flow.sent:
            flow.forget_bytes()
        del given.numbers[:-_REMEMBERED_NUMBERS]

    # --- findings ---

    def all_flows(self) -> list[tuple[Key, Flow]]:
        """Every connection seen, oldest first."""
        flows = [*self.finished, *self.flows.items()]
        return sorted(flows, key=lambda item: item[1].started_ns)
