"""Header builder: Ethernet, IPv4 (RFC 791) or IPv6 (RFC 8200) and TCP (RFC 9293) header of a segment, word by word, and its
checksums."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import MOST_SACKS, SYN, sack_list
from ..wire.headers import (
    ETHERNET,
    ETHERNET_BYTES,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    IPV4,
    IPV4_BYTES,
    IPV6,
    IPV6_BYTES,
    OPTION_BYTES,
    OPTION_MSS,
    OPTION_NOP,
    OPTION_SACK,
    PROTOCOL_TCP,
    TCP,
    TCP_BYTES,
    TCP_MSS,
    TIMESTAMPS_WORDS,
    Layout,
    byte_of,
    pack,
)
from ..wire.valid_only import valid_only
from .job import (
    HEADER_BYTES,
    MORE_V6,
    OPTION_WORDS,
    STAMPED_WORDS,
    HeaderSums,
    frames_inside,
    header_bytes,
    header_word,
    option_words,
    payload_start,
    slot_words,
    tx_header,
    versions,
)
from .options import more_syn_options, option_sum, timestamps
from .outlet import Outlet
from .sack import BLOCK_BITS, SackBlocks, all_in_one_word

HEAD_BYTES = HEADER_BYTES + OPTION_BYTES
"""What is known of a header when it is taken: all up to the first word of options, and timestamps: before a SACK option, behind a
SYN's MSS. The rest follows as its tail."""

STAMP_BYTES = OPTION_BYTES * TIMESTAMPS_WORDS

SACK_BYTE = HEADER_BYTES + 2
"""Where in the frame kind and length of the SACK option stand, without timestamps."""


def wire_bytes(cfg, header, total_length, identification, mac, ip6) -> list[Value]:
    """The header's bytes in the order of the wire up to the first word of options and timestamps; checksums and what is unused
    zero. For the kind of the SACK option stands a NOP, for its length zero. ``total_length``: IPv4's, or the payload length
    of IPv6."""
    syn, sacked = header.flags[SYN], header.sacks.any()
    ethernet = pack(ETHERNET, {"destination": header.dmac, "source": mac, "ethertype": ETHERTYPE_IPV4})
    ipv4 = pack(IPV4, {
        "version": 4, "ihl": IPV4_BYTES // 4, "tos": header.tos, "total_length": total_length,
        "identification": identification,
        "reserved": 0, "dont_fragment": 1, "more_fragments": 0, "fragment_offset": 0,
        "ttl": header.ttl, "protocol": PROTOCOL_TCP, "checksum": 0,
        "source": header.tuple.laddr, "destination": header.tuple.faddr,
    })  # fmt: skip
    data_offset = TCP_BYTES // 4 + header.words
    tcp = pack(TCP, {
        "source_port": header.tuple.lport, "destination_port": header.tuple.fport,
        "seq": header.seq, "ack": header.ack, "data_offset": data_offset, "reserved": 0,
        "flags": header.flags, "wnd": header.wnd, "checksum": 0, "urgent": header.urgent,
    })  # fmt: skip
    mss = pack(TCP_MSS, {"kind": OPTION_MSS, "length": 4, "mss": header.mss})
    nops = [Const(OPTION_NOP, 8)] * 3 + [Const(0, 8)]
    options = [(byte & syn.replicate(8)) | (nop & sacked.replicate(8)) for byte, nop in zip(mss, nops, strict=True)]
    octets = ethernet + ipv4 + tcp
    ipv6: list[Value] = []
    if cfg.ipv6:
        ipv6 = pack(IPV6, {
            "version": 6, "traffic_class": header.tos, "flow_label": 0, "payload_length": total_length,
            "next_header": PROTOCOL_TCP, "hop_limit": header.ttl, "source": ip6, "destination": header.faddr6,
        })  # fmt: skip
        ethernet_6 = pack(ETHERNET, {"destination": header.dmac, "source": mac, "ethertype": ETHERTYPE_IPV6})
    if cfg.timestamps:
        stamps = timestamps(header.tsval, header.tsecr)
        stamped = header.ts_ok & ~syn
        options = [
            (other & (~header.ts_ok).replicate(8))
            | (front & stamped.replicate(8))
            | (behind & (header.ts_ok & syn).replicate(8))
            for other, front, behind in zip(
                options + [Const(0, 8)] * STAMP_BYTES, stamps + options, options + stamps, strict=True
            )
        ]
    octets += options
    assert len(octets) == HEAD_BYTES + STAMP_BYTES * cfg.timestamps
    if not cfg.ipv6:
        return octets
    octets += [Const(0, 8)] * MORE_V6
    longer = ethernet_6 + ipv6 + tcp + options
    return [Mux(header.v6, long, short) for short, long in zip(octets, longer, strict=True)]


def _loaded(now: Value, front: int, layout: Layout, name: str) -> Value:
    """A field of the header behind ``front`` bytes, from its bytes in the order of the wire."""
    first, size = front + byte_of(layout, name), layout[name][1] // 8
    return Cat(now.word_select(byte, 8) for byte in reversed(range(first, first + size)))


def _swapped(word: Value) -> Value:
    """Two bytes in the order of the wire as a number."""
    return Cat(word[8:], word[:8])


class HeaderBuilder(wiring.Component):
    """Writes one word of the header a cycle, without a pause from the first to the last.

    The register that holds the header has no place for all options: they follow in its tail, a word for each that leaves. Kind
    and length of the SACK option are put in on the way, when all blocks are read.

    Timing: with the header taken in cycle 0, words come in cycles 1 to 1 + payload_start (``o_word`` from flip-flops); the
    sums are valid in cycle 5. The next header is taken in the last word's cycle. With SACK blocks, sums are valid in cycle 11
    (15 at 32 bits, 10 or 11 at 128), and the header takes a cycle more for every two of them at 128 bits, four more at 256.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    i : In stream of ``tx_header``
    next_id, sack_id, sack
        See :class:`SackBlocks`; ``start`` is the cycle in which a header is taken.
    mac : In
        The Ethernet source address. Must not change while frames go out.
    ip6 : In
        With IPv6: the source address. Likewise.
    o_word : Out, valid-only, ``header_word``
        Words for the header memory, in slots of SLOT_BYTES, in the order of the headers.
    o_sums : Out stream of ``HeaderSums``
        Never blocks: it has room for all frames inside.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(stream.Signature(tx_header(cfg))),
                "next_id": In(cfg.id_bits),
                "sack_id": Out(cfg.id_bits),
                "sack": In(sack_list(cfg)),
                "mac": In(48),
                **({"ip6": In(128)} if cfg.ipv6 else {}),
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
        total_length = Signal(cfg.length_bits)
        load, loaded = Signal(), Signal()
        sacked = Signal()
        m.submodules.blocks = blocks = SackBlocks(cfg)
        m.d.comb += [
            blocks.next_id.eq(self.next_id), self.sack_id.eq(blocks.sack_id), blocks.sack.eq(self.sack),
            blocks.start.eq(load), blocks.sacks.eq(header.sacks), blocks.twice.eq(header.twice),
            blocks.twice_start.eq(header.twice_start), blocks.twice_length.eq(header.mss), blocks.ack.eq(header.ack),
        ]  # fmt: skip
        m.d.comb += [self.i.ready.eq(free), load.eq(self.i.valid & free)]
        m.d.sync += [loaded.eq(load), identification.eq(identification + loaded)]
        with m.If(free):
            m.d.sync += [
                index.eq(0), slot.eq(slot + active), active.eq(self.i.valid), free.eq(~self.i.valid),
                sacked.eq(header.sacks.any()),
            ]  # fmt: skip
        with m.Elif(~blocks.wait):
            m.d.sync += [index.eq(index + 1), free.eq(index == penultimate)]

        # The head is loaded at once and leaves from the low end, the tail comes in behind it.
        octets, last = Signal(7), Signal.like(penultimate)
        v6 = header.v6 if cfg.ipv6 else Const(0, 1)
        with m.Switch(Cat(header.words, v6)):
            for words, each in ((words, each) for words in option_words(cfg) for each in versions(cfg)):
                with m.Case(words | each << 4):
                    m.d.comb += [
                        octets.eq(header_bytes(words, each) - ETHERNET_BYTES - IPV6_BYTES * each),
                        last.eq(payload_start(cfg, words, each)),
                    ]
        m.d.comb += total_length.eq(header.length + octets)
        now = Signal(8 * (HEAD_BYTES + STAMP_BYTES * cfg.timestamps + MORE_V6 * cfg.ipv6))
        stamped = Signal() if cfg.timestamps else Const(0, 1)
        long = Signal() if cfg.ipv6 else Const(0, 1)
        more = self._more_syn_options(m, free, loaded)
        patch = Signal()  # kind and length of the SACK option
        any_block = blocks.count.any()
        kind_length = Mux(
            any_block, Cat(Const(OPTION_SACK - OPTION_NOP, 8), Const(2, 3), blocks.count), OPTION_NOP << 8
        )
        # All of the tail is there; at 256 bits it comes just then.
        at_once = all_in_one_word(cfg)
        patched = 0 if at_once else MOST_SACKS * BLOCK_BITS // cfg.data_width
        m.d.comb += patch.eq(blocks.filled if at_once else sacked & (index == patched))
        with m.If(free):
            m.d.sync += [
                penultimate.eq(last - 1),
                now.eq(
                    Cat(
                        wire_bytes(
                            cfg, header, total_length, identification, self.mac, self.ip6 if cfg.ipv6 else Const(0, 128)
                        )
                    )
                ),
            ]
            if cfg.timestamps:
                m.d.sync += stamped.eq(header.ts_ok)
            if cfg.ipv6:
                m.d.sync += long.eq(v6)
        with m.Elif(~blocks.wait):
            m.d.sync += now.eq(
                now[cfg.data_width :]
                | self._placed(blocks.tail | more, 8 * HEAD_BYTES - cfg.data_width, stamped, long)
                | self._placed(
                    kind_length & patch.replicate(16),
                    8 * (SACK_BYTE - (patched + 1) * cfg.bytes_per_beat),
                    stamped,
                    long,
                )
            )
        m.d.comb += [
            self.o_word.valid.eq(active),
            self.o_word.payload.address.eq(Cat(index, slot)),
            self.o_word.payload.data.eq(now[: cfg.data_width]),
        ]

        self._sums(m, now, loaded, loaded & ~sacked, patch, blocks, stamped, long)
        return m

    def _placed(self, value: Value, at: int, stamped: Value, long: Value) -> Value:
        """``value`` at this bit of the header, or, behind timestamps or with IPv6, so much further."""
        cfg = self._cfg
        parts = [(at, value)]
        for built, flag, octets in ((cfg.timestamps, stamped, STAMP_BYTES), (cfg.ipv6, long, MORE_V6)):
            if built:
                parts = [
                    (place + 8 * octets * each, part & (flag if each else ~flag).replicate(len(value)))
                    for place, part in parts
                    for each in range(2)
                ]
        return reduce(or_, (part << place for place, part in parts))

    def _more_syn_options(self, m: Module, free: Value, loaded: Value) -> Value:
        """The tail of a SYN: from the cycle after it is taken on, for as many words as it takes."""
        width, header = self._cfg.data_width, self.i.payload
        ws_present, ws, sack_ok = Signal(), Signal(4), Signal()
        syn = header.flags[SYN]
        with m.If(free):
            m.d.sync += [ws_present.eq(header.ws_present & syn), ws.eq(header.ws), sack_ok.eq(header.sack_ok & syn)]
        words = Cat(more_syn_options(ws_present, ws, sack_ok))
        more, now = Const(0, width), loaded
        for at in range(0, len(words), width):
            more |= words[at : at + width] & now.replicate(width)
            later = Signal(name=f"loaded_{at}")
            m.d.sync += later.eq(now)
            now = later
        return more

    def _sums(
        self, m: Module, now: Value, loaded: Value, early: Value, patch: Value, blocks: SackBlocks, stamped: Value,
        long: Value,
    ):  # fmt: skip
        """Both checksums: three sums of three operands one after the other, and two folds. With SACK blocks, these and the
        kind and length of their option join the second of the sums, which is kept till then, and so are its neighbours."""
        header, width = self.i.payload, self._cfg.data_width
        taken, patched, complete, summing = Signal(), Signal(), Signal(), Signal()
        summed, folding, done = Signal(), Signal(), Signal()
        m.d.sync += [
            patched.eq(patch), complete.eq(patched), summing.eq(taken | patched),
            summed.eq(early | complete), folding.eq(summed), done.eq(folding),
        ]  # fmt: skip
        if all_in_one_word(self._cfg):
            m.d.comb += taken.eq(blocks.shifted)
            added: Value = blocks.latest
        else:
            m.d.sync += taken.eq(blocks.filled)
            end = 8 * HEAD_BYTES
            added, behind = (now[at - width : at] for at in (end, end + 8 * STAMP_BYTES * self._cfg.timestamps))
            if self._cfg.ipv6:
                end += 8 * MORE_V6
                added, behind = (
                    Mux(long, now[at - width : at], short)
                    for at, short in ((end, added), (end + 8 * STAMP_BYTES * self._cfg.timestamps, behind))
                )
            if self._cfg.timestamps:
                added = Mux(stamped, behind, added)
        tail = [_swapped(added.word_select(at, 16)) for at in range(len(added) // 16)]
        pairs = [Signal(18, name=f"pair{at}") for at in range(2)]
        for pair, words in zip(pairs, (tail[::2], tail[1::2]), strict=True):
            m.d.sync += pair.eq(sum(words))
        with m.If(patched):  # as in option_sum; the bits of the length do not touch the kind's
            kind_length = Mux(blocks.count.any(), Cat(Const(2, 3), blocks.count, Const(0, 4), 1), 1)
            m.d.sync += [pairs[0].eq(kind_length), pairs[1].eq(0)]

        # Cycle 0. All constants of pseudo header and TCP header, options included, are one number.
        constants = Signal(16)
        bare = 0x5000 + TCP_BYTES + PROTOCOL_TCP
        with m.If(header.flags[SYN]):
            with m.Switch(Cat(header.ws_present, header.sack_ok, header.ts_ok)):
                for case in range(8):
                    ws_present, sack_ok, ts_ok = case & 1, case >> 1 & 1, case >> 2
                    with m.Case(case), m.Switch(header.ws & header.ws_present.replicate(4)):  # a table: no adder more
                        for ws in range(16):
                            with m.Case(ws):
                                words = 1 + ws_present + sack_ok + ts_ok * TIMESTAMPS_WORDS
                                m.d.comb += constants.eq(bare + option_sum(True, words, ws_present, ws, sack_ok, ts_ok))
        with m.Else():
            with m.Switch(Cat(header.words, header.ts_ok)):
                for ts_ok, all_words in enumerate((OPTION_WORDS, STAMPED_WORDS if self._cfg.timestamps else ())):
                    for words in all_words:
                        with m.Case(words | ts_ok << 4):
                            m.d.comb += constants.eq(bare + option_sum(False, words, ts_ok=ts_ok))
        mss = Mux(header.flags[SYN], header.mss, header.urgent)  # either is there
        high, low, rest, service = Signal(18), Signal(18), Signal(18), Signal(17)
        stamps = [Signal(17, name=f"stamps{at}") for at in range(2)] if self._cfg.timestamps else []
        m.d.sync += [
            high.eq(header.seq[16:] + header.ack[16:] + header.wnd),
            low.eq(header.seq[:16] + header.ack[:16] + mss),
            rest.eq(constants + header.flags + header.length),
            # Version, header length, TOS; don't fragment; TTL, protocol.
            service.eq(Cat(header.tos, Const(0x85, 8)) + Cat(Const(PROTOCOL_TCP, 8), header.ttl)),
        ]

        for total, name in zip(stamps, ("tsval", "tsecr"), strict=False):
            m.d.sync += total.eq((header[name][16:] + header[name][:16]) & header.ts_ok.replicate(17))

        # Cycle 1.
        laddr, faddr = (_loaded(now, ETHERNET_BYTES, IPV4, name) for name in ("source", "destination"))
        total_length, identification = (
            _loaded(now, ETHERNET_BYTES, IPV4, name) for name in ("total_length", "identification")
        )
        lport, fport = (
            _loaded(now, ETHERNET_BYTES + IPV4_BYTES, TCP, name) for name in ("source_port", "destination_port")
        )
        fields, addresses, ports, address, ip_rest = Signal(21), Signal(20), Signal(18), Signal(16), Signal(18)
        if not self._cfg.ipv6:
            addresses = Signal(18)
        first, second, third = (Mux(loaded, *pair) for pair in ((high, fields), (low, pairs[0]), (rest, pairs[1])))
        with m.If(loaded | summing):
            m.d.sync += fields.eq(first + second + third)
        with m.If(loaded):
            m.d.sync += [
                addresses.eq(laddr[16:] + laddr[:16] + faddr[16:]),
                ports.eq(faddr[:16] + lport + fport),
                address.eq(faddr[:16]),
                ip_rest.eq(identification + total_length + service),
            ]
        if self._cfg.ipv6:
            self._addresses_v6(m, loaded, long, now, addresses, ports)
        stamped_sum = Signal(18)
        if stamps:
            with m.If(loaded):
                m.d.sync += stamped_sum.eq(stamps[0] + stamps[1])

        # Cycle 2 on.
        sums = []
        for name, more, rest in (("ip", address, ip_rest), ("tcp", ports, fields + stamped_sum if stamps else fields)):
            total, once = Signal(21, name=f"{name}_total"), Signal(17, name=f"{name}_once")
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

    def _addresses_v6(self, m: Module, loaded: Value, long: Value, now: Value, addresses: Signal, ports: Signal):
        """The pseudo header of IPv6 (RFC 8200 section 8.1) in place of IPv4's: our own address is summed beforehand, the
        peer's with the header's fields."""

        def halves(address):
            return [address.word_select(at, 16) for at in range(8)]

        own_total, own_once, own = Signal(19), Signal(17), Signal(16)
        m.d.sync += [
            own_total.eq(sum(halves(self.ip6))),
            own_once.eq(own_total[:16] + own_total[16:]),
            own.eq(own_once[:16] + own_once[16]),
        ]
        peer = [Signal(18, name=f"peer{at}") for at in range(2)]
        address = halves(self.i.payload.faddr6)
        m.d.sync += [peer[at].eq(sum(address[4 * at : 4 * at + 4])) for at in range(2)]
        lport, fport = (
            _loaded(now, ETHERNET_BYTES + IPV6_BYTES, TCP, name) for name in ("source_port", "destination_port")
        )
        with m.If(loaded & long):
            m.d.sync += [addresses.eq(peer[0] + peer[1]), ports.eq(own + lport + fport)]
