"""The world of the races: stack and driver on the engine model, with invariants that hold in every order."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from tests.driver.bench import OUR_IP, PEER_IP, Bench, arp_reply
from tests.driver.races import peer
from tests.driver.races.engine_model import EngineModel, FourTuple, Tcb
from tiptoe_driver import Socket, Stack
from tiptoe_driver.hardware.abi_gen import State
from tiptoe_driver.hardware.toepcb import TP_ATTACHED, TP_EVENTS_PENDING, TP_READY, TP_STOCK, toepcb
from tiptoe_driver.netinet.offload import tcp_gen_detach
from tiptoe_driver.netinet.routes import parse_ipv4
from tiptoe_driver.netinet.structures import sototcpcb
from tiptoe_driver.netinet.syncache import EXPIRE_US
from tiptoe_driver.netinet.tcp_subr import tcp_close
from tiptoe_driver.netinet.tcp_usrreq import tcp_usr_abort
from tiptoe_hdl.host.abi import EventType, Opcode

PORT = 80
HALF_OPEN: FourTuple = (parse_ipv4(OUR_IP), PORT, parse_ipv4(PEER_IP), 5000)
"""The peer's connection to our listener."""
LATE_US = 80_000_000
"""Longer than every timer of the stack and the driver."""
LINGER_0 = struct.pack("@ii", 1, 0)


class RaceWorld:
    """Stack, driver and engine model, and the steps of the actors by name.

    ``user`` makes calls; ``peer`` does the functions of peer.py, and to half-open connections what is below; ``engine``
    carries out one command a step; ``driver`` handles what is in the event ring; ``timer`` runs the stack's callouts when
    all their times are over; ``events`` writes one event of the syncache, where these are held back.

    Parameters
    ----------
    silent : bool
        The peer says nothing any more after the scenario's steps.
    options
        Of the driver.
    """

    def __init__(self, *, silent: bool = False, **options: Any) -> None:
        self.engine = EngineModel()
        self.stack = Stack(seed=1)
        self.bench = Bench(self.engine, stack=self.stack, active_reserve=4, **options)
        self.engine.events_read = lambda: self.bench.dev.engine.events._head
        self.silent = silent
        self.sock: Socket | None = None
        self.listener: Socket | None = None
        self.accepted: list[Socket] = []
        self.tcb: Tcb | None = None
        self.got = bytearray()
        self.late_events = 0
        self._seen: dict[int, toepcb] = {}
        self.settle()

    def settle(self) -> None:
        """Engine and driver do all they can."""
        while self.engine.execute() or self.engine.report() or self.stack.poll():
            pass

    # ------------------------------------------------------------------ steps

    def step(self, actor: str, name: str) -> None:
        """One atomic step."""
        if actor == "peer" and hasattr(peer, name):
            tcb = self.tcb or self.engine.find(HALF_OPEN)
            if tcb is not None:
                getattr(peer, name)(self.engine, tcb)
            return
        try:
            getattr(self, f"{actor}_{name}")()
        except OSError as error:
            if error.errno == errno.EBADF:
                raise

    def engine_command(self) -> None:
        self.engine.execute()

    def driver_poll(self) -> None:
        self.stack.poll()

    def events_report(self) -> None:
        self.engine.report()

    def timer_expire(self) -> None:
        self.engine.time += EXPIRE_US
        self.stack._run_callouts()

    def user_connect(self) -> None:
        sock = self.sock = self.bench.socket()
        sock.connect_ex((PEER_IP, PORT))

    def user_send(self) -> None:
        if self.sock is not None:
            self.sock.send(bytes(5))

    def user_recv(self) -> None:
        if self.sock is not None:
            self.got += self.sock.recv(4)

    def user_shutdown(self) -> None:
        if self.sock is not None:
            self.sock.shutdown(socket.SHUT_WR)

    def user_shut_both(self) -> None:
        if self.sock is not None:
            self.sock.shutdown(socket.SHUT_RDWR)

    def user_close(self) -> None:
        if self.sock is not None:
            sock, self.sock = self.sock, None
            sock.close()

    def user_abort(self) -> None:
        """close with SO_LINGER and no time."""
        if self.sock is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
            self.user_close()

    def user_detach(self) -> None:
        """tu_detach in whatever state, the connection being over for the stack; its own close does it only where it is
        over for the device too. The user still has the socket."""
        if self.sock is not None:
            assert self.sock.so is not None
            tp = sototcpcb(self.sock.so)
            with self.stack.tcbinfo.lock, tp.t_inpcb.lock:
                tcp_gen_detach(tp)
                tcp_close(tp)

    def user_reset(self) -> None:
        """The stack ends the connection; the user still has the socket."""
        if self.sock is not None:
            assert self.sock.so is not None
            tcp_usr_abort(self.sock.so)

    def user_listen(self) -> None:
        self.listener = self.bench.listening(PORT)

    def user_accept(self) -> None:
        if self.listener is not None:
            self.accepted.append(self.listener.accept()[0])

    def user_stop(self) -> None:
        """The listener is closed."""
        if self.listener is not None:
            listener, self.listener = self.listener, None
            listener.close()

    def peer_arp(self) -> None:
        self.engine.frame(arp_reply())

    def peer_half_syn(self) -> None:
        self.engine.syn(HALF_OPEN)

    def peer_last_ack(self) -> None:
        self.engine.last_ack(HALF_OPEN)

    def peer_last_ack_data(self) -> None:
        self.engine.last_ack(HALF_OPEN, data=peer.DATA)

    def peer_last_ack_data_fin(self) -> None:
        self.engine.last_ack(HALF_OPEN, data=peer.DATA, fin=1)

    def peer_last_ack_rst(self) -> None:
        """ACK and RST before a snapshot was written."""
        self.engine.last_ack(HALF_OPEN, rst=True)

    def peer_last_ack_early(self) -> None:
        """A snapshot in SYN_RECEIVED comes before the one that tells of the handshake."""
        self.engine.last_ack(HALF_OPEN, early=True)

    def peer_late(self) -> None:
        """An event after the terminal one, which no sound engine writes."""
        if self.tcb is not None and self.tcb.told:
            self.engine.event(EventType.CONNECTION, tid=self.tcb.tid, established=1, terminal=1, state=State.CLOSED)
            self.late_events += 1

    def peer_give_up(self) -> None:
        self.engine.give_up(HALF_OPEN)

    def inside(self, point: int, outer: tuple[str, str], inner: tuple[str, str]) -> bool:
        """One step while another waits for a lock, the ``point``-th that it comes to with none held: two threads. Whether
        there was such a point."""
        locks, left = self.stack.locks, [None] * point

        def preempt() -> None:
            if left:
                left.pop()
                return
            locks.preempt = None
            self.step(*inner)

        locks.preempt = preempt
        self.step(*outer)
        reached = locks.preempt is None
        locks.preempt = None
        return reached

    # ------------------------------------------------------------------ beginnings

    def connecting(self) -> None:
        """An active open whose SYN is out."""
        self.bench.know_peer()
        self.user_connect()
        self.settle()
        self.tcb = self.engine.opened[-1]

    def reach(self, state: State) -> RaceWorld:
        """An active open in ``state``, with five bytes sent where the send side is open."""
        self.connecting()
        assert self.tcb is not None
        for actor, name in PATHS[state]:
            self.step(actor, name)
            self.settle()
        assert self.tcb.state == state
        return self

    def half_open(self) -> RaceWorld:
        """A listener with one half-open connection."""
        self.user_listen()
        self.settle()
        self.peer_half_syn()
        self.settle()
        return self

    # ------------------------------------------------------------------ invariants

    def check(self) -> None:
        """Between any two steps."""
        locks = self.stack.locks
        assert not locks.held and not locks.pinned, "locks held"
        ids, counters = self.bench.dev.engine.ids, self.bench.dev.counters
        assert counters["stale_events"] <= self.late_events
        for name in ("lost_ids", "bad_positions", "bad_doorbells", "listen_refused"):
            assert not counters[name], f"{name}: {counters[name]}"
        self._seen.update((toep.tid, toep) for toep in ids.toepcbs if toep is not None)
        for toep in self._seen.values():
            held = bool(toep.flags & TP_ATTACHED) + bool(toep.flags & TP_EVENTS_PENDING)
            assert toep.refcount == held, f"refcount {toep.refcount}, but {held} hold the toepcb"
            assert (toep.tp is not None) == bool(toep.flags & TP_ATTACHED), "tcpcb without ATTACHED, or the reverse"
        stream = peer.DATA * 10
        assert stream.startswith(self.got), f"received {bytes(self.got)!r}"

    def finish(self) -> None:
        """Everything comes to its end; then nothing may be left of it anywhere."""
        self.settle()
        for four_tuple in list(self.engine.half_open):
            (self.engine.give_up if self.silent else self.engine.last_ack)(four_tuple)
        for tcb in self.engine.opened:
            if tcb.stock:  # may still be in SYN_RECEIVED
                (peer.timeout if self.silent else peer.syn_ack)(self.engine, tcb)
        self.settle()
        while self.listener is not None and self.listener.readable():
            self.user_accept()
        self._one_outcome_for_each_half_open()
        for sock in self.accepted:
            sock.close()
        self.user_close()
        self.user_stop()
        self.settle()
        if self.silent:
            self._pass_time()
        else:
            for tcb in self.engine.opened:
                peer.finish(self.engine, tcb)
            self.settle()
        self.check()
        self._nothing_left()
        before = self._said()
        self.engine.time += LATE_US
        self.settle()
        assert self._said() == before, "the wire does not go quiet"

    def _said(self) -> tuple[int, int, int]:
        """How much was written about connections; ARP may ask on."""
        engine = self.engine
        commands = sum(command["op"] != Opcode.SEND_FRAME for command in engine.commands)
        return commands, len(engine.doorbells), len(engine.resets)

    def _pass_time(self) -> None:
        for _ in range(3):
            for tcb in self.engine.opened:
                peer.timeout(self.engine, tcb)
                peer.two_msl(self.engine, tcb)
            self.settle()
            self.engine.time += LATE_US
            self.settle()

    def _one_outcome_for_each_half_open(self) -> None:
        """SC-4, LSN-2: a socket or a reset, unless the peer ended it itself."""
        engine = self.engine
        for four_tuple in set(engine.entries):
            made, resets = engine.entries.count(four_tuple), engine.resets.count(four_tuple)
            ended = engine.given_up.count(four_tuple)
            assert len(self.accepted) + resets <= made <= len(self.accepted) + resets + ended, (
                f"{made} half-open: {len(self.accepted)} sockets, {resets} resets, {ended} ended by the peer"
            )

    def _nothing_left(self) -> None:
        engine, toe = self.engine, self.bench.dev
        ids = toe.engine.ids
        assert not engine.pending and not toe.engine.commands.waiting and not toe.engine.commands.backlog
        assert sorted(engine.released) == sorted(tcb.tid for tcb in engine.opened), "ids released and opened differ"
        assert all(toep.flags & (TP_STOCK | TP_READY) for toep in ids.toepcbs if toep is not None), "an id is not free"
        assert ids.available + ids.stocked == len(ids.toepcbs)
        assert all(toep.refcount == 0 and toep.tp is None for toep in self._seen.values())
        assert ids.ring_pool.in_use == ids.idle_rings, "rings are not back"
        assert not toe.calls.four_tuples and not toe.passive.half_open, "four-tuples left"
        assert not self.stack.syncache.count and not list(self.stack.tcbinfo), "stack"
        assert toe.passive.listeners == [None] * len(toe.passive.listeners)


_SEND, _SHUTDOWN, _ACK, _FIN = ("user", "send"), ("user", "shutdown"), ("peer", "ack"), ("peer", "fin")
_OPEN = (("peer", "syn_ack"), _SEND)
PATHS: dict[State, tuple[tuple[str, str], ...]] = {
    State.SYN_SENT: (),
    State.SYN_RECEIVED: (("peer", "syn"),),
    State.ESTABLISHED: _OPEN,
    State.CLOSE_WAIT: (*_OPEN, _FIN),
    State.FIN_WAIT_1: (*_OPEN, _SHUTDOWN),
    State.FIN_WAIT_2: (*_OPEN, _SHUTDOWN, _ACK),
    State.CLOSING: (*_OPEN, _SHUTDOWN, _FIN),
    State.LAST_ACK: (*_OPEN, _FIN, _SHUTDOWN),
    State.TIME_WAIT: (*_OPEN, _SHUTDOWN, _ACK, _FIN),
}
"""From an active open to each state of the device."""
