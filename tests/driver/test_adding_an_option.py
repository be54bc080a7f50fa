"""docs/adding-an-option.md: what it names exists, and the option it follows does what it says, on the engine."""

from __future__ import annotations

import ast
import errno
import re
import socket
from pathlib import Path

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from tiptoe_verif.native.pair import Pair

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "adding-an-option.md").read_text()
PATH = r"[\w./-]+\.(?:py|md|toml|h)"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in GUIDE.splitlines() if re.match(r"\| \d", line)
]


def names_of(path: Path) -> set[str]:
    """Functions, classes, methods ("Class.method") and names assigned at the top or in a class."""
    found: set[str] = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                walk(node.body, node.name + ".")
            if isinstance(node, ast.Assign):
                found.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)

    walk(ast.parse(path.read_text()).body, "")
    return found


def test_every_file_named_exists() -> None:
    paths = set(re.findall(rf"`({PATH})`", GUIDE))
    assert len(paths) > 20
    assert not [path for path in paths if not (ROOT / path).is_file()]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_name_of_the_table_exists(row: list[str]) -> None:
    _, files, names, story = row
    paths = [ROOT / path for path in re.findall(rf"`({PATH})`", files)]
    known = set().union(*(names_of(path) for path in paths))
    wanted = re.findall(r"`([\w.]+)`", names)
    assert wanted and not [name for name in wanted if name not in known]
    text = "".join(path.read_text() for path in paths)
    assert not [name for name in re.findall(r"`(\w+)`", story) if not re.search(rf"\b{name}\b", text)]


def test_every_test_and_function_of_the_steps_exists() -> None:
    steps = GUIDE.split("## Step by step")[1]
    everything = set().union(*(names_of(ROOT / path) for path in re.findall(r"`([\w./-]+\.py)`", GUIDE)))
    wanted = [
        name
        for name in re.findall(r"`([\w.]+)`", steps)
        if name.startswith("test_") or re.fullmatch(r"[A-Z]\w+\.\w+", name) and not re.fullmatch(PATH, name)
    ]
    assert len(wanted) >= 4 and not [name for name in wanted if name not in everything]


def test_tcp_maxseg_reaches_the_wire() -> None:
    """The SYN offers it, and no segment of either side is longer, though the other side offers more."""
    frames: list[bytes] = []
    with Pair("tiny", driver={"arp_retry_us": 20_000}, memory_bytes=1 << 24) as two:
        carry = two.wire.channels[0].send
        two.wire.channels[0].send = lambda frame, time_us: (frames.append(frame), carry(frame, time_us))[1]
        listener = two.b.socket()
        listener.bind(("", 80))
        listener.listen()
        client = two.a.socket()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 500)
        assert client.connect_ex(("10.0.0.2", 80)) == errno.EINPROGRESS
        two.run_until(lambda: listener.readable() and client.writable(), 100_000, "established")
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 500
        server, _ = listener.accept()
        client.send(bytes(3000))
        two.run_until(lambda: server.so.so_rcv.sb_cc == 3000, 100_000, "the data")
        two.check()
    segments = [Ether(frame)[TCP] for frame in frames if TCP in Ether(frame)]
    [syn] = [segment for segment in segments if segment.flags == "S"]
    assert dict(syn.options)["MSS"] == 500
    assert max(len(segment.payload) for segment in segments if "P" in segment.flags or len(segment.payload) > 60) == 500
