"""Which registers are which ports of the register block, and which depend on the configuration only."""

from amaranth.utils import exact_log2

from ..config import EngineConfig
from ..congestion import NUMBERS
from .abi import WATCHED
from .register_map import register_map

CONFIGURATION = {
    # Output port: the fields it is made of, lowest first.
    "enable": ("CONTROL.ENABLE",),
    "external_tick": ("CONTROL.EXTERNAL_TICK",),
    "rst_unknown": ("CONTROL.RST_UNKNOWN",),
    "promiscuous": ("CONTROL.PROMISCUOUS",),
    "syn_to_host": ("CONTROL.SYN_TO_HOST",),
    "syn_cookies": ("CONTROL.SYN_COOKIES",),
    "sack": ("CONTROL.SACK",),
    "ecn": ("CONTROL.ECN",),
    "timestamps": ("CONTROL.TIMESTAMPS",),
    "quick_ack": ("CONTROL.QUICK_ACK",),
    "mac": ("MAC_LO.VALUE", "MAC_HI.VALUE"),
    "ip_addr": ("IP_ADDR.VALUE",),
    "ip6_addr": ("IP6_ADDR.VALUE",),
    "ttl": ("IP_HEADER.TTL",),
    "tos": ("IP_HEADER.TOS",),
    "vlan_id": ("VLAN.ID",),
    "vlan_priority": ("VLAN.PRIORITY",),
    "vlan_tag": ("VLAN.TAG",),
    "tick_cycles": ("TICK_CYCLES.VALUE",),
    "msl_ticks": ("MSL_TICKS.VALUE",),
    "rto_min": ("RTO_MIN.VALUE",),
    "rto_max": ("RTO_MAX.VALUE",),
    "rto_initial": ("RTO_INITIAL.VALUE",),
    "delack_ticks": ("DELACK_TICKS.VALUE",),
    "rexmt_max": ("RETRIES.REXMT_MAX",),
    "syn_retries": ("RETRIES.SYN_RETRIES",),
    "rst_rate": ("RST_LIMIT.PER_TICK",),
    "rst_burst": ("RST_LIMIT.BURST",),
    "challenge_rate": ("CHALLENGE_LIMIT.PER_TICK",),
    "challenge_burst": ("CHALLENGE_LIMIT.BURST",),
    "invalid_ticks": ("INVALID_LIMIT.TICKS",),
    "algorithm_initial": ("CONGESTION_CONTROL.DEFAULT",),
    "tick_us": ("CONGESTION_CONTROL.TICK_US",),
    "watchdog_ticks": ("WATCHDOG_TICKS.VALUE",),
    "ts_offset": ("TIMESTAMP_OFFSET.VALUE",),
    "isn_key": ("ISN_KEY.VALUE",),
    "cookie_key": ("COOKIE_KEY.VALUE",),
    "hash_key": ("HASH_KEY.VALUE",),
    "alias_key": ("ALIAS_KEY.VALUE",),
    "command_base": ("COMMAND_RING_LO.VALUE", "COMMAND_RING_HI.VALUE"),
    "command_log2": ("COMMAND_RING_LOG2.VALUE",),
    "command_tail": ("COMMAND_TAIL.VALUE",),
    "event_base": ("EVENT_RING_LO.VALUE", "EVENT_RING_HI.VALUE"),
    "event_log2": ("EVENT_RING_LOG2.VALUE",),
    "event_consumer": ("EVENT_CONSUMER.VALUE",),
    "frame_base": ("FRAME_RING_LO.VALUE", "FRAME_RING_HI.VALUE"),
    "frame_log2": ("FRAME_RING_LOG2.VALUE",),
    "frame_consumer": ("FRAME_CONSUMER.VALUE",),
}

MEASURED = {
    # Field: the input port it shows.
    "STATUS.READY": "ready",
    "TICK_TIME.VALUE": "tick_time",
    "ISN_TIME.VALUE": "isn_time",
    "COMMAND_HEAD.VALUE": "command_head",
    "EVENT_PRODUCER.VALUE": "event_producer",
}

STALLED = tuple(f"STATUS.{name.upper()}_STALLED" for name in WATCHED)
"""Bits that the watchdog sets."""

CLEARED = ("CONTROL", "STATUS", "IRQ_STATUS", "COMMAND_TAIL", "EVENT_CONSUMER", "FRAME_CONSUMER")
"""Registers that a soft reset gives their values after power-up."""


UNSTAMPED = (("CONTROL", "TIMESTAMPS"), ("TIMESTAMP_OFFSET", "VALUE"))
"""Fields that are there only with timestamps."""


def constants(cfg: EngineConfig) -> dict[str, int]:
    """Read-only fields that depend on the configuration only."""
    return {
        "CAPABILITIES.LOG2_CONNECTIONS": exact_log2(cfg.connections),
        "CAPABILITIES.LOG2_LISTENERS": exact_log2(cfg.listeners),
        "CAPABILITIES.LOG2_SYNCACHE": exact_log2(cfg.syncache_entries),
        "CAPABILITIES.LOG2_NEXT_HOPS": exact_log2(cfg.next_hops),
        "CONGESTION.ALGORITHMS": sum(1 << NUMBERS[name] for name in cfg.congestion),
        "LIMITS.DATA_BYTES": cfg.bytes_per_beat,
        "LIMITS.ADDR_WIDTH": cfg.addr_width,
        "LIMITS.MAX_FRAME_BYTES": cfg.max_frame_bytes & 0xFFF,
        "LIMITS.MAX_FRAME_BYTES_HIGH": cfg.max_frame_bytes >> 12,
        "LIMITS.VLAN": int(cfg.vlan),
        "LIMITS.IPV6": int(cfg.ipv6),
        "LIMITS.ECN": 1,
        "LIMITS.TIMESTAMPS": int(cfg.timestamps),
        "LIMITS.PACING": int(cfg.pacing),
    }


def field_width(cfg: EngineConfig, register, field) -> int:
    """Bits that a field really has: the high half of an address may be narrower than its register; what was not built has
    none."""
    if register.name == "VLAN" and not cfg.vlan:
        return 0
    if register.name in ("IP6_ADDR", "ALIAS_KEY") and not cfg.ipv6:
        return 0
    if not cfg.timestamps and (register.name, field.name) in UNSTAMPED:
        return 0
    if register.name.endswith("_RING_HI"):
        return min(field.width, cfg.addr_width - 32)
    return field.width


def configuration_ports(cfg: EngineConfig) -> dict[str, int]:
    """Widths of the output ports in CONFIGURATION."""
    ports = {}
    for port, fields in CONFIGURATION.items():
        ports[port] = 0
        for path in fields:
            register = register_map()[path.split(".")[0]]
            (field,) = (field for field in register.fields if field.name == path.split(".")[1])
            ports[port] += field_width(cfg, register, field) * register.count
    return ports
