"""Whole engine: a segment belongs to the connection that had the id when it was looked up, however late it is passed on."""

import pytest

from tests.hdl.engine_bench import EngineBench, tid
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.wire.segment import ACK, FIN, RST, SYN

WRITE = 2000
"""Cycles of one write while memory is slow, and then it does one at a time."""


@pytest.mark.parametrize("flags", [SYN, ACK, ACK | FIN, RST | ACK], ids=["SYN", "ACK", "FIN", "RST"])
def test_segment_that_waits_for_memory_while_its_id_is_released_and_opened_anew(flags):
    """Behind data that memory is slow to take, it has been looked up but not passed on. The id's next connection is in SYN_SENT:
    it would take another peer's SYN for its own peer's, and reset it for an ACK."""
    with EngineBench() as b:
        for id in range(2):
            b.provision(id, 1, stock=1)
        b.listen()
        leaver, leaving = b.accept(5000)
        sender, sending = b.accept(5001)
        leaver.send(RST | ACK)
        b.until(lambda: b.ended(leaving), 10_000, "the terminal event")

        b.sim.harness.set_memory(latency=WRITE, outstanding=1)
        data = bytes(range(100))
        for _ in range(100):
            sender.send(ACK, data)
        b.run(1000)
        leaver.send(flags)
        b.run(1000)
        tag = b.release(leaving, leaver)
        b.run(12 * WRITE)
        assert b.latest[sending].rcv_position < 50 * len(data), "the data does not hold up anything"
        released_early = tag in b.done
        if released_early:
            b.provision(0, 2)
            b.open(0, 2, 8000, 9000)
            b.run(12 * WRITE)
        b.sim.harness.set_memory(latency=20)
        assert b.status(tag, 200_000, "RELEASE") == abi.Status.OK
        b.run(5000)
        assert not released_early, "the id was given back while a segment of its connection was on its way"
        assert b.latest[sending].rcv_position == 100 * len(data)
        id = leaving & 0xFFFF
        b.provision(id, 2)
        peer = b.open(id, 2, 8000, 9000)
        b.until(lambda: peer.open, 20_000, "the active open")
        peer.send(ACK, b"data")
        b.until(lambda: tid(id, 2) in b.latest and b.read(tid(id, 2)) == b"data", 20_000, "data")
        assert b.latest[tid(id, 2)].irs == 8000 * 1000 and not peer.reset
