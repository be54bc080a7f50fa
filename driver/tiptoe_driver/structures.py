"""The stack's structures with FreeBSD's names: socket, inpcb, tcpcb; the driver's toepcb; interfaces.

IPv4 addresses are integers with the first byte on the wire in the highest bits, MAC addresses likewise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .abi_gen import Congestion, State
from .locks import Lock, Rank
from .memory import RingPair
from .sockbuf import sockbuf

if TYPE_CHECKING:
    from .offload import toe_usrreqs, toedev
    from .stack import Callout, Stack
    from .tcp_timewait import tcptw

TCPS_CLOSED = State.CLOSED
TCPS_LISTEN = State.LISTEN
TCPS_SYN_SENT = State.SYN_SENT
TCPS_SYN_RECEIVED = State.SYN_RECEIVED
TCPS_ESTABLISHED = State.ESTABLISHED
TCPS_CLOSE_WAIT = State.CLOSE_WAIT
TCPS_FIN_WAIT_1 = State.FIN_WAIT_1
TCPS_CLOSING = State.CLOSING
TCPS_LAST_ACK = State.LAST_ACK
TCPS_FIN_WAIT_2 = State.FIN_WAIT_2
TCPS_TIME_WAIT = State.TIME_WAIT
# The order of the states carries meaning, as in tcp_fsm.h: TCPS_HAVERCVDSYN is t_state >= TCPS_SYN_RECEIVED.

# t_flags
TF_NODELAY = 0x000004
TF_SENTFIN = 0x000010
TF_REQ_SCALE = 0x000020
TF_RCVD_SCALE = 0x000040
TF_NEEDFIN = 0x000800
TF_MORETOCOME = 0x010000
TF_TOE = 0x4000000

# so_options
SO_ACCEPTCONN = 0x0002
SO_REUSEADDR = 0x0004
SO_KEEPALIVE = 0x0008
SO_LINGER = 0x0080
SO_OOBINLINE = 0x0100
SO_NO_OFFLOAD = 0x4000

# so_state
SS_NOFDREF = 0x0001
SS_ISCONNECTED = 0x0002
SS_ISCONNECTING = 0x0004
SS_ISDISCONNECTING = 0x0008
SS_NBIO = 0x0100
SS_ISDISCONNECTED = 0x2000
SS_PROTOREF = 0x4000

# inp_flags
INP_TIMEWAIT = 0x01000000
INP_DROPPED = 0x04000000
INP_SOCKREF = 0x08000000

IFCAP_TOE = 0x4000
IPDEFTTL = 64

FourTuple = tuple[int, int, int, int]
"""Local address and port, foreign address and port."""


@dataclass(slots=True, eq=False)
class ifnet:
    """A network interface.

    Attributes
    ----------
    if_addr, if_prefix : int
        Own IPv4 address and the length of its subnet's prefix in bits.
    if_lladdr : int
        Own MAC address.
    if_mtu : int
        Longest IP packet in bytes.
    if_capabilities, if_capenable : int
        What it can do and what of it is switched on: IFCAP_TOE.
    if_up : bool
        Link state.
    if_running : bool
        IFF_DRV_RUNNING: the device works; False while it is stopped, or gone.
    if_toedev : toedev or None
        Its offload device.
    """

    if_xname: str
    if_addr: int
    if_prefix: int
    if_lladdr: int
    if_mtu: int = 1500
    if_capabilities: int = 0
    if_capenable: int = 0
    if_up: bool = True
    if_toedev: toedev | None = None
    if_running: bool = True


@dataclass(slots=True, eq=False)
class socket:
    """FreeBSD's struct socket, as far as TCP needs it.

    ``so_timeo`` counts the wakeups of a close that lingers. ``so_comp`` holds connections ready for accept.
    ``so_upcall`` is called after every change that may make the socket ready. ``so_lent`` are rings in the application's
    buffers, for the connection to come.
    """

    lock: Lock
    so_snd: sockbuf
    so_rcv: sockbuf
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


@dataclass(slots=True, eq=False)
class inpcb:
    """Internet protocol control block: the four-tuple and what belongs to it. Ports in host order. ``inp_tw``: the stack keeps
    its TIME_WAIT."""

    lock: Lock
    stack: Stack
    inp_socket: socket | None = None
    inp_ppcb: tcpcb | None = None
    inp_laddr: int = 0
    inp_faddr: int = 0
    inp_lport: int = 0
    inp_fport: int = 0
    inp_ip_tos: int = 0
    inp_ip_ttl: int = IPDEFTTL
    inp_flags: int = 0
    inp_tw: tcptw | None = None

    @property
    def four_tuple(self) -> tuple[int, int, int, int]:
        """Local address and port, foreign address and port."""
        return self.inp_laddr, self.inp_lport, self.inp_faddr, self.inp_fport


@dataclass(slots=True, eq=False)
class tcpcb:
    """TCP control block. The stack moves ``t_state`` on user calls, the driver on events of the device.

    Sequence numbers are modulo 2**32. ``iss`` and ``irs`` are the SYNs' own numbers; the first data byte follows.
    ``snd_una`` leaves out our FIN; ``snd_nxt`` and ``snd_max`` tell how far data was handed to the device, which
    alone knows what of it is on the wire; ``rcv_nxt`` counts the peer's FIN once. ``t_maxseg`` in bytes of
    payload; ``t_maxseg_user`` is the user's wish (TCP_MAXSEG), 0 for none. ``t_cc`` is the congestion control algorithm,
    ``tod`` the device of an offloaded connection. ``t_starttime``: when it was established, on the stack's clock in
    microseconds; 0 before.
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
    snd_up: int = 0
    rcv_nxt: int = 0
    rcv_wnd: int = 0
    rcv_adv: int = 0
    t_maxseg: int = 536
    t_maxseg_user: int = 0
    t_cc: Congestion = Congestion.NEWRENO
    t_starttime: int = 0
    snd_scale: int = 0
    rcv_scale: int = 0
    ts_recent: int = 0


# toepcb flags
TP_ATTACHED = 0x01  # a tcpcb refers to it
TP_EVENTS_PENDING = 0x02  # the device may still send events: from OPEN or accept until the terminal event
TP_SEND_FIN = 0x04  # the user has closed the send side
TP_FIN_SENT = 0x08  # CLOSE was posted
TP_ABORT_SENT = 0x10  # ABORT was posted
TP_ESTABLISHED = 0x20  # the device said so
TP_PEER_CLOSED = 0x40  # the peer's FIN has arrived, and all data before it
TP_STOCK = 0x80  # in stock for passive opens
TP_FIN_WAIT_2 = 0x4000  # its time in FIN_WAIT_2 is limited
TP_RELEASING = 0x100  # RELEASE was posted
TP_RESOLVING = 0x200  # OPEN waits for the next hop's MAC address
TP_READY = 0x400  # provisioned for an active open
TP_TERMINAL = 0x800  # the terminal event has come, or OPEN failed: nothing is written for it any more
TP_BAD_DOORBELL = 0x1000  # the engine has complained of a doorbell
TP_TIME_WAIT = 0x8000  # its TIME_WAIT is for the stack to keep


@dataclass(slots=True, eq=False)
class toepcb:
    """The driver's side of one connection id, from PROVISION to the end of RELEASE.

    Attributes
    ----------
    tep_id, generation : int
        Connection id, and the generation that tells its uses apart.
    flags : int
        TP_*; the id is released when ATTACHED and EVENTS_PENDING are both clear.
    rings : RingPair
        The rings the engine was given.
    four_tuple : tuple
        Local address and port, foreign address and port; RELEASE names it.
    snd_told : int
        Send position last handed to the device, by doorbell or CLOSE.
    snd_una : int
        Send position acknowledged by the peer.
    rcv_position : int
        Receive position up to which data has arrived; the peer's FIN is not counted.
    rcv_credited : int
        Receive position last handed back to the device: consumed up to here.
    maxseg : int
        Segment size in bytes of payload that the device was told, or told itself.
    credits : int
        Bytes of receive window returned to the device since the connection began (it does not wrap).
    refcount : int
        References held: by the tcpcb and by what is pending on the device.
    fin_wait_2 : Callout or None
        Ends a connection that nobody reads and whose peer does not close.
    """

    tep_id: int
    generation: int
    rings: RingPair
    flags: int = 0
    refcount: int = 0
    tp: tcpcb | None = None
    four_tuple: tuple[int, int, int, int] = (0, 0, 0, 0)
    snd_told: int = 0
    snd_una: int = 0
    rcv_position: int = 0
    rcv_credited: int = 0
    maxseg: int = 0
    credits: int = 0
    fin_wait_2: Callout | None = None

    @property
    def tid(self) -> int:
        """Id and generation as commands and events carry them."""
        return self.tep_id | self.generation << 16


def new_inpcb(stack: Stack, so: socket) -> inpcb:
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
