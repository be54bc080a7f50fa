"""Contract row LOCK-1: the lock model itself, and what every way from the stack into the driver holds."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from tests.driver.bench import Bench
from tests.driver.guard import GuardedTcpcb, GuardError
from tiptoe_driver import Stack
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.netinet.locks import Lock, LockError, LockModel, Rank, ToeCall
from tiptoe_driver.netinet.offload import TOE_SC_DROP, tcp_gen_detach
from tiptoe_driver.netinet.socketvar import PRUS_EOF
from tiptoe_driver.netinet.structures import toe_usrreqs
from tiptoe_driver.netinet.syncache import EXPIRE_US
from tiptoe_driver.netinet.tcp_usrreq import tcp_usr_abort
from tiptoe_driver.netinet.uipc_socket import sosend

P, I, B, K = Rank.P, Rank.I, Rank.B, Rank.K

# ---------------------------------------------------------------------- the model


@pytest.mark.parametrize("first", Rank)
@pytest.mark.parametrize("second", Rank)
def test_lock_1_order_of_two_locks(first: Rank, second: Rank) -> None:
    """P, I, B, K in this order, and one of a kind."""
    model = LockModel()
    with Lock(model, first):
        if second > first:
            with Lock(model, second):
                assert len(model.held) == 2
        else:
            with pytest.raises(LockError, match="taken"):
                Lock(model, second).acquire()
    assert model.held == []


def test_lock_1_two_inpcbs_only_under_p() -> None:
    model = LockModel()
    with Lock(model, P), Lock(model, I), Lock(model, I):
        assert len(model.held) == 3
    with Lock(model, I), pytest.raises(LockError, match="second lock I"):
        Lock(model, I).acquire()


def test_lock_1_taken_twice_or_not_held() -> None:
    lock = Lock(LockModel(), K)
    with pytest.raises(LockError, match="must be held"):
        lock.require()
    with pytest.raises(LockError, match="not held"):
        lock.release()
    with lock, pytest.raises(LockError, match="twice"):
        lock.acquire()
    assert not lock.owned


def test_lock_1_a_call_keeps_its_lock_and_leaves_p_alone() -> None:
    model = LockModel()
    p, i, k = (Lock(model, rank) for rank in (P, I, K))
    with pytest.raises(LockError, match="I must be held"), ToeCall(i):
        pass
    with i, ToeCall(i):
        with k:
            pass
        with pytest.raises(LockError, match="pcbinfo lock taken"):
            p.acquire()
        with pytest.raises(LockError, match="dropped"):
            i.release()
    with p, i:  # shutdown, close and abort come with both
        with ToeCall(i):
            pass
        assert model.pinned == []


# ---------------------------------------------------------------------- the driver's side


@pytest.mark.parametrize("name", [field.name for field in fields(toe_usrreqs)])
def test_lock_1_every_call_without_its_lock_is_refused(bench: Bench, name: str) -> None:
    bench.listening()
    bench.syn(1)
    conn = bench.connected()
    call, entry = getattr(bench.dev.tod_usrreqs, name), bench.dev.passive.half_open[1]
    accesses = bench.device.accesses
    with pytest.raises(LockError, match="must be held"):
        call(TOE_SC_DROP, entry) if name == "tu_syncache_event" else call(conn.tp)
    assert bench.device.accesses == accesses


@pytest.mark.parametrize("name", ["tu_send", "tu_rcvd", "tu_disconnect", "tu_reset", "tu_detach"])
def test_lock_1_no_call_takes_p_or_drops_i(bench: Bench, name: str) -> None:
    conn = bench.connected()
    conn.deliver(bytes(100))
    conn.sock.send(bytes(100))
    with conn.tp.t_inpcb.lock, ToeCall(conn.tp.t_inpcb.lock):
        getattr(bench.dev.tod_usrreqs, name)(conn.tp)
        assert [lock.rank for lock in bench.stack.locks.held] == [I]


def test_lock_1_guard_finds_an_access_without_the_lock_or_after_detach(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard that the races rely on."""
    monkeypatch.setattr("tiptoe_driver.netinet.structures.tcpcb", GuardedTcpcb)
    conn = bench.connected()
    tp, toep = conn.tp, conn.toep
    with pytest.raises(GuardError, match="without its inpcb lock"):
        bench.dev.calls.update_window(toep, tp)
    with tp.t_inpcb.lock:
        bench.dev.calls.update_window(toep, tp)
        tcp_gen_detach(tp)
        with pytest.raises(GuardError, match="detached"):
            bench.dev.calls.update_window(toep, tp)


# ---------------------------------------------------------------------- the stack's side: the contract's table


def _send(bench: Bench) -> None:
    bench.connected().sock.send(b"x")


def _send_eof(bench: Bench) -> None:
    sosend(bench.connected().so, memoryview(b"x"), PRUS_EOF)


def _recv(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"x")
    conn.sock.recv(1)


def _shutdown_write(bench: Bench) -> None:
    bench.connected().sock.shutdown(socket.SHUT_WR)


def _shutdown_read(bench: Bench) -> None:
    bench.connected().sock.shutdown(socket.SHUT_RD)


def _close(bench: Bench) -> None:
    bench.connected().sock.close()


def _linger_0(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
    conn.sock.close()


def _abort(bench: Bench) -> None:
    tcp_usr_abort(bench.connected().so)


def _close_in_syn_sent(bench: Bench) -> None:
    bench.opening().sock.close()


def _data_after_close(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.close()
    conn.deliver(b"x")


def _fin_wait_2_over(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.close()
    conn.report(state=State.FIN_WAIT_2)
    bench.device.time += 60_000_001
    bench.stack.poll()


def _orphan_over(bench: Bench) -> None:
    bench.connected().sock.close()
    bench.device.time += 60_000_001
    bench.stack.poll()


def _accept_queue_at_listen_stop(bench: Bench) -> None:
    sock = bench.listening()
    bench.syn(1)
    bench.handshake_done(1)
    sock.close()


def _terminal(bench: Bench) -> None:
    bench.connected().end(Reason.PEER_RESET)


def _syncache_timer(bench: Bench) -> None:
    bench.listening()
    bench.syn(1)
    bench.stack.sleep(lambda: False, EXPIRE_US)


def _duplicate_syn(bench: Bench) -> None:
    bench.listening()
    bench.syn(1)
    bench.syn(2)


def _listen_and_stop(bench: Bench) -> None:
    bench.listening().close()


@pytest.mark.parametrize(("act", "expected"), [
    (_send, {"tu_send": "I"}),
    (_send_eof, {"tu_send": "PI"}),
    (_recv, {"tu_rcvd": "I"}),
    (_shutdown_write, {"tu_disconnect": "PI"}),
    (_shutdown_read, {"tu_rcvd": "I"}),
    (_close, {"tu_disconnect": "PI"}),
    (_linger_0, {"tu_reset": "PI"}),
    (_abort, {"tu_reset": "PI"}),
    (_close_in_syn_sent, {"tu_detach": "PI"}),
    (_data_after_close, {"tu_disconnect": "PI", "tu_reset": "PI"}),
    (_fin_wait_2_over, {"tu_disconnect": "PI", "tu_reset": "PI"}),
    (_orphan_over, {"tu_disconnect": "PI", "tu_reset": "PI"}),
    (_accept_queue_at_listen_stop, {"listen_start": "PI", "listen_stop": "PI", "tu_reset": "PI"}),
    (_terminal, {}),  # the driver parts from the tcpcb by itself
    (_syncache_timer, {"listen_start": "PI", "tu_syncache_event": "B"}),
    (_duplicate_syn, {"listen_start": "PI", "tu_syncache_event": "B"}),
    (_listen_and_stop, {"listen_start": "PI", "listen_stop": "PI"}),
], ids=lambda value: getattr(value, "__name__", "")[1:] or None)  # fmt: skip
def test_lock_1_what_the_stack_holds(bench: Bench, act: Callable[[Bench], None], expected: dict[str, str]) -> None:
    """Shutdown, close and abort come with P and I, the rest with I; a syncache event with B."""
    seen: dict[str, str] = {}
    held = bench.stack.locks.held

    def watched(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def record(*args: object) -> object:
            locks = "".join(lock.rank.name for lock in held)
            assert seen.setdefault(name, locks) == locks, f"{name} with {locks} and with {seen[name]}"
            return call(*args)

        return record

    usrreqs = bench.dev.calls.usrreqs
    bench.dev.calls.usrreqs = replace(
        usrreqs, **{field.name: watched(field.name, getattr(usrreqs, field.name)) for field in fields(usrreqs)}
    )
    for name in ("listen_start", "listen_stop"):
        getattr(bench.stack, f"tcp_offload_{name}").register(watched(name, lambda arg, tp: None), None)
    act(bench)
    assert seen == expected
    assert held == [] and bench.stack.locks.pinned == []


def test_lock_1_a_device_that_comes_late_is_told_under_the_locks() -> None:
    """Each listener is named with its inpcb lock held; passive.start raises without."""
    stack = Stack()
    first = Bench(stack=stack)
    first.listening()
    second = Bench(stack=stack, ip="10.0.1.1")
    assert [lctx is not None for lctx in second.dev.passive.listeners] == [True, False, False, False]
    assert stack.locks.held == []
