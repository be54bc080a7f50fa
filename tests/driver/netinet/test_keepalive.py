"""Keep-alive: when a probe is asked for, what counts as an answer, and the end (RFC 9293 section 3.8.4), scripted device."""

from __future__ import annotations

import errno
import random
import socket
from typing import Any

import pytest

from tests.driver.bench import PEER_IP, Bench, Connection
from tests.driver.contract.endings import released
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.netinet.tcp_keepalive import RETRY_US
from tiptoe_hdl.host.abi import Opcode

SECOND = 1_000_000
TCP = socket.IPPROTO_TCP
IDLE, INTVL, CNT = 60, 10, 3


def later(bench: Bench, seconds: float) -> None:
    bench.device.time += round(seconds * SECOND)
    bench.stack.poll()
    bench.stack.poll()  # what the engine was asked it has answered


def steps(bench: Bench, milliseconds: int) -> None:
    """Time as it passes: nobody looks late."""
    for _ in range(milliseconds):
        later(bench, 0.001)


def probes(conn: Connection) -> int:
    return len(conn.commands(Opcode.KEEPALIVE))


def looks(conn: Connection) -> int:
    return len(conn.commands(Opcode.READ_TCB))


def aborts(conn: Connection) -> int:
    return len(conn.commands(Opcode.ABORT))


def watched(bench: Bench, idle: int = IDLE, intvl: int = INTVL, cnt: int = CNT, **_: Any) -> Connection:
    """A connection with keep-alive. The device says that probes are unanswered until ``bench.device.tcb`` says otherwise."""
    conn = bench.connected()
    conn.sock.setsockopt(TCP, socket.TCP_KEEPIDLE, idle)
    conn.sock.setsockopt(TCP, socket.TCP_KEEPINTVL, intvl)
    conn.sock.setsockopt(TCP, socket.TCP_KEEPCNT, cnt)
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    bench.device.tcb["unanswered"] = 1
    return conn


def error_of(conn: Connection) -> int:
    return int(conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def test_off_by_default_and_two_hours_when_on(bench: Bench) -> None:
    """MUST-25: off unless the application wants it. MUST-28: no less than two hours unless it says so."""
    conn = bench.connected()
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    assert conn.sock.getsockopt(TCP, socket.TCP_KEEPIDLE) == 7200
    assert conn.sock.getsockopt(TCP, socket.TCP_KEEPINTVL) == 75
    assert conn.sock.getsockopt(TCP, socket.TCP_KEEPCNT) == 9
    later(bench, 100 * 7200)
    assert probes(conn) == 0
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    later(bench, 7199.9)
    assert probes(conn) == 0
    later(bench, 0.1)
    assert probes(conn) == 1


def test_a_silent_peer_is_probed_as_often_as_wanted_and_then_given_up(bench: Bench) -> None:
    conn = watched(bench)
    later(bench, IDLE - 0.001)
    assert probes(conn) == 0
    later(bench, 0.001)
    for number in range(1, CNT):
        assert probes(conn) == number
        later(bench, INTVL - 0.001)
        assert probes(conn) == number and aborts(conn) == 0
        later(bench, 0.001)
    assert probes(conn) == CNT
    later(bench, INTVL - 0.001)
    assert aborts(conn) == 0
    later(bench, 0.001)
    assert probes(conn) == CNT and aborts(conn) == 1
    with pytest.raises(TimeoutError):
        conn.sock.recv(10)
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)


def test_an_answer_begins_the_idle_time_anew(bench: Bench) -> None:
    """MUST-29 asks not to take one lost probe for the end: after any answer the count begins at nothing."""
    conn = watched(bench)
    later(bench, IDLE)
    for _ in range(3):
        later(bench, INTVL)  # unanswered: the next one
        bench.device.tcb["unanswered"] = 0
        before = probes(conn)
        later(bench, INTVL)
        assert probes(conn) == before, "answered"
        bench.device.tcb["unanswered"] = 1
        later(bench, IDLE - 0.001)
        assert probes(conn) == before
        later(bench, 0.001)
        assert probes(conn) == before + 1
    assert aborts(conn) == 0


@pytest.mark.parametrize("activity", ["data", "acknowledgement"])
def test_a_busy_connection_is_not_probed(bench: Bench, activity: str) -> None:
    conn = watched(bench)
    for number in range(1, 20):
        later(bench, IDLE - 0.001)
        if activity == "data":
            conn.deliver(b"x")
            assert conn.sock.recv(10) == b"x"
        else:
            conn.sock.send(b"x")
            conn.ack(number)
    assert probes(conn) == 0
    later(bench, IDLE - 0.001)
    assert probes(conn) == 0
    later(bench, 0.001)
    assert probes(conn) == 1


def test_data_between_probe_and_look_is_an_answer(bench: Bench) -> None:
    conn = watched(bench)
    later(bench, IDLE)
    assert probes(conn) == 1
    later(bench, 1)
    conn.deliver(b"x")
    later(bench, IDLE - 0.001)
    assert probes(conn) == 1
    later(bench, 0.001)
    assert probes(conn) == 2 and aborts(conn) == 0


def test_data_while_the_engine_is_being_asked_is_an_answer(bench: Bench) -> None:
    """What the engine read before the data is old news."""
    conn = watched(bench, cnt=1)
    later(bench, IDLE)
    device = bench.device
    answer, device.answer = device.answer, lambda command: None
    later(bench, INTVL)
    conn.deliver(b"x")
    device.answer = answer
    asked = conn.commands(Opcode.READ_TCB)[-1]
    device.done(asked)
    bench.stack.poll()
    assert aborts(conn) == 0
    later(bench, IDLE)
    assert probes(conn) == 2


def test_what_waits_for_an_acknowledgement_is_the_engine_s_to_repeat(bench: Bench) -> None:
    conn = watched(bench)
    conn.sock.send(b"waits")
    later(bench, 10 * IDLE)
    assert probes(conn) == 0 and aborts(conn) == 0
    conn.ack(5)
    later(bench, IDLE)
    assert probes(conn) == 1


@pytest.mark.parametrize(
    ("idle", "intvl"), [(5, 60), (60, 5), (7, 7)], ids=["idle_shorter", "interval_shorter", "equal"]
)
@pytest.mark.parametrize("answer_ms", [0, 9, 11, 100, 900, 4900])
def test_idle_time_begins_behind_the_answer(bench: Bench, idle: int, intvl: int, answer_ms: int) -> None:
    """Never earlier (RFC 9293 section 3.8.4, MUST-26), and no later than one more round trip, whatever the interval."""
    conn = watched(bench, idle=idle, intvl=intvl)
    later(bench, idle)
    for number in range(1, 4):
        assert probes(conn) == number
        bench.device.tcb["unanswered"] = 1
        steps(bench, answer_ms)
        bench.device.tcb["unanswered"] = 0
        steps(bench, 1000 * idle - 1)
        assert probes(conn) == number
        late = 0
        while probes(conn) == number:
            steps(bench, 1)
            late += 1
        assert late <= max(answer_ms, 10) + 2


def test_looks_are_few(bench: Bench) -> None:
    """A peer that takes long to answer: 10, 20, 40 ms after the probe and so on, and at the end of the interval."""
    conn = watched(bench, intvl=75)
    bench.device.tcb["unanswered"] = 1
    later(bench, IDLE)
    before = looks(conn)
    steps(bench, 74_000)
    assert looks(conn) - before == 13
    assert probes(conn) == 1


def test_unanswered_probes_keep_their_interval_however_short_the_idle_time(bench: Bench) -> None:
    conn = watched(bench, idle=2, intvl=9, cnt=2)
    later(bench, 2)
    for _ in range(8):
        later(bench, 1)
        assert probes(conn) == 1
    later(bench, 1)
    assert probes(conn) == 2
    later(bench, 8.9)
    assert aborts(conn) == 0
    later(bench, 0.1)
    later(bench, 0)
    assert aborts(conn) == 1


def test_user_timeout_takes_the_count_s_place(bench: Bench) -> None:
    """As Linux: with TCP_USER_TIMEOUT silence for so long ends it, whatever TCP_KEEPCNT."""
    conn = watched(bench, cnt=1)
    conn.sock.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 1000 * (IDLE + 5 * INTVL))
    later(bench, IDLE)
    for _ in range(4):
        later(bench, INTVL)
    assert probes(conn) == 5 and aborts(conn) == 0
    later(bench, INTVL)
    assert aborts(conn) == 1


def test_options_of_a_live_connection_count_at_once(bench: Bench) -> None:
    conn = watched(bench)
    later(bench, 30)
    conn.sock.setsockopt(TCP, socket.TCP_KEEPIDLE, 20)
    bench.stack.poll()
    assert probes(conn) == 1, "idle for longer than that already"
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    later(bench, 100 * IDLE)
    assert probes(conn) == 1 and aborts(conn) == 0
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    later(bench, 19.9)
    assert probes(conn) == 1, "the time begins where somebody looks"
    later(bench, 0.1)
    assert probes(conn) == 2


@pytest.mark.parametrize(
    ("option", "most"), [(socket.TCP_KEEPIDLE, 32767), (socket.TCP_KEEPINTVL, 32767), (socket.TCP_KEEPCNT, 127)]
)
def test_limits_of_the_options(bench: Bench, option: int, most: int) -> None:
    sock = bench.socket()
    for number in (1, most):
        sock.setsockopt(TCP, option, number)
        assert sock.getsockopt(TCP, option) == number
    for number in (0, -1, most + 1, 0x7FFF_FFFF):
        with pytest.raises(OSError, match=r"\[Errno 22\]"):
            sock.setsockopt(TCP, option, number)
    assert sock.getsockopt(TCP, option) == most


def test_set_before_connect_it_begins_with_the_connection(bench: Bench) -> None:
    bench.know_peer()
    sock = bench.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(TCP, socket.TCP_KEEPIDLE, IDLE)
    sock.connect_ex((PEER_IP, 80))
    conn = Connection(bench, sock, bench.device.last(Opcode.OPEN)["tid"])
    later(bench, 10 * IDLE)
    assert probes(conn) == 0
    conn.report(established=1, state=State.ESTABLISHED)
    later(bench, IDLE)
    assert probes(conn) == 1


def test_an_accepted_connection_has_its_listener_s(bench: Bench) -> None:
    listener = bench.listening()
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (TCP, socket.TCP_KEEPIDLE, IDLE),
        (TCP, socket.TCP_KEEPINTVL, INTVL),
        (TCP, socket.TCP_KEEPCNT, CNT),
    ):
        listener.setsockopt(level, option, value)
    bench.syn(1)
    conn = bench.handshake_done(1)
    child, _ = listener.accept()
    assert [child.getsockopt(TCP, option) for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)] == [
        IDLE, INTVL, CNT,
    ]  # fmt: skip
    later(bench, IDLE)
    assert probes(conn) == 1


@pytest.mark.parametrize("end", ["peer", "close"])
def test_over_no_callout_is_left(bench: Bench, end: str) -> None:
    """Two hours are long: a connection that is over is not remembered until then."""
    conn = watched(bench)
    tp = conn.toep.tp
    later(bench, IDLE)
    if end == "peer":
        conn.end(Reason.PEER_RESET)
    else:
        conn.sock.close()
    later(bench, INTVL)
    later(bench, 100 * IDLE)
    assert tp.t_keep_timer is None and probes(conn) == 1


@pytest.mark.parametrize("state", [State.CLOSE_WAIT, State.FIN_WAIT_2])
def test_half_closed_connections_are_probed(bench: Bench, state: State) -> None:
    conn = watched(bench)
    if state is State.CLOSE_WAIT:
        conn.report(peer_closed=1, state=state)
    else:
        conn.sock.shutdown(socket.SHUT_WR)
        conn.report(state=State.FIN_WAIT_1)
        later(bench, 2 * IDLE)
        assert probes(conn) == 0, "the FIN is repeated"
        conn.report(state=state)
    later(bench, IDLE)
    assert probes(conn) == 1


def test_no_room_for_commands_the_probe_comes_later(bench: Bench) -> None:
    conn = watched(bench)
    commands = bench.dev.engine.commands
    room, commands.room = commands.room, lambda count: False  # type: ignore[method-assign]
    later(bench, IDLE)
    assert probes(conn) == 0
    commands.room = room  # type: ignore[method-assign]
    later(bench, RETRY_US / SECOND)
    assert probes(conn) == 1
    commands.room = lambda count: False  # type: ignore[method-assign]
    later(bench, INTVL)
    commands.room = room  # type: ignore[method-assign]
    later(bench, RETRY_US / SECOND)
    assert probes(conn) == 2


def test_reset_of_the_device_ends_it_too(bench: Bench) -> None:
    conn = watched(bench)
    tp = conn.toep.tp
    bench.dev.reset()
    later(bench, 10 * IDLE)
    assert tp.t_keep_timer is None and error_of(conn) in (errno.ECONNABORTED, errno.ENETDOWN, errno.ENETRESET, 0)


def test_probes_are_told_by_tcp_info(bench: Bench) -> None:
    conn = watched(bench)
    later(bench, IDLE)
    later(bench, INTVL)
    assert conn.sock.info().tcpi_probes == 2


@pytest.mark.parametrize("seed", range(12))
def test_no_probe_is_early_and_no_end_is_early_or_never(bench: Bench, seed: int) -> None:
    """Options change, the device has no room or cannot read, data comes and goes, keep-alive is switched, in any moment."""
    rng = random.Random(seed)
    device, commands = bench.device, bench.dev.engine.commands
    conn = watched(bench, idle := rng.randint(1, 8), intvl := rng.randint(1, 8), cnt := rng.randint(1, 4))
    device.tcb["unanswered"] = 0
    room, answer, done = commands.room, device.answer, device.done
    stalled = failing = False
    heard_us = probed_us = device.time
    gone = acked = unanswered = 0
    for _ in range(400):
        match rng.randrange(14):
            case 0:
                conn.sock.setsockopt(TCP, socket.TCP_KEEPIDLE, idle := rng.randint(1, 8))
            case 1:
                conn.sock.setsockopt(TCP, socket.TCP_KEEPINTVL, intvl := rng.randint(1, 8))
            case 2:
                conn.sock.setsockopt(TCP, socket.TCP_KEEPCNT, cnt := rng.randint(1, 4))
            case 3:
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                heard_us, unanswered = device.time, 0
            case 4:
                stalled = not stalled
                commands.room = (lambda count: False) if stalled else room  # type: ignore[method-assign]
            case 5:
                failing = not failing
                device.answer = (lambda command: done(command, 1)) if failing else answer
            case 6:
                conn.deliver(b"x")
                device.tcb["unanswered"] = unanswered = 0
                heard_us = device.time
            case 7 if not stalled:
                conn.sock.send(b"x")
                steps(bench, rng.randrange(20))
                acked += 1
                conn.ack(acked)
                device.tcb["unanswered"] = unanswered = 0
                heard_us = device.time
            case 8 if unanswered:
                device.tcb["unanswered"] = unanswered = 0  # the answer to a probe
                heard_us = device.time
        for _ in range(rng.randrange(40)):
            later(bench, 0.05)
            if probes(conn) > gone:
                assert probes(conn) == gone + 1
                since_us, least = (probed_us, intvl) if unanswered else (heard_us, idle)
                assert device.time - since_us >= least * SECOND, "early"
                assert unanswered < cnt or not unanswered, "asked too often"
                gone, probed_us = gone + 1, device.time
                unanswered += 1
                device.tcb["unanswered"] = 1
            if aborts(conn):
                assert unanswered >= cnt and device.time - probed_us >= intvl * SECOND
                return
    commands.room, device.answer = room, answer  # type: ignore[method-assign]
    device.tcb["unanswered"] = 1
    for _ in range(200 * (idle + (cnt + 2) * intvl)):
        later(bench, 0.05)
        device.tcb["unanswered"] = 1
    assert aborts(conn) == 1
