"""The top with a processor, in Verilator: it boots from its ROM, starts DDR3, and serves without a PC. With host memory in block
memory as soak."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.board.serving import Client, pattern
from tiptoe_board import firmware
from tiptoe_board.address_map import MEMORY_BASE, PROGRAM_FAULT, status_address
from tiptoe_board.sim.board import BUILD_ID, SimulatedBoard, build_board, elaborated
from tiptoe_board.sim.bridge import Bridge
from tiptoe_board.sim.tap import TapLine
from tiptoe_board.sim_ddr3 import MUTE
from tiptoe_driver.hardware.abi_gen import ID_VALUE
from tiptoe_verif.live.namespace import why_no_tap
from tiptoe_verif.native.simulation import Simulation, Wire
from tiptoe_verif.sim.toolchain import ToolError

CPU = "vexriscv"
IP = "192.168.1.51"
CONNECTIONS, CLIENTS = 256, 7
"""As many as there are rings for in DDR3; clients one after the other, more than the 5 that block memory has rings for."""
BOOT_US = 30_000
Build = Callable[[Path], firmware.Firmware]


@dataclass(frozen=True)
class Tops:
    """Simulated tops with that kind of host memory; all are closed at the end."""

    memory: str
    running: list[SimulatedBoard] = field(default_factory=list)

    def __call__(self, build: Build) -> SimulatedBoard:
        """One that begins with a program, if there is a compiler."""
        try:
            firmware.compiler()
        except ToolError as error:
            pytest.skip(str(error))
        program = build(elaborated(self.memory, CPU))
        self.running.append(SimulatedBoard(build_board(self.memory, cpu=CPU), program.rom))
        return self.running[-1]


def tops(memory: str) -> Iterator[Tops]:
    made = Tops(memory)
    yield made
    for board in made.running:
        board.close()


@pytest.fixture(params=["ddr3", pytest.param("small", marks=pytest.mark.soak)])
def start(request: pytest.FixtureRequest) -> Iterator[Tops]:
    yield from tops(request.param)


@pytest.fixture
def start_ddr3() -> Iterator[Tops]:
    yield from tops("ddr3")


def hello(soc: Path) -> firmware.Firmware:
    return firmware.build([firmware.SOURCES / "hello.c"], soc)


@pytest.mark.xdist_group("board-cpu")
def test_it_boots_beside_the_bridge(start: Tops) -> None:
    """The console tells what registers say, and which delays the program has found: those of sim_ddr3.GOOD, as dram.py does.
    The bridge reads meanwhile, and finds a memory that works."""
    board = start(hello)
    bridge = Bridge(board)
    assert bridge.read(status_address("build")) == [BUILD_ID]
    board.boot("engine ready after cycles")
    words = [n * 0x01010101 for n in range(200)]
    bridge.write(MEMORY_BASE, words)
    assert bridge.read(MEMORY_BASE, 200) == words
    lines = dict(line.rsplit(" ", 1) for line in board.console.splitlines() if " " in line)
    assert int(lines["tiptoe build"], 16) == BUILD_ID == bridge.read(status_address("build"))[0]
    assert int(lines["engine id"], 16) == ID_VALUE
    assert "trap" not in board.console
    found = "DDR3: lane 0, shift 0, delay 2\nDDR3: lane 1, shift 1, delay 4\n"
    assert (found in board.console) == (start.memory == "ddr3")


@pytest.mark.xdist_group("board-cpu")
def test_a_chip_that_does_not_answer(start_ddr3: Tops) -> None:
    """It is told on the console and in a register, and that is no end: the bridge is served, and the processor goes on."""
    board = start_ddr3(firmware.build_server)
    bridge = Bridge(board)
    bridge.write(MUTE, [1])
    board.boot("the chip gives no answer", BOOT_US)
    assert "DDR3: lane 0 reads wrong at every delay" in board.console and "lane 1, shift 3: |00000000|" in board.console
    board.advance(board.now_ns + 500_000)
    assert bridge.read(PROGRAM_FAULT) == [1] and bridge.read(status_address("build")) == [BUILD_ID]
    assert "serving" not in board.console and "trap" not in board.console


@pytest.mark.xdist_group("board-cpu")
def test_it_serves(start: Tops) -> None:
    """Bytes more than a ring in block memory has, to a second engine with its driver; then more clients than that has
    connections one after the other, each leaving one in TIME_WAIT."""
    board = start(firmware.build_server)
    board.boot("serving at", BOOT_US)
    with Simulation("tiny", ip="192.168.1.1", cycles_per_us=50) as peer:
        Wire(board, peer)
        client = Client(board, peer, IP)
        assert client.get("/bytes/12000") == pattern(12000)
        for number in range(CLIENTS):
            assert client.get(f"/bytes/{number}") == pattern(number)
        page = client.get("/").decode()
    rows = {name: int(value) for name, value in (row.split(" ") for row in page.splitlines())}
    assert rows["accepted"] == CLIENTS + 2 and rows["lost_ids"] == rows["refused_commands"] == 0
    if start.memory == "ddr3":  # ids for all of the engine's connections: none has come back yet
        assert rows["stock"] == CONNECTIONS - rows["accepted"]
    bridge = Bridge(board)
    assert bridge.read(PROGRAM_FAULT) == [0]
    for name in ("rx_dropped", "rx_damaged", "tx_dropped"):
        assert bridge.read(status_address(name)) == [0], name


@pytest.mark.xdist_group("board-cpu")
def test_what_accesses_cost(start: Tops) -> None:
    """Clock cycles, as docs/board.md has them: nothing waits for another master when the bridge is silent."""
    program = [firmware.SOURCES / "costs.c", firmware.DRIVER / "apps" / "pattern.c"]
    board = start(lambda soc: firmware.build(program, soc, [firmware.DRIVER, firmware.DRIVER / "apps"]))
    board.boot("done", BOOT_US)
    lines = (line.rsplit(" ", 1) for line in board.console.splitlines() if line != "done" and "DDR3" not in line)
    costs = {what: int(count, 16) / 100 for what, count in lines}
    print(costs)
    load, store = {"ddr3": (28, 13), "small": (8, 5)}[start.memory]
    assert costs["memory load"] < load and costs["memory store"] < store and costs["register load"] < 16
    assert costs["pattern, byte"] < 3 < costs["pattern askew, byte"]


@pytest.mark.soak
@pytest.mark.xdist_group("board-cpu")
def test_curl(start: Tops, tmp_path: Path) -> None:
    """curl, over Linux's TCP: a mebibyte, its hash equal."""
    if reason := why_no_tap():
        pytest.skip(reason)
    board = start(firmware.build_server)
    board.boot("serving at", BOOT_US)
    size, got = 1 << 20, tmp_path / "got"
    with TapLine(board) as line:
        assert line.run(["curl", "-sS", "--fail", "-o", str(got), f"http://{IP}/bytes/{size}"], 3000) == 0
    assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(pattern(size)).digest()
    long = [time for time, length in line.sent if length > 1000]
    print(f"{(long[-1] - long[0]) / 20 / size:.2f} cycles a byte")


def elf(*segments: tuple[int, int, bytes, int]) -> bytes:
    """An ELF file of segments (address, load address, bytes, length in memory)."""
    head = struct.pack("<4sBB10xHHIIIIIHHH", b"\x7fELF", 1, 1, 2, 243, 1, 0, 52, 0, 0, 52, 32, len(segments))
    table, data = b"", b""
    for address, load, content, length in segments:
        offset = 58 + 32 * len(segments) + len(data)
        table += struct.pack("<8I", 1, offset, address, load, len(content), length, 0, 4)
        data += content
    return head.ljust(52, b"\0") + table + bytes(6) + data


def test_an_image_is_laid_out_by_load_addresses() -> None:
    image, ram = firmware.load_image(
        elf((0, 0, b"\x13\0\0\0\x6f", 5), (0x1000_0000, 12, b"\1\2", 2), (0x1000_0004, 0x1000_0004, b"", 8))
    )
    assert image == [0x13, 0x6F, 0, 0x0201] and ram == 10
    with pytest.raises(ToolError, match="not an ELF file"):
        firmware.load_image(b"\x7fELF\x02\x01")


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ToolError, match="make compiler"):
        firmware.compiler()
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert firmware.compiler()[0] == "/bin/riscv64-unknown-elf-gcc"
