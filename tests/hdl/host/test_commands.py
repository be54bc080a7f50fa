"""The command processor against models of the blocks it asks: every command, every refusal, a host that does not read."""

import pytest

from tests.hdl.host.command_bench import OPEN, TUPLE, WIDE, Bench, open_, ports, provision, release, run, tid
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.abi import Opcode as HdlOpcode
from tiptoe_hdl.host.command_check import MIN_MSS, max_mss
from tiptoe_hdl.messages import LADDR_V6, FlowOp, Status, TableOp
from tiptoe_verif.streams import stream_put


@WIDE
@pytest.mark.parametrize("stock", [0, 1])
def test_provision(width, stock):
    bench = run(provision(7, 3, 9, stock), bench=Bench(TINY.with_(data_width=width)))
    flow = bench.log[0]
    assert flow[0] == "flow" and flow[1]["op"] == FlowOp.PROVISION
    assert (flow[1]["id"], flow[1]["generation"], flow[1]["snd_log2"], flow[1]["rcv_log2"]) == (3, 9, 12, 16)
    assert sorted(bench.log[1:4]) == [
        ("clear", 3),
        ("rcv_ring", {"id": 3, "base": 0x20000, "log2": 16}),
        ("snd_ring", {"id": 3, "base": 0x4000, "log2": 12}),
    ]
    assert bench.log[4:] == ([("stock", 3)] if stock else [])
    assert bench.done == []


def test_provision_refused_by_the_pipeline_writes_nothing():
    bench = run(provision(7, 3), flow=[Status.BAD_STATE])
    assert ports(bench) == ["flow"]
    assert bench.done == [(7, HdlOpcode.PROVISION, Status.BAD_STATE, tid(3, 1))]


@WIDE
def test_open(width):
    bench = run(provision(1, 5), open_(2, 5, use_next_hop=1, next_hop=3), bench=Bench(TINY.with_(data_width=width)))
    assert ports(bench)[4:] == ["isn_request", "table", "endpoint", "flow"]
    isn, table, endpoint, flow = (payload for _, payload in bench.log[4:])
    assert isn == TUPLE
    assert table == {"op": TableOp.INSERT, "tuple": TUPLE, "is_syncache": 0, "index": 5}
    assert endpoint == {"id": 5, "endpoint": {"tuple": TUPLE, "dmac": OPEN["dmac"], "use_next_hop": 1, "next_hop": 3}}
    assert (flow["op"], flow["id"], flow["generation"], flow["a"], flow["mss"], flow["rcv_scale"]) == (
        FlowOp.OPEN,
        5,
        1,
        0xFFFFFFF0,
        1460,
        2,
    )
    assert bench.done == []


@pytest.mark.parametrize("width", [64, 128, 256])
def test_open_over_ipv6(width):
    """The peer's address goes to the endpoint alone; segments are 20 bytes shorter at most, of a listener too."""
    cfg = TINY.with_(data_width=width, ipv6=True)
    v6 = {"laddr": LADDR_V6, "faddr6_low": 0xFEDC_BA98_7654_3210, "faddr6_high": 0x2001_0DB8_0000_0001}
    listen = {"lport": 80, "rcv_scale": 0, "wnd": 1}
    bench = run(
        provision(1, 5), open_(2, 5, **v6, mss=1441), open_(3, 5, **v6, mss=1440), provision(4, 6), open_(5, 6, mss=1460),
        *(abi.pack_listen(6 + n, listener=n, laddr=laddr, mss=mss, **listen)
          for n, (laddr, mss) in enumerate([(LADDR_V6, 1441), (LADDR_V6, 1440), (0, 1460)])),
        bench=Bench(cfg),
    )  # fmt: skip
    endpoints = [payload["endpoint"] for port, payload in bench.log if port == "endpoint"]
    assert endpoints[0]["faddr6"] == v6["faddr6_high"] << 64 | v6["faddr6_low"]
    assert endpoints[0]["tuple"] == TUPLE | {"laddr": LADDR_V6} and endpoints[1]["tuple"] == TUPLE
    refused = [tag for tag, _, status, _ in bench.done if status == Status.BAD_ARGUMENT]
    assert refused == [2, 6] and len(endpoints) == 2


@pytest.mark.parametrize("status", [Status.EXISTS, Status.TABLE_FULL])
def test_open_without_a_place_in_the_table_can_be_repeated(status):
    bench = run(provision(1, 5), open_(2, 5), open_(3, 5), table=[status])
    assert bench.done == [(2, HdlOpcode.OPEN, status, tid(5, 1))]
    assert ports(bench)[4:] == ["isn_request", "table", "isn_request", "table", "endpoint", "flow"]


def test_open_refused_by_the_pipeline_leaves_the_table():
    bench = run(provision(1, 5), open_(2, 5), flow=[Status.OK, Status.BAD_STATE])
    operations = [(payload["op"], payload["index"]) for _, payload in bench.said("table")]
    assert operations == [(TableOp.INSERT, 5), (TableOp.DELETE, 5)]
    assert bench.done == [(2, HdlOpcode.OPEN, Status.BAD_STATE, tid(5, 1))]


@pytest.mark.parametrize("before, status", [
    ((), Status.BAD_STATE),                                           # never provisioned
    ((provision(1, 5, stock=1),), Status.BAD_STATE),                  # in the stock
    ((provision(1, 5), open_(1, 5)), Status.BAD_STATE),               # open
    ((provision(1, 5, generation=2),), Status.BAD_GENERATION),
    ((provision(1, 5), open_(1, 5), release(1, 5)), Status.BAD_STATE),
])  # fmt: skip
def test_open_of_a_wrong_id_changes_nothing(before, status):
    bench = run(*before)
    said = len(bench.log)
    bench = run(*before, open_(9, 5))
    assert len(bench.log) == said
    assert bench.done[-1] == (9, HdlOpcode.OPEN, status, tid(5, 1))


@pytest.mark.parametrize(
    "make, op, a",
    [
        (abi.pack_close(4, tid=tid(2, 3), snd_end=0xFFFF_FFFF), FlowOp.CLOSE, 0xFFFF_FFFF),
        (abi.pack_abort(4, tid=tid(2, 3)), FlowOp.ABORT, None),
        (abi.pack_path_mtu(4, tid=tid(2, 3), mss=536), FlowOp.PATH_MTU, None),
        (abi.pack_set_congestion(4, tid=tid(2, 3), algorithm=1), FlowOp.CONGESTION, 1),
        (abi.pack_keepalive(4, tid=tid(2, 3)), FlowOp.KEEPALIVE, None),
        (abi.pack_urgent(4, tid=tid(2, 3), snd_end=12345), FlowOp.URGENT, 12345),
        (abi.pack_set_cwnd(4, tid=tid(2, 3), cwnd=0xFFFFFF, ssthresh=7), FlowOp.CWND, 0xFFFFFF),
        (abi.pack_set_pacing(4, tid=tid(2, 3), interval=(1 << 30) - 1), FlowOp.PACING, (1 << 30) - 1),
    ],
)
@pytest.mark.parametrize("status", [Status.OK, Status.BAD_STATE, Status.BAD_GENERATION])
def test_close_abort_path_mtu_congestion_keepalive_urgent(make, op, a, status):
    bench = run(make, flow=[status], bench=Bench(TINY.with_(pacing=True)))
    ((port, flow),) = bench.log
    assert (port, flow["op"], flow["id"], flow["generation"]) == ("flow", op, 2, 3)
    assert a is None or flow["a"] == a
    assert op != FlowOp.PATH_MTU or flow["mss"] == 536
    assert [entry[2] for entry in bench.done] == ([] if status == Status.OK else [status])


@pytest.mark.parametrize("status", [Status.OK, Status.BAD_GENERATION])
def test_read_tcb_gives_the_page(status):
    bench = Bench()
    value = 0xFEDC_BA98_7654_3210

    async def main(ctx):
        ctx.set(bench.dut.tcb_page, value)
        bench.status = {"flow": [Status.OK, status, Status.BAD_STATE]}
        await bench.run(
            ctx,
            abi.pack_abort(3, tid=tid(2, 3)),
            abi.pack_read_tcb(4, tid=tid(2, 3), page=5),
            abi.pack_abort(5, tid=tid(2, 3)),
        )

    bench.simulate(main)
    flow = bench.log[1][1]
    assert (flow["op"], flow["id"], flow["generation"], flow["a"]) == (FlowOp.READ, 2, 3, 5)
    assert [(entry[0], entry[2]) for entry in bench.done] == [(4, status), (5, Status.BAD_STATE)], "always answered"
    assert bench.values == [value, 0], "other commands have no value"


def test_set_ip_header_of_the_right_generation_only():
    bench = run(
        provision(1, 5),
        *(abi.pack_set_ip_header(2 + generation, tid=tid(5, generation), ttl=7, tos=0xB8) for generation in (1, 2)),
    )
    assert bench.ip_headers == [(5, None), (5, (7, 0xB8))], "PROVISION takes the register's"
    assert bench.done == [(4, HdlOpcode.SET_IP_HEADER, Status.BAD_GENERATION, tid(5, 2))]


def test_release_of_the_wrong_tuple_changes_nothing():
    bench = run(provision(1, 5), open_(2, 5), release(3, 5, fport=1), table=[Status.OK, Status.BAD_STATE])
    assert ports(bench)[8:] == ["table"]
    assert bench.done == [(3, HdlOpcode.RELEASE, Status.BAD_STATE, tid(5, 1))]


def test_release_of_the_wrong_generation_changes_nothing():
    bench = run(provision(1, 5), open_(2, 5), release(3, 5, generation=2))
    assert ports(bench)[8:] == []
    assert bench.done == [(3, HdlOpcode.RELEASE, Status.BAD_GENERATION, tid(5, 2))]


def test_early_release_puts_the_connection_back():
    bench = run(provision(1, 5), open_(2, 5), release(3, 5), flow=[Status.OK, Status.OK, Status.BAD_STATE])
    assert [payload["op"] for _, payload in bench.said("table")] == [TableOp.INSERT, TableOp.DELETE, TableOp.INSERT]
    assert bench.done == [(3, HdlOpcode.RELEASE, Status.BAD_STATE, tid(5, 1))]


def test_early_release_that_cannot_be_undone_ends_the_connection():
    bench = run(
        provision(1, 5),
        open_(2, 5),
        release(3, 5),
        release(4, 5),
        flow=[Status.OK, Status.OK, Status.BAD_STATE],
        table=[Status.OK, Status.OK, Status.TABLE_FULL],
    )
    assert [payload["op"] for _, payload in bench.said("flow")] == [
        FlowOp.PROVISION,
        FlowOp.OPEN,
        FlowOp.RELEASE,
        FlowOp.ABORT,
        FlowOp.RELEASE,
    ]
    # The second release knows that the table has nothing of this id.
    assert len(bench.said("table")) == 3
    assert [(entry[0], entry[2]) for entry in bench.done] == [(3, Status.BAD_STATE), (4, Status.OK)]


def test_release_of_an_id_that_was_never_opened():
    bench = run(provision(1, 5), release(2, 5), provision(3, 5), open_(4, 5))
    assert len(bench.said("table")) == 1
    assert [(entry[0], entry[2]) for entry in bench.done] == [(2, Status.OK)]


@pytest.mark.parametrize("status", [Status.OK, Status.EXISTS])
def test_listen_and_unlisten(status):
    bench = run(
        abi.pack_listen(1, listener=3, laddr=0x0A000001, lport=80, mss=1460, rcv_scale=7, wnd=65535),
        abi.pack_unlisten(2, listener=3),
        listen=[status, Status.OK],
    )
    assert [payload["enable"] for _, payload in bench.log] == [1, 0]
    assert bench.log[0][1] == {
        "enable": 1,
        "listener": 3,
        "laddr": 0x0A000001,
        "lport": 80,
        "mss": 1460,
        "rcv_scale": 7,
        "wnd": 65535,
    }
    assert bench.log[1][1]["listener"] == 3
    assert bench.done == [(1, HdlOpcode.LISTEN, status, 3), (2, HdlOpcode.UNLISTEN, Status.OK, 3)]


def test_syncache_drop_and_next_hop():
    bench = run(
        abi.pack_syncache_drop(1, syncache_ref=0xABCD),
        abi.pack_next_hop(2, index=3, dmac=0x0200_5E00_5302),
        abi.pack_syncache_drop(3, syncache_ref=1),
        drop=[Status.OK, Status.BAD_ID],
    )
    assert bench.log == [("drop", 0xABCD), ("next_hop", {"index": 3, "mac": 0x0200_5E00_5302}), ("drop", 1)]
    assert bench.done == [
        (1, HdlOpcode.SYNCACHE_DROP, Status.OK, 0xABCD),
        (3, HdlOpcode.SYNCACHE_DROP, Status.BAD_ID, 1),
    ]


def test_frames_are_pipelined_and_answered_in_order():
    bench = Bench(delay=10)
    bench.frame_delay = 600  # so long that eight are under way
    bench.status = {"frame": [Status.OK] * 7 + [Status.DMA_ERROR]}
    commands = [abi.pack_send_frame(tag, addr=0x1000 + tag, length=60 + tag) for tag in range(20)]

    async def main(ctx):
        await bench.run(ctx, *commands)
        await ctx.tick().repeat(1500)

    bench.simulate(main)
    assert bench.log == [("frame", {"addr": 0x1000 + tag, "length": 60 + tag}) for tag in range(20)]
    assert bench.done == [
        (tag, HdlOpcode.SEND_FRAME, Status.DMA_ERROR if tag == 7 else Status.OK, 0) for tag in range(20)
    ]
    assert bench.bad_count == 1


def test_nothing_comes_of_a_nop():
    bench = run(*[abi.pack_nop(1)] * 3)
    assert bench.log == [] and bench.done == []


def raw(opcode, tag, *dwords):
    return b"".join(d.to_bytes(4, "little") for d in (opcode | tag << 16, *dwords)).ljust(64, b"\0")


LISTEN = dict(listener=0, laddr=0, lport=80, mss=1460, rcv_scale=0, wnd=1)
BAD = [
    *((raw(opcode, 1, 0), Status.UNKNOWN_OPCODE) for opcode in (19, 20, 48, 128, 255)),
    *(
        (raw(opcode, 1, word), Status.BAD_ID)
        for opcode in (1, 2, 3, 4, 5, 10, 12, 13, 14, 15, 16, 17)
        for word in (16, 0xFFFF, 1 << 24)
    ),
    *(
        (provision(1, 0, **{f"{ring}_log2": log2}), Status.BAD_ARGUMENT)
        for ring in ("snd", "rcv")
        for log2 in (0, 11, 25, 31)
    ),
    *(
        (provision(1, 0, **{f"{ring}_base": 1 << bit}), Status.BAD_ARGUMENT)
        for ring in ("snd", "rcv")
        for bit in (0, 5, 11, 40, 63)
    ),
    (provision(1, 0, rcv_log2=24, rcv_base=0x80_0000), Status.BAD_ARGUMENT),
    *(
        (open_(1, 0, **change), Status.BAD_ARGUMENT)
        for change in (
            {"mss": 0},
            {"mss": MIN_MSS - 1},
            {"mss": max_mss(TINY) + 1},
            {"mss": 65535},
            {"rcv_scale": 15},
            {"use_next_hop": 1, "next_hop": 4},
        )
    ),
    *(
        (abi.pack_listen(1, **{**LISTEN, **change}), Status.BAD_ARGUMENT)
        for change in ({"listener": 4}, {"listener": 1 << 31}, {"mss": 0}, {"mss": 9000}, {"rcv_scale": 15})
    ),
    *((abi.pack_unlisten(1, listener=listener), Status.BAD_ARGUMENT) for listener in (4, 65536)),
    (abi.pack_syncache_drop(1, syncache_ref=1 << 16), Status.BAD_ARGUMENT),
    *((abi.pack_next_hop(1, index=index, dmac=0), Status.BAD_ARGUMENT) for index in (4, 1 << 30)),
    *((abi.pack_path_mtu(1, tid=0, mss=mss), Status.BAD_ARGUMENT) for mss in (0, 47, 1461)),
    *((abi.pack_set_congestion(1, tid=0, algorithm=algorithm), Status.BAD_ARGUMENT) for algorithm in (2, 255)),
    (abi.pack_set_pacing(1, tid=0, interval=4096), Status.BAD_ARGUMENT),  # an engine without pacing
    *((abi.pack_send_frame(1, addr=0, length=length), Status.BAD_ARGUMENT) for length in (0, 13, 1515, 65535)),
    (abi.pack_send_frame(1, addr=1 << 32, length=60), Status.BAD_ARGUMENT),
]


def test_malformed_commands_are_refused_and_change_nothing():
    commands = [bytearray(command) for command, _ in BAD]
    for tag, command in enumerate(commands):
        command[2:4] = tag.to_bytes(2, "little")
    bench = run(*commands, bench=Bench(TINY.with_(addr_width=32)))
    assert bench.log == []
    for tag, ((command, status), done) in enumerate(zip(BAD, bench.done, strict=True)):
        assert done == (tag, command[0], status, int.from_bytes(command[4:8], "little")), command.hex()


def test_limits_are_still_good():
    good = [
        provision(0, 15, rcv_log2=24, rcv_base=3 << 24, snd_base=0xFFFF_F000),
        open_(1, 15, mss=max_mss(TINY)),
        provision(2, 0),
        open_(3, 0, mss=MIN_MSS, rcv_scale=14, use_next_hop=1, next_hop=3),
        abi.pack_send_frame(4, addr=0xFFFF_FFFF, length=1514),
        abi.pack_send_frame(5, addr=0, length=14),
    ]
    bench = run(*good, bench=Bench(TINY.with_(addr_width=32)))
    assert [entry[2] for entry in bench.done] == [Status.OK] * 2


# ---- aborts of the receive path, and a host that does not read


def test_dma_aborts_are_served_between_commands(rng):
    bench = Bench(delay=4)
    aborts = [rng.randrange(16) for _ in range(20)]

    async def placement(ctx):
        for id in aborts:
            await ctx.tick().repeat(1 + rng.randrange(40))
            await stream_put(ctx, bench.dut.abort, {"id": id})

    async def main(ctx):
        await bench.run(ctx, *[abi.pack_close(n, tid=n % 16, snd_end=n) for n in range(40)])

    bench.status = {"flow": [rng.choice([Status.OK, Status.BAD_STATE]) for _ in range(60)]}
    answers = list(bench.status["flow"])
    bench.simulate(main, placement)
    flow = [payload for _, payload in bench.said("flow")]
    assert [payload["id"] for payload in flow if payload["op"] == FlowOp.DMA_ABORT] == aborts
    assert [id for _, id in bench.said("broken")] == aborts
    assert [payload["a"] for payload in flow if payload["op"] == FlowOp.CLOSE] == list(range(40))
    # Only commands are answered.
    failed = [
        payload["a"]
        for payload, answer in zip(flow, answers, strict=True)
        if payload["op"] == FlowOp.CLOSE and answer != Status.OK
    ]
    assert [entry[0] for entry in bench.done] == failed


def test_a_host_that_reads_no_events_stops_its_commands_only():
    bench = Bench()
    bench.done_stall = 1.0
    frames = [abi.pack_send_frame(tag, addr=0, length=60) for tag in range(4)]

    async def main(ctx):
        bench.post(*frames, *[abi.pack_unlisten(4 + n, listener=0) for n in range(10)])
        await bench.ring(ctx)
        await ctx.tick().repeat(500)
        assert len(bench.said("listen")) < 10
        for id in range(16):  # the receive path goes on
            await stream_put(ctx, bench.dut.abort, {"id": id})
        await ctx.tick().repeat(20)
        assert len(bench.said("flow")) == 16
        bench.done_stall = 0.0
        await ctx.tick().repeat(600)
        assert sorted(entry[0] for entry in bench.done) == list(range(14))

    bench.simulate(main)


def test_random_commands_never_stop_the_processor(rng):
    """Garbage of every kind; at the end a good command is still carried out."""
    bench = Bench(seed=rng.random(), delay=2, latency=20)
    asked = ("flow", "table", "listen", "drop")
    bench.status = {port: [rng.choice(list(Status)) for _ in range(200)] for port in asked}

    def garbage():
        command = bytearray(rng.randbytes(64))
        if rng.random() < 0.9:
            command[0] = rng.randrange(13)
        if rng.random() < 0.8:
            command[4:8] = tid(rng.randrange(17), rng.randrange(2)).to_bytes(4, "little")
        return bytes(command)

    commands = [
        rng.choice(
            [garbage(), provision(1, rng.randrange(16)), open_(1, rng.randrange(16)), release(1, rng.randrange(16))]
        )
        for _ in range(100)
    ]

    async def main(ctx):
        await bench.run(ctx, *commands)
        bench.status = {}
        await bench.run(ctx, abi.pack_listen(0x1234, **LISTEN))
        assert bench.done[-1] == (0x1234, HdlOpcode.LISTEN, Status.OK, 0)

    bench.simulate(main, max_cycles=200_000)
    assert len(bench.done) > 20
