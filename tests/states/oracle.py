"""What has to become of a segment, RFC 9293 section 3.10.7: the rules of rules.toml, applied to plain numbers.

Written from the RFCs, not from the engine; it shares no code with it. Sequence numbers are relative to the initial ones
(SYN 0, data from 1) and never wrap here: whoever uses it adds the initial numbers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

RULES: dict[str, Any] = tomllib.loads((Path(__file__).parent / "rules.toml").read_text())
SYNCHRONISED = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1", "CLOSING", "LAST_ACK", "FIN_WAIT_2", "TIME_WAIT")
STATES = ("CLOSED", "LISTEN", "SYN_SENT", "SYN_RECEIVED", *SYNCHRONISED)
UP = 3
"""The urgent pointer of a segment with URG."""
NEAR = 1 << 16
"""How far left of the window a segment's acknowledgement still counts (docs/theory.md, Windows)."""


@dataclass(frozen=True)
class Segment:
    """A segment of the peer; ``seq`` relative to its ISN, ``ack`` to ours. Flags as letters of SARFPU."""

    flags: str
    seq: int
    ack: int
    wnd: int
    length: int = 0

    @property
    def seg_len(self) -> int:
        """SEG.LEN: SYN and FIN count."""
        return self.length + ("S" in self.flags) + ("F" in self.flags)


@dataclass(frozen=True)
class Connection:
    """The variables of RFC 9293 section 3.3.1, with those of RFC 5961 section 5.2.

    ``edge`` is RCV.NXT + RCV.WND (RCV.WND before the peer's SYN); ``ahead`` what has arrived out of order, [start, end);
    ``fin_ahead`` where a FIN stands that came before its data; ``active``: opened by us; ``delayed``: an acknowledgement
    waits for its timer; ``rcv_up``: RCV.UP, once there was one.
    """

    state: str
    snd_una: int = 0
    snd_nxt: int = 0
    snd_wnd: int = 0
    max_wnd: int = 0
    wl1: int = 0
    fin_sent: bool = False
    rcv_nxt: int = 0
    edge: int = 0
    ahead: tuple[int, int] | None = None
    fin_ahead: int | None = None
    active: bool = True
    delayed: bool = False
    rcv_up: int | None = None


@dataclass(frozen=True)
class Reply:
    """A segment in answer; ``seq`` relative to our ISN, ``ack`` to the peer's, 0 without ACK."""

    flags: str
    seq: int
    ack: int


@dataclass(frozen=True)
class Outcome:
    """What becomes of a segment: the connection afterwards, the answer, bytes taken as (sequence number, count), the reason of
    the connection's end, whether 2MSL begins anew, and the rule's RFC."""

    connection: Connection
    reply: Reply | None
    taken: tuple[int, int] | None
    hears: str
    restarts: bool
    rfc: str


def facts(c: Connection, s: Segment) -> dict[str, bool]:
    """All that a rule may ask, in RFC 9293's words.

    ``acceptable`` is the table of 3.10.7.4 first, with two cases more (docs/theory.md): an empty segment at RCV.NXT, also
    when a FIN has moved that beyond the edge; one at the window's right edge, where the peer stands when its last data was
    lost. ``exact``: SEG.SEQ = RCV.NXT; ``in_window``: RCV.NXT <= SEG.SEQ < RCV.NXT + RCV.WND; ``right``: not left of
    RCV.NXT. ``near``: so close to the window that only the payload is refused. ``repeats_syn``, ``repeats_fin``: SEG.SEQ is
    the SYN's, the segment's FIN is the one taken. ``ack_new``: SND.UNA < SEG.ACK =< SND.NXT; ``ack_future``: SEG.ACK >
    SND.NXT; ``ack_stale``: SEG.ACK < SND.UNA - MAX.SND.WND.
    """
    end, left = s.seq + s.seg_len, s.seq < c.rcv_nxt
    begins = c.rcv_nxt <= s.seq < c.edge
    ends = c.rcv_nxt < end <= c.edge
    if s.seg_len:
        acceptable = begins or ends
    else:
        acceptable = s.seq == c.rcv_nxt or c.rcv_nxt <= s.seq <= c.edge
    flags = s.flags
    return {
        "syn": "S" in flags,
        "ack": "A" in flags,
        "rst": "R" in flags,
        "fin": "F" in flags,
        "empty": s.seg_len == 0,
        "acceptable": acceptable,
        "exact": s.seq == c.rcv_nxt,
        "in_window": begins,
        "right": not left,
        "near": s.seq >= c.rcv_nxt - NEAR if left else s.seq <= c.edge + 1,
        "repeats_syn": s.seq == c.rcv_nxt - 1,
        "repeats_fin": "F" in flags and end == c.rcv_nxt,
        "active": c.active,
        "ack_new": c.snd_una < s.ack <= c.snd_nxt,
        "ack_future": s.ack > c.snd_nxt,
        "ack_stale": s.ack < c.snd_una - c.max_wnd,
    }


def _places(states: list[str]) -> Iterator[str]:
    for state in states:
        yield from SYNCHRONISED if state == "synchronised" else (state,)


def rule_for(c: Connection, s: Segment, where: str = "") -> dict[str, Any]:
    """The first rule that fits; what is known to differ in ``where`` (flow, engine) goes before."""
    known = facts(c, s)
    differs = [rule for rule in RULES.get("deviation", []) if where in rule["where"]] if where else []
    for rule in differs + RULES["segment"]:
        if c.state in _places(rule["states"]) and all(
            known[word.removeprefix("!")] != word.startswith("!") for word in rule["when"].split()
        ):
            return rule
    raise LookupError(f"no rule for {s} in {c.state}")


def receive(c: Connection, s: Segment, where: str = "") -> Outcome:
    """SEGMENT ARRIVES."""
    rule = rule_for(c, s, where)
    does = rule["does"]
    before, reply, taken, hears = c, None, None, ""
    if does == "reset":
        reply = Reply("R", s.ack, 0)
    elif does == "reset_ack":
        reply = Reply("AR", 0, s.seq + s.seg_len)
    elif does == "refuse" or does == "end":
        c = replace(c, state="CLOSED")
        hears = "REFUSED" if does == "refuse" or before.state == "SYN_RECEIVED" else "PEER_RESET"
    elif does in ("open", "establish"):
        if c.state != "SYN_RECEIVED":  # its window has been taken with the first SYN; a repeated SYN's is not
            c = replace(c, snd_wnd=s.wnd, max_wnd=s.wnd, wl1=s.seq, rcv_nxt=s.seq + 1, edge=s.seq + 1 + c.edge)
        if does == "open":
            c = replace(c, state="SYN_RECEIVED")
            reply = Reply("SA", 0, c.rcv_nxt)
        else:
            c = replace(c, state="ESTABLISHED", snd_una=s.ack)
            if rule.get("text"):
                c = _urgent(c, s)
                c, taken, _ = _text(c, replace(s, seq=s.seq + 1, flags=s.flags.replace("S", "")))
            reply = _ack(c)
    elif does == "syn_ack":
        reply = Reply("SA", 0, c.rcv_nxt)
    elif does == "process":
        c = _acknowledge(c, s)
        c, taken, at_once = _text(_urgent(c, s), s)
        reply = _ack(c) if at_once else None
    else:
        if rule.get("counts") and facts(c, s)["ack_stale"] is False and s.ack <= c.snd_nxt:
            c = _acknowledge(c, s)
            if facts(before, s)["exact"]:  # 3.10.7.4 first: special allowance for valid URGs
                c = _urgent(c, s)
        reply = _ack(c) if does == "ack" else None
    if c.state == "CLOSED" and before.state == "LAST_ACK" and not hears:
        hears = "NORMAL"
    if before.state not in ("CLOSED", "LISTEN") and c.state == "CLOSED":
        reply = None  # the TCB is deleted
    if reply and "A" in reply.flags:
        c = replace(c, delayed=False)
    return Outcome(c, reply, taken, hears, rule.get("restarts") == "2MSL", rule["rfc"])


def _ack(c: Connection) -> Reply:
    return Reply("A", c.snd_nxt, c.rcv_nxt)


def _acknowledge(c: Connection, s: Segment) -> Connection:
    """Fifth, with SND.UNA <= SEG.ACK <= SND.NXT or older: acknowledgement, window, our SYN and FIN."""
    new = c.snd_una < s.ack <= c.snd_nxt
    # RFC 9293's SND.WL1 and WL2; that a greater SEG.ACK's window counts whatever its SEG.SEQ is docs/theory.md's.
    if new or (s.ack == c.snd_una and s.seq >= c.wl1):
        c = replace(c, snd_wnd=s.wnd, max_wnd=max(c.max_wnd, s.wnd), wl1=s.seq)
    if new:
        c = replace(c, snd_una=s.ack)
    if new and (c.state == "SYN_RECEIVED" or (c.fin_sent and s.ack == c.snd_nxt)):
        c = replace(c, state=RULES["acknowledged"].get(c.state, c.state))
    return c


def _urgent(c: Connection, s: Segment) -> Connection:
    """Sixth: RCV.UP, if that is in advance of what has come."""
    up = s.seq + UP
    if "U" not in s.flags or c.state not in RULES["urgent"]["states"] or up <= max(c.rcv_nxt, c.rcv_up or 0):
        return c
    return replace(c, rcv_up=up)


def _text(c: Connection, s: Segment) -> tuple[Connection, tuple[int, int] | None, bool]:
    """Seventh and eighth: the connection, what was taken, and whether it is acknowledged at once."""
    text, fin = s.length > 0, "F" in s.flags
    if c.state not in RULES["text"]["states"]:
        return c, None, text or fin
    start, end = max(s.seq, c.rcv_nxt), min(s.seq + s.length, c.edge)
    taken = (start, end - start) if end > start else None
    fin_at = s.seq + s.length
    if fin and fin_at < c.edge:
        c = replace(c, fin_ahead=fin_at)
    gap = c.ahead is not None
    if taken and start == c.rcv_nxt:
        nxt = end
        if c.ahead and c.ahead[0] <= nxt:
            nxt = max(nxt, c.ahead[1])
            c = replace(c, ahead=None)
        c = replace(c, rcv_nxt=nxt)
        at_once = gap or c.delayed  # a gap filled, or every second segment (RFC 5681 section 4.2)
        c = replace(c, delayed=not at_once)
    elif taken:
        lo, hi = start, end
        if c.ahead and lo <= c.ahead[1] and c.ahead[0] <= hi:
            lo, hi = min(lo, c.ahead[0]), max(hi, c.ahead[1])
        c = replace(c, ahead=(lo, hi))  # a second interval is not told of here: nothing asks for it
        at_once = True
    else:
        at_once = text or fin
    if c.fin_ahead == c.rcv_nxt:
        c = replace(c, rcv_nxt=c.rcv_nxt + 1, state=RULES["fin"].get(c.state, c.state), fin_ahead=None, delayed=False)
        at_once = True
    elif c.fin_ahead is not None and c.fin_ahead < c.rcv_nxt:
        c = replace(c, fin_ahead=None)
    return c, taken, at_once
