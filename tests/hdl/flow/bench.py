"""Drives the TCP pipeline alone, Verilated: segments, doorbells and requests in; segments, verdicts and reports out."""

from dataclasses import dataclass, field, replace

from tiptoe_hdl.config import TINY
from tiptoe_hdl.flow.flow import Flow
from tiptoe_hdl.host.abi import TCB_PAGES
from tiptoe_hdl.messages import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Congestion, FlowOp, Reason, State, Status
from tiptoe_verif.sim.block import BlockSim

FLAG = {
    "S": 1 << SYN,
    "A": 1 << ACK,
    "F": 1 << FIN,
    "R": 1 << RST,
    "P": 1 << PSH,
    "U": 1 << URG,
    "E": 1 << ECE,
    "C": 1 << CWR,
}
M32 = 0xFFFFFFFF

LOCAL_SEQ = 0xFFFFFF00
"""Our ISN: wraps within the first transfers."""
REMOTE_SEQ = 0xFFFFFFF0
"""The peer's ISN, next to wrap-around too."""

TS_NOW = 0xFFFFFFC0
"""The clock of timestamps, next to wrap-around too."""

GENERATION = 7
RING_LOG2 = 14


def flags_of(text: str) -> int:
    """Flags byte from letters, such as ``"SA"``."""
    return sum(FLAG[letter] for letter in text)


@dataclass(frozen=True)
class Segment:
    """A segment as the tests write it; ``seq``, ``ack`` relative to the sender's and receiver's ISN (SYN 0, data from 1)."""

    flags: str = "A"
    seq: int = 1
    ack: int = 1
    wnd: int = 8192
    length: int = 0
    mss: int = 0
    ws: int | None = None
    sack_ok: bool = False  # with SYN: SACK-permitted
    sacks: int = 0  # of ours: SACK blocks it has room for
    twice: tuple[int, int] | None = None  # of ours: the first of them tells of this, relative to the peer's ISN
    urgent: int = 0  # urgent pointer
    ecn: int = 0  # codepoint of the IP header: 2: ECT(0), 1: ECT(1), 3: CE
    stamp: tuple[int, int] | None = None  # of the peer's: TSval, and TSecr as ticks since what it echoes was sent
    stamped: bool = False  # of ours: with timestamps

    def but(self, **changes) -> "Segment":
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass
class Seen:
    """What came out of the pipeline since last asked."""

    tx: list = field(default_factory=list)
    tx_cycles: list = field(default_factory=list)
    verdicts: list = field(default_factory=list)
    notices: list = field(default_factory=list)
    responses: list = field(default_factory=list)
    reports: list = field(default_factory=list)


class FlowBench:
    """The pipeline with everything around it in the test's hand; time passes only in ``cycles`` and ``ticks``.

    Parameters are the timer settings in ticks; ``broken`` names what a test has broken in the rules. ``tx_ready`` may be
    cleared to hold back the transmit path. Segments that are not taken are answered each, unless ``invalid`` says after how
    many ticks again.
    """

    def __init__(
        self, cfg=TINY, *, rto_initial=1000, rto_min=200, rto_max=60000, delack=40, msl=500, rexmt_max=4, invalid=0,
        sack=0, timestamps=0, ecn=0, quick_ack=0, algorithm=Congestion.NEWRENO, tick_us=1000, broken="",
    ):  # fmt: skip
        self.cfg = cfg
        self.sim = BlockSim(f"flow_{cfg.name}{broken}", Flow(cfg), key=repr(cfg) + broken)
        self.sim["parameters"] = dict(
            rto_min=rto_min,
            rto_max=rto_max,
            rto_initial=rto_initial,
            delack_ticks=delack,
            msl_ticks=msl,
            rexmt_max=rexmt_max,
            sack=sack,
            ecn=ecn,
            timestamps=timestamps,
            quick_ack=quick_ack,
            algorithm_initial=algorithm.value,
        )
        self.sim["tick_us"] = tick_us
        self.sim["invalid_ticks"], self.sim["may_challenge"] = invalid, 1
        for port in ("verdict", "report", "response__0", "response__1", "tx"):
            self.sim[f"{port}__ready"] = 1
        self.seen = Seen()
        self.tx_ready = True
        self.iss, self.irs = LOCAL_SEQ, REMOTE_SEQ
        self.ts_now = self.sim["ts_now"] = TS_NOW
        self.sim.step(10_000, until=["ready"])
        assert self.sim["ready"]

    def cycles(self, count):
        """Let ``count`` clock cycles pass, collecting what comes out."""
        sim, seen = self.sim, self.seen
        sim["tx__ready"] = self.tx_ready
        watch = [
            "verdict__valid",
            "report__valid",
            "response__0__valid",
            "response__1__valid",
            "notify__valid",
        ]
        if self.tx_ready:
            watch.append("tx__valid")
        while count > 0:
            count -= sim.step(count, until=watch)
            if count <= 0:
                return
            for port, log in (
                ("tx", seen.tx),
                ("verdict", seen.verdicts),
                ("report", seen.reports),
                ("notify", seen.notices),
            ):
                if sim[f"{port}__valid"] and (port != "tx" or self.tx_ready):
                    log.append(sim[f"{port}__payload"])
                    if port == "tx":
                        seen.tx_cycles.append(sim.cycle)
            for k in range(2):
                if sim[f"response__{k}__valid"]:
                    seen.responses.append(Status(sim[f"response__{k}__payload"].status))
            sim.step(1)
            count -= 1

    def ticks(self, count):
        """Let ``count`` timer ticks pass, each long enough for the whole sweep."""
        for _ in range(count):
            self.sim["tick"] = 1
            self.ts_now = self.sim["ts_now"] = (self.ts_now + 1) & M32
            self.cycles(1)
            self.sim["tick"] = 0
            self.cycles(self.cfg.connections + 12)
        self.cycles(40)

    def ticks_until_sent(self, limit):
        """Ticks that pass until a segment goes out; None if none does within ``limit``."""
        for count in range(1, limit + 1):
            self.ticks(1)
            if self.seen.tx:
                return count
        return None

    def put(self, port, payload):
        """One transfer into a stream port."""
        self.sim[f"{port}__payload"] = payload
        self.sim[f"{port}__valid"] = 1
        while not self.sim[f"{port}__ready"]:
            self.cycles(1)
        self.cycles(1)
        self.sim[f"{port}__valid"] = 0

    def request(self, op, *, id=1, port=0, generation=GENERATION, settle=40, **fields):
        """A flow_request; returns its status."""
        before = len(self.seen.responses)
        self.put(f"request__{port}", dict(op=op, id=id, generation=generation) | fields)
        self.cycles(settle)
        assert len(self.seen.responses) == before + 1
        return self.seen.responses[-1]

    def provision(self, id=1, **fields):
        """PROVISION with 16 KiB rings."""
        return self.request(FlowOp.PROVISION, id=id, **{"snd_log2": RING_LOG2, "rcv_log2": RING_LOG2} | fields)

    def offer(self, segment: Segment, id=1, has_sack=False):
        """A segment of the peer, without waiting for what it sets off; ``has_sack``: blocks follow."""
        self.put(
            "segment",
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
                sack_ok=segment.sack_ok,
                has_sack=has_sack,
                urgent=segment.urgent,
                ecn=segment.ecn,
                **self._stamps(segment),
            ),
        )

    def _stamps(self, segment):
        if segment.stamp is None:
            return {}
        tsval, age = segment.stamp
        return dict(ts_present=1, tsval=tsval & M32, tsecr=(self.ts_now - age + self.iss) & M32)

    def stamp(self, id=1):
        """TS.Recent, as the transmit path hears of it; None if there is none."""
        self.sim["stamp_id"] = id
        self.sim.step(3)
        told = self.sim["stamp"]
        return told.tsval if told.known else None

    def receive(self, segment: Segment, id=1, settle=400, sack=()):
        """A segment of the peer, with the blocks of its SACK option; returns (segments sent, verdict)."""
        self.seen.tx.clear()
        self.seen.verdicts.clear()
        self.offer(segment, id, bool(sack))
        for number, (start, end) in enumerate(sack):
            edges = [(self.iss + edge) & M32 for edge in (start, end)]
            block = dict(id=id, start=edges[0], end=edges[1], first=number == 0, more=number + 1 < len(sack))
            self.put("sack_block", block)
        self.cycles(settle)
        (verdict,) = self.seen.verdicts
        return self.sent(), verdict

    def sent(self):
        """Segments sent since last asked, as Segment."""
        out = []
        for tx in self.seen.tx:
            text = "".join(letter for letter in "SAFRPUEC" if tx.flags & FLAG[letter])
            ack = (tx.ack - self.irs) & M32 if "A" in text else 0
            out.append(
                Segment(
                    flags=text,
                    seq=(tx.seq - self.iss) & M32,
                    ack=ack,
                    wnd=tx.wnd,
                    length=tx.length,
                    mss=tx.mss if "S" in text else 0,
                    ws=tx.ws if tx.ws_present else None,
                    sack_ok=bool(tx.sack_ok),
                    sacks=tx.sacks,
                    twice=self._twice(tx) if tx.twice else None,
                    urgent=tx.urgent,
                    ecn=2 * tx.ect,
                    stamped=bool(tx.ts_ok),
                )
            )
        self.seen.tx.clear()
        return out

    def _twice(self, tx):
        """The block that tells what has come twice."""
        start = (tx.twice_start - self.irs) & M32
        return start, start + tx.mss

    def bell(self, which, position, id=1, settle=400):
        """Doorbell ``which`` (0 send, 1 receive); returns the segments sent."""
        self.seen.tx.clear()
        self.put("doorbell", dict(id=id, which=which, position=position))
        self.cycles(settle)
        return self.sent()

    def report(self, id=1):
        """A snapshot of the connection."""
        self.seen.reports.clear()
        self.put("report_request", id)
        self.cycles(40)
        (report,) = self.seen.reports
        return report

    def tcb(self, id=1):
        """All pages of READ_TCB as a dictionary."""
        fields = {}
        for number, page in enumerate(TCB_PAGES):
            assert self.request(FlowOp.READ, id=id, a=number) == Status.OK
            word = self.sim["tcb_page"]
            fields |= {name: word >> low & (1 << width) - 1 for name, low, width in page}
        return fields

    def state(self, id=1):
        """The connection's state."""
        return State(self.report(id).state)

    # state constructors

    def syn_sent(self, id=1, mss=1460, rcv_scale=0):
        """PROVISION and OPEN; returns the SYN sent."""
        assert self.provision(id) == Status.OK
        self.seen.tx.clear()
        assert self.request(FlowOp.OPEN, id=id, a=self.iss, mss=mss, rcv_scale=rcv_scale) == Status.OK
        (syn,) = self.sent()
        assert syn.flags == "S" and syn.seq == 0
        return syn

    def ahead(self, id=1):
        """What has come out of order, as the transmit path hears of it: intervals counted from the peer's ISN, and the number
        of the newest one."""
        self.sim["sack_id"] = id
        self.sim.step(2)
        told = self.sim["sack"]
        assert told.known
        edges = [((told.intervals >> 32 * k & M32) - self.irs) & M32 for k in range(2 * self.cfg.ooo_intervals)]
        return [
            (edges[2 * k], edges[2 * k + 1]) for k in range(self.cfg.ooo_intervals) if told.valid >> k & 1
        ], told.newest

    def established(self, id=1, wnd=8192, mss=1460, rtt=0, sack_ok=False):
        """Active open done, ``rtt`` ticks after the SYN; snd_una = snd_nxt = 1, rcv_nxt = 1."""
        self.syn_sent(id)
        if rtt:
            self.ticks(rtt)
        sent, _ = self.receive(Segment("SA", seq=0, ack=1, wnd=wnd, mss=mss, sack_ok=sack_ok), id)
        assert [s.flags for s in sent] == ["A"], sent
        self.seen.notices.clear()

    def two_gibibytes(self, sack_ok=False, ecn=False, begin=lambda: None):
        """A connection that, behind ``begin``, has sent more than 2 GiB without loss, in segments of 4000 bytes; returns the
        position up to which all is acknowledged."""
        assert self.provision(snd_log2=24) == Status.OK
        self.request(FlowOp.OPEN, a=self.iss, mss=4000)
        self.receive(Segment("SAE" if ecn else "SA", seq=0, ack=1, wnd=65535, mss=4000, ws=14, sack_ok=sack_ok))
        begin()
        at, burst = 0, 40_000
        while at < (1 << 31) + 1_000_000:
            self.put("doorbell", dict(id=1, which=0, position=at + burst & M32))
            self.sim["tx__ready"] = 1
            self.sim.step(20 * burst // 4000 + 300)
            at += burst
            self.offer(Segment("A", ack=1 + at, wnd=65535))
            burst = min(burst + 4000, 8_000_000)
        self.cycles(400)
        assert self.report().snd_una_position == at & M32, "all of it has gone"
        assert self.tcb()["rexmits"] == 0
        return at

    def urgent(self, position, id=1, settle=400):
        """URGENT request: what the send ring holds up to ``position`` is urgent; returns the segments sent."""
        self.seen.tx.clear()
        assert self.request(FlowOp.URGENT, id=id, a=position & M32, settle=settle) == Status.OK
        return self.sent()

    def rcv_up(self, id=1):
        """RCV.UP relative to the peer's ISN; None when there is none."""
        report = self.report(id)
        return (report.rcv_up - self.irs) & M32 if report.urgent else None

    def close(self, position=0, id=1):
        """CLOSE request; returns the segments sent."""
        self.seen.tx.clear()
        assert self.request(FlowOp.CLOSE, id=id, a=position) == Status.OK
        return self.sent()


__all__ = ["FlowBench", "Segment", "State", "Status", "Reason", "FlowOp", "GENERATION"]
