"""Connections that are not offloaded, carried by the host's kernel over the engine's network interface (host_stack.py).

Which branch a connection takes is read from the engine's counters and from the capture: of a software connection every
segment is a frame of the host's kernel, and TX_SEGMENTS stands still.
"""

import errno
import hashlib
import select
import socket
import struct

import pytest

from tests.live.conftest import ENGINE, KERNEL, readable, send_some
from tests.live.host_bench import HostBench, offloaded, state
from tiptoe_driver import SO_NO_OFFLOAD
from tiptoe_driver.hardware.abi_gen import DOORBELL_BASE, Opcode
from tiptoe_driver.netinet.if_var import IFCAP_TOE
from tiptoe_driver.netinet.in_cksum import internet_checksum
from tiptoe_driver.netinet.offload import if_setcap
from tiptoe_driver.netinet.tcp_fsm import TCPS_CLOSED, TCPS_TIME_WAIT
from tiptoe_verif.live import session
from tiptoe_verif.live.tap import TapError
from tiptoe_verif.wire.segment import ACK, FIN, RST, SYN, ip_number

pytestmark = pytest.mark.tap


@pytest.fixture
def bench(make_bench):
    made = make_bench(host_stack=True, cls=HostBench)
    yield made
    made.settle()
    assert made.host.refused == 0


@pytest.mark.parametrize("software", [False, True], ids=["offloaded", "software"])
def test_gen_1_both_branches_by_their_frames(bench, payload, software):
    bench.pair(software=not software, port=8001)  # a connection of the other kind beside it changes nothing
    sent, kernel = bench.counters()["TX_SEGMENTS"], bench.host.sent
    ours, theirs = bench.pair(software=software)
    bench.carry(ours, theirs, payload(150_000), back=payload(150_000), end=True)
    bench.carry(theirs, ours, payload(1000), end=True)
    ours.close()
    bench.for_s(0.1)
    captured = sum(segment.src == ip_number(ENGINE) for segment in bench.of_port(8000))
    assert captured > 150_000 // 1460
    by_engine, by_kernel = bench.counters()["TX_SEGMENTS"] - sent, bench.host.sent - kernel
    assert (by_engine, by_kernel >= captured) == ((0, True) if software else (captured, False))


def no_offload_option(bench, made):
    made.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)


def capability_off(bench, made):
    if_setcap(bench.toe.tod_ifp, 0)


def no_route(bench, made):
    bench.engine.stack.routes.remove_interface(bench.toe.tod_ifp)


def link_down(bench, made):
    bench.toe.tod_ifp.if_up = False


def device_full(bench, made):
    listener = bench.listen(8100)
    while bench.toe.engine.ids.available:
        assert offloaded(bench.open(8100))
        bench.accept(listener)


@pytest.mark.parametrize("why", [no_offload_option, capability_off, no_route, link_down, device_full])
def test_conn_1_what_cannot_be_offloaded_goes_to_software(bench, payload, why):
    made = bench.socket()
    why(bench, made)
    free = bench.toe.engine.free_ids
    listener = bench.listen(8000)
    ours = bench.open(8000, made=made)
    assert not offloaded(ours) and bench.toe.engine.free_ids == free
    theirs = bench.accept(listener)
    bench.carry(ours, theirs, payload(20_000), back=payload(20_000), end=True)


def test_gen_1_offloaded_and_software_connections_at_once(bench, rng):
    """More connections than ids; each sends its own data, which comes back, and is compared by hash."""
    echo = bench.kernel_socket(8000)
    echo.listen(64)
    mine = [bench.open(8000) for _ in range(24)]
    assert {offloaded(made) for made in mine} == {True, False}
    peers = [bench.accept(echo) for _ in mine]
    data = [rng.randbytes(8_000 + 100 * index) for index in range(24)]
    out = [memoryview(chunk) for chunk in data]
    got = [hashlib.sha256() for _ in mine]
    count = [0] * len(mine)

    def step():
        for index, made in enumerate(mine):
            out[index] = out[index][send_some(made, out[index]) :]
            if made.readable():
                chunk = made.recv(65536)
                got[index].update(chunk)
                count[index] += len(chunk)
        for peer in peers:
            if readable(peer):
                peer.send(peer.recv(4096))
        return all(n == len(chunk) for n, chunk in zip(count, data, strict=True))

    bench.until(step, "all echoes", 120)
    assert [each.hexdigest() for each in got] == [hashlib.sha256(chunk).hexdigest() for chunk in data]


@pytest.mark.parametrize("why", ["option", "capability", "table"])
def test_gen_1_listener_that_is_not_offloaded(bench, payload, why):
    if why == "capability":
        if_setcap(bench.toe.tod_ifp, 0)
    fillers = (
        [bench.passive(9000 + n) for n in range(bench.toe.engine.capabilities.listeners)] if why == "table" else []
    )
    listener = bench.passive(80, software=why == "option")
    before = bench.counters()
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    assert not offloaded(server) and server.getpeername() == client.getsockname()
    assert server.getsockname() == (ENGINE, 80)
    bench.carry(client, server, payload(100_000), back=payload(100_000), end=True)
    bench.carry(server, client, payload(1000), end=True)
    after = bench.counters()
    assert (after["TX_SEGMENTS"], after["SYN_RECEIVED"]) == (before["TX_SEGMENTS"], before["SYN_RECEIVED"])
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        bench.connect(80)
    for filler in fillers:
        filler.close()


def test_gen_1_kernel_keeps_out_of_what_is_offloaded(bench, payload):
    """It listens on the same port, but sees neither SYNs nor segments of offloaded connections."""
    listener = bench.passive(80)
    client = bench.connect(80)
    seen, sent = bench.host.received, bench.host.sent
    server = bench.offloaded_accept(listener)
    assert offloaded(server)
    bench.carry(client, server, payload(50_000), back=payload(50_000), end=True)
    bench.carry(server, client, b"", end=True)
    server.close()
    bench.for_s(0.2)
    assert sum(s.flags & (SYN | ACK) == SYN | ACK for s in bench.of_port(80)) == 1
    assert not any(segment.flags & RST for segment in bench.of_port(80))
    # ARP of a neighbour that checks whether we are there is the kernel's to answer.
    assert bench.host.received - seen <= 2 and bench.host.sent - sent <= 2
    assert bench.host.tcp.accepted == 0


def test_opt_1_read_at_connect_and_listen_only(bench, payload):
    ours, theirs = bench.pair(software=False)
    ours.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 1)
    bench.carry(ours, theirs, payload(1000), back=payload(1000))
    assert offloaded(ours)
    soft, peer = bench.pair(software=True, port=8001)
    soft.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, 0)
    bench.for_s(0.3)  # a delayed ACK of the other connection
    sent = bench.counters()["TX_SEGMENTS"]
    bench.carry(soft, peer, payload(1000), back=payload(1000))
    assert not offloaded(soft) and bench.counters()["TX_SEGMENTS"] == sent
    for software in (False, True):
        listener = bench.passive(80 + software, software=software)
        listener.setsockopt(socket.SOL_SOCKET, SO_NO_OFFLOAD, not software)
        bench.connect(80 + software)
        assert offloaded(bench.offloaded_accept(listener)) is not software


def test_cap_1_off_new_ones_to_software_old_ones_live_on(bench, payload):
    listener = bench.passive(80)
    old_client = bench.connect(80)
    old = bench.offloaded_accept(listener)
    active, peer = bench.pair(software=False)
    if_setcap(bench.toe.tod_ifp, 0)
    bench.for_s(0.05)
    client = bench.connect(80)
    new = bench.offloaded_accept(listener)
    assert not offloaded(new)
    assert not offloaded(bench.open(8000))
    if_setcap(bench.toe.tod_ifp, IFCAP_TOE)
    bench.for_s(0.05)
    bench.connect(80)
    assert offloaded(bench.offloaded_accept(listener))
    assert offloaded(bench.open(8000))
    bench.for_s(0.3)
    sent = bench.counters()["TX_SEGMENTS"]
    bench.carry(client, new, payload(5000), back=payload(5000), end=True)
    assert bench.counters()["TX_SEGMENTS"] == sent
    bench.carry(old_client, old, payload(5000), back=payload(5000), end=True)
    bench.carry(active, peer, payload(5000), back=payload(5000), end=True)
    assert offloaded(old) and offloaded(active) and bench.counters()["TX_SEGMENTS"] > sent


def test_gen_2_offload_disabled_the_device_is_a_network_card(make_bench, payload):
    bench = make_bench(host_stack=True, offload_disabled=True, cls=HostBench)
    commands, doorbells = [], []
    ring, write32 = bench.toe.engine.commands, bench.engine.write32

    def record(post):
        return lambda command: (commands.append(command[0]), post(command))[1]

    ring.post, ring.post_control = record(ring.post), record(ring.post_control)
    bench.engine.write32 = lambda address, value: (doorbells.append(address), write32(address, value))[1]
    listener = bench.passive(80)
    client = bench.connect(80)
    server = bench.offloaded_accept(listener)
    bench.carry(client, server, payload(20_000), back=payload(20_000), end=True)
    ours, theirs = bench.pair(software=False)
    bench.carry(ours, theirs, payload(20_000), back=payload(20_000), end=True)
    for made in (server, ours, listener):
        made.close()
    bench.for_s(0.1)
    assert set(commands) == {Opcode.SEND_FRAME}
    assert not [address for address in doorbells if address >= DOORBELL_BASE]
    assert bench.counters()["TX_SEGMENTS"] == 0


# ---------------------------------------------------------------------- what else the kernel does on the interface


@pytest.mark.parametrize("attached", [False, True], ids=["driver", "kernel"])
def test_ping(make_bench, attached):
    """One answer to each request; fragments are put together by a whole stack only."""
    bench = make_bench(host_stack=attached, cls=HostBench)
    raw = bench.session.namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with raw:
        raw.setblocking(False)
        for size in (56, 1400, 5000):
            request = bytearray(struct.pack("!BBHHH", 8, 0, 0, 77, size) + bytes(i % 251 for i in range(size)))
            request[2:4] = internet_checksum(request).to_bytes(2)
            raw.sendto(request, (ENGINE, 0))
            if size > 1472 and not attached:
                bench.for_s(0.3)
                assert not readable(raw)
                continue
            bench.until(lambda: readable(raw), "the echo reply")
            reply = raw.recv(65536)[20:]
            assert reply[0] == 0 and reply[4:] == request[4:]
            bench.for_s(0.05)
            assert not readable(raw)


@pytest.mark.parametrize("attached", [False, True], ids=["engine", "kernel"])
def test_closed_port_is_refused_once(make_bench, attached):
    bench = make_bench(host_stack=attached, cls=HostBench)
    with pytest.raises(ConnectionRefusedError):
        bench.connect(4444)
    bench.for_s(0.05)
    assert [segment.flags & RST for segment in bench.of_port(4444)] == [0, RST]
    assert bench.counters()["TX_RST"] == (0 if attached else 1)


def test_arp_is_answered_once_and_learned_by_both(bench):
    """Peer, driver and kernel begin without neighbours; the peer asks first."""
    bench.passive(80)
    bench.connect(80)
    bench.pair(software=True)
    bench.pair(software=False, port=8001)
    bench.for_s(0.1)
    engine, kernel = ip_number(ENGINE).to_bytes(4), ip_number(KERNEL).to_bytes(4)
    arps = [(frame[21], frame[28:32], frame[38:42]) for frame in bench.frames() if frame[12:14] == b"\x08\x06"]
    asked, told = arps.count((1, kernel, engine)), arps.count((2, engine, kernel))
    assert asked == told > 0
    assert bench.toe.hostif.arp.lookup(ip_number(KERNEL)) is not None


def test_udp_reaches_the_kernel(bench):
    with bench.host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((ENGINE, 5000))
        with bench.session.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"query", (ENGINE, 5000))
            bench.until(lambda: select.select([server], [], [], 0)[0], "the datagram")
            data, peer = server.recvfrom(100)
            server.sendto(data[::-1], peer)
            bench.until(lambda: select.select([client], [], [], 0)[0], "the answer")
            assert client.recv(100) == b"yreuq"


def test_host_side_where_the_system_grants_none(make_bench, monkeypatch):
    def refuse():
        raise TapError("not here")

    monkeypatch.setattr(session, "NetNamespace", refuse)
    with pytest.raises(TapError, match="not here"):
        session.LiveSession(session.LiveSetup(config="tiny", host_stack=True, tap="tiptoe9"))
    with session.LiveSession(session.LiveSetup(config="tiny", host_stack=None, tap="tiptoe9")) as made:
        assert made.host is None and made.engine.toe.engine.options.rst_unknown


def test_closing_the_host_side_gives_the_interface_back(bench):
    ours, theirs = bench.pair()
    bench.host.close()
    assert bench.engine.stack.software is None
    made = bench.socket(software=True)
    assert made.connect_ex((KERNEL, 8000)) == errno.EOPNOTSUPP
    ours.close()
    soft = bench.open(8000)  # offloaded still works, and the driver answers for itself again
    assert offloaded(soft)
    fins = [segment for segment in bench.of_port(8000) if segment.flags & FIN]
    assert not [segment for segment in fins if segment.src == ip_number(KERNEL)]
    theirs.close()


def test_port_of_a_connection_that_the_kernel_has_in_time_wait_is_served(bench, payload):
    """A client uses its port again soon, and finds the engine with room: TIME_WAIT of the kernel is no reason for a reset."""
    listener = bench.passive(80)
    for software in (True, False):
        if_setcap(bench.toe.tod_ifp, 0 if software else IFCAP_TOE)
        bench.for_s(0.05)
        client = bench.kernel_socket(40_000)
        client.connect_ex((ENGINE, 80))
        server = bench.offloaded_accept(listener)
        assert offloaded(server) is not software
        bench.carry(client, server, payload(20_000), back=payload(20_000))
        server.shutdown(socket.SHUT_WR)  # we close first: TIME_WAIT is ours
        bench.expect_end(client)
        client.close()
        bench.expect_end(server)
        bench.until(lambda server=server: state(server) in (TCPS_TIME_WAIT, TCPS_CLOSED), "TIME_WAIT")


def test_nothing_but_a_four_tuple_remains_of_time_wait(bench):
    """60 s long, at hundreds of connections a second."""
    tcbinfo = bench.engine.stack.tcbinfo
    listener = bench.passive(80, software=True)
    peers = bench.listen(8000)
    for active in (False, True):
        if active:
            ours = bench.open(8000, software=True)
            theirs = bench.accept(peers)
        else:
            theirs = bench.connect(80)
            ours = bench.offloaded_accept(listener)
        inp, four_tuple = ours.so.so_pcb, ours.so.so_pcb.four_tuple
        ours.close()  # first: TIME_WAIT is ours
        bench.expect_end(theirs)
        theirs.close()
        bench.until(lambda inp=inp: inp.inp_socket is None, "the end of the socket")
        # Who has chosen a port must not choose it again.
        assert (tcbinfo.connected(four_tuple) is inp) is active
        assert bench.host.tcp.open == 1  # the listener
