"""The choices of a live run, and what cannot be: one line each, before anything starts."""

from __future__ import annotations

import re
import socket
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from tiptoe_hdl.config import EngineConfig

from ..native.device import Conditions
from ..wire.impairment import Impairment
from .relay import BUILT_IN

ROUTES = Path("/proc/net/route")
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
    device : str
        URL of a device; empty: a simulated engine. With one, only addresses, ports and driver matter of the rest.
    config : str or EngineConfig
        Named configuration of the engine, or one of your own.
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
    ip6, host_ip6 : str
        IPv6 addresses of engine and kernel; empty: IPv6 is left out. The engine's configuration must have it.
    prefix6 : int
        Length of their subnet's prefix.
    mtu : int
        Of the TAP and of the engine's interface.
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
    record : Path or None
        Folder for the record of the run (native/recorder.py), which goes with ``pcap``.
    """

    device: str = ""
    config: str | EngineConfig = "sim"
    tap: str = "tiptoe0"
    ip: str = "10.77.0.2"
    mac: str = "02:00:00:00:00:02"
    host_ip: str = "10.77.0.1"
    host_mac: str = ""
    prefix: int = 24
    gateway: str | None = None
    ip6: str = ""
    host_ip6: str = ""
    prefix6: int = 64
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
    record: Path | None = None


def check(setup: LiveSetup) -> None:
    """Raise UsageError for choices that contradict each other, and for addresses that this machine has in use."""
    network = IPv4Network(f"{setup.host_ip}/{setup.prefix}", strict=False)
    _check_ipv6(setup)
    _check_addresses(setup, network)
    _check_ports(setup, network)
    if not setup.namespace:
        _check_network_is_free(network)


def check_device(setup: LiveSetup) -> None:
    """The same for a run on a device, whose network is nobody's here."""
    network = IPv4Network(f"{setup.ip}/{setup.prefix}", strict=False)
    if setup.gateway == setup.ip:
        raise UsageError(f"--gateway {setup.gateway} is the engine's own address")
    if setup.gateway and IPv4Address(setup.gateway) not in network:
        raise UsageError(f"--gateway {setup.gateway} is not in {network}")
    _check_ports(setup, network)


def _check_ports(setup: LiveSetup, network: IPv4Network) -> None:
    """Raise UsageError for ports given twice, and for peers that the engine cannot reach in its network."""
    for option, ports in (
        ("--listen", [port for port, _ in setup.listen]),
        ("--forward", [p for p, _ in setup.forward if p]),
    ):
        for port, times in Counter(ports).items():
            if times > 1:
                raise UsageError(f"{option} {port}: this port is given {times} times")
    for port, (host, _) in setup.forward:
        if host == setup.ip:
            raise UsageError(f"--forward {port}: {host} is the engine's own address")
        if IPv4Address(host) not in network and not setup.gateway:
            raise UsageError(f"--forward {port}: {host} is not in {network}, and there is no --gateway to it")


def _check_addresses(setup: LiveSetup, network: IPv4Network) -> None:
    named = {"--ip": setup.ip, "--host-ip": setup.host_ip, "--gateway": setup.gateway}
    for option, text in named.items():
        if not text:
            continue
        address = IPv4Address(text)
        if address not in network:
            raise UsageError(f"{option} {text} is not in the subnet {network} of --host-ip and --prefix")
        if address in (network.network_address, network.broadcast_address):
            raise UsageError(f"{option} {text} is no host's address in {network}")
    if setup.ip == setup.host_ip:
        raise UsageError(f"--ip and --host-ip are both {setup.ip}: engine and kernel need an address each")
    if setup.ip == setup.gateway:
        raise UsageError(f"--gateway {setup.gateway} is the engine's own address")
    if setup.mac and setup.mac.lower() == setup.host_mac.lower():
        raise UsageError(f"engine and kernel need a MAC address each, not both {setup.mac}")


def _check_ipv6(setup: LiveSetup) -> None:
    if not setup.ip6 and not setup.host_ip6:
        return
    if not setup.ip6 or not setup.host_ip6:
        raise UsageError("--ip6 and --host-ip6: engine and kernel need an IPv6 address each")
    try:
        network = IPv6Network(f"{setup.host_ip6}/{setup.prefix6}", strict=False)
        own, kernels = IPv6Address(setup.ip6), IPv6Address(setup.host_ip6)
    except ValueError as error:
        raise UsageError(f"--ip6, --host-ip6: {error}") from None
    if own not in network or own == kernels:
        raise UsageError(f"--ip6 {own} is not another address of {network}")


def _check_network_is_free(network: IPv4Network) -> None:
    """Another session, or a network of this machine, may have the subnet: then answers would go there."""
    try:
        routes = ROUTES.read_text().splitlines()[1:]
    except OSError:
        return
    for interface, destination, _, _, _, _, _, mask, *_ in (route.split() for route in routes):
        taken = IPv4Network((_little_endian(destination), str(_little_endian(mask))))
        if taken.prefixlen and taken.overlaps(network):
            raise UsageError(
                f"{network} is in use here, by {interface}: choose another with --ip and --host-ip, or use --netns"
            )


def _little_endian(text: str) -> IPv4Address:
    return IPv4Address(int.from_bytes(bytes.fromhex(text), "little"))
