"""Parts of the transmit path alone: header tables, payload sum, outlet."""

import random

import pytest
from amaranth.hdl import Cat, Const, Module
from amaranth.sim import Simulator
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import checksum

from tests.widths import WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.tx.outlet import Outlet
from tiptoe_hdl.tx.payload_sum import PayloadSum
from tiptoe_hdl.wire.headers import ETHERNET, IPV4, byte_of, pack
from tiptoe_hdl.wire.headers import TCP as TCP_LAYOUT
from tiptoe_verif.streams import STREAM_CASES, recv_n, run_bench, watch_stream


def constant(octets) -> bytes:
    """The bytes of a header of constants."""
    value = Cat(octets)
    found = []

    async def bench(ctx):
        found.append(ctx.get(value))

    simulator = Simulator(Module())
    simulator.add_testbench(bench)
    simulator.run()
    return found[0].to_bytes(len(octets), "little")


def test_header_tables_agree_with_scapy():
    ethernet = pack(ETHERNET, {"destination": 0x010203040506, "source": 0x0708090A0B0C, "ethertype": 0x0800})
    assert constant(ethernet) == bytes(Ether(dst="01:02:03:04:05:06", src="07:08:09:0a:0b:0c", type=0x0800))
    ipv4 = pack(IPV4, {
        "version": 4, "ihl": 5, "tos": 0x12, "total_length": 0x1234, "identification": 0x5678, "reserved": 0,
        "dont_fragment": 1, "more_fragments": 0, "fragment_offset": 0x1ABC, "ttl": 63, "protocol": 6,
        "checksum": 0x9ABC, "source": 0x0A000001, "destination": 0xC0A80102,
    })  # fmt: skip
    assert constant(ipv4) == bytes(IP(
        tos=0x12, len=0x1234, id=0x5678, flags="DF", frag=0x1ABC, ttl=63, proto=6, chksum=0x9ABC,
        src="10.0.0.1", dst="192.168.1.2", ihl=5,
    ))  # fmt: skip
    tcp = pack(TCP_LAYOUT, {
        "source_port": 0x1234, "destination_port": 80, "seq": 0x89ABCDEF, "ack": 0x01234567, "data_offset": 7,
        "reserved": 0, "flags": 0x5A, "wnd": 0xFEDC, "checksum": 0xBA98, "urgent": 0x7654,
    })  # fmt: skip
    assert constant(tcp) == bytes(TCP(
        sport=0x1234, dport=80, seq=0x89ABCDEF, ack=0x01234567, dataofs=7, flags=0x5A, window=0xFEDC,
        chksum=0xBA98, urgptr=0x7654,
    ))  # fmt: skip


def test_header_needs_every_field():
    with pytest.raises(ValueError, match=r"fields missing or unknown: \['ethertype'\]"):
        pack(ETHERNET, {"destination": 0, "source": Const(0, 48)})
    assert byte_of(IPV4, "checksum") == 10
    with pytest.raises(ValueError, match="ihl does not begin at a byte"):
        byte_of(IPV4, "ihl")


@pytest.mark.parametrize("width", WIDTHS)
def test_payload_sum(width, rng):
    """Payloads back to back and apart; the sum comes ``latency`` cycles after the last word."""
    dut = PayloadSum(TINY.with_(data_width=width))
    step = width // 8
    payloads = [bytes(4095), b"\xff" * 4095, b"\x01", *(rng.randbytes(rng.randrange(1, 100)) for _ in range(30))]
    got, due = [], []

    async def feed(ctx):
        for payload in payloads:
            offset = 2 * rng.randrange(step // 2)
            whole = bytes(offset) + payload + bytes(-(offset + len(payload)) % step)
            for at in range(0, len(whole), step):
                while rng.random() < 0.2:
                    ctx.set(dut.valid, 0)
                    ctx.set(dut.data, rng.getrandbits(width))
                    ctx.set(dut.last, 1)
                    await ctx.tick()
                ctx.set(dut.valid, 1)
                ctx.set(dut.data, int.from_bytes(whole[at : at + step], "little"))
                ctx.set(dut.last, int(at + step >= len(whole)))
                await ctx.tick()
        ctx.set(dut.valid, 0)
        await ctx.tick().repeat(12)

    async def watch(ctx):
        cycle = 0
        async for _, _, valid, last, done, value in ctx.tick().sample(dut.valid, dut.last, dut.o_valid, dut.o_sum):
            if done:
                assert cycle == due.pop(0)
                got.append(value)
            if valid and last:
                due.append(cycle + dut.latency)
            cycle += 1

    run_bench(dut, feed, background=[watch])
    assert [~value & 0xFFFF for value in got] == [checksum(payload) for payload in payloads]


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_outlet_loses_nothing(idle, stall, rng):
    """The user's part: no more than ``depth`` entries inside."""
    dut = Outlet(16, 4)
    items = [rng.getrandbits(16) for _ in range(100)]
    inside = 0
    got = []

    async def feed(ctx):
        nonlocal inside
        for item in items:
            while inside >= 4 or rng.random() < idle:
                ctx.set(dut.i.valid, 0)
                ctx.set(dut.i.payload, rng.getrandbits(16))
                await ctx.tick()
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, item)
            inside += 1
            await ctx.tick()
        ctx.set(dut.i.valid, 0)

    async def watch(ctx):
        nonlocal inside
        async for _, _, valid, ready in ctx.tick().sample(dut.o.valid, dut.o.ready):
            inside -= valid and ready

    async def drain(ctx):
        got.extend(await recv_n(ctx, dut.o, len(items), stall=stall, rng=random.Random(rng.random())))

    run_bench(dut, feed, drain, background=[watch, watch_stream(dut.o)])
    assert got == items
