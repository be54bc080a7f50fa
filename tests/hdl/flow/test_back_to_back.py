"""Events of one connection as close as the hazard rule lets them follow each other do what they do far apart: every field that a
pass leaves behind reaches the next one, from its bank or forwarded (docs/theory.md, "Banks")."""

import random

import pytest

from tests.hdl.flow.bench import FlowBench, Segment

OTHERS = 2
"""Connections whose events stand in between, so that other distances than the smallest are met too."""


def _script(rng, length):
    """Events of a peer that sends in order, out of order and again, and of a host that sends and reads. The window lets all go at
    once: data that waits for a turn would leave at another place between events that lie apart."""
    next_seq, written, read, events = 1, 0, 0, []
    acked = 1
    for _ in range(length):
        kind = rng.choice(("data", "data", "ahead", "again", "ack", "bell", "read"))
        size = rng.choice((1, 7, 100, 536, 1460))
        if kind == "data":
            events.append(("segment", Segment("AP", seq=next_seq, ack=acked, length=size)))
            next_seq += size
        elif kind == "ahead":
            events.append(("segment", Segment("A", seq=next_seq + rng.choice((1, 300, 1460)), ack=acked, length=size)))
        elif kind == "again":
            events.append(("segment", Segment("A", seq=max(1, next_seq - size), ack=acked, length=size)))
        elif kind == "ack":
            acked = rng.randint(acked, written + 1)
            events.append(("segment", Segment("A", seq=next_seq, ack=acked, wnd=rng.choice((4000, 8000, 60000)))))
        elif kind == "bell" and written + size - (acked - 1) <= 1460:
            written += size
            events.append(("doorbell", dict(which=0, position=written)))
        elif kind == "read":
            read = rng.randint(read, next_seq - 1)
            events.append(("doorbell", dict(which=1, position=read + (1 << 14))))
    return events


def _run(events, gaps):
    """TCBs, segments and verdicts when the events come ``gaps`` cycles apart."""
    bench = FlowBench()
    for ident in range(1, 2 + OTHERS):
        bench.established(id=ident, wnd=8000)
    bench.seen.tx.clear()
    for (ident, (port, event)), gap in zip(events, gaps, strict=True):
        if port == "segment":
            bench.offer(event, id=ident)
        else:
            bench.put("doorbell", dict(id=ident, **event))
        bench.cycles(gap)
    bench.cycles(400)
    tcbs = [bench.tcb(id=ident) for ident in range(1, 2 + OTHERS)]
    by_id = {ident: [str(tx) for tx in bench.seen.tx if tx.id == ident] for ident in range(1, 2 + OTHERS)}
    verdicts = [str(verdict) for verdict in bench.seen.verdicts]
    return tcbs, by_id, verdicts


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "among others"])
@pytest.mark.parametrize("seed", range(12))
def test_close_events_do_what_distant_ones_do(seed, shared):
    rng = random.Random(f"{seed} {shared}")
    script = _script(rng, 120)
    events = [(1, event) for event in script]
    if shared:
        scripts = {ident: iter(_script(rng, 200)) for ident in range(2, 2 + OTHERS)}
        mixed = []
        for event in events:
            mixed.append(event)
            for ident, other in scripts.items():
                mixed += [(ident, next(other))] * (rng.random() < 0.4)
        events = mixed
    print(f"seed {seed}, {len(events)} events")
    far = _run(events, [60] * len(events))
    # Alone, the hazard rule keeps them apart. Among others, segments would leave faster than the queue behind the pipeline hands
    # them on: passes without a credit, whose ACKs merge.
    close = _run(events, [rng.choice((3, 4, 5) if shared else (0, 0, 0, 0, 1, 2, 5)) for _ in events])
    assert close == far
