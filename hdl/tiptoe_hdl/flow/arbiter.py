"""Arbiter by age: whoever has waited for its turn longest goes first."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class AgeArbiter(wiring.Component):
    """A matrix of who goes before whom. Two levels of logic for seven requests.

    Ports
    -----
    requests : In(n)
    grant : Out(n)
        One-hot, or zero without a request; same cycle.
    served : In(n)
        One-hot or zero: becomes the last of all.
    """

    def __init__(self, n: int):
        self._n = n
        super().__init__({"requests": In(n), "grant": Out(n), "served": In(n)})

    def elaborate(self, platform):
        m = Module()
        n = self._n
        before = {
            (i, j): Signal(init=1, name=f"before_{i}_{j}") for i in range(n) for j in range(i + 1, n)
        }  # i goes before j

        for i in range(n):
            waits = 0
            for j in range(n):
                if j != i:
                    older = before[j, i] if j < i else ~before[i, j]
                    waits |= self.requests[j] & older
            m.d.comb += self.grant[i].eq(self.requests[i] & ~waits)
        for (i, j), bit in before.items():
            m.d.sync += bit.eq((bit & ~self.served[i]) | self.served[j])
        return m
