"""TCP options of a header (RFC 9293 section 3.2, RFC 7323, RFC 2018), but for SACK blocks: pure functions."""

from amaranth.hdl import Cat, Mux, Value

from ..wire.headers import (
    OPTION_BYTES,
    OPTION_NOP,
    OPTION_SACK_PERMITTED,
    OPTION_TIMESTAMPS,
    OPTION_WINDOW_SCALE,
    TCP_NOP_SACK_PERMITTED,
    TCP_NOP_TIMESTAMPS,
    TCP_NOP_WINDOW_SCALE,
    TIMESTAMPS_WORDS,
    pack,
)


def more_syn_options(ws_present, ws, sack_ok) -> list[Value]:
    """What follows a SYN's MSS option: window scale, SACK-permitted; two words, zero where there is none."""
    scale = Cat(pack(TCP_NOP_WINDOW_SCALE, {
        "nop": OPTION_NOP, "kind": OPTION_WINDOW_SCALE, "length": 3, "shift": ws,
    }))  # fmt: skip
    permitted = Cat(pack(TCP_NOP_SACK_PERMITTED, {
        "nops": OPTION_NOP << 8 | OPTION_NOP, "kind": OPTION_SACK_PERMITTED, "length": 2,
    }))  # fmt: skip
    bits = 8 * OPTION_BYTES
    permitted = permitted & sack_ok.replicate(bits)
    return [Mux(ws_present, scale, permitted), permitted & ws_present.replicate(bits)]


def timestamps(tsval, tsecr) -> list[Value]:
    """The timestamps option, its bytes in the order of the wire."""
    return pack(TCP_NOP_TIMESTAMPS, {
        "nops": OPTION_NOP << 8 | OPTION_NOP, "kind": OPTION_TIMESTAMPS, "length": 10, "tsval": tsval, "tsecr": tsecr,
    })  # fmt: skip


def option_sum(syn: bool, words: int, ws_present=0, ws=0, sack_ok=0, ts_ok=0) -> int:
    """What options add to the TCP checksum as far as it is known from the start: data offset, the pseudo header's length, and
    the options' own bytes but the MSS, the timestamps' values and, of the SACK option, what is behind the first word."""
    if syn:
        own = 0x0204 + ws_present * (0x0103 + 0x0300 + ws) + sack_ok * (0x0101 + 0x0402)
    else:
        own = (words > ts_ok * TIMESTAMPS_WORDS) * (0x0101 + 0x0100)
    own += ts_ok * (0x0101 + 0x080A)
    return (words << 12) + words * OPTION_BYTES + own
