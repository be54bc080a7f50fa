"""Is a command well formed? The rules that need no state: opcode, ranges, alignment."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..congestion import NUMBERS
from ..messages import Status
from ..wire.ones import ones_below
from .abi import COMMAND_HEADER, COMMANDS, Opcode
from .command_fetch import dwords

MIN_MSS = 48
"""Least maximum segment size taken (RFC 9293 leaves it open; smaller ones let a peer make a flood of segments)."""

CHECK_CYCLES = 4
"""From the command to its status."""

WITH_TID = (
    Opcode.PROVISION,
    Opcode.OPEN,
    Opcode.CLOSE,
    Opcode.ABORT,
    Opcode.RELEASE,
    Opcode.PATH_MTU,
    Opcode.READ_TCB,
    Opcode.SET_IP_HEADER,
    Opcode.SET_CONGESTION,
    Opcode.KEEPALIVE,
    Opcode.URGENT,
    Opcode.SET_CWND,
    Opcode.SET_PACING,
)


def max_mss(cfg: EngineConfig) -> int:
    """Largest payload of a frame: Ethernet, IPv4 and TCP headers without options take 54 bytes."""
    return cfg.max_frame_bytes - 54


MORE_V6 = 20
"""So many bytes less over IPv6."""


def command_field(dwords, opcode: Opcode, name: str) -> Value:
    """A field of a command, by the tables of ``abi``."""
    for field, dword, low, width in (*COMMAND_HEADER, *COMMANDS[opcode]):
        if field == name:
            return Cat(dwords)[dword * 32 + low : dword * 32 + low + width]
    raise KeyError(name)


class CommandCheck(wiring.Component):
    """Judges a command that stays unchanged for CHECK_CYCLES.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    dwords : In, the command
    status : Out(Status)
        OK, UNKNOWN_OPCODE, BAD_ID or BAD_ARGUMENT.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({"dwords": In(data.ArrayLayout(32, dwords(cfg))), "status": Out(Status)})

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg

        def field(opcode, name):
            return command_field(self.dwords, opcode, name)

        def check(name, condition):
            signal = Signal(name=name)
            m.d.sync += signal.eq(condition)
            return signal

        def in_range(value, low, high):
            return (value >= low) & (value <= high)

        def ring_ok(name):
            base, log2 = field(Opcode.PROVISION, f"{name}_base"), field(Opcode.PROVISION, f"{name}_log2")
            mask = Signal(24, name=f"{name}_mask")
            m.d.sync += mask.eq(ones_below(log2, len(mask)))
            aligned = check(f"{name}_aligned", ~(base[:24] & mask).any())
            reachable = check(f"{name}_reachable", ~base[cfg.addr_width :].any())
            sized = check(f"{name}_sized", in_range(log2, cfg.ring_log2_min, 24))
            return aligned & reachable & sized

        tid = field(Opcode.OPEN, "tid")
        id_ok = check("id_ok", ~(tid[cfg.id_bits : 16].any() | tid[24:].any()))
        # One place in all commands that have them.
        mss_ok = check("mss_ok", in_range(field(Opcode.OPEN, "mss"), MIN_MSS, max_mss(cfg)))
        if cfg.ipv6:  # of PATH_MTU the family is not known here: a segment too long is not sent (TX_DROPPED)
            opcode = field(Opcode.NOP, "opcode")
            v6 = check("v6", (field(Opcode.OPEN, "laddr")[24:] == 0) & field(Opcode.OPEN, "laddr").any())
            opens = check("opens", (opcode == Opcode.OPEN) | (opcode == Opcode.LISTEN))
            mss_ok &= ~(v6 & opens & check("longer_v6", field(Opcode.OPEN, "mss") > max_mss(cfg) - MORE_V6))
        scale_ok = check("scale_ok", field(Opcode.OPEN, "rcv_scale") <= 14)
        next_hop_ok = check(
            "next_hop_ok", ~field(Opcode.OPEN, "use_next_hop") | (field(Opcode.OPEN, "next_hop") < cfg.next_hops)
        )
        index = field(Opcode.LISTEN, "listener")
        listener_ok = check("listener_ok", index < cfg.listeners)
        index_ok = check("index_ok", index < cfg.next_hops)
        ref_ok = check("ref_ok", ~index[16:].any())
        frame_ok = check(
            "frame_ok",
            in_range(field(Opcode.SEND_FRAME, "length"), 14, cfg.max_frame_bytes)
            & ~field(Opcode.SEND_FRAME, "addr")[cfg.addr_width :].any(),
        )
        algorithm = field(Opcode.SET_CONGESTION, "algorithm")
        algorithm_ok = check("algorithm_ok", Cat(algorithm == NUMBERS[name] for name in cfg.congestion).any())
        rings_ok = ring_ok("snd") & ring_ok("rcv")

        arguments = {
            Opcode.PROVISION: rings_ok,
            Opcode.OPEN: mss_ok & scale_ok & next_hop_ok,
            Opcode.LISTEN: listener_ok & mss_ok & scale_ok,
            Opcode.UNLISTEN: listener_ok,
            Opcode.SYNCACHE_DROP: ref_ok,
            Opcode.NEXT_HOP: index_ok,
            Opcode.PATH_MTU: mss_ok,
            Opcode.SEND_FRAME: frame_ok,
            Opcode.SET_CONGESTION: algorithm_ok,
            Opcode.SET_PACING: int(cfg.pacing),
        }
        good = Signal()
        known = Signal()
        with_tid = Signal()
        with m.Switch(field(Opcode.NOP, "opcode")):
            for opcode in Opcode:
                with m.Case(opcode):
                    m.d.sync += [known.eq(1), with_tid.eq(opcode in WITH_TID), good.eq(arguments.get(opcode, 1))]
            with m.Default():
                m.d.sync += known.eq(0)
        m.d.sync += self.status.eq(
            Mux(
                ~known,
                Status.UNKNOWN_OPCODE,
                Mux(with_tid & ~id_ok, Status.BAD_ID, Mux(good, Status.OK, Status.BAD_ARGUMENT)),
            )
        )
        return m
