"""Some of these tests once more, the C code watched by the address sanitizer, which has to be loaded before Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOME = [
    "test_trouble.py::test_a_device_that_writes_what_it_likes", "test_trouble.py::test_reset", "test_network.py::test_garbage",
    "test_applications.py::test_requests_at_random", "test_applications.py::test_pages_on_one_connection",
]  # fmt: skip


def test_under_the_address_sanitizer() -> None:
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("no libasan (Debian: it comes with gcc)")
    environment = os.environ | {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",
        "TIPTOE_C_SANITIZE": "address,undefined",
    }
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *(str(HERE / name) for name in SOME)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
