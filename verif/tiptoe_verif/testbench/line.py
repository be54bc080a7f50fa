"""The Ethernet line at the engine's frame ports: captured, watched, impaired on demand."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Event, RisingEdge, Timer
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from ..wire.capture import Capture
from ..wire.impairment import Channel, Impairment
from ..wire.monitor import WireMonitor
from .memory import CLOCK_NS, now

OnFrame = Callable[[bytes], None]


class Line:
    """Frames to and from the engine.

    Parameters
    ----------
    dut
        The engine; the ports are ``s_axis_rx`` and ``m_axis_tx``.
    pcap : Path
        Everything that passes the ports.
    mac, ip : int
        The engine's.
    impairment : Impairment
        Of both directions; its microseconds are clock cycles here.
    fail
        Called with a broken rule of the wire monitor, or what a host's code raised.

    Attributes
    ----------
    hosts : list of functions
        Each gets every frame that arrives from the engine.
    arrived : Event
        Set when one has.
    """

    def __init__(
        self, dut: Any, *, pcap: Path, mac: int, ip: int, impairment: Impairment, fail: Callable[[Exception], None]
    ) -> None:
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis_rx"), dut.clk)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis_tx"), dut.clk)
        self.monitor = WireMonitor(mac=mac, ip=ip)
        self.capture = Capture(pcap, self.monitor)
        self.fail = fail
        self.hosts: list[OnFrame] = []
        self.arrived = Event()
        self.travelling = 0
        self.to_engine = Channel(impairment, "to the engine")
        self.from_engine = Channel(impairment, "from the engine")
        cocotb.start_soon(self._receive())

    @property
    def idle(self) -> bool:
        """No frame is under way."""
        return not self.travelling and self.source.idle() and self.sink.idle() and self.sink.empty()

    def give(self, frame: bytes, *, error: bool = False) -> None:
        """Send a frame to the engine, over the impaired line; ``error``: with the MAC's error flag in its last beat."""
        for arrival, what in self.to_engine.send(frame, now()):
            self._later(arrival, partial(self.inject, what, error=error))

    def inject(self, frame: bytes, *, error: bool = False) -> None:
        """Send a frame to the engine, over a perfect line."""

        def sent(_: Any) -> None:
            if not error:
                self.capture.frame(frame, True, now() * CLOCK_NS)

        tuser = [0] * (len(frame) - 1) + [1] if error else 0
        self.source.send_nowait(AxiStreamFrame(frame, tuser=tuser, tx_complete=sent))

    def _later(self, time: float, action: Callable[[], None]) -> None:
        wait = round(time) - now()
        if wait <= 0:
            action()
            return
        self.travelling += 1

        async def run() -> None:
            await Timer(wait * CLOCK_NS, "ns")
            self.travelling -= 1
            self._guard(action)

        cocotb.start_soon(run())

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self.fail(error)

    async def _receive(self) -> None:
        while True:
            frame = bytes((await self.sink.recv()).tdata)
            self._guard(partial(self.capture.frame, frame, False, now() * CLOCK_NS))
            for arrival, what in self.from_engine.send(frame, now()):
                self._later(arrival, partial(self._deliver, what))

    def _deliver(self, frame: bytes) -> None:
        for host in self.hosts:
            self._guard(partial(host, frame))
        self.arrived.set()


class Stalls:
    """Random pauses of every channel: one coroutine that now and then flips one of them.

    Parameters
    ----------
    channels : list
        cocotbext-axi's channels, and functions that take the pause as bool.
    rng : random.Random
    share : float
        Part of the time a channel is paused; 0: never.
    """

    def __init__(self, clk: Any, channels: list[Any], rng: random.Random, share: float) -> None:
        self._clk, self._channels, self._rng, self._share = clk, channels, rng, share
        if share:
            cocotb.start_soon(self._run())

    async def _run(self) -> None:
        edge = RisingEdge(self._clk)
        while True:
            cycles = self._rng.choice((0, 0, 1, 2, 5))
            if cycles:
                await Timer(cycles * CLOCK_NS, "ns")
            await edge
            for channel in self._rng.sample(self._channels, 2):
                pause = self._rng.random() < self._share
                if callable(channel):
                    channel(pause)
                else:
                    channel.pause = pause
