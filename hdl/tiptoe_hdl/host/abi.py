"""The host's view of the rings: commands (64 bytes) and events (32 bytes), as tables.

This is the single source: the hardware's layouts, the driver's constants, the C header and the documentation are
made from it. A field is (name, dword, lowest bit, width); a field of 64 bits takes two dwords, low one first.
Little endian. A *tid* is the connection id in bits 15:0 and its generation in bits 23:16; generations are chosen by the driver
with PROVISION and checked with every command.
"""

from enum import IntEnum

COMMAND_BYTES = 64
EVENT_BYTES = 32
PHASE = (7, 31)
"""Dword and bit of an event's phase: 1 on the first pass over the ring, then alternating. Written last."""


class Opcode(IntEnum):
    """Commands."""

    NOP = 0
    PROVISION = 1
    OPEN = 2
    CLOSE = 3
    ABORT = 4
    RELEASE = 5
    LISTEN = 6
    UNLISTEN = 7
    SYNCACHE_DROP = 8
    NEXT_HOP = 9
    PATH_MTU = 10
    SEND_FRAME = 11
    READ_TCB = 12
    SET_IP_HEADER = 13
    SET_CONGESTION = 14
    KEEPALIVE = 15
    URGENT = 16
    SET_CWND = 17
    SET_PACING = 18


COMMAND_HEADER = (("opcode", 0, 0, 8), ("tag", 0, 16, 16))

# fmt: off
COMMANDS = {
    Opcode.NOP: (),
    # Give the engine an id with its two rings; stock = 1: it may be used for passive opens, else it waits for OPEN.
    Opcode.PROVISION: (("tid", 1, 0, 32), ("snd_base", 2, 0, 64), ("rcv_base", 4, 0, 64),
                       ("snd_log2", 6, 0, 5), ("rcv_log2", 6, 8, 5), ("stock", 6, 16, 1)),
    Opcode.OPEN: (("tid", 1, 0, 32), ("laddr", 2, 0, 32), ("faddr", 3, 0, 32), ("lport", 4, 0, 16), ("fport", 4, 16, 16),
                  ("dmac", 6, 0, 48), ("use_next_hop", 7, 31, 1), ("next_hop", 7, 16, 8),
                  ("mss", 8, 0, 16), ("rcv_scale", 8, 16, 4), ("ecn", 8, 20, 1),
                  # Over IPv6, with laddr 0.0.0.6 and the fold of this address as faddr.
                  ("faddr6_low", 9, 0, 64), ("faddr6_high", 11, 0, 64)),
    # Send data up to snd_end (position), then FIN.
    Opcode.CLOSE: (("tid", 1, 0, 32), ("snd_end", 2, 0, 32)),
    Opcode.ABORT: (("tid", 1, 0, 32),),
    # After the terminal event; the four-tuple must be the connection's.
    Opcode.RELEASE: (("tid", 1, 0, 32), ("laddr", 2, 0, 32), ("faddr", 3, 0, 32), ("lport", 4, 0, 16), ("fport", 4, 16, 16)),
    # laddr 0: any local IPv4 address. wnd: window of SYN,ACKs, unscaled (at most the receive rings' size).
    Opcode.LISTEN: (("listener", 1, 0, 32), ("laddr", 2, 0, 32), ("lport", 4, 0, 16), ("mss", 8, 0, 16),
                    ("rcv_scale", 8, 16, 4), ("wnd", 9, 0, 16)),
    Opcode.UNLISTEN: (("listener", 1, 0, 32),),
    Opcode.SYNCACHE_DROP: (("syncache_ref", 1, 0, 32),),
    Opcode.NEXT_HOP: (("index", 1, 0, 32), ("dmac", 6, 0, 48)),
    Opcode.PATH_MTU: (("tid", 1, 0, 32), ("mss", 8, 0, 16)),
    Opcode.SEND_FRAME: (("addr", 2, 0, 64), ("length", 4, 0, 16)),
    Opcode.READ_TCB: (("tid", 1, 0, 32), ("page", 2, 0, 3)),
    Opcode.SET_IP_HEADER: (("tid", 1, 0, 32), ("ttl", 2, 0, 8), ("tos", 2, 8, 8)),
    Opcode.SET_CONGESTION: (("tid", 1, 0, 32), ("algorithm", 2, 0, 8)),
    Opcode.KEEPALIVE: (("tid", 1, 0, 32),),
    # Send data up to snd_end (position), which is urgent.
    Opcode.URGENT: (("tid", 1, 0, 32), ("snd_end", 2, 0, 32)),
    Opcode.SET_CWND: (("tid", 1, 0, 32), ("cwnd", 2, 0, 24), ("ssthresh", 3, 0, 24)),
    # Data leaves no faster than a byte in interval / 4096 clock cycles; 0: as fast as it may.
    Opcode.SET_PACING: (("tid", 1, 0, 32), ("interval", 2, 0, 30)),
}
# fmt: on


COMMAND_TEXT = {
    Opcode.NOP: "Nothing; a place holder.",
    Opcode.PROVISION: "Gives the engine a connection id with its two rings: bases aligned to their sizes, sizes of 2^12 to 2^24 bytes; where LIMITS.MAX_FRAME_BYTES is more than 1514, of 2^13 at least and of more than that. With `stock` the id may serve a passive open; without, it waits for OPEN.",
    Opcode.OPEN: "Active open of a provisioned id: inserts the four-tuple and sends a SYN. `mss` is the largest segment to be sent and the MSS option offered; `rcv_scale` the window scale offered. With `ecn` the SYN offers ECN if CONTROL.ECN accepts it. Frames go to `dmac`, or to entry `next_hop` when `use_next_hop`. With `laddr` 0.0.0.6 it is over IPv6, to `faddr6`, of which `faddr` is the fold by ALIAS_KEY: with the address's words a0 (its first four bytes) to a3, and the key's k0 to k2, `a0*k0 ^ a1*k1 ^ a2*k2 ^ a3`; bit j of `a*k` is the parity of a AND bits j to j + 31 of the sequence that begins with k, bit 0 first, and goes on by `s[n] = s[n-32] ^ s[n-30] ^ s[n-29] ^ s[n-25]`. Success is told by CONNECTION events.",
    Opcode.CLOSE: "Sends data up to position `snd_end`, then FIN.",
    Opcode.ABORT: "Sends a reset and ends the connection with reason LOCAL_ABORT.",
    Opcode.RELEASE: "Gives the id back after its terminal event; the four-tuple must be the connection's. After COMMAND_DONE the engine does not touch the rings.",
    Opcode.LISTEN: "Sets listen table entry `listener`; `laddr` 0 means any local IPv4 address, 0.0.0.6 ours of IPv6, where `mss` takes 20 bytes less. `wnd` is the window of SYN,ACKs, unscaled, at most the size of the receive rings in stock. For a listener in use, at the same `laddr` and `lport`: its SYN,ACKs from then on say this, and no SYN is lost; at others EXISTS.",
    Opcode.UNLISTEN: "Clears listen table entry `listener`; its half-open children are reset.",
    Opcode.SYNCACHE_DROP: "Drops a half-open connection of a SYN_RECEIVED event; the peer gets a reset.",
    Opcode.NEXT_HOP: "Sets the MAC address of entry `index` of the next-hop table.",
    Opcode.PATH_MTU: "New largest segment for a connection, smaller or larger, not beyond what the peer takes. If it is smaller, what is not acknowledged is sent again.",
    Opcode.SEND_FRAME: "Transmits `length` bytes (14 to LIMITS.MAX_FRAME_BYTES) at `addr` as an Ethernet frame. COMMAND_DONE comes when the memory was read.",
    Opcode.READ_TCB: "Reads a page of a connection's TCB: COMMAND_DONE has it in `value`. Allowed from PROVISION to RELEASE.",
    Opcode.SET_IP_HEADER: "Time to live and type of service of the connection's segments from now on, in place of the register IP_HEADER's, until the id is provisioned anew. A SYN,ACK has the register's.",
    Opcode.SET_CONGESTION: "Congestion control algorithm of a connection that is open; until then register CONGESTION_CONTROL's. Register CONGESTION tells which there are.",
    Opcode.SET_CWND: "Congestion window and slow-start threshold in bytes, of an established connection whose algorithm is HOST, else BAD_STATE. A window or threshold of less than a segment becomes one.",
    Opcode.SET_PACING: "Pacing of a connection that is open, SYN sent: its data, also what goes again, leaves no faster than a byte in `interval` / 4096 clock cycles; headers do not count, and what carries no data never waits. 0: as fast as it may, as after OPEN or accept. BAD_ARGUMENT where LIMITS.PACING is 0.",
    Opcode.KEEPALIVE: "Asks the peer of an established connection whether it is still there: an empty segment one before SND.UNA, which it has to answer. READ_TCB's `unanswered` is 0 again when it has, or has said anything else.",
    Opcode.URGENT: "Sends data up to position `snd_end`, as the send doorbell does, and urgent data ends there (SND.UP): segments sent from then on say so, those sent again too, until the peer has acknowledged it; one goes at once, whatever the peer's window. Of an established connection that is not closed.",
}
"""What each command does, for the documentation."""

ALWAYS_DONE = frozenset(
    {
        Opcode.RELEASE,
        Opcode.LISTEN,
        Opcode.UNLISTEN,
        Opcode.SYNCACHE_DROP,
        Opcode.SEND_FRAME,
        Opcode.READ_TCB,
    }
)
"""Commands that COMMAND_DONE answers in any case; the others only when they fail."""


class EventType(IntEnum):
    """Events."""

    NONE = 0
    CONNECTION = 1
    SYN_RECEIVED = 2
    SYNCACHE_GONE = 3
    COMMAND_DONE = 4
    FRAME = 5
    ERROR = 6
    SYN_ADDRESS = 7


EVENT_TRAILER = (("type", 7, 0, 8), ("phase", 7, 31, 1))

# fmt: off
EVENTS = {
    # A snapshot of one connection: absolute positions and sticky flags, so that later progress folds into an entry
    # not yet written. terminal comes once, last, and only when every received byte is in host memory.
    EventType.CONNECTION: (
        ("tid", 0, 0, 32), ("rcv_position", 1, 0, 32), ("snd_una_position", 2, 0, 32),
        ("syncache_ref", 3, 0, 16), ("mss", 3, 16, 16), ("iss", 4, 0, 32), ("irs", 5, 0, 32), ("rcv_up", 6, 0, 32),
        ("state", 7, 8, 4), ("snd_scale", 7, 12, 4), ("rcv_scale", 7, 16, 4), ("established", 7, 20, 1),
        ("peer_closed", 7, 21, 1), ("terminal", 7, 22, 1), ("bad_doorbell", 7, 23, 1), ("reason", 7, 24, 4),
        ("urgent", 7, 28, 1), ("ts_ok", 7, 29, 1)),
    EventType.SYN_RECEIVED: (
        ("syncache_ref", 0, 0, 16), ("listener", 0, 16, 8), ("faddr", 1, 0, 32), ("laddr", 2, 0, 32),
        ("fport", 3, 0, 16), ("lport", 3, 16, 16), ("iss", 4, 0, 32), ("irs", 5, 0, 32),
        ("mss", 6, 0, 16), ("ws", 6, 16, 4), ("ws_present", 6, 20, 1),
        ("sack_ok", 6, 21, 1), ("ts_ok", 6, 22, 1)),
    EventType.SYNCACHE_GONE: (("syncache_ref", 0, 0, 16), ("listener", 0, 16, 8)),
    EventType.COMMAND_DONE: (("argument", 0, 0, 32), ("opcode", 1, 0, 8), ("status", 1, 8, 8), ("tag", 1, 16, 16),
                             ("value", 2, 0, 64)),
    # A frame of the host lies in the host frame ring: slot = producer count modulo slots.
    EventType.FRAME: (("slot", 0, 0, 32), ("length", 1, 0, 16)),
    EventType.ERROR: (("code", 0, 0, 8), ("argument", 1, 0, 32)),
    # Before a SYN_RECEIVED over IPv6.
    EventType.SYN_ADDRESS: (("syncache_ref", 0, 0, 16), ("faddr6_low", 1, 0, 64), ("faddr6_high", 3, 0, 64)),
}
# fmt: on


EVENT_TEXT = {
    EventType.NONE: "Not written yet.",
    EventType.CONNECTION: "A snapshot of one connection: absolute positions and sticky flags. Later progress folds into an entry not yet written. Data up to `rcv_position` is in host memory; with `peer_closed` the peer's FIN counts as one more. `snd_una_position` is acknowledged. `peer_closed` and `terminal` come only when every received byte is in host memory (after a failed payload write `terminal` does not wait for it); `terminal` comes once, last. With `urgent` the peer's urgent data ends before `rcv_up`, a sequence number: the newest such place, told no later than the data before it, and again in every event until more than a receive ring has come behind it. `ts_ok`: segments carry timestamps, which take 12 bytes of `mss`.",
    EventType.SYN_RECEIVED: "A listener answered a SYN: a half-open connection exists. `sack_ok`: both its SYN and our SYN,ACK permit selective acknowledgements; `ts_ok`: both have timestamps.",
    EventType.SYNCACHE_GONE: "A half-open connection ended without becoming a connection.",
    EventType.COMMAND_DONE: "Outcome of a command. `argument` is dword 1 of the command; `value`: the page, of a successful READ_TCB. A command that could not be read has opcode NOP, status DMA_ERROR, tag 0 and its count since reset in `argument`.",
    EventType.FRAME: "A received frame lies in slot `slot` (modulo the number of slots) of the host frame ring, from byte 2 on.",
    EventType.SYN_ADDRESS: "The peer's IPv6 address of half-open connection `syncache_ref`, whose SYN_RECEIVED follows, with `laddr` 0.0.0.6 and the address's fold as `faddr`.",
    EventType.ERROR: "Something went wrong that no command answers for. Of several at once the newest is kept.",
}
"""What each event says, for the documentation."""


# fmt: off
TCB_PAGES = (
    (("snd_una", 0, 32), ("snd_nxt", 32, 32)),
    (("snd_max", 0, 32), ("snd_end", 32, 32)),
    (("rcv_nxt", 0, 32), ("rcv_adv", 32, 32)),
    (("snd_wnd", 0, 30), ("maxseg_high", 30, 2), ("rexmits", 32, 16), ("maxseg", 48, 12), ("rexmt_shift", 60, 4)),
    (("cwnd", 0, 24), ("ssthresh", 24, 24), ("dupacks", 48, 2), ("in_recovery", 50, 1), ("persist", 51, 1),
     ("unanswered", 52, 4), ("losses", 56, 8)),
    (("srtt", 0, 20), ("rttvar", 20, 20), ("rto", 40, 20), ("rtt_valid", 60, 1)),
    (("iss", 0, 32), ("irs", 32, 32)),
    (("state", 0, 4), ("snd_scale", 4, 4), ("rcv_scale", 8, 4), ("ws_ok", 12, 1), ("established", 13, 1),
     ("fin_queued", 14, 1), ("fin_sent", 15, 1), ("fin_acked", 16, 1), ("peer_closed", 17, 1),
     ("ts_ok", 20, 1), ("sack_ok", 21, 1), ("ecn_ok", 22, 1), ("ecn_seen", 23, 1), ("ooo_valid", 24, 4),
     ("algorithm", 28, 3), ("rcv_lim", 32, 32)),
)
# fmt: on
"""Pages of a TCB that READ_TCB reads, fields as (name, lowest bit, width); names of flow/tcb.py. Sequence numbers are
what stands in segments. Times are in ticks: srtt times 8, rttvar times 4. ``maxseg_high``: the highest two bits of maxseg. A page is read at once; two
pages are not."""


class ErrorCode(IntEnum):
    """Codes of ERROR events."""

    BAD_DOORBELL = 1  # argument: register offset written
    COMMAND_FETCH = 2  # AXI error while commands were read: COMMAND_DONE tells of each; argument: count of the first
    EVENT_WRITE = 3  # AXI error while an event was written: it is written again; argument: its count
    PAYLOAD_READ = 4  # argument: id
    PAYLOAD_WRITE = 5  # argument: id
    BAD_COMMAND_TAIL = 6  # COMMAND_TAIL more than a ring ahead or behind itself, ignored; argument: the value written
    WATCHDOG = 7  # work waits and nothing moves; argument: what stands still, a bit each, as in STATUS from bit 8 on
    BAD_EVENT_CONSUMER = (
        8  # EVENT_CONSUMER beyond what is written or behind itself, ignored; argument: the value written
    )
    BAD_FRAME_CONSUMER = 9  # FRAME_CONSUMER likewise, 16 bits of it
    BAD_REGISTER = 10  # a value that the register cannot take, ignored; argument: the register's address


WATCHED = ("commands", "doorbells", "events", "host")
"""What the watchdog looks at, from bit 0 on: commands that are not finished, doorbells that are not taken, events that are
not written though the ring has room; and a host that does not read, so that the ring has none."""


HOST_FRAME_SLOT_BYTES = 2048
"""A slot of the host frame ring; the frame begins at byte 2, so that its IP header is aligned. Of an engine with longer frames:
``host_frame_slot_bytes``."""


def host_frame_slot_bytes(max_frame_bytes: int) -> int:
    """A slot's size: the least power of two that holds the longest frame and the two bytes before it, 2048 at least."""
    return max(HOST_FRAME_SLOT_BYTES, 1 << (max_frame_bytes + 1).bit_length())
