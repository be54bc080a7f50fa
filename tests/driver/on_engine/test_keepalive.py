"""Keep-alive on two engines: probes on the wire, their answers, and a peer that is no longer there (RFC 9293 section 3.8.4)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from tests.driver.on_engine.bench import RINGS, connect, nothing_left, pair, tp_of
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.wire.pcap import read_pcap
from tiptoe_verif.wire.segment import FIN, RST, SYN, Segment, ip_number, parse_tcp

SECOND = 1_000_000
CLIENT, SERVER = "10.0.0.1", "10.0.0.2"


@pytest.fixture
def two(out_dir) -> Iterator[Pair]:
    with pair(pcap=out_dir / "wire.pcap") as made:
        yield made
        made.check()


def keepalive(sock: Socket, idle: int, intvl: int, cnt: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, idle), (socket.TCP_KEEPINTVL, intvl), (socket.TCP_KEEPCNT, cnt)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def segments(two: Pair) -> list[Segment]:
    two.a.capture.pcap.flush()
    found = [parse_tcp(frame) for _, frame in read_pcap(two.a.pcap)]
    return [segment for segment in found if segment is not None and not segment.flags & (SYN | FIN)]


def probes_of(two: Pair, ip: str, una: int) -> list[Segment]:
    return [s for s in segments(two) if s.src == ip_number(ip) and s.seq == (una - 1) & 0xFFFF_FFFF]


def test_a_peer_that_lives_is_asked_and_answers(two: Pair) -> None:
    client, server, _ = connect(two)
    una = tp_of(client).snd_una
    keepalive(client, 1, 1, 1)
    two.run_us(3.5 * SECOND)
    probes = probes_of(two, CLIENT, una)
    assert len(probes) == 3 and all(not s.payload and not s.flags & RST for s in probes)
    answers = [s for s in segments(two) if s.src == ip_number(SERVER)]
    assert len(answers) == 3 and {(s.ack, s.payload) for s in answers} == {(una, b"")}
    assert client.info().tcpi_probes == 0
    client.send(b"still here")
    two.run_until(server.readable, SECOND, "the data")
    assert server.recv(100) == b"still here"


def test_a_peer_that_has_vanished_ends_the_connection(two: Pair) -> None:
    client, server, listener = connect(two)
    una = tp_of(client).snd_una
    keepalive(client, 1, 1, 2)
    two.run_us(0.5 * SECOND)
    two.b.write32(reg.REG_CONTROL, 0)  # it hears nothing, and says nothing
    two.run_until(client.readable, 4 * SECOND, "the end")
    assert len(probes_of(two, CLIENT, una)) == 2
    with pytest.raises(TimeoutError) as error:
        client.recv(1)
    assert error.value.errno == errno.ETIMEDOUT
    client.close()
    two.run_until(lambda: nothing_left(two.a.toe), SECOND, "the id")
    assert segments(two)[-1].flags & RST and segments(two)[-1].src == ip_number(CLIENT)


def test_a_peer_that_has_forgotten_the_connection_resets_it(two: Pair) -> None:
    """Gone and back: a probe is what finds it out, on a connection that would wait for ever."""
    client, server, _ = connect(two)
    una = tp_of(client).snd_una
    keepalive(client, 1, 1, 9)
    two.b.toe.reset()
    two.run_us(0.9 * SECOND)
    assert not client.readable()
    two.run_until(client.readable, 2 * SECOND, "the reset")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert len(probes_of(two, CLIENT, una)) == 1


def test_both_ends_ask(two: Pair) -> None:
    client, server, _ = connect(two)
    una, theirs = tp_of(client).snd_una, tp_of(server).snd_una
    keepalive(client, 1, 1, 3)
    keepalive(server, 1, 1, 3)
    two.run_us(4.2 * SECOND)
    assert len(probes_of(two, CLIENT, una)) + len(probes_of(two, SERVER, theirs)) in range(4, 9)
    assert len(segments(two)) < 20, "no answer is answered"
    for sock in (client, server):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


@pytest.mark.parametrize("case", ["window closed, all acknowledged", "FIN_WAIT_2"])
def test_probes_are_answered_though_the_peer_has_no_token_for_challenge_acks(out_dir, case: str) -> None:
    """RFC 5961 section 7 limits what answers strangers; an answer to a probe that is left out would end the connection."""
    registers = {reg.REG_MSL_TICKS: 3, reg.REG_CHALLENGE_LIMIT: 0, reg.REG_INVALID_LIMIT: 60000}
    with pair(pcap=out_dir / "wire.pcap", driver={**RINGS, "registers": registers}) as two:
        client, server, _ = connect(two)
        if case == "window closed, all acknowledged":
            assert client.send(bytes(4096)) == 4096
            two.run_until(lambda: tp_of(client).snd_una == tp_of(client).iss + 4097 & 0xFFFF_FFFF, SECOND, "the ACK")
            two.run_us(100_000)
            assert segments(two)[-1].wnd == 0, "the server does not read"
        else:
            client.shutdown(socket.SHUT_WR)
            two.run_until(server.readable, SECOND, "the FIN")
            two.run_us(100_000)
        una = tp_of(client).snd_una + (case == "FIN_WAIT_2")  # the driver's does not count the FIN
        keepalive(client, 1, 1, 1)
        two.run_us(2.3 * SECOND)
        assert len(probes_of(two, CLIENT, una)) >= 2
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and client.info().tcpi_probes == 0
        two.check()
