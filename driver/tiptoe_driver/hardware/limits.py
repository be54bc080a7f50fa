"""What options may say: limits of the engine's registers, and of what the driver makes of the rest.

The engine refuses a register's value that it cannot take, and tells of it by an error event (docs/registers.md). Here it is a
ValueError at once, with what the engine does not look at: registers that must fit each other, and times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import abi_gen as abi

SETTABLE = frozenset(
    {
        abi.REG_IP_HEADER,
        abi.REG_TICK_CYCLES,
        abi.REG_MSL_TICKS,
        abi.REG_RTO_MIN,
        abi.REG_RTO_MAX,
        abi.REG_RTO_INITIAL,
        abi.REG_DELACK_TICKS,
        abi.REG_RETRIES,
        abi.REG_WATCHDOG_TICKS,
        abi.REG_RST_LIMIT,
        abi.REG_CHALLENGE_LIMIT,
        abi.REG_INVALID_LIMIT,
        *(abi.REG_ISN_KEY + 4 * n for n in range(4)),
        *(abi.REG_HASH_KEY + 4 * n for n in range(2)),
        *(abi.REG_COOKIE_KEY + 4 * n for n in range(2)),
    }
)
"""Registers that are nobody's but the user's; the others are the driver's business."""

ACK_DELAY_LIMIT_US = 500_000
"""An ACK must be delayed by less than this (RFC 9293 section 3.8.6.3, MUST-58)."""


def check_register(address: int, value: int) -> None:
    """ValueError for a value that the engine would refuse, or an address that is no register to be written."""
    fields = abi.REGISTER_FIELDS.get(address)
    if fields is None:
        raise ValueError(f"no register can be written at {address:#x}")
    known = 0
    for name, mask, shift, least, most in fields:
        known |= mask
        part = value >> shift if len(fields) == 1 else (value & mask) >> shift
        if not least <= part <= most:
            raise ValueError(f"{name} is {least} to {most}, not {part}")
    if value & ~known:
        raise ValueError(f"the register at {address:#x} has no bits {value & ~known:#x}")


def check_registers(registers: Mapping[int, int], tick_us: int) -> None:
    """ValueError if ``registers``, value by address, cannot be set as they are with ticks of ``tick_us``.

    Those that it does not name are written too, with their values after power-up: what has to fit is what the engine will hold.
    """
    for address, value in registers.items():
        check_register(address, value)
        if address not in SETTABLE:
            raise ValueError(f"the register at {address:#x} is the driver's to write")

    written = power_up_values() | dict(registers)

    def ticks(address: int) -> str:
        return f"{written[address]}" + ("" if address in registers else " after power-up")

    for name, address in (("RTO_MIN", abi.REG_RTO_MIN), ("RTO_INITIAL", abi.REG_RTO_INITIAL)):
        if written[address] > written[abi.REG_RTO_MAX]:
            raise ValueError(f"RTO_MAX is {ticks(abi.REG_RTO_MAX)}, less than {name}, which is {ticks(address)}")
    if written[abi.REG_DELACK_TICKS] * tick_us >= ACK_DELAY_LIMIT_US:
        raise ValueError(
            f"DELACK_TICKS is {ticks(abi.REG_DELACK_TICKS)}, with ticks of {tick_us} us: "
            f"ACKs must be delayed by less than {ACK_DELAY_LIMIT_US // 1000} ms"
        )


def power_up_values() -> dict[int, int]:
    """What bring-up writes to the user's registers where the user says nothing, value by address: whoever had the engine before
    may have left others, and a soft reset changes none."""
    return {address: abi.REGISTER_RESETS[address] for address in sorted(SETTABLE & abi.REGISTER_RESETS.keys())}


def check_power_of_two(name: str, value: int, least: int, most: int) -> None:
    """ValueError unless ``value`` is a power of two within the limits."""
    if value & (value - 1) or not least <= value <= most:
        raise ValueError(f"{name} is a power of two from {least} to {most}, not {value}")


def check_at_least(least: int, **values: int | None) -> None:
    """ValueError for the first value that is less; None is not looked at."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{name} is {least} or more, not {value}")


def check_addresses(mac: int, address: int) -> None:
    """ValueError unless these can be one interface's own: no group, and not nobody's."""
    if not 0 < mac < 1 << 48 or mac >> 40 & 1:
        raise ValueError(f"{mac:012x} is no interface's MAC address")
    if not 0 < address < 0xE000_0000 or address >> 24 == 0:
        raise ValueError(f"{address:#010x} is no host's IPv4 address")


def check_ids(connections: int, stock: int | None, active_reserve: int | None) -> None:
    """ValueError when the engine has not as many ids."""
    for name, value in (("stock", stock), ("active_reserve", active_reserve)):
        if value is not None and value > connections:
            raise ValueError(f"{name} is {value}, but the engine has {connections} connection ids")
