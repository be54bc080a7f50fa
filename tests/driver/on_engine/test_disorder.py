"""The driver on the whole engine in disorder: losses, clients that vanish, ids run short, line and memory stand still, the
listener goes and comes, active opens want ids, the device is reset. Afterwards every client that keeps trying is served, and
everything is back."""

from __future__ import annotations

import contextlib
import random
from socket import SO_REUSEADDR, SOL_SOCKET
from typing import Any

import pytest

from tests.configs import EVERYTHING
from tests.driver.on_engine.clients import SECOND, THEIRS, Client, Crowd
from tiptoe_driver import Socket
from tiptoe_hdl.config import TINY
from tiptoe_verif.wire.segment import SYN, Segment

CONFIGS = {"16 entries": EVERYTHING, "4 entries": TINY}
PORTS = range(1000, 1030)


class Disorder(Crowd):
    """A crowd with a will of its own."""

    def __init__(self, rng: random.Random, config: Any, **driver: Any) -> None:
        self.rng = rng
        self.loss = 0.0
        self.active: list[Socket] = []
        self.resets_made = self.next = 0
        super().__init__(config, loses=self._loses, **driver)
        self.listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)

    def _loses(self, ours: bool, segment: Segment, before: int) -> bool:
        port = segment.sport if ours else segment.dport
        if self.loss and port % 5 == 0 and not (ours and segment.flags & SYN):
            return True  # vanished
        return self.rng.random() < self.loss

    def listen_anew(self) -> None:
        self.listener.close()
        self.listener = self.sim.socket()
        self.listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        self.listener.bind(("", 80))
        self.listener.listen(1000)

    def step(self) -> None:
        rng = self.rng
        what = rng.random()
        if what < 0.5:
            port = rng.choice(PORTS)
            if port not in self.under_way:
                self.client(port, closes=rng.random() < 0.5)
        elif what < 0.6:
            port = rng.choice(PORTS)
            if (client := self.under_way.pop(port, None)) is not None:
                client.reset = True  # it goes without a word
        elif what < 0.63:
            self.sim.harness.set_line(tx=rng.choice((0.0, 0.0, 1.0, 0.02)))
            self.sim.harness.set_memory(latency=rng.choice((1, 20, 20, 1000)))
            self.loss = rng.choice((0.0, 0.05, 0.3))
        elif what < 0.65:
            self.listen_anew()
        elif what < 0.75:
            made = self.sim.socket()
            with contextlib.suppress(OSError):
                made.connect((THEIRS, rng.randrange(2000, 2004)))
            self.active.append(made)
        elif what < 0.8 and self.active:
            self.active.pop(rng.randrange(len(self.active))).close()
        elif what < 0.802:
            self.calm_line()
            self.sim.toe.reset()
            self.resets_made += 1
        for _ in range(rng.randrange(4)):
            self.sim.run_us(rng.choice((100, 1000, 3000)))
            self.turn()

    def calm_line(self) -> None:
        self.sim.harness.set_line(tx=0.0)
        self.sim.harness.set_memory(latency=20)

    def serve_all(self) -> None:
        """No more losses: whoever keeps trying is served."""
        self.calm_line()
        self.loss = 0.0
        for made in self.active:
            made.close()
        self.active.clear()
        for client in self.under_way.values():
            client.reset = True
        self.under_way.clear()
        wanted = list(PORTS)
        last: dict[int, Client] = {}

        def served() -> bool:
            if wanted and self.now >= self.next:  # not all at once: their SYNs would come again at once, too
                port = wanted.pop()
                last[port] = self.client(port)
                self.next = self.now + self.rng.randrange(100)
            for port, client in last.items():
                if client.reset:  # by what was left of an earlier connection
                    last[port] = self.client(port)
            return not wanted and all(client.ended is not None and client.answer for client in last.values())

        self.next = self.now
        self.until(served, 150 * SECOND, "service for everybody")


OPTIONS: dict[str, dict[str, Any]] = {
    "shared": {"time_wait": "shared"},
    "engine": {"time_wait": "engine"},
    "software": {"software": "stand-in", "syn_to_host": True},
}


def disorder(rng: random.Random, config: str, options: str, rounds: int, steps: int) -> None:
    crowd = Disorder(rng, CONFIGS[config], **OPTIONS[options])
    if options == "software":
        crowd.sim.capture.monitor = None  # it takes the connections of two TCPs that a four-tuple may have for one
    for _ in range(rounds):
        for _ in range(steps):
            crowd.step()
        crowd.serve_all()
        crowd.until(lambda: not crowd.open, 200 * SECOND, "the server's end of all")
        crowd.at_rest()
    crowd.sim.close()


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("options", OPTIONS)
def test_disorder(config: str, options: str, rng: random.Random) -> None:
    disorder(rng, config, options, 1, 100)


@pytest.mark.soak
@pytest.mark.parametrize("run", range(10))
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("options", OPTIONS)
def test_disorder_for_long(config: str, options: str, run: int, rng: random.Random) -> None:
    disorder(rng, config, options, 4, 600)
