"""When a small segment is held back (RFC 9293 section 3.7.4, RFC 896; FreeBSD's tcp_output, Linux's TCP_CORK).

Two things hold the end of so_snd that fills no segment. Each ends by itself:

- the Nagle algorithm, while something sent is not acknowledged: with its acknowledgement, or with the connection;
- TCP_CORK and MSG_MORE: with the data that fills the segment, with the next send without them, with the cork, with the FIN, when
  the buffer has no more room, and after CORK_US in any case.
"""

from __future__ import annotations

from ..hardware.positions import advance, distance
from .sockbuf import sbspace, sockbuf
from .structures import TF_MORETOCOME, TF_NODELAY, TF_NOPUSH, tcpcb

CORK_US = 200_000
"""Longest time in microseconds for which a cork holds data that could be sent (Linux's ceiling)."""


def tcp_corked(tp: tcpcb) -> bool:
    """Whether the user has said that more is to come."""
    return bool(tp.t_flags & (TF_NOPUSH | TF_MORETOCOME))


def tcp_sendable(tp: tcpcb, sb: sockbuf, told: int, acked: int) -> int:
    """Position up to which ``sb`` may be sent now. ``told``: up to where it may be sent already; ``acked``: up to where the peer
    has acknowledged. I is held."""
    full, partial = divmod(distance(sb.tail, told), tp.t_maxseg)
    under_way = told != acked
    if tcp_corked(tp):
        held = under_way or full > 0 or sbspace(sb) > 0  # else more cannot come: no acknowledgement makes room
    else:
        held = under_way and not tp.t_flags & TF_NODELAY
    return advance(sb.tail, -partial) if held else sb.tail
