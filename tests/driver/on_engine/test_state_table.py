"""RFC 9293 section 3.10.7 through the whole engine and its driver: every state x flags x where a segment stands, and what the
user hears. The table is tests/states; a test is a row, and every cell of it that differs is told by name.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.configs import EVERYTHING
from tests.driver.races.world import LINGER_0
from tests.states import situations as table
from tests.states.oracle import RULES, UP, Connection, Segment, receive
from tests.states.situations import FLAGS, SITUATIONS, Situation
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.netinet.sockbuf import SBS_CANTRCVMORE, sbread
from tiptoe_driver.netinet.structures import sototcpcb
from tiptoe_hdl.config import EngineConfig
from tiptoe_verif.fuzz.network import OUR_MAC, THEIR_MAC, V4, V6, Network, neighbour, spoil
from tiptoe_verif.native.simulation import Simulation
from tiptoe_verif.wire import segment as wire

M32 = 0xFFFF_FFFF
STEP = 400
"""Cycles from a frame at the engine's door until the driver has looked at its event, and what it set off has left."""
BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32}
NOBODY = (
    Situation("CLOSED", "CLOSED", ()),
    Situation("LISTEN", "LISTEN", ("listen",)),
    Situation("SYN_RECEIVED, half open", "SYN_RECEIVED", ("listen", table.SYN)),
    Situation("ESTABLISHED, accepted", "ESTABLISHED", ("listen", table.SYN, Segment("A", 1, 1, table.OFFERED))),
)
FIN_TAKEN = ("CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT")
PATTERN = bytes(range(256)) * 40


class Rig:
    """The engine, its driver, and one connection at a time to a peer made of segments, over this version of IP."""

    def __init__(self, config: str | EngineConfig = "tiny", network: Network = V4) -> None:
        self.network = network
        self.mss = 1440 if network is V6 else 1460
        rings = {"snd_ring_bytes": table.WINDOW, "rcv_ring_bytes": table.WINDOW}
        timers = {
            reg.REG_RTO_INITIAL: 60000,
            reg.REG_RTO_MIN: 60000,
            reg.REG_MSL_TICKS: 60000,
            reg.REG_DELACK_TICKS: 499,
        }
        unlimited = {reg.REG_RST_LIMIT: 0xFFFF_FFFF, reg.REG_CHALLENGE_LIMIT: 0xFFFF_FFFF, reg.REG_INVALID_LIMIT: 0}
        self.sim = Simulation(
            config, ip=V4.ours, mac=OUR_MAC, memory_bytes=1 << 22,
            driver={**rings, "time_wait": "engine", "quick_ack": False, "registers": timers | unlimited}
            | ({"ipv6": f"{network.ours}/64"} if network is V6 else {}),
        )  # fmt: skip
        self.listener = self.sim.socket(network.family)
        self.listener.bind((network.ours, 80))
        self.listener.listen()
        self.sim.run_us(5000)
        self.port = 1024
        self.irs = 0
        self.begin_nothing()
        sock = self.sim.socket(network.family)  # the neighbour's address is known from here on
        sock.connect_ex((network.peers, 9))
        self.settle(10)
        sock.close()
        self.settle(10)

    def begin_nothing(self) -> None:
        """Another four-tuple, of which nobody knows."""
        self.port = self.port + 1 if self.port < 60000 else 1025
        self.irs = (self.port * 0x9E3779B1 if self.port % 3 else -(self.port % 4)) & M32
        self.iss: int | None = None
        self.sock: Any = None
        self.ours = 81
        self.sent: list[wire.Segment] = []

    def settle(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.sim.run_cycles(STEP)
            for frame in self.sim.captured():
                if (answer := neighbour(frame)) is not None:
                    self.sim.inject(answer.ljust(60, b"\0"))
                elif (segment := wire.parse_tcp(frame)) and segment.dport == self.port:
                    if segment.flags & 2:
                        self.iss, self.ours = segment.seq, segment.sport
                    self.sent.append(segment)

    def inject(self, s: Segment) -> None:
        iss = self.iss or 0
        data = PATTERN[(s.seq + ("S" in s.flags)) % 256 :][: s.length]
        packet = wire.pack_tcp(
            wire.Segment(
                self.network.number("peers"), self.network.number("ours"), self.port, self.ours, (self.irs + s.seq) & M32,
                (iss + s.ack) & M32 if "A" in s.flags else 0x12345678, sum(BITS[f] for f in s.flags), s.wnd,
                self.mss if "S" in s.flags else 0, None, data, urgent=UP if "U" in s.flags else 0,
            )
        )  # fmt: skip
        header = (
            wire.mac_number(OUR_MAC).to_bytes(6, "big") + THEIR_MAC + spoil(bytearray(packet), "").to_bytes(2, "big")
        )
        self.sim.inject((header + packet).ljust(60, b"\0"))

    # --- a row ---

    def begin(self, situation: Situation) -> Connection:
        """The situation, each step of which goes as the oracle says."""
        self.begin_nothing()
        c = Connection("CLOSED")
        for step in situation.steps:
            if isinstance(step, Segment):
                self.sent.clear()
                outcome, wrong = self.try_(c, step)
                assert not wrong, f"{situation.name}: {step}: {wrong}"
                c = outcome.connection
            elif step == "listen":
                self.ours = 80
                c = Connection("LISTEN", edge=table.WINDOW, snd_nxt=1, active=False)
            elif step == "open":
                self.sock = self.sim.socket(self.network.family)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                self.ours = self.port
                self.sock.bind((self.network.ours, self.ours))
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                assert self.sock.connect_ex((self.network.peers, self.port)) == errno.EINPROGRESS
                self.settle(2)
                assert self.iss is not None, "no SYN"
                c = Connection("SYN_SENT", snd_nxt=1, edge=table.WINDOW)
            elif step == "send":
                self.sock.send(bytes(1000))
                self.settle(2)
                c = replace(c, snd_nxt=c.snd_nxt + 1000, delayed=False)
            else:
                self.sock.shutdown(socket.SHUT_WR)
                self.settle(2)
                state = {"ESTABLISHED": "FIN_WAIT_1", "CLOSE_WAIT": "LAST_ACK"}[c.state]
                c = replace(c, state=state, snd_nxt=c.snd_nxt + 1, fin_sent=True, delayed=False)
        assert c.state == situation.state
        return c

    def try_(self, c: Connection, s: Segment) -> tuple[Any, str]:
        """A segment arrives; what the oracle says, and what differs."""
        expected = receive(c, s, "engine")
        self.settle(0)
        self.sent.clear()
        self.inject(s)
        self.settle(1 if s.length < 100 else 5)
        after, reply = expected.connection, expected.reply
        want: dict[str, Any] = {"answer": [], "state": after.state}
        if reply:
            iss = self.iss or 0
            seq = reply.seq if reply.flags == "AR" else (reply.seq + iss) & M32
            want["answer"] = [
                (sum(BITS[f] for f in reply.flags), seq, (reply.ack + self.irs) & M32 if "A" in reply.flags else 0, 0)
            ]
        got: dict[str, Any] = {
            "answer": [(x.flags, x.seq, x.ack if x.flags & 16 else 0, len(x.payload)) for x in self.sent]
        }
        if self.sock is None and c.state == "SYN_RECEIVED" and after.state in ("ESTABLISHED", "CLOSE_WAIT"):
            self.settle()
            self.sock, _ = self.listener.accept()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        got["state"] = self.state(c)
        if self.sock is not None:
            want["heard"], got["heard"] = self._should_hear(c, expected), self._heard()
            if after.state not in ("CLOSED", "SYN_SENT"):
                names = {"rcv_nxt": after.rcv_nxt, "snd_una": after.snd_una, "snd_wnd": after.snd_wnd}
                tcb = self._tcb()
                want |= names | {"rcv_up": after.rcv_up}
                got["rcv_up"] = self._rcv_up()
                got["rcv_nxt"] = self._relative(tcb["rcv_nxt"], self.irs)
                got["snd_una"] = self._relative(tcb["snd_una"], self.iss or 0)
                got["snd_wnd"] = tcb["snd_wnd"]
        wrong = "; ".join(f"{k}: {got[k]}, not {v}" for k, v in want.items() if got[k] != v)
        return expected, f"{wrong} ({expected.rfc})" if wrong else ""

    @staticmethod
    def _relative(number: int, isn: int) -> int:
        return (number - isn) & M32

    def state(self, before: Connection) -> str:
        """Of the socket; of a half-open connection whether it is there still."""
        if self.sock is not None:
            return str(sototcpcb(self.sock.so).t_state.name)
        half_open = self.sim.stack.syncache.count
        if before.state in ("CLOSED", "LISTEN"):
            return "SYN_RECEIVED" if half_open else before.state
        return "SYN_RECEIVED" if half_open else "CLOSED"

    def _tcb(self) -> dict[str, int]:
        answers: list[Any] = []
        toep = sototcpcb(self.sock.so).t_toe
        assert self.sim.toe.calls.options.read_tcb(toep, (0, 2, 3), answers.append) == 0
        self.sim.run_until(lambda: answers, 20_000, "READ_TCB")
        assert answers[0] is not None
        return dict(answers[0])

    @staticmethod
    def _should_hear(c: Connection, expected: Any) -> tuple[str, bytes]:
        """The error or end of the stream, and the data before it."""
        after = expected.connection
        fin = c.state in FIN_TAKEN or after.state in FIN_TAKEN
        data = PATTERN[1:][: max(0, after.rcv_nxt - 1 - fin)]
        if expected.hears in ("REFUSED", "PEER_RESET"):
            told, _, lost = RULES["reset"][c.state].partition(" if ")
            if told and (not lost or c.snd_una < c.snd_nxt - 1):
                return told, data
        return "end" if fin or after.state == "CLOSED" else "nothing", data

    def _heard(self) -> tuple[str, bytes]:
        so = self.sock.so
        assert so is not None
        if so.so_error:
            end = errno.errorcode[so.so_error]
        else:
            end = "end" if so.so_rcv.sb_state & SBS_CANTRCVMORE else "nothing"
        return end, sbread(so.so_rcv, 65536)  # recv stops at a mark

    def _rcv_up(self) -> int | None:
        so = self.sock.so
        return None if so.so_rcv.oobmark is None else self._relative(sototcpcb(so).rcv_up, self.irs)

    def end(self, c: Connection) -> None:
        """Nothing of it is left."""
        if self.sock is not None:
            self.sock.close()
        if c.state in ("SYN_RECEIVED", "TIME_WAIT"):
            self.inject(Segment("R", c.rcv_nxt, 0, 0))
        toe, ids = self.sim.toe, self.sim.toe.engine.ids
        self.sim.run_until(
            lambda: not toe.passive.half_open and not toe.calls.four_tuples and not ids.releasing, 50_000, "the end"
        )
        self.sim.captured()
        self.begin_nothing()


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.sim.check()
    made.sim.close()


@pytest.fixture(scope="module")
def rig_v6() -> Iterator[Rig]:
    made = Rig(EVERYTHING, V6)
    yield made
    made.sim.check()
    made.sim.close()


def fits_v6(situation: Situation) -> bool:
    """A frame carries 20 bytes less: what fills the window in three segments of IPv4 does not over IPv6."""
    return all(step.length <= 1440 for step in situation.steps if isinstance(step, Segment))


HERE = ("at RCV.NXT", "any", "one left", "overlapping", "left", "a quarter left", "in the window", "at the edge",
        "one beyond the edge", "a quarter right")  # fmt: skip


def differences(rig: Rig, situation: Situation, flags: str, *, whole: bool) -> list[str]:
    """Every cell of the row that differs. A connection serves until a segment has changed it."""
    found = []
    fresh = c = rig.begin(situation)
    for name, segment in table.segments(c, flags, whole=whole):
        if not whole and not any(f"seq {place}," in name for place in HERE):
            continue
        if c is None:
            c = rig.begin(situation)
        outcome, wrong = rig.try_(c, segment)
        if wrong:
            found.append(f"{name}: {wrong}")
        if wrong or outcome.connection != fresh or outcome.restarts:
            rig.end(outcome.connection)
            c = None
    if c is not None:
        rig.end(c)
    return found


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: flags or "none")
@pytest.mark.parametrize("situation", NOBODY + SITUATIONS, ids=lambda situation: situation.name.replace(" ", "_"))
def test_segment_arrives(rig: Rig, situation: Situation, flags: str) -> None:
    found = differences(rig, situation, flags, whole=False)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("flags", [flags for flags in FLAGS if flags in ("", "A", "S", "SA", "R", "RA", "FA", "PA")])
@pytest.mark.parametrize(
    "situation", [*filter(fits_v6, NOBODY + SITUATIONS)], ids=lambda situation: situation.name.replace(" ", "_")
)
def test_segment_arrives_over_ipv6(rig_v6: Rig, situation: Situation, flags: str) -> None:
    """The same cells in frames of IPv6: nothing behind the parser knows of it, and so no rule may."""
    found = differences(rig_v6, situation, flags, whole=False)
    assert not found, "\n".join(found)


@pytest.mark.soak
@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: flags or "none")
@pytest.mark.parametrize("situation", NOBODY + SITUATIONS, ids=lambda situation: situation.name.replace(" ", "_"))
def test_segment_arrives_every_number_with_every_other(rig: Rig, situation: Situation, flags: str) -> None:
    found = differences(rig, situation, flags, whole=True)
    assert not found, "\n".join(found)
