"""Contract rows LSN-* and SC-*, and passive opens, on the scripted device."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from tests.driver.bench import OUR_IP, PEER_IP, Bench
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import EngineOptions, Socket, Stack, Tiptoe
from tiptoe_driver.hardware.abi_gen import Reason, State, Status
from tiptoe_driver.netinet.offload import TOE_SC_DROP, TOE_SC_ENTRY_PRESENT, tcp_gen_listen_close, tcp_gen_listen_open
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_driver.netinet.structures import SO_NO_OFFLOAD, SS_ISCONNECTED, TF_TOE, sototcpcb
from tiptoe_driver.netinet.syncache import BUCKETLIMIT, EXPIRE_US
from tiptoe_hdl.host.abi import EventType, Opcode

ON_HALF_OPEN = (Opcode.SYNCACHE_DROP, Opcode.ABORT)


def two_devices() -> tuple[Stack, FakeDevice, FakeDevice]:
    stack = Stack()
    devices = FakeDevice(), FakeDevice()
    for n, device in enumerate(devices):
        attach(stack, device, n)
    return stack, *devices


def attach(stack: Stack, device: FakeDevice, n: int) -> Tiptoe:
    return Tiptoe(
        stack,
        device,
        name=f"tiptoe{n}",
        address=f"10.0.{n}.1/24",
        mac=f"02:00:00:00:00:{n:02x}",
        options=EngineOptions(snd_ring_bytes=4096, rcv_ring_bytes=4096, frame_slots=8, frame_buffers=8),
    )


def listener_on(stack: Stack, port: int = 80, address: str = "") -> Socket:
    sock = Socket(stack)
    sock.setblocking(False)
    sock.bind((address, port))
    sock.listen(5)
    return sock


# ---------------------------------------------------------------------- LSN


def test_lsn_1_every_device_is_told() -> None:
    stack, one, two = two_devices()
    sock = listener_on(stack)
    for device in (one, two):
        command = device.last(Opcode.LISTEN)
        assert (command["laddr"], command["lport"], command["mss"], command["wnd"]) == (0, 80, 1460, 4096)
    sock.close()
    for device in (one, two):
        assert device.last(Opcode.UNLISTEN)["listener"] == device.last(Opcode.LISTEN)["listener"]


def test_lsn_1_stock_comes_before_the_listener() -> None:
    """Nothing is provisioned until somebody listens; then the ids are there before the first SYN can be."""
    stack, one, _ = two_devices()
    assert not one.ops(Opcode.PROVISION)
    listener_on(stack)
    ops = [c["op"] for c in one.commands]
    assert ops == [Opcode.PROVISION] * 8 + [Opcode.LISTEN]
    assert all(c["stock"] for c in one.ops(Opcode.PROVISION))


def test_lsn_1_listener_does_not_wait_for_the_whole_stock() -> None:
    """A few ids first, so that the first SYNs find some; thousands would keep it away for long."""
    bench = Bench(FakeDevice(connections=64))
    bench.listening()
    ops = [c["op"] for c in bench.device.commands]
    assert ops.index(Opcode.LISTEN) == 8 and ops.count(Opcode.PROVISION) == 32


@pytest.mark.parametrize("status", [Status.OK, Status.BAD_STATE])
def test_lsn_1_a_listener_is_known_to_be_on_its_way(status: Status) -> None:
    bench = Bench()
    bench.device.answer = lambda command: None
    assert not bench.dev.passive.starting
    bench.listening()
    assert bench.dev.passive.starting
    bench.device.done(bench.device.last(Opcode.LISTEN), status)
    bench.stack.poll()
    assert not bench.dev.passive.starting
    assert bench.dev.counters["listen_refused"] == (status != Status.OK)


def test_lsn_1_stopped_before_it_has_started() -> None:
    bench = Bench()
    bench.device.answer = lambda command: None
    sock = bench.listening()
    sock.close()
    assert not bench.dev.passive.starting
    for op in (Opcode.LISTEN, Opcode.UNLISTEN):
        bench.device.done(bench.device.last(op))
    bench.stack.poll()
    assert not any(bench.dev.passive.listeners)
    bench.listening()
    assert bench.dev.passive.starting


def test_lsn_1_bound_to_one_address_concerns_one_device() -> None:
    stack, one, two = two_devices()
    listener_on(stack, address="10.0.1.1")
    assert not one.ops(Opcode.LISTEN)
    assert two.last(Opcode.LISTEN)["laddr"] == parse_ipv4("10.0.1.1")


def test_lsn_1_a_device_registered_late_learns_of_listeners() -> None:
    stack, _, _ = two_devices()
    listener_on(stack, 80)
    hidden = listener_on(stack, 81)
    assert hidden.so is not None
    hidden.so.so_options |= SO_NO_OFFLOAD
    late = FakeDevice()
    attach(stack, late, 2)
    assert [c["lport"] for c in late.ops(Opcode.LISTEN)] == [80]


def test_lsn_1_start_only_if_offloadable_stop_always(bench: Bench) -> None:
    sock = bench.socket()
    sock.bind(("", 80))
    assert sock.so is not None
    sock.so.so_options |= SO_NO_OFFLOAD
    sock.listen()
    assert not bench.device.ops(Opcode.LISTEN)
    stopped = []
    bench.stack.tcp_offload_listen_stop.register(lambda arg, tp: stopped.append(tp), None)
    sock.close()  # the handlers are called, the device has nothing to stop
    assert len(stopped) == 1 and not bench.device.ops(Opcode.UNLISTEN)


def test_lsn_1_duplicate_start_and_unknown_stop_are_harmless(bench: Bench) -> None:
    sock = bench.listening()
    assert sock.so is not None
    tp = sototcpcb(sock.so)
    with tp.t_inpcb.lock:
        tcp_gen_listen_open(tp)
    sock.listen(50)
    assert len(bench.device.ops(Opcode.LISTEN)) == 1
    with tp.t_inpcb.lock:
        tcp_gen_listen_close(tp)
        tcp_gen_listen_close(tp)
    assert len(bench.device.ops(Opcode.UNLISTEN)) == 1
    other = bench.socket()
    assert other.so is not None
    stranger = sototcpcb(other.so)
    with stranger.t_inpcb.lock:
        tcp_gen_listen_close(stranger)
    assert len(bench.device.ops(Opcode.UNLISTEN)) == 1


def test_lsn_2_listener_id_is_reusable_only_after_the_reply() -> None:
    bench = Bench(FakeDevice(listeners=1))
    bench.device.answer = lambda c: None if c["op"] == Opcode.UNLISTEN else FakeDevice.default_answer(c)
    bench.listening(80).close()
    bench.stack.poll()
    second = bench.listening(81)
    assert [c["lport"] for c in bench.device.ops(Opcode.LISTEN)] == [80]
    assert bench.dev.counters["listen_table_full"] == 1
    second.close()
    bench.device.done(bench.device.last(Opcode.UNLISTEN))
    bench.stack.poll()
    bench.listening(82)
    assert [c["lport"] for c in bench.device.ops(Opcode.LISTEN)] == [80, 82]


@pytest.mark.parametrize("half_open", [0, 1, 4])
def test_lsn_2_half_open_children_are_reset_by_the_device(bench: Bench, half_open: int) -> None:
    """UNLISTEN resets them; the driver frees its part as each SYNCACHE_GONE comes, and sends no second reset."""
    sock = bench.listening()
    for ref in range(half_open):
        bench.syn(ref, fport=5000 + ref)
    assert bench.stack.syncache.count == half_open
    sock.close()
    for ref in range(half_open):
        bench.device.event(EventType.SYNCACHE_GONE, syncache_ref=ref, listener=0)
    bench.stack.poll()
    assert bench.stack.syncache.count == 0 and bench.dev.passive.half_open == {}
    assert not bench.device.ops(*ON_HALF_OPEN)
    assert bench.dev.counters["stale_events"] == 0


def test_lsn_2_child_completed_while_the_listener_stops_is_reset(bench: Bench) -> None:
    sock = bench.listening()
    bench.syn(1)
    sock.close()
    conn = bench.handshake_done(1)
    assert len(conn.commands(Opcode.ABORT)) == 1
    conn.end(Reason.LOCAL_ABORT)
    assert len(conn.commands(Opcode.RELEASE)) == 1


def test_lsn_2_accept_queue_is_aborted(bench: Bench) -> None:
    sock = bench.listening()
    conns = []
    for ref in range(3):
        bench.syn(ref, fport=5000 + ref)
        conns.append(bench.handshake_done(ref))
    sock.close()
    for conn in conns:
        assert len(conn.commands(Opcode.ABORT)) == 1
        conn.end(Reason.LOCAL_ABORT)
        assert bench.dev.engine.ids.toepcbs[conn.tid & 0xFFFF] is None or conn.commands(Opcode.RELEASE)
    assert list(bench.stack.tcbinfo) == []


def test_listen_refused_by_the_device_frees_its_id(bench: Bench) -> None:
    bench.device.answer = lambda c: Status.TABLE_FULL if c["op"] == Opcode.LISTEN else FakeDevice.default_answer(c)
    sock = bench.listening()
    bench.stack.poll()
    assert bench.dev.counters["listen_refused"] == 1
    sock.close()
    assert not bench.device.ops(Opcode.UNLISTEN)
    bench.device.answer = FakeDevice.default_answer
    bench.listening(81)
    assert bench.device.last(Opcode.LISTEN)["listener"] == 0


# ---------------------------------------------------------------------- passive open


def test_accept_a_connection_with_data_in_one_snapshot(bench: Bench) -> None:
    """Handshake, data, and the peer's FIN reach the driver in one folded event."""
    sock = bench.listening()
    bench.syn(1)
    assert not sock.readable()
    tid = bench.device.ops(Opcode.PROVISION)[0]["tid"]
    toep = bench.dev.engine.ids.toepcbs[tid & 0xFFFF]
    assert toep is not None
    toep.rings.rcv.write(0, b"GET /")
    bench.device.event(
        EventType.CONNECTION,
        tid=tid,
        syncache_ref=1,
        established=1,
        peer_closed=1,
        state=State.CLOSE_WAIT,
        rcv_position=6,
        iss=1000,
        irs=2000,
        mss=1400,
    )
    bench.stack.poll()
    assert sock.readable()
    child, address = sock.accept()
    assert address == (PEER_IP, 5000)
    assert child.getsockname() == (OUR_IP, 80) and child.getpeername() == (PEER_IP, 5000)
    assert child.recv(100) == b"GET /" and child.recv(100) == b""
    assert child.so is not None
    tp = sototcpcb(child.so)
    assert tp.t_state == State.CLOSE_WAIT and tp.t_flags & TF_TOE and tp.t_maxseg == 1400
    assert tp.rcv_nxt == 2000 + 1 + 5 + 1
    with pytest.raises(BlockingIOError):
        sock.accept()


def test_stock_is_replenished(bench: Bench) -> None:
    bench.listening(backlog=100)
    for n in range(15):
        bench.syn(n % 4, fport=5000 + n)
        bench.handshake_done(n % 4)
    # 16 ids, one of them kept for active opens
    assert len([c for c in bench.device.ops(Opcode.PROVISION) if c["stock"]]) == 15
    assert bench.dev.engine.ids.stocked == 0 and bench.dev.engine.free_ids == 1
    bench.accepted[0].end(Reason.PEER_RESET)
    assert bench.dev.engine.ids.stocked == 1  # a released id goes back to the stock


def test_accept_queue_limit(bench: Bench) -> None:
    bench.listening(backlog=2)
    conns = []
    for n in range(5):
        bench.syn(n % 4, fport=5000 + n)
        conns.append(bench.handshake_done(n % 4))
    assert [len(conn.commands(Opcode.ABORT)) for conn in conns] == [0, 0, 0, 0, 1]


# ---------------------------------------------------------------------- SC


def test_sc_1_add_then_expand(bench: Bench) -> None:
    calls = []
    syncache = bench.stack.syncache
    add, expand = syncache.add, syncache.expand
    syncache.add = lambda *args: (calls.append("add"), add(*args))[1]  # type: ignore[method-assign]
    syncache.expand = lambda *args: (calls.append("expand"), expand(*args))[1]  # type: ignore[method-assign]
    sock = bench.listening()
    bench.syn(1)
    bench.handshake_done(1)
    assert calls == ["add", "expand"]
    assert sock.readable()
    assert syncache.count == 0


def test_sc_2_drop_resets_once_and_a_later_expand_fails(bench: Bench) -> None:
    bench.listening()
    bench.syn(1)
    entry = bench.dev.passive.half_open[1]
    bucket = bench.stack.syncache.lock(entry.four_tuple)
    with bucket:
        for _ in range(2):
            bench.dev.tod_usrreqs.tu_syncache_event(TOE_SC_DROP, entry)
    assert [c["syncache_ref"] for c in bench.device.ops(Opcode.SYNCACHE_DROP)] == [1]
    bench.device.event(EventType.SYNCACHE_GONE, syncache_ref=1, listener=0)
    bench.stack.poll()
    assert bench.dev.passive.half_open == {} and bench.stack.syncache.count == 0
    with bucket:
        bench.dev.tod_usrreqs.tu_syncache_event(TOE_SC_DROP, entry)
    assert len(bench.device.ops(Opcode.SYNCACHE_DROP)) == 1


def test_sc_2_timer_expiry(bench: Bench) -> None:
    sock = bench.listening()
    bench.syn(1)
    bench.stack.sleep(lambda: False, EXPIRE_US)
    assert len(bench.device.ops(Opcode.SYNCACHE_DROP)) == 1
    assert bench.stack.syncache.count == 0
    bench.device.event(EventType.SYNCACHE_GONE, syncache_ref=1, listener=0)
    bench.stack.poll()
    assert bench.dev.passive.half_open == {} and not sock.readable()


@pytest.mark.parametrize("source", ["10.0.0.255", "10.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1"])
def test_syn_from_everybody_becomes_no_connection(bench: Bench, source: str) -> None:
    """RFC 9293 MUST-63; the engine knows no prefix, and has answered it."""
    listener = bench.listening()
    bench.peer_ip = source
    bench.syn(1)
    assert [c["syncache_ref"] for c in bench.device.ops(Opcode.SYNCACHE_DROP)] == [1]
    assert bench.stack.syncache.count == 0 and bench.dev.counters["bad_foreign_addresses"] == 1
    conn = bench.handshake_done(1)  # faster than the drop
    assert conn.commands(Opcode.ABORT) and not listener.readable()


def test_sc_2_bucket_overflow_drops_the_oldest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiptoe_driver.netinet.syncache.HASHSIZE", 1)
    bench.listening()
    for ref in range(BUCKETLIMIT + 1):
        bench.syn(ref, fport=6000 + ref)
    assert [c["syncache_ref"] for c in bench.device.ops(Opcode.SYNCACHE_DROP)] == [0]
    assert bench.stack.syncache.count == BUCKETLIMIT


def test_sc_3_duplicate_syn_frees_the_new_context(bench: Bench) -> None:
    named = []
    listener = bench.listening()
    bench.syn(1)
    old = bench.dev.passive.half_open[1]
    assert listener.so is not None
    tu = replace(bench.dev.tod_usrreqs, tu_syncache_event=lambda kind, toep: named.append((kind, toep)))
    new = object()
    assert not bench.stack.syncache.add(old.four_tuple, listener.so, tu, new)
    assert named == [(TOE_SC_ENTRY_PRESENT, new)]
    assert bench.dev.passive.half_open[1] is old and not old.dropped
    bench.handshake_done(1)
    assert listener.readable()


@pytest.mark.parametrize("order", [("drop", "handshake"), ("handshake", "drop"), ("drop", "gone")], ids="-".join)
def test_sc_4_exactly_one_of_socket_and_reset(bench: Bench, order: tuple[str, ...]) -> None:
    sock = bench.listening()
    bench.syn(1)
    entry = bench.dev.passive.half_open[1]
    bucket = bench.stack.syncache._bucket(entry.four_tuple)
    conn = None
    for step in order:
        if step == "drop":
            sc = bucket.entries.get(entry.four_tuple)
            if sc is not None:
                bench.stack.syncache.expire(sc)
        elif step == "handshake":
            conn = bench.handshake_done(1)
        else:
            bench.device.event(EventType.SYNCACHE_GONE, syncache_ref=1, listener=0)
            bench.stack.poll()
    drops = len(bench.device.ops(Opcode.SYNCACHE_DROP))
    aborts = len(conn.commands(Opcode.ABORT)) if conn is not None else 0
    if order == ("handshake", "drop"):
        assert (sock.readable(), drops, aborts) == (True, 0, 0)
    elif order == ("drop", "handshake"):
        # the device answers the drop with BAD_STATE: the reset is the abort's
        assert (sock.readable(), drops, aborts) == (False, 1, 1)
    else:
        assert (sock.readable(), drops, aborts) == (False, 1, 0)
    assert bench.dev.passive.half_open == {} and bench.stack.syncache.count == 0
    if conn is not None:
        toep = conn.toep
        if sock.readable():
            sock.accept()[0].close()
        conn.end(Reason.LOCAL_ABORT)
        assert toep.refcount == 0


def test_passive_open_that_dies_before_it_is_established(bench: Bench) -> None:
    sock = bench.listening()
    bench.syn(1)
    conn = bench.handshake_done(1, established=0, terminal=1, reason=Reason.PEER_RESET, state=State.CLOSED)
    assert not sock.readable()
    assert len(conn.commands(Opcode.RELEASE)) == 1 and not conn.commands(Opcode.ABORT)
    assert bench.stack.syncache.count == 0


def test_reset_before_accept_is_seen_by_the_reader(bench: Bench) -> None:
    sock = bench.listening()
    bench.syn(1)
    conn = bench.handshake_done(1)
    conn.end(Reason.PEER_RESET)
    child, _ = sock.accept()
    with pytest.raises(ConnectionResetError):
        child.recv(1)
    child.close()
    assert child.so is None and list(bench.stack.tcbinfo) == [sock.so.so_pcb]  # type: ignore[union-attr]


def test_accepted_socket_works_both_ways(bench: Bench) -> None:
    sock = bench.listening()
    bench.syn(1)
    conn = bench.handshake_done(1)
    child, _ = sock.accept()
    conn.sock_or_none = child
    child.send(b"hello")
    assert conn.send_ring(0, 5) == b"hello" and conn.doorbells("snd") == [5]
    conn.deliver(b"hi")
    assert child.recv(10) == b"hi"
    assert child.so is not None and child.so.so_state & SS_ISCONNECTED


def test_bind_conflicts(bench: Bench) -> None:
    bench.listening(80)
    with pytest.raises(OSError) as caught:
        bench.socket().bind(("", 80))
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError) as caught:
        bench.socket().bind(("192.0.2.1", 81))
    assert caught.value.errno == errno.EADDRNOTAVAIL
