"""The one kind of event the TCB pipeline processes."""

from amaranth.hdl import Mux, Signal, Value, unsigned
from amaranth.lib import data, enum

from ..config import EngineConfig
from ..messages import ELAPSED_BITS, FIN, SYN, FlowOp
from .rules import host
from .tcb import STAMP_BYTES

DEFAULT_MSS = 536
"""MUST-15: send MSS when the peer sent no option (IPv4)."""
SMALLEST_MSS = 48
"""A smaller MSS option is raised to this: no peer can make every byte cost a segment."""


class Kind(enum.Enum, shape=unsigned(3)):
    """What an event is."""

    SEGMENT = 0  # rx_segment
    DOORBELL = 1  # position in ``seq``; ``which``
    REQUEST = (
        2  # flow_request: ``op``, a in ``seq``, b in ``ack``; of an ACCEPT elapsed in ``length``, repeats in ``timers``
    )
    TIMER = 3  # ``timers``: rexmt, delack, 2MSL found due by the sweep
    OUTPUT = 4  # the connection's turn to send; ``which``: the gap behind its last data is over (pacing)
    REPORT = 5  # read only
    SACK = 6  # a SACK block of the segment just before: its ends in ``seq``, ``ack``; ``which``: the first one;
    # ``has_sack``: others follow


def flow_event(cfg: EngineConfig) -> data.StructLayout:
    """An event; fields not named for its kind don't count. ``may_output``: one tx_segment may come out of this pass."""
    return data.StructLayout(
        {
            "kind": Kind,
            "id": cfg.id_bits,
            "may_output": 1,
            "seq": 32,
            "ack": 32,
            "flags": 8,
            "wnd": 16,
            "length": cfg.length_bits,
            "mss": 16,
            "ws_present": 1,
            "sack_ok": 1,
            "has_sack": 1,
            "ecn": 2,  # of the IP header; of a request: ``ecn_ok``
            "urgent": 16,
            "ws": 4,
            "which": 1,
            "timers": 3,
            "op": FlowOp,
            "generation": 8,
            "rcv_scale": 4,
            "snd_log2": 5,
            "rcv_log2": 5,
            "syncache_ref": 16,
            "ts_present": 1,
            "tsval": 32,
            "tsecr": 32,
            "port": 1,  # REQUEST: which requester gets the response
        }
    )


def known_of(m, event_1, event_2, ts_now):
    """Values by the names that the rules know, in stage 2: the event's fields, and what needs no TCB: sums, decoded kind and
    request. ``event_1``, ``event_2``: the event in stages 1 and 2; ``ts_now``: the clock of timestamps."""
    flags = event_1.flags
    length_bits = len(event_1.length)
    segment_length = Signal(length_bits + 1, reset_less=True)
    text_length = Signal(length_bits + 1, reset_less=True)  # with the SYN, behind which text stands
    mss = Signal(16, reset_less=True)
    mss_said = Mux((event_1.kind == Kind.SEGMENT) & (event_1.mss == 0), DEFAULT_MSS, event_1.mss)
    mss_stamped = Signal(16, reset_less=True)
    since_echo = Signal(32, reset_less=True)
    m.d.sync += [
        segment_length.eq(event_1.length + (flags[SYN] + flags[FIN])),
        text_length.eq(event_1.length + flags[SYN]),
        mss.eq(mss_said),
        mss_stamped.eq(mss_said - STAMP_BYTES),
        since_echo.eq(ts_now - event_1.tsecr),
    ]
    kind = event_2.kind
    small, large, most = mss < SMALLEST_MSS, mss[length_bits:].any(), (1 << length_bits) - 1
    mss_limited = Mux(small, SMALLEST_MSS, Mux(large, most, mss[:length_bits]))
    mss_beside = Mux(small, SMALLEST_MSS - STAMP_BYTES, Mux(large, most - STAMP_BYTES, mss_stamped[:length_bits]))
    fields = {f"e_{name}": Value.cast(event_2[name]) for name in event_2.shape().members if name != "id"}
    return fields | dict(
        e_payload_end=Mux(kind == Kind.SACK, event_2.ack, (event_2.seq + text_length)[:32]),
        e_end=(event_2.seq + segment_length)[:32],
        e_zero_length=segment_length == 0,
        e_any_payload=event_2.length != 0,
        e_seq_plus_1=(event_2.seq + 1)[:32],
        e_seq_minus_1=(event_2.seq - 1)[:32],
        e_ack_plus_1=(event_2.ack + 1)[:32],
        e_mss=mss_limited[:length_bits],
        e_mss_stamped=mss_beside[:length_bits],
        e_since_echo=since_echo,
        e_page=event_2.seq[:3],
        e_up=(event_2.seq + event_2.urgent)[:32],
        e_up_behind_syn=event_2.urgent[1:].any(),
        e_untimed=event_2.length[:ELAPSED_BITS].all(),
        e_elapsed=Mux(kind == Kind.REQUEST, event_2.length[:ELAPSED_BITS], 0),
        may_output=event_2.may_output,
        is_segment=kind == Kind.SEGMENT,
        is_doorbell=kind == Kind.DOORBELL,
        is_request=kind == Kind.REQUEST,
        is_timer=kind == Kind.TIMER,
        is_output=kind == Kind.OUTPUT,
        is_due=(kind == Kind.OUTPUT) & event_2.which,
        is_report=kind == Kind.REPORT,
        is_sack=kind == Kind.SACK,
        **host.decode(Value.cast(event_2.op)),
    )
