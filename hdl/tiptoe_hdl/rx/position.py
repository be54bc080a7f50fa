"""Where a beat stands in its frame: Ethernet II, then IPv4 (RFC 791 section 3.1) or IPv6 (RFC 8200 section 3), then TCP (RFC 9293
section 3.1).

With two pad bytes before the frame every IP and TCP field lies inside one 32-bit word: words 0 to 3 hold the Ethernet
header, word 4 is the first of the IP header, and the TCP header begins at word 4 + IHL. An IPv6 header is one of ten words.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig

IP_WORD = 4
"""The first word of the IP header."""

IPV6_WORDS = 10
"""Words of an IPv6 header."""


def fixed_words(cfg: EngineConfig) -> int:
    """Ethernet header and IP header without options."""
    return IP_WORD + (IPV6_WORDS if cfg.ipv6 else 5)


def fixed_beats(cfg: EngineConfig) -> int:
    """The beats they lie in."""
    return -(-fixed_words(cfg) * 32 // cfg.data_width)


def version_is_6(cfg: EngineConfig, padded: Value) -> Value:
    """1 bit: an IPv6 header, in a padded beat with word 4."""
    return padded_word(padded, IP_WORD % (cfg.data_width // 32))[28:] == 6


def ihl_of(cfg: EngineConfig, padded: Value) -> Value:
    """IHL, in a padded beat with word 4; of IPv6 its length in words, as if it had one."""
    ihl = padded_word(padded, IP_WORD % (cfg.data_width // 32))[24:28]
    return Mux(version_is_6(cfg, padded), IPV6_WORDS, ihl) if cfg.ipv6 else ihl


def padded_word(padded: Value, lane: int) -> Value:
    """32-bit word ``lane`` of a padded beat, first byte on the wire in the highest bits."""
    word = padded.word_select(lane, 32)
    return Cat(word.word_select(byte, 8) for byte in reversed(range(4)))


class FramePosition(wiring.Component):
    """Follows the beats of frames; all outputs describe the beat that is there now, and come from flip-flops.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` is used: a beat has ``lanes = data_width / 32`` words.

    Members
    -------
    valid, last : In(1)
        A beat is there; it ends its frame.
    ihl : In(4)
        Of word 4; looked at in the beat that holds it.
    at : Out
        One hot: bit k says that this is beat k of its frame (with words k * lanes and up), for the beats that hold
        words 0 to 8 (13 with IPv6).
    after_ip : Out(1)
        The beat with word 4 has gone by, so ``tcp_word`` is valid.
    tcp_word : Out(signed(6))
        Number of the 32-bit word in lane 0, counted from the TCP header's first; negative before it. Stops at a
        value behind the longest TCP header.
    """

    def __init__(self, cfg: EngineConfig):
        self._lanes = cfg.data_width // 32
        beats = fixed_beats(cfg)
        super().__init__({
            "valid": In(1), "last": In(1), "ihl": In(4),
            "at": Out(beats), "after_ip": Out(1), "tcp_word": Out(signed(6)),
        })  # fmt: skip

    def is_word(self, number: int) -> Value:
        """1 bit: this beat holds word ``number`` (0 to 8, or 13)."""
        return self.at[number // self._lanes]

    def is_tcp_word(self, number: int, lane: int) -> Value:
        """1 bit: ``lane`` of this beat holds word ``number`` of the TCP header."""
        return self.after_ip & (self.tcp_word == number - lane)

    def elaborate(self, platform):
        m = Module()
        # at[0] comes after reset and after each last beat, so it is kept inverted: reset state 0 means "at beat 0".
        inside = Signal()
        later = Signal(len(self.at) - 1)
        m.d.comb += self.at.eq(Cat(~inside, later))
        ip = self.is_word(IP_WORD)
        with m.If(self.valid):
            m.d.sync += inside.eq(~self.last)
            with m.If(self.last):
                m.d.sync += [later.eq(0), self.after_ip.eq(0)]
            with m.Else():
                m.d.sync += later.eq(self.at)
                with m.If(ip):
                    m.d.sync += self.after_ip.eq(1)
            with m.If(ip):
                following = (IP_WORD // self._lanes + 1) * self._lanes  # word of the next beat's lane 0
                m.d.sync += self.tcp_word.eq(following - IP_WORD - self.ihl)
            with m.Elif((self.tcp_word < 0) | ~self.tcp_word[4]):
                m.d.sync += self.tcp_word.eq(self.tcp_word + self._lanes)
        return m
