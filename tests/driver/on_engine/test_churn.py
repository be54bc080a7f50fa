"""Many short connections at the whole engine, in native simulation: with ids enough, at the edge, with fewer ids than clients.
The bounds are in ticks of TCP's clock, which are milliseconds in name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.configs import EVERYTHING
from tests.driver.on_engine.clients import SECOND, Client, Crowd

"""Sixteen ids, and as many half-open connections: ids are what is lacking."""
SIM_TICK_US = 320
"""A tick long enough to look at the 256 connections of "sim"."""


def median(clients: list[Client]) -> int:
    return sorted(client.ticks for client in clients)[len(clients) // 2]


def all_well(crowd: Crowd, clients: list[Client]) -> None:
    """Every question was answered, nobody was reset, everything has come back."""
    assert {client.answer for client in clients} == {b"answer to question"}
    assert not crowd.resets and not any(client.reset for client in clients)
    crowd.at_rest()
    crowd.sim.close()


@pytest.mark.parametrize(
    ("count", "closes"),
    [(600, False), (400, True), pytest.param(5000, False, marks=pytest.mark.soak)],
    ids=["server_closes", "both_close", "for long"],
)
def test_many_connections_with_ids_enough(count: int, closes: bool) -> None:
    """20 at a time on 256 ids, more connections than ids, in a fraction of the time that TIME_WAIT would take."""
    crowd = Crowd("sim", SIM_TICK_US)
    # A SYN is judged when it comes: the first twenty at once need twenty ids.
    crowd.until(lambda: crowd.sim.toe.engine.ids.stocked > 40, SECOND, "the stock")
    crowd.sim.run_us(5000)
    clients = crowd.run(range(1000, 1000 + count), 20, 20 * SECOND, closes=closes)
    assert max(client.ticks for client in clients) <= 10 * median(clients)
    assert max(client.syns for client in clients) == 1 and not crowd.counter("SYN_DROPPED_FULL")
    all_well(crowd, clients)


@pytest.mark.parametrize(
    ("options", "closes"),
    [({}, False), ({"time_wait": "engine"}, True), ({"time_wait": "host", "rst_unknown": False}, False)],
    ids=["shared", "engine", "host"],
)
def test_more_clients_than_ids(options: dict[str, Any], closes: bool) -> None:
    """A SYN that finds no id is dropped, and a later one of the client gets in. Whoever was answered has his id, however: nobody
    waits behind a SYN,ACK."""
    crowd = Crowd(EVERYTHING, **options)
    clients = crowd.run(range(1000, 1200), 40, 200 * SECOND, closes=closes)
    assert crowd.counter("SYN_DROPPED_FULL") > 40
    served = [client.ended - client.established for client in clients if client.ended and client.established]
    assert len(served) == 200 and max(served) < 200, "data was sent again: the ACK of the SYN,ACK found no id"
    assert max(client.ticks for client in clients) < 64 * SECOND
    all_well(crowd, clients)


def test_one_more_client_than_ids() -> None:
    """The client that finds the last id promised waits for its next SYN, the others for nothing."""
    crowd = Crowd(EVERYTHING, stock=16, active_reserve=0)
    crowd.server_closes = False
    crowd.until(lambda: crowd.sim.toe.engine.ids.stocked == 16, SECOND, "the stock")
    crowd.sim.run_us(5000)
    clients = [crowd.client(port, closes=True) for port in range(1000, 1017)]
    crowd.until(lambda: not crowd.under_way, 10 * SECOND, "all")
    assert [client.syns for client in clients] == [1] * 16 + [2]
    all_well(crowd, clients)


def test_what_the_engine_has_no_id_for_is_the_software_s() -> None:
    """With SYN_TO_HOST nobody waits: of 250 clients at once on 16 ids each is served at its first SYN, by the engine or by the
    software stand-in, on the same listening socket."""
    crowd = Crowd(EVERYTHING, software="stand-in", syn_to_host=True)
    crowd.sim.harness.set_line(
        rx=2
    )  # what the host's frame ring can follow: the engine decides at the rate of the line
    clients = crowd.run(range(1000, 1250), 250, 20 * SECOND)
    software = crowd.sim.software.counters["accepted"]
    assert software > 200 and crowd.counter("ACCEPTED") + software == 250
    assert max(client.syns for client in clients) == 1
    assert {client.answer for client in clients} == {b"answer to question"} and not crowd.resets
    crowd.sim.check()
    crowd.sim.close()


def test_a_client_of_the_software_s_that_forgot_its_connection_gets_in_on_the_engine() -> None:
    """Its four-tuple is a connection in the software, which knows of nothing. When the client's new handshake with the engine is
    complete, that connection is over; before, the client was reset for as long as it lasted."""
    forgetful = 1016
    forgets = True
    crowd = Crowd(
        EVERYTHING, software="stand-in", syn_to_host=True, stock=16, active_reserve=0,
        loses=lambda ours, segment, before: forgets and ours and segment.sport == forgetful and bool(segment.payload),
    )  # fmt: skip
    crowd.until(lambda: crowd.sim.toe.engine.ids.stocked == 16, SECOND, "the stock")
    crowd.sim.run_us(5000)
    for port in range(1000, forgetful + 1):
        crowd.client(port)
    crowd.until(lambda: list(crowd.under_way) == [forgetful], 10 * SECOND, "all others")
    crowd.until(lambda: crowd.sim.software.counters["accepted"], SECOND, "the software's")
    accepted = crowd.counter("ACCEPTED")
    crowd.until(lambda: crowd.sim.toe.engine.ids.stocked, 10 * SECOND, "ids again")
    crowd.sim.run_us(5000)
    crowd.under_way.clear()
    forgets = False
    client = crowd.client(forgetful)
    crowd.until(lambda: client.ended is not None, 10 * SECOND, "the client's second connection")
    assert client.answer == b"answer to question" and not client.reset and crowd.counter("ACCEPTED") == accepted + 1
    crowd.at_rest()
    crowd.sim.close()
