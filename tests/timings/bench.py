"""The engine's ports in the situations of docs/interfaces.md, recorded cycle by cycle (a cocotb bench, run by page.py).

Nothing stalls, and host memory answers after as many cycles as ``LATENCY`` says. Each test leaves the diagrams of its
situation as WaveJSON in the working folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge

from tests.timings.wavejson import Cycle, Row, diagram, text
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY
from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.steps import active, close_by_peer, receive
from tiptoe_verif.testbench.testbench import Bench, engine_test

LATENCY = 5
"""Of host memory, cycles."""

KEEP = TINY.data_width // 8 // 4


def words(port: str, valid: str) -> tuple[Row, ...]:
    """Rows of a bus' data, 32 bits each."""
    return tuple(Row(port, valid, 8, low) for low in reversed(range(0, TINY.data_width, 32)))


RX = (
    Row("s_axis_rx_tvalid"), Row("s_axis_rx_tready"), *words("s_axis_rx_tdata", "s_axis_rx_tvalid"),
    Row("s_axis_rx_tkeep", "s_axis_rx_tvalid", KEEP), Row("s_axis_rx_tlast"), Row("s_axis_rx_tuser"),
)  # fmt: skip
TX = (
    Row("m_axis_tx_tvalid"), Row("m_axis_tx_tready"), *words("m_axis_tx_tdata", "m_axis_tx_tvalid"),
    Row("m_axis_tx_tkeep", "m_axis_tx_tvalid", KEEP), Row("m_axis_tx_tlast"),
)  # fmt: skip
AXIL_WRITE = (
    Row("s_axil_awvalid"), Row("s_axil_awready"), Row("s_axil_awaddr", "s_axil_awvalid", 5),
    Row("s_axil_wvalid"), Row("s_axil_wready"), Row("s_axil_wdata", "s_axil_wvalid", 8),
    Row("s_axil_bvalid"), Row("s_axil_bready"), Row("s_axil_bresp", "s_axil_bvalid"),
)  # fmt: skip
AXIL_READ = (
    Row("s_axil_arvalid"), Row("s_axil_arready"), Row("s_axil_araddr", "s_axil_arvalid", 5),
    Row("s_axil_rvalid"), Row("s_axil_rready"), Row("s_axil_rdata", "s_axil_rvalid", 8),
)  # fmt: skip
AXI_READ = (
    Row("m_axi_arvalid"), Row("m_axi_arready"), Row("m_axi_araddr", "m_axi_arvalid", 6), Row("m_axi_arlen", "m_axi_arvalid", 2),
    Row("m_axi_rvalid"), Row("m_axi_rready"), *words("m_axi_rdata", "m_axi_rvalid"), Row("m_axi_rlast"),
)  # fmt: skip
AXI_WRITE = (
    Row("m_axi_awvalid"), Row("m_axi_awready"), Row("m_axi_awaddr", "m_axi_awvalid", 6), Row("m_axi_awlen", "m_axi_awvalid", 2),
    Row("m_axi_wvalid"), Row("m_axi_wready"), *words("m_axi_wdata", "m_axi_wvalid"),
    Row("m_axi_wstrb", "m_axi_wvalid", KEEP), Row("m_axi_wlast"), Row("m_axi_bvalid"), Row("m_axi_bready"),
)  # fmt: skip
IRQ = (Row("irq"),)
RECORDED = sorted({row.port for rows in (RX, TX, AXIL_WRITE, AXIL_READ, AXI_READ, AXI_WRITE, IRQ) for row in rows})


class Recorder:
    """Every port's value in the middle of each cycle, while it is on."""

    def __init__(self, dut: Any) -> None:
        self.cycles: list[Cycle] = []
        self._on = False
        self._ports = {name: getattr(dut, name) for name in RECORDED}
        self._edge = FallingEdge(dut.clk)
        cocotb.start_soon(self._record())

    async def _record(self) -> None:
        while True:
            await self._edge
            if self._on:
                self.cycles.append({name: int(port.value) for name, port in self._ports.items()})

    def start(self) -> None:
        """Begin anew."""
        self.cycles, self._on = [], True

    def draw(
        self, name: str, title: str, groups: Mapping[str, Sequence[Row]], begin: int, end: int, keep: int = 1
    ) -> None:
        """Write the diagram of the cycles from ``begin`` to ``end``, one more before and two after."""
        drawing = diagram(title, groups, self.cycles[max(begin - 1, 0) : end + 3], keep)
        Path(f"{name}.json").write_text(text(drawing))

    def first(self, condition: Callable[[Cycle], Any], after: int = 0) -> int:
        """Number of the first cycle from ``after`` on in which it holds."""
        return next(n for n in range(after, len(self.cycles)) if condition(self.cycles[n]))


def last_beat(port: str) -> Callable[[Cycle], Any]:
    """A frame's last beat passes the port."""
    return lambda cycle: cycle[f"{port}_tvalid"] and cycle[f"{port}_tready"] and cycle[f"{port}_tlast"]


def recorded(b: Bench) -> tuple[Recorder, Any, Any]:
    """A connection that rests, and whose ports are recorded from here on."""
    recorder = Recorder(b.dut)
    peer, sock = active(b, Host(b))
    b.settle()
    recorder.start()
    b.run(5)
    return recorder, peer, sock


@engine_test(stall=0, latency=range(LATENCY, LATENCY + 1))
def test_received(b: Bench) -> None:
    """Two segments come: the second is acknowledged at once."""
    recorder, peer, sock = recorded(b)
    peer.send("PA", b"Hello")
    peer.send("PA", b"again")
    peer.expect_ack(11)
    assert receive(b, sock, 10) == b"Helloagain"
    b.settle()
    first = recorder.first(lambda cycle: cycle["s_axis_rx_tvalid"])
    last = recorder.first(last_beat("s_axis_rx"))
    recorder.draw("rx-frame", "A received frame: 59 bytes and a byte of padding", {"in": RX}, first, last)
    payload = recorder.first(lambda cycle: cycle["m_axi_awvalid"], last)
    placed = recorder.first(lambda cycle: cycle["m_axi_bvalid"], payload)
    recorder.draw("payload-write", "5 bytes of payload go into the receive ring", {"write": AXI_WRITE}, payload, placed)
    event = recorder.first(lambda cycle: cycle["m_axi_awvalid"], placed)
    # Without its 32 bytes, which docs/rings.md explains, the diagram is half as wide.
    shape = tuple(row for row in AXI_WRITE if row.port != "m_axi_wdata" and row.digits < 4)
    recorder.draw("event", "An event of 32 bytes, its response, the interrupt", {"write": shape, "host": IRQ},
                  event, recorder.first(lambda cycle: cycle["irq"], event))  # fmt: skip
    first, last = last, recorder.first(last_beat("s_axis_rx"), last + 1)
    answer = recorder.first(lambda cycle: cycle["m_axis_tx_tvalid"], last)
    rows = {"in": (RX[0], RX[-2]), "out": (TX[0], TX[-1])}
    recorder.draw("ack", f"The second of two segments, and its ACK {answer - last} cycles after its last word", rows,
                  first, recorder.first(last_beat("m_axis_tx"), answer))  # fmt: skip
    close_by_peer(b, peer, sock)


@engine_test(stall=0, latency=range(LATENCY, LATENCY + 1))
def test_sent(b: Bench) -> None:
    """A doorbell: the register write, the payload's read, the frame; and a register read."""
    recorder, peer, sock = recorded(b)
    sock.send(b"Hello, world!")
    peer.expect("A", data=b"Hello, world!")
    peer.send("A")
    b.settle()
    written = recorder.first(lambda cycle: cycle["s_axil_awvalid"] or cycle["s_axil_wvalid"])
    done = recorder.first(lambda cycle: cycle["s_axil_bvalid"] and cycle["s_axil_bready"])
    recorder.draw("doorbell", "A doorbell: send ring's end of connection 0", {"write": AXIL_WRITE}, written, done)
    asked = recorder.first(lambda cycle: cycle["m_axi_arvalid"], written)
    came = recorder.first(lambda cycle: cycle["m_axi_rvalid"] and cycle["m_axi_rlast"], asked)
    recorder.draw("payload-read", f"13 bytes of payload are read, {LATENCY} cycles of memory", {"read": AXI_READ},
                  asked, came)  # fmt: skip
    begins = recorder.first(lambda cycle: cycle["m_axis_tx_tvalid"], came)
    recorder.draw("tx-frame", "A frame that is sent: 67 bytes", {"out": TX}, begins,
                  recorder.first(last_beat("m_axis_tx"), begins))  # fmt: skip
    b.settle()
    recorder.start()
    b.run(5)
    b.register(abi.REG_ID)
    b.settle()
    asked = recorder.first(lambda cycle: cycle["s_axil_arvalid"])
    answered = recorder.first(lambda cycle: cycle["s_axil_rvalid"])
    recorder.draw("register-read", "The register ID is read", {"read": AXIL_READ}, asked, answered)
    close_by_peer(b, peer, sock)
