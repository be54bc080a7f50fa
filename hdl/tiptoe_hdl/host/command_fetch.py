"""Reads the command ring: several commands a DMA transfer, ahead of their execution."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import ErrorEvent, dma_read_data, dma_request
from ..wire.apart import APART
from ..wire.ones import ones_below
from ..wire.valid_only import valid_only
from .abi import COMMAND_BYTES, ErrorCode


def dwords(cfg: EngineConfig) -> int:
    """Dwords of a command that carry fields; an IPv6 address is behind the others."""
    return 13 if cfg.ipv6 else 10


SLOTS = 4
"""Transfers under way or in the buffer."""

SLOT_COMMANDS = 8
"""Commands of one transfer; transfers do not cross multiples of this, so neither the ring's end."""

LOG2_ENTRIES = range(4, 17)
"""Ring sizes taken: log2 of entries."""


def command(cfg: EngineConfig) -> data.StructLayout:
    """A fetched command."""
    return data.StructLayout(
        {
            "dwords": data.ArrayLayout(32, dwords(cfg)),
            "failed": 1,  # could not be read: dwords void
            "count": 32,  # commands before this one since reset
        }
    )


class CommandFetcher(wiring.Component):
    """Keeps a buffer of commands filled while COMMAND_TAIL is ahead.

    A tail more than a ring ahead of ``head``, or behind an earlier tail, is ignored with an error event; so is any
    tail while the ring's size is not in LOG2_ENTRIES. Commands of a transfer with an AXI error come out marked
    ``failed``, each of them, and an error event tells of the first.

    A command is out 9 (64 bits) to 14 (32 bits) cycles after the one before was taken.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    enable : In(1)
        Transfers are begun.
    base : In, log2 : In(5), tail : In(32)
        Registers of the command ring.
    head : Out(32)
        Commands read: their entries may be written again.
    request, data : client of DmaReader
    o : Out(stream of ``command(cfg)``)
    waiting : Out(1)
        Commands that are not taken from ``o``, in the ring or here; a cycle late.
    error : Out(valid-only ErrorEvent)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "enable": In(1),
                "base": In(cfg.addr_width),
                "log2": In(5),
                "tail": In(32),
                "head": Out(32),
                "request": Out(stream.Signature(dma_request(cfg))),
                "data": In(stream.Signature(dma_read_data(cfg))),
                "o": Out(stream.Signature(command(cfg))),
                "waiting": Out(1),
                "error": Out(valid_only(ErrorEvent)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._tail_error = Signal()
        accepted = self._check_tail(m)
        # Per slot: how many commands, whether the transfer failed. Slots are asked for, filled and drained in turn.
        self._sizes = Array(Signal(range(SLOT_COMMANDS + 1), name=f"size_{n}") for n in range(SLOTS))
        self._failed = Array(Signal(name=f"failed_{n}") for n in range(SLOTS))
        self._freed = Signal()  # a slot is drained
        self._filled = Signal()  # a slot is filled
        # A ring has at most 2**16 commands, so 17 bits tell.
        m.d.sync += self.waiting.eq((accepted[:17] != self.o.p.count[:17]) & self.enable)
        self._ask(m, accepted)
        storage = self._fill(m)
        self._drain(m, storage)
        return m

    def _check_tail(self, m):
        """Takes over a changed tail if it is possible; returns the tail to fetch up to."""
        accepted = Signal(32)
        seen = Signal(32)
        ahead = Signal(32)  # of the tail accepted before
        behind = Signal(17)  # commands accepted and not yet read
        far, wrong = Signal(), Signal()
        filled = Signal(18)
        size = Signal(17)
        m.d.sync += size.eq(0)
        with m.Switch(self.log2):
            for log2 in LOG2_ENTRIES:
                with m.Case(log2):
                    m.d.sync += size.eq(1 << log2)
        m.d.sync += [
            behind.eq(accepted - self.head),
            far.eq(ahead[17:].any()),
            filled.eq(ahead[:17] + behind),
        ]
        with m.FSM():
            with m.State("Watch"):
                m.d.sync += seen.eq(self.tail)
                with m.If(self.tail != seen):
                    m.next = "Subtract"
            with m.State("Subtract"):
                m.d.sync += ahead.eq(seen - accepted)
                m.next = "Add"
            with m.State("Add"):
                m.next = "Compare"
            with m.State("Compare"):
                m.d.sync += wrong.eq(far | (filled > size))
                m.next = "Decide"
            with m.State("Decide"):
                with m.If(wrong):
                    m.d.comb += self._tail_error.eq(1)
                with m.Else():
                    m.d.sync += accepted.eq(seen)
                m.next = "Watch"
        m.d.sync += self.error.valid.eq(self._tail_error)
        with m.If(self._tail_error):
            m.d.sync += [
                self.error.payload.code.eq(ErrorCode.BAD_COMMAND_TAIL),
                self.error.payload.argument.eq(seen),
            ]
        return accepted

    def _ask(self, m, accepted):
        """Requests transfers while there are commands and free slots."""
        requested = Signal(32)
        mask = Signal(16)
        left = Signal(17)
        room = Signal(range(SLOT_COMMANDS + 1))  # up to the next multiple of SLOT_COMMANDS
        number = Signal(range(SLOT_COMMANDS + 1))
        used = Signal(range(SLOTS + 1))
        slot = Signal(range(SLOTS))
        asked = Signal()
        m.d.sync += [mask.eq(ones_below(self.log2, len(mask))), used.eq(used + asked - self._freed)]
        m.d.comb += [
            self.request.p.addr.eq(self.base | Cat(Const(0, ceil_log2(COMMAND_BYTES)), requested[:16] & mask)),
            self.request.p.length.eq(number * COMMAND_BYTES),
        ]
        with m.FSM():
            with m.State("Look"):
                m.d.sync += [left.eq(accepted - requested), room.eq(SLOT_COMMANDS - requested[:3])]
                with m.If(self.enable & (used != SLOTS)):
                    m.next = "Size"
            with m.State("Size"):
                m.d.sync += number.eq(Mux(left < room, left, room))
                with m.If(left == 0):
                    m.next = "Look"
                with m.Else():
                    m.next = "Ask"
            with m.State("Ask"):
                m.d.comb += self.request.valid.eq(1)
                m.d.sync += self._sizes[slot].eq(number)
                with m.If(self.request.ready):
                    m.d.comb += asked.eq(1)
                    m.d.sync += [requested.eq(requested + number), slot.eq(slot + 1)]
                    m.next = "Settle"
            with m.State("Settle"):  # `used` counts the new slot
                m.next = "Look"

    def _fill(self, m):
        """Words of the transfers go into their slots; there is always room."""
        words = SLOT_COMMANDS * COMMAND_BYTES // self._cfg.bytes_per_beat
        m.submodules.storage = storage = memory.Memory(
            shape=unsigned(self._cfg.data_width), depth=SLOTS * words, init=[], attrs=APART
        )  # a slot is read after it is filled
        write = storage.write_port()
        slot = Signal(range(SLOTS))
        word = Signal(range(words))
        m.d.comb += self.data.ready.eq(1)
        m.d.sync += [
            write.addr.eq(Cat(word, slot)),
            write.data.eq(self.data.p.data),
            write.en.eq(self.data.valid),
            self._filled.eq(self.data.valid & self.data.p.last),
        ]
        fetched = Signal.like(self._sizes[0])
        m.d.sync += [fetched.eq(0), self.head.eq(self.head + fetched)]
        with m.If(self.data.valid):
            m.d.sync += word.eq(word + 1)
            with m.If(self.data.p.last):
                m.d.sync += [
                    word.eq(0),
                    slot.eq(slot + 1),
                    self._failed[slot].eq(self.data.p.error),
                    fetched.eq(self._sizes[slot]),
                ]
        # Of two errors in one cycle this one gives way: each of its commands is told of by COMMAND_DONE.
        with m.If(self.data.valid & self.data.p.last & self.data.p.error & ~self._tail_error):
            m.d.sync += [
                self.error.valid.eq(1),
                self.error.payload.code.eq(ErrorCode.COMMAND_FETCH),
                self.error.payload.argument.eq(self.head),
            ]
        return storage

    def _drain(self, m, storage):
        """One command after the other into the output register."""
        width = self._cfg.data_width
        read = storage.read_port()
        steps = -(-dwords(self._cfg) * 32 // width)
        slot = Signal(range(SLOTS))
        index = Signal(range(SLOT_COMMANDS))
        step = Signal(range(COMMAND_BYTES * 8 // width))
        full = Signal(range(SLOTS + 1))
        word = Signal(width)
        # The word that `word` holds, two cycles after its address.
        arriving = [Signal.like(step, name=f"arriving_{n}") for n in range(2)]
        valid = Signal(2)
        loading = Signal()
        last = Signal()  # the command in the output register is its slot's last one; settles while it is loaded
        m.d.sync += [
            full.eq(full + self._filled - self._freed),
            word.eq(read.data),
            arriving[0].eq(step),
            arriving[1].eq(arriving[0]),
            valid.eq(Cat(loading, valid[0])),
            last.eq(index + 1 == self._sizes[slot]),
        ]
        m.d.comb += read.addr.eq(Cat(step, index, slot))
        fields = Cat(self.o.p.dwords)
        with m.If(valid[1]):
            with m.Switch(arriving[1]):
                for number in range(steps):
                    part = fields[number * width : (number + 1) * width]
                    with m.Case(number):
                        m.d.sync += part.eq(word)

        with m.FSM():
            with m.State("Wait"):
                m.d.sync += self.o.p.failed.eq(self._failed[slot])
                with m.If(full != 0):
                    m.next = "Load"
            with m.State("Load"):
                m.d.comb += loading.eq(1)
                m.d.sync += step.eq(step + 1)
                with m.If(step == steps - 1):
                    m.d.sync += step.eq(0)
                    m.next = "Arrive"
            with m.State("Arrive"):
                with m.If(valid == 0):
                    m.next = "Offer"
            with m.State("Offer"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "Taken"
            with m.State("Taken"):
                m.d.sync += [index.eq(index + 1), self.o.p.count.eq(self.o.p.count + 1)]
                m.next = "Load"
                with m.If(last):
                    m.d.comb += self._freed.eq(1)
                    m.d.sync += [index.eq(0), slot.eq(slot + 1)]
                    m.next = "Wait"
