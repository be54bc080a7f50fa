"""The stack's syncache: connections between SYN and the last ACK of the handshake (FreeBSD's tcp_syncache.c).

The engine has its own syncache and answers SYNs by itself; this one is the stack's opinion. The driver enters every
SYN with syncache_add and turns the entry into a socket with syncache_expand when the peer's ACK of our SYN,ACK came.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .clock import Callout
from .in_pcb import in_pcbaccept
from .locks import Lock, Rank
from .offload import TOE_SC_DROP, TOE_SC_ENTRY_PRESENT, tp_offload
from .pcbinfo import INP_DROPPED
from .software import tcp_ended
from .structures import (
    IN6P_IPV6_V6ONLY,
    TF_NODELAY,
    TF_NOPUSH,
    inpcb,
    intotcpcb,
    socket,
    sotoinpcb,
    sototcpcb,
    tcpcb,
    toe_usrreqs,
    vnet,
)
from .tcp_fsm import TCPS_ESTABLISHED, TCPS_LISTEN, TCPS_SYN_RECEIVED
from .tcp_subr import tcp_close
from .uipc_socket import sonewconn

in_conninfo = tuple[int, int, int, int]
"""Local address and port, foreign address and port."""

HASHSIZE = 512
BUCKETLIMIT = 30
EXPIRE_US = 75_000_000
"""Age at which an entry is dropped: TCP's time for establishing a connection."""


@dataclass(slots=True, eq=False)
class syncache:
    """One half-open connection."""

    sc_inc: in_conninfo
    sc_listener: tcpcb
    sc_tu: toe_usrreqs
    sc_toepcb: Any
    sc_timer: Callout | None = None


class Bucket:
    """Entries of one hash value, oldest first, behind their lock B."""

    __slots__ = ("entries", "lock")

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        self.entries: dict[in_conninfo, syncache] = {}


class Syncache:
    """All half-open connections of the stack."""

    def __init__(self, stack: vnet) -> None:
        self._stack = stack
        self._buckets: dict[int, Bucket] = {}
        self.count = 0
        """Entries."""

    def add(self, inc: in_conninfo, listener: socket, tu: toe_usrreqs, toepcb: Any) -> bool:
        """syncache_add: a SYN came for ``listener``. Takes P and I itself.

        Of a four-tuple that is present already the device is told TOE_SC_ENTRY_PRESENT with the *new* ``toepcb``; when
        the bucket is full, the oldest entry is dropped. Returns whether the entry was made.
        """
        inp = listener.so_pcb
        tp = None
        if inp is not None:
            with inp.stack.tcbinfo.lock, inp.lock:
                if intotcpcb(inp).t_state == TCPS_LISTEN and not inp.inp_flags & INP_DROPPED:
                    tp = intotcpcb(inp)
        bucket = self._bucket(inc)
        with bucket.lock:
            if tp is None:
                tu.tu_syncache_event(TOE_SC_DROP, toepcb)
                return False
            if inc in bucket.entries:
                tu.tu_syncache_event(TOE_SC_ENTRY_PRESENT, toepcb)
                return False
            if len(bucket.entries) >= BUCKETLIMIT:
                self._drop(bucket, next(iter(bucket.entries.values())))
            sc = syncache(inc, tp, tu, toepcb)
            sc.sc_timer = self._stack.callout(EXPIRE_US, lambda: self.expire(sc))
            bucket.entries[inc] = sc
            self.count += 1
        return True

    def expand(self, inc: in_conninfo, toepcb: Any, fill: Callable[[tcpcb], None]) -> socket | None:
        """syncache_expand: the handshake of ``toepcb`` is complete. P is held.

        Makes a socket in the listener's accept queue and has ``fill`` complete its tcpcb under its lock. None when the
        entry is gone, is another's, or the listener takes no more: the caller resets the connection. An older connection of
        the four-tuple that the software carries ends with ECONNRESET.
        """
        tcbinfo = self._stack.tcbinfo
        tcbinfo.lock.require()
        bucket = self._bucket(inc)
        with bucket.lock:
            sc = bucket.entries.get(inc)
            if sc is None or sc.sc_toepcb is not toepcb:
                return None
            self._remove(bucket, sc)
        head = sc.sc_listener.t_inpcb.inp_socket
        if head is None or sc.sc_listener.t_state != TCPS_LISTEN:
            return None
        if (old := tcbinfo.connected(inc)) is not None and not self._forgotten(old):
            return None
        so = sonewconn(head, self._stack)
        if so is None:
            return None
        inp = sotoinpcb(so)
        with inp.lock:
            in_pcbaccept(inp, inc)
            tp = sototcpcb(so)
            tp.t_state = TCPS_SYN_RECEIVED
            inherit(sc.sc_listener, tp)
            fill(tp)
        return so

    def _forgotten(self, inp: inpcb) -> bool:
        """End a connection of the software's whose four-tuple has completed a handshake with a device: the peer knows
        nothing of it any more, and would be refused for as long as it lasts. Not with the SYN, which anybody can send.
        P is held. Whether it is ended: one that is not established yet, or a device's, stays."""
        with inp.lock:
            tp, so = inp.inp_ppcb, inp.inp_socket
            if tp is None or tp_offload(tp) or tp.t_toe is not None or tp.t_state < TCPS_ESTABLISHED:
                return False
            if so is None:
                tcp_close(tp)  # in TIME_WAIT, say
            else:
                tcp_ended(tp, so, errno.ECONNRESET)
        return True

    def chkrst(self, inc: in_conninfo, toepcb: Any) -> None:
        """The device has given the half-open connection up (RST, timeout, listener gone): forget it, tell nobody."""
        bucket = self._bucket(inc)
        with bucket.lock:
            sc = bucket.entries.get(inc)
            if sc is not None and sc.sc_toepcb is toepcb:
                self._remove(bucket, sc)

    def expire(self, sc: syncache) -> None:
        """The entry is too old."""
        bucket = self._bucket(sc.sc_inc)
        with bucket.lock:
            if bucket.entries.get(sc.sc_inc) is sc:
                self._drop(bucket, sc)

    def entries(self) -> Iterator[syncache]:
        """Every entry."""
        return (sc for bucket in list(self._buckets.values()) for sc in list(bucket.entries.values()))

    def lock(self, inc: in_conninfo) -> Lock:
        """The bucket lock B that entries of ``inc`` lie behind."""
        return self._bucket(inc).lock

    def _bucket(self, inc: in_conninfo) -> Bucket:
        index = hash(inc) % HASHSIZE
        bucket = self._buckets.get(index)
        if bucket is None:
            bucket = self._buckets[index] = Bucket(Lock(self._stack.locks, Rank.B))
        return bucket

    def _drop(self, bucket: Bucket, sc: syncache) -> None:
        """Drop an entry and tell its device. B is held."""
        self._remove(bucket, sc)
        sc.sc_tu.tu_syncache_event(TOE_SC_DROP, sc.sc_toepcb)

    def _remove(self, bucket: Bucket, sc: syncache) -> None:
        del bucket.entries[sc.sc_inc]
        self.count -= 1
        if sc.sc_timer is not None:
            sc.sc_timer.cancel()


def inherit(listener: tcpcb, tp: tcpcb) -> None:
    """A listener's options are those of its connections."""
    tp.t_inpcb.inp_flags &= ~IN6P_IPV6_V6ONLY
    tp.t_inpcb.inp_flags |= listener.t_inpcb.inp_flags & IN6P_IPV6_V6ONLY
    tp.t_inpcb.inp_ip_tos = listener.t_inpcb.inp_ip_tos
    tp.t_inpcb.inp_ip_ttl = listener.t_inpcb.inp_ip_ttl
    tp.t_inpcb.inp_pmtudisc = listener.t_inpcb.inp_pmtudisc
    tp.t_flags |= listener.t_flags & (TF_NODELAY | TF_NOPUSH)
    tp.t_cc = listener.t_cc
    tp.t_maxseg_user = listener.t_maxseg_user
    tp.t_user_timeout = listener.t_user_timeout
    tp.t_max_pacing_rate = listener.t_max_pacing_rate
    tp.t_keepidle, tp.t_keepintvl, tp.t_keepcnt = listener.t_keepidle, listener.t_keepintvl, listener.t_keepcnt
