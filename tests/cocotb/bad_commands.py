"""Bad input of the host to the whole engine, and a host that does not read: counted or told, nothing hangs, nothing leaks, a
bystander connection keeps carrying bytes intact through all of it (run by test_engine.py)."""

from scapy.layers.l2 import ARP, Ether

from tests.cocotb.steps import counted, outcome
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.testbench.bystander import Bystander
from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.steps import accepted, active, close_by_peer, exchange, listen, passive, receive
from tiptoe_verif.testbench.testbench import ENGINE_IP, ENGINE_MAC, PASSIVE, Bench, engine_test


@engine_test()
def test_doorbells(b: Bench) -> None:
    """Doorbells for ids that are not there or not open, and positions outside the rings."""
    bystander = Bystander(b)
    peer, sock = active(b, Host(b))
    bell = abi.DOORBELL_BASE
    ours = next(toep for toep in b.toe.engine.ids.toepcbs if toep and toep.tp and toep.four_tuple[1] == 50000)
    free = b.toe.engine.ids._free[-1]
    write = b.device.write32
    # Beyond the last id: refused by the bus.
    for address in (bell + 16 * 8, bell + 16 * 8 + 4, bell + 65535 * 8):
        write(address, 1)
    b.settle()
    assert b.device.refused == [bell + 128, bell + 132, bell + 65535 * 8]
    assert b.counters()["BAD_DOORBELL"] == 3 and b.errors_told(abi.ErrorCode.BAD_DOORBELL) >= 1
    # An id that is not provisioned.
    write(bell + free * 8, 5)
    write(bell + free * 8 + 4, 5)
    b.settle()
    assert b.counters()["BAD_DOORBELL"] == 5
    # Outside the rings: more than was there to send, backwards, more consumed than came.
    for offset, position in ((0, 4097), (0, 1 << 31), (0, -1), (4, 1), (4, 5000), (4, 1 << 31)):
        write(bell + ours.tep_id * 8 + offset, position)
    b.settle()
    assert b.counters()["BAD_DOORBELL"] >= 9
    peer.quiet(2000)
    assert b.toe.counters["bad_doorbells"] == 1
    # The connection goes on.
    exchange(b, peer, sock)
    write(bell + ours.tep_id * 8, 4)  # the same again
    write(bell + ours.tep_id * 8 + 4, 4)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.settle()
    write(bell + ours.tep_id * 8, 5)  # over
    b.settle()
    b.expected_trouble = ("error_bad_doorbell", "bad_doorbells")


@engine_test()
def test_commands(b: Bench) -> None:
    """Commands of every kind that make no sense: each is answered with its reason, and nothing changes."""
    bystander = Bystander(b)
    host = Host(b)
    peer, sock = active(b, host)
    toep = next(toep for toep in b.toe.engine.ids.toepcbs if toep and toep.tp and toep.four_tuple[1] == 50000)
    live, stale = toep.tid, (toep.tid + 0x10000) & 0xFFFFFF
    free = b.toe.engine.ids._free[-1] | 7 << 16
    provision = dict(snd_base=0x1C0000, rcv_base=0x1C1000, snd_log2=12, rcv_log2=12, stock=0)
    opened = dict(
        laddr=0x0A000002, faddr=0x0A000001, lport=1, fport=2, dmac=0x020000000001, use_next_hop=0, next_hop=0, mss=1460,
        rcv_scale=0,
        ecn=0, faddr6_low=0, faddr6_high=0,
    )  # fmt: skip
    same = dict(opened, lport=50000, fport=7000)
    tuple_ = dict(laddr=0x0A000002, faddr=0x0A000001, lport=50000, fport=7000)
    before = b.counters()
    cases = [
        (bytes([99]) + bytes(63), "UNKNOWN_OPCODE"),
        (bytes([255]) + b"\xff" * 63, "UNKNOWN_OPCODE"),
        (abi.pack_close(0, tid=16, snd_end=0), "BAD_ID"),
        (abi.pack_abort(0, tid=0xFFFF), "BAD_ID"),
        (abi.pack_close(0, tid=free, snd_end=0), "BAD_ID"),
        (abi.pack_abort(0, tid=free), "BAD_ID"),
        (abi.pack_close(0, tid=stale, snd_end=0), "BAD_GENERATION"),
        (abi.pack_abort(0, tid=stale), "BAD_GENERATION"),
        (abi.pack_release(0, tid=stale, **tuple_), "BAD_GENERATION"),
        (abi.pack_path_mtu(0, tid=stale, mss=500), "BAD_GENERATION"),
        (abi.pack_release(0, tid=live, **tuple_), "BAD_STATE"),
        (abi.pack_provision(0, tid=live, **provision), "BAD_STATE"),
        (abi.pack_open(0, tid=live, **opened), "BAD_STATE"),
        (abi.pack_open(0, tid=free, **opened), "BAD_STATE"),
        (abi.pack_close(0, tid=live, snd_end=5000), "BAD_ARGUMENT"),
        (abi.pack_close(0, tid=live, snd_end=0x80000000), "BAD_ARGUMENT"),
        (abi.pack_path_mtu(0, tid=live, mss=5), "BAD_ARGUMENT"),
        (abi.pack_provision(0, tid=free, **dict(provision, snd_log2=11)), "BAD_ARGUMENT"),
        (abi.pack_provision(0, tid=free, **dict(provision, rcv_log2=25)), "BAD_ARGUMENT"),
        (abi.pack_provision(0, tid=free, **dict(provision, snd_base=0x1C0800)), "BAD_ARGUMENT"),
        (abi.pack_listen(0, listener=4, laddr=0, lport=80, mss=1460, rcv_scale=0, wnd=4096), "BAD_ARGUMENT"),
        (abi.pack_listen(0, listener=0, laddr=0, lport=80, mss=1460, rcv_scale=15, wnd=4096), "BAD_ARGUMENT"),
        (abi.pack_unlisten(0, listener=77), "BAD_ARGUMENT"),
        (abi.pack_syncache_drop(0, syncache_ref=0x10000), "BAD_ARGUMENT"),
        (abi.pack_next_hop(0, index=4, dmac=1), "BAD_ARGUMENT"),
        (abi.pack_send_frame(0, addr=0x1C0000, length=13), "BAD_ARGUMENT"),
        (abi.pack_send_frame(0, addr=0x1C0000, length=1515), "BAD_ARGUMENT"),
    ]
    for command, status in cases:
        found = outcome(b, command)
        assert found == abi.Status[status], f"{command[:40].hex()}: {abi.Status(found).name}, not {status}"
    assert counted(b, before) == {"BAD_COMMAND": len(cases)}
    # Nothing to drop, nobody listens: no harm.
    assert outcome(b, abi.pack_syncache_drop(0, syncache_ref=3)) != abi.Status.OK
    outcome(b, abi.pack_unlisten(0, listener=3))
    # A four-tuple that exists: the id stays usable, and is given back.
    fresh = b.toe.engine.ids.acquire()[0]
    assert outcome(b, abi.pack_open(0, tid=fresh.tid, **same)) == abi.Status.EXISTS
    b.toe.engine.ids.give_back(fresh)
    # A tail beyond the ring is ignored.
    tail = b.toe.engine.commands._tail
    b.device.write32(abi.REG_COMMAND_TAIL, tail + 65)
    b.device.write32(abi.REG_COMMAND_TAIL, tail - 1)
    b.settle()
    assert b.errors_told(abi.ErrorCode.BAD_COMMAND_TAIL) >= 1
    b.device.write32(abi.REG_COMMAND_TAIL, tail)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    bystander.close()
    b.expected_trouble = ("failed_commands", "error_bad_command_tail")


@engine_test()
def test_registers(b: Bench) -> None:
    """Reads and writes where no register is: an error response, and life goes on."""
    bystander = Bystander(b)
    for address in (0x3FC, 0x7000, 0x7FFFC):
        b.device.write32(address, 0xDEADBEEF)
    b.settle()
    assert b.device.refused == [0x3FC, 0x7000, 0x7FFFC]
    assert b.register(abi.REG_ID) == abi.ID_VALUE
    b.device.write32(abi.REG_ID, 0)
    assert b.register(abi.REG_ID) == abi.ID_VALUE
    bystander.close()


@engine_test(frame_slots=4, near_wrap=PASSIVE)
def test_host_asleep(b: Bench) -> None:
    """The host stops looking at its events for long, while everything happens at once; then nothing is missing."""
    host = Host(b)
    listener = listen(b)
    peer, sock = active(b, host)
    sock.send(b"before")
    peer.wait_for(6)
    closing, closed_sock = active(b, host, port=7001, local=50001)
    dying, dead_sock = active(b, host, port=7002, local=50002)
    b.asleep = True
    data = b.rng.randbytes(4096)
    for begin in range(0, 4096, 256):
        peer.send("A", data[begin : begin + 256])
        b.run(700)
    closing.send("FPA", b"bye")
    dying.send("R")
    opening = [host.connection(40000 + n, PASSIVE[0]) for n in range(3)]
    for other in opening:
        other.send("S")
        other.expect("SA")
        b.run(1500)
        other.send("PA", b"hello")
    for _ in range(10):  # more frames for the host than it has slots
        arp = ARP(op=2, hwsrc=host.mac, psrc=host.ip, pdst=ENGINE_IP)
        b.line.give(bytes(Ether(src=host.mac, dst=ENGINE_MAC) / arp).ljust(60, b"\0"))
    peer.expect_ack(4097)
    b.run(30_000)
    b.asleep = False
    assert receive(b, sock, 4096) == data
    children = [accepted(b, listener) for _ in opening]
    assert [receive(b, child, 5) for child in children] == [b"hello"] * 3
    assert receive(b, closed_sock, 3) == b"bye"
    b.until(closed_sock.readable, "end of stream")
    assert closed_sock.recv(1) == b""
    b.until(dead_sock.readable, "the reset")
    try:
        dead_sock.recv(1)
    except ConnectionResetError:
        pass
    else:
        raise AssertionError("no ECONNRESET")
    assert b.counters()["RX_HOST_DROPPED"] == 6
    peer.seq = 4097
    close_by_peer(b, peer, sock)
    closed_sock.close()
    dead_sock.close()
    closing.inbox.clear()
    closing.expect("FA", skip_acks=True)
    closing.send("A")
    for other, child in zip(opening, children, strict=True):
        close_by_peer(b, other, child)
    listener.close()


@engine_test(near_wrap=PASSIVE)
def test_event_ring_full(b: Bench) -> None:
    """An event ring of sixteen entries and a host that sleeps: events wait, commands too, connections go on; nothing is lost."""
    host = Host(b)
    engine = b.toe.engine
    listener = listen(b)
    peer, sock = active(b, host)
    # The ring as small as it can be: its count begins anew with the next pass over sixteen entries.
    b.settle()
    while engine.events._head % 16:
        outcome(b, abi.pack_unlisten(0, listener=3))
    shrink(b)
    b.asleep = True
    answers = []
    for _ in range(24):
        tag = engine.commands.tag(lambda status, argument: answers.append(status))
        engine.commands.post_control(abi.pack_unlisten(tag, listener=3))
    data = b.rng.randbytes(4000)
    for begin in range(0, 4000, 500):
        peer.send("A", data[begin : begin + 500])
        b.run(500)
    peer.expect_ack(4001)
    b.run(5000)
    assert b.counters()["EVENT_RING_FULL"] > 0
    assert b.register(abi.REG_EVENT_PRODUCER) - engine.events._head == 16
    b.asleep = False
    assert receive(b, sock, 4000) == data
    b.until(lambda: len(answers) == 24, "all answers")
    other, child = passive(b, host, listener)
    exchange(b, other, child)
    close_by_peer(b, other, child)
    close_by_peer(b, peer, sock)
    listener.close()
    b.expected_trouble = ("failed_commands",)  # nobody listened there


def shrink(b: Bench) -> None:
    """Make the event ring sixteen entries long, in the engine and in the driver, while nothing happens."""
    engine = b.toe.engine
    b.settle()
    head = engine.events._head
    memory = engine.events._memory
    # The phase of an entry is that of its pass: what stands in the first sixteen entries belongs to the pass before.
    phase = 1 ^ (head // 16 & 1)
    for index in range(16):
        memory[index * 32 + 31] = (1 ^ phase) << 7
    engine.events.entries = 16
    b.device.write32(abi.REG_EVENT_RING_LOG2, 4)
    b.settle()
