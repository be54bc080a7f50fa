"""The transmission control block, RFC 9293 section 3.3.1, as the pipeline stores it."""

from amaranth.hdl import unsigned
from amaranth.lib import data, enum

from ..config import EngineConfig
from ..congestion import ALGORITHM_BITS
from ..messages import SACK_BITS, Reason, State, interval
from ..wire.headers import OPTION_BYTES, TIMESTAMPS_WORDS

TICK_BITS = 20
"""Bits of the tick clock and of every deadline; deadlines lie less than half of it ahead (524 s at 1 ms)."""

CWND_BITS = 24
"""Bits of congestion-control byte counts; the largest send ring has 2**24 bytes."""

WND_BITS = 30
"""Bits of the peer's window: 65,535 << 14 at most (RFC 7323 section 2.3)."""

STAMP_BYTES = OPTION_BYTES * TIMESTAMPS_WORDS
"""What timestamps take of every segment: of an MSS that they are agreed upon with, ``maxseg`` is so much less."""

DUPACK_THRESHOLD = 3
"""RFC 5681 section 3.2."""

INTERVAL_BITS = 30
"""Bits of a pacing interval: cycles a byte, in 2^-12. 0: no rate."""

RESENT_MOST = 7
"""Too many to tell (``resent``)."""


class RexmtMode(enum.Enum, shape=unsigned(2)):
    """What the retransmission timer's end means."""

    TIMEOUT = 0  # RFC 6298; or a window probe, or that the connection is idle
    TAIL = 1  # nothing was heard for two round trips: the last segment goes again (RFC 8985 section 7)
    REORDER = 2  # what the peer has not got was not overtaken but lost (RFC 8985 section 6.2)


FIELDS = {
    # life cycle
    "state": State,
    "provisioned": 1,  # the driver gave rings and a generation
    "generation": 8,
    "reason": Reason,  # why it ended; NONE until the terminal state
    "established": 1,  # has been synchronised: iss and irs are final
    "peer_closed": 1,  # the peer's FIN was taken; rcv_nxt counts it
    "bad_doorbell": 1,  # sticky: a doorbell was outside the ring
    "syncache_ref": 16,  # passive opens: the half-open entry it came from; else all ones
    # configuration
    "snd_log2": 5,
    "rcv_log2": 5,
    "ws_ok": 1,
    "sack_ok": 1,  # both ends know selective acknowledgements
    "ecn_ok": 1,  # both ends know ECN; before the connection is established: our SYN offered it
    "ts_ok": 1,  # likewise, timestamps; in SYN_SENT, we have offered them
    "snd_scale": 4,
    "rcv_scale": 4,
    # send side
    "iss": 32,
    "snd_una": 32,
    "snd_nxt": 32,
    "snd_max": 32,
    "snd_end": 32,  # sequence number behind the last byte the host has put into the send ring
    "fin_queued": 1,  # a FIN follows snd_end
    "fin_sent": 1,  # snd_max counts it
    "fin_acked": 1,  # snd_una counts it
    "snd_wnd": WND_BITS,
    "max_sndwnd": WND_BITS,  # largest window ever offered (RFC 5961 section 5.2)
    "recent_wnd": WND_BITS,  # largest since the override timer last fired: by it a segment counts as silly
    "snd_wl1": 32,
    # loss recovery and congestion control, RFC 5681, 6582
    "cwnd": CWND_BITS,
    "ssthresh": CWND_BITS,
    "bytes_acked": CWND_BITS,
    "dupacks": 2,
    "in_recovery": 1,
    "recover": 32,
    "recover_valid": 1,  # snd_una has not passed it
    "algorithm": ALGORITHM_BITS,  # Congestion
    "accurate": 1,  # the algorithm is (congestion/program.py): known before it for the clock's sake
    "losses": 8,  # how often ssthresh has fallen since the id was opened; wraps
    "rxt_mark": 32,  # snd_max when data was last sent again: what was sent for the first time since lies beyond it
    "high_rxt": 32,  # behind the last data sent again, and not behind snd_una
    "paced": 1,  # recovery by the scoreboard: what is under way is reckoned by it, and sent in the connection's turns
    "turns": 2,  # segments that such a recovery may send
    "frto": 2,  # is a time-out spurious? 1: its segment has gone, 2: new data goes (RFC 5682)
    "resent": 3,  # segments sent again since recovery began that the peer has not told to have come twice
    "prior_cwnd": CWND_BITS,  # before recovery began
    "prior_ssthresh": CWND_BITS,
    "asks_echo": 1,  # recovery has begun with timestamps, and no acknowledgement has moved snd_una since (RFC 3522)
    "repair_began": TICK_BITS,  # when
    "tail_open": 2,  # a tail was probed: 1, and all up to there has been acknowledged: 2 (RFC 8985 section 7.4)
    "told_new": 1,  # the peer has data that was first sent behind a time-out: beyond ``recover``
    "ecn_cut": 1,  # cwnd fell for ECE, and snd_una has not come to ``recover`` since
    "cwr_owed": 1,  # the next new data tells that cwnd fell
    "marked": 32,  # bytes acknowledged with ECE; wraps
    "awaits": 1,  # SACK blocks of the last segment are still to come
    "board": 1,  # the scoreboard's intervals count
    "heard": 1,  # the last segment passed all checks: its SACK blocks count
    "rexmt_one": 1,  # retransmit one segment at snd_una as soon as possible
    "force": 1,  # window probe: send one byte whatever the window
    # round-trip time, RFC 6298; ticks, srtt times 8, rttvar times 4
    "rtt_active": 1,
    "rtt_again": 1,  # something has been sent again since: only an echo tells of what
    "rtt_valid": 1,
    "tail_probed": 1,  # a tail loss probe has gone since the last sample
    "rtt_seq": 32,
    "rtt_start": TICK_BITS,
    "srtt": TICK_BITS,
    "rttvar": TICK_BITS,
    "rto": TICK_BITS,
    "rexmt_shift": 4,
    "unanswered": 4,  # probes since the peer was last heard of; of the host's, the first
    "rexmits": 16,  # segments sent again since the id was opened; wraps
    "snd_urgent": 1,  # snd_up counts
    "snd_up": 32,  # sequence number behind the last urgent byte
    # receive side
    "irs": 32,
    "rcv_nxt": 32,
    "rcv_adv": 32,  # right edge of the window advertised
    "rcv_lim": 32,  # right edge the receive ring allows
    "fin_seen": 1,
    "fin_seq": 32,  # where the FIN seen last stands, while fin_seen
    "told": SACK_BITS,  # how many intervals there are: for segments of passes that do not see them
    "ooo_newest": 2,  # the interval that has grown last
    "rcv_urgent": 1,  # rcv_up counts
    "rcv_up": 32,  # behind the peer's last urgent byte; may lie behind rcv_nxt
    "ecn_seen": 1,  # some text came with ECT or CE
    "ecn_echo": 1,  # segments carry ECE; of DCTCP: the last text had CE (DCTCP.CE)
    "ts_known": 1,  # ts_recent counts
    "ts_recent": 32,  # RFC 7323 section 4.3
    "ts_age": 8,  # when it came: the clock's highest bits
    "ack_now": 1,
    "delack": 1,
    # timers: the deadlines are copied to the sweep's table
    "rexmt_on": 1,
    "persist": 1,
    "rexmt_mode": RexmtMode,
    "rexmt_deadline": TICK_BITS,
    "delack_deadline": TICK_BITS,
    "msl_on": 1,
    "msl_deadline": TICK_BITS,
    # scheduling
    "tx_queued": 1,  # the id stands in the output queue
    "has_rate": 1,  # data is paced (rules/pacing.py)
    "spacing": 1,  # the id stands in the pacing queue: the gap behind its last data is not over
}
"""Fields of the same width in every engine. Later features add theirs here, and to a bank
(``banks.py``). All zeros is an id that was never provisioned."""


def fields(cfg: EngineConfig) -> dict:
    """Shapes of all fields by name: FIELDS, the effective maximum segment size, and the intervals received out of order
    (``rules/reassembly.py``), or those the peer has (``rules/scoreboard.py``)."""
    return FIELDS | {
        "maxseg": cfg.length_bits,
        "ooo_valid": cfg.ooo_intervals,
        "ooo": data.ArrayLayout(interval, cfg.ooo_intervals),
    }


TimerRecord = data.StructLayout(
    {
        "rexmt_on": 1,
        "rexmt_deadline": TICK_BITS,
        "delack_on": 1,
        "delack_deadline": TICK_BITS,
        "msl_on": 1,
        "msl_deadline": TICK_BITS,
    }
)
"""What the timer sweep keeps of a TCB."""


def timer_write(cfg: EngineConfig) -> data.StructLayout:
    """A connection's deadlines on their way to the sweep's table."""
    return data.StructLayout({"id": cfg.id_bits, "record": TimerRecord})
