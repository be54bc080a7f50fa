"""What options and registers may say: at the limit, one beyond, and the most that a word holds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.driver.bench import Bench
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import Stack, Tiptoe
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.limits import SETTABLE, check_register
from tiptoe_driver.hardware.options import EngineOptions

LIMITS = [
    ("MSL_TICKS", reg.REG_MSL_TICKS, 0, 0x7FFFF),
    ("RTO_MIN", reg.REG_RTO_MIN, 0, 0xFFFF),
    ("RTO_MAX", reg.REG_RTO_MAX, 1, 0xFFFF),
    ("RTO_INITIAL", reg.REG_RTO_INITIAL, 1, 0xFFFF),
    ("DELACK_TICKS", reg.REG_DELACK_TICKS, 0, 0xFFFF),
    ("WATCHDOG_TICKS", reg.REG_WATCHDOG_TICKS, 0, 0xFFFF),
    ("TICK_CYCLES", reg.REG_TICK_CYCLES, 0, 0xFFFF_FFFF),
]


@pytest.mark.parametrize(("name", "register", "least", "most"), LIMITS)
def test_a_register_takes_its_limits_and_nothing_beyond(name: str, register: int, least: int, most: int) -> None:
    tick = {"tick_us": 1} if register == reg.REG_DELACK_TICKS else {}  # so that 65,535 ticks are less than 500 ms
    for value in (least, most):
        fitting = (
            {reg.REG_RTO_MIN: 1, reg.REG_RTO_INITIAL: 1} if register == reg.REG_RTO_MAX else {reg.REG_RTO_MAX: 0xFFFF}
        )
        assert Bench(registers=fitting | {register: value}, **tick).device.registers[register] == value
    for value in {least - 1, most + 1, 0x1_0000_0000, -1}:
        with pytest.raises(ValueError, match=f"{name} is {least} to {most}, not {value}"):
            EngineOptions(registers={register: value}, **tick)


@pytest.mark.parametrize("syn", [0, 1, 255])
def test_retries_at_their_limits(syn: int) -> None:
    for value in (1, 15):
        EngineOptions(registers={reg.REG_RETRIES: syn << reg.RETRIES_SYN_RETRIES_SHIFT | value})
    with pytest.raises(ValueError, match="RETRIES.REXMT_MAX is 1 to 15, not 0"):
        EngineOptions(registers={reg.REG_RETRIES: syn << reg.RETRIES_SYN_RETRIES_SHIFT})
    with pytest.raises(ValueError, match="has no bits 0x10"):  # 16 became 0: given up at the first time-out
        EngineOptions(registers={reg.REG_RETRIES: syn << reg.RETRIES_SYN_RETRIES_SHIFT | 16 | 1})
    with pytest.raises(ValueError, match="has no bits 0x10000"):
        EngineOptions(registers={reg.REG_RETRIES: 256 << reg.RETRIES_SYN_RETRIES_SHIFT | 12})


def test_no_datagram_leaves_with_ttl_0() -> None:
    EngineOptions(registers={reg.REG_IP_HEADER: 1})
    with pytest.raises(ValueError, match="IP_HEADER.TTL is 1 to 255, not 0"):
        EngineOptions(registers={reg.REG_IP_HEADER: 0xFF << reg.IP_HEADER_TOS_SHIFT})


def test_time_outs_that_do_not_fit_each_other() -> None:
    EngineOptions(registers={reg.REG_RTO_MIN: 300, reg.REG_RTO_INITIAL: 300, reg.REG_RTO_MAX: 300})
    with pytest.raises(ValueError, match="RTO_MAX is 300, less than RTO_MIN, which is 301$"):
        EngineOptions(registers={reg.REG_RTO_MIN: 301, reg.REG_RTO_MAX: 300})
    with pytest.raises(ValueError, match="RTO_MAX is 300, less than RTO_INITIAL, which is 301$"):
        EngineOptions(registers={reg.REG_RTO_INITIAL: 301, reg.REG_RTO_MIN: 300, reg.REG_RTO_MAX: 300})


@pytest.mark.parametrize(
    ("named", "fits", "beyond", "message"),
    [
        ("RTO_MIN", 60_000, 60_001, "RTO_MAX is 60000 after power-up, less than RTO_MIN, which is 60001$"),
        ("RTO_INITIAL", 60_000, 60_001, "RTO_MAX is 60000 after power-up, less than RTO_INITIAL, which is 60001$"),
        ("RTO_MAX", 1000, 999, "RTO_MAX is 999, less than RTO_INITIAL, which is 1000 after power-up$"),
        ("RTO_MAX", 1000, 199, "RTO_MAX is 199, less than RTO_MIN, which is 200 after power-up$"),
    ],
)
def test_a_time_out_has_to_fit_those_that_bring_up_writes_beside_it(
    named: str, fits: int, beyond: int, message: str
) -> None:
    register = getattr(reg, f"REG_{named}")
    times = (reg.REG_RTO_MIN, reg.REG_RTO_INITIAL, reg.REG_RTO_MAX)
    held = Bench(registers={register: fits}).device.registers
    assert [held[time] for time in times] == [{**reg.REGISTER_RESETS, register: fits}[time] for time in times]
    with pytest.raises(ValueError, match=message):
        EngineOptions(registers={register: beyond})


def test_the_delay_of_acks_that_bring_up_writes_counts_too() -> None:
    """40 ticks."""
    EngineOptions(tick_us=12_499)
    with pytest.raises(ValueError, match="DELACK_TICKS is 40 after power-up, with ticks of 12500 us"):
        EngineOptions(tick_us=12_500)
    EngineOptions(tick_us=12_500, registers={reg.REG_DELACK_TICKS: 39})


def test_acks_are_delayed_by_less_than_half_a_second() -> None:
    EngineOptions(registers={reg.REG_DELACK_TICKS: 499})
    for ticks, tick_us in ((500, 1000), (5, 100_000)):
        with pytest.raises(ValueError, match="less than 500 ms"):
            EngineOptions(registers={reg.REG_DELACK_TICKS: ticks}, tick_us=tick_us)


def test_what_the_driver_writes_itself_is_not_the_users() -> None:
    others = [address for address in reg.REGISTER_FIELDS if address not in SETTABLE]
    assert {reg.REG_CONTROL, reg.REG_EVENT_RING_LO, reg.REG_EVENT_CONSUMER, reg.REG_IP_ADDR} <= set(others)
    for address in others:
        least = sum(least << low for _, _, low, least, _ in reg.REGISTER_FIELDS[address])
        check_register(address, least)
        with pytest.raises(ValueError, match="the driver's to write"):
            EngineOptions(registers={address: least})
    for address in (reg.REG_ID, reg.REG_COMMAND_HEAD, reg.REG_COUNTER, 0x300, 2, reg.DOORBELL_BASE, reg.REG_IRQ_STATUS):
        with pytest.raises(ValueError, match="no register can be written"):
            EngineOptions(registers={address: 0})


def test_everything_that_bring_up_writes_is_within_the_limits() -> None:
    device = FakeDevice()
    write, seen = device.write32, []

    def checked(address: int, value: int) -> None:
        if address not in (reg.REG_STATUS, reg.REG_IRQ_STATUS) and address < reg.DOORBELL_BASE:
            check_register(address, value)
            seen.append(address)
        write(address, value)

    device.write32 = checked  # type: ignore[method-assign]
    bench = Bench(device)
    bench.dev.engine.stop()
    assert {reg.REG_CONTROL, reg.REG_FRAME_RING_LOG2, reg.REG_EVENT_RING_LOG2, reg.REG_IRQ_MASK} <= set(seen)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        *(
            (name, -1)
            for name in ("fin_wait_2_us", "orphan_us", "stock", "active_reserve", "memory_base", "time_wait_us")
        ),
        *((name, -1) for name in ("arp_down_us", "arp_age_us", "link_down_us", "watchdog_us", "resets_most")),
        *((name, -1) for name in ("resets_within_us", "command_reserve")),
        *((name, 0) for name in ("frame_buffers", "tick_us", "arp_tries", "arp_retry_us")),
        *(("frame_slots", value) for value in (0, 1, 3, 1 << 16, -8)),  # slot numbers are counted modulo their number
        *(("command_entries", value) for value in (1, 8, 48, 1 << 17, -64)),
    ],
)
def test_options_that_mean_nothing(option: str, wrong: int) -> None:
    with pytest.raises(ValueError, match=f"{option} is "):
        EngineOptions(**{option: wrong})


@pytest.mark.parametrize(
    "options",
    [
        {"frame_slots": 2, "frame_buffers": 1},
        {"command_entries": 16},
        {"stock": 0, "active_reserve": 0},
        {"stock": 16, "active_reserve": 16},
        {"orphan_us": 0, "arp_age_us": 0, "watchdog_us": 0},
    ],
)
def test_options_at_their_limits(options: dict[str, Any]) -> None:
    bench = Bench(**options)
    bench.connected()
    assert not bench.dev.counters


@pytest.mark.parametrize("option", ["stock", "active_reserve"])
def test_more_ids_than_there_are(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is 17, but the engine has 16 connection ids"):
        Bench(**{option: 17})


@pytest.mark.parametrize(
    ("address", "mac", "message"),
    [
        ("10.0.0.1/24", "01:00:5e:00:00:01", "no interface's MAC address"),
        ("10.0.0.1/24", "ff:ff:ff:ff:ff:ff", "no interface's MAC address"),
        ("10.0.0.1/24", "00:00:00:00:00:00", "no interface's MAC address"),
        ("224.0.0.1/24", "02:00:00:00:00:01", "no host's IPv4 address"),
        ("255.255.255.255/24", "02:00:00:00:00:01", "no host's IPv4 address"),
        ("0.0.0.0/24", "02:00:00:00:00:01", "no host's IPv4 address"),
    ],
)
def test_addresses_that_no_interface_can_have(address: str, mac: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiptoe(Stack(), FakeDevice(), address=address, mac=mac)


def test_what_the_engine_refuses_is_counted() -> None:
    bench = Bench()
    bench.device.event(reg.EventType.ERROR, code=reg.ErrorCode.BAD_REGISTER, argument=reg.REG_MSL_TICKS)
    bench.stack.poll()
    assert bench.dev.counters["error_bad_register"] == 1
