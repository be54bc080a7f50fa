"""Socket options of live connections on their way to the device, and TCP_INFO (contract rows OPT-1, CAP-2)."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest

from tests.driver.bench import PEER_IP, Bench, SoftwareStack, arp_reply
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import State, Status
from tiptoe_driver.hardware.options import DeviceError
from tiptoe_driver.netinet.structures import IPDEFTTL, TF_NODELAY, sotoinpcb, sototcpcb
from tiptoe_driver.netinet.tcp_fill_info import tcp_ask_info
from tiptoe_driver.netinet.tcp_info import linux_tcp_info, tcp_info
from tiptoe_driver.sockets import SO_NO_OFFLOAD
from tiptoe_hdl.host.abi import Opcode

TOS = socket.IPPROTO_IP, socket.IP_TOS
TTL = socket.IPPROTO_IP, socket.IP_TTL
CC = socket.IPPROTO_TCP, socket.TCP_CONGESTION
MAXSEG = socket.IPPROTO_TCP, socket.TCP_MAXSEG
INFO = socket.IPPROTO_TCP, socket.TCP_INFO

TCB = {
    "state": State.ESTABLISHED,
    "snd_una": 1101,
    "snd_nxt": 1201,
    "snd_max": 1301,
    "snd_end": 1501,
    "rcv_nxt": 2500,
    "rcv_adv": 6500,
    "snd_wnd": 5000,
    "cwnd": 14600,
    "ssthresh": 7300,
    "srtt": 8 * 25,
    "rttvar": 4 * 3,
    "rto": 201,
    "rtt_valid": 1,
    "maxseg": 1460,
    "rexmits": 7,
    "rexmt_shift": 2,
    "dupacks": 1,
    "in_recovery": 1,
    "ws_ok": 1,
    "sack_ok": 1,
    "ts_ok": 0,
    "snd_scale": 3,
    "rcv_scale": 5,
}


def options_told(bench: Bench) -> list[dict[str, Any]]:
    """SET_* commands, without their tags."""
    return [
        {name: value for name, value in command.items() if name not in ("opcode", "tag")}
        for command in bench.device.ops(Opcode.SET_IP_HEADER, Opcode.SET_CONGESTION, Opcode.PATH_MTU)
    ]


def ip_header(tid: int, ttl: int = IPDEFTTL, tos: int = 0) -> dict[str, Any]:
    return {"op": Opcode.SET_IP_HEADER, "tid": tid, "ttl": ttl, "tos": tos}


def congestion(tid: int, algorithm: int) -> dict[str, Any]:
    return {"op": Opcode.SET_CONGESTION, "tid": tid, "algorithm": algorithm}


def test_option_of_a_live_connection_reaches_the_device(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(*TOS, 0xB8)
    conn.sock.setsockopt(*TTL, 5)
    conn.sock.setsockopt(*CC, b"reno")
    assert options_told(bench) == [ip_header(conn.tid, tos=0xB8), ip_header(conn.tid, 5, 0xB8), congestion(conn.tid, 1)]
    conn.sock.setsockopt(*TTL, -1)
    conn.sock.setsockopt(*CC, b"newreno\0\0")
    assert options_told(bench)[3:] == [ip_header(conn.tid, tos=0xB8), congestion(conn.tid, 0)]
    assert (conn.sock.getsockopt(*TOS), conn.sock.getsockopt(*TTL)) == (0xB8, 64)
    assert conn.sock.getsockopt(*CC, 16).rstrip(b"\0") == b"newreno"


def test_option_set_before_connect_follows_open(bench: Bench) -> None:
    bench.know_peer()
    sock = bench.socket()
    sock.setsockopt(*TOS, 0x10)
    sock.setsockopt(*CC, b"reno")
    assert options_told(bench) == []
    sock.connect_ex((PEER_IP, 80))
    tid = bench.device.last(Opcode.OPEN)["tid"]
    ops = [c["op"] for c in bench.device.ops(Opcode.OPEN, Opcode.SET_IP_HEADER, Opcode.SET_CONGESTION)]
    assert ops == [Opcode.SET_IP_HEADER, Opcode.OPEN, Opcode.SET_CONGESTION]  # the SYN has it, too
    assert options_told(bench) == [ip_header(tid, tos=0x10), congestion(tid, 1)]


def test_dctcp_offers_ecn_in_its_syn() -> None:
    """As in Linux, where the engine only accepts it: without ECN it would be for nothing."""
    device = FakeDevice()
    device.registers[reg.REG_CONGESTION] |= 1 << reg.Congestion.DCTCP
    bench = Bench(device)
    bench.know_peer()
    for name, ecn in ((b"dctcp", 1), (b"reno", 0)):
        sock = bench.socket()
        sock.setsockopt(*CC, name)
        sock.connect_ex((PEER_IP, 80))
        assert bench.device.last(Opcode.OPEN)["ecn"] == ecn


@pytest.mark.parametrize(("told", "linux"), [
    ({"ecn_ok": 1, "established": 1}, 8), ({"ecn_ok": 1, "established": 1, "ecn_seen": 1}, 24),
    ({"ecn_ok": 1}, 0), ({}, 0),
])  # fmt: skip
def test_info_tells_of_ecn_as_linux_does(bench: Bench, told: dict[str, int], linux: int) -> None:
    """TCPI_OPT_ECN, TCPI_OPT_ECN_SEEN; what our SYN has offered is not agreed yet."""
    conn = bench.connected()
    bench.device.tcb = {**TCB, **told}
    info = conn.sock.info()
    assert (info.tcpi_ecn, info.tcpi_ecn_seen) == (bool(linux & 8), bool(linux & 16))
    assert linux_tcp_info(info)[5] & 24 == linux


def test_option_set_while_arp_is_asked_follows_open_too(bench: Bench) -> None:
    sock = bench.socket()
    sock.connect_ex((PEER_IP, 80))
    sock.setsockopt(*TTL, 9)
    assert options_told(bench) == []
    bench.device.frame(arp_reply())
    bench.stack.poll()
    assert options_told(bench) == [ip_header(bench.device.last(Opcode.OPEN)["tid"], 9)]


def test_open_that_was_refused_leaves_no_ip_header_to_the_next_user_of_its_id(bench: Bench) -> None:
    bench.know_peer()
    sock = bench.socket()
    sock.setsockopt(*TOS, 0x10)
    sock.connect_ex((PEER_IP, 80))
    first = bench.device.last(Opcode.OPEN)
    bench.device.done(first, Status.TABLE_FULL)
    bench.stack.poll()
    bench.device.forget()
    conn = bench.opening(81)
    assert conn.tid == first["tid"] and options_told(bench) == [ip_header(conn.tid)]


@pytest.mark.parametrize("option", [(TOS, 0xB8), (TTL, 5), (MAXSEG, 700)], ids=["tos", "ttl", "maxseg"])
def test_data_sent_right_after_an_option_waits_for_the_command(
    bench: Bench, option: tuple[tuple[int, int], int]
) -> None:
    """A doorbell is a register and would overtake the command in memory."""
    conn = bench.connected().nodelay()
    conn.sock.send(b"before")
    bench.device.answer = lambda command: None
    conn.sock.setsockopt(*option[0], option[1])
    conn.sock.send(b"behind it")
    bench.stack.poll()
    assert conn.doorbells("snd") == [6] and conn.so.so_snd.sb_cc == 15
    bench.device.done(bench.device.last(Opcode.READ_TCB))
    bench.stack.poll()
    assert conn.doorbells("snd") == [6, 15] and conn.tp.snd_max == 1001 + 15


def test_data_behind_an_option_waits_for_the_last_of_several_commands(bench: Bench) -> None:
    conn = bench.connected()
    bench.device.answer = lambda command: None
    conn.sock.setsockopt(*TOS, 0xB8)
    conn.sock.setsockopt(*TTL, 5)
    conn.sock.send(b"x")
    first, second = conn.commands(Opcode.READ_TCB)
    for command, rung in ((first, []), (second, [1])):
        bench.device.done(command, Status.BAD_GENERATION)  # whatever the answer is
        bench.stack.poll()
        assert conn.doorbells("snd") == rung


def test_close_right_after_an_option_waits_for_nothing(bench: Bench) -> None:
    """CLOSE is a command behind the other, and sends what there is."""
    conn = bench.connected()
    bench.device.answer = lambda command: None
    conn.sock.setsockopt(*TOS, 0xB8)
    conn.sock.send(b"last words")
    conn.sock.close()
    assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [10]
    for command in conn.commands(Opcode.READ_TCB):
        bench.device.done(command)
    bench.stack.poll()
    assert conn.doorbells("snd") == []


def test_defaults_cost_no_command(bench: Bench) -> None:
    bench.connected()
    assert options_told(bench) == []


def test_accepted_connections_have_the_listener_s_options(bench: Bench) -> None:
    listener = bench.listening()
    listener.setsockopt(*TOS, 0x20)
    listener.setsockopt(*CC, b"reno")
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bench.syn(1)
    conn = bench.handshake_done(1)
    assert options_told(bench) == [ip_header(conn.tid, tos=0x20), congestion(conn.tid, 1)]
    child, _ = listener.accept()
    assert child.getsockopt(*TOS) == 0x20 and child.getsockopt(*CC, 16).startswith(b"reno")
    assert child.so is not None and sototcpcb(child.so).t_flags & TF_NODELAY


def test_maxseg_of_a_live_connection_may_only_fall(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(*MAXSEG, 700)
    assert options_told(bench) == [{"op": Opcode.PATH_MTU, "tid": conn.tid, "mss": 700}]
    assert conn.sock.getsockopt(*MAXSEG) == 700
    for wrong in (701, 215, 0):
        with pytest.raises(OSError) as caught:
            conn.sock.setsockopt(*MAXSEG, wrong)
        assert caught.value.errno == errno.EINVAL
    assert len(options_told(bench)) == 1 and conn.tp.t_maxseg == 700


@pytest.mark.parametrize(("asked", "offered"), [(0, 1460), (700, 700), (9000, 1460)])
def test_maxseg_of_a_listener_is_offered_and_kept_to(bench: Bench, asked: int, offered: int) -> None:
    """RFC 9293 MUST-14, MUST-16."""
    listener = bench.socket()
    listener.setsockopt(*MAXSEG, asked)
    assert listener.getsockopt(*MAXSEG) == (asked or 536)
    listener.bind(("", 80))
    listener.listen()
    assert listener.getsockopt(*MAXSEG) == (asked or 536)
    assert bench.device.last(Opcode.LISTEN)["mss"] == offered
    bench.syn(1)
    bench.handshake_done(1, mss=offered)
    child, _ = listener.accept()
    assert child.getsockopt(*MAXSEG) == offered and options_told(bench) == []


def test_maxseg_set_while_listening_reaches_the_device_without_a_gap(bench: Bench) -> None:
    """RFC 9293 MUST-14: the same listener says something else; UNLISTEN would refuse SYNs meanwhile."""
    listener = bench.listening()
    first = bench.device.last(Opcode.LISTEN)
    for asked, offered in ((700, 700), (700, 700), (9000, 1460), (88, 88), (0, 1460)):
        listener.setsockopt(*MAXSEG, asked)
        assert listener.getsockopt(*MAXSEG) == (asked or 536)
        assert bench.device.last(Opcode.LISTEN) == first | {
            "mss": offered,
            "tag": bench.device.last(Opcode.LISTEN)["tag"],
        }
    with pytest.raises(OSError) as caught:
        listener.setsockopt(*MAXSEG, 87)
    assert caught.value.errno == errno.EINVAL
    assert [c["mss"] for c in bench.device.ops(Opcode.LISTEN)] == [1460, 700, 1460, 88, 1460]
    assert bench.device.ops(Opcode.UNLISTEN) == []
    listener.setsockopt(*MAXSEG, 600)
    listener.close()
    bench.stack.poll()
    assert [c["op"] for c in bench.device.ops(Opcode.LISTEN, Opcode.UNLISTEN)][-2:] == [Opcode.LISTEN, Opcode.UNLISTEN]


def test_maxseg_of_a_listener_is_offered_after_a_restart_too(bench: Bench) -> None:
    listener = bench.listening()
    listener.setsockopt(*MAXSEG, 700)
    bench.dev.restart()
    assert bench.device.last(Opcode.LISTEN)["mss"] == 700


def test_maxseg_set_while_listening_is_kept_to_by_what_is_accepted_later(bench: Bench) -> None:
    listener = bench.listening()
    listener.setsockopt(*MAXSEG, 700)
    bench.syn(1)
    conn = bench.handshake_done(1)
    assert options_told(bench) == [{"op": Opcode.PATH_MTU, "tid": conn.tid, "mss": 700}]
    assert listener.accept()[0].getsockopt(*MAXSEG) == 700


def test_listener_offers_what_the_interface_carries_after_its_mtu_has_changed(bench: Bench) -> None:
    """RFC 9293 MUST-14, section 3.7.1: the largest packet that can be received."""
    listener, other = bench.listening(), bench.listening(81)
    other.setsockopt(*MAXSEG, 700)
    bench.device.forget()
    for mtu in (1000, 1000, 600, 1500):
        bench.dev.if_set_mtu(mtu)
    assert [(c["lport"], c["mss"]) for c in bench.device.ops(Opcode.LISTEN)] == [
        (80, 960), (80, 560), (81, 560), (80, 1460), (81, 700),
    ]  # fmt: skip
    assert listener.getsockopt(*MAXSEG) == 536 and other.getsockopt(*MAXSEG) == 700


def test_maxseg_before_connect_is_what_getsockopt_tells(bench: Bench) -> None:
    sock = bench.socket()
    sock.setsockopt(*MAXSEG, 700)
    assert sock.getsockopt(*MAXSEG) == 700
    sock.setsockopt(*MAXSEG, 0)
    assert sock.getsockopt(*MAXSEG) == 536


@pytest.mark.parametrize(
    "option, value, error",
    [
        ((socket.IPPROTO_IP, socket.IP_TOS), 256, errno.EINVAL),
        ((socket.IPPROTO_IP, socket.IP_TOS), -1, errno.EINVAL),
        ((socket.IPPROTO_IP, socket.IP_TTL), 0, errno.EINVAL),
        ((socket.IPPROTO_IP, socket.IP_TTL), 256, errno.EINVAL),
        ((socket.IPPROTO_TCP, socket.TCP_CONGESTION), 1, errno.EINVAL),
    ],
)
def test_wrong_values_change_nothing(bench: Bench, option: tuple[int, int], value: int, error: int) -> None:
    conn = bench.connected()
    with pytest.raises(OSError) as caught:
        conn.sock.setsockopt(*option, value)
    assert caught.value.errno == error
    assert options_told(bench) == []
    assert (conn.sock.getsockopt(*TOS), conn.sock.getsockopt(*TTL)) == (0, 64)


def test_ecn_bits_are_the_transport_s(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(*TOS, 0xFF)
    assert options_told(bench) == [ip_header(conn.tid, tos=0xFC)]


def test_cap_2_unknown_algorithm_is_a_clear_error(bench: Bench) -> None:
    conn = bench.connected()
    for name in (b"cubic", b"", b"NEWRENO"):
        with pytest.raises(OSError) as caught:
            conn.sock.setsockopt(*CC, name)
        assert caught.value.errno == errno.ENOENT
    assert conn.sock.getsockopt(*CC, 16).rstrip(b"\0") == b"newreno" and options_told(bench) == []


def test_cap_2_only_what_the_capability_register_lists() -> None:
    device = FakeDevice()
    device.registers[reg.REG_CONGESTION] = 1 << reg.Congestion.NEWRENO
    bench = Bench(device)
    conn = bench.connected()
    with pytest.raises(OSError) as caught:
        conn.sock.setsockopt(*CC, b"reno")
    assert caught.value.errno == errno.ENOENT
    # A socket that wants it is not for this device: nothing is begun on it.
    bench.device.forget()
    sock = bench.socket()
    sock.setsockopt(*CC, b"reno")
    assert sock.connect_ex((PEER_IP, 80)) == errno.EPERM
    assert bench.device.commands == []
    sock.setsockopt(*CC, b"newreno")
    assert sock.connect_ex((PEER_IP, 80)) == errno.EINPROGRESS


@pytest.mark.parametrize(
    "has, asked, default",
    [
        (("NEWRENO", "RENO"), None, "NEWRENO"),
        (("NEWRENO", "CUBIC"), None, "CUBIC"),
        (("NEWRENO", "CUBIC"), "newreno", "NEWRENO"),
        (("NEWRENO", "RENO"), "reno", "RENO"),
    ],
)
def test_congestion_control_of_who_asks_for_none(has: tuple[str, ...], asked: str | None, default: str) -> None:
    """The engine begins connections with it; only who asks for another one is told of."""
    device = FakeDevice()
    device.registers[reg.REG_CONGESTION] = sum(1 << reg.Congestion[name] for name in has)
    bench = Bench(device, congestion=asked, tick_us=250)
    written = device.registers[reg.REG_CONGESTION_CONTROL]
    assert written & reg.CONGESTION_CONTROL_DEFAULT == reg.Congestion[default]
    assert written >> reg.CONGESTION_CONTROL_TICK_US_SHIFT == 250
    conn = bench.connected()
    assert conn.sock.getsockopt(*CC, 16).rstrip(b"\0") == default.lower().encode() and options_told(bench) == []
    for name in has:
        conn.sock.setsockopt(*CC, name.lower().encode())
        assert options_told(bench)[-1] == congestion(conn.tid, reg.Congestion[name])


def test_congestion_control_that_the_engine_lacks_cannot_be_its_default() -> None:
    with pytest.raises(DeviceError, match="cubic"):
        Bench(FakeDevice(), congestion="cubic")
    with pytest.raises(ValueError, match="vegas"):
        Bench(FakeDevice(), congestion="vegas")


def test_the_window_is_the_host_s_with_its_own_algorithm_only() -> None:
    device = FakeDevice()
    device.registers[reg.REG_CONGESTION] |= 1 << reg.Congestion.HOST
    bench = Bench(device)
    conn = bench.connected()

    def refused(error: int, cwnd: int = 1460, ssthresh: int = 1460) -> None:
        with pytest.raises(OSError) as caught:
            conn.sock.set_cwnd(cwnd, ssthresh)
        assert caught.value.errno == error and bench.device.ops(Opcode.SET_CWND) == []

    refused(errno.EINVAL)
    conn.sock.setsockopt(*CC, b"host")
    for sizes in ((-1, 0), (1 << 24, 0), (0, 1 << 24)):
        refused(errno.EINVAL, *sizes)
    conn.sock.set_cwnd(20_000, (1 << 24) - 1)
    (command,) = bench.device.ops(Opcode.SET_CWND)
    assert (command["tid"], command["cwnd"], command["ssthresh"]) == (conn.tid, 20_000, (1 << 24) - 1)
    conn.end()
    bench.device.forget()
    refused(errno.EPERM)


@pytest.mark.parametrize("when", ["closed", "over"])
def test_options_of_no_connection_touch_no_device(bench: Bench, when: str) -> None:
    conn = bench.connected()
    if when == "over":
        conn.end()
    sock = conn.sock if when == "over" else bench.socket()
    bench.device.forget()
    sock.setsockopt(*TOS, 4)
    sock.setsockopt(*CC, b"reno")
    assert options_told(bench) == []
    assert not sock.info().tcpi_device and bench.device.commands == []


# ---------------------------------------------------------------------- TCP_INFO


def polled(bench: Bench, sock: Socket) -> Any:
    """info() with the device reading commands while time passes."""
    bench.device.script = [bench.device.fetch] * 20
    return sock.info()


def test_info_is_the_device_s_tcb(bench: Bench) -> None:
    conn = bench.connected()
    bench.device.tcb = TCB
    info = polled(bench, conn.sock)
    assert info.tcpi_device and info.tcpi_state == State.ESTABLISHED
    assert (info.tcpi_rtt, info.tcpi_rttvar, info.tcpi_rto) == (25_000, 3_000, 201_000)
    assert (info.tcpi_snd_cwnd, info.tcpi_snd_ssthresh, info.tcpi_snd_wnd) == (14600, 7300, 5000)
    assert (info.tcpi_unacked, info.tcpi_notsent, info.tcpi_rcv_space) == (200, 200, 4000)
    assert (info.tcpi_snd_rexmitpack, info.tcpi_rxtshift, info.tcpi_dupacks) == (7, 2, 1)
    assert (info.tcpi_snd_wscale, info.tcpi_rcv_wscale, info.tcpi_in_recovery) == (3, 5, True)


@pytest.mark.parametrize("sack", [0, 1])
@pytest.mark.parametrize("scale", [0, 1])
def test_info_tells_of_selective_acknowledgements_if_both_permit_them(bench: Bench, sack: int, scale: int) -> None:
    conn = bench.connected()
    tp = conn.tp
    tp.snd_scale = tp.rcv_scale = 0
    bench.device.tcb = {**TCB, "sack_ok": sack, "ws_ok": scale}
    assert polled(bench, conn.sock).tcpi_sack == bool(sack)
    bench.device.script = [bench.device.fetch] * 20
    assert conn.sock.getsockopt(*INFO, 192)[5] == 2 * sack | 4 * scale


@pytest.mark.parametrize("state, agreed", [(State.ESTABLISHED, 1), (State.ESTABLISHED, 0), (State.SYN_SENT, 0)])
def test_info_tells_of_timestamps_if_both_have_them(bench: Bench, state: State, agreed: int) -> None:
    """Of an offer nothing."""
    conn = bench.connected()
    bench.device.tcb = {**TCB, "state": state, "ts_ok": agreed or state == State.SYN_SENT, "ws_ok": 0, "sack_ok": 0}
    assert polled(bench, conn.sock).tcpi_timestamps == bool(agreed)
    bench.device.script = [bench.device.fetch] * 20
    assert conn.sock.getsockopt(*INFO, 192)[5] & 1 == agreed


def test_info_before_a_round_trip_has_no_time(bench: Bench) -> None:
    conn = bench.connected()
    bench.device.tcb = {**TCB, "rtt_valid": 0}
    info = polled(bench, conn.sock)
    assert (info.tcpi_rtt, info.tcpi_rttvar) == (0, 0)


def test_info_in_the_layout_of_linux(bench: Bench) -> None:
    conn = bench.connected()
    bench.device.tcb = TCB
    bench.device.script = [bench.device.fetch] * 20
    raw = conn.sock.getsockopt(*INFO, 192)
    assert raw[0] == 1 and raw[1] == 4 and raw[2] == 2 and raw[5] & 4 and raw[6] == 3 | 5 << 4
    assert raw[5] & 2, "TCPI_OPT_SACK"
    words = struct.unpack_from("=24I", raw, 8)
    assert (words[0], words[2], words[15], words[16], words[17], words[18]) == (201_000, 1460, 25_000, 3_000, 5, 10)
    assert words[23] == 7


@pytest.mark.parametrize("break_it", ["busy", "refused", "silent"])
def test_info_without_an_answer_tells_what_the_stack_knows(bench: Bench, break_it: str) -> None:
    conn = bench.connected()
    if break_it == "busy":
        bench.device.read_commands = False
        while bench.dev.engine.commands.room(8):
            bench.dev.engine.commands.post(reg.pack_nop(0))
    elif break_it == "refused":
        bench.device.answer = lambda command: Status.BAD_ID
    else:
        bench.device.answer = lambda command: None
    info = conn.sock.info() if break_it != "refused" else polled(bench, conn.sock)
    assert not info.tcpi_device and info.tcpi_state == State.ESTABLISHED and info.tcpi_snd_mss == 1460


def test_info_of_a_connection_that_ends_meanwhile(bench: Bench) -> None:
    conn = bench.connected()
    bench.device.tcb = TCB
    bench.device.answer = lambda command: None
    answers: list[Any] = []
    with sotoinpcb(conn.so).lock:
        assert bench.dev.tod_tcp_info(conn.tp, answers.append) == 0
    conn.end()
    for command in bench.device.ops(Opcode.READ_TCB):
        bench.device.done(command)
    bench.stack.poll()
    assert answers == [None]


def test_info_of_a_listener_asks_nobody(bench: Bench) -> None:
    listener = bench.listening()
    bench.device.forget()
    assert listener.info().tcpi_state == State.LISTEN and bench.device.commands == []


def test_info_is_answered_once(bench: Bench) -> None:
    """The time limit and the device's late answer: whichever is first."""
    conn = bench.connected()
    bench.device.tcb = TCB
    bench.device.answer = lambda command: None
    answers: list[tcp_info] = []
    tcp_ask_info(conn.tp, answers.append, 500)
    assert answers == []
    bench.stack.sleep(lambda: bool(answers), 1000)
    assert bench.stack.now_us() >= 500
    assert [info.tcpi_device for info in answers] == [False]
    for command in bench.device.ops(Opcode.READ_TCB):
        bench.device.done(command)
    bench.stack.poll()
    assert len(answers) == 1


def test_options_and_info_of_a_software_connection_are_the_software_s(bench: Bench) -> None:
    software = SoftwareStack(bench.stack)
    sock = bench.socket()
    sock.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
    sock.connect_ex((PEER_IP, 80))
    bench.device.forget()
    assert sock.so is not None
    tp = sototcpcb(sock.so)
    sock.setsockopt(*TOS, 0x10)
    assert software.options == [(tp, *TOS)] and options_told(bench) == []
    software.info = tcp_info(tcpi_state=State.SYN_SENT, tcpi_rtt=77)
    assert sock.info() == software.info
    software.info = None  # not one of its connections
    assert sock.info().tcpi_state == State.SYN_SENT and bench.device.commands == []


def test_established_since(bench: Bench) -> None:
    conn = bench.opening()
    bench.device.time = 300
    assert conn.tp.t_starttime == 0
    conn.report(established=1, state=State.ESTABLISHED)
    bench.device.time = 700
    conn.report(established=1, state=State.ESTABLISHED)
    assert conn.tp.t_starttime == 300
