"""ACKs of segments that are not taken: one in half a second, but always for data that comes again and for probes (RFC 5961
section 7, RFC 9293 section 3.8.6.1)."""

import pytest

from tests.hdl.flow.bench import FlowBench, FlowOp, Segment, State, Status
from tests.hdl.flow.test_states import reach
from tiptoe_hdl.config import TINY
from tiptoe_hdl.flow.ack_limit import AckLimit
from tiptoe_verif.streams import run_bench

INTERVAL = 50

NOT_TAKEN = {
    "RST in the window": Segment("R", seq=100),
    "SYN in the window": Segment("S", seq=100),
    "SYN left of the window": Segment("S", seq=-100),
    "SYN,ACK of another number": Segment("SA", seq=100, ack=1),
    "ACK of the future": Segment("A", ack=1000),
    "data with an ACK of the future": Segment("A", ack=1000, length=10),
    "ACK older than the window": Segment("A", ack=-20000),
    "ACK left of the window": Segment("A", seq=-1),
    "ACK far left of the window": Segment("A", seq=-(1 << 30)),
    "data right of the window": Segment("A", seq=40000, length=10),
    "data far left of the window": Segment("A", seq=-(1 << 25), length=10),
    "data left of the window with an ACK of the future": Segment("A", seq=-9, ack=1000, length=10),
    "probe with an ACK of the future": Segment("A", seq=0, ack=1000),
    "data left of the window without an ACK": Segment("", seq=-9, length=10),
    "FIN far left of the window": Segment("FA", seq=-(1 << 25)),
}

ALWAYS = {
    "data again": Segment("A", seq=1, length=100),
    "data again of long ago": Segment("A", seq=-(1 << 24) + 201, length=100),
    "half of the data again": Segment("A", seq=51, length=50),
    "probe of an idle connection": Segment("A", seq=100),
    "probe of an idle connection with an old octet": Segment("A", seq=100, length=1),
    "probe with an older ACK": Segment("A", seq=100, ack=-1000),
}


@pytest.fixture
def b():
    bench = FlowBench(invalid=INTERVAL)
    yield bench
    bench.sim.close()


@pytest.mark.parametrize("segment", NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_segments_that_are_not_taken_are_answered_once_an_interval(b, segment):
    b.established()
    for _ in range(3):
        answers = [len(b.receive(segment)[0]) for _ in range(10)]
        assert answers == [1] + 9 * [0]
        b.ticks(INTERVAL + 1)
    assert b.state() == State.ESTABLISHED


@pytest.mark.parametrize("segment", ALWAYS.values(), ids=ALWAYS)
def test_what_a_lost_ack_makes_the_peer_send_is_answered_every_time(b, segment):
    """Though a segment was not taken just before, and there is no token left."""
    b.established()
    b.receive(Segment("A", seq=1, length=100))
    b.ticks(41)
    b.receive(Segment("R", seq=200))
    b.sim["may_challenge"] = 0
    assert not b.receive(Segment("R", seq=200))[0]
    for _ in range(5):
        assert [(s.flags, s.seq, s.ack) for s in b.receive(segment)[0]] == [("A", 1, 101)]


def test_probes_of_a_closed_window_are_answered_every_time(b):
    """One octet at rcv_nxt, and the same with more data behind it."""
    b.established()
    for at in range(16):
        b.receive(Segment("A", seq=1 + 1024 * at, length=1024))
    b.ticks(41)
    b.sim["may_challenge"] = 0
    for length in (1, 1, 1, 1000, 1000):
        sent, verdict = b.receive(Segment("A", seq=16385, length=length))
        assert [(s.flags, s.ack, s.wnd) for s in sent] == [("A", 16385, 0)] and not verdict.length


def test_syn_ack_that_comes_again_is_answered_every_time(b):
    """Our ACK of it was lost."""
    b.established()
    b.sim["may_challenge"] = 0
    for _ in range(3):
        assert [(s.flags, s.seq, s.ack) for s in b.receive(Segment("SA", seq=0, ack=1))[0]] == [("A", 1, 1)]


def test_fin_that_comes_again_in_time_wait_is_answered_every_time(b):
    reach(b, State.TIME_WAIT)
    b.sim["may_challenge"] = 0
    for _ in range(3):
        assert [s.ack for s in b.receive(Segment("FA", seq=1, ack=2))[0]] == [2]


def test_without_a_token_nothing_is_answered_and_no_turn_is_used_up(b):
    b.established()
    b.sim["may_challenge"] = 0
    assert not b.receive(Segment("R", seq=100))[0]
    b.sim["may_challenge"] = 1
    assert len(b.receive(Segment("R", seq=100))[0]) == 1


def test_connections_have_a_turn_each_and_an_id_begins_anew(b):
    b.established(1)
    b.established(2)
    for id in (1, 2):
        assert [len(b.receive(Segment("R", seq=100), id)[0]) for _ in range(2)] == [1, 0]
    b.receive(Segment("R", seq=1), 2)
    assert b.request(FlowOp.RELEASE, id=2) == Status.OK
    b.established(2)
    assert [len(b.receive(Segment("R", seq=100), 2)[0]) for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("gap", range(8, 14))
def test_segments_close_behind_each_other_are_answered_once(b, gap):
    """However far behind the second one comes: it is known at once that there was an answer."""
    b.established()
    for _ in range(2):
        b.offer(Segment("R", seq=100))
        b.cycles(gap - 1)
    b.cycles(200)
    assert len(b.sent()) == 1


def test_an_answer_that_waits_for_the_line_is_one(b):
    b.established()
    b.tx_ready = False
    for _ in range(30):
        b.receive(Segment("R", seq=100))
    b.tx_ready = True
    b.cycles(400)
    assert len(b.sent()) == 1


def test_every_bit_is_cleared_once_an_interval_whatever_is_written_meanwhile(rng):
    dut = AckLimit(TINY)
    ids = TINY.connections

    async def bench(ctx):
        ctx.set(dut.interval, 3)
        await ctx.tick().repeat(ids + 2)
        said = dict.fromkeys(range(ids), False)

        async def look(id):
            ctx.set(dut.id, id)
            await ctx.tick().repeat(2)
            return ctx.get(dut.said)

        for _ in range(20):
            for _ in range(ids // 2):
                id, value = rng.randrange(ids), rng.random() < 0.8
                ctx.set(dut.write.valid, 1)
                ctx.set(dut.write.payload.id, id)
                ctx.set(dut.write.payload.said, value)
                await ctx.tick()
                ctx.set(dut.write.valid, 0)
                said[id] = value
                assert await look(id) == value
            for id in range(ids):
                assert await look(id) == said[id]
            for _ in range(3):
                ctx.set(dut.tick, 1)
                await ctx.tick()
                ctx.set(dut.tick, 0)
                await ctx.tick().repeat(3)
            for _ in range(4):  # in the way of the walk
                ctx.set(dut.write.valid, 1)
                ctx.set(dut.write.payload.id, 5)
                ctx.set(dut.write.payload.said, 0)
                await ctx.tick().repeat(3)
                ctx.set(dut.write.valid, 0)
                await ctx.tick()
            await ctx.tick().repeat(ids + 4)
            said = dict.fromkeys(range(ids), False)
            for id in range(ids):
                assert not await look(id)

    run_bench(dut, bench)
