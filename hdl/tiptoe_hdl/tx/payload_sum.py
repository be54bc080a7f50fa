"""One's complement sum of a payload (RFC 1071), a word a cycle."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig


class PayloadSum(wiring.Component):
    """Sums 16-bit words, each of two neighbouring lanes, the even lane first on the wire.

    The adder tree has a register a level, so has the accumulator and each of two folds.

    Timing: ``o_valid`` comes ``latency`` cycles after the payload's last word.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    valid, last : In
        A word; the payload's last word.
    data : In, data_width bits
        Lanes that are not payload must be zero.
    o_valid : Out
        ``o_sum`` counts, for this cycle only.
    o_sum : Out, 16 bits
        The sum, folded, not inverted.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        self.latency = ceil_log2(cfg.data_width // 16) + 2
        super().__init__(
            {
                "valid": In(1),
                "last": In(1),
                "data": In(cfg.data_width),
                "o_valid": Out(1),
                "o_sum": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        valid, last = self.valid, self.last

        # RFC 1071: the sum of the words with their bytes swapped is the sum with its bytes swapped.
        terms: list[Value] = [self.data.word_select(at, 16) for at in range(self._cfg.data_width // 16)]
        level = 0
        while len(terms) > 1:
            sums = []
            for at in range(0, len(terms), 2):
                term = Signal(len(terms[0]) + 1, name=f"sum{level}_{at}")
                m.d.sync += term.eq(terms[at] + terms[at + 1])
                sums.append(term)
            terms = sums
            was_valid, was_last = valid, last
            valid, last = Signal(name=f"valid{level}"), Signal(name=f"last{level}")
            m.d.sync += [valid.eq(was_valid), last.eq(was_last & was_valid)]
            level += 1

        longest = (1 << self._cfg.length_bits) - 1 + self._cfg.bytes_per_beat - 1  # with its lanes in front
        total = Signal(16 + ceil_log2(longest // 2))
        first = Signal(init=1)
        complete = Signal()
        with m.If(valid):
            m.d.sync += [
                total.eq((total & (~first).replicate(len(total))) + terms[0]),
                first.eq(last),
            ]
        m.d.sync += complete.eq(valid & last)

        once = Signal(17)
        folded = (once[:16] + once[16])[:16]
        m.d.sync += [once.eq(total[:16] + total[16:]), self.o_valid.eq(complete)]
        m.d.comb += self.o_sum.eq(Cat(folded[8:], folded[:8]))
        return m
