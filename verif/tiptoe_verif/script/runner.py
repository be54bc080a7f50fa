"""One script on one engine: events at their times, packets expected beside packets seen.

Time is simulated: a script's second is one of the engine's timers, and idle time is skipped. A time that is relative counts from
when the event before happened, as in packetdrill. After a packet or a call the engine and the driver get the time to finish with
it, a tenth of a millisecond, as a kernel would have before the call returns.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tiptoe_driver.hardware.options import DeviceError
from tiptoe_hdl.config import EngineConfig

from ..native.harness import RuleBroken
from ..native.recorder import Recorder
from ..native.simulation import Simulation
from ..wire.monitor import WireError
from ..wire.segment import SYN, Segment, ip_number, parse_tcp
from .calls import Attempt, Calls, Mismatch, NotThere
from .code import run_code, unknown_names
from .packets import MASK, Flow, differences, header_bytes, icmp_known, named_stamp, shown, window_update
from .settings import Settings
from .tree import ANY, Code, Event, Icmp, Packet, Script, ScriptError, Shell, SystemCall, Unsupported

CYCLES_PER_US = 10
"""The engine's clock in simulated megahertz: a segment takes some 20 us through it, well within a script's tolerance."""
MAC, GATEWAY_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
PATIENCE_US = 60_000_000
"""How long a packet that may come whenever is waited for."""
_LOOK_ON_US = 2_000_000
"""How long one that did not come is waited for, so that it can be said how late it is."""
_SETTLE_US = 2000
_FIRST_PORT = 33001
_HISTORY = 12
_MEMORY = 1 << 29
"""Host memory: the largest rings of several connections. What is not touched costs nothing."""


class Failure(Exception):
    """A script has failed: what was expected, what was seen instead, and in what they differ."""

    def __init__(self, expected: str, seen: str, why: str) -> None:
        super().__init__(f"{why}: expected {expected}, seen {seen}")
        self.expected, self.seen, self.why = expected, seen, why


@dataclass
class Seen:
    """A segment of the engine, when its last word passed, and whether it only says that the window is larger."""

    time_us: float
    flow: Flow
    segment: Segment
    update: bool


@dataclass
class Pending:
    """A call that waits: when it has to end, in simulated microseconds."""

    event: Event
    attempt: Attempt
    ends_us: float


@dataclass
class Result:
    """How a script ended: "ok", "FAILED" or "skipped". ``history``: the last packets, with times in seconds."""

    status: str
    line: int = 0
    text: str = ""
    expected: str = ""
    seen: str = ""
    why: str = ""
    cycle: int = 0
    history: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_supported(script: Script) -> None:
    """Unsupported for what is known to be missing before anything runs, ScriptError for code that is none."""
    calls = Calls.__new__(Calls)
    for event in script.events:
        match event.action:
            case SystemCall() if not calls.known(event.action):
                raise Unsupported(event.line, f"the call {event.action.name}()")
            case Icmp() if not icmp_known(event.action):
                raise Unsupported(event.line, str(event.action))
            case Packet(outbound=True, ttl=ttl) if ttl is not None:
                raise Unsupported(event.line, "the time to live of what is sent")
            case Code(text):
                try:
                    names = unknown_names(text)
                except SyntaxError as error:
                    raise ScriptError(event.line, f"no Python: {error.msg}") from None
                if names:
                    raise Unsupported(event.line, f"the driver does not know {', '.join(names)}")


def run_script(
    script: Script, chosen: Settings, config: EngineConfig, *, library: Path | None = None, pcap: Path | None = None,
    trace: Path | None = None, lenient: bool = False, record: Path | None = None,
) -> Result:  # fmt: skip
    """Run a script on an engine of its own. Whatever goes wrong is a Result."""
    try:
        check_supported(script)
        sim = Simulation(
            config, ip=chosen.local_ip, mac=MAC, prefix=24, gateway=chosen.gateway_ip(), mtu=chosen.mtu,
            cycles_per_us=CYCLES_PER_US, skip_idle=True, pcap=pcap, trace=trace,
            neighbours=dict.fromkeys((chosen.gateway_ip(), chosen.remote_ip), GATEWAY_MAC),
            library=library, memory_bytes=_MEMORY, driver=chosen.driver,
        )  # fmt: skip
    except Unsupported as error:
        return Result("skipped", error.line, why=str(error))
    except ScriptError as error:
        return Result("unreadable", error.line, why=str(error))
    except (DeviceError, ValueError) as error:  # an address, an MTU that this engine cannot have
        return Result("skipped", why=str(error))
    with sim, contextlib.ExitStack() as beside:
        if record:
            beside.enter_context(Recorder(sim, record, f"tiptoe script {record.name}"))
        return Runner(sim, script, chosen, lenient).run()


class Runner:
    """A script under way. It is also what the calls need of it (``calls.Host``)."""

    def __init__(self, sim: Simulation, script: Script, chosen: Settings, lenient: bool) -> None:
        self.sim, self.script, self.settings, self.lenient = sim, script, chosen, lenient
        self.defines, self.default_port, self.local_ip = chosen.defines, chosen.bind_port, chosen.local_ip
        self.connect_to = (chosen.remote_ip, chosen.connect_port)
        self.calls = Calls(self)
        self.flow: Flow | None = None
        self.flows: dict[tuple[int, int], Flow] = {}  # by local and remote port
        self.seen: deque[Seen] = deque()
        self.history: deque[str] = deque(maxlen=_HISTORY)
        self.pending: Pending | None = None
        self.last_us = 0.0
        self._listened = False
        self._local, self._remote = ip_number(chosen.local_ip), ip_number(chosen.remote_ip)
        self._next_port = _FIRST_PORT
        self._first_stamp: tuple[int, float] | None = None
        sim.settle()
        self.start_us = sim.now_us()
        sim.watchers.append(self._passed)

    # --- calls.Host ---

    def now_us(self) -> int:
        """Simulated time."""
        return self.sim.now_us()

    def new_socket(self) -> Any:
        """A non-blocking socket."""
        return self.sim.socket()

    def connecting(self, remote: tuple[str, int]) -> None:
        """The flow is there with the SYN; until then its ends are not known."""
        self._remote = ip_number(remote[0])
        self.flow, self._listened = None, False

    def listening(self) -> None:
        """The next SYN begins a connection."""
        self._listened = True

    # --- the run ---

    def run(self) -> Result:
        """All events."""
        event = self.script.events[0] if self.script.events else None
        try:
            for event in self.script.events:
                self._do(event)
            if self.pending is not None:
                self._run_to(self.pending.ends_us + self.settings.tolerance_us)
                event = self.pending.event if self.pending else event
                self._no_longer_pending()
            self.sim.check()
        except Failure as failure:
            return self._result("FAILED", event, failure.expected, failure.seen, failure.why)
        except (NotThere, Unsupported) as error:
            return self._result("skipped", event, why=str(error))
        except (WireError, RuleBroken) as error:
            words = str(error).splitlines()[0]
            return self._result("FAILED", event, "what TCP and the buses demand", words, type(error).__name__)
        notes = list(self.settings.notes)
        if self.seen:
            first = self._describe(self.seen[0])
            notes.append(f"{len(self.seen)} segments at the end that the script does not expect: {first} first")
        return Result("ok", history=tuple(self.history), notes=tuple(notes))

    def _result(self, status: str, event: Event | None, expected: str = "", seen: str = "", why: str = "") -> Result:
        return Result(
            status, event.line if event else 0, event.text if event else "", expected, seen, why, self.sim.harness.cycle,
            tuple(self.history), tuple(self.settings.notes),
        )  # fmt: skip

    def _do(self, event: Event) -> None:
        when, action = event.when, event.action
        base = self.last_us if when.relative else float(self.start_us)
        due = None if when.us is None else base + when.us
        if isinstance(action, Packet) and action.outbound:
            self._expect(action, due, None if when.until_us is None else base + when.until_us)
            return
        assert due is not None  # the parser sees to it
        self._run_to(due)
        if not when.relative and self.sim.now_us() > due + self.settings.tolerance_us:
            raise Failure(f"at {when.us or 0:,} us", self._clock(self.sim.now_us()), "the script's time is over")
        self.last_us = max(due, self.sim.now_us())
        if isinstance(action, (Packet, Icmp)):
            self._note(self.sim.now_us(), str(action))
        match action:
            case Packet():
                flow = self._flow_of(action)
                self._inject([flow.to_wire(part, self._payload(part)) for part in self._parts(action)])
            case Icmp():
                self._inject([self._known_flow().icmp(action)])
            case SystemCall():
                self._call(event, action, base)
            case Code():
                self._code(action)
            case Shell():
                pass

    def _run_to(self, until_us: float) -> None:
        """Let time pass, and the waiting call go on."""
        while self.sim.step(round(until_us)):
            self._go_on()
        self._go_on()

    def _settle(self) -> None:
        self.sim.settle(_SETTLE_US)
        if self._go_on():
            self.sim.settle(_SETTLE_US)

    # --- packets ---

    def _passed(self, time_us: float, frame: bytes, to_engine: bool) -> None:
        """A frame has passed the engine's port."""
        segment = parse_tcp(frame, strict=not to_engine)
        if segment is None or to_engine:
            return
        ends = (segment.sport, segment.dport)
        flow = self.flows.get(ends)
        if flow is None:
            flow = self.flows[ends] = Flow((segment.src, segment.sport), (segment.dst, segment.dport))
        if segment.flags & SYN and self.flow is None:
            self.flow = flow
        self.seen.append(Seen(time_us, flow, segment, window_update(segment, flow.last)))
        flow.last = segment
        self._note(time_us, _bare(flow.from_wire(segment)))

    def _note(self, time_us: float, text: str) -> None:
        self.history.append(f"{self._clock(time_us)} {text}")

    def _clock(self, time_us: float) -> str:
        return f"{(time_us - self.start_us) / 1e6:.6f}"

    def _flow_of(self, packet: Packet) -> Flow:
        """The connection that a packet from the remote end belongs to; a SYN may begin one."""
        if packet.ports is not None:
            remote, local = packet.ports
            if (local, remote) not in self.flows:
                self.flows[local, remote] = Flow((self._local, local), (self._remote, remote))
            self.flow = self.flows[local, remote]
            return self.flow
        begins = packet.flags.replace("E", "").replace("W", "") == "S"
        if self.flow is None or begins and self._listened:
            if not begins and self.flows:
                self.flow = next(reversed(self.flows.values()))
                return self.flow
            self._listened = False
            self.flow = Flow((self._local, self.settings.bind_port), (self._remote, self._next_port))
            self._next_port += 1
            self.flows[self.flow.local[1], self.flow.remote[1]] = self.flow
        return self.flow

    def _known_flow(self) -> Flow:
        if self.flow is None:
            raise NotThere("an ICMP error before there is a connection")
        return self.flow

    @staticmethod
    def _payload(packet: Packet) -> bytes:
        """The same bytes at the same sequence numbers."""
        return bytes((packet.seq + n) & 0xFF for n in range(packet.length))

    def _parts(self, packet: Packet) -> list[Packet]:
        """A packet that no frame holds, as several segments: a kernel's network device would take it whole."""
        room = self.settings.mtu - header_bytes(packet)
        if packet.length <= room:
            return [packet]
        parts = []
        for begin in range(0, packet.length, room):
            length = min(room, packet.length - begin)
            last = begin + length == packet.length
            flags = packet.flags if last else packet.flags.replace("P", "").replace("F", "")
            parts.append(replace(packet, seq=(packet.seq + begin) & MASK, length=length, flags=flags))
        return parts

    def _inject(self, packets: list[bytes]) -> None:
        header = bytes.fromhex((MAC + GATEWAY_MAC).replace(":", "")) + b"\x08\x00"
        for ip in packets:
            self.sim.inject((header + ip).ljust(60, b"\0"))
        self._settle()

    def _expect(self, wanted: Packet, due: float | None, until: float | None) -> None:
        tolerance = self.settings.tolerance_us
        latest = self.sim.now_us() + PATIENCE_US if due is None else (until or due) + tolerance
        came = self._next_seen(latest)
        while came is not None and self.lenient and came.update and self._differ(wanted, came):
            came = self._next_seen(latest)
        if came is None:
            late = self._next_seen(self.sim.now_us() + _LOOK_ON_US)
            seen = "nothing" if late is None else f"nothing until {self._describe(late)}"
            raise Failure(self._at(wanted, due), seen, "no segment in time")
        self._compare(wanted, named_stamp(came.flow, wanted, came.flow.from_wire(came.segment)), came, due)
        self.last_us = came.time_us
        if due is not None and not due - tolerance <= came.time_us <= (until or due) + tolerance:
            late_us = came.time_us - (due if came.time_us < due or until is None else until)
            why = f"{abs(late_us) / 1000:.1f} ms too {'late' if late_us > 0 else 'early'}"
            raise Failure(self._at(wanted, due), self._describe(came), why)
        self._check_stamp(wanted, came)

    def _differ(self, wanted: Packet, came: Seen) -> list[str]:
        return differences(wanted, named_stamp(came.flow, wanted, came.flow.from_wire(came.segment)), lenient=True)

    def _next_seen(self, latest: float) -> Seen | None:
        while not self.seen and self.sim.step(round(latest)):
            self._go_on()
        self._go_on()
        return self.seen.popleft() if self.seen else None

    def _compare(self, wanted: Packet, seen: Packet, came: Seen, due: float | None) -> None:
        """One segment, or as many as a packet takes that is longer than any: a script may have it whole."""
        if wanted.length > came.flow.mss and 0 < seen.length < wanted.length:
            seen = self._gather(wanted, seen)
        if wanted.ports is not None and wanted.ports != (came.segment.sport, came.segment.dport):
            raise Failure(str(wanted), f"ports {came.segment.sport} > {came.segment.dport}", "ports differ")
        if different := differences(wanted, seen, lenient=self.lenient):
            text = f"{self._clock(came.time_us)} {shown(wanted, seen)}"
            raise Failure(self._at(wanted, due), text, f"{', '.join(different)} differ")

    def _gather(self, wanted: Packet, first: Packet) -> Packet:
        whole = replace(first, flags=first.flags.replace("P", ""))
        while whole.length < wanted.length:
            came = self._next_seen(self.sim.now_us() + self.settings.tolerance_us)
            if came is None:
                return whole
            part = came.flow.from_wire(came.segment)
            if part.seq != whole.seq + whole.length or not part.length:
                self.seen.appendleft(came)
                return whole
            flags = part.flags if whole.length + part.length >= wanted.length else whole.flags
            whole = replace(whole, length=whole.length + part.length, flags=flags)
        return whole

    def _check_stamp(self, wanted: Packet, came: Seen) -> None:
        """With --tcp_ts_tick_usecs: time stamps go with time."""
        named = {option.kind: option for option in wanted.options or ()}.get("TS")
        if not self.settings.stamp_us or named is None or came.segment.stamps is None:
            return
        live, offset = came.segment.stamps[0], came.segment.stamps[0] - named.values[0]
        if self._first_stamp is None:
            self._first_stamp = offset, came.time_us
        drift = offset - self._first_stamp[0]
        allowed = 1 + self.settings.tolerance_us // self.settings.stamp_us
        if abs(drift) > allowed:
            raise Failure(
                f"TS val {named.values[0]}", f"TS val {live - self._first_stamp[0]}", "the time stamp differs"
            )

    def _at(self, wanted: Packet, due: float | None) -> str:
        return f"{'*' if due is None else self._clock(due)} {wanted}"

    def _describe(self, came: Seen) -> str:
        return f"{self._clock(came.time_us)} {_bare(came.flow.from_wire(came.segment))}"

    # --- calls ---

    def _call(self, event: Event, call: SystemCall, base: float) -> None:
        if self.pending is not None:
            self._run_to(self.sim.now_us() + self.settings.tolerance_us)
            self._no_longer_pending()
        self._settle()
        attempt, waits = self._checked_begin(call)
        ends = self.last_us if call.ends_us is None else base + call.ends_us
        self.pending = Pending(event, attempt, ends)
        if not waits:
            self._finish(self.pending)
        else:
            self._go_on()
            if self.pending is not None and call.ends_us is None:
                self._run_to(ends + self.settings.tolerance_us)
                self._no_longer_pending()
        self._settle()

    def _checked_begin(self, call: SystemCall) -> tuple[Attempt, bool]:
        try:
            return self.calls.begin(call)
        except (TypeError, KeyError, IndexError) as error:
            raise NotThere(f"{call.name}() with these arguments ({error})") from None

    def _no_longer_pending(self) -> None:
        if self.pending is not None:
            why = f"the call of line {self.pending.event.line} waits"
            raise Failure(_text(self.pending.event.action), "it has not returned", why)

    def _go_on(self) -> bool:
        """Try the waiting call again; whether it has returned."""
        if self.pending is None:
            return False
        try:
            self._finish(self.pending, waits=True)
        except _Waits:
            return False
        return True

    def _finish(self, pending: Pending, *, waits: bool = False) -> None:
        call = pending.event.action
        assert isinstance(call, SystemCall)
        error = ""
        try:
            result = pending.attempt()
        except Mismatch as mismatch:
            raise Failure(_text(call), str(mismatch), "the call has told something else") from None
        except OSError as failure:
            if waits and isinstance(failure, BlockingIOError):
                raise _Waits from None
            result, error = -1, errno.errorcode.get(failure.errno or 0, str(failure.errno))
            if getattr(errno, call.error, None) == failure.errno:
                error = call.error  # EAGAIN is EWOULDBLOCK
        self.pending = None
        expected = self.calls.value(call.result)
        now = self.sim.now_us()
        if expected is not ANY and (result != expected or error != call.error and (error or call.error)):
            raise Failure(_text(call), f"{result} {error}".strip(), "the call has returned something else")
        if call.ends_us is not None and abs(now - pending.ends_us) > self.settings.tolerance_us:
            ends = f"{_text(call)} at {self._clock(pending.ends_us)}"
            raise Failure(ends, f"at {self._clock(now)}", "the call has returned at another time")

    def _code(self, code: Code) -> None:
        file = self.calls.files.get(self.calls.last or -1)
        if file is None:
            raise NotThere("code without a connection")
        info = file.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if words := run_code(code.text, info):
            raise Failure(code.text, words, "the assertion fails")


class _Waits(Exception):
    """The call is not done."""


def _bare(packet: Packet) -> str:
    """A packet that was seen; without ECN where there is none."""
    return str(replace(packet, ecn=None if packet.ecn == "noecn" else packet.ecn))


def _text(call: Any) -> str:
    return f"{call.name}() = {call.result} {call.error}".strip()
