"""Whole engine: whatever was slow, once it is over every command is answered and every id comes back."""

import pytest
from engine_bench import EngineBench

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
