"""Receive parser with IPv6: every frame is reported, or counted and gone, exactly as the reference says; and what stands for
a peer."""

import ipaddress

import pytest

from tests.hdl.rx import reference
from tests.hdl.rx.reference_v6 import KEY, PEER, bad_cases, good_cases, host_cases, number, random_case, segment
from tests.hdl.rx.test_parser import run_cases
from tests.widths import SOAK_128
from tiptoe_hdl.config import TINY
from tiptoe_hdl.rx.alias import alias

WIDTHS = [64, SOAK_128, 256]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", [good_cases, bad_cases, host_cases])
def test_frames_of_a_kind(kind, width, rng):
    cases = kind(rng)
    assert all((case.outcome.meta is None) == (kind is bad_cases) for case in cases)
    assert all(case.outcome.meta["to_host"] == (kind is host_cases) for case in cases if case.outcome.meta)
    rng.shuffle(cases)
    run_cases(cases, width=width, ipv6=True)


@pytest.mark.parametrize("idle, stall, free_delay, width", [
    (0.0, 0.0, 0, 64), (0.4, 0.3, 40, 64), (0.0, 0.5, 0, 128), (0.3, 0.0, 0, 256), (0.0, 0.0, 0, 256),
])  # fmt: skip
def test_both_versions_mixed(idle, stall, free_delay, width, rng):
    """Frames of IPv4 and IPv6 in turn: nothing of one is left for the other."""
    cases = rng.sample(good_cases(rng) + bad_cases(rng) + host_cases(rng), 25)
    others = reference.good_cases(rng) + reference.bad_cases(rng) + reference.option_cases(rng)
    cases += rng.sample([case for case in others if case.frame[12:14] != b"\x86\xdd"], 25)
    cases += [random_case(rng) for _ in range(25)]
    rng.shuffle(cases)
    run_cases(cases, width=width, idle=idle, stall=stall, free_delay=free_delay, seed=rng.random(), ipv6=True)


@pytest.mark.parametrize("width", [64, 256])
def test_smallest_segments_at_line_rate(width, rng):
    """Reports of IPv6 take five cycles more each, which is less than a frame takes on the line; there is room for some
    more."""
    cases = [case for case in good_cases(rng) if len(case.frame) < 90] * 2
    run_cases(cases, width=width, ipv6=True)


@pytest.mark.parametrize("place", [0, 31, 32, 33, 63, 95, 96, 127])
def test_two_peers_that_differ_in_one_bit_differ_inside(place):
    """With this key. In the last word they do with any."""
    peer = number(PEER)
    assert alias(peer, KEY) != alias(peer ^ 1 << place, KEY)
    assert place >= 32 or alias(peer, 0) ^ alias(peer ^ 1 << place, 0) == 1 << place


def test_what_stands_for_a_peer_depends_on_every_key_word():
    """One to one in each of them, for any word of the address that is not 0: as a map over GF(2) it has full rank."""
    for word in range(3):
        for value in (1, 0x8000_0000, 0xFE80_0000, 0x2001_0DB8):
            address = value << 96 - 32 * word
            rows = [alias(address, 1 << 32 * word + bit) for bit in range(32)]
            rank = 0
            while rows:
                row = rows.pop()
                if row:
                    rank += 1
                    low = row & -row
                    rows = [other ^ row if other & low else other for other in rows]
            assert rank == 32, ipaddress.IPv6Address(address)


def test_a_narrow_data_path_is_refused():
    with pytest.raises(ValueError, match="64 bits"):
        TINY.with_(data_width=32, ipv6=True)


def test_a_segment_of_the_reference_is_what_scapy_takes_for_one(rng):
    """The reference's own check, so that both cannot be wrong in the same way."""
    from scapy.layers.inet import TCP
    from scapy.layers.l2 import Ether

    packet = Ether(segment(rng, 33))
    told = packet[TCP].chksum
    del packet[TCP].chksum
    assert Ether(bytes(packet))[TCP].chksum == told
