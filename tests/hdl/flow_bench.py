"""Drives the TCP pipeline alone: segments, doorbells and requests in, segments, verdicts and reports out, time explicit."""

from dataclasses import dataclass, field, replace

from amaranth.sim import Simulator

from tiptoe_hdl.config import TINY
from tiptoe_hdl.flow.flow import Flow
from tiptoe_hdl.messages import ACK, FIN, PSH, RST, SYN, FlowOp, Reason, State, Status

FLAG = {"S": 1 << SYN, "A": 1 << ACK, "F": 1 << FIN, "R": 1 << RST, "P": 1 << PSH}
M32 = 0xFFFFFFFF

LOCAL_SEQ = 0xFFFFFF00
"""Our ISN: wraps within the first transfers."""
REMOTE_SEQ = 0xFFFFFFF0
"""The peer's ISN, next to wrap-around too."""

GENERATION = 7
RING_LOG2 = 14


def flags_of(text: str) -> int:
    """Flags byte from letters, such as ``"SA"``."""
    return sum(FLAG[letter] for letter in text)


@dataclass(frozen=True)
class Segment:
    """A segment as the tests write it: ``seq`` and ``ack`` relative to the sender's and receiver's ISN (SYN at 0, data from 1)."""

    flags: str = "A"
    seq: int = 1
    ack: int = 1
    wnd: int = 8192
    length: int = 0
    mss: int = 0
    ws: int | None = None

    def but(self, **changes) -> "Segment":
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass
class Seen:
    """What came out of the pipeline since last asked."""

    tx: list = field(default_factory=list)
    verdicts: list = field(default_factory=list)
    notices: list = field(default_factory=list)
    responses: list = field(default_factory=list)
    reports: list = field(default_factory=list)


class FlowBench:
    """``run(script)`` simulates; in the script, the methods below are awaited in order."""

    def __init__(
        self, cfg=TINY, *, rto_initial=1000, rto_min=200, delack=40, msl=500, rexmt_max=4, tx_ready=True
    ):
        self.cfg = cfg
        self.dut = Flow(cfg)
        self.params = dict(
            rto_min=rto_min,
            rto_max=60000,
            rto_initial=rto_initial,
            delack_ticks=delack,
            msl_ticks=msl,
            rexmt_max=rexmt_max,
        )
        self.seen = Seen()
        self.tx_ready = tx_ready
        self.iss, self.irs = LOCAL_SEQ, REMOTE_SEQ
        self.cycle = 0

    def run(self, script, max_cycles=200_000, vcd=None):
        """Simulate until ``script(bench)`` returns."""
        sim = Simulator(self.dut)
        sim.add_clock(1e-6)
        self.finished = False

        async def main(ctx):
            self.ctx = ctx
            for name, value in self.params.items():
                ctx.set(self.dut.parameters[name], value)
            while not ctx.get(self.dut.ready):
                await ctx.tick()
            await script(self)
            self.finished = True

        async def collect(ctx):
            dut, seen = self.dut, self.seen
            for port in (dut.verdict, dut.report, dut.response[0], dut.response[1]):
                ctx.set(port.ready, 1)
            async for values in ctx.tick().sample(
                dut.tx.valid,
                dut.tx.ready,
                dut.tx.payload,
                dut.verdict.valid,
                dut.verdict.payload,
                dut.report.valid,
                dut.report.payload,
                dut.response[0].valid,
                dut.response[0].payload,
                dut.response[1].valid,
                dut.response[1].payload,
                dut.notify.valid,
                dut.notify.payload,
            ):
                (_, _, tv, tr, tx, vv, verdict, rv, report, c0, r0, c1, r1, nv, notice) = values
                self.cycle += 1
                if tv and tr:
                    seen.tx.append(tx)
                if vv:
                    seen.verdicts.append(verdict)
                if rv:
                    seen.reports.append(report)
                if c0:
                    seen.responses.append(Status(r0.status))
                if c1:
                    seen.responses.append(Status(r1.status))
                if nv:
                    seen.notices.append(notice)
                ctx.set(dut.tx.ready, self.tx_ready)

        sim.add_testbench(main)
        sim.add_testbench(collect, background=True)
        if vcd:
            with sim.write_vcd(vcd):
                sim.run()
        else:
            sim.run()
        assert self.finished

    async def cycles(self, count):
        """Let ``count`` clock cycles pass."""
        for _ in range(count):
            await self.ctx.tick()

    async def ticks(self, count):
        """Let ``count`` timer ticks pass, each long enough for the whole sweep."""
        for _ in range(count):
            self.ctx.set(self.dut.tick, 1)
            await self.ctx.tick()
            self.ctx.set(self.dut.tick, 0)
            await self.cycles(self.cfg.connections + 2)
        await self.cycles(40)

    async def put(self, port, payload):
        """One transfer into a stream port."""
        self.ctx.set(port.payload, payload)
        self.ctx.set(port.valid, 1)
        while not self.ctx.get(port.ready):
            await self.ctx.tick()
        await self.ctx.tick()
        self.ctx.set(port.valid, 0)

    async def request(self, op, *, id=1, port=0, generation=GENERATION, settle=24, **fields):
        """A flow_request; returns its status."""
        before = len(self.seen.responses)
        await self.put(
            self.dut.request[port],
            dict(
                op=op,
                id=id,
                generation=generation,
                **dict.fromkeys(
                    (
                        "a",
                        "b",
                        "mss",
                        "snd_scale",
                        "rcv_scale",
                        "snd_log2",
                        "rcv_log2",
                        "wnd",
                        "syncache_ref",
                    ),
                    0,
                )
                | fields,
            ),
        )
        await self.cycles(settle)
        assert len(self.seen.responses) == before + 1
        return self.seen.responses[-1]

    async def provision(self, id=1, **fields):
        """PROVISION with 16 KiB rings."""
        return await self.request(
            FlowOp.PROVISION, id=id, **{"snd_log2": RING_LOG2, "rcv_log2": RING_LOG2} | fields
        )

    async def receive(self, segment: Segment, id=1, settle=24):
        """A segment of the peer; returns (segments sent, verdict)."""
        self.seen.tx.clear()
        self.seen.verdicts.clear()
        await self.put(
            self.dut.segment,
            dict(
                id=id,
                seq=(self.irs + segment.seq) & M32,
                ack=(self.iss + segment.ack) & M32,
                flags=flags_of(segment.flags),
                wnd=segment.wnd,
                length=segment.length,
                mss=segment.mss,
                ws_present=segment.ws is not None,
                ws=segment.ws or 0,
            ),
        )
        await self.cycles(settle)
        (verdict,) = self.seen.verdicts
        return self.sent(), verdict

    def sent(self):
        """Segments sent since last asked, as Segment."""
        out = []
        for tx in self.seen.tx:
            text = "".join(letter for letter in "SAFRP" if tx.flags & FLAG[letter])
            out.append(
                Segment(
                    flags=text,
                    seq=(tx.seq - self.iss) & M32,
                    ack=(tx.ack - self.irs) & M32 if "A" in text else 0,
                    wnd=tx.wnd,
                    length=tx.length,
                    mss=tx.mss if "S" in text else 0,
                    ws=tx.ws if tx.ws_present else None,
                )
            )
        self.seen.tx.clear()
        return out

    async def bell(self, which, position, id=1, settle=24):
        """Doorbell ``which`` (0 send, 1 receive); returns the segments sent."""
        self.seen.tx.clear()
        await self.put(self.dut.doorbell, dict(id=id, which=which, position=position))
        await self.cycles(settle)
        return self.sent()

    async def report(self, id=1):
        """A snapshot of the connection."""
        self.seen.reports.clear()
        await self.put(self.dut.report_request, id)
        await self.cycles(24)
        (report,) = self.seen.reports
        return report

    async def state(self, id=1):
        """The connection's state."""
        return State((await self.report(id)).state)

    # state constructors

    async def syn_sent(self, id=1, mss=1460, rcv_scale=0):
        """PROVISION and OPEN; the SYN is out."""
        assert await self.provision(id) == Status.OK
        self.seen.tx.clear()
        assert await self.request(FlowOp.OPEN, id=id, a=self.iss, mss=mss, rcv_scale=rcv_scale) == Status.OK
        (syn,) = self.sent()
        assert syn.flags == "S" and syn.seq == 0
        return syn

    async def established(self, id=1, wnd=8192, mss=1460):
        """Active open done; snd_una = snd_nxt = 1, rcv_nxt = 1."""
        await self.syn_sent(id)
        sent, _ = await self.receive(Segment("SA", seq=0, ack=1, wnd=wnd, mss=mss), id)
        assert [s.flags for s in sent] == ["A"], sent
        self.seen.notices.clear()

    async def close(self, position=0, id=1):
        """CLOSE request; returns the segments sent."""
        self.seen.tx.clear()
        assert await self.request(FlowOp.CLOSE, id=id, a=position) == Status.OK
        return self.sent()


__all__ = ["FlowBench", "Segment", "State", "Status", "Reason", "FlowOp", "GENERATION"]
