"""Header builder: Ethernet, IPv4 (RFC 791) and TCP (RFC 9293) header of a segment, word by word, and its checksums."""

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import SYN
from ..wire.headers import (
    ETHERNET,
    ETHERNET_BYTES,
    ETHERTYPE_IPV4,
    IPV4,
    IPV4_BYTES,
    OPTION_BYTES,
    OPTION_MSS,
    OPTION_NOP,
    OPTION_WINDOW_SCALE,
    PROTOCOL_TCP,
    TCP,
    TCP_BYTES,
    TCP_MSS,
    TCP_NOP_WINDOW_SCALE,
    Layout,
    byte_of,
    pack,
)
from ..wire.valid_only import valid_only
from .job import (
    SLOT_BYTES,
    HeaderSums,
    Options,
    frames_inside,
    header_bytes,
    header_word,
    payload_start,
    slot_words,
    tx_header,
)
from .outlet import Outlet


def wire_bytes(header, total_length, identification, mac) -> list[Value]:
    """The header's bytes in the order of the wire, with places for both options; checksums and what is unused zero."""
    syn = header.flags[SYN]
    scaled = header.options == Options.MSS_WS
    ethernet = pack(ETHERNET, {"destination": header.dmac, "source": mac, "ethertype": ETHERTYPE_IPV4})
    ipv4 = pack(IPV4, {
        "version": 4, "ihl": IPV4_BYTES // 4, "tos": header.tos, "total_length": total_length,
        "identification": identification,
        "reserved": 0, "dont_fragment": 1, "more_fragments": 0, "fragment_offset": 0,
        "ttl": header.ttl, "protocol": PROTOCOL_TCP, "checksum": 0,
        "source": header.tuple.laddr, "destination": header.tuple.faddr,
    })  # fmt: skip
    data_offset = TCP_BYTES // 4 + Value.cast(header.options)  # an option of either kind is one word
    tcp = pack(TCP, {
        "source_port": header.tuple.lport, "destination_port": header.tuple.fport,
        "seq": header.seq, "ack": header.ack, "data_offset": data_offset, "reserved": 0,
        "flags": header.flags, "wnd": header.wnd, "checksum": 0, "urgent": 0,
    })  # fmt: skip
    mss = pack(TCP_MSS, {"kind": OPTION_MSS, "length": 4, "mss": header.mss})
    scale = pack(TCP_NOP_WINDOW_SCALE, {
        "nop": OPTION_NOP, "kind": OPTION_WINDOW_SCALE, "length": 3, "shift": header.ws,
    })  # fmt: skip
    assert len(mss) == len(scale) == OPTION_BYTES
    options = [byte & syn.replicate(8) for byte in mss] + [byte & scaled.replicate(8) for byte in scale]
    octets = ethernet + ipv4 + tcp + options
    return octets + [Const(0, 8)] * (SLOT_BYTES - len(octets))


def _loaded(now: Value, front: int, layout: Layout, name: str) -> Value:
    """A field of the header behind ``front`` bytes, from its bytes in the order of the wire."""
    first, size = front + byte_of(layout, name), layout[name][1] // 8
    return Cat(now.word_select(byte, 8) for byte in reversed(range(first, first + size)))


class HeaderBuilder(wiring.Component):
    """Writes one word of the header a cycle, without a pause from the first to the last.

    Timing: with the header taken in cycle 0, words come in cycles 1 to 1 + payload_start (``o_word`` from
    flip-flops); the sums are valid in cycle 5. The next header is taken in the last word's cycle.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    i : In stream of ``tx_header``
    mac : In
        The Ethernet source address. Must not change while frames go out.
    o_word : Out, valid-only, ``header_word``
        Words for the header memory, in slots of 64 bytes, in the order of the headers.
    o_sums : Out stream of ``HeaderSums``
        Never blocks: it has room for all frames inside.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(stream.Signature(tx_header(cfg))),
                "mac": In(48),
                "o_word": Out(valid_only(header_word(cfg))),
                "o_sums": Out(stream.Signature(HeaderSums)),
            }
        )

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        header = self.i.payload
        words = slot_words(cfg)
        active = Signal()
        free = Signal(init=1)  # no word, or the last one
        penultimate = Signal(range(words))
        index = Signal(range(words))
        slot = Signal(range(frames_inside(cfg)))
        identification = Signal(16)
        total_length = Signal(12)
        load, loaded = Signal(), Signal()
        m.d.comb += [self.i.ready.eq(free), load.eq(self.i.valid & free)]
        m.d.sync += [loaded.eq(load), identification.eq(identification + loaded)]
        with m.If(free):
            m.d.sync += [index.eq(0), slot.eq(slot + active), active.eq(self.i.valid), free.eq(~self.i.valid)]
        with m.Else():
            m.d.sync += [index.eq(index + 1), free.eq(index == penultimate)]

        # The whole header is loaded at once and leaves from the low end.
        with m.Switch(header.options):
            for options in Options:
                with m.Case(options):
                    m.d.comb += total_length.eq(header.length + (header_bytes(options) - ETHERNET_BYTES))
                    with m.If(free):
                        m.d.sync += penultimate.eq(payload_start(cfg, options) - 1)
        now = Signal(8 * SLOT_BYTES)
        with m.If(free):
            m.d.sync += now.eq(Cat(wire_bytes(header, total_length, identification, self.mac)))
        with m.Else():
            m.d.sync += now[: -cfg.data_width].eq(now[cfg.data_width :])
        m.d.comb += [
            self.o_word.valid.eq(active),
            self.o_word.payload.address.eq(Cat(index, slot)),
            self.o_word.payload.data.eq(now[: cfg.data_width]),
        ]

        self._sums(m, now, loaded)
        return m

    def _sums(self, m: Module, now: Value, loaded: Value):
        """Both checksums: three sums of three operands one after the other, and two folds."""
        header = self.i.payload
        summed, folding, done = Signal(), Signal(), Signal()
        m.d.sync += [summed.eq(loaded), folding.eq(summed), done.eq(folding)]

        # Cycle 0. All constants of pseudo header and TCP header, options included, are one number.
        constants = Signal(16)
        octets = TCP_BYTES + PROTOCOL_TCP
        with m.Switch(header.options):
            with m.Case(Options.NONE):
                m.d.comb += constants.eq(0x5000 + octets)
            with m.Case(Options.MSS):
                m.d.comb += constants.eq(0x6000 + octets + 4 + 0x0204)
            with m.Case(Options.MSS_WS):
                with m.Switch(header.ws):  # a table: an adder would be one too many
                    for ws in range(16):
                        with m.Case(ws):
                            m.d.comb += constants.eq(0x7000 + octets + 8 + 0x0204 + 0x0103 + 0x0300 + ws)
        mss = header.mss & header.flags[SYN].replicate(16)
        high, low, rest, service = Signal(18), Signal(18), Signal(18), Signal(17)
        m.d.sync += [
            high.eq(header.seq[16:] + header.ack[16:] + header.wnd),
            low.eq(header.seq[:16] + header.ack[:16] + mss),
            rest.eq(constants + header.flags + header.length),
            # Version, header length, TOS; don't fragment; TTL, protocol.
            service.eq(Cat(header.tos, Const(0x85, 8)) + Cat(Const(PROTOCOL_TCP, 8), header.ttl)),
        ]

        # Cycle 1.
        laddr, faddr = (_loaded(now, ETHERNET_BYTES, IPV4, name) for name in ("source", "destination"))
        total_length, identification = (
            _loaded(now, ETHERNET_BYTES, IPV4, name) for name in ("total_length", "identification")
        )
        lport, fport = (
            _loaded(now, ETHERNET_BYTES + IPV4_BYTES, TCP, name) for name in ("source_port", "destination_port")
        )
        fields, addresses, ports, address, ip_rest = Signal(20), Signal(18), Signal(18), Signal(16), Signal(18)
        m.d.sync += [
            fields.eq(high + low + rest),
            addresses.eq(laddr[16:] + laddr[:16] + faddr[16:]),
            ports.eq(faddr[:16] + lport + fport),
            address.eq(faddr[:16]),
            ip_rest.eq(identification + total_length + service),
        ]

        # Cycle 2 on.
        sums = []
        for name, more, rest in (("ip", address, ip_rest), ("tcp", ports, fields)):
            total, once = Signal(20, name=f"{name}_total"), Signal(17, name=f"{name}_once")
            m.d.sync += [
                total.eq(addresses + more + rest),
                once.eq(total[:16] + total[16:]),
            ]
            sums.append((once[:16] + once[16])[:16])

        m.submodules.queue = queue = Outlet(HeaderSums, frames_inside(self._cfg))
        wiring.connect(m, queue.o, wiring.flipped(self.o_sums))
        m.d.comb += [
            queue.i.valid.eq(done),
            queue.i.payload.ip_checksum.eq(~sums[0]),
            queue.i.payload.tcp.eq(sums[1]),
        ]
