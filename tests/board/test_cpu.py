"""The top with a processor, in Verilator: it boots from its ROM, and serves without a PC."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.board.serving import Client, pattern
from tiptoe_board import firmware
from tiptoe_board.address_map import MEMORY_BASE, status_address
from tiptoe_board.modules import BESIDE_CPU
from tiptoe_board.sim.board import BUILD_ID, SimulatedBoard, build_board, elaborated
from tiptoe_board.sim.bridge import Bridge
from tiptoe_board.sim.tap import TapLine
from tiptoe_driver.hardware.abi_gen import ID_VALUE
from tiptoe_verif.live.namespace import why_no_tap
from tiptoe_verif.native.simulation import Simulation, Wire
from tiptoe_verif.sim.toolchain import ToolError

CPU = "vexriscv"
IP = "192.168.1.51"
CONNECTIONS = 5
"""As many as host memory has rings for."""


def compiled(build: Callable[[Path], firmware.Firmware]) -> firmware.Firmware:
    """A program, if there is a compiler."""
    try:
        firmware.compiler()
    except ToolError as error:
        pytest.skip(str(error))
    return build(elaborated(BESIDE_CPU, CPU))


@pytest.fixture(scope="module")
def library() -> Path:
    return build_board(BESIDE_CPU, cpu=CPU)


@pytest.fixture
def start(library: Path) -> Iterator[Callable[[firmware.Firmware], SimulatedBoard]]:
    boards: list[SimulatedBoard] = []

    def made(program: firmware.Firmware) -> SimulatedBoard:
        boards.append(SimulatedBoard(library, program.rom))
        return boards[-1]

    yield made
    for board in boards:
        board.close()


@pytest.mark.xdist_group("board-cpu")
def test_it_boots_beside_the_bridge(start: Callable[[firmware.Firmware], SimulatedBoard]) -> None:
    """The console tells what registers say; the bridge reads and writes meanwhile."""
    board = start(compiled(lambda soc: firmware.build([firmware.SOURCES / "hello.c"], soc)))
    bridge = Bridge(board)
    words = [n * 0x01010101 for n in range(200)]
    bridge.write(MEMORY_BASE, words)
    assert bridge.read(MEMORY_BASE, 200) == words
    board.boot("engine ready after cycles")
    lines = dict(line.rsplit(" ", 1) for line in board.console.splitlines() if " " in line)
    assert int(lines["tiptoe build"], 16) == BUILD_ID == bridge.read(status_address("build"))[0]
    assert int(lines["engine id"], 16) == ID_VALUE
    assert "trap" not in board.console


@pytest.mark.xdist_group("board-cpu")
def test_it_serves(start: Callable[[firmware.Firmware], SimulatedBoard]) -> None:
    """Bytes more than the ring has, to a second engine with its driver; then more clients than connections one after the other,
    each leaving one in TIME_WAIT."""
    board = start(compiled(firmware.build_server))
    board.boot("serving at")
    with Simulation("tiny", ip="192.168.1.1", cycles_per_us=50) as peer:
        Wire(board, peer)
        client = Client(board, peer, IP)
        assert client.get("/bytes/12000") == pattern(12000)
        for number in range(CONNECTIONS + 2):
            assert client.get(f"/bytes/{number}") == pattern(number)
        page = client.get("/").decode()
    rows = {name: int(value) for name, value in (row.split(" ") for row in page.splitlines())}
    assert rows["accepted"] == CONNECTIONS + 4 and rows["lost_ids"] == rows["refused_commands"] == 0
    bridge = Bridge(board)
    for name in ("rx_dropped", "rx_damaged", "tx_dropped"):
        assert bridge.read(status_address(name)) == [0], name


@pytest.mark.xdist_group("board-cpu")
def test_what_accesses_cost(start: Callable[[firmware.Firmware], SimulatedBoard]) -> None:
    """Clock cycles, as docs/board.md has them: nothing waits for another master when the bridge is silent."""
    program = [firmware.SOURCES / "costs.c", firmware.DRIVER / "apps" / "pattern.c"]
    board = start(compiled(lambda soc: firmware.build(program, soc, [firmware.DRIVER, firmware.DRIVER / "apps"])))
    board.boot("done")
    lines = (line.rsplit(" ", 1) for line in board.console.splitlines() if line != "done")
    costs = {what: int(count, 16) / 100 for what, count in lines}
    print(costs)
    assert costs["memory load"] < 8 and costs["memory store"] < 5 and costs["register load"] < 16
    assert costs["pattern, byte"] < 3 < costs["pattern askew, byte"]


@pytest.mark.soak
@pytest.mark.xdist_group("board-cpu")
def test_curl(start: Callable[[firmware.Firmware], SimulatedBoard], tmp_path: Path) -> None:
    """curl, over Linux's TCP: a mebibyte, its hash equal."""
    if reason := why_no_tap():
        pytest.skip(reason)
    board = start(compiled(firmware.build_server))
    board.boot("serving at")
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
