"""The simulated engine in simulated time, for any test or tool.

::

    from tiptoe_verif.native.simulation import Simulation, Wire, Peer

    with Simulation("tiny", ip="10.0.0.2", pcap=Path("build/run.pcap")) as sim:
        peer = Peer(on_frame)                 # scripted: frame in, frames out; or another Simulation
        Wire(sim, peer, Impairment(loss=0.01, delay_us=500, seed=7))
        listener = sim.socket()               # a non-blocking offloaded socket of tiptoe_driver
        listener.bind(("10.0.0.2", 80))
        listener.listen()
        sim.run_us(10_000)                    # everything on the wire lives on for 10 ms
        sim.run_until(lambda: sim.now_us() > 50_000, timeout_us=100_000)

Time stands still unless one of the run functions is called (or ``wait``, which blocking driver calls use). The
same seed gives the same run, cycle by cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from socket import AF_INET
from typing import Any, Literal

from tiptoe_hdl.config import EngineConfig

from ..sim.toolchain import Progress
from ..wire.impairment import Impairment
from ..wire.segment import ip_text
from .device import MEMORY_BYTES, Conditions, EngineDevice
from .harness import RuleBroken, Stop
from .world import Peer, Wire, World

__all__ = ["Conditions", "Impairment", "Peer", "Simulation", "SimulationTimeout", "Wire", "World"]

_QUANTUM_CYCLES = 256
_AFTER_POLL = 128  # cycles the engine gets after the driver has looked, before the interrupt counts again
_IDLE_AFTER = 1024  # cycles without traffic on a bus: commands in a row keep the engine busy for 500 without a word
_PASS_CYCLES = 64


class SimulationTimeout(TimeoutError):
    """A condition did not come true in the simulated time allowed."""


class Simulation(EngineDevice):
    """One engine in simulated time; implements the driver's seam (``tiptoe_driver.hardware.device.Device``) and ``Node``.

    Parameters
    ----------
    config : str or EngineConfig
        "tiny", "sim", "ecp5", "datacentre", or a configuration of your own.
    ip, mac : str
        The engine's addresses.
    prefix : int
        Length of the subnet's prefix.
    gateway : str, optional
        Next hop of everything outside the subnet.
    mtu : int
        Of the interface; more than 1500 where ``config`` has longer frames.
    cycles_per_us : int
        Clock cycles in a microsecond of simulated time. A slow clock makes TCP's long times affordable: at 1 (the
        default) 200 ms of retransmission timeout are 200,000 cycles, about half a second of yours.
    tick_us : int
        Microseconds of simulated time in a tick of TCP's clock (nominally 1000).
    conditions : Conditions
        Memory latency, stalls, line rate.
    memory_bytes, seed, pcap, monitor, trace, library, progress
        See :class:`~tiptoe_verif.native.device.EngineDevice`.
    attach : bool
        Attach the driver: addresses, rings and keys are set, the engine enabled. Without it, registers and memory are
        yours (``write32``, ``read32``, ``memory``).
    driver : dict, optional
        Options for the driver (``tiptoe_driver.EngineOptions``).
    software : str, optional
        What carries connections that are not offloaded: "stand-in", a TCP in Python for want of a kernel
        (:class:`~tiptoe_verif.standin.tcp.StandInTcp`, as attribute ``software``); it answers segments of nobody in
        the engine's stead. Without it such connections fail.
    offload_disabled : bool
        TCP_OFFLOAD_DISABLE: nothing is offloaded.
    skip_idle : bool
        Time in which nothing moves on any port is skipped, but for the cycles of each tick: seconds of waiting for a timer
        cost a tenth or less. TCP's clock is the tick input then. Not for pacing, whose clock is the engine's.
    neighbours : dict
        MAC addresses by IP address that are known from the start: nobody is asked for them by ARP.

    Attributes
    ----------
    stack, toe : tiptoe_driver.Stack and tiptoe_driver.Tiptoe, or None
        The TCP stack, and the device in it.
    frames : list of (time in microseconds, frame)
        What the engine sent and no wire took away; ``captured()`` empties it.
    watchers : list of functions
        Called with time in microseconds, frame and whether it goes to the engine, for each that has passed, in order.
    tasks : list of functions
        Called whenever the driver has looked at the engine: servers and clients of a test live here.
    """

    def __init__(
        self,
        config: str | EngineConfig = "sim",
        *,
        ip: str = "10.0.0.2",
        mac: str = "02:00:00:00:00:02",
        prefix: int = 24,
        gateway: str | None = None,
        mtu: int = 1500,
        cycles_per_us: int = 1,
        tick_us: int = 1000,
        conditions: Conditions | None = None,
        memory_bytes: int = MEMORY_BYTES,
        seed: int = 1,
        pcap: Path | None = None,
        monitor: bool = True,
        trace: Path | None = None,
        library: Path | None = None,
        attach: bool = True,
        driver: dict[str, Any] | None = None,
        software: Literal["stand-in"] | None = None,
        offload_disabled: bool = False,
        skip_idle: bool = False,
        neighbours: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(
            config, ip=ip, mac=mac, conditions=conditions or Conditions(), memory_bytes=memory_bytes, seed=seed,
            pcap=pcap, monitor=monitor, trace=trace, library=library, progress=progress,
        )  # fmt: skip
        if cycles_per_us < 1:
            raise ValueError("cycles_per_us is at least 1")
        if tick_us * cycles_per_us < self.config.connections:
            raise ValueError(
                f"a tick of {tick_us * cycles_per_us} cycles is too short to look at {self.config.connections} "
                "connections: raise tick_us or cycles_per_us"
            )
        if software not in (None, "stand-in"):
            raise ValueError(f'software is "stand-in" or None, not {software!r}')
        if not attach and (software or offload_disabled or neighbours):
            raise ValueError("software, offload_disabled and neighbours are the driver's: attach it")
        self.cycles_per_us = cycles_per_us
        self.tick_us = tick_us
        self.world = World()
        self.world.nodes.append(self)
        self.quantum_ns = _QUANTUM_CYCLES * 1000 // cycles_per_us
        self.frames: list[tuple[float, bytes]] = []
        self.tasks: list[Callable[[], None]] = []
        self.watchers: list[Callable[[float, bytes, bool], None]] = []
        self._sent: list[tuple[int, bytes]] = []
        self._waiting = self._polling = False
        self._stops = Stop(0)
        """What ends a wait besides the interrupt."""
        self._stopped = Stop(0)
        """What has ended the last one."""
        self.harness.log_frames(only=True)
        if skip_idle:
            self.harness.tick_every(tick_us * cycles_per_us)
        # A tick's sweep: a connection a cycle, a half-open one in nine; then a pass. What is not through is late by a tick.
        sweep = self.config.connections + 9 * self.config.syncache_entries + _PASS_CYCLES
        self.harness.idle(_IDLE_AFTER, sweep, skip=skip_idle)
        if attach:
            from .attach import attach_driver

            attach_driver(
                self, prefix=prefix, gateway=gateway, tick_cycles=tick_us * cycles_per_us, options=driver or {}, tick_us=tick_us,
                seed=seed, offload_disabled=offload_disabled, stand_in=software == "stand-in", mtu=mtu,
                external_tick=skip_idle, neighbours=neighbours or {},
            )  # fmt: skip

    # --- time ---

    @property
    def time_ns(self) -> int:
        """Simulated time."""
        return self.harness.cycle * 1000 // self.cycles_per_us

    def now_us(self) -> int:
        """Simulated time in microseconds."""
        return self.harness.cycle // self.cycles_per_us

    def run_us(self, microseconds: float) -> None:
        """Let time pass for this engine and all that is wired to it."""
        self._synchronise()
        self.world.run(self.world.now_ns + round(microseconds * 1000))

    def run_cycles(self, cycles: int) -> None:
        """Like :meth:`run_us`, in clock cycles."""
        self.run_us(cycles / self.cycles_per_us)

    def run_until(
        self, condition: Callable[[], Any], timeout_us: float, what: str = "", step_us: float | None = None
    ) -> None:
        """Let time pass until ``condition()`` holds; it is looked at every ``step_us`` (default: 256 cycles).

        Raises :exc:`SimulationTimeout`, naming ``what`` and the capture, when ``timeout_us`` is over.
        """
        self._synchronise()
        step_ns = round((step_us or _QUANTUM_CYCLES / self.cycles_per_us) * 1000)
        end = self.world.now_ns + round(timeout_us * 1000)
        while not condition():
            if self.world.now_ns >= end:
                where = f" (capture: {self.pcap})" if self.pcap else ""
                self._flush()
                software = f"; {self.software.summary()}" if self.software is not None else ""
                raise SimulationTimeout(f"{what or 'the condition'}: not within {timeout_us:g} us{where}{software}")
            self.world.run(min(end, self.world.now_ns + step_ns))

    def wait(self, timeout_us: int | None, *, frame: bool = False) -> bool:
        """Let time pass until the interrupt line is high or the time is over; returns the line's level.

        With other nodes on wires their stacks live on meanwhile; this one's is left to the caller. ``frame``: one that the engine
        sends ends it too; for an engine on no wire.
        """
        if self._polling:
            raise RuntimeError("wait() inside a task: tasks must not block")
        self._synchronise()
        self._waiting = True
        try:
            end = self.world.now_ns + (round(timeout_us * 1000) if timeout_us is not None else 3600 * 10**9)
            if len(self.world.nodes) == 1:
                self._wait_alone(end, Stop.FRAME if frame else Stop(0))
            else:
                self.world.run(end, lambda: self.harness.irq)
        finally:
            self._waiting = False
        if timeout_us is None and not self.harness.irq:
            raise SimulationTimeout("no interrupt within an hour of simulated time")
        return self.harness.irq

    def _wait_alone(self, end_ns: int, stops: Stop) -> None:
        cycles = self._cycle_at(end_ns) - self.harness.cycle
        self._stopped = stop = self._run(cycles, Stop.IRQ | stops | self._stops)
        self.world.now_ns = end_ns if stop & Stop.CYCLES else max(self.world.now_ns, self.time_ns)

    def step(self, until_us: int) -> bool:
        """Let time pass until something happens, or until then: a frame has been sent, the driver has handled something. Returns
        whether time is left. For an engine on no wire."""
        if len(self.world.nodes) > 1 or self.stack is None:
            raise RuntimeError("step() is for an engine with a driver, and on no wire")
        left = until_us - self.now_us()
        if left > 0:
            self._stops = Stop.FRAME
            try:
                self.stack.wait(left)
            finally:
                self._stops = Stop(0)
        return self.now_us() < until_us

    def next_frame(self, timeout_us: int) -> tuple[float, bytes] | None:
        """The next frame the engine sends, or has sent and nobody has taken, with the time of its last word; time stops there.
        None when there is none in that time. For an engine on no wire."""
        end = self.now_us() + timeout_us
        while not self.frames and self.step(end):
            pass
        return self.frames.pop(0) if self.frames else None

    def settle(self, timeout_us: int = 2000) -> bool:
        """Let time pass until nothing moves and the driver has nothing to do; returns whether it came to that in time. Timers
        may be running. For an engine on no wire."""
        end = self.now_us() + timeout_us
        self._stops = Stop.IDLE
        try:
            while self.now_us() < end:
                self._stopped = Stop(0)
                self.stack.wait(end - self.now_us())
                if self._stopped & Stop.IDLE and not self.harness.registers_pending:
                    return True
        finally:
            self._stops = Stop(0)
        return False

    # --- frames ---

    def inject(self, frame: bytes, at_us: float | None = None, *, error: bool = False) -> None:
        """Give the engine a frame, now or at a later time; ``error``: with the MAC's error flag."""
        cycle = 0 if at_us is None else round(at_us * self.cycles_per_us)
        self.harness.inject(frame, not_before=cycle, error=error)

    def captured(self) -> list[bytes]:
        """Frames the engine has sent since the last call (only while no wire is attached)."""
        frames, self.frames = [frame for _, frame in self.frames], []
        return frames

    # --- the driver ---

    def socket(self, family: int = AF_INET) -> Any:
        """A non-blocking offloaded socket of tiptoe_driver; what it accepts is non-blocking too."""
        if self.stack is None:
            raise RuntimeError("no driver is attached to this simulation")
        from .attach import NonBlocking

        return NonBlocking(self.stack, family=family)

    def poll(self) -> None:
        """Let the driver look at the engine, and the tasks at their sockets."""
        if self._polling:
            return
        self._polling = True
        try:
            if self.stack is not None and not self._waiting:
                if self.harness.irq:
                    from .attach import serve_interrupt

                    serve_interrupt(self)
                else:
                    self.stack.poll()
            for task in list(self.tasks):
                task()
        finally:
            self._polling = False

    # --- Node ---

    def advance(self, until_ns: int) -> None:
        """Run to that time, serving the interrupt (see :class:`~tiptoe_verif.native.world.Node`)."""
        target = self._cycle_at(until_ns)
        while (left := target - self.harness.cycle) > 0:
            if self._waiting or (self.stack is None and not self.tasks):
                self._run(left)
                continue
            if self._run(left, Stop.IRQ) & Stop.IRQ:
                self.poll()
                self._run(min(_AFTER_POLL, target - self.harness.cycle))
        self.poll()

    def take_sent(self) -> list[tuple[int, bytes]]:
        """See :class:`~tiptoe_verif.native.world.Node`."""
        sent, self._sent = self._sent, []
        self.frames.clear()
        return sent

    def give(self, time_ns: int, frame: bytes) -> None:
        """See :class:`~tiptoe_verif.native.world.Node`."""
        self.harness.inject(frame, not_before=max(self._cycle_at(time_ns), self.harness.cycle))

    # --- inside ---

    def _cycle_at(self, time_ns: int) -> int:
        return time_ns * self.cycles_per_us // 1000

    def _synchronise(self) -> None:
        """Register reads run the clock outside of the world's time: catch up."""
        ahead = self.time_ns
        if ahead > self.world.now_ns:
            self.world.run(ahead)

    def _run(self, cycles: int, stops: int = 0) -> Stop:
        try:
            stop = self.harness.run(cycles, stops)
        except RuleBroken as error:
            self._collect()
            self._flush()
            where = f" (capture: {self.pcap})" if self.pcap else ""
            raise RuleBroken(f"{error}{where}") from None
        self._collect()
        return stop

    def _collect(self) -> None:
        for frame in self.harness.take_frames(log=True):
            time_ns = frame.last * 1000 // self.cycles_per_us
            if not frame.to_engine:
                self._sent.append((time_ns, frame.data))
                self.frames.append((time_ns / 1000, frame.data))
            for watcher in self.watchers:
                watcher(time_ns / 1000, frame.data, frame.to_engine)
            self.capture.frame(frame.data, frame.to_engine, time_ns, frame.first, frame.last)

    def _flush(self) -> None:
        if self.capture.pcap:
            self.capture.pcap.flush()

    def __enter__(self) -> Simulation:
        return self

    def __repr__(self) -> str:
        software = self.software.summary() if self.software is not None else "connections that are not offloaded: none"
        return f"<Simulation {ip_text(self.ip)} at {self.now_us()} us; {software}>"
