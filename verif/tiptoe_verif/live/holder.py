"""Runs inside a network namespace (see namespace.py); a program of its own, started by path.

``holder.py hold FD``: make the namespace, then serve requests for TAP interfaces and sockets over the socket FD
until it closes.
``holder.py enter PID COMMAND...``: run a command in the namespaces of process PID.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _tap_module() -> Any:
    """tap.py beside this file, without the package around it: this has to start fast."""
    spec = importlib.util.spec_from_file_location("tiptoe_tap", Path(__file__).with_name("tap.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def unshare() -> None:
    """A new network namespace; for other users than root together with a user namespace in which they are root."""
    if os.geteuid() == 0:
        _call("unshare", CLONE_NEWNET)
        return
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def hold(control: socket.socket) -> None:
    """Serve until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who holds the other end
    tap_module = _tap_module()
    try:
        unshare()
        tap_module.bring_up("lo")
    except OSError as error:
        text = f"cannot make a network namespace ({error.strerror}): run as root, or inside `unshare -rn`"
        control.send(json.dumps({"error": text}).encode())
        return
    control.send(b"{}")
    while request := control.recv(4096):
        options = json.loads(request)
        try:
            if "name" in options:
                descriptor = tap_module.open_tap(options.pop("name"), **options)
            else:
                descriptor = socket.socket(*options["socket"]).detach()
        except OSError as error:
            control.send(json.dumps({"error": str(error)}).encode())
            continue
        socket.send_fds(control, [b"{}"], [descriptor])
        os.close(descriptor)


def enter(pid: int, command: list[str]) -> None:
    """Join the namespaces of a process and become the command."""
    for kind, flag in (("user", CLONE_NEWUSER), ("net", CLONE_NEWNET)):
        path = f"/proc/{pid}/ns/{kind}"
        if os.readlink(path) == os.readlink(f"/proc/self/ns/{kind}"):
            continue
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _call("setns", descriptor, flag)
        os.close(descriptor)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(socket.socket(fileno=int(sys.argv[2])))
    else:
        enter(int(sys.argv[2]), sys.argv[3:])
