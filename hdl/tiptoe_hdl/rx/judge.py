"""What becomes of a received frame: the TCP engine's, the host's, or discarded and counted.

Ethernet II; IPv4 (RFC 791, RFC 1122 section 3.2.1); IPv6 (RFC 8200 section 3, RFC 4291 sections 2.5 and 2.7) where it is built
in; TCP (RFC 9293: MUST-3 checksum, MUST-50 IP options, MUST-63 source address). In this order:

1. Bad frame: stream error, a hole in ``keep``, shorter than its Ethernet or IP header, longer than ``max_frame_bytes``.
2. Of another network (``untag``): discarded. Unicast to another MAC address: discarded, or the host's as it is when
   ``promiscuous``.
3. Not IPv4, or IPv6: the host's.
4. Bad IP header: version, IHL, checksum, total length behind the frame's end or inside the header.
5. TCP, not a fragment, to our MAC and IP address: the engine's if its source address and its TCP header are good. Behind
   extension headers of IPv6 it is the host's.
6. Everything else: the host's.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from .addresses_v6 import AddressesV6
from .checksum import RxChecksum
from .position import IP_WORD, IPV6_WORDS, FramePosition, ihl_of, padded_word, version_is_6

_ETHERTYPE_IPV4 = 0x0800
_ETHERTYPE_IPV6 = 0x86DD
_PROTOCOL_TCP = 6
_ETHERNET_BYTES = 14
_TCP_HEADER_BYTES = 20


def decision(cfg: EngineConfig) -> data.StructLayout:
    """``end``: a frame ends here; it is kept (``commit``) for the engine or for the host; its length in bytes."""
    return data.StructLayout({"end": 1, "commit": 1, "to_host": 1, "length": cfg.length_bits})


def is_invalid_source(address: Value) -> Value:
    """1 bit: no host has this IPv4 address (RFC 1122 section 3.2.1.3): 0/8, 127/8, multicast, limited broadcast."""
    top = address[24:32]
    return (top == 0) | (top == 127) | (top[4:] == 0xE) | address.all()


class RxJudge(wiring.Component):
    """Looks at the beats of frames and says at their end what they are; the checksums are part of it.

    Timing: ``o`` is valid ``latency`` cycles after a frame's last beat, for one cycle, out of flip-flops; the counters'
    pulses come with it (``count_rx_frames``: one cycle after a frame's first beat). Never stalls.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    valid, last, error, foreign : In(1)
        A beat is there; ``error`` and ``foreign``, of another network, count in the last.
    keep : In(bytes_per_beat)
        Its bytes.
    bytes : In(data_width + 16)
        The two bytes before it, and it: its words, see ``position``.
    mac : In(48), ip : In(32), promiscuous : In(1)
        The engine's addresses; constant while frames are under way.
    ip6 : In(128)
        With IPv6: that address; 0: there is none, and all of IPv6 is the host's.
    inside : Out(1)
        The beat that is there lies within the first ``max_frame_bytes``, rounded up to beats.
    o : Out(decision(cfg))
    count_rx_frames, count_rx_bad_frame, count_rx_not_for_us, count_rx_bad_ip, count_rx_bad_tcp, \
    count_rx_tcp_segments, count_rx_host_frames : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        self._checksum = RxChecksum(cfg)
        self.latency = self._checksum.latency + 1
        super().__init__({
            "valid": In(1), "last": In(1), "error": In(1), "foreign": In(1), "keep": In(cfg.bytes_per_beat),
            "bytes": In(cfg.data_width + 16),
            "mac": In(48), "ip": In(32), "promiscuous": In(1), **({"ip6": In(128)} if cfg.ipv6 else {}),
            "inside": Out(1), "o": Out(decision(cfg)),
            "count_rx_frames": Out(1), "count_rx_bad_frame": Out(1), "count_rx_not_for_us": Out(1),
            "count_rx_bad_ip": Out(1), "count_rx_bad_tcp": Out(1),
            "count_rx_tcp_segments": Out(1), "count_rx_host_frames": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        m.submodules.position = position = FramePosition(cfg)
        m.submodules.checksum = checksum = self._checksum
        m.d.comb += [
            position.valid.eq(self.valid),
            position.last.eq(self.last),
            position.ihl.eq(ihl_of(cfg, self.bytes)),
            checksum.valid.eq(self.valid),
            checksum.bytes.eq(self.bytes),
            checksum.at.eq(position.at),
            checksum.after_ip.eq(position.after_ip),
            checksum.tcp_word.eq(position.tcp_word),
        ]
        length, long = self._measure(m)

        # Cycle 1: what the headers say, complete after the last beat.
        mac_high, mac_low, group, ipv4, version, fragment, tcp, source, destination = (
            Signal(name=name) for name in (
                "mac_high", "mac_low", "group", "ipv4", "version", "fragment", "tcp", "source", "destination"
            )
        )  # fmt: skip
        ihl, total, data_offset = Signal(4), Signal(17 if cfg.ipv6 else 16), Signal(4)
        lanes = cfg.data_width // 32

        def at_word(number):
            return m.If(self.valid & position.is_word(number))

        def word(number):
            return padded_word(self.bytes, number % lanes)

        with at_word(0):
            m.d.sync += [mac_high.eq(word(0)[:16] == self.mac[32:]), group.eq(word(0)[8])]
        with at_word(1):
            m.d.sync += mac_low.eq(word(1) == self.mac[:32])
        ipv6, version_6, tcp_6 = (Signal(name=name) for name in ("ipv6", "version_6", "tcp_6"))
        with at_word(3):
            m.d.sync += ipv4.eq(word(3)[:16] == _ETHERTYPE_IPV4)
            if cfg.ipv6:
                m.d.sync += ipv6.eq(word(3)[:16] == _ETHERTYPE_IPV6)
        with at_word(4):
            m.d.sync += [version.eq(word(4)[28:] == 4), ihl.eq(word(4)[24:28]), total.eq(word(4)[:16])]
        with at_word(5):
            m.d.sync += fragment.eq(word(5)[:14].any())  # more fragments, or an offset
        with at_word(6):
            m.d.sync += tcp.eq(word(6)[16:24] == _PROTOCOL_TCP)
        with at_word(7):
            m.d.sync += source.eq(~(is_invalid_source(word(7)) | (word(7) == self.ip)))
        with at_word(8):
            m.d.sync += destination.eq(word(8) == self.ip)
        for lane in range(lanes):
            with m.If(self.valid & position.is_tcp_word(3, lane)):
                m.d.sync += data_offset.eq(padded_word(self.bytes, lane)[28:])
        if cfg.ipv6:
            addresses = AddressesV6(m, at_word, word, self.ip6)
            with at_word(IP_WORD):
                m.d.sync += version_6.eq(version_is_6(cfg, self.bytes))
            with at_word(IP_WORD + 1):
                m.d.sync += tcp_6.eq(word(IP_WORD + 1)[8:16] == _PROTOCOL_TCP)
                with m.If(version_is_6(cfg, self.bytes)):  # both words are in one beat
                    m.d.sync += total.eq(word(IP_WORD + 1)[16:] + 4 * IPV6_WORDS)
        total_with_ethernet = Signal(len(total) + 1)
        m.d.sync += total_with_ethernet.eq(total + _ETHERNET_BYTES)
        end = Signal()
        error = Signal()
        foreign = Signal()
        hole = Signal()
        holes = Signal()
        m.d.comb += hole.eq(_has_hole(self.keep, self.last))
        m.d.sync += [
            end.eq(self.valid & self.last), error.eq(self.error | hole | holes), foreign.eq(self.foreign),
        ]  # fmt: skip
        with m.If(self.valid):
            m.d.sync += holes.eq(~self.last & (holes | hole))

        # Cycle 2: comparisons.
        tcp_length = checksum.tcp_length
        seen = Signal(data.StructLayout({
            "end": 1, "bad": 1, "runt_ip": 1, "foreign": 1, "ours": 1, "group": 1, "ip": 1, "bad_ip": 1, "engine": 1,
            "bad_source": 1, "bad_tcp": 1, **({"ipv6": 1} if cfg.ipv6 else {}),
        }))  # fmt: skip
        m.d.sync += [
            seen.end.eq(end),
            # One of another network has a tag, which makes it longer.
            seen.bad.eq(error | (long & ~foreign) | (length < _ETHERNET_BYTES)),
            seen.runt_ip.eq(length < _ETHERNET_BYTES + 20),
            seen.foreign.eq(foreign),
            seen.ours.eq(mac_high & mac_low),
            seen.group.eq(group),
            seen.ip.eq(ipv4),
            seen.bad_ip.eq(~version | (ihl < 5) | tcp_length[-1] | (total_with_ethernet > length)),
            seen.engine.eq(tcp & ~fragment & destination & mac_high & mac_low),
            seen.bad_source.eq(~source),
            # A short segment: the data offset is not even inside it.
            seen.bad_tcp.eq((tcp_length < _TCP_HEADER_BYTES) | (data_offset < 5) | (tcp_length < (data_offset << 2))),
        ]

        if cfg.ipv6:
            m.d.sync += [seen.ipv6.eq(ipv6), seen.ip.eq(ipv4 | ipv6)]
            with m.If(ipv6):
                m.d.sync += [
                    seen.runt_ip.eq(length < _ETHERNET_BYTES + 4 * IPV6_WORDS),
                    seen.bad_ip.eq(~version_6 | (total_with_ethernet > length)),
                    seen.engine.eq(tcp_6 & addresses.destination & mac_high & mac_low),
                    seen.bad_source.eq(~addresses.source),
                ]

        # Cycle 3: kinds, then wait for the checksums.
        kind = Signal(data.StructLayout({
            "end": 1, "bad": 1, "other": 1, "host": 1, "check_ip": 1, "bad_ip": 1, "engine": 1, "bad_tcp": 1,
            **({"ipv6": 1} if cfg.ipv6 else {}),
        }))  # fmt: skip
        bad = seen.bad | (seen.ip & seen.runt_ip)
        accepted = (seen.ours | seen.group) & ~seen.foreign
        overheard = self.promiscuous & ~seen.foreign
        m.d.sync += [
            kind.end.eq(seen.end),
            kind.bad.eq(seen.end & bad),
            kind.other.eq(seen.end & ~bad & ~accepted & ~overheard),
            kind.host.eq(seen.end & ~bad & Mux(accepted, ~seen.ip, overheard)),
            kind.check_ip.eq(seen.end & ~bad & accepted & seen.ip),
            kind.bad_ip.eq(seen.bad_ip | (seen.engine & seen.bad_source)),
            kind.engine.eq(seen.engine),
            kind.bad_tcp.eq(seen.bad_tcp),
        ]
        if cfg.ipv6:
            m.d.sync += kind.ipv6.eq(seen.ipv6)
        for cycle in range(4, self.latency):
            later = Signal.like(kind, name=f"kind{cycle}")
            m.d.sync += later.eq(kind)
            kind = later
        for cycle in range(2, self.latency):
            later = Signal.like(length, name=f"length{cycle}")
            m.d.sync += later.eq(length)
            length = later

        # The decision.
        sum_good = checksum.ip_good | kind.ipv6 if cfg.ipv6 else checksum.ip_good
        ip_good = kind.check_ip & ~kind.bad_ip & sum_good
        tcp_good = ~kind.bad_tcp & checksum.tcp_good
        to_engine = ip_good & kind.engine & tcp_good
        to_host = kind.host | (ip_good & ~kind.engine)
        m.d.sync += [
            self.o.end.eq(kind.end),
            self.o.commit.eq(to_engine | to_host),
            self.o.to_host.eq(to_host),
            self.o.length.eq(length),
            self.count_rx_frames.eq(self.valid & position.at[0]),
            self.count_rx_bad_frame.eq(kind.bad),
            self.count_rx_not_for_us.eq(kind.other),
            self.count_rx_bad_ip.eq(kind.check_ip & (kind.bad_ip | ~sum_good)),
            self.count_rx_bad_tcp.eq(ip_good & kind.engine & ~tcp_good),
            self.count_rx_tcp_segments.eq(to_engine),
            self.count_rx_host_frames.eq(to_host),
        ]
        return m

    def _measure(self, m: Module) -> tuple[Signal, Value]:
        """The frame's length in bytes, and whether it is too long, in the cycle after its last beat.

        ``beats`` stops one beat behind the limit, so no length wraps round.
        """
        cfg = self._cfg
        limit = cfg.frame_words
        beats = Signal(range(limit + 2))
        length = Signal(range((limit + 2) * cfg.bytes_per_beat + 1))
        m.d.comb += self.inside.eq(beats < limit)
        count = Signal(range(cfg.bytes_per_beat + 1))
        with m.Switch(self.keep):
            for kept in range(cfg.bytes_per_beat):
                with m.Case("-" * (cfg.bytes_per_beat - kept - 1) + "0" + "1" * kept):
                    m.d.comb += count.eq(kept)
            with m.Default():
                m.d.comb += count.eq(cfg.bytes_per_beat)
        with m.If(self.valid):
            m.d.sync += beats.eq(Mux(self.last, 0, Mux(beats == limit + 1, beats, beats + 1)))
        zeros = Const(0, cfg.bytes_per_beat.bit_length() - 1)
        m.d.sync += length.eq(Cat(zeros, beats) + count)
        return length, length > cfg.max_frame_bytes


def _has_hole(keep: Value, last: Value) -> Value:
    """1 bit: the bytes of this beat are not contiguous from bit 0, or not all there before the last beat."""
    return Mux(last, (keep[1:] & ~keep[:-1]).any(), ~keep.all())
