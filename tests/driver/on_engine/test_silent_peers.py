"""Peers that close their window, and vanish or answer for ever, on the whole engine: what they may hold, and for how long
(RFC 9293 sections 3.8.3 and 3.8.6.1). Times are in ticks of TCP's clock, which are milliseconds in name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.configs import EVERYTHING
from tests.driver.on_engine.clients import OURS, SECOND, THEIRS, Crowd
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.wire.segment import ACK, FIN, PSH, RST, SYN, Segment, ip_number

"""Sixteen ids, and as many half-open connections."""
REXMT_MAX, RTO_MAX = 3, 800
R2 = 200 + 400 + 800 + 800
"""REXMT_MAX probes after the first time-out of 200 and twice as much each time, and one more time-out for the last of them."""
PASSIVE: dict[str, Any] = {"stock": 16, "active_reserve": 0}
M = 0xFFFF_FFFF


class Attacker:
    """SYN, ACK with a window of 0 and a question; then nothing, or an ACK with window 0 for whatever comes.

    Attributes
    ----------
    answers : bool
        Whether anything is heard of it behind its question.
    wnd : int
        Its window.
    got : bytes
        What it has taken.
    reset : bool
        It was reset.
    """

    ended = None

    def __init__(self, crowd: Crowd, port: int, *, answers: bool = False) -> None:
        self.crowd, self.port, self.answers = crowd, port, answers
        self.nxt = -(port % 4) & M  # next to wrap-around
        self.rcv_nxt = 0
        self.wnd = 0
        self.got = b""
        self.fin = self.reset = self.established = False
        crowd._by_port[port] = self  # type: ignore[assignment]
        self.emit(SYN)
        self.nxt = self.nxt + 1 & M

    def emit(self, flags: int, payload: bytes = b"") -> None:
        self.crowd.inject(
            Segment(
                ip_number(THEIRS), ip_number(OURS), self.port, 80, self.nxt, self.rcv_nxt if flags & ACK else 0, flags,
                self.wnd, 1460 if flags & SYN else 0, None, payload,
            )
        )  # fmt: skip

    def take(self, segment: Segment) -> None:
        if segment.flags & RST:
            self.reset = True
        elif segment.flags & SYN and not self.established:
            self.established = True
            self.rcv_nxt = segment.seq + 1 & M
            self.emit(ACK)
            self.emit(ACK | PSH, b"question")
            self.nxt = self.nxt + 8 & M
        elif self.answers and segment.length:
            if segment.seq == self.rcv_nxt and len(segment.payload) <= self.wnd:
                self.got += segment.payload
                self.rcv_nxt = self.rcv_nxt + len(segment.payload) & M
                if segment.flags & FIN:
                    self.fin, self.rcv_nxt = True, self.rcv_nxt + 1 & M
            self.emit(ACK)


@pytest.fixture
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """Ids for passive opens only, and an R2 of two seconds."""
    registers = {
        reg.REG_RTO_INITIAL: 200,
        reg.REG_RTO_MAX: RTO_MAX,
        reg.REG_RETRIES: 2 << reg.RETRIES_SYN_RETRIES_SHIFT | REXMT_MAX << reg.RETRIES_REXMT_MAX_SHIFT,
    }
    made = Crowd(EVERYTHING, registers=registers, **PASSIVE, **getattr(request, "param", {}))
    made.until(lambda: made.sim.toe.engine.ids.stocked == 16, SECOND, "the stock")
    made.sim.run_us(5000)
    yield made
    made.sim.close()


def attacked(crowd: Crowd, *, answers: bool = False) -> list[Attacker]:
    """Twenty of them; as many as there are ids get in."""
    attackers = [Attacker(crowd, port, answers=answers) for port in range(2000, 2020)]
    crowd.until(lambda: len(crowd.sim.toe.calls.four_tuples) == 16, SECOND, "sixteen connections")
    assert not crowd.sim.toe.engine.ids.stocked and sum(attacker.established for attacker in attackers) == 16
    return attackers


def free(crowd: Crowd) -> bool:
    ids = crowd.sim.toe.engine.ids
    return ids.available + ids.stocked == len(ids.toepcbs)


def honest_client_is_served(crowd: Crowd) -> None:
    crowd.server_closes = True
    client = crowd.client(1000)
    crowd.until(lambda: client.ended is not None, 3 * SECOND, "the honest client")
    assert client.answer == b"answer to question" and not client.reset


@pytest.mark.parametrize("closes", [False, True], ids=["data_waits", "closed"])
def test_silent_attackers_lose_their_ids_after_r2(crowd: Crowd, closes: bool) -> None:
    crowd.server_closes = closes
    start = crowd.now
    attacked(crowd)
    crowd.until(lambda: free(crowd), 2 * R2, "the ids")
    assert R2 - 100 <= crowd.now - start <= R2 + 200
    assert not crowd.sim.toe.counters["orphans_reset"]
    honest_client_is_served(crowd)
    crowd.at_rest()


@pytest.mark.parametrize("crowd", [{"orphan_us": 20 * SECOND * 32}], indirect=True)
def test_closed_and_probes_answered_for_ever_the_driver_ends_it(crowd: Crowd) -> None:
    start = crowd.now
    attackers = attacked(crowd, answers=True)
    crowd.until(lambda: crowd.now - start >= 19 * SECOND, 20 * SECOND, "nineteen seconds")
    assert crowd.sim.toe.engine.ids.ring_pool.in_use == 16, "answered, so it goes on"
    crowd.until(lambda: free(crowd), 3 * SECOND, "the ids")
    assert crowd.sim.toe.counters["orphans_reset"] == 16
    crowd.until(lambda: sum(attacker.reset for attacker in attackers) >= 16, SECOND, "resets")
    honest_client_is_served(crowd)
    crowd.resets = 0
    crowd.at_rest()


@pytest.mark.parametrize("closes", [False, True], ids=["data_waits", "closed"])
def test_slow_honest_peer_that_answers_probes_for_longer_than_r2_loses_nothing(crowd: Crowd, closes: bool) -> None:
    crowd.server_closes = closes
    peer = Attacker(crowd, 2001, answers=True)
    start = crowd.now
    crowd.until(lambda: crowd.now - start >= 4 * R2, 5 * R2, "four times R2")
    assert not peer.got and not peer.reset
    peer.wnd = 4000
    peer.emit(ACK)
    crowd.until(lambda: peer.got == b"answer to question", SECOND, "the answer")
    if closes:
        crowd.until(lambda: peer.fin, SECOND, "the FIN")
    else:
        crowd.server_closes = True
    peer.emit(ACK | FIN)
    crowd.until(lambda: free(crowd), 3 * SECOND, "the id")
    assert not peer.reset
    crowd.at_rest()
