"""The driver's seam on the engine under cocotb: register writes through cocotb-bus, memory shared, time by the clock."""

from __future__ import annotations

import random
from collections import deque
from typing import Any, Protocol

import cocotb
from cocotb.task import resume
from cocotb.triggers import Event
from cocotb_bus.drivers.amba import AXI4LiteMaster, AXIProtocolError

from .memory import HostMemory, now


class Surroundings(Protocol):
    """What the device needs of the bench around it."""

    memory: HostMemory

    def check(self) -> None:
        """Raise what went wrong in a coroutine."""

    def sleep(self, cycles: int | None) -> bool:
        """Let time pass until the interrupt is high, a frame arrived, or ``cycles`` are over; the interrupt's level."""


class CocotbDevice:
    """Implements ``tiptoe_driver.hardware.device.Device``.

    A register write is queued and carried out by a coroutine, as on a bus with posted writes; a read and ``wait`` let
    the simulation run until they are done. So the driver, and the test that calls it, run in a thread that
    ``cocotb.task.bridge`` started.

    Attributes
    ----------
    cycles_per_us : int
        The driver's clock: one microsecond is that many cycles. One makes TCP's long times affordable.
    refused : list of int
        Addresses whose write was answered with an error.
    """

    cycles_per_us = 1

    def __init__(self, bench: Surroundings, dut: Any, rng: random.Random) -> None:
        self._bench = bench
        self._rng = rng
        self._bus = AXI4LiteMaster(dut, "s_axil", dut.clk)
        for name in ("AWPROT", "ARPROT"):
            getattr(dut, f"s_axil_{name.lower()}").value = 0
        self._writes: deque[tuple[int, int]] = deque()
        self._posted, self._settled = Event(), Event()
        self._busy = False
        self.refused: list[int] = []
        self.writes = 0
        cocotb.start_soon(self._carry_out())

    # --- the seam

    @property
    def memory(self) -> memoryview:
        """Host memory."""
        return memoryview(self._bench.memory.bytes)

    def write32(self, address: int, value: int) -> None:
        """Post a register write."""
        self._writes.append((address, value & 0xFFFFFFFF))
        self.writes += 1
        self._posted.set()

    def read32(self, address: int) -> int:
        """Read a register, after all writes."""
        self.settle()
        self._bench.check()
        return resume(self._read)(address)

    def now_us(self) -> int:
        """The clock."""
        return now() // self.cycles_per_us

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until the interrupt is high or the time is over."""
        self._bench.check()
        return self._bench.sleep(None if timeout_us is None else timeout_us * self.cycles_per_us)

    # --- inside

    @property
    def idle(self) -> bool:
        """Every write has been carried out."""
        return not self._writes and not self._busy

    def settle(self) -> None:
        """Let time pass until every write has been carried out."""
        if not self.idle:
            resume(self.settled)()

    async def settled(self) -> None:
        """Wait until every write has been carried out."""
        while not self.idle:
            self._settled.clear()
            await self._settled.wait()

    async def _read(self, address: int) -> int:
        return int(await self._bus.read(address))

    async def _carry_out(self) -> None:
        while True:
            while not self._writes:
                self._posted.clear()
                await self._posted.wait()
            self._busy = True
            address, value = self._writes.popleft()
            late = self._rng.choice([0, 0, 0, 1, 3])
            try:
                # Address first, data first, or both at once.
                if self._rng.random() < 0.5:
                    await self._bus.write(address, value, address_latency=late)
                else:
                    await self._bus.write(address, value, data_latency=late)
            except AXIProtocolError:
                self.refused.append(address)
            self._busy = False
            self._settled.set()
