"""Impairments, captures, frame reading, and the wire monitor: each of its rules with a frame that breaks it."""

import random
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from tiptoe_verif.wire import tshark
from tiptoe_verif.wire.capture import Capture
from tiptoe_verif.wire.host_frames import HostFrames
from tiptoe_verif.wire.impairment import Channel, Impairment
from tiptoe_verif.wire.intervals import Intervals
from tiptoe_verif.wire.monitor import WireError, WireMonitor
from tiptoe_verif.wire.numbers import unwrap
from tiptoe_verif.wire.pcap import PcapReader, PcapWriter, read_pcap
from tiptoe_verif.wire.segment import Malformed, checksum_holds, ip_number, ip_text, mac_number, mac_text, parse_tcp

US, THEM = "10.0.0.2", "10.0.0.1"
OUR_MAC, THEIR_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
ISS, IRS = 0xFFFFFF00, 0xFFFFFFF0  # wrap-around comes soon


def ours(flags="A", seq=1, ack=1, data=b"", wnd=1000, sport=80, dport=5000, options=(), **ip):
    """A frame of the engine; seq and ack count from the initial sequence numbers."""
    return bytes(
        Ether(src=OUR_MAC, dst=THEIR_MAC) / IP(src=US, dst=THEM, **ip)
        / TCP(sport=sport, dport=dport, flags=flags, seq=(ISS + seq) % 2**32, window=wnd, options=list(options),
              ack=(IRS + ack) % 2**32 if "A" in flags else 0) / data
    )  # fmt: skip


def theirs(flags="A", seq=1, ack=1, data=b"", wnd=1000, sport=5000, dport=80, options=()):
    """A frame of the peer."""
    return bytes(
        Ether(src=THEIR_MAC, dst=OUR_MAC) / IP(src=THEM, dst=US)
        / TCP(sport=sport, dport=dport, flags=flags, seq=(IRS + seq) % 2**32, window=wnd, options=list(options),
              ack=(ISS + ack) % 2**32 if "A" in flags else 0) / data
    )  # fmt: skip


@pytest.fixture
def fresh():
    return WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))


@pytest.fixture
def monitor(fresh):
    """After a passive handshake: both windows 1000 bytes, our peer's MSS 600, no scaling."""
    fresh.to_engine(theirs("S", seq=0, options=[("MSS", 600)]))
    fresh.from_engine(ours("SA", seq=0, options=[("MSS", 1460)]))
    fresh.to_engine(theirs("A"))
    return fresh


def test_addresses():
    assert ip_text(ip_number("10.1.2.255")) == "10.1.2.255"
    assert mac_text(mac_number("02:00:00:0a:0B:ff")) == "02:00:00:0a:0b:ff"
    for wrong in ("10.1.2", "10.1.2.256", "ten", "10.1.2.-1", ""):
        with pytest.raises(ValueError, match="not an IPv4 address"):
            ip_number(wrong)
    for wrong in ("02:00:00:00:00", "02:00:00:00:00:xx", "020000000000", "2:0:0:0:0:"):
        with pytest.raises(ValueError, match="not a MAC address"):
            mac_number(wrong)


def test_parse_against_scapy(rng):
    for _ in range(200):
        data = rng.randbytes(rng.choice([0, 1, 2, 3, 536, 1459, 1460]))
        options = rng.choice([[], [("MSS", 1460), ("WScale", 7)], [("NOP", None), ("SAckOK", b""), ("MSS", 9)]])
        frame = theirs("PA", seq=rng.getrandbits(32), ack=rng.getrandbits(32), data=data, options=options)
        segment = parse_tcp(frame)
        expected = Ether(frame)[TCP]
        assert segment is not None
        assert (segment.seq, segment.ack, segment.wnd) == (expected.seq, expected.ack, expected.window)
        assert segment.payload == data
        assert segment.mss == dict(options).get("MSS", 0) and segment.ws == dict(options).get("WScale")
        # Any single inverted bit of the packet is noticed.
        bit = rng.randrange(14 * 8, len(frame) * 8)
        spoiled = bytearray(frame)
        spoiled[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Malformed):
            parse_tcp(bytes(spoiled))


def test_short_frames_may_be_padded():
    assert parse_tcp(theirs("A") + bytes(6)) is not None
    with pytest.raises(Malformed, match="total length"):
        parse_tcp(theirs("A", data=bytes(100)) + bytes(6))
    with pytest.raises(Malformed):
        parse_tcp(theirs("A", data=bytes(100))[:-1])


def test_interval_list(rng):
    for _ in range(100):
        intervals, seen = Intervals(0), set()
        for _ in range(30):
            begin = rng.randrange(60)
            end = begin + rng.randrange(12)
            intervals.add(begin, end)
            seen |= set(range(begin, end))
            complete = next(i for i in range(100) if i not in seen)
            assert intervals.complete == complete


def test_unwrap():
    assert unwrap(5, 2**32 - 3) == 2**32 + 5
    assert unwrap(2**32 - 3, 2**32 + 5) == 2**32 - 3
    assert unwrap(7, 7) == 7


# --- the monitor: what is right passes ---


def test_ordinary_connection_passes(monitor):
    monitor.to_engine(theirs("PA", data=b"x" * 400))
    monitor.from_engine(ours("A", ack=401, data=b"a" * 600))
    monitor.from_engine(ours("A", seq=601, ack=401, data=b"b" * 400))
    monitor.from_engine(ours("A", seq=1, ack=401, data=b"a" * 600))  # again
    monitor.from_engine(ours("A", seq=301, ack=401, data=b"a" * 300 + b"b" * 300))  # cut differently
    monitor.to_engine(theirs("A", seq=401, ack=1001))
    monitor.from_engine(ours("FA", seq=1001, ack=401, data=b"c"))
    monitor.to_engine(theirs("FA", seq=401, ack=1003))
    monitor.from_engine(ours("A", seq=1003, ack=402, wnd=999))
    ((key, flow),) = monitor.all_flows()
    assert key == (ip_number(US), 80, ip_number(THEM), 5000)
    assert (flow.bytes_sent, flow.bytes_received, flow.retransmissions) == (1001, 400, 2)
    assert flow.segments_sent == 7


def test_active_open_and_simultaneous_open_pass(fresh):
    fresh.from_engine(ours("S", seq=0, options=[("MSS", 1460)]))
    fresh.to_engine(theirs("SA", seq=0, options=[("MSS", 1400)]))
    fresh.from_engine(ours("A", data=b"z" * 1000))
    fresh.from_engine(ours("S", seq=0, sport=81, options=[("MSS", 1460)]))
    fresh.to_engine(theirs("S", seq=0, dport=81, options=[("MSS", 1400)]))
    fresh.from_engine(ours("SA", seq=0, sport=81, options=[("MSS", 1460)]))
    fresh.to_engine(theirs("A", dport=81))
    fresh.from_engine(ours("A", sport=81, data=b"z"))


@pytest.mark.parametrize("reset_first", [False, True])
def test_connection_reset_and_begun_anew_within_a_step_of_the_clock_of_sequence_numbers_passes(fresh, reset_first):
    fresh.to_engine(theirs("S", seq=0, options=[("MSS", 600)]))
    if reset_first:  # before the SYN,ACK has left
        fresh.to_engine(theirs("R"))
    fresh.from_engine(ours("SA", seq=0, options=[("MSS", 1460)]))
    if not reset_first:
        fresh.to_engine(theirs("R"))
    fresh.to_engine(theirs("S", seq=5_000_000, options=[("MSS", 600)]))
    fresh.from_engine(ours("SA", seq=0, ack=5_000_001, options=[("MSS", 1460)]))
    fresh.from_engine(ours("A", ack=5_000_001))


@pytest.mark.parametrize("again", [True, False])
def test_connection_that_has_ended_and_begins_anew_with_both_numbers_of_before(monitor, again):
    """The peer says its old SYN again, and gets the same SYN cookie. Without a SYN the engine would have begun by itself."""
    monitor.from_engine(ours("A", data=b"z" * 50))
    monitor.to_engine(theirs("FA", ack=51))
    monitor.from_engine(ours("FA", seq=51, ack=2))
    monitor.to_engine(theirs("A", seq=2, ack=52))
    if not again:
        with pytest.raises(WireError, match="less than before"):
            monitor.from_engine(ours("SA", seq=0, options=[("MSS", 1460)]))
        return
    monitor.to_engine(theirs("S", seq=0, options=[("MSS", 600)]))
    monitor.from_engine(ours("SA", seq=0, options=[("MSS", 1460)]))
    monitor.to_engine(theirs("A"))
    monitor.from_engine(ours("A", data=b"other bytes"))
    assert [flow.bytes_sent for _, flow in monitor.all_flows()] == [50, 11]


def test_another_syn_acknowledged_without_a_reset(monitor):
    monitor.to_engine(theirs("S", seq=5_000_000))
    with pytest.raises(WireError, match="never given"):
        monitor.from_engine(ours("SA", seq=0, ack=5_000_001, options=[("MSS", 1460)]))


@pytest.fixture
def time_wait(monitor):
    """A connection that ended, and two attempts to begin it anew that were reset: by the peer, and by us before its ACK came."""
    monitor.from_engine(ours("FA"))
    monitor.to_engine(theirs("FA", ack=2))
    monitor.from_engine(ours("A", seq=2, ack=2))
    monitor.to_engine(theirs("S", seq=5000, options=[("MSS", 600)]))
    monitor.from_engine(ours("SA", seq=9000, ack=5001, options=[("MSS", 1460)]))
    monitor.to_engine(theirs("R", seq=5001))
    monitor.to_engine(theirs("S", seq=7000, options=[("MSS", 600)]))
    monitor.from_engine(ours("SA", seq=11000, ack=7001, options=[("MSS", 1460)]))
    return monitor


def test_time_wait_outlives_attempts_that_came_to_nothing(time_wait):
    time_wait.from_engine(ours("A", seq=2, ack=2))  # the peer's FIN came again before its SYN, and waited in the host
    time_wait.from_engine(ours("RA", seq=11001, ack=7001))
    time_wait.to_engine(theirs("A", seq=7001, ack=11001))
    time_wait.from_engine(ours("A", seq=2, ack=2))
    for seq, ack in ((2, 3), (3, 2), (11001, 7001)):
        with pytest.raises(WireError, match="after the connection's RST"):
            time_wait.from_engine(ours("A", seq=seq, ack=ack))
    with pytest.raises(WireError, match="after the connection's RST"):
        time_wait.from_engine(ours("FA", seq=2, ack=2))


def test_connection_begun_anew_ends_time_wait(time_wait):
    time_wait.to_engine(theirs("A", seq=7001, ack=11001))
    time_wait.from_engine(ours("A", seq=11001, ack=7001, data=b"x"))
    with pytest.raises(WireError, match="less than before"):
        time_wait.from_engine(ours("A", seq=2, ack=2))


def test_scaled_windows(fresh):
    fresh.to_engine(theirs("S", seq=0, wnd=500, options=[("MSS", 1460), ("WScale", 3)]))
    fresh.from_engine(ours("SA", seq=0, wnd=65535, options=[("MSS", 1460), ("WScale", 2)]))
    fresh.to_engine(theirs("A", wnd=500))
    for at in range(3):
        fresh.from_engine(ours("A", seq=1 + 1200 * at, data=b"s" * 1200, wnd=16384))
    with pytest.raises(WireError, match="800 bytes beyond the peer's window"):
        fresh.from_engine(ours("A", seq=3601, data=b"s" * 1200, wnd=16384))


def test_window_of_a_syn_is_not_scaled(fresh):
    fresh.to_engine(theirs("S", seq=0, wnd=500, options=[("MSS", 1460), ("WScale", 3)]))
    fresh.from_engine(ours("SA", seq=0, wnd=65535, options=[("MSS", 1460), ("WScale", 2)]))
    with pytest.raises(WireError, match="500 bytes beyond"):
        fresh.from_engine(ours("A", data=b"s" * 1000, wnd=16384))


def test_window_probe_passes(monitor):
    monitor.from_engine(ours("A", data=b"d" * 500))
    monitor.from_engine(ours("A", seq=501, data=b"d" * 500))
    monitor.to_engine(theirs("A", ack=1001, wnd=0))
    monitor.from_engine(ours("A", seq=1001, data=b"p"))
    with pytest.raises(WireError, match="beyond the peer's window"):
        monitor.from_engine(ours("A", seq=1002, data=b"q"))


def test_reset_of_strangers_passes(fresh):
    fresh.to_engine(theirs("S", seq=0, dport=99))
    fresh.from_engine(bytes(Ether(src=OUR_MAC, dst=THEIR_MAC) / IP(src=US, dst=THEM)
                            / TCP(sport=99, dport=5000, flags="RA", seq=0, ack=IRS + 1, window=0)))  # fmt: skip
    fresh.to_engine(theirs("A", seq=5, ack=77, dport=99))
    fresh.from_engine(ours("R", seq=77, sport=99))


def test_arp_and_icmp_pass(fresh):
    fresh.from_engine(bytes(Ether(src=OUR_MAC, dst=THEIR_MAC) / ARP(hwsrc=OUR_MAC, psrc=US)))
    fresh.from_engine(bytes(Ether(src=OUR_MAC, dst=THEIR_MAC) / IP(src=US, dst=THEM) / ICMP(type=0) / b"ping"))
    fresh.from_engine(bytes(Ether(src=OUR_MAC, dst=THEIR_MAC) / IP(src=US, dst=THEM) / UDP() / b"udp"))


# --- what is wrong does not ---


def spoil(frame, offset):
    return frame[:offset] + bytes([frame[offset] ^ 1]) + frame[offset + 1 :]


ANYTIME = [
    (ours("A")[:13], "frame of 13 bytes"),
    (ours("A", data=bytes(1475)), "frame of 1529 bytes"),
    (spoil(ours("A"), 11), "source MAC"),
    (spoil(ours("A"), 24), "IP header checksum"),
    (spoil(ours("A"), 40), "TCP checksum"),
    (ours("A", ttl=0), "time to live"),
    (ours("A", frag=3), "fragment"),
    (bytes(Ether(src=OUR_MAC, dst=THEIR_MAC) / IP(src="10.0.0.9", dst=THEM) / TCP()), "source address 10.0.0.9"),
    (bytes(Ether(src=OUR_MAC, dst=THEIR_MAC) / IP(src=US, dst=THEM) / ICMP(chksum=1)), "ICMP checksum"),
    (bytes(Ether(src=OUR_MAC, dst=THEIR_MAC) / ARP())[:30], "ARP"),
    (ours("SF", seq=0, options=[("MSS", 1460)]), "SYN together with"),
    (ours("P"), "neither SYN, RST nor ACK"),
    (ours("A", sport=4), "connection that never began"),
    (ours("S", sport=4, seq=0), "without the MSS option"),
    (ours("S", sport=4, seq=0, data=b"x", options=[("MSS", 1460)]), "SYN with data"),
    (ours("SA", sport=4, seq=0, options=[("MSS", 1460)]), "SYN the engine was never given"),
    (ours("R", seq=9999), "answers nothing the engine was given"),
    (ours("RA", seq=1, data=b"x"), "RST with data"),
]


@pytest.mark.parametrize("frame, message", ANYTIME, ids=[message.replace(" ", "-") for _, message in ANYTIME])
def test_wrong_frame(monitor, frame, message):
    with pytest.raises(WireError, match=message):
        monitor.from_engine(frame)


@pytest.mark.parametrize("fragment", [{"flags": "MF"}, {"frag": 100}], ids=["first", "last"])
def test_fragments_of_the_hosts_datagrams_pass(monitor, fragment):
    ethernet, data = Ether(src=OUR_MAC, dst=THEIR_MAC), bytes(range(200))
    for protocol in (1, 17):
        monitor.from_engine(bytes(ethernet / IP(src=US, dst=THEM, proto=protocol, **fragment) / data))
    with pytest.raises(WireError, match="fragment"):
        monitor.from_engine(bytes(ethernet / IP(src=US, dst=THEM, proto=6, **fragment) / data))


def test_acknowledgement_that_overtakes_what_it_guesses(monitor):
    """The engine had the segment under way to the line: it took the ACK and its window, for what comes behind."""
    monitor.to_engine(theirs("A", ack=901, wnd=200))
    monitor.from_engine(ours("A", data=bytes(600)))
    with pytest.raises(WireError, match="1 bytes beyond the peer's window"):
        monitor.from_engine(ours("A", seq=601, data=bytes(401)))
    monitor.from_engine(ours("A", seq=601, data=bytes(400)))
    monitor.from_engine(ours("A", seq=1001, data=bytes(100)))
    with pytest.raises(WireError, match="2 bytes beyond the peer's window"):
        monitor.from_engine(ours("A", seq=1101, data=bytes(2)))


def test_beyond_window(monitor):
    monitor.from_engine(ours("A", data=bytes(600)))
    with pytest.raises(WireError, match="1 bytes beyond the peer's window"):
        monitor.from_engine(ours("A", seq=601, data=bytes(401)))


def test_beyond_mss(monitor):
    with pytest.raises(WireError, match="601 bytes, but the peer takes segments of 600"):
        monitor.from_engine(ours("A", data=bytes(601)))


@pytest.mark.parametrize(("mss", "most"), [(1, 48), (47, 48), (49, 49)])
def test_tiny_mss_option_need_not_be_obeyed_below_the_floor(fresh, mss, most):
    fresh.to_engine(theirs("S", seq=0, options=[("MSS", mss)]))
    fresh.from_engine(ours("SA", seq=0, options=[("MSS", 1460)]))
    fresh.to_engine(theirs("A"))
    fresh.from_engine(ours("PA", data=bytes(most)))
    with pytest.raises(WireError, match=f"takes segments of {mss}"):
        fresh.from_engine(ours("PA", seq=1 + most, data=bytes(most + 1)))


def test_data_for_a_window_under_way_may_be_acknowledged(monitor):
    """The peer has the larger window from a frame that we see later than the engine has sent it."""
    monitor.to_engine(theirs("PA", data=bytes(1000)))
    monitor.from_engine(ours("A", ack=1001, wnd=0))
    monitor.to_engine(theirs("PA", seq=1001, data=bytes(500)))
    monitor.to_engine(theirs("FA", seq=1501))
    monitor.from_engine(ours("A", ack=1502, wnd=1000))


def test_data_beyond_every_window_is_not_acknowledged(monitor):
    monitor.to_engine(theirs("PA", data=bytes(1000)))
    monitor.from_engine(ours("A", ack=1001, wnd=100))
    monitor.to_engine(theirs("PA", seq=1001, data=bytes(500)))
    monitor.from_engine(ours("A", ack=1101, wnd=0))
    with pytest.raises(WireError, match="never given"):
        monitor.from_engine(ours("A", ack=1501, wnd=0))


def test_default_mss(fresh):
    fresh.to_engine(theirs("S", seq=0))
    fresh.from_engine(ours("SA", seq=0, options=[("MSS", 1460)]))
    fresh.to_engine(theirs("A"))
    with pytest.raises(WireError, match="segments of 536"):
        fresh.from_engine(ours("A", data=bytes(537)))


def test_gap_in_sent_data(monitor):
    with pytest.raises(WireError, match="1 from the highest sent so far"):
        monitor.from_engine(ours("A", seq=2, data=b"x"))


def test_other_bytes_again(monitor):
    monitor.from_engine(ours("A", data=b"hello"))
    with pytest.raises(WireError, match="other bytes than the first time"):
        monitor.from_engine(ours("A", data=b"hellO"))


def test_other_bytes_after_a_partial_ack(monitor):
    monitor.from_engine(ours("A", data=b"h" * 500))
    monitor.to_engine(theirs("A", ack=101))
    monitor.from_engine(ours("A", seq=101, data=b"h" * 400 + b"i" * 100))
    with pytest.raises(WireError, match="other bytes than the first time"):
        monitor.from_engine(ours("A", seq=401, data=b"h" * 101))


def test_other_bytes_of_what_is_acknowledged_pass(monitor):
    monitor.from_engine(ours("A", data=b"h" * 500))
    monitor.to_engine(theirs("A", ack=101))
    monitor.from_engine(ours("A", data=b"x" * 100 + b"h" * 400))


def test_ack_of_what_never_came(monitor):
    monitor.to_engine(theirs("PA", seq=11, data=b"x" * 10))  # bytes 1 to 10 are missing
    monitor.from_engine(ours("A", ack=1))
    with pytest.raises(WireError, match="acknowledges 20 bytes the engine was never given"):
        monitor.from_engine(ours("A", ack=21))


def test_ack_of_a_corrupt_segment(monitor):
    monitor.to_engine(spoil(theirs("PA", data=b"x" * 10), 58))
    with pytest.raises(WireError, match="never given"):
        monitor.from_engine(ours("A", ack=11))


def test_ack_of_a_missing_fin(monitor):
    with pytest.raises(WireError, match="1 bytes the engine was never given"):
        monitor.from_engine(ours("A", ack=2))
    monitor.to_engine(theirs("FA"))
    monitor.from_engine(ours("A", ack=2, wnd=999))


def test_ack_falls_back(monitor):
    monitor.to_engine(theirs("PA", data=b"x" * 10))
    monitor.from_engine(ours("A", ack=11))
    with pytest.raises(WireError, match="10 bytes less than before"):
        monitor.from_engine(ours("A", ack=1))


def test_window_edge_moves_left(monitor):
    monitor.from_engine(ours("A", wnd=1000))
    with pytest.raises(WireError, match="right edge 1 bytes to the left"):
        monitor.from_engine(ours("A", wnd=999))


def test_data_after_fin(monitor):
    monitor.from_engine(ours("FA", data=b"end"))
    with pytest.raises(WireError, match="beyond the FIN"):
        monitor.from_engine(ours("A", seq=4, data=b"more"))


def test_fin_moves(monitor):
    monitor.from_engine(ours("FA", data=b"end"))
    with pytest.raises(WireError, match="a second FIN elsewhere"):
        monitor.from_engine(ours("FA", data=b"en"))


def test_segment_after_reset(monitor):
    monitor.from_engine(ours("RA"))
    with pytest.raises(WireError, match="after the connection's RST"):
        monitor.from_engine(ours("A"))


def test_port_used_again(monitor):
    monitor.from_engine(ours("RA"))
    monitor.to_engine(theirs("S", seq=5000, options=[("MSS", 600)]))
    monitor.from_engine(ours("SA", seq=9000, ack=5001, options=[("MSS", 1460)]))
    monitor.to_engine(theirs("A", seq=5001, ack=9001))
    monitor.from_engine(ours("A", seq=9001, ack=5001, data=b"again"))
    assert len(monitor.all_flows()) == 2


# --- impairments ---


def run_channel(rules, count=2000):
    channel = Channel(rules, "test")
    arrivals = []
    header = ours("A")[:14]
    for index in range(count):
        frame = header + index.to_bytes(4, "big") * 10
        arrivals += [(time, got, frame) for time, got in channel.send(frame, index * 10.0)]
    return channel, arrivals


def test_no_impairment_changes_nothing():
    channel, arrivals = run_channel(Impairment())
    assert [(time, got) for time, got, _ in arrivals] == [(10.0 * i, sent) for i, (_, _, sent) in enumerate(arrivals)]
    assert len(arrivals) == channel.passed == 2000
    assert not Impairment() and Impairment(loss=0.1)


def test_impairments_happen_as_often_as_asked():
    rules = Impairment(loss=0.05, duplicate=0.1, reorder=0.02, corrupt=0.03, delay_us=5, jitter_us=3, seed=3)
    channel, arrivals = run_channel(rules)
    assert 60 < channel.lost < 140 and 140 < channel.duplicated < 260
    assert 20 < channel.reordered < 65 and 30 < channel.corrupted < 95
    assert len(arrivals) == 2000 - channel.lost + channel.duplicated
    spoiled = [(got, sent) for _, got, sent in arrivals if got != sent]
    assert len(spoiled) >= channel.corrupted
    for got, sent in spoiled:
        assert (int.from_bytes(got, "big") ^ int.from_bytes(sent, "big")).bit_count() == 1
        assert got[:14] == sent[:14]
    early = [time - i for i, (time, _, _) in enumerate(arrivals) if time < 0]
    assert not early


def test_jitter_keeps_the_order_and_reorder_does_not():
    _, arrivals = run_channel(Impairment(jitter_us=500, delay_us=7))
    times = [time for time, _, _ in arrivals]
    assert times == sorted(times) and times[0] >= 7
    _, arrivals = run_channel(Impairment(reorder=0.1))
    times = [time for time, _, _ in arrivals]
    assert times != sorted(times)


def test_same_seed_same_fate():
    rules = Impairment(loss=0.2, duplicate=0.2, reorder=0.2, corrupt=0.2, jitter_us=50, seed=5)
    assert run_channel(rules)[1] == run_channel(rules)[1]
    other = Impairment(loss=0.2, duplicate=0.2, reorder=0.2, corrupt=0.2, jitter_us=50, seed=6)
    assert run_channel(rules)[1] != run_channel(other)[1]


def test_rate_spaces_frames_and_a_full_queue_drops_the_last():
    """At 1000 bytes a second a frame of 100 bytes takes 100 ms; times by hand."""
    rules = Impairment(rate_bytes_s=1000, queue_frames=2, delay_us=5)
    assert Impairment(rate_bytes_s=1)
    channel = Channel(rules, "test")
    frames = [bytes([n]) * 100 for n in range(4)]
    assert channel.send(frames[0], 1_000_000) == [(1_100_005, frames[0])]
    assert channel.send(frames[1], 1_000_000) == [(1_200_005, frames[1])]
    assert channel.send(frames[2], 1_099_999) == []  # one on the line, one that waits
    assert channel.send(frames[2], 1_100_000) == [(1_300_005, frames[2])]  # the first has just left
    assert channel.send(frames[3], 9_000_000) == [(9_100_005, frames[3])]  # the line has rested: nothing is owed
    assert (channel.passed, channel.dropped, channel.lost) == (5, 1, 0)
    assert "1 dropped" in channel.summary() and "dropped" not in Channel(Impairment(loss=1), "test").summary()

    # What is lost on the line has had its time there.
    channel = Channel(rules, "test")
    channel.impairment = Impairment(rate_bytes_s=1000, loss=1.0)
    assert channel.send(frames[0], 0) == [] and channel.lost == 1
    channel.impairment = rules
    assert channel.send(frames[1], 0) == [(200_005, frames[1])]


def test_a_queue_that_marks():
    """RFC 3168 section 5: who knows ECN is marked beyond the threshold, nobody is dropped for it, and the checksum is right."""
    channel = Channel(Impairment(rate_bytes_s=1000, queue_frames=4, mark_frames=2), "test")
    sent = [Ether(src="02::1", dst="02::2") / IP(tos=tos, id=number) for number, tos in enumerate((2, 2, 0xB9, 0, 2))]
    got = [[frame for _, frame in channel.send(bytes(frame), 0)] for frame in sent]
    assert got[:2] == [[bytes(sent[0])], [bytes(sent[1])]] and got[3:] == [[bytes(sent[3])], []]
    (marked,) = got[2]
    assert marked[15] == 0xBB and checksum_holds(marked[14:34])
    assert (
        marked[:15] + marked[16:24] + marked[26:] == bytes(sent[2])[:15] + bytes(sent[2])[16:24] + bytes(sent[2])[26:]
    )
    assert (channel.marked, channel.dropped, channel.longest) == (1, 1, 4) and "1 marked" in channel.summary()
    # Already marked, or no IPv4 packet.
    assert channel.send(bytes(sent[2].__class__(bytes(sent[2]))), 9e9)[0][1] == bytes(sent[2])
    for frame in (bytes(54), b"\xff" * 15):
        assert Channel(Impairment(rate_bytes_s=1, mark_frames=1), "x").send(frame, 0)[0][1] == frame


def test_rate_leaves_the_fate_of_frames_alone():
    """The same frames are lost with a rate as without one."""
    chances = {"loss": 0.1, "corrupt": 0.1, "duplicate": 0.1, "seed": 5}
    _, free = run_channel(Impairment(**chances))
    channel, paced = run_channel(Impairment(**chances, rate_bytes_s=1000, queue_frames=10_000))
    assert [got for _, got, _ in paced] == [got for _, got, _ in free] and not channel.dropped
    assert max(time for time, _, _ in paced) == pytest.approx(2000 * 54 / 1000 * 1e6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": 1.1},
        {"corrupt": -0.1},
        {"delay_us": -1.0},
        {"rate_bytes_s": -1.0},
        {"queue_frames": 0},
        {"mark_frames": -1},
    ],
)
def test_wrong_impairments(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Impairment(**wrong)


# --- captures ---


def test_pcap_round_trip(out_dir):
    rng = random.Random(1)
    frames = [(i * 1_234_567_891, rng.randbytes(60 + i)) for i in range(50)]
    with PcapWriter(out_dir / "frames.pcap") as pcap:
        for time_ns, frame in frames:
            pcap.write(time_ns, frame)
    assert list(read_pcap(pcap.path)) == frames
    (out_dir / "text.pcap").write_text("no capture at all, just text")
    with pytest.raises(ValueError, match="is not a capture"):
        list(read_pcap(out_dir / "text.pcap"))


def test_a_capture_of_microseconds_that_grows(out_dir):
    """As tcpdump writes them; cut anywhere, nothing is read twice or left out."""
    frames = [(seconds * 10**9 + 7000, bytes([seconds]) * 60) for seconds in range(5)]
    whole = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    whole += b"".join(struct.pack("<IIII", time_ns // 10**9, 7, 60, 60) + frame for time_ns, frame in frames)
    path = out_dir / "grows.pcap"
    path.write_bytes(whole[:24])
    reader, found = PcapReader(path), []
    for end in range(24, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        found += reader.frames()
    path.write_bytes(whole)
    assert found + list(reader.frames()) == frames and reader.left == 0
    reader.close()


def test_capture_names_its_file(out_dir, monitor):
    capture = Capture(out_dir / "wrong.pcap", monitor)
    capture.frame(theirs("PA", data=b"q"), True, 1000)
    with pytest.raises(WireError, match="wrong.pcap"):
        capture.frame(ours("A", ack=500), False, 2000)
    assert len(list(read_pcap(out_dir / "wrong.pcap"))) == 2
    assert (capture.to_engine, capture.from_engine) == (1, 1)
    capture.close()


@pytest.mark.skipif(not tshark.available(), reason="tshark is not installed")
def test_tshark_finds_faults(out_dir):
    with PcapWriter(out_dir / "clean.pcap") as clean:
        for index in range(5):
            clean.write(index, ours("A", data=bytes(index)))
    assert tshark.faults(clean.path) == []
    with PcapWriter(out_dir / "faulty.pcap") as faulty:
        faulty.write(0, ours("A", data=b"fine"))
        faulty.write(1, spoil(ours("A", data=b"hello"), 55))
        faulty.write(2, spoil(ours("A", data=b"hello"), 24))
    assert len(tshark.faults(faulty.path)) == 2
    with pytest.raises(OSError, match="cannot read"):
        tshark.faults(out_dir / "none.pcap")


# ---------------------------------------------------------------------- what is not the engine's, and what is long over


def test_segments_of_the_hosts_kernel_are_not_judged(fresh):
    """They leave through the engine with its addresses; one that is lost on the way there is no fault of the engine's."""
    stray = ours("A", seq=5000, ack=1, data=b"of the kernel")
    with pytest.raises(WireError, match="never began"):
        fresh.from_engine(stray)
    fresh.host.give(stray)
    fresh.from_engine(stray)
    with pytest.raises(WireError, match="never began"):  # it left once only
        fresh.from_engine(stray)


def test_frame_of_the_host_is_known_padded():
    host = HostFrames()
    host.give(b"short")
    assert host.take(b"short".ljust(60, b"\0"))
    assert not host.take(b"short".ljust(60, b"\0"))


def test_equal_frames_of_the_host_count_each_though_others_are_lost():
    host = HostFrames(limit=4)
    twice = b"twice" * 20
    for each in (b"1" * 60, twice, twice, b"2" * 60):
        host.give(each)
    assert host.take(twice)
    host.give(b"3" * 60)  # the first one is lost now
    assert not host.take(b"1" * 60)
    host.give(b"4" * 60)  # of the equal ones the first has left long ago: the second still may
    assert host.take(twice) and not host.take(twice)


def test_lost_frames_of_the_host_are_forgotten():
    host = HostFrames(limit=8)
    for n in range(1000):
        host.give(n.to_bytes(2) * 40)
    assert not host.take((991).to_bytes(2) * 40)
    assert all(host.take(n.to_bytes(2) * 40) for n in range(992, 1000))


@pytest.mark.parametrize("ending", ["reset", "reset by the peer", "both FINs", "open"])
def test_connections_that_are_long_over_are_forgotten(ending):
    """A session of many hours needs no more memory than one of minutes; what is open is watched for ever."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US), forget_after_ns=1000)
    for port in range(5000, 5100):
        monitor.to_engine(theirs("S", seq=0, sport=port))
        monitor.from_engine(ours("SA", seq=0, dport=port, options=[("MSS", 1460)]))
        monitor.to_engine(theirs("A", sport=port))
        if ending == "reset":
            monitor.from_engine(ours("RA", seq=1, dport=port))
        elif ending == "reset by the peer":
            monitor.to_engine(theirs("R", seq=1, sport=port))
        elif ending == "both FINs":
            monitor.from_engine(ours("FA", dport=port))
            monitor.to_engine(theirs("FA", ack=2, sport=port))
            monitor.from_engine(ours("A", seq=2, ack=2, dport=port))
    for time_ns in range(8200):
        monitor.from_engine(bytes(Ether(src=OUR_MAC) / ARP()), time_ns)
    assert len(monitor.flows) == len(monitor._given) == (100 if ending == "open" else 0)


def test_many_connections_over_within_the_time_need_no_more_memory():
    """Hundreds a second, for minutes. The oldest make room, none that is open; late segments of the others pass."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US), forget_after_ns=1 << 60, remembered=50)
    for port in range(5000, 5100):
        monitor.to_engine(theirs("S", seq=0, sport=port))
        monitor.from_engine(ours("SA", seq=0, dport=port, options=[("MSS", 1460)]))
        monitor.to_engine(theirs("A", sport=port))
        if port >= 5010:
            monitor.from_engine(ours("FA", dport=port, data=b"last"))
            monitor.to_engine(theirs("FA", ack=6, sport=port))
            monitor.from_engine(ours("A", seq=6, ack=2, dport=port))
    for time_ns in range(4200):
        monitor.from_engine(bytes(Ether(src=OUR_MAC) / ARP()), time_ns)
    assert {key[3] for key in monitor.flows} == {*range(5000, 5010), *range(5060, 5100)}
    assert not any(flow.sent for _, flow in monitor.all_flows())
    for port in range(5060, 5100):
        monitor.to_engine(theirs("FA", ack=6, sport=port))
        monitor.from_engine(ours("A", seq=6, ack=2, dport=port))
        with pytest.raises(WireError, match="sequence number"):
            monitor.from_engine(ours("A", seq=8, ack=2, dport=port, data=b"x"))


@pytest.mark.parametrize("ours_scaled", [False, True])
def test_the_same_syn_with_other_options(fresh, ours_scaled):
    """The engine may have dropped the first for want of room: what the one or the other allows is allowed."""
    fresh.to_engine(theirs("S", seq=0, options=[("MSS", 536)]))
    fresh.to_engine(theirs("S", seq=0, options=[("MSS", 1000), ("WScale", 3)], wnd=10))
    scale = [("NOP", None), ("WScale", 0)] if ours_scaled else []
    fresh.from_engine(ours("SA", seq=0, options=[("MSS", 1460), *scale]))
    fresh.to_engine(theirs("A", wnd=1000))
    fresh.from_engine(ours("A", data=bytes(1000)))
    with pytest.raises(WireError, match="takes segments of 1000"):
        fresh.from_engine(ours("A", seq=1, data=bytes(1001)))
    if not ours_scaled:
        with pytest.raises(WireError, match="beyond the peer's window"):
            fresh.from_engine(ours("A", seq=1001, data=bytes(1000)))
    else:
        fresh.from_engine(ours("A", seq=1001, data=bytes(1000)))


@pytest.mark.parametrize("seqs", [(100_000_000, 200_000_000), (200_000_000, 100_000_000, 200_000_000)])
def test_syns_that_wait_when_a_connection_ends_may_each_be_answered(monitor, seqs):
    """A peer that begins anew again and again: the engine answers in order, and late, while the line stands still."""
    monitor.to_engine(theirs("R", seq=1))
    for seq in seqs:
        monitor.to_engine(theirs("S", seq=seq, options=[("MSS", 600)]))
    for number, seq in enumerate(seqs):
        iss = 1_000_000 * (number + 1)
        monitor.from_engine(ours("SA", seq=iss, ack=seq + 1, options=[("MSS", 1460)]))
        monitor.from_engine(ours("RA", seq=iss + 1, ack=seq + 1))
