"""Fixtures of the contract's tests."""

from __future__ import annotations

import pytest

from tests.driver.bench import Bench
from tests.driver.contract.devices import Two
from tests.driver.contract.time_wait import HOST, TCB


@pytest.fixture
def both() -> Two:
    return Two()


@pytest.fixture
def host() -> Bench:
    """The stack keeps TIME_WAIT."""
    bench = Bench(**HOST)
    bench.device.tcb = TCB
    return bench
