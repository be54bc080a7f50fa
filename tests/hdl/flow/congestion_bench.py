"""Drives the congestion control unit alone: news in, what it says of a connection out."""

from dataclasses import dataclass

from tiptoe_hdl.config import TINY, EngineConfig
from tiptoe_hdl.congestion import NUMBERS
from tiptoe_hdl.congestion.program import NEVER, Slow
from tiptoe_hdl.flow.congestion.unit import CongestionUnit
from tiptoe_verif.sim.block import BlockSim

ALL = TINY.with_(name="tiny_all", congestion=tuple(NUMBERS))


@dataclass
class Steering:
    """What the pipeline reads."""

    growth: int
    decrease: int
    first_ack: bool
    hosts: bool
    slow: Slow


class CongestionBench:
    """The unit, and the pipeline's side of it in the test's hand."""

    def __init__(self, cfg: EngineConfig = ALL, tick_us: int = 1000):
        self.cfg = cfg
        self.sim = BlockSim(f"congestion_{cfg.name}", CongestionUnit(cfg), key=repr(cfg))
        self.sim["tick_us"] = tick_us
        self.now = 0

    def tell(self, id=1, event="", *, algorithm="cubic", before=0, **told):
        """One message of the pipeline."""
        told = dict(cwnd=10000, una=0, mss=1000, srtt=0, limited=1, marked=0) | told
        self.sim["now"] = self.now & 0xFFFFF
        self.sim["news__payload"] = {
            "id": id, "begin": 0, "timeout": 0, "loss": 0, "rtt": 0, "ack": 0, event: 1, "before": before,
            "told": {"algorithm": NUMBERS[algorithm]} | told,
        }  # fmt: skip
        self.sim["news__valid"] = 1
        self.sim.step(1)
        self.sim["news__valid"] = 0

    def settle(self, cycles=14_000):
        """Long enough for a walk and a program."""
        self.sim.step(cycles)

    def steering(self, id=1) -> Steering:
        """What it says of a connection."""
        self.sim["id"] = id
        self.sim.step(2)
        found = self.sim["steering"]
        assert not (found.by_cwnd and found.holds)
        growth = NEVER if found.holds else 0 if found.by_cwnd else found.growth
        return Steering(growth, found.decrease, bool(found.first_ack), bool(found.hosts), Slow(found.slow))
