"""Whole engine: whatever was slow, once it is over every command is answered and every id comes back."""

import pytest

from tests.hdl.engine_bench import RING_LOG2, EngineBench, Peer, tid
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.wire.segment import ACK, FIN, RST, SYN

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


def slow_down(b, what):
    """One thing at a time; ``None`` ends it."""
    b.slow_line(FRAME_ON_A_BUSY_LINE if what == "line" else 0)
    b.sim.harness.set_memory(latency=20_000 if what == "memory" else 20)
    b.awake = what != "host"


@pytest.mark.parametrize("slow", ["nothing", "line", "memory", "host"])
def test_life_of_connections_while_one_thing_is_slow(slow):
    """Data both ways, a reset, a half-open connection that is dropped, closing by either side, release; afterwards every
    command is answered, every id back, and the ids serve again."""
    with EngineBench(events_log2=4) as b:
        for id in range(5):
            b.provision(id, 1, stock=1)
        b.listen()
        (sender, sending), (leaver, leaving), (chatter, chatting), (closer, closing) = (
            b.accept(5000 + n) for n in range(4)
        )
        slow_down(b, slow)
        down, up = bytes(range(250)) * 64, bytes(range(200)) * 6
        b.write(sending, down)
        leaver.send(RST | ACK)
        half_open = Peer(b, 7000)
        half_open.send(SYN, mss=1460)
        b.run(2000)
        if slow != "host":
            b.until(lambda: b.ended(leaving), 100_000, "the terminal event")
        tags = [b.release(leaving, leaver)]
        for n in range(300):
            chatter.send(ACK, up[4 * n : 4 * n + 4])
            if n % 10 == 0:
                tags.append(b.command(abi.pack_read_tcb, tid=chatting, page=n // 10 % 8))
        b.run(10_000)
        tags.append(b.command(abi.pack_unlisten, listener=0))
        b.command(abi.pack_close, tid=closing, snd_end=0)
        b.command(abi.pack_close, tid=sending, snd_end=len(down))
        chatter.send(ACK | FIN)
        b.run(60_000)

        slow_down(b, None)
        b.until(lambda: all(tag in b.done for tag in tags), 100_000, "every command answered")
        assert {b.done[tag].status for tag in tags} == {abi.Status.OK}
        b.until(lambda: sender.received == down and sender.closed, 300_000, "the data to the peer")
        b.until(lambda: b.latest[chatting].peer_closed and b.read(chatting) == up, 100_000, "the data from the peer")
        b.until(lambda: closer.closed, 100_000, "our FIN")
        b.command(abi.pack_abort, tid=chatting)
        for peer in (sender, closer):
            peer.send(ACK | FIN)
        others = {sending: sender, chatting: chatter, closing: closer}
        b.until(lambda: all(b.ended(connection) for connection in others), 100_000, "every terminal event")
        for connection, peer in others.items():
            assert b.status(b.release(connection, peer), 20_000, "RELEASE") == abi.Status.OK

        # Another life of each id that had one.
        for id in range(4):
            b.provision(id, 2)
            peer = b.open(id, 2, 8000 + id, 9000 + id)
            b.until(lambda peer=peer: peer.open, 20_000, "the active open")
            peer.send(ACK, b"again")
            b.until(lambda id=id: tid(id, 2) in b.latest and b.read(tid(id, 2)) == b"again", 20_000, "data")
            b.command(abi.pack_abort, tid=tid(id, 2))
            b.until(lambda id=id: b.ended(tid(id, 2)), 20_000, "the end")
            assert b.status(b.release(tid(id, 2), peer), 20_000, "RELEASE") == abi.Status.OK
        assert half_open.reset or half_open.open
        assert b.errors == []
