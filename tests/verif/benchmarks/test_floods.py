"""`tiptoe bench --only floods` in small: it holds, and what does not is told."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from tiptoe_hdl.config import TINY
from tiptoe_verif.benchmarks import flood_table, floods
from tiptoe_verif.benchmarks.rig import Rig
from tiptoe_verif.native.harness import build_engine
from tiptoe_verif.wire.segment import parse_tcp

pytestmark = pytest.mark.xdist_group("bench")


def test_floods_on_a_small_engine_hold():
    found = flood_table.measure(TINY, quick=True)
    assert [rigged.cookies for rigged in found] == [False, True]
    assert flood_table.faults(found) == []
    names = [one.name for one in found[0].outcomes]
    assert names[:4] == ["SYN, open port", "SYN, closed port", "SYN, closed port, options of Linux", "ACK of nobody"]
    assert names[-1] == "blind ICMP"
    assert [name for name in names if name.startswith("blind")][:-1] == [f"blind {kind}" for kind in floods.BLIND]
    console = Console(width=120, file=StringIO())
    for table in flood_table.tables(found):
        console.print(table)
    assert isinstance(console.file, StringIO)
    assert "cookies on" in console.file.getvalue() and "blind RST" in console.file.getvalue()

    # What does not hold is told.
    slow = replace(found[0].outcomes[0], share=0.89)
    chatty = replace(found[0].outcomes[1], replies=5000, allowed=100)
    for wrong in (slow, chatty):
        assert len(flood_table.faults([replace(found[0], outcomes=[wrong])])) == 1
    entry = found[1].entry
    assert entry is not None and entry.inside == entry.clients
    for wrong_entry in (replace(entry, inside=entry.clients - 1), replace(entry, lost=1)):
        assert len(flood_table.faults([replace(found[1], entry=wrong_entry)])) == 1


def test_flood_frames_are_sound(rng):
    """Checksums that an independent reader takes; a blind segment never has the exact number."""
    with Rig(TINY, 1, library=build_engine(TINY)) as rig:
        connection = rig.connections[0]
        for port in (80, floods.CLOSED):
            assert parse_tcp(floods.strangers(rig, rng, port, 2)()).dport == port
        for kind in floods.BLIND:
            source = floods.blind(connection, rng, kind)
            for _ in range(200):
                segment = parse_tcp(source())
                assert (
                    segment.sport == connection.port
                    and segment.seq != connection.iss + 1 + connection.sent & 0xFFFFFFFF
                )
        assert len(floods.icmp(rig, connection, rng)()) == 70
