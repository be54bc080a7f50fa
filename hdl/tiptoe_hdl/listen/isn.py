"""Initial send sequence numbers: RFC 6528, with SipHash-2-4 as the keyed function F.

``iss = M + F(four-tuple, key)``: M is a clock of 4 us units, F the low 32 bits of SipHash-2-4 (Aumasson, Bernstein)
over the 12 bytes of the packed FourTuple, lowest byte first.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FourTuple

INITIAL = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
MESSAGE_BYTES = 12
FINISH = 0xFF
ROUNDS = 8
"""2 for each of the two message words, 4 at the end."""


class IsnGenerator(wiring.Component):
    """One number in about 36 cycles, with two 64-bit adders whose carry is registered in the middle.

    A SipHash round has two halves of the same form once v0 and v2 change places between them: two additions, each
    followed by an exclusive or with a rotated word. A half takes two cycles: in the first the carry out of the low
    words settles in a flip-flop, in the second the sums are stored.

    Members
    -------
    isn_key : In(128)
        Secret; the first byte of SipHash's key in bits 7:0.
    isn_clock : In(32)
        M: counts units of 4 microseconds.
    request : In array of 2 streams of FourTuple
        0: command processor, 1: listen unit.
    iss : Out array of 2 streams of 32 bits, one a request
    """

    def __init__(self, cfg: EngineConfig):
        super().__init__(
            {
                "isn_key": In(128),
                "isn_clock": In(32),
                "request": In(stream.Signature(FourTuple)).array(2),
                "iss": Out(stream.Signature(32)).array(2),
            }
        )

    def elaborate(self, platform):
        m = Module()
        client = Signal()
        message = Signal(FourTuple, reset_less=True)
        words = message.as_value()
        low = Signal(64)
        high = Signal(64)
        m.d.comb += [low.eq(words[:64]), high.eq(Cat(words[64:], Const(MESSAGE_BYTES << 24, 32)))]

        # a, b, c, d are v0, v1, v2, v3 before the first half of a round; a and c are swapped before the second.
        a, b, c, d = (Signal(64, name=name, reset_less=True) for name in "abcd")
        second = Signal()  # half of the round
        # What happens to them in this cycle, from flip-flops: they are many.
        loading = Signal()  # starting or settled
        starting = Signal()
        settled = Signal()  # second cycle of a half
        absorbing = Signal()  # between two message words
        round_ = Signal(range(ROUNDS))
        ab, cd = _split_add(m, a, b, "ab"), _split_add(m, c, d, "cd")

        folded = Signal(32, reset_less=True)
        m.d.sync += folded.eq((a ^ b ^ c ^ d)[:32])
        answer = Signal(32, reset_less=True)

        wanted = Cat(self.request[number].valid & ~self.iss[number].valid for number in range(2))
        for number in range(2):
            with m.If(self.iss[number].ready):
                m.d.sync += self.iss[number].valid.eq(0)

        key = self.isn_key
        with m.If(loading):
            rotated_b = Mux(second, b.rotate_left(17), b.rotate_left(13))
            rotated_d = Mux(second, d.rotate_left(21), d.rotate_left(16))
            m.d.sync += [
                a.eq(Mux(starting, key[:64] ^ INITIAL[0], cd)),
                b.eq(Mux(starting, key[64:] ^ INITIAL[1], rotated_b ^ ab)),
                c.eq(Mux(starting, key[:64] ^ INITIAL[2], ab.rotate_left(32))),
                d.eq(Mux(starting, key[64:] ^ INITIAL[3] ^ low, rotated_d ^ cd)),
                second.eq(~second & ~starting),
            ]
        with m.If(absorbing):
            # After the rounds of one message word: finish it, begin with the next one or the last rounds.
            with m.If(round_[2]):
                m.d.sync += [a.eq(a ^ high), c.eq(c ^ FINISH)]
            with m.Else():
                m.d.sync += [a.eq(a ^ low), d.eq(d ^ high)]
        with m.FSM():
            with m.State("Idle"):
                # In turn if both ask: in this state the one just served has its answer yet to be taken.
                m.d.sync += client.eq(wanted[1])
                with m.If(wanted.any()):
                    m.next = "Take"
            with m.State("Take"):
                with m.Switch(client):
                    for number in range(2):
                        with m.Case(number):
                            m.d.comb += self.request[number].ready.eq(1)
                            m.d.sync += message.eq(self.request[number].payload)
                m.d.sync += [loading.eq(1), starting.eq(1)]
                m.next = "Start"
            with m.State("Start"):
                m.d.sync += [loading.eq(0), starting.eq(0), round_.eq(0)]
                m.next = "Rounds"
            with m.State("Rounds"):
                m.d.sync += [loading.eq(~settled), settled.eq(~settled)]
                with m.If(settled & second):
                    m.d.sync += round_.eq(round_ + 1)
                    with m.Switch(round_):
                        with m.Case(1, 3):
                            m.d.sync += absorbing.eq(1)
                            m.next = "Word"
                        with m.Case(ROUNDS - 1):
                            m.next = "Fold"
            with m.State("Word"):
                m.d.sync += absorbing.eq(0)
                m.next = "Rounds"
            with m.State("Fold"):
                m.next = "Add"
            with m.State("Add"):
                m.d.sync += answer.eq(folded + self.isn_clock)
                m.next = "Answer"
            with m.State("Answer"):
                with m.Switch(client):
                    for number in range(2):
                        with m.Case(number):
                            m.d.sync += [self.iss[number].valid.eq(1), self.iss[number].payload.eq(answer)]
                m.next = "Idle"
        return m


def _split_add(m, x, y, name):
    """x + y modulo 2**64, true from the second cycle in which x and y are unchanged."""
    carry = Signal(name=f"carry_{name}")
    total = Signal(33, name=f"low_{name}")
    m.d.comb += total.eq(x[:32] + y[:32])
    m.d.sync += carry.eq(total[32])
    return Cat(total[:32], (x[32:] + y[32:] + carry)[:32])
