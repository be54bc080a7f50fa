"""SACK options of the transmit path (RFC 2018): every number of blocks, in every order, at every width."""

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from tests.hdl.tx.bench import FLAGS_DATA, Received, TxBench
from tests.widths import ONE_WIDTH, WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.messages import ACK, RST, SYN
from tiptoe_hdl.tx.job import frames_inside

LISTS = [(held, newest) for held in range(5) for newest in range(4)]
MAXSEG = 1460


def room_of(sacks: int) -> int:
    """Bytes of options."""
    return 4 + 8 * sacks if sacks else 0


def blocks_of(frame: bytes) -> list[tuple[int, int]]:
    """The SACK blocks in a frame, as scapy finds them."""
    edges = [edge for kind, value in Ether(frame)[TCP].options if kind == "SAck" for edge in value]
    return list(zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize("width", ONE_WIDTH)
@pytest.mark.parametrize("sacks", range(5))
@pytest.mark.parametrize("length", ["none", 1, 7, 8, "full"])
def test_room_held_and_newest(width, sacks, length, rng):
    """Room for 0 to 4 blocks, 0 to 4 intervals held, each of them the newest, or one that is gone."""
    size = {"none": 0, "full": MAXSEG - room_of(sacks)}.get(length, length)
    bench = TxBench(TINY.with_(data_width=width), rng)
    lists = LISTS if length != "full" else rng.sample(LISTS, 4)
    jobs = [bench.segment(size, sacks=sacks, received=bench.received(*one)) for one in lists]
    frames = bench.run(jobs)
    for frame, job in zip(frames, jobs, strict=True):
        assert blocks_of(frame) == job.received.blocks(sacks)
        assert len(frame) == max(60, 54 + room_of(sacks) + size)


@pytest.mark.parametrize("places", [2, 3])
@pytest.mark.parametrize("width", WIDTHS)
def test_fewer_intervals_than_blocks(width, places, rng):
    bench = TxBench(TINY.with_(data_width=width, ooo_intervals=places), rng)
    bench.run([
        bench.segment(n % 9, sacks=sacks, received=bench.received(held, newest))
        for n, (held, newest) in enumerate(LISTS) if held <= places for sacks in (1, places, 4)
    ])  # fmt: skip


def test_order_of_blocks(rng):
    """RFC 2018 section 4: the first block is the one with the segment received last."""
    bench = TxBench(TINY, rng)
    four = [(100, 200), (300, 400), (0xFFFFFF00, 16), (32, 48)]
    cases = {
        (4, 0): [0, 1, 2, 3], (4, 1): [1, 0, 2, 3], (4, 2): [2, 0, 1, 3], (4, 3): [3, 0, 1, 2],
        (2, 3): [3, 0], (1, 2): [2], (3, 1): [1, 0, 2],
    }  # fmt: skip
    jobs = [bench.segment(sacks=sacks, received=Received(four, newest)) for sacks, newest in cases]
    frames = bench.run(jobs)
    for frame, order in zip(frames, cases.values(), strict=True):
        assert blocks_of(frame) == [four[place] for place in order]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("known", [True, False], ids=["list known", "list being written"])
def test_what_has_come_twice_is_the_first_block(width, known, rng):
    """RFC 2883 section 4: whatever else there is to tell, and if there is nothing; across the wrap of sequence numbers. If it is
    ahead of the acknowledgement the block around it follows, though another one has come since; gone, it is left out."""
    bench = TxBench(TINY.with_(data_width=width), rng, unknown=not known)
    jobs = []
    for held, newest in LISTS:
        for sacks in range(1, 5):
            job = bench.segment(sacks=sacks, twice=True, received=bench.received(held, newest))
            edge = rng.choice([edge for both in job.received.intervals for edge in both] or [0])
            start = (edge + rng.choice([-1, 0, 1])) % 2**32
            job.message.update(
                twice_start=start, mss=rng.randrange(1, 4096), ack=(start + rng.choice([-100, 0, 1])) % 2**32
            )
            if sacks == 2:
                job.message["position"] = 2**32 - 5
            jobs += [job, bench.segment(held, sacks=sacks)]
    told = set()
    for frame, job in zip(bench.run(jobs), jobs, strict=True):
        assert blocks_of(frame) == bench.blocks(job)
        if job.message["twice"]:
            start = job.message["twice_start"]
            told.add(
                (
                    "around" if job.received.around(start) else "alone",
                    job.message["ack"] == start + 1,
                    start in dict(blocks_of(frame)),
                )
            )
    assert {("alone", False, False), ("alone", True, True)} <= told
    assert (("around", False, True) in told) == known


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_not_known_is_left_out(width, rng):
    """A list that is always being written holds nothing up: the option's room is filled with NOPs."""
    bench = TxBench(TINY.with_(data_width=width), rng, unknown=True)
    frames = bench.run([bench.segment(n % 3, sacks=n % 5) for n in range(20)])
    for n, frame in enumerate(frames):
        assert frame[54 : 54 + room_of(n % 5)] == b"\1" * room_of(n % 5)


@pytest.mark.parametrize("width", WIDTHS)
def test_list_changes_while_it_is_read(width, rng):
    """In whatever cycle the list is written: blocks of one list, none twice, and the checksum is that of what is sent."""
    bench = TxBench(TINY.with_(data_width=width), rng, lenient=True)
    jobs = []
    for sacks in range(1, 5):
        for cycles in range(-1, 30):
            job = bench.segment(cycles % 2, sacks=sacks, received=bench.received(4, 2))
            job.rewritten = cycles, bench.received(3, 1)
            jobs.append(job)
    how = set()
    for n, (frame, job) in enumerate(zip(bench.run(jobs), jobs, strict=True)):
        room = job.message["sacks"]
        found, lists = blocks_of(frame), [held.blocks(room) for held in (job.received, job.rewritten[1])]
        assert found in [blocks[: len(found)] for blocks in lists]
        assert frame == bench.reference(job, n, found)
        names = ((not found, "none"), (found == lists[0], "before"), (found == lists[1], "after"), (True, "part"))
        how.add(next(name for holds, name in names if holds))
    assert how == {"none", "part", "before", "after"}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "stall, latency",
    [(0.0, 5), (0.5, 5), *(pytest.param(*slow, marks=pytest.mark.soak) for slow in ((0.0, 60), (0.8, 30)))],
)
def test_headers_of_all_kinds_back_to_back(width, stall, latency, rng):
    """SYNs, SACKs, resets, host frames, one behind the other, behind a wire that stalls."""
    bench = TxBench(TINY.with_(data_width=width), rng, stall=stall, latency=latency)
    jobs = []
    for n in range(2 * frames_inside(bench.cfg) // 3):
        jobs += [
            bench.segment(n % 9, sacks=n % 5),
            bench.segment(flags=(1 << SYN, 1 << RST, 1 << ACK)[n % 3]),
            bench.segment(0, sacks=4 - n % 5),
        ]
        if n % 4 == 0:
            jobs += [bench.control(), bench.frame(60 + n)]
    bench.run(jobs)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("source", ["segment", "control"])
def test_options_of_a_syn(width, source, rng):
    """MSS, window scale and SACK-permitted: every combination, every shift, and no blocks."""
    bench = TxBench(TINY.with_(data_width=width), rng)
    jobs = []
    for ws in (0, 1, 7, 14, 15):
        for ws_present in (0, 1):
            for sack_ok in (0, 1):
                syn = 1 << SYN | rng.getrandbits(1) << ACK
                job = bench.segment(flags=syn) if source == "segment" else bench.control(syn)
                job.message.update(ws_present=ws_present, ws=ws, sack_ok=sack_ok)
                jobs.append(job)
    frames = bench.run(jobs)
    for frame, job in zip(frames, jobs, strict=True):
        kinds = [kind for kind, _ in Ether(frame)[TCP].options if kind != "NOP"]
        message = job.message
        assert kinds == ["MSS"] + ["WScale"] * message["ws_present"] + ["SAckOK"] * message["sack_ok"]


def test_checksum_carries_with_blocks(rng):
    """The largest sums there are."""
    bench = TxBench(TINY, rng)
    bench.memory[:] = b"\xff" * len(bench.memory)
    bench.endpoints[1].tuple = dict(laddr=0xFFFFFFFF, faddr=0xFFFFFFFF, lport=0xFFFF, fport=0xFFFF)
    jobs = []
    for sacks in range(1, 5):
        received = Received([(0xFFFFFFFF - n, 0xFFFFFFFF) for n in range(4)], 1)
        job = bench.segment(MAXSEG - room_of(sacks), id=1, sacks=sacks, received=received)
        job.message.update(seq=0xFFFFFFFF, ack=0xFFFFFFFF, wnd=0xFFFF, flags=FLAGS_DATA, urgent=0xFFFF)
        jobs.append(job)
    bench.run(jobs)


@pytest.mark.parametrize("sacks", range(5))
def test_longest_payload_with_blocks(sacks, rng):
    """What does not fit behind the options is refused."""
    bench = TxBench(TINY, rng)
    longest = MAXSEG - room_of(sacks)
    frames = bench.run([bench.segment(length, sacks=sacks) for length in (longest + 1, longest, 4095, longest - 1)])
    assert [len(frame) for frame in frames] == [1514, 1513]


@pytest.mark.parametrize("width", WIDTHS)
def test_too_long_with_blocks_nobody_waits_for_it(width, rng):
    """It has no header and so no sums that could come; no segment comes behind it either."""
    bench = TxBench(TINY.with_(data_width=width), rng)
    frames = bench.run([bench.segment(MAXSEG, sacks=1), bench.frame(60)])
    assert len(frames) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_throughput_with_blocks(width, rng, capsys):
    """Acknowledgements with blocks take their beats, and at 128 bits a cycle for each two blocks besides, at 256 four for any."""
    report = []
    for sacks in range(5):
        bench = TxBench(TINY.with_(data_width=width), rng)
        bench.run([bench.segment(sacks=sacks) for _ in range(30)])
        ends = [cycle for cycle, last in bench.beat_cycles if last]
        cycles = (ends[-1] - ends[5]) / (len(ends) - 6)
        bound = max(3, -(-max(60, 54 + room_of(sacks)) * 8 // width))
        bound += {128: (sacks + 1) // 2, 256: 4 * (sacks != 0)}.get(width, 0)
        first = bench.marks["o"] - bench.marks["segment"]
        report.append(f"{sacks} blocks: {cycles:.2f} cycles a frame, first beat after {first}")
        assert cycles <= bound, report[-1]
    with capsys.disabled():
        print(f"\n{width} bits:", *report, sep="\n  ")
