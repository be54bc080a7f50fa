"""Link and MTU of the interface: what their changes mean to connections and to the user (contract: ENETDOWN, EMSGSIZE)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from tests.driver.bench import Bench
from tiptoe_driver import Socket
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_hdl.host.abi import Opcode


def test_emsgsize_is_cured_by_path_mtu_discovery(bench: Bench) -> None:
    """The interface's MTU is lowered behind the driver's back: the user's send goes out in smaller segments."""
    conn = bench.connected()
    bench.stack.routes.remove_interface(bench.dev.tod_ifp)  # does not matter to the device's connections
    bench.dev.tod_ifp.if_mtu = 1000
    assert conn.sock.send(bytes(3000)) == 3000
    assert [c["mss"] for c in conn.commands(Opcode.PATH_MTU)] == [960]
    bench.stack.poll()  # the engine has carried out PATH_MTU
    assert conn.tp.t_maxseg == 960 and conn.tp.snd_nxt == conn.tp.snd_max
    assert conn.doorbells("snd") == [3000]
    assert conn.tp.t_softerror == 0
    conn.report(mss=1460)  # a snapshot from before the command
    assert conn.sock.send(bytes(100)) == 100
    assert len(conn.commands(Opcode.PATH_MTU)) == 1


@pytest.mark.parametrize("end", [lambda sock: sock.shutdown(socket.SHUT_WR), lambda sock: sock.close()])
def test_emsgsize_is_cured_when_the_user_closes(bench: Bench, end: Callable[[Socket], None]) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(3000))
    bench.dev.tod_ifp.if_mtu = 1000
    end(conn.sock)
    assert [(c["op"], c.get("mss")) for c in conn.commands(Opcode.PATH_MTU, Opcode.CLOSE)] == [
        (Opcode.PATH_MTU, 960),
        (Opcode.CLOSE, None),
    ]


@pytest.mark.parametrize(("mtu", "mss"), [(1499, 1459), (576, 536), (256, 216), (68, 216)])
def test_if_set_mtu_lowers_connections_and_what_is_opened_later(bench: Bench, mtu: int, mss: int) -> None:
    conn = bench.connected()
    conn.sock.send(bytes(3000))
    bench.dev.if_set_mtu(mtu)
    assert [c["mss"] for c in conn.commands(Opcode.PATH_MTU)] == [mss]
    bench.opening(81)
    assert bench.device.last(Opcode.OPEN)["mss"] == mss
    bench.listening()
    assert bench.device.last(Opcode.LISTEN)["mss"] == mss
    bench.dev.if_set_mtu(1500)
    bench.opening(82)
    assert bench.device.last(Opcode.OPEN)["mss"] == 1460
    assert len(conn.commands(Opcode.PATH_MTU)) == 1


def test_mtu_lowered_during_the_handshake(bench: Bench) -> None:
    conn = bench.opening()
    bench.dev.if_set_mtu(1000)
    assert not conn.commands(Opcode.PATH_MTU)
    conn.report(established=1, state=State.ESTABLISHED, mss=1460)
    assert [c["mss"] for c in conn.commands(Opcode.PATH_MTU)] == [960]


@pytest.mark.parametrize("close", [None, lambda sock: sock.shutdown(socket.SHUT_WR), lambda sock: sock.close()])
def test_an_outage_is_survived(bench: Bench, close: Callable[[Socket], None] | None) -> None:
    conn = bench.connected()
    tp, so, sock = conn.tp, conn.so, conn.sock
    bench.dev.if_link_state_change(False)
    assert conn.sock.send(b"held back") == 9  # an error would have the user send it twice
    assert tp.t_softerror == errno.ENETDOWN
    assert so.so_snd.sb_cc == 9 and not conn.doorbells("snd")
    if close:
        close(sock)
        assert tp.t_state == State.FIN_WAIT_1 and not conn.commands(Opcode.CLOSE)
    bench.dev.if_link_state_change(True)
    if close:
        assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [9]
        conn.ack(9, state=State.TIME_WAIT, peer_closed=1)
        conn.end()
        sock.close()
        assert bench.dev.engine.free_ids == 16 and list(bench.stack.tcbinfo) == []
    else:
        assert conn.doorbells("snd") == [9]
        conn.ack(9)
        assert tp.t_softerror == 0
    bench.stack.sleep(lambda: False, 700_000_000)
    assert not conn.commands(Opcode.ABORT)


def test_an_outage_without_end_ends_what_cannot_be_sent(bench: Bench) -> None:
    waiting, closing, idle = (bench.connected(port) for port in (80, 81, 82))
    bench.dev.if_link_state_change(False)
    waiting.sock.send(b"held back")
    closing.sock.close()
    bench.stack.sleep(lambda: bool(waiting.so.so_error), 601_000_000)
    assert bench.device.time == 600_000_000
    with pytest.raises(OSError) as caught:
        waiting.sock.recv(1)
    assert caught.value.errno == errno.ENETDOWN
    assert {c["tid"] for c in bench.device.ops(Opcode.ABORT)} == {waiting.tid, closing.tid}
    idle.deliver(b"still here")
    assert idle.sock.recv(20) == b"still here"


def test_every_outage_has_its_own_limit(bench: Bench) -> None:
    conn, later = bench.connected(80), bench.connected(81)
    for up in (False, True):
        bench.dev.if_link_state_change(up)
        bench.stack.sleep(lambda: False, 250_000_000)
    bench.dev.if_link_state_change(False)
    for each, end in ((conn, 1_100_000_000), (later, 1_700_000_000)):
        each.sock.send(b"held back")
        bench.stack.sleep(lambda each=each: bool(each.so.so_error), 1_000_000_000)
        assert (bench.device.time, each.so.so_error) == (end, errno.ENETDOWN)


def test_a_link_that_comes_up_announces_our_address(bench: Bench) -> None:
    bench.dev.if_link_state_change(True)
    assert bench.device.sent_frames() == []  # it was up
    bench.dev.if_link_state_change(False)
    bench.dev.if_link_state_change(True)
    [frame] = bench.device.sent_frames()
    assert frame[:6] == b"\xff" * 6 and frame[28:32] == frame[38:42] == parse_ipv4("10.0.0.1").to_bytes(4)


def test_removed_device_is_timed_no_more(bench: Bench) -> None:
    bench.dev.if_link_state_change(False)
    bench.dev.detach()
    assert bench.stack._time_left(None) is None
