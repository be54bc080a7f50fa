"""A stand-in for a host's software TCP, in Python, for simulated runs where no kernel is to be had (contract: GEN-1).

It carries the connections that are not offloaded, over the frames that the devices hand to the host, so that the branch of
``tcp_gen_*`` to ``tcp_output`` can be run beside the engine. It is not the engine and proves nothing about it, and it is no
TCP to measure: see connection.py and sender.py for what it leaves out. The real thing is a Linux kernel behind the engine, in
live runs: :class:`tiptoe_verif.live.kernel_tcp.KernelTcp`.

ARP, neighbour discovery, and ICMP of both versions stay with the driver. ICMP errors about connections of the stand-in are
ignored: these end by time-out.
"""

from __future__ import annotations

import errno
import hashlib
from collections import Counter, deque
from collections.abc import Iterator
from functools import partial

from tiptoe_driver import Stack, Tiptoe
from tiptoe_driver.hardware.abi_gen import HOST_FRAME_SLOT_BYTES
from tiptoe_driver.hardware.alias import on_v6
from tiptoe_driver.hardware.positions import advance
from tiptoe_driver.netinet.sockbuf import sbspace
from tiptoe_driver.netinet.software import sballoc
from tiptoe_driver.netinet.structures import INP_IPV4, INP_IPV6, IPDEFTTL, inpcb, intotcpcb, tcpcb
from tiptoe_driver.netinet.tcp_fill_info import tcp_fill_info
from tiptoe_driver.netinet.tcp_fsm import TCPS_LISTEN, TCPS_SYN_SENT, TCPS_TIME_WAIT
from tiptoe_driver.netinet.tcp_info import tcp_info
from tiptoe_driver.netinet.tcp_subr import tcp_close, tcp_drop

from ..wire.segment import ACK, HEADER, IPV4, IPV6, IPV6_HEADER, RST, SYN, TCP, Malformed, Segment, pack_tcp, parse_tcp
from .connection import Connection, ahead
from .listen import FourTuple, PassiveOpens, answer

RESETS_A_SECOND = 200
"""RSTs that answer segments; more are dropped (FreeBSD's net.inet.icmp.icmplim)."""
_LOOPBACK_US = 1
IPV4_HEADER, TCP_HEADER = 20, 20


class StandInTcp:
    """A SoftwareTcp for simulated runs without a kernel. It makes itself the stack's ``software``.

    Parameters
    ----------
    stack : Stack
        Whose connections it carries when they are not offloaded.
    toes : Tiptoe
        Devices whose frames of nobody it gets; see :meth:`serve`.
    seed : int
        Of the initial sequence numbers (RFC 6528).

    Attributes
    ----------
    rto_us : int
        Time to the first retransmission of anything, in microseconds; it doubles with each.
    msl_us, fin_wait_2_us : int
        Maximum segment lifetime, and how long a connection that nobody reads waits for the peer's FIN.
    orphan_us : int
        How long a closed one goes on, from its next time-out, while the peer acknowledges nothing; 0: for ever.
    counters : Counter
        opened, accepted, segments_sent, segments_received, segments_bad (checksum or lengths wrong), segments_unknown
        (answered with RST), segments_offloaded (left to the device), syns_dropped, resets_limited, retransmissions, timeouts,
        orphans_reset, unroutable.
    """

    def __init__(self, stack: Stack, *toes: Tiptoe, seed: int = 0) -> None:
        self.stack = stack
        self.rto_us = 200_000
        self.msl_us = 30_000_000
        self.fin_wait_2_us = 60_000_000
        self.orphan_us = 60_000_000
        self.counters: Counter[str] = Counter()
        self._key = seed.to_bytes(16, "big", signed=True)
        self._toes: list[Tiptoe] = []
        self._connections: dict[tcpcb, Connection] = {}
        self._passive = PassiveOpens(self)
        self._resets: deque[int] = deque(maxlen=RESETS_A_SECOND)  # their times
        for toe in toes:
            self.serve(toe)
        stack.software = self

    def serve(self, toe: Tiptoe) -> None:
        """Take the TCP segments that are for no connection of this device, and send by its interface."""
        if toe.engine.options.rst_unknown:
            raise ValueError(
                f"{toe.tod_ifp.if_xname} answers segments of nobody itself: set EngineOptions.rst_unknown False"
            )
        self._toes.append(toe)
        toe.hostif.input_hook = self._frame

    def summary(self) -> str:
        """One line for people."""
        counts = self.counters
        return (f"connections that are not offloaded: a software stand-in in Python ({counts['opened']} opened, "
                f"{counts['accepted']} accepted, {counts['segments_sent']} segments sent)")  # fmt: skip

    def __repr__(self) -> str:
        return f"<StandInTcp: {self.summary()}>"

    # ------------------------------------------------------------------ SoftwareTcp

    def output(self, tp: tcpcb) -> int:
        """tcp_output: see :class:`tiptoe_driver.netinet.software.SoftwareTcp`."""
        connection = self._connections.get(tp)
        if connection is not None:
            connection.output()
            return 0
        return self._connect(tp) if tp.t_state == TCPS_SYN_SENT else errno.ENOTCONN

    def listen(self, tp: tcpcb) -> int:
        """Nothing to note: a SYN finds the sockets that listen by their port."""
        return 0

    def close(self, tp: tcpcb) -> None:
        """Forget a connection."""
        connection = self._connections.pop(tp, None)
        if connection is not None:
            connection.end()

    def ctloutput(self, tp: tcpcb, level: int, name: int) -> None:
        """Nothing to do: every segment looks at the options."""

    def tcp_info(self, tp: tcpcb) -> tcp_info | None:
        """What the tcpcb says of one of our connections; there is no round-trip time and no congestion window."""
        return tcp_fill_info(tp) if tp in self._connections else None

    @property
    def idle(self) -> bool:
        """Whether no connection is left, not even a half-open one."""
        return not self._connections and not self._passive.half_open

    def begin(self, tp: tcpcb) -> Connection:
        """Carry a connection from now on."""
        connection = self._connections[tp] = Connection(self, tp)
        return connection

    def _connect(self, tp: tcpcb) -> int:
        inp, so = tp.t_inpcb, tp.t_inpcb.inp_socket
        assert so is not None
        if not self._local(inp.inp_faddr):
            way = self._way(inp.inp_faddr)
            if way is None:
                return errno.ENETUNREACH
            if not way[0].tod_ifp.if_running:
                return errno.ENETDOWN
        sballoc(so, self.stack)
        tp.iss = self.isn(inp.four_tuple)
        tp.t_maxseg = self.own_mss(tp, inp.inp_faddr)
        tp.rcv_wnd = min(sbspace(so.so_rcv), 0xFFFF)
        self.counters["opened"] += 1
        self.begin(tp).open()
        return 0

    # ------------------------------------------------------------------ out

    def isn(self, four_tuple: FourTuple) -> int:
        """RFC 6528: a clock of 4 microseconds, and a keyed hash of the four-tuple."""
        digest = hashlib.blake2b(repr(four_tuple).encode(), digest_size=4, key=self._key).digest()
        return (self.stack.now_us() // 4 + int.from_bytes(digest, "big")) & 0xFFFF_FFFF

    def own_mss(self, tp: tcpcb, peer: int) -> int:
        """Most bytes of payload that we take from ``peer`` and send there, by the interface and the user."""
        way = self._way(peer)
        frame = HOST_FRAME_SLOT_BYTES
        mtu = frame - HEADER
        if way is not None:
            frame = way[0].engine.capabilities.max_frame_bytes
            mtu = way[0].tod_ifp.if_mtu
        most = min(mtu, frame - HEADER) - (IPV6_HEADER if on_v6(peer) else IPV4_HEADER) - TCP_HEADER
        return min(most, tp.t_maxseg_user or most)

    def transmit(self, segment: Segment, tp: tcpcb | None = None) -> None:
        """Send a segment by the interface that leads to its destination; it is lost where there is none.

        ``tp``: its connection, for type of service and time to live, and for the error when the next hop is silent.
        """
        self.counters["segments_sent"] += 1
        if self._local(segment.dst):
            self.stack.callout(_LOOPBACK_US, partial(self._input, segment))
            return
        way = self._way(segment.dst)
        if way is None:
            self.counters["unroutable"] += 1
            return
        toe, next_hop = way
        inp = None if tp is None else tp.t_inpcb
        packet = pack_tcp(segment, tos=inp.inp_ip_tos if inp else 0, ttl=inp.inp_ip_ttl if inp else IPDEFTTL)

        def resolved(mac: int | None) -> None:
            if mac is not None:
                toe.hostif.transmit(mac.to_bytes(6, "big") + toe.tod_ifp.if_lladdr.to_bytes(6, "big")
                                    + (IPV6 if on_v6(segment.dst) else IPV4).to_bytes(2, "big") + packet)  # fmt: skip
            elif tp is not None:
                self._unresolved(tp, errno.EHOSTDOWN if next_hop == segment.dst else errno.EHOSTUNREACH)

        toe.hostif.neighbours(next_hop).resolve(next_hop, resolved)

    def _unresolved(self, tp: tcpcb, error: int) -> None:
        """ARP, or neighbour discovery, has given up: the end of an open, a note for what is established."""
        with self.stack.tcbinfo.lock, tp.t_inpcb.lock:
            tp.t_softerror = error
            if tp in self._connections and tp.t_state == TCPS_SYN_SENT:
                tcp_drop(tp, error)

    def _local(self, address: int) -> bool:
        return any(address in ifp.addresses for ifp in self.stack.interfaces)

    def _way(self, destination: int) -> tuple[Tiptoe, int] | None:
        """The device and the next hop towards an address."""
        ro = self.stack.routes.lookup(destination)
        toe = next((toe for toe in self._toes if ro is not None and toe.tod_ifp is ro.ro_ifp), None)
        return None if ro is None or toe is None else (toe, ro.next_hop(destination))

    def reset(self, segment: Segment) -> None:
        """The RST that answers a segment (RFC 9293 section 3.10.7.1); a RST gets none."""
        if segment.flags & RST:
            return
        now = self.stack.now_us()
        if len(self._resets) == RESETS_A_SECOND and now - self._resets[0] < 1_000_000:
            self.counters["resets_limited"] += 1
            return
        self._resets.append(now)
        seq, ack, flags = segment.ack, 0, RST
        if not segment.flags & ACK:
            seq, ack, flags = 0, advance(segment.seq, segment.length), RST | ACK
        self.transmit(answer(segment, seq, ack, flags))

    # ------------------------------------------------------------------ in

    def _frame(self, frame: bytes) -> bool:
        """HostInterface.input_hook: whether it was TCP for an address of ours."""
        if not self._local(_destination(frame)):
            return False
        try:
            segment = parse_tcp(frame, strict=False)
        except Malformed:
            segment = None
        interfaces = self.stack.interfaces
        if segment is None or frame[0] & 1 or not all(ifp.one_host(segment.src) for ifp in interfaces):
            self.counters["segments_bad"] += 1
        else:
            self._input(segment)
        return True

    def _input(self, segment: Segment) -> None:
        """tcp_input: to the connection, the listening socket, or nobody."""
        self.counters["segments_received"] += 1
        four_tuple = segment.dst, segment.dport, segment.src, segment.sport
        with self.stack.tcbinfo.lock:
            inp = self.stack.tcbinfo.connected(four_tuple)
            connection = self._connections.get(intotcpcb(inp)) if inp is not None else None
            if inp is not None and connection is None:
                self.counters["segments_offloaded"] += 1
                return
            if inp is not None and connection is not None:
                with inp.lock:
                    if not self._begins_anew(connection, segment):
                        connection.input(segment)
                        return
                    tcp_close(connection.tp)
            self._passive.input(four_tuple, segment)

    def _begins_anew(self, connection: Connection, segment: Segment) -> bool:
        """A SYN beyond a connection in TIME_WAIT, for a socket that listens (RFC 9293 section 3.6.1)."""
        return (segment.flags & (SYN | ACK | RST) == SYN and connection.tp.t_state == TCPS_TIME_WAIT
                and ahead(segment.seq, connection.tp.rcv_nxt) > 0
                and self.listener(segment) is not None)  # fmt: skip

    def listener(self, segment: Segment) -> inpcb | None:
        """The socket that listens at the segment's destination; one bound to the address goes first."""

        version = INP_IPV6 if on_v6(segment.dst) else INP_IPV4

        def listeners() -> Iterator[inpcb]:
            for inp in self.stack.tcbinfo:
                if (inp.inp_lport == segment.dport and inp.inp_vflag & version and inp.inp_laddr in (0, segment.dst)
                        and inp.inp_socket is not None and intotcpcb(inp).t_state == TCPS_LISTEN):  # fmt: skip
                    yield inp

        return max(listeners(), key=lambda inp: inp.inp_laddr, default=None)


def _destination(frame: bytes) -> int:
    """Address that a frame's TCP segment is for; 0: it carries none. What has extension headers of IPv6 is none of ours."""
    kind, ip = int.from_bytes(frame[12:14], "big"), frame[HEADER:]
    if kind == IPV4 and len(ip) >= IPV4_HEADER + TCP_HEADER and ip[9] == TCP:
        return int.from_bytes(ip[16:20], "big")
    if kind == IPV6 and len(ip) >= IPV6_HEADER + TCP_HEADER and ip[6] == TCP:
        return int.from_bytes(ip[24:40], "big")
    return 0
