"""Programs of congestion control algorithms: what their instructions mean, and their words in the unit's memory.

An algorithm is four short programs, one for each thing that happens to a connection (``EVENTS``). ``flow/congestion`` runs
them, beside the TCB pipeline, an instruction at a time. They read what the pipeline has told (``NEWS``), keep what they
remember of a connection (``STATE_WORDS`` words, all lost when the connection begins), and write what the pipeline is to do
(``SETTINGS``).

Values are 32 bits, without sign. What would be more than that is 2**32 - 1, what would be less than zero is zero; only
``diff`` wraps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

EVENTS = ("begin", "timeout", "loss", "rtt", "ack")
"""A program each; of several at once the first goes first.

begin: the connection begins, or takes this algorithm. timeout: the first time-out for the data under way. loss: recovery
begins, or cwnd was cut for ECE. rtt: a round trip was measured in the first slow start (before ssthresh has fallen) while the
window was full. ack: new data was acknowledged in congestion avoidance. Slow start, recovery and what follows a time-out are
the pipeline's.
"""

FEW_NEWS = ("cwnd", "una", "mss", "srtt", "now", "before", "limited", "tick_us")
NEWS = (*FEW_NEWS, "marked")
"""What a program reads, besides its own values.

cwnd, mss: bytes, as they are now. una: SND.UNA. srtt: smoothed round-trip time, ticks times 8; 0: not measured. now: ticks
times 2**12, so that ``diff`` of two is right when the clock of 20 bits wraps. before: bytes, cwnd before the last loss or
time-out; of ``rtt`` the sample, in ticks. limited: 1: the window was full when the last acknowledgement came, 0: the
application sends less. tick_us: microseconds of a tick. marked: bytes acknowledged with ECE on a connection with ECN, modulo
2**32 (for ``diff``); with ``una`` it tells how much of what was acknowledged had been marked, if the peer tells accurately.
"""
NOW_SHIFT = 12

SETTINGS = ("growth", "decrease", "slow")
"""What a program writes. growth: in congestion avoidance cwnd grows by a segment when so many bytes have been acknowledged:
0: as many as cwnd has (RFC 5681), ``NEVER`` and above: it stays. decrease: at a loss ssthresh becomes so many 256ths of the
flight: what is less than ``HALF_LEFT`` counts as that, what is more than 255 as 255. slow: what becomes of the first slow
start, one of ``Slow``. What a program does not write is 0 and the algorithm's own ``decrease``."""
GROWTH_BITS, DECREASE_BITS = 23, 8
HALF_LEFT = 1 << DECREASE_BITS - 1
"""The least: two of four segments remain then, so no window falls below two."""
NEVER = (1 << GROWTH_BITS) - 1


class Slow(IntEnum):
    """Settings of ``slow``."""

    STARTS = 0
    """cwnd grows by what is acknowledged."""
    GENTLY = 1
    """By a share of that (RFC 9406's conservative slow start): 1 of 2**GENTLE_SHIFT."""
    ENDS = 2
    """ssthresh becomes cwnd."""
    WAITS = 3
    """cwnd stays."""


SLOW_BITS = 2
GENTLE_SHIFT = 3

STATE_WORDS = 8
TEMPORARIES = 15
CONSTANT_BITS = 23
MOST_STEPS = 1023
"""Instructions a program may take; one that takes more is ended and changes nothing."""


class Op(IntEnum):
    """Instructions, with their operands."""

    END = 0
    """Done; what was written as settings holds."""
    SET = 1
    """target = a constant of CONSTANT_BITS."""
    ADD = 2
    """target = a + b."""
    SUB = 3
    """target = a - b, at least 0."""
    DIFF = 4
    """target = a - b modulo 2**32."""
    MIN = 5
    MAX = 6
    MUL = 7
    """target = (a * b) >> n; the product has 64 bits, n is 0 to 31."""
    DIV = 8
    """target = a * b / c; the product has 64 bits. By 0: 2**32 - 1."""
    LESS = 9
    """Go on at a label if a < b."""
    JUMP = 10
    """Go on at a label."""


WORD_BITS = 32
TARGET_LOW, A_LOW, B_LOW, C_LOW, LABEL_LOW, OP_LOW = 23, 18, 13, 8, 0, 28
OPERAND_BITS, LABEL_BITS = 5, 9
STATE_AT, TEMPORARIES_AT = 8, 16
"""Places of operands: news (as a target: settings), state, temporaries; and one of news that had no place there."""
NEWS_AT = {name: number for number, name in enumerate(FEW_NEWS)} | {"marked": TEMPORARIES_AT + TEMPORARIES}


@dataclass
class _Instruction:
    op: Op
    target: int = 0
    a: int = 0
    b: int = 0
    c: int = 0
    constant: int = 0
    label: str = ""


@dataclass
class Program:
    """Instructions, one call each; values have names. A name of ``state`` is kept from one run to the next, one of NEWS is
    read only, one of SETTINGS written only, any other is a temporary, which has to be set first.

    Raises
    ------
    ValueError
        Too many values, an unknown one, a constant that is too large, a label that is missing or stands twice.
    """

    state: tuple[str, ...] = ()
    instructions: list[_Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    _temporaries: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.state) > STATE_WORDS or set(self.state) & {*NEWS, *SETTINGS}:
            raise ValueError(f"at most {STATE_WORDS} values are kept, with names of their own: {self.state}")

    def set(self, target: str, constant: int) -> None:
        if not 0 <= constant < 1 << CONSTANT_BITS:
            raise ValueError(f"{constant} does not fit {CONSTANT_BITS} bits")
        self._append(_Instruction(Op.SET, self._target(target), constant=constant))

    def add(self, target: str, a: str, b: str) -> None:
        self._calculate(Op.ADD, target, a, b)

    def sub(self, target: str, a: str, b: str) -> None:
        self._calculate(Op.SUB, target, a, b)

    def diff(self, target: str, a: str, b: str) -> None:
        self._calculate(Op.DIFF, target, a, b)

    def min(self, target: str, a: str, b: str) -> None:
        self._calculate(Op.MIN, target, a, b)

    def max(self, target: str, a: str, b: str) -> None:
        self._calculate(Op.MAX, target, a, b)

    def copy(self, target: str, a: str) -> None:
        self._calculate(Op.MAX, target, a, a)

    def mul(self, target: str, a: str, b: str, n: int = 0) -> None:
        if not 0 <= n < 32:
            raise ValueError(f"a product is shifted by 0 to 31 bits, not {n}")
        source = self._source(a), self._source(b)
        self._append(_Instruction(Op.MUL, self._target(target), *source, n))

    def div(self, target: str, a: str, b: str, c: str) -> None:
        source = self._source(a), self._source(b), self._source(c)
        self._append(_Instruction(Op.DIV, self._target(target), *source))

    def less(self, a: str, b: str, label: str) -> None:
        self._append(_Instruction(Op.LESS, 0, self._source(a), self._source(b), label=label))

    def jump(self, label: str) -> None:
        self._append(_Instruction(Op.JUMP, label=label))

    def end(self) -> None:
        self._append(_Instruction(Op.END))

    def label(self, name: str) -> None:
        if name in self.labels:
            raise ValueError(f"label {name} stands twice")
        self.labels[name] = len(self.instructions)

    def _calculate(self, op: Op, target: str, a: str, b: str) -> None:
        source = self._source(a), self._source(b)
        self._append(_Instruction(op, self._target(target), *source))

    def _append(self, instruction: _Instruction) -> None:
        self.instructions.append(instruction)

    def _source(self, name: str) -> int:
        if name in NEWS:
            return NEWS_AT[name]
        if name in self.state:
            return STATE_AT + self.state.index(name)
        if name not in self._temporaries:
            raise ValueError(f"{name} is read before it is set")
        return TEMPORARIES_AT + self._temporaries[name]

    def _target(self, name: str) -> int:
        if name in SETTINGS:
            return SETTINGS.index(name)
        if name in NEWS:
            raise ValueError(f"{name} is told by the pipeline")
        if name in self.state:
            return STATE_AT + self.state.index(name)
        number = self._temporaries.setdefault(name, len(self._temporaries))
        if number >= TEMPORARIES:
            raise ValueError(f"{name}: there are {TEMPORARIES} temporaries")
        return TEMPORARIES_AT + number

    def words(self, base: int) -> list[int]:
        """The program as it stands in memory from address ``base`` on; it ends with END."""
        words = []
        for instruction in (*self.instructions, _Instruction(Op.END)):
            word = instruction.op << OP_LOW | instruction.target << TARGET_LOW | instruction.constant
            word |= instruction.a << A_LOW | instruction.b << B_LOW | instruction.c << C_LOW
            if instruction.label:
                if instruction.label not in self.labels:
                    raise ValueError(f"there is no label {instruction.label}")
                word |= base + self.labels[instruction.label] << LABEL_LOW
            words.append(word)
        return words


@dataclass(frozen=True)
class Algorithm:
    """One congestion control algorithm.

    Attributes
    ----------
    name : str
        As TCP_CONGESTION has it.
    text : str
        The document that says what it does, for the registers' documentation.
    decrease : int
        256ths of the flight that ssthresh becomes at a loss.
    growth : int
        With which a connection begins; see SETTINGS.
    first_ack : bool
        Recovery ends with the first acknowledgement of new data (RFC 5681), not with that of all that had been sent (RFC
        6582).
    accurate : bool
        It wants to know how much of its data was marked (ECN, RFC 8257): ``decrease`` is for an acknowledgement with ECE, a loss
        halves; its ``ack`` program also runs in slow start and recovery; and what it receives is told as accurately.
    hosts : bool
        The host writes cwnd and ssthresh.
    programs : dict
        By event. What has none leaves its settings as they are. Without any the unit has nothing to do.
    complete : bool
        Also without its programs: they are left out where no other algorithm needs a unit that runs some.
    """

    name: str
    text: str
    decrease: int = HALF_LEFT
    growth: int = 0
    first_ack: bool = False
    accurate: bool = False
    hosts: bool = False
    programs: dict[str, Program] = field(default_factory=dict)
    complete: bool = False

    def __post_init__(self) -> None:
        if not HALF_LEFT <= self.decrease < 1 << DECREASE_BITS or not 0 <= self.growth <= NEVER:
            raise ValueError(f"{self.name}: decrease is {HALF_LEFT} to 255, growth 0 to {NEVER}")
        if unknown := set(self.programs) - set(EVENTS):
            raise ValueError(f"{self.name}: no such events: {unknown}")


ENTRIES = 1 << (len(EVENTS) - 1).bit_length()
"""Jumps for each number of an algorithm."""


def assemble(algorithms: Iterable[tuple[int, Algorithm]]) -> list[int]:
    """The memory of programs: first a jump for each number of an algorithm and event, then the programs, each once.

    Words that no program has are END."""
    algorithms = list(algorithms)
    end = 0
    first = (max((number for number, _ in algorithms), default=0) + 1) * ENTRIES
    jumps, words = [end] * first, list[int]()
    places: dict[int, int] = {}
    for number, algorithm in algorithms:
        for event, program in algorithm.programs.items():
            if id(program) not in places:
                places[id(program)] = first + len(words)
                words += program.words(first + len(words))
            jumps[number * ENTRIES + EVENTS.index(event)] = Op.JUMP << OP_LOW | places[id(program)] << LABEL_LOW
    if first + len(words) > 1 << LABEL_BITS:
        raise ValueError(f"the programs have {first + len(words)} words, more than {1 << LABEL_BITS}")
    return jumps + words
