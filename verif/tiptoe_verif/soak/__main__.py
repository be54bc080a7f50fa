"""Soak: `python -m tiptoe_verif.soak --seconds 3600 --seed 7`.

One session after the other, `live` and `run`, each for some minutes; on each the loads of a seeded choice, up to three at a
time: short connections, many at once, large ones, clients stopped in the midst. Ends with status 1, the seed and the
capture at the first failed or slow request, lost id, error event of the engine (the watchdog's too), word of the wire
monitor, or id that does not come back.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..console import console
from ..live.namespace import NetNamespace
from ..paths import BUILD
from .under_test import ECHO_SERVER, ENGINE, KERNEL, SessionError, UnderTest, judge, report_of

SERVED, LOCAL, REMOTE = 7000, 9000, 7100
MIXED_MS = 30_000.0
"""What a request may take beside loads of another kind, which fill the queues on the way for it, and where frames are lost or a
client is stopped: some of TCP's time-outs. Else it is ten times the median."""
IMPAIRED = ("--loss", "0.002", "--reorder", "0.005", "--duplicate", "0.002")


@dataclass
class Load:
    """A client at work."""

    name: str
    kind: str
    client: subprocess.Popen[bytes]
    until: float


class Soak:
    """Loads on one session.

    Attributes
    ----------
    requests : int
        Made so far.
    """

    def __init__(self, folder: Path, seed: int, config: str) -> None:
        self._rng, self._folder, self._config = random.Random(seed), folder, config
        self.requests = 0
        self.done: Counter[str] = Counter()
        self.pcap: Path | None = None

    def session(self, seconds: float) -> None:
        """A session of a chosen kind, for so long."""
        rng = self._rng
        kind = rng.choice(["live", "run"])
        impaired = rng.random() < 0.3
        server = [sys.executable, "-I", str(ECHO_SERVER), "0.0.0.0"]
        options = IMPAIRED if impaired else ()
        if kind == "live":
            words = ["live", *options, "--listen", f"{SERVED}=echo", "--forward", f"{LOCAL}={KERNEL}:{REMOTE}"]
        else:
            words = ["run", *options, "--", *server, str(SERVED)]
        with NetNamespace() as namespace, UnderTest(namespace, self._folder, words, config=self._config) as session:
            self.pcap = session.pcap
            session.beside(*server, REMOTE)
            session.until_served(KERNEL, REMOTE)
            session.until_served(ENGINE, SERVED)
            where = [(ENGINE, SERVED)] + [("127.0.0.1", LOCAL)] * (kind == "live")
            console.print(f"{kind}{', a bad line' if impaired else ''}: {seconds:.0f} s")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self._burst(session, where, impaired)
                taken = session.until_quiet()
                host = taken["engine"]["host"] or {}
                console.print(
                    f"  {self.requests:,} requests, {host.get('opened', 0) + host.get('accepted', 0):,} of the session's "
                    f"by the kernel, {session.memory() >> 20} MB",
                    style="dim",
                )  # fmt: skip

    def _burst(self, session: UnderTest, where: list[tuple[str, int]], impaired: bool) -> None:
        """Some loads at once, to their end."""
        rng = self._rng
        stops = rng.random() < 0.15
        loads = [self._begin(session, *rng.choice(where)) for _ in range(rng.randrange(1, 4))]
        kinds = {load.kind for load in loads}
        alike = len(kinds) == 1 and "large" not in min(kinds) and not (impaired or stops)
        if stops:
            time.sleep(rng.random())
            victim = rng.choice(loads).client
            os.kill(victim.pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0.5, 5))
            os.kill(victim.pid, signal.SIGCONT)
        for load in loads:
            while load.client.poll() is None:
                session.check()
                if time.monotonic() > load.until:
                    raise SessionError(f"{load.name} does not end")
                time.sleep(0.1)
            out, err = load.client.communicate()
            session.programs.remove(load.client)
            if err:
                raise SessionError(f"{load.name}: {err[-500:].decode()}")
            report = report_of(out)
            self.requests += report["requests"]
            self.done[load.name.split()[0]] += 1
            try:
                judge(report, least_ms=1000 if alike else MIXED_MS)
            except SessionError as error:
                raise SessionError(f"{load.name}: {error}") from None

    def _begin(self, session: UnderTest, host: str, port: int) -> Load:
        rng = self._rng
        name, count, at_once, size, more = rng.choice(
            [
                ("churn", 400, 20, 500, ()), ("churn", 1500, 200, 500, ()), ("churn", 1200, 400, 200, ()),
                ("together", 600, 150, 1000, ("together",)), ("together", 300, 300, 500, ("together",)),
                ("large", 12, 6, 300_000, ()), ("large", 60, 40, 50_000, ()), ("one", 150, 1, 1000, ()),
            ]
        )  # fmt: skip
        command = session.echo(host, port, count, at_once, size, rng.randrange(1 << 30), *more)
        return Load(
            f"{name} ({count} at {at_once} to port {port})", f"{name} at {at_once}", session.beside(*command),
            time.monotonic() + 300,
        )  # fmt: skip


def main(
    seconds: Annotated[float, typer.Option(help="How long.")] = 3600,
    seed: Annotated[int, typer.Option(help="Of every choice.")] = 1,
    config: Annotated[str, typer.Option(help="Configuration of the engine.")] = "sim",
    session_seconds: Annotated[float, typer.Option(help="Length of a session.")] = 300,
) -> None:
    """Mix loads at random on live sessions until the time is over or something is wrong."""
    soak = Soak(BUILD / "soak", seed, config)
    end = time.monotonic() + seconds
    try:
        while (left := end - time.monotonic()) > 0:
            soak.session(min(left, session_seconds))
    except SessionError as error:
        console.print(f"seed {seed}, after {soak.requests:,} requests: {error}\ncapture {soak.pcap}", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"seed {seed}: {soak.requests:,} requests, {dict(soak.done)}, nothing wrong")


if __name__ == "__main__":
    typer.run(main)
