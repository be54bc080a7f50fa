"""Honest peers that need an ACK which is limited (RFC 5961 sections 4 and 7): on the whole engine, with its default limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.driver.on_engine.clients import OURS, SECOND, THEIRS, Client, Crowd
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.wire.segment import ACK, FIN, PSH, RST, SYN, Segment, ip_number, parse_tcp

M32 = 0xFFFF_FFFF
INTERVAL = 500
"""INVALID_LIMIT, by default."""


class Told(Crowd):
    """Keeps what the engine has sent."""

    def __init__(self, **driver: object) -> None:
        self.sent: list[tuple[int, Segment]] = []
        super().__init__("tiny", **driver)
        captured = self.sim.captured

        def kept() -> list[bytes]:
            frames = captured()
            self.sent += [(self.now, segment) for frame in frames if (segment := parse_tcp(frame)) is not None]
            return frames

        self.sim.captured = kept  # type: ignore[method-assign]
        self.server_closes = False

    def answers(self, port: int, since: int = 0) -> list[Segment]:
        return [segment for when, segment in self.sent if segment.dport == port and when >= since]

    def pause(self, ticks: int) -> None:
        end = self.now + ticks
        self.until(lambda: self.now >= end, ticks + 10, "time")

    def established(self, ports: range) -> list[Client]:
        made = [self.client(port) for port in ports]
        self.until(lambda: all(each.answer and each.una == each.nxt for each in made), 20 * SECOND, "established")
        self.pause(INTERVAL + 50)
        for each in made:  # their habits end here: what they say from now on is the test's
            self.under_way.pop(each.port)
            self._by_port.pop(each.port)
        return made

    def say(self, client: Client, flags: int, seq: int, payload: bytes = b"", ack: int | None = None) -> None:
        ack = (client.rcv_nxt if ack is None else ack) if flags & ACK else 0
        self.inject(
            Segment(ip_number(THEIRS), ip_number(OURS), client.port, 80, seq & M32, ack, flags, 8192,
                    1460 if flags & SYN else 0, None, payload)
        )  # fmt: skip

    def ask(self, client: Client, flags: int, seq: int, payload: bytes = b"", ack: int | None = None) -> list[Segment]:
        """Say it; what comes within a few ticks."""
        before = len(self.sent)
        self.say(client, flags, seq, payload, ack)
        self.pause(10)
        return [segment for _, segment in self.sent[before:] if segment.dport == client.port]

    def end(self, clients: list[Client]) -> None:
        for client in clients:
            self.say(client, RST, client.nxt)
        self.until(lambda: self.released, 10 * SECOND, "the end")


@pytest.fixture(scope="module")
def crowd() -> Iterator[Told]:
    """One engine for all these tests."""
    made = Told()
    yield made
    made.at_rest()
    made.sim.close()


@pytest.mark.parametrize("before", ["nothing", "an old ACK was answered"])
def test_a_peer_that_has_rebooted_gets_in_with_its_second_syn_at_most(crowd: Told, before: str) -> None:
    """Its SYN draws a challenge ACK, its RST ends what it has forgotten, its SYN comes again (RFC 5961 section 4.2)."""
    (client,) = crowd.established(range(6000, 6001))
    said = before != "nothing"
    if said:
        assert crowd.ask(client, ACK, client.nxt - 100)
    again = crowd.client(6000)
    again.iss = (
        client.nxt + (1 << 30) & M32
    )  # it has taken the place of the first SYN, too: that is one left of the window
    crowd.until(lambda: bool(again.answer), 10 * SECOND, "the answer")
    assert again.syns <= 2 + said and not again.reset
    crowd.established(range(0))
    crowd.end([again])
    crowd.under_way.clear()


def test_all_peers_reboot_at_once_for_whom_tokens_are_too_few(crowd: Told) -> None:
    clients = crowd.established(range(6100, 6115))
    limit = crowd.sim.toe.engine.device.read32(reg.REG_CHALLENGE_LIMIT)
    crowd.sim.toe.engine.device.write32(reg.REG_CHALLENGE_LIMIT, 6 << 16 | 1)  # six at once
    try:
        again = [crowd.client(client.port) for client in clients]
        crowd.until(lambda: all(each.answer for each in again), 30 * SECOND, "all are in")
        # Four half-open connections at once: the last four-tuples needed four SYNs before.
        assert max(each.syns for each in again) <= max(each.syns for each in clients) + 1
    finally:
        crowd.sim.toe.engine.device.write32(reg.REG_CHALLENGE_LIMIT, limit)
    crowd.under_way.clear()
    crowd.end(again)


ALWAYS = {
    "keep-alive": (ACK, -1, b""),
    "keep-alive with an octet": (ACK, -1, b"x"),
    "question again": (ACK | PSH, -8, b"question"),
    "half of the question again": (ACK | PSH, -4, b"tion"),
}


@pytest.mark.parametrize("what", ALWAYS)
def test_what_a_lost_ack_brings_is_answered_each_time_though_no_token_is_left(crowd: Told, what: str) -> None:
    flags, left, payload = ALWAYS[what]
    (client,) = crowd.established(range(6200, 6201))
    limit = crowd.sim.toe.engine.device.read32(reg.REG_CHALLENGE_LIMIT)
    crowd.sim.toe.engine.device.write32(reg.REG_CHALLENGE_LIMIT, 0)
    crowd.pause(2)
    try:
        assert not crowd.ask(client, ACK, client.nxt - 100)
        for _ in range(3):
            answers = crowd.ask(client, flags, client.nxt + left, payload)
            assert [(each.flags, each.ack, each.length) for each in answers] == [(ACK, client.nxt, 0)]
    finally:
        crowd.sim.toe.engine.device.write32(reg.REG_CHALLENGE_LIMIT, limit)
    crowd.end([client])


def test_fin_that_comes_again_and_a_half_closed_connection(crowd: Told) -> None:
    """The peer's FIN is acknowledged, the ACK lost; the host goes on sending."""
    (client,) = crowd.established(range(6300, 6301))
    assert [each.ack for each in crowd.ask(client, ACK | FIN, client.nxt)][:1] == [client.nxt + 1 & M32]
    crowd.ask(client, ACK, client.nxt - 100)
    for _ in range(3):
        answers = crowd.ask(client, ACK | FIN, client.nxt)
        assert answers and {each.ack for each in answers} == {client.nxt + 1 & M32}
    client.nxt = client.nxt + 1 & M32
    crowd.end([client])


def test_a_syn_again_in_time_wait_gets_in(crowd: Told) -> None:
    """The port is used again at once: ACK, RST, SYN."""
    crowd.server_closes = True
    try:
        first = crowd.client(6400)
        crowd.until(lambda: first.ended is not None, 10 * SECOND, "the end")
        second = crowd.client(6400)
        crowd.until(lambda: second.ended is not None, 10 * SECOND, "the other one's end")
        assert second.answer == b"answer to question" and second.syns <= 2 and not second.reset
    finally:
        crowd.server_closes = False
