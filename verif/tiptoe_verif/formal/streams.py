"""Blocks that keep words of a stream (``wire/``: queues, half buffer, skid buffer): none is lost, doubled or overtaken.

Any one word is followed from its entry on. What is inside is counted; the one followed has so many before it; when it is
the first, it is what ``o`` shows, as it came in. What ``o`` shows stays until it is taken, and is there in time.
"""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Assert, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tiptoe_hdl.wire.half_buffer import HalfBuffer
from tiptoe_hdl.wire.queue import HalfQueue, Queue
from tiptoe_hdl.wire.skid import SkidBuffer

from .join import elaborated, join

BITS = 4
DEPTH = 8


class Hasty(Queue):
    """A fault to be found: the output takes the next word whether or not the one before was taken, if a new one comes."""

    def _moves(self) -> Any:
        return ~self.o.valid | self.o.ready | self.i.valid


class Eager(wiring.Component):
    """A fault to be found: a half buffer that is ready while its word is being taken, with no place for the next one. Ports of
    ``HalfBuffer``."""

    def __init__(self, shape: Any) -> None:
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        payload = Signal(self._shape)
        ready = Signal()
        m.d.comb += [self.i.ready.eq(ready | self.o.ready), self.o.payload.eq(payload)]
        with m.If(~self.o.valid):
            taken = self.i.valid & self.i.ready
            m.d.sync += [self.o.valid.eq(taken), ready.eq(~taken), payload.eq(self.i.payload)]
        with m.Elif(self.o.ready):
            m.d.sync += [self.o.valid.eq(0), ready.eq(1)]
        return m


class Following(wiring.Component):
    """A fault to be found: a skid buffer whose spare follows the input even while it is needed. Ports of ``SkidBuffer``."""

    def __init__(self, shape: Any) -> None:
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        payload, spare = Signal(self._shape), Signal(self._shape)
        spare_valid, ready = Signal(), Signal()
        taken = self.i.valid & ready
        m.d.comb += [self.i.ready.eq(ready), self.o.payload.eq(payload)]
        m.d.sync += spare.eq(self.i.payload)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [self.o.valid.eq(taken | spare_valid), spare_valid.eq(0), ready.eq(1)]
            m.d.sync += payload.eq(Mux(spare_valid, spare, self.i.payload))
        with m.Elif(taken):
            m.d.sync += [spare_valid.eq(1), ready.eq(0)]
        return m


class WordProof(wiring.Component):
    """A block with any words, offered and taken at any time, and one that is followed.

    Parameters
    ----------
    make
        The block, for words of BITS bits.
    places
        Words that it has room for.
    late
        Cycles from a word's entry to ``o``, if there is none before it.
    invariants
        What the induction needs: adds statements about the inside, given the module, the block, how many words are inside,
        whether one is followed, how many are before it, and that word. None: nothing is asked for.
    """

    def __init__(
        self, make: Callable[[], Any], places: int, late: int, invariants: Callable[..., None] | None = None
    ) -> None:
        self._make, self._places, self._late, self._invariants = make, places, late, invariants
        words = stream.Signature(BITS)
        super().__init__({"i": In(words), "o": Out(words), "follow": In(1)})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        block = elaborated(m, "block", self._make(), platform)
        join(m, self, block)
        comes, goes = Signal(), Signal()
        count = Signal(range(self._places + 2))
        followed, ahead, word = Signal(), Signal(range(self._places + 2)), Signal(BITS)
        m.d.comb += [
            comes.eq(self.i.valid & self.i.ready), goes.eq(self.o.valid & self.o.ready),
            Assert(~self.o.valid | (count != 0)), Assert(count <= self._places),
            Assert(~followed | (ahead < count)),
            Assert(~(followed & (ahead == 0) & self.o.valid) | (self.o.payload == word)),
        ]  # fmt: skip
        m.d.sync += count.eq(count + comes - goes)
        with m.If(~followed):
            m.d.sync += [followed.eq(comes & self.follow), ahead.eq(count - goes), word.eq(self.i.payload)]
        with m.Elif(goes):
            m.d.sync += [followed.eq(ahead != 0), ahead.eq(ahead - 1)]

        # It is there in time, and stays.
        waits, offered, shown = Signal(range(self._late + 2)), Signal(), Signal(BITS)
        m.d.comb += [Assert(waits <= self._late), Assert(~offered | (self.o.valid & (self.o.payload == shown)))]
        m.d.sync += [
            waits.eq(Mux(self.o.valid | ~count.any(), 0, waits + 1)),
            offered.eq(self.o.valid & ~self.o.ready), shown.eq(self.o.payload),
        ]  # fmt: skip
        # Room is there in time, too: a source that waits for ``ready`` waits for the sink only.
        full = Signal(2)
        m.d.sync += full.eq(Mux(self.i.ready | (count == self._places), 0, full + (full != 3)))
        m.d.comb += Assert(full != 3)
        if self._invariants is not None:
            self._invariants(m, block, count, followed, ahead, word)
        return m


def inside_of_queue(m: Module, queue: Any, count: Signal, followed: Signal, ahead: Signal, word: Signal) -> None:
    """What is not in the output register stands in the memory, from ``taken`` on, in order."""
    stored = queue.storage.read_port(domain="comb")
    m.d.comb += [
        stored.addr.eq(queue.taken + ahead - queue.o.valid),
        Assert((queue.written - queue.taken)[: len(queue.taken)] == count - queue.o.valid),
        Assert(queue.following == (queue.written + 1)[: len(queue.taken)]),
        Assert(~followed | (ahead < queue.o.valid) | (stored.data == word)),
    ]


def inside_of_half_buffer(m: Module, buffer: Any, count: Signal, followed: Signal, ahead: Signal, word: Signal) -> None:
    """One word at most; ready if there is none, but in the first cycle."""
    started = Signal()
    m.d.sync += started.eq(1)
    m.d.comb += [Assert(count == buffer.o.valid), Assert(~started | (buffer.i.ready == ~buffer.o.valid))]


def inside_of_skid(m: Module, skid: Any, count: Signal, followed: Signal, ahead: Signal, word: Signal) -> None:
    """The second word is in the spare; ready if there is none, but in the first cycle."""
    started = Signal()
    m.d.sync += started.eq(1)
    m.d.comb += [
        Assert(count == skid.o.valid + skid.spare_valid), Assert(skid.o.valid | ~skid.spare_valid),
        Assert(~started | (skid.i.ready == ~skid.spare_valid)), Assert(started | ~skid.spare_valid),
        Assert(~(followed & (ahead == 1)) | (skid.spare_payload == word)),
    ]  # fmt: skip


def queue() -> WordProof:
    """The queue."""
    return WordProof(lambda: Queue(BITS, DEPTH), DEPTH, 1, inside_of_queue)


def half_queue() -> WordProof:
    """The queue whose output is a half buffer."""
    return WordProof(lambda: HalfQueue(BITS, DEPTH), DEPTH, 1, inside_of_queue)


def half_buffer() -> WordProof:
    """The half buffer."""
    return WordProof(lambda: HalfBuffer(BITS), 1, 0, inside_of_half_buffer)


def skid() -> WordProof:
    """The skid buffer."""
    return WordProof(lambda: SkidBuffer(BITS), 2, 0, inside_of_skid)


def hasty_queue() -> WordProof:
    """A queue with a fault."""
    return WordProof(lambda: Hasty(BITS, DEPTH), DEPTH, 1)


def eager_half_buffer() -> WordProof:
    """A half buffer with a fault."""
    return WordProof(lambda: Eager(BITS), 1, 0)


def following_skid() -> WordProof:
    """A skid buffer with a fault."""
    return WordProof(lambda: Following(BITS), 2, 0)
