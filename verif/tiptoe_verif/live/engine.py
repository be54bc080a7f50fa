"""The simulated engine on wall time, its frame ports joined to a TAP interface."""

from __future__ import annotations

import os
import time
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any

from tiptoe_hdl.config import EngineConfig

from ..native.attach import attach_driver, serve_interrupt
from ..native.device import MEMORY_BYTES, Conditions, EngineDevice
from ..native.harness import LiveOptions, RuleBroken, Stop
from ..sim.toolchain import Progress
from ..wire.impairment import Channel, Impairment
from .rounds import Rounds

TICK_NS = 1_000_000
TICK_SPACING = 4
"""Cycles between ticks that are overdue: TCP's clock keeps up with wall time at any speed of the simulation that is of use."""
FORGET_AFTER_NS = 120 * 10**9
"""A connection that is over is as good as never seen after so long: Linux sends nothing for one any more."""
WATCHDOG_US = 4_000_000
"""Interval of the driver's looks: each reads registers, so that the engine's clock runs some thousand cycles out of its rest."""
_MAX_FRAME = 65536
_SETTLE_CYCLES = 4000


class LiveEngine(Rounds, EngineDevice):
    """An engine between a TAP descriptor and a driver, as fast as the simulation goes.

    TCP's clock ticks on wall time; the engine's own clock runs in chunks between looks at the outside, and rests while
    nothing moves.

    Parameters
    ----------
    tap : int
        Descriptor of a TAP interface, from ``open_tap``.
    wake : int
        Descriptor that becomes readable when the host has work (a switchboard's epoll), or -1; see :attr:`wake`.
    impairment : Impairment
        Between TAP and engine, in each direction.
    time_wait_s : float
        Length of TIME_WAIT in the engine. Linux keeps its own for 60 s; here ids are few.
    driver : dict
        Further options for the driver.
    attach : bool
        Attach the driver; without it the engine is somebody else's (``write32``, ``read32``, ``memory``), who looks in a task.
    offload_disabled : bool
        TCP_OFFLOAD_DISABLE: the engine is an ordinary network card.
    config, ip, mac, conditions, memory_bytes, seed, pcap, monitor, trace, library, progress
        See :class:`~tiptoe_verif.native.device.EngineDevice`.

    Attributes
    ----------
    channels : tuple of Channel or None
        Towards the engine and away from it, when impaired.
    """

    def __init__(
        self,
        tap: int,
        config: str | EngineConfig = "sim",
        *,
        ip: str = "10.77.0.2",
        mac: str = "02:00:00:00:00:02",
        prefix: int = 24,
        gateway: str | None = None,
        mtu: int = 1500,
        impairment: Impairment | None = None,
        time_wait_s: float = 2.0,
        conditions: Conditions | None = None,
        memory_bytes: int = MEMORY_BYTES,
        seed: int = 1,
        pcap: Path | None = None,
        monitor: bool = True,
        trace: Path | None = None,
        library: Path | None = None,
        driver: dict[str, Any] | None = None,
        attach: bool = True,
        offload_disabled: bool = False,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(
            config, ip=ip, mac=mac, conditions=conditions or Conditions(), memory_bytes=memory_bytes, seed=seed,
            pcap=pcap, monitor=monitor, trace=trace, library=library, progress=progress,
        )  # fmt: skip
        from tiptoe_driver.hardware.abi_gen import REG_MSL_TICKS

        if self.monitor is not None:
            self.monitor.forget_after_ns = FORGET_AFTER_NS
            self.monitor.remembered = max(4096, 2 * self.config.connections)
        self._tap = tap
        self._start_ns = time.monotonic_ns()
        self._wall_ns = 0.0
        self.tasks = []
        """Called in every round; one that returns True wants another round at once."""
        impaired = bool(impairment)
        self.channels = (Channel(impairment, "in"), Channel(impairment, "out")) if impairment else None
        self._late: list[tuple[float, int, bytes, bool]] = []
        self._order = count()
        self.harness.log_frames(only=impaired)
        self.live = LiveOptions(
            tap=tap, wake=-1, exchange=not impaired, chunk=128, rest_after=2048,
            tick_spacing=TICK_SPACING, tick_ns=TICK_NS, duration_ns=0,
        )  # fmt: skip
        if not attach:
            return
        options = {"watchdog_us": WATCHDOG_US} | (driver or {})
        options["registers"] = {REG_MSL_TICKS: max(1, round(time_wait_s * 1000))} | dict(options.get("registers", {}))
        attach_driver(
            self, prefix=prefix, gateway=gateway, tick_cycles=0, options=options, offload_disabled=offload_disabled,
            mtu=mtu,
        )  # fmt: skip

    @property
    def wake(self) -> int:
        """Descriptor that ends a round when it becomes readable; -1: none."""
        return int(self.live.wake)

    @wake.setter
    def wake(self, descriptor: int) -> None:
        self.live.wake = descriptor

    # --- the driver's seam ---

    def now_us(self) -> int:
        """Wall time since the start, in microseconds."""
        return (time.monotonic_ns() - self._start_ns) // 1000

    def wait(self, timeout_us: int | None) -> bool:
        """Run until the interrupt line is high or the time is over; returns the line's level."""
        end = None if timeout_us is None else self.now_us() + timeout_us
        while not self.harness.irq:
            left = 100_000 if end is None else min(end - self.now_us(), 100_000)
            if left <= 0:
                break
            if self._exchange(left) & Stop.REQUESTED:
                raise KeyboardInterrupt
        return self.harness.irq

    @property
    def time_ns(self) -> int:
        """The clock that stamps frames: the wall's."""
        return time.time_ns()

    # --- rounds ---

    def round(self, limit_us: int = 10_000) -> bool:
        """Run until something needs the host (at most ``limit_us``), then let driver and tasks do their work.

        Returns False once :meth:`stop` was called.
        """
        stop = self._exchange(limit_us)
        self.serve()
        return not stop & Stop.REQUESTED

    def serve(self) -> None:
        """Let the driver look at the engine, and the tasks at their sockets until none wants more."""
        if self.stack is not None:
            if self.harness.irq:
                serve_interrupt(self)
            else:
                self.stack.poll()
        self.run_tasks()

    def settle(self) -> None:
        """Let the engine carry out the commands on their way."""
        self.harness.run(_SETTLE_CYCLES, Stop.SETTLED)

    def stop(self) -> None:
        """Make :meth:`round` return False soon; for signal handlers and other threads."""
        self.harness.stop()

    def _exchange(self, limit_us: float) -> Stop:
        """Run the engine once; frames pass between it and the TAP."""
        if self._late:
            limit_us = min(limit_us, max(0.0, self._late[0][0] - self.now_us()))
        self.live.duration_ns = round(limit_us * 1000)
        # A tick's sweeps: a connection a cycle, a half-open one in sixteen at most; then a pass and a transfer.
        half_open = self.config.syncache_entries if self.toe is not None and self.toe.passive.half_open else 0
        self.live.sweep = self.config.connections + 16 * half_open + 256
        begin = time.monotonic_ns()
        try:
            stop = self.harness.run_live(self.live)
        except RuleBroken:
            self._collect()
            if self.capture.pcap:
                self.capture.pcap.flush()
            raise
        self._wall_ns += time.monotonic_ns() - begin
        self._collect()
        if self.channels:
            self._impaired_exchange()
        return stop

    def _collect(self) -> None:
        for frame in self.harness.take_frames(log=True):
            self.capture.frame(frame.data, frame.to_engine, frame.time_ns, frame.first, frame.last)
            if self.channels and not frame.to_engine:
                self._queue(self.channels[1], frame.data, False)

    def _queue(self, channel: Channel, frame: bytes, to_engine: bool) -> None:
        for time_us, arrived in channel.send(frame, self.now_us()):
            heappush(self._late, (time_us, next(self._order), arrived, to_engine))

    def _impaired_exchange(self) -> None:
        assert self.channels is not None
        for _ in range(64):
            try:
                frame = os.read(self._tap, _MAX_FRAME)
            except BlockingIOError:
                break
            self._queue(self.channels[0], frame, True)
        now = self.now_us()
        while self._late and self._late[0][0] <= now:
            _, _, frame, to_engine = heappop(self._late)
            if to_engine:
                self.harness.inject(frame)
                continue
            try:
                os.write(self._tap, frame)
            except OSError:
                self.refused += 1

    refused = 0
    """Frames the TAP did not take from the impaired line."""

    # --- findings ---

    @property
    def engine_seconds(self) -> float:
        """Wall time the engine's clock ran, without its rests."""
        return self._wall_ns / 1e9 - self.harness.rested_s
