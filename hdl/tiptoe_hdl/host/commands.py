"""Command processor: carries out the driver's commands one at a time (docs/rings.md)."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import (
    CommandDone,
    ErrorEvent,
    FlowOp,
    FlowResponse,
    FourTuple,
    Status,
    TableOp,
    dma_read_data,
    dma_request,
    endpoint_write,
    flow_request,
    listen_write,
    next_hop_write,
    ring_write,
    table_update,
    tx_frame,
)
from ..wire.skid import SkidBuffer
from ..wire.valid_only import valid_only
from .abi import ALWAYS_DONE, Opcode
from .command_check import CHECK_CYCLES, CommandCheck, command_field
from .command_fetch import CommandFetcher
from .send_frames import SendFrames

FLOW_COMMANDS = {
    Opcode.PROVISION: FlowOp.PROVISION,
    Opcode.OPEN: FlowOp.OPEN,
    Opcode.CLOSE: FlowOp.CLOSE,
    Opcode.ABORT: FlowOp.ABORT,
    Opcode.RELEASE: FlowOp.RELEASE,
    Opcode.PATH_MTU: FlowOp.PATH_MTU,
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
    frame : Out(stream of tx_frame), frame_done : In(stream of FlowResponse)
    abort : In(stream of struct of id)
        A payload write failed: the connection ends.
    broken : Out(stream of id)
        The same id, when the pipeline knows: nothing more of it is placed.
    verdicts_issued, verdicts_done, segments_issued, segments_done : In(8)
        Counts modulo 256: RELEASE is done when what was issued before it is.
    done : Out(stream of CommandDone)
    error : Out(valid-only ErrorEvent)
    count_bad_command : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        status = In(stream.Signature(FlowResponse))
        super().__init__({
            "ready": Out(1),
            "enable": In(1), "base": In(cfg.addr_width), "log2": In(5), "tail": In(32), "head": Out(32),
            "request": Out(stream.Signature(dma_request(cfg))),
            "data": In(stream.Signature(dma_read_data(cfg))),
            "flow": Out(stream.Signature(flow_request(cfg))), "flow_status": status,
            "table": Out(stream.Signature(table_update(cfg))), "table_status": status,
            "isn_request": Out(stream.Signature(FourTuple)), "isn": In(stream.Signature(32)),
            "endpoint": Out(stream.Signature(endpoint_write(cfg))),
            "snd_ring": Out(valid_only(ring_write(cfg))),
            "rcv_ring": Out(valid_only(ring_write(cfg))),
            "clear": Out(valid_only(unsigned(cfg.id_bits))),
            "stock": Out(stream.Signature(unsigned(cfg.id_bits))),
            "listen": Out(stream.Signature(listen_write(cfg))), "listen_status": status,
            "drop": Out(stream.Signature(unsigned(16))), "drop_status": status,
            "next_hop": Out(valid_only(next_hop_write(cfg))),
            "frame": Out(stream.Signature(tx_frame(cfg))), "frame_done": status,
            "abort": In(stream.Signature(data.StructLayout({"id": cfg.id_bits}))),
            "broken": Out(stream.Signature(unsigned(cfg.id_bits))),
            "verdicts_issued": In(8), "verdicts_done": In(8),
            "segments_issued": In(8), "segments_done": In(8),
            "done": Out(stream.Signature(CommandDone)),
            "error": Out(valid_only(ErrorEvent)),
            "count_bad_command": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        m.submodules.fetcher = fetcher = CommandFetcher(cfg)
        m.submodules.check = check = CommandCheck(cfg)
        m.submodules.frames = frames = SendFrames()
        m.d.comb += [
            fetcher.enable.eq(self.enable & self.ready), fetcher.base.eq(self.base),
            fetcher.log2.eq(self.log2), fetcher.tail.eq(self.tail), self.head.eq(fetcher.head),
            check.dwords.eq(fetcher.o.p.dwords),
        ]
        wiring.connect(m, fetcher.request, wiring.flipped(self.request))
        wiring.connect(m, fetcher.data, wiring.flipped(self.data))
        wiring.connect(m, fetcher.error, wiring.flipped(self.error))
        wiring.connect(m, frames.frame_done, wiring.flipped(self.frame_done))

        self._fetcher, self._check, self._frames = fetcher, check, frames
        self._ids(m)
        self._requests(m)
        self._results_out(m)
        self._execute(m)
        return m

    def _field(self, opcode, name):
        return command_field(self._fetcher.o.p.dwords, opcode, name)

    def _ids(self, m):
        """The memory of ids: read with ``_id``, the result two cycles later; written by ``_note``."""
        layout = data.StructLayout({"generation": 8, "openable": 1, "unbound": 1})
        m.submodules.ids = ids = memory.Memory(shape=layout, depth=self._cfg.connections, init=[])
        read, write = ids.read_port(), ids.write_port()
        self._known = Signal(layout)
        self._note = Signal()
        self._new = Signal(layout)
        scrub = Signal(range(self._cfg.connections))
        m.d.comb += read.addr.eq(self._field(Opcode.OPEN, "tid")[:self._cfg.id_bits])
        m.d.sync += [
            self._known.eq(read.data),
            write.addr.eq(Mux(self.ready, read.addr, scrub)),
            write.data.eq(self._new),
            write.en.eq(self._note | ~self.ready),
        ]
        with m.If(~self.ready):
            m.d.sync += [scrub.eq(scrub + 1), self.ready.eq(scrub == self._cfg.connections - 1)]

    def _requests(self, m):
        """Payloads of all requests, from the command's fields; they stay while the command is executed."""
        cfg, field = self._cfg, self._field
        tid = field(Opcode.OPEN, "tid")
        id, generation = tid[:cfg.id_bits], tid[16:24]
        tuple_ = Signal(FourTuple)
        m.d.comb += [tuple_[name].eq(field(Opcode.OPEN, name)) for name in ("laddr", "faddr", "lport", "fport")]
        self._op = Signal(FlowOp)
        self._aborted = Signal(cfg.id_bits)
        self._iss = Signal(32)
        m.d.comb += [
            self.flow.p.op.eq(self._op),
            self.flow.p.id.eq(Mux(self._op == FlowOp.DMA_ABORT, self._aborted, id)),
            self.flow.p.generation.eq(generation),
            self.flow.p.a.eq(Mux(self._op == FlowOp.OPEN, self._iss, field(Opcode.CLOSE, "snd_end"))),
            self.flow.p.mss.eq(field(Opcode.OPEN, "mss")),
            self.flow.p.rcv_scale.eq(field(Opcode.OPEN, "rcv_scale")),
            self.flow.p.snd_log2.eq(field(Opcode.PROVISION, "snd_log2")),
            self.flow.p.rcv_log2.eq(field(Opcode.PROVISION, "rcv_log2")),
            self.table.p.tuple.eq(tuple_), self.table.p.index.eq(id),
            self.isn_request.payload.eq(tuple_),
            self.endpoint.p.id.eq(id),
            self.endpoint.p.endpoint.tuple.eq(tuple_),
            self.endpoint.p.endpoint.dmac.eq(field(Opcode.OPEN, "dmac")),
            self.endpoint.p.endpoint.use_next_hop.eq(field(Opcode.OPEN, "use_next_hop")),
            self.endpoint.p.endpoint.next_hop.eq(field(Opcode.OPEN, "next_hop")),
            self.snd_ring.payload.id.eq(id),
            self.snd_ring.payload.base.eq(field(Opcode.PROVISION, "snd_base")),
            self.snd_ring.payload.log2.eq(field(Opcode.PROVISION, "snd_log2")),
            self.rcv_ring.payload.id.eq(id),
            self.rcv_ring.payload.base.eq(field(Opcode.PROVISION, "rcv_base")),
            self.rcv_ring.payload.log2.eq(field(Opcode.PROVISION, "rcv_log2")),
            self.clear.payload.eq(id),
            self.stock.payload.eq(id), self.broken.payload.eq(self._aborted),
            self.listen.p.enable.eq(field(Opcode.LISTEN, "opcode") == Opcode.LISTEN),
            self.listen.p.listener.eq(field(Opcode.LISTEN, "listener")),
            self.drop.payload.eq(field(Opcode.SYNCACHE_DROP, "syncache_ref")),
            self.next_hop.payload.index.eq(field(Opcode.NEXT_HOP, "index")),
            self.next_hop.payload.mac.eq(field(Opcode.NEXT_HOP, "dmac")),
            self.frame.p.addr.eq(field(Opcode.SEND_FRAME, "addr")),
            self.frame.p.length.eq(field(Opcode.SEND_FRAME, "length")),
            self._frames.begin.payload.eq(field(Opcode.SEND_FRAME, "tag")),
        ]
        m.d.comb += [self.listen.p[name].eq(field(Opcode.LISTEN, name))
                     for name in ("laddr", "lport", "mss", "rcv_scale", "wnd")]

    def _results_out(self, m):
        """COMMAND_DONE of commands and of frames: merged into one stream."""
        m.submodules.results = results = SkidBuffer(CommandDone)
        frames, command = self._frames.done, self._fetcher.o.p
        # The result of a command waits here; the next command begins when it is gone.
        self._result = stream.Signature(CommandDone).create(path=("result",))
        self._report = Signal()
        self._status = Signal(Status)
        m.d.comb += [
            results.i.valid.eq(self._result.valid | frames.valid),
            results.i.payload.eq(Mux(self._result.valid, self._result.payload, frames.payload)),
            self._result.ready.eq(results.i.ready),
            frames.ready.eq(results.i.ready & ~self._result.valid),
            self.count_bad_command.eq(
                results.o.valid & results.o.ready & (results.o.p.status != Status.OK)),
        ]
        with m.If(self._report):
            m.d.sync += [
                self._result.valid.eq(1),
                self._result.p.argument.eq(Mux(command.failed, command.count, command.dwords[1])),
                self._result.p.opcode.eq(Mux(command.failed, Opcode.NOP, self._field(Opcode.NOP, "opcode"))),
                self._result.p.status.eq(self._status),
                self._result.p.tag.eq(Mux(command.failed, 0, self._field(Opcode.NOP, "tag"))),
            ]
        with m.Elif(self._result.ready):
            m.d.sync += self._result.valid.eq(0)
        wiring.connect(m, results.o, wiring.flipped(self.done))

    def _execute(self, m):
        """One state for each thing asked of another block, one for its answer."""
        command, status = self._fetcher.o, self._status
        opcode = Signal(Opcode)
        timer = Signal(range(CHECK_CYCLES + 2))
        aborting = Signal()   # serves `abort`
        undoing = Signal()    # the pipeline refused: the connection table gets back what it had
        unbinding = Signal()  # that failed: the connection can't be found any more, so it ends
        verdicts, segments = Signal(8), Signal(8)
        verdicts_left, segments_left = Signal(8), Signal(8)
        settled = Signal()
        generation = self._field(Opcode.OPEN, "tid")[16:24]
        m.d.sync += [
            opcode.eq(self._field(Opcode.NOP, "opcode")),
            verdicts_left.eq(verdicts - self.verdicts_done),
            segments_left.eq(segments - self.segments_done),
            settled.eq((verdicts_left.as_signed() <= 0) & (segments_left.as_signed() <= 0)),
        ]
        # What PROVISION, OPEN and RELEASE leave in the memory of ids, besides the generation.
        m.d.comb += self._new.generation.eq(generation)
        inserts = (opcode == Opcode.OPEN) ^ undoing
        m.d.comb += self.table.p.op.eq(Mux(inserts, TableOp.INSERT, TableOp.DELETE))

        def note(openable=0, unbound=0):
            return [self._note.eq(1), self._new.openable.eq(openable), self._new.unbound.eq(unbound)]

        with m.FSM():
            with m.State("Idle"):
                m.d.sync += [
                    timer.eq(CHECK_CYCLES + 1), aborting.eq(0), undoing.eq(0), unbinding.eq(0),
                ]
                with m.If(~self.ready):
                    pass
                with m.Elif(self.abort.valid):
                    m.d.comb += self.abort.ready.eq(1)
                    m.d.sync += [
                        aborting.eq(1), self._op.eq(FlowOp.DMA_ABORT), self._aborted.eq(self.abort.p.id),
                    ]
                    m.next = "Flow"
                with m.Elif(command.valid & ~self._result.valid):
                    m.next = "Check"

            with m.State("Check"):
                m.d.sync += [timer.eq(timer - 1), status.eq(self._check.status)]
                with m.Switch(opcode):
                    for code, op in FLOW_COMMANDS.items():
                        with m.Case(code):
                            m.d.sync += self._op.eq(op)
                with m.If(timer == 0):
                    with m.If(command.p.failed):
                        m.d.sync += status.eq(Status.DMA_ERROR)
                        m.next = "Report"
                    with m.Elif(self._check.status != Status.OK):
                        m.next = "Report"
                    with m.Else():
                        m.next = "Begin"

            with m.State("Begin"):
                with m.Switch(opcode):
                    with m.Case(Opcode.PROVISION, Opcode.CLOSE, Opcode.ABORT, Opcode.PATH_MTU):
                        m.next = "Flow"
                    with m.Case(Opcode.OPEN):
                        with m.If(~self._known.openable):
                            m.d.sync += status.eq(Status.BAD_STATE)
                            m.next = "Report"
                        with m.Elif(self._known.generation != generation):
                            m.d.sync += status.eq(Status.BAD_GENERATION)
                            m.next = "Report"
                        with m.Else():
                            m.next = "Isn"
                    with m.Case(Opcode.RELEASE):
                        with m.If(self._known.generation != generation):
                            m.d.sync += status.eq(Status.BAD_GENERATION)
                            m.next = "Report"
                        with m.Elif(self._known.unbound):
                            m.next = "Flow"
                        with m.Else():
                            m.next = "Table"
                    with m.Case(Opcode.LISTEN, Opcode.UNLISTEN):
                        m.next = "Listen"
                    with m.Case(Opcode.SYNCACHE_DROP):
                        m.next = "Drop"
                    with m.Case(Opcode.NEXT_HOP):
                        m.d.comb += self.next_hop.valid.eq(1)
                        m.next = "Finish"
                    with m.Case(Opcode.SEND_FRAME):
                        with m.If(self._frames.begin.ready):
                            m.next = "Frame"
                    with m.Default():
                        m.next = "Finish"

            # ---- OPEN: initial sequence number, connection table, endpoint; then the pipeline
            with m.State("Isn"):
                m.d.comb += self.isn_request.valid.eq(1)
                with m.If(self.isn_request.ready):
                    m.next = "Isn answer"
            with m.State("Isn answer"):
                m.d.comb += self.isn.ready.eq(1)
                m.d.sync += self._iss.eq(self.isn.payload)
                with m.If(self.isn.valid):
                    m.next = "Table"

            # ---- OPEN, RELEASE: connection table, and the change undone
            with m.State("Table"):
                m.d.comb += self.table.valid.eq(1)
                with m.If(self.table.ready):
                    m.next = "Table answer"
            with m.State("Table answer"):
                m.d.comb += self.table_status.ready.eq(1)
                failed = self.table_status.p.status != Status.OK
                with m.If(self.table_status.valid):
                    with m.If(undoing):
                        m.next = "Report"
                        with m.If(failed & (opcode == Opcode.RELEASE)):
                            m.d.sync += [unbinding.eq(1), self._op.eq(FlowOp.ABORT)]
                            m.next = "Flow"
                    with m.Elif(failed):
                        m.d.sync += status.eq(self.table_status.p.status)
                        m.next = "Report"
                    with m.Elif(opcode == Opcode.OPEN):
                        m.next = "Endpoint"
                    with m.Else():
                        m.next = "Flow"
            with m.State("Endpoint"):
                m.d.comb += self.endpoint.valid.eq(1)
                with m.If(self.endpoint.ready):
                    m.next = "Flow"

            # ---- the pipeline
            with m.State("Flow"):
                m.d.comb += self.flow.valid.eq(1)
                with m.If(self.flow.ready):
                    m.next = "Flow answer"
            with m.State("Flow answer"):
                m.d.comb += self.flow_status.ready.eq(1)
                m.d.sync += [verdicts.eq(self.verdicts_issued), segments.eq(self.segments_issued)]
                m.d.sync += timer.eq(CHECK_CYCLES)
                ok = self.flow_status.p.status == Status.OK
                with m.If(self.flow_status.valid):
                    with m.If(~aborting & ~unbinding):
                        m.d.sync += status.eq(self.flow_status.p.status)
                    m.next = "Report"
                    with m.If(aborting):
                        m.next = "Broken"
                    with m.Elif(unbinding):
                        m.d.comb += note(unbound=1)
                    with m.Elif(ok):
                        with m.Switch(opcode):
                            with m.Case(Opcode.PROVISION):
                                m.next = "Provision"
                            with m.Case(Opcode.OPEN):
                                m.d.comb += note()
                            with m.Case(Opcode.RELEASE):
                                m.d.comb += note()
                                m.next = "Settle"
                    with m.Elif((opcode == Opcode.OPEN) | ((opcode == Opcode.RELEASE) & ~self._known.unbound)):
                        m.d.sync += undoing.eq(1)
                        m.next = "Table"

            with m.State("Broken"):
                m.d.comb += self.broken.valid.eq(1)
                with m.If(self.broken.ready):
                    m.next = "Idle"

            with m.State("Provision"):
                stock = self._field(Opcode.PROVISION, "stock")
                m.d.comb += note(openable=~stock, unbound=~stock)
                m.d.comb += [self.snd_ring.valid.eq(1), self.rcv_ring.valid.eq(1), self.clear.valid.eq(1)]
                m.next = "Finish"
                with m.If(stock):
                    m.next = "Stock"
            with m.State("Stock"):
                m.d.comb += self.stock.valid.eq(1)
                with m.If(self.stock.ready):
                    m.next = "Finish"
            with m.State("Settle"):
                # Until `settled` has seen the counts noted.
                with m.If(timer != 0):
                    m.d.sync += timer.eq(timer - 1)
                with m.Elif(settled):
                    m.next = "Report"

            # ---- the rest
            with m.State("Listen"):
                m.d.comb += self.listen.valid.eq(1)
                with m.If(self.listen.ready):
                    m.next = "Listen answer"
            with m.State("Listen answer"):
                m.d.comb += self.listen_status.ready.eq(1)
                m.d.sync += status.eq(self.listen_status.p.status)
                with m.If(self.listen_status.valid):
                    m.next = "Report"
            with m.State("Drop"):
                m.d.comb += self.drop.valid.eq(1)
                with m.If(self.drop.ready):
                    m.next = "Drop answer"
            with m.State("Drop answer"):
                m.d.comb += self.drop_status.ready.eq(1)
                m.d.sync += status.eq(self.drop_status.p.status)
                with m.If(self.drop_status.valid):
                    m.next = "Report"
            with m.State("Frame"):
                m.d.comb += self.frame.valid.eq(1)
                with m.If(self.frame.ready):
                    m.d.comb += self._frames.begin.valid.eq(1)
                    m.next = "Finish"

            with m.State("Report"):
                with m.Switch(opcode):
                    with m.Case(*ALWAYS_DONE):
                        m.d.comb += self._report.eq(1)
                    with m.Default():
                        m.d.comb += self._report.eq((status != Status.OK) | command.p.failed)
                m.next = "Finish"
            with m.State("Finish"):
                m.d.comb += command.ready.eq(1)
                m.next = "Idle"
