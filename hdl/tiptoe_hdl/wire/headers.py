"""Header layouts as tables: Ethernet II, IPv4 (RFC 791), IPv6 (RFC 8200 section 3), TCP (RFC 9293 section 3.1) and its options.

A field is (first bit, width) with bits numbered as in the RFCs' diagrams: bit 0 is the highest bit of the header's
first byte, so a field's bytes are in network order.
"""

from collections.abc import Mapping

from amaranth.hdl import Cat, Const, Value, ValueLike

Layout = Mapping[str, tuple[int, int]]

ETHERNET: Layout = {
    "destination": (0, 48),
    "source": (48, 48),
    "ethertype": (96, 16),
}
ETHERNET_BYTES = 14
ETHERNET_MIN_BYTES = 60
"""Shortest frame, without FCS (IEEE 802.3 section 3.2.8)."""

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_ARP = 0x0806
ETHERTYPE_VLAN = 0x8100
"""TPID of a customer tag (IEEE 802.1Q table 9-1)."""

VLAN_TAG_BYTE, VLAN_TAG_BYTES = 12, 4
"""Where a tag stands: TPID, then priority (3 bits), drop eligibility (1) and network (12)."""

IPV4: Layout = {
    "version": (0, 4),
    "ihl": (4, 4),
    "tos": (8, 8),
    "total_length": (16, 16),
    "identification": (32, 16),
    "reserved": (48, 1),
    "dont_fragment": (49, 1),
    "more_fragments": (50, 1),
    "fragment_offset": (51, 13),
    "ttl": (64, 8),
    "protocol": (72, 8),
    "checksum": (80, 16),
    "source": (96, 32),
    "destination": (128, 32),
}
IPV4_BYTES = 20

IPV6: Layout = {
    "version": (0, 4),
    "traffic_class": (4, 8),
    "flow_label": (12, 20),
    "payload_length": (32, 16),
    "next_header": (48, 8),
    "hop_limit": (56, 8),
    "source": (64, 128),
    "destination": (192, 128),
}
IPV6_BYTES = 40
PROTOCOL_TCP = 6

TCP: Layout = {
    "source_port": (0, 16),
    "destination_port": (16, 16),
    "seq": (32, 32),
    "ack": (64, 32),
    "data_offset": (96, 4),
    "reserved": (100, 4),
    "flags": (104, 8),
    "wnd": (112, 16),
    "checksum": (128, 16),
    "urgent": (144, 16),
}
TCP_BYTES = 20

OPTION_END, OPTION_NOP, OPTION_MSS, OPTION_WINDOW_SCALE, OPTION_SACK_PERMITTED, OPTION_SACK = range(6)

TCP_MSS: Layout = {
    "kind": (0, 8),
    "length": (8, 8),
    "mss": (16, 16),
}
"""The maximum segment size option (RFC 9293 section 3.2)."""

TCP_NOP_WINDOW_SCALE: Layout = {
    "nop": (0, 8),
    "kind": (8, 8),
    "length": (16, 8),
    "shift": (24, 8),
}
"""The window scale option (RFC 7323 section 2.2), aligned by a NOP in front."""

TCP_NOP_SACK_PERMITTED: Layout = {
    "nops": (0, 16),
    "kind": (16, 8),
    "length": (24, 8),
}
"""The SACK-permitted option (RFC 2018 section 2), aligned by two NOPs in front."""

OPTION_TIMESTAMPS = 8

TCP_NOP_TIMESTAMPS: Layout = {
    "nops": (0, 16),
    "kind": (16, 8),
    "length": (24, 8),
    "tsval": (32, 32),
    "tsecr": (64, 32),
}
"""The timestamps option (RFC 7323 section 3.2), aligned by two NOPs in front as in its appendix A."""

TIMESTAMPS_WORDS = 3
"""Words of OPTION_BYTES that it takes."""

OPTION_BYTES = 4
"""Bytes of a word of options: of any option above but the timestamps."""

SACK_BLOCK_BYTES = 8
"""A block of the SACK option (RFC 2018 section 3): two sequence numbers. Two NOPs, kind and length stand before the first."""


def byte_of(layout: Layout, name: str) -> int:
    """Offset of a field's first byte in its header; the field must begin at a byte."""
    first, _ = layout[name]
    if first % 8:
        raise ValueError(f"{name} does not begin at a byte")
    return first // 8


def pack(layout: Layout, values: Mapping[str, ValueLike]) -> list[Value]:
    """The header's bytes, in the order of the wire. Every field has a value, cut or extended to its width."""
    if set(values) != set(layout):
        raise ValueError(f"fields missing or unknown: {sorted(set(values) ^ set(layout))}")
    size = max(first + width for first, width in layout.values())
    bits: list[Value] = [Const(0, 1)] * size
    for name, (first, width) in layout.items():
        value = Value.cast(values[name])
        value = Cat(value, Const(0, max(0, width - len(value))))[:width]
        for at in range(width):
            bits[first + at] = value[width - 1 - at]
    return [Cat(bits[at + 7 - bit] for bit in range(8)) for at in range(0, size, 8)]
