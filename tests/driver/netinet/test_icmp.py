"""ICMP errors and our connections (RFC 1122 section 4.2.3.9, RFC 1191, RFC 5927), on the scripted device."""

from __future__ import annotations

import errno
import random
import socket

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether

from tests.driver.bench import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, Bench, Connection
from tests.driver.contract.test_errors import snapshot
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.netinet.icmp import next_plateau
from tiptoe_driver.netinet.routes import format_ipv4
from tiptoe_driver.netinet.structures import SS_ISCONNECTED, TF_TOE
from tiptoe_hdl.host.abi import Opcode

UNREACH, TIMXCEED, PARAMPROB, NEEDFRAG = 3, 11, 12, 4
REFUSED = [(UNREACH, code) for code in (2, 3, 9, 10, 13)]
SOFT = {
    **dict.fromkeys([(UNREACH, code) for code in (0, 1, 5, 6, 7, 8, 11, 12, 14, 15)], errno.EHOSTUNREACH),
    **dict.fromkeys([(TIMXCEED, code) for code in (0, 1)], errno.EHOSTUNREACH),
    **dict.fromkeys([(PARAMPROB, code) for code in (0, 1)], errno.ENOPROTOOPT),
}  # fmt: skip
M = 0xFFFF_FFFF


def segment(conn: Connection, seq: int, **ip: object) -> bytes:
    """The packet of ours that a router complains of, of 1500 bytes."""
    laddr, lport, faddr, fport = conn.tp.t_inpcb.four_tuple
    return bytes(
        IP(src=format_ipv4(laddr), dst=format_ipv4(faddr), len=1500, flags="DF", **ip)
        / TCP(sport=lport, dport=fport, seq=seq & M, flags="A")
    )


def icmp(kind: int, code: int, quoted: bytes, mtu: int = 0, **ip: object) -> bytes:
    """An ICMP error of a router on the way, as it quotes 8 bytes of TCP."""
    return bytes(
        Ether(src=PEER_MAC, dst=OUR_MAC)
        / IP(**{"src": "203.0.113.9", "dst": OUR_IP, **ip})
        / ICMP(type=kind, code=code, unused=0, **({"nexthopmtu": mtu} if (kind, code) == (UNREACH, NEEDFRAG) else {}))
        / quoted[:28]
    )


def give(bench: Bench, frame: bytes) -> None:
    bench.device.frame(frame)
    bench.stack.poll()


def attempt(bench: Bench, port: int = 80) -> Connection:
    """An attempt to connect whose SYN has the number 12345."""
    conn = bench.opening(port)
    bench.device.tcb = {"state": State.SYN_SENT, "snd_una": 12345}
    return conn


def in_flight(bench: Bench, length: int = 3000, start: int = 0) -> Connection:
    """A connection with data that is not acknowledged."""
    conn = bench.connected()
    if start:
        conn.rebase(start)
        conn.report()
        conn.tp.snd_una = conn.tp.snd_max = (conn.tp.iss + 1 + start) & M
    conn.sock.send(bytes(length))
    return conn


# ---------------------------------------------------------------------- attempts to connect


@pytest.mark.parametrize(("kind", "code"), REFUSED)
def test_unreachable_port_or_protocol_refuses_an_attempt(bench: Bench, kind: int, code: int) -> None:
    conn = attempt(bench)
    give(bench, icmp(kind, code, segment(conn, 12345)))
    assert conn.sock.writable()
    assert [c["op"] for c in conn.commands(Opcode.ABORT)] == [Opcode.ABORT]  # no more SYNs
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    conn.end(Reason.LOCAL_ABORT)
    conn.sock.close()
    assert bench.dev.engine.free_ids == 16 and list(bench.stack.tcbinfo) == []
    assert len(bench.device.ops(Opcode.ABORT)) == 1


@pytest.mark.parametrize(("kind", "code"), SOFT)
def test_soft_error_is_told_when_the_attempt_times_out(bench: Bench, kind: int, code: int) -> None:
    conn = attempt(bench)
    give(bench, icmp(kind, code, segment(conn, 12345)))
    assert conn.tp.t_softerror == SOFT[kind, code] and not conn.so.so_error
    assert not conn.commands(Opcode.ABORT)
    conn.end(Reason.TIMEOUT)
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == SOFT[kind, code]


def test_an_attempt_that_succeeds_all_the_same_forgets_the_error(bench: Bench) -> None:
    conn = attempt(bench)
    give(bench, icmp(UNREACH, 1, segment(conn, 12345)))
    conn.report(established=1, state=State.ESTABLISHED)
    assert conn.tp.t_softerror == 0
    conn.sock.send(b"x")
    conn.end(Reason.TIMEOUT)
    assert conn.so.so_error == errno.ETIMEDOUT


def test_other_reasons_than_time_out_are_told_as_they_are(bench: Bench) -> None:
    conn = attempt(bench)
    give(bench, icmp(UNREACH, 1, segment(conn, 12345)))
    conn.end(Reason.REFUSED)
    assert conn.so.so_error == errno.ECONNREFUSED


@pytest.mark.parametrize(("kind", "code"), [(UNREACH, 3), (UNREACH, 1), (UNREACH, NEEDFRAG)])
@pytest.mark.parametrize("seq", [0, 12344, 12346])
def test_errors_about_another_number_than_the_syn_s_change_nothing(
    bench: Bench, kind: int, code: int, seq: int
) -> None:
    """RFC 5927 section 4.1, of an attempt too: a blind sender knows the ports, perhaps, but not the number."""
    conn = attempt(bench)
    give(bench, icmp(kind, code, segment(conn, seq), mtu=600))
    assert not conn.so.so_error and not conn.tp.t_softerror and conn.tp.t_maxseg == 1460
    assert not conn.commands(Opcode.ABORT)


def test_errors_about_a_syn_that_is_answered_meanwhile_change_nothing(bench: Bench) -> None:
    conn = attempt(bench)
    bench.device.answer = lambda command: None
    give(bench, icmp(UNREACH, 3, segment(conn, 12345)))
    conn.report(established=1, state=State.ESTABLISHED)
    for command in conn.commands(Opcode.READ_TCB):
        bench.device.done(command)
    bench.stack.poll()
    assert conn.tp.t_state == State.ESTABLISHED and not conn.so.so_error


@pytest.mark.parametrize("source", ["10.0.0.255", "10.0.0.0", "255.255.255.255", "224.0.0.5", "0.0.0.0", "127.0.0.1"])
def test_errors_from_everybody_are_dropped(bench: Bench, source: str) -> None:
    conn = in_flight(bench)
    give(bench, icmp(UNREACH, 1, segment(conn, conn.tp.snd_una), src=source))
    assert bench.dev.counters["frames_bad_icmp"] == 1 and not conn.tp.t_softerror


def test_a_fin_that_is_acknowledged_is_not_under_way(bench: Bench) -> None:
    conn = in_flight(bench, 10)
    conn.sock.shutdown(socket.SHUT_WR)
    conn.ack(10, state=State.FIN_WAIT_2)
    give(bench, icmp(UNREACH, 1, segment(conn, conn.tp.snd_max)))
    assert not conn.tp.t_softerror and bench.dev.counters["icmp_bad_sequence"] == 1


# ---------------------------------------------------------------------- live connections


@pytest.mark.parametrize(("kind", "code"), [*REFUSED, *SOFT])
def test_nothing_ends_an_established_connection(bench: Bench, kind: int, code: int) -> None:
    conn = in_flight(bench)
    for _ in range(10):
        give(bench, icmp(kind, code, segment(conn, conn.tp.snd_una + 1460)))
    assert bench.dev.counters["icmp_errors"] == 10
    assert conn.so.so_state & SS_ISCONNECTED and not conn.so.so_error and not conn.commands(Opcode.ABORT)
    assert conn.tp.t_softerror == SOFT.get((kind, code), 0)
    conn.ack(3000)
    assert conn.tp.t_softerror == 0  # it goes on: the error is history


def test_softerror_is_told_when_a_connection_times_out(bench: Bench) -> None:
    conn = in_flight(bench)
    give(bench, icmp(UNREACH, 1, segment(conn, conn.tp.snd_una)))
    conn.end(Reason.TIMEOUT)
    assert conn.so.so_error == errno.EHOSTUNREACH


@pytest.mark.parametrize("start", [0, 0xFFFF_F800])
@pytest.mark.parametrize(("kind", "code"), [(UNREACH, 1), (UNREACH, 3), (UNREACH, NEEDFRAG)])
@pytest.mark.parametrize(
    ("offset", "under_way"), [(0, True), (2999, True), (-1, False), (3000, False), (-1 << 31, False), (1 << 30, False)]
)
def test_only_what_is_under_way_is_believed(
    bench: Bench, start: int, kind: int, code: int, offset: int, under_way: bool
) -> None:
    conn = in_flight(bench, 3000, start)
    before = snapshot(bench, conn.sock)
    give(bench, icmp(kind, code, segment(conn, conn.tp.snd_una + offset), mtu=1000))
    assert bench.dev.counters["icmp_errors"] == under_way
    assert bench.dev.counters["icmp_bad_sequence"] == (not under_way)
    assert (snapshot(bench, conn.sock) == before) == (not under_way or code == 3)


def test_the_fin_is_under_way_too(bench: Bench) -> None:
    conn = in_flight(bench, 10)
    conn.sock.shutdown(socket.SHUT_WR)
    conn.ack(10)
    give(bench, icmp(UNREACH, 1, segment(conn, conn.tp.snd_max)))
    assert conn.tp.t_softerror == errno.EHOSTUNREACH


# ---------------------------------------------------------------------- path MTU


@pytest.mark.parametrize(
    ("mtu", "mss"), [(1400, 1360), (576, 536), (256, 216), (255, 216), (68, 216), (1, 216), (0, 1452)]
)
def test_emsgsize_fragmentation_needed_lowers_the_segment_size(bench: Bench, mtu: int, mss: int) -> None:
    """0: the router does not tell, and 1492 is the next likely MTU below 1500."""
    conn = in_flight(bench)
    frame = icmp(UNREACH, NEEDFRAG, segment(conn, conn.tp.snd_una), mtu)
    give(bench, frame)
    assert conn.tp.t_maxseg == mss
    assert [c["mss"] for c in conn.commands(Opcode.PATH_MTU)] == [mss]
    assert conn.tp.snd_nxt == conn.tp.snd_max  # the device does the resending
    assert conn.so.so_snd.sb_cc == 3000 and conn.doorbells("snd") == [3000]
    give(bench, frame)
    conn.report(mss=1460)  # a snapshot from before the command
    assert conn.tp.t_maxseg == mss and len(conn.commands(Opcode.PATH_MTU)) == 1


@pytest.mark.parametrize("mtu", [1500, 1501, 9000, 65535])
def test_emsgsize_segments_are_never_enlarged(bench: Bench, mtu: int) -> None:
    conn = in_flight(bench)
    before = snapshot(bench, conn.sock)
    give(bench, icmp(UNREACH, NEEDFRAG, segment(conn, conn.tp.snd_una), mtu))
    assert snapshot(bench, conn.sock) == before


def minutes(bench: Bench, count: float) -> None:
    bench.device.time += round(60_000_000 * count)
    bench.stack.poll()


def sizes(conn: Connection) -> list[int]:
    """What PATH_MTU told the engine, so far."""
    return [c["mss"] for c in conn.commands(Opcode.PATH_MTU)]


def complain(bench: Bench, conn: Connection, mtu: int) -> None:
    give(bench, icmp(UNREACH, NEEDFRAG, segment(conn, conn.tp.snd_una), mtu))


def test_path_mtu_rises_by_the_usual_ones_up_to_what_held_before(bench: Bench) -> None:
    """RFC 1191 sections 6.3 and 7.1: ten minutes after the complaint, then every two."""
    conn = in_flight(bench)
    complain(bench, conn, 576)
    minutes(bench, 9.999)
    assert sizes(conn) == [536]
    minutes(bench, 0.001)
    assert sizes(conn) == [536, 966]
    minutes(bench, 1.999)
    assert sizes(conn) == [536, 966]
    minutes(bench, 0.001)
    assert sizes(conn) == [536, 966, 1452]
    minutes(bench, 2)
    assert sizes(conn) == [536, 966, 1452, 1460] and conn.tp.t_pmtu_timer is None
    minutes(bench, 1000)
    assert sizes(conn) == [536, 966, 1452, 1460]


def test_path_mtu_that_has_not_risen_the_next_complaint_is_ten_minutes_again(bench: Bench) -> None:
    conn = in_flight(bench)
    for _ in range(3):
        complain(bench, conn, 1400)
        minutes(bench, 9.999)
        assert conn.tp.t_maxseg == 1360
        minutes(bench, 0.001)
        assert conn.tp.t_maxseg == 1452
        minutes(bench, 1)
    assert sizes(conn) == [1360, 1452] * 3
    complain(bench, conn, 300)
    minutes(bench, 9.999)
    assert conn.tp.t_maxseg == 260
    minutes(bench, 0.001)
    assert conn.tp.t_maxseg == 468


@pytest.mark.parametrize("peer", [536, 1000, 1452])
def test_path_mtu_never_rises_beyond_what_the_peer_takes(bench: Bench, peer: int) -> None:
    """It was lowered before the peer said its MSS: what we offered ourselves is not the limit then."""
    opening = attempt(bench, 81)
    give(bench, icmp(UNREACH, NEEDFRAG, segment(opening, 12345), 400))
    opening.report(established=1, state=State.ESTABLISHED, mss=peer)
    assert sizes(opening) == [360]
    minutes(bench, 1000)
    for _ in range(10):
        minutes(bench, 2)
    assert sizes(opening)[-1] == peer and sorted(sizes(opening)) == sizes(opening)


def test_path_mtu_never_rises_beyond_the_user_s_and_the_interface_s(bench: Bench) -> None:
    conn = in_flight(bench)
    complain(bench, conn, 900)
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 800)
    minutes(bench, 1000)
    assert sizes(conn) == [860, 800]
    other = in_flight(bench)
    complain(bench, other, 576)
    bench.dev.if_set_mtu(700)
    minutes(bench, 10)
    assert sizes(other) == [536, 660]
    minutes(bench, 1000)
    assert sizes(other) == [536, 660]
    bench.dev.if_set_mtu(1500)
    minutes(bench, 10)
    assert sizes(other)[:3] == [536, 660, 966], "what the interface carries again is tried as well"


def test_path_mtu_while_the_link_is_down_is_tried_later(bench: Bench) -> None:
    conn = in_flight(bench)
    complain(bench, conn, 1006)
    bench.dev.tod_ifp.if_up = False
    minutes(bench, 10)
    assert sizes(conn) == [966] and conn.tp.t_maxseg == 966
    bench.dev.tod_ifp.if_up = True
    minutes(bench, 2)
    assert sizes(conn) == [966, 1452]


def test_path_mtu_of_a_connection_that_is_over_is_forgotten(bench: Bench) -> None:
    conn = in_flight(bench)
    tp = conn.tp
    complain(bench, conn, 1006)
    conn.end(Reason.PEER_RESET)
    assert tp.t_pmtu_timer is None
    bench.device.forget()
    minutes(bench, 1000)
    assert bench.device.commands == []


def test_path_mtu_rises_without_holding_data_back(bench: Bench) -> None:
    """Smaller segments must be known before data goes; larger ones need not."""
    conn = in_flight(bench)
    complain(bench, conn, 1006)
    conn.ack(3000)
    answer, bench.device.answer = bench.device.answer, lambda command: None
    minutes(bench, 10)
    conn.sock.send(b"at once")
    assert conn.doorbells("snd")[-1] == 3007
    bench.device.answer = answer


def test_emsgsize_in_every_state_that_sends(bench: Bench) -> None:
    """In SYN_SENT the device is told once the connection is established; after CLOSE data may be under way still."""
    opening = attempt(bench, 81)
    give(bench, icmp(UNREACH, NEEDFRAG, segment(opening, 12345), 1000))
    assert not opening.commands(Opcode.PATH_MTU)
    opening.report(established=1, state=State.ESTABLISHED, mss=1460)
    assert [c["mss"] for c in opening.commands(Opcode.PATH_MTU)] == [960]
    closing = in_flight(bench)
    closing.sock.close()
    give(bench, icmp(UNREACH, NEEDFRAG, segment_of(closing), 1000))
    assert [c["op"] for c in closing.commands(Opcode.CLOSE, Opcode.PATH_MTU)] == [Opcode.CLOSE, Opcode.PATH_MTU]


def segment_of(conn: Connection) -> bytes:
    """The oldest segment under way of a connection whose socket the user has closed."""
    laddr, lport, faddr, fport = conn.toep.four_tuple
    return bytes(
        IP(src=format_ipv4(laddr), dst=format_ipv4(faddr)) / TCP(sport=lport, dport=fport, seq=conn.state["iss"] + 1)
    )


@pytest.mark.parametrize(
    ("length", "mtu"), [(65535, 32000), (1501, 1492), (1492, 1006), (300, 296), (69, 68), (20, 68)]
)
def test_next_plateau(length: int, mtu: int) -> None:
    assert next_plateau(length) == mtu


# ---------------------------------------------------------------------- what concerns others, and garbage


def test_errors_of_no_connection_of_ours_go_to_the_hook(bench: Bench) -> None:
    conn = in_flight(bench)
    seen: list[bytes] = []
    bench.dev.hostif.input_hook = lambda frame: bool(seen.append(frame)) or True
    software = bench.connected(81)
    frames = [
        icmp(UNREACH, 3, bytes(IP(src=OUR_IP, dst=PEER_IP) / UDP(sport=80, dport=80))),
        icmp(UNREACH, 3, bytes(IP(src=OUR_IP, dst=PEER_IP) / TCP(sport=1, dport=80))),
        icmp(UNREACH, 99, segment(conn, conn.tp.snd_una)),
        icmp(TIMXCEED, 2, segment(conn, conn.tp.snd_una)),
        icmp(UNREACH, 1, segment(conn, conn.tp.snd_una)[:27]),
        icmp(UNREACH, 1, segment(conn, conn.tp.snd_una, frag=3)),
        icmp(4, 0, segment(conn, conn.tp.snd_una)),  # source quench
        icmp(5, 1, segment(conn, conn.tp.snd_una)),
        icmp(UNREACH, 1, segment(conn, conn.tp.snd_una), dst="10.0.0.77"),
        icmp(UNREACH, 1, segment(software, software.tp.snd_una)),
    ]  # fmt: skip
    software.tp.t_flags &= ~TF_TOE
    for frame in frames:
        give(bench, frame)
    assert len(seen) == len(frames)
    assert conn.tp.t_softerror == 0


@pytest.mark.parametrize("damage", ["icmp", "ip", "sender"])
def test_damaged_errors_are_counted_and_dropped(bench: Bench, damage: str) -> None:
    conn = in_flight(bench)
    packet = Ether(icmp(UNREACH, 1, segment(conn, conn.tp.snd_una)))
    if damage == "sender":
        packet[IP].src = "224.0.0.1"
        del packet[IP].chksum
    else:
        packet[ICMP if damage == "icmp" else IP].chksum ^= 0x1111
    give(bench, bytes(packet))
    assert conn.tp.t_softerror == 0
    assert bench.dev.counters["frames_bad_icmp"] == 1


def test_garbage_never_raises(bench: Bench, rng: random.Random) -> None:
    """Damaged at random behind a right checksum; the connection lives."""
    conn = in_flight(bench)
    for _ in range(200):
        message = bytearray(
            bytes(Ether(icmp(UNREACH, rng.choice([1, 3, 4]), segment(conn, conn.tp.snd_una), 1400))[ICMP])
        )
        del message[rng.randrange(8, len(message) + 1) :]
        for _ in range(rng.randrange(3)):
            message[rng.randrange(len(message))] = rng.randrange(256)
        packet = ICMP(bytes(message))
        packet.chksum = None
        give(
            bench, bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src="203.0.113.9", dst=OUR_IP, proto=1) / bytes(packet))
        )
    assert conn.so.so_state & SS_ISCONNECTED and not conn.so.so_error
    assert conn.tp.t_maxseg >= 216
