"""Messages inside the transmit path, and the geometry of a frame: pure functions of the header length and the width."""

from amaranth.hdl import Const, Value, unsigned
from amaranth.lib import data, enum
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import SACK_BITS, FourTuple, peer_fields
from ..wire.headers import ETHERNET_BYTES, IPV4, IPV4_BYTES, IPV6_BYTES, OPTION_BYTES, TCP, TCP_BYTES, byte_of

HEADER_BYTES = ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES
"""Header of a segment without options."""

MORE_V6 = IPV6_BYTES - IPV4_BYTES
"""So much longer it is over IPv6."""


def versions(cfg: EngineConfig) -> range:
    """Whether a segment can be one of IPv6."""
    return range(1 + cfg.ipv6)


OPTION_WORDS = (0, 1, 2, 3, 5, 7, 9)
"""Words (OPTION_BYTES each) of options that there can be: none; with SYN the MSS and two more, or one of them, or none; one word
and two a SACK block otherwise, of four blocks at most."""

STAMPED_WORDS = (3, 4, 5, 6, 8, 10)
"""Likewise with timestamps, of three blocks at most."""


def option_words(cfg: EngineConfig) -> tuple[int, ...]:
    """All numbers of words of options that there can be."""
    return tuple(sorted({*OPTION_WORDS, *(STAMPED_WORDS if cfg.timestamps else ())}))


NO_HEADER = 15
"""In place of a number of option words: a host's frame, which has no header of ours."""

SLOT_BYTES = 128
"""Room for one header: a power of two that holds HEADER_BYTES and the most options."""


class Source(enum.Enum, shape=unsigned(2)):
    """Where a frame comes from."""

    SEGMENT = 0
    CONTROL = 1
    HOST = 2


def frames_inside(cfg: EngineConfig) -> int:
    """Frames between acceptance and their last beat, a power of two: enough that segments of one byte, as many
    cycles each as 60 bytes take, hide a memory latency of 200 cycles (170 at 256 bits, of three cycles each)."""
    return 64 if cfg.data_width > 64 else 32


def header_bytes(words: int, v6: int = 0) -> int:
    """Bytes of Ethernet, IP and TCP header with so many words of options."""
    return HEADER_BYTES + MORE_V6 * v6 + OPTION_BYTES * words


def payload_start(cfg: EngineConfig, words: int, v6: int = 0) -> int:
    """The beat with the header's last byte; since no header ends with a beat, the payload's first is there too."""
    assert header_bytes(words, v6) % cfg.bytes_per_beat
    return header_bytes(words, v6) // cfg.bytes_per_beat


def exceeds(value: Value, limit: int) -> Value:
    """``value > limit``, without a carry chain: what is shared by several limits is made once."""
    result: Value = Const(0)
    for bit in range(len(value)):
        result = value[bit] & result if limit >> bit & 1 else value[bit] | result
    return result


def beat_bits(cfg: EngineConfig) -> int:
    """Bits of a beat's index in its frame."""
    return ceil_log2(cfg.frame_words)


def buffer_words(cfg: EngineConfig) -> int:
    """Words of the payload buffer."""
    return cfg.tx_buffer_bytes // cfg.bytes_per_beat


def slot_words(cfg: EngineConfig) -> int:
    """Words of one header slot."""
    return SLOT_BYTES // cfg.bytes_per_beat


def tx_header(cfg: EngineConfig) -> data.StructLayout:
    """Resolver to header builder: one TCP segment; ``length`` is that of its payload, ``words`` that of its options.
    ``ws_present`` and ``sack_ok`` count with SYN, ``sacks`` and ``urgent`` are 0 with SYN; ``tsval`` and ``tsecr`` count with
    ``ts_ok``; with ``twice`` the first block is ``mss`` bytes from ``twice_start`` on."""
    return data.StructLayout({
        "tuple": FourTuple, "dmac": 48, "seq": 32, "ack": 32, "flags": 8, "wnd": 16,
        "words": 4, "mss": 16, "ws_present": 1, "ws": 4, "sack_ok": 1, "sacks": SACK_BITS,
        "length": cfg.length_bits, "ttl": 8, "tos": 8, "urgent": 16, "twice": 1, "twice_start": 32, "ts_ok": 1,
        **({"tsval": 32, "tsecr": 32} if cfg.timestamps else {}),
        **({"v6": 1} if cfg.ipv6 else {}), **dict.fromkeys(peer_fields(cfg), 128),
    })  # fmt: skip


def tx_info(cfg: EngineConfig) -> data.StructLayout:
    """Resolver to assembler: the shape of one frame, in order of acceptance."""
    return data.StructLayout({
        "host": 1,           # a host frame: no header of ours
        "bad": 1,            # not to be sent: too long or too short
        "segment": 1,        # counts in segments_done
        "rst": 1,
        "late": 1,           # its header's sums come late: not to be begun before
        "payload": 1,        # there is payload
        "payload_start": 5,  # beat of the payload's first byte
        "payload_last": beat_bits(cfg),  # beat of its last byte
        "last": beat_bits(cfg),          # the frame's last beat, padding included
        "last_lane": ceil_log2(cfg.bytes_per_beat),
        "id": cfg.id_bits,
        **({"v6": 1} if cfg.ipv6 else {}),  # its header is one of IPv6
    })  # fmt: skip


def fetch_job(cfg: EngineConfig) -> data.StructLayout:
    """Resolver to fetcher: payload of one frame, to be aligned to ``dst_offset``; it takes ``words`` of the buffer."""
    return data.StructLayout({
        "addr": cfg.addr_width, "length": cfg.length_bits, "wrap_log2": 5,
        "dst_offset": ceil_log2(cfg.bytes_per_beat), "words": beat_bits(cfg) + 1,
    })  # fmt: skip


def header_word(cfg: EngineConfig) -> data.StructLayout:
    """Header builder to assembler: one word for the header memory."""
    return data.StructLayout({
        "address": ceil_log2(frames_inside(cfg) * slot_words(cfg)), "data": cfg.data_width,
    })  # fmt: skip


HeaderSums = data.StructLayout({
    "ip_checksum": 16,  # ready for the wire
    "tcp": 16,          # one's complement sum of pseudo header and TCP header, without payload
})  # fmt: skip
"""Header builder to assembler, one per segment."""

PayloadResult = data.StructLayout({"error": 1})
"""Fetcher to sequencer: a frame's payload is in the buffer, or could not be read."""

PayloadSums = 16
"""Fetcher to assembler: a payload's one's complement sum (RFC 1071)."""

TxBegin = data.StructLayout({"header": 1, "payload": 1})
"""Sequencer to assembler, with a frame's first step: take a header's sums, take a payload's."""

IP_CHECKSUM_BYTE = ETHERNET_BYTES + byte_of(IPV4, "checksum")
TCP_CHECKSUM_BYTE = ETHERNET_BYTES + IPV4_BYTES + byte_of(TCP, "checksum")
TCP_CHECKSUM_BYTE_V6 = TCP_CHECKSUM_BYTE + MORE_V6
"""Where in the frame the checksums stand."""


def tx_step(cfg: EngineConfig) -> data.StructLayout:
    """Sequencer to assembler: one beat to be read."""
    return data.StructLayout({
        "emit": 1,                # send it; else it is only read past
        "header": 1,              # it holds header bytes
        "payload": 1,             # it holds payload bytes
        "index": ceil_log2(slot_words(cfg)),  # beat of the header
        "header_last": 1,         # the header slot is done with
        "ip_checksum": 1, "tcp_checksum": 1,  # it holds that checksum
        **({"tcp_checksum_v6": 1} if cfg.ipv6 else {}),  # likewise, where IPv6 has it
        "last": 1, "last_lane": ceil_log2(cfg.bytes_per_beat),
    })  # fmt: skip


def result_delay(cfg: EngineConfig) -> int:
    """Cycles ``PayloadResult`` waits, so that the payload's sum, ready a fixed time after its last word, is in time for
    the checksum's beat, which comes the earlier the wider the beats are."""
    return {32: 0, 64: 0, 128: 2, 256: 4}[cfg.data_width]


def sums_first(cfg: EngineConfig) -> bool:
    """A checksum stands in a frame's first beat: none is begun whose header's sums are not there."""
    return IP_CHECKSUM_BYTE < cfg.bytes_per_beat
