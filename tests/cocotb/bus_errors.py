"""Errors of the memory bus, for each kind of transfer: counted or told, nothing hangs, nothing leaks, a bystander connection
keeps carrying bytes intact through all of it (run by test_engine.py)."""

import errno
import socket

from scapy.layers.l2 import ARP, Ether

from tests.cocotb.steps import NO_LINGER, counted, outcome
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.testbench.bystander import Bystander
from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.steps import active, close_by_peer, exchange, receive, use_everything
from tiptoe_verif.testbench.testbench import ENGINE_IP, ENGINE_MAC, Bench, engine_test


def ring_of(b: Bench, local: int):
    """The rings of a connection."""
    return next(toep for toep in b.toe.engine.ids.toepcbs if toep and toep.tp and toep.four_tuple[1] == local).rings


@engine_test()
def test_payload_read_error(b: Bench) -> None:
    """Payload that cannot be read is not sent: counted and told; it comes with the retransmission."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    rings = ring_of(b, 50000)
    fault = b.memory.read_faults.add(rings.snd_block.address, 4096, count=2)
    data = b.rng.randbytes(1000)
    sock.send(data)
    assert peer.wait_for(1000) == data
    assert fault.hits == 2
    counters = b.counters()
    assert counters["TX_DROPPED"] and counters["DMA_READ_ERROR"] and b.errors_told(abi.ErrorCode.PAYLOAD_READ)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("error_payload_read",)


@engine_test()
def test_payload_read_error_for_good(b: Bench) -> None:
    """Payload that can never be read: the connection times out, the id comes back."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    b.memory.read_faults.add(ring_of(b, 50000).snd_block.address, 4096)
    sock.send(b"x" * 100)
    b.until(sock.readable, "the time-out", 2_000_000)
    try:
        sock.recv(1)
    except OSError as error:
        assert error.errno == errno.ETIMEDOUT
    assert not peer.inbox
    b.memory.read_faults.clear()
    sock.close()
    bystander.close()
    b.expected_trouble = ("error_payload_read",)


@engine_test()
def test_payload_write_error(b: Bench) -> None:
    """Received payload that cannot be written: the connection is reset rather than left with a hole, and the host told."""
    bystander = Bystander(b)
    host = Host(b)
    for n, segments in enumerate((1, 5)):
        peer, sock = active(b, host, port=7000 + n, local=50000 + n)
        peer.send("PA", b"good")
        assert receive(b, sock, 4) == b"good"
        fault = b.memory.write_faults.add(ring_of(b, 50000 + n).rcv_block.address, 4096, count=1)
        for _ in range(segments):
            peer.send("PA", b.rng.randbytes(300))
        b.until(lambda peer=peer: any(s.flags & 4 for s in peer.inbox), "the reset")
        assert fault.hits == 1
        b.until(sock.readable, "the error")
        try:
            while sock.recv(5000):
                pass
        except OSError as error:
            assert error.errno == errno.EIO
        else:
            raise AssertionError("no EIO")
        sock.close()
        b.until(lambda: b.free_ids == 15, "the id")
    assert b.counters()["DMA_WRITE_ERROR"] == 2 and b.errors_told(abi.ErrorCode.PAYLOAD_WRITE)
    b.memory.write_faults.clear()
    peer, sock = active(b, host)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("error_payload_write",)


@engine_test()
def test_command_fetch_error(b: Bench) -> None:
    """Commands that cannot be read are skipped, each answered with DMA_ERROR; the next ones are carried out."""
    bystander = Bystander(b)
    engine = b.toe.engine
    fault = b.memory.read_faults.add(b.register(abi.REG_COMMAND_RING_LO), engine.commands.entries * 64, count=1)
    before = b.counters()
    for _ in range(3):
        engine.commands.post_control(abi.pack_nop(0))
    b.until(lambda: b.errors_told(abi.ErrorCode.COMMAND_FETCH), "the error event")
    assert fault.hits == 1
    b.settle()
    assert counted(b, before)["DMA_READ_ERROR"] == 1
    assert engine.counters["failed_commands"] == b.counters()["BAD_COMMAND"] >= 1
    peer, sock = active(b, Host(b))
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("failed_commands", "error_command_fetch")


@engine_test()
def test_event_write_error(b: Bench) -> None:
    """Events that cannot be written are written again: nothing is lost."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    address = b.register(abi.REG_EVENT_RING_LO)
    fault = b.memory.write_faults.add(address, b.toe.engine.events.entries * 32, count=5)
    for _ in range(4):
        exchange(b, peer, sock)
    assert fault.hits == 5
    assert b.counters()["DMA_WRITE_ERROR"] == 5 and b.errors_told(abi.ErrorCode.EVENT_WRITE)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("error_event_write",)


@engine_test()
def test_host_frame_errors(b: Bench) -> None:
    """Frames of the host that cannot be read are answered with DMA_ERROR; received ones that cannot be written are told."""
    bystander = Bystander(b)
    host = Host(b)
    b.memory.read_faults.add(0x1C0000, 4096)
    assert outcome(b, abi.pack_send_frame(0, addr=0x1C0010, length=100)) == abi.Status.DMA_ERROR
    b.memory.read_faults.clear()
    slots = b.register(abi.REG_FRAME_RING_LO)
    fault = b.memory.write_faults.add(slots, 16 * 2048, count=2)
    request = bytes(
        Ether(src=host.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=host.mac, psrc=host.ip, pdst=ENGINE_IP)
    )
    seen = []
    b.line.hosts.append(lambda frame: seen.append(frame) if frame[12:14] == b"\x08\x06" else None)
    for _ in range(20):
        b.line.give(request.ljust(60, b"\0"))
        b.run(1500)
    assert fault.hits == 2
    b.until(lambda: len(seen) == 18, f"eighteen ARP replies, not {len(seen)}")
    assert b.errors_told(abi.ErrorCode.PAYLOAD_WRITE)
    bystander.close()
    b.expected_trouble = ("failed_commands", "error_payload_write", "error_payload_read", "frames_not_written")


@engine_test()
def test_errors_everywhere(b: Bench) -> None:
    """Reads, writes and events fail in the midst of transfers: a connection may die of it, the next one lives."""
    b.line.monitor.may_skip = True
    host = Host(b)
    events = b.register(abi.REG_EVENT_RING_LO)
    for n in range(6):
        peer, sock = active(b, host, port=7000 + n, local=50000 + n)
        rings = ring_of(b, 50000 + n)
        b.memory.read_faults.add(rings.snd_block.address + b.rng.randrange(1000), 64, count=2)
        b.memory.write_faults.add(rings.rcv_block.address + b.rng.randrange(3000), 64, count=1)
        b.memory.write_faults.add(events, b.toe.engine.events.entries * 32, count=2)
        sock.send(b.rng.randbytes(1000))
        for _ in range(3):
            peer.send("A", b.rng.randbytes(500))
            b.run(1000)
        b.run(20_000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        sock.close()
        b.memory.read_faults.clear()
        b.memory.write_faults.clear()
        b.until(lambda: b.free_ids == 16, "the id")
    Bystander(b).close()
    use_everything(b)
    b.expected_trouble = ("error_payload_read", "error_payload_write", "error_event_write")


QUICK = {abi.REG_RTO_INITIAL: 8, abi.REG_RTO_MIN: 6}
TIMES = 40
"""More than there are credits, slots and queue entries anywhere in the engine."""


@engine_test(registers=QUICK, stall=0.1)
def test_many_payload_read_errors(b: Bench) -> None:
    """Forty reads fail, each of a segment under way: no credit is lost with them."""
    peer, sock = active(b, Host(b))
    ring = ring_of(b, 50000).snd_block
    for n in range(TIMES):
        b.memory.read_faults.clear()
        fault = b.memory.read_faults.add(ring.address, ring.size, count=1)
        exchange(b, peer, sock, b.rng.randbytes(100 + n), b"")
        assert fault.hits == 1
    assert b.counters()["TX_DROPPED"] == b.counters()["DMA_READ_ERROR"] == TIMES
    close_by_peer(b, peer, sock)
    use_everything(b)
    b.expected_trouble = ("error_payload_read",)


@engine_test(stall=0.1)
def test_many_payload_write_errors(b: Bench) -> None:
    """Forty connections die of a failed write, with more data behind it."""
    host = Host(b)
    for n in range(TIMES):
        peer, sock = active(b, host, port=7000 + n, local=50000 + n)
        ring = ring_of(b, 50000 + n).rcv_block
        b.memory.write_faults.add(ring.address, ring.size, count=1)
        for _ in range(3):
            peer.send("PA", bytes(200))
        b.until(sock.readable, "the error")
        sock.close()
        b.memory.write_faults.clear()
        b.until(lambda: b.free_ids == 16, "the id")
    assert b.counters()["DMA_WRITE_ERROR"] == TIMES
    use_everything(b)
    b.expected_trouble = ("error_payload_write",)


@engine_test(stall=0.1)
def test_many_event_and_frame_errors(b: Bench) -> None:
    """Forty failed writes of events, forty of host frames, forty failed reads of frames to be sent."""
    host = Host(b)
    peer, sock = active(b, host)
    events = b.memory.write_faults.add(b.register(abi.REG_EVENT_RING_LO), b.toe.engine.events.entries * 32, count=TIMES)
    b.until(lambda: exchange(b, peer, sock) or events.hits == TIMES, "failed event writes")
    b.memory.write_faults.clear()
    frames = b.memory.write_faults.add(b.register(abi.REG_FRAME_RING_LO), 16 * 2048, count=TIMES)
    arp = Ether(src=host.mac, dst=ENGINE_MAC) / ARP(op=2, hwsrc=host.mac, psrc=host.ip, pdst=ENGINE_IP)
    while frames.hits < TIMES:
        b.line.give(bytes(arp).ljust(60, b"\0"))
        b.run(600)
    b.memory.write_faults.clear()
    b.memory.read_faults.add(0x1C0000, 4096)
    for _ in range(TIMES):
        assert outcome(b, abi.pack_send_frame(0, addr=0x1C0010, length=100)) == abi.Status.DMA_ERROR
    b.memory.read_faults.clear()
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    use_everything(b)
    b.expected_trouble = (
        "failed_commands", "error_payload_write", "error_payload_read", "error_event_write", "frames_not_written",
    )  # fmt: skip
