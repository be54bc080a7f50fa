"""Timestamps of the transmit path (RFC 7323 section 3.2): with every other option, at every width."""

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from tests.hdl.tx.bench import FLAGS_DATA, TxBench
from tests.widths import ONE_WIDTH, WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.messages import ACK, RST, SYN

STAMPED = TINY.with_(timestamps=True)


@pytest.mark.parametrize("width", ONE_WIDTH)
@pytest.mark.parametrize("sacks", range(4))
@pytest.mark.parametrize("length", ["none", 1, 7, 8, "full"])
def test_beside_every_number_of_blocks_and_every_length(width, sacks, length, rng):
    options = 12 + (4 + 8 * sacks if sacks else 0)
    size = {"none": 0, "full": 1460 - options}.get(length, length)
    bench = TxBench(STAMPED.with_(data_width=width), rng)
    lists = [(held, newest) for held in range(5) for newest in range(4)]
    lists = rng.sample(lists, 4) if length == "full" else lists
    jobs = [bench.segment(size, sacks=sacks, received=bench.received(*one)) for one in lists]
    for job in jobs:
        job.message["ts_ok"] = 1
    for frame in bench.run(jobs):
        assert len(frame) == max(60, 54 + options + size)
        assert Ether(frame)[TCP].dataofs == 5 + options // 4


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("source", ["segment", "control"])
def test_syn_with_every_option(width, source, rng):
    bench = TxBench(STAMPED.with_(data_width=width), rng)
    jobs = []
    for case in range(16):
        flags = 1 << SYN | (case >> 3) << ACK
        job = bench.segment(flags=flags) if source == "segment" else bench.control(flags)
        job.message |= {"ws_present": case & 1, "sack_ok": case >> 1 & 1, "ts_ok": case >> 2 & 1}
        jobs.append(job)
    bench.run(jobs)


@pytest.mark.parametrize("flags, echoed", [(1 << SYN, 0), (1 << SYN | 1 << ACK, 1), (FLAGS_DATA, 1), (1 << RST, 0)])
def test_without_acknowledgement_nothing_is_echoed(flags, echoed, rng):
    """Section 3.2: TSecr is valid if the ACK bit is set; else it must be zero."""
    bench = TxBench(STAMPED, rng)
    job = bench.segment(flags=flags, id=1)
    job.message["ts_ok"] = 1
    bench.echoes[1] = 0x80000001
    (frame,) = bench.run([job])
    (stamps,) = [value for kind, value in Ether(frame)[TCP].options if kind == "Timestamp"]
    assert stamps[1] == (0x80000001 if echoed else 0)


def tsval(frame):
    (stamps,) = [value for kind, value in Ether(frame)[TCP].options if kind == "Timestamp"]
    return stamps[0]


@pytest.mark.parametrize("clock", [0, 1, 63, 64, 0x7FFFFFF0, 0x80000000, 0xFFFFFFFF])
def test_what_a_cookie_s_tsval_says_is_never_newer_than_what_follows(clock, rng):
    """The connection's next segment may be of the same tick; were its TSval less, the peer would drop it (RFC 7323 section
    5.3). And none is older than the options take."""
    bench = TxBench(STAMPED, rng, ts_now=clock)
    jobs = []
    for iss in (0, 1, 62, 63, 64, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFC0):
        for ws, sack_ok, ecn_ok in ((15, 1, 1), (0, 0, 0), (7, 1, 0), (14, 0, 1)):
            cookie = bench.control(1 << SYN | 1 << ACK)
            said = {"ws": ws, "sack_ok": sack_ok, "ecn_ok": ecn_ok}
            cookie.message |= {"seq": iss, "ts_ok": 1, "says_options": 1, "options": said}
            follows = bench.segment(flags=1 << ACK, position=0)
            follows.message |= {"seq": iss + 1 & 0xFFFFFFFF, "ts_ok": 1}
            jobs += [cookie, follows]
    frames = [tsval(frame) for frame in bench.run(jobs)]
    for job, first, then in zip(jobs[::2], frames[::2], frames[1::2], strict=True):
        said = job.message["options"]
        assert first & 63 == said["ws"] | said["sack_ok"] << 4 | said["ecn_ok"] << 5
        assert then == (clock + job.message["seq"]) % (1 << 32) and (then - first) % (1 << 32) < 64


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_headers_of_all_kinds_back_to_back(width, stall, rng):
    bench = TxBench(STAMPED.with_(data_width=width), rng, stall=stall)
    bench.run(bench.mixed(60))


@pytest.mark.parametrize("width", WIDTHS)
def test_longest_segment_leaves_room_for_them(width, rng):
    """One byte more is an error of the pipeline's, and dropped."""
    bench = TxBench(STAMPED.with_(data_width=width), rng)
    jobs = [bench.segment(length) for length in (1448, 1449, 5)]
    for job in jobs:
        job.message["ts_ok"] = 1
    assert [len(frame) for frame in bench.run(jobs)] == [1514, 71]
