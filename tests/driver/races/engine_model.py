"""What the engine may do in a race, as a device for the explorer: commands wait until it is their turn, and every answer
comes a step later.

It keeps the guarantees of the contract ("What the device must guarantee") and of docs/rings.md: events of a connection in
order, one terminal event and none after it, ABORT answered by a terminal event or, when the connection was dead already, by
BAD_STATE (hdl/tiptoe_hdl/flow/rules/host.py), SYNCACHE_DROP lost against a handshake that is complete (listen/upkeep.py). In
return it holds the driver to its own duties: whatever is posted wrongly is a RuleBroken at once. Payload bytes are real,
sequence numbers are not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.driver.fake_device import FakeDevice
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import Reason, State, Status
from tiptoe_hdl.host import abi
from tiptoe_hdl.host.abi import EventType, Opcode

FourTuple = tuple[int, int, int, int]
SYNCHRONISED = set(State) - {State.CLOSED, State.LISTEN, State.SYN_SENT}


_MEMORY = bytearray(1 << 18)
"""Host memory, the same for all models: there is one at a time, and thousands of them."""


class RuleBroken(AssertionError):
    """The driver did what it must not do to a device."""


@dataclass
class Tcb:
    """One provisioned id of the engine."""

    tid: int
    stock: int
    rcv_base: int
    rcv_size: int
    four_tuple: FourTuple | None = None
    state: State = State.CLOSED
    reason: Reason = Reason.NONE
    ref: int = 0xFFFF
    established: int = 0
    peer_closed: int = 0
    received: int = 0
    snd_end: int = 0
    snd_una: int = 0
    rcv_bell: int = 0
    told: bool = False  # the terminal event is in the ring
    told_at: int = 0  # as this one
    posted: list[Opcode] = field(default_factory=list)  # by the driver for this connection

    @property
    def alive(self) -> bool:
        return self.state != State.CLOSED


@dataclass
class Entry:
    """One half-open connection."""

    ref: int
    four_tuple: FourTuple
    listener: int
    reported: bool = False


class EngineModel(FakeDevice):
    """The engine as far as races matter.

    Attributes
    ----------
    tcbs : dict
        Provisioned ids, by id.
    opened : list
        Every connection that ever was.
    half_open : dict
        Half-open connections by four-tuple.
    resets : list
        Four-tuples of the RSTs sent for connections and half-open ones, in order.
    entries : list
        Four-tuples of the half-open connections ever made.
    given_up : list
        Four-tuples of passive opens that ended without our doing: the peer's RST or silence.
    refusals : list
        What the next OPENs are answered with, last first.
    events_read : callable
        How many events the driver has taken from the ring.
    hold_syn_events : bool
        SYN_RECEIVED and SYNCACHE_GONE wait for :meth:`report`, as they do when the event ring is slow: COMMAND_DONE may
        overtake them, CONNECTION may not overtake its SYN_RECEIVED.
    """

    def __init__(self) -> None:
        super().__init__(connections=8, listeners=2, syncache=4, memory_bytes=1)
        _MEMORY[:] = bytes(len(_MEMORY))
        self.memory = memoryview(_MEMORY)
        self.answer = self._posted
        self.pending: deque[dict[str, Any]] = deque()
        self.tcbs: dict[int, Tcb] = {}
        self._known: dict[int, Tcb] = {}  # by tid, from the posting of PROVISION on
        self.opened: list[Tcb] = []
        self.released: list[int] = []
        self.stock: deque[int] = deque()
        self.listeners: dict[int, int] = {}
        self.half_open: dict[FourTuple, Entry] = {}
        self.refs = 0
        self.dropped_refs: list[int] = []
        self.resets: list[FourTuple] = []
        self.entries: list[FourTuple] = []
        self.given_up: list[FourTuple] = []
        self.hold_syn_events = False
        self.refusals: list[Status] = []
        self.events_read: Callable[[], int] = lambda: 0
        self._syn_events: deque[tuple[EventType, Entry, dict[str, int]]] = deque()
        self._held: deque[tuple[Tcb, dict[str, int]]] = deque()

    # ------------------------------------------------------------------ what the driver writes

    def _rule(self, kept: bool, text: str) -> None:
        if not kept:
            raise RuleBroken(text)

    def _posted(self, command: dict[str, Any]) -> None:
        """A command is in the ring: duties that hold at the time of posting."""
        op = command["op"]
        if op == Opcode.PROVISION:
            self._rule(command["tid"] not in self._known, f"PROVISION with an old generation: {command['tid']:#x}")
            self._known[command["tid"]] = Tcb(
                command["tid"], command["stock"], command["rcv_base"], 1 << command["rcv_log2"]
            )
        elif "tid" in command:
            name = f"{op.name} of {command['tid']:#x}"
            tcb = self._known.get(command["tid"])
            self._rule(tcb is not None, f"{name}: never provisioned")
            assert tcb is not None
            self._rule(Opcode.RELEASE not in tcb.posted, f"{name} after RELEASE")
            if op == Opcode.OPEN:
                self._rule(not tcb.stock, f"{name}, which is in stock")
                tcb.posted.clear()  # an OPEN refused leaves the id as it was
            else:
                self._rule(Opcode.OPEN in tcb.posted or tcb in self.opened, f"{name}: no connection")
                self._rule(op not in tcb.posted or op == Opcode.READ_TCB, f"{name} twice")
                self._rule(
                    op == Opcode.RELEASE or not tcb.told or self.events_read() < tcb.told_at,
                    f"{name} after the terminal event was read",
                )
                self._rule(op == Opcode.RELEASE or Opcode.ABORT not in tcb.posted, f"{name} after ABORT")
                self._rule(op != Opcode.RELEASE or tcb.told, f"{name} before the terminal event")
            tcb.posted.append(op)
        elif op == Opcode.SYNCACHE_DROP:
            self._rule(command["syncache_ref"] not in self.dropped_refs, "SYNCACHE_DROP twice")
            self.dropped_refs.append(command["syncache_ref"])
        self.pending.append(command)

    def write32(self, address: int, value: int) -> None:
        super().write32(address, value)
        if address >= reg.DOORBELL_BASE:
            tep_id, which, position = self.doorbells[-1]
            tcb = self.tcbs.get(tep_id)
            self._rule(tcb is not None and Opcode.RELEASE not in tcb.posted, f"{which} doorbell of free id {tep_id}")
            assert tcb is not None
            self._rule(Opcode.ABORT not in tcb.posted, f"{which} doorbell of id {tep_id} after ABORT")
            if which == "snd":
                self._rule(Opcode.CLOSE not in tcb.posted, f"send doorbell of id {tep_id} after CLOSE")
                self._rule(position >= tcb.snd_end, "send doorbell goes back")
                tcb.snd_end = position
            else:
                self._rule(tcb.rcv_bell <= position <= tcb.received, "receive doorbell outside what has arrived")
                tcb.rcv_bell = position

    # ------------------------------------------------------------------ commands

    def execute(self) -> bool:
        """Carry out the oldest command; whether there was one."""
        if not self.pending:
            return False
        command = self.pending.popleft()
        handler = getattr(self, "_" + command["op"].name.lower(), None)
        status = handler(command) if handler is not None else Status.OK
        if command["op"] in abi.ALWAYS_DONE or status != Status.OK:
            self.done(command, status)
        return True

    def _provision(self, command: dict[str, Any]) -> Status:
        tep_id = command["tid"] & 0xFFFF
        self._rule(tep_id not in self.tcbs, f"PROVISION of id {tep_id} in use")
        for other in self.tcbs.values():
            self._rule(command["rcv_base"] != other.rcv_base, "rings given to two ids")
        self.tcbs[tep_id] = self._known[command["tid"]]
        if command["stock"]:
            self.stock.append(tep_id)
        return Status.OK

    def _begin(self, tcb: Tcb, four_tuple: FourTuple, state: State) -> None:
        tcb.four_tuple, tcb.state = four_tuple, state
        self.opened.append(tcb)

    def _open(self, command: dict[str, Any]) -> Status:
        tcb = self.tcbs[command["tid"] & 0xFFFF]
        self._rule(tcb.tid == command["tid"] and tcb.four_tuple is None, "OPEN of an id that is not virgin")
        four_tuple = command["laddr"], command["lport"], command["faddr"], command["fport"]
        if self.refusals:
            return self.refusals.pop()
        if self.find(four_tuple) is not None:
            return Status.EXISTS
        self._begin(tcb, four_tuple, State.SYN_SENT)
        return Status.OK

    def _close(self, command: dict[str, Any]) -> Status:
        tcb = self.tcbs[command["tid"] & 0xFFFF]
        if tcb.state not in (State.ESTABLISHED, State.CLOSE_WAIT):
            return Status.BAD_STATE
        self._rule(command["snd_end"] >= tcb.snd_end, "CLOSE before the end of the data")
        tcb.snd_end = command["snd_end"]
        tcb.state = State.FIN_WAIT_1 if tcb.state == State.ESTABLISHED else State.LAST_ACK
        self.snapshot(tcb)
        return Status.OK

    def _abort(self, command: dict[str, Any]) -> Status:
        tcb = self.tcbs[command["tid"] & 0xFFFF]
        if not tcb.alive:
            return Status.BAD_STATE
        if tcb.state in SYNCHRONISED - {State.TIME_WAIT}:
            assert tcb.four_tuple is not None
            self.resets.append(tcb.four_tuple)
        self.die(tcb, Reason.LOCAL_ABORT)
        return Status.OK

    def _read_tcb(self, command: dict[str, Any]) -> Status:
        self.tcb = {"state": self.tcbs[command["tid"] & 0xFFFF].state}
        return Status.OK

    def _release(self, command: dict[str, Any]) -> Status:
        tcb = self.tcbs.pop(command["tid"] & 0xFFFF)
        four_tuple = command["laddr"], command["lport"], command["faddr"], command["fport"]
        self._rule(not tcb.alive, "RELEASE of a connection that lives")
        self._rule(four_tuple == tcb.four_tuple, f"RELEASE names {four_tuple}, the connection is {tcb.four_tuple}")
        self.released.append(tcb.tid)
        return Status.OK

    def _listen(self, command: dict[str, Any]) -> Status:
        before = self.listeners.get(command["listener"])
        self._rule(before in (None, command["lport"]), "LISTEN of a listener in use for another port")
        self.listeners[command["listener"]] = command["lport"]
        return Status.OK

    def _unlisten(self, command: dict[str, Any]) -> Status:
        del self.listeners[command["listener"]]
        for entry in [e for e in self.half_open.values() if e.listener == command["listener"]]:
            self._gone(entry, reset=True)
        return Status.OK

    def _syncache_drop(self, command: dict[str, Any]) -> Status:
        entry = next((e for e in self.half_open.values() if e.ref == command["syncache_ref"]), None)
        if entry is None:
            return Status.BAD_GENERATION  # given up, or the handshake was faster
        self._gone(entry, reset=True)
        return Status.OK

    # ------------------------------------------------------------------ half-open connections

    def syn(self, four_tuple: FourTuple) -> None:
        """A SYN from the peer; one that finds a connection or a half-open one changes nothing."""
        lid = next((lid for lid, port in self.listeners.items() if port == four_tuple[1]), None)
        if lid is None or not self.stock or self.find(four_tuple) is not None or four_tuple in self.half_open:
            return
        self.refs += 1
        entry = self.half_open[four_tuple] = Entry(self.refs % 4 | (self.refs & 0xFF) << 8, four_tuple, lid)
        self.entries.append(four_tuple)
        laddr, lport, faddr, fport = four_tuple
        self._syn_event(
            EventType.SYN_RECEIVED,
            entry,
            laddr=laddr,
            lport=lport,
            faddr=faddr,
            fport=fport,
            iss=1000,
            irs=2000,
            mss=1460,
        )

    def last_ack(
        self, four_tuple: FourTuple, *, data: bytes = b"", fin: int = 0, rst: bool = False, early: bool = False
    ) -> None:
        """The handshake's last ACK, with what rides on it. ``early``: a snapshot is written before it is established."""
        entry = self.half_open.get(four_tuple)
        if entry is None or not self.stock:
            return
        del self.half_open[four_tuple]
        tcb = self.tcbs[self.stock.popleft()]
        tcb.ref = entry.ref
        self._begin(tcb, four_tuple, State.SYN_RECEIVED)
        if early:
            self.snapshot(tcb)
        else:
            tcb.established, tcb.state = 1, State.ESTABLISHED
        if data:
            self._place(tcb, data)
        if fin:
            tcb.peer_closed, tcb.state = 1, State.CLOSE_WAIT
        if rst:
            self.die(tcb, Reason.PEER_RESET)
        elif not early:
            self.snapshot(tcb)

    def give_up(self, four_tuple: FourTuple) -> None:
        """The peer resets its half-open connection, or never answers our SYN,ACK."""
        entry = self.half_open.get(four_tuple)
        if entry is not None:
            self.given_up.append(four_tuple)
            self._gone(entry, reset=False)

    def _gone(self, entry: Entry, *, reset: bool) -> None:
        del self.half_open[entry.four_tuple]
        if reset:
            self.resets.append(entry.four_tuple)
        self._syn_event(EventType.SYNCACHE_GONE, entry)

    def _syn_event(self, kind: EventType, entry: Entry, **values: int) -> None:
        self._syn_events.append((kind, entry, {"syncache_ref": entry.ref, "listener": entry.listener, **values}))
        if not self.hold_syn_events:
            self.report()

    def report(self) -> bool:
        """Write the oldest event of the syncache, and the snapshots that waited for it; whether there was one."""
        if not self._syn_events:
            return False
        kind, entry, values = self._syn_events.popleft()
        self.event(kind, **values)
        entry.reported = True
        held, self._held = self._held, deque()
        for tcb, snapshot in held:
            self._write(tcb, snapshot)
        return True

    # ------------------------------------------------------------------ connections

    def find(self, four_tuple: FourTuple) -> Tcb | None:
        """The connection of a four-tuple, which stays in the table until RELEASE."""
        return next((tcb for tcb in self.tcbs.values() if tcb.four_tuple == four_tuple), None)

    def snapshot(self, tcb: Tcb) -> None:
        """The CONNECTION event of the state as it is now."""
        self._write(
            tcb,
            {
                "tid": tcb.tid,
                "rcv_position": tcb.received + tcb.peer_closed,
                "snd_una_position": tcb.snd_una,
                "syncache_ref": tcb.ref,
                "mss": 1460,
                "iss": 1000,
                "irs": 2000,
                "state": tcb.state,
                "established": tcb.established,
                "peer_closed": tcb.peer_closed,
                "reason": tcb.reason,
                "terminal": int(tcb.reason != Reason.NONE),
            },
        )

    def _write(self, tcb: Tcb, values: dict[str, int]) -> None:
        if any(kind == EventType.SYN_RECEIVED and entry.ref == tcb.ref for kind, entry, _ in self._syn_events):
            self._held.append((tcb, values))
            return
        assert not tcb.told, "the model wrote an event after the terminal one"
        tcb.told = bool(values["terminal"])
        self.event(EventType.CONNECTION, **values)
        tcb.told_at = self._events

    def die(self, tcb: Tcb, reason: Reason) -> None:
        """The connection's end."""
        tcb.state, tcb.reason = State.CLOSED, reason
        if tcb.stock and reason != Reason.LOCAL_ABORT:
            assert tcb.four_tuple is not None
            self.given_up.append(tcb.four_tuple)
        self.snapshot(tcb)

    def _place(self, tcb: Tcb, data: bytes) -> None:
        assert tcb.received + len(data) - tcb.rcv_bell <= tcb.rcv_size
        start = tcb.rcv_base + tcb.received % tcb.rcv_size
        self.memory[start : start + len(data)] = data  # short tests: no ring wraps
        tcb.received += len(data)
