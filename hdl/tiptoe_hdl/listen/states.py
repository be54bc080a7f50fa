"""A state machine with a flip-flop a state: "in this state" is a wire, not a decoder in front of everything it does."""

from contextlib import contextmanager

from amaranth.hdl import Cat, Module, Signal


class States:
    """Used like Amaranth's FSM: ``with states("Name"):`` describes a state, ``states.go("Name")`` in it is the way out.

    Unlike there, only one ``go`` may take effect in a cycle: alternatives are written as If and Else. Without one the
    state stays. States are described once each; ``done()`` comes after the last one.

    Parameters
    ----------
    m : Module
    first : str
        The state after reset.
    """

    def __init__(self, m: Module, first: str):
        self._m = m
        self._first = first
        self._at = {first: Signal(name=f"at_{first}", init=1)}
        self._enter: dict[str, list[Signal]] = {}
        self._leave: dict[str, Signal] = {}
        self._current = None

    def at(self, name: str) -> Signal:
        """Whether the machine is in state ``name``: a flip-flop."""
        if name not in self._at:
            self._at[name] = Signal(name=f"at_{name}".replace(" ", "_"))
        return self._at[name]

    @contextmanager
    def __call__(self, name: str):
        if name in self._leave:
            raise NameError(f"state {name} is there already")
        self._leave[name] = Signal(name=f"leave_{name}".replace(" ", "_"))
        with self._m.If(self.at(name)):
            self._current = name
            yield
        self._current = None

    def go(self, name: str):
        """Leave the present state for ``name``."""
        ways = self._enter.setdefault(name, [])
        way = Signal(name=f"way{len(ways)}_{name}".replace(" ", "_"))
        ways.append(way)
        self._m.d.comb += [way.eq(1), self._leave[self._current].eq(1)]

    def done(self):
        """Make the flip-flops."""
        described, reached = self._leave.keys(), {self._first, *self._enter}
        if wrong := (described ^ reached) | (self._at.keys() - described):
            raise NameError(f"states without description or without a way in: {sorted(wrong)}")
        for name, at in self._at.items():
            staying = at & ~self._leave[name]
            self._m.d.sync += at.eq(Cat(staying, *self._enter.get(name, [])).any())
