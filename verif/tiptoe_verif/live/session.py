"""One live run: TAP interface, engine, driver and relays together, with a summary at the end."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..native.device import Conditions
from ..sim.toolchain import Progress
from ..wire.impairment import Impairment
from .engine import LiveEngine
from .host_stack import HostStack
from .namespace import NetNamespace
from .relay import BUILT_IN
from .stat_server import StatServer
from .switchboard import Switchboard
from .tap import TapError, open_tap

Target = str | tuple[str, int]


class UsageError(ValueError):
    """A wrong option; the message is fit to be shown to the user."""


def parse_port(text: str) -> int:
    """A TCP port number."""
    if not re.fullmatch(r"\d{1,5}", text) or not 0 < int(text) < 65536:
        raise UsageError(f"{text!r} is not a port: 1 to 65535")
    return int(text)


def parse_host(text: str) -> tuple[str, int]:
    """HOST:PORT, the host resolved."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise UsageError(f"{text!r} is not HOST:PORT")
    number = parse_port(port)
    try:
        return socket.getaddrinfo(host, number, socket.AF_INET, socket.SOCK_STREAM)[0][4][0], number  # type: ignore
    except OSError as error:
        raise UsageError(f"unknown host {host!r} ({error.strerror})") from None


def parse_listen(text: str) -> tuple[int, Target]:
    """PORT=TARGET of ``--listen``."""
    port, equals, target = text.partition("=")
    if not equals:
        raise UsageError(f"--listen {text}: PORT=TARGET is wanted, with TARGET HOST:PORT, {' or '.join(BUILT_IN)}")
    if target in BUILT_IN:
        return parse_port(port), target
    if ":" not in target:
        raise UsageError(f"--listen {text}: unknown target {target!r}: HOST:PORT, {', '.join(BUILT_IN)}")
    return parse_port(port), parse_host(target)


def parse_forward(text: str) -> tuple[int, tuple[str, int]]:
    """LOCALPORT=HOST:PORT of ``--forward``."""
    port, equals, target = text.partition("=")
    if not equals:
        raise UsageError(f"--forward {text}: LOCALPORT=HOST:PORT is wanted")
    return parse_port(port), parse_host(target)


@dataclass(kw_only=True)
class LiveSetup:
    """All choices of a live run.

    Attributes
    ----------
    config : str
        Configuration of the engine.
    tap : str
        Name of the TAP interface.
    ip, mac : str
        The engine's addresses.
    host_ip, host_mac : str
        The kernel's side of the TAP; empty MAC: the kernel chooses.
    prefix : int
        Length of the subnet's prefix.
    gateway : str or None
        Router of the engine for addresses beyond the subnet.
    mtu : int
        Of the TAP.
    namespace : bool
        The kernel's side lives in a network namespace of its own.
    host_stack : bool or None
        A kernel on the host's side carries what is not offloaded (host_stack.py); None: if a namespace for it is to be had.
    offload_disabled : bool
        TCP_OFFLOAD_DISABLE: everything goes to that kernel.
    listen : list of (port, target)
        Offloaded listeners.
    forward : list of (local port, (host, port))
        Local ports whose connections leave through the engine.
    stat : str
        What `tiptoe stat` calls the session; empty: it is not served.
    """

    config: str = "sim"
    tap: str = "tiptoe0"
    ip: str = "10.77.0.2"
    mac: str = "02:00:00:00:00:02"
    host_ip: str = "10.77.0.1"
    host_mac: str = ""
    prefix: int = 24
    gateway: str | None = None
    mtu: int = 1500
    namespace: bool = False
    host_stack: bool | None = False
    offload_disabled: bool = False
    listen: list[tuple[int, Target]] = field(default_factory=list)
    forward: list[tuple[int, tuple[str, int]]] = field(default_factory=list)
    impairment: Impairment | None = None
    conditions: Conditions | None = None
    time_wait_s: float = 2.0
    seed: int = 1
    pcap: Path | None = None
    monitor: bool = True
    driver: dict[str, Any] = field(default_factory=dict)
    stat: str = ""


class LiveSession:
    """A live run; use it as a context manager.

    Attributes
    ----------
    engine : LiveEngine
        Call its ``round`` or ``run_until`` to let time pass.
    board : Switchboard
        The relays and their records.
    namespace : NetNamespace or None
        Where the kernel's side of the TAP lives, if not here.
    host : HostStack or None
        The kernel on the host's side.
    forwarded : list of int
        Local ports of ``setup.forward``, in order.
    stat : StatServer or None
        Serves `tiptoe stat`.
    why_no_stat : str
        Why it is not served, though it should be.
    """

    def __init__(self, setup: LiveSetup, progress: Progress | None = None) -> None:
        self.setup = setup
        self._stack = contextlib.ExitStack()
        try:
            self._open(progress)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, progress: Progress | None) -> None:
        setup = self.setup
        self.namespace = self._stack.enter_context(NetNamespace()) if setup.namespace else None
        make = self.namespace.open_tap if self.namespace else open_tap
        self.tap = make(setup.tap, address=setup.host_ip, prefix=setup.prefix, mtu=setup.mtu, mac=setup.host_mac)
        self._stack.callback(os.close, self.tap)
        host_namespace = self._host_namespace()
        driver = ({"rst_unknown": False} if host_namespace else {}) | setup.driver
        self.engine = LiveEngine(
            self.tap, setup.config, ip=setup.ip, mac=setup.mac, prefix=setup.prefix, gateway=setup.gateway,
            impairment=setup.impairment, conditions=setup.conditions, time_wait_s=setup.time_wait_s, seed=setup.seed,
            pcap=setup.pcap, monitor=setup.monitor, driver=driver, progress=progress,
            offload_disabled=setup.offload_disabled,
        )  # fmt: skip
        self._stack.callback(self.engine.close)
        self.host = None
        if host_namespace:
            self.host = HostStack(
                self.engine.stack, self.engine.toe, host_namespace, name=setup.tap, mtu=setup.mtu,
                gateway=setup.gateway or "",
            )  # fmt: skip
            self._stack.callback(self.host.close)
        self.board = Switchboard(self.engine.stack)
        self._stack.callback(self.board.close)
        if self.host is not None:
            self.board.epoll.register(self.host.epoll, select.EPOLLIN)
        self.engine.wake = self.board.epoll.fileno()
        self.engine.tasks.append(self._relay)
        for port, target in setup.listen:
            self.board.listen(port, target)
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

    def _host_namespace(self) -> NetNamespace | None:
        if self.setup.host_stack is False:
            return None
        try:
            return self._stack.enter_context(NetNamespace())
        except TapError:
            if self.setup.host_stack:
                raise
            return None

    def _relay(self) -> bool:
        self.board.service()
        return self.board.busy

    def close(self) -> None:
        """End everything. Twice does no harm."""
        self._stack.close()

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
