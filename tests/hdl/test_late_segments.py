"""Whole engine: a segment belongs to the connection that had the id when it was looked up, however late it is passed on."""

import pytest

from tests.hdl.engine_bench import EngineBench, Peer, tid
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.wire.segment import ACK, FIN, RST, SYN

FRAME_ON_A_STALLED_LINE = 200_000


def strangers(b: EngineBench, ports: range) -> int:
    """ACKs for nobody, each answered with a reset while the line has room; how many have had their answer made."""
    before = b.counter(abi.Counter.RX_UNKNOWN_SEGMENT)
    for port in ports:
        Peer(b, port).send(ACK)
    b.run(3000)
    return b.counter(abi.Counter.RX_UNKNOWN_SEGMENT) - before


@pytest.mark.parametrize("flags", [SYN, ACK, ACK | FIN, RST | ACK], ids=["SYN", "ACK", "FIN", "RST"])
def test_segment_that_waits_behind_a_reset_for_the_line_while_its_id_is_released_and_opened_anew(flags):
    """The id's next connection is in SYN_SENT: it would take another peer's SYN for its own peer's, and reset it for an ACK."""
    with EngineBench() as b:
        b.provision(0, 1, stock=1)
        b.listen()
        leaver, leaving = b.accept(5000)
        leaver.send(RST | ACK)
        b.until(lambda: b.ended(leaving), 10_000, "the terminal event")
        b.slow_line(FRAME_ON_A_STALLED_LINE)
        enough = strangers(b, range(6000, 6080))  # the last of them waits for the line
        assert enough < 80
        b.slow_line(0)
        b.run(20_000)

        b.slow_line(FRAME_ON_A_STALLED_LINE)
        assert strangers(b, range(7000, 7000 + enough)) == enough
        leaver.send(flags)  # looked up, and behind the one that waits
        b.run(2000)
        tag = b.release(leaving, leaver)
        b.run(5000)
        released_early = tag in b.done
        if released_early:
            b.provision(0, 2)
            b.open(0, 2, 8000, 9000)
            b.run(5000)
        b.slow_line(0)
        assert b.status(tag, 20_000, "RELEASE") == abi.Status.OK
        b.run(5000)
        assert not released_early, "the id was given back while a segment of its connection was on its way"
        b.provision(0, 2)
        peer = b.open(0, 2, 8000, 9000)
        b.until(lambda: peer.open, 20_000, "the active open")
        peer.send(ACK, b"data")
        b.until(lambda: tid(0, 2) in b.latest and b.read(tid(0, 2)) == b"data", 20_000, "data")
        assert b.latest[tid(0, 2)].irs == 8000 * 1000 and not peer.reset
