"""Neighbours whose address grows old or changes, on the scripted device (RFC 1122 section 2.3.2.1)."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import ARP, Ether

from tests.driver.bench import PEER_IP, PEER_MAC, Bench, Connection, arp_reply
from tiptoe_driver.netinet.routes import parse_ipv4, parse_mac
from tiptoe_driver.toe.next_hops import NextHops
from tiptoe_hdl.host.abi import Opcode

AGE_US, RETRY_US, TRIES, DOWN_US = 60_000_000, 1_000_000, 3, 20_000_000
PEER, OTHER_MAC = parse_ipv4(PEER_IP), "02:00:00:00:00:99"


def pass_us(bench: Bench, microseconds: int) -> None:
    bench.stack.sleep(lambda: False, microseconds)


def asked(bench: Bench) -> list[str]:
    """To whom requests for the peer's address went since the last call."""
    frames = [Ether(frame) for frame in bench.device.sent_frames()]
    bench.device.commands.clear()
    return [frame.dst for frame in frames if ARP in frame and frame[ARP].op == 1 and frame[ARP].pdst == PEER_IP]


def answers(bench: Bench, mac: str = PEER_MAC) -> None:
    bench.device.frame(arp_reply(mac=mac))
    bench.stack.poll()


def using(bench: Bench) -> Connection:
    conn = bench.connected()
    asked(bench)
    return conn


def test_neighbour_that_nobody_uses_is_forgotten(bench: Bench) -> None:
    bench.know_peer()
    pass_us(bench, AGE_US - 1)
    assert bench.dev.hostif.arp.lookup(PEER) == parse_mac(PEER_MAC)
    pass_us(bench, 1)
    assert bench.dev.hostif.arp.lookup(PEER) is None and asked(bench) == []


def test_neighbour_that_a_software_tcp_sends_to_is_in_use_too(bench: Bench) -> None:
    bench.know_peer()
    bench.dev.hostif.arp.resolve(PEER, lambda mac: None)
    pass_us(bench, AGE_US)
    assert asked(bench) == [PEER_MAC]
    answers(bench)
    pass_us(bench, AGE_US)
    assert bench.dev.hostif.arp.lookup(PEER) is None and asked(bench) == []


def test_neighbour_in_use_is_asked_itself_when_its_address_is_old(bench: Bench) -> None:
    using(bench)
    for n in range(3):
        pass_us(bench, AGE_US - (RETRY_US if n else 0))
        assert asked(bench) == [PEER_MAC]
        answers(bench)
        pass_us(bench, RETRY_US)
        assert asked(bench) == []


def test_then_everybody_is_asked_and_data_goes_on_meanwhile(bench: Bench) -> None:
    conn = using(bench)
    pass_us(bench, AGE_US)
    whom = asked(bench)
    for _ in range(2 * TRIES - 1):
        pass_us(bench, RETRY_US)
        whom += asked(bench)
    assert whom == [PEER_MAC] * TRIES + ["ff:ff:ff:ff:ff:ff"] * TRIES
    conn.sock.send(b"on its way")
    assert conn.doorbells("snd") == [10] and not bench.dev.hostif.arp.down(PEER)


def test_neighbour_that_has_vanished_loses_no_data_and_is_found_when_it_is_back(bench: Bench) -> None:
    conn = using(bench)
    conn.sock.send(b"kept")
    pass_us(bench, AGE_US + 2 * TRIES * RETRY_US)
    assert bench.dev.hostif.arp.down(PEER)
    asked(bench)
    pass_us(bench, 3 * DOWN_US)
    assert asked(bench) == ["ff:ff:ff:ff:ff:ff"] * 3 and not conn.so.so_error
    answers(bench, OTHER_MAC)
    [told] = bench.device.ops(Opcode.NEXT_HOP)
    assert told["dmac"] == parse_mac(OTHER_MAC) and not bench.dev.hostif.arp.down(PEER)
    assert conn.so.so_snd.sb_cc == 4


def test_asking_ends_with_the_connections(bench: Bench) -> None:
    conn = using(bench)
    pass_us(bench, AGE_US + RETRY_US)
    conn.end()
    asked(bench)
    pass_us(bench, 10 * DOWN_US)
    assert len(asked(bench)) <= 2 * TRIES and bench.dev.hostif.arp.lookup(PEER) is None
    assert bench.stack._time_left(None) is None


def test_repeated_time_outs_have_the_neighbour_asked_at_once(bench: Bench) -> None:
    conn = using(bench)
    conn.sock.send(bytes(100))
    pass_us(bench, NextHops.WATCH_US)
    conn.ack(50)  # it is there
    pass_us(bench, NextHops.WATCH_US)
    assert asked(bench) == []
    pass_us(bench, NextHops.WATCH_US)
    assert asked(bench) == [PEER_MAC]
    answers(bench)
    assert bench.dev.hostif.arp.lookup(PEER) == parse_mac(PEER_MAC)


def test_idle_connections_doubt_nobody(bench: Bench) -> None:
    using(bench)
    pass_us(bench, AGE_US - 1)
    assert asked(bench) == []


def test_unanswered_syn_is_a_time_out_too(bench: Bench) -> None:
    bench.opening()
    asked(bench)
    pass_us(bench, 2 * NextHops.WATCH_US)
    assert asked(bench) == [PEER_MAC]


def test_another_address_learned_while_nothing_was_known_reaches_the_engine(bench: Bench) -> None:
    """The engine's entry is older than the driver's."""
    conn = using(bench)
    conn.end()
    pass_us(bench, AGE_US)
    sock = bench.socket()
    sock.connect_ex((PEER_IP, 81))
    bench.device.commands.clear()
    answers(bench, OTHER_MAC)
    assert [c["dmac"] for c in bench.device.ops(Opcode.NEXT_HOP)] == [parse_mac(OTHER_MAC)]


@pytest.mark.parametrize("age", [0, 5_000_000])
def test_age_is_an_option(age: int) -> None:
    bench = Bench(arp_age_us=age)
    bench.know_peer()
    pass_us(bench, 100 * AGE_US) if age == 0 else pass_us(bench, age)
    assert (bench.dev.hostif.arp.lookup(PEER) is None) == bool(age)


def test_what_is_known_from_before_a_restart_grows_old_too(bench: Bench) -> None:
    bench.know_peer()
    bench.dev.stop()
    bench.device.time += AGE_US - 1000
    bench.dev.restart()
    using(bench)
    pass_us(bench, 1000)
    assert asked(bench) == [PEER_MAC]


def test_what_grew_old_while_the_device_stood_is_not_believed(bench: Bench) -> None:
    bench.know_peer()
    bench.dev.stop()
    bench.device.time += AGE_US
    bench.dev.restart()
    assert bench.dev.hostif.arp.lookup(PEER) is None
