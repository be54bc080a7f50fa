"""What proofs share: a component elaborated inside of the proof, so that its states can be seen, and its ports led outside."""

from collections.abc import Container
from typing import Any

from amaranth.hdl import Assume, Module, Signal, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In


def elaborated(m: Module, name: str, component: Any, platform: Any) -> Any:
    """Make ``component`` a submodule of ``m``, elaborated now: the attributes that it sets meanwhile are there behind this."""
    component._MustUse__silence = True
    m.submodules[name] = component.elaborate(platform)
    return component


def join(m: Module, outside: Any, inside: Any, leave: Container[str] = ()) -> None:
    """Every port of ``outside`` that ``inside`` has under the same name is connected, but for those in ``leave``."""
    for name, member in inside.signature.members.items():
        if name in leave or name not in outside.signature.members:
            continue
        mine, theirs = getattr(outside, name), getattr(inside, name)
        if member.is_signature:
            wiring.connect(m, wiring.flipped(mine), theirs)
        elif member.flow is In:
            m.d.comb += theirs.eq(mine)
        else:
            m.d.comb += mine.eq(theirs)


def hold_still(m: Module, *settings: ValueLike) -> None:
    """These inputs are any values, but always the same."""
    started = Signal(name="hold_started")
    m.d.sync += started.eq(1)
    for number, setting in enumerate(settings):
        before = Signal.like(setting, name=f"hold_{number}")
        m.d.sync += before.eq(setting)
        m.d.comb += Assume(~started | (before == setting))
