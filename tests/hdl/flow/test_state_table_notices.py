"""Does the table of states and events notice a broken rule? One rule of the pipeline is broken at a time; a row has to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from amaranth.hdl import Const

from tests.hdl.flow.bench import FlowBench
from tests.hdl.flow.test_state_table import differences
from tests.states.situations import BASES, SITUATIONS
from tiptoe_hdl.flow import pipeline
from tiptoe_hdl.flow.rules import reassembly, segment, urgent
from tiptoe_hdl.messages import State

NEVER = Const(0, 1)
HERE = f"{crc32(Path(__file__).read_bytes()):08x}"
"""Models are kept by name and by the sources of the engine, which know nothing of what is broken here."""


@dataclass(frozen=True)
class Mutant:
    """``change`` gives the facts of ``rule`` in ``module`` that come out otherwise; ``row`` is where that shows."""

    breaks: str
    module: Any
    rule: str
    change: Callable[[Any, dict[str, Any]], dict[str, Any]]
    row: tuple[str, str]


MUTANTS = [
    Mutant("the window is taken from old acknowledgements", segment, "classify",
           lambda s, facts: {"wnd_newer": ~facts["ack_future"]}, ("ESTABLISHED", "A")),
    Mutant("a later SEG.SEQ is no condition for the window", segment, "classify",
           lambda s, facts: {"wnd_newer": facts["ack_new"] | facts["ack_same"]}, ("ESTABLISHED, own window closed", "A")),
    Mutant("no challenge ACK", segment, "decide", lambda s, facts: {"limited": NEVER}, ("CLOSE_WAIT", "S")),
    Mutant("a reset anywhere in the window ends the connection", segment, "decide",
           lambda s, facts: {"peer_reset": (hit := s.open_ & s.has_rst & s.begins_in_window & ~s.is_syn_received),
                             "segment_ends": facts["segment_ends"] | hit}, ("ESTABLISHED", "R")),
    Mutant("a reset that only reaches into the window is challenged", segment, "decide",
           lambda s, facts: {"limited": facts["limited"] | (s.open_ & s.acceptable & s.has_rst & ~s.seq_exact)},
           ("ESTABLISHED", "R")),
    Mutant("a FIN counts before its data", reassembly, "apply",
           lambda s, facts: {"fin_decided": s.fin_valid & ~s.peer_closed & s.go}, ("ESTABLISHED", "AF")),
    Mutant("an acknowledgement of the future is taken", segment, "decide",
           lambda s, facts: {"challenge": NEVER, "go": s.open_ & s.plain & s.acceptable & ~s.ack_stale},
           ("FIN_WAIT_2", "A")),
    Mutant("an acknowledgement may be as old as it likes", segment, "classify",
           lambda s, facts: {"ack_stale": NEVER}, ("CLOSE_WAIT", "A")),
    Mutant("refused payload's acknowledgement does not count", segment, "classify",
           lambda s, facts: {"near": NEVER}, ("LAST_ACK", "A")),
    Mutant("a segment without ACK is taken", segment, "classify",
           lambda s, facts: {"plain": ~s.e_flags[2] & ~s.e_flags[1]}, ("ESTABLISHED", "")),
    Mutant("an empty segment right of the window is answered", segment, "classify",
           lambda s, facts: {"quiet": NEVER}, ("ESTABLISHED", "A")),
    Mutant("a SYN in LAST_ACK is taken for an acknowledgement", segment, "decide",
           lambda s, facts: {"last_acked": facts["last_acked"]
                             | (s.open_ & s.acceptable & s.acks_fin & (s.state == State.LAST_ACK.value))},
           ("LAST_ACK", "SA")),
    Mutant("SYN_SENT answers no bad acknowledgement", segment, "decide",
           lambda s, facts: {"reset_reply": facts["reset_reply"] & ~s.opening}, ("SYN_SENT", "A")),
    Mutant("the urgent pointer counts behind the peer's FIN", urgent, "judge",
           lambda s, facts: {"up_taken": s.up_advances & s.acceptable}, ("CLOSE_WAIT", "A")),
    Mutant("the urgent pointer counts outside the window", urgent, "judge",
           lambda s, facts: {"up_taken": s.up_advances & s.takes_data}, ("ESTABLISHED", "A")),
    Mutant("the urgent pointer does not count with the window closed", urgent, "judge",
           lambda s, facts: {"up_taken": s.up_advances & s.takes_data & s.acceptable & s.begins_in_window},
           ("ESTABLISHED, own window closed", "A")),
    Mutant("the urgent pointer of a SYN,ACK is ignored", urgent, "compare",
           lambda s, facts: {"syn_up": NEVER}, ("SYN_SENT", "SA")),
]  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.breaks.replace(" ", "_"))
def test_table_notices(monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    right = getattr(mutant.module, mutant.rule)

    def wrong(s: Any) -> dict[str, Any]:
        facts = right(s)
        changed = mutant.change(s, facts)
        assert changed.keys() <= facts.keys()
        return facts | changed

    steps = tuple(tuple(wrong if rule is right else rule for rule in step) for step in pipeline.STEPS)
    assert steps != pipeline.STEPS
    monkeypatch.setattr(pipeline, "STEPS", steps)
    bench = FlowBench(broken=f"_broken_{MUTANTS.index(mutant)}_{HERE}")
    name, flags = mutant.row
    (situation,) = (one for one in SITUATIONS if one.name == name)
    try:
        assert differences(bench, situation, flags, BASES[0], whole=False)
    finally:
        bench.sim.close()
