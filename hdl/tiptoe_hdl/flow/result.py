"""What goes along with the TCB pipeline: its settings, and what a pass finds."""

from amaranth.lib import data

from ..config import EngineConfig
from ..messages import Status
from .tcb import MAXSEG_BITS, TICK_BITS, tcb

Parameters = data.StructLayout(
    {
        "rto_min": TICK_BITS,
        "rto_max": TICK_BITS,
        "rto_initial": TICK_BITS,
        "delack_ticks": TICK_BITS,
        "msl_ticks": TICK_BITS,
        "rexmt_max": 4,
    }
)
"""Timer settings from the registers, in ticks: smallest, largest, first retransmission time-out; delayed ACK; 2MSL;
and the number of retransmissions after which a connection is given up (R2)."""


def pass_result(cfg: EngineConfig) -> data.StructLayout:
    """What one pass found, besides the new TCB; names as in ``rules``."""
    return data.StructLayout(
        {
            "id": cfg.id_bits,
            "tcb": tcb(cfg),
            "is_segment": 1,
            "is_request": 1,
            "is_report": 1,
            "may_output": 1,
            "e_port": 1,
            "e_page": 3,
            "status": Status,
            "changed": 1,
            "push": 1,
            # the segment to send
            "emit": 1,
            "reset": 1,
            "tx_seq": 32,
            "tx_flags": 8,
            "tx_length": MAXSEG_BITS,
            "tx_wnd": 16,
            # the received payload
            "place_seq": 32,
            "front": 12,
            "place_length": 12,
            # for the counters
            "retransmitted": 1,
            "timeout_then": 1,
            "fast_retransmit": 1,
            "is_duplicate": 1,
            "outside": 1,
            "challenged": 1,
            "suppressed": 1,
            "got_out_of_order": 1,
            "discarded": 1,
            "bell_bad": 1,
        }
    )
