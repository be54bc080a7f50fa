"""Stock load generators and servers, on both sides: ab, wrk, h2load, redis-benchmark, pgbench, iperf3.

The small ones are on the engine for 16 connections, so that most of the clients find it full. The long ones (marker soak): 200
and 400 clients on the one for 256, some seconds each.
"""

import contextlib
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.live.conftest import need
from tiptoe_verif.soak.under_test import ENGINE, KERNEL, UnderTest

pytestmark = pytest.mark.tap

WEB = {
    "ab": "ab -q -n {count} -c {clients} http://{host}/data.bin",
    "wrk": "wrk -t 1 -c {clients} -d {seconds}s --timeout 30s http://{host}/data.bin",
    "h2load": "h2load --h1 -n {count} -c {clients} http://{host}/data.bin",
}
SMALL = {"config": "tiny", "count": 200, "clients": 40, "seconds": 2}
LARGE = [{"config": "sim", "count": 20 * clients, "clients": clients, "seconds": 20} for clients in (200, 400)]
LOADS = [
    pytest.param(SMALL, id="40"),
    *(pytest.param(load, id=str(load["clients"]), marks=pytest.mark.soak) for load in LARGE),
]
loads = pytest.mark.parametrize("load", LOADS)


def failures(tool, said):
    """Requests that failed, by what the tool has said."""
    if tool == "wrk":
        assert int(re.search(r"(\d+) requests in", said)[1]) > 0
        found = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        return sum(map(int, found.groups())) if found else 0
    if tool == "h2load":
        return sum(map(int, re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", said).groups()))
    if tool == "pgbench":
        return int(re.search(r"failed transactions: (\d+)", said)[1])
    return int(re.search(r"Failed requests: +(\d+)", said)[1])


@contextlib.contextmanager
def client_on_the_engine(namespace, folder, program, config):
    """A session whose program waits for a line of input: gives a function that runs it and returns what it said."""
    words = ["run", "--", "sh", "-c", f"read line; {program}; echo done; read line"]
    with UnderTest(namespace, folder, words, config=config) as session:

        def go():
            session.process.stdin.write(b"\n")
            session.process.stdin.flush()
            lines = []
            while not lines or lines[-1] != b"done\n":
                lines.append(session.process.stdout.readline())
                assert lines[-1], b"".join(lines)
            return b"".join(lines).decode()

        yield session, go
        session.until_quiet()
        session.process.stdin.write(b"\n")
        session.process.stdin.close()
        assert session.process.wait(60) == 0


def to_the_end(program, timeout=100):
    """What a program beside the session has said."""
    out, err = program.communicate(timeout=timeout)
    assert program.returncode == 0, err
    return out.decode()


# --- web ---


@pytest.fixture
def nginx(out_dir, rng):
    """Its command line; it serves port 8080."""
    folder = out_dir / "nginx"
    folder.mkdir(exist_ok=True)
    (folder / "data.bin").write_bytes(rng.randbytes(1000))
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else the worker may not be allowed to read where we are
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; {user}"
        f"events {{ worker_connections 1024; }} http {{ access_log off; {paths} server {{ listen 8080; root {folder}; }} }}"
    )
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]


@loads
@pytest.mark.parametrize("tool", list(WEB))
def test_web_load_on_a_stock_server(namespace, out_dir, nginx, tool, load):
    need(tool, "nginx")
    with UnderTest(namespace, out_dir, ["run", "--", *nginx], config=load["config"]) as session:
        session.until_served(ENGINE, 8080)
        program = session.beside(*WEB[tool].format(host=f"{ENGINE}:8080", **load).split())
        assert failures(tool, to_the_end(program)) == 0
        session.until_quiet()


@loads
@pytest.mark.parametrize("tool", list(WEB))
def test_web_load_from_a_stock_client(namespace, out_dir, nginx, tool, load):
    need(tool, "nginx")
    program = WEB[tool].format(host=f"{KERNEL}:8080", **load)
    with client_on_the_engine(namespace, out_dir, program, load["config"]) as (session, go):
        session.beside(*nginx)
        session.until_served(KERNEL, 8080)
        assert failures(tool, go()) == 0


# --- data bases ---


@loads
def test_redis_with_a_connection_a_request(namespace, out_dir, load):
    need("redis-server", "redis-benchmark")
    server = "redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save".split()
    with UnderTest(namespace, out_dir, ["run", "--", *server, ""], config=load["config"]) as session:
        session.until_served(ENGINE, 6379)
        words = f"redis-benchmark -h {ENGINE} -n {load['count']} -c {load['clients']} -k 0 -t ping_mbulk,set --csv"
        out = to_the_end(session.beside(*words.split()))  # it warns of our choice
        assert [line.split(",")[0] for line in out.splitlines()[1:]] == ['"PING_MBULK"', '"SET"']
        session.until_quiet()


@pytest.fixture
def postgres():
    """PostgreSQL's server as a command line, port 5432. It refuses to be root: it is somebody else in a user namespace."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("postgresql is not installed")
    need("pgbench", "unshare")
    somebody = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    with tempfile.TemporaryDirectory(prefix="tiptoe-postgres-") as folder:  # the path of a Unix socket is short
        made = [*somebody, str(found[-1].with_name("initdb")), "-D", f"{folder}/data", "-A", "trust", "-U", "me"]
        subprocess.run([*made, "--no-sync"], check=True, capture_output=True, timeout=60)
        Path(folder, "query.sql").write_text("SELECT repeat('x', 2000);\n")
        settings = {
            "listen_addresses": "*", "unix_socket_directories": folder, "fsync": "off", "max_connections": "500",
        }  # fmt: skip
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        Path(folder, "data", "pg_hba.conf").write_text("host all all all trust\n")
        yield folder, [*somebody, str(found[-1]), "-D", f"{folder}/data", "-p", "5432", *given]


def pgbench(folder, host, clients):
    """Five transactions each, a connection a transaction; `-n` and a script: there is no table to be made."""
    return f"pgbench -n -C -c {clients} -t 5 -f {folder}/query.sql -h {host} -p 5432 -U me postgres"


@pytest.mark.parametrize("clients", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_postgres_on_the_engine(namespace, out_dir, postgres, clients):
    folder, server = postgres
    with UnderTest(namespace, out_dir, ["run", "--", *server], config="tiny" if clients < 200 else "sim") as session:
        session.until_served(ENGINE, 5432)
        program = session.beside(*pgbench(folder, ENGINE, clients).split())
        assert failures("pgbench", to_the_end(program)) == 0
        session.until_quiet()


@pytest.mark.parametrize("clients", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_pgbench_on_the_engine(namespace, out_dir, postgres, clients):
    folder, server = postgres
    program = pgbench(folder, KERNEL, clients)
    with client_on_the_engine(namespace, out_dir, program, "tiny" if clients < 200 else "sim") as (session, go):
        session.beside(*server)
        session.until_served(KERNEL, 5432)
        assert failures("pgbench", go()) == 0


# --- streams ---


@pytest.mark.parametrize("side", ["server", "client"])
def test_iperf3_eight_at_once_right_after_the_other_way(namespace, out_dir, side):
    need("iperf3")
    host = ENGINE if side == "server" else KERNEL
    runs = [f"iperf3 -c {host} {way} -J" for way in ("-n 400K -R", "-n 400K -P 8", "-n 400K -P 8 -R")]
    server = ["iperf3", "-s"]
    if side == "server":
        with UnderTest(namespace, out_dir, ["run", "--", *server], config="sim") as session:
            session.until_served(ENGINE, 5201)
            reports = [to_the_end(session.beside(*words.split())) for words in runs]
            session.until_quiet()
    else:
        program = "; ".join(f"{words}; echo ===" for words in runs)
        with client_on_the_engine(namespace, out_dir, program, "sim") as (session, go):
            session.beside(*server)
            session.until_served(KERNEL, 5201)
            reports = go().split("===\n")[:3]
    for report in map(json.loads, reports):
        assert "error" not in report, report["error"]
        assert report["end"]["sum_sent"]["bytes"] >= 400 << 10
        assert report["end"]["sum_received"]["bytes"] > 0
