"""A connection's life on the engine at its ports: opened by the host, data both ways, closed by the peer, then by the host.

The peer are scapy's packets. `pytest` runs it (test_engine.py).
"""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamSink, AxiStreamSource
from host import RCV, RING_LOG2, SND, Host
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tiptoe_driver.hardware import abi_gen as abi

OURS, PEER = "10.0.0.2", "10.0.0.1"
OUR_MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
PORT, PEER_PORT = 50000, 80
NAMES = {"laddr": 0x0A000002, "faddr": 0x0A000001, "lport": PORT, "fport": PEER_PORT}
TID = 1 << 16  # id 0, generation 1


class Peer:
    """Who is at the other end of the line; ``seq`` and ``ack`` are what its next segment says."""

    def __init__(self, dut):
        self._to_engine = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis_rx"), dut.clk, dut.rst)
        self._from_engine = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis_tx"), dut.clk, dut.rst)
        self.seq, self.ack = 1000, 0

    async def send(self, flags: str, data: bytes = b"", **fields) -> None:
        tcp = TCP(sport=PEER_PORT, dport=PORT, seq=self.seq, ack=self.ack, flags=flags, window=8192, **fields)
        frame = Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER, dst=OURS) / tcp / data
        await self._to_engine.send(bytes(frame))
        self.seq += len(data) + ("S" in flags) + ("F" in flags)

    async def expect(self, flags: str, data: bytes = b"") -> TCP:
        """The engine's next segment is this one, and right."""
        frame = await with_timeout(self._from_engine.recv(), 1, "ms")
        packet = Ether(bytes(frame.tdata))
        segment = packet[TCP]
        payload = bytes(segment.payload)[: packet[IP].len - 40]  # without the padding of short frames
        assert (packet.dst, packet[IP].dst, segment.dport) == (PEER_MAC, PEER, PEER_PORT)
        assert (segment.flags, payload) == (flags, data)
        if "S" not in flags:
            assert (segment.seq, segment.ack) == (self.ack, self.seq)
        self.ack = segment.seq + len(data) + ("S" in flags) + ("F" in flags) & 0xFFFF_FFFF
        return segment


async def open_connection(dut) -> tuple[Host, Peer]:
    """Reset, and a connection that the host has opened."""
    Clock(dut.clk, 8, "ns").start()
    peer = Peer(dut)
    host = Host(dut, mac=0x020000000002, ip=NAMES["laddr"])
    await host.bring_up()
    rings = {"snd_base": SND, "rcv_base": RCV, "snd_log2": RING_LOG2, "rcv_log2": RING_LOG2}
    await host.command(abi.pack_provision(0, tid=TID, **rings, stock=0))
    route = {"dmac": 0x020000000001, "use_next_hop": 0, "next_hop": 0}
    options = {"mss": 1460, "rcv_scale": 0, "ecn": 0, "faddr6_low": 0, "faddr6_high": 0}
    await host.command(abi.pack_open(0, tid=TID, **NAMES, **route, **options))
    await peer.expect("S")
    await peer.send("SA", options=[("MSS", 1460)])
    await peer.expect("A")
    await host.news(lambda event: event.established)
    return host, peer


@cocotb.test()
async def connection(dut):
    host, peer = await open_connection(dut)

    # Data out: into the send ring, the doorbell, and the peer acknowledges.
    host.memory.write(SND, b"ping")
    await host.write(abi.DOORBELL_BASE + abi.DOORBELL_SND, 4)
    await peer.expect("PA", b"ping")
    await peer.send("A")
    await host.news(lambda event: event.snd_una_position == 4)

    # Data in: from the wire into the receive ring; the event comes when it is there. The peer closes with it.
    await peer.send("FPA", b"pong")
    event = await host.news(lambda event: event.peer_closed)
    assert event.rcv_position == 5  # the FIN counts as one
    assert host.memory.read(RCV, 4) == b"pong"
    await peer.expect("A")

    # Closed by us too: the id comes back.
    await host.command(abi.pack_close(0, tid=TID, snd_end=4))
    await peer.expect("FA")
    await peer.send("A")
    event = await host.news(lambda event: event.terminal)
    assert event.reason == abi.Reason.NORMAL
    await host.command(abi.pack_release(7, tid=TID, **NAMES))
    done = await host.event(abi.CommandDoneEvent)
    assert (done.tag, done.status) == (7, abi.Status.OK)


@cocotb.test()
async def lost_segment(dut):
    """What nobody acknowledges is sent again when the retransmission timer is over, from host memory."""
    host, peer = await open_connection(dut)
    host.memory.write(SND, b"ping")
    await host.write(abi.DOORBELL_BASE + abi.DOORBELL_SND, 4)
    await peer.expect("PA", b"ping")
    peer.ack -= 4  # it got lost: the same is expected again
    for _ in range(8):
        await host.tick()
    await peer.expect("PA", b"ping")
