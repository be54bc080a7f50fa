"""``tiptoe serve``."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

from rich.console import Console

from ..console import build_progress
from ..live.setup import UsageError
from ..native.device import Conditions
from .engines import ECHO_PORT, ENGINES, IP, PEER_IP
from .server import Server, listen_tcp, listen_unix


def serve(
    console: Console, *, path: Path | None, port: int | None, peer: str, config: str, pcap: Path | None, seed: int,
    memory_latency: int, clients: int,
) -> int:  # fmt: skip
    """Serve until Ctrl-C or SIGTERM, or until so many clients have gone; the exit status."""
    if (path is None) == (port is None):
        raise UsageError("give one of --socket PATH and --port N")
    if peer not in ENGINES:
        raise UsageError(f"no peer {peer!r}: there are {', '.join(ENGINES)}")
    with contextlib.ExitStack() as stack:
        try:
            listener = listen_unix(path) if path is not None else listen_tcp(port or 0)
        except OSError as error:
            raise UsageError(f"cannot listen: {error}") from None
        stack.callback(listener.close)
        if path is not None:
            stack.callback(path.unlink, missing_ok=True)
        with build_progress() as progress:
            engine: Any = ENGINES[peer](
                config, seed=seed, pcap=pcap, conditions=Conditions(memory_latency=memory_latency), progress=progress
            )
        stack.callback(engine.close)
        server = Server(engine, listener)
        stack.callback(server.close)
        where = str(path) if path is not None else "{}:{}".format(*listener.getsockname())
        there = {
            "echo": f"{PEER_IP} echoes at port {ECHO_PORT}", "none": "its line is the client's",
            "tap": f"{PEER_IP} is this machine, by tiptoe0",
        }  # fmt: skip
        console.print(f"{where}: engine {config} at {IP}, {there[peer]}; Ctrl-C ends", soft_wrap=True, highlight=False)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(clients=clients)
    return 0
