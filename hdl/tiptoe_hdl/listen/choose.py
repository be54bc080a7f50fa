"""States of the listen unit between two jobs: which one comes next, and the wait for its entry. ``u`` is the ListenUnit."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Signal

from .jobs import Job

LOAD_CYCLES = {Job.SYN: 2, Job.SEGMENT: 6, Job.REPORT: 2, Job.LEFT: 3, Job.DROP: 3, Job.KILL: 3, Job.TIMER: 4}
"""Cycles from the index to the facts that the job needs."""

FIRST_STATE = {
    Job.SYN: "Number", Job.SEGMENT: "Judge", Job.REPORT: "Report", Job.LEFT: "Left",
    Job.DROP: "Drop", Job.KILL: "Kill", Job.TIMER: "Timer",
}  # fmt: skip


def choose(m: Module, u):
    """Segments at once; after each of them, what else there is, its kinds in turn."""
    s, kinds = u.states, ("Events", "Commands", "Entries")
    prefer = Signal(init=1)  # the last job was no segment: a segment goes first
    first = Signal()  # there is nothing else, or it does anyway
    turn = Signal(len(kinds), init=1)  # a bit a kind
    wanted = Signal.like(turn)
    looked = Signal()  # ``wanted`` is of this stay in Idle, not what the last job has just done
    dropping, listening = Signal(), Signal()
    wants = Signal.like(turn)
    m.d.comb += [
        dropping.eq(u.drop.valid & ~u.drop_status.valid),
        listening.eq(u.listen.valid & ~u.listen_status.valid & ~u.killer.active),
        wants.eq(Cat(
            u.left_pending | (u.reports.r_rdy & ~u.event.valid),
            dropping | listening,
            u.killer.active | u.sweep.active,
        )),
    ]  # fmt: skip
    m.d.sync += [
        wanted.eq(wants),
        looked.eq(s.at("Idle")),
        first.eq(prefer | ~wants.any()),
    ]
    with s("Start"):
        with m.If(u.ready):
            s.go("Idle")
    with s("Idle"):
        with m.If(u.handshake.valid & ~u.verdict.valid & first):
            m.d.sync += prefer.eq(0)
            with m.If(u.handshake.payload.hit):
                s.go("Load")
            with m.Else():
                s.go("Find")
        with m.Elif(looked):
            m.d.sync += turn.eq(turn.rotate_left(1))
            for number, state in enumerate(kinds):
                with m.If(turn[number] & wanted[number]):
                    m.d.sync += prefer.eq(1)
                    s.go(state)
    with s("Events"):
        with m.If(~u.left_pending):
            m.d.comb += u.pop_report.eq(1)
            m.d.sync += u.report.eq(u.reports.r_data)
        s.go("Load")
    with s("Commands"):
        with m.If(dropping):
            s.go("Load")
        with m.Else():
            s.go("Listen")
    with s("Entries"):
        s.go("Load")

    # Whose turn it could be is prepared before it is clear that it is.
    events, entries = s.at("Events"), s.at("Entries")
    ways = (
        (s.at("Idle"), Job.SEGMENT, u.handshake.payload.index),
        (s.at("Found"), Job.SYN, u.cache.free_index),
        (events & u.left_pending, Job.LEFT, u.report[1:]),
        (events & ~u.left_pending, Job.REPORT, u.reports.r_data[1:]),
        (s.at("Commands"), Job.DROP, u.drop.payload[: len(u.index)]),
        (entries & u.killer.active, Job.KILL, u.killer.index),
        (entries & ~u.killer.active, Job.TIMER, u.sweep.index),
    )
    wait = Signal(max(LOAD_CYCLES.values()))  # its one moves down, and is at the end when the wait is
    with m.If(Cat(way for way, _, _ in ways).any()):
        m.d.sync += u.index.eq(reduce(or_, (index & way.replicate(len(u.index)) for way, _, index in ways)))
        for way, job, _ in ways:
            m.d.sync += u.job[job].eq(way)
        for cycles in range(len(wait)):
            m.d.sync += wait[cycles].eq(Cat(way for way, job, _ in ways if LOAD_CYCLES[job] - 1 == cycles).any())
    with s("Load"):
        m.d.sync += wait.eq(wait >> 1)
        with m.If(wait[0]):
            for job, state in FIRST_STATE.items():
                with m.If(u.job[job]):
                    s.go(state)
