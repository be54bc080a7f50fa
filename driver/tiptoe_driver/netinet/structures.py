"""The stack's structures with FreeBSD's names, those that point at each other: socket, inpcb, tcpcb, the offload device as
tcp_offload.h declares it, and what one instance of the stack shares.

Addresses are integers with the first byte on the wire in the highest bits, MAC addresses likewise; those of IPv6 are greater
than any of IPv4. 0 is any address, of the version that ``inp_vflag`` says.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import AF_INET
from typing import Any, NamedTuple, Protocol

from ..hardware.abi_gen import Congestion, State
from ..hardware.memory import RingPair
from ..hardware.toepcb import toepcb
from .clock import Clock, Deadline
from .eventhandler import EventHandlerList
from .if_var import ifnet
from .locks import Lock, LockModel, Rank
from .mtup import mtup
from .pcbinfo import FourTuple, inpcbinfo
from .routes import RouteTable, route
from .sockbuf import sockbuf
from .tcp_fsm import TCPS_CLOSED
from .tcp_info import NO_PACING_RATE, tcp_info

# t_flags
TF_NODELAY = 0x000004
TF_SENTFIN = 0x000010
TF_REQ_SCALE = 0x000020
TF_RCVD_SCALE = 0x000040
TF_REQ_TSTMP = 0x000080
TF_RCVD_TSTMP = 0x000100
TF_NEEDFIN = 0x000800
TF_NOPUSH = 0x001000
TF_MORETOCOME = 0x010000
TF_TOE = 0x4000000

# t_oobflags
TCPOOB_HAVEDATA = 0x01
TCPOOB_HADDATA = 0x02

# so_options
SO_ACCEPTCONN = 0x0002
SO_REUSEADDR = 0x0004
SO_KEEPALIVE = 0x0008
SO_LINGER = 0x0080
SO_OOBINLINE = 0x0100
SO_NO_OFFLOAD = 0x4000

SO_MAX_PACING_RATE = 47
"""Of Linux; the standard library does not name it."""

# so_state
SS_NOFDREF = 0x0001
SS_ISCONNECTED = 0x0002
SS_ISCONNECTING = 0x0004
SS_ISDISCONNECTING = 0x0008
SS_NBIO = 0x0100
SS_ISDISCONNECTED = 0x2000
SS_PROTOREF = 0x4000

# inp_vflag
INP_IPV4 = 0x1
INP_IPV6 = 0x2

# inp_flags
IN6P_IPV6_V6ONLY = 0x00008000
INP_TIMEWAIT = 0x01000000
INP_SOCKREF = 0x08000000

IPDEFTTL = 64

IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU = 10, 14, 23, 24
"""Linux's numbers; the standard library has no names for them."""
IP_PMTUDISC_WANT, IP_PMTUDISC_DO, IP_PMTUDISC_PROBE = 1, 2, 3
"""Values of IP_MTU_DISCOVER. To TCP the first two are the same; with the last it does not believe ICMP, and finds out by itself.
Our segments always have DF: IP_PMTUDISC_DONT, 0, there is not."""

TCPTV_KEEP_IDLE, TCPTV_KEEPINTVL, TCPTV_KEEPCNT = 7200, 75, 9
"""What keep-alive begins with, seconds and probes: no less than two hours (RFC 9293 MUST-28), and Linux's number."""


@dataclass(slots=True, eq=False)
class socket:
    """FreeBSD's struct socket, as far as TCP needs it.

    ``so_domain``: AF_INET or AF_INET6, the family of its names. ``so_timeo`` counts the wakeups of a close that lingers.
    ``so_comp`` holds connections ready for accept.
    ``so_upcall`` is called after every change that may make the socket ready, ``so_urgcall`` when the peer has sent urgent data
    (SIGURG), which may be yet to come. ``so_lent`` are rings in the application's
    buffers, for the connection to come.
    """

    lock: Lock
    so_snd: sockbuf
    so_rcv: sockbuf
    so_domain: int = AF_INET
    so_state: int = 0
    so_options: int = 0
    so_linger: int = 0
    so_error: int = 0
    so_timeo: int = 0
    so_qlimit: int = 0
    so_comp: deque[socket] = field(default_factory=deque)
    so_incomp: deque[socket] = field(default_factory=deque)
    so_head: socket | None = None
    so_pcb: inpcb | None = None
    so_rings: RingPair | None = None
    so_lent: RingPair | None = None
    so_upcall: Callable[[socket], None] | None = None
    so_urgcall: Callable[[socket], None] | None = None


@dataclass(slots=True, eq=False)
class inpcb:
    """Internet protocol control block: the four-tuple and what belongs to it. Ports in host order. ``inp_vflag``: the version of
    IP; a socket of AF_INET6 without IN6P_IPV6_V6ONLY has both until an address decides. ``inp_tw``: the tcptw
    (tcp_timewait.py) when the stack keeps its TIME_WAIT."""

    lock: Lock
    stack: vnet
    inp_socket: socket | None = None
    inp_ppcb: tcpcb | None = None
    inp_laddr: int = 0
    inp_faddr: int = 0
    inp_lport: int = 0
    inp_fport: int = 0
    inp_ip_tos: int = 0
    inp_ip_ttl: int = IPDEFTTL
    inp_pmtudisc: int = IP_PMTUDISC_WANT
    inp_flags: int = 0
    inp_vflag: int = INP_IPV4
    inp_tw: object | None = None

    @property
    def four_tuple(self) -> FourTuple:
        """Local address and port, foreign address and port."""
        return self.inp_laddr, self.inp_lport, self.inp_faddr, self.inp_fport


@dataclass(slots=True, eq=False)
class tcpcb:
    """TCP control block. The stack moves ``t_state`` on user calls, the driver on events of the device.

    Sequence numbers are modulo 2**32. ``iss`` and ``irs`` are the SYNs' own numbers; the first data byte follows.
    ``snd_una`` leaves out our FIN; ``snd_nxt`` and ``snd_max`` tell how far data was handed to the device, which alone knows
    what of it is on the wire, ``snd_sml`` where the last part of it ended that filled no segment; ``rcv_nxt`` counts the
    peer's FIN once. ``t_maxseg`` in bytes of payload; ``t_maxseg_user`` is the user's wish (TCP_MAXSEG), 0 for none;
    ``t_maxseg_most`` what held before the path carried less, and ``t_pmtu_timer`` tries for it again, or, behind a black
    hole, the search ``t_mtup``. ``t_cc`` is the congestion control algorithm asked for, None for none; ``tod`` the device of
    an offloaded connection. ``t_starttime``: when it was established, on the stack's clock in microseconds; 0 before.
    ``t_user_timeout``: TCP_USER_TIMEOUT in milliseconds, 0 for none; ``t_user_timer`` runs while the peer has something to
    acknowledge. ``t_keepidle``, ``t_keepintvl``: TCP_KEEPIDLE and TCP_KEEPINTVL in seconds, ``t_keepcnt``: TCP_KEEPCNT;
    ``t_keep_timer`` runs while SO_KEEPALIVE is set; ``t_rcvtime``: when the peer was last heard of, meanwhile;
    ``t_keepprobes``: how many probes have gone since, ``t_keep_asked``: when the last of them did. ``snd_up`` and ``rcv_up``
    are behind the last urgent byte of each direction; ``t_iobc`` is the peer's, when TCPOOB_HAVEDATA says that it has
    arrived. ``t_max_pacing_rate``: SO_MAX_PACING_RATE in bytes per second.
    """

    t_inpcb: inpcb
    t_state: State = TCPS_CLOSED
    t_flags: int = 0
    t_toe: toepcb | None = None
    t_tu: toe_usrreqs | None = None
    tod: toedev | None = None
    t_softerror: int = 0
    iss: int = 0
    irs: int = 0
    snd_una: int = 0
    snd_nxt: int = 0
    snd_max: int = 0
    snd_sml: int = 0
    snd_up: int = 0
    rcv_up: int = 0
    t_oobflags: int = 0
    t_iobc: bytes = b""
    rcv_nxt: int = 0
    rcv_wnd: int = 0
    rcv_adv: int = 0
    t_maxseg: int = 536
    t_maxseg_user: int = 0
    t_maxseg_most: int = 0
    t_pmtu_timer: Deadline | None = None
    t_mtup: mtup | None = None
    t_cc: Congestion | None = None
    t_starttime: int = 0
    t_user_timeout: int = 0
    t_max_pacing_rate: int = NO_PACING_RATE
    t_user_timer: Deadline | None = None
    t_keepidle: int = TCPTV_KEEP_IDLE
    t_keepintvl: int = TCPTV_KEEPINTVL
    t_keepcnt: int = TCPTV_KEEPCNT
    t_keep_timer: Deadline | None = None
    t_rcvtime: int = 0
    t_keepprobes: int = 0
    t_keep_asked: int = 0
    snd_scale: int = 0
    rcv_scale: int = 0
    ts_recent: int = 0


class sockaddr_in(NamedTuple):
    """Address (first byte in the highest bits) of either version, and port."""

    sin_addr: int
    sin_port: int


@dataclass(frozen=True, slots=True)
class toe_usrreqs:
    """The calls of an offload device. Those that return an int return an errno, 0 for success.

    ``tu_syncache_event`` gets TOE_SC_* and the context that the device gave to syncache_add.
    """

    tu_send: Callable[[tcpcb], int]
    tu_rcvd: Callable[[tcpcb], int]
    tu_disconnect: Callable[[tcpcb], int]
    tu_reset: Callable[[tcpcb], int]
    tu_detach: Callable[[tcpcb], None]
    tu_syncache_event: Callable[[int, Any], None]


class toedev(ABC):
    """An offload device as the stack sees it."""

    tod_ifp: ifnet
    tod_usrreqs: toe_usrreqs

    @abstractmethod
    def tod_connect(self, so: socket, ro: route, nam: sockaddr_in) -> int:
        """Begin an active open; returns an errno, and leaves no trace when that is not 0. The inpcb lock is held."""

    @abstractmethod
    def tod_ctloutput(self, tp: tcpcb, level: int, name: int) -> None:
        """An option of an offloaded connection was set (levels and names of the standard library). I is held."""

    @abstractmethod
    def tod_tcp_info(self, tp: tcpcb, answer: Callable[[tcp_info | None], None]) -> int:
        """Ask for what the device knows of an offloaded connection; ``answer`` gets it later, or None when it is over. I
        is held.

        Returns an errno: EPERM when the device has no such connection, ENOBUFS when it cannot be asked now.
        """

    def tod_keepalive(self, tp: tcpcb) -> int:
        """Send a keep-alive probe (RFC 9293 section 3.8.4). I is held. Returns an errno: ENOBUFS when it cannot be told so
        now, EPERM when it has no such connection, EOPNOTSUPP when it can do no such thing."""
        return errno.EOPNOTSUPP

    def tod_cwnd(self, tp: tcpcb, cwnd: int, ssthresh: int) -> int:
        """Congestion window and slow-start threshold in bytes, of a connection whose algorithm ("host") leaves them to us. I is
        held. Returns an errno, as ``tod_keepalive``."""
        return errno.EOPNOTSUPP

    def tod_unanswered(self, tp: tcpcb, answer: Callable[[int | None], None]) -> int:
        """Ask whether the peer was heard of since the last probe; ``answer`` gets 0 if so, later, or None when the connection
        is over. I is held. Returns an errno, as ``tod_keepalive``."""
        return errno.EOPNOTSUPP

    @abstractmethod
    def tod_congestion(self, algorithm: int) -> bool:
        """Whether the device has this congestion control algorithm (CAP-2)."""

    @abstractmethod
    def tod_four_tuple_busy(self, four_tuple: FourTuple) -> bool:
        """Whether the device still has a connection (closing, in TIME_WAIT) with this four-tuple."""

    @abstractmethod
    def tod_capability(self, enable: bool) -> None:
        """IFCAP_TOE was switched on or off: listeners come or go, connections stay."""


class SoftwareTcp(Protocol):
    """A software TCP, installed as ``vnet.software``: it carries the connections that are not offloaded."""

    def output(self, tp: tcpcb) -> int:
        """tcp_output. SYN_SENT: open the connection, if it is new; CLOSED: RST; else take what is in so_snd, send the FIN
        behind it when the state says so, and note that so_rcv may have room. I is held. Returns an errno."""

    def listen(self, tp: tcpcb) -> int:
        """``tp`` listens, offloaded or not: SYNs that no device takes are for the software. P and I are held. Returns an
        errno; called again for a new backlog."""

    def close(self, tp: tcpcb) -> None:
        """``tp`` is over or its socket goes away: forget it. One that is not known is ignored. P and I are held."""

    def ctloutput(self, tp: tcpcb, level: int, name: int) -> None:
        """An option was set (levels and names of the standard library). One that is not known is ignored. I is held."""

    def tcp_info(self, tp: tcpcb) -> tcp_info | None:
        """What it knows of a connection of its own; None of any other."""


class TimeWaits(Protocol):
    """Who keeps TIME_WAIT for the stack."""

    def find(self, four_tuple: FourTuple) -> object | None:
        """What is left of a connection with this four-tuple, if anything is."""


class vnet(Clock):
    """What everything in one instance of the stack shares (in FreeBSD the variables V_tcbinfo, V_ifnet and so on).

    Attributes
    ----------
    offload_disabled : bool
        TCP_OFFLOAD_DISABLE: no connection is offloaded, no device is told of listeners.
    sendspace, recvspace : int
        Socket buffer sizes in bytes before a connection has its rings.
    software : SoftwareTcp or None
        The software TCP, for connections that are not offloaded; None: there is none.
    congestion : Congestion
        What sockets have that ask for none: the default of the device that was attached last.
    """

    time_wait: TimeWaits

    def __init__(self, offload_disabled: bool, sendspace: int, recvspace: int, seed: int | None) -> None:
        super().__init__()
        self.offload_disabled = offload_disabled
        self.sendspace = sendspace
        self.recvspace = recvspace
        self.locks = LockModel()
        self.tcbinfo: inpcbinfo[inpcb] = inpcbinfo(self.locks, seed)
        self.routes = RouteTable()
        self.interfaces: list[ifnet] = []
        self.tcp_offload_listen_start = EventHandlerList()
        self.tcp_offload_listen_stop = EventHandlerList()
        self.software: SoftwareTcp | None = None
        self.congestion = Congestion.NEWRENO


def tcp_congestion(tp: tcpcb) -> Congestion:
    """The congestion control algorithm of a connection."""
    return tp.t_inpcb.stack.congestion if tp.t_cc is None else tp.t_cc


def new_inpcb(stack: vnet, so: socket) -> inpcb:
    """An inpcb with its tcpcb for ``so``."""
    inp = inpcb(Lock(stack.locks, Rank.I), stack, so)
    inp.inp_ppcb = tcpcb(inp)
    so.so_pcb = inp
    return inp


def sotoinpcb(so: socket) -> inpcb:
    """The inpcb of a socket; the socket must have one."""
    if so.so_pcb is None:
        raise ValueError("socket without inpcb")
    return so.so_pcb


def intotcpcb(inp: inpcb) -> tcpcb:
    """The tcpcb of an inpcb."""
    if inp.inp_ppcb is None:
        raise ValueError("inpcb without tcpcb")
    return inp.inp_ppcb


def sototcpcb(so: socket) -> tcpcb:
    """The tcpcb of a socket."""
    return intotcpcb(sotoinpcb(so))
