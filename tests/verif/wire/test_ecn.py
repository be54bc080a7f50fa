"""The wire monitor on explicit congestion notification (RFC 3168, RFC 8257): what is right passes; each rule with a segment that
breaks it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from tests.verif.wire.test_wire import OUR_MAC, US, ours, theirs
from tiptoe_verif.wire.ecn import CE, ECT_0, ECT_1
from tiptoe_verif.wire.monitor import WireError, WireMonitor
from tiptoe_verif.wire.segment import ip_number, mac_number, parse_tcp

WND = 60000
MSS = [("MSS", 1460)]


def marked(frame: bytes, ecn: int) -> bytes:
    """The frame with a codepoint."""
    packet = Ether(frame)
    packet[IP].tos = packet[IP].tos & 0xFC | ecn
    del packet[IP].chksum
    return bytes(packet)


def opened(offer: str = "SEC", answer: str = "SAE") -> WireMonitor:
    """After a passive handshake."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    monitor.to_engine(theirs(offer, seq=0, wnd=WND, options=MSS))
    monitor.from_engine(ours(answer, seq=0, wnd=WND, options=MSS))
    monitor.to_engine(theirs("A", wnd=WND))
    return monitor


def run(monitor: WireMonitor, *steps: tuple[str, str, int, int, int, int]) -> WireMonitor:
    """Steps: who, flags, sequence and acknowledgement number, length, codepoint."""
    for who, flags, seq, ack, length, ecn in steps:
        make, window = (ours, WND - ack + 1) if who == "ours" else (theirs, WND)
        frame = marked(make(flags, seq=seq, ack=ack, data=bytes(length), wnd=window), ecn)
        (monitor.from_engine if who == "ours" else monitor.to_engine)(frame)
    return monitor


DATA = ("ours", "A", 1, 1, 100, ECT_0)
MARK = ("theirs", "A", 1, 1, 100, CE)

RIGHT = [
    ("new data with ECT", [DATA, ("ours", "A", 101, 1, 100, ECT_0)]),
    ("none need have it", [("ours", "A", 1, 1, 100, 0)]),
    ("ECE until CWR", [MARK, ("ours", "AE", 1, 101, 0, 0), ("theirs", "AC", 101, 1, 100, ECT_0), ("ours", "A", 1, 201, 0, 0)]),
    ("the mark has not been seen", [MARK, ("ours", "A", 1, 1, 0, 0)]),
    ("CWR may have been seen or not", [MARK, ("theirs", "AC", 101, 1, 100, ECT_0), ("ours", "AE", 1, 101, 0, 0)]),
    ("of two copies the other was taken", [MARK, ("theirs", "A", 1, 1, 100, ECT_0), ("ours", "A", 1, 101, 0, 0)]),
    ("a FIN was taken in its place", [MARK, ("theirs", "FA", 1, 1, 0, 0), ("ours", "A", 1, 2, 0, 0)]),
    ("a mark on what came already", [("theirs", "A", 1, 1, 100, ECT_0), MARK, ("ours", "A", 1, 101, 0, 0)]),
    ("ahead of a gap", [("theirs", "A", 101, 1, 100, CE), ("theirs", "A", 1, 1, 100, 0), ("ours", "A", 1, 201, 0, 0)]),
    ("CWR once a window", [
        DATA, ("ours", "AC", 101, 1, 100, ECT_0), ("theirs", "AE", 1, 201, 0, 0), ("ours", "AC", 201, 1, 9, ECT_0),
    ]),
    ("or again when something went again", [
        DATA, ("ours", "AC", 101, 1, 100, ECT_0), ("ours", "A", 1, 1, 100, 0), ("ours", "AC", 201, 1, 9, ECT_0),
    ]),
]  # fmt: skip


@pytest.mark.parametrize("steps", [case[1] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_right(steps):
    (flow,) = run(opened(), *steps).flows.values()
    assert flow.ecn.ours and flow.ecn.peers


WRONG = [
    ("ECT on an acknowledgement", [("ours", "A", 1, 1, 0, ECT_0)], "no new data"),
    ("ECT on a retransmission", [DATA, DATA], "no new data"),
    ("ECT(1)", [("ours", "A", 1, 1, 100, ECT_1)], "codepoint"),
    ("CE", [("ours", "A", 1, 1, 100, CE)], "codepoint"),
    ("ECT on a reset", [("ours", "RA", 1, 1, 0, ECT_0)], "SYN or RST"),
    ("ECE on a reset", [MARK, ("ours", "RAE", 1, 101, 0, 0)], "RST with"),
    ("CWR on an acknowledgement", [("ours", "AC", 1, 1, 0, 0)], "CWR on what is no new data"),
    ("CWR on a retransmission", [DATA, ("ours", "AC", 1, 1, 100, 0)], "CWR on what is no new data"),
    ("CWR twice", [DATA, ("ours", "AC", 101, 1, 100, ECT_0), ("ours", "AC", 201, 1, 100, ECT_0)], "CWR twice"),
    ("ECE for nothing", [("ours", "AE", 1, 1, 0, 0)], "nothing was marked"),
    ("no ECE", [MARK, ("ours", "A", 1, 101, 0, 0)], "no ECE"),
    ("ECE ends without CWR", [
        MARK, ("ours", "AE", 1, 101, 0, 0), ("theirs", "A", 101, 1, 100, ECT_0), ("ours", "A", 1, 201, 0, 0),
    ], "no ECE"),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong(steps, message):
    with pytest.raises(WireError, match=message):
        run(opened(), *steps)


@pytest.mark.parametrize("offer, answer", [("SE", "SAE"), ("SC", "SAE"), ("S", "SAE"), ("SEC", "SAEC"), ("SEC", "SAC")])
def test_wrong_agreement(offer, answer):
    with pytest.raises(WireError, match="SYN,ACK agrees"):
        opened(offer, answer)


@pytest.mark.parametrize("step", [DATA, ("ours", "AC", 1, 1, 100, 0), ("ours", "AE", 1, 1, 0, 0)])
def test_without_ecn_neither_of_them(step):
    with pytest.raises(WireError, match="not both ends know ECN"):
        run(opened("SEC", "SA"), step)


def test_syn_of_ours_offers_by_both():
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    with pytest.raises(WireError, match="alone"):
        monitor.from_engine(ours("SE", seq=0, ack=0, wnd=WND, options=MSS))
    with pytest.raises(WireError, match="SYN or RST"):
        monitor.from_engine(marked(ours("SEC", seq=0, ack=0, wnd=WND, options=MSS), ECT_0))


def test_an_accurate_connection():
    """RFC 8257: all carries ECT, ECE is of the last text."""
    monitor = opened()
    monitor.accurate = True
    run(
        monitor,
        DATA,
        DATA,
        MARK,
        ("ours", "AE", 101, 101, 0, ECT_0),
        ("theirs", "A", 101, 1, 9, ECT_0),
        ("ours", "A", 101, 110, 0, ECT_0),
    )
    segment = parse_tcp(marked(ours("A", seq=1, ack=1, data=b"", wnd=1), ECT_0))
    assert segment is not None and segment.ecn == ECT_0
