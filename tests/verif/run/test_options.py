"""Socket options of a program on their way to the driver's socket."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.driver.bench import Bench
from tiptoe_driver.netinet.structures import SO_MAX_PACING_RATE
from tiptoe_hdl.host.abi import Opcode
from tiptoe_verif.run.options import Options

RATE = socket.SOL_SOCKET, SO_MAX_PACING_RATE


@pytest.mark.parametrize("value", [struct.pack("=I", 1_000_000), struct.pack("=Q", 1_000_000)])
def test_a_pacing_rate_is_told_once(value: bytes) -> None:
    """Before there is a socket of the driver it is kept; an accepted connection, which has it, is not told again."""
    options = Options(socket.AF_INET)
    assert options.get(None, *RATE, False) == b"\xff" * 4
    options.set(None, *RATE, value)
    assert options.get(None, *RATE, False) == value
    bench = Bench()
    conn = bench.connected()
    for _ in range(2):
        options.inherited().apply(conn.sock)
    assert [command["interval"] for command in bench.device.ops(Opcode.SET_PACING)] == [512_000]
    options.set(conn.sock, *RATE, b"\xff" * len(value))
    assert [command["interval"] for command in bench.device.ops(Opcode.SET_PACING)][1:] == [0]
