"""The driver on the engine itself: two simulated engines on a line, each with its own stack, in simulated time."""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether

from tests.driver.on_engine.bench import (
    A_MAC,
    RINGS,
    SERVER,
    Flow,
    answer_arp,
    carry,
    connect,
    nothing_left,
    pair,
    tp_of,
)
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.netinet.offload import tcp_gen_rcvd, tcp_gen_send
from tiptoe_driver.netinet.tcp_usrreq import tcp_usr_abort
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment, Peer, Simulation, Wire


@pytest.fixture
def two(out_dir) -> Iterator[Pair]:
    """Two engines; at the end every rule was kept and nothing is left over."""
    with pair(pcap=out_dir / "wire.pcap") as made:
        yield made
        made.check()


@pytest.mark.parametrize("loss", [0, 0.05])
def test_data_both_ways_through_small_rings(out_dir, rng: random.Random, loss: float) -> None:
    with pair(pcap=out_dir / "wire.pcap", impairment=Impairment(loss=loss, seed=3)) as two:
        client, server, listener = connect(two)
        there, back = rng.randbytes(60_000), rng.randbytes(45_000)
        forward, backward = Flow(client, server, there, rng), Flow(server, client, back, rng)
        carry(two, forward, backward)
        assert forward.got == there and backward.got == back
        for sock in (client, server, listener):
            sock.close()
        two.run_until(lambda: nothing_left(two.a.toe) and nothing_left(two.b.toe), 3_000_000, "all freed")
        for toe in (two.a.toe, two.b.toe):
            assert not {name: count for name, count in toe.counters.items() if count}
        two.check()


def test_send_1_unchanged_buffer_reaches_neither_bus_nor_wire(two: Pair) -> None:
    client, server, _ = connect(two)
    client.send(b"x")
    two.run_us(100_000)
    sent = two.a.counters()["tx_frames"]
    tp = tp_of(client)
    for _ in range(20):
        with tp.t_inpcb.lock:
            assert tcp_gen_send(tp) == 0 and tcp_gen_rcvd(tp) == 0
    two.run_us(20_000)
    assert two.a.counters()["tx_frames"] == sent
    assert server.recv(10) == b"x"


def test_send_2_buffer_falls_by_what_the_peer_acknowledged(two: Pair) -> None:
    client, server, _ = connect(two)
    assert client.so is not None
    assert client.send(bytes(4096)) == 4096
    assert client.so.so_snd.sb_cc == 4096
    two.run_until(lambda: client.so.so_snd.sb_cc == 0, 1_000_000, "acknowledged")
    assert tp_of(client).snd_una == (tp_of(client).iss + 1 + 4096) & 0xFFFF_FFFF
    client.send(bytes(4096))  # b's window is closed: nothing of this can be acknowledged
    two.run_us(50_000)
    assert client.so.so_snd.sb_cc == 4096
    assert server.so is not None and server.so.so_rcv.sb_cc == 4096


def test_rcvd_3_closed_window_reopens(two: Pair) -> None:
    client, server, _ = connect(two)
    data = random.Random(5).randbytes(8192)
    client.send(data[:4096])
    two.run_us(100_000)
    client.send(data[4096:])
    two.run_us(100_000)
    got = server.recv(4096)
    two.run_until(server.readable, 2_000_000, "the window's reopening")
    while len(got) < 8192:
        try:
            got += server.recv(4096)
        except BlockingIOError:
            two.run_us(1000)
    assert got == data


def test_disc_1_close_with_data_queued(two: Pair) -> None:
    """All bytes precede the FIN, though close comes at once."""
    client, server, _ = connect(two)
    data = random.Random(6).randbytes(4096)
    client.send(data)
    client.close()
    got = bytearray()

    def read() -> bool:
        try:
            part = server.recv(700)
        except BlockingIOError:
            return False
        got.extend(part)
        return not part

    two.run_until(read, 2_000_000, "end of stream")
    assert got == data
    assert tp_of(server).t_state == State.CLOSE_WAIT


def test_disc_3_states_of_both_ends(two: Pair) -> None:
    client, server, _ = connect(two)
    a, b = tp_of(client), tp_of(server)
    client.shutdown(socket.SHUT_WR)
    assert a.t_state == State.FIN_WAIT_1
    two.run_until(lambda: (a.t_state, b.t_state) == (State.FIN_WAIT_2, State.CLOSE_WAIT), 500_000, "half-close")
    server.send(b"still here")
    two.run_until(client.readable, 500_000, "data the other way")
    assert client.recv(100) == b"still here"
    server.shutdown(socket.SHUT_WR)
    assert b.t_state == State.LAST_ACK
    two.run_until(lambda: a.t_state == State.TIME_WAIT, 500_000, "TIME_WAIT")
    two.run_until(lambda: (a.t_state, b.t_state) == (State.CLOSED, State.CLOSED), 500_000, "the end")
    assert client.recv(1) == b"" == server.recv(1)
    assert a.snd_una == (a.iss + 1) & 0xFFFF_FFFF and b.rcv_nxt == (b.irs + 2) & 0xFFFF_FFFF


def test_disc_3_simultaneous_close(two: Pair) -> None:
    client, server, _ = connect(two)
    a, b = tp_of(client), tp_of(server)
    seen = set()
    client.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_WR)

    def over() -> bool:
        seen.update((a.t_state, b.t_state))
        return (a.t_state, b.t_state) == (State.CLOSED, State.CLOSED)

    two.run_until(over, 1_000_000, "the end")
    assert State.TIME_WAIT in seen


def test_reset_1_linger_zero(two: Pair) -> None:
    client, server, _ = connect(two)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
    client.send(b"never mind")
    client.close()
    assert server.so is not None
    two.run_until(lambda: server.so.so_error, 500_000, "the reset")
    two.run_until(lambda: nothing_left(two.a.toe), 500_000, "a's end")
    with pytest.raises(ConnectionResetError):
        while server.recv(100):
            pass


def test_disc_3_close_with_unread_data_resets_the_peer(two: Pair) -> None:
    client, server, _ = connect(two)
    server.send(b"nobody reads this")
    two.run_until(client.readable, 500_000, "the data")
    client.close()
    assert server.so is not None
    two.run_until(lambda: server.so.so_error, 500_000, "the reset")
    with pytest.raises(ConnectionResetError):
        server.recv(100)
    two.run_until(lambda: nothing_left(two.a.toe), 500_000, "a's end")


def test_reset_both_sides_at_once(two: Pair) -> None:
    client, server, listener = connect(two)
    for sock in (client, server):
        assert sock.so is not None
        tcp_usr_abort(sock.so)
        sock.close()
    listener.close()
    two.run_until(lambda: nothing_left(two.a.toe) and nothing_left(two.b.toe), 500_000, "both ends free")


def test_connection_refused(two: Pair) -> None:
    client = two.a.socket()
    client.connect_ex((SERVER, 9))
    two.run_until(client.writable, 500_000, "the refusal")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    client.close()
    two.run_until(lambda: nothing_left(two.a.toe), 500_000, "all freed")


def test_data_after_close_is_answered_with_a_reset(two: Pair) -> None:
    client, server, _ = connect(two)
    client.close()
    two.run_until(lambda: tp_of(server).t_state == State.CLOSE_WAIT, 500_000, "half-close")
    server.send(b"too late")
    assert server.so is not None
    two.run_until(lambda: server.so.so_error, 500_000, "the reset")
    with pytest.raises(BrokenPipeError):
        server.send(b"x")


def test_more_connections_than_ids(two: Pair) -> None:
    """Generations tell the uses of an id apart; every id comes back."""
    listener = two.b.socket()
    listener.bind(("", 80))
    listener.listen()
    for n in range(40):
        client = two.a.socket()
        client.connect_ex((SERVER, 80))
        two.run_until(lambda client=client: listener.readable() and client.writable(), 3_000_000, f"connection {n}")
        server, _ = listener.accept()
        server.send(n.to_bytes(4))
        server.close()
        two.run_until(client.readable, 200_000, f"data {n}")
        assert client.recv(10) == n.to_bytes(4)
        client.close()
    listener.close()
    two.run_until(lambda: nothing_left(two.a.toe) and nothing_left(two.b.toe), 1_000_000, "all freed")
    for toe in (two.a.toe, two.b.toe):
        assert not toe.counters["stale_events"] and not toe.counters["lost_ids"] and not toe.counters["bad_positions"]


def test_conn_1_all_ids_in_use_and_again_free(two: Pair) -> None:
    listener = two.b.socket()
    listener.bind(("", 80))
    listener.listen()
    clients = []
    while True:
        client = two.a.socket()
        error = client.connect_ex((SERVER, 80))
        if error == errno.EPERM:
            break
        assert error == errno.EINPROGRESS
        clients.append(client)
    assert len(clients) == 16
    clients[0].close()
    two.run_until(lambda: client.connect_ex((SERVER, 80)) == errno.EINPROGRESS, 2_000_000, "a free id")


# ---------------------------------------------------------------------- against a scripted peer


@pytest.fixture
def lone(out_dir) -> Iterator[Callable[..., tuple[Simulation, Peer]]]:
    """One engine as 10.0.0.1 and a scripted peer on its line."""
    made = []

    def make(on_frame=None) -> tuple[Simulation, Peer]:
        driver = RINGS | {"registers": {reg.REG_RTO_INITIAL: 50}}
        sim = Simulation(
            "tiny", ip="10.0.0.1", mac=A_MAC, driver=driver, memory_bytes=1 << 22, pcap=out_dir / "wire.pcap"
        )
        made.append(sim)
        peer = Peer(on_frame)
        Wire(sim, peer)
        sim.run_us(1000)  # posted register writes arrive, the engine is on
        return sim, peer

    yield make
    for sim in made:
        sim.check()
        sim.close()


def segments(peer: Peer) -> list[TCP]:
    return [Ether(frame)[TCP] for _, frame in peer.received if TCP in Ether(frame)]


def test_detach_1_close_in_syn_sent_quietens_the_wire(lone) -> None:
    sim, peer = lone(answer_arp)
    sock = sim.socket()
    sock.connect_ex((SERVER, 80))
    sim.run_until(lambda: segments(peer), 100_000, "the SYN")
    sock.close()
    sim.run_until(lambda: nothing_left(sim.toe), 100_000, "all freed")
    count = len(segments(peer))
    sim.run_us(200_000)  # a SYN would be sent again after 50 ms
    assert len(segments(peer)) == count


def test_next_hop_that_does_not_answer(lone) -> None:
    sim, peer = lone()
    sock = sim.socket()
    sock.connect_ex((SERVER, 80))
    sim.run_until(sock.writable, 100_000, "the error")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTDOWN
    assert len(peer.received) == 3 and not segments(peer)


@pytest.mark.parametrize("half_open", [1, 3])
def test_lsn_2_stop_resets_half_open_children(lone, half_open: int) -> None:
    sim, peer = lone()
    listener = sim.socket()
    listener.bind(("", 80))
    listener.listen()
    sim.run_us(2000)  # the engine listens
    for n in range(half_open):
        peer.send(
            bytes(
                Ether(src="02:00:00:00:00:02", dst=A_MAC)
                / IP(src=SERVER, dst="10.0.0.1")
                / TCP(sport=5000 + n, dport=80, flags="S", seq=100 * n)
            )
        )
    sim.run_until(lambda: sim.stack.syncache.count == half_open, 100_000, "half-open connections")
    listener.close()
    sim.run_until(lambda: sum("R" in tcp.flags for tcp in segments(peer)) == half_open, 100_000, "the resets")
    sim.run_until(lambda: nothing_left(sim.toe), 100_000, "all freed")
    assert {tcp.dport for tcp in segments(peer) if "R" in tcp.flags} == {5000 + n for n in range(half_open)}
    assert sim.toe.passive.listeners == [None] * 4


def test_sc_2_drop_resets_the_half_open_connection(lone) -> None:
    sim, peer = lone()
    listener = sim.socket()
    listener.bind(("", 80))
    listener.listen()
    sim.run_us(2000)  # the engine listens
    peer.send(
        bytes(
            Ether(src="02:00:00:00:00:02", dst=A_MAC)
            / IP(src=SERVER, dst="10.0.0.1")
            / TCP(sport=5000, dport=80, flags="S", seq=100)
        )
    )
    sim.run_until(lambda: sim.stack.syncache.count, 100_000, "the half-open connection")
    [entry] = sim.toe.passive.half_open.values()
    bucket = sim.stack.syncache._bucket(entry.four_tuple)
    sim.stack.syncache.expire(bucket.entries[entry.four_tuple])
    sim.run_until(lambda: not sim.toe.passive.half_open, 100_000, "its end")
    sim.run_us(10_000)
    assert sum("R" in tcp.flags for tcp in segments(peer)) == 1


def test_ping(lone) -> None:
    sim, peer = lone()
    peer.send(
        bytes(
            Ether(src="02:00:00:00:00:02", dst=A_MAC) / IP(src=SERVER, dst="10.0.0.1") / ICMP(id=7, seq=1) / b"payload"
        )
    )
    sim.run_until(lambda: peer.received, 100_000, "the reply")
    reply = Ether(peer.received[0][1])
    assert reply[ICMP].type == 0 and bytes(reply[ICMP].payload)[:7] == b"payload"
