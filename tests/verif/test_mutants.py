"""The mutations of the driver fit its sources, and every contract row with quick tests has one.

Running them all is `make mutants`; here one that must be found, one that cannot be, and one that fits no more."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from tiptoe_verif import mutants
from tiptoe_verif.paths import ROOT

MUTANTS = mutants.load()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.row}: {mutant.breaks}")
def test_mutation_fits_exactly_one_place(mutant: mutants.Mutant) -> None:
    assert mutant.places() == 1
    source = (ROOT / mutants.DRIVER / mutant.file).read_text()
    compile(source.replace(mutant.old, mutant.new), mutant.file, "exec")
    assert mutant.old != mutant.new and mutant.tests


def test_every_row_with_quick_tests_has_a_mutation() -> None:
    plan = tomllib.loads((ROOT / "tests" / "testplan.toml").read_text())
    rows = {row for row in plan["contract"] if mutants.quick_tests(plan, row)}
    assert rows == {mutant.row for mutant in MUTANTS}
    assert len(rows) > 20


def test_found_and_survives() -> None:
    """A mutation that its tests find; the same seen by a test that looks elsewhere; and one whose text is gone."""
    mutant = next(mutant for mutant in MUTANTS if mutant.row == "SEND-1")
    found, what = mutants.try_mutant(mutant)
    assert found and what.startswith("test_send_1_")
    assert mutants.try_mutant(
        replace(mutant, tests=("driver/netinet/test_locks.py::test_lock_1_order_of_two_locks",))
    ) == (
        False,
        "no test failed",
    )
    found, what = mutants.try_mutant(replace(mutant, old="no such text"))
    assert not found and "0 times" in what
    found, what = mutants.try_mutant(replace(mutant, tests=("driver/netinet/test_locks.py::test_not_there",)))
    assert not found and "did not run" in what
