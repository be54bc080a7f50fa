"""The generated header and the C example: they compile as C11 and C++17 without a warning, and the example carries a connection
through the simulated engine, or ends with the right error."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tiptoe_verif import c_example
from tiptoe_verif.c_example import HEADERS, MEMORY_BYTES, SOURCES, Fetch, Result, Server, fetch
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment
from tiptoe_verif.paths import ROOT

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
RECEIVE_RING, COMMAND_RING = 0x4000, 0x0000
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", f"-I{HEADERS}", f"-I{SOURCES}"]


@pytest.fixture
def make(out_dir) -> Iterator[Callable[..., Pair]]:
    """Two engines, the first one without a driver."""
    made: list[Pair] = []

    def pair(**options) -> Pair:
        made.append(Pair("tiny", a={"attach": False}, memory_bytes=1 << 24, pcap=out_dir / "wire.pcap", **options))
        return made[-1]

    yield pair
    for two in made:
        two.check()
        two.close()


def fetch_from(
    two: Pair, *, port: int = 80, request: bytes = REQUEST, server_ip: int | None = None, **options
) -> Fetch:
    return fetch(
        two.a, server_ip=server_ip or two.b.ip, server_mac=two.b.mac, server_port=port, request=request, **options
    )


@pytest.mark.parametrize("header", ["tiptoe.h", "connect.h"])
@pytest.mark.parametrize("compiler", [["cc", "-std=c11", "-x", "c"], ["c++", "-std=c++17", "-x", "c++"]])
def test_headers_compile(compiler: list[str], header: str) -> None:
    source = f'#include "{header}"\n#include "{header}"\nint f(void) {{ return 0; }}\n'
    subprocess.run([*compiler, *STRICT, "-"], input=source, text=True, check=True)


def test_names_of_the_header_and_of_python_agree() -> None:
    text = (SOURCES / "connect.h").read_text()
    names = {name: int(value) for name, value in re.findall(r"^    CONNECT_(\w+) = (\d+)", text, re.M)}
    assert names == {member.name: member.value for member in Result}
    assert f"#define CONNECT_MEMORY_BYTES {MEMORY_BYTES:#x}u" in text


@pytest.mark.parametrize(
    "size, request_bytes, loss", [(0, 0, 0), (100_000, 0, 0), (3000, 10_000, 0), (20_000, 6000, 0.05)]
)
def test_answer_is_what_the_server_sent(make, rng: random.Random, size: int, request_bytes: int, loss: float) -> None:
    """Also through rings that go round, both ways, and over a line that loses frames."""
    two = make(impairment=Impairment(loss=loss, seed=3))
    server = Server(two.b, rng.randbytes(size))
    padding = bytes(rng.choices(b"abcdefgh", k=request_bytes))
    request = REQUEST if not request_bytes else b"GET / HTTP/1.0\r\nX: " + padding + b"\r\n\r\n"
    fetched = fetch_from(two, request=request, timeout_us=30_000_000)
    assert fetched.result is Result.OK
    assert fetched.answer == server.answer and server.requests == [request]
    steps = [what for _, what, _ in fetched.notes]
    assert steps[:3] == ["OPEN of port", "established, largest segment", "send doorbell"]
    assert steps[-3:] == ["CLOSE at", "the end, reason", "released, tid"]


def test_again_on_the_same_engine(make, rng: random.Random) -> None:
    two = make()
    server = Server(two.b, rng.randbytes(5000))
    for seed in (1, 2, 3):
        assert fetch_from(two, seed=seed).answer == server.answer
    assert len(server.requests) == 3


def test_event_ring_goes_round(make, rng: random.Random) -> None:
    """More events than the ring's 64 entries: the phase bit turns."""
    two = make()
    server = Server(two.b, rng.randbytes(300_000))
    fetched = fetch_from(two, timeout_us=30_000_000)
    assert sum(what == "receive doorbell" for _, what, _ in fetched.notes) > 130
    assert fetched.answer == server.answer


def test_refused(make) -> None:
    two = make()
    Server(two.b, b"page")
    fetched = fetch_from(two, port=81)
    assert fetched.result is Result.REFUSED and fetched.answer == b""
    assert fetched.notes[-1][1] == "released, tid"


def test_reset_by_the_server(make) -> None:
    two = make()
    listener = two.b.socket()
    listener.bind(("", 80))
    listener.listen()

    def reset() -> None:
        if listener.readable():
            child, _ = listener.accept()
            child.send(b"half")
            two.b.toe.calls.abort(child.so.so_pcb.inp_ppcb.t_toe)

    two.b.tasks.append(reset)
    assert fetch_from(two).result is Result.RESET


@pytest.mark.parametrize("room", [0, 1000, 20_000])
def test_answer_too_long(make, rng: random.Random, room: int) -> None:
    two = make()
    server = Server(two.b, rng.randbytes(30_000))
    fetched = fetch_from(two, room=room)
    assert fetched.result is Result.TOO_LONG and fetched.answer == server.answer[:room]
    assert [what for _, what, _ in fetched.notes[-2:]] == ["the end, reason", "released, tid"]


def test_nobody_answers(make) -> None:
    two = make()
    fetched = fetch_from(two, server_ip=two.b.ip + 1, timeout_us=100_000)
    assert fetched.result is Result.TIMEOUT and fetched.notes[-1][1] == "released, tid"


def test_memory_that_cannot_be_written(make) -> None:
    two = make()
    Server(two.b, b"page")
    two.a.harness.add_error(RECEIVE_RING, MEMORY_BYTES, reads=False)
    assert fetch_from(two).result is Result.MEMORY


def test_command_that_cannot_be_read(make) -> None:
    two = make()
    Server(two.b, b"page")
    two.a.harness.add_error(COMMAND_RING, COMMAND_RING + 1024, writes=False, count=1)
    fetched = fetch_from(two)
    assert fetched.result is Result.COMMAND and "refused, command" in [what for _, what, _ in fetched.notes]


class Wrong:
    """A device that is no engine, or fails at a call."""

    ip = mac = 1
    tick_us = cycles_per_us = 1

    def __init__(self, failing: str = "") -> None:
        self.memory = memoryview(bytearray(MEMORY_BYTES))
        self.failing = failing

    def _call(self, name: str) -> int:
        if name == self.failing:
            raise OSError(name)
        return 0

    def write32(self, address: int, value: int) -> None:
        self._call("write32")

    def read32(self, address: int) -> int:
        self._call("read32")
        return {0: 0x54504954, 4: 0x0100}.get(address, 0) if self.failing else 0

    def wait(self, timeout_us: int) -> int:
        return self._call("wait")

    def now_us(self) -> int:
        return 0


def test_no_engine() -> None:
    assert fetch(Wrong(), server_ip=1, server_mac=1, server_port=1, request=b"").result is Result.NO_ENGINE


@pytest.mark.parametrize(
    "failing, result", [("write32", None), ("read32", None), ("wait", None), ("nothing", Result.NOT_READY)]
)
def test_what_goes_wrong_in_the_device_is_raised(failing: str, result: Result | None) -> None:
    arguments = dict(server_ip=1, server_mac=1, server_port=1, request=b"")
    if result is not None:
        assert fetch(Wrong(failing), **arguments).result is result
        return
    with pytest.raises(OSError, match=failing):
        fetch(Wrong(failing), **arguments)


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert c_example.main(["--size", "2000", "--port", "80"]) == 0
    assert capsys.readouterr().out.endswith("OK: 2041 bytes of the answer, as sent\n")
    assert c_example.main(["--port", "81"]) == Result.REFUSED
    assert capsys.readouterr().out.endswith("REFUSED: 0 bytes of the answer, none\n")


def test_without_a_compiler_it_is_one_line(tmp_path) -> None:
    environment = {
        "PATH": str(tmp_path),
        "TIPTOE_BUILD": str(tmp_path / "build"),
        "HOME": str(tmp_path),
        "PYTHONPATH": ":".join(sys.path),
    }
    result = subprocess.run(
        [sys.executable, "-m", "tiptoe_verif.c_example"], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 1 and result.stdout == ""
    assert re.fullmatch(r"error: gcc not found: install it first .*\n", result.stderr)


def test_guide_quotes_the_example() -> None:
    """The C excerpts of the programmer's guide are lines of connect.c; ``...`` stands for some left out."""
    guide = (ROOT / "docs" / "driver.md").read_text()
    code = re.sub(r"\s+", " ", (SOURCES / "connect.c").read_text())
    excerpts = re.findall(r"^```c$(.*?)^```$", guide, re.S | re.M)
    assert len(excerpts) >= 6
    for excerpt in excerpts:
        at = 0
        for part in excerpt.split("..."):
            text = re.sub(r"\s+", " ", part).strip()
            at = code.find(text, at)
            assert at >= 0, f"not in connect.c: {text}"
