"""Assertions of a script about a connection, in Python: ``%{ assert tcpi_snd_cwnd == 10 }%``.

The names are those of Linux's struct tcp_info, as far as the driver knows what stands for them.
"""

from __future__ import annotations

import ast
import struct
from typing import Any

_FIELDS: tuple[str, ...] = (
    "state", "ca_state", "retransmits", "probes", "", "options", "", "", "rto", "", "snd_mss", "rcv_mss", "unacked", "", "", "",
    "", "", "", "", "", "pmtu", "", "rtt", "rttvar", "snd_ssthresh", "snd_cwnd", "advmss", "", "", "rcv_space", "total_retrans",
)  # fmt: skip
"""struct tcp_info up to tcpi_total_retrans; without a name where the driver does not know."""
_HEAD = struct.Struct("=8B24I")
_CONSTANTS = {
    "TCP_CA_Open": 0, "TCP_CA_Disorder": 1, "TCP_CA_CWR": 2, "TCP_CA_Recovery": 3, "TCP_CA_Loss": 4,
    "TCPI_OPT_TIMESTAMPS": 1, "TCPI_OPT_SACK": 2, "TCPI_OPT_WSCALE": 4, "TCPI_OPT_ECN": 8,
    "TCP_ESTABLISHED": 1, "TCP_SYN_SENT": 2, "TCP_SYN_RECV": 3, "TCP_FIN_WAIT1": 4, "TCP_FIN_WAIT2": 5, "TCP_TIME_WAIT": 6,
    "TCP_CLOSE": 7, "TCP_CLOSE_WAIT": 8, "TCP_LAST_ACK": 9, "TCP_LISTEN": 10, "TCP_CLOSING": 11,
}  # fmt: skip


def unknown_names(text: str) -> list[str]:
    """Fields of tcp_info that code asks for and that are not known; SyntaxError when it is not Python."""
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    return sorted(name for name in names if name.startswith("tcpi_") and name[5:] not in _FIELDS)


def run_code(text: str, info: bytes) -> str:
    """Run code on a struct tcp_info; what its assertion says if it fails, with the values that it names, or ""."""
    values = {f"tcpi_{name}": value for name, value in zip(_FIELDS, _HEAD.unpack_from(info), strict=True) if name}
    scope: dict[str, Any] = {**_CONSTANTS, **values}
    try:
        exec(compile(text, "script", "exec"), scope)  # the script is the user's own program
    except AssertionError as error:
        named = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and node.id in values}
        return "; ".join(
            [*([str(error)] if str(error) else []), *(f"{name} is {values[name]}" for name in sorted(named))]
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
