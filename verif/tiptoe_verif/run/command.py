"""`tiptoe run`: a program, its broker, the engine; signals, the exit code, the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from tiptoe_driver.netinet.structures import INP_TIMEWAIT, intotcpcb
from tiptoe_driver.netinet.tcp_fsm import TCPS_CLOSED, TCPS_LISTEN

from ..console import build_progress
from ..live.device_session import DeviceSession
from ..live.session import LiveSession, Session
from ..live.setup import LiveSetup, check
from ..live.summary import connections_table, show, show_file, tell_standstills
from ..native.device import engine_config
from ..native.harness import build_engine
from . import preload
from .broker import Broker
from .protocol import VARIABLE

# The program's output is its own; ours goes to stderr.
log = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 132)
DRAIN_S = 30.0
"""How long connections that the program has closed may take to end after it."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_FROM_KERNEL = 128  # SI_KERNEL: of a terminal, whose whole foreground group has it, so the program too


class Run:
    """A program on a live session.

    Parameters
    ----------
    session : Session
        With the engine up.
    arguments : sequence of str
        The program as the user names it, and its arguments.
    library : Path
        The interposer.
    mask : set
        Signals that the program shall have blocked; those of _SIGNALS are blocked here.
    quiet : bool
        Say nothing.
    """

    def __init__(
        self, session: Session, arguments: Sequence[str], library: Path, mask: set[int], *, quiet: bool = False
    ) -> None:
        self.session, self._mask, self.quiet = session, mask, quiet
        self.broker = Broker(session.engine, session.board, os.path.basename(arguments[0]))
        preloaded = [str(library), *filter(None, [os.environ.get("LD_PRELOAD", "")])]
        self._environment = os.environ | {"LD_PRELOAD": ":".join(preloaded), VARIABLE: self.broker.control}
        self._arguments = list(arguments)

    def until_the_end(self, path: str) -> int:
        """Start the program at ``path``, let time pass until it has ended and its connections too; its exit code."""
        try:
            process = subprocess.Popen(
                self._arguments, executable=path, env=self._environment, close_fds=False,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, self._mask),
            )  # fmt: skip
        except OSError as error:
            text = f"{self._arguments[0]}: {os.strerror(error.errno or 0)}"
            raise preload.ProgramError(text, 126) from None
        try:
            with self._watched(process):
                while process.poll() is None:
                    self.session.engine.round(50_000)
                    self._pass_signals_on(process)
            self._drain()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self.broker.close()
        code = process.returncode
        return 128 - code if code < 0 else code

    @contextlib.contextmanager
    def _watched(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """The end of the process ends a round at once."""
        try:
            descriptor = os.pidfd_open(process.pid)
        except (AttributeError, OSError):  # an old kernel: the round's own limit has to do
            yield
            return
        with os.fdopen(descriptor, "rb") as file:
            self.session.board.epoll.register(file, 1)
            yield
            self.session.board.epoll.unregister(file)

    def _pass_signals_on(self, process: subprocess.Popen[bytes]) -> None:
        while (info := signal.sigtimedwait(_SIGNALS, 0)) is not None:
            if info.si_code != _FROM_KERNEL and process.poll() is None:
                process.send_signal(info.si_signo)

    def _drain(self) -> None:
        """What the program has sent last is still under way, and other processes may have its sockets."""
        begin = time.monotonic()
        end = begin + DRAIN_S
        said = self.quiet
        while signal.sigtimedwait(_SIGNALS, 0) is None:
            held = sum(endpoint.held for endpoint in self.broker.endpoints.values())
            if held:
                end = time.monotonic() + DRAIN_S
                if not said and time.monotonic() > begin + 1:
                    said = True
                    log.print(
                        f"{self.broker.program} has ended; other processes have {held} of its sockets: Ctrl-C ends"
                    )
            elif not (self.broker.endpoints or self._under_way()) or time.monotonic() > end:
                return
            self.session.engine.round(20_000)

    def _under_way(self) -> bool:
        """Whether a connection is not over yet; TIME_WAIT is."""
        return any(
            not inp.inp_flags & INP_TIMEWAIT and intotcpcb(inp).t_state not in (TCPS_CLOSED, TCPS_LISTEN)
            for inp in self.session.engine.stack.tcbinfo
        )


@contextlib.contextmanager
def signals_blocked() -> Iterator[set[int]]:
    """Signals wait to be taken by ``sigtimedwait``, which tells where they come from; gives the mask before."""
    before = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)}
    try:
        yield before
    finally:
        while signal.sigtimedwait(_SIGNALS, 0) is not None:
            pass  # meant for the program, which has ended
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_program(setup: LiveSetup, arguments: Sequence[str], *, quiet: bool) -> int:
    """Engine, driver and broker up, then the program; its exit code."""
    if not setup.device:
        check(setup)
    path = preload.find(arguments[0])
    library = preload.build()
    if not setup.device:
        with build_progress(log) as progress:
            build_engine(engine_config(setup.config), progress=progress)
    # Blocked before the engine exists: it has a thread, which would take the signals otherwise.
    with signals_blocked() as mask, DeviceSession(setup) if setup.device else LiveSession(setup) as session:
        tell_standstills(log, session.engine.toe)
        if not quiet:
            log.print(session.headline, soft_wrap=True)
            if setup.host_ip6:
                log.print(f"  engine [bold]{setup.ip6}[/], kernel {setup.host_ip6}/{setup.prefix6}")
            if session.why_no_stat:
                log.print(f"  {session.why_no_stat}", style="dim", soft_wrap=True)
            if session.namespace:
                log.print(f"  in a namespace of its own: {session.namespace.entry}", style="dim", soft_wrap=True)
            if session.host:
                enter = session.host.namespace.entry
                log.print(
                    f"  {setup.ip} is also a kernel's, for what is not offloaded: {enter}", style="dim", soft_wrap=True
                )
        code = Run(session, arguments, library, mask, quiet=quiet).until_the_end(path)
        if not quiet:
            show(log, "summary", connections_table(session.board.records), "", session.totals())
            if setup.pcap:
                show_file(log, "capture", setup.pcap)
    return code
