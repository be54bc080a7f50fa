"""A second opinion on captures: Wireshark's dissectors, if tshark is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

# In one's complement 0xffff is zero too, and Linux sends it for a TCP checksum of zero; Wireshark calls that bad.
_WRONG_TCP = "(tcp.checksum.status == 0 && !(tcp.checksum == 0xffff && tcp.checksum_calculated == 0))"
_FAULTY = f"_ws.malformed || ip.checksum.status == 0 || {_WRONG_TCP} || icmp.checksum.status == 0"


def available() -> bool:
    """Whether tshark is installed."""
    return shutil.which("tshark") is not None


def faults(path: Path, *, opaque: bool = False) -> list[str]:
    """Frames of a capture that tshark finds malformed or with a wrong checksum, a line each; empty if it is clean.

    With ``opaque`` what TCP carries is not looked into: random bytes on port 80 are no good HTTP. Raises OSError if
    tshark cannot read the file at all.
    """
    options = [f"{protocol}.check_checksum:TRUE" for protocol in ("ip", "tcp")]
    command = ["tshark", "-n", "-r", str(path), "-Y", _FAULTY]
    for option in options:
        command += ["-o", option]
    if opaque:
        command += ["-d", "tcp.port==1-65535,data"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise OSError(f"tshark cannot read {path}: {result.stderr.strip()}")
    return result.stdout.splitlines()
