"""Devices that stand still: how a test makes one, and what the driver has counted."""

from __future__ import annotations

from tests.driver.bench import Bench
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import ErrorCode
from tiptoe_driver.toe.standstill import BITS
from tiptoe_hdl.host.abi import EventType

INTERVAL_US = 1_000
FATAL = {"commands", "events"}


def watched(**options: object) -> Bench:
    return Bench(**{"watchdog_us": INTERVAL_US, **options})


def stall(bench: Bench, *names: str, event: bool = True, argument: int | None = None) -> None:
    """The engine's watchdog finds something; its event may be lost."""
    bits = sum(BITS[name] for name in names)
    bench.device.registers[reg.REG_STATUS] |= bits
    if event:
        told = bits >> reg.STATUS_COMMANDS_STALLED_SHIFT if argument is None else argument
        bench.device.event(EventType.ERROR, code=ErrorCode.WATCHDOG, argument=told)


def sleep(bench: Bench, microseconds: int) -> None:
    bench.stack.sleep(lambda: False, microseconds)


def counted(bench: Bench) -> dict[str, int]:
    return {name.removeprefix("watchdog_"): n for name, n in bench.dev.counters.items() if name.startswith("watchdog_")}


def swallow(bench: Bench) -> None:
    """The engine reads no commands until the next reset."""
    before = bench.device.soft_resets
    fetch = bench.device.fetch

    def read() -> None:
        if bench.device.soft_resets != before:
            fetch()

    bench.device.fetch = read  # type: ignore[method-assign]
