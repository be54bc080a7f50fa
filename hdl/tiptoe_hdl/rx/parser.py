"""Receive parser: Ethernet II, IPv4 (RFC 791) or IPv6 (RFC 8200), and TCP (RFC 9293 section 3.1) headers of every frame
from the MAC.

Frames go through a line of registers without any stall, so that the decision over a frame is there when its last beat
reaches the receive buffer: it is kept or taken back there and then.
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import interval, rx_beat, rx_meta
from .buffer import HEADROOM, store_port
from .judge import RxJudge
from .meta import RxMetaBuilder


def reports(cfg: EngineConfig) -> int:
    """Frames under way in the parser or waiting as reports, a power of two: at 256 bits 60 bytes are two beats."""
    return 16 if cfg.data_width > 128 else 8


class RxParser(wiring.Component):
    """Sorts, verifies and stores frames; see ``judge`` for what becomes of which.

    Timing: one beat a cycle without a bubble for frames of 60 bytes and more. ``i.ready`` comes from a flip-flop
    and is low only while the receive buffer has no room or all but two of the ``reports(cfg)`` places are taken. A report
    appears nine cycles (at 64 bits) after its frame's last beat; that of a SYN with options later by one cycle for each
    of their words, and five more, if they come in the usual layouts (see ``options``). A discarded frame gives none.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    i : In stream of ``rx_beat(cfg)``
        Frames without FCS. A beat before the last must be full; an empty last beat is fine.
    foreign : In(1)
        Belongs to ``i``, counts in the last beat: the frame is of another network.
    mac : In(48), ip : In(32), promiscuous : In(1)
        The engine's addresses; change them while no frame is under way.
    ip6 : In(128)
        With IPv6, likewise; 0: none.
    meta : Out stream of ``rx_meta(cfg)``
        In frame order, after the frame is in the buffer.
    block : Out stream of ``interval``
        ``sacks`` of each report, in their order.
    store : Out(store_port(cfg)), room : In(1)
        The buffer's write side. Frames are stored without pad bytes: ``payload_offset`` counts from two bytes
        before the first stored byte.
    count_rx_frames, count_rx_bad_frame, count_rx_not_for_us, count_rx_bad_ip, count_rx_bad_tcp, \
    count_rx_tcp_segments, count_rx_host_frames : Out(1)
        Pulses, see ``messages.Counter``.
    """

    COUNTERS = (
        "count_rx_frames", "count_rx_bad_frame", "count_rx_not_for_us", "count_rx_bad_ip", "count_rx_bad_tcp",
        "count_rx_tcp_segments", "count_rx_host_frames",
    )  # fmt: skip

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "i": In(stream.Signature(rx_beat(cfg))),
            "foreign": In(1),
            "mac": In(48), "ip": In(32), "promiscuous": In(1), **({"ip6": In(128)} if cfg.ipv6 else {}),
            "meta": Out(stream.Signature(rx_meta(cfg))),
            "block": Out(stream.Signature(interval)),
            "store": Out(store_port(cfg)), "room": In(1),
            **{name: Out(1) for name in self.COUNTERS},
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        width = cfg.data_width
        m.submodules.judge = judge = RxJudge(cfg)
        m.submodules.builder = builder = RxMetaBuilder(cfg, reports(cfg))
        # From i.ready's cause to the buffer's pointers: the line, its first register, ready, level and room.
        assert judge.latency + 5 <= HEADROOM

        # Beats come in. The two pad bytes are whatever was there before.
        ready = Signal()
        taken = Signal()
        first = Signal(rx_beat(cfg), reset_less=True)
        foreign = Signal()
        before = Signal(16, reset_less=True)
        valid = Signal()
        m.d.comb += [self.i.ready.eq(ready), taken.eq(self.i.valid & ready)]
        m.d.sync += valid.eq(taken)
        with m.If(taken):
            m.d.sync += [first.eq(self.i.payload), foreign.eq(self.foreign), before.eq(first.data[-16:])]

        # The line. Its last stage is the buffer's write port; the reports' builder takes two cycles to the same point.
        stage = data.StructLayout({"bytes": width + 16, "valid": 1, "last": 1, "store": 1})
        line = [Signal(stage, name=f"line{number}") for number in range(judge.latency + 1)]
        m.d.comb += [
            judge.valid.eq(valid),
            judge.last.eq(first.last),
            judge.error.eq(first.error),
            judge.foreign.eq(foreign),
            judge.keep.eq(first.keep),
            judge.bytes.eq(line[0].bytes),
            judge.mac.eq(self.mac),
            judge.ip.eq(self.ip),
            judge.promiscuous.eq(self.promiscuous),
        ]
        if cfg.ipv6:
            m.d.comb += judge.ip6.eq(self.ip6)
        m.d.comb += [getattr(self, name).eq(getattr(judge, name)) for name in self.COUNTERS]

        m.d.comb += [
            line[0].bytes.eq(Cat(before, first.data)),
            line[0].valid.eq(valid),
            line[0].last.eq(first.last),
            # An empty last beat has nothing to store.
            line[0].store.eq(valid & judge.inside & first.keep[0]),
        ]
        for here, there in zip(line, line[1:], strict=False):
            m.d.sync += there.eq(here)
        m.d.comb += [
            self.store.data.eq(line[-1].bytes[16:]),
            self.store.store.eq(line[-1].store),
            self.store.end.eq(judge.o.end),
            self.store.commit.eq(judge.o.commit),
            builder.valid.eq(line[-3].valid),
            builder.last.eq(line[-3].last),
            builder.padded.eq(line[-3].bytes[:width]),
            builder.decision.eq(judge.o),
        ]
        wiring.connect(m, builder.o, wiring.flipped(self.meta))
        wiring.connect(m, builder.block, wiring.flipped(self.block))

        # Every frame takes a place among the reports with its first beat; one that is discarded gives it back.
        inside = Signal()
        begun = Signal()
        discard = Signal()
        report = Signal()
        places = Signal(range(reports(cfg) + 1), init=reports(cfg))
        m.d.comb += [
            discard.eq(judge.o.end & ~judge.o.commit),
            report.eq(self.meta.valid & self.meta.ready),
        ]
        with m.If(taken):
            m.d.sync += inside.eq(~self.i.payload.last)
        back = Signal(2)
        m.d.sync += [
            begun.eq(taken & ~inside),
            back.eq(discard + report),
            places.eq(places - begun + back),
            # Two places are for the frames that may have begun in this cycle and the one before.
            ready.eq(self.room & (places > 2)),
        ]
        return m
