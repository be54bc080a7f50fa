"""TIME_WAIT shared by engine and stack (``time_wait="shared"``, the default): the oldest is the stack's when ids run short."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.bench import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, Bench, Connection
from tests.driver.fake_device import FakeDevice
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_hdl.host.abi import Opcode

TCB = {"snd_nxt": 1002, "rcv_nxt": 2002, "iss": 1000, "irs": 2000, "rcv_adv": 6002, "state": State.TIME_WAIT}


def in_time_wait(bench: Bench, port: int) -> Connection:
    """A connection that we have closed first and the peer then; the engine has it in TIME_WAIT."""
    conn = bench.connected(port)
    conn.sock.close()
    conn.report(peer_closed=1, state=State.TIME_WAIT)
    return conn


def handed_over(bench: Bench, conns: list[Connection]) -> list[int]:
    """Which of them were told to leave."""
    return [n for n, conn in enumerate(conns) if conn.tid in {c["tid"] for c in bench.device.ops(Opcode.ABORT)}]


@pytest.fixture(params=[True, False], ids=["rst_by_engine", "rst_by_host"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Sixteen ids."""
    made = Bench(rst_unknown=request.param)
    made.device.tcb = TCB
    made.device.forget = lambda: None  # type: ignore[method-assign]
    return made


def test_the_engine_keeps_it_while_there_are_ids(bench: Bench) -> None:
    conns = [in_time_wait(bench, port) for port in range(1, 9)]
    assert bench.dev.engine.free_ids == 8 and not bench.device.ops(Opcode.READ_TCB) and not bench.stack.time_wait
    for conn in conns:
        conn.end()
    assert bench.dev.engine.free_ids == 16


def test_the_oldest_leave_as_many_as_are_lacking(bench: Bench) -> None:
    conns = [in_time_wait(bench, port) for port in range(1, 9)]
    for lacking in range(1, 6):
        live = bench.connected(100 + lacking)
        assert handed_over(bench, conns) == list(range(lacking))
        live.report(snd_una_position=0)  # another event, no other need
        assert handed_over(bench, conns) == list(range(lacking))
    for conn in conns[:5]:
        conn.end(Reason.LOCAL_ABORT)
    assert bench.dev.engine.free_ids == 8 and len(bench.stack.time_wait) == 5
    assert not bench.dev.counters.total()


def test_those_that_have_ended_are_passed_over(bench: Bench) -> None:
    conns = [in_time_wait(bench, port) for port in range(1, 9)]
    for conn in conns[:3]:
        conn.end()  # 2 MSL are over
    again = [bench.connected(20 + n) for n in range(3)]  # with ids of those or others
    assert not handed_over(bench, conns)
    more = [bench.connected(30 + n) for n in range(2)]
    assert handed_over(bench, conns) == [3, 4]
    assert all(conn.sock.so is not None for conn in again + more)


def test_a_stock_counts_too(bench: Bench) -> None:
    """Ids in stock serve nobody but passive opens, yet they are what a server lives on."""
    bench.listening(backlog=100)
    conns = [in_time_wait(bench, port) for port in range(1, 8)]
    assert (bench.dev.engine.ids.stocked, bench.dev.engine.free_ids) == (8, 1)
    bench.syn(0)
    accepted = bench.handshake_done(0)
    assert not handed_over(bench, conns)  # eight are left
    bench.syn(1, fport=5001)
    bench.handshake_done(1)
    assert handed_over(bench, conns) == [0]
    conns[0].end(Reason.LOCAL_ABORT)
    assert bench.dev.engine.ids.stocked + bench.dev.engine.free_ids == 8 and accepted.toep.tp is not None


def test_reset_forgets_them(bench: Bench) -> None:
    conns = [in_time_wait(bench, port) for port in range(1, 9)]
    bench.dev.reset()
    bench.know_peer()
    for port in range(16):
        bench.connected(50 + port)
    assert not handed_over(bench, conns) and not bench.stack.time_wait


@pytest.mark.parametrize("mode", ["engine", "host"])
def test_who_wants_it_elsewhere_has_it_there(mode: str) -> None:
    options: dict[str, Any] = {"time_wait": mode, "rst_unknown": False}
    bench = Bench(FakeDevice(), **options)
    bench.device.tcb = TCB
    conns = [in_time_wait(bench, port) for port in range(1, 13)]
    assert len(bench.stack.time_wait) == (12 if mode == "host" else 0) and len(conns) == 12


def control(bench: Bench) -> bool:
    """Whether the engine answers segments of nobody."""
    return bool(bench.device.registers[reg.REG_CONTROL] & reg.CONTROL_RST_UNKNOWN)


def test_fin_again_is_acknowledged_by_the_host_though_the_engine_answers_unknown_segments() -> None:
    """RFC 9293 section 3.10.7.4, TIME-WAIT: with RST_UNKNOWN on the engine would answer with a reset."""
    bench = Bench(rst_unknown=True)
    bench.device.tcb = TCB
    bench.device.forget = lambda: None  # type: ignore[method-assign]
    assert control(bench)
    first = [in_time_wait(bench, port) for port in range(1, 9)][0]
    ours = first.toep.four_tuple[1]
    bench.connected(100)
    assert not control(bench) and len(bench.stack.time_wait) == 1
    first.end(Reason.LOCAL_ABORT)
    fin = IP(src=PEER_IP, dst=OUR_IP) / TCP(sport=1, dport=ours, flags="FA", seq=2001, ack=1002)
    bench.device.commands.clear()
    bench.device.frame(bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / fin))
    bench.stack.poll()
    [answer] = [Ether(frame) for frame in bench.device.sent_frames()]
    assert (str(answer[TCP].flags), answer[TCP].seq, answer[TCP].ack) == ("A", 1002, 2002)
    # Of others the host takes the engine's place meanwhile.
    bench.device.commands.clear()
    bench.device.frame(bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER_IP, dst=OUR_IP) / TCP(flags="S", seq=5)))
    bench.stack.poll()
    [answer] = [Ether(frame) for frame in bench.device.sent_frames()]
    assert (str(answer[TCP].flags), answer[TCP].ack) == ("RA", 6)
    bench.stack.sleep(lambda: control(bench), 200_000_000)
    assert control(bench) and not bench.stack.time_wait


def test_reset_of_the_device_leaves_unknown_segments_to_the_host_while_time_wait_lasts() -> None:
    bench = Bench(rst_unknown=True)
    bench.device.tcb = TCB
    bench.device.forget = lambda: None  # type: ignore[method-assign]
    for port in range(1, 9):
        in_time_wait(bench, port)
    bench.connected(100)
    bench.dev.reset()
    assert len(bench.stack.time_wait) == 1 and not control(bench)
    bench.stack.sleep(lambda: control(bench), 200_000_000)
    assert control(bench)
