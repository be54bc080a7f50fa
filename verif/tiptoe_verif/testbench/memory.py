"""Host memory behind the engine's AXI4 master port: latency, backpressure and errors for cocotbext-axi's slaves."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cocotb
from cocotb.triggers import Event, Timer
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiBus, AxiResp, AxiSlaveRead, AxiSlaveWrite

CLOCK_NS = 8
"""Period of ``clk``."""


def now() -> int:
    """Clock cycles since the simulation began."""
    return round(get_sim_time("ns")) // CLOCK_NS


@dataclass
class Fault:
    """Bursts that touch [begin, end) are answered with ``response``, ``count`` of them; writes do not reach memory.

    ``hits`` counts those that were.
    """

    begin: int
    end: int
    count: int
    response: AxiResp
    hits: int = 0


class Faults(list[Fault]):
    """Errors to be injected in one direction."""

    def add(self, begin: int, length: int, count: int = 1 << 30, response: AxiResp = AxiResp.SLVERR) -> Fault:
        """Let the next ``count`` bursts within ``length`` bytes from ``begin`` fail."""
        fault = Fault(begin, begin + length, count, response)
        self.append(fault)
        return fault

    def of(self, begin: int, end: int) -> AxiResp:
        """The response of a burst."""
        for fault in self:
            if fault.begin < end and begin < fault.end and fault.hits < fault.count:
                fault.hits += 1
                return fault.response
        return AxiResp.OKAY


class _Port:
    """What reads and writes have in common: checks of a burst, and a line on which answers wait for their time."""

    def setup(self, memory: bytearray, rng: random.Random, latency: range, fail: Callable[[Exception], None]) -> None:
        self.memory = memory
        self.rng = rng
        self.latency = latency
        self.fail = fail
        self.faults = Faults()
        self.outstanding = 0
        self.bursts = 0
        self._line: deque[tuple[int, Any]] = deque()
        self._arrived = Event()

    def accept(self, address: Any, length: Any, size: Any, burst: Any) -> tuple[int, int]:
        """Begin and end of a burst's bytes, aligned to beats; AssertionError for what the engine must never ask."""
        begin, beats, width = int(address), int(length) + 1, 1 << int(size)
        assert int(burst) == 1, f"burst type {int(burst)} is not INCR"
        begin -= begin % width
        end = begin + beats * width
        assert begin // 4096 == (end - 1) // 4096, f"burst from {begin:#x} to {end:#x} crosses a 4 KiB page"
        assert end <= len(self.memory), f"burst from {begin:#x} to {end:#x} leaves host memory"
        self.bursts += 1
        self.outstanding += 1
        return begin, end

    def delay(self, item: Any) -> None:
        """Put an answer on the line; it leaves after a random latency, in order."""
        self._line.append((now() + self.rng.choice(self.latency), item))
        self._arrived.set()

    async def delayed(self) -> Any:
        """The next answer whose time has come."""
        while not self._line:
            self._arrived.clear()
            await self._arrived.wait()
        due, item = self._line.popleft()
        if due > now():
            await Timer((due - now()) * CLOCK_NS, "ns")
        return item


class _Reads(_Port, AxiSlaveRead):
    async def _process_read(self) -> None:
        self.ar_channel.queue_occupancy_limit = 8
        cocotb.start_soon(self._answer())
        while True:
            ar = await self.ar_channel.recv()
            try:
                self.delay((ar, *self.accept(ar.araddr, ar.arlen, ar.arsize, ar.arburst)))
            except AssertionError as error:
                self.fail(error)
                return

    async def _answer(self) -> None:
        lanes = self.byte_lanes
        while True:
            ar, begin, end = await self.delayed()
            response = self.faults.of(begin, end)
            bad_beat = self.rng.randrange(begin, end, lanes) if response != AxiResp.OKAY else None
            for at in range(begin, end, lanes):
                r = self.r_channel._transaction_obj()
                r.rid, r.rlast = int(ar.arid), at + lanes >= end
                r.rresp = response if at == bad_beat else AxiResp.OKAY
                data = self.memory[at : at + lanes] if response == AxiResp.OKAY else self.rng.randbytes(lanes)
                r.rdata = int.from_bytes(data, "little")
                await self.r_channel.send(r)
            self.outstanding -= 1


class _Writes(_Port, AxiSlaveWrite):
    async def _process_write(self) -> None:
        self.aw_channel.queue_occupancy_limit = 8
        cocotb.start_soon(self._answer())
        try:
            while True:
                aw = await self.aw_channel.recv()
                await self._take(aw)
        except AssertionError as error:
            self.fail(error)

    async def _take(self, aw: Any) -> None:
        begin, end = self.accept(aw.awaddr, aw.awlen, aw.awsize, aw.awburst)
        lanes = self.byte_lanes
        words = []
        for at in range(begin, end, lanes):
            w = await self.w_channel.recv()
            assert bool(int(w.wlast)) == (at + lanes >= end), f"wlast is wrong in the burst from {begin:#x}"
            words.append((at, int(w.wdata).to_bytes(lanes, "little"), int(w.wstrb)))
        response = self.faults.of(begin, end)
        if response != AxiResp.OKAY:
            words = []
        # The bus may let a write take effect at any time up to its response, later writes before it: who relies on
        # an order without having seen the response is found out.
        elif self.rng.random() < 0.5:
            self._apply(words)
            words = []
        self.delay((aw, response, words))

    async def _answer(self) -> None:
        while True:
            aw, response, words = await self.delayed()
            self._apply(words)
            b = self.b_channel._transaction_obj()
            b.bid, b.bresp = int(aw.awid), response
            await self.b_channel.send(b)
            self.outstanding -= 1

    def _apply(self, words: list[tuple[int, bytes, int]]) -> None:
        full = (1 << self.byte_lanes) - 1
        for at, data, strobe in words:
            if strobe == full:
                self.memory[at : at + len(data)] = data
                continue
            for lane in range(len(data)):
                if strobe >> lane & 1:
                    self.memory[at + lane] = data[lane]


class HostMemory:
    """Host memory as an AXI4 slave; the driver works on the same bytes.

    Parameters
    ----------
    dut
        The engine; the port is ``m_axi``.
    size : int
        Bytes.
    latency : range
        Cycles from a burst's address (a write's last word) to its answer, chosen at random.
    fail
        Called with what the engine must never do.

    Attributes
    ----------
    bytes : bytearray
    read_faults, write_faults : Faults
    """

    def __init__(
        self, dut: Any, size: int, rng: random.Random, latency: range, fail: Callable[[Exception], None]
    ) -> None:
        self.bytes = bytearray(size)
        bus = AxiBus.from_prefix(dut, "m_axi")
        self.reads = _Reads(bus.read, dut.clk)
        self.writes = _Writes(bus.write, dut.clk)
        for port in (self.reads, self.writes):
            port.setup(self.bytes, rng, latency, fail)

    @property
    def read_faults(self) -> Faults:
        """Errors to be injected into reads."""
        return self.reads.faults

    @property
    def write_faults(self) -> Faults:
        """Errors to be injected into writes."""
        return self.writes.faults

    @property
    def channels(self) -> list[Any]:
        """What can be paused: the five channels."""
        return [
            self.reads.ar_channel, self.reads.r_channel,
            self.writes.aw_channel, self.writes.w_channel, self.writes.b_channel,
        ]  # fmt: skip

    @property
    def idle(self) -> bool:
        """No burst is under way."""
        return not (self.reads.outstanding or self.writes.outstanding)
