"""What the listen unit must say to the segments of its bench."""

from tests.hdl.listen.bench import M32, A, S, seg
from tiptoe_hdl.config import TINY

WND, MSS, SCALE = 60000, 1460, 7  # of the bench's listener
ENTRIES = TINY.syncache_entries
SEQUENCES = [(0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFE, 0), (0x7FFFFFFF, 0x80000000), (0xFFFFFFFF - WND, 0xFFFFFFFE)]
"""(irs, iss) next to where something wraps."""


def syn_ack(tuple_, irs, iss, **overrides):
    """``options`` as the bench has them: 0 where no TSval says them."""
    return {
        "tuple": tuple_, "dmac": seg()["smac"], "seq": iss, "ack": irs + 1 & M32, "flags": S | A, "wnd": WND,
        "mss": MSS, "ws_present": 0, "ws": SCALE, "sack_ok": 0, "ts_ok": 0, "tsecr": 0,
        "says_options": 0, "options": {"ws": 0, "sack_ok": 0, "ecn_ok": 0},
    } | overrides  # fmt: skip


def rx_segment(id_, **overrides):
    meta = seg(**overrides)
    return {"id": id_, "length": meta["payload_length"],
            "has_sack": int(meta["sacks"] > 0),
            **{name: meta[name] for name in ("seq", "ack", "flags", "wnd", "mss", "ws_present", "ws", "sack_ok",
                                           "urgent", "ecn", "ts_present", "tsval", "tsecr")}}  # fmt: skip


def refused(control):
    """The fields of a reset that count."""
    return {name: control[name] for name in ("tuple", "dmac", "seq", "ack", "flags")}
