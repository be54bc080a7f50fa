"""PSH and small writes, RFC 9293 section 3.9.1.2: writes become segments as large as can be, with PSH on the last one."""

import pytest

from tests.hdl.flow.bench import FlowBench, Segment


@pytest.fixture
def b():
    bench = FlowBench()
    yield bench
    bench.sim.close()


def test_a_write_goes_at_once_with_psh(b):
    b.established()
    assert [(s.flags, s.length) for s in b.bell(0, 10)] == [("AP", 10)]


def test_writes_that_had_to_wait_go_as_one_segment_with_one_psh(b):
    b.established(wnd=0)
    for end in (10, 30, 60):
        assert b.bell(0, end) == []
    sent, _ = b.receive(Segment("A", wnd=8192))
    assert [(s.flags, s.seq, s.length) for s in sent] == [("AP", 1, 60)]


def test_a_long_write_has_psh_on_its_last_segment_only(b):
    b.established(wnd=8192, mss=1000)
    sent = b.bell(0, 2500)
    assert [(s.flags, s.length) for s in sent] == [("A", 1000), ("A", 1000), ("AP", 500)]


def test_a_write_that_the_window_cuts_has_psh_where_it_ends(b):
    b.established(wnd=1500, mss=1000)
    assert [s.flags for s in b.bell(0, 2000)] == ["A"]
    sent, _ = b.receive(Segment("A", ack=1001, wnd=8192))
    assert [(s.flags, s.seq, s.length) for s in sent] == [("AP", 1001, 1000)]
