"""The report on every kept frame: header fields (RFC 791, RFC 8200 section 3, RFC 9293 section 3.1) and a SYN's options."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import LADDR_V6, SACK_BITS, SYN, interval, rx_meta
from ..wire.queue import HalfQueue
from .judge import decision
from .options import OPTION_WORD, OptionStore, OptionWalker, SynOptions, walk_command
from .position import IP_WORD, IPV6_WORDS, FramePosition, ihl_of, padded_word, version_is_6
from .sack_walker import SackWalker


def _waiting(cfg: EngineConfig) -> data.StructLayout:
    """A report in the queue; ``walk`` if it has to wait for its options, a SYN's or, with ``blocks``, another segment's."""
    return data.StructLayout({"meta": rx_meta(cfg), "walk": 1, "blocks": 1, "options": walk_command(cfg)})


class RxMetaBuilder(wiring.Component):
    """Takes the fields out of the beats as they go by, and queues them when the frame is kept.

    The beats come so late that a frame's last one goes by two cycles before its decision. A report whose options have
    to be walked through waits at the head of the queue; frames come in meanwhile.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` is used.
    depth : int
        Reports it can hold; a power of two. The owner takes care that no more frames are under way and queued.

    Members
    -------
    valid, last : In(1), padded : In(data_width)
        Beats, see ``position``.
    decision : In(decision(cfg))
    o : Out stream of ``rx_meta(cfg)``
        Over IPv6 without ``faddr``, and ``mss`` as a SYN says it: ``alias.py`` puts them in.
    block : Out stream of ``interval``
        ``sacks`` of each report, in their order; they are there before it.
    """

    def __init__(self, cfg: EngineConfig, depth: int):
        self._cfg, self._depth = cfg, depth
        super().__init__({
            "valid": In(1), "last": In(1), "padded": In(cfg.data_width),
            "decision": In(decision(cfg)),
            "o": Out(stream.Signature(rx_meta(cfg))),
            "block": Out(stream.Signature(interval)),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        lanes = cfg.data_width // 32
        m.submodules.position = position = FramePosition(cfg)
        m.submodules.store = store = OptionStore(cfg, self._depth)
        m.submodules.walker = walker = OptionWalker(cfg)
        m.submodules.sacks = sacks = SackWalker(cfg)
        m.submodules.queue = queue = HalfQueue(_waiting(cfg), self._depth)

        m.d.comb += [
            position.valid.eq(self.valid),
            position.last.eq(self.last),
            position.ihl.eq(ihl_of(cfg, self.padded)),
        ]

        # What a beat holds is found out in one cycle, its fields are taken in the next.
        padded = Signal.like(self.padded)
        m.d.sync += [
            padded.eq(self.padded),
            store.valid.eq(self.valid),
            store.last.eq(self.last),
            store.after_ip.eq(position.after_ip),
            store.tcp_word.eq(position.tcp_word),
        ]
        m.d.comb += store.padded.eq(padded)

        # The fields, complete in the decision's cycle.
        held = Signal(rx_meta(cfg))
        ihl, total, data_offset = Signal(4), Signal(cfg.length_bits), Signal(4)

        def take(name, here, assignments):
            hit = Signal(name=f"hit_{name}")
            m.d.sync += hit.eq(self.valid & here)
            with m.If(hit):
                m.d.sync += assignments

        def word(number):
            return padded_word(padded, number % lanes)

        take("smac_high", position.is_word(2), held.smac[16:].eq(word(2)))
        take("smac_low", position.is_word(3), held.smac[:16].eq(word(3)[16:]))
        take(
            "ip",
            position.is_word(IP_WORD),
            [
                ihl.eq(word(IP_WORD)[24:28]),
                held.ecn.eq(word(IP_WORD)[16:18]),
                total.eq(word(IP_WORD)[: len(total)]),
            ],
        )
        take("faddr", position.is_word(7), held.tuple.faddr.eq(word(7)))
        take("laddr", position.is_word(8), held.tuple.laddr.eq(word(8)))
        if cfg.ipv6:
            self._ipv6(m, take, word, position, version_is_6(cfg, padded), ihl, total, held)
        for lane in range(lanes):
            here = padded_word(padded, lane)
            for number, assignments in enumerate(
                (
                    [held.tuple.fport.eq(here[16:]), held.tuple.lport.eq(here[:16])],
                    [held.seq.eq(here)],
                    [held.ack.eq(here)],
                    [data_offset.eq(here[28:]), held.flags.eq(here[16:24]), held.wnd.eq(here[:16])],
                    [held.urgent.eq(here[:16])],
                )
            ):
                take(f"tcp{number}_{lane}", position.is_tcp_word(number, lane), assignments)

        entry = queue.i.payload
        # IHL is known beats before the data offset.
        tcp_word = Signal(5)
        tcp_length = Signal.like(total)
        m.d.sync += [tcp_word.eq(IP_WORD + ihl), tcp_length.eq(total - (ihl << 2))]
        m.d.comb += [
            entry.meta.eq(held),
            entry.meta.to_host.eq(self.decision.to_host),
            entry.meta.frame_length.eq(self.decision.length),
            entry.meta.payload_offset.eq((tcp_word + data_offset) << 2),
            entry.meta.payload_length.eq(tcp_length - (data_offset << 2)),
            entry.walk.eq(~self.decision.to_host & (data_offset != OPTION_WORD)),
            entry.blocks.eq(~held.flags[SYN]),
            entry.options.lane.eq(tcp_word + OPTION_WORD),
            entry.options.words.eq(data_offset - OPTION_WORD),
            queue.i.valid.eq(self.decision.end & self.decision.commit),
        ]

        # Slots of the option store go round with the queue.
        pushed = Signal(ceil_log2(self._depth))
        popped = Signal.like(pushed)
        m.d.comb += [store.write_slot.eq(pushed), store.slot.eq(popped)]
        with m.If(queue.i.valid):
            m.d.sync += pushed.eq(pushed + 1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += popped.eq(popped + 1)

        # Head of the queue.
        head = queue.o.payload
        options = Signal(SynOptions)
        m.d.comb += [
            walker.command.valid.eq(queue.o.valid & head.walk & ~head.blocks),
            walker.command.payload.eq(head.options),
            sacks.command.valid.eq(queue.o.valid & head.walk & head.blocks),
            sacks.command.payload.eq(head.options),
            store.row.eq(Mux(head.blocks, sacks.row, walker.row)),
            walker.data.eq(store.data),
            sacks.data.eq(store.data),
            # Each has a result only of the report at the head.
            self.o.valid.eq(queue.o.valid & (~head.walk | walker.o.valid | sacks.o.valid)),
            self.o.payload.eq(head.meta),
            self.o.payload.mss.eq(options.mss),
            self.o.payload.ws_present.eq(options.ws_present),
            self.o.payload.ws.eq(options.ws),
            self.o.payload.sack_ok.eq(options.sack_ok),
            queue.o.ready.eq(self.o.valid & self.o.ready),
            walker.o.ready.eq(head.walk & self.o.ready),
            sacks.o.ready.eq(head.walk & self.o.ready),
            self.o.payload.sacks.eq(sacks.o.payload & sacks.o.valid.replicate(SACK_BITS)),
        ]
        with m.If(head.walk & ~head.blocks):
            m.d.comb += options.eq(walker.o.payload)
        if cfg.timestamps:
            stamps = self.o.payload
            m.d.comb += [
                stamps.ts_present.eq(Mux(head.blocks, sacks.stamps.ts_present & sacks.o.valid, options.ts_present)),
                stamps.tsval.eq(Mux(head.blocks, sacks.stamps.tsval, options.tsval)),
                stamps.tsecr.eq(Mux(head.blocks, sacks.stamps.tsecr, options.tsecr)),
            ]
        wiring.connect(m, sacks.block, wiring.flipped(self.block))
        return m

    def _ipv6(self, m, take, word, position, version, ihl, total, held):
        """What stands elsewhere in an IPv6 header: version, traffic class; payload length; addresses. Behind what takes the same
        words as those of an IPv4 header."""
        v6 = Signal()
        take("version", position.is_word(IP_WORD), v6.eq(version))
        first, second = word(IP_WORD), word(IP_WORD + 1)
        hit = Signal(name="hit_ipv6")
        m.d.sync += hit.eq(self.valid & position.is_word(IP_WORD))
        with m.If(hit & version):
            m.d.sync += [
                ihl.eq(IPV6_WORDS),
                held.ecn.eq(first[20:22]),
                total.eq(second[16 : 16 + len(total)] + 4 * IPV6_WORDS),
            ]
        for number in range(4):
            take(
                f"faddr6_{number}",
                position.is_word(IP_WORD + 2 + number),
                held.faddr6[96 - 32 * number : 128 - 32 * number].eq(word(IP_WORD + 2 + number)),
            )
        # At the latest word that an IPv4 header would have taken it from, and behind.
        hit = Signal(name="hit_laddr6")
        m.d.sync += hit.eq(self.valid & position.is_word(IP_WORD + 9))
        with m.If(hit & v6):
            m.d.sync += held.tuple.laddr.eq(LADDR_V6)
