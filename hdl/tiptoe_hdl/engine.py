"""The engine: every block and the wires between them. No logic here."""

from amaranth.hdl import Cat, Module, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .config import EngineConfig
from .flow.connection_table import ConnectionTable
from .flow.flow import Flow
from .host.axi import Axi4ReadSignature, Axi4WriteSignature, AxiLiteSignature
from .host.clocks import Clocks
from .host.commands import CommandProcessor
from .host.counters import CounterBank, PulseMerge
from .host.dma_read import DmaReader
from .host.dma_write import DmaWriter
from .host.errors import ErrorMerge
from .host.events import EventWriter
from .host.registers import Registers
from .host.watchdog import Watchdog
from .listen.cookies import SynCookies
from .listen.isn import IsnGenerator
from .listen.listen_unit import ListenUnit
from .messages import Counter, frame_info, tx_control
from .rx.alias import PeerAlias
from .rx.buffer import RxBuffer
from .rx.dispatcher import Dispatcher
from .rx.gate import Gate
from .rx.parser import RxParser
from .rx.placement import Placement
from .rx.untag import Untagger
from .tx.control_queue import ControlQueue
from .tx.gate import TxGate
from .tx.path import TxPath
from .tx.tag import Tagger
from .wire.axi_stream import AxiStreamSignature
from .wire.connect import connect_same
from .wire.half_buffer import HalfBuffer
from .wire.queue import HalfQueue
from .wire.skid import SkidBuffer
from .wire.stage import Stage
from .wire.stream_merge import StreamMerge
from .wire.token_bucket import TokenBucket

PAYLOAD, RINGS = range(2)
"""Clients of the DMA engines: payload of segments; commands (read) and events (write)."""

COMMANDS, LISTEN = range(2)
"""Clients of the connection table, the ISN generator, the endpoint table and the TCP pipeline."""

FRAMES_AWAITING_VERDICT = 16
"""Frames between dispatcher and placement: a verdict takes about 20 cycles, in which the shortest frames keep coming."""

WHOLE_FRAMES = ("gate", "tx_gate")
"""Blocks that know where in a frame their port is: a soft reset goes past them."""


class Engine(wiring.Component):
    """A TCP offload engine between a host's memory and an Ethernet MAC.

    Ports (docs/interfaces.md; flat AXI names in Verilog)
    -----------------------------------------------------
    s_axil : AXI4-Lite slave, 32-bit data, 20-bit address
        Registers and doorbells.
    m_axi_read, m_axi_write : AXI4 master, ``cfg.data_width`` bits
        Host memory: the read and the write channels of one port.
    s_axis_rx, m_axis_tx : AXI4-Stream
        Frames without FCS. ``tuser`` in the last received beat marks a frame as damaged.
    irq : Out(1)
        Level; see IRQ_STATUS and IRQ_MASK.
    tick : In(1)
        One cycle per timer tick when CONTROL.EXTERNAL_TICK is set.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "s_axil": In(AxiLiteSignature()),
                "m_axi_read": Out(Axi4ReadSignature(cfg.addr_width, cfg.data_width)),
                "m_axi_write": Out(Axi4WriteSignature(cfg.addr_width, cfg.data_width)),
                "s_axis_rx": In(AxiStreamSignature(cfg.data_width, user_width=1)),
                "m_axis_tx": Out(AxiStreamSignature(cfg.data_width)),
                "irq": Out(1),
                "tick": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._make_blocks(m)
        self._connect_receive(m)
        self._connect_transmit(m)
        self._connect_tables(m)
        self._connect_host(m)
        self._connect_watchdog(m)
        self._connect_configuration(m)
        self._connect_counters(m)
        return m

    def _make_blocks(self, m):
        cfg = self._cfg
        m.submodules.registers = self.registers = registers = Registers(cfg)
        blocks = {
            "gate": Gate(cfg), "parser": RxParser(cfg), "buffer": RxBuffer(cfg), "dispatcher": Dispatcher(cfg),
            "infos": HalfQueue(frame_info(cfg), FRAMES_AWAITING_VERDICT), "placement": Placement(cfg), "flow": Flow(cfg),
            "table": ConnectionTable(cfg), "listen": ListenUnit(cfg),
            "isn": IsnGenerator(cfg), "tx": TxPath(cfg), "tx_gate": TxGate(cfg), "controls": StreamMerge(tx_control(cfg), 3),
            "cookies": SynCookies(cfg),
            "control_queue": ControlQueue(tx_control(cfg)), "reset_limit": TokenBucket(), "challenge_limit": TokenBucket(),
            "invalid_limit": TokenBucket(),
            "commands": CommandProcessor(cfg), "events": EventWriter(cfg), "counters": CounterBank(),
            "errors": ErrorMerge(5), "watchdog": Watchdog(), "clocks": Clocks(),
            "reader": DmaReader(cfg, 2, max_outstanding=64), "writer": DmaWriter(cfg, 2, max_outstanding=64),
        }  # fmt: skip
        if cfg.vlan:
            blocks |= {"untagger": Untagger(cfg), "tagger": Tagger(cfg)}
        if cfg.ipv6:
            blocks |= {"alias": PeerAlias(cfg)}
        self._names = tuple(blocks)
        # One for all blocks: so wide a net can go by a global network of the chip.
        self._soft_reset = Signal()
        m.d.sync += self._soft_reset.eq(registers.soft_reset)
        for name, block in blocks.items():
            setattr(self, f"_{name}", block)
            m.submodules[name] = block if name in WHOLE_FRAMES else ResetInserter(self._soft_reset)(block)

    def _link(self, m, name, source, sink, buffer=HalfBuffer):
        """Connect two ports through registers, so that no path leads through both blocks."""
        buffer = (buffer if hasattr(source, "ready") else Stage)(source.payload.shape())
        m.submodules[f"link_{name}"] = ResetInserter(self._soft_reset)(buffer)
        connect_same(m, source, buffer.i)
        connect_same(m, buffer.o, sink)

    def _connect_receive(self, m):
        rx, gate = self.s_axis_rx, self._gate
        m.d.comb += [
            gate.i.valid.eq(rx.tvalid),
            rx.tready.eq(gate.i.ready),
            gate.i.payload.data.eq(rx.tdata),
            gate.i.payload.keep.eq(rx.tkeep),
            gate.i.payload.last.eq(rx.tlast),
            gate.i.payload.error.eq(rx.tuser),
        ]
        parser, buffer, dispatcher, placement = self._parser, self._buffer, self._dispatcher, self._placement
        if self._cfg.vlan:
            connect_same(m, gate.o, self._untagger.i)
            connect_same(m, self._untagger.o, parser.i)
            m.d.comb += parser.foreign.eq(self._untagger.foreign)
        else:
            connect_same(m, gate.o, parser.i)
        if self._cfg.ipv6:  # has the link's register
            connect_same(m, parser.meta, self._alias.i)
            connect_same(m, self._alias.o, dispatcher.meta)
        else:
            self._link(m, "meta", parser.meta, dispatcher.meta)
        self._link(m, "block", parser.block, dispatcher.block)
        connect_same(m, dispatcher.sack, self._flow.sack_block)
        connect_same(m, dispatcher.segment, self._flow.segment)
        connect_same(m, dispatcher.info, self._infos.i)
        connect_same(m, self._infos.o, placement.info)
        connect_same(m, self._flow.verdict, placement.verdict)
        connect(m, parser.store, buffer.store)
        m.d.comb += parser.room.eq(buffer.room)
        connect(m, placement.read, buffer.read)
        self._link(m, "placement_request", placement.request, self._writer.request[PAYLOAD])
        self._link(m, "placement_data", placement.data, self._writer.data[PAYLOAD], SkidBuffer)
        self._link(m, "payload_done", self._writer.done[PAYLOAD], placement.done, SkidBuffer)
        self._link(m, "rcv_ring", self._commands.rcv_ring, placement.ring)
        self._link(m, "placed", placement.placed, self._events.placed)
        self._link(m, "frame_event", placement.frame, self._events.frame)
        self._link(m, "abort", placement.abort, self._commands.abort)

    def _connect_transmit(self, m):
        tx, reader, flow, commands = self._tx, self._reader, self._flow, self._commands
        connect_same(m, flow.tx, tx.segment)
        m.d.comb += [
            flow.sack_id.eq(tx.sack_id), tx.sack.eq(flow.sack), flow.stamp_id.eq(tx.stamp_id), tx.stamp.eq(flow.stamp),
            flow.ts_now.eq(self._clocks.ts_now), tx.ts_now.eq(self._clocks.ts_now),
        ]  # fmt: skip
        connect_same(m, self._dispatcher.control, self._controls.i[0])
        connect_same(m, self._listen.control, self._controls.i[1])
        connect_same(m, self._controls.o, self._control_queue.i)
        connect_same(m, self._control_queue.o, tx.control)
        self._link(m, "host_frame", commands.frame, tx.frame)
        self._link(m, "frame_done", tx.frame_done, commands.frame_done)
        for client, block in ((COMMANDS, commands), (LISTEN, self._listen)):
            self._link(m, f"endpoint_{client}", block.endpoint, tx.endpoint[client])
        self._link(m, "snd_ring", commands.snd_ring, tx.ring)
        self._link(m, "next_hop", commands.next_hop, tx.next_hop)
        self._link(m, "ip_header", commands.ip_header, tx.ip_header)
        connect_same(m, tx.request, reader.request[PAYLOAD])
        self._link(m, "payload", reader.data[PAYLOAD], tx.data, SkidBuffer)
        if self._cfg.vlan:
            connect_same(m, tx.o, self._tagger.i)
            connect_same(m, self._tagger.o, self._tx_gate.i)
        else:
            connect_same(m, tx.o, self._tx_gate.i)
        axis, beat = self.m_axis_tx, self._tx_gate.o
        m.d.comb += [
            axis.tvalid.eq(beat.valid), beat.ready.eq(axis.tready),
            axis.tdata.eq(beat.payload.data), axis.tkeep.eq(beat.payload.keep), axis.tlast.eq(beat.payload.last),
        ]  # fmt: skip

    def _connect_tables(self, m):
        table, isn, flow = self._table, self._isn, self._flow
        self._link(m, "lookup", self._dispatcher.lookup, table.lookup)
        connect_same(m, table.result, self._dispatcher.result)
        dispatcher, listen = self._dispatcher, self._listen
        connect_same(m, dispatcher.find, listen.find)
        connect_same(m, listen.found, dispatcher.found)
        connect_same(m, dispatcher.syn, listen.syn)
        connect_same(m, dispatcher.unserved, self._cookies.i)
        connect_same(m, dispatcher.handshake, listen.handshake)
        connect_same(m, listen.verdict, dispatcher.verdict)
        m.d.comb += dispatcher.opening.eq(listen.opening)
        m.d.sync += [
            dispatcher.room.eq(listen.room), dispatcher.room_for_returned.eq(listen.room_for_returned),
            listen.pressure.eq(dispatcher.count_syn_dropped_full),
        ]  # fmt: skip
        self._connect_cookies(m)
        self._connect_limits(m)
        for client, block in ((COMMANDS, self._commands), (LISTEN, self._listen)):
            connect_same(m, block.table, table.update[client])
            connect_same(m, table.status[client], block.table_status)
            connect_same(m, block.isn_request, isn.request[client])
            connect_same(m, isn.iss[client], block.isn)
            self._link(m, f"flow_request_{client}", block.flow, flow.request[client])
            connect_same(m, flow.response[client], block.flow_status)
        m.d.comb += self._commands.tcb_page.eq(flow.tcb_page)

    def _connect_cookies(self, m):
        dispatcher, listen, cookies, r = self._dispatcher, self._listen, self._cookies, self.registers
        self._link(m, "cookie_asked", dispatcher.cookie, cookies.ask)
        self._link(m, "cookie_made", cookies.control, self._controls.i[2])
        m.d.comb += [
            listen.cookie_index.eq(cookies.index),
            cookies.entry.eq(listen.cookie_entry),
            cookies.changing.eq(listen.changing),
            cookies.tick_time.eq(self._clocks.tick_time), cookies.room.eq(self._control_queue.room),
            dispatcher.cookies_recent.eq(cookies.recent),
            dispatcher.cookies_current.eq(cookies.current), dispatcher.cookies_before.eq(cookies.before),
            dispatcher.cookie_answered.eq(cookies.answered), dispatcher.cookie_good.eq(cookies.good),
        ]  # fmt: skip
        m.d.sync += [
            cookies.key.eq(r.cookie_key),
            cookies.offers.sack.eq(r.sack),
            cookies.offers.ecn.eq(r.ecn.any()),
            cookies.offers.timestamps.eq(r.timestamps),
            listen.syn_cookies.eq(r.syn_cookies & ~r.syn_to_host),
            listen.sack.eq(r.sack),
            listen.ecn.eq(r.ecn.any()),
            listen.timestamps.eq(r.timestamps),
            dispatcher.cookies.eq(r.syn_cookies & ~r.syn_to_host),
        ]

    def _connect_limits(self, m):
        """How many answers leave to segments of nobody, and to those that connections, half-open ones apart, do not take
        (RFC 5961 section 7)."""
        dispatcher, listen, queue = self._dispatcher, self._listen, self._control_queue
        resets, challenges, r = self._reset_limit, self._challenge_limit, self.registers
        invalid, flow = self._invalid_limit, self._flow
        m.d.comb += [
            resets.tick.eq(self._clocks.tick), challenges.tick.eq(self._clocks.tick),
            challenges.spend.eq(listen.count_challenge_acks),
            invalid.tick.eq(self._clocks.tick), invalid.spend.eq(flow.challenged), flow.may_challenge.eq(invalid.available),
            listen.may_reset.eq(resets.available), listen.may_challenge.eq(challenges.available),
            listen.control_room.eq(queue.room),
        ]  # fmt: skip
        m.d.sync += [
            resets.spend.eq(dispatcher.reset_sent | listen.reset_sent),
            dispatcher.may_reset.eq(resets.available & queue.room_for_resets),
            resets.rate.eq(r.rst_rate), resets.burst.eq(r.rst_burst),
            challenges.rate.eq(r.challenge_rate), challenges.burst.eq(r.challenge_burst),
            invalid.rate.eq(r.challenge_rate), invalid.burst.eq(r.challenge_burst), flow.invalid_ticks.eq(r.invalid_ticks),
        ]  # fmt: skip

    def _connect_host(self, m):
        registers, commands, events, flow = self.registers, self._commands, self._events, self._flow
        reader, writer = self._reader, self._writer
        connect(m, flipped(self.s_axil), registers.axil)
        connect(m, reader.axi, flipped(self.m_axi_read))
        connect(m, writer.axi, flipped(self.m_axi_write))
        connect_same(m, registers.doorbell, flow.doorbell)
        self._link(m, "command_request", commands.request, reader.request[RINGS])
        self._link(m, "command_data", reader.data[RINGS], commands.data, SkidBuffer)
        self._link(m, "event_request", events.request, writer.request[RINGS])
        self._link(m, "event_data", events.data, writer.data[RINGS], SkidBuffer)
        self._link(m, "event_done", writer.done[RINGS], events.dma_done, SkidBuffer)
        self._link(m, "done", commands.done, events.done)
        self._link(m, "clear", commands.clear, events.clear)
        self._link(m, "broken", commands.broken, events.broken)
        self._link(m, "stock", commands.stock, self._listen.stock)
        self._link(m, "listen", commands.listen, self._listen.listen)
        connect_same(m, self._listen.listen_status, commands.listen_status)
        self._link(m, "drop", commands.drop, self._listen.drop)
        connect_same(m, self._listen.drop_status, commands.drop_status)
        self._link(m, "syn_event", self._listen.event, events.syn)
        connect_same(m, flow.notify, events.notify)
        self._link(m, "report_request", events.report_request, flow.report_request)
        connect_same(m, flow.report, events.report)
        for k, block in enumerate((registers, commands, self._tx, self._placement, self._watchdog)):
            connect_same(m, block.error, self._errors.i[k])
        connect_same(m, self._errors.o, events.error)
        m.d.comb += [
            commands.arrivals_issued.eq(self._dispatcher.arrivals_issued),
            commands.arrivals_done.eq(self._placement.arrivals_done),
            commands.segments_issued.eq(flow.segments_issued),
            commands.segments_done.eq(self._tx.segments_done),
            reader.quiesce.eq(registers.quiesce),
            writer.quiesce.eq(registers.quiesce),
            registers.quiet.eq(reader.quiet & writer.quiet & self._tx_gate.quiet),
            registers.event_irq.eq(events.event_irq),
            registers.error_irq.eq(events.error_irq),
            registers.event_pending.eq(events.pending),
            self.irq.eq(registers.irq),
        ]
        m.d.sync += self._tx_gate.quiesce.eq(registers.quiesce)

    def _connect_watchdog(self, m):
        watchdog, commands, events, doorbell = self._watchdog, self._commands, self._events, self._flow.doorbell
        m.d.comb += [
            watchdog.tick.eq(self._clocks.tick), watchdog.ticks.eq(self.registers.watchdog_ticks),
            self.registers.stalled.eq(watchdog.stalled),
        ]  # fmt: skip
        m.d.sync += [
            # As in abi.WATCHED. While the host sleeps, commands may wait for room for their answers.
            watchdog.waiting.eq(
                Cat(commands.waiting & ~events.asleep, doorbell.valid, events.waiting, events.asleep)
            ),
            watchdog.progress.eq(
                Cat(commands.progress, doorbell.valid & doorbell.ready, events.progress, ~events.asleep)
            ),
        ]  # fmt: skip

    def _connect_configuration(self, m):
        r, listen, clocks = self.registers, self._listen, self._clocks
        m.d.comb += [
            clocks.external.eq(r.external_tick), clocks.external_tick.eq(self.tick),
            clocks.tick_cycles.eq(r.tick_cycles),
            clocks.ts_offset.eq(r.ts_offset),
            r.tick_time.eq(clocks.tick_time), r.isn_time.eq(clocks.isn_time),
            self._flow.tick.eq(clocks.tick), listen.tick.eq(clocks.tick), self._isn.isn_clock.eq(clocks.isn_time),
            self._placement.host_consumer.eq(r.frame_consumer),
            self._commands.tail.eq(r.command_tail), r.command_head.eq(self._commands.head),
            self._events.consumer.eq(r.event_consumer), r.event_producer.eq(self._events.producer),
        ]  # fmt: skip
        m.d.comb += [self._gate.enable.eq(r.enable), self._gate.cut.eq(r.soft_reset)]  # the gate has its register
        # Settings change while nothing happens: a register on the way spares the blocks the distance.
        m.d.sync += [
            r.ready.eq(self._flow.ready & self._table.ready & self._events.ready & self._commands.ready & listen.ready),
            self._parser.mac.eq(r.mac), self._parser.ip.eq(r.ip_addr), self._parser.promiscuous.eq(r.promiscuous),
            self._dispatcher.rst_unknown.eq(r.rst_unknown), self._dispatcher.syn_to_host.eq(r.syn_to_host),
            self._placement.host_base.eq(r.frame_base), self._placement.host_slots_log2.eq(r.frame_log2),
            self._placement.host_enable.eq(r.enable),
            self._tx.mac.eq(r.mac), self._tx.ttl.eq(r.ttl), self._tx.tos.eq(r.tos),
            self._table.hash_key.eq(r.hash_key), self._isn.isn_key.eq(r.isn_key),
            listen.syn_retries.eq(r.syn_retries), listen.syn_to_host.eq(r.syn_to_host),
            self._commands.enable.eq(r.enable), self._commands.base.eq(r.command_base),
            self._commands.log2.eq(r.command_log2),
            self._events.enable.eq(r.enable), self._events.base.eq(r.event_base), self._events.log2.eq(r.event_log2),
            *(
                Value.cast(self._flow.parameters[name]).eq(getattr(r, name))
                for name in ("rto_min", "rto_max", "rto_initial", "delack_ticks", "msl_ticks", "rexmt_max", "sack",
                             "ecn", "timestamps", "quick_ack", "algorithm_initial")
            ),
            self._flow.tick_us.eq(r.tick_us),
        ]  # fmt: skip

        if self._cfg.ipv6:
            m.d.sync += [
                self._parser.ip6.eq(r.ip6_addr), self._tx.ip6.eq(r.ip6_addr), self._alias.key.eq(r.alias_key),
            ]  # fmt: skip
        if self._cfg.vlan:
            m.d.sync += [
                *(block.enable.eq(r.vlan_tag) for block in (self._untagger, self._tagger)),
                *(block.id.eq(r.vlan_id) for block in (self._untagger, self._tagger)),
                self._tagger.priority.eq(r.vlan_priority),
            ]

    def _connect_counters(self, m):
        bank = self._counters
        m.d.comb += [bank.index.eq(self.registers.counter_index), self.registers.counter_value.eq(bank.value)]
        blocks = [self.registers, *(getattr(self, f"_{name}") for name in self._names)]
        for counter in Counter:
            name = f"count_{counter.name.lower()}"
            sources = [
                getattr(block, name) for block in blocks if block is not bank and name in block.signature.members
            ]
            if not sources:
                raise TypeError(f"no block counts {counter.name}")
            for number, source in enumerate(sources):  # counts come from everywhere, and have time
                sources[number] = Signal(len(Value.cast(source)), name=f"{name}_{number}")
                m.d.sync += sources[number].eq(source)
            if len(sources) == 1:
                m.d.comb += getattr(bank, name).eq(sources[0])
                continue
            m.submodules[f"merge_{counter.name.lower()}"] = merge = PulseMerge(len(sources))
            m.d.comb += [merge.i.eq(Cat(sources)), getattr(bank, name).eq(merge.o)]
