"""`tiptoe serve --peer tap`: the driver of examples/driver-python against Linux's TCP, the engine on wall time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.conftest import need
from tiptoe_verif.paths import ROOT

SCRIPT = """
tiptoe=$1 example=$2 socket=$3
$tiptoe serve --peer tap --socket $socket --clients 1 & served=$!
for n in $(seq 300); do ip link show tiptoe0 >/dev/null 2>&1 && break; sleep 0.1; done
ip neigh replace 10.77.0.2 lladdr 02:00:00:00:00:02 dev tiptoe0  # the driver answers no ARP
python -m tiptoe_verif.soak.echo_server 10.77.0.1 7 & echo=$!
trap "kill $echo" EXIT
sleep 1
python $example $socket && wait $served
"""


@pytest.mark.tap
def test_python_driver_against_linux(tmp_path):
    need("ip", "unshare")
    binaries = Path(sys.executable).parent
    arguments = [binaries / "tiptoe", ROOT / "examples" / "driver-python" / "echo.py", tmp_path / "engine"]
    new = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}:/usr/sbin:/sbin"}
    result = subprocess.run(
        [*new, "bash", "-c", SCRIPT, "bash", *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "100000 bytes there and back" in result.stdout
