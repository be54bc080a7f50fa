"""Fixtures of the driver's tests."""

from __future__ import annotations

import pytest

from tests.driver.bench import Bench


@pytest.fixture
def bench() -> Bench:
    """A driver on the scripted device."""
    return Bench()
