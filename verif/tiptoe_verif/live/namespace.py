"""Network namespaces: a network of its own for the peer, with a TAP interface to the engine, gone when closed.

A holder process lives in the namespace, makes TAP interfaces there and passes their descriptors out. As root only the
network is new; otherwise a user namespace comes with it, in which the holder is root.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .tap import TapError

_HOLDER = Path(__file__).with_name("holder.py")
_TIMEOUT = 20.0


class NetNamespace:
    """A network namespace with nothing in it but the loopback interface.

    Raises :exc:`TapError` if this system grants none.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_TIMEOUT)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_HOLDER), "hold", str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self._socket = ours
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """A process inside, for nsenter."""
        return self._process.pid

    @property
    def entry(self) -> str:
        """What to type to run a COMMAND inside, as the user who made it."""
        if os.geteuid() == 0:  # only the network is new: there is no other user namespace to enter
            return f"{'sudo ' if 'SUDO_UID' in os.environ else ''}nsenter -t {self.pid} -n COMMAND"
        return f"nsenter -t {self.pid} -U -n --preserve-credentials COMMAND"

    def _answer(self) -> int | None:
        """The holder's answer: a descriptor, None, or TapError."""
        room = socket.CMSG_SPACE(array.array("i").itemsize)
        try:
            message, ancillary, _, _ = self._socket.recvmsg(4096, room)
        except TimeoutError:
            raise TapError("the namespace's process does not answer") from None
        answer = json.loads(message) if message else {"error": "the namespace's process ended"}
        if "error" in answer:
            raise TapError(answer["error"])
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptor = array.array("i", data)[0]
                os.set_inheritable(descriptor, False)
                return descriptor
        return None

    def open_tap(
        self,
        name: str,
        *,
        address: str,
        prefix: int = 24,
        mtu: int = 1500,
        mac: str = "",
        gateway: str = "",
        address6: str = "",
    ) -> int:
        """Like :func:`tiptoe_verif.live.tap.open_tap`, with the kernel's side in the namespace."""
        request = {"name": name, "address": address, "prefix": prefix, "mtu": mtu, "mac": mac, "gateway": gateway}
        request["address6"] = address6
        self._socket.send(json.dumps(request).encode())
        tap = self._answer()
        assert tap is not None
        return tap

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        """A socket of the namespace's network, to be used by this process."""
        self._socket.send(json.dumps({"socket": [int(family), int(kind), protocol]}).encode())
        descriptor = self._answer()
        assert descriptor is not None
        return socket.socket(fileno=descriptor)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs ``arguments`` inside."""
        return [sys.executable, "-I", str(_HOLDER), "enter", str(self.pid), *arguments]

    def popen(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program inside."""
        return subprocess.Popen(self.command(arguments), **options)

    def close(self) -> None:
        """End the holder; the namespace goes with the last process in it. Twice does no harm."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_TIMEOUT)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> NetNamespace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def why_no_tap() -> str | None:
    """Why a TAP interface in a namespace of its own cannot be had here; None: it can."""
    try:
        with NetNamespace() as namespace:
            os.close(namespace.open_tap("probe", address="10.255.255.1", prefix=30))
    except (TapError, OSError) as error:
        return str(error)
    return None
