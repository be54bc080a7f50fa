"""A host memory behind AXI4 for benches in Amaranth's simulator: random latency, backpressure, errors, rules checked.

Software model: it stands in for the host's memory and bus only.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Value

from .streams import Testbench, watch_stream

OKAY, SLVERR, DECERR = 0, 2, 3


@dataclass
class BusBurst:
    """One burst as the memory saw it."""

    addr: int
    beats: int
    taken: int
    """Clock cycle of the address handshake."""
    data: list[tuple[int, int]] = field(default_factory=list)
    """Writes: (data, strobe) a beat."""


class AxiMemory:
    """Answers one ``Axi4ReadSignature`` and one ``Axi4WriteSignature`` port; use ``testbenches`` as background.

    Parameters
    ----------
    data_width
        Bits of the data channels.
    base, size
        Addresses it answers to; others fail the bench.
    rng
        Source of all randomness, and of the memory's first contents.
    latency
        Least and most clock cycles from a burst's address (reads) or last word (writes) to its first answer.
    stall
        Probability per cycle that a ready is low, or that a valid answer is held back, on each channel.
    is_bad
        Says whether a byte address answers with SLVERR or DECERR; such a write changes nothing.
    write_order
        "any": AW and W are taken independently; "address first": W waits for AW's handshake;
        "data first": AW waits for the burst's first W beat. AXI allows all three.
    """

    def __init__(
        self,
        data_width: int,
        *,
        base: int = 0,
        size: int = 1 << 16,
        rng: random.Random | None = None,
        latency: tuple[int, int] = (1, 1),
        stall: float = 0.0,
        is_bad: Callable[[int], bool] = lambda addr: False,
        write_order: str = "any",
    ) -> None:
        assert write_order in ("any", "address first", "data first"), write_order
        self.step = data_width // 8
        self.base = base
        self.rng = rng or random.Random(0)
        self.memory = bytearray(self.rng.randbytes(size))
        self.latency, self.stall, self.is_bad, self.write_order = latency, stall, is_bad, write_order
        self.reads: list[BusBurst] = []
        self.writes: list[BusBurst] = []
        self.read_beats: list[int] = []
        """Clock cycle of every R transfer."""
        self.write_beats: list[int] = []
        """Clock cycle of every W transfer."""
        self.answers = 0
        """B transfers."""

    def peek(self, addr: int, length: int) -> bytes:
        """Bytes at a bus address."""
        at = addr - self.base
        assert 0 <= at and at + length <= len(self.memory), f"address {addr:#x} is outside the memory"
        return bytes(self.memory[at : at + length])

    def testbenches(self, read: Any = None, write: Any = None) -> list[Testbench]:
        """Background testbenches that answer the given ports and check what AXI demands of a master."""
        benches: list[Testbench] = []
        if read is not None:
            benches += [self._serve_reads(read), self._watch(read, "ar")]
        if write is not None:
            benches += [self._serve_writes(write), self._watch(write, "aw"), self._watch(write, "w")]
        return benches

    def _watch(self, port: Any, channel: str) -> Testbench:
        members = [name for name in port.signature.members if name.startswith(channel)]
        payload = Cat(
            *(Value.cast(getattr(port, name)) for name in members if name not in (f"{channel}valid", f"{channel}ready"))
        )
        return watch_stream(
            SimpleNamespace(
                valid=getattr(port, f"{channel}valid"), ready=getattr(port, f"{channel}ready"), payload=payload
            ),
            channel.upper(),
        )

    def _yes(self) -> bool:
        return self.rng.random() >= self.stall

    def _due(self, cycle: int) -> int:
        return cycle + self.rng.randint(*self.latency)

    def _address(self, cycle: int, addr: int, length: int, size: int, kind: int, lock: int) -> BusBurst:
        beats = length + 1
        assert 1 << size == self.step, f"AxSIZE {size} is not the full width"
        assert kind == 1, "burst is not INCR"
        assert not lock
        assert addr % self.step == 0, f"start address {addr:#x} is not aligned"
        end = addr + beats * self.step
        assert addr >> 12 == (end - 1) >> 12, f"burst {addr:#x} to {end:#x} crosses a page"
        self.peek(addr, beats * self.step)
        return BusBurst(addr, beats, cycle)

    def _bad_word(self, addr: int) -> bool:
        return any(self.is_bad(addr + lane) for lane in range(self.step))

    def _serve_reads(self, port: Any) -> Testbench:
        address = [port.araddr, port.arlen, port.arsize, Value.cast(port.arburst), port.arlock]

        async def serve(ctx: Any) -> None:
            bursts: deque[tuple[int, BusBurst]] = deque()
            at = 0  # beat of the burst in front
            cycle = 0
            offered = False
            while True:
                if not offered and bursts and bursts[0][0] <= cycle and self._yes():
                    burst = bursts[0][1]
                    addr = burst.addr + at * self.step
                    offered = True
                    ctx.set(port.rdata, int.from_bytes(self.peek(addr, self.step), "little"))
                    ctx.set(Value.cast(port.rresp), self._response(self._bad_word(addr)))
                    ctx.set(port.rlast, at + 1 == burst.beats)
                elif not offered:
                    ctx.set(port.rdata, self.rng.getrandbits(8 * self.step))
                    ctx.set(port.rlast, self.rng.getrandbits(1))
                ctx.set(port.rvalid, offered)
                ready = self._yes()
                ctx.set(port.arready, ready)
                _, _, taken, valid, *fields = await ctx.tick().sample(port.rready, port.arvalid, *address)
                if offered and taken:
                    self.read_beats.append(cycle)
                    offered = False
                    at += 1
                    if at == bursts[0][1].beats:
                        bursts.popleft()
                        at = 0
                if valid and ready:
                    burst = self._address(cycle, *fields)
                    self.reads.append(burst)
                    bursts.append((self._due(cycle), burst))
                cycle += 1

        return serve

    def _response(self, bad: bool) -> int:
        return self.rng.choice((SLVERR, DECERR)) if bad else OKAY

    def _store(self, burst: BusBurst) -> bool:
        """Carry out a write; whether it failed."""
        bad = False
        for beat, (word, strobe) in enumerate(burst.data):
            addr = burst.addr + beat * self.step
            if self._bad_word(addr):
                bad = True
                continue
            for lane in range(self.step):
                if strobe >> lane & 1:
                    self.memory[addr - self.base + lane] = word >> 8 * lane & 0xFF
        return bad

    def _serve_writes(self, port: Any) -> Testbench:
        address = [port.awaddr, port.awlen, port.awsize, Value.cast(port.awburst), port.awlock]
        word = [port.wdata, port.wstrb, port.wlast]

        async def serve(ctx: Any) -> None:
            open_: deque[BusBurst] = deque()  # address taken, words missing
            words: list[tuple[int, int, int]] = []  # words taken, address missing
            answers: deque[tuple[int, BusBurst]] = deque()
            cycle = 0
            offered = False
            w_valid = 0
            while True:
                if not offered and answers and answers[0][0] <= cycle and self._yes():
                    # Stored at the latest moment AXI allows.
                    bad = self._store(answers.popleft()[1])
                    offered = True
                    ctx.set(Value.cast(port.bresp), self._response(bad))
                ctx.set(port.bvalid, offered)
                aw_ready, w_ready = self._yes(), self._yes()
                if self.write_order == "address first":
                    w_ready = w_ready and bool(open_)
                if self.write_order == "data first":
                    aw_ready = aw_ready and not open_ and bool(words or w_valid)
                ctx.set(port.awready, aw_ready)
                ctx.set(port.wready, w_ready)
                _, _, aw_valid, w_valid, b_ready, *fields = await ctx.tick().sample(
                    port.awvalid, port.wvalid, port.bready, *address, *word
                )
                if offered and b_ready:
                    self.answers += 1
                    offered = False
                if aw_valid and aw_ready:
                    burst = self._address(cycle, *fields[:5])
                    self.writes.append(burst)
                    open_.append(burst)
                if w_valid and w_ready:
                    self.write_beats.append(cycle)
                    words.append(tuple(fields[5:]))
                while open_ and words:
                    value, strobe, last = words.pop(0)
                    burst = open_[0]
                    burst.data.append((value, strobe))
                    assert last == (len(burst.data) == burst.beats), f"WLAST wrong in beat {len(burst.data)}"
                    if last:
                        answers.append((self._due(cycle), open_.popleft()))
                cycle += 1

        return serve
