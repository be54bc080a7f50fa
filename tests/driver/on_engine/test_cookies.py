"""SYN cookies through the whole engine, in native simulation: clients while SYNs from nowhere hold all entries, on a lossy line,
and what comes after a connection's end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.driver.on_engine.clients import OURS, RTO, SECOND, THEIRS, Crowd, Loss
from tests.driver.on_engine.test_handshake import lose
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.wire.segment import ACK, FIN, PSH, SYN, Segment, ip_number

M32 = 0xFFFF_FFFF


class Flooded(Crowd):
    """SYNs from nowhere, as many as there are entries, a few times a second."""

    def __init__(self, config: Any = "tiny", **driver: Any) -> None:
        self.flooding = False
        self._next = 0
        self._seen = 0
        retries = {reg.REG_RETRIES: 2 << reg.RETRIES_SYN_RETRIES_SHIFT | 12}  # those from nowhere end soon
        super().__init__(config, syn_cookies=True, registers=retries, **driver)

    def turn(self) -> None:
        if self.flooding and self.now >= self._next:
            self._next = self.now + 100
            for _ in range(4):
                self._seen += 1
                self.inject(
                    Segment(ip_number("10.0.0.9"), ip_number(OURS), 1024 + self._seen % 60000, 80,
                            self._seen * 0x9E3779B1 & M32, 0, SYN, 1000, 1460, None, b"")
                )  # fmt: skip
        super().turn()

    def begin(self) -> None:
        """All entries are taken that SYNs alone may take."""
        self.flooding, self._next = True, self.now
        self.until(lambda: len(self.sim.toe.passive.half_open) >= 3, SECOND, "the flood")


@pytest.fixture(scope="module")
def crowd() -> Iterator[Flooded]:
    """One engine for all these tests."""
    made = Flooded()
    yield made
    made.flooding = False
    made.loses = lambda ours, segment, before: False
    made.at_rest()
    made.sim.close()


CASES: dict[str, tuple[Loss, int]] = {
    "nothing": (lose(), 0),
    "syn": (lose((True, SYN, 1)), SECOND),
    "cookie": (lose((False, SYN | ACK, 1)), SECOND),
    "cookie and the entry's SYN,ACK": (lose((False, SYN | ACK, 2)), SECOND),
    "ack": (lose((True, ACK, 1)), 0),
    "both acks": (lose((True, ACK, 2)), 0),
    "data": (lose((True, ACK | PSH, 1)), 0),
    "data twice": (lose((True, ACK | PSH, 2)), RTO),
    "ack and data": (lose((True, ACK, 1), (True, ACK | PSH, 1)), RTO),
    "answer and FIN": (lose((False, ACK | PSH | FIN, 1), (False, ACK | FIN, 1)), 0),
}


@pytest.mark.parametrize("lost", CASES)
def test_a_client_gets_in_through_a_cookie(crowd: Flooded, lost: str) -> None:
    """Its data comes right behind its ACK: dropped or not, it comes again."""
    crowd.begin()
    crowd.loses, least = CASES[lost]
    before = crowd.counter("SYN_COOKIES")
    client = crowd.client(5000 + list(CASES).index(lost), closes=True)
    crowd.until(lambda: client.ended is not None, 20 * SECOND, f"{lost} lost: the answer")
    assert client.answer == b"answer to question" and not client.reset
    assert client.ws is None and crowd.counter("SYN_COOKIES") > before, "no cookie"
    assert least <= client.ticks < 2 * least + 7 * SECOND


def test_a_cookie_is_good_when_the_flood_has_ended_meanwhile(crowd: Flooded) -> None:
    """Half-open connections from nowhere have gone when the ACK comes, and a SYN would find room."""
    crowd.begin()
    crowd.loses = lambda ours, segment, before: ours and segment.flags != SYN and crowd.flooding
    client = crowd.client(5100, closes=True)
    crowd.until(lambda: client.established is not None, SECOND, "the cookie")
    assert client.ws is None
    crowd.until(lambda: client.rto > 4 * RTO, 4 * SECOND, "time-outs")
    crowd.flooding = False
    crowd.until(lambda: client.ended is not None, 20 * SECOND, "the answer")
    assert client.answer == b"answer to question" and not client.reset


def test_the_last_ack_twice_where_as_much_was_sent_as_received_makes_no_connection(crowd: Flooded) -> None:
    """A FIN came twice, both were acknowledged; SEG.ACK - SEG.SEQ is what it was in the handshake, and would be the cookie."""
    crowd.begin()
    crowd.loses = lambda ours, segment, before: False
    client = crowd.client(5200, closes=True)
    crowd.until(lambda: client.ended is not None, 20 * SECOND, "the end")
    assert client.ws is None, "no cookie"
    crowd.until(lambda: crowd.released, 20 * SECOND, "the id is back")
    iss = client.rcv_nxt - len(b"answer to question") - 2
    for length in (1, 8, 1460, 4096, 1 << 16, 1 << 24):
        resets = crowd.resets
        seq, ack = client.iss + 2 + length & M32, iss + 2 + length & M32
        crowd.inject(Segment(ip_number(THEIRS), ip_number(OURS), 5200, 80, seq, ack, ACK, 8192, 0, None, b""))
        crowd.until(lambda: crowd.resets > resets, SECOND, f"a reset, {length} bytes each way")  # noqa: B023
