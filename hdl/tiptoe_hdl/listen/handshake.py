"""Between dispatcher and listen unit, and what a half-open connection does with a segment.

RFC 9293 section 3.10.7.4 for SYN-RECEIVED, with the checks of RFC 5961 against blind resets and SYNs.
"""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, enum

from ..config import EngineConfig
from ..messages import ACK, RST, SYN, FourTuple, peer_fields, rx_meta
from .syncache import index_bits


def handshake(cfg: EngineConfig) -> data.StructLayout:
    """Dispatcher to listen unit: a segment of half-open connection ``index`` that is no SYN. ``proven``: it returns a SYN cookie.
    Answered by one Verdict, and only then comes the next one."""
    return data.StructLayout({"index": index_bits(cfg), "proven": 1, "meta": rx_meta(cfg)})


def syn_request(cfg: EngineConfig) -> data.StructLayout:
    """Dispatcher to listen unit: what counts of a SYN for listener ``listener``, or (``hit``) for half-open connection
    ``index``. Its frame is given up: nobody waits for what becomes of it.

    ``returned``: no SYN, but the ACK of such an answer; ISS is SEG.ACK - 1, IRS is SEG.SEQ - 1, the MSS bits of their difference
    stand for the peer's MSS, and the options are what the cookie's SYN,ACK agreed to."""
    return data.StructLayout({
        "hit": 1, "index": index_bits(cfg), "listener": cfg.listener_bits, "is_ack": 1, "returned": 1,
        "tuple": FourTuple, "smac": 48, "seq": 32, "ack": 32, "mss": 16, "ws_present": 1, "ws": 4, "sack_ok": 1,
        "ecn_ok": 1, "ts_present": 1, "tsval": 32, **dict.fromkeys(peer_fields(cfg), 128),
    })  # fmt: skip


class Verdict(enum.Enum, shape=unsigned(2)):
    """What the dispatcher does with the segment."""

    DROP = 0
    """The listen unit has dealt with it."""
    RETRY = 1
    """The table has changed (the segment made a connection, or the entry has gone): look it up again."""
    HOST = 2
    """It is left to the host; the half-open connection stays."""


class Action(enum.Enum, shape=unsigned(3)):
    """What the listen unit does about a segment of a half-open connection."""

    DROP = 0
    RETRY = 1
    REMOVE = 2  # the peer's reset
    SYN_ACK = 3  # the SYN came again
    CHALLENGE = 4  # an ACK of where we are
    RESET = 5  # RST in answer to a bad ACK, the entry stays; or the entry gives way to what the ACK proves
    ACCEPT = 6
    OLD = 7  # from outside of the window, its ACK of something else: an old duplicate, or of a connection of the host's


def decide(m: Module, flags, *, live, seq_is_irs, seq_is_next, in_window, reaches_in, ack_is_next, proven) -> Signal:
    """The Action for a segment's ``flags`` and single-bit facts about it.

    ``live``: the entry still is this four-tuple's half-open connection. ``seq_is_irs``, ``seq_is_next``: SEG.SEQ is IRS,
    RCV.NXT. ``in_window``: RCV.NXT <= SEG.SEQ < RCV.NXT + RCV.WND. ``reaches_in``: it begins left of RCV.NXT and ends in the
    window, or is empty and at its right edge. ``ack_is_next``: SEG.ACK is ISS + 1. ``proven``: it returns a SYN cookie, so it
    comes from whoever has that address, at the beginning of a connection; the entry, if it has another number, is of a SYN that
    came again, or of somebody else's.
    """
    action = Signal(Action)
    with m.If(~live):
        m.d.comb += action.eq(Action.RETRY)
    with m.Elif(flags[RST]):
        with m.If(seq_is_next):
            m.d.comb += action.eq(Action.REMOVE)
        with m.Elif(in_window):
            m.d.comb += action.eq(Action.CHALLENGE)
    with m.Elif(flags[SYN]):
        with m.If(seq_is_irs & ~flags[ACK]):
            m.d.comb += action.eq(Action.SYN_ACK)
        with m.Else():
            m.d.comb += action.eq(Action.CHALLENGE)
    with m.Elif(proven & ~ack_is_next):
        m.d.comb += action.eq(Action.RESET)
    with m.Elif(
        ~seq_is_next & ~in_window & ~reaches_in
    ):  # comes before its ACK: an old duplicate's is no reason for a reset
        m.d.comb += action.eq(Mux(flags[ACK] & ~ack_is_next, Action.OLD, Action.CHALLENGE))
    with m.Elif(flags[ACK]):
        m.d.comb += action.eq(Mux(ack_is_next, Action.ACCEPT, Action.RESET))
    return action
