"""What an engine can do, and what the driver chooses: capabilities and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import abi_gen as abi
from .device import Device
from .limits import check_at_least, check_power_of_two, check_registers

DRIVER_MAJOR = 0
"""Major version of the register map this driver is written for."""

VLAN_MOST = 4094
"""Of IEEE 802.1Q's network numbers the last one is reserved."""


class DeviceError(Exception):
    """The device is not what the driver expects, or does not come up."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Sizes and choices of one attached engine.

    Attributes
    ----------
    snd_ring_bytes, rcv_ring_bytes : int
        Send and receive ring of a connection: powers of two, 4 KiB to 16 MiB.
    command_entries : int
        Entries of the command ring, a power of two from 16 to 65536; 0: four per connection id, 64 to 16384.
    command_reserve : int
        Entries that only close, abort, release and the like may use; 0: a quarter of the ring.
    frame_slots : int
        Received host frames that may wait, a power of two from 2 to 32768 (2 KiB each).
    frame_buffers : int
        Host frames that may be on their way out.
    stock : int or None
        Ids kept provisioned for passive opens once somebody listens, at most; None: half of all. Fewer while active
        opens find none.
    active_reserve : int or None
        Ids kept free for active opens, as ids come free; None: a sixteenth of all.
    memory_base, memory_limit : int
        Range of host memory that the driver may use; limit None: to the end.
    rst_unknown : bool
        The engine answers segments of no connection with RST; False: they go to the host.
    syn_to_host : bool
        SYNs to a listener go to the host when the engine has no room for them: a software TCP listens too. Needs
        ``rst_unknown=False``, for the segments that follow. False: they are dropped, and the peer tries again.
    syn_cookies : bool
        SYNs for which there is no entry, or no id that nobody was promised, are answered with SYN cookies: a flood of SYNs locks
        nobody out. Connections made so have no window scale and no selective acknowledgements, and lose data sent with the first
        ACK once. Where ids are short without a flood, those who have an answer are not certain of their id. Without effect with
        ``syn_to_host``. False: dropped.
    sack : bool
        SYNs offer selective acknowledgements (RFC 2018), and SYN,ACKs permit them; a SYN cookie's beside timestamps only.
        FreeBSD: net.inet.tcp.sack.enable, Linux: tcp_sack.
    ecn : str
        Explicit congestion notification (RFC 3168): "accept": who offers it gets it, and sockets whose TCP_CONGESTION is "dctcp"
        offer it; "offer": every SYN of ours does; "off". FreeBSD: net.inet.tcp.ecn.enable, Linux: tcp_ecn, both 2, 1 and 0.
    timestamps : bool
        SYNs offer timestamps (RFC 7323), and SYN,ACKs have them if the SYN had. Without effect where the engine was
        built without. FreeBSD: net.inet.tcp.rfc1323, Linux: tcp_timestamps.
    quick_ack : bool
        The first 256 KiB of a connection are acknowledged segment by segment, short ones with PSH excepted: a peer in slow start
        learns of the line sooner. False: every second segment from the beginning.
    pmtud_blackhole : bool
        Segments of a connection that has had three time-outs in a row become smaller, since its path may drop large ones without
        a word; what held before is probed for when data moves again (netinet/tcp_blackhole.py). FreeBSD:
        net.inet.tcp.pmtud_blackhole_detection, Linux: tcp_mtu_probing 1.
    ipv6 : str
        Own IPv6 address with the prefix length of its subnet, ``2001:db8::1/64``; empty: none, and IPv6 is left to other stacks.
        The engine must have been built with it.
    ipv6_gateway : str
        Next hop of the default route of IPv6; empty: none.
    vlan : int or None
        The network of 802.1Q tags that the interface is in, 1 to 4094; 0: frames are sent with a priority tag; None: no tags.
    vlan_priority : int
        Priority in the tags sent (PCP), 0 to 7.
    promiscuous : bool
        Frames for other MAC addresses go to the host.
    external_tick : bool
        TCP's clock is the engine's tick input.
    tick_us : int
        A tick of TCP's clock in microseconds, for what is told of times, and for the engine's congestion control.
    clock_hz : int
        The engine's clock, in which pacing rates are told it.
    congestion : str or None
        Congestion control of connections that ask for none (TCP_CONGESTION): a name of ``abi_gen.Congestion`` in small
        letters, which the engine must have. None: "cubic" where it has it, else "newreno".
    registers : mapping
        Further registers to write before the engine is enabled, value by address (timers: REG_MSL_TICKS...): those in
        ``limits.SETTABLE``. The rest of these have their values after power-up, whatever a driver before has written; but
        REG_TICK_CYCLES stays as it is, since only who knows the engine's clock can give it back its value.
    seed : int or None
        Makes the secret keys reproducible in tests; None: random.
    fin_wait_2_us : int
        How long a connection that nobody reads any more waits for the peer's FIN.
    orphan_us : int
        How long a connection that the user has closed goes on, in FIN_WAIT_1, CLOSING or LAST_ACK, without the peer acknowledging
        any of what was written; then it is reset (counter ``orphans_reset``). A peer that answers probes of its closed window,
        and never opens it, would hold the id and its rings for ever, and nobody is left to end it. 0: never, but for the engine's
        own R2. Linux: tcp_orphan_retries, FreeBSD: net.inet.tcp.finwait2_timeout, 60 s too.
    watchdog_us : int
        Interval at which the device is asked whether it is still there, and whether something stands still; 0: never,
        the next slow read finds out, or an error event.
    on_standstill : str
        What becomes of a device whose commands or events stand still: "reset", since nothing else brings them back and its
        connections would hang with nobody told; or "report": it is only told of, for who looks for the cause.
    resets_most : int
        So many resets for standstills within ``resets_within_us``; the next one stops the device instead.
    resets_within_us : int
        See there.
    arp_retry_us, arp_tries : int
        Interval and number of ARP requests before a next hop counts as down.
    arp_down_us : int
        How long a next hop then counts as down without being asked again, unless it is heard of.
    arp_age_us : int
        How long a neighbour's address is good without being heard of; then it is asked for again if a connection uses it, and
        forgotten if none does. 0: for ever.
    link_down_us : int
        Link outage after which connections that could not send end with ENETDOWN.
    time_wait : str
        Who keeps TIME_WAIT: "engine"; "host": the stack, which frees the connection id at once and needs
        ``rst_unknown=False``, since late segments have to reach the host; "shared": the engine, but when ids run short the
        stack takes the oldest over.
    time_wait_us : int
        How long the host keeps it (2 MSL); the engine has REG_MSL_TICKS.

    Raises
    ------
    ValueError
        For another ``time_wait`` or ``on_standstill``, or for "host" or ``syn_to_host`` with ``rst_unknown``; for sizes, times
        and registers that the driver or the engine cannot do.
    """

    snd_ring_bytes: int = 1 << 17
    rcv_ring_bytes: int = 1 << 17
    command_entries: int = 0
    command_reserve: int = 0
    frame_slots: int = 256
    frame_buffers: int = 64
    fin_wait_2_us: int = 60_000_000
    orphan_us: int = 60_000_000
    stock: int | None = None
    active_reserve: int | None = None
    memory_base: int = 0
    memory_limit: int | None = None
    rst_unknown: bool = True
    syn_to_host: bool = False
    syn_cookies: bool = False
    sack: bool = True
    ecn: str = "accept"
    timestamps: bool = True
    quick_ack: bool = True
    pmtud_blackhole: bool = True
    ipv6: str = ""
    ipv6_gateway: str = ""
    vlan: int | None = None
    vlan_priority: int = 0
    promiscuous: bool = False
    external_tick: bool = False
    tick_us: int = 1000
    clock_hz: int = 125_000_000
    congestion: str | None = None
    registers: Mapping[int, int] = field(default_factory=dict)
    seed: int | None = None
    arp_retry_us: int = 1_000_000
    arp_tries: int = 3
    arp_down_us: int = 20_000_000
    arp_age_us: int = 60_000_000
    link_down_us: int = 600_000_000
    watchdog_us: int = 1_000_000
    on_standstill: str = "reset"
    resets_most: int = 3
    resets_within_us: int = 600_000_000
    time_wait: str = "shared"
    time_wait_us: int = 60_000_000

    def __post_init__(self) -> None:
        if self.time_wait not in ("engine", "host", "shared"):
            raise ValueError(f'time_wait is "engine", "host" or "shared", not {self.time_wait!r}')
        if self.on_standstill not in ("reset", "report"):
            raise ValueError(f'on_standstill is "reset" or "report", not {self.on_standstill!r}')
        if self.time_wait == "host" and self.rst_unknown:
            raise ValueError('time_wait="host" needs rst_unknown=False: the engine would answer late segments with RST')
        if self.syn_to_host and self.rst_unknown:
            raise ValueError("syn_to_host needs rst_unknown=False: the engine would answer what follows with RST")
        if self.vlan is not None and not 0 <= self.vlan <= VLAN_MOST:
            raise ValueError(f"vlan is 0 to {VLAN_MOST}, not {self.vlan}")
        if self.ipv6_gateway and not self.ipv6:
            raise ValueError("ipv6_gateway is for who has an address of IPv6: it needs ipv6")
        if not 0 <= self.vlan_priority <= 7:
            raise ValueError(f"vlan_priority is 0 to 7, not {self.vlan_priority}")
        if self.vlan is None and self.vlan_priority:
            raise ValueError("vlan_priority stands in tags: it needs vlan")
        if self.congestion is not None and self.congestion.upper() not in abi.Congestion.__members__:
            raise ValueError(f"there is no congestion control {self.congestion!r}")
        if self.ecn not in ECN:
            raise ValueError(f'ecn is "off", "accept" or "offer", not {self.ecn!r}')
        if self.command_entries:
            check_power_of_two("command_entries", self.command_entries, 16, 1 << 16)
        check_power_of_two("frame_slots", self.frame_slots, 2, 1 << 15)
        check_at_least(1, frame_buffers=self.frame_buffers, tick_us=self.tick_us, arp_tries=self.arp_tries)
        check_at_least(1, arp_retry_us=self.arp_retry_us, clock_hz=self.clock_hz)
        check_at_least(0, command_reserve=self.command_reserve, stock=self.stock, active_reserve=self.active_reserve)
        check_at_least(0, memory_base=self.memory_base, fin_wait_2_us=self.fin_wait_2_us, orphan_us=self.orphan_us)
        check_at_least(0, arp_down_us=self.arp_down_us, arp_age_us=self.arp_age_us, link_down_us=self.link_down_us)
        check_at_least(0, watchdog_us=self.watchdog_us, time_wait_us=self.time_wait_us)
        check_at_least(0, resets_most=self.resets_most, resets_within_us=self.resets_within_us)
        check_registers(self.registers, self.tick_us)


ECN = {"off": 0, "offer": 1, "accept": 2}
"""Values of CONTROL.ECN."""


ETHERNET_BYTES = 14
"""What a frame has besides its packet, without FCS and 802.1Q tag."""

LEAST_MTU = 68
"""RFC 791."""

SMALLEST_RING = 1 << 12
"""Bytes of a ring, of an engine without long frames."""


@dataclass(frozen=True)
class Capabilities:
    """What CAPABILITIES and LIMITS say."""

    connections: int
    listeners: int
    syncache_entries: int
    next_hops: int
    data_bytes: int
    addr_width: int
    max_frame_bytes: int
    """Without FCS and 802.1Q tag."""
    vlan: bool
    """It knows 802.1Q tags."""
    ipv6: bool
    """It knows IPv6."""
    timestamps: bool
    """Connections may have timestamps."""
    pacing: bool
    """Connections may have a pacing rate."""
    ecn: bool
    """It knows explicit congestion notification."""
    congestion: int
    """A bit for each algorithm (abi_gen.Congestion)."""

    @property
    def max_mtu(self) -> int:
        """Longest IP packet."""
        return self.max_frame_bytes - ETHERNET_BYTES

    @property
    def frame_slot_bytes(self) -> int:
        """Bytes of a slot of the frame ring: a power of two that holds the longest frame and the two bytes before it."""
        return max(abi.HOST_FRAME_SLOT_BYTES, 1 << (self.max_frame_bytes + abi.HOST_FRAME_OFFSET - 1).bit_length())

    @property
    def ring_bytes_min(self) -> int:
        """Bytes of a connection's smallest ring: more than any segment."""
        return SMALLEST_RING if self.max_frame_bytes <= 1514 else max(2 * SMALLEST_RING, self.frame_slot_bytes)

    def check_mtu(self, mtu: int) -> None:
        """ValueError if no interface on the engine can have this MTU."""
        if mtu > self.max_mtu:
            raise ValueError(
                f"MTU of {mtu} bytes: this engine carries {self.max_mtu} at most; EngineConfig.with_mtu is for more, up to 9000"
            )
        if mtu < LEAST_MTU:
            raise ValueError(f"MTU must be {LEAST_MTU} bytes or more, not {mtu}")

    def congestion_default(self, name: str | None) -> abi.Congestion:
        """The algorithm of connections that ask for none, of EngineOptions.congestion; DeviceError if it is not there."""
        if name is None:
            cubic = self.congestion >> abi.Congestion.CUBIC & 1
            return abi.Congestion.CUBIC if cubic else abi.Congestion.NEWRENO
        algorithm = abi.Congestion[name.upper()]
        if not self.congestion >> algorithm & 1:
            raise DeviceError(f"the engine has no congestion control {name!r}")
        return algorithm


PACING_FRACTION = 12
"""An interval is in 2^-12 cycles."""
_LONGEST_INTERVAL = (1 << 30) - 1


def ecn_bits(options: EngineOptions, capabilities: Capabilities) -> int:
    """CONTROL.ECN; 0 where the engine does not know it."""
    return ECN[options.ecn] << abi.CONTROL_ECN_SHIFT if capabilities.ecn else 0


def pacing_interval(options: EngineOptions, capabilities: Capabilities, rate: int) -> int:
    """``interval`` of SET_PACING for a rate in bytes per second, which it does not exceed; 0 for a rate of 0 or one beyond what
    the clock can tell, and where the engine has no pacing. The lowest rate is what the field can say."""
    if not rate or rate >= options.clock_hz << PACING_FRACTION or not capabilities.pacing:
        return 0
    return min(-(-(options.clock_hz << PACING_FRACTION) // rate), _LONGEST_INTERVAL)


def vlan_register(options: EngineOptions) -> int:
    """Value of register VLAN."""
    if options.vlan is None:
        return 0
    return abi.VLAN_TAG | options.vlan_priority << abi.VLAN_PRIORITY_SHIFT | options.vlan


def identify(device: Device) -> Capabilities:
    """Read who the device is; DeviceError when it is no engine that this driver knows."""
    if (magic := device.read32(abi.REG_ID)) != abi.ID_VALUE:
        raise DeviceError(f"no Tiptoe engine here: ID register reads {magic:#010x}")
    major = device.read32(abi.REG_VERSION) >> abi.VERSION_MAJOR_SHIFT
    if major != DRIVER_MAJOR:
        raise DeviceError(f"the engine's register map is version {major}, the driver's {DRIVER_MAJOR}")
    sizes, limits = device.read32(abi.REG_CAPABILITIES), device.read32(abi.REG_LIMITS)

    def size(mask: int, shift: int) -> int:
        return 1 << ((sizes & mask) >> shift)

    return Capabilities(
        connections=size(abi.CAPABILITIES_LOG2_CONNECTIONS, abi.CAPABILITIES_LOG2_CONNECTIONS_SHIFT),
        listeners=size(abi.CAPABILITIES_LOG2_LISTENERS, abi.CAPABILITIES_LOG2_LISTENERS_SHIFT),
        syncache_entries=size(abi.CAPABILITIES_LOG2_SYNCACHE, abi.CAPABILITIES_LOG2_SYNCACHE_SHIFT),
        next_hops=size(abi.CAPABILITIES_LOG2_NEXT_HOPS, abi.CAPABILITIES_LOG2_NEXT_HOPS_SHIFT),
        data_bytes=(limits & abi.LIMITS_DATA_BYTES) >> abi.LIMITS_DATA_BYTES_SHIFT,
        vlan=bool(limits & abi.LIMITS_VLAN),
        ipv6=bool(limits & abi.LIMITS_IPV6),
        ecn=bool(limits & abi.LIMITS_ECN),
        timestamps=bool(limits & abi.LIMITS_TIMESTAMPS),
        pacing=bool(limits & abi.LIMITS_PACING),
        addr_width=(limits & abi.LIMITS_ADDR_WIDTH) >> abi.LIMITS_ADDR_WIDTH_SHIFT,
        congestion=device.read32(abi.REG_CONGESTION),
        max_frame_bytes=(limits & abi.LIMITS_MAX_FRAME_BYTES) >> abi.LIMITS_MAX_FRAME_BYTES_SHIFT
        | (limits & abi.LIMITS_MAX_FRAME_BYTES_HIGH) >> abi.LIMITS_MAX_FRAME_BYTES_HIGH_SHIFT << 12,
    )
