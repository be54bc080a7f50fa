"""The engine as a LiteX module around its Verilog."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from litex.gen import LiteXModule
from litex.soc.interconnect import axi
from migen import Instance, Signal

from tiptoe_hdl.config import EngineConfig
from tiptoe_verif.export import Choice, export

from .frames import FrameStream
from .ports import axi_master, axil_slave, axis, clock_ports


class Tiptoe(LiteXModule):
    """The engine between two queues of whole frames (Verilog module ``tiptoe_mac_engine``), in the clock domain ``sys``.

    A LiteX bus has addresses of 32 bits: so should the engine's host memory (``addr_width``). A write that ``axi``'s slave has
    answered must be there for whoever reads the memory: events rely on that.

    Parameters
    ----------
    config : EngineConfig
    name : str
        Of the Verilog module: engines of different configurations in one design need different ones.

    Attributes
    ----------
    axil : AXILiteInterface
        Slave: registers and doorbells, 1 MiB.
    axi : AXIInterface
        Master: host memory, ``data_width`` bits.
    rx, tx : FrameStream
        From and to the MAC; :meth:`connect_mac` connects both.
    irq : Signal
        A level; ``soc.irq.add(NAME)`` takes it to the processor, NAME being the module's in the SoC.
    tick : Signal
        One cycle a tick of TCP's timers, if CONTROL.EXTERNAL_TICK says so; 0 unless it is driven.
    rx_dropped, rx_damaged, tx_dropped : Signal(32)
        Frames lost: no room in the engine's queue; marked by the MAC; longer than the queue (never).
    """

    def __init__(self, config: EngineConfig, name: str = "") -> None:
        self._choice = Choice(config=config, queues=True, name=name)
        bits = config.data_width
        self.axil = axil = axi.AXILiteInterface(data_width=32, address_width=32)
        self.axi = bus = axi.AXIInterface(data_width=bits, address_width=config.addr_width, id_width=1)
        self.rx, self.tx = FrameStream(bits), FrameStream(bits)
        self.irq = Signal()
        self.ev = SimpleNamespace(irq=self.irq)  # what LiteX's irq.add() asks a module for
        self.tick = Signal()
        self.rx_dropped, self.rx_damaged, self.tx_dropped = Signal(32), Signal(32), Signal(32)
        self.specials += Instance(
            self._choice.top, **clock_ports(), **axis("s_axis_rx", self.rx, inward=True, user=True),
            **axis("m_axis_tx", self.tx, inward=False, user=False), **axil_slave(axil), **axi_master(bus),
            i_tick=self.tick, o_irq=self.irq,
            o_rx_dropped=self.rx_dropped, o_rx_damaged=self.rx_damaged, o_tx_dropped=self.tx_dropped,
        )  # fmt: skip

    def connect_mac(self, core: Any) -> None:
        """Frames from and to a ``LiteEthMACCore`` of ``data_width`` bits (:func:`add_mac`)."""
        self.comb += [*self.rx.from_liteeth(core.source), *self.tx.to_liteeth(core.sink)]

    def add_sources(self, platform: Any, folder: str | Path) -> None:
        """Write what ``tiptoe verilog`` writes into ``folder``, and give the Verilog in it to the platform, unless it has it.
        ValueError if it has another engine of this name, of which its tools would take one for both."""
        file = Path(folder) / "rtl" / f"{self._choice.top}.v"
        there = [Path(known) for known, *_ in platform.sources if Path(known).name == file.name]
        before = [path.read_bytes() for path in there]
        export(self._choice, Path(folder))
        if any(text != file.read_bytes() for text in before):
            raise ValueError(
                f"two engines of one name, {self._choice.top}, in this design: give them names of their own"
            )
        if not there:
            platform.add_source(str(file))
