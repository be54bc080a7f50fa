"""A board's own part of the top: clocks from its oscillator, its PHY, its DDR3 chip, its LEDs."""

from __future__ import annotations

import importlib
from typing import Any

from litedram.phy import ECP5DDRPHY
from liteeth.phy.ecp5rgmii import LiteEthPHYRGMII
from litex.gen import LiteXModule
from litex.soc.cores.clock import ECP5PLL
from migen import Cat, ClockDomain, If, Instance, Mux, Replicate, Signal
from migen.genlib.resetsync import AsyncResetSynchronizer

from tiptoe_litex import Tiptoe

from .boards import Board
from .ddr3 import controller

_LINE_NS = 8.0
_BLINK_BIT = 24
_HASTE_BIT = 21
_FLASH_BITS = 22
_INIT_HZ = 25e6
"""Of the DDR3 PHY's start, at any rate that is slow."""


class Clocks(LiteXModule):
    """``sys`` from the board's oscillator by a PLL, which waits for the power and is reset by the board's button.

    With DDR3, ``sys2x`` is the chip's clock and ``sys`` is divided from it, as ECP5's DDR cells want it (FPGA-TN-02035): the PHY
    stops ``sys2x`` and holds ``sys`` in reset (``stop``, ``reset``) while its delay line settles in the domain ``init``.
    """

    def __init__(self, platform: Any, board: Board) -> None:
        self.rst = Signal()
        self.cd_por = ClockDomain(reset_less=True)
        self.cd_sys = ClockDomain()
        pin, button = platform.request(board.input_clock), platform.request(board.reset)
        left = Signal(16, reset=2**16 - 1)
        self.comb += self.cd_por.clk.eq(pin)
        self.sync.por += If(left != 0, left.eq(left - 1))
        self.pll = pll = ECP5PLL()
        self.comb += pll.reset.eq((left != 0) | ~button | self.rst)
        pll.register_clkin(pin, board.input_mhz * 1e6)
        if board.memory == "ddr3":
            self._ddr3(pll, board.clock_hz)
        else:
            pll.create_clkout(self.cd_sys, board.clock_hz)

    def _ddr3(self, pll: ECP5PLL, clock_hz: int) -> None:
        self.stop, self.reset = Signal(), Signal()
        self.cd_init = ClockDomain()
        self.cd_sys2x = ClockDomain()
        self.cd_sys2x_i = ClockDomain(reset_less=True)
        pll.create_clkout(self.cd_sys2x_i, 2 * clock_hz, with_reset=False)
        pll.create_clkout(self.cd_init, _INIT_HZ)
        self.specials += [
            Instance("ECLKSYNCB", i_ECLKI=self.cd_sys2x_i.clk, i_STOP=self.stop, o_ECLKO=self.cd_sys2x.clk),
            Instance(
                "CLKDIVF", p_DIV="2.0", i_ALIGNWD=0, i_CLKI=self.cd_sys2x.clk, i_RST=self.reset, o_CDIVX=self.cd_sys.clk
            ),
            AsyncResetSynchronizer(self.cd_sys, ~pll.locked | self.reset),
        ]


class Leds(LiteXModule):
    """The clock runs (blinking), frames come, frames go, the engine's interrupt line is high.

    Parameters
    ----------
    fault : Signal, optional
        Not 0: the first blinks eight times as fast.
    """

    def __init__(self, platform: Any, board: Board, engine: Tiptoe, fault: Any = None) -> None:
        count = Signal(_BLINK_BIT + 1)
        self.sync += count.eq(count + 1)
        blinking = count[_BLINK_BIT] if fault is None else Mux(fault != 0, count[_HASTE_BIT], count[_BLINK_BIT])
        values = [blinking, self._stretched(engine.rx.tvalid), self._stretched(engine.tx.tvalid), engine.irq]
        if board.leds == "user_led":
            self.comb += platform.request("user_led_color").eq(0b010)
        for number, value in enumerate(values):
            pads = platform.request(board.leds, number)
            if board.leds == "rgb_led":  # low is bright
                self.comb += [pads.r.eq(1), pads.g.eq(~value), pads.b.eq(1)]
            else:
                self.comb += pads.eq(value)

    def _stretched(self, pulse: Any) -> Any:
        left = Signal(_FLASH_BITS)
        self.sync += If(pulse, left.eq(2**_FLASH_BITS - 1)).Elif(left != 0, left.eq(left - 1))
        return left != 0


class FirstRank:
    """Pads of the first rank of chips, for LiteDRAM's PHY; those of other ranks stay deselected, asleep and without a clock.

    One rank holds more than host memory is, and each further one would take eight bank machines, some 2,300 lookup tables.

    Parameters
    ----------
    pads : Record
        All of ``ddram``.
    module : LiteXModule
        Drives the pads of the other ranks.
    """

    _IDLE = {"cs_n": 1, "cke": 0, "odt": 0, "clk_p": 0}
    """The pads a rank has of its own, and their levels at rest."""

    def __init__(self, pads: Any, module: LiteXModule) -> None:
        self._pads = pads
        for name, level in self._IDLE.items():
            pad = getattr(pads, name, None)
            if pad is not None and len(pad) > 1:
                # A signal of its own: of a pad that the PHY drives in part and a statement in part, the statement drives all.
                own = Signal(name=f"{name}_first")
                setattr(self, name, [own])
                module.comb += pad.eq(Cat(own, Replicate(level, len(pad) - 1)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pads, name)


def board_platform(board: Board) -> tuple[Any, Clocks, LiteEthPHYRGMII]:
    """Platform, clocks and PHY, the line's clocks constrained."""
    platform = importlib.import_module(f"litex_boards.platforms.{board.platform}").Platform(device="85F")
    clocks = Clocks(platform, board)
    phy = LiteEthPHYRGMII(
        platform.request("eth_clocks"), platform.request("eth"), rx_delay=board.rx_delay_ns * 1e-9, tx_delay=2e-9
    )
    platform.add_period_constraint(platform.lookup_request("eth_clocks:rx", loose=True), _LINE_NS)
    return platform, clocks, phy


def board_sdram(platform: Any, board: Board, clocks: Clocks) -> tuple[ECP5DDRPHY, Any] | None:
    """PHY and controller of the board's DDR3 chip, if host memory is there."""
    if board.memory != "ddr3":
        return None
    phy = ECP5DDRPHY(FirstRank(platform.request("ddram"), clocks), sys_clk_freq=board.clock_hz)
    clocks.comb += [clocks.stop.eq(phy.init.stop), clocks.reset.eq(phy.init.reset)]
    return phy, controller(phy, board.chip, board.clock_hz)
