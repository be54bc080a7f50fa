"""The whole engine in native simulation against a host of a few lines: registers, rings and frames, no driver.

The driver serves events as soon as they come; here a test decides when the host looks, how fast the line is, how late
memory answers.
"""

from __future__ import annotations

from collections.abc import Callable

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY, EngineConfig
from tiptoe_verif.native.simulation import Simulation
from tiptoe_verif.wire.segment import ACK, FIN, RST, SYN, Segment, ip_number, mac_number, pack_tcp, parse_tcp

OUR_IP, OUR_MAC = ip_number("10.0.0.1"), mac_number("02:00:00:00:00:01")
PEER_IP, PEER_MAC = ip_number("10.0.0.2"), mac_number("02:00:00:00:00:02")
COMMANDS, COMMANDS_LOG2 = 0x10000, 6
EVENTS = 0x20000
RINGS, RING_LOG2 = 0x100000, 14
TICK_CYCLES = 1000
STEP = 256
"""Cycles between two looks of peer and host."""


def tid(id: int, generation: int) -> int:
    return id | generation << 16


class Peer:
    """The other end of one connection: answers everything at once, sends what it is told to."""

    def __init__(self, bench: EngineBench, port: int, local: int = 80) -> None:
        self.bench, self.port, self.local = bench, port, local
        self.snd_nxt, self.rcv_nxt = 1000 * port, 0
        self.received = b""
        self.open = self.reset = self.closed = False
        bench.peers[port, local] = self

    def send(self, flags: int, payload: bytes = b"", **options: int) -> None:
        segment = Segment(PEER_IP, OUR_IP, self.port, self.local, self.snd_nxt % 2**32, self.rcv_nxt, flags, 0xFFFF,
                          options.get("mss", 0), None, payload)  # fmt: skip
        self.snd_nxt += segment.length
        header = OUR_MAC.to_bytes(6, "big") + PEER_MAC.to_bytes(6, "big") + b"\x08\x00"
        self.bench.sim.inject(header + pack_tcp(segment))

    def connect(self) -> None:
        self.send(SYN, mss=1460)

    def input(self, segment: Segment) -> None:
        if segment.flags & RST:
            self.reset = True
            return
        if segment.flags & SYN:
            self.rcv_nxt = (segment.seq + 1) % 2**32
            if not segment.flags & ACK:  # the engine opens
                self.send(SYN | ACK, mss=1460)
                self.open = True
                return
            self.open = True
        elif segment.length:
            if segment.seq == self.rcv_nxt:
                self.received += segment.payload
                self.rcv_nxt = (self.rcv_nxt + segment.length) % 2**32
                self.closed |= bool(segment.flags & FIN)
        else:
            return
        self.send(ACK)


class EngineBench:
    """One engine, its peers, and the host's rings.

    ``latest`` holds the newest CONNECTION event of each tid, ``done`` COMMAND_DONE by tag, ``errors`` ERROR events.
    ``awake`` = False: the host does not read events.
    """

    def __init__(self, config: EngineConfig = TINY, *, events_log2: int = 8, registers: dict[int, int] | None = None):
        self.sim = Simulation(config, ip="10.0.0.1", mac="02:00:00:00:00:01", attach=False, memory_bytes=1 << 22)
        self.events_log2 = events_log2
        self.peers: dict[tuple[int, int], Peer] = {}
        self.registers = registers or {}
        self.awake = True
        self.start()

    def start(self) -> None:
        """What the host does after power-up, or after a soft reset."""
        self.tail = self.consumer = self.tag = 0
        self.latest: dict[int, abi.ConnectionEvent] = {}
        self.done: dict[int, abi.CommandDoneEvent] = {}
        self.errors: list[tuple[int, int]] = []
        self.sim.memory[EVENTS : EVENTS + (abi.EVENT_BYTES << self.events_log2)] = bytes(
            abi.EVENT_BYTES << self.events_log2
        )
        for address, value in {
            abi.REG_MAC_LO: OUR_MAC & 0xFFFF_FFFF,
            abi.REG_MAC_HI: OUR_MAC >> 32,
            abi.REG_IP_ADDR: OUR_IP,
            abi.REG_TICK_CYCLES: TICK_CYCLES,
            abi.REG_MSL_TICKS: 3,
            abi.REG_COMMAND_RING_LO: COMMANDS,
            abi.REG_COMMAND_RING_LOG2: COMMANDS_LOG2,
            abi.REG_EVENT_RING_LO: EVENTS,
            abi.REG_EVENT_RING_LOG2: self.events_log2,
            **self.registers,
            abi.REG_CONTROL: abi.CONTROL_ENABLE | abi.CONTROL_RST_UNKNOWN,
        }.items():
            self.sim.write32(address, value)

    # ---- time

    def run(self, cycles: int) -> None:
        """Let time pass; peers answer, the host reads events if it is awake."""
        left = cycles
        while left > 0:
            self.sim.run_cycles(min(left, STEP))
            left -= STEP
            for frame in self.sim.captured():
                segment = parse_tcp(frame)
                peer = segment and self.peers.get((segment.dport, segment.sport))
                if peer:
                    peer.input(segment)
            if self.awake:
                self.read_events()

    def until(self, condition: Callable[[], object], cycles: int, what: str) -> None:
        """Run until the condition holds: at most so many cycles."""
        end = self.sim.harness.cycle + cycles
        while not condition():
            assert self.sim.harness.cycle < end, f"{what}: not within {cycles} cycles"
            self.run(STEP)

    def read_events(self) -> None:
        before = self.consumer
        while True:
            size = 1 << self.events_log2
            at = EVENTS + (self.consumer % size) * abi.EVENT_BYTES
            if abi.event_phase(self.sim.memory, at) == (self.consumer // size) % 2:
                break
            self._event(abi.unpack_event(self.sim.memory, at))
            self.consumer += 1
        if self.consumer != before:
            self.sim.write32(abi.REG_EVENT_CONSUMER, self.consumer)

    def _event(self, event) -> None:
        if isinstance(event, abi.ConnectionEvent):
            self.latest[event.tid] = event
        elif isinstance(event, abi.CommandDoneEvent):
            self.done[event.tag] = event
        elif isinstance(event, abi.ErrorEvent):
            self.errors.append((event.code, event.argument))

    # ---- the host

    def command(self, pack: Callable[..., bytes], **fields: int) -> int:
        """Post a command; returns its tag."""
        self.tag += 1
        at = COMMANDS + (self.tail % (1 << COMMANDS_LOG2)) * abi.COMMAND_BYTES
        self.sim.memory[at : at + abi.COMMAND_BYTES] = pack(self.tag, **fields)
        self.tail += 1
        self.sim.write32(abi.REG_COMMAND_TAIL, self.tail)
        return self.tag

    def status(self, tag: int, cycles: int, what: str) -> int:
        """Wait for a command's COMMAND_DONE."""
        self.until(lambda: tag in self.done, cycles, what)
        return self.done[tag].status

    def ring(self, id: int) -> int:
        """Where the send ring of an id, or tid, is; the receive ring follows."""
        return RINGS + (2 * (id & 0xFFFF) << RING_LOG2)

    def provision(self, id: int, generation: int, stock: int = 0) -> None:
        self.command(abi.pack_provision, tid=tid(id, generation), stock=stock, snd_base=self.ring(id),
                     rcv_base=self.ring(id) + (1 << RING_LOG2), snd_log2=RING_LOG2, rcv_log2=RING_LOG2)  # fmt: skip

    def listen(self, cycles: int = 20_000) -> None:
        tag = self.command(abi.pack_listen, listener=0, laddr=0, lport=80, mss=1460, rcv_scale=0, wnd=1 << RING_LOG2)
        assert self.status(tag, cycles, "LISTEN") == abi.Status.OK

    def open(self, id: int, generation: int, port: int, local: int) -> Peer:
        """Active open; returns its peer."""
        peer = Peer(self, port, local)
        self.command(abi.pack_open, tid=tid(id, generation), laddr=OUR_IP, faddr=PEER_IP, lport=local, fport=port,
                     dmac=PEER_MAC, use_next_hop=0, next_hop=0, mss=1460, rcv_scale=0, ecn=0,
                     faddr6_low=0, faddr6_high=0)  # fmt: skip
        return peer

    def accept(self, port: int) -> tuple[Peer, int]:
        """A passive open; returns its peer and tid."""
        known = set(self.latest)
        peer = Peer(self, port)
        peer.connect()
        self.until(lambda: set(self.latest) - known, 20_000, f"connection {port}")
        [new] = set(self.latest) - known
        return peer, new

    def write(self, connection: int, data: bytes) -> None:
        """Put data at the beginning of the send ring, ring the doorbell."""
        id = connection & 0xFFFF
        self.sim.memory[self.ring(id) : self.ring(id) + len(data)] = data
        self.doorbell(id, abi.DOORBELL_SND, len(data))

    def read(self, connection: int) -> bytes:
        """What has come since the beginning."""
        at = self.ring(connection) + (1 << RING_LOG2)
        event = self.latest[connection]
        return bytes(self.sim.memory[at : at + event.rcv_position - event.peer_closed])

    def doorbell(self, id: int, which: int, position: int) -> None:
        self.sim.write32(abi.DOORBELL_BASE + id * abi.DOORBELL_STRIDE + which, position)

    def ended(self, connection: int) -> bool:
        return connection in self.latest and bool(self.latest[connection].terminal)

    def release(self, connection: int, peer: Peer) -> int:
        return self.command(abi.pack_release, tid=connection, laddr=OUR_IP, faddr=PEER_IP, lport=peer.local,
                            fport=peer.port)  # fmt: skip

    # ---- slowness

    def slow_line(self, cycles: int) -> None:
        """A full frame of the engine's takes so long; 0: as fast as the bus."""
        self.sim.harness.set_line(tx=1538 / cycles if cycles else 0)

    def counter(self, counter: abi.Counter) -> int:
        return self.sim.read32(abi.REG_COUNTER + 4 * counter)

    def __enter__(self) -> EngineBench:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if exc[0] is None:
                self.sim.check()
        finally:
            self.sim.close()
