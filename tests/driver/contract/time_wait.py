"""Connections on their way into a TIME_WAIT of the stack's, on the scripted device."""

from __future__ import annotations

import socket

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.bench import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, Bench, Connection
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.netinet.tcp_timewait import tcptw
from tiptoe_hdl.host.abi import Opcode

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


def closing(bench: Bench, *, close: bool = True) -> Connection:
    """A connection in FIN_WAIT_2; with data received and not read, unless the user has closed."""
    conn = bench.connected()
    conn.sock.send(bytes(100))
    conn.deliver(b"unread")
    if close:
        conn.sock.recv(100)
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
        assert (again[IP].chksum, again[TCP].chksum) == sums and answer[IP].len in (40, 52)
    return answers
