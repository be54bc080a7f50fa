"""Contract row TW-1: what still arrives for a connection in TIME_WAIT, and segments of nobody. scapy makes and judges them."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.bench import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, Bench
from tests.driver.contract.time_wait import (
    TCB,
    TWO_MSL,
    arrives,
    closing,
    entry,
    fin,
    give,
    in_time_wait,
    over,
    pass_time,
)
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.netinet.pcbinfo import INP_DROPPED
from tiptoe_driver.netinet.structures import SS_ISCONNECTED
from tiptoe_hdl.host.abi import EventType, Opcode


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
    "everybody": (IP, "src", "10.0.0.255"),
    "network": (IP, "src", "10.0.0.0"),
    "loopback": (IP, "src", "127.0.0.1"),
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


@pytest.mark.parametrize("agreed", [True, False])
def test_tw_1_answers_carry_timestamps_if_the_connection_did(host: Bench, agreed: bool) -> None:
    """RFC 7323 section 3.2: in every segment; the clock goes on where the engine's is, and what is answered is echoed."""
    host.device.tcb = {**TCB, "iss": 0xFFFF_FFF0, "ts_ok": int(agreed)}
    in_time_wait(host)
    tw = entry(host)
    host.device.registers[reg.REG_TICK_TIME] = 100
    offset = host.device.registers[reg.REG_TIMESTAMP_OFFSET]
    _, lport, _, fport = tw.four_tuple
    options = [("NOP", None), ("NOP", None), ("Timestamp", (0xFFFF_FFFF, 5))]
    for layout in (options, options[2:], [("MSS", 1460), *options]):
        packet = (
            Ether(src=PEER_MAC, dst=OUR_MAC)
            / IP(src=PEER_IP, dst=OUR_IP)
            / TCP(sport=fport, dport=lport, flags="FA", seq=tw.rcv_nxt - 1, ack=tw.snd_nxt, options=layout)
        )
        [answer] = give(host, packet)
        found = [value for kind, value in answer[TCP].options if kind == "Timestamp"]
        assert found == ([((100 + offset + 0xFFFF_FFF0) % 2**32, 0xFFFF_FFFF)] if agreed else [])
