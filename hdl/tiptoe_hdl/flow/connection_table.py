"""Connection table: from a segment's four-tuple to a connection or half-open connection (RFC 9293 section 3.3.1).

Two keyed hashes choose one row each of two memories with four ways a row; a lookup reads both rows and compares the
whole four-tuple with all eight entries. An insertion takes the emptier row (two-choice hashing), so that rows do not
overflow while half of the entries are free.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FlowResponse, FourTuple, table_result, table_update
from ..wire.apart import APART
from ..wire.choice import select
from .keyed_hash import GROUP, X_BITS, final_sums, folded, key_sequence, partial_sums
from .table_updates import HASHES, WAYS, TableUpdates, found_for, index_bits, row_bits, target

RESULTS = 4
"""Lookups under way or not yet taken."""
PIECE = 8
"""Bits of a four-tuple compared in one stage."""


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
        bits = row_bits(cfg)

        m.submodules.updates = maker = TableUpdates(cfg)
        change, issue, block, write_row = maker.change, maker.issue, maker.block, maker.write
        for number in range(2):
            wiring.connect(m, wiring.flipped(self.update[number]), maker.update[number])
            wiring.connect(m, maker.status[number], wiring.flipped(self.status[number]))
        room = Signal(range(RESULTS + 1), init=RESULTS)
        lookup_taken = Signal()
        m.d.comb += [
            self.ready.eq(maker.ready),
            self.lookup.ready.eq(self.ready & room.any() & ~issue & ~block),
            lookup_taken.eq(self.lookup.valid & self.lookup.ready),
        ]

        # Stage 1: lookup or update. Stage 2: partial sums of the hash. Stage 3: the sums address the rows.
        tuples = [Signal(FourTuple, name=f"tuple{stage}", reset_less=True) for stage in range(5)]
        lookups = [Signal(name=f"lookup{stage}") for stage in range(7)]
        updates = [Signal(name=f"update{stage}") for stage in range(8)]
        hashed = Signal(X_BITS, reset_less=True)
        partial = Signal(HASHES * bits * X_BITS // GROUP, reset_less=True)
        sequence = key_sequence(m, self.hash_key, X_BITS + HASHES * bits - 1)
        m.d.comb += [
            tuples[0].eq(Mux(issue, change.tuple, self.lookup.payload)),
            lookups[0].eq(lookup_taken),
            updates[0].eq(issue),
        ]
        m.d.sync += [
            hashed.eq(folded(tuples[0])),
            partial.eq(partial_sums(hashed, sequence, HASHES * bits)),
        ]
        for stages in (tuples, lookups, updates):
            for stage in range(1, len(stages)):
                m.d.sync += stages[stage].eq(stages[stage - 1])
        rows = Signal(HASHES * bits)
        m.d.comb += rows.eq(final_sums(partial))

        m.d.comb += [maker.hashed.eq(updates[2]), maker.rows.eq(rows)]

        # Stage 4: nothing but the memories' output registers. Stages 5 and 6: compare. Stage 7: choose.
        hits = []
        targets = []
        taken = []
        answer = Signal(found_for(cfg))  # of the rows of the last update
        for way in range(HASHES * WAYS):
            row_of = slice(way // WAYS * bits, (way // WAYS + 1) * bits)
            m.submodules[f"way{way}"] = storage = memory.Memory(
                shape=entry(cfg), depth=cfg.buckets_per_hash, init=[], attrs={"ram_style": "block"} | APART
            )  # no row is read in the cycle of an update's write
            write = storage.write_port()
            read = storage.read_port()
            m.d.comb += [
                read.addr.eq(rows[row_of]),
                write.addr.eq(write_row.rows[row_of]),
                write.en.eq(write_row.ways[way]),
                write.data.valid.eq(write_row.valid),
                write.data.is_syncache.eq(change.is_syncache),
                write.data.index.eq(change.index),
                write.data.tuple.eq(change.tuple),
            ]
            found = Signal(entry(cfg), name=f"found{way}", reset_less=True)
            equal = Signal(len(tuples[4].as_value()) // PIECE, name=f"equal{way}", reset_less=True)
            valid = Signal(2, name=f"valid{way}", reset_less=True)
            hit = Signal(name=f"hit{way}", reset_less=True)
            held = [Signal(target(cfg), name=f"target{way}_{stage}", reset_less=True) for stage in range(2)]
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
                m.d.sync += answer.occupied[way].eq(valid[1])

        hit_ways = Signal(HASHES * WAYS)
        result = Signal(table_result(cfg))
        chosen = Signal(target(cfg))
        m.d.comb += [
            hit_ways.eq(Cat(hits)),
            chosen.eq(select(hit_ways, targets)),
            result.hit.eq(hit_ways.any()),
            result.is_syncache.eq(chosen.is_syncache),
            result.full.eq(Cat(taken).all()),
            result.index.eq(chosen.index),
        ]
        self._results(m, room, lookup_taken, lookups[6], result)

        with m.If(updates[6]):
            m.d.sync += [answer.ways.eq(hit_ways), answer.target.eq(chosen)]
        m.d.comb += [maker.answered.eq(updates[7]), maker.found.eq(answer)]
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
