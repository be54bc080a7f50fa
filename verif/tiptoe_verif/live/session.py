"""One live run: TAP interface, engine, driver and relays together."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import Any, Self

from rich.table import Table

from ..native.recorder import Recorder
from ..sim.toolchain import Progress
from .engine import LiveEngine
from .host_stack import HostStack
from .namespace import NetNamespace
from .setup import LiveSetup, UsageError, check
from .stat_server import StatServer
from .summary import totals_table
from .switchboard import Switchboard
from .tap import TapError, open_tap

HOST_STACK = {"rst_unknown": False, "syn_to_host": True, "frame_slots": 1024, "frame_buffers": 256}
"""The driver beside a kernel on the host's side: what the engine does not take is frames, in bursts."""


class Session:
    """What live runs have in common: an engine with its driver, and the relays; use it as a context manager.

    Attributes
    ----------
    engine
        Call its ``round`` or ``run_until`` to let time pass.
    board : Switchboard
        The relays and their records.
    forwarded : list of int
        Local ports of ``setup.forward``, in order.
    stat : StatServer or None
        Serves `tiptoe stat`.
    why_no_stat : str
        Why it is not served, though it should be.
    recorder : Recorder or None
        Keeps the record of the run.
    """

    engine: Any
    namespace: NetNamespace | None = None
    host: HostStack | None = None
    recorder: Recorder | None = None

    def __init__(self, setup: LiveSetup) -> None:
        self.setup = setup
        self._stack = contextlib.ExitStack()

    def _offer(self) -> None:
        """Relays and `tiptoe stat`, once the engine is up."""
        setup = self.setup
        self.board = Switchboard(self.engine.stack)
        self._stack.callback(self.board.close)
        if self.host is not None:
            self.board.epoll.register(self.host.epoll, select.EPOLLIN)
        self.engine.wake = self.board.epoll.fileno()
        self.engine.tasks.append(self._relay)
        for port, target in setup.listen:
            self.board.listen(port, target)
            if setup.ip6:
                self.board.listen(port, target, family=socket.AF_INET6)
        self.forwarded = []
        for port, address in setup.forward:
            try:
                self.forwarded.append(self.board.forward(port, address))
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise UsageError(f"cannot listen on port {port} of this machine ({reason})") from None
        self.stat: StatServer | None = None
        self.why_no_stat = ""
        if setup.stat:
            try:
                self.stat = StatServer(self.engine, self.board, setup.stat, self.host)
                self._stack.callback(self.stat.close)
            except OSError as error:  # no reason to do without the session
                self.why_no_stat = f"`tiptoe stat` does not see this session: {error.strerror or error}"

    def _relay(self) -> bool:
        self.board.service()
        return self.board.busy

    def close(self) -> None:
        """End everything. Twice does no harm."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class LiveSession(Session):
    """A live run on the simulated engine; use it as a context manager.

    Attributes
    ----------
    engine : LiveEngine
    namespace : NetNamespace or None
        Where the kernel's side of the TAP lives, if not here.
    host : HostStack or None
        The kernel on the host's side.
    """

    engine: LiveEngine
    pace_unit = "cycles"
    namespace: NetNamespace | None
    host: HostStack | None

    def __init__(self, setup: LiveSetup, progress: Progress | None = None) -> None:
        check(setup)
        super().__init__(setup)
        try:
            self._open(progress)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, progress: Progress | None) -> None:
        setup = self.setup
        self.namespace = self._stack.enter_context(NetNamespace()) if setup.namespace else None
        make = self.namespace.open_tap if self.namespace else open_tap
        self.tap = make(setup.tap, address=setup.host_ip, prefix=setup.prefix, mtu=setup.mtu, mac=setup.host_mac,
                        address6=f"{setup.host_ip6}/{setup.prefix6}" if setup.host_ip6 else "")  # fmt: skip
        self._stack.callback(os.close, self.tap)
        host_namespace = self._host_namespace()
        driver = (HOST_STACK if host_namespace else {}) | setup.driver
        if setup.ip6:
            driver["ipv6"] = f"{setup.ip6}/{setup.prefix6}"
        self.engine = LiveEngine(
            self.tap, setup.config, ip=setup.ip, mac=setup.mac, prefix=setup.prefix, gateway=setup.gateway,
            impairment=setup.impairment, conditions=setup.conditions, time_wait_s=setup.time_wait_s, seed=setup.seed,
            pcap=setup.pcap, monitor=setup.monitor, driver=driver, progress=progress,
            offload_disabled=setup.offload_disabled, mtu=setup.mtu,
        )  # fmt: skip
        self._stack.callback(self.engine.close)
        if setup.record:
            self.recorder = Recorder(self.engine, setup.record, f"tiptoe {setup.stat or 'live'}")
            self._stack.callback(self.recorder.close)
        self.host = None
        if host_namespace:
            monitor = self.engine.monitor
            noted = {"note": monitor.host.give} if monitor is not None else {}
            self.host = HostStack(
                self.engine.stack, self.engine.toe, host_namespace, name=setup.tap, mtu=setup.mtu,
                gateway=setup.gateway or "", **noted,
            )  # fmt: skip
            self._stack.callback(self.host.close)
        self._offer()

    def _host_namespace(self) -> NetNamespace | None:
        if self.setup.host_stack is False:
            return None
        try:
            return self._stack.enter_context(NetNamespace())
        except TapError:
            if self.setup.host_stack:
                raise
            return None

    @property
    def headline(self) -> str:
        """What runs here, for people."""
        setup = self.setup
        return f"engine [bold]{setup.ip}[/] on {setup.tap}, kernel {setup.host_ip}/{setup.prefix}"

    def totals(self) -> Table:
        """What has happened, for the summary."""
        engine = self.engine
        return totals_table([engine], seconds=engine.engine_seconds, channels=engine.channels, host=self.host)

    @property
    def pace(self) -> int:
        """Cycles that the engine has run."""
        return self.engine.harness.cycle
