"""Contract row TW-1: TIME_WAIT kept by the stack, handed over by the scripted device, as the user sees it, to its end."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.driver.bench import OUR_IP, PEER_IP, Bench, Connection
from tests.driver.contract.time_wait import (
    HOST,
    TCB,
    TWO_MSL,
    arrives,
    closing,
    entry,
    fin,
    in_time_wait,
    ops,
    over,
    pass_time,
)
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
from tiptoe_driver.netinet.tcp_timewait import TimeWait
from tiptoe_hdl.host.abi import Opcode

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
