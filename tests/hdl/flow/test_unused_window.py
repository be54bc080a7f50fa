"""cwnd grows only while it is what limits the sender (RFC 7661 section 4): not while the peer's window, or what there is to send,
keeps half of it unused."""

import pytest

from tests.hdl.flow.bench import FlowBench, Segment
from tests.hdl.flow.test_sack import MSS

IW = 10
"""RFC 6928, in segments."""


class Transfer:
    """Data without end to a peer without SACK."""

    def __init__(self, window, **settings):
        self.b, self.window = FlowBench(**settings), window
        self.b.established(mss=MSS, wnd=window * MSS)
        self.acked, self.sent = 0, 0
        self._note(self.b.bell(0, 16 * MSS))

    def _note(self, segments):
        self.sent = max([self.sent, *((s.seq + s.length - 1) // MSS for s in segments if s.length)])

    def ack(self, count=1):
        """So many segments more are acknowledged, one each; the ring is kept full. How many are under way before the last."""
        for _ in range(count):
            self.acked += 1
            before = self.sent - self.acked + 1
            sent, _ = self.b.receive(Segment("A", ack=1 + self.acked * MSS, wnd=self.window * MSS))
            self._note(sent)
            self._note(self.b.bell(0, (self.acked + 16) * MSS))
        return before

    def cwnd(self):
        return self.b.tcb()["cwnd"] / MSS


@pytest.mark.parametrize("window", [1, 2, 4, 5])
def test_peer_s_window_is_the_limit_cwnd_stays(window):
    """And when it opens, what leaves at once is the initial window, whatever has been acknowledged meanwhile."""
    t = Transfer(window)
    assert t.sent == window
    t.ack(20)
    assert t.cwnd() == IW
    t.window = 60
    before = t.sent
    t.ack()
    assert t.sent - before <= IW - window + 2 and t.sent - t.acked <= IW + 1


@pytest.mark.parametrize("window", [6, 8, 10])
def test_peer_s_window_is_more_than_half_cwnd_grows_up_to_twice_what_is_under_way(window):
    t = Transfer(window)
    assert t.sent == min(window, IW)
    t.ack(40)
    assert t.cwnd() == 2 * window
    t.ack(10)
    assert t.cwnd() == 2 * window


def test_peer_s_window_opens_slow_start_goes_on():
    t = Transfer(4)
    t.ack(10)
    assert t.cwnd() == IW
    t.window = 60
    t.ack(5)
    assert t.cwnd() > IW


@pytest.mark.parametrize("burst", [1, 3, 5])
def test_application_sends_little_cwnd_stays(burst):
    """Bursts of its own, each acknowledged before the next."""
    b = FlowBench()
    b.established(mss=MSS, wnd=60 * MSS)
    for end in range(burst, 60, burst):
        assert len(b.bell(0, end * MSS)) == burst
        for acked in range(end - burst + 1, end + 1):
            b.receive(Segment("A", ack=1 + acked * MSS, wnd=60 * MSS))
    assert b.tcb()["cwnd"] == IW * MSS


def test_congestion_avoidance_counts_what_was_in_use():
    """Behind a time-out: above ssthresh, with two segments of six under way, nothing is added up."""
    t = Transfer(IW, rto_initial=20, rto_min=20, rto_max=20)
    b = t.b
    b.ticks_until_sent(30)
    t.ack(10)
    while not b.tcb()["cwnd"] > b.tcb()["ssthresh"]:
        t.ack()
    cwnd = t.cwnd()
    t.window = int(cwnd) // 2
    t.ack(40)
    assert t.cwnd() == cwnd
    t.window = 60
    t.ack(20)
    assert t.cwnd() > cwnd
