"""The test bench around a whole engine, and the decorator that makes a cocotb test of a plain function.

::

    @engine_test()
    def test_established_fin(b: Bench) -> None:
        peer, sock = b.established()
        peer.send("FA")
        b.until(sock.readable, "end of stream")

The function is ordinary blocking code and so is the driver under it: both run in a thread of cocotb's bridge, and
simulated time passes only in the bench's waiting functions, in blocking socket calls and in register reads. Everything
else (buses, line, answering hosts, timer ticks) is coroutines of the simulation.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocotb
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer

from tiptoe_driver import EngineOptions, Socket, Stack, Tiptoe
from tiptoe_driver.hardware import abi_gen as abi

from ..wire.impairment import Impairment
from ..wire.segment import ip_number, mac_number
from .device import CocotbDevice
from .line import Line, Stalls
from .memory import CLOCK_NS, HostMemory, now

ENGINE_IP, ENGINE_MAC = "10.0.0.2", "02:00:00:00:00:02"
MEMORY_BYTES = 1 << 21

TICK_CYCLES = 256
"""Cycles between pulses on ``tick``: TCP's milliseconds pass quickly."""

TIMERS = {
    abi.REG_RTO_INITIAL: 24, abi.REG_RTO_MIN: 16, abi.REG_RTO_MAX: 200, abi.REG_DELACK_TICKS: 4,
    abi.REG_MSL_TICKS: 60,
    abi.REG_RETRIES: 3 << abi.RETRIES_SYN_RETRIES_SHIFT | 6 << abi.RETRIES_REXMT_MAX_SHIFT,
}  # fmt: skip
"""Registers in ticks: a round trip with all stalls takes two or three, a minute of TIME_WAIT is made 60."""

ACTIVE, PASSIVE = (50000, 7000), (80, 40000)
"""The engine's and the peer's port of the connections in most tests, opened by the engine or by the peer."""

ISN_KEYS = {ACTIVE: 0x674C5E, PASSIVE: 0x225477}
"""Keys of initial sequence numbers with which the engine's ISN for these ports lies 1000 to 1300 before wrap-around."""

PATIENCE = 400_000
"""Cycles after which waiting in vain fails."""

SETTLE_CYCLES = 600
"""Longer than anything in the engine takes, when no timer runs."""


_GATE_CYCLES = 100
"""From the answer to the write of ENABLE until the gate is surely open: a frame that meets it while it opens is swallowed."""


class Bench:
    """The engine, its host with the driver attached, and the line.

    Parameters
    ----------
    dut
        The engine's ports.
    name : str
        Of the test; chooses files and, with the seed, all chance.
    stall : float
        Part of the time each AXI and AXI4-Stream channel is paused.
    latency : range
        Of host memory, in cycles.
    impairment : Impairment
        Of the line; microseconds are cycles.
    registers : dict
        Further registers, value by address.
    near_wrap : tuple of int
        ACTIVE or PASSIVE: the connection whose ISN is next to wrap-around.
    tick_cycles : int
        Cycles between ticks; more than there are ids.
    driver : dict
        Further options of ``tiptoe_driver.EngineOptions``.

    Attributes
    ----------
    stack, toe : Stack and Tiptoe
    asleep : bool
        While set, the host looks neither at the interrupt nor at the event ring.
    tasks : list of functions
        Called whenever the host is at work: programs of a test that go on beside it.
    """

    def __init__(
        self, dut: Any, name: str, *, stall: float = 0.25, latency: range = range(5, 60),
        impairment: Impairment | None = None, registers: dict[int, int] | None = None,
        near_wrap: tuple[int, int] = ACTIVE, tick_cycles: int = TICK_CYCLES, **driver: Any,
    ) -> None:  # fmt: skip
        self.dut, self.name = dut, name
        self.seed = int(os.environ.get("TIPTOE_SEED", "1"), 0)
        self.rng = random.Random(f"{self.seed}:{name}")
        self.errors: list[Exception] = []
        self.asleep = False
        key = {abi.REG_ISN_KEY + 4 * n: ISN_KEYS[near_wrap] >> 32 * n & 0xFFFFFFFF for n in range(4)}
        self._options = {
            "snd_ring_bytes": 4096, "rcv_ring_bytes": 4096, "frame_slots": 16, "frame_buffers": 8, "stock": 8,
            "active_reserve": 4, "external_tick": True, "seed": zlib.crc32(name.encode()) ^ self.seed,
            "arp_retry_us": 20_000, "fin_wait_2_us": 60 * TICK_CYCLES, "registers": TIMERS | key | (registers or {}), **driver,
        }  # fmt: skip
        self.pcap = Path(f"{name}.pcap").absolute()
        dut.rst.value = 1
        dut.tick.value = 0
        self.memory = HostMemory(dut, MEMORY_BYTES, self._chance("memory"), latency, self.fail)
        self.device = CocotbDevice(self, dut, self._chance("registers"))
        self.line = Line(
            dut, pcap=self.pcap, mac=mac_number(ENGINE_MAC), ip=ip_number(ENGINE_IP),
            impairment=impairment or Impairment(), fail=self.fail,
        )  # fmt: skip
        bready, rready = dut.s_axil_bready, dut.s_axil_rready
        Stalls(
            dut.clk,
            [
                *self.memory.channels, self.line.source, self.line.sink,
                lambda pause: setattr(bready, "value", not pause), lambda pause: setattr(rready, "value", not pause),
            ],
            self._chance("stalls"), stall,
        )  # fmt: skip
        self.tick_cycles = tick_cycles
        self.tasks: list[Callable[[], None]] = []
        self._busy = False
        self.stack: Stack
        self.toe: Tiptoe

    def _chance(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}:{self.name}:{what}")

    async def reset(self) -> None:
        """Hold ``rst``, then let ``tick`` run."""
        await ClockCycles(self.dut.clk, 5)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)
        cocotb.start_soon(self._ticks())

    async def _ticks(self) -> None:
        edge = RisingEdge(self.dut.clk)
        while True:
            await Timer((self.tick_cycles - 2) * CLOCK_NS, "ns")
            await edge
            self.dut.tick.value = 1
            await edge
            self.dut.tick.value = 0

    def attach(self) -> None:
        """Bring the engine up with the driver."""
        self.stack = Stack()
        # An engine that stands still is to be found, not to be helped.
        options: dict[str, Any] = {"watchdog_us": 0, "on_standstill": "report"} | self._options
        self.toe = Tiptoe(
            self.stack, self.device, address=f"{ENGINE_IP}/24", mac=ENGINE_MAC, options=EngineOptions(**options)
        )
        self.device.settle()
        self.run(_GATE_CYCLES)

    # --- time

    @property
    def cycle(self) -> int:
        """Clock cycles so far."""
        return now()

    def fail(self, error: Exception) -> None:
        """Note an error of a coroutine; the test's thread raises it at the next opportunity."""
        self.errors.append(error)
        self.line.arrived.set()

    def check(self) -> None:
        """Raise what went wrong in a coroutine."""
        if self.errors:
            raise self.errors[0]

    def sleep(self, cycles: int | None) -> bool:
        """Let time pass until the interrupt is high, a frame arrived, or ``cycles`` are over; the interrupt's level."""
        high = bool(resume(self._sleep)(cycles))
        self.check()
        return high

    async def _sleep(self, cycles: int | None) -> bool:
        irq = self.dut.irq
        if irq.value and not self.asleep:
            await self.device.settled()  # what clears it may be on its way
            if irq.value:
                return True
        limit = min(PATIENCE if cycles is None else max(cycles, 1), PATIENCE)
        triggers = [Timer(limit * CLOCK_NS, "ns"), self.line.arrived.wait()]
        if not self.asleep:
            triggers.append(RisingEdge(irq))
        self.line.arrived.clear()
        await First(*triggers)
        return bool(irq.value)

    def poll(self) -> None:
        """What the host does when nothing blocks: serve the interrupt, look at the event ring."""
        if self.asleep:
            return
        interrupted = self.dut.irq.value
        self.stack.poll()
        if interrupted:
            self.toe.engine.clear_interrupt()
        if not self._busy:
            self._busy = True
            for task in list(self.tasks):
                task()
            self._busy = False

    def until(self, condition: Callable[[], Any], what: str, cycles: int = PATIENCE) -> None:
        """Let time pass until ``condition()`` holds; fails with ``what`` after ``cycles``."""
        end = self.cycle + cycles
        while True:
            self.poll()
            self.check()
            if condition():
                return
            left = end - self.cycle
            if left <= 0:
                raise AssertionError(f"{what}: not within {cycles} cycles")
            self.sleep(min(left, 200))

    def run(self, cycles: int) -> None:
        """Let time pass, the host at work."""
        end = self.cycle + cycles
        while (left := end - self.cycle) > 0:
            self.poll()
            self.sleep(min(left, 400))
        self.poll()

    def settle(self, cycles: int = SETTLE_CYCLES) -> None:
        """Let everything under way come to its end."""
        self.device.settle()
        self.run(cycles)

    # --- the host

    def socket(self) -> Socket:
        """A non-blocking offloaded socket."""
        sock = Socket(self.stack)
        sock.setblocking(False)
        return sock

    def counters(self) -> dict[str, int]:
        """The engine's counters."""
        return self.toe.engine.read_counters()

    def register(self, address: int) -> int:
        """A register's value."""
        return self.device.read32(address)

    def errors_told(self, code: abi.ErrorCode) -> int:
        """ERROR events of a kind so far."""
        return self.toe.counters[f"error_{code.name.lower()}"]

    @property
    def free_ids(self) -> int:
        """Connection ids that no connection uses."""
        return self.toe.engine.ids.available + self.toe.engine.ids.stocked

    @property
    def half_open(self) -> int:
        """Half-open connections that the driver knows of."""
        return len(self.toe.passive.half_open)

    # --- the end

    def nothing_left(self) -> bool:
        """Every id, ring and half-open connection has come back, and nothing is under way."""
        engine = self.toe.engine
        return (
            self.free_ids == engine.capabilities.connections
            and engine.ids.ring_pool.in_use == engine.ids.idle_rings
            and not self.toe.calls.four_tuples and not self.half_open and not engine.commands.waiting
            and not engine.commands.backlog and not list(self.stack.tcbinfo)
            and self.device.idle and self.memory.idle and self.line.idle
        )  # fmt: skip

    def finish(self, lost_ids: int = 0) -> None:
        """Everything has come to its end and nothing is left behind, in the driver or in the engine."""
        self.until(self.nothing_left, f"everything freed ({self.left()})")
        self.settle()
        assert self.nothing_left(), f"something began again: {self.left()}"
        engine = self.toe.engine
        assert self.register(abi.REG_EVENT_PRODUCER) == engine.events._head, "events that the host never saw"
        assert self.register(abi.REG_COMMAND_HEAD) == engine.commands._tail, "commands not executed"
        assert not self.dut.irq.value
        told = {name: count for name, count in self.toe.counters.items() if count}
        for name in self.expected_trouble:
            told.pop(name, None)
        assert not told, f"the driver wonders about {told}"

    expected_trouble: tuple[str, ...] = ()
    """Counters of the driver that the test raises on purpose."""

    def left(self) -> str:
        """What is not back yet, for messages."""
        engine = self.toe.engine
        return (
            f"ids {self.free_ids}/{engine.capabilities.connections}, "
            f"rings {engine.ids.ring_pool.in_use}, tuples {len(self.toe.calls.four_tuples)}, half-open {self.half_open}, "
            f"commands {engine.commands.waiting}, sockets {len(list(self.stack.tcbinfo))}, "
            f"idle: device {self.device.idle} memory {self.memory.idle} line {self.line.idle}"
        )


def engine_test(*, finish: bool = True, **options: Any) -> Callable[[Callable[..., None]], Any]:
    """Make a cocotb test of a function of a Bench; ``options`` are the Bench's.

    At the end ``Bench.finish`` proves that nothing is left over, unless ``finish`` is False.
    """

    def decorate(function: Callable[[Bench], None]) -> Any:
        name = function.__name__

        def body(bench: Bench) -> None:
            try:
                bench.attach()
                function(bench)
                if finish:
                    bench.finish()
                bench.check()
            except BaseException as error:
                bench.line.capture.close()
                print(f"{name}: seed {bench.seed}, cycle {bench.cycle}, capture {bench.pcap}", flush=True)
                raise error
            bench.line.capture.close()

        async def test(dut: Any) -> None:
            bench = Bench(dut, name, **options)
            await bench.reset()
            await bridge(body)(bench)

        test.__name__ = test.__qualname__ = name
        test.__doc__ = function.__doc__
        test.__module__ = function.__module__
        return cocotb.test()(test)

    return decorate


__all__ = ["ACTIVE", "ENGINE_IP", "ENGINE_MAC", "Bench", "PASSIVE", "engine_test"]
