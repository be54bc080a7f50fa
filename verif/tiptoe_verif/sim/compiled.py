"""Amaranth testbenches on a Verilated block: tens of times faster than Amaranth's own simulator.

``CompiledBench`` gives asynchronous testbenches the part of the simulator's context that synchronous benches use: ``get``,
``set`` and ``tick()`` with ``sample``, ``until``, ``repeat`` and ``async for``. They see what they see there: after a clock
edge they run in the order in which they were added; what one sets, the following one's ``get`` shows; samples are those before
the edge. Only the block's ports are there, and what is made of them by Cat, slices and the usual operators.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from functools import reduce
from typing import Any

from amaranth.hdl import Const, ShapeCastable, Signal, Value, ValueCastable
from amaranth.hdl._ast import Concat, Operator, Slice

from .block import BlockSim
from .layouts import bits_of

Read = Callable[[], int]

_BINARY: dict[str, Callable[[int, int], int]] = {
    "&": operator.and_, "|": operator.or_, "^": operator.xor, "+": operator.add, "-": operator.sub,
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Tick:
    """The next clock edge, and values just before it; as Amaranth's ``TickTrigger``."""

    def __init__(self, context: Context, samples: tuple[Any, ...] = ()):
        self._context, self._samples = context, samples
        self._reads = [context.reader(sample) for sample in samples]

    def take(self) -> tuple[Any, ...]:
        """What the one who waits is given: (clock edge, reset, samples...)."""
        return (True, False, *(read() for read in self._reads))

    def sample(self, *values: Any) -> Tick:
        return Tick(self._context, (*self._samples, *values))

    def __await__(self) -> Generator[Tick, tuple[Any, ...], tuple[Any, ...]]:
        return (yield self)

    async def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        while True:
            yield await self

    async def until(self, condition: Any) -> tuple[Any, ...]:
        trigger = self.sample(condition)
        while True:
            _, _, *values, met = await trigger
            if met:
                return tuple(values)

    async def repeat(self, count: int) -> tuple[Any, ...]:
        values: list[Any] = []
        for _ in range(count):
            _, _, *values = await self
        return tuple(values)


class Context:
    """What a testbench gets."""

    def __init__(self, block: BlockSim):
        self._block = block
        self._stale = False
        self._memories: dict[int, Any] = {}

    def settle(self) -> None:
        """Outputs follow the inputs."""
        if self._stale:
            self._block.settle()
            self._stale = False

    def tick(self) -> Tick:
        return Tick(self)

    def get(self, value: Any) -> Any:
        self.settle()
        return self.reader(value)()

    def set(self, target: Any, value: Any) -> None:
        self._write(Value.cast(target), bits_of(target, value))
        self._stale = True

    def reader(self, value: Any) -> Callable[[], Any]:
        """Reads the value, in its shape; outputs must have settled."""
        read = self._compile(Value.cast(value))
        shape = value.shape() if isinstance(value, ValueCastable) else None
        return (lambda: shape.from_bits(read())) if isinstance(shape, ShapeCastable) else read

    def _memory(self, signal: Signal) -> Any:
        memory = self._memories.get(id(signal))
        if memory is None:
            port = self._block.signals.get(id(signal))
            if port is None:
                raise KeyError(f"{signal.name} is not a port of the block: compiled benches have only those")
            memory = self._memories[id(signal)] = self._block.memory(port)
        return memory

    def _compile(self, value: Value) -> Read:
        signed = value.shape().signed
        if isinstance(value, Const):
            constant = value.value
            return lambda: constant
        if isinstance(value, Signal):
            if not len(value):
                return lambda: 0
            memory, convert = self._memory(value), int.from_bytes
            if signed:
                sign, modulus = 1 << (len(value) - 1), 1 << len(value)
                return lambda: (convert(memory.raw, "little") + sign) % modulus - sign
            return lambda: convert(memory.raw, "little")
        if isinstance(value, Slice):
            read, start, mask = self._compile(value.value), value.start, (1 << len(value)) - 1
            return lambda: read() >> start & mask
        if isinstance(value, Concat):
            parts, at = [], 0
            for part in value.parts:
                parts.append((self._compile(part), at, (1 << len(part)) - 1))
                at += len(part)
            return lambda: sum((read() & mask) << at for read, at, mask in parts)
        if isinstance(value, Operator):
            return self._operation(value)
        raise TypeError(f"a compiled bench cannot read {value!r}")

    def _operation(self, value: Operator) -> Read:
        operands, width = [self._compile(operand) for operand in value.operands], len(value)
        mask = (1 << width) - 1
        bits = [len(operand) for operand in value.operands]
        if value.operator == "~":
            return lambda: ~operands[0]() & mask
        if value.operator in ("b", "r|"):
            return lambda: int(operands[0]() != 0)
        if value.operator == "r&":
            return lambda: int(operands[0]() == (1 << bits[0]) - 1)
        if value.operator in _BINARY and not any(operand.shape().signed for operand in value.operands):
            function = _BINARY[value.operator]
            return lambda: int(reduce(function, (operand() for operand in operands))) & mask
        raise TypeError(f"a compiled bench cannot read {value!r}")

    def _write(self, target: Value, number: int) -> None:
        if isinstance(target, Signal):
            if len(target):
                memory = self._memory(target)
                memory.raw = (number & ((1 << len(target)) - 1)).to_bytes(len(memory), "little")
        elif isinstance(target, Slice):
            old = self._compile(target.value)()
            mask = (1 << len(target)) - 1 << target.start
            self._write(target.value, old & ~mask | number << target.start & mask)
        elif isinstance(target, Concat):
            for part in target.parts:
                self._write(part, number & ((1 << len(part)) - 1))
                number >>= len(part)
        elif isinstance(target, Operator) and target.operator in ("u", "s"):
            self._write(target.operands[0], number)
        else:
            raise TypeError(f"a compiled bench cannot set {target!r}")


def run_compiled(
    dut: Any,
    key: str,
    testbenches: Sequence[Callable[[Any], Any]],
    background: Sequence[Callable[[Any], Any]],
    max_cycles: int,
) -> None:
    """Run until all ``testbenches`` have returned, at most ``max_cycles`` cycles (:exc:`TimeoutError`). ``key``: as
    :class:`BlockSim`'s; the source of a block of the bench's own is added."""
    key += inspect.getsource(type(dut)) if not type(dut).__module__.startswith("tiptoe_hdl") else ""
    block = BlockSim(type(dut).__name__.lower(), dut, key=key)
    try:
        context = Context(block)
        for signal in block.inputs:
            context.set(signal, signal.init)
        waiting: list[tuple[Any, bool, Tick | None]] = [
            (bench(context), index < len(testbenches), None) for index, bench in enumerate((*testbenches, *background))
        ]
        given: list[Any] = [None] * len(waiting)
        for _ in range(max_cycles):
            still: list[tuple[Any, bool, Tick | None]] = []
            for (bench, needed, _), values in zip(waiting, given, strict=True):
                try:
                    still.append((bench, needed, bench.send(values)))
                except StopIteration:
                    pass
            waiting = still
            if not any(needed for _, needed, _ in waiting):
                return
            context.settle()
            given = [tick.take() for _, _, tick in waiting if tick is not None]
            block.step()
        raise TimeoutError(f"bench did not end within {max_cycles} cycles")
    finally:
        for bench, _, _ in waiting:
            bench.close()
        block.close()
