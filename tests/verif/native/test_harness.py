"""The native harness, around a stand-in component with the engine's ports."""

import random

import pytest

from tests.verif.native.standin import IDENTITY, StandIn
from tests.widths import WIDTHS
from tiptoe_verif.native.harness import Harness, RuleBroken, Stop, build

COPY_DONE, ERRORS, TICKS, IRQ, BAD_FRAMES, BREAK = 0x10, 0x14, 0x18, 0x1C, 0x20, 0x24


@pytest.fixture(scope="module")
def library():
    return build(StandIn(64), "standin64")


@pytest.fixture
def harness(library):
    harness = Harness(library, memory_bytes=1 << 16)
    yield harness
    harness.close()


def copy(harness, source, destination, words):
    before = harness.read32(COPY_DONE)
    harness.write32(4, source)
    harness.write32(8, destination)
    harness.write32(0xC, words)
    for _ in range(10_000):
        harness.run(16)
        if harness.read32(COPY_DONE) != before:
            return
    raise AssertionError("the copy did not end")


def test_registers_in_order(harness):
    assert harness.read32(0) == IDENTITY
    for value in range(50):
        harness.write32(4, value)
    assert harness.registers_pending == 50
    assert harness.read32(4) == 49
    assert harness.registers_pending == 0
    with pytest.raises(RuleBroken, match="0x3c"):
        harness.read32(0x3C)
    assert harness.counters()["register_errors"] == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_frames_loop_with_stamps(width):
    harness = Harness(build(StandIn(width), f"standin{width}"))
    assert harness.data_bytes == width // 8
    rng = random.Random(width)
    harness.log_frames()
    for stall in (0.0, 0.3):
        harness.set_stalls(rx=stall, tx=stall)
        frames = [rng.randbytes(rng.choice([1, 14, 15, 16, 17, 60, 61, 64, 1513, 1514])) for _ in range(60)]
        for frame in frames:
            harness.inject(frame)
        harness.run(100_000, Stop.RX_DONE)
        harness.run(200)
        taken = harness.take_frames()
        assert [frame.data for frame in taken] == frames
        for frame in taken:
            words = -(-len(frame.data) // harness.data_bytes)
            assert frame.last - frame.first >= words - 1
            assert stall or frame.last - frame.first == words - 1
        log = harness.take_frames(log=True)
        assert [frame.data for frame in log if frame.to_engine] == frames
        assert [frame.data for frame in log if not frame.to_engine] == frames
    counters = harness.counters()
    assert counters["rx_frames"] == counters["tx_frames"] == 120
    assert counters["rx_bytes"] == counters["tx_bytes"]
    harness.close()


def test_writes_to_a_range_are_counted(harness):
    ranges = {"whole": (0x200, 0x220), "cut": (0x203, 0x21E), "beside": (0x220, 0x240), "byte": (0x207, 0x208)}
    written = {name: harness.count_writes(low, high) for name, (low, high) in ranges.items()}
    copy(harness, 0x100, 0x200, 4)
    assert {name: count() for name, count in written.items()} == {"whole": 32, "cut": 27, "beside": 0, "byte": 1}
    harness.add_error(0x200, 0x220, reads=False)
    copy(harness, 0x100, 0x200, 4)
    assert written["whole"]() == 32  # refused: it has not reached memory
    harness.clear_errors()
    copy(harness, 0x100, 0x210, 4)
    assert (written["whole"](), written["beside"]()) == (48, 16)
    for wrong in ((8, 8), (-1, 8), (0, len(harness.memory) + 1)):
        with pytest.raises(ValueError, match="no range"):
            harness.count_writes(*wrong)


def test_frames_enter_at_their_cycle(harness):
    harness.inject(b"second" * 10, not_before=500)
    harness.inject(b"first." * 10, not_before=300)
    assert harness.next_due == 300
    harness.log_frames()
    harness.run(1000)
    entered = [frame for frame in harness.take_frames(log=True) if frame.to_engine]
    assert [(frame.data[:6], frame.first) for frame in entered] == [(b"first.", 300), (b"second", 500)]
    assert harness.next_due is None


def test_line_rate(harness):
    harness.set_line(rx=1.0, tx=0.5, gap=24)
    for _ in range(10):
        harness.inject(bytes(1000))
    harness.log_frames()
    harness.run(30_000)
    log = harness.take_frames(log=True)
    starts_in = [frame.first for frame in log if frame.to_engine]
    starts_out = [frame.first for frame in log if not frame.to_engine]
    # The first words pass 1024 and 2048 cycles apart; the loop's FIFO holds the input back behind the slower output.
    assert starts_in[1] - starts_in[0] == 1024
    assert {b - a for a, b in zip(starts_out[1:], starts_out[2:], strict=False)} == {2048}


def test_line_rate_keeps_fractions_of_a_cycle(harness):
    harness.set_line(rx=8.0, tx=8.0, gap=24)
    for _ in range(41):
        harness.inject(bytes(60))
    harness.log_frames()
    harness.run(1000)
    log = harness.take_frames(log=True)
    for to_engine in (True, False):
        starts = [frame.first for frame in log if frame.to_engine == to_engine]
        assert starts[-1] - starts[0] == 40 * 84 / 8
        assert {b - a for a, b in zip(starts, starts[1:], strict=False)} == {10, 11}


def test_frame_error_flag(harness):
    harness.inject(bytes(100), error=True)
    harness.inject(bytes(100))
    harness.run(200)
    assert harness.read32(BAD_FRAMES) == 1


@pytest.mark.parametrize("latency, jitter, stall", [(1, 0, 0.0), (125, 0, 0.0), (3, 40, 0.5)])
def test_memory_copy(harness, latency, jitter, stall):
    harness.set_memory(latency=latency, jitter=jitter, stall=stall)
    rng = random.Random(latency)
    for _ in range(20):
        words = rng.randint(1, 16)
        source, destination = rng.randrange(0, 32) * 256, 32768 + rng.randrange(0, 32) * 256
        data = rng.randbytes(words * 8)
        harness.memory[source : source + len(data)] = data
        guard = bytes(harness.memory[destination + len(data) : destination + len(data) + 8])
        begin = harness.cycle
        copy(harness, source, destination, words)
        assert harness.cycle - begin > 2 * latency
        assert harness.memory[destination : destination + len(data)] == data
        assert harness.memory[destination + len(data) : destination + len(data) + 8] == guard
    counters = harness.counters()
    assert counters["read_bursts"] == counters["write_bursts"] == 20
    assert counters["read_beats"] == counters["write_beats"]
    assert counters["memory_strays"] == counters["memory_errors"] == 0


def test_write_is_not_visible_before_its_response(harness):
    harness.set_memory(latency=200)
    harness.memory[0:8] = b"new data"
    harness.write32(8, 0x800)
    harness.write32(0xC, 1)
    harness.run(300)
    assert harness.counters()["write_beats"] == 1
    assert harness.memory[0x800:0x808] == bytes(8)
    harness.run(200)
    assert harness.memory[0x800:0x808] == b"new data"


def test_memory_errors(harness):
    harness.add_error(0x100, 0x108, writes=False, count=1)
    harness.memory[0x2000:0x2008] = b"untouch."
    copy(harness, 0x100, 0x1000, 1)
    assert harness.read32(ERRORS) == 1
    copy(harness, 0x100, 0x1000, 1)
    assert harness.read32(ERRORS) == 1
    harness.add_error(0x2000, 0x3000, reads=False)
    copy(harness, 0x100, 0x2000, 4)
    assert harness.read32(ERRORS) == 2
    assert harness.memory[0x2000:0x2008] == b"untouch."
    copy(harness, 1 << 16, 0x1000, 1)
    assert harness.read32(ERRORS) == 3
    counters = harness.counters()
    assert (counters["memory_errors"], counters["memory_strays"]) == (2, 1)


def test_4k_crossing_is_found(harness):
    harness.write32(4, 0xFF8)
    harness.write32(8, 0x2000)
    harness.write32(0xC, 2)
    with pytest.raises(RuleBroken, match="AR burst of 2 words at 0xff8 crosses a 4 KiB page"):
        harness.run(200)


def test_changed_word_is_found(harness):
    harness.write32(BREAK, 1)
    harness.run(20)
    harness.set_stalls(tx=0.9)
    harness.inject(bytes(200))
    with pytest.raises(RuleBroken, match="tx stream: a word changed while it waited"):
        harness.run(2000)


def test_ticks(harness):
    harness.tick_every(100)
    harness.run(1001)
    assert harness.read32(TICKS) == 10
    harness.tick_every(0)
    harness.tick(3)
    harness.run(10)
    assert harness.read32(TICKS) == 13


def test_run_until(harness):
    assert harness.run(100, Stop.IRQ) == Stop.CYCLES
    harness.write32(IRQ, 1)
    assert harness.run(1000, Stop.IRQ) == Stop.IRQ
    assert harness.irq
    # A write on the way that lowers the line is waited for.
    harness.write32(IRQ, 0)
    assert harness.run(100, Stop.IRQ) == Stop.CYCLES
    harness.inject(bytes(60))
    before = harness.cycle
    assert Stop.FRAME in harness.run(1000, Stop.FRAME)
    assert harness.cycle - before < 40


def test_same_seed_same_run(library):
    def trial(seed):
        harness = Harness(library, memory_bytes=1 << 16, seed=seed)
        harness.set_stalls(rx=0.3, tx=0.3, registers=0.3)
        harness.set_memory(latency=4, jitter=30, stall=0.3)
        for index in range(20):
            harness.inject(bytes([index]) * 300)
        for index in range(10):
            copy(harness, 256 * index, 32768, 16)
        harness.run(2000)
        result = [(frame.first, frame.last) for frame in harness.take_frames()], harness.counters()
        harness.close()
        return result

    assert trial(1) == trial(1)
    assert trial(1) != trial(2)


def test_waveform(out_dir):
    harness = Harness(build(StandIn(64), "standin64", trace=True))
    path = harness.trace(out_dir / "standin")
    harness.run(100)
    harness.trace(None)
    assert path is not None and path.stat().st_size > 500
    harness.close()


def test_closed_harness_says_so(library):
    harness = Harness(library)
    harness.close()
    harness.close()
    with pytest.raises(RuntimeError, match="closed"):
        harness.run(1)
    with pytest.raises(RuntimeError, match="closed"):
        harness.write32(0, 0)


def test_idle_time_is_skipped_up_to_ticks_and_frames(harness):
    harness.idle(50, 20, skip=True)
    harness.tick_every(1000)
    harness.inject(bytes(60), not_before=5500)
    begin = harness.cycle
    assert harness.run(10_000) == Stop.CYCLES
    counts = harness.counters()
    assert harness.cycle == counts["cycles"] == begin + 10_000
    assert 9 <= counts["ticks"] == harness.read32(TICKS) <= 10
    assert 9000 < counts["skipped"] < 10_000
    (frame,) = harness.take_frames()
    assert 5500 <= frame.first <= 5520


def test_a_run_that_stops_when_idle(harness):
    harness.idle(50, 20, skip=False)
    harness.inject(bytes(60), not_before=500)
    assert harness.run(10_000, Stop.IDLE) == Stop.IDLE
    assert harness.cycle < 200  # a frame to come is none yet
    harness.run(500)
    assert harness.run(10_000, Stop.IDLE) == Stop.IDLE
    assert harness.take_frames() and harness.cycle < 900
    harness.write32(IRQ, 1)
    assert harness.run(1000, Stop.IDLE) == Stop.CYCLES  # somebody has to look
    assert harness.counters()["skipped"] == 0
