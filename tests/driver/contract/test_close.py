"""Contract rows DISC-* and RESET-*, on the scripted device."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.driver.bench import Bench, Connection
from tests.driver.contract.endings import ON_CONNECTION, linger, released
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.hardware.toepcb import TP_ATTACHED
from tiptoe_driver.netinet.offload import tcp_gen_disconnect, tcp_gen_send
from tiptoe_driver.netinet.structures import TF_NEEDFIN, TF_TOE
from tiptoe_driver.netinet.tcp_fsm import TCPS_LISTEN
from tiptoe_driver.netinet.tcp_usrreq import tcp_usr_abort
from tiptoe_hdl.host.abi import Opcode

# ---------------------------------------------------------------------- DISC


def test_disc_1_data_then_exactly_one_fin(bench: Bench) -> None:
    conn = bench.connected()
    conn.rebase(0xFFFF_FF00)
    conn.sock.send(bytes(4096))  # far more than the peer has acknowledged
    tp = conn.tp
    conn.sock.close()
    assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [0xFFFF_FF00 + 4096 & 0xFFFF_FFFF]
    assert tp.t_state == State.FIN_WAIT_1
    with tp.t_inpcb.lock:
        assert tcp_gen_disconnect(tp) == 0
    assert len(conn.commands(*ON_CONNECTION)) == 1


def test_disc_1_shutdown_then_close_is_one_fin(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.shutdown(socket.SHUT_WR)
    conn.sock.close()
    assert [c["op"] for c in conn.commands(*ON_CONNECTION)] == [Opcode.CLOSE]


def test_disc_1_in_syn_sent_the_fin_follows_establishment(bench: Bench) -> None:
    conn = bench.opening()
    conn.sock.send(b"early")
    bench.device.forget()
    conn.sock.shutdown(socket.SHUT_WR)
    assert conn.tp.t_flags & TF_NEEDFIN
    assert bench.device.accesses == 0
    conn.report(established=1, state=State.ESTABLISHED)
    assert [c["snd_end"] for c in conn.commands(Opcode.CLOSE)] == [5]
    assert conn.tp.t_state == State.FIN_WAIT_1


def test_disc_2_half_closed_receive_keeps_working(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.shutdown(socket.SHUT_WR)
    conn.report(state=State.FIN_WAIT_2)
    for _ in range(3):
        conn.deliver(bytes(3000))
        assert len(conn.sock.recv(4096)) == 3000
    assert conn.doorbells("rcv") == [3000, 6000, 9000]
    conn.report(peer_closed=1, state=State.TIME_WAIT)
    assert conn.sock.recv(10) == b""


def test_disc_2_second_shutdown_does_not_end_reading(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.shutdown(socket.SHUT_WR)
    conn.report(state=State.FIN_WAIT_2)
    conn.sock.shutdown(socket.SHUT_WR)
    conn.deliver(b"still read")
    assert conn.sock.recv(100) == b"still read"


def test_disc_2_other_calls_are_clear_errors(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.shutdown(socket.SHUT_WR)
    bench.device.forget()
    with pytest.raises(BrokenPipeError):
        conn.sock.send(b"more")
    # A send buffer that grew all the same is refused by the device's driver.
    conn.so.so_snd.sb_cc += 1
    with conn.tp.t_inpcb.lock:
        assert tcp_gen_send(conn.tp) == errno.EPERM
    conn.so.so_snd.sb_cc -= 1
    with conn.tp.t_inpcb.lock:
        assert tcp_gen_send(conn.tp) == 0  # send itself is legal
    assert conn.sock.connect_ex(("10.0.0.2", 80)) == errno.EISCONN
    with pytest.raises(OSError):
        conn.sock.listen()
    assert bench.device.accesses == 0


def test_disc_3_all_eleven_states(bench: Bench) -> None:
    seen = set()

    def note(conn: Connection) -> None:
        seen.add(conn.tp.t_state)

    def closed(conn: Connection) -> None:
        tp = conn.tp
        conn.end()
        assert tp.t_state == State.CLOSED
        assert released(bench, conn.tid)

    # we close first; the peer's FIN comes after its ACK
    conn = bench.opening()
    note(conn)
    conn.report(established=1, state=State.ESTABLISHED)
    note(conn)
    conn.sock.shutdown(socket.SHUT_WR)
    note(conn)
    conn.report(state=State.FIN_WAIT_2)
    note(conn)
    conn.report(peer_closed=1, state=State.TIME_WAIT)
    note(conn)
    closed(conn)
    # both close at once, after both opened at once
    conn = bench.opening()
    conn.report(state=State.SYN_RECEIVED)
    note(conn)
    conn.report(established=1, state=State.ESTABLISHED)
    conn.sock.shutdown(socket.SHUT_WR)
    conn.report(peer_closed=1, state=State.CLOSING)
    note(conn)
    conn.report(state=State.TIME_WAIT)
    assert conn.tp.t_state == State.TIME_WAIT
    closed(conn)
    # the peer closes first
    conn = bench.connected()
    conn.report(peer_closed=1, state=State.CLOSE_WAIT)
    note(conn)
    conn.sock.shutdown(socket.SHUT_WR)
    note(conn)
    closed(conn)
    # and the two that have no connection
    listener = bench.listening(81)
    assert listener.so is not None and listener.so.so_pcb is not None and listener.so.so_pcb.inp_ppcb is not None
    assert listener.so.so_pcb.inp_ppcb.t_state == TCPS_LISTEN
    seen |= {State.LISTEN, State.CLOSED}
    assert seen == set(State)


def test_disc_3_linger_zero_resets(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger(0))
    conn.sock.send(b"never mind")
    conn.sock.close()
    assert [c["op"] for c in conn.commands(*ON_CONNECTION)] == [Opcode.ABORT]


def test_disc_3_linger_wakes_on_disconnect(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setblocking(True)
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger(5))
    conn.sock.send(b"x")
    bench.device.script = [
        lambda: conn.report(poll=False, state=State.FIN_WAIT_1),
        lambda: conn.report(poll=False, snd_una_position=1, state=State.FIN_WAIT_2),
    ]
    before = bench.device.time
    conn.sock.close()
    assert bench.device.time - before < 100
    assert [c["op"] for c in conn.commands(*ON_CONNECTION)] == [Opcode.CLOSE]


def test_disc_3_linger_expires(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setblocking(True)
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger(5))
    before = bench.device.time
    with pytest.raises(BlockingIOError):
        conn.sock.close()
    assert bench.device.time - before == 5_000_000
    conn.report(state=State.FIN_WAIT_2)  # the connection goes on to its end without the user
    conn.end()
    assert released(bench, conn.tid)


def test_disc_3_nonblocking_close_does_not_linger(bench: Bench) -> None:
    conn = bench.connected()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger(5))
    conn.sock.close()
    assert bench.device.time == 0


@pytest.mark.parametrize("state", [State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_2, State.LAST_ACK])
@pytest.mark.parametrize("seconds", [None, 5])
def test_disc_3_close_with_unread_data_is_a_reset(bench: Bench, state: State, seconds: int | None) -> None:
    """RFC 9293 section 3.6.1, RFC 2525 section 2.17: a FIN would say that all was read."""
    conn = bench.connected()
    if seconds is not None:
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger(seconds))
    conn.deliver(b"nobody reads this")
    if state in (State.CLOSE_WAIT, State.LAST_ACK):
        conn.report(peer_closed=1, state=State.CLOSE_WAIT)
    if state in (State.FIN_WAIT_2, State.LAST_ACK):
        conn.sock.shutdown(socket.SHUT_WR)
        conn.report(state=state)
    bench.device.forget()
    assert conn.sock.recv(5) == b"nobod"
    conn.sock.setblocking(True)
    conn.sock.close()
    assert bench.device.time == 0
    assert [c["op"] for c in conn.commands(*ON_CONNECTION)] == [Opcode.ABORT]
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)


def test_disc_3_close_with_all_data_read_is_a_fin(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"read")
    assert conn.sock.recv(100) == b"read"
    conn.sock.close()
    assert [c["op"] for c in conn.commands(*ON_CONNECTION)] == [Opcode.CLOSE]


def test_disc_3_close_after_the_user_shut_down_reading_is_a_fin(bench: Bench) -> None:
    """He has said that he wants no more: what is thrown away for that is not lost by the close."""
    conn = bench.connected()
    conn.deliver(b"unwanted")
    conn.sock.shutdown(socket.SHUT_RD)
    conn.deliver(b"this too")
    conn.sock.close()
    assert [c["op"] for c in conn.commands(*ON_CONNECTION)] == [Opcode.CLOSE]


def test_disc_3_close_before_the_event_of_data_is_a_reset(bench: Bench) -> None:
    conn = bench.connected()
    conn.toep.rings.rcv.write(0, b"arrived")
    conn.data_end = 7
    conn.report(poll=False)
    conn.sock.close()
    bench.stack.poll()
    assert Opcode.ABORT in [c["op"] for c in conn.commands(*ON_CONNECTION)]


def test_disc_3_close_with_unread_data_in_time_wait_resets_nothing(bench: Bench) -> None:
    conn = bench.connected()
    conn.deliver(b"unread")
    conn.sock.shutdown(socket.SHUT_WR)
    conn.report(state=State.FIN_WAIT_2)
    conn.report(state=State.TIME_WAIT, peer_closed=1)
    conn.sock.close()
    assert [c["op"] for c in conn.commands(*ON_CONNECTION)] == [Opcode.CLOSE]


# ---------------------------------------------------------------------- RESET


@pytest.mark.parametrize("state", [State.LAST_ACK, State.CLOSING])
@pytest.mark.parametrize("acked", [0, 3, 4])
def test_reset_when_both_have_closed_tells_of_data_never_acknowledged(bench: Bench, state: State, acked: int) -> None:
    """RFC 9293 section 3.10.7.4 lets the connection go; but the user would take what he wrote for delivered."""
    conn = bench.connected()
    if state is State.LAST_ACK:
        conn.report(peer_closed=1, state=State.CLOSE_WAIT)
    conn.sock.send(b"data")
    conn.sock.shutdown(socket.SHUT_WR)
    conn.report(peer_closed=1, state=state)
    conn.end(Reason.PEER_RESET, snd_una_position=acked)
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == (errno.ECONNRESET if acked < 4 else 0)


@pytest.mark.parametrize("state", [State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2])
def test_reset_1_aborts_and_detaches(bench: Bench, state: State) -> None:
    conn = bench.connected()
    conn.sock.send(b"queued")
    if state is State.CLOSE_WAIT:
        conn.report(peer_closed=1, state=state)
    elif state is not State.ESTABLISHED:
        conn.sock.shutdown(socket.SHUT_WR)
        conn.report(state=state, snd_una_position=6 if state is State.FIN_WAIT_2 else 0)
    so, tp, toep = conn.so, conn.tp, conn.toep
    tcp_usr_abort(so)
    assert len(conn.commands(Opcode.ABORT)) == 1
    assert so.so_snd.sb_cc == 0
    assert tp.t_state == State.CLOSED
    assert not tp.t_flags & TF_TOE and tp.t_toe is None and tp.t_tu is None
    assert not toep.flags & TP_ATTACHED and toep.tp is None
    assert not conn.commands(Opcode.RELEASE)  # not before the device is done with it
    conn.end(Reason.LOCAL_ABORT)
    assert released(bench, conn.tid)
    assert so.so_error == errno.ECONNABORTED


def test_reset_1_not_in_syn_sent(bench: Bench) -> None:
    """A peer that never answered gets no tu_reset; the device is told by detach."""
    conn = bench.opening()
    tcp_usr_abort(conn.so)
    assert not conn.commands(Opcode.ABORT)
    conn.sock.close()
    assert len(conn.commands(Opcode.ABORT)) == 1


def test_reset_2_no_call_reaches_the_device(bench: Bench) -> None:
    conn = bench.connected()
    tp, tu = conn.tp, conn.tp.t_tu
    assert tu is not None
    tcp_usr_abort(conn.so)
    bench.device.forget()
    with tp.t_inpcb.lock:
        for tu_call in (tu.tu_send, tu.tu_rcvd, tu.tu_disconnect, tu.tu_reset):
            assert tu_call(tp) == errno.EPERM
        tu.tu_detach(tp)
    with pytest.raises(ConnectionAbortedError):
        conn.sock.send(b"x")
    with pytest.raises(BrokenPipeError):
        conn.sock.send(b"x")
    assert conn.sock.recv(10) == b""
    conn.sock.close()
    assert bench.device.accesses == 0


def test_reset_both_sides_at_once_is_one_release(bench: Bench) -> None:
    conn = bench.connected()
    conn.report(poll=False, terminal=1, reason=Reason.PEER_RESET, state=State.CLOSED)  # on its way
    tcp_usr_abort(conn.so)
    bench.stack.poll()
    assert released(bench, conn.tid)
    assert len(conn.commands(Opcode.RELEASE)) == 1
