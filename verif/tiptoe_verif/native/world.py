"""Simulated time shared by engines and peers: all advance in lock-step, wires carry frames between them.

A *node* is anything with a frame port: a :class:`~tiptoe_verif.native.simulation.Simulation`, or a :class:`Peer`
made of a Python function. A :class:`Wire` joins two nodes; nodes joined directly or indirectly share one
:class:`World`. Time is in nanoseconds from 0. Within a quantum each node runs alone; frames cross at its end, so a
wire's delay is exact if it is at least a quantum, else frames arrive at the quantum's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from ..wire.impairment import Channel, Impairment


class Node(Protocol):
    """What a world needs of an engine or a peer."""

    world: World
    quantum_ns: int
    """Longest step it takes alone when it is on a wire."""

    def advance(self, until_ns: int) -> None:
        """Live until that time."""

    def take_sent(self) -> Iterable[tuple[int, bytes]]:
        """Frames sent since the last call, with their times, in order."""

    def give(self, time_ns: int, frame: bytes) -> None:
        """A frame arrives at that time, never earlier than the node's own."""


class World:
    """Nodes and wires that share a clock.

    Attributes
    ----------
    now_ns : int
        All nodes have lived until then.
    quantum_ns : int or None
        Longest step one node takes while others wait. None: the shortest any node on a wire asks for.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.wires: list[Wire] = []
        self.now_ns = 0
        self.quantum_ns: int | None = None

    def join(self, other: World) -> None:
        """Take over another world's nodes and wires."""
        if other is self:
            return
        # The one that is behind lives up to the other's time.
        self.run(other.now_ns)
        other.run(self.now_ns)
        for node in other.nodes:
            node.world = self
        self.nodes += other.nodes
        self.wires += other.wires
        self.quantum_ns = self.quantum_ns or other.quantum_ns

    def run(self, until_ns: int, stop: Callable[[], bool] | None = None) -> bool:
        """Let time pass until ``until_ns``, or until ``stop()`` holds at the end of a step; returns whether it did."""
        if stop is not None and stop():
            return True
        quantum_ns = until_ns
        if self.wires:
            quantum_ns = self.quantum_ns or min(node.quantum_ns for node in self.nodes)
        while self.now_ns < until_ns:
            target = min(until_ns, self.now_ns + quantum_ns)
            for node in self.nodes:
                node.advance(target)
            self.now_ns = target
            for wire in self.wires:
                wire.exchange(target)
            if stop is not None and stop():
                return True
        return False


class Wire:
    """A line between two nodes, impaired in each direction by its own rules.

    Parameters
    ----------
    a, b : Node
        The two ends. One wire an end.
    impairment : Impairment
        Of both directions.
    back : Impairment, optional
        Of the direction from b to a, if it differs.
    """

    def __init__(self, a: Node, b: Node, impairment: Impairment | None = None, back: Impairment | None = None) -> None:
        impairment = impairment or Impairment()
        self.ends = (a, b)
        self.channels = (Channel(impairment, "a>b"), Channel(back or impairment, "b>a"))
        world = a.world
        for wire in [*world.wires, *b.world.wires]:
            if any(end in (a, b) for end in wire.ends):
                raise ValueError("a node has one wire only")
        world.join(b.world)
        world.wires.append(self)

    def exchange(self, now_ns: int) -> None:
        """Carry what was sent in the last quantum."""
        for source, target, channel in zip(self.ends, self.ends[::-1], self.channels, strict=True):
            for time_ns, frame in source.take_sent():
                for arrival_us, arrived in channel.send(frame, time_ns / 1000):
                    target.give(max(now_ns, round(arrival_us * 1000)), arrived)


Answers = Iterable[bytes | tuple[float, bytes]] | None
"""Frames to send at once, or as (delay in microseconds, frame)."""


class Peer:
    """A scripted peer: ``on_frame(frame, time_us)`` returns the frames it answers with.

    Frames may also be sent at any time with :meth:`send`. ``received`` keeps all that came, with times in microseconds.
    """

    def __init__(self, on_frame: Callable[[bytes, float], Answers] | None = None) -> None:
        self.world = World()
        self.world.nodes.append(self)
        self.quantum_ns = 1 << 62
        self.received: list[tuple[float, bytes]] = []
        self._on_frame = on_frame
        self._now_ns = 0
        self._order = count()
        self._arriving: list[tuple[int, int, bytes]] = []
        self._leaving: list[tuple[int, int, bytes]] = []

    def send(self, frame: bytes, at_us: float | None = None) -> None:
        """Send a frame, at once or at a later time."""
        time_ns = self._now_ns if at_us is None else max(self._now_ns, round(at_us * 1000))
        heappush(self._leaving, (time_ns, next(self._order), bytes(frame)))

    def give(self, time_ns: int, frame: bytes) -> None:
        """See :class:`Node`."""
        heappush(self._arriving, (time_ns, next(self._order), frame))

    def advance(self, until_ns: int) -> None:
        """See :class:`Node`."""
        while self._arriving and self._arriving[0][0] < until_ns:
            time_ns, _, frame = heappop(self._arriving)
            self.received.append((time_ns / 1000, frame))
            self._now_ns = time_ns
            for answer in (self._on_frame(frame, time_ns / 1000) if self._on_frame else None) or ():
                delay_us, data = answer if isinstance(answer, tuple) else (0.0, answer)
                self.send(data, time_ns / 1000 + delay_us)
        self._now_ns = until_ns

    def take_sent(self) -> list[tuple[int, bytes]]:
        """See :class:`Node`."""
        sent = []
        while self._leaving and self._leaving[0][0] <= self._now_ns:
            time_ns, _, frame = heappop(self._leaving)
            sent.append((time_ns, frame))
        return sent
