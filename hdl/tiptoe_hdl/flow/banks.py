"""The TCB cut by time: a field is in the pipeline from the step that first looks at it to the one that last changes it.

Each bank is a memory of its own, read just ahead of its first step and written right behind its last. So a field takes no
flip-flops where nobody looks at it; and a bank that is written early needs no forwarding: the next event of the id, at the
distance that the others allow, finds it in the memory.
"""

from typing import NamedTuple

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from .tcb import FIELDS


class Bank(NamedTuple):
    """Steps count from 1. ``forwarded``: the step that last changes it is too late for the next event to read it.
    ``again``: it is read a second time, for the segment that leaves.
    """

    first: int
    last: int
    fields: tuple[str, ...]
    forwarded: bool = False
    again: bool = False

    @property
    def layout(self) -> data.StructLayout:
        """Its fields' shapes, as in FIELDS."""
        return data.StructLayout({name: FIELDS[name] for name in self.fields})


# fmt: off
BANKS = {
    # what a segment says of itself, besides its numbers
    "header": Bank(first=1, last=5, again=True, fields=("iss", "maxseg", "ws_ok", "rcv_scale")),
    # what an event is compared with
    "compared": Bank(first=1, last=5, fields=(
        "state", "provisioned", "generation", "reason", "established", "snd_log2", "rcv_log2", "irs",
        "snd_una", "snd_wnd", "snd_scale", "snd_wl1", "cwnd", "ssthresh", "recover", "rcv_nxt", "rcv_lim", "ooo",
    )),
    # what the conclusions take besides
    "concluded": Bank(first=2, last=5, fields=(
        "peer_closed", "bad_doorbell", "syncache_ref", "snd_end", "fin_queued", "fin_acked",
        "max_sndwnd", "recent_wnd", "bytes_acked", "dupacks", "in_recovery", "recover_valid", "reno",
        "rtt_valid", "srtt", "rttvar", "rexmt_shift", "unanswered", "fin_seq", "ooo_valid", "delack_deadline",
    )),
    # the peer's end
    "ending": Bank(first=2, last=6, fields=("fin_seen", "msl_on", "msl_deadline")),
    # how far we have come with sending
    "edges": Bank(first=1, last=8, forwarded=True, fields=("snd_nxt", "snd_max", "rcv_adv")),
    # what sending changes besides
    "sent": Bank(first=2, last=9, forwarded=True, fields=(
        "fin_sent", "rexmt_one", "force", "ack_now", "delack", "rtt_active", "rtt_seq", "rtt_start", "rto",
        "rexmt_on", "rexmits", "rexmt_deadline", "persist", "tx_queued",
    )),
}
# fmt: on
"""Every field stands in exactly one. A report reads of the banks written behind step 5 only: what it tells is of one moment."""


class BankMemory(wiring.Component):
    """One bank of all connections.

    Ports
    -----
    id : In(id_bits), word : Out(bank.layout)
        The word of ``id`` two cycles before, from a flip-flop; what is written in the cycle of ``id`` may or may not be in it.
    id_again : In(id_bits), again : Out(bank.layout)
        Likewise, if ``bank.again``.
    write_en : In(1), write_id : In(id_bits), write : In(bank.layout)
    """

    def __init__(self, cfg: EngineConfig, bank: Bank):
        self._cfg, self._bank = cfg, bank
        again = {"id_again": In(cfg.id_bits), "again": Out(bank.layout)} if bank.again else {}
        super().__init__(
            {
                "id": In(cfg.id_bits),
                "word": Out(bank.layout),
                "write_en": In(1),
                "write_id": In(cfg.id_bits),
                "write": In(bank.layout),
            }
            | again
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=self._bank.layout, depth=self._cfg.connections, init=[])
        write = memory.write_port()
        m.d.comb += [write.en.eq(self.write_en), write.addr.eq(self.write_id), write.data.eq(self.write)]
        reads = [(self.id, self.word)] + ([(self.id_again, self.again)] if self._bank.again else [])
        for number, (ident, word) in enumerate(reads):
            read = memory.read_port()
            held = Signal(self._bank.layout, reset_less=True, name=f"held_{number}")
            m.d.comb += [read.addr.eq(ident), word.eq(held)]
            m.d.sync += held.eq(read.data)
        return m
