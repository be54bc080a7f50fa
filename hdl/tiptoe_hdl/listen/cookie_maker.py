"""One SYN cookie: made for a SYN, or checked for an ACK (RFC 4987 section 3.6).

``iss = irs + cookie``, and the cookie is, from the top: 5 bits of a clock of 65 seconds, 3 bits that stand for the peer's MSS,
24 bits of HalfSipHash-2-4 over foreign address, IRS (with the local port), foreign port, MSS bits and 13 bits of the clock. The
local address is the engine's only one. Without IRS the difference of both numbers would be all: where as much was sent as
received, the last ACK of a connection that has ended (a FIN came twice) would look like a cookie's, and make another one.

What the SYN says besides is agreed upon only with timestamps (RFC 7323), since only TSval has room for it: its lowest bits come
back as TSecr of the ACK (``StampOptions``). No hash protects them. Who returns a cookie and lies there has options that it did
not ask for, of its own connection: a scale by which its windows are taken for something else, blocks, marks.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import ETHERNET_FRAME_BYTES, EngineConfig
from ..messages import ACK, ECE, SYN, FourTuple, StampOptions, listen_write, peer_fields, tx_control
from ..wire.choice import select
from ..wire.headers import ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, TCP_BYTES
from .handshake import syn_request
from .jobs import DEFAULT_MSS


def cookie_mss(cfg: EngineConfig) -> tuple[int, ...]:
    """The largest one that is not above the peer's is remembered. The first one is the least that any connection sends: a peer
    that says less gets no more than from a SYN that found room. The last ones, with frames beyond Ethernet's, are those of
    our longest frame over IPv6 and IPv4."""
    if cfg.max_frame_bytes == ETHERNET_FRAME_BYTES:
        return (48, 256, 536, 1200, 1300, 1400, 1440, 1460)
    longest = cfg.max_frame_bytes - ETHERNET_BYTES - IPV4_BYTES - TCP_BYTES
    return tuple(sorted((48, 536, 1200, 1300, 1440, 1460, longest + IPV4_BYTES - IPV6_BYTES, longest)))


TIME_BITS = 13
"""Of the clock, in the hash: what three words leave beside the rest. All messages have one length, and need not say it."""
ROUNDS = 10
"""2 for each of three words, 4 at the end."""

Cookie = data.StructLayout({"mac": 24, "mss": 3, "time": 5})

NO_SCALE = 15
"""In StampOptions: more than a scale may be (RFC 7323 section 2.3)."""

Offers = data.StructLayout({"sack": 1, "ecn": 1, "timestamps": 1})
"""What we agree to if the SYN offers it."""

Question = data.StructLayout({"tuple": FourTuple, "cookie": Cookie, "seq": 32})
"""Is this cookie one of ours? It is SEG.ACK - SEG.SEQ of the handshake's ACK, whose SEG.SEQ is IRS + 1."""


def options_of(stamp):
    """What a cookie's TSval, or its echo, says: StampOptions, and whether there is a scale."""
    said = data.View(StampOptions, stamp[: StampOptions.size])
    return said, said.ws != NO_SCALE


class MssBits(wiring.Component):
    """The bits that stand for a SYN's MSS (``cookie_mss``), two cycles later.

    Ports
    -----
    mss : In(16)
        As the SYN says it; 0: it does not.
    o : Out(3)
    """

    def __init__(self, cfg: EngineConfig):
        self._all = cookie_mss(cfg)
        super().__init__({"mss": In(16), "o": Out(3)})

    def elaborate(self, platform):
        m = Module()
        said = Mux(self.mss.any(), self.mss, DEFAULT_MSS)
        at_least = Signal(len(self._all) - 1)
        m.d.sync += [at_least.eq(Cat(said >= least for least in self._all[1:])), self.o.eq(sum(at_least, Const(0, 3)))]
        return m


class CookieMaker(wiring.Component):
    """HalfSipHash (Aumasson, Bernstein) with two adders. Nothing here waits for the line: without room no SYN,ACK is made.

    A round has two halves of the same form once v0 and v2 change places between them: two additions, each followed by an
    exclusive or with a rotated word. A half takes a cycle.

    Timing: 22 cycles for an answer, and up to nine until the SYN,ACK has left.

    Ports
    -----
    key : In(64); time : In(16); offers : In(Offers)
    make : In(stream of syn_request)
        A SYN; ``entry`` is what its listener says, ``mss`` its :class:`MssBits`, both two cycles later.
    entry : In(listen_write); mss : In(3)
    ask : In(stream of Question)
        Goes before ``make``. Its clock is the present one or the one before: the asker has looked.
    answered, good : Out(1)
        Pulse: the question's cookie is ours.
    control : Out(stream of TxControl); room : In(1)
    sent : Out(1)
        Pulse: a SYN,ACK left.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "key": In(64), "time": In(16), "offers": In(Offers),
            "make": In(stream.Signature(syn_request(cfg))), "entry": In(listen_write(cfg)), "mss": In(3),
            "ask": In(stream.Signature(Question)), "answered": Out(1), "good": Out(1),
            "control": Out(stream.Signature(tx_control(cfg))), "room": In(1), "sent": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        # v0, v1, v2, v3 before the first half of a round; a and c are swapped before the second.
        a, b, c, d = (Signal(32, name=f"v_{name}", reset_less=True) for name in "abcd")
        words = [Signal(32, name=f"word{number}", reset_less=True) for number in range(3)]
        step = Signal(2 * ROUNDS)  # a one that moves, half a round at a time
        second = Signal()
        asking, wanted = Signal(), Signal(24, reset_less=True)
        out = self.control.payload
        syn, question = self.make.payload, self.ask.payload
        ts_ok = syn.ts_present & self.offers.timestamps
        sack_ok, ecn_ok = syn.sack_ok & self.offers.sack & ts_ok, syn.ecn_ok & self.offers.ecn & ts_ok

        # The clock and MSS that go into it.
        time = Signal(16)
        m.d.comb += time.eq(self.time)
        with m.If(self.ask.valid):
            m.d.comb += time.eq(Mux(question.cookie.time == self.time[:5], self.time, self.time - 1))
        tuple_ = data.View(FourTuple, Mux(self.ask.valid, question.tuple.as_value(), syn.tuple.as_value()))
        first = tuple_.faddr

        # A word goes into v3 before its two rounds and into v0 behind them: what goes in after this half is ready before it.
        into_v0, into_v3, ending = Signal(32, reset_less=True), Signal(32, reset_less=True), Signal()
        ends = [step[4 * (number + 1) - 2] for number in range(len(words))]
        m.d.sync += [
            into_v0.eq(select(ends, words)),
            into_v3.eq(select(ends[:-1], words[1:])),
            ending.eq(ends[-1]),
        ]
        ab, cd = Signal(32), Signal(32)
        m.d.comb += [ab.eq(a + b), cd.eq(c + d)]
        half = (
            cd ^ into_v0,
            Mux(second, b.rotate_left(13), b.rotate_left(5)) ^ ab,
            ab.rotate_left(16) ^ Mux(ending, 0xFF, 0),
            Mux(second, d.rotate_left(7), d.rotate_left(8)) ^ cd ^ into_v3,
        )
        mac = Signal(24)
        m.d.comb += mac.eq((b ^ d)[:24])
        k0, k1 = self.key[:32], self.key[32:]
        m.d.sync += [self.answered.eq(0), self.sent.eq(0)]
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.ask.ready.eq(1), self.make.ready.eq(~self.ask.valid)]
                m.d.sync += [
                    asking.eq(self.ask.valid), wanted.eq(question.cookie.mac), step.eq(1), second.eq(0),
                    words[0].eq(first),
                    words[1].eq(Mux(self.ask.valid, question.seq, 0) ^ Cat(Const(0, 16), tuple_.lport)),
                    words[2].eq(Cat(tuple_.fport, question.cookie.mss, time[:TIME_BITS])),
                    a.eq(k0), b.eq(k1), c.eq(k0 ^ 0x6C796765), d.eq(k1 ^ 0x74656462 ^ first),
                    out.tuple.eq(syn.tuple), out.dmac.eq(syn.smac), out.seq.eq(syn.seq), out.ack.eq(syn.seq + 1),
                    out.flags.eq(1 << SYN | 1 << ACK | ecn_ok << ECE),
                    out.ws_present.eq(syn.ws_present & ts_ok), out.sack_ok.eq(sack_ok),
                    out.ts_ok.eq(ts_ok), out.tsecr.eq(syn.tsval), out.says_options.eq(1),
                    out.options.ws.eq(Mux(syn.ws_present, syn.ws, NO_SCALE)),
                    out.options.sack_ok.eq(sack_ok), out.options.ecn_ok.eq(ecn_ok),
                    *(out[name].eq(syn[name]) for name in peer_fields(self._cfg)),
                ]  # fmt: skip
                with m.If(self.ask.valid | self.make.valid):
                    m.next = "Round"
            with m.State("Round"):
                m.d.sync += [step.eq(step << 1), second.eq(~second)]
                m.d.sync += [old.eq(new) for old, new in zip((a, b, c, d), half, strict=True)]
                with m.If(step[1] & ~asking):
                    m.d.sync += [words[1].eq(words[1] ^ out.ack), words[2][16:19].eq(self.mss)]
                with m.If(step[3]):
                    m.d.sync += [
                        out.mss.eq(self.entry.mss),
                        out.wnd.eq(self.entry.wnd),
                        out.ws.eq(self.entry.rcv_scale),
                    ]
                with m.If(step[-1]):
                    m.next = "Number"
            with m.State("Number"):
                m.d.sync += [
                    out.seq.eq(out.seq + Cat(mac, words[2][16:19], words[2][19:24])),
                    self.answered.eq(asking), self.good.eq(mac == wanted),
                ]  # fmt: skip
                with m.If(asking | ~self.room):
                    m.next = "Idle"
                with m.Else():
                    m.next = "Send"
            with m.State("Send"):
                m.d.comb += self.control.valid.eq(1)
                m.d.sync += self.sent.eq(self.control.ready)
                with m.If(self.control.ready):
                    m.next = "Idle"
        return m
