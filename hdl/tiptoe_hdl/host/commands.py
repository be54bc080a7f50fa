"""Command processor: carries out the driver's commands one at a time (docs/rings.md)."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import (
    CommandDone,
    ErrorEvent,
    FlowOp,
    FlowResponse,
    FourTuple,
    TableOp,
    dma_read_data,
    dma_request,
    endpoint_write,
    flow_request,
    ip_header_write,
    listen_write,
    next_hop_write,
    peer_fields,
    ring_write,
    table_update,
    tx_frame,
)
from ..wire.valid_only import valid_only
from .abi import Opcode
from .command_check import CommandCheck, command_field
from .command_execute import REQUESTS, CommandExecution
from .command_fetch import CommandFetcher
from .command_ids import KnownIds
from .command_plan import CommandPlan
from .command_results import CommandResults
from .send_frames import SendFrames

ANSWERS = {
    # Port of a request: port of its answer. The other requests are done when they are taken.
    "isn_request": "isn",
    "table": "table_status",
    "flow": "flow_status",
    "listen": "listen_status",
    "drop": "drop_status",
}


class CommandProcessor(wiring.Component):
    """Fetches, checks and executes commands.

    What the processor knows of each id itself: the generation, whether it may be opened actively (provisioned
    without ``stock`` and not opened yet), and whether the connection table can hold it. So an OPEN or RELEASE that
    can't succeed changes nothing, and an id is in the stock at most once. OPEN and RELEASE change the connection
    table before they ask the pipeline; when the pipeline refuses, the change is undone.

    Commands wait for: the answers of other blocks; room for eight SEND_FRAMEs; room for COMMAND_DONE (a host that
    does not read events stops its commands, nothing else). ``abort`` is served between commands.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    ready : Out(1)
        The memory of ids is scrubbed (as many cycles as there are ids after reset); commands begin then.
    enable, base, log2, tail, head, request, data
        See CommandFetcher.
    flow : Out(stream of flow_request), flow_status : In(stream of FlowResponse)
    tcb_page : In(64)
        What FlowOp.READ asked for, when its status comes and until the next request.
    table : Out(stream of table_update), table_status : In(stream of FlowResponse)
    isn_request : Out(stream of FourTuple), isn : In(stream of 32 bits)
    endpoint : Out(stream of endpoint_write)
    snd_ring, rcv_ring : Out(valid-only ring_write)
    clear : Out(valid-only id)
        The id begins anew: its placed position is 0.
    stock : Out(stream of id)
        Never full: an id is in stock at most once.
    listen : Out(stream of listen_write), listen_status : In(stream of FlowResponse)
    drop : Out(stream of 16 bits), drop_status : In(stream of FlowResponse)
    next_hop : Out(valid-only next_hop_write)
    ip_header : Out(valid-only ip_header_write)
    frame : Out(stream of tx_frame), frame_done : In(stream of FlowResponse)
    abort : In(stream of struct of id)
        A payload write failed: the connection ends.
    broken : Out(stream of id)
        The same id, when the pipeline knows: nothing more of it is placed.
    arrivals_issued, arrivals_done, segments_issued, segments_done : In(8)
        Counts modulo 256, of received frames from their lookup to their last byte in memory, and of segments to be sent:
        RELEASE is done when what was issued before it is. A frame that was looked up before the four-tuple left the
        connection table still is its connection's, however late it is passed on.
    done : Out(stream of CommandDone)
    waiting, progress : Out(1)
        For the watchdog: there are commands; one is finished.
    error : Out(valid-only ErrorEvent)
    count_bad_command : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        status = In(stream.Signature(FlowResponse))
        super().__init__(
            {
                "ready": Out(1),
                "enable": In(1),
                "base": In(cfg.addr_width),
                "log2": In(5),
                "tail": In(32),
                "head": Out(32),
                "request": Out(stream.Signature(dma_request(cfg))),
                "data": In(stream.Signature(dma_read_data(cfg))),
                "flow": Out(stream.Signature(flow_request(cfg))),
                "flow_status": status,
                "tcb_page": In(64),
                "table": Out(stream.Signature(table_update(cfg))),
                "table_status": status,
                "isn_request": Out(stream.Signature(FourTuple)),
                "isn": In(stream.Signature(32)),
                "endpoint": Out(stream.Signature(endpoint_write(cfg))),
                "snd_ring": Out(valid_only(ring_write(cfg))),
                "rcv_ring": Out(valid_only(ring_write(cfg))),
                "clear": Out(valid_only(unsigned(cfg.id_bits))),
                "stock": Out(stream.Signature(unsigned(cfg.id_bits))),
                "listen": Out(stream.Signature(listen_write(cfg))),
                "listen_status": status,
                "drop": Out(stream.Signature(unsigned(16))),
                "drop_status": status,
                "next_hop": Out(valid_only(next_hop_write(cfg))),
                "ip_header": Out(valid_only(ip_header_write(cfg))),
                "frame": Out(stream.Signature(tx_frame(cfg))),
                "frame_done": status,
                "abort": In(stream.Signature(data.StructLayout({"id": cfg.id_bits}))),
                "broken": Out(stream.Signature(unsigned(cfg.id_bits))),
                "arrivals_issued": In(8),
                "arrivals_done": In(8),
                "segments_issued": In(8),
                "segments_done": In(8),
                "done": Out(stream.Signature(CommandDone)),
                "waiting": Out(1),
                "progress": Out(1),
                "error": Out(valid_only(ErrorEvent)),
                "count_bad_command": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        m.submodules.fetcher = fetcher = CommandFetcher(cfg)
        m.submodules.check = check = CommandCheck(cfg)
        m.submodules.ids = ids = KnownIds(cfg)
        m.submodules.plan = plan = CommandPlan()
        m.submodules.execution = execution = CommandExecution(cfg)
        m.submodules.frames = frames = SendFrames()
        m.submodules.results = results = CommandResults()
        self._fetcher, self._ids, self._execution, self._results = fetcher, ids, execution, results
        wiring.connect(m, fetcher.request, wiring.flipped(self.request))
        wiring.connect(m, fetcher.data, wiring.flipped(self.data))
        wiring.connect(m, fetcher.error, wiring.flipped(self.error))
        wiring.connect(m, frames.frame_done, wiring.flipped(self.frame_done))
        wiring.connect(m, frames.done, results.frame)
        wiring.connect(m, results.o, wiring.flipped(self.done))
        tid = self._field(Opcode.OPEN, "tid")
        m.d.comb += [
            self.ready.eq(ids.ready),
            fetcher.enable.eq(self.enable & self.ready),
            fetcher.base.eq(self.base),
            fetcher.log2.eq(self.log2),
            fetcher.tail.eq(self.tail),
            self.head.eq(fetcher.head),
            self.waiting.eq(fetcher.waiting),
            self.progress.eq(fetcher.o.valid & fetcher.o.ready),
            check.dwords.eq(fetcher.o.p.dwords),
            ids.id.eq(tid[: cfg.id_bits]),
            plan.command.eq(execution.command.payload),
            plan.checked.eq(check.status),
            plan.known.eq(ids.known),
            execution.plan.eq(plan.plan),
            frames.begin.valid.eq(self.frame.valid & self.frame.ready),
            frames.begin.payload.eq(self._field(Opcode.SEND_FRAME, "tag")),
            execution.frame_room.eq(frames.begin.ready),
            self.count_bad_command.eq(results.count_bad_command),
        ]
        self._execute(m, tid[16:24])
        self._requests(m)
        self._payloads(m, tid)
        self._result(m)
        return m

    def _field(self, opcode, name):
        return command_field(self._fetcher.o.p.dwords, opcode, name)

    def _execute(self, m, generation):
        execution, command = self._execution, self._fetcher.o
        wiring.connect(m, execution.note, self._ids.note)
        wiring.connect(m, execution.abort, wiring.flipped(self.abort))
        m.d.comb += [
            execution.enable.eq(self.ready),
            execution.command.valid.eq(command.valid),
            command.ready.eq(execution.command.ready),
            execution.command.p.opcode.eq(self._field(Opcode.NOP, "opcode")),
            execution.command.p.failed.eq(command.p.failed),
            execution.command.p.generation.eq(generation),
            execution.command.p.stock.eq(self._field(Opcode.PROVISION, "stock")),
            self.snd_ring.valid.eq(execution.provisioned),
            self.rcv_ring.valid.eq(execution.provisioned),
            self.clear.valid.eq(execution.provisioned),
            self.next_hop.valid.eq(execution.next_hop),
            self.ip_header.valid.eq(execution.ip_header | execution.provisioned),
            self.ip_header.payload.own.eq(execution.ip_header),
            *(
                getattr(execution, name).eq(getattr(self, name))
                for name in ("arrivals_issued", "arrivals_done", "segments_issued", "segments_done")
            ),
        ]

    def _requests(self, m):
        """One at a time. Requests and their answers go through flip-flops: nothing of the execution is in their paths."""
        execution = self._execution
        came, statuses = [], []
        for name in REQUESTS:
            request = getattr(self, name)
            with m.If(execution.ask[name]):
                m.d.sync += request.valid.eq(1)
            with m.Elif(request.ready):
                m.d.sync += request.valid.eq(0)
            if name not in ANSWERS:
                came.append(request.valid & request.ready)
                continue
            answer = getattr(self, ANSWERS[name])
            m.d.comb += answer.ready.eq(1)
            came.append(answer.valid)
            if name != "isn_request":
                status = Value.cast(answer.p.status)
                statuses.append(status & answer.valid.replicate(len(status)))
        answer = Signal.like(execution.answer.payload)
        answered = Signal()
        m.d.sync += [answered.eq(Cat(came).any()), answer.eq(reduce(or_, statuses))]
        m.d.comb += [execution.answer.valid.eq(answered), execution.answer.payload.eq(answer)]

    def _payloads(self, m, tid):
        """Payloads of all requests, from the command's fields; they stay while the command is executed."""
        cfg, field, execution = self._cfg, self._field, self._execution
        id, generation = tid[: cfg.id_bits], tid[16:24]
        tuple_ = Signal(FourTuple)
        m.d.comb += [tuple_[name].eq(field(Opcode.OPEN, name)) for name in ("laddr", "faddr", "lport", "fport")]
        aborted = Signal(cfg.id_bits)
        iss = Signal(32)
        with m.If(self.abort.ready):
            m.d.sync += aborted.eq(self.abort.p.id)
        with m.If(self.isn.valid):
            m.d.sync += iss.eq(self.isn.payload)
        m.d.comb += [
            self.flow.p.op.eq(execution.op),
            self.flow.p.id.eq(Mux(execution.aborting, aborted, id)),
            self.flow.p.generation.eq(generation),
            self.flow.p.a.eq(Mux(execution.op == FlowOp.OPEN, iss, field(Opcode.CLOSE, "snd_end"))),
            self.flow.p.b.eq(field(Opcode.SET_CWND, "ssthresh")),
            self.flow.p.mss.eq(field(Opcode.OPEN, "mss")),
            self.flow.p.rcv_scale.eq(field(Opcode.OPEN, "rcv_scale")),
            self.flow.p.ecn_ok.eq(field(Opcode.OPEN, "ecn")),
            self.flow.p.snd_log2.eq(field(Opcode.PROVISION, "snd_log2")),
            self.flow.p.rcv_log2.eq(field(Opcode.PROVISION, "rcv_log2")),
            self.table.p.op.eq(Mux(execution.insert, TableOp.INSERT, TableOp.DELETE)),
            self.table.p.tuple.eq(tuple_),
            self.table.p.index.eq(id),
            self.isn_request.payload.eq(tuple_),
            self.endpoint.p.id.eq(id),
            self.endpoint.p.endpoint.tuple.eq(tuple_),
            self.endpoint.p.endpoint.dmac.eq(field(Opcode.OPEN, "dmac")),
            *(
                self.endpoint.p.endpoint[name].eq(
                    Cat(*(field(Opcode.OPEN, f"{name}_{half}") for half in ("low", "high")))
                )
                for name in peer_fields(cfg)
            ),
            self.endpoint.p.endpoint.use_next_hop.eq(field(Opcode.OPEN, "use_next_hop")),
            self.endpoint.p.endpoint.next_hop.eq(field(Opcode.OPEN, "next_hop")),
            self.snd_ring.payload.id.eq(id),
            self.snd_ring.payload.base.eq(field(Opcode.PROVISION, "snd_base")),
            self.snd_ring.payload.log2.eq(field(Opcode.PROVISION, "snd_log2")),
            self.rcv_ring.payload.id.eq(id),
            self.rcv_ring.payload.base.eq(field(Opcode.PROVISION, "rcv_base")),
            self.rcv_ring.payload.log2.eq(field(Opcode.PROVISION, "rcv_log2")),
            self.clear.payload.eq(id),
            self.stock.payload.eq(id),
            self.broken.payload.eq(aborted),
            self.listen.p.enable.eq(field(Opcode.LISTEN, "opcode") == Opcode.LISTEN),
            self.listen.p.listener.eq(field(Opcode.LISTEN, "listener")),
            self.drop.payload.eq(field(Opcode.SYNCACHE_DROP, "syncache_ref")),
            self.next_hop.payload.index.eq(field(Opcode.NEXT_HOP, "index")),
            self.next_hop.payload.mac.eq(field(Opcode.NEXT_HOP, "dmac")),
            self.ip_header.payload.id.eq(id),
            self.ip_header.payload.ttl.eq(field(Opcode.SET_IP_HEADER, "ttl")),
            self.ip_header.payload.tos.eq(field(Opcode.SET_IP_HEADER, "tos")),
            self.frame.p.addr.eq(field(Opcode.SEND_FRAME, "addr")),
            self.frame.p.length.eq(field(Opcode.SEND_FRAME, "length")),
        ]
        m.d.comb += [
            self.listen.p[name].eq(field(Opcode.LISTEN, name)) for name in ("laddr", "lport", "mss", "rcv_scale", "wnd")
        ]

    def _result(self, m):
        execution, command, result = self._execution, self._fetcher.o.p, self._results.command
        m.d.comb += [
            execution.reportable.eq(result.ready),
            result.valid.eq(execution.report),
            result.p.argument.eq(Mux(command.failed, command.count, command.dwords[1])),
            result.p.opcode.eq(Mux(command.failed, Opcode.NOP, self._field(Opcode.NOP, "opcode"))),
            result.p.status.eq(execution.status),
            result.p.value.eq(self.tcb_page & execution.plan.reads.replicate(64)),
            result.p.tag.eq(Mux(command.failed, 0, self._field(Opcode.NOP, "tag"))),
        ]
