"""The end of every placement, in order: the host may be told, or the connection is to be aborted."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..host.abi import ErrorCode
from ..messages import ErrorEvent, frame_event, placed, ring_write
from ..wire.apart import APART
from ..wire.valid_only import valid_only
from .target import conclusion

NO_ID = 0xFFFF_FFFF
"""Argument of a PAYLOAD_WRITE error that hit a frame for the host."""


def abort_request(cfg: EngineConfig) -> data.StructLayout:
    """A connection whose payload could not be written."""
    return data.StructLayout({"id": cfg.id_bits})


class Conclusions(wiring.Component):
    """Waits for each write in turn and says what follows from it.

    After a write error of a connection nothing more of it is reported as placed until its id gets a ring again,
    since bytes before are missing; ``abort`` comes once. A host frame that could not be written is reported with
    length 0: its slot is used, but holds nothing.

    Timing: three cycles a conclusion if the write is over and the outputs are free.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    i : In stream of ``conclusion(cfg)``
    done : In stream of ``{error}``
    ring : In valid-only of ``ring_write(cfg)``
    placed : Out stream of ``placed(cfg)``
    abort : Out stream of ``{id}``
    frame : Out stream of ``frame_event(cfg)``
        Must have room for every host frame under way.
    error : Out valid-only of ``ErrorEvent``
    arrivals_done : Out(8)
        Counts frames whose write, if any, is over and whose ``placed`` or ``abort``, if any, was taken; wraps.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(stream.Signature(conclusion(cfg))),
                "done": In(stream.Signature(data.StructLayout({"error": 1}))),
                "ring": In(valid_only(ring_write(cfg))),
                "placed": Out(stream.Signature(placed(cfg))),
                "abort": Out(stream.Signature(abort_request(cfg))),
                "frame": Out(stream.Signature(frame_event(cfg))),
                "error": Out(valid_only(ErrorEvent)),
                "arrivals_done": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        # A breakage is read again before it counts.
        m.submodules.broken = broken = memory.Memory(shape=1, depth=cfg.connections, init=[], attrs=APART)
        write = broken.write_port()
        read = broken.read_port()
        head = self.i.payload
        is_broken = Signal()
        m.d.comb += [read.addr.eq(head.id), read.en.eq(1)]
        m.d.sync += is_broken.eq(read.data)
        # A new ring mends its id; it has precedence over a breakage, which waits.
        breaking = Signal()
        m.d.comb += [
            write.en.eq(self.ring.valid | breaking),
            write.addr.eq(head.id),
            write.data.eq(~self.ring.valid),
        ]
        with m.If(self.ring.valid):
            m.d.comb += write.addr.eq(self.ring.payload.id)

        finish = Signal()  # one without such a message ends
        told = Signal()  # one with it
        m.d.comb += told.eq((self.placed.valid & self.placed.ready) | (self.abort.valid & self.abort.ready))
        m.d.sync += self.arrivals_done.eq(self.arrivals_done + finish + told)

        free = Signal()
        over = Signal()
        # A cycle ago: they stay until the head ends, which is two cycles before the next decision.
        may = Signal()  # both
        failed = Signal()  # the write was in vain; counts with ``may``
        m.d.sync += [may.eq(over & free), failed.eq(head.write & self.done.payload.error)]
        m.d.comb += [
            # Whether an output is being taken just now does not matter: a conclusion takes three cycles anyway.
            free.eq(~self.placed.valid & ~self.abort.valid & ~self.frame.valid),
            over.eq(~head.write | self.done.valid),
        ]
        for out in (self.placed, self.abort, self.frame):
            with m.If(out.ready):
                m.d.sync += out.valid.eq(0)
        m.d.sync += self.error.valid.eq(0)

        with m.FSM():
            with m.State("Read"):
                with m.If(self.i.valid):
                    m.next = "Register"
            with m.State("Register"):
                m.next = "Decide"
            with m.State("Decide"):
                with m.If(may):
                    m.d.comb += self.done.ready.eq(head.write)
                    with m.If(failed):
                        m.d.sync += [
                            self.error.valid.eq(1),
                            self.error.payload.argument.eq(head.id),
                        ]
                        with m.If(head.host):
                            m.d.sync += self.error.payload.argument.eq(NO_ID)
                    with m.If(head.host):
                        m.d.comb += [self.i.ready.eq(1), finish.eq(1)]
                        m.d.sync += [
                            self.frame.valid.eq(1),
                            self.frame.payload.slot.eq(head.value[:16]),
                            self.frame.payload.length.eq(head.value[16 : 16 + cfg.length_bits]),
                        ]
                        with m.If(failed):
                            m.d.sync += self.frame.payload.length.eq(0)
                        m.next = "Read"
                    with m.Elif(failed & ~is_broken):
                        m.d.sync += self.abort.valid.eq(1)
                        m.next = "Break"
                    with m.Else():
                        m.d.comb += self.i.ready.eq(1)
                        with m.If(head.notify & ~is_broken):
                            m.d.sync += self.placed.valid.eq(1)
                            # A failed write of a broken connection ends here as well.
                        with m.Else():
                            m.d.comb += finish.eq(1)
                        m.next = "Read"
            with m.State("Break"):
                m.d.comb += [breaking.eq(1), self.i.ready.eq(~self.ring.valid)]
                with m.If(~self.ring.valid):
                    m.next = "Read"
        with m.If(free):
            m.d.sync += [
                self.placed.payload.id.eq(head.id),
                self.placed.payload.upto.eq(head.value),
                self.abort.payload.id.eq(head.id),
            ]
        m.d.comb += self.error.payload.code.eq(ErrorCode.PAYLOAD_WRITE)
        return m
