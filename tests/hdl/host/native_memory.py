"""A DRAM controller at its native ports, as LiteDRAM's: what may happen there, in any order and at any time."""

from __future__ import annotations

from collections import defaultdict, deque

WRITE_LATENCY, READ_LATENCY = 4, 14
BANKS, BANK_DEPTH, BANK_WORDS = 8, 8, 8
"""Words of a bank before the next bank's: few, so that short tests see all of them."""


class NativeMemory:
    """Serves ``ports`` for ever: commands wait in a queue a bank, a port is kept at one bank at a time, banks take turns at
    random.

    A write's word is taken without asking whether it is there (a failure if it is not), a read's comes without asking whether
    there is room. A read sees what was carried out before it, and nothing of what is waiting.

    Parameters
    ----------
    ready : dict of port to float
        How often each port's commands are taken.
    pace : float
        How often a bank carries one out; at most every second cycle, as eight beats of a chip of 16 bits take.
    """

    def __init__(self, ports, size, rng, ready=None, pace=1.0):
        self.ports, self.rng, self.pace = ports, rng, pace
        self.ready = dict.fromkeys(ports, 1.0) | {ports[index]: often for index, often in (ready or {}).items()}
        self.bytes = bytearray(size)
        self.banks = [deque() for _ in range(BANKS)]
        self.taken = 0

    def _bank(self, address):
        return address // BANK_WORDS % BANKS

    def _may(self, port, address):
        """The port's commands that wait are all for this bank, which has room."""
        bank = self._bank(address)
        elsewhere = any(port is other for n, queue in enumerate(self.banks) if n != bank for other, _, _ in queue)
        return not elsewhere and len(self.banks[bank]) < BANK_DEPTH and self.rng.random() < self.ready[port]

    async def run(self, ctx):
        cycle, free = 0, 0
        takes, looks, gives = defaultdict(list), defaultdict(list), defaultdict(list)
        while True:
            for port, address in looks.pop(cycle, ()):
                gives[cycle + READ_LATENCY - WRITE_LATENCY].append((port, self.bytes[address * 16 : address * 16 + 16]))
            now = {id(port): address for port, address in takes.pop(cycle, ())}
            brought = {id(port): data for port, data in gives.pop(cycle, ())}
            opened = []
            for port in self.ports:
                opened.append(self._may(port, ctx.get(port.cmd_addr)))
                ctx.set(port.cmd_ready, opened[-1])
                ctx.set(port.wdata_ready, id(port) in now)
                ctx.set(port.rdata_valid, id(port) in brought)
                ctx.set(port.rdata, int.from_bytes(brought.get(id(port), bytes(16)), "little"))
            wires = [
                wire
                for port in self.ports
                for wire in (port.cmd_valid, port.cmd_addr, port.cmd_we, port.wdata_valid, port.wdata, port.wdata_we)
            ]
            _, _, *values = await ctx.tick().sample(*wires)
            for index, port in enumerate(self.ports):
                valid, address, write, there, word, enable = values[6 * index : 6 * index + 6]
                if valid and opened[index]:
                    self.banks[self._bank(address)].append((port, address, write))
                    self.taken += 1
                if id(port) in now:
                    assert there, "a write's word was not there when the controller took it"
                    for lane in range(16):
                        if enable >> lane & 1:
                            self.bytes[now[id(port)] * 16 + lane] = word >> 8 * lane & 0xFF
            waiting = [queue for queue in self.banks if queue]
            if waiting and cycle >= free and self.rng.random() < self.pace:
                port, address, write = self.rng.choice(waiting).popleft()
                (takes if write else looks)[cycle + WRITE_LATENCY].append((port, address))
                free = cycle + 2
            cycle += 1
