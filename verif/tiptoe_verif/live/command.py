"""`tiptoe live` in the terminal: what runs where, what happens meanwhile, and the summary."""

from __future__ import annotations

import signal
import time
from typing import Any

from ..console import console, status_line
from .summary import amount, connections_table, show, show_file, tell_standstills


def announce(session: Any) -> None:
    """Where the engine is, and what is reached through it."""
    setup = session.setup
    console.print(f"{session.headline}; Ctrl-C ends", soft_wrap=True)
    if setup.host_ip6:
        console.print(f"  engine {setup.ip6}, kernel {setup.host_ip6}/{setup.prefix6}")
    if session.why_no_stat:
        console.print(f"  {session.why_no_stat}", style="dim", soft_wrap=True)
    if session.namespace:
        console.print(
            f"  in a namespace of its own: {session.namespace.entry}", style="dim", soft_wrap=True
        )  # fmt: skip
    if session.host:
        enter = session.host.namespace.entry
        console.print(
            f"  {setup.ip} is also a kernel's, for what is not offloaded: {enter}", style="dim", soft_wrap=True
        )
    for port, target in setup.listen:
        name = target if isinstance(target, str) else f"{target[0]}:{target[1]}"
        console.print(f"  {setup.ip}:{port} → {name}")
    for port, (_, (host, remote)) in zip(session.forwarded, setup.forward, strict=True):
        console.print(f"  127.0.0.1:{port} → {host}:{remote} through the engine")


def keep_running(session: Any, seconds: float) -> None:
    """Until Ctrl-C, or for so long if that is not 0; then what there was."""
    engine, begin = session.engine, time.monotonic()
    tell_standstills(console, engine.toe)
    handlers = {number: signal.signal(number, lambda *_: engine.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    last, before = begin, 0
    try:
        with status_line("waiting for connections") as say:
            while engine.round(50_000):
                now = time.monotonic()
                if seconds and now - begin >= seconds:
                    break
                if now - last >= 0.5:
                    records = session.board.records
                    rate = (session.pace - before) / (now - last)
                    say(
                        f"{len(records)} connections, {session.board.live} open; "
                        f"{amount(records.sent)} sent, {amount(records.received)} "
                        f"received; {rate:,.0f} {session.pace_unit} a second"
                    )
                    last, before = now, session.pace
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    show(console, "summary", connections_table(session.board.records), "", session.totals())
    if session.setup.pcap:
        show_file(console, "capture", engine.pcap)
