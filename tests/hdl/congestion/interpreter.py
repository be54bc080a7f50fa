"""What the instructions of a congestion control program do, in Python: the other reading of ``congestion/program.py``."""

from tiptoe_hdl.congestion.program import (
    EVENTS,
    LABEL_BITS,
    MOST_STEPS,
    NEWS,
    NEWS_AT,
    SETTINGS,
    STATE_WORDS,
    Algorithm,
    Op,
    assemble,
)

MOST = 2**32 - 1


class Interpreter:
    """One connection under an algorithm; ``state`` lives from one event to the next."""

    def __init__(self, algorithm: Algorithm):
        self.algorithm = algorithm
        self.words = assemble([(0, algorithm)])
        self.state = [0] * STATE_WORDS
        self.steps = 0

    def run(self, event: str, **news: int) -> dict[str, int]:
        """What the event's program wrote; ``news`` has all of NEWS, ``marked`` if there is any."""
        news.setdefault("marked", 0)
        assert set(news) == set(NEWS)
        values = [0] * 8 + self.state + [None] * 16
        for name, at in NEWS_AT.items():
            values[at] = news[name]
        settings = {"growth": 0, "decrease": self.algorithm.decrease, "slow": 0}
        at = EVENTS.index(event)
        for self.steps in range(MOST_STEPS):
            word = self.words[at]
            at += 1
            op, target = Op(word >> 28), word >> 23 & 31
            a, b, c = (values[word >> low & 31] for low in (18, 13, 8))
            if op == Op.END:
                self.state = values[8:16]
                return settings
            if op == Op.JUMP or (op == Op.LESS and a < b):
                at = word & (1 << LABEL_BITS) - 1
            if op in (Op.JUMP, Op.LESS):
                continue
            result = _result(op, a, b, c, word)
            if target < 8:
                settings[SETTINGS[target]] = result
            else:
                values[target] = result
        raise AssertionError("the program does not end")


def _result(op: Op, a: int, b: int, c: int, word: int) -> int:
    match op:
        case Op.SET:
            return word & 0x7FFFFF
        case Op.ADD:
            return min(a + b, MOST)
        case Op.SUB:
            return max(a - b, 0)
        case Op.DIFF:
            return a - b & MOST
        case Op.MIN:
            return min(a, b)
        case Op.MAX:
            return max(a, b)
        case Op.MUL:
            return min(a * b >> (word >> 8 & 31), MOST)
        case Op.DIV:
            return min(a * b // c, MOST) if c else MOST
    raise AssertionError(op)
