"""What is known of a connection: FreeBSD's struct tcp_info, and Linux's layout of it for programs."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..hardware.abi_gen import State

NO_PACING_RATE = (1 << 64) - 1
"""No limit, as Linux says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class tcp_info:
    """A connection at one moment; names of FreeBSD's netinet/tcp.h, times in microseconds, sizes in bytes.

    ``tcpi_snd_mss`` is what a segment carries beside TCP options, ``tcpi_pmtu`` the longest IP packet.
    ``tcpi_rtt`` and ``tcpi_rttvar`` are 0 before the first measurement. ``tcpi_rxtshift`` counts time-outs in a row.
    ``tcpi_probes``: probes, of the closed window or keep-alive's, since the peer was last heard of.
    ``tcpi_congestion``: the algorithm, as TCP_CONGESTION names it; ``tcpi_losses``: how often the window has fallen for a
    loss, a first time-out or ECE, modulo 256.
    ``tcpi_unacked`` is what is sent and not acknowledged, ``tcpi_notsent`` what waits in the send buffer. ``tcpi_sack``: both
    ends permit selective acknowledgements; ``tcpi_timestamps``: both have timestamps. ``tcpi_ecn``: both ends know ECN;
    ``tcpi_ecn_seen``: data came with ECT or CE. ``tcpi_max_pacing_rate``: SO_MAX_PACING_RATE, in bytes per second, and
    ``tcpi_pacing_rate`` what the device makes of it. ``tcpi_device``: the device was asked; without it (not offloaded, over, or
    no answer) what only the device knows is 0.
    """

    tcpi_state: State
    tcpi_device: bool = False
    tcpi_wscale: bool = False
    tcpi_sack: bool = False
    tcpi_ecn: bool = False
    tcpi_ecn_seen: bool = False
    tcpi_timestamps: bool = False
    tcpi_snd_wscale: int = 0
    tcpi_rcv_wscale: int = 0
    tcpi_snd_mss: int = 0
    tcpi_pmtu: int = 0
    tcpi_rto: int = 0
    tcpi_rtt: int = 0
    tcpi_rttvar: int = 0
    tcpi_snd_ssthresh: int = 0
    tcpi_snd_cwnd: int = 0
    tcpi_snd_wnd: int = 0
    tcpi_rcv_space: int = 0
    tcpi_snd_una: int = 0
    tcpi_snd_nxt: int = 0
    tcpi_snd_max: int = 0
    tcpi_rcv_nxt: int = 0
    tcpi_rcv_adv: int = 0
    tcpi_unacked: int = 0
    tcpi_notsent: int = 0
    tcpi_snd_rexmitpack: int = 0
    tcpi_rxtshift: int = 0
    tcpi_dupacks: int = 0
    tcpi_in_recovery: bool = False
    tcpi_persist: bool = False
    tcpi_probes: int = 0
    tcpi_congestion: str = ""
    tcpi_losses: int = 0
    tcpi_pacing_rate: int = NO_PACING_RATE
    tcpi_max_pacing_rate: int = NO_PACING_RATE


NO_SSTHRESH = 0xFF_FFFF
"""``tcpi_snd_ssthresh`` as long as nothing was lost."""

_LINUX_STATES = {
    State.ESTABLISHED: 1,
    State.SYN_SENT: 2,
    State.SYN_RECEIVED: 3,
    State.FIN_WAIT_1: 4,
    State.FIN_WAIT_2: 5,
    State.TIME_WAIT: 6,
    State.CLOSED: 7,
    State.CLOSE_WAIT: 8,
    State.LAST_ACK: 9,
    State.LISTEN: 10,
    State.CLOSING: 11,
}
_LINUX = struct.Struct("=8B24I4Q6I4Q")
"""struct tcp_info of Linux up to tcpi_sndbuf_limited."""
_OPEN, _RECOVERY, _LOSS = 0, 3, 4
"""tcpi_ca_state."""
_TCPI_OPT_TIMESTAMPS, _TCPI_OPT_SACK, _TCPI_OPT_WSCALE, _TCPI_OPT_ECN, _TCPI_OPT_ECN_SEEN = 1, 2, 4, 8, 16
_LINUX_NO_SSTHRESH = 0x7FFF_FFFF


def linux_tcp_info(info: tcp_info, *, bytes_acked: int = 0, bytes_received: int = 0) -> bytes:
    """The struct that Linux's getsockopt(TCP_INFO) fills. Linux counts windows and flight in segments, we in bytes."""
    mss = max(info.tcpi_snd_mss, 1)
    lost = info.tcpi_rxtshift > 0 and not info.tcpi_persist
    words = [0] * 24
    words[0] = info.tcpi_rto
    words[2] = words[3] = words[19] = info.tcpi_snd_mss  # snd_mss, rcv_mss, advmss
    words[4] = -(-info.tcpi_unacked // mss)
    words[13] = info.tcpi_pmtu
    words[15], words[16] = info.tcpi_rtt, info.tcpi_rttvar
    words[17] = _LINUX_NO_SSTHRESH if info.tcpi_snd_ssthresh == NO_SSTHRESH else info.tcpi_snd_ssthresh // mss
    words[18] = info.tcpi_snd_cwnd // mss
    words[22] = info.tcpi_rcv_space
    words[23] = info.tcpi_snd_rexmitpack  # total_retrans
    return _LINUX.pack(
        _LINUX_STATES[info.tcpi_state],
        _LOSS if lost else _RECOVERY if info.tcpi_in_recovery else _OPEN,
        info.tcpi_rxtshift,
        info.tcpi_probes,
        0,
        info.tcpi_timestamps * _TCPI_OPT_TIMESTAMPS
        | info.tcpi_sack * _TCPI_OPT_SACK
        | info.tcpi_wscale * _TCPI_OPT_WSCALE
        | info.tcpi_ecn * _TCPI_OPT_ECN
        | info.tcpi_ecn_seen * _TCPI_OPT_ECN_SEEN,
        info.tcpi_snd_wscale | info.tcpi_rcv_wscale << 4,
        0,
        *words,
        info.tcpi_pacing_rate,
        info.tcpi_max_pacing_rate,
        bytes_acked,
        bytes_received,
        0,
        0,
        info.tcpi_notsent,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    )
