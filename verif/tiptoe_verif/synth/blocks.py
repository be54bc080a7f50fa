"""The blocks whose area and speed are tracked: one line each, in the order of the report.

``Block(name, factory, ...)``: ``factory`` returns the Amaranth component; import inside it, so that one broken block
does not stop the others. ``no_collision`` names the memories (patterns of paths below the block, ``"*"`` for all) whose
design excludes or forwards reading and writing one address in the same cycle: for them the read-first bypass logic that
yosys would add is left out. It is refused for a memory with several write ports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Block:
    """One component to synthesise alone."""

    name: str
    factory: Callable[[], Any]
    no_collision: tuple[str, ...] = ()
    inside: str = ""
    """Its path in the engine, where its ``no_collision`` holds too; the name if not given."""
    whole: bool = False
    """The whole engine: takes many minutes, so it runs only when asked for by name or with ``--all``. Its parts, which have
    registers between them, are mapped one by one."""


def _example() -> Any:
    from ..example import AxiStreamSlice

    return AxiStreamSlice()


def _flow() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.flow.flow import Flow

    return Flow(ECP5)


def _congestion() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.flow.congestion.unit import CongestionUnit

    return CongestionUnit(ECP5)


def _realign() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.wire.realign import Realigner

    return Realigner(ECP5)


def _dma_read() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.dma_read import DmaReader

    return DmaReader(ECP5, clients=2)


def _dma_write() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.dma_write import DmaWriter

    return DmaWriter(ECP5, clients=2)


def _tx() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.tx.path import TxPath

    return TxPath(ECP5)


def _rx_parser() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.rx.parser import RxParser

    return RxParser(ECP5)


def _rx_buffer() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.rx.buffer import RxBuffer

    return RxBuffer(ECP5)


def _placement() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.rx.placement import Placement

    return Placement(ECP5)


def _registers() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.registers import Registers

    return Registers(ECP5)


def _counters() -> Any:
    from tiptoe_hdl.host.counters import CounterBank

    return CounterBank()


def _commands() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.commands import CommandProcessor

    return CommandProcessor(ECP5)


def _events() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.events import EventWriter

    return EventWriter(ECP5)


def _connection_table() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.flow.connection_table import ConnectionTable

    return ConnectionTable(ECP5)


def _isn() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.listen.isn import IsnGenerator

    return IsnGenerator(ECP5)


def _listen_unit() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.listen.listen_unit import ListenUnit

    return ListenUnit(ECP5)


def _cookies() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.listen.cookies import SynCookies

    return SynCookies(ECP5)


def _dispatcher() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.rx.dispatcher import Dispatcher

    return Dispatcher(ECP5)


# An instruction writes behind its reads.
_CONGESTION_APART = ("congestion.processor.state*", "congestion.processor.temporaries*")

BLOCKS = [
    Block("axis_slice", _example),
    # Issue keeps same-address events apart or forwards them; a stale deadline is looked at again in the next tick.
    Block("flow", _flow, no_collision=("pipeline.bank_*", "sweep.memory*", *_CONGESTION_APART)),
    Block(
        "congestion", _congestion, no_collision=("processor.state*", "processor.temporaries*"), inside="flow.congestion"
    ),
    Block("realign", _realign),
    Block("registers", _registers),
    Block("counters", _counters),
    # A slot of the buffer is read after it is filled.
    Block("commands", _commands, no_collision=("fetcher.storage*",)),
    # A position that is read while it is written is read again.
    Block("events", _events, no_collision=("connections.positions*",)),
    Block("dma_read", _dma_read),
    Block("dma_write", _dma_write),
    # The slot that is read is complete; the frame under way has another one.
    Block("rx_parser", _rx_parser, no_collision=("builder.store.memory*",), inside="parser"),
    # Only committed frames are read.
    Block("rx_buffer", _rx_buffer, no_collision=("memory*",), inside="buffer"),
    # An id has no verdict under way while it gets a ring; a breakage is read again before it counts.
    Block("placement", _placement, no_collision=("targets.rings*", "conclusions.broken*")),
    Block("dispatcher", _dispatcher),
    Block("cookies", _cookies),
    # No row is read in the cycle of an update's write.
    Block("connection_table", _connection_table, no_collision=("way*",), inside="table"),
    Block("isn", _isn),
    # Entries are not read while written; what the listen table shows of an entry while it is ``changing`` is not looked at, and
    # no row of it is written in the cycle of a search.
    Block(
        "listen_unit",
        _listen_unit,
        inside="listen",
        no_collision=(
            "cache.peer*",
            "cache.own*",
            "cache.status*",
            "listeners.storage*",
            "listeners.places*",
            "listeners.slice*",
        ),
    ),
    # What is read is never written in the same cycle: a header follows a beat behind, a payload is complete, an
    # endpoint and its ring are not written while segments of the connection are under way.
    Block(
        "tx",
        _tx,
        no_collision=(
            "resolver.endpoints*",
            "resolver.rings*",
            "assembler.headers*",
            "assembler.payloads*",
        ),
    ),
]


def _engine() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.engine import Engine

    return Engine(ECP5)


_INSIDE = tuple(f"{block.inside or block.name}.{pattern}" for block in BLOCKS for pattern in block.no_collision)

BLOCKS.append(Block("engine", _engine, no_collision=_INSIDE, whole=True))
