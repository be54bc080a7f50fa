"""Many short connections, many at a time: no failure, no request slower than ten times the median, all ids and memory back.

The small ones are on the engine for 16 connections, so that most of the clients find it full. The long ones (marker soak) make
TIPTOE_CHURN requests (100,000 unless set), TIPTOE_AT_ONCE (200) at a time, on the one for 256.
"""

import os
import signal
import sys
import time

import pytest

from tiptoe_verif.soak.under_test import ECHO_SERVER, ENGINE, KERNEL, UnderTest, judge, report_of

pytestmark = pytest.mark.tap
SIDES = ["listen", "forward", "run-server", "run-client"]
PYTHON = [sys.executable, "-I"]


@pytest.fixture
def under_test(namespace, out_dir):
    """Makes the session of a side, with an echo server behind; gives it and where a client connects."""
    made = []

    def make(side, config="tiny", client=()):
        server = [*PYTHON, str(ECHO_SERVER), "0.0.0.0", "7000"]
        arguments = {
            "listen": ["live", "--listen", "7000=echo"],
            "forward": ["live", "--forward", f"9000={KERNEL}:7000"],
            "run-server": ["run", "--", *server],
            "run-client": ["run", "--", *client],
        }[side]
        if side == "run-client":
            beside = namespace.popen(server)
            made.append(beside)
            time.sleep(0.5)
        session = UnderTest(namespace, out_dir / side, arguments, config=config)
        made.append(session)
        if side == "forward":
            session.beside(*server)
        where = ("127.0.0.1", 9000) if side == "forward" else (ENGINE, 7000)
        if side == "forward":
            session.until_served(KERNEL, 7000)
        if side != "run-client":
            session.until_served(*where)
        return session, where

    yield make
    for each in reversed(made):
        if isinstance(each, UnderTest):
            each.close()
        else:
            each.kill()
            each.wait()


def churn(under_test, side, config, count, at_once, seed=1, rounds=1):
    """The requests in rounds; reports, and memory after each."""
    words = [count // rounds, at_once, 2000, seed]
    if side == "run-client":
        client = UnderTest.echo(None, KERNEL, 7000, *words)
        program = " ".join(client)
        session, _ = under_test(side, config, ["sh", "-c", f"for n in {'x ' * rounds}; do {program}; done; sleep 5"])
        reports, memory = [], []
        for _ in range(rounds):
            line = session.process.stdout.readline()
            reports.append(report_of(line))
            memory.append(session.memory())
    else:
        session, where = under_test(side, config)
        reports, memory = [], []
        for _ in range(rounds):
            out, err = session.beside(*session.echo(*where, *words)).communicate(timeout=4000)
            assert err == b""
            reports.append(report_of(out))
            memory.append(session.memory())
    for report in reports:
        judge(report)
        assert report["requests"] == count // rounds
    session.until_quiet()
    return reports, memory


@pytest.mark.parametrize("side", SIDES)
def test_churn_beyond_the_ids(under_test, side):
    churn(under_test, side, "tiny", 300, 40)


@pytest.mark.soak
@pytest.mark.parametrize("side", SIDES)
def test_churn_for_long(under_test, side, capsys):
    """Memory is flat: in the second half of the run it grows by less than a kilobyte a connection in any tenth."""
    count, at_once = int(os.environ.get("TIPTOE_CHURN", "100000")), int(os.environ.get("TIPTOE_AT_ONCE", "200"))
    reports, memory = churn(under_test, side, "sim", count, at_once, rounds=10)
    with capsys.disabled():
        print(f"\n{side}: {[(r['median_ms'], r['max_ms']) for r in reports]}, MB {[m >> 20 for m in memory]}")
    assert memory[-1] - memory[4] < count // 2 * 200 + (16 << 20)


def stopped(under_test, side, seconds):
    """One side stops in the middle of many transfers, and goes on."""
    session, where = under_test("run-server", "tiny")
    client = session.beside(*session.echo(*where, 60, 30, 60_000, 3))
    time.sleep(0.3)
    server = next(
        int(pid) for pid in os.listdir("/proc") if pid.isdigit()
        and _parent(pid) == session.process.pid
    )  # fmt: skip
    who = client.pid if side == "client" else server
    os.kill(who, signal.SIGSTOP)
    try:
        time.sleep(seconds)
        session.check()
    finally:
        os.kill(who, signal.SIGCONT)
    out, _ = client.communicate(timeout=120)
    report = report_of(out)
    assert report["requests"] == 60 and not report["failed"], report
    session.until_quiet()


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.mark.parametrize("side", ["client", "server"])
def test_stopped_program_goes_on(under_test, side):
    stopped(under_test, side, 3)


@pytest.mark.soak
@pytest.mark.parametrize("side", ["client", "server"])
def test_program_stopped_for_a_minute_goes_on(under_test, side):
    stopped(under_test, side, 60)


def together(under_test, side, config, clients, connecting, hold_s=0.5):
    """All connected for a while, data on all, thrice; `stat` says meanwhile whose they are: the most of each, and of both."""
    session, where = under_test(side, config)
    ids = session.until_quiet()["devices"][0]["ids"]["total"]
    most = []
    for seed in range(3):
        words = [clients, clients, 5000, seed, "together", connecting, hold_s]
        client = session.beside(*session.echo(*where, *words))
        engine = kernel = both = 0
        while client.poll() is None:
            taken = session.check()
            whose = [row["device"] for row in taken["connections"] if row["state"] == "ESTABLISHED"]
            engine, kernel = max(engine, len(whose) - whose.count(None)), max(kernel, whose.count(None))
            both = max(both, len(whose))
            time.sleep(0.02)
        report = report_of(client.communicate()[0])
        assert report["requests"] == clients and not report["failed"], report
        session.until_quiet()
        assert kernel > 0 and both > ids, (engine, kernel, both)
        most.append(engine)
    return most, ids


@pytest.mark.parametrize("side", ["listen", "run-server"])
def test_clients_beyond_the_ids_are_the_kernels(under_test, side):
    """They come as fast as handshakes end, so that only ids run out: the engine is full before the kernel has any."""
    most, ids = together(under_test, side, "tiny", 40, 3)
    assert min(most) >= ids * 3 // 4


@pytest.mark.parametrize("side", ["listen", "run-server"])
def test_a_burst_beyond_the_syncache_is_the_kernels(under_test, side):
    """40 SYNs at once for four half-open connections: whatever the engine takes of them, all are served."""
    together(under_test, side, "tiny", 40, 40)


@pytest.mark.soak
@pytest.mark.parametrize("side", ["listen", "run-server"])
def test_more_clients_than_256_ids(under_test, side):
    most, ids = together(under_test, side, "sim", 300, 40, hold_s=3)
    assert min(most) >= ids * 3 // 4
