"""The engine's registers on AXI4-Lite: storage, read-back, interrupt, soft reset, doorbells.

Addresses, fields and reset values come from tiptoe.rdl through ``register_map``.
"""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import Counter, ErrorEvent, doorbell
from ..wire.valid_only import valid_only
from .axi import AxiLiteSignature, Response
from .axil_slave import AxiLiteSlave
from .consumer_check import CHECK_CYCLES
from .doorbells import Doorbells
from .register_check import RegisterCheck
from .register_map import register_map
from .register_ports import CLEARED, CONFIGURATION, MEASURED, STALLED, configuration_ports, constants, field_width

RESET_CYCLES = 64
"""Length of ``soft_reset``: enough for what is on its way between the blocks, and through their registers, to come to rest."""

READ_CYCLES = 6
"""Cycles given to the read of a register: the multiplexer has three stages."""

COUNTER_CYCLES = 40
"""Cycles given to the read of a counter: they are shown in turn."""


class Registers(wiring.Component):
    """Register block and doorbells.

    A write takes effect four cycles after its transfer; one write, so one doorbell, is taken each cycle.
    A read takes about ten cycles, of a counter fifty.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    axil : AXI4-Lite slave, 20 address bits
    irq : Out(1), level
    soft_reset, quiesce : Out(1); quiet : In(1, init=1)
        Writing CONTROL.SOFT_RESET raises ``quiesce``; when the bus master has nothing outstanding it answers
        with ``quiet``, and ``soft_reset`` follows for RESET_CYCLES cycles.
    doorbell : Out(stream of doorbell(cfg))
    error : Out(valid-only ErrorEvent), count_bad_doorbell : Out(1)
        Doorbells refused; values that a register cannot take.
    counter_index : Out(6), counter_value : In(32)
        The counter's value, when its index has been there for COUNTER_CYCLES.
    event_irq, error_irq : In(1)
        Pulses that set the bits of IRQ_STATUS.
    stalled : In, a bit for each of WATCHED
        Pulses of the watchdog that set bits of STATUS.
    event_pending : In(1)
        Events wait for the host: looked at when IRQ_STATUS.EVENT has been cleared, which then is set again.
    <name in MEASURED> : In, <name in CONFIGURATION> : Out
        Fields of registers. Keys and ``ip6_addr`` have word 0 in their lowest bits.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "axil": In(AxiLiteSignature(20)),
                "irq": Out(1),
                "soft_reset": Out(1),
                "quiesce": Out(1),
                "quiet": In(1, init=1),
                "doorbell": Out(stream.Signature(doorbell(cfg))),
                "error": Out(valid_only(ErrorEvent)),
                "count_bad_doorbell": Out(1),
                "counter_index": Out(6),
                "counter_value": In(32),
                "event_irq": In(1),
                "error_irq": In(1),
                "stalled": In(len(STALLED)),
                "event_pending": In(1),
                "ready": In(1),
                "tick_time": In(32),
                "isn_time": In(32),
                "command_head": In(32),
                "event_producer": In(32),
                **{name: Out(width) for name, width in configuration_ports(cfg).items()},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave(20)
        wiring.connect(m, slave.axil, wiring.flipped(self.axil))
        self._storage(m)
        self._writes(m, slave)
        self._reads(m, slave)
        self._soft_reset(m)
        m.d.sync += self.irq.eq(
            (self._value["IRQ_STATUS.EVENT", 0] & self._value["IRQ_MASK.EVENT", 0])
            | (self._value["IRQ_STATUS.ERROR", 0] & self._value["IRQ_MASK.ERROR", 0])
        )
        return m

    def _storage(self, m):
        """``_value``: signal of each field by (path, index in its array)."""
        self._value = {}
        for register in register_map().registers:
            for field in register.fields:
                path = f"{register.name}.{field.name}"
                for index in range(register.count):
                    name = path.lower().replace(".", "_") + (f"_{index}" if register.count > 1 else "")
                    if path in MEASURED:
                        signal = Signal(field.width, name=name)
                        shown = getattr(self, MEASURED[path])
                        m.d.sync += signal.eq(shown & ~self.quiesce if path == "STATUS.READY" else shown)
                    elif field.writable:
                        reset = getattr(self._cfg, field.reset_from) if field.reset_from else field.reset
                        signal = Signal(field_width(self._cfg, register, field), init=reset, name=name)
                    elif path.startswith("COUNTER."):
                        continue
                    else:
                        signal = constants(self._cfg).get(path, field.reset)
                    self._value[path, index] = signal
        for port, paths in CONFIGURATION.items():
            m.d.comb += getattr(self, port).eq(
                Cat(signal for path in paths for (other, _), signal in self._value.items() if other == path)
            )

    def _writes(self, m, slave):
        """Decodes a write in the cycle of its transfer, carries it out in the next."""
        m.submodules.doorbells = doorbells = Doorbells(self._cfg)
        wiring.connect(m, wiring.flipped(self.doorbell), doorbells.o)
        m.d.comb += [
            self.count_bad_doorbell.eq(doorbells.count_bad_doorbell),
            doorbells.clear.eq(self.soft_reset),
        ]
        word = slave.write.p.word
        is_doorbell = word[-1]
        # A cycle late, so that the reset's way is not part of the bus side's.
        closed = Signal()
        m.d.sync += closed.eq(self.soft_reset)
        writable = Signal()
        with m.Switch(word):
            for register in register_map().registers:
                if register.writable:
                    first = register.address // 4
                    with m.Case(*range(first, first + register.count)):
                        m.d.comb += writable.eq(slave.write.p.full)
        m.d.comb += [
            doorbells.i.valid.eq(slave.write.valid & is_doorbell & ~closed),
            doorbells.i.p.word.eq(word[:17]),
            doorbells.i.p.data.eq(slave.write.p.data),
            doorbells.i.p.full.eq(slave.write.p.full),
            slave.write.ready.eq((doorbells.i.ready | ~is_doorbell) & ~closed),
            slave.write_response.eq(
                Mux(Mux(is_doorbell, doorbells.accepted, writable), Response.OKAY, Response.SLVERR)
            ),
        ]

        enable = Signal()
        address = Signal(6)
        value = Signal(32)
        m.d.sync += [
            enable.eq(slave.write.valid & slave.write.ready & ~is_doorbell & writable),
            address.eq(word[:6]),
            value.eq(slave.write.p.data),
        ]
        m.submodules.check = check = RegisterCheck(self._cfg)
        wiring.connect(m, doorbells.error, check.doorbell_error)
        wiring.connect(m, check.error, wiring.flipped(self.error))
        m.d.comb += [
            check.i.valid.eq(enable), check.i.payload.address.eq(address), check.i.payload.value.eq(value),
        ]  # fmt: skip
        enable, address, value = check.o.valid, check.o.payload.address, check.o.payload.value
        for register in register_map().registers:
            for field in register.fields:
                path = f"{register.name}.{field.name}"
                for index in range(register.count if field.writable else 0):
                    signal = self._value[path, index]
                    bits = value[field.low : field.low + len(signal)]
                    with m.If(enable & (address == register.address // 4 + index)):
                        if field.clear_on_one:
                            m.d.sync += signal.eq(signal & ~bits)
                        elif field.pulse:
                            m.d.sync += signal.eq(signal | bits)
                        else:
                            m.d.sync += signal.eq(bits)
        # An interrupt that comes while its bit is cleared is not lost; nor one that came before the clearing, which was
        # under way when the host thought it had seen all events. EVENT_CONSUMER, written before, counts once it is checked.
        cleared = Signal(CHECK_CYCLES + 4)
        irq_status = register_map()["IRQ_STATUS"].address // 4
        m.d.sync += cleared.eq(Cat(enable & (address == irq_status), cleared))
        with m.If(self.event_irq | (cleared[-1] & self.event_pending)):
            m.d.sync += self._value["IRQ_STATUS.EVENT", 0].eq(1)
        for path, stalled in zip(STALLED, self.stalled, strict=True):
            with m.If(stalled):
                m.d.sync += self._value[path, 0].eq(1)
        with m.If(self.error_irq):
            m.d.sync += self._value["IRQ_STATUS.ERROR", 0].eq(1)

    def _reads(self, m, slave):
        """Three registered stages of a multiplexer, with time to spare."""
        word = Signal(18)
        timer = Signal(range(COUNTER_CYCLES))
        words = {}
        known = Signal()
        for register in register_map().registers:
            first = register.address // 4
            with m.Switch(word):
                with m.Case(*range(first, first + register.count)):
                    m.d.comb += known.eq(1)
            if register.name != "COUNTER":
                for index in range(register.count):
                    words[first + index] = [
                        (field.low, self._value[f"{register.name}.{field.name}", index])
                        for field in register.fields
                        if field.readable
                    ]

        # A register's word: four candidates, one for each place in a group of four, then one of them.
        group = Signal(16)
        m.d.sync += [group[number].eq(word[2:6] == number) for number in range(16)]
        quarters = [Signal(32, name=f"quarter_{n}") for n in range(4)]
        for number, quarter in enumerate(quarters):
            candidates = [
                Cat(*self._bits(fields)) & group[place // 4].replicate(32)
                for place, fields in words.items()
                if place % 4 == number
            ]
            m.d.sync += quarter.eq(reduce(or_, candidates))
        picked = Signal(32)
        known_late = Signal()
        m.d.sync += [known_late.eq(known), picked.eq(0)]
        with m.Switch(word[:2]):
            for number, quarter in enumerate(quarters):
                with m.Case(number):
                    m.d.sync += picked.eq(quarter)

        is_counter = word[7]
        assert register_map()["COUNTER"].address // 4 == 1 << 7 and len(Counter) <= 64
        m.d.comb += [
            self.counter_index.eq(word[:6]),
            slave.read_response.p.data.eq(Mux(known_late, Mux(is_counter, self.counter_value, picked), 0)),
            slave.read_response.p.resp.eq(Mux(known_late, Response.OKAY, Response.SLVERR)),
        ]
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += slave.read.ready.eq(1)
                m.d.sync += [
                    word.eq(slave.read.payload),
                    timer.eq(Mux(slave.read.payload[7], COUNTER_CYCLES, READ_CYCLES) - 1),
                ]
                with m.If(slave.read.valid):
                    m.next = "Wait"
            with m.State("Wait"):
                m.d.sync += timer.eq(timer - 1)
                with m.If(timer == 0):
                    m.next = "Answer"
            with m.State("Answer"):
                m.d.comb += slave.read_response.valid.eq(1)
                with m.If(slave.read_response.ready):
                    m.next = "Idle"

    @staticmethod
    def _bits(fields):
        """The parts of a register's word, from bit 0 on; ``fields`` is a list of (lowest bit, signal or constant)."""
        at = 0
        for low, signal in fields:
            yield Const(0, low - at)
            part = Const(signal, max(1, signal.bit_length())) if isinstance(signal, int) else signal
            yield part
            at = low + len(part)

    def _soft_reset(self, m):
        request = self._value["CONTROL.SOFT_RESET", 0]
        enable = self._value["CONTROL.ENABLE", 0]
        timer = Signal(range(RESET_CYCLES))
        with m.FSM():
            with m.State("Run"):
                with m.If(request):
                    m.d.sync += self.quiesce.eq(1)
                    m.next = "Quiesce"
            with m.State("Quiesce"):
                m.d.sync += [enable.eq(0), timer.eq(RESET_CYCLES - 1)]
                with m.If(self.quiet):
                    m.d.sync += self.soft_reset.eq(1)
                    m.next = "Reset"
            with m.State("Reset"):
                m.d.sync += timer.eq(timer - 1)
                for (path, _), signal in self._value.items():
                    if path.split(".")[0] in CLEARED and path not in MEASURED:
                        m.d.sync += signal.eq(signal.init)
                with m.If(timer == 0):
                    m.d.sync += [self.soft_reset.eq(0), self.quiesce.eq(0)]
                    m.next = "Run"
