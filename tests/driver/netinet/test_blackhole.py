"""Paths that swallow large segments in silence (RFC 2923 section 2.1, RFC 4821 sections 7.3 and 7.7), on the scripted device."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from tests.driver.bench import Bench, Connection
from tests.driver.netinet.test_icmp import complain, minutes, sizes
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.hardware.positions import distance
from tiptoe_driver.netinet.structures import (
    IP_MTU,
    IP_MTU_DISCOVER,
    IP_PMTUDISC_DO,
    IP_PMTUDISC_PROBE,
    IP_PMTUDISC_WANT,
)
from tiptoe_driver.netinet.tcp_fill_info import tcp_fill_info
from tiptoe_driver.netinet.tcp_info import linux_tcp_info
from tiptoe_hdl.host.abi import Opcode

LOOK_US = 500_000
SRTT_MS, RTO_MS = 20, 220
WAIT_US = 170_000
"""How long a probe may take: three quarters of the way from the round trip to the time-out."""


def pass_us(bench: Bench, microseconds: float) -> None:
    bench.device.time += round(microseconds)
    for _ in range(3):
        bench.stack.poll()


def look(bench: Bench, conn: Connection, shift: int, **tcb: int) -> list[int]:
    """The driver's next look finds so many time-outs; what segments are told to be since."""
    before = len(sizes(conn))
    tp = conn.tp
    bench.device.tcb = {
        "snd_una": tp.snd_una,
        "snd_max": tp.snd_max,
        "maxseg": conn.toep.maxseg,
        "rexmt_shift": shift,
        **tcb,
    }
    pass_us(bench, LOOK_US)
    return sizes(conn)[before:]


def stuck(bench: Bench, length: int = 4000) -> Connection:
    """Data under way, and a look that has seen it."""
    conn = bench.connected()
    conn.sock.send(bytes(length))
    pass_us(bench, LOOK_US)
    return conn


def counted(bench: Bench) -> dict[str, int]:
    return {name.removeprefix("pmtud_"): n for name, n in bench.dev.counters.items() if name.startswith("pmtud_")}


def fallen(bench: Bench, length: int = 4000) -> Connection:
    """A connection that has fallen to 1200, and gets on again."""
    conn = stuck(bench, length)
    assert look(bench, conn, 3) == [1200]
    conn.ack(length)
    return conn


# ---------------------------------------------------------------------- down


def test_third_time_out_lowers_to_the_base_and_two_more_to_what_every_host_takes(bench: Bench) -> None:
    conn = stuck(bench)
    told = [look(bench, conn, shift) for shift in (0, 1, 2, 3, 3, 4, 5, 6)]
    assert told == [[], [], [], [1200], [], [], [536], []]
    assert counted(bench) == {"blackhole_activated": 1, "blackhole_activated_min_mss": 1}
    assert look(bench, conn, 7) == [] and counted(bench)["blackhole_failed"] == 1
    bench.device.forget()
    for shift in (8, 9, 10):
        assert look(bench, conn, shift) == []
    assert not bench.device.ops(Opcode.READ_TCB), "there is nothing left to be asked for"
    assert counted(bench)["blackhole_failed"] == 1 and conn.so.so_snd.sb_cc == 4000
    conn.end(Reason.TIMEOUT)
    pass_us(bench, 10 * LOOK_US)


def test_looks_that_come_late_lower_once_each(bench: Bench) -> None:
    """Time-outs are as far apart as they are, looks as well."""
    conn = stuck(bench)
    assert [look(bench, conn, shift) for shift in (0, 4, 5, 9)] == [[], [1200], [], [536]]


def test_data_that_gets_on_is_never_asked_about(bench: Bench) -> None:
    conn = stuck(bench)
    bench.device.forget()
    for acked in range(100, 3900, 100):
        conn.ack(acked)
        assert look(bench, conn, 5) == []
    assert not bench.device.ops(Opcode.READ_TCB)
    conn.ack(4000)
    for _ in range(3):
        assert look(bench, conn, 5) == []
    assert not bench.device.ops(Opcode.READ_TCB), "nor an idle connection"


@pytest.mark.parametrize(
    "tcb",
    [{"persist": 1}, {"short": 1200}, {"maxseg": 1188, "short": 4000}, {"stale": 1}],
    ids=["closed_window", "short", "short_segments", "acknowledged_meanwhile"],
)
def test_time_outs_of_something_else(bench: Bench, tcb: dict[str, int]) -> None:
    """A probe of a closed window, segments that are no longer than the base, what the event of is yet to come."""
    conn = stuck(bench)
    changed = dict(tcb)
    if (short := changed.pop("short", 0)) != 0:
        changed["snd_max"] = conn.tp.snd_una + short
    if changed.pop("stale", 0):
        changed["snd_una"] = conn.tp.snd_una + 100
    for shift in (3, 6, 9):
        assert look(bench, conn, shift, **changed) == []
    assert not counted(bench)


def test_short_data_behind_a_fall_stays_as_it_is(bench: Bench) -> None:
    """What is left is shorter than the least size: nothing to be gained."""
    conn = stuck(bench)
    assert look(bench, conn, 3) == [1200]
    conn.ack(3700)
    assert look(bench, conn, 0) == []
    assert [look(bench, conn, shift) for shift in (3, 5, 7)] == [[], [], []]


def test_small_segments_have_no_black_hole(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    conn.sock.send(bytes(4000))
    bench.device.forget()
    for shift in range(10):
        assert look(bench, conn, shift) == []
    assert not bench.device.ops(Opcode.READ_TCB)


def test_switched_off(bench: Bench) -> None:
    bench = Bench(pmtud_blackhole=False)
    conn = stuck(bench)
    bench.device.forget()
    for shift in range(10):
        assert look(bench, conn, shift) == []
    assert not bench.device.commands


def test_device_without_room_for_commands_is_asked_at_the_next_look(bench: Bench) -> None:
    conn = stuck(bench)
    room, bench.dev.engine.commands.room = bench.dev.engine.commands.room, lambda count: False
    assert look(bench, conn, 3) == []
    bench.dev.engine.commands.room = room
    assert look(bench, conn, 3) == [1200]


def test_closed_by_the_user_with_data_under_way(bench: Bench) -> None:
    """Who serves a file writes it and closes."""
    conn = bench.connected()
    conn.sock.send(bytes(4000))
    tp, toep, so = conn.tp, conn.toep, conn.so
    conn.sock.close()
    assert tp.t_state == State.FIN_WAIT_1
    pass_us(bench, LOOK_US)
    bench.device.tcb = {"snd_una": tp.snd_una, "snd_max": tp.snd_max, "maxseg": 1460, "rexmt_shift": 3}
    pass_us(bench, LOOK_US)
    assert sizes(conn) == [1200] and toep.maxseg == 1200 and so.so_snd.sb_cc == 4000


def test_link_that_is_down_leaves_the_engine_for_later(bench: Bench) -> None:
    conn = stuck(bench)
    bench.dev.tod_ifp.if_up = False
    assert look(bench, conn, 3) == []
    bench.dev.if_link_state_change(True)
    pass_us(bench, 1000)
    assert sizes(conn) == [1200]


def test_accepted_connections_are_watched_too(bench: Bench) -> None:
    listener = bench.listening()
    bench.syn(1)
    conn = bench.handshake_done(1)
    conn.sock_or_none = listener.accept()[0]
    conn.sock.send(bytes(4000))
    pass_us(bench, LOOK_US)
    assert look(bench, conn, 3) == [1200]


def test_what_a_router_has_complained_of_rises_by_probes_behind_a_black_hole(bench: Bench) -> None:
    """Its timer is for a path that complains."""
    conn = stuck(bench)
    complain(bench, conn, 1400)
    assert conn.tp.t_pmtu_timer is not None
    assert look(bench, conn, 3) == [1200] and conn.tp.t_pmtu_timer is None
    conn.ack(4000)
    minutes(bench, 30)
    assert sizes(conn) == [1360, 1200] and conn.tp.t_maxseg_most == 1460


# ---------------------------------------------------------------------- up again


class Path:
    """What the device and a path that carries segments of up to ``mss`` bytes make of a connection: whatever was told is sent
    and acknowledged, in no time; a segment that is too long is not.

    Attributes
    ----------
    window : int
        The peer's; by default a probe has room alone.
    probes : list of (int, bool)
        Segments that went at a size that had not been sent since it was told: the size, and whether it has passed.
    """

    def __init__(self, bench: Bench, conn: Connection, mss: int = 1460, window: int = 2 * 1200) -> None:
        self.bench, self.conn, self.mss = bench, conn, mss
        self.probes: list[tuple[int, bool]] = []
        self.silent_us = 0
        self.losses = 0
        bench.device.tcb = {"snd_wnd": window, "cwnd": 60000, "srtt": 8 * SRTT_MS, "rto": RTO_MS, "maxseg": 1200}

    def turn(self, us: int = 50_000) -> None:
        """The user writes all he can; time passes."""
        conn, toep = self.conn, self.conn.toep
        try:
            while True:
                conn.sock.send(bytes(4096))
        except BlockingIOError:
            pass
        self.bench.device.tcb["maxseg"] = toep.maxseg
        pass_us(self.bench, 0)
        told = distance(toep.snd_told, toep.snd_una)
        if not told:
            pass_us(self.bench, us)
            return
        size = min(told, toep.maxseg)
        passes = size <= self.mss
        if size > (conn.tp.t_mtup.search_low if conn.tp.t_mtup else 1 << 16) and not self.silent_us:
            assert told == size, "a probe is alone"
            self.probes.append((size, passes))
        if passes:
            self.silent_us = 0
            conn.ack(toep.snd_told)
        else:
            self.silent_us += us
            assert self.silent_us <= 1000 * RTO_MS, "the engine's own timer has ended"
            self.losses += 1
        pass_us(self.bench, us)

    def seconds(self, count: float) -> Path:
        until = self.bench.device.time + round(1e6 * count)
        while self.bench.device.time < until:
            self.turn()
        return self


def test_false_alarm_costs_a_second(bench: Bench) -> None:
    """It was congestion, or a cable: the first probe is what held before."""
    conn = fallen(bench)
    path = Path(bench, conn).seconds(0.9)
    assert conn.tp.t_maxseg == 1200 and not path.probes
    path.seconds(0.3)
    assert path.probes == [(1460, True)] and conn.tp.t_maxseg == 1460 and conn.tp.t_mtup is None
    assert sizes(conn) == [1200, 1460] and counted(bench) == {"blackhole_activated": 1, "probes_passed": 1}
    path.seconds(100)
    assert path.probes == [(1460, True)]


@pytest.mark.parametrize("mss", [1200, 1207, 1240, 1360, 1412, 1452, 1459])
def test_search_finds_what_passes(bench: Bench, mss: int) -> None:
    """To 16 bytes, and then for ten minutes no more probes; each size that fails has failed three times."""
    conn = fallen(bench)
    path = Path(bench, conn, mss).seconds(200)
    assert mss - 16 < conn.tp.t_maxseg <= mss
    assert path.probes[:3] == [(1460, False)] * 3
    lost = [size for size, passed in path.probes if not passed]
    assert all(lost.count(size) == 3 and size > mss for size in lost)
    assert counted(bench).get("probes_lost", 0) == len(lost)
    found, probes = conn.tp.t_maxseg, len(path.probes)
    path.seconds(400)
    assert conn.tp.t_maxseg == found and len(path.probes) == probes
    path.mss = 1460
    path.seconds(220)
    assert conn.tp.t_maxseg == 1460 and conn.tp.t_mtup is None, "ten minutes later the path has healed"


def test_probe_is_taken_back_before_the_time_out(bench: Bench) -> None:
    conn = fallen(bench)
    path = Path(bench, conn, 1400).seconds(0.99)
    while not path.losses:
        path.turn(1000)
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    told = conn.toep.snd_told
    assert told == (conn.toep.snd_una + 1460) and conn.so.so_snd.sb_cc > 1460, "nothing but the probe"
    pass_us(bench, WAIT_US - 2000)
    assert sizes(conn)[-1] == 1460 and conn.toep.snd_told == told
    pass_us(bench, 2000)
    assert sizes(conn)[-1] == 1200 and conn.toep.snd_told == conn.so.so_snd.tail, "and the rest goes with it"


def test_timestamps_count(bench: Bench) -> None:
    """A segment of 1460 bytes has 1448 of data beside them."""
    conn = fallen(bench)
    path = Path(bench, conn)
    path.seconds(0.9)
    done = bench.device.page
    stamped = lambda n: done(n) if n != 3 else done(n) - (12 << 48)  # noqa: E731
    bench.device.page = stamped  # type: ignore[method-assign]
    before = conn.toep.snd_una
    while sizes(conn)[-1] != 1460:
        before = conn.toep.snd_una
        path.turn()
    assert conn.doorbells("snd").count(before + 1448) == 1


@pytest.mark.parametrize("lacks", ["snd_wnd", "cwnd"])
def test_probe_waits_for_a_window_that_takes_it(bench: Bench, lacks: str) -> None:
    conn = fallen(bench)
    path = Path(bench, conn)
    bench.device.tcb[lacks] = 1459
    path.seconds(5)
    assert not path.probes and sizes(conn) == [1200]
    bench.device.tcb[lacks] = 1460
    path.seconds(4)
    assert path.probes == [(1460, True)]


def test_probe_waits_for_its_data(bench: Bench) -> None:
    """An application that writes little now and then is not held up."""
    conn = fallen(bench)
    Path(bench, conn)
    pass_us(bench, 2_000_000)
    for position in range(4100, 8000, 100):
        conn.sock.send(bytes(100))
        assert conn.toep.snd_told == position
        conn.ack(position)
    conn.sock.send(bytes(1460))
    pass_us(bench, 0)
    assert sizes(conn)[-1] == 1460 and conn.toep.snd_told == position + 1460


def test_line_runs_dry_before_a_probe_and_for_no_longer(bench: Bench) -> None:
    """What was told is not taken back; what is written meanwhile waits; if it is too little for a probe it goes as it is."""
    conn = fallen(bench).nodelay()
    Path(bench, conn)
    conn.sock.send(bytes(1000))
    pass_us(bench, 2_000_000)
    conn.sock.send(bytes(2000))
    assert conn.toep.snd_told == 5000, "it is due, and there is data"
    conn.ack(4600)
    assert conn.toep.snd_told == 5000
    conn.ack(5000)
    pass_us(bench, 0)
    assert sizes(conn)[-1] == 1460 and conn.toep.snd_told == 6460
    conn.ack(6460)
    assert conn.toep.snd_told == 7000 and conn.tp.t_mtup is None


def test_fin_is_not_held_back(bench: Bench) -> None:
    conn = fallen(bench).nodelay()
    Path(bench, conn)
    conn.sock.send(bytes(1000))
    pass_us(bench, 2_000_000)
    conn.sock.send(bytes(2000))
    conn.sock.shutdown(socket.SHUT_WR)
    assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [7000]
    conn.ack(7000)
    pass_us(bench, 2_000_000)
    assert sizes(conn) == [1200]


def test_fin_behind_a_probe_goes_and_the_probe_is_taken_back(bench: Bench) -> None:
    conn = fallen(bench)
    path = Path(bench, conn, 1400).seconds(0.99)
    while not path.losses:
        path.turn(1000)
    tail = conn.so.so_snd.tail
    conn.sock.shutdown(socket.SHUT_WR)
    assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [tail]
    pass_us(bench, WAIT_US)
    assert sizes(conn)[-1] == 1200 and conn.toep.maxseg == 1200


def test_urgent_data_is_not_held_back(bench: Bench) -> None:
    conn = fallen(bench).nodelay()
    Path(bench, conn)
    conn.sock.send(bytes(1000))
    pass_us(bench, 2_000_000)
    conn.sock.send(bytes(2000))
    conn.sock.send(b"!", socket.MSG_OOB)
    pass_us(bench, 0)
    assert [c["snd_end"] for c in conn.commands(Opcode.URGENT)] == [7001] and conn.toep.snd_told == 7001
    conn.ack(7001)
    conn.sock.send(b"and on")
    assert conn.toep.snd_told == 7007
    assert conn.doorbells("snd") == sorted(conn.doorbells("snd"))


def test_user_and_interface_limit_what_is_probed(bench: Bench) -> None:
    conn = fallen(bench)
    bench.dev.tod_ifp.if_mtu = 1400
    path = Path(bench, conn).seconds(3)
    assert [size for size, _ in path.probes] == [1360] and conn.tp.t_maxseg == 1360
    bench.dev.tod_ifp.if_mtu = 1500
    conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1300)
    path.seconds(700)
    assert conn.tp.t_maxseg == 1300 and conn.tp.t_mtup is None


@pytest.mark.parametrize("when", ["dry", "asked", "probe"])
def test_connection_ends_meanwhile(bench: Bench, when: str) -> None:
    conn = fallen(bench).nodelay()
    Path(bench, conn)
    conn.sock.send(bytes(1000))
    pass_us(bench, 2_000_000)
    conn.sock.send(bytes(2000))
    if when != "dry":
        answer = bench.device.answer
        if when == "asked":
            bench.device.answer = lambda command: None
        conn.ack(5000)
        pass_us(bench, 0)
        bench.device.answer = answer
    conn.end(Reason.PEER_RESET)
    bench.device.forget()
    pass_us(bench, 10_000_000)
    assert not bench.device.ops(Opcode.PATH_MTU) and not bench.device.doorbells
    assert not bench.dev.calls.probes._probes


def test_black_hole_that_grows_deeper_is_found_again(bench: Bench) -> None:
    conn = fallen(bench)
    Path(bench, conn, 1300).seconds(100)
    found = conn.tp.t_maxseg
    assert 1284 < found <= 1300
    conn.sock.send(bytes(4000))
    pass_us(bench, LOOK_US)
    assert [look(bench, conn, shift) for shift in (0, 3, 5)] == [[], [1200], [536]]


# ---------------------------------------------------------------------- options


def test_mtu_that_is_told(bench: Bench) -> None:
    conn = stuck(bench)
    assert conn.sock.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1500
    look(bench, conn, 3)
    assert conn.sock.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1240
    info = tcp_fill_info(conn.tp)
    assert info.tcpi_pmtu == 1240 and struct.unpack_from("=I", linux_tcp_info(info), 8 + 4 * 13) == (1240,)
    with pytest.raises(OSError) as none:
        bench.socket().getsockopt(socket.IPPROTO_IP, IP_MTU)
    assert none.value.errno == errno.ENOTCONN


@pytest.mark.parametrize(
    ("value", "believed"), [(IP_PMTUDISC_WANT, True), (IP_PMTUDISC_DO, True), (IP_PMTUDISC_PROBE, False)]
)
def test_mtu_discover_says_whether_icmp_is_believed(bench: Bench, value: int, believed: bool) -> None:
    """Black holes are found out either way."""
    conn = stuck(bench)
    conn.sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, value)
    assert conn.sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == value
    complain(bench, conn, 1400)
    assert sizes(conn) == [1360] * believed
    assert look(bench, conn, 3) == [1200]
    bench.dev.if_set_mtu(1000)
    assert sizes(conn)[-1] == 960, "the interface's is no hearsay"


def test_mtu_discover_is_the_listener_s_and_never_off(bench: Bench) -> None:
    listener = bench.listening()
    listener.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
    bench.syn(1)
    bench.handshake_done(1)
    made = listener.accept()[0]
    assert made.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_PROBE
    for value in (0, 4, -1):
        with pytest.raises(OSError) as refused:
            made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, value)
        assert refused.value.errno == errno.EINVAL
