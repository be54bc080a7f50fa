"""The TCB cut by time: a field is in the pipeline from the step that first looks at it to the one that last changes it.

Each bank is a memory of its own, read just ahead of its first step and written right behind its last. So a field takes no
flip-flops where nobody looks at it; and a bank that is written early needs no forwarding: the next event of the id, at the
distance that the others allow, finds it in the memory.
"""

from enum import Enum
from typing import NamedTuple

from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory

from ..config import EngineConfig
from ..wire.apart import APART
from .tcb import fields


class Again(Enum):
    """What a bank is read a second time for."""

    SEGMENT = 1
    SACK = 2
    STAMP = 3


class Bank(NamedTuple):
    """A part of the TCB and the steps, counted from 1, between which it is in the pipeline.

    ``forwarded``: the step that last changes it is too late for the next event to read it. ``when``: the value that says whether
    it is written; its fields are not carried to their last step to stay as they are, and nobody looks at them behind it.
    ``again``: it is read a second time, for the segment that leaves or when asked for. ``rows``: words
    a connection. ``stamped``: it is there only with timestamps.
    """

    first: int
    last: int
    fields: tuple[str, ...]
    forwarded: bool = False
    when: str = ""
    again: Again | None = None
    rows: int = 1
    stamped: bool = False

    def layout(self, cfg: EngineConfig) -> data.StructLayout:
        """Its fields' shapes."""
        shapes = fields(cfg)
        return data.StructLayout({name: shapes[name] for name in self.fields})


# fmt: off
BANKS = {
    # what a segment says of itself, besides its numbers
    "ours": Bank(first=1, last=5, when="fresh", again=Again.SEGMENT, fields=("iss",)),
    "header": Bank(first=1, last=5, again=Again.SEGMENT, fields=(
        "maxseg", "ws_ok", "rcv_scale", "sack_ok", "ecn_ok", "ts_ok", "accurate",
    )),
    # what an event is compared with
    "compared": Bank(first=1, last=5, fields=(
        "state", "provisioned", "generation", "reason", "established", "snd_log2", "rcv_log2", "irs",
        "snd_una", "snd_wnd", "snd_scale", "cwnd", "ssthresh", "rcv_nxt", "rcv_lim",
    )),
    "newest": Bank(first=1, last=4, when="takes_wnd", fields=("snd_wl1",)),
    "lost": Bank(first=1, last=4, when="moves_recover", fields=("recover",)),
    # urgent data, ours (the segment that leaves reads it) and the peer's
    "urgent_out": Bank(first=1, last=4, when="moves_snd_up", again=Again.SEGMENT, fields=("snd_urgent", "snd_up")),
    "urgent_in": Bank(first=1, last=5, when="moves_rcv_up", fields=("rcv_urgent", "rcv_up")),
    "marks": Bank(first=4, last=4, fields=("marked",)),
    "prior": Bank(first=4, last=4, when="saves", fields=("prior_cwnd", "prior_ssthresh")),
    # the peer's timestamp; the segment that leaves asks for it
    "stamps": Bank(
        first=1, last=4, when="takes_stamp", again=Again.STAMP, stamped=True, fields=("ts_known", "ts_recent", "ts_age"),
    ),
    "repair": Bank(first=2, last=4, when="saves", stamped=True, fields=("repair_began",)),
    # received out of order; in the other row the scoreboard, for a SACK block and the connection's turn
    "ahead": Bank(first=1, last=5, when="moves_ahead", rows=2, again=Again.SACK, fields=("ooo", "ooo_valid", "ooo_newest")),
    # what the conclusions take besides
    "concluded": Bank(first=2, last=5, fields=(
        "peer_closed", "bad_doorbell", "syncache_ref", "snd_end", "fin_queued", "fin_acked",
        "told", "heard", "awaits", "board", "paced", "told_new", "asks_echo", "tail_open", "max_sndwnd", "recent_wnd",
        "bytes_acked", "dupacks", "in_recovery", "recover_valid", "algorithm", "rexmt_shift", "unanswered", "fin_seq",
        "delack_deadline", "ecn_seen", "ecn_echo", "ecn_cut", "has_rate",
    )),
    # the peer's end
    "ending": Bank(first=2, last=6, fields=("fin_seen", "msl_on", "msl_deadline")),
    # round-trip time
    "timed": Bank(first=4, last=8, when="times", fields=("rtt_seq", "rtt_start")),
    "marked": Bank(first=4, last=8, when="marks_rxt", fields=("rxt_mark",)),
    "smoothed": Bank(first=5, last=7, fields=("rtt_valid", "tail_probed", "srtt", "rttvar")),
    # how far we have come with sending
    "edges": Bank(first=1, last=8, forwarded=True, fields=("snd_nxt", "snd_max", "rcv_adv", "high_rxt")),
    # what sending changes besides
    "sent": Bank(first=2, last=9, forwarded=True, fields=(
        "fin_sent", "rexmt_one", "turns", "frto", "resent", "force", "ack_now", "delack", "rtt_active", "rtt_again", "rto",
        "rexmt_on", "rexmt_mode", "rexmt_deadline", "persist", "cwr_owed", "spacing",
    )),
    "counted": Bank(first=9, last=9, fields=("rexmits", "losses", "tx_queued")),
}
# fmt: on
"""Every field stands in exactly one. A report reads of the banks written behind step 5, all in one cycle, and is complete in step
``INQUIRED``: what it tells is of one moment."""

INQUIRED = 2
LATER = tuple(sorted({bank.first for bank in BANKS.values() if bank.first > INQUIRED}))
"""A page that READ_TCB reads is put together on the way: of the fields known at step INQUIRED, and of those that these
steps are the first to look at."""


def fields_from(cfg: EngineConfig, first: int) -> dict:
    """Shapes of the fields whose bank is read for this step, by name."""
    shapes = fields(cfg)
    return {name: shapes[name] for bank in BANKS.values() if bank.first == first for name in bank.fields}


class BankMemory:
    """One bank of all connections: a memory in the pipeline's own module, and the signals at it.

    A part of the pipeline and no component beside it: the simulation lets the whole of it rest (``native/resting.py``).

    Attributes
    ----------
    id, word : id in, bank.layout out
        The word of ``id``, behind it the row, two cycles before, from a flip-flop; what is written in the cycle of ``id`` may or
        may not be in it.
    id_again, again
        Likewise, if ``bank.again``.
    write_en, write_id, write : in
    """

    def __init__(self, m: Module, cfg: EngineConfig, name: str, bank: Bank):
        layout = bank.layout(cfg)
        # Issue keeps events that would meet here apart, or forwards.
        memory = Memory(shape=layout, depth=cfg.connections * bank.rows, init=[], attrs={"ram_style": "block"} | APART)
        m.submodules[f"bank_{name}"] = memory
        bits = cfg.id_bits + bank.rows - 1
        self.write_en, self.write_id, self.write = Signal(), Signal(bits), Signal(layout)
        write = memory.write_port()
        m.d.comb += [write.en.eq(self.write_en), write.addr.eq(self.write_id), write.data.eq(self.write)]
        self.id, self.word = self._reader(m, memory, bits, layout, name)
        if bank.again:
            self.id_again, self.again = self._reader(m, memory, bits, layout, f"{name}_again")

    @staticmethod
    def _reader(m, memory, bits, layout, name):
        ident, word = Signal(bits, name=f"id_{name}"), Signal(layout, name=f"word_{name}", reset_less=True)
        read = memory.read_port()
        m.d.comb += read.addr.eq(ident)
        m.d.sync += word.eq(read.data)
        return ident, word
