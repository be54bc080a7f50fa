"""A run's files for `tiptoe report`: beside the capture the cycle of each frame, and what driver and engine were like meanwhile.

A folder with

- ``run.json``: what ran, and the sizes against which occupancy is measured;
- ``frames.bin``: 12 bytes for each frame of the capture, in its order (``FRAME``);
- ``record.jsonl``: a line an event, change of state, or sample (docs/report.md, "The files").

Samples are taken while frames pass, and once behind the last of them: who rests is left alone. A sample of many connections takes
time, since each TCB is asked for: the next one waits four times as long as it took.
What cannot be written (a full disk) ends the record, not the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from pathlib import Path
from typing import IO, Any

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_driver.hardware.alias import on_v6
from tiptoe_driver.hardware.options import DeviceError
from tiptoe_driver.netinet.in6 import format_address
from tiptoe_driver.toe.snapshots import Snapshot, SnapshotTaker

from ..wire.pcap import open_alone
from .device import EngineDevice
from .harness import RuleBroken
from .simulation import Simulation

FORMAT = 1
RUN, FRAMES, RECORD, CAPTURE, WAVES = "run.json", "frames.bin", "record.jsonl", "capture.pcap", "waves.fst"
FRAME = struct.Struct("<QI")
"""Cycle of the first word; cycles from there to the last one, and ``TO_ENGINE``."""
TO_ENGINE = 1 << 31
UNKNOWN = FRAME.pack((1 << 64) - 1, 0)
"""Of a frame that was captured before the record has begun."""
INTERVAL_US, SIMULATED_INTERVAL_US = 50_000, 1000
"""Between samples at least: of wall time, and of simulated time, in which runs are short."""
MOST_EVENTS = 200_000
"""Lines of events; beyond, they are only counted."""
_SHARE = 4
_COUNTERS_EVERY = 8
"""Samples: the engine's own counters are slow to read."""
_LIMIT_US = 500_000
_HARNESS = (
    "cycles", "skipped", "rx_beats", "rx_stalls", "tx_beats", "tx_stalls", "read_beats", "write_beats", "flow_busy",
    "reads_open", "writes_open", "rx_level",
)  # fmt: skip
_INFO = {
    "cwnd": "tcpi_snd_cwnd", "ssthresh": "tcpi_snd_ssthresh", "rtt": "tcpi_rtt", "rttvar": "tcpi_rttvar", "rto": "tcpi_rto",
    "snd_wnd": "tcpi_snd_wnd", "rcv_wnd": "tcpi_rcv_space", "flight": "tcpi_unacked", "resent": "tcpi_snd_rexmitpack",
}  # fmt: skip


class Recorder:
    """Writes the record of a device with its driver attached, until it is closed.

    Parameters
    ----------
    folder : Path
        Made if need be; a record there is overwritten, unless it is being written (OSError).
    command : str
        What ran, for people.
    interval_us : int, optional
        Between samples at least.

    Attributes
    ----------
    samples, events : int
        So far.
    why_ended : str
        Why there is no more of it, if it could not be written.
    """

    def __init__(
        self, device: EngineDevice, folder: Path, command: str, *, interval_us: int | None = None
    ) -> None:  # fmt: skip
        if device.capture.pcap is None or device.toe is None:
            raise ValueError("a record goes with a capture and a driver")
        self.folder, self._device = folder, device
        self._simulated = isinstance(device, Simulation)
        self._interval_us = interval_us or (SIMULATED_INTERVAL_US if self._simulated else INTERVAL_US)
        self.samples = self.events = 0
        self.why_ended = ""
        self._open, self._waiting, self._taking = True, False, False
        self._taker: SnapshotTaker | None = None
        self._begin_us = self._busy_until_us = 0
        self._counters: dict[str, int] = {}
        self._states: dict[int, tuple[str, str]] = {}  # by id: connection and state
        self._since_sample = 0
        self._frames: IO[bytes] = open_alone(folder / FRAMES, "record")
        self._frames.write(UNKNOWN * device.capture.pcap.frames)
        self._lines: IO[str] = (folder / RECORD).open("w")
        (folder / RUN).write_text(json.dumps(self._header(command), indent=1) + "\n")
        device.capture.stamp = self._frame
        device.toe.engine.observers.append(self._event)
        self._sample()

    def _header(self, command: str) -> dict[str, Any]:
        device, config = self._device, self._device.config
        assert device.pcap is not None
        trace = device.trace_path
        return {
            "format": FORMAT, "command": command, "config": config.name, "capture": os.path.relpath(device.pcap, self.folder),
            "waveform": os.path.relpath(trace, self.folder) if trace else None,
            "address": format_address(device.ip), "began_ns": device.time_ns, "written": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            "clock": "simulated" if self._simulated else "wall",
            "data_bytes": config.bytes_per_beat, "rx_words": config.rx_buffer_bytes // config.bytes_per_beat,
            "connections": config.connections, "half_open": config.syncache_entries, "listeners": config.listeners,
        }  # fmt: skip

    # --- what happens ---

    def _frame(self, first: int, last: int, to_engine: bool) -> None:
        if not self._open:
            return
        try:
            self._frames.write(FRAME.pack(first, min(last - first, TO_ENGINE - 1) | (TO_ENGINE if to_engine else 0)))
            self._frames.flush()  # whoever reads along finds a frame's cycles with the frame
        except OSError as error:
            self._give_up(error)
            return
        if not self._waiting and not self._taking:
            self._waiting = True
            now = self._device.now_us()
            self._device.stack.callout(max(self._interval_us, self._busy_until_us - now), self._sample)

    def _event(self, event: abi.Event) -> None:
        """States as they change; of other events those that are rare. Data's own are counted."""
        self._since_sample += 1
        row: dict[str, Any] = {}
        if isinstance(event, abi.ConnectionEvent):
            name, before = self._states.get(event.tid, ("", ""))
            state = "CLOSED" if event.terminal else abi.State(min(event.state, max(abi.State))).name
            if state == before:
                return
            toep = self._device.toe.engine.ids.find(event.tid)
            if toep is not None and toep.four_tuple != (0, 0, 0, 0):
                name = _name(toep.four_tuple)
            if event.terminal:
                self._states.pop(event.tid, None)
            else:
                self._states[event.tid] = name, state
            row = {"k": "state", "id": event.tid, "conn": name, "state": state}
            if event.terminal:
                row["reason"] = _named(abi.Reason, event.reason)
        elif isinstance(event, abi.SynReceivedEvent):
            row = {"k": "event", "name": "SYN_RECEIVED", "port": event.lport}
        elif isinstance(event, abi.SyncacheGoneEvent):
            row = {"k": "event", "name": "SYNCACHE_GONE"}
        elif isinstance(event, abi.ErrorEvent):
            row = {"k": "event", "name": f"ERROR {_named(abi.ErrorCode, event.code)}"}
        elif isinstance(event, abi.CommandDoneEvent) and event.status != abi.Status.OK:
            row = {"k": "event", "name": f"{_named(abi.Opcode, event.opcode)} {_named(abi.Status, event.status)}"}
        if row:
            self.events += 1
            if self.events <= MOST_EVENTS:
                self._write(row)
            elif self.events == MOST_EVENTS + 1:
                self._write({"k": "event", "name": "from here on events are only counted"})

    # --- samples ---

    def _sample(self) -> None:
        self._waiting = False
        if self._open:
            self._taking = True
            self._begin_us = self._device.now_us()
            counters = self.samples % _COUNTERS_EVERY == _COUNTERS_EVERY - 1
            self._taker = SnapshotTaker(self._device.stack, self._taken, _LIMIT_US, counters=counters)

    def _taken(self, taken: Snapshot) -> None:
        self._taking = False
        now = self._device.now_us()
        self._busy_until_us = now + _SHARE * (now - self._begin_us)
        device = next((each for each in taken["devices"] if each["name"] == self._device.toe.tod_ifp.if_xname), None)
        if device is None or not self._open:
            return
        self.samples += 1
        harness = self._device.counters()
        row = {
            "k": "sample",
            "conns": [_connection(each) for each in taken["connections"] if each["device"] == device["name"]],
            "ids": device["ids"]["in_use"], "half_open": device["half_open"]["in_use"],
            "commands": [device["commands"][key] for key in ("entries", "free", "backlog")],
            "counters": self._changed(device["counters"] or {}), "engine": {name: harness[name] for name in _HARNESS},
            "events": self._since_sample,
        }  # fmt: skip
        self._since_sample = 0
        if channels := getattr(self._device, "channels", None):
            row["lost"] = sum(channel.lost + channel.corrupted for channel in channels)
        self._write(row)
        self.flush()

    def _changed(self, counters: dict[str, int]) -> dict[str, int]:
        changed = {name: count for name, count in counters.items() if count != self._counters.get(name, 0)}
        self._counters |= changed
        return changed

    def _write(self, row: dict[str, Any]) -> None:
        if not self._open:
            return
        stamp = {"t": self._device.time_ns // 1000, "c": self._device.harness.cycle}
        try:
            self._lines.write(json.dumps(stamp | row, separators=(",", ":")) + "\n")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.why_ended = f"the record ends here: {error.strerror or error}"
        self._open = False

    # --- the files ---

    def flush(self) -> None:
        """Make the files complete up to here, for whoever reads along."""
        try:
            if self._device.capture.pcap is not None:
                self._device.capture.pcap.flush()
            self._lines.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """End the record. Twice does no harm."""
        if self._taker is not None:
            self._taker.cancel()
        if self._device.capture.stamp == self._frame:
            self._device.capture.stamp = None
        if self._event in self._device.toe.engine.observers:
            self._device.toe.engine.observers.remove(self._event)
        if self._open:
            with contextlib.suppress(DeviceError, RuleBroken, RuntimeError):  # it has ended, or stands still
                self._write({"k": "counters", "counters": self._changed(self._device.toe.engine.read_counters())})
        self.flush()
        self._open = False
        for file in (self._frames, self._lines):
            try:
                file.close()
            except OSError as error:
                self._give_up(error)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _named(kind: Any, value: int) -> str:
    """A number's name, or itself: what the device wrote may be anything."""
    try:
        return str(kind(value).name)
    except ValueError:
        return str(value)


def _end(address: int, port: int) -> str:
    return f"[{format_address(address)}]:{port}" if on_v6(address) else f"{format_address(address)}:{port}"


def _name(four_tuple: tuple[int, int, int, int]) -> str:
    """A connection as samples and page name it: the engine's end first."""
    return f"{_end(*four_tuple[:2])} {_end(*four_tuple[2:])}"


def _connection(entry: dict[str, Any]) -> dict[str, Any]:
    row = {
        "conn": f"{entry['local']} {entry['foreign']}",
        "state": entry["state"],
        "unread": entry["unread"],
        "waiting": entry["waiting"],
    }
    info = entry["info"]
    if info is not None and info["tcpi_device"]:
        row |= {short: info[name] for short, name in _INFO.items()}
    return row
