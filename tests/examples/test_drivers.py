"""The drivers of examples/driver-python and examples/driver-c, as they are, on `tiptoe serve`; and the client's line."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.paths import ROOT
from tiptoe_verif.serve.engines import BareEngine
from tiptoe_verif.serve.server import Server, listen_unix

EXAMPLES = ROOT / "examples"
TIPTOE = Path(sys.executable).with_name("tiptoe")


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """The command, and its socket."""
    path = tmp_path_factory.mktemp("serve") / "engine"
    process = subprocess.Popen([TIPTOE, "serve", "--socket", path, "--seed", "7"], stdout=subprocess.PIPE, text=True)
    said = process.stdout.readline()
    while "echoes" not in said:  # it is being built
        assert said, "it has ended"
        said = process.stdout.readline()
    yield path
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0 and not path.exists()
    process.stdout.close()


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_python_driver_after_one_that_was_killed_in_mid_connection(serve):
    script = EXAMPLES / "driver-python" / "echo.py"
    killed = subprocess.Popen([sys.executable, script, serve])
    time.sleep(1.0)
    killed.kill()
    killed.wait()
    assert run(sys.executable, script, serve).startswith("100000 bytes there and back")


@pytest.mark.parametrize("program", ["echo", "toe_echo"])
def test_c_driver(serve, tmp_path, program):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    folder = shutil.copytree(EXAMPLES / "driver-c", tmp_path / "driver-c")
    places = [f"HEADERS={ROOT / 'driver' / 'include'}", f"TOE={ROOT / 'driver' / 'c'}"]
    run("make", "-C", folder, *places, "CFLAGS=-O1 -Wall -Wextra -Wpedantic -Werror", program)
    assert run(folder / program, serve).startswith("100000 bytes there and back")


@pytest.fixture
def seam(tmp_path):
    """examples/driver-python's Seam, on an engine whose line is the client's."""
    spec = importlib.util.spec_from_file_location("seam", EXAMPLES / "driver-python" / "seam.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    engine = BareEngine("tiny")
    server = Server(engine, listen_unix(tmp_path / "engine"))
    thread = threading.Thread(target=lambda: server.run(clients=1))
    thread.start()
    made = module.Seam(os.fspath(tmp_path / "engine"))
    yield made
    made.close()
    thread.join()
    server.close()
    engine.close()


def test_line_of_the_client_and_order_of_writes(seam):
    seam.write(abi.REG_MAC_LO, seam.mac & 0xFFFF_FFFF)
    seam.write(abi.REG_MAC_HI, seam.mac >> 32)
    for value in range(1, 50):
        seam.write(abi.REG_IP_ADDR, value)
    seam.write(abi.REG_IP_ADDR, seam.ip)
    assert seam.read(abi.REG_IP_ADDR) == seam.ip  # behind every write before it
    with pytest.raises(OSError, match="error response"):
        seam.read(0x600)  # no register
    while not seam.read(abi.REG_STATUS) & abi.STATUS_READY:
        seam.wait(100)
    seam.write(abi.REG_CONTROL, abi.CONTROL_ENABLE | abi.CONTROL_EXTERNAL_TICK | abi.CONTROL_RST_UNKNOWN)
    begin, _ = seam.wait(100)
    addresses = IP(src="10.77.0.1", dst="10.77.0.2")
    macs = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    assert seam.take() == b""
    seam.send(bytes(macs / addresses / TCP(sport=1234, dport=99, flags="S", seq=5)))
    now, bits = seam.wait(1_000_000)
    assert bits & 2 and now - begin < 5_000  # the frame ends the wait
    assert seam.wait(1_000_000)[0] == now, "a frame that waits is told of at once"
    answer = Ether(seam.take())
    assert (answer[TCP].flags, answer[TCP].ack, answer.dst) == ("RA", 6, "02:00:00:00:00:01")
    assert seam.take() == b""
    assert seam.wait(2_500)[0] - now == 2_500


def test_no_queue_grows_without_end(seam):
    """Nobody lets time pass: writes are carried out all the same, frames refused."""
    for value in range(5000):
        seam.write(abi.REG_IP_ADDR, value)
    assert seam.read(abi.REG_IP_ADDR) == 4999
    with pytest.raises(OSError, match="4096 frames wait"):
        for _ in range(5000):
            seam.send(bytes(60))
    assert seam.wait(0)[0] >= 5000  # a cycle a write
