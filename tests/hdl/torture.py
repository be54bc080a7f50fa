"""Everything at once against the whole engine, in disorder: peers of bad manners, a line, memory and host that stand still, a
host that listens, opens, closes, drops and releases as it likes. When it is quiet, nothing may be missing.
"""

from __future__ import annotations

import random

from tests.hdl.engine_bench import COMMANDS_LOG2, OUR_IP, RING_LOG2, RINGS, EngineBench, tid
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import EngineConfig
from tiptoe_verif.wire.segment import ACK, FIN, RST, SYN, Segment, ip_number, mac_number, pack_tcp

PEER_IP, PEER_MAC = ip_number("10.0.0.2"), mac_number("02:00:00:00:00:02")
OUR_MAC = mac_number("02:00:00:00:00:01")
M = 0xFFFF_FFFF
LISTEN_PORTS = (80, 81)
TUPLE_PORTS = range(5000, 5006)
"""So few that four-tuples are used again right behind a RELEASE."""
Tuple = tuple[int, int]
"""Local and foreign port."""


class RudePeer:
    """One end at a four-tuple: answers as its manners of the moment are."""

    def __init__(self, world: Torture, local: int, port: int) -> None:
        self.world, self.local, self.port = world, local, port
        self.reset()

    def reset(self) -> None:
        self.iss = self.world.rng.randrange(2**32)
        self.nxt, self.rcv_nxt = self.iss, 0
        self.opened = self.established = self.over = self.fin_sent = False
        self.manners = self.world.rng.choice(
            ("polite", "polite", "silent", "resets", "data in the ACK", "twice", "mute later")
        )

    def send(
        self, flags: int, payload: bytes = b"", seq: int | None = None, ack: int | None = None, mss: int = 0
    ) -> None:
        segment = Segment(PEER_IP, OUR_IP, self.port, self.local, (self.nxt if seq is None else seq) & M,
                          (self.rcv_nxt if ack is None else ack) & M if flags & ACK else 0, flags, 0xFFFF, mss, None,
                          payload)  # fmt: skip
        header = OUR_MAC.to_bytes(6, "big") + PEER_MAC.to_bytes(6, "big") + b"\x08\x00"
        for _ in range(2 if self.manners == "twice" else 1):
            self.world.sim.inject(header + pack_tcp(segment))

    def connect(self) -> None:
        self.reset()
        self.opened = True
        self.send(SYN, mss=1460)
        self.nxt = self.iss + 1 & M

    def act(self) -> None:
        """Something unasked."""
        rng = self.world.rng
        if self.over or not self.opened:
            self.connect()
            return
        what = rng.randrange(9)
        if what == 0:
            self.send(SYN, seq=self.iss, mss=1460)  # again, whether or not it is established
        elif what == 1:
            self.send(RST, seq=rng.choice((self.nxt, self.nxt, self.nxt - 1, rng.randrange(2**32))))
        elif what == 2:
            self.send(RST | ACK)
            self.over = True
        elif what == 3 and self.established and not self.fin_sent:
            self.send(ACK | FIN)
            self.nxt, self.fin_sent = self.nxt + 1 & M, True
        elif what == 4 and self.fin_sent:
            self.send(ACK | FIN, seq=self.nxt - 1)
        elif what == 5:
            self.send(ACK, ack=rng.randrange(2**32))
        elif what == 6:
            self.connect()  # the same four-tuple, whatever has become of the last one
        elif self.established and not self.fin_sent:
            data = bytes(rng.randrange(1, 200))
            self.send(ACK, data)
            self.nxt = self.nxt + len(data) & M

    def input(self, s: Segment) -> None:
        if self.manners == "silent":
            return
        if s.flags & RST:
            if self.opened and (s.seq == self.rcv_nxt or not self.established):
                self.over = True
            return
        if s.flags & SYN and not s.flags & ACK:  # the engine opens
            if not self.opened or self.over:
                self.reset()
                self.opened = True
            self.rcv_nxt = s.seq + 1 & M
            if self.manners == "resets":
                self.send(RST | ACK, seq=0)
            else:
                self.send(SYN | ACK, seq=self.iss, mss=1460)
                self.nxt = self.iss + 1 & M
                self.established = True
            return
        if s.flags & SYN:
            if self.established or not self.opened:
                self.send(ACK) if self.established else self.send(RST, seq=s.ack)
            elif s.ack == self.nxt:
                self.rcv_nxt = s.seq + 1 & M
                if self.manners == "resets":
                    self.send(RST)
                    self.over = True
                    return
                self.established = True
                if self.manners == "data in the ACK":
                    self.send(ACK, b"data")
                    self.nxt = self.nxt + 4 & M
                else:
                    self.send(ACK)
            else:
                self.send(RST, seq=s.ack)
            return
        if not self.established or self.over:
            if s.flags & ACK:
                self.send(RST, seq=s.ack)
            return
        if self.manners == "mute later":
            return
        if s.length:
            if s.seq == self.rcv_nxt:
                self.rcv_nxt = self.rcv_nxt + s.length & M
            self.send(ACK)


class Torture(EngineBench):
    """A host that keeps to the rules of rings.md, and books of its own on every id."""

    def __init__(self, rng: random.Random, config: EngineConfig, ids: int, *, events_log2: int = 6) -> None:
        self.rng = rng
        self.ids = ids  # as many as the host makes use of
        self.generation = [0] * self.ids
        self.tuples: dict[Tuple, RudePeer] = {}
        self.resets = 0
        super().__init__(config, events_log2=events_log2, registers={
            abi.REG_TICK_CYCLES: 40, abi.REG_RETRIES: 2 | 1 << 8, abi.REG_MSL_TICKS: 20,
            abi.REG_RTO_MIN: 50, abi.REG_RTO_INITIAL: 100, abi.REG_RTO_MAX: 400, abi.REG_WATCHDOG_TICKS: 0,
        })  # fmt: skip
        self.config = config
        self.sim.monitor.may_skip = True  # payload that could not be read
        for local in LISTEN_PORTS + (9000, 9001):
            for port in TUPLE_PORTS:
                self.tuples[local, port] = self.peers[port, local] = RudePeer(self, local, port)

    def start(self) -> None:
        # Other keys, as the driver has them: the clock of the initial sequence numbers begins anew with a reset.
        self.registers |= {abi.REG_ISN_KEY + 4 * n: self.rng.getrandbits(32) for n in range(4)}
        super().start()
        self.backlog: list[tuple] = []
        self.state = ["free"] * self.ids  # stock, provisioned, open, ended, releasing
        self.of: dict[int, Tuple] = {}  # the four-tuple of an id
        self.sent = [0] * self.ids  # where the data ends
        self.closed = [False] * self.ids
        self.half_open: dict[int, Tuple] = {}
        self.listening = dict.fromkeys(LISTEN_PORTS, False)
        self.unanswered: dict[int, str] = {}
        self.refused: list = []

    # ---- commands

    def post(self, what: str, pack, **fields: int) -> None:
        self.backlog.append((what, pack, fields))
        self.flush()

    def flush(self) -> None:
        while self.backlog:
            if self.tail - self.sim.read32(abi.REG_COMMAND_HEAD) >= (1 << COMMANDS_LOG2) - 1:
                return
            what, pack, fields = self.backlog.pop(0)
            tag = self.command(pack, **fields)
            self.tag %= 0xFFFF
            self.unanswered[tag] = what
            if what not in ("release", "listen", "unlisten", "drop", "read"):
                del self.unanswered[tag]  # only failures are told of

    def give(self, id: int, stock: int) -> None:
        """PROVISION of a free id."""
        assert self.state[id] == "free"
        self.generation[id] = self.generation[id] + 1 & 0xFF
        self.state[id] = "stock" if stock else "provisioned"
        self.sent[id], self.closed[id] = 0, False
        ring = self.ring(id)
        self.post("provision", abi.pack_provision, tid=tid(id, self.generation[id]), stock=stock, snd_base=ring,
                  rcv_base=ring + (1 << RING_LOG2), snd_log2=RING_LOG2, rcv_log2=RING_LOG2)  # fmt: skip

    def open_active(self, id: int, local: int, port: int) -> None:
        """OPEN of a provisioned id."""
        self.of[id], self.state[id] = (local, port), "open"
        self.post("open", abi.pack_open, tid=tid(id, self.generation[id]), laddr=OUR_IP, faddr=PEER_IP, lport=local, fport=port,
                  dmac=PEER_MAC, use_next_hop=0, next_hop=0, mss=1460, rcv_scale=0, ecn=0,
                     faddr6_low=0, faddr6_high=0)  # fmt: skip

    def back(self, id: int) -> None:
        local, port = self.of.get(id, (0, 0))
        self.state[id] = "releasing"
        self.post("release", abi.pack_release, tid=tid(id, self.generation[id]), laddr=OUR_IP, faddr=PEER_IP, lport=local,
                  fport=port)  # fmt: skip

    # ---- events

    def _event(self, event) -> None:
        if isinstance(event, abi.ConnectionEvent):
            self.connection(event)
        elif isinstance(event, abi.SynReceivedEvent):
            assert event.syncache_ref not in self.half_open, "a reference comes once"
            self.half_open[event.syncache_ref] = event.lport, event.fport
        elif isinstance(event, abi.SyncacheGoneEvent):
            del self.half_open[event.syncache_ref]
        elif isinstance(event, abi.CommandDoneEvent):
            self.answered(event)
        elif isinstance(event, abi.ErrorEvent):
            assert event.code in (abi.ErrorCode.PAYLOAD_WRITE, abi.ErrorCode.PAYLOAD_READ), event

    def connection(self, event) -> None:
        id, generation = event.tid & 0xFFFF, event.tid >> 16
        assert generation == self.generation[id], "an event of an earlier life"
        state = self.state[id]
        assert state in ("stock", "open"), f"event of an id that is {state}: {event}"
        if state == "stock":
            self.of[id] = self.half_open.pop(event.syncache_ref)
            self.state[id] = "open"
        if event.terminal:
            self.state[id] = "ended"

    def answered(self, event) -> None:
        what = self.unanswered.pop(event.tag, None)
        id = event.argument & 0xFFFF
        if what == "release":
            assert event.status == abi.Status.OK, event
            assert self.state[id] == "releasing"
            self.state[id] = "free"
            self.of.pop(id, None)
        elif event.opcode == abi.Opcode.OPEN:
            assert event.status in (abi.Status.EXISTS, abi.Status.TABLE_FULL), event
            self.state[id] = "provisioned"
        elif event.opcode in (abi.Opcode.CLOSE, abi.Opcode.ABORT, abi.Opcode.SYNCACHE_DROP, abi.Opcode.READ_TCB):
            pass  # it may have ended before
        elif event.opcode == abi.Opcode.PROVISION:
            assert event.status in (abi.Status.BAD_STATE, abi.Status.BAD_ARGUMENT), event
        else:
            assert event.status == abi.Status.OK, event

    # ---- what the host does

    def act(self) -> None:
        rng = self.rng
        id = rng.randrange(self.ids)
        state, connection = self.state[id], tid(id, self.generation[id])
        what = rng.randrange(10)
        if what < 5:
            if state == "free":
                self.give(id, rng.random() < 0.7)
            elif state == "ended":
                self.back(id)
            elif state == "provisioned":
                if rng.random() < 0.3:
                    self.back(id)
                    return
                self.open_active(id, rng.choice((9000, 9001, 80)), rng.choice(TUPLE_PORTS))
            elif state == "open":
                if rng.random() < 0.5 and not self.closed[id]:
                    self.sent[id] = min(self.sent[id] + rng.choice((0, 0, 1, 700, 3000)), 1 << RING_LOG2)
                    self.doorbell(id, abi.DOORBELL_SND, self.sent[id])
                elif rng.random() < 0.5 and not self.closed[id]:
                    self.post("close", abi.pack_close, tid=connection, snd_end=self.sent[id])
                    self.closed[id] = True
                elif rng.random() < 0.5:
                    self.post("abort", abi.pack_abort, tid=connection)
        elif what == 5:
            number = rng.randrange(2)
            port = LISTEN_PORTS[number]
            if self.listening[port] and rng.random() < 0.5:
                self.post("unlisten", abi.pack_unlisten, listener=number)
                self.listening[port] = False
            elif not self.listening[port]:
                self.listen_at(number)
        elif what == 6 and self.half_open:
            reference = rng.choice(list(self.half_open)) if rng.random() < 0.7 else rng.randrange(0x10000)
            self.post("drop", abi.pack_syncache_drop, syncache_ref=reference)
        elif what == 7:
            self.post("read", abi.pack_read_tcb, tid=connection, page=rng.randrange(8))
        elif what == 8 and state in ("stock", "open"):  # refused, and nothing changed
            self.post("provision", abi.pack_provision, tid=tid(id, rng.randrange(256)), stock=1, snd_base=self.ring(id),
                      rcv_base=self.ring(id), snd_log2=RING_LOG2, rcv_log2=rng.choice((RING_LOG2, 3)))  # fmt: skip

    def listen_at(self, number: int) -> None:
        self.post("listen", abi.pack_listen, listener=number, laddr=0, lport=LISTEN_PORTS[number], mss=1460, rcv_scale=0,
                  wnd=1 << RING_LOG2)  # fmt: skip
        self.listening[LISTEN_PORTS[number]] = True

    def weather(self) -> None:
        rng = self.rng
        self.slow_line(rng.choice((0, 0, 0, 5_000, 60_000)))
        self.sim.harness.set_memory(latency=rng.choice((1, 20, 20, 2000)), stall=rng.choice((0.0, 0.3)))
        self.awake = rng.random() < 0.7
        if rng.random() < 0.2:  # a transfer of payload fails
            self.sim.harness.add_error(RINGS, RINGS + (2 * self.ids << RING_LOG2), count=1, reads=rng.random() < 0.5)
        self.sim.write32(abi.REG_TICK_CYCLES, rng.choice((20, 40, 40, 1000, 0)))

    def storm(self, events: int) -> None:
        for _ in range(events):
            what = self.rng.random()
            if what < 0.02:
                self.weather()
            elif what < 0.4:
                self.act()
            elif what < 0.8:
                self.rng.choice(list(self.tuples.values())).act()
            else:
                self.run(self.rng.choice((16, 64, 256, 1024)))
            self.flush()

    def reset(self) -> None:
        """A soft reset in the middle of everything: only the memory comes first."""
        self.sim.write32(abi.REG_CONTROL, abi.CONTROL_SOFT_RESET)
        self.slow_line(0)
        end = self.sim.harness.cycle + 100_000
        while (
            self.sim.read32(abi.REG_CONTROL) & abi.CONTROL_SOFT_RESET
            or not self.sim.read32(abi.REG_STATUS) & abi.STATUS_READY
        ):
            assert self.sim.harness.cycle < end, "the engine does not come out of reset"
            self.sim.run_cycles(64)
        self.sim.captured()
        self.start()
        self.resets += 1

    # ---- quiet

    def calm(self) -> None:
        """Good weather; peers go away; everything ends and comes back."""
        self.slow_line(0)
        self.sim.harness.set_memory(latency=20)
        self.sim.harness.clear_errors()
        self.sim.write32(abi.REG_TICK_CYCLES, 40)
        self.awake = True
        for peer in self.tuples.values():
            peer.manners, peer.over = "polite", True

        def served() -> bool:
            self.flush()
            return not self.backlog and not self.unanswered

        self.until(served, 400_000, f"every command answered: {self.unanswered}")
        for number, port in enumerate(LISTEN_PORTS):
            if self.listening[port]:
                self.post("unlisten", abi.pack_unlisten, listener=number)
                self.listening[port] = False
        self.until(served, 100_000, "UNLISTEN answered")
        self.until(lambda: not self.half_open, 20_000, f"SYNCACHE_GONE of each: {self.half_open}")

        def gone() -> bool:
            for id, state in enumerate(self.state):
                if state == "open":
                    self.post("abort", abi.pack_abort, tid=tid(id, self.generation[id]))
                    self.run(256)
                elif state in ("ended", "provisioned"):
                    self.back(id)
            self.flush()
            return not any(state in ("open", "ended", "provisioned", "releasing") for state in self.state)

        self.until(gone, 400_000, f"every id back: {self.state}")
        assert served()
        self.run(5_000)  # answers under way
        frames = self.counter(abi.Counter.TX_FRAMES)
        self.run(20_000)
        assert self.counter(abi.Counter.TX_FRAMES) == frames, "the engine goes on sending"

    def promises(self) -> None:
        """As many SYNs are answered as there are ids in stock and entries, not one more and not one less."""
        for number in range(2):
            self.listen_at(number)
        self.until(lambda: not self.unanswered, 20_000, "LISTEN")
        expected = min(self.state.count("stock"), self.config.syncache_entries)
        for port in TUPLE_PORTS:
            peer = self.tuples[80, port]
            peer.reset()
            peer.manners, peer.opened = "silent", True
            peer.send(SYN, mss=1460)
            peer.nxt = peer.iss + 1 & M
            self.run(512)
        self.run(2000)
        assert len(self.half_open) == min(expected, len(TUPLE_PORTS)), (self.half_open, self.state)
        for local, port in list(self.half_open.values()):
            peer = self.tuples[local, port]
            peer.manners, peer.over = "polite", False
            peer.send(SYN, seq=peer.iss, mss=1460)
        self.until(lambda: not self.half_open, 20_000, "a connection of each promise")
        assert self.state.count("open") == min(expected, len(TUPLE_PORTS))
        self.calm()
