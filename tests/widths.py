"""Widths of the data path that tests go through."""

WIDTHS = [32, 64, 128, 256]
"""All there are."""

SLOW_TESTS_WIDTHS = [32, 64, 256]
"""For tests that take long: without 128, which takes the ways of 64 bits in what they are for."""
