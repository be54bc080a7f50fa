"""One engine for all scripts."""

import pytest

from tiptoe_verif.native.harness import build_engine
from tiptoe_verif.script.command import DEFAULT


@pytest.fixture(scope="session")
def library():
    return build_engine(DEFAULT)
