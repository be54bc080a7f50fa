"""When a small segment is held back (RFC 9293 section 3.7.4, RFC 896; FreeBSD's tcp_output, Linux's TCP_CORK).

Two things hold the end of so_snd that fills no segment. Each ends by itself:

- the Nagle algorithm, while the last small segment is not acknowledged: with its acknowledgement, or with the connection. Full
  segments under way are no reason (RFC 9293 appendix A.3, Linux): so the last bytes of a long transfer wait for no round trip,
  and what is told early enough fills its segment;
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


def tcp_told(tp: tcpcb, told: int, end: int) -> None:
    """Data up to ``end`` may be sent, it was up to ``told``: what fills no segment keeps the next small one back. ``snd_max`` is
    its sequence number already. I is held."""
    if distance(end, told) % tp.t_maxseg:
        tp.snd_sml = tp.snd_max


def _small_under_way(tp: tcpcb) -> bool:
    return 0 < distance(tp.snd_sml, tp.snd_una) <= distance(tp.snd_max, tp.snd_una)


def tcp_sendable(tp: tcpcb, sb: sockbuf, told: int, acked: int) -> int:
    """Position up to which ``sb`` may be sent now. ``told``: up to where it may be sent already; ``acked``: up to where the peer
    has acknowledged. I is held."""
    full, partial = divmod(distance(sb.tail, told), tp.t_maxseg)
    if tcp_corked(tp):
        held = told != acked or full > 0 or sbspace(sb) > 0  # else more cannot come: no acknowledgement makes room
    else:
        held = _small_under_way(tp) and not tp.t_flags & TF_NODELAY
    return advance(sb.tail, -partial) if held else sb.tail
