"""Whole engine: whatever was slow, once it is over every command is answered and every id comes back."""

import pytest
from engine_bench import RING_LOG2, EngineBench

from tiptoe_driver import abi_gen as abi
from tiptoe_verif.wire.segment import ACK, RST

FRAME_ON_A_BUSY_LINE = 76_000


@pytest.mark.parametrize("acks", [100, 150, 400])
def test_release_on_a_busy_line_while_more_acks_come_than_half_the_counts(acks):
    """RELEASE waits for a segment of another connection. Meanwhile 128 verdicts and more pass, then the peers are silent."""
    with EngineBench() as b:
        for id in range(3):
            b.provision(id, 1, stock=1)
        b.listen()
        (sender, sending), (leaver, leaving), (chatter, _) = (b.accept(5000 + n) for n in range(3))
        b.slow_line(FRAME_ON_A_BUSY_LINE)
        data = bytes(range(250)) * 64
        b.write(sending, data)
        b.run(2000)
        leaver.send(RST | ACK)
        b.until(lambda: b.ended(leaving), 10_000, "the terminal event")
        tag = b.release(leaving, leaver)
        for _ in range(acks):
            chatter.send(ACK)
        b.run(6000)
        b.slow_line(0)
        assert b.status(tag, 20_000, "RELEASE") == abi.Status.OK
        b.until(lambda: sender.received == data, 200_000, "the data")


def test_release_while_the_payload_writes_of_two_others_fail():
    """Placement tells of one failed write at a time: RELEASE waits for verdicts that wait for RELEASE, if it takes none."""
    with EngineBench() as b:
        for id in range(5):
            b.provision(id, 1, stock=1)
        b.listen()
        others = [b.accept(5000 + n) for n in range(4)]
        leaver, leaving = b.accept(6000)
        leaver.send(RST | ACK)
        b.until(lambda: b.ended(leaving), 10_000, "the terminal event")
        b.sim.harness.set_memory(latency=3000)
        tag = b.release(leaving, leaver)
        b.run(1500)  # it is on its way, and executed while the writes are on theirs
        for peer, connection in others:
            at = b.ring(connection)
            b.sim.harness.add_error(at, at + (2 << RING_LOG2), reads=False)
            peer.send(ACK, bytes(100))
        assert b.status(tag, 40_000, "RELEASE") == abi.Status.OK
        b.until(lambda: all(b.ended(connection) for _, connection in others), 40_000, "the ends of the others")
        assert {b.latest[connection].reason for _, connection in others} == {abi.Reason.DMA_ERROR}
        for peer, connection in others:
            assert b.status(b.release(connection, peer), 40_000, "RELEASE") == abi.Status.OK
