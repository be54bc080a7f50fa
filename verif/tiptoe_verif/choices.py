"""What a user of the command ``tiptoe`` has chosen, checked: a mistake is a :exc:`~tiptoe_verif.live.setup.UsageError`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer

from tiptoe_hdl.config import CONFIGS, EngineConfig

from .live.setup import LiveSetup, UsageError
from .native.device import Conditions
from .native.recorder import CAPTURE
from .paths import BUILD
from .wire.impairment import Impairment
from .wire.pcap import free_capture
from .wire.segment import ip_number, mac_number

Choice = TypeVar("Choice")


def capture_path(name: str, pcap: Path | None, record: Path | None) -> Path:
    """Where a run's frames go: where wanted, into its record, or to a free name."""
    return pcap or (record / CAPTURE if record else free_capture(BUILD / "live" / f"{name}.pcap"))


def record_beside(pcap: Path) -> Path:
    """The folder for the record of a run that has only been given a capture's name."""
    return pcap.with_suffix("") if pcap.suffix else pcap.with_name(f"{pcap.name}.run")


def live_setup(
    *, ip: str, mac: str, host_ip: str, prefix: int, gateway: str, tap: str, mtu: int, netns: bool, config: str,
    host_stack: bool | None, ip6: str, host_ip6: str,
    memory_latency: int, time_wait: float, seed: int, pcap: Path, delay: float, jitter: float, line: dict[str, Any],
) -> LiveSetup:  # fmt: skip
    """The choices of a live run."""
    try:
        for address in (ip, host_ip, *([gateway] if gateway else [])):
            ip_number(address)
        mac_number(mac)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return LiveSetup(
        config=with_mtu(with_ipv6(known_config(config)) if ip6 else known_config(config), mtu),
        ip6=ip6, host_ip6=host_ip6, tap=tap, ip=ip, mac=mac, host_ip=host_ip, prefix=prefix, gateway=gateway or None,
        mtu=mtu, namespace=netns, host_stack=host_stack, conditions=Conditions(memory_latency=memory_latency),
        time_wait_s=time_wait, seed=seed, pcap=pcap,
        impairment=Impairment(**line, delay_us=delay * 1000, jitter_us=jitter * 1000, seed=seed),
    )  # fmt: skip


_WITH_A_DEVICE = {
    "listen", "forward", "device", "ip", "mac", "prefix", "gateway", "mtu", "ip6", "time_wait", "seconds", "program", "quiet",
}  # fmt: skip
_DEVICE_IP = "192.168.1.51"
"""The engine's, unless given: beside the address that the boards' bridges have."""


def device_setup(context: typer.Context, device: str) -> LiveSetup:
    """The choices of a live run on a device; those of the simulation are mistakes there."""
    given = [
        name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    for name in given:
        if name not in _WITH_A_DEVICE:
            raise UsageError(f"--{name.replace('_', '-')} is the simulation's: it has no meaning with --device")
    choice = {name: context.params[name] for name in ("mac", "prefix", "mtu", "ip6")}
    ip, gateway = context.params["ip"] if "ip" in given else _DEVICE_IP, context.params["gateway"]
    try:
        for address in (ip, *([gateway] if gateway else [])):
            ip_number(address)
        mac_number(choice["mac"])
    except ValueError as error:
        raise UsageError(str(error)) from None
    return LiveSetup(
        device=device, ip=ip, gateway=gateway or None, time_wait_s=context.params["time_wait"], **choice
    )  # fmt: skip


def with_ipv6(name: str) -> str | EngineConfig:
    """The configuration with IPv6. Where the named one has none, whoever wants it has an engine built."""
    return name if CONFIGS[name].ipv6 else CONFIGS[name].with_(name=f"{name}_ipv6", ipv6=True)


def with_mtu(config: str | EngineConfig, mtu: int) -> str | EngineConfig:
    """The configuration, or one with frames that are long enough."""
    known = CONFIGS[config] if isinstance(config, str) else config
    return config if known.with_mtu(mtu) is known else known.with_mtu(mtu)


def known_config(name: str) -> str:
    """The name, if there is such a configuration."""
    if name not in CONFIGS:
        raise UsageError(f"no configuration {name!r}: there are {', '.join(CONFIGS)}")
    return name


def sized_config(name: str, width: int, mtu: int) -> EngineConfig:
    """A configuration by its name, another width and a longest packet; UsageError for what cannot be."""
    chosen = CONFIGS[known_config(name)]

    def sized() -> EngineConfig:
        # 32 bits are too few for IPv6.
        wide = chosen.with_(data_width=width, ipv6=chosen.ipv6 and width >= 64) if width else chosen
        return wide.with_mtu(mtu)

    return valid(sized)


def valid(make: Callable[[], Choice]) -> Choice:
    """What ``make`` makes, whose complaints are the user's."""
    try:
        return make()
    except ValueError as error:
        raise UsageError(str(error)) from None
