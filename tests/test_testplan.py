"""The test plan covers every row it must, and every test it names exists."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PLAN = tomllib.loads((TESTS / "testplan.toml").read_text())

REQUIREMENTS = tomllib.loads((TESTS / "rfc9293.toml").read_text())

CONTRACT_ROWS = """
SEND-1 SEND-2 SEND-3 LOCK-1 RCVD-1 RCVD-2 RCVD-3 DISC-1 DISC-2 DISC-3 RESET-1 RESET-2 DETACH-1 DETACH-2 DETACH-3
SC-1 SC-2 SC-3 SC-4 LSN-1 LSN-2 CONN-1 GEN-1 GEN-2 OPT-1 CAP-1 CAP-2 TW-1 ZC-1 WIRE-1
""".split()

ERRORS = """
0 EPERM EINVAL ENOBUFS EMSGSIZE EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ECONNREFUSED ECONNRESET EPIPE ETIMEDOUT
""".split()

LIFECYCLE = """
active-open passive-open data-both-ways half-close-by-us half-close-by-peer simultaneous-open simultaneous-close
reset-by-us reset-by-peer time-wait closed-port listen-stop
""".split()
"""Every one of them in cocotb through the AXI ports, and against the Linux kernel."""

BAD_INPUT = """
malformed-frames truncated-frames wrong-checksums segments-for-nobody garbage-options doorbells commands
full-connection-table full-syncache host-stops-reading axi-errors
""".split()


@cache
def functions(path: Path) -> set[str]:
    """Names of the functions a file defines, and of string constants that name cases of a table."""
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def named_tests():
    for section in PLAN.values():
        for row, entry in section.items():
            for test in entry.get("tests", []):
                yield row, test


@pytest.mark.parametrize(("row", "test"), sorted(set(named_tests())))
def test_named_test_exists(row, test):
    file, _, name = test.partition("::")
    path = TESTS / file
    assert path.exists(), f"{row}: no file tests/{file}"
    assert name in functions(path), f"{row}: tests/{file} has no {name}"


def test_every_contract_row_has_tests_or_says_why_not():
    rows = PLAN["contract"]
    assert set(rows) == set(CONTRACT_ROWS)
    for row, entry in rows.items():
        assert entry.get("tests"), f"{row} has no tests"


def test_every_error_of_the_contract_has_tests():
    assert set(PLAN["error"]) == set(ERRORS)
    assert all(entry["tests"] for entry in PLAN["error"].values())


def test_lifecycle_is_driven_in_cocotb_and_against_linux():
    for section in ("cocotb", "linux"):
        assert set(PLAN[section]) >= set(LIFECYCLE), section
        for row in LIFECYCLE:
            assert PLAN[section][row]["tests"], f"{section}: {row}"


def test_bad_input_of_every_kind():
    assert set(PLAN["bad_input"]) >= set(BAD_INPUT)
    assert all(entry["tests"] for entry in PLAN["bad_input"].values())


def test_every_requirement_of_rfc_9293_is_in_the_plan():
    wanted = {f"{kind}-{number}" for kind, texts in REQUIREMENTS.items() for number in texts}
    assert wanted == {f"MUST-{n}" for n in range(1, 70)} | {f"SHLD-{n}" for n in range(1, 32)}
    assert wanted <= set(PLAN["rfc"]), wanted - set(PLAN["rfc"])


def test_every_rfc_requirement_has_tests_or_says_why_not():
    for row, entry in PLAN["rfc"].items():
        assert re.match(r"(MUST|SHLD|MAY)-\d+$|RFC\d+", row), row
        assert len(entry.keys() & {"tests", "declined"}) == 1, row
        assert all(entry.values()), row
