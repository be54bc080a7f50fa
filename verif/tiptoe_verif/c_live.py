"""The firmware in C (examples/c) on the simulated engine, on a network: ``python -m tiptoe_verif.c_live``, then ``curl``.

The engine's line is a TAP interface, where Linux is the peer; the driver is the one of driver/c, compiled for this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path

from .c_driver import CDriver, Error
from .live.engine import LiveEngine
from .live.namespace import NetNamespace
from .live.tap import open_tap
from .sim.toolchain import ToolError

OURS, HOST = "10.77.0.2", "10.77.0.1"


class CLive:
    """The firmware on a live engine; a context manager.

    Parameters
    ----------
    config : str
        Of the engine.
    namespace : bool
        The host's side of the line is in a network namespace of its own.
    connections : int
        That the driver uses.

    Attributes
    ----------
    engine : LiveEngine
        Its ``run_until`` lets time pass.
    driver : CDriver
    namespace : NetNamespace or None
    """

    def __init__(
        self, config: str = "tiny", *, namespace: bool = False, connections: int = 16, sanitize: str = "",
        pcap: Path | None = None, seed: int = 1,
    ) -> None:  # fmt: skip
        self._stack = contextlib.ExitStack()
        try:
            self.namespace = self._stack.enter_context(NetNamespace()) if namespace else None
            tap = (self.namespace.open_tap if self.namespace else open_tap)("tiptoe0", address=HOST, prefix=24)
            self._stack.callback(os.close, tap)
            self.engine = LiveEngine(tap, config, ip=OURS, attach=False, pcap=pcap, seed=seed)
            self._stack.callback(self.engine.close)
            self.driver = CDriver(
                self.engine, connections=connections, sanitize=sanitize, seed=seed, passive=connections * 3 // 4,
                snd_log2=14, rcv_log2=14, memory_bytes=1 << 24, time_wait_ms=2000, watchdog_ms=4000, applications=1,
            )  # fmt: skip
            if self.driver.started is not Error.OK:
                raise RuntimeError(f"the firmware does not start: {self.driver.started.name}")
            self.engine.tasks.append(self.driver.poll)
            self.engine.run_until(lambda: self.driver.listening(80) is Error.OK, 30, "the listeners")
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> CLive:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tiptoe_verif.c_live", description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="tiny", help="configuration of the engine")
    parser.add_argument("--connections", type=int, default=16, help="that the driver uses, at most the engine's")
    parser.add_argument("--pcap", type=Path, help="capture")
    options = parser.parse_args(arguments)
    try:
        with CLive(options.config, connections=options.connections, pcap=options.pcap) as live:
            for name in (signal.SIGINT, signal.SIGTERM):
                signal.signal(name, lambda *_: live.engine.stop())
            print(f"http://{OURS}/ and /bytes/N; echo at port 7, sink at 5001, source at 5002; Ctrl-C ends", flush=True)
            while live.engine.round():
                pass
            print({name: count for name, count in live.driver.counters.items() if count})
    except (ToolError, RuntimeError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
