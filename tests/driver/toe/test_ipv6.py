"""IPv6 on the scripted device: addresses, neighbour discovery, ICMPv6, and what the engine is told. scapy judges the packets."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.driver.bench import OUR_MAC, PEER_MAC, Bench, Connection
from tests.driver.fake_device import FakeDevice
from tiptoe_driver import Socket
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_driver.hardware.abi_gen import Reason, State
from tiptoe_driver.hardware.alias import LADDR_V6, alias
from tiptoe_driver.hardware.toepcb import TP_STOCK
from tiptoe_driver.netinet.routes import parse_mac
from tiptoe_hdl.host.abi import EventType, Opcode
from tiptoe_hdl.rx.alias import alias as alias_of_the_engine

OURS, PEER, ROUTER, FAR = "2001:db8::1", "2001:db8::2", "2001:db8::fe", "2001:db8:ffff::9"
OTHER_MAC = "02:00:00:00:00:99"
OUR_GROUP = "ff02::1:ff00:1"
M = 0xFFFF_FFFF


def number(address: str) -> int:
    return int(IPv6Address(address))


def device(**options: Any) -> FakeDevice:
    """One that knows IPv6."""
    made = FakeDevice(**options)
    made.registers[reg.REG_LIMITS] |= reg.LIMITS_IPV6
    return made


@pytest.fixture
def both() -> Iterator[Bench]:
    yield Bench(device(), ipv6=f"{OURS}/64", ipv6_gateway=ROUTER)


def send(bench: Bench, packet: Packet) -> list[Ether]:
    """Give the driver a frame; what it sends back."""
    bench.device.forget()
    bench.device.frame(bytes(packet))
    bench.stack.poll()
    return sent(bench)


def sent(bench: Bench) -> list[Ether]:
    """IPv6 frames that the driver has sent; every checksum is right."""
    frames = [Ether(raw) for raw in bench.device.sent_frames()]
    for frame in (frame for frame in frames if IPv6 in frame):
        again = Ether(bytes(frame))
        layer = again[IPv6].payload
        told, layer.cksum = layer.cksum, None
        assert Ether(bytes(again))[IPv6].payload.cksum == told
    return [frame for frame in frames if IPv6 in frame]


def solicitation(target: str = OURS, source: str = PEER, mac: str | None = PEER_MAC, **ip: Any) -> Packet:
    header = {"src": source, "dst": OUR_GROUP, "hlim": 255} | ip
    packet = Ether(src=mac or PEER_MAC, dst="33:33:ff:00:00:01") / IPv6(**header) / ICMPv6ND_NS(tgt=target)
    return packet / ICMPv6NDOptSrcLLAddr(lladdr=mac) if mac else packet


def advertisement(target: str = PEER, mac: str | None = PEER_MAC, *, s: int = 1, o: int = 1, **ip: Any) -> Packet:
    header = {"src": target, "dst": OURS, "hlim": 255} | ip
    packet = Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(**header) / ICMPv6ND_NA(tgt=target, R=0, S=s, O=o)
    return packet / ICMPv6NDOptDstLLAddr(lladdr=mac) if mac else packet


def known(bench: Bench, address: str = PEER) -> int | None:
    return bench.dev.hostif.nd.lookup(number(address))


def socket_v6(bench: Bench) -> Socket:
    sock = Socket(bench.stack, family=socket.AF_INET6)
    sock.setblocking(False)
    return sock


def opening(bench: Bench, peer: str = PEER, port: int = 80) -> Connection:
    """An active open whose OPEN is on the device, unanswered."""
    send(bench, solicitation())
    bench.device.forget()
    sock = socket_v6(bench)
    assert sock.connect_ex((peer, port)) == errno.EINPROGRESS
    return Connection(bench, sock, bench.device.last(Opcode.OPEN)["tid"])


def connected(bench: Bench) -> Connection:
    conn = opening(bench)
    conn.report(established=1, state=State.ESTABLISHED, mss=1440)
    bench.device.forget()
    return conn


# ---------------------------------------------------------------------- the engine


@pytest.mark.parametrize("key", [0, 1, (1 << 96) - 1, 0x0123_4567_89AB_CDEF_8000_0001])
def test_the_driver_folds_as_the_engine_does(key: int) -> None:
    rng = random.Random(key)
    for address in [number(PEER), (1 << 128) - 1, *(rng.getrandbits(128) for _ in range(20))]:
        assert alias(address, key) == alias_of_the_engine(address, key)


def test_registers(both: Bench) -> None:
    words = [both.device.registers[reg.REG_IP6_ADDR + 4 * n] for n in range(4)]
    assert sum(word << 32 * n for n, word in enumerate(words)) == number(OURS)
    assert all(both.device.registers[reg.REG_ALIAS_KEY + 4 * n] for n in range(3))


def test_an_engine_without_ipv6_says_so() -> None:
    with pytest.raises(ValueError, match="built without IPv6"):
        Bench(ipv6=f"{OURS}/64")
    assert reg.REG_IP6_ADDR not in Bench().device.registers


@pytest.mark.parametrize("address", ["::1/64", "ff02::1/64", "fe80::1/64", "::/0", "::ffff:10.0.0.1/96", "10.0.0.1/24"])
def test_addresses_that_are_none_for_tcp(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Bench(device(), ipv6=address)


def test_gateway_without_an_address() -> None:
    with pytest.raises(ValueError, match="ipv6_gateway"):
        Bench(device(), ipv6_gateway=ROUTER)


# ---------------------------------------------------------------------- neighbour discovery


def test_solicitation_is_answered(both: Bench) -> None:
    [reply] = send(both, solicitation())
    assert (reply.dst, reply.src) == (PEER_MAC, OUR_MAC)
    assert (reply[IPv6].src, reply[IPv6].dst, reply[IPv6].hlim) == (OURS, PEER, 255)
    advert = reply[ICMPv6ND_NA]
    assert (advert.tgt, advert.R, advert.S, advert.O) == (OURS, 0, 1, 1)
    assert reply[ICMPv6NDOptDstLLAddr].lladdr == OUR_MAC
    assert known(both) == parse_mac(PEER_MAC)


def test_who_wants_our_address_hears_that_it_is_ours(both: Bench) -> None:
    """Duplicate address detection, RFC 4861 section 7.2.4."""
    [reply] = send(both, solicitation(source="::", mac=None))
    assert (reply.dst, reply[IPv6].dst, reply[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)


@pytest.mark.parametrize("packet", [
    solicitation(hlim=254), solicitation(source="::"), solicitation(source="::", mac=None, dst=OURS),
    solicitation(target="ff02::1"), solicitation(source="ff02::1"), solicitation(source="::1"),
    solicitation(source="::ffff:10.0.0.5"), advertisement(target="::10.0.0.5"),
    advertisement(hlim=64), advertisement(dst="ff02::1"),
    Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(src=PEER, dst=OURS, hlim=255) / ICMPv6ND_NS(tgt=OURS) / Raw(b"\1\0\0\0\0\0\0\0"),
    Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(src=PEER, dst=OURS, hlim=255) / ICMPv6ND_NS(tgt=OURS) / Raw(b"\1\2\0\0\0\0\0\0"),
    Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(src=PEER, dst=OURS, hlim=255) / ICMPv6ND_NS(tgt=OURS, cksum=1),
    Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(src=PEER, dst=OURS, hlim=255) / ICMPv6ND_NS(tgt=OURS, code=1),
], ids=["hops", "unspecified with address", "unspecified to us", "group", "from a group", "from loopback",
        "from an IPv4 address", "for an IPv4 address", "hops of answer", "solicited by group",
        "option of no length", "option cut off", "checksum", "code"])  # fmt: skip
def test_unsound_messages(both: Bench, packet: Packet) -> None:
    assert send(both, packet) == []
    assert known(both) is None and both.dev.counters["frames_bad_nd"] == 1


def test_neighbour_discovery_says_nothing_of_neighbours_of_ipv4(both: Bench) -> None:
    """RFC 4291 section 2.5.5: ::10.0.0.5 is no host. The next hop of connections over IPv4 keeps its MAC address."""
    conn = both.connected()
    four = conn.toep.next_hop
    both.device.forget()
    for mac in (PEER_MAC, OTHER_MAC):
        send(both, solicitation(source=str(IPv6Address(four)), mac=mac))
        assert both.device.ops(Opcode.NEXT_HOP) == []
    assert both.dev.counters["frames_bad_nd"] == 2


@pytest.mark.parametrize("packet", [
    solicitation(target="2001:db8::7"), solicitation(source=OURS, mac=OTHER_MAC), advertisement(),
    advertisement(target=OURS, mac=OTHER_MAC),
], ids=["for others", "our own address", "nobody asked", "claims our address"])  # fmt: skip
def test_not_learned(both: Bench, packet: Packet) -> None:
    assert send(both, packet) == []
    assert known(both) is None and known(both, OURS) is None and both.dev.counters["frames_bad_nd"] == 0


@pytest.mark.parametrize(("s", "o", "mac", "then"), [
    (1, 1, OTHER_MAC, OTHER_MAC), (0, 1, OTHER_MAC, OTHER_MAC), (1, 0, OTHER_MAC, PEER_MAC), (1, 0, None, PEER_MAC),
])  # fmt: skip
def test_another_address_counts_with_the_override_flag(both: Bench, s: int, o: int, mac: str | None, then: str) -> None:
    send(both, solicitation())
    send(both, advertisement(mac=mac, s=s, o=o))
    assert known(both) == parse_mac(then)


# ---------------------------------------------------------------------- connections


def test_connect_asks_for_the_neighbour_and_opens(both: Bench) -> None:
    sock = socket_v6(both)
    assert sock.connect_ex((PEER, 443, 0, 0)) == errno.EINPROGRESS
    [asked] = sent(both)
    assert (asked.dst, asked[IPv6].dst, asked[ICMPv6ND_NS].tgt) == ("33:33:ff:00:00:02", "ff02::1:ff00:2", PEER)
    assert asked[ICMPv6NDOptSrcLLAddr].lladdr == OUR_MAC and not both.device.ops(Opcode.OPEN)
    send(both, advertisement())
    told = both.device.last(Opcode.OPEN)
    key = sum(both.device.registers[reg.REG_ALIAS_KEY + 4 * n] << 32 * n for n in range(3))
    assert (told["laddr"], told["faddr"]) == (LADDR_V6, alias(number(PEER), key))
    assert told["faddr6_high"] << 64 | told["faddr6_low"] == number(PEER)
    assert (told["fport"], told["mss"]) == (443, 1440)
    assert both.device.last(Opcode.NEXT_HOP)["dmac"] == parse_mac(PEER_MAC)
    assert sock.getsockname()[0] == OURS


def test_beyond_the_subnet_the_router_is_asked(both: Bench) -> None:
    assert socket_v6(both).connect_ex((FAR, 80)) == errno.EINPROGRESS
    [asked] = sent(both)
    assert asked[ICMPv6ND_NS].tgt == ROUTER


def test_a_neighbour_that_does_not_answer(both: Bench) -> None:
    sock = socket_v6(both)
    assert sock.connect_ex((PEER, 80)) == errno.EINPROGRESS
    assert both.stack.sleep(lambda: sock.writable(), 10_000_000)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTDOWN
    assert socket_v6(both).connect_ex((PEER, 80)) == errno.EHOSTDOWN


@pytest.mark.parametrize(("host", "error"), [
    *((host, errno.EADDRNOTAVAIL) for host in ("ff02::1", "::", "::1", "::10.0.0.2", "fe80::2", "::ffff:10.0.0.2")),
    (OURS, errno.EINVAL),
])  # fmt: skip
def test_nobody_to_connect_to(both: Bench, host: str, error: int) -> None:
    assert socket_v6(both).connect_ex((host, 80)) == error
    assert not both.device.ops(Opcode.OPEN)


@pytest.mark.parametrize("host", ["::1", "::10.0.0.1", "2001:db8::2", "fe80::1"])
def test_addresses_to_bind_are_our_own(both: Bench, host: str) -> None:
    """Not the one of IPv4 in IPv6's form either."""
    with pytest.raises(OSError, match="assign"):
        socket_v6(both).bind((host, 80))


def test_release_names_what_the_engine_knows(both: Bench) -> None:
    conn = connected(both)
    conn.sock.close()
    conn.end(Reason.NORMAL, peer_closed=1)
    told = both.device.last(Opcode.RELEASE)
    assert told["laddr"] == LADDR_V6 and told["faddr"] == both.dev.engine.alias(number(PEER))


def test_passive_open(both: Bench) -> None:
    listener = socket_v6(both)
    listener.bind(("", 80))
    listener.listen()
    told = both.device.last(Opcode.LISTEN)
    assert (told["laddr"], told["mss"]) == (LADDR_V6, 1440)
    fold = both.dev.engine.alias(number(PEER))
    peer = number(PEER)
    both.device.event(EventType.SYN_ADDRESS, syncache_ref=3, faddr6_low=peer & (1 << 64) - 1, faddr6_high=peer >> 64)
    both.device.event(
        EventType.SYN_RECEIVED, syncache_ref=3, listener=told["listener"], laddr=LADDR_V6, faddr=fold, lport=80, fport=5000,
        iss=M, irs=M, mss=1440,
    )  # fmt: skip
    both.stack.poll()
    both.handshake_done(3)
    server, name = listener.accept()
    assert name == (PEER, 5000, 0, 0) and server.getsockname() == (OURS, 80, 0, 0)
    assert server.family == socket.AF_INET6


def test_a_listener_of_ipv4_takes_nothing_of_ipv6(both: Bench) -> None:
    """The answer to UNLISTEN has overtaken a SYN, and its place and port are another's by now."""
    both.listening()
    both.device.event(EventType.SYN_ADDRESS, syncache_ref=3, faddr6_low=2, faddr6_high=number(PEER) >> 64)
    both.device.event(
        EventType.SYN_RECEIVED, syncache_ref=3, listener=0, laddr=LADDR_V6, faddr=7, lport=80, fport=5000, mss=1440
    )
    both.stack.poll()
    assert both.device.last(Opcode.SYNCACHE_DROP)["syncache_ref"] == 3


@pytest.mark.parametrize("peer", ["::10.0.0.5", "::ffff:10.0.0.5", "::1", "::", "ff02::1"])
def test_a_peer_that_is_no_host_of_ipv6_is_not_accepted(both: Bench, peer: str) -> None:
    """RFC 4291 sections 2.5.5 and 2.7; above all not under the name of a host of IPv4."""
    listener = socket_v6(both)
    listener.bind(("", 80))
    listener.listen()
    told, address = both.device.last(Opcode.LISTEN), number(peer)
    both.device.event(
        EventType.SYN_ADDRESS, syncache_ref=3, faddr6_low=address & (1 << 64) - 1, faddr6_high=address >> 64
    )
    both.device.event(
        EventType.SYN_RECEIVED, syncache_ref=3, listener=told["listener"], laddr=LADDR_V6, faddr=7, lport=80, fport=5000,
        mss=1440,
    )  # fmt: skip
    both.stack.poll()
    assert both.device.last(Opcode.SYNCACHE_DROP)["syncache_ref"] == 3
    assert both.dev.counters["bad_foreign_addresses"] == 1


def test_both_versions_share_a_port(both: Bench) -> None:
    for sock in (both.socket(), socket_v6(both)):
        sock.bind(("", 80))
        sock.listen()
    assert {told["laddr"] for told in both.device.ops(Opcode.LISTEN)} == {0, LADDR_V6}
    with pytest.raises(OSError, match="in use"):
        socket_v6(both).bind(("", 80))


def test_socket_options(both: Bench) -> None:
    sock = socket_v6(both)
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x2F)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 7)
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 0x2C
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 7
    for option in (socket.IP_TOS, socket.IP_TTL):
        with pytest.raises(OSError, match="not available"):
            sock.setsockopt(socket.IPPROTO_IP, option, 1)
    with pytest.raises(OSError, match="not available"):
        both.socket().setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    with pytest.raises(socket.gaierror):
        sock.bind(("10.0.0.1", 80))
    with pytest.raises(socket.gaierror):
        sock.connect(("fe80::2%eth0", 80))


# ---------------------------------------------------------------------- ICMPv6


@pytest.mark.parametrize("length", [0, 1, 1452])
def test_echo_is_answered(both: Bench, length: int, rng: random.Random) -> None:
    data = rng.randbytes(length)
    request = IPv6(src=FAR, dst=OURS) / ICMPv6EchoRequest(id=7, seq=9, data=data)
    [reply] = send(both, Ether(src=OTHER_MAC, dst=OUR_MAC) / request)
    assert (reply.dst, reply[IPv6].src, reply[IPv6].dst) == (OTHER_MAC, OURS, FAR)
    echo = reply[ICMPv6EchoReply]
    assert (echo.id, echo.seq, bytes(echo.data)) == (7, 9, data)


def test_echo_with_a_wrong_checksum(both: Bench) -> None:
    packet = Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(src=PEER, dst=OURS) / ICMPv6EchoRequest(cksum=1)
    assert send(both, packet) == [] and both.dev.counters["frames_bad_icmp"] == 1


def test_what_is_not_ours_is_left_to_other_stacks(both: Bench) -> None:
    taken: list[bytes] = []
    both.dev.hostif.input_hook = lambda frame: taken.append(frame) or True
    ether = Ether(src=PEER_MAC, dst=OUR_MAC)
    packets = [
        ether / IPv6(src=PEER, dst="2001:db8::7") / ICMPv6EchoRequest(),
        ether / IPv6(src=PEER, dst=OURS) / IPv6ExtHdrDestOpt() / TCP(),
        ether / IPv6(src=PEER, dst=OURS, nh=59),
    ]
    for packet in packets:
        assert send(both, packet) == []
    assert taken == [bytes(packet) for packet in packets]


def quoted(conn: Connection, seq: int) -> Packet:
    """The segment of ours that a router complains of."""
    _, lport, _, fport = conn.tp.t_inpcb.four_tuple
    return IPv6(src=OURS, dst=PEER, plen=1460) / TCP(sport=lport, dport=fport, seq=seq & M, flags="A")


def complain(bench: Bench, message: Packet, inner: Packet) -> None:
    send(bench, Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(src=ROUTER, dst=OURS) / message / Raw(bytes(inner)[:48]))


REFUSED = [ICMPv6DestUnreach(code=code) for code in (1, 4)]
SOFT = [ICMPv6DestUnreach(code=code) for code in (0, 2, 3, 5, 6)] + [ICMPv6TimeExceeded(), ICMPv6ParamProblem(code=1)]


@pytest.mark.parametrize("message", REFUSED, ids=lambda message: str(message.code))
def test_an_attempt_is_refused(both: Bench, message: Packet) -> None:
    conn = opening(both)
    both.device.tcb = {"state": State.SYN_SENT, "snd_una": 12345}
    complain(both, message, quoted(conn, 12345))
    both.stack.poll()
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


@pytest.mark.parametrize("message", REFUSED + SOFT, ids=lambda message: f"{message.type}-{message.code}")
def test_a_connection_lives_on(both: Bench, message: Packet) -> None:
    conn = connected(both)
    conn.sock.send(bytes(3000))
    complain(both, message, quoted(conn, conn.tp.snd_una))
    assert conn.tp.t_state.name == "ESTABLISHED" and both.dev.counters["icmp_errors"] == 1
    complain(both, message, quoted(conn, conn.tp.snd_una - 1))
    assert both.dev.counters["icmp_bad_sequence"] == 1


@pytest.mark.parametrize(
    ("mtu", "mss"), [(1500, None), (1499, 1439), (1280, 1220), (1279, None), (68, None), (0, None)]
)
def test_packet_too_big(both: Bench, mtu: int, mss: int | None) -> None:
    """RFC 8201 section 4: never less than 1280 bytes."""
    conn = connected(both)
    conn.sock.send(bytes(3000))
    complain(both, ICMPv6PacketTooBig(mtu=mtu), quoted(conn, conn.tp.snd_una))
    assert [told["mss"] for told in conn.commands(Opcode.PATH_MTU)] == ([mss] if mss else [])


# ---------------------------------------------------------------------- segments of nobody


@pytest.mark.parametrize(("flags", "seq", "ack", "answer"), [("A", 5, M, ("R", M, 0)), ("S", M, 0, ("RA", 0, 0))])
def test_unknown_segment_is_reset(flags: str, seq: int, ack: int, answer: tuple[str, int, int]) -> None:
    both = Bench(device(), ipv6=f"{OURS}/64", rst_unknown=False)
    packet = (
        Ether(src=PEER_MAC, dst=OUR_MAC)
        / IPv6(src=PEER, dst=OURS)
        / TCP(sport=7, dport=8, flags=flags, seq=seq, ack=ack)
    )
    both.device.forget()
    both.device.frame(bytes(packet))
    both.stack.poll()
    [reset] = [Ether(raw) for raw in both.device.sent_frames()]
    assert (reset.dst, reset[IPv6].src, reset[IPv6].dst) == (PEER_MAC, OURS, PEER)
    tcp = reset[TCP]
    assert (str(tcp.flags), tcp.seq, tcp.ack, tcp.sport, tcp.dport) == (*answer, 8, 7)
    told = tcp.chksum
    del tcp.chksum
    assert Ether(bytes(reset))[TCP].chksum == told


def test_stock_ids_are_for_both_versions(both: Bench) -> None:
    listener = socket_v6(both)
    listener.bind((OURS, 80))
    listener.listen()
    assert any(toep is not None and toep.flags & TP_STOCK for toep in both.dev.engine.ids.toepcbs)
