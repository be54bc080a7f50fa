"""The state machine with a flip-flop a state: it goes where it is told, is in one state always, and refuses half ones."""

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from tiptoe_hdl.listen.states import States


def test_goes_and_stays(rng):
    m, forward, back = Module(), Signal(), Signal()
    s = States(m, "A")
    for name, after, before in (("A", "B", "C"), ("B", "C", "A"), ("C", "A", "B")):
        with s(name):
            with m.If(forward):
                s.go(after)
            with m.Elif(back):
                s.go(before)
    s.done()

    async def bench(ctx):
        place = 0
        for _ in range(300):
            assert [ctx.get(s.at(name)) for name in "ABC"] == [int(place == at) for at in range(3)]
            way = rng.choice(["forward", "back", "both", "none"])
            ctx.set(forward, way in ("forward", "both"))
            ctx.set(back, way in ("back", "both"))
            await ctx.tick()
            place = (place + {"forward": 1, "both": 1, "back": -1, "none": 0}[way]) % 3

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_states_that_are_not_there():
    m = Module()
    s = States(m, "A")
    with s("A"):
        s.go("Nowhere")
    with pytest.raises(NameError, match="A is there already"):
        with s("A"):
            pass
    with pytest.raises(NameError, match="Nowhere"):
        s.done()
    s = States(m, "A")
    with s("A"):
        pass
    with s("Unreachable"):
        pass
    with pytest.raises(NameError, match="Unreachable"):
        s.done()
