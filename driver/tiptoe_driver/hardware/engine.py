"""The engine as hardware: bring-up, command and event rings, dispatch of events, doorbells.

What the events mean to TCP is the business of the toe files; ids and their rings are in ids.py.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from . import abi_gen as abi
from .alias import KEYS, alias, on_v6
from .device import Device
from .gate import DeviceGate
from .ids import ConnectionIds
from .limits import check_addresses, check_ids, power_up_values
from .memory import HostMemory, RingPool
from .options import (
    ETHERNET_BYTES,
    PACING_FRACTION,
    DeviceError,
    EngineOptions,
    ecn_bits,
    identify,
    pacing_interval,
    vlan_register,
)
from .positions import MASK
from .rings import CommandRing, EventRing
from .toepcb import TP_READY, TP_RELEASING, TP_STOCK, toepcb
from .user_buffers import UserBuffers


class EngineClient(Protocol):
    """Who gets the engine's events."""

    def connection_event(self, toep: toepcb, event: abi.ConnectionEvent) -> None:
        """A snapshot of a connection that the engine may speak of."""

    def open_failed(self, toep: toepcb, status: int) -> None:
        """OPEN was refused."""

    def syn_received(self, event: abi.SynReceivedEvent) -> None:
        """A half-open connection exists."""

    def syn_address(self, event: abi.SynAddressEvent) -> None:
        """The peer's IPv6 address of a half-open connection that is told of next."""

    def syncache_gone(self, event: abi.SyncacheGoneEvent) -> None:
        """A half-open connection is no more."""

    def frame_received(self, frame: memoryview) -> None:
        """A frame for the host; valid until the return."""

    def standstill_event(self) -> None:
        """The engine's watchdog has found something: STATUS says what."""


class Engine:
    """One attached engine.

    Parameters
    ----------
    mac, address : int
        Own MAC and IPv4 address.
    address6 : int
        Own IPv6 address; 0: none.
    mtu : int
        Of the interface; ValueError if the engine does not carry such packets.

    Attributes
    ----------
    capabilities : Capabilities
        Sizes of the engine.
    congestion : Congestion
        The algorithm with which its connections begin.
    counters : Counter
        What went wrong, by name: stale_events, bad_positions, failed_commands, lost_ids...
    ids : ConnectionIds
        The connection ids.
    running : bool
        The engine is on: its events are taken.
    buffers : UserBuffers
        Memory that applications own.
    observers : list of functions
        Called with each event, when it has been handled. They must not block nor raise.
    """

    EVENT_BATCH = 64
    """Events handled before the engine may reuse their entries."""

    def __init__(
        self,
        device: Device,
        client: EngineClient,
        mac: int,
        address: int,
        options: EngineOptions,
        address6: int = 0,
        mtu: int = 1500,
    ) -> None:
        check_addresses(mac, address)
        self._address6 = address6
        self._alias_key = 0
        self.counters: Counter[str] = Counter()
        self.device = device = DeviceGate(device, self.counters)
        self.options = options
        self.client = client
        self._addresses = mac, address
        self._unknown_to_host = False
        self._rng = random.Random(options.seed) if options.seed is not None else random.SystemRandom()
        self.capabilities = caps = identify(device)
        self._timestamp_offset = 0
        self.congestion = caps.congestion_default(options.congestion)
        caps.check_mtu(mtu)
        check_ids(caps.connections, options.stock, options.active_reserve)
        if options.vlan is not None and not caps.vlan:
            raise ValueError("vlan: this engine was built without 802.1Q tags")
        if address6 and not caps.ipv6:
            raise ValueError("ipv6: this engine was built without IPv6")
        if options.ecn == "offer" and not caps.ecn:
            raise ValueError("ecn: this engine does not know it")
        if not self._reset():
            raise DeviceError("the engine does not come out of reset")
        reachable = min(len(device.memory), 1 << caps.addr_width)
        limit = reachable if options.memory_limit is None else min(reachable, options.memory_limit)
        self.memory = HostMemory(device.memory, options.memory_base, limit)
        entries = options.command_entries or min(max(64, 4 * caps.connections), 16384)
        self._command_block = self.memory.allocate(entries * abi.COMMAND_BYTES)
        # Room for everything that can be under way at once: the engine never waits for the host.
        syn_events = 3 if caps.ipv6 else 2
        events = caps.connections + syn_events * caps.syncache_entries + entries + options.frame_slots + 16
        self._event_block = self.memory.allocate(events * abi.EVENT_BYTES)
        self._frame_block = self.memory.allocate(options.frame_slots * caps.frame_slot_bytes)
        self.commands = CommandRing(device, self._command_block, options.command_reserve or entries // 4)
        self.events = EventRing(device, self._event_block)
        self._configure()
        reserve = max(1, caps.connections // 16) if options.active_reserve is None else options.active_reserve
        self.ids = ConnectionIds(
            caps.connections,
            caps.connections // 2 if options.stock is None else options.stock,
            reserve,
            self.commands,
            RingPool(self.memory, options.snd_ring_bytes, options.rcv_ring_bytes, caps.ring_bytes_min),
            self.counters,
        )
        self.buffers = UserBuffers(
            self.memory, reachable, options.snd_ring_bytes, options.rcv_ring_bytes, caps.ring_bytes_min
        )
        self.observers: list[Callable[[abi.Event], None]] = []
        self._handlers: dict[type, Callable[..., None]] = {
            abi.ConnectionEvent: self._connection,
            abi.SynReceivedEvent: client.syn_received,
            abi.SynAddressEvent: client.syn_address,
            abi.SyncacheGoneEvent: client.syncache_gone,
            abi.CommandDoneEvent: self._command_done,
            abi.FrameEvent: self._frame,
            abi.ErrorEvent: self._error,
        }

    # ------------------------------------------------------------------ bring-up

    def _reset(self) -> bool:
        """Soft reset: its bus transfers end, its memories are scrubbed. Whether the engine has come out of it."""
        self._ask_reset()
        for _ in range(10_000):
            if self._came_out():
                return True
            if self.device.gone:
                return False
            self.device.wait(100)
        return False

    def _ask_reset(self) -> None:
        self.device.write32(abi.REG_IRQ_MASK, 0)
        self.device.write32(abi.REG_CONTROL, abi.CONTROL_SOFT_RESET)

    def _came_out(self) -> bool:
        """Whether the soft reset asked for is over."""
        device = self.device
        if (
            device.read32(abi.REG_CONTROL) & abi.CONTROL_SOFT_RESET
            or not device.read32(abi.REG_STATUS) & abi.STATUS_READY
            or device.gone
        ):
            return False
        device.write32(abi.REG_IRQ_STATUS, abi.IRQ_STATUS_EVENT | abi.IRQ_STATUS_ERROR)
        return True

    def _configure(self) -> None:
        """Tell the engine addresses, rings and keys, and switch it on."""
        device, options, rng = self.device, self.options, self._rng
        mac, address = self._addresses
        command_block, event_block = self._command_block, self._event_block
        registers = {
            **power_up_values(),
            abi.REG_MAC_LO: mac & MASK,
            abi.REG_MAC_HI: mac >> 32,
            abi.REG_IP_ADDR: address,
            abi.REG_COMMAND_RING_LO: command_block.address & MASK,
            abi.REG_COMMAND_RING_HI: command_block.address >> 32,
            abi.REG_COMMAND_RING_LOG2: (self.commands.entries - 1).bit_length(),
            abi.REG_EVENT_RING_LO: event_block.address & MASK,
            abi.REG_EVENT_RING_HI: event_block.address >> 32,
            abi.REG_EVENT_RING_LOG2: (self.events.entries - 1).bit_length(),
            abi.REG_FRAME_RING_LO: self._frame_block.address & MASK,
            abi.REG_FRAME_RING_HI: self._frame_block.address >> 32,
            abi.REG_FRAME_RING_LOG2: (options.frame_slots - 1).bit_length(),
            **{abi.REG_ISN_KEY + 4 * n: rng.getrandbits(32) for n in range(4)},
            **{abi.REG_HASH_KEY + 4 * n: rng.getrandbits(32) for n in range(2)},
            **{abi.REG_COOKIE_KEY + 4 * n: rng.getrandbits(32) for n in range(2)},
            abi.REG_CONGESTION_CONTROL: self.congestion << abi.CONGESTION_CONTROL_DEFAULT_SHIFT
            | min(options.tick_us, 0xFFFF) << abi.CONGESTION_CONTROL_TICK_US_SHIFT,
            **options.registers,
        }
        if self.capabilities.vlan:
            registers[abi.REG_VLAN] = vlan_register(options)
        if self.capabilities.ipv6:
            self._alias_key = rng.getrandbits(32 * KEYS)
            for n in range(KEYS):
                registers[abi.REG_ALIAS_KEY + 4 * n] = self._alias_key >> 32 * n & MASK
            for n in range(4):
                registers[abi.REG_IP6_ADDR + 4 * n] = self._address6 >> 32 * n & MASK
        if self.capabilities.timestamps:
            registers[abi.REG_TIMESTAMP_OFFSET] = self._timestamp_offset = rng.getrandbits(32)
        for register, value in registers.items():
            device.write32(register, value)
        device.write32(abi.REG_IRQ_MASK, abi.IRQ_MASK_EVENT | abi.IRQ_MASK_ERROR)
        self._control()
        self._frames_taken = self._frames_told = 0
        self.running = True

    def _control(self) -> None:
        options = self.options
        self.device.write32(
            abi.REG_CONTROL,
            abi.CONTROL_ENABLE
            | (abi.CONTROL_EXTERNAL_TICK if options.external_tick else 0)
            | (0 if self.host_answers else abi.CONTROL_RST_UNKNOWN)
            | (abi.CONTROL_SYN_TO_HOST if options.syn_to_host else 0)
            | (abi.CONTROL_SYN_COOKIES if options.syn_cookies else 0)
            | (abi.CONTROL_SACK if options.sack else 0)
            | ecn_bits(options, self.capabilities)
            | (abi.CONTROL_TIMESTAMPS if self.timestamps else 0)
            | (abi.CONTROL_QUICK_ACK if options.quick_ack else 0)
            | (abi.CONTROL_PROMISCUOUS if options.promiscuous else 0),
        )

    def alias(self, address: int) -> int:
        """What stands for a peer's address on the engine: a fold of an IPv6 address, under this run's key."""
        return alias(address, self._alias_key) if on_v6(address) else 0

    @property
    def timestamps(self) -> bool:
        """Whether SYNs offer timestamps."""
        return self.options.timestamps and self.capabilities.timestamps

    def pacing_interval(self, rate: int) -> int:
        """What SET_PACING says for ``rate`` bytes per second; 0: no limit, or none that the engine can keep."""
        return pacing_interval(self.options, self.capabilities, rate)

    def pacing_rate(self, rate: int) -> int:
        """What becomes of that rate; all ones: no limit."""
        interval = self.pacing_interval(rate)
        return (self.options.clock_hz << PACING_FRACTION) // interval if interval else (1 << 64) - 1

    def timestamp(self, iss: int) -> int:
        """TSval at the moment of a connection that began with ``iss`` (RFC 7323 section 7.1)."""
        return self.device.read32(abi.REG_TICK_TIME) + self._timestamp_offset + iss & 0xFFFF_FFFF

    @property
    def host_answers(self) -> bool:
        """Whether segments of no connection are the host's to answer."""
        return self._unknown_to_host or not self.options.rst_unknown

    def unknown_to_host(self, wanted: bool) -> None:
        """Segments of no connection go to the host, though ``rst_unknown`` has the engine answer them; or not any more. Outlasts
        a reset."""
        if wanted != self._unknown_to_host:
            self._unknown_to_host = wanted
            if self.running and self.options.rst_unknown:
                self._control()

    def stop(self) -> bool:
        """Switch the engine off by a soft reset: it sends and receives nothing any more. Returns whether host memory
        is certainly ours alone now; if not, the engine hangs (``reset_failed``), and its rings stay set aside."""
        self.running = False
        self.commands.close()
        if not self._reset() and not self.device.gone:
            self.counters["reset_failed"] += 1
            return False
        self.ids.reset()
        return True

    def begin_stop(self) -> None:
        """Like ``stop``, but wait for nothing: ``stopped`` tells when it is done."""
        self.running = False
        self.commands.close()
        self._ask_reset()

    def stopped(self) -> bool:
        """Whether the engine has come out of the reset of ``begin_stop``: host memory is ours alone from now on."""
        if not self._came_out():
            return False
        self.ids.reset()
        return True

    def restart(self, *, fresh: bool = False) -> None:
        """Bring a stopped engine up again, with every id free and new keys. DeviceError when it does not come. ``fresh``:
        it was ``stopped`` in this moment, and needs no reset."""
        if identify(self.device) != self.capabilities:
            raise DeviceError("another engine answers here: attach it anew")
        if not fresh and not self._reset():
            raise DeviceError("the engine does not come out of reset")
        self.commands.reset()
        self.events.reset()
        self.ids.reset()
        self._configure()

    def read_counters(self) -> dict[str, int]:
        """The engine's own counters by name, modulo 2**32 (one slow register read each). DeviceError when the device
        answers no more."""
        counters = {counter.name: self.device.read32(abi.REG_COUNTER + 4 * counter) for counter in abi.Counter}
        if self.device.gone:
            raise DeviceError("the device does not answer")
        return counters

    @property
    def free_ids(self) -> int:
        """Connection ids that are neither in use nor in stock."""
        return self.ids.available

    # ------------------------------------------------------------------ events

    def poll(self) -> bool:
        """Handle every event that waits; whether there was any. Never raises for what the device wrote."""
        handled = 0
        if not self.running:
            return False
        while (event := self.events.take()) is not None:
            handled += 1
            self._handlers[type(event)](event)
            for observer in self.observers:
                observer(event)
            if handled % self.EVENT_BATCH == 0:
                self._acknowledge()
        if handled % self.EVENT_BATCH:
            self._acknowledge()
        if handled:
            self.commands.flush()
            self.ids.replenish()
        return handled > 0

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until events came (handled before the return) or the time is over; whether they came.
        May return early without any."""
        if self.poll():
            return True
        if self.commands.backlog:
            # Room in the command ring raises no interrupt: look again soon.
            timeout_us = 10 if timeout_us is None else min(timeout_us, 10)
        interrupted = self.device.wait(timeout_us)
        progress = self.poll()
        if interrupted:
            self.clear_interrupt()
        self.commands.flush()
        return progress

    def clear_interrupt(self) -> None:
        """Lower the interrupt line. For behind a :meth:`poll`, which has written EVENT_CONSUMER: if an event has come
        meanwhile, the device raises the line again."""
        if self.running:
            self.device.write32(abi.REG_IRQ_STATUS, abi.IRQ_STATUS_EVENT | abi.IRQ_STATUS_ERROR)

    def _acknowledge(self) -> None:
        self.events.acknowledge()
        if self._frames_taken != self._frames_told:
            self._frames_told = self._frames_taken
            self.device.write32(abi.REG_FRAME_CONSUMER, self._frames_taken)

    def _connection(self, event: abi.ConnectionEvent) -> None:
        toep = self.ids.find(event.tid)
        if toep is None or toep.flags & TP_RELEASING:
            self.counters["stale_events"] += 1
            return
        self.client.connection_event(toep, event)

    def _command_done(self, event: abi.CommandDoneEvent) -> None:
        if event.status != abi.Status.OK:
            self.counters["failed_commands"] += 1
        if self.commands.done(event) or event.status == abi.Status.OK:
            return
        toep = self.ids.find(event.argument)
        if toep is None:
            return
        if event.opcode == abi.Opcode.PROVISION and toep.flags & (TP_STOCK | TP_READY):
            self.ids.unstock(toep)
            self.ids.lose(toep)
        elif event.opcode == abi.Opcode.OPEN and not toep.flags & (TP_STOCK | TP_READY | TP_RELEASING):
            self.client.open_failed(toep, event.status)

    def _frame(self, event: abi.FrameEvent) -> None:
        slots = self.options.frame_slots
        if event.slot % slots != self._frames_taken % slots:
            self.counters["bad_frame_events"] += 1
            return
        self._frames_taken = (
            self._frames_taken + 1
        ) & MASK  # whatever the slot holds, the next event is the next one's
        if event.length == 0:
            self.counters["frames_not_written"] += 1
            return
        if not ETHERNET_BYTES <= event.length <= self.capabilities.max_frame_bytes:
            self.counters["bad_frame_events"] += 1
            return
        slot = event.slot % slots * self.capabilities.frame_slot_bytes
        start = self._frame_block.address + slot + abi.HOST_FRAME_OFFSET
        self.client.frame_received(self.device.memory[start : start + event.length])

    def _error(self, event: abi.ErrorEvent) -> None:
        try:
            name = abi.ErrorCode(event.code).name.lower()
        except ValueError:
            name = "unknown"
        self.counters[f"error_{name}"] += 1
        if event.code == abi.ErrorCode.WATCHDOG:
            self.client.standstill_event()

    # ------------------------------------------------------------------ commands and doorbells

    def send_doorbell(self, toep: toepcb, position: int) -> None:
        """The send ring of ``toep`` now ends at ``position``."""
        self.device.write32(abi.DOORBELL_BASE + toep.tep_id * abi.DOORBELL_STRIDE + abi.DOORBELL_SND, position)

    def receive_doorbell(self, toep: toepcb, position: int) -> None:
        """The receive ring of ``toep`` is consumed up to ``position``."""
        self.device.write32(abi.DOORBELL_BASE + toep.tep_id * abi.DOORBELL_STRIDE + abi.DOORBELL_RCV, position)
