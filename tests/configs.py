"""Configurations that several tests share: each takes most of a minute to build."""

from tiptoe_hdl.config import SIM, TINY

EVERYTHING = TINY.with_(
    name="tiny_everything",
    vlan=True,
    congestion=SIM.congestion,
    syncache_entries=16,
    listeners=256,
    timestamps=True,
    pacing=True,
    ipv6=True,
)
"""Small tables, every option, and more half-open connections and listeners than ids."""

JUMBO = TINY.with_mtu(9000).with_(
    vlan=True,
    congestion=("newreno", "reno", "cubic"),
    timestamps=True,
    pacing=True,
)
"""Small tables, and an MTU of 9000; the smallest rings have 16 KiB then."""
