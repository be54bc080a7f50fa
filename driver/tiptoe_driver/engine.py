"""The engine as hardware: bring-up, command and event rings, connection ids with their rings.

What the events mean to TCP is the business of toe.py; this file only knows ids. An id goes round:
free → PROVISION (stock, or ready for an active open) → open → terminal event → RELEASE → COMMAND_DONE → free.
"""

from __future__ import annotations

import errno
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from . import abi_gen as abi
from .device import Device
from .memory import HostMemory, RingPool
from .positions import MASK
from .rings import CommandRing, EventRing
from .structures import TP_PASSIVE, TP_READY, TP_RELEASING, TP_STOCK, toepcb

DRIVER_MAJOR = 0
"""Major version of the register map this driver is written for."""


class DeviceError(Exception):
    """The device is not what the driver expects, or does not come up."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Sizes and choices of one attached engine.

    Attributes
    ----------
    snd_ring_bytes, rcv_ring_bytes : int
        Send and receive ring of a connection: powers of two, 4 KiB to 16 MiB.
    command_entries : int
        Entries of the command ring, a power of two; 0: four per connection id, 64 to 16384.
    command_reserve : int
        Entries that only close, abort, release and the like may use; 0: a quarter of the ring.
    frame_slots : int
        Received host frames that may wait, a power of two (2 KiB each).
    frame_buffers : int
        Host frames that may be on their way out.
    stock : int or None
        Ids kept provisioned for passive opens once somebody listens; None: half of all.
    active_reserve : int or None
        Ids never put in stock; None: a quarter of all.
    memory_base, memory_limit : int
        Range of host memory that the driver may use; limit None: to the end.
    rst_unknown : bool
        The engine answers segments of no connection with RST; False: they go to the host.
    promiscuous : bool
        Frames for other MAC addresses go to the host.
    external_tick : bool
        TCP's clock is the engine's tick input.
    registers : mapping
        Further registers to write before the engine is enabled, value by address (timers: REG_MSL_TICKS...).
    seed : int or None
        Makes the secret keys reproducible in tests; None: random.
    arp_retry_us, arp_tries : int
        Interval and number of ARP requests before a next hop counts as down.
    """

    snd_ring_bytes: int = 1 << 17
    rcv_ring_bytes: int = 1 << 17
    command_entries: int = 0
    command_reserve: int = 0
    frame_slots: int = 256
    frame_buffers: int = 64
    stock: int | None = None
    active_reserve: int | None = None
    memory_base: int = 0
    memory_limit: int | None = None
    rst_unknown: bool = True
    promiscuous: bool = False
    external_tick: bool = False
    registers: Mapping[int, int] = field(default_factory=dict)
    seed: int | None = None
    arp_retry_us: int = 1_000_000
    arp_tries: int = 3


@dataclass(frozen=True)
class Capabilities:
    """What CAPABILITIES and LIMITS say."""

    connections: int
    listeners: int
    syncache_entries: int
    next_hops: int
    data_bytes: int
    addr_width: int
    max_frame_bytes: int


class EngineClient(Protocol):
    """Who gets the engine's events."""

    def connection_event(self, toep: toepcb, event: abi.ConnectionEvent) -> None:
        """A snapshot of a connection that the engine may speak of."""

    def open_failed(self, toep: toepcb, status: int) -> None:
        """OPEN was refused."""

    def syn_received(self, event: abi.SynReceivedEvent) -> None:
        """A half-open connection exists."""

    def syncache_gone(self, event: abi.SyncacheGoneEvent) -> None:
        """A half-open connection is no more."""

    def frame_received(self, frame: memoryview) -> None:
        """A frame for the host; valid until the return."""


class Engine:
    """One attached engine.

    Parameters
    ----------
    mac, address : int
        Own MAC and IPv4 address.

    Attributes
    ----------
    counters : Counter
        What went wrong, by name: stale_events, bad_positions, unknown_events, failed_commands, lost_ids...
    toepcbs : list
        The toepcb of each provisioned id.
    """

    EVENT_BATCH = 64
    """Events handled before the engine may reuse their entries."""

    def __init__(self, device: Device, client: EngineClient, mac: int, address: int,
                 options: EngineOptions) -> None:
        self.device = device
        self.options = options
        self.client = client
        self.counters: Counter[str] = Counter()
        self.capabilities = self._identify()
        self._reset()
        caps = self.capabilities
        entries = options.command_entries or min(max(64, 4 * caps.connections), 16384)
        limit = min(len(device.memory), 1 << caps.addr_width)
        if options.memory_limit is not None:
            limit = min(limit, options.memory_limit)
        self.memory = HostMemory(device.memory, options.memory_base, limit)
        command_block = self.memory.allocate(entries * abi.COMMAND_BYTES)
        # Room for everything that can be under way at once: the engine never waits for the host.
        events = (caps.connections + 2 * caps.syncache_entries + entries + options.frame_slots + 16)
        event_block = self.memory.allocate(events * abi.EVENT_BYTES)
        self._frame_block = self.memory.allocate(options.frame_slots * abi.HOST_FRAME_SLOT_BYTES)
        self.commands = CommandRing(device, command_block, options.command_reserve or entries // 4)
        self.events = EventRing(device, event_block)
        self._frames_taken = 0
        self._frames_told = 0
        rng = random.Random(options.seed) if options.seed is not None else random.SystemRandom()
        registers = {
            abi.REG_MAC_LO: mac & MASK, abi.REG_MAC_HI: mac >> 32, abi.REG_IP_ADDR: address,
            abi.REG_COMMAND_RING_LO: command_block.address & MASK,
            abi.REG_COMMAND_RING_HI: command_block.address >> 32,
            abi.REG_COMMAND_RING_LOG2: (entries - 1).bit_length(),
            abi.REG_EVENT_RING_LO: event_block.address & MASK,
            abi.REG_EVENT_RING_HI: event_block.address >> 32,
            abi.REG_EVENT_RING_LOG2: (self.events.entries - 1).bit_length(),
            abi.REG_FRAME_RING_LO: self._frame_block.address & MASK,
            abi.REG_FRAME_RING_HI: self._frame_block.address >> 32,
            abi.REG_FRAME_RING_LOG2: (options.frame_slots - 1).bit_length(),
            **{abi.REG_ISN_KEY + 4 * n: rng.getrandbits(32) for n in range(4)},
            **{abi.REG_HASH_KEY + 4 * n: rng.getrandbits(32) for n in range(2)},
            **options.registers,
        }
        for register, value in registers.items():
            device.write32(register, value)
        device.write32(abi.REG_IRQ_MASK, abi.IRQ_MASK_EVENT | abi.IRQ_MASK_ERROR)
        device.write32(abi.REG_CONTROL, abi.CONTROL_ENABLE
                       | (abi.CONTROL_EXTERNAL_TICK if options.external_tick else 0)
                       | (abi.CONTROL_RST_UNKNOWN if options.rst_unknown else 0)
                       | (abi.CONTROL_PROMISCUOUS if options.promiscuous else 0))

        self.ring_pool = RingPool(self.memory, options.snd_ring_bytes, options.rcv_ring_bytes, limit=1 << 30)
        self.toepcbs: list[toepcb | None] = [None] * caps.connections
        self._free_ids = deque(range(caps.connections))
        self._generations = bytearray(caps.connections)
        self._ready: deque[toepcb] = deque()
        self.stocked = 0
        """Ids in stock for passive opens."""
        self._passive = 0  # ids in stock or taken from it
        self._stock_target = 0
        self._handlers: dict[type, Callable[..., None]] = {
            abi.ConnectionEvent: self._connection,
            abi.SynReceivedEvent: client.syn_received,
            abi.SyncacheGoneEvent: client.syncache_gone,
            abi.CommandDoneEvent: self._command_done,
            abi.FrameEvent: self._frame,
            abi.ErrorEvent: self._error,
        }

    # ------------------------------------------------------------------ bring-up

    def _identify(self) -> Capabilities:
        """Read who the device is."""
        read = self.device.read32
        if (magic := read(abi.REG_ID)) != abi.ID_VALUE:
            raise DeviceError(f"no Tiptoe engine here: ID register reads {magic:#010x}")
        major = read(abi.REG_VERSION) >> abi.VERSION_MAJOR_SHIFT
        if major != DRIVER_MAJOR:
            raise DeviceError(f"the engine's register map is version {major}, the driver's {DRIVER_MAJOR}")
        sizes, limits = read(abi.REG_CAPABILITIES), read(abi.REG_LIMITS)
        return Capabilities(
            connections=1 << ((sizes & abi.CAPABILITIES_LOG2_CONNECTIONS) >> abi.CAPABILITIES_LOG2_CONNECTIONS_SHIFT),
            listeners=1 << ((sizes & abi.CAPABILITIES_LOG2_LISTENERS) >> abi.CAPABILITIES_LOG2_LISTENERS_SHIFT),
            syncache_entries=1 << ((sizes & abi.CAPABILITIES_LOG2_SYNCACHE) >> abi.CAPABILITIES_LOG2_SYNCACHE_SHIFT),
            next_hops=1 << ((sizes & abi.CAPABILITIES_LOG2_NEXT_HOPS) >> abi.CAPABILITIES_LOG2_NEXT_HOPS_SHIFT),
            data_bytes=(limits & abi.LIMITS_DATA_BYTES) >> abi.LIMITS_DATA_BYTES_SHIFT,
            addr_width=(limits & abi.LIMITS_ADDR_WIDTH) >> abi.LIMITS_ADDR_WIDTH_SHIFT,
            max_frame_bytes=(limits & abi.LIMITS_MAX_FRAME_BYTES) >> abi.LIMITS_MAX_FRAME_BYTES_SHIFT,
        )

    def _reset(self) -> None:
        """Soft reset, then wait until the engine's memories are scrubbed."""
        device = self.device
        device.write32(abi.REG_IRQ_MASK, 0)
        device.write32(abi.REG_CONTROL, abi.CONTROL_SOFT_RESET)
        for _ in range(10_000):
            if (not device.read32(abi.REG_CONTROL) & abi.CONTROL_SOFT_RESET
                    and device.read32(abi.REG_STATUS) & abi.STATUS_READY):
                break
            device.wait(100)
        else:
            raise DeviceError("the engine does not come out of reset")
        device.write32(abi.REG_IRQ_STATUS, abi.IRQ_STATUS_EVENT | abi.IRQ_STATUS_ERROR)

    def stop(self) -> None:
        """Switch the engine off: it sends and receives nothing any more."""
        self.device.write32(abi.REG_CONTROL, 0)
        self.device.write32(abi.REG_IRQ_MASK, 0)

    def read_counters(self) -> dict[str, int]:
        """The engine's own counters by name, modulo 2**32 (one slow register read each)."""
        return {counter.name: self.device.read32(abi.REG_COUNTER + 4 * counter) for counter in abi.Counter}

    # ------------------------------------------------------------------ events

    def poll(self) -> bool:
        """Handle every event that waits; whether there was any. Never raises for what the device wrote."""
        handled = 0
        while (event := self.events.take()) is not None:
            handled += 1
            self._handlers[type(event)](event)
            if handled % self.EVENT_BATCH == 0:
                self._acknowledge()
        if handled % self.EVENT_BATCH:
            self._acknowledge()
        if handled:
            self.commands.flush()
            self.replenish()
        return handled > 0

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until events came (handled before the return) or the time is over; whether they came.
        May return early without any."""
        if self.poll():
            return True
        if self.commands.backlog:
            # Room in the command ring raises no interrupt: look again soon.
            timeout_us = 10 if timeout_us is None else min(timeout_us, 10)
        if self.device.wait(timeout_us):
            self.device.write32(abi.REG_IRQ_STATUS, abi.IRQ_STATUS_EVENT | abi.IRQ_STATUS_ERROR)
        self.commands.flush()
        return self.poll()

    def _acknowledge(self) -> None:
        self.events.acknowledge()
        if self._frames_taken != self._frames_told:
            self._frames_told = self._frames_taken
            self.device.write32(abi.REG_FRAME_CONSUMER, self._frames_taken)

    def find(self, tid: int) -> toepcb | None:
        """The toepcb of a tid; None for an id that is not provisioned, or was with another generation."""
        tep_id = tid & 0xFFFF
        toep = self.toepcbs[tep_id] if tep_id < len(self.toepcbs) else None
        return toep if toep is not None and toep.tid == tid else None

    def _connection(self, event: abi.ConnectionEvent) -> None:
        toep = self.find(event.tid)
        if toep is None or toep.flags & TP_RELEASING:
            self.counters["stale_events"] += 1
            return
        self.client.connection_event(toep, event)

    def _command_done(self, event: abi.CommandDoneEvent) -> None:
        if event.status != abi.Status.OK:
            self.counters["failed_commands"] += 1
        if self.commands.done(event) or event.status == abi.Status.OK:
            return
        toep = self.find(event.argument)
        if toep is None:
            return
        if event.opcode == abi.Opcode.PROVISION and toep.flags & (TP_STOCK | TP_READY):
            self.unstock(toep)
            self.lose(toep)
        elif event.opcode == abi.Opcode.OPEN and not toep.flags & (TP_STOCK | TP_READY | TP_RELEASING):
            self.client.open_failed(toep, event.status)

    def _frame(self, event: abi.FrameEvent) -> None:
        slots = self.options.frame_slots
        if event.slot % slots != self._frames_taken % slots or not 14 <= event.length <= (
                abi.HOST_FRAME_SLOT_BYTES - abi.HOST_FRAME_OFFSET):
            self.counters["bad_frame_events"] += 1
            return
        start = (self._frame_block.address + event.slot % slots * abi.HOST_FRAME_SLOT_BYTES
                 + abi.HOST_FRAME_OFFSET)
        self._frames_taken = (self._frames_taken + 1) & MASK
        self.client.frame_received(self.device.memory[start:start + event.length])

    def _error(self, event: abi.ErrorEvent) -> None:
        try:
            name = abi.ErrorCode(event.code).name.lower()
        except ValueError:
            name = "unknown"
        self.counters[f"error_{name}"] += 1

    # ------------------------------------------------------------------ ids

    @property
    def free_ids(self) -> int:
        """Ids that are neither in use nor in stock."""
        return len(self._free_ids) + len(self._ready)

    def acquire(self) -> tuple[toepcb | None, int]:
        """A provisioned id for an active open whose OPEN has room in the command ring too; or None and an errno."""
        if self._ready:
            if not self.commands.room(1):
                return None, errno.ENOBUFS
            toep = self._ready.popleft()
            toep.flags &= ~TP_READY
            return toep, 0
        if not self._free_ids:
            return None, errno.EPERM
        if not self.commands.room(2):
            return None, errno.ENOBUFS
        made = self._provision(0)
        return (made, 0) if made is not None else (None, errno.EPERM)

    def give_back(self, toep: toepcb) -> None:
        """An acquired id was not opened after all: it waits for the next active open."""
        toep.flags = TP_READY
        self._ready.append(toep)

    def stock_up(self) -> None:
        """From now on keep ids in stock for passive opens."""
        total = self.capabilities.connections
        self._stock_target = total // 2 if self.options.stock is None else self.options.stock
        self.replenish()

    def replenish(self) -> None:
        """Bring the stock up to its target as far as ids, memory and the command ring allow."""
        total = self.capabilities.connections
        reserve = total // 4 if self.options.active_reserve is None else self.options.active_reserve
        while (self.stocked < self._stock_target and self._free_ids and self._passive < total - reserve
               and self.commands.room(1)):
            if self._provision(TP_STOCK | TP_PASSIVE) is None:
                break
            self.stocked += 1
            self._passive += 1

    def unstock(self, toep: toepcb) -> None:
        """The id is no longer in stock, or ready for an active open."""
        if toep.flags & TP_STOCK:
            toep.flags &= ~TP_STOCK
            self.stocked -= 1
        elif toep.flags & TP_READY:
            toep.flags &= ~TP_READY
            self._ready.remove(toep)

    def release(self, toep: toepcb) -> None:
        """Give the id back; the terminal event has come. The rings stay until the engine has let go of them."""
        toep.flags |= TP_RELEASING
        laddr, lport, faddr, fport = toep.four_tuple

        def done(status: int, argument: int) -> None:
            if status != abi.Status.OK:
                self.lose(toep)
                return
            self.toepcbs[toep.tep_id] = None
            self._free_ids.append(toep.tep_id)
            self._passive -= bool(toep.flags & TP_PASSIVE)
            toep.rings.drop()

        self.commands.post_control(abi.pack_release(
            self.commands.tag(done), tid=toep.tid, laddr=laddr, faddr=faddr, lport=lport, fport=fport))

    def lose(self, toep: toepcb) -> None:
        """An id whose state on the engine is unknown: neither it nor its memory is used again before a reset."""
        self.counters["lost_ids"] += 1
        toep.flags |= TP_RELEASING

    def _provision(self, flags: int) -> toepcb | None:
        """Provision the next free id; None when there is no memory for rings."""
        rings = self.ring_pool.get()
        if rings is None:
            return None
        tep_id = self._free_ids.popleft()
        self._generations[tep_id] = generation = (self._generations[tep_id] + 1) & 0xFF
        toep = toepcb(tep_id, generation, rings, flags)
        self.toepcbs[tep_id] = toep
        self.commands.post(abi.pack_provision(
            0, tid=toep.tid, snd_base=rings.snd_block.address, rcv_base=rings.rcv_block.address,
            snd_log2=rings.snd_block.log2, rcv_log2=rings.rcv_block.log2, stock=int(bool(flags & TP_STOCK))))
        return toep

    # ------------------------------------------------------------------ commands and doorbells

    def send_doorbell(self, toep: toepcb, position: int) -> None:
        """The send ring of ``toep`` now ends at ``position``."""
        self.device.write32(abi.DOORBELL_BASE + toep.tep_id * abi.DOORBELL_STRIDE + abi.DOORBELL_SND, position)

    def receive_doorbell(self, toep: toepcb, position: int) -> None:
        """The receive ring of ``toep`` is consumed up to ``position``."""
        self.device.write32(abi.DOORBELL_BASE + toep.tep_id * abi.DOORBELL_STRIDE + abi.DOORBELL_RCV, position)
