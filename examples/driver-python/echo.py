"""A driver of one connection, from reset to RELEASE: `tiptoe serve --socket PATH`, then `python echo.py PATH`.

It sends bytes to the echo server at the other end of the engine's line and compares what comes back. What it knows of the engine
are the constants of the register map and the rings (docs/registers.md, docs/rings.md), which `abi_gen` has in Python.
"""

import secrets
import sys

from seam import Seam

from tiptoe_driver.hardware import abi_gen as abi

# Where things lie in host memory; each ring is aligned to its size.
COMMANDS, COMMANDS_LOG2 = 0x0000, 6  # entries of 64 bytes
EVENTS, EVENTS_LOG2 = 0x2000, 6  # entries of 32 bytes
FRAMES, FRAMES_LOG2 = 0x8000, 3  # slots of 2 KiB
SND, RCV, RING_LOG2 = 0x10000, 0x14000, 14
RING = 1 << RING_LOG2
M32 = 0xFFFF_FFFF
PATIENCE_US = 10_000_000


class Driver:
    """The engine behind ``seam``, brought up: one connection at a time, with id 0."""

    def __init__(self, seam):
        self.seam = seam
        if seam.read(abi.REG_ID) != abi.ID_VALUE:
            raise OSError("there is no Tiptoe engine")
        seam.write(abi.REG_IRQ_MASK, 0)
        seam.write(abi.REG_CONTROL, abi.CONTROL_SOFT_RESET)
        while seam.read(abi.REG_CONTROL) & abi.CONTROL_SOFT_RESET or not seam.read(abi.REG_STATUS) & abi.STATUS_READY:
            seam.wait(100)
        self.commands = self.events = self.frames = self.generation = 0
        seam.store(EVENTS, bytes(abi.EVENT_BYTES << EVENTS_LOG2))  # what lies there is no event
        keys = [abi.REG_ISN_KEY + 4 * n for n in range(4)] + [abi.REG_HASH_KEY, abi.REG_HASH_KEY + 4]
        registers = {
            abi.REG_MAC_LO: seam.mac & M32,
            abi.REG_MAC_HI: seam.mac >> 32,
            abi.REG_IP_ADDR: seam.ip,
            abi.REG_MSL_TICKS: 100,
            **{key: secrets.randbits(32) for key in keys},
            abi.REG_COMMAND_RING_LO: COMMANDS,
            abi.REG_COMMAND_RING_LOG2: COMMANDS_LOG2,
            abi.REG_EVENT_RING_LO: EVENTS,
            abi.REG_EVENT_RING_LOG2: EVENTS_LOG2,
            abi.REG_FRAME_RING_LO: FRAMES,
            abi.REG_FRAME_RING_LOG2: FRAMES_LOG2,
            abi.REG_IRQ_STATUS: abi.IRQ_STATUS_EVENT | abi.IRQ_STATUS_ERROR,
            abi.REG_IRQ_MASK: abi.IRQ_MASK_EVENT | abi.IRQ_MASK_ERROR,
        }
        for register, value in registers.items():
            seam.write(register, value)
        # The clock of TCP's timers is the engine's input `tick`, a pulse a millisecond.
        seam.write(
            abi.REG_CONTROL, abi.CONTROL_ENABLE | abi.CONTROL_EXTERNAL_TICK | abi.CONTROL_RST_UNKNOWN | abi.CONTROL_SACK
        )

    def post(self, command):
        """Write a command, then tell the engine how many there have been."""
        self.seam.store(COMMANDS + self.commands % (1 << COMMANDS_LOG2) * abi.COMMAND_BYTES, command)
        self.commands = self.commands + 1 & M32
        self.seam.write(abi.REG_COMMAND_TAIL, self.commands)

    def poll(self):
        """Events that have come. An entry is new when its phase is that of the pass over the ring."""
        found = []
        while True:
            index, turn = self.events & (1 << EVENTS_LOG2) - 1, self.events >> EVENTS_LOG2 & 1
            entry = self.seam.load(EVENTS + index * abi.EVENT_BYTES, abi.EVENT_BYTES)
            if abi.event_phase(entry, 0) == turn:
                break
            found.append(abi.unpack_event(entry))
            self.events = self.events + 1 & M32
        if found:
            self.frames += sum(
                isinstance(event, abi.FrameEvent) for event in found
            )  # nothing to us: ARP is not needed here
            self.seam.write(abi.REG_EVENT_CONSUMER, self.events)
            self.seam.write(abi.REG_FRAME_CONSUMER, self.frames & M32)
        self.seam.write(abi.REG_IRQ_STATUS, abi.IRQ_STATUS_EVENT | abi.IRQ_STATUS_ERROR)  # behind EVENT_CONSUMER
        return found

    def until(self, handle, what):
        """Let time pass until ``handle`` of an event returns True; OSError when that takes too long."""
        now, _ = self.seam.wait(0)
        end = now + PATIENCE_US
        while now < end:
            if sum(map(handle, self.poll())):
                return
            now, _ = self.seam.wait(end - now)
        raise OSError(f"{what}: not within {PATIENCE_US} us")


class Connection:
    """An open connection to ``port`` of the peer."""

    def __init__(self, driver, port, local_port):
        self.driver, self.seam = driver, driver.seam
        driver.generation = driver.generation + 1 & 0xFF
        self.tid = driver.generation << 16  # id 0
        self.names = {"laddr": self.seam.ip, "faddr": self.seam.peer_ip, "lport": local_port, "fport": port}
        self.sent = self.acknowledged = self.arrived = self.consumed = 0
        self.established = self.peer_closed = self.over = False
        driver.post(
            abi.pack_provision(
                0, tid=self.tid, snd_base=SND, rcv_base=RCV, snd_log2=RING_LOG2, rcv_log2=RING_LOG2, stock=0
            )
        )
        driver.post(
            abi.pack_open(
                0, tid=self.tid, **self.names, dmac=self.seam.peer_mac, use_next_hop=0, next_hop=0, mss=1460, rcv_scale=0,
                ecn=0, faddr6_low=0, faddr6_high=0,
            )
        )  # fmt: skip
        driver.until(lambda event: self.handle(event) and self.established, "connect")

    def handle(self, event):
        """News of the connection; whether it was that."""
        if isinstance(event, abi.CommandDoneEvent) and event.status:
            raise OSError(f"the engine refuses command {event.opcode}: {abi.Status(event.status).name}")
        if isinstance(event, abi.ErrorEvent):
            raise OSError(f"the engine reports {abi.ErrorCode(event.code).name}, {event.argument:#x}")
        if not isinstance(event, abi.ConnectionEvent) or event.tid != self.tid:
            return False
        if event.terminal and event.reason > abi.Reason.NORMAL:
            raise OSError(f"the connection has failed: {abi.Reason(event.reason).name}")
        self.established |= bool(event.established)
        self.peer_closed |= bool(event.peer_closed)
        self.over |= bool(event.terminal)
        self.arrived = event.rcv_position - event.peer_closed & M32  # the peer's FIN counts as a byte
        self.acknowledged = event.snd_una_position
        return True

    def send(self, data):
        """As much of it as the ring has room for, told by the doorbell; how much that is."""
        data = data[: RING - (self.sent - self.acknowledged & M32)]
        at = self.sent % RING
        self.seam.store(SND + at, data[: RING - at])
        self.seam.store(SND, data[RING - at :])
        self.sent = self.sent + len(data) & M32
        self.seam.write(abi.DOORBELL_BASE + abi.DOORBELL_SND, self.sent)
        return len(data)

    def receive(self):
        """What has arrived; its place in the ring goes back to the peer as window."""
        at, length = self.consumed % RING, self.arrived - self.consumed & M32
        data = self.seam.load(RCV + at, min(length, RING - at)) + self.seam.load(RCV, max(0, length - (RING - at)))
        self.consumed = self.arrived
        self.seam.write(abi.DOORBELL_BASE + abi.DOORBELL_RCV, self.consumed)
        return data

    def close(self):
        """FIN behind what was sent, then the end of both directions, then the id comes back."""
        self.driver.post(abi.pack_close(0, tid=self.tid, snd_end=self.sent))
        self.driver.until(lambda event: self.handle(event) and self.over, "close")
        self.driver.post(abi.pack_release(1, tid=self.tid, **self.names))
        self.driver.until(lambda event: isinstance(event, abi.CommandDoneEvent) and event.tag == 1, "RELEASE")


def main(address, length=100_000):
    seam = Seam(address)
    driver = Driver(seam)
    connection = Connection(driver, 7, 49152 + secrets.randbelow(16384))
    data, sent, came = secrets.token_bytes(length), 0, b""
    while len(came) < length:
        sent += connection.send(data[sent:])
        driver.until(connection.handle, "the echo")
        came += connection.receive()
    connection.close()
    if came != data:
        raise SystemExit("the echo is another")
    print(f"{length} bytes there and back in {seam.wait(0)[0] / 1000:.1f} ms of the engine's time")
    seam.close()


if __name__ == "__main__":
    main(("127.0.0.1", int(sys.argv[1])) if sys.argv[1].isdigit() else sys.argv[1])
