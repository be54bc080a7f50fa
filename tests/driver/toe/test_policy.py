"""Offload policy: an ordered list of rules decides what a device takes (contract: EPERM, "policy refuses")."""

from __future__ import annotations

import errno
from ipaddress import IPv6Address

import pytest

from tests.driver.bench import OUR_IP, PEER_IP, Bench
from tiptoe_driver import OffloadPolicy, Opening, PolicyRule
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_hdl.host.abi import Opcode

CONNECT, LISTEN = Opening.CONNECT, Opening.LISTEN
HERE, THERE = (parse_ipv4(ip) for ip in (OUR_IP, PEER_IP))


def no(**fields: object) -> PolicyRule:
    return PolicyRule(offload=False, **fields)


def yes(**fields: object) -> PolicyRule:
    return PolicyRule(offload=True, **fields)


@pytest.mark.parametrize(
    ("rules", "connect", "listen"),
    [
        ([], True, True),
        ([no()], False, False),
        ([no(opening=CONNECT)], False, True),
        ([no(opening=LISTEN)], True, False),
        ([no(foreign="10.0.0.0/24")], False, True),  # a listener has no foreign side
        ([no(foreign="10.0.0.2")], False, True),
        ([no(foreign="10.0.0.3")], True, True),
        ([no(foreign="10.0.0.0/30")], False, True),
        ([no(foreign="10.0.0.4/30")], True, True),
        ([no(fport=443)], False, True),
        ([no(fport=444)], True, True),
        ([no(lport=5000)], False, True),
        ([no(lport=80)], True, False),
        ([no(local="10.0.0.1")], False, False),
        ([no(local="10.0.1.0/24")], True, True),
        ([no(local="10.0.0.0/8", fport=443, foreign="10.0.0.2", lport=5000)], False, True),
        ([no(local="10.0.0.0/8", fport=443, foreign="10.0.0.9", lport=5000)], True, True),
        ([yes(fport=443), no()], True, False),  # the first that matches decides
        ([no(), yes(fport=443)], False, False),
        ([no(fport=1), no(foreign="0.0.0.0/0", opening=CONNECT)], False, True),
    ],
)
def test_first_rule_that_matches_decides(rules: list[PolicyRule], connect: bool, listen: bool) -> None:
    policy = OffloadPolicy(rules)
    assert policy.offloads(CONNECT, (HERE, 5000, THERE, 443)) == connect
    assert policy.offloads(LISTEN, (HERE, 80, 0, 0)) == listen


@pytest.mark.parametrize(
    ("rule", "connect", "listen"),
    [
        (no(), False, False),
        (no(opening=CONNECT), False, True),
        (no(fport=443), False, True),
        (no(lport=80), True, False),
        (no(local="0.0.0.0/0"), True, True),  # IPv4's addresses, all of them
        (no(foreign="0.0.0.0/0", fport=443), True, True),
    ],
)
def test_a_rule_without_addresses_is_ipv6s_too(rule: PolicyRule, connect: bool, listen: bool) -> None:
    policy = OffloadPolicy([rule])
    here, there = (int(IPv6Address(address)) for address in ("2001:db8::1", "2001:db8::2"))
    assert policy.offloads(CONNECT, (here, 5000, there, 443)) == connect
    assert policy.offloads(LISTEN, (here, 80, 0, 0)) == listen


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"foreign": "10.0.0.1/24"}, "beyond its prefix"),
        ({"local": "10.0.0.0/33"}, "prefix length"),
        ({"local": "somewhere"}, "somewhere"),
        ({"lport": 65536}, "port must be"),
        ({"fport": -1}, "port must be"),
        ({"opening": LISTEN, "foreign": "10.0.0.0/8"}, "no foreign side"),
        ({"opening": LISTEN, "fport": 80}, "no foreign side"),
    ],
)
def test_impossible_rules_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        no(**fields)


@pytest.mark.parametrize("address", ["", OUR_IP])
def test_eperm_policy_keeps_a_listener_in_the_software_stack(bench: Bench, address: str) -> None:
    bench.dev.policy = OffloadPolicy([no(local=OUR_IP, lport=80)])
    bench.device.forget()
    refused = bench.socket()
    refused.bind((address, 80))
    refused.listen()
    assert bench.device.accesses == 0 and bench.dev.counters["policy_refused"] == 1
    bench.listening(81)
    assert [c["lport"] for c in bench.device.ops(Opcode.LISTEN)] == [81]
    refused.close()
    assert not bench.device.ops(Opcode.UNLISTEN)


def test_eperm_policy_concerns_what_begins_later(bench: Bench) -> None:
    conn = bench.connected()
    listener = bench.listening(81)
    bench.dev.policy = OffloadPolicy([no()])
    conn.sock.send(b"x")
    assert conn.doorbells("snd") == [1]
    assert bench.socket().connect_ex((PEER_IP, 82)) == errno.EPERM
    listener.close()
    assert bench.device.ops(Opcode.UNLISTEN)
