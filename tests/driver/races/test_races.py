"""Contract rows DETACH-*, SC-*, LSN-2: user calls, timers and events of the device in every order, on the engine model.

A failure tells its order; ``replay(scenario, order)`` runs it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

import pytest

from tests.driver.guard import GuardedTcpcb
from tests.driver.races.interleave import OrderFailed, Scenario, explore, replay
from tests.driver.races.world import PATHS, RaceWorld
from tiptoe_driver.hardware.abi_gen import State, Status


@pytest.fixture(autouse=True)
def _guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver may not touch a tcpcb after detach, nor without its lock."""
    monkeypatch.setattr("tiptoe_driver.netinet.structures.tcpcb", GuardedTcpcb)


def race(world: Callable[[], RaceWorld], **actors: str) -> None:
    """Run every order of these actors, and count them, so that none is skipped in silence."""
    scenario = Scenario(world, {actor: steps.split() for actor, steps in actors.items()})
    assert explore(scenario) == scenario.count


def test_explorer_runs_every_order_once_and_tells_which_one_failed() -> None:
    class Recorder:
        """A world that fails in one order of the thirty."""

        runs: list[str] = []

        def __init__(self) -> None:
            self.done = ""

        def step(self, actor: str, name: str) -> None:
            self.done += name

        def check(self) -> None:
            assert self.done != "acd", "a before c before d"

        def finish(self) -> None:
            self.runs.append(self.done)

    actors = {"one": "ab", "two": "cd", "three": "e"}
    scenario = Scenario(Recorder, actors)
    assert scenario.count == factorial(5) // (2 * 2) == 30
    with pytest.raises(OrderFailed, match=r"a before c before d(.|\n)*3\. two: d\n.*replay: 'one two two one three'"):
        explore(scenario)
    with pytest.raises(OrderFailed):
        replay(scenario, "one two two three one")
    Recorder.runs.clear()
    del Recorder.check
    Recorder.check = lambda self: None  # type: ignore[method-assign]
    assert explore(scenario) == 30
    assert len(set(Recorder.runs)) == 30 and all(sorted(run) == list("abcde") for run in Recorder.runs)


# ---------------------------------------------------------------------- active opens

STORIES = ("ack", "data", "fin", "data_fin", "ack_fin", "rst", "data_rst", "timeout", "dma_error")


@pytest.mark.parametrize("how", ["close", "abort", "reset", "detach"])
@pytest.mark.parametrize("state", PATHS, ids=lambda state: state.name)
def test_detach_3_every_event_around_the_end(state: State, how: str) -> None:
    """Each event of the device, written and handled before, between and after a close, abort or detach."""
    for story in STORIES:
        race(lambda: RaceWorld().reach(state), user=how, peer=story, engine="command", driver="poll")


@pytest.mark.parametrize("story", ["data fin", "ack rst", "fin ack"])
@pytest.mark.parametrize(
    "state", [State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2], ids=lambda state: state.name
)
def test_detach_3_two_events_around_a_close(state: State, story: str) -> None:
    race(lambda: RaceWorld().reach(state), user="close", peer=story, engine="command", driver="poll poll")


@pytest.mark.parametrize("user", ["close", "abort", "shutdown close", "send close"])
@pytest.mark.parametrize("state", [State.SYN_SENT, State.SYN_RECEIVED], ids=lambda state: state.name)
def test_detach_3_close_while_the_handshake_completes(state: State, user: str) -> None:
    """The user may have sent early, and closes before or after he learns of the connection."""
    for story in ("syn_ack", "syn_ack data_fin", "rst", "syn_ack rst", "timeout"):
        race(lambda: RaceWorld().reach(state), user=user, peer=story, engine="command", driver="poll")


@pytest.mark.parametrize("user", ["close", "shutdown close", "abort", "shut_both"])
def test_detach_3_close_while_the_next_hop_is_sought(user: str) -> None:
    """OPEN waits for ARP: the answer may come before the close, after it, or never."""
    for story in ("arp", "arp syn_ack", ""):
        race(RaceWorld, user=f"connect {user}", peer=story, engine="command", driver="poll")


@pytest.mark.parametrize("refusal", [Status.EXISTS, Status.TABLE_FULL], ids=lambda status: status.name)
@pytest.mark.parametrize("user", ["close", "abort", "shutdown close", "close connect"])
def test_detach_3_close_while_open_is_refused(user: str, refusal: Status) -> None:
    """The id serves the next connection; an ABORT on its way to nobody does no harm."""

    def world() -> RaceWorld:
        made = RaceWorld()
        made.bench.know_peer()
        made.engine.refusals = [refusal]
        return made

    race(world, user=f"connect {user}", engine="command command", driver="poll poll")


@pytest.mark.parametrize("story", ["data data_fin", "data_fin rst", "data data_rst"])
def test_detach_3_a_reader_gets_what_came_before_the_end(story: str) -> None:
    race(lambda: RaceWorld().reach(State.ESTABLISHED), user="recv recv close", peer=story, driver="poll poll")


@pytest.mark.parametrize("user", ["shutdown close", "close", "shut_both close", "shutdown detach"])
def test_detach_2_silent_peer_cannot_hold_a_closed_connection(user: str) -> None:
    """The peer acknowledges our FIN and says nothing more: FIN_WAIT_2 is limited whoever was first, close or ACK."""
    race(
        lambda: RaceWorld(silent=True).reach(State.ESTABLISHED),
        user=user,
        peer="ack",
        engine="command",
        driver="poll poll",
    )


@pytest.mark.parametrize(
    "state",
    [State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING],
    ids=lambda state: state.name,
)
def test_detach_1_both_sides_abort_at_once(state: State) -> None:
    race(lambda: RaceWorld().reach(state), user="send abort", peer="rst", engine="command", driver="poll")


@pytest.mark.parametrize("story", ["fin ack", "ack fin", "data fin ack", "fin data ack", "data_fin ack"])
def test_disc_3_both_sides_close_at_once(story: str) -> None:
    race(
        lambda: RaceWorld().reach(State.ESTABLISHED), user="shutdown close", peer=story, engine="command", driver="poll"
    )


@pytest.mark.parametrize("story", ["rst", "rst late", "ack_fin two_msl"])
def test_detach_1_next_connection_takes_the_id(story: str) -> None:
    """Nothing of the old connection reaches it, even an event that comes too late."""
    race(
        lambda: RaceWorld().reach(State.ESTABLISHED),
        user="close connect",
        peer=story,
        engine="command",
        driver="poll poll",
    )


def preempted(world: Callable[[], RaceWorld], outer: tuple[str, str], inner: tuple[str, str]) -> int:
    """Run ``inner`` wherever ``outer`` comes to a lock with none held; how many such places there are."""
    point = 0
    while True:
        made = world()
        if not made.inside(point, outer, inner):
            return point
        made.check()
        made.finish()
        point += 1


@pytest.mark.parametrize("how", ["close", "abort", "reset", "detach", "shutdown"])
@pytest.mark.parametrize("state", PATHS, ids=lambda state: state.name)
def test_detach_3_call_of_another_thread_while_an_event_waits_for_a_lock(state: State, how: str) -> None:
    for story in STORIES:

        def world(story: str = story) -> RaceWorld:
            made = RaceWorld().reach(state)
            made.step("peer", story)
            return made

        if world().bench.dev.engine.events.pending:  # else the segment comes too late for this state
            assert preempted(world, ("driver", "poll"), ("user", how))


@pytest.mark.parametrize("inner", [("timer", "expire"), ("user", "stop")], ids="-".join)
@pytest.mark.parametrize("story", ["last_ack", "last_ack_data_fin", "give_up"])
def test_sc_4_drop_of_another_thread_while_the_handshake_waits_for_a_lock(story: str, inner: tuple[str, str]) -> None:
    def world() -> RaceWorld:
        made = RaceWorld().half_open()
        made.step("peer", story)
        return made

    assert preempted(world, ("driver", "poll"), inner)


@pytest.mark.parametrize("inner", [("timer", "expire"), ("user", "stop")], ids="-".join)
def test_lsn_2_stop_of_another_thread_while_a_syn_waits_for_a_lock(inner: tuple[str, str]) -> None:
    def world() -> RaceWorld:
        made = RaceWorld()
        made.user_listen()
        made.settle()
        made.peer_half_syn()
        return made

    assert preempted(world, ("driver", "poll"), inner) > 1


# ---------------------------------------------------------------------- passive opens

HANDSHAKES = (
    "last_ack",
    "last_ack_data",
    "last_ack_data_fin",
    "last_ack_rst",
    "last_ack_early",
    "last_ack_early rst",
    "last_ack rst",
    "give_up",
    "half_syn last_ack",
    "half_syn give_up half_syn",
)


@pytest.mark.parametrize("story", HANDSHAKES)
def test_sc_4_drop_against_the_handshake(story: str) -> None:
    """The syncache's time is over while the handshake's ACK, its end or the SYN's duplicate is on its way."""
    for silent in (False, True):
        race(
            lambda silent=silent: RaceWorld(silent=silent).half_open(),
            timer="expire",
            peer=story,
            engine="command",
            driver="poll",
        )


@pytest.mark.parametrize("story", ["last_ack", "last_ack_early", "give_up", "half_syn last_ack"])
def test_sc_4_drop_and_listen_stop_against_the_handshake(story: str) -> None:
    race(lambda: RaceWorld().half_open(), timer="expire", user="stop", peer=story, engine="command", driver="poll")


@pytest.mark.parametrize("user", ["stop", "accept stop", "stop listen"])
@pytest.mark.parametrize("story", HANDSHAKES)
def test_lsn_2_stop_against_the_handshake(story: str, user: str) -> None:
    """Accepted, aborted with the queue, or reset half-open: one of them. A new listener on the port changes nothing."""
    race(lambda: RaceWorld().half_open(), user=user, peer=story, engine="command", driver="poll")


@pytest.mark.parametrize(("story", "user"), [
    ("half_syn", "stop"), ("half_syn", "stop listen"), ("half_syn last_ack", "stop"), ("half_syn last_ack", "stop listen"),
    ("half_syn give_up", "stop"),
])  # fmt: skip
def test_lsn_2_answer_overtakes_what_the_syncache_reports(story: str, user: str) -> None:
    """COMMAND_DONE of UNLISTEN may come before the listener's last SYN_RECEIVED, and a CONNECTION behind that."""

    def world() -> RaceWorld:
        made = RaceWorld()
        made.user_listen()
        made.settle()
        made.engine.hold_syn_events = True
        return made

    race(world, user=user, peer=story, engine="command", events="report", driver="poll")
