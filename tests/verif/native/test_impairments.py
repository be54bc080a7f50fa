"""Two engines on lines that misbehave: the matrix of impairments, a diagonal of it always, the whole as soak."""

from __future__ import annotations

from itertools import product

import pytest

from tests.verif.native.impairments import BUFFERS, CONNECTIONS, DIRECTIONS, LINES, dead_line, trial

DIAGONAL = [
    ("clean", "both ways", 6, "less than an MSS written"),
    ("loss 0.1 %", "both ways", 6, "16 KiB"),
    ("loss 1 %", "forward", 6, "2 MSS written"),
    ("loss 5 %", "both ways", 1, "4 KiB"),
    ("loss 20 %", "both ways", 1, "16 KiB"),
    ("loss 20 %", "back", 1, "less than an MSS written"),
    ("reorder", "both ways", 1, "4 KiB"),
    ("duplicate", "both ways", 1, "slow reader"),
    ("bit flips", "both ways", 1, "16 KiB"),
    ("jitter", "back", 6, "4 KiB"),
    ("everything", "both ways", 6, "4 KiB"),
    ("cut for 30 s", "both ways", 1, "4 KiB"),
    ("MTU falls", "both ways", 1, "16 KiB"),
]
"""Every line, direction, number of connections and kind of buffers."""


@pytest.mark.parametrize(
    ("line", "direction", "connections", "buffers"), DIAGONAL, ids=lambda value: str(value).replace(" ", "_")
)
def test_line_that_misbehaves(line: str, direction: str, connections: int, buffers: str) -> None:
    trial(line, direction, connections, BUFFERS[buffers], 8000, seed=3, time_wait=100)


def test_diagonal_has_everything() -> None:
    assert [set(column) for column in zip(*DIAGONAL, strict=True)] == [
        set(LINES), set(DIRECTIONS), set(CONNECTIONS), set(BUFFERS),
    ]  # fmt: skip


@pytest.mark.parametrize("connections", CONNECTIONS)
def test_line_that_is_cut_for_good_ends_both_sides(connections: int) -> None:
    dead_line(connections)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("line", "direction", "connections", "buffers"), [*product(LINES, DIRECTIONS, CONNECTIONS, BUFFERS)]
)
def test_every_line_that_misbehaves(line: str, direction: str, connections: int, buffers: str, seed: int) -> None:
    lossy = line in ("loss 5 %", "loss 20 %", "bit flips", "everything")
    trial(line, direction, connections, BUFFERS[buffers], 20_000, seed, time_wait=20_000 if lossy else 1000)
