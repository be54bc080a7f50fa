"""The software stand-in by itself: state by event, time, segments of nobody, with sequence numbers next to wrap-around."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.bench import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, Bench
from tests.verif.standin.line import ISS, OURS, PORT, SECOND, Line, M
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_verif.standin.sender import RETRANSMISSIONS
from tiptoe_verif.standin.tcp import RESETS_A_SECOND, StandInTcp
from tiptoe_verif.wire.segment import Segment, pack_tcp

# ---------------------------------------------------------------------- state by event

# How a state is reached; the next number of the peer, ours, and the highest of ours that the peer may acknowledge.
STATES = {
    State.ESTABLISHED: ([], 1, 1, 1),
    State.FIN_WAIT_1: (["close"], 1, 2, 1),
    State.FIN_WAIT_2: (["close", ("A", 1, 2)], 1, 2, 2),
    State.CLOSE_WAIT: ([("FA", 1, 1)], 2, 1, 1),
    State.CLOSING: (["close", ("FA", 1, 1)], 2, 2, 1),
    State.LAST_ACK: ([("FA", 1, 1), "close"], 2, 2, 1),
    State.TIME_WAIT: (["close", ("A", 1, 2), ("FA", 1, 2)], 2, 2, 2),
}
RECEIVES = {State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2}
QUIET = {State.CLOSING, State.LAST_ACK, State.TIME_WAIT}
# Event: flags, numbers relative to what is next of the peer, and to the highest of ours; whether it is answered; next states.
EVENTS = {
    "rst": ("R", 0, 0, b"", False, dict.fromkeys(STATES, State.CLOSED)),
    "rst in the window": ("R", 10, 0, b"", True, {}),
    "rst outside": ("R", 70_000, 0, b"", False, {}),
    "rst that was": ("R", -1, 0, b"", False, {}),
    "syn in the window": ("S", 5, 0, b"", True, {}),
    "syn that was": ("S", -2, 0, b"", True, {}),
    "ack beyond": ("A", 0, 5, b"", True, {}),
    "ack of the past": ("A", 0, -3, b"", False, {}),
    "data again": ("PA", -3, 0, b"abc", True, {}),
    "data early": ("PA", 100, None, b"abc", True, {}),
    "data outside": ("PA", 70_000, 0, b"abc", True, {}),
    "data without ack": ("P", 0, 0, b"abc", False, {}),
    "data": ("PA", 0, None, b"abc", True, {}),
    "data of which a part is old": ("PA", -2, None, b"xyabc", True, {}),
    "fin": (
        "FA",
        0,
        None,
        b"",
        True,
        {State.ESTABLISHED: State.CLOSE_WAIT, State.FIN_WAIT_1: State.CLOSING, State.FIN_WAIT_2: State.TIME_WAIT},
    ),
    "data and fin": (
        "FPA",
        0,
        None,
        b"abc",
        True,
        {State.ESTABLISHED: State.CLOSE_WAIT, State.FIN_WAIT_1: State.CLOSING, State.FIN_WAIT_2: State.TIME_WAIT},
    ),
    "fin early": ("FA", 3, None, b"", True, {}),
    "ack of everything": (
        "A",
        0,
        0,
        b"",
        False,
        {State.FIN_WAIT_1: State.FIN_WAIT_2, State.CLOSING: State.TIME_WAIT, State.LAST_ACK: State.CLOSED},
    ),
    "fin and ack of everything": (
        "FA",
        0,
        0,
        b"",
        True,
        {
            State.ESTABLISHED: State.CLOSE_WAIT,
            State.FIN_WAIT_1: State.TIME_WAIT,
            State.FIN_WAIT_2: State.TIME_WAIT,
            State.CLOSING: State.TIME_WAIT,
            State.LAST_ACK: State.CLOSED,
        },
    ),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_state_and_event(line: Line, state: State, event: str) -> None:
    line.established()
    how, theirs, ours, acked = STATES[state]
    for step in how:
        line.sock.shutdown(socket.SHUT_WR) if step == "close" else line.send(*step)
    line.sent()
    tp = line.tp
    assert tp.t_state is state
    flags, seq, ack, data, answered, after = EVENTS[event]
    replies = line.told(line.send(flags, theirs + seq, acked if ack is None else ours + ack, data))
    assert tp.t_state is after.get(state, state)
    over = tp.t_state is State.CLOSED
    text = (
        b"abc" if event.startswith("data") and event in ("data", "data and fin", "data of which a part is old") else b""
    )
    taken = text if state in RECEIVES else b""
    received = theirs + len(taken) + ("F" in flags and "early" not in event and state in RECEIVES)
    assert replies == ([("A", ours, received, b"")] if answered and not over else [])
    if taken:
        assert line.sock.recv(100) == taken
    assert line.error() == (errno.ECONNRESET if event == "rst" and state not in QUIET else 0)
    assert (tp in line.tcp._connections) is not over


@pytest.mark.parametrize(
    ("step", "state", "error", "replies"),
    [
        (("SA", 0, 1), State.ESTABLISHED, 0, [("A", 1, 1, b"")]),
        (("S", 0, 0), State.SYN_RECEIVED, 0, [("SA", 0, 1, b"")]),
        (("SA", 0, 2), State.SYN_SENT, 0, [("R", 2, 0, b"")]),
        (("SA", 0, 0), State.SYN_SENT, 0, [("R", 0, 0, b"")]),
        (("A", 0, 1), State.SYN_SENT, 0, []),
        (("RA", 0, 1), State.CLOSED, errno.ECONNREFUSED, []),
        (("RA", 0, 7), State.SYN_SENT, 0, []),
        (("R", 0, 0), State.SYN_SENT, 0, []),
        (("FA", 0, 1), State.SYN_SENT, 0, []),
    ],
)
def test_syn_sent(line: Line, step, state, error, replies) -> None:
    line.connect()
    tp = line.tp
    answers = line.send(*step)
    assert line.told(answers) == replies
    assert (tp.t_state, line.error()) == (state, error)


def test_syn_says_what_we_take(line: Line) -> None:
    (syn,) = line.connect()
    assert line.told([syn]) == [("S", 0, 0, b"")] and syn.window == 65535 and syn.options == [("MSS", 1460)]


def test_both_sides_open_at_once(line: Line) -> None:
    line.connect()
    line.send("S", 0)
    assert line.told(line.send("SA", 0, 1)) == [("A", 1, 1, b"")]  # as in RFC 9293 figure 7
    assert line.told(line.send("A", 1, 9)) == [("R", 9, 0, b"")]
    line.send("A", 1, 1)
    assert line.tp.t_state is State.ESTABLISHED
    line.send("PA", 1, 1, b"late")
    assert line.sock.recv(10) == b"late"
    again = Line()
    again.connect()
    again.send("S", 0)
    tp = again.tp
    again.send("R", 1)
    assert (tp.t_state, again.error()) == (State.CLOSED, errno.ECONNREFUSED)


# ---------------------------------------------------------------------- time


def test_nobody_answers_the_syn(line: Line) -> None:
    line.connect()
    tp, started, sent = line.tp, line.device.time, []
    while tp.t_state is State.SYN_SENT:
        sent += [(line.device.time - started, each) for each in line.told(line.pass_us(100_000))]
    assert [each for _, each in sent] == [("S", 0, 0, b"")] * RETRANSMISSIONS  # and no RST
    times = [time for time, _ in sent]
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert gaps == [400_000 << n for n in range(RETRANSMISSIONS - 1)]
    assert line.error() == errno.ETIMEDOUT and 180 * SECOND < line.device.time - started < 210 * SECOND


def test_everything_again_from_the_first_byte_missing(line: Line) -> None:
    line.established(mss=1000)
    data = bytes(range(250)) * 20
    line.sock.send(data)
    first = line.told(line.sent())
    assert first == [("A", 1 + 1000 * n, 1, data[1000 * n : 1000 * n + 1000]) for n in range(4)]
    assert line.told(line.send("A", 1, 1)) == []  # the peer lacks the first
    assert line.told(line.pass_us(199_000)) == []
    assert line.told(line.pass_us(2_000)) == first
    assert line.told(line.pass_us(398_000)) == []
    assert line.told(line.pass_us(2_000)) == first
    assert line.told(line.send("A", 1, 1501)) == [("PA", 4001, 1, data[4000:])]
    assert (
        line.told(line.pass_us(201_000))
        == [  # progress: the time is the first again
            *(("A", 1501 + 1000 * n, 1, data[1500 + 1000 * n : 2500 + 1000 * n]) for n in range(3)),
            ("PA", 4501, 1, data[4500:]),
        ]
    )
    assert line.tcp.counters["retransmissions"] == 4 + 4 + 4
    line.send("A", 1, 5001)
    assert line.sock.so.so_snd.sb_cc == 0 and line.pass_us(SECOND) == []


def test_peer_falls_silent(line: Line) -> None:
    line.established()
    tp = line.tp
    line.sock.send(b"is anybody there")
    sent = line.told(line.pass_us(300 * SECOND))
    assert sent[:-1] == [("PA", 1, 1, b"is anybody there")] * (1 + RETRANSMISSIONS) and sent[-1] == ("RA", 17, 1, b"")
    assert (tp.t_state, line.error(), line.tcp.counters["timeouts"]) == (State.CLOSED, errno.ETIMEDOUT, 1)


def test_time_wait_lasts_2_msl_from_the_last_fin(line: Line) -> None:
    line.established()
    line.tcp.msl_us = 1000
    tp = line.tp
    line.sock.shutdown(socket.SHUT_WR)
    line.send("FA", 1, 2)
    line.pass_us(1500)
    assert line.told(line.send("FA", 1, 2)) == [("A", 2, 2, b"")]  # our ACK was lost
    line.pass_us(1900)
    assert tp.t_state is State.TIME_WAIT
    line.pass_us(200)
    assert tp.t_state is State.CLOSED and not line.tcp._connections


@pytest.mark.parametrize("closed_before_the_ack", [False, True])
def test_fin_wait_2_of_a_closed_socket_ends(line: Line, closed_before_the_ack: bool) -> None:
    line.established()
    line.tcp.fin_wait_2_us = 5000
    tp = line.tp
    if closed_before_the_ack:
        line.sock.close()
    line.sock.shutdown(socket.SHUT_WR) if not closed_before_the_ack else None
    line.send("A", 1, 2)
    line.pass_us(20_000)
    assert tp.t_state is (State.CLOSED if closed_before_the_ack else State.FIN_WAIT_2)
    if not closed_before_the_ack:
        line.sock.close()
        line.pass_us(20_000)
        assert tp.t_state is State.CLOSED


# ---------------------------------------------------------------------- nobody, bad input, the end


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        (("S", 0), ("RA", -ISS & M, 1, b"")),
        (("SA", 0, 9), ("R", 9, 0, b"")),
        (("A", 5, 9), ("R", 9, 0, b"")),
        (("F", 0, 0, b"abc"), ("RA", -ISS & M, 4, b"")),
        (("R", 0), None),
        (("RA", 0, 3), None),
    ],
)
def test_segments_of_nobody(line: Line, step, reply) -> None:
    assert line.told(line.send(*step)) == ([reply] if reply else [])


def test_resets_are_limited(line: Line) -> None:
    sent = [line.send("A", 0, 0) for _ in range(RESETS_A_SECOND + 10)]
    assert sum(map(len, sent)) == RESETS_A_SECOND and line.tcp.counters["resets_limited"] == 10
    line.pass_us(SECOND + 1)
    assert len(line.send("A", 0, 0)) == 1


@pytest.mark.parametrize("byte", [14 + 12, 14 + 20 + 4, 14 + 40])
def test_bad_checksums(line: Line, byte: int) -> None:
    line.established()
    frame = bytearray(line.frame("PA", 1, 1, b"abc"))
    frame[byte] ^= 1
    line.device.frame(bytes(frame))
    line.stack.poll()
    assert line.sock.so.so_rcv.sb_cc == 0 and line.sent() == [] and line.tcp.counters["segments_bad"] == 1


def test_what_is_not_for_us(line: Line) -> None:
    for packet in (
        IP(src=PEER_IP, dst="10.0.0.77") / TCP(),
        IP(src=PEER_IP, dst=OUR_IP, proto=17) / b"12345678",
        IP(src=PEER_IP, dst=OUR_IP) / ICMP(type=13),
    ):
        line.device.frame(bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / packet))
    line.stack.poll()
    assert line.bench.dev.counters["frames_unclaimed"] == 3 and not line.sent()


@pytest.mark.parametrize("source", ["10.0.0.255", "255.255.255.255", "224.0.0.1", "127.0.0.1"])
def test_segments_from_everybody_are_not_answered(line: Line, source: str) -> None:
    for flags in ("S", "A"):
        packet = IP(src=source, dst=OUR_IP) / TCP(flags=flags)
        line.device.frame(bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / packet))
    line.stack.poll()
    assert not line.sent() and line.tcp.counters["segments_bad"] == 2


def test_segment_of_an_offloaded_connection_is_left_to_the_device(line: Line) -> None:
    conn = line.bench.connected()
    line.sent()
    ours = conn.sock.getsockname()[1]
    line.ports = ours, PORT
    assert line.send("S", 5) == [] and line.tcp.counters["segments_offloaded"] == 1


def test_linger_0_and_data_for_a_closed_socket(line: Line) -> None:
    line.established()
    line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.sock.close()
    assert line.told(line.sent()) == [("RA", 1, 1, b"")]
    line.ports = OURS + 1, PORT
    line.sock = made = line.socket()
    made.bind(("", OURS + 1))
    made.connect_ex((PEER_IP, PORT))
    line.send("SA", 0, 1)
    made.close()
    assert line.told(line.sent())[-1] == ("FA", 1, 1, b"")
    assert line.told(line.send("PA", 1, 2, b"for nobody")) == [("RA", 2, 1, b"")]
    assert not line.tcp._connections


def test_close_with_unread_data_is_a_reset(line: Line) -> None:
    line.established()
    line.send("PA", 1, 1, b"unread")
    assert line.sock.recv(2) == b"un"
    line.sent()
    line.sock.close()
    assert line.told(line.sent()) == [("RA", 1, 7, b"")]
    assert not line.tcp._connections


@pytest.mark.parametrize(("acked", "error"), [(0, errno.ECONNRESET), (4, 0)])
def test_reset_in_last_ack_tells_of_data_never_acknowledged(line: Line, acked: int, error: int) -> None:
    line.established()
    line.send("FA", 1, 1)
    line.sock.send(b"data")
    line.sock.shutdown(socket.SHUT_WR)
    assert line.tp.t_state is State.LAST_ACK
    line.send("A", 2, 1 + acked)
    line.send("R", 2, 0)
    assert line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == error


def test_shut_down_for_reading_data_is_thrown_away(line: Line) -> None:
    line.established()
    line.sock.shutdown(socket.SHUT_RD)
    assert line.told(line.send("PA", 1, 1, b"unread")) == [("A", 1, 7, b"")]
    assert line.sock.recv(10) == b"" and line.sock.so.so_rcv.sb_cc == 0


def test_shut_down_before_it_is_established(line: Line) -> None:
    line.connect()
    line.sock.send(b"kept")
    line.sock.shutdown(socket.SHUT_WR)
    assert line.sent() == []
    assert line.told(line.send("SA", 0, 1)) == [("FPA", 1, 1, b"kept")]
    assert line.tp.t_state is State.FIN_WAIT_1


def test_next_hop_does_not_answer() -> None:
    line = Line(known=False)
    line.connect()
    line.pass_us(10_000)
    assert line.error() == errno.EHOSTDOWN and not line.tcp._connections


def test_no_route_leaves_the_socket_as_it_was(line: Line) -> None:
    line.stack.routes.remove_interface(line.bench.dev.tod_ifp)
    made = line.socket()
    assert made.connect_ex((PEER_IP, PORT)) == errno.ENETUNREACH
    assert made.getsockname() == ("0.0.0.0", 0) and not line.tcp._connections


def test_own_address_stays_in_the_host(line: Line) -> None:
    listener = line.listen()
    client = line.bench.socket()
    client.connect_ex((OUR_IP, PORT))
    line.pass_us(100)
    server, _ = listener.accept()
    client.send(b"to myself")
    line.pass_us(100)
    assert server.recv(20) == b"to myself" and not line._sent


def test_a_device_that_answers_for_nobody_is_refused() -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="rst_unknown"):
        StandInTcp(bench.stack, bench.dev)
    assert bench.stack.software is None


def test_initial_sequence_numbers() -> None:
    line = Line()
    del line.tcp.isn
    other = line.tcp.isn((1, 2, 3, 5))
    first = line.tcp.isn((1, 2, 3, 4))
    line.device.time += 400
    assert line.tcp.isn((1, 2, 3, 4)) == (first + 100) & M and first != other


@pytest.mark.parametrize("options", [{}, {"mss": 1460}, {"ws": 7}, {"mss": 536, "ws": 0}])
@pytest.mark.parametrize("payload", [b"", b"odd", b"even", b"\xff\xff" * 700])
def test_packed_segment_by_scapy(options, payload: bytes) -> None:
    segment = Segment(
        *(0x0A000001, 0x0A000002, 1, 65535, M, 7, 0x18, 0xFFFF), **{"mss": 0, "ws": None, "payload": payload} | options
    )
    packet = IP(pack_tcp(segment, tos=0x48, ttl=3))
    again = packet.copy()
    del again[IP].chksum, again[TCP].chksum, again[IP].len
    assert bytes(again) == bytes(packet)
    assert (packet.tos, packet.ttl, packet[TCP].seq, packet[TCP].ack, packet[TCP].window) == (0x48, 3, M, 7, 0xFFFF)
    assert dict(packet[TCP].options[::1]).get("MSS") == options.get("mss")
    assert dict(packet[TCP].options).get("WScale") == options.get("ws")
