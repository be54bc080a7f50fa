"""Two stations on one MAC (IEEE 802.3): the engine, and a neighbour with a MAC address of its own."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..wire.axi_stream import AxiStreamSignature
from ..wire.half_buffer import HalfBuffer
from .frame_queue import FrameQueue
from .mac_engine import QUEUE_WORDS, from_axis, to_axis


class MacShare(wiring.Component):
    """Hands every frame of the MAC to the engine, those for ``address`` and for everybody to the neighbour too, and lets the two
    take turns in sending, a frame at a time.

    The neighbour may be slow: its frames wait in a queue that takes out as a whole what finds no room, and what it sends is
    stored until it is whole. The engine's port has no queue: :class:`~tiptoe_hdl.mac.mac_engine.MacEngine` has its own.

    Timing: the engine's received beats pass in the same cycle; a frame to send is granted the MAC a cycle before its first beat.
    The neighbour's ports come from flip-flops and take or give a beat every other cycle: of a stack like LiteEth's, whose
    ``tready`` of what it receives follows that of what it sends, the path ends there.
    Why a wait for the MAC ends: a frame that has been granted it comes without a gap, since it is whole, and after it the other
    station's turn comes first.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` (64 bits or more: the address is in the first beat) and ``max_frame_bytes``.
    words : int
        Beats of each of the neighbour's queues.

    Members
    -------
    mac_rx : In AXI4-Stream with TUSER, ``tready`` always high
    mac_tx : Out AXI4-Stream
    engine_rx : Out AXI4-Stream with TUSER; its ``tready`` is not looked at
    engine_tx : In AXI4-Stream of whole frames
    host_rx : Out AXI4-Stream, ``host_tx`` : In AXI4-Stream
        The neighbour's.
    address : In(48)
        The neighbour's MAC address, its first byte in the highest bits.
    host_dropped : Out(32)
        Frames for the neighbour that found no room, modulo 2**32.
    """

    def __init__(self, cfg: EngineConfig, words: int = QUEUE_WORDS):
        if cfg.data_width < 64:
            raise ValueError("two stations on one MAC need a data_width of 64 bits or more")
        self._cfg, self._words = cfg, words
        plain = AxiStreamSignature(cfg.data_width)
        marked = AxiStreamSignature(cfg.data_width, user_width=1)
        super().__init__(
            {
                "mac_rx": In(marked),
                "mac_tx": Out(plain),
                "engine_rx": Out(marked),
                "engine_tx": In(plain),
                "host_rx": Out(plain),
                "host_tx": In(plain),
                "address": In(48),
                "host_dropped": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.rx_queue = received = FrameQueue(self._cfg, self._words, lossy=True)
        m.submodules.tx_queue = to_send = FrameQueue(self._cfg, self._words, lossy=False)
        rx, engine = self.mac_rx, self.engine_rx
        m.d.comb += [
            rx.tready.eq(1),
            *(getattr(engine, name).eq(getattr(rx, name)) for name in ("tvalid", "tdata", "tkeep", "tlast", "tuser")),
        ]

        first = Signal(init=1)
        ours, held = Signal(), Signal()
        target = Cat(rx.tdata[8 * byte : 8 * byte + 8] for byte in reversed(range(6)))
        m.d.comb += ours.eq(Mux(first, (target == self.address) | target.all(), held))
        with m.If(rx.tvalid):
            m.d.sync += [first.eq(rx.tlast), held.eq(ours)]
        m.d.comb += [
            received.i.valid.eq(rx.tvalid & ours),
            received.i.payload.data.eq(rx.tdata),
            received.i.payload.keep.eq(rx.tkeep),
            received.i.payload.last.eq(rx.tlast),
            received.i.payload.error.eq(rx.tuser),
        ]
        m.submodules.rx_half = rx_half = HalfBuffer(received.o.payload.shape())
        wiring.connect(m, received.o, rx_half.i)
        to_axis(m, rx_half.o, self.host_rx)
        m.d.sync += self.host_dropped.eq(self.host_dropped + received.count_dropped)

        m.submodules.tx_half = tx_half = HalfBuffer(to_send.i.payload.shape())
        from_axis(m, self.host_tx, tx_half.i)
        wiring.connect(m, tx_half.o, to_send.i)
        stored = AxiStreamSignature(self._cfg.data_width).create(path=("stored",))
        to_axis(m, to_send.o, stored)
        self._take_turns(m, [self.engine_tx, stored], self.mac_tx)
        return m

    def _take_turns(self, m, stations, mac):
        """Frames of two stations to the MAC; the one that did not send last comes first."""
        sending, turn = Signal(), Signal()
        for number, station in enumerate(stations):
            with m.If(sending & (turn == number)):
                m.d.comb += [
                    *(getattr(mac, name).eq(getattr(station, name)) for name in ("tvalid", "tdata", "tkeep", "tlast")),
                    station.tready.eq(mac.tready),
                ]
        other = Mux(turn, stations[0].tvalid, stations[1].tvalid)
        with m.If(~sending):
            m.d.sync += [sending.eq(stations[0].tvalid | stations[1].tvalid), turn.eq(turn ^ other)]
        with m.Elif(mac.tvalid & mac.tready & mac.tlast):
            m.d.sync += sending.eq(0)
