"""Connection ids and their rings: which are free, in stock for passive opens, in use.

An id goes round: free → PROVISION (stock, or at once for an active open) → open → terminal event → RELEASE →
COMMAND_DONE → free. Each PROVISION has another generation, which tells the uses of an id apart.

What is in stock cannot be taken back, so the stock follows demand. It begins large: a burst of SYNs finds as many ids as
there are in stock. An active open that finds no id halves the stock's target, each accepted connection raises it by one again;
and whatever the target, of ids that nobody uses half are in stock.

Nobody waits for ever while ids come free. Up to ``reserve`` of them wait for active opens, the rest goes into stock. While active
opens take all there are, so that there never is a rest, an empty stock gets every second one: an active open that found none
has the next that comes free, or the one after.
"""

from __future__ import annotations

import errno
from collections import Counter, deque

from . import abi_gen as abi
from .memory import RingPair, RingPool
from .rings import CommandRing
from .toepcb import TP_READY, TP_RELEASING, TP_STOCK, toepcb


class ConnectionIds:
    """The ids of one engine.

    Parameters
    ----------
    total : int
        Connection ids of the engine.
    stock : int
        Ids kept in stock at most, once ``stock_up`` was called.
    reserve : int
        Ids kept free for active opens.

    Attributes
    ----------
    toepcbs : list
        The toepcb of each provisioned id.
    ring_pool : RingPool
        Where their rings come from.
    stocked : int
        Ids in stock for passive opens.
    releasing : int
        Ids on their way back: their RELEASE is not answered yet.
    """

    def __init__(
        self,
        total: int,
        stock: int,
        reserve: int,
        commands: CommandRing,
        ring_pool: RingPool,
        counters: Counter[str],
    ) -> None:
        self._commands = commands
        self.ring_pool = ring_pool
        self._counters = counters
        self._stock = stock
        self._stock_target = 0
        self._reserve = reserve
        self._stocks_turn = False  # active opens took the last id since one was put in stock
        self.stocked = 0
        self.releasing = 0
        self.toepcbs: list[toepcb | None] = [None] * total
        self._free = deque(range(total))
        self._ready: deque[toepcb] = deque()
        self._generations = bytearray(total)

    def reset(self) -> None:
        """The engine was reset and knows no id any more: all are free again, the lost ones too. Generations go on,
        so that no event of before is taken for one of a new connection."""
        for toep in self.toepcbs:
            if toep is not None:
                toep.rings.drop()
        self.toepcbs = [None] * len(self.toepcbs)
        self._free = deque(range(len(self.toepcbs)))
        self._ready.clear()
        self.stocked = self.releasing = self._stock_target = 0
        self._stocks_turn = False

    @property
    def available(self) -> int:
        """Ids that are neither in use nor in stock."""
        return len(self._free) + len(self._ready)

    @property
    def unprovisioned(self) -> int:
        """Ids that could be provisioned with any rings."""
        return len(self._free)

    @property
    def idle_rings(self) -> int:
        """Ring pairs held by ids that no connection uses: in stock, or provisioned and not opened."""
        return self.stocked + len(self._ready)

    def find(self, tid: int) -> toepcb | None:
        """The toepcb of a tid; None for an id that is not provisioned, or was with another generation."""
        tep_id = tid & 0xFFFF
        toep = self.toepcbs[tep_id] if tep_id < len(self.toepcbs) else None
        return toep if toep is not None and toep.tid == tid else None

    def acquire(self, lent: RingPair | None = None) -> tuple[toepcb | None, int]:
        """A provisioned id for an active open whose OPEN has room in the command ring too; or None and an errno.
        With ``lent`` its rings are those: an id that is not provisioned yet is needed."""
        if lent is not None and self._ready and not self._free:
            toep = self._ready[0]
            self.unstock(toep)
            self.release(toep)
            return None, errno.ENOBUFS  # there will be one when the engine has answered
        if self._ready and lent is None:
            if not self._commands.room(1):
                return None, errno.ENOBUFS
            toep = self._ready.popleft()
            toep.flags &= ~TP_READY
            self._stocks_turn |= not self.available
            return toep, 0
        if not self._free:
            self._stock_target = min(self._stock_target, max(1, self._stock_target // 2))
            return None, errno.EPERM
        if not self._commands.room(2):
            return None, errno.ENOBUFS
        made = self._provision(0, lent)
        if made is None:
            return None, errno.EPERM
        self._stocks_turn |= not self.available
        return made, 0

    def give_back(self, toep: toepcb) -> None:
        """An acquired id was not opened after all: it waits for the next active open. With the application's rings
        it would wait for ever: it is released."""
        if toep.rings.lent:
            self.release(toep)
            return
        toep.flags = TP_READY
        self._ready.append(toep)

    def stock_up(self, first: int) -> None:
        """From now on keep ids in stock for passive opens: ``first`` of them now, the others with ``replenish``."""
        if not self._stock_target:
            self._stock_target = self._stock
        self.replenish(first)

    def replenish(self, limit: int | None = None) -> None:
        """Bring the stock up to its target, or to ``limit`` if that is less, as far as ids, memory and the command ring allow."""
        most = self._stock if self._stock_target else 0
        while (
            (limit is None or self.stocked < limit)
            and self.stocked < max(self._stock_target, min(self.available, most))
            and self._free
            and (self.available > self._reserve or (self._stocks_turn and not self.stocked))
            and self._commands.room(1)
        ):
            if self._provision(TP_STOCK) is None:
                break
            self.stocked += 1
            self._stocks_turn = False

    def unstock(self, toep: toepcb) -> None:
        """The id is no longer in stock, or ready for an active open."""
        if toep.flags & TP_STOCK:
            toep.flags &= ~TP_STOCK
            self.stocked -= 1
            self._stock_target = min(self._stock_target + 1, self._stock)
        elif toep.flags & TP_READY:
            toep.flags &= ~TP_READY
            self._ready.remove(toep)

    def release(self, toep: toepcb) -> None:
        """Give the id back; the terminal event has come, or it was never opened. The rings stay until the engine has let
        go of them."""
        toep.flags |= TP_RELEASING
        self.releasing += 1
        _, lport, _, fport = toep.four_tuple
        laddr, faddr = toep.wire_addresses

        def done(status: int, argument: int) -> None:
            self.releasing -= 1
            if status != abi.Status.OK:
                self.lose(toep)
                return
            self.toepcbs[toep.tep_id] = None
            self._free.append(toep.tep_id)
            toep.rings.drop()

        self._commands.post_control(
            abi.pack_release(self._commands.tag(done), tid=toep.tid, laddr=laddr, faddr=faddr, lport=lport, fport=fport)
        )

    def lose(self, toep: toepcb) -> None:
        """An id whose state on the engine is unknown: neither it nor its memory is used again before a reset."""
        self._counters["lost_ids"] += 1
        toep.flags |= TP_RELEASING

    def _provision(self, flags: int, lent: RingPair | None = None) -> toepcb | None:
        """Provision the next free id; None when there is no memory for rings."""
        rings = self.ring_pool.get() if lent is None else lent.hold()
        if rings is None:
            return None
        tep_id = self._free.popleft()
        self._generations[tep_id] = generation = (self._generations[tep_id] + 1) & 0xFF
        toep = toepcb(tep_id, generation, rings, flags)
        self.toepcbs[tep_id] = toep
        self._commands.post(
            abi.pack_provision(
                0,
                tid=toep.tid,
                snd_base=rings.snd_block.address,
                rcv_base=rings.rcv_block.address,
                snd_log2=rings.snd_block.log2,
                rcv_log2=rings.rcv_block.log2,
                stock=int(bool(flags & TP_STOCK)),
            )
        )
        return toep
