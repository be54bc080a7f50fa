"""A soft reset keeps the registers: a driver that comes behind another one has the engine as after power-up all the same."""

from __future__ import annotations

from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.limits import SETTABLE
from tiptoe_hdl.host.register_map import register_map
from tiptoe_verif.native.attach import attach_driver
from tiptoe_verif.native.simulation import Simulation

UNUSUAL = {
    reg.REG_IP_HEADER: 7 | 0x10 << 8,
    reg.REG_MSL_TICKS: 3,
    reg.REG_RTO_MIN: 777,
    reg.REG_RTO_MAX: 888,
    reg.REG_RTO_INITIAL: 800,
    reg.REG_DELACK_TICKS: 1,
    reg.REG_RETRIES: 1 << 8 | 1,
    reg.REG_WATCHDOG_TICKS: 0,
    reg.REG_RST_LIMIT: 0,
    reg.REG_CHALLENGE_LIMIT: 0,
    reg.REG_INVALID_LIMIT: 0,
}
NOT_RESTORED = {reg.REG_TICK_CYCLES}
"""Only who knows the engine's clock knows its value."""
SECRET = {reg.REG_ISN_KEY + 4 * n for n in range(4)} | {reg.REG_HASH_KEY + 4 * n for n in range(2)}
SECRET |= {reg.REG_COOKIE_KEY + 4 * n for n in range(2)}


def test_driver_without_registers_behind_one_with_unusual_ones() -> None:
    assert UNUSUAL.keys() == SETTABLE - NOT_RESTORED - SECRET, "a register more: it belongs into this test"
    resets = {
        r.address: sum(f.reset << f.low for f in r.fields) for r in register_map().registers if r.address in UNUSUAL
    }
    rings = {"snd_ring_bytes": 4096, "rcv_ring_bytes": 4096}
    with Simulation("tiny", ip="10.0.0.1", memory_bytes=1 << 22, driver={**rings, "registers": UNUSUAL}) as sim:
        assert {address: sim.read32(address) for address in UNUSUAL} == UNUSUAL
        assert all(UNUSUAL[address] != resets[address] for address in UNUSUAL)
        assert sim.toe.engine.stop()
        attach_driver(sim, prefix=24, gateway=None, tick_cycles=1000, options=rings)
        assert {address: sim.read32(address) for address in UNUSUAL} == resets
