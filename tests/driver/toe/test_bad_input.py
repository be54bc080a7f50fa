"""Whatever the device writes: a counter, never an exception, and the other connections go on."""

from __future__ import annotations

import random

import pytest

from tests.driver.bench import Bench
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_hdl.host.abi import EventType, Opcode


def test_unknown_event_types_are_skipped(bench: Bench) -> None:
    conn = bench.connected()
    for kind in (0, 8, 100, 255):
        bench.device.raw_event(bytes(28) + bytes([kind, 0, 0, 0]))
    conn.deliver(b"still here")
    assert conn.sock.recv(20) == b"still here"
    assert bench.dev.engine.events.unknown == 4


@pytest.mark.parametrize("tid", [0, 5, 0xFFFF, 0x00FF_0000, 0xFFFF_FFFF])
def test_events_for_ids_that_are_not_in_use(bench: Bench, tid: int) -> None:
    bench.device.event(EventType.CONNECTION, tid=tid, established=1, terminal=1, rcv_position=77)
    bench.stack.poll()
    assert bench.dev.counters["stale_events"] == 1
    assert not bench.device.ops(Opcode.RELEASE, Opcode.ABORT)


def test_stale_generation(bench: Bench) -> None:
    conn = bench.connected()
    bench.device.event(EventType.CONNECTION, tid=conn.tid ^ 0x10000, terminal=1)
    bench.stack.poll()
    assert bench.dev.counters["stale_events"] == 1
    conn.deliver(b"x")
    assert conn.sock.recv(1) == b"x"


def test_commands_done_for_nobody(bench: Bench) -> None:
    conn = bench.connected()
    for tag in (0, 1, 0xFFFF):
        for opcode in (0, 1, 2, 5, 8, 11, 200):
            for status in (0, 4, 255):
                bench.device.event(EventType.COMMAND_DONE, tag=tag, opcode=opcode, status=status, argument=conn.tid)
    bench.stack.poll()
    conn.deliver(b"x")
    assert conn.sock.recv(1) == b"x"


def test_syncache_events_for_nobody(bench: Bench) -> None:
    bench.device.event(EventType.SYNCACHE_GONE, syncache_ref=9, listener=255)
    bench.device.event(EventType.SYN_RECEIVED, syncache_ref=9, listener=255, faddr=1, laddr=2)
    bench.stack.poll()
    assert bench.dev.counters["stale_events"] == 2
    assert [c["syncache_ref"] for c in bench.device.ops(Opcode.SYNCACHE_DROP)] == [9]


def test_passive_connection_without_its_syn_is_reset_and_its_id_set_aside(bench: Bench) -> None:
    bench.listening()
    conn = bench.handshake_done(3)
    assert len(conn.commands(Opcode.ABORT)) == 1
    conn.end()
    assert not conn.commands(Opcode.RELEASE)  # its four-tuple is not known
    assert bench.dev.counters["lost_ids"] == 1


def test_error_events_are_counted(bench: Bench) -> None:
    for code in (1, 2, 6, 77):
        bench.device.event(EventType.ERROR, code=code, argument=3)
    bench.stack.poll()
    counters = bench.dev.counters
    assert counters["error_bad_doorbell"] == counters["error_command_fetch"] == counters["error_unknown"] == 1


def test_frame_events_out_of_order(bench: Bench) -> None:
    bench.device.event(EventType.FRAME, slot=5, length=60)
    bench.device.event(EventType.FRAME, slot=0, length=2047)
    bench.device.event(EventType.FRAME, slot=0, length=0)
    bench.stack.poll()
    assert bench.dev.counters["bad_frame_events"] == 3


def test_frame_that_could_not_be_written_costs_only_itself(bench: Bench) -> None:
    """The engine used its slot up: the next frame's event is the next slot's."""
    seen: list[bytes] = []
    bench.dev.hostif.input_hook = lambda frame: bool(seen.append(frame)) or True
    bench.device.event(EventType.FRAME, slot=0, length=0)
    bench.device.event(EventType.FRAME, slot=1, length=60)
    bench.stack.poll()
    assert bench.dev.counters["frames_not_written"] == 1 and [len(frame) for frame in seen] == [60]


def test_failed_provision_sets_the_id_aside(bench: Bench) -> None:
    bench.device.answer = lambda c: 8 if c["op"] == Opcode.PROVISION else None
    bench.listening()
    while bench.stack.poll():
        pass
    assert bench.dev.engine.ids.stocked == 0 and bench.dev.counters["lost_ids"] == 15
    bench.device.answer = bench.device.default_answer
    conn = bench.connected()  # the ids kept for active opens are sound
    conn.deliver(b"x")
    assert conn.sock.recv(1) == b"x"


def test_bad_doorbell_flag_is_counted_once_a_connection(bench: Bench) -> None:
    conn = bench.connected()
    conn.report(bad_doorbell=1)
    conn.report()
    assert bench.dev.counters["bad_doorbells"] == 1


def test_random_events_while_a_bystander_carries_data(rng: random.Random) -> None:
    bench = Bench(stock=4)
    bystander = bench.connected(99)
    bench.listening()
    victims = [bench.connected(port) for port in (1, 2, 3)]
    sent = got = b""
    for _ in range(3000):
        kind = rng.choice([*EventType, None])
        if kind is None or kind is EventType.NONE:
            raw = rng.randbytes(32)
            # A random tid may not be the bystander's: its events are the device's word.
            if int.from_bytes(raw[:3], "little") == bystander.tid & 0xFFFFFF:
                continue
            bench.device.raw_event(raw)
        elif kind is EventType.CONNECTION:
            bench.device.event(
                kind,
                tid=rng.choice(victims).tid ^ rng.choice([0, 0, 0x10000, 1 << 20]),
                rcv_position=rng.getrandbits(32),
                snd_una_position=rng.getrandbits(rng.choice([3, 32])),
                state=rng.randrange(16),
                established=rng.randrange(2),
                peer_closed=rng.randrange(2),
                terminal=rng.random() < 0.01,
                reason=rng.randrange(16),
                syncache_ref=rng.randrange(4),
            )
        elif kind is EventType.COMMAND_DONE:
            bench.device.event(
                kind, argument=rng.choice(victims).tid, opcode=rng.randrange(16), status=rng.randrange(1, 16), tag=0
            )
        elif kind is EventType.SYN_ADDRESS:
            bench.device.event(kind, syncache_ref=rng.randrange(4), faddr6_low=rng.getrandbits(64))
        elif kind is EventType.FRAME:
            bench.device.event(kind, slot=rng.randrange(16), length=rng.getrandbits(16))
        else:
            bench.device.event(
                kind,
                **{"syncache_ref": rng.randrange(4), "listener": rng.randrange(3)}
                if kind is not EventType.ERROR
                else {"code": rng.randrange(256)},
            )
        if rng.random() < 0.2:
            data = rng.randbytes(rng.randrange(1, 300))
            sent += data
            bystander.deliver(data)
            got += bystander.sock.recv(4096)
        bench.stack.poll()
        assert bench.stack.locks.held == []
    assert got == sent and len(sent) > 10_000
    assert bystander.tp.t_state == State.ESTABLISHED
