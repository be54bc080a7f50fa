"""Devices, listeners and connections at one moment, for people and tools: numbers, names and None only, fit for JSON.

The TCBs are asked for (READ_TCB) while time passes, few at a time, so that a snapshot of many connections leaves their
commands room. What each entry means: docs/driver.md, "Snapshots".
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from ..hardware.alias import on_v6
from ..hardware.options import DeviceError
from ..hardware.toepcb import TP_EVENTS_PENDING, TP_TERMINAL, toepcb
from ..netinet.if_var import IFCAP_TOE
from ..netinet.in6 import format_address
from ..netinet.stack import Stack
from ..netinet.structures import intotcpcb, socket, tcp_congestion, tcpcb
from ..netinet.tcp_fill_info import tcp_fill_info
from ..netinet.tcp_fsm import TCPS_CLOSED, TCPS_LISTEN
from ..netinet.tcp_info import tcp_info
from .device import Tiptoe

Snapshot = dict[str, Any]
AT_ONCE = 4
"""Connections whose TCBs are asked for at a time."""
LIMIT_US = 2_000_000
"""How long all of them together may take; for the others only the stack is asked."""
_RETRY_US = 1_000


class SnapshotTaker:
    """A snapshot that becomes complete while time passes. The devices' counters are read at once (slow register reads).

    Parameters
    ----------
    done : callable
        Called with the snapshot, once: in ``Stack.poll``, or at once when there is nobody to ask.
    limit_us : int
        When it has to be complete.
    counters : bool
        Read the devices' counters; without, they are None.
    """

    def __init__(
        self, stack: Stack, done: Callable[[Snapshot], None], limit_us: int = LIMIT_US, *, counters: bool = True
    ) -> None:  # fmt: skip
        self._stack, self._done = stack, done
        self._under_way = 0
        self._over = False
        devices = [device for device in stack.devices if isinstance(device, Tiptoe)]
        now = stack.now_us()
        self._waiting: list[tuple[tcpcb, dict[str, Any]]] = []
        listeners = []
        for inp in stack.tcbinfo:
            tp, so = intotcpcb(inp), inp.inp_socket
            if so is not None and tp.t_state == TCPS_LISTEN:
                listeners.append(_listener(stack, tp, so, devices))
            elif so is not None and tp.t_state != TCPS_CLOSED:
                self._waiting.append((tp, _connection(tp, so, now)))
        self._snapshot: Snapshot = {
            "time_us": now,
            "devices": [_device(device, counters) for device in devices],
            "listeners": listeners,
            "half_open": stack.syncache.count,
            "connections": [row for _, row in self._waiting]
            + [
                _orphan(toep, device)
                for device in devices
                for toep in device.engine.ids.toepcbs
                if toep is not None
                and toep.tp is None
                and toep.flags & (TP_EVENTS_PENDING | TP_TERMINAL) == TP_EVENTS_PENDING
            ],
        }
        self._limit = stack.callout(limit_us, self.finish)
        self._next()

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._done = lambda snapshot: None
        self.finish()

    def _next(self) -> None:
        """Ask for more, as many as may be under way."""
        while self._waiting and self._under_way < AT_ONCE and not self._over:
            tp, row = self._waiting[-1]
            if not self._ask(tp, row):
                if not self._under_way:
                    self._stack.callout(_RETRY_US, self._next)
                return
            self._waiting.pop()
        if not self._waiting and not self._under_way:
            self.finish()

    def _ask(self, tp: tcpcb, row: dict[str, Any]) -> bool:
        """Ask for one; False when the device cannot be asked now."""
        if tp.tod is None:
            software = self._stack.software
            _fill(row, software.tcp_info(tp) if software is not None else None)
            return True
        with tp.t_inpcb.lock:
            error = tp.tod.tod_tcp_info(tp, partial(self._told, row))
        self._under_way += not error
        return error != errno.ENOBUFS

    def _told(self, row: dict[str, Any], info: tcp_info | None) -> None:
        if not self._over:
            self._under_way -= 1
            _fill(row, info)
            self._next()

    def finish(self) -> None:
        """Be complete now, with what has been told so far."""
        if not self._over:
            self._over = True
            self._limit.cancel()
            self._done(self._snapshot)


def snapshot(stack: Stack) -> Snapshot:
    """A snapshot now. Lets time pass until the devices have told: not for upcalls, nor for tasks of a simulation."""
    taken: list[Snapshot] = []
    taker = SnapshotTaker(stack, taken.append)
    stack.sleep(lambda: bool(taken) or not stack.devices, None)
    taker.finish()  # when the last device has gone meanwhile
    return taken[0]


def info_dict(info: tcp_info) -> dict[str, Any]:
    """A tcp_info with the state's name."""
    return asdict(info) | {"tcpi_state": info.tcpi_state.name}


def _fill(row: dict[str, Any], info: tcp_info | None) -> None:
    if info is not None:
        row["info"] = info_dict(info)


def _end(address: int, port: int) -> str:
    if on_v6(address):
        return f"[{format_address(address)}]:{port}"
    return f"{format_address(address) if address else '*'}:{port}"


def _connection(tp: tcpcb, so: socket, now_us: int) -> dict[str, Any]:
    laddr, lport, faddr, fport = tp.t_inpcb.four_tuple
    ifp = getattr(tp.tod, "tod_ifp", None)
    return {
        "local": _end(laddr, lport),
        "foreign": _end(faddr, fport),
        "state": tp.t_state.name,
        "device": ifp.if_xname if ifp is not None else None,
        "age_us": now_us - tp.t_starttime if tp.t_starttime else None,
        "sent": so.so_snd.tail,
        "acked": so.so_snd.head,
        "waiting": so.so_snd.sb_cc,
        "received": so.so_rcv.tail,
        "unread": so.so_rcv.sb_cc,
        "tos": tp.t_inpcb.inp_ip_tos,
        "ttl": tp.t_inpcb.inp_ip_ttl,
        "congestion": tcp_congestion(tp).name.lower(),
        "info": info_dict(tcp_fill_info(tp)),
    }


def _orphan(toep: toepcb, device: Tiptoe) -> dict[str, Any]:
    """A connection that the device ends without a socket."""
    laddr, lport, faddr, fport = toep.four_tuple
    return {
        "local": _end(laddr, lport),
        "foreign": _end(faddr, fport),
        "state": "DETACHED",
        "device": device.tod_ifp.if_xname,
        "age_us": None,
        "sent": toep.snd_told,
        "acked": toep.snd_una,
        "waiting": (toep.snd_told - toep.snd_una) & 0xFFFF_FFFF,
        "received": toep.rcv_position,
        "unread": 0,
        "tos": None,
        "ttl": None,
        "congestion": None,
        "info": None,
    }


def _listener(stack: Stack, tp: tcpcb, so: socket, devices: list[Tiptoe]) -> dict[str, Any]:
    there = {
        device.tod_ifp.if_xname: [lctx for lctx in device.passive.listeners if lctx is not None and lctx.tp is tp]
        for device in devices
    }
    half_open = sum(sc.sc_listener is tp for sc in stack.syncache.entries())
    return {
        "local": _end(tp.t_inpcb.inp_laddr, tp.t_inpcb.inp_lport),
        "devices": [name for name, found in there.items() if found],
        "half_open": half_open,
        "queue": len(so.so_comp),
        "backlog": so.so_qlimit,
    }


def _device(device: Tiptoe, read: bool) -> dict[str, Any]:
    ifp, engine, ids = device.tod_ifp, device.engine, device.engine.ids
    total = engine.capabilities.connections
    try:
        counters: dict[str, int] | None = engine.read_counters() if read and engine.running else None
    except DeviceError:
        counters = None
    return {
        "name": ifp.if_xname,
        "address": f"{format_address(ifp.if_addr)}/{ifp.if_prefix}",
        **({"ipv6": f"{format_address(ifp.if_addr6)}/{ifp.if_prefix6}"} if ifp.if_addr6 else {}),
        "mac": ifp.if_lladdr.to_bytes(6, "big").hex(":"),
        "mtu": ifp.if_mtu,
        "link_up": ifp.if_up,
        "state": device.state.name,
        "offload": bool(ifp.if_capenable & IFCAP_TOE),
        "ids": {
            "total": total,
            "in_use": total - ids.available - ids.stocked,
            "stock": ids.stocked,
            "free": ids.available,
        },
        "half_open": {"in_use": len(device.passive.half_open), "total": engine.capabilities.syncache_entries},
        "listeners": {
            "in_use": sum(lctx is not None for lctx in device.passive.listeners),
            "total": engine.capabilities.listeners,
        },
        "commands": {
            "entries": engine.commands.entries,
            "free": engine.commands.free,
            "backlog": len(engine.commands.backlog),
        },
        "tick_us": engine.options.tick_us,
        "counters": counters,
        "standstills": [
            {"time_us": s.time_us, "what": list(s.what), "by": s.by, "action": s.action.name}
            for s in device.standstills
        ],
        "resets": device.counters["watchdog_resets"],
        "driver_counters": {name: count for name, count in sorted(device.counters.items()) if count},
    }
