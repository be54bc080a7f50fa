"""Two devices on one stack, and connections in every state with what may happen to their device."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import fields

from tests.driver.bench import OUR_IP, Bench, Connection, arp_reply
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import Socket, Stack
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_driver.netinet.structures import tcpcb
from tiptoe_hdl.host.abi import EventType, Opcode

IPS = "10.0.0.1", "10.0.1.1"
PEERS = "10.0.0.2", "10.0.1.2"


class Two:
    """Two devices on one stack, each with its own line; the second has the default route."""

    def __init__(self, **options: int) -> None:
        self.stack = Stack(seed=1)
        self.benches = [
            Bench(stack=self.stack, ip=ip, peer_ip=peer, gateway="10.0.1.254" if n else "", **options)
            for n, (ip, peer) in enumerate(zip(IPS, PEERS, strict=True))
        ]
        self.one, self.two = self.benches


def works(conn: Connection) -> bool:
    """Whether data goes both ways."""
    position = conn.data_end
    conn.deliver(b"there")
    conn.nodelay().sock.send(b"back")
    return conn.sock.recv(100) == b"there" and conn.doorbells("snd")[-1] >= 4 and conn.data_end == position + 5


def new_connection_works(bench: Bench) -> bool:
    conn = bench.connected(1000)
    return works(conn)


def error_of(sock: Socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def callouts(stack: Stack) -> int:
    """Callouts that will still be called."""
    return sum(callout.function is not None for _, _, callout in stack._callouts)


def resolving(bench: Bench) -> Connection:
    sock = bench.socket()
    sock.connect_ex((bench.peer_ip, 80))
    return Connection(bench, sock, bench.device.last(Opcode.PROVISION)["tid"])


def reach(bench: Bench, *reports: dict[str, int], shut: int = -1) -> Connection:
    """An established connection after these events; the user shuts down before the one numbered ``shut``."""
    conn = bench.connected()
    for n, report in enumerate(reports):
        if n == shut:
            conn.sock.shutdown(socket.SHUT_WR)
        conn.report(**report)
    return conn


FIN = {"peer_closed": 1}
CASES: dict[str, tuple[Callable[[Bench], Connection], int]] = {
    "resolving": (resolving, errno.ENETDOWN),
    "syn_sent": (Bench.opening, errno.ENETDOWN),
    "established": (Bench.connected, errno.ECONNABORTED),
    "close_wait": (lambda b: reach(b, {**FIN, "state": State.CLOSE_WAIT}), errno.ECONNABORTED),
    "fin_wait_1": (lambda b: reach(b, {"state": State.FIN_WAIT_1}, shut=0), errno.ECONNABORTED),
    "fin_wait_2": (lambda b: reach(b, {"state": State.FIN_WAIT_2}, shut=0), errno.ECONNABORTED),
    "closing": (lambda b: reach(b, {**FIN, "state": State.CLOSING}, shut=0), errno.ECONNABORTED),
    "last_ack": (
        lambda b: reach(b, {**FIN, "state": State.CLOSE_WAIT}, {"state": State.LAST_ACK}, shut=1),
        errno.ECONNABORTED,
    ),
    "time_wait": (lambda b: reach(b, {"state": State.FIN_WAIT_2}, {**FIN, "state": State.TIME_WAIT}, shut=0), 0),
}


def pull(bench: Bench) -> None:
    """The card is pulled; somebody asks for it."""
    bench.device.pulled = True
    assert not bench.dev.alive()


WAYS: dict[str, Callable[[Bench], None]] = {"detach": lambda bench: bench.dev.detach(), "pull": pull}


def every_event(device: FakeDevice, tid: int) -> None:
    """What an engine could possibly still say."""
    for state in State:
        device.event(EventType.CONNECTION, tid=tid, state=state, established=1, rcv_position=50, snd_una_position=5)
        device.event(EventType.CONNECTION, tid=tid, state=state, terminal=1, reason=Reason.PEER_RESET)
    for ref in range(4):
        device.event(EventType.SYN_RECEIVED, syncache_ref=ref, lport=80, laddr=parse_ipv4(OUR_IP), faddr=9, fport=9)
        device.event(EventType.CONNECTION, tid=tid, syncache_ref=ref, established=1)
        device.event(EventType.SYNCACHE_GONE, syncache_ref=ref)
    for opcode in Opcode:
        for tag in range(20):
            device.event(EventType.COMMAND_DONE, opcode=opcode, tag=tag, argument=tid)
    device.frame(arp_reply())


def contents(tp: tcpcb) -> list[object]:
    return [getattr(tp, field.name) for field in fields(tcpcb)]


def answering(bench: Bench, delay: int = 0) -> None:
    """An engine that ends connections on ABORT and tells so."""

    def answer(command: dict[str, int]) -> int | None:
        if command["op"] == Opcode.ABORT:
            tid = command["tid"]
            bench.device.script.append(
                lambda: bench.device.event(
                    EventType.CONNECTION, tid=tid, terminal=1, reason=Reason.LOCAL_ABORT, established=1
                )
            )
        return FakeDevice.default_answer(command)

    bench.device.answer = answer
