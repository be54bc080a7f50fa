"""Connection table: from a segment's four-tuple to a connection or half-open connection (RFC 9293 section 3.3.1).

Two keyed hashes choose one row each of two memories with four ways a row; a lookup reads both rows and compares the
whole four-tuple with all eight entries. An insertion takes the emptier row (two-choice hashing), so that rows do not
overflow while half of the entries are free.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FlowResponse, FourTuple, Status, TableOp, table_result, table_update
from ..wire.choice import select
from .keyed_hash import GROUP, X_BITS, final_sums, folded, key_sequence, partial_sums

HASHES = 2
WAYS = 4
RESULTS = 4
"""Lookups under way or not yet taken."""
PIECE = 8
"""Bits of a four-tuple compared in one stage."""


def index_bits(cfg: EngineConfig) -> int:
    """Bits of a table result's index."""
    return max(cfg.id_bits, cfg.syncache_bits)


def entry(cfg: EngineConfig) -> data.StructLayout:
    """One way of one row."""
    return data.StructLayout({"valid": 1, "is_syncache": 1, "index": index_bits(cfg), "tuple": FourTuple})


class ConnectionTable(wiring.Component):
    """Exact-match table with lookups in order and updates from two clients.

    A lookup sees the table before or after an update, never a mix: an update writes one way of one row, in a cycle in
    which no row is read.

    Timing: ``result`` follows a lookup after 7 cycles; up to RESULTS lookups are under way, one a cycle while there
    is room. An update takes about 13 cycles, of which it keeps lookups out for 2.
    After reset all rows are cleared, one a cycle; lookups and updates wait until then.

    Members
    -------
    hash_key : In(64)
        Must not change while entries exist.
    lookup : In stream of FourTuple
    result : Out stream of ``table_result``, one a lookup, in order
    update : In array of 2 streams of ``table_update``
        0: command processor, 1: listen unit.
    status : Out array of 2 streams of FlowResponse, one an update
        INSERT: OK, EXISTS or TABLE_FULL. REPLACE, DELETE: OK or BAD_STATE.
    ready : Out(1)
        The rows are cleared.
    """

    def __init__(self, cfg: EngineConfig):
        if cfg.buckets_per_hash < 2:
            raise ValueError("the connection table needs at least 2 rows a hash")
        self.cfg = cfg
        super().__init__(
            {
                "hash_key": In(64),
                "lookup": In(stream.Signature(FourTuple)),
                "result": Out(stream.Signature(table_result(cfg))),
                "update": In(stream.Signature(table_update(cfg))).array(2),
                "status": Out(stream.Signature(FlowResponse)).array(2),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        row_bits = (cfg.buckets_per_hash - 1).bit_length()
        target = data.StructLayout({"is_syncache": 1, "index": index_bits(cfg)})

        # The update being made.
        change = Signal(table_update(cfg), reset_less=True)
        issue = Signal()  # this cycle the update enters the pipeline instead of a lookup
        block = Signal()  # this cycle neither enters
        room = Signal(range(RESULTS + 1), init=RESULTS)
        lookup_taken = Signal()
        m.d.comb += [
            self.lookup.ready.eq(self.ready & room.any() & ~issue & ~block),
            lookup_taken.eq(self.lookup.valid & self.lookup.ready),
        ]

        # Stage 1: lookup or update. Stage 2: partial sums of the hash. Stage 3: the sums address the rows.
        tuples = [Signal(FourTuple, name=f"tuple{stage}", reset_less=True) for stage in range(5)]
        lookups = [Signal(name=f"lookup{stage}") for stage in range(7)]
        updates = [Signal(name=f"update{stage}") for stage in range(8)]
        hashed = Signal(X_BITS, reset_less=True)
        partial = Signal(HASHES * row_bits * X_BITS // GROUP, reset_less=True)
        sequence = key_sequence(m, self.hash_key, X_BITS + HASHES * row_bits - 1)
        m.d.comb += [
            tuples[0].eq(Mux(issue, change.tuple, self.lookup.payload)),
            lookups[0].eq(lookup_taken),
            updates[0].eq(issue),
        ]
        m.d.sync += [
            hashed.eq(folded(tuples[0])),
            partial.eq(partial_sums(hashed, sequence, HASHES * row_bits)),
        ]
        for stages in (tuples, lookups, updates):
            for stage in range(1, len(stages)):
                m.d.sync += stages[stage].eq(stages[stage - 1])
        rows = Signal(HASHES * row_bits)
        m.d.comb += rows.eq(final_sums(partial))

        # Writes: one way of one row, or all ways of both rows while clearing.
        write_rows = Signal(HASHES * row_bits)
        write_valid = Signal()
        write_ways = Signal(HASHES * WAYS)
        with m.If(updates[2]):
            m.d.sync += write_rows.eq(rows)

        # Stage 4: nothing but the memories' output registers. Stages 5 and 6: compare. Stage 7: choose.
        hits = []
        targets = []
        taken = []
        occupied = Signal(HASHES * WAYS)  # of the rows of the last update
        for way in range(HASHES * WAYS):
            row_of = slice(way // WAYS * row_bits, (way // WAYS + 1) * row_bits)
            m.submodules[f"way{way}"] = storage = memory.Memory(
                shape=entry(cfg), depth=cfg.buckets_per_hash, init=[], attrs={"ram_style": "block"}
            )
            write = storage.write_port()
            read = storage.read_port()
            m.d.comb += [
                read.addr.eq(rows[row_of]),
                write.addr.eq(write_rows[row_of]),
                write.en.eq(write_ways[way]),
                write.data.valid.eq(write_valid),
                write.data.is_syncache.eq(change.is_syncache),
                write.data.index.eq(change.index),
                write.data.tuple.eq(change.tuple),
            ]
            found = Signal(entry(cfg), name=f"found{way}", reset_less=True)
            equal = Signal(len(tuples[4].as_value()) // PIECE, name=f"equal{way}", reset_less=True)
            valid = Signal(2, name=f"valid{way}", reset_less=True)
            hit = Signal(name=f"hit{way}", reset_less=True)
            held = [Signal(target, name=f"target{way}_{stage}", reset_less=True) for stage in range(2)]
            difference = found.tuple.as_value() ^ tuples[4].as_value()
            m.d.sync += [
                found.eq(read.data),
                equal.eq(Cat(~difference[at : at + PIECE].any() for at in range(0, len(difference), PIECE))),
                held[0].is_syncache.eq(found.is_syncache),
                held[0].index.eq(found.index),
                valid.eq(Cat(found.valid, valid)),
                hit.eq(valid[0] & equal.all()),
                held[1].eq(held[0]),
            ]
            hits.append(hit)
            targets.append(held[1])
            taken.append(valid[1])
            with m.If(updates[6]):
                m.d.sync += occupied[way].eq(valid[1])

        hit_ways = Signal(HASHES * WAYS)
        result = Signal(table_result(cfg))
        chosen = Signal(target)
        m.d.comb += [
            hit_ways.eq(Cat(hits)),
            chosen.eq(select(hit_ways, targets)),
            result.hit.eq(hit_ways.any()),
            result.is_syncache.eq(chosen.is_syncache),
            result.full.eq(Cat(taken).all()),
            result.index.eq(chosen.index),
        ]
        self._results(m, room, lookup_taken, lookups[6], result)

        found_ways = Signal(HASHES * WAYS)
        found_target = Signal(target)
        with m.If(updates[6]):
            m.d.sync += [found_ways.eq(hit_ways), found_target.eq(chosen)]
        answer = updates[7], occupied, found_ways, found_target
        self._updates(m, change, issue, block, answer, (write_rows, write_ways, write_valid))
        return m

    def _results(self, m, room, lookup_taken, push, result):
        """Results wait in a shift register; ``room`` counts lookups that may still be accepted."""
        slots = [Signal(table_result(self.cfg), name=f"slot{slot}", reset_less=True) for slot in range(RESULTS)]
        filled = Signal(RESULTS)  # from the low end
        pop = Signal()
        m.d.comb += [
            self.result.valid.eq(filled[0]),
            self.result.payload.eq(slots[0]),
            pop.eq(self.result.valid & self.result.ready),
        ]
        m.d.sync += [
            room.eq(room + pop - lookup_taken),
            filled.eq(Mux(pop, Cat(filled[1:], 0) | (filled & push.replicate(RESULTS)),
                          filled | (Cat(1, filled) & push.replicate(RESULTS)))),
        ]  # fmt: skip
        # Slots that are not filled follow the results that may come.
        for slot, here, following, beyond in zip(slots, filled, [*slots[1:], result], [*filled[1:], 1], strict=True):
            with m.If(pop & beyond):
                m.d.sync += slot.eq(following)
            with m.Elif(pop | ~here):
                m.d.sync += slot.eq(result)

    def _updates(self, m, change, issue, block, answer, write):
        """Clears the rows after reset, then makes one update after the other.

        ``answer``: what the pipeline has found for the update. ``write``: the registers in front of the write ports.
        """
        cfg = self.cfg
        answered, occupied, found_ways, found_target = answer
        write_rows, write_ways, write_valid = write
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
                m.d.comb += issue.eq(1)
                m.next = "Read"
            with m.State("Read"):
                with m.If(answered):
                    m.next = "Choose"
            with m.State("Choose"):
                # A lookup taken now would read while "Write" writes.
                m.d.comb += block.eq(1)
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


def _lowest(bits):
    """One-hot: the lowest set bit."""
    return Cat(bit & ~bits[:position].any() if position else bit for position, bit in enumerate(bits))


def _count(bits):
    """How many of four bits are set."""
    return (bits[0] + bits[1]) + (bits[2] + bits[3])
