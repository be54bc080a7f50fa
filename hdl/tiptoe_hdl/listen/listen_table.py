"""Listen table: which listener a SYN is for (RFC 9293 section 3.10.7.2, the LISTEN state), in constant time."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FlowResponse, Status, is_v6, listen_write
from ..wire.apart import APART
from ..wire.choice import equal_before
from ..wire.valid_only import valid_only
from .states import States

LocalEndpoint = data.StructLayout({"laddr": 32, "lport": 16})

SLICE = 8
"""Bits of a local endpoint that address one memory."""
ROWS = 1 << SLICE
SLICES = len(LocalEndpoint(Const(0, 48)).as_value()) // SLICE
ADDRESS_SLICES = 32 // SLICE
"""The first ones: those of the address."""
RESULTS = 8
"""Results not yet taken: more than lookups can be under way in the connection table and before it."""


def listens(cfg: EngineConfig) -> data.StructLayout:
    """What a search finds; ``listener`` void without a hit."""
    return data.StructLayout({"hit": 1, "listener": cfg.listener_bits})


class ListenTable(wiring.Component):
    """A content-addressable memory made of block RAM, and behind it what each listener's SYN,ACKs say.

    Each of six memories has a row for every value of one byte of a local endpoint, with a bit for each listener that agrees
    with this value. A search reads a row of each, and whoever agrees in all of them listens, or in those of the port if it
    listens at any address: always in the same time, and no insertion can fail. A listener for the segment's address wins
    over one for any address, then the one with the lowest number.

    Any address means any IPv4 address: IPv6 has listeners of its own, with its stand-in for an address.

    A write changes one row of each memory, all in one cycle, while searches go on. What a search has found may be gone when
    it is used: the user looks at ``entry``.

    Invariant: a listener that is in use has one bit in each memory, in the rows of its place; one that is not has none.

    Timing: ``found`` follows ``find`` after seven cycles, every cycle if need be. A write takes ten cycles, and one more for
    each search that comes in its way. After reset all rows are cleared, one a cycle; until then nothing is found.

    Members
    -------
    write : In stream of ``listen_write``
    written : Out stream of FlowResponse, one a write
        An entry in use that is enabled again at the same endpoint says something else from then on, and is found all the
        while; at another endpoint EXISTS. BAD_STATE for one not in use that is to be disabled.
    find : In valid-only of LocalEndpoint
    found : Out stream of ``listens``, one a search, in order
        At most RESULTS searches have results that were not taken.
    index : In(listener_bits); entry : Out(``listen_write``)
        What was written last for ``index``, two cycles later.
    cookie_index, cookie_entry :
        The same for SYN cookies.
    changing : Out(1)
        From two cycles before something is written until three after, when ``entry`` says what is new: what it and
        ``cookie_entry`` say of that listener meanwhile may be nothing at all, since a row is read and written at once.
    ready : Out(1)
        The rows are cleared.
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        super().__init__(
            {
                "write": In(stream.Signature(listen_write(cfg))),
                "written": Out(stream.Signature(FlowResponse)),
                "find": In(valid_only(LocalEndpoint)),
                "found": Out(stream.Signature(listens(cfg))),
                "index": In(cfg.listener_bits),
                "entry": Out(listen_write(cfg)),
                "cookie_index": In(cfg.listener_bits),
                "cookie_entry": Out(listen_write(cfg)),
                "changing": Out(1),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        request = self.write.payload
        used = Signal(cfg.listeners)  # a bit a listener
        anywhere = Signal(cfg.listeners)  # it has, or had last, address 0
        mine = Signal(cfg.listeners)  # the bit of the listener to be written
        taken, idle = Signal(), Signal()
        same = Signal()  # its place is the one asked for
        row = Signal(SLICE)
        s = States(m, "Clear")

        # What the listeners say. Nobody looks at what is shown of an entry while it is ``changing``.
        m.submodules.storage = storage = memory.Memory(
            shape=listen_write(cfg), depth=max(2, cfg.listeners), init=[], attrs=APART
        )
        store, read = storage.write_port(), storage.read_port()
        m.d.comb += [
            read.addr.eq(self.index),
            store.addr.eq(Mux(s.at("Clear"), row[: cfg.listener_bits], request.listener)),
            store.data.eq(Mux(s.at("Clear"), 0, request)),
        ]
        cookie = storage.read_port()
        m.d.comb += cookie.addr.eq(self.cookie_index)
        m.d.sync += [self.entry.eq(read.data), self.cookie_entry.eq(cookie.data)]

        stored = Signal(2)
        m.d.sync += [
            stored.eq(Cat(s.at("Store"), stored)),
            self.changing.eq(
                s.at("Idle") & self.write.valid | s.at("Choose") | s.at("Judge") | s.at("Store") | stored.any()
            ),
        ]

        # Where they are: UNLISTEN does not say it.
        m.submodules.places = places = memory.Memory(
            shape=LocalEndpoint, depth=max(2, cfg.listeners), init=[], attrs=APART
        )
        place_write, place_read = places.write_port(), places.read_port()
        asked_for, place = Signal(LocalEndpoint), Signal(LocalEndpoint)
        m.d.comb += [
            asked_for.laddr.eq(request.laddr),
            asked_for.lport.eq(request.lport),
            place_read.addr.eq(request.listener),
            place_write.addr.eq(request.listener),
            place_write.data.eq(asked_for),
        ]
        # First where it is, to compare; then where it is to be.
        m.d.sync += place.eq(Mux(request.enable & ~s.at("Choose"), asked_for, place_read.data))
        m.d.comb += same.eq(equal_before(m, place, asked_for))

        # Searches have the memories' ports whenever they want; a row is neither read nor written for a write then.
        searching = Signal()
        wanted = Signal(LocalEndpoint)
        m.d.sync += [searching.eq(self.find.valid), wanted.eq(self.find.payload)]
        put = Signal()
        rows = []
        for number in range(SLICES):
            m.submodules[f"slice{number}"] = bits = memory.Memory(
                shape=cfg.listeners, depth=ROWS, init=[], attrs={"ram_style": "block"} | APART
            )  # no row is written in the cycle of a search
            write, read = bits.write_port(), bits.read_port()
            key = wanted.as_value().word_select(number, SLICE)
            own_key = place.as_value().word_select(number, SLICE)
            found = Signal(cfg.listeners, name=f"found{number}", reset_less=True)
            new = Signal(cfg.listeners, name=f"new{number}", reset_less=True)
            m.d.comb += [
                read.addr.eq(Mux(searching, key, own_key)),
                write.addr.eq(Mux(s.at("Clear"), row, own_key)),
                write.data.eq(Mux(s.at("Clear"), 0, new)),
                write.en.eq(put | s.at("Clear")),
            ]
            m.d.sync += found.eq(read.data)
            with m.If(s.at("Change")):
                m.d.sync += new.eq(Mux(request.enable, found | mine, found & ~mine))
            rows.append(found)
        wild: Value = anywhere
        if cfg.ipv6:  # in time for the rows
            v6 = Signal(2)
            m.d.sync += v6.eq(Cat(is_v6(wanted), v6))
            wild = anywhere & ~v6[-1].replicate(cfg.listeners)
        self._results(m, searching, rows, anywhere, wild)

        m.d.sync += [
            mine.eq(1 << request.listener),
            taken.eq((used & mine).any() & request.enable),
            idle.eq(~(used & mine).any() & ~request.enable),
        ]
        with s("Clear"):
            m.d.comb += store.en.eq(1)
            m.d.sync += row.eq(row + 1)
            with m.If(row == ROWS - 1):
                m.d.sync += self.ready.eq(1)
                s.go("Idle")
        with s("Idle"):
            with m.If(self.write.valid):
                s.go("Choose")
        with s("Choose"):
            s.go("Judge")
        with s("Judge"):
            s.go("Store")
        with s("Store"):
            again = taken & same
            m.d.comb += [store.en.eq((again | ~taken) & ~idle), place_write.en.eq(~taken & request.enable)]
            with m.If(again):
                m.d.sync += self.written.payload.status.eq(Status.OK)
                s.go("Answer")
            with m.Elif(taken | idle):
                m.d.sync += self.written.payload.status.eq(Mux(taken, Status.EXISTS, Status.BAD_STATE))
                s.go("Answer")
            with m.Else():
                m.d.sync += [
                    self.written.payload.status.eq(Status.OK),
                    used.eq(Mux(request.enable, used | mine, used & ~mine)),
                ]
                with m.If(request.enable):
                    m.d.sync += anywhere.eq(Mux(request.laddr == 0, anywhere | mine, anywhere & ~mine))
                s.go("Read")
        with s("Read"):
            with m.If(~searching):
                s.go("Data")
        with s("Data"):
            s.go("Change")
        with s("Change"):
            s.go("Put")
        with s("Put"):
            # Not in a cycle in which a search reads: it could be this row.
            with m.If(~searching):
                m.d.comb += put.eq(1)
                s.go("Answer")
        with s("Answer"):
            m.d.comb += self.write.ready.eq(1)
            m.d.sync += self.written.valid.eq(1)
            s.go("Written")
        with s("Written"):
            with m.If(self.written.ready):
                m.d.sync += self.written.valid.eq(0)
                s.go("Idle")
        s.done()
        return m

    def _results(self, m, searching, rows, anywhere, wild):
        """From the rows to a listener's number, and the results not yet taken: in a shift register. ``wild``: whose address does
        not matter to the search of these rows."""
        cfg = self.cfg
        asked = Signal(5)  # a search moves down
        known = Signal()  # the rows are not being cleared
        matches, candidates, chosen = (
            Signal(cfg.listeners, name=name, reset_less=True) for name in ("matches", "candidates", "chosen")
        )
        exact, result = Signal(cfg.listeners), Signal(listens(cfg))
        m.d.comb += exact.eq(matches & ~anywhere)
        m.d.sync += [
            asked.eq(Cat(searching, asked)),
            known.eq(self.ready),
            matches.eq((_all_of(rows[:ADDRESS_SLICES]) | wild) & _all_of(rows[ADDRESS_SLICES:])),
            candidates.eq(Mux(exact.any(), exact, matches)),
            chosen.eq(candidates & (~candidates + 1)),  # the lowest one
        ]
        m.d.comb += [result.hit.eq(known & chosen.any()), result.listener.eq(_number(chosen))]
        slots = [Signal(listens(cfg), name=f"result{slot}") for slot in range(RESULTS)]
        filled = Signal(RESULTS)  # from the low end
        push, pop = asked[4], Signal()
        m.d.comb += [
            self.found.valid.eq(filled[0]),
            self.found.payload.eq(slots[0]),
            pop.eq(self.found.valid & self.found.ready),
        ]
        grown = filled | (Cat(1, filled) & push.replicate(RESULTS))
        m.d.sync += filled.eq(Mux(pop, Cat(filled[1:], 0) | (filled & push.replicate(RESULTS)), grown))
        for slot, here, following, beyond in zip(slots, filled, [*slots[1:], result], [*filled[1:], 0], strict=True):
            with m.If(pop):
                m.d.sync += slot.eq(Mux(beyond, following, result))
            with m.Elif(~here):
                m.d.sync += slot.eq(result)


def _all_of(rows):
    """Bits that are set in all of them."""
    every = rows[0]
    for row in rows[1:]:
        every = every & row
    return every


def _number(one_hot):
    """Which bit is set."""
    size = max(1, (len(one_hot) - 1).bit_length())
    return Cat(Cat(one_hot[n] for n in range(len(one_hot)) if n >> bit & 1).any() for bit in range(size))
