"""The table itself: every state and event is in it, every rule is of use, and every known difference is one."""

from __future__ import annotations

from tests.states.oracle import RULES, STATES, Connection, Segment, facts, receive, rule_for
from tests.states.situations import FLAGS, SITUATIONS, WINDOW, segments


def reached() -> list[Connection]:
    """The situations' connections, as the oracle reckons them."""
    found = [Connection("CLOSED"), Connection("LISTEN", edge=WINDOW), half_open()]
    for situation in SITUATIONS:
        c = Connection("CLOSED")
        for step in situation.steps:
            if isinstance(step, Segment):
                c = receive(c, step).connection
            elif step == "open":
                c = Connection("SYN_SENT", snd_nxt=1, edge=WINDOW)
            elif step == "send":
                c = Connection(**vars(c) | {"snd_nxt": c.snd_nxt + 1000})
            else:
                state = {"ESTABLISHED": "FIN_WAIT_1", "CLOSE_WAIT": "LAST_ACK"}[c.state]
                c = Connection(**vars(c) | {"state": state, "snd_nxt": c.snd_nxt + 1, "fin_sent": True})
        assert c.state == situation.state, situation.name
        found.append(c)
    return found


def half_open() -> Connection:
    return Connection("SYN_RECEIVED", snd_nxt=1, rcv_nxt=1, edge=1 + WINDOW, active=False)


def test_every_state_has_a_situation() -> None:
    assert {c.state for c in reached()} == set(STATES)


def test_every_segment_has_a_rule_and_every_rule_a_segment() -> None:
    used = {id(rule_for(c, s)) for c in reached() for flags in FLAGS for _, s in segments(c, flags, whole=True)}
    unused = [rule for rule in RULES["segment"] if id(rule) not in used]
    assert not unused


def test_every_deviation_makes_a_difference() -> None:
    for deviation in RULES.get("deviation", []):
        for where in deviation["where"]:
            cells = [(c, s) for c in reached() for flags in FLAGS for _, s in segments(c, flags, whole=True)]
            assert any(
                rule_for(c, s, where) is deviation and receive(c, s, where) != receive(c, s) for c, s in cells
            ), deviation


def test_facts_of_a_rule_are_known() -> None:
    known = facts(Connection("ESTABLISHED"), Segment("A", 0, 0, 0))
    for rule in RULES["segment"] + RULES.get("deviation", []):
        assert {word.removeprefix("!") for word in rule["when"].split()} <= known.keys(), rule


def test_every_state_has_every_call() -> None:
    for call, states in RULES["call"].items():
        assert set(states) == {"rfc", "new", *STATES} - {"LISTEN"}, call


def test_page_is_up_to_date() -> None:
    from tests.states.page import PAGE, render  # which imports this file

    assert PAGE.read_text() == render(), "python -m tests.states.page"
