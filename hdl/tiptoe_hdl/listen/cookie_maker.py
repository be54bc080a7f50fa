"""One SYN cookie: made for a SYN, or checked for an ACK (RFC 4987 section 3.6).

``iss = irs + cookie``, and the cookie is, from the top: 5 bits of a clock of 65 seconds, 3 bits that stand for the peer's MSS,
24 bits of HalfSipHash-2-4 over foreign address, ports, the clock (16 bits) and the MSS bits. The local address is the engine's
only one.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import ACK, SYN, FourTuple, TxControl, listen_write
from .handshake import syn_request
from .jobs import DEFAULT_MSS

MSS = (64, 256, 536, 1200, 1300, 1400, 1440, 1460)
"""The largest one that is not above the peer's is remembered."""
MESSAGE_BYTES = 11
ROUNDS = 10  # 2 for each of three words, 4 at the end

Cookie = data.StructLayout({"mac": 24, "mss": 3, "time": 5})

Question = data.StructLayout({"tuple": FourTuple, "cookie": Cookie})
"""Is this cookie one of ours? It is SEG.ACK - SEG.SEQ of the handshake's ACK."""


class CookieMaker(wiring.Component):
    """HalfSipHash (Aumasson, Bernstein), a round a cycle. Nothing here waits for the line: without room no SYN,ACK is made.

    Timing: 12 cycles for an answer, and up to four until the SYN,ACK has left.

    Ports
    -----
    key : In(64); time : In(16)
    make : In(stream of syn_request)
        A SYN; ``entry`` is what its listener says, two cycles later.
    entry : In(listen_write)
    ask : In(stream of Question)
        Goes before ``make``. Its clock is the present one or the one before: the asker has looked.
    answered, good : Out(1)
        Pulse: the question's cookie is ours.
    control : Out(stream of TxControl); room : In(1)
    sent : Out(1)
        Pulse: a SYN,ACK left.
    """

    def __init__(self, cfg: EngineConfig):
        super().__init__({
            "key": In(64), "time": In(16),
            "make": In(stream.Signature(syn_request(cfg))), "entry": In(listen_write(cfg)),
            "ask": In(stream.Signature(Question)), "answered": Out(1), "good": Out(1),
            "control": Out(stream.Signature(TxControl)), "room": In(1), "sent": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        v = [Signal(32, name=f"v{number}") for number in range(4)]
        words = [Signal(32, name=f"word{number}") for number in range(3)]
        step = Signal(ROUNDS + 1)  # a one that moves
        asking, wanted = Signal(), Signal(24)
        out = self.control.payload
        syn, question = self.make.payload, self.ask.payload

        # The clock and MSS that go into it.
        time, mss, of_syn = Signal(16), Signal(3), Signal(16)
        m.d.comb += [
            of_syn.eq(Mux(syn.mss.any(), syn.mss, DEFAULT_MSS)),
            mss.eq(sum((of_syn >= least for least in MSS[1:]), Const(0, 3))),
            time.eq(self.time),
        ]
        with m.If(self.ask.valid):
            m.d.comb += [
                mss.eq(question.cookie.mss),
                time.eq(Mux(question.cookie.time == self.time[:5], self.time, self.time - 1)),
            ]
        tuple_ = data.View(FourTuple, Mux(self.ask.valid, question.tuple.as_value(), syn.tuple.as_value()))
        first = tuple_.faddr

        rounded = sip_round(v)
        last = Cat(step[1], step[3], step[5])  # last rounds of the words
        news = list(rounded)
        for number, here in enumerate(last):
            news[0] = news[0] ^ Mux(here, words[number], 0)
            news[3] = news[3] ^ (Mux(here, words[number + 1], 0) if number < 2 else 0)
        news[2] = news[2] ^ Mux(last[2], 0xFF, 0)
        mac = Signal(24)
        m.d.comb += mac.eq((v[1] ^ v[3])[:24])
        k0, k1 = self.key[:32], self.key[32:]
        m.d.sync += [self.answered.eq(0), self.sent.eq(0)]
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.ask.ready.eq(1), self.make.ready.eq(~self.ask.valid)]
                m.d.sync += [
                    asking.eq(self.ask.valid), wanted.eq(question.cookie.mac), step.eq(1),
                    words[0].eq(first), words[1].eq(Cat(tuple_.fport, tuple_.lport)),
                    words[2].eq(Cat(time, mss, Const(0, 5), Const(MESSAGE_BYTES, 8))),
                    v[0].eq(k0), v[1].eq(k1), v[2].eq(k0 ^ 0x6C796765), v[3].eq(k1 ^ 0x74656462 ^ first),
                    out.tuple.eq(syn.tuple), out.dmac.eq(syn.smac), out.seq.eq(syn.seq), out.ack.eq(syn.seq + 1),
                    out.flags.eq(1 << SYN | 1 << ACK),
                ]  # fmt: skip
                with m.If(self.ask.valid | self.make.valid):
                    m.next = "Round"
            with m.State("Round"):
                m.d.sync += [step.eq(step << 1), *(old.eq(new) for old, new in zip(v, news, strict=True))]
                with m.If(step[3]):
                    m.d.sync += [out.mss.eq(self.entry.mss), out.wnd.eq(self.entry.wnd)]
                with m.If(step[ROUNDS - 1]):
                    m.next = "Number"
            with m.State("Number"):
                m.d.sync += [
                    out.seq.eq(out.seq + Cat(mac, words[2][16:19], words[2][:5])),
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


def sip_round(v):
    """A round of HalfSipHash on four words of 32 bits."""
    a, b, c, d = v
    a = (a + b)[:32]
    b = b.rotate_left(5) ^ a
    a = a.rotate_left(16)
    c = (c + d)[:32]
    d = d.rotate_left(8) ^ c
    a = (a + d)[:32]
    d = d.rotate_left(7) ^ a
    c = (c + b)[:32]
    b = b.rotate_left(13) ^ c
    return a, b, c.rotate_left(16), d
