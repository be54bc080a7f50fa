"""Random traffic between two engines: connections opened from both sides, data both ways, some aborted, all checked.

A connection carries, from the client, eight bytes (its number and how many bytes it wants back) and an upload; then the
server's answer. Contents depend on the connection's number only, so every byte can be checked where it arrives.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
from dataclasses import dataclass

_PORT = 80
NO_ROOM = "EPERM"
_RESET = struct.pack("ii", 1, 0)
_HEADER = struct.Struct("!II")


def content(number: int, which: str, size: int) -> bytes:
    """What connection ``number`` uploads or is answered."""
    return random.Random(f"{number}{which}").randbytes(size)


@dataclass(kw_only=True)
class Plan:
    """What to do: connections, how many at once, largest upload or answer, share of them aborted."""

    connections: int
    at_once: int
    largest: int
    aborted: float = 0.1


class Client:
    """One connection from the opening side."""

    def __init__(self, number: int, simulation, address: str, rng: random.Random, plan: Plan) -> None:
        self.number = number
        upload = rng.choice([0, 1, rng.randrange(plan.largest)])
        self.want = rng.choice([0, 1, rng.randrange(plan.largest)])
        self.out = memoryview(_HEADER.pack(number, self.want) + content(number, "up", upload))
        self.abort_after = rng.randrange(self.want + 1) if rng.random() < plan.aborted else None
        self.got = bytearray()
        self.ended = self.done = False
        self.outcome = ""
        self.socket = simulation.socket()
        error = self.socket.connect_ex((address, _PORT))
        self.waiting = True
        if error and error != errno.EINPROGRESS:
            self._over(errno.errorcode[error])

    def step(self) -> None:
        """Do what can be done without waiting."""
        try:
            self._step()
        except BlockingIOError:
            pass
        except OSError as error:
            self._over(type(error).__name__)

    def _step(self) -> None:
        if self.waiting:
            if not self.socket.writable():
                return
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "connect")
            self.waiting = False
        while self.out and self.socket.writable():
            self.out = self.out[self.socket.send(self.out) :]
        if not self.out and not self.ended:
            self.socket.shutdown(socket.SHUT_WR)
            self.ended = True
        while True:
            data = self.socket.recv(1 << 16)
            self.got += data
            if self.abort_after is not None and len(self.got) >= self.abort_after:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._over("aborted")
                return
            if not data:
                assert bytes(self.got) == content(self.number, "down", self.want), f"connection {self.number}: answer"
                self._over("complete")
                return

    def _over(self, outcome: str) -> None:
        self.outcome, self.done = outcome, True
        self.socket.close()


class Server:
    """The accepting side of all connections of one simulation."""

    def __init__(self, simulation) -> None:
        self.listener = simulation.socket()
        self.listener.bind(("", _PORT))
        self.listener.listen()
        self.open: list[list] = []
        self.complete = self.broken = 0

    def step(self) -> None:
        """Do what can be done without waiting."""
        while self.listener.readable():
            made, _ = self.listener.accept()
            made.setblocking(False)
            self.open.append([made, bytearray(), None])
        for entry in list(self.open):
            try:
                if self._serve(entry):
                    self.complete += 1
                    self._close(entry)
            except BlockingIOError:
                pass
            except OSError:
                self.broken += 1
                self._close(entry)

    def _close(self, entry: list) -> None:
        self.open.remove(entry)
        entry[0].close()

    @staticmethod
    def _serve(entry: list) -> bool:
        made, got, answer = entry
        while answer is None:
            data = made.recv(1 << 16)
            got += data
            if not data:
                number, want = _HEADER.unpack_from(got)
                upload = bytes(got[_HEADER.size :])
                assert upload == content(number, "up", len(upload)), f"connection {number}: upload"
                answer = entry[2] = memoryview(content(number, "down", want))
        while answer:
            answer = entry[2] = answer[made.send(answer) :]
        return True


def run_traffic(pair, plan: Plan, seed: int, *, timeout_us: float = 3600e6) -> dict[str, int]:
    """Carry the plan out on a Pair, and wait until both engines are empty again; outcomes of the clients, counted."""
    rng = random.Random(seed)
    sides = [(pair.a, "10.0.0.2"), (pair.b, "10.0.0.1")]
    servers = [Server(pair.a), Server(pair.b)]
    pair.run_us(20_000)
    stocks = [_free(sim) for sim, _ in sides]
    clients: list[Client] = []
    live: list[Client] = []

    def step() -> bool:
        while len(live) < plan.at_once and len(clients) < plan.connections:
            simulation, address = rng.choice(sides)
            client = Client(len(clients), simulation, address, rng, plan)
            if client.outcome == NO_ROOM:
                break  # every id is taken, by TIME_WAIT above all: later
            clients.append(client)
            live.append(client)
        for client in live:
            client.step()
        live[:] = [client for client in live if not client.done]
        for server in servers:
            server.step()
        return len(clients) == plan.connections and not live

    pair.run_until(step, timeout_us, "the end of the traffic")

    def empty() -> bool:
        for server in servers:
            server.step()
        return [_free(sim) for sim, _ in sides] == stocks and not any(server.open for server in servers)

    pair.run_until(empty, 600e6, f"all ids free again ({stocks} at first)")
    pair.check()
    outcomes: dict[str, int] = {}
    for client in clients:
        outcomes[client.outcome] = outcomes.get(client.outcome, 0) + 1
    return outcomes


def _free(simulation) -> int:
    """Ids not used by a connection."""
    ids = simulation.toe.engine.ids
    return int(ids.available + ids.stocked)
