"""Checksums of received frames (RFC 1071): IPv4 header; TCP with its pseudo header (RFC 9293 section 3.1,
RFC 8200 section 8.1)."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from .position import IP_WORD, fixed_beats, padded_word, version_is_6

_IP_ACC_BITS = 21

_PSEUDO_HALVES = 2
"""Half words of a pseudo header besides its addresses."""

_IP_HALF = 7
"""Half word of the frame with which the IP header begins."""

_ADDRESS_HALVES = (13, 14, 15, 16)
"""Half words of the frame with the IP addresses, those of the pseudo header."""

_ADDRESS_HALVES_V6 = range(11, 27)
"""Likewise of an IPv6 header."""

_IPV6_BYTES = 40


class RxChecksum(wiring.Component):
    """Adds up the IP header and the TCP segment of every frame as its beats go by.

    Sums do not depend on where half words stand, so beats are taken as they are: no bytes hang over at a frame's end.

    The TCP sum takes the bytes from the TCP header to the end that IP's total length names, so Ethernet padding is left
    out; then the addresses and the pseudo header's protocol and length.

    Timing: ``ip_good`` and ``tcp_good`` are valid ``latency`` cycles after the frame's last beat, for one cycle. Frames
    may follow each other without a gap.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` and ``max_frame_bytes`` are used.

    Members
    -------
    valid : In(1)
        A beat is there.
    bytes : In(data_width + 16)
        The two bytes before it, and it.
    at, after_ip, tcp_word : In
        Its position, from ``FramePosition``.
    tcp_length : Out(signed(17))
        IP's total length minus the IP header, negative if that is longer; valid two cycles after the beat with word 4
        and until the next frame's.
    ip_good, tcp_good : Out(1)
        The sums are right. Not defined for frames that end before their headers do; ``ip_good`` not for IPv6, whose header has
        no sum.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        self._lanes = cfg.data_width // 32
        self._levels = (cfg.data_width // 16).bit_length() - 1
        self.latency = 3 + self._levels
        beats = fixed_beats(cfg)
        super().__init__({
            "valid": In(1), "bytes": In(cfg.data_width + 16),
            "at": In(beats), "after_ip": In(1), "tcp_word": In(signed(6)),
            "tcp_length": Out(signed(17)), "ip_good": Out(1), "tcp_good": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        size = self._cfg.bytes_per_beat
        halves = size // 2
        first = padded_word(self.bytes, IP_WORD % self._lanes)
        ip_index = IP_WORD // self._lanes
        ip_at = _IP_HALF - ip_index * halves  # where in the beat with word 4 its header begins; -1: in the one before
        ip_beat = Signal()
        header_begins = Signal()
        m.d.comb += [
            ip_beat.eq(self.valid & self.at[ip_index]),
            header_begins.eq(self.valid & self.at[ip_index - (ip_at < 0)]),
        ]

        # IPv6: from its first word's beat on, which has its length too.
        v6: Value = Signal()
        total_now, ihl_now = first[:16], first[24:28]
        if self._cfg.ipv6:
            kept = Signal()
            v6 = Mux(ip_beat, version_is_6(self._cfg, self.bytes), kept)
            with m.If(ip_beat):
                m.d.sync += kept.eq(v6)
            length = padded_word(self.bytes, (IP_WORD + 1) % self._lanes)[16:]
            total_now, ihl_now = Mux(v6, length + _IPV6_BYTES, total_now), Mux(v6, _IPV6_BYTES // 4, ihl_now)

        # Length of the segment, and of what is left of the datagram at this beat.
        ihl = Signal(4)
        total = Signal(16)
        left = Signal(signed(17))
        header_less_6 = Signal(signed(7))
        tcp_length_6 = Signal(signed(17))  # with the pseudo header's protocol number
        with m.If(ip_beat):
            m.d.sync += [ihl.eq(ihl_now), total.eq(total_now), left.eq(total_now - 2 * (halves - ip_at))]
        with m.Elif(self.valid & ~left[-1]):
            m.d.sync += left.eq(left - size)
        with m.Switch(ihl):  # a table, so that there is one carry chain only
            for value in range(16):
                with m.Case(value):
                    m.d.comb += header_less_6.eq(4 * value - 6)
        m.d.sync += tcp_length_6.eq(total - header_less_6)
        addend: Value = tcp_length_6[:16]
        if ip_index == 0:  # frames of two beats: the next one's would be there before the sum of this one begins
            for stage in range(self._levels - 1):
                later = Signal(16, name=f"tcp_length_6_{stage}")
                m.d.sync += later.eq(addend)
                addend = later
        m.d.sync += self.tcp_length.eq(total - (ihl << 2))

        # Stage 1: which bytes count. A beat's first half word is the second one of lane 0, its last one belongs to
        # the word after its lanes. In the beat with word 4 all from there on is header of any datagram, and for TCP only the
        # addresses count.
        data = Signal(self._cfg.data_width)
        tcp_mask = Signal(size)
        ip_mask = Signal(halves)
        m.d.sync += data.eq(self.bytes[16:])
        for half in range(halves):
            lane = (half + 1) // 2
            behind_ip = self.after_ip & (self.tcp_word >= -lane)
            header = self.after_ip & (self.tcp_word < -lane)
            if half >= ip_at:
                header |= self.at[ip_index]
            if half == halves + ip_at:
                header |= self.at[ip_index - 1]
            m.d.sync += ip_mask[half].eq(self.valid & header)
            address, address_v6 = (
                Cat(self.at[number // halves] for number in numbers if number % halves == half).any()
                for numbers in (_ADDRESS_HALVES, _ADDRESS_HALVES_V6 if self._cfg.ipv6 else ())
            )
            if self._cfg.ipv6:
                address = Mux(v6, address_v6, address)
            for byte in (2 * half, 2 * half + 1):
                inside = ~left[-1] & (left[size.bit_length() - 1 : 16].any() | (left[: size.bit_length() - 1] > byte))
                m.d.sync += tcp_mask[byte].eq(self.valid & (address | (behind_ip & inside)))

        # Stages 2 and up: a tree of half words.
        tcp_terms, ip_terms = [], []
        for half in range(halves):
            high, low = data.word_select(2 * half, 8), data.word_select(2 * half + 1, 8)
            keep_high, keep_low = tcp_mask[2 * half], tcp_mask[2 * half + 1]
            tcp_terms.append(Cat(low & keep_low.replicate(8), high & keep_high.replicate(8)))
            ip_terms.append(Cat(low, high) & ip_mask[half].replicate(16))
        for level in range(self._levels):
            for terms, name in ((tcp_terms, "tcp"), (ip_terms, "ip")):
                pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=True)]
                for index, pair in enumerate(pairs):
                    added = Signal(len(pair), name=f"{name}_sum{level}_{index}")
                    m.d.sync += added.eq(pair)
                    pairs[index] = added
                terms[:] = pairs

        # The accumulators start anew with the header; the pseudo header's length comes in with word 4.
        begin = Cat(header_begins, ip_beat)
        for stage in range(1 + self._levels):
            delayed = Signal(2, name=f"begin{stage + 1}")
            m.d.sync += delayed.eq(begin)
            begin = delayed
        ip_acc = Signal(_IP_ACC_BITS)
        tcp_acc = Signal(16 + ceil_log2(self._cfg.max_frame_bytes // 2 + _PSEUDO_HALVES))
        m.d.sync += [
            ip_acc.eq(Mux(begin[0], 0, ip_acc) + ip_terms[0]),
            tcp_acc.eq(Mux(begin[1], addend, tcp_acc) + tcp_terms[0]),
        ]
        # Carries into bit 16 fold to 0xFFFF only if both halves are all ones, but there are not nearly so many carries.
        ip_total = Signal(16)
        tcp_total = Signal(16)
        m.d.sync += [
            ip_total.eq(ip_acc[:16] + ip_acc[16:]),
            tcp_total.eq(tcp_acc[:16] + tcp_acc[16:]),
        ]
        m.d.comb += [self.ip_good.eq(ip_total.all()), self.tcp_good.eq(tcp_total.all())]
        return m
