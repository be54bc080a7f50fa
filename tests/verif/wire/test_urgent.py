"""The wire monitor on urgent data (RFC 9293 section 3.8.5): what is right passes; each rule with a segment that breaks it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from tests.verif.wire.test_wire import OUR_MAC, US, ours, theirs
from tiptoe_verif.wire.monitor import WireError, WireMonitor
from tiptoe_verif.wire.segment import ip_number, mac_number

MSS = ("MSS", 1460)
SCALE = ("WScale", 4)


def opened() -> WireMonitor:
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    monitor.to_engine(theirs("S", seq=0, options=[MSS, SCALE]))
    monitor.from_engine(ours("SA", seq=0, options=[MSS, SCALE]))
    monitor.to_engine(theirs("A", wnd=60000))
    return monitor


def say(monitor: WireMonitor, *segments: tuple[int, int, int]) -> None:
    """Segments of the engine as (sequence number, length, urgent pointer); without URG if that is 0."""
    for seq, length, urgent in segments:
        frame = Ether(ours("AU" if urgent else "A", seq=seq, data=bytes(length)))
        frame[TCP].urgptr = urgent
        del frame[TCP].chksum
        monitor.from_engine(bytes(frame))


RIGHT = [
    ("with its data", [(1, 100, 100), (101, 50, 0)]),
    ("ahead of it", [(1, 0, 300), (1, 100, 300), (101, 200, 200), (301, 100, 0)]),
    ("again", [(1, 100, 200), (101, 100, 100), (1, 100, 200)]),
    ("moved on", [(1, 100, 100), (101, 100, 100), (1, 100, 200)]),
    ("cut off, then in full", [(1, 1000, 65535), (1001, 1000, 65535), (2001, 100, 65000)]),
    ("behind what was sent without", [(1, 100, 0), (101, 10, 10), (1, 100, 110)]),
    ("so far ahead that there is none", [(1460 * k + 1, 1460, 0) for k in range(50)]
     + [(73001, 0, 65535), (1, 1460, 0)]),
]  # fmt: skip

WRONG = [
    ("no URG", [(1, 0, 300), (1, 100, 0)]),
    ("no URG", [(1, 0, 300), (1, 100, 300), (101, 100, 0)]),
    ("no URG", [(1, 100, 100), (1, 100, 0)]),
    ("goes back by 100", [(1, 0, 300), (1, 100, 200)]),
    ("goes back by 1$", [(1, 100, 100), (1, 100, 99)]),
    ("goes back", [(1460 * k + 1, 1460, 0) for k in range(50)] + [(73001, 10, 10), (1, 1460, 65535)]),
]


@pytest.mark.parametrize(("name", "segments"), RIGHT, ids=[name for name, _ in RIGHT])
def test_right(name: str, segments: list[tuple[int, int, int]]) -> None:
    say(opened(), *segments)


@pytest.mark.parametrize(("message", "segments"), WRONG)
def test_wrong(message: str, segments: list[tuple[int, int, int]]) -> None:
    monitor = opened()
    say(monitor, *segments[:-1])
    with pytest.raises(WireError, match=message):
        say(monitor, segments[-1])


@pytest.mark.parametrize(
    ("flags", "message"), [("SAU", "URG on a SYN or RST"), ("RAU", "URG on a SYN or RST"), ("AU", "nothing urgent")]
)
def test_urg_where_it_says_nothing(flags: str, message: str) -> None:
    with pytest.raises(WireError, match=message):
        opened().from_engine(ours(flags, seq=0 if "S" in flags else 1, options=[MSS] if "S" in flags else []))


def test_a_pointer_without_urg() -> None:
    frame = Ether(ours("A"))
    frame[TCP].urgptr = 5
    del frame[TCP].chksum
    with pytest.raises(WireError, match="urgent pointer without URG"):
        opened().from_engine(bytes(frame))
