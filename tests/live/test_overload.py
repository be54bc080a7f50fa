"""More of everything than the engine has room for, one table at a time and all together: nobody is refused, nothing is lost.

On the engine for 16 connections: 4 listeners, 4 half-open connections, 4 next hops. (Ids and the syncache: test_churn.)
"""

import subprocess
import sys

import pytest

from tests.live.conftest import ENGINE
from tiptoe_verif.soak.under_test import ECHO_SERVER, UnderTest

pytestmark = pytest.mark.tap
NEIGHBOURS = [f"10.77.0.{100 + n}" for n in range(12)]
PORTS = range(7000, 7008)
PYTHON = [sys.executable, "-I"]


@pytest.fixture
def add_neighbours(namespace):
    """Gives the kernel more addresses on the engine's subnet: to the engine each is a neighbour."""

    def add():
        for address in NEIGHBOURS:
            command = namespace.command(["ip", "addr", "add", f"{address}/24", "dev", "tiptoe0"])
            subprocess.run(command, check=True, capture_output=True, timeout=20)

    return add


def connected(namespace, source, host, port):
    """A connection of the kernel's from an address of its choice."""
    made = namespace.socket()
    made.settimeout(60)
    made.bind((source, 0))
    made.connect((host, port))
    return made


def echoed(clients, rng):
    """Data on all connections, all in use at once; then they end in order."""
    sent = [rng.randbytes(rng.randrange(1, 6000)) for _ in clients]
    for made, data in zip(clients, sent, strict=True):
        made.sendall(data)
    for made, data in zip(clients, sent, strict=True):
        got = b""
        while len(got) < len(data):
            part = made.recv(65536)
            assert part
            got += part
        assert got == data
    for made in clients:
        made.close()


def test_clients_of_more_neighbours_than_next_hops(namespace, out_dir, add_neighbours, rng):
    with UnderTest(namespace, out_dir, ["live", "--listen", "7000=echo"], config="tiny") as session:
        add_neighbours()
        for _ in range(3):
            echoed([connected(namespace, source, ENGINE, 7000) for source in NEIGHBOURS], rng)
            session.until_quiet()


def test_servers_on_more_neighbours_than_next_hops(namespace, out_dir, add_neighbours, rng):
    forwards = [word for n, host in enumerate(NEIGHBOURS) for word in ("--forward", f"{9000 + n}={host}:7000")]
    with UnderTest(namespace, out_dir, ["live", *forwards], config="tiny") as session:
        add_neighbours()
        session.beside(*PYTHON, ECHO_SERVER, "0.0.0.0", 7000)
        session.until_served(NEIGHBOURS[0], 7000)
        for _ in range(3):
            ports = range(9000, 9000 + len(NEIGHBOURS))
            echoed([connected(namespace, "127.0.0.1", "127.0.0.1", port) for port in ports], rng)
            session.until_quiet()


def test_every_table_at_once(namespace, out_dir, add_neighbours, rng):
    """Eight listeners, twelve neighbours, 96 connections."""
    listen = [word for port in PORTS for word in ("--listen", f"{port}=echo")]
    with UnderTest(namespace, out_dir, ["live", *listen], config="tiny") as session:
        add_neighbours()
        for _ in range(2):
            echoed([connected(namespace, source, ENGINE, port) for source in NEIGHBOURS for port in PORTS], rng)
            session.until_quiet()
