"""A bench of the receive side's control: dispatcher, connection table, listen unit and number generator together.

The peer's segments go in as ``rx_meta``; what comes out is collected and asked for one by one. The flow pipeline, the transmit
path and the host are the bench.
"""

from __future__ import annotations

import random
from collections import deque

from amaranth.hdl import Fragment, Module, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from tests.hdl.listen.siphash_model import initial_sequence
from tests.hdl.table_model import four_tuple
from tiptoe_hdl.flow.connection_table import ConnectionTable
from tiptoe_hdl.listen.cookies import SynCookies
from tiptoe_hdl.listen.isn import IsnGenerator
from tiptoe_hdl.listen.listen_unit import ListenUnit
from tiptoe_hdl.listen.syncache import EntryState
from tiptoe_hdl.messages import (
    ACK,
    CWR,
    ECE,
    FIN,
    RST,
    SYN,
    FlowResponse,
    FourTuple,
    Status,
    SynEvent,
    TableOp,
    TxControl,
    endpoint_write,
    flow_request,
    frame_info,
    listen_write,
    rx_meta,
    rx_segment,
    table_update,
)
from tiptoe_hdl.rx.dispatcher import Dispatcher
from tiptoe_verif.streams import run_bench, stream_get, stream_put, to_py

M32 = 0xFFFFFFFF
S, A, R, F = 1 << SYN, 1 << ACK, 1 << RST, 1 << FIN
E, EC = 1 << ECE, 1 << ECE | 1 << CWR
LOCAL, PEER = 0xC0A80002, 0xC0A80001
COUNTERS = (
    "syn_received",
    "syn_dropped_full",
    "syncache_expired",
    "syncache_bad_ack",
    "accepted",
    "challenge_acks",
    "challenge_suppressed",
    "rx_unknown_segment",
    "syn_queue_full",
    "rst_suppressed",
    "syn_cookies",
)

SEGMENT = {
    "to_host": 0,
    "frame_length": 60,
    "payload_offset": 56,
    "payload_length": 0,
    "tuple": four_tuple(LOCAL, PEER, 80, 40000),
    "smac": 0x0200_0000_0001,
    "seq": 0,
    "ack": 0,
    "flags": A,
    "wnd": 8192,
    "mss": 0,
    "ws_present": 0,
    "ws": 0,
    "sack_ok": 0,
    "sacks": 0,
    "urgent": 0,
    "ecn": 0,
    "ts_present": 0,
    "tsval": 0,
    "tsecr": 0,
}
LISTENER = {"enable": 1, "listener": 0, "laddr": 0, "lport": 80, "mss": 1460, "rcv_scale": 7, "wnd": 60000}


def peer_tuple(number: int, lport: int = 80) -> dict[str, int]:
    """The four-tuple of peer ``number``."""
    return four_tuple(LOCAL, PEER + number // 1000, lport, 40000 + number % 1000)


def seg(**overrides):
    """A segment of the template with some fields changed; ``number`` chooses the peer, unless ``tuple`` is given."""
    if (number := overrides.pop("number", None)) is not None:
        overrides.setdefault("tuple", peer_tuple(number))
    return SEGMENT | {name: value & M32 if name in ("seq", "ack") else value for name, value in overrides.items()}


class FrontEnd(wiring.Component):
    """The four blocks, connected as in the engine."""

    def __init__(self, cfg):
        self.cfg = cfg
        status = Out(stream.Signature(FlowResponse))
        super().__init__({
            "meta": In(stream.Signature(rx_meta(cfg))),
            "segment": Out(stream.Signature(rx_segment(cfg))), "info": Out(stream.Signature(frame_info(cfg))),
            "reset": Out(stream.Signature(TxControl)), "control": Out(stream.Signature(TxControl)),
            "cookie": Out(stream.Signature(TxControl)), "syn_cookies": In(1), "tick_time": In(32),
            "update": In(stream.Signature(table_update(cfg))), "update_status": status,
            "listen": In(stream.Signature(listen_write(cfg))), "listen_status": status,
            "drop": In(stream.Signature(16)), "drop_status": status,
            "stock": In(stream.Signature(cfg.id_bits)),
            "flow": Out(stream.Signature(flow_request(cfg))), "flow_status": In(stream.Signature(FlowResponse)),
            "endpoint": Out(stream.Signature(endpoint_write(cfg))),
            "event": Out(stream.Signature(SynEvent)),
            "isn_request": In(stream.Signature(FourTuple)), "iss": Out(stream.Signature(32)),
            "tick": In(1), "syn_retries": In(8, init=5), "rst_unknown": In(1, init=1),
            "syn_to_host": In(1), "sack": In(1, init=1), "ecn": In(1, init=1), "timestamps": In(1, init=1),
            "may_reset": In(1, init=1), "may_challenge": In(1, init=1), "control_room": In(1, init=1),
            "hash_key": In(64), "isn_key": In(128), "isn_clock": In(32),
            **{f"count_{name}": Out(2) for name in COUNTERS},
            # What the unit is held to: it rests, ids in stock, SYNs on their way, ids promised to nobody, states of entries.
            "idle": Out(1), "ids_left": Out(range(cfg.connections + 1)), "syn_waits": Out(1),
            "spare": Out(signed(cfg.id_bits + 2)), "states": Out(data.ArrayLayout(EntryState, cfg.syncache_entries)),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.dispatcher = dispatcher = Dispatcher(self.cfg)
        m.submodules.table = table = ConnectionTable(self.cfg)
        listen = ListenUnit(self.cfg)
        m.submodules.listen = Fragment.get(listen, platform)  # now: the bench looks inside
        m.d.comb += [
            self.idle.eq(listen.states.at("Idle")), self.ids_left.eq(listen.ids.level),
            self.syn_waits.eq(listen.syns.o.valid | dispatcher.syn.valid), self.spare.eq(listen.reservations.spare),
        ]  # fmt: skip
        written, index, state = Signal(), Signal.like(listen.cache.index), Signal(EntryState)  # when the memory is
        m.d.sync += [
            written.eq(listen.cache.write_status), index.eq(listen.cache.index), state.eq(listen.cache.status_data.state)
        ]  # fmt: skip
        with m.If(written):
            m.d.sync += self.states[index].eq(state)
        m.submodules.isn = isn = IsnGenerator(self.cfg)
        connect(m, dispatcher.lookup, table.lookup)
        connect(m, table.result, dispatcher.result)
        connect(m, dispatcher.find, listen.find)
        connect(m, listen.found, dispatcher.found)
        m.submodules.cookies = cookies = SynCookies(self.cfg)
        connect(m, dispatcher.syn, listen.syn)
        connect(m, dispatcher.unserved, cookies.i)
        connect(m, dispatcher.cookie, cookies.ask)
        connect(m, cookies.control, flipped(self.cookie))
        m.d.comb += [
            cookies.key.eq(self.isn_key[:64]), cookies.room.eq(self.control_room), cookies.tick_time.eq(self.tick_time),
            listen.cookie_index.eq(cookies.index), cookies.entry.eq(listen.cookie_entry),
            cookies.changing.eq(listen.changing),
            *(getattr(cookies.offers, name).eq(getattr(self, name)) for name in ("sack", "ecn", "timestamps")),
            dispatcher.cookies_recent.eq(cookies.recent),
            dispatcher.cookies_current.eq(cookies.current), dispatcher.cookies_before.eq(cookies.before),
            dispatcher.cookie_answered.eq(cookies.answered), dispatcher.cookie_good.eq(cookies.good),
            dispatcher.room_for_returned.eq(listen.room_for_returned),
            listen.syn_cookies.eq(self.syn_cookies), dispatcher.cookies.eq(self.syn_cookies),
        ]  # fmt: skip
        connect(m, dispatcher.handshake, listen.handshake)
        connect(m, listen.verdict, dispatcher.verdict)
        connect(m, listen.table, table.update[1])
        connect(m, table.status[1], listen.table_status)
        connect(m, listen.isn_request, isn.request[1])
        connect(m, isn.iss[1], listen.isn)
        connect(m, flipped(self.meta), dispatcher.meta)
        connect(m, dispatcher.segment, flipped(self.segment))
        connect(m, dispatcher.info, flipped(self.info))
        connect(m, dispatcher.control, flipped(self.reset))
        connect(m, flipped(self.update), table.update[0])
        connect(m, table.status[0], flipped(self.update_status))
        connect(m, flipped(self.isn_request), isn.request[0])
        connect(m, isn.iss[0], flipped(self.iss))
        for name in ("listen", "drop", "stock", "flow_status"):
            connect(m, flipped(getattr(self, name)), getattr(listen, name))
        for name in ("listen_status", "drop_status", "flow", "endpoint", "event", "control"):
            connect(m, getattr(listen, name), flipped(getattr(self, name)))
        m.d.comb += [
            table.hash_key.eq(self.hash_key),
            isn.isn_key.eq(self.isn_key),
            isn.isn_clock.eq(self.isn_clock),
            listen.tick.eq(self.tick),
            listen.syn_retries.eq(self.syn_retries),
            dispatcher.rst_unknown.eq(self.rst_unknown),
            listen.syn_to_host.eq(self.syn_to_host),
            listen.sack.eq(self.sack),
            listen.ecn.eq(self.ecn),
            listen.timestamps.eq(self.timestamps),
            dispatcher.syn_to_host.eq(self.syn_to_host),
            listen.control_room.eq(self.control_room),
            listen.may_reset.eq(self.may_reset),
            dispatcher.may_reset.eq(self.may_reset & self.control_room),
            listen.may_challenge.eq(self.may_challenge),
            dispatcher.room.eq(listen.room),
            dispatcher.opening.eq(listen.opening),
            listen.pressure.eq(dispatcher.count_syn_dropped_full),
            # Two blocks may count the same in one cycle.
            *(
                getattr(self, f"count_{name}").eq(
                    sum(
                        getattr(block, f"count_{name}")
                        for block in (dispatcher, listen, cookies)
                        if f"count_{name}" in block.signature.members
                    )
                )
                for name in COUNTERS
            ),
        ]
        return m


class Net:
    """What a scenario has in hand: segments in, and queues of everything that comes out.

    Attributes
    ----------
    out : dict of deques
        Per port what came out and was not yet asked for: segment, info, reset, control, endpoint, event, flow.
    counts : dict
        Counter pulses.
    hold : set of str
        Ports that are not taken for now.
    flow_result
        Called with a flow request: its status.
    lost : int
        Ids the pipeline has refused.
    """

    PORTS = ("segment", "info", "reset", "control", "cookie", "endpoint", "event")
    IRREVOCABLE = 100
    """Cycles without any transfer after which nothing more can come (a number takes 40)."""

    def __init__(self, dut, *, stall=0.0, seed=0):
        self.dut, self.cfg = dut, dut.cfg
        self.stall = stall
        self.rng = random.Random(f"net:{seed}")
        self.out = {port: deque() for port in (*self.PORTS, "flow")}
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.hold: set[str] = set()
        self.flow_result = lambda request: Status.OK
        self.flow_delay = 8
        self.lost = 0
        self.ticking = False
        self.ticks = 0
        self.cycles = 0
        self.active = 0  # cycle of the last transfer
        self.key = self.rng.getrandbits(128)
        self.clock = 0

    # ---------------------------------------------------------------- background

    async def observe(self, ctx):
        """Takes what comes out, holds the stream rules against it, counts pulses and cycles: all in one testbench,
        since each one that wakes every cycle costs as much as a small design."""
        dut, rng = self.dut, random.Random(f"observe:{self.stall}")
        ports = {port: getattr(dut, port) for port in (*self.PORTS, "flow", "drop_status", "listen_status")}
        pulses = [getattr(dut, f"count_{name}") for name in COUNTERS]
        values = [value for item in ports.values() for value in (item.valid, item.ready, Value.cast(item.payload))]
        held = dict.fromkeys(ports)
        stock = [dut.idle, dut.ids_left, dut.syn_waits]
        calm, level_before = 0, None
        while True:
            for port in self.PORTS:
                ctx.set(
                    ports[port].ready, int(port not in self.hold and (not self.stall or rng.random() >= self.stall))
                )
            ctx.set(dut.tick, int(self.ticking))
            self.ticks += self.ticking
            _, _, *sampled = await ctx.tick().sample(*values, *pulses, *stock)
            self.cycles += 1
            idle, level, waiting = sampled[-len(stock) :]
            calm = calm + 1 if idle and level == level_before and not waiting else 0
            level_before = level
            if calm == 4:  # what the last job has left has reached every register
                self._promises_are_kept(ctx, level)
            for at, (port, item) in enumerate(ports.items()):
                valid, ready, raw = sampled[3 * at : 3 * at + 3]
                if held[port] is not None:
                    assert valid and raw == held[port], f"{port} changed before the transfer"
                held[port] = raw if valid and not ready else None
                if valid and ready and port in self.PORTS:
                    came = to_py(item.payload.shape().from_bits(raw))
                    if "options" in came and not (came["ts_ok"] and came["says_options"]):
                        came["options"] = dict.fromkeys(came["options"], 0)  # nobody looks at them
                    self.out[port].append(came)
                    self.active = self.cycles
            for name, value in zip(COUNTERS, sampled[3 * len(ports) : -len(stock)], strict=True):
                self.counts[name] += value

    def half_open_entries(self, ctx):
        """Entries of the syncache that an id was promised to."""
        return sum(state in (EntryState.FRESH, EntryState.REPORTED) for state in to_py(ctx.get(self.dut.states)))

    def _promises_are_kept(self, ctx, level):
        """The invariant of ``Reservations``, and that its count is exact."""
        half_open = self.half_open_entries(ctx)
        assert half_open <= level + self.lost, f"{half_open} half-open connections, {level} ids"
        assert ctx.get(self.dut.spare) == level - half_open

    async def pipeline(self, ctx):
        """The flow pipeline's side of ACCEPT."""
        while True:
            request = await stream_get(ctx, self.dut.flow)
            self.active = self.cycles
            self.out["flow"].append(request)
            await ctx.tick().repeat(self.flow_delay)
            status = self.flow_result(request)
            self.lost += status != Status.OK
            await stream_put(ctx, self.dut.flow_status, {"status": status})

    # ---------------------------------------------------------------- for scenarios

    def set_clock(self, ctx, iss, tuple_):
        """Make ``iss`` the next initial send sequence number for ``tuple_``."""
        self.clock = iss - initial_sequence(self.key, 0, tuple_) & M32
        ctx.set(self.dut.isn_clock, self.clock)

    def iss(self, tuple_):
        return initial_sequence(self.key, self.clock, tuple_)

    async def send(self, ctx, **overrides):
        """Offer a segment; returns when the dispatcher has it."""
        await stream_put(ctx, self.dut.meta, seg(**overrides))
        self.active = self.cycles

    async def next(self, ctx, port, cycles=300):
        """The next thing that came, or comes, out of ``port``."""
        for _ in range(cycles):
            if self.out[port]:
                return self.out[port].popleft()
            await ctx.tick()
        raise AssertionError(f"nothing came out of {port} within {cycles} cycles; else: {self.pending()}")

    def pending(self):
        return {port: list(items) for port, items in self.out.items() if items}

    async def settle(self, ctx):
        """Wait until nothing more can come."""
        while self.cycles - self.active < self.IRREVOCABLE:
            await ctx.tick()

    async def nothing(self, ctx):
        """Fail if anything is left or still comes."""
        await self.settle(ctx)
        assert not self.pending()

    async def command(self, ctx, port, payload):
        """Give a command; its status."""
        await stream_put(ctx, getattr(self.dut, port), payload)
        self.active = self.cycles
        return (await stream_get(ctx, getattr(self.dut, f"{port}_status")))["status"]

    async def listen(self, ctx, **overrides):
        return await self.command(ctx, "listen", LISTENER | overrides)

    async def unlisten(self, ctx, listener=0):
        return await self.command(ctx, "listen", LISTENER | {"enable": 0, "listener": listener})

    async def drop(self, ctx, ref):
        return await self.command(ctx, "drop", ref)

    async def stock(self, ctx, *ids):
        for one in ids:
            await stream_put(ctx, self.dut.stock, one)

    async def table(self, ctx, op, tuple_, index):
        """The command processor's update of the connection table."""
        return await self.command(ctx, "update", {"op": op, "tuple": tuple_, "is_syncache": 0, "index": index})

    async def half_open(self, ctx, number, irs=1000, **overrides):
        """A SYN and all that must follow from it; returns (the SYN,ACK, the event)."""
        await self.send(ctx, **({"number": number, "seq": irs, "flags": S} | overrides))
        assert await self.next(ctx, "info") == info(drop=True)
        return await self.next(ctx, "control"), await self.next(ctx, "event")

    async def release(self, ctx, tuple_, index):
        assert await self.table(ctx, TableOp.DELETE, tuple_, index) == Status.OK


def info(*, ask=0, drop=False, **overrides):
    """The ``frame_info`` of the template's frame."""
    meta = seg(**overrides)
    return {"ask": ask, "to_host": int(not ask and not drop),
            "payload_offset": meta["payload_offset"], "frame_length": meta["frame_length"]}  # fmt: skip


def run_front_end(cfg, scenario, *, stall=0.0, seed=0, max_cycles=60_000):
    """Run ``scenario(ctx, net)`` on a fresh front end, all outputs taken with probability 1 - ``stall`` a cycle."""
    dut = FrontEnd(cfg)
    net = Net(dut, stall=stall, seed=seed)

    async def bench(ctx):
        ctx.set(dut.isn_key, net.key)
        ctx.set(dut.hash_key, net.rng.getrandbits(64))
        await scenario(ctx, net)

    run_bench(dut, bench, background=[net.observe, net.pipeline], max_cycles=max_cycles, key=repr(cfg))
    return net
