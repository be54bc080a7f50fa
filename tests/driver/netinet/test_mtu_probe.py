"""Probes of a path's MTU that something comes in between, and many connections to be asked about, on the scripted device
(RFC 4821 section 7, RFC 8899 section 4.6.2)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest

from tests.driver.bench import Bench, Connection
from tests.driver.netinet.test_blackhole import LOOK_US, WAIT_US, Path, counted, fallen, look, pass_us
from tests.driver.netinet.test_icmp import complain, minutes, sizes
from tiptoe_driver.hardware.abi_gen import Reason
from tiptoe_driver.hardware.positions import advance
from tiptoe_driver.netinet.tcp_output import CORK_US
from tiptoe_driver.toe.black_holes import AT_ONCE
from tiptoe_hdl.host.abi import Opcode

DUE_US = 2_000_000


def running_dry(bench: Bench) -> Connection:
    """A probe is due, and data that was told before is not acknowledged."""
    conn = fallen(bench).nodelay()
    Path(bench, conn)
    conn.sock.send(bytes(1000))
    pass_us(bench, DUE_US)
    conn.sock.send(bytes(3000))
    assert conn.toep.snd_told == 5000
    return conn


def withheld(bench: Bench) -> Callable[[], None]:
    """The device answers no commands, until this is called."""
    waiting: list[dict[str, int]] = []
    bench.device.answer = waiting.append

    def answers() -> None:
        bench.device.answer = bench.device.default_answer
        for command in waiting:
            if bench.device.default_answer(command) is not None:
                bench.device.done(command)
        pass_us(bench, 0)

    return answers


def asked(bench: Bench) -> tuple[Connection, Callable[[], None]]:
    """All is acknowledged, and the device is asked for its windows; it answers when told to."""
    conn = running_dry(bench)
    answers = withheld(bench)
    conn.ack(5000)
    assert conn.toep.snd_told == 5000
    return conn, answers


def out(bench: Bench) -> Connection:
    """A probe of 1460 bytes is under way."""
    conn = running_dry(bench)
    conn.ack(5000)
    pass_us(bench, 0)
    assert sizes(conn)[-1] == 1460 and conn.toep.snd_told == 6460
    return conn


def at_stage(bench: Bench, when: str) -> tuple[Connection, Callable[[], None]]:
    return asked(bench) if when == "asked" else (running_dry(bench) if when == "dry" else out(bench), lambda: None)


def test_router_that_complains_of_a_probe_names_the_next_one(bench: Bench) -> None:
    """What passes is known to pass still, and no more than that: "The PLPMTU is not updated"."""
    conn = out(bench)
    complain(bench, conn, 1400)
    pass_us(bench, 0)
    assert sizes(conn)[-1] == 1200 and conn.toep.snd_told == conn.so.so_snd.tail, "and the rest goes with it"
    conn.ack(conn.toep.snd_told)
    path = Path(bench, conn).seconds(3)
    assert path.probes == [(1360, True)] and conn.tp.t_maxseg == 1360
    path.seconds(500)
    assert path.probes == [(1360, True)] and not counted(bench).get("probes_lost")
    path.seconds(100)
    assert path.probes == [(1360, True), (1460, True)] and conn.tp.t_mtup is None, "ten minutes later: all of it"


def test_router_whose_word_is_too_large_is_not_believed(bench: Bench) -> None:
    """A black hole lies behind it."""
    conn = out(bench)
    complain(bench, conn, 1400)
    pass_us(bench, 0)
    conn.ack(conn.toep.snd_told)
    path = Path(bench, conn, 1300).seconds(100)
    assert path.probes[:3] == [(1360, False)] * 3 and 1284 < conn.tp.t_maxseg <= 1300


@pytest.mark.parametrize("when", ["dry", "asked", "out"])
@pytest.mark.parametrize("wanted", [1150, 1300])
def test_user_who_wants_smaller_segments_gets_them(bench: Bench, when: str, wanted: int) -> None:
    """TCP_MAXSEG is a maximum, whatever was to be probed; and no proof that so much passes."""
    conn, then = at_stage(bench, when)
    if when != "out" and wanted > conn.tp.t_maxseg:
        with pytest.raises(OSError, match="Invalid"):  # segments may become smaller only
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, wanted)
        return
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, wanted)
    assert conn.tp.t_maxseg == min(wanted, 1200)
    then()
    conn.ack(conn.toep.snd_told)
    told = len(sizes(conn))
    path = Path(bench, conn).seconds(10)
    assert conn.tp.t_maxseg == wanted and max(sizes(conn)[told:], default=0) <= wanted
    assert path.probes == [(1300, True)] * (wanted == 1300)


@pytest.mark.parametrize("when", ["dry", "asked", "out"])
@pytest.mark.parametrize("mtu", [1100, 1400])
def test_interface_that_carries_less_meanwhile(bench: Bench, when: str, mtu: int) -> None:
    conn, then = at_stage(bench, when)
    told = len(sizes(conn))
    bench.dev.if_set_mtu(mtu)
    then()
    pass_us(bench, 0)
    assert conn.tp.t_maxseg == min(1200, mtu - 40) and max(sizes(conn)[told:], default=0) <= 1200
    conn.ack(conn.toep.snd_told)
    path = Path(bench, conn).seconds(10)
    assert path.probes == [(1360, True)] * (mtu == 1400) and conn.tp.t_maxseg == mtu - 40


def test_line_that_falls_silent_while_it_runs_dry(bench: Bench) -> None:
    """A black hole is found out; what was to be probed before is due no sooner than anything else."""
    conn = running_dry(bench)
    conn.tp.t_maxseg = conn.toep.maxseg = 1400  # say
    conn.tp.t_mtup.search_low = 1400  # type: ignore[union-attr]
    pass_us(bench, LOOK_US)
    assert look(bench, conn, 3, snd_una=conn.tp.snd_una, snd_max=conn.tp.snd_una + 1400) == [1200]
    Path(bench, conn)
    conn.ack(conn.toep.snd_told)
    pass_us(bench, 0)
    assert sizes(conn)[-1] == 1200 and conn.toep.snd_told == conn.so.so_snd.tail
    conn.ack(conn.toep.snd_told)
    pass_us(bench, 900_000)
    conn.sock.send(bytes(2000))
    assert sizes(conn)[-1] == 1200
    conn.ack(conn.toep.snd_told)
    pass_us(bench, 200_000)
    conn.sock.send(bytes(2000))
    pass_us(bench, 0)
    assert sizes(conn)[-1] == 1460


def test_probe_given_up_comes_no_sooner_than_after_a_complaint(bench: Bench) -> None:
    """Ten minutes are ten minutes."""
    conn = running_dry(bench)
    complain(bench, conn, 1100)
    pass_us(bench, 0)
    conn.ack(conn.toep.snd_told)
    pass_us(bench, 0)
    conn.ack(conn.so.so_snd.tail)
    path = Path(bench, conn).seconds(30)
    assert not path.probes and conn.tp.t_maxseg == 1060
    minutes(bench, 10)
    path.seconds(3)
    assert path.probes == [(1460, True)]


def test_probe_that_the_link_did_not_take_is_not_lost(bench: Bench) -> None:
    """Three outages say nothing of the path."""
    conn = running_dry(bench)
    conn.ack(4999)
    bench.dev.if_link_state_change(False)
    conn.ack(5000)
    for _ in range(5):
        pass_us(bench, 10_000_000)
        conn.sock.send(b"x")
    assert conn.toep.snd_told == 5000 and not counted(bench).get("probes_lost") and sizes(conn) == [1200]
    bench.dev.if_link_state_change(True)
    pass_us(bench, WAIT_US)
    path = Path(bench, conn).seconds(3)
    assert path.probes == [(1460, True)]


@pytest.mark.parametrize("room", [1500, 2048, 2900])
def test_send_buffer_of_less_than_two_segments(bench: Bench, room: int) -> None:
    """It is never empty, and holds never two of them: a full one is enough."""
    conn = fallen(bench).nodelay()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    Path(bench, conn)
    toep = conn.toep
    conn.sock.send(bytes(600))
    pass_us(bench, DUE_US)
    for _ in range(100):
        try:
            conn.sock.send(bytes(4096))
        except BlockingIOError:
            pass
        pass_us(bench, 0)
        if sizes(conn)[-1] == 1460:
            break
        if toep.snd_told != toep.snd_una:  # never all of it at once
            conn.ack(toep.snd_una + min(600, (toep.snd_told - toep.snd_una)))
    assert sizes(conn)[-1] == 1460


def test_send_buffer_that_holds_no_probe_is_not_stopped_for_one(bench: Bench) -> None:
    conn = fallen(bench).nodelay()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1300)
    Path(bench, conn)
    pass_us(bench, DUE_US)
    for length in (800, 500):
        conn.sock.send(bytes(length))
        assert conn.toep.snd_told == conn.so.so_snd.tail


@pytest.mark.parametrize("cork", [0, 1])
@pytest.mark.parametrize("when", ["dry", "asked", "out"])
def test_every_wait_of_a_small_write_ends(bench: Bench, when: str, cork: int) -> None:
    """Corked or not, whenever it comes."""
    conn, then = at_stage(bench, when)
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, cork)
    conn.sock.send(b"x")
    then()
    for _ in range(4):
        conn.ack(conn.toep.snd_told)
        pass_us(bench, 0)
    pass_us(bench, CORK_US)
    assert conn.toep.snd_told == conn.so.so_snd.tail


def test_line_is_not_stopped_again_and_again_for_a_probe_that_cannot_go(bench: Bench) -> None:
    """A user who keeps little unsent (TCP_NOTSENT_LOWAT), or a window that is small: 1, 2, 4 to 64 seconds."""
    conn = fallen(bench).nodelay()
    Path(bench, conn)
    conn.sock.send(bytes(2000))
    stopped = 0
    for _ in range(3000):
        if conn.toep.snd_told == conn.so.so_snd.tail:  # there is nothing that is not sent
            conn.sock.send(bytes(1000))
        held = conn.toep.snd_told != conn.so.so_snd.tail
        stopped += held
        pass_us(bench, 100_000)
        if held or conn.so.so_snd.sb_cc == 3000:
            conn.ack(conn.toep.snd_una + min(1000, conn.toep.snd_told - conn.toep.snd_una))
    assert 0 < stopped < 60 and sizes(conn) == [1200]


def test_all_silent_connections_are_asked_about_however_many(bench: Bench) -> None:
    """Those in front may be silent for ever, say before a closed window: the ones behind them have a black hole, too."""
    conns = [bench.connected(port=1000 + n) for n in range(8)]
    for conn in conns:
        conn.sock.send(bytes(4000))
    pass_us(bench, LOOK_US)
    commands = bench.dev.engine.commands
    bench.device.tcb = {"snd_una": conns[0].tp.snd_una, "snd_max": conns[0].tp.snd_max, "maxseg": 1460, "persist": 1}
    told: set[int] = set()
    room, left = commands.room, 0

    def little(count: int) -> bool:
        nonlocal left
        left -= count
        return left >= 0 and room(count)

    commands.room = little  # type: ignore[method-assign]
    for _ in range(8):
        bench.device.forget()
        left = 4  # one question for each look
        pass_us(bench, LOOK_US)
        told |= {command["tid"] for command in bench.device.ops(Opcode.READ_TCB)}
    assert told == {conn.tid for conn in conns}


def test_questions_leave_room_for_other_commands(bench: Bench) -> None:
    conns = [bench.connected(port=1000 + n) for n in range(8)]
    for conn in conns:
        conn.sock.send(bytes(4000))
    pass_us(bench, LOOK_US)
    first = conns[0].tp
    bench.device.tcb = {"snd_una": first.snd_una, "snd_max": first.snd_max, "maxseg": 1460, "rexmt_shift": 3}
    bench.device.forget()
    answers = withheld(bench)
    pass_us(bench, LOOK_US)
    assert len(bench.device.ops(Opcode.READ_TCB)) == 4 * AT_ONCE
    answers()
    for _ in range(4):
        pass_us(bench, 0)
    assert [sizes(conn) for conn in conns] == [[1200]] * 8, "in the same look"


@pytest.mark.parametrize("end", ["stop", "reset", "pulled", "abort"])
@pytest.mark.parametrize("when", ["dry", "asked", "out"])
def test_device_or_user_ends_it_and_the_id_is_anothers(bench: Bench, when: str, end: str) -> None:
    """What was to come of the probe comes to nobody."""
    conn, then = at_stage(bench, when)
    if end == "pulled":
        bench.device.pulled = True
        assert not bench.dev.lifecycle.look()
    elif end == "abort":
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        conn.sock.close()
        conn.end(Reason.LOCAL_ABORT)
    else:
        bench.dev.stop()
        if end == "stop":
            bench.dev.restart()
        else:
            bench.dev.reset()
    bench.device.forget()
    then()
    if end != "pulled":
        again = bench.connected(port=81)
        again.sock.send(bytes(4000))
        pass_us(bench, 3 * WAIT_US)
        assert not again.commands(Opcode.PATH_MTU) and again.toep.snd_told == 4000
        assert not bench.dev.calls.probes._probes


@pytest.mark.parametrize("when", ["dry", "asked", "out"])
def test_urgent_data_whenever_it_comes(bench: Bench, when: str) -> None:
    conn, then = at_stage(bench, when)
    conn.sock.send(b"!", socket.MSG_OOB)
    tail = conn.so.so_snd.tail
    assert [command["snd_end"] for command in conn.commands(Opcode.URGENT)] == [tail] and conn.toep.snd_told == tail
    then()
    conn.sock.send(b"and on")
    pass_us(bench, WAIT_US)
    conn.ack(conn.toep.snd_told)
    pass_us(bench, 0)
    conn.ack(conn.toep.snd_told)
    assert conn.toep.snd_told == conn.toep.snd_una == tail + 6
    assert conn.doorbells("snd") == sorted(conn.doorbells("snd"))


@pytest.mark.parametrize("when", ["dry", "asked", "out"])
def test_fin_whenever_it_comes(bench: Bench, when: str) -> None:
    conn, then = at_stage(bench, when)
    tail = conn.so.so_snd.tail
    conn.sock.shutdown(socket.SHUT_WR)
    assert [command["snd_end"] for command in conn.commands(Opcode.CLOSE)] == [tail]
    then()
    pass_us(bench, WAIT_US)
    assert sizes(conn)[-1] == 1200
    conn.ack(tail)
    pass_us(bench, 10 * WAIT_US)
    assert sizes(conn)[-1] == 1200 and conn.toep.snd_told == tail


@pytest.mark.parametrize("before", [1, 4000, 5000, 6460, 20000])
def test_positions_wrap(before: int) -> None:
    """As if that many bytes less than 2**32 had gone before."""
    bench = Bench()
    conn = bench.connected()
    conn.rebase(start := 2**32 - before)
    conn.tp.snd_una = conn.tp.snd_nxt = conn.tp.snd_max = advance(conn.tp.iss + 1, start)
    conn.sock.send(bytes(4000))
    pass_us(bench, LOOK_US)
    assert look(bench, conn, 3) == [1200]
    conn.ack(conn.toep.snd_told)
    path = Path(bench, conn, 1400).seconds(90)
    assert path.probes[:3] == [(1460, False)] * 3 and 1384 < conn.tp.t_maxseg <= 1400


@pytest.mark.parametrize(
    ("window", "more", "told"),
    [(2 * 1460, 3000, 2 * 1460), (2 * 1460 - 1, 3000, 1460), (60_000, 3000, 2 * 1460), (60_000, 2000, 2000)],
    ids=["just room", "no room", "room", "not so much data"],
)
@pytest.mark.parametrize("acknowledged", [1460, 0], ids=["the first", "none"])
def test_second_segment_draws_the_acknowledgement(
    bench: Bench, window: int, more: int, told: int, acknowledged: int
) -> None:
    """Of a single one it may be held back for half a second (RFC 9293 MUST-58, SHLD-19); of two it must not. The first alone
    proves the size; both go again if neither is acknowledged."""
    conn = fallen(bench).nodelay()
    Path(bench, conn, window=window)
    conn.sock.send(bytes(1000))
    pass_us(bench, DUE_US)
    conn.sock.send(bytes(more))
    conn.ack(5000)
    pass_us(bench, 0)
    assert conn.toep.snd_told == 5000 + told and sizes(conn)[-1] == 1460
    if acknowledged:
        conn.ack(5000 + acknowledged)
        pass_us(bench, 0)
        assert conn.tp.t_mtup is None and conn.toep.snd_told == 5000 + more
    pass_us(bench, 1_000_000)
    assert sizes(conn)[-1] == (1460 if acknowledged else 1200)
    assert counted(bench)["probes_passed" if acknowledged else "probes_lost"] == 1
