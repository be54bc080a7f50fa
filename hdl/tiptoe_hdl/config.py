"""The one frozen object every component takes its sizes from (architecture idea 8)."""

from dataclasses import dataclass, replace
from typing import Any

from .congestion import NUMBERS

ETHERNET_BYTES = 14
"""Of a frame, besides its packet."""

ETHERNET_FRAME_BYTES = 1514
"""Ethernet's longest frame, without FCS and 802.1Q tag."""

ETHERNET_LENGTH_BITS = 12

JUMBO_FRAME_BYTES = 9014
"""An MTU of 9000."""


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _buckets(connections: int) -> int:
    return max(16, connections // 2)


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Sizes and features of one engine.

    Attributes
    ----------
    name : str
        Name of this configuration, shown by the command line and in build directories.
    data_width : int
        Bits of the frame streams and of the AXI4 master: 32, 64, 128 or 256.
    addr_width : int
        Bits of a host memory address (AXI4), 32 to 64.
    connections : int
        Number of connection ids; a power of two, 16 to 65,536.
    listeners : int
        Listen table entries; a power of two.
    syncache_entries : int
        Half-open connections the engine keeps; a power of two.
    buckets_per_hash : int
        Rows of each of the two hash tables of the connection table; 4 ways a row; a power of two.
        0 chooses ``connections / 2``, 16 at least: a load of a quarter when every id is in use, of a half when as many
        connections are half open besides.
    next_hops : int
        Entries of the next-hop table; a power of two.
    rx_buffer_bytes : int
        Received frames waiting for their verdict; a power of two.
    tx_buffer_bytes : int
        Payload fetched ahead of its frame; a power of two.
    ooo_intervals : int
        Stretches of data a connection may have received out of order, 2 to 4: as many holes does it remember, and
        as many SACK blocks does it tell the peer.
    congestion : tuple of str
        Congestion control algorithms built in, by their names (``congestion.ALGORITHMS``). "newreno" is among them. Where none of
        them has programs, the unit that runs them is left out.
    timestamps : bool
        Connections may have timestamps (RFC 7323): PAWS, and a round-trip time from each acknowledgement of a window.
    pacing : bool
        Connections may have a pacing rate, which their data does not exceed.
    max_frame_bytes : int
        Longest Ethernet frame carried, without FCS and 802.1Q tag: 14 bytes more than the largest MTU, 9014 at most. What holds
        frames has room for two of them; beyond 1514 rings are larger too (``ring_log2_min``).
    vlan : bool
        The interface may be in a network of 802.1Q tags: they are put on and taken off at the frame ports, a cycle each way.
    ipv6 : bool
        TCP over IPv6 too, at one IPv6 address of our own; needs a ``data_width`` of 64 bits or more.
    tick_cycles : int
        Reset value of the prescaler: clock cycles per timer tick (nominally 1 ms).
    """

    name: str = "custom"
    data_width: int = 64
    addr_width: int = 64
    connections: int = 64
    listeners: int = 16
    syncache_entries: int = 32
    buckets_per_hash: int = 0
    next_hops: int = 16
    rx_buffer_bytes: int = 16384
    tx_buffer_bytes: int = 16384
    ooo_intervals: int = 4
    congestion: tuple[str, ...] = ("newreno", "reno", "cubic", "host", "dctcp")
    timestamps: bool = True
    pacing: bool = True
    max_frame_bytes: int = 1514
    vlan: bool = False
    ipv6: bool = False
    tick_cycles: int = 125_000

    def __post_init__(self):
        if self.data_width not in (32, 64, 128, 256):
            raise ValueError(f"data_width must be 32, 64, 128 or 256 bits, not {self.data_width}")
        if not 32 <= self.addr_width <= 64:
            raise ValueError(f"addr_width must be 32 to 64 bits, not {self.addr_width}")
        if not (_is_power_of_two(self.connections) and 16 <= self.connections <= 65536):
            raise ValueError(f"connections must be a power of two from 16 to 65536, not {self.connections}")
        for field in ("listeners", "syncache_entries", "next_hops", "rx_buffer_bytes", "tx_buffer_bytes"):
            if not _is_power_of_two(getattr(self, field)):
                raise ValueError(f"{field} must be a power of two, not {getattr(self, field)}")
        if not ETHERNET_FRAME_BYTES <= self.max_frame_bytes <= JUMBO_FRAME_BYTES:
            raise ValueError(
                f"max_frame_bytes must be {ETHERNET_FRAME_BYTES} to {JUMBO_FRAME_BYTES}, not {self.max_frame_bytes}"
            )
        if not 2 <= self.ooo_intervals <= 4:
            raise ValueError(f"ooo_intervals must be 2 to 4, not {self.ooo_intervals}")
        if self.ipv6 and self.data_width < 64:
            raise ValueError("ipv6 needs a data_width of 64 bits or more")
        if "newreno" not in self.congestion or not set(self.congestion) <= set(NUMBERS):
            raise ValueError(f"congestion names newreno and others of {', '.join(NUMBERS)}, not {self.congestion}")
        if self.syncache_entries > self.connections:
            raise ValueError("syncache_entries must not exceed connections")
        if self.buckets_per_hash == 0:
            object.__setattr__(self, "buckets_per_hash", _buckets(self.connections))
        if not _is_power_of_two(self.buckets_per_hash):
            raise ValueError(f"buckets_per_hash must be a power of two, not {self.buckets_per_hash}")

    @property
    def bytes_per_beat(self) -> int:
        """Bytes of one beat of the frame streams and of the AXI4 master."""
        return self.data_width // 8

    @property
    def frame_words(self) -> int:
        """Beats of the longest frame."""
        return -(-self.max_frame_bytes // self.bytes_per_beat)

    @property
    def length_bits(self) -> int:
        """Bits of a length of a frame or of a part of it, and of a place in it behind two pad bytes."""
        jumbo = self.max_frame_bytes > ETHERNET_FRAME_BYTES
        return max(ETHERNET_LENGTH_BITS + jumbo, (self.max_frame_bytes + 1).bit_length())

    @property
    def ring_log2_min(self) -> int:
        """Log2 of the bytes of a connection's smallest ring: a segment always fits."""
        return self.length_bits

    @property
    def id_bits(self) -> int:
        """Bits of a connection id."""
        return (self.connections - 1).bit_length()

    @property
    def syncache_bits(self) -> int:
        """Bits of a syncache index."""
        return (self.syncache_entries - 1).bit_length()

    @property
    def listener_bits(self) -> int:
        """Bits of a listener index."""
        return max(1, (self.listeners - 1).bit_length())

    @property
    def next_hop_bits(self) -> int:
        """Bits of a next-hop index."""
        return max(1, (self.next_hops - 1).bit_length())

    def with_mtu(self, mtu: int) -> "EngineConfig":
        """A copy that carries packets of ``mtu`` bytes, if it does not: longer frames, and buffers of at least three."""
        frame = mtu + ETHERNET_BYTES
        if frame <= self.max_frame_bytes:
            return self
        room = 1 << (3 * frame - 1).bit_length()
        return self.with_(
            name=f"{self.name}_mtu{mtu}",
            max_frame_bytes=frame,
            rx_buffer_bytes=max(room, self.rx_buffer_bytes),
            tx_buffer_bytes=max(room, self.tx_buffer_bytes),
        )

    def with_(self, **changes) -> "EngineConfig":
        """A copy with some fields changed. Rows of the hash tables that were chosen for the connections are chosen anew."""
        if self.buckets_per_hash == _buckets(self.connections):
            changes = {"buckets_per_hash": 0} | changes
        return replace(self, **changes)


TINY = EngineConfig(
    name="tiny",
    connections=16,
    listeners=4,
    syncache_entries=4,
    next_hops=4,
    rx_buffer_bytes=8192,
    tx_buffer_bytes=8192,
    congestion=("newreno", "reno"),
    timestamps=False,
    pacing=False,
)
"""For unit tests: every table can be filled in a short simulation."""

ECP5 = EngineConfig(name="ecp5", connections=64, addr_width=32, rx_buffer_bytes=8192, tx_buffer_bytes=8192)
"""For LFE5U-85F boards at 125 MHz or more."""

LEAN: dict[str, Any] = {
    "congestion": ("newreno", "reno"), "timestamps": False, "pacing": False, "ooo_intervals": 2,
}  # fmt: skip
"""What ``with_`` changes for an engine that has to be small: with ECP5 and 1,024 connections 184 block RAMs, not 268."""

SIM = EngineConfig(name="sim", connections=256, listeners=64, syncache_entries=128, next_hops=64, ipv6=True)
"""The live simulation and the demo."""

DATACENTRE = EngineConfig(
    name="datacentre",
    connections=65536,
    listeners=256,
    syncache_entries=4096,
    next_hops=256,
    rx_buffer_bytes=65536,
    tx_buffer_bytes=65536,
)
"""The largest one: simulation only."""

CONFIGS = {config.name: config for config in (TINY, ECP5, SIM, DATACENTRE)}
