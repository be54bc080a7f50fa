"""Two SYN cookies of one four-tuple, mixed by the peer, to the wire monitor (RFC 4987 section 3.6, RFC 7323 section 5.4).

Who returns the number of one SYN's cookie with the TSval of another's has the other's options for his connection: SYN,ACK and all
behind it follow the echo. Nothing of it may be forgiven to a peer that has not mixed them.
"""

from __future__ import annotations

import pytest

from tests.verif.wire.test_timestamps import MSS, OURS, THEIRS, WND, stamps
from tests.verif.wire.test_wire import IRS, OUR_MAC, US, ours, theirs
from tiptoe_verif.wire.monitor import WireError, WireMonitor
from tiptoe_verif.wire.segment import ip_number, mac_number

BARE = [MSS]
RICH = [MSS, ("WScale", 7), ("SAckOK", b""), *stamps(OURS, THEIRS)]
EARLIER = OURS - 63
"""The low bits of a cookie's TSval are the options: other options, another TSval, which may lie before."""


def cookie(options, echo):
    """Of a SYN without options, its cookie, then the peer's return of it with ``echo``; the SYN,ACK once more."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US), max_frame=2000)
    monitor.to_engine(theirs("S", seq=0, wnd=WND, options=options))
    monitor.from_engine(ours("SA", seq=0, wnd=WND, options=options[:1] if options is BARE else RICH))
    monitor.to_engine(theirs("A", wnd=WND, options=echo))
    return monitor


def again(options, flags="SA"):
    return ours(flags, seq=0, wnd=WND, options=options)


RETURNED = [MSS, ("WScale", 2), ("SAckOK", b""), *stamps(EARLIER, THEIRS + 1)]


def test_the_options_are_the_echos():
    """Of a SYN without any; and windows, SACK blocks, ECT and timestamps behind it are judged by them."""
    monitor = cookie(BARE, stamps(THEIRS + 1, EARLIER))
    monitor.from_engine(again(RETURNED, "SAE"))
    monitor.to_engine(theirs("A", wnd=2, options=stamps(THEIRS + 2, EARLIER)))
    monitor.to_engine(theirs("A", seq=101, wnd=2, data=bytes(100), options=stamps(THEIRS + 2, EARLIER)))
    monitor.from_engine(
        ours("A", wnd=WND, options=[*stamps(EARLIER, THEIRS + 2), ("SAck", (IRS + 101 - 2**32, IRS + 201 - 2**32))])
    )
    ((_, flow),) = monitor.all_flows()
    assert (flow.mixed, flow.timestamps.agreed, flow.sack.peers, flow.ecn.peers, flow.our_ws) == (True,) * 4 + (2,)


@pytest.mark.parametrize(
    ("echo", "said"),
    [([], "SYN without"), (stamps(THEIRS + 1, OURS), "")],
    ids=["no echo", "another's echo"],
)
def test_only_for_who_has_mixed(echo, said):
    monitor = cookie(BARE, echo)
    if not said:
        monitor.from_engine(again(RETURNED))
        return
    with pytest.raises(WireError, match=said):
        monitor.from_engine(again([MSS, *stamps(OURS, THEIRS)]))


@pytest.mark.parametrize(
    ("options", "flags", "said"),
    [
        ([MSS, ("SAckOK", b"")], "SA", "permits selective"),
        ([MSS], "SAE", "nobody offered"),
    ],
    ids=["SACK", "ECN"],
)
def test_an_honest_peer_gets_what_its_syn_offered(options, flags, said):
    monitor = cookie(BARE, [])
    with pytest.raises(WireError, match=said):
        monitor.from_engine(again(options, flags))


def test_the_clock_does_not_go_back_for_an_honest_peer():
    """It echoes what this number's SYN,ACK said."""
    monitor = cookie([*RICH[:3], *stamps(THEIRS, 0)], stamps(THEIRS + 1, OURS))
    with pytest.raises(WireError, match="behind"):
        monitor.from_engine(again([MSS, ("WScale", 7), ("SAckOK", b""), *stamps(EARLIER, THEIRS + 1)]))


def test_the_agreement_holds_behind_it():
    """Timestamps of a mixed SYN,ACK are in every segment behind it, and do not go back."""
    monitor = cookie(BARE, stamps(THEIRS + 1, EARLIER))
    monitor.from_engine(again(RETURNED))
    with pytest.raises(WireError, match="behind"):
        monitor.from_engine(ours("A", wnd=WND, options=stamps(EARLIER - 1, THEIRS + 1)))
    with pytest.raises(WireError, match="no timestamps"):
        monitor.from_engine(ours("A", wnd=WND))
