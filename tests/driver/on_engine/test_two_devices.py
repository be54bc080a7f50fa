"""Two engines on one stack, each on a line of its own to a peer engine: contract rows LSN-1, CONN-1, and devices that
stop, restart or go in the midst of transfers."""

from __future__ import annotations

import errno
import hashlib
import random
import socket
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tiptoe_driver import DeviceState, EngineOptions, Socket, Stack, Tiptoe
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.gate import ALL_ONES
from tiptoe_driver.netinet.if_var import IFCAP_TOE
from tiptoe_driver.netinet.offload import if_setcap
from tiptoe_verif.native.simulation import Simulation, Wire

IPS = "10.0.0.1", "10.0.1.1"
PEERS = "10.0.0.2", "10.0.1.2"
OPTIONS = {"snd_ring_bytes": 4096, "rcv_ring_bytes": 4096, "arp_retry_us": 20_000}
TICK = 1000


class Card:
    """A simulated engine behind a slot: once ``pulled``, reads are all ones and writes go nowhere."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.memory = sim.memory
        self.pulled = False
        self.touched = 0

    def write32(self, address: int, value: int) -> None:
        self.touched += self.pulled
        if not self.pulled:
            self.sim.write32(address, value)

    def read32(self, address: int) -> int:
        self.touched += self.pulled
        return ALL_ONES if self.pulled else self.sim.read32(address)

    def now_us(self) -> int:
        return self.sim.now_us()

    def wait(self, timeout_us: int | None) -> bool:
        return self.sim.wait(timeout_us) and not self.pulled


class Lines:
    """The host's stack with its two engines, and their peers. ``together``: all engines share one simulated time."""

    def __init__(self, out_dir, together: bool = True) -> None:
        self.stack = Stack(seed=1)
        self.sims: list[Simulation] = []
        self.peers: list[Simulation] = []
        self.cards: list[Card] = []
        self.toes: list[Tiptoe] = []
        for n in range(2):
            common = {"memory_bytes": 1 << 22, "tick_us": TICK}
            sim = Simulation(
                "tiny",
                ip=IPS[n],
                mac=f"02:00:00:00:0{n}:01",
                seed=2 * n + 1,
                attach=False,
                pcap=out_dir / f"line{n}.pcap",
                **common,
            )
            peer = Simulation("tiny", ip=PEERS[n], mac=f"02:00:00:00:0{n}:02", seed=2 * n + 2, driver=OPTIONS, **common)
            Wire(sim, peer)
            if together and n:
                self.sims[0].world.join(sim.world)
            card = Card(sim)
            options = EngineOptions(seed=n, registers={reg.REG_TICK_CYCLES: TICK, reg.REG_MSL_TICKS: 3}, **OPTIONS)
            toe = Tiptoe(
                self.stack, card, name=f"tiptoe{n}", address=IPS[n] + "/24", mac=f"02:00:00:00:0{n}:01", options=options
            )
            sim.stack, sim.toe = self.stack, toe
            self.sims.append(sim)
            self.peers.append(peer)
            self.cards.append(card)
            self.toes.append(toe)

    def socket(self) -> Socket:
        sock = Socket(self.stack)
        sock.setblocking(False)
        return sock

    def run_until(self, condition: Callable[[], object], what: str, timeout_us: float = 20_000_000) -> None:
        self.sims[0].run_until(condition, timeout_us, what)

    def served(self, n: int, port: int) -> Socket:
        """A listener on peer ``n``."""
        listener = self.peers[n].socket()
        listener.bind(("", port))
        listener.listen()
        return listener

    def opened(self, n: int, listener: Socket, port: int) -> tuple[Socket, Socket]:
        """An active open of the host to peer ``n``: the host's end, the peer's end."""
        here = self.socket()
        assert here.connect_ex((PEERS[n], port)) == errno.EINPROGRESS
        self.run_until(lambda: here.writable() and listener.readable(), f"connection to peer {n}")
        assert here.getsockname()[0] == IPS[n]
        return here, accepted(listener)

    def dialled(self, n: int, listener: Socket, port: int) -> tuple[Socket, Socket]:
        """A connection that peer ``n`` opens to the host's ``listener``: the host's end, the peer's end."""
        there = self.peers[n].socket()
        there.connect_ex((IPS[n], port))
        self.run_until(lambda: there.writable() and listener.readable(), f"connection from peer {n}")
        return accepted(listener), there

    def check(self) -> None:
        for sim in (*self.sims, *self.peers):
            sim.check()

    def close(self) -> None:
        for sim in (*self.sims, *self.peers):
            sim.close()


def accepted(listener: Socket) -> Socket:
    sock, _ = listener.accept()
    sock.setblocking(False)
    return sock


@pytest.fixture
def lines(out_dir) -> Iterator[Lines]:
    made = Lines(out_dir)
    try:
        yield made
        made.check()
    finally:
        made.close()


class Transfer:
    """``size`` random bytes each way between two sockets, then the end of both streams."""

    def __init__(self, ends: tuple[Socket, Socket], rng: random.Random, size: int) -> None:
        self.ends = ends
        self.data = [rng.randbytes(size) for _ in ends]
        self.left = [memoryview(data) for data in self.data]
        self.digests = [hashlib.sha256(), hashlib.sha256()]
        self.got = [0, 0]
        self.ended = [False, False]

    def turn(self) -> bool:
        """Send and receive what goes now; whether everything has arrived."""
        for n, sock in enumerate(self.ends):
            try:
                if self.left[n]:
                    self.left[n] = self.left[n][sock.send(self.left[n]) :]
                    if not self.left[n]:
                        sock.shutdown(socket.SHUT_WR)
            except BlockingIOError:
                pass
            while not self.ended[n] and sock.readable():
                data = sock.recv(1 << 16)
                self.digests[n].update(data)
                self.got[n] += len(data)
                self.ended[n] = not data
        return all(self.ended)

    @staticmethod
    def turns(*transfers: Transfer) -> bool:
        """A turn of each; whether all are complete."""
        return sum(transfer.turn() for transfer in transfers) == len(transfers)

    def arrived(self) -> bool:
        """Whether each side has exactly what the other sent."""
        return all(
            digest.digest() == hashlib.sha256(data).digest()
            for digest, data in zip(self.digests, reversed(self.data), strict=True)
        )


def test_lsn_1_and_conn_1_data_on_both_lines_at_once(lines: Lines, rng: random.Random) -> None:
    """Accepted from both by one listener, and opened to both: four connections, each by its own engine."""
    listener = lines.socket()
    listener.bind(("", 80))
    listener.listen()
    servers = [lines.served(n, 81) for n in range(2)]
    transfers = [Transfer(lines.dialled(n, listener, 80), rng, 12_000) for n in range(2)]
    transfers += [Transfer(lines.opened(n, servers[n], 81), rng, 12_000) for n in range(2)]
    lines.run_until(lambda: Transfer.turns(*transfers), "four transfers")
    assert all(transfer.arrived() for transfer in transfers)
    assert [transfer.ends[0].getsockname()[0] for transfer in transfers] == [*IPS, *IPS]
    for toe in lines.toes:
        assert len(toe.calls.four_tuples) == 2 and not {k: v for k, v in toe.counters.items() if v}


def one_side_only(lines: Lines, rng: random.Random, listener: Socket) -> tuple[Transfer, Transfer]:
    """Transfers under way on both lines."""
    first, second = (Transfer(lines.dialled(n, listener, 80), rng, 60_000) for n in range(2))
    lines.run_until(lambda: first.turn() + second.turn() or min(first.got + second.got) > 5000, "half way")
    return first, second


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("way", ["detach", "pull"])
def test_conn_1_removed_in_mid_transfer(lines: Lines, rng: random.Random, way: str, n: int) -> None:
    listener = lines.socket()
    listener.bind(("", 80))
    listener.listen()
    transfers = one_side_only(lines, rng, listener)
    lost, kept = transfers[n], transfers[1 - n]
    sock = lost.ends[0]
    lines.sims[n].run_us(20_000)  # data arrives that nobody has read yet
    before = lines.stack.now_us()
    if way == "detach":
        lines.toes[n].detach()
        lines.cards[n].pulled = True  # from here on nobody may touch it
    else:
        lines.cards[n].pulled = True
        lines.sims[n].harness.set_line(rx=1e-6, tx=1e-6)  # it is on no line: what it would repeat nobody hears
        assert not lines.toes[n].alive()
        lines.cards[n].touched = 0
    assert lines.toes[n].state is DeviceState.REMOVED and before <= lines.stack.now_us()
    waiting = sock.so.so_rcv.sb_cc if sock.so is not None else 0
    lines.cards[n].memory[:] = bytes(len(lines.cards[n].memory))  # the memory has another use now
    expected = lost.data[1][lost.got[0] : lost.got[0] + waiting]
    assert sock.recv(1 << 16) == expected and waiting
    with pytest.raises(ConnectionAbortedError):
        sock.recv(1)
    with pytest.raises(BrokenPipeError):
        sock.send(b"x")
    sock.close()
    lines.run_until(kept.turn, "the other device's transfer")
    assert kept.arrived()
    assert lines.socket().connect_ex((PEERS[n], 80)) == errno.ENETUNREACH
    again = Transfer(lines.dialled(1 - n, listener, 80), rng, 5000)
    lines.run_until(again.turn, "a new connection on the other device")
    assert again.arrived() and lines.cards[n].touched == 0
    if way == "detach":
        sent = lines.sims[n].counters()["tx_frames"]
        lines.sims[n].run_us(250_000)  # its peer goes on sending, the engine is off
        assert lines.sims[n].counters()["tx_frames"] == sent


def reset_seen(sock: Socket) -> bool:
    """Whether the connection has ended with a RST."""
    try:
        while sock.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    raise AssertionError("an orderly end")


@pytest.mark.parametrize("way", ["stop", "restart", "reset"])
def test_conn_1_stopped_in_mid_transfer_and_up_again(lines: Lines, rng: random.Random, way: str) -> None:
    listener = lines.socket()
    listener.bind(("", 80))
    listener.listen()
    lost, kept = one_side_only(lines, rng, listener)
    toe = lines.toes[0]
    here, there = lost.ends
    if way == "stop":
        before = lines.stack.now_us()
        toe.stop()
        assert lines.stack.now_us() - before < 50_000  # as long as it takes, not as long as it may
        assert lines.socket().connect_ex((PEERS[0], 80)) == errno.ENETDOWN
        lines.run_until(lambda: reset_seen(there), "the RST", 20_000)  # the engine is off: stop has sent it
        lines.run_until(kept.turn, "the other device's transfer")
        toe.restart()
    else:
        getattr(toe, way)()
    assert here.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED
    assert toe.engine.free_ids + toe.engine.ids.stocked == toe.engine.capabilities.connections
    here.close()
    if way != "stop":  # at the latest, the engine answers the peer's next segment
        lines.run_until(lambda: reset_seen(there), "the peer sees the reset", 3_000_000)
    server = lines.served(0, 81)
    transfers = [
        Transfer(lines.dialled(0, listener, 80), rng, 12_000),
        Transfer(lines.opened(0, server, 81), rng, 12_000),
    ]
    lines.run_until(lambda: Transfer.turns(kept, *transfers), "both devices' transfers")
    assert kept.arrived() and all(transfer.arrived() for transfer in transfers)
    assert not {name: count for name, count in toe.counters.items() if count}


def test_blocking_calls_on_two_devices_whose_clocks_are_apart(out_dir) -> None:
    """Each engine's time passes only while it is waited for: blocking calls serve both."""
    lines = Lines(out_dir, together=False)
    try:
        for n in (0, 1, 0):
            server = lines.peers[n].socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("", 7))
            server.listen()
            ends: list[Socket] = []

            def echo(server: Socket = server, ends: list[Socket] = ends) -> None:
                if server.readable():
                    ends.append(accepted(server))
                for end in ends:
                    if end.readable():
                        end.send(end.recv(4096))

            lines.peers[n].tasks.append(echo)
            client = Socket(lines.stack)
            client.settimeout(5)
            client.connect((PEERS[n], 7))
            client.sendall(b"both ways")
            assert client.recv(100) == b"both ways"
            client.settimeout(0.02)
            before = [sim.now_us() for sim in lines.sims]
            with pytest.raises(TimeoutError):
                client.recv(1)
            for sim, time in zip(lines.sims, before, strict=True):
                assert 19_000 <= sim.now_us() - time <= 22_000
            lines.peers[n].tasks.clear()
            server.close()
        lines.check()
    finally:
        lines.close()


def test_cap_1_syn_is_handed_to_the_host_while_switched_off() -> None:
    """With a stack beside it (rst_unknown off), a SYN that the device should not take is the host's, unanswered."""
    with Simulation("tiny", ip=IPS[0], driver={**OPTIONS, "rst_unknown": False}) as sim:
        listener = sim.socket()
        listener.bind(("", 80))
        listener.listen()
        taken: list[bytes] = []
        sim.toe.hostif.input_hook = lambda frame: bool(taken.append(frame)) or True

        def syn(sport: int) -> tuple[list[TCP], int]:
            """TCP segments sent within 20 ms of a SYN, and frames that reached the host."""
            taken.clear()
            sim.captured()
            sim.inject(
                bytes(
                    Ether(dst=sim.toe.tod_ifp.if_lladdr.to_bytes(6).hex(":"), src="02:00:00:00:00:09")
                    / IP(src=PEERS[0], dst=IPS[0])
                    / TCP(sport=sport, dport=80, flags="S", seq=1)
                )
            )
            sim.run_us(20_000)
            frames = [Ether(frame) for frame in sim.captured()]
            return [frame[TCP] for frame in frames if TCP in frame], len(taken)

        for port, capenable in ((5000, IFCAP_TOE), (5001, 0), (5002, IFCAP_TOE)):
            assert if_setcap(sim.toe.tod_ifp, capenable) == 0
            sim.run_us(5_000)
            sent, to_host = syn(port)
            if capenable:
                assert [str(segment.flags) for segment in sent] == ["SA"] and not to_host
            else:
                assert not sent and to_host == 1
        sim.check()
