"""Many clients of one server on the engine, in native simulation: each asks a question and reads the answer, as `ab` does.

A client is a small TCP with the habits of Linux: the SYN again after 1, 3, 7... seconds, data again after 200 ms and twice as
long each time, an ACK of where it is in answer to a SYN,ACK that comes again, a RST to what answers an earlier connection's SYN.
Lost is what the test says. Seconds are thousands of the engine's ticks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from tests.driver.bench import arp_reply
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.native.simulation import Simulation
from tiptoe_verif.wire.segment import ACK, FIN, PSH, RST, SYN, Segment, ip_number, pack_tcp, parse_tcp

OURS, OUR_MAC, THEIRS, THEIR_MAC = "10.0.0.1", "02:00:00:00:00:01", "10.0.0.2", "02:00:00:00:00:02"
TICK_US = 32
"""TCP's clock runs fast, as in test_races_on_engine.py."""
SECOND, RTO = 1000, 200
M = 0xFFFF_FFFF

Loss = Callable[[bool, Segment, int], bool]
"""Whether a segment is lost: True for one of the client's, the segment, how many like it have come before."""


class Client:
    """One connection.

    Attributes
    ----------
    began, established, ended : int or None
        Ticks.
    syns : int
        SYNs sent.
    permitted : bool
        The SYN,ACK permits selective acknowledgements.
    stamped : bool
        Both SYNs have timestamps.
    newest, old : int
        TSval of the engine that came last in order (TS.Recent, RFC 7323 section 4.3); segments that were older, and dropped.
    reset : bool
        A RST has come that a TCP would believe.
    """

    def __init__(self, crowd: Crowd, port: int, question: bytes, *, closes: bool) -> None:
        self.crowd, self.port, self.question, self.closes = crowd, port, question, closes
        self.iss = self.una = port * 7919 + 250 * crowd.now & M  # RFC 6528's clock
        self.nxt = self.iss
        self.rcv_nxt = 0
        self.mss = 0
        self.ws: int | None = None
        self.permitted = self.stamped = False
        self.newest = self.old = 0
        self.answer = b""
        self.began = crowd.now
        self.established: int | None = None
        self.ended: int | None = None
        self.syns = 0
        self.reset = self.fin_received = self.fin_sent = False
        self.rto = SECOND
        self._due = 0
        self._seen: dict[tuple[Any, ...], int] = {}
        self._send_syn()

    @property
    def ticks(self) -> int:
        """From the first SYN to the end."""
        assert self.ended is not None
        return self.ended - self.began

    def turn(self) -> None:
        """Send again what is due."""
        if self.una == self.nxt or self.crowd.now < self._due:
            return
        self.rto *= 2
        self._due = self.crowd.now + self.rto
        if self.established is None:
            self._send_syn()
        elif self.una == self.iss + 1 & M:
            self._emit(ACK | PSH, self.una, self.question)
        else:
            self._emit(ACK | FIN, self.nxt - 1)

    def take(self, segment: Segment) -> None:
        """A segment of the engine's."""
        if self._lost(False, segment) or self.reset:
            return
        if segment.flags & RST:
            if segment.seq == self.rcv_nxt or (self.established is None and segment.ack == self.nxt):
                self.reset, self.ended = True, self.crowd.now
            return
        if self.stamped and segment.stamps is not None:
            if (segment.stamps[0] - self.newest) & 1 << 31:
                self.old += 1
                return
            if segment.seq == self.rcv_nxt:
                self.newest = segment.stamps[0]
        if segment.flags & SYN:
            if self.established is not None:
                self._emit(ACK, self.nxt)  # a challenge
            elif segment.ack == self.nxt:
                self._established(segment)
            else:
                self._emit(RST, segment.ack)
            return
        if self.established is None:
            if segment.ack != self.nxt:
                self._emit(RST, segment.ack)  # an ACK of an earlier connection's: that is to end
            return
        if (segment.ack - self.una) & M <= (self.nxt - self.una) & M:
            self.una = segment.ack
        if not segment.length:
            self._end()
            return
        if segment.seq == self.rcv_nxt:
            self.answer += segment.payload
            self.rcv_nxt = self.rcv_nxt + segment.length & M
            self.fin_received |= bool(segment.flags & FIN)
        if (self.fin_received or (self.closes and self.answer)) and not self.fin_sent:
            self._emit(ACK | FIN, self.nxt)
            self.nxt = self.nxt + 1 & M
            self.fin_sent = True
            self._arm(RTO)
        else:
            self._emit(ACK, self.nxt)
        self._end()

    def _end(self) -> None:
        """Both FINs are acknowledged: what comes from now on is answered only."""
        if self.ended is None and self.fin_sent and self.fin_received and self.una == self.nxt:
            self.ended = self.crowd.now

    def _established(self, syn_ack: Segment) -> None:
        self.established, self.una = self.crowd.now, self.nxt
        self.rcv_nxt, self.mss, self.ws = syn_ack.seq + 1 & M, syn_ack.mss, syn_ack.ws
        self.permitted = syn_ack.sack_ok
        if syn_ack.stamps is not None:
            self.stamped, self.newest = True, syn_ack.stamps[0]
        self._emit(ACK, self.nxt)
        self._emit(ACK | PSH, self.nxt, self.question)
        self.nxt = self.nxt + len(self.question) & M
        self._arm(RTO)

    def _send_syn(self) -> None:
        self.syns += 1
        self._emit(SYN, self.iss, mss=1460, ws=7, sack_ok=self.crowd.permits)
        self.nxt = self.iss + 1 & M
        if self.syns == 1:
            self._arm(SECOND)

    def _arm(self, rto: int) -> None:
        self.rto, self._due = rto, self.crowd.now + rto

    def _emit(
        self, flags: int, seq: int, payload: bytes = b"", mss: int = 0, ws: int | None = None, sack_ok: bool = False
    ) -> None:
        ack = self.rcv_nxt if flags & ACK else 0
        stamps = (self.crowd.now & M, self.newest) if self.stamped or (flags == SYN and self.crowd.stamps) else None
        segment = Segment(
            ip_number(THEIRS), ip_number(OURS), self.port, 80, seq & M, ack, flags, 8192, mss, ws, payload, sack_ok,
            stamps=stamps,
        )  # fmt: skip
        if not self._lost(True, segment):
            self.crowd.inject(segment)

    def _lost(self, ours: bool, segment: Segment) -> bool:
        kind = ours, segment.flags, bool(segment.payload)
        before = self._seen[kind] = self._seen.get(kind, -1) + 1
        return self.crowd.loses(ours, segment, before)


class Crowd:
    """An engine with a server, and its clients.

    Parameters
    ----------
    config
        Of the engine.
    tick_us : int
        A tick of TCP's clock in cycles, at least the engine's ids.
    loses : callable
        Which segments are lost.
    software : str, optional
        As in Simulation.
    driver
        Further options of the driver.

    Attributes
    ----------
    clients : list of Client
        All there ever were.
    permits : bool
        SYNs of clients permit selective acknowledgements.
    stamps : bool
        They have timestamps (RFC 7323).
    """

    permits, stamps = True, False

    def __init__(
        self,
        config: Any = "tiny",
        tick_us: int = TICK_US,
        *,
        loses: Loss = lambda ours, segment, before: False,
        software: Literal["stand-in"] | None = None,
        **driver: Any,
    ) -> None:
        self.loses = loses
        self.tick_us = tick_us
        registers = {reg.REG_MSL_TICKS: 500} | driver.pop("registers", {})
        self.sim = Simulation(
            config, ip=OURS, mac=OUR_MAC, memory_bytes=1 << 23, tick_us=tick_us, software=software,
            driver={"snd_ring_bytes": 4096, "rcv_ring_bytes": 4096, "registers": registers, **driver},
        )  # fmt: skip
        self.clients: list[Client] = []
        self.under_way: dict[int, Client] = {}
        self._by_port: dict[int, Client] = {}
        self.resets = 0
        self.open: list[tuple[Socket, bytearray]] = []
        self.server_closes = True
        self._header = bytes.fromhex((OUR_MAC + THEIR_MAC).replace(":", "")) + b"\x08\x00"
        self.sim.run_us(1000)
        self.listener = self.sim.socket()
        self.listener.bind(("", 80))
        self.listener.listen(1000)
        commands = self.sim.toe.engine.commands
        self.sim.run_until(lambda: not commands.waiting, 100_000, "the engine listens")
        self.sim.tasks.append(self._serve)

    @property
    def now(self) -> int:
        """Ticks."""
        return self.sim.now_us() // self.tick_us

    @property
    def released(self) -> bool:
        """No connection is left. The driver forgets a four-tuple when it posts RELEASE: until that is answered, the engine may
        have it still, and ignores what comes for a connection that has ended."""
        return not self.sim.toe.calls.four_tuples and not self.sim.toe.engine.ids.releasing

    def counter(self, name: str) -> int:
        """A counter of the engine."""
        return int(self.sim.toe.engine.read_counters()[name])

    def client(self, port: int, question: bytes = b"question", *, closes: bool = False) -> Client:
        """A client begins."""
        made = self.under_way[port] = self._by_port[port] = Client(self, port, question, closes=closes)
        self.clients.append(made)
        return made

    def inject(self, segment: Segment) -> None:
        """A client's segment is at the engine's door."""
        self.sim.inject((self._header + pack_tcp(segment)).ljust(60, b"\0"))

    def turn(self) -> None:
        """Clients take what the engine has sent, and send again what is due."""
        for frame in self.sim.captured():
            segment = parse_tcp(frame)
            if frame[12:14] == b"\x08\x06":
                self.sim.inject(arp_reply().ljust(60, b"\0"))  # a software TCP asks
            if segment is not None:
                self.resets += bool(segment.flags & RST)
                if (client := self._by_port.get(segment.dport)) is not None:
                    client.take(segment)
        for port, client in list(self.under_way.items()):
            client.turn()
            if client.ended is not None:
                del self.under_way[port]

    def until(self, condition: Callable[[], object], ticks: int, what: str) -> None:
        """Let time pass until ``condition`` holds."""

        def met() -> bool:
            self.turn()
            return bool(condition())

        self.sim.run_until(met, ticks * self.tick_us, what, step_us=100)

    def run(self, ports: Iterable[int], at_once: int, ticks: int, *, closes: bool = False) -> list[Client]:
        """Connections one after the other, so many at once; all of them, ended."""
        rest: Iterator[int] = iter(ports)
        begun: list[Client] = []

        def done() -> bool:
            for port in rest if len(self.under_way) < at_once else ():
                begun.append(self.client(port, closes=closes))
                if len(self.under_way) >= at_once:
                    break
            return not self.under_way

        self.until(done, ticks, "the end of all connections")
        return begun

    def _serve(self) -> None:
        """Accept, read the question, answer it, close."""
        with contextlib.suppress(BlockingIOError):
            while True:
                made, _ = self.listener.accept()
                made.setblocking(False)
                self.open.append((made, bytearray()))
        for made, got in list(self.open):
            try:
                data = made.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data and not got:
                made.send(b"answer to " + data)
            got += data
            if not data or self.server_closes:
                made.close()
                self.open.remove((made, got))

    def at_rest(self) -> None:
        """Everything comes back: ids, rings, entries, promises."""
        toe = self.sim.toe
        ids = toe.engine.ids
        self.until(
            lambda: self.released and not toe.engine.commands.waiting and not toe.passive.half_open,
            20 * SECOND,
            "the end of all",
        )
        assert ids.available + ids.stocked == len(ids.toepcbs) and ids.ring_pool.in_use == ids.idle_rings
        assert not self.open and not self.sim.stack.syncache.count
        for name in ("stale_events", "lost_ids", "bad_positions", "bad_doorbells"):
            assert not toe.counters[name], name
        self.sim.check()
