"""The engine: every block and the wires between them. No logic here."""

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from .config import EngineConfig
from .flow.connection_table import ConnectionTable
from .flow.flow import Flow
from .host.axi import Axi4ReadSignature, Axi4WriteSignature, AxiLiteSignature
from .host.clocks import Clocks
from .host.commands import CommandProcessor
from .host.counters import CounterBank
from .host.dma_read import DmaReader
from .host.dma_write import DmaWriter
from .host.errors import ErrorMerge
from .host.events import EventWriter
from .host.registers import Registers
from .listen.isn import IsnGenerator
from .listen.listen_unit import ListenUnit
from .messages import TxControl
from .rx.buffer import RxBuffer
from .rx.dispatcher import Dispatcher
from .rx.gate import Gate
from .rx.parser import RxParser
from .rx.placement import Placement
from .tx.path import TxPath
from .wire.axi_stream import AxiStreamSignature
from .wire.connect import connect_same
from .wire.stream_merge import StreamMerge

PAYLOAD, RINGS = range(2)
"""Clients of the DMA engines: payload of segments; commands (read) and events (write)."""

COMMANDS, LISTEN = range(2)
"""Clients of the connection table, the ISN generator, the endpoint table and the TCP pipeline."""


class Engine(wiring.Component):
    """A TCP offload engine between a host's memory and an Ethernet MAC.

    Ports (docs/interfaces.md; flat AXI names in Verilog)
    -----------------------------------------------------
    s_axil : AXI4-Lite slave, 32-bit data, 20-bit address
        Registers and doorbells.
    m_axi_read, m_axi_write : AXI4 master, ``cfg.data_width`` bits
        Host memory: the read and the write channels of one port.
    s_axis_rx, m_axis_tx : AXI4-Stream
        Frames without FCS. ``tuser`` in the last received beat marks a frame as damaged.
    irq : Out(1)
        Level; see IRQ_STATUS and IRQ_MASK.
    tick : In(1)
        One cycle per timer tick when CONTROL.EXTERNAL_TICK is set.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "s_axil": In(AxiLiteSignature()),
                "m_axi_read": Out(Axi4ReadSignature(cfg.addr_width, cfg.data_width)),
                "m_axi_write": Out(Axi4WriteSignature(cfg.addr_width, cfg.data_width)),
                "s_axis_rx": In(AxiStreamSignature(cfg.data_width, user_width=1)),
                "m_axis_tx": Out(AxiStreamSignature(cfg.data_width)),
                "irq": Out(1),
                "tick": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._make_blocks(m)
        self._connect_receive(m)
        self._connect_transmit(m)
        self._connect_tables(m)
        self._connect_host(m)
        self._connect_configuration(m)
        self._connect_counters(m)
        return m

    def _make_blocks(self, m):
        cfg = self._cfg
        m.submodules.registers = self.registers = registers = Registers(cfg)
        blocks = {
            "gate": Gate(cfg), "parser": RxParser(cfg), "buffer": RxBuffer(cfg), "dispatcher": Dispatcher(cfg),
            "placement": Placement(cfg), "flow": Flow(cfg), "table": ConnectionTable(cfg), "listen": ListenUnit(cfg),
            "isn": IsnGenerator(cfg), "tx": TxPath(cfg), "controls": StreamMerge(TxControl, 2),
            "commands": CommandProcessor(cfg), "events": EventWriter(cfg), "counters": CounterBank(),
            "errors": ErrorMerge(4), "clocks": Clocks(), "reader": DmaReader(cfg, 2), "writer": DmaWriter(cfg, 2),
        }  # fmt: skip
        reset = ResetInserter(registers.soft_reset)
        for name, block in blocks.items():
            setattr(self, f"_{name}", block)
            m.submodules[name] = reset(block)

    def _connect_receive(self, m):
        rx, gate = self.s_axis_rx, self._gate
        m.d.comb += [
            gate.i.valid.eq(rx.tvalid),
            rx.tready.eq(gate.i.ready),
            gate.i.payload.data.eq(rx.tdata),
            gate.i.payload.keep.eq(rx.tkeep),
            gate.i.payload.last.eq(rx.tlast),
            gate.i.payload.error.eq(rx.tuser),
        ]
        parser, buffer, dispatcher, placement = self._parser, self._buffer, self._dispatcher, self._placement
        connect_same(m, gate.o, parser.i)
        connect_same(m, parser.meta, dispatcher.meta)
        connect_same(m, dispatcher.segment, self._flow.segment)
        connect_same(m, dispatcher.info, placement.info)
        connect_same(m, self._flow.verdict, placement.verdict)
        connect(m, parser.store, buffer.store)
        m.d.comb += parser.room.eq(buffer.room)
        connect_same(m, placement.request, self._writer.request[PAYLOAD])
        connect_same(m, placement.data, self._writer.data[PAYLOAD])
        connect_same(m, self._writer.done[PAYLOAD], placement.done)
