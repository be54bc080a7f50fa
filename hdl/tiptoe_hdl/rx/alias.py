"""What stands for an IPv6 peer inside the engine: a keyed fold of its address into 32 bits, in the place of an IPv4 address.

With the address as four words a0 to a3, first on the wire first, and a key word k for each of the first three,
``faddr = a0 * k0 + a1 * k1 + a2 * k2 + a3``: ``+`` is exclusive or, and bit j of ``a * k`` is the inner product over GF(2) of a
with bits j to j + 31 of the sequence that begins with k and goes on by the irreducible polynomial
``X**32 + X**7 + X**3 + X**2 + 1``. For any a but 0 this is one to one in k. So two addresses that differ in one of the first
three words have the same faddr with a probability of 2**-32 over the key, whoever chose them, and two that differ in the last
word only never have.
"""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import SYN, is_v6, rx_meta

BITS = 32
TAPS = (0, 2, 3, 7)
KEYS = 3
"""Key words."""

DEFAULT_MSS = 1220
"""Of a peer that gives no MSS option (RFC 9293 section 3.7.1)."""


def key_sequence(m: Module, key: Value) -> Signal:
    """The first bits of a key's sequence: as many as a product takes."""
    sequence = Signal(2 * BITS - 1)
    m.d.comb += sequence[:BITS].eq(key)
    for bit in range(BITS, len(sequence)):
        m.d.comb += sequence[bit].eq(Cat(sequence[bit - BITS + tap] for tap in TAPS).xor())
    return sequence


class PeerAlias(wiring.Component):
    """Puts ``faddr`` into reports over IPv6, and the MSS that a SYN without that option means; others pass. A register as a
    HalfBuffer has it, and in its place: what is not IPv6 takes no longer.

    Timing: latency one cycle, a report every second cycle; of IPv6 five cycles more.

    Members
    -------
    key : In(96)
        k0 in the lowest bits. Constant while there are connections.
    i, o : stream of ``rx_meta(cfg)``
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        shape = rx_meta(cfg)
        super().__init__({
            "key": In(KEYS * BITS), "i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        held = Signal(rx_meta(self._cfg), reset_less=True)  # full tells whether it counts
        full, known, ready = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(ready), self.o.payload.eq(held), self.o.valid.eq(known),
        ]  # fmt: skip
        step = Signal(range(KEYS + 2))
        word, key, product = Signal(BITS), Signal(BITS), Signal(BITS)
        sequence = key_sequence(m, key)
        words = Array(held.faddr6[96 - 32 * number :][:32] for number in range(4))
        keys = Array(self.key.word_select(number, BITS) for number in range(KEYS))
        m.d.sync += [
            word.eq(words[step[:2]]), key.eq(keys[step[:2]]),
            product.eq(Cat((word & sequence[bit : bit + BITS]).xor() for bit in range(BITS))),
        ]  # fmt: skip
        incoming = self.i.payload
        with m.If(~full):
            taken = self.i.valid & ready
            long = is_v6(incoming.tuple) & ~incoming.to_host
            m.d.sync += [
                full.eq(taken), ready.eq(~taken), known.eq(taken & ~long), step.eq(0), held.eq(incoming),
            ]  # fmt: skip
            with m.If(long):
                m.d.sync += [
                    held.tuple.faddr.eq(incoming.faddr6[:BITS]),
                    held.mss.eq(Mux(incoming.flags[SYN] & ~incoming.mss.any(), DEFAULT_MSS, incoming.mss)),
                ]
        with m.Elif(known):
            with m.If(self.o.ready):
                m.d.sync += [full.eq(0), known.eq(0), ready.eq(1)]
        with m.Else():
            m.d.sync += [step.eq(step + 1), known.eq(step == KEYS + 1)]
            with m.If(step >= 2):
                m.d.sync += held.tuple.faddr.eq(held.tuple.faddr ^ product)
        return m


def alias(address: int, key: int) -> int:
    """faddr of an IPv6 address, both as numbers; ``key`` as register ALIAS_KEY has it, word 0 lowest."""
    words = [address >> shift & 0xFFFF_FFFF for shift in (96, 64, 32, 0)]
    folded = words[3]
    for number in range(KEYS):
        sequence = key >> BITS * number & 0xFFFF_FFFF
        for bit in range(BITS, 2 * BITS - 1):
            sequence |= (sum(sequence >> bit - BITS + tap for tap in TAPS) & 1) << bit
        folded ^= sum(((words[number] & sequence >> bit).bit_count() & 1) << bit for bit in range(BITS))
    return folded
