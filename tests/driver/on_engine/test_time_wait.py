"""Contract row TW-1 on the engine, in native simulation: what READ_TCB tells against the wire, the id long before 2 MSL are
over, the peer's last FIN answered by the host."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.on_engine.test_races import OUR_MAC, OURS, THEIR_MAC, THEIRS, Races, Remote
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.structures import sototcpcb
from tiptoe_driver.netinet.tcp_timewait import tcptw
from tiptoe_driver.toe.device import Tiptoe
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.wire.segment import Segment, parse_tcp

HOST: dict[str, Any] = {"time_wait": "host", "rst_unknown": False}
MSL_TICKS = 150
"""2 MSL of the engine in milliseconds; of the host in these tests too."""
FIN, SYN, RST, ACK = 1, 2, 4, 16
M = 0xFFFF_FFFF


# ---------------------------------------------------------------------- against a scripted peer


class Recorder(Remote):
    """A peer that keeps what the engine's side has sent."""

    def __init__(self, races: Races) -> None:
        super().__init__(races.sim, races.port)
        self.sent: list[Segment] = []

    def take(self, segment: Segment) -> None:
        self.sent.append(segment)
        super().take(segment)

    def inject(self, flags: str, seq: int, ack: int) -> list[Segment]:
        """Send a segment as it is; what comes back within a millisecond."""
        self.turn()
        before = len(self.sent)
        self.sim.inject(
            bytes(
                Ether(src=THEIR_MAC, dst=OUR_MAC)
                / IP(src=THEIRS, dst=OURS)
                / TCP(sport=self.port, dport=80, flags=flags, seq=seq & M, ack=ack & M, window=8192)
            )
        )
        self.sim.run_us(1000)
        self.turn()
        return self.sent[before:]


@pytest.fixture(scope="module")
def lone() -> Iterator[Races]:
    """One engine for the tests of this part; 2 MSL are for ever."""
    made = Races(**HOST, time_wait_us=3_600_000_000, registers={reg.REG_MSL_TICKS: 60000})
    yield made
    made.sim.check()
    made.sim.close()


def closed_by_us(lone: Races, received: bytes = b"", sent: bytes = b"") -> Recorder:
    """A connection that we have closed; the peer's own FIN is still to come."""
    lone.listen()
    lone.port += 1
    remote = Recorder(lone)
    remote.send("S")
    remote.until(lambda: remote.ack and lone.sim.stack.syncache.count, "SYN,ACK")
    remote.send("PA" if received else "A", received)
    remote.until(lone.listen().readable, "the handshake")
    sock, _ = lone.listen().accept()
    if received:
        remote.until(sock.readable, "the data")
        assert sock.recv(4096) == received
    if sent:
        sock.send(sent)
    remote.closed = True  # so that the FIN is acknowledged only
    sock.close()
    remote.until(lambda: any(seg.flags & FIN for seg in remote.sent), "our FIN")
    remote.turn()
    lone.sim.run_us(500)
    return remote


def time_wait_of(lone: Races, remote: Remote) -> tcptw | None:
    return next(
        (tw for four_tuple, tw in lone.sim.stack.time_wait._entries.items() if four_tuple[3] == remote.port), None
    )


def all_free(toe: Tiptoe) -> bool:
    ids = toe.engine.ids
    return (
        ids.available + ids.stocked == len(ids.toepcbs)
        and ids.ring_pool.in_use == ids.idle_rings
        and not toe.calls.four_tuples
        and not toe.engine.commands.waiting
    )


@pytest.mark.parametrize(
    ("received", "sent"), [(b"", b""), (b"r" * 300, b""), (b"", b"s" * 1234), (b"r" * 77, b"s" * 2000)]
)
def test_tw_1_values_are_those_of_the_wire(lone: Races, received: bytes, sent: bytes) -> None:
    remote = closed_by_us(lone, received, sent)
    our_end, their_fin = remote.ack, remote.seq
    remote.inject("FA", their_fin, our_end)
    assert all_free(lone.sim.toe)
    tw = time_wait_of(lone, remote)
    assert tw is not None
    [syn] = [seg for seg in remote.sent if seg.flags & SYN]
    assert sum(len(seg.payload) for seg in remote.sent) == len(sent)
    last = remote.sent[-1]
    assert (tw.iss, tw.irs) == (syn.seq, 1000)
    assert tw.snd_nxt == last.seq == (syn.seq + 1 + len(sent) + 1) & M
    assert tw.rcv_nxt == last.ack == 1000 + 1 + len(received) + 1
    assert tw.last_win == last.wnd
    # And what the host says is what the engine would have said.
    [answer] = remote.inject("FA", their_fin, our_end)
    assert (answer.seq, answer.ack, answer.wnd, answer.flags) == (last.seq, last.ack, last.wnd, last.flags)
    assert lone.sim.toe.counters["time_wait_segments"] and not remote.resets


@pytest.mark.parametrize(("flags", "offset", "answered"), [("A", 1, False), ("PA", -5, True), ("R", 1, False)])
def test_tw_1_later_segments_reach_the_host(lone: Races, flags: str, offset: int, answered: bool) -> None:
    remote = closed_by_us(lone)
    their_fin = remote.seq
    remote.inject("FA", their_fin, remote.ack)
    tw = time_wait_of(lone, remote)
    assert tw is not None
    answers = remote.inject(flags, their_fin + offset, tw.snd_nxt)
    assert [(seg.flags, seg.seq, seg.ack) for seg in answers] == [(ACK, tw.snd_nxt, tw.rcv_nxt)] * answered
    assert time_wait_of(lone, remote) is tw


def test_tw_1_syn_above_rcv_nxt_reopens(lone: Races) -> None:
    """The listener gets it; TIME_WAIT is over with the handshake."""
    remote = closed_by_us(lone)
    remote.inject("FA", remote.seq, remote.ack)
    tw = time_wait_of(lone, remote)
    assert tw is not None
    again = Recorder(lone)
    again.seq = tw.rcv_nxt + 5000
    again.send("S")
    again.until(lambda: again.ack and lone.sim.stack.syncache.count, "SYN,ACK")
    assert time_wait_of(lone, remote) is tw
    again.send("A")
    again.until(lone.listen().readable, "the handshake")
    assert time_wait_of(lone, remote) is None
    sock, address = lone.listen().accept()
    assert address == (THEIRS, remote.port)
    sock.close()
    again.until(lambda: all_free(lone.sim.toe), "its end")


def test_tw_1_old_syn_opens_nothing(lone: Races) -> None:
    remote = closed_by_us(lone)
    remote.inject("FA", remote.seq, remote.ack)
    tw = time_wait_of(lone, remote)
    answers = remote.inject("S", 1000, 0)
    assert [seg.flags for seg in answers] == [SYN | ACK, RST | ACK]
    assert time_wait_of(lone, remote) is tw and not lone.listen().readable() and not lone.sim.toe.passive.half_open


def test_tw_1_fin_again_at_every_moment_of_the_handover(lone: Races) -> None:
    """From before the engine's event to behind RELEASE. Only where ABORT is carried out and RELEASE is not, for a moment, does
    the engine answer a FIN with RST; the peer has been told of its end by then."""
    told: dict[str, list[int]] = {"ack": [], "reset": []}
    for offset in range(0, 900, 30):
        remote = closed_by_us(lone)
        fin = remote.seq
        remote.sim.inject(
            bytes(
                Ether(src=THEIR_MAC, dst=OUR_MAC)
                / IP(src=THEIRS, dst=OURS)
                / TCP(sport=remote.port, dport=80, flags="FA", seq=fin, ack=remote.ack, window=8192)
            )
        )
        remote.sim.run_us(offset)
        remote.turn()
        answers = remote.inject("FA", fin, remote.ack)
        told["reset" if any(seg.flags & RST for seg in answers) else "ack"].append(offset)
        remote.until(lambda: all_free(lone.sim.toe), f"the id at {offset}")
        tw = time_wait_of(lone, remote)
        assert tw is not None and any(
            (seg.flags, seg.seq, seg.ack) == (ACK, tw.snd_nxt, fin + 1) for seg in remote.sent
        )
        assert [seg.flags for seg in remote.inject("FA", fin, remote.ack)] == [ACK]
    for name in ("stale_events", "lost_ids", "bad_positions"):
        assert not lone.sim.toe.counters[name]
    assert min(told["ack"]) < min(told["reset"]) and max(told["ack"]) > max(told["reset"])
    assert max(told["reset"]) - min(told["reset"]) < 300  # cycles from ABORT to RELEASE


def test_tw_1_host_takes_the_engine_s_place_for_segments_of_nobody_and_gives_it_back() -> None:
    """With RST_UNKNOWN on: while the stack has TIME_WAITs."""
    made = Races(rst_unknown=True)
    toe = made.sim.toe
    try:
        for wanted in (False, True, False):
            toe.engine.unknown_to_host(wanted)
            made.sim.run_us(10)
            before = toe.counters["unknown_segments"]
            made.port += 1
            remote = Recorder(made)
            [reset] = remote.inject("A", 100, 200)
            assert (reset.flags, reset.seq) == (RST, 200)
            assert toe.counters["unknown_segments"] - before == wanted
        made.sim.check()
    finally:
        made.sim.close()


# ---------------------------------------------------------------------- two engines


def pair(time_wait: dict[str, Any], rcv_ring_bytes: int = 4096, **options: Any) -> Pair:
    """The first one closes first."""
    driver = {
        "snd_ring_bytes": 4096,
        "rcv_ring_bytes": rcv_ring_bytes,
        "registers": {reg.REG_MSL_TICKS: MSL_TICKS, reg.REG_RTO_MIN: 20, reg.REG_RTO_INITIAL: 20},
    }
    return Pair(
        "tiny", skip_idle=True, memory_bytes=1 << 22, driver=driver, a={"driver": {**driver, **time_wait}}, **options
    )


def test_tw_1_lost_last_ack(out_dir) -> None:
    """The peer's FIN comes again when the engine has forgotten the connection: the host's ACK ends LAST_ACK."""
    with pair({**HOST, "time_wait_us": MSL_TICKS * 1000}, rcv_ring_bytes=1 << 17, pcap=out_dir / "wire.pcap") as two:
        listener = two.b.socket()
        listener.bind(("", 80))
        listener.listen()
        client = two.a.socket()
        client.connect_ex(("10.0.0.2", 80))
        two.run_until(lambda: listener.readable() and client.writable(), 100_000, "established")
        server, _ = listener.accept()
        server_tp = sototcpcb(server.so)
        client.send(b"x" * 1000)
        two.run_until(lambda: server.readable(), 100_000, "data")
        client.close()
        two.run_until(lambda: server_tp.t_state == State.CLOSE_WAIT, 100_000, "half-close")
        channel, back = two.wire.channels
        lost: list[Segment] = []
        acks: list[Segment] = []
        fins: list[Segment] = []
        resets: list[Segment] = []

        def watch(send, drop: bool):
            def watched(frame: bytes, time_us: float):
                seg = parse_tcp(frame)
                if seg is not None and seg.flags & RST:
                    resets.append(seg)
                if seg is not None and seg.flags & FIN:
                    fins.append(seg)
                if drop and fins and seg is not None and seg.flags == ACK:
                    acks.append(seg)
                    if not lost:
                        lost.append(seg)
                        return []
                return send(frame, time_us)

            return watched

        channel.send = watch(channel.send, True)
        back.send = watch(back.send, False)
        server.recv(2000)
        server.close()
        two.run_until(lambda: lost and all_free(two.a.toe), 100_000, "a's id")
        scale = server_tp.snd_scale
        assert scale and server_tp.t_state == State.LAST_ACK and len(two.a.stack.time_wait) == 1
        before = two.a.now_us()
        two.run_until(lambda: server_tp.t_state == State.CLOSED, 400_000, "b's end")
        assert len(fins) == 2 and fins[0].seq == fins[1].seq and not resets
        [first, second] = acks  # the engine's, which was lost, and the host's: the same, the scaled window too
        assert second == first and 1 << 16 < second.wnd << scale <= 1 << 17
        assert server.so is None and two.a.toe.counters["time_wait_segments"] == 1
        two.run_until(lambda: not two.a.stack.time_wait, 2 * MSL_TICKS * 1000, "2 MSL")
        assert two.a.now_us() - before > MSL_TICKS * 1000  # begun anew by the FIN
        assert not list(two.a.stack.tcbinfo)
        two.check()


def short_connections(two: Pair, count: int) -> int:
    """One connection after another, each closed by the first engine; simulated time in microseconds."""
    listener = two.b.socket()
    listener.bind(("", 80))
    listener.listen()
    servers = []

    def serve() -> None:
        while listener.readable():
            servers.append(listener.accept()[0])
        for server in [server for server in servers if server.readable()]:
            if not server.recv(100):
                servers.remove(server)
                server.close()

    two.b.tasks.append(serve)
    begin = two.a.now_us()
    for n in range(count):
        client = two.a.socket()
        two.run_until(lambda client=client: client.connect_ex(("10.0.0.2", 80)) != errno.EPERM, 1_000_000, f"id {n}")
        two.run_until(client.writable, 100_000, f"connection {n}")
        assert not client.getsockopt(1, 4)
        client.send(b"hello")
        client.close()
    two.run_until(lambda: all_free(two.a.toe), 1_000_000, "all ids")
    return two.a.now_us() - begin


def test_tw_1_many_short_connections_on_sixteen_ids() -> None:
    times = {}
    for who, options in (
        ("engine", {"time_wait": "engine"}),
        ("shared", {"time_wait_us": 3_600_000_000}),
        ("host", {**HOST, "time_wait_us": 3_600_000_000}),
    ):
        with pair(options) as two:
            times[who] = short_connections(two, 48)
            handed_over = len(two.a.stack.time_wait)
            assert handed_over == {"engine": 0, "host": 48}.get(who, handed_over)
            assert who != "shared" or 30 < handed_over < 48
            for name in ("stale_events", "lost_ids", "bad_positions", "unknown_segments"):
                assert not two.a.toe.counters[name]
            two.check()
    assert times["engine"] > 3 * MSL_TICKS * 1000  # sixteen at a time
    assert times["host"] < MSL_TICKS * 1000 < times["engine"] / 2
    assert times["shared"] < 2 * MSL_TICKS * 1000  # the last ones are the engine's
