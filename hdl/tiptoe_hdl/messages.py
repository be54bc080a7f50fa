"""Messages between the engine's blocks: one layout a message, all sized by the configuration.

Conventions: a *position* is an absolute 32-bit count of payload bytes of a ring since the connection began
(the first data byte is position 0, so position = seq - (isn + 1) mod 2**32); a byte's address in a ring is
``base + (position mod ring size)``. MAC and IP addresses are integers with the first byte on the wire in the highest bits.
Ring sizes are given as log2 of bytes (``cfg.ring_log2_min`` to 24), bases are aligned to the size.
"""

from amaranth.hdl import Value, unsigned
from amaranth.lib import data, enum

from .config import EngineConfig
from .congestion import ALGORITHM_BITS, NUMBERS

# TCP header flags, bit numbers of the flags byte (RFC 9293 section 3.1)
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = range(8)


class State(enum.Enum, shape=unsigned(4)):
    """Connection states, RFC 9293 section 3.3.2 (LISTEN lives in the listen table)."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    CLOSE_WAIT = 5
    FIN_WAIT_1 = 6
    CLOSING = 7
    LAST_ACK = 8
    FIN_WAIT_2 = 9
    TIME_WAIT = 10


class Reason(enum.Enum, shape=unsigned(4)):
    """Why a connection reached its terminal event."""

    NONE = 0
    NORMAL = 1
    PEER_RESET = 2
    REFUSED = 3
    TIMEOUT = 4
    LOCAL_ABORT = 5
    DMA_ERROR = 6


class Congestion(enum.Enum, shape=unsigned(ALGORITHM_BITS)):
    """Congestion control algorithms, as ``congestion.ALGORITHMS`` lists them."""

    _ignore_ = ("_algorithm", "_number")
    for _algorithm, _number in NUMBERS.items():
        vars()[_algorithm.upper()] = _number


class Status(enum.Enum, shape=unsigned(8)):
    """Outcome of a command (COMMAND_DONE events)."""

    OK = 0
    UNKNOWN_OPCODE = 1
    BAD_ID = 2
    BAD_GENERATION = 3
    BAD_STATE = 4
    BAD_ARGUMENT = 5
    TABLE_FULL = 6
    EXISTS = 7
    DMA_ERROR = 8


class FlowOp(enum.Enum, shape=unsigned(4)):
    """Operations on a TCB that the command processor and the listen unit ask the pipeline for."""

    PROVISION = 0
    """CLOSED and released, or never used: note generation and ring sizes, make the id usable."""
    OPEN = 1
    """Active open: iss in ``a``; SYN goes out."""
    ACCEPT = 2
    """Passive open: iss in ``a``, irs in ``b``; the TCB starts in SYN_RECEIVED, the ACK segment follows as rx_segment. It ends
    the round trip that the SYN,ACK began ``elapsed`` ticks ago, if that was sent once."""
    CLOSE = 3
    """Half-close: ``a`` is the final send position; data up to it, then FIN."""
    ABORT = 4
    """RST to the peer, then terminal with LOCAL_ABORT."""
    RELEASE = 5
    """Only after the terminal event: the id becomes unused."""
    PATH_MTU = 6
    """New effective maximum segment size in ``mss``; if it is smaller, what is not acknowledged goes again."""
    DMA_ABORT = 7
    """Like ABORT, reason DMA_ERROR (generation not checked)."""
    READ = 8
    """Changes nothing; page ``a`` of the TCB (``TCB_PAGES`` of host/abi.py) is shown with the response."""
    CONGESTION = 9
    """Congestion control by algorithm ``a`` (Congestion)."""
    KEEPALIVE = 10
    """An empty segment at snd_una - 1, which the peer must answer (RFC 9293 section 3.8.4)."""
    URGENT = 11
    """The send ring ends at position ``a``, and what is in it is urgent: SND.UP (RFC 9293 section 3.8.5)."""
    CWND = 12
    """cwnd, in bytes, in ``a``, ssthresh in ``b``; of a connection whose algorithm leaves them to the host."""
    PACING = 13
    """Data of the connection leaves no faster than a byte in ``a`` / 4096 cycles; 0: as fast as it may."""


FourTuple = data.StructLayout({"laddr": 32, "faddr": 32, "lport": 16, "fport": 16})
"""Local address and port, foreign address and port; 96 bits. Over IPv6 both addresses are stand-ins: see ``LADDR_V6``."""

LADDR_V6 = 6
"""laddr of every connection over IPv6: 0.0.0.6, an address that no host has. Its faddr is a keyed 32-bit fold of the peer's address
(``rx/alias.py``), so tables and hashes know four-tuples of one size; the address itself is ``faddr6`` where it is needed."""


def is_v6(four_tuple) -> Value:
    """1 bit: a four-tuple of a connection over IPv6. Nobody's IPv4 address begins with 0 (RFC 1122 section 3.2.1.3)."""
    return four_tuple.laddr[24:] == 0


def peer_fields(cfg: EngineConfig) -> tuple[str, ...]:
    """Fields that messages about a peer have besides: its IPv6 address (void over IPv4), where there is IPv6."""
    return ("faddr6",) if cfg.ipv6 else ()


def _with_peer(cfg: EngineConfig, layout: data.StructLayout) -> data.StructLayout:
    """``layout`` and ``peer_fields``."""
    return data.StructLayout(dict(layout.members) | dict.fromkeys(peer_fields(cfg), 128))


MOST_SACKS = 4
"""More SACK blocks fit no header (RFC 2018 section 3)."""

SACK_BITS = 3
"""Bits of a number of SACK blocks."""

ELAPSED_BITS = 12
"""Bits of the ticks since a SYN,ACK."""

# From here on tables.
# fmt: off


def beat(cfg: EngineConfig) -> data.StructLayout:
    """One beat of a frame: ``data`` with the first byte of the wire in bits 7:0, ``keep`` one bit a byte
    (contiguous from bit 0; all ones except in the last beat), ``last``. Payload of a stream."""
    return data.StructLayout({"data": cfg.data_width, "keep": cfg.bytes_per_beat, "last": 1})


def rx_beat(cfg: EngineConfig) -> data.StructLayout:
    """A beat as the MAC gives it: like ``beat``, with ``error`` (AXI's tuser), which counts in the last beat."""
    return data.StructLayout({"data": cfg.data_width, "keep": cfg.bytes_per_beat, "last": 1, "error": 1})


def rx_meta(cfg: EngineConfig) -> data.StructLayout:
    """What the parser learned of one committed frame; pushed in frame order after the frame's last beat."""
    return _with_peer(cfg, data.StructLayout({
        "to_host": 1,          # not for the TCP engine (ARP, ICMP, UDP, fragments, broadcast...): all but frame_length void
        "frame_length": cfg.length_bits,    # bytes of the frame as received, without FCS
        # Byte offset of the TCP payload in the *stored* frame (which has 2 pad bytes in front): a multiple of 4.
        "payload_offset": 8,
        "payload_length": cfg.length_bits,  # bytes of TCP payload
        "tuple": FourTuple,    # laddr = IP destination, faddr = IP source
        "smac": 48,            # Ethernet source; first byte on the wire in bits 47:40
        "seq": 32, "ack": 32, "flags": 8, "wnd": 16,
        "mss": 16,             # MSS option, 0 if absent (looked for in SYN segments only)
        "ws_present": 1, "ws": 4,  # window scale option, clamped to 14 (SYN segments only)
        "sack_ok": 1,          # SACK-permitted option (SYN segments only)
        "sacks": SACK_BITS,    # SACK blocks that follow on a stream of their own (no SYN segments)
        "urgent": 16,          # urgent pointer; counts with URG only
        "ecn": 2,              # of the IP header (RFC 3168 section 5): 3: CE, 1, 2: ECT
        "ts_present": 1, "tsval": 32, "tsecr": 32,  # timestamps option
    }))


def rx_segment(cfg: EngineConfig) -> data.StructLayout:
    """Dispatcher to pipeline: a segment of connection ``id``."""
    return data.StructLayout({
        "id": cfg.id_bits, "seq": 32, "ack": 32, "flags": 8, "wnd": 16, "length": cfg.length_bits,
        "mss": 16, "ws_present": 1, "ws": 4, "sack_ok": 1,
        "has_sack": 1,  # SACK blocks follow it (rx_sack)
        "urgent": 16,   # counts with URG only
        "ecn": 2,       # as in rx_meta
        "ts_present": 1, "tsval": 32, "tsecr": 32,
    })


def rx_sack(cfg: EngineConfig) -> data.StructLayout:
    """Dispatcher to pipeline, behind the segment that it came with: a block of its SACK option, ``first`` or a later one;
    ``more``: others follow."""
    return data.StructLayout({"id": cfg.id_bits, "start": 32, "end": 32, "first": 1, "more": 1})


def frame_info(cfg: EngineConfig) -> data.StructLayout:
    """Dispatcher to placement, one per committed frame in frame order."""
    return data.StructLayout({
        "ask": 1,              # 1: the pipeline's next rx_verdict says what to do
        "to_host": 1,          # when not ask: 1 to the host frame ring, 0 drop
        "payload_offset": 8,
        "frame_length": cfg.length_bits,
    })


def rx_verdict(cfg: EngineConfig) -> data.StructLayout:
    """Pipeline to placement, one per rx_segment, in order: what to do with its payload.

    ``length`` = 0: nothing to place. ``skip``: payload bytes to leave out at the left. ``position``: receive-ring position of the
    first placed byte. When ``notify``: once the payload write is acknowledged, the host may be told of ``upto``, the
    receive position now complete (the peer's FIN counts as one).
    """
    return data.StructLayout({
        "id": cfg.id_bits, "position": 32, "skip": cfg.length_bits, "length": cfg.length_bits, "notify": 1, "upto": 32,
    })


def placed(cfg: EngineConfig) -> data.StructLayout:
    """Placement to event writer, in order, after the bus acknowledged the payload write: position ``upto`` of ``id`` is in host
    memory (only for verdicts with ``notify``)."""
    return data.StructLayout({"id": cfg.id_bits, "upto": 32})


def doorbell(cfg: EngineConfig) -> data.StructLayout:
    """Registers to pipeline: ``which`` 0: the send ring now ends at ``position``; 1: the receive ring is consumed up to it."""
    return data.StructLayout({"id": cfg.id_bits, "which": 1, "position": 32})


def flow_request(cfg: EngineConfig) -> data.StructLayout:
    """Command processor or listen unit to pipeline. Each is answered by one flow_response, in order."""
    return data.StructLayout({
        "op": FlowOp, "id": cfg.id_bits, "generation": 8,
        "a": 32, "b": 32,
        "mss": 16,                      # OPEN, PATH_MTU: effective send MSS so far; ACCEPT: min(ours, peer's)
        "snd_scale": 4,                 # ACCEPT: peer's scale, 0 if not negotiated
        "sack_ok": 1,                   # ACCEPT: offered by the peer, and by us
        "ecn_ok": 1,                    # ACCEPT: offered by the peer, and agreed; OPEN: to be offered
        "ts_present": 1,                # ACCEPT: likewise, timestamps
        "tsval": 32,                    # ACCEPT: the peer's so far, of its SYN
        "rcv_scale": 4,                 # OPEN: offered; ACCEPT: in force (0 if not negotiated)
        "snd_log2": 5, "rcv_log2": 5,   # PROVISION
        "wnd": 16,                      # ACCEPT: window advertised in the SYN,ACK (unscaled)
        "syncache_ref": 16,             # ACCEPT: reported with the connection's events
        "elapsed": ELAPSED_BITS,        # ACCEPT: ticks since the SYN,ACK, if it was sent once; all ones: nobody knows
        "repeats": 2,                   # ACCEPT: how often it was sent again; 2: twice or more
    })


FlowResponse = data.StructLayout({"status": Status})


def tx_segment(cfg: EngineConfig) -> data.StructLayout:
    """Pipeline to transmit path: one segment of connection ``id``. Header fields final; payload of ``length`` bytes at send-ring
    ``position``. ``mss``, ``ws`` and ``sack_ok`` (SACK-permitted) go out as options when SYN is set. ``sacks``: room for so many
    SACK blocks (RFC 2018; never with SYN or RST), which the header builder asks for by ``id``. ``urgent``: the urgent pointer, 0
    without URG, which does not come with SYN. ``ect``: ECT(0) in the IP header. ``twice``: the first of the blocks tells of
    ``mss`` bytes from sequence number ``twice_start`` on, which have come twice (RFC 2883); never with payload or SYN. ``ts_ok``:
    with a timestamps option (RFC 7323), whose TSecr is asked for as the blocks are, and whose TSval has ISS in it, which is
    ``seq`` - 1 - ``position``: so that stands without payload, too."""
    return data.StructLayout({
        "id": cfg.id_bits, "seq": 32, "ack": 32, "flags": 8, "wnd": 16, "position": 32,
        "length": cfg.length_bits, "mss": 16, "ws_present": 1, "ws": 4, "sack_ok": 1, "sacks": SACK_BITS, "urgent": 16, "ect": 1, "twice": 1,
        "twice_start": 32,
        "ts_ok": 1,
    })


interval = data.StructLayout({"start": 32, "end": 32})
"""Sequence numbers [start, end): received out of order, or what a SACK block says that the peer has."""


def sack_list(cfg: EngineConfig) -> data.StructLayout:
    """Pipeline to transmit path: what a connection has received out of order, as of now; the first ones valid, ``newest`` the one
    that has grown last. ``known`` 0: it is being written, ask again or go without."""
    count = cfg.ooo_intervals
    return data.StructLayout({
        "known": 1, "valid": count, "newest": 2, "intervals": data.ArrayLayout(interval, count),
    })


TimeStamp = data.StructLayout({"known": 1, "tsval": 32})
"""Pipeline to transmit path: TS.Recent, which the next segment echoes (RFC 7323 section 4.3); ``known`` 0: there is none."""


StampOptions = data.StructLayout({"ws": 4, "sack_ok": 1, "ecn_ok": 1})
"""What a SYN cookie's TSval says in its lowest bits, and TSecr of its ACK gives back: the peer's scale (15: it has said none),
and what was agreed upon besides."""


TxControl = data.StructLayout({
    # Listen unit and dispatcher to transmit path: a segment without a connection (SYN,ACK of the syncache, RST).
    "tuple": FourTuple,    # laddr/lport become the source
    "dmac": 48,
    "seq": 32, "ack": 32, "flags": 8, "wnd": 16,
    "mss": 16, "ws_present": 1, "ws": 4, "sack_ok": 1,  # sent as options when SYN is set
    "ts_ok": 1, "tsecr": 32,  # timestamps option, with SYN or without; TSval is made when it is sent
    "says_options": 1, "options": StampOptions,  # SYN only: TSval ends in these, and is up to 63 ticks old
})


def tx_control(cfg: EngineConfig) -> data.StructLayout:
    """TxControl, with the peer's IPv6 address where there is IPv6."""
    return _with_peer(cfg, TxControl)


def tx_frame(cfg: EngineConfig) -> data.StructLayout:
    """Command processor to transmit path: a whole frame of the host (no FCS) at ``addr``, ``length`` bytes (14 to max)."""
    return data.StructLayout({"addr": cfg.addr_width, "length": cfg.length_bits})


def endpoint(cfg: EngineConfig) -> data.StructLayout:
    """What the transmit path knows of a connection besides its TCB."""
    return _with_peer(cfg, data.StructLayout({
        "tuple": FourTuple, "dmac": 48, "use_next_hop": 1, "next_hop": cfg.next_hop_bits,
    }))


def endpoint_write(cfg: EngineConfig) -> data.StructLayout:
    """Write of one endpoint: valid-only port, accepted every cycle."""
    return data.StructLayout({"id": cfg.id_bits, "endpoint": endpoint(cfg)})


def ring_write(cfg: EngineConfig) -> data.StructLayout:
    """PROVISION: base and log2 size of a ring of ``id`` (one such port each for send and receive rings), accepted every cycle."""
    return data.StructLayout({"id": cfg.id_bits, "base": cfg.addr_width, "log2": 5})


def ip_header_write(cfg: EngineConfig) -> data.StructLayout:
    """PROVISION (``own`` 0: the registers' values) and SET_IP_HEADER: what stands in a connection's IP headers,
    accepted every cycle."""
    return data.StructLayout({"id": cfg.id_bits, "own": 1, "ttl": 8, "tos": 8})


def next_hop_write(cfg: EngineConfig) -> data.StructLayout:
    """NEXT_HOP: the MAC address of a next-hop entry, accepted every cycle."""
    return data.StructLayout({"index": cfg.next_hop_bits, "mac": 48})


def table_result(cfg: EngineConfig) -> data.StructLayout:
    """What the connection table holds for a four-tuple: a connection id, or a syncache index when ``is_syncache``.
    ``full``: there is no place for another entry with this four-tuple."""
    return data.StructLayout({"hit": 1, "is_syncache": 1, "full": 1, "index": max(cfg.id_bits, cfg.syncache_bits)})


class TableOp(enum.Enum, shape=unsigned(2)):
    """Updates of the connection table."""

    INSERT = 0   # fails with EXISTS or TABLE_FULL
    REPLACE = 1  # key must be there: its index is replaced (syncache entry becomes a connection); else BAD_STATE
    DELETE = 2   # key must be there with exactly this index; else BAD_STATE


def table_update(cfg: EngineConfig) -> data.StructLayout:
    """Update of the connection table; answered by one FlowResponse-shaped status."""
    return data.StructLayout({
        "op": TableOp, "tuple": FourTuple, "is_syncache": 1, "index": max(cfg.id_bits, cfg.syncache_bits),
    })


def listen_write(cfg: EngineConfig) -> data.StructLayout:
    """LISTEN / UNLISTEN (``enable`` 0); answered by a status when done: for UNLISTEN after RSTs to the half-open children are queued."""
    return data.StructLayout({
        "enable": 1, "listener": cfg.listener_bits, "laddr": 32, "lport": 16, "mss": 16, "rcv_scale": 4, "wnd": 16,
    })


SynEvent = data.StructLayout({
    # Listen unit to event writer: SYN_RECEIVED, or (gone = 1) SYNCACHE_GONE.
    "gone": 1, "syncache_ref": 16, "listener": 8, "tuple": FourTuple, "iss": 32, "irs": 32,
    "mss": 16, "ws_present": 1, "ws": 4, "sack_ok": 1, "ts_ok": 1,
})


def syn_event(cfg: EngineConfig) -> data.StructLayout:
    """SynEvent, with the peer's IPv6 address where there is IPv6."""
    return _with_peer(cfg, SynEvent)


def connection_report(cfg: EngineConfig) -> data.StructLayout:
    """Pipeline to event writer: a snapshot of one TCB, asked for by id (read-only pass)."""
    return data.StructLayout({
        "id": cfg.id_bits, "generation": 8, "state": State, "established": 1, "peer_closed": 1, "terminal": 1,
        "bad_doorbell": 1, "reason": Reason, "syncache_ref": 16, "mss": 16, "snd_scale": 4, "rcv_scale": 4,
        "iss": 32, "irs": 32,
        "snd_una_position": 32,  # acknowledged up to; our FIN is not counted
        "rcv_nxt_position": 32,  # the peer's FIN counts as one; compare with the placed position before reporting terminal
        "ts_ok": 1,  # segments carry timestamps, which take their part of ``mss``
        "urgent": 1, "rcv_up": 32,  # RCV.UP, a sequence number, if there is one; it may lie behind rcv_nxt
    })


def dma_request(cfg: EngineConfig) -> data.StructLayout:
    """One DMA transfer: ``length`` bytes (at least 1) from ``addr``. With ``wrap_log2`` != 0 the address wraps inside the aligned
    ring of that size that holds it. The DMA splits at 4 KiB pages, ring end and burst length."""
    return data.StructLayout({"addr": cfg.addr_width, "length": cfg.length_bits, "wrap_log2": 5})


def dma_read_data(cfg: EngineConfig) -> data.StructLayout:
    """Words of a read in memory alignment: the first word holds the byte at ``addr`` in lane ``addr mod bytes_per_beat``. After a ring
    wrap the bytes continue in the next word at lane 0 (the ring end is word aligned). ``last`` in the transfer's last word, where ``error``
    says whether any beat had an AXI error."""
    return data.StructLayout({"data": cfg.data_width, "last": 1, "error": 1})


CommandDone = data.StructLayout({"argument": 32, "opcode": 8, "status": Status, "tag": 16, "value": 64})
"""Command processor to event writer: a COMMAND_DONE event."""


def frame_event(cfg: EngineConfig) -> data.StructLayout:
    """Placement to event writer: a host frame lies in its slot (the write is acknowledged)."""
    return data.StructLayout({"slot": 16, "length": cfg.length_bits})


ErrorEvent = data.StructLayout({"code": 8, "argument": 32})
"""Any block to event writer, valid-only: the newest one not yet written wins (each also counts)."""


class Counter(enum.IntEnum):
    """Counters: one pulse line each, in this order in the register map (32 bits, wrapping)."""

    RX_FRAMES = 0            # frames begun
    RX_BAD_FRAME = 1         # stream error, shorter than its headers, longer than max_frame_bytes
    RX_NOT_FOR_US = 2        # unicast of another MAC
    RX_BAD_IP = 3            # IP header: version, length, checksum, source address
    RX_BAD_TCP = 4           # TCP checksum, data offset, option lengths
    RX_TCP_SEGMENTS = 5
    RX_HOST_FRAMES = 6
    RX_HOST_DROPPED = 7      # host frame ring full
    RX_UNKNOWN_SEGMENT = 8   # TCP segment for no connection and no listener
    SYN_RECEIVED = 9
    SYN_DROPPED_FULL = 10    # no room in syncache or connection table, no id in stock: dropped, or left to the host (SYN_TO_HOST)
    SYNCACHE_EXPIRED = 11
    SYNCACHE_BAD_ACK = 12
    ACCEPTED = 13
    TX_FRAMES = 14
    TX_SEGMENTS = 15
    TX_RST = 16
    TX_RETRANSMITS = 17
    RTO_EXPIRED = 18
    FAST_RETRANSMITS = 19
    RX_OUT_OF_ORDER = 20
    RX_OUT_OF_WINDOW = 21    # unacceptable segment (answered with an ACK)
    RX_DUPLICATE_ACK = 22
    RX_OOO_DISCARDED = 23    # no interval free
    BAD_DOORBELL = 24
    BAD_COMMAND = 25
    DMA_READ_ERROR = 26
    DMA_WRITE_ERROR = 27
    EVENTS_WRITTEN = 28
    EVENT_RING_FULL = 29     # cycles in units of 256 that the event writer waited for the host
    CHALLENGE_ACKS = 30
    TX_DROPPED = 31          # frame not sent: payload could not be read
    WATCHDOG = 32            # work waits and nothing moves: error event WATCHDOG, STATUS
    SYN_QUEUE_FULL = 33      # SYN dropped: they come faster than they are dealt with
    RST_SUPPRESSED = 34      # reset not sent: RST_LIMIT, or the line is behind
    CHALLENGE_SUPPRESSED = 35  # ACK of a segment that was not taken not sent: CHALLENGE_LIMIT, INVALID_LIMIT, or the line is behind
    SYN_COOKIES = 36         # SYN,ACK sent with a cookie
    OLD_TIMESTAMPS = 37      # segment older than the peer's newest one (PAWS, RFC 7323 section 5.3): not taken; in RX_OUT_OF_WINDOW too
