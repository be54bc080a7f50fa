"""A board's own part of the top: clocks from its oscillator, its PHY, its LEDs."""

from __future__ import annotations

import importlib
from typing import Any

from liteeth.phy.ecp5rgmii import LiteEthPHYRGMII
from litex.gen import LiteXModule
from litex.soc.cores.clock import ECP5PLL
from migen import ClockDomain, If, Signal

from .boards import Board
from .engine import TiptoeEngine

_LINE_NS = 8.0
_BLINK_BIT = 24
_FLASH_BITS = 22


class Clocks(LiteXModule):
    """``sys`` from the board's oscillator by a PLL, which waits for the power and is reset by the board's button."""

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
        pll.create_clkout(self.cd_sys, board.clock_hz)


class Leds(LiteXModule):
    """The clock runs (blinking), frames come, frames go, the engine's interrupt line is high."""

    def __init__(self, platform: Any, board: Board, engine: TiptoeEngine) -> None:
        count = Signal(_BLINK_BIT + 1)
        self.sync += count.eq(count + 1)
        values = [count[_BLINK_BIT], self._stretched(engine.rx.tvalid), self._stretched(engine.tx.tvalid), engine.irq]
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


def board_platform(board: Board) -> tuple[Any, Clocks, LiteEthPHYRGMII]:
    """Platform, clocks and PHY, the line's clocks constrained."""
    platform = importlib.import_module(f"litex_boards.platforms.{board.platform}").Platform(device="85F")
    clocks = Clocks(platform, board)
    phy = LiteEthPHYRGMII(
        platform.request("eth_clocks"), platform.request("eth"), rx_delay=board.rx_delay_ns * 1e-9, tx_delay=2e-9
    )
    platform.add_period_constraint(platform.lookup_request("eth_clocks:rx", loose=True), _LINE_NS)
    return platform, clocks, phy
