"""Handshakes on a lossy line against the whole engine, in native simulation: whatever is lost, question and answer get through,
with the options of the SYN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.driver.on_engine.clients import SECOND, Crowd, Loss
from tiptoe_verif.wire.segment import ACK, FIN, PSH, SYN, Segment


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    """One engine for all these tests."""
    made = Crowd()
    yield made
    made.at_rest()
    made.sim.close()


def lose(*rules: tuple[bool, int, int]) -> Loss:
    """Lose the first so many segments with just these flags: (the client's, flags, how many)."""

    def loses(ours: bool, segment: Segment, before: int) -> bool:
        return any(ours == whose and segment.flags == flags and before < many for whose, flags, many in rules)

    return loses


CASES = {
    "nothing": (lose(), 0),
    "syn": (lose((True, SYN, 1)), 1 * SECOND),
    "syn_ack": (lose((False, SYN | ACK, 1)), 1 * SECOND),
    "syn_ack_twice": (lose((False, SYN | ACK, 3)), 3 * SECOND),
    "ack": (lose((True, ACK, 1)), 0),
    "data": (lose((True, ACK | PSH, 1)), 200),
    "ack_and_data": (lose((True, ACK, 1), (True, ACK | PSH, 1)), 200),
    "ack_and_data_until_after_the_second_syn_ack": (lose((True, ACK, 1), (True, ACK | PSH, 3)), 1 * SECOND),
    "acks_and_data_until_after_the_second_syn_ack": (lose((True, ACK, 2), (True, ACK | PSH, 3)), 1 * SECOND),
    "everything_until_after_the_third_syn_ack": (lose((True, ACK, 4), (True, ACK | PSH, 5)), 3 * SECOND),
    "fins": (lose((False, ACK | PSH | FIN, 1), (False, ACK | FIN, 1), (True, ACK | FIN, 1)), 200),
}


@pytest.mark.parametrize("case", CASES)
def test_question_and_answer_get_through(crowd: Crowd, case: str) -> None:
    loses, least = CASES[case]
    crowd.loses = loses
    port = 5000 + list(CASES).index(case)
    client = crowd.client(port, closes=True)
    crowd.until(lambda: client.ended is not None, 20 * SECOND, f"{case}: the answer")
    assert client.answer == b"answer to question" and not client.reset and not crowd.resets
    assert (client.mss, client.ws) == (1460, 0)  # rings of 4 KiB need no scale
    assert least <= client.ticks < 2 * least + 7 * SECOND
