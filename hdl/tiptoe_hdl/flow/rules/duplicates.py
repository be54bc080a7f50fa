"""Data that comes twice: what the first SACK block of the acknowledgement tells of it (D-SACK, RFC 2883).

Of a segment that begins before rcv_nxt, what lies before it, whole or in part; of one ahead of a gap, all of it, if it lies in
one interval: that has then grown last, so its block follows (section 4). That a segment which brings something overlaps an
interval is not told: both ends of what is common would have to be chosen among all intervals, for what comes only where the
peer has cut its data anew. What begins with a SYN is not told either.

What lies up to 16 MiB to the left counts as having come before, as in Linux: nothing remembers where the stream began.

The block goes with the acknowledgement that the segment's own pass sends, if that carries no data: its length is in the
place of MSS. A pass without a transmit credit does not catch up on it: it is advice.
"""

from amaranth.hdl import Cat, Mux

from . import choose


def compare(s):
    """Step 1: ends that the segment has in common with an interval."""
    return dict(
        starts_same=Cat(s.e_seq == interval.start for interval in s.ooo),
        ends_same=Cat(s.e_payload_end == interval.end for interval in s.ooo),
    )


def judge(s):
    """Step 3: were the segment answered, or taken."""
    tells = s.sack_ok & s.open_ & s.e_any_payload & ~s.has_syn
    takes = tells & s.takes_data & s.brings_data & s.acceptable
    begins_before = s.d_seq[31]
    inside = s.touch & (s.starts_in | s.starts_same) & (s.ends_in | s.ends_same)
    return dict(
        if_old=tells & begins_before & ~s.payload_after_nxt,
        if_old_in_part=takes & begins_before,
        if_held=takes & ~s.in_order & inside.any(),
        twice_length=Mux(begins_before & s.payload_after_nxt, s.front, s.e_length),
    )


def apply(s):
    """Step 4. What is old in part is acknowledged at once, too (``reassembly.merge``)."""
    return dict(
        twice=((s.answered | s.go) & s.if_old) | (s.go & (s.if_old_in_part | s.if_held)),
        three_at_most=s.ts_ok,
    )


def place(s):
    """Step 8: one block more, of four at most; beside timestamps, of three."""
    full = (s.sacks == 4) | (s.three_at_most & (s.sacks == 3))
    return dict(sacks_with_twice=choose(s.sacks + 1, (full, s.sacks))[:3])
