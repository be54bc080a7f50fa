"""READ_TCB: every page of a TCB, in every state, while the connection goes on (RFC 9293 section 3.3.1; contract row TW-1)."""

import pytest

from tests.hdl.flow.bench import GENERATION, M32, RING_LOG2, FlowBench, FlowOp, Segment, State, Status
from tests.hdl.flow.test_states import SYNCHRONISED, reach
from tiptoe_hdl.config import TINY
from tiptoe_hdl.flow.tcb import fields
from tiptoe_hdl.host.abi import TCB_PAGES


@pytest.fixture
def b():
    return FlowBench()


def relative(b, fields):
    """Sequence numbers counted from the SYNs."""
    return {
        name: (fields[name] - (b.irs if name.startswith("rcv") else b.iss)) & M32
        for name in ("snd_una", "snd_nxt", "snd_max", "snd_end", "rcv_nxt", "rcv_adv", "rcv_lim")
    }


def test_pages_fit_and_name_fields_of_the_tcb():
    for page in TCB_PAGES:
        at = 0
        for name, low, width in page:
            assert name.removesuffix("_high") in fields(TINY) and low >= at
            at = low + width
        assert at <= 64
    names = [name for page in TCB_PAGES for name, *_ in page]
    assert len(names) == len(set(names))


def test_closed_id_that_was_never_provisioned_is_refused(b):
    assert b.request(FlowOp.READ, a=0) == Status.BAD_ID


def test_closed_provisioned_id_reads_as_closed(b):
    b.provision()
    assert b.tcb()["state"] == State.CLOSED.value


@pytest.mark.parametrize("state", [State.SYN_SENT, *SYNCHRONISED])
def test_read_changes_nothing(b, state):
    reach(b, state)
    before = b.report()
    fields = b.tcb()
    assert b.sent() == [] and b.report() == before
    assert fields["state"] == state.value
    assert (fields["iss"], fields["established"]) == (b.iss, before.established)
    assert fields["irs"] == b.irs or state == State.SYN_SENT
    assert b.request(FlowOp.READ, generation=GENERATION + 1, a=0) == Status.BAD_GENERATION


def test_established_shows_what_was_sent_acknowledged_and_received(b):
    b.established(wnd=8192)
    b.bell(0, 8000)
    b.receive(Segment("A", seq=1, ack=1461, wnd=4000, length=100))
    fields = b.tcb()
    seqs = relative(b, fields)
    assert seqs["snd_una"] == 1461 and seqs["snd_nxt"] == seqs["snd_max"] == seqs["snd_end"] == 8001
    assert seqs["rcv_nxt"] == 101 and seqs["rcv_lim"] == 1 + (1 << RING_LOG2)
    assert 101 < seqs["rcv_adv"] <= seqs["rcv_lim"]
    assert (fields["snd_wnd"], fields["maxseg"]) == (4000, 1460)
    assert fields["cwnd"] == 10 * 1460 + 1460  # RFC 6928, one segment acknowledged in slow start
    assert (fields["rexmits"], fields["rexmt_shift"], fields["dupacks"]) == (0, 0, 0)


def test_established_counts_retransmissions_and_backs_off(b):
    b.established()
    b.bell(0, 1000)
    assert b.ticks_until_sent(1000) is not None
    fields = b.tcb()
    assert (fields["rexmits"], fields["rexmt_shift"], fields["cwnd"]) == (1, 1, 1460)
    assert fields["ssthresh"] == 2 * 1460
    b.receive(Segment("A", ack=1001))
    assert b.tcb()["rexmits"] == 1, "an acknowledgement is no reason to forget them"


def test_a_new_life_of_the_id_begins_at_zero(b):
    b.established()
    b.bell(0, 1000)
    assert b.ticks_until_sent(1000) is not None
    assert b.request(FlowOp.ABORT) == b.request(FlowOp.RELEASE) == Status.OK
    b.established()
    assert b.tcb()["rexmits"] == 0


def test_established_measures_the_round_trip(b):
    b.established()
    b.bell(0, 500)
    b.ticks(80)
    b.receive(Segment("A", ack=501))
    fields = b.tcb()
    # RFC 6298 section 2.3, behind a handshake in no time: SRTT is 1/8 of the 80 ticks, RTTVAR 1/4.
    assert (fields["rtt_valid"], fields["srtt"] / 8, fields["rttvar"] / 4, fields["rto"]) == (1, 10, 20, 200)


def test_duplicate_acks_and_recovery_show(b):
    b.established(wnd=60000)
    b.bell(0, 10 * 1460)
    for _ in range(2):
        b.receive(Segment("A", ack=1, wnd=60000))
    assert b.tcb()["dupacks"] == 2
    b.receive(Segment("A", ack=1, wnd=60000))
    fields = b.tcb()
    assert (fields["in_recovery"], fields["rexmits"]) == (1, 1)


def test_time_wait_has_exact_values_with_both_fins_counted(b):
    b.established()
    b.bell(0, 100)
    b.receive(Segment("A", ack=101, length=50))
    b.close(100)
    b.receive(Segment("A", seq=51, ack=102))
    b.receive(Segment("FA", seq=51, ack=102))
    fields = b.tcb()
    seqs = relative(b, fields)
    assert fields["state"] == State.TIME_WAIT.value
    assert seqs["snd_una"] == seqs["snd_nxt"] == seqs["snd_max"] == 102
    assert seqs["rcv_nxt"] == 52
    assert (fields["fin_sent"], fields["fin_acked"], fields["peer_closed"]) == (1, 1, 1)


def test_terminal_connection_can_be_read_until_its_release(b):
    b.established()
    b.request(FlowOp.ABORT)
    assert b.tcb()["state"] == State.CLOSED.value
    b.request(FlowOp.RELEASE)
    assert b.request(FlowOp.READ, a=0) == Status.BAD_ID
