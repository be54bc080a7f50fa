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

    Timing: a request in three cycles, ``o`` two cycles after the request; all outputs come from flip-flops, and a
    request is taken in the cycle after it is chosen.

    Parameters
    ----------
    cfg : EngineConfig
    clients : int
        Number of clients, at least 1.

    Members
    -------
    request : In array of streams of ``dma_request``
    allow : In, one bit a client
        A client whose bit is low is passed over, from the next cycle on. What is taken in a cycle may change it two
        cycles later.
    o : Out stream of ``client_request``
    """

    def __init__(self, cfg: EngineConfig, clients: int):
        self._clients = clients
        super().__init__(
            {
                "request": In(stream.Signature(dma_request(cfg))).array(clients),
                "allow": In(unsigned(clients)),
                "o": Out(stream.Signature(client_request(cfg, clients))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        clients = self._clients
        latest = Signal(range(clients))  # the client served last has the lowest priority
        choice = Signal(range(clients))
        wanted = Signal(clients)
        chosen = Signal(clients)  # the client whose request is taken, one bit each
        m.d.comb += wanted.eq(Cat(request.valid for request in self.request) & self.allow)
        with m.Switch(latest):
            for served in range(clients):
                with m.Case(served):
                    for distance in reversed(range(1, clients + 1)):
                        client = (served + distance) % clients
                        with m.If(wanted[client]):
                            m.d.comb += choice.eq(client)

        m.d.sync += chosen.eq(0)
        with m.If(~self.o.valid & ~chosen.any() & wanted.any()):
            m.d.sync += [chosen.eq(1 << choice), latest.eq(choice)]

        m.d.comb += Cat(request.ready for request in self.request).eq(chosen)
        with m.If(~self.o.valid):
            m.d.sync += [self.o.valid.eq(chosen.any()), self.o.payload.client.eq(latest)]
            for client, request in enumerate(self.request):
                with m.If(chosen[client]):
                    m.d.sync += self.o.payload.request.eq(request.payload)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
