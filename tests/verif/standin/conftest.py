"""Fixtures of the stand-in's tests."""

from __future__ import annotations

import pytest

from tests.verif.standin.line import Line


@pytest.fixture
def line() -> Line:
    return Line()
