"""One engine with its driver, ten peers without manners (four of them over IPv6, if the engine has it), a host that does as the
steps say, and a bystander.

What must hold after every step: the wire monitor's rules, the bus rules, the driver's counters of faults, every delivered and
every sent byte. What must hold when it is quiet: the bystander is served, every id and half-open connection is back, and the
engine is silent.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_driver.netinet.structures import INP_IPV6, sototcpcb
from tiptoe_hdl.config import CONFIGS, EngineConfig

from ..native.device import driver_faults
from ..native.simulation import Simulation
from ..wire.segment import SYN, Malformed, Segment, pack_tcp, parse_tcp
from .bystander import Bystander
from .network import OUR_MAC, THEIR_MAC, V4, V6, Network, neighbour, spoil
from .peer import IN, OUT, SIZE, Broken, Peer
from .steps import OVER_V6, SLOTS, Act, Flood, Frame, Polite, Step, Wait, Weather

BYSTANDER = (9999, 7)
LISTENERS = (80, 81)
"""Of both versions each, if there are both: a socket of both, and two sockets."""
BETWEEN = 150
"""Cycles of a step of the peer's or the host's."""
QUIET_AFTER, QUIET_FOR = 10_000, 30_000
"""Cycles after the last connection's end until it must be silent, and for which."""
PATIENCE = 600_000
"""Cycles within which what must come comes."""
_RESET = struct.pack("ii", 1, 0)
_GONE = (
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.EINVAL,
)
_TOS = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
}
_TIMERS = {
    abi.REG_RTO_INITIAL: 100, abi.REG_RTO_MIN: 50, abi.REG_RTO_MAX: 400, abi.REG_MSL_TICKS: 50, abi.REG_DELACK_TICKS: 4,
    abi.REG_RETRIES: 2 << abi.RETRIES_SYN_RETRIES_SHIFT | 3 << abi.RETRIES_REXMT_MAX_SHIFT,
}  # fmt: skip
"""In ticks of 40 cycles: all of TCP's times pass within a few hundred steps."""


def choose_options(rng: random.Random, cookies: bool) -> dict[str, Any]:
    """The driver's options of a run, within what it allows: rings, limits, who keeps TIME_WAIT, ids in stock."""
    rings = rng.choice((4096, 4096, 16_384))
    registers = {
        abi.REG_RST_LIMIT: rng.choice((100 << 16 | 1, 0, 1 << 16, 1 << 16 | 1, 0xFFFF_FFFF)),
        abi.REG_CHALLENGE_LIMIT: rng.choice((100 << 16 | 1, 0, 1 << 16 | 1, 0xFFFF_FFFF)),
        abi.REG_INVALID_LIMIT: rng.choice((500, 0, 1, 50, 65_535)),
    }
    return {
        "snd_ring_bytes": rings, "rcv_ring_bytes": rings, "frame_slots": rng.choice((16, 16, 4)), "frame_buffers": 8,
        "arp_retry_us": 20_000, "fin_wait_2_us": 20_000, "orphan_us": 20_000,
        "syn_cookies": cookies, "stock": rng.choice((None, 1, 2, 4)),
        "active_reserve": rng.choice((None, 4)), "sack": rng.random() < 0.8,
        "ecn": rng.choice(("accept", "offer", "offer", "off")),
        "timestamps": rng.random() < 0.8,
        "time_wait": rng.choice(("shared", "shared", "engine")),
        "registers": _TIMERS | registers,
    }  # fmt: skip


class Connection:
    """A socket of the host's at a slot."""

    def __init__(self, sock: Any, starts: set[int]) -> None:
        self.sock, self.sent = sock, 0
        self.starts, self.received = starts, 0
        self.shut = False

    def got(self, data: bytes) -> None:
        """Data has been delivered: it is what stands at its sequence numbers, from one of the peer's SYNs on."""
        self.starts = {
            start for start in self.starts
            if IN[(at := (start + self.received) % SIZE) : at + len(data)] == data
        }  # fmt: skip
        self.received += len(data)
        if not self.starts:
            raise Broken(f"other bytes were delivered than the peer has sent, {self.received} bytes after its SYN")


class World:
    """Everything of one run; the same seed and steps give the same run.

    Parameters
    ----------
    config : str or EngineConfig
        Of the engine.
    seed : int
        Of the engine's keys, the peers' numbers and the rings' sizes.
    pcap : Path, optional
        Capture.
    cookies : bool
        The engine sends SYN cookies.

    Attributes
    ----------
    frames, sent_frames : int
        Given to the engine, and TCP segments that came of it.
    opened, delivered : int
        Connections that the host had, the bystander's aside, and bytes that it took from them.
    """

    def __init__(self, config: str | EngineConfig, seed: int, pcap: Path | None = None, cookies: bool = False) -> None:
        rng = self._rng = random.Random(f"fuzz world {seed}")
        cfg = CONFIGS[config] if isinstance(config, str) else config
        self._versions = (V4, V6) if cfg.ipv6 else (V4,)
        self.sim = Simulation(
            config, ip=V4.ours, mac=OUR_MAC, tick_us=max(40, cfg.connections), seed=seed, pcap=pcap, memory_bytes=1 << 22,
            driver=choose_options(rng, cookies) | ({"ipv6": f"{V6.ours}/64"} if cfg.ipv6 else {}),
        )  # fmt: skip
        self.peers = [
            Peer(slot, random.Random(f"fuzz {seed} {slot}"), 7000 + slot if slot % 2 else 40_000 + slot,
                 50_000 + slot if slot % 2 else LISTENERS[slot // 2 % 2],
                 (self._network(slot).number("peers"), self._network(slot).number("ours")))
            for slot in range(SLOTS)
        ]  # fmt: skip
        self._by_ports = {(peer.our_port, peer.engine_port): peer for peer in self.peers}
        self.connections: dict[int, Connection] = {}
        addresses = V4.number("peers"), V4.number("ours")
        self.bystander = Bystander(lambda segment: self.inject(pack_tcp(segment)), rng, BYSTANDER, addresses)
        self._echoing: list[tuple[Any, bytearray]] = []
        self.frames = self.sent_frames = self.opened = self.delivered = 0
        self._echo_listener = self._listen(BYSTANDER[1], V4)
        self._listeners: list[Any] = []
        self.sim.tasks.append(self._serve)
        self.sim.run_cycles(2000)  # until it listens
        self._begin()
        self.serve_bystander()

    def _network(self, slot: int) -> Network:
        """Of a slot's connection."""
        return V6 if V6 in self._versions and slot in OVER_V6 else V4

    def close(self) -> None:
        """End it."""
        self.sim.close()

    # --- steps ---

    def do(self, step: Step) -> None:
        """Carry out a step; any exception is a finding."""
        if isinstance(step, Wait):
            self.run(step.cycles)
            return
        if isinstance(step, Weather):
            self._weather(step)
            return
        if isinstance(step, Flood):
            self._flood(step)
            return
        peer = self.peers[step.slot]
        if isinstance(step, Act):
            self._act(peer, step)
        elif isinstance(step, Polite):
            made = peer.polite(step.amount)
            if made is not None:
                self.inject(pack_tcp(made[0], options=made[1]))
        else:
            self._frame(peer, step)
        self.run(BETWEEN)

    def _frame(self, peer: Peer, step: Frame) -> None:
        segment, options = peer.frame(step)
        if step.source:
            source = self._network(peer.slot).number(step.source)
            segment = Segment(
                source, segment.dst, segment.sport, segment.dport, segment.seq, segment.ack, segment.flags,
                segment.wnd, 0, None, segment.payload,
            )  # fmt: skip
        packet = bytearray(pack_tcp(replace(segment, urgent=step.urgent), options=options))
        kind = spoil(packet, step.damage)
        self.inject(bytes(packet), kind, error=step.damage == "mac error")

    def _flood(self, step: Flood) -> None:
        for _ in range(step.count):
            sport, seq = self._rng.randrange(1024, 40_000), self._rng.randrange(1 << 32)
            lport = LISTENERS[step.listener]
            network = V4 if len(self._versions) == 1 else self._rng.choice(self._versions)
            stranger, ours = network.number("stranger"), network.number("ours")
            if network is V6:
                stranger += self._rng.randrange(1 << 63) << 1
            self.inject(pack_tcp(Segment(stranger, ours, sport, lport, seq, 0, SYN, 1000, 1440, None, b"")))
        self.run(BETWEEN)

    def _act(self, peer: Peer, step: Act) -> None:
        made = self.connections.get(peer.slot)
        if made is None:
            if peer.slot % 2 and step.what == "open":
                self._open(peer)
            return
        try:
            match step.what:
                case "send" if not made.shut:
                    data = OUT[(at := made.sent % SIZE) : at + 1 + step.amount % 3000]
                    made.sent += made.sock.send(data, socket.MSG_OOB if step.amount % 16 == 15 else 0)
                case "receive":
                    data = made.sock.recv(1 + step.amount % 5000)
                    made.got(data)
                    self.delivered += len(data)
                    if not data and step.amount % 2:
                        self._end(peer)
                case "shutdown" if step.amount % 4 == 0:
                    made.sock.shutdown(socket.SHUT_WR)
                    made.shut = True
                case "close" if step.amount % 4 == 0:
                    self._end(peer)
                case "abort" if step.amount % 4 == 0:
                    made.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    self._end(peer)
                case "keepalive":
                    made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
                    made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
                    made.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, step.amount % 4)
                    if made.sock.so is not None and (tp := sototcpcb(made.sock.so)).tod is not None:
                        tp.tod.tod_keepalive(tp)  # seconds are long here
                case "options":
                    made.sock.setsockopt(*_TOS[made.sock.family], step.amount & 0xFC)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._end(peer)

    def _open(self, peer: Peer) -> None:
        network = self._network(peer.slot)
        sock = self.sim.socket(network.family)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((network.ours, peer.engine_port))
            error = sock.connect_ex((network.peers, peer.our_port))
        except OSError as refusal:
            error = refusal.errno or 0
        if error != errno.EINPROGRESS:  # in TIME_WAIT, or no id
            sock.close()
            return
        if peer.over or peer.open:
            peer.begin()
        self._has(peer, Connection(sock, set()))

    def _has(self, peer: Peer, made: Connection) -> None:
        made.sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # every byte is looked at
        self.connections[peer.slot] = made
        self.opened += 1

    def _end(self, peer: Peer) -> None:
        made = self.connections.pop(peer.slot)
        made.sock.close()

    def _weather(self, step: Weather) -> None:
        self.sim.harness.set_memory(latency=step.latency, stall=step.memory)
        self.sim.harness.set_stalls(rx=step.line / 2, tx=step.line)

    # --- time and frames ---

    def inject(self, packet: bytes, kind: int | None = None, *, error: bool = False) -> None:
        """Give the engine a packet of the peers', of the ethertype that it has or that is given."""
        if kind is None:
            kind = spoil(bytearray(packet), "")
        header = self.sim.mac.to_bytes(6, "big") + THEIR_MAC + kind.to_bytes(2, "big")
        self.sim.inject((header + packet).ljust(60, b"\0"), error=error)
        self.frames += 1

    def run(self, cycles: int) -> None:
        """Let time pass; what the engine sends reaches the peers, and the driver's counters are looked at."""
        while cycles > 0:
            self.sim.run_cycles(min(cycles, 256))
            cycles -= 256
            for frame in self.sim.captured():
                self._from_engine(frame)
            self.bystander.turn(self.sim.harness.cycle)
        if bad := driver_faults(self.sim.toe.counters):
            raise Broken(f"the driver counts {bad}")

    def _from_engine(self, frame: bytes) -> None:
        if (answer := neighbour(frame)) is not None:
            self.sim.inject(answer.ljust(60, b"\0"))
            return
        with contextlib.suppress(Malformed):
            segment = parse_tcp(frame)
            if segment is None:
                return
            self.sent_frames += 1
            if (segment.dport, segment.sport) == BYSTANDER:
                self.bystander.input(segment)
            elif (peer := self._by_ports.get((segment.dport, segment.sport))) is not None and segment.dst == peer.ip:
                peer.input(segment)

    # --- the host ---

    def _listen(self, port: int, network: Network | None = None) -> Any:
        """At the network's address; without, for both versions."""
        made = self.sim.socket(socket.AF_INET6 if network is None else network.family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT of the round before may still be there
        if network is None:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::" if network is None else network.ours, port))
        made.listen(16)
        return made

    def _begin(self) -> None:
        first = None if V6 in self._versions else V4
        self._listeners = [self._listen(LISTENERS[0], first)]
        self._listeners += [self._listen(LISTENERS[1], version) for version in self._versions]
        self.run(2000)

    def _serve(self) -> None:
        """The listeners' and the bystander's part of the host."""
        while self._echo_listener.readable():
            sock, _ = self._echo_listener.accept()
            sock.setblocking(False)
            self._echoing.append((sock, bytearray()))
        for sock, waiting in self._echoing:
            with contextlib.suppress(BlockingIOError):
                if len(waiting) < 4096 and sock.readable():
                    waiting += sock.recv(4096)
                if waiting:
                    del waiting[: sock.send(waiting)]
        for listener in self._listeners:
            while listener.readable():
                try:
                    sock, (_, port, *_) = listener.accept()
                except OSError:
                    break
                sock.setblocking(False)
                peer = self._by_ports.get((port, listener.getsockname()[1]))
                if peer is None or (peer.ip >> 32 != 0) != (sock.so.so_pcb.inp_vflag == INP_IPV6):
                    sock.close()
                    continue
                if peer.slot in self.connections:
                    self._end(peer)
                self._has(peer, Connection(sock, {syn + 1 for syn in peer.syns}))
        for slot, made in self.connections.items():
            if slot % 2 and not made.received:  # its SYN may come yet
                made.starts = {syn + 1 for syn in self.peers[slot].syns}

    # --- when it is quiet ---

    def serve_bystander(self) -> None:
        """2000 bytes more pass, from now on."""
        wanted = self.bystander.echoed + 2000
        self._until(lambda: self.bystander.echoed >= wanted, "2000 bytes more of the bystander")

    def calm(self) -> None:
        """Fine weather; peers and host part; everything comes back; silence. Then listen again."""
        self._weather(Weather(20, 0.0, 0.0))
        self.serve_bystander()
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        for peer in self.peers:
            if peer.slot in self.connections:
                with contextlib.suppress(OSError):
                    self.connections[peer.slot].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._end(peer)
            peer.over = True
        ids = self.sim.toe.engine.ids
        total, kept = self.sim.toe.engine.capabilities.connections, len(self._echoing)
        self._until(
            lambda: ids.available + ids.stocked == total - kept and not self.sim.toe.passive.half_open,
            f"every id back ({total} less {kept})", lambda: f"{ids.available} free, {ids.stocked} in stock",
        )  # fmt: skip
        self.bystander.pause = True
        self._until(lambda: self.bystander.idle, "the bystander's last echo")
        self.run(QUIET_AFTER)
        before = self.sent_frames
        self.run(QUIET_FOR)
        if self.sent_frames != before:
            raise Broken(f"the engine goes on sending: {self.sent_frames - before} segments after the end of all")
        self.bystander.pause = False
        self._begin()

    def _until(self, condition: Any, what: str, state: Any = lambda: "") -> None:
        end = self.sim.harness.cycle + PATIENCE
        while not condition():
            if self.sim.harness.cycle > end:
                raise Broken(f"{what}: not within {PATIENCE} cycles; {state()}")
            self.run(256)
