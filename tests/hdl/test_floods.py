"""Whole engine: floods at line rate against an established connection, in cycles.

The line hands over a frame as soon as its time on the wire has passed (Ethernet's preamble and gap included), the engine takes it
or lets it wait. An engine that keeps up takes as long as the wire does.
"""

import random

import pytest

from tests.configs import EVERYTHING
from tests.hdl.engine_bench import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, RING_LOG2, STEP, TICK_CYCLES, EngineBench, Peer
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.benchmarks.frames import Template
from tiptoe_verif.wire.segment import ACK, FIN, RST, SYN, Segment, pack_tcp

LINE = 8
"""Bytes a cycle: all that the bus of 64 bits carries."""
WIRE_OVERHEAD = 24
"""FCS, preamble, gap."""
PAYLOAD = 1000
OPEN, CLOSED = 80, 7


def frame(segment: Segment) -> bytes:
    header = OUR_MAC.to_bytes(6, "big") + PEER_MAC.to_bytes(6, "big") + b"\x08\x00"
    return (header + pack_tcp(segment)).ljust(60, b"\0")


def stranger(rng: random.Random, lport: int, flags: int) -> bytes:
    """A shortest frame of a random source."""
    return frame(Segment(rng.randrange(0x0B000000, 0x7F000000), OUR_IP, rng.randrange(1024, 65536), lport, rng.getrandbits(32),
                         rng.getrandbits(32) if flags & ACK else 0, flags, 0xFFFF, 0, None, b""))  # fmt: skip


class Flood(EngineBench):
    """An engine with so many listeners and one established connection."""

    def __init__(self, listeners: int, registers: dict[int, int] | None = None):
        super().__init__(EVERYTHING, registers=registers)
        self.provision(0, 1, stock=1)
        for number in range(listeners)[::-1]:
            tag = self.command(abi.pack_listen, listener=number, laddr=0, lport=OPEN + number, mss=1460, rcv_scale=0,
                               wnd=1 << RING_LOG2)  # fmt: skip
            assert self.status(tag, 20_000, "LISTEN") == abi.Status.OK
        self.peer, self.connection = self.accept(5000)

    def slowdown(self, floods: list[bytes], share: float, segments: int = 150) -> float:
        """Cycles for data with floods in between, which have ``share`` of the line, over the cycles of the wire."""
        frames, wire, flooded = [], 0, 0
        rng = random.Random(1)
        for number in range(segments):
            data = bytes([number % 251]) * PAYLOAD
            segment = Segment(PEER_IP, OUR_IP, self.peer.port, OPEN, (self.peer.snd_nxt + number * PAYLOAD) % 2**32,
                              self.peer.rcv_nxt, ACK, 0xFFFF, 0, None, data)  # fmt: skip
            frames.append(frame(segment))
            wire += len(frames[-1]) + WIRE_OVERHEAD
            while flooded < share * (wire + flooded):
                frames.append(rng.choice(floods))
                flooded += len(frames[-1]) + WIRE_OVERHEAD
        self.sim.harness.set_line(rx=LINE)
        begin = self.sim.harness.cycle
        for one in frames:
            self.sim.inject(one)
        position = 0
        total = segments * PAYLOAD
        while position < total:
            assert self.sim.harness.cycle - begin < 20 * (wire + flooded) / LINE, f"{position} of {total} bytes"
            self.run(64)
            event = self.latest.get(self.connection)
            if event and event.rcv_position != position:
                position = event.rcv_position
                self.doorbell(self.connection & 0xFFFF, abi.DOORBELL_RCV, position)
        return (self.sim.harness.cycle - begin) / ((wire + flooded) / LINE)


@pytest.mark.parametrize("share", [pytest.param(0.25, marks=pytest.mark.soak), 0.9])
@pytest.mark.parametrize("listeners", [1, pytest.param(64, marks=pytest.mark.soak), 256])
@pytest.mark.parametrize("port", [OPEN, CLOSED], ids=["open", "closed"])
def test_syn_flood_at_line_rate_from_random_sources_leaves_a_connection_what_the_line_leaves_it(
    port, listeners, share, rng
):
    """Whatever part of the line the SYNs take, however many listeners there are, and whether somebody listens or not."""
    with Flood(listeners) as b:
        floods = [stranger(rng, port, SYN) for _ in range(2000)]
        slowdown = b.slowdown(floods, share)
        print(f"{listeners} listeners, {share:.0%} of the line: {1 / slowdown:.1%} of the goodput")
        assert slowdown < 1 / 0.9


@pytest.mark.parametrize("options", [1, 2, 3, 5], ids=lambda words: f"{4 * words} bytes of options")
def test_syns_with_options_at_line_rate_leave_a_connection_what_the_line_leaves_it(options, rng):
    """The words of Linux's SYNs: MSS, SACK permitted with timestamps (three), window scale. The walk through them takes no longer
    than the frame."""
    words = bytes.fromhex("020405b4 01030307 01010402 01010101 01010101" if options < 5 else
                          "020405b4 0402080a 12345678 00000000 01030307")[: 4 * options]  # fmt: skip
    with Flood(1) as b:
        source = Template(OUR_MAC.to_bytes(6, "big"), PEER_MAC.to_bytes(6, "big"), OUR_IP, 0x0B000001, CLOSED, 4242)
        floods = [source.frame(rng.getrandbits(32), 0, flags=SYN, options=words) for _ in range(100)]
        slowdown = b.slowdown(floods, 0.9)
        print(f"{4 * options} bytes of options: {1 / slowdown:.1%} of the goodput")
        assert slowdown < 1 / 0.9


def test_syns_full_of_odd_options_at_line_rate_leave_a_connection_most_of_what_the_line_leaves_it(rng):
    """Forty bytes of unknown options, of three bytes each: the walk takes 22 cycles, the frame 15."""
    with Flood(1) as b:
        source = Template(OUR_MAC.to_bytes(6, "big"), PEER_MAC.to_bytes(6, "big"), OUR_IP, 0x0B000001, CLOSED, 4242)
        words = bytes.fromhex("fe03aa") * 13 + b"\1"
        floods = [source.frame(rng.getrandbits(32), 0, flags=SYN, options=words) for _ in range(100)]
        slowdown = b.slowdown(floods, 0.9)
        print(f"40 bytes of odd options: {1 / slowdown:.1%} of the goodput")
        assert slowdown < 1 / 0.6


@pytest.mark.parametrize("flags", [ACK, SYN | ACK, 0], ids=["ACK", "SYN,ACK", "none"])
@pytest.mark.parametrize("port", [OPEN, CLOSED], ids=["open", "closed"])
def test_flood_of_segments_of_nobody_is_answered_with_as_many_resets_as_are_allowed(port, flags, rng):
    """And leaves a connection what the line leaves it, though the line would take more resets."""
    with Flood(1, registers={abi.REG_RST_LIMIT: 2 | 10 << 16}) as b:
        begin = b.sim.harness.cycle
        unknown, sent = b.counter(abi.Counter.RX_UNKNOWN_SEGMENT), b.counter(abi.Counter.TX_RST)
        floods = [stranger(rng, port, flags) for _ in range(2000)]
        assert b.slowdown(floods, 0.9) < 1 / 0.9
        b.run(2000)
        unknown = b.counter(abi.Counter.RX_UNKNOWN_SEGMENT) - unknown
        sent = b.counter(abi.Counter.TX_RST) - sent
        assert unknown > 10_000
        if port == OPEN and not flags:  # RFC 9293 section 3.10.7.2: dropped
            assert sent == b.counter(abi.Counter.RST_SUPPRESSED) == 0
            return
        assert sent + b.counter(abi.Counter.RST_SUPPRESSED) == unknown
        ticks = (b.sim.harness.cycle - begin) // TICK_CYCLES
        assert ticks < sent <= 10 + 2 * (ticks + 1)


@pytest.mark.parametrize("flags", [SYN, ACK, RST], ids=["SYN", "ACK", "RST"])
def test_flood_of_segments_of_one_half_open_connection_leaves_the_others_what_the_line_leaves_them(flags, rng):
    """SYNs again, bad ACKs, blind resets: the dispatcher waits for no more than a look at the entry."""
    with Flood(1) as b:
        b.provision(1, 1, stock=1)
        half_open = Segment(PEER_IP, OUR_IP, 7000, OPEN, 1000, 0, SYN, 0xFFFF, 0, None, b"")
        b.sim.inject(frame(half_open))
        b.run(3000)
        wrong = Segment(
            PEER_IP, OUR_IP, 7000, OPEN, 2_000_000_000, 77 if flags & ACK else 0, flags, 0xFFFF, 0, None, b""
        )
        assert b.slowdown([frame(wrong)], 0.45) < 1 / 0.9
        answered = sum(b.counter(c) for c in (abi.Counter.CHALLENGE_ACKS, abi.Counter.TX_RST))
        assert answered < 250


BLIND = {
    "RST": (RST, 0),
    "SYN": (SYN, 0),
    "SYN,ACK": (SYN | ACK, 0),
    "ACK": (ACK, 0),
    "data": (ACK, 6),
    "FIN": (ACK | FIN, 0),
}


def blind(rng: random.Random, b: "Flood", flags: int, length: int, ack: int) -> bytes:
    """A segment of the connection's peer from somebody who knows its address and ports and, half of the time, about where
    the window is: but never RCV.NXT itself."""
    at = rng.randrange(150 * PAYLOAD) // PAYLOAD * PAYLOAD + rng.randrange(1, PAYLOAD)
    seq = rng.choice((b.peer.snd_nxt + at, rng.getrandbits(32)))
    return frame(Segment(PEER_IP, OUR_IP, b.peer.port, OPEN, seq % 2**32, ack if flags & ACK else 0, flags, 0xFFFF, 0, None,
                         bytes(length)))  # fmt: skip


@pytest.mark.parametrize("interval", [500, 0], ids=["half a second", "bucket alone"])
@pytest.mark.parametrize("kind", BLIND)
def test_blind_segments_at_line_rate_reset_nothing_and_draw_no_more_acks_than_are_allowed(kind, interval, rng):
    """Of the connection's peer, 17,000 of them: in the window and outside, with acknowledgements of the future or of long
    ago. RFC 5961 section 7."""
    flags, length = BLIND[kind]
    registers = {abi.REG_INVALID_LIMIT: interval, abi.REG_CHALLENGE_LIMIT: 2 | 10 << 16}
    with Flood(1, registers=registers) as b:
        acks = [b.peer.rcv_nxt + 1 + rng.randrange(1 << 30), b.peer.rcv_nxt - (1 << 20) - rng.randrange(1 << 30)]
        floods = [blind(rng, b, flags, length, rng.choice(acks) % 2**32) for _ in range(2000)]
        begin, sent = b.sim.harness.cycle, b.counter(abi.Counter.TX_SEGMENTS)
        assert b.slowdown(floods, 0.9) < 1 / 0.9
        b.run(2000)
        ticks = (b.sim.harness.cycle - begin) // TICK_CYCLES
        sent = b.counter(abi.Counter.TX_SEGMENTS) - sent
        allowed = ticks // interval + 2 if interval else 10 + 2 * (ticks + 1)
        print(f"{kind}: {sent} segments, {b.counter(abi.Counter.CHALLENGE_SUPPRESSED)} answers left out")
        assert sent <= 150 + allowed, "an ACK for each data segment at most, and what is allowed"
        assert b.counter(abi.Counter.CHALLENGE_SUPPRESSED) > 300, "a RST is answered in the window only"
        assert not b.peer.reset and not b.ended(b.connection)
        b.write(b.connection, b"still there")
        b.until(lambda: b.peer.received == b"still there", 20_000, "data")


@pytest.mark.parametrize("line", [0, 1000], ids=["line", "line stands still"])
def test_syns_and_segments_of_nobody_hold_up_nothing_while_the_line_takes_nothing(line, rng):
    """SYN,ACKs and resets that cannot leave are left out, and counted; data from a peer is placed all the same."""
    with Flood(1) as b:
        for id in range(1, 5):
            b.provision(id, 1, stock=1)
        b.run(3000)
        b.slow_line(line * 1000)
        for one in [stranger(rng, OPEN, SYN) for _ in range(60)] + [stranger(rng, CLOSED, ACK) for _ in range(60)]:
            b.sim.inject(one)
        b.run(6000)
        assert b.counter(abi.Counter.RX_UNKNOWN_SEGMENT) == 60
        b.peer.send(ACK, b"data")
        b.run(3000)
        assert b.read(b.connection) == b"data"
        assert bool(b.counter(abi.Counter.RST_SUPPRESSED)) == bool(line)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_clients_get_in_with_two_syns_at_most_under_a_flood_at_line_rate(share, rng):
    """SYN cookies: every client becomes a connection and receives data, the ids serve again afterwards, none is lost."""
    ids = 12
    with Flood(1) as b:
        b.sim.write32(abi.REG_TICK_CYCLES, 100)
        b.sim.write32(abi.REG_COOKIE_KEY, rng.getrandbits(32))
        b.sim.write32(abi.REG_CONTROL, abi.CONTROL_ENABLE | abi.CONTROL_RST_UNKNOWN | abi.CONTROL_SYN_COOKIES)
        for id in range(1, ids + 1):
            b.provision(id, 1, stock=1)
        b.run(3000)
        b.sim.harness.set_line(rx=LINE, tx=LINE)
        floods = [stranger(rng, OPEN, SYN) for _ in range(1000)]
        syns: dict[Peer, int] = {}
        begin = b.sim.harness.cycle
        sent = 0
        while len([event for event in b.latest.values() if event.established]) < 1 + ids:
            cycles = b.sim.harness.cycle - begin
            assert cycles < 300_000, f"{len(b.latest) - 1} of {ids}"
            while sent < share * (cycles + STEP) * LINE / (60 + WIRE_OVERHEAD):
                b.sim.inject(rng.choice(floods))
                sent += 1
            if cycles > 4000 * (len(syns) + 1) and len(syns) < ids:
                syns[Peer(b, 9000 + len(syns))] = 0
            for peer, count in syns.items():
                if not peer.open and cycles > 4000 * (peer.port - 9000 + 1) + 20_000 * count:
                    peer.snd_nxt = 1000 * peer.port
                    peer.connect()
                    syns[peer] += 1
            b.run(STEP)
        print(f"{share:.0%} of the line, SYNs of each client: {list(syns.values())}")
        assert max(syns.values()) <= 2
        assert b.counter(abi.Counter.SYN_COOKIES) > 1000
        b.run(20_000)
        for connection, event in list(b.latest.items()):
            b.write(connection, bytes(100))
            b.command(abi.pack_abort, tid=connection)
            b.until(lambda connection=connection: b.ended(connection), 50_000, "the end")
            [peer] = [peer for peer in b.peers.values() if peer.port * 1000 == event.irs]
            assert b.status(b.release(connection, peer), 50_000, "RELEASE") == abi.Status.OK
        for id in range(ids + 1):
            b.provision(id, 2, stock=1)
        b.run(10_000)
        for port in range(100, 100 + ids + 1):
            b.accept(port)
