"""How large segments may be on a path that swallows large ones without a word (RFC 4821 section 7.2; Linux's icsk_mtup)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class mtup:
    """The search of one connection, since it fell for a black hole. Sizes are t_maxseg's: payload and TCP options, bytes.

    Attributes
    ----------
    search_low : int
        What passes, or is taken to: t_maxseg, but while a probe is under way.
    search_high : int
        The largest that may pass.
    shift : int
        Time-outs in a row when it fell last; 0: something was acknowledged since.
    failed : bool
        At the smallest size there were time-outs still; nothing was acknowledged since.
    probes_lost : int
        Of the size tried last, one after the other.
    hinted : int
        What a router has named when it complained of a probe: probed next; 0: none has.
    postponed : int
        Probes in a row that were to go and could not.
    due_us : int or None
        When the next probe may go, on the stack's clock; None: not before something is acknowledged.
    """

    search_low: int
    search_high: int
    shift: int = 0
    failed: bool = False
    probes_lost: int = 0
    hinted: int = 0
    postponed: int = 0
    due_us: int | None = None
