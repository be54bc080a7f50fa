"""Transmit path: every byte of every frame against scapy, whatever the sources, memory and wire do."""

import random

import pytest
from scapy.layers.inet import TCP

from tests.configs import JUMBO
from tests.hdl.tx.bench import FLAGS_DATA, SEGMENT, TOS, TTL, TxBench
from tests.widths import WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.messages import ACK, RST, SYN, URG, Status
from tiptoe_hdl.tx.job import frames_inside
from tiptoe_hdl.tx.path import TxPath
from tiptoe_hdl.tx.resolve import HOST_FRAMES

CONDITIONS = {
    "quick": {},
    "idle": {"idle": 0.95},
    "stalled": {"stall": 0.6},
    "slow memory": {"slow": 0.6, "latency": 60},
    "everything": {"idle": 0.5, "stall": 0.4, "slow": 0.3, "latency": 30, "done_stall": 0.95},
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("conditions", CONDITIONS.values(), ids=list(CONDITIONS))
def test_mixed_sources(width, conditions, rng):
    bench = TxBench(TINY.with_(data_width=width), rng, **conditions)
    bench.run(bench.mixed(24))


@pytest.mark.parametrize("width", WIDTHS)
def test_payload_lengths_at_every_alignment(width, rng):
    """Lengths 0 to 20 and around the MSS, positions of every lane, some across the ring's end."""
    bench = TxBench(TINY.with_(data_width=width), rng)
    lanes = width // 8
    jobs = []
    for n, length in enumerate([*range(max(21, lanes)), 1449, 1459, 1460]):
        before_end = rng.randrange(length + 1)
        for position in (n % lanes, 4096 * rng.randrange(1 << 20) - before_end):
            jobs.append(bench.segment(length, id=3 * (n % 2), position=position % (1 << 32)))
    bench.run(jobs)


@pytest.mark.parametrize("conditions, width", [*((name, 64) for name in CONDITIONS), ("everything", 256)])
def test_long_frames(conditions, width, rng):
    """Payloads and host's frames around the longest and around what is long elsewhere, some across the ring's end; those of a
    byte more are not sent."""
    bench = TxBench(JUMBO.with_(data_width=width), rng, **CONDITIONS[conditions])
    jobs = []
    for length in (8961, 8960, 8959, 8948, 4096, 1461):
        before_end = rng.randrange(length + 1)
        position = (rng.randrange(1 << 18) << 14) - before_end
        jobs += [bench.segment(length, position=position % (1 << 32)), bench.segment(1)]
    jobs += [bench.frame(length) for length in (9015, 9014, 14)]
    rng.shuffle(jobs)
    bench.run(jobs)
    assert max(request["length"] for request in bench.requested) == 9014


@pytest.mark.parametrize("width", WIDTHS)
def test_host_frames_from_every_address(width, rng):
    bench = TxBench(TINY.with_(data_width=width), rng)
    jobs = [
        bench.frame(length) for length in [*range(14, max(34, 14 + width // 8)), 59, 60, 61, 63, 64, 65, 1513, 1514]
    ]
    for n, job in enumerate(jobs):
        job.message["addr"] = 0x20000 + n % (width // 8)
    bench.run(jobs)


@pytest.mark.parametrize("flags", [1 << SYN, 1 << SYN | 1 << ACK, 1 << RST, 1 << ACK, 0, 0xFF])
def test_flags_and_options(flags, rng):
    """Options go with SYN and only with it, payload behind them included."""
    bench = TxBench(TINY, rng)
    jobs = []
    for ws_present in (0, 1):
        for length in (0, 1, 9):
            job = bench.segment(length, flags=flags)
            job.message["ws_present"] = ws_present
            jobs.append(job)
        job = bench.control(flags)
        job.message["ws_present"] = ws_present
        jobs.append(job)
    bench.run(jobs)


@pytest.mark.parametrize("urgent", [0, 1, 0x100, 0xFFFF])
def test_urgent_pointer(urgent, rng):
    """In its place and in the checksum; not in the control segment behind it."""
    bench = TxBench(TINY, rng)
    jobs = []
    for length in (0, 1, 1460):
        for sacks in (0, 1) if length < 1460 else (0,):
            job = bench.segment(length, flags=FLAGS_DATA | 1 << URG, sacks=sacks)
            job.message["urgent"] = urgent
            jobs += [job, bench.control()]
    frames = bench.run(jobs)
    assert sorted(TCP(frame[34:]).urgptr for frame in frames) == [0] * 5 + [urgent] * 5


def test_checksum_carries(rng):
    """Sums at the edges of the folds: all ones, all zeros, and a checksum of zero."""
    bench = TxBench(TINY, rng)
    bench.memory[:] = b"\xff" * len(bench.memory)
    jobs = [bench.segment(length, id=1) for length in (0, 1, 2, 1459, 1460)]
    for job in jobs[::2]:
        job.message.update(seq=0xFFFFFFFF, ack=0xFFFFFFFF, wnd=0xFFFF, urgent=0xFFFF)
    bench.endpoints[1].tuple = dict(laddr=0xFFFFFFFF, faddr=0xFFFFFFFF, lport=0xFFFF, fport=0xFFFF)
    zero = bench.segment(0, id=2)
    bench.endpoints[2].tuple = dict(laddr=0, faddr=0, lport=0, fport=0)
    # Pseudo header: protocol 6, length 20; data offset and flags; the window makes the sum 0xFFFF.
    zero.message.update(seq=0, ack=0, flags=0, urgent=0, wnd=0xFFFF - 6 - 20 - 0x5000)
    frames = bench.run([*jobs, zero])
    assert frames[-1][50:52] == bytes(2)


def test_checksum_carries_twice(rng):
    """Sums whose first fold carries once more, in both headers."""
    bench = TxBench(TINY, rng)
    job = bench.segment(0, id=1)
    ends = bench.endpoints[1].tuple = dict(laddr=0xFFFFFFFF, faddr=0xFFFF0000, lport=0x1234, fport=0xFEDC)
    ip = 0x4500 + TOS + 40 + 0 + 0x4000 + (TTL << 8 | 6) + 3 * 0xFFFF
    ends["faddr"] |= 0xFFFF - ip % 0x10000
    ip += ends["faddr"] & 0xFFFF
    job.message.update(seq=0xABCD4321, ack=0xFFFF8765)
    tcp = 3 * 0xFFFF + (ends["faddr"] & 0xFFFF) + 6 + 20 + ends["lport"] + ends["fport"]
    tcp += 0xABCD + 0x4321 + 0xFFFF + 0x8765 + (0x5000 | FLAGS_DATA)
    job.message["wnd"] = 0xFFFF - tcp % 0x10000
    tcp += job.message["wnd"]
    assert ip > tcp % 0x10000 == ip % 0x10000 == 0xFFFF < tcp
    bench.run([job])


@pytest.mark.parametrize("width", WIDTHS)
def test_read_error_drops_the_frame_only(width, rng):
    bench = TxBench(TINY.with_(data_width=width), rng, latency=20, slow=0.2, stall=0.2)
    jobs = bench.mixed(40) + [bench.segment(700, error=True), bench.segment(1), bench.frame(100, error=True)]
    for job in jobs:
        if job.length:
            job.error |= rng.random() < 0.4
    bench.run(jobs)
    assert Status.DMA_ERROR in bench.statuses
    assert bench.errors


def test_first_and_last_frame_dropped(rng):
    bench = TxBench(TINY, rng)
    bench.run([bench.segment(1460, error=True), bench.segment(3), bench.segment(2, error=True)])


def test_bad_lengths_are_refused(rng):
    """Frames no wire carries: counted, answered, and nothing read for them."""
    bench = TxBench(TINY, rng)
    lengths = [0, 1, 13, 14, 1514, 1515, 4095]
    jobs = [bench.frame(length) for length in lengths]
    jobs += [bench.segment(length) for length in (1460, 1461, 4095, 100)]
    jobs += [bench.segment(1449, flags=1 << SYN), bench.segment(1448, flags=1 << SYN)]
    bench.run(jobs)
    bad = Status.BAD_ARGUMENT
    assert bench.statuses == [bad, bad, bad, Status.OK, Status.OK, bad, bad]
    assert max(request["length"] for request in bench.requested) == 1514


def test_frame_done_not_taken_holds_host_frames_only(rng):
    bench = TxBench(TINY, rng)
    frames = [bench.frame(60) for _ in range(HOST_FRAMES + 4)]
    segments = [bench.segment(5) for _ in range(40)]
    bench.done_after = segments[-1]
    bench.run(frames + segments)
    assert bench.accepted.index(segments[-1]) == 40 + HOST_FRAMES - 1
    assert bench.accepted[-4:] == frames[-4:]


def test_requests_never_exceed_the_buffer(rng):
    """With the wire stalled, requests stop when the buffer is full, and all comes out afterwards."""
    cfg = TINY.with_(tx_buffer_bytes=4096)
    bench = TxBench(cfg, rng)
    held = []

    class Spy(list):
        def append(self, request):
            if len(bench.beat_cycles) == 0:
                held.append(request["length"])
            super().append(request)

    bench.requested = Spy()
    bench.run([bench.segment(1460) for _ in range(4)] + [bench.segment(9) for _ in range(20)], hold=1500)
    assert held == [1460, 1460]  # the third waits, and all behind it, in order


def test_stalled_wire_holds_the_sources(rng):
    """With the wire stalled, as many frames as there are header slots are accepted, and none is lost."""
    bench = TxBench(TINY, rng)
    accepted = []

    class Spy(list):
        def append(self, job):
            if not bench.beat_cycles:
                accepted.append(job)
            super().append(job)

    bench.accepted = Spy()
    bench.run([bench.segment(n % 3) for n in range(80)], hold=600)
    assert len(accepted) == frames_inside(bench.cfg) + 2  # those of which every beat is on its way to the wire


def test_order_is_that_of_acceptance_and_sources_take_turns(rng):
    bench = TxBench(TINY, rng)
    jobs = [bench.segment() for _ in range(12)] + [bench.control() for _ in range(12)]
    jobs += [bench.frame(60) for _ in range(12)]
    bench.run(jobs)
    sources = [job.source for job in bench.accepted]
    for at in range(34):
        assert len(set(sources[at : at + 3])) == 3, sources


def cycles_per_frame(bench: TxBench, skip: int = 1) -> float:
    """Cycles from last beat to last beat, after the first ``skip`` frames."""
    ends = [cycle for cycle, last in bench.beat_cycles if last]
    return (ends[-1] - ends[skip - 1]) / (len(ends) - skip)


def assert_no_pause(bench: TxBench) -> None:
    """Beats of a frame follow each other without a gap."""
    for (cycle, last), (following, _) in zip(bench.beat_cycles, bench.beat_cycles[1:], strict=False):
        assert last or following == cycle + 1


@pytest.mark.parametrize("width, latency", [(32, 160), (64, 4), (64, 160), (128, 160), (256, 4), (256, 160)])
def test_throughput(width, latency, rng, capsys):
    """Bus bound with full frames, minimum frames and tiny payloads; a 1 us memory does not change it."""
    step = width // 8
    report = []

    def measure(name, jobs, size, skip=1, margin=0.0):
        bench = TxBench(TINY.with_(data_width=width), random.Random(rng.random()), latency=latency)
        bench.run(jobs(bench))
        bound = max(3, -(-size // step))
        cycles = cycles_per_frame(bench, skip)
        assert_no_pause(bench)
        report.append(f"{name}: {cycles:.2f} cycles a frame, bound {bound}")
        assert cycles <= bound * (1 + margin), report[-1]

    if latency < 100:
        measure("1514 bytes, aligned", lambda b: [b.segment(1460, position=1464 * n) for n in range(4)], 1514)
        measure("60 bytes, any source",
                lambda b: [j for _ in range(20) for j in (b.segment(), b.control(1 << RST), b.frame(60))],
                60, skip=20, margin=0.1)  # fmt: skip
        measure("SYN,ACK", lambda b: [b.control() for _ in range(20)], 62, margin=0.1)
    measure("54 bytes", lambda b: [j for _ in range(12) for j in (b.segment(), b.control(1 << RST))], 60)
    measure("1514 bytes, odd", lambda b: [b.segment(1460, position=1460 * n + 3) for n in range(4)], 1514)
    # The first answers come after the latency; then the frames inside hide it.
    measure("payload of 1 to 6 bytes", lambda b: [b.segment(1 + n % 6) for n in range(70)], 60, skip=45)
    with capsys.disabled():
        print(f"\n{width} bits, memory latency {latency}:", *report, sep="\n  ")


@pytest.mark.parametrize("width", WIDTHS)
def test_latency(width, rng, capsys):
    """Cycles from segment.valid to the first beat, with nothing else under way."""
    report = []
    for length in (0, 1, 100, 1460) if width == 64 else (0, 100):
        bench = TxBench(TINY.with_(data_width=width), random.Random(rng.random()), latency=20)
        bench.run([bench.segment(length, position=0)])
        assert_no_pause(bench)
        marks = bench.marks
        total = marks["o"] - marks["segment"]
        if not length:
            report.append(f"no payload: {total}")
            assert total <= (11 if width == 256 else 8)
        else:
            words = -(-length // (width // 8))
            to_request = marks["request"] - marks["segment"]
            after = marks["o"] - marks["data"] - words
            report.append(
                f"{length} bytes: {to_request} to the request, {marks['data'] - marks['request']} memory, "
                f"{words} words, {after} more to the first beat"
            )
            assert to_request <= 4
            assert after <= {128: 10, 256: 13}.get(width, 9)
    with capsys.disabled():
        print(f"\n{width} bits, from segment.valid to o.valid:", *report, sep="\n  ")


def test_no_pause_inside_a_frame_with_slow_memory(rng):
    bench = TxBench(TINY, rng, slow=0.7, latency=50)
    bench.run(bench.mixed(30))
    assert_no_pause(bench)


def test_identification_counts_segments(rng):
    bench = TxBench(TINY, rng)
    frames = bench.run([bench.segment(flags=FLAGS_DATA) for _ in range(3)])
    assert [frame[18:20] for frame in frames] == [b"\0\0", b"\0\1", b"\0\2"]
    assert {job.source for job in bench.accepted} == {SEGMENT}


def test_sizes_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="must hold two frames of 1514 bytes, not 2048"):
        TxPath(TINY.with_(tx_buffer_bytes=2048))
    with pytest.raises(ValueError, match="must hold two frames of 9014 bytes, not 16384"):
        TxPath(TINY.with_(max_frame_bytes=9014, tx_buffer_bytes=16384))
