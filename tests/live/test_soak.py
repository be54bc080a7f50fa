"""The soak: every load at random, seeded (verif/tiptoe_verif/soak). TIPTOE_SOAK_SECONDS: an hour unless set."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.tap


def soak(seconds, config):
    seed = os.environ.get("TIPTOE_SEED", "1")
    command = [sys.executable, "-m", "tiptoe_verif.soak", "--seconds", str(seconds), "--seed", seed, "--config", config]
    result = subprocess.run(command, capture_output=True, text=True, timeout=int(seconds) + 600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "nothing wrong" in result.stdout


def test_soak_for_seconds():
    soak(3, "tiny")


@pytest.mark.soak
def test_soak():
    soak(os.environ.get("TIPTOE_SOAK_SECONDS", "3600"), "sim")
