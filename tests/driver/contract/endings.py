"""How connections end: what the tests of rows DISC, RESET and DETACH ask."""

from __future__ import annotations

import struct

from tests.driver.bench import Bench
from tiptoe_hdl.host.abi import Opcode

ON_CONNECTION = (Opcode.CLOSE, Opcode.ABORT, Opcode.RELEASE)


def linger(seconds: int) -> bytes:
    return struct.pack("@ii", 1, seconds)


def released(bench: Bench, tid: int) -> bool:
    """Whether the id is free again, after exactly one RELEASE."""
    assert len([c for c in bench.device.ops(Opcode.RELEASE) if c["tid"] == tid]) <= 1
    return bench.dev.engine.ids.toepcbs[tid & 0xFFFF] is None
