"""The option words of a frame, one behind the other, out of the store that keeps them (RFC 9293 section 3.1)."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from .position import padded_word


class OptionWords(wiring.Component):
    """Reads as many words as the command says, one a cycle, without stalls.

    Timing: the first word comes four cycles after the command is taken; ``valid``, ``last`` and ``word`` come from
    flip-flops. The next command is taken when no word is under way: a cycle behind the last one, three behind ``stop``.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` is used.
    command_shape, rows : the command, ``{lane, words}`` (1 to 10 words); rows of a slot.

    Members
    -------
    command : In stream
        The first word is in ``lane`` of the slot's first row.
    row : Out, data : In(data_width)
        Read side of ``OptionStore``: ``data`` two cycles after ``row``.
    stop : In(1)
        No further words are asked for; those under way still come.
    valid, last : Out(1), word : Out(32)
        First byte highest.
    """

    def __init__(self, cfg: EngineConfig, command_shape, rows: int):
        self._cfg = cfg
        super().__init__({
            "command": In(stream.Signature(command_shape)),
            "row": Out(ceil_log2(rows)), "data": In(cfg.data_width),
            "stop": In(1), "valid": Out(1), "last": Out(1), "word": Out(32),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        lanes = self._cfg.data_width // 32
        lane_bits = ceil_log2(lanes)
        at = Signal(lane_bits + len(self.row))  # word of the slot
        to_read = Signal(4)
        asks = Signal()
        valid, last = Signal(2), Signal(2)
        m.d.comb += [
            self.row.eq(at[lane_bits:]),
            self.command.ready.eq(~asks & ~valid.any() & ~self.valid),
        ]
        m.d.sync += [
            at.eq(at + 1),
            to_read.eq(to_read - 1),
            valid.eq(Cat(asks, valid)),
            last.eq(Cat(to_read == 1, last)),
            self.valid.eq(valid[-1]),
            self.last.eq(last[-1]),
        ]
        with m.If(self.stop | (to_read == 1)):
            m.d.sync += asks.eq(0)
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += [
                at.eq(self.command.payload.lane),
                to_read.eq(self.command.payload.words),
                asks.eq(1),
            ]
        lane = at[:lane_bits]
        for stage in range(2):
            later = Signal(lane_bits, name=f"lane{stage}")
            m.d.sync += later.eq(lane)
            lane = later
        words = Cat(padded_word(self.data, number) for number in range(lanes))
        m.d.sync += self.word.eq(words.word_select(lane, 32))
        return m
