"""Ring registers written by a host that is confused, on the whole engine: at rest or enabled, in any order, whatever the value.
Register accesses go on, and after a soft reset all is as ever (docs/registers.md)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.driver.on_engine.clients import SECOND, Crowd
from tiptoe_driver.hardware import abi_gen as reg

ENTRIES = {reg.REG_COMMAND_RING_LOG2: 6, reg.REG_EVENT_RING_LOG2: 5, reg.REG_FRAME_RING_LOG2: 8}
"""Rings that are enabled do not become larger than their memory here: the engine cannot know, and would write elsewhere."""
COUNTS = (reg.REG_COMMAND_TAIL, reg.REG_EVENT_CONSUMER, reg.REG_FRAME_CONSUMER)
VALUES = (0, 1, 2, 4, 5, 6, 7, 8, 12, 16, 17, 31, 1 << 16, 0xFFFF_FFFF)


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    """One engine for all these tests; what stands still is not helped."""
    made = Crowd("tiny", watchdog_us=0, on_standstill="report")
    yield made
    made.sim.close()


@pytest.mark.parametrize("enabled", [False, True], ids=["at rest", "enabled"])
@pytest.mark.parametrize("part", range(6))
def test_nothing_hangs_and_a_soft_reset_helps(crowd: Crowd, enabled: bool, part: int, rng: random.Random) -> None:
    toe, device = crowd.sim.toe, crowd.sim.toe.engine.device
    if not enabled:
        toe.stop()
    for _ in range(rng.randrange(3, 12)):
        register, value = rng.choice([*ENTRIES, *COUNTS]), rng.choice([*VALUES, rng.randrange(1 << 32)])
        device.write32(register, min(value, ENTRIES[register]) if enabled and register in ENTRIES else value)
        if rng.random() < 0.5:
            crowd.sim.run_cycles(rng.randrange(300))
    assert device.read32(reg.REG_ID) == reg.ID_VALUE
    if enabled:
        toe.stop()
    toe.restart()
    crowd.listener.close()
    crowd.listener = crowd.sim.socket()
    crowd.listener.bind(("", 80))
    crowd.listener.listen(100)
    crowd.sim.run_us(2000)
    client = crowd.client(3000 + 10 * part + enabled)
    crowd.until(lambda: client.ended is not None, 10 * SECOND, "the answer")
    assert client.answer == b"answer to question" and not client.reset
