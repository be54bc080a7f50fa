"""What a script says about its surroundings: options at its head, sysctls that its shell commands set. No command is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .tree import Packet, Script, Shell, Unsupported

_IGNORED = {
    "code_command", "code_format", "code_sockopt", "debug", "gateway_ip", "init_scripts", "netmask_ip", "non_fatal", "speed",
    "tcp_ts_ecr_scaled", "verbose",
}  # fmt: skip
"""Options of packetdrill without a meaning here."""
_SYSCTL = re.compile(r"(?:net[./]ipv4[./])?(tcp_[a-z0-9_]+)\s*=\s*[\"']?([-\w \t]+)")
_CONGESTION = ("newreno", "reno", "cubic", "dctcp", "host")


def _flag(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {name: value != "0"}


_ECN = {"0": "off", "1": "offer", "2": "accept"}
_SYSCTLS: dict[str, Callable[[str], dict[str, Any]]] = {
    "tcp_sack": _flag("sack"),
    "tcp_timestamps": _flag("timestamps"),
    "tcp_ecn": lambda value: {"ecn": _ECN[value]},
    "tcp_mtu_probing": _flag("pmtud_blackhole"),
    "tcp_congestion_control": lambda value: {"congestion": value},
}
"""Linux's names of what the driver has an option for."""
_NEEDED = {"tcp_fastopen": "0", "tcp_window_scaling": "1", "tcp_syncookies": "1"}
"""Those without which a script means something else, with the value that is no matter."""
_FOREIGN = re.compile(r"\b(?:ip (?:route|addr|link|tcp_metrics|netns)|tc |iptables|nft|ethtool|nstat|ss -)")
"""Commands that change or look at what is not there: routes, queues, filters."""

_MOST_SCALE = 9
"""That of the largest ring, 16 MiB."""


@dataclass
class Settings:
    """Addresses and ports, times in microseconds, the driver's options, and what is ignored of a script.

    ``stamp_us``: microseconds of a tick of time stamps, 0: they are not checked against time.
    """

    tolerance_us: int = 4000
    local_ip: str = "192.168.0.1"
    remote_ip: str = "192.0.2.1"
    bind_port: int = 8080
    connect_port: int = 8080
    mtu: int = 1500
    stamp_us: int = 0
    defines: dict[str, str] = field(default_factory=dict)
    driver: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def gateway_ip(self) -> str:
        """The router in the engine's network of 24 bits."""
        first = self.local_ip.rpartition(".")[0]
        return f"{first}.254" if self.local_ip != f"{first}.254" else f"{first}.253"


_NUMBERS = {
    "tolerance_usecs": "tolerance_us", "bind_port": "bind_port", "local_port": "bind_port", "connect_port": "connect_port",
    "mtu": "mtu", "tcp_ts_tick_usecs": "stamp_us",
}  # fmt: skip


def settings(script: Script, folder: Path) -> Settings:
    """Of a script in that folder; Unsupported when it needs what is not there."""
    made = Settings()
    for name, value in script.options.items():
        if name in ("local_ip", "remote_ip"):
            setattr(made, name, value)
        elif name in _NUMBERS and value.isdigit():
            setattr(made, _NUMBERS[name], int(value))
        elif name == "mss" and value.isdigit():
            made.mtu = int(value) + 40
        elif name == "define":
            symbol, _, meaning = value.partition("=")
            made.defines[symbol] = meaning.strip("\"'`")
        elif name == "ip_version":
            if value != "ipv4":
                raise Unsupported(1, f"--ip_version={value}: scripts run over IPv4")
        elif name not in _IGNORED:
            made.notes.append(f"--{name} is ignored")
    _window_scale(made, script)
    for command in script.commands:
        _command(made, 1, command.command, folder, early=True)
    early = True
    for event in script.events:
        if isinstance(event.action, Shell):
            _command(made, event.line, event.action.command, folder, early=early)
        early = early and isinstance(event.action, Shell)
    return made


def _window_scale(made: Settings, script: Script) -> None:
    """The receive buffer decides the window scale: it is as large as the scale takes that the script expects in a SYN."""
    sent = (event.action for event in script.events if isinstance(event.action, Packet) and event.action.outbound)
    scales = [option.values[0] for packet in sent for option in packet.options or () if option.kind == "wscale"]
    if scales and scales[0] <= _MOST_SCALE:
        made.driver |= {"rcv_ring_bytes": 1 << (15 + scales[0]), "stock": 4}


def _command(made: Settings, line: int, command: str, folder: Path, *, early: bool) -> None:
    """A shell command's sysctls, those of a file that it runs too; the rest of it is ignored."""
    if found := _FOREIGN.search(command):
        raise Unsupported(line, f"`{found[0].strip()} ...` changes or asks what is not there")
    made.notes.append(f"line {line}: `{' '.join(command.split())[:60]}` is not run")
    texts = [command]
    for word in shlex.split(command, comments=True):
        path = folder / word
        if word.endswith((".sh", ".py")) and path.is_file():
            texts.append(path.read_text(errors="replace"))
    for name, value in _SYSCTL.findall("\n".join(texts)):
        _sysctl(made, line, name, value.strip(), early)


def _sysctl(made: Settings, line: int, name: str, value: str, early: bool) -> None:
    if name in _NEEDED and value != _NEEDED[name]:
        raise Unsupported(line, f"{name}={value}")
    meaning = _SYSCTLS.get(name)
    if meaning is None:
        return
    if not early:
        raise Unsupported(line, f"{name} changes in the middle of the script")
    if name == "tcp_congestion_control" and value not in _CONGESTION or name == "tcp_ecn" and value not in _ECN:
        raise Unsupported(line, f"{name}={value}")
    made.driver |= meaning(value)
