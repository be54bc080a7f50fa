"""A keyed hash of four-tuples: a Toeplitz hash whose key sequence is a linear recurrence (LFSR-based Toeplitz hashing).

Bit j of the hash is the inner product over GF(2) of 64 tuple bits x with 64 bits of the key sequence K:
``h[j] = xor over i of x[i] & K[i + j]``, where K[0..63] is the key and K continues by the irreducible polynomial
``X**64 + X**4 + X**3 + X + 1``. For two tuples that differ in x, all hash bits (up to 64) are independent and
uniform over a random key: they collide with probability 2**-bits, whoever chose them. The AND-XOR of two tuple
bits fits one four-input look-up table, and there is no carry.

x is faddr, fport and lport, with laddr folded into lport: local address and port are not the attacker's choice.
"""

from amaranth.hdl import Cat, Module, Signal, Value

X_BITS = 64
TAPS = (0, 1, 3, 4)
WHITENING = 0x9E3779B97F4A7C15
"""Added to the key, so that the register's reset value 0 is a key like any other."""

GROUP = 8
"""Tuple bits whose products are summed before the register stage."""


def folded(tuple_) -> Value:
    """The 64 bits x of a four-tuple. The low half of laddr enters in reversed order: neighbouring addresses and
    neighbouring ports then differ in different bits."""
    return Cat(tuple_.faddr, tuple_.fport, tuple_.lport ^ tuple_.laddr[16:] ^ tuple_.laddr[:16][::-1])


def key_sequence(m: Module, key: Value, length: int) -> Signal:
    """The first ``length`` bits of K; combinational, a matter of the register block's slow paths."""
    sequence = Signal(max(length, X_BITS))
    m.d.comb += sequence[:X_BITS].eq(key ^ WHITENING)
    for bit in range(X_BITS, length):
        m.d.comb += sequence[bit].eq(Cat(sequence[bit - X_BITS + tap] for tap in TAPS).xor())
    return sequence


def partial_sums(x: Signal, sequence: Signal, bits: int) -> Value:
    """First stage: for each of ``bits`` hash bits the X_BITS/GROUP sums of GROUP products."""
    return Cat(
        (x[at : at + GROUP] & sequence[j + at : j + at + GROUP]).xor()
        for j in range(bits)
        for at in range(0, X_BITS, GROUP)
    )


def final_sums(partial: Signal) -> Value:
    """Second stage: the hash bits."""
    groups = X_BITS // GROUP
    return Cat(partial[at : at + groups].xor() for at in range(0, len(partial), groups))
