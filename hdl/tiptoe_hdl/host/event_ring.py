"""Writes entries into the event ring: phase, room, several writes in flight, failed ones again."""

from amaranth.hdl import Array, Cat, Const, Module, Signal, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import ErrorEvent, dma_request
from ..wire.ones import ones_below
from ..wire.queue import Queue
from ..wire.valid_only import valid_only
from .abi import EVENT_BYTES, PHASE, ErrorCode
from .consumer_check import ConsumerCheck
from .dma_write import DmaDone

SLOTS = 4
"""Entries whose write is not yet acknowledged. Few, so that news of a connection fold while the bus is busy."""

LOG2_ENTRIES = range(4, 21)
"""Ring sizes taken: log2 of entries."""

RETRY_CYCLES = 256
"""Pause before a failed write is done again."""


class EventRing(wiring.Component):
    """Entries in order to their places in the ring, one DMA write each.

    No entry is written more than a ring ahead of EVENT_CONSUMER; a count that no host can have reached is ignored.
    An entry stays here until its write is acknowledged; one that fails is written again, since the host would wait for
    it for ever.

    Timing: an entry takes 256 / data_width + 4 cycles or more.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    enable : In(1), base : In, log2 : In(5), consumer : In(32)
        Registers of the event ring.
    producer : Out(32)
        Entries taken.
    pending : Out(1)
        Written events that the host has not taken: ``consumer`` is behind. Follows CHECK_CYCLES + 2 cycles later.
    under_way, full : Out(1)
        An entry is not acknowledged; the host has left no room.
    i : In(stream of 256 bits)
        Entries; the phase bit is put in here.
    request, data, dma_done : client of DmaWriter
    error : Out(valid-only ErrorEvent)
        A write failed; or ``consumer`` was refused.
    count_events_written : Out(1)
        Pulse per acknowledged entry: also the interrupt.
    count_event_ring_full : Out(1)
        Pulse per 256 cycles that an entry waited for the host.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "enable": In(1),
                "base": In(cfg.addr_width),
                "log2": In(5),
                "consumer": In(32),
                "producer": Out(32),
                "pending": Out(1),
                "under_way": Out(1),
                "full": Out(1),
                "i": In(stream.Signature(unsigned(8 * EVENT_BYTES))),
                "request": Out(stream.Signature(dma_request(cfg))),
                "data": Out(stream.Signature(unsigned(cfg.data_width))),
                "dma_done": In(stream.Signature(DmaDone)),
                "error": Out(valid_only(ErrorEvent)),
                "count_events_written": Out(1),
                "count_event_ring_full": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = self._cfg.data_width
        self._words = 8 * EVENT_BYTES // width
        m.submodules.entries = entries = memory.Memory(shape=unsigned(width), depth=SLOTS * self._words, init=[])
        m.submodules.counts = counts = memory.Memory(shape=32, depth=SLOTS, init=[])
        slot_shape = unsigned(ceil_log2(SLOTS))
        m.submodules.feed = feed = Queue(slot_shape, SLOTS)  # requested, words to be given
        m.submodules.awaited = awaited = Queue(slot_shape, SLOTS)  # requested, not acknowledged
        m.submodules.check = self._check = check = ConsumerCheck(32)
        m.d.comb += [check.i.eq(self.consumer), check.producer.eq(self.producer)]
        self._busy = Array(Signal(name=f"busy_{n}") for n in range(SLOTS))
        self._retry = Signal()
        self._retry_slot = Signal(slot_shape)
        full, phase = self._room(m)
        m.d.comb += [self.under_way.eq(Cat(self._busy).any()), self.full.eq(full)]
        self._post(m, entries, counts, feed.i, awaited.i, full, phase)
        self._feed(m, entries, feed.o)
        self._acknowledge(m, counts, awaited.o)
        return m

    def _room(self, m):
        """Whether the ring has no room, and the phase of the next entry; both settle in two cycles."""
        consumer = self._check.o
        size, used = Signal(21), Signal(32)
        full, phase = Signal(init=1), Signal()
        m.d.sync += size.eq(0)
        with m.Switch(self.log2):
            for log2 in LOG2_ENTRIES:
                with m.Case(log2):
                    m.d.sync += size.eq(1 << log2)
        m.d.sync += [
            used.eq(self.producer - consumer),
            full.eq(used >= size),
            phase.eq(~(self.producer & size).any()),
        ]
        written = Signal(32)
        with m.If(self.count_events_written):
            m.d.sync += written.eq(written + 1)
        m.d.sync += self.pending.eq(written != consumer)
        waited = Signal(8)
        with m.If(full & self.i.valid & self.enable):
            m.d.sync += waited.eq(waited + 1)
            m.d.comb += self.count_event_ring_full.eq(waited.all())
        return full, phase

    def _post(self, m, entries, counts, feed, awaited, full, phase):
        """Stores an entry in a free slot, requests its write; also requests failed ones again."""
        slot = Signal.like(self._retry_slot)
        word = Signal(range(self._words))
        free = Signal()
        free_slot = Signal.like(slot)
        pause = Signal(range(RETRY_CYCLES), init=RETRY_CYCLES - 1)
        ending = Signal()  # the last word is being stored
        store, note, count = entries.write_port(), counts.write_port(), counts.read_port(domain="comb")
        m.d.sync += free.eq(0)
        for number in reversed(range(SLOTS)):
            with m.If(~self._busy[number]):
                m.d.sync += [free.eq(1), free_slot.eq(number)]
        with m.If(self._retry & (pause != 0)):
            m.d.sync += pause.eq(pause - 1)

        entry = Signal(8 * EVENT_BYTES, reset_less=True)  # a cycle behind `i`, as the states are
        phase_at = 32 * PHASE[0] + PHASE[1]
        m.d.sync += entry.eq(Cat(self.i.payload[:phase_at], phase, self.i.payload[phase_at + 1 :]))
        m.d.comb += [
            self.i.ready.eq(ending),
            note.addr.eq(slot),
            note.data.eq(self.producer),
            count.addr.eq(slot),
            self.request.p.length.eq(EVENT_BYTES),
            feed.payload.eq(slot),
            awaited.payload.eq(slot),
        ]
        # The word is stored a cycle later, long before it is read.
        m.d.sync += [
            store.en.eq(0),
            store.addr.eq(Cat(word, slot)),
            store.data.eq(entry.word_select(word, self._cfg.data_width)),
            ending.eq(0),
        ]
        index = Signal(max(LOG2_ENTRIES))
        m.d.sync += index.eq(ones_below(self.log2, len(index)))
        with m.FSM():
            with m.State("Idle"):
                m.d.sync += [slot.eq(free_slot), word.eq(0)]
                with m.If(self._retry & (pause == 0)):
                    m.d.sync += [slot.eq(self._retry_slot), self._retry.eq(0), pause.eq(RETRY_CYCLES - 1)]
                    m.next = "Address"
                with m.Elif(self.i.valid & self.enable & free & ~full):
                    if self._words == 1:
                        m.d.sync += ending.eq(1)
                    m.next = "Store"
            with m.State("Store"):
                m.d.comb += note.en.eq(word == 0)
                m.d.sync += [store.en.eq(1), word.eq(word + 1), ending.eq(word == self._words - 2)]
                with m.If(ending):
                    m.d.sync += [self.producer.eq(self.producer + 1), self._busy[slot].eq(1)]
                    m.next = "Address"
            with m.State("Address"):
                m.d.sync += self.request.p.addr.eq(
                    self.base | Cat(Const(0, ceil_log2(EVENT_BYTES)), count.data[: len(index)] & index)
                )
                m.next = "Request"
            with m.State("Request"):
                m.d.comb += self.request.valid.eq(1)
                with m.If(self.request.ready):
                    # Each slot is at most once in each queue: there is room.
                    m.d.comb += [feed.valid.eq(1), awaited.valid.eq(1)]
                    m.next = "Idle"

    def _feed(self, m, entries, feed):
        """Gives the words of requested entries."""
        read = entries.read_port(domain="comb")
        word = Signal(range(self._words))
        m.d.comb += read.addr.eq(Cat(word, feed.payload))
        with m.If(~self.data.valid | self.data.ready):
            m.d.sync += [self.data.valid.eq(feed.valid), self.data.payload.eq(read.data)]
            with m.If(feed.valid):
                m.d.sync += word.eq(word + 1)
                m.d.comb += feed.ready.eq(word == self._words - 1)

    def _acknowledge(self, m, counts, awaited):
        """Frees acknowledged entries, keeps a failed one for another try."""
        failed = counts.read_port(domain="comb")
        done = self.dma_done
        m.d.comb += [
            failed.addr.eq(awaited.payload),
            done.ready.eq(awaited.valid & ~(done.p.error & self._retry)),
            awaited.ready.eq(done.valid & done.ready),
        ]
        m.d.sync += [
            self.count_events_written.eq(awaited.ready & ~done.p.error),
            self.error.valid.eq((awaited.ready & done.p.error) | self._check.wrong),
            self.error.payload.code.eq(ErrorCode.EVENT_WRITE),
            self.error.payload.argument.eq(failed.data),
        ]
        with m.If(self._check.wrong):  # of two at once the newer is told, as everywhere
            m.d.sync += [
                self.error.payload.code.eq(ErrorCode.BAD_EVENT_CONSUMER),
                self.error.payload.argument.eq(self._check.count),
            ]
        with m.If(awaited.ready):
            with m.If(done.p.error):
                m.d.sync += [self._retry.eq(1), self._retry_slot.eq(awaited.payload)]
            with m.Else():
                m.d.sync += self._busy[awaited.payload].eq(0)
