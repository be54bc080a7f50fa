"""The summary at the end of a run, for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from tiptoe_driver import Standstill, Tiptoe
from tiptoe_driver.netinet.routes import format_ipv4
from tiptoe_driver.toe.standstill import BITS

from ..paths import ROOT
from ..wire.impairment import Channel
from .device_engine import DeviceEngine
from .host_stack import HostStack
from .records import Records

_SHOWN = 12


def amount(number: float) -> str:
    """Bytes with a unit."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024 or unit == "MiB":
            return f"{number:,.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError


def short_path(path: Path) -> str:
    """Relative to the project if it lies in it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _name(peer: tuple[str, int]) -> str:
    host, port = peer
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connections_table(all_records: Records) -> Table:
    """A row a connection, the last ones if there are many."""
    count, records = len(all_records), list(all_records)[-_SHOWN:]
    table = Table(title=f"{count} connections", title_justify="left", box=None, pad_edge=False)
    for heading, justify in (
        ("peer", "left"), ("through", "left"), ("sent", "right"), ("received", "right"), ("lasted", "right"),
        ("end", "left"),
    ):  # fmt: skip
        table.add_column(heading, justify=justify, style="" if heading != "end" else "dim")  # type: ignore[arg-type]
    if count > _SHOWN:
        table.add_row(f"({count - _SHOWN} more)")
    for record in records:
        lasted = "" if record.closed_us is None else f"{(record.closed_us - record.opened_us) / 1e6:.2f} s"
        through = f":{record.local_port} → {record.target}"
        if record.target == "forwarded":
            through = f"local :{record.local_port}"
        table.add_row(
            _name(record.peer), through, amount(record.sent), amount(record.received), lasted,
            record.ending or "open",
        )  # fmt: skip
    return table


def totals_table(
    engines: list[Any], *, seconds: float, channels: tuple[Channel, ...] | None = None, host: HostStack | None = None
) -> Table:  # fmt: skip
    """What the engines did: frames, segments, retransmissions, cycles. ``engines`` are EngineDevices with a driver.

    Reads the engines' counters, so it has to come before they are closed.
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    harness = [engine.counters() for engine in engines]
    counted = [engine.toe.engine.read_counters() for engine in engines]

    def total(name: str) -> int:
        return sum(counters[name] for counters in (harness if name.islower() else counted))

    cycles = total("cycles")
    table.add_row("frames in, out", f"{total('rx_frames'):,}", f"{total('tx_frames'):,}")
    table.add_row("bytes in, out", f"{total('rx_bytes'):,}", f"{total('tx_bytes'):,}")
    _segments(table, total)
    table.add_row("engine cycles", f"{cycles:,}", f"[dim]{cycles / max(seconds, 1e-9):,.0f} a second[/dim]")
    if any(engine.toe.standstills for engine in engines):
        counts = [engine.toe.counters for engine in engines]
        resets = sum(counters["watchdog_resets"] for counters in counts)
        table.add_row(
            "standstills", f"{sum(counters[f'watchdog_{name}'] for counters in counts for name in BITS):,}",
            f"[dim]resets of the device: {resets:,}[/dim]",
        )  # fmt: skip
    lost = sum(engine.harness.ticks_lost for engine in engines)
    if lost:
        table.add_row(
            "TCP's clock behind", f"{lost / 1000:,.1f} s", "[dim]the simulation stood still for so long[/dim]"
        )
    wire = total("rx_bytes") + total("tx_bytes")
    rate = wire / max(cycles, 1)
    table.add_row("wire bytes per cycle", f"{rate:.2f}", "[dim]over the whole run, idle time too[/dim]")
    for name, channel in zip(("line in", "line out"), channels or (), strict=False):
        table.add_row(name, "", f"[dim]{channel.summary()}[/dim]")
    if host is not None:
        table.add_row(
            "not offloaded", f"{host.tcp.opened + host.tcp.accepted:,}", "[dim]connections of the host's kernel[/dim]"
        )
        table.add_row("its frames in, out", f"{host.received:,}", f"{host.sent:,}")
    monitors = [engine.monitor for engine in engines if engine.monitor is not None]
    if monitors:
        checked = sum(monitor.frames for monitor in monitors)
        table.add_row("frames checked", f"{checked:,}", "[dim]by the wire monitor: no rule broken[/dim]")
    return table


def _segments(table: Table, total: Callable[[str], int]) -> None:
    """Rows of what the engines' own counters tell."""
    table.add_row("TCP segments in, out", f"{total('RX_TCP_SEGMENTS'):,}", f"{total('TX_SEGMENTS'):,}")
    table.add_row(
        "retransmissions", f"{total('TX_RETRANSMITS'):,}",
        f"[dim]after {total('RTO_EXPIRED')} timeouts, {total('FAST_RETRANSMITS')} fast[/dim]",
    )  # fmt: skip
    table.add_row("out of order in", f"{total('RX_OUT_OF_ORDER'):,}")
    dropped = sum(total(name) for name in ("RX_BAD_FRAME", "RX_BAD_IP", "RX_BAD_TCP"))
    table.add_row("damaged frames dropped", f"{dropped:,}")


def device_table(engine: DeviceEngine) -> Table:
    """What a device's engine did, what the way to it had to do, what the board has lost since power-up."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    counters = engine.toe.engine.read_counters()
    table.add_row("frames in, out", f"{counters['RX_FRAMES']:,}", f"{counters['TX_FRAMES']:,}")
    _segments(table, lambda name: counters[name])
    for what, counts in (("over the cable", engine.device.counters()), ("lost on the board", engine.device.losses())):
        for name, count in counts.items():
            table.add_row(what, f"{count:,}", f"[dim]{name.replace('_', ' ')}[/dim]")
            what = ""
    return table


def tell_standstills(console: Console, toe: Tiptoe) -> None:
    """From now on print a line for each standstill of a device."""

    def tell(standstill: Standstill) -> None:
        name = f"{toe.tod_ifp.if_xname} {format_ipv4(toe.tod_ifp.if_addr)}"
        console.print(f"[bold red]{name}:[/] {escape(str(standstill))}", soft_wrap=True)

    toe.on_standstill = tell


def show(console: Console, title: str, *parts: Any) -> None:
    """Print the parts under a rule."""
    console.rule(f"[bold]{title}", align="left", style="dim")
    console.print(Group(*parts))


def show_file(console: Console, what: str, path: Path) -> None:
    """A line that names a file, never shortened."""
    console.print(f"[dim]{what:<22}[/] {short_path(path)}", soft_wrap=True)
