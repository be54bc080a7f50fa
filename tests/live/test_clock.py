"""TCP's time in live runs is wall time, and a session with nothing to do costs next to nothing."""

from __future__ import annotations

import time

import pytest

from tiptoe_driver.hardware import abi_gen as abi

pytestmark = pytest.mark.tap

TICK_S = 0.001


def ticks(bench) -> int:
    return bench.engine.toe.engine.device.read32(abi.REG_TICK_TIME)


def test_ticks_are_milliseconds_of_wall_time_under_load(bench, payload):
    """However slow the simulation: a sweep of all ids takes several milliseconds of a loaded one."""
    bench.board.listen(1007, "echo")
    client = bench.connect(1007)
    begin, before = time.monotonic(), ticks(bench)
    while time.monotonic() - begin < 1.5:
        try:
            client.send(payload(20_000))
            client.recv(65536)
        except BlockingIOError:
            pass
        bench.engine.round(2_000)
    seconds, passed = time.monotonic() - begin, (ticks(bench) - before) % 2**32
    assert bench.engine.harness.ticks_lost == 0
    assert passed * TICK_S == pytest.approx(seconds, rel=0.05)


def test_ticks_go_on_while_nothing_happens(bench):
    bench.for_s(0.5)
    begin, before = time.monotonic(), ticks(bench)
    bench.for_s(2)
    seconds, passed = time.monotonic() - begin, (ticks(bench) - before) % 2**32
    assert passed * TICK_S == pytest.approx(seconds, rel=0.1)


def test_idle_session_rests(bench):
    """Without traffic the clock of the engine rests: counted in what is done, not in a core's time, which the machine
    decides. What is left (a sweep of all ids for ten rests a second, a hundred rounds) is a few per cent of a core."""
    bench.for_s(2)
    cycles, begin, used, rounds = bench.engine.harness.cycle, time.monotonic(), time.process_time(), 0
    while (seconds := time.monotonic() - begin) < 3:
        bench.engine.round()
        rounds += 1
    cycles = bench.engine.harness.cycle - cycles
    share = (time.process_time() - used) / seconds
    print(f"idle: {share:.1%} of a core, {cycles / seconds:,.0f} cycles/s, {rounds / seconds:.0f} rounds/s")
    assert cycles / seconds < 20_000
    assert rounds / seconds < 150
