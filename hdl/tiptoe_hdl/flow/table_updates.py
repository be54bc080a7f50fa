"""Updates of the connection table, one after the other; an insertion goes into the emptier row (two-choice hashing)."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FlowResponse, Status, TableOp, table_update

HASHES = 2
WAYS = 4


def index_bits(cfg: EngineConfig) -> int:
    """Bits of a table result's index."""
    return max(cfg.id_bits, cfg.syncache_bits)


def target(cfg: EngineConfig) -> data.StructLayout:
    """Whose an entry is."""
    return data.StructLayout({"is_syncache": 1, "index": index_bits(cfg)})


def found_for(cfg: EngineConfig) -> data.StructLayout:
    """What the rows of an update hold: ways in use; the one with its four-tuple, and whose that is."""
    return data.StructLayout({"occupied": HASHES * WAYS, "ways": HASHES * WAYS, "target": target(cfg)})


def row_write(cfg: EngineConfig) -> data.StructLayout:
    """In front of the write ports: a row of each hash, and which of their ways are written, with ``valid``."""
    return data.StructLayout({"rows": HASHES * row_bits(cfg), "ways": HASHES * WAYS, "valid": 1})


def row_bits(cfg: EngineConfig) -> int:
    """Bits of a row's number."""
    return (cfg.buckets_per_hash - 1).bit_length()


class TableUpdates(wiring.Component):
    """Clears the rows after reset, a row of each hash in a cycle, then makes one update after the other, of two clients in turn.

    Timing: an update takes two cycles until ``issue``, and four from ``answered`` until it is written; another one comes after
    that.

    Members
    -------
    update : In array of 2 streams of ``table_update``; status : Out array of 2 streams of FlowResponse
        As the table's.
    change : Out ``table_update``
        The update being made, from the cycle of ``issue`` on until it is written.
    issue, block : Out(1)
        In this cycle the update is looked up instead of a four-tuple; in this one nothing is: the next one writes.
    hashed : In(1); rows : In
        Pulse behind ``issue``: these are the update's rows.
    answered : In(1); found : In ``found_for``
        Pulse: what the rows hold, from then on.
    write : Out ``row_write``
        From flip-flops.
    ready : Out(1)
        The rows are cleared.
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        super().__init__({
            "update": In(stream.Signature(table_update(cfg))).array(2),
            "status": Out(stream.Signature(FlowResponse)).array(2),
            "change": Out(table_update(cfg)), "issue": Out(1), "block": Out(1),
            "hashed": In(1), "rows": In(HASHES * row_bits(cfg)),
            "answered": In(1), "found": In(found_for(cfg)),
            "write": Out(row_write(cfg)), "ready": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        change = Signal(table_update(cfg), reset_less=True)
        write_rows, write_ways, write_valid = Signal(HASHES * row_bits(cfg)), Signal(HASHES * WAYS), Signal()
        occupied, found_ways, found_target = self.found.occupied, self.found.ways, self.found.target
        m.d.comb += [
            self.change.eq(change),
            self.write.rows.eq(write_rows), self.write.ways.eq(write_ways), self.write.valid.eq(write_valid),
        ]  # fmt: skip
        with m.If(self.hashed):
            m.d.sync += write_rows.eq(self.rows)

        client = Signal()
        taking = Signal(2)  # a bit a client, in the state "Take"
        status = Signal(Status)
        free_ways = Signal(HASHES * WAYS)
        room = Signal()
        matches = Signal()
        wanted = Cat(self.update[number].valid & ~self.status[number].valid for number in range(2))
        cleared = Signal(range(cfg.buckets_per_hash))

        for number in range(2):
            m.d.comb += self.update[number].ready.eq(taking[number])
            with m.If(self.status[number].ready):
                m.d.sync += self.status[number].valid.eq(0)
            with m.If(taking[number]):
                m.d.sync += change.eq(self.update[number].payload)

        with m.FSM():
            with m.State("Clear"):
                m.d.sync += [
                    cleared.eq(cleared + 1),
                    write_rows.eq(Cat(cleared, cleared)),
                    write_ways.eq(~0),
                    write_valid.eq(0),
                ]
                with m.If(cleared == cfg.buckets_per_hash - 1):
                    m.next = "Cleared"
            with m.State("Cleared"):
                m.d.sync += [write_ways.eq(0), self.ready.eq(1)]
                m.next = "Idle"
            with m.State("Idle"):
                # In turn if both ask: in this state the one just served has its status yet to be taken.
                m.d.sync += [client.eq(wanted[1]), taking.eq(Cat(wanted[0] & ~wanted[1], wanted[1]))]
                with m.If(wanted.any()):
                    m.next = "Take"
            with m.State("Take"):
                m.d.sync += taking.eq(0)
                m.next = "Issue"
            with m.State("Issue"):
                m.d.comb += self.issue.eq(1)
                m.next = "Read"
            with m.State("Read"):
                with m.If(self.answered):
                    m.next = "Choose"
            with m.State("Choose"):
                # A lookup taken now would read while "Write" writes.
                m.d.comb += self.block.eq(1)
                rows = [occupied[:WAYS], occupied[WAYS:]]
                free = [_lowest(~row) for row in rows]
                counts = [_count(row) for row in rows]
                m.d.sync += [
                    free_ways.eq(Mux(counts[1] < counts[0], free[1] << WAYS, free[0])),
                    room.eq(~occupied.all()),
                    matches.eq((found_target.index == change.index) & (found_target.is_syncache == change.is_syncache)),
                ]
                m.next = "Decide"
            with m.State("Decide"):
                exists = found_ways.any()
                m.d.sync += [write_valid.eq(1), status.eq(Status.OK)]
                with m.Switch(change.op):
                    with m.Case(TableOp.INSERT):
                        with m.If(exists):
                            m.d.sync += status.eq(Status.EXISTS)
                        with m.Elif(~room):
                            m.d.sync += status.eq(Status.TABLE_FULL)
                        with m.Else():
                            m.d.sync += write_ways.eq(free_ways)
                    with m.Case(TableOp.REPLACE):
                        with m.If(exists):
                            m.d.sync += write_ways.eq(found_ways)
                        with m.Else():
                            m.d.sync += status.eq(Status.BAD_STATE)
                    with m.Case(TableOp.DELETE):
                        m.d.sync += write_valid.eq(0)
                        with m.If(exists & matches):
                            m.d.sync += write_ways.eq(found_ways)
                        with m.Else():
                            m.d.sync += status.eq(Status.BAD_STATE)
                    with m.Default():
                        m.d.sync += status.eq(Status.BAD_ARGUMENT)
                m.next = "Write"
            with m.State("Write"):
                m.d.sync += write_ways.eq(0)
                with m.Switch(client):
                    for number in range(2):
                        with m.Case(number):
                            m.d.sync += [
                                self.status[number].valid.eq(1),
                                self.status[number].payload.status.eq(status),
                            ]
                m.next = "Idle"
        return m


def _lowest(bits):
    """One-hot: the lowest set bit."""
    return Cat(bit & ~bits[:position].any() if position else bit for position, bit in enumerate(bits))


def _count(bits):
    """How many of four bits are set."""
    return (bits[0] + bits[1]) + (bits[2] + bits[3])
