"""The engine's host in cocotb: registers over AXI4-Lite, memory behind AXI4, and as much of a driver as one connection needs."""

import secrets

from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from tiptoe_driver.hardware import abi_gen as abi

# Where things lie in host memory; each ring is aligned to its size.
COMMANDS, COMMANDS_LOG2 = 0x0000, 4
EVENTS, EVENTS_LOG2 = 0x1000, 4
FRAMES, FRAMES_LOG2 = 0x4000, 1
SND, RCV, RING_LOG2 = 0x8000, 0x9000, 12
MEMORY_BYTES = 1 << 16
PATIENCE_US = 1000


class Host:
    """The host of ``dut``, with the addresses that it gives the engine."""

    def __init__(self, dut, mac: int, ip: int):
        self.dut, self.mac, self.ip = dut, mac, ip
        self._registers = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self.memory = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=MEMORY_BYTES)
        self._commands = self._events = 0

    async def read(self, register: int) -> int:
        return await self._registers.read_dword(register)

    async def write(self, register: int, value: int) -> None:
        await self._registers.write_dword(register, value)

    async def bring_up(self) -> None:
        """Reset to ENABLE."""
        self.dut.tick.value = 0
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 10)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)
        assert await self.read(abi.REG_ID) == abi.ID_VALUE
        while not await self.read(abi.REG_STATUS) & abi.STATUS_READY:  # memories are scrubbed
            await ClockCycles(self.dut.clk, 50)
        registers = {
            abi.REG_MAC_LO: self.mac & 0xFFFF_FFFF,
            abi.REG_MAC_HI: self.mac >> 32,
            abi.REG_IP_ADDR: self.ip,
            abi.REG_MSL_TICKS: 0,
            abi.REG_RTO_MIN: 4,  # ticks, which are short here
            abi.REG_COMMAND_RING_LO: COMMANDS,
            abi.REG_COMMAND_RING_LOG2: COMMANDS_LOG2,
            abi.REG_EVENT_RING_LO: EVENTS,
            abi.REG_EVENT_RING_LOG2: EVENTS_LOG2,
            abi.REG_FRAME_RING_LO: FRAMES,
            abi.REG_FRAME_RING_LOG2: FRAMES_LOG2,
            abi.REG_IRQ_MASK: abi.IRQ_MASK_EVENT | abi.IRQ_MASK_ERROR,
        }
        for n in range(4):
            registers[abi.REG_ISN_KEY + 4 * n] = secrets.randbits(32)
        for register, value in registers.items():
            await self.write(register, value)
        await self.write(abi.REG_CONTROL, abi.CONTROL_ENABLE | abi.CONTROL_EXTERNAL_TICK)

    async def command(self, command: bytes) -> None:
        """Into the ring, then the doorbell."""
        self.memory.write(COMMANDS + self._commands % (1 << COMMANDS_LOG2) * abi.COMMAND_BYTES, command)
        self._commands += 1
        await self.write(abi.REG_COMMAND_TAIL, self._commands)

    async def event(self, kind: type):
        """The next event, which is to be of this kind."""
        index, turn = self._events % (1 << EVENTS_LOG2), self._events >> EVENTS_LOG2 & 1
        while abi.event_phase(entry := self.memory.read(EVENTS + index * abi.EVENT_BYTES, abi.EVENT_BYTES), 0) == turn:
            await self.interrupt()
        self._events += 1
        await self.write(abi.REG_EVENT_CONSUMER, self._events)
        await self.write(abi.REG_IRQ_STATUS, abi.IRQ_STATUS_EVENT | abi.IRQ_STATUS_ERROR)  # behind EVENT_CONSUMER
        event = abi.unpack_event(entry)
        assert isinstance(event, kind), event
        return event

    async def news(self, until) -> abi.ConnectionEvent:
        """The next snapshot of the connection for which ``until`` holds: there may be some before it."""
        while not until(event := await self.event(abi.ConnectionEvent)):
            pass
        return event

    async def interrupt(self) -> None:
        """Wait for it."""
        if not self.dut.irq.value:
            late = Timer(PATIENCE_US, "us")
            assert await First(RisingEdge(self.dut.irq), late) is not late, "no interrupt"
        await RisingEdge(self.dut.clk)

    async def tick(self) -> None:
        """A tick of TCP's clock: a millisecond, as it says, however long it is here."""
        self.dut.tick.value = 1
        await RisingEdge(self.dut.clk)
        self.dut.tick.value = 0
        await ClockCycles(self.dut.clk, 200)
