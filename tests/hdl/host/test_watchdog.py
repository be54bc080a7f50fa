"""The watchdog alone: what it tells, when, and how often; and in the engine, of what does stand still."""

import pytest

from tests.hdl.engine_bench import EngineBench
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.host.abi import WATCHED, ErrorCode
from tiptoe_hdl.host.watchdog import Watchdog
from tiptoe_verif.streams import run_bench
from tiptoe_verif.wire.segment import ACK, RST

COMMANDS, DOORBELLS, EVENTS, HOST = (1 << bit for bit in range(len(WATCHED)))


class Told:
    """A watchdog with a tick every third cycle; ``errors`` holds (tick, argument)."""

    def __init__(self, ctx, dut, ticks):
        self.ctx, self.dut, self.errors, self.now, self.counted, self.stalled = ctx, dut, [], 0, 0, 0
        ctx.set(dut.ticks, ticks)

    async def run(self, ticks, **inputs):
        for name, value in inputs.items():
            self.ctx.set(getattr(self.dut, name), value)
        for _ in range(ticks):
            self.now += 1
            for tick in (1, 0, 0):
                self.ctx.set(self.dut.tick, tick)
                await self.ctx.tick()
                if self.ctx.get(self.dut.error.valid):
                    assert self.ctx.get(self.dut.error.payload.code) == ErrorCode.WATCHDOG
                    self.errors.append((self.now, self.ctx.get(self.dut.error.payload.argument)))
                self.counted += self.ctx.get(self.dut.count_watchdog)
                self.stalled |= self.ctx.get(self.dut.stalled)
        return self.errors


def bench(story, ticks):
    dut = Watchdog()

    async def main(ctx):
        told = Told(ctx, dut, ticks)
        await story(told)
        assert told.counted == len(told.errors)

    run_bench(dut, main, max_cycles=20_000)


@pytest.mark.parametrize("begin", range(10))
@pytest.mark.parametrize("ticks", [1, 2, 10])
def test_told_once_after_one_to_two_times_the_ticks(begin, ticks):
    async def story(told):
        await told.run(20 + begin)
        [(when, argument)] = await told.run(100, waiting=EVENTS)
        assert ticks <= when - 20 - begin <= 2 * ticks + 1 and argument == EVENTS == told.stalled

    bench(story, ticks)


def test_again_only_after_progress_or_rest():
    async def story(told):
        assert len(await told.run(100, waiting=COMMANDS)) == 1
        await told.run(1, progress=COMMANDS)
        assert len(await told.run(100, progress=0)) == 2
        await told.run(1, waiting=0)
        assert len(await told.run(100, waiting=COMMANDS)) == 3

    bench(story, 10)


def test_a_second_one_is_told_with_the_first():
    async def story(told):
        await told.run(50, waiting=COMMANDS)
        errors = await told.run(50, waiting=COMMANDS | HOST)
        assert [argument for _, argument in errors] == [COMMANDS, COMMANDS | HOST]

    bench(story, 10)


def test_progress_every_so_often_is_no_standstill():
    async def story(told):
        for _ in range(50):
            await told.run(9, waiting=15, progress=0)
            await told.run(1, progress=15)
        assert told.errors == []

    bench(story, 10)


def test_off():
    async def story(told):
        assert await told.run(500, waiting=15) == []

    bench(story, 0)


# ---- in the engine

WATCH = {abi.REG_WATCHDOG_TICKS: 10}
STALLED = {
    "commands": abi.STATUS_COMMANDS_STALLED,
    "host": abi.STATUS_HOST_STALLED,
    "events": abi.STATUS_EVENTS_STALLED,
}


def test_commands_that_a_busy_line_holds_up_are_told_of():
    """RELEASE waits for a segment; the line is so slow that a person should know."""
    with EngineBench(registers=WATCH) as b:
        for id in range(2):
            b.provision(id, 1, stock=1)
        b.listen()
        (sender, sending), (leaver, leaving) = (b.accept(5000 + n) for n in range(2))
        b.slow_line(76_000)
        b.write(sending, bytes(16_000))
        leaver.send(RST | ACK)
        b.until(lambda: b.ended(leaving), 10_000, "the terminal event")
        tag = b.release(leaving, leaver)
        b.run(40_000)
        assert b.errors == [(ErrorCode.WATCHDOG, COMMANDS)]
        assert b.sim.read32(abi.REG_STATUS) == abi.STATUS_READY | STALLED["commands"]
        assert b.sim.read32(abi.REG_IRQ_STATUS) & abi.IRQ_STATUS_ERROR
        assert b.counter(abi.Counter.WATCHDOG) == 1
        b.slow_line(0)
        assert b.status(tag, 20_000, "RELEASE") == abi.Status.OK
        b.until(lambda: len(sender.received) == 16_000, 200_000, "the data")
        b.sim.write32(abi.REG_STATUS, STALLED["commands"])
        assert b.sim.read32(abi.REG_STATUS) == abi.STATUS_READY
        b.run(40_000)
        assert b.counter(abi.Counter.WATCHDOG) == 1, "nothing stands still any more"


def test_a_host_that_sleeps_is_told_of_as_that():
    with EngineBench(events_log2=4, registers=WATCH) as b:
        b.awake = False
        for _ in range(30):
            b.command(abi.pack_unlisten, listener=1)
        b.run(60_000)
        assert b.sim.read32(abi.REG_STATUS) == abi.STATUS_READY | STALLED["host"]
        assert b.sim.read32(abi.REG_IRQ_STATUS) & abi.IRQ_STATUS_ERROR
        b.awake = True
        b.until(lambda: len(b.done) == 30, 60_000, "all answers")
        assert b.errors == [(ErrorCode.WATCHDOG, HOST)]


@pytest.mark.parametrize("off", [5, 1, -1, 1 << 31, 0xFFFF_FF00])
def test_a_host_that_says_it_has_read_what_was_never_written(off):
    """EVENT_CONSUMER ahead of EVENT_PRODUCER, or behind itself: ignored and told of; events go on."""
    with EngineBench(registers=WATCH) as b:
        b.listen()
        b.until(lambda: len(b.done) == 1, 20_000, "the listener")
        wrong = b.consumer + off & 0xFFFF_FFFF
        b.sim.write32(abi.REG_EVENT_CONSUMER, wrong)
        b.until(lambda: b.errors, 20_000, "the error")
        assert b.errors == [(ErrorCode.BAD_EVENT_CONSUMER, wrong)]
        b.command(abi.pack_unlisten, listener=0)
        b.until(lambda: len(b.done) == 2, 20_000, "the answer")
        assert b.sim.read32(abi.REG_STATUS) == abi.STATUS_READY


def test_a_soft_reset_takes_consumer_counts_back_and_that_is_no_garbage():
    """The registers fall to 0 some cycles before the blocks behind them do."""
    with EngineBench(registers=WATCH) as b:
        for _ in range(3):
            b.command(abi.pack_unlisten, listener=1)
        b.until(lambda: len(b.done) == 3, 20_000, "the answers")
        assert b.consumer == 3 and not b.errors
        b.sim.write32(abi.REG_FRAME_CONSUMER, 7)  # no frame has come: told of, and then nothing again
        b.until(lambda: b.errors, 20_000, "the error")
        assert b.errors == [(ErrorCode.BAD_FRAME_CONSUMER, 7)]
        b.sim.write32(abi.REG_IRQ_STATUS, abi.IRQ_STATUS_EVENT | abi.IRQ_STATUS_ERROR)
        b.sim.write32(abi.REG_CONTROL, abi.CONTROL_SOFT_RESET)
        b.sim.run_cycles(2000)
        assert b.sim.read32(abi.REG_CONTROL) == abi.CONTROL_SACK | abi.CONTROL_QUICK_ACK | 2 << abi.CONTROL_ECN_SHIFT
        assert b.sim.read32(abi.REG_STATUS) == abi.STATUS_READY
        assert b.sim.read32(abi.REG_IRQ_STATUS) == 0
        b.start()
        b.command(abi.pack_unlisten, listener=1)
        b.until(lambda: len(b.done) == 1, 20_000, "the answer")
        assert not b.errors


def test_events_whose_writes_are_not_answered():
    with EngineBench(registers=WATCH) as b:
        b.listen()
        b.sim.harness.set_memory(latency=60_000)
        b.command(abi.pack_unlisten, listener=0)
        b.run(150_000)  # its fetch takes 60 ticks, its answer another 60
        status = b.sim.read32(abi.REG_STATUS)
        assert status == abi.STATUS_READY | STALLED["commands"] | STALLED["events"]
        b.sim.harness.set_memory(latency=20)
        b.until(lambda: len(b.errors) == 2, 200_000, "the errors")
        # The event that tells of the commands stands still as well.
        assert b.errors == [(ErrorCode.WATCHDOG, COMMANDS), (ErrorCode.WATCHDOG, COMMANDS | EVENTS)]


def test_rest_and_work_are_not_told_of():
    with EngineBench(registers={abi.REG_WATCHDOG_TICKS: 1}) as b:
        for id in range(4):
            b.provision(id, 1, stock=1)
        b.listen()
        peers = [b.accept(5000 + n) for n in range(4)]
        for _, connection in peers:
            b.write(connection, bytes(9000))
        b.until(lambda: all(len(peer.received) == 9000 for peer, _ in peers), 100_000, "the data")
        b.run(50_000)
        assert b.errors == [] and b.sim.read32(abi.REG_STATUS) == abi.STATUS_READY
        assert b.counter(abi.Counter.WATCHDOG) == 0


def test_a_soft_reset_clears_what_was_found():
    with EngineBench(events_log2=4, registers=WATCH) as b:
        b.awake = False
        for _ in range(30):
            b.command(abi.pack_unlisten, listener=1)
        b.run(60_000)
        b.sim.write32(abi.REG_CONTROL, abi.CONTROL_SOFT_RESET)
        b.run(2000)
        assert b.sim.read32(abi.REG_STATUS) == abi.STATUS_READY
        b.awake = True
        b.start()
        b.run(2000)
        b.listen()
        assert b.errors == []
