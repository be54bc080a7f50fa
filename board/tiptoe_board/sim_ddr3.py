"""ECP5's DDR3 PHY and a chip for simulation: the registers of LiteDRAM's ``ECP5DDRPHY`` before LiteDRAM's model of a chip."""

from __future__ import annotations

from typing import Any

from litedram.common import TappedDelayLine
from litedram.phy.dfi import Interface
from litedram.phy.model import SDRAMPHYModel
from litex.soc.interconnect.csr import CSR, AutoCSR, CSRStatus, CSRStorage
from migen import Cat, If, Module, Mux, Signal

from .address_map import DDRPHY_NAMES, ddrphy_address
from .ddr3 import CHIPS, LANES, PHASES, SIM_CHIP, phy_settings

GOOD = ((0, range(1, 4)), (1, range(3, 7)))
"""For each lane the shift and the delays at which reads are right: what is to be found out, another on each board."""

MUTE = ddrphy_address(DDRPHY_NAMES[-1]) + 4
"""Address of a register that no other PHY has: while it is 1 the chip gives no answer."""

_DFI_LANES = 2 * PHASES
"""Beats of a chip in a phase, all lanes side by side."""


class SimDdr3Phy(Module, AutoCSR):  # type: ignore[misc]
    """Reads of a lane are damaged unless its shift and delay are among those of ``GOOD``; its strobe is seen at its delays.

    ``mute`` is behind the registers of the real one.
    """

    def __init__(self, clock_hz: int) -> None:
        kind, _ = CHIPS[SIM_CHIP]
        module = kind(clock_hz, f"1:{PHASES}")
        self.settings = phy_settings(clock_hz)
        self._dly_sel = CSRStorage(LANES)
        self._rdly_dq_rst = CSR()
        self._rdly_dq_inc = CSR()
        self._rdly_dq_bitslip_rst = CSR()
        self._rdly_dq_bitslip = CSR()
        self._burstdet_clr = CSR()
        self._burstdet_seen = CSRStatus(LANES)
        self._mute = CSRStorage()

        self.submodules.model = model = SDRAMPHYModel(module, self.settings, clk_freq=clock_hz)
        geometry = module.geom_settings
        self.dfi = dfi = Interface(geometry.addressbits, geometry.bankbits, 1, self.settings.dfi_databits, PHASES)
        self.comb += dfi.connect(model.dfi, omit={"rddata", "rddata_valid"})
        # The model (2024.12) says so in its first phase only.
        self.comb += [phase.rddata_valid.eq(model.dfi.phases[0].rddata_valid) for phase in dfi.phases]
        reads = Signal()
        self.submodules.reads = delayed = TappedDelayLine(Cat(*(phase.rddata_en for phase in dfi.phases)) != 0, 4)
        self.comb += reads.eq(delayed.output)
        for lane, (good_shift, good_delays) in enumerate(GOOD):
            self._lane(lane, good_shift, good_delays, reads)

    def _lane(self, lane: int, good_shift: int, good_delays: range, reads: Any) -> None:
        mine = self._dly_sel.storage[lane]
        shift, delay, seen, good = Signal(2), Signal(3), Signal(), Signal()
        strobe = ~self._mute.storage & (delay >= good_delays.start) & (delay < good_delays.stop)
        self.sync += [
            If(mine & self._rdly_dq_inc.re, delay.eq(delay + 1)),
            If(mine & self._rdly_dq_rst.re, delay.eq(0)),
            If(mine & self._rdly_dq_bitslip.re, shift.eq(shift + 1)),
            If(mine & self._rdly_dq_bitslip_rst.re, shift.eq(0)),
            If(self._burstdet_clr.re, seen.eq(0)).Elif(reads & strobe, seen.eq(1)),
        ]
        self.comb += [good.eq(strobe & (shift == good_shift)), self._burstdet_seen.status[lane].eq(seen)]
        for phase, inner in zip(self.dfi.phases, self.model.dfi.phases, strict=True):
            for beat in range(_DFI_LANES):
                at = slice(8 * (beat * LANES + lane), 8 * (beat * LANES + lane + 1))
                self.comb += phase.rddata[at].eq(Mux(good, inner.rddata[at], ~inner.rddata[at]))
