"""Resolver: takes the next frame of three sources in turn and looks up all that its header and its fetch need."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import (
    ACK,
    MOST_SACKS,
    RST,
    SACK_BITS,
    SYN,
    TimeStamp,
    endpoint,
    endpoint_write,
    ip_header_write,
    is_v6,
    next_hop_write,
    peer_fields,
    ring_write,
    tx_control,
    tx_frame,
    tx_segment,
)
from ..wire.apart import APART
from ..wire.headers import ETHERNET_BYTES, ETHERNET_MIN_BYTES, TIMESTAMPS_WORDS
from ..wire.valid_only import valid_only
from .job import (
    NO_HEADER,
    Source,
    exceeds,
    fetch_job,
    frames_inside,
    header_bytes,
    option_words,
    tx_header,
    tx_info,
    versions,
)

RING_LOG2_MAX = 24
"""Of the largest ring (messages.py): address bits from here up are always the base's; those below the smallest ring's
(``cfg.ring_log2_min``) always the position's."""

HOST_FRAMES = 16
"""Host frames between acceptance and their frame_done, so that a frame_done nobody takes holds up host frames only."""


def _fields(cfg: EngineConfig) -> data.StructLayout:
    """Fields of ``tx_header`` that are the source's."""
    return data.StructLayout({
        "seq": 32, "ack": 32, "flags": 8, "wnd": 16, "words": 4, "mss": 16, "ws_present": 1, "ws": 4, "sack_ok": 1,
        "sacks": SACK_BITS, "length": cfg.length_bits, "urgent": 16, "twice": 1, "ts_ok": 1,
    })  # fmt: skip


class Resolver(wiring.Component):
    """Merges segments, control segments and host frames (round robin) and resolves each in three cycles.

    A source's payload is not copied: by the rules of streams it holds until it is taken, and it is taken only when
    its frame leaves for the header builder and the fetcher.

    Timing: with the source's ``valid`` in cycle 0, the tables are read in cycle 0, their outputs and the source's fields
    registered in cycle 1, and ``o`` is valid in cycle 2, when the source's ``ready`` follows ``o.ready``. One frame in
    three cycles. ``o`` comes from flip-flops through a few levels of logic (the next hop's MAC address: and the few words of
    their table), or (addresses) from the source. What there is of every connection is in block memory, however many there are.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    segment, control, host : In streams
        The sources.
    endpoint[2] : In streams of ``endpoint_write``
        Both writers in turn; an entry is used from three cycles later on.
    ring, next_hop, ip_header : In, valid-only
        Table writes, used from two cycles later on.
    ttl, tos : In, 8 bits
        Of segments of no connection, and of connections that have none of their own. The lowest two bits of ``tos`` do not count:
        they are the transport's (RFC 3168 section 5).
    ts_now : In, 32 bits
        The clock of timestamps; a connection's is ISS further (RFC 7323 section 7.1).
    stamp : In, ``TimeStamp``
        TS.Recent of ``segment.payload.id``, two cycles later.
    o : Out stream
        ``header`` (void unless ``header_valid``), ``fetch`` (void unless ``fetch_valid``).
    info : Out, valid-only, ``tx_info``
        One cycle after each transfer of ``o``.
    frame_finished : In
        Pulse: a frame left the transmit path. At most ``frames_inside(cfg)`` are inside.
    host_finished : In
        Pulse: a host frame's frame_done was taken. At most ``HOST_FRAMES`` are without.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "segment": In(stream.Signature(tx_segment(cfg))),
            "control": In(stream.Signature(tx_control(cfg))),
            "host": In(stream.Signature(tx_frame(cfg))),
            "endpoint": In(stream.Signature(endpoint_write(cfg))).array(2),
            "ring": In(valid_only(ring_write(cfg))),
            "next_hop": In(valid_only(next_hop_write(cfg))),
            "ip_header": In(valid_only(ip_header_write(cfg))),
            "ttl": In(8),
            "tos": In(8),
            "ts_now": In(32),
            "stamp": In(TimeStamp),
            "o": Out(wiring.Signature({
                "valid": Out(1), "ready": In(1),
                "header": Out(tx_header(cfg)), "header_valid": Out(1),
                "fetch": Out(fetch_job(cfg)), "fetch_valid": Out(1),
            })),
            "info": Out(valid_only(tx_info(cfg))),
            "frame_finished": In(1),
            "host_finished": In(1),
        })  # fmt: skip

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        segment, control, host = self.segment.payload, self.control.payload, self.host.payload

        # Which source: decided in phase 0, kept to the end of phase 2. The phase's bits are flags of phases 1 and 2.
        phase = Signal(2)
        inside = Signal(range(frames_inside(cfg) + 1))
        hosts = Signal(range(HOST_FRAMES + 1))
        valid = [self.segment.valid, self.control.valid, self.host.valid & ~hosts[-1]]
        taken = self.o.valid & self.o.ready
        is_segment, is_control, is_host = is_source = [
            Signal(name=f"is_{one.name.lower()}", init=one == Source.SEGMENT) for one in Source
        ]
        with m.Switch(phase):
            with m.Case(0):
                m.d.sync += phase[0].eq((valid[0] | valid[1] | valid[2]) & ~inside[-1])
                with m.If(valid[0] | valid[1] | valid[2]):
                    for one in range(3):  # after itself it comes last, after the one before it first
                        before, after = (one + 2) % 3, (one + 1) % 3
                        m.d.sync += is_source[one].eq(valid[one] & (
                            is_source[before] | ~valid[before] & (is_source[after] | ~valid[after])
                        ))  # fmt: skip
            with m.Case(1):
                m.d.sync += phase.eq(2)
            with m.Case(2):
                with m.If(self.o.ready):
                    m.d.sync += phase.eq(0)
        m.d.comb += self.o.valid.eq(phase[1])
        for flag, port in zip(is_source, (self.segment, self.control, self.host), strict=True):
            m.d.comb += port.ready.eq(taken & flag)
        # Counted in phase 1: early enough for the next phase 0, and not behind o.ready.
        m.d.sync += inside.eq(inside + phase[0] - self.frame_finished)
        m.d.sync += hosts.eq(hosts + (phase[0] & is_host) - self.host_finished)

        endpoint_now, endpoint_v6, own, base, log2, hop_mac = self._tables(m)

        # The frame's fields, whichever source: from phase 2 on in registers.
        now = Signal(_fields(cfg), reset_less=True)
        for name in ("seq", "ack", "flags", "wnd", "mss", "ws_present", "ws", "sack_ok"):
            m.d.sync += now[name].eq(Mux(is_segment, segment[name], control[name]))
        syn = Mux(is_segment, segment.flags[SYN], control.flags[SYN])
        ts_ok = Mux(is_segment, segment.ts_ok, control.ts_ok) if cfg.timestamps else Const(0, 1)
        ws_present, sack_ok = (Mux(is_segment, segment[name], control[name]) for name in ("ws_present", "sack_ok"))
        sacks = segment.sacks & (is_segment & ~syn).replicate(SACK_BITS)
        m.d.sync += [
            now.sacks.eq(sacks),
            now.urgent.eq(segment.urgent & is_segment.replicate(16)),
            now.twice.eq(segment.twice),
            # As in option_words.
            now.words.eq(
                (Mux(syn, 1 + ws_present + sack_ok, Cat(sacks.any(), sacks)) + Mux(ts_ok, TIMESTAMPS_WORDS, 0))
                | is_host.replicate(4)
            ),
        ]
        if cfg.timestamps:
            m.d.sync += now.ts_ok.eq(ts_ok)

        # Their lengths: compared with the limits before they are merged. Of IPv6 a segment's endpoint tells, a cycle later.
        unfit, some = Signal(), Signal()  # not to be sent; there is payload
        longest = cfg.max_frame_bytes
        v6: Value = Const(0, 1)
        bad, payload = unfit, some
        if cfg.ipv6:
            wrong_v6 = Signal()
            control_v6 = Signal()  # it fans out to every bit of the header: from flip-flops through one level of logic
            m.d.sync += control_v6.eq(is_v6(control.tuple))
            v6 = Mux(is_segment, endpoint_v6, control_v6 & ~is_host)
            bad, payload = unfit | (wrong_v6 & v6 & is_segment), some & ~(wrong_v6 & v6)
        with m.If(is_host):
            wrong = exceeds(host.length, longest) | (host.length < ETHERNET_BYTES)
            m.d.sync += [now.length.eq(host.length), unfit.eq(wrong), some.eq(~wrong)]
        with m.Elif(is_segment):
            wrong = Signal()
            # Three words of options: a SYN's if it has all but timestamps.
            with m.Switch(Cat(Mux(segment.flags[SYN], 1, segment.sacks), ts_ok)):
                for sacks in range(MOST_SACKS + 1):
                    for stamps in range(2):
                        words = (2 * sacks + 1 if sacks else 0) + stamps * TIMESTAMPS_WORDS
                        with m.Case(sacks | stamps << SACK_BITS):
                            m.d.comb += wrong.eq(exceeds(segment.length, longest - header_bytes(words)))
                            if cfg.ipv6:
                                m.d.sync += wrong_v6.eq(exceeds(segment.length, longest - header_bytes(words, 1)))
            m.d.sync += [now.length.eq(segment.length), unfit.eq(wrong), some.eq(~wrong & (segment.length != 0))]
        with m.Else():
            m.d.sync += [now.length.eq(0), unfit.eq(0), some.eq(0)]

        header, fetch = self.o.header, self.o.fetch
        if cfg.timestamps:
            self._stamps(m, is_segment, now)
        for name, _ in now.shape():
            m.d.comb += header[name].eq(now[name])
        m.d.comb += [
            header.tuple.eq(Mux(is_segment, endpoint_now.tuple, control.tuple)),
            header.dmac.eq(control.dmac),
            *(header[name].eq(Mux(is_segment, endpoint_now[name], control[name])) for name in peer_fields(cfg)),
            header.twice_start.eq(segment.twice_start),
        ]
        with m.If(is_segment):
            m.d.comb += header.dmac.eq(Mux(endpoint_now.use_next_hop, hop_mac, endpoint_now.dmac))
        for name in ("ttl", "tos"):
            m.d.comb += header[name].eq(Mux(is_segment & own.own, own[name], getattr(self, name)))
        m.d.comb += header.tos[:2].eq(Cat(Const(0, 1), is_segment & segment.ect))

        # Geometry, as constants for all that can stand before the payload. before_m1: its bytes, less one.
        lane_bits = ceil_log2(cfg.bytes_per_beat)
        before_m1 = Signal(signed(8))  # up to 113
        start = Signal(5)
        short = Signal()  # to be padded
        rounding = Signal(range(2 * cfg.bytes_per_beat))
        shapes = [(words, each) for words in option_words(cfg) for each in versions(cfg)] + [(NO_HEADER, 0)]
        with m.Switch(Cat(now.words, v6)):
            for words, each in shapes:
                octets = 0 if words == NO_HEADER else header_bytes(words, each)
                with m.Case(words | each << 4):
                    m.d.comb += [
                        before_m1.eq(octets - 1),
                        short.eq(now.length < max(0, ETHERNET_MIN_BYTES - octets)),
                        start.eq(octets // cfg.bytes_per_beat),
                        fetch.dst_offset.eq(octets % cfg.bytes_per_beat),
                        rounding.eq(octets % cfg.bytes_per_beat + cfg.bytes_per_beat - 1),
                    ]
        m.d.comb += [
            self.o.header_valid.eq(~is_host & ~bad),
            self.o.fetch_valid.eq(payload),
            fetch.words.eq((now.length + rounding) >> lane_bits),  # from the payload's first byte to its last
        ]

        # What the sequencer wants to know, one cycle after the rest.
        info, last_byte, pad = self.info.payload, Signal(cfg.length_bits + 1), Signal()
        m.d.sync += [
            self.info.valid.eq(taken),
            info.host.eq(is_host),
            info.bad.eq(bad),
            info.segment.eq(is_segment),
            info.rst.eq(now.flags[RST] & ~is_host),
            info.late.eq(now.sacks.any() & ~bad),  # which has no header, so no sums
            info.payload.eq(payload),
            info.payload_start.eq(start),
            info.id.eq(segment.id),
            last_byte.eq(now.length + before_m1),
            pad.eq(short),
        ]
        if cfg.ipv6:
            m.d.comb += header.v6.eq(v6)
            m.d.sync += info.v6.eq(v6)
        padded = Mux(pad, ETHERNET_MIN_BYTES - 1, last_byte)
        m.d.comb += [
            info.payload_last.eq(last_byte[lane_bits:]),
            info.last.eq(padded[lane_bits:]),
            info.last_lane.eq(padded[:lane_bits]),
        ]

        # A ring address: the position's bits below log2, the base's above.
        ring_addr = Signal(cfg.addr_width)
        m.d.comb += ring_addr.eq(Cat(Const(0, cfg.ring_log2_min), base))
        m.d.comb += ring_addr[: cfg.ring_log2_min].eq(segment.position)
        for bit in range(cfg.ring_log2_min, RING_LOG2_MAX):
            with m.If(log2 > bit):
                m.d.comb += ring_addr[bit].eq(segment.position[bit])
        m.d.comb += [
            fetch.addr.eq(Mux(is_host, host.addr, ring_addr)),
            fetch.length.eq(now.length),
            fetch.wrap_log2.eq(Mux(is_host, 0, log2)),
        ]
        return m

    def _stamps(self, m: Module, is_segment: Value, now):
        """TSval: the clock and ISS, which stands in none of the messages: it is the place in the sequence space less the one in
        the ring, or, without a ring, known by the SYN. TSecr: as asked for, 0 without an ACK (RFC 7323 section 3.2).

        A cookie's TSval is the newest that ends in what it says: so none that follows is less."""
        segment, control, header = self.segment.payload, self.control.payload, self.o.header
        own_iss, their_iss, tsval, tsecr = Signal(32), Signal(32), Signal(32), Signal(32)
        options = control.options.as_value()
        bits = len(options)
        says = control.says_options.replicate(bits)
        m.d.sync += [
            own_iss.eq(segment.seq + ~segment.position),
            # Less what it is to end in: those bits can then be put in without a carry, and never point ahead of the clock.
            their_iss.eq(control.seq - Mux(control.flags[SYN], options & says, 1)),
            tsval.eq(Mux(is_segment, own_iss, their_iss) + self.ts_now),
            tsecr.eq(control.tsecr),
        ]
        echo = Mux(is_segment, self.stamp.tsval & self.stamp.known.replicate(32), tsecr)
        ends_in_options = ~is_segment & control.says_options
        m.d.comb += [
            header.tsval.eq(Cat(Mux(ends_in_options, options, tsval[:bits]), tsval[bits:])),
            header.tsecr.eq(echo & now.flags[ACK].replicate(32)),
        ]

    def _tables(self, m: Module):
        """The tables; for ``segment.payload``, from flip-flops: endpoint, IP header of its own, ring base and log2. The
        next hop's MAC address through its table."""
        cfg, segment = self._cfg, self.segment.payload

        def table(name, shape, write_of, attrs=APART):
            """One of all connections, in block memory; its entry of the segment's, two cycles later."""
            # An endpoint and its ring are not written while segments of the connection are under way.
            m.submodules[name] = made = memory.Memory(shape=shape, depth=cfg.connections, init=[], attrs=attrs)
            write, read = made.write_port(), made.read_port()
            m.d.comb += [*write_of(write), read.addr.eq(segment.id)]
            now = Signal(shape, name=f"{name}_now", reset_less=True)
            m.d.sync += now.eq(read.data)
            return now

        # Endpoints: two writers in turn, through a register.
        turn = Signal()
        first, second = self.endpoint
        m.d.comb += [first.ready.eq(~second.valid | ~turn), second.ready.eq(~first.valid | turn)]
        with m.If(first.valid & second.valid):
            m.d.sync += turn.eq(~turn)
        change = Signal(endpoint_write(cfg), reset_less=True)
        changes = Signal()
        m.d.sync += [
            changes.eq(first.valid | second.valid),
            change.eq(Mux(first.valid & first.ready, first.payload, second.payload)),
        ]
        # With IPv6 a bit says which version it is of.
        entry = data.StructLayout({"endpoint": endpoint(cfg), **({"v6": 1} if cfg.ipv6 else {})})
        entry_now = table("endpoints", entry, lambda write: [
            write.en.eq(changes), write.addr.eq(change.id), write.data.endpoint.eq(change.endpoint),
            *([write.data.v6.eq(is_v6(change.endpoint.tuple))] if cfg.ipv6 else []),
        ])  # fmt: skip

        own_header = data.StructLayout({"own": 1, "ttl": 8, "tos": 8})
        own = table("ip_headers", own_header, lambda write: [
            write.en.eq(self.ip_header.valid), write.addr.eq(self.ip_header.payload.id),
            *(write.data[name].eq(self.ip_header.payload[name]) for name in own_header.members),
        ], attrs={})  # fmt: skip

        # Send rings. The base's low bits are zero by definition, so they are not stored.
        base_bits = cfg.addr_width - cfg.ring_log2_min
        ring_now = table("rings", base_bits + 5, lambda write: [
            write.en.eq(self.ring.valid), write.addr.eq(self.ring.payload.id),
            write.data.eq(Cat(self.ring.payload.base[cfg.ring_log2_min:], self.ring.payload.log2)),
        ])  # fmt: skip

        m.submodules.next_hops = next_hops = memory.Memory(
            shape=48, depth=cfg.next_hops, init=[], attrs={"ram_style": "distributed"}
        )
        write, read = next_hops.write_port(), next_hops.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.next_hop.valid),
            write.addr.eq(self.next_hop.payload.index),
            write.data.eq(self.next_hop.payload.mac),
            read.addr.eq(entry_now.endpoint.next_hop),
        ]
        endpoint_v6 = entry_now.v6 if cfg.ipv6 else Const(0, 1)
        return entry_now.endpoint, endpoint_v6, own, ring_now[:base_bits], ring_now[base_bits:], read.data
