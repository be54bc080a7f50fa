"""States of the listen unit between two jobs: which one comes next, and the wait for its entry. ``u`` is the ListenUnit."""

from amaranth.hdl import Cat, Module, Signal

from ..wire.choice import select
from .jobs import Job

LOAD_CYCLES = {Job.SYN: 2, Job.SEGMENT: 7, Job.REPORT: 2, Job.LEFT: 3, Job.DROP: 3, Job.KILL: 3, Job.TIMER: 4}
"""Cycles from the index to the facts that the job needs."""

FIRST_STATE = {
    Job.SYN: "Insert", Job.SEGMENT: "Judge", Job.REPORT: "Report", Job.LEFT: "Left",
    Job.DROP: "Drop", Job.KILL: "Kill", Job.TIMER: "Timer",
}  # fmt: skip


def choose(m: Module, u):
    """Segments that the dispatcher waits with at once, then SYNs, in turn if both are there; but after each of them up to two
    other jobs, their kinds in turn: by the time a peer's ACK is served, its SYN has been reported, which takes two jobs.

    A job that has something to send begins only when there is room for it: no job waits for the line."""
    s, kinds = u.states, ("Events", "Commands", "Entries")
    others = Signal(2)  # a bit for each job that may go before the next segment
    first = Signal()  # a segment or SYN goes now
    was_segment = Signal()  # a SYN that waits is next
    wants = Signal(len(kinds))  # a bit a kind
    last = Signal.like(wants, init=1)  # the kind of the last job
    chosen = Signal.like(wants)
    segment, again = Signal(), Signal()  # chosen: one that the dispatcher waits with, or a SYN that came again
    looked = Signal()  # ``chosen`` is of this stay in Idle: the last job is done with
    dropping, listening = Signal(), Signal()
    m.d.comb += [
        dropping.eq(u.drop.valid & ~u.drop_status.valid & u.control_room),
        listening.eq(u.listen.valid & ~u.listen_status.valid & ~u.killer.active & (~u.writing | u.listeners.written.valid)),
        wants.eq(Cat(
            u.left_pending | (u.reports.r_rdy & ~u.event.valid),
            dropping | listening,
            (u.killer.active | u.sweep.active) & u.control_room,
        )),
    ]  # fmt: skip
    m.d.sync += [looked.eq(s.at("Idle")), first.eq(~others[0] | ~wants.any())]
    for kind in range(3):  # after itself it comes last, after the one before it first
        before, after = (kind + 2) % 3, (kind + 1) % 3
        m.d.sync += chosen[kind].eq(wants[kind] & (last[before] | ~wants[before] & (last[after] | ~wants[after])))
    with s("Start"):
        with m.If(u.ready):
            s.go("Idle")
    with s("Idle"):
        with m.If(u.handshake.valid & ~u.verdict.valid & first & ~(was_segment & u.syn_ready)):
            m.d.sync += [others.eq(0b11), was_segment.eq(1), u.queued.eq(0)]
            m.d.comb += segment.eq(1)
            s.go("Load")
        with m.Elif(u.syn_ready & first):
            m.d.sync += [others.eq(0b11), was_segment.eq(0), u.queued.eq(1)]
            m.d.comb += again.eq(u.syns.o.payload.hit)
            with m.If(u.syns.o.payload.hit):
                s.go("Load")
            with m.Else():
                s.go("Syn")
        with m.Elif(looked):
            for kind, state in enumerate(kinds):
                with m.If(chosen[kind]):
                    m.d.sync += [others.eq(others >> 1), last.eq(1 << kind)]
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
        (segment, Job.SEGMENT, u.handshake.payload.index),
        (again, Job.SEGMENT, u.syns.o.payload.index),
        (s.at("Syn"), Job.SYN, u.cache.free_index),
        (events & u.left_pending, Job.LEFT, u.report[1:]),
        (events & ~u.left_pending, Job.REPORT, u.reports.r_data[1:]),
        (s.at("Commands"), Job.DROP, u.drop.payload[: len(u.index)]),
        (entries & u.killer.active, Job.KILL, u.killer.index),
        (entries & ~u.killer.active, Job.TIMER, u.sweep.index),
    )
    wait = Signal(max(LOAD_CYCLES.values()))  # its one moves down, and is at the end when the wait is
    with m.If(Cat(way for way, _, _ in ways).any()):
        m.d.sync += u.index.eq(select((way for way, _, _ in ways), (index for _, _, index in ways)))
        for job in Job:
            m.d.sync += u.job[job].eq(Cat(other for other, its, _ in ways if its == job).any())
        for cycles in range(len(wait)):
            m.d.sync += wait[cycles].eq(Cat(way for way, job, _ in ways if LOAD_CYCLES[job] - 1 == cycles).any())
    with s("Load"):
        m.d.sync += wait.eq(wait >> 1)
        with m.If(wait[0]):
            for job, state in FIRST_STATE.items():
                with m.If(u.job[job]):
                    s.go(state)
