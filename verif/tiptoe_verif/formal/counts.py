"""The counts that RELEASE looks at go up by one at most in a cycle: of received frames (``rx/conclude.py``), which
two messages end.

Of segments (``tx/sequence.py``) it is plain: a single flag is added.
"""

from typing import Any

from amaranth.hdl import Assert, Module, Signal
from amaranth.lib import wiring

from tiptoe_hdl.config import TINY
from tiptoe_hdl.rx.conclude import Conclusions

from .join import join


class CountsProof(wiring.Component):
    """Conclusions with free inputs."""

    def __init__(self) -> None:
        self.conclusions = Conclusions(TINY)
        super().__init__(dict(self.conclusions.signature.members))

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        m.submodules.conclusions = conclusions = self.conclusions
        join(m, self, conclusions)
        before, gone = Signal(8), Signal(8)
        m.d.sync += before.eq(conclusions.arrivals_done)
        m.d.comb += [gone.eq(conclusions.arrivals_done - before), Assert(gone <= 1)]
        return m
