"""TCP's rules as pure functions, one topic a file.

Each function takes the values known at its step and returns new ones by name; the pipeline puts registers between the
steps (``pipeline.py`` lists which function runs in which stage). A name without prefix is a TCB field, ``e_`` an event
field, everything else a value worked out by an earlier step. Steps are cut so that each holds about one 32-bit
addition or comparison and two or three levels of selection.
"""

from amaranth.hdl import Cat, Mux, Value

from ...messages import State


def in_states(state: Value, *states: State) -> Value:
    """1 bit: ``state`` is one of ``states``."""
    hit = 0
    for candidate in states:
        hit |= state == candidate.value
    return hit


def power(exponent: Value, width: int) -> Value:
    """1 << exponent, ``width`` bits: two levels of logic for each bit."""
    return Cat(exponent == k for k in range(width))


def choose_one(default, *cases):
    """Like :func:`choose`, for conditions of which at most one holds: flat, not a chain."""
    chosen, any_holds = 0, 0
    for condition, value in cases:
        chosen |= Mux(condition, value, 0)
        any_holds |= condition
    return chosen | Mux(any_holds, 0, default)


def una_after(s, *others):
    """Step 4: what snd_una becomes; or the value of another case, of which one may hold in a pass that leaves snd_una alone."""
    return choose_one(s.snd_una, (s.fresh, s.e_seq), (s.took_ack, s.e_ack), *others)


def enters_recovery(s):
    """Step 4: a loss has been found, by duplicate acknowledgements or because reordering would not have taken so long."""
    return (s.go & s.if_third) | s.reorder_over


def undoes(s):
    """Step 4: what was sent again was not lost (``spurious.py``)."""
    return (s.go & s.if_original) | s.block_undoes


def choose(default, *cases):
    """The value of the first (condition, value) case that holds, else ``default``."""
    for condition, value in reversed(cases):
        default = Mux(condition, value, default)
    return default
