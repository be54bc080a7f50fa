"""A recorded run: two engines, a lossy line, one download."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.verif.report.browser import start
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.recorder import CAPTURE, RECORD, Recorder
from tiptoe_verif.native.simulation import Impairment

BYTES = 150_000


@dataclass
class Run:
    """Its folder, the record's rows, and figures of the engine itself."""

    folder: Path
    rows: list[dict]
    counters: dict[str, int]
    frames: int
    cycles: int


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    line = Impairment(loss=0.05, delay_us=500, seed=5)
    with Pair("tiny", impairment=line, seed=1, pcap=folder / CAPTURE) as pair:
        with Recorder(pair.a, folder, "a test's <run>", interval_us=1000):
            listener = pair.a.socket()
            listener.bind(("", 80))
            listener.listen()
            pair.run_us(5000)
            client = pair.b.socket()
            client.connect_ex(("10.0.0.1", 80))
            pair.run_until(listener.readable, 1e6)
            server, _ = listener.accept()
            left, got = BYTES, 0
            while got < BYTES:
                if left and server.writable():
                    left -= server.send(bytes(left))
                pair.run_us(200)
                while client.readable():
                    got += len(client.recv(65536))
            server.close()
            client.close()
            pair.run_us(300_000)
        counters = pair.a.toe.engine.read_counters()
        frames = pair.a.capture.from_engine + pair.a.capture.to_engine
        cycles = pair.a.harness.cycle
    rows = [json.loads(line) for line in (folder / RECORD).read_text().splitlines()]
    return Run(folder, rows, counters, frames, cycles)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    yield from start(tmp_path_factory.mktemp("chromium"))
