"""Round-robin choice between the DMA requests of several clients."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import dma_request


def client_bits(clients: int) -> int:
    """Bits of a client's number."""
    return max(1, ceil_log2(clients))


def client_request(cfg: EngineConfig, clients: int) -> data.StructLayout:
    """A request and whose it is."""
    return data.StructLayout({"request": dma_request(cfg), "client": client_bits(clients)})


def at_rest(m: Module, quiesce: Value, busy: Value) -> Value:
    """Whether ``quiesce`` has been high without ``busy`` for eight cycles: more than an item is out of sight for on
    its way from one queue to the next."""
    seen = Signal(8)
    m.d.sync += seen.eq(Mux(quiesce & ~busy, Cat(Const(1), seen), 0))
    return seen[-1]


class RequestArbiter(wiring.Component):
    """Takes one request at a time, the next client's first, so that no client waits for more than one request
    of each other client.

    Timing: one request a cycle, ``o`` registered. ``request[k].ready`` depends on all clients' valid.

    Parameters
    ----------
    cfg : EngineConfig
    clients : int
        Number of clients, at least 1.

    Members
    -------
    request : In array of streams of ``dma_request``
    allow : In, one bit a client
        A client whose bit is low is passed over.
    o : Out stream of ``client_request``
    """

    def __init__(self, cfg: EngineConfig, clients: int):
        self._clients = clients
        super().__init__({
            "request": In(stream.Signature(dma_request(cfg))).array(clients),
            "allow": In(unsigned(clients)),
            "o": Out(stream.Signature(client_request(cfg, clients))),
        })

    def elaborate(self, platform):
        m = Module()
        clients = self._clients
        latest = Signal(range(clients))  # the client served last has the lowest priority
        choice = Signal(range(clients))
        wanted = Signal(clients)
        free = Signal()
        m.d.comb += [
            wanted.eq(Cat(request.valid for request in self.request) & self.allow),
            free.eq(~self.o.valid | self.o.ready),
        ]
        with m.Switch(latest):
            for served in range(clients):
                with m.Case(served):
                    for distance in reversed(range(1, clients + 1)):
                        client = (served + distance) % clients
                        with m.If(wanted[client]):
                            m.d.comb += choice.eq(client)

        with m.If(free):
            m.d.sync += self.o.valid.eq(wanted.any())
            with m.Switch(choice):
                for client in range(clients):
                    with m.Case(client):
                        m.d.comb += self.request[client].ready.eq(wanted[client])
                        m.d.sync += self.o.payload.request.eq(self.request[client].payload)
            m.d.sync += self.o.payload.client.eq(choice)
            with m.If(wanted.any()):
                m.d.sync += latest.eq(choice)
        return m
