"""The wire monitor on selective acknowledgements (RFC 2018): what is right passes; each rule with a segment that breaks it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from tests.verif.wire.test_wire import IRS, OUR_MAC, US, ours, theirs
from tiptoe_verif.wire.monitor import WireError, WireMonitor
from tiptoe_verif.wire.segment import ACK, SYN, Malformed, Segment, ip_number, mac_number, pack_tcp, parse_tcp

MSS, PERMITTED = ("MSS", 1460), ("SAckOK", b"")
WND = 60000


def blocks(*edges: int):
    """The option, edges counted from the peer's initial sequence number."""
    return [("NOP", None), ("NOP", None), ("SAck", tuple((IRS + edge) % 2**32 for edge in edges))]


def opened(*, ours_too: bool = True, peers: bool = True, mss: int = 1460) -> WireMonitor:
    """After a passive handshake, the peer's window and ours large."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    monitor.to_engine(theirs("S", seq=0, wnd=WND, options=[("MSS", mss)] + [PERMITTED] * peers))
    monitor.from_engine(ours("SA", seq=0, wnd=WND, options=[MSS] + [PERMITTED] * ours_too))
    monitor.to_engine(theirs("A", wnd=WND))
    return monitor


def given(monitor: WireMonitor, *pieces: tuple[int, int]) -> WireMonitor:
    """Text of the peer, each piece as [begin, end)."""
    for begin, end in pieces:
        monitor.to_engine(theirs("A", seq=begin, data=bytes(end - begin), wnd=WND))
    return monitor


def tell(monitor: WireMonitor, *edges: int, ack: int = 1, data: bytes = b"", flags: str = "A") -> None:
    """An acknowledgement of the engine's with blocks."""
    monitor.from_engine(ours(flags, ack=ack, data=data, wnd=WND - ack + 1, options=blocks(*edges)))


# (name, text given, then what may be told: (edges, ack))
RIGHT = [
    ("one gap", [(101, 201)], [((101, 201), 1)]),
    ("two gaps, the newest first", [(101, 201), (301, 401)], [((301, 401, 101, 201), 1)]),
    ("a gap in front, the newest first", [(301, 401), (101, 201)], [((101, 201, 301, 401), 1)]),
    ("four gaps", [(101, 201), (301, 401), (501, 601), (701, 801)], [((701, 801, 101, 201, 301, 401, 501, 601), 1)]),
    ("not all it knows", [(101, 201), (301, 401), (501, 601)], [((501, 601), 1)]),
    ("what it has seen so far", [(101, 201), (301, 401)], [((101, 201), 1), ((301, 401, 101, 201), 1)]),
    ("a block that grew", [(101, 201), (301, 401), (201, 251)], [((101, 251, 301, 401), 1)]),
    ("two that joined", [(101, 201), (301, 401), (201, 301)], [((101, 401), 1)]),
    ("a part of a segment", [(101, 201)], [((151, 201), 1)]),
    ("one that came again is the newest", [(101, 201), (301, 401), (101, 201)], [((101, 201, 301, 401), 1)]),
    ("or has not been seen", [(101, 201), (301, 401), (101, 201)], [((301, 401, 101, 201), 1)]),
    ("across the wrap", [(11, 31), (41, 51)], [((41, 51, 11, 31), 1)]),
    ("a gap filled: any order", [(301, 401), (501, 601), (1, 101)], [((301, 401, 501, 601), 101)]),
    ("a gap may be filled: any order", [(301, 401), (501, 601), (1, 101)], [((301, 401, 501, 601), 1)]),
    ("blocks newer than the acknowledgement", [(101, 201), (1, 101), (301, 401)], [((301, 401), 1)]),
]


@pytest.mark.parametrize(("pieces", "told"), [case[1:] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_what_the_engine_may_tell(pieces, told):
    monitor = given(opened(), *pieces)
    for edges, ack in told:
        tell(monitor, *edges, ack=ack)
    ((_, flow),) = monitor.all_flows()
    assert flow.sack.blocks == sum(len(edges) // 2 for edges, _ in told)


# (name, text given, edges, acknowledgement, what is said of it)
WRONG = [
    ("nothing came", [], (101, 201), 1, "never given"),
    ("a byte too far right", [(101, 201)], (101, 202), 1, "never given"),
    ("a byte too far left", [(101, 201)], (100, 201), 1, "never given"),
    ("over a gap", [(101, 201), (202, 301)], (101, 301), 1, "never given"),
    ("the second block", [(101, 201)], (101, 201, 301, 401), 1, "never given"),
    ("what is acknowledged", [(1, 101)], (1, 101), 101, "not come twice"),
    ("from the acknowledgement on", [(1, 201)], (101, 201), 101, "above the acknowledgement"),
    ("empty", [(101, 201)], (101, 101), 1, "above the acknowledgement"),
    ("backwards", [(101, 201)], (201, 101), 1, "above the acknowledgement"),
    ("a block twice", [(101, 201), (301, 401)], (301, 401, 101, 201, 301, 401), 1, "overlap or touch"),
    ("a block in one before it", [(101, 301)], (101, 301, 151, 201), 1, "overlap or touch"),
    ("one block as two", [(101, 301)], (201, 301, 101, 201), 1, "overlap or touch"),
    ("an old one first", [(101, 201), (301, 401)], (101, 201, 301, 401), 1, "not the newest"),
    ("the higher one first", [(301, 401), (101, 201)], (301, 401, 101, 201), 1, "not the newest"),
    ("an old one before a block that grew", [(101, 201), (301, 401), (201, 251)], (301, 401, 101, 251), 1, "newest"),
    ("after a gap was filled", [(1, 101), (201, 301), (401, 501)], (201, 301, 401, 501), 101, "not the newest"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pieces", "edges", "ack", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_what_the_engine_may_not_tell(pieces, edges, ack, said):
    with pytest.raises(WireError, match=said):
        tell(given(opened(), *pieces), *edges, ack=ack)


# (name, text given, edges, acknowledgement): the first block tells of what came twice, RFC 2883.
TWICE = [
    ("all below", [(1, 101), (1, 101)], (1, 101), 101),
    ("a part of what was one segment", [(1, 101), (51, 101)], (51, 101), 101),
    ("a part, the rest new", [(1, 101), (1, 201)], (1, 101), 201),
    ("a part, the rest new, with gaps", [(1, 101), (301, 401), (1, 201)], (1, 101, 301, 401), 201),
    ("below, with a gap", [(1, 101), (201, 301), (1, 101)], (1, 101, 201, 301), 101),
    ("ahead of a gap", [(101, 201), (101, 201)], (101, 201, 101, 201), 1),
    ("in a larger one", [(101, 201), (201, 301), (101, 201)], (101, 201, 101, 301), 1),
    ("before others", [(101, 201), (301, 401), (101, 201)], (101, 201, 101, 201, 301, 401), 1),
    ("before a newer one", [(101, 201), (101, 201), (301, 401)], (101, 201, 101, 201, 301, 401), 1),
    ("across the wrap", [(1, 31), (1, 31)], (1, 31), 31),
    ("the list not known", [(101, 201), (101, 201)], (101, 201), 1),
]

NOT_TWICE = [
    ("came once", [(1, 101)], (1, 101), 101),
    ("a byte more", [(1, 101), (1, 101), (101, 201)], (1, 102), 201),
    ("another begin", [(1, 101), (1, 101)], (2, 101), 101),
    ("ahead of a gap, once", [(101, 201)], (101, 201, 101, 201), 1),
    ("more than came twice", [(1, 101), (1, 201)], (1, 151), 201),
    ("not the first block", [(1, 101), (201, 301), (1, 101)], (201, 301, 1, 101), 101),
    ("nothing", [(1, 101), (1, 101)], (50, 50), 101),
]


@pytest.mark.parametrize(("pieces", "edges", "ack"), [case[1:] for case in TWICE], ids=[case[0] for case in TWICE])
def test_what_came_twice_may_be_told_once(pieces, edges, ack):
    monitor = given(opened(), *pieces)
    tell(monitor, *edges, ack=ack)
    if edges[0] < ack or len(edges) > 2:
        with pytest.raises(WireError, match="not come twice"):
            tell(monitor, *edges, ack=ack)


@pytest.mark.parametrize(
    ("pieces", "edges", "ack"), [case[1:] for case in NOT_TWICE], ids=[case[0] for case in NOT_TWICE]
)
def test_what_did_not_come_twice_is_not_told(pieces, edges, ack):
    with pytest.raises(WireError, match="not come twice|above the acknowledgement"):
        tell(given(opened(), *pieces), *edges, ack=ack)


@pytest.mark.parametrize(("ours_too", "peers"), [(False, False), (False, True), (True, True)])
def test_blocks_only_if_both_have_permitted_them(ours_too, peers):
    monitor = given(opened(ours_too=ours_too, peers=peers), (101, 201))
    if ours_too and peers:
        tell(monitor, 101, 201)
    else:
        with pytest.raises(WireError, match="not both ends have permitted"):
            tell(monitor, 101, 201)


def test_syn_ack_does_not_permit_what_the_syn_did_not_offer():
    with pytest.raises(WireError, match="to a peer whose SYN does not"):
        opened(peers=False)


@pytest.mark.parametrize("offers", [False, True])
def test_own_syn_offers_and_the_peers_answer_decides(offers):
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    monitor.from_engine(ours("S", seq=0, wnd=WND, options=[MSS, PERMITTED]))
    monitor.to_engine(theirs("SA", seq=0, wnd=WND, options=[MSS] + [PERMITTED] * offers))
    monitor.from_engine(ours("A", wnd=WND))
    given(monitor, (101, 201))
    if offers:
        tell(monitor, 101, 201)
    else:
        with pytest.raises(WireError, match="not both ends"):
            tell(monitor, 101, 201)


def test_what_lies_before_the_stream_may_be_told_behind_the_first_acknowledgement():
    """It came before that."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    monitor.from_engine(ours("S", seq=0, wnd=WND, options=[MSS, PERMITTED]))
    monitor.to_engine(theirs("SA", seq=0, wnd=WND, options=[MSS, PERMITTED]))
    given(monitor, (-1459, -1359))
    monitor.from_engine(ours("A", wnd=WND))
    tell(monitor, -1459, -1359)


def test_one_of_two_syns_offers():
    """The engine may have had no room for the first."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    for offers in (False, True):
        monitor.to_engine(theirs("S", seq=0, options=[MSS] + [PERMITTED] * offers))
    monitor.from_engine(ours("SA", seq=0, wnd=WND, options=[MSS, PERMITTED]))
    given(monitor, (101, 201))
    tell(monitor, 101, 201)


def test_permitted_outside_of_a_syn():
    with pytest.raises(WireError, match="SACK-permitted outside of a SYN"):
        opened().from_engine(ours("A", options=[PERMITTED], wnd=WND))


@pytest.mark.parametrize("flags", ["RA", "SA"])
def test_blocks_in_a_syn_or_reset(flags):
    monitor = given(opened(), (101, 201))
    with pytest.raises(WireError, match="SACK blocks in a SYN or RST"):
        monitor.from_engine(ours(flags, seq=int(flags == "RA"), options=[MSS, *blocks(101, 201)], wnd=WND))


def test_blocks_take_room_from_the_payload():
    """RFC 6691: the peer's MSS says nothing of options, so they count."""
    monitor = given(opened(mss=600), (101, 201), (301, 401))
    tell(monitor, 301, 401, 101, 201, data=bytes(580))
    with pytest.raises(WireError, match="581 bytes and 20 of options, but the peer takes segments of 600"):
        tell(monitor, 301, 401, 101, 201, data=bytes(581))


def test_data_for_a_window_under_way_may_be_told():
    """It came for a window that the engine had opened and we have not seen: who of them is the newest is not known either."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    monitor.to_engine(theirs("S", seq=0, options=[MSS, PERMITTED]))
    monitor.from_engine(ours("SA", seq=0, wnd=1000, options=[MSS, PERMITTED]))
    given(monitor, (101, 201), (901, 1101), (1201, 1301))
    monitor.from_engine(ours("A", wnd=1000, options=blocks(901, 1101, 101, 201)))
    with pytest.raises(WireError, match="never given"):
        monitor.from_engine(ours("A", wnd=1000, options=blocks(1201, 1302)))


def test_options_are_read_as_scapy_writes_them(rng):
    for _ in range(100):
        edges = [rng.getrandbits(32) for _ in range(2 * rng.randrange(1, 5))]
        segment = parse_tcp(ours("A", options=[("NOP", None), ("SAck", tuple(edges))]))
        assert segment is not None and segment.sacks == tuple(zip(edges[::2], edges[1::2], strict=True))
        assert not segment.sack_ok
    segment = parse_tcp(ours("S", options=[PERMITTED, MSS]))
    assert segment is not None and segment.sack_ok and not segment.sacks and segment.mss == 1460


@pytest.mark.parametrize(
    "options", [b"\x04\x03\x00\x01", b"\x05\x02\x01\x01", b"\x05\x09" + bytes(7), b"\x05\x0b" + bytes(9)]
)
def test_options_of_a_wrong_length(options):
    segment = Segment(1, 2, 3, 4, 5, 6, ACK, 7, 0, None, b"")
    frame = bytes(12) + b"\x08\x00" + pack_tcp(segment, options=options)
    with pytest.raises(Malformed, match="length of TCP option"):
        parse_tcp(frame)
    read = parse_tcp(frame, strict=False)
    assert read is not None and not read.sack_ok and not read.sacks


def test_options_are_written_as_scapy_reads_them():
    permitted = Segment(1, 2, 3, 4, 5, 6, SYN, 7, 1460, 3, b"", True)
    told = Segment(1, 2, 3, 4, 5, 6, ACK, 7, 0, None, b"data", False, ((8, 9), (10, 11), (1, 2), (2**32 - 1, 3)))
    for segment in (permitted, told):
        raw = bytes(12) + b"\x08\x00" + pack_tcp(segment)
        assert parse_tcp(raw) == segment
        options = dict(Ether(raw)[TCP].options)
        assert ("SAckOK" in options) == segment.sack_ok
        assert options.get("SAck", ()) == tuple(edge for block in segment.sacks for edge in block)
