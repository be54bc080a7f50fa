"""The one kind of event the TCB pipeline processes."""

from amaranth.hdl import unsigned
from amaranth.lib import data, enum

from ..config import EngineConfig
from ..messages import FlowOp


class Kind(enum.Enum, shape=unsigned(3)):
    """What an event is."""

    SEGMENT = 0  # rx_segment
    DOORBELL = 1  # position in ``seq``; ``which``
    REQUEST = (
        2  # flow_request: ``op``, a in ``seq``, b in ``ack``; of an ACCEPT elapsed in ``length``, repeats in ``timers``
    )
    TIMER = 3  # ``timers``: rexmt, delack, 2MSL found due by the sweep
    OUTPUT = 4  # the connection's turn to send
    REPORT = 5  # read only


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
            "length": 12,
            "mss": 16,
            "ws_present": 1,
            "ws": 4,
            "which": 1,
            "timers": 3,
            "op": FlowOp,
            "generation": 8,
            "rcv_scale": 4,
            "snd_log2": 5,
            "rcv_log2": 5,
            "syncache_ref": 16,
            "port": 1,  # REQUEST: which requester gets the response
        }
    )
