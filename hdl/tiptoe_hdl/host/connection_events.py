"""CONNECTION events: snapshots of connections that have news, never ahead of the payload in host memory."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import connection_report, placed
from ..wire.apart import APART
from ..wire.sequence import seq_gt
from ..wire.valid_only import valid_only
from .pending_ids import PendingIds

REPORTS = 2
"""Reports asked for and not yet written as events. Few, so that news fold when the event ring is slow."""


def connection_news(cfg: EngineConfig) -> data.StructLayout:
    """A report, with ``terminal`` and ``peer_closed`` held back until all before them is in host memory, and the
    receive position up to which the host may read."""
    return data.StructLayout({"report": connection_report(cfg), "rcv_position": 32})


class ConnectionEvents(wiring.Component):
    """Marks ids with news, asks the pipeline for their state, adds what is placed in memory.

    The first report with ``terminal`` is the last one given out for its id until ``clear``.

    Timing: ``notify`` in every cycle; ``placed`` in every cycle without ``notify``; a report each 12 cycles.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    ready : Out(1)
        Memories are scrubbed.
    enable : In(1)
        Reports may be asked for.
    notify : In(valid-only id)
    placed : In(stream of placed)
    broken : In(stream of id)
        A payload write failed: no more is placed, so the terminal report does not wait for it.
    clear : In(valid-only id)
        A new life of the id begins: nothing placed, not broken, no terminal event written.
    report_request : Out(stream of id), report : In(stream of connection_report)
    o : Out(stream of connection_news)
    waiting : Out(1)
        An id has news that are not given out.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "ready": Out(1),
                "enable": In(1),
                "notify": In(valid_only(unsigned(cfg.id_bits))),
                "placed": In(stream.Signature(placed(cfg))),
                "broken": In(stream.Signature(unsigned(cfg.id_bits))),
                "clear": In(valid_only(unsigned(cfg.id_bits))),
                "report_request": Out(stream.Signature(unsigned(cfg.id_bits))),
                "report": In(stream.Signature(connection_report(cfg))),
                "o": Out(stream.Signature(connection_news(cfg))),
                "waiting": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth, id_bits = self._cfg.connections, self._cfg.id_bits
        m.submodules.pending = pending = PendingIds(self._cfg)
        m.submodules.positions = positions = memory.Memory(
            shape=32, depth=depth, init=[], attrs=APART
        )  # read again if written
        m.submodules.ended = ended = memory.Memory(shape=1, depth=depth, init=[])
        m.submodules.lost = lost = memory.Memory(shape=1, depth=depth, init=[])
        position_read, position_write = positions.read_port(), positions.write_port()
        lost_read, lost_write = lost.read_port(), lost.write_port()
        ended_read, ended_write = ended.read_port(), ended.write_port()
        m.d.comb += self.ready.eq(pending.ready)

        # Requests: as many as may wait.
        asked = Signal(range(REPORTS + 1))
        ask = pending.o.valid & self.enable & (asked != REPORTS)
        m.d.comb += [
            self.report_request.valid.eq(ask),
            self.report_request.payload.eq(pending.o.payload),
            pending.o.ready.eq(self.report_request.ready & ask),
        ]
        m.d.comb += self.waiting.eq(ask | (asked != 0))
        m.d.sync += asked.eq(asked + (ask & self.report_request.ready) - self.report.ready)

        # Marks: `notify` can't wait. `clear` can't either, but it does not mark.
        scrub = Signal(id_bits)
        with m.If(~self.ready):
            m.d.sync += scrub.eq(scrub + 1)
        notify, clear = Signal.like(self.notify.payload), Signal.like(self.clear.payload)
        notify_valid, clear_valid = Signal(), Signal()
        m.d.sync += [
            notify.eq(self.notify.payload),
            notify_valid.eq(self.notify.valid),
            clear.eq(self.clear.payload),
            clear_valid.eq(self.clear.valid),
        ]
        m.d.comb += [
            self.broken.ready.eq(~notify_valid & ~clear_valid),
            self.placed.ready.eq(~notify_valid & ~clear_valid & ~self.broken.valid),
            position_write.addr.eq(Mux(clear_valid, clear, self.placed.p.id)),
            position_write.data.eq(Mux(clear_valid, 0, self.placed.p.upto)),
            position_write.en.eq(clear_valid | (self.placed.valid & self.placed.ready)),
        ]

        # Marked a cycle later: the position is there before the report that the mark leads to.
        m.d.sync += [
            pending.mark.valid.eq(notify_valid | (~clear_valid & (self.broken.valid | self.placed.valid))),
            pending.mark.payload.eq(
                Mux(notify_valid, notify, Mux(self.broken.valid, self.broken.payload, self.placed.p.id))
            ),
        ]

        # Written a cycle later, long before the mark leads to a report.
        m.d.sync += [
            lost_write.addr.eq(Mux(self.ready, Mux(clear_valid, clear, self.broken.payload), scrub)),
            lost_write.data.eq(self.ready & ~clear_valid),
            lost_write.en.eq(~self.ready | clear_valid | (self.broken.valid & self.broken.ready)),
        ]

        # Reports. `end` is written when the news with `terminal` is given out.
        end = Signal()
        position, has_ended, is_lost = Signal(32), Signal(), Signal()
        ahead, reached, complete = Signal(), Signal(), Signal()
        report = self.report.p
        m.d.comb += [
            position_read.addr.eq(report.id),
            ended_read.addr.eq(report.id),
            lost_read.addr.eq(report.id),
            ended_write.addr.eq(Mux(self.ready, Mux(clear_valid, clear, report.id), scrub)),
            ended_write.data.eq(self.ready & ~clear_valid),
            ended_write.en.eq(~self.ready | clear_valid | end),
        ]
        position_late, ended_late, lost_late = Signal(32), Signal(), Signal()
        # Of a position that is written in the cycle of its reading, nothing is believed.
        collides = Signal(2)
        m.d.sync += [
            collides.eq(Cat(position_write.en & (position_write.addr == position_read.addr), collides[0])),
            # Directly behind the memories.
            position_late.eq(position_read.data),
            ended_late.eq(ended_read.data),
            lost_late.eq(lost_read.data),
        ]
        m.d.comb += [complete.eq(ahead | reached), self.o.p.report.eq(report)]
        m.d.comb += [
            self.o.p.rcv_position.eq(Mux(ahead, report.rcv_nxt_position, position)),
            self.o.p.report.terminal.eq(report.terminal & (complete | ~report.established | is_lost)),
            self.o.p.report.peer_closed.eq(report.peer_closed & complete),
        ]
        m.d.sync += self.report.ready.eq(0)

        def finish():
            """Takes the report in the first cycle of "Wait": ready comes from a flip-flop."""
            m.d.sync += self.report.ready.eq(1)
            m.next = "Wait"

        with m.FSM():
            with m.State("Wait"):
                with m.If(self.report.valid & ~self.report.ready):
                    m.next = "Look up"
            with m.State("Look up"):
                m.next = "Take"
            with m.State("Take"):
                m.d.sync += [position.eq(position_late), has_ended.eq(ended_late), is_lost.eq(lost_late)]
                with m.If(~collides[1]):
                    m.next = "Compare"
            with m.State("Compare"):
                # What was placed after the report was taken is left to the next one: the peer's FIN, which counts in
                # the position, must not be told before the report that knows of it.
                m.d.sync += [
                    ahead.eq(seq_gt(position, report.rcv_nxt_position) & report.established),
                    reached.eq(position == report.rcv_nxt_position),
                ]
                m.next = "Offer"
                with m.If(has_ended):
                    finish()
            with m.State("Offer"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    with m.If(self.o.p.report.terminal):
                        m.next = "End"
                    with m.Else():
                        finish()
            with m.State("End"):
                m.d.comb += end.eq(1)
                with m.If(~clear_valid):
                    finish()
        return m
