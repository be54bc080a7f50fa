"""Fixtures shared by all tests: build folder, seeded randomness."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# CPython 3.11 fails with a SystemError (gh-106905) when the garbage collector runs inside ast.parse and a finalizer comes to
# parse sources too, as the simulator's leftovers do. So garbage is collected between tests, and only there.
gc.disable()
_COLLECT_EVERY = 10
_finished = 0


# A job in the background of a script ignores SIGINT and hands that down: to what is tested with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_teardown() -> None:
    global _finished
    _finished += 1
    if _finished % _COLLECT_EVERY == 0:
        gc.collect()


def pytest_report_header() -> str:
    return f"seed: {_seed()} (set TIPTOE_SEED to replay another)"


def _seed() -> int:
    return int(os.environ.get("TIPTOE_SEED", "1"), 0)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A random generator that depends only on TIPTOE_SEED and the test's name."""
    return random.Random(f"{_seed()}:{request.node.nodeid}")


@pytest.fixture
def out_dir(request: pytest.FixtureRequest) -> Path:
    """A folder under build/ of this test's own, for captures and waveforms."""
    path = ROOT / "build" / "tests" / re.sub(r"[^\w.-]+", "_", request.node.nodeid)
    path.mkdir(parents=True, exist_ok=True)
    return path
