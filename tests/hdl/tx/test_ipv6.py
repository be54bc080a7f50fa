"""Transmit path with IPv6: segments of both versions in turn, every byte against scapy."""

import pytest
from scapy.layers.inet import TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.hdl.tx.bench import IP6, TxBench, ip6_text
from tests.hdl.tx.test_path import CONDITIONS
from tests.widths import SOAK_128
from tiptoe_hdl.config import TINY
from tiptoe_hdl.messages import ACK, LADDR_V6, RST, SYN

WIDTHS = [64, SOAK_128, 256]
BOTH = TINY.with_(ipv6=True)
STAMPED = BOTH.with_(timestamps=True)


def only_v6(bench):
    for endpoint in bench.endpoints.values():
        endpoint.tuple["laddr"], endpoint.faddr6 = LADDR_V6, bench.rng.getrandbits(128)
    return bench


@pytest.mark.parametrize("cfg", [BOTH, STAMPED], ids=["plain", "stamped"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("conditions", CONDITIONS.values(), ids=list(CONDITIONS))
def test_mixed_sources_and_versions(width, conditions, cfg, rng):
    bench = TxBench(cfg.with_(data_width=width), rng, **conditions)
    bench.run(bench.mixed(24))


@pytest.mark.parametrize("cfg", [BOTH, STAMPED], ids=["plain", "stamped"])
@pytest.mark.parametrize("width", WIDTHS)
def test_payload_lengths_at_every_alignment(width, cfg, rng):
    """The longest ones fit over IPv4 only: such a segment is not sent, and counted."""
    bench = only_v6(TxBench(cfg.with_(data_width=width), rng))
    jobs = []
    for n, length in enumerate([*range(max(21, width // 8)), 1427, 1428, 1429, 1439, 1440, 1441, 1460]):
        jobs.append(bench.segment(length, id=3 * (n % 2), position=(0xFFFF_FFF0 + n) % (1 << 32)))
    assert {bench.is_bad(job) for job in jobs[-7:]} == {False, True}
    bench.run(jobs)


@pytest.mark.parametrize("width", WIDTHS)
def test_sack_blocks(width, rng):
    bench = only_v6(TxBench(STAMPED.with_(data_width=width), rng))
    bench.run([bench.segment(rng.choice([0, 1, 9]), sacks=sacks) for sacks in range(5) for _ in range(6)])


@pytest.mark.parametrize("flags", [1 << SYN, 1 << SYN | 1 << ACK, 1 << RST, 1 << ACK, 0, 0xFF])
def test_flags_and_options(flags, rng):
    bench = only_v6(TxBench(STAMPED, rng))
    bench.run([bench.segment(length, flags=flags) for length in (0, 1, 9)] + [bench.control(flags) for _ in range(12)])


def test_the_header_says_what_rfc_8200_asks_for(rng):
    """Not by way of the bench's reference: version, no flow label, the payload's length without the header, our address."""
    bench = only_v6(TxBench(BOTH, rng))
    (frame,) = bench.run([bench.segment(100, id=0)])
    packet = Ether(frame)
    assert packet.type == 0x86DD and len(frame) == 14 + 40 + 20 + 100
    header = packet[IPv6]
    assert (header.version, header.fl, header.plen, header.nh, header.src) == (6, 0, 120, 6, ip6_text(IP6))
    told = packet[TCP].chksum
    del packet[TCP].chksum
    assert Ether(bytes(packet))[TCP].chksum == told
