"""Resolver: takes the next frame of three sources in turn and looks up all that its header and its fetch need."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import (
    RST,
    SYN,
    TxControl,
    endpoint,
    endpoint_write,
    next_hop_write,
    ring_write,
    tx_frame,
    tx_segment,
)
from ..wire.headers import ETHERNET_BYTES, ETHERNET_MIN_BYTES, PROTOCOL_TCP, TCP_BYTES
from ..wire.valid_only import valid_only
from .job import (
    Options,
    Source,
    beat_bits,
    fetch_job,
    frames_inside,
    header_bytes,
    payload_start,
    tx_header,
    tx_info,
)

RING_LOG2_MIN, RING_LOG2_MAX = 12, 24
"""Ring sizes (messages.py): bits below are always the position's, bits from the maximum up always the base's."""

HOST_FRAMES = 16
"""Host frames between acceptance and their frame_done, so that a frame_done nobody takes holds up host frames only."""


class Resolver(wiring.Component):
    """Merges segments, control segments and host frames (round robin) and resolves each in three cycles.

    A source's payload is not copied: by the rules of streams it holds until it is taken, and it is taken only when
    its frame leaves for the header builder and the fetcher.

    Timing: with the source's ``valid`` in cycle 0, the tables are read in cycle 0, their outputs registered in
    cycle 1, and ``o`` is valid in cycle 2, when the source's ``ready`` follows ``o.ready``. One frame in three cycles.
    ``o`` comes from flip-flops through about three levels of logic, or (control and host frames) from the source.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    segment, control, host : In streams
        The sources.
    endpoint[2] : In streams of ``endpoint_write``
        Both writers in turn; an entry is used from three cycles later on.
    ring, next_hop : In, valid-only
        Table writes, used from two cycles later on.
    tos, ttl : In, 8 bits
        For the checksum only.
    o : Out stream
        ``header`` (void for host frames), ``fetch`` (void unless ``fetch_valid``), ``info``.
    frame_finished : In
        Pulse: a frame left the transmit path. At most ``frames_inside(cfg)`` are inside.
    host_finished : In
        Pulse: a host frame's frame_done was taken. At most ``HOST_FRAMES`` are without.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "segment": In(stream.Signature(tx_segment(cfg))),
            "control": In(stream.Signature(TxControl)),
            "host": In(stream.Signature(tx_frame(cfg))),
            "endpoint": In(stream.Signature(endpoint_write(cfg))).array(2),
            "ring": In(valid_only(ring_write(cfg))),
            "next_hop": In(valid_only(next_hop_write(cfg))),
            "tos": In(8),
            "ttl": In(8),
            "o": Out(wiring.Signature({
                "valid": Out(1), "ready": In(1),
                "header": Out(tx_header(cfg)), "header_valid": Out(1),
                "fetch": Out(fetch_job(cfg)), "fetch_valid": Out(1),
                "info": Out(tx_info(cfg)),
            })),
            "frame_finished": In(1),
            "host_finished": In(1),
        })  # fmt: skip

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        segment, control, host = self.segment.payload, self.control.payload, self.host.payload

        # Which source: decided in phase 0, kept to the end of phase 2.
        phase = Signal(range(3))
        source = Signal(Source)
        inside = Signal(range(frames_inside(cfg) + 1))
        hosts = Signal(range(HOST_FRAMES + 1))
        valid = Array([
            self.segment.valid, self.control.valid, self.host.valid & ~hosts[-1],
        ])  # fmt: skip
        taken = self.o.valid & self.o.ready
        with m.Switch(phase):
            with m.Case(0):
                with m.Switch(source):
                    for last in Source:
                        with m.Case(last):
                            order = [Source((last.value + step) % 3) for step in (1, 2, 3)]
                            for one in reversed(order):
                                with m.If(valid[one.value]):
                                    m.d.sync += source.eq(one)
                m.d.sync += phase.eq((valid[0] | valid[1] | valid[2]) & ~inside[-1])
            with m.Case(1):
                m.d.sync += phase.eq(2)
            with m.Case(2):
                with m.If(self.o.ready):
                    m.d.sync += phase.eq(0)
        m.d.comb += self.o.valid.eq(phase == 2)
        is_segment, is_control, is_host = (Signal(name=f"is_{one.name.lower()}") for one in Source)
        for one, flag, port in zip(
            Source, (is_segment, is_control, is_host), (self.segment, self.control, self.host), strict=True
        ):
            m.d.comb += [flag.eq(source == one), port.ready.eq(taken & flag)]
        m.d.sync += inside.eq(inside + taken - self.frame_finished)
        m.d.sync += hosts.eq(hosts + (taken & is_host) - self.host_finished)

        endpoint_now, base, log2, hop_mac = self._tables(m)

        # The segment's fields, whichever source.
        header, info, fetch = self.o.header, self.o.info, self.o.fetch
        ws_present, length = Signal(), Signal(12)
        for name in ("seq", "ack", "flags", "wnd", "mss", "ws"):
            m.d.comb += header[name].eq(Mux(is_segment, segment[name], control[name]))
        syn = header.flags[SYN]
        m.d.comb += [
            ws_present.eq(Mux(is_segment, segment.ws_present, control.ws_present)),
            length.eq(Mux(is_host, host.length, Mux(is_segment, segment.length, 0))),
            Value.cast(header.options).eq(Mux(syn, Mux(ws_present, Options.MSS_WS, Options.MSS), Options.NONE)),
            header.tuple.eq(Mux(is_segment, endpoint_now.tuple, control.tuple)),
            header.dmac.eq(control.dmac),
        ]
        with m.If(is_segment):
            m.d.comb += header.dmac.eq(Mux(endpoint_now.use_next_hop, hop_mac, endpoint_now.dmac))

        self._sums(m, header, ws_present, length, taken & ~is_host)

        # Geometry. last_byte: index of the frame's last byte before padding, from phase 2 on.
        last_byte = Signal(13)
        some = Signal()
        m.d.sync += some.eq(length != 0)
        lane_bits = ceil_log2(cfg.bytes_per_beat)
        start, dst_offset = Signal.like(info.payload_start), Signal.like(fetch.dst_offset)
        with m.If(is_host):
            m.d.sync += last_byte.eq(length - 1)
        with m.Else():
            with m.Switch(header.options):
                for options in Options:
                    with m.Case(options):
                        m.d.sync += last_byte.eq(length + (header_bytes(options) - 1))
                        m.d.comb += [
                            start.eq(payload_start(cfg, options)),
                            dst_offset.eq(header_bytes(options) % cfg.bytes_per_beat),
                        ]
        too_long = last_byte >= cfg.max_frame_bytes
        too_short = is_host & (last_byte < ETHERNET_BYTES - 1)
        padded = Mux(last_byte < ETHERNET_MIN_BYTES - 1, ETHERNET_MIN_BYTES - 1, last_byte)
        m.d.comb += [
            info.host.eq(is_host),
            info.bad.eq(too_long | too_short),
            info.segment.eq(is_segment),
            info.rst.eq(header.flags[RST] & ~is_host),
            info.payload.eq(some & ~info.bad),
            info.payload_start.eq(start),
            info.payload_last.eq(last_byte[lane_bits:]),
            info.last.eq(padded[lane_bits:]),
            info.last_lane.eq(padded[:lane_bits]),
            info.id.eq(segment.id),
            self.o.header_valid.eq(~is_host & ~info.bad),
            self.o.fetch_valid.eq(info.payload),
        ]

        # A ring address: the position's bits below log2, the base's above.
        ring_addr = Signal(cfg.addr_width)
        m.d.comb += ring_addr.eq(Cat(Const(0, RING_LOG2_MIN), base))
        m.d.comb += ring_addr[:RING_LOG2_MIN].eq(segment.position)
        for bit in range(RING_LOG2_MIN, RING_LOG2_MAX):
            with m.If(log2 > bit):
                m.d.comb += ring_addr[bit].eq(segment.position[bit])
        m.d.comb += [
            fetch.addr.eq(Mux(is_host, host.addr, ring_addr)),
            fetch.length.eq(length),
            fetch.wrap_log2.eq(Mux(is_host, 0, log2)),
            fetch.dst_offset.eq(dst_offset),
            fetch.words.eq(last_byte[lane_bits:][:beat_bits(cfg)] - start + 1),
        ]
        return m

    def _tables(self, m: Module):
        """The tables; for ``segment.payload``, from flip-flops: endpoint, ring base and log2, next-hop MAC."""
        cfg, segment = self._cfg, self.segment.payload

        # Endpoints: two writers in turn, through a register.
        m.submodules.endpoints = endpoints = memory.Memory(
            shape=endpoint(cfg), depth=cfg.connections, init=[]
        )
        write, read = endpoints.write_port(), endpoints.read_port()
        turn = Signal()
        first, second = self.endpoint
        m.d.comb += [
            first.ready.eq(~second.valid | ~turn),
            second.ready.eq(~first.valid | turn),
            read.addr.eq(segment.id),
        ]
        with m.If(first.valid & second.valid):
            m.d.sync += turn.eq(~turn)
        chosen = Mux(first.valid & first.ready, first.payload, second.payload)
        register = Signal(endpoint_write(cfg))
        m.d.sync += [write.en.eq(first.valid | second.valid), register.eq(chosen)]
        m.d.comb += [write.addr.eq(register.id), write.data.eq(register.endpoint)]
        endpoint_now = Signal(endpoint(cfg))
        m.d.sync += endpoint_now.eq(read.data)

        # Send rings. The base's low bits are zero by definition, so they are not stored.
        stored = cfg.addr_width - RING_LOG2_MIN
        m.submodules.rings = rings = memory.Memory(shape=stored + 5, depth=cfg.connections, init=[])
        write, read = rings.write_port(), rings.read_port()
        m.d.comb += [
            write.en.eq(self.ring.valid),
            write.addr.eq(self.ring.payload.id),
            write.data.eq(Cat(self.ring.payload.base[RING_LOG2_MIN:], self.ring.payload.log2)),
            read.addr.eq(segment.id),
        ]
        base, log2 = Signal(stored), Signal(5)
        m.d.sync += Cat(base, log2).eq(read.data)

        m.submodules.next_hops = next_hops = memory.Memory(shape=48, depth=cfg.next_hops, init=[])
        write, read = next_hops.write_port(), next_hops.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.next_hop.valid),
            write.addr.eq(self.next_hop.payload.index),
            write.data.eq(self.next_hop.payload.mac),
            read.addr.eq(endpoint_now.next_hop),
        ]
        return endpoint_now, base, log2, read.data

    def _sums(self, m: Module, header, ws_present, length, taken):
        """Begin both checksums: everything that does not wait for the endpoint.

        Registers behind phase 1, so their sum is ready in phase 2.
        """
        # All constants of the TCP header and the pseudo header: data offset, protocol, length, options.
        constants = Signal(16)
        octets = TCP_BYTES + PROTOCOL_TCP
        with m.Switch(header.options):
            with m.Case(Options.NONE):
                m.d.comb += constants.eq(0x5000 + octets)
            with m.Case(Options.MSS):
                m.d.comb += constants.eq(0x6000 + octets + 4 + 0x0204)
            with m.Case(Options.MSS_WS):
                m.d.comb += constants.eq(0x7000 + octets + 8 + 0x0204 + 0x0103 + 0x0300 + header.ws)
        identification = Signal(16)
        with m.If(taken):
            m.d.sync += identification.eq(identification + 1)

        high, low, rest, ip_rest = Signal(18), Signal(18), Signal(18), Signal(18)
        always = Signal(17)
        mss = Mux(header.flags[SYN], header.mss, 0)
        ip_octets = Signal(7)
        with m.Switch(header.options):
            for options in Options:
                with m.Case(options):
                    m.d.comb += ip_octets.eq(header_bytes(options) - ETHERNET_BYTES)
        m.d.sync += [
            high.eq(header.seq[16:] + header.ack[16:] + header.wnd),
            low.eq(header.seq[:16] + header.ack[:16] + mss),
            rest.eq(constants + header.flags + length),
            header.total_length.eq(length + ip_octets),
            ip_rest.eq(identification + length + ip_octets),
            # Version, header length, TOS; don't fragment; TTL, protocol.
            always.eq(Cat(self.tos, Const(0x85, 8)) + Cat(Const(PROTOCOL_TCP, 8), self.ttl)),
        ]
        m.d.comb += [
            header.identification.eq(identification),
            header.tcp_sum.eq(high + low + rest),
            header.ip_sum.eq(ip_rest + always),
        ]

