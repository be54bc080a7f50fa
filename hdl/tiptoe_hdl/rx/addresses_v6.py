"""Addresses of received IPv6 packets (RFC 8200 section 3, RFC 4291 sections 2.5 and 2.7): are they ours, and can a host have sent
from there?"""

from amaranth.hdl import Cat, Module, Signal, Value

from .position import IP_WORD


class AddressesV6:
    """What the addresses of an IPv6 header say, complete after the last beat.

    ``source``: a host may send from there: neither multicast nor unspecified nor loopback nor an IPv4 address (RFC 4291 sections
    2.5.2, 2.5.3, 2.5.5, 2.7: all of ::/96 and ::ffff:0:0/96), nor our own. ``destination``: our own, if there is one.
    """

    def __init__(self, m: Module, at_word, word, own: Value):
        words = [own[96 - 32 * number :][:32] for number in range(4)]
        group = Signal(name="group_v6")
        zero = [Signal(name=f"zero_v6_{number}") for number in range(3)]
        mapped = Signal(name="mapped_v6")
        source = [Signal(name=f"source_v6_{number}") for number in range(4)]
        destination = [Signal(name=f"destination_v6_{number}") for number in range(4)]
        for number in range(4):
            at = IP_WORD + 2 + number
            with at_word(at):
                m.d.sync += source[number].eq(word(at) == words[number])
                if number == 0:
                    m.d.sync += group.eq(word(at)[24:].all())
                if number == 2:
                    m.d.sync += mapped.eq(word(at) == 0xFFFF)
                if number < 3:
                    m.d.sync += zero[number].eq(word(at) == 0)
            at = IP_WORD + 6 + number
            with at_word(at):
                m.d.sync += destination[number].eq(word(at) == words[number])
        exists = Signal(name="own_v6")
        m.d.sync += exists.eq(own.any())
        nobody = zero[0] & zero[1] & (mapped | zero[2])
        self.source = ~(group | nobody | Cat(source).all())
        self.destination = Cat(destination).all() & exists
