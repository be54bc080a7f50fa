"""The tables of `tiptoe stat`: a pure function of one or two snapshots."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from rich.console import Console

from tiptoe_verif.stat import duration, per_second, size, tables

COUNTERS = {
    "RX_TCP_SEGMENTS": 812, "TX_SEGMENTS": 1540, "TX_RETRANSMITS": 12, "RTO_EXPIRED": 2, "FAST_RETRANSMITS": 9,
    "RX_OUT_OF_ORDER": 3, "RX_BAD_FRAME": 0, "RX_BAD_IP": 0, "RX_BAD_TCP": 1, "RX_HOST_DROPPED": 0, "SYN_DROPPED_FULL": 0,
    "RX_OUT_OF_WINDOW": 4, "RX_OOO_DISCARDED": 0, "TX_DROPPED": 0,
}  # fmt: skip
INFO = {
    "tcpi_state": "ESTABLISHED", "tcpi_device": True, "tcpi_snd_mss": 1460, "tcpi_rto": 245_000, "tcpi_rtt": 31_250,
    "tcpi_rttvar": 2_500, "tcpi_snd_ssthresh": 7_300, "tcpi_snd_cwnd": 14_600, "tcpi_snd_wnd": 65_536,
    "tcpi_rcv_space": 131_072, "tcpi_snd_rexmitpack": 12, "tcpi_rxtshift": 0, "tcpi_in_recovery": True, "tcpi_persist": False,
}  # fmt: skip


def connection(**changes: Any) -> dict[str, Any]:
    return {
        "local": "10.77.0.2:19", "foreign": "10.77.0.1:54321", "state": "ESTABLISHED", "device": "tiptoe0",
        "age_us": 12_300_000, "sent": 2_345_678, "acked": 2_300_000, "waiting": 45_678, "received": 512, "unread": 0,
        "info": INFO,
    } | changes  # fmt: skip


SNAPSHOT: dict[str, Any] = {
    "process": {"pid": 4711, "command": "live"}, "time_us": 61_000_000, "half_open": 1,
    "devices": [{
        "name": "tiptoe0", "address": "10.77.0.2/24", "link_up": True, "offload": True, "state": "RUNNING",
        "ids": {"total": 16, "in_use": 2, "stock": 8, "free": 6}, "half_open": {"in_use": 1, "total": 8},
        "listeners": {"in_use": 2, "total": 4}, "counters": COUNTERS, "driver_counters": {"stale_events": 1},
        "standstills": [],
    }],
    "listeners": [
        {"local": "*:19", "devices": ["tiptoe0"], "half_open": 1}, {"local": "*:80", "devices": ["tiptoe0"], "half_open": 0},
        {"local": "*:81", "devices": [], "half_open": 0},
    ],
    "connections": [
        connection(local="10.77.0.2:80", foreign="192.168.100.200:60000", state="FIN_WAIT_2", age_us=None, device=None,
                   sent=20, waiting=0, received=40,
                   info=INFO | {"tcpi_device": False, "tcpi_rtt": 850, "tcpi_rttvar": 200, "tcpi_in_recovery": False,
                                "tcpi_snd_ssthresh": 0xFFFFFF, "tcpi_snd_rexmitpack": 0}),
        connection(),
        connection(local="10.77.0.2:80", foreign="10.77.0.9:1", sent=70_000, received=0, age_us=7_300_000_000,
                   info=INFO | {"tcpi_rxtshift": 3, "tcpi_in_recovery": False, "tcpi_rtt": 0}),
        connection(foreign="10.77.0.9:2", state="DETACHED", age_us=None, sent=0, waiting=0, received=0, info=None),
    ],
    "engine": {
        "cycles": 12_345_678, "rx_frames": 900, "tx_frames": 1600, "rx_bytes": 70_000, "tx_bytes": 2_500_000,
        "host": {"received": 5, "sent": 6, "refused": 0, "open": 1, "opened": 0, "accepted": 1},
    },
}  # fmt: skip


def text(*snapshots: dict[str, Any]) -> list[str]:
    console = Console(width=120, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(tables(*snapshots))
    return [line.rstrip() for line in capture.get().rstrip().splitlines()]


GOLDEN = """
tiptoe0 10.77.0.2/24 · live, pid 4711 · up 61.0 s
connections                     2  of 16  8 ids in stock, 6 free
listeners                       2   of 4  ports 19 (1 half-open), 80
half-open                       1   of 8
frames in, out                900  1,600
engine cycles          12,345,678
host's frames in, out           5      6  1 sockets of its kernel
segments in, out              812  1,540
retransmissions                12         after 2 timeouts, 9 fast
out of order in                 3
dropped                         5         rx bad tcp 1, rx out of window 4
the driver noticed              1         stale events 1

4 connections
peer                   state               sent  received       RTT ± var      cwnd  peer wnd  resent
our port               since, by        waiting    unread             RTO  ssthresh   our wnd     MSS
10.77.0.1:54321        ESTABLISHED      2.2 MiB     512 B  31.2 ms ± 2.50  14.3 KiB  64.0 KiB      12  recovery
:19                    12.3 s, engine  44.6 KiB       0 B          245 ms   7.1 KiB   128 KiB    1460
10.77.0.9:1            ESTABLISHED     68.4 KiB       0 B               –  14.3 KiB  64.0 KiB      12  3 timeouts
:80                    2.0 h, engine   44.6 KiB       0 B          245 ms   7.1 KiB   128 KiB    1460
192.168.100.200:60000  FIN_WAIT_2          20 B      40 B  0.85 ms ± 0.20  14.3 KiB         –       0
:80                    –, kernel            0 B       0 B          245 ms  none yet   128 KiB    1460
10.77.0.9:2            DETACHED             0 B       0 B
:19                    –, engine            0 B       0 B
"""


def test_tables_of_a_snapshot() -> None:
    assert text(SNAPSHOT) == GOLDEN.strip("\n").splitlines()


def test_rates_are_the_difference_of_two_snapshots() -> None:
    later = copy.deepcopy(SNAPSHOT)
    later["time_us"] += 2_000_000
    later["connections"][1]["sent"] += 400_000
    later["connections"][1]["received"] += 2048
    later["devices"][0]["counters"]["TX_SEGMENTS"] += 300
    later["engine"]["cycles"] += 1_000_000
    later["connections"].append(connection(foreign="10.77.0.1:99", age_us=500_000, sent=5_000_000))
    lines = text(later, SNAPSHOT)
    [at] = [n for n, line in enumerate(lines) if line.startswith("10.77.0.1:54321")]
    assert lines[at + 1].split() == [":19", "12.3", "s,", "engine", "195", "KiB/s", "1.0", "KiB/s", "245", "ms", "7.1", "KiB",
                                     "128", "KiB", "1460"]  # fmt: skip
    # It was not there before: what it has sent is no rate.
    [at] = [n for n, line in enumerate(lines) if line.startswith("10.77.0.1:99")]
    assert "/s" not in lines[at + 1]
    assert any(line.startswith("segments in, out") and "0 in, 150 out segments a second" in line for line in lines)
    assert any(line.startswith("engine cycles") and "500,000 a second" in line for line in lines)
    assert max(map(len, lines)) <= 120


def test_another_connection_of_the_same_four_tuple_has_no_rate() -> None:
    later = copy.deepcopy(SNAPSHOT)
    later["time_us"] += 1_000_000
    later["connections"][1] |= {"sent": 10, "age_us": 300_000}
    assert not any("GiB/s" in line or "MiB/s" in line for line in text(later, SNAPSHOT))


def test_longest_rows_fit() -> None:
    wide = copy.deepcopy(SNAPSHOT)
    wide["connections"] = [
        connection(
            local="192.168.100.200:65535",
            foreign="192.168.100.201:65535",
            state="SYN_RECEIVED",
            age_us=119_900_000,
            sent=0xFFFF_FFFF,
            waiting=1 << 24,
            received=0xFFFF_FFFF,
            unread=1 << 24,
            info=INFO
            | {
                "tcpi_rtt": 119_900_000,
                "tcpi_rttvar": 99_900,
                "tcpi_snd_cwnd": (1 << 24) - 1,
                "tcpi_snd_rexmitpack": 65535,
                "tcpi_snd_ssthresh": (1 << 24) - 2,
                "tcpi_snd_wnd": 1 << 29,
                "tcpi_rxtshift": 12,
            },
        )
    ]
    later = copy.deepcopy(wide)
    later["time_us"] += 1_000_000
    for lines in (text(wide), text(later, wide)):
        assert max(map(len, lines)) <= 120 and not any("…" in line for line in lines)


@pytest.mark.parametrize("microseconds, words", [
    (None, "–"), (0, "0.00 ms"), (850, "0.85 ms"), (31_250, "31.2 ms"), (245_000, "245 ms"), (1_500_000, "1.50 s"),
    (61_000_000, "61.0 s"), (600e6, "10 min"), (7300e6, "2.0 h"),
])  # fmt: skip
def test_times(microseconds: float | None, words: str) -> None:
    assert duration(microseconds) == words


@pytest.mark.parametrize(
    "count, words", [(None, "–"), (0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (3 << 30, "3,072 MiB")]
)
def test_sizes(count: float | None, words: str) -> None:
    assert size(count) == words


def test_counters_wrap() -> None:
    assert per_second(5, (1 << 32) - 5, 2) == 5
