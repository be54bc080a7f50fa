"""Whole engine: after any disorder every command is answered, every id is back, every promise is kept, and it is silent."""

import pytest

from tests.configs import EVERYTHING
from tests.hdl.torture import Torture
from tiptoe_hdl.config import TINY
from tiptoe_verif.wire.segment import ACK, RST, SYN

SHAPES = {
    "16 ids, 4 entries": (TINY, 16),
    "4 ids, 16 entries": (EVERYTHING, 4),
    "1 id, 4 entries": (TINY, 1),
}
FEWEST = {"1 id, 2 entries": (TINY.with_(name="tiny2", syncache_entries=2), 1)}


def torture(rng, shape, rounds, events, resets=0.0):
    with Torture(rng, *(SHAPES | FEWEST)[shape]) as t:
        for _ in range(rounds):
            t.storm(events)
            if rng.random() < resets:
                t.reset()
                continue
            t.calm()
            t.promises()


@pytest.mark.parametrize("shape", SHAPES)
def test_disorder(shape, rng):
    torture(rng, shape, 1, 400)


@pytest.mark.soak
@pytest.mark.parametrize("shape", SHAPES | FEWEST)
@pytest.mark.parametrize("run", range(10))
def test_disorder_for_long(shape, run, rng):
    torture(rng, shape, 10, 1000, resets=0.2)


def test_one_id_for_more_connections_than_there_are_generations(rng):
    with Torture(rng, TINY, 1) as t:
        t.listen_at(0)
        t.until(lambda: not t.unanswered, 20_000, "LISTEN")
        for n in range(300):
            t.give(0, stock=n % 3 != 0)
            t.run(512)
            peer = t.tuples[80 if n % 3 else 9000, 5000 + n % 2]
            peer.reset()
            peer.manners, peer.opened = "polite", True
            if n % 3:
                peer.send(SYN, mss=1460)
                peer.nxt = peer.iss + 1
            else:
                t.open_active(0, 9000, peer.port)
            t.until(lambda peer=peer: peer.established and t.state[0] == "open", 20_000, f"connection {n}")
            peer.send(RST | ACK)
            t.until(lambda: t.state[0] == "ended", 20_000, f"end {n}")
            t.back(0)
            t.until(lambda: t.state[0] == "free", 20_000, f"RELEASE {n}")
        assert t.generation[0] == 300 % 256
