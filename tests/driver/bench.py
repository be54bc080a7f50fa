"""A driver attached to the scripted device, and the device's side of one connection as a test drives it."""

from __future__ import annotations

import socket
from typing import Any

from tests.driver.fake_device import FakeDevice
from tiptoe_driver import EngineOptions, Socket, Stack, Tiptoe
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.hardware.toepcb import TP_STOCK, toepcb
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_driver.netinet.structures import sototcpcb, tcpcb
from tiptoe_driver.netinet.tcp_info import tcp_info
from tiptoe_hdl.host.abi import EventType, Opcode

OUR_IP, OUR_MAC = "10.0.0.1", "02:00:00:00:00:01"
PEER_IP, PEER_MAC = "10.0.0.2", "02:00:00:00:00:02"
M = 0xFFFF_FFFF


def arp_reply(ip: str = PEER_IP, mac: str = PEER_MAC, our_ip: str = OUR_IP) -> bytes:
    """The peer's answer to our ARP request."""
    ours, theirs = (bytes.fromhex(text.replace(":", "")) for text in (OUR_MAC, mac))
    return (
        ours
        + theirs
        + bytes.fromhex("08060001080006040002")
        + theirs
        + parse_ipv4(ip).to_bytes(4)
        + ours
        + parse_ipv4(our_ip).to_bytes(4)
    )


class Bench:
    """Stack, driver and scripted device. Further benches may share a stack, each with addresses of its own."""

    def __init__(
        self,
        device: FakeDevice | None = None,
        *,
        gateway: str = "10.0.0.254",
        stack: Stack | None = None,
        ip: str = OUR_IP,
        peer_ip: str = PEER_IP,
        **options: Any,
    ) -> None:
        options = {
            "snd_ring_bytes": 4096,
            "rcv_ring_bytes": 4096,
            "frame_slots": 8,
            "frame_buffers": 8,
            "seed": 1,
            "watchdog_us": 0,
            **options,
        }
        self.device = device or FakeDevice()
        self.stack = stack or Stack()
        self.accepted: list[Connection] = []
        self.ip, self.peer_ip = ip, peer_ip
        self.dev = Tiptoe(
            self.stack, self.device, address=ip + "/24", mac=OUR_MAC, gateway=gateway, options=EngineOptions(**options)
        )

    def know_peer(self) -> None:
        """Let ARP know the peer."""
        reply = arp_reply(self.peer_ip, our_ip=self.ip)
        request = reply[:20] + b"\0\1" + reply[22:]
        self.device.frame(request)
        self.stack.poll()
        self.device.forget()

    def socket(self) -> Socket:
        """A non-blocking socket."""
        sock = Socket(self.stack)
        sock.setblocking(False)
        return sock

    def opening(self, port: int = 80) -> Connection:
        """An active open whose OPEN is on the device, unanswered."""
        if self.dev.hostif.arp.lookup(parse_ipv4(self.peer_ip)) is None:
            self.know_peer()
        sock = self.socket()
        sock.connect_ex((self.peer_ip, port))
        return Connection(self, sock, self.device.last(Opcode.OPEN)["tid"])

    def connected(self, port: int = 80) -> Connection:
        """An established connection; the device's records are empty."""
        conn = self.opening(port)
        conn.report(established=1, state=State.ESTABLISHED)
        self.device.forget()
        return conn

    def listening(self, port: int = 80, backlog: int = 5) -> Socket:
        """A listening socket."""
        sock = self.socket()
        sock.bind(("", port))
        sock.listen(backlog)
        return sock

    def syn(self, ref: int, fport: int = 5000, port: int = 80, listener: int | None = None) -> None:
        """The device has answered a SYN from the peer."""
        if listener is None:
            listener = next(n for n, lctx in enumerate(self.dev.passive.listeners) if lctx and lctx.lport == port)
        self.device.event(
            EventType.SYN_RECEIVED,
            syncache_ref=ref,
            listener=listener,
            faddr=parse_ipv4(self.peer_ip),
            laddr=parse_ipv4(self.ip),
            fport=fport,
            lport=port,
            iss=1000,
            irs=2000,
            mss=1460,
        )
        self.stack.poll()

    def handshake_done(self, ref: int, **values: int) -> Connection:
        """The last ACK of a half-open connection came: an id of the stock is in use."""
        tid = next(toep.tid for toep in self.dev.engine.ids.toepcbs if toep is not None and toep.flags & TP_STOCK)
        conn = Connection(self, None, tid)
        conn.syncache_ref = ref
        self.accepted.append(conn)
        conn.report(**{"established": 1, "state": State.ESTABLISHED, **values})
        return conn


class Connection:
    """The device's side of one connection: each ``report`` is a snapshot, as the engine would write it."""

    def __init__(self, bench: Bench, sock: Socket | None, tid: int) -> None:
        self.bench = bench
        self.sock_or_none = sock
        self.tid = tid
        self.syncache_ref = 0
        self.start = 0
        self.data_end = 0
        self.state: dict[str, int] = {
            "iss": 1000,
            "irs": 2000,
            "mss": 1460,
            "state": State.SYN_SENT,
            "snd_una_position": 0,
        }

    @property
    def sock(self) -> Socket:
        assert self.sock_or_none is not None
        return self.sock_or_none

    def nodelay(self) -> Connection:
        """Have every write told at once, whatever is under way."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    @property
    def so(self) -> Any:
        """The struct socket."""
        assert self.sock.so is not None
        return self.sock.so

    @property
    def tp(self) -> tcpcb:
        return sototcpcb(self.so)

    @property
    def toep(self) -> toepcb:
        toep = self.bench.dev.engine.ids.toepcbs[self.tid & 0xFFFF]
        assert toep is not None
        return toep

    def report(self, *, poll: bool = True, **changes: int) -> None:
        """Write a snapshot with these changes since the last one, and have the driver see it."""
        self.state.update(changes)
        self.bench.device.event(
            EventType.CONNECTION,
            tid=self.tid,
            syncache_ref=self.syncache_ref,
            rcv_position=(self.data_end + self.state.get("peer_closed", 0)) & M,
            **self.state,
        )
        if poll:
            self.bench.stack.poll()

    def deliver(self, data: bytes, **changes: int) -> None:
        """Payload arrives in the receive ring."""
        self.toep.rings.rcv.write(self.data_end, data)
        self.data_end = (self.data_end + len(data)) & M
        self.report(**changes)

    def ack(self, position: int, **changes: int) -> None:
        """The peer acknowledges up to ``position``."""
        self.report(snd_una_position=position & M, **changes)

    def end(self, reason: Reason = Reason.NORMAL, **changes: int) -> None:
        """The terminal event."""
        self.report(**{"terminal": 1, "reason": reason, "state": State.CLOSED, **changes})

    def rebase(self, position: int) -> None:
        """Pretend that 2**32 - ... bytes have gone both ways already: every position is ``position``."""
        toep, so = self.toep, self.so
        assert so.so_snd.sb_cc == so.so_rcv.sb_cc == 0
        toep.snd_told = toep.snd_una = toep.rcv_position = toep.rcv_credited = position
        so.so_snd.head = so.so_rcv.head = position
        self.data_end = position
        self.state["snd_una_position"] = position

    def commands(self, *ops: Opcode) -> list[dict[str, Any]]:
        """Commands for this connection among those recorded."""
        return [c for c in self.bench.device.ops(*ops) if c.get("tid") == self.tid]

    def doorbells(self, which: str) -> list[int]:
        """Positions rung for this connection."""
        return [
            position
            for tep_id, kind, position in self.bench.device.doorbells
            if tep_id == self.tid & 0xFFFF and kind == which
        ]

    def send_ring(self, position: int, length: int) -> bytes:
        """What lies in the send ring."""
        buffer = bytearray(length)
        self.toep.rings.snd.read_into(position, memoryview(buffer))
        return bytes(buffer)


class SoftwareStack:
    """Test double of a software TCP: remembers what it was asked for."""

    def __init__(self, stack: Stack) -> None:
        self.outputs: list[tcpcb] = []
        self.listening: list[tcpcb] = []
        self.options: list[tuple[tcpcb, int, int]] = []
        self.info: tcp_info | None = None
        self.refusal = 0
        stack.software = self

    def output(self, tp: tcpcb) -> int:
        self.outputs.append(tp)
        return 0

    def listen(self, tp: tcpcb) -> int:
        if not self.refusal:
            self.listening.append(tp)
        return self.refusal

    def close(self, tp: tcpcb) -> None:
        if tp in self.listening:
            self.listening.remove(tp)

    def ctloutput(self, tp: tcpcb, level: int, name: int) -> None:
        self.options.append((tp, level, name))

    def tcp_info(self, tp: tcpcb) -> tcp_info | None:
        return self.info
