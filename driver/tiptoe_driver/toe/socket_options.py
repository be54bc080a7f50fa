"""Connections' options and TCBs on the device: type of service, time to live, congestion control, pacing; READ_TCB."""

from __future__ import annotations

import errno
import socket as stdlib
from collections.abc import Callable, Mapping, Sequence

from ..hardware import abi_gen as abi
from ..hardware.engine import Engine
from ..hardware.toepcb import TP_EVENTS_PENDING, TP_RELEASING, TP_TERMINAL, toepcb
from ..netinet.structures import SO_MAX_PACING_RATE, tcp_congestion, tcpcb
from ..netinet.tcp_fill_info import tcp_fill_info
from ..netinet.tcp_info import tcp_info

Answer = Callable[[tcp_info | None], None]
"""Called with what is known of a connection, or None when the device does not have it any more."""


def pages_of(*fields: str) -> tuple[int, ...]:
    """The pages of READ_TCB that these fields stand in."""
    return tuple(n for n, page in enumerate(abi.TCB_PAGES) if any(name in fields for name, *_ in page))


_UNANSWERED = pages_of("unanswered")

_MAXSEG_BITS = next(width for page in abi.TCB_PAGES for name, _, width in page if name == "maxseg")


class ToeOptions:
    """What the engine does for setsockopt and getsockopt of its connections.

    Parameters
    ----------
    order : callable
        Has data of a connection wait for the commands posted so far.
    """

    def __init__(self, engine: Engine, order: Callable[[toepcb], None]) -> None:
        self._engine = engine
        self._order = order

    def before_open(self, toep: toepcb, tp: tcpcb) -> None:
        """OPEN follows: the SYN has the header that the user wants, too."""
        self._set_ip_header(toep, tp)

    def begin(self, toep: toepcb, tp: tcpcb) -> None:
        """The engine knows the connection from now on: tell it what is not as it begins with."""
        if self._set_ip_header(toep, tp):
            self._order(toep)
        if tp.t_cc not in (None, self._engine.congestion):
            self._set_congestion(toep, tp)
        if self._engine.pacing_interval(tp.t_max_pacing_rate):
            self._set_pacing(toep, tp)
            self._order(toep)

    def changed(self, tp: tcpcb, level: int, name: int) -> None:
        """An option of a connection was set."""
        toep = tp.t_toe
        if toep is None or not self._known(toep):
            return  # ``begin`` tells of it
        if level == stdlib.IPPROTO_IP:
            if self._set_ip_header(toep, tp):
                self._order(toep)
        elif level == stdlib.SOL_SOCKET:
            if name == SO_MAX_PACING_RATE and self._engine.capabilities.pacing:
                self._set_pacing(toep, tp)
        elif name == stdlib.TCP_CONGESTION:
            self._set_congestion(toep, tp)

    def read(self, tp: tcpcb, answer: Answer) -> int:
        """Have ``answer`` called with what the device knows of a connection. EPERM, ENOBUFS: as tod_tcp_info."""
        toep = tp.t_toe
        if toep is None:
            return errno.EPERM

        def done(tcb: Mapping[str, int] | None) -> None:
            if tcb is None or toep.tp is not tp:
                answer(None)
            else:
                rate = self._engine.pacing_rate(tp.t_max_pacing_rate)
                answer(tcp_fill_info(tp, tcb, self._engine.options.tick_us, rate))

        return self.read_tcb(toep, range(len(abi.TCB_PAGES)), done)

    def read_tcb(self, toep: toepcb, pages: Sequence[int], answer: Callable[[Mapping[str, int] | None], None]) -> int:
        """READ_TCB, a command for each page; ``answer`` is called when all are there, with their fields, or None when one is
        missing. EPERM: the device has no such connection; ENOBUFS: no room in the command ring."""
        commands = self._engine.commands
        if not self._known(toep):
            return errno.EPERM
        if not commands.room(len(pages)):
            return errno.ENOBUFS
        words: list[int | None] = []

        def done(event: abi.CommandDoneEvent) -> None:
            words.append(event.value if event.status == abi.Status.OK else None)
            if len(words) == len(pages):
                answer(_fields(words, pages))

        for page in pages:
            commands.post(abi.pack_read_tcb(commands.tag_event(done), tid=toep.tid, page=page))
        return 0

    def keepalive(self, tp: tcpcb) -> int:
        """Have the engine send a keep-alive probe; an errno as tod_keepalive's."""
        toep, commands = tp.t_toe, self._engine.commands
        if toep is None or not self._known(toep):
            return errno.EPERM
        if not commands.room(1):
            return errno.ENOBUFS
        commands.post(abi.pack_keepalive(0, tid=toep.tid))
        return 0

    def set_cwnd(self, tp: tcpcb, cwnd: int, ssthresh: int) -> int:
        """Write a connection's window; an errno as tod_cwnd's."""
        toep, commands = tp.t_toe, self._engine.commands
        if toep is None or not self._known(toep):
            return errno.EPERM
        if not commands.room(1):
            return errno.ENOBUFS
        commands.post(abi.pack_set_cwnd(0, tid=toep.tid, cwnd=cwnd, ssthresh=ssthresh))
        return 0

    def unanswered(self, tp: tcpcb, answer: Callable[[int | None], None]) -> int:
        """Have ``answer`` called with whether the probes before are unanswered; an errno as tod_unanswered's."""
        toep = tp.t_toe
        if toep is None:
            return errno.EPERM

        def done(tcb: Mapping[str, int] | None) -> None:
            answer(None if tcb is None or toep.tp is not tp else tcb["unanswered"])

        return self.read_tcb(toep, _UNANSWERED, done)

    @staticmethod
    def _known(toep: toepcb) -> bool:
        """Whether OPEN, or the handshake, has given the engine the connection, and it is not over."""
        return toep.flags & (TP_EVENTS_PENDING | TP_RELEASING | TP_TERMINAL) == TP_EVENTS_PENDING

    def _set_ip_header(self, toep: toepcb, tp: tcpcb) -> bool:
        """Whether the engine had to be told."""
        inp = tp.t_inpcb
        if toep.ip_header == (inp.inp_ip_tos, inp.inp_ip_ttl):
            return False
        toep.ip_header = inp.inp_ip_tos, inp.inp_ip_ttl
        self._engine.commands.post_control(
            abi.pack_set_ip_header(0, tid=toep.tid, ttl=inp.inp_ip_ttl, tos=inp.inp_ip_tos)
        )
        return True

    def _set_congestion(self, toep: toepcb, tp: tcpcb) -> None:
        algorithm = tcp_congestion(tp)
        self._engine.commands.post_control(abi.pack_set_congestion(0, tid=toep.tid, algorithm=algorithm))

    def _set_pacing(self, toep: toepcb, tp: tcpcb) -> None:
        interval = self._engine.pacing_interval(tp.t_max_pacing_rate)
        self._engine.commands.post_control(abi.pack_set_pacing(0, tid=toep.tid, interval=interval))


def _fields(words: list[int | None], pages: Sequence[int]) -> dict[str, int] | None:
    """Fields of a TCB by its pages; None when one of them is missing."""
    fields: dict[str, int] = {}
    for word, page in zip(words, pages, strict=True):
        if word is None:
            return None
        fields |= {name: word >> low & (1 << width) - 1 for name, low, width in abi.TCB_PAGES[page]}
    if "maxseg" in fields:
        fields["maxseg"] |= fields.pop("maxseg_high") << _MAXSEG_BITS
    return fields
