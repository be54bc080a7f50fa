"""Contract row TW-1: TIME_WAIT kept by the stack, on the scripted device. scapy makes the peer's segments and judges ours."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.bench import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, Bench, Connection
from tests.driver.guard import GuardedTcpcb
from tests.driver.races.interleave import Scenario, explore
from tests.driver.races.world import LATE_US, RaceWorld
from tiptoe_driver import DeviceState, EngineOptions
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import Reason, State, Status
from tiptoe_driver.netinet.offload import tcp_gen_detach
from tiptoe_driver.netinet.pcbinfo import INP_DROPPED
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_driver.netinet.structures import INP_TIMEWAIT, SS_ISCONNECTED, SS_ISDISCONNECTED, TF_TOE, inpcb
from tiptoe_driver.netinet.tcp_subr import tcp_close
from tiptoe_driver.netinet.tcp_timewait import TimeWait, tcptw
from tiptoe_hdl.host.abi import EventType, Opcode

HOST = {"time_wait": "host", "rst_unknown": False}
TWO_MSL = 60_000_000
TCB = {
    "state": State.TIME_WAIT,
    "iss": 1000,
    "irs": 2000,
    "snd_una": 1102,
    "snd_nxt": 1102,
    "snd_max": 1102,
    "rcv_nxt": 2302,
    "rcv_adv": 2302 + 4000,
    "snd_scale": 3,
    "rcv_scale": 2,
    "ws_ok": 1,
}
"""100 bytes one way, 300 the other, and both FINs."""
ON_CONNECTION = (Opcode.READ_TCB, Opcode.ABORT, Opcode.RELEASE)


@pytest.fixture
def host() -> Bench:
    """The stack keeps TIME_WAIT."""
    bench = Bench(**HOST)
    bench.device.tcb = TCB
    return bench


def closing(bench: Bench, *, close: bool = True) -> Connection:
    """A connection in FIN_WAIT_2, with data received and not read."""
    conn = bench.connected()
    conn.sock.send(bytes(100))
    conn.deliver(b"unread")
    if close:
        conn.sock.close()
    else:
        conn.sock.shutdown(socket.SHUT_WR)
    conn.ack(100, state=State.FIN_WAIT_2)
    return conn


def fin(conn: Connection) -> None:
    """The peer's FIN: TIME_WAIT."""
    conn.report(peer_closed=1, state=State.TIME_WAIT)


def in_time_wait(bench: Bench, *, close: bool = True) -> Connection:
    """A connection whose TIME_WAIT is the stack's, its id released."""
    conn = closing(bench, close=close)
    fin(conn)
    conn.end(Reason.LOCAL_ABORT)
    return conn


def ops(conn: Connection) -> list[Opcode]:
    return [command["op"] for command in conn.commands(*ON_CONNECTION)]


def entry(bench: Bench) -> tcptw:
    """The only one there is."""
    [tw] = bench.stack.time_wait._entries.values()
    return tw


def over(bench: Bench) -> bool:
    """Nothing of the connection is left anywhere."""
    ids = bench.dev.engine.ids
    assert ids.ring_pool.in_use == ids.idle_rings and not bench.dev.calls.four_tuples
    return not bench.stack.time_wait and not list(bench.stack.tcbinfo) and bench.dev.engine.free_ids == 16


def pass_time(bench: Bench, us: int) -> None:
    bench.device.time += us
    bench.stack.poll()


# ---------------------------------------------------------------------- the handover


@pytest.mark.parametrize("start", [1000, 0xFFFF_FFE0])
@pytest.mark.parametrize(
    ("rcv_scale", "ahead", "last_win"),
    [(0, 4000, 4000), (2, 4000, 1000), (7, 130, 1), (0, 0, 0), (0, -1, 0), (0, 70_000, 65535)],
)
def test_tw_1_values_are_the_device_s(host: Bench, start: int, rcv_scale: int, ahead: int, last_win: int) -> None:
    values = {
        "iss": start,
        "irs": start + 7,
        "snd_nxt": start + 102,
        "rcv_nxt": start + 309,
        "rcv_adv": start + 309 + ahead,
    }
    values = {name: value & 0xFFFF_FFFF for name, value in values.items()}
    host.device.tcb = {**TCB, **values, "rcv_scale": rcv_scale}
    conn = closing(host)
    fin(conn)
    tw = entry(host)
    assert tw.four_tuple == (parse_ipv4(OUR_IP), tw.four_tuple[1], parse_ipv4(PEER_IP), 80)
    assert (tw.iss, tw.irs, tw.snd_nxt, tw.rcv_nxt) == tuple(
        values[name] for name in ("iss", "irs", "snd_nxt", "rcv_nxt")
    )
    assert (tw.last_win, tw.t_recent) == (last_win, 0)


def test_tw_1_read_abort_release_once_each_in_order(host: Bench) -> None:
    conn = closing(host)
    conn.report(poll=False, peer_closed=1, state=State.TIME_WAIT)
    fin(conn)  # another snapshot before READ_TCB is answered
    reads = [command["page"] for command in conn.commands(Opcode.READ_TCB)]
    assert len(reads) == len(set(reads)) and ops(conn) == [Opcode.READ_TCB] * len(reads) + [Opcode.ABORT]
    fin(conn)  # another snapshot before the engine has read ABORT
    assert ops(conn)[len(reads) :] == [Opcode.ABORT]
    conn.end(Reason.LOCAL_ABORT)
    assert ops(conn)[len(reads) :] == [Opcode.ABORT, Opcode.RELEASE]
    assert host.dev.engine.free_ids == 16 and not host.dev.counters.total()


def test_tw_1_id_and_rings_are_free_four_tuple_is_not(host: Bench) -> None:
    conn = in_time_wait(host)
    laddr, lport, faddr, fport = entry(host).four_tuple
    assert host.dev.engine.free_ids == 16 and host.dev.engine.ids.ring_pool.in_use == host.dev.engine.ids.idle_rings
    again = host.socket()
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind((OUR_IP, lport))
    assert again.connect_ex((PEER_IP, 80)) == errno.EADDRINUSE
    assert again.connect_ex((PEER_IP, 81)) == errno.EINPROGRESS
    again.close()
    pass_time(host, TWO_MSL)
    last = host.socket()
    last.bind((OUR_IP, lport))
    assert last.connect_ex((PEER_IP, 80)) == errno.EINPROGRESS
    tid = host.device.last(Opcode.OPEN)["tid"]
    assert tid & 0xFFFF == conn.tid & 0xFFFF or tid >> 16  # generations go on


def test_tw_1_many_connections_on_few_ids(host: Bench) -> None:
    for n in range(100):
        conn = in_time_wait(host)
        assert len(host.stack.time_wait) == n + 1 and host.dev.engine.ids.toepcbs[conn.tid & 0xFFFF] is None
    pass_time(host, TWO_MSL)
    assert over(host)


def test_tw_1_simultaneous_close(host: Bench) -> None:
    conn = host.connected()
    conn.sock.close()
    conn.report(peer_closed=1, state=State.CLOSING)
    assert not host.stack.time_wait and not ops(conn)
    conn.report(state=State.TIME_WAIT)
    assert len(host.stack.time_wait) == 1 and ops(conn)[-1] == Opcode.ABORT


def test_tw_1_not_before_all_data_is_in_host_memory(host: Bench) -> None:
    """The state may be ahead of ``peer_closed``, which waits for the payload."""
    conn = closing(host, close=False)
    conn.report(state=State.TIME_WAIT)
    assert not ops(conn)
    conn.deliver(b"the rest", peer_closed=1)
    assert ops(conn)[-1] == Opcode.ABORT
    conn.end(Reason.LOCAL_ABORT)
    assert conn.sock.recv(100) == b"unreadthe rest" and conn.sock.recv(1) == b""


def test_tw_1_engine_keeps_it_by_default(bench: Bench) -> None:
    bench.device.tcb = TCB
    conn = closing(bench)
    fin(conn)
    assert not ops(conn) and not bench.stack.time_wait
    conn.end()
    assert over(bench)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"time_wait": "host"}, "rst_unknown"), ({"time_wait": "stack", "rst_unknown": False}, "'stack'")],
)
def test_tw_1_wrong_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        EngineOptions(**options)


# ---------------------------------------------------------------------- the user sees no difference


def seen(conn: Connection, inp: inpcb, so: Any) -> tuple[Any, ...]:
    """What user and stack see of a connection."""
    return (
        so.so_state,
        so.so_error,
        so.so_timeo,
        so.so_rcv.sb_cc,
        so.so_rcv.sb_state,
        so.so_snd.sb_state,
        inp.inp_flags,
        inp.inp_ppcb.t_state if inp.inp_ppcb else None,
        conn.bench.stack.tcbinfo.connected(inp.four_tuple) is inp,
    )


@pytest.mark.parametrize("time_wait", ["engine", "host"])
def test_tw_1_socket_sees_the_same(time_wait: str) -> None:
    """Through TIME_WAIT with the user still there, who closes in the middle of it."""
    stories = {}
    for mode in ("engine", time_wait):
        bench = Bench(time_wait=mode, rst_unknown=False)
        bench.device.tcb = TCB
        conn = closing(bench, close=False)
        so, inp = conn.so, conn.tp.t_inpcb
        story = [seen(conn, inp, so)]
        fin(conn)
        story.append(seen(conn, inp, so))
        if mode == "host":
            conn.end(Reason.LOCAL_ABORT)
            assert not inp.inp_ppcb.t_flags & TF_TOE and not conn.bench.dev.calls.four_tuples
        story.append(seen(conn, inp, so))
        assert inp.inp_flags & INP_TIMEWAIT and so.so_state & SS_ISDISCONNECTED and not so.so_state & SS_ISCONNECTED
        story.append(
            [
                conn.sock.recv(3),
                conn.sock.info().tcpi_state,
                errno_of(conn, lambda c: c.sock.send(b"x")),
                errno_of(conn, lambda c: c.sock.shutdown(socket.SHUT_WR)),
                conn.sock.readable(),
                conn.sock.writable(),
            ]
        )
        story.append(conn.sock.recv(100) + conn.sock.recv(100))
        if mode == "host":
            pass_time(bench, TWO_MSL)
        else:
            conn.end()
        story.append(seen(conn, inp, so))
        assert inp.inp_flags & INP_DROPPED and not so.so_error
        story.append((conn.sock.recv(1), errno_of(conn, lambda c: c.sock.send(b"x"))))
        conn.sock.close()
        assert over(bench)
        stories[mode] = story
    assert stories["engine"] == stories[time_wait]


def errno_of(conn: Connection, call: Callable[[Connection], object]) -> int | None:
    try:
        call(conn)
    except OSError as error:
        return error.errno
    return 0


@pytest.mark.parametrize("when", ["before", "while it is read", "after", "never"])
def test_tw_1_close_around_the_handover(host: Bench, when: str) -> None:
    """The rings are back as soon as nobody reads, not after 2 MSL."""
    conn = closing(host, close=when == "before")
    if when == "while it is read":
        host.device.answer = lambda command: None
    fin(conn)
    if when == "while it is read":
        conn.sock.close()
        for command in conn.commands(Opcode.READ_TCB):
            host.device.done(command)
        host.stack.poll()
        host.device.answer = host.device.default_answer
    conn.end(Reason.LOCAL_ABORT)
    if when == "after":
        conn.sock.close()
    ids = host.dev.engine.ids
    assert ids.ring_pool.in_use - ids.idle_rings == (when == "never") and ids.available == 16
    assert len(host.stack.time_wait) == 1 and len(list(host.stack.tcbinfo)) == 1
    pass_time(host, TWO_MSL)
    if when == "never":
        assert conn.sock.recv(10) == b"unread"
        conn.sock.close()
    assert over(host)


def test_tw_1_socket_detached_before(host: Bench) -> None:
    conn = closing(host, close=False)
    with host.stack.tcbinfo.lock, conn.tp.t_inpcb.lock:
        tcp_gen_detach(conn.tp)
        tcp_close(conn.tp)
    fin(conn)
    conn.end(Reason.LOCAL_ABORT)
    assert host.dev.engine.free_ids == 16
    tw = entry(host)
    assert tw.tw_inpcb is None
    conn.sock.close()
    again = host.socket()
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind((OUR_IP, tw.four_tuple[1]))
    assert again.connect_ex((PEER_IP, 80)) == errno.EADDRINUSE
    again.close()
    assert arrives(host, tw, "FA", tw.rcv_nxt - 1)
    pass_time(host, TWO_MSL)
    assert not host.stack.time_wait


def test_tw_1_linger_ends(host: Bench) -> None:
    conn = host.connected()
    conn.sock.setblocking(True)
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 5))
    conn.sock.send(b"x")
    host.device.script = [lambda: conn.report(poll=False, snd_una_position=1, state=State.TIME_WAIT, peer_closed=1)]
    conn.sock.close()
    assert host.device.time < 100 and ops(conn)[-1] == Opcode.ABORT
    conn.end(Reason.LOCAL_ABORT)
    pass_time(host, TWO_MSL)
    assert over(host)


def test_tw_1_port_in_time_wait_is_bound_with_reuseaddr_only(host: Bench) -> None:
    in_time_wait(host)
    port = entry(host).four_tuple[1]
    sock = host.socket()
    with pytest.raises(OSError) as caught:
        sock.bind((OUR_IP, port))
    assert caught.value.errno == errno.EADDRINUSE
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((OUR_IP, port))


# ---------------------------------------------------------------------- what keeps it from being handed over


def test_tw_1_command_ring_full_is_tried_again(host: Bench) -> None:
    conn = closing(host)
    commands = host.dev.engine.commands
    host.device.read_commands = False
    while commands.room(1):
        commands.post(reg.pack_nop(0))
    fin(conn)
    for _ in range(3):
        pass_time(host, 1_000_000)
    assert not ops(conn) and not host.stack.time_wait
    host.device.read_commands = True
    host.device.fetch()
    pass_time(host, 10_000)
    host.stack.poll()
    assert len(host.stack.time_wait) == 1 and ops(conn)[-1] == Opcode.ABORT


@pytest.mark.parametrize("then", ["terminal", "rst", "reset", "stop"])
def test_tw_1_over_before_there_is_room(host: Bench, then: str) -> None:
    conn = closing(host)
    host.device.read_commands = False
    while host.dev.engine.commands.room(1):
        host.dev.engine.commands.post(reg.pack_nop(0))
    fin(conn)
    host.device.read_commands = True
    if then in ("reset", "stop"):
        if then == "stop":
            host.dev.stop(0)
            host.dev.restart()
        else:
            host.dev.reset()
        host.device.forget()
    else:
        conn.end(Reason.NORMAL if then == "terminal" else Reason.PEER_RESET)
    pass_time(host, 1_000_000)
    assert not conn.commands(Opcode.READ_TCB, Opcode.ABORT) and over(host)


@pytest.mark.parametrize("status", [Status.BAD_ID, Status.DMA_ERROR])
def test_tw_1_read_refused_leaves_it_to_the_engine(host: Bench, status: Status) -> None:
    host.device.answer = lambda c: status if c["op"] == Opcode.READ_TCB else host.device.default_answer(c)
    conn = closing(host)
    fin(conn)
    assert not host.stack.time_wait and not conn.commands(Opcode.ABORT)
    conn.end()
    assert over(host)


@pytest.mark.parametrize("meanwhile", ["rst", "two_msl"])
def test_tw_1_over_while_it_is_read(host: Bench, meanwhile: str) -> None:
    """The terminal event stands before the answers, or behind them."""
    reason = Reason.PEER_RESET if meanwhile == "rst" else Reason.NORMAL
    for late in (False, True):
        host.device.forget()
        host.device.answer = lambda command: None
        conn = closing(host)
        fin(conn)
        if not late:
            conn.end(reason)
        host.device.tcb = {**TCB, "state": State.CLOSED}
        for command in conn.commands(Opcode.READ_TCB):
            host.device.done(command)
        host.stack.poll()
        if late:
            conn.end(reason)
        host.device.done(host.device.last(Opcode.RELEASE))
        host.stack.poll()
        assert not host.stack.time_wait and not conn.commands(Opcode.ABORT) and over(host)


def test_tw_1_rst_between_read_and_abort(host: Bench) -> None:
    """The engine has ended the connection before it reads ABORT: the stack keeps the four-tuple all the same."""
    conn = closing(host)
    host.device.answer = lambda c: Status.BAD_STATE if c["op"] == Opcode.ABORT else host.device.default_answer(c)
    fin(conn)
    conn.end(Reason.PEER_RESET)
    assert host.dev.engine.free_ids == 16 and len(host.stack.time_wait) == 1
    assert len(conn.commands(Opcode.RELEASE)) == 1
    pass_time(host, TWO_MSL)
    assert over(host)


def test_tw_1_device_that_contradicts_itself(host: Bench) -> None:
    """TIME_WAIT of a connection that has sent no FIN: nothing is handed over."""
    conn = host.connected()
    fin(conn)
    assert conn.tp.t_state == State.CLOSE_WAIT and not conn.commands(Opcode.ABORT) and not host.stack.time_wait


class HostWorld(RaceWorld):
    """The engine model with TIME_WAIT kept by the stack."""

    def __init__(self) -> None:
        super().__init__(**HOST)

    def _nothing_left(self) -> None:
        self.engine.time += LATE_US
        self.settle()
        assert not self.stack.time_wait
        super()._nothing_left()
        handed_over = any(command["op"] == Opcode.READ_TCB for command in self.engine.commands)
        assert not (handed_over and self.engine.resets), "RST of a connection that was in TIME_WAIT"


@pytest.mark.parametrize(
    ("story", "read"), [("fin", 0), ("ack_fin", 0), ("rst", 2), ("two_msl", 4), ("data", 4), ("dma_error", 4)]
)
@pytest.mark.parametrize("how", ["close", "reset", "detach"])
def test_tw_1_every_order_of_the_end(monkeypatch: pytest.MonkeyPatch, story: str, read: int, how: str) -> None:
    """The peer's FIN, or what may follow it with so many READ_TCB carried out already, the user's end, and the handover."""
    monkeypatch.setattr("tiptoe_driver.netinet.structures.tcpcb", GuardedTcpcb)

    def world() -> HostWorld:
        made = HostWorld()
        made.reach(State.FIN_WAIT_1 if story == "ack_fin" else State.FIN_WAIT_2)
        if read:
            made.step("peer", "fin")
            made.step("driver", "poll")
            for _ in range(read):
                made.step("engine", "command")
        return made

    scenario = Scenario(world, {"user": [how], "peer": [story], "engine": ["command"] * 2, "driver": ["poll", "poll"]})
    assert explore(scenario) == scenario.count == 180


# ---------------------------------------------------------------------- later frames


def arrives(bench: Bench, tw: tcptw, flags: str, seq: int, ack: int | None = None, payload: bytes = b"") -> list[Ether]:
    """Give the driver a segment of the peer; the frames it answers with."""
    _, lport, _, fport = tw.four_tuple
    return give(
        bench,
        Ether(src=PEER_MAC, dst=OUR_MAC)
        / IP(src=PEER_IP, dst=OUR_IP)
        / TCP(sport=fport, dport=lport, flags=flags, seq=seq & 0xFFFF_FFFF, ack=tw.snd_nxt if ack is None else ack)
        / payload,
    )


def give(bench: Bench, packet: Ether | bytes) -> list[Ether]:
    bench.device.forget()
    bench.device.frame(bytes(packet).ljust(60, b"\0"))
    bench.stack.poll()
    answers = [Ether(raw) for raw in bench.device.sent_frames()]
    for answer in answers:
        assert (answer.dst, answer.src) == (PEER_MAC, OUR_MAC) and (answer[IP].src, answer[IP].dst) == (OUR_IP, PEER_IP)
        sums = answer[IP].chksum, answer[TCP].chksum
        del answer[IP].chksum, answer[TCP].chksum
        again = Ether(bytes(answer))
        assert (again[IP].chksum, again[TCP].chksum) == sums and answer[IP].len == 40
    return answers


def fields(tcp: TCP) -> tuple[Any, ...]:
    return str(tcp.flags), tcp.seq, tcp.ack, tcp.window, tcp.sport, tcp.dport


@pytest.mark.parametrize("start", [1000, 0xFFFF_FF00, 0x8000_0000])
@pytest.mark.parametrize(("flags", "offset", "payload", "acked", "restarts"), [
    ("FA", -1, b"", True, True),            # our last ACK was lost
    ("FPA", -6, b"12345", True, True),      # the same with the data before it
    ("F", -1, b"", True, True),
    ("FA", -2, b"", True, False),           # not the peer's FIN
    ("FA", 0, b"", True, False),
    ("FA", 100, b"", True, False),
    ("A", 0, b"", False, False),            # what we know: no answer, or two of us would go on for ever
    ("A", -1, b"", True, False),
    ("A", 5, b"", True, False),
    ("PA", -300, b"old data", True, False),
    ("PA", 0, b"new data", True, False),
    ("S", -302, b"", True, False),          # an old duplicate: challenge ACK, RFC 5961
    ("S", 0, b"", True, False),
    ("SA", -302, b"", True, False),
    ("SA", 5, b"", True, False),
    ("R", 0, b"", False, False),            # RFC 1337
    ("RA", 0, b"", False, False),
    ("RA", 55, b"", False, False),
    ("", 0, b"", False, False),
])  # fmt: skip
def test_tw_1_later_segments(
    host: Bench, start: int, flags: str, offset: int, payload: bytes, acked: bool, restarts: bool
) -> None:
    values = {name: start + TCB[name] - 1000 & 0xFFFF_FFFF for name in ("iss", "irs", "snd_nxt", "rcv_nxt", "rcv_adv")}
    host.device.tcb = {**TCB, **values}
    in_time_wait(host)
    tw = entry(host)
    pass_time(host, TWO_MSL // 2)
    answers = arrives(host, tw, flags, tw.rcv_nxt + offset, payload=payload)
    _, lport, _, fport = tw.four_tuple
    expected = [("A", tw.snd_nxt, tw.rcv_nxt, tw.last_win, lport, fport)] if acked else []
    assert [fields(answer[TCP]) for answer in answers] == expected
    assert host.dev.counters["time_wait_segments"] == 1
    pass_time(host, TWO_MSL // 2)
    assert len(host.stack.time_wait) == restarts
    pass_time(host, TWO_MSL // 2)
    assert over(host)


def test_tw_1_ack_has_the_connection_s_ip_header(host: Bench) -> None:
    conn = closing(host, close=False)
    conn.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x20)
    conn.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 7)
    fin(conn)
    [answer] = arrives(host, entry(host), "FA", TCB["rcv_nxt"] - 1)
    assert (answer[IP].tos, answer[IP].ttl) == (0x20, 7)


NOT_FOR_US = {
    "length": (IP, "len", 30),
    "fragment": (IP, "frag", 1),
    "mac": (Ether, "dst", "02:00:00:00:00:77"),
    "broadcast": (Ether, "dst", "ff:ff:ff:ff:ff:ff"),
    "group": (Ether, "src", "01:00:5e:00:00:01"),
    "sender": (IP, "src", "224.0.0.1"),
    "ourselves": (IP, "src", OUR_IP),
    "address": (IP, "dst", "10.0.0.77"),
}


@pytest.mark.parametrize("damage", ["tcp", "ip", *NOT_FOR_US])
def test_tw_1_what_is_not_answered(host: Bench, damage: str) -> None:
    """Damaged, or not from a single host to us."""
    in_time_wait(host)
    tw = entry(host)
    packet = Ether(
        bytes(
            Ether(src=PEER_MAC, dst=OUR_MAC)
            / IP(src=PEER_IP, dst=OUR_IP)
            / TCP(sport=80, dport=tw.four_tuple[1], flags="FA", seq=tw.rcv_nxt - 1, ack=tw.snd_nxt)
        )
    )
    if damage in ("tcp", "ip"):
        packet[TCP if damage == "tcp" else IP].chksum ^= 0x1111
    else:
        layer, name, value = NOT_FOR_US[damage]
        setattr(packet[layer], name, value)
        if packet[IP].len != 30:
            del packet[IP].chksum, packet[TCP].chksum
    assert give(host, packet) == []
    counter = "frames_bad_tcp" if damage in ("tcp", "ip") else "frames_unclaimed"
    assert host.dev.counters[counter] == 1 and not host.dev.counters["time_wait_segments"]


# ---------------------------------------------------------------------- a connection anew


@pytest.mark.parametrize("start", [2000, 0xFFFF_FF00])
@pytest.mark.parametrize(
    ("offset", "reopens"), [(1, True), (1 << 30, True), (0, False), (-1, False), (-302, False), (1 << 31, False)]
)
def test_tw_1_syn_reopens_above_rcv_nxt_only(host: Bench, start: int, offset: int, reopens: bool) -> None:
    """A listener has the port: the engine has answered the SYN, since it knows nothing of TIME_WAIT."""
    listener = host.listening()
    host.device.tcb = {**TCB, "rcv_nxt": start + 302 & 0xFFFF_FFFF}
    host.syn(1)
    conn = host.handshake_done(1)
    child, _ = listener.accept()
    child.shutdown(socket.SHUT_WR)
    conn.report(state=State.FIN_WAIT_2)
    fin(conn)
    conn.end(Reason.LOCAL_ABORT)
    tw = entry(host)
    if not reopens:
        child.close()
    irs = tw.rcv_nxt + offset & 0xFFFF_FFFF
    host.device.event(
        EventType.SYN_RECEIVED,
        syncache_ref=2,
        listener=0,
        faddr=tw.four_tuple[2],
        laddr=tw.four_tuple[0],
        fport=tw.four_tuple[3],
        lport=80,
        iss=9000,
        irs=irs,
        mss=1460,
    )
    host.stack.poll()
    assert host.stack.time_wait.find(tw.four_tuple) is tw, "not with the SYN, which may be an old duplicate"
    assert host.dev.counters["time_wait_old_syns"] == (not reopens)
    assert [c["syncache_ref"] for c in host.device.ops(Opcode.SYNCACHE_DROP)] == ([] if reopens else [2])
    assert host.stack.syncache.count == reopens
    again = host.handshake_done(2, irs=irs)
    assert len(again.commands(Opcode.ABORT)) == (not reopens)
    assert listener.readable() == reopens
    if reopens:
        assert not host.stack.time_wait
        new, address = listener.accept()
        assert address == (PEER_IP, 5000) and new.so.so_state & SS_ISCONNECTED
        assert child.recv(1) == b"" and child.so.so_pcb.inp_flags & INP_DROPPED
        again.deliver(b"hello")
        assert new.recv(10) == b"hello"


def test_tw_1_syn_that_comes_to_nothing_leaves_time_wait(host: Bench) -> None:
    in_time_wait(host)
    tw = entry(host)
    [answer] = arrives(host, tw, "S", tw.rcv_nxt + 1000, 0)
    assert fields(answer[TCP])[:3] == ("RA", 0, tw.rcv_nxt + 1001)  # nobody listens
    assert host.stack.time_wait.find(tw.four_tuple) is tw
    assert len(arrives(host, tw, "FA", tw.rcv_nxt - 1)) == 1


@pytest.mark.parametrize("who", ["owner", "hook"])
def test_tw_1_another_stack_may_take_the_syn(host: Bench, who: str) -> None:
    in_time_wait(host)
    tw = entry(host)
    taken: list[bytes] = []
    if who == "owner":
        host.dev.hostif.owner = taken.append
    else:
        host.dev.hostif.input_hook = lambda frame: bool(taken.append(frame)) or True
    assert len(arrives(host, tw, "FA", tw.rcv_nxt - 1)) == 1 and not taken  # ours first
    assert arrives(host, tw, "S", tw.rcv_nxt + 1, 0) == [] and len(taken) == 1
    assert over(host)  # the four-tuple is its own now
    assert arrives(host, tw, "A", tw.rcv_nxt + 2) == [] and len(taken) == 2


# ---------------------------------------------------------------------- segments of nobody


@pytest.mark.parametrize(
    ("flags", "payload", "reset"),
    [
        ("S", b"", ("RA", 0, 501)),
        ("S", b"data", ("RA", 0, 505)),
        ("", b"data", ("RA", 0, 504)),
        ("F", b"", ("RA", 0, 501)),
        ("A", b"", ("R", 777, 0)),
        ("PA", b"data", ("R", 777, 0)),
        ("SA", b"", ("R", 777, 0)),
        ("FA", b"", ("R", 777, 0)),
        ("R", b"", None),
        ("RA", b"", None),
    ],
)
def test_tw_1_segments_of_nobody_are_reset_by_the_host(
    flags: str, payload: bytes, reset: tuple[str, int, int] | None
) -> None:
    """RFC 9293 section 3.10.7.1: the engine leaves them to us when rst_unknown is off."""
    packet = (
        Ether(src=PEER_MAC, dst=OUR_MAC)
        / IP(src=PEER_IP, dst=OUR_IP)
        / TCP(sport=4000, dport=99, flags=flags, seq=500, ack=777)
        / payload
    )
    bench = Bench(rst_unknown=False)
    answers = give(bench, packet)
    assert [fields(answer[TCP])[:3] for answer in answers] == ([reset] if reset else [])
    assert bench.dev.counters["unknown_segments"] == 1
    taken: list[bytes] = []
    bench.dev.hostif.input_hook = lambda frame: bool(taken.append(frame)) or True
    assert give(bench, packet) == [] and len(taken) == 1
    bench.dev.hostif.input_hook, bench.dev.hostif.owner = None, taken.append
    assert give(bench, packet) == [] and len(taken) == 2
    assert give(Bench(), packet) == []  # the engine resets them


def test_tw_1_segments_older_than_the_connection_are_not_reset(host: Bench) -> None:
    """They have met the open, or the handshake, on the way."""
    conn = host.opening()
    host.listening(81)
    host.syn(1, port=81)
    _, lport, _, _ = conn.toep.four_tuple
    for ports in ({"sport": 80, "dport": lport}, {"sport": 5000, "dport": 81}):
        packet = Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER_IP, dst=OUR_IP) / TCP(**ports, flags="A", seq=5, ack=5)
        assert give(host, packet) == []
    assert host.dev.counters["late_segments"] == 2


def test_tw_1_garbage_never_raises(host: Bench, rng: Any) -> None:
    in_time_wait(host)
    tw = entry(host)
    sound = bytes(
        Ether(src=PEER_MAC, dst=OUR_MAC)
        / IP(src=PEER_IP, dst=OUR_IP)
        / TCP(sport=80, dport=tw.four_tuple[1], flags="FA", seq=tw.rcv_nxt - 1, ack=tw.snd_nxt)
        / b"data"
    )
    before = host.device.frames
    for _ in range(500):
        raw = bytearray(sound[: rng.randrange(15, len(sound) + 1)])
        for _ in range(rng.randrange(4)):
            raw[rng.randrange(14, len(raw))] = rng.randrange(256)
        host.device.frame(bytes(raw))
        host.stack.poll()
    assert host.device.registers[reg.REG_FRAME_CONSUMER] == before + 500 and len(host.stack.time_wait) == 1


# ---------------------------------------------------------------------- the device goes, many entries


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("how", ["stop", "reset", "detach", "pull"])
def test_tw_1_device_stops_or_goes(host: Bench, how: str, close: bool) -> None:
    """A device that comes again finds the four-tuple taken; with the interface goes its address."""
    conn = in_time_wait(host, close=close)
    tw = entry(host)
    inp = tw.tw_inpcb
    assert inp is not None
    if how == "pull":
        host.device.pulled = True
        host.dev.alive()
    elif how == "stop":
        host.dev.stop()
        host.dev.restart()
    else:
        getattr(host.dev, how)()
    gone = how in ("detach", "pull")
    assert host.dev.state is (DeviceState.REMOVED if gone else DeviceState.RUNNING)
    assert len(host.stack.time_wait) == (not gone) and bool(inp.inp_flags & INP_DROPPED) == gone
    if not close:
        assert not conn.so.so_error and conn.sock.recv(100) == b"unread"
        conn.sock.close()
    if not gone:
        assert len(arrives(host, tw, "FA", tw.rcv_nxt - 1)) == 1
        pass_time(host, TWO_MSL)
    assert not host.stack.time_wait and not list(host.stack.tcbinfo) and inp.inp_tw is None


def test_tw_1_oldest_entry_makes_room(host: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeWait, "LIMIT", 3)
    tws = []
    for n in range(5):
        in_time_wait(host)
        tws.append(list(host.stack.time_wait._entries.values())[-1])
        pass_time(host, 1000)
        if n == 2:
            arrives(host, tws[0], "FA", tws[0].rcv_nxt - 1)  # begins anew: now the second is the oldest
    assert [host.stack.time_wait.find(tw.four_tuple) is tw for tw in tws] == [True, False, False, True, True]
    assert len(list(host.stack.tcbinfo)) == 3


def test_tw_1_a_fin_again_and_again_leaves_one_callout(host: Bench) -> None:
    in_time_wait(host)
    tw = entry(host)
    before = len(host.stack._callouts)
    for _ in range(50):
        arrives(host, tw, "FA", tw.rcv_nxt - 1)
        pass_time(host, 1000)
    assert len(host.stack._callouts) == before
    pass_time(host, TWO_MSL - 1001)
    assert host.stack.time_wait
    pass_time(host, 1001)
    assert over(host)
