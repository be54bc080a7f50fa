"""`tiptoe stat`: a running session's device and connections as tables that a person can read."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from tiptoe_driver.netinet.tcp_info import NO_SSTHRESH
from tiptoe_driver.toe.snapshots import Snapshot
from tiptoe_driver.toe.standstill import BITS

from .live.setup import UsageError
from .live.stat_server import session_sockets, stat_folder
from .live.summary import amount

_ANSWER_S = 10.0
_WRAP = 1 << 32

# --- sessions ---


class NoSession(OSError):
    """There is nothing to ask; the message is fit to be shown to the user."""


def find_session(pid: int | None) -> Path:
    """Socket of the session with this pid, or of the only one. NoSession; UsageError when it has to be chosen."""
    found = session_sockets(stat_folder())
    matching = [path for path in found if pid is None or _pid(path) == pid]
    if not matching:
        there = (
            f": there are {', '.join(map(_describe, found))}" if found else ": begin one with tiptoe live or tiptoe run"
        )
        raise NoSession(f"no session {f'has the pid {pid}' if pid is not None else 'is running'}{there}")
    if len(matching) > 1:
        raise UsageError(f"several sessions are running, choose one with --pid: {', '.join(map(_describe, matching))}")
    return matching[0]


def _pid(path: Path) -> int:
    number = path.stem.partition("-")[0]
    return int(number) if number.isdigit() else 0


def _describe(path: Path) -> str:
    try:
        words = Path(f"/proc/{_pid(path)}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    command = " ".join(Path(word).name if at < 2 else word for at, word in enumerate(words)).strip()
    return f"{_pid(path)} ({command[:60]})" if command else str(_pid(path))


def fetch(path: Path) -> Snapshot:
    """One snapshot of the session behind a socket. NoSession when it has ended or does not answer."""
    parts = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.settimeout(_ANSWER_S)
        try:
            made.connect(str(path))
            while part := made.recv(1 << 16):
                parts.append(part)
        except TimeoutError:
            raise NoSession(f"the session {_describe(path)} does not answer within {_ANSWER_S:g} s") from None
        except OSError:
            raise NoSession(f"the session {_pid(path)} has ended") from None
    message = b"".join(parts)
    if not message.endswith(b"\n"):
        raise NoSession(f"the session {_describe(path)} gave no whole answer: it ends, or too many ask")
    taken: Snapshot = json.loads(message)
    return taken


# --- units for people ---


def duration(microseconds: float | None) -> str:
    """A time with a unit."""
    if microseconds is None:
        return "–"
    if microseconds < 1e6:
        return f"{microseconds / 1e3:.{2 if microseconds < 1e4 else 1 if microseconds < 1e5 else 0}f} ms"
    if microseconds < 120e6:
        return f"{microseconds / 1e6:.{2 if microseconds < 1e7 else 1}f} s"
    return f"{microseconds / 60e6:.0f} min" if microseconds < 7200e6 else f"{microseconds / 3600e6:.1f} h"


def size(count: float | None) -> str:
    """Bytes with a unit, short."""
    return "–" if count is None else amount(count).replace("bytes", "B")


def per_second(now: float, before: float, seconds: float) -> float:
    """Rate of a counter that counts modulo 2**32."""
    return (now - before) % _WRAP / max(seconds, 1e-6)


# --- tables ---


def tables(taken: Snapshot, before: Snapshot | None = None) -> Group:
    """A snapshot for people, 120 characters wide; with the one before it, rates a second."""
    seconds = (taken["time_us"] - before["time_us"]) / 1e6 if before else 0.0
    parts: list[Any] = []
    for device in taken["devices"]:
        old = next((d for d in before["devices"] if d["name"] == device["name"]), None) if before else None
        parts += [_device_table(device, taken, old, before, seconds), ""]
    return Group(*parts, _connections_table(taken, before, seconds))


def _device_table(
    device: dict[str, Any], taken: Snapshot, old: dict[str, Any] | None, before: Snapshot | None, seconds: float
) -> Table:  # fmt: skip
    process = taken.get("process")
    words = [f"{device['name']} {device['address']}", "" if device["link_up"] else "link down",
             "" if device["offload"] else "offload off", "" if device["state"] == "RUNNING" else device["state"].lower(),
             f"{process['command']}, pid {process['pid']}" if process else "", f"up {duration(taken['time_us'])}"]  # fmt: skip
    table = Table(
        title=" · ".join(filter(None, words)), title_justify="left", box=None, pad_edge=False, show_header=False
    )
    for style in ("dim", "", "", "dim"):
        table.add_column(style=style, justify="right" if not style else "left", no_wrap=True)

    def row(name: str, one: str, two: str = "", note: str = "") -> None:
        table.add_row(name, one, two, note)

    def pair(name: str, count: dict[str, int], was: dict[str, int] | None, keys: tuple[str, str], what: str) -> None:
        rates = [per_second(count[key], was[key], seconds) for key in keys] if was else []
        note = " in, ".join(f"{rate:,.0f}" for rate in rates) + f" out {what} a second" if rates else ""
        row(f"{what} in, out", f"{count[keys[0]]:,}", f"{count[keys[1]]:,}", note)

    ids = device["ids"]
    row(
        "connections",
        f"{ids['in_use']:,}",
        f"of {ids['total']:,}",
        f"{ids['stock']:,} ids in stock, {ids['free']:,} free",
    )
    listeners, half_open = device["listeners"], device["half_open"]
    ports = ", ".join(
        entry["local"].rpartition(":")[2] + (f" ({entry['half_open']} half-open)" if entry["half_open"] else "")
        for entry in taken["listeners"] if device["name"] in entry["devices"]
    )  # fmt: skip
    row("listeners", f"{listeners['in_use']:,}", f"of {listeners['total']:,}", f"ports {ports}"[:70] if ports else "")
    row("half-open", f"{half_open['in_use']:,}", f"of {half_open['total']:,}")
    engine, old_engine = taken.get("engine"), (before or {}).get("engine")
    if engine is not None and len(taken["devices"]) == 1:
        pair("frames", engine, old_engine, ("rx_frames", "tx_frames"), "frames")
        rate = f"{per_second(engine['cycles'], old_engine['cycles'], seconds):,.0f} a second" if old_engine else ""
        row("engine cycles", f"{engine['cycles']:,}", "", rate)
        if engine["host"] is not None:
            host = engine["host"]
            row(
                "host's frames in, out",
                f"{host['received']:,}",
                f"{host['sent']:,}",
                f"{host['open']} sockets of its kernel",
            )
    counters, was = device["counters"], old["counters"] if old else None
    if counters is not None:
        pair("segments", counters, was, ("RX_TCP_SEGMENTS", "TX_SEGMENTS"), "segments")
        again = f"after {counters['RTO_EXPIRED']:,} timeouts, {counters['FAST_RETRANSMITS']:,} fast"
        row("retransmissions", f"{counters['TX_RETRANSMITS']:,}", "", again)
        row("out of order in", f"{counters['RX_OUT_OF_ORDER']:,}")
        dropped = {name: counters[name] for name in _DROPS if counters[name]}
        row("dropped", f"{sum(dropped.values()):,}", "", _listing(dropped))
    noticed = {name: count for name, count in device["driver_counters"].items() if "watchdog_" not in f"{name}_"}
    if noticed:
        row("the driver noticed", f"{sum(noticed.values()):,}", "", _listing(noticed))
    _standstills(row, device, taken["time_us"])
    return table


def _standstills(row: Callable[..., None], device: dict[str, Any], now_us: int) -> None:
    """A row of what has stood still, if anything has."""
    counts = {name: device["driver_counters"].get(f"watchdog_{name}", 0) for name in BITS}
    counts = {name: count for name, count in counts.items() if count}
    if not device["standstills"]:
        return
    last = device["standstills"][-1]
    resets = f"{device['resets']:,} reset{'s' * (device['resets'] != 1)}" if device["resets"] else ""
    row(
        "standstills",
        f"{sum(counts.values()):,}",
        resets,
        f"{_listing(counts)}; the last {duration(now_us - last['time_us'])} ago",
    )
    if device["state"] != "RUNNING" and last["action"] in ("STOPPED", "WAITING"):
        row("", "", "", "stopped by the watchdog" if last["action"] == "STOPPED" else "does not come out of its reset")


_DROPS = (
    "RX_BAD_FRAME", "RX_BAD_IP", "RX_BAD_TCP", "RX_HOST_DROPPED", "SYN_DROPPED_FULL", "RX_OUT_OF_WINDOW", "RX_OOO_DISCARDED",
    "TX_DROPPED",
)  # fmt: skip


def _listing(counts: dict[str, int]) -> str:
    text = ", ".join(f"{name.lower().replace('_', ' ')} {count:,}" for name, count in counts.items())
    return text if len(text) <= 70 else text[:69] + "…"


def _connections_table(taken: Snapshot, before: Snapshot | None, seconds: float) -> Table:
    rows = sorted(taken["connections"], key=lambda c: (-(c["sent"] + c["received"]), c["local"], c["foreign"]))
    old = {(c["local"], c["foreign"], c["device"]): c for c in before["connections"]} if before else {}
    table = Table(
        title=f"{len(rows)} connection{'s' * (len(rows) != 1)}", title_justify="left", box=None, pad_edge=False
    )
    rates = before is not None
    for heading, justify in (
        ("peer\nour port", "left"), ("state\nsince, by", "left"), (f"sent\n{'a second' if rates else 'waiting'}", "right"),
        (f"received\n{'a second' if rates else 'unread'}", "right"), ("RTT ± var\nRTO", "right"), ("cwnd\nssthresh", "right"),
        ("peer wnd\nour wnd", "right"), ("resent\nMSS", "right"), ("", "left"),
    ):  # fmt: skip
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for entry in rows:
        was = old.get((entry["local"], entry["foreign"], entry["device"]))
        if rates:
            new = was is None or (entry["age_us"] is not None and entry["age_us"] < seconds * 1e6)
            below = [
                "" if new else f"{size(per_second(entry[key], was[key], seconds))}/s"  # type: ignore[index]
                for key in ("sent", "received")
            ]
        else:
            below = [size(entry["waiting"]), size(entry["unread"])]
        by = "engine" if entry["device"] else "kernel"
        table.add_row(
            f"{entry['foreign']}\n[dim]:{entry['local'].rpartition(':')[2]}[/]",
            f"{entry['state']}\n[dim]{duration(entry['age_us'])}, {by}[/]",
            f"{size(entry['sent'])}\n[dim]{below[0]}[/]", f"{size(entry['received'])}\n[dim]{below[1]}[/]",
            *_of_tcp(entry["info"]),
        )  # fmt: skip
    return table


def _of_tcp(info: dict[str, Any] | None) -> list[str]:
    """RTT, congestion window, windows, retransmissions, remarks: two lines each."""
    if info is None:
        return [""] * 5
    known = info["tcpi_snd_cwnd"] > 0  # by whoever carries the connection
    rtt = f"{duration(info['tcpi_rtt'])} ± {duration(info['tcpi_rttvar']).split()[0]}" if info["tcpi_rtt"] else "–"
    if info["tcpi_rtt"] and duration(info["tcpi_rtt"]).split()[1] != duration(info["tcpi_rttvar"]).split()[1]:
        rtt = f"{duration(info['tcpi_rtt'])} ± {duration(info['tcpi_rttvar'])}"
    ssthresh = "none yet" if info["tcpi_snd_ssthresh"] == NO_SSTHRESH else size(info["tcpi_snd_ssthresh"])
    remarks = [text for text, holds in (
        (f"{info['tcpi_rxtshift']} timeouts", info["tcpi_rxtshift"] and not info["tcpi_persist"]),
        ("persist", info["tcpi_persist"]), ("recovery", info["tcpi_in_recovery"]),
    ) if holds]  # fmt: skip
    return [
        f"{rtt}\n[dim]{duration(info['tcpi_rto'] if known else None)}[/]",
        f"{size(info['tcpi_snd_cwnd'] if known else None)}\n[dim]{ssthresh if known else '–'}[/]",
        f"{size(info['tcpi_snd_wnd'] if info['tcpi_device'] else None)}\n[dim]{size(info['tcpi_rcv_space'])}[/]",
        f"{info['tcpi_snd_rexmitpack'] if known else '–'}\n[dim]{info['tcpi_snd_mss']}[/]",
        "\n".join(remarks),
    ]


# --- the command ---


def show(console: Console, pid: int | None, watch: float, as_json: bool) -> int:
    """Print a session's tables once, or every ``watch`` seconds until Ctrl-C or its end; the exit code."""
    path = find_session(pid)
    taken = fetch(path)
    if as_json:
        _print_json(taken)
    if not watch:
        if not as_json:
            console.print(tables(taken))
        return 0
    live = (
        None
        if as_json or not console.is_terminal
        else Live(tables(taken), console=console, auto_refresh=False, screen=False)
    )
    if live is None and not as_json:
        console.print(tables(taken))
    try:
        if live is not None:
            live.start(refresh=True)
        while True:
            time.sleep(watch)
            before, taken = taken, fetch(path)
            if as_json:
                _print_json(taken)
            elif live is not None:
                live.update(tables(taken, before), refresh=True)
            else:
                console.print("", tables(taken, before))
    except NoSession as end:
        console.print(str(end), style="dim") if not as_json else None
    except KeyboardInterrupt:
        pass
    finally:
        if live is not None:
            live.stop()
    return 0


def _print_json(taken: Snapshot) -> None:
    print(json.dumps(taken), file=sys.stdout, flush=True)
