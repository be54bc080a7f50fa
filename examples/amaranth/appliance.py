"""A design of one's own around the engine, in Amaranth: host memory inside the chip, and a sequencer in a processor's place.

`python appliance.py` simulates it with Amaranth's simulator: once the sequencer has brought the engine up, a SYN for a port where
nobody listens is answered with a reset. Beside the engine it needs scapy, for the SYN.
"""

from amaranth.hdl import Array, C, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY
from tiptoe_hdl.engine import Engine
from tiptoe_hdl.host.axi import AxiLiteSignature
from tiptoe_hdl.host.block_memory import BlockMemory
from tiptoe_hdl.wire.axi_stream import AxiStreamSignature

OURS, OUR_MAC = "10.0.0.2", "02:00:00:00:00:02"
PEER, PEER_MAC = "10.0.0.1", "02:00:00:00:00:01"
MEMORY_BYTES = 1 << 16
WRITES = [
    (abi.REG_MAC_LO, 0x00000002),
    (abi.REG_MAC_HI, 0x0200),
    (abi.REG_IP_ADDR, 0x0A000002),
    (abi.REG_EVENT_RING_LO, 0x1000),
    (abi.REG_EVENT_RING_LOG2, 6),
    (abi.REG_CONTROL, abi.CONTROL_ENABLE | abi.CONTROL_RST_UNKNOWN),
]


class Sequencer(wiring.Component):
    """Reads STATUS until the engine is ready, then writes ``writes``, one after the other; ``done`` from then on."""

    bus: Out(AxiLiteSignature())
    done: Out(1)

    def __init__(self, writes):
        self._writes = writes
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        bus, at = self.bus, Signal(range(len(self._writes) + 1))
        address = Array(C(address, 20) for address, _ in self._writes)[at]
        value = Array(C(value, 32) for _, value in self._writes)[at]
        m.d.comb += [bus.araddr.eq(abi.REG_STATUS), bus.awaddr.eq(address), bus.wdata.eq(value), bus.wstrb.eq(0xF)]
        with m.FSM():
            with m.State("ASK"):
                m.d.comb += bus.arvalid.eq(1)
                with m.If(bus.arready):
                    m.next = "HEAR"
            with m.State("HEAR"):
                m.d.comb += bus.rready.eq(1)
                with m.If(bus.rvalid):
                    m.next = "ASK"
                    with m.If(bus.rdata & abi.STATUS_READY):
                        m.d.sync += [bus.awvalid.eq(1), bus.wvalid.eq(1)]
                        m.next = "WRITE"
            with m.State("WRITE"):
                with m.If(bus.awready):
                    m.d.sync += bus.awvalid.eq(0)
                with m.If(bus.wready):
                    m.d.sync += bus.wvalid.eq(0)
                m.d.comb += bus.bready.eq(1)
                with m.If(bus.bvalid):
                    m.d.sync += at.eq(at + 1)
                    with m.If(at == len(self._writes) - 1):
                        m.next = "DONE"
                    with m.Else():
                        m.d.sync += [bus.awvalid.eq(1), bus.wvalid.eq(1)]
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
        return m


class Appliance(wiring.Component):
    """The engine with what it needs. Its ports are the two for a MAC."""

    def __init__(self, cfg):
        self._cfg = cfg
        super().__init__(
            {
                "rx": In(AxiStreamSignature(cfg.data_width, user_width=1)),
                "tx": Out(AxiStreamSignature(cfg.data_width)),
                "running": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = Engine(self._cfg)
        m.submodules.memory = memory = BlockMemory(MEMORY_BYTES, self._cfg.addr_width)
        m.submodules.sequencer = sequencer = Sequencer(WRITES)
        wiring.connect(m, sequencer.bus, engine.s_axil)
        wiring.connect(m, engine.m_axi_read, memory.s_axi_read)
        wiring.connect(m, engine.m_axi_write, memory.s_axi_write)
        wiring.connect(m, wiring.flipped(self.rx), engine.s_axis_rx)
        wiring.connect(m, engine.m_axis_tx, wiring.flipped(self.tx))
        m.d.comb += self.running.eq(sequencer.done)
        return m


async def send(ctx, port, frame: bytes) -> None:
    """A frame into an AXI4-Stream port; the first byte is in the lowest bits."""
    width = len(port.tkeep)
    for at in range(0, len(frame), width):
        beat = frame[at : at + width]
        ctx.set(port.tdata, int.from_bytes(beat, "little"))
        ctx.set(port.tkeep, (1 << len(beat)) - 1)
        ctx.set(port.tlast, at + width >= len(frame))
        ctx.set(port.tvalid, 1)
        await ctx.tick().until(port.tready)
    ctx.set(port.tvalid, 0)


async def receive(ctx, port) -> bytes:
    """The next frame."""
    frame, last = b"", 0
    ctx.set(port.tready, 1)
    while not last:
        data, keep, last = await ctx.tick().sample(port.tdata, port.tkeep, port.tlast).until(port.tvalid)
        frame += data.to_bytes(len(port.tkeep), "little")[: keep.bit_count()]
    ctx.set(port.tready, 0)
    return frame


def simulate() -> TCP:
    """The answer to a SYN."""
    design, answers = Appliance(TINY), []
    macs = Ether(src=PEER_MAC, dst=OUR_MAC)
    syn = macs / IP(src=PEER, dst=OURS) / TCP(sport=4000, dport=80, seq=99, flags="S")

    async def line(ctx):
        await ctx.tick().until(design.running)
        await ctx.tick().repeat(20)
        await send(ctx, design.rx, bytes(syn))
        answers.append(Ether(await receive(ctx, design.tx))[TCP])

    simulator = Simulator(design)
    simulator.add_clock(8e-9)
    simulator.add_testbench(line)
    for n in range(1, 31):
        simulator.run_until(n * 1e-6)
        if answers:
            return answers[0]
    raise SystemExit("no answer in 30 us")


if __name__ == "__main__":
    answer = simulate()
    assert (answer.flags, answer.ack, answer.dport) == ("RA", 100, 4000)
    print(f"a SYN for port {answer.sport} is answered: {answer.summary()}")
