"""An engine that stands still in a live session: the person at the terminal reads of it, and the session goes on."""

import io
import socket
import sys

import pytest
from rich.console import Console

from tests.live.conftest import ENGINE, KERNEL
from tests.live.test_stat import fetch, runtime  # noqa: F401
from tiptoe_driver import DeviceState
from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_verif import stat as stat_command
from tiptoe_verif.live import command
from tiptoe_verif.live.setup import LiveSetup
from tiptoe_verif.run import command as run_command
from tiptoe_verif.wire.pcap import free_capture

pytestmark = pytest.mark.tap
LOOK_US = 50_000
LINE = f"tiptoe0 {ENGINE}: its commands stand still: reset; its connections end, its listeners come back"


def lose_commands(toe):
    """The engine learns of no command any more, until it is reset."""
    gate = toe.engine.device
    write = gate.write32

    def broken(address, value):
        if address == reg.REG_CONTROL and value & reg.CONTROL_SOFT_RESET:
            gate.write32 = write
        if address != reg.REG_COMMAND_TAIL:
            write(address, value)

    gate.write32 = broken


def printed(monkeypatch, module, name):
    """What a module prints to its console."""
    text = io.StringIO()
    monkeypatch.setattr(module, name, Console(file=text, width=132, highlight=False))
    return text


def tables(taken, before=None):
    console = Console(file=io.StringIO(), width=120, highlight=False)
    console.print(stat_command.tables(taken, before))
    return console.file.getvalue()


@pytest.mark.parametrize("host_stack", [False, None], ids=["alone", "host_stack"])
def test_live_says_so_and_the_next_connection_works(make_bench, monkeypatch, rng, host_stack):
    text = printed(monkeypatch, command, "console")
    bench = make_bench(listen=[(7, "echo")], stat="test", host_stack=host_stack, driver={"watchdog_us": LOOK_US})
    toe = bench.engine.toe
    client = bench.connect(7)
    bench.carry(client, client, b"before")
    lose_commands(toe)
    client.shutdown(socket.SHUT_WR)  # the echo service closes: a command
    bench.engine.tasks.append(lambda: bool(toe.standstills and bench.engine.stop()))
    command.keep_running(bench.session, 30)
    bench.engine.tasks.pop()
    assert text.getvalue().count(LINE + "\n") == 1, text.getvalue()
    assert "standstills" in text.getvalue()  # in the summary
    bench.until(lambda: toe.state is DeviceState.RUNNING, "the device again")
    data = rng.randbytes(50_000)
    again = bench.connect(7)
    bench.carry(again, again, data)
    taken = fetch(bench)
    [device] = taken["devices"]
    assert device["resets"] == 1 and device["driver_counters"]["watchdog_commands"] == 1
    [standstill] = device["standstills"]
    assert (standstill["what"], standstill["by"], standstill["action"]) == (["commands"], "driver", "RESET")
    shown = tables(taken)
    assert "standstills" in shown and "1 reset" in shown and "commands 1; the last" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_stat_says_nothing_of_standstills_when_there_were_none(make_bench):
    bench = make_bench(stat="test")
    taken = fetch(bench)
    assert taken["devices"][0]["standstills"] == [] and "standstill" not in tables(taken)


def test_stat_tells_who_stopped_the_device(make_bench):
    bench = make_bench(stat="test", driver={"watchdog_us": LOOK_US, "resets_most": 0})
    listener = bench.offloaded_listener(80)
    lose_commands(bench.engine.toe)
    listener.close()
    bench.until(lambda: bench.engine.toe.standstills, "the standstill")
    bench.for_s(0.2)
    shown = tables(fetch(bench))
    assert "stopped" in shown and "stopped by the watchdog" in shown


def test_run_says_so_on_stderr_and_the_program_gets_a_reset(monkeypatch, capfd, out_dir):
    text = printed(monkeypatch, run_command, "log")

    class Session(run_command.LiveSession):
        """Loses the engine's commands once the program is connected."""

        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.server = self.namespace.socket()
            self.server.bind((KERNEL, 8000))
            self.server.listen()
            self.server.setblocking(False)
            self.engine.tasks.append(self.look)
            self.client = None

        def look(self):
            try:
                client, _ = self.server.accept()
            except BlockingIOError:
                return False
            if self.engine.toe.standstills:
                client.close()
            else:
                self.client = client
                lose_commands(self.engine.toe)
                client.shutdown(socket.SHUT_WR)  # so the program closes
            return False

        def close(self):
            super().close()
            self.server.close()
            self.client.close()

    monkeypatch.setattr(run_command, "LiveSession", Session)
    setup = LiveSetup(
        config="tiny", namespace=True, pcap=free_capture(out_dir / "run.pcap"), driver={"watchdog_us": LOOK_US}
    )
    program = (
        "import socket, time\n"
        f"first = socket.create_connection(('{KERNEL}', 8000))\n"
        "assert first.recv(1) == b''\n"
        "first.shutdown(socket.SHUT_WR)\n"
        "time.sleep(1.5)\n"
        f"third = socket.create_connection(('{KERNEL}', 8000))\n"
        "print('connected again')\n"
    )
    code = run_command.run_program(setup, [sys.executable, "-c", program], quiet=True)
    out, err = capfd.readouterr()
    assert (code, out) == (0, "connected again\n"), (err, text.getvalue())
    assert text.getvalue() == LINE + "\n"
