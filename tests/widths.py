"""Widths of the data path that tests go through. 128 bits take the ways of 64 in what they are for: a soak."""

import pytest

SOAK_128 = pytest.param(128, marks=pytest.mark.soak)

WIDTHS = [32, 64, SOAK_128, 256]
"""All there are."""

SLOW_TESTS_WIDTHS = [32, 64, 256]
"""For tests that take long."""

ONE_WIDTH = [64, *(pytest.param(width, marks=pytest.mark.soak) for width in (32, 128, 256))]
"""For those that take longest."""
