"""What goes along with the TCB pipeline: its settings, and what a pass finds; names as in ``rules``."""

from amaranth.lib import data

from ..config import EngineConfig
from ..congestion import ALGORITHM_BITS
from ..messages import SACK_BITS, Status
from .banks import INQUIRED, fields_from
from .tcb import TICK_BITS

Parameters = data.StructLayout(
    {
        "rto_min": TICK_BITS,
        "rto_max": TICK_BITS,
        "rto_initial": TICK_BITS,
        "delack_ticks": TICK_BITS,
        "msl_ticks": TICK_BITS,
        "rexmt_max": 4,
        "sack": 1,
        "ecn": 2,
        "timestamps": 1,
        "quick_ack": 1,
        "algorithm_initial": ALGORITHM_BITS,
    }
)
"""Timer settings from the registers, in ticks: smallest, largest, first retransmission time-out; delayed ACK; 2MSL;
and the number of retransmissions after which a connection is given up (R2). ``sack``: SYNs of ours offer selective
acknowledgements, ``timestamps``: timestamps. ``ecn``, ``quick_ack``: as in CONTROL. ``algorithm_initial``: congestion control
of new connections."""


def inquiry(cfg: EngineConfig) -> data.StructLayout:
    """An event and what of the TCB is known at step INQUIRED, as it finds it."""
    fields = {name: shape for step in range(1, INQUIRED + 1) for name, shape in fields_from(cfg, step).items()}
    return data.StructLayout({"id": cfg.id_bits, "is_report": 1, "is_request": 1, "e_port": 1, "e_page": 3} | fields)


def inquiry_later(cfg: EngineConfig, step: int) -> data.StructLayout:
    """The fields that come in this step."""
    return data.StructLayout({"is_request": 1, "e_port": 1, "e_page": 3} | fields_from(cfg, step))


def arrival(cfg: EngineConfig) -> data.StructLayout:
    """What becomes of a segment's payload, and whether its connection has changed; what of it has come ``twice``, from ``e_seq``
    on."""
    return data.StructLayout(
        {
            "id": cfg.id_bits,
            "place_seq": 32,
            "front": cfg.length_bits,
            "place_length": cfg.length_bits,
            "changed": 1,
            "rcv_nxt": 32,
            "irs": 32,
        }
        | {"twice": 1, "e_seq": 32, "twice_length": cfg.length_bits}
    )


def pass_result(cfg: EngineConfig) -> data.StructLayout:
    """What else a pass found, at its end."""
    return data.StructLayout(
        {
            "id": cfg.id_bits,
            "is_segment": 1,
            "is_request": 1,
            "is_report": 1,
            "may_output": 1,
            "e_port": 1,
            "status": Status,
            "changed": 1,
            "push": 1,
            # for pacing
            "is_due": 1,
            "still_spacing": 1,
            "charged": 1,
            "sets_rate": 1,
            "begins": 1,
            # the segment to send
            "emit": 1,
            "reset": 1,
            "tx_seq": 32,
            "tx_flags": 8,
            "tx_length": cfg.length_bits,
            "tx_wnd": 16,
            "rcv_nxt": 32,
            "iss": 32,
            "maxseg": cfg.length_bits,
            "ws_ok": 1,
            "sack_ok": 1,
            "ts_ok": 1,
            "rcv_scale": 4,
            "tx_sacks": SACK_BITS,
            "ect": 1,
            "twice": 1,
            "tx_twice": 1,
            "tx_up_cut": 1,
            "snd_urgent": 1,
            "snd_up": 32,
            # for the sweep
            "rexmt_on": 1,
            "rexmt_deadline": TICK_BITS,
            "delack": 1,
            "delack_deadline": TICK_BITS,
            "msl_on": 1,
            "msl_deadline": TICK_BITS,
            # for the counters
            "retransmitted": 1,
            "timeout_then": 1,
            "fast_retransmit": 1,
            "is_duplicate": 1,
            "outside": 1,
            "old_stamp": 1,
            "challenged": 1,
            "suppressed": 1,
            "got_out_of_order": 1,
            "discarded": 1,
            "bell_bad": 1,
        }
    )
