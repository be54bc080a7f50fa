"""The example SoC at work in Verilator: registers and host memory through LiteX's bus, frames through LiteEth's MAC."""

import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.board.litex_example import EXAMPLE
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.sim.toolchain import run_verilator

pytestmark = [pytest.mark.soak, pytest.mark.xdist_group("export")]
BENCH = Path(__file__).with_name("litex_bench.sv")
ENGINE, MEMORY = 0xE000_0000, 0x4000_0000
COMMANDS, EVENTS, FRAME = MEMORY, MEMORY + 0x1000, MEMORY + 0x2000
OUR_MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
TAG = 0x1234
# What Verilator's configure script would have found out (verif/tiptoe_verif/export/fusesoc.py).
BUILD = ["-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include", "-CFLAGS", "-fcoroutines -O1", "-j", "0", "-o", "bench"]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("litex_sim")
    EXAMPLE.write_verilog(folder)
    sources = [str(BENCH), "soc.v", "tiptoe/rtl/tiptoe_mac_engine.v"]
    run_verilator(["--binary", "-Wno-fatal", "--Mdir", "obj", "--top-module", "litex_bench", *BUILD, *sources], folder)
    return folder / "obj" / "bench"


def run(program: Path, work: Path, script: list[str]) -> tuple[list[int], list[bytes]]:
    """Words read, and frames that left."""
    (work / "script").write_text("".join(f"{line}\n" for line in script))
    done = subprocess.run(
        [program, f"+script={work / 'script'}"], cwd=program.parent, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    return (
        [int(words[1], 16) for words in lines if words[:1] == ["read"]],
        [bytes.fromhex(words[1]) for words in lines if words[:1] == ["frame"]],
    )


def write(address: int, data: bytes) -> list[str]:
    words = [int.from_bytes(data[n : n + 4], "little") for n in range(0, len(data), 4)]
    return [f"w {address + 4 * n:x} {word:08x}" for n, word in enumerate(words)]


def register(address: int, value: int) -> str:
    return f"w {ENGINE + address:x} {value:x}"


def test_a_frame_from_host_memory_reaches_the_line_and_its_event_host_memory(program, tmp_path):
    """The engine reads a command and a frame over the bus, sends the frame, and writes the event."""
    frame = bytes(Ether(dst=PEER_MAC, src=OUR_MAC, type=0x88B5)) + bytes(range(100, 147))  # 61 bytes
    entry = abi.pack_send_frame(TAG, addr=FRAME, length=len(frame))
    script = [
        f"r {ENGINE + abi.REG_ID:x}",
        *write(FRAME, frame + bytes(-len(frame) % 4)),
        *write(COMMANDS, entry),
        *write(EVENTS, bytes(32)),
        register(abi.REG_COMMAND_RING_LO, COMMANDS), register(abi.REG_COMMAND_RING_LOG2, 4),
        register(abi.REG_EVENT_RING_LO, EVENTS), register(abi.REG_EVENT_RING_LOG2, 4),
        register(abi.REG_IRQ_MASK, 1), register(abi.REG_CONTROL, 1),
        register(abi.REG_COMMAND_TAIL, 1),
        "i",
        *(f"r {EVENTS + 4 * n:x}" for n in range(8)),
    ]  # fmt: skip
    read, frames = run(program, tmp_path, script)
    assert read[0] == abi.ID_VALUE
    event = read[1:]
    assert event[1] == int(abi.Opcode.SEND_FRAME) | TAG << 16  # status 0
    assert event[7] == int(abi.EventType.COMMAND_DONE) | 1 << 31
    assert frames == [frame]


def test_a_segment_from_the_line_is_answered(program, tmp_path):
    """A SYN for nobody gets a reset, though no host memory is given to the engine."""
    syn = Ether(dst=OUR_MAC, src=PEER_MAC) / IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=4000, dport=80, seq=7)
    frame = bytes(syn).ljust(60, b"\0")
    script = [
        register(abi.REG_MAC_LO, 1), register(abi.REG_MAC_HI, 0x0200), register(abi.REG_IP_ADDR, 0x0A00_0001),
        register(abi.REG_CONTROL, 0b1001), f"r {ENGINE + abi.REG_CONTROL:x}",
        f"f {len(frame)} {' '.join(f'{byte:02x}' for byte in frame)}",
    ]  # fmt: skip
    read, frames = run(program, tmp_path, script)
    assert read == [0b1001]
    (answer,) = map(Ether, frames)
    assert (answer.src, answer.dst, answer[TCP].flags, answer[TCP].ack) == (OUR_MAC, PEER_MAC, "RA", 8)
